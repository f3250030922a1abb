//! `/ipfs/ping/1.0.0` (libp2p ping): 32 random bytes, echoed.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use peerage_transport::{ReadError, Stream};

use crate::error::RequestError;
use crate::peer::Peer;

/// The protocol's name.
pub(crate) const PROTOCOL: &str = "/ipfs/ping/1.0.0";
/// Bytes of one ping.
const SIZE: usize = 32;
/// How long we wait for the echo.
const DEADLINE: Duration = Duration::from_secs(10);
/// A ping stream on which nothing comes for so long is given up.
const IDLE: Duration = Duration::from_secs(120);

/// Echoes pings until the peer ends the stream. A peer's third stream at once is refused.
pub(crate) async fn serve(peer: &Peer, mut stream: Stream) {
    let Ok(_slot) = peer.pings.try_acquire() else { return };
    let mut pending = BytesMut::with_capacity(SIZE);
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(IDLE, stream.recv.read_chunk(4096)).await {
        pending.extend_from_slice(&chunk);
        let whole = pending.len() / SIZE * SIZE;
        if whole > 0 && stream.send.write_chunk(pending.split_to(whole).freeze()).await.is_err() {
            return;
        }
    }
    let _ = stream.send.finish();
}

/// Sends one ping and measures the time until its echo.
pub(crate) async fn ping(peer: &Peer) -> Result<Duration, RequestError> {
    match tokio::time::timeout(DEADLINE, exchange(peer)).await {
        Ok(result) => result,
        Err(_) => {
            Err(RequestError::Deadline { peer: peer.id, protocol: PROTOCOL.to_owned(), after: DEADLINE })
        }
    }
}

async fn exchange(peer: &Peer) -> Result<Duration, RequestError> {
    let lost = |cause: String| RequestError::Lost { peer: peer.id, protocol: PROTOCOL.to_owned(), cause };
    let read_error = |error: ReadError| match error {
        ReadError::NotSupported { .. } => {
            RequestError::NotSupported { peer: peer.id, protocol: PROTOCOL.to_owned() }
        }
        other => lost(other.to_string()),
    };
    let mut payload = [0; SIZE];
    getrandom::fill(&mut payload).map_err(|error| lost(format!("no randomness: {error}")))?;
    let mut stream = peer.connection.open(PROTOCOL).await.map_err(|error| lost(error.to_string()))?;
    stream.recv.negotiated().await.map_err(read_error)?;
    let start = Instant::now();
    let sent = stream.send.write_chunk(Bytes::copy_from_slice(&payload)).await;
    sent.map_err(|error| lost(error.to_string()))?;
    let mut echo = BytesMut::with_capacity(SIZE);
    while echo.len() < SIZE {
        match stream.recv.read_chunk(SIZE - echo.len()).await.map_err(read_error)? {
            Some(chunk) => echo.extend_from_slice(&chunk),
            None => return Err(lost("the stream ended before the echo".to_owned())),
        }
    }
    let took = start.elapsed();
    let _ = stream.send.finish();
    if echo == payload[..] {
        Ok(took)
    } else {
        let detail = "the echo differs from what was sent".to_owned();
        Err(RequestError::Malformed { peer: peer.id, protocol: PROTOCOL.to_owned(), detail })
    }
}
