//! Unread channels, slow peers and floods: whom they may cost anything.

use std::future::pending;

use bytes::Bytes;
use peerage::{
    CallConfig, ChannelConfig, MemoryLimits, Node, Overflow, Raw, Request, RequestError, SendError,
    ServeConfig, ServeError, Verdict,
};
use peerage_transport::StreamCode;

use crate::common::{builder, join, pair, raw, within};
use crate::support::{Handmade, framed};

/// channels that nobody reads are filled to the brim, and everything else on the connection goes on.
/// Contract C-8.
#[tokio::test]
async fn unread_channels_leave_the_connection_to_control_requests_and_pings() {
    let (a, b) = pair().await;
    b.serve("/test/echo/1", |_, question: Raw| async move { Ok::<_, ServeError>(question) }).unwrap();
    let config = |n: usize| ChannelConfig::new(format!("/test/unread/{n}")).overflow(Overflow::Refuse);
    let (mut senders, mut unread) = (Vec::new(), Vec::new());
    for n in 0..12 {
        unread.push(b.channel::<Raw>(config(n)).unwrap());
        senders.push(a.channel::<Raw>(config(n)).unwrap());
    }
    let message = Raw(Bytes::from(vec![1; 64 * 1024]));
    let mut full = 0;
    // Full means: the queues stay full however often the other side has answered.
    let filling = async {
        while full < 12 * 100 {
            for sender in &senders {
                match sender.try_send(b.peer_id(), &message) {
                    Ok(()) => full = 0,
                    Err(SendError::QueueFull | SendError::NoMemory { .. }) => full += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            a.ping(b.peer_id()).await.unwrap();
        }
    };
    within("full channels", filling).await;
    let held = unread[0].status(a.peer_id()).unwrap().peer_accounted_bytes;
    assert!(held <= 7 << 20, "what is promised leaves the reserve of the connection's window: {held}");
    let quick = || ChannelConfig::control("/test/quick/1");
    let (quick_a, quick_b) = (a.channel::<Raw>(quick()).unwrap(), b.channel::<Raw>(quick()).unwrap());
    for round in 0..20 {
        let message = raw(&round.to_string());
        assert!(
            within("a control message", quick_a.send_confirmed(b.peer_id(), &message)).await.is_delivered()
        );
        assert_eq!(quick_b.recv().await.unwrap().1, message);
        let answer = within("a request", a.request::<Raw, Raw>(b.peer_id(), "/test/echo/1", &message)).await;
        assert_eq!(answer.unwrap(), message);
        within("a ping", a.ping(b.peer_id())).await.unwrap();
    }
    // When they are read at last, everything that was queued arrives.
    for (sender, receiver) in senders.iter().zip(&unread) {
        let queued = async {
            while sender.totals().sent > receiver.totals().received
                || sender.status(b.peer_id()).unwrap().queued_messages > 0
            {
                while receiver.try_recv().is_some() {}
                a.ping(b.peer_id()).await.unwrap();
            }
        };
        within("what was queued", queued).await;
    }
}

/// requests that wait for a place are read and accounted for, or refused; none lies in the window that all else of the peer needs.
/// Contract C-8.
#[tokio::test]
async fn requests_that_wait_leave_the_connection_to_channels_and_pings() {
    let server = builder().start().await.unwrap();
    // The caller bears more than the server, whose default is 32 MiB for one peer.
    let client =
        builder().memory(MemoryLimits::default().request_bytes(1 << 28, 1 << 28)).start().await.unwrap();
    join(&client, &server).await;
    let one = ServeConfig::default().concurrent(1, 1);
    server.serve_with("/test/stuck/1", one, |_: Request<Raw>| pending::<Result<Raw, ServeError>>()).unwrap();
    let ask = || {
        let (client, to) = (client.clone(), server.peer_id());
        tokio::spawn(async move {
            let question = Raw(Bytes::from(vec![5; 3 << 20]));
            let config = CallConfig::unlimited_time();
            client.request_with::<Raw, Raw>(to, "/test/stuck/1", &question, &config).await
        })
    };
    let mut waiting: Vec<_> = (0..6).map(|_| ask()).collect();
    let control = || ChannelConfig::control("/test/quick/1");
    let (from, to) = (client.channel::<Raw>(control()).unwrap(), server.channel::<Raw>(control()).unwrap());
    let all_else_goes_on = async || {
        for round in 0..20 {
            let message = raw(&round.to_string());
            let verdict = within("a control message", from.send_confirmed(server.peer_id(), &message)).await;
            assert!(verdict.is_delivered(), "{verdict}");
            assert_eq!(to.recv().await.unwrap().1, message);
            within("a ping", client.ping(server.peer_id())).await.unwrap();
        }
    };
    let read = async {
        while requests_hold(&server).await < 6 * (3 << 20) {
            client.ping(server.peer_id()).await.unwrap();
        }
    };
    within("all six to be read", read).await;
    all_else_goes_on().await;
    assert!(waiting.iter().all(|asking| !asking.is_finished()), "one is worked on, the others wait");
    // Those for which the server has no memory are refused at once.
    waiting.extend((0..14).map(|_| ask()));
    let (refused, _, waiting) = within("a refusal", futures::future::select_all(waiting)).await;
    let error = refused.unwrap().unwrap_err();
    let RequestError::Overloaded { retry_after: Some(_), text, .. } = error else { panic!("{error}") };
    assert!(text.contains("request_peer_bytes"), "{text}");
    all_else_goes_on().await;
    waiting.iter().for_each(|asking| asking.abort());
}

/// Bytes that the requests of a node hold.
async fn requests_hold(node: &Node) -> usize {
    let metrics = node.metrics().await;
    let memory = metrics.iter().find(|metric| metric.name == "peerage_memory_bytes").unwrap();
    let of_requests =
        memory.samples.iter().find(|sample| sample.labels.iter().any(|(_, of)| of == "requests"));
    of_requests.unwrap().value as usize
}

/// Twenty peers that take nothing, and one that does: however long a sender goes on, there is memory for the one, in both directions.
/// Contract C-8.
#[tokio::test]
async fn peers_that_read_nothing_leave_memory_to_one_that_does() {
    const ALL: usize = 1 << 20;
    let name = "/test/share/1";
    let config = |all: usize| {
        ChannelConfig::new(name).max_message_bytes(4096).memory_bytes(all).overflow(Overflow::Refuse)
    };
    // It is the channel's memory that is short, or the node's.
    for (of_channel, of_node) in [(ALL, 256 << 20), (128 << 20, ALL)] {
        let hub = builder().memory(MemoryLimits::default().node_bytes(of_node)).start().await.unwrap();
        let at_hub = hub.channel::<Raw>(config(of_channel)).unwrap();
        let mut deaf = Vec::new();
        for _ in 0..20 {
            deaf.push(Handmade::connect(&hub, &[2], &[name]).await);
        }
        let keen = builder().start().await.unwrap();
        let at_keen = keen.channel::<Raw>(config(128 << 20)).unwrap();
        join(&keen, &hub).await;
        let message = Raw(Bytes::from(vec![4; 4000]));
        let mut held = 0;
        for _ in 0..50 {
            for peer in &deaf {
                while at_hub.try_send(peer.id, &message).is_ok() {}
            }
            held = held.max(at_hub.totals().accounted_bytes);
            let verdict = within("a verdict", at_hub.send_confirmed(keen.peer_id(), &message)).await;
            assert!(verdict.is_delivered(), "{verdict}");
            assert_eq!(at_keen.try_recv().unwrap().1, message);
            let verdict = within("a verdict", at_keen.send_confirmed(hub.peer_id(), &message)).await;
            assert!(verdict.is_delivered(), "{verdict}");
            assert_eq!(at_hub.try_recv().unwrap().1, message);
        }
        assert!((ALL * 3 / 4..=ALL).contains(&held), "{held} held");
    }
}

/// A peer without credit begins many messages on as many streams: of what its channel holds, they are one peer's part.
/// Contract C-8.
#[tokio::test]
async fn many_streams_of_a_peer_get_no_more_of_a_channels_memory_than_one() {
    const ALL: usize = 1 << 20;
    let config = |all| ChannelConfig::new("/test/part/1").max_message_bytes(64 * 1024).memory_bytes(all);
    let node = builder().start().await.unwrap();
    let channel = node.channel::<Raw>(config(ALL)).unwrap();
    let greedy = Handmade::connect(&node, &[1], &[]).await;
    let half = framed(&[3; 60_000]).split_to(60_000);
    let mut streams = Vec::new();
    for _ in 0..24 {
        let mut stream = greedy.connection.open_lazy(channel.name()).await.unwrap();
        within("room in the stream's window", stream.send.write_chunk(half.clone())).await.unwrap();
        streams.push(stream);
    }
    // As soon as one is refused, the others have what they could get.
    let refusals = streams.iter_mut().map(|stream| Box::pin(stream.send.stopped()));
    let (refused, ..) = within("a refusal", futures::future::select_all(refusals)).await;
    assert_eq!(refused.unwrap(), Some(StreamCode::Overloaded));
    let held = channel.totals().accounted_bytes;
    assert!((ALL / 2..ALL / 4 * 3).contains(&held), "{held} of {ALL}");
    let keen = builder().start().await.unwrap();
    let at_keen = keen.channel::<Raw>(config(128 << 20)).unwrap();
    join(&keen, &node).await;
    let message = Raw(Bytes::from(vec![4; 60_000]));
    let verdict = within("a verdict", at_keen.send_confirmed(node.peer_id(), &message)).await;
    assert!(verdict.is_delivered(), "{verdict}");
    assert_eq!(channel.try_recv().unwrap(), (keen.peer_id(), message));
}

/// Contract C-8.
#[tokio::test]
async fn one_peers_flood_keeps_no_other_peer_from_being_heard() {
    let hub = builder().start().await.unwrap();
    let config =
        || ChannelConfig::new("/test/flood/1").receive_queue(256 * 1024, 100).max_message_bytes(4096);
    let at_hub = hub.channel::<Raw>(config()).unwrap();
    let (flooder, other) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    let (flood, quiet) = (flooder.channel::<Raw>(config()).unwrap(), other.channel::<Raw>(config()).unwrap());
    join(&flooder, &hub).await;
    join(&other, &hub).await;
    let sender = flood.to(hub.peer_id()).unwrap();
    let message = Raw(vec![0; 4000].into());
    let mut receipts = Vec::new();
    for _ in 0..40 {
        receipts.push(sender.queue_confirmed(&message).await.unwrap());
    }
    let flooding = tokio::spawn(async move { while sender.send(&message).await.is_ok() {} });
    let verdicts = within("a full lane", futures::future::join_all(receipts)).await;
    assert!(verdicts.iter().all(Verdict::is_delivered), "{verdicts:?}");
    assert!(at_hub.status(flooder.peer_id()).unwrap().waiting_bytes > 150 * 1024);
    assert!(within("a verdict", quiet.send_confirmed(hub.peer_id(), &raw("me too"))).await.is_delivered());
    let firsts = [at_hub.try_recv().unwrap().0, at_hub.try_recv().unwrap().0];
    assert!(firsts.contains(&other.peer_id()), "the peers take turns");
    let status = at_hub.status(flooder.peer_id()).unwrap();
    assert!(status.waiting_messages <= 100 && status.waiting_bytes <= 256 * 1024, "{status:?}");
    flooding.abort();
}

/// Contract C-8.
#[tokio::test]
async fn one_peer_that_reads_nothing_slows_no_other_down() {
    let hub = builder().start().await.unwrap();
    let config = || {
        ChannelConfig::new("/test/slow/1")
            .max_message_bytes(8192)
            .receive_queue(64 * 1024, 64)
            .send_queue(64 * 1024, 64)
    };
    let at_hub = hub.channel::<Raw>(config()).unwrap();
    let (deaf, keen) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    let (_unread, read) = (deaf.channel::<Raw>(config()).unwrap(), keen.channel::<Raw>(config()).unwrap());
    join(&deaf, &hub).await;
    join(&keen, &hub).await;
    let message = Raw(Bytes::from(vec![3; 8000]));
    while at_hub.try_send(deaf.peer_id(), &message) != Err(SendError::QueueFull) {
        tokio::task::yield_now().await;
    }
    for _ in 0..500 {
        at_hub.send(keen.peer_id(), &message).await.unwrap();
        within("a message", read.recv()).await.unwrap();
    }
    within("a ping to the deaf one", hub.ping(deaf.peer_id())).await.unwrap();
}

/// Contract C-9.
#[tokio::test]
async fn a_flood_of_senders_stays_within_the_memory_that_is_accounted_for() {
    let line = 1 << 20;
    let hub =
        builder().memory(MemoryLimits::default().node_bytes(line).peer_bytes(600_000)).start().await.unwrap();
    let channels: Vec<_> =
        (0..4).map(|n| hub.channel::<Raw>(ChannelConfig::new(format!("/test/line/{n}"))).unwrap()).collect();
    let accounted = || channels.iter().map(|channel| channel.totals().accounted_bytes).sum::<usize>();
    let mut flooders = Vec::new();
    for _ in 0..4 {
        let node = builder().start().await.unwrap();
        let sending: Vec<_> = (0..4)
            .map(|n| node.channel::<Raw>(ChannelConfig::new(format!("/test/line/{n}"))).unwrap())
            .collect();
        join(&node, &hub).await;
        flooders.push((node, sending));
    }
    // Each needs room of its own as soon as it has begun.
    let message = Raw(Bytes::from(vec![1; 100_000]));
    let answer = async |round: usize| {
        within("a ping", flooders[round % flooders.len()].0.ping(hub.peer_id())).await.unwrap();
    };
    for round in 0..1000 {
        for channel in flooders.iter().flat_map(|(_, channels)| channels) {
            let _ = channel.try_send(hub.peer_id(), &message);
        }
        assert!(accounted() <= line, "{} of {line}", accounted());
        for (node, _) in &flooders {
            let held = channels[0].status(node.peer_id()).map_or(0, |status| status.peer_accounted_bytes);
            assert!(held <= 600_000, "{held}");
        }
        answer(round).await;
    }
    assert!(accounted() > line / 2, "the flood came near the line: {}", accounted());
    // Our own sends are refused by the same line, by name.
    let to = flooders[0].0.peer_id();
    let big = Raw(Bytes::from(vec![0; 700_000]));
    let refused = channels[0].try_send(to, &big);
    assert!(
        matches!(refused, Err(SendError::NoMemory { limit: "node_bytes" | "peer_bytes", .. })),
        "{refused:?}"
    );
    // A reader brings everything into motion again.
    let before = channels[0].totals().received;
    let reading = async {
        for round in 0.. {
            if channels[0].totals().received >= before + 100 {
                return;
            }
            for (_, channels) in &flooders {
                let _ = channels[0].try_send(hub.peer_id(), &message);
            }
            while channels.iter().any(|channel| channel.try_recv().is_some()) {}
            answer(round).await;
            assert!(accounted() <= line, "{} of {line}", accounted());
        }
    };
    within("100 more", reading).await;
}

/// A backlog of many small reads is not copied again with each of them: the time to take it in grows with its size and no faster.
#[tokio::test]
async fn a_backlog_that_nobody_reads_costs_its_sender_no_more_than_its_size() {
    const SENT: u32 = 10_000;
    const QUEUE: usize = 100;
    let (a, b) = pair().await;
    let config = || ChannelConfig::new("/test/backlog/1").max_message_bytes(1000).receive_queue(4 << 20, 10);
    let (at_a, at_b) = (
        a.channel::<Raw>(config().send_queue(64 * 1024, QUEUE)).unwrap(),
        b.channel::<Raw>(config()).unwrap(),
    );
    let sender = at_a.to(b.peer_id()).unwrap();
    // Ten messages fill the lane; the rest is read all the same, up to what was promised.
    within("room for all", async {
        // The queue holds the last ones, and as many again may be taken from it and not handed over.
        for number in 0..SENT + 2 * QUEUE as u32 {
            sender.send(&Raw([&number.to_be_bytes()[..], &[0; 300]].concat().into())).await.unwrap();
        }
    })
    .await;
    let sent = at_a.totals().sent;
    assert!(sent >= u64::from(SENT), "{sent}");
    assert_eq!(at_b.totals().received, 10);
    for number in 0..SENT {
        let (_, message) = within("a message", at_b.recv()).await.unwrap();
        assert_eq!(message.0[..4], number.to_be_bytes());
    }
}

/// An application may have begun to wait for a message, and be busy with something else. What it sends meanwhile leaves, and what others wait for comes.
#[tokio::test]
async fn a_receiver_that_does_not_look_holds_up_nothing() {
    let (first, second) = pair().await;
    let config = || ChannelConfig::new("/test/1");
    let (here, there) = (first.channel::<Raw>(config()).unwrap(), second.channel::<Raw>(config()).unwrap());
    let message = Raw(Bytes::from_static(&[7; 1000]));
    let busy = here.clone();
    let mut waiting = Box::pin(busy.recv());
    assert!(futures::poll!(&mut waiting).is_pending());
    within("confirmed messages", async {
        // Each waits for what the other side says, which the one that waits does not look at: too long, were it left to that one each time.
        for _ in 0..1000 {
            assert_eq!(here.send_confirmed(second.peer_id(), &message).await, Verdict::Delivered);
            there.recv().await.unwrap();
        }
    })
    .await;
    there.send(first.peer_id(), &message).await.unwrap();
    assert_eq!(within("a message", waiting).await.unwrap().1, message);
}
