//! A simulated node's disk: what it has stored survives the node, after a crash nothing more is written, and it can fail for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peerage::{BookChange, MemoryStore, Row, RowChange, Store, StoreError, Stored};

/// What is on a node's disk over all its runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    stored: MemoryStore,
    failing: Arc<AtomicBool>,
}

impl Kept {
    /// From now on nothing can be read or written, or again everything.
    pub(crate) fn fail(&self, fails: bool) {
        self.failing.store(fails, Ordering::Relaxed);
    }

    /// The rows of the DHT, whether it fails or not.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.stored.load_rows().unwrap_or_default()
    }

    fn working(&self) -> Result<&MemoryStore, StoreError> {
        match self.failing.load(Ordering::Relaxed) {
            true => Err(StoreError::Failed { path: "disk".into(), detail: "it fails".to_owned() }),
            false => Ok(&self.stored),
        }
    }
}

/// The disk during one run of its node.
#[derive(Debug)]
pub(crate) struct Disk {
    kept: Kept,
    crashed: AtomicBool,
}

impl Disk {
    /// Shares what is kept with every other run.
    pub(crate) fn new(kept: &Kept) -> Self {
        Self { kept: kept.clone(), crashed: AtomicBool::new(false) }
    }

    /// What is saved from now on is lost.
    pub(crate) fn crash(&self) {
        self.crashed.store(true, Ordering::Relaxed);
    }

    fn write(&self, write: impl FnOnce(&MemoryStore) -> Result<(), StoreError>) -> Result<(), StoreError> {
        match self.crashed.load(Ordering::Relaxed) {
            true => Ok(()),
            false => write(self.kept.working()?),
        }
    }
}

impl Store for Disk {
    fn load(&self) -> Result<Stored, StoreError> {
        self.kept.working()?.load()
    }

    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError> {
        self.write(|kept| kept.save(changes))
    }

    fn load_rows(&self) -> Result<Vec<Row>, StoreError> {
        self.kept.working()?.load_rows()
    }

    fn save_rows(&self, changes: &[RowChange], durable: bool) -> Result<(), StoreError> {
        self.write(|kept| kept.save_rows(changes, durable))
    }

    fn is_quick(&self) -> bool {
        true
    }
}
