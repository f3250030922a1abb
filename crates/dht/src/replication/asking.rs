//! The asking side of a comparison: from the digest of all records to the single ones that are handed over or taken (dht.md B.3).
//!
//! What both sides should have is asked for part by part, until the other side lists the hashes of a part. Then, of the records in it,
//! - those that it doesn't list are asked about by name: two nodes that know different neighbours never count quite the same holders, so that most of them are there. What is not there is
//!   handed over, by the closest holder at once and by the others when that one has had its time;
//! - of hashes that we don't know the records are taken.
//!
//! What turns out to be no lack - it is there uncounted, or we know better than what is listed - is set aside for some periods ([`Aside`]), so that it isn't sent again each time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Now, Random};

use super::digest::{hash_of, proved_hash, short};
use super::index::{Held, Survey, View};
use super::message::{ID_BYTES, Item, List, MAX_IDS, RawValue, RepairMessage, Verdict};
use super::repair::Repair;
use super::{Prefix, Scope};
use crate::record::{ClockChanged, EntryId, Records, Unverified};
use crate::store::{Near, Put, Sender, Store};
use crate::{Contact, Key, MAX_REPAIR_BYTES};

/// A comparison under way.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) token: u64,
    /// What both sides reckon in.
    scope: Scope,
    /// When it began: what has come since was not compared.
    began: Duration,
    count: u32,
    /// Parts that are still to be asked about, what was found last first; and those that the last question was about: an answer speaks of nothing else.
    compare: VecDeque<Prefix>,
    compared: Vec<Prefix>,
    /// Records that it hasn't listed; and those that the last question was about.
    ask: VecDeque<EntryId>,
    asked: Vec<EntryId>,
    give: VecDeque<(EntryId, u64)>,
    /// The hashes of those that went with the last question; proofs beside them have none.
    given: Vec<Option<u64>>,
    /// Hashes that it has listed, of records that we don't know; and those that the last question was about.
    take: BTreeSet<u64>,
    wanted: BTreeSet<u64>,
    /// So many closer holders are waited for, before we hand over ourselves.
    postponed: Option<u32>,
    /// Something that was found is not settled.
    short: bool,
    /// It is about records by their names, and says nothing of others.
    pub(super) by_name: bool,
}

/// Bytes that records of one message may take, so that what else is in it fits.
pub(super) const RECORD_BYTES: usize = 9 * 1024;
/// Records of one message.
const RECORDS_AT_ONCE: usize = 32;
/// Parts that one question is about.
pub(super) const DIGESTS_AT_ONCE: usize = 6;
/// Parts that wait to be asked about; what is beyond comes with the next comparison.
const MAX_OPEN: usize = 256;
/// Records that one question names: the answer has room for all of them.
pub(super) const NAMES_AT_ONCE: usize = 100;

/// Hashes of records about which there is nothing to do with a neighbour, although only one of the two counts them.
#[derive(Debug, Default)]
pub(super) struct Aside {
    hashes: BTreeSet<u64>,
    /// When the first of them was noted.
    since: Duration,
    /// They are looked at anew with the next comparison.
    over: bool,
}

impl Aside {
    /// Says whether there was room for it.
    fn note(&mut self, now: Now, hash: u64, most: usize) -> bool {
        if self.hashes.is_empty() {
            self.since = now.mono;
        }
        let room = self.hashes.len() < most || self.hashes.contains(&hash);
        if room {
            self.hashes.insert(hash);
        }
        room
    }

    pub(super) fn contains(&self, hash: u64) -> bool {
        self.hashes.contains(&hash)
    }

    /// Both sides have the same: nothing is left aside.
    pub(super) fn clear(&mut self) {
        self.hashes.clear();
    }

    /// The next comparison looks at them anew.
    pub(super) fn end(&mut self) {
        self.over = true;
    }

    /// What was noted so long ago is looked at anew: a neighbour may have lost what it had.
    pub(super) fn forget_after(&mut self, now: Now, span: Duration) {
        if std::mem::take(&mut self.over) || now.mono.saturating_sub(self.since) > span {
            self.hashes.clear();
        }
    }
}

impl Round {
    /// A comparison begins with the digest of everything.
    pub(super) fn first(now: Now, token: u64, scope: Scope) -> Self {
        Self { token, scope, began: now.mono, count: 1, compared: vec![Prefix::ALL], ..Self::default() }
    }

    /// A question about records by their names.
    pub(super) fn named(now: Now, token: u64, scope: Scope, asked: Vec<EntryId>) -> Self {
        Self { token, scope, began: now.mono, count: 1, asked, by_name: true, ..Self::default() }
    }

    /// What waits to be done.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.compare.len() + self.ask.len() + self.give.len() + self.take.len()
    }
}

impl Repair {
    /// A question of ours was answered. What is left to ask, if anything.
    #[expect(clippy::too_many_arguments, reason = "what a comparison needs of its node")]
    pub fn answered(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        store: &mut Store,
        random: &mut Random,
        token: u64,
        answer: &RepairMessage,
    ) -> (Option<(u64, Contact, RepairMessage)>, Option<ClockChanged>) {
        let Some((key, contact)) = self.by_token(token) else { return (None, None) };
        let clock = self.clocks.note(now, *contact.peer(), answer.unix);
        let Some(mut round) = self.pairs.get_mut(&key).and_then(|pair| pair.round.take()) else {
            return (None, clock);
        };
        if round.count == 1 {
            // What they compare may be less than what we asked about.
            round.scope = round.scope.and(answer.scope);
        }
        let sender = Sender::Holder { peer: *contact.peer(), subnet: near.met_in(&key) };
        self.settle_wanted(now, records, near, store, sender, &key, &mut round, answer);
        self.refresh(now, records, store);
        let Some(view) = self.view(now, &key, round.scope) else { return (None, clock) };
        self.settle_given(now, &key, &mut round, &answer.verdicts);
        self.settle_named(now, &key, view, &mut round, &answer.items);
        if round.count == 1 && !round.by_name && answer.digests.is_empty() && answer.lists.is_empty() {
            self.stats.equal += 1;
            self.pairs.get_mut(&key).into_iter().for_each(|pair| pair.refused.clear());
        }
        for prefix in std::mem::take(&mut round.compared) {
            self.go_through(&key, view, prefix, answer, &mut round);
        }
        (self.go_on(now, records, store, random, &key, contact, round), clock)
    }

    /// Takes in the records that were asked for, and proofs beside those that we have.
    #[expect(clippy::too_many_arguments, reason = "what a comparison needs of its node")]
    fn settle_wanted(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        store: &mut Store,
        sender: Sender,
        key: &Key,
        round: &mut Round,
        answer: &RepairMessage,
    ) {
        let mut wanted = std::mem::take(&mut round.wanted);
        let before = wanted.len();
        for value in &answer.records {
            let (id, hash, put) = match Unverified::read(records.network(), value) {
                Ok(read) => {
                    let (id, version) = (read.claim().id(), *read.claim().version());
                    let hashes = [hash_of(&id, &version), proved_hash(&id, &version)].map(short);
                    let Some(hash) = hashes.into_iter().find(|hash| wanted.remove(hash)) else {
                        if store.version(&id).is_some_and(|ours| ours.equivocates(&version)) {
                            self.take_in(now, records, near, store, sender, value);
                        }
                        continue;
                    };
                    (id, hash, self.take_in(now, records, near, store, sender, value))
                }
                Err(_) => {
                    // A validator is asked about no more values than were asked for.
                    let Some(raw) = RawValue::read(value).filter(|raw| wanted.remove(&raw.hash)) else {
                        continue;
                    };
                    let id = EntryId::of(raw.target.key(), &Bytes::new());
                    (id, raw.hash, self.take_in_raw(now, records, near, store, sender, &raw))
                }
            };
            round.take.remove(&hash);
            match put {
                Put::Stored => self.note_moved(now, key, id),
                _ => self.set_aside(now, key, hash),
            }
        }
        if wanted.len() == before {
            // Where none has come none is there any more: a newer one may have taken its place.
            round.take.retain(|hash| !wanted.contains(hash));
        }
    }

    fn set_aside(&mut self, now: Now, key: &Key, hash: u64) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.aside.note(now, hash, self.config.max_hand_over);
        }
    }

    /// A record has come from a neighbour, or gone to it.
    pub(super) fn note_moved(&mut self, now: Now, key: &Key, id: EntryId) {
        if let Some(pair) = self.pairs.get_mut(key) {
            pair.note_moved(now, id, self.config.max_hand_over);
        }
    }

    /// What became of the records that were handed over. What was refused is no replica, and holds up nothing else.
    fn settle_given(&mut self, now: Now, key: &Key, round: &mut Round, verdicts: &[Verdict]) {
        let given = std::mem::take(&mut round.given);
        let mut missing = given.iter().flatten().count();
        for (hash, verdict) in given.iter().zip(verdicts) {
            let Some(hash) = hash else { continue };
            let (id, most) = (self.index.by_hash(*hash).map(|held| held.item.id), self.config.max_hand_over);
            let Some(pair) = self.pairs.get_mut(key) else { continue };
            let settled = match verdict {
                Verdict::Stored | Verdict::Known => {
                    id.into_iter().for_each(|id| pair.note_moved(now, id, most));
                    if *verdict == Verdict::Known {
                        pair.aside.note(now, *hash, most);
                    }
                    self.stats.handed_over += u64::from(*verdict == Verdict::Stored);
                    true
                }
                Verdict::Refused => pair.refused.note(now, *hash, most),
                Verdict::Busy => false,
            };
            missing -= usize::from(settled);
        }
        round.short |= missing > 0;
    }

    /// What the other side has of the records that we have asked about by name.
    fn settle_named(&mut self, now: Now, peer: &Key, view: View, round: &mut Round, items: &[Item]) {
        let most = self.config.max_hand_over;
        let Some(pair) = self.pairs.get_mut(peer) else { return };
        let there: BTreeMap<EntryId, &Item> = items.iter().map(|item| (item.id, item)).collect();
        for id in std::mem::take(&mut round.asked) {
            let Some(held) = self.index.get(&id).filter(|held| held.is_common(view)) else { continue };
            let known = there.get(&id);
            if known.is_some_and(|item| item.rank() >= held.item.rank()) {
                if !round.by_name {
                    pair.aside.note(now, short(held.hash_in(view)), most);
                }
                pair.note_moved(now, id, most);
            } else {
                // An older version is replaced by whoever sees it first.
                let at_once = pair.waited && !round.by_name || known.is_some();
                round.offer(held, view, rank_beside(&self.own, held, peer), at_once, most);
            }
        }
    }

    /// What an answer says of a part that we asked about: the digests of its parts, or of it itself once more where there was no room for those; or what stands in it.
    fn go_through(
        &mut self,
        key: &Key,
        view: View,
        prefix: Prefix,
        answer: &RepairMessage,
        round: &mut Round,
    ) {
        let part_at =
            |part: &Prefix| if *part == prefix { Some(Prefix::PARTS) } else { prefix.part_at(part) };
        if answer.digests.iter().any(|(part, _)| part_at(part).is_some()) {
            let Survey { whole, parts, .. } = self.index.survey(view, prefix);
            let mut told = [false; Prefix::PARTS + 1];
            for (part, theirs) in answer.digests.iter().rev() {
                let Some(at) = part_at(part) else { continue };
                let again = std::mem::replace(&mut told[at], true);
                if !again && parts.get(at).unwrap_or(&whole) != theirs {
                    round.compare.push_front(*part);
                }
            }
            round.compare.truncate(MAX_OPEN);
        }
        if let Some(list) = answer.lists.iter().find(|part| part.prefix == prefix) {
            self.settle_list(key, view, list, round);
        }
    }

    /// Compares what the other side lists of a part with what we have.
    fn settle_list(&mut self, peer: &Key, view: View, theirs: &List, round: &mut Round) {
        let most = self.config.max_hand_over;
        let Some(pair) = self.pairs.get_mut(peer) else { return };
        let mut unknown: BTreeSet<u64> = theirs.hashes.iter().copied().collect();
        // Who is new and lists nothing at all need not be asked about each record.
        let is_new = theirs.prefix == Prefix::ALL && unknown.is_empty() && pair.synced.is_none();
        // What it lists it has taken from somebody meanwhile.
        pair.refused.hashes.retain(|hash| !unknown.contains(hash));
        let aside = |hash| pair.aside.contains(hash) || pair.refused.contains(hash);
        unknown.retain(|hash| !pair.aside.contains(*hash));
        for held in self.index.part(theirs.prefix) {
            let hash = short(held.hash_in(view));
            let listed = unknown.remove(&hash);
            // It has the record alone, and we the other one beside it.
            let unproved = hash != short(held.hash) && unknown.remove(&short(held.hash));
            if listed || !held.is_common(view) || aside(hash) {
                continue;
            }
            if unproved {
                round.offer(held, view, 0, true, most);
            } else if is_new {
                round.offer(held, view, rank_beside(&self.own, held, peer), pair.waited, most);
            } else if round.ask.len() < most {
                round.ask.push_back(held.item.id);
            } else {
                round.short = true;
            }
        }
        let room = most.saturating_sub(round.take.len());
        round.short |= unknown.len() > room;
        round.take.extend(unknown.into_iter().take(room));
    }

    /// The next question of a comparison, or its end.
    #[expect(clippy::too_many_arguments, reason = "what a step of a comparison is made of")]
    fn go_on(
        &mut self,
        now: Now,
        records: &Records,
        store: &mut Store,
        random: &mut Random,
        key: &Key,
        contact: Contact,
        mut round: Round,
    ) -> Option<(u64, Contact, RepairMessage)> {
        let scope = round.scope;
        let mut message = RepairMessage { scope, ..RepairMessage::at(now.unix.as_secs()) };
        round.hand_over(now, records, store, &mut message);
        // Others may have handed them over since.
        round.take.retain(|hash| self.index.by_hash(*hash).is_none());
        // Records that come back leave room for little else.
        let enough = round.take.len() >= RECORDS_AT_ONCE;
        while !enough
            && message.digests.len() < DIGESTS_AT_ONCE
            && let Some(prefix) = round.compare.pop_front()
        {
            message.digests.push((prefix, self.survey(now, key, prefix, scope).whole));
            round.compared.push(prefix);
        }
        round.name(&mut message);
        let nothing = message.digests.is_empty()
            && message.records.is_empty()
            && message.want.is_empty()
            && message.have.is_empty();
        let pair = self.pairs.get_mut(key)?;
        if round.by_name && (nothing || round.count >= self.config.max_rounds) {
            // What others are to hand over comes with the comparison, in its time.
            return None;
        }
        if nothing || round.count >= self.config.max_rounds {
            let done = nothing && !round.short && round.postponed.is_none();
            match done {
                true => pair.is_same(round.began, round.scope),
                false => pair.synced = None,
            }
            pair.waited = round.postponed.is_some();
            if let Some(rank) = round.postponed {
                pair.due = now.mono + self.config.rank_wait * rank + random.up_to(self.config.rank_wait);
            }
            return None;
        }
        self.next_token += 1;
        (round.token, round.count) = (self.next_token, round.count + 1);
        pair.round = Some(round);
        Some(self.counted(self.next_token, contact, message))
    }
}

impl Round {
    /// As many of the records that the other side lacks as fit.
    fn hand_over(&mut self, now: Now, records: &Records, store: &mut Store, message: &mut RepairMessage) {
        let mut bytes = 0;
        while let Some((id, hash)) = self.give.pop_front() {
            let Some(values) = Repair::with_proof(now, records, store, &id) else { continue };
            let more: usize = values.iter().map(Bytes::len).sum();
            let many = message.records.len() + values.len() > RECORDS_AT_ONCE;
            if bytes > 0 && bytes + more > RECORD_BYTES || many {
                self.give.push_front((id, hash));
                break;
            }
            bytes += more;
            self.given.extend([Some(hash), None].into_iter().take(values.len()));
            message.records.extend(values);
        }
    }

    /// Asks about single records, when no parts are asked about: first for those that are not listed, then for records.
    fn name(&mut self, message: &mut RepairMessage) {
        if !message.digests.is_empty() {
            return;
        }
        if self.take.len() < RECORDS_AT_ONCE {
            // Beside one large value there may be room for few.
            let room = MAX_REPAIR_BYTES.saturating_sub(message.wire_bytes()) / ID_BYTES;
            message.have = self.ask.drain(..self.ask.len().min(NAMES_AT_ONCE).min(room)).collect();
            self.asked.clone_from(&message.have);
        }
        if message.have.is_empty() {
            self.wanted = self.take.iter().copied().take(MAX_IDS).collect();
            message.want = self.wanted.iter().copied().collect();
        }
    }

    /// A record that the other side lacks is handed over, or left to those who are closer to it until they have had their time.
    fn offer(&mut self, held: &Held, view: View, rank: u32, at_once: bool, most: usize) {
        if rank > 0 && !at_once {
            self.postponed = Some(self.postponed.map_or(rank, |least| least.min(rank)));
        } else if self.give.len() < most {
            self.give.push_back((held.item.id, short(held.hash_in(view))));
        } else {
            self.short = true;
        }
    }
}

/// So many holders other than the one that is compared with are closer to a record than we are.
fn rank_beside(own: &Key, held: &Held, peer: &Key) -> u32 {
    let peer_is_closer = held.key.distance(peer) < held.key.distance(own);
    u32::from(held.rank).saturating_sub(u32::from(peer_is_closer))
}
