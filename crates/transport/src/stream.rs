//! Streams: how they are opened and accepted, and the pair of halves that results.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::close::{CloseCause, StreamCode};
use crate::connection::{Link, NegotiationTurn};
use crate::negotiate::{self, Answer, Dialler, Listener, NegotiationError, Step};
use crate::recv::RecvStream;
use crate::send::{SendStream, WriteError};
use crate::traffic::Protocol;

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No name that can be proposed.
    #[error("{name:?} is no protocol name (give a single line of 1 to 1023 bytes, such as /acme/chat/1)")]
    BadName {
        /// What was given.
        name: String,
    },
    /// More names than a listener takes.
    #[error("{count} protocol names were given (give 1 to {})", negotiate::MAX_PROPOSALS)]
    Count {
        /// How many were given.
        count: usize,
    },
    /// No protocol was agreed on.
    #[error(transparent)]
    Negotiation(NegotiationError),
    /// The connection is gone.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] CloseCause),
}

/// A stream in both directions, opened for one protocol.
///
/// Reading and writing go through the two halves, which can be taken apart. As a whole it is a tokio stream.
#[derive(Debug)]
pub struct Stream {
    /// What we say.
    pub send: SendStream,
    /// What the peer says.
    pub recv: RecvStream,
}

impl Stream {
    /// The two halves. Each can be finished, reset, stopped or dropped without the other.
    pub fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }

    /// The agreed or proposed protocol name.
    pub fn protocol(&self) -> &Arc<str> {
        self.recv.protocol()
    }

    /// Gives both halves up, with one reason.
    pub fn abort(mut self, code: StreamCode) {
        self.send.reset(code);
        self.recv.stop(code);
    }

    /// A stream that was counted as opened.
    fn new(
        quinn: (quinn::SendStream, quinn::RecvStream),
        link: &Arc<Link>,
        protocol: Option<Arc<Protocol>>,
        inbound: bool,
    ) -> Self {
        Self {
            send: SendStream::new(quinn.0, link.clone(), protocol.clone(), inbound),
            recv: RecvStream::new(quinn.1, link.clone(), protocol, inbound),
        }
    }

    /// Names the protocol whose data is read and written from now on, or that is proposed.
    fn set_protocol(&mut self, protocol: Arc<Protocol>) {
        self.send.set_protocol(protocol.clone());
        self.recv.set_protocol(protocol);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, out)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}

/// Opens a stream for one name. The proposal waits for the first write.
pub(crate) async fn open_lazy(link: &Arc<Link>, protocol: &str) -> Result<Stream, OpenError> {
    check(protocol)?;
    let quinn = link.quinn().open_bi().await.map_err(|error| link.cause(&error))?;
    link.opened();
    let protocol = link.protocol(protocol);
    let name = protocol.name.clone();
    let mut stream = Stream::new(quinn, link, Some(protocol), false);
    stream.send.set_proposal(negotiate::proposal(&name));
    stream.recv.await_answer(Dialler::new(name));
    Ok(stream)
}

/// Opens a stream for one name and writes the proposal, so that the other side sees the stream.
pub(crate) async fn open(link: &Arc<Link>, protocol: &str) -> Result<Stream, OpenError> {
    let mut stream = open_lazy(link, protocol).await?;
    match stream.send.flush().await {
        Ok(()) => {
            stream.recv.proposed();
            Ok(stream)
        }
        Err(error) => Err(stream.refusal(error.into())),
    }
}

/// Opens a stream for the first of the names that the peer serves: a round trip for each name proposed.
pub(crate) async fn open_any(link: &Arc<Link>, protocols: &[&str]) -> Result<Stream, OpenError> {
    let (first, others) = match protocols {
        [first, others @ ..] if others.len() < negotiate::MAX_PROPOSALS => (*first, others),
        _ => {
            return Err(OpenError::Count { count: protocols.len() });
        }
    };
    for name in others {
        check(name)?;
    }
    let after = link.settings().negotiation_timeout;
    let mut stream = open_lazy(link, first).await?;
    let negotiation = stream.agree_on_one(link, first, others);
    let result = timeout(after, negotiation).await.unwrap_or(Err(NegotiationError::TimedOut { after }));
    match result {
        Ok(()) => Ok(stream),
        Err(error) => {
            stream.abort(StreamCode::NotSupported);
            Err(error.into())
        }
    }
}

impl Stream {
    async fn agree_on_one(
        &mut self,
        link: &Link,
        first: &str,
        others: &[&str],
    ) -> Result<(), NegotiationError> {
        self.send.flush().await?;
        let mut proposed: Arc<str> = self.protocol().clone();
        let mut names = others.iter();
        loop {
            match poll_fn(|cx| self.recv.poll_raw_answer(cx)).await? {
                Answer::Agreed => break,
                Answer::NotAvailable => {}
            }
            let Some(next) = names.next() else {
                let all: Vec<&str> = std::iter::once(first).chain(others.iter().copied()).collect();
                return Err(NegotiationError::NotSupported { protocol: all.join(", ") });
            };
            let next: Arc<str> = Arc::from(*next);
            self.set_protocol(Protocol::proposed(next.clone()));
            proposed = next.clone();
            self.send.write_chunk(negotiate::line(&next)).await?;
            if let Some(dialler) = self.recv.dialler() {
                dialler.propose(next);
            }
        }
        self.set_protocol(link.protocol(&proposed));
        self.recv.end_negotiation();
        Ok(())
    }

    /// What a failed write of the proposal means: a peer may refuse a stream before it has read it all.
    fn refusal(self, error: NegotiationError) -> OpenError {
        match error {
            NegotiationError::Reset { code: StreamCode::NotSupported } => {
                OpenError::Negotiation(NegotiationError::NotSupported {
                    protocol: self.protocol().to_string(),
                })
            }
            other => other.into(),
        }
    }
}

/// A stream that the peer opened and whose protocol isn't known yet.
///
/// It holds one of the connection's `max_inbound_negotiations` turns until its negotiation has ended. Dropped without
/// [`InboundStream::negotiate`], it is given up in both directions.
#[derive(Debug)]
pub struct InboundStream {
    stream: Stream,
    listener: Listener,
    /// The answer that is being written.
    saying: Option<Step>,
    turn: Option<NegotiationTurn>,
}

/// What [`InboundStream::try_negotiate`] came to.
#[derive(Debug)]
pub enum Negotiated {
    /// The negotiation has ended, as [`InboundStream::negotiate`] says it.
    Done(Result<(Arc<str>, Stream), NegotiationError>),
    /// The peer has to say more: go on with [`InboundStream::negotiate`].
    Waiting(InboundStream),
}

impl InboundStream {
    pub(crate) fn new(
        quinn: (quinn::SendStream, quinn::RecvStream),
        link: &Arc<Link>,
        turn: Option<NegotiationTurn>,
    ) -> Self {
        link.inbound_opened();
        let stream = Stream::new(quinn, link, None, true);
        Self { stream, listener: Listener::default(), saying: None, turn }
    }

    /// The stream's number on its connection.
    pub fn id(&self) -> u64 {
        self.stream.recv.id()
    }

    /// Gives the stream up unread.
    pub fn reject(self, code: StreamCode) {
        self.stream.abort(code);
    }

    /// Reads what the peer proposes until `supports` says yes to a name, and agrees to it.
    ///
    /// A name that isn't served is answered `na`. Then the peer may propose another one, up to [`negotiate::MAX_PROPOSALS`], unless data lies
    /// behind the refused name: that was meant for the refused protocol, so the stream is given up. So it is when what comes is no proposal, and
    /// after `within`. Data that comes later and happens to be a line with a served name cannot be told from a second proposal.
    ///
    /// # Errors
    /// [`NegotiationError`]; the stream is gone then, and the peer has been told.
    pub async fn negotiate(
        mut self,
        mut supports: impl FnMut(&str) -> bool,
        within: Duration,
    ) -> Result<(Arc<str>, Stream), NegotiationError> {
        let agreed = timeout(within, poll_fn(|cx| self.poll_agree(cx, &mut supports)))
            .await
            .unwrap_or(Err(NegotiationError::TimedOut { after: within }));
        self.conclude(agreed)
    }

    /// The same with what has come so far, without waiting. Mostly the name comes with the stream, so this does it all.
    pub fn try_negotiate(mut self, mut supports: impl FnMut(&str) -> bool) -> Negotiated {
        match self.poll_agree(&mut Context::from_waker(Waker::noop()), &mut supports) {
            Poll::Ready(agreed) => Negotiated::Done(self.conclude(agreed)),
            Poll::Pending => Negotiated::Waiting(self),
        }
    }

    /// Goes on up to the agreed name.
    fn poll_agree(
        &mut self,
        cx: &mut Context<'_>,
        supports: &mut impl FnMut(&str) -> bool,
    ) -> Poll<Result<String, NegotiationError>> {
        loop {
            if let Some(answer) = self.saying.as_mut().and_then(Step::answer) {
                ready!(self.stream.poll_say(cx, answer))?;
            }
            match self.saying.take() {
                Some(Step::Agree(name, _)) => return Poll::Ready(Ok(name)),
                Some(Step::Refuse(name, _)) => {
                    return Poll::Ready(Err(NegotiationError::NotServed { protocol: name }));
                }
                Some(Step::Say(_) | Step::More) | None => {}
            }
            match self.listener.step(&mut *supports)? {
                Step::More => {
                    let chunk = ready!(self.stream.recv.poll_line(cx))?;
                    if chunk.is_empty() {
                        return Poll::Ready(Err(NegotiationError::Ended));
                    }
                    self.listener.push(chunk);
                }
                step => self.saying = Some(step),
            }
        }
    }

    fn conclude(
        self,
        agreed: Result<String, NegotiationError>,
    ) -> Result<(Arc<str>, Stream), NegotiationError> {
        let Self { mut stream, listener, turn: _turn, .. } = self;
        match agreed {
            Ok(name) => {
                let protocol = stream.recv.link().protocol(&name);
                let name = protocol.name.clone();
                stream.set_protocol(protocol);
                stream.recv.hold(listener.into_rest());
                Ok((name, stream))
            }
            Err(error) => Err(stream.give_up(&listener, error)),
        }
    }
}

impl Stream {
    /// A peer that only writes may not want to hear the answer. That is no fault of the stream.
    fn poll_say(&mut self, cx: &mut Context<'_>, answer: &mut Bytes) -> Poll<Result<(), NegotiationError>> {
        Poll::Ready(match ready!(self.send.poll_write_chunks(cx, std::slice::from_mut(answer))) {
            Err(WriteError::Stopped { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }

    /// Ends a stream on which nothing was agreed, so that the peer learns why.
    fn give_up(mut self, listener: &Listener, error: NegotiationError) -> NegotiationError {
        let Some(name) = listener.refused() else {
            let code = match error {
                NegotiationError::TimedOut { .. } => StreamCode::TimedOut,
                NegotiationError::Ended | NegotiationError::Reset { .. } => StreamCode::Cancelled,
                _ => StreamCode::ProtocolViolation,
            };
            self.abort(code);
            return error;
        };
        // The `na` must arrive, so this half ends in order. Whatever came behind the refused name was for its protocol.
        let error = match error {
            NegotiationError::ConnectionLost(cause) => NegotiationError::ConnectionLost(cause),
            NegotiationError::TooManyProposals => NegotiationError::TooManyProposals,
            _ => NegotiationError::NotServed { protocol: printable_name(name) },
        };
        if self.send.finish().is_err() {
            self.send.reset(StreamCode::NotSupported);
        }
        self.recv.stop(StreamCode::NotSupported);
        error
    }
}

impl From<NegotiationError> for OpenError {
    fn from(error: NegotiationError) -> Self {
        match error {
            NegotiationError::ConnectionLost(cause) => Self::ConnectionLost(cause),
            other => Self::Negotiation(other),
        }
    }
}

impl From<WriteError> for NegotiationError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped { code } => Self::Reset { code },
            WriteError::Finished | WriteError::Blocked => Self::Ended,
            WriteError::ConnectionLost(cause) => Self::ConnectionLost(cause),
        }
    }
}

fn check(protocol: &str) -> Result<(), OpenError> {
    if negotiate::is_protocol_name(protocol) {
        Ok(())
    } else {
        Err(OpenError::BadName { name: protocol.chars().take(100).collect() })
    }
}

fn printable_name(name: &str) -> String {
    crate::close::printable(name.as_bytes())
}
