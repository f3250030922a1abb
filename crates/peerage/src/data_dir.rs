//! A node's data directory: its key, and a lock that only one running node holds.
//!
//! A directory is taken for ours when it is new, empty, or holds `node.key`. Anything else is refused, so that a mistyped path never
//! puts a key among somebody's documents.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use peerage_identity::{KeyFileError, NodeKey};

/// The key's file name in a data directory.
pub const KEY_FILE: &str = "node.key";
/// The lock's file name in a data directory.
const LOCK_FILE: &str = "node.lock";

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// The path leads to something that is not a directory.
    #[error("{} is not a directory: name another one as data directory", .path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// It holds other things, and no key of ours.
    #[error(
        "{} is not a Peerage data directory: it holds {found:?} and no {KEY_FILE}; name an empty or a new directory",
        .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// Another process runs a node on it.
    #[error("{} is in use by another running node: stop that one, or name another data directory", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("the data directory {} cannot be used: {source}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Its key is not usable.
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

/// An open data directory. The lock is held until this is dropped; the operating system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens `path`, or makes it (readable by its owner only).
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                return Err(DataDirError::NotADirectory { path: path.to_owned() });
            }
            Ok(_) => refuse_foreign(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_private(path).map_err(io)?,
            Err(error) => return Err(io(error)),
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// Where the address book is kept.
    pub(crate) fn book(&self) -> PathBuf {
        self.path.join(crate::store::BOOK_FILE)
    }

    /// The node's key, made on first use.
    pub(crate) fn key(&self) -> Result<NodeKey, DataDirError> {
        Ok(NodeKey::load_or_create(self.path.join(KEY_FILE))?)
    }
}

fn refuse_foreign(path: &Path) -> Result<(), DataDirError> {
    let io = |source| DataDirError::Io { path: path.to_owned(), source };
    let mut found = None;
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if name == KEY_FILE || name == LOCK_FILE {
            return Ok(());
        }
        found.get_or_insert(name);
    }
    match found {
        Some(name) => {
            let found = name.to_string_lossy().into_owned();
            Err(DataDirError::Foreign { path: path.to_owned(), found })
        }
        None => Ok(()),
    }
}

fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_while_it_is_open_and_keeps_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let first = DataDir::open(&path).unwrap();
        let key = first.key().unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked { .. })));
        drop(first);
        let again = DataDir::open(&path).unwrap();
        assert_eq!(again.key().unwrap().peer_id(), key.peer_id());
    }

    #[test]
    fn a_directory_with_other_things_in_it_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("letter.txt"), "dear").unwrap();
        let error = DataDir::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("letter.txt"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let file = folder.path().join("letter.txt");
        assert!(matches!(DataDir::open(&file), Err(DataDirError::NotADirectory { .. })));
    }
}
