//! libp2p identify: what any peer says about itself, in up to ten messages.

use peerage::fuzzing;

use crate::hello::assert_about;
use crate::text::assert_plain;
use crate::{owned, speaker};

/// What is kept is bounded and fit for a terminal.
pub fn run(data: &[u8]) {
    match fuzzing::identify(speaker().peer_id(), owned(data)) {
        Ok(Some(about)) => assert_about(&about),
        Ok(None) => {}
        Err(words) => assert_plain(&words, 2048),
    }
}
