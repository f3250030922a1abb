//! The writing half of a stream.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use peerage_wire::frame;
use tokio::io::AsyncWrite;

use crate::close::{CloseCause, StreamCode};
use crate::connection::Link;
use crate::traffic::Protocol;

/// Why nothing more can be written to a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer doesn't want the data.
    #[error("the peer stopped the stream: {code}")]
    Stopped {
        /// Its reason.
        code: StreamCode,
    },
    /// The stream was finished or reset before, on this side.
    #[error("the stream was finished or reset on this side")]
    Finished,
    /// The peer takes no more bytes at the moment, and the name of a lazily opened stream must go out before its end.
    #[error("the stream cannot be finished before its protocol name was sent (await flush first)")]
    Blocked,
    /// The connection is gone.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] CloseCause),
}

/// The writing half of a stream.
///
/// A half that is dropped before [`SendStream::finish`] is reset, so that the peer never takes the part for the whole. After
/// `finish`, what was written is still delivered when the half is dropped.
pub struct SendStream {
    quinn: quinn::SendStream,
    link: Arc<Link>,
    /// Once it is known; what is written is counted there.
    protocol: Option<Arc<Protocol>>,
    /// What must go out before anything else: the rest of a lazy proposal.
    proposal: Bytes,
    ended: bool,
    /// The peer was found not to want the data.
    stopped: bool,
    /// The peer opened the stream.
    inbound: bool,
    /// It has a priority above 0.
    urgent: AtomicBool,
}

impl SendStream {
    /// A half that was counted as opened.
    pub(crate) fn new(
        quinn: quinn::SendStream,
        link: Arc<Link>,
        protocol: Option<Arc<Protocol>>,
        inbound: bool,
    ) -> Self {
        let (proposal, urgent) = (Bytes::new(), AtomicBool::new(false));
        Self { quinn, link, protocol, proposal, ended: false, stopped: false, inbound, urgent }
    }

    pub(crate) fn set_protocol(&mut self, protocol: Arc<Protocol>) {
        self.protocol = Some(protocol);
    }

    /// Puts `proposal` before whatever is written first.
    pub(crate) fn set_proposal(&mut self, proposal: Bytes) {
        self.proposal = proposal;
    }

    /// Writes all of `chunk`, without a copy, and waits while the peer's window or the send window is full.
    ///
    /// Small chunks are dear, because QUIC looks through all that are not yet acknowledged: join what is at hand, up to some 32 KiB. Not cancel-safe: a
    /// part may have been written when the future is dropped. Where that matters, use [`SendStream::write_chunks`].
    ///
    /// # Errors
    /// [`WriteError`]; the half is of no more use then.
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        self.write_chunks(&mut [chunk]).await
    }

    /// Writes all chunks, without a copy. Each is empty when this returns.
    ///
    /// Cancel-safe: when the future is dropped, `chunks` holds what was not written.
    ///
    /// # Errors
    /// [`WriteError`]; the half is of no more use then.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_write_chunks(cx, chunks)).await
    }

    /// Writes a copy of all `bytes`. Not cancel-safe.
    ///
    /// # Errors
    /// [`WriteError`]; the half is of no more use then.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| self.poll_write_bytes(cx, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Writes a message with its length in front, in one piece. Not cancel-safe.
    ///
    /// # Errors
    /// [`WriteError`]; the half is of no more use then.
    pub async fn write_frame(&mut self, message: &impl prost::Message) -> Result<(), WriteError> {
        self.write_chunk(frame::encode(message)).await
    }

    /// Sends the protocol name of a stream that was opened lazily, if it is still due. The other side knows nothing of the stream before.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        self.write_chunks(&mut []).await
    }

    /// Says that nothing follows. What was written is delivered even if the half is dropped now.
    ///
    /// A foreign peer may lose data that comes together with the end when the reading half is dropped at once (py-libp2p does):
    /// await [`SendStream::stopped`] first where that matters.
    ///
    /// # Errors
    /// [`WriteError::Finished`] when it was finished or reset before; [`WriteError::Blocked`] when the stream was opened lazily, nothing was written
    /// and the peer's window is full, which [`SendStream::flush`] would wait for; [`WriteError::ConnectionLost`].
    pub fn finish(&mut self) -> Result<(), WriteError> {
        if self.ended {
            return Err(WriteError::Finished);
        }
        if !self.proposal.is_empty() {
            let mut cx = Context::from_waker(Waker::noop());
            match self.poll_write_chunks(&mut cx, &mut []) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Err(WriteError::Blocked),
            }
        }
        self.ended = true;
        self.quinn.finish().map_err(|_| WriteError::Finished)
    }

    /// Gives the stream up: what was written and not yet delivered may never arrive, and the peer's reads end in `code`.
    pub fn reset(&mut self, code: StreamCode) {
        self.ended = true;
        // It fails when the stream has ended before; then nothing is left to give up.
        let _ = self.quinn.reset(code.to_varint());
    }

    /// Waits until the peer has all that was written before [`SendStream::finish`] (`None`), or until it stops the stream (its code).
    ///
    /// "Has" means that its QUIC took the bytes; whether the application read them only a protocol's answer can tell.
    ///
    /// # Errors
    /// The connection's [`CloseCause`].
    pub fn stopped(
        &self,
    ) -> impl Future<Output = Result<Option<StreamCode>, CloseCause>> + Send + Sync + 'static {
        let (stopped, link) = (self.quinn.stopped(), self.link.clone());
        async move {
            match stopped.await {
                Ok(code) => Ok(code.map(StreamCode::from)),
                Err(quinn::StoppedError::ConnectionLost(error)) => Err(link.cause(&error)),
                Err(quinn::StoppedError::ZeroRttRejected) => Err(no_early_data()),
            }
        }
    }

    /// Sets which of a connection's streams go first; 0 at the beginning, higher goes before lower. It acts on what is written from now on. A stream of
    /// more than 0 is urgent: for a second after each write, less is on the way within this machine ([`crate::TransportSettings::urgent_window_bytes`]).
    pub fn set_priority(&self, priority: i32) {
        self.urgent.store(priority > 0, Ordering::Relaxed);
        // It fails when the stream has ended; then nothing is left to order.
        let _ = self.quinn.set_priority(priority);
    }

    /// The agreed or proposed protocol name.
    pub fn protocol(&self) -> &Arc<str> {
        self.protocol.as_ref().map_or(self.link.no_protocol(), |protocol| &protocol.name)
    }

    /// The stream's number on its connection.
    pub fn id(&self) -> u64 {
        quinn::VarInt::from(self.quinn.id()).into_inner()
    }

    /// [`SendStream::write_chunks`] for hand-written futures: ready when all chunks are empty.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), WriteError>> {
        while !self.proposal.is_empty() {
            let mut none = Bytes::new();
            let first = chunks.iter_mut().find(|chunk| !chunk.is_empty());
            ready!(self.poll_with_proposal(cx, first.unwrap_or(&mut none)))?;
        }
        while let Some(start) = chunks.iter().position(|chunk| !chunk.is_empty()) {
            let written = ready!(self.poll_hand_over(cx, &mut chunks[start..]))?;
            self.count(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Hands QUIC what it takes of `chunks`, and tells how many bytes that were.
    fn poll_hand_over(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<usize, WriteError>> {
        self.note_urgent();
        let before = if self.link.is_tapped() { chunks.to_vec() } else { Vec::new() };
        let written = ready!(pin!(self.quinn.write_chunks(chunks)).poll(cx));
        let written = written.map_err(|error| self.error(error))?.bytes;
        let mut rest = written;
        for chunk in before {
            let part = rest.min(chunk.len());
            rest -= part;
            self.link.tell_tap(self.id(), &chunk[..part]);
        }
        Poll::Ready(Ok(written))
    }

    /// The name and the first bytes in one write, so that they leave in one packet.
    fn poll_with_proposal(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut Bytes,
    ) -> Poll<Result<(), WriteError>> {
        let length = first.len();
        let mut both = [mem::take(&mut self.proposal), mem::take(first)];
        let written = self.poll_hand_over(cx, &mut both);
        [self.proposal, *first] = both;
        self.count(length - first.len());
        written.map(|result| result.map(drop))
    }

    fn note_urgent(&self) {
        if self.urgent.load(Ordering::Relaxed) {
            self.link.note_urgent();
        }
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
        if self.proposal.is_empty() {
            self.note_urgent();
            let written = pin!(self.quinn.write(bytes)).poll(cx);
            let written = ready!(written).map_err(|error| self.error(error))?;
            self.link.tell_tap(self.id(), &bytes[..written]);
            self.count(written);
            return Poll::Ready(Ok(written));
        }
        let length = bytes.len().min(FIRST_COPY);
        let mut first = Bytes::copy_from_slice(&bytes[..length]);
        while !self.proposal.is_empty() {
            ready!(self.poll_with_proposal(cx, &mut first))?;
        }
        match length - first.len() {
            0 if !bytes.is_empty() => self.poll_write_bytes(cx, bytes),
            written => Poll::Ready(Ok(written)),
        }
    }

    fn count(&self, bytes: usize) {
        if let Some(protocol) = &self.protocol {
            protocol.sent(bytes);
        }
    }

    fn error(&mut self, error: quinn::WriteError) -> WriteError {
        match error {
            quinn::WriteError::Stopped(code) => {
                self.stopped = true;
                WriteError::Stopped { code: code.into() }
            }
            quinn::WriteError::ConnectionLost(error) => WriteError::ConnectionLost(self.link.cause(&error)),
            quinn::WriteError::ClosedStream => WriteError::Finished,
            quinn::WriteError::ZeroRttRejected => WriteError::ConnectionLost(no_early_data()),
        }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // One that the peer has stopped is reset by quinn, which looks at the connection once more in any case.
        if !self.ended && !self.stopped {
            self.reset(StreamCode::Cancelled);
        }
        self.link.half_closed(self.inbound);
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_bytes(cx, bytes).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_write_chunks(cx, &mut []).map_err(io::Error::from)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_chunks(cx, &mut []))?;
        Poll::Ready(match this.finish() {
            Err(WriteError::Finished) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendStream({} {})", self.id(), self.protocol())
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match &error {
            WriteError::Stopped { .. } => io::ErrorKind::BrokenPipe,
            WriteError::Finished => io::ErrorKind::NotConnected,
            WriteError::Blocked => io::ErrorKind::WouldBlock,
            WriteError::ConnectionLost(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

/// quinn's errors about early data, which no connection here has.
pub(crate) fn no_early_data() -> CloseCause {
    CloseCause::Transport { detail: "early data was refused, which was never sent".into() }
}

/// How much of a slice is copied to go out with the name of a lazily opened stream.
const FIRST_COPY: usize = 16 * 1024;
