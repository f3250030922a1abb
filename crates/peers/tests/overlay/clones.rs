//! Nodes that meet themselves, and nodes that share a key.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{NodeKey, SignedPeerRecord};
use peerage_peers::{Input, PeerEvent, PeersConfig, RejectReason, Role};

use crate::support::{World, secs};

fn count(world: &World, node: usize, is: impl Fn(&PeerEvent) -> bool) -> usize {
    world.nodes[node].events.iter().filter(|(_, event)| is(event)).count()
}

/// Two running nodes with one key: nothing flaps, and everybody who can know it says so once.
/// Contract C-21.
#[test]
fn of_two_nodes_with_one_key_the_later_keeps_its_place_and_nothing_flaps() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let thirds: Vec<_> =
            (0..3).map(|_| world.add(PeersConfig { max_outbound: 0, ..Default::default() })).collect();
        let key = NodeKey::from_seed([9; 32]);
        let clones = [1, 2].map(|host| {
            let address = SocketAddr::from(([70, 0, host, 1], 4000));
            world.add_with_key(PeersConfig::default(), address, key.clone())
        });
        let start = |world: &mut World, clone| {
            thirds.iter().for_each(|third| world.seed_with(clone, *third, Role::Persistent));
        };
        start(&mut world, clones[0]);
        world.run_for(secs(5));
        start(&mut world, clones[1]);
        world.run_for(secs(3600));
        let peer = key.peer_id();
        for third in &thirds {
            let came = count(&world, *third, |event| matches!(event, PeerEvent::Connected { .. }));
            assert_eq!(came, 2, "seed {seed}: the first, and the later one in its place");
            let said = count(&world, *third, |event| matches!(event, PeerEvent::PeerCloned { .. }));
            assert_eq!(said, 1, "seed {seed}");
        }
        assert_eq!(world.peers_of(clones[1]).len(), 3, "seed {seed}: the later one has the places");
        let told = |event: &PeerEvent| matches!(event, PeerEvent::CloneSeen { told_by: Some(_), .. });
        assert_eq!(count(&world, clones[0], told), 1, "seed {seed}: the earlier one says it once");
        let attempts = world.nodes[clones[0]].dials.len();
        assert!(attempts < 3 * 70, "seed {seed}: {attempts} dials in an hour for three peers");
        // The operator stops the later one: the earlier one is back within the patience and a backoff.
        world.crash(clones[1]);
        world.notice(clones[1], secs(3));
        world.run_for(secs(800));
        assert_eq!(world.peers_of(clones[0]).len(), 3, "seed {seed}");
        assert!(world.nodes[thirds[0]].manager.connected().any(|connected| connected.peer == peer));
    }
}

/// A restart is no clone, however often it happens and whoever dials.
#[test]
fn a_node_that_restarts_again_and_again_takes_its_place_at_once() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let third = world.add(PeersConfig::default());
        let node = world.add(PeersConfig::default());
        world.seed_with(node, third, Role::Persistent);
        world.run_for(secs(2));
        for _ in 0..20 {
            world.crash(node);
            world.run_for(Duration::from_millis(500));
            world.restart(node);
            world.seed_with(node, third, Role::Persistent);
            world.run_for(secs(2));
            assert_eq!(world.peers_of(third), BTreeSet::from([node]), "seed {seed}");
        }
        assert_eq!(count(&world, third, |event| matches!(event, PeerEvent::PeerCloned { .. })), 0);
        world.assert_agreement();
    }
}

#[test]
fn two_nodes_with_one_key_that_meet_each_say_so_once() {
    let mut world = World::new(1);
    let key = NodeKey::from_seed([9; 32]);
    let clones = [1, 2].map(|host| {
        let address = SocketAddr::from(([70, 0, host, 1], 4000));
        world.add_with_key(PeersConfig::default(), address, key.clone())
    });
    let address = world.address(clones[1]).without_peer_id();
    for _ in 0..3 {
        world.give(clones[0], Input::Add { address: address.clone(), role: Role::Seed });
        world.run_for(secs(100));
    }
    for clone in clones {
        let met = |event: &PeerEvent| matches!(event, PeerEvent::CloneSeen { told_by: None, .. });
        assert_eq!(count(&world, clone, met), 1);
    }
    assert!(world.refusals.iter().all(|refusal| refusal.reason == RejectReason::Clone));
}

/// a node recognises itself at any address, tries it once, and does not remember it as somebody else's.
#[test]
fn a_node_that_is_told_its_own_address_under_other_names_dials_it_once() {
    let mut world = World::new(2);
    let a = world.add(PeersConfig::default());
    let liar = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    let own = world.address(a).without_peer_id();
    world.give(a, Input::Add { address: own.clone(), role: Role::Seed });
    world.run_for(secs(10));
    let to_itself =
        |world: &World| world.nodes[a].dials.iter().filter(|(_, at)| at.same_endpoint(&own)).count();
    assert_eq!(to_itself(&world), 1);
    let records = (0..20).map(|number| {
        SignedPeerRecord::sign(&world.stranger_key(number), 1, std::slice::from_ref(&own)).unwrap()
    });
    let records: Vec<_> = records.collect();
    world.nodes[liar].says = Some(records);
    world.seed_with(a, liar, Role::Seed);
    world.run_for(secs(1800));
    assert_eq!(world.peers_of(a), BTreeSet::from([liar]));
    assert_eq!((to_itself(&world), world.nodes[a].manager.known_peers()), (1, 1));
    // It moves, and later another node lives where it was: nothing is held against the address.
    world.nodes[a].address = SocketAddr::from(([60, 9, 9, 9], 4000));
    world.nodes[liar].says = Some(Vec::new());
    world.run_for(secs(3600));
    let passive = PeersConfig { max_outbound: 0, ..Default::default() };
    let successor = world.add_at(passive, own.socket_addr().unwrap());
    world.nodes[liar].says = Some(vec![world.nodes[successor].record.clone()]);
    world.run_for(secs(300));
    let why = world.nodes[a].manager.why(world.now(), &world.id(successor));
    assert_eq!(world.peers_of(a), BTreeSet::from([liar, successor]), "{why}");
}

/// what a node announces is not dialled under any name, without a first try.
#[test]
fn a_node_does_not_dial_what_it_announces() {
    let mut world = World::new(3);
    let a = world.add(PeersConfig::default());
    let liar = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    let own = world.address(a);
    world.give(a, Input::Announced { addresses: vec![own.clone()] });
    let own = own.without_peer_id();
    let record = SignedPeerRecord::sign(&world.stranger_key(1), 1, std::slice::from_ref(&own)).unwrap();
    world.nodes[liar].says = Some(vec![record]);
    world.seed_with(a, liar, Role::Seed);
    world.run_for(secs(600));
    assert!(world.nodes[a].dials.iter().all(|(_, at)| !at.same_endpoint(&own)));
}
