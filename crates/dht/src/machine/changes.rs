//! Waiting for a value to change (AL-54).
//!
//! A lookup as for any value finds who holds it. Those closest to the key that understand it are asked to tell when it changes, and asked again when their time is
//! up; one that fails or keeps no question gives its place to the next. Where nobody tells, the value is looked up again from time to time. What ends the wait is a
//! valid value that is newer than the caller's, from whomever: a liar can hide a change for as long as an honest holder is silent, and nothing else.

use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::Now;

use super::operation::{Op, add_counts};
use super::requests::Purpose;
use super::{Counts, Dht, Ended, Failure, Options, RequestId};
use crate::lookup::{Judged, StepKind, Voter};
use crate::message::digest_of;
use crate::{Answer, Contact, Key, Query, Wait};

/// For how long a holder is asked to wait. Some keep no question as long.
const WAIT: Duration = Duration::from_secs(60);
/// No holder is asked again sooner.
const RENEW_LEAST: Duration = Duration::from_secs(5);
/// Holders that are remembered, for each that is asked.
const SPARE: usize = 4;

/// The second half of a wait for a change: who tells.
#[derive(Debug)]
pub(super) struct Change {
    /// What the caller has.
    known: Option<Judged>,
    options: Options,
    /// Those who answered the last lookup with a value, the closest first.
    holders: Vec<Holding>,
    /// When the value is looked up again, while no holder tells.
    poll: Option<Duration>,
    /// Something has changed in our own store.
    own: bool,
    /// What the waits and earlier lookups cost.
    counts: Counts,
}

#[derive(Debug)]
struct Holding {
    contact: Contact,
    /// What it last answered with.
    known: [u8; 32],
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Spare,
    /// Asked at that time.
    Asked(RequestId, Duration),
    /// To be asked again then.
    Rests(Duration),
    Failed,
}

impl Change {
    pub(super) fn new(known: Option<Judged>, options: Options) -> Self {
        let counts = Counts::default();
        Self { known, options, holders: Vec::new(), poll: None, own: true, counts }
    }

    /// A peer has answered the lookup with a value. So many may be asked at once.
    pub(super) fn holds(&mut self, target: &Key, contact: &Contact, answer: &Answer, most: usize) {
        let distance = contact.key().distance(target);
        let place = self.holders.partition_point(|other| other.contact.key().distance(target) < distance);
        if self.holders.get(place).is_none_or(|other| other.contact.key() != contact.key()) {
            let known = digest_of(&answer.values);
            self.holders.insert(place, Holding { contact: contact.clone(), known, state: State::Spare });
            self.holders.truncate(SPARE * most);
        }
    }

    /// What it cost beside the last lookup.
    pub(super) fn add_to(&self, counts: &mut Counts) {
        add_counts(counts, &self.counts);
    }

    fn is_newer(&self, found: &Judged) -> bool {
        self.known.as_ref().is_none_or(|known| known.slot != found.slot || known.rank < found.rank)
    }

    /// Who is to be asked now, as long as fewer than `most` are.
    fn next(&self, now: Now, most: usize) -> Option<usize> {
        let busy = |holding: &&Holding| match holding.state {
            State::Asked(..) => true,
            State::Rests(until) => until > now.mono,
            State::Spare | State::Failed => false,
        };
        let free = |holding: &Holding| match holding.state {
            State::Rests(until) => until <= now.mono,
            State::Spare => true,
            State::Asked(..) | State::Failed => false,
        };
        (self.holders.iter().filter(busy).count() < most).then(|| self.holders.iter().position(free))?
    }

    /// Whether nobody is left who could tell.
    fn is_alone(&self) -> bool {
        self.holders.iter().all(|holding| holding.state == State::Failed)
    }

    fn asked(&mut self, request: RequestId) -> Option<&mut Holding> {
        self.holders.iter_mut().find(|holding| matches!(holding.state, State::Asked(of, _) if of == request))
    }

    /// When a holder that rests may be asked again, or the value looked up. Whoever has rested for long enough waits until another makes room.
    fn wake(&self, now: Now) -> Duration {
        let rests = self.holders.iter().filter_map(|holding| match holding.state {
            State::Rests(until) if until > now.mono => Some(until),
            _ => None,
        });
        rests.chain(self.poll).min().unwrap_or(Duration::MAX)
    }
}

impl Dht {
    /// How many operations wait for a change.
    pub(super) fn waiting(&self) -> usize {
        self.operations.values().filter(|op| op.change.is_some()).count()
    }

    /// Lets an operation that waits for a change, and whose lookup is over, do what it can now.
    pub(super) fn drive_change(&mut self, now: Now, operation: u64) {
        let most = self.config.lookup.watch_holders;
        let own = self.own_is_newer(now, operation);
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let (Some(change), Some(_)) = (op.change.as_mut(), op.walked) else { return };
        if own || op.lookup.harvest.judged().any(|found| change.is_newer(&found)) {
            return self.finish(now, operation, Ended::Found);
        }
        if op.lookup.harvest.is_final() {
            // Nothing newer can exist.
            return self.finish(now, operation, Ended::Complete);
        }
        if now.mono >= op.deadline {
            return self.finish(now, operation, Ended::Deadline);
        }
        if change.poll.is_some_and(|poll| poll <= now.mono) {
            return self.look_up_again(now, operation);
        }
        while self.ask_to_tell(now, operation, most) {}
        let pause = self.config.lookup.watch_poll;
        let random = &mut self.random;
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let Some(change) = op.change.as_mut() else { return };
        if change.is_alone() {
            change.poll.get_or_insert_with(|| now.mono + pause / 2 + random.up_to(pause));
        }
        op.wake = op.deadline.min(change.wake(now));
        let mut op = self.operations.remove(&operation);
        op.iter_mut().for_each(|op| self.report(op));
        self.operations.extend(op.map(|op| (operation, op)));
    }

    /// Asks one more holder to tell. Says whether there was one.
    fn ask_to_tell(&mut self, now: Now, operation: u64, most: usize) -> bool {
        let Some(op) = self.operations.get_mut(&operation) else { return false };
        let Some((change, at)) =
            op.change.as_ref().and_then(|change| Some((change, change.next(now, most)?)))
        else {
            return false;
        };
        let holding = &change.holders[at];
        let (contact, known, class) = (holding.contact.clone(), holding.known, op.class);
        let left = op.deadline.saturating_sub(now.mono).min(WAIT);
        let seconds = left.as_millis().div_ceil(1000) as u32;
        let target = op.lookup.target().clone();
        let peer = *contact.peer();
        op.lookup.step(now, StepKind::Waiting { peer });
        let query = Query::GetValue { target, cursor: None, wait: Some(Wait { known, seconds }) };
        let request = self.ask(now, &contact, query, class, Purpose::Change(operation));
        if let Some(change) = self.operations.get_mut(&operation).and_then(|op| op.change.as_mut()) {
            change.counts.asked += 1;
            change.holders[at].state = State::Asked(request, now.mono);
        }
        true
    }

    /// A holder has answered: with something newer, with something else, because its time was up, or because it keeps no question.
    pub(super) fn change_answered(
        &mut self,
        now: Now,
        operation: u64,
        request: RequestId,
        remote: IpAddr,
        answer: &Answer,
    ) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let target = op.lookup.target().clone();
        let Some(change) = op.change.as_mut() else { return };
        change.counts.answered += 1;
        let Some(holding) = change.asked(request) else { return };
        let State::Asked(_, at) = holding.state else { return };
        let harvest = &mut op.lookup.harvest;
        let limits = &self.config.lookup;
        let peer = holding.contact.peer();
        let from = (peer, Voter::new(peer, remote));
        let brought = harvest.values(now, limits, &*self.judge, &target, from, &answer.values);
        let known = digest_of(&answer.values);
        let other = brought.good > 0 && known != holding.known;
        // Whoever answers at once that all is as it was keeps no question.
        let tells = brought.invalid == 0 && (answer.waited || other);
        holding.state = if tells { State::Rests(now.mono.max(at + RENEW_LEAST)) } else { State::Failed };
        if brought.good > 0 {
            holding.known = known;
        }
        change.counts.invalid += brought.invalid;
        self.drive(now, operation);
    }

    /// A lookup of an operation that waits was answered late.
    pub(super) fn note_late(
        &mut self,
        now: Now,
        operation: u64,
        contact: &Contact,
        remote: IpAddr,
        answer: &Answer,
    ) {
        let Some(op) = self.operations.get_mut(&operation).filter(|op| op.change.is_some()) else { return };
        let target = op.lookup.target().clone();
        let (limits, harvest) = (&self.config.lookup, &mut op.lookup.harvest);
        let from = (contact.peer(), Voter::new(contact.peer(), remote));
        let brought = harvest.values(now, limits, &*self.judge, &target, from, &answer.values);
        if let (Some(change), true) = (op.change.as_mut(), answer.extended && brought.good > 0) {
            change.holds(target.key(), contact, answer, limits.watch_holders);
        }
        op.wake = now.mono;
    }

    /// A holder that was to tell came to nothing.
    pub(super) fn change_failed(&mut self, now: Now, operation: u64, request: RequestId, why: Failure) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let Some(change) = op.change.as_mut() else { return };
        change.counts.failed += 1;
        if let Some(holding) = change.asked(request) {
            holding.state = State::Failed;
            let peer = *holding.contact.peer();
            op.lookup.step(now, StepKind::Failed { peer, why });
        }
        self.drive(now, operation);
    }

    /// The wait is over: nobody need tell any more.
    pub(super) fn end_change(&mut self, now: Now, operation: u64) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let Some(change) = op.change.as_mut() else { return };
        let mut dropped = Vec::new();
        for holding in &mut change.holders {
            if let State::Asked(request, _) = holding.state {
                holding.state = State::Failed;
                change.counts.cancelled += 1;
                dropped.push(request);
            }
        }
        let key = *op.lookup.target().key();
        for request in dropped {
            self.drop_request(now, request, false, false);
        }
        self.unfollow(&key);
    }

    /// Something has changed in our own store, under this key.
    pub(super) fn look_at_own(&mut self, now: Now, key: &Key) {
        for op in self.operations.values_mut().filter(|op| op.lookup.target().key() == key) {
            if let Some(change) = op.change.as_mut() {
                change.own = true;
                op.wake = now.mono;
            }
        }
    }

    /// Whether our own store, which has changed, has something newer than the caller.
    fn own_is_newer(&mut self, now: Now, operation: u64) -> bool {
        let Some(op) = self.operations.get_mut(&operation).filter(|op| op.walked.is_some()) else {
            return false;
        };
        let Some(change) = op.change.as_mut().filter(|change| change.own) else { return false };
        change.own = false;
        let (target, reader) = (op.lookup.target().clone(), self.peer);
        let values = self.shown(&target, &reader);
        let judged = values.iter().filter_map(|value| self.judge.judge(now, &target, value).ok());
        let judged: Vec<Judged> = judged.collect();
        let change = self.operations.get(&operation).and_then(|op| op.change.as_ref());
        change.is_some_and(|change| judged.iter().any(|found| change.is_newer(found)))
    }

    /// Nobody tells: the value is looked up again, and with it who holds it.
    fn look_up_again(&mut self, now: Now, operation: u64) {
        let Some(Op { aim, lookup, change: Some(change), .. }) = self.operations.get(&operation) else {
            return;
        };
        let (aim, target, goal) = (*aim, lookup.target().clone(), lookup.goal().clone());
        let (options, started) = (change.options, lookup.started());
        let mut fresh = self.lookup_for(now, aim, target, goal, false, options);
        fresh.begun(started);
        let pause = self.config.lookup.watch_poll;
        let random = &mut self.random;
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let Some(change) = op.change.as_mut() else { return };
        if fresh.is_empty() {
            change.poll = Some(now.mono + pause / 2 + random.up_to(pause));
            op.wake = op.deadline.min(change.wake(now));
            return;
        }
        add_counts(&mut change.counts, &op.lookup.counts);
        change.poll = None;
        change.holders.clear();
        op.lookup = fresh;
        (op.walked, op.wary, op.wake) = (None, false, now.mono);
        self.drive(now, operation);
    }
}
