//! The hello between two Peerage nodes.

use peerage::{About, fuzzing};
use peerage_identity::MAX_ADDRESS_TEXT;
use peerage_peers::RejectReason;

use crate::text::assert_plain;
use crate::{owned, speaker};

/// A hello that is accepted names our network and, if any, a record of the speaker's own. What is kept is bounded and fit for a terminal.
pub fn run(data: &[u8]) {
    let peer = speaker().peer_id();
    let Ok((facts, about)) = fuzzing::hello(NETWORK, peer, owned(data)) else { return };
    match &facts.problem {
        None => assert!(facts.record.is_none_or(|record| record.peer_id() == peer)),
        Some((reason, detail)) => {
            use RejectReason::{InvalidHello, NoCommonVersion, WrongNetwork};
            assert!(matches!(reason, WrongNetwork | NoCommonVersion | InvalidHello));
            assert_plain(detail, 1024);
        }
    }
    assert_about(&about);
}

/// What a peer says about itself, from whichever message.
pub fn assert_about(about: &About) {
    let About { agent, moniker, protocol_version, protocols, listen, observed, channels, .. } = about;
    assert!(protocols.len() <= 256 && listen.len() <= 32 && channels.len() <= 128);
    let channels = channels.iter().map(|channel| &channel.name);
    for text in [agent, moniker, protocol_version].into_iter().chain(protocols).chain(channels) {
        assert_plain(text, 128);
    }
    for address in listen.iter().chain(observed) {
        assert_plain(address, MAX_ADDRESS_TEXT);
    }
}

/// The network of the node that listens.
pub const NETWORK: &str = "acme";
