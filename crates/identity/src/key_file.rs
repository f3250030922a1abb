//! A node key in a file: readable by its owner alone, created in one step, never overwritten.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::key::NodeKey;
use crate::pem::PemError;
use crate::private_file::{self, FileFault};

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
        let text = private_file::read(path, MAX_KEY_FILE_BYTES).map_err(|found| fault(path, found))?;
        let invalid = |source| KeyFileError::Invalid { path: path.into(), source };
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
        let name =
            path.file_name().ok_or_else(|| KeyFileError::NotAFile { path: path.into(), kind: "a folder" })?;
        let key = Self::generate();
        write_new(path, name, key.to_pem().as_bytes()).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::AlreadyExists { path: path.into() },
            _ => KeyFileError::Unwritable { path: path.into(), source },
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

fn fault(path: &Path, fault: FileFault) -> KeyFileError {
    let path = path.into();
    match fault {
        FileFault::NotFound => KeyFileError::NotFound { path },
        FileFault::Unreadable(source) => KeyFileError::Unreadable { path, source },
        FileFault::Exposed(mode) => KeyFileError::Exposed { path, mode },
        FileFault::NotAFile(kind) => KeyFileError::NotAFile { path, kind },
        FileFault::TooLarge => KeyFileError::TooLarge { path },
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
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::sync::Barrier;
    use std::thread;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// A file with this content that only its owner can read.
    fn file(folder: &tempfile::TempDir, content: impl AsRef<[u8]>) -> PathBuf {
        let path = folder.path().join("node.key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The refusal's message, which must name the file.
    fn message(error: &KeyFileError, path: &Path) -> String {
        let message = error.to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
        message
    }

    #[test]
    fn a_created_key_is_private_and_loads_again() {
        let folder = folder();
        let path = folder.path().join("node.key");
        let key = NodeKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), *key.to_pem());
        assert_eq!(NodeKey::load(&path).unwrap().peer_id(), key.peer_id());
        assert_eq!(names(&folder), ["node.key"]);
    }

    #[test]
    fn a_key_without_a_folder_in_its_path_is_written_to_the_working_folder() {
        let name = PathBuf::from(format!("peerage-test-{}.key", std::process::id()));
        let created = NodeKey::create(&name);
        let _ = fs::remove_file(&name);
        assert!(created.is_ok(), "{created:?}");
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let folder = folder();
        let path = file(&folder, "precious");
        let error = NodeKey::create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::AlreadyExists { .. }));
        assert!(message(&error, &path).contains("never overwritten"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(names(&folder), ["node.key"]);
    }

    #[test]
    fn a_missing_file_is_not_found_and_created_only_when_asked_to() {
        let folder = folder();
        let path = folder.path().join("node.key");
        let error = NodeKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::NotFound { .. }));
        assert!(message(&error, &path).contains("create one"));
        let key = NodeKey::load_or_create(&path).unwrap();
        assert_eq!(NodeKey::load_or_create(&path).unwrap().peer_id(), key.peer_id());
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let folder = folder();
        // A file in the place of a folder: a permission would not stop the superuser, who may run this test.
        let path = file(&folder, "").join("node.key");
        let error = NodeKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Unreadable { .. }), "{error:?}");
        assert!(message(&error, &path).contains("cannot be read"));
        let error = NodeKey::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Unreadable { .. }), "{error:?}");
    }

    #[test]
    fn a_file_that_cannot_be_written_says_why() {
        let folder = folder();
        let path = folder.path().join("missing").join("node.key");
        let error = NodeKey::create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Unwritable { .. }));
        assert!(message(&error, &path).contains("folder must exist"));
    }

    #[test]
    fn a_file_that_others_can_read_or_write_is_refused_with_its_mode_and_the_command() {
        let folder = folder();
        let path = file(&folder, NodeKey::generate().to_pem().as_bytes());
        for mode in [0o640, 0o604, 0o620, 0o601, 0o644, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = NodeKey::load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Exposed { mode: found, .. } if found == mode));
            let message = message(&error, &path);
            assert!(message.contains(&format!("mode {mode:04o}")), "{message}");
            assert!(message.contains(&format!("chmod 600 {}", path.display())), "{message}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(NodeKey::load(&path).is_ok());
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_with_the_reason() {
        let folder = folder();
        for (content, reason) in [
            (&b""[..], "not PEM"),
            (b"\xff\xfe", "not PEM"),
            (b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw", "cut short"),
            (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "`CERTIFICATE`"),
        ] {
            let path = file(&folder, content);
            let error = NodeKey::load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Invalid { .. }));
            let message = message(&error, &path);
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn a_file_larger_than_any_key_is_not_read_to_its_end() {
        let folder = folder();
        let mut content = NodeKey::generate().to_pem().as_bytes().to_vec();
        content.resize(MAX_KEY_FILE_BYTES, b'\n');
        assert!(NodeKey::load(file(&folder, &content)).is_ok());
        content.push(b'\n');
        let path = file(&folder, &content);
        let error = NodeKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::TooLarge { .. }));
        assert!(message(&error, &path).contains("16384"));
        assert!(matches!(
            NodeKey::load("/dev/zero").unwrap_err(),
            KeyFileError::NotAFile { kind: "a device", .. }
        ));
    }

    #[test]
    fn a_folder_a_pipe_or_a_socket_is_refused_at_once() {
        let folder = folder();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, expected) in [(folder.path(), "a folder"), (&pipe, "a pipe"), (&socket, "a socket")] {
            let error = NodeKey::load_or_create(path).unwrap_err();
            assert!(matches!(error, KeyFileError::NotAFile { kind, .. } if kind == expected), "{error:?}");
            assert!(message(&error, path).contains(expected));
        }
        assert!(matches!(NodeKey::create("/").unwrap_err(), KeyFileError::NotAFile { .. }));
    }

    #[test]
    fn a_symbolic_link_is_followed_for_reading_and_never_replaced() {
        let folder = folder();
        let target = file(&folder, NodeKey::generate().to_pem().as_bytes());
        let link = folder.path().join("link");
        symlink(&target, &link).unwrap();
        assert!(NodeKey::load(&link).is_ok());
        let dangling = folder.path().join("dangling");
        symlink(folder.path().join("nowhere"), &dangling).unwrap();
        assert!(matches!(NodeKey::create(&dangling).unwrap_err(), KeyFileError::AlreadyExists { .. }));
        assert!(matches!(NodeKey::load_or_create(&dangling).unwrap_err(), KeyFileError::NotFound { .. }));
    }

    /// Runs `make` eight times at once on one path.
    fn at_once<T: Send>(make: impl Fn() -> T + Sync) -> Vec<T> {
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        make()
                    })
                })
                .collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        })
    }

    /// the key file is written at once, or not at all.
    #[test]
    fn of_creators_at_once_one_wins_and_its_key_is_in_the_file() {
        for _ in 0..20 {
            let folder = folder();
            let path = folder.path().join("node.key");
            let (won, lost): (Vec<_>, Vec<_>) =
                at_once(|| NodeKey::create(&path)).into_iter().partition(Result::is_ok);
            assert_eq!((won.len(), lost.len()), (1, 7));
            let is_taken = |result: &Result<_, _>| matches!(result, Err(KeyFileError::AlreadyExists { .. }));
            assert!(lost.iter().all(is_taken));
            let winner = won[0].as_ref().unwrap();
            assert_eq!(NodeKey::load(&path).unwrap().peer_id(), winner.peer_id());
            assert_eq!(names(&folder), ["node.key"]);
        }
    }

    #[test]
    fn all_who_load_or_create_at_once_get_one_key() {
        for _ in 0..20 {
            let folder = folder();
            let path = folder.path().join("node.key");
            let keys = at_once(|| NodeKey::load_or_create(&path).unwrap().peer_id());
            assert!(keys.iter().all(|key| *key == keys[0]));
        }
    }
}
