//! The streams on which peers are asked: kept for the next question, and taken away when they have been idle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peerage_dht::Class;
use peerage_identity::PeerId;
use peerage_transport::{NegotiationError, OpenError, ReadError, Stream, StreamCode, WriteError};
use peerage_wire::frame::FrameError;
use peerage_wire::kad;
use tokio::time::Instant;

use super::codec::MAX_ANSWER_BYTES;
use crate::peer::Peer;

/// Streams to one peer that are kept for the next question.
pub(crate) const MAX_IDLE: usize = 4;
/// How long one is kept. go-libp2p closes its side after a minute.
pub(crate) const IDLE_FOR: Duration = Duration::from_secs(30);
/// How long a peer may take to end a stream that was ended.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(1);
/// The priority of streams on which peers ask: behind ordinary channels (0), before bulk (-100).
pub(crate) const PRIORITY: i32 = -4;

/// The priority of a question: whoever waits for an answer goes before maintenance.
pub(crate) fn priority(class: Class) -> i32 {
    match class {
        Class::Interactive => PRIORITY + 2,
        Class::Normal => PRIORITY,
        Class::Frugal => PRIORITY - 2,
    }
}

/// A stream without a question under way.
#[derive(Debug)]
pub(crate) struct Idle {
    stream: Stream,
    since: Instant,
}

/// What is to be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) message: &'a kad::Message,
    /// Whether there is an answer to it.
    pub(crate) answered: bool,
    /// Says when it is out.
    pub(crate) sent: &'a AtomicBool,
}

/// An answer, and how long it took from the question on.
#[derive(Debug)]
pub(crate) struct Answered {
    /// `None` for questions that have none.
    pub(crate) message: Option<kad::Message>,
    /// From the first byte of the question to the last of the answer; where there is none, from its end to the word that the peer has it.
    pub(crate) took: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The peer serves no DHT under this name.
    #[error("{peer} does not serve {protocol}")]
    NotSupported { peer: PeerId, protocol: String },
    /// What came is no answer.
    #[error("{peer} answered with what is no message of {protocol}: {detail}")]
    Malformed { peer: PeerId, protocol: String, detail: String },
    /// The stream or the connection ended.
    #[error("{peer} gave no answer: {cause}")]
    Lost { peer: PeerId, cause: String },
}

/// Asks a connected peer, under the first of the names that it serves. Dropping the future gives the question up, and its stream.
pub(crate) async fn ask(
    peer: &Peer,
    names: &[&str],
    question: &Question<'_>,
    priority: i32,
) -> Result<Answered, AskError> {
    while let Some(stream) = take_idle(peer, names) {
        stream.send.set_priority(priority);
        match exchange(peer, stream, question).await {
            Ok((stream, answer)) => {
                put_away(peer, stream, question.answered).await;
                return Ok(answer);
            }
            // The peer may have given it up meanwhile, as it may at any time: then a new one is opened.
            Err(AskError::Lost { .. }) => {}
            // What is no answer is none on another stream either.
            Err(error) => return Err(error),
        }
    }
    let stream = open(peer, names).await?;
    stream.send.set_priority(priority);
    let (stream, answer) = exchange(peer, stream, question).await?;
    put_away(peer, stream, question.answered).await;
    Ok(answer)
}

/// A new stream. One name goes out with the question; of several the peer chooses before.
async fn open(peer: &Peer, names: &[&str]) -> Result<Stream, AskError> {
    let opened = match names {
        [name] => peer.connection.open_lazy(name).await,
        names => peer.connection.open_any(names).await.map(|(_, stream)| stream),
    };
    opened.map_err(|error| match error {
        OpenError::Negotiation(NegotiationError::NotSupported { protocol }) => {
            AskError::NotSupported { peer: peer.id, protocol }
        }
        error => lost(peer, &error),
    })
}

/// Keeps a stream whose question was answered. One whose question has no answer is ended by now, and read to its end: py-libp2p answers all the same, and the
/// next question would be given that.
async fn put_away(peer: &Peer, mut stream: Stream, answered: bool) {
    if answered {
        return keep(peer, stream);
    }
    let rest = async { while let Ok(Some(_)) = stream.recv.read_chunk(MAX_ANSWER_BYTES).await {} };
    // It has the question; a peer that never ends its side is not waited for.
    let _ = tokio::time::timeout(END_WITHIN, rest).await;
}

async fn exchange(
    peer: &Peer,
    mut stream: Stream,
    question: &Question<'_>,
) -> Result<(Stream, Answered), AskError> {
    let start = Instant::now();
    let written = stream.send.write_frame(question.message).await;
    written.map_err(|error: WriteError| lost(peer, &error))?;
    question.sent.store(true, Ordering::Relaxed);
    if !question.answered {
        let took = deliver(peer, &mut stream).await?;
        return Ok((stream, Answered { message: None, took }));
    }
    match stream.recv.read_message::<kad::Message>(MAX_ANSWER_BYTES).await {
        Ok(Some(message)) => Ok((stream, Answered { message: Some(message), took: start.elapsed() })),
        Ok(None) => Err(lost(peer, &"the stream ended before the answer")),
        Err(error) => Err(read_failed(peer, &stream, error)),
    }
}

/// Ends a stream whose question has no answer, and waits until the peer's side of the connection has all of it: only that shows that the peer is there. How long it took from
/// the end on, which is a round trip.
async fn deliver(peer: &Peer, stream: &mut Stream) -> Result<Duration, AskError> {
    // On a new stream the peer says first whether it knows the name.
    stream.recv.negotiated().await.map_err(|error| read_failed(peer, stream, error))?;
    let start = Instant::now();
    stream.send.finish().map_err(|error| lost(peer, &error))?;
    match stream.send.stopped().await {
        Ok(None) => Ok(start.elapsed()),
        Ok(Some(_)) => Err(lost(peer, &"the peer did not take the question")),
        Err(cause) => Err(lost(peer, &cause)),
    }
}

fn read_failed(peer: &Peer, stream: &Stream, error: ReadError) -> AskError {
    let protocol = stream.protocol().to_string();
    match error {
        ReadError::NotSupported { .. } => AskError::NotSupported { peer: peer.id, protocol },
        ReadError::Frame(FrameError::Truncated) => lost(peer, &error),
        ReadError::Frame(_) => AskError::Malformed { peer: peer.id, protocol, detail: error.to_string() },
        error => lost(peer, &error),
    }
}

fn lost(peer: &Peer, cause: &dyn ToString) -> AskError {
    AskError::Lost { peer: peer.id, cause: cause.to_string() }
}

fn take_idle(peer: &Peer, names: &[&str]) -> Option<Stream> {
    let mut idle = peer.asked().dht_streams();
    idle.retain(|kept| kept.since.elapsed() < IDLE_FOR);
    let at = idle.iter().rposition(|kept| names.contains(&&**kept.stream.protocol()))?;
    Some(idle.swap_remove(at).stream)
}

fn keep(peer: &Peer, stream: Stream) {
    let mut idle = peer.asked().dht_streams();
    idle.retain(|kept| kept.since.elapsed() < IDLE_FOR);
    if idle.len() < MAX_IDLE {
        idle.push(Idle { stream, since: Instant::now() });
    } else {
        drop(idle);
        stream.abort(StreamCode::Cancelled);
    }
}

/// Gives up the streams to a peer that have been idle for long enough. Says how many are left.
pub(crate) fn trim(peer: &Peer) -> usize {
    let Some(asked) = peer.if_asked() else { return 0 };
    let mut idle = asked.dht_streams();
    idle.retain(|kept| kept.since.elapsed() < IDLE_FOR);
    idle.len()
}
