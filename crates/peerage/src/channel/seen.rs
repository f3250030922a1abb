//! What a peer lately sent, so that a broadcast does not send it back (FP-16).
//!
//! Hashes of payloads, in buckets by age of which the oldest is emptied in turn. Its memory is bounded; what falls out early is sent once too
//! often, never once too few.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long one bucket collects; a message is remembered for three to four times this.
const BUCKET: Duration = Duration::from_secs(15);
const BUCKETS: usize = 4;
/// Hashes in one bucket. A full one ends early.
const MAX_IN_BUCKET: usize = 1024;

/// Payloads that are remembered, and how long at most.
pub(crate) const MAX_REMEMBERED: usize = BUCKETS * MAX_IN_BUCKET;
pub(crate) const REMEMBERED: Duration = BUCKET.saturating_mul(BUCKETS as u32);

/// The payloads of one peer on one channel.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Hashed before each payload, and secret, so that nobody can make two payloads look the same.
    key: [u8; 16],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest first.
    buckets: VecDeque<BTreeSet<u64>>,
    began: Duration,
}

impl Seen {
    /// Nothing yet, under a random key.
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self { key, state: Mutex::default() }
    }

    /// The peer sent this.
    pub(crate) fn note(&self, payload: &[u8], now: Duration) {
        let hash = self.hash(payload);
        let mut state = self.lock(now);
        if state.buckets.front().is_none_or(|newest| newest.len() >= MAX_IN_BUCKET) {
            state.buckets.truncate(BUCKETS - 1);
            state.buckets.push_front(BTreeSet::new());
            state.began = now;
        }
        if let Some(newest) = state.buckets.front_mut() {
            newest.insert(hash);
        }
    }

    /// Whether the peer sent this lately.
    pub(crate) fn knows(&self, payload: &[u8], now: Duration) -> bool {
        let hash = self.hash(payload);
        self.lock(now).buckets.iter().any(|bucket| bucket.contains(&hash))
    }

    fn hash(&self, payload: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.key);
        hasher.write(payload);
        hasher.finish()
    }

    fn lock(&self, now: Duration) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let passed = now.saturating_sub(state.began).as_nanos() / BUCKET.as_nanos();
        for _ in 0..passed.min(BUCKETS as u128) {
            state.buckets.truncate(BUCKETS - 1);
            state.buckets.push_front(BTreeSet::new());
        }
        match u32::try_from(passed) {
            Ok(passed) if passed as usize <= BUCKETS => state.began += BUCKET * passed,
            _ => state.began = now,
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_remembered_for_three_to_four_buckets() {
        let seen = Seen::new([7; 16]);
        let at = Duration::from_secs;
        seen.note(b"a", at(14));
        assert!(seen.knows(b"a", at(44)) && !seen.knows(b"b", at(44)));
        seen.note(b"b", at(50));
        assert!(!seen.knows(b"a", at(80)) && seen.knows(b"b", at(80)));
        assert!(!seen.knows(b"b", at(1000)));
    }

    #[test]
    fn its_memory_is_bounded() {
        let seen = Seen::new([7; 16]);
        for number in 0..10_000u32 {
            seen.note(&number.to_be_bytes(), Duration::ZERO);
        }
        let kept: usize = seen.state.lock().unwrap().buckets.iter().map(BTreeSet::len).sum();
        assert!((3 * MAX_IN_BUCKET..=BUCKETS * MAX_IN_BUCKET).contains(&kept), "{kept}");
        assert!(seen.knows(&9_999u32.to_be_bytes(), Duration::ZERO));
    }
}
