//! Whether our clock can be trusted: the neighbours tell theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::Now;

use crate::{Contact, Subnet};

/// What the neighbours' clocks say about ours: the last word of each, one for each subnet, so that nobody has more voices for speaking more often or from many peers of one
/// place.
#[derive(Debug)]
pub struct NeighbourClocks {
    /// Those who have a say.
    words: BTreeMap<PeerId, Word>,
    /// Counts what was said.
    said: u64,
    least: usize,
    alarm: Duration,
    wrong: bool,
}

#[derive(Debug, Clone, Copy)]
struct Word {
    subnet: Option<Subnet>,
    /// The number of what it said last, and by how many seconds its clock was ahead.
    last: Option<(u64, i64)>,
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
    /// Ours is wrong when it is further than `alarm` from the median of at least so many neighbours.
    pub fn new(neighbours: usize, alarm: Duration) -> Self {
        Self { words: BTreeMap::new(), said: 0, least: neighbours.max(1), alarm, wrong: false }
    }

    /// Who lies near us now: nobody else has a say. What those who stay have said is judged anew.
    pub fn set_neighbours(&mut self, contacts: &[Contact]) -> Option<ClockChanged> {
        let mut before = std::mem::take(&mut self.words);
        let word = |contact: &Contact| {
            let last = before.remove(contact.peer()).and_then(|word| word.last);
            (*contact.peer(), Word { subnet: contact.subnets().next(), last })
        };
        self.words = contacts.iter().map(word).collect();
        self.judge()
    }

    /// Whether our clock is too far from the neighbours'.
    pub fn ours_is_wrong(&self) -> bool {
        self.wrong
    }

    /// A neighbour tells its time, in seconds since 1970.
    pub fn note(&mut self, now: Now, peer: PeerId, unix: u64) -> Option<ClockChanged> {
        let word = self.words.get_mut(&peer)?;
        let ahead = i128::from(unix) - i128::from(now.unix.as_secs());
        self.said += 1;
        word.last = Some((self.said, i64::try_from(ahead).unwrap_or(i64::MAX)));
        self.judge()
    }

    /// Too few voices say nothing, and keep up no alarm either: it would stay when our clock is right again.
    fn judge(&mut self) -> Option<ClockChanged> {
        let mut voices = self.voices();
        voices.sort_unstable();
        let median = voices.get(voices.len() / 2).copied().unwrap_or_default();
        let wrong = voices.len() >= self.least && median.unsigned_abs() > self.alarm.as_secs();
        let changed = wrong != self.wrong;
        self.wrong = wrong;
        changed.then_some(ClockChanged { ahead: median, wrong })
    }

    /// What was said last in each subnet, and by each peer that is in none.
    fn voices(&self) -> Vec<i64> {
        let mut of_subnets: BTreeMap<Subnet, (u64, i64)> = BTreeMap::new();
        let mut voices = Vec::new();
        for (subnet, last) in self.words.values().filter_map(|word| Some((word.subnet, word.last?))) {
            match subnet {
                Some(subnet) => {
                    let latest = of_subnets.entry(subnet).or_insert(last);
                    *latest = last.max(*latest);
                }
                None => voices.push(last.1),
            }
        }
        voices.extend(of_subnets.into_values().map(|(_, ahead)| ahead));
        voices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::{contact, peer};

    const NOW: Now = Now { mono: Duration::ZERO, unix: Duration::from_secs(10_000) };

    fn clocks(neighbours: impl Iterator<Item = u64>) -> NeighbourClocks {
        let mut clocks = NeighbourClocks::new(8, Duration::from_secs(300));
        clocks.set_neighbours(&neighbours.map(contact).collect::<Vec<_>>());
        clocks
    }

    #[test]
    fn our_clock_is_wrong_when_the_median_of_eight_neighbours_is_over_five_minutes_away() {
        let mut clocks = clocks(0..8);
        for number in 0..4 {
            assert_eq!(clocks.note(NOW, peer(number), 10_010), None);
        }
        // Liars of up to a half change nothing, whatever they say, and neither do seven neighbours.
        for number in 4..7 {
            assert_eq!(clocks.note(NOW, peer(number), u64::MAX), None);
        }
        assert_eq!(clocks.note(NOW, peer(7), 10_010), None);
        assert!(!clocks.ours_is_wrong());
        let changes: Vec<_> = (0..4).filter_map(|number| clocks.note(NOW, peer(number), 10_301)).collect();
        assert_eq!(changes, [ClockChanged { ahead: 301, wrong: true }]);
        assert!(clocks.ours_is_wrong());
        let changes: Vec<_> = (0..8).filter_map(|number| clocks.note(NOW, peer(number), 9_999)).collect();
        assert_eq!(changes.len(), 1);
        assert!(!changes[0].wrong && !clocks.ours_is_wrong());
    }

    /// With fewer voices than it takes to say so nothing is known: records are held to their times again.
    #[test]
    fn the_alarm_ends_with_the_voices_that_it_takes() {
        let alarmed = || {
            let mut clocks = clocks(0..8);
            let changes = (0..8).filter_map(|number| clocks.note(NOW, peer(number), 20_000)).count();
            assert_eq!((changes, clocks.ours_is_wrong()), (1, true));
            clocks
        };
        let few = |numbers: std::ops::Range<u64>| numbers.map(contact).collect::<Vec<_>>();
        let over = Some(ClockChanged { ahead: 10_000, wrong: false });
        let mut clocks = alarmed();
        assert_eq!((clocks.set_neighbours(&few(0..8)), clocks.set_neighbours(&few(0..6))), (None, over));
        assert!(!clocks.ours_is_wrong());
        // Two others come, and it is only they who say it: six have said it already.
        assert_eq!(clocks.set_neighbours(&few(0..8)), None);
        assert_eq!(clocks.note(NOW, peer(6), 20_000), None);
        assert_eq!(clocks.note(NOW, peer(7), 20_000), Some(ClockChanged { ahead: 10_000, wrong: true }));
        assert_eq!(alarmed().set_neighbours(&[]), Some(ClockChanged { ahead: 0, wrong: false }));
    }

    /// Five of 32 who speak ten times as often as the others, and twenty of one subnet, have no more voices than anybody.
    #[test]
    fn whoever_speaks_more_often_or_from_many_peers_of_one_subnet_has_one_voice() {
        let mut often = clocks(0..32);
        for number in (0..32)
            .flat_map(|round| std::iter::repeat_n([27, 28, 29, 30, 31], 2).flatten().chain([round % 27]))
        {
            let unix = if number < 27 { 10_000 } else { 50_000 };
            often.note(NOW, peer(number), unix);
        }
        assert!(!often.ours_is_wrong());
        let beside = |number: u64| {
            let address = format!("/ip4/99.1.1.{number}/udp/1/quic-v1").parse().unwrap();
            Contact::new(peer(number), &[address])
        };
        let mut crowd = NeighbourClocks::new(8, Duration::from_secs(300));
        let contacts: Vec<Contact> = (0..9).map(contact).chain((10..30).map(beside)).collect();
        crowd.set_neighbours(&contacts);
        for number in (0..9).chain(10..30) {
            crowd.note(NOW, peer(number), if number < 9 { 10_000 } else { 50_000 });
        }
        assert!(!crowd.ours_is_wrong());
    }

    #[test]
    fn only_neighbours_have_a_say() {
        let mut clocks = clocks(0..32);
        for number in 32..1000 {
            assert_eq!(clocks.note(NOW, peer(number), 0), None);
        }
        assert_eq!((clocks.words.len(), clocks.voices().len()), (32, 0));
        for number in 0..9 {
            clocks.note(NOW, peer(number), 0);
        }
        clocks.set_neighbours(&(5..7).map(contact).collect::<Vec<_>>());
        assert_eq!((clocks.words.len(), clocks.voices().len()), (2, 2));
    }
}
