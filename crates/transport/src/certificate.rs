//! The certificate that an endpoint shows: self-signed, with the node key's signature over the certificate's key (libp2p TLS specification).

use std::time::{Duration, SystemTime};

use peerage_identity::NodeKey;
use peerage_machine::Random;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use x509_cert::der::asn1::OctetString;
use x509_cert::der::{self, Encode};

use crate::settings::CertificateKind;

/// 1.3.6.1.4.1.53594.1.1, the extension that carries the host key and its signature.
pub(crate) const EXTENSION_OID: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// What the host key signs begins with this, then comes the certificate's SubjectPublicKeyInfo.
pub(crate) const SIGNED_PREFIX: &[u8] = b"libp2p-tls-handshake:";

/// A certificate and the private key that belongs to it.
pub(crate) struct OwnCertificate {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl OwnCertificate {
    /// Makes a new certificate key and a certificate for it, valid around `now`. An Ed25519 certificate follows from `random` and always has the
    /// same length; ECDSA keys and signatures are made with the system's randomness.
    pub(crate) fn generate(
        host: &NodeKey,
        kind: CertificateKind,
        now: UnixTime,
        random: &mut Random,
    ) -> Result<Self, String> {
        let key = certificate_key(kind, random).map_err(|error| error.to_string())?;
        let extension = extension(host, &key.subject_public_key_info()).map_err(|error| error.to_string())?;
        if now.as_secs() > LATEST {
            return Err("the clock is far beyond any date that a certificate can have".into());
        }
        let mut params = CertificateParams::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        params.not_before = now.checked_sub(VALID_BEFORE).unwrap_or(SystemTime::UNIX_EPOCH).into();
        params.not_after = (now + VALID_AFTER).into();
        params.serial_number = Some(serial_number(random));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "libp2p");
        params.custom_extensions = vec![CustomExtension::from_oid_content(EXTENSION_OID, extension)];
        let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
        Ok(Self {
            certificate: certificate.into(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }
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

fn certificate_key(kind: CertificateKind, random: &mut Random) -> Result<KeyPair, rcgen::Error> {
    match kind {
        CertificateKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        CertificateKind::Ed25519 => {
            let mut document = [0; 48];
            document[..16].copy_from_slice(ED25519_PKCS8);
            random.fill(&mut document[16..]);
            KeyPair::try_from(&PrivatePkcs8KeyDer::from(&document[..]))
        }
    }
}

/// Sixteen bytes, of which the first is neither zero nor negative: the same length in every certificate (RFC 5280 § 4.1.2.2).
fn serial_number(random: &mut Random) -> SerialNumber {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

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

    #[test]
    fn an_ecdsa_certificate_has_a_key_of_its_own_each_time() {
        let certificate = || made(CertificateKind::P256, 1).certificate;
        assert_ne!(certificate(), certificate());
    }
}
