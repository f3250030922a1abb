//! The file that is sent: opened, summed up, and watched for changes while it is on its way.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::name::PlainName;
use super::{BLOCK_BYTES, BLOCKS_IN_FLIGHT, OnProgress, Progress, Sum, sum};

/// Why a file can't be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SourceError {
    /// There is none.
    #[error("there is no file {} (correct the path)", .0.display())]
    NotFound(PathBuf),
    /// It is a folder, a pipe or a device.
    #[error("{} is not a regular file: only files are sent (pack a folder first)", .0.display())]
    NotAFile(PathBuf),
    /// The system refused to read it.
    #[error("the file {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody writes to it.
    #[error("the file {} changed while it was being sent: send it again when nothing writes to it", .0.display())]
    Changed(PathBuf),
}

/// A file that was summed up and is ready to be offered.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    path: PathBuf,
    name: PlainName,
    sum: Sum,
    stamp: Stamp,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Source {
    /// Opens the file and computes its sum, reporting [`Progress::Hashing`].
    ///
    /// # Errors
    /// Any [`SourceError`].
    pub(crate) async fn prepare(path: &Path, progress: OnProgress<'_>) -> Result<Self, SourceError> {
        let (told, mut steps) = mpsc::channel(BLOCKS_IN_FLIGHT);
        let owned = path.to_owned();
        let work = tokio::task::spawn_blocking(move || {
            let (mut file, stamp) = open(&owned)?;
            // The other end is dropped when nobody waits for the sum any more.
            let each = |done| told.blocking_send((done, stamp.size)).is_ok();
            let sum = sum_of(&owned, &mut file, stamp, each)?;
            Ok(Self { name: PlainName::of_path(&owned), path: owned, sum, stamp })
        });
        while let Some((done, total)) = steps.recv().await {
            progress(Progress::Hashing { done, total });
        }
        work.await.unwrap_or_else(|error| Err(unreadable(path, io::Error::other(error))))
    }

    /// The name under which it is offered.
    pub(crate) fn name(&self) -> &PlainName {
        &self.name
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.stamp.size
    }

    /// The sum of its content.
    pub(crate) fn sum(&self) -> &Sum {
        &self.sum
    }

    /// The bytes from `offset` on, read ahead of the taker by a bounded number of blocks. After the last one the channel says
    /// whether the file is still what it was.
    pub(super) fn blocks(&self, offset: u64) -> mpsc::Receiver<Result<Bytes, SourceError>> {
        let (to_stream, blocks) = mpsc::channel(BLOCKS_IN_FLIGHT);
        let source = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = source.read(offset, &to_stream) {
                let _ = to_stream.blocking_send(Err(error));
            }
        });
        blocks
    }

    /// The error that says that the file is not what it was.
    pub(super) fn changed(&self) -> SourceError {
        SourceError::Changed(self.path.clone())
    }

    /// Reads the whole file again and says whether it is still what was offered.
    pub(super) async fn is_unchanged(&self) -> bool {
        let (path, stamp, expected) = (self.path.clone(), self.stamp, self.sum);
        let work = tokio::task::spawn_blocking(move || {
            let (mut file, now) = open(&path)?;
            Ok::<_, SourceError>(now == stamp && sum_of(&path, &mut file, now, |_| true)? == expected)
        });
        matches!(work.await, Ok(Ok(true)))
    }

    fn read(
        &self,
        offset: u64,
        to_stream: &mpsc::Sender<Result<Bytes, SourceError>>,
    ) -> Result<(), SourceError> {
        let fail = |error| unreadable(&self.path, error);
        let (mut file, stamp) = open(&self.path)?;
        if stamp != self.stamp {
            return Err(self.changed());
        }
        file.seek(SeekFrom::Start(offset)).map_err(fail)?;
        let mut left = stamp.size.saturating_sub(offset);
        while left > 0 {
            let most = left.min(BLOCK_BYTES as u64);
            let mut block = Vec::with_capacity(most as usize);
            let got = file.by_ref().take(most).read_to_end(&mut block).map_err(fail)?;
            if got == 0 {
                return Err(self.changed());
            }
            left -= got as u64;
            if to_stream.blocking_send(Ok(block.into())).is_err() {
                return Ok(());
            }
        }
        self.check(&file)
    }

    fn check(&self, file: &File) -> Result<(), SourceError> {
        let now = file.metadata().map_err(|error| unreadable(&self.path, error))?;
        if Stamp::of(&now) == self.stamp { Ok(()) } else { Err(self.changed()) }
    }
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self { size: meta.len(), modified: meta.modified().ok() }
    }
}

fn open(path: &Path) -> Result<(File, Stamp), SourceError> {
    // Asked before opening: opening a pipe would wait for a writer.
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SourceError::NotFound(path.to_owned()),
        _ => unreadable(path, error),
    };
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(SourceError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(fail)?;
    let stamp = Stamp::of(&file.metadata().map_err(fail)?);
    Ok((file, stamp))
}

/// The sum of a file that must stay as `stamp` has it while it is read.
fn sum_of(
    path: &Path,
    file: &mut File,
    stamp: Stamp,
    each: impl FnMut(u64) -> bool,
) -> Result<Sum, SourceError> {
    let mut hasher = Sha256::new();
    let fail = |error| unreadable(path, error);
    let read = sum::hash_file(file, stamp.size, &mut hasher, each).map_err(fail)?;
    if read != stamp.size || Stamp::of(&file.metadata().map_err(fail)?) != stamp {
        return Err(SourceError::Changed(path.to_owned()));
    }
    Ok(Sum::of(hasher))
}

fn unreadable(path: &Path, error: io::Error) -> SourceError {
    SourceError::Unreadable { path: path.to_owned(), error }
}
