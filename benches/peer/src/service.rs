//! The server's half of the streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::sleep;

use crate::stream::{Kind, Stream};
use crate::{Outcome, SHORT, SMALL};

/// For so long nothing comes before what is missing counts as lost.
const QUIET: Duration = Duration::from_secs(2);
/// How often is looked whether all have come.
const LOOK: Duration = Duration::from_millis(1);

/// Counts messages that came on streams of their own.
#[derive(Debug)]
pub struct Arrivals {
    start: Instant,
    count: AtomicU64,
    /// Nanoseconds from the start to the last one.
    last: AtomicU64,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { start: Instant::now(), count: AtomicU64::new(0), last: AtomicU64::new(0) }
    }
}

impl Arrivals {
    /// One has come.
    pub fn note(&self) {
        self.last.fetch_max(self.start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until so many have come, or none for a while: how many have, and how long ago the last one did.
    pub async fn wait_for(&self, wanted: u64) -> (u64, Duration) {
        let (mut seen, mut quiet_since) = (0, Instant::now());
        loop {
            let count = self.count.load(Ordering::Relaxed);
            if count != seen {
                (seen, quiet_since) = (count, Instant::now());
            }
            if count >= wanted || quiet_since.elapsed() >= QUIET {
                let last = Duration::from_nanos(self.last.load(Ordering::Relaxed));
                return (count, self.start.elapsed().saturating_sub(last));
            }
            sleep(LOOK).await;
        }
    }
}

/// Does what a stream asks for. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// Messages that came on streams of their own.
    pub arrivals: Arc<Arrivals>,
}

impl Service {
    /// Serves one stream to its end.
    ///
    /// # Errors
    /// The stream broke, or asks for nothing that is known.
    pub async fn serve(&self, mut stream: impl Stream) -> Outcome<()> {
        let first = Bytes::copy_from_slice(stream.read(SMALL).await?);
        let Some(kind) = first.first() else { return Ok(()) };
        match Kind::of(*kind) {
            Some(Kind::Bulk) => {
                let total = first.len() as u64 + stream.drain().await?;
                stream.write(Bytes::copy_from_slice(&total.to_be_bytes())).await?;
                stream.finish().await
            }
            Some(Kind::Echo) => echo(stream, first).await,
            Some(Kind::Request) => {
                let question = fill(&mut stream, first, SHORT).await?;
                stream.write(question).await?;
                stream.finish().await
            }
            Some(Kind::OneWay) => {
                let first = fill(&mut stream, first, SMALL).await?;
                if first.len() == SMALL {
                    self.arrivals.note();
                }
                Ok(())
            }
            Some(Kind::Arrived) => {
                let question = fill(&mut stream, first, 9).await?;
                let wanted = question[1..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                let (count, since) = self.arrivals.wait_for(wanted).await;
                let answer = [count.to_be_bytes(), (since.as_nanos() as u64).to_be_bytes()].concat();
                stream.write(answer.into()).await?;
                stream.finish().await
            }
            None => Err(format!("a stream begins with {kind}, which is no kind of stream").into()),
        }
    }
}

/// Reads on until there are so many bytes, or the stream has ended.
async fn fill(stream: &mut impl Stream, first: Bytes, length: usize) -> Outcome<Bytes> {
    if first.len() >= length {
        return Ok(first);
    }
    let mut bytes = BytesMut::from(first);
    while bytes.len() < length {
        let part = stream.read(length - bytes.len()).await?;
        if part.is_empty() {
            break;
        }
        bytes.extend_from_slice(part);
    }
    Ok(bytes.freeze())
}

async fn echo(mut stream: impl Stream, mut next: Bytes) -> Outcome<()> {
    while !next.is_empty() {
        stream.write(next).await?;
        next = Bytes::copy_from_slice(stream.read(SMALL).await?);
    }
    stream.finish().await
}
