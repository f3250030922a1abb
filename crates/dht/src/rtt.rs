//! Round trips: what was measured of one peer and of all, and how long to wait before an answer counts as overdue (dht.md B.2, rules 3 and 4).

use std::time::Duration;

/// A smoothed round trip time and how much it varies, as RFC 6298 § 2 computes them. In milliseconds, eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Rtt {
    smoothed: f32,
    variation: f32,
}

impl Rtt {
    /// Takes in one measurement.
    pub(crate) fn add(&mut self, rtt: Duration) {
        let sample = millis(rtt);
        if !self.is_known() {
            // RFC 6298 begins with a half, for timers of at least a second. Between nodes a quarter is much already.
            (self.smoothed, self.variation) = (sample, sample / 4.0);
        } else {
            self.variation += (f32::abs(self.smoothed - sample) - self.variation) / 4.0;
            self.smoothed += (sample - self.smoothed) / 8.0;
        }
    }

    /// Whether anything was measured.
    pub(crate) fn is_known(&self) -> bool {
        self.smoothed > 0.0
    }

    /// The smoothed time; `None` before the first measurement.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.is_known().then(|| duration(self.smoothed))
    }

    /// After so long an answer is overdue: the smoothed time and four times its variation.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.is_known().then(|| duration(self.smoothed + 4.0 * self.variation))
    }
}

/// Mean and deviation of many round trips: those of one lookup, or the last ones of the node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spread {
    count: f32,
    mean: f32,
    /// Sum of the squared deviations (Welford).
    squares: f32,
}

impl Spread {
    /// Takes in one measurement. Older ones fade once there are 64.
    pub(crate) fn add(&mut self, rtt: Duration) {
        let sample = millis(rtt);
        if self.count >= 64.0 {
            self.count /= 2.0;
            self.squares /= 2.0;
        }
        self.count += 1.0;
        let off = sample - self.mean;
        self.mean += off / self.count;
        self.squares += off * (sample - self.mean);
    }

    /// Whether there are enough measurements to say something of the next one.
    pub(crate) fn is_known(&self) -> bool {
        self.count >= 3.0
    }

    /// The mean and three deviations.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.is_known().then(|| duration(self.mean + 3.0 * (self.squares / self.count).max(0.0).sqrt()))
    }
}

/// The last round trips of first hops, for their median.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstHops {
    last: Vec<u16>,
    next: usize,
}

impl FirstHops {
    /// So many are kept.
    const KEPT: usize = 31;

    pub(crate) fn add(&mut self, rtt: Duration) {
        let sample = millis(rtt).min(f32::from(u16::MAX)) as u16;
        match self.last.get_mut(self.next) {
            Some(old) => *old = sample,
            None => self.last.push(sample),
        }
        self.next = (self.next + 1) % Self::KEPT;
    }

    /// The median; `None` before the third measurement.
    pub(crate) fn median(&self) -> Option<Duration> {
        if self.last.len() < 3 {
            return None;
        }
        let mut sorted = self.last.clone();
        sorted.sort_unstable();
        Some(Duration::from_millis(sorted[sorted.len() / 2].into()))
    }
}

fn millis(rtt: Duration) -> f32 {
    (rtt.as_secs_f32() * 1000.0).max(0.001)
}

fn duration(millis: f32) -> Duration {
    Duration::from_secs_f32((millis / 1000.0).clamp(0.0, 3600.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_was_measured() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.patience(), None);
        (0..50).for_each(|_| rtt.add(Duration::from_millis(80)));
        let patience = rtt.patience().unwrap().as_millis();
        assert!((79..90).contains(&patience), "{patience}");
        rtt.add(Duration::from_millis(400));
        assert!(rtt.patience().unwrap() > Duration::from_millis(300));
    }

    #[test]
    fn mean_and_three_deviations_cover_what_is_usual() {
        let mut spread = Spread::default();
        for round in 0..1000u64 {
            assert_eq!(spread.is_known(), round >= 3);
            spread.add(Duration::from_millis(100 + round % 2 * 40));
        }
        let patience = spread.patience().unwrap().as_millis();
        assert!((175..190).contains(&patience), "{patience}");
    }

    #[test]
    fn the_median_is_of_the_last_first_hops() {
        let mut hops = FirstHops::default();
        (0..1000).for_each(|round| hops.add(Duration::from_millis(round)));
        assert_eq!(hops.median(), Some(Duration::from_millis(984)));
        assert_eq!(hops.last.len(), FirstHops::KEPT);
    }
}
