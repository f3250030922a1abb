//! What the stream of a peer without credit holds. Nothing is promised to such a peer, and it may send whatever its stream's window lets pass:
//! so what the next read may bring is reserved before it is read, and what the application takes is given back.

use super::outbox::FIRST_CREDIT;
use crate::memory::{Exhausted, Reservation};
use crate::peer::Peer;

/// The accounts of one such stream.
#[derive(Debug)]
pub(crate) struct Plain {
    /// The most that one read brings, in bytes.
    read: usize,
    memory: Reservation,
    /// While nothing is read: what the stream may hold of the connection's window meanwhile.
    stalled: Option<Reservation>,
}

impl Plain {
    /// With room for the first read.
    pub(crate) fn new(read: usize, memory: Reservation) -> Result<Self, Exhausted> {
        let mut new = Self { read, memory, stalled: None };
        new.make_room(0)?;
        Ok(new)
    }

    /// Has one more read accounted for beside `waiting` bytes.
    pub(crate) fn make_room(&mut self, waiting: usize) -> Result<(), Exhausted> {
        let needed = self.needed(waiting);
        if needed <= self.memory.bytes() { Ok(()) } else { self.memory.resize(needed) }
    }

    /// Gives back what `waiting` bytes and one more read do not need.
    pub(crate) fn give_back(&mut self, waiting: usize) {
        let needed = self.needed(waiting);
        if needed < self.memory.bytes() {
            // Less always succeeds.
            let _ = self.memory.resize(needed);
        }
    }

    /// In steps, so that the accounts are not asked for every read.
    fn needed(&self, waiting: usize) -> usize {
        (waiting + self.read).next_multiple_of(FIRST_CREDIT as usize)
    }

    /// There is something to give back when the application has taken what waits.
    pub(crate) fn has_much(&self) -> bool {
        self.memory.bytes() > self.needed(0)
    }

    /// How much the application must take for it to be worth giving back.
    pub(crate) fn worth_taking(&self) -> u64 {
        self.memory.bytes() as u64 / 4
    }

    /// Nothing is read for now, and the stream's window fills. What all such streams may hold leaves the rest of the connection its room.
    pub(crate) fn stall(&mut self, peer: &Peer) -> Result<(), Exhausted> {
        if self.stalled.is_none() {
            let mut stalled = Reservation::new(peer.unread_budgets());
            stalled.resize(peer.shared.endpoint.settings().stream_window_bytes as usize)?;
            self.stalled = Some(stalled);
        }
        Ok(())
    }

    /// It is read again.
    pub(crate) fn go_on(&mut self) {
        self.stalled = None;
    }

    /// What is reserved, at the end.
    pub(crate) fn into_memory(self) -> Reservation {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Budget, Budgets};

    #[test]
    fn what_the_next_read_may_bring_is_reserved_first_and_what_was_taken_is_given_back() {
        let accounts: Budgets = [Budget::new("test_bytes", 100_000)].into();
        let mut plain = Plain::new(12_000, Reservation::new(accounts.clone())).unwrap();
        assert_eq!((accounts[0].used(), plain.has_much()), (16_384, false));
        for waiting in [4_000, 50_000, 80_000] {
            plain.make_room(waiting).unwrap();
            assert!(accounts[0].used() >= waiting + 12_000);
        }
        assert_eq!(plain.make_room(90_000).unwrap_err().limit, "test_bytes");
        assert!(plain.has_much() && accounts[0].used() <= 100_000);
        plain.give_back(1);
        assert_eq!(accounts[0].used(), 16_384);
        drop(plain);
        assert_eq!(accounts[0].used(), 0);
        let none: Budgets = [Budget::new("test_bytes", 16_000)].into();
        assert!(Plain::new(12_000, Reservation::new(none)).is_err());
    }
}
