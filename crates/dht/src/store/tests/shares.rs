//! Who gives way where there is no more room: whoever has most, whoever came first.

use super::*;

/// A sender in a subnet of its own number.
fn in_subnet(subnet: u8, number: u64) -> Sender {
    Sender::Peer { peer: peer(number), remote: IpAddr::from([20, 7, subnet, 1]) }
}

fn quick() -> StoreConfig {
    StoreConfig { put_burst: 1e6, checks_per_second: 1e6, ..StoreConfig::default() }
}

fn publishers(store: &mut Store, record: &Record) -> BTreeSet<PeerId> {
    let values = get(store, record);
    values.iter().map(|value| Record::open(&network(), value).unwrap().publisher()).collect()
}

/// X-27, AL-42: signers cost nothing. One peer that has filled a topic's shard under made-up names makes room for everybody else, and comes in again for nobody.
/// Contract C-59.
#[test]
fn a_full_key_is_shared_out_among_subnets_whoever_came_first() {
    let mut store = store(StoreConfig { key_records: 20, ..quick() });
    let flood: Vec<Record> = (1..=60).map(ad).collect();
    let stored =
        |store: &mut Store, sender, record: &Record| put_by(store, at(0), sender, record) == Put::Stored;
    assert_eq!(flood.iter().filter(|ad| stored(&mut store, in_subnet(1, 900), ad)).count(), 20);
    // Eight who come later, each from elsewhere, have their places; all of them stay, whatever the flooder sends.
    let honest: Vec<Record> = (101..=108).map(ad).collect();
    for (subnet, ad) in (10..).zip(&honest) {
        assert!(stored(&mut store, in_subnet(subnet, 900 + u64::from(subnet)), ad));
    }
    assert_eq!(flood.iter().filter(|ad| stored(&mut store, in_subnet(1, 901), ad)).count(), 0);
    let there = publishers(&mut store, &flood[0]);
    assert!(there.len() == 20 && (101..=108).all(|number| there.contains(&peer(number))));
    // Two subnets share what there is, and then neither takes from the other.
    let more: Vec<Record> = (201..=260).map(ad).collect();
    assert_eq!(more.iter().filter(|ad| stored(&mut store, in_subnet(2, 902), ad)).count(), 6);
    assert_eq!(flood.iter().filter(|ad| stored(&mut store, in_subnet(1, 900), ad)).count(), 0);
    // What a holder hands over takes nobody's place.
    let holder = Sender::Holder { peer: peer(950), subnet: None };
    assert_eq!(put_by(&mut store, at(0), holder, &ad(300)), Put::Refused(Refusal::Quota));
    // On a machine's own loopback peers share, not subnets.
    let local = |number| Sender::Peer { peer: peer(number), remote: [127, 0, 0, 1].into() };
    assert!(stored(&mut store, local(1), &ad(301)) && stored(&mut store, local(2), &ad(302)));
}

#[test]
fn who_has_filled_a_key_is_known_after_a_restart() {
    let config = || StoreConfig { key_records: 5, ..quick() };
    let (mut store, mut disk) = (store(config()), MemoryDisk::default());
    (1..=5).for_each(|number| drop(put_by(&mut store, at(0), in_subnet(1, 900), &ad(number))));
    write_all(&mut store, &mut disk, at(1));
    let mut again = super::store(config());
    assert_eq!(again.restore(at(1), &rules(), disk.load().unwrap()).records, 5);
    assert_eq!(put_by(&mut again, at(1), in_subnet(1, 900), &ad(6)), Put::Refused(Refusal::Quota));
    assert_eq!(put_by(&mut again, at(1), in_subnet(2, 901), &ad(7)), Put::Stored);
}

#[test]
fn strangers_share_a_mailboxs_places_and_take_none_of_those_with_a_token() {
    let mut store = store(quick());
    let token = |sender| crate::record::MailboxToken::issue(&key(1), &peer(sender), TTL);
    for sender in 300..332 {
        assert_eq!(
            put_by(&mut store, at(0), in_subnet(3, 900), &message(sender, 1, token(sender))),
            Put::Stored
        );
    }
    let mut stored = |subnet, senders: std::ops::Range<u64>| {
        let mut put = |sender: &u64| {
            put_by(&mut store, at(0), in_subnet(subnet, 900), &message(*sender, 1, Bytes::new()))
        };
        senders.filter(|sender| put(sender) == Put::Stored).count()
    };
    assert_eq!([stored(1, 2..100), stored(2, 100..200), stored(4, 200..201)], [32, 16, 1]);
    let known = publishers(&mut store, &message(2, 1, Bytes::new()));
    assert_eq!((known.len(), (300..332).filter(|sender| known.contains(&peer(*sender))).count()), (64, 32));
}

fn provide(store: &mut Store, name: &[u8], subnet: u8, number: u64) -> Put {
    let remote = IpAddr::from([20, 7, subnet, 1]);
    store.provide(at(0), &peer(number), Some(remote), &Target::new(name).unwrap(), contact(number))
}

#[test]
fn a_full_provider_key_is_shared_out_among_subnets() {
    let mut store = store(StoreConfig { providers_per_key: 6, ..quick() });
    let mut stored = |subnet, numbers: std::ops::Range<u64>| {
        numbers.filter(|number| provide(&mut store, b"k", subnet, *number) == Put::Stored).count()
    };
    assert_eq!([stored(1, 0..50), stored(2, 50..51), stored(3, 51..60), stored(1, 60..70)], [6, 1, 2, 0]);
    assert_eq!(store.provider_count(), 6);
}

/// Providers are kept as records are: those of keys near us.
#[test]
fn in_a_full_table_of_providers_the_furthest_keys_give_way() {
    let mut names: Vec<[u8; 1]> = (0..60).map(|name| [name]).collect();
    names.sort_by_key(|name| own().distance(&Key::of(name)));
    for reversed in [false, true] {
        let (mut store, mut disk) =
            (store(StoreConfig { max_providers: 20, ..quick() }), MemoryDisk::default());
        let mut order = names.clone();
        if reversed {
            order.reverse();
        }
        for (number, name) in (0..).zip(&order) {
            let put = provide(&mut store, name, 1, number);
            assert!(matches!(put, Put::Stored | Put::Busy), "{put:?}");
        }
        let there = |name: &[u8; 1]| !store.providers(&Key::of(name), None, 9, 999).0.is_empty();
        assert_eq!(
            names.iter().map(there).collect::<Vec<_>>(),
            (0..60).map(|rank| rank < 20).collect::<Vec<_>>()
        );
        // Who gave way is gone from the disk too.
        write_all(&mut store, &mut disk, at(1));
        assert_eq!((disk.len(), store.provider_count()), (20, 20));
    }
}

#[test]
fn one_kind_has_its_share_of_the_records_too() {
    let mut store = store(StoreConfig { max_records: 20, namespace_share: 0.5, ..quick() });
    let stored =
        (1..40).filter(|number| put(&mut store, 0, &signed(*number, "a", 1, TTL, "x")) == Put::Stored);
    assert_eq!(stored.count(), 10);
    assert_eq!(put(&mut store, 0, &ad(1)), Put::Stored);
}

/// messages that may wait for a week push no ad of an hour out of our own range.
#[test]
fn a_flood_of_a_long_lived_kind_displaces_no_short_lived_one() {
    let mut store = store(StoreConfig { max_records: 30, namespace_share: 1.0, ..quick() });
    (1..=3).for_each(|number| assert_eq!(put(&mut store, 0, &ad(number)), Put::Stored));
    for number in 10..70 {
        put(&mut store, 0, &signed(number, "a", 1, TTL, "x"));
    }
    assert_eq!((store.used().records, publishers(&mut store, &ad(1)).len()), (30, 3));
    // And a full store takes further ads in their place.
    assert_eq!(put(&mut store, 0, &ad(4)), Put::Stored);
    assert_eq!((store.used().records, publishers(&mut store, &ad(1)).len()), (30, 4));
    // Of two kinds that both take much, that goes which has less of its own longest life before it.
    let mut both = super::store(StoreConfig { max_records: 12, namespace_share: 1.0, ..quick() });
    (1..=6).for_each(|number| assert_eq!(put(&mut both, 0, &ad(number)), Put::Stored));
    (1..=6)
        .for_each(|number| assert_eq!(put(&mut both, 0, &signed(number, "a", 1, TTL / 4, "x")), Put::Stored));
    assert_eq!(put(&mut both, 0, &signed(7, "a", 1, TTL, "x")), Put::Stored);
    assert_eq!(publishers(&mut both, &ad(1)).len(), 6);
}

/// The check of a token is one of a signature, and is paid for before it is made.
#[test]
fn a_token_counts_as_a_signature_that_is_checked() {
    let taken = |token: Bytes| {
        let mut store = store(StoreConfig { checks_per_second: 4.0, ..quick() });
        let sender = Sender::Holder { peer: peer(9), subnet: None };
        let put = |seq| put_by(&mut store, at(0), sender, &message(2, seq, token.clone()));
        (0..10).map(put).filter(|put| *put != Put::Busy).count()
    };
    let good = crate::record::MailboxToken::issue(&key(1), &peer(2), TTL);
    let forged = crate::record::MailboxToken::issue(&key(7), &peer(2), TTL);
    assert_eq!([taken(Bytes::new()), taken(good), taken(forged)], [4, 2, 2]);
}

/// While our clock is wrong, a second word under one number lives no longer than any record.
#[test]
fn an_equivocation_lives_no_longer_than_its_kind_may() {
    let records = rules();
    records.count_times(false);
    let mut store = store(quick());
    let far = 1000 * TTL;
    let (mut first, mut second) = (signed(1, "a", 1, far, "x"), signed(1, "a", 1, far, "y"));
    if first.version() > second.version() {
        std::mem::swap(&mut first, &mut second);
    }
    for record in [&first, &second] {
        let put = store.put(at(0), &records, &ALONE, Sender::Own, record.target(), &record.to_bytes());
        assert_eq!(put, Put::Stored);
    }
    assert_eq!(store.summary(&first.id()).unwrap().expires, TTL);
}

/// A newcomer for which not enough would go displaces nothing at all, and nothing is remembered as gone.
#[test]
fn a_newcomer_that_comes_in_for_nobody_takes_nobodys_place() {
    let mut store = store(StoreConfig { namespace_share: 1.0, ..quick() });
    let [soon, late] = [(1, 1000), (2, TTL)].map(|(number, until)| signed(number, "a", 1, until, "x"));
    [&soon, &late].into_iter().for_each(|record| assert_eq!(put(&mut store, 0, record), Put::Stored));
    store.config.max_bytes = store.used().bytes + 10;
    let before = store.used();
    let large = signed(3, "a", 1, 2000, &"x".repeat(before.bytes / 2 + 20));
    assert_eq!(put(&mut store, 0, &large), Put::Busy);
    assert_eq!((store.used(), get(&mut store, &soon)), (before, vec![soon.to_bytes()]));
    assert_eq!(store.marks.len(), 0);
    check_invariants(&store, at(0));
    // The one that goes before it is enough for a smaller one, and is remembered.
    let small = signed(3, "a", 1, 2000, "xx");
    assert_eq!(put(&mut store, 0, &small), Put::Stored);
    assert!(get(&mut store, &soon).is_empty());
    assert_eq!(store.high_water(&soon.id()), Some(*soon.version()));
}

/// records of a second's life, of which one subnet brings as many as it likes, make nobody forget how new others' records were; over a restart, too. Nor do those that one
/// holder hands over, however many: they are that holder's.
#[test]
fn what_is_remembered_of_records_that_are_gone_is_shared_out_among_subnets() {
    let handed = |subnet: u8, number| {
        let Origin::Subnet(subnet) = Origin::of(&in_subnet(subnet, number)) else { panic!("loopback") };
        Sender::Holder { peer: peer(number), subnet: Some(subnet) }
    };
    let local = |_, number| Sender::Holder { peer: peer(number), subnet: None };
    shared_out(in_subnet, in_subnet);
    shared_out(handed, handed);
    shared_out(handed, in_subnet);
    shared_out(local, local);
}

/// Six have brought a record each that is gone, and another one a hundred.
fn shared_out(six: impl Fn(u8, u64) -> Sender, another: impl Fn(u8, u64) -> Sender) {
    let config = || StoreConfig { max_marks: 12, ..quick() };
    let (mut store, mut disk) = (store(config()), MemoryDisk::default());
    let of = |number: u64, seq, until| signed(number, "a", seq, until, "x");
    for number in 1..=6 {
        let sender = six(10 + number as u8, 900 + number);
        assert_eq!(put_by(&mut store, at(0), sender, &of(number, 5, 100)), Put::Stored);
    }
    store.expire(at(100));
    let flood = |store: &mut Store, from: u64, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let put = put_by(store, at(from + number), another(1, 950), &of(number, 5, from + number + 1));
            assert_eq!(put, Put::Stored);
            store.expire(at(from + number + 1));
            check_invariants(store, at(from + number + 1));
        }
    };
    let known = |store: &mut Store, now| {
        let mut put = |number: &u64| put(store, now, &of(*number, 4, now + 60)) == Put::Stale(None);
        (1..=6).filter(|number| put(number)).count()
    };
    flood(&mut store, 0, 100..130);
    assert_eq!((store.marks.len(), known(&mut store, 200)), (12, 6));
    write_all(&mut store, &mut disk, at(200));
    let mut again = super::store(config());
    again.restore(at(200), &rules(), disk.load().unwrap());
    flood(&mut again, 200, 200..230);
    assert_eq!((again.marks.len(), known(&mut again, 500)), (12, 6));
}

/// What is older than an ad has expired two hours after it at the latest: nothing is remembered for longer.
#[test]
fn how_new_a_record_was_is_remembered_for_the_longest_life_of_its_kind() {
    for (kind, gone_at) in [("expired", 3600), ("let go", 1000)] {
        let mut store = store(StoreConfig::default());
        put(&mut store, 0, &ad(1));
        store.let_go(at(gone_at), &ad(1).id());
        let until = gone_at + 2 * 3600 + 600;
        store.expire(at(until - 1));
        assert_eq!(store.high_water(&ad(1).id()), Some(*ad(1).version()), "{kind}");
        store.expire(at(until));
        assert_eq!(store.high_water(&ad(1).id()), None, "{kind}");
    }
}
