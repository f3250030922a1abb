//! A short name for a record's place and slot.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::Key;

/// The name of a record among all records: the first 16 bytes of SHA-256 of its key and its slot. All versions of a record have the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId([u8; 16]);

impl EntryId {
    /// Of what stands at `key` in `slot`.
    pub fn of(key: &Key, slot: &Bytes) -> Self {
        let hash: [u8; 32] = Sha256::new().chain_update(key.to_bytes()).chain_update(slot).finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }

    /// From its bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]))
    }
}
