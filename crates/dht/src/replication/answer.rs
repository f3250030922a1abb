//! The other side of a comparison: what a holder's question is worth, and what it is told (dht.md B.3).
//!
//! Who asks is one of three. A *neighbour* is one of the closest peers that we know: it is told of whatever both should have, and what it hands over comes from a
//! holder. A *guest* is verified and no neighbour of ours, though we may be one of its: it is told of the records that its place makes it hold beside us. A *stranger* is told
//! of single records that it names, as far as anybody may ask for them; what a stranger or a guest hands over is held to the rates of any sender.
//!
//! A question looks at each record at most once, and once more where it is listed, whatever it asks for; each look is charged to the one who asks. Answers keep within what a message may hold
//! ([`super::MAX_DIGESTS`], [`super::MAX_HASHES`], [`super::MAX_ITEMS`], [`super::MAX_RECORDS`]): a part for which there is no room is answered with our digest of it, so that it is asked for again.

use std::net::IpAddr;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use super::asking::DIGESTS_AT_ONCE;
use super::digest::short;
use super::index::{Held, Side, View};
use super::message::{
    ITEM_BYTES, Item, List, MAX_DIGESTS, MAX_HASHES, MAX_IDS, MAX_ITEMS, MAX_RECORDS, RawValue,
    RepairMessage, Verdict,
};
use super::repair::{Repair, scope_of};
use super::{Prefix, Scope};
use crate::record::{ClockChanged, EntryId, Kind, Records, Unverified};
use crate::store::{Near, Put, Sender, Store, What};
use crate::{Key, MAX_REPAIR_BYTES, Subnet};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Its name, as the connection proves it.
    pub peer: PeerId,
    /// Where it is.
    pub remote: IpAddr,
    /// Whether it stands in the routing table: it has answered us at an address of its own.
    pub verified: bool,
}

/// Why a question is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// It makes no sense: it asks for too much, or for the same twice.
    Invalid,
    /// The asker shares no records with us.
    NotServed,
    /// The asker has asked for too much lately.
    Busy,
}

/// What taking in a record costs, in looks.
pub(super) const RECORD_LOOKS: usize = 100;
/// A part of so many records is listed, not divided: a list costs no more than the digests of its parts.
const LIST_AT_ONCE: usize = 96;

impl Repair {
    /// Another holder asks.
    ///
    /// # Errors
    /// [`Declined`].
    pub fn asked(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        store: &mut Store,
        asker: &Asker,
        question: &RepairMessage,
    ) -> Result<(RepairMessage, Option<ClockChanged>), Declined> {
        let key = Key::of_peer(&asker.peer);
        let scope = question.scope.and(scope_of(records));
        let view = self.view(now, &key, scope);
        let neighbour = view.is_some();
        let guest = Side::Guest { peer: key, own: self.own };
        let guest = View { side: guest, scope, unix: now.unix.as_secs() };
        let view = view.or_else(|| asker.verified.then_some(guest));
        check_form(question)?;
        if view.is_none() && !(question.digests.is_empty() && question.want.is_empty()) {
            return Err(Declined::NotServed);
        }
        if view.is_some() && !self.has_credit(now, &key) {
            return Err(Declined::Busy);
        }
        let clock = if neighbour { self.clocks.note(now, asker.peer, question.unix) } else { None };
        let mut answer = RepairMessage { scope, ..RepairMessage::at(now.unix.as_secs()) };
        let sender = match neighbour {
            true => Sender::Holder { peer: asker.peer, subnet: Subnet::of(asker.remote) },
            false => Sender::Peer { peer: asker.peer, remote: asker.remote },
        };
        let mut handed = Vec::new();
        for value in &question.records {
            let put = self.take_in(now, records, near, store, sender, value);
            answer.verdicts.push(verdict(&put));
            if neighbour && put.is_there() {
                handed.extend(id_of(records, value));
            }
        }
        self.refresh(now, records, store);
        handed.into_iter().for_each(|id| self.note_moved(now, &key, id));
        let mut looks = question.records.len() * RECORD_LOOKS + question.have.len() + question.want.len();
        if let Some(view) = view {
            looks += self.compare(view, question, &mut answer);
            looks += self.note_equal(now, records, &key, question, &answer);
        }
        self.tell_of(records, store, asker, view, &question.have, &mut answer);
        if let Some(view) = view {
            looks += self.hand_out(now, records, store, view, &question.want, &mut answer);
        }
        self.charge(now, &key, looks);
        self.stats.bytes_sent += answer.wire_bytes() as u64;
        Ok((answer, clock))
    }

    /// What their digests call for: nothing where ours is the same; what we have, where that is little; otherwise the digests of the parts. Returns how many records were
    /// looked at.
    fn compare(&self, view: View, question: &RepairMessage, answer: &mut RepairMessage) -> usize {
        let (mut looks, mut listed) = (0, 0);
        let whole = question.whole.filter(|_| view.scope != Scope::default());
        if whole.is_some() && view.scope != question.scope {
            // Theirs counts more than we do: they are to compare within what both know.
            let ours = self.index.survey(view, Prefix::ALL);
            answer.digests.push((Prefix::ALL, ours.whole));
            return ours.looks;
        }
        let whole = whole.map(|whole| vec![(Prefix::ALL, whole)]);
        let theirs = whole.as_ref().unwrap_or(&question.digests);
        for (number, (prefix, theirs)) in theirs.iter().enumerate() {
            let ours = self.index.survey(view, *prefix);
            looks += ours.looks;
            if ours.whole == *theirs {
                continue;
            }
            let count = ours.whole.count as usize;
            let few = count <= LIST_AT_ONCE && theirs.count <= 4 * LIST_AT_ONCE as u32;
            let still_to_come = DIGESTS_AT_ONCE.saturating_sub(number + 1);
            if few || prefix.parts().next().is_none() {
                if listed + count.min(LIST_AT_ONCE) <= MAX_HASHES {
                    let hashes = self.index.common(view, *prefix).map(|held| short(held.hash_in(view)));
                    let hashes: Vec<u64> = hashes.take(LIST_AT_ONCE).collect();
                    listed += hashes.len();
                    looks += ours.looks;
                    answer.lists.push(List { prefix: *prefix, hashes });
                    continue;
                }
            } else if answer.digests.len() + Prefix::PARTS + still_to_come <= MAX_DIGESTS {
                answer.digests.extend(prefix.parts().zip(ours.parts));
                continue;
            }
            answer.digests.push((*prefix, ours.whole));
        }
        looks
    }

    /// Says of records whether we have them: to those who hold them beside us, and to whoever has published them. Of mailboxes nobody else learns anything.
    fn tell_of(
        &self,
        records: &Records,
        store: &Store,
        asker: &Asker,
        view: Option<View>,
        ids: &[EntryId],
        answer: &mut RepairMessage,
    ) {
        let may_know = |id: &EntryId, kind: Kind, publisher: &PeerId| {
            kind != Kind::Mailbox || *publisher == asker.peer || self.shares(view, id)
        };
        let have = |id: &EntryId| match store.kept(records, id)?.what {
            What::Record { kind, publisher, version, .. } => {
                may_know(id, kind, publisher).then(|| Item::of(*id, version))
            }
            What::Raw { .. } => self.index.get(id).filter(|_| self.shares(view, id)).map(|held| held.item),
        };
        let room = (MAX_REPAIR_BYTES - 1024).saturating_sub(answer.wire_bytes()) / ITEM_BYTES;
        let items = ids.iter().take(MAX_IDS).filter_map(have).take(room.min(MAX_ITEMS));
        answer.items = items.collect();
    }

    /// The records whose hashes are asked for, of those that both sides should have. Returns how many looks that was: a validator may check signatures.
    fn hand_out(
        &self,
        now: Now,
        records: &Records,
        store: &mut Store,
        view: View,
        hashes: &[u64],
        answer: &mut RepairMessage,
    ) -> usize {
        let mut looks = 0;
        for hash in hashes.iter().take(MAX_IDS) {
            let held = self.index.by_hash(*hash).filter(|held| held.is_common(view));
            let raw = |held: &&Held| {
                store.kept(records, &held.item.id).is_some_and(|kept| matches!(kept.what, What::Raw { .. }))
            };
            looks += if held.filter(raw).is_some() { RECORD_LOOKS } else { 0 };
            let values = held.and_then(|held| Self::with_proof(now, records, store, &held.item.id));
            let Some(values) = values else { continue };
            let more: usize = values.iter().map(Bytes::len).sum();
            let full = answer.wire_bytes() + more > MAX_REPAIR_BYTES - 1024;
            if full || answer.records.len() + values.len() > MAX_RECORDS {
                break;
            }
            answer.records.extend(values);
        }
        looks
    }

    fn shares(&self, view: Option<View>, id: &EntryId) -> bool {
        view.zip(self.index.get(id)).is_some_and(|(view, held)| held.is_common(view))
    }

    /// They have compared, so we needn't; whose turn it is next is left to chance. Returns how many records were looked at.
    fn note_equal(
        &mut self,
        now: Now,
        records: &Records,
        key: &Key,
        question: &RepairMessage,
        answer: &RepairMessage,
    ) -> usize {
        let about_all = matches!(&question.digests[..], [(prefix, _)] if *prefix == Prefix::ALL);
        if !about_all || !answer.digests.is_empty() || !answer.lists.is_empty() {
            return 0;
        }
        let own = scope_of(records);
        // Without a digest of everything they know nothing of what we have beyond the records, and are to hear of it.
        let (hides, looks) = match question.whole.is_some() && question.scope == own || self.index.is_plain()
        {
            true => (false, 0),
            false => (self.begin_with(now, records, key).1.is_some(), 2 * self.index.len()),
        };
        if let Some(pair) = self.pairs.get_mut(key).filter(|_| !hides) {
            pair.is_same(now.mono, own);
            pair.refused.clear();
            pair.due = pair.due.max(now.mono + self.period / 2);
        }
        looks
    }

    /// Whether somebody may ask now: who owes looks waits.
    fn has_credit(&mut self, now: Now, key: &Key) -> bool {
        if let Some(pair) = self.pairs.get_mut(key) {
            return pair.credit.available(now) > 0.0;
        }
        if !self.guests.contains_key(key) && self.guests.len() >= self.config.max_guests {
            self.guests.retain(|_, credit| !credit.is_full(now));
            if self.guests.len() >= self.config.max_guests {
                return false;
            }
        }
        let fresh = || self.config.credit(now);
        self.guests.entry(*key).or_insert_with(fresh).available(now) > 0.0
    }

    fn charge(&mut self, now: Now, key: &Key, looks: usize) {
        self.stats.looks += looks as u64;
        let pair = self.pairs.get_mut(key).map(|pair| &mut pair.credit);
        if let Some(credit) = pair.or_else(|| self.guests.get_mut(key)) {
            credit.charge(looks as f64, now);
        }
    }
}

/// Whether a question is one that an honest holder asks: about few parts, none of which lies in another.
fn check_form(question: &RepairMessage) -> Result<(), Declined> {
    let prefixes = || question.digests.iter().map(|(prefix, _)| prefix);
    let twice =
        prefixes().enumerate().any(|(at, prefix)| prefixes().take(at).any(|other| other.overlaps(prefix)));
    let begins = || matches!(&question.digests[..], [(prefix, _)] if *prefix == Prefix::ALL);
    let odd = question.whole.is_some() && !begins();
    match question.digests.len() > DIGESTS_AT_ONCE || twice || odd {
        true => Err(Declined::Invalid),
        false => Ok(()),
    }
}

/// The name of what a message hands over.
fn id_of(records: &Records, value: &Bytes) -> Option<EntryId> {
    let record = Unverified::read(records.network(), value).map(|read| read.claim().id());
    let raw = || RawValue::read(value).map(|raw| EntryId::of(raw.target.key(), &Bytes::new()));
    record.ok().or_else(raw)
}

fn verdict(put: &Put) -> Verdict {
    match put {
        Put::Stored => Verdict::Stored,
        Put::Known | Put::Stale(_) => Verdict::Known,
        Put::Busy => Verdict::Busy,
        Put::Refused(_) => Verdict::Refused,
    }
}
