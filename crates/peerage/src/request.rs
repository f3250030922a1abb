//! Requests: one message out, one back, on a stream of its own.
//!
//! On the wire the request is one uvarint-delimited message and the end of the stream; the answer is two such messages: a status,
//! which is empty or an error number as a uvarint, and the answer or the error's text. The stream's protocol name goes out with the request in one
//! flight, so that a request costs one round trip.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use peerage_identity::PeerId;
use peerage_transport::{ReadError, Stream, StreamCode};
use peerage_wire::uvarint;
use tokio::sync::Semaphore;

use crate::channel::Payload;
use crate::error::{RequestError, ServeError};
use crate::peer::Peer;

/// The deadline of a request that names none.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// The largest request and the largest answer, in bytes.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// How long a peer may take to send a request after it opened the stream.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// Requests that one handler works on at once; more wait, each in its peer's stream.
const MAX_CONCURRENT: usize = 1024;
/// An error's text is cut here, in bytes.
const MAX_ERROR_TEXT: usize = 1024;

type Answering = BoxFuture<'static, Result<Bytes, ServeError>>;

/// A registered request handler.
pub(crate) struct Handler {
    answer: Box<dyn Fn(PeerId, Bytes) -> Answering + Send + Sync>,
    slots: Semaphore,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

impl Handler {
    /// Wraps an application's function: decoding before it, encoding after it.
    pub(crate) fn new<Q, A, F, R>(function: F) -> Self
    where
        Q: Payload,
        A: Payload,
        F: Fn(PeerId, Q) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, ServeError>> + Send + 'static,
    {
        let answer = move |peer, bytes| -> Answering {
            match Q::read(bytes) {
                Ok(question) => {
                    let answering = function(peer, question);
                    Box::pin(async move { answering.await.map(|answer| encode(&answer)) })
                }
                Err(detail) => Box::pin(async move { Err(ServeError::new(ServeError::MALFORMED, detail)) }),
            }
        };
        Self { answer: Box::new(answer), slots: Semaphore::new(MAX_CONCURRENT) }
    }

    /// Serves one stream.
    pub(crate) async fn serve(&self, peer: &Peer, stream: Stream) {
        let (mut send, mut recv) = stream.split();
        let Ok(_slot) = self.slots.acquire().await else { return };
        let question = match tokio::time::timeout(READ_DEADLINE, recv.read_frame(MAX_REQUEST_BYTES)).await {
            Ok(Ok(Some(question))) => question,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                tracing::debug!(peer = %peer.id, %error, "a request could not be read");
                return send.reset(StreamCode::ProtocolViolation);
            }
            Err(_) => return send.reset(StreamCode::Cancelled),
        };
        peer.mark_useful();
        let answer = tokio::select! {
            answer = (self.answer)(peer.id, question) => answer,
            // The caller gave up, or is gone: so do we.
            _ = send.stopped() => return,
        };
        let mut pieces = match answer {
            Ok(answer) => [head(0, answer.len()), answer],
            Err(error) => {
                let mut text = error.text;
                text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT));
                [head(error.code.max(1), text.len()), Bytes::from(text)]
            }
        };
        if let Err(error) = send.write_chunks(&mut pieces).await {
            tracing::debug!(peer = %peer.id, %error, "an answer could not be sent");
        }
        let _ = send.finish();
    }
}

/// Sends a request and waits for the answer.
pub(crate) async fn call<Q: Payload, A: Payload>(
    peer: &Peer,
    protocol: &str,
    question: &Q,
    deadline: Duration,
) -> Result<A, RequestError> {
    let length = question.length();
    if length > MAX_REQUEST_BYTES {
        return Err(RequestError::TooLarge { length, most: MAX_REQUEST_BYTES });
    }
    match tokio::time::timeout(deadline, exchange(peer, protocol, question)).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(RequestError::Deadline { peer: peer.id, protocol: protocol.to_owned(), after: deadline })
        }
    }
}

async fn exchange<Q: Payload, A: Payload>(
    peer: &Peer,
    protocol: &str,
    question: &Q,
) -> Result<A, RequestError> {
    let lost = |cause: String| RequestError::Lost { peer: peer.id, protocol: protocol.to_owned(), cause };
    let malformed =
        |detail: String| RequestError::Malformed { peer: peer.id, protocol: protocol.to_owned(), detail };
    let read_error = |error: ReadError| match error {
        ReadError::NotSupported { .. } => {
            RequestError::NotSupported { peer: peer.id, protocol: protocol.to_owned() }
        }
        ReadError::Frame(error) => malformed(error.to_string()),
        other => lost(other.to_string()),
    };
    let mut stream = peer.connection.open_lazy(protocol).await.map_err(|error| lost(error.to_string()))?;
    let mut framed = BytesMut::with_capacity(uvarint::MAX_LEN + question.length());
    uvarint::put(question.length() as u64, &mut framed);
    question.write(&mut framed);
    if let Err(error) = stream.send.write_chunk(framed.freeze()).await {
        // A refusal stops our half: the other half says why.
        stream.recv.negotiated().await.map_err(read_error)?;
        return Err(lost(error.to_string()));
    }
    let _ = stream.send.finish();
    peer.mark_useful();
    let ended = || malformed("the answer ended too early".to_owned());
    let status = stream.recv.read_frame(uvarint::MAX_LEN).await.map_err(read_error)?.ok_or_else(ended)?;
    let body = stream.recv.read_frame(MAX_REQUEST_BYTES).await.map_err(read_error)?.ok_or_else(ended)?;
    read_answer(peer.id, protocol, &status, body)
}

/// What an answer's two messages say.
pub(crate) fn read_answer<A: Payload>(
    peer: PeerId,
    protocol: &str,
    status: &[u8],
    body: Bytes,
) -> Result<A, RequestError> {
    let malformed = |detail: String| RequestError::Malformed { peer, protocol: protocol.to_owned(), detail };
    if status.is_empty() {
        return A::read(body).map_err(malformed);
    }
    match uvarint::take(status).ok().flatten().map(|(code, _)| u32::try_from(code)) {
        Some(Ok(code)) => Err(RequestError::Refused { peer, code, text: error_text(&body) }),
        _ => Err(malformed("its error number cannot be read".to_owned())),
    }
}

/// A peer's words, fit for a terminal and a log: cut, and with spaces in place of control characters.
fn error_text(body: &[u8]) -> String {
    let cut = &body[..body.len().min(MAX_ERROR_TEXT)];
    let mut text = String::from_utf8_lossy(cut).replace(char::is_control, " ");
    // A byte that is no UTF-8 has become three.
    text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT));
    text
}

/// What comes before an answer's body: the status message, empty for a good answer, and the body's length.
fn head(status: u32, length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(3 * uvarint::MAX_LEN);
    if status == 0 {
        uvarint::put(0, &mut out);
    } else {
        uvarint::put(uvarint::len(u64::from(status)) as u64, &mut out);
        uvarint::put(u64::from(status), &mut out);
    }
    uvarint::put(length as u64, &mut out);
    out.freeze()
}

fn encode(payload: &impl Payload) -> Bytes {
    match payload.as_bytes() {
        Some(bytes) => bytes.clone(),
        None => {
            let mut out = BytesMut::with_capacity(payload.length());
            payload.write(&mut out);
            out.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_error_are_cut_and_cannot_move_the_cursor() {
        assert_eq!(error_text("no\n\u{1b}[2Jsuch ü".as_bytes()), "no  [2Jsuch ü");
        assert!(error_text(&[0xff; 2 * MAX_ERROR_TEXT]).len() <= MAX_ERROR_TEXT);
        assert!(error_text("ü".repeat(MAX_ERROR_TEXT).as_bytes()).len() <= MAX_ERROR_TEXT);
    }
}
