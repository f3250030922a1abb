//! The store in one file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peerage_peers::BookChange;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::saving::RETRY;
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
/// Rows that redb has taken and has yet to make durable, in bytes; with more the next change of rows is a durable one.
pub(crate) const MAX_UNSYNCED_BYTES: usize = 1 << 20;
/// What a row among them takes beside its key and its value.
const UNSYNCED_ROW_BYTES: usize = 128;
/// Entries that are read of a table: more than any address book holds.
const MAX_ENTRIES: usize = 1_000_000;
/// How long a node of this process that has just ended may take to close the file: so many looks, this far apart.
const LOOKS: u32 = 40;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A store in one file, which is made on first use and readable by its owner only.
///
/// redb writes nothing more to a file once it has failed to. The file is closed then and opened again at the next use, a second later at the earliest.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    opened: Mutex<Opened>,
    #[cfg(test)]
    disk: tests::Disk,
}

/// The open file.
#[derive(Debug, Default)]
struct Opened {
    /// `None` before it is loaded, and after a failure.
    database: Option<Database>,
    /// When it failed, until it is open again.
    failed: Option<Instant>,
    unsynced: Unsynced,
}

/// Rows that redb has taken and has not made durable: when a later write fails, it forgets them.
#[derive(Debug, Default)]
struct Unsynced {
    rows: BTreeMap<Bytes, Option<Bytes>>,
    /// What they take, at most.
    bytes: usize,
}

impl Unsynced {
    fn add(&mut self, changes: &[RowChange]) {
        for (key, value) in changes {
            self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + UNSYNCED_ROW_BYTES;
            self.rows.insert(key.clone(), value.clone());
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= MAX_UNSYNCED_BYTES
    }

    /// Everything is durable.
    fn clear(&mut self) {
        *self = Self::default();
    }
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
        Self {
            path: path.into(),
            opened: Mutex::default(),
            #[cfg(test)]
            disk: tests::Disk::default(),
        }
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
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        #[cfg(not(test))]
        let opened = builder.create_file(file);
        #[cfg(test)]
        let opened = self.disk.under(file).and_then(|disk| builder.create_with_backend(disk));
        match opened {
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
    fn with_open<T>(
        &self,
        run: impl FnOnce(&Database, &mut Unsynced) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut opened = self.locked();
        if opened.failed.is_some() {
            self.open_again(&mut opened)?;
        }
        let Opened { database, unsynced, failed } = &mut *opened;
        let Some(open) = database else { return Err(self.error("it was not loaded")) };
        let done = match catch_unwind(AssertUnwindSafe(|| run(open, unsynced))) {
            Ok(Ok(done)) => return Ok(done),
            // The rest of the file is as good as it was.
            Ok(Err(error)) if !is_latched(&error) => return Err(self.error(error.to_string())),
            Err(_) => return Err(self.error("its pages contradict one another")),
            Ok(Err(error)) => error.to_string(),
        };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database.take())));
        *failed = Some(Instant::now());
        Err(self.error(done))
    }

    /// Opens the file after a failure, and writes the rows that redb has forgotten by that.
    fn open_again(&self, opened: &mut Opened) -> Result<(), StoreError> {
        if opened.failed.is_some_and(|failed| failed.elapsed() < RETRY) {
            return Err(self.error("it has just failed, and is opened again in a moment"));
        }
        // A file that was there is not made anew: what it held would seem lost.
        if !self.path.exists() {
            opened.failed = Some(Instant::now());
            return Err(self.error("it is gone, with the volume that it was on perhaps"));
        }
        let opening = catch_unwind(AssertUnwindSafe(|| {
            let database = self.open()?;
            self.prepare(&database)?;
            let rows = opened.unsynced.rows.iter();
            write_rows(&database, rows, Durability::Immediate).map_err(|error| self.fault(error))?;
            Ok(database)
        }));
        let why = match opening {
            Ok(Ok(database)) => {
                *opened = Opened { database: Some(database), ..Opened::default() };
                return Ok(());
            }
            Ok(Err(Fault::Other(error))) => error,
            Ok(Err(Fault::Corrupt(detail))) => self.error(detail),
            Err(_) => self.error("its pages contradict one another"),
        };
        opened.failed = Some(Instant::now());
        Err(why)
    }

    fn fault(&self, error: redb::Error) -> Fault {
        match error {
            redb::Error::Io(io) if !is_content(&io) => self.failed(&io),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockPoisoned(_) => self.failed(&error),
            error => Fault::Corrupt(error.to_string()),
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Fault {
        Fault::Other(self.error(error.to_string()))
    }

    fn error(&self, detail: impl Into<String>) -> StoreError {
        StoreError::Failed { path: self.path.clone(), detail: detail.into() }
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

    fn locked(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for RedbStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let mut opened = self.locked();
        *opened = Opened::default();
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
        opened.database = Some(database);
        Ok(stored)
    }

    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError> {
        self.with_open(|database, unsynced| {
            self.write(database, changes)?;
            unsynced.clear();
            Ok(())
        })
    }

    fn load_rows(&self) -> Result<Vec<Row>, StoreError> {
        self.with_open(|database, _| {
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
        self.with_open(|database, unsynced| {
            let durable = durable || unsynced.is_full();
            let durability = if durable { Durability::Immediate } else { Durability::None };
            write_rows(database, changes.iter().map(|(key, value)| (key, value)), durability)?;
            match durable {
                true => unsynced.clear(),
                false => unsynced.add(changes),
            }
            Ok(())
        })
    }
}

/// Whether redb does nothing more to the file after this.
fn is_latched(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::LockPoisoned(_))
}

fn write_rows<'a>(
    database: &Database,
    changes: impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>,
    durability: Durability,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
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
mod tests;
