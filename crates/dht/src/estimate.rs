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
    /// When each was measured, and the distance of the k-th closest peer.
    samples: VecDeque<(Duration, f64)>,
}

impl SizeEstimate {
    /// Older samples are forgotten.
    pub const WINDOW: Duration = Duration::from_secs(2 * 3600);
    /// A sample of this age weighs half as much as a new one.
    pub const HALF_LIFE: Duration = Duration::from_secs(1800);
    /// With fewer samples nothing is said of the size.
    pub const LEAST: usize = 5;
    /// More samples are never kept.
    pub const MOST: usize = 64;
    /// The median is taken of so many means, so that one poisoned region cannot move it.
    const GROUPS: usize = 8;

    /// Nothing measured yet; distances will be those of the `k`-th closest.
    pub fn new(k: usize) -> Self {
        Self { k, samples: VecDeque::new() }
    }

    /// Takes in the distance of the k-th closest peer to a place that we drew at random.
    pub fn add(&mut self, now: Now, kth: Distance) {
        let share = kth.share();
        if share > 0.0 {
            self.forget(now);
            if self.samples.len() >= Self::MOST {
                self.samples.pop_front();
            }
            self.samples.push_back((now.mono, share));
        }
    }

    /// How many peers there are; `None` as long as too little was measured.
    pub fn size(&self, now: Now) -> Option<f64> {
        let fresh: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter_map(|(at, share)| {
                let age = now.mono.saturating_sub(*at);
                let weight = 0.5f64.powf(age.as_secs_f64() / Self::HALF_LIFE.as_secs_f64());
                (age <= Self::WINDOW).then_some((weight, *share))
            })
            .collect();
        if fresh.len() < Self::LEAST {
            return None;
        }
        let groups = if fresh.len() < 2 * Self::GROUPS { fresh.len() / 3 } else { Self::GROUPS }.max(1);
        // (k - 1) / share is an unbiased estimate by itself. Means of these follow a network that grows sooner than means of the shares, in which the old,
        // large ones weigh most.
        let rate = |share: f64| (self.k as f64 - 1.0) / share;
        let mut means: Vec<f64> = (0..groups)
            .map(|group| {
                let own = || fresh.iter().skip(group).step_by(groups);
                let weight: f64 = own().map(|(weight, _)| weight).sum();
                own().map(|(weight, share)| weight * rate(*share)).sum::<f64>() / weight
            })
            .collect();
        means.sort_by(f64::total_cmp);
        Some((means[(groups - 1) / 2] + means[groups / 2]) / 2.0)
    }

    /// Samples that count.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    fn forget(&mut self, now: Now) {
        while self.samples.front().is_some_and(|(at, _)| now.mono.saturating_sub(*at) > Self::WINDOW) {
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

    /// AL-69: the size is known within 15 % after ten lookups in nearly all cases, and of too few nothing is said.
    #[test]
    fn ten_lookups_tell_the_size_within_a_seventh() {
        let mut random = Random::from_number(1);
        let mut good = 0;
        for _ in 0..400 {
            let mut estimate = SizeEstimate::new(20);
            for round in 0..10 {
                assert_eq!(estimate.size(at(round)).is_some(), round >= 5);
                estimate.add(at(round), kth(&mut random, 10_000.0, 20));
            }
            good += u32::from((estimate.size(at(10)).unwrap() / 10_000.0 - 1.0).abs() < 0.15);
        }
        assert!(good > 340, "{good} of 400");
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
        for round in 0..20 {
            estimate.add(at(4000 + round * 60), kth(&mut random, 5000.0, 20));
        }
        let size = estimate.size(at(5200)).unwrap();
        assert!(size > 3000.0, "{size}");
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
