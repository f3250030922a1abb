//! A node's time.
//!
//! Monotonic time comes from tokio, so that a test can pause it. Wall-clock time goes on with it and is compared with the environment's whenever the node is awake: a machine that slept, and
//! whose monotonic clock stood still meanwhile, or whose clock was set, would otherwise sign and judge records by a time that is long past.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peerage_machine::Now;
use tokio::time::Instant;

/// Tells the time since a node's start. All clones tell the same.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    start: Instant,
    /// Wall-clock time at the start, as it is known by now: microseconds since the Unix epoch.
    unix_at_start: Arc<AtomicU64>,
}

impl Clock {
    /// Wall-clock time is set when it is off by more than this: smaller differences are the two clocks' own.
    const OFF: Duration = Duration::from_secs(1);

    /// A clock that starts now, so long after the Unix epoch.
    pub(crate) fn start(unix_now: Duration) -> Self {
        Self { start: Instant::now(), unix_at_start: Arc::new(AtomicU64::new(micros(unix_now))) }
    }

    /// This moment.
    pub(crate) fn now(&self) -> Now {
        let mono = self.start.elapsed();
        let start = Duration::from_micros(self.unix_at_start.load(Ordering::Relaxed));
        Now { mono, unix: start.saturating_add(mono) }
    }

    /// Takes wall-clock time over from the environment, where the two disagree.
    pub(crate) fn set(&self, unix_now: Duration) {
        let now = self.now();
        if now.unix.abs_diff(unix_now) > Self::OFF {
            self.unix_at_start.store(micros(unix_now.saturating_sub(now.mono)), Ordering::Relaxed);
        }
    }

    /// When a time of [`Now::mono`] is reached, for tokio's timers.
    pub(crate) fn instant(&self, mono: Duration) -> Instant {
        self.start.checked_add(mono).unwrap_or_else(|| self.start + Duration::from_secs(86_400 * 365))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine slept for three hours: the monotonic clock didn't, and goes on as it was.
    #[tokio::test(start_paused = true)]
    async fn wall_clock_time_follows_the_environment_and_monotonic_time_does_not() {
        let at = Duration::from_secs(1_800_000_000);
        let clock = Clock::start(at);
        let other = clock.clone();
        tokio::time::advance(Duration::from_secs(60)).await;
        clock.set(at + Duration::from_millis(60_900));
        assert_eq!(
            clock.now().unix,
            at + Duration::from_secs(60),
            "a difference of less than a second is none"
        );
        let awake = at + Duration::from_secs(3 * 3600);
        clock.set(awake);
        assert_eq!((other.now().unix, other.now().mono), (awake, Duration::from_secs(60)));
        clock.set(at);
        assert_eq!(other.now().unix, at, "and back");
        clock.set(Duration::MAX);
        assert!(other.now().unix > awake && clock.instant(Duration::MAX) > Instant::now());
    }
}
