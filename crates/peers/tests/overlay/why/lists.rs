//! Bans and the allow-list.

use std::collections::BTreeSet;

use peerage_peers::{BanTarget, Failure, Fault, Input, Penalty, RejectReason};

use crate::support::secs;
use crate::why::case::{
    BACKOFF, BANNED, Case, NOT_ALLOWED, answer, block_of_b, comes_in, connect_to_peer, only, run,
};
use crate::why::{Stage, calm};

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
