//! The certificate that an endpoint shows: self-signed, with the node key's signature over the certificate's key (libp2p TLS specification).

use std::sync::Arc;
use std::time::Duration;

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetString, UintRef};
use der::oid::db::{rfc5912::ECDSA_WITH_SHA_256, rfc8410::ID_ED_25519};
use der::{DateTime, Decode, Encode, Sequence};
use peerage_identity::NodeKey;
use peerage_machine::Random;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::SigningKey;
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::{Time, Validity};

use crate::settings::CertificateKind;

/// The extension that carries the host key and its signature.
pub(crate) const EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.53594.1.1");

/// What the host key signs begins with this, then comes the certificate's SubjectPublicKeyInfo.
pub(crate) const SIGNED_PREFIX: &[u8] = b"libp2p-tls-handshake:";

/// A certificate and the private key that belongs to it.
pub(crate) struct OwnCertificate {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: Arc<dyn SigningKey>,
}

impl OwnCertificate {
    /// Makes a new certificate key and a certificate for it, valid around `now`. An Ed25519 certificate follows from `random` and always has the
    /// same length; ECDSA keys and signatures are made with the system's randomness.
    ///
    /// # Errors
    /// A sentence that says what went wrong.
    pub(crate) fn generate(
        host: &NodeKey,
        kind: CertificateKind,
        now: UnixTime,
        random: &mut Random,
    ) -> Result<Self, String> {
        let key = certificate_key(kind, random)?;
        let validity = validity(now)?;
        let certificate = self_signed(host, &*key, kind, validity, random)?;
        Ok(Self { certificate: certificate.into(), key })
    }
}

/// `TBSCertificate` as far as it is used here (RFC 5280 § 4.1).
#[derive(Sequence)]
struct ToBeSigned<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial_number: UintRef<'a>,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Extensions,
}

/// `Certificate` (RFC 5280 § 4.1).
#[derive(Sequence)]
struct Certificate<'a> {
    to_be_signed: AnyRef<'a>,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: BitStringRef<'a>,
}

/// The certificate in DER, signed with its own key.
fn self_signed(
    host: &NodeKey,
    key: &dyn SigningKey,
    kind: CertificateKind,
    validity: Validity,
    random: &mut Random,
) -> Result<Vec<u8>, String> {
    let said = |error: der::Error| error.to_string();
    let (scheme, oid) = match kind {
        CertificateKind::P256 => (SignatureScheme::ECDSA_NISTP256_SHA256, ECDSA_WITH_SHA_256),
        CertificateKind::Ed25519 => (SignatureScheme::ED25519, ID_ED_25519),
    };
    let algorithm = AlgorithmIdentifierOwned { oid, parameters: None };
    let spki = key.public_key().ok_or("the provider doesn't tell the certificate's public key")?;
    let extension = Extension {
        extn_id: EXTENSION,
        critical: false,
        extn_value: OctetString::new(extension(host, &spki).map_err(said)?).map_err(said)?,
    };
    let name: Name = "CN=libp2p".parse().map_err(said)?;
    let to_be_signed = ToBeSigned {
        version: VERSION_3,
        serial_number: UintRef::new(&serial_number(random)).map_err(said)?,
        signature: algorithm.clone(),
        issuer: name.clone(),
        validity,
        subject: name,
        subject_public_key_info: AnyRef::from_der(&spki).map_err(said)?,
        extensions: vec![extension],
    }
    .to_der()
    .map_err(said)?;
    let signer =
        key.choose_scheme(&[scheme]).ok_or("the provider doesn't sign with the certificate's key")?;
    let signature = signer.sign(&to_be_signed).map_err(|error| error.to_string())?;
    let certificate = Certificate {
        to_be_signed: AnyRef::from_der(&to_be_signed).map_err(said)?,
        signature_algorithm: algorithm,
        signature: BitStringRef::from_bytes(&signature).map_err(said)?,
    };
    certificate.to_der().map_err(said)
}

/// `SEQUENCE { OCTET STRING publicKey, OCTET STRING signature }`.
fn extension(host: &NodeKey, spki: &[u8]) -> der::Result<Vec<u8>> {
    let signature = host.sign(&signed_message(spki));
    let public_key = OctetString::new(host.public().encode_protobuf())?;
    let signature = OctetString::new(signature.to_vec())?;
    vec![public_key, signature].to_der()
}

/// What the host key signs for a certificate whose key is `spki`.
pub(crate) fn signed_message(spki: &[u8]) -> Vec<u8> {
    [SIGNED_PREFIX, spki].concat()
}

fn certificate_key(kind: CertificateKind, random: &mut Random) -> Result<Arc<dyn SigningKey>, String> {
    let document = match kind {
        CertificateKind::P256 => {
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| "the system gives no randomness for the certificate's key")?
                .as_ref()
                .to_vec()
        }
        CertificateKind::Ed25519 => {
            let mut document = [0; 48];
            document[..16].copy_from_slice(ED25519_PKCS8);
            random.fill(&mut document[16..]);
            document.to_vec()
        }
    };
    any_supported_type(&PrivatePkcs8KeyDer::from(document).into()).map_err(|error| error.to_string())
}

/// From an hour before `now` to a hundred years after it.
fn validity(now: UnixTime) -> Result<Validity, String> {
    if now.as_secs() > LATEST {
        return Err("the clock is far beyond any date that a certificate can have".into());
    }
    let now = Duration::from_secs(now.as_secs());
    let time = |since| DateTime::from_unix_duration(since).map(Time::from);
    let both = [now.saturating_sub(VALID_BEFORE), now + VALID_AFTER].map(time);
    let [Ok(not_before), Ok(not_after)] = both else {
        return Err("the clock shows a date that no certificate can have".into());
    };
    Ok(Validity::new(not_before, not_after))
}

/// Sixteen bytes, of which the first is neither zero nor negative: the same length in every certificate (RFC 5280 § 4.1.2.2).
fn serial_number(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    bytes[0] = bytes[0] & 0x3f | 0x40;
    bytes
}

/// Version 3 is written as 2.
pub(crate) const VERSION_3: u8 = 2;

/// How an Ed25519 key in PKCS#8 begins; its 32 bytes follow (RFC 8410 § 7).
const ED25519_PKCS8: &[u8; 16] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// Clocks differ: a certificate is valid since before it was made.
const VALID_BEFORE: Duration = Duration::from_secs(3600);

/// The year 9000: certificates end with the year 9999.
const LATEST: u64 = 221_845_392_000;

/// A hundred years: a certificate lives as long as its process, whatever the clock does.
const VALID_AFTER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: CertificateKind, seed: u64) -> OwnCertificate {
        let (host, now) =
            (NodeKey::from_seed([1; 32]), UnixTime::since_unix_epoch(Duration::from_secs(1 << 30)));
        OwnCertificate::generate(&host, kind, now, &mut Random::from_number(seed)).unwrap()
    }

    #[test]
    fn an_ed25519_certificate_follows_from_its_seed_and_has_one_length() {
        let certificate = |seed| made(CertificateKind::Ed25519, seed).certificate;
        assert_eq!(certificate(1), certificate(1));
        for seed in 0..300 {
            let other = certificate(seed);
            assert_eq!(other.len(), certificate(1).len(), "seed {seed}");
            assert!(seed == 1 || other != certificate(1));
        }
    }

    /// The form of 0.1.0, made by another library: nodes with one seed show one certificate in all versions.
    #[test]
    fn an_ed25519_certificate_has_the_form_that_it_always_had() {
        let certificate = hex::encode(made(CertificateKind::Ed25519, 1).certificate);
        assert_eq!(certificate, ED25519_OF_SEED_1.replace(char::is_whitespace, ""));
    }

    #[test]
    fn the_years_of_four_digits_are_written_as_such_and_later_ones_refused() {
        let at = |secs| validity(UnixTime::since_unix_epoch(Duration::from_secs(secs)));
        for (secs, before, after) in [
            (0, "1970-01-01T00:00:00Z", "2069-12-07T00:00:00Z"),
            (1 << 30, "2004-01-10T12:37:04Z", "2103-12-17T13:37:04Z"),
            (LATEST, "8999-12-31T23:00:00Z", "9099-12-08T00:00:00Z"),
        ] {
            let validity = at(secs).unwrap();
            assert_eq!(
                (validity.not_before.to_string(), validity.not_after.to_string()),
                (before.into(), after.into())
            );
        }
        assert!(at(LATEST + 1).is_err() && at(u64::MAX).is_err());
    }

    #[test]
    fn an_ecdsa_certificate_has_a_key_of_its_own_each_time() {
        let certificate = || made(CertificateKind::P256, 1).certificate;
        assert_ne!(certificate(), certificate());
    }

    const ED25519_OF_SEED_1: &str = "
        3082015e30820110a003020102021065cb1bd553f29f485820e2e9368deab5300506032b65703011310f300d06035504030c
        066c69627032703020170d3034303131303132333730345a180f32313033313231373133333730345a3011310f300d060355
        04030c066c6962703270302a300506032b6570032100329a4ce38cb72d1b8af06928b14853ad972afbcb965d2afd21813bb2
        faa9f7cca37c307a3078060a2b0601040183a25a0101046a30680424080112208a88e3dd7409f195fd52db2d3cba5d72ca67
        09bf1d94121bf3748801b40f6f5c044033c71238afdbfc16aa8003e6d1001b445cfbed4ef5fd46d178fa429acb8253f6aa13
        b690afc60beec7fcc23fedbab9d2159a718c64409ab3d240d9cfe7e72401300506032b657003410035b781beff6fdf0401ca
        b795a938ebd9b0da5b5df6b57a310bfa807ab3bfc281fe6829c6bb8bed9b8ab65575e5472da03da7c0234eaa28ae19fbeb09
        aba1b300
    ";
}
