//! Settings that no story of many nodes depends on: each is set to two values, and what it bounds follows it.

use std::time::Duration;

use peerage_identity::{DialAddress, SignedPeerRecord};
use peerage_peers::limits::{MAX_BAN_REASON, MAX_DETAIL, MAX_STORED_ADDRESSES, ROTATION_PATIENCE};
use peerage_peers::{
    AddressEntry, BanTarget, BookEntry, CloseReason, Failure, Fault, Input, PeerEvent, PeerState,
    PeersConfig, RejectReason, Role, StoredPeer,
};

use crate::lone::{Lone, host, key};
use crate::support::{World, secs};

fn at(octets: [u8; 4]) -> DialAddress {
    DialAddress::from_socket_addr((octets, 4000).into()).unwrap()
}

fn passive() -> PeersConfig {
    PeersConfig { max_outbound: 0, ..Default::default() }
}

/// The dial that was begun last comes to nothing. How long the peer waits for the next one.
fn fail(node: &mut Lone, fault: Fault) -> Duration {
    let (attempt, peer) = node.dials.pop().unwrap();
    node.give(Input::DialFailed { attempt, failure: Failure::new(fault, "a test") });
    match node.manager.state(&peer) {
        Some(PeerState::Waiting { due, .. }) => due - node.now.mono,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_more_addresses_of_a_peer_are_kept_than_the_limit_says() {
    for most in [2, 8] {
        let mut node = Lone::new(PeersConfig { max_addresses_per_peer: most, ..passive() });
        for subnet in 0..12 {
            let address = at([70, 0, subnet, 1]).with_peer_id(key(1)).unwrap();
            node.give(Input::Add { address, role: Role::Known });
        }
        let kept: Vec<_> = node.manager.export_book().map(|entry| entry.addresses.len()).collect();
        assert_eq!(kept, [most]);
    }
}

/// What lies in the store is bounded too, before the book's own limit is asked.
#[test]
fn no_more_addresses_of_a_stored_peer_are_read_than_the_bound() {
    let mut node = Lone::new(PeersConfig { max_addresses_per_peer: 1000, ..passive() });
    let address = |number: u8| {
        let text = at([70, 0, number, 1]).to_string();
        serde_json::from_value::<AddressEntry>(serde_json::json!({ "address": text, "source": "user" }))
            .unwrap()
    };
    let entry = BookEntry {
        peer: key(1).to_string(),
        addresses: (0..100).map(address).collect(),
        ..BookEntry::default()
    };
    node.give(Input::Load { peers: vec![StoredPeer::read(&entry).unwrap()] });
    let kept: Vec<_> = node.manager.export_book().map(|entry| entry.addresses.len()).collect();
    assert_eq!(kept, [MAX_STORED_ADDRESSES]);
}

#[test]
fn an_address_by_hearsay_is_forgotten_after_as_many_failures_as_the_limit_says() {
    for most in [1, 3] {
        let mut world = World::new(1);
        let a = world.add(PeersConfig { max_hearsay_failures: most, ..Default::default() });
        let (teller, dead) = (world.add(passive()), world.add(passive()));
        world.crash(dead);
        world.nodes[teller].says = Some(vec![world.nodes[dead].record.clone()]);
        world.seed_with(a, teller, Role::Known);
        while world.nodes[a].manager.state(&world.id(dead)).is_none() {
            world.run_for(secs(1));
        }
        world.nodes[teller].says = Some(Vec::new());
        world.run_for(secs(86_400));
        let to_dead =
            world.nodes[a].dials.iter().filter(|(_, to)| to.socket_addr() == Some(world.nodes[dead].address));
        assert_eq!(to_dead.count(), most as usize);
        assert_eq!(world.nodes[a].manager.state(&world.id(dead)), None);
    }
}

#[test]
fn the_first_pause_is_drawn_from_the_base_and_those_after_our_own_faults_end_at_their_ceiling() {
    for base in [1, 100] {
        let config = PeersConfig {
            backoff_base: secs(base),
            max_outbound: 100,
            max_parallel_dials: 100,
            dial_burst: 100.0,
            ..Default::default()
        };
        let mut node = Lone::new(config);
        let waits = (0..50).map(|number| {
            node.add(number, Role::Known);
            fail(&mut node, Fault::Timeout)
        });
        let longest = waits.max().unwrap();
        // A tenth is added to what is drawn.
        assert!(longest > secs(base) / 2 && longest <= secs(base) * 11 / 10, "{longest:?} of {base} s");
    }
    for ceiling in [5, 50] {
        let mut node = Lone::new(PeersConfig { local_backoff_ceiling: secs(ceiling), ..Default::default() });
        node.add(1, Role::Known);
        let mut longest = Duration::ZERO;
        for _ in 0..40 {
            longest = longest.max(fail(&mut node, Fault::NoSocket));
            node.pass(longest);
        }
        assert!(longest > secs(ceiling) / 2 && longest <= secs(ceiling), "{longest:?} of {ceiling} s");
    }
}

/// A node whose four outbound places are taken by peers that are connected for two minutes, and that knows ten more. Nobody else answers.
fn full(rotation_drops: usize) -> Lone {
    let config = PeersConfig {
        max_outbound: 4,
        rotation_interval: secs(1000),
        rotation_min_age: secs(10),
        rotation_drops,
        ..Default::default()
    };
    let mut node = Lone::new(config);
    for number in 0..14 {
        node.add(number, Role::Known);
        answer_all(&mut node, 4);
    }
    node.pass(secs(120));
    assert_eq!((node.manager.connected().count(), node.dials.len()), (4, 0));
    node
}

/// Every dial is answered, up to so many peers.
fn answer_all(node: &mut Lone, most: usize) {
    while node.manager.connected().count() < most
        && let Some((attempt, peer)) = node.dials.pop()
    {
        node.join(peer, host(1), Some(attempt), 1);
    }
}

fn rotated(node: &Lone) -> usize {
    node.closed.iter().filter(|(_, reason)| *reason == CloseReason::Rotated).count()
}

/// Passes time second by second until the first replacement of a round is dialled.
fn until_round(node: &mut Lone) {
    let start = node.now.mono;
    while node.dials.is_empty() {
        node.pass(secs(1));
        assert!(node.now.mono - start < secs(1300), "no round began");
    }
    assert!(node.now.mono - start > secs(600), "it began too early");
}

#[test]
fn a_round_of_rotation_replaces_as_many_peers_as_the_limit_says() {
    for drops in [1, 3] {
        let mut node = full(drops);
        until_round(&mut node);
        for _ in 0..90 {
            while let Some((attempt, peer)) = node.dials.pop() {
                node.join(peer, host(1), Some(attempt), 1);
            }
            node.pass(secs(1));
        }
        assert_eq!((rotated(&node), node.manager.connected().count()), (drops, 4));
    }
}

#[test]
fn a_round_of_rotation_looks_for_replacements_for_a_minute() {
    let mut node = full(1);
    until_round(&mut node);
    node.pass(ROTATION_PATIENCE / 2);
    assert_eq!(node.dials.len(), 1);
    fail(&mut node, Fault::Timeout);
    node.pass(secs(2));
    assert_eq!(node.dials.len(), 1, "the round goes on");
    node.pass(ROTATION_PATIENCE / 2);
    fail(&mut node, Fault::Timeout);
    node.pass(secs(60));
    assert_eq!(node.dials.len(), 0, "the round is over");
}

#[test]
fn fruitless_questions_begin_at_the_pause_and_end_at_its_ceiling() {
    for (pause, ceiling) in [(4, 20), (10, 100)] {
        let config = PeersConfig {
            exchange_pause: secs(pause),
            exchange_pause_ceiling: secs(ceiling),
            ..Default::default()
        };
        let mut node = Lone::new(config);
        node.add(1, Role::Known);
        let (attempt, peer) = node.dials.pop().unwrap();
        node.join(peer, host(1), Some(attempt), 1);
        node.pass(secs(1000));
        let gaps: Vec<_> =
            node.asks.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| !gap.is_zero()).collect();
        assert_eq!(gaps.iter().min(), Some(&secs(pause)), "{gaps:?}");
        assert_eq!(gaps.iter().max(), Some(&secs(ceiling)), "{gaps:?}");
        assert_eq!(gaps.last(), Some(&secs(ceiling)), "{gaps:?}");
    }
}

/// whoever takes fewer records asks for fewer, so that an honest answer is never too long.
#[test]
fn no_more_records_are_asked_for_or_given_than_the_limit_says_and_honest_peers_are_not_charged() {
    let mut world = World::new(3);
    let hub = world.add(passive());
    for _ in 0..12 {
        let node = world.add(PeersConfig::default());
        world.seed_with(node, hub, Role::Seed);
    }
    world.run_for(secs(60));
    let few = PeersConfig { max_exchange_records: 5, max_outbound: 4, ..Default::default() };
    let asker = world.add(few);
    let before = world.told.len();
    world.seed_with(asker, hub, Role::Seed);
    world.run_for(Duration::from_millis(1500));
    let told = world.told[before..].iter().filter(|told| (told.from, told.to) == (hub, asker));
    // Its own, with the hello, and those of one answer.
    let told = told.count();
    assert!((2..=6).contains(&told), "{told}");
    world.run_for(secs(600));
    let penalised = |event: &PeerEvent| matches!(event, PeerEvent::Penalised { .. });
    assert!(world.nodes.iter().all(|node| node.events.iter().all(|(_, event)| !penalised(event))));
    let (now, curious) = (world.now(), world.id(hub));
    let given = world.nodes[asker].manager.answer_exchange(now, curious, 30).unwrap();
    assert!(given.len() <= 5, "{}", given.len());
}

#[test]
fn the_peers_of_a_subnet_fill_no_more_of_the_book_than_the_limit_says() {
    for most in [30, 1000] {
        let mut world = World::new(4);
        let config = PeersConfig {
            max_hearsay_per_peer: 20,
            max_hearsay_per_subnet: most,
            max_outbound: 12,
            ..Default::default()
        };
        let asker = world.add(config);
        for teller in 0..3u8 {
            let node = world.add_at(passive(), ([40, 0, 0, 1 + teller], 4000).into());
            let record = |host: u8| {
                let key = world.stranger_key(u64::from(teller) * 100 + u64::from(host));
                SignedPeerRecord::sign(&key, 1, &[at([90, teller, host, 1])]).unwrap()
            };
            world.nodes[node].says = Some((0..25).map(record).collect());
            world.seed_with(asker, node, Role::Known);
        }
        let mut known = 0;
        for _ in 0..60 {
            world.run_for(secs(1));
            known = known.max(world.nodes[asker].manager.known_peers());
        }
        assert_eq!(known, 3 + most.min(3 * 20));
    }
}

#[test]
fn an_earlier_start_waits_as_long_for_the_later_one_as_the_limit_says() {
    for patience in [5, 200] {
        let mut node = Lone::new(PeersConfig { clone_patience: secs(patience), ..Default::default() });
        let peer = key(1);
        for nonce in [10, 20] {
            node.nonce = nonce;
            node.join(peer, host(1), None, 1);
            node.pass(secs(2));
        }
        let later = node.manager.connected().next().unwrap().conn;
        node.close(later);
        node.nonce = 10;
        node.pass(secs(patience - 1));
        let early = node.join(peer, host(1), None, 2);
        assert_eq!(node.refused, [(early, RejectReason::Clone)]);
        node.close(early);
        node.pass(secs(2));
        node.join(peer, host(1), None, 3);
        assert_eq!((node.refused.len(), node.manager.connected().count()), (1, 1), "after {patience} s");
    }
}

#[test]
fn words_in_the_journal_and_of_bans_are_cut() {
    let mut node = Lone::new(PeersConfig::default());
    node.add(1, Role::Known);
    let (attempt, peer) = node.dials.pop().unwrap();
    let failure = Failure::new(Fault::Timeout, "ü".repeat(1000));
    node.give(Input::DialFailed { attempt, failure });
    let story = node.manager.why(node.now, &peer);
    let longest = story.history.iter().map(|entry| entry.detail.len()).max();
    assert_eq!(longest, Some(MAX_DETAIL));
    let (now, target) = (node.now, BanTarget::Peer(peer));
    node.manager.ban(now, target, &"ü".repeat(1000), None).unwrap();
    assert_eq!(node.manager.bans().next().unwrap().reason.len(), MAX_BAN_REASON);
}
