//! Who is kept out, by whom, and for how long.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_peers::{
    BanError, BanTarget, Blame, CloseReason, ConnId, Direction, Failure, Fault, Input, PeerClass, PeerEvent,
    PeersConfig, Penalty, RejectReason, Role, Target, Ticket,
};

use crate::support::{World, secs};

fn ban(world: &mut World, node: usize, target: BanTarget, lasts: Option<Duration>) {
    let now = world.now();
    world.nodes[node].manager.ban(now, target, "a test", lasts).unwrap();
    world.carry_out(node);
}

fn two(seed: u64) -> (World, usize, usize) {
    let mut world = World::new(seed);
    let a = world.add(PeersConfig::default());
    let b = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    world.seed_with(a, b, Role::Persistent);
    world.run_for(secs(2));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
    (world, a, b)
}

#[test]
fn a_banned_peer_is_hung_up_on_refused_with_the_reason_and_back_when_the_ban_is_over() {
    let (mut world, a, b) = two(1);
    let target = BanTarget::Peer(world.id(a));
    ban(&mut world, b, target, Some(secs(1800)));
    assert!(world.nodes[b].closed.iter().any(|(_, reason)| *reason == CloseReason::Banned));
    world.run_for(secs(1700));
    assert_eq!(world.peers_of(b), BTreeSet::new());
    let refusals: Vec<_> = world.refusals.iter().filter(|refusal| refusal.to == a).collect();
    assert!(!refusals.is_empty() && refusals.len() < 20, "{}", refusals.len());
    for refusal in refusals {
        assert_eq!((refusal.reason, refusal.alternatives.len()), (RejectReason::Banned, 0));
        let over = Duration::from_secs(1802).saturating_sub(refusal.at);
        let told = refusal.retry_after.unwrap();
        assert!(told <= over && over - told < secs(1), "{told:?} of {over:?}");
    }
    let listed: Vec<_> = world.nodes[b].manager.bans().map(|ban| (ban.target, ban.reason.as_str())).collect();
    assert_eq!(listed, [(target, "a test")]);
    // The peer keeps trying at its ceiling of ten minutes.
    world.run_for(secs(900));
    assert_eq!(world.peers_of(b), BTreeSet::from([a]));
    assert_eq!(world.nodes[b].manager.bans().count(), 0);
    assert_eq!((world.nodes[b].bans_stored, world.nodes[b].disk_bans.len()), (2, 0));
    let lifted = |(_, event): &(Duration, PeerEvent)| *event == PeerEvent::Unbanned { target };
    assert!(world.nodes[b].events.iter().any(lifted));
}

/// Contract C-30.
#[test]
fn a_ban_that_is_lifted_lets_both_sides_dial_again() {
    let (mut world, a, b) = two(2);
    // The dialling side bans, too: it hangs up and dials no more.
    let target = BanTarget::Peer(world.id(b));
    ban(&mut world, a, target, None);
    let dials = world.nodes[a].dials.len();
    let address = world.address(b);
    world.give(a, Input::Connect { ticket: Ticket(9), target: Target::Address(address) });
    world.run_for(secs(3600));
    assert_eq!((world.peers_of(a), world.nodes[a].dials.len()), (BTreeSet::new(), dials));
    let refused = world.nodes[a].answers[&Ticket(9)].clone().unwrap_err();
    assert!(refused.blame() == Blame::Local && refused.detail.contains("lift the ban first"), "{refused}");
    let now = world.now();
    assert!(world.nodes[a].manager.unban(now, target));
    assert!(!world.nodes[a].manager.unban(now, target));
    world.carry_out(a);
    world.run_for(secs(5));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
}

#[test]
fn a_banned_block_is_not_heard_and_spares_those_whom_the_user_named() {
    let mut world = World::new(3);
    let hub = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    let nodes: Vec<_> = (1..5u8)
        .map(|host| world.add_at(PeersConfig::default(), SocketAddr::from(([60, 0, 0, host], 4000))))
        .collect();
    let friend = world.id(nodes[3]);
    world.give(hub, Input::SetClass { peer: friend, class: PeerClass::Unconditional, on: true });
    for node in &nodes {
        world.seed_with(*node, hub, Role::Persistent);
    }
    world.run_for(secs(2));
    assert_eq!(world.peers_of(hub).len(), 4);
    let subnet = BanTarget::subnet([60, 0, 0, 77].into());
    ban(&mut world, hub, subnet, Some(secs(600)));
    let handshakes = world.wires.len();
    world.run_for(secs(300));
    assert_eq!(world.peers_of(hub), BTreeSet::from([nodes[3]]));
    assert_eq!(world.wires.len(), handshakes, "nobody there was heard");
    world.run_for(secs(1500));
    assert_eq!(world.peers_of(hub).len(), 4);
}

#[test]
fn bans_survive_a_restart_by_way_of_a_store() {
    let (mut world, a, b) = two(4);
    let banned = [BanTarget::Peer(world.id(a)), BanTarget::address([60, 0, 0, 1].into())];
    ban(&mut world, b, banned[0], None);
    ban(&mut world, b, banned[1], Some(secs(60)));
    let lasting: Vec<_> = world.nodes[b].manager.bans().filter(|ban| ban.until.is_none()).cloned().collect();
    assert_eq!(world.nodes[b].disk_bans.len(), 2);
    world.crash(b);
    world.run_for(secs(120));
    world.restart(b);
    world.load(b);
    let kept: Vec<_> = world.nodes[b].manager.bans().cloned().collect();
    assert_eq!(kept, lasting, "a ban whose time is over is not restored");
    assert_eq!(world.nodes[b].disk_bans.len(), 1, "and does not stay in the store");
    world.run_for(secs(1300));
    assert_eq!(world.peers_of(b), BTreeSet::new());
}

/// bad content costs the offender, and three offenders at one address cost the address.
/// Contract C-31.
#[test]
fn misbehaviour_bans_the_peer_and_at_last_its_address_but_never_a_persistent_peer() {
    let mut world = World::new(5);
    let hub = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    let nodes: Vec<_> = (0..5u16)
        .map(|port| world.add_at(PeersConfig::default(), SocketAddr::from(([60, 0, 0, 1], 4000 + port))))
        .collect();
    for node in &nodes {
        world.seed_with(*node, hub, Role::Persistent);
    }
    world.run_for(secs(2));
    let trusted = world.id(nodes[0]);
    world.give(hub, Input::SetClass { peer: trusted, class: PeerClass::Persistent, on: true });
    let misbehave = |world: &mut World, node: usize| {
        let peer = world.id(node);
        for _ in 0..5 {
            world.give(hub, Input::Penalise { peer, penalty: Penalty::BadContent });
        }
    };
    misbehave(&mut world, nodes[0]);
    misbehave(&mut world, nodes[1]);
    misbehave(&mut world, nodes[2]);
    world.run_for(secs(30));
    assert_eq!(world.peers_of(hub), BTreeSet::from([nodes[0], nodes[3], nodes[4]]), "the neighbours stay");
    misbehave(&mut world, nodes[3]);
    world.run_for(secs(30));
    assert_eq!(world.peers_of(hub), BTreeSet::from([nodes[0]]), "the fourth goes with the address");
    let block = BanTarget::address([60, 0, 0, 1].into());
    assert!(world.nodes[hub].manager.bans().any(|ban| ban.target == block && ban.penalty.is_some()));
    // An hour later it is forgotten.
    world.run_for(secs(3600 + 700));
    assert_eq!(world.peers_of(hub).len(), 5);
}

/// Contract C-31.
#[test]
fn failures_of_transport_are_no_penalty_however_many() {
    let (mut world, a, b) = two(6);
    let (peer, remote) = (world.id(b), world.nodes[b].address);
    world.crash(b);
    world.notice(b, secs(1));
    for round in 0..4000u64 {
        let conn = ConnId(1_000_000 + round);
        let (direction, attempt) = (Direction::Inbound, None);
        world.give(a, Input::Handshaken { conn, peer, direction, remote, attempt });
        let fault = [Fault::NoSocket, Fault::Timeout, Fault::Refused, Fault::WrongKey][round as usize % 4];
        let failure = Failure::new(fault, "gone again");
        world.give(a, Input::Closed { conn, failure, useful: false });
    }
    world.run_for(secs(3600));
    let now = world.now();
    assert_eq!((world.nodes[a].manager.bans().count(), world.nodes[a].manager.score(now, &peer)), (0, 0.0));
    world.restart(b);
    world.run_for(secs(1300));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
}

#[test]
fn bans_are_bounded_and_the_users_own_never_give_way() {
    let mut world = World::new(7);
    let a = world.add(PeersConfig { max_bans: 20, ..Default::default() });
    let (me, now) = (world.id(a), world.now());
    let own = world.nodes[a].manager.ban(now, BanTarget::Peer(me), "", None);
    assert_eq!(own, Err(BanError::Own));
    for number in 0..10 {
        let target = BanTarget::Peer(world.stranger(number));
        ban(&mut world, a, target, None);
    }
    for number in 100..200 {
        let peer = world.stranger(number);
        for _ in 0..2 {
            world.give(a, Input::Penalise { peer, penalty: Penalty::BadSignature });
        }
        assert!(world.nodes[a].manager.bans().count() <= 20);
    }
    let users = world.nodes[a].manager.bans().filter(|ban| ban.penalty.is_none()).count();
    assert_eq!(users, 10);
    for number in 10..20 {
        let target = BanTarget::Peer(world.stranger(number));
        ban(&mut world, a, target, None);
    }
    let one_more = BanTarget::Peer(world.stranger(20));
    let refused = world.nodes[a].manager.ban(now, one_more, "", None);
    assert_eq!(refused, Err(BanError::TooMany { most: 20 }));
}
