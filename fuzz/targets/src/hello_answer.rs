//! The answer to our hello: accepted, or refused with other peers to try.

use std::time::Duration;

use peerage::fuzzing;
use peerage_identity::SignedPeerRecord;
use peerage_peers::PeerAnswer;

use crate::owned;
use crate::text::assert_plain;

/// What a refusal carries is bounded, verified, and fit for a log.
pub fn run(data: &[u8]) {
    let Ok(PeerAnswer::Reject { detail, retry_after, alternatives, .. }) = fuzzing::hello_answer(owned(data)) else {
        return;
    };
    assert_plain(&detail, 128);
    assert!(retry_after.is_none_or(|wait| wait > Duration::ZERO));
    assert!(alternatives.len() <= 8);
    for record in alternatives {
        assert_eq!(SignedPeerRecord::verify(record.as_bytes()), Ok(record));
    }
}
