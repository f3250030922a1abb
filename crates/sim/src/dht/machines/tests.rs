//! Each rule that is checked while a run goes on can be broken, and is then told.

use peerage_dht::record::{Draft, Place, Record, RecordsConfig, Version};
use peerage_dht::replication::Digest;
use peerage_dht::{Operation, OperationId, Options, Target};

use super::*;
use crate::dht::queue::SECOND;

/// A network of machines that hold records, with all checks on.
fn network() -> World {
    let records = Some(Arc::new(RecordsConfig::default()));
    World::standing(Setting { checks: true, records, ..Setting::new(40, 1) })
}

fn closest() -> Operation {
    Operation::Closest { target: Target::new(b"somewhere").unwrap() }
}

/// A record that stands at its holders, and one of these.
fn kept(world: &mut World) -> (Record, u32) {
    let record = world.sign(7, "kept", 2, 3_600, Bytes::from_static(b"kept")).unwrap();
    world.plant(&record, 12);
    let holder = world.holders(&record)[0];
    (record, holder)
}

/// What is told of a network of which one thing is spoilt after a while.
fn spoilt(spoil: impl FnOnce(&mut World)) -> String {
    let mut world = network();
    for node in 0..5 {
        world.start(node, closest(), Options::default());
    }
    assert_eq!(world.gather(30 * SECOND).len(), 5);
    world.look_at_records();
    assert_eq!(world.broken_at_the_end(), None);
    spoil(&mut world);
    world.look_at_records();
    world.broken_at_the_end().expect("it is told")
}

#[test]
fn an_answer_that_names_a_stranger_is_told() {
    let told = spoilt(|world| {
        let closer = vec![super::super::still::contact(77, super::super::still::peer_id(9, 9))];
        let answer = Answer { closer, ..Answer::default() };
        world.look_at_names(3, QueryId(world.last), &answer);
    });
    assert!(told.contains("node 3") && told.contains("whom it may not"), "{told}");
}

#[test]
fn a_request_that_is_not_accounted_for_is_told() {
    let told = spoilt(|world| {
        let (operation, now) = (OperationId(1 << 50), world.clock());
        let dht = world.nodes[3].dht.as_mut().unwrap();
        dht.handle(now, Input::Start { operation, wanted: closest(), options: Options::default() });
        while dht.poll_output().is_some() {}
    });
    assert!(told.contains("node 3") && told.contains("it says"), "{told}");
}

#[test]
fn an_operation_that_goes_on_after_its_deadline_is_told() {
    let told = spoilt(|world| {
        let number = world.start(3, closest(), Options::default());
        // Nobody wakes its machine.
        world.queue = Queue::default();
        world.now += 11 * SECOND;
        assert!(world.operations.contains_key(&number));
    });
    assert!(told.contains("node 3") && told.contains("after its deadline"), "{told}");
}

#[test]
fn the_accounts_are_looked_at_once_in_a_second_though_nothing_happens_at_a_node() {
    let mut world = network();
    world.gather(30 * SECOND);
    let (operation, now) = (OperationId(1 << 50), world.clock());
    let dht = world.nodes[3].dht.as_mut().unwrap();
    dht.handle(now, Input::Start { operation, wanted: closest(), options: Options::default() });
    while dht.poll_output().is_some() {}
    world.call_at(32 * SECOND, 1);
    world.gather(33 * SECOND);
    assert!(world.broken.is_some_and(|told| told.contains("node 3") && told.contains("it says")));
}

#[test]
fn a_record_that_nobody_signed_or_not_so_is_told() {
    let told = spoilt(|world| {
        let key = world.key_of(7);
        let place = Place::Value { publisher: key.peer_id(), salt: Bytes::from_static(b"made up") };
        let not_after = world.clock().unix.as_secs() + 3_600;
        let draft = Draft::new(place, 1, not_after, Bytes::from_static(b"made up"));
        let record = Record::sign(&key, &records::network(), draft).unwrap();
        world.plant(&record, 12);
    });
    assert!(told.contains("which nobody signed"), "{told}");
    let told = spoilt(|world| {
        let (record, _) = kept(world);
        let versions = &mut world.audit.signed.get_mut(&record.id()).unwrap().1;
        versions.insert(*record.version(), Bytes::from_static(b"something else"));
    });
    assert!(told.contains("not as it was signed"), "{told}");
}

#[test]
fn a_record_that_should_be_gone_and_one_that_went_back_are_told() {
    let told = spoilt(|world| {
        let (_, holder) = kept(world);
        world.nodes[holder as usize].clock_ahead = 3_600 + 61;
    });
    assert!(told.contains("expired 61 s ago"), "{told}");
    let told = spoilt(|world| {
        let (record, holder) = kept(world);
        let newer = Version { seq: 3, ..*record.version() };
        let start = world.nodes[holder as usize].starts;
        world.audit.shown.insert((holder, start, record.id()), newer);
    });
    assert!(told.contains("after Version"), "{told}");
}

#[test]
fn equal_digests_of_other_records_are_told() {
    let mut world = network();
    let (record, _) = kept(&mut world);
    let set = vec![(record.id(), *record.version())];
    let digest = Digest::of(set.iter().map(|(id, version)| (id, version)));
    let mut known = audit::Digests::default();
    assert_eq!((known.agree(digest, set.clone()), known.agree(digest, set)), (Ok(()), Ok(())));
    assert!(known.agree(digest, Vec::new()).is_err());
}

/// What a machine does by itself is its upkeep, however urgent: a user's questions alone are not.
#[test]
fn lookups_that_nobody_asked_for_are_upkeep() {
    let mut world = World::standing(Setting::new(40, 1));
    world.start(0, closest(), Options::default());
    world.gather(2 * SECOND);
    let meter = world.nodes[0].meter;
    assert!(meter.users > 0 && meter.joins == 0, "{meter:?}");
    let known = vec![world.nodes[5].contact.clone()];
    world.stop_node(1);
    world.nodes[1].meter = Meter::default();
    world.start_node(1, known, Source::Book);
    world.gather(4 * SECOND);
    let meter = world.nodes[1].meter;
    assert!(meter.joins > 0 && meter.upkeep >= meter.joins && meter.users == 0, "{meter:?}");
}

#[test]
fn a_node_that_is_killed_comes_back_with_what_its_disk_holds() {
    let mut world = network();
    world.give_disks();
    let (record, holder) = kept(&mut world);
    world.gather(10 * SECOND);
    world.restart_node(holder);
    assert!(world.holders(&record).contains(&holder));
    // It knows whom it knew, and joins with them.
    let joined = std::iter::from_fn(|| world.run_until(20 * SECOND))
        .any(|happened| matches!(happened, Happened::Event(node, peerage_dht::Event::Joined { .. }) if node == holder));
    assert!(joined);
    // Without a disk nothing of it is left.
    world.nodes[holder as usize].disk = None;
    world.restart_node(holder);
    assert!(!world.holders(&record).contains(&holder));
}
