//! Real records: who signs them, by which rules, and who holds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use peerage_dht::record::{Draft, EntryId, Network, Place, Record, Records, RecordsConfig};
use peerage_dht::{Class, Operation, Options, Target};
use peerage_identity::NodeKey;

use super::super::stream::{Purpose, Stream};
use super::World;

/// The name of the network in which all records are.
pub const NETWORK: &str = "simulated";

/// The network in which all of them are.
pub(super) fn network() -> Network {
    Network::new(NETWORK).expect("a short name of letters is a network's name")
}

/// The rules for one node: each has its own, for each decides by itself whether its clock is right.
pub(super) fn rules(config: &Arc<RecordsConfig>) -> Records {
    Records::new(network(), config.clone())
}

/// The key with which a node, or a publisher of this number, signs. Its machine has it, though its name in the simulation is another one.
pub fn key_of(seed: u64, number: u32) -> NodeKey {
    NodeKey::from_seed(Stream::new(seed, u64::from(number), Purpose::Records).bytes())
}

/// Where a publisher's value stands, before a network is there. `None` where the salt is too long.
pub fn place_of(seed: u64, publisher: u32, salt: &str) -> Option<Target> {
    let salt = Bytes::copy_from_slice(salt.as_bytes());
    Place::Value { publisher: key_of(seed, publisher).peer_id(), salt }.target(&network())
}

impl World {
    /// The key of a publisher.
    pub fn key_of(&self, publisher: u32) -> NodeKey {
        key_of(self.setting.seed, publisher)
    }

    /// Signs a value of a publisher that lives for so many seconds. `None` where the place or the value is too long.
    pub fn sign(
        &mut self,
        publisher: u32,
        salt: &str,
        seq: u64,
        seconds: u64,
        body: Bytes,
    ) -> Option<Record> {
        let key = self.key_of(publisher);
        let place = Place::Value { publisher: key.peer_id(), salt: Bytes::copy_from_slice(salt.as_bytes()) };
        let not_after = self.clock().unix.as_secs() + seconds;
        let record = Record::sign(&key, &network(), Draft::new(place, seq, not_after, body)).ok()?;
        self.audit.signed(&record);
        Some(record)
    }

    /// Has a node sign something under its key, store it and look after it, as whole nodes do. False where the place or the body is too long.
    pub fn publish(&mut self, node: u32, place: Place, seq: u64, body: Bytes, class: Class) -> bool {
        let life = self.setting.records.as_ref().map(|rules| rules.of(place.kind()).default_ttl);
        let life = life.unwrap_or_default();
        let not_after = (self.clock().unix + life).as_secs();
        let draft = Draft::new(place, seq, not_after, body);
        let Ok(record) = Record::sign(&self.key_of(node), &network(), draft) else { return false };
        self.audit.signed(&record);
        let wanted = Operation::Publish { record: Box::new(record), renew: Some(life) };
        self.start(node, wanted, Options { class, ..Options::default() });
        true
    }

    /// The key of a place in the network of these records. `None` where it is too long.
    pub fn target_of(&self, place: &Place) -> Option<Target> {
        place.target(&network())
    }

    /// Puts a record at the live nodes closest to its key, as if it had been there for long.
    pub fn plant(&mut self, record: &Record, replicas: usize) {
        let (target, value) = (record.target().clone(), record.to_bytes());
        for node in self.closest_up(target.key(), replicas) {
            let now = self.clock_of(node);
            if let Some(dht) = &mut self.nodes[node as usize].dht {
                dht.plant_record(now, &target, &value);
            }
            self.pump(node);
        }
    }

    /// Opens what was found.
    pub fn open(&self, value: &Bytes) -> Option<Record> {
        Record::open(&network(), value).ok()
    }

    /// Who holds a record, in this version or a newer one, and answers for it: the attacker's nodes are not among them.
    pub fn holders(&self, record: &Record) -> Vec<u32> {
        let id = record.id();
        let has = |node: &u32| {
            let this = &self.nodes[*node as usize];
            let store = this.dht.as_ref().filter(|_| this.is_well()).and_then(|dht| dht.store());
            store.and_then(|store| store.version(&id)).is_some_and(|version| version >= *record.version())
        };
        (0..self.setting.nodes as u32).filter(has).collect()
    }

    /// How many live holders each record has.
    pub fn replicas(&self) -> BTreeMap<EntryId, u32> {
        let mut replicas = BTreeMap::new();
        for node in self.nodes.iter().take(self.setting.nodes).filter(|node| node.is_well()) {
            let Some(store) = node.dht.as_ref().and_then(|dht| dht.store()) else { continue };
            for summary in store.all() {
                *replicas.entry(summary.id).or_insert(0) += 1;
            }
        }
        replicas
    }
}
