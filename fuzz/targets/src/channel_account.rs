//! What the receiver of a channel accounts for, as the sender hears it.

use peerage::{Verdict, fuzzing};

use crate::text::assert_plain;
use crate::{owned, speaker};

/// Whatever the peer says: everybody who waits hears once, no more is counted than was queued, and nothing stays accounted for.
pub fn run(data: &[u8]) {
    let told = fuzzing::accounts(speaker().peer_id(), owned(data));
    assert_eq!(told.verdicts.len(), told.queued, "somebody was told nothing");
    let refused = told.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Refused(_))).count();
    assert_eq!(refused, 0, "a peer that ends nothing refuses nothing");
    for count in told.counts {
        assert!(count <= told.queued as u64, "{:?} of {}", told.counts, told.queued);
    }
    assert_eq!(told.held, 0, "bytes are held for a connection that has ended");
    if let Some(fault) = told.fault {
        assert_plain(&fault, 2048);
    }
}
