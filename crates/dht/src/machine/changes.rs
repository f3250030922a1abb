//! Waiting for a value to change (AL-54).
//!
//! A lookup as for any value finds who holds it. Those closest to the key that understand it are asked to tell when it changes, and asked again when their time is
//! up; one that fails or keeps no question gives its place to the next. Where nobody tells, the value is looked up again from time to time. What ends the wait is a
//! valid value that is newer than the caller's, from whomever: a liar can hide a change for as long as an honest holder is silent, and nothing else.

use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::Now;

use super::operation::Op;
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
    /// The network in which it was met.
    voter: Voter,
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

    /// A peer has answered the lookup with a value. So many may be asked at once. A question to one that is too far away now is to be dropped.
    pub(super) fn holds(
        &mut self,
        target: &Key,
        contact: &Contact,
        remote: IpAddr,
        answer: &Answer,
        most: usize,
    ) -> Option<RequestId> {
        let distance = contact.key().distance(target);
        let place = self.holders.partition_point(|other| other.contact.key().distance(target) < distance);
        if self.holders.get(place).is_some_and(|other| other.contact.key() == contact.key()) {
            return None;
        }
        let (known, voter) = (digest_of(&answer.values), Voter::new(contact.peer(), remote));
        self.holders.insert(place, Holding { contact: contact.clone(), voter, known, state: State::Spare });
        // It may tell.
        self.poll = None;
        if self.holders.len() <= SPARE * most {
            return None;
        }
        let gone = self.holders.pop()?;
        let State::Asked(request, _) = gone.state else { return None };
        self.counts.cancelled += 1;
        Some(request)
    }

    /// Forgets who held it. Their questions are to be dropped.
    fn forget_holders(&mut self) -> Vec<RequestId> {
        let asked = |holding: Holding| match holding.state {
            State::Asked(request, _) => Some(request),
            _ => None,
        };
        let dropped: Vec<RequestId> = self.holders.drain(..).filter_map(asked).collect();
        self.counts.cancelled += dropped.len() as u32;
        dropped
    }

    /// What it cost beside the last lookup.
    pub(super) fn add_to(&self, counts: &mut Counts) {
        *counts += self.counts;
    }

    fn is_newer(&self, found: &Judged) -> bool {
        self.known.as_ref().is_none_or(|known| known.slot != found.slot || known.rank < found.rank)
    }

    /// Who is to be asked now, as long as fewer than `most` are: whoever was before and has rested; else the closest, but one of them drawn by `lot`, and of each network one only
    /// as long as there are others. So whoever sits nearest to the key, and says nothing, is not the only one to be asked.
    fn next(&self, now: Now, most: usize, lot: impl FnOnce(usize) -> usize) -> Option<usize> {
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
        let taken: Vec<Voter> = self.holders.iter().filter(busy).map(|holding| holding.voter).collect();
        if taken.len() >= most {
            return None;
        }
        let all: Vec<usize> = (0..self.holders.len()).filter(|at| free(&self.holders[*at])).collect();
        let rested = |at: &&usize| matches!(self.holders[**at].state, State::Rests(_));
        if let Some(again) = all.iter().find(rested) {
            return Some(*again);
        }
        let apart = |at: &usize| !taken.contains(&self.holders[*at].voter);
        let others: Vec<usize> = all.iter().copied().filter(apart).collect();
        let choice = if others.is_empty() { all } else { others };
        let last = taken.len() + 1 == most && most > 1;
        match (last, choice.len()) {
            (_, 0) => None,
            (true, many) => choice.get(lot(many)).copied(),
            (false, _) => choice.first().copied(),
        }
    }

    /// Whether nobody is left who could tell.
    fn is_alone(&self) -> bool {
        self.holders.iter().all(|holding| holding.state == State::Failed)
    }

    fn asked(&mut self, request: RequestId) -> Option<&mut Holding> {
        self.holders.iter_mut().find(|holding| matches!(holding.state, State::Asked(of, _) if of == request))
    }

    /// Holders that are asked to tell.
    pub(super) fn under_way(&self) -> impl Iterator<Item = RequestId> {
        self.holders.iter().filter_map(|holding| match holding.state {
            State::Asked(request, _) => Some(request),
            _ => None,
        })
    }

    /// What must hold at any time; the first thing that doesn't.
    pub(super) fn check(&self, most: usize) -> Result<(), String> {
        let asked = self.under_way().count();
        match asked <= most {
            true => Ok(()),
            false => Err(format!("{asked} holders are asked to tell of a change, at most {most}")),
        }
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
        let random = &mut self.random;
        let lot = |many| random.index(many);
        let Some((change, at)) =
            op.change.as_ref().and_then(|change| Some((change, change.next(now, most, lot)?)))
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
        let mut dropped = None;
        if let (Some(change), true) = (op.change.as_mut(), answer.extended && brought.good > 0) {
            dropped = change.holds(target.key(), contact, remote, answer, limits.watch_holders);
        }
        op.wake = now.mono;
        dropped.into_iter().for_each(|request| self.drop_request(now, request, false, false));
    }

    /// A holder that was to tell came to nothing.
    pub(super) fn change_failed(&mut self, now: Now, operation: u64, request: RequestId, why: Failure) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let Some(change) = op.change.as_mut() else { return };
        change.counts.failed += 1;
        if let Some(holding) = change.asked(request) {
            let State::Asked(_, at) = holding.state else { return };
            // One that waited until its connection was wanted for something else may wait again; one that can't be reached may not.
            let lasted = now.mono >= at + RENEW_LEAST;
            holding.state = match why {
                Failure::Refused | Failure::Local if lasted => {
                    let pause = self.config.lookup.watch_poll;
                    State::Rests(now.mono + pause / 2 + self.random.up_to(pause))
                }
                _ => State::Failed,
            };
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
        let values = self.shown(now, &target, &reader);
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
        let left =
            self.operations.get(&operation).map_or(Duration::ZERO, |op| op.deadline.saturating_sub(now.mono));
        let class = self.config.lookup.deadline(change.options.class);
        let options = Options { deadline: Some(class.min(left)), ..change.options };
        let started = lookup.started();
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
        change.counts += op.lookup.counts;
        change.poll = None;
        let dropped = change.forget_holders();
        op.lookup = fresh;
        op.lookups += 1;
        (op.walked, op.wary, op.escapes, op.wake) = (None, false, 0, now.mono);
        dropped.into_iter().for_each(|request| self.drop_request(now, request, false, false));
        self.drive(now, operation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::contact;

    fn at(seconds: u64) -> Now {
        Now::ZERO.after(Duration::from_secs(seconds))
    }

    /// Twelve holders, of which the nearest three are of one network.
    fn waiting() -> Change {
        let target = Key::of(b"key");
        let mut contacts: Vec<Contact> = (1..=12).map(contact).collect();
        contacts.sort_by_key(|contact| contact.key().distance(&target));
        let mut change = Change::new(None, Options::default());
        for (place, contact) in contacts.iter().enumerate() {
            let network = if place < 3 { 0 } else { place as u8 };
            let remote = IpAddr::from([44, 1, network, place as u8]);
            assert_eq!(change.holds(&target, contact, remote, &Answer::default(), 3), None);
        }
        change
    }

    fn ask(change: &mut Change, now: Now, lot: usize) -> Option<usize> {
        let next = change.next(now, 3, |many| lot % many)?;
        change.holders[next].state = State::Asked(RequestId(next as u64), now.mono);
        Some(next)
    }

    #[test]
    fn of_a_network_one_is_asked_and_the_last_is_drawn_by_lot() {
        let mut change = waiting();
        let asked = [0, 0, 4].map(|lot| ask(&mut change, at(0), lot));
        assert_eq!(asked, [Some(0), Some(3), Some(8)]);
        assert_eq!(ask(&mut change, at(0), 0), None, "three are asked");
        // Where nobody else is left, neighbours are asked too.
        change.holders.iter_mut().skip(3).for_each(|holding| holding.state = State::Failed);
        assert_eq!([1, 0].map(|lot| ask(&mut change, at(0), lot)), [Some(1), Some(2)]);
    }

    #[test]
    fn whoever_has_rested_wakes_nobody_while_there_is_no_room_to_ask_it() {
        let mut change = waiting();
        change.holders[5..9]
            .iter_mut()
            .for_each(|holding| holding.state = State::Rests(Duration::from_secs(5)));
        assert_eq!(change.wake(at(4)), Duration::from_secs(5));
        assert_eq!([0; 3].map(|lot| ask(&mut change, at(6), lot)), [Some(5), Some(6), Some(7)]);
        assert_eq!(change.wake(at(6)), Duration::MAX);
    }

    #[test]
    fn a_nearer_holder_takes_the_place_of_the_farthest_and_its_question_is_dropped() {
        let target = Key::of(b"key");
        let mut change = waiting();
        change.holders[11].state = State::Asked(RequestId(7), Duration::ZERO);
        change.poll = Some(Duration::from_secs(9));
        let nearer = (13..).map(contact).find(|contact| {
            contact.key().distance(&target) < change.holders[3].contact.key().distance(&target)
        });
        let remote = IpAddr::from([45, 1, 1, 1]);
        let dropped = change.holds(&target, &nearer.unwrap(), remote, &Answer::default(), 3);
        assert_eq!((dropped, change.holders.len()), (Some(RequestId(7)), 12));
        assert_eq!((change.poll, change.counts.cancelled), (None, 1), "it may tell");
        change.holders[2].state = State::Asked(RequestId(8), Duration::ZERO);
        assert_eq!((change.forget_holders(), change.counts.cancelled), (vec![RequestId(8)], 2));
    }
}
