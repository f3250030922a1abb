//! What the user did, what the overlay does by itself, and what must not mislead.

use std::time::Duration;

use peerage_identity::SignedPeerRecord;
use peerage_peers::{
    Cause, ConnId, Failure, Fault, ForeignPolicy, Input, PeerEvent, PeerState, PeersConfig, RejectReason,
    Role, Target, Ticket,
};

use crate::support::secs;
use crate::why::case::{BACKOFF, Case, comes_in, connect_to_peer, free_place, only, run};
use crate::why::{Stage, calm, check, check_recovery, passive};

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
            says: "whoever told us of them may not name: told by ",
            recover: Some(Stage::name_b),
        },
        Case {
            name: "a foreign node where none is wanted",
            inject: || {
                let mut stage = Stage::new(PeersConfig { foreign: Some(ForeignPolicy::Refuse), ..calm() });
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
