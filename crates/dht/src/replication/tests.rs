use super::*;
use crate::numbered::{contact, key, peer};
use crate::record::{Draft, Network, Place, Record, Records, RecordsConfig};
use crate::store::{Near, Sender, Store, StoreConfig};
use crate::topic::Ad;
use crate::{Contact, Key, MAX_REPAIR_BYTES};
use peerage_machine::{Now, Random};
use std::collections::BTreeSet;

mod answers;
mod beyond;
mod limits;
mod live;

struct Alone;

impl Near for Alone {
    fn closer(&self, _: &Key, _: usize) -> usize {
        0
    }

    fn network_size(&self) -> Option<f64> {
        None
    }
}

/// Twenty peers, the closest to a record first.
fn twenty_around(record: &Record) -> Vec<u64> {
    let mut numbers: Vec<u64> = (1..=20).collect();
    numbers.sort_by_key(|number| record.target().key().distance(&Key::of_peer(&peer(*number))));
    numbers
}

fn network() -> Network {
    Network::new("acme").unwrap()
}

fn rules() -> Records {
    Records::new(network(), RecordsConfig::default())
}

fn at(seconds: u64) -> Now {
    let time = Duration::from_secs(seconds);
    Now { mono: time, unix: time }
}

/// A holder with its store.
struct Node {
    number: u64,
    store: Store,
    repair: Repair,
    random: Random,
    rules: Records,
    /// It is of a version that knows of nothing but signed records.
    is_old: bool,
}

impl Node {
    fn new(number: u64) -> Self {
        let own = Key::of_peer(&peer(number));
        // Whatever the test hands over at once comes in.
        let config =
            StoreConfig { checks_per_second: 1e6, publisher_bytes: 1 << 24, ..StoreConfig::default() };
        let repair = Repair::new(ReplicationConfig::default(), own, &rules());
        let (store, random) = (Store::new(config, own, &rules()), Random::from_number(number));
        Self { number, store, repair, random, rules: rules(), is_old: false }
    }

    fn knows(&mut self, now: Now, others: &[u64]) {
        let contacts =
            others.iter().filter(|other| **other != self.number).map(|other| contact(*other)).collect();
        self.repair.set_neighbours(now, contacts, &mut self.random);
    }

    fn put(&mut self, record: &Record) {
        let put = self.store.put(at(0), &rules(), &Alone, Sender::Own, record.target(), &record.to_bytes());
        assert!(put.is_there(), "{put:?}");
    }

    fn ids(&self) -> BTreeSet<crate::record::EntryId> {
        self.store.all().map(|summary| summary.id).collect()
    }
}

/// Runs all comparisons that are due, to their ends. Returns how many questions it took.
fn compare(nodes: &mut [Node], now: Now) -> usize {
    let mut asks = Vec::new();
    for (from, node) in nodes.iter_mut().enumerate() {
        let polled = node.repair.poll(now, &node.rules, &mut node.store, &mut node.random);
        asks.extend(polled.into_iter().map(|ask| (from, ask)));
    }
    let mut questions = 0;
    while let Some((from, (token, to, message))) = asks.pop() {
        questions += 1;
        assert!(message.encode().len() <= MAX_REPAIR_BYTES);
        let asker = peer(nodes[from].number);
        let asked = nodes.iter_mut().find(|node| peer(node.number) == *to.peer());
        let Some(asked) = asked else {
            nodes[from].repair.failed(token);
            continue;
        };
        let message = RepairMessage::decode(&message.encode()).unwrap();
        let message = if asked.is_old { plain(message) } else { message };
        let asker = Asker { peer: asker, remote: "20.0.0.1".parse().unwrap(), verified: true };
        let answer = asked.repair.asked(now, &asked.rules, &Alone, &mut asked.store, &asker, &message);
        let Ok((answer, _)) = answer else {
            nodes[from].repair.failed(token);
            continue;
        };
        assert!(answer.encode().len() <= MAX_REPAIR_BYTES);
        let answer = RepairMessage::decode(&answer.encode()).unwrap();
        let node = &mut nodes[from];
        let (next, _) =
            node.repair.answered(now, &node.rules, &Alone, &mut node.store, &mut node.random, token, &answer);
        asks.extend(next.map(|next| (from, next)));
    }
    questions
}

/// What an earlier version reads of a message.
fn plain(message: RepairMessage) -> RepairMessage {
    RepairMessage { scope: Scope::default(), whole: None, ..message }
}

fn value(publisher: u64, salt: u64, not_after: u64) -> Record {
    let place = Place::Value { publisher: peer(publisher), salt: salt.to_be_bytes().to_vec().into() };
    Record::sign(&key(publisher), &network(), Draft::new(place, 1, not_after, vec![7; 100].into())).unwrap()
}

fn compare_all(nodes: &mut [Node], seconds: std::ops::Range<u64>) {
    for second in seconds {
        compare(nodes, at(second));
    }
}

const TTL: u64 = 40 * 3600;

#[test]
fn two_holders_agree_after_one_comparison_whatever_each_had() {
    for (a, b) in [(0..0u64, 0..120u64), (0..120, 60..180), (0..3, 2..5), (0..60, 0..60)] {
        let mut nodes = [Node::new(1), Node::new(2)];
        a.clone().for_each(|number| nodes[0].put(&value(number % 5 + 10, number, TTL)));
        b.clone().for_each(|number| nodes[1].put(&value(number % 5 + 10, number, TTL)));
        nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
        let mut questions = 0;
        for second in 2..20 {
            questions += compare(&mut nodes, at(second));
        }
        let all: BTreeSet<_> =
            a.clone().chain(b.clone()).map(|number| value(number % 5 + 10, number, TTL).id()).collect();
        assert_eq!(nodes[0].ids(), all, "{a:?} {b:?}");
        assert_eq!(nodes[1].ids(), all, "{a:?} {b:?}");
        assert!(questions < 60, "{questions}");
        let Node { repair, store, .. } = &mut nodes[0];
        let live = repair.live(at(20), &rules(), store, all.first().unwrap());
        assert_eq!(live, Some((2, 12)));
    }
}

#[test]
fn equal_holders_need_one_small_question_a_period() {
    let mut nodes = [Node::new(1), Node::new(2)];
    for number in 0..200 {
        nodes.iter_mut().for_each(|node| node.put(&value(number % 5 + 10, number, TTL)));
    }
    nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
    for minute in 1..=120 {
        compare(&mut nodes, at(minute * 60));
    }
    let stats = nodes.each_ref().map(|node| node.repair.stats());
    let asked = stats[0].asked + stats[1].asked;
    assert!((4..=20).contains(&asked), "{asked} questions in two hours");
    assert!(stats[0].bytes_sent + stats[1].bytes_sent < 250 * asked, "{stats:?}");
}

#[test]
fn the_ads_under_one_key_are_compared_too() {
    let mut nodes = [Node::new(1), Node::new(2)];
    for publisher in 100..180 {
        let body = Ad { topic: "chess".into(), ..Ad::default() }.encode();
        let draft = Draft::new(Place::of_topic("chess", 0), 1, 3600, body);
        nodes[(publisher % 2) as usize].put(&Record::sign(&key(publisher), &network(), draft).unwrap());
    }
    nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
    compare_all(&mut nodes, 2..20);
    assert_eq!((nodes[0].ids().len(), nodes[1].ids().len()), (80, 80));
}

// AL-49, AL-50: the closest holder hands over, at once; the others wait and find that it is done.
#[test]
fn one_holder_alone_hands_over_to_a_newcomer() {
    let mut nodes: Vec<Node> = (1..=6).map(Node::new).collect();
    let record = value(10, 1, TTL);
    nodes[..5].iter_mut().for_each(|node| node.put(&record));
    let all: Vec<u64> = (1..=6).collect();
    // The newcomer has nothing to compare, and asks nobody.
    nodes[..5].iter_mut().for_each(|node| node.knows(at(1), &all));
    compare_all(&mut nodes, 2..60);
    assert_eq!(nodes[5].ids().len(), 1);
    let handed: u64 = nodes.iter().map(|node| node.repair.stats().handed_over).sum();
    assert_eq!((handed, nodes[5].repair.stats().taken_in), (1, 1));
}

// D.3-6: repair passes on what the publisher signed and nothing else.
/// Contract C-51.
#[test]
fn the_newer_version_comes_to_everybody_as_it_was_signed() {
    let mut nodes = [Node::new(1), Node::new(2)];
    let old = value(10, 1, 5000);
    let new = old.extended(&key(10), TTL).unwrap();
    nodes[0].put(&old);
    nodes[1].put(&new);
    nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
    compare_all(&mut nodes, 2..20);
    for node in &mut nodes {
        assert_eq!(node.store.version(&new.id()), Some(*new.version()));
        assert_eq!(node.store.value(&rules(), &new.id()), Some(new.to_bytes()));
        // Both know of each other that they have it.
        assert_eq!(node.repair.live(at(20), &rules(), &mut node.store, &new.id()), Some((2, 12)));
    }
}

/// Two records of one publisher under one number, the one that counts last.
fn two_things(bytes: usize) -> [Record; 2] {
    let mut said = [7, 8].map(|byte| {
        let place = Place::Value { publisher: peer(10), salt: vec![1].into() };
        let draft = Draft::new(place, 1, TTL, vec![byte; bytes].into());
        Record::sign(&key(10), &network(), draft).unwrap()
    });
    said.sort_by_key(|record| *record.version());
    said
}

/// AL-41: the proof that a publisher says two things goes with the record, whichever side asks; then nothing moves any more.
#[test]
fn the_proof_that_a_publisher_says_two_things_comes_along() {
    let [lesser, greater] = two_things(4096);
    let ours = [&[&lesser, &greater][..], &[&lesser][..], &[]];
    let cases = [(0, 2), (2, 0), (0, 1), (1, 0)];
    for (case, others) in cases.into_iter().flat_map(|case| [(case, 0), (case, 60)]) {
        let mut nodes = [Node::new(1), Node::new(2)];
        for (node, which) in nodes.iter_mut().zip([case.0, case.1]) {
            ours[which].iter().for_each(|record| node.put(record));
            // Others before and behind it that the other side lacks.
            (0..others).for_each(|salt| node.put(&value(11 + node.number, salt, TTL)));
        }
        nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
        compare_all(&mut nodes, 2..3600);
        for node in &mut nodes {
            let both = node.store.values(at(3600), &rules(), &greater.id());
            assert_eq!(both, Some((greater.to_bytes(), Some(lesser.to_bytes()))), "{case:?}");
            assert_eq!(node.store.take_equivocations().len(), 1, "{case:?}");
            assert_eq!(node.ids().len() as u64, 1 + 2 * others);
        }
        let sent = |nodes: &[Node]| -> (u64, u64) {
            let stats = nodes.iter().map(|node| node.repair.stats());
            stats.fold((0, 0), |sum, stats| (sum.0 + stats.bytes_sent, sum.1 + stats.asked))
        };
        let before = sent(&nodes);
        compare_all(&mut nodes, 3600..5 * 3600);
        let after = sent(&nodes);
        assert!(after.0 - before.0 < 250 * (after.1 - before.1), "{case:?}: {before:?} to {after:?}");
    }
}

/// A network that is parted, and in each part another of the two: afterwards both have the same record, and both the proof.
#[test]
fn holders_of_one_of_two_things_each_agree_and_can_prove_it() {
    let [lesser, greater] = two_things(4096);
    for order in [[&lesser, &greater], [&greater, &lesser]] {
        let mut nodes = [Node::new(1), Node::new(2)];
        nodes.iter_mut().zip(order).for_each(|(node, record)| node.put(record));
        nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
        compare_all(&mut nodes, 2..3600);
        let held = nodes.each_mut().map(|node| node.store.values(at(3600), &rules(), &greater.id()).unwrap());
        assert!(held.iter().all(|(value, _)| *value == greater.to_bytes()));
        assert!(held.iter().all(|(_, rival)| *rival == Some(lesser.to_bytes())));
        assert!(nodes.iter_mut().all(|node| node.store.take_equivocations().len() == 1));
    }
}

/// AL-41: who has seen only the greater one has it renewed; the holder that can prove that there are two takes the longer life in and can still prove it.
#[test]
fn a_renewed_winner_leaves_the_proof_where_it_is() {
    let [lesser, greater] = two_things(100);
    let longer = greater.extended(&key(10), TTL + 3600).unwrap();
    let mut nodes = [Node::new(1), Node::new(2)];
    [&lesser, &greater].into_iter().for_each(|record| nodes[0].put(record));
    nodes[1].put(&longer);
    nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
    compare_all(&mut nodes, 2..3600);
    let held = nodes.each_mut().map(|node| node.store.values(at(3600), &rules(), &longer.id()).unwrap());
    assert!(held.iter().all(|(value, _)| *value == longer.to_bytes()));
    assert!(held.iter().all(|(_, rival)| *rival == Some(lesser.to_bytes())));
}

/// Where both have no room in one message the record goes alone, and holds up nothing; what has expired proves nothing to readers.
#[test]
fn a_proof_without_room_or_time_stays_behind() {
    let long: usize = two_things(4096).iter().map(|record| record.to_bytes().len()).sum();
    assert!((8_192..=asking::RECORD_BYTES).contains(&long), "{long}");
    let mut config = RecordsConfig::default();
    config.value.max_body_bytes = 9_000;
    let rules = Records::new(network(), config);
    for (bytes, proved) in [(4096, true), (9_000, false)] {
        let [lesser, greater] = two_things(bytes);
        let mut node = Node::new(1);
        for record in [&lesser, &greater] {
            node.store.put(at(0), &rules, &Alone, Sender::Own, record.target(), &record.to_bytes());
        }
        let mut at_time = |seconds| {
            let both = node.store.values(at(seconds), &rules, &greater.id()).unwrap();
            assert_eq!(both.1.is_some(), seconds < TTL);
            Repair::with_proof(at(seconds), &rules, &mut node.store, &greater.id()).unwrap()
        };
        let both = at_time(1);
        assert_eq!((&both[0], both.len()), (&greater.to_bytes(), 1 + usize::from(proved)));
        assert_eq!(at_time(TTL), [greater.to_bytes()]);
    }
}

#[test]
fn who_is_far_beyond_the_replicas_lets_go_when_half_of_the_life_is_over() {
    // The furthest of twenty nodes: twelve replicas and four to spare are closer.
    let record = value(10, 1, TTL);
    let numbers = twenty_around(&record);
    let mut node = Node::new(numbers[19]);
    node.put(&record);
    node.knows(at(1), &numbers);
    let half = TTL / 2;
    for second in [10, half - 10] {
        let asks = node.repair.poll(at(second), &rules(), &mut node.store, &mut node.random);
        asks.iter().for_each(|(token, ..)| node.repair.failed(*token));
        assert_eq!(node.ids().len(), 1);
    }
    node.repair.poll(at(half + 7200), &rules(), &mut node.store, &mut node.random);
    assert_eq!(node.ids().len(), 0);
    // What was newer is remembered.
    assert_eq!(node.store.high_water(&record.id()), Some(*record.version()));
}

/// D.2-9: peers that crowd around a key look like its holders. In a network of this size so many cannot be closer, and the record stays.
#[test]
fn a_crowd_around_a_key_makes_nobody_let_go_of_what_lies_there() {
    let record = value(10, 1, TTL);
    let numbers = twenty_around(&record);
    let keeps = |expected: f64| {
        let mut node = Node::new(numbers[19]);
        node.put(&record);
        node.knows(at(1), &numbers);
        let share = record.target().key().distance(&Key::of_peer(&peer(numbers[19]))).share();
        node.repair.set_size(Some(expected / share));
        node.repair.poll(at(TTL - 12 * 3600), &rules(), &mut node.store, &mut node.random);
        !node.ids().is_empty()
    };
    assert_eq!([keeps(8.0), keeps(15.9), keeps(16.1)], [true, true, false]);
}

/// dht.md B.3: what counts is the record's own life, not the longest that its kind may have.
#[test]
fn half_of_a_short_life_is_as_long_as_that_life_makes_it() {
    let life = 8 * 3600;
    let record = value(10, 1, life);
    let numbers = twenty_around(&record);
    let keeps_at = |second: u64| {
        let mut node = Node::new(numbers[19]);
        node.put(&record);
        node.knows(at(1), &numbers);
        node.repair.poll(at(second), &rules(), &mut node.store, &mut node.random);
        !node.ids().is_empty()
    };
    assert_eq!([keeps_at(life / 2 - 600), keeps_at(life / 2 + 600)], [true, false]);
}

#[test]
fn a_bounded_number_of_neighbours_is_compared_with() {
    let mut node = Node::new(1);
    node.put(&value(10, 1, TTL));
    let many: Vec<u64> = (2..200).collect();
    node.knows(at(1), &many);
    let asks = node.repair.poll(at(500), &rules(), &mut node.store, &mut node.random);
    assert!(asks.len() <= ReplicationConfig::default().max_neighbours);
    node.knows(at(2), &[2, 3]);
    assert_eq!(node.repair.poll(at(9000), &rules(), &mut node.store, &mut node.random).len(), 2);
}

fn contacts(numbers: std::ops::Range<u64>) -> Vec<Contact> {
    numbers.map(contact).collect()
}

fn sets() -> (Sets, Record) {
    let mut sets = Sets::new(ReplicationConfig { max_sets: 2, ..ReplicationConfig::default() });
    let record = value(1, 1, 3600);
    assert!(sets.publish(at(0), record.clone(), 12, Duration::from_secs(3600), true));
    (sets, record)
}

/// These have answered to copies of a record, and understand our additions.
fn speak(sets: &mut Sets, record: &Record, numbers: std::ops::Range<u64>) {
    contacts(numbers).iter().for_each(|contact| sets.heard(&record.id(), contact.key(), true));
}

fn poll(sets: &mut Sets, now: u64) -> Vec<Act> {
    sets.poll(at(now), &key(1), &mut Random::from_number(1))
}

// B.3: Publishing, Healthy, Degraded, Critical, Expired.
#[test]
fn a_set_goes_through_its_states_with_the_number_of_its_replicas() {
    let (mut sets, record) = sets();
    let id = record.id();
    let state = |sets: &Sets| sets.view(&id).map(|view| (view.state, view.live));
    assert_eq!(state(&sets), Some((SetState::Publishing, 0)));
    assert!(poll(&mut sets, 0).is_empty());
    sets.settled(at(1), &id, &contacts(20..22));
    assert_eq!(state(&sets), Some((SetState::Critical, 2)));
    assert!(poll(&mut sets, 10).is_empty());
    assert!(matches!(&poll(&mut sets, 16)[..], [Act::Publish { replicas: 12, .. }]));
    assert!(poll(&mut sets, 17).is_empty(), "one at a time");
    sets.settled(at(20), &id, &contacts(20..26));
    assert_eq!(state(&sets), Some((SetState::Degraded, 6)));
    poll(&mut sets, 60);
    sets.settled(at(61), &id, &contacts(20..32));
    assert_eq!(state(&sets), Some((SetState::Healthy, 12)));
    let unkept = value(1, 2, 3600);
    sets.publish(at(62), unkept.clone(), 12, Duration::from_secs(3600), false);
    sets.settled(at(63), &unkept.id(), &contacts(20..32));
    // It wakes for the end, though nothing else is due.
    assert!(sets.next_due().unwrap().as_secs() <= 3600);
    assert!(
        poll(&mut sets, 3600).iter().all(|act| !matches!(act, Act::Publish { id, .. } if *id == unkept.id()))
    );
    let expired = sets.view(&unkept.id()).unwrap();
    assert_eq!((expired.state, expired.live), (SetState::Expired, 0));
    // Nothing is done for it any more, and after a while it is gone.
    sets.settled(at(3601), &unkept.id(), &contacts(20..32));
    assert_eq!(sets.view(&unkept.id()).unwrap().state, SetState::Expired);
    poll(&mut sets, 3600 + 900);
    assert!(sets.view(&unkept.id()).is_none(), "an expired record is looked after no more");
}

/// A clock that is set back makes nobody ask without a pause when the life that was left before is over.
#[test]
fn a_clock_that_is_set_back_lengthens_what_is_left_of_a_record() {
    let (mut sets, _) = sets();
    let unkept = value(1, 2, 3600);
    sets.forget(&value(1, 1, 3600).id());
    sets.publish(at(0), unkept.clone(), 12, Duration::from_secs(3600), false);
    speak(&mut sets, &unkept, 20..32);
    sets.settled(at(1), &unkept.id(), &contacts(20..32));
    let back = |mono| Now { mono: Duration::from_secs(mono), unix: Duration::from_secs(mono - 1000) };
    for second in 3600..3605 {
        for act in sets.poll(back(second), &key(1), &mut Random::from_number(1)) {
            let Act::Probe { token, .. } = act else { panic!("{act:?}") };
            sets.answered(back(second), token, true, true);
        }
        assert!(sets.next_due().unwrap() > back(second).mono);
    }
    assert_eq!(sets.view(&unkept.id()).unwrap().state, SetState::Healthy);
    sets.poll(back(4600), &key(1), &mut Random::from_number(1));
    assert_eq!(sets.view(&unkept.id()).unwrap().state, SetState::Expired);
}

// AL-51, weakness 6: holders are asked; those that fail or refuse are no replicas, and what is missing is published again.
#[test]
fn holders_that_have_lost_it_are_no_replicas() {
    let (mut sets, record) = sets();
    speak(&mut sets, &record, 20..32);
    sets.settled(at(1), &record.id(), &contacts(20..32));
    let probes = poll(&mut sets, 1000);
    assert_eq!(probes.len(), 12);
    let asked = sets.view(&record.id()).unwrap();
    assert_eq!((asked.state, asked.live), (SetState::Healthy, 12), "who is asked has not lost it yet");
    for (number, act) in probes.into_iter().enumerate() {
        let Act::Probe { token, message, .. } = act else { panic!("{act:?}") };
        assert_eq!(message.have, [record.id()]);
        let items = vec![Item::of(record.id(), record.version())];
        match number {
            0..5 => sets.told(at(1001), token, &RepairMessage { items, ..RepairMessage::at(0) }),
            5..8 => sets.told(at(1001), token, &RepairMessage::at(0)),
            _ => sets.answered(at(1001), token, false, true),
        }
    }
    let view = sets.view(&record.id()).unwrap();
    assert_eq!((view.state, view.live), (SetState::Degraded, 5));
    assert!(matches!(&poll(&mut sets, 1001)[..], [Act::Publish { .. }]));
}

// In a network of few nodes all that there are is enough: twelve will never be.
#[test]
fn where_there_are_few_peers_copies_at_most_of_them_are_healthy() {
    let (mut sets, record) = sets();
    let state = |sets: &Sets| sets.view(&record.id()).map(|view| (view.state, view.live, view.wanted));
    sets.among(7);
    sets.settled(at(1), &record.id(), &contacts(20..24));
    assert_eq!(state(&sets), Some((SetState::Degraded, 4, 12)));
    poll(&mut sets, 16);
    sets.settled(at(17), &record.id(), &contacts(20..27));
    assert_eq!(state(&sets), Some((SetState::Healthy, 7, 12)));
    // When there are more, they are missed at the next look.
    let questions = poll(&mut sets, 1000);
    assert_eq!(questions.len(), 7);
    sets.among(30);
    for act in questions {
        let (Act::Extend { token, .. } | Act::Look { token, .. }) = act else { panic!("{act:?}") };
        sets.answered(at(1001), token, true, true);
    }
    assert_eq!(state(&sets), Some((SetState::Degraded, 7, 12)));
    assert!(matches!(&poll(&mut sets, 1001)[..], [Act::Publish { replicas: 12, .. }]));
}

// AL-52: renewed at a third of the life, by an extension without the content.
/// Contract C-52.
#[test]
fn a_renewal_is_a_signed_extension_to_the_holders() {
    let (mut sets, record) = sets();
    speak(&mut sets, &record, 20..32);
    sets.settled(at(1), &record.id(), &contacts(20..32));
    let acts: Vec<Act> = poll(&mut sets, 1200);
    assert_eq!(acts.len(), 12);
    for act in acts {
        let Act::Extend { token, value, target, .. } = act else { panic!("{act:?}") };
        let extension = Record::open(&network(), &value).unwrap();
        assert_eq!((extension.body(), extension.version().not_after), (None, 1200 + 3600));
        assert_eq!((extension.version().seq, &target), (1, record.target()));
        assert!(value.len() < record.to_bytes().len() - 90);
        sets.answered(at(1201), token, true, true);
    }
    let view = sets.view(&record.id()).unwrap();
    assert_eq!((view.state, view.live, view.not_after), (SetState::Healthy, 12, 4800));
    let renews = view.renews.unwrap().as_secs();
    assert!((2200..=2400).contains(&renews), "{renews}");
}

/// Whoever speaks libp2p alone would keep an extension in the place of the record: it is handed the whole one, and asked for it. What it says last of itself counts.
#[test]
fn holders_that_do_not_understand_our_additions_are_handed_all_of_it_and_asked_for_it() {
    let (mut sets, record) = sets();
    speak(&mut sets, &record, 20..26);
    sets.settled(at(1), &record.id(), &contacts(20..32));
    let extended = |contact: &Contact| contacts(20..26).contains(contact);
    let looks = poll(&mut sets, 1000);
    assert_eq!(looks.len(), 12);
    for act in looks {
        let token = match act {
            Act::Probe { token, contact, .. } if extended(&contact) => token,
            Act::Look { token, contact, target } if !extended(&contact) && target == *record.target() => {
                token
            }
            _ => panic!("{act:?}"),
        };
        sets.answered(at(1001), token, true, false);
    }
    for act in poll(&mut sets, 1200) {
        let Act::Extend { value, .. } = act else { panic!("{act:?}") };
        assert_eq!(Record::open(&network(), &value).unwrap().body(), record.body());
    }
}

// AL-47, weakness 8: two records of one publisher are two sets; a newer version of one takes over its holders. The number is bounded.
#[test]
fn every_record_has_a_set_of_its_own_and_their_number_is_bounded() {
    let (mut sets, record) = sets();
    assert!(sets.publish(at(0), value(1, 2, 3600), 12, Duration::from_secs(3600), true));
    assert!(!sets.publish(at(0), value(1, 3, 3600), 12, Duration::from_secs(3600), true));
    assert_eq!(sets.views().len(), 2);
    assert!(sets.forget(&record.id()) && !sets.forget(&record.id()));
    assert!(sets.publish(at(0), value(1, 3, 3600), 12, Duration::from_secs(3600), true));
}

/// Nothing is healthy that nobody has.
#[test]
fn a_record_without_a_live_copy_is_never_healthy() {
    for wanted in 0..4 {
        assert_eq!(SetState::of(0, wanted, 2), SetState::Critical);
    }
    assert_eq!([SetState::of(1, 1, 2), SetState::of(1, 3, 2)], [SetState::Healthy; 2]);
    let (mut sets, record) = sets();
    sets.forget(&record.id());
    sets.publish(at(0), record.clone(), 2, Duration::from_secs(3600), true);
    sets.settled(at(1), &record.id(), &[]);
    assert_eq!(sets.view(&record.id()).unwrap().state, SetState::Critical);
    assert!(matches!(&poll(&mut sets, 60)[..], [Act::Publish { .. }]));
}
