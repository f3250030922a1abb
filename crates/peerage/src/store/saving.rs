//! Changes on their way into a store, and what it held at the start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_peers::{BadEntry, Ban, BookChange, Standing, StoredPeer};
use tokio::sync::Notify;

use super::{BOOK_FILE, Row, RowChange, Store, StoreError, Stored};

/// How long changes that could not be stored wait: at first, and at most. It doubles with each failure.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
pub(crate) const MAX_RETRY: Duration = Duration::from_secs(60);
/// Removals that wait. Beyond that those of peers are given up first: what stays in the store is at worst a peer too many.
pub(crate) const MAX_REMOVALS: usize = 65_536;

/// Hands changes to a store, one batch after the other.
#[derive(Debug, Default)]
pub(crate) struct Saving {
    /// Taken away when the node ends, so that another one can open the store.
    store: Mutex<Option<Arc<dyn Store>>>,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Held while a batch is written, so that a later one never overtakes it.
    writing: tokio::sync::Mutex<()>,
    /// Since something could not be written nothing was.
    failing: AtomicBool,
}

/// What an earlier run has stored, read and checked.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) peers: Vec<StoredPeer>,
    pub(crate) bans: Vec<Ban>,
    pub(crate) standings: Vec<Standing>,
}

/// The latest change of each peer and ban. What is put is bounded by the tables that it comes from.
#[derive(Debug, Default)]
struct Waiting {
    put: BTreeMap<Key, BookChange>,
    removed: BTreeMap<Key, BookChange>,
}

/// What a change is about, as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Peer(String),
    Ban(String),
    Standing(String),
}

impl Saving {
    pub(crate) fn new(store: Option<Arc<dyn Store>>) -> Self {
        Self { store: Mutex::new(store), ..Self::default() }
    }

    /// Reads what the store holds. Without a store there is nothing.
    pub(crate) async fn load(&self) -> Result<Loaded, StoreError> {
        // Signatures are checked there too: of thousands of records that takes a while.
        self.with_store(Loaded::default(), |store| Ok(read(store.load()?))).await
    }

    /// The DHT's rows, after [`Saving::load`]. Without a store there are none.
    pub(crate) async fn load_rows(&self) -> Result<Vec<Row>, StoreError> {
        self.with_store(Vec::new(), |store| store.load_rows()).await
    }

    /// Writes rows of the DHT. Without a store they are forgotten.
    pub(crate) async fn save_rows(&self, changes: Vec<RowChange>, durable: bool) -> Result<(), StoreError> {
        self.told(self.with_store((), move |store| store.save_rows(&changes, durable)).await)
    }

    /// Says once that nothing is stored, however often it is tried, and once that it is again.
    fn told(&self, saved: Result<(), StoreError>) -> Result<(), StoreError> {
        match &saved {
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => tracing::warn!(
                %error,
                "nothing can be stored: the address book, the bans and the DHT's records are kept in memory, and tried again"
            ),
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!("what could not be stored is stored again");
            }
            _ => {}
        }
        saved
    }

    /// Runs on the store, where there is one: on a thread of its own, unless it is quick.
    async fn with_store<T: Send + 'static>(
        &self,
        without: T,
        run: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(store) = self.store() else { return Ok(without) };
        if store.is_quick() {
            return run(&*store);
        }
        tokio::task::spawn_blocking(move || run(&*store)).await.unwrap_or_else(|error| {
            Err(StoreError::Failed { path: PathBuf::from(BOOK_FILE), detail: error.to_string() })
        })
    }

    /// Takes changes in. Never waits. Without a store they are forgotten.
    pub(crate) fn add(&self, changes: Vec<BookChange>) {
        if self.store().is_none() {
            return;
        }
        let mut waiting = self.waiting();
        changes.into_iter().for_each(|change| waiting.add(change));
        self.arrived.notify_one();
    }

    /// Writes what arrives, until the task is dropped. What could not be written is tried again, whether more arrives or not.
    pub(crate) async fn run(&self) {
        loop {
            self.arrived.notified().await;
            let mut wait = RETRY;
            while let Err(error) = self.flush().await {
                tracing::debug!(%error, again_in = ?wait, "the address book and the bans were not stored");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(MAX_RETRY);
            }
        }
    }

    /// Writes everything that waits. When that fails, it waits on.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        if self.store().is_none() {
            return Ok(());
        }
        let batch: Arc<[BookChange]> = self.waiting().take().into();
        if batch.is_empty() {
            return Ok(());
        }
        let written = batch.clone();
        let saved = self.told(self.with_store((), move |store| store.save(&written)).await);
        if saved.is_err() {
            let mut waiting = self.waiting();
            batch.iter().for_each(|change| waiting.put_back(change));
        }
        saved
    }

    /// How many changes wait.
    pub(crate) fn waiting_changes(&self) -> usize {
        let waiting = self.waiting();
        waiting.put.len() + waiting.removed.len()
    }

    /// Gives the store up.
    pub(crate) fn close(&self) {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn store(&self) -> Option<Arc<dyn Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// A change takes the place of an earlier one.
    fn add(&mut self, change: BookChange) {
        let (key, removal) = match &change {
            BookChange::Put(entry) => (Key::Peer(entry.peer.clone()), false),
            BookChange::Remove(peer) => (Key::Peer(peer.to_string()), true),
            BookChange::PutBan(ban) => (Key::Ban(ban.target.clone()), false),
            BookChange::RemoveBan(target) => (Key::Ban(target.to_string()), true),
            BookChange::PutStanding(standing) => (Key::Standing(standing.peer.clone()), false),
            BookChange::RemoveStanding(peer) => (Key::Standing(peer.to_string()), true),
            _ => return,
        };
        if removal {
            self.put.remove(&key);
            self.removed.insert(key, change);
            while self.removed.len() > MAX_REMOVALS {
                self.removed.pop_first();
            }
        } else {
            self.removed.remove(&key);
            self.put.insert(key, change);
        }
    }

    fn take(&mut self) -> Vec<BookChange> {
        let Self { put, removed } = std::mem::take(self);
        put.into_values().chain(removed.into_values()).collect()
    }

    /// A change that was not stored comes back, unless a later one waits already.
    fn put_back(&mut self, change: &BookChange) {
        let mut earlier = Self::default();
        earlier.add(change.clone());
        let later = |key: &Key| self.put.contains_key(key) || self.removed.contains_key(key);
        if !earlier.put.keys().chain(earlier.removed.keys()).any(later) {
            self.add(change.clone());
        }
    }
}

fn read(stored: Stored) -> Loaded {
    if let Some((path, why)) = stored.set_aside {
        tracing::warn!(path = %path.display(), why, "the stored address book cannot be read: it was set aside, and the node starts with an empty one, without bans and without what was said of peers");
    }
    Loaded {
        peers: stored.peers.iter().map(StoredPeer::read).filter_map(good).collect(),
        bans: stored.bans.iter().map(Ban::read).filter_map(good).collect(),
        standings: stored.standings.iter().map(Standing::read).filter_map(good).collect(),
    }
}

fn good<T>(entry: Result<T, BadEntry>) -> Option<T> {
    entry.inspect_err(|error| tracing::warn!(%error, "a stored entry is passed over")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use peerage_identity::NodeKey;
    use peerage_peers::{BanEntry, BookEntry};
    use tokio::time::Instant;

    /// A store on a disk that is full for a while.
    #[derive(Debug, Default)]
    struct FullFor {
        inner: MemoryStore,
        failures: Mutex<u32>,
        tried: Mutex<Vec<Instant>>,
    }

    impl Store for FullFor {
        fn load(&self) -> Result<Stored, StoreError> {
            self.inner.load()
        }

        fn save(&self, changes: &[BookChange]) -> Result<(), StoreError> {
            self.tried.lock().unwrap().push(Instant::now());
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(StoreError::Failed { path: "disk".into(), detail: "full".to_owned() });
            }
            self.inner.save(changes)
        }

        fn is_quick(&self) -> bool {
            true
        }
    }

    fn put(number: u8) -> BookChange {
        let peer = NodeKey::from_seed([number; 32]).peer_id().to_string();
        BookChange::Put(Box::new(BookEntry { peer, ..BookEntry::default() }))
    }

    fn ban(target: &str, since: u64) -> BookChange {
        BookChange::PutBan(Box::new(BanEntry { target: target.to_owned(), since, ..BanEntry::default() }))
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_stored_is_tried_again_with_its_removals_and_ever_more_rarely() {
        let store = Arc::new(FullFor::default());
        let first = [put(1), put(2), ban("192.0.2.1/32", 1), ban("192.0.2.2/32", 1)];
        store.save(&first).unwrap();
        store.tried.lock().unwrap().clear();
        *store.failures.lock().unwrap() = 9;
        let saving = Arc::new(Saving::new(Some(store.clone())));
        let task = saving.clone();
        let task = tokio::spawn(async move { task.run().await });
        let removal = BookChange::RemoveBan("192.0.2.1/32".parse().unwrap());
        saving.add(vec![BookChange::Remove(NodeKey::from_seed([1; 32]).peer_id()), removal, put(3)]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Newer ones take the place of what failed, and don't hurry it.
        saving.add(vec![ban("192.0.2.2/32", 2)]);
        tokio::time::sleep(Duration::from_secs(250)).await;
        let tried = store.tried.lock().unwrap().clone();
        let waits: Vec<_> = tried.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let stored = store.load().unwrap();
        assert_eq!(stored.peers.len(), 2);
        let bans: Vec<_> = stored.bans.iter().map(|ban| (ban.target.as_str(), ban.since)).collect();
        assert_eq!(bans, [("192.0.2.2/32", 2)]);
        task.abort();
    }

    /// An operator's log is not filled by a full disk.
    #[test]
    fn that_nothing_can_be_stored_is_said_once_and_once_when_it_can_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(file).finish();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let store = Arc::new(FullFor::default());
        let saving = Saving::new(Some(store.clone()));
        tracing::subscriber::with_default(subscriber, || {
            runtime.block_on(async {
                for _ in 0..2 {
                    *store.failures.lock().unwrap() = 5;
                    saving.add(vec![put(1)]);
                    let running = tokio::time::timeout(Duration::from_secs(100), saving.run());
                    assert!(running.await.is_err(), "it runs on");
                    assert_eq!(*store.failures.lock().unwrap(), 0);
                    saving.save_rows(Vec::new(), false).await.unwrap();
                }
            });
        });
        let log = std::fs::read_to_string(log).unwrap();
        let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        assert_eq!(
            (lines(" WARN "), lines("nothing can be stored"), lines("is stored again")),
            (2, 2, 2),
            "{log}"
        );
    }

    #[test]
    fn removals_that_wait_are_bounded_and_those_of_bans_are_given_up_last() {
        let mut waiting = Waiting::default();
        waiting.add(BookChange::RemoveBan("192.0.2.1/32".parse().unwrap()));
        let peer = NodeKey::from_seed([1; 32]).peer_id();
        for number in 0..MAX_REMOVALS {
            waiting.removed.insert(Key::Peer(number.to_string()), BookChange::Remove(peer));
        }
        waiting.add(BookChange::RemoveBan("192.0.2.2/32".parse().unwrap()));
        assert_eq!(waiting.removed.len(), MAX_REMOVALS);
        let bans = waiting.removed.keys().filter(|key| matches!(key, Key::Ban(_))).count();
        assert_eq!(bans, 2);
    }

    #[test]
    fn without_a_store_nothing_waits() {
        let saving = Saving::new(None);
        saving.add(vec![put(1)]);
        assert!(saving.waiting().put.is_empty());
    }
}
