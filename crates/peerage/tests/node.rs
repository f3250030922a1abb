//! Nodes over real QUIC on loopback.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use peerage::{
    Change, ChannelConfig, ForeignPolicy, Node, NodeKey, PeerEvent, PeerId, Raw, RequestError, SendError,
    ServeError, StartError,
};

mod common;

use common::{LIMIT, builder, connected, pair, raw, within};

/// Contract C-3.
#[tokio::test]
async fn messages_on_a_channel_arrive_in_order_in_both_directions() {
    let (a, b) = pair().await;
    let config = || ChannelConfig::new("/test/chat/1");
    let (at_a, at_b) = (a.channel::<Raw>(config()).unwrap(), b.channel::<Raw>(config()).unwrap());
    let sending = async {
        let (to_a, to_b) = (at_b.to(a.peer_id()).unwrap(), at_a.to(b.peer_id()).unwrap());
        for number in 0..5000u32 {
            let length = if number % 100 == 0 { 20_000 } else { number as usize % 300 };
            let mut body = number.to_be_bytes().to_vec();
            body.resize(4 + length, 7);
            let message = Raw(body.into());
            to_a.send(&message).await.unwrap();
            to_b.send(&message).await.unwrap();
        }
    };
    let receiving = |channel: peerage::Channel<Raw>, from: PeerId| async move {
        for number in 0..5000u32 {
            let (peer, message) = channel.recv().await.unwrap();
            assert_eq!((peer, &message.0[..4]), (from, &number.to_be_bytes()[..]));
        }
    };
    let (ida, idb) = (a.peer_id(), b.peer_id());
    within("5,000 messages each way", async {
        tokio::join!(sending, receiving(at_a.clone(), idb), receiving(at_b.clone(), ida))
    })
    .await;
}

/// Contract C-8.
#[tokio::test]
async fn a_slow_receiver_makes_its_sender_wait_and_no_other_channel() {
    let (a, b) = pair().await;
    let slow = || {
        ChannelConfig::new("/test/slow/1")
            .send_queue(64 * 1024, 64)
            .receive_queue(64 * 1024, 64)
            .max_message_bytes(1024)
    };
    let at_a = a.channel::<Raw>(slow()).unwrap();
    let _unread = b.channel::<Raw>(slow()).unwrap();
    let message = Raw(Bytes::from(vec![1; 1024]));
    let sender = at_a.to(b.peer_id()).unwrap();
    // More than both queues, the stream's window and the pieces in between can hold: at some point the queue is full for good.
    let stuck = async {
        loop {
            sender.send(&message).await.unwrap();
        }
    };
    let stalled = async {
        let mut still = 0;
        // However often the other side has answered.
        while still < 100 {
            let before = sender.queued();
            a.ping(b.peer_id()).await.unwrap();
            still = if before == sender.queued() && before >= 64 { still + 1 } else { 0 };
        }
    };
    let quick = || ChannelConfig::new("/test/quick/1");
    let (quick_a, quick_b) = (a.channel::<Raw>(quick()).unwrap(), b.channel::<Raw>(quick()).unwrap());
    within("another channel beside a stuck one", async {
        tokio::select! {
            () = stuck => unreachable!("it never ends"),
            () = async {
                stalled.await;
                assert_eq!(at_a.try_send(b.peer_id(), &message), Err(SendError::QueueFull));
                quick_a.send(b.peer_id(), &raw("quick")).await.unwrap();
                assert_eq!(quick_b.recv().await.unwrap().1, raw("quick"));
            } => {}
        }
    })
    .await;
}

/// Contract C-6.
#[tokio::test]
async fn a_send_is_refused_with_its_reason() {
    let (a, b) = pair().await;
    let channel = a.channel::<Raw>(ChannelConfig::new("/test/only-here/1").max_message_bytes(10)).unwrap();
    let nobody = NodeKey::generate().peer_id();
    assert_eq!(channel.send(nobody, &raw("x")).await, Err(SendError::NotConnected { peer: nobody }));
    let refused = channel.send(b.peer_id(), &raw("x")).await;
    let missing = SendError::NotSupported { peer: b.peer_id(), channel: "/test/only-here/1".into() };
    assert_eq!(refused, Err(missing));
    let long = channel.send(b.peer_id(), &raw("01234567890")).await.unwrap_err();
    assert!(long.to_string().contains("11 bytes exceeds the 10"), "{long}");
    // Once the peer has the channel, the same call succeeds.
    let there = b.channel::<Raw>(ChannelConfig::new("/test/only-here/1")).unwrap();
    channel.send(b.peer_id(), &raw("now")).await.unwrap();
    assert_eq!(within("a message", there.recv()).await.unwrap().1, raw("now"));
}

#[tokio::test]
async fn a_message_over_the_receivers_bound_is_refused_at_the_sender() {
    let (a, b) = pair().await;
    let at_a = a.channel::<Raw>(ChannelConfig::new("/test/bound/1")).unwrap();
    let at_b = b.channel::<Raw>(ChannelConfig::new("/test/bound/1").max_message_bytes(100)).unwrap();
    at_a.send(b.peer_id(), &raw("small")).await.unwrap();
    assert_eq!(within("the small one", at_b.recv()).await.unwrap().1, raw("small"));
    let refused = at_a.send(b.peer_id(), &Raw(Bytes::from(vec![0; 101]))).await;
    let bound = SendError::TooLarge {
        length: 101,
        most: 100,
        channel: "/test/bound/1".into(),
        at: Some(b.peer_id()),
    };
    assert_eq!(refused, Err(bound));
    within("a ping", a.ping(b.peer_id())).await.unwrap();
}

#[tokio::test]
async fn a_broadcast_reaches_every_peer_and_says_so_for_each() {
    let hub = builder().start().await.unwrap();
    let config = || ChannelConfig::new("/test/news/1");
    let at_hub = hub.channel::<Raw>(config()).unwrap();
    let mut others = Vec::new();
    for _ in 0..4 {
        let node = builder().max_outbound(0).start().await.unwrap();
        let channel = node.channel::<Raw>(config()).unwrap();
        node.connect(&hub.listen_addresses()[0]).await.unwrap();
        connected(&hub, node.peer_id()).await;
        others.push((node, channel));
    }
    let deaf = builder().max_outbound(0).start().await.unwrap();
    deaf.connect(&hub.listen_addresses()[0]).await.unwrap();
    connected(&hub, deaf.peer_id()).await;
    let verdicts = within("a broadcast", at_hub.broadcast(&raw("news"))).await;
    assert_eq!(verdicts.len(), 5);
    for (peer, verdict) in verdicts {
        assert_eq!(verdict.is_ok(), peer != deaf.peer_id(), "{peer}: {verdict:?}");
    }
    for (_, channel) in &others {
        assert_eq!(within("the news", channel.recv()).await, Some((hub.peer_id(), raw("news"))));
    }
}

/// an answer is more than delivery, and has a deadline.
/// Contract C-22.
#[tokio::test]
async fn a_request_gets_its_answer_its_error_or_its_deadline() {
    let (a, b) = pair().await;
    a.serve("/test/half/1", |_, question: Raw| async move {
        match question.0.len() {
            0 => Err(ServeError::new(42, "nothing to halve")),
            1 => std::future::pending().await,
            n => Ok(Raw(question.0.slice(..n / 2))),
        }
    })
    .unwrap();
    let ask = |question: Raw| {
        let (b, peer) = (b.clone(), a.peer_id());
        async move {
            let deadline = Duration::from_millis(if question.0.len() == 1 { 100 } else { 10_000 });
            b.request_within::<Raw, Raw>(peer, "/test/half/1", &question, deadline).await
        }
    };
    let large = Raw(Bytes::from(vec![9; 3_000_000]));
    assert_eq!(ask(large).await.unwrap().0.len(), 1_500_000);
    assert_eq!(ask(raw("four")).await.unwrap(), raw("fo"));
    let error = ask(raw("")).await.unwrap_err();
    assert_eq!(error, RequestError::Refused { peer: a.peer_id(), code: 42, text: "nothing to halve".into() });
    assert!(matches!(ask(raw("1")).await, Err(RequestError::Deadline { .. })));
    let nothing = b.request::<Raw, Raw>(a.peer_id(), "/test/none/1", &raw("x")).await;
    assert!(matches!(nothing, Err(RequestError::NotSupported { .. })), "{nothing:?}");
    let many = futures::future::join_all((0..300).map(|_| ask(raw("many")))).await;
    assert!(many.iter().all(|answer| *answer == Ok(raw("ma"))), "more requests than streams at once");
}

/// Contract C-24.
#[tokio::test]
async fn a_request_that_is_given_up_is_dropped_at_the_peer() {
    let (a, b) = pair().await;
    let (ended, mut end) = tokio::sync::mpsc::channel::<()>(1);
    let (started, mut start) = tokio::sync::mpsc::channel::<()>(1);
    a.serve("/test/slow/1", move |_, _: Raw| {
        let (ended, started) = (ended.clone(), started.clone());
        async move {
            let _ended = ended;
            started.send(()).await.unwrap();
            std::future::pending::<Result<Raw, ServeError>>().await
        }
    })
    .unwrap();
    let asking = tokio::spawn({
        let (b, peer) = (b.clone(), a.peer_id());
        async move { b.request::<Raw, Raw>(peer, "/test/slow/1", &raw("x")).await }
    });
    within("the handler's start", start.recv()).await.unwrap();
    asking.abort();
    // The handler holds a sender: the channel stays open, so only capacity tells. Stop serving drops the last one.
    a.stop_serving("/test/slow/1");
    assert_eq!(within("the handler's end", end.recv()).await, None);
}

#[tokio::test]
async fn a_lazily_opened_stream_shows_itself_with_its_first_bytes() {
    let (a, b) = pair().await;
    let incoming = a.accept("/test/short/1").unwrap();
    let mut silent = b.open_lazy(a.peer_id(), "/test/short/1").await.unwrap();
    let mut stream = b.open_lazy(a.peer_id(), "/test/short/1").await.unwrap();
    stream.send.write_chunk("short".into()).await.unwrap();
    stream.send.finish().unwrap();
    let (from, mut taken) = within("the message", incoming.recv()).await.unwrap();
    assert_eq!(from, b.peer_id());
    assert_eq!(taken.recv.read_chunk(100).await.unwrap().unwrap(), "short");
    assert_eq!(within("its end", taken.recv.read_chunk(100)).await.unwrap(), None);
    // The one opened before it said nothing, so it comes after it.
    silent.send.flush().await.unwrap();
    let (_, taken) = within("the other stream", incoming.recv()).await.unwrap();
    assert_eq!(&**taken.protocol(), "/test/short/1");
    let nobody = NodeKey::generate().peer_id();
    let error = b.open_lazy(nobody, "/test/short/1").await.unwrap_err();
    assert!(matches!(error, RequestError::NotConnected { .. }), "{error}");
}

#[tokio::test]
async fn raw_streams_carry_bulk_both_ways() {
    let (a, b) = pair().await;
    let incoming = a.accept("/test/bulk/1").unwrap();
    let total = 16 << 20;
    let serving = async {
        let (from, mut stream) = incoming.recv().await.unwrap();
        assert_eq!(from, b.peer_id());
        let mut count = 0;
        while let Some(chunk) = stream.recv.read_chunk(64 * 1024).await.unwrap() {
            count += chunk.len();
        }
        stream.send.write_all(count.to_string().as_bytes()).await.unwrap();
        stream.send.finish().unwrap();
        stream.send.stopped().await.unwrap();
    };
    let sending = async {
        let mut stream = b.open(a.peer_id(), "/test/bulk/1").await.unwrap();
        for _ in 0..total / (64 * 1024) {
            stream.send.write_chunk(Bytes::from(vec![3; 64 * 1024])).await.unwrap();
        }
        stream.send.finish().unwrap();
        let answer = stream.recv.read_chunk(100).await.unwrap().unwrap();
        assert_eq!(answer, total.to_string().as_bytes());
        while stream.recv.read_chunk(100).await.unwrap().is_some() {}
    };
    within("16 MiB", async { tokio::join!(serving, sending) }).await;
}

#[tokio::test]
async fn ping_and_identify_are_served_and_spoken() {
    let (a, b) = pair().await;
    assert!(within("a ping", b.ping(a.peer_id())).await.unwrap() < LIMIT);
    let about = within("identify", b.identify(a.peer_id())).await.unwrap();
    assert!(about.agent.starts_with("peerage/"), "{about:?}");
    assert!(about.protocols.iter().any(|name| name == "/ipfs/ping/1.0.0"), "{about:?}");
    // A new protocol is pushed to connected peers.
    let _incoming = a.accept("/test/new/1").unwrap();
    within("the push", async {
        while !b.peers().get(a.peer_id()).unwrap().about.protocols.iter().any(|name| name == "/test/new/1") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_third_ping_stream_at_once_is_refused_and_the_first_two_go_on() {
    let (a, b) = pair().await;
    let echo = async |stream: &mut peerage::Stream| {
        stream.send.write_chunk(Bytes::from_static(&[7; 32])).await.ok()?;
        let mut echoed = 0;
        while echoed < 32 {
            echoed += stream.recv.read_chunk(32).await.ok()??.len();
        }
        Some(())
    };
    let open = async || b.open(a.peer_id(), "/ipfs/ping/1.0.0").await.unwrap();
    let (mut first, mut second, mut third) = (open().await, open().await, open().await);
    assert!(within("the first echo", echo(&mut first)).await.is_some());
    assert!(within("the second echo", echo(&mut second)).await.is_some());
    assert!(within("the third stream", echo(&mut third)).await.is_none());
    assert!(within("the first, again", echo(&mut first)).await.is_some());
    // A place that is given back can be had again.
    first.send.finish().unwrap();
    within("the end", async { while let Ok(Some(_)) = first.recv.read_chunk(32).await {} }).await;
    let mut fourth = open().await;
    assert!(within("a fourth echo", echo(&mut fourth)).await.is_some());
}

/// Bytes sent and received on a protocol.
fn moved(traffic: &[peerage::ProtocolTraffic], protocol: &str) -> (u64, u64) {
    let found = traffic.iter().find(|one| *one.protocol == *protocol);
    found.map_or((0, 0), |one| (one.sent_bytes, one.received_bytes))
}

#[tokio::test]
async fn the_path_and_the_bytes_of_each_protocol_are_read_by_peer_and_in_all() {
    let (a, b) = pair().await;
    let name = "/test/counted/1";
    let (at_a, at_b) = (
        a.channel::<Raw>(ChannelConfig::new(name)).unwrap(),
        b.channel::<Raw>(ChannelConfig::new(name)).unwrap(),
    );
    for _ in 0..10 {
        at_b.send(a.peer_id(), &Raw(Bytes::from(vec![1; 100_000]))).await.unwrap();
        within("a message", at_a.recv()).await.unwrap();
    }
    let stats = b.peers().stats(a.peer_id()).unwrap();
    assert!(moved(&stats.protocols, name).0 >= 1_000_000, "{stats:?}");
    assert!(stats.path.sent_bytes > 1_000_000 && stats.path.sent_datagrams > 150, "{stats:?}");
    assert!(
        stats.path.rtt > Duration::ZERO && stats.path.congestion_window > 0 && stats.path.received_bytes > 0
    );
    let at_peer = a.peers().stats(b.peer_id()).unwrap();
    assert!(moved(&at_peer.protocols, name).1 >= 1_000_000, "{at_peer:?}");
    let before = moved(&b.traffic(), name);
    assert_eq!(before, moved(&stats.protocols, name));

    b.peers().disconnect(a.peer_id()).await;
    within("the end of the connection", async {
        while b.peers().stats(a.peer_id()).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(moved(&b.traffic(), name), before, "the node's count outlives the connection");
}

#[tokio::test]
async fn perf_is_served_where_it_was_switched_on_and_nowhere_else() {
    let (open, closed) = (builder().serve_perf().start().await.unwrap(), builder().start().await.unwrap());
    let client = Node::builder().network("test").start().await.unwrap();
    for node in [&open, &closed] {
        client.connect(&node.listen_addresses()[0]).await.unwrap();
    }
    let times = within("perf", client.perf(open.peer_id(), 3_000_000, 2_000_000)).await.unwrap();
    assert!(times.upload > Duration::ZERO && times.download > Duration::ZERO, "{times:?}");
    assert_eq!((times.uploaded, times.downloaded), (3_000_000, 2_000_000));
    within("nothing either way", client.perf(open.peer_id(), 0, 0)).await.unwrap();
    let refused = within("a refusal", client.perf(closed.peer_id(), 1_000_000, 1)).await;
    assert!(matches!(refused, Err(RequestError::NotSupported { .. })), "{refused:?}");
}

/// The time that a half may take ends it, and what was moved until then is told.
#[tokio::test]
async fn an_exchange_of_perf_ends_in_time_with_what_it_has_moved() {
    let (open, client) = (
        builder().serve_perf().start().await.unwrap(),
        Node::builder().network("test").start().await.unwrap(),
    );
    client.connect(&open.listen_addresses()[0]).await.unwrap();
    let short = Duration::from_millis(50);
    let (mut told, endless) = (0, 1 << 60);
    let perf = client.perf_within(open.peer_id(), endless, endless, short, |moved| told = moved);
    let times = within("perf", perf).await.unwrap();
    assert!(times.uploaded > 0 && times.uploaded < endless, "{times:?}");
    assert!(times.downloaded > 0 && times.downloaded < endless, "{times:?}");
    assert!(times.upload >= short && times.download >= short, "{times:?}");
    assert_eq!(told, times.uploaded + times.downloaded);
}

#[tokio::test]
async fn nodes_that_know_one_seed_find_one_another() {
    let seed = builder().start().await.unwrap();
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(builder().seed(&seed.listen_addresses()[0]).start().await.unwrap());
    }
    for node in &nodes {
        connected(node, seed.peer_id()).await;
        for other in nodes.iter().filter(|other| other.peer_id() != node.peer_id()) {
            connected(node, other.peer_id()).await;
        }
    }
    for node in &nodes {
        assert_eq!(node.peers().connected().len(), 4);
    }
}

/// Contract C-19.
#[tokio::test]
async fn both_dialling_at_once_leaves_one_connection_that_carries_messages() {
    for _ in 0..10 {
        let (a, b) = (builder().start().await.unwrap(), builder().start().await.unwrap());
        let config = || ChannelConfig::new("/test/both/1");
        let (at_a, at_b) = (a.channel::<Raw>(config()).unwrap(), b.channel::<Raw>(config()).unwrap());
        let (to_a, to_b) = (a.listen_addresses()[0].clone(), b.listen_addresses()[0].clone());
        let (first, second) =
            within("two dials", async { tokio::join!(a.connect(&to_b), b.connect(&to_a)) }).await;
        assert_eq!((first, second), (Ok(b.peer_id()), Ok(a.peer_id())));
        connected(&a, b.peer_id()).await;
        connected(&b, a.peer_id()).await;
        let (at_a_dir, at_b_dir) =
            (a.peers().get(b.peer_id()).unwrap().direction, b.peers().get(a.peer_id()).unwrap().direction);
        assert_ne!(at_a_dir, at_b_dir, "both ends agree on who dialled");
        at_a.send(b.peer_id(), &raw("from a")).await.unwrap();
        at_b.send(a.peer_id(), &raw("from b")).await.unwrap();
        assert_eq!(within("a message", at_b.recv()).await.unwrap().1, raw("from a"));
        assert_eq!(within("a message", at_a.recv()).await.unwrap().1, raw("from b"));
    }
}

#[tokio::test]
async fn a_peer_of_another_network_is_refused_with_a_clear_reason() {
    let (a, b) = (builder().start().await.unwrap(), Node::builder().network("other").start().await.unwrap());
    let error = within("a refusal", b.connect(&a.listen_addresses()[0])).await.unwrap_err().to_string();
    assert!(
        error.contains("another network") && error.contains("\"test\"") && error.contains("\"other\""),
        "{error}"
    );
    assert!(a.peers().connected().is_empty());
}

#[tokio::test]
async fn a_wrong_peer_a_dead_address_and_oneself_are_refused_with_a_clear_reason() {
    let (a, b) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    let stranger = NodeKey::generate().peer_id();
    let wrong = a.listen_addresses()[0].clone().without_peer_id().with_peer_id(stranger).unwrap();
    let error = within("a wrong peer", b.connect(&wrong)).await.unwrap_err().to_string();
    assert!(error.contains(&stranger.to_string()) && error.contains(&a.peer_id().to_string()), "{error}");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = format!("/ip4/127.0.0.1/udp/{}/quic-v1", silent.local_addr().unwrap().port());
    let error = within("a dead address", b.connect(&dead)).await.unwrap_err().to_string();
    assert!(error.contains("within 5s"), "{error}");
    let error = within("oneself", b.connect(&b.listen_addresses()[0])).await.unwrap_err().to_string();
    assert!(error.contains("this node itself"), "{error}");
    let bare = b.listen_addresses()[0].clone().without_peer_id();
    let error = within("oneself without an ID", b.connect(&bare)).await.unwrap_err().to_string();
    assert!(error.contains("this node itself"), "{error}");
}

#[tokio::test]
async fn a_full_node_refuses_and_a_disconnected_peer_stays_away() {
    let hub = builder().max_inbound(1).start().await.unwrap();
    let (a, b) =
        (builder().max_outbound(0).start().await.unwrap(), builder().max_outbound(0).start().await.unwrap());
    let address = hub.listen_addresses()[0].clone();
    a.connect(&address).await.unwrap();
    connected(&hub, a.peer_id()).await;
    let error = within("a refusal", b.connect(&address)).await.unwrap_err().to_string();
    assert!(error.contains("no place free"), "{error}");
    let mut watch = a.peers().watch().await.unwrap();
    hub.peers().disconnect(a.peer_id()).await;
    let gone = |change: &Change| matches!(change, Change::Event(PeerEvent::Disconnected { .. }));
    within("the disconnect", async { while !gone(&watch.next().await.unwrap()) {} }).await;
    b.connect(&address).await.unwrap();
}

/// Contract C-18.
#[tokio::test]
async fn a_restarted_node_replaces_its_old_connection_at_once() {
    let hub = builder().start().await.unwrap();
    let at_hub = hub.channel::<Raw>(ChannelConfig::new("/test/again/1")).unwrap();
    let key = NodeKey::generate();
    let start = || builder().key(key.clone()).max_outbound(0).start();
    let first = start().await.unwrap();
    first.connect(&hub.listen_addresses()[0]).await.unwrap();
    connected(&hub, first.peer_id()).await;
    // The second one takes over while the first is still there: to the hub that is a restart whose end it has not noticed.
    let second = start().await.unwrap();
    let channel = second.channel::<Raw>(ChannelConfig::new("/test/again/1")).unwrap();
    within("the new connection", second.connect(&hub.listen_addresses()[0])).await.unwrap();
    channel.send(hub.peer_id(), &raw("back")).await.unwrap();
    assert_eq!(within("a message", at_hub.recv()).await, Some((key.peer_id(), raw("back"))));
    assert_eq!(hub.peers().connected().len(), 1);
}

/// closing drains, tells and ends everything.
/// Contract C-38.
#[tokio::test]
async fn closing_sends_what_is_queued_tells_the_peers_and_ends_every_task() {
    let (a, b) = pair().await;
    let config = || ChannelConfig::new("/test/last/1");
    let (at_a, at_b) = (a.channel::<Raw>(config()).unwrap(), b.channel::<Raw>(config()).unwrap());
    let mut watch = b.peers().watch().await.unwrap();
    at_a.send(b.peer_id(), &raw("first")).await.unwrap();
    for _ in 0..1000 {
        at_a.send(b.peer_id(), &Raw(Bytes::from(vec![5; 1000]))).await.unwrap();
    }
    let id = a.peer_id();
    let end = within("the close", a.close()).await;
    assert_eq!((end.lost_messages, end.unfinished_tasks), (0, 0));
    let lost = within("the end", async {
        loop {
            if let Change::Event(PeerEvent::Disconnected { peer, cause, .. }) = watch.next().await.unwrap() {
                return (peer, cause);
            }
        }
    })
    .await;
    assert_eq!(lost.0, id);
    assert!(lost.1.contains("shut"), "{}", lost.1);
    for _ in 0..1001 {
        within("a queued message", at_b.recv()).await.unwrap();
    }
    assert_eq!(
        at_a.send(b.peer_id(), &raw("late")).await,
        Err(SendError::NotConnected { peer: b.peer_id() })
    );
    assert_eq!(within("the closed channel", at_a.recv()).await, None);
}

/// Contract C-39.
#[tokio::test]
async fn dropping_the_last_handle_ends_the_node() {
    let (a, b) = pair().await;
    let mut watch = b.peers().watch().await.unwrap();
    drop(a);
    let gone = |change: &Change| matches!(change, Change::Event(PeerEvent::Disconnected { .. }));
    within("the end", async { while !gone(&watch.next().await.unwrap()) {} }).await;
}

#[tokio::test]
async fn a_start_with_bad_values_says_what_is_wrong() {
    let error = Node::builder().network("Main Net").start().await.unwrap_err();
    assert!(matches!(error, StartError::NetworkName { .. }), "{error}");
    let tcp = Node::builder().seed("/ip4/127.0.0.1/tcp/4001").start().await.unwrap_err().to_string();
    assert!(tcp.contains("quic-v1"), "{tcp}");
    let no_id =
        Node::builder().persistent("/ip4/127.0.0.1/udp/4001/quic-v1").start().await.unwrap_err().to_string();
    assert!(no_id.contains("names no peer"), "{no_id}");
    let taken = builder().start().await.unwrap();
    let address = taken.listen_addresses()[0].clone().without_peer_id();
    let in_use = Node::builder().listen(&address).start().await.unwrap_err().to_string();
    assert!(in_use.contains("stop the program"), "{in_use}");
    let first = taken.channel::<Raw>(ChannelConfig::new("/test/x/1")).unwrap();
    assert!(taken.channel::<Raw>(ChannelConfig::new("/test/x/1")).is_err());
    drop(first);
    taken.channel::<Raw>(ChannelConfig::new("/test/x/1")).unwrap();
    assert!(taken.accept("no slash").is_err());
}

#[tokio::test]
async fn a_node_may_turn_foreign_peers_away() {
    // A bare endpoint speaks libp2p, and answers `na` to the hello.
    let closed = builder().foreign(ForeignPolicy::Refuse).start().await.unwrap();
    let open = builder().start().await.unwrap();
    for (node, stays) in [(&closed, false), (&open, true)] {
        let config = peerage_transport::EndpointConfig::new(NodeKey::generate());
        let endpoint = peerage_transport::Endpoint::bind(config, &[]).await.unwrap();
        let socket = node.listen_addresses()[0].socket_addr().unwrap();
        let connection = endpoint.dial(socket, Some(node.peer_id())).await.unwrap();
        let answering = async {
            while let Ok(stream) = connection.accept_stream().await {
                let _ = stream.negotiate(|_| false, LIMIT).await;
            }
        };
        let watching = async {
            let mut watch = node.peers().watch().await.unwrap();
            if !watch.connected.is_empty() {
                return true;
            }
            loop {
                match watch.next().await.unwrap() {
                    Change::Event(PeerEvent::Connected { foreign: true, .. }) => return true,
                    Change::Event(PeerEvent::Refused { .. }) => return false,
                    _ => {}
                }
            }
        };
        let admitted = within("a verdict", async {
            tokio::select! {
                admitted = watching => admitted,
                () = answering => false,
            }
        })
        .await;
        assert_eq!(admitted, stays);
    }
}
