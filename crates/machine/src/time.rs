//! Time as a value.

use std::time::Duration;

/// One moment, on two clocks.
///
/// `std::time::Instant` cannot be made, stored or compared between runs; this can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now {
    /// Time since the node started. Never goes back: for delays and timeouts.
    pub mono: Duration,
    /// Time since 1970-01-01 UTC. May jump: for records and certificates.
    pub unix: Duration,
}

impl Now {
    /// The start of both clocks.
    pub const ZERO: Now = Now { mono: Duration::ZERO, unix: Duration::ZERO };

    /// The moment `delay` later, on both clocks.
    #[must_use]
    pub fn after(self, delay: Duration) -> Now {
        Now { mono: self.mono.saturating_add(delay), unix: self.unix.saturating_add(delay) }
    }

    /// Whole milliseconds since 1970.
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.unix.as_millis()).unwrap_or(u64::MAX)
    }
}
