//! What peers leave unread, or say by half: how much of a node's memory, and of a connection, it may hold.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, MemoryLimits, Node, Raw};
use peerage_transport::{CloseCode, WriteError};
use tokio::time::timeout;

use crate::clock::{SECOND, pass, within};
use crate::network::World;
use crate::stranger::{Stranger, framed};

/// As long as a stream is given to take what is written on it, where the network takes ten milliseconds each way.
const LONG: Duration = Duration::from_secs(5);

/// A node at 10.0.0.1 that accounts for so many bytes.
async fn node(world: &Arc<World>, line: usize) -> Node {
    let builder = world.machine(1, &["10.0.0.1"]).node().max_outbound(0);
    let memory = MemoryLimits::default().node_bytes(line);
    builder.memory(memory).listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_foreign_peer_cannot_fill_the_connection_with_unread_channels() {
    let world = World::new();
    let node = node(&world, MemoryLimits::default().node_bytes).await;
    let config =
        |n: usize| ChannelConfig::new(format!("/foreign/{n}")).max_message_bytes(1000).receive_queue(4000, 4);
    let channels: Vec<_> = (0..6).map(|n| node.channel::<Raw>(config(n)).unwrap()).collect();
    let peer = Stranger::speaking(&world, "10.0.0.2", &node, &[1], &[]).await;
    let mut streams = Vec::new();
    let mut refused = 0;
    for channel in &channels {
        let mut stream = peer.connection.open_lazy(channel.name()).await.unwrap();
        let more = framed([0; 900]).repeat(4000);
        let pushed = timeout(LONG, stream.send.write_chunk(more.into())).await;
        // A stream that is stopped is refused; one that only waits fills its own window.
        refused += usize::from(matches!(pushed, Ok(Err(_))));
        streams.push(stream);
    }
    assert_eq!(refused, 3, "three windows of 2 MiB leave the reserve of an 8 MiB window free");
    let _free = peer.begin(channels[5].name(), framed("after all")).await;
    let after_all = async { while channels[5].recv().await.unwrap().1.0 != b"after all"[..] {} };
    within("its message", after_all).await;
}

/// Peers that come one after the other, leave something and go, of the newer form and of the older one.
/// Contract C-9.
#[tokio::test(start_paused = true)]
async fn what_departed_peers_left_unread_stays_within_the_memory_that_is_accounted_for() {
    for version in [2, 1] {
        let line = 256 * 1024;
        let world = World::new();
        let node = node(&world, line).await;
        let channel = node.channel::<Raw>(ChannelConfig::new("/departed/1")).unwrap();
        let check = || {
            let totals = channel.totals();
            let (waiting, accounted) = (totals.waiting_bytes, totals.accounted_bytes);
            assert!(waiting <= accounted && accounted <= line, "{waiting} wait, {accounted} of {line}");
        };
        for number in 0..30 {
            let peer = Stranger::speaking(&world, &format!("10.1.{number}.1"), &node, &[version], &[]).await;
            let totals = channel.totals();
            // A peer of the newer form may send no more before it was told how much.
            let mut stream = peer.begin(channel.name(), framed([7; 5000]).repeat(3)).await;
            let _ = stream.send.finish();
            // Taken whole, or refused when there is no memory left.
            let ends = async {
                while let Ok(Some(_)) = stream.recv.read_chunk(1 << 16).await {
                    check();
                }
            };
            // One that fits not quite is held back where no promise was made: it waits for the application, which takes nothing. Of the last
            // three eighths it would get too little.
            let fits = version == 2 || totals.accounted_bytes + 64 * 1024 <= line / 8 * 5;
            let ended = timeout(LONG, ends).await.is_ok();
            assert!(ended || !fits, "no end of the other half");
            check();
            let received = channel.totals().received - totals.received;
            assert!(!ended || [0, 3].contains(&received), "{received} of 3, then the end");
            peer.leave(&node).await;
            check();
        }
        let totals = channel.totals();
        assert!(totals.waiting_bytes > line / 2, "{totals:?}");
        while channel.try_recv().is_some() {
            check();
        }
        pass(SECOND).await;
        assert_eq!(channel.totals().accounted_bytes, 0, "all is given back");
        // And there is room again.
        let peer = Stranger::speaking(&world, "10.2.0.1", &node, &[version], &[]).await;
        let _stream = peer.begin(channel.name(), framed("late")).await;
        let late = Raw(Bytes::from_static(b"late"));
        assert_eq!(within("a message", channel.recv()).await, Some((peer.id(), late)));
    }
}

/// A peer that keeps to no credit sends all but the last byte of many messages.
/// Contract C-9.
#[tokio::test(start_paused = true)]
async fn half_messages_of_a_peer_without_credit_stay_within_the_memory_that_is_accounted_for() {
    let line = 1 << 20;
    let world = World::new();
    let node = node(&world, line).await;
    let channel = node.channel::<Raw>(ChannelConfig::new("/halves/1")).unwrap();
    let peer = Stranger::speaking(&world, "10.0.0.2", &node, &[1], &[]).await;
    let whole = framed(vec![3; 400_000]);
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..24 {
        let mut stream = peer.connection.open_lazy(channel.name()).await.unwrap();
        let half = whole.slice(..whole.len() - 1);
        let pushed: Result<Result<(), WriteError>, _> = timeout(LONG, stream.send.write_chunk(half)).await;
        let stopped = timeout(SECOND, stream.send.stopped()).await;
        if matches!(pushed, Ok(Err(_))) || stopped.is_ok() {
            refused += 1;
        } else {
            // It counts among the peer's streams as long as it is open.
            streams.push(stream);
        }
        let accounted = channel.totals().accounted_bytes;
        assert!(accounted <= line, "{accounted} of {line}");
    }
    assert!(channel.totals().accounted_bytes > line / 2, "{:?}", channel.totals());
    assert!(refused > 10, "{refused} of 24 were refused");
    // The first one is completed, and what it held is given back when it was taken.
    streams[0].send.write_chunk(whole.slice(whole.len() - 1..)).await.unwrap();
    assert_eq!(within("the whole message", channel.recv()).await.unwrap().1.0.len(), 400_000);
    peer.connection.close(CloseCode::Normal, "");
    pass(SECOND).await;
    assert_eq!(channel.totals().accounted_bytes, 0, "all is given back");
}
