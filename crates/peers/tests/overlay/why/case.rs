//! A fault that takes more than one input to come about, and what `why` says of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use peerage_peers::{BanTarget, Cause, ConnId, Direction, Fault, Input, PeersConfig, Role, Target, Ticket};

use crate::support::secs;
use crate::why::{Stage, calm, check, check_recovery, passive};

/// A fault that takes more than one input.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) inject: fn() -> Stage,
    pub(crate) cause: (Cause, &'static str),
    pub(crate) fault: Option<(Fault, &'static str)>,
    pub(crate) says: &'static str,
    /// What takes the fault away; the peer is connected then, by and by.
    pub(crate) recover: Option<fn(&mut Stage)>,
}

pub(crate) const BACKOFF: (Cause, &str) = (Cause::Backoff, "backoff");
pub(crate) const BANNED: (Fault, &str) = (Fault::Banned, "banned");
pub(crate) const NOT_ALLOWED: (Fault, &str) = (Fault::NotAllowed, "not-allowed");

/// The cause and the fault are one.
pub(crate) fn only(fault: (Fault, &'static str)) -> ((Cause, &'static str), Option<(Fault, &'static str)>) {
    ((Cause::Failed(fault.0), fault.1), Some(fault))
}

pub(crate) fn run(cases: Vec<Case>) {
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
pub(crate) fn comes_in(stage: &mut Stage, conn: u64) {
    let remote = SocketAddr::from(([60, 0, 0, 1], 4000));
    let (conn, peer, direction) = (ConnId(1_000_000 + conn), stage.peer, Direction::Inbound);
    stage.give(Input::Handshaken { conn, peer, direction, remote, attempt: None });
}

pub(crate) fn connect_to_peer(stage: &mut Stage) {
    let target = Target::Peer(stage.peer);
    stage.give(Input::Connect { ticket: Ticket(1), target });
}

/// What the user's connect to `stage.peer` was answered.
pub(crate) fn answer(stage: &Stage) -> Fault {
    stage.world.nodes[stage.a].answers[&Ticket(1)].clone().unwrap_err().fault
}

pub(crate) fn block_of_b(stage: &Stage) -> BanTarget {
    BanTarget::address(stage.world.nodes[stage.b].address.ip())
}

/// A node with one outbound place, which another peer has; `a` wants `b`, too.
pub(crate) fn place_taken() -> Stage {
    let mut stage = Stage::new(PeersConfig { max_outbound: 1, ..calm() });
    let other = stage.world.add(passive());
    stage.world.seed_with(stage.a, other, Role::Known);
    stage.world.run_for(secs(2));
    assert_eq!(stage.world.peers_of(stage.a), BTreeSet::from([other]));
    stage
}

/// The place is free again.
pub(crate) fn free_place(stage: &mut Stage) {
    let other = stage.world.id(2);
    stage.goes(2);
    stage.give(Input::Disconnect { peer: other });
}
