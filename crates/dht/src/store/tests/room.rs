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

fn ad_of(publisher: u64, topic: &str) -> Record {
    let ad = crate::topic::Ad { topic: topic.into(), ..Default::default() };
    let draft = Draft::new(Place::of_topic(topic, 0), 1, 7200, ad.encode());
    Record::sign(&key(publisher), &network(), draft).unwrap()
}

/// Of many topics the names of the two furthest, the nearer one first.
fn furthest_topics() -> [String; 2] {
    let mut names: Vec<_> = (0..64).map(|number| format!("topic {number}")).collect();
    names.sort_by_key(|name| away(&ad_of(1, name)));
    [names[62].clone(), names[63].clone()]
}

/// AL-43: content of 8 replicas lies where 13 are closer, and so does an ad, which has 20 and is ours to keep. The ad, though it is the furthest of all, shields none of
/// the content: that goes, the furthest first, and nothing of our own range, whoever came first.
#[test]
fn a_record_that_is_ours_to_keep_shields_none_that_others_are_closer_to() {
    let ad = ad_of(1, &furthest_topics()[1]);
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

/// A neighbourhood in which everything further than a bound has many closer peers, and that counts how often it is asked.
struct Counting(Beyond, std::cell::Cell<usize>);

impl Near for Counting {
    fn closer(&self, key: &Key, most: usize) -> usize {
        self.1.set(self.1.get() + 1);
        if self.0.closer(key, most) > 0 { most } else { 0 }
    }

    fn network_size(&self) -> Option<f64> {
        None
    }
}

/// What is asked of the table does not grow with the ads that stand under a key, nor with how many of them go for a newcomer.
#[test]
fn who_is_closer_to_a_key_is_asked_once_for_each_key_that_a_newcomer_is_compared_with() {
    let [topic, further] = furthest_topics();
    let ads: Vec<_> = (1..=40).map(|number| ad_of(number, &topic)).collect();
    let mut values: Vec<_> = (1..=20).map(|number| signed(number, "a", 1, TTL, &"x".repeat(3000))).collect();
    values.sort_by_key(away);
    let asked = |newcomer: &Record, edge| {
        let mut store = store(StoreConfig { namespace_share: 1.0, ..StoreConfig::default() });
        ads.iter().for_each(|ad| assert_eq!(put(&mut store, 0, ad), Put::Stored));
        store.config.max_bytes = store.used().bytes;
        let near = Counting(Beyond(own(), edge), std::cell::Cell::new(0));
        let put = store.put(at(0), &rules(), &near, Sender::Own, newcomer.target(), &newcomer.to_bytes());
        check_invariants(&store, at(0));
        (put, 40 - store.entries.range((away(&ads[0]), Bytes::new())..).count(), near.1.get())
    };
    let (put, gone, calls) = asked(&values[0], away(&values[10]));
    assert!(put == Put::Stored && gone >= 3 && calls == 2, "{put:?}, {gone} gone, asked {calls} times");
    // Nor where it comes to nothing, for a newcomer that would go first.
    let (put, gone, calls) = asked(&ad_of(1, &further), away(&values[10]));
    assert_eq!((put, gone, calls), (Put::Busy, 0, 2));
}
