//! What the store's own check tells when a rule is broken (dht.md D.3, 5 and 12).

use super::*;

/// What is told of a store with two records of which one thing is spoilt.
fn spoilt(spoil: impl FnOnce(&mut Store)) -> String {
    let mut store = store(StoreConfig::default());
    for salt in ["a", "b"] {
        assert_eq!(put(&mut store, 0, &signed(1, salt, 1, TTL, "x")), Put::Stored);
    }
    assert_eq!(store.check(), Ok(()));
    spoil(&mut store);
    store.check().unwrap_err()
}

#[test]
fn counters_that_are_not_the_sums_of_what_is_there_are_told() {
    assert!(spoilt(|store| store.used.bytes += 1).contains("counted"));
    assert!(spoilt(|store| store.used.records += 1).contains("counted"));
    assert!(spoilt(|store| drop(store.entries.pop_last())).contains("counted"));
    assert!(spoilt(|store| store.by_id.clear()).contains("in the indexes"));
    assert!(spoilt(|store| store.keys = Keys::default()).contains("0 keys in the indexes"));
    assert!(spoilt(|store| store.namespaces[0].bytes += 1).contains("bytes of kinds"));
    assert!(spoilt(|store| store.publishers.clear()).contains("of publishers"));
}

#[test]
fn what_is_over_its_bound_is_told() {
    assert!(spoilt(|store| store.config.max_records = 1).contains("more than may be"));
    assert!(spoilt(|store| store.config.max_bytes = 100).contains("more than may be"));
    assert!(spoilt(|store| store.config.publisher_records = 1).contains("a publisher has"));
    assert!(spoilt(|store| store.config.publisher_bytes = 100).contains("a publisher has"));
}

#[test]
fn a_sender_that_owes_more_than_it_may_is_told() {
    let mut store = store(StoreConfig::default());
    assert_eq!(put_by(&mut store, at(0), from(1), &signed(1, "a", 1, TTL, "x")), Put::Stored);
    assert_eq!(store.check_rates(), Ok(()));
    store.rates.owe(&peer(1), at(0));
    assert!(store.check_rates().unwrap_err().contains("signatures of a peer"));
}
