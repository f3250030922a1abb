//! Is it them, or is it us? When most of what a node asks fails, its own network is the likelier cause (AL-19; BEP 45 gives the reason).

use std::collections::VecDeque;
use std::time::Duration;

use peerage_machine::Now;

use crate::{Family, Key};

/// Watches how requests go, for all of IP or for one version of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage {
    /// The last requests: when, whom, and whether it answered.
    last: VecDeque<(Duration, u64, bool)>,
    answered: Option<Duration>,
    suspected: bool,
    /// When it was suspected first.
    since: Duration,
}

impl Outage {
    /// So many of the last requests are looked at.
    pub(crate) const WINDOW: usize = 32;
    /// Older ones don't count.
    pub(crate) const SPAN: Duration = Duration::from_secs(60);
    /// Fewer different peers than this say nothing about us.
    const LEAST: usize = 4;
    /// A success within this time shows that we are not cut off, however many others fail.
    const QUIET: Duration = Duration::from_secs(15);

    /// A request was answered. `true` when that ends a suspected outage.
    pub(crate) fn answered(&mut self, now: Now, peer: &Key) -> bool {
        self.answered = Some(now.mono);
        self.note(now, peer, true);
        let over = self.suspected && !self.is_bad(now);
        self.suspected &= !over;
        over
    }

    /// A request failed. `true` when that makes an outage suspected.
    pub(crate) fn failed(&mut self, now: Now, peer: &Key) -> bool {
        self.note(now, peer, false);
        let newly = !self.suspected && self.is_bad(now);
        self.suspected |= newly;
        if newly {
            self.since = now.mono;
        }
        newly
    }

    /// Whether our own network is suspected.
    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected
    }

    /// From when on failures may have been our own: what made it suspected counts too.
    pub(crate) fn doubtful_since(&self) -> Duration {
        self.since.saturating_sub(Self::SPAN)
    }

    /// What came before is of another network.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// More than half of the peers that were asked of late failed, at least four; or four have failed since anybody answered, a quarter of a minute ago or longer.
    /// Peers count, not requests: who is dead is asked twice, who lives once.
    fn is_bad(&self, now: Now) -> bool {
        let recent = || self.last.iter().filter(|(at, ..)| now.mono.saturating_sub(*at) <= Self::SPAN);
        let distinct = |peers: &mut Vec<u64>| {
            peers.sort_unstable();
            peers.dedup();
            peers.len()
        };
        let answered = self.answered.unwrap_or_default();
        let failed = distinct(&mut recent().filter(|(.., ok)| !ok).map(|(_, peer, _)| *peer).collect());
        if failed < Self::LEAST {
            return false;
        }
        let after = |(at, _, ok): &&(Duration, u64, bool)| !ok && (self.answered.is_none() || *at > answered);
        let in_vain = distinct(&mut recent().filter(after).map(|(_, peer, _)| *peer).collect());
        let quiet = self.answered.is_none_or(|answered| now.mono.saturating_sub(answered) >= Self::QUIET);
        let good = distinct(&mut recent().filter(|(.., ok)| *ok).map(|(_, peer, _)| *peer).collect());
        quiet && in_vain >= Self::LEAST || recent().count() >= Self::WINDOW / 2 && failed > good
    }

    fn note(&mut self, now: Now, peer: &Key, ok: bool) {
        if self.last.len() >= Self::WINDOW {
            self.last.pop_front();
        }
        let [a, b, c, d, e, f, g, h, ..] = peer.to_bytes();
        self.last.push_back((now.mono, u64::from_be_bytes([a, b, c, d, e, f, g, h]), ok));
    }
}

/// One watch for all, one for each version of IP.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outages {
    all: Outage,
    families: [Outage; 2],
}

/// What a request's end changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Suspected(Option<Family>),
    Over(Option<Family>),
}

impl Outages {
    pub(crate) fn answered(&mut self, now: Now, peer: &Key, family: Family) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.all.answered(now, peer) {
            changes.push(Change::Over(None));
        }
        if self.families[family as usize].answered(now, peer) {
            changes.push(Change::Over(Some(family)));
        }
        changes
    }

    /// `family` is known when all of the peer's addresses are of one version.
    pub(crate) fn failed(&mut self, now: Now, peer: &Key, family: Option<Family>) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.all.failed(now, peer) {
            changes.push(Change::Suspected(None));
        }
        if let Some(family) = family
            && self.families[family as usize].failed(now, peer)
        {
            changes.push(Change::Suspected(Some(family)));
        }
        changes
    }

    /// Whether a failure of a peer that has addresses of these versions may be our own.
    pub(crate) fn excuses(&self, family: Option<Family>) -> bool {
        self.all.is_suspected() || family.is_some_and(|family| self.families[family as usize].is_suspected())
    }

    pub(crate) fn is_suspected(&self) -> bool {
        self.all.is_suspected()
    }

    /// From when on failures may have been our own, in the outage of this kind that was suspected last.
    pub(crate) fn doubtful_since(&self, family: Option<Family>) -> Duration {
        family.map_or(&self.all, |family| &self.families[family as usize]).doubtful_since()
    }

    pub(crate) fn forget(&mut self) {
        self.all.forget();
        self.families.iter_mut().for_each(Outage::forget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now::ZERO.after(Duration::from_secs(second))
    }

    fn key(number: u8) -> Key {
        Key::of(&[number])
    }

    /// AL-19: four different peers in a row with no answer for 15 s are our own fault; one peer, however often, is not.
    #[test]
    fn many_peers_that_fail_at_once_are_an_outage_and_one_is_not() {
        let mut outage = Outage::default();
        outage.answered(at(0), &key(0));
        assert!((0..100).all(|_| !outage.failed(at(20), &key(1))));
        assert!(!outage.failed(at(20), &key(2)) && !outage.failed(at(20), &key(3)));
        assert!(outage.failed(at(20), &key(4)) && outage.is_suspected());
        assert_eq!(outage.last.len(), Outage::WINDOW);
    }

    #[test]
    fn it_is_over_when_most_answer_again() {
        let mut outage = Outage::default();
        for number in 0..10 {
            outage.failed(at(30), &key(number));
        }
        assert!(outage.is_suspected());
        let over = (0..20).position(|number| outage.answered(at(31), &key(number)));
        assert!(over.is_some_and(|answers| answers <= 16), "{over:?}");
    }

    #[test]
    fn more_than_half_of_the_last_requests_is_an_outage_even_while_some_answer() {
        let mut outage = Outage::default();
        let mut suspected = false;
        for number in 0..40 {
            if number % 3 == 0 {
                outage.answered(at(1), &key(number));
            } else {
                suspected |= outage.failed(at(1), &key(number));
            }
        }
        assert!(suspected);
        let mut fair = Outage::default();
        for number in 0..200 {
            match number % 5 {
                0 => assert!(!fair.failed(at(1), &key(number))),
                _ => drop(fair.answered(at(1), &key(number))),
            }
        }
    }

    /// AL-19: half of all requests fail when a third of the peers is dead, because the dead are asked twice. That is no outage of ours, nor are four who are dead among
    /// many who answered a while ago.
    #[test]
    fn a_third_of_the_peers_that_is_dead_is_no_outage() {
        let mut outage = Outage::default();
        for number in 0..90u8 {
            match number % 3 {
                0 => assert!(!outage.failed(at(1), &key(number)) && !outage.failed(at(1), &key(number))),
                _ => drop(outage.answered(at(1), &key(number))),
            }
        }
        let mut sparse = Outage::default();
        for round in 0..40u8 {
            let second = u64::from(round) * 16;
            assert!((0..2).all(|dead| !sparse.failed(at(second + 15), &key(round * 3 + dead))), "{round}");
            sparse.answered(at(second + 15), &key(round * 3 + 2));
        }
    }

    /// AL-19: the two versions of IP are watched apart.
    #[test]
    fn one_family_may_be_out_alone() {
        let mut outages = Outages::default();
        for number in 0..40 {
            outages.answered(at(1), &key(number), Family::V4);
            outages.answered(at(1), &key(number), Family::V4);
            outages.failed(at(1), &key(number), Some(Family::V6));
        }
        assert!(!outages.is_suspected());
        assert!(outages.excuses(Some(Family::V6)) && !outages.excuses(Some(Family::V4)));
        outages.forget();
        assert!(!outages.excuses(Some(Family::V6)));
    }
}
