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
    if let [0x08, number @ 4..=0xff, ..] = bytes {
        return Err(KeyError::UnknownType { number: *number });
    }
    let key = PublicKey::try_decode_protobuf(bytes).map_err(|error| KeyError::Malformed {
        reason: with_source(&error),
    })?;
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
    let (Ok(key), Ok(signature)) = (
        VerifyingKey::from_bytes(&ed25519.to_bytes()),
        Signature::from_slice(signature),
    ) else {
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

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
