//! Who gets a place, and what those are told who don't.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{IpPrefix, SignedPeerRecord};
use peerage_machine::Machine;
use peerage_peers::{
    CloseReason, ConnId, Direction, DoorState, Input, PeerClass, PeerEvent, PeersConfig, RejectReason, Role,
    Target, Ticket,
};

use crate::support::{World, secs};

/// A node that dials nobody but whom it is told to.
fn passive() -> PeersConfig {
    PeersConfig { max_outbound: 0, ..Default::default() }
}

/// Every node of `from` connects to `to` now.
fn all_connect(world: &mut World, from: &[usize], to: usize) {
    for node in from {
        let address = world.address(to);
        world.give(*node, Input::Connect { ticket: Ticket(1), target: Target::Address(address) });
    }
}

fn inbound(world: &World, node: usize) -> usize {
    world.nodes[node].manager.connected().filter(|peer| peer.direction == Direction::Inbound).count()
}

/// caps count handshakes in progress and hold at the moment of connecting, whatever comes at once.
/// Contract C-33.
#[test]
fn a_burst_of_handshakes_never_exceeds_the_caps_per_node_address_and_subnet() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let config = PeersConfig { max_inbound: 25, ..passive() };
        let hub = world.add(config);
        let mut diallers = Vec::new();
        for index in 0..60u16 {
            // Twenty at one address, twenty more in its subnet, twenty elsewhere.
            let address = match index {
                0..20 => SocketAddr::from(([30, 0, 0, 1], 4000 + index)),
                20..40 => SocketAddr::from(([30, 0, 0, index as u8], 4000)),
                _ => SocketAddr::from(([30, 1, index as u8, 1], 4000)),
            };
            diallers.push(world.add_at(passive(), address));
        }
        all_connect(&mut world, &diallers, hub);
        for _ in 0..400 {
            world.run_for(Duration::from_millis(5));
            let (mut addresses, mut subnets) = (BTreeMap::new(), BTreeMap::new());
            for peer in world.nodes[hub].manager.connected() {
                *addresses.entry(IpPrefix::address_of(peer.address.ip())).or_insert(0) += 1;
                *subnets.entry(IpPrefix::subnet_of(peer.address.ip())).or_insert(0) += 1;
            }
            assert!(inbound(&world, hub) <= 25, "seed {seed}");
            assert!(addresses.values().all(|count| *count <= 8), "seed {seed}: {addresses:?}");
            assert!(subnets.values().all(|count| *count <= 16), "seed {seed}: {subnets:?}");
        }
        assert_eq!(inbound(&world, hub), 25, "seed {seed}: the places are used");
        world.assert_agreement();
    }
}

///
#[test]
fn an_ipv6_64_counts_as_one_address_and_loopback_is_exempt() {
    let mut world = World::new(1);
    let (hub, local) = (world.add(passive()), world.add(passive()));
    let mut diallers = (Vec::new(), Vec::new());
    for index in 0..20u16 {
        let one_64 = format!("[2600:1:2:3::{index:x}]:4000").parse().unwrap();
        diallers.0.push(world.add_at(passive(), one_64));
        diallers.1.push(world.add_at(passive(), SocketAddr::from(([127, 0, 0, 1], 5000 + index))));
    }
    all_connect(&mut world, &diallers.0, hub);
    all_connect(&mut world, &diallers.1, local);
    world.run_for(secs(3));
    assert_eq!((inbound(&world, hub), inbound(&world, local)), (8, 20));
}

/// privileged peers are exempt, from the moment at which the user says so.
#[test]
fn persistent_and_unconditional_peers_are_admitted_at_a_full_node_and_count_for_nobody() {
    let mut world = World::new(2);
    let hub = world.add(PeersConfig { max_inbound: 2, ..passive() });
    let nodes: Vec<_> = (0..6).map(|_| world.add(passive())).collect();
    all_connect(&mut world, &nodes[..2], hub);
    world.run_for(secs(2));
    let (persistent, unconditional) = (world.id(nodes[2]), world.id(nodes[3]));
    world.give(hub, Input::SetClass { peer: persistent, class: PeerClass::Persistent, on: true });
    world.give(hub, Input::SetClass { peer: unconditional, class: PeerClass::Unconditional, on: true });
    all_connect(&mut world, &nodes[2..5], hub);
    world.run_for(secs(2));
    assert_eq!(world.peers_of(hub), nodes[..4].iter().copied().collect::<BTreeSet<_>>());
    // Without the class the peer counts, and nobody is sent away for it.
    world.give(hub, Input::SetClass { peer: unconditional, class: PeerClass::Unconditional, on: false });
    let first = world.id(nodes[0]);
    world.give(hub, Input::Disconnect { peer: first });
    all_connect(&mut world, &nodes[5..], hub);
    world.run_for(secs(2));
    assert_eq!(world.peers_of(hub), nodes[1..4].iter().copied().collect::<BTreeSet<_>>());
}

#[test]
fn a_peer_made_persistent_at_run_time_is_redialled_for_ever_until_it_is_unmade() {
    let mut world = World::new(3);
    let (a, b) = (world.add(PeersConfig::default()), world.add(passive()));
    world.seed_with(a, b, Role::Known);
    world.run_for(secs(2));
    let peer = world.id(b);
    world.give(a, Input::SetClass { peer, class: PeerClass::Persistent, on: true });
    world.crash(b);
    world.notice(b, secs(1));
    world.run_for(secs(4 * 3600));
    let while_persistent = world.nodes[a].dials.len();
    assert!(while_persistent > 20, "{while_persistent}");
    assert_eq!(world.nodes[a].manager.classes().collect::<Vec<_>>(), [(peer, PeerClass::Persistent)]);
    world.give(a, Input::SetClass { peer, class: PeerClass::Persistent, on: false });
    world.restart(b);
    world.run_for(secs(1300));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]), "it is still a known peer");
}

/// a peer that connects and says nothing delays nobody, and the number of such peers is bounded.
#[test]
fn silent_connections_are_bounded_and_delay_nobody() {
    let mut world = World::new(4);
    let config = PeersConfig { max_inbound_greetings: 20, ..passive() };
    let (hub, honest, stranger) = (world.add(config), world.add(passive()), world.add(passive()));
    for index in 0..2000u64 {
        let (conn, peer) = (ConnId(1_000_000 + index), world.stranger(index));
        // Half of them from one subnet.
        let far = [40, (index / 250) as u8, (index % 250) as u8, 1];
        let remote = SocketAddr::from((if index % 2 == 0 { [40, 0, 0, 1] } else { far }, 4000));
        let (direction, attempt) = (Direction::Inbound, None);
        world.give(hub, Input::Handshaken { conn, peer, direction, remote, attempt });
        if index == 1000 {
            all_connect(&mut world, &[honest], hub);
            world.run_for(secs(1));
        }
    }
    all_connect(&mut world, &[stranger], hub);
    world.run_for(secs(1));
    assert_eq!(world.peers_of(hub), BTreeSet::from([honest, stranger]));
    let closed = &world.nodes[hub].closed;
    assert!(closed.iter().all(|(_, reason)| *reason == CloseReason::Overloaded));
    assert!(closed.len() >= 2000 - 20, "{}", closed.len());
}

/// who is refused is told why, when to come back, and whom else to try.
#[test]
fn a_full_node_names_diverse_alternatives_and_the_refused_dialler_finds_its_place_there() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let hub = world.add(PeersConfig { max_inbound: 24, max_inbound_per_subnet: 24, ..passive() });
        let config = PeersConfig { max_outbound: 1, ..Default::default() };
        for index in 0..24u8 {
            // Sixteen neighbours, and eight that live elsewhere.
            let address = if index < 16 { [50, 0, 0, index + 1] } else { [50, 1, index, 1] };
            let node = world.add_at(config.clone(), SocketAddr::from((address, 4000)));
            world.seed_with(node, hub, Role::Seed);
        }
        world.run_for(secs(5));
        assert_eq!(inbound(&world, hub), 24);
        let late = world.add(config);
        world.seed_with(late, hub, Role::Seed);
        world.run_for(secs(5));
        let refusal = world.refusals.iter().find(|refusal| refusal.to == late).unwrap();
        assert_eq!((refusal.from, refusal.reason), (hub, RejectReason::Full));
        assert!((secs(30)..=secs(60)).contains(&refusal.retry_after.unwrap()), "{:?}", refusal.retry_after);
        assert!((3..=8).contains(&refusal.alternatives.len()), "{}", refusal.alternatives.len());
        let mut subnets = BTreeMap::new();
        for record in &refusal.alternatives {
            let ip = record.addresses()[0].socket_addr().unwrap().ip();
            *subnets.entry(IpPrefix::subnet_of(ip)).or_insert(0) += 1;
        }
        assert!(subnets.values().all(|count| *count <= 2), "seed {seed}: {subnets:?}");
        let alternatives = refusal.alternatives.iter().map(SignedPeerRecord::peer_id).collect();
        let told = PeerEvent::RefusedByPeer { peer: world.id(hub), reason: RejectReason::Full, alternatives };
        assert!(world.nodes[late].events.iter().any(|(_, event)| *event == told), "seed {seed}");
        assert_eq!(world.peers_of(late).len(), 1, "seed {seed}: it took an alternative");
        assert!(!world.peers_of(late).contains(&hub));
    }
}

/// a seed that is full is tried again soon by who knows nobody else, and sooner where it could name no other.
#[test]
fn whom_a_full_seed_can_name_nobody_comes_back_soon_and_finds_its_place() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let few = PeersConfig { max_inbound: 8, refusal_burst: 4.0, refusals_per_second: 4.0, ..passive() };
        let hub = world.add(few);
        let crowd: Vec<_> = (0..40).map(|_| world.add(PeersConfig::default())).collect();
        for node in &crowd {
            world.seed_with(*node, hub, Role::Seed);
        }
        world.run_for(secs(2));
        let alone: Vec<_> = crowd.iter().filter(|node| world.peers_of(**node).is_empty()).copied().collect();
        assert!(alone.len() >= 8, "seed {seed}: only {} are alone at first", alone.len());
        let (named, unnamed): (Vec<_>, Vec<_>) =
            world.refusals.iter().partition(|r| !r.alternatives.is_empty());
        assert!(!unnamed.is_empty(), "seed {seed}: everybody was named others");
        for (refusals, least) in [(named, 30), (unnamed, 10)] {
            let told = refusals.iter().map(|refusal| refusal.retry_after.unwrap());
            told.for_each(|wait| assert!((secs(least)..=secs(2 * least)).contains(&wait), "{wait:?}"));
        }
        for node in &crowd {
            let waits = world.nodes[*node].events.iter().filter_map(|(_, event)| match event {
                PeerEvent::DialFailed { peer, retry_in, .. } if *peer == Some(world.id(hub)) => *retry_in,
                _ => None,
            });
            waits.for_each(|wait| {
                assert!(wait <= secs(30), "seed {seed}: {wait:?} until the seed is tried again")
            });
        }
        world.run_for(secs(58));
        let alone = crowd.iter().filter(|node| world.peers_of(**node).is_empty()).count();
        assert_eq!(alone, 0, "seed {seed}: {alone} nodes have no peer yet");
    }
}

/// What a refused dialler was told is tried, and not passed on before it was found true.
/// what was heard is passed on only after a dial has proved it.
#[test]
fn an_alternative_is_trusted_only_after_it_was_dialled() {
    let mut world = World::new(5);
    let hub = world.add(PeersConfig { max_inbound: 1, ..passive() });
    let (first, late) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.seed_with(first, hub, Role::Seed);
    world.run_for(secs(2));
    // The one that it will name is gone.
    world.crash(first);
    world.seed_with(late, hub, Role::Seed);
    world.run_for(secs(3));
    assert_eq!(world.nodes[late].manager.known_peers(), 2, "it was told of the first");
    let asker = world.add(passive());
    all_connect(&mut world, &[asker], late);
    world.run_for(secs(2));
    let (now, asker) = (world.now(), world.id(asker));
    let given = world.nodes[late].manager.answer_exchange(now, asker, 30).unwrap();
    let about = |bytes| SignedPeerRecord::verify(bytes).unwrap().peer_id();
    let given: Vec<_> = given.iter().map(about).collect();
    assert!(!given.contains(&world.id(first)), "hearsay was passed on");
    assert!(given.contains(&world.id(hub)), "what a handshake proved is passed on");
}

/// Beyond the budget of refusals strangers are refused before TLS, while persistent and unconditional peers are heard.
#[test]
fn a_full_node_under_a_storm_hears_only_whom_it_knows_until_the_budget_is_back() {
    let mut world = World::new(6);
    let config = PeersConfig { max_inbound: 1, refusal_burst: 8.0, refusals_per_second: 0.5, ..passive() };
    let hub = world.add(PeersConfig { max_inbound_visits: 0, ..config });
    let guest = world.add(passive());
    all_connect(&mut world, &[guest], hub);
    world.run_for(secs(2));
    let friend = world.add(passive());
    let peer = world.id(friend);
    let address = world.address(friend);
    world.give(hub, Input::SetClass { peer, class: PeerClass::Unconditional, on: true });
    // The user's word on where the friend is; it is down for now.
    world.crash(friend);
    world.give(hub, Input::Add { address, role: Role::Known });
    let storm: Vec<_> = (0..40).map(|_| world.add(passive())).collect();
    all_connect(&mut world, &storm, hub);
    world.run_for(secs(1));
    assert_eq!(world.nodes[hub].door.state, DoorState::KnownOnly);
    let with_alternatives =
        |world: &World| world.refusals.iter().filter(|r| !r.alternatives.is_empty()).count();
    assert!(with_alternatives(&world) <= 8);
    let refused = world.refusals.len();
    // The door holds for strangers, not for the friend.
    world.restart(friend);
    all_connect(&mut world, &storm, hub);
    all_connect(&mut world, &[friend], hub);
    world.run_for(secs(1));
    assert_eq!(world.refusals.len(), refused, "strangers were refused without a handshake");
    assert_eq!(world.peers_of(hub), BTreeSet::from([guest, friend]));
    // Two of eight are back after four seconds; a place that is free opens it at once.
    world.run_for(secs(4));
    assert_eq!(world.nodes[hub].door.state, DoorState::Open);
    all_connect(&mut world, &storm, hub);
    world.run_for(secs(1));
    assert_eq!(world.nodes[hub].door.state, DoorState::KnownOnly);
    let peer = world.id(guest);
    world.give(hub, Input::Disconnect { peer });
    assert_eq!(world.nodes[hub].door.state, DoorState::Open);
    world.give(hub, Input::ShutDown);
    assert_eq!(world.nodes[hub].door.state, DoorState::Closed);
    assert_eq!(world.nodes[hub].manager.poll_timeout(), None);
}

/// A private peer's ID and addresses stand in no message to anyone but itself: every record that crosses the wire is looked at.
/// Contract C-35.
#[test]
fn a_private_peer_is_never_told_to_others() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let config = PeersConfig { max_inbound: 6, max_outbound: 6, ..Default::default() };
        let nodes: Vec<_> = (0..16).map(|_| world.add(config.clone())).collect();
        let private = world.add(config.clone());
        let peer = world.id(private);
        // A third one says that it can also be reached where the private one is.
        let sentry = world.add(config);
        let addresses = [sentry, private].map(|node| world.address(node).without_peer_id());
        let claim = SignedPeerRecord::sign(&world.nodes[sentry].key, 2, &addresses).unwrap();
        world.nodes[sentry].record = claim.clone();
        world.seed_with(sentry, nodes[3], Role::Seed);
        world.give(sentry, Input::SetClass { peer, class: PeerClass::Private, on: true });
        for node in &nodes {
            world.give(*node, Input::SetClass { peer, class: PeerClass::Private, on: true });
            world.seed_with(*node, nodes[0], Role::Seed);
            world.seed_with(*node, private, Role::Known);
        }
        world.seed_with(private, nodes[0], Role::Seed);
        world.seed_with(private, nodes[5], Role::Seed);
        world.run_for(secs(120));
        assert!(!world.peers_of(private).is_empty(), "seed {seed}");
        assert!(!world.peers_of(sentry).is_empty(), "seed {seed}");
        for told in world.told.iter().filter(|told| told.to != private) {
            let about = told.record.peer_id();
            assert!(about != peer || told.from == private, "seed {seed}: told to {}", told.to);
            let itself = [sentry, private].contains(&told.from);
            assert!(told.record != claim || itself, "seed {seed}: its address, to {}", told.to);
        }
        let mut claimed = 0;
        let socket = world.address(private).without_peer_id().to_string();
        for node in &nodes {
            for entry in world.nodes[*node].manager.export_book() {
                assert_ne!(entry.peer, peer.to_string(), "seed {seed}: exported");
                assert!(entry.addresses.iter().all(|at| at.address != socket), "seed {seed}: {entry:?}");
                if entry.peer == world.id(sentry).to_string() {
                    claimed += 1;
                    assert_eq!(entry.record, None, "seed {seed}: a record that names its address");
                }
            }
        }
        assert!(claimed > 0, "seed {seed}: nobody knows who claims its address");
    }
}
