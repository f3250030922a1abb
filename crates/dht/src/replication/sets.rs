//! What a publisher does for its records: see that enough nodes have each of them, for as long as it wants that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::NodeKey;
use peerage_machine::{Now, Random};

use super::message::{Item, RepairMessage};
use super::{ReplicationConfig, SetState};
use crate::record::{EntryId, Record};
use crate::{Contact, Key, Target};

/// Our records, each with those who have it.
#[derive(Debug)]
pub struct Sets {
    config: ReplicationConfig,
    sets: BTreeMap<EntryId, Set>,
    /// Questions under way: about which record, to whom.
    asked: BTreeMap<u64, (EntryId, Key)>,
    next_token: u64,
    /// So many peers could hold a copy: in a small network all that there are.
    among: usize,
}

#[derive(Debug)]
struct Set {
    record: Record,
    wanted: usize,
    ttl: Duration,
    /// Renewed until the caller wants it no more.
    keep: bool,
    state: SetState,
    publishing: bool,
    /// The publishing is ours, not a caller's.
    again: bool,
    holders: Vec<Holder>,
    /// Those who have shown, while it is published, that they understand our additions.
    speaking: BTreeSet<Key>,
    /// When it is renewed.
    renew: Duration,
    /// When its holders are asked, or when it is published again.
    next: Duration,
    /// When its time is over, unless it is renewed.
    ends: Duration,
    failures: u32,
    /// Answers that are still out.
    open: usize,
    /// The version before, as long as nobody has stored this one.
    before: Option<Box<Set>>,
}

#[derive(Debug, Clone)]
struct Holder {
    contact: Contact,
    /// When it last said that it has the record as it is now.
    confirmed: Option<Duration>,
    /// Whether its last answer showed that it understands our additions to libp2p's messages. Others would keep an extension in the place of the record, and take a question
    /// of ours for none at all.
    extended: bool,
}

/// How a record of ours stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetView {
    /// The record's name.
    pub id: EntryId,
    /// The record.
    pub record: Record,
    /// Where it stands.
    pub target: Target,
    /// Its state.
    pub state: SetState,
    /// Holders that have said that they have it and have not failed since. A copy that was refused is none.
    pub live: usize,
    /// So many are wanted.
    pub wanted: usize,
    /// When it expires, in seconds since 1970.
    pub not_after: u64,
    /// When it is renewed, as [`Now::mono`]; `None` when it is left to expire.
    pub renews: Option<Duration>,
    /// For how long it is published each time.
    pub lasts: Duration,
    /// Who has it.
    pub holders: Vec<Contact>,
}

/// What is to be done for our records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Look the closest nodes up and store it there; [`Sets::settled`] says what came of it.
    Publish {
        /// Its name.
        id: EntryId,
        /// Its number.
        seq: u64,
        /// Where.
        target: Target,
        /// The record.
        value: Bytes,
        /// At how many.
        replicas: usize,
    },
    /// Hand a holder the record's longer life.
    Extend {
        /// By which the answer is known.
        token: u64,
        /// Whom.
        contact: Contact,
        /// Where.
        target: Target,
        /// The extension; for whoever doesn't understand our additions the whole record.
        value: Bytes,
    },
    /// Ask a holder what it has.
    Probe {
        /// By which the answer is known.
        token: u64,
        /// Whom.
        contact: Contact,
        /// The question.
        message: RepairMessage,
    },
    /// Ask a holder that doesn't understand our additions for the record itself.
    Look {
        /// By which the answer is known.
        token: u64,
        /// Whom.
        contact: Contact,
        /// Where.
        target: Target,
    },
}

impl Sets {
    /// No records yet.
    pub fn new(config: ReplicationConfig) -> Self {
        Self { config, sets: BTreeMap::new(), asked: BTreeMap::new(), next_token: 0, among: usize::MAX }
    }

    /// So many peers that could hold a copy are known: more replicas than that are not missed.
    pub fn among(&mut self, peers: usize) {
        self.among = peers;
    }

    /// Takes a record of ours in, whose publishing is under way. A newer one takes the place of an older one, with its holders. A tombstone is never kept beyond its
    /// time, which outlasts what it hides. Says whether there is room.
    pub fn publish(&mut self, now: Now, record: Record, wanted: usize, ttl: Duration, keep: bool) -> bool {
        let id = record.id();
        if self.sets.len() >= self.config.max_sets {
            self.sets.retain(|_, set| set.state != SetState::Expired);
        }
        if self.sets.len() >= self.config.max_sets && !self.sets.contains_key(&id) {
            return false;
        }
        let before = self.sets.remove(&id);
        let holders = before.iter().flat_map(|set| &set.holders);
        let holders = holders.map(|holder| Holder { confirmed: None, ..holder.clone() }).collect();
        // Of several that nobody has stored the first is the one before.
        let before =
            before.and_then(|set| if set.before.is_some() { set.before } else { Some(Box::new(set)) });
        let set = Set {
            before,
            ends: ends(now, &record),
            keep: keep && !record.is_tombstone(),
            record,
            wanted,
            ttl,
            state: SetState::Publishing,
            publishing: true,
            again: false,
            holders,
            speaking: BTreeSet::new(),
            renew: now.mono + ttl / 3,
            next: now.mono + self.config.probe_every,
            failures: 0,
            open: 0,
        };
        self.asked.retain(|_, (of, _)| *of != id);
        self.sets.insert(id, set);
        true
    }

    /// A publishing was given up before anybody had stored the record: it is as if it had never begun, and the version before is looked after again.
    pub fn abandon(&mut self, now: Now, id: &EntryId) {
        let Some(set) = self.sets.remove(id) else { return };
        if let Some(before) = set.before {
            self.sets
                .insert(*id, Set { publishing: false, again: false, open: 0, next: now.mono, ..*before });
        }
        self.asked.retain(|_, (of, _)| of != id);
    }

    /// The number of a record that is looked after.
    pub fn seq(&self, id: &EntryId) -> Option<u64> {
        self.sets.get(id).map(|set| set.record.version().seq)
    }

    /// Looks after a record no more; what is out expires by itself. Says whether it was looked after.
    pub fn forget(&mut self, id: &EntryId) -> bool {
        self.asked.retain(|_, (of, _)| of != id);
        self.sets.remove(id).is_some()
    }

    /// A publishing has ended, the caller's or our own: these have stored it.
    pub fn settled(&mut self, now: Now, id: &EntryId, stored: &[Contact]) {
        let (slack, among) = (self.config.slack, self.among);
        let (retry, most) = (self.config.retry_first, self.config.probe_every);
        let Some(set) = self.sets.get_mut(id).filter(|set| set.state != SetState::Expired) else { return };
        (set.publishing, set.again) = (false, false);
        set.before = None;
        let speaking = std::mem::take(&mut set.speaking);
        for contact in stored {
            set.confirm(now, contact.key(), Some(contact), speaking.contains(contact.key()));
        }
        set.drop_unconfirmed();
        set.judge(slack, among);
        if set.state == SetState::Healthy {
            (set.failures, set.next) = (0, now.mono + most);
        } else {
            let pause = retry.saturating_mul(1 << set.failures.min(16)).min(most);
            (set.failures, set.next) = (set.failures.saturating_add(1), now.mono + pause);
        }
    }

    /// Whoever was handed a copy of a record that is being published has answered, and shown whether it understands our additions.
    pub fn heard(&mut self, id: &EntryId, key: &Key, extended: bool) {
        if let Some(set) = self.sets.get_mut(id).filter(|set| set.publishing && extended) {
            set.speaking.insert(*key);
        }
    }

    /// Whether a stored value was a record that is looked after.
    pub fn is_ours(&self, id: &EntryId) -> bool {
        self.sets.contains_key(id)
    }

    /// The record of ours that stands at a target and has this value.
    pub fn find(&self, target: &Target, value: &Bytes) -> Option<EntryId> {
        let of = |set: &&Set| set.record.target() == target && set.record.to_bytes() == *value;
        self.sets.values().find(of).map(|set| set.record.id())
    }

    /// When [`Sets::poll`] is next needed, as [`Now::mono`].
    pub fn next_due(&self) -> Option<Duration> {
        self.sets.values().filter(|set| !set.publishing && set.open == 0).map(Set::due).min()
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Now, key: &NodeKey, random: &mut Random) -> Vec<Act> {
        let mut acts = Vec::new();
        self.note_expired(now);
        let due = |set: &Set| {
            !set.publishing && set.open == 0 && set.due() <= now.mono && set.state != SetState::Expired
        };
        let ids: Vec<EntryId> = self.sets.iter().filter(|(_, set)| due(set)).map(|(id, _)| *id).collect();
        let mut under_way: usize = self.sets.values().map(Set::copies_under_way).sum();
        for id in ids {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            let copies = set.wanted.max(set.holders.len());
            if under_way > 0 && under_way + copies > self.config.max_copies_at_once {
                // After an outage all are due at once: the others come when there is room, in no particular order.
                set.put_off(now.mono + self.config.retry_first / 2 + random.up_to(self.config.retry_first));
                continue;
            }
            under_way += copies;
            if set.keep && set.renew <= now.mono {
                set.renew(now, key, random);
                self.extend(id, &mut acts);
            } else if set.state == SetState::Healthy {
                set.next = now.mono + self.config.probe_every / 2 + random.up_to(self.config.probe_every);
                self.probe(now, id, &mut acts);
            } else {
                (set.publishing, set.again) = (true, true);
                acts.push(set.act(id));
            }
        }
        acts
    }

    /// What is not renewed has an end: for as long as between two probes it can be seen that it has expired.
    fn note_expired(&mut self, now: Now) {
        let unix = now.unix.as_secs();
        let seen_for = self.config.probe_every;
        self.sets.retain(|_, set| {
            let is_over = !set.keep && set.record.version().not_after <= unix;
            if is_over && set.state != SetState::Expired {
                (set.state, set.next, set.ends) = (SetState::Expired, now.mono + seen_for, Duration::MAX);
                set.publishing = false;
                set.holders.clear();
            } else if set.state != SetState::Expired {
                // Whoever sets the clock back lengthens what is left.
                set.ends = ends(now, &set.record);
            }
            set.state != SetState::Expired || set.next > now.mono
        });
    }

    /// A holder has answered: whether it has the record as it is now, and whether it understands our additions.
    pub fn answered(&mut self, now: Now, token: u64, has_it: bool, extended: bool) {
        let Some((id, key)) = self.asked.remove(&token) else { return };
        let (slack, among) = (self.config.slack, self.among);
        let Some(set) = self.sets.get_mut(&id) else { return };
        set.open = set.open.saturating_sub(1);
        match has_it {
            true => set.confirm(now, &key, None, extended),
            false => set.holders.retain(|holder| holder.contact.key() != &key),
        }
        if set.open == 0 && set.state != SetState::Expired {
            set.drop_unconfirmed();
            set.judge(slack, among);
            if set.state != SetState::Healthy {
                // Too few: published again at once.
                set.next = now.mono;
            }
        }
    }

    /// The record about which a holder was asked.
    pub fn record_of(&self, token: u64) -> Option<&Record> {
        let (id, _) = self.asked.get(&token)?;
        self.sets.get(id).map(|set| &set.record)
    }

    /// What a holder says it has: whether our record is among it, as it is now.
    pub fn told(&mut self, now: Now, token: u64, answer: &RepairMessage) {
        let Some((id, _)) = self.asked.get(&token) else { return };
        let ours = self.sets.get(id).map(|set| Item::of(*id, set.record.version()));
        let has_it = ours.is_some_and(|ours| {
            answer.items.iter().any(|item| item.id == ours.id && item.rank() >= ours.rank())
        });
        self.answered(now, token, has_it, true);
    }

    /// How our records stand.
    pub fn views(&self) -> Vec<SetView> {
        self.sets.iter().map(|(id, set)| set.view(*id)).collect()
    }

    /// How many records are looked after.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// How one record stands.
    pub fn view(&self, id: &EntryId) -> Option<SetView> {
        self.sets.get(id).map(|set| set.view(*id))
    }

    fn extend(&mut self, id: EntryId, acts: &mut Vec<Act>) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        if set.holders.is_empty() {
            (set.publishing, set.again) = (true, true);
            return acts.push(set.act(id));
        }
        let (extension, whole) = (set.record.extension(), set.record.to_bytes());
        for holder in &set.holders {
            self.next_token += 1;
            let contact = holder.contact.clone();
            self.asked.insert(self.next_token, (id, *contact.key()));
            set.open += 1;
            let target = set.record.target().clone();
            let value = if holder.extended { extension.clone() } else { whole.clone() };
            acts.push(Act::Extend { token: self.next_token, contact, target, value });
        }
    }

    fn probe(&mut self, now: Now, id: EntryId, acts: &mut Vec<Act>) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        for holder in &mut set.holders {
            self.next_token += 1;
            holder.confirmed = None;
            let contact = holder.contact.clone();
            self.asked.insert(self.next_token, (id, *contact.key()));
            set.open += 1;
            if !holder.extended {
                let target = set.record.target().clone();
                acts.push(Act::Look { token: self.next_token, contact, target });
                continue;
            }
            let message = RepairMessage { have: vec![id], ..RepairMessage::at(now.unix.as_secs()) };
            acts.push(Act::Probe { token: self.next_token, contact, message });
        }
    }
}

/// When the life of a record is over, by the clock as it is set now.
fn ends(now: Now, record: &Record) -> Duration {
    let left = record.version().not_after.saturating_sub(now.unix.as_secs());
    now.mono.saturating_add(Duration::from_secs(left))
}

impl Set {
    fn due(&self) -> Duration {
        self.next.min(if self.keep { self.renew } else { self.ends })
    }

    /// What is due waits at least so long.
    fn put_off(&mut self, until: Duration) {
        (self.next, self.renew) = (self.next.max(until), self.renew.max(until));
    }

    /// Copies of it that we are storing, renewing or asking after.
    fn copies_under_way(&self) -> usize {
        if self.again { self.wanted } else { self.open }
    }

    fn act(&self, id: EntryId) -> Act {
        let target = self.record.target().clone();
        let seq = self.record.version().seq;
        Act::Publish { id, seq, target, value: self.record.to_bytes(), replicas: self.wanted }
    }

    /// Signs a longer life. Content and sequence stay.
    fn renew(&mut self, now: Now, key: &NodeKey, random: &mut Random) {
        let not_after = now.unix.as_secs().saturating_add(self.ttl.as_secs());
        if let Ok(longer) = self.record.extended(key, not_after.max(self.record.version().not_after)) {
            self.record = longer;
        }
        // A little early each time, so that what was published together is not renewed together for ever.
        self.renew = now.mono + self.ttl / 3 - random.up_to(self.ttl / 30);
        self.holders.iter_mut().for_each(|holder| holder.confirmed = None);
    }

    fn confirm(&mut self, now: Now, key: &Key, contact: Option<&Contact>, extended: bool) {
        let confirmed = Some(now.mono);
        match (self.holders.iter_mut().find(|holder| holder.contact.key() == key), contact) {
            (Some(holder), _) => (holder.confirmed, holder.extended) = (confirmed, extended),
            (None, Some(contact)) => {
                self.holders.push(Holder { contact: contact.clone(), confirmed, extended })
            }
            (None, None) => {}
        }
    }

    fn drop_unconfirmed(&mut self) {
        self.holders.retain(|holder| holder.confirmed.is_some());
        // As many as ever are asked: who stored most lately.
        self.holders.sort_by_key(|holder| std::cmp::Reverse(holder.confirmed));
        self.holders.truncate(2 * self.wanted);
    }

    fn judge(&mut self, slack: usize, among: usize) {
        self.state = SetState::of(self.holders.len(), self.wanted.min(among), slack);
    }

    /// Who is being asked still counts, until it fails. Of holders of the version before nobody is known to have this one.
    fn live(&self) -> usize {
        let counts = |holder: &&Holder| self.state != SetState::Publishing || holder.confirmed.is_some();
        self.holders.iter().filter(counts).count()
    }

    fn view(&self, id: EntryId) -> SetView {
        SetView {
            id,
            record: self.record.clone(),
            target: self.record.target().clone(),
            state: self.state,
            live: self.live(),
            wanted: self.wanted,
            not_after: self.record.version().not_after,
            renews: self.keep.then_some(self.renew),
            lasts: self.ttl,
            holders: self.holders.iter().map(|holder| holder.contact.clone()).collect(),
        }
    }
}
