//! Records in networks of whole nodes in virtual time: publishing, reading, surviving churn, handing over.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod net;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use net::{Manner, Net};
use peerage_dht::record::*;
use peerage_dht::replication::SetState;
use peerage_dht::store::{Disk, DiskFault, MemoryDisk};
use peerage_dht::topic::Ad;
use peerage_dht::*;
use peerage_identity::NodeKey;
use peerage_machine::Random;

const S: fn(u64) -> Duration = Duration::from_secs;

fn network() -> Network {
    Network::new("acme").unwrap()
}

/// A network that stands, whose nodes hold records.
fn planted(seed: u64, count: usize) -> Net {
    let mut net = Net::new(seed, count, &DhtConfig::default());
    let config = std::sync::Arc::new(RecordsConfig { mailbox_work_bits: 0, ..RecordsConfig::default() });
    net.hold_records(move || Records::new(network(), config.clone()));
    net.checked = false;
    net.plant();
    net
}

fn unix(net: &Net) -> u64 {
    net.time().unix.as_secs()
}

fn sign(key: &NodeKey, place: Place, seq: u64, not_after: u64, body: &'static [u8]) -> Record {
    Record::sign(key, &network(), Draft::new(place, seq, not_after, Bytes::from_static(body))).unwrap()
}

fn value_place(net: &Net, at: usize) -> Place {
    Place::Value { publisher: *net.nodes[at].contact.peer(), salt: Bytes::from_static(b"colour") }
}

fn publish(net: &mut Net, at: usize, record: &Record, renew: Option<Duration>) -> Outcome {
    net.find(at, Operation::Publish { record: Box::new(record.clone()), renew })
}

fn get(net: &mut Net, at: usize, target: &Target) -> Option<Bytes> {
    let outcome = net.find(at, Operation::Get { target: target.clone() });
    outcome.values.first().map(|found| found.value.clone())
}

/// The fair nodes that have the newest version of a record.
fn holders(net: &Net, record: &Record) -> Vec<usize> {
    let has = |at: &usize| {
        let store = net.nodes[*at].dht.store().unwrap();
        net.nodes[*at].manner == Manner::Fair && store.version(&record.id()) >= Some(*record.version())
    };
    (0..net.nodes.len()).filter(has).collect()
}

// AL-46, AL-47, X-24: publishing says how many have stored it, and what they have is what was signed.
/// Contract C-47.
#[test]
fn what_is_published_is_found_by_strangers_as_it_was_signed() {
    for seed in 1..=3 {
        let mut net = planted(seed, 200);
        let key = net.key(7);
        let place = value_place(&net, 7);
        let record = sign(&key, place, 1, unix(&net) + 7200, b"blue");
        let outcome = publish(&mut net, 7, &record, None);
        assert_eq!(outcome.ended, Ended::Stored, "seed {seed}");
        net.run(S(20));
        assert!(holders(&net, &record).len() >= 12, "seed {seed}: {:?}", holders(&net, &record));
        let view = net.nodes[7].dht.published().pop().unwrap();
        assert_eq!((view.state, view.wanted), (SetState::Healthy, 12), "seed {seed}");
        assert!(view.live >= 12 && view.holders.len() == view.live, "seed {seed}: {view:?}");
        for reader in [50, 100, 150] {
            assert_eq!(get(&mut net, reader, record.target()), Some(record.to_bytes()), "seed {seed}");
        }
    }
}

// AL-29, X-25: the newest wins, at readers and at holders.
/// Contract C-50.
#[test]
fn a_newer_record_takes_the_place_of_the_older_one_everywhere() {
    let mut net = planted(4, 120);
    let (key, place) = (net.key(7), value_place(&net, 7));
    for seq in 1..=2 {
        let record =
            sign(&key, place.clone(), seq, unix(&net) + 7200, if seq == 1 { b"blue" } else { b"red" });
        publish(&mut net, 7, &record, None);
        net.run(S(20));
        assert_eq!(get(&mut net, 60, record.target()), Some(record.to_bytes()));
    }
    let old = sign(&key, place, 1, unix(&net) + 7000, b"blue");
    let outcome = publish(&mut net, 7, &old, None);
    assert!(outcome.stored.is_empty() && outcome.not_stored.iter().any(|(_, why)| *why == NotStored::Stale));
    assert_eq!(net.nodes[7].dht.published()[0].state, SetState::Critical);
}

// AL-52, X-19: the publisher renews at a third of the life, without sending the content again; when it stops, the record expires.
/// Contract C-52.
#[test]
fn a_record_is_renewed_for_as_long_as_its_publisher_wants_and_then_expires() {
    let mut net = planted(5, 100);
    let (key, place) = (net.key(7), value_place(&net, 7));
    let record = sign(&key, place, 1, unix(&net) + 3600, b"blue");
    publish(&mut net, 7, &record, Some(S(3600)));
    net.run(S(4 * 3600));
    let found = Record::open(&network(), &get(&mut net, 60, record.target()).unwrap()).unwrap();
    assert_eq!((found.version().seq, found.body()), (1, record.body()));
    assert!(found.version().not_after > unix(&net) + 1200);
    assert!(holders(&net, &found).len() >= 10, "{:?}", holders(&net, &found));
    let now = net.time();
    assert!(net.nodes[7].dht.forget(now, &record.id()));
    net.run(S(3600));
    assert_eq!(get(&mut net, 60, record.target()), None);
    // AL-44, weakness 7: nothing of it is left, and nobody looks after it.
    assert!(net.nodes.iter().all(|node| node.dht.held().records == 0 && node.dht.published().is_empty()));
}

// AL-48, AL-49, AL-51, weakness 16: the holders keep a record alive although its publisher is gone and holders leave.
/// Contract C-51.
#[test]
fn holders_keep_a_record_alive_without_its_publisher() {
    for seed in 1..=2 {
        let mut net = planted(seed, 150);
        let (key, place) = (net.key(7), value_place(&net, 7));
        let record = sign(&key, place, 1, unix(&net) + 40 * 3600, b"blue");
        publish(&mut net, 7, &record, None);
        net.run(S(60));
        net.nodes[7].manner = Manner::Gone;
        for round in 0..4 {
            for gone in holders(&net, &record).into_iter().take(4) {
                net.nodes[gone].manner = Manner::Gone;
            }
            net.run(S(5400));
            let live = holders(&net, &record);
            assert!(live.len() >= 10, "seed {seed}, round {round}: {} have it", live.len());
        }
        let reader = (0..150).rev().find(|at| net.nodes[*at].manner == Manner::Fair).unwrap();
        assert_eq!(get(&mut net, reader, record.target()), Some(record.to_bytes()), "seed {seed}");
        // D.3-6: what was handed over is what was signed.
        for at in holders(&net, &record) {
            assert_eq!(net.nodes[at].dht.store().unwrap().version(&record.id()), Some(*record.version()));
        }
        let now = net.time();
        let told =
            holders(&net, &record).into_iter().find_map(|at| net.nodes[at].dht.replicas(now, &record.id()));
        let (live, wanted, state) = told.unwrap();
        // Those are counted that were compared with lately and had it.
        assert!(live >= 6 && wanted == 12 && state != SetState::Critical, "{live} of {wanted}: {state:?}");
    }
}

// Scenario 15 in small, AL-42: a flood of one publisher stays within its quota, and others' records have their place.
#[test]
fn a_flood_of_one_publisher_leaves_room_for_others() {
    let mut net = planted(6, 60);
    let flooder = net.key(3);
    for number in 0..400u32 {
        let salt = Bytes::copy_from_slice(&number.to_be_bytes());
        let place = Place::Value { publisher: flooder.peer_id(), salt };
        let record = sign(&flooder, place, 1, unix(&net) + 7200, b"flood");
        net.start(
            3,
            Operation::Put { target: record.target().clone(), value: record.to_bytes(), replicas: 12 },
            Options::default(),
        );
        net.run(Duration::from_millis(200));
    }
    let (key, place) = (net.key(7), value_place(&net, 7));
    let record = sign(&key, place, 1, unix(&net) + 7200, b"blue");
    assert_eq!(publish(&mut net, 7, &record, None).ended, Ended::Stored);
    for node in &net.nodes {
        let used = node.dht.store().unwrap().used_by(&flooder.peer_id());
        assert!(used.records <= 256 && used.bytes <= 64 * 1024, "{used:?}");
    }
    assert_eq!(get(&mut net, 40, record.target()), Some(record.to_bytes()));
}

// AL-38, AL-28: a topic's members are all found, however many pages they take.
/// Contract C-56.
#[test]
fn all_members_of_a_topic_are_found() {
    let mut net = planted(7, 120);
    for at in 0..60 {
        let key = net.key(at);
        let body = Ad { topic: "chess".into(), brief: "x".repeat(120), ..Ad::default() }.encode();
        let draft = Draft::new(Place::of_topic("chess", 0), 1, unix(&net) + 3600, body);
        let record = Record::sign(&key, &network(), draft).unwrap();
        assert_eq!(publish(&mut net, at, &record, None).ended, Ended::Stored);
    }
    net.run(S(30));
    let target = Place::of_topic("chess", 0).target(&network()).unwrap();
    let outcome = net.find(100, Operation::Collect { target, wanted: 1000 });
    let found: BTreeSet<_> = outcome
        .values
        .iter()
        .map(|found| Record::open(&network(), &found.value).unwrap().publisher())
        .collect();
    assert_eq!(found.len(), 60, "{:?}", outcome.ended);
}

// AL-39: a message waits for its recipient, nobody else gets it, and what was read is gone.
/// Contract C-55.
#[test]
fn a_message_waits_for_its_recipient_alone() {
    let mut net = planted(8, 100);
    let (sender, recipient) = (net.key(1), net.key(2));
    let place = Place::Mailbox { recipient: recipient.peer_id(), slot: 0 };
    let context = mailbox_context(&network(), &sender.peer_id(), &recipient.peer_id());
    let body = peerage_identity::seal_to(&recipient.public(), &context, b"meet at noon", &[5; 32]).unwrap();
    let message =
        Record::sign(&sender, &network(), Draft::new(place.clone(), 1, unix(&net) + 86_400, body)).unwrap();
    net.nodes[2].manner = Manner::Gone;
    assert_eq!(publish(&mut net, 1, &message, None).ended, Ended::Stored);
    net.run(S(3600));
    net.nodes[2].manner = Manner::Fair;
    let target = message.target().clone();
    let collect =
        |net: &mut Net, at| net.find(at, Operation::Collect { target: target.clone(), wanted: 100 }).values;
    let reader = (3..100).find(|at| !holders(&net, &message).contains(at)).unwrap();
    assert!(collect(&mut net, reader).is_empty());
    let found = collect(&mut net, 2);
    let read = Record::open(&network(), &found[0].value).unwrap();
    let opened = peerage_identity::open_sealed(&recipient, &context, read.body().unwrap()).unwrap();
    assert_eq!((found.len(), &opened[..]), (1, &b"meet at noon"[..]));
    let rules = MailboxRules { policy: MailboxPolicy::Open { work_bits: 0 }, cleared: vec![message.id()] };
    let rules =
        Record::sign(&recipient, &network(), Draft::new(place, 1, unix(&net) + 86_400, rules.encode()))
            .unwrap();
    assert_eq!(publish(&mut net, 2, &rules, None).ended, Ended::Stored);
    net.run(S(60));
    let with_rules = holders(&net, &rules);
    assert!(with_rules.len() >= 8, "{with_rules:?}");
    for at in with_rules {
        assert_eq!(net.nodes[at].dht.store().unwrap().version(&message.id()), None);
    }
}

#[test]
fn a_publisher_that_says_two_things_is_reported() {
    let mut net = planted(9, 60);
    let (key, place) = (net.key(7), value_place(&net, 7));
    for body in [&b"blue"[..], b"red"] {
        let record = sign(&key, place.clone(), 1, unix(&net) + 7200, Box::leak(body.to_vec().into()));
        let (target, value) = (record.target().clone(), record.to_bytes());
        net.find(7, Operation::Put { target, value, replicas: 12 });
        net.run(S(5));
    }
    let reports = net
        .nodes
        .iter()
        .flat_map(|node| &node.events)
        .filter(|(_, event)| matches!(event, Event::Equivocation(_)));
    assert!(reports.count() >= 10);
}

// B.5, X-20: a node that was killed comes back with its records, and what was damaged comes back from the neighbours.
/// Contract C-58.
#[test]
fn a_holder_that_was_killed_comes_back_with_what_it_held() {
    let mut net = planted(10, 60);
    let mut records = Vec::new();
    for at in 0..20 {
        let (key, place) = (net.key(at), value_place(&net, at));
        let record = sign(&key, place, 1, unix(&net) + 40 * 3600, b"blue");
        publish(&mut net, at, &record, None);
        records.push(record);
    }
    net.run(S(60));
    let at = holders(&net, &records[0])[0];
    let held: Vec<_> = records.iter().filter(|record| holders(&net, record).contains(&at)).collect();
    let disk: MemoryDisk = net.nodes[at].disk.clone();
    // A copy beyond the twelve closest, of which a store makes some, is nobody's to bring back: one of the others is damaged.
    let is_near = |net: &Net, record: &Record| {
        let near = net.truth(record.target().key(), 12);
        near.iter().any(|contact| contact.peer() == net.nodes[at].contact.peer())
    };
    let damaged = (1..100).find_map(|number| {
        let mut disk = disk.clone();
        disk.crash(DiskFault::BitFlip, &mut Random::from_number(number));
        net.restart(at, disk.load().unwrap());
        assert_eq!(net.nodes[at].dht.held().records, held.len() - 1);
        held.iter().find(|record| !holders(&net, record).contains(&at)).filter(|record| is_near(&net, record))
    });
    let damaged = damaged.expect("it is among the closest of one of them");
    net.run(S(3 * 3600));
    assert!(holders(&net, damaged).contains(&at), "the damaged one is back");
    for record in held.iter().filter(|record| is_near(&net, record)) {
        assert!(holders(&net, record).contains(&at));
    }
}

// D.2-14, the clock: records are not refused for their times by a node whose clock is wrong, and it says so.
#[test]
fn a_node_whose_clock_is_wrong_finds_out_from_its_neighbours() {
    let mut net = planted(11, 60);
    for at in 0..10 {
        let (key, place) = (net.key(at), value_place(&net, at));
        let record = sign(&key, place, 1, unix(&net) + 40 * 3600, b"blue");
        publish(&mut net, at, &record, None);
    }
    net.run(S(60));
    let at = (20..60).find(|at| net.nodes[*at].dht.held().records > 0).unwrap();
    net.nodes[at].clock_ahead = S(1800);
    net.run(S(2 * 3600));
    let wrong = |event: &Event| matches!(event, Event::Clock { wrong: true, ahead } if *ahead < -1700);
    assert!(net.nodes[at].events.iter().any(|(_, event)| wrong(event)));
    assert!(net.nodes.iter().enumerate().all(|(other, node)| other == at
        || !node.events.iter().any(|(_, event)| matches!(event, Event::Clock { .. }))));
}

// X-27, AL-45: an answer is bounded whatever is stored, and providers are found.
#[test]
fn providers_are_found_and_only_speak_for_themselves() {
    let mut net = planted(12, 80);
    let target = Target::new(b"multihash").unwrap();
    for at in [3, 4, 5] {
        let provider = net.nodes[at].contact.clone();
        let outcome = net.find(at, Operation::Provide { target: target.clone(), provider, replicas: 20 });
        assert_eq!(outcome.ended, Ended::Stored);
    }
    let forged =
        Operation::Provide { target: target.clone(), provider: net.nodes[9].contact.clone(), replicas: 20 };
    assert_eq!(net.find(8, forged).ended, Ended::TooFewStored);
    net.run(S(10));
    let outcome = net.find(60, Operation::Providers { target, wanted: 100 });
    let found: BTreeSet<_> = outcome.providers.iter().map(|contact| *contact.peer()).collect();
    assert_eq!(found, [3, 4, 5].map(|at| *net.nodes[at].contact.peer()).into());
}

/// AL-27: what a node holds itself counts for what it looks for, also where it is all that there is. In a network of two each is the other's only holder.
#[test]
fn what_we_hold_ourselves_is_found_by_ourselves() {
    let mut net = planted(13, 2);
    let target = Target::new(b"multihash").unwrap();
    let provider = net.nodes[0].contact.clone();
    let outcome =
        net.find(0, Operation::Provide { target: target.clone(), provider: provider.clone(), replicas: 20 });
    assert_eq!(outcome.stored.len(), 1);
    net.run(S(3));
    let outcome = net.find(1, Operation::Providers { target, wanted: 10 });
    assert_eq!(outcome.providers, [provider]);
}
