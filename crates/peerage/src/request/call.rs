//! The side that asks.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream};
use peerage_identity::PeerId;
use peerage_transport::{ReadError, RecvStream, SendStream, Stream as RawStream};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::body::{self, Unread};
use super::config::CallConfig;
use super::error::{RequestError, ServeError};
use super::slots::{CallSlot, Full};
use super::wire;
use crate::channel::Payload;
use crate::memory::Reservation;
use crate::metrics::{Counting, Outcome};
use crate::peer::Peer;

/// Bytes of a stream of answers that a slow caller leaves under way. All streams share the connection's window, and so many such
/// streams as a peer may have at once leave half of it to others.
pub(crate) const WINDOW_BYTES: u32 = 64 * 1024;
/// Two timers for one deadline, one on each side, are no further apart than this.
const CLOSE: Duration = Duration::from_millis(100);

/// Sends a request and waits for the answer.
pub(crate) async fn call<Q: Payload, A: Payload>(
    peer: &Peer,
    protocol: &str,
    question: &Q,
    config: &CallConfig,
    slot: Option<CallSlot>,
) -> Result<A, RequestError> {
    let call = Call::new(peer.id, protocol, config);
    let mut counting = peer.shared.requests.asked();
    let calling = async {
        call.check(question)?;
        let _slot = call.slot(peer, slot).await?;
        let mut memory = Reservation::new(peer.request_budgets());
        let (_send, mut recv) = call.open(peer, question, 0, &mut memory).await?.split();
        let mut pairs = Pairs { status: None, memory };
        let body = poll_fn(|cx| pairs.poll_next(cx, &mut recv, &call)).await;
        let body = body.unwrap_or_else(|| Err(call.malformed("the answer ended too early")))?;
        // The end mostly came along: once it is seen, dropping the half says nothing to the peer.
        let _ = recv.read_chunk(1).now_or_never();
        A::read(body).map_err(|detail| call.malformed(detail))
    };
    let answer = match call.until {
        None => calling.await,
        Some(until) => timeout_at(until, calling).await.unwrap_or_else(|_| Err(call.late())),
    };
    counting.ended(answer.as_ref().map_or_else(Outcome::of_failure, |_| Outcome::Answered));
    answer
}

/// Sends a request that is answered by a stream.
pub(crate) async fn call_many<Q: Payload, A: Payload>(
    peer: &Peer,
    protocol: &str,
    question: &Q,
    config: &CallConfig,
) -> Result<Answers<A>, RequestError> {
    let call = Call::new(peer.id, protocol, config);
    let mut counting = peer.shared.requests.asked();
    let mut memory = Reservation::new(peer.request_budgets());
    let opening = async {
        call.check(question)?;
        let slot = call.slot(peer, None).await?;
        Ok::<_, RequestError>((slot, call.open(peer, question, WINDOW_BYTES, &mut memory).await?))
    };
    let opened = match call.until {
        None => opening.await,
        Some(until) => timeout_at(until, opening).await.unwrap_or_else(|_| Err(call.late())),
    };
    let (slot, stream) =
        opened.inspect_err(|error: &RequestError| counting.ended(Outcome::of_failure(error)))?;
    let deadline = call.until.map(|until| Box::pin(sleep_until(until)));
    let grants = Grants { send: stream.send, consumed: 0, unsent: Bytes::new() };
    let pairs = Pairs { status: None, memory };
    let open = Open { recv: stream.recv, grants, pairs, deadline, counting, _slot: slot };
    Ok(Answers { call, open: Some(open), answers: PhantomData })
}

/// What is said about one call, also in its errors.
struct Call {
    peer: PeerId,
    protocol: Arc<str>,
    config: CallConfig,
    until: Option<Instant>,
}

impl Call {
    fn new(peer: PeerId, protocol: &str, config: &CallConfig) -> Self {
        // A deadline beyond the clock's end is none.
        let until = config.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        Self { peer, protocol: Arc::from(protocol), config: config.clone(), until }
    }

    fn check(&self, question: &impl Payload) -> Result<(), RequestError> {
        match (question.length(), self.config.max_request_bytes) {
            (length, most) if length > most => Err(RequestError::TooLarge { length, most }),
            _ => Ok(()),
        }
    }

    async fn slot(&self, peer: &Peer, slot: Option<CallSlot>) -> Result<CallSlot, RequestError> {
        match slot {
            Some(slot) => Ok(slot),
            None => {
                let busy = |Full { waiting }| RequestError::Busy { peer: self.peer, waiting };
                CallSlot::take(&peer.asked().calls, &peer.shared.calls).await.map_err(busy)
            }
        }
    }

    /// Opens a stream and sends the request. With a window, this side stays open for grants.
    async fn open(
        &self,
        peer: &Peer,
        question: &impl Payload,
        window: u32,
        memory: &mut Reservation,
    ) -> Result<RawStream, RequestError> {
        memory.resize(question.length()).map_err(|exhausted| self.unread(exhausted.into()))?;
        let mut stream =
            peer.connection.open_lazy(&self.protocol).await.map_err(|error| self.lost(error.to_string()))?;
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        // One that refuses before it has read all stops this half, and says why on the other.
        let sent = stream.send.write_chunk(wire::question(question, left, window)).await;
        if sent.is_ok() && window == 0 {
            let _ = stream.send.finish();
        }
        // It is the connection's now, which has a bound of its own. Less always succeeds.
        let _ = memory.resize(0);
        peer.mark_useful();
        Ok(stream)
    }

    fn unread(&self, unread: Unread) -> RequestError {
        match unread {
            Unread::Stream(error) => self.read_error(error),
            Unread::NoMemory(full) => RequestError::NoMemory { limit: full.limit, most: full.most },
        }
    }

    fn read_error(&self, error: ReadError) -> RequestError {
        match error {
            ReadError::NotSupported { .. } => {
                RequestError::NotSupported { peer: self.peer, protocol: self.protocol.to_string() }
            }
            ReadError::Frame(error) => self.malformed(error.to_string()),
            other => self.lost(other.to_string()),
        }
    }

    fn lost(&self, cause: String) -> RequestError {
        RequestError::Lost { peer: self.peer, protocol: self.protocol.to_string(), cause }
    }

    fn malformed(&self, detail: impl Into<String>) -> RequestError {
        let detail = detail.into();
        RequestError::Malformed { peer: self.peer, protocol: self.protocol.to_string(), detail }
    }

    /// Whether the peer can mean this call's own deadline when it says that one has passed.
    fn is_due(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now() + CLOSE)
    }

    fn late(&self) -> RequestError {
        let after = self.config.deadline.unwrap_or_default();
        RequestError::Deadline { peer: self.peer, protocol: self.protocol.to_string(), after }
    }
}

/// Takes an answer's stream apart.
struct Pairs {
    status: Option<Bytes>,
    /// What the last message takes.
    memory: Reservation,
}

impl Pairs {
    /// The next pair's answer or error; `None` at the end.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        recv: &mut RecvStream,
        call: &Call,
    ) -> Poll<Option<Result<Bytes, RequestError>>> {
        loop {
            // One bound for both messages of a pair, or what was read would be sorted anew for each.
            let most = call.config.max_answer_bytes.max(wire::MAX_ERROR_TEXT);
            let frame = match ready!(body::poll_read(cx, recv, most, &mut self.memory)) {
                Ok(frame) => frame,
                Err(unread) => return Poll::Ready(Some(Err(call.unread(unread)))),
            };
            return Poll::Ready(match (frame, self.status.take()) {
                (None, None) => None,
                (None, Some(_)) => Some(Err(call.malformed("the answer ended after a status"))),
                // Refused now, because from here on only the body is accounted for.
                (Some(status), None) if status.len() > wire::MAX_STATUS_BYTES => {
                    Some(Err(call.malformed("its error number is too long")))
                }
                (Some(status), None) => {
                    self.status = Some(status);
                    continue;
                }
                (Some(body), Some(status)) => Some(match wire::read_pair(&status, body) {
                    Ok(Ok(body)) => Ok(body),
                    Ok(Err(error)) if error.code == ServeError::DEADLINE && call.is_due() => Err(call.late()),
                    Ok(Err(error)) => Err(wire::refusal(call.peer, &call.protocol, error)),
                    Err(detail) => Err(call.malformed(detail)),
                }),
            });
        }
    }
}

/// The answers to one request, as they come: a [`Stream`].
///
/// Dropping it cancels the request at the peer. While it isn't polled, the peer's handler waits once some 64 KiB are under way. After an error,
/// and after the last answer, there is nothing more.
pub struct Answers<A> {
    call: Call,
    open: Option<Open>,
    answers: PhantomData<fn() -> A>,
}

/// What is held until the last answer.
struct Open {
    recv: RecvStream,
    grants: Grants,
    pairs: Pairs,
    deadline: Option<Pin<Box<Sleep>>>,
    counting: Counting,
    _slot: CallSlot,
}

impl<A: Payload> Answers<A> {
    /// The next answer; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<A, RequestError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<A> Answers<A> {
    /// Who answers.
    pub fn peer(&self) -> PeerId {
        self.call.peer
    }

    /// Under which protocol name.
    pub fn protocol(&self) -> &str {
        &self.call.protocol
    }
}

impl<A: Payload> Stream for Answers<A> {
    type Item = Result<A, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(open) = &mut this.open else { return Poll::Ready(None) };
        if let Some(deadline) = &mut open.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            open.counting.ended(Outcome::Deadline);
            this.open = None;
            return Poll::Ready(Some(Err(this.call.late())));
        }
        open.grants.poll_send(cx);
        let next = ready!(open.pairs.poll_next(cx, &mut open.recv, &this.call)).map(|body| {
            let body = body?;
            open.grants.consumed(wire::pair_length(0, body.len()));
            open.grants.poll_send(cx);
            A::read(body).map_err(|detail| this.call.malformed(detail))
        });
        match &next {
            Some(Ok(_)) => return Poll::Ready(next),
            Some(Err(error)) => open.counting.ended(Outcome::of_failure(error)),
            None => open.counting.ended(Outcome::Answered),
        }
        this.open = None;
        Poll::Ready(next)
    }
}

impl<A> fmt::Debug for Answers<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("peer", &self.call.peer)
            .field("protocol", &self.call.protocol)
            .finish_non_exhaustive()
    }
}

/// Tells the peer how much of its answers was taken.
struct Grants {
    send: SendStream,
    /// Bytes taken and not yet granted anew.
    consumed: u64,
    /// What is left of the last grant to be written.
    unsent: Bytes,
}

impl Grants {
    fn consumed(&mut self, bytes: u64) {
        self.consumed += bytes;
        if self.unsent.is_empty() && self.consumed >= u64::from(WINDOW_BYTES) / 2 {
            self.unsent = wire::grant(std::mem::take(&mut self.consumed));
        }
    }

    /// Writes as much of the grant as goes. What stays is tried again at the next poll; a failure shows in what is read.
    fn poll_send(&mut self, cx: &mut Context<'_>) {
        if !self.unsent.is_empty()
            && self.send.poll_write_chunks(cx, std::slice::from_mut(&mut self.unsent)).is_ready()
        {
            self.unsent = Bytes::new();
        }
    }
}
