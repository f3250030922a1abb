//! Mailboxes: sealed messages for a peer that may be away, which other nodes keep for it.
//!
//! Who may write is the recipient's own word, the rules in its mailbox. They are what holders go by, so a sender reads them first: it does the work that they ask for, shows the
//! token that it was given, or learns that it is not welcome before it has done anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::{
    Draft, EntryId, Kind, MAX_CLEARED, MailboxPolicy, MailboxRules, MailboxToken, Network, Place, Record,
    mailbox_context, solve_work,
};
use peerage_dht::{Operation, Options, Outcome};
use peerage_identity::{NodeKey, PeerId, SEALING_OVERHEAD, inlined_public_key, open_sealed, seal_to};
use tokio::time::Instant;

use super::DhtCore;
use super::handle::{Dht, DhtCall, DhtError, Terms, stored};
use super::report::DhtReport;
use crate::environment::seed;

/// The rules of a mailbox are looked for so long at most, and for half of the time that the call has.
const RULES_WITHIN: Duration = Duration::from_secs(5);
/// For each bit of work the tries double; with as many more, one message in eighty thousand billion finds none.
const SPARE_WORK: u32 = 5;

/// A message from a mailbox, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Letter {
    /// Who signed it.
    pub from: PeerId,
    /// The content.
    pub body: Bytes,
    /// Names it, for [`Dht::clear_mailbox`].
    pub id: EntryId,
}

impl Dht {
    /// Leaves a message of up to some 4,000 bytes for a node that may be away: sealed, so that it alone can read it, and signed by this one. It is kept for a
    /// week, or until it was read.
    ///
    /// A stranger's message costs the sender a proof of work: as much as the rules in the recipient's mailbox ask for, which are looked up first, or what the network asks for
    /// by default. It is done on a thread of its own, and not at all where it would be more than [`DhtConfig::most_mail_work_bits`](super::DhtConfig::most_mail_work_bits).
    /// Who has a token of the recipient's ([`DhtCall::token`]) needs none.
    pub fn mail(&self, to: PeerId, message: impl AsRef<[u8]>) -> DhtCall<DhtReport> {
        let (dht, sealed) = (self.clone(), self.seal(&to, message.as_ref()));
        let make = move |options: Options, terms: Terms| async move {
            let (core, sealed, start) = (dht.core()?.clone(), sealed?, Instant::now());
            let place = Place::Mailbox { recipient: to, slot: 0 };
            let bits = dht.work_for(&core, to, options, &terms).await?;
            let (mut draft, renew) = dht.draft(&core, place, sealed, &terms)?;
            draft.token = terms.token;
            if bits > 0 {
                draft.work = {
                    let left = options.deadline.map(|deadline| deadline.saturating_sub(start.elapsed()));
                    work(&dht, &core, draft.clone(), bits, left).await?
                };
            }
            let record = dht.sign(&core, draft)?;
            Ok(Operation::Publish { record: Box::new(record), renew })
        };
        self.make(make, stored)
    }

    /// Who may write to a peer's mailbox: its own word, as the holders of its mailbox have it, else what the network has by default. It is looked for on the way that a message
    /// takes, so that it costs little more than the message.
    pub fn mailbox_policy(&self, of: PeerId) -> DhtCall<(MailboxPolicy, DhtReport)> {
        let read = move |core: &DhtCore, outcome: &Outcome| {
            let rules = outcome.values.iter().filter_map(|found| rules(&core.network, &of, &found.value));
            rules.map(|(seq, rules)| (seq, rules.policy)).collect()
        };
        let default = MailboxPolicy::Open { work_bits: self.mailbox_work_bits() };
        let found = self.collect(&Place::Mailbox { recipient: of, slot: 0 }, 1, read);
        // Our own we may know better.
        let own = self.core().ok().filter(|_| of == self.shared.me).and_then(|core| *core.policy.borrow());
        found.map(move |(said, report): (Vec<(u64, MailboxPolicy)>, _)| {
            let last = said.into_iter().chain(own).max_by_key(|(seq, _)| *seq);
            (last.map_or(default, |(_, policy)| policy), report)
        })
    }

    /// Leave for `sender` to write to this node's mailbox without work, and where it takes messages of contacts only, for so long. It is of no use to anybody else.
    pub fn mailbox_token(&self, sender: &PeerId, lasts: Duration) -> Bytes {
        let until = self.shared.clock.now().unix.saturating_add(lasts);
        MailboxToken::issue(&self.shared.key, sender, until.as_secs())
    }

    /// The messages in this node's mailbox, those that open and were not cleared, by sender. What cannot be opened was sealed to somebody else and is passed over.
    pub fn mailbox(&self) -> DhtCall<(Vec<Letter>, DhtReport)> {
        let (me, key) = (self.shared.me, self.shared.key.clone());
        let read = move |core: &DhtCore, outcome: &Outcome| {
            let values = || outcome.values.iter().map(|found| &found.value);
            if let Some((seq, rules)) = values().find_map(|value| rules(&core.network, &me, value)) {
                core.remember_cleared(&rules.cleared);
                // After a restart they are known from there.
                core.rules_are(seq, rules.policy);
            }
            let records = values().filter_map(|value| Record::open(&core.network, value).ok());
            let others = records.filter(|record| record.publisher() != me);
            // A holder that has not heard of the rules has what was cleared.
            let fresh = others.filter(|record| !core.is_cleared(&record.id()));
            fresh.filter_map(|record| letter(core, &key, &record)).collect()
        };
        let wanted = self.shared.dht.as_ref().map_or(0, |dht| dht.records.mailbox_messages);
        self.collect(&Place::Mailbox { recipient: me, slot: 0 }, wanted, read)
    }

    /// Tells the holders of this node's mailbox which messages were read, so that they drop them, and who may write: whoever does the work, only contacts with
    /// a token, or nobody. What was read before counts as read too. The policy stands in the endpoint record as well, from the next time that it is published, and both are
    /// renewed while the node runs.
    pub fn clear_mailbox(&self, read: Vec<EntryId>, policy: MailboxPolicy) -> DhtCall<DhtReport> {
        let dht = self.clone();
        let number = Arc::new(AtomicU64::new(0));
        let seq = number.clone();
        let make = move |_: Options, terms: Terms| async move {
            let core = dht.core()?.clone();
            core.remember_cleared(&read);
            let place = Place::Mailbox { recipient: dht.shared.me, slot: 0 };
            let body = MailboxRules { policy, cleared: core.cleared() }.encode();
            let (draft, renew) = dht.draft(&core, place, body, &terms)?;
            number.store(draft.seq, Ordering::Relaxed);
            Ok(Operation::Publish { record: Box::new(dht.sign(&core, draft)?), renew })
        };
        let core = self.core().cloned();
        let read = move |outcome: &Outcome| {
            let report = stored(outcome);
            // What holders are about to hear stands in the endpoint record, and not what nobody has heard.
            if let (Ok(core), true) = (&core, report.is_ok() || outcome.looked_after) {
                core.rules_are(seq.load(Ordering::Relaxed), policy);
            }
            report
        };
        self.make(make, read)
    }

    /// The leading zero bits of work that a stranger's message needs by default; 0 without a DHT.
    pub fn mailbox_work_bits(&self) -> u32 {
        self.shared.dht.as_ref().map_or(0, |dht| dht.records.mailbox_work_bits)
    }

    fn seal(&self, to: &PeerId, message: &[u8]) -> Result<Bytes, DhtError> {
        let core = self.core()?;
        if *to == self.shared.me {
            return Err(DhtError::Record("it is a message to this node itself".to_owned()));
        }
        let most = core.records.of(Kind::Mailbox).max_body_bytes.saturating_sub(SEALING_OVERHEAD);
        if message.len() > most {
            let why = format!("the message has {} bytes: give at most {most}", message.len());
            return Err(DhtError::Record(why));
        }
        let key = inlined_public_key(to).ok_or_else(|| {
            DhtError::Record(format!("{to} does not hold its key, so nothing can be sealed to it"))
        })?;
        let entropy = seed(self.shared.environment.as_ref())
            .map_err(|error| DhtError::Record(format!("there is no randomness: {error}")))?;
        let context = mailbox_context(&core.network, &self.shared.me, to);
        seal_to(&key, &context, message, &entropy).map_err(|error| DhtError::Record(error.to_string()))
    }

    /// How much work a message to a peer needs.
    async fn work_for(
        &self,
        core: &DhtCore,
        to: PeerId,
        options: Options,
        terms: &Terms,
    ) -> Result<u32, DhtError> {
        let not_welcome = |why: String| Err(DhtError::NotWelcome { peer: to, why });
        if !terms.token.is_empty() {
            let unix = self.shared.clock.now().unix.as_secs();
            return match MailboxToken::admits(&terms.token, &to, &self.shared.me, unix) {
                true => Ok(0),
                false => not_welcome("the token is not of its, not for this node, or too old".to_owned()),
            };
        }
        let within = options.deadline.map_or(RULES_WITHIN, |deadline| (deadline / 2).min(RULES_WITHIN));
        let (policy, _) = self.mailbox_policy(to).class(options.class).deadline(within).await?;
        match policy {
            MailboxPolicy::Closed => not_welcome("it takes none".to_owned()),
            MailboxPolicy::Contacts => not_welcome(
                "it takes those of contacts alone: ask it for a token (DhtCall::token)".to_owned(),
            ),
            MailboxPolicy::Open { work_bits } if work_bits > core.most_mail_work_bits => {
                let most = core.most_mail_work_bits;
                not_welcome(format!(
                    "it asks for {work_bits} bits of work, and {most} are the most that this node does: ask it \
                     for a token, or raise DhtConfig::most_mail_work_bits"
                ))
            }
            MailboxPolicy::Open { work_bits } => Ok(work_bits),
        }
    }
}

impl DhtCore {
    /// Who may write to this node's mailbox, as its holders know.
    fn rules_are(&self, seq: u64, policy: MailboxPolicy) {
        let before = *self.policy.borrow();
        if before.is_none_or(|(known, _)| known < seq) {
            self.policy.send_replace(Some((seq, policy)));
        }
    }

    /// Messages that were read, so that no later word of ours says less than an earlier one.
    fn remember_cleared(&self, read: &[EntryId]) {
        let mut cleared = self.cleared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known: BTreeSet<EntryId> = cleared.iter().copied().collect();
        cleared.extend(read.iter().filter(|id| !known.contains(id)));
        let excess = cleared.len().saturating_sub(MAX_CLEARED);
        cleared.drain(..excess);
    }

    fn cleared(&self) -> Vec<EntryId> {
        self.cleared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn is_cleared(&self, id: &EntryId) -> bool {
        self.cleared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(id)
    }
}

/// Finds the number that gives a message its work, beside the tasks that must not wait for it. It ends with whoever wanted it, with the node, and with the time of the call.
async fn work(
    dht: &Dht,
    core: &DhtCore,
    draft: Draft,
    bits: u32,
    deadline: Option<Duration>,
) -> Result<u64, DhtError> {
    let tries = 1u64.checked_shl(bits + SPARE_WORK).unwrap_or(u64::MAX);
    let (network, me, stop) = (core.network.clone(), dht.shared.me, dht.shared.stop.clone());
    // Dropped with the call.
    let wanted = Arc::new(());
    let still = Arc::downgrade(&wanted);
    let go_on = move |tried| tried < tries && still.strong_count() > 0 && !stop.is_cancelled();
    let solve = move || solve_work(&network, &draft.place, &me, draft.seq, &draft.body, bits, go_on);
    let solving = tokio::task::spawn_blocking(solve);
    let found = match deadline {
        Some(deadline) => tokio::time::timeout(deadline, solving).await.map_err(|_| {
            DhtError::Record(format!("no proof of {bits} bits of work was found in the time of the call"))
        })?,
        None => solving.await,
    };
    if dht.shared.stop.is_cancelled() {
        return Err(DhtError::Closed);
    }
    found.ok().flatten().ok_or_else(|| DhtError::Record(format!("no proof of {bits} bits of work was found")))
}

/// The rules that a mailbox's owner keeps in it, if a value is those, with their number.
fn rules(network: &Network, owner: &PeerId, value: &Bytes) -> Option<(u64, MailboxRules)> {
    let record = Record::open(network, value).ok().filter(|record| record.publisher() == *owner)?;
    Some((record.version().seq, MailboxRules::decode(record.body()?).ok()?))
}

fn letter(core: &DhtCore, key: &NodeKey, record: &Record) -> Option<Letter> {
    let (from, me) = (record.publisher(), key.peer_id());
    let context = mailbox_context(&core.network, &from, &me);
    let opened = open_sealed(key, &context, record.body()?).ok()?;
    Some(Letter { from, body: Bytes::copy_from_slice(&opened), id: record.id() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DhtConfig, Node};

    #[tokio::test]
    async fn work_ends_with_the_time_of_its_call_and_with_the_node() {
        let node = Node::builder().dht(DhtConfig::default()).start().await.unwrap();
        let dht = node.dht();
        let core = dht.core().unwrap().clone();
        let place = Place::Mailbox { recipient: node.peer_id(), slot: 0 };
        let draft = Draft::new(place, 1, 9, Bytes::from_static(b"hello"));
        let time = Some(Duration::from_millis(20));
        let late = work(&dht, &core, draft.clone(), 60, time).await.unwrap_err();
        assert!(late.to_string().contains("in the time of the call"), "{late}");
        let working = tokio::spawn({
            let (dht, core) = (dht.clone(), core.clone());
            async move { work(&dht, &core, draft, 60, None).await }
        });
        tokio::task::yield_now().await;
        node.close().await;
        assert_eq!(working.await.unwrap(), Err(DhtError::Closed));
    }
}
