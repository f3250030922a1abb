//! What comes with mail: a token by which a recipient lets somebody write to it, and what was sealed to it.

use peerage_dht::record::MailboxToken;
use peerage_identity::{MAX_SEALED_BYTES, NodeKey, SEALING_OVERHEAD, open_sealed};

use crate::{owned, speaker};

/// The context for which the inputs are sealed.
pub const CONTEXT: &[u8] = b"fuzzed mail";

/// A token lets in the one whom it names, until its time is over; what is sealed opens for one key and one purpose, and not when a bit of it is changed.
pub fn run(data: &[u8]) {
    token(data);
    sealed(data);
}

fn token(data: &[u8]) {
    let (token, owner) = (owned(data), speaker());
    let (sender, other) = (stranger(2).peer_id(), stranger(3).peer_id());
    if !MailboxToken::admits(&token, &owner.peer_id(), &sender, 0) {
        return;
    }
    assert!(!MailboxToken::admits(&token, &owner.peer_id(), &sender, u64::MAX), "no token lasts for ever");
    assert!(!MailboxToken::admits(&token, &owner.peer_id(), &other, 0), "it names its sender");
    assert!(!MailboxToken::admits(&token, &sender, &owner.peer_id(), 0), "its owner has signed it");
}

fn sealed(data: &[u8]) {
    let Ok(opened) = open_sealed(&speaker(), CONTEXT, data) else { return };
    assert_eq!(opened.len() + SEALING_OVERHEAD, data.len());
    assert!(data.len() <= MAX_SEALED_BYTES);
    assert!(open_sealed(&speaker(), b"another purpose", data).is_err());
    assert!(open_sealed(&stranger(2), CONTEXT, data).is_err());
    let mut changed = data.to_vec();
    if let Some(last) = changed.last_mut() {
        *last ^= 1;
    }
    assert!(open_sealed(&speaker(), CONTEXT, &changed).is_err());
}

/// Somebody else.
fn stranger(number: u8) -> NodeKey {
    NodeKey::from_seed([number; 32])
}
