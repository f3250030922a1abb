//! What must hold of records in the whole network (dht.md D.3, 5 to 8), looked at from outside while a run goes on.

use std::collections::{BTreeMap, BTreeSet};

use peerage_dht::record::{EntryId, Record, Version};
use peerage_dht::replication::Digest;
use peerage_dht::store::Store;
use peerage_dht::{Answer, QueryId};
use peerage_identity::PeerId;

use super::super::queue::{Micros, SECOND};
use super::World;

/// What is known of records from outside.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// All versions that a publisher has signed.
    signed: BTreeMap<EntryId, (PeerId, BTreeSet<Version>)>,
    /// The newest version that each holder has shown, in its present life.
    shown: BTreeMap<(u32, u32, EntryId), Version>,
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
        let empty = || (record.publisher(), BTreeSet::new());
        self.signed.entry(record.id()).or_insert_with(empty).1.insert(*record.version());
    }
}

impl World {
    /// What is broken of what was to hold all the time, at the end of a run.
    pub fn broken_at_the_end(&mut self) -> Option<String> {
        (0..self.setting.nodes as u32).for_each(|node| self.look_at_machine(node));
        self.broken.take()
    }

    /// Looks at a machine, where invariants are checked and no other one is broken.
    pub(super) fn look_at_machine(&mut self, node: u32) {
        let Some(dht) = &self.nodes[node as usize].dht else { return };
        if self.setting.checks
            && self.broken.is_none()
            && let Err(broken) = dht.check()
        {
            self.broken = Some(format!("seed {}, node {node}, {} µs: {broken}", self.setting.seed, self.now));
        }
    }

    /// Looks at the answer to the query that has reached a machine last: whom it names has answered that machine, and is not in quarantine. The answer to a query that was kept may be older
    /// than what the machine has learned since, and is not looked at.
    pub(super) fn look_at_names(&mut self, node: u32, query: QueryId, answer: &Answer) {
        if !self.setting.checks || self.broken.is_some() || query.0 != self.last {
            return;
        }
        let Some(dht) = &self.nodes[node as usize].dht else { return };
        if let Some(named) = answer.closer.iter().find(|named| !dht.table().names(named.key())) {
            let (seed, now, peer) = (self.setting.seed, self.now, named.peer());
            self.broken =
                Some(format!("seed {seed}, node {node}, {now} µs: it names {peer}, whom it may not"));
        }
    }

    /// Looks at the network when it is time for it, where invariants are checked and no other one is broken.
    pub(super) fn audit_when_due(&mut self) {
        if !self.setting.checks
            || self.setting.records.is_none()
            || self.broken.is_some()
            || self.now < self.audit.next
        {
            return;
        }
        let every = if self.audit.every == 0 { EVERY } else { self.audit.every };
        self.audit.next = self.now + every;
        let mut audit = std::mem::take(&mut self.audit);
        if let Err(broken) = audit.look(self) {
            self.broken = Some(format!("seed {}, {} µs: {broken}", self.setting.seed, self.now));
        }
        self.audit = audit;
    }
}

impl Audit {
    fn look(&mut self, world: &World) -> Result<(), String> {
        self.looks += 1;
        let mut digests: BTreeMap<(u32, u128), Vec<(EntryId, Version)>> = BTreeMap::new();
        for node in 0..world.setting.nodes as u32 {
            let this = &world.nodes[node as usize];
            let Some(store) = this.dht.as_ref().and_then(|dht| dht.store()) else { continue };
            let set = self.look_at(world, node, store).map_err(|broken| format!("node {node}: {broken}"))?;
            // D.3-8.
            let digest = Digest::of(set.iter().map(|(id, version)| (id, version)));
            if digests.entry((digest.count, digest.sum)).or_insert_with(|| set.clone()) != &set {
                return Err(format!("node {node} has another's digest and other records"));
            }
        }
        Ok(())
    }

    /// D.3-5 and D.3-6 at one holder; what it holds.
    fn look_at(
        &mut self,
        world: &World,
        node: u32,
        store: &Store,
    ) -> Result<Vec<(EntryId, Version)>, String> {
        let unix = world.clock_of(node).unix.as_secs();
        let start = world.nodes[node as usize].starts;
        let limits = &world.setting.config.store;
        let mut set = Vec::new();
        let mut publishers: BTreeMap<PeerId, usize> = BTreeMap::new();
        for summary in store.all() {
            let (id, version) = (summary.id, *summary.version);
            let signed = self.signed.get(&id).filter(|(_, versions)| versions.contains(&version));
            let Some((publisher, _)) = signed else {
                return Err(format!("{id:?} in {version:?}, which nobody signed"));
            };
            *publishers.entry(*publisher).or_insert(0) += 1;
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
        let used = store.used();
        if used.records != set.len() || used.records > limits.max_records || used.bytes > limits.max_bytes {
            return Err(format!("{used:?} counted, {} records there", set.len()));
        }
        for (publisher, records) in publishers {
            let of = store.used_by(&publisher);
            if of.records != records
                || records > limits.publisher_records
                || of.bytes > limits.publisher_bytes
            {
                return Err(format!("{of:?} of {publisher}, {records} records there"));
            }
        }
        Ok(set)
    }
}
