//! The reading half of a stream.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use peerage_wire::frame::{Decoder, FrameError};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use crate::close::{CloseCause, StreamCode};
use crate::connection::Link;
use crate::negotiate::{Answer, Dialler, NegotiationError};
use crate::send::no_early_data;
use crate::traffic::Protocol;

/// Why nothing more can be read from a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer doesn't serve the protocol of the stream.
    #[error("the peer does not support {protocol}")]
    NotSupported {
        /// The name that was proposed.
        protocol: String,
    },
    /// The protocol name could not be agreed on, for another reason.
    #[error(transparent)]
    Negotiation(NegotiationError),
    /// The peer gave the stream up.
    #[error("the peer reset the stream: {code}")]
    Reset {
        /// Its reason.
        code: StreamCode,
    },
    /// The half was stopped before, on this side.
    #[error("the stream was stopped on this side")]
    Stopped,
    /// The bytes don't form a message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection is gone.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] CloseCause),
}

/// The reading half of a stream.
///
/// On a stream that was opened lazily, the first read takes in the peer's answer to the proposed name, and fails when that is a no.
/// A half that is dropped before its end is stopped, which tells the peer not to send any more.
pub struct RecvStream {
    quinn: quinn::RecvStream,
    link: Arc<Link>,
    /// Once it is known; what is read is counted there.
    protocol: Option<Arc<Protocol>>,
    /// The answer to our proposal, as far as it is still due.
    answer: Option<Box<Due>>,
    /// Why the negotiation failed: said again by every read.
    failed: Option<Box<NegotiationError>>,
    /// Read off the stream and not yet given out, in order.
    held: Held,
    /// Set while a message is read of which something has come, with the bound on it; then it has what is held.
    frames: Option<Box<(usize, Decoder)>>,
    end: Option<End>,
    /// The peer opened the stream.
    inbound: bool,
}

/// An answer to a proposal that has not come.
struct Due {
    dialler: Dialler,
    /// When it is waited for no longer: set once the proposal has left.
    by: Option<Pin<Box<Sleep>>>,
}

/// Chunks in their order. The first, which is mostly all that there is, takes no memory of its own.
#[derive(Default)]
struct Held {
    first: Bytes,
    others: VecDeque<Bytes>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.others.is_empty()
    }

    /// The next bytes, at most so many.
    fn take(&mut self, most: usize) -> Option<Bytes> {
        if self.first.is_empty() {
            self.first = self.others.pop_front()?;
            if self.others.is_empty() {
                // Its memory would be kept for as long as the stream lasts.
                self.others = VecDeque::new();
            }
        }
        Some(self.first.split_to(most.min(self.first.len())))
    }

    fn into_chunks(mut self) -> VecDeque<Bytes> {
        if !self.first.is_empty() {
            self.others.push_front(self.first);
        }
        self.others
    }
}

impl From<VecDeque<Bytes>> for Held {
    fn from(others: VecDeque<Bytes>) -> Self {
        Self { first: Bytes::new(), others }
    }
}

/// How the half ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The peer has said all.
    Finished,
    /// The peer gave up.
    Reset(StreamCode),
    /// We don't want any more.
    Stopped,
}

impl RecvStream {
    /// A half that was counted as opened.
    pub(crate) fn new(
        quinn: quinn::RecvStream,
        link: Arc<Link>,
        protocol: Option<Arc<Protocol>>,
        inbound: bool,
    ) -> Self {
        Self {
            quinn,
            link,
            protocol,
            answer: None,
            failed: None,
            held: Held::default(),
            frames: None,
            end: None,
            inbound,
        }
    }

    pub(crate) fn set_protocol(&mut self, protocol: Arc<Protocol>) {
        self.protocol = Some(protocol);
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Makes the first read expect the answer to a proposal.
    pub(crate) fn await_answer(&mut self, dialler: Dialler) {
        self.answer = Some(Box::new(Due { dialler, by: None }));
    }

    /// The proposal has left: from now on the answer must come within the endpoint's `negotiation_timeout`.
    pub(crate) fn proposed(&mut self) {
        if let Some(due) = &mut self.answer {
            due.by = Some(Box::pin(tokio::time::sleep(self.link.settings().negotiation_timeout)));
        }
    }

    /// Gives back bytes that were read beyond the negotiation.
    pub(crate) fn hold(&mut self, rest: Bytes) {
        if !rest.is_empty() {
            self.count(rest.len());
            self.held = Held { first: rest, others: mem::take(&mut self.held).into_chunks() };
        }
    }

    /// The next bytes, at most `most` of them and at least one, without a copy; `None` at the end of the stream. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError`]; the half is of no more use then.
    pub async fn read_chunk(&mut self, most: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_read_chunk(cx, most)).await
    }

    /// Fills `out` from its front with what has arrived, without a copy: how many pieces, 0 at the end of the stream. One call costs one look
    /// at the connection, where [`RecvStream::read_chunk`] costs one for each piece. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError`]; the half is of no more use then.
    pub async fn read_chunks(&mut self, out: &mut [Bytes]) -> Result<usize, ReadError> {
        poll_fn(|cx| self.poll_read_chunks(cx, out)).await
    }

    /// The next message's bytes, refused when its length exceeds `most`; `None` when the stream ended between two messages. Cancel-safe.
    ///
    /// A message that came in one packet is not copied.
    ///
    /// # Errors
    /// [`ReadError`]; the half is of no more use then. [`FrameError::Truncated`] when the stream ended inside a message.
    pub async fn read_frame(&mut self, most: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_read_frame(cx, most)).await
    }

    /// The next message, decoded; as [`RecvStream::read_frame`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_message<M: prost::Message + Default>(
        &mut self,
        most: usize,
    ) -> Result<Option<M>, ReadError> {
        poll_fn(|cx| self.poll_read_message(cx, most)).await
    }

    /// Waits for the peer's answer to the protocol name and for no more than that, for the endpoint's `negotiation_timeout` at most. Returns at once when it was read before. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError::NotSupported`] when the peer doesn't serve it, and [`NegotiationError::TimedOut`] after the endpoint's `negotiation_timeout`.
    pub async fn negotiated(&mut self) -> Result<(), ReadError> {
        if self.answer.is_none() && self.failed.is_none() {
            return Ok(());
        }
        if self.answer.as_ref().is_some_and(|due| due.by.is_none()) {
            self.proposed();
        }
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    /// Tells the peer not to send any more. What lies unread is dropped.
    pub fn stop(&mut self, code: StreamCode) {
        self.end = Some(End::Stopped);
        self.held = Held::default();
        self.frames = None;
        self.answer = None;
        // It fails when the stream has ended before; then there is nothing to stop.
        let _ = self.quinn.stop(code.to_varint());
    }

    /// The agreed or proposed protocol name.
    pub fn protocol(&self) -> &Arc<str> {
        self.protocol.as_ref().map_or(self.link.no_protocol(), |protocol| &protocol.name)
    }

    /// The stream's number on its connection.
    pub fn id(&self) -> u64 {
        quinn::VarInt::from(self.quinn.id()).into_inner()
    }

    /// [`RecvStream::read_chunk`] for hand-written futures.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        ready!(self.poll_answer(cx))?;
        let most = most.max(1);
        if let Some(frames) = self.frames.take() {
            self.held = frames.1.into_rest().into();
        }
        match self.held.take(most) {
            Some(chunk) => Poll::Ready(Ok(Some(chunk))),
            None => self.poll_quinn(cx, most),
        }
    }

    /// [`RecvStream::read_chunks`] for hand-written futures.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn poll_read_chunks(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [Bytes],
    ) -> Poll<Result<usize, ReadError>> {
        let Some(first) = out.first_mut() else { return Poll::Ready(Ok(0)) };
        if self.answer.is_some()
            || self.failed.is_some()
            || self.frames.is_some()
            || !self.held.is_empty()
            || self.end.is_some()
        {
            return Poll::Ready(match ready!(self.poll_read_chunk(cx, usize::MAX))? {
                Some(chunk) => {
                    *first = chunk;
                    Ok(1)
                }
                None => Ok(0),
            });
        }
        let read = pin!(self.quinn.read_chunks(out)).poll(cx);
        Poll::Ready(match ready!(read) {
            Ok(Some(count)) => {
                self.count(out[..count].iter().map(Bytes::len).sum());
                Ok(count)
            }
            Ok(None) => {
                self.end = Some(End::Finished);
                Ok(0)
            }
            Err(error) => Err(self.error(error)),
        })
    }

    /// [`RecvStream::read_frame`] for hand-written futures.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn poll_read_frame(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        ready!(self.poll_answer(cx))?;
        loop {
            if self.frames.is_some() || !self.held.is_empty() {
                let decoder = self.frames(most);
                let frame = decoder.next_frame()?;
                if decoder.buffered() == 0 {
                    // A stream on which no message has begun keeps nothing.
                    self.frames = None;
                }
                if frame.is_some() {
                    return Poll::Ready(Ok(frame));
                }
            }
            match ready!(self.poll_quinn(cx, usize::MAX))? {
                Some(chunk) => self.frames(most).push(chunk),
                None => {
                    self.frames.as_ref().map_or(Ok(()), |frames| frames.1.finish())?;
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    /// [`RecvStream::read_message`] for hand-written futures.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn poll_read_message<M: prost::Message + Default>(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<M>, ReadError>> {
        Poll::Ready(match ready!(self.poll_read_frame(cx, most))? {
            Some(frame) => Ok(Some(M::decode(frame).map_err(FrameError::from)?)),
            None => Ok(None),
        })
    }

    /// Bytes of the message that [`RecvStream::poll_read_frame`] is reading which have come, its length included.
    pub fn begun(&self) -> usize {
        self.frames.as_ref().map_or(0, |frames| frames.1.buffered())
    }

    /// The length of the message that [`RecvStream::poll_read_frame`] is reading, once it is known.
    pub fn expected(&self) -> Option<usize> {
        self.frames.as_ref().and_then(|frames| frames.1.expected())
    }

    /// The decoder of messages, with this bound and all that is held.
    fn frames(&mut self, most: usize) -> &mut Decoder {
        let held = match self.frames.take() {
            Some(frames) if frames.0 == most => return &mut self.frames.insert(frames).1,
            Some(frames) => frames.1.into_rest(),
            None => mem::take(&mut self.held).into_chunks(),
        };
        let mut decoder = Decoder::new(most);
        held.into_iter().for_each(|chunk| decoder.push(chunk));
        &mut self.frames.insert(Box::new((most, decoder))).1
    }

    /// Reads the answer to a proposal, if one is due.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(NegotiationError::clone(error).into()));
        }
        if self.answer.is_none() {
            return Poll::Ready(Ok(()));
        }
        let (error, code) = match self.poll_raw_answer(cx) {
            Poll::Ready(Ok(Answer::Agreed)) => {
                self.end_negotiation();
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Ok(Answer::NotAvailable)) => {
                let protocol = self.protocol().to_string();
                (NegotiationError::NotSupported { protocol }, StreamCode::NotSupported)
            }
            Poll::Ready(Err(error)) => (error, StreamCode::NotSupported),
            Poll::Pending => {
                ready!(self.poll_overdue(cx));
                let after = self.link.settings().negotiation_timeout;
                (NegotiationError::TimedOut { after }, StreamCode::TimedOut)
            }
        };
        self.failed = Some(Box::new(error.clone()));
        self.stop(code);
        Poll::Ready(Err(error.into()))
    }

    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.answer.as_mut().and_then(|due| due.by.as_mut()) {
            Some(by) => by.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// The next answer, which may be a no. The dialler's state stays, so that another name can be proposed.
    pub(crate) fn poll_raw_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, NegotiationError>> {
        loop {
            let Some(Due { dialler, .. }) = self.answer.as_deref_mut() else {
                return Poll::Ready(Err(NegotiationError::Ended));
            };
            if let Some(answer) = dialler.answer()? {
                return Poll::Ready(Ok(answer));
            }
            let chunk = match ready!(self.poll_line(cx)) {
                Ok(chunk) if !chunk.is_empty() => chunk,
                Ok(_) => return Poll::Ready(Err(NegotiationError::Ended)),
                Err(error) => return Poll::Ready(Err(self.refusal(error))),
            };
            if let Some(Due { dialler, .. }) = self.answer.as_deref_mut() {
                dialler.push(chunk);
            }
        }
    }

    /// A name is agreed on: what came behind the answer is data.
    pub(crate) fn end_negotiation(&mut self) {
        let rest = self.answer.take().map(|due| due.dialler.into_rest()).unwrap_or_default();
        self.hold(rest);
    }

    pub(crate) fn dialler(&mut self) -> Option<&mut Dialler> {
        self.answer.as_deref_mut().map(|due| &mut due.dialler)
    }

    /// Reads off the stream while its protocol is agreed on; nothing at its end. What lies behind a line comes with it, up to a bound: mostly
    /// that is all there is, and its end with it, which spares further looks at the connection. For that it is copied.
    pub(crate) fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ReadError>> {
        if let Some(ended) = self.ended() {
            return Poll::Ready(ended.map(|()| Bytes::new()));
        }
        let mut space = [MaybeUninit::uninit(); NEGOTIATION_READ];
        let mut read = ReadBuf::uninit(&mut space);
        match ready!(self.quinn.poll_read_buf(cx, &mut read)) {
            Ok(()) => Poll::Ready(Ok(Bytes::copy_from_slice(read.filled()))),
            Err(error) => Poll::Ready(Err(self.error(error))),
        }
    }

    /// What reading comes to once the half has ended.
    fn ended(&self) -> Option<Result<(), ReadError>> {
        self.end.map(|end| match end {
            End::Finished => Ok(()),
            End::Reset(code) => Err(ReadError::Reset { code }),
            End::Stopped => Err(ReadError::Stopped),
        })
    }

    /// Reads off the stream itself, past whatever is held.
    fn poll_quinn(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        if let Some(ended) = self.ended() {
            return Poll::Ready(ended.map(|()| None));
        }
        let read = pin!(self.quinn.read_chunk(most, true)).poll(cx);
        match ready!(read) {
            Ok(Some(chunk)) => {
                self.count(chunk.bytes.len());
                Poll::Ready(Ok(Some(chunk.bytes)))
            }
            Ok(None) => {
                self.end = Some(End::Finished);
                Poll::Ready(Ok(None))
            }
            Err(error) => Poll::Ready(Err(self.error(error))),
        }
    }

    /// Whether the peer has said all and all of it was read, though nobody has asked yet. There is nothing to stop then, and both sides are spared a packet.
    fn is_at_end(&mut self) -> bool {
        if self.answer.is_some() || self.frames.is_some() || !self.held.is_empty() {
            return false;
        }
        let read = pin!(self.quinn.read_chunk(1, true)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(read, Poll::Ready(Ok(None)))
    }

    fn count(&self, bytes: usize) {
        if let Some(protocol) = &self.protocol {
            protocol.received(bytes);
        }
    }

    fn error(&mut self, error: quinn::ReadError) -> ReadError {
        match error {
            quinn::ReadError::Reset(code) => {
                self.end = Some(End::Reset(code.into()));
                ReadError::Reset { code: code.into() }
            }
            quinn::ReadError::ConnectionLost(error) => ReadError::ConnectionLost(self.link.cause(&error)),
            quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead => ReadError::Stopped,
            quinn::ReadError::ZeroRttRejected => ReadError::ConnectionLost(no_early_data()),
        }
    }

    /// What the end of a stream means that came instead of an answer.
    fn refusal(&self, error: ReadError) -> NegotiationError {
        match error {
            ReadError::Reset { code: StreamCode::NotSupported } => {
                NegotiationError::NotSupported { protocol: self.protocol().to_string() }
            }
            other => NegotiationError::from(other),
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if self.end.is_none() && !self.is_at_end() {
            self.stop(StreamCode::Cancelled);
        }
        self.link.half_closed(self.inbound);
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(chunk) = ready!(self.get_mut().poll_read_chunk(cx, out.remaining()))? {
            out.put_slice(&chunk);
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecvStream({} {})", self.id(), self.protocol())
    }
}

impl From<NegotiationError> for ReadError {
    fn from(error: NegotiationError) -> Self {
        match error {
            NegotiationError::NotSupported { protocol } => Self::NotSupported { protocol },
            NegotiationError::ConnectionLost(cause) => Self::ConnectionLost(cause),
            other => Self::Negotiation(other),
        }
    }
}

impl From<ReadError> for NegotiationError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotSupported { protocol } => Self::NotSupported { protocol },
            ReadError::Negotiation(error) => error,
            ReadError::Reset { code } => Self::Reset { code },
            ReadError::Stopped | ReadError::Frame(_) => Self::Ended,
            ReadError::ConnectionLost(cause) => Self::ConnectionLost(cause),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::NotSupported { .. } => io::ErrorKind::Unsupported,
            ReadError::Negotiation(_) => io::ErrorKind::InvalidData,
            ReadError::Reset { .. } => io::ErrorKind::ConnectionReset,
            ReadError::Stopped => io::ErrorKind::NotConnected,
            ReadError::Frame(FrameError::Truncated) => io::ErrorKind::UnexpectedEof,
            ReadError::Frame(_) => io::ErrorKind::InvalidData,
            ReadError::ConnectionLost(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

/// How much is read at a time while a protocol name is agreed on, which is twice the longest line: what lies behind stays in QUIC's buffer, under
/// its flow control.
const NEGOTIATION_READ: usize = 2048;
