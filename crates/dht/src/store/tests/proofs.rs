//! A publisher that says two things under one number: the proof stays while what it contradicts does.

use super::*;

/// Two records of publisher 1 under one number, the one that counts last; the lesser one lives as long.
fn two_things(bytes: usize) -> [Record; 2] {
    let mut said = ["x", "y"].map(|body| signed(1, "a", 1, 1000, &body.repeat(bytes)));
    said.sort_by_key(|record| *record.version());
    said
}

fn holds(store: &mut Store, now: u64, record: &Record) -> Option<(Bytes, Option<Bytes>)> {
    store.values(at(now), &rules(), &record.id())
}

/// AL-41: a longer life, by an extension or by the whole record, takes no proof away; a new number does.
#[test]
fn a_renewal_keeps_the_proof_of_two_things() {
    for whole in [false, true] {
        let mut store = store(StoreConfig::default());
        let [lesser, greater] = two_things(1);
        put(&mut store, 0, &lesser);
        put(&mut store, 0, &greater);
        let longer = greater.extended(&key(1), TTL).unwrap();
        let value = if whole { longer.to_bytes() } else { longer.extension() };
        let renewal = store.put(at(10), &rules(), &ALONE, from(9), longer.target(), &value);
        assert_eq!(renewal, Put::Stored);
        let both = (longer.to_bytes(), Some(lesser.to_bytes()));
        assert_eq!(holds(&mut store, 10, &longer), Some(both.clone()));
        assert_eq!(get(&mut store, &longer), [both.0, lesser.to_bytes()]);
        check_invariants(&store, at(10));
        // What has expired proves nothing any more; the other one, renewed as well, does.
        let other = lesser.extended(&key(1), TTL - 1).unwrap();
        store.take_equivocations();
        assert_eq!(put(&mut store, 1000, &other), Put::Stale(Some(longer.to_bytes())));
        let both = Some((longer.to_bytes(), Some(other.to_bytes())));
        assert_eq!(holds(&mut store, 1000, &longer), both);
        assert_eq!(store.take_equivocations().len(), 1);
        assert_eq!(put(&mut store, 1001, &signed(1, "a", 2, TTL, "z")), Put::Stored);
        assert_eq!(holds(&mut store, 1001, &longer).unwrap().1, None);
    }
}

/// Where both have no room the renewal comes in alone, and nobody gives way to the proof.
#[test]
fn a_renewal_without_room_for_the_proof_comes_in_alone() {
    for of_publisher in [true, false] {
        let mut store = store(StoreConfig { namespace_share: 1.0, ..StoreConfig::default() });
        let [lesser, greater] = two_things(600);
        put(&mut store, 0, &signed(if of_publisher { 1 } else { 2 }, "b", 1, 2000, "x"));
        put(&mut store, 0, &lesser);
        put(&mut store, 0, &greater);
        assert!(holds(&mut store, 0, &greater).unwrap().1.is_some());
        let less = store.used().bytes - lesser.to_bytes().len();
        match of_publisher {
            true => store.config.publisher_bytes = less,
            false => store.config.max_bytes = less,
        }
        let longer = greater.extended(&key(1), 1001).unwrap();
        assert_eq!(put(&mut store, 10, &longer), Put::Stored);
        assert_eq!(holds(&mut store, 10, &longer), Some((longer.to_bytes(), None)));
        assert_eq!(store.used().records, 2);
    }
}
