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

/// The key as version 1 PKCS#8: OpenSSL 3.0 reads no other.
pub(crate) fn encode(key: &SigningKey) -> Zeroizing<String> {
    KeypairBytes { secret_key: key.to_bytes(), public_key: None }
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
        return Err(PemError::OtherAlgorithm { algorithm: name_of(info.algorithm.oid) });
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
    let (_, behind) = body
        .split_once(END_LINE)
        .ok_or(PemError::Truncated { what: "the line `-----END PRIVATE KEY-----` is missing" })?;
    if !behind.is_empty() {
        return Err(PemError::TrailingData { what: "text follows the line `-----END PRIVATE KEY-----`" });
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
        other => PemError::Malformed { reason: other.to_string() },
    }
}

fn of_der(error: der::Error) -> PemError {
    match error.kind() {
        ErrorKind::Incomplete { .. } => PemError::Truncated { what: "bytes are missing inside the block" },
        ErrorKind::TrailingData { .. } => {
            PemError::TrailingData { what: "the block holds more bytes than the key" }
        }
        _ => PemError::Malformed { reason: error.to_string() },
    }
}

const LABEL: &str = "PRIVATE KEY";
const END_LINE: &str = "-----END PRIVATE KEY-----";
/// Longer than any label that RFC 7468 names.
const MAX_LABEL: usize = 64;
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeKey;
    use ed25519_dalek::pkcs8::spki::AlgorithmIdentifierRef;
    use ed25519_dalek::pkcs8::spki::der::asn1::{BitStringRef, OctetStringRef};
    use proptest::prelude::*;

    /// RFC 8410 § 10.3: a key without its public key, and the same with attributes and the public key.
    const RFC_8410: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    const RFC_8410_WITH_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----\n\
        MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
        Z9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PRIVATE KEY-----\n";
    const RFC_8410_PUBLIC: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";

    /// The key `[1; 32]` as PKCS#8 with these fields.
    fn pkcs8(oid: &str, inner: &[u8], public: Option<[u8; 32]>) -> String {
        let info = PrivateKeyInfoRef {
            algorithm: AlgorithmIdentifierRef { oid: ObjectIdentifier::new_unwrap(oid), parameters: None },
            private_key: OctetStringRef::new(inner).unwrap(),
            public_key: public.as_ref().map(|key| BitStringRef::new(0, key).unwrap()),
        };
        let document = SecretDocument::encode_msg(&info).unwrap();
        document.to_pem(LABEL, LineEnding::LF).unwrap().to_string()
    }

    fn inner() -> Vec<u8> {
        [&[0x04, 0x20][..], &[1; 32]].concat()
    }

    fn refusal(text: &str) -> PemError {
        decode(text).expect_err("this text is no node key")
    }

    #[test]
    fn the_keys_of_rfc_8410_are_read_with_and_without_public_key() {
        for text in [RFC_8410, RFC_8410_WITH_PUBLIC] {
            let key = decode(text).unwrap();
            assert_eq!(hex::encode(key.verifying_key().as_bytes()), RFC_8410_PUBLIC);
        }
    }

    #[test]
    fn a_key_is_written_as_rfc_8410_writes_it() {
        assert_eq!(*encode(&decode(RFC_8410).unwrap()), RFC_8410);
    }

    #[test]
    fn line_ends_of_windows_and_white_space_around_do_no_harm() {
        let windows = RFC_8410.replace('\n', "\r\n");
        for text in [&windows, RFC_8410.trim_end(), &format!("\n  {RFC_8410}\n\n")] {
            assert!(decode(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_pem_is_refused() {
        for text in ["", "hello", "BEGIN PRIVATE KEY", "-----BEGIN PRIVATE KEY", "-----BEGIN a\nb-----"] {
            assert_eq!(refusal(text), PemError::NotPem, "{text:?}");
        }
        assert!(refusal("").to_string().contains("openssl genpkey"));
    }

    #[test]
    fn every_cut_of_a_key_is_refused() {
        let whole = RFC_8410_WITH_PUBLIC.trim_end();
        for length in 0..whole.len() {
            refusal(&whole[..length]);
        }
        assert!(refusal(&whole[..80]).to_string().contains("cut short"));
        let shorter =
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK\n-----END PRIVATE KEY-----";
        assert!(matches!(refusal(shorter), PemError::Truncated { .. }));
    }

    #[test]
    fn a_block_of_another_kind_is_named_with_its_remedy() {
        for (label, remedy) in [
            ("ENCRYPTED PRIVATE KEY", "openssl pkcs8"),
            ("EC PRIVATE KEY", "a node's key is Ed25519"),
            ("RSA PRIVATE KEY", "a node's key is Ed25519"),
            ("OPENSSH PRIVATE KEY", "OpenSSH's own format"),
            ("CERTIFICATE", "holds no private key"),
            ("PUBLIC KEY", "public half"),
            ("X", "PKCS#8 PEM"),
        ] {
            let error = refusal(&RFC_8410.replace(LABEL, label));
            assert!(
                matches!(&error, PemError::OtherLabel { label: found, .. } if found == label),
                "{error:?}"
            );
            let message = error.to_string();
            assert!(message.contains(label) && message.contains(remedy), "{message}");
        }
    }

    #[test]
    fn a_key_of_another_algorithm_is_named() {
        for (oid, name) in [
            ("1.2.840.113549.1.1.1", "RSA"),
            ("1.2.840.113549.1.1.10", "RSA-PSS"),
            ("1.2.840.10045.2.1", "EC (ECDSA, ECDH)"),
            ("1.3.101.110", "X25519"),
            ("1.3.101.113", "Ed448"),
            ("1.2.3.4", "the algorithm 1.2.3.4"),
        ] {
            let error = refusal(&pkcs8(oid, &inner(), None));
            let algorithm = name.into();
            assert_eq!(error, PemError::OtherAlgorithm { algorithm });
        }
    }

    #[test]
    fn anything_behind_the_key_is_refused() {
        for text in [format!("{RFC_8410}x"), format!("{RFC_8410}{RFC_8410}")] {
            assert!(matches!(refusal(&text), PemError::TrailingData { .. }), "{text}");
        }
        let mut der = decode_der(RFC_8410);
        der.push(0);
        let text = der::pem::encode_string(LABEL, LineEnding::LF, &der).unwrap();
        assert!(matches!(refusal(&text), PemError::TrailingData { .. }));
    }

    #[test]
    fn a_foreign_public_key_inside_is_refused() {
        let own = NodeKey::from_seed([1; 32]).public().try_into_ed25519().unwrap();
        assert!(decode(&pkcs8("1.3.101.112", &inner(), Some(own.to_bytes()))).is_ok());
        let foreign = NodeKey::from_seed([2; 32]).public().try_into_ed25519().unwrap();
        let error = refusal(&pkcs8("1.3.101.112", &inner(), Some(foreign.to_bytes())));
        assert_eq!(error, PemError::PublicKeyMismatch);
    }

    #[test]
    fn a_key_of_another_length_is_malformed() {
        for inner in [&[][..], &[4, 31, 0], &[1; 34], &[&[4, 32][..], &[1; 33]].concat()] {
            let error = refusal(&pkcs8("1.3.101.112", inner, None));
            assert!(matches!(error, PemError::Malformed { .. }), "{error:?}");
        }
    }

    fn decode_der(text: &str) -> Vec<u8> {
        der::pem::decode_vec(text.as_bytes()).unwrap().1
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seed: [u8; 32]) {
            let key = NodeKey::from_seed(seed);
            prop_assert_eq!(NodeKey::from_pem(&key.to_pem()).unwrap().peer_id(), key.peer_id());
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text: String, body in "[A-Za-z0-9+/=\n -]{0,200}") {
            let _ = decode(&text);
            let _ = decode(&format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"));
        }

        #[test]
        fn any_der_is_a_key_or_an_error(at in 0usize..114, byte: u8, tail: Vec<u8>) {
            let mut der = decode_der(RFC_8410_WITH_PUBLIC);
            der[at] = byte;
            der.extend(tail);
            let text = der::pem::encode_string(LABEL, LineEnding::LF, &der).unwrap();
            let _ = decode(&text);
        }
    }
}
