//! Requests between two nodes over loopback: streams of answers, deadlines, cancellation, limits, services.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use peerage::{
    CallConfig, CallLimits, Node, NodeBuilder, PeerId, Raw, Request, RequestError, ServeConfig, ServeError,
};
use tokio::sync::{Notify, mpsc};
use tower::{Service, ServiceExt};

mod common;

use common::{builder, pair, raw, within};

const PROTOCOL: &str = "/test/ask/1";

async fn client_of(server: &Node, builder: NodeBuilder) -> Node {
    let client = builder.start().await.unwrap();
    within("a connection", client.connect(&server.listen_addresses()[0])).await.unwrap();
    client
}

async fn ask(client: &Node, server: PeerId, question: &str) -> Result<Raw, RequestError> {
    client.request::<Raw, Raw>(server, PROTOCOL, &raw(question)).await
}

/// A handler's mark: how many run, how many ever began, and a signal at each end.
#[derive(Clone)]
struct Count {
    running: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

struct Running(Count);

impl Count {
    fn new() -> Self {
        let zero = || Arc::new(AtomicUsize::new(0));
        Self { running: zero(), begun: zero(), most: zero(), changed: Arc::new(Notify::new()) }
    }

    fn begin(&self) -> Running {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.changed.notify_waiters();
        Running(self.clone())
    }

    async fn until(&self, what: &str, reached: impl Fn(usize, usize) -> bool) {
        within(what, async {
            loop {
                let changed = self.changed.notified();
                if reached(self.running.load(Ordering::SeqCst), self.begun.load(Ordering::SeqCst)) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

/// Contract C-26.
#[tokio::test]
async fn a_stream_of_answers_comes_in_order_and_ends_and_an_error_may_be_its_last_word() {
    let (server, client) = pair().await;
    server
        .serve_stream(PROTOCOL, |_, question: Raw| {
            let count: u32 = std::str::from_utf8(&question.0).unwrap().parse().unwrap();
            // Small ones, and now and then one that is larger than what may be under way.
            let item = |number: u32| {
                let length = if number % 50 == 7 { 300_000 } else { 4 + number as usize % 100 };
                let mut body = number.to_be_bytes().to_vec();
                body.resize(length, 9);
                Ok(Raw(body.into()))
            };
            let end = if count == 13 { vec![Err(ServeError::new(113, "unlucky"))] } else { Vec::new() };
            stream::iter((0..count).map(item)).chain(stream::iter(end))
        })
        .unwrap();
    for count in [0u32, 1, 13, 1000] {
        let question = raw(&count.to_string());
        let answers = client.request_stream::<Raw, Raw>(server.peer_id(), PROTOCOL, &question).await.unwrap();
        let all: Vec<_> = within("all answers", answers.collect()).await;
        let good = all.iter().take_while(|answer| answer.is_ok()).count();
        assert_eq!(good, count as usize);
        for (number, answer) in all.iter().take(good).enumerate() {
            assert_eq!(answer.as_ref().unwrap().0[..4], (number as u32).to_be_bytes());
        }
        match &all[good..] {
            [] => assert_ne!(count, 13),
            [Err(RequestError::Refused { code: 113, text, .. })] => {
                assert_eq!((count, text.as_str()), (13, "unlucky"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_caller_that_reads_slowly_makes_the_handler_wait_and_no_other_stream() {
    let (server, client) = pair().await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    server
        .serve_stream(PROTOCOL, move |_, _: Raw| {
            let count = count.clone();
            stream::repeat_with(move || {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Raw(Bytes::from_static(&[1; 1000])))
            })
        })
        .unwrap();
    server.serve("/test/quick/1", |_, question: Raw| async move { Ok(question) }).unwrap();
    // As many as can be under way to one peer, all unread.
    let question = raw("endless");
    let mut unread = Vec::new();
    for _ in 0..60 {
        unread.push(client.request_stream::<Raw, Raw>(server.peer_id(), PROTOCOL, &question).await.unwrap());
    }
    // They stop by themselves, each within its window and one batch on either side of it.
    let (mut before, mut same) = (0, 0);
    within("a standstill", async {
        while same < 100 || before < 60 * 60 {
            let question = raw("still here?");
            let quick = client.request::<Raw, Raw>(server.peer_id(), "/test/quick/1", &question);
            assert_eq!(within("an answer beside 60 unread streams", quick).await, Ok(question.clone()));
            let now = made.load(Ordering::SeqCst);
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
    })
    .await;
    let most = 60 * (64 + 33) * 1024 / 1000;
    assert!(before <= most, "{before} items were made where {most} fit");
    // One that is read goes on, the others stay where they are.
    let mut read = unread.pop().unwrap();
    for _ in 0..5000 {
        within("an answer", read.next()).await.unwrap().unwrap();
    }
    drop(read);
    drop(unread);
}

/// Contract C-24.
#[tokio::test]
async fn dropping_the_answers_drops_the_handlers_stream_wherever_it_stands() {
    let (server, client) = pair().await;
    let count = Count::new();
    let running = count.clone();
    server
        .serve_stream(PROTOCOL, move |_, question: Raw| {
            let mark = running.begin();
            let silent = question == raw("silent");
            stream::unfold(mark, move |mark| async move {
                if silent {
                    pending::<()>().await;
                }
                Some((Ok(Raw(Bytes::from_static(&[2; 10_000]))), mark))
            })
        })
        .unwrap();
    // One that waits for its next item, one that waits for the caller to read.
    for question in ["silent", "endless"] {
        let answers =
            client.request_stream::<Raw, Raw>(server.peer_id(), PROTOCOL, &raw(question)).await.unwrap();
        count.until("the handler's start", |running, _| running == 1).await;
        drop(answers);
        count.until("the handler's end", |running, _| running == 0).await;
    }
}

/// Contract C-22.
#[tokio::test]
async fn the_deadline_travels_and_ends_the_handler_even_when_the_caller_never_gives_up() {
    let (server, client) = pair().await;
    let count = Count::new();
    let (running, (told, mut tells)) = (count.clone(), mpsc::unbounded_channel());
    server
        .serve_with(PROTOCOL, ServeConfig::default(), move |request: Request<Raw>| {
            let mark = running.begin();
            told.send(request.remaining()).unwrap();
            async move {
                let _mark = mark;
                pending::<Result<Raw, ServeError>>().await
            }
        })
        .unwrap();
    let deadline = Duration::from_millis(300);
    let error = within("a deadline", async {
        let config = CallConfig::default().deadline(deadline);
        client.request_with::<Raw, Raw>(server.peer_id(), PROTOCOL, &raw("x"), &config).await.unwrap_err()
    })
    .await;
    assert!(matches!(error, RequestError::Deadline { after, .. } if after == deadline), "{error}");
    let left = tells.recv().await.unwrap().unwrap();
    assert!(left <= deadline + Duration::from_millis(1), "{left:?}");
    count.until("the handler's end", |running, _| running == 0).await;

    // A foreign caller names a deadline and keeps the stream: the handler ends, and the stream says why.
    let mut stream = client.open(server.peer_id(), PROTOCOL).await.unwrap();
    stream.send.write_all(&[1, b'x', 3, 8, 0xac, 2]).await.unwrap();
    stream.send.finish().unwrap();
    let status = within("an answer", stream.recv.read_frame(9)).await.unwrap().unwrap();
    assert_eq!(&status[..], [4], "the number of a passed deadline");
    count.until("the handler's end", |running, begun| running == 0 && begun == 2).await;
    // Without one, nothing is said.
    let config = CallConfig::unlimited_time();
    let question = raw("x");
    let asking = client.request_with::<Raw, Raw>(server.peer_id(), PROTOCOL, &question, &config);
    tokio::select! {
        answer = asking => panic!("{answer:?}"),
        () = count.until("the third", |_, begun| begun == 3) => {}
    }
    assert_eq!(tells.recv().await.unwrap().map(|left| left <= deadline), Some(true));
    assert_eq!(tells.recv().await.unwrap(), None);
}

/// Contract C-25.
#[tokio::test]
async fn callers_beyond_the_places_and_the_queue_are_refused_with_a_code_and_a_time_to_come_back() {
    let server = builder().start().await.unwrap();
    let count = Count::new();
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let (running, gate) = (count.clone(), release.clone());
    let config = ServeConfig {
        retry_after: Some(Duration::from_millis(1234)),
        ..ServeConfig::default().concurrent(3, 2).waiting(1, 1)
    };
    server
        .serve_with(PROTOCOL, config, move |request: Request<Raw>| {
            let (mark, gate) = (running.begin(), gate.clone());
            async move {
                let _mark = mark;
                gate.acquire().await.unwrap().forget();
                Ok(request.body)
            }
        })
        .unwrap();
    let [one, two, three] = [builder(), builder(), builder()].map(|builder| client_of(&server, builder));
    let (one, two, three) = tokio::join!(one, two, three);
    let asking = |client: &Node| {
        let (client, server) = (client.clone(), server.peer_id());
        tokio::spawn(async move { ask(&client, server, "x").await })
    };
    let overloaded = |answer: Result<Raw, RequestError>| match answer {
        Err(RequestError::Overloaded { retry_after, .. }) => retry_after == Some(Duration::from_millis(1234)),
        other => panic!("{other:?}"),
    };
    // Two of the first caller run; its third waits for itself, and its fourth is refused, though the node has room.
    let mut firsts = vec![asking(&one), asking(&one)];
    count.until("two", |running, _| running == 2).await;
    let waiting = [asking(&one), asking(&one)];
    let (refused, third) = within("a refusal", futures::future::select_all(waiting))
        .map(|(answer, _, rest)| (answer.unwrap(), rest))
        .await;
    assert!(overloaded(refused));
    assert_eq!(count.begun.load(Ordering::SeqCst), 2);
    firsts.extend(third);
    // The second caller has the last place of all. Of one more and the third caller's first, one waits in the common queue, the other is refused.
    let mut seconds = vec![asking(&two)];
    count.until("three", |running, _| running == 3).await;
    let waiting = [asking(&two), asking(&three)];
    let (refused, queued) = within("a refusal", futures::future::select_all(waiting))
        .map(|(answer, _, rest)| (answer.unwrap(), rest))
        .await;
    assert!(overloaded(refused));
    seconds.extend(queued);
    release.add_permits(100);
    for answer in firsts.into_iter().chain(seconds) {
        assert_eq!(within("an answer", answer).await.unwrap(), Ok(raw("x")));
    }
    assert_eq!(count.most.load(Ordering::SeqCst), 3, "never more than three at once");
    assert_eq!(ask(&one, server.peer_id(), "again").await, Ok(raw("again")));
}

#[tokio::test]
async fn this_side_bounds_what_it_asks_and_what_waits_to_be_asked() {
    let server = builder().start().await.unwrap();
    let count = Count::new();
    let running = count.clone();
    server
        .serve(PROTOCOL, move |_, _: Raw| {
            let mark = running.begin();
            async move {
                let _mark = mark;
                pending::<Result<Raw, ServeError>>().await
            }
        })
        .unwrap();
    let limits = CallLimits { max_concurrent_per_peer: 3, max_waiting_per_peer: 2 };
    let client = client_of(&server, builder().call_limits(limits)).await;
    let mut asking: Vec<_> = (0..5).map(|_| Box::pin(ask(&client, server.peer_id(), "x"))).collect();
    for asking in &mut asking {
        assert!(asking.now_or_never().is_none());
    }
    let error = ask(&client, server.peer_id(), "x").await.unwrap_err();
    assert_eq!(error, RequestError::Busy { peer: server.peer_id(), waiting: 2 });
    let all = futures::future::select_all(asking);
    tokio::select! {
        (answer, ..) = all => panic!("{answer:?}"),
        () = count.until("three", |running, _| running == 3) => {}
    }
    assert_eq!(count.begun.load(Ordering::SeqCst), 3);
    let none = CallLimits { max_concurrent_per_peer: 0, max_waiting_per_peer: 0 };
    let error = builder().call_limits(none).start().await.unwrap_err().to_string();
    assert!(error.contains("max_concurrent_per_peer"), "{error}");
}

#[tokio::test]
async fn requests_and_answers_beyond_the_bounds_are_refused_by_name_on_either_side() {
    let (server, client) = pair().await;
    server
        .serve_with(
            PROTOCOL,
            ServeConfig::default().max_bytes(100, 200),
            |request: Request<Raw>| async move { Ok(Raw(Bytes::from(vec![1; request.body.0.len() * 3]))) },
        )
        .unwrap();
    let asking = |length: usize, config: CallConfig| {
        let (client, server) = (client.clone(), server.peer_id());
        async move {
            let question = Raw(Bytes::from(vec![1; length]));
            within("an answer", client.request_with::<Raw, Raw>(server, PROTOCOL, &question, &config)).await
        }
    };
    let plain = CallConfig::default;
    assert_eq!(asking(60, plain()).await.unwrap().0.len(), 180);
    let code = |answer: Result<Raw, RequestError>| match answer {
        Err(RequestError::Refused { code, text, .. }) => (code, text),
        other => panic!("{other:?}"),
    };
    let (number, text) = code(asking(80, plain()).await);
    assert!(number == ServeError::TOO_LARGE && text.contains("240"), "{text}");
    // Far more than fits into the windows: the refusal comes while the request is still being written.
    let (number, text) = code(asking(4 << 20, plain()).await);
    assert!(number == ServeError::TOO_LARGE && text.contains("4194304"), "{text}");
    let error = asking(60, plain().max_bytes(50, 1000)).await.unwrap_err();
    assert_eq!(error, RequestError::TooLarge { length: 60, most: 50 });
    let huge = server.serve_with("/test/huge/1", ServeConfig::default().max_bytes(usize::MAX, 1), {
        |request: Request<Raw>| async move { Ok(request.body) }
    });
    assert!(huge.unwrap_err().to_string().contains("max_request_bytes"));
    server.serve("/test/long/1", |_, _: Raw| async { Ok(Raw(Bytes::from(vec![1; 100_000]))) }).unwrap();
    let error = client
        .request_with::<Raw, Raw>(server.peer_id(), "/test/long/1", &raw("x"), &plain().max_bytes(10, 50_000))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::Malformed { .. }), "{error}");
}

/// Contract C-27.
#[tokio::test]
async fn a_handler_that_panics_fails_its_caller_and_nobody_else() {
    let (server, client) = pair().await;
    server
        .serve(PROTOCOL, |_, question: Raw| async move {
            assert_ne!(question, raw("bad"), "this panic belongs to the test");
            Ok(question)
        })
        .unwrap();
    let error = within("an answer", ask(&client, server.peer_id(), "bad")).await.unwrap_err();
    assert!(matches!(error, RequestError::Refused { code: ServeError::FAILED, .. }), "{error}");
    assert_eq!(ask(&client, server.peer_id(), "good").await, Ok(raw("good")));
}

#[tokio::test]
async fn the_plainest_form_is_answered_and_spoken() {
    let (server, client) = pair().await;
    server.serve(PROTOCOL, |_, question: Raw| async move { Ok(question) }).unwrap();
    server
        .serve_stream("/test/many/1", |_, question: Raw| stream::iter([Ok(question.clone()), Ok(question)]))
        .unwrap();
    for (protocol, answer) in
        [(PROTOCOL, &[0, 2, b'h', b'i'][..]), ("/test/many/1", &[0, 2, b'h', b'i', 0, 2, b'h', b'i'])]
    {
        // One message and the end; the answer is read to its end, as a foreign node would.
        let mut stream = client.open(server.peer_id(), protocol).await.unwrap();
        stream.send.write_all(&[2, b'h', b'i']).await.unwrap();
        stream.send.finish().unwrap();
        let mut got = Vec::new();
        while let Some(chunk) = within("a chunk", stream.recv.read_chunk(100)).await.unwrap() {
            got.extend_from_slice(&chunk);
        }
        assert_eq!(got, answer);
    }
    // A foreign server reads to the end of the request and answers with two messages.
    let incoming = server.accept("/test/foreign/1").unwrap();
    let serving = async {
        let (_, mut stream) = incoming.recv().await.unwrap();
        let question = stream.recv.read_frame(100).await.unwrap().unwrap();
        assert_eq!(question, &b"who?"[..]);
        stream.send.write_all(&[0, 2, b'm', b'e']).await.unwrap();
        stream.send.finish().unwrap();
        stream.send.stopped().await.unwrap();
    };
    let question = raw("who?");
    let asking = client.request::<Raw, Raw>(server.peer_id(), "/test/foreign/1", &question);
    let ((), answer) = within("an exchange", async { tokio::join!(serving, asking) }).await;
    assert_eq!(answer, Ok(raw("me")));
}

#[tokio::test]
async fn the_service_is_ready_when_a_place_is_free_and_not_before() {
    let server = builder().start().await.unwrap();
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = release.clone();
    server
        .serve(PROTOCOL, move |_, question: Raw| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(question)
            }
        })
        .unwrap();
    let limits = CallLimits { max_concurrent_per_peer: 1, max_waiting_per_peer: 0 };
    let client = client_of(&server, builder().call_limits(limits)).await;
    let mut service = client.service::<Raw, Raw>(server.peer_id(), PROTOCOL);
    let mut other = service.clone();
    let first = within("readiness", service.ready()).await.unwrap().call(raw("first"));
    assert!(other.ready().now_or_never().is_none(), "the only place is reserved");
    release.add_permits(2);
    assert_eq!(within("an answer", first).await, Ok(raw("first")));
    let second = within("readiness", other.ready()).await.unwrap().call(raw("second"));
    assert_eq!(within("an answer", second).await, Ok(raw("second")));
    // It belongs to the peer, not to a connection.
    client.peers().disconnect(server.peer_id()).await;
    within("the end of the connection", async {
        while client.peers().get(server.peer_id()).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let gone = within("an answer", async { service.ready().await.unwrap().call(raw("gone")).await }).await;
    assert_eq!(gone, Err(RequestError::NotConnected { peer: server.peer_id() }));
    within("a connection", client.connect(&server.listen_addresses()[0])).await.unwrap();
    release.add_permits(1);
    let back = within("an answer", async { service.ready().await.unwrap().call(raw("back")).await }).await;
    assert_eq!(back, Ok(raw("back")));
}

#[tokio::test]
async fn layers_around_a_served_service_see_who_asks_and_their_errors_travel() {
    let (server, client) = pair().await;
    let welcome = client.peer_id();
    let service = tower::ServiceBuilder::new()
        .timeout(Duration::from_millis(200))
        .concurrency_limit(4)
        .service_fn(move |request: Request<Raw>| async move {
            match &request.body.0[..] {
                _ if request.peer != welcome => Err(ServeError::denied("not you")),
                b"slow" => pending().await,
                _ => Ok(Raw(request.peer.to_bytes().into())),
            }
        });
    server.serve_service(PROTOCOL, service).unwrap();
    let answer = within("an answer", ask(&client, server.peer_id(), "who am I?")).await.unwrap();
    assert_eq!(answer.0, client.peer_id().to_bytes());
    let slow = within("an answer", ask(&client, server.peer_id(), "slow")).await.unwrap_err();
    assert!(
        matches!(&slow, RequestError::Refused { code: ServeError::FAILED, text, .. } if text.contains("timed out")),
        "{slow}"
    );
    let stranger = client_of(&server, builder()).await;
    let denied = within("an answer", ask(&stranger, server.peer_id(), "who am I?")).await.unwrap_err();
    assert!(
        matches!(&denied, RequestError::Refused { code: ServeError::DENIED, text, .. } if text == "not you"),
        "{denied}"
    );
}
