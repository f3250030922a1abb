//! Operations: what a caller or the node itself wants, from the first request to the result.

use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::Now;

use super::changes::Change;
use super::late::{LISTEN, Watched};
use super::published::{Accepted, NotTaken};
use super::requests::Purpose;
use super::store::Store;
use super::upkeep::random_target;
use super::{
    Class, Counts, Dht, Ended, Failure, Operation, OperationId, Options, Outcome, Output, RequestId,
};
use crate::lookup::{Came, Goal, Harvest, Hint, Judged, Lookup, Next, Pace, Plan, StepKind};
use crate::record::EntryId;
use crate::table::Table;
use crate::{Answer, Contact, Key, Query, Refusal, Target};

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Somebody started it.
    Caller(OperationId),
    /// It looks ourselves up, to join.
    Join,
    /// It looks our neighbours up again.
    Neighbours,
    /// It looks a place at random up.
    Refresh,
    /// It looks a place at random up, through one of the first contacts alone.
    Compare,
    /// It looks a place in a dense neighbourhood up, for this operation.
    Cover(u64),
    /// It publishes a record of ours again, the one of this number.
    Replica(EntryId, u64),
    /// It tells again that we provide something.
    Provided(Key),
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) aim: Aim,
    pub(super) class: Class,
    /// As its caller permits: [`Options::alpha`].
    pub(super) alpha: usize,
    pub(super) lookup: Lookup,
    /// So many lookups it has begun, this one included.
    pub(super) lookups: u32,
    pub(super) store: Option<Store>,
    /// It waits for a value to change.
    pub(super) change: Option<Change>,
    /// The walk is over: what goes on is the store, or the wait.
    pub(super) walked: Option<Ended>,
    pub(super) deadline: Duration,
    /// Lookups of its neighbourhood that are under way for it.
    pub(super) covering: usize,
    /// Requests of those that have ended.
    pub(super) around: u32,
    /// The place, or one near it, looked too dense.
    pub(super) dense: bool,
    /// Its neighbourhood is looked at from several sides.
    pub(super) wary: bool,
    /// So often it has gone on from a place that was too sparse, and how far the k-th closest lay there at first.
    pub(super) escapes: usize,
    pub(super) sparse: Option<f64>,
    /// It is over: what its lookups still bring is of no use.
    pub(super) ending: bool,
    watch: bool,
    pub(super) wake: Duration,
}

impl Dht {
    pub(super) fn on_start(&mut self, now: Now, id: OperationId, wanted: Operation, options: Options) {
        let refuse = |ended| Output::Done { operation: id, outcome: Box::new(Outcome::empty(ended)) };
        if self.callers.len() >= self.config.lookup.max_operations || self.callers.contains_key(&id) {
            return self.outputs.push_back(refuse(Ended::TooMany));
        }
        let k = self.config.table.k;
        let replicas_or = |replicas: usize| replicas.clamp(1, k);
        let (target, goal, store) = match wanted {
            Operation::FindPeer { peer } => (Target::of_peer(&peer), Goal::Peer(peer, options.quorum), None),
            Operation::Closest { target } => (target, Goal::Closest, None),
            Operation::Get { target } => (target, Goal::Value(options.quorum), None),
            Operation::Collect { target, wanted } => (target, Goal::Values(wanted), None),
            Operation::Providers { target, wanted } => (target, Goal::Providers(wanted), None),
            Operation::Put { target, value, replicas } => {
                let query = Query::PutValue { target: target.clone(), value };
                (target, Goal::Closest, Some(Store::new(query, replicas_or(replicas), options.quorum)))
            }
            Operation::Publish { record, renew } => {
                let Accepted { target, value, replicas } = match self.on_publish(now, id, &record, renew) {
                    Ok(accepted) => accepted,
                    Err(why) => return self.outputs.push_back(refuse(not_taken(&why))),
                };
                let query = Query::PutValue { target: target.clone(), value };
                (target, Goal::Closest, Some(Store::new(query, replicas_or(replicas), options.quorum)))
            }
            Operation::Changed { target, known } => {
                return self.start_change(now, id, &target, known, options);
            }
            Operation::Provide { target, provider, replicas, renew } => {
                if let Err(why) = self.on_provide(now, id, &target, &provider, replicas, renew) {
                    return self.outputs.push_back(refuse(not_taken(&why)));
                }
                let query = Query::AddProvider { target: target.clone(), provider };
                (target, Goal::Closest, Some(Store::new(query, replicas_or(replicas), options.quorum)))
            }
        };
        if let Goal::Peer(..) = goal
            && let Some(found) = self.acquainted(target.key())
        {
            let outcome = Outcome { found: Some(found), ..Outcome::empty(Ended::Found) };
            return self.outputs.push_back(Output::Done { operation: id, outcome: Box::new(outcome) });
        }
        match self.create(now, Aim::Caller(id), target.clone(), goal.clone(), store, options) {
            Some(operation) => {
                self.callers.insert(id, operation);
                self.drive(now, operation);
            }
            None => {
                let mut harvest = Harvest::default();
                self.add_own(now, &target, &goal, &mut harvest);
                self.never_back(now, &target, &goal, &mut harvest);
                let equivocation = harvest.equivocation.take();
                let (values, providers) = harvest.take();
                let mut outcome =
                    Outcome { values, providers, equivocation, ..Outcome::empty(Ended::NoContacts) };
                self.published_at(now, id, &mut outcome);
                self.outputs.push_back(Output::Done { operation: id, outcome: Box::new(outcome) });
                self.check_alone(now);
            }
        }
    }

    /// A caller wants to know when a value changes.
    fn start_change(
        &mut self,
        now: Now,
        id: OperationId,
        target: &Target,
        known: Option<Judged>,
        options: Options,
    ) {
        let limits = &self.config.lookup;
        let wait = options.deadline.unwrap_or(limits.watch_deadline).min(Options::MOST_DEADLINE);
        // As many again as are asked to tell: some will fail.
        let goal = Goal::Value(options.quorum.max(2 * limits.watch_holders));
        let full = self.waiting() >= limits.max_operations.div_ceil(2);
        // The deadline is that of the wait; a lookup has the one of its class, and ends with the wait.
        let lookup = Options { deadline: Some(limits.deadline(options.class).min(wait)), ..options };
        let begun = match full {
            true => Err(Ended::TooMany),
            false => {
                let begun = self.create(now, Aim::Caller(id), target.clone(), goal, None, lookup);
                begun.ok_or(Ended::NoContacts)
            }
        };
        match begun {
            Ok(operation) => {
                self.follow(target.key());
                if let Some(op) = self.operations.get_mut(&operation) {
                    op.change = Some(Change::new(known, lookup));
                    op.deadline = now.mono + wait;
                }
                self.callers.insert(id, operation);
                self.drive(now, operation);
            }
            Err(ended) => {
                let outcome = Box::new(Outcome::empty(ended));
                self.outputs.push_back(Output::Done { operation: id, outcome });
                self.check_alone(now);
            }
        }
    }

    /// The caller doesn't want it any more: what it found is handed over, and everything it held is freed.
    pub(super) fn on_cancel(&mut self, now: Now, id: OperationId) {
        if let Some(operation) = self.callers.get(&id).copied() {
            self.finish(now, operation, Ended::Cancelled);
        }
    }

    /// Begins an operation of the node's own. `None` when nobody is known who could be asked.
    pub(super) fn begin(&mut self, now: Now, aim: Aim, target: Target, class: Class) -> Option<u64> {
        let options = Options { class, ..Options::default() };
        self.create(now, aim, target, Goal::Closest, None, options)
    }

    /// Begins a lookup that knows nobody but `first`.
    pub(super) fn begin_through(&mut self, now: Now, first: Contact) -> Option<u64> {
        let target = random_target(&mut self.random);
        let operation = self.begin(now, Aim::Compare, target, Class::Frugal)?;
        let seed = self.hint_of(first);
        if let Some(op) = self.operations.get_mut(&operation) {
            op.lookup.begin_with(seed);
        }
        Some(operation)
    }

    pub(super) fn create(
        &mut self,
        now: Now,
        aim: Aim,
        target: Target,
        goal: Goal,
        store: Option<Store>,
        options: Options,
    ) -> Option<u64> {
        let lookup = self.lookup_for(now, aim, target, goal, store.is_some(), options);
        if lookup.is_empty() {
            return None;
        }
        self.last_operation += 1;
        let deadline = self.deadline(now, options);
        let op = Op {
            aim,
            class: options.class,
            alpha: options.alpha,
            lookup,
            lookups: 1,
            store,
            change: None,
            walked: None,
            deadline,
            covering: 0,
            around: 0,
            dense: false,
            wary: false,
            escapes: 0,
            sparse: None,
            ending: false,
            watch: options.watch,
            wake: now.mono,
        };
        self.operations.insert(self.last_operation, op);
        Some(self.last_operation)
    }

    fn deadline(&self, now: Now, options: Options) -> Duration {
        let time = options.deadline.unwrap_or(self.config.lookup.deadline(options.class));
        now.mono.saturating_add(time.min(Options::MOST_DEADLINE))
    }

    /// A lookup that begins with those who are known.
    pub(super) fn lookup_for(
        &self,
        now: Now,
        aim: Aim,
        target: Target,
        goal: Goal,
        stores: bool,
        options: Options,
    ) -> Lookup {
        let config = &self.config.lookup;
        let pace = match aim {
            Aim::Join => Pace::eager(config, options.class),
            _ => Pace::new(config, options.class, options.permitted(), self.first_hops.median()),
        };
        let deadline = self.deadline(now, options);
        let usual = self.first_hops.median().unwrap_or(config.usual_rtt);
        let own_paths = if stores || aim == Aim::Join { 2 } else { 1 };
        let paths = if options.paths == 0 { own_paths } else { options.paths };
        let plan = Plan {
            target,
            goal,
            pace,
            k: self.config.table.k,
            paths: paths.clamp(1, config.most_paths),
            deadline,
            size: self.size.size(now),
            usual,
            patience: self.round_trips.patience().unwrap_or(config.soft_unknown),
            grace: match options.class {
                Class::Frugal => config.overdue_grace_frugal,
                Class::Interactive | Class::Normal => config.overdue_grace,
            },
            watch: options.watch,
        };
        let mut lookup = Lookup::new(self.lookups.clone(), plan, now);
        let upkeep = matches!(aim, Aim::Join | Aim::Neighbours | Aim::Refresh);
        let seeds = self.seeds(now, lookup.target().key(), self.config.table.k, upkeep);
        lookup.seed(seeds);
        lookup
    }

    /// Whom to begin with: so many of the table and of the connected, the closest. Also whom we were told of at the start where there is nobody else yet, or all are silent, and in upkeep
    /// where those are fewer: most of the others may be gone or serve nobody, and who looks something up is not to wait for them.
    pub(super) fn seeds(&self, now: Now, target: &Key, many: usize, upkeep: bool) -> Vec<(Contact, Hint)> {
        let mut seeds = self.table.closest(target, many);
        for contact in self.links.closest(target, many) {
            if !seeds.iter().any(|seed| seed.key() == contact.key()) {
                seeds.push(contact);
            }
        }
        if upkeep && seeds.len() < many || !self.upkeep.is_joined() || self.is_alone(now) {
            let news = |contact: &&Contact| !seeds.iter().any(|seed| seed.key() == contact.key());
            let known: Vec<Contact> = self.upkeep.known().iter().filter(news).cloned().collect();
            seeds.extend(known);
        }
        seeds.into_iter().map(|contact| self.hint_of(contact)).collect()
    }

    pub(super) fn add_seeds(&mut self, now: Now, operation: u64, contacts: Vec<Contact>) {
        let seeds: Vec<_> =
            contacts.into_iter().filter(|c| c.key() != &self.key).map(|c| self.hint_of(c)).collect();
        if let Some(op) = self.operations.get_mut(&operation) {
            op.lookup.seed(seeds);
            self.drive(now, operation);
        }
    }

    pub(super) fn hint_of(&self, contact: Contact) -> (Contact, Hint) {
        knowledge(&self.table, &self.links, self.lookups.soft_unknown, contact)
    }

    /// A peer whose addresses need no lookup.
    fn acquainted(&self, key: &Key) -> Option<Contact> {
        let entry = self.table.get(key).filter(|entry| entry.is_usable());
        self.links.get(key).or(entry.map(|entry| &entry.contact)).cloned()
    }

    /// Lets an operation do what it can now.
    pub(super) fn drive(&mut self, now: Now, operation: u64) {
        let Some(mut op) = self.operations.remove(&operation) else { return };
        let ended = loop {
            if op.walked.is_some() {
                break None;
            }
            match op.lookup.next(now) {
                Next::Ask(at, cause) => {
                    let contact = op.lookup.candidate(at).contact.clone();
                    let query = op.lookup.query(at);
                    let request = self.ask(now, &contact, query, op.class, Purpose::Walk(operation));
                    op.lookup.asked(now, at, request, cause);
                }
                Next::Wait(until) => {
                    op.wake = until;
                    break None;
                }
                Next::End(ended) => break Some(ended),
            }
        };
        self.report(&mut op);
        self.operations.insert(operation, op);
        if let Some(ended) = ended {
            self.walk_ended(now, operation, ended);
        }
        self.drive_store(now, operation);
        self.drive_change(now, operation);
    }

    /// Drives those operations whose time has come.
    pub(super) fn drive_due(&mut self, now: Now) {
        let due: Vec<u64> = self
            .operations
            .iter()
            .filter(|(_, op)| op.wake <= now.mono)
            .map(|(operation, _)| *operation)
            .collect();
        for operation in due {
            self.drive(now, operation);
        }
    }

    pub(super) fn walk_answered(
        &mut self,
        now: Now,
        operation: u64,
        request: RequestId,
        rtt: Duration,
        remote: IpAddr,
        answer: &Answer,
    ) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let (own, table, links) = (&self.key, &self.table, &self.links);
        let unknown = self.lookups.soft_unknown;
        let mut known = |named: &Contact| {
            if named.key() == own {
                return None;
            }
            Some(knowledge(table, links, unknown, named.credible_from(remote)?))
        };
        let came = Came { request, rtt, remote, answer };
        let Some(taken) = op.lookup.answered(now, &*self.judge, &came, &mut known) else { return };
        if let (Some(change), true) = (op.change.as_mut(), answer.extended && taken.good > 0) {
            let contact = op.lookup.candidates().find(|one| one.request == Some(request));
            let (key, most) = (op.lookup.target().key(), self.lookups.watch_holders);
            let dropped = contact.and_then(|one| change.holds(key, &one.contact, remote, answer, most));
            dropped.into_iter().for_each(|request| self.drop_request(now, request, false, false));
        }
        if taken.first_hop {
            self.first_hops.add(rtt);
        }
        for request in taken.needless {
            self.drop_request(now, request, false, false);
        }
        self.drive(now, operation);
    }

    pub(super) fn walk_failed(&mut self, now: Now, operation: u64, request: RequestId, why: Failure) {
        if let Some(op) = self.operations.get_mut(&operation) {
            op.lookup.failed(now, request, why);
            self.drive(now, operation);
        }
    }

    /// Nobody is left to ask, or what was wanted is there.
    fn walk_ended(&mut self, now: Now, operation: u64, ended: Ended) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        if op.covering > 0 && ended == Ended::Complete {
            // The lookups of the neighbourhood may bring more.
            op.wake = op.deadline.min(op.lookup.deadline());
            return;
        }
        if ended == Ended::Complete
            && (self.test_sparsity(now, operation) || self.test_density(now, operation))
        {
            return self.drive(now, operation);
        }
        let Some(op) = self.operations.get_mut(&operation) else { return };
        if op.store.is_some() && ended != Ended::NoContacts {
            op.walked = Some(ended);
            self.end_walk(now, operation, true);
            self.glance(now, operation);
            self.begin_store(now, operation);
        } else if op.change.is_some() {
            op.walked = Some(ended);
            self.end_covers(now, operation);
            self.end_walk(now, operation, true);
            if let Some(op) = self.operations.get_mut(&operation) {
                op.ending = false;
            }
        } else {
            self.finish(now, operation, ended);
        }
    }

    /// Ends what is under way of a walk, and tells advisors who was silent.
    fn end_walk(&mut self, now: Now, operation: u64, listen: bool) {
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let silent: Vec<(Contact, Contact)> =
            op.lookup.silent(now).map(|(peer, advisor)| (peer.clone(), advisor.clone())).collect();
        let cancelled = op.lookup.cancel(now);
        for (request, suspect) in cancelled {
            self.drop_request(now, request, suspect, listen);
        }
        self.hint(now, &silent);
    }

    /// An operation is over: everything it holds is freed, and whoever wanted it is told.
    pub(super) fn finish(&mut self, now: Now, operation: u64, ended: Ended) {
        self.end_covers(now, operation);
        // Whoever cancels wants nothing any more.
        self.end_walk(now, operation, ended != Ended::Cancelled);
        self.end_store(now, operation);
        self.end_change(now, operation);
        let Some(mut op) = self.operations.remove(&operation) else { return };
        let ended = op.lookup.settled(ended);
        op.lookup.step(now, StepKind::Ended(ended));
        self.report(&mut op);
        match op.aim {
            Aim::Caller(id) => {
                self.callers.remove(&id);
                let told = op.store.as_ref().is_some_and(|store| store.told);
                let (target, goal) = (op.lookup.target().clone(), op.lookup.goal().clone());
                self.add_own(now, &target, &goal, &mut op.lookup.harvest);
                match op.change {
                    // Whoever waits for a change says itself what it knows.
                    Some(_) => self.remember_read(&target, &goal, &op.lookup.harvest),
                    None => self.never_back(now, &target, &goal, &mut op.lookup.harvest),
                }
                if op.watch && ended != Ended::Cancelled {
                    let (started, ranks) = (op.lookup.started(), op.lookup.harvest.ranks());
                    let watched = Watched { id, started, until: now.mono + LISTEN, ranks };
                    self.listen_on(operation, watched);
                }
                let mut outcome = Box::new(self.outcome(now, op, ended));
                self.published_at(now, id, &mut outcome);
                self.outputs.push_back(match told {
                    true => Output::Settled { operation: id, outcome },
                    false => Output::Done { operation: id, outcome },
                });
            }
            Aim::Join => self.joined(now),
            Aim::Neighbours => {}
            Aim::Replica(id, seq) => {
                let outcome = self.outcome(now, op, ended);
                self.set_settled(now, &id, seq, &outcome.stored, outcome.superseded);
            }
            Aim::Provided(key) => self.told_again(now, &key, ended),
            Aim::Refresh => {
                if let (Ended::Complete, Some(kth)) = (ended, op.lookup.kth()) {
                    self.measured(now, kth);
                }
            }
            Aim::Compare => {
                let answered = op.lookup.closest().count();
                let through = op.lookup.kth().map(|kth| (self.config.table.k as f64 - 1.0) / kth.share());
                self.compared(through.unwrap_or(answered as f64));
            }
            Aim::Cover(parent) => self.covered(now, parent, &op),
        }
    }

    fn outcome(&self, now: Now, mut op: Op, ended: Ended) -> Outcome {
        let (values, providers) = op.lookup.harvest.take();
        let mut outcome = Outcome {
            equivocation: op.lookup.harvest.equivocation.take(),
            closest: op.lookup.closest().take(self.config.table.k).map(|c| c.contact.clone()).collect(),
            found: op.lookup.whereabouts.best(),
            values,
            providers,
            hops: op.lookup.hops,
            took: now.mono.saturating_sub(op.lookup.started()),
            counts: Counts { around: op.around, ..op.lookup.counts },
            dense: op.dense,
            ..Outcome::empty(ended)
        };
        if let Goal::Value(_) = op.lookup.goal() {
            outcome.values.truncate(1);
        }
        if let Some(store) = op.store {
            store.fill(&mut outcome);
        }
        if let Some(change) = op.change {
            change.add_to(&mut outcome.counts);
        }
        outcome
    }

    /// What a caller is told early of a store that goes on.
    pub(super) fn tell_early(&mut self, now: Now, operation: u64, ended: Ended) {
        let k = self.config.table.k;
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let (Aim::Caller(id), Some(store)) = (op.aim, op.store.as_mut()) else { return };
        store.told = true;
        let mut outcome = Outcome {
            closest: op.lookup.closest().take(k).map(|c| c.contact.clone()).collect(),
            hops: op.lookup.hops,
            took: now.mono.saturating_sub(op.lookup.started()),
            counts: Counts { around: op.around, ..op.lookup.counts },
            dense: op.dense,
            unsettled: true,
            ..Outcome::empty(ended)
        };
        store.fill(&mut outcome);
        outcome.looked_after = self.is_kept(id);
        self.outputs.push_back(Output::Done { operation: id, outcome: Box::new(outcome) });
    }

    pub(super) fn report(&mut self, op: &mut Op) {
        if let (Aim::Caller(id), true) = (op.aim, op.watch) {
            let steps = op.lookup.take_steps();
            self.outputs.extend(steps.into_iter().map(|step| Output::Step { operation: id, step }));
        }
    }

    /// Looks a place at random up now, whatever the clock of refreshes says.
    pub fn refresh_now(&mut self, now: Now) {
        let target = random_target(&mut self.random);
        if let Some(operation) = self.begin(now, Aim::Refresh, target, Class::Normal) {
            self.drive(now, operation);
        }
    }
}

fn not_taken(why: &NotTaken) -> Ended {
    match why {
        NotTaken::NoRecords => Ended::Refused(Refusal::NotServed),
        NotTaken::TooMany => Ended::TooManyKept,
    }
}

/// What we know of a peer: our own word on it counts more than what others say.
fn knowledge(
    table: &Table,
    links: &super::links::Links,
    unknown: Duration,
    named: Contact,
) -> (Contact, Hint) {
    let key = *named.key();
    // Of a connection whose round trip is known: that and, as long as nothing is known of how it varies, as much again; but a peer must also find the time to answer.
    let measured = links.rtt(&key);
    let patience = measured.map(|rtt| (2 * rtt).max(rtt + unknown / 4));
    let mut hint = Hint { warm: links.is_connected(&key), rtt: measured, patience, ..Hint::default() };
    let mut contact = named;
    if let Some(entry) = table.get(&key) {
        hint.rtt = entry.rtt.smoothed().or(hint.rtt);
        hint.patience = entry.rtt.patience().or(patience);
        hint.success = Some(entry.success);
        hint.shunned = !entry.is_usable();
        contact = entry.contact.clone();
    }
    if let Some(own) = links.get(&key) {
        contact = own.clone();
    }
    (contact, hint)
}
