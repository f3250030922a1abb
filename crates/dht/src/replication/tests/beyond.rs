//! What comparisons pass on beside signed records: values of validators' namespaces, and proofs to whoever has the record already.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::record::{EntryId, Validator};
use crate::replication::digest::{raw_hash, short};
use crate::replication::repair::scope_of;
use crate::store::Put;
use crate::{Invalid, Judged, Refusal, Target};

/// A value is its own rank; one that begins with an x is none, and one with a second in it is one until then.
struct Words;

impl Validator for Words {
    fn validate(&self, now: Now, _: &[u8], value: &Bytes) -> Result<Judged, Invalid> {
        let text = std::str::from_utf8(value).map_err(|_| Invalid { why: "no text" })?;
        let until: u64 = text.split('@').nth(1).and_then(|until| until.parse().ok()).unwrap_or(u64::MAX);
        match text.starts_with('x') || until <= now.unix.as_secs() {
            true => Err(Invalid { why: "not allowed" }),
            false => Ok(Judged { slot: Bytes::new(), rank: value.clone(), is_final: false }),
        }
    }
}

/// A node that keeps words.
fn keeper(number: u64) -> Node {
    Node { rules: rules().with_validator("words", Arc::new(Words)), ..Node::new(number) }
}

fn place(number: u64) -> Target {
    Target::new(format!("/words/{number}").as_bytes()).unwrap()
}

fn put(node: &mut Node, second: u64, number: u64, value: &str) {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let Node { store, rules, .. } = node;
    let put = store.put(at(second), rules, &Alone, Sender::Own, &place(number), &value);
    assert!(put.is_there(), "{put:?}");
}

fn said(node: &mut Node, second: u64, number: u64) -> Option<String> {
    let Node { store, rules, .. } = node;
    let page = store.page(at(second), rules, place(number).key(), None, 10_000);
    page.values.first().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn sent(nodes: &[Node]) -> (u64, u64) {
    let stats = nodes.iter().map(|node| node.repair.stats());
    stats.fold((0, 0), |sum, stats| (sum.0 + stats.bytes_sent, sum.1 + stats.asked))
}

fn know_each_other(nodes: &mut [Node]) {
    let all: Vec<u64> = nodes.iter().map(|node| node.number).collect();
    nodes.iter_mut().for_each(|node| node.knows(at(1), &all));
}

/// C-50: what one of two holders has lost comes back, whichever that is, and the better one of two goes to whoever has the other; then nothing moves any more.
#[test]
fn values_of_a_validator_that_one_holder_lacks_come_from_the_other() {
    for (a, b) in [(0..0, 0..120), (0..120, 60..180), (0..3, 2..5), (0..300, 0..0)] {
        let mut nodes = [1, 2].map(keeper);
        a.clone().for_each(|number| put(&mut nodes[0], 0, number, &format!("a{number}")));
        b.clone().for_each(|number| put(&mut nodes[1], 0, number, &format!("b{number}")));
        // Records beside them are compared as ever.
        (0..50).for_each(|salt| nodes[(salt % 2) as usize].put(&value(10 + salt % 3, salt, TTL)));
        know_each_other(&mut nodes);
        compare_all(&mut nodes, 2..3600);
        for node in &mut nodes {
            for number in a.clone().chain(b.clone()) {
                let best = if b.contains(&number) { "b" } else { "a" };
                assert_eq!(said(node, 3600, number), Some(format!("{best}{number}")), "{a:?} {b:?}");
            }
            assert_eq!(node.ids().len(), 50);
        }
        let before = sent(&nodes);
        compare_all(&mut nodes, 3600..5 * 3600);
        let after = sent(&nodes);
        assert!(after.0 - before.0 < 200 * (after.1 - before.1), "{before:?} to {after:?}");
    }
}

/// AL-49: the closest holder hands over to a newcomer, at once; the others find that it is done.
#[test]
fn one_holder_alone_hands_a_value_of_a_validator_to_a_newcomer() {
    let mut nodes: Vec<Node> = (1..=6).map(keeper).collect();
    nodes[..5].iter_mut().for_each(|node| put(node, 0, 1, "word"));
    know_each_other(&mut nodes);
    compare_all(&mut nodes, 2..60);
    assert_eq!(said(&mut nodes[5], 60, 1).as_deref(), Some("word"));
    let handed: u64 = nodes.iter().map(|node| node.repair.stats().handed_over).sum();
    assert_eq!((handed, nodes[5].repair.stats().taken_in), (1, 1));
}

/// C-51: repair makes no life longer: what nobody puts again is gone when its time is over at whoever was given it last, however often it went to and fro.
#[test]
fn a_value_that_is_passed_on_lives_no_longer_for_it() {
    let mut nodes = [1, 2].map(keeper);
    put(&mut nodes[0], 0, 1, "word");
    know_each_other(&mut nodes);
    let life = RecordsConfig::default().foreign.max_ttl.as_secs();
    for hour in 1..life / 3600 {
        let from = hour * 3600;
        // One of the two loses it, and has it again.
        let Node { store, .. } = &mut nodes[(hour % 2) as usize];
        let id = crate::record::EntryId::of(place(1).key(), &Bytes::new());
        store.let_go(at(from), &id);
        compare_all(&mut nodes, from..from + 3599);
        let expiry = nodes.each_mut().map(|node| node.store.kept(&node.rules, &id).map(|kept| kept.expires));
        assert!(expiry.iter().all(|at| at.is_some_and(|at| at <= life)), "hour {hour}: {expiry:?}");
    }
    compare_all(&mut nodes, life - 60..life + 60);
    for node in &mut nodes {
        node.store.expire(at(life));
        assert_eq!(said(node, life, 1), None);
    }
    compare_all(&mut nodes, life + 60..life + 3600);
    assert!(nodes.iter_mut().all(|node| said(node, life + 3600, 1).is_none()));
}

/// A validator may check signatures: who has values handed out pays for that.
#[test]
fn values_that_are_handed_out_cost_as_much_as_a_check() {
    let mut node = keeper(1);
    (0..20).for_each(|number| put(&mut node, 0, number, "blue"));
    node.knows(at(1), &[2]);
    let rank = Bytes::from_static(b"blue");
    let hash = |number| short(raw_hash(&EntryId::of(place(number).key(), &Bytes::new()), &rank));
    let want: Vec<u64> = (0..20).map(hash).collect();
    let question = RepairMessage { want, scope: scope_of(&node.rules), ..RepairMessage::at(2) };
    let asker = Asker { peer: peer(2), remote: "20.0.0.1".parse().unwrap(), verified: true };
    let Node { repair, store, rules, .. } = &mut node;
    let (answer, _) = repair.asked(at(2), rules, &Alone, store, &asker, &question).unwrap();
    assert_eq!((answer.records.len(), repair.stats().looks), (20, 20 + 20 * 100));
}

/// Who hands over something better that is about to end takes nothing away with it.
#[test]
fn a_better_value_that_is_about_to_end_lives_as_long_as_what_it_replaces() {
    let mut node = keeper(1);
    put(&mut node, 0, 1, "blue");
    let Node { store, rules, .. } = &mut node;
    let sender = Sender::Holder { peer: peer(2), subnet: None };
    let green = Bytes::from_static(b"green");
    let mut hand =
        |number, life| store.put_handed(at(10), rules, &Alone, sender, &place(number), &green, life);
    assert_eq!((hand(1, 1), hand(2, 0)), (Put::Stored, Put::Refused(Refusal::Invalid)));
    node.store.expire(at(100));
    assert_eq!(said(&mut node, 100, 1).as_deref(), Some("green"));
}

/// Whoever has no validator for it, or one that refuses it, is not sent it again and again; nor is a value handed over that has come to its end by its own rules.
#[test]
fn what_a_validator_refuses_is_offered_once_and_holds_up_nothing() {
    let refuses = || {
        struct Nothing;
        impl Validator for Nothing {
            fn validate(&self, _: Now, _: &[u8], _: &Bytes) -> Result<Judged, Invalid> {
                Err(Invalid { why: "nothing is" })
            }
        }
        Node { rules: rules().with_validator("words", Arc::new(Nothing)), ..Node::new(2) }
    };
    for (other, words) in [(Node::new(2), "word"), (refuses(), "word"), (keeper(2), "word@60")] {
        let mut nodes = [keeper(1), other];
        (0..40).for_each(|number| put(&mut nodes[0], 0, number, words));
        know_each_other(&mut nodes);
        // By the time of the first comparison what has an end has come to it.
        compare_all(&mut nodes, 100..200);
        let record = value(10, 1, TTL);
        nodes[0].put(&record);
        compare_all(&mut nodes, 200..5 * 3600);
        assert_eq!((nodes[1].ids().len(), said(&mut nodes[1], 5 * 3600, 1)), (1, None));
        let stats = nodes.each_ref().map(|node| node.repair.stats());
        // Of forty values of some bytes each, some kilobytes went over once or twice.
        assert!(stats[0].bytes_sent < 12_000, "{stats:?}");
    }
}

/// An earlier version compares what it knows of with us, and neither waits for the other because of what only one of the two counts.
#[test]
fn an_earlier_version_compares_records_with_a_node_that_has_more() {
    let [lesser, greater] = two_things(100);
    for old in [0, 1] {
        let mut nodes = [1, 2].map(keeper);
        nodes[old].is_old = true;
        let new = 1 - old;
        put(&mut nodes[new], 0, 1, "word");
        [&lesser, &greater].into_iter().for_each(|record| nodes[new].put(record));
        nodes[old].put(&greater);
        (0..40).for_each(|salt| nodes[(salt % 2) as usize].put(&value(10 + salt % 3, 7 + salt, TTL)));
        know_each_other(&mut nodes);
        compare_all(&mut nodes, 2..3600);
        assert!(nodes.iter().all(|node| node.ids().len() == 41));
        assert_eq!(said(&mut nodes[old], 3600, 1), None, "it has no word for it");
        let Node { repair, store, rules, .. } = &mut nodes[new];
        assert_eq!(repair.live(at(3600), rules, store, &greater.id()), Some((2, 12)));
        let before = sent(&nodes);
        compare_all(&mut nodes, 3600..5 * 3600);
        let after = sent(&nodes);
        assert!(after.0 - before.0 < 200 * (after.1 - before.1), "{before:?} to {after:?}");
    }
}

/// Only who holds them too is told whether they are here.
#[test]
fn of_values_of_a_validator_holders_alone_are_told_by_name() {
    let mut node = keeper(1);
    put(&mut node, 0, 1, "word");
    node.knows(at(1), &[2]);
    let id = crate::record::EntryId::of(place(1).key(), &Bytes::new());
    let mut told = |from: u64, verified, scope| {
        let question = RepairMessage { have: vec![id], scope, ..RepairMessage::at(2) };
        let asker = Asker { peer: peer(from), remote: "20.0.0.1".parse().unwrap(), verified };
        let Node { repair, store, rules, .. } = &mut node;
        let (answer, _) = repair.asked(at(2), rules, &Alone, store, &asker, &question).unwrap();
        answer.items.len()
    };
    assert_eq!(told(2, true, Scope::ALL), 1);
    assert_eq!([told(2, true, Scope::PROOFS), told(77, false, Scope::ALL)], [0, 0]);
}

/// AL-41: a proof comes to all that hold the record, also to those that have it already; each reports it once, and it is sent about once for each.
#[test]
fn a_proof_that_one_holder_has_comes_to_all_of_them() {
    let [lesser, greater] = two_things(1000);
    let mut nodes: Vec<Node> = (1..=8).map(Node::new).collect();
    nodes[3].put(&lesser);
    nodes.iter_mut().for_each(|node| node.put(&greater));
    know_each_other(&mut nodes);
    compare_all(&mut nodes, 2..2 * 3600);
    for node in &mut nodes {
        let both = node.store.values(at(2 * 3600), &rules(), &greater.id());
        assert_eq!(both, Some((greater.to_bytes(), Some(lesser.to_bytes()))));
        assert_eq!(node.store.take_equivocations().len(), 1);
    }
    let (bytes, asked) = sent(&nodes);
    let both = (greater.to_bytes().len() + lesser.to_bytes().len()) as u64;
    assert!(bytes < 200 * asked + 14 * both, "{bytes} bytes of {asked} questions, {both} for both");
}

/// Where there is no room for it, it is not sent with each comparison.
#[test]
fn a_proof_for_which_a_holder_has_no_room_is_set_aside() {
    let [lesser, greater] = two_things(2000);
    let mut nodes = [1, 2].map(Node::new);
    let own = Key::of_peer(&peer(2));
    let bytes = 512 + 100 + greater.to_bytes().len() + 200;
    let config = StoreConfig { publisher_bytes: bytes, checks_per_second: 1e6, ..StoreConfig::default() };
    nodes[1].store = Store::new(config, own, &rules());
    nodes[0].put(&lesser);
    nodes.iter_mut().for_each(|node| node.put(&greater));
    know_each_other(&mut nodes);
    compare_all(&mut nodes, 2..6 * 3600);
    assert_eq!(nodes[1].store.values(at(6 * 3600), &rules(), &greater.id()).unwrap().1, None);
    let (bytes, asked) = sent(&nodes);
    let both = (greater.to_bytes().len() + lesser.to_bytes().len()) as u64;
    assert!(asked > 12 && bytes < 200 * asked + 5 * both, "{bytes} bytes of {asked} questions");
}
