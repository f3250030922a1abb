//! Finding things: one lookup is one small state machine (dht.md B.2).
//!
//! A lookup starts with a burst of requests and begins the next one whenever an answer comes, a request fails or becomes suspect, or the stagger time has
//! passed. A suspect holds no slot, does not stop the lookup from ending, and is listened to all the same. What ends a lookup is its [`Goal`].

mod candidate;
mod check;
mod choice;
mod harvest;
mod judge;
mod pace;
mod step;
#[cfg(test)]
mod tests;
mod whereabouts;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use crate::rtt::Spread;
use crate::{
    Answer, Contact, Counts, Distance, Ended, Failure, LookupConfig, Query, RequestId, Subnet, Target,
};
pub(crate) use candidate::{Candidate, Hint, State};
pub(crate) use harvest::{Harvest, Voter};
pub use judge::{AcceptAll, Invalid, Judge, Judged};
pub(crate) use pace::Pace;
pub use step::{Cause, Step, StepKind};
use whereabouts::Whereabouts;

/// When a lookup has what it was started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The peer itself answers, or so many networks name one address of it; zero: two.
    Peer(PeerId, usize),
    /// The k closest have answered.
    Closest,
    /// So many valid answers from distinct address groups; zero: one that is final, or two.
    Value(usize),
    /// So many different values, or all that the k closest have.
    Values(usize),
    /// So many providers, or all that the k closest know.
    Providers(usize),
}

/// How a lookup is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) goal: Goal,
    pub(crate) pace: Pace,
    /// So many count as the closest.
    pub(crate) k: usize,
    /// Disjoint paths at the start.
    pub(crate) paths: usize,
    /// When it ends whatever was found, as [`Now::mono`].
    pub(crate) deadline: Duration,
    /// The estimated size of the network.
    pub(crate) size: Option<f64>,
    /// How long an answer usually takes, and after how long one is overdue from whom nothing is known.
    pub(crate) usual: Duration,
    pub(crate) patience: Duration,
    /// The end waits for a suspect close to the target for this share of the time after which it became one.
    pub(crate) grace: f64,
    /// Whether steps are recorded.
    pub(crate) watch: bool,
}

/// What a lookup does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Ask the candidate at this place, then say so with [`Lookup::asked`].
    Ask(usize, Cause),
    /// Nothing until then, unless an answer comes.
    Wait(Duration),
    /// It is over.
    End(Ended),
}

/// An answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came<'a> {
    pub(crate) request: RequestId,
    pub(crate) rtt: Duration,
    /// Where the peer was met.
    pub(crate) remote: IpAddr,
    pub(crate) answer: &'a Answer,
}

/// What an answer did.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The peer was not asked on behalf of somebody else: the round trip is that of a first hop.
    pub(crate) first_hop: bool,
    /// Valid values, or providers, in it.
    pub(crate) good: usize,
    /// Requests that it made needless.
    pub(crate) needless: Vec<RequestId>,
}

/// One lookup.
#[derive(Debug)]
pub(crate) struct Lookup {
    config: Arc<LookupConfig>,
    plan: Plan,
    started: Duration,
    /// By distance from the target.
    candidates: Vec<Candidate>,
    samples: Spread,
    /// Requests that events have earned.
    credit: Option<Cause>,
    credits: usize,
    burst: usize,
    next_launch: Duration,
    pub(crate) counts: Counts,
    pub(crate) harvest: Harvest,
    /// Where the peer is that is looked for.
    pub(crate) whereabouts: Whereabouts,
    /// A value is there that a better one may still supersede: until when that is waited for.
    settles: Option<Duration>,
    /// Paths whose answers were implausible are followed last.
    distrusted: u16,
    /// A quorum was there, and it looked as if it were one party's.
    crowded: bool,
    /// All within this distance must have answered too: the neighbourhood looks too dense.
    cover: Option<Distance>,
    pub(crate) hops: u32,
    steps: Vec<Step>,
    /// Cursors of pages that are to be asked for.
    cursors: Vec<(RequestId, Bytes)>,
}

impl Lookup {
    pub(crate) fn new(config: Arc<LookupConfig>, plan: Plan, now: Now) -> Self {
        Self {
            config,
            started: now.mono,
            candidates: Vec::new(),
            samples: Spread::default(),
            credit: None,
            credits: 0,
            burst: plan.pace.burst,
            next_launch: now.mono,
            counts: Counts::default(),
            harvest: Harvest::default(),
            whereabouts: Whereabouts::default(),
            settles: None,
            distrusted: 0,
            crowded: false,
            cover: None,
            hops: 0,
            steps: Vec::new(),
            cursors: Vec::new(),
            plan,
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.plan.target
    }

    pub(crate) fn started(&self) -> Duration {
        self.started
    }

    /// When it ends whatever was found, as [`Now::mono`].
    pub(crate) fn deadline(&self) -> Duration {
        self.plan.deadline
    }

    /// It goes on with what was begun then: its steps count from there.
    pub(crate) fn begun(&mut self, started: Duration) {
        self.started = started;
    }

    pub(crate) fn size(&self) -> Option<f64> {
        self.plan.size
    }

    pub(crate) fn goal(&self) -> &Goal {
        &self.plan.goal
    }

    /// Whether nobody is known who could be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Everybody who was heard of, the closest first.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter()
    }

    pub(crate) fn candidate(&self, at: usize) -> &Candidate {
        &self.candidates[at]
    }

    /// What the candidate at this place is to be asked.
    pub(crate) fn query(&self, at: usize) -> Query {
        let target = self.plan.target.clone();
        let candidate = &self.candidates[at];
        let page = candidate.request.and_then(|request| {
            self.cursors.iter().find(|(of, _)| *of == request).map(|(_, cursor)| cursor.clone())
        });
        match self.plan.goal {
            Goal::Peer(..) | Goal::Closest => Query::FindNode { target },
            Goal::Value(_) | Goal::Values(_) => Query::GetValue { target, cursor: page, wait: None },
            Goal::Providers(_) => Query::GetProviders { target, cursor: page },
        }
    }

    /// Adds peers to begin with, spread over the paths: those of one address group onto one path.
    pub(crate) fn seed(&mut self, seeds: impl IntoIterator<Item = (Contact, Hint)>) {
        let mut groups: Vec<(u64, u8)> = Vec::new();
        let mut next = 0usize;
        for (contact, hint) in seeds {
            let group = contact.subnets().next().map(Subnet::group);
            let known = group.and_then(|group| groups.iter().find(|(other, _)| *other == group));
            let path = known.map_or_else(
                || {
                    next += 1;
                    ((next - 1) % self.plan.paths.max(1)) as u8
                },
                |(_, path)| *path,
            );
            if let (None, Some(group)) = (known, group) {
                groups.push((group, path));
            }
            self.insert(contact, hint, 0, path, None);
        }
    }

    /// Forgets whom it knew and begins with one peer alone.
    pub(crate) fn begin_with(&mut self, seed: (Contact, Hint)) {
        self.candidates.clear();
        self.seed([seed]);
    }

    /// What to do now. To be called again after each request that it wants, and after each event.
    pub(crate) fn next(&mut self, now: Now) -> Next {
        self.suspect(now);
        self.thin();
        self.relieve();
        if let Some(ended) = self.ended(now) {
            return Next::End(ended);
        }
        if self.counts.asked as usize >= self.config.max_requests {
            return self.wait_for_pending(Ended::Exhausted);
        }
        let busy = self.in_flight();
        let cap = self.cap();
        let cause = if self.burst > 0 {
            Some(Cause::Burst)
        } else if self.credits > 0 {
            self.credit
        } else {
            (now.mono >= self.next_launch).then_some(Cause::Stagger)
        };
        let mut can_launch = busy < cap;
        if can_launch {
            let pick = self.pick();
            let must = pick.filter(|at| self.needs_all() && self.is_near(&self.candidates[*at]));
            match (pick, cause.or(must.map(|_| Cause::Close))) {
                (Some(at), Some(cause)) => return Next::Ask(at, cause),
                (Some(_), None) => {}
                (None, _) => can_launch = false,
            }
            // Whoever has not been asked at all comes first.
            if let Some(at) = self.page() {
                return Next::Ask(at, Cause::Page);
            }
        }
        self.wait(now, can_launch)
    }

    /// The candidate was asked.
    pub(crate) fn asked(&mut self, now: Now, at: usize, request: RequestId, cause: Cause) {
        match cause {
            Cause::Burst => self.burst -= 1,
            Cause::Page | Cause::Close => {}
            _ => self.credits = self.credits.saturating_sub(1),
        }
        self.next_launch = now.mono + self.plan.pace.stagger;
        self.tries(at);
        let patience = self.patience(&self.candidates[at].hint);
        let candidate = &mut self.candidates[at];
        if cause == Cause::Page {
            let before = candidate.request;
            self.cursors.retain(|(of, _)| Some(*of) != before);
            candidate.pages = candidate.pages.saturating_add(1);
        }
        candidate.state = State::InFlight;
        candidate.asks = candidate.asks.saturating_add(1);
        candidate.request = Some(request);
        candidate.asked = now.mono;
        candidate.due = now.mono + patience;
        self.counts.asked += 1;
        self.counts.warm += u32::from(candidate.hint.warm);
        let what = StepKind::Asked {
            peer: *candidate.contact.peer(),
            shared_bits: candidate.distance.leading_zeros(),
            path: candidate.path,
            hops: candidate.hops.into(),
            warm: candidate.hint.warm,
            cause,
        };
        self.step(now, what);
    }

    /// An answer came. `known` says of each peer that it names what we know of it; `None` for those who are not to be asked, such as ourselves.
    pub(crate) fn answered(
        &mut self,
        now: Now,
        judge: &dyn Judge,
        came: &Came<'_>,
        known: &mut dyn FnMut(&Contact) -> Option<(Contact, Hint)>,
    ) -> Option<Taken> {
        let Came { request, rtt, remote, answer } = *came;
        let at = self.pending(request)?;
        let candidate = &mut self.candidates[at];
        let late = matches!(candidate.state, State::Suspect(_));
        let (hops, path, contact) = (candidate.hops, candidate.path, candidate.contact.clone());
        candidate.hint.warm = true;
        self.counts.answered += 1;
        self.counts.late += u32::from(late);
        // A late one would make all others seem in time.
        if !late {
            self.samples.add(rtt);
        }
        self.earn(Cause::Answer);
        self.met(at, Subnet::of(remote));
        let before = self.harvest.found();
        let voter = Voter::new(contact.peer(), remote);
        let brought = self.reap(now, judge, (contact.peer(), voter), answer);
        self.counts.invalid += brought.invalid;
        if before == 0 && brought.good > 0 {
            self.hops = u32::from(hops) + 1;
        }
        self.settle(now);
        if let Some(cursor) = &answer.cursor {
            self.turn_page(at, request, cursor, brought.fresh > 0);
        }
        let fresh = self.merge(now, &contact, hops, path, &answer.closer, known);
        self.locate(&contact, voter, remote, hops, &answer.closer);
        let (peer, closer) = (*contact.peer(), answer.closer.len());
        self.step(now, StepKind::Answered { peer, rtt, closer, fresh, values: brought.good, late });
        let needless = self.needless(now);
        Some(Taken { first_hop: hops == 0, good: brought.good, needless })
    }

    /// A request came to nothing. The peer that named the candidate, if anybody did.
    pub(crate) fn failed(&mut self, now: Now, request: RequestId, why: Failure) -> Option<Contact> {
        let at = self.pending(request)?;
        let again = self.is_elsewhere(at);
        let candidate = &mut self.candidates[at];
        let held_a_slot = candidate.state == State::InFlight;
        candidate.state = if again { State::New } else { State::Failed };
        candidate.chances = candidate.chances.saturating_add(u16::from(again));
        let (peer, advisor) = (*candidate.contact.peer(), candidate.advisor.clone());
        self.counts.failed += 1;
        if held_a_slot {
            self.earn(Cause::Failure);
        }
        self.step(now, StepKind::Failed { peer, why });
        advisor
    }

    /// Gives up everything that is under way: the requests with the candidates that were suspected meanwhile.
    pub(crate) fn cancel(&mut self, now: Now) -> Vec<(RequestId, bool)> {
        let mut cancelled = Vec::new();
        for at in 0..self.candidates.len() {
            let candidate = &mut self.candidates[at];
            if let (true, Some(request)) = (candidate.is_pending(), candidate.request) {
                cancelled.push((request, matches!(candidate.state, State::Suspect(_))));
                candidate.state = State::Failed;
                let peer = *candidate.contact.peer();
                self.counts.cancelled += 1;
                self.step(now, StepKind::Cancelled { peer });
            }
        }
        cancelled
    }

    /// Those that answered, the closest first.
    pub(crate) fn closest(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(|candidate| candidate.has_answered())
    }

    /// Those that were named and did not answer, with whoever named them first.
    pub(crate) fn silent(&self, now: Now) -> impl Iterator<Item = (&Contact, &Contact)> {
        self.candidates.iter().filter_map(move |candidate| {
            // A suspect is told of only when it has been silent for as long again as it was waited for.
            let silent = match candidate.state {
                _ if candidate.met.is_some() => false,
                State::Failed => candidate.was_suspect && candidate.request.is_some(),
                State::Suspect(since) => {
                    now.mono.saturating_sub(since) > candidate.due.saturating_sub(candidate.asked)
                }
                _ => false,
            };
            let advisor = candidate.advisor.as_ref()?;
            silent.then_some((&candidate.contact, advisor))
        })
    }

    /// The distance of the k-th closest that answered; `None` when fewer did.
    pub(crate) fn kth(&self) -> Option<Distance> {
        self.closest().nth(self.plan.k - 1).map(|candidate| candidate.distance)
    }

    /// Goes on until all within `radius` have answered, over `paths` disjoint paths: the neighbourhood looks too dense to be honest.
    pub(crate) fn widen(&mut self, radius: Distance, paths: usize) {
        self.cover = Some(self.cover.map_or(radius, |cover| cover.max(radius)));
        self.plan.paths = self.plan.paths.max(paths);
        self.credits += paths;
        self.credit = Some(Cause::Hedge);
    }

    /// Goes on without the closest that answered and whom they named, with these: they lie too far apart to be where the closest are. Whoever leads a lookup astray names peers of his
    /// own, and among those closest to a key his are as far apart as his share of the network is small. Says whether anybody else is left to ask.
    pub(crate) fn escape(&mut self, others: impl IntoIterator<Item = (Contact, Hint)>) -> bool {
        let closest = self.candidates.iter_mut().filter(|candidate| candidate.state == State::Answered);
        closest.take(self.plan.k).for_each(|candidate| candidate.state = State::Aside);
        let aside = |candidate: &&Candidate| candidate.state == State::Aside;
        let liars: BTreeSet<PeerId> =
            self.candidates.iter().filter(aside).map(|candidate| *candidate.contact.peer()).collect();
        self.candidates.retain(|candidate| {
            let named = candidate.advisor.as_ref().is_some_and(|advisor| liars.contains(advisor.peer()));
            !(named && matches!(candidate.state, State::New | State::Barred))
        });
        self.seed(others);
        self.credits += self.plan.pace.cap;
        self.credit = Some(Cause::Hedge);
        self.candidates.iter().any(|candidate| matches!(candidate.state, State::New | State::Barred))
    }

    /// It ends at this time at the latest.
    pub(crate) fn end_by(&mut self, deadline: Duration) {
        self.plan.deadline = self.plan.deadline.min(deadline);
    }

    /// Whether a third of those that were asked, or more, were silent.
    pub(crate) fn met_silence(&self) -> bool {
        let suspects = self.candidates.iter().filter(|one| matches!(one.state, State::Suspect(_))).count();
        2 * (self.counts.failed as usize + suspects) >= self.counts.answered as usize
    }

    /// Whether it has asked half of those whom it may ask.
    pub(crate) fn is_long(&self) -> bool {
        2 * self.counts.asked as usize > self.config.max_requests
    }

    /// Whether it is for something that peers hold.
    pub(crate) fn needs_value(&self) -> bool {
        matches!(self.plan.goal, Goal::Value(_) | Goal::Values(_) | Goal::Providers(_))
    }

    /// So many count as the closest from now on.
    pub(crate) fn look_for(&mut self, few: usize) {
        self.plan.k = few.clamp(1, self.plan.k);
    }

    /// So many requests in flight, and so many copies, at most.
    pub(crate) fn most(&self) -> usize {
        self.plan.pace.most
    }

    /// So many count as the closest.
    pub(crate) fn wanted(&self) -> usize {
        self.plan.k
    }

    /// Steps since the last call.
    pub(crate) fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// Records a step, when it is watched.
    pub(crate) fn step(&mut self, now: Now, what: StepKind) {
        if self.plan.watch {
            self.steps.push(Step { at: now.mono.saturating_sub(self.started), what });
        }
    }

    fn reap(
        &mut self,
        now: Now,
        judge: &dyn Judge,
        from: (&PeerId, Voter),
        answer: &Answer,
    ) -> harvest::Brought {
        match self.plan.goal {
            Goal::Value(_) | Goal::Values(_) => {
                self.harvest.values(now, &self.config, judge, &self.plan.target, from, &answer.values)
            }
            Goal::Providers(_) => self.harvest.providers(&self.config, from, &answer.providers),
            Goal::Peer(..) | Goal::Closest => harvest::Brought::default(),
        }
    }

    /// One value is there, and one is enough: a newer one may come within a stagger time.
    fn settle(&mut self, now: Now) {
        if let Goal::Value(1) = self.plan.goal
            && self.harvest.votes() > 0
            && self.settles.is_none()
        {
            self.settles = Some(now.mono + self.plan.pace.stagger);
        }
    }

    /// A peer has more. After some pages in a row of which it had said everything before, the rest is left: else a liar could go on until the deadline.
    fn turn_page(&mut self, at: usize, request: RequestId, cursor: &Bytes, news: bool) {
        let paged = matches!(self.plan.goal, Goal::Values(_) | Goal::Providers(_));
        let candidate = &mut self.candidates[at];
        candidate.stale_pages = if news { 0 } else { candidate.stale_pages.saturating_add(1) };
        if paged
            && usize::from(candidate.pages) < self.config.max_pages
            && usize::from(candidate.stale_pages) < self.config.max_stale_pages
        {
            self.cursors.push((request, cursor.clone()));
        }
    }

    fn page(&self) -> Option<usize> {
        let (request, _) = self.cursors.first()?;
        self.candidates.iter().position(|candidate| candidate.request == Some(*request))
    }

    fn pending(&self, request: RequestId) -> Option<usize> {
        self.candidates
            .iter()
            .position(|candidate| candidate.request == Some(request) && candidate.is_pending())
    }

    fn earn(&mut self, cause: Cause) {
        self.credits = (self.credits + 1).min(self.plan.pace.cap);
        self.credit = Some(cause);
    }

    fn suspect(&mut self, now: Now) {
        for at in 0..self.candidates.len() {
            let candidate = &mut self.candidates[at];
            if candidate.state == State::InFlight && candidate.due <= now.mono {
                candidate.state = State::Suspect(now.mono);
                let (peer, after) = (*candidate.contact.peer(), now.mono.saturating_sub(candidate.asked));
                // Only its first page is a request whose end others wait for.
                self.counts.suspected += u32::from(!candidate.was_suspect);
                candidate.was_suspect = true;
                self.earn(Cause::Suspect);
                self.step(now, StepKind::Suspected { peer, after });
            }
        }
    }

    fn patience(&self, hint: &Hint) -> Duration {
        let known = hint.patience.or_else(|| self.samples.patience()).unwrap_or(self.plan.patience);
        let patience = known.clamp(self.config.soft_least, self.config.soft_most);
        let dial = hint.rtt.unwrap_or(self.plan.usual).mul_f64(self.config.cold_round_trips);
        if hint.warm { patience } else { patience + dial }
    }
}
