//! A file on its way into the inbox: a hidden partial file that takes its final name when it is whole.
//!
//! Everything here blocks on the disk and runs on a thread made for that.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::name::{PlainName, cut};
use super::{Sum, sum};

/// How many `name (n).ext` are tried before a file is refused.
const MAX_NUMBERED: u32 = 100;

/// The part of a file's name that its partial file's name has; the rest of 255 bytes is for the sum and the dots.
const MAX_PARTIAL_STEM_BYTES: usize = 200;

/// The name of the partial file of one content under one name: `.NAME.SHA16.part`.
pub(super) fn partial_name(name: &PlainName, sum: &Sum) -> String {
    format!(".{}.{}.part", cut(name.as_str(), MAX_PARTIAL_STEM_BYTES), sum.short())
}

/// Whether a file has the name of a partial one.
pub(super) fn is_partial(name: &OsStr) -> bool {
    let Some(inner) = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".part")) else {
        return false;
    };
    inner.rsplit_once('.').is_some_and(|(name, sum)| {
        !name.is_empty() && sum.len() == 16 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// A partial file, its length and the sum so far.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
}

impl Partial {
    /// Opens what an earlier transfer left and sums it up again, or begins anew. What is longer than the file is no part of it.
    pub(super) fn open(path: &Path, size: u64) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the partial file is not a file"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path)?;
        let mut hasher = Sha256::new();
        let mut length = file.metadata()?.len();
        if length > size {
            file.set_len(0)?;
            length = 0;
        }
        let read = sum::hash_file(&mut file, length, &mut hasher, |_| true)?;
        if read != length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the partial file became shorter"));
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(Self { path: path.to_owned(), file, hasher, length })
    }

    /// How many bytes are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds all blocks that come until the sender of them is dropped.
    pub(super) fn fill(mut self, mut blocks: mpsc::Receiver<Vec<Bytes>>) -> io::Result<Self> {
        while let Some(block) = blocks.blocking_recv() {
            for chunk in &block {
                self.hasher.update(chunk);
                self.length += chunk.len() as u64;
            }
            write_all(&mut self.file, &block)?;
        }
        Ok(self)
    }

    /// Gives the whole file its final name, or removes it when it is not what was announced.
    pub(super) fn store(self, name: &PlainName, expected: &Sum) -> Result<String, StoreError> {
        let Self { path, file, hasher, .. } = self;
        let found = Sum::of(hasher);
        if found != *expected {
            let _ = fs::remove_file(&path);
            return Err(StoreError::Sum { found, expected: *expected });
        }
        file.sync_all()?;
        let length = file.metadata()?.len();
        let folder = path.parent().unwrap_or(Path::new("."));
        for n in 0..MAX_NUMBERED {
            let name = name.numbered(n);
            let place = folder.join(name.as_str());
            match rename_to_free(&path, &place) {
                Ok(()) => {
                    // The name is on the disk when its folder is.
                    let _ = File::open(folder).and_then(|folder| folder.sync_all());
                    return Ok(name.as_str().to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            if has_content(&place, length, expected) {
                fs::remove_file(&path)?;
                return Ok(name.as_str().to_owned());
            }
        }
        Err(StoreError::NoName { name: name.clone() })
    }
}

/// Why a whole file was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// The content is not what was announced.
    #[error(
        "the bytes have the SHA-256 {found}, not {expected}: they were dropped, send the file again from its start"
    )]
    Sum {
        /// What came.
        found: Sum,
        /// What was announced.
        expected: Sum,
    },
    /// Every name that was tried is taken.
    #[error("{name:?} and {MAX_NUMBERED} numbered names are taken by other files: send it under another name", name = .name.as_str())]
    NoName {
        /// The wanted name.
        name: PlainName,
    },
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The name under which the inbox has this content already: the wanted one, or a numbered one.
pub(super) fn find(folder: &Path, name: &PlainName, size: u64, sum: &Sum) -> Option<String> {
    (0..MAX_NUMBERED)
        .map(|n| name.numbered(n))
        .take_while(|name| fs::symlink_metadata(folder.join(name.as_str())).is_ok())
        .find(|name| has_content(&folder.join(name.as_str()), size, sum))
        .map(|name| name.as_str().to_owned())
}

/// Renames without replacing: the system's own way, or a link and an unlink where a file system lacks it.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

fn has_content(path: &Path, size: u64, expected: &Sum) -> bool {
    let same = || -> io::Result<bool> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.is_file() || meta.len() != size {
            return Ok(false);
        }
        let mut hasher = Sha256::new();
        let read = sum::hash_file(&mut File::open(path)?, size, &mut hasher, |_| true)?;
        Ok(read == size && Sum::of(hasher) == *expected)
    };
    same().unwrap_or(false)
}

/// Writes many small chunks with few calls.
fn write_all(file: &mut File, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<io::IoSlice<'_>> = chunks.iter().map(|chunk| io::IoSlice::new(chunk)).collect();
    let mut left = slices.as_mut_slice();
    io::IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => io::IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial_in(folder: &Path, name: &PlainName, content: &[u8]) -> Partial {
        let sum = Sum::of(Sha256::new_with_prefix(content));
        let path = folder.join(partial_name(name, &sum));
        fs::write(&path, content).unwrap();
        Partial::open(&path, content.len() as u64).unwrap()
    }

    #[test]
    fn nothing_is_overwritten_and_the_same_content_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let name = PlainName::parse("a.txt").unwrap();
        let store = |content: &[u8]| {
            let sum = Sum::of(Sha256::new_with_prefix(content));
            partial_in(folder.path(), &name, content).store(&name, &sum).unwrap()
        };
        assert_eq!(store(b"one"), "a.txt");
        assert_eq!(store(b"two"), "a (1).txt");
        assert_eq!(store(b"one"), "a.txt");
        assert_eq!(store(b"two"), "a (1).txt");
        assert_eq!(fs::read(folder.path().join("a.txt")).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let two = Sum::of(Sha256::new_with_prefix(b"two"));
        assert_eq!(find(folder.path(), &name, 3, &two).as_deref(), Some("a (1).txt"));
        assert_eq!(find(folder.path(), &name, 4, &two), None);
    }

    #[test]
    fn a_wrong_sum_removes_the_partial_file() {
        let folder = tempfile::tempdir().unwrap();
        let name = PlainName::parse("a").unwrap();
        let other = Sum::of(Sha256::new_with_prefix(b"other"));
        let error = partial_in(folder.path(), &name, b"one").store(&name, &other).unwrap_err();
        assert!(matches!(error, StoreError::Sum { .. }));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_place_of_the_partial_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, b"precious").unwrap();
        let path = folder.path().join(".a.0123456789abcdef.part");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(Partial::open(&path, 3).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn partial_names_fit_and_are_known_again() {
        let sum = Sum::of(Sha256::new());
        for name in ["a".to_owned(), "ü".repeat(127)] {
            let partial = partial_name(&PlainName::parse(&name).unwrap(), &sum);
            assert!(partial.len() <= 255 && is_partial(OsStr::new(&partial)), "{partial}");
        }
        for other in ["a", ".a.part", ".part", "a.0123456789abcdef.part", ".a.0123456789abcdeg.part"] {
            assert!(!is_partial(OsStr::new(other)), "{other}");
        }
    }

    #[test]
    fn many_chunks_are_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let chunks: Vec<Bytes> =
            (0..3000u32).map(|n| Bytes::from(n.to_le_bytes()[..(n % 5) as usize].to_vec())).collect();
        write_all(&mut File::create(&path).unwrap(), &chunks).unwrap();
        assert_eq!(fs::read(&path).unwrap(), chunks.concat());
    }
}
