//! Files from node to node: `/peerage/file/1` as `proto/file.proto` has it.
//!
//! The opener of a stream offers one file with its size and SHA-256; the other side says from which byte on it wants it; the
//! bytes follow; the other side compares the sum and says under which name it stored them. [`send`] is the one side,
//! [`receive`] the other. Both run over anything that moves chunks ([`ChunkRead`], [`ChunkWrite`]): a node's streams, and
//! pipes in the tests.
//!
//! What the receiver holds to, whatever the sender does:
//! - a name is plain ([`name::PlainName`]) or the file is refused;
//! - bytes go into a hidden partial file, which takes its final name only when it is whole, its sum was compared and it is on
//!   the disk; nothing that is there already is overwritten ([`store`]);
//! - the inbox has a bound in bytes, in files and in transfers, and a silent sender loses its place ([`inbox::Limits`]).

pub(crate) mod inbox;
pub(crate) mod name;
mod pipe;
pub(crate) mod receive;
pub(crate) mod retry;
pub(crate) mod send;
pub(crate) mod source;
mod store;
mod sum;
#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) use sum::Sum;

/// The name under which files are offered.
pub(crate) const PROTOCOL: &str = "/peerage/file/1";

/// The largest message of the protocol (the file's bytes are no message).
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// How much of a file is read from the disk, and written to it, at once.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;

/// Blocks that may wait between the disk and the stream of one transfer.
pub(crate) const BLOCKS_IN_FLIGHT: usize = 4;

/// The side of a stream that brings the other side's bytes.
pub(crate) trait ChunkRead: Send {
    /// The next bytes, at most `most` of them; `None` when the other side has finished.
    fn read_chunk(&mut self, most: usize) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// The side of a stream that takes our bytes.
pub(crate) trait ChunkWrite: Send {
    /// Hands all of `chunk` over, waiting while the other side does not read.
    fn write_chunk(&mut self, chunk: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Says that nothing more comes.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// How far a transfer is; reported as it happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Progress {
    /// The sum of the file is being computed.
    Hashing { done: u64, total: u64 },
    /// Bytes of the file are with the receiver or on the way.
    Sending { done: u64, total: u64 },
    /// The receiver has this much from an earlier attempt.
    Resuming { at: u64, total: u64 },
    /// An attempt broke; the next one starts after the wait.
    Retrying { attempt: u32, of: u32, cause: String, wait_ms: u64 },
}

/// Who is told of progress. Called often and from the task that moves the bytes: it must return at once.
pub(crate) type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);
