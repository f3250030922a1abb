//! Memory that is accounted for, in bytes: of the node, of each peer, of each channel.
//!
//! What a channel holds for a peer, or has promised that it will take from it, is reserved before it is held, in every account that it
//! belongs to. A reservation that any of them refuses is refused, by the name of that limit. Reservations are guards: dropped, they give
//! back.
//!
//! What channels hold is shared among peers by one rule, for the node and for each channel. Five eighths are for whoever comes first. When they are
//! gone, a peer gets more only while it holds little, and the less is left the less that is: free² ÷ (6 · limit). So each that holds what it can get
//! leaves most of what was left to others, and peers that read nothing need to be many to exhaust an account. Of a first small amount in each
//! direction the rule is not asked, nor is that of a channel for what is no more than its longest message, in both directions together; the node's
//! is. Requests are large and end by themselves: they take what there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::channel::FIRST_CREDIT;
use crate::error::SendError;

/// How much memory the channels and the requests of a node may use. They have accounts of their own, so that neither starves the other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryLimits {
    /// Bytes that all channels together may hold: messages that wait to be sent, that are on their way, that wait for the application,
    /// and room that peers were promised. While less than three eighths are free, a peer may hold free² ÷ (6 · limit) at most, or 16 KiB: with the
    /// default, a message of 1 MiB passes while 40 MiB are free, and one of 4 MiB while 79 MiB are. Give at least twice the longest message.
    /// Default: 256 MiB.
    pub node_bytes: usize,
    /// The same for one peer, on one connection: what an earlier one left unread counts for the node and the channel only. Default: 32 MiB.
    pub peer_bytes: usize,
    /// The part of each connection's windows, in bytes, that channels leave free, so that whatever they hold unread, requests, raw streams and
    /// keep-alives pass. Channels of the class [`crate::Class::Control`] may use half of it. Default: 1 MiB.
    pub window_reserve_bytes: usize,
    /// Bytes that all requests and answers together may hold, of those that this node serves and of those that it asks: what is being read, is
    /// worked on, or is being written. Default: 128 MiB.
    pub request_bytes: usize,
    /// The same for one peer. Default: 32 MiB.
    pub request_peer_bytes: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            node_bytes: 256 * 1024 * 1024,
            peer_bytes: 32 * 1024 * 1024,
            window_reserve_bytes: 1024 * 1024,
            request_bytes: 128 * 1024 * 1024,
            request_peer_bytes: 32 * 1024 * 1024,
        }
    }
}

impl MemoryLimits {
    /// Sets the node's bound, in bytes.
    #[must_use]
    pub fn node_bytes(mut self, most: usize) -> Self {
        self.node_bytes = most;
        self
    }

    /// Sets the bound for each peer, in bytes.
    #[must_use]
    pub fn peer_bytes(mut self, most: usize) -> Self {
        self.peer_bytes = most;
        self
    }

    /// Sets what channels leave free of each connection's windows, in bytes.
    #[must_use]
    pub fn window_reserve_bytes(mut self, bytes: usize) -> Self {
        self.window_reserve_bytes = bytes;
        self
    }

    /// Sets what requests and answers may hold, in bytes: of all peers, and of one.
    #[must_use]
    pub fn request_bytes(mut self, all: usize, of_one_peer: usize) -> Self {
        (self.request_bytes, self.request_peer_bytes) = (all, of_one_peer);
        self
    }

    /// Checks that the limits leave room for anything.
    ///
    /// # Errors
    /// A sentence that names the limit.
    pub fn validate(&self) -> Result<(), String> {
        let least = 64 * 1024;
        for (name, bytes) in [
            ("node_bytes", self.node_bytes),
            ("peer_bytes", self.peer_bytes),
            ("request_bytes", self.request_bytes),
            ("request_peer_bytes", self.request_peer_bytes),
        ] {
            if bytes < least {
                return Err(format!("the memory limit {name} is {bytes}: give at least {least}"));
            }
        }
        Ok(())
    }

    /// What channels may use of a window of `bytes`: at least half of it.
    pub(crate) fn of_window(&self, bytes: u64) -> usize {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        bytes.saturating_sub(self.window_reserve_bytes).max(bytes / 2)
    }
}

/// What one reservation gets whatever the others of its peer hold, as long as anything is free, in bytes: the first promise on a stream, or a few
/// messages that wait to be sent.
pub(crate) const LEAST_SHARE: usize = FIRST_CREDIT as usize;
/// Eighths of an account that peers share by no rule: whoever comes first has them.
const FIRST_COME: usize = 5;

/// What makes an account one peer's part of another.
#[derive(Debug)]
struct Part {
    of: Arc<Budget>,
    /// Bytes that the peer may have whatever others hold.
    least: usize,
}

/// One account: how much of it is reserved.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The limit's name, for errors.
    name: &'static str,
    most: usize,
    used: AtomicUsize,
    part: Option<Part>,
}

impl Budget {
    /// An account of its own.
    pub(crate) fn new(name: &'static str, most: usize) -> Arc<Self> {
        Arc::new(Self { name, most, used: AtomicUsize::new(0), part: None })
    }

    /// A peer's part of `whole`, which stands before it in each reservation: at most `most`, and `least` whatever others hold.
    pub(crate) fn part_of(whole: &Arc<Budget>, name: &'static str, most: usize, least: usize) -> Arc<Self> {
        let part = Some(Part { of: whole.clone(), least });
        Arc::new(Self { name, most, used: AtomicUsize::new(0), part })
    }

    /// Whether it is a peer's part of `whole`.
    pub(crate) fn is_part_of(&self, whole: &Arc<Budget>) -> bool {
        self.part.as_ref().is_some_and(|part| Arc::ptr_eq(&part.of, whole))
    }

    /// The limit in bytes.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Bytes that are reserved.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that are free.
    pub(crate) fn free(&self) -> usize {
        self.most.saturating_sub(self.used())
    }

    /// Less than an eighth is free.
    fn is_tight(&self) -> bool {
        self.free() < self.most / 8
    }

    /// What one peer may hold, as much as is left for others.
    fn share(&self) -> usize {
        let (free, most) = (self.free() as u128, self.most as u128);
        // Where the rule begins, it is a sixteenth of what is free.
        if free * 8 >= most * (8 - FIRST_COME) as u128 {
            self.most
        } else {
            (free * free / (6 * most)) as usize
        }
    }

    /// Takes `more`, for a reservation that holds `held` with it.
    fn take(&self, more: usize, held: usize) -> Result<(), Exhausted> {
        let sum = |used: usize| used.checked_add(more).filter(|sum| *sum <= self.most);
        let Ok(before) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum) else {
            return Err(self.exhausted());
        };
        match &self.part {
            Some(part) if held > LEAST_SHARE && before + more > part.least.max(part.of.share()) => {
                self.give_back(more);
                Err(part.of.exhausted())
            }
            _ => Ok(()),
        }
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn exhausted(&self) -> Exhausted {
        Exhausted { limit: self.name, most: self.most }
    }
}

/// A limit that has no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory limit {limit} of {most} bytes is reached")]
pub(crate) struct Exhausted {
    pub(crate) limit: &'static str,
    pub(crate) most: usize,
}

impl From<Exhausted> for SendError {
    fn from(exhausted: Exhausted) -> Self {
        Self::NoMemory { limit: exhausted.limit, most: exhausted.most }
    }
}

/// The accounts that one queue draws on.
pub(crate) type Budgets = Arc<[Arc<Budget>]>;

/// Bytes that are reserved in each of some accounts.
#[derive(Debug)]
pub(crate) struct Reservation {
    budgets: Budgets,
    bytes: usize,
}

impl Reservation {
    /// Nothing yet, in these accounts.
    pub(crate) fn new(budgets: Budgets) -> Self {
        Self { budgets, bytes: 0 }
    }

    /// What is reserved.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it `bytes`, in all accounts or in none. Less always succeeds.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes <= self.bytes {
            let less = self.bytes - bytes;
            self.budgets.iter().for_each(|budget| budget.give_back(less));
            self.bytes = bytes;
            return Ok(());
        }
        let more = bytes - self.bytes;
        for (index, budget) in self.budgets.iter().enumerate() {
            if let Err(exhausted) = budget.take(more, bytes) {
                self.budgets[..index].iter().for_each(|taken| taken.give_back(more));
                return Err(exhausted);
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Gives back what is reserved in one of the accounts, and goes on without it.
    pub(crate) fn leave(&mut self, account: &Arc<Budget>) {
        let is = |budget: &Arc<Budget>| Arc::ptr_eq(budget, account);
        if self.budgets.iter().any(is) {
            account.give_back(self.bytes);
            self.budgets = self.budgets.iter().filter(|budget| !is(budget)).cloned().collect();
        }
    }

    /// One of the accounts is nearly full: time to ask for less.
    pub(crate) fn is_tight(&self) -> bool {
        self.budgets.iter().any(|budget| budget.is_tight())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Giving back never fails.
        let _ = self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(sizes: &[usize]) -> Budgets {
        sizes.iter().map(|most| Budget::new("test_bytes", *most)).collect()
    }

    #[test]
    fn a_reservation_holds_in_every_account_or_in_none_and_is_given_back_when_dropped() {
        let both = budgets(&[100, 50]);
        let mut first = Reservation::new(both.clone());
        first.resize(40).unwrap();
        let mut second = Reservation::new(both.clone());
        assert_eq!(second.resize(20), Err(Exhausted { limit: "test_bytes", most: 50 }));
        assert_eq!((both[0].used(), both[1].used()), (40, 40), "what the first account gave was given back");
        first.resize(10).unwrap();
        second.resize(40).unwrap();
        assert!(second.is_tight());
        second.leave(&both[1]);
        assert_eq!((both[0].used(), both[1].used()), (50, 10), "the other account keeps it");
        drop(first);
        drop(second);
        assert_eq!((both[0].used(), both[1].used()), (0, 0));
    }

    /// Takes a thousand bytes again and again, as long as there are any.
    fn fill(reservation: &mut Reservation) {
        while reservation.resize(reservation.bytes() + 1000).is_ok() {}
    }

    /// Thirty who hold all that they can get leave something to the next one.
    #[test]
    fn whoever_holds_much_leaves_something_to_the_next_one() {
        const ALL: usize = 2 << 20;
        let whole = Budget::new("test_bytes", ALL);
        let of_peer =
            || Reservation::new([whole.clone(), Budget::part_of(&whole, "part_bytes", ALL, 0)].into());
        let mut deaf: Vec<_> = (0..30).map(|_| of_peer()).collect();
        deaf.iter_mut().for_each(fill);
        deaf.iter_mut().for_each(fill);
        let held: Vec<_> = deaf.iter().map(Reservation::bytes).collect();
        let first_come = ALL / 8 * FIRST_COME;
        assert!((first_come - 1000..=first_come).contains(&held[0]), "{held:?}");
        assert!(held[1] < ALL / 32 && held.is_sorted_by(|a, b| a >= b), "{held:?}");
        assert!(held[29] > LEAST_SHARE - 1000, "{held:?}");
        let mut next = of_peer();
        next.resize(LEAST_SHARE).unwrap();
        assert_eq!(next.resize(LEAST_SHARE * 2), Err(Exhausted { limit: "test_bytes", most: ALL }));
        drop((deaf, next));
        assert_eq!(whole.used(), 0);
    }

    /// What a peer holds in one direction, or on one stream, does not keep from it a first amount in the other.
    #[test]
    fn a_peer_that_holds_its_share_gets_a_first_amount_in_the_other_direction() {
        const ALL: usize = 1 << 20;
        let whole = Budget::new("test_bytes", ALL);
        let mut others = Reservation::new([whole.clone()].into());
        others.resize(ALL - 200_000).unwrap();
        let part = Budget::part_of(&whole, "part_bytes", ALL, 50_000);
        let accounts: Budgets = [whole.clone(), part].into();
        let (mut sent, mut received) = (Reservation::new(accounts.clone()), Reservation::new(accounts));
        sent.resize(50_000).unwrap();
        assert_eq!(sent.resize(50_001), Err(Exhausted { limit: "test_bytes", most: ALL }));
        received.resize(LEAST_SHARE).unwrap();
        assert!(received.resize(LEAST_SHARE + 1).is_err());
        assert_eq!(whole.used(), ALL - 200_000 + 50_000 + LEAST_SHARE, "what is refused is given back");
        drop(others);
        received.resize(ALL / 2).unwrap();
    }

    #[test]
    fn a_window_keeps_its_reserve_and_a_small_one_keeps_half() {
        let limits = MemoryLimits::default();
        assert_eq!(limits.of_window(8 << 20), 7 << 20);
        assert_eq!(limits.of_window(128 << 10), 64 << 10);
    }
}
