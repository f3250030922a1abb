//! Requests of ours: what each is for, and who is credited or blamed for its end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use peerage_machine::{Now, Recent};

use super::holder::Matter;
use super::late::LISTEN;
use super::{Dht, Event, Failure, Output, RequestId};
use crate::outage::Change;
use crate::{Answer, Class, Contact, Family, Key, Query, Status, Subnet, Target};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A step of the walk of an operation.
    Walk(u64),
    /// A copy that an operation stores.
    Store(u64),
    /// A look at a peer: whether it is alive, or worth an entry.
    Probe,
    /// Something that needs no answer.
    Notice,
    /// Something about records.
    Records(Matter),
    /// A word from a holder when a value changes, for which an operation waits.
    Change(u64),
}

#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) contact: Contact,
    pub(super) purpose: Purpose,
    /// When it is given up.
    deadline: Duration,
    /// Whether an answer shows that the peer serves: it is one to FIND_NODE or to something that answers like it.
    proves: bool,
    /// Whose values it asks for.
    pub(super) wants: Option<Target>,
}

/// The requests under way.
#[derive(Debug)]
pub(super) struct Requests {
    next: u64,
    pending: BTreeMap<RequestId, Pending>,
    /// When each is given up.
    deadlines: BTreeSet<(Duration, RequestId)>,
    /// Peers that were asked for an entry and didn't answer: not to be asked again at once.
    failed: Recent<Key, Duration>,
}

impl Requests {
    /// So many peers that failed are remembered.
    const FAILED: usize = 64;
    /// How long a peer that failed is not asked for an entry.
    const SHUNNED: Duration = Duration::from_secs(300);

    pub(super) fn new() -> Self {
        Self {
            next: 0,
            pending: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            failed: Recent::new(Self::FAILED),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Probes under way.
    pub(super) fn probes(&self) -> usize {
        self.pending.values().filter(|pending| pending.purpose == Purpose::Probe).count()
    }

    /// When the first of them is given up.
    pub(super) fn first_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn insert(&mut self, request: RequestId, pending: Pending) {
        self.deadlines.insert((pending.deadline, request));
        self.pending.insert(request, pending);
    }

    fn remove(&mut self, request: RequestId) -> Option<Pending> {
        let pending = self.pending.remove(&request)?;
        self.deadlines.remove(&(pending.deadline, request));
        Some(pending)
    }

    /// What a request is for; `None` when it is over.
    pub(super) fn purpose(&self, request: RequestId) -> Option<Purpose> {
        self.pending.get(&request).map(|pending| pending.purpose)
    }

    /// What each is for.
    pub(super) fn purposes(&self) -> impl Iterator<Item = (RequestId, Purpose)> {
        self.pending.iter().map(|(request, pending)| (*request, pending.purpose))
    }

    /// Each has one timer, and there are no others.
    pub(super) fn check(&self) -> Result<(), String> {
        let timed = |(request, pending): (&RequestId, &Pending)| {
            self.deadlines.contains(&(pending.deadline, *request))
        };
        match self.deadlines.len() == self.pending.len() && self.pending.iter().all(timed) {
            true => Ok(()),
            false => Err(format!("{} timers for {} requests", self.deadlines.len(), self.pending.len())),
        }
    }

    /// Whether a peer is being looked at, or was and didn't answer.
    pub(super) fn has_tried(&self, now: Now, key: &Key) -> bool {
        let looks = |pending: &Pending| !matches!(pending.purpose, Purpose::Change(_));
        self.pending.values().any(|pending| pending.contact.key() == key && looks(pending))
            || self.failed.get(key).is_some_and(|at| now.mono.saturating_sub(*at) < Self::SHUNNED)
    }
}

impl Dht {
    /// Sends a query.
    pub(super) fn ask(
        &mut self,
        now: Now,
        contact: &Contact,
        query: Query,
        class: Class,
        purpose: Purpose,
    ) -> RequestId {
        self.requests.next += 1;
        let request = RequestId(self.requests.next);
        let proves =
            matches!(query, Query::FindNode { .. } | Query::GetValue { .. } | Query::GetProviders { .. });
        let asked_to_wait = match &query {
            Query::GetValue { wait: Some(wait), .. } => Duration::from_secs(wait.seconds.into()),
            _ => Duration::ZERO,
        };
        let deadline = now.mono + asked_to_wait + self.config.lookup.hard;
        let wants = match &query {
            Query::GetValue { target, wait: None, .. } => Some(target.clone()),
            _ => None,
        };
        let pending = Pending { contact: contact.clone(), purpose, deadline, proves, wants };
        self.requests.insert(request, pending);
        self.stats.asked += 1;
        self.outputs.push_back(Output::Ask { request, contact: contact.clone(), query, class, deadline });
        request
    }

    /// Nobody waits for the answer any more. A suspect's silence is a miss. `listen`: what it holds may be newer than what was found.
    pub(super) fn drop_request(&mut self, now: Now, request: RequestId, suspect: bool, listen: bool) {
        let Some(pending) = self.requests.remove(request) else { return };
        let listen = if listen && pending.wants.is_some() { LISTEN } else { Duration::ZERO };
        self.outputs.push_back(Output::CancelAsk { request, listen });
        self.stats.cancelled += 1;
        if suspect {
            self.blame(now, &pending.contact);
        }
        if !matches!(pending.purpose, Purpose::Change(_)) {
            self.note_dropped(request, pending);
        }
    }

    pub(super) fn on_answered(
        &mut self,
        now: Now,
        request: RequestId,
        rtt: Duration,
        remote: IpAddr,
        answer: &Answer,
    ) {
        let Some(pending) = self.requests.remove(request) else {
            return self.late_answer(now, request, rtt, remote, answer);
        };
        self.stats.answered += 1;
        // Whoever was asked to wait says nothing of the way by when it answers.
        let measured = (!matches!(pending.purpose, Purpose::Change(_))).then_some(rtt);
        self.credit(now, &pending, measured, remote, answer);
        self.learn(now, remote, answer);
        match pending.purpose {
            Purpose::Walk(operation) => self.walk_answered(now, operation, request, rtt, remote, answer),
            Purpose::Store(operation) => self.store_answered(now, operation, request, answer),
            Purpose::Records(matter) => self.matter_ended(now, matter, Ok(answer)),
            Purpose::Change(operation) => self.change_answered(now, operation, request, remote, answer),
            Purpose::Probe | Purpose::Notice => {}
        }
    }

    pub(super) fn on_failed(&mut self, now: Now, request: RequestId, why: Failure) {
        let Some(pending) = self.requests.remove(request) else {
            return self.late_failure(request);
        };
        self.stats.failed += 1;
        let key = pending.contact.key();
        match why {
            Failure::Local => self.table.unprobe(key),
            Failure::Unsupported => self.table.remove(key),
            // A connection that was lent for a question may be needed for another one.
            Failure::Refused if matches!(pending.purpose, Purpose::Change(_)) => {}
            Failure::Refused | Failure::Unreachable | Failure::Timeout | Failure::Broken => {
                if pending.purpose == Purpose::Probe && self.table.get(key).is_none() {
                    self.requests.failed.put(*key, now.mono);
                }
                self.blame(now, &pending.contact);
            }
        }
        match pending.purpose {
            Purpose::Walk(operation) => self.walk_failed(now, operation, request, why),
            Purpose::Store(operation) => self.store_failed(now, operation, request, why),
            Purpose::Records(matter) => self.matter_ended(now, matter, Err(why)),
            Purpose::Change(operation) => self.change_failed(now, operation, request, why),
            Purpose::Probe | Purpose::Notice => {}
        }
    }

    /// Gives up those that have taken too long.
    pub(super) fn expire_requests(&mut self, now: Now) {
        while let Some((deadline, request)) = self.requests.deadlines.first().copied() {
            if deadline > now.mono {
                break;
            }
            self.outputs.push_back(Output::CancelAsk { request, listen: Duration::ZERO });
            self.on_failed(now, request, Failure::Timeout);
        }
    }

    /// A peer has answered: it is alive, and when it was reached at an address of its own and serves, it may stand in the table.
    /// `rtt` is missing where the peer took its time as it was asked to.
    pub(super) fn credit(
        &mut self,
        now: Now,
        pending: &Pending,
        rtt: Option<Duration>,
        remote: IpAddr,
        answer: &Answer,
    ) {
        let contact = self.links.get(pending.contact.key()).unwrap_or(&pending.contact).clone();
        self.seen.note(now, contact.key());
        if let Some(rtt) = rtt.filter(|rtt| *rtt <= self.config.lookup.soft_most) {
            self.round_trips.add(rtt);
        }
        for change in self.outages.answered(now, contact.key(), Family::of(remote)) {
            self.outage(now, change);
        }
        let serves = self.links.serves(contact.key()) != Some(false);
        if pending.proves && serves && is_plausible(answer) && contact.is_at(remote) {
            let before = self.table.is_empty();
            self.table.verified(now, &contact, Subnet::of(remote));
            if before {
                self.first_peer(now);
            }
        }
        self.table.answered(now, contact.key(), rtt, answer.extended);
    }

    fn blame(&mut self, now: Now, contact: &Contact) {
        let family = contact.only_family();
        // Whoever failed before and has not answered since says nothing new of our network: a few dead peers, asked again and again, would make it look cut off. Nor does anybody of
        // whom we were only told: a liar names as many dead ones as it likes.
        let entry = self.table.get(contact.key());
        if entry.map_or(self.links.is_connected(contact.key()), |entry| entry.failures == 0) {
            for change in self.outages.failed(now, contact.key(), family) {
                self.outage(now, change);
            }
        }
        self.table.freeze(self.outages.excuses(family));
        self.table.failed(now, contact.key());
        self.table.freeze(self.outages.is_suspected());
    }

    fn outage(&mut self, now: Now, change: Change) {
        let event = match change {
            Change::Suspected(family) => Event::OutageSuspected { family },
            Change::Over(family) => {
                let since = self.outages.doubtful_since(family);
                self.table.pardon(now, since.as_secs().min(u64::from(u32::MAX)) as u32);
                self.upkeep.hasten(now);
                Event::OutageOver { family }
            }
        };
        self.table.freeze(self.outages.is_suspected());
        self.outputs.push_back(Output::Event(event));
    }
}

/// An answer to FIND_NODE that can be right: it went well, and names nobody twice.
fn is_plausible(answer: &Answer) -> bool {
    let twice =
        |at: usize, contact: &Contact| answer.closer[..at].iter().any(|other| other.key() == contact.key());
    matches!(answer.status, Status::Ok | Status::Stale)
        && !answer.closer.iter().enumerate().any(|(at, contact)| twice(at, contact))
}
