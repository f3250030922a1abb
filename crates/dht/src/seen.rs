//! How many peers were seen lately (AL-70): a count for operators, bounded whatever comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerage_machine::Now;

use crate::Key;
use crate::distinct::Distinct;

/// Peers that answered us or asked us, and when last. Hearsay doesn't count.
#[derive(Debug, Clone)]
pub struct Seen {
    most: usize,
    /// By the first half of their keys: when, as seconds since 1970, so that it can be kept over a restart.
    last: BTreeMap<u128, u64>,
    /// The same by when, so that the one seen longest ago is at hand.
    by_time: BTreeSet<(u64, u128)>,
    unique: Distinct,
    /// When the one was seen last that was seen latest of those forgotten for want of room.
    forgotten: Option<u64>,
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
    /// Since the start of the node, whether or not an earlier run has seen them: exact up to 128, beyond that an estimate with a standard error of 3.3 %.
    pub unique: u64,
    /// More peers were seen within the last week than are remembered: the counts but for `unique` are lower bounds.
    pub at_least: bool,
}

impl Seen {
    /// Nobody is remembered longer.
    pub const SPAN: Duration = Duration::from_secs(7 * 24 * 3600);

    /// Remembers `most` peers.
    pub fn new(most: usize) -> Self {
        let (last, by_time) = (BTreeMap::new(), BTreeSet::new());
        Self { most, last, by_time, unique: Distinct::new(), forgotten: None }
    }

    /// A peer showed itself.
    pub fn note(&mut self, now: Now, peer: &Key) {
        self.unique.note(peer);
        self.remember(half(peer), now.unix.as_secs());
    }

    /// The counts.
    pub fn counts(&self, now: Now) -> SeenCounts {
        let since = |hours: u64| now.unix.as_secs().saturating_sub(hours * 3600);
        let within = |hours: u64| self.by_time.range((since(hours), 0)..).count();
        let week = Self::SPAN.as_secs() / 3600;
        SeenCounts {
            hour: within(1),
            day: within(24),
            week: within(week),
            unique: self.unique.count(),
            at_least: self.forgotten.is_some_and(|last| last >= since(week)),
        }
    }

    /// All that is remembered, for the disk: the first 16 bytes of each key, and when it was seen last as seconds since 1970.
    pub fn save(&self) -> impl Iterator<Item = ([u8; 16], u64)> {
        self.last.iter().map(|(id, last)| (id.to_be_bytes(), *last))
    }

    /// Takes in what an earlier run has saved; what is too old or from the future is left out, and of what is too much those seen longest ago.
    pub fn load(&mut self, now: Now, saved: impl IntoIterator<Item = ([u8; 16], u64)>) {
        let present = now.unix.as_secs();
        let oldest = present.saturating_sub(Self::SPAN.as_secs());
        for (id, last) in saved {
            if (oldest..=present).contains(&last) {
                self.remember(u128::from_be_bytes(id), last);
            }
        }
    }

    /// Remembers when a peer was seen. Where there is no room for one more, the one seen longest ago is forgotten.
    fn remember(&mut self, id: u128, second: u64) {
        let before = self.last.get(&id).copied();
        if before.is_some_and(|before| before >= second) {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, id));
        }
        self.last.insert(id, second);
        self.by_time.insert((second, id));
        if self.last.len() > self.most
            && let Some((second, id)) = self.by_time.pop_first()
        {
            self.last.remove(&id);
            self.forgotten = self.forgotten.max(Some(second));
        }
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
        for _ in 0..2 {
            (0..100).for_each(|number| seen.note(at(1), &key(number)));
        }
        let counts = seen.counts(at(1));
        assert_eq!((counts.hour, counts.unique, counts.at_least), (50, 100, true), "each counts once");
        for _ in 0..2 {
            (0..1000).for_each(|number| seen.note(at(2), &key(number)));
        }
        let unique = seen.counts(at(2)).unique;
        assert!((900..=1100).contains(&unique), "{unique}");
        assert!(seen.counts(at(169)).at_least && !seen.counts(at(171)).at_least, "a week later");
        seen.note(at(200), &key(5000));
        assert_eq!((seen.counts(at(200)).week, seen.counts(at(200)).at_least), (1, false));
        seen.load(at(200), (0..1000u128).map(|id| (id.to_be_bytes(), at(200).unix.as_secs())));
        assert_eq!(seen.counts(at(200)).week, 50);
    }

    /// AL-70: where more peers come in a week than are remembered, those of the last hour are known all the same.
    #[test]
    fn the_one_seen_longest_ago_gives_way() {
        let mut seen = Seen::new(50);
        for hour in 0..100 {
            (0..20).for_each(|number| seen.note(at(hour), &key(hour * 20 + number)));
            // One comes each time.
            seen.note(at(hour), &key(1 << 40));
        }
        let counts = seen.counts(at(99));
        assert_eq!((counts.hour, counts.day, counts.week, counts.at_least), (41, 50, 50, true));
        assert!(seen.save().any(|(id, _)| id[..] == key(1 << 40).to_bytes()[..16]));
        let mut again = Seen::new(20);
        again.load(at(99), seen.save());
        assert_eq!((again.counts(at(99)).hour, again.save().count()), (20, 20), "the newest stay");
        assert!(again.save().all(|(_, last)| last == at(99).unix.as_secs()));
    }

    /// Whom an earlier run has seen, and this one too, is one of those seen since the start.
    #[test]
    fn who_is_loaded_and_comes_again_is_counted() {
        let mut before = Seen::new(50);
        (0..10).for_each(|number| before.note(at(1), &key(number)));
        let mut seen = Seen::new(50);
        seen.load(at(2), before.save());
        (5..12).for_each(|number| seen.note(at(3), &key(number)));
        let counts = seen.counts(at(3));
        assert_eq!((counts.week, counts.unique, counts.at_least), (12, 7, false));
    }
}
