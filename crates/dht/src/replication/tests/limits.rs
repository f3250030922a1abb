//! each limit of replication has an effect, on both sides of its edge.

use super::*;

fn node(number: u64, config: ReplicationConfig) -> Node {
    let own = Key::of_peer(&peer(number));
    Node { repair: Repair::new(config, own, &rules()), ..Node::new(number) }
}

/// Two neighbours, each of which is closer to the other than we are.
fn close_pair() -> [u64; 2] {
    let far = |a: u64, b: u64| Key::of_peer(&peer(a)).distance(&Key::of_peer(&peer(b)));
    let mut pairs = (2..200).map(|a| [a, a + 1]);
    pairs.find(|[a, b]| far(*a, *b) < far(*a, 1) && far(*a, *b) < far(*b, 1)).unwrap()
}

#[test]
fn so_many_of_the_closest_compare_with_a_newcomer_at_once_and_the_others_after_a_period() {
    let due = |newcomer_ranks| {
        let mut node = node(1, ReplicationConfig { newcomer_ranks, ..Default::default() });
        node.repair.set_period(Duration::from_secs(1000));
        node.knows(at(0), &close_pair());
        node.repair.next_due().unwrap().as_secs()
    };
    assert!((500..=1500).contains(&due(1)) && due(2) < 10, "{} {}", due(1), due(2));
}

/// Who comes back with what it held is in no hurry with anybody for the first half hour; later newcomers are newcomers.
#[test]
fn who_has_come_back_compares_with_all_in_their_time() {
    for (second, hurries) in [(0, false), (1799, false), (1800, true)] {
        let mut node = node(1, ReplicationConfig::default());
        node.repair.set_period(Duration::from_secs(1000));
        node.repair.resume(at(0));
        node.knows(at(second), &close_pair());
        let wait = node.repair.next_due().unwrap().as_secs() - second;
        assert!(if hurries { wait < 10 } else { (500..=1500).contains(&wait) }, "{second}: {wait}");
    }
}

#[test]
fn who_is_not_the_closest_to_a_newcomer_waits_its_turn() {
    let [a, b] = close_pair();
    for wait in [10, 100] {
        let config = ReplicationConfig { rank_wait: Duration::from_secs(wait), ..Default::default() };
        let due = |others: &[u64]| {
            let mut node = node(1, config.clone());
            node.knows(at(0), others);
            node.repair.next_due().unwrap().as_secs()
        };
        let (alone, second) = (due(&[a]), due(&[a, b]));
        assert!(alone <= wait && (wait..=2 * wait).contains(&second), "{alone} {second}");
    }
}

#[test]
fn a_comparison_takes_no_more_questions_than_configured() {
    let questions = |max_rounds| {
        let config = ReplicationConfig { max_rounds, ..ReplicationConfig::default() };
        let mut nodes = [1, 2].map(|number| node(number, config.clone()));
        (0..120).for_each(|number| nodes[1].put(&value(number % 5 + 10, number, TTL)));
        nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
        compare(&mut nodes[..], at(10))
    };
    assert_eq!((questions(1), questions(2)), (2, 4));
    assert!(questions(24) > 4);
}

#[test]
fn a_record_is_kept_by_so_many_beyond_its_replicas() {
    let record = value(10, 1, TTL);
    let numbers = twenty_around(&record);
    let keeps = |rank: usize, spare_ranks| {
        let mut node = node(numbers[rank], ReplicationConfig { spare_ranks, ..Default::default() });
        node.put(&record);
        node.knows(at(1), &numbers);
        // Less than half of its longest life is left.
        node.repair.poll(at(TTL - 12 * 3600), &rules(), &mut node.store, &mut node.random);
        !node.ids().is_empty()
    };
    assert_eq!([keeps(13, 2), keeps(14, 2), keeps(14, 3), keeps(15, 3)], [true, false, true, false]);
}

#[test]
fn as_many_neighbours_as_configured_are_compared_with() {
    for max_neighbours in [5, 9] {
        let mut node = node(1, ReplicationConfig { max_neighbours, ..Default::default() });
        node.put(&value(10, 1, TTL));
        node.knows(at(1), &(2..60).collect::<Vec<_>>());
        let asks = node.repair.poll(at(9000), &rules(), &mut node.store, &mut node.random);
        assert_eq!(asks.len(), max_neighbours);
    }
}

fn few_seconds() -> (Sets, Record) {
    let mut sets = Sets::new(ReplicationConfig {
        probe_every: Duration::from_secs(100),
        retry_first: Duration::from_secs(7),
        slack: 1,
        ..ReplicationConfig::default()
    });
    let record = value(1, 1, 3600);
    sets.publish(at(0), record.clone(), 12, Duration::from_secs(3600), true);
    (sets, record)
}

#[test]
fn a_set_may_lack_so_many_and_its_holders_are_asked_as_often_as_configured() {
    let (mut sets, record) = few_seconds();
    speak(&mut sets, &record, 20..31);
    sets.settled(at(0), &record.id(), &contacts(20..31));
    assert_eq!(sets.view(&record.id()).unwrap().state, SetState::Healthy);
    assert!(poll(&mut sets, 99).is_empty());
    assert!(matches!(&poll(&mut sets, 100)[..], [Act::Probe { .. }, ..]));
    let (mut sets, record) = few_seconds();
    sets.settled(at(0), &record.id(), &contacts(20..30));
    assert_eq!(sets.view(&record.id()).unwrap().state, SetState::Degraded);
}

#[test]
fn publishing_again_has_pauses_that_double_up_to_the_time_between_probes() {
    let (mut sets, record) = few_seconds();
    let mut now = 0;
    for pause in [7, 14, 28, 56, 100, 100] {
        sets.settled(at(now), &record.id(), &contacts(20..24));
        assert!(poll(&mut sets, now + pause - 1).is_empty(), "before {pause} s");
        now += pause;
        assert!(matches!(&poll(&mut sets, now)[..], [Act::Publish { .. }]), "after {pause} s");
    }
}

#[test]
fn as_many_neighbours_as_configured_tell_that_our_clock_is_off_by_more_than_configured() {
    for (clock_neighbours, alarm) in [(3, 10), (4, 60)] {
        let config = RecordsConfig {
            clock_neighbours,
            clock_alarm: Duration::from_secs(alarm),
            ..RecordsConfig::default()
        };
        let records = Records::new(network(), config);
        let told = |ahead, neighbours: usize| {
            let mut node = Node::new(1);
            node.repair = Repair::new(ReplicationConfig::default(), Key::of_peer(&peer(1)), &records);
            node.knows(at(1), &[2, 3, 4, 5, 6]);
            for number in (2..).take(neighbours) {
                let question = RepairMessage::at(1000 + ahead);
                let store = &mut node.store;
                let asker = Asker { peer: peer(number), remote: "20.0.0.1".parse().unwrap(), verified: true };
                node.repair.asked(at(1000), &records, &Alone, store, &asker, &question).unwrap();
            }
            node.repair.our_clock_is_wrong()
        };
        assert!(told(alarm + 1, clock_neighbours));
        assert!(!told(alarm, clock_neighbours) && !told(alarm + 1, clock_neighbours - 1));
    }
}

#[test]
fn after_an_outage_so_many_copies_are_under_way_at_once() {
    for max_copies_at_once in [24, 60] {
        let mut sets = Sets::new(ReplicationConfig { max_copies_at_once, ..ReplicationConfig::default() });
        let records: Vec<Record> = (0..50).map(|number| value(1, number, TTL)).collect();
        for record in &records {
            sets.publish(at(0), record.clone(), 12, Duration::from_secs(TTL), true);
            sets.settled(at(1), &record.id(), &[]);
        }
        let (mut now, mut open, mut published) = (100, Vec::new(), BTreeSet::new());
        while published.len() < records.len() {
            assert!(now < 2000, "{} of {}", published.len(), records.len());
            for act in sets.poll(at(now), &key(1), &mut Random::from_number(now)) {
                let Act::Publish { id, .. } = act else { panic!("{act:?}") };
                open.push(id);
            }
            assert!(!open.is_empty() && open.len() * 12 <= max_copies_at_once, "{}", open.len());
            for id in open.drain(..) {
                sets.settled(at(now), &id, &contacts(20..32));
                published.insert(id);
            }
            now = sets.next_due().unwrap().as_secs() + 1;
        }
    }
}

#[test]
fn neighbours_are_asked_about_what_has_just_come_at_a_rate() {
    let asked = |fresh_burst, fresh_per_second| {
        let config = ReplicationConfig { fresh_burst, fresh_per_second, ..ReplicationConfig::default() };
        let mut node = node(1, config);
        node.put(&value(10, 1, TTL));
        let all: Vec<u64> = (2..12).collect();
        node.knows(at(1), &all);
        let mut asked = 0;
        for second in 2..1200 {
            if second >= 200 && second % 100 == 0 {
                node.put(&value(11, second, TTL));
            }
            let asks = node.repair.poll(at(second), &rules(), &mut node.store, &mut node.random);
            for (token, _, message) in asks {
                asked += if message.digests.is_empty() { message.have.len() } else { 0 };
                let Node { repair, store, random, .. } = &mut node;
                let answer = RepairMessage::at(second);
                let (more, _) = repair.answered(at(second), &rules(), &Alone, store, random, token, &answer);
                more.into_iter().for_each(|(token, ..)| repair.failed(token));
            }
        }
        asked
    };
    assert_eq!([asked(0.0, 0.0), asked(3.0, 0.0)], [0, 3]);
    assert!((11..=13).contains(&asked(3.0, 0.01)), "{}", asked(3.0, 0.01));
    assert!(asked(1e6, 1e6) > 40, "{}", asked(1e6, 1e6));
}
