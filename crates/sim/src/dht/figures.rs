//! What many lookups came to: percentiles, means, shares.

use serde::Serialize;

use super::queue::{MILLI, Micros};
use super::walk::Walked;

/// Times of which percentiles are taken.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Micros>);

impl Times {
    /// Of these.
    pub fn new(mut times: Vec<Micros>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that `share` of them do not exceed, in milliseconds (nearest rank); no number when there is none, which meets no bar.
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0
            .get(rank.clamp(1, self.0.len().max(1)) - 1)
            .map_or(f64::NAN, |time| *time as f64 / MILLI as f64)
    }

    /// The share of them that is longer than so many milliseconds.
    pub fn longer_than(&self, millis: f64) -> f64 {
        let longer = self.0.iter().filter(|time| **time as f64 / MILLI as f64 > millis).count();
        longer as f64 / self.0.len().max(1) as f64
    }
}

/// What a number of lookups came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// How many lookups.
    pub lookups: usize,
    /// Median time, in milliseconds.
    pub p50_ms: f64,
    /// 95th percentile, in milliseconds.
    pub p95_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// 99.9th percentile, in milliseconds.
    pub p999_ms: f64,
    /// Mean requests of a lookup, those that were cancelled included.
    pub requests: f64,
    /// Share of the requests that went over a connection that stood.
    pub warm_share: f64,
    /// Share of the lookups that found the value; of searches for the closest peers, zero.
    pub found: f64,
    /// Mean share of the 20 closest peers that are well which a search ended with; of values, zero.
    pub recall: f64,
    /// Mean number of answers in a row that led to the end.
    pub hops: f64,
    /// The times themselves.
    #[serde(skip)]
    pub times: Times,
}

impl Figures {
    /// Of these lookups.
    pub fn of(walks: &[Walked]) -> Self {
        let count = walks.len().max(1) as f64;
        let mean = |of: fn(&Walked) -> f64| walks.iter().map(of).sum::<f64>() / count;
        let times = Times::new(walks.iter().map(|walked| walked.took).collect());
        let requests = mean(|walked| f64::from(walked.requests));
        Self {
            lookups: walks.len(),
            p50_ms: times.percentile(0.5),
            p95_ms: times.percentile(0.95),
            p99_ms: times.percentile(0.99),
            p999_ms: times.percentile(0.999),
            requests,
            warm_share: mean(|walked| f64::from(walked.warm)) / requests.max(f64::MIN_POSITIVE),
            found: mean(|walked| f64::from(u8::from(walked.found))),
            recall: mean(|walked| walked.recall),
            hops: mean(|walked| f64::from(walked.hops)),
            times,
        }
    }
}

/// A median and how far it may be from the truth: the two order statistics between which the true median lies with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Median {
    /// The median over the runs.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Median {
    /// Of one figure over several runs; `None` when there is none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let count = values.len();
        let middle = (values.get(count.checked_sub(1)? / 2)? + values.get(count / 2)?) / 2.0;
        // The binomial distribution's normal approximation; below six values the interval is all of them.
        let reach = 0.98 * (count as f64).sqrt();
        let low = ((count as f64 / 2.0 - reach).floor().max(0.0)) as usize;
        let high = ((count as f64 / 2.0 + reach).ceil() as usize).min(count - 1);
        Some(Self { median: middle, low: values[low], high: values[high] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times = Times::new((1..=100).rev().map(|millis| millis * MILLI).collect());
        assert_eq!(times.percentile(0.5), 50.0);
        assert_eq!(times.percentile(0.99), 99.0);
        assert_eq!(times.percentile(1.0), 100.0);
        assert_eq!(times.longer_than(98.5), 0.02);
        assert!(Times::default().percentile(0.5).is_nan());
    }

    #[test]
    fn a_median_of_twenty_runs_has_the_interval_of_the_sign_test() {
        let median = Median::of((1..=20).map(f64::from).collect()).unwrap();
        assert_eq!((median.median, median.low, median.high), (10.5, 6.0, 16.0));
        assert_eq!(Median::of(vec![3.0]).unwrap().median, 3.0);
        assert_eq!(Median::of(Vec::new()), None);
    }
}
