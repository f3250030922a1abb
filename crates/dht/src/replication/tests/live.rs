//! How many neighbours are known to have what we hold.

use super::*;

fn live(node: &mut Node, now: u64, record: &Record) -> (Option<(usize, usize)>, Option<SetState>) {
    let Node { repair, store, .. } = node;
    let live = repair.live(at(now), &rules(), store, &record.id());
    (live, repair.state(at(now), &rules(), store, &record.id()))
}

/// What has just been put at one holder is nowhere else yet: neighbours count when they have compared since, or when it went from one to the other.
#[test]
fn a_record_counts_at_neighbours_that_have_compared_since_it_came() {
    let mut nodes = [1, 2, 3, 4, 5].map(Node::new);
    let old = value(10, 1, TTL);
    nodes.iter_mut().for_each(|node| node.put(&old));
    nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2, 3, 4, 5]));
    compare_all(&mut nodes, 2..60);
    let fresh = value(11, 1, TTL);
    nodes[0].put(&fresh);
    assert_eq!(live(&mut nodes[0], 60, &old), (Some((5, 12)), Some(SetState::Healthy)));
    assert_eq!(live(&mut nodes[0], 60, &fresh), (Some((1, 12)), Some(SetState::Publishing)));
    // A longer life is the same content, and where the other one is that is.
    nodes[0].put(&old.extended(&key(10), TTL + 60).unwrap());
    assert_eq!(live(&mut nodes[0], 60, &old).0, Some((5, 12)));
    compare_all(&mut nodes, 61..2 * 3600);
    for node in &mut nodes {
        assert_eq!(live(node, 2 * 3600, &fresh), (Some((5, 12)), Some(SetState::Healthy)));
    }
    // Neighbours that don't answer any more are none.
    compare_all(&mut nodes[..1], 2 * 3600..5 * 3600);
    assert_eq!(live(&mut nodes[0], 5 * 3600, &fresh), (Some((1, 12)), Some(SetState::Critical)));
}

/// What comes while a comparison is under way was not compared.
#[test]
fn a_record_that_comes_during_a_comparison_waits_for_the_next_one() {
    let mut node = Node::new(1);
    let (old, fresh) = (value(10, 1, TTL), value(11, 1, TTL));
    node.put(&old);
    node.knows(at(1), &[2]);
    let (token, ..) = node.repair.poll(at(100), &rules(), &mut node.store, &mut node.random).pop().unwrap();
    node.put(&fresh);
    let Node { repair, store, random, .. } = &mut node;
    repair.answered(at(101), &rules(), &Alone, store, random, token, &RepairMessage::at(101));
    assert_eq!(live(&mut node, 101, &old).0, Some((2, 12)));
    assert_eq!(live(&mut node, 101, &fresh).0, Some((1, 12)));
}

/// One of the records of which a holder takes five.
fn one_of_many(salt: u64) -> Record {
    value(50, salt, TTL)
}

/// Two holders of as many records of one publisher as each takes, all of them others, and of some by others.
fn full(believed_periods: u32) -> [Node; 2] {
    let config = ReplicationConfig { believed_periods, ..ReplicationConfig::default() };
    let mut nodes = [1, 2].map(|number| {
        let own = Key::of_peer(&peer(number));
        let store = StoreConfig {
            publisher_records: 5,
            publisher_bytes: 1 << 24,
            checks_per_second: 1e6,
            ..Default::default()
        };
        let (store, repair) = (Store::new(store, own, &rules()), Repair::new(config.clone(), own, &rules()));
        Node { store, repair, ..Node::new(number) }
    });
    (100..110).for_each(|salt| nodes[(salt % 2) as usize].put(&one_of_many(salt)));
    (10..30).for_each(|publisher| nodes[0].put(&value(publisher, 1, TTL)));
    nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2]));
    nodes
}

/// What a neighbour refuses is no replica there, and is not offered again for some periods; all else that both have counts.
#[test]
fn what_a_neighbour_has_no_room_for_holds_up_nothing_else() {
    let mut sent = [0, 8, 100].map(|believed| {
        let mut nodes = full(believed);
        compare_all(&mut nodes, 2..6 * 3600);
        for publisher in 10..30 {
            for node in &mut nodes {
                assert_eq!(live(node, 6 * 3600, &value(publisher, 1, TTL)).0, Some((2, 12)));
            }
        }
        for salt in 100..110 {
            let node = &mut nodes[(salt % 2) as usize];
            assert_eq!(live(node, 6 * 3600, &one_of_many(salt)).0, Some((1, 12)));
        }
        let stats = nodes.map(|node| node.repair.stats());
        assert_eq!(stats[0].handed_over + stats[1].handed_over, 20);
        stats[0].bytes_sent + stats[1].bytes_sent
    });
    let refused = 5 * one_of_many(100).to_bytes().len() as u64;
    sent.reverse();
    assert!(sent[0] + refused <= sent[1] && sent[1] + 4 * refused < sent[2], "{sent:?} {refused}");
}

/// What was refused and is there all the same, by another way, counts again.
#[test]
fn what_a_neighbour_lists_it_has_whatever_it_refused_before() {
    let mut nodes = full(100);
    compare_all(&mut nodes, 2..3600);
    nodes[1].store.let_go(at(3600), &one_of_many(101).id());
    nodes[1].put(&one_of_many(100));
    compare_all(&mut nodes, 3600..4 * 3600);
    assert_eq!(live(&mut nodes[0], 4 * 3600, &one_of_many(100)).0, Some((2, 12)));
    assert_eq!(live(&mut nodes[0], 4 * 3600, &one_of_many(102)).0, Some((1, 12)));
}

/// What a neighbour has refused is offered anew as soon as the neighbours are others, and no sooner while they are the same: who was too far away for it may not be now.
#[test]
fn what_a_neighbour_refused_is_offered_anew_when_the_neighbours_are_others() {
    for others in [&[1, 2][..], &[1, 2, 3]] {
        let mut nodes = full(100);
        compare_all(&mut nodes, 2..3600);
        nodes[1].store.let_go(at(3600), &one_of_many(101).id());
        // It refuses none of them any more, but nobody knows.
        compare_all(&mut nodes, 3600..2 * 3600);
        assert_eq!(nodes[1].ids().len(), 20 + 4);
        nodes.iter_mut().for_each(|node| node.knows(at(2 * 3600), others));
        compare_all(&mut nodes, 2 * 3600..3 * 3600);
        assert_eq!(nodes[1].ids().len(), 20 + if others.len() > 2 { 5 } else { 4 }, "{others:?}");
    }
}

/// Five holders that have compared, and a record that comes to each of them.
fn five(config: &ReplicationConfig) -> ([Node; 5], Record) {
    let mut nodes = [1, 2, 3, 4, 5].map(|number| {
        let own = Key::of_peer(&peer(number));
        Node { repair: Repair::new(config.clone(), own, &rules()), ..Node::new(number) }
    });
    nodes.iter_mut().for_each(|node| node.put(&value(10, 1, TTL)));
    nodes.iter_mut().for_each(|node| node.knows(at(1), &[1, 2, 3, 4, 5]));
    compare_all(&mut nodes, 2..60);
    let fresh = value(11, 1, TTL);
    nodes.iter_mut().for_each(|node| node.put(&fresh));
    (nodes, fresh)
}

/// Whether the others have what has just come is known within a minute, not after the next comparison, for a small question to each.
#[test]
fn how_many_have_what_has_just_come_is_known_within_a_minute() {
    let (mut nodes, fresh) = five(&ReplicationConfig::default());
    let before = nodes.each_ref().map(|node| node.repair.stats());
    compare_all(&mut nodes, 60..75);
    assert_eq!(live(&mut nodes[0], 75, &fresh).0, Some((1, 12)), "others may have it on its way");
    compare_all(&mut nodes, 75..120);
    for (node, before) in nodes.iter_mut().zip(before) {
        assert_eq!(live(node, 120, &fresh), (Some((5, 12)), Some(SetState::Healthy)));
        let stats = node.repair.stats();
        let (asked, bytes) = (stats.asked - before.asked, stats.bytes_sent - before.bytes_sent);
        assert!(asked <= 4 && bytes <= 4 * (50 + 90), "{asked} questions, {bytes} bytes");
    }
    // They did not ask at one time.
    assert!(nodes.iter().all(|node| node.repair.next_due().unwrap() > Duration::from_secs(120)));
}

/// That such a question came to nothing says nothing of what was compared before.
#[test]
fn a_question_about_what_has_just_come_that_fails_takes_nothing_back() {
    let (mut nodes, _) = five(&ReplicationConfig::default());
    let node = &mut nodes[0];
    let poll = |second| node.repair.poll(at(second), &rules(), &mut node.store, &mut node.random);
    let asked: Vec<_> = (60..120).flat_map(poll).collect();
    assert!(!asked.is_empty() && asked.iter().all(|(_, _, message)| !message.have.is_empty()));
    asked.iter().for_each(|(token, ..)| node.repair.failed(*token));
    assert_eq!(live(node, 120, &value(10, 1, TTL)).0, Some((5, 12)));
}

/// One that lacks it gets it from the closest holder then.
#[test]
fn who_lacks_what_has_just_come_gets_it_within_a_minute() {
    let (mut nodes, fresh) = five(&ReplicationConfig::default());
    nodes[2].store.let_go(at(60), &fresh.id());
    compare_all(&mut nodes, 60..120);
    assert_eq!(nodes[2].ids().len(), 2);
    let handed: u64 = nodes.iter().map(|node| node.repair.stats().handed_over).sum();
    assert_eq!(handed, 1);
}
