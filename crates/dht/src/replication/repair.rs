//! What a holder does: compare with its neighbours in the keyspace, hand over, take in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Now, Random, TokenBucket};

use super::index::{Held, Index, MOST_NEIGHBOURS, Survey, US, View};
use super::message::{Item, MAX_IDS, PartItems, RepairMessage, Verdict};
use super::{Prefix, ReplicationConfig, SetState};
use crate::record::{ClockChanged, EntryId, NeighbourClocks, Records, Unverified};
use crate::store::{Near, Put, Sender, Store};
use crate::{Contact, Key};

/// The comparing of one node with its neighbours.
#[derive(Debug)]
pub struct Repair {
    pub(super) config: ReplicationConfig,
    pub(super) own: Key,
    /// Those who hold the same records, the closest to us first.
    neighbours: Vec<Contact>,
    /// Changes with the neighbours.
    generation: u64,
    pub(super) pairs: BTreeMap<Key, Pair>,
    /// What the questions of verified peers that are no neighbours of ours may still cost.
    pub(super) guests: BTreeMap<Key, TokenBucket>,
    pub(super) index: Index,
    pub(super) period: Duration,
    size: Option<f64>,
    next_token: u64,
    pub(super) clocks: NeighbourClocks,
    pub(super) stats: RepairStats,
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
    /// Looks at records that others' questions have cost.
    pub looks: u64,
    /// Records for which it was worked out who should hold them: each change of a record once, and all of them when the neighbours are others.
    pub placed: u64,
}

/// How we stand with one neighbour.
#[derive(Debug)]
pub(super) struct Pair {
    contact: Contact,
    pub(super) due: Duration,
    pub(super) round: Option<Round>,
    /// When both sides were last known to have the same.
    pub(super) synced: Option<Duration>,
    /// We have waited for closer holders to hand over, and nobody did.
    waited: bool,
    /// What its questions may still cost.
    pub(super) credit: TokenBucket,
}

/// A comparison under way.
#[derive(Debug, Default)]
pub(super) struct Round {
    token: u64,
    count: u32,
    /// Parts that are still to be asked about, what was found last first.
    pub(super) compare: VecDeque<Prefix>,
    /// The parts that the last question was about: an answer speaks of nothing else.
    asked: Vec<Prefix>,
    pub(super) give: VecDeque<EntryId>,
    given: usize,
    pub(super) take: VecDeque<EntryId>,
    asked_for: usize,
    postponed: Option<u32>,
    short: bool,
}

/// Bytes that records of one message may take, so that what else is in it fits.
const RECORD_BYTES: usize = 9 * 1024;
/// Records of one message.
const RECORDS_AT_ONCE: usize = 32;
/// Parts that one question is about.
pub(super) const DIGESTS_AT_ONCE: usize = 6;
/// Parts that wait to be asked about; what is beyond comes with the next comparison.
const MAX_OPEN: usize = 256;

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
            guests: BTreeMap::new(),
            index: Index::default(),
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
        RepairStats { placed: self.index.placed, ..self.stats }
    }

    /// Who lies near us now. A newcomer is compared with soon, by whoever is closest to it first; who is gone is forgotten.
    pub fn set_neighbours(&mut self, now: Now, mut contacts: Vec<Contact>, random: &mut Random) {
        contacts.sort_by_key(|contact| self.own.distance(contact.key()));
        contacts.truncate(self.config.max_neighbours.min(MOST_NEIGHBOURS));
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
                    credit: self.config.credit(now),
                };
                self.guests.remove(contact.key());
                self.pairs.insert(*contact.key(), pair);
            }
        }
        self.clocks.set_neighbours(&contacts);
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
            let digest = self.survey(&key, Prefix::ALL).whole;
            let jittered = self.period / 2 + random.up_to(self.period);
            let Some(pair) = self.pairs.get_mut(&key) else { continue };
            pair.due = now.mono + jittered;
            if digest.count == 0 && pair.synced.is_some() {
                pair.synced = Some(now.mono);
                continue;
            }
            self.next_token += 1;
            let asked = vec![Prefix::ALL];
            pair.round = Some(Round { token: self.next_token, count: 1, asked, ..Round::default() });
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
        let Some(mut round) = self.pairs.get_mut(&key).and_then(|pair| pair.round.take()) else {
            return (None, clock);
        };
        let sender = Sender::Holder { peer: *contact.peer() };
        for value in answer.records.iter().take(round.asked_for) {
            self.take_in(now, records, near, store, sender, value);
        }
        self.refresh(records, store);
        let there = answer
            .verdicts
            .iter()
            .take(round.given)
            .filter(|verdict| matches!(verdict, Verdict::Stored | Verdict::Known))
            .count();
        self.stats.handed_over +=
            answer.verdicts.iter().take(round.given).filter(|verdict| **verdict == Verdict::Stored).count()
                as u64;
        round.short |= there < round.given;
        if round.asked_for > 0 && answer.records.is_empty() {
            round.take.clear();
            round.short = true;
        }
        if round.count == 1 && answer.digests.is_empty() && answer.items.is_empty() {
            self.stats.equal += 1;
        }
        for prefix in std::mem::take(&mut round.asked) {
            self.go_through(&key, prefix, answer, store, &mut round);
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

    /// How many holders of a record are known to live, we included, and how many are wanted. `None` when we are not among its holders.
    pub fn live(
        &mut self,
        now: Now,
        records: &Records,
        store: &mut Store,
        id: &EntryId,
    ) -> Option<(usize, usize)> {
        self.refresh(records, store);
        let held = self.index.get(id).filter(|held| held.holders & US != 0)?;
        let recent = |at: Duration| now.mono.saturating_sub(at) <= 2 * self.period;
        let live = self.neighbours.iter().enumerate().filter(|(bit, contact)| {
            let synced = self.pairs.get(contact.key()).and_then(|pair| pair.synced);
            held.holders >> bit & 1 == 1 && synced.is_some_and(recent)
        });
        Some((1 + live.count(), held.replicas.into()))
    }

    /// How a record that we hold stands.
    pub fn state(
        &mut self,
        now: Now,
        records: &Records,
        store: &mut Store,
        id: &EntryId,
    ) -> Option<SetState> {
        let slack = self.config.slack;
        self.live(now, records, store, id)
            .map(|(live, wanted)| SetState::of(live, wanted.min(self.neighbours.len() + 1), slack))
    }

    /// Whether the neighbours say that our clock is wrong.
    pub fn our_clock_is_wrong(&self) -> bool {
        self.clocks.ours_is_wrong()
    }

    /// What an answer says of a part that we asked about: the digests of its parts, or of it itself once more where there was no room for those; or what stands in it.
    fn go_through(
        &self,
        key: &Key,
        prefix: Prefix,
        answer: &RepairMessage,
        store: &Store,
        round: &mut Round,
    ) {
        let part_at =
            |part: &Prefix| if *part == prefix { Some(Prefix::PARTS) } else { prefix.part_at(part) };
        if answer.digests.iter().any(|(part, _)| part_at(part).is_some()) {
            let Survey { whole, parts, .. } = self.survey(key, prefix);
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
        if let Some(part) = answer.items.iter().find(|part| part.prefix == prefix) {
            self.settle(key, part, store, round);
        }
    }

    /// Compares what the other side has of a part with what we have.
    fn settle(&self, peer: &Key, theirs: &PartItems, store: &Store, round: &mut Round) {
        let most = self.config.max_hand_over;
        let waited = self.pairs.get(peer).is_some_and(|pair| pair.waited);
        let Some(view) = self.view(peer) else { return };
        for held in self.index.common(view, theirs.prefix) {
            let known = theirs.items.iter().find(|item| item.id == held.item.id);
            if known.is_some_and(|item| item.rank() >= held.item.rank()) {
                continue;
            }
            let peer_is_closer = held.key.distance(peer) < held.key.distance(&self.own);
            let rank = u32::from(held.rank).saturating_sub(u32::from(peer_is_closer));
            if rank > 0 && !waited && known.is_none() {
                round.postponed = Some(round.postponed.map_or(rank, |least| least.min(rank)));
            } else if round.give.len() < most {
                round.give.push_back(held.item.id);
            } else {
                round.short = true;
            }
        }
        for item in &theirs.items {
            let ours = store.high_water(&item.id).map(|version| Item::of(item.id, &version).rank());
            if ours.is_none_or(|ours| ours < item.rank()) && round.take.len() < most {
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
            if bytes > 0 && bytes + value.len() > RECORD_BYTES || message.records.len() >= RECORDS_AT_ONCE {
                round.give.push_front(id);
                break;
            }
            bytes += value.len();
            message.records.push(value);
        }
        round.given = message.records.len();
        let missing = |id: &EntryId| store.high_water(id).is_none();
        round.take.retain(missing);
        // Records that come back leave room for little else.
        let enough = round.take.len() >= RECORDS_AT_ONCE;
        while !enough
            && message.digests.len() < DIGESTS_AT_ONCE
            && let Some(prefix) = round.compare.pop_front()
        {
            message.digests.push((prefix, self.survey(key, prefix).whole));
            round.asked.push(prefix);
        }
        if message.digests.is_empty() {
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

    pub(super) fn take_in(
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
        let far: Vec<EntryId> = self.index.all().filter(is_far).map(|held| held.item.id).collect();
        for id in far {
            let half_over = store.summary(&id).is_some_and(|summary| {
                unix.saturating_sub(summary.since) >= summary.expires.saturating_sub(unix)
            });
            if half_over {
                store.let_go(now, &id);
            }
        }
    }

    /// Brings the index up to date.
    pub(super) fn refresh(&mut self, records: &Records, store: &mut Store) {
        self.index.refresh(records, store, &self.own, &self.neighbours, self.generation);
    }

    /// What a neighbour and we should both have.
    pub(super) fn view(&self, peer: &Key) -> Option<View> {
        let bit = self.neighbours.iter().position(|contact| contact.key() == peer)?;
        u32::try_from(bit).ok().map(View::Neighbour)
    }

    fn survey(&self, peer: &Key, prefix: Prefix) -> Survey {
        self.view(peer).map(|view| self.index.survey(view, prefix)).unwrap_or_default()
    }

    fn by_token(&self, token: u64) -> Option<(Key, Contact)> {
        let ours = |pair: &&Pair| pair.round.as_ref().is_some_and(|round| round.token == token);
        let pair = self.pairs.values().find(ours)?;
        Some((*pair.contact.key(), pair.contact.clone()))
    }
}
