//! `/perf/1.0.0` (libp2p perf): how fast bytes pass between two nodes.
//!
//! The client sends the number of bytes that it wants as a big-endian `u64`, uploads, and ends its side; the server reads to that end, then sends
//! exactly so many and ends its own. Served only when the node was built with [`crate::NodeBuilder::serve_perf`], because it lets any peer
//! make this node send as much as it likes.

use std::time::Duration;

use bytes::Bytes;
use peerage_transport::{ReadError, Stream, StreamCode};
use tokio::time::Instant;

use crate::peer::Peer;
use crate::request::RequestError;

/// The protocol's name.
pub(crate) const PROTOCOL: &str = "/perf/1.0.0";
/// Bytes of one write.
const CHUNK: usize = 64 * 1024;
/// A stream on which nothing moves for so long is given up.
const IDLE: Duration = Duration::from_secs(30);

/// How long the two halves of an exchange took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerfTimes {
    /// From the start until all of the upload was handed to the connection and the first byte of the answer, or its end, was there.
    pub upload: Duration,
    /// From then until the end of the answer.
    pub download: Duration,
}

/// Serves one exchange.
pub(crate) async fn serve(peer: &Peer, mut stream: Stream) {
    let mut head = Vec::with_capacity(8);
    loop {
        match tokio::time::timeout(IDLE, stream.recv.read_chunk(CHUNK)).await {
            Ok(Ok(Some(chunk))) => {
                let missing = 8 - head.len();
                head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
            }
            Ok(Ok(None)) => break,
            _ => return stream.abort(StreamCode::Cancelled),
        }
    }
    let Ok(wanted) = head.try_into().map(u64::from_be_bytes) else {
        return stream.abort(StreamCode::ProtocolViolation);
    };
    tracing::debug!(peer = %peer.id, wanted, "serving a perf exchange");
    if send_zeros(&mut stream, wanted).await.is_ok() {
        let _ = tokio::time::timeout(IDLE, stream.send.stopped()).await;
    }
}

/// Uploads and downloads so many bytes.
pub(crate) async fn run(peer: &Peer, upload: u64, download: u64) -> Result<PerfTimes, RequestError> {
    let lost = |cause: String| RequestError::Lost { peer: peer.id, protocol: PROTOCOL.to_owned(), cause };
    let read_error = |error: ReadError| match error {
        ReadError::NotSupported { .. } => {
            RequestError::NotSupported { peer: peer.id, protocol: PROTOCOL.to_owned() }
        }
        other => lost(other.to_string()),
    };
    let start = Instant::now();
    let mut stream = peer.connection.open_lazy(PROTOCOL).await.map_err(|error| lost(error.to_string()))?;
    let sent = async {
        stream
            .send
            .write_chunk(Bytes::copy_from_slice(&download.to_be_bytes()))
            .await
            .map_err(|e| e.to_string())?;
        send_zeros(&mut stream, upload).await
    };
    if let Err(cause) = sent.await {
        // A refusal stops our half: the other half says why.
        stream.recv.negotiated().await.map_err(read_error)?;
        return Err(lost(cause));
    }
    let (mut got, mut uploaded) = (0u64, None);
    while let Some(chunk) = next(&mut stream).await.map_err(&lost)?.map_err(read_error)? {
        uploaded.get_or_insert_with(|| start.elapsed());
        got += chunk.len() as u64;
    }
    let (all, upload) = (start.elapsed(), uploaded.unwrap_or_else(|| start.elapsed()));
    if got == download {
        return Ok(PerfTimes { upload, download: all.saturating_sub(upload) });
    }
    let detail = format!("{got} bytes came where {download} were asked for");
    Err(RequestError::Malformed { peer: peer.id, protocol: PROTOCOL.to_owned(), detail })
}

async fn next(stream: &mut Stream) -> Result<Result<Option<Bytes>, ReadError>, String> {
    let next = tokio::time::timeout(IDLE, stream.recv.read_chunk(usize::MAX)).await;
    next.map_err(|_| format!("nothing came for {IDLE:?}"))
}

async fn send_zeros(stream: &mut Stream, mut count: u64) -> Result<(), String> {
    let zeros = Bytes::from_static(&[0; CHUNK]);
    while count > 0 {
        let part = zeros.slice(..usize::try_from(count).unwrap_or(CHUNK).min(CHUNK));
        count -= part.len() as u64;
        let written = tokio::time::timeout(IDLE, stream.send.write_chunk(part)).await;
        written.map_err(|_| format!("nothing was taken for {IDLE:?}"))?.map_err(|error| error.to_string())?;
    }
    stream.send.finish().map_err(|error| error.to_string())
}
