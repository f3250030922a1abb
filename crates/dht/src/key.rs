//! Where things lie: 256-bit keys and the XOR distance between them (libp2p kad-dht specification, "Distance").

use std::fmt;
use std::sync::Arc;

use peerage_identity::PeerId;
use sha2::{Digest, Sha256};

/// The most bytes that the name of a target may have. The longest of ours, a user value with its salt, stays far below; go refuses provider
/// keys of more than 80 bytes, and no namespace needs more than this.
pub const MAX_TARGET_BYTES: usize = 256;

/// A place in the keyspace: the SHA-256 of a peer ID or of the bytes that name something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u64; 4]);

impl Key {
    /// Where `bytes` lie.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::digest(bytes).into())
    }

    /// Where a peer lies.
    pub fn of_peer(peer: &PeerId) -> Self {
        Self::of(&peer.to_bytes())
    }

    /// A place by its number, which is not hashed.
    pub fn from_hash(hash: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(hash.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        Self(words)
    }

    /// The 32 bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (word, out) in self.0.iter().zip(bytes.chunks_exact_mut(8)) {
            out.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// How far apart two places are.
    pub fn distance(&self, other: &Self) -> Distance {
        let [a, b, c, d] = self.0;
        let [e, f, g, h] = other.0;
        Distance([a ^ e, b ^ f, c ^ g, d ^ h])
    }

    /// How many leading bits two places share: 0 to 256.
    pub fn shared_bits(&self, other: &Self) -> u32 {
        self.distance(other).leading_zeros()
    }

    /// The bit `index` counted from the front; `false` beyond the end.
    pub fn bit(&self, index: u32) -> bool {
        let word = self.0.get((index / 64) as usize).copied().unwrap_or(0);
        word >> (63 - index % 64) & 1 == 1
    }

    /// The place at `distance` from here.
    #[must_use]
    pub fn at(&self, distance: &Distance) -> Self {
        let Distance(there) = self.distance(&Self(distance.0));
        Self(there)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}…", self.0[0])
    }
}

/// How far apart two places are: their exclusive or, read as a number of 256 bits. Ordered by that number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u64; 4]);

impl Distance {
    /// No distance: the same place.
    pub const ZERO: Self = Self([0; 4]);
    /// The greatest distance.
    pub const MAX: Self = Self([u64::MAX; 4]);

    /// The number of leading zero bits: 256 for the same place.
    pub fn leading_zeros(&self) -> u32 {
        let mut zeros = 0;
        for word in self.0 {
            zeros += word.leading_zeros();
            if word != 0 {
                break;
            }
        }
        zeros
    }

    /// The distance as a share of the whole keyspace, `0.0..1.0`; what estimates of density count in.
    pub fn share(&self) -> f64 {
        let [first, second, ..] = self.0;
        (first as f64 + second as f64 / 18_446_744_073_709_551_616.0) / 18_446_744_073_709_551_616.0
    }

    /// The distance that is so large a share of the keyspace; the greatest one for 1 and more.
    pub fn of_share(share: f64) -> Self {
        if share.is_nan() || share <= 0.0 {
            return Self::ZERO;
        }
        if share >= 1.0 {
            return Self::MAX;
        }
        let scaled = share * 18_446_744_073_709_551_616.0;
        let rest = (scaled - scaled.floor()) * 18_446_744_073_709_551_616.0;
        Self([scaled as u64, rest as u64, 0, 0])
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3e}", self.share())
    }
}

/// What a query is about: the bytes that name it, as they stand on the wire, and where they lie. Cheap to clone.
///
/// For FIND_NODE the bytes are a peer ID, for providers a multihash, for values the record's key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    key: Key,
    name: Arc<[u8]>,
}

impl Target {
    /// The target that `name` names; `None` when it is empty or longer than [`MAX_TARGET_BYTES`].
    pub fn new(name: &[u8]) -> Option<Self> {
        (!name.is_empty() && name.len() <= MAX_TARGET_BYTES)
            .then(|| Self { key: Key::of(name), name: name.into() })
    }

    /// The target that 32 bytes name.
    pub fn of_hash(name: &[u8; 32]) -> Self {
        Self { key: Key::of(name), name: name.as_slice().into() }
    }

    /// The place of a peer.
    pub fn of_peer(peer: &PeerId) -> Self {
        let name = peer.to_bytes();
        Self { key: Key::of(&name), name: name.into() }
    }

    /// Where it lies.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The bytes that name it.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({:?}, {} bytes)", self.key, self.name.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_the_sha256_of_the_bytes() {
        // FIPS 180-2, appendix B.1: "abc".
        let key = Key::of(b"abc");
        assert_eq!(key.to_bytes()[..8], [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]);
        assert_eq!(Key::from_hash(key.to_bytes()), key);
    }

    #[test]
    fn targets_have_a_name_of_bounded_length() {
        assert!(Target::new(b"").is_none());
        assert!(Target::new(&[1; MAX_TARGET_BYTES]).is_some());
        assert!(Target::new(&[1; MAX_TARGET_BYTES + 1]).is_none());
    }

    proptest! {
        // AL-02: the XOR metric, compared as big-endian numbers; the bucket of a peer is the number of leading bits shared with us.
        #[test]
        fn distances_are_those_of_the_bytes(a: [u8; 32], b: [u8; 32]) {
            let (left, right) = (Key::from_hash(a), Key::from_hash(b));
            let mut xor = a;
            xor.iter_mut().zip(b).for_each(|(x, y)| *x ^= y);
            let zeros: u32 = match xor.iter().position(|byte| *byte != 0) {
                Some(at) => at as u32 * 8 + xor[at].leading_zeros(),
                None => 256,
            };
            prop_assert_eq!(left.shared_bits(&right), zeros);
            prop_assert_eq!(left.distance(&right), right.distance(&left));
            prop_assert_eq!(left.at(&left.distance(&right)), right);
            let zero = Key::from_hash([0; 32]);
            prop_assert_eq!(zero.distance(&left).cmp(&zero.distance(&right)), a.cmp(&b));
            prop_assert_eq!(left.bit(9), a[1] & 0x40 != 0);
        }

        #[test]
        fn a_share_of_the_keyspace_and_back(share in 0.0f64..1.0) {
            let back = Distance::of_share(share).share();
            prop_assert!((back - share).abs() <= share * 1e-12);
        }
    }
}
