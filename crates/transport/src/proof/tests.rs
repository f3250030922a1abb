//! What other implementations published, and what becomes of damaged certificates.

use super::*;
use crate::certificate::OwnCertificate;
use crate::settings::CertificateKind;
use peerage_identity::NodeKey;
use peerage_machine::Random;
use proptest::prelude::*;
use rustls::crypto::ring;
use serde::Deserialize;
use std::time::Duration;

#[derive(Deserialize)]
struct Vectors<T> {
    vectors: Vec<T>,
}

#[derive(Deserialize)]
struct CertificateVector {
    id: String,
    cert_der_hex: String,
    valid: bool,
    peer_id: Option<String>,
}

#[derive(Deserialize)]
struct SchemeVector {
    id: String,
    cert_der_hex: String,
    expected_tls13_scheme: Option<String>,
}

fn check(certificate: &[u8], now: u64) -> Result<ProvenPeer, CertificateFault> {
    check_again(certificate, now, &Checks::new())
}

fn check_again(certificate: &[u8], now: u64, checks: &Checks) -> Result<ProvenPeer, CertificateFault> {
    let before = checks.host_signatures();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let result = verify(certificate, now, &algorithms, checks);
    // The host key's signature is checked once, and not at all when something before it is wrong.
    let reached = matches!(result, Ok(_) | Err(CertificateFault::BadHostSignature));
    assert_eq!(checks.host_signatures() - before, u64::from(reached));
    result
}

fn own(kind: CertificateKind) -> (NodeKey, Vec<u8>) {
    let key = NodeKey::from_seed([3; 32]);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(TODAY));
    let own = OwnCertificate::generate(&key, kind, now, &mut Random::from_number(1)).unwrap();
    (key, own.certificate.to_vec())
}

#[test]
fn the_certificates_of_the_specification_prove_their_peer_ids_or_are_refused() {
    let vectors: Vectors<CertificateVector> =
        serde_json::from_str(include_str!("../../tests/vectors/tls_certificates.json")).unwrap();
    assert_eq!(vectors.vectors.len(), 8);
    for vector in vectors.vectors {
        let result = check(&hex::decode(vector.cert_der_hex).unwrap(), TODAY);
        if vector.valid {
            let proven = result.unwrap_or_else(|fault| panic!("{}: {fault}", vector.id));
            assert_eq!(Some(proven.peer_id.to_string()), vector.peer_id, "{}", vector.id);
        } else {
            assert_eq!(result.unwrap_err(), CertificateFault::BadHostSignature, "{}", vector.id);
        }
    }
}

#[test]
fn only_pairs_of_key_and_signature_that_tls_1_3_has_are_taken() {
    let vectors: Vectors<SchemeVector> =
        serde_json::from_str(include_str!("../../tests/vectors/tls_signature_schemes.json")).unwrap();
    assert_eq!(vectors.vectors.len(), 11);
    for SchemeVector { id, cert_der_hex, expected_tls13_scheme } in vectors.vectors {
        let der = hex::decode(cert_der_hex).unwrap();
        let algorithms = ring::default_provider().signature_verification_algorithms;
        let scheme = Certificate::parse(&der)
            .ok()
            .and_then(|certificate| certificate.signature_scheme(&algorithms))
            .map(|(scheme, _)| scheme.as_str().unwrap().to_owned());
        // Nothing here verifies Ed448 and P-521.
        let expected =
            expected_tls13_scheme.filter(|name| !["ED448", "ECDSA_NISTP521_SHA512"].contains(&name.as_str()));
        // pkcs1_sha256.der is an Ed25519 certificate under a wrong name, and its publisher says nothing of it.
        if id != "pkcs1_sha256.der" {
            assert_eq!(scheme, expected, "{id}");
        }

        let result = check(&der, DECEMBER_2021).map(|proven| proven.peer_id);
        if id == "rsa_pss_sha384.der" {
            assert!(result.is_ok(), "{id}: {result:?}");
            assert!(check(&der, TODAY).is_ok());
        } else {
            assert!(result.is_err(), "{id} must be refused while it is valid");
            assert!(check(&der, TODAY).is_err());
        }
    }
}

#[test]
fn our_own_certificates_prove_our_peer_id() {
    for kind in [CertificateKind::P256, CertificateKind::Ed25519] {
        let (key, certificate) = own(kind);
        let proven = check(&certificate, TODAY).unwrap();
        assert_eq!(proven.peer_id, key.peer_id());
        assert_eq!(*proven.public_key, key.public());
    }
}

#[test]
fn a_certificate_is_valid_from_an_hour_before_it_was_made_for_a_hundred_years() {
    let (_, certificate) = own(CertificateKind::P256);
    let century = 100 * 365 * 24 * 3600;
    assert!(check(&certificate, TODAY - 3600).is_ok());
    assert_eq!(check(&certificate, TODAY - 3601).unwrap_err(), CertificateFault::NotYetValid);
    assert!(check(&certificate, TODAY + century).is_ok());
    assert_eq!(check(&certificate, TODAY + century + 1).unwrap_err(), CertificateFault::Expired);
}

#[test]
fn a_certificate_with_any_bit_changed_is_refused() {
    let (_, certificate) = own(CertificateKind::P256);
    for bit in 0..certificate.len() * 8 {
        let mut damaged = certificate.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&damaged, TODAY).is_err(), "bit {bit} may be changed");
    }
}

/// What is remembered of a certificate is its own signature and nothing else.
#[test]
fn a_certificate_that_comes_back_is_checked_all_the_same() {
    let (checks, century) = (Checks::new(), 100 * 365 * 24 * 3600);
    let (key, certificate) = own(CertificateKind::P256);
    for _ in 0..3 {
        assert_eq!(check_again(&certificate, TODAY, &checks).unwrap().peer_id, key.peer_id());
    }
    assert_eq!(checks.passed().len(), 1);
    let expired = check_again(&certificate, TODAY + century + 1, &checks);
    assert_eq!(expired.unwrap_err(), CertificateFault::Expired);
    for bit in 0..certificate.len() * 8 {
        let mut damaged = certificate.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(check_again(&damaged, TODAY, &checks).is_err(), "bit {bit} may be changed");
    }
    assert_eq!(checks.passed().len(), 1, "a refused certificate is not remembered");
}

#[test]
fn only_so_many_certificates_are_remembered() {
    let checks = Checks::new();
    let key = NodeKey::from_seed([3; 32]);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(TODAY));
    for seed in 0..MAX_PASSED_CERTIFICATES as u64 + 10 {
        let kind = CertificateKind::Ed25519;
        let own = OwnCertificate::generate(&key, kind, now, &mut Random::from_number(seed)).unwrap();
        check_again(&own.certificate, TODAY, &checks).unwrap();
    }
    assert_eq!(checks.passed().len(), MAX_PASSED_CERTIFICATES);
}

#[test]
fn a_certificate_cut_short_or_with_bytes_behind_it_is_refused() {
    let (_, mut certificate) = own(CertificateKind::P256);
    for length in 0..certificate.len() {
        assert!(check(&certificate[..length], TODAY).is_err());
    }
    certificate.push(0);
    assert!(matches!(check(&certificate, TODAY), Err(CertificateFault::Malformed { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
        prop_assert!(check(&bytes, TODAY).is_err());
        prop_assert!(parse_extension(&bytes).is_err() || bytes.starts_with(&[0x30]));
    }

    #[test]
    fn damage_anywhere_is_refused_without_panic(at: prop::sample::Index, with: Vec<u8>) {
        let (_, mut certificate) = own(CertificateKind::Ed25519);
        let before = certificate.clone();
        let start = at.index(certificate.len());
        let end = (start + with.len()).min(certificate.len());
        certificate.splice(start..end, with);
        prop_assume!(certificate != before);
        prop_assert!(check(&certificate, TODAY).is_err());
    }
}

/// A day in 2026.
const TODAY: u64 = 1_790_000_000;
/// When most certificates of tls_signature_schemes.json were valid.
const DECEMBER_2021: u64 = 1_640_000_000;
