//! The certificate that an endpoint shows: self-signed, with the node key's signature over the certificate's key (libp2p TLS specification).

use std::time::{Duration, SystemTime};

use peerage_identity::NodeKey;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PublicKeyData, SignatureAlgorithm,
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
    /// Makes a new certificate key and a certificate for it, valid around `now`.
    pub(crate) fn generate(host: &NodeKey, kind: CertificateKind, now: UnixTime) -> Result<Self, String> {
        let key = KeyPair::generate_for(algorithm(kind)).map_err(|error| error.to_string())?;
        let extension = extension(host, &key.subject_public_key_info()).map_err(|error| error.to_string())?;
        if now.as_secs() > LATEST {
            return Err("the clock is far beyond any date that a certificate can have".into());
        }
        let mut params = CertificateParams::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        params.not_before = now.checked_sub(VALID_BEFORE).unwrap_or(SystemTime::UNIX_EPOCH).into();
        params.not_after = (now + VALID_AFTER).into();
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

fn algorithm(kind: CertificateKind) -> &'static SignatureAlgorithm {
    match kind {
        CertificateKind::P256 => &PKCS_ECDSA_P256_SHA256,
        CertificateKind::Ed25519 => &PKCS_ED25519,
    }
}

/// Clocks differ: a certificate is valid since before it was made.
const VALID_BEFORE: Duration = Duration::from_secs(3600);

/// The year 9000: certificates end with the year 9999.
const LATEST: u64 = 221_845_392_000;

/// A hundred years: a certificate lives as long as its process, whatever the clock does.
const VALID_AFTER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
