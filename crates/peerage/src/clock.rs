//! A node's time.
//!
//! Monotonic time comes from tokio, so that a test can pause it; wall-clock time is asked of the environment once and goes on with the monotonic one.

use std::time::Duration;

use peerage_machine::Now;
use tokio::time::Instant;

/// Tells the time since a node's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    unix_at_start: Duration,
}

impl Clock {
    /// A clock that starts now, so long after the Unix epoch.
    pub(crate) fn start(unix_now: Duration) -> Self {
        Self { start: Instant::now(), unix_at_start: unix_now }
    }

    /// This moment.
    pub(crate) fn now(&self) -> Now {
        let mono = self.start.elapsed();
        Now { mono, unix: self.unix_at_start.saturating_add(mono) }
    }

    /// When a time of [`Now::mono`] is reached, for tokio's timers.
    pub(crate) fn instant(&self, mono: Duration) -> Instant {
        self.start.checked_add(mono).unwrap_or_else(|| self.start + Duration::from_secs(86_400 * 365))
    }
}
