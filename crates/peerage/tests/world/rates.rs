//! The rates of channels: what passes at once, and how fast it goes on.

use std::sync::Arc;
use std::time::Duration;

use peerage::{Channel, ChannelConfig, Node, NodeKey, Raw};
use tokio::time::Instant;

use crate::clock::{SECOND, pass, until, within};
use crate::network::World;
use crate::stranger::{Stranger, framed};

const NAME: &str = "/rate/1";

/// A node at 10.0.0.1 with a channel.
async fn receiver(world: &Arc<World>, config: ChannelConfig) -> (Node, Channel<Raw>) {
    let builder = world.machine(1, &["10.0.0.1"]).node().max_outbound(0);
    let node = builder.listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap();
    let channel = node.channel(config).unwrap();
    (node, channel)
}

/// A message so many times, as it crosses the wire.
fn many(message: &[u8], times: usize) -> Vec<u8> {
    framed(message).repeat(times)
}

/// A sender that knows no rate is held to the receiver's all the same.
/// Contract C-10.
#[tokio::test(start_paused = true)]
async fn the_receiver_takes_no_more_than_its_rate() {
    let world = World::new();
    let (node, channel) = receiver(&world, ChannelConfig::new(NAME).messages_per_second(100)).await;
    let old = Stranger::speaking(&world, "10.0.0.2", &node, &[1], &[NAME]).await;
    let start = Instant::now();
    let _stream = old.begin(NAME, many(b"x", 350)).await;
    until("all to arrive", || {
        let (received, passed) = (channel.totals().received, start.elapsed());
        // Two seconds' worth at once, and then the rate.
        assert!(received as f64 <= 201.0 + 100.0 * passed.as_secs_f64(), "{received} after {passed:?}");
        received == 350
    })
    .await;
    let took = start.elapsed();
    assert!(took > SECOND * 14 / 10 && took < SECOND * 2, "{took:?}");
}

/// Contract C-10. A message that is longer than all that may come at once takes its time all the same.
#[tokio::test(start_paused = true)]
async fn the_receivers_rate_holds_for_messages_longer_than_it() {
    let world = World::new();
    let (node, channel) = receiver(&world, ChannelConfig::new(NAME).bytes_per_second(1000)).await;
    let old = Stranger::speaking(&world, "10.0.0.2", &node, &[1], &[NAME]).await;
    let start = Instant::now();
    let _stream = old.begin(NAME, many(&[0; 2500], 6)).await;
    until("the second one", || {
        let (received, passed) = (channel.totals().received_bytes, start.elapsed());
        // Two seconds' worth at once, then the rate, and one that is too long.
        assert!(received as f64 <= 4502.0 + 1000.0 * passed.as_secs_f64(), "{received} after {passed:?}");
        channel.totals().received == 2
    })
    .await;
    let took = start.elapsed();
    assert!(took > SECOND * 24 / 10 && took < SECOND * 4, "{took:?}");
}

/// Contract C-10.
#[tokio::test(start_paused = true)]
async fn many_streams_of_a_peer_share_the_receivers_rate() {
    let world = World::new();
    let (node, channel) = receiver(&world, ChannelConfig::new(NAME).messages_per_second(20)).await;
    let old = Stranger::speaking(&world, "10.0.0.2", &node, &[1], &[NAME]).await;
    let start = Instant::now();
    for _ in 0..40 {
        old.begin(NAME, many(b"x", 10)).await.send.finish().unwrap();
    }
    until("more than comes at once", || {
        let (received, passed) = (channel.totals().received, start.elapsed());
        assert!(received as f64 <= 41.0 + 20.0 * passed.as_secs_f64(), "{received} after {passed:?}");
        received > 60
    })
    .await;
    let took = start.elapsed();
    assert!(took > SECOND * 9 / 10 && took < SECOND * 2, "{took:?}");
}

/// Contract C-10.
#[tokio::test(start_paused = true)]
async fn a_peer_that_comes_back_finds_the_receivers_rate_as_it_left_it() {
    let world = World::new();
    let (node, channel) = receiver(&world, ChannelConfig::new(NAME).messages_per_second(20)).await;
    let key = NodeKey::generate();
    let start = Instant::now();
    for times in 0..8 {
        let endpoint = Stranger::endpoint(&world, &format!("10.0.{times}.2"), &key, |_| ()).await;
        let old = Stranger::over(key.clone(), endpoint, &node).await;
        old.meet_speaking(2 * times + 1, &[1], &[]).await;
        let _stream = old.begin(NAME, many(b"x", 40)).await;
        let before = channel.totals().received;
        until("some more", || {
            let (received, passed) = (channel.totals().received, start.elapsed());
            assert!(received as f64 <= 41.0 + 20.0 * passed.as_secs_f64(), "{received} after {passed:?}");
            received >= before + 4
        })
        .await;
        old.leave(&node).await;
    }
}

/// Contract C-10.
#[tokio::test(start_paused = true)]
async fn the_rate_holds_on_the_way_and_the_senders_queue_bears_it() {
    let world = World::new();
    let (b, at_b) = receiver(&world, ChannelConfig::new(NAME).messages_per_second(50)).await;
    let a = world.machine(2, &["10.0.0.2"]).node().start().await.unwrap();
    let at_a = a.channel::<Raw>(ChannelConfig::new(NAME)).unwrap();
    within("a connection", a.connect(&b.listen_addresses()[0])).await.unwrap();
    let message = Raw(b"x"[..].into());
    at_a.send(b.peer_id(), &message).await.unwrap();
    let sender = at_a.to(b.peer_id()).unwrap();
    let start = Instant::now();
    for _ in 0..120 {
        sender.send(&message).await.unwrap();
    }
    assert!(start.elapsed() < SECOND / 10, "the queue bears it");
    until("a second's worth and the first one", || at_b.totals().received > 50).await;
    until("all", || at_b.totals().received == 121).await;
    let took = start.elapsed();
    let expected = Duration::from_millis(1200)..Duration::from_millis(2000);
    assert!(expected.contains(&took), "120 messages at 50 a second, 50 of them at once: {took:?}");
    pass(SECOND).await;
    assert_eq!(at_b.totals().received, 121, "each once");
}
