//! How many peers were seen lately (AL-70): a count for operators, bounded whatever comes.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Now;

use crate::Key;

/// Peers that answered us or asked us, and when last. Hearsay doesn't count.
#[derive(Debug, Clone)]
pub struct Seen {
    most: usize,
    /// By the first half of their keys: when, as seconds since 1970, so that it can be kept over a restart.
    last: BTreeMap<u128, u64>,
    unique: u64,
    /// Peers seen that found no place: then the counts are lower bounds.
    overflowed: bool,
}

/// So many different peers within each span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeenCounts {
    /// Within the last hour.
    pub hour: usize,
    /// Within the last day.
    pub day: usize,
    /// Within the last week.
    pub week: usize,
    /// Since the start of the node; those loaded are not counted.
    pub unique: u64,
    /// More peers were seen than are remembered: the counts are lower bounds.
    pub at_least: bool,
}

impl Seen {
    /// Nobody is remembered longer.
    pub const SPAN: Duration = Duration::from_secs(7 * 24 * 3600);

    /// Remembers `most` peers.
    pub fn new(most: usize) -> Self {
        Self { most, last: BTreeMap::new(), unique: 0, overflowed: false }
    }

    /// A peer showed itself.
    pub fn note(&mut self, now: Now, peer: &Key) {
        let second = now.unix.as_secs();
        let id = half(peer);
        if let Some(last) = self.last.get_mut(&id) {
            *last = second.max(*last);
            return;
        }
        self.unique += 1;
        if self.last.len() >= self.most {
            self.forget(now);
        }
        if self.last.len() < self.most {
            self.last.insert(id, second);
        } else {
            self.overflowed = true;
        }
    }

    /// The counts.
    pub fn counts(&self, now: Now) -> SeenCounts {
        let within = |hours: u64| {
            let since = now.unix.as_secs().saturating_sub(hours * 3600);
            self.last.values().filter(|last| **last >= since).count()
        };
        SeenCounts {
            hour: within(1),
            day: within(24),
            week: within(7 * 24),
            unique: self.unique,
            at_least: self.overflowed,
        }
    }

    /// All that is remembered, for the disk: the first 16 bytes of each key, and when it was seen last as seconds since 1970.
    pub fn save(&self) -> impl Iterator<Item = ([u8; 16], u64)> {
        self.last.iter().map(|(id, last)| (id.to_be_bytes(), *last))
    }

    /// Takes in what an earlier run has saved; what is too old, from the future, or too much is left out.
    pub fn load(&mut self, now: Now, saved: impl IntoIterator<Item = ([u8; 16], u64)>) {
        let present = now.unix.as_secs();
        let oldest = present.saturating_sub(Self::SPAN.as_secs());
        for (id, last) in saved {
            if (oldest..=present).contains(&last) && self.last.len() < self.most {
                let known = self.last.entry(u128::from_be_bytes(id)).or_default();
                *known = last.max(*known);
            }
        }
    }

    fn forget(&mut self, now: Now) {
        let oldest = now.unix.as_secs().saturating_sub(Self::SPAN.as_secs());
        self.last.retain(|_, last| *last >= oldest);
    }
}

fn half(key: &Key) -> u128 {
    key.to_bytes()[..16].iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> Now {
        Now { mono: Duration::ZERO, unix: Duration::from_secs(1_000_000_000 + hours * 3600) }
    }

    fn key(number: u64) -> Key {
        Key::of(&number.to_be_bytes())
    }

    /// AL-70: counts for an hour, a day and a week, and since the start; kept over a restart.
    #[test]
    fn peers_are_counted_by_when_they_were_seen_last() {
        let mut seen = Seen::new(100);
        seen.note(at(0), &key(1));
        seen.note(at(100), &key(2));
        seen.note(at(160), &key(3));
        seen.note(at(160), &key(3));
        let counts = SeenCounts { hour: 1, day: 1, week: 3, unique: 3, at_least: false };
        assert_eq!(seen.counts(at(160)), counts);
        let mut again = Seen::new(100);
        again.load(at(170), seen.save().chain([([9; 16], u64::MAX)]));
        assert_eq!(
            again.counts(at(170)),
            SeenCounts { hour: 0, day: 1, week: 2, unique: 0, at_least: false }
        );
    }

    #[test]
    fn so_many_are_remembered_and_the_rest_is_a_lower_bound() {
        let mut seen = Seen::new(50);
        (0..1000).for_each(|number| seen.note(at(1), &key(number)));
        let counts = seen.counts(at(1));
        assert_eq!((counts.hour, counts.unique, counts.at_least), (50, 1000, true));
        seen.note(at(200), &key(5000));
        assert_eq!(seen.counts(at(200)).week, 1);
        seen.load(at(200), (0..1000u128).map(|id| (id.to_be_bytes(), at(200).unix.as_secs())));
        assert_eq!(seen.counts(at(200)).week, 50);
    }
}
