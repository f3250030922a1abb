//! The secret of a private network, and the file that holds it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::private_file::{self, FileFault};

/// The most bytes that a secret file may have.
pub const MAX_SECRET_FILE_BYTES: usize = 4 * 1024;
/// The secrets that a node takes at once: the one in use, and those before or after it while a change goes through the network.
pub const MAX_NETWORK_SECRETS: usize = 4;
/// The least and the most bytes of a secret.
pub const NETWORK_SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;

/// A secret that all nodes of a private network share. It is in no `Debug`, and wiped from memory at its end.
///
/// Who makes one of the network's nodes connect to it can try guesses at leisure: take a random one, such as `openssl rand -hex 32` prints, not a
/// password.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkSecret(Arc<Zeroizing<Vec<u8>>>);

impl NetworkSecret {
    /// A secret in text: 16 to 256 bytes of UTF-8 without control characters. White space around it does not count.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        if !NETWORK_SECRET_BYTES.contains(&text.len()) {
            return Err(SecretError::Length { length: text.len() });
        }
        if text.contains(char::is_control) {
            return Err(SecretError::Control);
        }
        Ok(Self(Arc::new(Zeroizing::new(text.as_bytes().to_vec()))))
    }

    /// The secrets of a file that only its owner can read (mode 0600 or less): one on a line; empty lines, and those that begin with `#`, don't count. The order has no
    /// meaning.
    ///
    /// # Errors
    /// [`SecretFileError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Vec<Self>, SecretFileError> {
        let path = path.as_ref();
        let bytes = private_file::read(path, MAX_SECRET_FILE_BYTES).map_err(|found| fault(path, found))?;
        let text = str::from_utf8(&bytes).map_err(|_| SecretFileError::NotText { path: path.into() })?;
        let mut secrets = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |source| SecretFileError::Line { path: path.into(), line: index + 1, source };
            let secret = Self::new(line).map_err(invalid)?;
            if !secrets.contains(&secret) {
                secrets.push(secret);
            }
        }
        match secrets.len() {
            0 => Err(SecretFileError::Empty { path: path.into() }),
            count if count > MAX_NETWORK_SECRETS => {
                Err(SecretFileError::TooMany { path: path.into(), count })
            }
            _ => Ok(secrets),
        }
    }

    /// The secret itself. Compare what is made of it, not the secret: that takes the same time for all.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret(…)")
    }
}

fn fault(path: &Path, fault: FileFault) -> SecretFileError {
    let path = path.into();
    match fault {
        FileFault::NotFound => SecretFileError::NotFound { path },
        FileFault::Unreadable(source) => SecretFileError::Unreadable { path, source },
        FileFault::Exposed(mode) => SecretFileError::Exposed { path, mode },
        FileFault::NotAFile(kind) => SecretFileError::NotAFile { path, kind },
        FileFault::TooLarge => SecretFileError::TooLarge { path },
    }
}

/// Why a text is no network secret. It never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Too short to be hard to guess, or longer than makes sense.
    #[error(
        "a network secret of {length} bytes is not taken: give 16 to 256, such as `openssl rand -hex 32` prints"
    )]
    Length {
        /// Its bytes.
        length: usize,
    },
    /// It contains control characters.
    #[error(
        "a network secret has control characters: give printable text, such as `openssl rand -hex 32` prints"
    )]
    Control,
}

/// Why the network secrets in a file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// There is no such file.
    #[error("there is no secret file {} (make one: `umask 077; openssl rand -hex 32 > {}`)", path.display(), path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The system refused to read it.
    #[error("the secret file {} cannot be read: {source} (the node's user must own it)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read or change it.
    #[error(
        "the secret file {} has mode {mode:04o}, which lets group or others in (run `chmod 600 {}`; if others may have \
         read it, change the secret)",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is a folder, a pipe, a device or a socket.
    #[error("{} is {kind}, not a file (give the path of the secret file itself)", path.display())]
    NotAFile {
        /// What stands at the path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is larger than any secret file.
    #[error("{} has more than {MAX_SECRET_FILE_BYTES} bytes, so it is no secret file (correct the path)", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its bytes are not UTF-8.
    #[error("the secret file {} is not text: put the secret in as hex, such as `openssl rand -hex 32` prints", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// No line of it is a secret.
    #[error("the secret file {} is empty: put a secret on its first line, such as `openssl rand -hex 32` prints", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It holds more secrets than a node takes.
    #[error("the secret file {} holds {count} secrets where {MAX_NETWORK_SECRETS} are the most: take the oldest out", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A line is no secret.
    #[error("line {line} of the secret file {}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        source: SecretError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    const FIRST: &str = "0123456789abcdef0123456789abcdef";
    const SECOND: &str = "a second one that is long enough";

    fn file(content: impl AsRef<[u8]>, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_holds_one_secret_on_a_line_and_notes() {
        let (_folder, path) =
            file(format!("# in use\n{FIRST}\r\n\n# until June\n  {SECOND} \n{FIRST}\n"), 0o600);
        let secrets = NetworkSecret::load(&path).unwrap();
        let bytes: Vec<_> = secrets.iter().map(NetworkSecret::as_bytes).collect();
        assert_eq!(bytes, [FIRST.as_bytes(), SECOND.as_bytes()]);
        assert!(!format!("{secrets:?}").contains(FIRST));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        for mode in [0o640, 0o604, 0o620, 0o644, 0o777] {
            let (_folder, path) = file(FIRST, mode);
            let error = NetworkSecret::load(&path).unwrap_err();
            assert!(
                matches!(error, SecretFileError::Exposed { .. }) && error.to_string().contains("chmod 600"),
                "{error}"
            );
        }
        for mode in [0o600, 0o400] {
            let (_folder, path) = file(FIRST, mode);
            NetworkSecret::load(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_by_line_and_never_shown() {
        let short = "too short";
        let refused = |content: &[u8]| {
            let (_folder, path) = file(content, 0o600);
            let error = NetworkSecret::load(&path).unwrap_err();
            assert!(!error.to_string().contains(short), "{error}");
            error
        };
        let error = refused(format!("{FIRST}\n{short}\n").as_bytes());
        assert!(
            matches!(error, SecretFileError::Line { line: 2, source: SecretError::Length { length: 9 }, .. }),
            "{error}"
        );
        assert!(matches!(
            refused(format!("{FIRST}\x1b[2J").as_bytes()),
            SecretFileError::Line { source: SecretError::Control, .. }
        ));
        assert!(matches!(refused(b"\n# nothing\n"), SecretFileError::Empty { .. }));
        assert!(matches!(refused(&[0xff; 40]), SecretFileError::NotText { .. }));
        assert!(matches!(refused(&[b'a'; MAX_SECRET_FILE_BYTES + 1]), SecretFileError::TooLarge { .. }));
        let five: Vec<_> = (0..5).map(|number| format!("{FIRST}{number}")).collect();
        assert!(matches!(refused(five.join("\n").as_bytes()), SecretFileError::TooMany { count: 5, .. }));
        let (folder, path) = file(FIRST, 0o600);
        assert!(matches!(NetworkSecret::load(folder.path()).unwrap_err(), SecretFileError::NotAFile { .. }));
        let error = NetworkSecret::load(path.with_extension("none")).unwrap_err();
        assert!(
            matches!(error, SecretFileError::NotFound { .. }) && error.to_string().contains("openssl rand"),
            "{error}"
        );
    }
}
