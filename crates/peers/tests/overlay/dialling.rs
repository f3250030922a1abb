//! When whom is dialled: budgets, backoff, seeds, rotation, and what survives a restart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{DialAddress, PeerId, SignedPeerRecord};
use peerage_peers::{
    Cause, Direction, Fault, Input, PeerEvent, PeerState, PeersConfig, Role, Target, Ticket,
};

use crate::support::{World, secs};

/// The most dials that fall into any window of `length`.
fn peak(mut times: Vec<Duration>, length: Duration) -> usize {
    times.sort_unstable();
    let within =
        |start: &Duration| times.iter().filter(|time| **time >= *start && **time < *start + length).count();
    times.iter().map(within).max().unwrap_or(0)
}

/// Applying the changes to the snapshot gives the state at any later time, and each change starts where the last one ended.
#[test]
fn a_snapshot_and_the_changes_after_it_tell_the_state_of_every_peer() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        for _ in 0..10 {
            world.add(PeersConfig { max_outbound: 4, ..Default::default() });
        }
        for node in 1..10 {
            world.seed_with(node, 0, Role::Seed);
        }
        world.run_for(Duration::from_millis(700));
        let mut watched: BTreeMap<PeerId, PeerState> = world.nodes[3].manager.states().collect();
        let from = world.nodes[3].events.len();
        world.run_for(secs(5));
        world.crash(5);
        world.notice(5, secs(2));
        let peer = world.id(7);
        world.give(3, Input::Disconnect { peer });
        world.run_for(secs(60));
        let mut changes = 0;
        for (_, event) in &world.nodes[3].events[from..] {
            if let PeerEvent::Changed { peer, from, to, .. } = event {
                assert_eq!(watched.get(peer), from.as_ref(), "seed {seed}");
                match to {
                    Some(state) => watched.insert(*peer, state.clone()),
                    None => watched.remove(peer),
                };
                changes += 1;
            }
        }
        assert!(changes > 0, "seed {seed}: nothing happened");
        assert_eq!(watched, world.nodes[3].manager.states().collect(), "seed {seed}");
    }
}

/// the backoff persists across a restart, and the book with it; a long-dead peer stays diallable.
#[test]
fn what_a_node_knows_of_its_peers_survives_a_restart_backoff_included() {
    let mut world = World::new(3);
    let (a, b, dead) = (
        world.add(PeersConfig::default()),
        world.add(PeersConfig::default()),
        world.add(PeersConfig::default()),
    );
    world.crash(dead);
    world.load(a);
    world.seed_with(a, b, Role::Known);
    world.seed_with(a, dead, Role::Known);
    world.run_for(secs(1800));
    let of_dead = |world: &World| world.nodes[a].disk[&world.id(dead).to_string()].clone();
    let before = of_dead(&world);
    assert!(before.failures >= 8, "{before:?}");
    assert_eq!(before.addresses[0].failures, before.failures);
    let good = &world.nodes[a].disk[&world.id(b).to_string()];
    assert_eq!((good.failures, good.addresses[0].successes), (0, 1), "{good:?}");
    assert!(good.record.is_some() && good.addresses[0].last_seen.is_some());

    world.crash(a);
    world.run_for(secs(5));
    world.restart(a);
    let dials = world.nodes[a].dials.len();
    world.load(a);
    world.run_for(secs(4));
    assert_eq!(world.peers_of(a).len(), 1, "it finds its peer again without being told");
    let waits = world.nodes[a].manager.state(&world.id(dead));
    assert!(
        matches!(waits, Some(PeerState::Waiting { failures, .. }) if failures == before.failures),
        "{waits:?}"
    );
    let left = Duration::from_millis(before.retry_at).saturating_sub(world.now().unix);
    let to_dead = |world: &World| {
        world.nodes[a].dials[dials..]
            .iter()
            .filter(|(_, to)| to.peer_id().is_none() && to.socket_addr() == Some(world.nodes[dead].address))
            .count()
    };
    if left > secs(1) {
        world.run_for(left - secs(1));
        assert_eq!(to_dead(&world), 0, "it was dialled before its time");
    }
    world.run_for(secs(1210));
    assert!(to_dead(&world) >= 2, "an exhausted peer becomes diallable again");
}

/// a node with peers wakes for due times only.
#[test]
fn a_node_whose_places_are_taken_wakes_for_due_times_only() {
    let mut world = World::new(5);
    let config = PeersConfig { max_outbound: 2, rotation_interval: Duration::ZERO, ..Default::default() };
    let nodes: Vec<_> = (0..4).map(|_| world.add(config.clone())).collect();
    for node in 1..4 {
        world.seed_with(node, 0, Role::Seed);
    }
    world.run_for(secs(300));
    let before: Vec<_> = nodes.iter().map(|node| world.nodes[*node].wakes).collect();
    world.run_for(secs(3600));
    for node in nodes {
        let wakes = world.nodes[node].wakes - before[node];
        // What is left is asking around while places are free, once a minute, and counting how long each of three peers has been connected, whenever that
        // has doubled.
        assert!(wakes <= 62 + 3 * 3, "node {node} woke {wakes} times in an hour");
    }
}

/// a dead address delays nobody else.
#[test]
fn a_hundred_dead_addresses_do_not_keep_a_node_from_its_live_peers() {
    let mut world = World::new(6);
    let config = PeersConfig { max_outbound: 40, ..Default::default() };
    let a = world.add(config.clone());
    let dead: Vec<_> = (0..100).map(|_| world.add(config.clone())).collect();
    let live: Vec<_> = (0..5).map(|_| world.add(config.clone())).collect();
    for node in &dead {
        world.crash(*node);
        world.seed_with(a, *node, Role::Known);
    }
    for node in &live {
        world.seed_with(a, *node, Role::Known);
    }
    world.run_for(secs(90));
    assert_eq!(world.peers_of(a).len(), 5);
    let is_live =
        |to: &DialAddress| live.iter().any(|node| to.socket_addr() == Some(world.nodes[*node].address));
    let to_dead: Vec<_> = world.nodes[a].dials.iter().filter(|(_, to)| !is_live(to)).collect();
    let running = to_dead.windows(9).filter(|nine| nine[8].0 - nine[0].0 < secs(5)).count();
    assert_eq!(running, 0, "more than eight dials to dead addresses ran at once");
}

/// A hub of 100 peers is killed and comes back: nobody's dials exceed the budget, the hub does not see them all in one moment, and all
/// are back within a minute.
#[test]
fn the_peers_of_a_hub_come_back_within_a_minute_and_without_a_storm() {
    for (seed, down) in [(1, 0), (2, 5), (3, 20)] {
        let mut world = World::new(seed);
        world.checks = false;
        let of_hub = PeersConfig { max_inbound: 200, ..Default::default() };
        let hub = world.add(of_hub);
        let spokes: Vec<_> =
            (0..100).map(|_| world.add(PeersConfig { max_outbound: 1, ..Default::default() })).collect();
        world.load(hub);
        for node in &spokes {
            world.seed_with(*node, hub, Role::Persistent);
        }
        world.run_for(secs(120));
        assert_eq!(world.peers_of(hub).len(), 100);
        world.crash(hub);
        world.notice(hub, Duration::from_millis(300));
        world.run_for(secs(down));
        let killed = world.now;
        world.restart(hub);
        world.load(hub);
        world.run_for(secs(60));
        assert_eq!(world.peers_of(hub).len(), 100, "seed {seed}");
        let config = PeersConfig::default();
        let after = |node: usize| -> Vec<Duration> {
            world.nodes[node].dials.iter().map(|(time, _)| *time).filter(|time| *time >= killed).collect()
        };
        for node in spokes.iter().chain([&hub]) {
            let most = config.dial_burst + config.dials_per_second;
            assert!(peak(after(*node), secs(1)) as f64 <= most, "node {node}");
        }
        let at_hub: Vec<_> = spokes.iter().flat_map(|node| after(*node)).collect();
        let storm = peak(at_hub.clone(), Duration::from_millis(100));
        println!("hub down {down} s: {} dials, at most {storm} in 100 ms", at_hub.len());
        assert!(storm <= 25, "{storm} dials in 100 ms");
    }
}

/// A restart with a thousand wanted peers: the node's own budget spreads its dials.
#[test]
fn a_node_with_many_persistent_peers_dials_them_within_its_budget() {
    let mut world = World::new(8);
    world.checks = false;
    let a = world.add(PeersConfig { max_parallel_dials: 500, ..Default::default() });
    for _ in 0..300 {
        let node = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
        world.seed_with(a, node, Role::Persistent);
    }
    world.run_for(secs(40));
    assert_eq!(world.peers_of(a).len(), 300);
    let times: Vec<_> = world.nodes[a].dials.iter().map(|(time, _)| *time).collect();
    let config = PeersConfig::default();
    for seconds in [1, 5, 20] {
        let most = config.dial_burst + config.dials_per_second * seconds as f64;
        assert!(peak(times.clone(), secs(seconds)) as f64 <= most);
    }
}

/// seeds are really contacted; failure to reach them is retried soon, not cached for hours.
#[test]
fn a_seed_that_was_dead_for_a_day_is_reached_within_half_a_minute_of_its_return() {
    for with_id in [true, false] {
        let mut world = World::new(10);
        let (a, seed) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
        world.crash(seed);
        let address = if with_id { world.address(seed) } else { world.address(seed).without_peer_id() };
        world.give(a, Input::Add { address, role: Role::Seed });
        world.run_for(secs(86_400));
        let last = world.nodes[a].dials.last().unwrap().0;
        assert!(world.now - last < secs(36), "with a peer ID: {with_id}");
        world.restart(seed);
        world.run_for(secs(36));
        assert_eq!(world.peers_of(a).len(), 1, "with a peer ID: {with_id}");
    }
}

#[test]
fn seeds_are_left_alone_once_enough_peers_are_connected_and_dialled_again_when_they_are_gone() {
    let mut world = World::new(11);
    let config = PeersConfig { seed_target: 3, max_outbound: 5, ..Default::default() };
    let (a, seed) = (world.add(config.clone()), world.add(config.clone()));
    let peers: Vec<_> =
        (0..3).map(|_| world.add(PeersConfig { max_outbound: 0, ..config.clone() })).collect();
    world.crash(seed);
    for peer in &peers {
        world.seed_with(a, *peer, Role::Known);
    }
    world.run_for(secs(5));
    world.seed_with(a, seed, Role::Seed);
    let to_seed = |world: &World| {
        world.nodes[a]
            .dials
            .iter()
            .filter(|(_, to)| to.socket_addr() == Some(world.nodes[seed].address))
            .count()
    };
    world.run_for(secs(3600));
    assert_eq!(to_seed(&world), 0);
    assert_eq!(world.nodes[a].manager.why(world.now(), &world.id(seed)).cause, Cause::NoPlace);
    world.crash(peers[0]);
    world.notice(peers[0], secs(1));
    world.run_for(secs(60));
    assert!(to_seed(&world) > 0, "too few peers: seeds are wanted again");
}

/// FP-35: rounds replace old peers by others, after the replacements are admitted, and leave persistent and young ones alone.
#[test]
fn rotation_replaces_old_peers_never_falls_below_the_target_and_spares_persistent_and_young_ones() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        world.checks = false;
        let config = PeersConfig { max_outbound: 4, max_inbound: 20, ..Default::default() };
        let nodes: Vec<_> = (0..25).map(|_| world.add(config.clone())).collect();
        for node in 1..25 {
            world.seed_with(node, 0, Role::Seed);
        }
        world.seed_with(3, 9, Role::Persistent);
        world.run_for(secs(300));
        let mut rotated = 0;
        let mut seen = vec![0; world.nodes.len()];
        let mut spans: BTreeMap<(usize, PeerId), Duration> = BTreeMap::new();
        for _ in 0..4 * 3600 / 10 {
            world.run_for(secs(10));
            for node in &nodes {
                let outbound = |p: &peerage_peers::ConnectedPeer| p.direction == Direction::Outbound;
                let persistent = world.id(9);
                let mine = world.nodes[*node].manager.connected().filter(outbound);
                let count = mine.filter(|p| *node != 3 || p.peer != persistent).count();
                assert!(count <= 4, "seed {seed}: the cap holds in a round too");
                let events = &world.nodes[*node].events;
                for (time, event) in &events[seen[*node]..] {
                    match event {
                        PeerEvent::Connected { peer, .. } => {
                            spans.insert((*node, *peer), *time);
                        }
                        PeerEvent::Disconnected { peer, fault: Fault::Rotated, .. } => {
                            rotated += 1;
                            let age = *time - spans[&(*node, *peer)];
                            assert!(age >= config.rotation_min_age - secs(1), "seed {seed}: {age:?}");
                            assert!(*node != 3 || *peer != persistent, "seed {seed}");
                        }
                        _ => {}
                    }
                }
                seen[*node] = events.len();
            }
        }
        println!("seed {seed}: {rotated} peers rotated in four hours");
        assert!(rotated > 25, "seed {seed}: {rotated}");
        assert!(nodes.iter().all(|node| !world.peers_of(*node).is_empty()));
    }
}

/// a connection that opens and dies at once does not reset the backoff; one that lasted does.
#[test]
fn only_a_useful_connection_resets_the_backoff() {
    let mut world = World::new(12);
    let (a, b) =
        (world.add(PeersConfig::default()), world.add(PeersConfig { max_outbound: 0, ..Default::default() }));
    world.seed_with(a, b, Role::Known);
    let (peer, mut most) = (world.id(a), 0);
    for _ in 0..2000 {
        world.run_for(secs(1));
        if !world.peers_of(b).is_empty() {
            world.give(b, Input::Disconnect { peer });
        }
        if let Some(PeerState::Waiting { failures, .. }) = world.nodes[a].manager.state(&world.id(b)) {
            most = most.max(failures);
        }
    }
    assert!(most >= 6, "a peer that hangs up at once was dialled with at most {most} failures counted");
    assert!(world.nodes[a].dials.len() < 40, "{}", world.nodes[a].dials.len());
    world.give(a, Input::Connect { ticket: Ticket(1), target: Target::Peer(world.id(b)) });
    world.run_for(secs(90));
    world.crash(b);
    world.notice(b, secs(1));
    world.run_for(Duration::from_millis(1001));
    let state = world.nodes[a].manager.state(&world.id(b));
    assert!(
        matches!(state, Some(PeerState::Waiting { failures: 0, .. } | PeerState::Dialling { .. })),
        "{state:?}"
    );
}

/// A peer that we cannot reach, and that comes to us and is turned away, is dialled no sooner for that.
#[test]
fn a_peer_that_is_turned_away_while_its_backoff_runs_is_dialled_no_sooner() {
    let mut world = World::new(13);
    let a = world.add(PeersConfig { max_inbound: 0, ..Default::default() });
    let b = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    world.crash(b);
    world.seed_with(a, b, Role::Known);
    let due = |world: &World| match world.nodes[a].manager.state(&world.id(b)) {
        Some(PeerState::Waiting { due, .. }) => due,
        _ => Duration::ZERO,
    };
    while due(&world) < world.now + secs(120) {
        world.run_for(secs(1));
    }
    world.restart(b);
    let (before, dials) = (due(&world), world.nodes[a].dials.len());
    for round in 1..=5 {
        let target = Target::Address(world.address(a));
        world.give(b, Input::Connect { ticket: Ticket(round), target });
        world.run_for(secs(10));
        assert!(world.nodes[b].answers[&Ticket(round)].is_err(), "it was to be turned away");
        assert_eq!((due(&world), world.nodes[a].dials.len()), (before, dials), "after refusal {round}");
    }
    world.run_for(before - world.now + secs(2));
    assert_eq!(world.peers_of(a).len(), 1, "at its time it is dialled");
}

#[test]
fn the_first_contact_is_stored_at_once_and_is_enough_to_come_back_without_seeds() {
    let mut world = World::new(14);
    let (a, seed) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.load(a);
    world.seed_with(a, seed, Role::Seed);
    while world.peers_of(a).is_empty() {
        world.run_for(Duration::from_millis(1));
    }
    world.crash(a);
    world.notice(a, secs(1));
    world.run_for(secs(5));
    world.restart(a);
    world.load(a);
    world.run_for(secs(5));
    assert_eq!(world.peers_of(a).len(), 1, "{:?}", world.nodes[a].disk);
}

/// what an earlier run has stored of a seed keeps no start from trying it at once.
#[test]
fn seeds_are_dialled_at_each_start_whatever_backoff_was_stored() {
    for with_id in [true, false] {
        let mut world = World::new(15);
        let (a, seed) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
        let address = if with_id { world.address(seed) } else { world.address(seed).without_peer_id() };
        let name_it = |world: &mut World| {
            world.give(a, Input::Add { address: address.clone(), role: Role::Seed });
        };
        // It is known from before as a peer that has not answered for long.
        world.crash(seed);
        world.load(a);
        world.seed_with(a, seed, Role::Known);
        let waits_long = |world: &World| {
            let state = world.nodes[a].manager.state(&world.id(seed));
            matches!(state, Some(PeerState::Waiting { due, .. }) if due > world.now + secs(100))
        };
        while !waits_long(&world) {
            world.run_for(secs(1));
        }
        world.run_for(secs(5));
        world.crash(a);
        world.restart(seed);
        world.restart(a);
        world.load(a);
        world.run_for(secs(5));
        assert!(world.peers_of(a).is_empty(), "the stored backoff holds while nobody names the peer");
        name_it(&mut world);
        world.run_for(secs(2));
        assert_eq!(world.peers_of(a).len(), 1, "with a peer ID: {with_id}");
    }
}

/// FP-40: many peers behind one address wait for one another no longer than it takes to try them.
#[test]
fn all_peers_behind_one_address_are_reached_soon() {
    let mut world = World::new(21);
    let config = PeersConfig { max_outbound: 25, ..Default::default() };
    let a = world.add(config);
    let teller = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    let quiet = || PeersConfig { max_outbound: 0, ..Default::default() };
    let at = |port| SocketAddr::from(([60, 0, 0, 1], port));
    let there: Vec<_> = (0..20).map(|number| world.add_at(quiet(), at(4001 + number))).collect();
    let records = there.iter().map(|node| world.nodes[*node].record.clone()).collect();
    world.nodes[teller].says = Some(records);
    world.seed_with(a, teller, Role::Known);
    world.run_for(secs(90));
    let connected = world.peers_of(a);
    let missing = there.iter().filter(|node| !connected.contains(*node)).count();
    assert_eq!(missing, 0, "of 20 peers behind one address, with a budget of 4 dials at once");
}

/// X-23, TM2-42: where the budget of one address is spent, the others are tried: a seed that is known by name too is never left for long.
#[test]
fn a_seed_with_a_second_address_that_nobody_has_proved_is_reached_as_soon_as_ever() {
    let mut world = World::new(22);
    let (a, seed) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    let named = world.address(seed);
    let second = DialAddress::from_socket_addr(SocketAddr::from(([61, 0, 0, 1], 4000))).unwrap();
    let there = [named.clone().without_peer_id(), second];
    world.nodes[seed].record = SignedPeerRecord::sign(&world.nodes[seed].key, 2, &there).unwrap();
    world.give(a, Input::Add { address: named, role: Role::Seed });
    world.run_for(secs(10));
    assert_eq!(world.peers_of(a).len(), 1);
    world.crash(seed);
    world.notice(seed, secs(2));
    world.run_for(secs(86_400));
    let dials = &world.nodes[a].dials;
    let pauses = dials.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let longest = pauses.skip(10).max().unwrap();
    assert!(longest < secs(36), "{longest:?}");
    world.restart(seed);
    world.run_for(secs(36));
    assert_eq!(world.peers_of(a).len(), 1);
}

fn at(octets: [u8; 4]) -> DialAddress {
    DialAddress::from_socket_addr(SocketAddr::from((octets, 4000))).unwrap()
}

/// All addresses of a peer are tried in one dial: a dead one in front costs no backoff, and is tried last from then on.
#[test]
fn a_peer_with_a_dead_address_in_front_is_reached_in_one_dial() {
    let mut world = World::new(21);
    let (node, peer) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    let id = world.id(peer);
    for octets in [[81, 0, 0, 1], [81, 0, 1, 1], [81, 0, 2, 1]] {
        let address = at(octets).with_peer_id(id).unwrap();
        world.give(node, Input::Add { address, role: Role::Known });
        world.give(node, Input::Disconnect { peer: id });
    }
    let address = world.address(peer);
    world.give(node, Input::Add { address, role: Role::Known });
    world.give(node, Input::Disconnect { peer: id });
    world.run_for(secs(60));
    let before = world.nodes[node].dials.len();
    world.give(node, Input::Connect { ticket: Ticket(1), target: Target::Peer(id) });
    world.run_for(secs(1));
    assert_eq!(world.nodes[node].answers[&Ticket(1)], Ok(id), "{:?}", world.nodes[node].dials);
    assert!(world.nodes[node].dials.len() - before <= 4);
    let failed = |(_, event): &(Duration, PeerEvent)| matches!(event, PeerEvent::DialFailed { peer: Some(p), .. } if *p == id);
    let failures = world.nodes[node].events.iter().filter(|event| failed(event)).count();
    // The next dial knows better.
    world.give(node, Input::Disconnect { peer: id });
    let before = world.nodes[node].dials.len();
    world.give(node, Input::Connect { ticket: Ticket(2), target: Target::Peer(id) });
    world.run_for(secs(1));
    assert_eq!(world.nodes[node].answers[&Ticket(2)], Ok(id));
    let dialled: Vec<_> = world.nodes[node].dials[before..].iter().map(|(_, at)| at.socket_addr()).collect();
    assert_eq!(dialled, [Some(world.nodes[peer].address)], "{failures}");
}

/// However many addresses are known, one dial tries so many of them; the next one tries those that have not failed yet.
#[test]
fn a_dial_tries_four_addresses_at_most_and_the_next_one_the_others() {
    let mut world = World::new(23);
    let (node, peer) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    let id = world.id(peer);
    for subnet in 0..6 {
        let address = at([81, 0, subnet, 1]).with_peer_id(id).unwrap();
        world.give(node, Input::Add { address, role: Role::Known });
        world.give(node, Input::Disconnect { peer: id });
    }
    world.run_for(secs(60));
    for ticket in [1, 2] {
        let before = world.nodes[node].dials.len();
        world.give(node, Input::Connect { ticket: Ticket(ticket), target: Target::Peer(id) });
        world.run_for(secs(7));
        assert_eq!(world.nodes[node].answers[&Ticket(ticket)].as_ref().unwrap_err().fault, Fault::Timeout);
        world.give(node, Input::Disconnect { peer: id });
        assert_eq!(world.nodes[node].dials.len() - before, peerage_peers::limits::MAX_ROUTES);
        world.run_for(secs(60));
    }
    let tried: std::collections::BTreeSet<_> =
        world.nodes[node].dials.iter().filter_map(|(_, at)| at.socket_addr()).collect();
    assert_eq!(tried.len(), 6, "{tried:?}");
}

/// A ban of one address leaves the others.
#[test]
fn a_peer_with_one_banned_address_is_dialled_at_another() {
    let mut world = World::new(22);
    let (node, peer) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    let id = world.id(peer);
    let now = world.now();
    let banned = SocketAddr::from(([82, 0, 0, 1], 4000)).ip();
    world.nodes[node].manager.ban(now, peerage_peers::BanTarget::address(banned), "spam", None).unwrap();
    let address = at([82, 0, 0, 1]).with_peer_id(id).unwrap();
    world.give(node, Input::Add { address, role: Role::Known });
    world.run_for(secs(2));
    assert_eq!(world.nodes[node].dials, []);
    world.give(node, Input::Connect { ticket: Ticket(1), target: Target::Peer(id) });
    assert_eq!(world.nodes[node].answers[&Ticket(1)].as_ref().unwrap_err().fault, Fault::Banned);
    let address = world.address(peer);
    world.give(node, Input::Add { address, role: Role::Known });
    world.run_for(secs(2));
    assert!(world.peers_of(node).contains(&peer));
    assert!(world.nodes[node].dials.iter().all(|(_, to)| to.socket_addr().unwrap().ip() != banned));
}
