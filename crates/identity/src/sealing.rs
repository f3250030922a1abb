//! Sealing: a payload that only the holder of one identity key can read.
//!
//! The sender makes a key pair for this one payload, agrees on a secret with the recipient's identity key (X25519, RFC 7748, over the Montgomery form of
//! the Ed25519 key), derives a key from it (HKDF-SHA256, RFC 5869) and encrypts (ChaCha20-Poly1305, RFC 8439):
//!
//! ```text
//! sealed = version (1 byte, 1) ‖ ephemeral X25519 key (32) ‖ ciphertext with its tag (plaintext + 16)
//! key    = HKDF-SHA256(salt "peerage sealed payload 1", secret, info = ephemeral ‖ recipient's Ed25519 key ‖ context)
//! nonce  = zero: the key is used once
//! ```
//!
//! A sealed payload is bound to its recipient and to a *context*: what is sealed for one purpose does not open for another. It does not say who sealed it: sign
//! what holds it. Who learns the recipient's identity key later can read what was sealed before.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::VerifyingKey;
use hkdf::Hkdf;
use libp2p_identity::{PeerId, PublicKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::key::NodeKey;

/// The most bytes that a sealed payload may have.
pub const MAX_SEALED_BYTES: usize = 64 * 1024;
/// What sealing adds to a payload: version, ephemeral key, tag.
pub const SEALING_OVERHEAD: usize = 1 + KEY_BYTES + TAG_BYTES;
/// The most bytes that the context of a sealed payload may have.
pub const MAX_SEALING_CONTEXT: usize = 512;

/// Why a payload was not sealed, or not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The recipient's key is of a type that payloads cannot be sealed to.
    #[error(
        "nothing can be sealed to {recipient}, whose key is {key_type}: only Ed25519 keys can agree on a secret"
    )]
    KeyType {
        /// The recipient.
        recipient: PeerId,
        /// The type of its key.
        key_type: String,
    },
    /// A key of small order, with which every secret is known to all.
    #[error("a key of small order was given for sealing: anybody could read what is sealed with it")]
    WeakKey,
    /// More bytes than a sealed payload may have.
    #[error("a payload of {length} bytes is too long to be sealed or opened: at most {most} are taken")]
    TooLong {
        /// Its bytes.
        length: usize,
        /// The most.
        most: usize,
    },
    /// A context longer than [`MAX_SEALING_CONTEXT`].
    #[error("a context of {length} bytes is too long for sealing: at most {MAX_SEALING_CONTEXT} are taken")]
    Context {
        /// Its bytes.
        length: usize,
    },
    /// Too short to be a sealed payload, or of a version that is not known here.
    #[error("this is no sealed payload of version {VERSION}")]
    NotSealed,
    /// It was sealed to another key or for another context, or changed since.
    #[error(
        "a sealed payload does not open: it was sealed to another key, for another purpose, or changed on its way"
    )]
    DoesNotOpen,
}

/// Seals `plaintext` so that only the holder of `recipient` can read it, and only for the purpose that `context` names.
///
/// `entropy` must be 32 bytes that nobody can guess and that are used for nothing else: they are the secret of this payload. With the same ones,
/// the result is the same.
///
/// # Errors
/// [`SealError::KeyType`], [`SealError::WeakKey`], [`SealError::TooLong`], [`SealError::Context`].
pub fn seal_to(
    recipient: &PublicKey,
    context: &[u8],
    plaintext: &[u8],
    entropy: &[u8; 32],
) -> Result<Bytes, SealError> {
    let most = MAX_SEALED_BYTES - SEALING_OVERHEAD;
    if plaintext.len() > most {
        return Err(SealError::TooLong { length: plaintext.len(), most });
    }
    let recipient = verifying_key(recipient)?;
    let ephemeral = MontgomeryPoint::mul_base_clamped(*entropy).to_bytes();
    let shared = Zeroizing::new(recipient.to_montgomery().mul_clamped(*entropy).to_bytes());
    let cipher = cipher(&shared, &ephemeral, recipient.as_bytes(), context)?;
    let ciphertext = cipher
        .encrypt(&Nonce::default(), Payload::from(plaintext))
        .map_err(|_| SealError::TooLong { length: plaintext.len(), most })?;
    Ok([&[VERSION], &ephemeral[..], &ciphertext].concat().into())
}

/// Opens what was sealed to `key` for the purpose that `context` names.
///
/// # Errors
/// [`SealError::NotSealed`], [`SealError::TooLong`], [`SealError::Context`], [`SealError::WeakKey`], [`SealError::DoesNotOpen`].
pub fn open_sealed(key: &NodeKey, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    if sealed.len() > MAX_SEALED_BYTES {
        return Err(SealError::TooLong { length: sealed.len(), most: MAX_SEALED_BYTES });
    }
    let (&version, rest) = sealed.split_first().ok_or(SealError::NotSealed)?;
    let (ephemeral, ciphertext) = rest.split_first_chunk::<KEY_BYTES>().ok_or(SealError::NotSealed)?;
    if version != VERSION || ciphertext.len() < TAG_BYTES {
        return Err(SealError::NotSealed);
    }
    let scalar = Zeroizing::new(key.signing_key().to_scalar_bytes());
    let shared = Zeroizing::new(MontgomeryPoint(*ephemeral).mul_clamped(*scalar).to_bytes());
    let recipient = key.signing_key().verifying_key();
    cipher(&shared, ephemeral, recipient.as_bytes(), context)?
        .decrypt(&Nonce::default(), ciphertext)
        .map(Zeroizing::new)
        .map_err(|_| SealError::DoesNotOpen)
}

/// The key as a point that is good for agreeing on a secret.
fn verifying_key(recipient: &PublicKey) -> Result<VerifyingKey, SealError> {
    let other_type = |_| SealError::KeyType {
        recipient: recipient.to_peer_id(),
        key_type: recipient.key_type().to_string(),
    };
    let bytes = recipient.clone().try_into_ed25519().map_err(other_type)?.to_bytes();
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak()).ok_or(SealError::WeakKey)
}

fn cipher(
    shared: &[u8; KEY_BYTES],
    ephemeral: &[u8; KEY_BYTES],
    recipient: &[u8; KEY_BYTES],
    context: &[u8],
) -> Result<ChaCha20Poly1305, SealError> {
    if context.len() > MAX_SEALING_CONTEXT {
        return Err(SealError::Context { length: context.len() });
    }
    // RFC 7748 § 6.1: a point of small order gives zero. What is compared is no secret of an honest sender.
    if *shared == [0; KEY_BYTES] {
        return Err(SealError::WeakKey);
    }
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(SALT), shared)
        .expand_multi_info(&[ephemeral, recipient, context], &mut *key)
        .expect("one hash of output is within what HKDF gives");
    Ok(ChaCha20Poly1305::new(&Key::from(*key)))
}

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const SALT: &[u8] = b"peerage sealed payload 1";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> NodeKey {
        NodeKey::from_seed([1; 32])
    }

    fn sealed(plaintext: &[u8]) -> Bytes {
        seal_to(&key().public(), b"context", plaintext, &[9; 32]).unwrap()
    }

    /// The encodings of all points of small order of Curve25519 (RFC 7748 § 6.1 says to refuse them).
    fn small_order_points() -> Vec<[u8; 32]> {
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ]
        .iter()
        .map(|text| hex::decode(text).unwrap().try_into().unwrap())
        .collect()
    }

    /// Computed with other implementations of X25519, HKDF and ChaCha20-Poly1305.
    #[test]
    fn a_payload_is_sealed_as_written_down() {
        assert_eq!(hex::encode(sealed(b"hello")), VECTOR);
        let opened = open_sealed(&key(), b"context", &hex::decode(VECTOR).unwrap()).unwrap();
        assert_eq!(&opened[..], b"hello");
    }

    const VECTOR: &str = "0157db4b359f23ae5e146e4e2512056704722506348c150c14753d0c933d04d421808a01d58d2cada6d8b85a3f780aabecba9311f866";

    /// Contract C-55.
    #[test]
    fn only_the_recipient_opens_it_and_only_for_its_purpose() {
        let sealed = sealed(b"hello");
        assert_eq!(&open_sealed(&key(), b"context", &sealed).unwrap()[..], b"hello");
        assert_eq!(open_sealed(&key(), b"other", &sealed), Err(SealError::DoesNotOpen));
        let other = NodeKey::from_seed([2; 32]);
        assert_eq!(open_sealed(&other, b"context", &sealed), Err(SealError::DoesNotOpen));
    }

    #[test]
    fn the_same_payload_looks_different_each_time() {
        let again = seal_to(&key().public(), b"context", b"hello", &[8; 32]).unwrap();
        assert_ne!(sealed(b"hello")[1..], again[1..]);
        assert!(!sealed(b"hello").windows(5).any(|part| part == b"hello"));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_sealed_payload_is_noticed() {
        let good = sealed(b"hello");
        for at in 0..good.len() * 8 {
            let mut bytes = good.to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            // X25519 passes over the highest bit of a key; the key that was sent is derived from as it came, so that it is noticed all the same.
            assert!(open_sealed(&key(), b"context", &bytes).is_err(), "bit {at}");
        }
        for length in 0..good.len() {
            assert!(open_sealed(&key(), b"context", &good[..length]).is_err(), "{length} bytes");
        }
        assert!(open_sealed(&key(), b"context", &[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn points_of_small_order_are_refused_on_both_sides() {
        for point in small_order_points() {
            let bytes = [&[VERSION], &point[..], &[0; 40]].concat();
            assert_eq!(open_sealed(&key(), b"context", &bytes), Err(SealError::WeakKey), "{point:?}");
        }
        // The neutral element and the point of order two as Ed25519 keys.
        for encoding in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let bytes = hex::decode(encoding).unwrap();
            let Ok(weak) = libp2p_identity::ed25519::PublicKey::try_from_bytes(&bytes) else { continue };
            assert_eq!(seal_to(&weak.into(), b"context", b"x", &[9; 32]), Err(SealError::WeakKey));
        }
    }

    #[test]
    fn a_key_of_another_type_is_refused() {
        // The vector of the libp2p peer ID specification.
        let secp256k1 = "08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99";
        let other = crate::decode_public_key(&hex::decode(secp256k1).unwrap()).unwrap();
        let error = seal_to(&other, b"context", b"x", &[9; 32]).unwrap_err();
        assert!(
            matches!(&error, SealError::KeyType { .. }) && error.to_string().contains("ecp256k1"),
            "{error}"
        );
    }

    #[test]
    fn lengths_are_bounded_on_both_sides() {
        let most = MAX_SEALED_BYTES - SEALING_OVERHEAD;
        let seal = |length| seal_to(&key().public(), b"", &vec![0; length], &[9; 32]);
        assert_eq!(seal(most).unwrap().len(), MAX_SEALED_BYTES);
        assert_eq!(seal(most + 1), Err(SealError::TooLong { length: most + 1, most }));
        let length = MAX_SEALED_BYTES + 1;
        let error = SealError::TooLong { length, most: MAX_SEALED_BYTES };
        assert_eq!(open_sealed(&key(), b"", &vec![VERSION; length]), Err(error));
        let context = vec![0; MAX_SEALING_CONTEXT + 1];
        assert!(matches!(seal_to(&key().public(), &context, b"", &[9; 32]), Err(SealError::Context { .. })));
    }

    proptest! {
        #[test]
        fn any_payload_comes_back(seed: [u8; 32], entropy: [u8; 32], context in prop::collection::vec(any::<u8>(), 0..80), plaintext: Vec<u8>) {
            let key = NodeKey::from_seed(seed);
            let sealed = seal_to(&key.public(), &context, &plaintext, &entropy).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + SEALING_OVERHEAD);
            prop_assert_eq!(&open_sealed(&key, &context, &sealed).unwrap()[..], &plaintext[..]);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic_when_opened(noise: Vec<u8>) {
            let marked = [&[VERSION][..], &noise].concat();
            prop_assert!(open_sealed(&key(), b"", &noise).is_err() && open_sealed(&key(), b"", &marked).is_err());
        }
    }
}
