//! What a node keeps over restarts: the address book, with the backoff of each peer.
//!
//! The peer manager says what changed, at most every two seconds; changes wait here, one for each peer, until the store has taken the
//! ones before. [`RedbStore`] keeps them in one file, each batch in one transaction that is on the disk when it is done, so that a crash at
//! any moment costs the changes of the last seconds and nothing else. A file that cannot be read is renamed and reported, and the node
//! starts with an empty book.

mod redb_store;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerage_peers::{BookChange, BookEntry, StoredPeer};
use tokio::sync::Notify;

pub use redb_store::{BOOK_FILE, RedbStore};

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
    /// [`StoreError`]; the changes are handed in again with later ones.
    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError>;

    /// Whether it may be called on an async thread, because it never waits for a disk.
    fn is_quick(&self) -> bool {
        false
    }
}

/// What a store holds.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// The address book.
    pub peers: Vec<BookEntry>,
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
pub struct MemoryStore(Arc<Mutex<BTreeMap<String, BookEntry>>>);

impl MemoryStore {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, BookEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(Stored { peers: self.entries().values().cloned().collect(), set_aside: None })
    }

    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError> {
        let mut entries = self.entries();
        for change in changes {
            match change {
                BookChange::Put(entry) => entries.insert(entry.peer.clone(), (**entry).clone()),
                BookChange::Remove(peer) => entries.remove(&peer.to_string()),
                _ => None,
            };
        }
        Ok(())
    }

    fn is_quick(&self) -> bool {
        true
    }
}

/// Changes on their way into a store.
#[derive(Debug, Default)]
pub(crate) struct Saving {
    /// Taken away when the node ends, so that another one can open the store.
    store: Mutex<Option<Arc<dyn Store>>>,
    /// The latest change of each peer: no more than the book holds, and those that left it.
    waiting: Mutex<BTreeMap<String, BookChange>>,
    arrived: Notify,
    /// Held while a batch is written, so that a later one never overtakes it.
    writing: tokio::sync::Mutex<()>,
}

impl Saving {
    pub(crate) fn new(store: Option<Arc<dyn Store>>) -> Self {
        Self { store: Mutex::new(store), ..Self::default() }
    }

    /// Reads what the store holds. Without a store there is nothing.
    pub(crate) async fn load(&self) -> Result<Vec<StoredPeer>, StoreError> {
        let Some(store) = self.store() else { return Ok(Vec::new()) };
        if store.is_quick() {
            return Ok(read(store.load()?));
        }
        // Signatures are checked there too: of thousands of records that takes a while.
        let loading = tokio::task::spawn_blocking(move || Ok(read(store.load()?)));
        loading.await.unwrap_or_else(|error| {
            Err(StoreError::Failed { path: PathBuf::from(BOOK_FILE), detail: error.to_string() })
        })
    }

    /// Takes changes in. Never waits.
    pub(crate) fn add(&self, changes: Vec<BookChange>) {
        let mut waiting = self.waiting();
        for change in changes {
            let peer = match &change {
                BookChange::Put(entry) => entry.peer.clone(),
                BookChange::Remove(peer) => peer.to_string(),
                _ => continue,
            };
            waiting.insert(peer, change);
        }
        self.arrived.notify_one();
    }

    /// Writes what arrives, until the task is dropped.
    pub(crate) async fn run(&self) {
        loop {
            self.arrived.notified().await;
            self.flush().await;
        }
    }

    /// Writes everything that waits.
    pub(crate) async fn flush(&self) {
        let _writing = self.writing.lock().await;
        let Some(store) = self.store() else { return };
        let batch: Vec<BookChange> = std::mem::take(&mut *self.waiting()).into_values().collect();
        if batch.is_empty() {
            return;
        }
        let (saved, batch) = if store.is_quick() {
            (store.save(&batch).map_err(|error| error.to_string()), batch)
        } else {
            let job = tokio::task::spawn_blocking(move || {
                let saved = store.save(&batch).map_err(|error| error.to_string());
                (saved, batch)
            });
            match job.await {
                Ok(done) => done,
                Err(error) => (Err(error.to_string()), Vec::new()),
            }
        };
        if let Err(error) = saved {
            tracing::warn!(error, "the address book was not stored; it is tried again with the next change");
            let mut waiting = self.waiting();
            for change in batch {
                if let BookChange::Put(entry) = &change {
                    waiting.entry(entry.peer.clone()).or_insert(change);
                }
            }
        }
    }

    /// Gives the store up.
    pub(crate) fn close(&self) {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, BookChange>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(stored: Stored) -> Vec<StoredPeer> {
    if let Some((path, why)) = stored.set_aside {
        tracing::warn!(path = %path.display(), why, "the stored address book cannot be read: it was set aside, and the node starts with an empty one");
    }
    let read = |entry: &BookEntry| match StoredPeer::read(entry) {
        Ok(peer) => Some(peer),
        Err(error) => {
            tracing::warn!(%error, "an entry of the stored address book is passed over");
            None
        }
    };
    stored.peers.iter().filter_map(read).collect()
}
