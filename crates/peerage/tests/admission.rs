//! Who is let in, over real QUIC on loopback: classes, bans, refusals.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use peerage::{
    BanError, BanTarget, ConnectError, Node, NodeBuilder, PeerClass, PeerEvent, PeersConfig, Penalty,
    StartError,
};

mod common;

use common::{event, within};

fn builder() -> NodeBuilder {
    common::builder().max_outbound(0)
}

async fn refusal(from: &Node, to: &Node) -> String {
    match within("a refusal", from.connect(&to.listen_addresses()[0])).await {
        Err(ConnectError::Failed { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

/// Contract C-30.
#[tokio::test]
async fn a_banned_peer_is_hung_up_on_and_told_so_until_the_ban_is_lifted() {
    let (hub, guest) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    guest.connect(&hub.listen_addresses()[0]).await.unwrap();
    let mut watch = guest.peers().watch().await.unwrap();
    let target = BanTarget::Peer(guest.peer_id());
    hub.peers().ban(target, "too loud", Some(Duration::from_secs(600))).await.unwrap();
    let gone = event(&mut watch, "the end", |event| matches!(event, PeerEvent::Disconnected { .. })).await;
    assert!(format!("{gone:?}").contains("banned"), "{gone:?}");
    let refused = refusal(&guest, &hub).await;
    assert!(refused.contains("it is banned there") && !refused.contains("loud"), "{refused}");
    let bans = hub.peers().bans().await;
    assert_eq!((bans[0].target, bans[0].reason.as_str()), (target, "too loud"));
    assert_eq!(hub.peers().ban(BanTarget::Peer(hub.peer_id()), "", None).await, Err(BanError::Own));
    assert!(hub.peers().unban(target).await);
    assert!(hub.peers().bans().await.is_empty());
    guest.connect(&hub.listen_addresses()[0]).await.unwrap();
}

#[tokio::test]
async fn a_banned_address_is_refused_before_tls_and_an_unconditional_peer_there_is_not() {
    let (hub, guest, friend) = (
        builder().start().await.unwrap(),
        builder().start().await.unwrap(),
        builder().start().await.unwrap(),
    );
    let target = BanTarget::address([127, 0, 0, 1].into());
    hub.peers().ban(target, "", None).await.unwrap();
    let refused = refusal(&guest, &hub).await;
    assert!(refused.contains("takes no new connection"), "{refused}");
    // Once the friend's address is known, whoever comes from it is heard, and all but the friend are refused by name.
    hub.peers().set_class(friend.peer_id(), PeerClass::Unconditional).await;
    hub.peers().add(&friend.listen_addresses()[0].to_string()).await.unwrap();
    friend.connect(&hub.listen_addresses()[0]).await.unwrap();
    let refused = refusal(&guest, &hub).await;
    assert!(refused.contains("it is banned there"), "{refused}");
}

#[tokio::test]
async fn a_full_node_admits_whom_it_was_told_to_at_the_start_and_at_run_time() {
    let key = peerage::NodeKey::from_seed([7; 32]);
    let hub = builder().max_inbound(0).unconditional(key.peer_id()).start().await.unwrap();
    let friend = builder().key(key).start().await.unwrap();
    let guest = builder().start().await.unwrap();
    let mut watch = hub.peers().watch().await.unwrap();
    friend.connect(&hub.listen_addresses()[0]).await.unwrap();
    assert!(refusal(&guest, &hub).await.contains("it has no place free"));
    event(&mut watch, "the refusal", |event| matches!(event, PeerEvent::Refused { .. })).await;
    hub.peers().set_class(guest.peer_id(), PeerClass::Persistent).await;
    assert!(hub.peers().classes().await.contains(&(guest.peer_id(), PeerClass::Persistent)));
    guest.connect(&hub.listen_addresses()[0]).await.unwrap();
    hub.peers().unset_class(guest.peer_id(), PeerClass::Persistent).await;
    assert_eq!(hub.peers().classes().await, [(friend.peer_id(), PeerClass::Unconditional)]);
    assert_eq!(hub.peers().connected().len(), 2, "it stays, and counts from now on");
}

#[tokio::test]
async fn a_full_node_that_said_so_often_enough_refuses_strangers_before_tls() {
    let config = PeersConfig {
        max_inbound: 0,
        max_outbound: 0,
        max_inbound_visits: 0,
        refusal_burst: 2.0,
        refusals_per_second: 0.001,
        ..PeersConfig::default()
    };
    let hub = builder().peers_config(config).start().await.unwrap();
    let guest = builder().start().await.unwrap();
    for _ in 0..2 {
        assert!(refusal(&guest, &hub).await.contains("it has no place free"));
    }
    assert!(refusal(&guest, &hub).await.contains("takes no new connection"));
}

#[tokio::test]
async fn what_an_application_finds_false_costs_its_sender_the_connection() {
    let (hub, guest) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    let mut watch = hub.peers().watch().await.unwrap();
    guest.connect(&hub.listen_addresses()[0]).await.unwrap();
    let mut at_guest = guest.peers().watch().await.unwrap();
    for _ in 0..5 {
        hub.peers().penalise(guest.peer_id(), Penalty::BadContent).await;
    }
    let banned = event(&mut watch, "the ban", |event| matches!(event, PeerEvent::Banned { .. })).await;
    assert!(matches!(banned, PeerEvent::Banned { ban } if ban.penalty == Some(Penalty::BadContent)));
    event(&mut at_guest, "the end", |event| matches!(event, PeerEvent::Disconnected { .. })).await;
    assert!(refusal(&guest, &hub).await.contains("it is banned there"));
}

#[tokio::test]
async fn a_class_for_nobody_is_refused_at_the_start_with_the_remedy() {
    let bad = builder().private("nobody").start().await;
    assert!(matches!(bad, Err(StartError::PeerId { class: PeerClass::Private, .. })), "{bad:?}");
    let no_id = builder().unconditional("/ip4/127.0.0.1/udp/1/quic-v1").start().await;
    assert!(matches!(no_id, Err(StartError::Address(_))), "{no_id:?}");
}
