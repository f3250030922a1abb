//! The full check of a peer's certificate: its form, its time, its own signature and the host key's.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use peerage_transport::CertificateKind;
use peerage_transport::fuzzing::{certificate, own_certificate};
use serde_json::Value;

/// A time within which all of them are valid, in seconds since 1970.
const TODAY: u64 = 1_750_000_000;

/// As our nodes show it: with an Ed25519 key, or with an ECDSA one.
fn ours(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("certificate/ours");
    for (name, kind) in [("ed25519", CertificateKind::Ed25519), ("p256", CertificateKind::P256)] {
        let (der, peer) = own_certificate(kind, TODAY).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(certificate(black_box(&der), TODAY).unwrap(), peer));
        });
    }
}

/// As others show it: a P-256 certificate with host keys of three kinds, and the specification's bad one.
fn foreign(criterion: &mut Criterion) {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../crates/transport/tests/vectors/tls_certificates.json"))
            .unwrap();
    let mut group = criterion.benchmark_group("certificate/foreign");
    for (id, name) in [
        ("spec-1", "host-ed25519"),
        ("spec-2", "host-ecdsa"),
        ("spec-3", "host-secp256k1"),
        ("spec-4", "bad-host-signature"),
    ] {
        let vector = vectors["vectors"].as_array().unwrap().iter().find(|vector| vector["id"] == id).unwrap();
        let der = hex::decode(vector["cert_der_hex"].as_str().unwrap()).unwrap();
        let valid = vector["valid"].as_bool().unwrap();
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(certificate(black_box(&der), TODAY).is_ok(), valid));
        });
    }
}

/// Making one's own, which happens once when a node starts.
fn make(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("certificate/make");
    for (name, kind) in [("ed25519", CertificateKind::Ed25519), ("p256", CertificateKind::P256)] {
        group.bench_function(name, |b| b.iter(|| own_certificate(kind, TODAY).unwrap()));
    }
}

criterion_group! {
    name = benches;
    // Half a minute for all of `cargo bench -p peerage-micro`.
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
    targets = ours, foreign, make
}
criterion_main!(benches);
