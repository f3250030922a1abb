//! What misbehaviour costs.
//!
//! A penalty adds points to a peer's score; half of the score is forgotten every ten minutes; whoever reaches a hundred is banned. Only what a peer
//! *did* is a penalty. That it cannot be reached, is slow, or hangs up says nothing about its will: the failures of transport and dialling
//! ([`crate::Failure`]) have no way into this table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::Now;

use crate::manager::PeerManager;
use crate::types::PeerEvent;

/// Something that a peer did and that no honest node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Penalty {
    /// It sent what cannot be decoded, or what no correct implementation sends. Five in a row are a ban.
    Malformed,
    /// It passed on a record whose signature does not hold. The second one is a ban.
    BadSignature,
    /// It answered what was not asked, or with more than was asked for. Four in a row are a ban.
    Unsolicited,
    /// It asked more often than every node knows that it may. Fifty questions too many are a ban.
    Flood,
    /// An application found its content false. Five in a row are a ban.
    BadContent,
}

/// A peer with so many points is banned.
const BAN_AT: f64 = 100.0;
/// After so long half of a score is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// Scores that are remembered. Beyond that the lowest is forgotten.
pub(crate) const MAX_SCORES: usize = 4096;

impl Penalty {
    /// Every penalty.
    pub const ALL: &[Penalty] = &[
        Penalty::Malformed,
        Penalty::BadSignature,
        Penalty::Unsolicited,
        Penalty::Flood,
        Penalty::BadContent,
    ];

    /// What it adds to the score.
    fn points(self) -> f64 {
        match self {
            Penalty::Malformed | Penalty::BadContent => 22.0,
            Penalty::BadSignature => 60.0,
            Penalty::Unsolicited => 28.0,
            Penalty::Flood => 2.03,
        }
    }

    /// The name under which it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Penalty::Malformed => "malformed",
            Penalty::BadSignature => "bad-signature",
            Penalty::Unsolicited => "unsolicited",
            Penalty::Flood => "flood",
            Penalty::BadContent => "bad-content",
        }
    }

    /// The penalty behind a stored name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|penalty| penalty.name() == name)
    }
}

impl fmt::Display for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Penalty::Malformed => "it sent what no correct node sends",
            Penalty::BadSignature => "it passed on a record with a bad signature",
            Penalty::Unsolicited => "it answered what was not asked",
            Penalty::Flood => "it asked far too often",
            Penalty::BadContent => "an application found its content false",
        })
    }
}

/// The scores of peers that misbehaved, bounded.
#[derive(Debug, Default)]
pub(crate) struct Scores(BTreeMap<PeerId, Score>);

#[derive(Debug, Clone, Copy)]
struct Score {
    points: f64,
    at: Duration,
}

impl Score {
    fn now(self, now: Duration) -> f64 {
        let lives = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.points * 0.5f64.powf(lives)
    }
}

impl Scores {
    /// Adds a penalty. True when that is one too many; the score starts anew then.
    fn add(&mut self, now: Duration, peer: PeerId, penalty: Penalty) -> bool {
        let points = self.of(now, &peer) + penalty.points();
        if points >= BAN_AT {
            self.0.remove(&peer);
            return true;
        }
        self.0.insert(peer, Score { points, at: now });
        if self.0.len() > MAX_SCORES {
            let by_score =
                |a: &(&PeerId, &Score), b: &(&PeerId, &Score)| a.1.now(now).total_cmp(&b.1.now(now));
            if let Some(lowest) = self.0.iter().min_by(by_score).map(|(peer, _)| *peer) {
                self.0.remove(&lowest);
            }
        }
        false
    }

    fn of(&self, now: Duration, peer: &PeerId) -> f64 {
        self.0.get(peer).map_or(0.0, |score| score.now(now))
    }
}

impl PeerManager {
    /// A peer did what no honest node does.
    pub(crate) fn penalise(&mut self, now: Now, peer: PeerId, penalty: Penalty) {
        if peer == self.me {
            return;
        }
        let banned = self.scores.add(now.mono, peer, penalty) && !self.is_persistent(&peer);
        self.event(PeerEvent::Penalised { peer, penalty, banned });
        if banned {
            let conn = self.conns.values().find(|conn| conn.peer == peer);
            let at = conn.map(|conn| conn.remote.ip());
            self.ban_for(now, peer, at, penalty);
        }
    }

    /// A peer's score: 0 for one that has done nothing, 100 for one that is about to be banned.
    pub fn score(&self, now: Now, peer: &PeerId) -> f64 {
        self.scores.of(now.mono, peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::peer;

    #[test]
    fn each_penalty_bans_after_the_number_that_its_description_names() {
        let most = |penalty| match penalty {
            Penalty::Malformed | Penalty::BadContent => 5,
            Penalty::BadSignature => 2,
            Penalty::Unsolicited => 4,
            Penalty::Flood => 50,
        };
        for penalty in Penalty::ALL {
            let mut scores = Scores::default();
            let banned = (1..=100).find(|_| scores.add(Duration::ZERO, peer(1), *penalty));
            assert_eq!(banned, Some(most(*penalty)), "{penalty:?}");
            assert_eq!(Penalty::from_name(penalty.name()), Some(*penalty));
        }
    }

    #[test]
    fn half_of_a_score_is_forgotten_every_ten_minutes() {
        let mut scores = Scores::default();
        assert!(!scores.add(Duration::ZERO, peer(1), Penalty::BadSignature));
        assert_eq!(scores.of(HALF_LIFE, &peer(1)), 30.0);
        // One bad record an hour is a fault somewhere, not an attack.
        for hour in 1..1000 {
            assert!(!scores.add(Duration::from_secs(3600 * hour), peer(1), Penalty::BadSignature));
        }
    }

    #[test]
    fn the_scores_are_bounded_and_the_lowest_gives_way() {
        let mut scores = Scores::default();
        scores.add(Duration::ZERO, peer(0), Penalty::BadSignature);
        for number in 1..MAX_SCORES as u64 + 50 {
            scores.add(Duration::ZERO, peer(number), Penalty::Flood);
        }
        assert_eq!(scores.0.len(), MAX_SCORES);
        assert_eq!(scores.of(Duration::ZERO, &peer(0)), 60.0);
    }
}
