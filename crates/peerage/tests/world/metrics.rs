//! What a node counts: channels, requests, kinds of peers, queues.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use peerage::{
    Change, ChannelConfig, MemoryLimits, Metric, MetricKind, Node, NodeBuilder, Overflow, PeerClass,
    PeerEvent, Raw, RequestError, RequestLimits, ServeConfig, ServeError,
};

use crate::clock::{LIMIT, pass, within};
use crate::network::World;

const CHANNEL: &str = "/test/counted/1";
const PROTOCOL: &str = "/test/ask/1";

/// Nodes on machines of one world, each on its own.
fn machines() -> impl FnMut() -> NodeBuilder {
    let world = World::new();
    let mut number = 0;
    move || {
        number += 1;
        let address = format!("10.0.{number}.1");
        world.machine(number, &[&address]).node().listen(format!("/ip4/{address}/udp/4001/quic-v1"))
    }
}

/// Two connected nodes: the second dialled the first.
async fn pair(first: NodeBuilder, second: NodeBuilder) -> (Node, Node) {
    let (first, second) = (first.start().await.unwrap(), second.start().await.unwrap());
    let mut watch = first.peers().watch().await.unwrap();
    within("a connection", second.connect(&first.listen_addresses()[0])).await.unwrap();
    let came = |change: &Change| matches!(change, Change::Event(PeerEvent::Connected { peer, .. }) if *peer == second.peer_id());
    within("the other side", async { while !came(&watch.next().await.unwrap()) {} }).await;
    (first, second)
}

fn raw(length: usize) -> Raw {
    Raw(Bytes::from(vec![7; length]))
}

/// One value; a sample that is missing is a fault.
fn value(metrics: &[Metric], name: &str, labels: &[(&str, &str)]) -> f64 {
    let metric = metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}"));
    let is = |found: &[(&str, String)]| {
        found.len() == labels.len()
            && labels.iter().all(|(label, value)| found.iter().any(|(l, v)| l == label && v == value))
    };
    let sample = metric.samples.iter().find(|sample| is(&sample.labels));
    sample.unwrap_or_else(|| panic!("no {name}{labels:?} in {:?}", metric.samples)).value
}

/// Waits until a value is what it should be.
async fn becomes(node: &Node, name: &str, labels: &[(&str, &str)], wanted: f64) {
    let reached = async {
        while value(&node.metrics().await, name, labels) != wanted {
            pass(Duration::from_millis(5)).await;
        }
    };
    within(&format!("{name}{labels:?} = {wanted}"), reached).await;
}

#[tokio::test(start_paused = true)]
async fn channels_are_counted_by_name_in_messages_bytes_verdicts_refusals_and_queues() {
    let mut builder = machines();
    let (a, b) = pair(builder(), builder()).await;
    let config = || ChannelConfig::new(CHANNEL).max_message_bytes(1000).receive_queue(4096, 4);
    let at_b = b.channel::<Raw>(config()).unwrap();
    let at_a = a.channel::<Raw>(config().send_queue(2000, 8).overflow(Overflow::Refuse)).unwrap();
    let of = |label, value| [("channel", CHANNEL), (label, value)];
    for _ in 0..3 {
        assert!(within("a verdict", at_a.send_confirmed(b.peer_id(), &raw(98))).await.is_delivered());
        within("the message", at_b.recv()).await.unwrap();
    }
    assert!(at_a.try_send(b.peer_id(), &raw(1001)).is_err());
    assert!(at_a.try_send(a.peer_id(), &raw(1)).is_err());
    // Nobody reads, so at last the queue here is full too.
    let mut refused = 0.0;
    let filling = async {
        while refused < 3.0 {
            refused += f64::from(u8::from(at_a.try_send(b.peer_id(), &raw(98)).is_err()));
            pass(Duration::from_millis(2)).await;
        }
    };
    within("a full queue", filling).await;
    let sent = at_a.totals().sent as f64;
    let found = a.metrics().await;
    for (name, label, which, wanted) in [
        ("peerage_channel_messages", "direction", "sent", sent),
        ("peerage_channel_bytes", "direction", "sent", at_a.totals().sent_bytes as f64),
        ("peerage_channel_messages", "direction", "received", 0.0),
        ("peerage_channel_verdicts", "verdict", "unknown", 0.0),
        ("peerage_channel_refusals", "reason", "too_large", 1.0),
        ("peerage_channel_refusals", "reason", "not_connected", 1.0),
        ("peerage_channel_refusals", "reason", "queue_full", refused),
    ] {
        assert_eq!(value(&found, name, &of(label, which)), wanted, "{name} {which}");
    }
    assert!(value(&found, "peerage_channel_verdicts", &of("verdict", "delivered")) >= 3.0);
    assert!(value(&found, "peerage_channel_fullest_queue", &of("queue", "send")) > 0.9);
    assert!(value(&found, "peerage_channel_queued_messages", &of("queue", "send")) > 0.0);
    assert!(value(&found, "peerage_channel_memory_bytes", &[("channel", CHANNEL)]) > 0.0);
    let there = b.metrics().await;
    assert_eq!(value(&there, "peerage_channel_queued_messages", &of("queue", "receive")), 4.0);
    assert_eq!(value(&there, "peerage_channel_queued_bytes", &of("queue", "receive")), 4.0 * 99.0);
    assert_eq!(value(&there, "peerage_channel_fullest_queue", &of("queue", "receive")), 1.0);
    assert_eq!(value(&there, "peerage_channel_messages", &of("direction", "received")), 7.0);
    assert_eq!(value(&there, "peerage_channel_bytes", &of("direction", "received")), 7.0 * 99.0);

    // What a channel counted outlives it, and what its end cost is there.
    drop(at_b);
    becomes(&a, "peerage_channel_queued_messages", &of("queue", "send"), 0.0).await;
    let rejected = at_a.totals().rejected as f64;
    assert!(rejected > 0.0, "the peer refused what it had not taken");
    becomes(&a, "peerage_channel_verdicts", &of("verdict", "refused"), rejected).await;
    becomes(&b, "peerage_channel_messages", &of("direction", "received"), 7.0).await;
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_how_they_ended_on_either_side() {
    let mut builder = machines();
    let (server, client) = pair(builder(), builder()).await;
    let config = ServeConfig::default().concurrent(1, 1).waiting(1, 0);
    let answer = |request: peerage::Request<Raw>| async move {
        match request.body.0.len() {
            0 => pending().await,
            1 => Err(ServeError::denied("no")),
            _ => Ok(request.body),
        }
    };
    server.serve_with(PROTOCOL, config, answer).unwrap();
    let ask = |length, deadline| {
        let (client, server) = (client.clone(), server.peer_id());
        async move { client.request_within::<Raw, Raw>(server, PROTOCOL, &raw(length), deadline).await }
    };
    within("an answer", ask(5, LIMIT)).await.unwrap();
    within("a refusal", ask(1, LIMIT)).await.unwrap_err();
    within("the deadline", ask(0, Duration::from_millis(100))).await.unwrap_err();
    becomes(&server, "peerage_requests_in_progress", &[("side", "served")], 0.0).await;
    let mut given_up = Box::pin(ask(0, LIMIT));
    assert!((&mut given_up).now_or_never().is_none());
    becomes(&server, "peerage_requests_in_progress", &[("side", "served")], 1.0).await;
    becomes(&client, "peerage_requests_in_progress", &[("side", "asked")], 1.0).await;
    within("an overload", ask(5, LIMIT)).await.unwrap_err();
    drop(given_up);
    let served = |outcome| [("side", "served"), ("outcome", outcome)];
    let asked = |outcome| [("side", "asked"), ("outcome", outcome)];
    for outcome in ["answered", "denied", "overloaded"] {
        becomes(&server, "peerage_requests", &served(outcome), 1.0).await;
    }
    // At the deadline either side may be the first to end it.
    let ended = async {
        loop {
            let found = server.metrics().await;
            let of = |outcome| value(&found, "peerage_requests", &served(outcome));
            if (of("cancelled"), of("deadline")) == (2.0, 0.0)
                || (of("cancelled"), of("deadline")) == (1.0, 1.0)
            {
                return;
            }
            pass(Duration::from_millis(5)).await;
        }
    };
    within("both that had no answer", ended).await;
    let nobody = server.request::<Raw, Raw>(server.peer_id(), PROTOCOL, &raw(1)).await;
    assert!(matches!(nobody, Err(RequestError::NotConnected { .. })));
    becomes(&server, "peerage_requests", &asked("not_connected"), 1.0).await;
    for outcome in ["answered", "refused", "deadline", "overloaded", "cancelled"] {
        becomes(&client, "peerage_requests", &asked(outcome), 1.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_counted_by_kind_of_peer_and_never_go_back_when_it_changes() {
    let mut builder = machines();
    let (a, b) = pair(builder(), builder()).await;
    a.serve(PROTOCOL, |_, question: Raw| async move { Ok::<_, ServeError>(question) }).unwrap();
    let ask = || async {
        within("an answer", b.request::<Raw, Raw>(a.peer_id(), PROTOCOL, &raw(100_000))).await.unwrap();
    };
    let bytes = async |kind, direction| {
        let labels = [("kind", kind), ("connection", "inbound"), ("direction", direction)];
        value(&a.metrics().await, "peerage_peer_bytes", &labels)
    };
    ask().await;
    let before = bytes("ordinary", "received").await;
    assert!(before >= 100_000.0 && bytes("ordinary", "sent").await >= 100_000.0);
    a.peers().set_class(b.peer_id(), PeerClass::Private).await;
    assert_eq!(bytes("private", "received").await, 0.0, "what was moved before stays where it was");
    ask().await;
    let private = bytes("private", "received").await;
    assert!(private >= 100_000.0 && private < before + 50_000.0, "{private}");
    a.peers().set_class(b.peer_id(), PeerClass::Persistent).await;
    ask().await;
    assert!(bytes("persistent", "received").await >= 100_000.0);
    let ordinary = bytes("ordinary", "received").await;
    assert!(ordinary >= before && ordinary < before + 50_000.0, "{ordinary}");
    let sum = async || {
        let found = a.metrics().await;
        let received = |metric: &Metric| {
            let is = |labels: &[(&str, String)]| labels.iter().any(|(_, value)| value == "received");
            metric.samples.iter().filter(|sample| is(&sample.labels)).map(|sample| sample.value).sum::<f64>()
        };
        let of = |name| received(found.iter().find(|metric| metric.name == name).unwrap());
        (of("peerage_peer_bytes"), of("peerage_protocol_bytes"))
    };
    let (by_kind, by_protocol) = sum().await;
    assert_eq!(by_kind, by_protocol, "the same bytes in another order");
    let outbound = [("kind", "ordinary"), ("connection", "outbound"), ("direction", "sent")];
    assert!(value(&b.metrics().await, "peerage_peer_bytes", &outbound) >= 300_000.0);
    a.peers().disconnect(b.peer_id()).await;
    becomes(&a, "peerage_peers", &[("direction", "inbound"), ("kind", "peerage")], 0.0).await;
    let (after, _) = sum().await;
    assert!(after >= by_kind, "{after} after {by_kind}");
}

#[tokio::test(start_paused = true)]
async fn every_metric_has_a_name_of_its_own_a_sentence_and_no_peer_in_its_labels() {
    let mut builder = machines();
    let (a, b) = pair(builder(), builder()).await;
    let _channel = a.channel::<Raw>(ChannelConfig::new(CHANNEL)).unwrap();
    let found = a.metrics().await;
    let names: BTreeSet<_> = found.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), found.len());
    for metric in &found {
        assert!(metric.name.starts_with("peerage_") && metric.help.len() > 10, "{metric:?}");
        let mut labels = BTreeSet::new();
        for sample in &metric.samples {
            assert!(labels.insert(sample.labels.clone()), "{} has {:?} twice", metric.name, sample.labels);
            let told = format!("{:?}", sample.labels);
            assert!(!told.contains(&b.peer_id().to_string()) && !told.contains("10.0."), "{told}");
            assert!(sample.value.is_finite() && sample.value >= 0.0);
        }
    }
    assert_eq!(value(&found, "peerage_queue_length", &[("queue", "connects")]), 0.0);
    assert_eq!(value(&found, "peerage_connecting", &[("direction", "outbound"), ("stage", "dial")]), 0.0);
    let limit = MemoryLimits::default().node_bytes as f64;
    assert_eq!(value(&found, "peerage_memory_limit_bytes", &[("of", "channels")]), limit);
    let uptime = found.iter().find(|metric| metric.name == "peerage_uptime_seconds").unwrap();
    assert_eq!(uptime.kind, MetricKind::Gauge);
}

#[tokio::test(start_paused = true)]
async fn a_node_works_on_no_more_requests_at_once_than_it_may_over_all_protocols() {
    let mut builder = machines();
    let limits = RequestLimits::default().served(2, 1).asked(5, 1);
    let (server, client) =
        pair(builder().request_limits(limits.clone()), builder().request_limits(limits)).await;
    let names = ["/test/one/1", "/test/two/1", "/test/three/1", "/test/four/1"];
    for name in names {
        server.serve(name, |_, _: Raw| async move { pending::<Result<Raw, ServeError>>().await }).unwrap();
    }
    let ask = |name| {
        let (client, server) = (client.clone(), server.peer_id());
        async move { client.request_within::<Raw, Raw>(server, name, &raw(1), LIMIT).await }
    };
    let mut asking: Vec<_> = names[..3].iter().map(|name| Box::pin(ask(name))).collect();
    for (number, asking) in (1..).zip(&mut asking) {
        assert!(asking.now_or_never().is_none());
        becomes(&server, "peerage_requests_in_progress", &[("side", "served")], f64::from(number)).await;
    }
    becomes(&server, "peerage_requests_waiting", &[("side", "served")], 1.0).await;
    let error = within("a refusal", ask(names[3])).await.unwrap_err();
    assert!(matches!(error, RequestError::Overloaded { retry_after: Some(_), .. }), "{error}");

    // On the side that asks: three are under way, two more find a place, one waits, and the next is too many.
    let mut more: Vec<_> = (0..3).map(|_| Box::pin(ask("/test/none/1"))).collect();
    for asking in &mut more {
        assert!(asking.now_or_never().is_none());
    }
    let error = ask("/test/none/1").await.unwrap_err();
    assert!(matches!(error, RequestError::Busy { waiting: 1, .. }), "{error}");
    let none = builder().request_limits(RequestLimits::default().served(0, 0)).start().await.unwrap_err();
    assert!(none.to_string().contains("max_served"), "{none}");
}

#[tokio::test(start_paused = true)]
async fn requests_and_answers_are_held_only_as_far_as_their_memory_is_accounted_for() {
    let mut builder = machines();
    let small = MemoryLimits::default().request_bytes(1 << 20, 512 << 10);
    let (server, client) = pair(builder().memory(small.clone()), builder()).await;
    server
        .serve(PROTOCOL, |_, question: Raw| async move {
            if question.0.is_empty() {
                return Ok::<_, ServeError>(raw(600 << 10));
            }
            pending().await
        })
        .unwrap();
    let ask = |length| {
        let (client, server) = (client.clone(), server.peer_id());
        async move { client.request_within::<Raw, Raw>(server, PROTOCOL, &raw(length), LIMIT).await }
    };
    let mut first = Box::pin(ask(300 << 10));
    let held = [("of", "requests")];
    let reading = async {
        tokio::select! {
            answer = &mut first => panic!("{answer:?}"),
            () = becomes(&server, "peerage_memory_bytes", &held, f64::from(300 << 10)) => {}
        }
    };
    reading.await;
    let error = within("a refusal", ask(300 << 10)).await.unwrap_err();
    let RequestError::Overloaded { retry_after: Some(_), text, .. } = error else { panic!("{error}") };
    assert!(text.contains("request_peer_bytes"), "{text}");
    drop(first);
    becomes(&server, "peerage_memory_bytes", &held, 0.0).await;
    let error = within("a failure", ask(0)).await.unwrap_err();
    assert!(matches!(error, RequestError::Overloaded { retry_after: Some(_), .. }), "{error}");

    // The one that asks is bounded too: in what it sends, and in what it takes.
    client.serve(PROTOCOL, |_, _: Raw| async move { Ok::<_, ServeError>(raw(600 << 10)) }).unwrap();
    for length in [1, 600 << 10] {
        let question = raw(length);
        let asking = server.request::<Raw, Raw>(client.peer_id(), PROTOCOL, &question);
        let error = within("a failure", asking).await.unwrap_err();
        assert!(matches!(error, RequestError::NoMemory { limit: "request_peer_bytes", .. }), "{error}");
    }
    becomes(&server, "peerage_memory_bytes", &held, 0.0).await;
    let none = builder().memory(small.request_bytes(1, 1)).start().await.unwrap_err();
    assert!(none.to_string().contains("request_bytes"), "{none}");
}

/// Who announces much and sends nothing keeps nobody else's request out.
#[tokio::test(start_paused = true)]
async fn a_length_that_is_only_announced_takes_no_memory_from_other_requests() {
    let mut builder = machines();
    let small = MemoryLimits::default().request_bytes(1 << 20, 1 << 20);
    let (server, client) = pair(builder().memory(small), builder()).await;
    server.serve(PROTOCOL, |_, question: Raw| async move { Ok::<_, ServeError>(question) }).unwrap();
    let address = server.listen_addresses()[0].clone();
    let mut announced = Vec::new();
    for _ in 0..4 {
        let liar = builder().start().await.unwrap();
        within("a connection", liar.connect(&address)).await.unwrap();
        for _ in 0..3 {
            let mut stream = within("a stream", liar.open(server.peer_id(), PROTOCOL)).await.unwrap();
            // 1,000,000 as a uvarint, and one byte of so many.
            stream.send.write_chunk(Bytes::from_static(&[0xc0, 0x84, 0x3d, 9])).await.unwrap();
            announced.push((liar.clone(), stream));
        }
    }
    // Each has been read as far as it came, and holds no more than what every request begins with.
    let least = announced.len() as f64 * f64::from(16 << 10);
    becomes(&server, "peerage_memory_bytes", &[("of", "requests")], least).await;
    let question = raw(400 << 10);
    let answer = within("an answer", client.request::<Raw, Raw>(server.peer_id(), PROTOCOL, &question)).await;
    assert_eq!(answer.unwrap(), question);
}

#[tokio::test(start_paused = true)]
async fn what_the_dht_holds_and_has_asked_is_counted_where_there_is_one() {
    let mut machines = machines();
    let with_dht = |builder: NodeBuilder| builder.dht(peerage::DhtConfig::default());
    let (first, second) = pair(with_dht(machines()), with_dht(machines())).await;
    becomes(&first, "peerage_dht_peers", &[], 1.0).await;
    becomes(&second, "peerage_dht_peers", &[], 1.0).await;
    second.dht().put("colour", "blue").await.unwrap();
    second.dht().provide("song").await.unwrap();
    let metrics = first.metrics().await;
    assert!(value(&metrics, "peerage_dht_records", &[]) >= 1.0);
    assert!(value(&metrics, "peerage_dht_record_bytes", &[]) >= 100.0);
    assert_eq!(value(&metrics, "peerage_dht_provider_records", &[]), 1.0);
    assert!(value(&metrics, "peerage_dht_queries", &[("answer", "served")]) >= 2.0);
    let metrics = second.metrics().await;
    assert_eq!(value(&metrics, "peerage_dht_provided", &[]), 1.0);
    assert!(value(&metrics, "peerage_dht_published", &[]) >= 1.0);
    assert!(value(&metrics, "peerage_dht_requests", &[("end", "answered")]) >= 2.0);
    let without = machines().start().await.unwrap();
    assert!(without.metrics().await.iter().all(|metric| !metric.name.starts_with("peerage_dht")));
}
