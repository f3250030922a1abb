//! What of the store survives a restart, and how it gets to the disk and back.
//!
//! All records are in memory, within the store's bound; the disk is a table of rows behind it that is written a little later. The store hands out [`Batch`]es and is told
//! what became of them. A row ends with a checksum, so that a damaged one is noticed when it is read and dropped: other nodes have copies.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use peerage_machine::Random;
use sha2::{Digest, Sha256};

/// One change of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The row is now so.
    Put {
        /// Which one: at most [`MAX_ROW_KEY`] bytes.
        key: Bytes,
        /// What it holds.
        value: Bytes,
    },
    /// The row is gone.
    Delete {
        /// Which one.
        key: Bytes,
    },
}

impl Change {
    /// The row that it changes.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// The most bytes of a row's key.
pub const MAX_ROW_KEY: usize = 96;

/// Changes that belong together: all of them are written, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub number: u64,
    /// What is to be written.
    pub changes: Vec<Change>,
    /// Whether it and everything before it is to survive a loss of power once it is written. Others may be lost, the newest first.
    pub durable: bool,
}

/// Why a disk did not write, or was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the DHT's records cannot be kept on the disk: {0}")]
pub struct DiskError(pub String);

/// A table of rows that survives the node.
pub trait Disk {
    /// All rows, in any order.
    ///
    /// # Errors
    /// [`DiskError`] when nothing can be read.
    fn load(&mut self) -> Result<Vec<(Bytes, Bytes)>, DiskError>;

    /// Writes a batch, all or nothing.
    ///
    /// # Errors
    /// [`DiskError`]; the store hands the changes out again.
    fn write(&mut self, batch: &Batch) -> Result<(), DiskError>;
}

/// A disk in memory, whose faults are made on purpose.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    rows: BTreeMap<Bytes, Bytes>,
    durable: BTreeMap<Bytes, Bytes>,
    last: Vec<Change>,
    /// Whether every write fails.
    pub full: bool,
}

/// What can happen to a disk when its node stops without notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// All that was not durable is gone.
    LostTail,
    /// Of the last batch only some changes are there.
    TornCommit,
    /// A bit of a row is another one.
    BitFlip,
}

impl MemoryDisk {
    /// The node stops, and this happens to what it wrote.
    pub fn crash(&mut self, fault: DiskFault, random: &mut Random) {
        match fault {
            DiskFault::LostTail => self.rows = self.durable.clone(),
            DiskFault::TornCommit => {
                self.rows = self.durable.clone();
                let kept = random.index(self.last.len().max(1));
                let changes = self.last.iter().take(kept).cloned().collect::<Vec<_>>();
                changes.iter().for_each(|change| apply(&mut self.rows, change));
            }
            DiskFault::BitFlip => {
                let at = random.index(self.rows.len());
                if let Some(row) = self.rows.values_mut().nth(at).filter(|row| !row.is_empty()) {
                    let mut bytes = row.to_vec();
                    let bit = random.index(bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    *row = bytes.into();
                }
            }
        }
        self.durable = self.rows.clone();
        self.last.clear();
    }

    /// The rows that there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Disk for MemoryDisk {
    fn load(&mut self) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
        Ok(self.rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), DiskError> {
        if self.full {
            return Err(DiskError("it is full".into()));
        }
        batch.changes.iter().for_each(|change| apply(&mut self.rows, change));
        self.last = batch.changes.clone();
        if batch.durable {
            self.durable = self.rows.clone();
        }
        Ok(())
    }
}

fn apply(rows: &mut BTreeMap<Bytes, Bytes>, change: &Change) {
    match change {
        Change::Put { key, value } => rows.insert(key.clone(), value.clone()),
        Change::Delete { key } => rows.remove(key),
    };
}

/// Adds bytes of any length to a row.
pub(crate) fn put_part(out: &mut BytesMut, part: &[u8]) {
    out.put_u32(part.len() as u32);
    out.put_slice(part);
}

/// The next of them; `None` at the end of the row.
pub(crate) fn take_part(rest: &mut Bytes) -> Option<Bytes> {
    let length = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
    let part = (rest.len() >= 4 + length).then(|| rest.slice(4..4 + length))?;
    *rest = rest.slice(4 + length..);
    Some(part)
}

/// A row's value with its checksum.
pub(crate) fn checked(key: &[u8], value: &[u8]) -> Bytes {
    [value, &checksum(key, value)].concat().into()
}

/// A row's value, if its checksum is right.
pub(crate) fn unchecked(key: &[u8], row: &Bytes) -> Option<Bytes> {
    let length = row.len().checked_sub(CHECKSUM_BYTES)?;
    let value = row.slice(..length);
    (row[length..] == checksum(key, &value)).then_some(value)
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash: [u8; 32] = Sha256::new().chain_update(key).chain_update(value).finalize().into();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    sum
}

const CHECKSUM_BYTES: usize = 8;
