//! Broadcasts: to whom, and what each of them says.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage::{Channel, ChannelConfig, Node, Overflow, PeerId, Raw, SendError, To, Verdict};

use crate::common::{builder, connected, join, raw, within};
use crate::support::Handmade;

fn config() -> ChannelConfig {
    ChannelConfig::new("/test/news/1").skip_known()
}

/// A hub and some nodes around it that are connected to it alone.
async fn star(nodes: usize) -> (Node, Channel<Raw>, Vec<(Node, Channel<Raw>)>) {
    let hub = builder().start().await.unwrap();
    let at_hub = hub.channel::<Raw>(config()).unwrap();
    let mut others = Vec::new();
    for _ in 0..nodes {
        let node = builder().max_outbound(0).start().await.unwrap();
        let channel = node.channel::<Raw>(config()).unwrap();
        join(&node, &hub).await;
        others.push((node, channel));
    }
    (hub, at_hub, others)
}

fn reached(verdicts: &[(PeerId, Result<(), SendError>)]) -> BTreeSet<PeerId> {
    verdicts.iter().filter(|(_, verdict)| verdict.is_ok()).map(|(peer, _)| *peer).collect()
}

fn ids(nodes: &[(Node, Channel<Raw>)]) -> BTreeSet<PeerId> {
    nodes.iter().map(|(node, _)| node.peer_id()).collect()
}

/// one result for each recipient.
/// Contract C-12.
#[tokio::test]
async fn a_broadcast_goes_to_whom_it_is_meant_for_with_a_verdict_for_each() {
    let (hub, at_hub, others) = star(5).await;
    let all = ids(&others);
    let first = others[0].0.peer_id();
    let send = async |to: To| within("a broadcast", at_hub.broadcast_to(to, &raw("x"))).await;
    assert_eq!(reached(&send(To::All).await), all);
    let but = send(To::AllBut(vec![first])).await;
    assert_eq!(reached(&but), all.iter().copied().filter(|id| *id != first).collect());
    let stranger = peerage::NodeKey::generate().peer_id();
    let set = send(To::These(vec![stranger, first])).await;
    assert_eq!(set, [(stranger, Err(SendError::NotConnected { peer: stranger })), (first, Ok(()))]);
    let mut hit = BTreeSet::new();
    for _ in 0..60 {
        let one = reached(&send(To::Any).await);
        assert_eq!(one.len(), 1);
        hit.extend(one);
    }
    assert_eq!(hit, all, "any means each, in the long run");
    let confirmed = within("verdicts", at_hub.broadcast_confirmed(To::All, &raw("sure"))).await;
    assert!(confirmed.iter().all(|(_, verdict)| *verdict == Verdict::Delivered), "{confirmed:?}");
    assert_eq!(confirmed.iter().map(|(peer, _)| *peer).collect::<BTreeSet<_>>(), all);
    for (_, channel) in &others {
        let mut messages = Vec::new();
        while messages.last() != Some(&raw("sure")) {
            messages.push(within("a message", channel.recv()).await.unwrap().1);
        }
    }
    drop(hub);
}

#[tokio::test]
async fn a_fanout_always_has_the_persistent_peers_and_so_many_of_the_others() {
    let (hub, at_hub, others) = star(5).await;
    let friend = builder().max_outbound(0).start().await.unwrap();
    let _at_friend = friend.channel::<Raw>(config()).unwrap();
    hub.peers().add_persistent(&friend.listen_addresses()[0].to_string()).await.unwrap();
    connected(&hub, friend.peer_id()).await;
    let mut drawn = BTreeSet::new();
    for _ in 0..30 {
        let chosen = reached(&within("a broadcast", at_hub.broadcast_to(To::Fanout(2), &raw("x"))).await);
        assert!(chosen.contains(&friend.peer_id()), "the persistent peer is always among them");
        assert_eq!(chosen.len(), 3);
        drawn.extend(chosen);
    }
    assert_eq!(drawn.len(), others.len() + 1, "the others are drawn at random");
    let everyone = within("a broadcast", at_hub.broadcast_to(To::Fanout(100), &raw("x"))).await;
    assert_eq!(everyone.len(), 6, "fewer than the fanout: everybody");
}

/// FP-16.
#[tokio::test]
async fn what_a_peer_sent_is_not_sent_back_to_it() {
    let (hub, at_hub, others) = star(3).await;
    let (source, from_source) = &others[0];
    from_source.send(hub.peer_id(), &raw("news")).await.unwrap();
    let (from, news) = within("the news", at_hub.recv()).await.unwrap();
    assert_eq!(from, source.peer_id());
    let passed_on = within("a broadcast", at_hub.broadcast(&news)).await;
    assert_eq!(reached(&passed_on), ids(&others[1..]));
    let other = within("a broadcast", at_hub.broadcast(&raw("other news"))).await;
    assert_eq!(reached(&other), ids(&others));
    // Whoever is named gets it all the same.
    let named = within("a message", at_hub.broadcast_to(To::These(vec![from]), &news)).await;
    assert_eq!(named, [(from, Ok(()))]);
}

/// Contract C-46.
#[tokio::test]
async fn a_sender_waits_for_no_answer_longer_than_the_policy_says() {
    let hub = builder().start().await.unwrap();
    let name = "/test/news/1";
    let peer = Handmade::connect(&hub, &[2], &[name]).await;
    let after = Duration::from_millis(300);
    let waits = ChannelConfig::new(name).max_message_bytes(2 << 20).overflow(Overflow::Wait(after));
    let at_hub = hub.channel::<Raw>(waits).unwrap();
    // Larger than what the peer's hello says, which its first account may correct.
    let large = Raw(vec![0; (1 << 20) + 1].into());
    let sending = at_hub.send(peer.id, &large);
    let (refused, _stream) = within("a refusal", async { tokio::join!(sending, peer.accept(name)) }).await;
    assert_eq!(refused, Err(SendError::TimedOut { after }));
    let receipt = at_hub.queue_confirmed(peer.id, &raw("small")).await.unwrap();
    assert_eq!(within("a send", at_hub.send(peer.id, &raw("queued"))).await, Ok(()));
    // The peer's own time is longer, and when it is over, what was sent is told.
    let verdict = within("a verdict", receipt).await;
    assert!(matches!(verdict, Verdict::Unknown(SendError::Lost { .. })), "{verdict}");
}
