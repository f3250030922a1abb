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
    planted_with(seed, count, &DhtConfig::default())
}

fn planted_with(seed: u64, count: usize, config: &DhtConfig) -> Net {
    let mut net = Net::new(seed, count, config);
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
    assert!(!outcome.looked_after);
    let views = net.nodes[7].dht.published();
    assert_eq!((views.len(), views[0].record.version().seq, views[0].state), (1, 2, SetState::Healthy));
}

/// AL-52, X-19: the publisher renews at a third of the life, without sending the content again; when it stops, the record expires.
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
        let outcome =
            net.find(at, Operation::Provide { target: target.clone(), provider, replicas: 20, renew: false });
        assert_eq!(outcome.ended, Ended::Stored);
    }
    let forged = Operation::Provide {
        target: target.clone(),
        provider: net.nodes[9].contact.clone(),
        replicas: 20,
        renew: false,
    };
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
    let outcome = net.find(
        0,
        Operation::Provide { target: target.clone(), provider: provider.clone(), replicas: 20, renew: false },
    );
    assert_eq!(outcome.stored.len(), 1);
    net.run(S(3));
    let outcome = net.find(1, Operation::Providers { target, wanted: 10 });
    assert_eq!(outcome.providers, [provider]);
}

#[test]
fn of_two_nodes_each_finds_the_provider_that_the_other_or_it_itself_is() {
    let mut net = planted(13, 2);
    let target = Target::new(b"multihash").unwrap();
    let provider = net.nodes[0].contact.clone();
    let provide = Operation::Provide { target: target.clone(), provider, replicas: 20, renew: true };
    assert_eq!(net.find(0, provide).ended, Ended::Stored);
    for at in [0, 1] {
        let outcome = net.find(at, Operation::Providers { target: target.clone(), wanted: 5 });
        let found: Vec<_> = outcome.providers.iter().map(|contact| *contact.peer()).collect();
        assert_eq!(found, [*net.nodes[0].contact.peer()], "asked by {at}");
    }
    let now = net.time();
    assert!(net.nodes[0].dht.stop_providing(now, &target));
    assert!(net.nodes[0].dht.provided().is_empty());
    assert!(net.find(0, Operation::Providers { target, wanted: 5 }).providers.len() <= 1);
}

#[test]
fn what_is_provided_is_told_again_until_it_is_provided_no_more() {
    let mut config = DhtConfig::default();
    config.store.provider_ttl = S(3600);
    let mut net = planted_with(14, 30, &config);
    let target = Target::new(b"multihash").unwrap();
    let provider = net.nodes[3].contact.clone();
    net.find(3, Operation::Provide { target: target.clone(), provider, replicas: 20, renew: true });
    let found = |net: &mut Net| {
        net.find(20, Operation::Providers { target: target.clone(), wanted: 5 }).providers.len()
    };
    net.run(S(3 * 3600));
    assert_eq!(found(&mut net), 1);
    let now = net.time();
    assert!(net.nodes[3].dht.stop_providing(now, &target));
    net.run(S(3700));
    assert_eq!(found(&mut net), 0);
}

/// A publisher with a version that is looked after, and a newer one that is not published yet.
fn two_versions(net: &Net, at: usize) -> [Record; 2] {
    let (key, place) = (net.key(at), value_place(net, at));
    [(1, &b"blue"[..]), (2, b"red")].map(|(seq, body)| sign(&key, place.clone(), seq, unix(net) + 7200, body))
}

#[test]
fn a_publishing_that_nobody_has_stored_when_its_caller_gives_up_never_was() {
    for version_before in [false, true] {
        let mut net = planted(15, 60);
        let [old, new] = two_versions(&net, 7);
        if version_before {
            assert!(publish(&mut net, 7, &old, Some(S(7200))).looked_after);
            net.run(S(10));
        }
        let held = net.nodes[7].dht.held();
        // What is on its way when it is given up may arrive: here nothing does.
        (0..60).filter(|at| *at != 7).for_each(|at| net.nodes[at].manner = Manner::Silent);
        let wanted = Operation::Publish { record: Box::new(new.clone()), renew: Some(S(7200)) };
        let operation = net.start(7, wanted, Options::default());
        assert_eq!(net.nodes[7].dht.published()[0].record.version().seq, 2);
        net.input(7, Input::Cancel { operation });
        let outcome = net.outcome(7, operation);
        assert_eq!((outcome.ended, outcome.looked_after), (Ended::Cancelled, false));
        net.run(S(1));
        (0..60).for_each(|at| net.nodes[at].manner = Manner::Fair);
        let seqs: Vec<_> =
            net.nodes[7].dht.published().iter().map(|view| view.record.version().seq).collect();
        assert_eq!(seqs, if version_before { vec![1] } else { vec![] });
        net.run(S(3000));
        assert!(holders(&net, &new).is_empty());
        let found = get(&mut net, 30, old.target());
        assert_eq!(found.is_some(), version_before);
        assert!(net.nodes[7].dht.held().records <= held.records);
    }
    let mut net = planted(16, 1);
    let [record, _] = two_versions(&net, 0);
    let outcome = publish(&mut net, 0, &record, Some(S(7200)));
    assert_eq!((outcome.ended, outcome.looked_after), (Ended::NoContacts, false));
    assert!(net.nodes[0].dht.published().is_empty() && net.nodes[0].dht.held().records == 0);
}

#[test]
fn a_publishing_that_too_few_have_stored_is_looked_after_until_enough_have() {
    let mut net = planted(17, 40);
    (0..40).filter(|at| *at != 7).for_each(|at| net.nodes[at].manner = Manner::Gone);
    let [record, _] = two_versions(&net, 7);
    let outcome = publish(&mut net, 7, &record, Some(S(7200)));
    assert!(outcome.ended != Ended::Stored && outcome.looked_after, "{:?}", outcome.ended);
    (0..40).for_each(|at| net.nodes[at].manner = Manner::Fair);
    net.run(S(1500));
    assert!(holders(&net, &record).len() >= 10);
}

///
#[test]
fn beyond_so_many_records_a_further_one_is_refused_and_its_publisher_is_told() {
    let mut config = DhtConfig::default();
    config.replication.max_sets = 1;
    config.replication.max_provided = 1;
    let mut net = planted_with(18, 30, &config);
    let [record, newer] = two_versions(&net, 7);
    assert!(publish(&mut net, 7, &record, None).looked_after);
    assert!(publish(&mut net, 7, &newer, None).looked_after);
    let place = Place::of_content(b"content");
    let other = sign(&net.key(7), place, 0, unix(&net) + 7200, b"content");
    assert_eq!(publish(&mut net, 7, &other, None).ended, Ended::TooManyKept);
    let provider = net.nodes[7].contact.clone();
    let ends = ["a", "b"].map(|name| {
        let target = Target::new(name.as_bytes()).unwrap();
        net.find(7, Operation::Provide { target, provider: provider.clone(), replicas: 20, renew: true })
            .ended
    });
    assert_eq!(ends, [Ended::Stored, Ended::TooManyKept]);
}

/// Content is the same whoever signs for it: where another has published it for longer it is stored, and each publisher looks after it for as long as it wants.
#[test]
fn content_that_another_has_published_for_longer_is_stored_and_looked_after() {
    for seed in 31..=32 {
        let mut net = planted(seed, 100);
        let place = Place::of_content(b"content");
        let longer = sign(&net.key(3), place.clone(), 0, unix(&net) + 7200, b"content");
        assert!(publish(&mut net, 3, &longer, None).looked_after);
        let shorter = sign(&net.key(9), place, 0, unix(&net) + 3600, b"content");
        let outcome = publish(&mut net, 9, &shorter, Some(S(3600)));
        let what = (outcome.ended, outcome.looked_after, outcome.superseded);
        assert_eq!(what, (Ended::Stored, true, false), "seed {seed}");
        net.run(S(4000));
        let view = net.nodes[9].dht.published()[0].clone();
        assert_eq!((view.state, view.live >= 10), (SetState::Healthy, true), "seed {seed}: {view:?}");
        net.nodes[3].manner = Manner::Gone;
        net.run(S(3 * 3600));
        assert!(get(&mut net, 50, shorter.target()).is_some(), "seed {seed}");
    }
}

/// A message that its recipient has read is delivered: its sender looks after it no more.
#[test]
fn a_message_that_was_read_is_published_no_more() {
    let mut net = planted(19, 60);
    let place = Place::Mailbox { recipient: *net.nodes[9].contact.peer(), slot: 0 };
    let week = unix(&net) + 7 * 24 * 3600;
    let message = sign(&net.key(3), place.clone(), 5, week, b"sealed");
    assert!(publish(&mut net, 3, &message, None).looked_after);
    net.run(S(1000));
    assert_eq!(net.nodes[3].dht.published()[0].state, SetState::Healthy);
    let rules = MailboxRules { policy: MailboxPolicy::Open { work_bits: 0 }, cleared: vec![message.id()] };
    let rules = Record::sign(&net.key(9), &network(), Draft::new(place, 6, week, rules.encode())).unwrap();
    publish(&mut net, 9, &rules, None);
    net.run(S(2 * 3600));
    assert!(net.nodes[3].dht.published().is_empty(), "{:?}", net.nodes[3].dht.published());
}

#[test]
fn a_tombstone_is_not_renewed() {
    let mut net = planted(20, 40);
    let [record, _] = two_versions(&net, 7);
    publish(&mut net, 7, &record, Some(S(7200)));
    let tombstone = sign(&net.key(7), value_place(&net, 7), 2, unix(&net) + 7200, b"");
    publish(&mut net, 7, &tombstone, Some(S(7200)));
    net.run(S(3600));
    assert_eq!((net.nodes[7].dht.published().len(), net.nodes[7].dht.published()[0].renews), (1, None));
    assert_eq!(get(&mut net, 30, record.target()), Some(tombstone.to_bytes()));
    net.run(S(5500));
    assert!(net.nodes[7].dht.published().is_empty());
    assert_eq!(get(&mut net, 30, record.target()), None);
}

#[test]
fn a_store_that_returns_early_says_so_and_tells_the_final_counts() {
    let mut net = planted(21, 200);
    let [record, _] = two_versions(&net, 7);
    let outcome = publish(&mut net, 7, &record, None);
    assert!(outcome.unsettled && outcome.looked_after && outcome.ended == Ended::Stored);
    net.run(S(30));
    let (_, last) = net.nodes[7].settled.pop().unwrap();
    assert!(!last.unsettled && last.stored.len() > outcome.stored.len());
    assert!(last.stored.len() >= 12, "{}", last.stored.len());
}

/// what holders answered with is proof enough.
#[test]
fn a_reader_is_shown_that_a_publisher_has_said_two_things_at_once() {
    let mut net = planted(22, 60);
    let (key, place) = (net.key(7), value_place(&net, 7));
    let records = [&b"blue"[..], b"red"].map(|body| sign(&key, place.clone(), 1, unix(&net) + 7200, body));
    for record in &records {
        let (target, value) = (record.target().clone(), record.to_bytes());
        net.find(7, Operation::Put { target, value, replicas: 12 });
        net.run(S(5));
    }
    let outcome = net.find(40, Operation::Get { target: records[0].target().clone() });
    let proof = outcome.equivocation.unwrap();
    assert_eq!(proof.publisher, *net.nodes[7].contact.peer());
    assert!(records.iter().all(|record| proof.values.contains(&record.to_bytes())));
    let other = net.find(40, Operation::Get { target: Target::new(b"/acme/value/none").unwrap() });
    assert_eq!(other.equivocation, None);
}

// AL-54: a holder tells of a change as soon as it has it, and nobody asks meanwhile.
#[test]
fn a_change_is_told_as_soon_as_a_holder_has_it() {
    for seed in 13..=15 {
        let mut net = planted(seed, 150);
        let (key, place) = (net.key(7), value_place(&net, 7));
        let old = sign(&key, place.clone(), 1, unix(&net) + 7200, b"blue");
        publish(&mut net, 7, &old, None);
        net.run(S(20));
        let rank = Bytes::copy_from_slice(&old.version().to_bytes());
        let known = Some(Judged { slot: old.slot(), rank, is_final: false });
        let wanted = Operation::Changed { target: old.target().clone(), known };
        let operation = net.start(60, wanted, Options { deadline: Some(S(900)), ..Options::default() });
        net.run(S(70));
        let waiting: usize = net.nodes.iter().map(|node| node.dht.standing(net.time()).watchers).sum();
        assert_eq!((waiting, net.nodes[60].done.len()), (3, 0), "seed {seed}");
        let new = sign(&key, place, 2, unix(&net) + 7200, b"red");
        let begun = net.now;
        let wanted = Operation::Publish { record: Box::new(new.clone()), renew: None };
        net.start(7, wanted, Options::default());
        let outcome = net.outcome(60, operation);
        let took = net.now - begun;
        assert_eq!((outcome.ended, &outcome.values[0].value), (Ended::Found, &new.to_bytes()), "seed {seed}");
        assert!(took < S(2), "seed {seed}: {took:?} with the lookup of the publisher");
        net.run(S(90));
        assert_eq!(net.nodes.iter().map(|node| node.dht.standing(net.time()).watchers).sum::<usize>(), 0);
    }
}
