//! How far a sender may go: the receiver's side of a channel's credit, for one stream. Pure: time and places come in, the limit comes out.
//!
//! Places are counted in bytes of the stream. The limit runs ahead of what came in by the window, which begins at [`FIRST_CREDIT`] and doubles
//! while half of it is used in less than four round trips; and ahead of what the application has taken by no more than the channel's bound.
//! What is promised and not taken is reserved first; nothing is promised that is not reserved. A message that is larger than the window gets room
//! as soon as its length was read.

use std::time::Duration;

use super::outbox::FIRST_CREDIT;
use crate::memory::{Exhausted, Reservation};

/// Half a window that is used in less time than this is used fast on any path.
const FAST: Duration = Duration::from_millis(5);

/// The credit of one stream.
#[derive(Debug)]
pub(crate) struct Window {
    limit: u64,
    window: u64,
    /// The most that may be promised beyond what the application took.
    most: u64,
    renewed: Duration,
    memory: Reservation,
}

impl Window {
    /// The first promise, which every sender may rely on.
    pub(crate) fn new(most: u64, mut memory: Reservation, now: Duration) -> Result<Self, Exhausted> {
        memory.resize(FIRST_CREDIT as usize)?;
        let most = most.max(FIRST_CREDIT);
        Ok(Self { limit: FIRST_CREDIT, window: FIRST_CREDIT, most, renewed: now, memory })
    }

    /// Bytes that the sender may have sent altogether.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether the sender, of whom `received` bytes came, has used so much of its credit that it needs more soon.
    pub(crate) fn is_low(&self, received: u64) -> bool {
        self.limit - received.min(self.limit) <= self.window / 2
    }

    /// How much the application must take for a renewal that could not be had to be worth another try.
    pub(crate) fn worth_taking(&self) -> u64 {
        self.window.min(self.most) / 4
    }

    /// The sender has come to `received` and needs more, the application to `taken`. True when the limit is another one now.
    pub(crate) fn renew(&mut self, received: u64, taken: u64, rtt: Duration, now: Duration) -> bool {
        let tight = self.memory.is_tight();
        if tight {
            self.window = (self.window / 2).max(FIRST_CREDIT);
        } else if now.saturating_sub(self.renewed) <= (4 * rtt).max(FAST) {
            self.window = (2 * self.window).min(self.most);
        }
        let wanted = (received + self.window).min(taken + self.most);
        if wanted < self.limit + self.worth_taking() {
            // Not worth an account of its own: the sender still has some, or the application takes more soon.
            return false;
        }
        self.renewed = now;
        let reserved = self.memory.bytes() as u64;
        // Where memory is short, what the application gives back is promised again by halves, down to the first credit.
        let kept = if tight { (reserved / 2).max(FIRST_CREDIT) } else { reserved };
        let granted = match wanted.checked_sub(taken) {
            Some(more) if !tight && self.memory.resize(more.max(reserved) as usize).is_ok() => wanted,
            _ => {
                if !tight {
                    // Less may be had.
                    self.window = (self.window / 2).max(FIRST_CREDIT);
                }
                wanted.min(taken + kept)
            }
        };
        let raised = granted > self.limit;
        self.limit = self.limit.max(granted);
        let ahead = self.limit.saturating_sub(taken).max(FIRST_CREDIT);
        // Never more than is reserved: less always succeeds.
        let _ = self.memory.resize(ahead.min(self.memory.bytes() as u64) as usize);
        raised
    }

    /// What is reserved, at the end.
    pub(crate) fn into_memory(self) -> Reservation {
        self.memory
    }

    /// A message that ends at `end` has begun. True when its end is within the limit now; false when there is no room for it yet.
    pub(crate) fn make_room(&mut self, end: u64, taken: u64) -> Result<bool, Exhausted> {
        if end <= self.limit {
            return Ok(true);
        }
        if end - taken > self.most {
            return Ok(false);
        }
        self.memory.resize(((end - taken) as usize).max(self.memory.bytes()))?;
        self.limit = end;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Budget, Budgets};
    use proptest::prelude::*;

    fn budgets(most: usize) -> Budgets {
        [Budget::new("test_bytes", most)].into()
    }

    const RTT: Duration = Duration::from_millis(50);

    fn window(most: u64, memory: usize) -> (Window, Budgets) {
        let accounts = budgets(memory);
        (Window::new(most, Reservation::new(accounts.clone()), Duration::ZERO).unwrap(), accounts)
    }

    #[test]
    fn the_window_grows_with_a_fast_sender_and_stays_with_a_slow_one() {
        let (mut fast, accounts) = window(1 << 20, 10 << 20);
        let mut now = Duration::ZERO;
        for _ in 0..20 {
            let received = fast.limit() - fast.window / 2;
            assert!(fast.is_low(received));
            now += RTT;
            assert!(fast.renew(received, received, RTT, now));
        }
        assert_eq!((fast.window, accounts[0].used()), (1 << 20, 1 << 20));
        let (mut slow, accounts) = window(1 << 20, 10 << 20);
        for step in 1..20u32 {
            let received = slow.limit() - slow.window / 2;
            assert!(slow.renew(received, received, RTT, step * Duration::from_secs(1)));
        }
        assert_eq!((slow.window, accounts[0].used() as u64), (FIRST_CREDIT, FIRST_CREDIT));
    }

    #[test]
    fn a_sender_may_fill_the_bound_while_nothing_is_taken_and_not_more() {
        let (mut window, accounts) = window(100_000, 1 << 20);
        let mut now = Duration::ZERO;
        while window.renew(window.limit(), 0, RTT, now) {
            now += RTT;
        }
        assert_eq!((window.limit(), accounts[0].used()), (100_000, 100_000));
        assert!(window.renew(100_000, 30_000, RTT, now));
        assert_eq!((window.limit(), accounts[0].used()), (130_000, 100_000));
    }

    #[test]
    fn a_large_message_gets_room_when_it_has_begun_and_not_beyond_the_bound() {
        let (mut window, _) = window(100_000, 90_000);
        assert_eq!(window.make_room(50_000, 0), Ok(true));
        assert_eq!(window.limit(), 50_000);
        assert_eq!(window.make_room(100_001, 0), Ok(false), "it waits for the application");
        assert!(window.make_room(95_000, 0).is_err(), "no memory");
        assert_eq!(window.make_room(95_000, 20_000), Ok(true));
    }

    #[test]
    fn a_window_without_the_first_credit_is_refused() {
        let refused =
            Window::new(1 << 20, Reservation::new(budgets(FIRST_CREDIT as usize - 1)), Duration::ZERO);
        assert_eq!(refused.unwrap_err().limit, "test_bytes");
    }

    proptest! {
        /// Whatever happens, what is promised and not yet taken is reserved, and within the bound.
        #[test]
        fn nothing_is_promised_that_is_not_reserved(
            steps in prop::collection::vec((0u64..60_000, 0u64..80, 0u64..300_000), 1..80),
            memory in 16_384usize..400_000,
        ) {
            let most = 200_000;
            let (mut window, accounts) = window(most, memory);
            let (mut received, mut taken, mut now) = (0u64, 0u64, Duration::ZERO);
            for (more, millis, message) in steps {
                received = (received + more).min(window.limit());
                taken = (taken + more / 2).min(received);
                now += Duration::from_millis(millis);
                let before = window.limit();
                if window.is_low(received) {
                    window.renew(received, taken, Duration::from_millis(10), now);
                }
                let _ = window.make_room(received + message, taken);
                prop_assert!(window.limit() >= before);
                let promised = window.limit() - taken;
                prop_assert!(promised <= most, "{promised}");
                prop_assert!(promised as usize <= accounts[0].used(), "{promised} {}", accounts[0].used());
            }
        }
    }
}
