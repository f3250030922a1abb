//! A channel's rate towards one peer, in bytes and messages, from two token buckets; and what is remembered of the rates of all its peers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_identity::PeerId;
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

    /// The part of what may pass at once that may pass now: 1 when nothing has passed lately, negative when something is owed.
    fn fullness(&mut self, now: Now) -> f64 {
        let Some(limited) = &mut self.0 else { return 1.0 };
        let buckets = limited.bytes.iter_mut().chain(&mut limited.messages);
        buckets.map(|bucket| bucket.available(now) / bucket.burst()).fold(1.0, f64::min)
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

/// Peers whose rate on a channel is remembered when they are not connected; more only while they are.
pub(crate) const MAX_PACES: usize = 1024;
/// As long as there are no more, nobody looks for those that can be forgotten.
const FEW_PACES: usize = 16;

/// What each peer of a channel may still send, whatever streams and connections it takes for it: who comes back finds what it left.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_peer: BTreeMap<PeerId, Arc<Mutex<Pace>>>,
    /// As many as there were when somebody last looked for those that can be forgotten.
    kept: usize,
}

impl Paces {
    /// A peer's, full with so many seconds' worth where nothing is known of it. `None` where there is no rate.
    pub(crate) fn of(
        &self,
        peer: PeerId,
        rate: ChannelRate,
        seconds: f64,
        now: Now,
    ) -> Option<Arc<Mutex<Pace>>> {
        if rate.is_unlimited() {
            return None;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = known.by_peer.get(&peer) {
            return Some(pace.clone());
        }
        known.forget(now);
        let new = Arc::new(Mutex::new(Pace::new(rate, seconds, now)));
        known.by_peer.insert(peer, new.clone());
        Some(new)
    }
}

impl Known {
    /// Makes room for one more: forgets whoever has sent nothing lately, and where that is not enough the one who has sent least of those who are gone.
    fn forget(&mut self, now: Now) {
        if self.by_peer.len() < (2 * self.kept).clamp(FEW_PACES, MAX_PACES) {
            return;
        }
        // A stream of it is open.
        let in_use = |pace: &Arc<Mutex<Pace>>| Arc::strong_count(pace) > 1;
        self.by_peer.retain(|_, pace| in_use(pace) || lock(pace).fullness(now) < 1.0);
        if self.by_peer.len() >= MAX_PACES {
            let gone = self.by_peer.iter().filter(|(_, pace)| !in_use(pace));
            let least = gone
                .map(|(peer, pace)| (*peer, lock(pace).fullness(now)))
                .max_by(|(_, one), (_, other)| one.total_cmp(other));
            least.map(|(peer, _)| self.by_peer.remove(&peer));
        }
        self.kept = self.by_peer.len();
    }
}

fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_identity::NodeKey;

    fn paces_of(paces: &Paces) -> usize {
        paces.0.lock().unwrap().by_peer.len()
    }

    /// Who comes back has what it left, and who is long gone is forgotten.
    #[test]
    fn a_peer_that_comes_back_finds_its_rate_and_many_peers_are_bounded() {
        let rate = ChannelRate { bytes_per_second: Some(1000), messages_per_second: None };
        let paces = Paces::default();
        let start = Now::ZERO;
        let of = |peer, now| paces.of(peer, rate, 2.0, now).unwrap();
        let peer = || NodeKey::generate().peer_id();
        let (stays, owes) = (peer(), peer());
        let open = of(stays, start);
        lock(&open).spend(2000, 1, start);
        lock(&of(owes, start)).spend(60_000, 1, start);
        for _ in 0..2 * MAX_PACES {
            lock(&of(peer(), start)).spend(2000, 1, start);
            assert!(paces_of(&paces) <= MAX_PACES);
        }
        assert_eq!(paces_of(&paces), MAX_PACES);
        assert!(Arc::ptr_eq(&of(stays, start), &open), "a stream of it is open");
        assert!(!lock(&of(owes, start)).lets_pass(1, start), "others were forgotten before it");
        // All but the one who owes have had time enough.
        let later = start.after(Duration::from_secs(10));
        let _ = of(peer(), later);
        assert_eq!(paces_of(&paces), 3);
        assert!(!lock(&of(owes, later)).lets_pass(1, later));
        assert!(paces.of(peer(), ChannelRate::default(), 2.0, later).is_none());
    }

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
