//! A channel's rate towards one peer, in bytes and messages, from two token buckets.

use std::time::Duration;

use peerage_machine::{Now, TokenBucket};
use peerage_wire::uvarint;

use super::config::ChannelRate;

/// Lets so much pass in a second.
#[derive(Debug)]
pub(crate) struct Pace(
    /// Most channels have no rate, and each peer of each channel has two of these.
    Option<Box<Limited>>,
);

#[derive(Debug)]
struct Limited {
    rate: ChannelRate,
    bytes: Option<TokenBucket>,
    messages: Option<TokenBucket>,
}

impl Pace {
    /// Full, with so many seconds' worth at once.
    pub(crate) fn new(rate: ChannelRate, seconds: f64, now: Now) -> Self {
        let bucket =
            |rate: u64, least| TokenBucket::new((rate as f64 * seconds).max(least), rate as f64, now);
        Self((!rate.is_unlimited()).then(|| {
            Box::new(Limited {
                rate,
                // A message's length goes in one piece.
                bytes: rate.bytes_per_second.map(|rate| bucket(rate, uvarint::MAX_LEN as f64)),
                messages: rate.messages_per_second.map(|rate| bucket(rate, 1.0)),
            })
        }))
    }

    /// Follows another rate from now on.
    pub(crate) fn change(&mut self, rate: ChannelRate, seconds: f64, now: Now) {
        if rate != self.0.as_ref().map_or_else(ChannelRate::default, |limited| limited.rate) {
            *self = Self::new(rate, seconds, now);
        }
    }

    /// Whether there is anything to keep.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes and messages that may pass now.
    pub(crate) fn allowance(&mut self, now: Now) -> (usize, usize) {
        let whole = |bucket: &mut Option<TokenBucket>| match bucket {
            Some(bucket) => bucket.available(now) as usize,
            None => usize::MAX,
        };
        match &mut self.0 {
            Some(limited) => (whole(&mut limited.bytes), whole(&mut limited.messages)),
            None => (usize::MAX, usize::MAX),
        }
    }

    /// Whether one message of so many bytes may pass now. One that is longer than all that ever may pass at once waits for as much as that; what
    /// it takes beyond is owed.
    pub(crate) fn lets_pass(&mut self, bytes: usize, now: Now) -> bool {
        let Some(limited) = &mut self.0 else { return true };
        let has = |bucket: &mut Option<TokenBucket>, wanted: f64| {
            bucket.as_mut().is_none_or(|bucket| bucket.available(now) >= wanted.min(bucket.burst()))
        };
        has(&mut limited.bytes, bytes as f64) && has(&mut limited.messages, 1.0)
    }

    /// What passed.
    pub(crate) fn spend(&mut self, bytes: usize, messages: usize, now: Now) {
        let Some(limited) = &mut self.0 else { return };
        for (bucket, spent) in [(&mut limited.bytes, bytes), (&mut limited.messages, messages)] {
            if let Some(bucket) = bucket {
                bucket.charge(spent as f64, now);
            }
        }
    }

    /// How long until a tenth of a second's worth may pass, at least one byte and one message: so that a steady sender is not woken for each.
    pub(crate) fn wait(&mut self, now: Now) -> Duration {
        self.wait_for(1, now)
    }

    /// The same, and at least one message of so many bytes.
    pub(crate) fn wait_for(&mut self, bytes: usize, now: Now) -> Duration {
        let bucket_wait = |bucket: &mut Option<TokenBucket>, rate: Option<u64>, least: f64| {
            let wanted = (rate.unwrap_or(0) as f64 / 10.0).max(least);
            let wait = bucket.as_mut().and_then(|bucket| bucket.wait_for(wanted.min(bucket.burst()), now));
            wait.unwrap_or(Duration::ZERO)
        };
        let Some(limited) = &mut self.0 else { return Duration::ZERO };
        let rate = limited.rate;
        bucket_wait(&mut limited.bytes, rate.bytes_per_second, bytes as f64).max(bucket_wait(
            &mut limited.messages,
            rate.messages_per_second,
            1.0,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_passes_at_once_and_then_the_rate_holds_in_bytes_and_in_messages() {
        let rate = ChannelRate { bytes_per_second: Some(1000), messages_per_second: Some(10) };
        let mut pace = Pace::new(rate, 1.0, Now::ZERO);
        let (mut now, mut bytes, mut messages) = (Now::ZERO, 0, 0);
        while now.mono < Duration::from_secs(10) {
            let (b, m) = pace.allowance(now);
            // Messages of 40 bytes: the count is the stricter bound.
            let count = m.min(b / 40);
            pace.spend(40 * count, count, now);
            (bytes, messages) = (bytes + 40 * count, messages + count);
            now = now.after(pace.wait(now).max(Duration::from_millis(1)));
        }
        assert!((100..=110).contains(&messages), "{messages}");
        assert!(bytes <= 11_000, "{bytes}");
        let unlimited = Pace::new(ChannelRate::default(), 1.0, now);
        assert!(unlimited.is_unlimited());
    }
    #[test]
    fn a_message_longer_than_the_burst_passes_alone_and_at_the_rate() {
        let rate = ChannelRate { bytes_per_second: Some(1000), messages_per_second: None };
        let mut pace = Pace::new(rate, 2.0, Now::ZERO);
        let mut now = Now::ZERO;
        for number in 0..10u64 {
            assert!(pace.lets_pass(5000, now), "{number}");
            pace.spend(5000, 1, now);
            assert!(!pace.lets_pass(1, now) && pace.allowance(now).0 == 0);
            now = now.after(pace.wait_for(5000, now));
            let due = Duration::from_secs(5 * (number + 1));
            assert!(now.mono >= due && now.mono < due + Duration::from_millis(1), "{number}: {:?}", now.mono);
        }
    }
}
