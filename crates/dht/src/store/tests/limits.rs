//! each limit of the store has an effect, on both sides of its edge.

use std::sync::Arc;

use super::*;
use crate::record::Validator;
use crate::{Invalid, Judged};

fn immutable(number: u64) -> Record {
    let body = Bytes::from(number.to_string());
    let draft = Draft::new(Place::of_content(&body), 0, TTL, body);
    Record::sign(&key(number), &network(), draft).unwrap()
}

#[test]
fn all_kinds_together_have_so_many_bytes() {
    for max_bytes in [9_000, 16_000] {
        let mut store = store(StoreConfig { max_bytes, ..StoreConfig::default() });
        for number in 1..50 {
            put(&mut store, 0, &signed(number, "a", 1, TTL, "x"));
            put(&mut store, 0, &immutable(number));
        }
        let bytes = store.used().bytes;
        assert!(bytes <= max_bytes && bytes > max_bytes - 1_500, "{bytes}");
    }
}

/// Contract C-59.
#[test]
fn a_sender_has_a_rate_of_its_own() {
    let mut store = store(StoreConfig { put_burst: 2.0, puts_per_second: 0.5, ..StoreConfig::default() });
    let mut salt = 0;
    let mut stored = |seconds| {
        let mut one = || {
            salt += 1;
            let record = signed(1, &salt.to_string(), 1, TTL, "x");
            put_by(&mut store, at(seconds), from(9), &record) == Put::Stored
        };
        (0..5).filter(|_| one()).count()
    };
    assert_eq!([stored(0), stored(1), stored(2), stored(100)], [2, 0, 1, 2]);
}

#[test]
fn it_is_remembered_of_so_many_that_are_gone_how_new_they_were() {
    let mut store = store(StoreConfig { max_marks: 3, ..StoreConfig::default() });
    for number in 1..=5 {
        put(&mut store, 0, &signed(number, "a", 5, 100 + number, "x"));
    }
    store.expire(at(200));
    let older = |number| signed(number, "a", 4, TTL, "older");
    let stale = (1..=5).filter(|number| put(&mut store, 200, &older(*number)) == Put::Stale(None));
    assert_eq!(stale.collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn changes_are_written_after_a_time_or_when_there_are_enough_for_a_batch() {
    let config = || StoreConfig {
        write_batch: 3,
        write_after: Duration::from_secs(9),
        sync_every: Duration::from_secs(40),
        ..StoreConfig::default()
    };
    let records = many(7);
    let mut few = store(config());
    records[..2].iter().for_each(|record| drop(put(&mut few, 1, record)));
    assert!(few.poll_batch(at(9)).is_none());
    assert_eq!(few.poll_timeout(at(1)), Some(Duration::from_secs(10)));
    let batch = few.poll_batch(at(10)).unwrap();
    assert_eq!((batch.changes.len(), batch.durable), (2, false));
    few.written(at(10), batch.number, true);
    assert!(few.poll_batch(at(49)).is_none());
    assert!(few.poll_batch(at(50)).unwrap().durable);

    let mut enough = store(config());
    records.iter().for_each(|record| drop(put(&mut enough, 1, record)));
    let mut batches = Vec::new();
    while let Some(batch) = enough.poll_batch(at(1)) {
        batches.push(batch.changes.len());
        enough.written(at(1), batch.number, true);
    }
    assert_eq!(batches, [3, 3]);
}

#[test]
fn a_provider_is_kept_for_the_configured_time() {
    let mut store = store(StoreConfig { provider_ttl: Duration::from_secs(60), ..StoreConfig::default() });
    store.provide(at(0), &peer(1), None, &Target::new(b"k").unwrap(), contact(1));
    store.expire(at(59));
    assert_eq!(store.provider_count(), 1);
    store.expire(at(60));
    assert_eq!(store.provider_count(), 0);
}

/// Values under `/long/…`, the longer the better.
struct Longest;

impl Validator for Longest {
    fn validate(&self, _: Now, _: &[u8], value: &Bytes) -> Result<Judged, Invalid> {
        let rank = Bytes::copy_from_slice(&(value.len() as u64).to_be_bytes());
        Ok(Judged { slot: Bytes::new(), rank, is_final: false })
    }
}

#[test]
fn values_of_the_applications_namespaces_have_their_bytes_their_life_and_their_replicas() {
    let mut config = RecordsConfig::default();
    let foreign = &mut config.foreign;
    (foreign.max_body_bytes, foreign.max_ttl, foreign.replicas) = (10, Duration::from_secs(60), 3);
    let rules = Records::new(network(), config).with_validator("long", Arc::new(Longest));
    let mut store = Store::new(StoreConfig::default(), own(), &rules);
    let target = Target::new(b"/long/x").unwrap();
    let mut put = |closer, bytes: usize| {
        let value = Bytes::from(vec![7; bytes]);
        store.put(at(0), &rules, &Neighbourhood(closer), from(1), &target, &value)
    };
    assert_eq!(put(0, 11), Put::Refused(Refusal::TooLarge));
    assert_eq!(put(6, 10), Put::Refused(Refusal::TooFar));
    assert_eq!(put(5, 10), Put::Stored);
    store.expire(at(59));
    assert_eq!(store.used().records, 1);
    store.expire(at(60));
    assert_eq!(store.used().records, 0);
}

/// A record of each kind.
fn of_kind(kind: Kind) -> Record {
    match kind {
        Kind::Value => signed(1, "a", 1, 3600, "x"),
        Kind::Topic => ad(1),
        Kind::Mailbox => message(2, 1, Bytes::new()),
        Kind::Immutable => immutable(1),
        Kind::Endpoint => {
            let place = Place::Endpoint { peer: peer(1) };
            Record::sign(&key(1), &network(), Draft::new(place, 1, 3600, Bytes::new())).unwrap()
        }
    }
}

#[test]
fn a_record_is_taken_by_twice_as_many_as_its_kind_has_replicas() {
    for kind in Kind::ALL {
        let mut config = RecordsConfig { mailbox_work_bits: 0, ..RecordsConfig::default() };
        let limits = match kind {
            Kind::Endpoint => &mut config.endpoint,
            Kind::Topic => &mut config.topic,
            Kind::Mailbox => &mut config.mailbox,
            Kind::Value => &mut config.value,
            Kind::Immutable => &mut config.immutable,
        };
        limits.replicas = 3;
        let rules = Records::new(network(), config);
        let record = of_kind(kind);
        let mut store = Store::new(StoreConfig::default(), own(), &rules);
        let mut put = |closer| {
            let near = Neighbourhood(closer);
            store.put(at(0), &rules, &near, from(1), record.target(), &record.to_bytes())
        };
        assert_eq!((put(6), put(5)), (Put::Refused(Refusal::TooFar), Put::Stored), "{kind:?}");
    }
}

#[test]
fn a_mailbox_has_the_configured_quotas() {
    let rules = Records::new(
        network(),
        RecordsConfig {
            mailbox_work_bits: 0,
            mailbox_messages: 9,
            mailbox_unknown: 5,
            mailbox_per_sender: 2,
            ..RecordsConfig::default()
        },
    );
    let mut store = Store::new(StoreConfig::default(), own(), &rules);
    let token = |sender| crate::record::MailboxToken::issue(&key(1), &peer(sender), TTL);
    let mut put = |record: &Record| {
        store.put(at(0), &rules, &ALONE, Sender::Own, record.target(), &record.to_bytes()) == Put::Stored
    };
    let of_one = (0..9).filter(|seq| put(&message(2, *seq, Bytes::new()))).count();
    let strangers = (3..20).filter(|sender| put(&message(*sender, 1, Bytes::new()))).count();
    let contacts = (20..40).filter(|sender| put(&message(*sender, 1, token(*sender)))).count();
    assert_eq!((of_one, strangers, contacts), (2, 3, 4));
}
