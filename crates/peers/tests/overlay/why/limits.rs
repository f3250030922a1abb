//! Places, budgets and other things that run short.

use std::net::SocketAddr;

use peerage_identity::DialAddress;
use peerage_peers::{Cause, Fault, Input, PeerState, PeersConfig, RejectReason, Role, Target, Ticket};

use crate::support::secs;
use crate::why::case::{
    BACKOFF, Case, answer, comes_in, connect_to_peer, free_place, only, place_taken, run,
};
use crate::why::{Stage, calm, passive};

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
            says: " failures, to be dialled in ",
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
