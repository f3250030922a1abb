//! The side that answers: one registered protocol, and what happens on each of its streams.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use peerage_identity::PeerId;
use peerage_transport::{ReadError, RecvStream, SendStream, StreamCode};
use peerage_wire::frame::FrameError;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::{self, Unread};
use super::config::ServeConfig;
use super::error::ServeError;
use super::slots::{Full, ServeSlot, ServeSlots};
use super::wire;
use crate::channel::{Payload, encoded};
use crate::memory::Reservation;
use crate::metrics::Outcome;
use crate::peer::Peer;

/// Small items of a stream of answers that are ready together leave together, up to so many bytes.
const MAX_BATCH: usize = 32 * 1024;
/// An item of so many bytes is written as it is, without a copy.
const UNCOPIED: usize = 8 * 1024;

/// One request, as a handler gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request<Q> {
    /// Who asks, proved by the connection.
    pub peer: PeerId,
    /// Under which protocol name.
    pub protocol: Arc<str>,
    /// When the caller gives up, if it said so. The handler's future is dropped then.
    pub deadline: Option<Instant>,
    /// What it asks.
    pub body: Q,
}

impl<Q> Request<Q> {
    /// A request without a deadline, for tests of services.
    pub fn new(peer: PeerId, protocol: &str, body: Q) -> Self {
        Self { peer, protocol: Arc::from(protocol), deadline: None, body }
    }

    /// How long the caller still waits, if it said so.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The same request with another body.
    pub fn map<R>(self, change: impl FnOnce(Q) -> R) -> Request<R> {
        let Self { peer, protocol, deadline, body } = self;
        Request { peer, protocol, deadline, body: change(body) }
    }
}

type Answering = BoxFuture<'static, Result<Bytes, ServeError>>;
type Answers = BoxStream<'static, Result<Bytes, ServeError>>;

/// What the application does with a request.
enum Work {
    One(Box<dyn Fn(Request<Bytes>) -> Answering + Send + Sync>),
    Many(Box<dyn Fn(Request<Bytes>) -> Answers + Send + Sync>),
}

/// A registered request handler.
pub(crate) struct Handler {
    work: Work,
    config: ServeConfig,
    slots: ServeSlots,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Handler {
    /// Wraps an application's function with one answer: decoding before it, encoding after it.
    pub(crate) fn one<Q, A, F, R>(config: ServeConfig, function: F) -> Self
    where
        Q: Payload,
        A: Payload,
        F: Fn(Request<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, ServeError>> + Send + 'static,
    {
        let answer = move |request| -> Answering {
            match decode(request) {
                Ok(request) => {
                    let answering = function(request);
                    Box::pin(async move { answering.await.map(|answer| encoded(&answer)) })
                }
                Err(error) => Box::pin(std::future::ready(Err(error))),
            }
        };
        Self::new(config, Work::One(Box::new(answer)))
    }

    /// Wraps an application's function with a stream of answers.
    pub(crate) fn many<Q, A, F, S>(config: ServeConfig, function: F) -> Self
    where
        Q: Payload,
        A: Payload,
        F: Fn(Request<Q>) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<A, ServeError>> + Send + 'static,
    {
        let answer = move |request| -> Answers {
            match decode(request) {
                Ok(request) => function(request).map(|item| item.map(|answer| encoded(&answer))).boxed(),
                Err(error) => futures_util::stream::once(std::future::ready(Err(error))).boxed(),
            }
        };
        Self::new(config, Work::Many(Box::new(answer)))
    }

    fn new(config: ServeConfig, work: Work) -> Self {
        Self { work, slots: ServeSlots::new(&config), config }
    }

    /// Serves one stream.
    pub(crate) async fn serve(&self, peer: &Peer, stream: peerage_transport::Stream) {
        let (mut send, recv) = stream.split();
        let stopped = send.stopped();
        let mut counting = peer.shared.requests.served();
        tokio::select! {
            biased;
            outcome = self.answer(peer, &mut send, recv) => counting.ended(outcome),
            // The caller gave up, or is gone: so do we, whatever stage the request is in.
            _ = stopped => {}
        }
    }

    /// How many requests wait for a place of this protocol.
    pub(crate) fn waiting(&self) -> usize {
        self.slots.waiting()
    }

    async fn answer(&self, peer: &Peer, send: &mut SendStream, mut recv: RecvStream) -> Outcome {
        let arrived = Instant::now();
        let mut memory = Reservation::new(peer.request_budgets());
        let read = async {
            let (slot, body) = self.take_place(peer, &mut recv, &mut memory).await?;
            let (request, window) = self.read(peer, &mut recv, arrived, body, &mut memory).await?;
            Ok((slot, request, window))
        };
        let (_slot, request, window) = match read.await {
            Ok(read) => read,
            Err(Instead::Answer(error, code)) => {
                recv.stop(code);
                return self.refuse(peer, send, error).await;
            }
            Err(Instead::Reset(code)) => {
                send.reset(code);
                return Outcome::Lost;
            }
        };
        peer.mark_useful();
        let deadline = request.deadline;
        match &self.work {
            Work::One(function) => {
                let answer = before(deadline, caught(async { function(request).await })).await;
                let answer = answer.and_then(|answer| self.check(answer));
                match answer.and_then(|answer| self.keep(&mut memory, answer.len()).map(|()| answer)) {
                    Ok(answer) => {
                        let mut head = BytesMut::with_capacity(16);
                        wire::put_answer_head(answer.len(), &mut head);
                        if self.write(peer, send, &mut [head.freeze(), answer]).await.is_break() {
                            return Outcome::Lost;
                        }
                        let _ = send.finish();
                        Outcome::Answered
                    }
                    Err(error) => self.refuse(peer, send, error).await,
                }
            }
            Work::Many(function) => {
                let credit = Credit::new(window, recv);
                let batch = BytesMut::new();
                let pouring = Pouring { handler: self, peer, send, credit, memory, batch };
                pouring.run(deadline, || function(request)).await
            }
        }
    }

    /// A place. A request that has to wait for it is read meanwhile: left in the connection's window it would keep out all else that the peer sends.
    async fn take_place(
        &self,
        peer: &Peer,
        recv: &mut RecvStream,
        memory: &mut Reservation,
    ) -> Result<(ServeSlot<'_>, Option<Bytes>), Instead> {
        let mut body = None;
        let reading = async {
            match body::read(recv, self.config.max_request_bytes, memory).await {
                Ok(Some(read)) => body = Some(read),
                Ok(None) => return Instead::Reset(StreamCode::Cancelled),
                Err(unread) => return self.unread(peer, unread),
            }
            std::future::pending().await
        };
        let slot = tokio::select! {
            biased;
            slot = self.slots.take(peer.id, &peer.shared.serving) => slot,
            instead = reading => return Err(instead),
        };
        match slot {
            Ok(slot) => Ok((slot, body)),
            Err(Full { waiting }) => {
                let error = self.overloaded(format!("{waiting} requests wait already"));
                Err(Instead::Answer(error, StreamCode::Overloaded))
            }
        }
    }

    /// The request, of which the body may have been read, and the window for a stream of answers.
    async fn read(
        &self,
        peer: &Peer,
        recv: &mut RecvStream,
        arrived: Instant,
        body: Option<Bytes>,
        memory: &mut Reservation,
    ) -> Result<(Request<Bytes>, u32), Instead> {
        let reading = async {
            let most = self.config.max_request_bytes;
            let body = match body {
                Some(body) => Some(body),
                None => body::read(recv, most, memory).await?,
            };
            let Some(body) = body else { return Ok(None) };
            let options = recv.read_frame(wire::MAX_OPTIONS_BYTES).await?;
            let options =
                wire::read_options(options).map_err(|error| ReadError::from(FrameError::from(error)))?;
            Ok::<_, Unread>(Some((body, options)))
        };
        let (body, options) = match timeout(self.config.request_timeout, reading).await {
            Ok(Ok(Some(read))) => read,
            Ok(Ok(None)) => return Err(Instead::Reset(StreamCode::Cancelled)),
            Ok(Err(unread)) => return Err(self.unread(peer, unread)),
            Err(_) => return Err(Instead::Reset(StreamCode::TimedOut)),
        };
        if options.window_bytes == 0 {
            // The end mostly came along: once it is seen, dropping the half says nothing to the peer.
            let _ = recv.read_chunk(1).now_or_never();
        }
        let deadline = match options.deadline_ms {
            0 => None,
            wait => arrived.checked_add(Duration::from_millis(wait.into())),
        };
        let request = Request { peer: peer.id, protocol: recv.protocol().clone(), deadline, body };
        Ok((request, options.window_bytes))
    }

    /// What a request gets that was not read.
    fn unread(&self, peer: &Peer, unread: Unread) -> Instead {
        match unread {
            Unread::Stream(ReadError::Frame(FrameError::TooLarge { length, most })) => {
                let text = format!("a request of {length} bytes exceeds the {most} that are taken");
                Instead::Answer(ServeError::new(ServeError::TOO_LARGE, text), StreamCode::TooLarge)
            }
            Unread::NoMemory(exhausted) => {
                Instead::Answer(self.overloaded(exhausted.to_string()), StreamCode::Overloaded)
            }
            Unread::Stream(error) => {
                tracing::debug!(peer = %peer.id, %error, "a request could not be read");
                Instead::Reset(StreamCode::ProtocolViolation)
            }
        }
    }

    fn overloaded(&self, text: String) -> ServeError {
        ServeError { retry_after: self.config.retry_after, ..ServeError::overloaded(text) }
    }

    /// Has memory accounted for an answer.
    fn keep(&self, memory: &mut Reservation, bytes: usize) -> Result<(), ServeError> {
        memory.resize(bytes).map_err(|exhausted| self.overloaded(exhausted.to_string()))
    }

    fn check(&self, answer: Bytes) -> Result<Bytes, ServeError> {
        let (length, most) = (answer.len(), self.config.max_answer_bytes);
        if length <= most {
            return Ok(answer);
        }
        let text = format!("an answer of {length} bytes exceeds the {most} that may be sent");
        Err(ServeError::new(ServeError::TOO_LARGE, text))
    }

    async fn refuse(&self, peer: &Peer, send: &mut SendStream, error: ServeError) -> Outcome {
        let outcome = Outcome::of_answer(&error);
        if self.write(peer, send, &mut [wire::error(error)]).await.is_continue() {
            let _ = send.finish();
        }
        outcome
    }

    /// Writes, or gives the stream up when the caller takes nothing for too long.
    async fn write(&self, peer: &Peer, send: &mut SendStream, pieces: &mut [Bytes]) -> ControlFlow<()> {
        match timeout(self.config.stall_timeout, send.write_chunks(pieces)).await {
            Ok(Ok(())) => return ControlFlow::Continue(()),
            Ok(Err(error)) => tracing::debug!(peer = %peer.id, %error, "an answer could not be sent"),
            Err(_) => {
                tracing::debug!(peer = %peer.id, after = ?self.config.stall_timeout, "a caller takes no answer");
                send.reset(StreamCode::TimedOut);
            }
        }
        ControlFlow::Break(())
    }
}

/// What a request that could not be read gets.
enum Instead {
    Answer(ServeError, StreamCode),
    Reset(StreamCode),
}

/// A stream of answers on its way out.
struct Pouring<'a> {
    handler: &'a Handler,
    peer: &'a Peer,
    send: &'a mut SendStream,
    credit: Credit,
    /// What the request took, and what the item takes that is written.
    memory: Reservation,
    /// Small items that were ready and have not left yet.
    batch: BytesMut,
}

impl Pouring<'_> {
    /// Polls the application's stream only while its last items were taken: a caller that doesn't read makes it wait.
    async fn run(mut self, deadline: Option<Instant>, begin: impl FnOnce() -> Answers) -> Outcome {
        let asked = self.memory.bytes();
        let begun = std::panic::catch_unwind(AssertUnwindSafe(begin));
        let mut items =
            begun.unwrap_or_else(|_| futures_util::stream::once(async { Err(panicked()) }).boxed());
        loop {
            let next = async { Ok(items.next().await) };
            let mut next = pin!(before(deadline, caught(next)));
            let next = match (&mut next).now_or_never() {
                Some(next) => next,
                None => {
                    // Nothing more is ready: what there is leaves.
                    if self.flush().await.is_break() {
                        return Outcome::Lost;
                    }
                    next.await
                }
            };
            let flow = match next {
                Ok(Some(Ok(item))) => match self.handler.check(item).and_then(|item| {
                    self.handler.keep(&mut self.memory, asked + item.len())?;
                    Ok(item)
                }) {
                    Ok(item) => self.put(item).await,
                    Err(error) => return self.end(Some(error)).await,
                },
                Ok(Some(Err(error))) | Err(error) => return self.end(Some(error)).await,
                Ok(None) => return self.end(None).await,
            };
            if flow.is_break() {
                return Outcome::Lost;
            }
        }
    }

    async fn put(&mut self, item: Bytes) -> ControlFlow<()> {
        if !self.credit.has_some() {
            self.flush().await?;
            let granted = timeout(self.handler.config.stall_timeout, self.credit.wait()).await;
            if granted != Ok(true) {
                self.send.reset(StreamCode::TimedOut);
                return ControlFlow::Break(());
            }
        }
        self.credit.spend(wire::pair_length(0, item.len()));
        wire::put_answer_head(item.len(), &mut self.batch);
        if item.len() < UNCOPIED {
            self.batch.extend_from_slice(&item);
            return if self.batch.len() < MAX_BATCH { ControlFlow::Continue(()) } else { self.flush().await };
        }
        let before = self.batch.split().freeze();
        self.handler.write(self.peer, self.send, &mut [before, item]).await
    }

    async fn flush(&mut self) -> ControlFlow<()> {
        if self.batch.is_empty() {
            return ControlFlow::Continue(());
        }
        let batch = self.batch.split().freeze();
        self.handler.write(self.peer, self.send, &mut [batch]).await
    }

    /// The last word. An error needs no credit: it is small, and nothing comes behind it.
    async fn end(mut self, error: Option<ServeError>) -> Outcome {
        let outcome = error.as_ref().map_or(Outcome::Answered, Outcome::of_answer);
        if let Some(error) = error {
            self.batch.extend_from_slice(&wire::error(error));
        }
        if self.flush().await.is_break() {
            return Outcome::Lost;
        }
        let _ = self.send.finish();
        outcome
    }
}

/// How much more the caller takes, where it says so.
struct Credit {
    /// Bytes; below zero after an item that was larger than what was granted. `None` when only flow control counts.
    left: Option<i64>,
    recv: RecvStream,
}

impl Credit {
    fn new(window: u32, recv: RecvStream) -> Self {
        Self { left: (window > 0).then_some(window.into()), recv }
    }

    fn has_some(&self) -> bool {
        self.left.is_none_or(|left| left > 0)
    }

    fn spend(&mut self, bytes: u64) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub_unsigned(bytes);
        }
    }

    /// Waits until there is some. False when the caller will grant no more.
    async fn wait(&mut self) -> bool {
        while !self.has_some() {
            let granted = match self.recv.read_frame(wire::MAX_STATUS_BYTES + 1).await {
                Ok(Some(grant)) => wire::read_grant(grant),
                _ => None,
            };
            let (Some(granted), Some(left)) = (granted, &mut self.left) else { return false };
            *left = left.saturating_add_unsigned(granted);
        }
        true
    }
}

fn decode<Q: Payload>(request: Request<Bytes>) -> Result<Request<Q>, ServeError> {
    let Request { peer, protocol, deadline, body } = request;
    match Q::read(body) {
        Ok(body) => Ok(Request { peer, protocol, deadline, body }),
        Err(detail) => Err(ServeError::new(ServeError::MALFORMED, detail)),
    }
}

/// A handler's panic is its own: the caller is told, and the node goes on.
async fn caught<T>(work: impl Future<Output = Result<T, ServeError>>) -> Result<T, ServeError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> ServeError {
    tracing::error!("a request handler panicked");
    ServeError::new(ServeError::FAILED, "the handler failed")
}

async fn before<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, ServeError>>,
) -> Result<T, ServeError> {
    let Some(deadline) = deadline else { return work.await };
    let late = |_| Err(ServeError::new(ServeError::DEADLINE, "the deadline of the request has passed"));
    if deadline <= Instant::now() {
        late(())
    } else {
        timeout_at(deadline, work).await.unwrap_or_else(|_| late(()))
    }
}
