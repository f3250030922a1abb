//! What must hold while a run goes on (dht.md D.3), looked at from outside.
//!
//! | Rule | Where it is checked |
//! |---|---|
//! | 1, the table | the machine's own [`check_at`](peerage_dht::Dht::check_at), after each eighth of its events |
//! | 2, answers name nobody who is unverified or in quarantine | each answer, when its machine gives it |
//! | 3, lookups: cap, deadline, nobody asked twice, nothing left | the machine's own check, and the [`ledger`](super::ledger) beside it, by what goes over the wire |
//! | 4, each request sent ends once; no bucket of tokens owes more than it may | the ledger against the machine's own count, once in a second; the machine's own check |
//! | 5 and 6, records: signed, alive, within quota, never older; repair makes none | [`Audit::look`], once in a second |
//! | 7, what somebody holds is found | scenario 7, by a bar |
//! | 8, equal digests are equal sets | [`Audit::look`], across all nodes |
//! | 12, counters are the sums of what they count | [`Audit::look`], by [`Store::check`] |
//! | 13 and 14, repeatable, and no better for names or idle nodes | tests of whole runs |

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::{EntryId, Record, Version};
use peerage_dht::replication::Digest;
use peerage_dht::store::Store;
use peerage_dht::{Answer, Contact, OperationId, Query, QueryId, RequestId};
use peerage_identity::PeerId;

use super::super::queue::{Micros, SECOND};
use super::World;

/// What is known of records from outside.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// All that a publisher has signed, version by version.
    pub(super) signed: BTreeMap<EntryId, (PeerId, BTreeMap<Version, Bytes>)>,
    /// The newest version that each holder has shown, in its present life.
    pub(super) shown: BTreeMap<(u32, u32, EntryId), Version>,
    /// Looks so far.
    pub looks: u64,
    /// How often is looked, in microseconds; zero for once in a second.
    pub every: Micros,
    next: Micros,
}

/// How often the network is looked at, unless a scenario that goes on for hours says otherwise.
const EVERY: Micros = SECOND;
/// Holders notice within this time, in seconds, that a record has expired.
const GRACE: u64 = 60;

impl Audit {
    /// Who has signed a record.
    pub fn publisher(&self, id: &EntryId) -> Option<PeerId> {
        self.signed.get(id).map(|(publisher, _)| *publisher)
    }

    /// A publisher has signed this.
    pub fn signed(&mut self, record: &Record) {
        let empty = || (record.publisher(), BTreeMap::new());
        let (_, versions) = self.signed.entry(record.id()).or_insert_with(empty);
        versions.insert(*record.version(), record.to_bytes());
    }
}

impl World {
    /// What is broken of what was to hold all the time, at the end of a run.
    pub fn broken_at_the_end(&mut self) -> Option<String> {
        (0..self.nodes.len() as u32).for_each(|node| self.look_at_machine(node));
        self.broken.take()
    }

    /// Looks at a machine, and at what it says of its requests, where invariants are checked and no other one is broken.
    pub(super) fn look_at_machine(&mut self, node: u32) {
        let now = self.clock_of(node);
        let this = &mut self.nodes[node as usize];
        let Some(dht) = this.dht.as_ref().filter(|_| self.setting.checks && self.broken.is_none()) else {
            return;
        };
        this.ledger.forget(dht);
        let held = dht.check_at(now).and_then(|()| this.ledger.check(now, dht));
        self.hold(node, held);
    }

    /// Notes which rule a node has broken, unless one is already.
    fn hold(&mut self, node: u32, held: Result<(), String>) {
        if let (Err(broken), None) = (held, &self.broken) {
            self.broken = Some(format!("seed {}, node {node}, {} µs: {broken}", self.setting.seed, self.now));
        }
    }

    /// Notes that a machine has sent a request.
    pub(super) fn note_asked(
        &mut self,
        node: u32,
        request: RequestId,
        contact: &Contact,
        query: &Query,
        deadline: Duration,
    ) {
        let this = &mut self.nodes[node as usize];
        let Some(dht) = this.dht.as_ref().filter(|_| self.setting.checks) else { return };
        let held = this.ledger.asked(request, dht.errand(request), deadline, contact, query);
        self.hold(node, held);
    }

    /// Notes that a machine has given a request up.
    pub(super) fn note_withdrawn(&mut self, node: u32, request: RequestId) {
        if self.setting.checks {
            let held = self.nodes[node as usize].ledger.withdrawn(request);
            self.hold(node, held);
        }
    }

    /// Notes that a machine has told a caller of the end of an operation, of which copies may still be on the way.
    pub(super) fn note_ended(&mut self, node: u32, operation: OperationId, unsettled: bool) {
        if self.setting.checks {
            let more = unsettled.then_some(self.config.lookup.background_deadline);
            let now = self.clock_of(node);
            let held = self.nodes[node as usize].ledger.ended(now, operation, more);
            self.hold(node, held);
        }
    }

    /// Looks at the answer to the query that has reached a machine last: whom it names has answered that machine, and is not in quarantine. The answer to a query that was kept may be older
    /// than what the machine has learned since, and is not looked at.
    pub(super) fn look_at_names(&mut self, node: u32, query: QueryId, answer: &Answer) {
        if !self.setting.checks || self.broken.is_some() || query.0 != self.last {
            return;
        }
        let Some(dht) = &self.nodes[node as usize].dht else { return };
        let stranger = answer.closer.iter().find(|named| !dht.table().names(named.key()));
        let held =
            stranger.map_or(Ok(()), |named| Err(format!("it names {}, whom it may not", named.peer())));
        self.hold(node, held);
    }

    /// Looks at the network when it is time for it, where invariants are checked and no other one is broken.
    pub(super) fn audit_when_due(&mut self) {
        if !self.setting.checks || self.broken.is_some() || self.now < self.audit.next {
            return;
        }
        let every = if self.audit.every == 0 { EVERY } else { self.audit.every };
        self.audit.next = self.now + every;
        for node in 0..self.nodes.len() as u32 {
            let (now, this) = (self.clock_of(node), &self.nodes[node as usize]);
            let held = this.dht.as_ref().map_or(Ok(()), |dht| this.ledger.check(now, dht));
            self.hold(node, held);
        }
        if self.setting.records.is_some() {
            self.look_at_records();
        }
    }

    /// Looks at all that is stored.
    pub(super) fn look_at_records(&mut self) {
        let mut audit = std::mem::take(&mut self.audit);
        let held = audit.look(self);
        self.audit = audit;
        if let Err((node, broken)) = held {
            self.hold(node, Err(broken));
        }
    }
}

impl Audit {
    fn look(&mut self, world: &World) -> Result<(), (u32, String)> {
        self.looks += 1;
        let mut known = Digests::default();
        for node in 0..world.setting.nodes as u32 {
            let this = &world.nodes[node as usize];
            let Some(store) = this.dht.as_ref().and_then(|dht| dht.store()) else { continue };
            let set = self.look_at(world, node, store).map_err(|broken| (node, broken))?;
            // D.3-8.
            let digest = Digest::of(set.iter().map(|(id, version)| (id, version)));
            known.agree(digest, set).map_err(|broken| (node, broken))?;
        }
        Ok(())
    }

    /// D.3-5, 6 and 12 at one holder; what it holds.
    fn look_at(
        &mut self,
        world: &World,
        node: u32,
        store: &Store,
    ) -> Result<Vec<(EntryId, Version)>, String> {
        store.check()?;
        let unix = world.clock_of(node).unix.as_secs();
        let start = world.nodes[node as usize].starts;
        let mut set = Vec::new();
        for summary in store.all() {
            let (id, version) = (summary.id, *summary.version);
            let signed = self.signed.get(&id).and_then(|(_, versions)| versions.get(&version));
            let Some(signed) = signed else {
                return Err(format!("{id:?} in {version:?}, which nobody signed"));
            };
            if store.unchecked(&id) != Some(signed) {
                return Err(format!("{id:?} in {version:?}, and not as it was signed"));
            }
            if summary.expires + GRACE < unix {
                return Err(format!("{id:?} expired {} s ago", unix - summary.expires));
            }
            if store.high_water(&id) < Some(version) {
                return Err(format!("{id:?} in {version:?}, above its high-water mark"));
            }
            let shown = self.shown.entry((node, start, id)).or_insert(version);
            if *shown > version {
                return Err(format!("{id:?} in {version:?} after {shown:?}"));
            }
            *shown = version;
            set.push((id, version));
        }
        set.sort_unstable();
        Ok(set)
    }
}

/// What nodes hold whose digest is this.
#[derive(Debug, Default)]
pub(super) struct Digests(BTreeMap<(u32, u128), Vec<(EntryId, Version)>>);

impl Digests {
    /// Whoever has the same digest has the same records.
    pub(super) fn agree(&mut self, digest: Digest, set: Vec<(EntryId, Version)>) -> Result<(), String> {
        match self.0.entry((digest.count, digest.sum)) {
            Entry::Occupied(known) if *known.get() != set => {
                return Err("it has another's digest and other records".into());
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(first) => {
                first.insert(set);
            }
        }
        Ok(())
    }
}
