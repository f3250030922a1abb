//! `/ipfs/ping/1.0.0` (libp2p ping): 32 random bytes, echoed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerage_transport::{ReadError, Stream};
use tokio::time::Instant;

use crate::peer::Peer;
use crate::request::RequestError;

/// The protocol's name.
pub(crate) const PROTOCOL: &str = "/ipfs/ping/1.0.0";
/// Bytes of one ping.
const SIZE: usize = 32;
/// A ping stream on which nothing comes for so long is given up.
pub(crate) const IDLE: Duration = Duration::from_secs(120);

/// Echoes pings until the peer ends the stream. A peer's third stream at once is refused.
pub(crate) async fn serve(peer: &Peer, mut stream: Stream) {
    let Ok(_slot) = peer.asked().pings.try_acquire() else { return };
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
///
/// One stream serves all pings to a peer. A peer may give it up when it was idle; then a new one is opened.
pub(crate) async fn ping(peer: &Peer) -> Result<Duration, RequestError> {
    let pinging = async {
        let mut kept = peer.asked().ping_stream.lock().await;
        if let Some(stream) = kept.take()
            && let Ok((stream, took)) = once(peer, *stream).await
        {
            *kept = Some(Box::new(stream));
            return Ok(took);
        }
        let (stream, took) = once(peer, open(peer).await?).await?;
        *kept = Some(Box::new(stream));
        Ok(took)
    };
    let after = peer.shared.limits.ping_timeout;
    match tokio::time::timeout(after, pinging).await {
        Ok(result) => result,
        Err(_) => Err(RequestError::Deadline { peer: peer.id, protocol: PROTOCOL.to_owned(), after }),
    }
}

async fn open(peer: &Peer) -> Result<Stream, RequestError> {
    let mut stream = peer.connection.open(PROTOCOL).await.map_err(|error| lost(peer, error.to_string()))?;
    match stream.recv.negotiated().await {
        Ok(()) => Ok(stream),
        Err(ReadError::NotSupported { .. }) => {
            Err(RequestError::NotSupported { peer: peer.id, protocol: PROTOCOL.to_owned() })
        }
        Err(error) => Err(lost(peer, error.to_string())),
    }
}

async fn once(peer: &Peer, mut stream: Stream) -> Result<(Stream, Duration), RequestError> {
    let mut payload = [0; SIZE];
    let drawn = peer.shared.environment.entropy(&mut payload);
    drawn.map_err(|error| lost(peer, format!("no randomness: {error}")))?;
    let start = Instant::now();
    let sent = stream.send.write_chunk(Bytes::copy_from_slice(&payload)).await;
    sent.map_err(|error| lost(peer, error.to_string()))?;
    let mut echo = BytesMut::with_capacity(SIZE);
    while echo.len() < SIZE {
        let chunk = stream.recv.read_chunk(SIZE - echo.len()).await;
        match chunk.map_err(|error| lost(peer, error.to_string()))? {
            Some(chunk) => echo.extend_from_slice(&chunk),
            None => return Err(lost(peer, "the stream ended before the echo".to_owned())),
        }
    }
    let took = start.elapsed();
    if echo == payload[..] {
        return Ok((stream, took));
    }
    let detail = "the echo differs from what was sent".to_owned();
    Err(RequestError::Malformed { peer: peer.id, protocol: PROTOCOL.to_owned(), detail })
}

fn lost(peer: &Peer, cause: String) -> RequestError {
    RequestError::Lost { peer: peer.id, protocol: PROTOCOL.to_owned(), cause }
}
