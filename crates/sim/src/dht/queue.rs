//! The event loop's two parts: events in the order of (time, sequence), and the hash of all that happened.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Simulated time, in microseconds since the run began.
pub type Micros = u64;

/// One millisecond.
pub const MILLI: Micros = 1_000;
/// One second.
pub const SECOND: Micros = 1_000_000;

/// What is to happen, in order of time; of two events at one time the one that was scheduled first comes first.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Due>>,
    /// The events lie still while their times are sorted: they are many times as large.
    events: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
}

/// In the order of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Micros,
    sequence: u64,
    place: u32,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}

impl<E> Queue<E> {
    /// Schedules an event.
    pub fn push(&mut self, at: Micros, event: E) {
        self.sequence += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            (self.events.len() - 1) as u32
        });
        self.events[place as usize] = Some(event);
        self.heap.push(Reverse(Due { at, sequence: self.sequence, place }));
    }

    /// The next event and its time.
    pub fn pop(&mut self) -> Option<(Micros, E)> {
        let Reverse(due) = self.heap.pop()?;
        self.free.push(due.place);
        Some((due.at, self.events[due.place as usize].take()?))
    }

    /// When the next event is due.
    pub fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    /// How many events are scheduled.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// True when nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Forgets all events.
    pub fn clear(&mut self) {
        self.heap.clear();
        self.events.clear();
        self.free.clear();
    }
}

/// A rolling hash over (time, node, what): two runs that differ anywhere differ here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Takes in one event.
    pub fn note(&mut self, at: Micros, node: u64, what: u64) {
        for number in [at, node, what] {
            self.0 = (self.0 ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    /// The hash so far.
    pub fn hash(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_scheduling() {
        let mut queue = Queue::default();
        for (at, event) in [(5, "c"), (1, "a"), (5, "d"), (3, "b")] {
            queue.push(at, event);
        }
        assert_eq!(queue.next_at(), Some(1));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_hash_tells_order_and_content() {
        let of = |events: &[(u64, u64, u64)]| {
            let mut trace = Trace::default();
            events.iter().for_each(|(at, node, what)| trace.note(*at, *node, *what));
            trace.hash()
        };
        assert_eq!(of(&[(1, 2, 3), (4, 5, 6)]), of(&[(1, 2, 3), (4, 5, 6)]));
        assert_ne!(of(&[(1, 2, 3), (4, 5, 6)]), of(&[(4, 5, 6), (1, 2, 3)]));
        assert_ne!(of(&[(1, 2, 3)]), of(&[(1, 3, 2)]));
    }
}
