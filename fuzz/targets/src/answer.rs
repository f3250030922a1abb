//! Answers to requests: pairs of a status and a body.

use peerage::{RequestError, fuzzing};

use crate::text::{assert_plain, assert_plain_error};
use crate::{owned, speaker};

/// Each answer is good, or an error with its number, or malformed and then the last; the peer's words are fit for a log.
pub fn run(data: &[u8]) {
    let peer = speaker().peer_id();
    let answers = fuzzing::answers(peer, owned(data));
    let said: usize = answers.iter().flatten().flatten().map(|body| body.len() + 2).sum();
    assert!(said <= data.len(), "more was read than was said");
    for (index, answer) in answers.iter().enumerate() {
        match answer {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => {
                if let RequestError::Refused { text, .. } | RequestError::Overloaded { text, .. } = error {
                    assert_plain(text, 1024);
                }
                assert_plain_error(error);
            }
            Err(words) => assert_plain(words, 2048),
        }
        assert_eq!(index + 1, answers.len(), "nothing is read behind an error");
    }
}
