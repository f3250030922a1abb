//! `/perf/1.0.0` (libp2p perf): how fast bytes pass between two nodes.
//!
//! The client sends the number of bytes that it wants as a big-endian `u64`, uploads, and ends its side; the server reads to that end, then sends
//! exactly so many and ends its own. Served only when the node was built with [`crate::NodeBuilder::serve_perf`], because it lets any peer
//! make this node send; what it may come to is bounded by [`crate::BenchLimits`], of which an exchange begins a run.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use peerage_transport::{ReadError, Stream, StreamCode};
use tokio::time::Instant;

use crate::bench::Ledger;
use crate::peer::Peer;
use crate::request::RequestError;

/// The protocol's name.
pub(crate) const PROTOCOL: &str = "/perf/1.0.0";
/// Bytes of one write.
const CHUNK: usize = 64 * 1024;
/// A stream on which nothing moves for so long is given up.
pub(crate) const IDLE: Duration = Duration::from_secs(30);
/// A connection that moves less than this in [`IDLE`] is only kept alive, in bytes.
const LEAST_MOVED: u64 = 16 * 1024;

/// How long the two halves of an exchange took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerfTimes {
    /// From the start until all of the upload was handed to the connection and the first byte of the answer, or its end, was there.
    pub upload: Duration,
    /// From then until the end of the answer.
    pub download: Duration,
    /// Bytes that were sent; fewer than were meant to be when the time was up.
    pub uploaded: u64,
    /// Bytes that came; fewer than were asked for when the time was up.
    pub downloaded: u64,
}

/// Serves one exchange.
pub(crate) async fn serve(peer: &Peer, ledger: &Ledger, mut stream: Stream) {
    if let Err(code) = exchange(peer, ledger, &mut stream).await {
        stream.abort(code);
    }
}

async fn exchange(peer: &Peer, ledger: &Ledger, stream: &mut Stream) -> Result<(), StreamCode> {
    let charge = |items, bytes| ledger.charge(peer.id, items, bytes).map_err(|_| StreamCode::Overloaded);
    ledger.begin(peer.id).map_err(|_| StreamCode::Overloaded)?;
    charge(1, 0)?;
    let mut head = Vec::with_capacity(8);
    loop {
        match tokio::time::timeout(IDLE, stream.recv.read_chunk(CHUNK)).await {
            Ok(Ok(Some(chunk))) => {
                charge(0, chunk.len() as u64)?;
                let missing = 8 - head.len();
                head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
            }
            Ok(Ok(None)) => break,
            Ok(Err(_)) => return Err(StreamCode::Cancelled),
            Err(_) => return Err(StreamCode::TimedOut),
        }
    }
    let wanted = head.try_into().map(u64::from_be_bytes).map_err(|_| StreamCode::ProtocolViolation)?;
    tracing::debug!(peer = %peer.id, wanted, "serving a perf exchange");
    let mut left = wanted;
    while let Some(part) = zeros(&mut left) {
        charge(0, part.len() as u64)?;
        write(stream, part).await.map_err(|_| StreamCode::Cancelled)?;
    }
    stream.send.finish().map_err(|_| StreamCode::Cancelled)?;
    let _ = tokio::time::timeout(IDLE, stream.send.stopped()).await;
    Ok(())
}

/// Uploads and downloads so many bytes, and gives each of the two no more than `within`.
pub(crate) async fn run(
    peer: &Peer,
    upload: u64,
    download: u64,
    within: Duration,
    mut on_progress: impl FnMut(u64) + Send,
) -> Result<PerfTimes, RequestError> {
    let lost = |cause: String| RequestError::Lost { peer: peer.id, protocol: PROTOCOL.to_owned(), cause };
    let read_error = |error: ReadError| match error {
        ReadError::NotSupported { .. } => {
            RequestError::NotSupported { peer: peer.id, protocol: PROTOCOL.to_owned() }
        }
        other => lost(other.to_string()),
    };
    let start = Instant::now();
    let mut stream = peer.connection.open_lazy(PROTOCOL).await.map_err(|error| lost(error.to_string()))?;
    let mut unsent = upload;
    let sent = async {
        write(&mut stream, Bytes::copy_from_slice(&download.to_be_bytes())).await?;
        while start.elapsed() < within
            && let Some(part) = zeros(&mut unsent)
        {
            write(&mut stream, part).await?;
            on_progress(upload - unsent);
        }
        stream.send.finish().map_err(|error| error.to_string())
    };
    if let Err(cause) = sent.await {
        // A refusal stops our half: the other half says why.
        let told = tokio::time::timeout(IDLE, stream.recv.negotiated()).await;
        told.unwrap_or(Ok(())).map_err(read_error)?;
        return Err(lost(cause));
    }
    let uploaded = upload - unsent;
    // What was handed over may be on its way for long yet.
    let mut next = while_moving(peer, stream.recv.read_chunk(usize::MAX)).await.map_err(&lost)?;
    let (uploading, mut got) = (start.elapsed(), 0u64);
    while let Some(chunk) = next.map_err(read_error)? {
        got += chunk.len() as u64;
        on_progress(uploaded + got);
        if got > download {
            let detail = format!("more bytes came than the {download} that were asked for");
            return Err(RequestError::Malformed { peer: peer.id, protocol: PROTOCOL.to_owned(), detail });
        }
        if got < download && start.elapsed() - uploading >= within {
            stream.recv.stop(StreamCode::Cancelled);
            break;
        }
        let reading = tokio::time::timeout(IDLE, stream.recv.read_chunk(usize::MAX)).await;
        next = reading.map_err(|_| lost(format!("nothing came for {IDLE:?}, after {got} bytes")))?;
    }
    let downloading = start.elapsed() - uploading;
    if got == download || downloading >= within {
        return Ok(PerfTimes { upload: uploading, download: downloading, uploaded, downloaded: got });
    }
    let detail = format!("{got} bytes came where {download} were asked for");
    Err(RequestError::Malformed { peer: peer.id, protocol: PROTOCOL.to_owned(), detail })
}

/// Waits as long as the connection moves more than what keeps it alive.
async fn while_moving<T>(peer: &Peer, step: impl Future<Output = T>) -> Result<T, String> {
    let mut step = pin!(step);
    let mut moved = peer.connection.stats().sent_bytes;
    loop {
        match tokio::time::timeout(IDLE, &mut step).await {
            Ok(done) => return Ok(done),
            Err(_) => {
                let now = peer.connection.stats().sent_bytes;
                if now < moved + LEAST_MOVED {
                    return Err(format!("no answer came within {IDLE:?}"));
                }
                moved = now;
            }
        }
    }
}

async fn write(stream: &mut Stream, part: Bytes) -> Result<(), String> {
    let written = tokio::time::timeout(IDLE, stream.send.write_chunk(part)).await;
    written.map_err(|_| format!("nothing was taken for {IDLE:?}"))?.map_err(|error| error.to_string())
}

/// The next part of so many zeros.
fn zeros(left: &mut u64) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(CHUNK).min(CHUNK);
    *left -= length as u64;
    (length > 0).then(|| Bytes::from_static(&[0; CHUNK]).slice(..length))
}
