//! Answering peers: any number of questions on a stream, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peerage_dht::{Answer, Input, Mode, Query};
use peerage_transport::{Stream, StreamCode};
use peerage_wire::kad;
use tokio::sync::oneshot;

use super::driver::DhtMessage;
use super::{DhtCore, codec};
use crate::peer::Peer;

/// Streams on which one peer may ask at a time; further ones are refused. rust-libp2p allows as many.
pub(crate) const MAX_STREAMS_PER_PEER: usize = 32;
/// A stream on which nothing is asked for so long is ended.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
/// How long a peer may take to read an answer.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// One of the streams that a peer may have.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(used: &'a AtomicUsize) -> Option<Self> {
        let place = Self(used);
        // Dropped when there is none, which gives it back.
        (used.fetch_add(1, Ordering::Relaxed) < MAX_STREAMS_PER_PEER).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers questions until the peer ends the stream.
pub(crate) async fn serve(peer: &Arc<Peer>, core: &DhtCore, mut stream: Stream) {
    let Some(_place) = Place::take(&peer.asked().dht_served) else {
        return stream.abort(StreamCode::Overloaded);
    };
    stream.send.set_priority(super::streams::PRIORITY);
    match answer_all(peer, core, &mut stream).await {
        Ok(()) => {
            let _ = stream.send.finish();
        }
        Err(code) => stream.abort(code),
    }
}

/// What the machine answers. A question that waits for something is taken back when its sender, or the connection, is gone.
async fn answer_to(
    peer: &Arc<Peer>,
    core: &DhtCore,
    stream: &Stream,
    query: &Query,
) -> Result<Answer, StreamCode> {
    let (reply, answer) = oneshot::channel();
    let (id, remote) = (core.next_query(), peer.connection.remote_address().ip());
    let (from, query, extended) = (peer.id, query.clone(), !peer.foreign);
    let waits = matches!(query, Query::GetValue { wait: Some(_), .. });
    let asked = DhtMessage::Asked { id, from, remote, query, extended, reply };
    core.to_driver.send(asked).await.map_err(|_| StreamCode::Cancelled)?;
    if !waits {
        return answer.await.map_err(|_| StreamCode::Overloaded);
    }
    let waiting = core.waiting(Input::Withdrawn { query: id });
    let answered = tokio::select! {
        biased;
        answer = answer => answer.map_err(|_| StreamCode::Overloaded),
        _ = stream.send.stopped() => return Err(StreamCode::Cancelled),
    };
    waiting.answered();
    answered
}

async fn answer_all(peer: &Arc<Peer>, core: &DhtCore, stream: &mut Stream) -> Result<(), StreamCode> {
    let extras = !peer.foreign;
    let mut mode = core.mode.subscribe();
    loop {
        let read = tokio::select! {
            biased;
            // Whoever asks on is told at once, and looks for others.
            _ = mode.wait_for(|mode| *mode == Mode::Client) => return Err(StreamCode::Cancelled),
            read = next_question(peer, stream) => read?,
        };
        let Some(mut message) = read else { return Ok(()) };
        codec::sender_first(&mut message, &peer.id);
        let query = codec::read_question(message, extras).map_err(|error| {
            tracing::debug!(peer = %peer.id, %error, "a question for the DHT makes no sense");
            StreamCode::ProtocolViolation
        })?;
        let answer = answer_to(peer, core, stream, &query).await?;
        let unix = peer.shared.clock.now().unix;
        if let Some(message) = codec::answer(&query, &answer, extras, unix) {
            match tokio::time::timeout(WRITE_TIMEOUT, stream.send.write_frame(&message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(StreamCode::Cancelled),
            }
        }
    }
}

/// What is asked next; `None` at the stream's end, and when that has taken too long, however much of a question is there.
async fn next_question(peer: &Peer, stream: &mut Stream) -> Result<Option<kad::Message>, StreamCode> {
    let reading = stream.recv.read_message::<kad::Message>(codec::MAX_QUESTION_BYTES);
    match tokio::time::timeout(IDLE, reading).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(error)) => {
            tracing::debug!(peer = %peer.id, %error, "a question for the DHT cannot be read");
            Err(StreamCode::ProtocolViolation)
        }
        Err(_) => Ok(None),
    }
}
