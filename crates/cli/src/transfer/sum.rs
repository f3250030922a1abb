//! SHA-256 sums as the transfer compares and prints them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::BLOCK_BYTES;

/// The SHA-256 of some bytes. Prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sum([u8; Sum::BYTES]);

impl Sum {
    /// The length of a sum.
    pub(crate) const BYTES: usize = 32;

    /// What a hasher has come to.
    pub(crate) fn of(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// A sum from the wire; `None` when it has the wrong length.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The sum as it goes on the wire.
    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The first 16 hexadecimal digits, for file names.
    pub(crate) fn short(&self) -> String {
        self.to_string()[..16].to_owned()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Feeds up to `most` bytes of `file` from where it stands into `hasher` and says how many there were. Blocks on the disk;
/// `each` is told after every block how many there were so far, and stops the reading by answering `false`.
pub(crate) fn hash_file(
    file: &mut File,
    most: u64,
    hasher: &mut Sha256,
    mut each: impl FnMut(u64) -> bool,
) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut done = 0;
    while done < most {
        let want = block.len().min(usize::try_from(most - done).unwrap_or(usize::MAX));
        let got = match file.read(&mut block[..want]) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&block[..got]);
        done += got as u64;
        if !each(done) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped"));
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_prints_as_the_standard_has_it() {
        let sum = Sum::of(Sha256::new_with_prefix(b"abc"));
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sum.to_string(), expected);
        assert_eq!(sum.short(), "ba7816bf8f01cfea");
        assert_eq!(Sum::from_slice(&sum.to_bytes()), Some(sum));
        assert_eq!(Sum::from_slice(&[0; 31]), None);
    }
}
