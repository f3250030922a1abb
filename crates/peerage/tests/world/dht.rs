//! How much and how long a peer may ask of the DHT, and how much it may answer: the node's own limits, beside those of its machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use peerage::dht::Mode;
use peerage::dht::StepKind;
use peerage::{DhtConfig, DhtError, MemoryStore, Node, Store as _};
use peerage_transport::{NegotiationError, ReadError, Stream, StreamCode};
use peerage_wire::hello::Hello;
use peerage_wire::identify::Identify;
use peerage_wire::kad::{Message, message::MessageType};
use prost::Message as _;
use tokio::time::Instant;

use crate::clock::{LIMIT, SECOND, pass, within};
use crate::network::World;
use crate::stranger::{HELLO, Stranger, framed, padded};

const KAD: &str = "/world/kad/1.0.0";

/// A node that serves the DHT, at 10.0.0.1.
async fn server(world: &Arc<World>) -> Node {
    server_with(world, MemoryStore::default()).await
}

/// The same, with a disk that outlives it.
async fn server_with(world: &Arc<World>, store: MemoryStore) -> Node {
    let machine = world.machine(1, &["10.0.0.1"]);
    let config = DhtConfig::default().any_value("any");
    let listen = "/ip4/10.0.0.1/udp/4001/quic-v1";
    let builder = machine.node().max_outbound(0).dht(config).store(Arc::new(store));
    builder.listen(listen).start().await.unwrap()
}

/// The same, and a peer of it that says that it serves, too.
async fn pair(world: &Arc<World>) -> (Node, Stranger) {
    let node = server(world).await;
    let stranger = Stranger::dial(world, "10.0.0.2", &node).await;
    stranger.meet(1, &Hello { services: vec![KAD.into()], ..stranger.hello(1) }).await;
    (node, stranger)
}

fn of(kind: MessageType, key: &[u8]) -> Message {
    Message { r#type: Some(kind.into()), key: Some(Bytes::copy_from_slice(key)), ..Message::default() }
}

fn find() -> Message {
    of(MessageType::FindNode, b"somewhere")
}

async fn until_so(what: &str, mut is: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is().await {
            pass(SECOND / 10).await;
        }
    })
    .await;
}

/// How a stream on which something was asked answers: with a message, or with its end.
async fn answered(stream: &mut Stream) -> Result<Message, Option<StreamCode>> {
    match within("an answer", stream.recv.read_message::<Message>(1 << 20)).await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(None),
        Err(ReadError::Reset { code, .. } | ReadError::Negotiation(NegotiationError::Reset { code, .. })) => {
            Err(Some(code))
        }
        Err(error) => panic!("{error}"),
    }
}

/// AL-70
#[tokio::test(start_paused = true)]
async fn whom_the_dht_saw_is_known_after_a_restart() {
    for hard in [false, true] {
        let (world, store) = (World::new(), MemoryStore::default());
        let node = server_with(&world, store.clone()).await;
        let stranger = Stranger::dial(&world, "10.0.0.2", &node).await;
        stranger.meet(1, &Hello { services: vec![KAD.into()], ..stranger.hello(1) }).await;
        let mut stream = stranger.begin(KAD, framed(find().encode_to_vec())).await;
        answered(&mut stream).await.unwrap();
        let seen = node.dht().standing().await.unwrap().seen;
        assert_eq!((seen.hour, seen.unique), (1, 1));
        if hard {
            // What is written once an hour is there without a last word of the node's.
            pass(2 * 3600 * SECOND).await;
            let kept = MemoryStore::default();
            kept.save_rows(
                &store
                    .load_rows()
                    .unwrap()
                    .into_iter()
                    .map(|(key, row)| (key, Some(row)))
                    .collect::<Vec<_>>(),
                true,
            )
            .unwrap();
            let again = server_with(&World::new(), kept).await;
            assert_eq!(again.dht().standing().await.unwrap().seen.day, 1);
        } else {
            node.close().await;
            let again = server_with(&World::new(), store).await;
            let seen = again.dht().standing().await.unwrap().seen;
            assert_eq!((seen.hour, seen.unique), (1, 0), "those loaded are not counted again");
        }
    }
}

/// further streams are refused, and a place is free again when one ends.
#[tokio::test(start_paused = true)]
async fn a_peer_may_ask_the_dht_on_thirty_two_streams_at_once() {
    let world = World::new();
    let (node, stranger) = pair(&world).await;
    let question = framed(find().encode_to_vec());
    let mut streams = Vec::new();
    for _ in 0..32 {
        let mut stream = stranger.begin(KAD, question.clone()).await;
        answered(&mut stream).await.unwrap();
        streams.push(stream);
    }
    let mut one_more = stranger.begin(KAD, question.clone()).await;
    assert_eq!(answered(&mut one_more).await, Err(Some(StreamCode::Overloaded)));
    // Those that are there go on: any number of questions on each.
    for _ in 0..2 {
        streams[0].send.write_chunk(question.clone()).await.unwrap();
        answered(&mut streams[0]).await.unwrap();
    }
    let mut last = streams.pop().unwrap();
    last.send.finish().unwrap();
    assert_eq!(answered(&mut last).await, Err(None));
    let mut again = stranger.begin(KAD, question).await;
    answered(&mut again).await.unwrap();
    node.close().await;
}

///
#[tokio::test(start_paused = true)]
async fn a_stream_on_which_the_dht_is_asked_nothing_for_a_minute_is_ended() {
    let world = World::new();
    let (_node, stranger) = pair(&world).await;
    let mut stream = stranger.begin(KAD, framed(find().encode_to_vec())).await;
    answered(&mut stream).await.unwrap();
    pass(59 * SECOND).await;
    stream.send.write_chunk(framed(find().encode_to_vec())).await.unwrap();
    answered(&mut stream).await.unwrap();
    let start = Instant::now();
    assert_eq!(answered(&mut stream).await, Err(None));
    assert!(start.elapsed() >= 59 * SECOND && start.elapsed() < 62 * SECOND, "{:?}", start.elapsed());
}

///
#[tokio::test(start_paused = true)]
async fn a_question_to_the_dht_of_sixteen_kibibytes_is_read_and_a_longer_one_is_not() {
    let world = World::new();
    let (_node, stranger) = pair(&world).await;
    let mut stream = stranger.begin(KAD, padded(&find(), 16 * 1024)).await;
    answered(&mut stream).await.unwrap();
    stream.send.write_chunk(padded(&find(), 16 * 1024 + 1)).await.unwrap();
    assert_eq!(answered(&mut stream).await, Err(Some(StreamCode::ProtocolViolation)));
}

/// a peer that answers more than is read has not answered.
#[tokio::test(start_paused = true)]
async fn an_answer_of_the_dht_of_a_hundred_and_twenty_eight_kibibytes_is_read_and_a_longer_one_is_not() {
    for (length, read) in [(128 * 1024, true), (128 * 1024 + 1, false)] {
        let world = World::new();
        let (node, stranger) = pair(&world).await;
        let dht = node.dht();
        let asking = async { dht.closest("there").await.unwrap().1 };
        let answering = async {
            // The node asks for its own place, too, when it meets somebody.
            loop {
                let mut stream = stranger.next(KAD).await;
                let Ok(Some(asked)) = stream.recv.read_message::<Message>(1 << 20).await else { continue };
                let wanted = asked.key.as_deref() == Some(b"there");
                let answer = if wanted { padded(&asked, length) } else { framed(asked.encode_to_vec()) };
                let _ = stream.send.write_chunk(answer).await;
                pass(SECOND / 10).await;
            }
        };
        let report = tokio::select! { report = asking => report, () = answering => unreachable!() };
        let counts = (report.counts.answered, report.counts.failed);
        assert_eq!(counts, if read { (1, 0) } else { (0, 1) }, "{length}: {report}");
        node.close().await;
    }
}

///
#[tokio::test(start_paused = true)]
async fn four_streams_to_a_peer_are_kept_for_the_next_question_and_for_half_a_minute() {
    let world = World::new();
    let (node, stranger) = pair(&world).await;
    let dht = node.dht();
    let ask = |number: usize| {
        let dht = dht.clone();
        async move { dht.closest(format!("place {number}")).await }
    };
    let asking = futures::future::join_all((0..6).map(ask));
    let answering = async {
        let mut streams = Vec::new();
        let mut mine = 0;
        while mine < 6 {
            let mut stream = stranger.next(KAD).await;
            let asked = stream.recv.read_message::<Message>(1 << 20).await.unwrap().unwrap();
            mine += usize::from(asked.key.as_ref().is_some_and(|key| key.starts_with(b"place")));
            streams.push((stream, asked));
        }
        for (stream, asked) in &mut streams {
            let _ = stream.send.write_chunk(framed(asked.encode_to_vec())).await;
        }
        streams
    };
    let (reports, mut streams) = tokio::join!(asking, answering);
    assert!(reports.iter().all(|report| report.as_ref().unwrap().1.counts.answered == 1));
    pass(SECOND).await;
    let mut kept = Vec::new();
    for (stream, _) in &mut streams {
        // Nothing more is asked on it: it has ended, or waits.
        let ends = tokio::time::timeout(SECOND / 100, stream.recv.read_chunk(1)).await;
        if ends.is_err() {
            kept.push(stream);
        }
    }
    assert_eq!(kept.len(), 4, "of {}", reports.len());
    let start = Instant::now();
    for stream in kept {
        let _ = within("its end", stream.recv.read_chunk(1)).await;
    }
    // They are looked through every 15 s.
    assert!(start.elapsed() > 27 * SECOND && start.elapsed() < 46 * SECOND, "{:?}", start.elapsed());
}

/// whoever asks and does not read holds up itself.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_what_it_asked_for_loses_its_stream_after_ten_seconds() {
    let world = World::new();
    let node = server(&world).await;
    let key = peerage::NodeKey::generate();
    let endpoint = Stranger::endpoint(&world, "10.0.0.2", &key, |settings| {
        settings.stream_window_bytes = 64 * 1024;
    })
    .await;
    let stranger = Stranger::over(key, endpoint, &node).await;
    stranger.meet(1, &stranger.hello(1)).await;
    let record =
        |value: Vec<u8>| peerage_wire::kad::Record { value: Some(value.into()), ..Default::default() };
    let put = Message { record: Some(record(vec![7; 4000])), ..of(MessageType::PutValue, b"/any/thing") };
    let mut stream = stranger.begin(KAD, framed(put.encode_to_vec())).await;
    answered(&mut stream).await.unwrap();
    let get = framed(of(MessageType::GetValue, b"/any/thing").encode_to_vec());
    for _ in 0..40 {
        stream.send.write_chunk(get.clone()).await.unwrap();
    }
    let start = Instant::now();
    let _ = within("its end", stream.send.stopped()).await;
    assert!(start.elapsed() > 9 * SECOND && start.elapsed() < 12 * SECOND, "{:?}", start.elapsed());
    // The connection goes on.
    let mut next = stranger.begin(KAD, get).await;
    answered(&mut next).await.unwrap();
    node.close().await;
}

/// Answers whatever is asked; with `value`, after a while, what is asked for under `key`.
async fn answer_all(stranger: &Stranger, key: &[u8], value: &'static [u8], after: Duration) {
    loop {
        let mut stream = stranger.next(KAD).await;
        let Ok(Some(asked)) = stream.recv.read_message::<Message>(1 << 20).await else { continue };
        let mut answer = asked.clone();
        if asked.r#type == Some(MessageType::GetValue.into()) && asked.key.as_deref() == Some(key) {
            pass(after).await;
            let value = Some(Bytes::from_static(value));
            answer.record = Some(peerage_wire::kad::Record { value, ..Default::default() });
        }
        let _ = stream.send.write_chunk(framed(answer.encode_to_vec())).await;
        let _ = stream.send.finish();
    }
}

/// AL-31: what is asked already is not cut off when the lookup ends, and what it brings is told.
#[tokio::test(start_paused = true)]
async fn a_value_that_comes_after_the_end_of_its_lookup_is_told_to_its_watcher() {
    let world = World::new();
    let (node, quick) = pair(&world).await;
    let slow = Stranger::dial(&world, "10.0.0.3", &node).await;
    slow.meet(1, &Hello { services: vec![KAD.into()], ..slow.hello(1) }).await;
    let key = b"/any/thing";
    let asking = async {
        let dht = node.dht();
        // Whoever has not asked yet whether they serve is told so when it looks for its own place.
        dht.closest("elsewhere").await.unwrap();
        let start = Instant::now();
        let (call, mut steps) = dht.get_raw(key).quorum(1).watch();
        let (value, report) = call.await.unwrap();
        assert_eq!((&value[..], start.elapsed() < SECOND / 2), (&b"old"[..], true), "{report}");
        let mut newer = Vec::new();
        while let Some(step) = within("a step", steps.next()).await {
            if let StepKind::Later { peer, newer: many, .. } = step.what {
                newer.push((peer, many));
            }
        }
        assert_eq!(newer, [(slow.id(), 1)]);
        assert!(start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
    };
    tokio::select! {
        () = asking => {}
        () = answer_all(&quick, key, b"old", Duration::ZERO) => {}
        () = answer_all(&slow, key, b"this is newer", SECOND) => {}
    }
    node.close().await;
}

/// libp2p has no answer to ADD_PROVIDER, and a peer that never ends its side is not waited for.
#[tokio::test(start_paused = true)]
async fn a_stream_after_a_question_without_an_answer_is_given_up_after_a_second() {
    let world = World::new();
    let node = server(&world).await;
    let foreign = Stranger::dial(&world, "10.0.0.2", &node).await;
    // Who names no address is in nobody's table: /ip4/10.0.0.2/udp/4001/quic-v1.
    let address = Bytes::from_static(&[4, 10, 0, 0, 2, 0x91, 2, 15, 161, 0xcd, 3]);
    let about = Identify { protocols: vec![KAD.into()], listen_addrs: vec![address], ..Identify::default() };
    let asked_once = tokio::sync::Notify::new();
    let acting = async {
        loop {
            let stream = foreign.connection.accept_stream().await.unwrap();
            // It knows no hello, which makes it a node of another implementation.
            let Ok((name, mut stream)) = stream.negotiate(|name| name != HELLO, LIMIT).await else {
                continue;
            };
            if &*name == "/ipfs/id/1.0.0" {
                let _ = stream.send.write_chunk(framed(about.encode_to_vec())).await;
                let _ = stream.send.finish();
            } else if &*name == KAD {
                let asked: Message = stream.recv.read_message(1 << 20).await.unwrap().unwrap();
                if asked.r#type == Some(MessageType::AddProvider.into()) {
                    let start = Instant::now();
                    assert_eq!(stream.recv.read_chunk(1).await.unwrap(), None, "it has ended its side");
                    let _ = within("its end", stream.send.stopped()).await;
                    return start.elapsed();
                }
                asked_once.notify_one();
                // Its next question comes on another stream.
                let _ = stream.send.write_chunk(framed(asked.encode_to_vec())).await;
                let _ = stream.send.finish();
            }
        }
    };
    let dht = node.dht();
    let providing = async {
        asked_once.notified().await;
        dht.provide("song").await
    };
    let (took, provided) = tokio::join!(within("a provider", acting), providing);
    assert!(took > SECOND * 9 / 10 && took < SECOND * 3 / 2, "{took:?}");
    assert_eq!(provided.unwrap().counts.stored, 1);
    node.close().await;
}

///
#[tokio::test(start_paused = true)]
async fn of_the_protocols_in_a_hello_sixteen_are_known() {
    let world = World::new();
    for (host, before, known) in [(2, 15, true), (3, 16, false)] {
        let node = server(&world).await;
        let stranger = Stranger::dial(&world, &format!("10.0.0.{host}"), &node).await;
        let others = (0..before).map(|number| format!("/other/{number}"));
        let services = others.chain([KAD.to_owned()]).collect();
        stranger.meet(1, &Hello { services, ..stranger.hello(1) }).await;
        let peer = node.peers().get(stranger.id()).unwrap();
        assert_eq!(peer.about.protocols.iter().any(|name| name == KAD), known, "{:?}", peer.about.protocols);
        node.close().await;
    }
}

/// whoever asks a node that has just begun waits for its first peer, for two seconds.
#[tokio::test(start_paused = true)]
async fn an_operation_of_a_node_that_knows_nobody_waits_two_seconds_for_somebody() {
    let world = World::new();
    let listen = |machine: u64| format!("/ip4/10.0.0.{machine}/udp/4001/quic-v1");
    let node = async |host: u64| {
        let machine = world.machine(host, &[&format!("10.0.0.{host}")]);
        machine.node().dht(DhtConfig::default()).listen(listen(host)).start().await.unwrap()
    };
    let (first, second) = (node(1).await, node(2).await);
    let start = Instant::now();
    let alone = first.dht().closest("x").await;
    assert_eq!(alone.map(|_| ()), Err(DhtError::NoContacts));
    assert!(start.elapsed() >= 2 * SECOND && start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
    // Nor longer than its caller gives it.
    let start = Instant::now();
    let hurried = first.dht().closest("x").deadline(SECOND / 2).await;
    assert_eq!(hurried.map(|_| ()), Err(DhtError::NoContacts));
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    let dht = first.dht();
    let asking = dht.closest("x");
    let connecting = async {
        pass(SECOND).await;
        second.connect(&first.listen_addresses()[0]).await
    };
    let (found, connected) = tokio::join!(asking, connecting);
    connected.unwrap();
    assert_eq!(found.unwrap().0.len(), 1);
    first.close().await;
    second.close().await;
}

/// Waits until something is so, as virtual time passes.
async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    within(what, async {
        while !is().await {
            pass(SECOND / 10).await;
        }
    })
    .await;
}

/// Who serves nobody stands in no table, and who is away is connected to nobody: what leads to it is the record that it has published, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_node_that_no_table_names_is_reached_by_its_id_where_its_record_lives() {
    for published in [false, true] {
        let world = World::new();
        let seed = server(&world).await;
        let address = &seed.listen_addresses()[0];
        let mut config = DhtConfig::default();
        config.mode = Some(Mode::Client);
        let listen = "/ip4/10.0.0.3/udp/4001/quic-v1";
        let machine = world.machine(3, &["10.0.0.3"]);
        let publisher = machine.node().max_outbound(0).dht(config).listen(listen).start().await.unwrap();
        publisher.connect(address).await.unwrap();
        if published {
            publisher.dht().publish().await.unwrap();
        }
        publisher.peers().disconnect(seed.peer_id()).await;
        let asker = world.machine(2, &["10.0.0.2"]).node().max_outbound(0).dht(DhtConfig::default());
        let asker = asker.listen("/ip4/10.0.0.2/udp/4001/quic-v1").start().await.unwrap();
        asker.connect(address).await.unwrap();
        let dht = asker.dht();
        until("a table", async || dht.standing().await.unwrap().usable == 1).await;
        let named = dht.find_peer(publisher.peer_id()).await;
        assert!(matches!(named, Err(DhtError::NotFound { .. })), "{named:?}");
        assert_eq!(dht.endpoint(publisher.peer_id()).await.is_ok(), published);
        let connected = asker.connect(publisher.peer_id()).await;
        assert_eq!(connected.is_ok(), published, "{connected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_to_be_reached_elsewhere_publishes_it_and_tells_what_it_provides_anew() {
    let world = World::new();
    let seed = server(&world).await;
    let machine = world.machine(2, &["10.0.0.2", "10.0.0.4"]);
    let node = machine.node().max_outbound(0).dht(DhtConfig::default());
    let node = node.listen("/ip4/10.0.0.2/udp/4001/quic-v1").start().await.unwrap();
    node.connect(&seed.listen_addresses()[0]).await.unwrap();
    let (dht, peer) = (seed.dht(), node.peer_id());
    let published = async |address: &str| {
        let found = dht.endpoint(peer).await;
        found.is_ok_and(|(addresses, _)| addresses.iter().any(|known| known.to_string().contains(address)))
    };
    until("the first address", async || published("10.0.0.2").await).await;
    assert!(!published("10.0.0.4").await);
    node.dht().provide("song").await.unwrap();
    node.listen("/ip4/10.0.0.4/udp/4002/quic-v1").await.unwrap();
    until("the second address", async || published("10.0.0.4").await).await;
    until("the provider's second address", async || {
        let (providers, _) = dht.providers("song", 1).await.unwrap();
        providers[0].addresses().iter().any(|known| known.to_string().contains("10.0.0.4"))
    })
    .await;
}

/// Whoever stops to serve tells it, ends the streams on which it is asked, and renews no word of where it is; when it serves again all of that is as before.
#[tokio::test(start_paused = true)]
async fn a_node_can_serve_no_more_and_serve_again_while_it_runs() {
    let world = World::new();
    let node = server(&world).await;
    let other = world.machine(2, &["10.0.0.2"]).node().dht(DhtConfig::default());
    let other = other.listen("/ip4/10.0.0.2/udp/4001/quic-v1").seed(&node.listen_addresses()[0]);
    let other = other.start().await.unwrap();
    let stranger = Stranger::join(&world, "10.0.0.3", &node).await;
    let serves = async |wanted: bool| {
        until_so("the other's table", async || {
            let table = other.dht().table().await.unwrap();
            table.iter().any(|(contact, _)| *contact.peer() == node.peer_id()) == wanted
        })
        .await;
        until_so("what is published", async || node.dht().published().await.unwrap().is_empty() != wanted)
            .await;
        let about = other.peers().get(node.peer_id()).unwrap().about;
        assert_eq!(about.protocols.iter().any(|name| name == KAD), wanted, "it was told");
    };
    serves(true).await;
    let question = framed(find().encode_to_vec());
    let mut stream = stranger.begin(KAD, question.clone()).await;
    answered(&mut stream).await.unwrap();

    node.dht().set_mode(Mode::Client).await.unwrap();
    assert_eq!(node.dht().standing().await.unwrap().mode, Mode::Client);
    assert_eq!(answered(&mut stream).await, Err(Some(StreamCode::Cancelled)));
    let mut refused = stranger.begin(KAD, question.clone()).await;
    let refusal = within("a refusal", refused.recv.read_message::<Message>(1 << 20)).await;
    assert!(matches!(refusal, Err(ReadError::NotSupported { .. })), "{refusal:?}");
    serves(false).await;
    // It asks as before, and a second time changes nothing.
    node.dht().set_mode(Mode::Client).await.unwrap();
    assert!(
        node.dht()
            .closest("somewhere")
            .await
            .unwrap()
            .0
            .iter()
            .any(|contact| *contact.peer() == other.peer_id())
    );

    node.dht().set_mode(Mode::Server).await.unwrap();
    assert_eq!(node.dht().standing().await.unwrap().mode, Mode::Server);
    serves(true).await;
    answered(&mut stranger.begin(KAD, question).await).await.unwrap();
    other.close().await;
    node.close().await;
}

/// A name that something else is served under meanwhile stays that one's, and the node goes on as it was.
#[tokio::test(start_paused = true)]
async fn who_has_given_the_dhts_name_away_does_not_serve_under_it() {
    let world = World::new();
    let mut config = DhtConfig::default();
    (config.libp2p, config.mode) = (true, Some(Mode::Client));
    let node = world.machine(1, &["10.0.0.1"]).node().dht(config);
    let node = node.listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap();
    let taken = node.accept("/ipfs/kad/1.0.0").unwrap();
    let refused = node.dht().set_mode(Mode::Server).await.unwrap_err();
    assert!(refused.to_string().contains("/ipfs/kad/1.0.0"), "{refused}");
    assert_eq!(node.dht().standing().await.unwrap().mode, Mode::Client);
    let stranger = Stranger::join(&world, "10.0.0.2", &node).await;
    let mut stream = stranger.begin(KAD, framed(find().encode_to_vec())).await;
    let refusal = within("a refusal", stream.recv.read_message::<Message>(1 << 20)).await;
    assert!(matches!(refusal, Err(ReadError::NotSupported { .. })), "all names or none: {refusal:?}");
    drop(taken);
    node.dht().set_mode(Mode::Server).await.unwrap();
    answered(&mut stranger.begin(KAD, framed(find().encode_to_vec())).await).await.unwrap();
    node.close().await;
}

/// A peer that answers with what is no message is not asked once more for it, on a stream that was kept either.
#[tokio::test(start_paused = true)]
async fn who_answers_nonsense_on_a_kept_stream_is_not_asked_again_on_the_next_ones() {
    let world = World::new();
    let (node, stranger) = pair(&world).await;
    let asked = AtomicUsize::new(0);
    let answer = async |mut stream: Stream| {
        while let Ok(Some(question)) = stream.recv.read_message::<Message>(1 << 20).await {
            let bytes = match question.key.as_deref() {
                Some(b"there") => {
                    asked.fetch_add(1, Ordering::Relaxed);
                    // A field of no known form.
                    Bytes::from_static(&[2, 0xff, 0xff])
                }
                _ => framed(question.encode_to_vec()),
            };
            let _ = stream.send.write_chunk(bytes).await;
        }
    };
    let answering = async {
        let mut streams = FuturesUnordered::new();
        loop {
            tokio::select! {
                stream = stranger.next(KAD) => streams.push(answer(stream)),
                Some(()) = streams.next() => {}
            }
        }
    };
    let asking = async {
        let dht = node.dht();
        // Both of these are kept.
        let both = [dht.closest("one place"), dht.closest("another place")];
        let both = futures::future::join_all(both.map(IntoFuture::into_future)).await;
        assert!(both.iter().all(Result::is_ok));
        let (_, report) = dht.closest("there").await.unwrap();
        assert_eq!((report.counts.failed, asked.load(Ordering::Relaxed)), (1, 1), "{report}");
    };
    tokio::select! { () = asking => {}, () = answering => unreachable!() }
    node.close().await;
}
