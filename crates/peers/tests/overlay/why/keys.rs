//! Oneself, and another node with one's key.

use std::net::SocketAddr;

use peerage_identity::NodeKey;
use peerage_peers::{Fault, Input, RejectReason, Role};

use crate::support::{World, secs};
use crate::why::case::{BACKOFF, Case, connect_to_peer, only, run};
use crate::why::{Stage, calm, passive};

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
            says: "this node itself",
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
