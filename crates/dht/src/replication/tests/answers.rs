//! What others may ask of a holder, and what it costs.

use super::super::digest::{hash_of, short};
use super::super::index::{Side, View};
use super::*;
use crate::record::{EntryId, MailboxToken};

fn asker(number: u64, verified: bool) -> Asker {
    Asker { peer: peer(number), remote: "20.0.0.1".parse().unwrap(), verified }
}

/// A node with so many records of others, and these neighbours.
fn holder(records: u64, neighbours: &[u64], config: ReplicationConfig) -> Node {
    let own = Key::of_peer(&peer(1));
    let mut node = Node { repair: Repair::new(config, own, &rules()), ..Node::new(1) };
    (0..records).for_each(|number| node.put(&value(number % 20 + 100, number, TTL)));
    node.knows(at(1), neighbours);
    node
}

fn ask(node: &mut Node, now: u64, from: &Asker, question: &RepairMessage) -> Result<RepairMessage, Declined> {
    let answered = node.repair.asked(at(now), &rules(), &Alone, &mut node.store, from, question);
    let (answer, _) = answered?;
    assert!(answer.encode().len() <= MAX_REPAIR_BYTES);
    assert_eq!(RepairMessage::decode(&answer.encode()).as_ref(), Ok(&answer));
    Ok(answer)
}

fn about(prefixes: impl IntoIterator<Item = Prefix>) -> RepairMessage {
    let wrong = Digest { count: 900_000, sum: 1 };
    let digests = prefixes.into_iter().map(|prefix| (prefix, wrong)).collect();
    RepairMessage { digests, ..RepairMessage::at(0) }
}

fn wants(record: &Record) -> RepairMessage {
    let want = vec![short(hash_of(&record.id(), record.version()))];
    RepairMessage { want, ..RepairMessage::at(0) }
}

fn about_having(id: EntryId) -> RepairMessage {
    RepairMessage { have: vec![id], ..RepairMessage::at(0) }
}

/// whatever is asked, a question costs one look at each record at most, and what changes in the store costs what changed.
#[test]
fn a_question_looks_at_each_record_once_and_a_record_that_comes_is_placed_alone() {
    let mut node = holder(1500, &[2, 3, 4], ReplicationConfig::default());
    let ten = || Prefix::ALL.parts().nth(10).unwrap();
    for from in [asker(2, true), asker(900, true)] {
        for overlapping in
            [vec![Prefix::ALL; 6], vec![ten(), ten()], vec![ten().parts().last().unwrap(), ten()]]
        {
            assert_eq!(ask(&mut node, 2, &from, &about(overlapping)), Err(Declined::Invalid));
        }
        assert_eq!(ask(&mut node, 2, &from, &about(Prefix::ALL.parts().take(7))), Err(Declined::Invalid));
        for question in [about([Prefix::ALL]), about(Prefix::ALL.parts().take(6))] {
            let before = node.repair.stats();
            let answer = ask(&mut node, 2, &from, &question).unwrap();
            assert!(answer.digests.len() >= Prefix::PARTS);
            let looks = node.repair.stats().looks - before.looks;
            assert!((1..=1500).contains(&looks), "{looks}");
        }
    }
    // All of them were placed once, whoever asked; then only what comes.
    assert_eq!(node.repair.stats().placed, 1500);
    for number in 0..20 {
        node.put(&value(50, number, TTL));
        ask(&mut node, 3, &asker(2, true), &about([Prefix::ALL])).unwrap();
    }
    assert_eq!(node.repair.stats().placed, 1520);
}

#[test]
fn an_asker_has_so_many_looks_at_once_and_in_a_second_and_others_have_their_own() {
    for (neighbour, other) in [(2, 3), (900, 901)] {
        let config = ReplicationConfig { looks_burst: 250.0, looks_per_second: 10.0, ..Default::default() };
        let mut node = holder(100, &[2, 3], config);
        let mut answered = |now, from| ask(&mut node, now, &asker(from, true), &about([Prefix::ALL])).is_ok();
        // The third one is owed for half of what it costs.
        assert_eq!([0; 4].map(|_| answered(10, neighbour)), [true, true, true, false]);
        assert!(answered(10, other));
        assert!(!answered(14, neighbour) && answered(16, neighbour) && !answered(16, neighbour));
    }
    // What is handed over costs too.
    let config = ReplicationConfig { looks_burst: 250.0, ..Default::default() };
    let mut node = holder(0, &[2], config);
    let records = (0..10).map(|number| value(50, number, TTL).to_bytes()).collect();
    let hands_over = RepairMessage { records, ..RepairMessage::at(0) };
    assert!(ask(&mut node, 2, &asker(2, true), &hands_over).is_ok());
    assert_eq!(ask(&mut node, 2, &asker(2, true), &RepairMessage::at(0)), Err(Declined::Busy));
}

#[test]
fn the_questions_of_a_bounded_number_of_guests_are_counted() {
    let config = ReplicationConfig { max_guests: 5, looks_per_second: 1.0, ..Default::default() };
    let mut node = holder(50, &[2], config);
    let mut answered = |now, from| ask(&mut node, now, &asker(from, true), &about([Prefix::ALL])).is_ok();
    assert_eq!((900..920).filter(|from| answered(2, *from)).count(), 5);
    assert!(answered(2, 2), "a neighbour has its own");
    assert!(answered(200, 919), "who was quiet makes room");
}

/// nobody whom we have not verified learns what we have, or makes us reckon.
#[test]
fn a_stranger_is_told_of_what_it_names_and_of_nothing_else() {
    let mut node = holder(50, &[2], ReplicationConfig::default());
    let record = value(100, 0, TTL);
    let id = record.id();
    assert_eq!(ask(&mut node, 2, &asker(900, false), &about([Prefix::ALL])), Err(Declined::NotServed));
    assert_eq!(ask(&mut node, 2, &asker(900, false), &wants(&record)), Err(Declined::NotServed));
    let told = ask(&mut node, 2, &asker(900, false), &about_having(id)).unwrap();
    assert_eq!(told.items[0].id, id);
    assert_eq!(ask(&mut node, 2, &asker(2, true), &wants(&record)).unwrap().records.len(), 1);
}

fn message(sender: u64) -> Record {
    let place = Place::Mailbox { recipient: peer(50), slot: 0 };
    let token = MailboxToken::issue(&key(50), &peer(sender), TTL);
    let draft = Draft { token, ..Draft::new(place, 1, TTL, vec![7; 100].into()) };
    Record::sign(&key(sender), &network(), draft).unwrap()
}

/// A mailbox is opened to its owner and to those who hold it.
/// Contract C-55.
#[test]
fn what_lies_in_a_mailbox_is_told_to_its_holders_and_to_whoever_wrote_it() {
    let record = message(60);
    let mut numbers: Vec<u64> = (1..=40).collect();
    numbers.sort_by_key(|number| record.target().key().distance(&Key::of_peer(&peer(*number))));
    let mut node = Node::new(numbers[0]);
    node.put(&record);
    // The eleventh is a neighbour without a part in this mailbox.
    node.knows(at(1), &numbers);
    let id = record.id();
    let mut learns = |number, verified| {
        let from = asker(number, verified);
        let has = |answer: Result<RepairMessage, _>| {
            answer.is_ok_and(|answer| {
                let listed = answer.lists.iter().any(|part| !part.hashes.is_empty());
                listed || !answer.records.is_empty() || !answer.items.is_empty()
            })
        };
        let few = (Prefix::ALL, Digest { count: 1, sum: 1 });
        let lists = RepairMessage { digests: vec![few], ..RepairMessage::at(0) };
        [wants(&record), about_having(id), lists].map(|ask_for| has(ask(&mut node, 2, &from, &ask_for)))
    };
    assert_eq!(learns(numbers[1], true), [true; 3], "a holder");
    assert_eq!(learns(numbers[11], true), [false; 3], "a neighbour that is none");
    assert_eq!(learns(900, false), [false; 3], "a stranger");
    assert_eq!(learns(60, false), [false, true, false], "the sender, who looks after it");
}

/// who is no neighbour hands nothing over past the rates of those who store.
#[test]
fn records_of_a_stranger_are_held_to_the_rates_of_any_sender() {
    let config = StoreConfig { put_burst: 2.0, puts_per_second: 0.1, ..StoreConfig::default() };
    let records = || (0..10).map(|number| value(50, number, TTL).to_bytes()).collect();
    let taken = |from: Asker| {
        let mut node = holder(0, &[2], ReplicationConfig::default());
        node.store = Store::new(config.clone(), Key::of_peer(&peer(1)), &rules());
        let question = RepairMessage { records: records(), ..RepairMessage::at(0) };
        let answer = ask(&mut node, 2, &from, &question).unwrap();
        answer.verdicts.iter().filter(|verdict| **verdict == Verdict::Stored).count()
    };
    assert_eq!([taken(asker(2, true)), taken(asker(900, true)), taken(asker(900, false))], [10, 2, 2]);
}

/// Whoever is closer than the last replica would hold a record beside us: what the index keeps of it says the same as a count of all who are closer.
#[test]
fn a_guest_is_told_of_what_its_place_makes_it_hold() {
    let neighbours: Vec<u64> = (2..34).collect();
    let mut node = holder(300, &neighbours, ReplicationConfig::default());
    ask(&mut node, 2, &asker(2, true), &RepairMessage::at(0)).unwrap();
    let own = Key::of_peer(&peer(1));
    let known: Vec<Key> = neighbours.iter().map(|number| Key::of_peer(&peer(*number))).chain([own]).collect();
    let (mut common, mut others) = (0, 0);
    for guest in 900..920 {
        let guest = Key::of_peer(&peer(guest));
        for held in node.repair.index.all() {
            let closer = |than: &Key| {
                let edge = held.key.distance(than);
                known.iter().chain([&guest]).filter(|key| held.key.distance(key) < edge).count()
            };
            let shared = closer(&own) < 12 && closer(&guest) < 12;
            let view = View { side: Side::Guest { peer: guest, own }, scope: Scope::ALL, unix: 0 };
            assert_eq!(held.is_common(view), shared);
            *(if shared { &mut common } else { &mut others }) += 1;
        }
    }
    assert!(common > 100 && others > 100, "{common} {others}");
}

/// dht.md B.3: whatever each side has, answers stay within what the other reads, and both have all of it after a few comparisons.
#[test]
fn stores_of_thousands_agree_after_a_few_comparisons() {
    for (a, b, most) in [
        (0..600u64, 300..900u64, 3),
        (0..2000, 0..0, 4),
        (0..0, 0..2000, 4),
        (0..2000, 1000..3000, 4),
        (0..2000, 2000..4000, 6),
    ] {
        let mut nodes = [Node::new(1), Node::new(2)];
        for (node, range) in nodes.iter_mut().zip([a.clone(), b.clone()]) {
            range.for_each(|number| node.put(&value(number % 40 + 10, number, TTL)));
            node.knows(at(1), &[1, 2]);
        }
        let mut periods = 0;
        while nodes[0].ids() != nodes[1].ids() {
            periods += 1;
            assert!(periods <= most, "{a:?} {b:?}: {} {}", nodes[0].ids().len(), nodes[1].ids().len());
            // Each begins one comparison in this time.
            let questions = compare(&mut nodes, at(periods * 3600));
            assert!(questions <= 48, "{questions}");
        }
        assert_eq!(nodes[0].ids().len() as u64, a.end.max(b.end), "{a:?} {b:?}");
    }
}

/// an answer speaks of what was asked, once, and what waits to be handed over is bounded.
#[test]
fn an_answer_about_what_was_not_asked_is_passed_over() {
    for most in [10, 30] {
        let config = ReplicationConfig { max_hand_over: most, ..ReplicationConfig::default() };
        let mut node = holder(200, &[2], config);
        let mut asks = node.repair.poll(at(100), &rules(), &mut node.store, &mut node.random);
        let (token, ..) = asks.pop().unwrap();
        let other = Prefix::ALL.parts().nth(3).unwrap();
        let nothing = |prefix| List { prefix, hashes: vec![] };
        let answer = |lists| RepairMessage { lists, ..RepairMessage::at(0) };
        let answered = |node: &mut Node, token, answer: &RepairMessage| {
            let Node { repair, store, random, .. } = node;
            let (next, _) = repair.answered(at(100), &rules(), &Alone, store, random, token, answer);
            let open = repair.pairs.values().filter_map(|pair| pair.round.as_ref()).next();
            (next, open.map_or(0, |round| round.open()))
        };
        // Told of parts that are none of the question's, the comparison is over.
        let mut stray = holder(200, &[2], ReplicationConfig::default());
        let (first, ..) =
            stray.repair.poll(at(100), &rules(), &mut stray.store, &mut stray.random).pop().unwrap();
        assert_eq!(answered(&mut stray, first, &answer(vec![nothing(other); 64])), (None, 0));
        let (next, open) = answered(&mut node, token, &answer(vec![nothing(Prefix::ALL); 64]));
        let sent = next.unwrap().2.records.len();
        assert_eq!(open + sent, most, "{sent}");
    }
}

/// The one of sixty that is closest to node 1.
fn beside_the_first() -> u64 {
    let key = |number| Key::of_peer(&peer(number));
    (2..60).min_by_key(|number| key(1).distance(&key(*number))).unwrap()
}

/// Records that the one beside node 1 counts, or doesn't, for both, when it knows sixty others; of four thousand.
fn counted(wanted: bool) -> impl Iterator<Item = Record> {
    let keys: Vec<Key> = (1..60).map(|number| Key::of_peer(&peer(number))).collect();
    let beside = Key::of_peer(&peer(beside_the_first()));
    let records = (0..4000).map(|number| value(10, number, TTL));
    records.filter(move |record| {
        let key = record.target().key();
        let rank = |own: &Key| keys.iter().filter(|other| key.distance(other) < key.distance(own)).count();
        (rank(&keys[0]) < 12 && rank(&beside) < 12) == wanted
    })
}

/// Two holders with the same records, of whom the first counts all for both, and the second those that it does count; after so many minutes.
fn unlike(records: &[Record], believed_periods: u32, minutes: u64) -> [Node; 2] {
    let config = ReplicationConfig { believed_periods, ..ReplicationConfig::default() };
    let node = |number| {
        let own = Key::of_peer(&peer(number));
        Node { repair: Repair::new(config.clone(), own, &rules()), ..Node::new(number) }
    };
    let mut nodes = [node(1), node(beside_the_first())];
    records.iter().for_each(|record| nodes.iter_mut().for_each(|node| node.put(record)));
    nodes[0].knows(at(1), &[nodes[1].number]);
    nodes[1].knows(at(1), &(1..60).collect::<Vec<_>>());
    (1..=minutes).for_each(|minute| _ = compare(&mut nodes, at(minute * 60)));
    nodes
}

/// Two holders that know different neighbours don't count the same records. What both have is asked about, and not handed over.
#[test]
fn what_is_there_without_being_counted_is_not_handed_over() {
    for few in [0, 5] {
        let records: Vec<_> = counted(false).take(60).chain(counted(true).take(few)).collect();
        let [first, second] = unlike(&records, 8, 150).map(|node| node.repair.stats());
        assert!(first.asked >= 4, "{first:?}");
        let moved = [first.handed_over, first.taken_in, second.handed_over, second.taken_in];
        assert_eq!(moved, [0; 4]);
        // At first the one without anything to count seems to have nothing, and gets all of it once.
        let sent = first.bytes_sent + second.bytes_sent;
        let most = (first.asked + second.asked) * 1200 + 60 * 400;
        assert!(sent < most, "{first:?} {second:?}");
    }
}

/// What is no lack - there without being counted, or older than what we have - is believed for so many periods, and not sent each time.
#[test]
fn what_is_no_lack_is_looked_at_anew_after_so_many_periods() {
    let records: Vec<_> = counted(false).take(30).chain(counted(true).take(5)).collect();
    let newer = records[0].extended(&key(10), TTL + 60).unwrap();
    let sent = |believed| {
        let mut nodes = unlike(&records, believed, 0);
        nodes[1].put(&newer);
        (1..=20 * 30).for_each(|minute| _ = compare(&mut nodes, at(minute * 60)));
        assert_eq!(nodes[1].store.version(&newer.id()), Some(*newer.version()));
        nodes.map(|node| node.repair.stats().bytes_sent)
    };
    let [always, for_three, for_twenty] = [0, 3, 20].map(sent);
    for (node, least) in [(0, 400 * 5), (1, 50 * 30 * 5)] {
        assert!(always[node] > for_three[node] + least, "{always:?} {for_three:?}");
        assert!(for_three[node] > for_twenty[node], "{for_three:?} {for_twenty:?}");
    }
}

/// What we don't know is taken from whoever lists it, and what was not asked for is not.
#[test]
fn what_is_taken_was_asked_for() {
    let mut node = holder(3, &[2], ReplicationConfig::default());
    let [wanted, other] = [300, 301].map(|number| value(60, number, TTL));
    let list = |records: &[&Record]| {
        let hash = |record: &&Record| short(hash_of(&record.id(), record.version()));
        List { prefix: Prefix::ALL, hashes: records.iter().map(hash).collect() }
    };
    let mut asks = node.repair.poll(at(100), &rules(), &mut node.store, &mut node.random);
    let (mut token, ..) = asks.pop().unwrap();
    let mut answered = |node: &mut Node, answer: &RepairMessage| {
        let Node { repair, store, random, .. } = node;
        let (next, _) = repair.answered(at(100), &rules(), &Alone, store, random, token, answer);
        next.map(|(next, _, question)| {
            token = next;
            question
        })
    };
    let lists = vec![list(&[&wanted])];
    let question = answered(&mut node, &RepairMessage { lists, ..RepairMessage::at(100) }).unwrap();
    assert_eq!((question.have.len(), question.want.len()), (3, 0));
    let question = answered(&mut node, &RepairMessage::at(100)).unwrap();
    let mut wants = question.want;
    if wants.is_empty() {
        wants = answered(&mut node, &RepairMessage::at(100)).unwrap().want;
    }
    assert_eq!(wants, list(&[&wanted]).hashes);
    let records = vec![other.to_bytes(), wanted.to_bytes(), other.to_bytes()];
    answered(&mut node, &RepairMessage { records, ..RepairMessage::at(100) });
    assert!(node.ids().contains(&wanted.id()) && !node.ids().contains(&other.id()));
    assert_eq!(node.ids().len(), 4);
}
