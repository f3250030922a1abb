//! What a holder does: compare with its neighbours in the keyspace, hand over, take in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::{Now, Random};

use super::digest::hash_of;
use super::message::{ITEM_BYTES, Item, MAX_IDS, PartItems, RepairMessage, Verdict};
use super::{Digest, Prefix, ReplicationConfig, SetState};
use crate::record::{ClockChanged, EntryId, NeighbourClocks, Records, Unverified};
use crate::store::{Near, Put, Sender, Store};
use crate::{Contact, Key, MAX_REPAIR_BYTES};

/// The comparing of one node with its neighbours.
#[derive(Debug)]
pub struct Repair {
    config: ReplicationConfig,
    own: Key,
    /// Those who hold the same records, the closest to us first.
    neighbours: Vec<Contact>,
    /// Changes with the neighbours.
    generation: u64,
    pairs: BTreeMap<Key, Pair>,
    index: Vec<Held>,
    /// Of which state of store and neighbours the index is.
    indexed: Option<(u64, u64)>,
    period: Duration,
    size: Option<f64>,
    next_token: u64,
    clocks: NeighbourClocks,
    stats: RepairStats,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairStats {
    /// Questions sent.
    pub asked: u64,
    /// Bytes of questions sent, and of answers given.
    pub bytes_sent: u64,
    /// Records handed over and taken.
    pub handed_over: u64,
    /// Records taken in.
    pub taken_in: u64,
    /// Comparisons that found both sides equal at once.
    pub equal: u64,
}

/// How we stand with one neighbour.
#[derive(Debug)]
struct Pair {
    contact: Contact,
    due: Duration,
    round: Option<Round>,
    /// When both sides were last known to have the same.
    synced: Option<Duration>,
    /// We have waited for closer holders to hand over, and nobody did.
    waited: bool,
}

/// A comparison under way.
#[derive(Debug, Default)]
struct Round {
    token: u64,
    count: u32,
    compare: VecDeque<Prefix>,
    give: VecDeque<EntryId>,
    given: usize,
    take: VecDeque<EntryId>,
    asked_for: usize,
    postponed: Option<u32>,
    short: bool,
}

/// A record with those who should hold it.
#[derive(Debug, Clone, Copy)]
struct Held {
    key: Key,
    item: Item,
    hash: u128,
    /// A bit for each neighbour, and the last one for us.
    holders: u64,
    replicas: u8,
    /// So many neighbours are closer to it than we are.
    rank: u8,
}

const US: u64 = 1 << 63;
/// Bytes that records of one message may take, so that what else is in it fits.
const RECORD_BYTES: usize = 9 * 1024;
const DIGESTS_AT_ONCE: usize = 6;
const ITEMS_AT_ONCE: usize = 24;

impl Repair {
    /// For a node that lies at `own` and has no neighbours yet.
    pub fn new(config: ReplicationConfig, own: Key, records: &Records) -> Self {
        let clocks = NeighbourClocks::new(records.config().clock_neighbours, records.config().clock_alarm);
        let period = config.period_most;
        Self {
            config,
            own,
            neighbours: Vec::new(),
            generation: 0,
            pairs: BTreeMap::new(),
            index: Vec::new(),
            indexed: None,
            period,
            size: None,
            next_token: 0,
            clocks,
            stats: RepairStats::default(),
        }
    }

    /// How often we compare: see [`super::period`].
    pub fn set_period(&mut self, period: Duration) {
        self.period = period.clamp(self.config.period_least, self.config.period_most);
    }

    /// How large the network seems; `None` while nothing is known.
    pub fn set_size(&mut self, size: Option<f64>) {
        self.size = size;
    }

    /// Totals since the start.
    pub fn stats(&self) -> RepairStats {
        self.stats
    }

    /// Who lies near us now. A newcomer is compared with soon, by whoever is closest to it first; who is gone is forgotten.
    pub fn set_neighbours(&mut self, now: Now, mut contacts: Vec<Contact>, random: &mut Random) {
        contacts.sort_by_key(|contact| self.own.distance(contact.key()));
        contacts.truncate(self.config.max_neighbours.min(63));
        let same = contacts.len() == self.neighbours.len()
            && contacts.iter().zip(&self.neighbours).all(|(new, old)| new.key() == old.key());
        if same {
            return;
        }
        self.pairs.retain(|key, _| contacts.iter().any(|contact| contact.key() == key));
        for contact in &contacts {
            if !self.pairs.contains_key(contact.key()) {
                let closer = |other: &&Contact| {
                    contact.key().distance(other.key()) < contact.key().distance(&self.own)
                };
                let rank = contacts.iter().filter(|other| other.key() != contact.key()).filter(closer).count()
                    as u32;
                let wait = self.config.rank_wait * rank + random.up_to(self.config.rank_wait);
                let pair = Pair {
                    contact: contact.clone(),
                    due: now.mono + wait,
                    round: None,
                    synced: None,
                    waited: false,
                };
                self.pairs.insert(*contact.key(), pair);
            }
        }
        self.neighbours = contacts;
        self.generation += 1;
    }

    /// When [`Repair::poll`] is next needed, as [`Now::mono`].
    pub fn next_due(&self) -> Option<Duration> {
        self.pairs.values().filter(|pair| pair.round.is_none()).map(|pair| pair.due).min()
    }

    /// The questions that are due, each with a token by which its answer is known.
    pub fn poll(
        &mut self,
        now: Now,
        records: &Records,
        store: &mut Store,
        random: &mut Random,
    ) -> Vec<(u64, Contact, RepairMessage)> {
        if self.next_due().is_none_or(|due| due > now.mono) {
            return Vec::new();
        }
        self.let_go(now, records, store);
        self.refresh(records, store);
        let mut asks = Vec::new();
        let due: Vec<Key> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.round.is_none() && pair.due <= now.mono)
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let digest = self.digest(&key, Prefix::ALL);
            let jittered = self.period / 2 + random.up_to(self.period);
            let Some(pair) = self.pairs.get_mut(&key) else { continue };
            pair.due = now.mono + jittered;
            if digest.count == 0 && pair.synced.is_some() {
                pair.synced = Some(now.mono);
                continue;
            }
            self.next_token += 1;
            pair.round = Some(Round { token: self.next_token, count: 1, ..Round::default() });
            let contact = pair.contact.clone();
            let message = RepairMessage {
                digests: vec![(Prefix::ALL, digest)],
                ..RepairMessage::at(now.unix.as_secs())
            };
            asks.push(self.counted(self.next_token, contact, message));
        }
        asks
    }

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
        let sender = Sender::Holder { peer: *contact.peer() };
        for value in answer.records.iter() {
            self.take_in(now, records, near, store, sender, value);
        }
        self.refresh(records, store);
        let Some(mut round) = self.pairs.get_mut(&key).and_then(|pair| pair.round.take()) else {
            return (None, clock);
        };
        let there = answer
            .verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Stored | Verdict::Known))
            .count();
        self.stats.handed_over +=
            answer.verdicts.iter().filter(|verdict| **verdict == Verdict::Stored).count() as u64;
        round.short |= there < round.given;
        if round.asked_for > 0 && answer.records.is_empty() {
            round.take.clear();
            round.short = true;
        }
        if round.count == 1 && answer.digests.is_empty() && answer.items.is_empty() {
            self.stats.equal += 1;
        }
        let waited = self.pairs.get(&key).is_some_and(|pair| pair.waited);
        for (prefix, digest) in &answer.digests {
            if self.digest(&key, *prefix) != *digest && round.compare.len() < 64 {
                round.compare.push_back(*prefix);
            }
        }
        for part in &answer.items {
            self.settle(&key, part, store, &mut round, waited);
        }
        (self.go_on(now, records, store, random, &key, contact, round), clock)
    }

    /// A question came to nothing: the next one is tried in its time.
    pub fn failed(&mut self, token: u64) {
        if let Some((key, _)) = self.by_token(token)
            && let Some(pair) = self.pairs.get_mut(&key)
        {
            pair.round = None;
            pair.synced = None;
        }
    }

    /// Another holder asks.
    pub fn asked(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        store: &mut Store,
        from: &PeerId,
        question: &RepairMessage,
    ) -> (RepairMessage, Option<ClockChanged>) {
        let key = Key::of_peer(from);
        let neighbour = self.pairs.contains_key(&key);
        let clock = if neighbour { self.clocks.note(now, *from, question.unix) } else { None };
        let mut answer = RepairMessage::at(now.unix.as_secs());
        for value in &question.records {
            let put = self.take_in(now, records, near, store, Sender::Holder { peer: *from }, value);
            answer.verdicts.push(match put {
                Put::Stored => Verdict::Stored,
                Put::Known | Put::Stale(_) => Verdict::Known,
                Put::Busy => Verdict::Busy,
                Put::Refused(_) => Verdict::Refused,
            });
        }
        self.refresh(records, store);
        for (prefix, digest) in question.digests.iter().take(DIGESTS_AT_ONCE) {
            self.compare(&key, *prefix, digest, &mut answer);
        }
        if question.digests.len() == 1
            && answer.digests.is_empty()
            && answer.items.is_empty()
            && let Some(pair) = self.pairs.get_mut(&key)
            && question.digests.first().is_some_and(|(prefix, _)| *prefix == Prefix::ALL)
        {
            // They have compared, so we needn't; whose turn it is next is left to chance.
            pair.synced = Some(now.mono);
            pair.due = pair.due.max(now.mono + self.period / 2);
        }
        self.tell_of(store, &question.have, &mut answer);
        for id in question.want.iter().take(MAX_IDS) {
            let Some(value) = store.value(records, id) else { continue };
            if answer.wire_bytes() + value.len() > MAX_REPAIR_BYTES - 1024 {
                break;
            }
            answer.records.push(value);
        }
        self.stats.bytes_sent += answer.wire_bytes() as u64;
        (answer, clock)
    }

    /// How many holders of a record are known to live, we included, and how many are wanted. `None` when we are not among its holders.
    pub fn live(
        &mut self,
        now: Now,
        records: &Records,
        store: &Store,
        id: &EntryId,
    ) -> Option<(usize, usize)> {
        self.refresh(records, store);
        let held = self.index.iter().find(|held| held.item.id == *id && held.holders & US != 0)?;
        let recent = |at: Duration| now.mono.saturating_sub(at) <= 2 * self.period;
        let live = self.neighbours.iter().enumerate().filter(|(bit, contact)| {
            let synced = self.pairs.get(contact.key()).and_then(|pair| pair.synced);
            held.holders >> bit & 1 == 1 && synced.is_some_and(recent)
        });
        Some((1 + live.count(), held.replicas.into()))
    }

    /// How a record that we hold stands.
    pub fn state(&mut self, now: Now, records: &Records, store: &Store, id: &EntryId) -> Option<SetState> {
        let slack = self.config.slack;
        self.live(now, records, store, id)
            .map(|(live, wanted)| SetState::of(live, wanted.min(self.neighbours.len() + 1), slack))
    }

    /// Whether the neighbours say that our clock is wrong.
    pub fn our_clock_is_wrong(&self) -> bool {
        self.clocks.ours_is_wrong()
    }

    /// What a digest of theirs calls for: nothing when ours is the same; what we have, where that is little; otherwise the digests of the parts.
    fn compare(&self, peer: &Key, prefix: Prefix, theirs: &Digest, answer: &mut RepairMessage) {
        let ours = self.digest(peer, prefix);
        if ours == *theirs {
            return;
        }
        let few = ours.count as usize <= ITEMS_AT_ONCE && theirs.count <= 4 * ITEMS_AT_ONCE as u32;
        let parts: Vec<_> = prefix.parts().map(|part| (part, self.digest(peer, part))).collect();
        match few || parts.is_empty() {
            true => {
                let items =
                    self.common(peer).filter(|held| prefix.contains(&held.item.id)).map(|held| held.item);
                answer.items.push(PartItems { prefix, items: items.take(ITEMS_AT_ONCE).collect() });
            }
            false => answer.digests.extend(parts),
        }
    }

    /// Compares what the other side has of a part with what we have.
    fn settle(&self, peer: &Key, theirs: &PartItems, store: &Store, round: &mut Round, waited: bool) {
        let part = |held: &&Held| theirs.prefix.contains(&held.item.id);
        for held in self.common(peer).filter(part) {
            let known = theirs.items.iter().find(|item| item.id == held.item.id);
            if known.is_some_and(|item| item.rank() >= held.item.rank()) {
                continue;
            }
            let peer_is_closer = held.key.distance(peer) < held.key.distance(&self.own);
            let rank = u32::from(held.rank).saturating_sub(u32::from(peer_is_closer));
            if rank == 0 || waited || known.is_some() {
                round.give.push_back(held.item.id);
            } else {
                round.postponed = Some(round.postponed.map_or(rank, |least| least.min(rank)));
            }
        }
        for item in &theirs.items {
            let ours = store.high_water(&item.id).map(|version| Item::of(item.id, &version).rank());
            if ours.is_none_or(|ours| ours < item.rank()) && round.take.len() < MAX_IDS {
                round.take.push_back(item.id);
            }
        }
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
        let mut message = RepairMessage::at(now.unix.as_secs());
        (round.given, round.asked_for) = (0, 0);
        let mut bytes = 0;
        while let Some(id) = round.give.pop_front() {
            let Some(value) = store.value(records, &id) else { continue };
            if bytes > 0 && bytes + value.len() > RECORD_BYTES || message.records.len() >= 32 {
                round.give.push_front(id);
                break;
            }
            bytes += value.len();
            message.records.push(value);
        }
        round.given = message.records.len();
        while message.digests.len() < DIGESTS_AT_ONCE
            && let Some(prefix) = round.compare.pop_front()
        {
            message.digests.push((prefix, self.digest(key, prefix)));
        }
        // Records that come back leave room for little else.
        if message.digests.is_empty() {
            let missing = |id: &EntryId| store.high_water(id).is_none();
            round.take.retain(missing);
            message.want = round.take.iter().copied().take(MAX_IDS).collect();
            round.asked_for = message.want.len();
        }
        let nothing = message.digests.is_empty() && message.records.is_empty() && message.want.is_empty();
        let pair = self.pairs.get_mut(key)?;
        if nothing || round.count >= self.config.max_rounds {
            let done = nothing && !round.short && round.postponed.is_none();
            pair.synced = done.then_some(now.mono);
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

    fn counted(
        &mut self,
        token: u64,
        contact: Contact,
        message: RepairMessage,
    ) -> (u64, Contact, RepairMessage) {
        self.stats.asked += 1;
        self.stats.bytes_sent += message.wire_bytes() as u64;
        (token, contact, message)
    }

    fn take_in(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        store: &mut Store,
        sender: Sender,
        value: &Bytes,
    ) -> Put {
        let target = match Unverified::read(records.network(), value) {
            Ok(read) => read.claim().target().clone(),
            Err(fault) => return Put::Refused(fault.refusal()),
        };
        let put = store.put(now, records, near, sender, &target, value);
        self.stats.taken_in += u64::from(put == Put::Stored);
        put
    }

    /// Says of records whether we have them.
    fn tell_of(&self, store: &Store, ids: &[EntryId], answer: &mut RepairMessage) {
        let have = |id: &EntryId| store.version(id).map(|version| Item::of(*id, &version));
        let room = (MAX_REPAIR_BYTES - 1024).saturating_sub(answer.wire_bytes()) / ITEM_BYTES;
        let items: Vec<Item> = ids.iter().take(MAX_IDS).filter_map(have).take(room).collect();
        if !items.is_empty() {
            answer.items.push(PartItems { prefix: Prefix::ALL, items });
        }
    }

    /// Records for which others are now responsible go when half of the life that they had when they came is over (dht.md B.3). Others are responsible when so many
    /// stand closer, and a network of this size has as many there: whoever crowds around a key makes nobody forget what lies there.
    fn let_go(&mut self, now: Now, records: &Records, store: &mut Store) {
        self.refresh(records, store);
        let unix = now.unix.as_secs();
        let is_far = |held: &&Held| {
            let enough = usize::from(held.replicas) + self.config.spare_ranks;
            let expected = self.size.map(|size| size * held.key.distance(&self.own).share());
            usize::from(held.rank) >= enough && expected.is_none_or(|expected| expected >= enough as f64)
        };
        let far: Vec<EntryId> = self.index.iter().filter(is_far).map(|held| held.item.id).collect();
        for id in far {
            let half_over = store.summary(&id).is_some_and(|summary| {
                unix.saturating_sub(summary.since) >= summary.expires.saturating_sub(unix)
            });
            if half_over {
                store.let_go(now, &id);
            }
        }
    }

    /// Makes the index anew when store or neighbours have changed.
    fn refresh(&mut self, records: &Records, store: &Store) {
        let stamp = (store.revision(), self.generation);
        if self.indexed == Some(stamp) {
            return;
        }
        self.indexed = Some(stamp);
        self.index.clear();
        for summary in store.all() {
            let key = *summary.target.key();
            let replicas = records.config().of(summary.kind).replicas;
            let ours = key.distance(&self.own);
            let mut order: Vec<_> = self
                .neighbours
                .iter()
                .enumerate()
                .map(|(bit, contact)| (key.distance(contact.key()), bit))
                .collect();
            let rank = order.iter().filter(|(distance, _)| *distance < ours).count();
            let with_us = rank < replicas;
            let others = if with_us { replicas - 1 } else { replicas };
            order.sort_unstable();
            let mask = order.iter().take(others).fold(0, |mask, (_, bit)| mask | 1 << bit);
            self.index.push(Held {
                key,
                item: Item::of(summary.id, summary.version),
                hash: hash_of(&summary.id, summary.version),
                holders: mask | if with_us { US } else { 0 },
                replicas: replicas.min(255) as u8,
                rank: rank.min(255) as u8,
            });
        }
    }

    /// The records that both we and a peer should have, by what we know of the neighbourhood.
    fn common(&self, peer: &Key) -> impl Iterator<Item = &Held> {
        let bit = self.neighbours.iter().position(|contact| contact.key() == peer);
        self.index.iter().filter(move |held| match bit {
            Some(bit) => held.holders & US != 0 && held.holders >> bit & 1 == 1,
            None => self.would_share(held, peer),
        })
    }

    /// Whether a peer that is no neighbour of ours would hold a record beside us.
    fn would_share(&self, held: &Held, peer: &Key) -> bool {
        let theirs = held.key.distance(peer);
        let we_are_closer = held.key.distance(&self.own) < theirs;
        let closer =
            self.neighbours.iter().filter(|contact| held.key.distance(contact.key()) < theirs).count();
        let replicas = usize::from(held.replicas);
        closer + usize::from(we_are_closer) < replicas
            && usize::from(held.rank) + usize::from(!we_are_closer) < replicas
    }

    fn digest(&self, peer: &Key, prefix: Prefix) -> Digest {
        let mut digest = Digest::default();
        let part = self.common(peer).filter(|held| prefix.contains(&held.item.id));
        part.for_each(|held| digest.add(held.hash));
        digest
    }

    fn by_token(&self, token: u64) -> Option<(Key, Contact)> {
        let ours = |pair: &&Pair| pair.round.as_ref().is_some_and(|round| round.token == token);
        let pair = self.pairs.values().find(ours)?;
        Some((*pair.contact.key(), pair.contact.clone()))
    }
}
