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

/// A record that nobody has signed, with the header that `like` has but for its version.
fn unsigned(like: &Record, not_after: u64, body: &'static [u8]) -> Bytes {
    let draft = Draft::new(like.place().clone(), like.version().seq, not_after, Bytes::from_static(body));
    let publisher = [2, 1].into_iter().find(|number| peer(*number) == like.publisher()).unwrap();
    let mut value = Record::sign(&key(publisher), &network(), draft).unwrap().to_bytes().to_vec();
    let tail = value.len() - body.len() - 3;
    value[tail] ^= 1;
    assert_eq!(Record::open(&network(), &value.clone().into()), Err(crate::record::RecordFault::Signature));
    value.into()
}

/// Whoever names its publisher and its number is shown no message for it, whether or not it says two things.
#[test]
fn a_message_that_is_newer_is_shown_to_its_sender_and_its_recipient_alone() {
    let sealed = |body, not_after| {
        let draft = Draft::new(mailbox(), 1, not_after, Bytes::from_static(body));
        Record::sign(&key(2), &network(), draft).unwrap()
    };
    let mut store = store(StoreConfig::default());
    let (first, second) = (sealed(b"sealed", TTL), sealed(b"other", TTL - 1));
    put(&mut store, 0, &first);
    let stale = |store: &mut Store, sender, like: &Record, value: &Bytes| {
        store.put(at(0), &rules(), &ALONE, sender, like.target(), value)
    };
    let holder = Sender::Holder { peer: peer(9), subnet: None };
    let mut shown = |old: Bytes| {
        let senders = [Sender::Own, from(1), from(2), from(9), holder];
        senders.map(|sender| match stale(&mut store, sender, &first, &old) {
            Put::Stale(value) => value == Some(first.to_bytes()),
            put => panic!("{put:?}"),
        })
    };
    assert_eq!(shown(unsigned(&first, TTL - 2, b"sealed")), [true, true, true, false, false]);
    put(&mut store, 0, &second);
    assert!(store.summary(&first.id()).is_some() && !store.take_equivocations().is_empty());
    let mut shown = |old: Bytes| {
        let senders = [Sender::Own, from(1), from(2), from(9), holder];
        senders.map(|sender| stale(&mut store, sender, &first, &old) == Put::Stale(Some(first.to_bytes())))
    };
    assert_eq!(shown(unsigned(&first, TTL - 2, b"third")), [true, true, true, false, false]);
    // What the mailbox asks of its senders everybody may read.
    let open = MailboxPolicy::Open { work_bits: 0 };
    let (older, newer) = (owners_rules(1, open, vec![]), owners_rules(2, open, vec![]));
    put(&mut store, 0, &newer);
    assert_eq!(put_by(&mut store, at(0), from(9), &older), Put::Stale(Some(newer.to_bytes())));
}
