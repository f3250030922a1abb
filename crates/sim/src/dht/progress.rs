//! How far a run is, for whoever watches it from another thread. What the run comes to doesn't depend on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::queue::{Micros, SECOND};

/// Counts of one run.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    lookups: AtomicU64,
    events: AtomicU64,
    simulated: AtomicU64,
}

impl Progress {
    /// Events that one report stands for.
    pub const EVENTS: u64 = 4096;

    /// A single lookup has ended.
    pub fn lookup(&self) {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// [`Progress::EVENTS`] further events have happened in a network, in which it is `now`.
    pub fn events(&self, now: Micros) {
        self.0.events.fetch_add(Self::EVENTS, Ordering::Relaxed);
        self.0.simulated.store(now, Ordering::Relaxed);
    }

    /// Single lookups so far, events so far, and the time in the network that is being simulated.
    pub fn read(&self) -> (u64, u64, Micros) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.0.lookups), read(&self.0.events), read(&self.0.simulated))
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (lookups, events, simulated) = self.read();
        if events > 0 {
            let (hours, minutes, seconds) =
                (simulated / SECOND / 3600, simulated / SECOND / 60 % 60, simulated / SECOND % 60);
            return write!(f, "at {hours}:{minutes:02}:{seconds:02}, {:.1} M events", events as f64 / 1e6);
        }
        write!(f, "{lookups} lookups")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_a_run_is() {
        let progress = Progress::default();
        let watcher = progress.clone();
        progress.lookup();
        progress.lookup();
        assert_eq!(watcher.to_string(), "2 lookups");
        (0..500).for_each(|_| progress.events(3_661 * SECOND));
        assert_eq!(watcher.to_string(), "at 1:01:01, 2.0 M events");
    }
}
