//! quinn's streams, read and written as each form does it.

use bytes::Bytes;
use peerage_bench_peer::{Io, Outcome, Stream};
use quinn::{RecvStream, SendStream};
use tokio::io::{Join, join};

/// Chunks that are taken at once.
const AT_ONCE: usize = 32;

/// A stream in both directions.
pub(crate) enum RawStream {
    /// Copied in and out: what a user of `read` and `write_all` has.
    Copied(Io<Join<RecvStream, SendStream>>),
    /// Handed over whole and taken as it comes.
    Chunks {
        /// To the other side.
        send: SendStream,
        /// From it.
        recv: RecvStream,
        /// What was read last.
        last: Bytes,
    },
}

impl RawStream {
    pub(super) fn new(send: SendStream, recv: RecvStream, chunks: bool) -> Self {
        if chunks {
            Self::Chunks { send, recv, last: Bytes::new() }
        } else {
            Self::Copied(Io::new(join(recv, send)))
        }
    }
}

impl Stream for RawStream {
    async fn write(&mut self, bytes: Bytes) -> Outcome<()> {
        match self {
            Self::Copied(io) => io.write(bytes).await,
            Self::Chunks { send, .. } => Ok(send.write_chunk(bytes).await?),
        }
    }

    async fn finish(&mut self) -> Outcome<()> {
        match self {
            Self::Copied(io) => io.finish().await,
            Self::Chunks { send, .. } => Ok(send.finish()?),
        }
    }

    async fn read(&mut self, most: usize) -> Outcome<&[u8]> {
        match self {
            Self::Copied(io) => io.read(most).await,
            Self::Chunks { recv, last, .. } => {
                *last = recv.read_chunk(most, true).await?.map(|chunk| chunk.bytes).unwrap_or_default();
                Ok(last)
            }
        }
    }

    async fn drain(&mut self) -> Outcome<u64> {
        match self {
            Self::Copied(io) => io.drain().await,
            Self::Chunks { recv, .. } => {
                let (mut total, mut chunks) = (0, [const { Bytes::new() }; AT_ONCE]);
                while let Some(count) = recv.read_chunks(&mut chunks).await? {
                    total += chunks[..count].iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                }
                Ok(total)
            }
        }
    }
}
