//! How much a node reads, keeps and lets wait of what a peer sends: what is at the bound is taken, what is beyond it is not.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use peerage::{
    Channel, ChannelConfig, NetworkSecret, Node, NodeBuilder, NodeKey, NodeLimits, Raw, SendError,
    TransportSettings, Verdict,
};
use peerage_identity::SignedPeerRecord;
use peerage_transport::Stream;
use peerage_wire::channel::Account;
use peerage_wire::exchange::Peers;
use peerage_wire::hello::{Accept, Answer, Hello, answer};
use peerage_wire::identify::Identify;
use peerage_wire::request::Options;

use crate::clock::{SECOND, pass};
use crate::network::World;
use crate::stranger::{Stranger, channel, framed, padded};
use crate::times::asked;

/// A node that dials nobody by itself, at 10.0.0.1.
async fn node(world: &Arc<World>, configure: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Node {
    let machine = world.machine(1, &["10.0.0.1"]);
    let builder = machine.node().max_outbound(0).listen("/ip4/10.0.0.1/udp/4001/quic-v1");
    configure(builder).start().await.unwrap()
}

///
#[tokio::test(start_paused = true)]
async fn a_hello_of_sixteen_kibibytes_is_read_and_a_longer_one_is_not() {
    let world = World::new();
    let node = node(&world, |builder| builder).await;
    for (host, length, taken) in [(2, 16 * 1024, true), (3, 16 * 1024 + 1, false)] {
        let stranger = Stranger::dial(&world, &format!("10.0.0.{host}"), &node).await;
        let answer = stranger.greet(padded(&stranger.hello(1), length)).await;
        assert_eq!(answer.is_some(), taken, "{length} bytes");
    }
}

/// in a network with a secret, the sealed hellos are bounded together.
#[tokio::test(start_paused = true)]
async fn sealed_hellos_of_seventy_thousand_bytes_are_read_and_longer_ones_are_not() {
    let world = World::new();
    let secret = NetworkSecret::new("a secret of sixteen bytes or more").unwrap();
    let node = node(&world, |builder| builder.network_secrets([secret])).await;
    for (host, length, taken) in [(2, 70_144, true), (3, 70_145, false)] {
        let stranger = Stranger::dial(&world, &format!("10.0.0.{host}"), &node).await;
        // It proves nothing, so that it is refused; but it is refused in words only when it was read.
        let answer = stranger.greet(padded(&stranger.hello(1), length)).await;
        assert_eq!(answer.is_some(), taken, "{length} bytes");
    }
}

///
#[tokio::test(start_paused = true)]
async fn an_answer_to_a_hello_of_seventy_two_kibibytes_is_read_and_a_longer_one_is_not() {
    let world = World::new();
    let node = node(&world, |builder| builder).await;
    for (host, length, taken) in [(2, 72 * 1024, true), (3, 72 * 1024 + 1, false)] {
        let stranger = Stranger::dial(&world, &format!("10.0.0.{host}"), &node).await;
        let yes =
            Answer { verdict: Some(answer::Verdict::Accept(Accept { order: 2, version: 2, stay: false })) };
        let hello = framed(prost::Message::encode_to_vec(&stranger.hello(1)));
        let _ = tokio::join!(stranger.greet(hello), stranger.answer(padded(&yes, length)));
        pass(SECOND).await;
        assert_eq!(node.peers().get(stranger.id()).is_some(), taken, "{length} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_peers_channels_a_hundred_and_twenty_eight_are_known_and_its_words_are_cut() {
    let world = World::new();
    let node = node(&world, |builder| builder).await;
    let stranger = Stranger::dial(&world, "10.0.0.2", &node).await;
    let channels = (0..200).map(|number| channel(&format!("/many/{number}"))).collect();
    let hello = Hello { channels, agent: "a".repeat(1000), moniker: "m".repeat(1000), ..stranger.hello(1) };
    stranger.meet(1, &hello).await;
    let about = node.peers().get(stranger.id()).unwrap().about;
    assert_eq!((about.channels.len(), about.agent.len(), about.moniker.len()), (128, 128, 128));
}

///
#[tokio::test(start_paused = true)]
async fn what_a_peer_says_of_itself_may_have_eight_kibibytes() {
    let world = World::new();
    let node = node(&world, |builder| builder).await;
    let stranger = Stranger::join(&world, "10.0.0.2", &node).await;
    for (length, taken) in [(8192, true), (8193, false)] {
        let agent = format!("agent/{length}");
        let said = Identify { agent_version: Some(agent.clone()), ..Identify::default() };
        let mut stream = stranger.begin("/ipfs/id/push/1.0.0", padded(&said, length)).await;
        let _ = stream.send.finish();
        pass(SECOND).await;
        assert_eq!(node.peers().get(stranger.id()).unwrap().about.agent == agent, taken, "{length} bytes");
    }
}

///
#[tokio::test(start_paused = true)]
async fn an_answer_to_whom_a_peer_knows_may_have_a_quarter_of_a_mebibyte() {
    for (length, taken) in [(256 * 1024, true), (256 * 1024 + 1, false)] {
        let world = World::new();
        let machine = world.machine(1, &["10.0.0.1"]);
        let node = machine.node().listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap();
        let (stranger, mut stream) = asked(&world, &node).await;
        let third = NodeKey::generate();
        let place = "/ip4/10.0.0.9/udp/4001/quic-v1".parse().unwrap();
        let record = SignedPeerRecord::sign(&third, 1, &[place]).unwrap();
        let said = Peers { records: vec![record.as_bytes().clone()] };
        let _ = stream.send.write_chunk(padded(&said, length)).await;
        let _ = stream.send.finish();
        pass(SECOND).await;
        let story = node.peers().why(third.peer_id()).await.unwrap();
        assert_eq!(!story.history.is_empty(), taken, "{length} bytes: {story:?}");
        drop(stranger);
    }
}

///
#[tokio::test(start_paused = true)]
async fn what_a_caller_says_about_its_request_may_have_a_kibibyte() {
    let world = World::new();
    let node = node(&world, |builder| builder).await;
    node.serve::<Raw, Raw, _, _>("/echo/1", |_, question| async move { Ok(question) }).unwrap();
    let stranger = Stranger::join(&world, "10.0.0.2", &node).await;
    let options = Options { deadline_ms: 5000, window_bytes: 0 };
    for (length, taken) in [(1024, true), (1025, false)] {
        let request = [framed("question"), padded(&options, length)].concat();
        let mut stream = stranger.begin("/echo/1", request).await;
        let _ = stream.send.finish();
        let status = stream.recv.read_frame(1 << 16).await;
        let answered = matches!(&status, Ok(Some(status)) if status.is_empty());
        assert_eq!(answered, taken, "{length} bytes: {status:?}");
    }
}

///
#[tokio::test(start_paused = true)]
async fn an_account_of_a_channel_may_have_half_a_kibibyte() {
    let world = World::new();
    let node = node(&world, |builder| builder).await;
    let feed = node.channel::<Raw>(ChannelConfig::new("/feed/1")).unwrap();
    for (host, length, taken) in [(2, 512, true), (3, 513, false)] {
        let stranger = Stranger::dial(&world, &format!("10.0.0.{host}"), &node).await;
        let hello = Hello { channels: vec![channel("/feed/1")], ..stranger.hello(1) };
        stranger.meet(1, &hello).await;
        let message = Raw(Bytes::from_static(b"message"));
        let accounting = async {
            let mut stream = stranger.next("/feed/1").await;
            assert!(stream.recv.read_frame(100).await.unwrap().is_some());
            let account = Account { accepted: 8, messages: 1, limit: 16 * 1024, ..Account::default() };
            let _ = stream.send.write_chunk(padded(&account, length)).await;
            pass(SECOND).await;
        };
        let (verdict, ()) = tokio::join!(feed.send_confirmed(stranger.id(), &message), accounting);
        assert_eq!(verdict == Verdict::Delivered, taken, "{length} bytes: {verdict}");
    }
}

/// a peer that keeps to no credit has more streams of a channel, and not any number.
#[tokio::test(start_paused = true)]
async fn a_peer_without_credit_has_sixty_four_streams_of_one_channel() {
    let world = World::new();
    let settings =
        TransportSettings { peer_streams: 100, initial_peer_streams: 100, ..TransportSettings::default() };
    let node = node(&world, |builder| builder.transport_settings(settings)).await;
    let feed = node.channel::<Raw>(ChannelConfig::new("/feed/1")).unwrap();
    let stranger = Stranger::dial(&world, "10.0.0.2", &node).await;
    let hello = Hello { versions: vec![1], ..stranger.hello(1) };
    stranger.meet(1, &hello).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(stranger.begin("/feed/1", framed("x")).await);
    }
    for _ in 0..64 {
        assert!(tokio::time::timeout(SECOND, feed.recv()).await.is_ok());
    }
    let mut one_more = stranger.begin("/feed/1", framed("x")).await;
    let refused = one_more.recv.read_chunk(1).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!((feed.totals().received, feed.try_recv()), (64, None));
    // When one has ended, another may come.
    streams.pop().unwrap().send.finish().unwrap();
    pass(SECOND).await;
    let _again = stranger.begin("/feed/1", framed("x")).await;
    assert!(tokio::time::timeout(SECOND, feed.recv()).await.is_ok());
}

/// Sends a message as a peer does that keeps to credit. Nothing when the stream ended before room was promised.
async fn send_within_credit(stranger: &Stranger, message: &Bytes) -> Option<Stream> {
    let mut stream = stranger.begin("/feed/1", message.slice(..16_000)).await;
    loop {
        let account: Account = stream.recv.read_message(512).await.ok()??;
        if account.end.is_some() {
            return None;
        }
        if account.limit >= message.len() as u64 {
            stream.send.write_chunk(message.slice(16_000..)).await.unwrap();
            return Some(stream);
        }
    }
}

/// A channel of which one of two strangers holds more than half of the memory, with a message that nobody reads.
struct Scarce {
    node: Node,
    feed: Channel<Raw>,
    strangers: Vec<Stranger>,
    large: Bytes,
}

impl Scarce {
    async fn new(world: &Arc<World>) -> Self {
        let node = node(world, |builder| builder).await;
        let config = ChannelConfig::new("/feed/1").max_message_bytes(600_000).memory_bytes(1_000_000);
        let feed = node.channel::<Raw>(config).unwrap();
        let mut strangers = Vec::new();
        for host in [2, 3] {
            let stranger = Stranger::dial(world, &format!("10.0.0.{host}"), &node).await;
            stranger.meet(1, &Hello { channels: vec![channel("/feed/1")], ..stranger.hello(1) }).await;
            strangers.push(stranger);
        }
        // The stream ends, so that nothing is held when the message is taken.
        let large = framed(vec![1; 550_000]);
        let mut first = send_within_credit(&strangers[0], &large).await.expect("it is promised room");
        first.send.finish().unwrap();
        pass(SECOND).await;
        Self { node, feed, strangers, large }
    }
}

/// a message for which no memory is there is waited with for a while, and then its stream is refused.
#[tokio::test(start_paused = true)]
async fn a_message_waits_for_memory_for_five_seconds() {
    for (frees, taken) in [(4, true), (7, false)] {
        let world = World::new();
        let Scarce { node: _node, feed, strangers, large } = Scarce::new(&world).await;
        let receiving = async {
            pass(SECOND * frees).await;
            let first = tokio::time::timeout(SECOND, feed.recv()).await.expect("the first").unwrap();
            assert_eq!(first.0, strangers[0].id());
            tokio::time::timeout(5 * SECOND, feed.recv()).await
        };
        let sending = send_within_credit(&strangers[1], &large);
        let (sent, received) = tokio::join!(sending, receiving);
        assert_eq!((sent.is_some(), received.is_ok()), (taken, taken), "memory came after {frees} s");
    }
}

/// A slow application is no lack of memory: a peer's message waits behind those of its own that nobody has taken yet, however long that takes.
#[tokio::test(start_paused = true)]
async fn a_message_waits_without_limit_behind_those_that_the_application_has_not_taken() {
    let world = World::new();
    let Scarce { node: _node, feed, strangers, large } = Scarce::new(&world).await;
    let two: Bytes = [framed(vec![2; 1000]), large].concat().into();
    let receiving = async {
        pass(30 * SECOND).await;
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let next = tokio::time::timeout(SECOND, feed.recv()).await.expect("a message").unwrap();
            lengths.push(next.1.0.len());
        }
        lengths.sort_unstable();
        lengths
    };
    let (sent, received) = tokio::join!(send_within_credit(&strangers[1], &two), receiving);
    assert!(sent.is_some(), "its stream was refused");
    assert_eq!(received, [1000, 550_000, 550_000]);
}

/// what the application does not take waits at its peer.
#[tokio::test(start_paused = true)]
async fn raw_streams_beyond_the_queue_wait_at_their_peers() {
    let world = World::new();
    let mut limits = NodeLimits::default();
    limits.max_waiting_streams = 2;
    let node = node(&world, |builder| builder.limits(limits)).await;
    let incoming = node.accept("/raw/1").unwrap();
    let stranger = Stranger::join(&world, "10.0.0.2", &node).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(stranger.begin("/raw/1", vec![1]).await);
    }
    pass(SECOND).await;
    // Nobody else runs between these, so only what is in the queue is found.
    let there = std::iter::from_fn(|| incoming.recv().now_or_never()).count();
    assert_eq!(there, 2);
    for _ in 2..5 {
        tokio::time::timeout(SECOND, incoming.recv()).await.expect("the others follow").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_announces_sixteen_addresses_at_most() {
    let world = World::new();
    let addresses: Vec<_> = (1..=20).map(|host| format!("10.0.0.{host}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let machine = world.machine(1, &addresses);
    let node = machine.node().listen("/ip4/0.0.0.0/udp/4001/quic-v1").start().await.unwrap();
    assert_eq!(node.listen_addresses().len(), 16);
}

/// it is tried out by its packets.
#[tokio::test(start_paused = true)]
async fn no_packet_is_longer_than_the_largest_datagram() {
    let mut longest = Vec::new();
    for most in [1200, 1300, 1452] {
        let world = World::new();
        let settings = TransportSettings { max_datagram_bytes: most, ..TransportSettings::default() };
        let node = node(&world, |builder| builder.transport_settings(settings.clone())).await;
        let other = world.machine(2, &["10.0.0.2"]);
        let other = other.node().max_outbound(0).transport_settings(settings).start().await.unwrap();
        other.connect(&node.listen_addresses()[0]).await.unwrap();
        // Paths are measured in the first minutes.
        pass(60 * SECOND).await;
        longest.push(world.packets().iter().map(|packet| packet.3).max().unwrap());
    }
    assert_eq!(longest, [1200, 1300, 1452]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_holds_no_more_than_its_own_memory_for_all_peers() {
    let world = World::new();
    let node = node(&world, |builder| builder).await;
    let config = ChannelConfig::new("/feed/1").max_message_bytes(50_000).memory_bytes(100_000);
    let feed = node.channel::<Raw>(config).unwrap();
    let mut strangers = Vec::new();
    let mut refused = 0;
    for host in 2..6 {
        let stranger = Stranger::dial(&world, &format!("10.0.0.{host}"), &node).await;
        stranger.meet(1, &Hello { channels: vec![channel("/feed/1")], ..stranger.hello(1) }).await;
        match feed.try_send(stranger.id(), &Raw(Bytes::from(vec![1; 40_000]))) {
            Ok(()) => {}
            Err(SendError::NoMemory { limit: "memory_bytes", .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        strangers.push(stranger);
    }
    assert!(refused >= 1, "four times 40,000 bytes were taken");
    assert!(feed.totals().accounted_bytes <= 100_000, "{}", feed.totals().accounted_bytes);
}

#[tokio::test(start_paused = true)]
async fn names_are_refused_beyond_their_bounds() {
    let world = World::new();
    let machine = world.machine(1, &["10.0.0.1"]);
    for (length, taken) in [(64, true), (65, false)] {
        let started = machine.node().moniker("m".repeat(length)).start().await;
        assert_eq!(started.is_ok(), taken, "{length} bytes of a moniker");
    }
    let node = node(&world, |builder| builder).await;
    for (length, taken) in [(256, true), (257, false)] {
        let name = format!("/{}", "n".repeat(length - 1));
        assert_eq!(node.accept(&name).is_ok(), taken, "{length} bytes of a protocol's name");
        let channel = node.channel::<Raw>(ChannelConfig::new(format!("/{}", "c".repeat(length - 1))));
        assert_eq!(channel.is_ok(), taken, "{length} bytes of a channel's name");
    }
}
