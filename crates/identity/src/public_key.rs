//! Public keys of peers: strict decoding, and verification for all four key types.
//!
//! Our own keys are Ed25519 only ([`crate::NodeKey`]); the others are read because foreign peers have them.

use ed25519_dalek::pkcs8::spki::der::asn1::UintRef;
use ed25519_dalek::pkcs8::spki::der::{self, Reader, SliceReader};
use ed25519_dalek::{Signature, VerifyingKey};
use libp2p_identity::{KeyType, PublicKey};

/// The most bytes that an encoded public key may have: an RSA key of [`MAX_RSA_BITS`] takes 1,069.
pub const MAX_PUBLIC_KEY_BYTES: usize = 1100;
/// The smallest RSA modulus that is taken, in bits.
pub const MIN_RSA_BITS: usize = 2048;
/// The largest RSA modulus that is taken, in bits: larger ones only cost time to verify.
pub const MAX_RSA_BITS: usize = 8192;

/// Why bytes are not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// More bytes than any key has.
    #[error("a public key of {length} bytes is refused: none has more than {MAX_PUBLIC_KEY_BYTES}")]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// A key type that libp2p does not have.
    #[error(
        "a public key of unknown type {number} is refused (known are RSA 0, Ed25519 1, secp256k1 2, ECDSA 3)"
    )]
    UnknownType {
        /// The number of the type.
        number: u8,
    },
    /// Not a `PublicKey` message, or no key of its type in it.
    #[error("a public key cannot be decoded: {reason}")]
    Malformed {
        /// What the decoder found.
        reason: String,
    },
    /// It can be decoded, but a key has one encoding and this is another.
    #[error(
        "a public key is not in its deterministic encoding, so it would give a wrong peer ID (the sender must write both \
         fields in order, with minimal lengths and nothing else)"
    )]
    NotDeterministic,
    /// An RSA key that is too weak, or too costly.
    #[error("an RSA key of {bits} bits is refused: {MIN_RSA_BITS} to {MAX_RSA_BITS} are taken")]
    RsaSize {
        /// Bits of the modulus.
        bits: usize,
    },
}

/// Reads the protobuf message `PublicKey` (libp2p peer-ids specification).
///
/// The encoding must be the deterministic one: both fields in order, minimal varints, nothing else, and the one form of the key that its type
/// prescribes. Otherwise one key would have several peer IDs.
///
/// # Errors
/// [`KeyError`].
pub fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    if bytes.len() > MAX_PUBLIC_KEY_BYTES {
        return Err(KeyError::TooLong { length: bytes.len() });
    }
    if let [0x08, number @ 4..=0x7f, ..] = bytes {
        return Err(KeyError::UnknownType { number: *number });
    }
    // The error's own source is left out: for RSA it holds line breaks, and paths of the machine that built this.
    let key = PublicKey::try_decode_protobuf(bytes)
        .map_err(|error| KeyError::Malformed { reason: error.to_string() })?;
    if key.encode_protobuf() != bytes {
        return Err(KeyError::NotDeterministic);
    }
    if key.key_type() == KeyType::RSA {
        let bits = rsa_bits(key.clone())?;
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err(KeyError::RsaSize { bits });
        }
    }
    Ok(key)
}

/// Whether `signature` over `message` was made with the private half of `public_key`.
///
/// Ed25519: plain, 64 bytes, verified *strictly*: neither the key nor the signature's point may be of small order. The plain rule of
/// RFC 8032 would take one signature for every message under such a key, so that whoever saw it could sign in that peer's name. No key that was
/// generated is of small order, so no honest peer is refused. RSA: PKCS#1 v1.5 over SHA-256, keys of [`MIN_RSA_BITS`] to [`MAX_RSA_BITS`].
/// ECDSA P-256 and secp256k1: over SHA-256, signatures in DER.
pub fn verify_signature(public_key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let Ok(ed25519) = public_key.clone().try_into_ed25519() else {
        return public_key.verify(message, signature);
    };
    let (Ok(key), Ok(signature)) =
        (VerifyingKey::from_bytes(&ed25519.to_bytes()), Signature::from_slice(signature))
    else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}

/// The size of an RSA modulus, in bits, from the PKCS#1 form (RFC 8017 A.1.1).
fn rsa_bits(key: PublicKey) -> Result<usize, KeyError> {
    let malformed = |reason: String| KeyError::Malformed { reason };
    let key = key.try_into_rsa().map_err(|error| malformed(error.to_string()))?;
    let pkcs1 = key.encode_pkcs1();
    let read = || -> der::Result<usize> {
        let mut reader = SliceReader::new(&pkcs1)?;
        let modulus = reader.sequence(|fields| {
            let modulus: UintRef<'_> = fields.decode()?;
            let _exponent: UintRef<'_> = fields.decode()?;
            Ok::<_, der::Error>(modulus)
        })?;
        reader.finish()?;
        let bytes = modulus.as_bytes();
        let unused = bytes.first().map_or(0, |first| first.leading_zeros() as usize);
        Ok(bytes.len() * 8 - unused)
    };
    read().map_err(|error| malformed(format!("the RSA key is not PKCS#1: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeKey;
    use proptest::prelude::*;

    fn encoded() -> Vec<u8> {
        NodeKey::from_seed([1; 32]).public().encode_protobuf()
    }

    /// DER with a length of up to two bytes.
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut out = match length {
            0..=0x7f => vec![tag, length as u8],
            0x80..=0xff => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        out.extend(content);
        out
    }

    /// An RSA key whose modulus has so many bits, as the protobuf message.
    fn rsa(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        if bits.is_multiple_of(8) {
            modulus.insert(0, 0);
        } else {
            modulus[0] = 0xff >> (8 - bits % 8);
        }
        let key = tlv(0x30, &[tlv(2, &modulus), tlv(2, &[1, 0, 1])].concat());
        let algorithm = hex::decode("300d06092a864886f70d0101010500").unwrap();
        let spki = tlv(0x30, &[algorithm, tlv(3, &[&[0][..], &key].concat())].concat());
        let mut out = vec![0x08, 0x00, 0x12];
        peerage_wire::uvarint::put(spki.len() as u64, &mut out);
        out.extend(spki);
        out
    }

    #[test]
    fn a_deterministic_encoding_is_read() {
        let key = decode_public_key(&encoded()).unwrap();
        assert_eq!(key, NodeKey::from_seed([1; 32]).public());
    }

    #[test]
    fn every_other_encoding_of_the_same_key_is_refused() {
        let good = encoded();
        let (kind, data) = good.split_at(2);
        let long_length = [kind, &[0x12, 0xa0, 0x00], &data[2..]].concat();
        let cases = [
            ("fields in the other order", [data, kind].concat()),
            ("an unknown field behind", [&good[..], &[0x18, 0x00]].concat()),
            ("a field twice", [kind, kind, data].concat()),
            ("a type in two bytes", [&[0x08, 0x81, 0x00], data].concat()),
            ("a length in two bytes", long_length),
        ];
        for (what, bytes) in cases {
            assert_eq!(decode_public_key(&bytes), Err(KeyError::NotDeterministic), "{what}");
        }
    }

    #[test]
    fn an_rsa_type_must_be_written_although_it_is_zero() {
        let good = rsa(2048);
        assert!(decode_public_key(&good).is_ok());
        assert_eq!(decode_public_key(&good[2..]), Err(KeyError::NotDeterministic));
    }

    #[test]
    fn an_uncompressed_secp256k1_key_is_refused() {
        let compressed = "08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99";
        let key = decode_public_key(&hex::decode(compressed).unwrap()).unwrap();
        let point = key.try_into_secp256k1().unwrap().to_bytes_uncompressed();
        let bytes = [&[0x08, 0x02, 0x12, 65][..], &point].concat();
        assert_eq!(decode_public_key(&bytes), Err(KeyError::NotDeterministic));
    }

    #[test]
    fn bytes_behind_an_ecdsa_key_are_refused() {
        let good = "0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004de3d300fa36ae0e8f5d530899d83\
                    abab44abf3161f162a4bc901d8e6ecda020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9f77c409e62";
        let mut bytes = hex::decode(good).unwrap();
        assert!(decode_public_key(&bytes).is_ok());
        bytes[3] += 1;
        bytes.push(0);
        assert_eq!(decode_public_key(&bytes), Err(KeyError::NotDeterministic));
    }

    #[test]
    fn rsa_keys_outside_the_bounds_are_refused() {
        for bits in [MIN_RSA_BITS, 2049, 3072, 4096, MAX_RSA_BITS] {
            assert!(decode_public_key(&rsa(bits)).is_ok(), "{bits}");
        }
        for bits in [1024, 2047, 8193] {
            assert_eq!(decode_public_key(&rsa(bits)), Err(KeyError::RsaSize { bits }), "{bits}");
        }
        assert_eq!(decode_public_key(&rsa(16384)), Err(KeyError::TooLong { length: 2091 }));
    }

    #[test]
    fn the_largest_rsa_key_is_within_the_length_bound() {
        assert!(rsa(MAX_RSA_BITS).len() + 2 <= MAX_PUBLIC_KEY_BYTES);
    }

    #[test]
    fn unknown_types_and_garbage_are_refused() {
        assert_eq!(decode_public_key(&[8, 4, 18, 0]), Err(KeyError::UnknownType { number: 4 }));
        for bytes in [&[][..], &[8], &[8, 1], &[8, 1, 18, 32], &[8, 1, 18, 0], &[8, 3, 18, 1, 48]] {
            assert!(matches!(decode_public_key(bytes), Err(KeyError::Malformed { .. })));
        }
        let not_pkcs1 = rsa(2048).iter().map(|b| if *b == 0xff { 0 } else { *b }).collect::<Vec<_>>();
        assert!(decode_public_key(&not_pkcs1).is_err());
    }

    /// The neutral element as key and as the signature's point, and 0: the plain rule takes it for any message.
    #[test]
    fn a_key_of_small_order_signs_nothing() {
        let mut point = [0; 32];
        point[0] = 1;
        let signature = [point, [0; 32]].concat();
        let key = libp2p_identity::ed25519::PublicKey::try_from_bytes(&point).unwrap();
        let key = PublicKey::from(key);
        assert!(key.verify(b"anything", &signature), "the plain rule takes it");
        assert!(!verify_signature(&key, b"anything", &signature));
    }

    /// S and S + L are the same number to a careless verifier.
    #[test]
    fn a_signature_has_one_form() {
        let key = NodeKey::from_seed([1; 32]);
        let mut signature = key.sign(b"x");
        let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert!(!verify_signature(&key.public(), b"x", &signature));
    }

    #[test]
    fn an_error_is_one_line_without_paths_of_the_building_machine() {
        for bytes in [&[][..], &[8, 0, 18, 1, 0], &[8, 1, 18, 1, 0], &[8, 2, 18, 1, 0], &[8, 3, 18, 1, 0]] {
            let message = decode_public_key(bytes).unwrap_err().to_string();
            assert!(!message.contains(['\n', '@']), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_in_its_one_encoding_or_an_error(
            kind in 0u8..5, data in prop::collection::vec(any::<u8>(), 0..120), cut in 0usize..130,
        ) {
            let mut bytes = vec![8, kind, 18, data.len() as u8];
            bytes.extend(data);
            bytes.truncate(cut);
            if let Ok(key) = decode_public_key(&bytes) {
                prop_assert_eq!(key.encode_protobuf(), bytes);
            }
        }

        #[test]
        fn a_changed_message_key_or_signature_does_not_verify(
            seed: [u8; 32], message: Vec<u8>, at in 0usize..64, bit in 0u32..8,
        ) {
            let key = NodeKey::from_seed(seed);
            let mut signature = key.sign(&message);
            prop_assert!(verify_signature(&key.public(), &message, &signature));
            let longer = [&message[..], &[0]].concat();
            prop_assert!(!verify_signature(&key.public(), &longer, &signature));
            signature[at] ^= 1 << bit;
            prop_assert!(!verify_signature(&key.public(), &message, &signature));
            prop_assert!(!verify_signature(&key.public(), &message, &signature[..at]));
        }
    }
}
