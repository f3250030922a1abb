//! A node key as PKCS#8 PEM: RFC 7468 around RFC 5958 around RFC 8410.

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::{self, ErrorKind, pem::LineEnding};
use ed25519_dalek::pkcs8::{
    self, EncodePrivateKey, KeypairBytes, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument,
};
use zeroize::Zeroizing;

/// Why a text is not a node key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// There is no PEM block at the start.
    #[error(
        "this is not PEM: it does not begin with `-----BEGIN PRIVATE KEY-----` (give an Ed25519 key as PKCS#8 PEM, \
         as `openssl genpkey -algorithm ed25519` writes it)"
    )]
    NotPem,
    /// The block or the key in it is cut short.
    #[error("the key is cut short: {what} (restore the file from a backup)")]
    Truncated {
        /// What is missing.
        what: &'static str,
    },
    /// The PEM block holds something else.
    #[error("this is a PEM block `{label}`, not `PRIVATE KEY`: {remedy}")]
    OtherLabel {
        /// The label of the block.
        label: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A PKCS#8 key of another algorithm.
    #[error(
        "the key is for {algorithm}; a node's key is Ed25519 (make one with `openssl genpkey -algorithm ed25519`)"
    )]
    OtherAlgorithm {
        /// The algorithm's name, or its object identifier where we know no name.
        algorithm: String,
    },
    /// The block is not base64, or not what PKCS#8 prescribes for Ed25519.
    #[error("the key is malformed: {reason} (restore the file from a backup)")]
    Malformed {
        /// What the decoder found.
        reason: String,
    },
    /// There is something behind the key.
    #[error("there is something behind the key: {what} (leave only the one `PRIVATE KEY` block in the file)")]
    TrailingData {
        /// Where it stands.
        what: &'static str,
    },
    /// The public key that came along is another key's.
    #[error(
        "the public key inside does not belong to the private key (the file was put together wrongly: restore it from a backup)"
    )]
    PublicKeyMismatch,
}

/// The key as version 1 PKCS#8: OpenSSL before 3.2 reads no other.
pub(crate) fn encode(key: &SigningKey) -> Zeroizing<String> {
    KeypairBytes {
        secret_key: key.to_bytes(),
        public_key: None,
    }
    .to_pkcs8_pem(LineEnding::LF)
    .expect("an Ed25519 key of 32 bytes always encodes")
}

/// The key in `text`, which must hold one block and nothing else but white space.
pub(crate) fn decode(text: &str) -> Result<SigningKey, PemError> {
    let text = text.trim_ascii();
    check_boundaries(text)?;
    let (_, document) = SecretDocument::from_pem(text).map_err(of_der)?;
    let info = PrivateKeyInfoRef::try_from(document.as_bytes()).map_err(of_pkcs8)?;
    if info.algorithm.oid != ED25519 {
        return Err(PemError::OtherAlgorithm {
            algorithm: name_of(info.algorithm.oid),
        });
    }
    let pair = KeypairBytes::try_from(info).map_err(of_pkcs8)?;
    let key = SigningKey::from_bytes(&pair.secret_key);
    match &pair.public_key {
        Some(public) if public.0 != key.verifying_key().to_bytes() => Err(PemError::PublicKeyMismatch),
        _ => Ok(key),
    }
}

/// Looks at the lines around the base64 by hand, because the PEM reader has one error for all that can be wrong with them.
fn check_boundaries(text: &str) -> Result<(), PemError> {
    let label_and_rest = text.strip_prefix("-----BEGIN ").ok_or(PemError::NotPem)?;
    let (label, body) = label_and_rest
        .split_once("-----")
        .filter(|(label, _)| label.len() <= MAX_LABEL && !label.contains(['\n', '\r']))
        .ok_or(PemError::NotPem)?;
    if label != LABEL {
        return Err(PemError::OtherLabel {
            label: label.escape_debug().to_string(),
            remedy: remedy_for(label),
        });
    }
    let (_, behind) = body.split_once(END_LINE).ok_or(PemError::Truncated {
        what: "the line `-----END PRIVATE KEY-----` is missing",
    })?;
    if !behind.is_empty() {
        return Err(PemError::TrailingData {
            what: "text follows the line `-----END PRIVATE KEY-----`",
        });
    }
    Ok(())
}

fn remedy_for(label: &str) -> &'static str {
    match label {
        "ENCRYPTED PRIVATE KEY" => {
            "it is encrypted, and a node asks for no passphrase (decrypt it with `openssl pkcs8 -in OLD -out NEW`)"
        }
        "EC PRIVATE KEY" | "RSA PRIVATE KEY" | "DSA PRIVATE KEY" => {
            "a node's key is Ed25519 (make one with `openssl genpkey -algorithm ed25519`)"
        }
        "OPENSSH PRIVATE KEY" => {
            "it is in OpenSSH's own format (make a key with `openssl genpkey -algorithm ed25519`)"
        }
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" | "CERTIFICATE REQUEST" => {
            "a certificate holds no private key (give the file with the key)"
        }
        "PUBLIC KEY" | "RSA PUBLIC KEY" => {
            "this is the public half only (give the file with the private key)"
        }
        _ => "give an Ed25519 key as PKCS#8 PEM",
    }
}

fn name_of(oid: ObjectIdentifier) -> String {
    match oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" => "RSA".into(),
        "1.2.840.113549.1.1.10" => "RSA-PSS".into(),
        "1.2.840.10040.4.1" => "DSA".into(),
        "1.2.840.10045.2.1" => "EC (ECDSA, ECDH)".into(),
        "1.3.101.110" => "X25519".into(),
        "1.3.101.111" => "X448".into(),
        "1.3.101.113" => "Ed448".into(),
        other => format!("the algorithm {other}"),
    }
}

fn of_pkcs8(error: pkcs8::Error) -> PemError {
    match error {
        pkcs8::Error::Asn1(error) => of_der(error),
        other => PemError::Malformed {
            reason: other.to_string(),
        },
    }
}

fn of_der(error: der::Error) -> PemError {
    match error.kind() {
        ErrorKind::Incomplete { .. } => PemError::Truncated {
            what: "bytes are missing inside the block",
        },
        ErrorKind::TrailingData { .. } => PemError::TrailingData {
            what: "the block holds more bytes than the key",
        },
        _ => PemError::Malformed {
            reason: error.to_string(),
        },
    }
}

const LABEL: &str = "PRIVATE KEY";
const END_LINE: &str = "-----END PRIVATE KEY-----";
/// Longer than any label that RFC 7468 names.
const MAX_LABEL: usize = 64;
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
