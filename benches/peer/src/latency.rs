//! Percentiles of measured times.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What many measured times were like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median, in microseconds.
    pub p50_us: f64,
    /// What one in a hundred exceeds, in microseconds.
    pub p99_us: f64,
    /// How many there were.
    pub samples: u64,
}

impl Latency {
    /// Sums up; `None` without any.
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let at = |share: f64| Some(rank(&times, share)?.as_secs_f64() * 1e6);
        Some(Self { p50_us: at(0.50)?, p99_us: at(0.99)?, samples: times.len() as u64 })
    }
}

/// The smallest of the sorted times that at least this share of them does not exceed.
fn rank(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_whatever_the_order() {
        let times: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        let latency = Latency::of(times);
        assert!(latency == Some(Latency { p50_us: 100.0, p99_us: 198.0, samples: 200 }), "{latency:?}");
    }

    #[test]
    fn few_times_and_none_have_percentiles_too_and_not() {
        let one = Latency::of(vec![Duration::from_millis(3)]);
        assert!(one == Some(Latency { p50_us: 3000.0, p99_us: 3000.0, samples: 1 }), "{one:?}");
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
