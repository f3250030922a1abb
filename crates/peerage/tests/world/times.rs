//! How long a node waits for whom: each time is set, and what it ends has ended then and not before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use peerage::{
    CertificateKind, ChannelConfig, Node, NodeLimits, Overflow, PeerId, Raw, Request, RequestError,
    SendError, ServeConfig, TransportSettings, Verdict,
};
use peerage_transport::{CloseCause, CloseCode, NegotiationError, ReadError, Stream, StreamCode};
use tokio::time::Instant;

use crate::clock::{SECOND, pass, within};
use crate::network::World;
use crate::stranger::Stranger;

const WILDCARD: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
const PING: &str = "/ipfs/ping/1.0.0";

fn limits(change: impl FnOnce(&mut NodeLimits)) -> NodeLimits {
    let mut limits = NodeLimits::default();
    change(&mut limits);
    limits
}

/// A node that dials nobody by itself, at 10.0.0.1.
async fn node(world: &Arc<World>, limits: NodeLimits) -> Node {
    let machine = world.machine(1, &["10.0.0.1"]);
    machine
        .node()
        .max_outbound(0)
        .limits(limits)
        .listen("/ip4/10.0.0.1/udp/4001/quic-v1")
        .start()
        .await
        .unwrap()
}

/// A second more or less is what the network and retries cost.
fn about(took: Duration, expected: Duration) -> bool {
    took >= expected && took < expected + SECOND
}

/// How long it takes until the node gives this stream up, and how. What it says before is passed over.
async fn given_up(stream: &mut Stream) -> (Duration, Option<StreamCode>) {
    let start = Instant::now();
    loop {
        match tokio::time::timeout(SECOND * 600, stream.recv.read_chunk(65_536)).await.expect("it is kept") {
            Ok(Some(_)) => {}
            Ok(None) => return (start.elapsed(), None),
            Err(
                ReadError::Reset { code, .. } | ReadError::Negotiation(NegotiationError::Reset { code, .. }),
            ) => {
                return (start.elapsed(), Some(code));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// who is not admitted in time is sent away.
#[tokio::test(start_paused = true)]
async fn a_stranger_has_as_long_for_its_hello_as_the_limit_says() {
    let world = World::new();
    for (number, timeout) in [(2, SECOND), (3, 9 * SECOND)] {
        let node = node(&world, limits(|limits| limits.hello_timeout = timeout)).await;
        let stranger = Stranger::dial(&world, &format!("10.0.0.{number}"), &node).await;
        let (took, cause) = stranger.ends().await;
        assert!(about(took + SECOND / 10, timeout), "{took:?} where {timeout:?} are allowed");
        assert!(matches!(&cause, CloseCause::ByPeer { code: CloseCode::HandshakeTimeout, .. }), "{cause:?}");
        node.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_without_an_echo_is_given_up_after_the_limit() {
    let world = World::new();
    let node = node(&world, limits(|limits| limits.ping_timeout = 3 * SECOND)).await;
    let stranger = Stranger::join(&world, "10.0.0.2", &node).await;
    let start = Instant::now();
    let (_unanswered, pinged) = tokio::join!(stranger.next(PING), node.ping(stranger.id()));
    assert!(about(start.elapsed(), 3 * SECOND), "{:?}", start.elapsed());
    assert!(matches!(pinged, Err(RequestError::Deadline { after, .. }) if after == 3 * SECOND), "{pinged:?}");
}

#[tokio::test(start_paused = true)]
async fn a_ping_stream_may_be_silent_for_two_minutes_and_no_longer() {
    let world = World::new();
    let node = node(&world, NodeLimits::default()).await;
    let stranger = Stranger::join(&world, "10.0.0.2", &node).await;
    let mut stream = stranger.begin(PING, vec![1; 32]).await;
    for _ in 0..2 {
        assert_eq!(stream.recv.read_chunk(32).await.unwrap().unwrap().len(), 32);
        pass(119 * SECOND).await;
        stream.send.write_chunk(Bytes::from(vec![1; 32])).await.unwrap();
    }
    assert_eq!(stream.recv.read_chunk(32).await.unwrap().unwrap().len(), 32);
    let (took, how) = given_up(&mut stream).await;
    assert!(about(took, 119 * SECOND + SECOND / 2) && how.is_none(), "{took:?} {how:?}");
}

/// streams of identify and of the exchange that say nothing, or half of something, are given up on either side.
#[tokio::test(start_paused = true)]
async fn who_says_half_of_something_is_waited_for_ten_seconds() {
    let world = World::new();
    let node = node(&world, NodeLimits::default()).await;
    let stranger = Stranger::join(&world, "10.0.0.2", &node).await;
    // What the node is told.
    for name in ["/ipfs/id/push/1.0.0", "/peerage/exchange/1"] {
        let start = Instant::now();
        let stream = stranger.begin(name, vec![40, 1]).await;
        let stopped = tokio::time::timeout(60 * SECOND, stream.send.stopped()).await.expect("it is kept");
        assert!(about(start.elapsed(), 10 * SECOND), "{name}: {:?} {stopped:?}", start.elapsed());
    }
    // What the node asks.
    let start = Instant::now();
    let asked = tokio::join!(stranger.next("/ipfs/id/1.0.0"), node.identify(stranger.id())).1;
    assert!(about(start.elapsed(), 10 * SECOND), "{:?}", start.elapsed());
    assert!(asked.unwrap_err().to_string().contains("in time"));
}

///
#[tokio::test(start_paused = true)]
async fn a_peer_that_is_asked_whom_it_knows_has_ten_seconds_for_its_answer() {
    let world = World::new();
    let machine = world.machine(1, &["10.0.0.1"]);
    let node = machine.node().listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap();
    let (stranger, mut stream) = asked(&world, &node).await;
    let start = Instant::now();
    stream.send.write_chunk(Bytes::from_static(&[40, 1])).await.unwrap();
    let _ = tokio::time::timeout(60 * SECOND, stream.send.stopped()).await.expect("it is kept");
    assert!(about(start.elapsed() + SECOND / 10, 10 * SECOND), "{:?}", start.elapsed());
    drop(stranger);
}

/// A stranger that `node` dials, and the stream on which it asks whom that one knows.
pub(crate) async fn asked(world: &Arc<World>, node: &Node) -> (Stranger, Stream) {
    let key = peerage::NodeKey::generate();
    let endpoint = Stranger::endpoint(world, "10.0.0.2", &key, |_| ()).await;
    let dialling = async { node.connect("/ip4/10.0.0.2/udp/4001/quic-v1").await.unwrap() };
    let meeting = async {
        let connection = endpoint.accept().await.unwrap().accept().await.unwrap();
        connection.admit();
        let stranger = Stranger { key: key.clone(), endpoint: endpoint.clone(), connection };
        stranger.meet(1, &stranger.hello(1)).await;
        stranger
    };
    let (_, stranger) = tokio::join!(dialling, meeting);
    let stream = stranger.next("/peerage/exchange/1").await;
    (stranger, stream)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_and_an_answer_that_is_not_taken_are_given_up_after_their_limits() {
    let world = World::new();
    let node = node(&world, NodeLimits::default()).await;
    let config =
        ServeConfig { request_timeout: 3 * SECOND, stall_timeout: 20 * SECOND, ..ServeConfig::default() };
    let answer = Raw(Bytes::from(vec![1; 1 << 20]));
    node.serve_with("/long/1", config, move |_: Request<Raw>| {
        let answer = answer.clone();
        async move { Ok(answer) }
    })
    .unwrap();
    // So little that the answer does not fit into the window of its stream.
    let key = peerage::NodeKey::generate();
    let endpoint =
        Stranger::endpoint(&world, "10.0.0.2", &key, |settings| settings.stream_window_bytes = 65_536).await;
    let stranger = Stranger::over(key, endpoint, &node).await;
    stranger.meet(1, &stranger.hello(1)).await;

    let mut half = stranger.begin("/long/1", vec![100, 1, 2, 3]).await;
    let (took, how) = given_up(&mut half).await;
    assert!(about(took, 3 * SECOND) && how == Some(StreamCode::TimedOut), "{took:?} {how:?}");
    for (pause, taken) in [(19 * SECOND, true), (22 * SECOND, false)] {
        let mut slow = stranger.begin("/long/1", vec![0]).await;
        slow.send.finish().unwrap();
        pass(pause).await;
        let how = given_up(&mut slow).await.1;
        let expected = (!taken).then_some(StreamCode::TimedOut);
        assert_eq!(how, expected, "after a pause of {pause:?}");
    }
}

/// A connection whose place a newer one took is closed when nothing has run on it for a second, when its peer answers no ping there within two, or when
/// the limit is over.
#[tokio::test(start_paused = true)]
async fn a_replaced_connection_is_kept_while_it_is_of_use_and_no_longer_than_the_limit() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Case {
        Quiet,
        Busy,
        Dead,
    }
    for (case, least) in [(Case::Quiet, SECOND), (Case::Busy, 6 * SECOND), (Case::Dead, 2 * SECOND)] {
        let world = World::new();
        let node = node(&world, limits(|limits| limits.replaced_timeout = 6 * SECOND)).await;
        let _raw = node.accept("/raw/1").unwrap();
        let old = Stranger::join(&world, "10.0.0.2", &node).await;
        let held = match case {
            Case::Quiet => None,
            Case::Busy | Case::Dead => Some(old.begin("/raw/1", vec![1]).await),
        };
        pass(SECOND).await;
        let pings = old.connection.clone();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Ok(stream) = pings.accept_stream().await {
                let Ok((_, mut stream)) = stream.negotiate(|name| name == PING, SECOND).await else {
                    continue;
                };
                if case == Case::Dead {
                    unanswered.push(stream);
                    continue;
                }
                while let Ok(Some(chunk)) = stream.recv.read_chunk(32).await {
                    let _ = stream.send.write_chunk(chunk).await;
                }
            }
        });
        let new = Stranger::over(old.key.clone(), old.endpoint.clone(), &node).await;
        let start = Instant::now();
        new.meet(5, &new.hello(5)).await;
        let (_, cause) = old.ends().await;
        let took = start.elapsed();
        assert!(about(took, least), "{case:?}: it was kept for {took:?}");
        assert!(
            matches!(&cause, CloseCause::ByPeer { code: CloseCode::Replaced, .. }),
            "{case:?}: {cause:?}"
        );
        assert!(node.peers().get(old.id()).is_some(), "{case:?}: the newer connection is there");
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_looks_at_its_interfaces_as_often_as_the_limit_says() {
    for interval in [2 * SECOND, 60 * SECOND] {
        let world = World::new();
        let machine = world.machine(1, &["10.0.0.1"]);
        let limits = limits(|limits| limits.interface_interval = interval);
        let node = machine.node().limits(limits).listen(WILDCARD).start().await.unwrap();
        let mut watch = node.watch_listen_addresses();
        pass(interval * 11 / 10).await;
        assert!(watch.next().now_or_never().is_none(), "nothing has changed yet");
        machine.show(&["10.0.0.1", "10.0.0.7"]);
        let start = Instant::now();
        assert_eq!(watch.next().await.unwrap().len(), 2);
        let took = start.elapsed();
        assert!(took > interval / 2 && took <= interval, "{took:?} with a look every {interval:?}");
    }
}

/// All the streams that a peer grants which takes none in, and so gives none back: the next one would have to wait.
async fn hold_all_streams(node: &Node, peer: PeerId) -> Vec<Stream> {
    let mut held = Vec::new();
    while let Ok(opened) = tokio::time::timeout(SECOND / 2, node.open(peer, "/held/1")).await {
        held.push(opened.unwrap());
    }
    assert!(!held.is_empty());
    held
}

/// A peer that agrees to the channel's name and says no more, and one that grants no stream, hold nobody up.
/// Contract C-46.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_holds_up_neither_a_broadcast_nor_a_sender_beyond_its_time() {
    const NEWS: &str = "/news/1";
    let world = World::new();
    let after = SECOND;
    let transport = TransportSettings {
        negotiation_timeout: after,
        certificate: CertificateKind::Ed25519,
        ..TransportSettings::default()
    };
    let builder = world.machine(1, &["10.0.0.1"]).node().max_outbound(0).transport_settings(transport);
    let hub = builder.listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap();
    let config = || ChannelConfig::new(NEWS).overflow(Overflow::Refuse);
    let keen = world.machine(2, &["10.0.0.2"]).node().start().await.unwrap();
    let at_keen = keen.channel::<Raw>(config()).unwrap();
    within("a connection", keen.connect(&hub.listen_addresses()[0])).await.unwrap();
    let mut silent = Vec::new();
    for number in 3..6 {
        silent.push(Stranger::speaking(&world, &format!("10.0.0.{number}"), &hub, &[2], &[NEWS]).await);
    }
    let closed = Stranger::speaking(&world, "10.0.0.6", &hub, &[2], &[NEWS]).await;
    let held = hold_all_streams(&hub, closed.id()).await;
    let at_hub = hub.channel::<Raw>(config()).unwrap();
    // A sender that has nothing to send yet asks nothing of its peer.
    let idle = at_hub.to(silent[0].id()).unwrap();
    pass(after + after / 2).await;
    assert_eq!(idle.queued(), 0);
    let streams = futures::future::join_all(silent.iter().map(|peer| peer.next(NEWS)));
    let (start, news) = (Instant::now(), Raw(Bytes::from_static(b"news")));
    let (verdicts, streams) =
        within("a broadcast", async { tokio::join!(at_hub.broadcast(&news), streams) }).await;
    // The silent ones had their time; the one that grants no stream is waited for a second longer.
    assert!(about(start.elapsed(), after + SECOND), "{:?}", start.elapsed());
    for (peer, verdict) in &verdicts {
        match verdict {
            Ok(()) => assert!(*peer == keen.peer_id() || *peer == closed.id()),
            Err(SendError::Lost { cause, .. }) => {
                assert!(silent.iter().any(|silent| silent.id() == *peer), "{peer}: {cause}");
                assert!(cause.contains("did not say"), "{cause}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(verdicts.len(), 5);
    assert_eq!(within("the news", at_keen.recv()).await, Some((hub.peer_id(), news)));
    // What the silent ones were sent is of unknown fate; what waits for a stream still waits.
    assert_eq!((at_hub.totals().unknown, at_hub.totals().lost), (3, 0));
    assert_eq!(at_hub.status(closed.id()).unwrap().queued_messages, 1);
    // When the peer takes streams again, it gets the message.
    drop((held, streams));
    let mut stream = closed.next(NEWS).await;
    assert_eq!(within("the news", stream.recv.read_frame(100)).await.unwrap().unwrap(), &b"news"[..]);
}

/// Contract C-44. A peer that grants no streams keeps a writer waiting for its stream; the channel's time ends that too.
#[tokio::test(start_paused = true)]
async fn a_dropped_channel_waits_no_longer_for_a_stream_that_the_peer_does_not_grant() {
    const NAME: &str = "/dropped/1";
    let world = World::new();
    let node = node(&world, NodeLimits::default()).await;
    let peer = Stranger::speaking(&world, "10.0.0.2", &node, &[2], &[NAME]).await;
    let _held = hold_all_streams(&node, peer.id()).await;
    let linger = 3 * SECOND;
    let channel = node.channel::<Raw>(ChannelConfig::new(NAME).linger(linger)).unwrap();
    let receipt = channel.queue_confirmed(peer.id(), &Raw(Bytes::from_static(b"never"))).await.unwrap();
    let start = Instant::now();
    drop(channel);
    let verdict = within("the verdict", receipt).await;
    assert!(about(start.elapsed(), linger), "{:?}", start.elapsed());
    assert!(matches!(verdict, Verdict::Lost(_)), "{verdict:?}");
    let end = within("the close", node.close()).await;
    assert_eq!((end.lost_messages, end.unknown_messages, end.unfinished_tasks), (1, 0, 0));
}
