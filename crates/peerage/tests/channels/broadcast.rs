//! Broadcasts: to whom, and what each of them says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use peerage::{
    Channel, ChannelConfig, Node, Overflow, PeerId, Raw, SendError, To, TransportSettings, Verdict,
};
use tokio::time::timeout;

use crate::support::{Handmade, builder, connected, join, raw, within};

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

/// A peer that agrees to the channel's name and says no more, and one that grants no stream, hold nobody up.
/// Contract C-46.
#[tokio::test]
async fn a_peer_that_never_answers_holds_up_neither_a_broadcast_nor_a_sender_beyond_its_time() {
    let after = Duration::from_secs(1);
    let transport = TransportSettings { negotiation_timeout: after, ..TransportSettings::default() };
    let hub = builder().transport_settings(transport).start().await.unwrap();
    let name = "/test/news/1";
    let config = || ChannelConfig::new(name).overflow(Overflow::Refuse);
    let keen = builder().start().await.unwrap();
    let at_keen = keen.channel::<Raw>(config()).unwrap();
    join(&keen, &hub).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(Handmade::connect(&hub, &[2], &[name]).await);
    }
    let closed = Handmade::connect(&hub, &[2], &[name]).await;
    let mut held = Vec::new();
    // Until one has to wait, all that the peer grants are in use: it takes no stream in, and so gives none back.
    let opening = || timeout(Duration::from_millis(500), hub.open(closed.id, "/test/held/1"));
    while let Ok(opened) = opening().await {
        held.push(opened.unwrap());
    }
    let at_hub = hub.channel::<Raw>(config()).unwrap();
    // A sender that has nothing to send yet asks nothing of its peer.
    let idle = at_hub.to(silent[0].id).unwrap();
    tokio::time::sleep(after + after / 2).await;
    assert_eq!(idle.queued(), 0);
    let streams = futures::future::join_all(silent.iter().map(|peer| peer.accept(name)));
    let (start, news) = (Instant::now(), raw("news"));
    let (verdicts, streams) =
        within("a broadcast", async { tokio::join!(at_hub.broadcast(&news), streams) }).await;
    let took = start.elapsed();
    assert!(took >= after, "they had their time: {took:?}");
    for (peer, verdict) in &verdicts {
        match verdict {
            Ok(()) => assert!(*peer == keen.peer_id() || *peer == closed.id),
            Err(SendError::Lost { cause, .. }) => {
                assert!(
                    silent.iter().any(|silent| silent.id == *peer) && cause.contains("did not say"),
                    "{cause}"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(verdicts.len(), 5);
    assert_eq!(within("the news", at_keen.recv()).await, Some((hub.peer_id(), raw("news"))));
    // What the silent ones were sent is of unknown fate; what waits for a stream still waits.
    assert_eq!((at_hub.totals().unknown, at_hub.totals().lost), (3, 0));
    assert_eq!(at_hub.status(closed.id).unwrap().queued_messages, 1);
    // When the peer takes streams again, it gets the message.
    drop((held, streams));
    let mut stream = closed.accept(name).await;
    assert_eq!(within("the news", stream.recv.read_frame(100)).await.unwrap().unwrap(), &b"news"[..]);
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
