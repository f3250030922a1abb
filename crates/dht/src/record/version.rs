//! Which of two records of one place is the newer one: a total order, so that all nodes agree.

/// How new a record is. The greater one wins: the higher sequence; of the same sequence the later expiry; of the same expiry the greater hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The publisher's sequence number.
    pub seq: u64,
    /// When it expires, in seconds since 1970.
    pub not_after: u64,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
}

/// The bytes of a [`Version`].
pub const VERSION_BYTES: usize = 8 + 8 + 32;

impl Version {
    /// Whether the publisher has signed two different bodies under one sequence number: nobody can say which one it meant.
    pub fn equivocates(&self, other: &Self) -> bool {
        self.seq == other.seq && self.body_hash != other.body_hash
    }

    /// As bytes that compare as the version does.
    pub fn to_bytes(&self) -> [u8; VERSION_BYTES] {
        let mut bytes = [0; VERSION_BYTES];
        bytes[..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.not_after.to_be_bytes());
        bytes[16..].copy_from_slice(&self.body_hash);
        bytes
    }

    /// From such bytes.
    pub fn from_bytes(bytes: &[u8; VERSION_BYTES]) -> Self {
        let number = |at: usize| bytes[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let mut body_hash = [0; 32];
        body_hash.copy_from_slice(&bytes[16..]);
        Self { seq: number(0), not_after: number(8), body_hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version() -> impl Strategy<Value = Version> {
        (0u64..3, 0u64..3, 0u8..3).prop_map(|(seq, not_after, hash)| Version {
            seq,
            not_after,
            body_hash: [hash; 32],
        })
    }

    // AL-41: the higher sequence wins, then the later time; and, beyond it, no two different records are ever equal.
    #[test]
    fn sequence_comes_before_expiry_and_expiry_before_hash() {
        let version = |seq, not_after, hash| Version { seq, not_after, body_hash: [hash; 32] };
        let mut sorted = vec![version(2, 1, 1), version(1, 2, 1), version(1, 1, 2), version(1, 1, 1)];
        sorted.sort();
        sorted.reverse();
        assert_eq!(sorted, [version(2, 1, 1), version(1, 2, 1), version(1, 1, 2), version(1, 1, 1)]);
    }

    proptest! {
        #[test]
        fn whatever_the_order_of_arrival_the_same_record_wins(mut versions in prop::collection::vec(version(), 1..8), seed: u64) {
            let winner = versions.iter().copied().reduce(|best, next| best.max(next));
            peerage_machine::Random::from_number(seed).shuffle(&mut versions);
            prop_assert_eq!(versions.iter().copied().reduce(|best, next| best.max(next)), winner);
        }

        #[test]
        fn a_version_compares_as_its_bytes_do(a in version(), b in version()) {
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert_eq!(Version::from_bytes(&a.to_bytes()), a);
            prop_assert_eq!(a.equivocates(&b), b.equivocates(&a));
        }
    }
}
