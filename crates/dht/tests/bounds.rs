//! Whatever the limits are set to within their bounds, a network works or says why not; it neither panics nor goes on for ever.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod net;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use net::Net;
use peerage_dht::limits::{Bound, bounds, record_bounds};
use peerage_dht::record::*;
use peerage_dht::*;

const S: fn(u64) -> Duration = Duration::from_secs;

/// Joins, stores and reads with these limits, through a minute of the network's life.
fn live(name: &str, config: &DhtConfig, records: &RecordsConfig) {
    let mut net = Net::new(11, 12, config);
    let records = Arc::new(RecordsConfig { mailbox_work_bits: 0, ..records.clone() });
    net.hold_records(move || Records::new(Network::new("acme").unwrap(), records.clone()));
    let contacts = vec![net.nodes[0].contact.clone()];
    for at in 1..12 {
        net.input(at, Input::Known { contacts: contacts.clone(), source: Source::Bootstrap });
    }
    net.run(S(20));
    let key = net.key(3);
    let place = Place::Value { publisher: key.peer_id(), salt: Bytes::from_static(b"colour") };
    let until = net.time().unix.as_secs() + 60;
    let draft = Draft::new(place, 1, until, Bytes::from_static(b"b"));
    let record = Record::sign(&key, &Network::new("acme").unwrap(), draft).unwrap();
    let get = Operation::Get { target: record.target().clone() };
    let publish = Operation::Publish { record: Box::new(record), renew: Some(S(60)) };
    for (at, operation) in
        [(3, publish), (7, get), (5, Operation::Closest { target: Target::new(b"x").unwrap() })]
    {
        let outcome = net.find(at, operation);
        assert!(outcome.counts.asked < 1000, "{name}: {:?}", outcome.counts);
    }
    net.run(S(60));
    for node in &net.nodes {
        node.dht.check().unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

// what is accepted works.
#[test]
fn whatever_one_limit_is_set_to_within_its_bounds_nothing_panics_or_hangs() {
    let mut tried = 0;
    for bound in bounds() {
        for set in [Bound::set_least, Bound::set_most] {
            let mut config = DhtConfig::default();
            set(bound, &mut config);
            if config.validate().is_ok() {
                live(bound.name, &config, &RecordsConfig::default());
                tried += 1;
            }
        }
    }
    for bound in record_bounds() {
        for set in [Bound::set_least, Bound::set_most] {
            let mut records = RecordsConfig::default();
            set(bound, &mut records);
            if records.validate().is_ok() {
                live(bound.name, &DhtConfig::default(), &records);
                tried += 1;
            }
        }
    }
    assert!(tried >= 200, "only {tried} were within the others");
}
