//! Being measured: what a peer with a run is served, what it may cost, and that nobody else is served at all.

use std::sync::Arc;

use bytes::Bytes;
use peerage::bench::{COUNT, ECHO, MAX_LATE_BYTES, MESSAGES, REQUEST, RUN, STREAM};
use peerage::{
    BenchLimits, Channel, ChannelConfig, Node, NodeBuilder, PeerId, Raw, RequestError, ServeError, StreamCode,
};
use peerage_transport::{NegotiationError, ReadError};
use peerage_wire::bench::{CountRequest, CountResponse, RunRequest, RunResponse};
use tokio::time::Instant;

use crate::clock::{SECOND, pass};
use crate::network::World;

const MIB: u64 = 1 << 20;

fn limits(change: impl FnOnce(&mut BenchLimits)) -> BenchLimits {
    let mut limits = BenchLimits::default();
    change(&mut limits);
    limits
}

/// A node that lets itself be measured, at 10.0.0.1.
async fn measured(world: &Arc<World>, limits: BenchLimits) -> Node {
    let node = world.machine(1, &["10.0.0.1"]).node().max_outbound(0).bench_limits(limits);
    node.serve_bench().listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap()
}

/// A node that measures.
struct Client(Node, PeerId);

impl Client {
    async fn new(world: &Arc<World>, number: u8, measured: &Node) -> Self {
        let builder: NodeBuilder = world.machine(number.into(), &[&format!("10.0.0.{number}")]).node();
        let node = builder.max_outbound(0).start().await.unwrap();
        let peer = node.connect(&measured.listen_addresses()[0]).await.unwrap();
        Self(node, peer)
    }

    async fn begin(&self) -> Result<RunResponse, RequestError> {
        self.0.request(self.1, RUN, &RunRequest {}).await
    }

    async fn count(&self, messages: u64) -> Result<CountResponse, RequestError> {
        self.0.request(self.1, COUNT, &CountRequest { messages }).await
    }

    fn channel(&self, name: &str) -> Channel<Raw> {
        self.0.channel(ChannelConfig::new(name)).unwrap()
    }

    /// Sends so much on a stream and tells how much the other side has counted.
    async fn stream(&self, bytes: u64) -> Result<u64, StreamCode> {
        let mut stream = self.0.open(self.1, STREAM).await.unwrap();
        let mut left = bytes;
        while left > 0 {
            let part = left.min(64 * 1024);
            left -= part;
            if stream.send.write_chunk(zeros(part)).await.is_err() {
                break;
            }
        }
        let _ = stream.send.finish();
        let mut answer = Vec::new();
        loop {
            match stream.recv.read_chunk(64).await {
                Ok(Some(chunk)) => answer.extend_from_slice(&chunk),
                Ok(None) => return Ok(u64::from_be_bytes(answer.try_into().unwrap())),
                Err(
                    ReadError::Reset { code, .. }
                    | ReadError::Negotiation(NegotiationError::Reset { code, .. }),
                ) => return Err(code),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn zeros(length: u64) -> Bytes {
    Bytes::from(vec![0; length as usize])
}

fn overloaded(error: &RequestError) -> &str {
    match error {
        RequestError::Overloaded { text, retry_after: Some(_), .. } => text,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_served_streams_messages_echoes_and_requests() {
    let world = World::new();
    let node = measured(&world, limits(|limits| limits.max_run_bytes = 64 * MIB)).await;
    let client = Client::new(&world, 2, &node).await;
    let begun = client.begin().await.unwrap();
    assert_eq!((begun.bytes_left, begun.millis_left), (64 * MIB, 600_000));
    assert_eq!(client.stream(3 * MIB + 5).await, Ok(3 * MIB + 5));
    assert_eq!(client.stream(0).await, Ok(0));

    let messages = client.channel(MESSAGES);
    for _ in 0..5000 {
        messages.send(client.1, &Raw(zeros(64))).await.unwrap();
    }
    let counted = client.count(5000).await.unwrap();
    assert_eq!((counted.messages, counted.bytes), (5000, 320_000));
    // What does not come is not waited for any longer than a moment.
    let start = Instant::now();
    assert_eq!(client.count(5001).await.unwrap().messages, 5000);
    assert!((5 * SECOND..6 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());

    let echo = client.channel(ECHO);
    for text in ["one", "two"] {
        echo.send(client.1, &Raw(text.into())).await.unwrap();
        assert_eq!(echo.recv().await, Some((client.1, Raw(text.into()))));
    }
    let answer: Raw = client.0.request(client.1, REQUEST, &Raw("hi".into())).await.unwrap();
    assert_eq!(answer.0, "hi");
    // All of that was charged: what was small as if it were larger.
    let left = client.begin().await.unwrap().bytes_left;
    let moved = 3 * MIB + 5 + 256 * (2 + 5000 + 2 + 2 + 1);
    assert_eq!(left, 64 * MIB - moved);
}

#[tokio::test(start_paused = true)]
async fn without_a_run_nothing_is_served_and_without_the_setting_nothing_is_there() {
    let world = World::new();
    let node = measured(&world, BenchLimits::default()).await;
    let client = Client::new(&world, 2, &node).await;
    assert_eq!(client.stream(10).await, Err(StreamCode::Overloaded));
    let refused: Result<Raw, _> = client.0.request(client.1, REQUEST, &Raw("hi".into())).await;
    assert!(matches!(refused, Err(RequestError::Refused { code: ServeError::DENIED, .. })), "{refused:?}");
    let refused = client.count(1).await;
    assert!(matches!(refused, Err(RequestError::Refused { code: ServeError::DENIED, .. })), "{refused:?}");
    let plain = world.machine(3, &["10.0.0.3"]).node().listen("/ip4/10.0.0.3/udp/4001/quic-v1");
    let plain = plain.start().await.unwrap();
    let peer = client.0.connect(&plain.listen_addresses()[0]).await.unwrap();
    let refused: Result<RunResponse, _> = client.0.request(peer, RUN, &RunRequest {}).await;
    assert!(matches!(refused, Err(RequestError::NotSupported { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_at_its_limits_whatever_it_moves() {
    let world = World::new();
    let node = measured(
        &world,
        limits(|limits| {
            limits.max_run_bytes = 2 * MIB;
            limits.max_run_time = 60 * SECOND;
            limits.idle_timeout = 10 * SECOND;
        }),
    )
    .await;
    let client = Client::new(&world, 2, &node).await;
    client.begin().await.unwrap();
    assert_eq!(client.stream(MIB).await, Ok(MIB));
    assert_eq!(client.stream(2 * MIB).await, Err(StreamCode::Overloaded));
    let over = client.begin().await.unwrap_err();
    assert!(overloaded(&over).contains("bench.max_run_bytes"), "{over}");
    // What libp2p's own protocol moves counts too.
    let refused = client.0.perf(client.1, 0, 1).await;
    assert!(matches!(refused, Err(RequestError::Lost { .. })), "{refused:?}");
    pass(10 * SECOND).await;
    client.begin().await.unwrap();
    let refused = client.0.perf(client.1, 0, 3 * MIB).await;
    assert!(matches!(refused, Err(RequestError::Lost { .. })), "{refused:?}");
    pass(10 * SECOND).await;
    client.begin().await.unwrap();
    for _ in 0..9 {
        pass(6 * SECOND).await;
        assert_eq!(client.stream(1).await, Ok(1));
    }
    pass(6 * SECOND).await;
    assert_eq!(client.stream(1).await, Err(StreamCode::Overloaded));
    let over = client.begin().await.unwrap_err();
    assert!(overloaded(&over).contains("bench.max_run_time"), "{over}");
}

#[tokio::test(start_paused = true)]
async fn no_more_peers_measure_at_once_than_the_limit_says_nor_more_in_an_hour() {
    let world = World::new();
    let few = limits(|limits| (limits.max_runs, limits.bytes_per_hour) = (2, 4 * MIB));
    let node = measured(&world, few).await;
    let mut clients = Vec::new();
    for number in 2..5 {
        clients.push(Client::new(&world, number, &node).await);
    }
    clients[0].begin().await.unwrap();
    clients[1].begin().await.unwrap();
    let full = clients[2].begin().await.unwrap_err();
    assert!(overloaded(&full).contains("measure already: 2,"), "{full}");
    let refused = clients[2].0.perf(clients[2].1, 1, 1).await;
    assert!(matches!(refused, Err(RequestError::Lost { .. })), "{refused:?}");
    // One that goes makes room at once, and the next one shares the budget of all.
    assert_eq!(clients[0].stream(2 * MIB).await, Ok(2 * MIB));
    let Client(gone, _) = clients.remove(0);
    let id = gone.peer_id();
    gone.close().await;
    while node.peers().get(id).is_some() {
        pass(SECOND / 10).await;
    }
    clients[1].begin().await.unwrap();
    assert_eq!(clients[1].stream(3 * MIB).await, Err(StreamCode::Overloaded));
    let spent = clients[1].begin().await.unwrap_err();
    assert!(overloaded(&spent).contains("bench.bytes_per_hour"), "{spent}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_and_a_silent_run_end_after_the_limit() {
    let world = World::new();
    let node = measured(&world, limits(|limits| limits.idle_timeout = 7 * SECOND)).await;
    let client = Client::new(&world, 2, &node).await;
    client.begin().await.unwrap();
    let mut stream = client.0.open(client.1, STREAM).await.unwrap();
    stream.send.write_chunk(zeros(10)).await.unwrap();
    let start = Instant::now();
    let ended = stream.recv.read_chunk(64).await;
    assert!(matches!(ended, Err(ReadError::Reset { code: StreamCode::TimedOut, .. })), "{ended:?}");
    assert!((7 * SECOND..8 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
    // A new run, with all that one has.
    assert_eq!(client.begin().await.unwrap().bytes_left, BenchLimits::default().max_run_bytes);
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_back_to_a_peer_that_measures_has_sixty_four_kibibytes_at_most() {
    let world = World::new();
    let node = measured(&world, BenchLimits::default()).await;
    let client = Client::new(&world, 2, &node).await;
    client.begin().await.unwrap();
    let ask = async |length| {
        client
            .0
            .request::<Raw, Raw>(client.1, REQUEST, &Raw(zeros(length)))
            .await
            .map(|answer| answer.0.len())
    };
    assert_eq!(ask(65_536).await, Ok(65_536));
    let refused = ask(65_537).await;
    assert!(matches!(refused, Err(RequestError::Refused { code: ServeError::TOO_LARGE, .. })), "{refused:?}");
    let echo = client.channel(ECHO);
    echo.send(client.1, &Raw(zeros(65_536))).await.unwrap();
    assert_eq!(echo.recv().await.unwrap().1.0.len(), 65_536);
    let refused = echo.send_confirmed(client.1, &Raw(zeros(65_537))).await;
    assert!(!refused.is_delivered(), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_of_perf_that_stands_still_is_given_up_after_thirty_seconds() {
    let world = World::new();
    let node = measured(&world, BenchLimits::default()).await;
    let client = Client::new(&world, 2, &node).await;
    let mut stream = client.0.open(client.1, "/perf/1.0.0").await.unwrap();
    stream.send.write_chunk(zeros(8)).await.unwrap();
    let start = Instant::now();
    let ended = stream.recv.read_chunk(64).await;
    assert!(matches!(ended, Err(ReadError::Reset { code: StreamCode::TimedOut, .. })), "{ended:?}");
    assert!((30 * SECOND..31 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
}

/// A channel cannot refuse single messages: whoever goes on sending them without a run is banned.
#[tokio::test(start_paused = true)]
async fn messages_without_a_run_are_borne_for_a_while_and_then_their_sender_is_banned() {
    let world = World::new();
    let node = measured(&world, BenchLimits::default()).await;
    let client = Client::new(&world, 2, &node).await;
    let (messages, message) = (client.channel(MESSAGES), Raw(zeros(64 * 1024)));
    let mut sent = 0u64;
    let flood = async {
        while messages.send_confirmed(client.1, &message).await.is_delivered() {
            sent += 64 * 1024;
            assert!(sent <= 2 * MAX_LATE_BYTES, "nothing happens");
        }
    };
    tokio::time::timeout(600 * SECOND, flood).await.expect("it is sent away");
    assert!(sent > MAX_LATE_BYTES, "{sent} bytes are few");
    while node.peers().get(client.0.peer_id()).is_some() {
        pass(SECOND / 10).await;
    }
    assert_eq!(node.peers().bans().await.len(), 1);
}
