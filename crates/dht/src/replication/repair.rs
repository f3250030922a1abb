//! What a holder does: compare with its neighbours in the keyspace, hand over, take in.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Now, Random, TokenBucket};

use super::answer::RECORD_LOOKS;
use super::asking::{Aside, RECORD_BYTES, Round};
use super::digest::{raw_hash, short};
use super::fresh::Fresh;
use super::index::{Held, Index, MOST_NEIGHBOURS, Side, Survey, US, View};
use super::message::{MAX_IDS, MAX_RECORDS, RawValue, RepairMessage};
use super::{Digest, Prefix, ReplicationConfig, Scope, SetState};
use crate::record::{ClockChanged, EntryId, NeighbourClocks, Records, Unverified};
use crate::store::{Near, Put, Sender, Store, What};
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
    pub(super) fresh: Fresh,
    pub(crate) period: Duration,
    size: Option<f64>,
    /// Whom we meet until then is compared with in its time: we have come back with what we held.
    resumed: Duration,
    pub(super) next_token: u64,
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
    pub(super) contact: Contact,
    pub(super) due: Duration,
    pub(super) round: Option<Round>,
    /// Whatever both sides should have and we had at this time was known to be there too, but for what it has refused.
    pub(super) synced: Option<Duration>,
    /// What that was reckoned in.
    pub(super) scope: Scope,
    /// What one has got from the other since then, and when.
    pub(super) moved: BTreeMap<EntryId, Duration>,
    /// What it has refused to take from us: no replica, and not offered again for some periods.
    pub(super) refused: Aside,
    /// We have waited for closer holders to hand over, and nobody did.
    pub(super) waited: bool,
    /// What is different here and there, and no lack.
    pub(super) aside: Aside,
    /// What its questions may still cost.
    pub(super) credit: TokenBucket,
}

impl Pair {
    /// Both sides have the same within a scope, as far as we had it at this time.
    pub(super) fn is_same(&mut self, at: Duration, scope: Scope) {
        self.synced = Some(at);
        self.scope = scope;
        self.moved.retain(|_, moved| *moved > at);
    }

    /// One has got a record from the other.
    pub(super) fn note_moved(&mut self, now: Now, id: EntryId, most: usize) {
        if self.moved.len() < most || self.moved.contains_key(&id) {
            self.moved.insert(id, now.mono);
        }
    }

    /// Whether it has a record, by its last comparison with us.
    fn has(&self, held: &Held) -> bool {
        let moved = self.moved.get(&held.item.id).copied();
        let synced = self.synced.filter(|_| !held.raw || self.scope.has(Scope::RAW));
        synced.max(moved) >= Some(held.since) && !self.refuses(held)
    }

    /// Whether it has refused a record.
    pub(super) fn refuses(&self, held: &Held) -> bool {
        held.hashes().any(|hash| self.refused.contains(hash))
    }

    /// Whether a record has come since its last comparison with us.
    pub(super) fn is_before(&self, held: &Held) -> bool {
        !self.has(held) && !self.refuses(held)
    }
}

impl Repair {
    /// No holder owes more than its last question may cost: three looks at each of so many records, and what it hands in, names and is handed.
    pub(crate) fn check_credit(&self, records: usize) -> Result<(), String> {
        let most = (3 * records + (MAX_RECORDS + MAX_IDS) * RECORD_LOOKS + 2 * MAX_IDS) as f64;
        let all = self.pairs.values().map(|pair| &pair.credit).chain(self.guests.values());
        all.into_iter()
            .try_for_each(|credit| credit.check(most).map_err(|why| format!("looks of a holder: {why}")))
    }

    /// For a node that lies at `own` and has no neighbours yet.
    pub fn new(config: ReplicationConfig, own: Key, records: &Records) -> Self {
        let clocks = NeighbourClocks::new(records.config().clock_neighbours, records.config().clock_alarm);
        let period = config.period_most;
        let fresh = Fresh::new(&config, Now::ZERO);
        Self {
            config,
            own,
            neighbours: Vec::new(),
            generation: 0,
            pairs: BTreeMap::new(),
            guests: BTreeMap::new(),
            index: Index::default(),
            fresh,
            period,
            size: None,
            resumed: Duration::ZERO,
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

    /// We hold what an earlier run has kept. That everybody is new to us is no reason to hurry: whoever noticed that we were gone takes us for a newcomer, and compares with us soon.
    pub fn resume(&mut self, now: Now) {
        self.resumed = now.mono + self.config.period_most;
    }

    /// Totals since the start.
    pub fn stats(&self) -> RepairStats {
        RepairStats { placed: self.index.placed, ..self.stats }
    }

    /// Who lies near us now. A newcomer is compared with soon by those who are closest to it, the closest first, and by the others in their time, when it has most of what it should
    /// have; who is gone is forgotten.
    /// Says whether they know otherwise of our clock.
    pub fn set_neighbours(
        &mut self,
        now: Now,
        mut contacts: Vec<Contact>,
        random: &mut Random,
    ) -> Option<ClockChanged> {
        contacts.sort_by_key(|contact| self.own.distance(contact.key()));
        contacts.truncate(self.config.max_neighbours.min(MOST_NEIGHBOURS));
        let same = contacts.len() == self.neighbours.len()
            && contacts.iter().zip(&self.neighbours).all(|(new, old)| new.key() == old.key());
        if same {
            return None;
        }
        self.pairs.retain(|key, _| contacts.iter().any(|contact| contact.key() == key));
        // Who was too far away for something may not be now.
        self.pairs.values_mut().for_each(|pair| pair.refused.end());
        for contact in &contacts {
            if !self.pairs.contains_key(contact.key()) {
                let closer = |other: &&Contact| {
                    contact.key().distance(other.key()) < contact.key().distance(&self.own)
                };
                let rank = contacts.iter().filter(|other| other.key() != contact.key()).filter(closer).count()
                    as u32;
                let hurries = now.mono >= self.resumed && (rank as usize) < self.config.newcomer_ranks;
                let wait = match hurries {
                    true => self.config.rank_wait * rank + random.up_to(self.config.rank_wait),
                    false => self.period / 2 + random.up_to(self.period),
                };
                let pair = Pair {
                    contact: contact.clone(),
                    due: now.mono + wait,
                    round: None,
                    synced: None,
                    scope: Scope::default(),
                    moved: BTreeMap::new(),
                    refused: Aside::default(),
                    waited: false,
                    aside: Aside::default(),
                    credit: self.config.credit(now),
                };
                self.guests.remove(contact.key());
                self.pairs.insert(*contact.key(), pair);
            }
        }
        let clock = self.clocks.set_neighbours(&contacts);
        self.neighbours = contacts;
        self.generation += 1;
        clock
    }

    /// When [`Repair::poll`] is next needed, as [`Now::mono`].
    pub fn next_due(&self) -> Option<Duration> {
        let pairs = self.pairs.values().filter(|pair| pair.round.is_none()).map(|pair| pair.due);
        pairs.chain(self.fresh.due).min()
    }

    /// The questions that are due, each with a token by which its answer is known.
    pub fn poll(
        &mut self,
        now: Now,
        records: &Records,
        store: &mut Store,
        random: &mut Random,
    ) -> Vec<(u64, Contact, RepairMessage)> {
        self.refresh(now, records, store);
        let mut asks = self.ask_about_fresh(now, records, random);
        let is_due = |(_, pair): &(&Key, &Pair)| pair.round.is_none() && pair.due <= now.mono;
        let due: Vec<Key> = self.pairs.iter().filter(is_due).map(|(key, _)| *key).collect();
        if due.is_empty() {
            return asks;
        }
        self.let_go(now, records, store);
        self.refresh(now, records, store);
        let believed = self.period * self.config.believed_periods;
        for key in due {
            if let Some(pair) = self.pairs.get_mut(&key) {
                pair.aside.forget_after(now, believed);
                pair.refused.forget_after(now, believed);
            }
            let (plain, whole) = self.begin_with(now, records, &key);
            let jittered = self.period / 2 + random.up_to(self.period);
            let Some(pair) = self.pairs.get_mut(&key) else { continue };
            pair.due = now.mono + jittered;
            if plain.count == 0 && whole.is_none() && pair.synced.is_some() {
                pair.is_same(now.mono, Scope::ALL);
                continue;
            }
            self.next_token += 1;
            let scope = if whole.is_some() { scope_of(records) } else { Scope::default() };
            pair.round = Some(Round::first(now, self.next_token, scope));
            let contact = pair.contact.clone();
            let digests = vec![(Prefix::ALL, plain)];
            let message = RepairMessage { digests, scope, whole, ..RepairMessage::at(now.unix.as_secs()) };
            asks.push(self.counted(self.next_token, contact, message));
        }
        asks
    }

    /// The digest of the records that a neighbour should have too, as earlier versions reckon it; and as we do, where that is another one.
    pub(super) fn begin_with(&self, now: Now, records: &Records, peer: &Key) -> (Digest, Option<Digest>) {
        let plain = self.survey(now, peer, Prefix::ALL, Scope::default()).whole;
        if self.index.is_plain() {
            return (plain, None);
        }
        let whole = self.survey(now, peer, Prefix::ALL, scope_of(records)).whole;
        (plain, Some(whole).filter(|whole| *whole != plain))
    }

    /// A question came to nothing: the next one is tried in its time.
    pub fn failed(&mut self, token: u64) {
        if let Some((key, _)) = self.by_token(token)
            && let Some(pair) = self.pairs.get_mut(&key)
        {
            // What was compared before stands: a question about what has just come says nothing of it.
            if pair.round.take().is_some_and(|round| round.by_name) {
                return;
            }
            pair.synced = None;
            pair.moved.clear();
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
        self.refresh(now, records, store);
        let held = self.index.get(id).filter(|held| held.holders & US != 0)?;
        let live = self.compared(now, held).filter(|pair| pair.has(held));
        Some((1 + live.count(), held.replicas.into()))
    }

    /// The neighbours that should have a record and have compared what they hold with us of late, or said that they have it.
    fn compared(&self, now: Now, held: &Held) -> impl Iterator<Item = &Pair> {
        let (holders, most) = (held.holders, 2 * self.period);
        let beside = self.neighbours.iter().enumerate().filter(move |(bit, _)| holders >> bit & 1 == 1);
        let pairs = beside.filter_map(|(_, contact)| self.pairs.get(contact.key()));
        let id = held.item.id;
        let heard = move |pair: &&Pair| pair.synced.max(pair.moved.get(&id).copied());
        pairs.filter(move |pair| heard(pair).is_some_and(|at| now.mono.saturating_sub(at) <= most))
    }

    /// How a record that we hold stands; as one that is on its way, while those that may have it have not compared since it came.
    pub fn state(
        &mut self,
        now: Now,
        records: &Records,
        store: &mut Store,
        id: &EntryId,
    ) -> Option<SetState> {
        let (live, wanted) = self.live(now, records, store, id)?;
        let state = |live| SetState::of(live, wanted.min(self.neighbours.len() + 1), self.config.slack);
        let held = self.index.get(id)?;
        let not_yet = self.compared(now, held).filter(|pair| pair.is_before(held)).count();
        let is_new =
            not_yet > 0 && state(live) != SetState::Healthy && state(live + not_yet) == SetState::Healthy;
        Some(if is_new { SetState::Publishing } else { state(live) })
    }

    /// Whether the neighbours say that our clock is wrong.
    pub fn our_clock_is_wrong(&self) -> bool {
        self.clocks.ours_is_wrong()
    }

    pub(super) fn counted(
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
        let put = match Unverified::read(records.network(), value) {
            Ok(read) => store.put(now, records, near, sender, read.claim().target(), value),
            Err(fault) => match RawValue::read(value) {
                Some(raw) => return self.take_in_raw(now, records, near, store, sender, &raw),
                None => return Put::Refused(fault.refusal()),
            },
        };
        self.stats.taken_in += u64::from(put == Put::Stored);
        put
    }

    pub(super) fn take_in_raw(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        store: &mut Store,
        sender: Sender,
        raw: &RawValue,
    ) -> Put {
        let RawValue { target, value, life, .. } = raw;
        let put = store.put_handed(now, records, near, sender, target, value, *life);
        self.stats.taken_in += u64::from(put == Put::Stored);
        put
    }

    /// A record that is handed over, with what proves that its publisher says two things, where both have room in one message.
    pub(super) fn with_proof(
        now: Now,
        records: &Records,
        store: &mut Store,
        id: &EntryId,
    ) -> Option<Vec<Bytes>> {
        let (value, rival) = store.values(now, records, id)?;
        let kept = store.kept(records, id)?;
        if let What::Raw { rank } = kept.what {
            // On the way its life goes on: passing a value to and fro makes it no longer.
            let life = kept.expires.saturating_sub(now.unix.as_secs()).checked_sub(PASSING)?;
            // What has come to an end by its own rules is nobody's to refuse.
            records.check(now, kept.target, &value).ok()?;
            let hash = short(raw_hash(id, rank));
            return Some(vec![RawValue { target: kept.target.clone(), value, life, hash }.encode()]);
        }
        let rival = rival.filter(|rival| value.len() + rival.len() <= RECORD_BYTES);
        Some([value].into_iter().chain(rival).collect())
    }

    /// Records for which others are now responsible go when half of the life that they had when they came is over (dht.md B.3). Others are responsible when so many
    /// stand closer, and a network of this size has as many there: whoever crowds around a key makes nobody forget what lies there.
    fn let_go(&mut self, now: Now, records: &Records, store: &mut Store) {
        self.refresh(now, records, store);
        let unix = now.unix.as_secs();
        let is_far = |held: &&Held| {
            let enough = usize::from(held.replicas) + self.config.spare_ranks;
            let expected = self.size.map(|size| size * held.key.distance(&self.own).share());
            usize::from(held.rank) >= enough && expected.is_none_or(|expected| expected >= enough as f64)
        };
        let far: Vec<EntryId> = self.index.all().filter(is_far).map(|held| held.item.id).collect();
        for id in far {
            let half_over = store
                .kept(records, &id)
                .is_some_and(|kept| unix.saturating_sub(kept.since) >= kept.expires.saturating_sub(unix));
            if half_over {
                store.let_go(now, &id);
            }
        }
    }

    /// Brings the index up to date.
    pub(super) fn refresh(&mut self, now: Now, records: &Records, store: &mut Store) {
        self.index.refresh(now, records, store, &self.own, &self.neighbours, self.generation);
    }

    /// What a neighbour and we should both have.
    pub(super) fn view(&self, now: Now, peer: &Key, scope: Scope) -> Option<View> {
        let bit = self.neighbours.iter().position(|contact| contact.key() == peer)?;
        let side = Side::Neighbour(u32::try_from(bit).ok()?);
        Some(View { side, scope, unix: now.unix.as_secs() })
    }

    pub(super) fn survey(&self, now: Now, peer: &Key, prefix: Prefix, scope: Scope) -> Survey {
        self.view(now, peer, scope).map(|view| self.index.survey(view, prefix)).unwrap_or_default()
    }

    pub(super) fn by_token(&self, token: u64) -> Option<(Key, Contact)> {
        let ours = |pair: &&Pair| pair.round.as_ref().is_some_and(|round| round.token == token);
        let pair = self.pairs.values().find(ours)?;
        Some((*pair.contact.key(), pair.contact.clone()))
    }
}

/// What we can compare: whoever has no validators keeps nothing of their namespaces.
pub(super) fn scope_of(records: &Records) -> Scope {
    if records.has_validators() { Scope::ALL } else { Scope::PROOFS }
}

/// What a value that is handed over loses of its life, in seconds: as long as the question with it may take.
const PASSING: u64 = 10;
