//! Requests: a message, and what the caller says about it.

use peerage::fuzzing;

use crate::owned;
use crate::text::assert_plain;

/// What is read was said; the numbers are those of this version or passed over.
pub fn run(data: &[u8]) {
    match fuzzing::request(owned(data)) {
        Ok((body, ..)) => {
            assert!(body.len() < data.len());
            assert!(data.windows(body.len().max(1)).any(|part| part == body) || body.is_empty());
        }
        Err(words) => assert_plain(&words, 2048),
    }
}
