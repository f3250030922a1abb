use super::*;
use peerage_identity::NodeKey;
use peerage_peers::{Ban, BanEntry, BookEntry};
use redb::StorageBackend;
use redb::backends::FileBackend;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const CHILD: &str = "PEERAGE_TEST_STORE";

fn entry(number: u64, failures: u32) -> BookChange {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let peer = NodeKey::from_seed(seed).peer_id().to_string();
    BookChange::Put(Box::new(BookEntry { peer, failures, ..BookEntry::default() }))
}

/// The disk under a store, which can be full for a while.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    full: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
}

/// A file on it.
#[derive(Debug)]
struct OnDisk(FileBackend, Arc<AtomicBool>);

impl Disk {
    pub(super) fn under(&self, file: File) -> Result<impl StorageBackend, DatabaseError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(OnDisk(FileBackend::new(file)?, self.full.clone()))
    }

    fn is_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }
}

impl OnDisk {
    fn room(&self) -> io::Result<()> {
        match self.1.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()?;
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

fn row(key: &str, value: &str) -> RowChange {
    (Bytes::copy_from_slice(key.as_bytes()), Some(Bytes::copy_from_slice(value.as_bytes())))
}

/// The rows of a file that nobody has open, as texts.
fn rows_in(path: &Path) -> BTreeMap<String, String> {
    let store = RedbStore::at(path);
    assert_eq!(store.load().unwrap().set_aside, None);
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    store.load_rows().unwrap().iter().map(|(key, value)| (text(key), text(value))).collect()
}

/// Whoever hands changes in again until they are stored loses none of them, whether they were durable or not.
#[tokio::test(start_paused = true)]
async fn a_store_goes_on_when_the_disk_has_room_again_and_has_all_that_was_written_before_during_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(BOOK_FILE);
    let store = RedbStore::at(&path);
    store.load().unwrap();
    store.save_rows(&[row("durable", "1"), row("gone", "1"), row("changed", "1")], true).unwrap();
    // Durable with a change of the book.
    store.save_rows(&[row("early", "1")], false).unwrap();
    store.save(&[entry(1, 1)]).unwrap();
    store.save_rows(&[row("late", "1"), row("changed", "2"), row("late and gone", "1")], false).unwrap();
    store.save_rows(&[(Bytes::from_static(b"gone"), None)], false).unwrap();
    store.save_rows(&[(Bytes::from_static(b"late and gone"), None)], false).unwrap();
    store.disk.is_full(true);
    assert!(store.save_rows(&[row("during", "1")], true).is_err());
    assert!(store.save(&[entry(2, 1)]).is_err());
    // It is opened at most once in a second, which takes a look at all of it.
    let opened = || store.disk.opened.load(Ordering::Relaxed);
    let before = opened();
    for _ in 0..50 {
        tokio::time::advance(RETRY / 10).await;
        assert!(store.save_rows(&[row("during", "1")], false).is_err());
    }
    assert_eq!(opened() - before, 5);
    store.disk.is_full(false);
    tokio::time::advance(RETRY).await;
    store.save_rows(&[row("during", "1")], true).unwrap();
    store.save(&[entry(2, 1)]).unwrap();
    // A second failure is like the first.
    store.save_rows(&[row("between", "1")], false).unwrap();
    store.disk.is_full(true);
    assert!(store.save(&[entry(3, 1)]).is_err());
    store.disk.is_full(false);
    tokio::time::advance(RETRY).await;
    assert_eq!(store.load_rows().unwrap().len(), 6, "what is read is what was written, too");
    store.save_rows(&[row("after", "1")], false).unwrap();
    store.save(&[entry(3, 1)]).unwrap();
    drop(store);
    let expected = ["after", "between", "changed", "durable", "during", "early", "late"]
        .map(|key| (key.to_owned(), if key == "changed" { "2" } else { "1" }.to_owned()));
    assert_eq!(rows_in(&path), BTreeMap::from(expected));
    assert_eq!(RedbStore::at(&path).load().unwrap().peers.len(), 3);
}

/// X-29: what waits to be made durable is made so when there is too much of it.
#[test]
fn rows_that_are_not_durable_yet_are_kept_up_to_a_mebibyte() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::at(folder.path().join(BOOK_FILE));
    store.load().unwrap();
    let value = "x".repeat(10_000);
    let bytes = || store.locked().unsynced.bytes;
    let mut most = 0;
    for number in 0..300 {
        store.save_rows(&[row(&number.to_string(), &value)], false).unwrap();
        most = most.max(bytes());
    }
    assert!((1 << 20..(1 << 20) + 11_000).contains(&most), "{most}");
    assert!(bytes() < 1 << 20);
}

/// Which change a number of the child below stands for. Of the rows there are fifty.
fn row_of(number: u32) -> Option<String> {
    (!number.is_multiple_of(8)).then(|| format!("row {}", number % 50))
}

/// The highest number that is stored.
fn newest_in(found: &Stored, rows: &BTreeMap<String, String>) -> u32 {
    let peers = found.peers.iter().map(|entry| entry.failures);
    let rows = rows.values().map(|number| number.parse().unwrap());
    peers.chain(rows).max().unwrap_or(0)
}

/// The child of the test below: writes a counter as fast as it can, and prints each number once it is stored, or taken where that need not be durable.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = RedbStore::at(&path);
    println!("begins");
    let found = store.load().unwrap();
    assert_eq!(found.set_aside, None);
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let rows = store.load_rows().unwrap().iter().map(|(key, value)| (text(key), text(value))).collect();
    for number in newest_in(&found, &rows) + 1.. {
        let durable = number.is_multiple_of(4);
        match row_of(number) {
            Some(key) => store.save_rows(&[row(&key, &number.to_string())], durable).unwrap(),
            None => store.save(&[entry(u64::from(number % 50), number)]).unwrap(),
        }
        println!("{} {number}", if durable { "stored" } else { "taken" });
    }
}

/// X-20: a book opens after each of 200 kills at random moments, and has lost nothing that was durable. Of what was not, the newest is lost and nothing else.
/// Contract C-40.
#[test]
fn two_hundred_kills_cost_nothing_that_was_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(BOOK_FILE);
    let mut random = peerage_machine::Random::from_number(7);
    let (mut writes, mut newest, mut unmade, mut lost) = (0, 0, 0, 0);
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
        let number = |line: String| {
            let (how, number) = line.split_once(' ')?;
            Some((how == "stored", number.parse::<u32>().ok()?))
        };
        let mut numbers = lines.filter_map(number);
        let first = if kill % 2 == 1 { numbers.next() } else { None };
        std::thread::sleep(random.up_to(Duration::from_millis(most)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "kill {kill}: the child failed before");
        let taken: Vec<(bool, u32)> = first.into_iter().chain(numbers).collect();
        writes += taken.len();
        if !path.exists() {
            assert!(taken.is_empty() && newest == 0, "kill {kill}");
            unmade += usize::from(path.with_extension("redb.new").exists());
        } else {
            let found = RedbStore::at(&path).load().unwrap();
            assert_eq!(found.set_aside, None, "kill {kill}");
            let rows = rows_in(&path);
            let latest = newest_in(&found, &rows);
            let durable = taken.iter().filter(|(durable, _)| *durable).map(|(_, number)| *number);
            newest = newest.max(durable.max().unwrap_or(0));
            assert!(latest >= newest, "kill {kill}: {latest} of {newest}");
            let all = taken.last().map_or(newest, |(_, number)| *number);
            lost += all.saturating_sub(latest);
            let expected: BTreeMap<_, _> =
                (1..=latest).filter_map(|number| Some((row_of(number)?, number.to_string()))).collect();
            assert_eq!(rows, expected, "kill {kill}: the newest go first");
            newest = latest;
        }
    }
    assert!(writes >= 100, "{writes}");
    println!("{writes} writes, {lost} that were not durable lost, {unmade} files that were not finished");
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
    let ban = |target: &str| BanEntry { target: target.to_owned(), until: Some(7), ..BanEntry::default() };
    let put = |target: &str| BookChange::PutBan(Box::new(ban(target)));
    let store = RedbStore::at(&path);
    store.load().unwrap();
    store.save(&[put("192.0.2.0/24"), put("192.0.2.1/32"), entry(1, 0)]).unwrap();
    store.save(&[BookChange::RemoveBan("192.0.2.1/32".parse().unwrap())]).unwrap();
    {
        let opened = store.locked();
        let transaction = opened.database.as_ref().unwrap().begin_write().unwrap();
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
    assert_eq!((later.target.to_string().as_str(), later.penalty, later.until), ("192.0.2.9/32", None, None));
}

/// Contract C-42.
#[test]
fn a_file_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(BOOK_FILE);
    let store = RedbStore::at(&path);
    store.load().unwrap();
    {
        let opened = store.locked();
        let transaction = opened.database.as_ref().unwrap().begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(&b"format"[..], FORMAT + 1).unwrap();
        transaction.commit().unwrap();
    }
    drop(store);
    let error = RedbStore::at(&path).load().unwrap_err().to_string();
    assert!(error.contains("later version"), "{error}");
    assert!(path.exists());
}

/// What redb does nothing more after closes the file, which is opened again; what concerns one write alone does not.
#[tokio::test(start_paused = true)]
async fn a_file_that_takes_nothing_more_is_closed_and_opened_again_and_any_other_stays_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(BOOK_FILE);
    let store = RedbStore::at(&path);
    store.load().unwrap();
    let opened = || store.disk.opened.load(Ordering::Relaxed);
    let here = std::panic::Location::caller();
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let mut rows = 0;
    let mut fails = |error: redb::Error| {
        rows += 1;
        store.save_rows(&[row(&format!("row {rows}"), "1")], false).unwrap();
        let told = store.with_open(|_, _| Err::<(), _>(error)).unwrap_err().to_string();
        assert!(told.contains(path.to_str().unwrap()), "{told}");
        store.save_rows(&[], false)
    };
    for error in [redb::Error::ValueTooLarge(5), redb::Error::Corrupted("one page".to_owned())] {
        fails(error).unwrap();
    }
    assert_eq!(opened(), 1);
    let latched = [redb::Error::LockPoisoned(here), redb::Error::PreviousIo, redb::Error::Io(full())];
    for (number, error) in (2..).zip(latched) {
        let told = fails(error).unwrap_err().to_string();
        assert!(told.contains("in a moment"), "{told}");
        tokio::time::advance(RETRY).await;
        store.save_rows(&[], false).unwrap();
        assert_eq!(opened(), number);
    }
    // After a panic redb says itself whether anything is broken: at the next use.
    let before = opened();
    let told = store.with_open::<()>(|_, _| panic!("a page that contradicts another")).unwrap_err();
    assert!(told.to_string().contains("contradict"), "{told}");
    store.save(&[entry(1, 1)]).unwrap();
    assert_eq!(opened(), before);
    drop(store);
    let expected = (1..=5).map(|number| (format!("row {number}"), "1".to_owned()));
    assert_eq!(rows_in(&path), expected.collect(), "nothing that was taken is lost");
}

/// An empty file in the place of one that is gone would look like a node that never had any records or bans.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_after_a_failure_is_not_made_anew_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (folder.path().join(BOOK_FILE), folder.path().join("elsewhere"));
    let store = RedbStore::at(&path);
    store.load().unwrap();
    store.save(&[entry(1, 1)]).unwrap();
    store.save_rows(&[row("late", "1")], false).unwrap();
    store.disk.is_full(true);
    assert!(store.save(&[entry(2, 1)]).is_err());
    store.disk.is_full(false);
    fs::rename(&path, &elsewhere).unwrap();
    for _ in 0..3 {
        tokio::time::advance(RETRY).await;
        let told = store.save(&[entry(2, 1)]).unwrap_err().to_string();
        assert!(told.contains("it is gone") && told.contains(path.to_str().unwrap()), "{told}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
    fs::rename(&elsewhere, &path).unwrap();
    tokio::time::advance(RETRY).await;
    store.save(&[entry(2, 1)]).unwrap();
    drop(store);
    assert_eq!(rows_in(&path), BTreeMap::from([("late".to_owned(), "1".to_owned())]));
    assert_eq!(RedbStore::at(&path).load().unwrap().peers.len(), 2);
}
