//! Digests of sets of records: a count and a sum of hashes, of all records whose IDs begin alike.

use std::ops::RangeInclusive;

use sha2::{Digest as _, Sha256};

use crate::record::{EntryId, Version};

/// The bits with which the IDs of a part of the records begin. IDs are hashes, so parts are of about the same size, and the ads under one key fall apart too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    bits: u32,
    /// Zero beyond the bits.
    first: u64,
}

impl Prefix {
    /// All records.
    pub const ALL: Self = Self { bits: 0, first: 0 };
    /// A part is divided into 2^so many.
    pub const STEP: u32 = 4;
    /// So many.
    pub const PARTS: usize = 1 << Self::STEP;
    /// Nothing is divided further than to so many bits: nobody has so many records that more would help.
    pub const MOST: u32 = 60;

    /// From the number of bits and the bytes that hold them; `None` where that is no prefix.
    pub fn read(bits: u32, bytes: &[u8]) -> Option<Self> {
        if bits > Self::MOST || bytes.len() != bits.div_ceil(8) as usize {
            return None;
        }
        let mut first = [0; 8];
        first[..bytes.len()].copy_from_slice(bytes);
        let first = u64::from_be_bytes(first);
        (first & !Self::mask(bits) == 0).then_some(Self { bits, first })
    }

    /// The IDs that begin so: they lie beside each other.
    pub fn ids(&self) -> RangeInclusive<EntryId> {
        let at = |first: u64, rest: u64| {
            EntryId::from_bytes((u128::from(first) << 64 | u128::from(rest)).to_be_bytes())
        };
        at(self.first, 0)..=at(self.first | !Self::mask(self.bits), u64::MAX)
    }

    /// Whether some ID begins both ways.
    pub fn overlaps(&self, other: &Self) -> bool {
        let both = Self::mask(self.bits.min(other.bits));
        self.first & both == other.first & both
    }

    /// Which of its parts another prefix is; `None` when it is none of them.
    pub fn part_at(&self, part: &Self) -> Option<usize> {
        (part.bits == self.bits + Self::STEP && self.overlaps(part)).then(|| self.number(part.first))
    }

    /// In which of its parts an ID lies that begins as it does; `None` when it is not divided.
    pub fn part_with(&self, id: &EntryId) -> Option<usize> {
        let first = (u128::from_be_bytes(id.to_bytes()) >> 64) as u64;
        (self.bits + Self::STEP <= Self::MOST).then(|| self.number(first))
    }

    fn number(&self, first: u64) -> usize {
        (first << self.bits >> (64 - Self::STEP)) as usize
    }

    /// How many bits it has.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The bytes that hold them.
    pub fn bytes(&self) -> Vec<u8> {
        self.first.to_be_bytes()[..self.bits.div_ceil(8) as usize].to_vec()
    }

    /// The parts of this part; none when it is not divided further.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        let bits = self.bits + Self::STEP;
        let count = if bits <= Self::MOST { 1u64 << Self::STEP } else { 0 };
        (0..count).map(move |part| Self { bits, first: self.first | part << (64 - bits) })
    }

    fn mask(bits: u32) -> u64 {
        !u64::MAX.checked_shr(bits).unwrap_or(0)
    }
}

/// What a comparison reckons in beside signed records and their versions, which are all that earlier versions know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope(u32);

impl Scope {
    /// Whether there stands another record beside one, which proves that its publisher says two things.
    pub const PROOFS: Self = Self(1);
    /// Values of validators' namespaces.
    pub const RAW: Self = Self(2);
    /// All that this version knows of.
    pub const ALL: Self = Self(3);

    /// From its bits. Those that this version doesn't know say nothing to it.
    pub fn read(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Its bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of another one is in it.
    pub fn has(self, other: Self) -> bool {
        self.and(other) == other
    }
}

/// What a set of records is, in 20 bytes: equal digests mean equal sets, but for a chance of 2^-128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many records.
    pub count: u32,
    /// The sum of their hashes.
    pub sum: u128,
}

impl Digest {
    /// Of these records.
    pub fn of<'a>(records: impl IntoIterator<Item = (&'a EntryId, &'a Version)>) -> Self {
        let mut digest = Self::default();
        records.into_iter().for_each(|(id, version)| digest.add(hash_of(id, version)));
        digest
    }

    /// Adds a record.
    pub fn add(&mut self, hash: u128) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.wrapping_add(hash);
    }
}

/// As much of the hash of a record as a list holds.
pub(super) fn short(hash: u128) -> u64 {
    (hash >> 64) as u64
}

/// The hash of one version of a record.
pub(super) fn hash_of(id: &EntryId, version: &Version) -> u128 {
    hash(&[&id.to_bytes(), &version.to_bytes()])
}

/// The same of a record beside which the other one of two stands, whichever that is.
pub(super) fn proved_hash(id: &EntryId, version: &Version) -> u128 {
    hash(&[&id.to_bytes(), &version.to_bytes(), b"two"])
}

/// The hash of a value of a validator's namespace. Of one rank all are the same.
pub(super) fn raw_hash(id: &EntryId, rank: &[u8]) -> u128 {
    hash(&[&id.to_bytes(), rank])
}

fn hash(parts: &[&[u8]]) -> u128 {
    let sum = parts.iter().fold(Sha256::new(), |sum, part| sum.chain_update(part));
    let hash: [u8; 32] = sum.finalize().into();
    let (first, _) = hash.as_chunks::<16>();
    first.first().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_prefix_has_one_form() {
        assert_eq!(Prefix::read(0, &[]), Some(Prefix::ALL));
        assert!(Prefix::read(4, &[0xa0]).is_some());
        assert!(Prefix::read(4, &[0xa1]).is_none() && Prefix::read(4, &[]).is_none());
        assert!(Prefix::read(4, &[0xa0, 0]).is_none() && Prefix::read(64, &[0; 8]).is_none());
        assert!(Prefix::read(60, &[0; 8]).is_some_and(|deepest| deepest.parts().count() == 0));
    }

    proptest! {
        #[test]
        fn a_record_is_in_one_part_of_each_part_that_it_is_in(id: [u8; 16]) {
            let key = EntryId::from_bytes(id);
            let mut prefix = Prefix::ALL;
            while prefix.bits() < Prefix::MOST {
                prop_assert_eq!(Prefix::read(prefix.bits(), &prefix.bytes()), Some(prefix));
                let parts: Vec<_> = prefix.parts().enumerate().filter(|(_, part)| part.ids().contains(&key)).collect();
                prop_assert_eq!(parts.len(), 1);
                let (number, part) = parts[0];
                prop_assert_eq!((prefix.part_at(&part), prefix.part_with(&key)), (Some(number), Some(number)));
                prop_assert!(prefix.overlaps(&part) && part.overlaps(&prefix) && part.part_at(&prefix).is_none());
                let overlapping = prefix.parts().filter(|other| other.overlaps(&part)).count();
                prop_assert_eq!(overlapping, 1);
                prefix = part;
            }
        }

        // D.3-8: digests are equal exactly when the sets are.
        #[test]
        fn digests_are_equal_when_the_sets_are(a in prop::collection::btree_set(0u64..12, 0..8), b in prop::collection::btree_set(0u64..12, 0..8)) {
            let digest = |set: &BTreeSet<u64>| {
                let mut digest = Digest::default();
                for number in set.iter().rev() {
                    let id = EntryId::from_bytes(u128::from(*number).to_be_bytes());
                    digest.add(hash_of(&id, &Version { seq: *number % 3, not_after: 1, body_hash: [0; 32] }));
                }
                digest
            };
            prop_assert_eq!(digest(&a) == digest(&b), a == b);
        }
    }
}
