//! Peer exchange: the question and the answer.

use peerage::fuzzing::{exchange_answer, exchange_ask};
use peerage_identity::{MAX_RECORD_BYTES, SignedPeerRecord};

use crate::owned;
use crate::text::assert_plain;

/// What is believed was verified, is within bounds, and verifies again.
pub fn run(data: &[u8]) {
    if let Err(words) = exchange_ask(owned(data)) {
        assert_plain(&words, 2048);
    }
    match exchange_answer(owned(data)) {
        Ok(records) => {
            assert!(records.len() <= 30);
            for record in records {
                assert!(record.as_bytes().len() <= MAX_RECORD_BYTES);
                assert_eq!(SignedPeerRecord::verify(record.as_bytes()), Ok(record));
            }
        }
        Err(words) => assert_plain(&words, 2048),
    }
}
