//! Who goes where the store is full of several kinds.

use super::*;

fn config(max_records: usize) -> StoreConfig {
    StoreConfig { max_records, namespace_share: 1.0, ..StoreConfig::default() }
}

fn away(record: &Record) -> Distance {
    own().distance(record.target().key())
}

fn immutable(number: u64) -> Record {
    let body = Bytes::from(number.to_string());
    Record::sign(&key(number), &network(), Draft::new(Place::of_content(&body), 0, TTL, body)).unwrap()
}

fn ad_of(publisher: u64, topic: &str, brief: usize) -> Record {
    let ad = crate::topic::Ad { topic: topic.into(), brief: "x".repeat(brief), ..Default::default() };
    let draft = Draft::new(Place::of_topic(topic, 0), 1, 7200, ad.encode());
    Record::sign(&key(publisher), &network(), draft).unwrap()
}

/// Of many topics the name of the furthest.
fn furthest_topic() -> String {
    let names = (0..64).map(|number| format!("topic {number}"));
    names.max_by_key(|name| away(&ad_of(1, name, 0))).unwrap()
}

/// AL-43, X-27: content of 8 replicas lies where 13 are closer, and so does an ad, which has 20 and is ours to keep. The ad, though it is the furthest of all, shields none of
/// the content: that goes, the furthest first, and nothing of our own range, whoever came first.
#[test]
fn a_record_that_is_ours_to_keep_shields_none_that_others_are_closer_to() {
    let ad = ad_of(1, &furthest_topic(), 0);
    let mut values: Vec<_> = (1..=40)
        .map(|number| signed(number, "a", 1, if number % 2 == 0 { TTL / 2 } else { TTL / 4 }, "x"))
        .collect();
    values.sort_by_key(away);
    let edge = away(&values[17]);
    let near = Beyond(own(), edge);
    let mut content: Vec<_> =
        (1..=80).map(immutable).filter(|it| away(it) > edge && away(it) < away(&ad)).collect();
    content.sort_by_key(away);
    content.truncate(20);
    let ours = &values[..18];
    let flood_first: Vec<_> = [&ad].into_iter().chain(&content).chain(ours).collect();
    for reversed in [false, true] {
        let mut store = store(config(30));
        let mut order = flood_first.clone();
        if reversed {
            order.reverse();
        }
        for record in order {
            let put = store.put(at(0), &rules(), &near, Sender::Own, record.target(), &record.to_bytes());
            assert!(matches!(put, Put::Stored | Put::Busy), "{put:?}");
            check_invariants(&store, at(0));
        }
        let there = |store: &mut Store, record: &Record| !get(store, record).is_empty();
        assert!(ours.iter().chain([&ad]).all(|record| there(&mut store, record)), "reversed: {reversed}");
        let kept: Vec<_> = content.iter().map(|record| there(&mut store, record)).collect();
        assert_eq!(kept, (0..20).map(|rank| rank < 11).collect::<Vec<_>>(), "reversed: {reversed}");
    }
}
