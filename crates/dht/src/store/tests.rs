use super::*;
use crate::numbered::{contact, key, peer};
use crate::record::{Draft, EntryId, MailboxPolicy, Network, RecordsConfig};
use peerage_machine::Random;
use proptest::prelude::*;
use std::net::IpAddr;

mod check;
mod disk;
mod limits;
mod proofs;
mod room;
mod shares;

use disk::{reloaded, write_all};

/// Everything is ours to keep but for keys of which so many others are known to be closer.
struct Neighbourhood(usize);

impl Near for Neighbourhood {
    fn closer(&self, _: &Key, most: usize) -> usize {
        self.0.min(most)
    }

    fn network_size(&self) -> Option<f64> {
        None
    }
}

/// Keys that are further from zero than a bound have many closer peers.
struct Beyond(Key, Distance);

impl Near for Beyond {
    fn closer(&self, key: &Key, most: usize) -> usize {
        if self.0.distance(key) > self.1 { most.min(13) } else { 0 }
    }

    fn network_size(&self) -> Option<f64> {
        None
    }
}

use crate::Distance;

const ALONE: Neighbourhood = Neighbourhood(0);
const TTL: u64 = 48 * 3600;

fn network() -> Network {
    Network::new("acme").unwrap()
}

fn rules() -> Records {
    Records::new(network(), RecordsConfig { mailbox_work_bits: 0, ..RecordsConfig::default() })
}

fn own() -> Key {
    Key::of_peer(&peer(0))
}

fn store(config: StoreConfig) -> Store {
    Store::new(config, own(), &rules())
}

fn at(seconds: u64) -> Now {
    let time = Duration::from_secs(seconds);
    Now { mono: time, unix: time }
}

fn signed(publisher: u64, salt: &str, seq: u64, not_after: u64, body: &str) -> Record {
    let place = Place::Value { publisher: peer(publisher), salt: Bytes::copy_from_slice(salt.as_bytes()) };
    let draft = Draft::new(place, seq, not_after, Bytes::copy_from_slice(body.as_bytes()));
    Record::sign(&key(publisher), &network(), draft).unwrap()
}

fn put_by(store: &mut Store, now: Now, sender: Sender, record: &Record) -> Put {
    store.put(now, &rules(), &ALONE, sender, record.target(), &record.to_bytes())
}

fn put(store: &mut Store, now: u64, record: &Record) -> Put {
    put_by(store, at(now), Sender::Own, record)
}

fn from(number: u64) -> Sender {
    let [a, b] = [1 + number / 200, number % 200];
    Sender::Peer { peer: peer(number), remote: format!("20.{a}.{b}.1").parse().unwrap() }
}

fn get(store: &mut Store, record: &Record) -> Vec<Bytes> {
    store.page(at(0), &rules(), record.target().key(), None, 1 << 20).values
}

// AL-41: the newer one wins and the older one is told so, with what is newer.
/// Contract C-50.
#[test]
fn a_newer_record_takes_the_place_of_an_older_one_and_never_the_other_way() {
    let mut store = store(StoreConfig::default());
    let (old, new) = (signed(1, "a", 1, TTL, "old"), signed(1, "a", 2, TTL, "new"));
    assert_eq!(put(&mut store, 0, &old), Put::Stored);
    assert_eq!(put(&mut store, 0, &old), Put::Known);
    assert_eq!(put(&mut store, 0, &new), Put::Stored);
    assert_eq!(put(&mut store, 0, &old), Put::Stale(Some(new.to_bytes())));
    assert_eq!(get(&mut store, &old), [new.to_bytes()]);
    assert_eq!(store.used().records, 1);
}

// AL-44: what has expired is gone, from the indexes too, and how new it was is remembered.
/// Contract C-50.
#[test]
fn an_expired_record_leaves_and_nothing_older_comes_in_its_place() {
    let mut store = store(StoreConfig::default());
    assert_eq!(put(&mut store, 0, &signed(1, "a", 5, 100, "x")), Put::Stored);
    assert_eq!(store.poll_timeout(at(0)).unwrap().as_secs(), 0);
    store.expire(at(99));
    assert_eq!(store.used().records, 1);
    store.expire(at(100));
    assert_eq!((store.used(), store.by_id.len(), store.expiry.len()), (Usage::default(), 0, 0));
    // The longest life of such a record, from a clock that is ten minutes ahead.
    let longest = TTL + 600;
    assert_eq!(put(&mut store, 100, &signed(1, "a", 4, 100 + TTL, "old")), Put::Stale(None));
    store.expire(at(100 + longest - 1));
    assert_eq!(put(&mut store, 99 + longest, &signed(1, "a", 4, longest + TTL, "old")), Put::Stale(None));
    store.expire(at(100 + longest));
    assert_eq!(put(&mut store, 100 + longest, &signed(1, "a", 4, longest + TTL, "old")), Put::Stored);
}

#[test]
fn a_tombstone_hides_what_was_there() {
    let mut store = store(StoreConfig::default());
    put(&mut store, 0, &signed(1, "a", 1, TTL, "x"));
    let tombstone = signed(1, "a", 2, TTL, "");
    assert_eq!(put(&mut store, 0, &tombstone), Put::Stored);
    assert_eq!(get(&mut store, &tombstone), [tombstone.to_bytes()]);
    assert!(tombstone.is_tombstone());
}

#[test]
fn an_extension_lengthens_what_is_there_and_is_nothing_elsewhere() {
    let mut store = store(StoreConfig::default());
    let record = signed(1, "a", 1, 1000, "x");
    let longer = record.extended(&key(1), TTL).unwrap();
    let extend = |store: &mut Store| {
        store.put(at(0), &rules(), &ALONE, Sender::Own, record.target(), &longer.extension())
    };
    assert_eq!(extend(&mut store), Put::Refused(Refusal::Invalid));
    put(&mut store, 0, &record);
    assert_eq!(extend(&mut store), Put::Stored);
    assert_eq!(get(&mut store, &record), [longer.to_bytes()]);
    store.expire(at(1000));
    assert_eq!(store.used().records, 1);
}

#[test]
fn a_publisher_that_says_two_things_at_once_is_shown_with_both() {
    for swapped in [false, true] {
        let mut store = store(StoreConfig::default());
        let mut both = [signed(1, "a", 1, TTL, "x"), signed(1, "a", 1, TTL, "y")];
        if swapped {
            both.reverse();
        }
        put(&mut store, 0, &both[0]);
        put(&mut store, 0, &both[1]);
        let winner = both.iter().max_by_key(|record| *record.version()).unwrap();
        let shown = get(&mut store, &both[0]);
        assert_eq!((shown.len(), &shown[0]), (2, &winner.to_bytes()));
        let proof = store.take_equivocations().pop().unwrap();
        assert_eq!((proof.publisher, proof.values.to_vec()), (peer(1), shown));
        // A third one is no news.
        put(&mut store, 0, &signed(1, "a", 1, TTL - 1, "z"));
        assert!(store.take_equivocations().is_empty());
        // The next sequence number ends it.
        assert_eq!(put(&mut store, 0, &signed(1, "a", 2, TTL, "z")), Put::Stored);
        assert_eq!(get(&mut store, &both[0]).len(), 1);
    }
}

#[test]
fn records_that_others_are_closer_to_are_refused() {
    let mut store = store(StoreConfig::default());
    let record = signed(1, "a", 1, TTL, "x");
    let mut put = |closer| {
        store.put(at(0), &rules(), &Neighbourhood(closer), from(1), record.target(), &record.to_bytes())
    };
    // User values have 12 replicas.
    assert_eq!(put(24), Put::Refused(Refusal::TooFar));
    assert_eq!(put(23), Put::Stored);
}

struct Large;

impl Near for Large {
    fn closer(&self, _: &Key, _: usize) -> usize {
        0
    }

    fn network_size(&self) -> Option<f64> {
        Some(1e9)
    }
}

#[test]
fn records_that_a_network_of_this_size_keeps_elsewhere_are_refused() {
    let mut store = store(StoreConfig::default());
    let record = signed(1, "a", 1, TTL, "x");
    let put = store.put(at(0), &rules(), &Large, from(1), record.target(), &record.to_bytes());
    assert_eq!(put, Put::Refused(Refusal::TooFar));
}

struct Crowded {
    size: f64,
}

impl Near for Crowded {
    fn closer(&self, _: &Key, most: usize) -> usize {
        most
    }

    fn network_size(&self) -> Option<f64> {
        Some(self.size)
    }

    fn region(&self) -> f64 {
        30.0
    }
}

// AL-69, D.2-9: Sybils that crowd around a key don't keep honest nodes of the region from storing what lies there, and nobody further away is drawn in.
#[test]
fn who_lies_in_a_crowded_region_keeps_its_records_all_the_same() {
    let record = signed(1, "a", 1, TTL, "x");
    let put = |expected: f64| {
        let mut store = store(StoreConfig::default());
        let share = store.own.distance(record.target().key()).share();
        let near = Crowded { size: expected / share };
        store.put(at(0), &rules(), &near, from(1), record.target(), &record.to_bytes())
    };
    assert_eq!(put(29.0), Put::Stored);
    assert_eq!(put(31.0), Put::Refused(Refusal::TooFar));
}

/// Contract C-59.
#[test]
fn one_publisher_has_a_quota_of_bytes_and_of_records() {
    let mut store = store(StoreConfig { publisher_records: 3, ..StoreConfig::default() });
    let put_salt = |store: &mut Store, salt: &str, body: &str| put(store, 0, &signed(1, salt, 1, TTL, body));
    for salt in ["a", "b", "c"] {
        assert_eq!(put_salt(&mut store, salt, "x"), Put::Stored);
    }
    assert_eq!(put_salt(&mut store, "d", "x"), Put::Refused(Refusal::Quota));
    assert_eq!(put(&mut store, 0, &signed(2, "d", 1, TTL, "x")), Put::Stored);
    // What is there may be renewed.
    assert_eq!(put(&mut store, 0, &signed(1, "a", 2, TTL, "y")), Put::Stored);

    let mut store =
        Store::new(StoreConfig { publisher_bytes: 8 * 1024, ..StoreConfig::default() }, own(), &rules());
    let long = "x".repeat(4000);
    assert_eq!(put_salt(&mut store, "a", &long), Put::Stored);
    assert_eq!(put_salt(&mut store, "b", &long), Put::Refused(Refusal::Quota));
    assert!(store.used_by(&peer(1)).bytes <= 8 * 1024);
    store.expire(at(TTL));
    assert_eq!(store.used_by(&peer(1)), Usage::default());
}

#[test]
fn a_sender_and_its_subnet_have_a_rate() {
    let config =
        StoreConfig { put_burst: 2.0, puts_per_second: 1.0, subnet_factor: 2.0, ..StoreConfig::default() };
    let mut store = store(config);
    let remote: IpAddr = "20.1.1.1".parse().unwrap();
    let mut salt = 0;
    let mut send = |store: &mut Store, peer_number: u64, seconds| {
        salt += 1;
        let sender = Sender::Peer { peer: peer(peer_number), remote };
        put_by(store, at(seconds), sender, &signed(1, &salt.to_string(), 1, TTL, "x"))
    };
    assert_eq!(send(&mut store, 1, 0), Put::Stored);
    assert_eq!(send(&mut store, 1, 0), Put::Stored);
    assert_eq!(send(&mut store, 1, 0), Put::Busy);
    assert_eq!(send(&mut store, 2, 0), Put::Stored);
    // Five have come from the subnet, refused ones included: it is done too.
    assert_eq!(send(&mut store, 3, 0), Put::Busy);
    assert_eq!(send(&mut store, 3, 1), Put::Stored);
    // Loopback has no subnet.
    for number in 10..30 {
        let sender = Sender::Peer { peer: peer(number), remote: "127.0.0.1".parse().unwrap() };
        assert_eq!(
            put_by(&mut store, at(1), sender, &signed(2, &number.to_string(), 1, TTL, "x")),
            Put::Stored
        );
    }
}

#[test]
fn signatures_are_checked_at_a_rate_for_each_peer_by_repair_too() {
    let mut store = store(StoreConfig { checks_per_second: 3.0, ..StoreConfig::default() });
    let sender = Sender::Holder { peer: peer(9), subnet: None };
    let mut stored = 0;
    for salt in 0..10 {
        let record = signed(1, &salt.to_string(), 1, TTL, "x");
        stored += usize::from(put_by(&mut store, at(0), sender, &record) == Put::Stored);
    }
    assert_eq!(stored, 3);
    assert_eq!(put_by(&mut store, at(1), sender, &signed(1, "z", 1, TTL, "x")), Put::Stored);
    // What isn't newer costs none.
    assert_eq!(put_by(&mut store, at(1), sender, &signed(1, "z", 1, TTL, "x")), Put::Known);
}

#[test]
fn the_rates_of_a_bounded_number_of_senders_are_remembered() {
    let mut store = store(StoreConfig { max_senders: 8, ..StoreConfig::default() });
    for number in 0..100 {
        put_by(&mut store, at(0), from(number), &signed(1, "a", number, TTL, "x"));
    }
    assert_eq!(store.rates.remembered(), 8);
    // Those that have been quiet make room.
    assert_ne!(put_by(&mut store, at(100), from(100), &signed(1, "a", 100, TTL, "x")), Put::Busy);
    assert!(store.rates.remembered() <= 8);
}

/// Values of many publishers, by distance from us, the closest first.
fn many(count: u64) -> Vec<Record> {
    let mut all: Vec<_> = (1..=count).map(|number| signed(number, "a", 1, TTL, "x")).collect();
    all.sort_by_key(|record| own().distance(record.target().key()));
    all
}

// AL-43: eviction by distance, not by arrival or access.
/// Contract C-59.
#[test]
fn a_flood_far_away_does_not_displace_our_own_range() {
    let records = many(40);
    let edge = own().distance(records[9].target().key());
    let near = Beyond(own(), edge);
    for reversed in [false, true] {
        let mut store =
            store(StoreConfig { max_records: 20, namespace_share: 1.0, ..StoreConfig::default() });
        let mut order = records.clone();
        if reversed {
            order.reverse();
        }
        for record in &order {
            let put = store.put(at(0), &rules(), &near, Sender::Own, record.target(), &record.to_bytes());
            assert!(matches!(put, Put::Stored | Put::Busy), "{put:?}");
        }
        let kept: Vec<_> = records.iter().map(|record| !get(&mut store, record).is_empty()).collect();
        assert_eq!(kept, (0..40).map(|rank| rank < 20).collect::<Vec<_>>(), "reversed: {reversed}");
    }
}

#[test]
fn in_our_own_range_what_expires_soonest_goes_and_a_newcomer_that_would_go_first_is_told_that_we_are_busy() {
    let config = |max_records| StoreConfig { max_records, namespace_share: 1.0, ..StoreConfig::default() };
    let mut store = store(config(3));
    for (publisher, not_after) in [(1, 300), (2, 100), (3, 200)] {
        assert_eq!(put(&mut store, 0, &signed(publisher, "a", 1, not_after, "x")), Put::Stored);
    }
    assert_eq!(put(&mut store, 0, &signed(4, "a", 1, 50, "x")), Put::Busy);
    assert_eq!(put(&mut store, 0, &signed(5, "a", 1, 150, "x")), Put::Stored);
    assert!(get(&mut store, &signed(2, "a", 1, 100, "x")).is_empty());
    assert_eq!(store.used().records, 3);
    // Of two that expire together the larger one goes.
    let mut store = Store::new(config(2), own(), &rules());
    put(&mut store, 0, &signed(1, "a", 1, 100, "xxxxxxxx"));
    put(&mut store, 0, &signed(2, "a", 1, 100, "x"));
    assert_eq!(put(&mut store, 0, &signed(3, "a", 1, 100, "xx")), Put::Stored);
    assert!(get(&mut store, &signed(1, "a", 1, 100, "xxxxxxxx")).is_empty());
}

#[test]
fn one_namespace_cannot_take_everything() {
    let mut store = store(StoreConfig { max_bytes: 20_000, namespace_share: 0.5, ..StoreConfig::default() });
    for publisher in 1..100 {
        put(&mut store, 0, &signed(publisher, "a", 1, TTL, "x"));
    }
    assert!(store.used().bytes <= 10_000 && store.used().bytes > 8_000, "{:?}", store.used());
    let body = Bytes::from_static(b"content");
    let immutable =
        Record::sign(&key(1), &network(), Draft::new(Place::of_content(&body), 0, TTL, body)).unwrap();
    assert_eq!(put(&mut store, 0, &immutable), Put::Stored);
}

fn ad(publisher: u64) -> Record {
    let body = crate::topic::Ad { topic: "t".into(), brief: "x".repeat(100), ..Default::default() }.encode();
    let draft = Draft::new(Place::of_topic("t", 0), 1, 3600, body);
    Record::sign(&key(publisher), &network(), draft).unwrap()
}

// AL-28, AL-45: everything under a key is enumerated, page by page, whatever else was stored when.
/// Contract C-56.
#[test]
fn a_topic_is_read_page_by_page_until_all_was_seen() {
    let mut store = store(StoreConfig::default());
    for publisher in 1..=50 {
        assert_eq!(put(&mut store, 0, &ad(publisher)), Put::Stored);
    }
    let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = store.page(at(0), &rules(), ad(1).target().key(), cursor.as_ref(), 8 * 1024);
        assert!(page.values.iter().map(|value| value.len() + VALUE_FRAMING).sum::<usize>() <= 8 * 1024);
        seen.extend(page.values);
        pages += 1;
        // Another one in between disturbs nobody.
        put(&mut store, 0, &ad(1000 + pages));
        cursor = page.cursor;
        match &cursor {
            Some(cursor) => assert!(cursor.len() <= crate::MAX_CURSOR_BYTES),
            None => break,
        }
    }
    assert!(pages > 3 && (1..=50).all(|publisher| seen.contains(&ad(publisher).to_bytes())));
    assert!(store.page(at(0), &rules(), ad(1).target().key(), None, 0).values.len() == 1);
}

#[test]
fn a_key_holds_a_bounded_number_of_ads() {
    let mut store = store(StoreConfig { key_records: 5, ..StoreConfig::default() });
    let stored = (1..=10).filter(|publisher| put(&mut store, 0, &ad(*publisher)) == Put::Stored).count();
    assert_eq!(stored, 5);
    assert_eq!(put(&mut store, 0, &ad(6)), Put::Refused(Refusal::Quota));
}

fn mailbox() -> Place {
    Place::Mailbox { recipient: peer(1), slot: 0 }
}

fn message(sender: u64, seq: u64, token: Bytes) -> Record {
    let draft = Draft { token, ..Draft::new(mailbox(), seq, TTL, Bytes::from_static(b"sealed")) };
    Record::sign(&key(sender), &network(), draft).unwrap()
}

fn owners_rules(seq: u64, policy: MailboxPolicy, cleared: Vec<EntryId>) -> Record {
    let body = MailboxRules { policy, cleared }.encode();
    Record::sign(&key(1), &network(), Draft::new(mailbox(), seq, TTL, body)).unwrap()
}

// AL-42: so many messages in a mailbox, of one sender, and of strangers.
#[test]
fn a_mailbox_has_quotas_for_all_for_a_sender_and_for_strangers() {
    let mut store = store(StoreConfig::default());
    let token = |sender| crate::record::MailboxToken::issue(&key(1), &peer(sender), TTL);
    let of_one =
        (0..20).filter(|seq| put(&mut store, 0, &message(2, *seq, Bytes::new())) == Put::Stored).count();
    assert_eq!(of_one, 16);
    let strangers = (3..50)
        .filter(|sender| put(&mut store, 0, &message(*sender, 1, Bytes::new())) == Put::Stored)
        .count();
    assert_eq!(strangers, 16);
    let contacts = (50..100)
        .filter(|sender| put(&mut store, 0, &message(*sender, 1, token(*sender))) == Put::Stored)
        .count();
    assert_eq!(contacts, 32);
    assert_eq!(put(&mut store, 0, &message(200, 1, token(200))), Put::Refused(Refusal::Quota));
    // The owner's own rules always have their place.
    assert_eq!(put(&mut store, 0, &owners_rules(1, MailboxPolicy::Contacts, vec![])), Put::Stored);
}

/// Contract C-55.
#[test]
fn a_mailbox_is_opened_to_its_owner_alone_and_others_see_what_it_asks_of_them() {
    let mut store = store(StoreConfig::default());
    put(&mut store, 0, &message(2, 1, Bytes::new()));
    let rules_record = owners_rules(1, MailboxPolicy::Contacts, vec![]);
    put(&mut store, 0, &rules_record);
    let target = rules_record.target().clone();
    let mut read =
        |reader| store.mailbox(at(0), &rules(), &target, &mailbox(), &peer(reader), None, 1 << 20).values;
    assert_eq!(read(1).len(), 2);
    assert_eq!(read(2), [rules_record.to_bytes()]);
    assert_eq!(put(&mut store, 0, &message(3, 1, Bytes::new())), Put::Refused(Refusal::Policy));
}

// AL-39: here reading deletes, by the owner's signed word, and what was read doesn't come back.
/// Contract C-55.
#[test]
fn messages_that_the_owner_has_read_go_and_are_not_taken_again() {
    let mut store = store(StoreConfig::default());
    let (read, unread) = (message(2, 1, Bytes::new()), message(2, 2, Bytes::new()));
    put(&mut store, 0, &read);
    put(&mut store, 0, &unread);
    let open = MailboxPolicy::Open { work_bits: 0 };
    assert_eq!(put(&mut store, 0, &owners_rules(1, open, vec![read.id()])), Put::Stored);
    assert_eq!(store.used().records, 2);
    assert_eq!(put(&mut store, 0, &read), Put::Stale(None));
    // Not even when the rules say nothing of it any more.
    put(&mut store, 0, &owners_rules(2, open, vec![]));
    assert_eq!(put(&mut store, 0, &read), Put::Stale(None));
    assert_eq!(put(&mut store, 0, &message(2, 3, Bytes::new())), Put::Stored);
}

#[test]
fn provider_records_are_of_the_sender_alone_and_bounded() {
    let config = StoreConfig {
        providers_per_key: 3,
        providers_per_peer: 2,
        max_providers: 5,
        ..StoreConfig::default()
    };
    let mut store = store(config);
    let target = |name: &str| Target::new(name.as_bytes()).unwrap();
    let provide = |store: &mut Store, name: &str, number: u64| {
        store.provide(at(0), &peer(number), None, &target(name), contact(number))
    };
    assert_eq!(
        store.provide(at(0), &peer(1), None, &target("k"), contact(2)),
        Put::Refused(Refusal::NotTheProvider)
    );
    assert_eq!(provide(&mut store, &"k".repeat(80), 9), Put::Stored);
    assert_eq!(provide(&mut store, &"k".repeat(81), 9), Put::Refused(Refusal::TooLarge));
    for number in 1..=3 {
        assert_eq!(provide(&mut store, "k", number), Put::Stored);
    }
    assert_eq!(provide(&mut store, "k", 4), Put::Busy);
    assert_eq!(provide(&mut store, "k", 3), Put::Stored);
    assert_eq!(provide(&mut store, "l", 1), Put::Stored);
    assert_eq!(provide(&mut store, "m", 1), Put::Busy);
    let (page, cursor) = store.providers(target("k").key(), None, 2, 1 << 20);
    let (rest, end) = store.providers(target("k").key(), cursor.as_ref(), 2, 1 << 20);
    assert_eq!((page.len(), rest.len(), end), (2, 1, None));
    store.expire(at(TTL - 1));
    assert_eq!(store.provider_count(), 5);
    store.expire(at(TTL));
    assert_eq!(store.provider_count(), 0);
    assert_eq!(provide(&mut store, "m", 1), Put::Stored);
}

/// D.3-5 and D.3-12: counters are the sums of what is there, within bounds; every record is valid, alive and at its high-water mark.
fn check_invariants(store: &Store, now: Now) {
    assert_eq!((store.check(), store.check_rates()), (Ok(()), Ok(())));
    for (spot, entry) in &store.entries {
        assert!(entry.expires > now.unix.as_secs() && store.by_id.get(&entry.id) == Some(spot));
        let record = Record::open(&network(), &entry.value).unwrap();
        assert!(store.marks.get(&entry.id).is_none_or(|mark| mark.version <= *record.version()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Contract C-59.
    #[test]
    fn whatever_comes_the_store_keeps_its_bounds_and_never_goes_back(
        puts in prop::collection::vec((1u64..5, 0u8..3, 0u64..4, 1u64..400, 0usize..600, 0u64..40), 1..60),
    ) {
        let config = StoreConfig { max_bytes: 9_000, max_records: 7, publisher_bytes: 4_000, publisher_records: 3, max_marks: 6, ..StoreConfig::default() };
        let mut store = store(StoreConfig { namespace_share: 1.0, ..config });
        let mut disk = MemoryDisk::default();
        let mut time = 0;
        let mut newest: BTreeMap<EntryId, Version> = BTreeMap::new();
        for (publisher, salt, seq, life, length, wait) in puts {
            time += wait;
            store.expire(at(time));
            let record = signed(publisher, &salt.to_string(), seq, time + life, &"x".repeat(length));
            let before = store.high_water(&record.id());
            let put = put_by(&mut store, at(time), from(publisher), &record);
            if put.is_there() {
                prop_assert!(store.high_water(&record.id()) >= Some(*record.version()));
                newest.insert(record.id(), *record.version());
            }
            prop_assert!(store.high_water(&record.id()) >= before);
            check_invariants(&store, at(time));
        }
        write_all(&mut store, &mut disk, at(time));
        let (mut again, restored) = reloaded(&mut disk, at(time));
        prop_assert_eq!((restored.records, restored.damaged), (store.used().records, 0));
        again.config.max_marks = 6;
        again.config.max_bytes = 9_000;
        check_invariants(&again, at(time));
    }
}
