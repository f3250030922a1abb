//! Reading files that hold secrets: regular files that only their owner can read, of a bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// Why such a file was not read.
#[derive(Debug)]
pub(crate) enum FileFault {
    /// Nothing stands at the path.
    NotFound,
    /// The system refused.
    Unreadable(io::Error),
    /// Others than the owner can read or change it: its permission bits.
    Exposed(u32),
    /// It is something else than a file: what.
    NotAFile(&'static str),
    /// It has more bytes than such a file ever has.
    TooLarge,
}

/// Opens, checks and reads a file, in this order, on one handle. Symbolic links are followed.
pub(crate) fn read(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(FileFault::Unreadable)?;
    if let Some(kind) = special(&metadata) {
        return Err(FileFault::NotAFile(kind));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileFault::Exposed(mode));
    }
    // All the room at once: a buffer that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(FileFault::Unreadable)?;
    if bytes.len() > most { Err(FileFault::TooLarge) } else { Ok(bytes) }
}

fn open(path: &Path) -> Result<File, FileFault> {
    // Without NONBLOCK the open of a pipe waits for a writer.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            return FileFault::NotFound;
        }
        // A socket cannot even be opened, and the system's word for that helps nobody.
        match fs::metadata(path).ok().as_ref().and_then(special) {
            Some(kind) => FileFault::NotAFile(kind),
            None => FileFault::Unreadable(source),
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
