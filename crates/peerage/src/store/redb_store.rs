//! The store in one file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peerage_peers::BookChange;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
};
use serde::de::DeserializeOwned;

use super::{Row, RowChange, Store, StoreError, Stored};

/// The name of the file in a data directory that holds the address book and the bans.
pub const BOOK_FILE: &str = "peers.redb";

/// The format of the file. An entry is JSON, in which unknown fields are passed over: a new field needs no new format, nor does a new table.
const FORMAT: u64 = 1;
const META: TableDefinition<'_, &[u8], u64> = TableDefinition::new("meta");
/// By peer ID. Keys are bytes, because redb trusts a file to hold good text where a text is declared.
const PEERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("peers");
/// By target.
const BANS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bans");
/// What the user said of peers, by peer ID.
const STANDINGS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("standings");
/// What the DHT keeps, in the DHT's own form.
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("dht");
/// What redb may keep in memory; its own default is a gigabyte.
const CACHE_BYTES: usize = 2 << 20;
/// Entries that are read of a table: more than any address book holds.
const MAX_ENTRIES: usize = 1_000_000;
/// How long a node of this process that has just ended may take to close the file: so many looks, this far apart.
const LOOKS: u32 = 40;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A store in one file, which is made on first use and readable by its owner only.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    database: Mutex<Option<Database>>,
}

/// What can be wrong with a file.
enum Fault {
    /// Its content makes no sense.
    Corrupt(String),
    /// It makes sense, and cannot be used.
    Other(StoreError),
}

impl RedbStore {
    /// The store at `path`. Nothing is opened before it is used.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), database: Mutex::new(None) }
    }

    fn open(&self) -> Result<Database, Fault> {
        for _ in 0..LOOKS {
            let opened = match open_private(&self.path, false) {
                Ok(file) => self.database(file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.create()?,
                Err(error) => return Err(self.failed(&error)),
            };
            if let Some(database) = opened {
                return Ok(database);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(self.failed(&DatabaseError::DatabaseAlreadyOpen))
    }

    /// `None` where somebody else has it open.
    fn database(&self, file: File) -> Result<Option<Database>, Fault> {
        match Database::builder().set_cache_size(CACHE_BYTES).create_file(file) {
            Ok(database) => Ok(Some(database)),
            Err(DatabaseError::DatabaseAlreadyOpen) => Ok(None),
            Err(DatabaseError::Storage(error)) => Err(self.fault(error.into())),
            Err(DatabaseError::UpgradeRequired(format)) => {
                Err(Fault::Corrupt(format!("it has the old file format {format}")))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// A new file, made under another name, so that whenever the process dies the store's own name leads to a whole one or to none. `None`
    /// where somebody else is at it.
    fn create(&self) -> Result<Option<Database>, Fault> {
        let failed = |error: io::Error| self.failed(&error);
        let unfinished = self.path.with_extension("redb.new");
        let file = open_private(&unfinished, true).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Whoever had the lock before may have finished, and then this is the store that he uses.
        if self.path.try_exists().map_err(failed)? {
            return Ok(None);
        }
        file.set_len(0).map_err(failed)?;
        let Some(database) = self.database(file)? else { return Ok(None) };
        self.prepare(&database)?;
        fs::rename(&unfinished, &self.path).map_err(failed)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(Some(database))
    }

    /// Writes what is not there yet of tables and format.
    fn prepare(&self, database: &Database) -> Result<(), Fault> {
        let found = self.prepared(database).map_err(|error| self.fault(error))?;
        if found > FORMAT {
            let path = self.path.clone();
            return Err(Fault::Other(StoreError::Newer { path, found, known: FORMAT }));
        }
        Ok(())
    }

    /// The format. Nothing is written to a file of a later one.
    fn prepared(&self, database: &Database) -> Result<u64, redb::Error> {
        let transaction = database.begin_write()?;
        let found = {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get(&b"format"[..])?.map(|found| found.value());
            if found.is_none() {
                meta.insert(&b"format"[..], FORMAT)?;
            }
            found.unwrap_or(FORMAT)
        };
        if found > FORMAT {
            return Ok(found);
        }
        transaction.open_table(PEERS)?;
        transaction.open_table(BANS)?;
        transaction.open_table(STANDINGS)?;
        transaction.open_table(ROWS)?;
        transaction.commit()?;
        Ok(found)
    }

    fn read(&self, database: &Database) -> Result<Stored, Fault> {
        let fault = |error: redb::Error| self.fault(error);
        self.prepare(database)?;
        let transaction = database.begin_read().map_err(|error| fault(error.into()))?;
        let peers = read_table(&transaction, PEERS).map_err(fault)?;
        let bans = read_table(&transaction, BANS).map_err(fault)?;
        let standings = read_table(&transaction, STANDINGS).map_err(fault)?;
        Ok(Stored { peers, bans, standings, set_aside: None })
    }

    fn write(&self, database: &Database, changes: &[BookChange]) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut peers = transaction.open_table(PEERS)?;
            let mut bans = transaction.open_table(BANS)?;
            let mut standings = transaction.open_table(STANDINGS)?;
            for change in changes {
                match change {
                    BookChange::Put(entry) => {
                        let json = serde_json::to_vec(&**entry).map_err(|e| redb::Error::Io(e.into()))?;
                        peers.insert(entry.peer.as_bytes(), json.as_slice())?;
                    }
                    BookChange::Remove(peer) => {
                        peers.remove(peer.to_string().as_bytes())?;
                    }
                    BookChange::PutBan(ban) => {
                        let json = serde_json::to_vec(&**ban).map_err(|e| redb::Error::Io(e.into()))?;
                        bans.insert(ban.target.as_bytes(), json.as_slice())?;
                    }
                    BookChange::RemoveBan(target) => {
                        bans.remove(target.to_string().as_bytes())?;
                    }
                    BookChange::PutStanding(standing) => {
                        let json = serde_json::to_vec(&**standing).map_err(|e| redb::Error::Io(e.into()))?;
                        standings.insert(standing.peer.as_bytes(), json.as_slice())?;
                    }
                    BookChange::RemoveStanding(peer) => {
                        standings.remove(peer.to_string().as_bytes())?;
                    }
                    _ => {}
                }
            }
        }
        // Durable when this returns: that is redb's default.
        Ok(transaction.commit()?)
    }

    /// Runs on the open database. A page that went bad on the disk can make redb panic: that is a failure like any other.
    fn with_open<T>(&self, run: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let open = self.locked();
        let failed = |detail| StoreError::Failed { path: self.path.clone(), detail };
        let database = open.as_ref().ok_or_else(|| failed("it was not loaded".to_owned()))?;
        match catch_unwind(AssertUnwindSafe(|| run(database))) {
            Ok(done) => done.map_err(|error| failed(error.to_string())),
            Err(_) => Err(failed("its pages contradict one another".to_owned())),
        }
    }

    fn fault(&self, error: redb::Error) -> Fault {
        match error {
            redb::Error::Io(io) if !is_content(&io) => self.failed(&io),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockPoisoned(_) => self.failed(&error),
            error => Fault::Corrupt(error.to_string()),
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Fault {
        Fault::Other(StoreError::Failed { path: self.path.clone(), detail: error.to_string() })
    }

    /// Opens the file and reads it. A defect in the file that makes redb panic is a corrupt file like any other.
    fn open_and_read(&self) -> Result<(Database, Stored), Fault> {
        let reading = catch_unwind(AssertUnwindSafe(|| {
            let database = self.open()?;
            let stored = self.read(&database)?;
            Ok((database, stored))
        }));
        reading.unwrap_or_else(|_| Err(Fault::Corrupt("its pages contradict one another".to_owned())))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for RedbStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let mut open = self.locked();
        *open = None;
        let (database, stored) = match self.open_and_read() {
            Ok(read) => read,
            Err(Fault::Other(error)) => return Err(error),
            Err(Fault::Corrupt(why)) => {
                let aside = self.path.with_extension("redb.corrupt");
                let moved = fs::rename(&self.path, &aside);
                moved.map_err(|error| StoreError::Failed {
                    path: self.path.clone(),
                    detail: format!("{why}; and it cannot be renamed: {error}"),
                })?;
                let (database, stored) = self.open_and_read().map_err(|fault| match fault {
                    Fault::Other(error) => error,
                    Fault::Corrupt(detail) => StoreError::Failed { path: self.path.clone(), detail },
                })?;
                (database, Stored { set_aside: Some((aside, why)), ..stored })
            }
        };
        *open = Some(database);
        Ok(stored)
    }

    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError> {
        self.with_open(|database| self.write(database, changes))
    }

    fn load_rows(&self) -> Result<Vec<Row>, StoreError> {
        self.with_open(|database| {
            let table = database.begin_read()?.open_table(ROWS)?;
            let mut rows = Vec::new();
            for row in table.iter()?.take(MAX_ENTRIES) {
                let (key, value) = row?;
                rows.push((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())));
            }
            Ok(rows)
        })
    }

    fn save_rows(&self, changes: &[RowChange], durable: bool) -> Result<(), StoreError> {
        self.with_open(|database| {
            let mut transaction = database.begin_write()?;
            let durability = if durable { Durability::Immediate } else { Durability::None };
            transaction.set_durability(durability)?;
            {
                let mut rows = transaction.open_table(ROWS)?;
                for (key, value) in changes {
                    match value {
                        Some(value) => rows.insert(&key[..], &value[..])?,
                        None => rows.remove(&key[..])?,
                    };
                }
            }
            Ok(transaction.commit()?)
        })
    }
}

/// The entries of a table. One that makes no sense is passed over.
fn read_table<T: DeserializeOwned>(
    transaction: &ReadTransaction,
    table: TableDefinition<'static, &'static [u8], &'static [u8]>,
) -> Result<Vec<T>, redb::Error> {
    let table = transaction.open_table(table)?;
    let mut entries = Vec::new();
    for row in table.iter()?.take(MAX_ENTRIES) {
        let (key, json) = row?;
        match serde_json::from_slice(json.value()) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                let key = String::from_utf8_lossy(key.value()).escape_default().to_string();
                tracing::warn!(key, %error, "a stored entry is passed over");
            }
        }
    }
    Ok(entries)
}

fn open_private(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whether the system has read the file and what it holds is wrong.
fn is_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_identity::NodeKey;
    use peerage_peers::{Ban, BanEntry, BookEntry};
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    const CHILD: &str = "PEERAGE_TEST_STORE";

    fn entry(number: u64, failures: u32) -> BookChange {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let peer = NodeKey::from_seed(seed).peer_id().to_string();
        BookChange::Put(Box::new(BookEntry { peer, failures, ..BookEntry::default() }))
    }

    /// The child of the test below: writes a counter as fast as it can, and prints each number once it is stored.
    #[test]
    fn child_that_writes_until_it_is_killed() {
        let Some(path) = std::env::var_os(CHILD) else { return };
        let store = RedbStore::at(path);
        println!("begins");
        let found = store.load().unwrap();
        assert_eq!(found.set_aside, None);
        let last = found.peers.iter().map(|entry| entry.failures).max().unwrap_or(0);
        for number in last + 1.. {
            store.save(&[entry(u64::from(number % 50), number)]).unwrap();
            println!("stored {number}");
        }
    }

    /// X-20: a book opens after each of 200 kills at random moments, and has lost nothing that was stored.
    /// Contract C-40.
    #[test]
    fn two_hundred_kills_cost_nothing_that_was_stored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(BOOK_FILE);
        let mut random = peerage_machine::Random::from_number(7);
        let (mut writes, mut newest, mut unmade) = (0, 0, 0);
        for kill in 0..200 {
            // Each fourth one has the file to make.
            if kill % 4 == 0 && path.exists() {
                fs::remove_file(&path).unwrap();
                newest = 0;
            }
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "store::redb_store::tests::child_that_writes_until_it_is_killed",
                    "--exact",
                    "--nocapture",
                ])
                .env(CHILD, &path)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let mut lines = lines.skip_while(|line| !line.ends_with("begins")).peekable();
            // A fourth is killed while it makes the file, a fourth while it opens one, and half at any moment of a write.
            let most = match kill % 4 {
                0 => lines.peek().map_or(0, |_| 5),
                2 => 60,
                _ => 30,
            };
            let mut numbers = lines.filter_map(|line| line.strip_prefix("stored ")?.parse::<u32>().ok());
            let first = if kill % 2 == 1 { numbers.next() } else { None };
            std::thread::sleep(random.up_to(Duration::from_millis(most)));
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().code(), None, "kill {kill}: the child failed before");
            let stored: Vec<u32> = first.into_iter().chain(numbers).collect();
            writes += stored.len();
            if !path.exists() {
                assert!(stored.is_empty() && newest == 0, "kill {kill}");
                unmade += usize::from(path.with_extension("redb.new").exists());
            } else {
                let found = RedbStore::at(&path).load().unwrap();
                assert_eq!(found.set_aside, None, "kill {kill}");
                let latest = found.peers.iter().map(|entry| entry.failures).max().unwrap_or(0);
                newest = newest.max(stored.last().copied().unwrap_or(0));
                assert!(latest >= newest, "kill {kill}: {latest} of {newest}");
                newest = latest;
            }
        }
        assert!(writes >= 100, "{writes}");
        println!("{writes} writes, {unmade} files that were not finished");
    }

    /// X-20: whoever dies while the file is made leaves none, and the next one makes it anew.
    /// Contract C-40.
    #[test]
    fn a_file_that_was_not_finished_is_made_anew_and_one_that_is_being_made_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(BOOK_FILE);
        let unfinished = path.with_extension("redb.new");
        fs::write(&unfinished, b"half of a database").unwrap();
        let maker = open_private(&unfinished, false).unwrap();
        maker.try_lock().unwrap();
        let store = RedbStore::at(&path);
        assert!(matches!(store.create(), Ok(None)), "another one is at it");
        assert_eq!(fs::read(&unfinished).unwrap(), b"half of a database");
        // He finishes, and what is there now is his.
        let other = folder.path().join("other");
        RedbStore::at(&other).load().unwrap();
        fs::rename(&other, &path).unwrap();
        drop(maker);
        assert!(matches!(store.create(), Ok(None)), "it is there");
        assert_eq!(store.load().unwrap().set_aside, None);
        drop(store);
        fs::remove_file(&path).unwrap();
        let store = RedbStore::at(&path);
        assert_eq!(store.load().unwrap().set_aside, None);
        assert!(path.exists() && !unfinished.exists());
    }

    /// X-20: the book is private, and what cannot be read is set aside.
    /// Contract C-42.
    #[test]
    fn a_corrupt_file_is_set_aside_and_the_store_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(BOOK_FILE);
        let store = RedbStore::at(&path);
        store.load().unwrap();
        let changes: Vec<_> = (0..200).map(|number| entry(number, 1)).collect();
        store.save(&changes).unwrap();
        drop(store);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o7777, 0o600, "it is its owner's alone");
        let good = fs::read(&path).unwrap();
        let mut random = peerage_machine::Random::from_number(3);
        let mut aside = 0;
        for round in 0..60 {
            let mut bytes = good.clone();
            match round % 3 {
                0 => bytes.truncate(random.index(bytes.len())),
                1 => (0..64).for_each(|_| {
                    let at = random.index(bytes.len());
                    bytes[at] ^= random.number() as u8 | 1;
                }),
                _ => bytes = b"not a database at all, but a longer text than the magic number".to_vec(),
            }
            fs::write(&path, &bytes).unwrap();
            let store = RedbStore::at(&path);
            let found = store.load().unwrap();
            if let Some((set_aside, why)) = found.set_aside {
                assert_eq!(fs::read(&set_aside).unwrap().len(), bytes.len(), "{why}");
                aside += 1;
            }
            // A defect that no reader met may still stop a writer; then the next start finds it.
            let saved = store.save(&changes);
            drop(store);
            let again = RedbStore::at(&path).load().unwrap();
            assert!(saved.is_err() || again.set_aside.is_some() || again.peers.len() >= 200, "round {round}");
        }
        assert!(aside >= 20, "{aside}");
    }

    #[test]
    fn bans_are_stored_and_removed_and_what_a_later_version_adds_to_them_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(BOOK_FILE);
        let ban =
            |target: &str| BanEntry { target: target.to_owned(), until: Some(7), ..BanEntry::default() };
        let put = |target: &str| BookChange::PutBan(Box::new(ban(target)));
        let store = RedbStore::at(&path);
        store.load().unwrap();
        store.save(&[put("192.0.2.0/24"), put("192.0.2.1/32"), entry(1, 0)]).unwrap();
        store.save(&[BookChange::RemoveBan("192.0.2.1/32".parse().unwrap())]).unwrap();
        {
            let open = store.locked();
            let transaction = open.as_ref().unwrap().begin_write().unwrap();
            let later: &[u8] = br#"{"target":"192.0.2.9/32","penalty":"of-later","weight":3}"#;
            for (key, json) in [(&b"192.0.2.9/32"[..], later), (b"x", b"{")] {
                transaction.open_table(BANS).unwrap().insert(key, json).unwrap();
            }
            transaction.commit().unwrap();
        }
        drop(store);
        let found = RedbStore::at(&path).load().unwrap();
        assert_eq!((found.peers.len(), found.bans.len()), (1, 2));
        assert_eq!(found.bans[0], ban("192.0.2.0/24"));
        let later = Ban::read(&found.bans[1]).unwrap();
        assert_eq!(
            (later.target.to_string().as_str(), later.penalty, later.until),
            ("192.0.2.9/32", None, None)
        );
    }

    /// Contract C-42.
    #[test]
    fn a_file_of_a_later_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(BOOK_FILE);
        let store = RedbStore::at(&path);
        store.load().unwrap();
        {
            let open = store.locked();
            let transaction = open.as_ref().unwrap().begin_write().unwrap();
            transaction.open_table(META).unwrap().insert(&b"format"[..], FORMAT + 1).unwrap();
            transaction.commit().unwrap();
        }
        drop(store);
        let error = RedbStore::at(&path).load().unwrap_err().to_string();
        assert!(error.contains("later version"), "{error}");
        assert!(path.exists());
    }
}
