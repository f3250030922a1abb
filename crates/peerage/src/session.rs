//! One task per connection: from the TLS handshake through the hello to the end.
//!
//! The session carries out what the peer manager decides about its connection ([`Order`]) and reports what the peer does. Each incoming
//! stream gets a task of its own that first negotiates the protocol; then a hello goes to the session, and everything else waits at
//! the [`Gate`] until the peer is admitted. How many can wait is bounded by the few streams that QUIC grants to strangers.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use peerage_identity::DialAddress;
use peerage_peers::{Answer, AttemptId, CloseReason, ConnId, Direction, Failure, Fault, Input, RejectReason};
use peerage_transport::{
    CloseCode, Connection, InboundStream, Negotiated, NegotiationError, ReadError, SendStream, Stream,
};
use peerage_wire::hello as wire;
use tokio::sync::SetOnce;

use crate::driver::Message;
use crate::orders::{OrderGiver, Orders};
use crate::peer::Peer;
use crate::registry::{self, Service};
use crate::secret;
use crate::shared::Shared;
use crate::{faults, hello};

/// How long to wait after each hello that was reset before the peer said whether it knows the protocol.
const HELLO_AGAIN: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(900),
];
/// How long a refused peer may take to read why.
const REFUSAL_LINGERS: Duration = Duration::from_secs(1);
/// How long nothing must run on it before it is closed: what the peer sent before it knew may still be on its way.
pub(crate) const DRAIN_QUIET: Duration = Duration::from_secs(1);
/// How long the peer has to answer a ping on it. A path that is gone is not waited for.
pub(crate) const DRAIN_PROBE: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// What is to be done on one connection; all of it but [`Order::Heard`] comes from the driver.
#[derive(Debug)]
pub(crate) enum Order {
    SayHello {
        order: u64,
        visit: bool,
    },
    /// From a stream's task: the peer's hello, and where the answer goes.
    Heard(Box<(wire::Hello, SendStream)>),
    Answer(Box<Answer>),
    Admit(Arc<Peer>),
    Drain,
    /// Close it when what runs on it has ended, and soon in any case.
    Leave(CloseReason),
    Close(CloseReason),
}

/// What a session shares with the tasks of its streams.
#[derive(Debug, Default)]
struct Gate {
    /// Set when the peer is admitted: then streams of the application may pass.
    peer: SetOnce<Arc<Peer>>,
    /// The peer's hello was taken. A second one on the same connection is not.
    greeted: AtomicBool,
    /// The peer's words count: it has proved the network secret, where one is needed.
    trusted: AtomicBool,
}

/// What a session waits for.
#[allow(clippy::large_enum_variant, reason = "one lives at a time, and is taken apart at once")]
enum Event {
    Order(Option<Order>),
    Stream(InboundStream),
    End(Failure),
}

struct Session {
    shared: Arc<Shared>,
    connection: Connection,
    id: ConnId,
    gate: Arc<Gate>,
    /// What the driver wants, and where stream tasks put the peer's hello.
    orders: Arc<Orders>,
    /// The peer manager wants to hear the peer: before that, not even its streams are answered.
    welcome: bool,
    /// The first stream that the peer opened was taken.
    took_first: bool,
    /// The stream on which the peer waits for our answer.
    to_answer: Option<Box<SendStream>>,
}

/// Runs a connection to its end.
pub(crate) async fn run(shared: Arc<Shared>, connection: Connection, attempt: Option<AttemptId>) {
    let id = ConnId(connection.id().0);
    let orders: Arc<Orders> = Arc::default();
    let handshaken = Message::Handshaken {
        conn: id,
        connection: connection.clone(),
        direction: match connection.direction() {
            peerage_transport::Direction::Inbound => Direction::Inbound,
            peerage_transport::Direction::Outbound => Direction::Outbound,
        },
        attempt,
        orders: OrderGiver(orders.clone()),
    };
    if Box::pin(shared.to_driver.send(handshaken)).await.is_err() {
        connection.close(CloseCode::Shutdown, "shutting down");
        return;
    }
    let mut session = Session {
        shared: shared.clone(),
        connection,
        id,
        gate: Arc::default(),
        orders,
        welcome: false,
        took_first: false,
        to_answer: None,
    };
    let failure = session.run().await;
    session.orders.close();
    let _ = Box::pin(shared.to_driver.send(Message::Ended { conn: id, failure })).await;
}

impl Session {
    /// Runs a task that serves this connection. It ends by itself when the connection does, after it has taken what had arrived.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn(task);
    }

    /// What is rare is boxed, so that the task of an idle connection stays small.
    async fn run(&mut self) -> Failure {
        let mut early = Some(Box::pin(ends_early(self.connection.clone(), self.shared.limits.hello_timeout)));
        loop {
            let order = match self.next(&mut early).await {
                Event::Order(order) => order,
                Event::Stream(stream) => {
                    self.accept(stream);
                    continue;
                }
                Event::End(failure) => return failure,
            };
            match order {
                Some(Order::Admit(peer)) => {
                    self.admit(peer);
                    early = None;
                }
                Some(Order::Close(reason)) => return self.close(reason),
                Some(Order::Drain) => return Box::pin(self.drain(CloseReason::Replaced)).await,
                Some(Order::Leave(reason)) => return Box::pin(self.drain(reason)).await,
                Some(Order::Heard(heard)) => Box::pin(self.heard(heard)).await,
                Some(Order::Answer(answer)) => {
                    if let Some(failure) = Box::pin(self.answer(*answer)).await {
                        return failure;
                    }
                }
                Some(Order::SayHello { order, visit }) => self.say_hello(order, visit),
                None => return self.close(CloseReason::ShuttingDown),
            }
        }
    }

    /// What happens next. `early` watches over the connection until it is admitted; from then on, waiting for streams tells of its end.
    async fn next(&self, early: &mut Option<Pin<Box<impl Future<Output = Failure>>>>) -> Event {
        let stream = async {
            match self.welcome {
                true => self.connection.accept_stream().await,
                false => std::future::pending().await,
            }
        };
        let mut stream = pin!(stream);
        poll_fn(|cx| {
            if let Poll::Ready(order) = self.orders.poll_next(cx) {
                return Poll::Ready(Event::Order(order));
            }
            if let Some(early) = early
                && let Poll::Ready(failure) = early.as_mut().poll(cx)
            {
                return Poll::Ready(Event::End(failure));
            }
            Poll::Ready(match ready!(stream.as_mut().poll(cx)) {
                Ok(stream) => Event::Stream(stream),
                Err(cause) => Event::End(faults::of_end(&cause)),
            })
        })
        .await
    }

    /// Sends our hello and reports the answer.
    fn say_hello(&mut self, order: u64, visit: bool) {
        self.welcome = true;
        let observed = DialAddress::from_socket_addr(self.connection.remote_address()).ok();
        let hello = hello::ours(&self.shared, order, visit, observed.as_ref());
        let hello = match secret::outgoing(&self.shared, &self.connection, hello) {
            Ok(hello) => hello,
            // The deadline ends the connection.
            Err(error) => return tracing::error!(error, "a hello cannot be sealed"),
        };
        let (shared, connection, conn) = (self.shared.clone(), self.connection.clone(), self.id);
        let gate = self.gate.clone();
        self.spawn(async move {
            let input = match exchange(&connection, &hello).await {
                Ok(Some(mut answer)) => {
                    if let Some(wire::answer::Verdict::Reject(reject)) = &mut answer.verdict
                        && shared.secrets.are_needed()
                        && !gate.trusted.load(Ordering::Relaxed)
                    {
                        // Strangers don't tell a private network whom to dial.
                        reject.alternatives.clear();
                    }
                    Input::Answered { conn, answer: hello::read_answer(answer) }
                }
                Ok(None) => Input::Foreign { conn },
                Err(error) => {
                    // The end of the connection, or the deadline, will say the rest.
                    tracing::debug!(peer = %connection.peer_id(), %error, "no answer to our hello");
                    return;
                }
            };
            let _ = shared.to_driver.send(Message::Input(input)).await;
        });
    }

    async fn heard(&mut self, heard: Box<(wire::Hello, SendStream)>) {
        let (hello, send) = *heard;
        self.to_answer = Some(Box::new(send));
        let (hello, problem) = match secret::incoming(&self.shared, &self.connection, hello) {
            Ok(hello) => (hello, None),
            Err(problem) => (wire::Hello::default(), Some(problem)),
        };
        self.gate.trusted.store(problem.is_none(), Ordering::Relaxed);
        let (mut facts, about) = self.shared.read_hello(self.connection.peer_id(), hello);
        facts.problem = problem.or(facts.problem);
        let message = Message::Hello { conn: self.id, facts: Box::new(facts), about: Box::new(about) };
        let _ = self.shared.to_driver.send(message).await;
    }

    /// Answers the peer's hello. After a refusal the connection ends: the failure says how.
    async fn answer(&mut self, answer: Answer) -> Option<Failure> {
        let mut send = self.to_answer.take()?;
        let refused = match &answer {
            Answer::Accept { .. } => None,
            Answer::Reject { reason, .. } => Some(*reason),
        };
        let message = hello::answer(answer);
        let sending = async move {
            let sent = send.write_frame(&message).await;
            let _ = send.finish();
            if sent.is_ok() {
                let _ = send.stopped().await;
            }
        };
        let Some(reason) = refused else {
            self.spawn(sending);
            return None;
        };
        // The peer closes when it has read why; one that does not is closed here.
        let _ = tokio::time::timeout(REFUSAL_LINGERS, async {
            sending.await;
            self.connection.closed().await;
        })
        .await;
        self.connection.close(code_of(reason), &reason.to_string());
        Some(Failure::from(Fault::RefusedByUs(reason)))
    }

    fn admit(&mut self, peer: Arc<Peer>) {
        self.welcome = true;
        self.connection.admit();
        if peer.foreign {
            let asking = peer.clone();
            self.spawn(async move {
                if let Err(error) = crate::protocols::identify::ask(&asking).await {
                    tracing::debug!(peer = %asking.id, error, "the foreign peer does not identify itself");
                }
                asking.set_identified();
            });
        }
        peer.compare_channels();
        // It fails when it was done before.
        let _ = self.gate.peer.set(peer);
    }

    /// Takes an incoming stream.
    fn accept(&mut self, stream: InboundStream) {
        let first = !std::mem::replace(&mut self.took_first, true);
        match self.gate.peer.get().cloned() {
            Some(peer) => self.accept_admitted(peer, stream),
            None => self.accept_early(stream, first),
        }
    }

    /// Takes a stream of an admitted peer. Mostly its protocol's name has come with it: then no task is started to wait for it.
    fn accept_admitted(&self, peer: Arc<Peer>, stream: InboundStream) {
        let serves = |shared: &Shared, name: &str| name == hello::PROTOCOL || shared.registry.has(name);
        let stream = match stream.try_negotiate(|name| serves(&self.shared, name)) {
            Negotiated::Done(negotiated) => {
                if let Some((name, stream)) = agreed(&self.connection, negotiated) {
                    self.hand_on(peer, &name, stream);
                }
                return;
            }
            Negotiated::Waiting(stream) => stream,
        };
        let (shared, connection) = (self.shared.clone(), self.connection.clone());
        let (orders, gate) = (self.orders.clone(), self.gate.clone());
        self.spawn(async move {
            let within = shared.endpoint.settings().negotiation_timeout;
            let negotiated = stream.negotiate(|name| serves(&shared, name), within).await;
            let Some((name, stream)) = agreed(&connection, negotiated) else { return };
            if *name == *hello::PROTOCOL {
                take_hello(stream, most_of_hello(&shared), &gate, &orders).await;
            } else if let Some(service) = shared.registry.get(&name) {
                registry::serve(peer, service, stream).await;
            }
        });
    }

    /// Gives a stream to whoever serves its protocol.
    fn hand_on(&self, peer: Arc<Peer>, name: &str, stream: Stream) {
        if name == hello::PROTOCOL {
            let (most, orders, gate) = (most_of_hello(&self.shared), self.orders.clone(), self.gate.clone());
            return self.spawn(async move { take_hello(stream, most, &gate, &orders).await });
        }
        match self.shared.registry.get(name) {
            Some(Service::Streams(acceptor)) => {
                if let Some(stream) = acceptor.try_take(&peer, stream) {
                    self.spawn(async move { acceptor.take(&peer, stream).await });
                }
            }
            Some(Service::Channel(core)) => crate::channel::start_reader(&peer, core, stream),
            Some(service) => self.spawn(registry::serve(peer, service, stream)),
            None => {}
        }
    }

    /// Starts a task for a stream that comes before its peer is admitted.
    fn accept_early(&self, stream: InboundStream, first: bool) {
        let (shared, orders, gate) = (self.shared.clone(), self.orders.clone(), self.gate.clone());
        let (connection, within) =
            (self.connection.clone(), self.shared.endpoint.settings().negotiation_timeout);
        let private = self.shared.secrets.are_needed();
        self.spawn(async move {
            // Even a no would tell a stranger what this node serves: only the hello's own stream is answered before admission.
            if private && !first && admitted(&gate, &connection).await.is_none() {
                return;
            }
            let serves =
                |name: &str| name == hello::PROTOCOL || !(private && first) && shared.registry.has(name);
            let negotiated = stream.negotiate(serves, within).await;
            let Some((name, stream)) = agreed(&connection, negotiated) else { return };
            if name.as_ref() == hello::PROTOCOL {
                return take_hello(stream, most_of_hello(&shared), &gate, &orders).await;
            }
            let Some(peer) = admitted(&gate, &connection).await else { return };
            // Looked up again: it may be gone meanwhile.
            if let Some(service) = shared.registry.get(&name) {
                registry::serve(peer, service, stream).await;
            }
        });
    }

    fn close(&self, reason: CloseReason) -> Failure {
        let (code, fault) = faults::of_order(reason);
        self.connection.close(code, &fault.to_string());
        Failure::from(fault)
    }

    /// Lets what runs on a connection finish whose place a newer one takes, or that is to end without one, and closes it. The peer may still open streams: what it
    /// sent before it knew is taken.
    async fn drain(&mut self, reason: CloseReason) -> Failure {
        let connection = self.connection.clone();
        let peer = self.gate.peer.get().cloned();
        let (finished, probing) = (finished(&connection, peer.as_ref()), is_dead(&connection, peer.as_ref()));
        tokio::pin!(finished, probing);
        let limits = &self.shared.limits;
        let replaced = reason == CloseReason::Replaced;
        let within = if replaced { limits.replaced_timeout } else { limits.drain_timeout };
        let deadline = tokio::time::sleep(within);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                order = self.orders.next() => match order {
                    Some(Order::Close(reason)) => return self.close(reason),
                    None => return self.close(CloseReason::ShuttingDown),
                    Some(_) => {}
                },
                cause = connection.closed() => return faults::of_end(&cause),
                stream = connection.accept_stream() => match stream {
                    Ok(stream) => self.accept(stream),
                    Err(cause) => return faults::of_end(&cause),
                },
                () = &mut finished => break,
                () = &mut probing => break,
                () = &mut deadline => break,
            }
        }
        if !replaced {
            return self.close(reason);
        }
        connection.close(CloseCode::Replaced, "a newer connection replaces this one");
        Failure::from(Fault::Replaced)
    }
}

/// Resolves when a connection ends before it is admitted, or is not admitted in time.
async fn ends_early(connection: Connection, within: Duration) -> Failure {
    if let Ok(cause) = tokio::time::timeout(within, connection.closed()).await {
        return faults::of_end(&cause);
    }
    connection.close(CloseCode::HandshakeTimeout, "no hello in time");
    let detail = format!("{} did not finish the hello within {within:?}", connection.peer_id());
    Failure::new(Fault::HelloTimeout, detail)
}

/// Resolves when nothing has run on a connection for a while.
async fn finished(connection: &Connection, peer: Option<&Arc<Peer>>) {
    let mut quiet = Duration::ZERO;
    while quiet < DRAIN_QUIET {
        tokio::time::sleep(DRAIN_LOOK).await;
        let asked = peer.and_then(|peer| peer.if_asked());
        if let Some(mut ping) = asked.and_then(|asked| asked.ping_stream.try_lock().ok()) {
            // Kept for the next ping, of which there will be none.
            *ping = None;
        }
        let still = connection.open_halves() == 0 && peer.is_none_or(|peer| peer.is_drained());
        quiet = if still { quiet + DRAIN_LOOK } else { Duration::ZERO };
    }
}

/// Resolves when the peer does not answer on a connection any more; never when it does.
async fn is_dead(connection: &Connection, peer: Option<&Arc<Peer>>) {
    if let Some(peer) = peer {
        let within = DRAIN_PROBE.max(connection.rtt() * 4);
        if tokio::time::timeout(within, crate::protocols::ping::ping(peer)).await.is_err() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Sends a hello. The peer's answer, or `None` when it does not know the protocol.
///
/// js-libp2p resets streams that come before it has set a new connection up, so a reset in place of an answer to the protocol's name is
/// tried again; a node that resets every time does not know the protocol.
async fn exchange(connection: &Connection, hello: &wire::Hello) -> Result<Option<wire::Answer>, String> {
    for wait in HELLO_AGAIN {
        match exchange_once(connection, hello).await? {
            Reply::Answer(answer) => return Ok(Some(answer)),
            Reply::NotSupported => return Ok(None),
            Reply::Reset => tokio::time::sleep(wait).await,
        }
    }
    Ok(None)
}

/// What became of one hello.
enum Reply {
    Answer(wire::Answer),
    NotSupported,
    /// The peer gave the stream up before it said whether it knows the protocol.
    Reset,
}

async fn exchange_once(connection: &Connection, hello: &wire::Hello) -> Result<Reply, String> {
    let mut stream = connection.open_lazy(hello::PROTOCOL).await.map_err(|error| error.to_string())?;
    // A peer that does not know the protocol stops our half: the other half says so.
    let _ = stream.send.write_frame(hello).await;
    let _ = stream.send.finish();
    match stream.recv.read_message(hello::MAX_ANSWER_BYTES).await {
        Ok(Some(answer)) => Ok(Reply::Answer(answer)),
        Ok(None) => Err("the stream ended without an answer".to_owned()),
        Err(ReadError::NotSupported { .. }) => Ok(Reply::NotSupported),
        Err(ReadError::Negotiation(NegotiationError::Reset { .. })) => Ok(Reply::Reset),
        Err(error) => Err(error.to_string()),
    }
}

/// What a negotiation came to, and a word in the log where it came to nothing.
fn agreed(
    connection: &Connection,
    negotiated: Result<(Arc<str>, Stream), NegotiationError>,
) -> Option<(Arc<str>, Stream)> {
    let logged = |error: &NegotiationError| tracing::debug!(peer = %connection.peer_id(), %error, "an incoming stream came to nothing");
    negotiated.inspect_err(logged).ok()
}

/// The longest hello that is read, in bytes.
fn most_of_hello(shared: &Shared) -> usize {
    if shared.secrets.are_needed() { secret::MAX_SEALED_BYTES } else { hello::MAX_HELLO_BYTES }
}

async fn take_hello(stream: Stream, most: usize, gate: &Gate, orders: &Orders) {
    let (send, mut recv) = stream.split();
    match recv.read_message(most).await {
        Ok(Some(hello)) => {
            // Only the first hello counts; the stream of a later one is reset.
            if !gate.greeted.swap(true, Ordering::Relaxed) {
                let _ = orders.give(Order::Heard(Box::new((hello, send))));
            }
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "a hello cannot be read"),
    }
}

/// Waits for admission. `None` when the connection ends without.
async fn admitted(gate: &Gate, connection: &Connection) -> Option<Arc<Peer>> {
    tokio::select! {
        biased;
        peer = gate.peer.wait() => Some(peer.clone()),
        _ = connection.closed() => None,
    }
}

/// What a refusal is called when the connection is closed after it.
fn code_of(reason: RejectReason) -> CloseCode {
    match reason {
        RejectReason::WrongNetwork => CloseCode::WrongNetwork,
        RejectReason::NoCommonVersion => CloseCode::NoCommonVersion,
        RejectReason::SelfDial => CloseCode::Loop,
        RejectReason::Clone => CloseCode::Clone,
        RejectReason::Full => CloseCode::Full,
        RejectReason::Duplicate => CloseCode::Duplicate,
        RejectReason::InvalidHello => CloseCode::ProtocolViolation,
        RejectReason::ShuttingDown => CloseCode::Shutdown,
        RejectReason::Banned => CloseCode::Banned,
        _ => CloseCode::NotAdmitted,
    }
}
