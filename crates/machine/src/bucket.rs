//! Token bucket: so many at once, then so many a second.

use std::time::Duration;

use crate::Now;

/// Limits a rate without a timer: tokens are counted from the time that has passed.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    seen: Duration,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that refills with `per_second`.
    pub fn new(burst: f64, per_second: f64, now: Now) -> Self {
        Self { burst, per_second, tokens: burst, seen: now.mono }
    }

    /// Takes `tokens` if they are there.
    pub fn take(&mut self, tokens: f64, now: Now) -> bool {
        self.refill(now);
        let enough = self.tokens >= tokens;
        if enough {
            self.tokens -= tokens;
        }
        enough
    }

    /// Takes `tokens` whether they are there or not: what is missing is owed, and comes off what comes in later.
    pub fn charge(&mut self, tokens: f64, now: Now) {
        self.refill(now);
        self.tokens -= tokens;
    }

    /// Puts tokens back that were taken for something that cost nothing after all.
    pub fn give_back(&mut self, tokens: f64, now: Now) {
        self.refill(now);
        self.tokens = (self.tokens + tokens).min(self.burst);
    }

    /// The most that are ever there.
    pub fn burst(&self) -> f64 {
        self.burst
    }

    /// How many tokens are there; less than none when some are owed.
    pub fn available(&mut self, now: Now) -> f64 {
        self.refill(now);
        self.tokens
    }

    /// That no more are there than the burst, and no more than `most` owed.
    ///
    /// # Errors
    /// How many there are.
    pub fn check(&self, most: f64) -> Result<(), String> {
        match (-most..=self.burst).contains(&self.tokens) {
            true => Ok(()),
            false => Err(format!("{} tokens of {}, where {most} may be owed", self.tokens, self.burst)),
        }
    }

    /// How long until `tokens` are there; `None` if they never will be.
    pub fn wait_for(&mut self, tokens: f64, now: Now) -> Option<Duration> {
        self.refill(now);
        if self.tokens >= tokens {
            return Some(Duration::ZERO);
        }
        if tokens > self.burst || self.per_second <= 0.0 {
            return None;
        }
        // A nanosecond more than the quotient, so that rounding never leaves the caller short.
        Duration::try_from_secs_f64((tokens - self.tokens) / self.per_second)
            .ok()
            .map(|wait| wait.saturating_add(Duration::from_nanos(1)))
    }

    /// True when nothing has been taken lately: a full bucket can be forgotten.
    pub fn is_full(&mut self, now: Now) -> bool {
        self.refill(now);
        self.tokens >= self.burst
    }

    fn refill(&mut self, now: Now) {
        let passed = now.mono.saturating_sub(self.seen);
        if !passed.is_zero() {
            self.seen = now.mono;
            self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Now {
        Now::ZERO.after(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = TokenBucket::new(3.0, 2.0, at(0));
        assert!((0..3).all(|_| bucket.take(1.0, at(0))));
        assert!(!bucket.take(1.0, at(400)));
        assert!((bucket.available(at(400)) - 0.8).abs() < 1e-9);
        assert!(bucket.take(1.0, at(500)));
        bucket.give_back(1.0, at(500));
        assert!(bucket.take(1.0, at(500)));
        assert_eq!(bucket.wait_for(4.0, at(500)), None);
        assert!(bucket.is_full(at(5000)));
    }

    #[test]
    fn what_is_charged_beyond_the_tokens_is_owed() {
        let mut bucket = TokenBucket::new(3.0, 2.0, at(0));
        bucket.charge(5.0, at(0));
        assert!(bucket.available(at(0)) < 0.0 && !bucket.take(0.5, at(1000)));
        assert_eq!(bucket.burst(), 3.0);
        let wait = bucket.wait_for(3.0, at(1000)).unwrap();
        assert!((wait.as_secs_f64() - 1.5).abs() < 1e-6, "{wait:?}");
    }

    #[test]
    fn whoever_owes_more_than_it_may_is_told() {
        let mut bucket = TokenBucket::new(3.0, 2.0, at(0));
        assert!(bucket.take(3.0, at(0)) && bucket.check(0.0).is_ok());
        bucket.charge(5.0, at(0));
        assert!(bucket.check(5.0).is_ok() && bucket.check(4.9).is_err() && bucket.check(0.0).is_err());
        assert!(TokenBucket { tokens: 3.5, ..bucket.clone() }.check(0.0).is_err(), "more than ever fit");
        assert!(TokenBucket { tokens: f64::NAN, ..bucket }.check(5.0).is_err());
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_burst_and_rate(steps in prop::collection::vec(0u64..300, 1..200)) {
            let (burst, rate) = (5.0, 10.0);
            let mut bucket = TokenBucket::new(burst, rate, at(0));
            let (mut time, mut passed) = (0, 0.0);
            for step in steps {
                time += step;
                if bucket.take(1.0, at(time)) {
                    passed += 1.0;
                }
                prop_assert!(passed <= burst + rate * time as f64 / 1000.0 + 1e-6);
            }
        }

        #[test]
        fn after_the_wait_the_tokens_are_there(spent in 0u64..1000, wanted in 1u64..10) {
            let mut bucket = TokenBucket::new(10.0, 3.0, at(0));
            while bucket.take(1.0, at(spent)) {}
            let wait = bucket.wait_for(wanted as f64, at(spent)).unwrap();
            prop_assert!(bucket.take(wanted as f64, at(spent).after(wait + Duration::from_micros(1))));
        }
    }
}
