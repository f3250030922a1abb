//! Whether our clock can be trusted: the neighbours tell theirs.

use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::{Now, Recent};

/// What the neighbours' clocks say about ours.
#[derive(Debug)]
pub struct NeighbourClocks {
    /// By how many seconds each one's clock is ahead of ours.
    ahead: Recent<PeerId, i64>,
    order: Vec<PeerId>,
    most: usize,
    alarm: Duration,
    wrong: bool,
}

/// Whether our clock is right has turned out otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockChanged {
    /// The neighbours' median is so many seconds ahead of our clock.
    pub ahead: i64,
    /// Whether that is too far.
    pub wrong: bool,
}

impl NeighbourClocks {
    /// For the clocks of so many neighbours; ours is wrong when it is further than `alarm` from their median.
    pub fn new(neighbours: usize, alarm: Duration) -> Self {
        Self {
            ahead: Recent::new(neighbours),
            order: Vec::new(),
            most: neighbours.max(1),
            alarm,
            wrong: false,
        }
    }

    /// Whether our clock is too far from the neighbours'.
    pub fn ours_is_wrong(&self) -> bool {
        self.wrong
    }

    /// A neighbour tells its time, in seconds since 1970.
    pub fn note(&mut self, now: Now, peer: PeerId, unix: u64) -> Option<ClockChanged> {
        let ahead = i128::from(unix) - i128::from(now.unix.as_secs());
        self.ahead.put(peer, i64::try_from(ahead).unwrap_or(i64::MAX));
        if !self.order.contains(&peer) {
            if self.order.len() >= self.most {
                self.order.remove(0);
            }
            self.order.push(peer);
        }
        if self.order.len() < self.most {
            return None;
        }
        let mut all: Vec<i64> = self.order.iter().filter_map(|peer| self.ahead.get(peer)).copied().collect();
        all.sort_unstable();
        let median = *all.get(all.len() / 2)?;
        let wrong = median.unsigned_abs() > self.alarm.as_secs();
        let changed = wrong != self.wrong;
        self.wrong = wrong;
        changed.then_some(ClockChanged { ahead: median, wrong })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::peer;

    #[test]
    fn our_clock_is_wrong_when_the_median_of_eight_neighbours_is_over_five_minutes_away() {
        let mut clocks = NeighbourClocks::new(8, Duration::from_secs(300));
        let now = Now { mono: Duration::ZERO, unix: Duration::from_secs(10_000) };
        for number in 0..4 {
            assert_eq!(clocks.note(now, peer(number), 10_010), None);
        }
        // Liars of up to a half change nothing, whatever they say, and neither do seven neighbours.
        for number in 4..7 {
            assert_eq!(clocks.note(now, peer(number), u64::MAX), None);
        }
        assert_eq!(clocks.note(now, peer(7), 10_010), None);
        assert!(!clocks.ours_is_wrong());
        let changes: Vec<_> = (0..4).filter_map(|number| clocks.note(now, peer(number), 10_301)).collect();
        assert_eq!(changes, [ClockChanged { ahead: 301, wrong: true }]);
        assert!(clocks.ours_is_wrong());
        let changes: Vec<_> = (0..8).filter_map(|number| clocks.note(now, peer(number), 9_999)).collect();
        assert_eq!(changes.len(), 1);
        assert!(!changes[0].wrong && !clocks.ours_is_wrong());
    }

    #[test]
    fn only_the_last_neighbours_are_remembered() {
        let mut clocks = NeighbourClocks::new(8, Duration::from_secs(300));
        for number in 0..1000 {
            clocks.note(Now::ZERO, peer(number), 0);
        }
        assert_eq!((clocks.order.len(), clocks.ahead.len()), (8, 8));
    }
}
