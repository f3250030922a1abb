//! Storing: copies go to the peers closest to a key, the first of them while the walk is still on (dht.md B.2 rule 11, B.6 "Region store").

use std::collections::VecDeque;
use std::time::Duration;

use peerage_machine::Now;

use super::requests::Purpose;
use super::{Counts, Dht, Ended, Failure, NotStored, Outcome, RequestId};
use crate::estimate::{radius, tenth_of_gamma};
use crate::lookup::StepKind;
use crate::{Answer, Contact, Query, Status};

/// The second half of a store: who gets a copy, and who has it.
#[derive(Debug)]
pub(super) struct Store {
    query: Query,
    /// So many copies are wanted.
    replicas: usize,
    /// The caller is told after so many.
    needed: usize,
    /// The caller left that to us.
    by_default: bool,
    copies: Vec<Copy>,
    /// Who is next, the closest first.
    queue: VecDeque<Contact>,
    /// Peers of the region that get a copy beyond the replicas.
    extra: VecDeque<Contact>,
    /// Whom the lookups of a dense neighbourhood came upon.
    around: Vec<Contact>,
    /// The caller was told.
    pub(super) told: bool,
    counts: Counts,
}

/// A copy at one peer.
#[derive(Debug)]
struct Copy {
    contact: Contact,
    request: RequestId,
    /// When somebody else is asked in its stead.
    due: Duration,
    state: State,
    /// It has shown that there is something newer.
    outdone: bool,
    /// It is beyond the replicas.
    extra: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sent,
    Suspect,
    Stored,
    Not(NotStored),
}

impl Store {
    pub(super) fn new(query: Query, replicas: usize, quorum: usize) -> Self {
        let by_default = quorum == 0;
        let needed = if by_default { replicas.div_ceil(2) } else { quorum.min(replicas) };
        Self {
            by_default,
            query,
            replicas,
            needed,
            copies: Vec::new(),
            queue: VecDeque::new(),
            extra: VecDeque::new(),
            around: Vec::new(),
            told: false,
            counts: Counts::default(),
        }
    }

    /// Writes what became of the copies into a result.
    pub(super) fn fill(&self, outcome: &mut Outcome) {
        for copy in &self.copies {
            match copy.state {
                State::Stored => outcome.stored.push(copy.contact.clone()),
                State::Not(why) => outcome.not_stored.push((copy.contact.clone(), why)),
                State::Sent | State::Suspect => {}
            }
        }
        let outdone = self.copies.iter().filter(|copy| copy.outdone).count();
        let failed = |why: &NotStored| matches!(why, NotStored::Failed(_));
        let answered =
            outcome.stored.len() + outcome.not_stored.iter().filter(|(_, why)| !failed(why)).count();
        outcome.superseded = 2 * outdone > answered;
        outcome.counts += self.counts;
    }

    /// A lookup of the neighbourhood has found these.
    pub(super) fn came_upon<'a>(&mut self, peers: impl Iterator<Item = &'a Contact>) {
        for peer in peers {
            if !self.around.iter().any(|other| other.key() == peer.key()) {
                self.around.push(peer.clone());
            }
        }
    }

    fn count(&self, state: State, extra: bool) -> usize {
        self.copies.iter().filter(|copy| copy.state == state && (extra || !copy.extra)).count()
    }

    /// Whether it is one of the closest, who get a copy anyway.
    fn is_next(&self, contact: &Contact) -> bool {
        self.queue.iter().take(self.replicas).any(|next| next.key() == contact.key())
    }

    fn has(&self, contact: &Contact) -> bool {
        self.copies.iter().any(|copy| copy.contact.key() == contact.key())
    }

    /// Whom to send a copy now: the closest as long as fewer than the replicas are stored or on the way, then those of the region.
    fn next(&mut self, cap: usize, wary: bool) -> Option<(Contact, bool)> {
        // Of what most show a newer version, and nobody took, nobody else is to get a copy. In a place that looks too dense their word is worth little.
        let outdone = self.copies.iter().filter(|copy| copy.outdone).count();
        let not = self.copies.iter().filter(|copy| matches!(copy.state, State::Not(_))).count();
        let outdated = 2 * outdone > not && self.count(State::Stored, true) == 0;
        if self.count(State::Sent, true) >= cap || outdated && !wary {
            return None;
        }
        while self.count(State::Stored, false) + self.count(State::Sent, false) < self.replicas {
            let Some(contact) = self.queue.pop_front() else { break };
            if !self.has(&contact) {
                return Some((contact, false));
            }
        }
        while let Some(contact) = self.extra.pop_front() {
            if !self.has(&contact) {
                return Some((contact, true));
            }
        }
        None
    }

    /// Copies on the way.
    pub(super) fn under_way(&self) -> impl Iterator<Item = RequestId> {
        let open = self.copies.iter().filter(|copy| matches!(copy.state, State::Sent | State::Suspect));
        open.map(|copy| copy.request)
    }

    /// What must hold at any time, where so many copies may be on the way, those not counted that are overdue; the first thing that doesn't.
    pub(super) fn check(&self, most: usize) -> Result<(), String> {
        let sent = self.count(State::Sent, true);
        if sent > most {
            return Err(format!("{sent} copies on the way, at most {most}"));
        }
        let (counts, open) = (&self.counts, self.under_way().count() as u32);
        if counts.asked != counts.answered + counts.failed + counts.cancelled + open {
            return Err(format!("{counts:?} of a store with {open} copies on the way"));
        }
        let twice = |at: usize, copy: &Copy| {
            self.copies[..at].iter().any(|other| other.contact.key() == copy.contact.key())
        };
        match self.copies.iter().enumerate().any(|(at, copy)| twice(at, copy)) {
            true => Err("a peer was sent two copies of one store".into()),
            false => Ok(()),
        }
    }

    fn is_over(&self) -> bool {
        !self.copies.iter().any(|copy| matches!(copy.state, State::Sent | State::Suspect))
    }
}

impl Dht {
    /// While the walk goes on, whoever lies so close that it is a holder almost surely gets its copy at once, whether it was asked already or only named: the copy goes
    /// over the connection that the question opens, or opens it. When enough have stored it, the caller need not wait for the end of the walk (dht.md B.2, rule 11).
    pub(super) fn store_early(&mut self, now: Now, operation: u64) {
        while let Some(contact) = self.sure_holder(operation) {
            self.send_copy(now, operation, contact, false);
        }
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let (Some(store), None) = (&op.store, op.walked) else { return };
        let due = store.copies.iter().filter(|copy| copy.state == State::Sent).map(|copy| copy.due).min();
        op.wake = op.wake.min(due.unwrap_or(Duration::MAX));
        if !store.told && store.count(State::Stored, true) >= store.needed {
            self.tell_early(now, operation, Ended::Stored);
        }
    }

    /// The closest candidate where as many peers are expected as replicas are wanted, if it may be alive and has no copy. Who turns out not to be one of the closest has
    /// a copy of the region's; fewer than half as many lie there once in two hundred times, so that the caller seldom waits for the end of the walk.
    fn sure_holder(&self, operation: u64) -> Option<Contact> {
        let op = self.operations.get(&operation)?;
        let (Some(store), None, Some(size)) = (&op.store, op.walked, op.lookup.size()) else { return None };
        let under_way = store.count(State::Sent, true);
        let room = under_way < op.lookup.most()
            && under_way + store.count(State::Stored, false) < store.replicas
            && store.copies.len() < 2 * store.replicas;
        // Who lies within a tenth of Gamma is a holder nine times in ten; as many more as the region may have beyond the replicas are no loss.
        let replicas = store.replicas as f64;
        let sure = tenth_of_gamma(replicas) + self.config.lookup.region_extra as f64;
        let near = radius(sure.min(replicas), size);
        let mut close = op.lookup.candidates().take_while(|candidate| candidate.distance <= near);
        let sure = close.find(|candidate| candidate.counts() && !store.has(&candidate.contact));
        sure.filter(|_| room).map(|candidate| candidate.contact.clone())
    }

    /// The walk is over: everybody who gets a copy is known.
    pub(super) fn begin_store(&mut self, now: Now, operation: u64) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let answered: Vec<Contact> = op.lookup.closest().map(|candidate| candidate.contact.clone()).collect();
        let Some(store) = op.store.as_mut() else { return };
        let closest = &answered[..store.replicas.min(answered.len())];
        for copy in &mut store.copies {
            copy.extra = !closest.iter().any(|contact| contact.key() == copy.contact.key());
        }
        if store.by_default {
            // A network of fewer nodes than replicas is no failure.
            store.needed = store.replicas.min(answered.len()).div_ceil(2).max(1);
        }
        store.queue = answered.into();
        self.fill_region(operation);
        self.drive_store(now, operation);
    }

    /// Beyond the closest: others of the region, so that whoever sits on the key cannot hide it (dht.md B.6). Of those whom a lookup of a place near the key came upon if
    /// there was one; where the place looks too dense, all of them.
    pub(super) fn fill_region(&mut self, operation: u64) {
        let config = &self.config.lookup;
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let (Some(store), Some(size)) = (op.store.as_mut(), op.lookup.size()) else { return };
        if op.covering > 0 && !op.wary {
            return;
        }
        let region = radius(config.region * self.config.table.k as f64, size);
        let target = op.lookup.target().key();
        let inside = |peer: &Contact| peer.key().distance(target) <= region;
        let mut around: Vec<Contact> = std::mem::take(&mut store.around).into_iter().filter(inside).collect();
        if !op.wary {
            // Those next in line, and half as many from the place near the key.
            let beyond = op.lookup.closest().skip(store.replicas).map(|candidate| candidate.contact.clone());
            let mut beyond: Vec<Contact> = beyond.filter(inside).collect();
            self.random.shuffle(&mut beyond);
            beyond.retain(|contact| !store.has(contact));
            let there = store.copies.iter().filter(|copy| copy.extra).count();
            beyond.truncate(config.region_extra.saturating_sub(there));
            self.random.shuffle(&mut around);
            let fresh = |peer: &Contact| !store.has(peer) && !store.is_next(peer);
            around.retain(|peer| fresh(peer) && !beyond.iter().any(|other| other.key() == peer.key()));
            around.truncate(config.region_extra / 2);
            around.splice(0..0, beyond);
        }
        store.extra.extend(around);
    }

    /// Sends the copies that can be sent, and says what there is to say.
    pub(super) fn drive_store(&mut self, now: Now, operation: u64) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let cap = op.lookup.most();
        let Some(store) = op.store.as_mut() else { return };
        let overdue =
            store.copies.iter_mut().filter(|copy| copy.state == State::Sent && copy.due <= now.mono);
        let suspects = overdue.map(|copy| copy.state = State::Suspect).count();
        store.counts.suspected += suspects as u32;
        if op.walked.is_none() {
            return self.store_early(now, operation);
        }
        while let Some(op) = self.operations.get_mut(&operation).filter(|op| now.mono < op.deadline) {
            let next = op.store.as_mut().and_then(|store| store.next(cap, op.wary));
            let Some((contact, extra)) = next else { break };
            self.send_copy(now, operation, contact, extra);
        }
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let (Some(store), Some(walked)) = (op.store.as_ref(), op.walked) else { return };
        let enough = store.count(State::Stored, true) >= store.needed;
        let (over, told) = (store.is_over() && op.covering == 0, store.told);
        let due = store.copies.iter().filter(|copy| copy.state == State::Sent).map(|copy| copy.due).min();
        op.wake = due.unwrap_or(Duration::MAX).min(op.deadline);
        if over {
            self.finish(now, operation, if enough { Ended::Stored } else { too_few(walked) });
        } else if now.mono >= op.deadline {
            self.finish(now, operation, if enough { Ended::Stored } else { Ended::Deadline });
        } else if enough && !told {
            op.deadline = now.mono + self.config.lookup.background_deadline;
            self.tell_early(now, operation, Ended::Stored);
        }
    }

    pub(super) fn store_answered(&mut self, now: Now, operation: u64, request: RequestId, answer: &Answer) {
        self.note_speech(operation, request, answer.extended);
        let (state, outdone) = match answer.status {
            // A foreign node has no word for it: it repeats what it was sent.
            Status::Ok | Status::Stored => (State::Stored, false),
            Status::Busy => (State::Not(NotStored::Busy), false),
            Status::Stale => self.read_stale(now, operation, answer),
            Status::Refused(why) => (State::Not(NotStored::Refused(why)), false),
        };
        self.copy_ended(now, operation, request, state, outdone);
    }

    /// Whoever was handed a copy of a record that we look after has shown whether it understands our additions: a renewal has to say less to it then.
    fn note_speech(&mut self, operation: u64, request: RequestId, extended: bool) {
        let store = self.operations.get(&operation).and_then(|op| op.store.as_ref());
        let copy = store.and_then(|store| store.copies.iter().find(|copy| copy.request == request));
        let (Some(store), Some(copy), Some(holder)) = (store, copy, self.holder.as_mut()) else { return };
        if let Query::PutValue { target, value } = &store.query
            && let Some(id) = holder.sets.find(target, value)
        {
            holder.sets.heard(&id, copy.contact.key(), extended);
        }
    }

    /// What it means that a holder says it has something newer, and whether it has shown that. What is named by its hash is the same content, whoever has signed for it to live
    /// longer. That a message was read is believed without: its sender is not shown the recipient's word.
    fn read_stale(&self, now: Now, operation: u64, answer: &Answer) -> (State, bool) {
        let store = self.operations.get(&operation).and_then(|op| op.store.as_ref());
        let Some(Query::PutValue { target, value }) = store.map(|store| &store.query) else {
            return (State::Not(NotStored::Stale), false);
        };
        let judge = |value| self.judge.judge(now, target, value).ok();
        let outdone = match (answer.values.first().and_then(judge), judge(value)) {
            (Some(theirs), _) if theirs.is_final => return (State::Stored, false),
            (Some(theirs), Some(ours)) => theirs.slot == ours.slot && theirs.rank > ours.rank,
            _ => self
                .holder
                .as_ref()
                .is_some_and(|holder| holder.is_mailbox(target) && !holder.is_mailbox_of(target, &self.peer)),
        };
        (State::Not(NotStored::Stale), outdone)
    }

    pub(super) fn store_failed(&mut self, now: Now, operation: u64, request: RequestId, why: Failure) {
        self.copy_ended(now, operation, request, State::Not(NotStored::Failed(why)), false);
    }

    /// Frees what a store holds.
    pub(super) fn end_store(&mut self, now: Now, operation: u64) {
        let Some(store) = self.operations.get_mut(&operation).and_then(|op| op.store.as_mut()) else {
            return;
        };
        let mut dropped = Vec::new();
        for copy in &mut store.copies {
            if matches!(copy.state, State::Sent | State::Suspect) {
                dropped.push((copy.request, copy.state == State::Suspect));
                copy.state = State::Not(NotStored::Failed(Failure::Timeout));
                store.counts.cancelled += 1;
            }
        }
        for (request, suspect) in dropped {
            self.drop_request(now, request, suspect, false);
        }
    }

    fn send_copy(&mut self, now: Now, operation: u64, contact: Contact, extra: bool) {
        let patience = self.round_trips.patience().unwrap_or(self.config.lookup.soft_unknown);
        let patience = patience.clamp(self.config.lookup.soft_least, self.config.lookup.soft_most);
        let Some(op) = self.operations.get(&operation) else { return };
        let (Some(store), class) = (&op.store, op.class) else { return };
        let query = store.query.clone();
        let request = self.ask(now, &contact, query, class, Purpose::Store(operation));
        let Some(op) = self.operations.get_mut(&operation) else { return };
        op.lookup.step(now, StepKind::Storing { peer: *contact.peer() });
        let Some(store) = op.store.as_mut() else { return };
        store.counts.asked += 1;
        // Holders verify and may write before they answer: twice the patience of a question.
        store.copies.push(Copy {
            contact,
            request,
            due: now.mono + 2 * patience,
            state: State::Sent,
            outdone: false,
            extra,
        });
    }

    fn copy_ended(&mut self, now: Now, operation: u64, request: RequestId, state: State, outdone: bool) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let Some(store) = op.store.as_mut() else { return };
        let Some(copy) = store.copies.iter_mut().find(|copy| copy.request == request) else { return };
        (copy.state, copy.outdone) = (state, outdone);
        let peer = *copy.contact.peer();
        let what = match state {
            State::Stored => StepKind::Stored { peer },
            State::Not(why) => StepKind::NotStored { peer, why },
            State::Sent | State::Suspect => return,
        };
        store.counts.stored += u32::from(state == State::Stored);
        match state {
            State::Not(NotStored::Failed(_)) => store.counts.failed += 1,
            State::Not(_) => {
                store.counts.answered += 1;
                store.counts.refused += 1;
            }
            _ => store.counts.answered += 1,
        }
        op.lookup.step(now, what);
        self.drive(now, operation);
    }
}

/// Why a store ends without as many copies as were asked for.
fn too_few(walked: Ended) -> Ended {
    match walked {
        Ended::Deadline => Ended::Deadline,
        _ => Ended::TooFewStored,
    }
}
