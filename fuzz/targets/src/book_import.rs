//! An exported address book, and what the peer manager makes of it.

use std::time::Duration;

use peerage::fuzzing;
use peerage_machine::{Machine, Now, Random};
use peerage_peers::{Input, PeerManager, PeersConfig, StoredPeer};

use crate::speaker;
use crate::text::assert_plain;

/// How many times the manager is looked at.
const STEPS: usize = 50;

/// What is no book is refused in plain words; entries that make sense are taken in within bounds, and no number in them breaks the manager.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let entries = match fuzzing::exported_book(text) {
        Ok(entries) => entries,
        Err(words) => return assert_plain(&words, 2048),
    };
    let mut peers = Vec::new();
    for entry in &entries {
        match StoredPeer::read(entry) {
            Ok(peer) => peers.push(peer),
            Err(error) => assert!(error.to_string().len() <= 2048),
        }
    }
    let count = peers.len();
    let mut manager = PeerManager::new(PeersConfig::default(), speaker().peer_id(), 1, Random::from_number(1));
    let mut now = Now { mono: Duration::from_secs(1), unix: Duration::from_secs(1_800_000_000) };
    manager.handle(now, Input::Load { peers: peers.clone() });
    manager.handle(now, Input::Import { peers });
    assert!(manager.known_peers() <= count);
    for _ in 0..STEPS {
        while manager.poll_output().is_some() {}
        let Some(due) = manager.poll_timeout() else { return };
        let passed = due.saturating_sub(now.mono).min(Duration::from_secs(86_400));
        now = Now { mono: now.mono + passed, unix: now.unix + passed };
        manager.handle_timeout(now);
    }
}
