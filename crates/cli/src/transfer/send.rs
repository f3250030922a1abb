//! The sending side of one transfer: one attempt over one stream.

use std::time::Duration;

use peerage_wire::file::{Done, Offer, Reply, done, reply};

use super::pipe::{PipeError, Reader, Writer};
use super::source::{Source, SourceError};
use super::{ChunkRead, ChunkWrite, OnProgress, Progress};

/// How long the other side may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For one block of the file to be taken.
    pub(crate) block: Duration,
    /// For an answer. The receiver sums up what it has before it answers an offer, and syncs the file to the disk at the end.
    pub(crate) answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { block: Duration::from_secs(60), answer: Duration::from_secs(600) }
    }
}

/// A file that is with the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its name there.
    pub(crate) stored_as: String,
    /// Bytes that were moved by the last attempt; the receiver had the others.
    pub(crate) moved: u64,
}

/// Why an attempt did not put the file into the other side's inbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SendError {
    /// The file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The stream: another attempt may do.
    #[error(transparent)]
    Pipe(#[from] PipeError),
    /// The receiver does not want it.
    #[error("the receiver refuses the file: {0}")]
    Refused(String),
    /// The receiver could not store it.
    #[error("the receiver did not store the file: {reason}")]
    Failed {
        /// Its words.
        reason: String,
        /// Where this attempt began: at 0 it was not an earlier attempt's bytes that were wrong.
        offset: u64,
    },
    /// There is no way to the receiver.
    #[error("{0}")]
    Unreachable(String),
    /// The receiver can be reached and does not take files.
    #[error("{0}")]
    NotSupported(String),
}

/// Offers the file over one stream and moves what the receiver asks for. `at` is told from which byte on.
///
/// # Errors
/// Any [`SendError`] but the last two.
pub(crate) async fn send<R: ChunkRead, W: ChunkWrite>(
    source: &Source,
    (read, write): (R, W),
    patience: Patience,
    progress: OnProgress<'_>,
    at: &mut Option<u64>,
) -> Result<Sent, SendError> {
    let (mut read, mut write) = (Reader::new(read), Writer::new(write, patience.block));
    let sha256 = source.sum().to_bytes();
    let offer = Offer { name: source.name().as_str().into(), size: source.size(), sha256 };
    if let Err(error) = write.message(&offer).await {
        // Who stops our half says why on the other one.
        return Err(refusal(&mut read).await.unwrap_or(error.into()));
    }
    let offset = match read.message::<Reply>(patience.answer).await?.answer {
        Some(reply::Answer::Offset(offset)) if offset <= source.size() => offset,
        Some(reply::Answer::Refused(reason)) => return Err(SendError::Refused(reason)),
        _ => return Err(SendError::Refused("its answer makes no sense".into())),
    };
    *at = Some(offset);
    if offset > 0 {
        progress(Progress::Resuming { at: offset, total: source.size() });
    }
    if let Err(error) = pump(source, offset, &mut write, progress).await {
        let SendError::Pipe(error) = error else { return Err(error) };
        return Err(verdict(source, &mut read, offset, LAST_WORDS).await.err().unwrap_or(error.into()));
    }
    let stored_as = verdict(source, &mut read, offset, patience.answer).await?;
    Ok(Sent { stored_as, moved: source.size() - offset })
}

/// How long a receiver that broke off has to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

async fn pump<W: ChunkWrite>(
    source: &Source,
    offset: u64,
    write: &mut Writer<W>,
    progress: OnProgress<'_>,
) -> Result<(), SendError> {
    let (mut done, total) = (offset, source.size());
    progress(Progress::Sending { done, total });
    let mut blocks = source.blocks(offset);
    while let Some(block) = blocks.recv().await {
        let block = block?;
        let length = block.len() as u64;
        write.bytes(block).await?;
        done += length;
        progress(Progress::Sending { done, total });
    }
    Ok(write.finish().await?)
}

/// What the receiver came to. A failure after which the file turns out to be another one is ours.
async fn verdict<R: ChunkRead>(
    source: &Source,
    read: &mut Reader<R>,
    offset: u64,
    patience: Duration,
) -> Result<String, SendError> {
    match read.message::<Done>(patience).await?.outcome {
        Some(done::Outcome::StoredAs(name)) => Ok(name),
        Some(done::Outcome::Failed(_)) if !source.is_unchanged().await => Err(source.changed().into()),
        Some(done::Outcome::Failed(reason)) => Err(SendError::Failed { reason, offset }),
        None => Err(SendError::Failed { reason: "its answer makes no sense".into(), offset }),
    }
}

async fn refusal<R: ChunkRead>(read: &mut Reader<R>) -> Option<SendError> {
    match read.message::<Reply>(LAST_WORDS).await.ok()?.answer? {
        reply::Answer::Refused(reason) => Some(SendError::Refused(reason)),
        reply::Answer::Offset(_) => None,
    }
}
