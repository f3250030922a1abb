//! Faults that take more than one input to come about, for `why` to name: limits, bans, lists, clones, and what the user did.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{DialAddress, NodeKey, SignedPeerRecord};
use peerage_peers::{
    BanTarget, Cause, ConnId, Direction, Failure, Fault, ForeignPolicy, Input, PeerEvent, PeerState,
    PeersConfig, Penalty, RejectReason, Role, Target, Ticket,
};

use crate::support::{World, secs};
use crate::why::{Stage, calm, check, check_recovery, passive};

/// A fault that takes more than one input.
struct Case {
    name: &'static str,
    inject: fn() -> Stage,
    cause: (Cause, &'static str),
    fault: Option<(Fault, &'static str)>,
    says: &'static str,
    /// What takes the fault away; the peer is connected then, by and by.
    recover: Option<fn(&mut Stage)>,
}

const BACKOFF: (Cause, &str) = (Cause::Backoff, "backoff");
const BANNED: (Fault, &str) = (Fault::Banned, "banned");
const NOT_ALLOWED: (Fault, &str) = (Fault::NotAllowed, "not-allowed");

/// The cause and the fault are one.
fn only(fault: (Fault, &'static str)) -> ((Cause, &'static str), Option<(Fault, &'static str)>) {
    ((Cause::Failed(fault.0), fault.1), Some(fault))
}

fn run(cases: Vec<Case>) {
    for case in cases {
        let mut stage = (case.inject)();
        check(case.name, &stage.why(), case.cause, case.fault, case.says);
        if let Some(recover) = case.recover {
            recover(&mut stage);
            check_recovery(case.name, &mut stage);
        }
    }
}

/// An inbound handshake of `stage.peer`, who says nothing.
fn comes_in(stage: &mut Stage, conn: u64) {
    let remote = SocketAddr::from(([60, 0, 0, 1], 4000));
    let (conn, peer, direction) = (ConnId(1_000_000 + conn), stage.peer, Direction::Inbound);
    stage.give(Input::Handshaken { conn, peer, direction, remote, attempt: None });
}

fn connect_to_peer(stage: &mut Stage) {
    let target = Target::Peer(stage.peer);
    stage.give(Input::Connect { ticket: Ticket(1), target });
}

/// What the user's connect to `stage.peer` was answered.
fn answer(stage: &Stage) -> Fault {
    stage.world.nodes[stage.a].answers[&Ticket(1)].clone().unwrap_err().fault
}

fn block_of_b(stage: &Stage) -> BanTarget {
    BanTarget::address(stage.world.nodes[stage.b].address.ip())
}

#[test]
fn bans_and_lists_are_told_with_their_reason() {
    let (cause_banned, fault_banned) = only(BANNED);
    let (cause_listed, fault_listed) = only(NOT_ALLOWED);
    let lift: Option<fn(&mut Stage)> = Some(Stage::lift_all_bans);
    let no_list: Option<fn(&mut Stage)> = Some(|stage| stage.give(Input::SetAllowed { peers: None }));
    run(vec![
        Case {
            name: "a connected peer is banned",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.connect();
                stage.ban(BanTarget::Peer(stage.peer));
                stage
            },
            cause: cause_banned,
            fault: fault_banned,
            says: "sold us spam",
            recover: lift,
        },
        Case {
            name: "the address of a connected peer is banned",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.connect();
                stage.ban(block_of_b(&stage));
                stage
            },
            cause: cause_banned,
            fault: fault_banned,
            says: "sold us spam",
            recover: lift,
        },
        Case {
            name: "the same an hour later",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.connect();
                stage.ban(block_of_b(&stage));
                stage.world.run_for(secs(3600));
                stage
            },
            cause: cause_banned,
            fault: fault_banned,
            says: "sold us spam",
            recover: lift,
        },
        Case {
            name: "the address of a peer that waits is banned",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.dial_fails(Failure::from(Fault::Timeout));
                stage.world.restart(stage.b);
                stage.ban(block_of_b(&stage));
                stage
            },
            cause: cause_banned,
            fault: Some((Fault::Timeout, "timeout")),
            says: "sold us spam",
            recover: lift,
        },
        Case {
            name: "an explicit connect to a banned address",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.ban(block_of_b(&stage));
                stage.name_b();
                connect_to_peer(&mut stage);
                assert_eq!(answer(&stage), Fault::Banned);
                stage
            },
            cause: cause_banned,
            fault: fault_banned,
            says: "sold us spam",
            recover: lift,
        },
        Case {
            name: "a penalty too many",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.connect();
                let (peer, penalty) = (stage.peer, Penalty::BadSignature);
                (0..2).for_each(|_| stage.give(Input::Penalise { peer, penalty }));
                stage
            },
            cause: cause_banned,
            fault: fault_banned,
            says: "a record with a bad signature",
            recover: Some(|stage| stage.world.run_for(secs(3600))),
        },
        Case {
            name: "banned at the peer",
            inject: || {
                let mut stage = Stage::new(calm());
                let (now, me) = (stage.world.now(), stage.world.id(stage.a));
                stage.world.nodes[1].manager.ban(now, BanTarget::Peer(me), "", None).unwrap();
                stage.name_b();
                stage.until_waiting();
                stage
            },
            cause: BACKOFF,
            fault: Some((Fault::RefusedByPeer(RejectReason::Banned), "refused-by-peer/banned")),
            says: "it is banned there",
            recover: Some(|stage| {
                let (now, me) = (stage.world.now(), stage.world.id(stage.a));
                assert!(stage.world.nodes[1].manager.unban(now, BanTarget::Peer(me)));
            }),
        },
        Case {
            name: "taken off the list",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.connect();
                stage.give(Input::SetAllowed { peers: Some(BTreeSet::new()) });
                stage
            },
            cause: cause_listed,
            fault: fault_listed,
            says: "peers().allow",
            recover: no_list,
        },
        Case {
            name: "a stranger comes that is not on the list",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.give(Input::SetAllowed { peers: Some(BTreeSet::new()) });
                comes_in(&mut stage, 1);
                stage
            },
            cause: cause_listed,
            fault: fault_listed,
            says: "not on this node's allow-list",
            recover: Some(|stage| {
                stage.give(Input::Allow { peer: stage.peer });
                stage.name_b();
            }),
        },
        Case {
            name: "an explicit connect to a peer that is not on the list",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.give(Input::SetAllowed { peers: Some(BTreeSet::new()) });
                stage.name_b();
                connect_to_peer(&mut stage);
                assert_eq!(answer(&stage), Fault::NotAllowed);
                stage
            },
            cause: cause_listed,
            fault: fault_listed,
            says: "peers().allow",
            recover: no_list,
        },
    ]);
}

/// A node with one outbound place, which another peer has; `a` wants `b`, too.
fn place_taken() -> Stage {
    let mut stage = Stage::new(PeersConfig { max_outbound: 1, ..calm() });
    let other = stage.world.add(passive());
    stage.world.seed_with(stage.a, other, Role::Known);
    stage.world.run_for(secs(2));
    assert_eq!(stage.world.peers_of(stage.a), BTreeSet::from([other]));
    stage
}

/// The place is free again.
fn free_place(stage: &mut Stage) {
    let other = stage.world.id(2);
    stage.goes(2);
    stage.give(Input::Disconnect { peer: other });
}

#[test]
fn what_is_short_is_told() {
    run(vec![
        Case {
            name: "no outbound place",
            inject: || {
                let mut stage = place_taken();
                stage.name_b();
                stage
            },
            cause: (Cause::NoPlace, "no-place"),
            fault: None,
            says: "waits for a free place",
            recover: Some(free_place),
        },
        Case {
            name: "no outbound place any more when the backoff is over",
            inject: || {
                let mut stage = place_taken();
                stage.world.run_for(secs(100));
                stage.world.crash(stage.b);
                stage.name_b();
                // So often that the backoff outlasts every other timer: then nothing wakes the node any more.
                for _ in 0..10 {
                    connect_to_peer(&mut stage);
                    stage.world.run_for(secs(6));
                }
                stage.world.restart(stage.b);
                stage.world.run_for(secs(3600));
                stage
            },
            cause: (Cause::NoPlace, "no-place"),
            fault: Some((Fault::Timeout, "timeout")),
            says: "waits for a free place",
            recover: Some(free_place),
        },
        Case {
            name: "the node's dial budget is spent",
            inject: || {
                let mut stage = Stage::new(PeersConfig { dial_burst: 1.0, dials_per_second: 0.01, ..calm() });
                let other = stage.world.add(passive());
                stage.world.seed_with(stage.a, other, Role::Known);
                stage.name_b();
                stage
            },
            cause: (Cause::DialBudget, "dial-budget"),
            fault: None,
            says: "enough dials were begun lately",
            recover: Some(|_| {}),
        },
        Case {
            name: "the dial budget of an address is spent",
            inject: || {
                let mut stage = Stage::new(PeersConfig { address_dial_burst: 1.0, ..calm() });
                let at = |port| SocketAddr::from(([60, 0, 0, 1], port));
                let two = [4000, 4001].map(|port| stage.world.add_at(passive(), at(port)));
                let teller = stage.world.add(passive());
                let records = two.map(|node| stage.world.nodes[node].record.clone());
                stage.world.nodes[teller].says = Some(records.to_vec());
                stage.world.seed_with(stage.a, teller, Role::Known);
                let ids = two.map(|node| stage.world.id(node));
                stage.until(|stage| ids.iter().all(|id| stage.world.nodes[0].manager.state(id).is_some()));
                let waits =
                    |id| matches!(stage.world.nodes[0].manager.state(id), Some(PeerState::Waiting { .. }));
                let waiting: Vec<_> = ids.iter().filter(|id| waits(id)).collect();
                assert_eq!(waiting.len(), 1);
                stage.peer = *waiting[0];
                stage
            },
            cause: (Cause::DialBudget, "dial-budget"),
            fault: None,
            says: "enough dials were begun lately",
            recover: Some(|_| {}),
        },
        Case {
            name: "the dial budget of an address is spent after a failure",
            inject: || {
                let mut stage = Stage::new(PeersConfig { address_dial_burst: 1.0, ..calm() });
                let teller = stage.world.add(passive());
                let record = stage.world.nodes[stage.b].record.clone();
                stage.world.nodes[teller].says = Some(vec![record]);
                stage.world.crash(stage.b);
                stage.world.seed_with(stage.a, teller, Role::Known);
                stage.until(|stage| stage.why().history.iter().any(|entry| entry.cause == Cause::DialBudget));
                stage
            },
            cause: (Cause::DialBudget, "dial-budget"),
            fault: Some((Fault::Timeout, "timeout")),
            says: "enough dials were begun lately",
            recover: Some(|stage| stage.world.restart(stage.b)),
        },
        Case {
            name: "backoff",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.world.crash(stage.b);
                stage.name_b();
                stage.world.run_for(secs(600));
                stage.until_waiting();
                stage
            },
            cause: BACKOFF,
            fault: Some((Fault::Timeout, "timeout")),
            says: " failures, due at ",
            recover: Some(|stage| stage.world.restart(stage.b)),
        },
        Case {
            name: "the peer is full",
            inject: || {
                let mut stage = Stage::with_peer(calm(), PeersConfig { max_inbound: 1, ..passive() });
                stage.third(None, Some(stage.b));
                stage.name_b();
                stage.until_waiting();
                stage
            },
            cause: BACKOFF,
            fault: Some((Fault::RefusedByPeer(RejectReason::Full), "refused-by-peer/full")),
            says: "it has no place free (all 1 inbound places are taken)",
            recover: Some(|stage| stage.goes(2)),
        },
        Case {
            name: "this node is full",
            inject: || {
                let mut stage = Stage::new(PeersConfig { max_inbound: 1, ..calm() });
                stage.third(None, Some(stage.a));
                stage.world.seed_with(stage.b, stage.a, Role::Known);
                let (address, target) = (stage.world.address(stage.a), Target::Address);
                stage.world.give(1, Input::Connect { ticket: Ticket(2), target: target(address) });
                stage.until(|stage| stage.why().fault.is_some());
                stage
            },
            cause: only((Fault::RefusedByUs(RejectReason::Full), "refused-by-us/full")).0,
            fault: Some((Fault::RefusedByUs(RejectReason::Full), "refused-by-us/full")),
            says: "no place is free here: all 1 inbound places are taken",
            recover: Some(Stage::name_b),
        },
        Case {
            name: "it says no hello while others wait",
            inject: || {
                let mut stage = Stage::new(PeersConfig { max_inbound_greetings: 1, ..calm() });
                comes_in(&mut stage, 1);
                let peer = std::mem::replace(&mut stage.peer, stage.world.stranger(1));
                comes_in(&mut stage, 2);
                stage.peer = peer;
                stage
            },
            cause: only((Fault::HelloTimeout, "hello-timeout")).0,
            fault: Some((Fault::HelloTimeout, "hello-timeout")),
            says: "said no hello while others waited",
            recover: Some(Stage::name_b),
        },
        Case {
            name: "too many explicit connects wait",
            inject: || {
                let mut stage = Stage::new(calm());
                for number in 0..1100u16 {
                    let [high, low] = number.to_be_bytes();
                    let nowhere = SocketAddr::from(([90, high, low, 1], 1));
                    let target = Target::Address(DialAddress::from_socket_addr(nowhere).unwrap());
                    stage.give(Input::Connect { ticket: Ticket(1000 + u64::from(number)), target });
                }
                connect_to_peer(&mut stage);
                assert_eq!(answer(&stage), Fault::TooManyConnects);
                stage
            },
            cause: only((Fault::TooManyConnects, "too-many-connects")).0,
            fault: Some((Fault::TooManyConnects, "too-many-connects")),
            says: "too many connects are waiting",
            recover: Some(Stage::name_b),
        },
    ]);
}

#[test]
fn what_the_user_did_and_what_the_overlay_does_is_told() {
    run(vec![
        Case {
            name: "disconnected by the user",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.connect();
                stage.give(Input::Disconnect { peer: stage.peer });
                stage
            },
            cause: (Cause::Held, "held"),
            fault: Some((Fault::Disconnected, "disconnected")),
            says: "the user wants no connection to it",
            recover: Some(Stage::name_b),
        },
        Case {
            name: "nobody has said anything of it",
            inject: || Stage::new(calm()),
            cause: (Cause::Unknown, "unknown"),
            fault: None,
            says: "is not known here: nothing is known of it",
            recover: Some(Stage::name_b),
        },
        Case {
            name: "no address",
            inject: || {
                let mut stage = Stage::new(calm());
                connect_to_peer(&mut stage);
                stage
            },
            cause: only((Fault::NoAddress, "no-address")).0,
            fault: Some((Fault::NoAddress, "no-address")),
            says: "add one with peers().add",
            recover: Some(Stage::name_b),
        },
        Case {
            name: "a teller may not name its addresses",
            inject: || {
                let mut stage = Stage::new(calm());
                let teller = stage.world.add(passive());
                let inside = "/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap();
                let record = SignedPeerRecord::sign(&stage.world.nodes[stage.b].key, 1, &[inside]).unwrap();
                stage.world.nodes[teller].says = Some(vec![record]);
                stage.world.seed_with(stage.a, teller, Role::Known);
                stage.world.run_for(secs(2));
                stage
            },
            cause: only((Fault::OutOfScope, "out-of-scope")).0,
            fault: Some((Fault::OutOfScope, "out-of-scope")),
            says: "in a network that is not its own",
            recover: Some(Stage::name_b),
        },
        Case {
            name: "a foreign node where none is wanted",
            inject: || {
                let mut stage = Stage::new(PeersConfig { foreign: ForeignPolicy::Refuse, ..calm() });
                let conn = stage.greet();
                stage.give(Input::Foreign { conn });
                stage
            },
            cause: BACKOFF,
            fault: Some((Fault::RefusedByUs(RejectReason::ForeignRefused), "refused-by-us/foreign-refused")),
            says: "only Peerage nodes are admitted here",
            recover: Some(|_| {}),
        },
        Case {
            name: "rotated",
            inject: || {
                let rotation_interval = secs(60);
                let rotation_min_age = secs(10);
                let config = PeersConfig {
                    max_outbound: 1,
                    rotation_interval,
                    rotation_min_age,
                    ..Default::default()
                };
                let mut stage = Stage::new(config);
                stage.connect();
                let other = stage.world.add(passive());
                stage.world.seed_with(stage.a, other, Role::Known);
                stage.until(|stage| !stage.world.peers_of(stage.a).contains(&stage.b));
                stage
            },
            cause: BACKOFF,
            fault: Some((Fault::Rotated, "rotated")),
            says: "its place was given to another peer",
            recover: Some(free_place),
        },
        Case {
            name: "the peer was restarted and opens a newer connection",
            inject: || {
                let mut stage = Stage::new(calm());
                let to_a = stage.world.address(stage.a);
                let connect = |stage: &mut Stage| {
                    let target = Target::Address(to_a.clone());
                    stage.world.give(1, Input::Connect { ticket: Ticket(3), target });
                };
                connect(&mut stage);
                stage.until(|stage| !stage.world.peers_of(stage.a).is_empty());
                stage.world.restart(stage.b);
                connect(&mut stage);
                stage.until(|stage| stage.why().fault.is_some());
                assert!(matches!(stage.state(), Some(PeerState::Greeting { .. })));
                stage
            },
            cause: only((Fault::Replaced, "replaced")).0,
            fault: Some((Fault::Replaced, "replaced")),
            says: "the peer opened a newer connection in its place",
            recover: Some(|_| {}),
        },
        Case {
            name: "this node shuts down while a peer waits",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.dial_fails(Failure::from(Fault::Timeout));
                stage.give(Input::ShutDown);
                stage
            },
            cause: only((Fault::ThisNodeCloses, "this-node-closes")).0,
            fault: Some((Fault::Timeout, "timeout")),
            says: "this node is shutting down",
            recover: None,
        },
        Case {
            name: "this node shuts down during a dial",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.name_b();
                stage.give(Input::ShutDown);
                stage
            },
            cause: only((Fault::ThisNodeCloses, "this-node-closes")).0,
            fault: Some((Fault::ThisNodeCloses, "this-node-closes")),
            says: "this node is shutting down",
            recover: None,
        },
    ]);
}

/// Two nodes with one key; the second of them is `b`.
fn clones() -> Stage {
    let mut world = World::new(7);
    let key = NodeKey::from_seed([9; 32]);
    let peer = key.peer_id();
    let [a, b] = [1, 2]
        .map(|host| world.add_with_key(calm(), SocketAddr::from(([70, 0, host, 1], 4000)), key.clone()));
    Stage { world, a, b, peer }
}

#[test]
fn oneself_and_ones_clone_are_told_apart() {
    let (cause_self, fault_self) =
        only((Fault::RefusedByUs(RejectReason::SelfDial), "refused-by-us/self-dial"));
    let (cause_clone, fault_clone) = only((Fault::RefusedByUs(RejectReason::Clone), "refused-by-us/clone"));
    run(vec![
        Case {
            name: "this node is told its own address",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.peer = stage.world.id(stage.a);
                let address = stage.world.address(stage.a).without_peer_id();
                stage.give(Input::Add { address, role: Role::Seed });
                stage.world.run_for(secs(2));
                stage
            },
            cause: cause_self,
            fault: fault_self,
            says: "that is this node itself",
            recover: None,
        },
        Case {
            name: "an explicit connect to itself",
            inject: || {
                let mut stage = Stage::new(calm());
                stage.peer = stage.world.id(stage.a);
                connect_to_peer(&mut stage);
                stage
            },
            cause: cause_self,
            fault: fault_self,
            says: "is this node itself",
            recover: None,
        },
        Case {
            name: "this node meets its clone",
            inject: || {
                let mut stage = clones();
                let address = stage.world.address(stage.b).without_peer_id();
                stage.give(Input::Add { address, role: Role::Seed });
                stage.world.run_for(secs(2));
                stage
            },
            cause: cause_clone,
            fault: fault_clone,
            says: "another node runs with the same key",
            recover: None,
        },
        Case {
            name: "a clone of this node has its place at the peer",
            inject: || {
                let mut stage = clones();
                let clone = std::mem::replace(&mut stage.b, 2);
                let third = stage.world.add(passive());
                stage.peer = stage.world.id(third);
                for node in [stage.a, clone] {
                    stage.world.seed_with(node, third, Role::Persistent);
                    stage.world.run_for(secs(60));
                }
                stage.until_waiting();
                stage
            },
            cause: BACKOFF,
            fault: Some((Fault::RefusedByPeer(RejectReason::Clone), "refused-by-peer/clone")),
            says: "another node runs with the same key",
            recover: Some(|stage| stage.goes(1)),
        },
    ]);
}

/// A peer stays told as connected whatever happens to other connections and dials; and the latest cause counts when the date is set back.
#[test]
fn neither_a_second_connection_nor_a_date_that_jumps_back_misleads() {
    let mut stage = Stage::new(calm());
    stage.connect();
    comes_in(&mut stage, 1);
    let conn = ConnId(1_000_001);
    let failure = Failure::from(Fault::HelloTimeout);
    stage.give(Input::Closed { conn, failure, useful: false });
    check_recovery("a second connection fails", &mut stage);
    let disconnected = |(_, event): &(Duration, PeerEvent)| matches!(event, PeerEvent::Disconnected { .. });
    assert!(!stage.world.nodes[stage.a].events.iter().any(disconnected));

    let mut stage = Stage::new(calm());
    stage.dial_fails(Failure::from(Fault::Timeout));
    stage.until(|stage| matches!(stage.state(), Some(PeerState::Dialling { .. })));
    let Some(PeerState::Dialling { attempt, .. }) = stage.state() else { panic!("{}", stage.why()) };
    let mut now = stage.world.now();
    now.unix -= secs(86_400);
    let failure = Failure::from(Fault::WrongKey);
    let a = stage.a;
    peerage_machine::Machine::handle(
        &mut stage.world.nodes[a].manager,
        now,
        Input::DialFailed { attempt, failure },
    );
    let fault = Some((Fault::WrongKey, "wrong-key"));
    check("a date set back", &stage.why(), BACKOFF, fault, "another peer lives at the address");
}
