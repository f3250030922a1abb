//! What holders of the same records tell each other, and what a holder answers to it.

use std::net::Ipv4Addr;
use std::time::Duration;

use peerage_dht::record::{Network, Records, RecordsConfig};
use peerage_dht::replication::{Asker, Repair, RepairMessage, ReplicationConfig};
use peerage_dht::store::{Near, Store, StoreConfig};
use peerage_dht::{Key, MAX_REPAIR_BYTES};
use peerage_identity::NodeKey;
use peerage_machine::Now;

use crate::{owned, speaker};

struct Nobody;

impl Near for Nobody {
    fn closer(&self, _: &Key, _: usize) -> usize {
        0
    }

    fn network_size(&self) -> Option<f64> {
        None
    }
}

/// A message that is read comes back when it is written, within what it says that it takes; whatever it asks, the answer is within bounds.
pub fn run(data: &[u8]) {
    let Ok(message) = RepairMessage::decode(&owned(data)) else { return };
    let bytes = message.encode();
    assert!(bytes.len() <= message.wire_bytes());
    assert_eq!(RepairMessage::decode(&bytes).as_ref(), Ok(&message));

    let records = Records::new(Network::new("acme").expect("a good name"), RecordsConfig::default());
    let own = Key::of_peer(&NodeKey::from_seed([2; 32]).peer_id());
    let mut store = Store::new(StoreConfig::default(), own, &records);
    let mut repair = Repair::new(ReplicationConfig::default(), own, &records);
    let now = Now { mono: Duration::ZERO, unix: Duration::from_secs(1_000) };
    for verified in [false, true] {
        let asker = Asker { peer: speaker().peer_id(), remote: Ipv4Addr::LOCALHOST.into(), verified };
        if let Ok((answer, _)) = repair.asked(now, &records, &Nobody, &mut store, &asker, &message) {
            assert!(answer.encode().len() <= MAX_REPAIR_BYTES);
            assert_eq!(answer.verdicts.len(), message.records.len());
            assert_eq!(RepairMessage::decode(&answer.encode()), Ok(answer));
        }
    }
}
