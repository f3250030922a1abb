//! A node key in a file: readable by its owner alone, created in one step, never overwritten.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::key::NodeKey;
use crate::pem::PemError;

/// The most bytes that a key file may have. An Ed25519 key takes 119.
pub const MAX_KEY_FILE_BYTES: usize = 16 * 1024;

/// Why a key file was not read or not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is no such file.
    #[error("there is no key file {} (create one, or correct the path)", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The system refused to read it.
    #[error("the key file {} cannot be read: {source} (the node's user must own it)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read or change it.
    #[error(
        "the key file {} has mode {mode:04o}, which lets group or others in (run `chmod 600 {}`; if others \
         may have read it, make a new key)",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is a folder, a pipe, a device or a socket.
    #[error("{} is {kind}, not a file (give the path of the key file itself)", path.display())]
    NotAFile {
        /// What stands at the path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is larger than any key file.
    #[error(
        "{} has more than {MAX_KEY_FILE_BYTES} bytes, so it is no key file (correct the path)",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its content is not a node key.
    #[error("the key file {} cannot be used: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the content is instead.
        source: PemError,
    },
    /// A key is never overwritten.
    #[error(
        "{} already exists and a key file is never overwritten (load it, or move it away first)",
        path.display()
    )]
    AlreadyExists {
        /// What stands there already.
        path: PathBuf,
    },
    /// The system refused to write it.
    #[error(
        "the key file {} cannot be created: {source} (its folder must exist, be writable, and lie on a file system \
         with hard links)",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl NodeKey {
    /// Reads the key from a file that only its owner can read (mode 0600 or less). Symbolic links are followed; what they
    /// lead to must be a regular file of at most [`MAX_KEY_FILE_BYTES`]. The file is opened once, and it is the opened file that is checked.
    ///
    /// # Errors
    /// [`KeyFileError`], any but `AlreadyExists` and `Unwritable`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let text = read(path)?;
        let invalid = |source| KeyFileError::Invalid {
            path: path.into(),
            source,
        };
        let text = str::from_utf8(&text).map_err(|_| invalid(PemError::NotPem))?;
        Self::from_pem(text).map_err(invalid)
    }

    /// Makes a new key and writes it to a file that did not exist, with mode 0600.
    ///
    /// The file appears whole or not at all: the key is written and flushed under another name in the same folder, then linked to its
    /// own name, which fails when that is taken, and the folder is flushed. A crash in between may leave a hidden `.tmp` file behind, never half a
    /// key file.
    ///
    /// # Errors
    /// [`KeyFileError::AlreadyExists`], [`KeyFileError::NotAFile`] and [`KeyFileError::Unwritable`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let name = path.file_name().ok_or_else(|| KeyFileError::NotAFile {
            path: path.into(),
            kind: "a folder",
        })?;
        let key = Self::generate();
        write_new(path, name, key.to_pem().as_bytes()).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::AlreadyExists { path: path.into() },
            _ => KeyFileError::Unwritable {
                path: path.into(),
                source,
            },
        })?;
        Ok(key)
    }

    /// Reads the key file, or creates it when there is none. Of several that do this at once one creates, and all get the same key.
    ///
    /// # Errors
    /// Any [`KeyFileError`]; `NotFound` only for a symbolic link that leads nowhere.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(KeyFileError::NotFound { .. }) => match Self::create(path) {
                Err(KeyFileError::AlreadyExists { .. }) => Self::load(path),
                created => created,
            },
            loaded => loaded,
        }
    }
}

/// Opens, checks and reads a file, in this order, on one handle.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable {
        path: path.into(),
        source,
    };
    let file = open(path)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if let Some(kind) = special(&metadata) {
        return Err(KeyFileError::NotAFile {
            path: path.into(),
            kind,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.into(),
            mode,
        });
    }
    // All the room at once: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES + 1));
    file.take(MAX_KEY_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_KEY_FILE_BYTES {
        return Err(KeyFileError::TooLarge { path: path.into() });
    }
    Ok(bytes)
}

fn open(path: &Path) -> Result<File, KeyFileError> {
    // Without NONBLOCK the open of a pipe waits for a writer.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    opened.map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            return KeyFileError::NotFound { path: path.into() };
        }
        // A socket cannot even be opened, and the system's word for that helps nobody.
        match fs::metadata(path).ok().as_ref().and_then(special) {
            Some(kind) => KeyFileError::NotAFile {
                path: path.into(),
                kind,
            },
            None => KeyFileError::Unreadable {
                path: path.into(),
                source,
            },
        }
    })
}

/// What stands at a path when it is not a regular file.
fn special(metadata: &fs::Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

fn write_new(path: &Path, name: &OsStr, content: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = Temporary::create(folder, name, content)?;
    fs::hard_link(&temporary.0, path)?;
    drop(temporary);
    File::open(folder)?.sync_all()
}

/// A file that is gone when this is dropped; another name linked to it stays.
struct Temporary(PathBuf);

impl Temporary {
    fn create(folder: &Path, name: &OsStr, content: &[u8]) -> io::Result<Self> {
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.tmp", u64::from_le_bytes(salt)));
        let path = folder.join(hidden);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let temporary = Self(path);
        file.write_all(content)?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing can be done about a file that cannot be removed, and it is as private as the key file.
        let _ = fs::remove_file(&self.0);
    }
}
