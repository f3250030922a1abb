//! Certificates that peers show in the TLS handshake.

use peerage_transport::CertificateFault;
use peerage_transport::fuzzing::certificate;

use crate::text::assert_plain_error;

/// A certificate proves one peer or none, whenever it is looked at: only the faults of time depend on the time. No bit behind the signed part is
/// free: with another last byte it proves nothing.
pub fn run(data: &[u8]) {
    let at_all_times = [0, DECEMBER_2021, YEAR_2026, u64::MAX].map(|now| certificate(data, now));
    let mut proven = None;
    for result in &at_all_times {
        match result {
            Ok(peer) => {
                assert!(*proven.get_or_insert(*peer) == *peer, "one certificate, two peers");
            }
            Err(error) => assert_plain_error(error),
        }
    }
    if proven.is_none() {
        return;
    }
    let in_time = at_all_times.iter().filter(|result| {
        !matches!(result, Err(CertificateFault::NotYetValid | CertificateFault::Expired))
    });
    assert!(in_time.clone().all(Result::is_ok));
    let mut changed = data.to_vec();
    if let Some(last) = changed.last_mut() {
        *last ^= 1;
    }
    assert!(certificate(&changed, YEAR_2026).is_err());
    assert!(certificate(&[data, &[0]].concat(), YEAR_2026).is_err());
}

/// When most of the published certificates were valid.
const DECEMBER_2021: u64 = 1_640_000_000;
const YEAR_2026: u64 = 1_790_000_000;
