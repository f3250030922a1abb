//! How an overlay forms, heals and refuses.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_identity::DialAddress;
use peerage_machine::Machine;
use peerage_peers::{
    Blame, ConnId, Direction, ForeignPolicy, HelloFacts, Input, PeerEvent, PeersConfig, RejectReason, Role,
    Target, Ticket,
};

use crate::support::{Wire, World, secs};

#[test]
fn nodes_that_know_one_address_find_one_another_and_form_a_full_mesh() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let config = PeersConfig { max_inbound: 40, max_outbound: 40, ..Default::default() };
        let count = 12;
        for _ in 0..count {
            world.add(config.clone());
        }
        for node in 1..count {
            world.seed_with(node, 0, Role::Seed);
        }
        world.run_for(secs(20));
        for node in 0..count {
            assert_eq!(world.peers_of(node).len(), count - 1, "seed {seed}, node {node}");
        }
        world.assert_agreement();
    }
}

/// the limits that are set hold, inbound and outbound apart.
#[test]
fn limits_hold_at_every_node_and_refused_nodes_find_others() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let config = PeersConfig { max_inbound: 6, max_outbound: 3, ..Default::default() };
        let count = 30;
        for _ in 0..count {
            world.add(config.clone());
        }
        for node in 1..count {
            world.seed_with(node, 0, Role::Seed);
        }
        for _ in 0..120 {
            world.run_for(secs(1));
            for node in &world.nodes {
                let count = |direction| node.manager.connected().filter(|p| p.direction == direction).count();
                assert!(count(Direction::Inbound) <= 6, "seed {seed}");
                assert!(count(Direction::Outbound) <= 3, "seed {seed}");
            }
        }
        world.assert_agreement();
        let mut reached = BTreeSet::from([0]);
        let mut frontier = vec![0];
        while let Some(node) = frontier.pop() {
            frontier.extend(world.peers_of(node).into_iter().filter(|peer| reached.insert(*peer)));
        }
        assert_eq!(reached.len(), count, "seed {seed}: the overlay is in pieces");
    }
}

#[test]
fn a_killed_node_is_redialled_and_reconnected_without_being_told_any_address() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for _ in 0..5 {
            world.add(PeersConfig::default());
        }
        for node in 1..5 {
            world.seed_with(node, 0, Role::Seed);
        }
        world.run_for(secs(10));
        world.crash(4);
        world.notice(4, secs(3));
        world.run_for(secs(3) + Duration::from_millis(1));
        for node in 0..4 {
            let lost = |event: &PeerEvent| matches!(event, PeerEvent::Disconnected { peer, redial_in: Some(_), .. } if *peer == world.id(4));
            assert!(
                world.nodes[node].events.iter().any(|(_, event)| lost(event)),
                "seed {seed}, node {node}"
            );
        }
        world.restart(4);
        world.run_for(secs(10));
        assert!(!world.peers_of(4).is_empty(), "seed {seed}: nobody redialled");
        world.run_for(secs(30));
        assert_eq!(world.peers_of(4).len(), 4, "seed {seed}");
        world.assert_agreement();
    }
}

/// Contract C-34.
#[test]
fn a_persistent_peer_is_redialled_for_ever_with_bounded_delays_and_outside_the_limits() {
    let mut world = World::new(7);
    let config = PeersConfig { max_outbound: 0, ..Default::default() };
    let (a, b) = (world.add(config), world.add(PeersConfig::default()));
    world.crash(b);
    world.seed_with(a, b, Role::Persistent);
    world.run_for(secs(6 * 3600));
    let dials = &world.nodes[a].dials;
    assert!(dials.len() > 30, "{}", dials.len());
    for pair in dials.windows(2) {
        let gap = pair[1].0 - pair[0].0;
        // The dial itself takes five seconds.
        assert!(gap >= secs(5) && gap <= secs(606), "{gap:?}");
    }
    world.restart(b);
    world.run_for(secs(620));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
}

#[test]
fn a_node_that_dials_itself_notices_and_does_not_try_again() {
    let mut world = World::new(1);
    let a = world.add(PeersConfig::default());
    let address = DialAddress::from_socket_addr(world.nodes[a].address).unwrap();
    world.give(a, Input::Add { address, role: Role::Seed });
    world.run_for(secs(600));
    assert_eq!(world.nodes[a].dials.len(), 1);
    assert_eq!(world.peers_of(a), BTreeSet::new());
}

#[test]
fn a_peer_of_another_network_is_refused_with_its_reason_on_both_sides() {
    let mut world = World::new(1);
    let (a, b) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.nodes[b].network = "other";
    let address = world.address(b);
    world.give(a, Input::Connect { ticket: Ticket(1), target: Target::Address(address) });
    world.run_for(secs(5));
    let failure = world.nodes[a].answers[&Ticket(1)].clone().unwrap_err();
    assert!(failure.detail.contains("in another network"), "{failure}");
    assert_eq!(world.peers_of(a), BTreeSet::new());
    let refused = |(_, event): &(Duration, PeerEvent)| {
        matches!(event, PeerEvent::Refused { reason: RejectReason::WrongNetwork, .. })
    };
    assert!(world.nodes[b].events.iter().any(refused) || world.nodes[a].events.iter().any(refused));
}

#[test]
fn an_explicit_connect_ends_in_the_peer_or_in_the_reason() {
    let mut world = World::new(3);
    let config = PeersConfig { max_outbound: 0, ..Default::default() };
    let (a, b, dead) = (world.add(config.clone()), world.add(config.clone()), world.add(config));
    world.crash(dead);
    let connect =
        |ticket, address| Input::Connect { ticket: Ticket(ticket), target: Target::Address(address) };
    let (good, no_one) = (world.address(b), world.address(dead));
    let wrong = world.address(b).without_peer_id().with_peer_id(world.id(dead)).unwrap();
    world.give(a, connect(1, good.clone()));
    world.give(a, connect(2, no_one));
    world.give(a, connect(3, wrong));
    let (unknown, me) = (world.nodes[dead].key.peer_id(), world.id(a));
    world.give(a, Input::Connect { ticket: Ticket(4), target: Target::Peer(me) });
    world.give(b, Input::Connect { ticket: Ticket(5), target: Target::Peer(unknown) });
    world.run_for(secs(6));
    world.give(a, connect(6, good));
    let answers = &world.nodes[a].answers;
    assert_eq!(answers[&Ticket(1)], Ok(world.id(b)));
    assert_eq!(answers[&Ticket(6)], Ok(world.id(b)));
    assert_eq!(answers[&Ticket(2)].clone().unwrap_err().blame(), Blame::Unlucky);
    assert_eq!(answers[&Ticket(3)].clone().unwrap_err().blame(), Blame::Hostile);
    assert!(answers[&Ticket(4)].clone().unwrap_err().detail.contains("this node itself"));
    assert!(world.nodes[b].answers[&Ticket(5)].clone().unwrap_err().detail.contains("peers().add"));
}

#[test]
fn a_disconnected_peer_stays_away_until_it_is_named_again() {
    let mut world = World::new(2);
    let (a, b) =
        (world.add(PeersConfig::default()), world.add(PeersConfig { max_outbound: 0, ..Default::default() }));
    world.seed_with(a, b, Role::Seed);
    world.run_for(secs(2));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
    let peer = world.id(b);
    world.give(a, Input::Disconnect { peer });
    world.run_for(secs(1200));
    assert_eq!(world.peers_of(a), BTreeSet::new());
    assert_eq!(world.peers_of(b), BTreeSet::new());
    world.seed_with(a, b, Role::Known);
    world.run_for(secs(2));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
}

#[test]
fn a_foreign_peer_is_admitted_or_turned_away_by_policy() {
    for (policy, admitted) in [(ForeignPolicy::Allow, 1), (ForeignPolicy::Refuse, 0)] {
        let mut world = World::new(2);
        let a = world.add(PeersConfig { foreign: Some(policy), ..Default::default() });
        let b = world.add(PeersConfig::default());
        let (peer, remote, conn) = (world.id(b), world.nodes[b].address, ConnId(900));
        world.wires.insert(conn, Wire { ends: [b, a], boots: [1, 1], open: false });
        world.give(a, Input::Handshaken { conn, peer, direction: Direction::Inbound, remote, attempt: None });
        world.give(a, Input::Foreign { conn });
        assert_eq!(world.nodes[a].manager.connected().filter(|peer| peer.foreign).count(), admitted);
    }
}

/// nor does a hello that comes out of turn.
#[test]
fn a_second_hello_or_its_denial_changes_nothing_for_an_admitted_peer() {
    let mut world = World::new(4);
    let (a, b) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.seed_with(a, b, Role::Seed);
    world.run_for(secs(2));
    let conn = world.nodes[a].manager.connected().next().unwrap().conn;
    let record = Some(world.nodes[b].record.clone());
    let hello = HelloFacts { boot_nonce: 99, order: 99, record, observed: None, visit: false, problem: None };
    world.give(a, Input::Hello { conn, hello });
    world.give(a, Input::Foreign { conn });
    world.run_for(secs(2));
    let peer = world.nodes[a].manager.connected().next().unwrap();
    assert_eq!((peer.conn, peer.foreign), (conn, false));
    world.assert_agreement();
}

/// an idle loop uses no CPU; waiting for a due time is a timer, not polling.
#[test]
fn a_node_without_peers_is_woken_by_nothing() {
    let mut world = World::new(5);
    let a = world.add(PeersConfig::default());
    world.run_for(secs(60));
    assert_eq!(world.nodes[a].wakes, 0);
    assert_eq!(world.nodes[a].manager.poll_timeout(), None);
}

#[test]
fn a_shut_down_manager_dials_nobody_and_admits_nobody() {
    let mut world = World::new(5);
    let (a, b) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.give(a, Input::ShutDown);
    world.seed_with(a, b, Role::Seed);
    world.seed_with(b, a, Role::Seed);
    world.run_for(secs(30));
    assert_eq!(world.nodes[a].dials.len(), 0);
    assert_eq!(world.peers_of(b), BTreeSet::new());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        for _ in 0..8 {
            world.add(PeersConfig::default());
        }
        for node in 1..8 {
            world.seed_with(node, 0, Role::Seed);
        }
        world.run_for(secs(60));
        world.nodes.iter().map(|node| format!("{:?}", node.events)).collect::<Vec<_>>()
    };
    assert_eq!(run(11), run(11));
}
