//! The receiving side of one transfer.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use peerage_wire::file::{Done, Offer, Reply, done, reply};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::inbox::{Claim, Inbox};
use super::name::PlainName;
use super::pipe::{PipeError, Reader, Writer};
use super::store::{self, Partial, StoreError};
use super::{BLOCK_BYTES, BLOCKS_IN_FLIGHT, ChunkRead, ChunkWrite, Sum};

/// A file that is in the inbox now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    /// Its name there.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// Its sum, computed here.
    pub(crate) sha256: Sum,
    /// How much was there before this transfer.
    pub(crate) resumed_at: u64,
}

/// Why a file did not come in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReceiveError {
    /// It was not wanted; the sender was told why.
    #[error("refused: {0}")]
    Refused(String),
    /// The stream broke, or the sender fell silent: what came is kept.
    #[error(transparent)]
    Pipe(#[from] PipeError),
    /// The sender ended before the file did: what came is kept.
    #[error("the sender ended the stream after {got} of {size} bytes")]
    Short {
        /// Bytes that are here.
        got: u64,
        /// Bytes that were announced.
        size: u64,
    },
    /// More came than was announced: nothing is kept.
    #[error("the sender sent more than the {0} bytes it announced")]
    Long(u64),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReceiveError {
    /// Whether it was this machine that failed, and not the sender.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Store(StoreError::Io(_)))
    }
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::Store(StoreError::Io(error))
    }
}

/// Receives one file into the inbox over a stream that `peer` opened. Ends by itself however the sender behaves; when it is
/// dropped in between, what came is kept as a partial file.
///
/// # Errors
/// [`ReceiveError`]; the sender was told, unless it was the stream that broke.
pub(crate) async fn receive<R: ChunkRead, W: ChunkWrite>(
    inbox: &Arc<Inbox>,
    peer: &str,
    read: R,
    write: W,
) -> Result<Received, ReceiveError> {
    let idle = inbox.limits().idle;
    let (mut read, mut write) = (Reader::new(read), Writer::new(write, idle));
    // The place is taken before the offer is read, so that the number of silent senders is bounded too.
    let slot = inbox.slot(peer);
    let wanted = match slot {
        Ok(_) => accept(inbox, read.message(idle).await?).await,
        Err(ref reason) => Err(ReceiveError::Refused(reason.clone())),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => {
            answer(&mut write, reply::Answer::Refused(for_sender(&error))).await?;
            write.finish().await?;
            return Err(error);
        }
    };
    let result = wanted.take(inbox, &mut read, &mut write).await;
    let outcome = match &result {
        Ok(received) => done::Outcome::StoredAs(received.name.clone()),
        // No verdict on the file: the sender sees the stream break and may go on over another one.
        Err(ReceiveError::Pipe(_) | ReceiveError::Short { .. }) => return result,
        Err(error) => done::Outcome::Failed(for_sender(error)),
    };
    // A sender that is gone finds the file when it offers it again.
    let told = write.message(&Done { outcome: Some(outcome) }).await;
    if told.is_ok() {
        let _ = write.finish().await;
    }
    result
}

/// An offer that was taken.
struct Wanted {
    name: PlainName,
    size: u64,
    sum: Sum,
    claim: Claim,
    state: State,
}

enum State {
    /// The inbox has this content already, under this name.
    There(String),
    /// It is to come, or the rest of it.
    Coming(Partial),
}

async fn accept(inbox: &Arc<Inbox>, offer: Offer) -> Result<Wanted, ReceiveError> {
    let name = PlainName::parse(&offer.name).map_err(ReceiveError::Refused)?;
    let Some(sum) = Sum::from_slice(&offer.sha256) else {
        return Err(ReceiveError::Refused("the offer has no SHA-256".into()));
    };
    let inbox = inbox.clone();
    let work = tokio::task::spawn_blocking(move || {
        let claim = inbox.claim(&name, &sum, offer.size).map_err(ReceiveError::Refused)?;
        let state = match store::find(inbox.folder(), &name, offer.size, &sum) {
            Some(there) => State::There(there),
            None => State::Coming(Partial::open(claim.partial(), offer.size)?),
        };
        Ok(Wanted { name, size: offer.size, sum, claim, state })
    });
    work.await.map_err(died)?
}

impl Wanted {
    async fn take<R: ChunkRead, W: ChunkWrite>(
        self,
        inbox: &Inbox,
        read: &mut Reader<R>,
        write: &mut Writer<W>,
    ) -> Result<Received, ReceiveError> {
        let Self { name, size, sum, claim, state } = self;
        let received = |name, resumed_at| Received { name, bytes: size, sha256: sum, resumed_at };
        let partial = match state {
            State::Coming(partial) => partial,
            State::There(name) => {
                answer(write, reply::Answer::Offset(size)).await?;
                end_of_file(inbox, read, size).await?;
                return Ok(received(name, size));
            }
        };
        let resumed_at = partial.length();
        answer(write, reply::Answer::Offset(resumed_at)).await?;
        let path = claim.partial().to_owned();
        let partial = match fill(partial, size, inbox, read).await {
            Ok(partial) => partial,
            Err(error) => {
                if is_worthless(&error) {
                    let _ = tokio::fs::remove_file(path).await;
                }
                return Err(error);
            }
        };
        let work = tokio::task::spawn_blocking(move || partial.store(&name, &sum));
        let stored_as = work.await.map_err(died)??;
        drop(claim);
        Ok(received(stored_as, resumed_at))
    }
}

/// Moves what is missing from the stream to the disk, through a thread that sums it up and writes it.
async fn fill<R: ChunkRead>(
    partial: Partial,
    size: u64,
    inbox: &Inbox,
    read: &mut Reader<R>,
) -> Result<Partial, ReceiveError> {
    let mut missing = size - partial.length();
    let (to_disk, blocks) = mpsc::channel(BLOCKS_IN_FLIGHT);
    let disk = tokio::task::spawn_blocking(move || partial.fill(blocks));
    while missing > 0 {
        let (block, end) = read_block(read, missing, inbox).await;
        missing -= block.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if to_disk.send(block).await.is_err() {
            // The thread ended before we did: it says why.
            break;
        }
        match end {
            End::Full => {}
            End::Finished if missing == 0 => {}
            // What came is written down before the error is passed on, so that the next attempt goes on from there.
            End::Finished => {
                drop(to_disk);
                settled(disk).await?;
                return Err(ReceiveError::Short { got: size - missing, size });
            }
            End::Broken(error) => {
                drop(to_disk);
                settled(disk).await?;
                return Err(error.into());
            }
        }
    }
    drop(to_disk);
    let partial = settled(disk).await?;
    end_of_file(inbox, read, size).await?;
    Ok(partial)
}

/// Why a block has no more chunks.
enum End {
    Full,
    Finished,
    Broken(PipeError),
}

/// Reads up to one block of at most `most` bytes. A sender that moves less than a block in the idle time loses its place: that
/// is a rate that no sender in good faith stays below.
async fn read_block<R: ChunkRead>(read: &mut Reader<R>, most: u64, inbox: &Inbox) -> (Vec<Bytes>, End) {
    let mut left = BLOCK_BYTES.min(usize::try_from(most).unwrap_or(usize::MAX));
    let mut block = Vec::new();
    let idle = inbox.limits().idle;
    let filling = async {
        while left > 0 {
            match read.bytes(left).await {
                Ok(Some(chunk)) => {
                    left -= chunk.len().min(left);
                    block.push(chunk);
                }
                Ok(None) => return End::Finished,
                Err(error) => return End::Broken(error),
            }
        }
        End::Full
    };
    let end = timeout(idle, filling).await.unwrap_or(End::Broken(PipeError::Silent(idle)));
    (block, end)
}

/// The stream must end where the file does.
async fn end_of_file<R: ChunkRead>(
    inbox: &Inbox,
    read: &mut Reader<R>,
    size: u64,
) -> Result<(), ReceiveError> {
    let idle = inbox.limits().idle;
    match timeout(idle, read.bytes(1)).await.map_err(|_| PipeError::Silent(idle))?? {
        None => Ok(()),
        Some(_) => Err(ReceiveError::Long(size)),
    }
}

async fn answer<W: ChunkWrite>(write: &mut Writer<W>, answer: reply::Answer) -> Result<(), PipeError> {
    write.message(&Reply { answer: Some(answer) }).await
}

async fn settled(disk: JoinHandle<io::Result<Partial>>) -> Result<Partial, ReceiveError> {
    Ok(disk.await.map_err(died)??)
}

/// A partial file that is no use to a later attempt, or that must not stay: wrong bytes, or the last ones of a full disk.
fn is_worthless(error: &ReceiveError) -> bool {
    match error {
        ReceiveError::Long(_) => true,
        ReceiveError::Store(StoreError::Io(error)) => is_disk_full(error),
        _ => false,
    }
}

/// What the sender is told. What the system says about our disk stays here, but for the one thing that the sender can act on.
fn for_sender(error: &ReceiveError) -> String {
    match error {
        ReceiveError::Refused(reason) => reason.clone(),
        ReceiveError::Store(StoreError::Io(error)) if is_disk_full(error) => {
            "the receiver's disk is full".into()
        }
        ReceiveError::Store(StoreError::Io(_)) => {
            "the receiver can't write the file: its log says why".into()
        }
        other => other.to_string(),
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[allow(clippy::needless_pass_by_value, reason = "it goes to map_err")]
fn died(error: tokio::task::JoinError) -> io::Error {
    io::Error::other(format!("the thread that writes the file ended: {error}"))
}
