//! How large the network is, and whether a neighbourhood is denser than an honest one would be (dht.md B.6).
//!
//! The distance of the k-th closest peer to a place at random, as a share of the keyspace, is Gamma(k) distributed with the number of peers as its rate. So
//! a few lookups of places that nobody else chose tell the size; and where it is known, a neighbourhood that is much too dense shows itself.

use std::collections::VecDeque;
use std::time::Duration;

use peerage_machine::Now;

use crate::Distance;

/// The size of the network, from lookups of random places.
#[derive(Debug, Clone)]
pub struct SizeEstimate {
    k: usize,
    /// Until when each counts, and the distance of the k-th closest peer.
    samples: VecDeque<(Duration, f64)>,
    /// What they say together: it is asked for with each record that comes, and changes with a sample.
    known: Option<f64>,
}

impl SizeEstimate {
    /// Older samples are forgotten. Within it all samples count alike, but for those before the network changed.
    pub const WINDOW: Duration = Duration::from_secs(6 * 3600);
    /// With fewer samples nothing is said of the size.
    pub const LEAST: usize = 5;
    /// More samples are never kept.
    pub const MOST: usize = 64;
    /// So many samples in a row must say the same before they outvote those before them: fewer may be of one poisoned region.
    const NEWS: usize = 3;
    /// Two runs of samples are of networks of different sizes when they lie so many standard deviations apart.
    const APART: f64 = 4.5;

    /// Nothing measured yet; distances will be those of the `k`-th closest.
    pub fn new(k: usize) -> Self {
        Self { k, samples: VecDeque::new(), known: None }
    }

    /// Takes in the distance of the k-th closest peer to a place that we drew at random.
    pub fn add(&mut self, now: Now, kth: Distance) {
        let share = kth.share();
        if share > 0.0 {
            self.forget(now);
            if self.samples.len() >= Self::MOST {
                self.samples.pop_front();
            }
            self.samples.push_back((now.mono + Self::WINDOW, share));
            self.known = self.estimate(now);
        }
    }

    /// How many peers there are; `None` as long as too little was measured.
    pub fn size(&self, now: Now) -> Option<f64> {
        let is_old = self.samples.front().is_some_and(|(until, _)| *until < now.mono);
        if is_old { self.estimate(now) } else { self.known }
    }

    fn estimate(&self, now: Now) -> Option<f64> {
        let fresh = self.samples.iter().filter(|(until, _)| *until >= now.mono);
        // (k - 1) / share is an unbiased estimate by itself.
        let rates: Vec<f64> = fresh.map(|(_, share)| (self.k as f64 - 1.0) / share).collect();
        if rates.len() < Self::LEAST {
            return None;
        }
        let mut current = rates.as_slice();
        while let Some(turn) = self.turn(current) {
            current = &current[turn..];
        }
        Some(self.mean(current))
    }

    /// Whether a lookup's own word is so far from an estimate that chance alone seldom makes it so: a reason to measure again soon.
    pub fn is_odd(&self, size: f64, kth: Distance) -> bool {
        let rate = (self.k as f64 - 1.0) / kth.share().max(f64::MIN_POSITIVE);
        (rate / size).ln().abs() > 2.2 / self.weight().sqrt()
    }

    /// The samples, with the second since 1970 at which each was measured.
    pub(crate) fn save(&self, now: Now) -> impl Iterator<Item = (u64, f64)> {
        self.samples.iter().map(move |(until, share)| {
            let at = (now.unix + *until).saturating_sub(now.mono + Self::WINDOW);
            (at.as_secs(), *share)
        })
    }

    /// Takes back in what an earlier run has measured, as far as it still counts.
    pub(crate) fn load(&mut self, now: Now, samples: impl IntoIterator<Item = (u64, f64)>) {
        let unix = now.unix.as_secs();
        let counts = |(at, share): &(u64, f64)| {
            *at <= unix && unix - at <= Self::WINDOW.as_secs() && *share > 0.0 && *share <= 1.0
        };
        let mut fresh: Vec<(u64, f64)> = samples.into_iter().filter(counts).collect();
        fresh.sort_by_key(|(at, _)| *at);
        let older = fresh
            .iter()
            .map(|(at, share)| (now.mono + Self::WINDOW - Duration::from_secs(unix - at), *share));
        self.samples = older.chain(std::mem::take(&mut self.samples)).collect();
        while self.samples.len() > Self::MOST {
            self.samples.pop_front();
        }
        self.known = self.estimate(now);
    }

    /// Samples that count.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Where samples stop being of the network as it is now: the split at which both sides differ most, if chance cannot explain it.
    fn turn(&self, rates: &[f64]) -> Option<usize> {
        let apart = |split: usize| {
            let (old, new) = rates.split_at(split);
            let variance = (1.0 / old.len() as f64 + 1.0 / new.len() as f64) / self.weight();
            (self.mean(new) / self.mean(old)).ln().abs() / variance.sqrt()
        };
        let splits = 1..(rates.len() + 1).saturating_sub(Self::NEWS);
        let (split, most) = splits.map(|split| (split, apart(split))).max_by(|a, b| a.1.total_cmp(&b.1))?;
        (most > Self::APART).then_some(split)
    }

    /// The mean, in which nobody's word counts for more than two and a half standard deviations from the median: so a poisoned region cannot move it far, and nothing is lost
    /// where there is none, as a median of means would lose a third.
    fn mean(&self, rates: &[f64]) -> f64 {
        let mut sorted = rates.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        let reach = 2.5 / self.weight().sqrt();
        let clipped =
            sorted.iter().map(|rate| rate.clamp(median * (1.0 - reach).max(0.1), median * (1.0 + reach)));
        clipped.sum::<f64>() / rates.len().max(1) as f64
    }

    /// One over the relative variance of one sample.
    fn weight(&self) -> f64 {
        (self.k as f64 - 2.0).max(1.0)
    }

    fn forget(&mut self, now: Now) {
        while self.samples.front().is_some_and(|(until, _)| *until < now.mono) {
            self.samples.pop_front();
        }
    }
}

/// The radius within which `count` peers are expected in a network of `size`.
pub(crate) fn radius(count: f64, size: f64) -> Distance {
    Distance::of_share(count / size.max(1.0))
}

/// The value below which a Gamma(`shape`) variable stays with probability 0.1 (Wilson and Hilferty's approximation).
pub(crate) fn tenth_of_gamma(shape: f64) -> f64 {
    let shape = shape.max(1.0);
    shape * (1.0 - 1.0 / (9.0 * shape) - 1.2816 / (3.0 * shape.sqrt())).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_machine::Random;

    fn at(second: u64) -> Now {
        Now::ZERO.after(Duration::from_secs(second))
    }

    /// The distance of the k-th closest of `size` peers at random.
    fn kth(random: &mut Random, size: f64, k: usize) -> Distance {
        let sum: f64 = (0..k).map(|_| -(1.0 - random.unit()).ln()).sum();
        Distance::of_share(sum / size)
    }

    /// AL-69: the size is known within 15 % after twelve lookups in nineteen cases of twenty, and of too few nothing is said.
    #[test]
    fn twelve_lookups_tell_the_size_within_a_seventh() {
        let mut random = Random::from_number(1);
        let mut good = 0;
        for _ in 0..400 {
            let mut estimate = SizeEstimate::new(20);
            for round in 0..12 {
                assert_eq!(estimate.size(at(round)).is_some(), round >= 5);
                estimate.add(at(round), kth(&mut random, 10_000.0, 20));
            }
            good += u32::from((estimate.size(at(12)).unwrap() / 10_000.0 - 1.0).abs() < 0.15);
        }
        assert!(good >= 380, "{good} of 400");
    }

    #[test]
    fn one_poisoned_region_does_not_move_it() {
        let mut random = Random::from_number(2);
        let mut estimate = SizeEstimate::new(20);
        for round in 0..32 {
            let size = if round % 8 == 3 { 10_000_000.0 } else { 10_000.0 };
            estimate.add(at(round), kth(&mut random, size, 20));
        }
        let size = estimate.size(at(32)).unwrap();
        assert!((0.8..1.3).contains(&(size / 10_000.0)), "{size}");
    }

    #[test]
    fn it_follows_a_network_that_grows_and_forgets_within_its_bound() {
        let mut random = Random::from_number(3);
        let mut estimate = SizeEstimate::new(20);
        (0..40).for_each(|round| estimate.add(at(round), kth(&mut random, 1000.0, 20)));
        for round in 0..6 {
            estimate.add(at(4000 + round * 60), kth(&mut random, 2000.0, 20));
        }
        // Six samples outvote forty when the network has doubled.
        let size = estimate.size(at(4400)).unwrap();
        assert!((size / 2000.0 - 1.0).abs() < 0.25, "{size}");
        for round in 0..20 {
            estimate.add(at(4400 + round * 40), kth(&mut random, 5000.0, 20));
        }
        let size = estimate.size(at(5200)).unwrap();
        assert!((size / 5000.0 - 1.0).abs() < 0.15, "{size}");
        (0..1000).for_each(|round| estimate.add(at(5200 + round), kth(&mut random, 5000.0, 20)));
        assert_eq!(estimate.samples(), SizeEstimate::MOST);
        assert_eq!(estimate.size(at(50_000)), None);
    }

    #[test]
    fn a_tenth_of_gamma_is_that_of_tables() {
        for (shape, expected) in [(20.0, 14.53), (8.0, 4.66), (12.0, 7.83)] {
            assert!((tenth_of_gamma(shape) - expected).abs() < 0.05, "{}", tenth_of_gamma(shape));
        }
    }
}
