//! What a peer's certificate proves: strict reading of it, and the checks of the libp2p TLS specification.
//!
//! The order is from cheap to dear: the form, the time, the extension, then the two signatures. The host key's signature is the last
//! and is verified once per handshake.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use der::asn1::{AnyRef, BitStringRef, OctetString};
use der::{Decode, Reader, SliceReader, Tag, TagMode, TagNumber};
use peerage_identity::{KeyError, PeerId, PublicKey, decode_public_key, verify_signature};
use peerage_machine::Recent;
use ring::digest::{SHA256, digest};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{SignatureVerificationAlgorithm, UnixTime};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
mod moment;

use crate::certificate::{EXTENSION, VERSION_3, signed_message};

/// Why a peer's certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// There must be one.
    #[error("the peer sent {count} certificates where libp2p has exactly one")]
    Count {
        /// How many came.
        count: usize,
    },
    /// Not the strict DER of an X.509 certificate, version 3.
    #[error("the peer's certificate is malformed: {detail}")]
    Malformed {
        /// What the decoder found.
        detail: String,
    },
    /// Its validity begins in the future.
    #[error("the peer's certificate is not valid yet (compare both clocks)")]
    NotYetValid,
    /// Its validity has ended.
    #[error("the peer's certificate has expired (compare both clocks)")]
    Expired,
    /// It says that something must be understood that isn't.
    #[error("the peer's certificate has the unknown critical extension {oid}")]
    UnknownCritical {
        /// The extension's object identifier.
        oid: String,
    },
    /// It has no libp2p extension: the peer is no libp2p node.
    #[error("the peer's certificate has no libp2p extension, so it proves no peer ID")]
    NoExtension,
    /// The same extension twice.
    #[error("the peer's certificate has the extension {oid} twice")]
    RepeatedExtension {
        /// The extension's object identifier.
        oid: String,
    },
    /// The libp2p extension isn't the structure that belongs there.
    #[error("the libp2p extension of the peer's certificate is malformed: {detail}")]
    BadExtension {
        /// What the decoder found.
        detail: String,
    },
    /// The extension holds no public key that we take.
    #[error("the host key in the peer's certificate is refused: {0}")]
    HostKey(#[from] KeyError),
    /// Key and signature algorithm are no pair that TLS 1.3 has, or none that is verified here.
    #[error("the peer's certificate is signed with an algorithm that is not taken")]
    UnsupportedAlgorithm,
    /// It isn't signed with its own key.
    #[error("the signature of the peer's certificate is wrong")]
    BadSignature,
    /// The host key didn't sign the certificate's key.
    #[error("the peer's certificate is not signed by the host key that it names")]
    BadHostSignature,
    /// It proves another peer than the one that was dialled.
    #[error("another peer answered: {found}, not {expected}")]
    WrongPeer {
        /// Who was dialled.
        expected: Box<PeerId>,
        /// Who answered, and proved it.
        found: Box<PeerId>,
    },
}

/// A peer that proved to hold its host key, for as long as the TLS handshake in which it did so succeeds.
#[derive(Debug, Clone)]
pub(crate) struct ProvenPeer {
    pub(crate) peer_id: PeerId,
    pub(crate) public_key: Box<PublicKey>,
    /// The certificate's key in DER, for the CertificateVerify message.
    pub(crate) spki: Vec<u8>,
}

/// What an endpoint's checks of certificates count and remember.
///
/// Whether a certificate is signed with its own key follows from its bytes alone, so what was found of the same bytes before still holds. Everything else is
/// checked each time: the dates, the host key's signature, and in the handshake that the peer has the certificate's key.
#[derive(Debug)]
pub(crate) struct Checks {
    /// Signatures of host keys checked so far.
    host_signatures: AtomicU64,
    /// SHA-256 of certificates that passed every check lately.
    passed: Mutex<Recent<[u8; 32], ()>>,
}

impl Checks {
    pub(crate) fn new() -> Self {
        Self { host_signatures: AtomicU64::new(0), passed: Mutex::new(Recent::new(MAX_PASSED_CERTIFICATES)) }
    }

    /// How many signatures of host keys were checked.
    pub(crate) fn host_signatures(&self) -> u64 {
        self.host_signatures.load(Ordering::Relaxed)
    }

    fn passed(&self) -> MutexGuard<'_, Recent<[u8; 32], ()>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a certificate and checks all that can be checked without the handshake.
///
/// # Errors
/// Any [`CertificateFault`] but [`CertificateFault::Count`] and [`CertificateFault::WrongPeer`].
pub(crate) fn verify(
    certificate: &[u8],
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
    checks: &Checks,
) -> Result<ProvenPeer, CertificateFault> {
    let der = certificate;
    let certificate = Certificate::parse(der)?;
    certificate.check_time(now)?;
    let extension = certificate.libp2p_extension()?;
    let (host_key, host_signature) = parse_extension(extension.as_bytes())?;
    let public_key = decode_public_key(host_key.as_bytes())?;
    let (_, algorithm) =
        certificate.signature_scheme(algorithms).ok_or(CertificateFault::UnsupportedAlgorithm)?;
    let id = fingerprint(der);
    let passed_before = checks.passed().get(&id).is_some();
    if !passed_before {
        algorithm
            .verify_signature(certificate.key, certificate.tbs, certificate.signature)
            .map_err(|_| CertificateFault::BadSignature)?;
    }
    checks.host_signatures.fetch_add(1, Ordering::Relaxed);
    if !verify_signature(&public_key, &signed_message(certificate.spki), host_signature.as_bytes()) {
        return Err(CertificateFault::BadHostSignature);
    }
    if !passed_before {
        checks.passed().put(id, ());
    }
    let peer_id = public_key.to_peer_id();
    Ok(ProvenPeer { peer_id, public_key: Box::new(public_key), spki: certificate.spki.to_vec() })
}

/// The parts of a certificate that matter here (RFC 5280 § 4.1). Signed parts are slices of the original, not written anew.
struct Certificate<'a> {
    /// The to-be-signed part, with its tag.
    tbs: &'a [u8],
    /// Seconds since 1970, as the other one.
    not_before: i64,
    not_after: i64,
    /// SubjectPublicKeyInfo, with its tag.
    spki: &'a [u8],
    /// The content of the key's AlgorithmIdentifier.
    key_algorithm: &'a [u8],
    key: &'a [u8],
    extensions: Extensions,
    /// The content of the signature's AlgorithmIdentifier.
    signature_algorithm: &'a [u8],
    signature: &'a [u8],
}

/// What the signature covers, as far as it matters.
struct Signed<'a> {
    algorithm: &'a [u8],
    not_before: i64,
    not_after: i64,
    spki: &'a [u8],
    extensions: Extensions,
}

impl<'a> Certificate<'a> {
    fn parse(certificate: &'a [u8]) -> Result<Self, CertificateFault> {
        let mut reader = SliceReader::new(certificate)?;
        let (tbs, signature_algorithm, signature) = reader.sequence(|fields| {
            let tbs = fields.tlv_bytes()?;
            let algorithm = sequence_content(fields)?;
            let signature = whole_bytes(BitStringRef::decode(fields)?)?;
            Ok::<_, der::Error>((tbs, algorithm, signature))
        })?;
        reader.finish()?;

        let mut reader = SliceReader::new(tbs)?;
        let Signed { algorithm, not_before, not_after, spki, extensions } =
            reader.sequence(Self::parse_signed)?;
        reader.finish()?;
        if algorithm != signature_algorithm {
            return Err(CertificateFault::Malformed {
                detail: "it names two different signature algorithms".into(),
            });
        }
        let mut reader = SliceReader::new(spki)?;
        let (key_algorithm, key) = reader.sequence(|fields| {
            let algorithm = sequence_content(fields)?;
            Ok::<_, der::Error>((algorithm, whole_bytes(BitStringRef::decode(fields)?)?))
        })?;
        Ok(Self {
            tbs,
            not_before,
            not_after,
            spki,
            key_algorithm,
            key,
            extensions,
            signature_algorithm,
            signature,
        })
    }

    /// Version 3, without the unique identifiers that nobody uses.
    fn parse_signed(fields: &mut SliceReader<'a>) -> Result<Signed<'a>, CertificateFault> {
        let version: Option<u8> = fields.context_specific(TagNumber(0), TagMode::Explicit)?;
        if version != Some(VERSION_3) {
            return Err(CertificateFault::Malformed { detail: "it is not of version 3".into() });
        }
        AnyRef::decode(fields)?.tag_is(Tag::Integer)?;
        let algorithm = sequence_content(fields)?;
        Name::decode(fields)?;
        let (not_before, not_after) = fields
            .sequence(|fields| Ok::<_, der::Error>((moment::seconds(fields)?, moment::seconds(fields)?)))?;
        Name::decode(fields)?;
        let spki = fields.tlv_bytes()?;
        let extensions: Option<Extensions> = fields.context_specific(TagNumber(3), TagMode::Explicit)?;
        let extensions = extensions.unwrap_or_default();
        if extensions.len() > MAX_EXTENSIONS {
            return Err(CertificateFault::Malformed {
                detail: format!("it has over {MAX_EXTENSIONS} extensions"),
            });
        }
        Ok(Signed { algorithm, not_before, not_after, spki, extensions })
    }

    fn check_time(&self, now: UnixTime) -> Result<(), CertificateFault> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < self.not_before {
            Err(CertificateFault::NotYetValid)
        } else if now > self.not_after {
            Err(CertificateFault::Expired)
        } else {
            Ok(())
        }
    }

    /// The content of the one libp2p extension. Whether it is critical doesn't matter; any other critical extension is one too many.
    fn libp2p_extension(&self) -> Result<&OctetString, CertificateFault> {
        let mut found = None;
        for (index, Extension { extn_id, critical, extn_value }) in self.extensions.iter().enumerate() {
            if self.extensions[..index].iter().any(|earlier| earlier.extn_id == *extn_id) {
                return Err(CertificateFault::RepeatedExtension { oid: extn_id.to_string() });
            }
            if *extn_id == EXTENSION {
                found = Some(extn_value);
            } else if *critical {
                return Err(CertificateFault::UnknownCritical { oid: extn_id.to_string() });
            }
        }
        found.ok_or(CertificateFault::NoExtension)
    }

    /// The TLS 1.3 scheme of the certificate's signature, with what verifies it.
    ///
    /// Key and signature must be a pair that TLS 1.3 has: P-384 with SHA-256, say, is none. The provider lists the pairs first.
    fn signature_scheme(
        &self,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Option<(SignatureScheme, &'static dyn SignatureVerificationAlgorithm)> {
        algorithms.mapping.iter().find_map(|(scheme, candidates)| {
            let algorithm = *candidates.first()?;
            let fits = algorithm.signature_alg_id().as_ref() == self.signature_algorithm
                && algorithm.public_key_alg_id().as_ref() == self.key_algorithm;
            fits.then_some((*scheme, algorithm))
        })
    }
}

impl From<der::Error> for CertificateFault {
    fn from(error: der::Error) -> Self {
        Self::Malformed { detail: error.to_string() }
    }
}

/// `SEQUENCE { OCTET STRING publicKey, OCTET STRING signature }`.
pub(crate) fn parse_extension(value: &[u8]) -> Result<(OctetString, OctetString), CertificateFault> {
    let parse = || {
        let mut reader = SliceReader::new(value)?;
        let fields = reader.sequence(|fields| {
            let public_key = OctetString::decode(fields)?;
            let signature = OctetString::decode(fields)?;
            Ok::<_, der::Error>((public_key, signature))
        })?;
        reader.finish()?;
        Ok(fields)
    };
    parse().map_err(|error: der::Error| CertificateFault::BadExtension { detail: error.to_string() })
}

fn sequence_content<'a>(reader: &mut SliceReader<'a>) -> der::Result<&'a [u8]> {
    let any = AnyRef::decode(reader)?;
    any.tag_is(Tag::Sequence)?;
    Ok(any.value())
}

fn whole_bytes(bits: BitStringRef<'_>) -> der::Result<&[u8]> {
    bits.as_bytes().ok_or_else(|| Tag::BitString.value_error().into())
}

/// Asserts the tag of a value whose content is of no interest.
trait TagIs {
    fn tag_is(&self, tag: Tag) -> der::Result<()>;
}

impl TagIs for AnyRef<'_> {
    fn tag_is(&self, tag: Tag) -> der::Result<()> {
        self.header().tag().assert_eq(tag).map(|_| ())
    }
}

/// By what a certificate is remembered: no two have the same.
fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, certificate).as_ref());
    id
}

/// More than any honest certificate has.
const MAX_EXTENSIONS: usize = 32;

/// Certificates that are remembered, at 32 bytes each and some for the table: as many as come back at once to a large node that was away.
pub const MAX_PASSED_CERTIFICATES: usize = 1024;

#[cfg(test)]
mod tests;
