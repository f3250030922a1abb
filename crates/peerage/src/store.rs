//! What a node keeps over restarts: the address book, with the backoff of each peer, the bans, what the user said of peers while it ran, and the records
//! that its DHT holds for others and publishes itself.
//!
//! The peer manager says what changed, of the book at most every two seconds and of the rest at once; changes wait in [`saving`], one for each
//! peer or ban, until the store has taken the ones before. [`RedbStore`] keeps them in one file, each batch in one transaction. Those of the book are on the disk when they are done,
//! those of the DHT's records some two seconds later, so that a crash at any moment costs the changes of the last seconds and nothing else. What fails to be written, on a full
//! disk say, is tried again until it is stored. A file that cannot be read is renamed and reported, and the node
//! starts with an empty book and without bans.

mod redb_store;
mod saving;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use peerage_peers::{BanEntry, BookChange, BookEntry, StandingEntry};

pub(crate) use redb_store::MAX_UNSYNCED_BYTES;
pub use redb_store::{BOOK_FILE, RedbStore};
pub(crate) use saving::{MAX_REMOVALS, MAX_RETRY, RETRY, Saving};

/// Keeps what a node knows over restarts. A test or a simulation gives its own, such as [`MemoryStore`].
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Everything that was stored.
    ///
    /// # Errors
    /// [`StoreError`] when nothing can be read, and nothing could be stored either.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Stores changes, all or none. They are durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; the changes are handed in again, after a second and then ever more rarely, down to once a minute.
    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError>;

    /// The rows of the DHT's records, in any order: bytes by bytes, whose meaning is the DHT's. [`Store::load`] was called before.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load_rows(&self) -> Result<Vec<Row>, StoreError> {
        Ok(Vec::new())
    }

    /// Changes rows of the DHT, all or none. What is not `durable` may be lost with the process or the power, the newest first, until the next durable change of any kind,
    /// or until the store is dropped in good order.
    ///
    /// # Errors
    /// [`StoreError`]; the changes are handed in again.
    fn save_rows(&self, changes: &[RowChange], durable: bool) -> Result<(), StoreError> {
        let _ = (changes, durable);
        Ok(())
    }

    /// Whether it may be called on an async thread, because it never waits for a disk.
    fn is_quick(&self) -> bool {
        false
    }
}

/// One row of the DHT: its key and what it holds.
pub type Row = (Bytes, Bytes);

/// One change of the DHT's rows: the key, and what the row holds now; `None` when it is gone.
pub type RowChange = (Bytes, Option<Bytes>);

/// What a store holds.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// The address book.
    pub peers: Vec<BookEntry>,
    /// The bans, with those that have ended since.
    pub bans: Vec<BanEntry>,
    /// What the user said of peers.
    pub standings: Vec<StandingEntry>,
    /// Where the file went that could not be read, and why, if that happened.
    pub set_aside: Option<(PathBuf, String)>,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A later version of Peerage wrote it.
    #[error("{} has format {found}, and this version reads up to {known}: use the later version of Peerage, or remove the file", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The latest format that is known here.
        known: u64,
    },
    /// The file cannot be opened, read or written.
    #[error("the address book {} cannot be used: {detail}", .path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// A store in memory, for tests and simulations: clones share what is stored, so that it survives the node.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Tables>>);

/// All by their text.
#[derive(Debug, Default)]
struct Tables {
    peers: BTreeMap<String, BookEntry>,
    bans: BTreeMap<String, BanEntry>,
    standings: BTreeMap<String, StandingEntry>,
    rows: BTreeMap<Bytes, Bytes>,
}

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let tables = self.tables();
        let (peers, bans) =
            (tables.peers.values().cloned().collect(), tables.bans.values().cloned().collect());
        let standings = tables.standings.values().cloned().collect();
        Ok(Stored { peers, bans, standings, set_aside: None })
    }

    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError> {
        let mut tables = self.tables();
        for change in changes {
            match change {
                BookChange::Put(entry) => {
                    tables.peers.insert(entry.peer.clone(), (**entry).clone());
                }
                BookChange::Remove(peer) => {
                    tables.peers.remove(&peer.to_string());
                }
                BookChange::PutBan(ban) => {
                    tables.bans.insert(ban.target.clone(), (**ban).clone());
                }
                BookChange::RemoveBan(target) => {
                    tables.bans.remove(&target.to_string());
                }
                BookChange::PutStanding(standing) => {
                    tables.standings.insert(standing.peer.clone(), (**standing).clone());
                }
                BookChange::RemoveStanding(peer) => {
                    tables.standings.remove(&peer.to_string());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn load_rows(&self) -> Result<Vec<Row>, StoreError> {
        Ok(self.tables().rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn save_rows(&self, changes: &[RowChange], _: bool) -> Result<(), StoreError> {
        let mut tables = self.tables();
        for (key, value) in changes {
            match value {
                Some(value) => tables.rows.insert(key.clone(), value.clone()),
                None => tables.rows.remove(key),
            };
        }
        Ok(())
    }

    fn is_quick(&self) -> bool {
        true
    }
}
