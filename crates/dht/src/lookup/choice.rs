//! Whom a lookup asks next, and when it is over (dht.md B.2, rules 5 to 9).

use std::time::Duration;

use peerage_machine::Now;

use super::{Candidate, Cause, Goal, Hint, Lookup, Next, State, StepKind};
use crate::{Contact, Ended, RequestId, Subnet};

/// How near a lookup is to its end.
enum Stand {
    /// Somebody close has not answered yet.
    Open,
    /// Everybody close has answered, but for suspects who are given until then.
    Grace(Duration),
    /// Everybody close has answered or is given up.
    Done,
}

impl Lookup {
    /// Why it is over, if it is.
    pub(super) fn ended(&mut self, now: Now) -> Option<Ended> {
        if self.has_found(now) {
            return Some(Ended::Found);
        }
        if now.mono >= self.plan.deadline {
            return Some(Ended::Deadline);
        }
        match self.stand(now) {
            Stand::Done if self.cursors.is_empty() => Some(self.complete()),
            _ => None,
        }
    }

    /// Adds what an answer names. How many of them were new.
    pub(super) fn merge(
        &mut self,
        now: Now,
        from: &Contact,
        hops: u8,
        path: u8,
        closer: &[Contact],
        known: &mut dyn FnMut(&Contact) -> Option<(Contact, Hint)>,
    ) -> usize {
        let mut fresh = 0;
        let mut implausible = false;
        for named in closer.iter().take(self.plan.k) {
            let Some((contact, hint)) = known(named) else { continue };
            implausible |= hint.success.is_none() && self.is_implausible(&contact);
            fresh += usize::from(self.insert(contact, hint, hops.saturating_add(1), path, Some(from)));
        }
        if implausible {
            self.distrust(now, from, path);
        }
        fresh
    }

    /// Adds a candidate unless it is one, or too far away to matter.
    pub(super) fn insert(
        &mut self,
        contact: Contact,
        hint: Hint,
        hops: u8,
        path: u8,
        advisor: Option<&Contact>,
    ) -> bool {
        let distance = contact.key().distance(self.plan.target.key());
        let Err(at) = self.candidates.binary_search_by(|candidate| candidate.distance.cmp(&distance)) else {
            return false;
        };
        if self.candidates.len() >= self.config.max_candidates {
            match self.farthest_new() {
                Some(last) if self.candidates[last].distance > distance => drop(self.candidates.remove(last)),
                _ => return false,
            }
        }
        let candidate = Candidate {
            contact,
            distance,
            state: if hint.shunned { State::Barred } else { State::New },
            wanted: false,
            request: None,
            asked: Duration::ZERO,
            due: Duration::ZERO,
            hops,
            path: path % self.plan.paths.max(1) as u8,
            advisor: advisor.cloned(),
            hint,
            was_suspect: false,
            pages: 0,
            asks: 0,
            chances: 0,
            stale_pages: 0,
            met: None,
        };
        self.candidates.insert(at, candidate);
        true
    }

    /// The candidate to ask next: the closest that hasn't been; among those that share as many bits with the target, and are not so close that all must
    /// be asked anyway, the one that promises the soonest answer.
    pub(super) fn pick(&self) -> Option<usize> {
        let open = self.open();
        let choose = |pass: Pass| {
            let mut fit = open.iter().copied().filter(|at| self.fits(&self.candidates[*at], pass));
            let first = fit.next()?;
            let bits = self.candidates[first].distance.leading_zeros();
            if self.is_near(&self.candidates[first]) {
                return Some(first);
            }
            let alike = fit.take_while(|at| self.candidates[*at].distance.leading_zeros() == bits);
            let promise =
                |at: &usize| self.candidates[*at].promise(self.plan.usual, self.config.cold_round_trips);
            Some(alike.fold(first, |best, at| if promise(&at) > promise(&best) { at } else { best }))
        };
        match self.plan.paths {
            0 | 1 => open.first().and_then(|_| choose(Pass { path: None, apart: false })),
            _ => {
                let mut paths: Vec<u8> = (0..self.plan.paths as u8).collect();
                paths.sort_by_key(|path| (self.distrusted >> path & 1, self.busy_on(*path), *path));
                let on = |apart| paths.iter().find_map(|path| choose(Pass { path: Some(*path), apart }));
                on(true).or_else(|| on(false))
            }
        }
    }

    /// What waiting is for, as the time of the next look.
    pub(super) fn wait(&mut self, now: Now, can_launch: bool) -> Next {
        let overdue = self.candidates.iter().filter(|c| c.state == State::InFlight).map(|c| c.due).min();
        let mut wake = overdue.unwrap_or(Duration::MAX).min(self.plan.deadline);
        if can_launch {
            wake = wake.min(self.next_launch);
        }
        wake = wake.min(self.settles.unwrap_or(Duration::MAX));
        if let Stand::Grace(until) = self.stand(now) {
            wake = wake.min(until);
        }
        Next::Wait(wake)
    }

    /// No further request may be begun: it goes on with what is under way.
    pub(super) fn wait_for_pending(&self, ended: Ended) -> Next {
        let due = self.candidates.iter().filter(|c| c.state == State::InFlight).map(|c| c.due).min();
        due.map_or(Next::End(ended), |due| Next::Wait(due.min(self.plan.deadline)))
    }

    /// Requests in flight; suspects hold no slot.
    pub(super) fn in_flight(&self) -> usize {
        self.candidates.iter().filter(|candidate| candidate.state == State::InFlight).count()
    }

    /// How many may be begun now: once a value is there, two.
    pub(super) fn cap(&self) -> usize {
        if self.settles.is_some() { self.widest().min(2) } else { self.widest() }
    }

    /// How many may be: more than one path get three each, within what is configured and the caller permits.
    pub(super) fn widest(&self) -> usize {
        let cap = self.plan.pace.cap.max(if self.plan.paths > 1 { 3 * self.plan.paths } else { 0 });
        cap.min(self.plan.pace.most)
    }

    /// Gives up requests that answers have made needless: to candidates that are far behind the closest by now.
    pub(super) fn needless(&mut self, now: Now) -> Vec<RequestId> {
        let mut closer = 0;
        let mut dropped = Vec::new();
        for at in 0..self.candidates.len() {
            let candidate = &mut self.candidates[at];
            if closer >= 2 * self.plan.k
                && candidate.state == State::InFlight
                && self.cover.is_none_or(|cover| candidate.distance > cover)
                && let Some(request) = candidate.request
            {
                candidate.state = State::Failed;
                dropped.push(request);
                let peer = *candidate.contact.peer();
                self.counts.cancelled += 1;
                self.step(now, StepKind::Cancelled { peer });
            } else if candidate.counts() {
                closer += 1;
            }
        }
        dropped
    }

    fn has_found(&mut self, now: Now) -> bool {
        match self.plan.goal {
            Goal::Peer(_, tellers) => self.whereabouts.is_certain(if tellers == 0 { 2 } else { tellers }),
            Goal::Closest => false,
            Goal::Value(quorum) => {
                let is_final = self.harvest.votes() > 0 && self.harvest.is_final();
                let settled = self.settles.is_none_or(|settles| settles <= now.mono);
                // Who says how many are enough is not asked again.
                is_final || self.has_quorum() && settled && (quorum > 0 || !self.is_crowded(now))
            }
            // One answer is nobody's word but its own.
            Goal::Values(wanted) | Goal::Providers(wanted) => self.harvest.borne_out() >= wanted.max(1),
        }
    }

    /// Whether as many networks as are wanted have answered with a value.
    fn has_quorum(&self) -> bool {
        match self.plan.goal {
            Goal::Value(quorum) => self.harvest.votes() >= if quorum == 0 { 2 } else { quorum },
            _ => false,
        }
    }

    /// Whether more peers were named near the target than an honest network has there. They may be one party's, who tells what was true once and whose word is that of many: nobody's
    /// signature says that a version is the newest. What was seen once is not forgotten because somebody of them is slow.
    fn is_crowded(&mut self, now: Now) -> bool {
        let size = self.plan.size.filter(|size| *size >= 4.0 * self.plan.k as f64);
        let (false, Some(size)) = (self.crowded, size) else { return self.crowded };
        let kth = self.candidates.iter().filter(|candidate| candidate.counts()).nth(self.plan.k - 1);
        let score = kth.map(|kth| kth.distance.share() * size);
        if let Some(score) = score.filter(|score| *score < self.config.crowded) {
            self.crowded = true;
            self.step(now, StepKind::Crowded { score });
        }
        self.crowded
    }

    /// How it ended, once all were heard who had to be.
    pub(crate) fn settled(&self, ended: Ended) -> Ended {
        if ended == Ended::Complete && self.has_quorum() { Ended::Found } else { ended }
    }

    fn stand(&self, now: Now) -> Stand {
        let (mut answered, mut grace, mut last) = (0, Duration::ZERO, Duration::ZERO);
        for candidate in &self.candidates {
            let inside =
                answered < self.plan.k || self.cover.is_some_and(|cover| candidate.distance <= cover);
            if !inside {
                break;
            }
            match candidate.state {
                State::Answered => answered += 1,
                State::New | State::InFlight => return Stand::Open,
                State::Suspect(since) => {
                    grace = grace.max(since + self.grace(candidate));
                    last = last.max(candidate.asked + self.config.hard);
                }
                State::Failed | State::Barred | State::Aside => {}
            }
        }
        // While nobody has answered there is no result to hand over: a slow peer is better than none.
        let until = if self.closest().next().is_none() { last } else { grace };
        if until > now.mono { Stand::Grace(until) } else { Stand::Done }
    }

    /// How long the end waits for a suspect.
    fn grace(&self, candidate: &Candidate) -> Duration {
        candidate.due.saturating_sub(candidate.asked).mul_f64(self.plan.grace)
    }

    fn complete(&mut self) -> Ended {
        if matches!(self.plan.goal, Goal::Peer(..) | Goal::Closest) && self.hops == 0 {
            let hops = self.closest().next().map_or(0, |closest| u32::from(closest.hops) + 1);
            self.hops = hops;
        }
        Ended::Complete
    }

    /// Those that may be asked: not asked yet, and among the closest k that are not given up, or in the region that must be covered.
    fn open(&self) -> Vec<usize> {
        let mut closer = 0;
        let mut open = Vec::new();
        for (at, candidate) in self.candidates.iter().enumerate() {
            let covered = self.cover.is_some_and(|cover| candidate.distance <= cover);
            if closer >= self.plan.k + self.config.spare && !covered {
                break;
            }
            closer += usize::from(candidate.counts());
            if candidate.state == State::New {
                open.push(at);
            }
        }
        open
    }

    fn fits(&self, candidate: &Candidate, pass: Pass) -> bool {
        if pass.path.is_some_and(|path| candidate.path != path) {
            return false;
        }
        !pass.apart || !candidate.subnets().any(|subnet| self.is_used_elsewhere(subnet, candidate.path))
    }

    /// Whether another path has asked somebody of the same group of addresses.
    fn is_used_elsewhere(&self, subnet: Subnet, path: u8) -> bool {
        self.candidates.iter().any(|other| {
            other.request.is_some()
                && other.path != path
                && other.subnets().any(|used| used.group() == subnet.group())
        })
    }

    fn busy_on(&self, path: u8) -> usize {
        self.candidates.iter().filter(|c| c.path == path && c.state == State::InFlight).count()
    }

    /// Whether all of the closest are asked in the end, so that nothing is saved by waiting.
    pub(super) fn needs_all(&self) -> bool {
        match self.plan.goal {
            Goal::Peer(..) => false,
            Goal::Value(quorum) => self.crowded || quorum >= self.plan.k && self.harvest.votes() > 0,
            _ => true,
        }
    }

    /// Whether it lies where about k peers are expected: all of those are asked in the end.
    pub(super) fn is_near(&self, candidate: &Candidate) -> bool {
        self.plan.size.is_some_and(|size| candidate.distance.share() * size < self.plan.k as f64)
    }

    /// Whether nobody should lie so close to the target in a network of this size.
    fn is_implausible(&self, contact: &Contact) -> bool {
        let distance = contact.key().distance(self.plan.target.key());
        let share = distance.share();
        self.plan.size.is_some_and(|size| share > 0.0 && share * size < self.config.implausible)
    }

    /// Somebody named a peer too close to be true: its path is followed last, and another one is begun with whom it did not name.
    fn distrust(&mut self, now: Now, liar: &Contact, path: u8) {
        if self.plan.paths >= self.config.most_paths {
            return;
        }
        let fresh = self.plan.paths as u8;
        self.plan.paths += 1;
        self.distrusted |= 1 << path;
        for candidate in &mut self.candidates {
            let named = candidate.advisor.as_ref().is_some_and(|advisor| advisor == liar);
            if candidate.path == path && candidate.state == State::New && !named {
                candidate.path = fresh;
            }
        }
        self.earn(Cause::Hedge);
        self.step(now, StepKind::Implausible { peer: *liar.peer() });
    }

    /// Bars those whose subnet has as many as may be among those that have answered, or are asked and lie nearer, and lets them in again where one of these has failed. Who is merely
    /// named crowds nobody out, as it costs a liar nothing to name peers in others' subnets; nor does who has answered count anywhere but where it was met. Who answered us before is
    /// barred by nobody. For each of a subnet that is silent one more may be asked at once: a crowd of dead names is soon done with.
    pub(super) fn thin(&mut self) {
        let most = self.config.subnet_per_lookup.max(1);
        let met = |one: &Candidate| one.met.filter(|_| one.has_answered());
        let mut answered: Vec<Subnet> = self.candidates.iter().filter_map(met).collect();
        answered.sort_unstable();
        let full: Vec<Subnet> =
            answered.chunk_by(Subnet::eq).filter(|same| same.len() >= most).map(|same| same[0]).collect();
        let silent = |state| matches!(state, State::Suspect(_) | State::Failed);
        let failed: Vec<Subnet> = self
            .candidates
            .iter()
            .filter(|one| silent(one.state) && one.met.is_none() && one.request.is_some())
            .flat_map(|one| one.contact.subnets())
            .collect();
        let count = |of: &[Subnet], subnet: Subnet| of.iter().filter(|other| **other == subnet).count();
        let is_full = |asked: &[Subnet], subnet: Subnet| {
            let waiting = count(asked, subnet);
            let most = || most + count(&failed, subnet);
            full.contains(&subnet) || waiting > 0 && waiting + count(&answered, subnet) >= most()
        };
        // Nearer ones that are asked now.
        let mut asked: Vec<Subnet> = Vec::new();
        for candidate in &mut self.candidates {
            if candidate.state == State::InFlight {
                asked.extend(candidate.contact.subnets());
            }
            if !matches!(candidate.state, State::New | State::Barred) {
                continue;
            }
            let free = candidate.wanted || candidate.hint.success.is_some();
            let crowded = !free && candidate.contact.subnets().any(|subnet| is_full(&asked, subnet));
            let shunned = candidate.hint.shunned && !candidate.wanted;
            candidate.state = if crowded || shunned { State::Barred } else { State::New };
        }
    }

    /// A candidate has answered, from this subnet. Where as many as may be have answered already, it is not one more of the closest, unless it is wanted all the same or answered us
    /// before; these don't count against others who are where they say. Who doesn't say that it is there is never one more: one machine could claim to be in as many networks as it
    /// likes.
    pub(super) fn met(&mut self, at: usize, subnet: Option<Subnet>) {
        let candidate = &self.candidates[at];
        let claimed = subnet.is_none_or(|subnet| candidate.contact.subnets().any(|claim| claim == subnet));
        let free = |one: &Candidate| one.wanted || one.hint.success.is_some();
        let same = |one: &&Candidate| one.has_answered() && one.met == subnet && !(claimed && free(one));
        let full = self.candidates.iter().filter(same).count() >= self.config.subnet_per_lookup;
        let crowds = subnet.is_some() && full && !(claimed && free(candidate));
        let candidate = &mut self.candidates[at];
        candidate.met = subnet;
        candidate.state = if crowds { State::Failed } else { State::Answered };
    }

    /// Where fewer than k are left, those of crowded subnets are wanted too; where nobody is, even those in quarantine.
    pub(super) fn relieve(&mut self) {
        let left = self.candidates.iter().filter(|candidate| candidate.is_there()).take(self.plan.k).count();
        if left >= self.plan.k {
            return;
        }
        let mut lacking = self.plan.k - left;
        for candidate in &mut self.candidates {
            if candidate.state == State::Barred && lacking > 0 && (!candidate.hint.shunned || left == 0) {
                candidate.state = State::New;
                candidate.wanted = true;
                lacking -= 1;
            }
        }
    }

    fn farthest_new(&self) -> Option<usize> {
        self.candidates.iter().rposition(|c| matches!(c.state, State::New | State::Barred))
    }
}

/// Which candidates may be picked.
#[derive(Clone, Copy)]
struct Pass {
    path: Option<u8>,
    /// Not of a group of addresses that another path has used.
    apart: bool,
}
