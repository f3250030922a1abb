//! Answers to requests: a status and a body.

use peerage::{RequestError, fuzzing};

use crate::text::{assert_plain, assert_plain_error};
use crate::{owned, speaker};

/// An answer is good, an error with its number, or malformed; the peer's words are fit for a log.
pub fn run(data: &[u8]) {
    let peer = speaker().peer_id();
    match fuzzing::answer(peer, owned(data)) {
        Some(Ok(body)) => assert!(body.0.len() < data.len()),
        Some(Err(error)) => {
            if let RequestError::Refused { text, .. } = &error {
                assert_plain(text, 1024);
            }
            assert_plain_error(&error);
        }
        None => {}
    }
}
