//! The one place where real time is read.
//!
//! Monotonic time comes from tokio, so that a test can pause it; wall-clock time is taken once and goes on with the monotonic one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerage_machine::Now;
use tokio::time::Instant;

/// Tells the time since a node's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    unix_at_start: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        let unix_at_start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), unix_at_start }
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
