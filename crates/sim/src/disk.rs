//! A simulated node's disk: what it has stored survives the node, and after a crash nothing more is written.

use std::sync::atomic::{AtomicBool, Ordering};

use peerage::{BookChange, MemoryStore, Store, StoreError, Stored};

/// The disk during one run of its node.
#[derive(Debug)]
pub(crate) struct Disk {
    kept: MemoryStore,
    crashed: AtomicBool,
}

impl Disk {
    /// Shares what is kept with every other run.
    pub(crate) fn new(kept: &MemoryStore) -> Self {
        Self { kept: kept.clone(), crashed: AtomicBool::new(false) }
    }

    /// What is saved from now on is lost.
    pub(crate) fn crash(&self) {
        self.crashed.store(true, Ordering::Relaxed);
    }
}

impl Store for Disk {
    fn load(&self) -> Result<Stored, StoreError> {
        self.kept.load()
    }

    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError> {
        if self.crashed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.kept.save(changes)
    }

    fn is_quick(&self) -> bool {
        true
    }
}
