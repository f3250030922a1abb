//! Visits: connections for a while, to peers that something asks which asks many, such as a lookup in the DHT.
//!
//! A visit is asked for with the addresses that came with the peer's name. They are hearsay: only credible ones are tried, behind those that the book has, within the budgets that
//! hold for addresses which nobody has proved. So nobody can make this node dial a third party by naming it in an answer. Beside that, visits
//! have dial slots and a rate of their own: lookups take nothing from the dials that keep the node in the overlay, and find some whatever else is dialled.
//!
//! What becomes of a visit once it is there stands in [`crate::visit_places`].

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_machine::{Now, Recent, TokenBucket};

use crate::allow::not_allowed;
use crate::backoff;
use crate::cause::{Blame, Cause, Failure, Fault, RejectReason};
use crate::config::PeersConfig;
use crate::dial_queue::Target;
use crate::dialling::{MAX_ROUTES, ip_of};
use crate::journal::span;
use crate::manager::{Attempt, PeerManager};
use crate::types::{Course, Route, Ticket};

/// Addresses given with visits at which nobody was found, and that are remembered for their backoff.
pub(crate) const MAX_FAILED: usize = 1024;
/// How long a visit waits for dials under way near its addresses.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Visits that are to be begun, and what is remembered of them.
#[derive(Debug)]
pub(crate) struct Visits {
    /// In the order in which they were asked for. One entry for each peer.
    waiting: VecDeque<Waiting>,
    budget: TokenBucket,
    /// When the budget allows the next dial.
    resume: Duration,
    /// How often each address that is not in the book failed, and when it may be tried again, as [`Now::mono`].
    failed: Recent<(PeerId, DialAddress), (u32, Duration)>,
    /// Peers that the user waits for while hellos are under way: whoever dialled, it is no visit.
    pub(crate) wanted: BTreeSet<PeerId>,
    /// When the first visit of ours may have been idle for too long. Never later than that.
    pub(crate) timer: Option<Duration>,
}

/// Somebody who is to be visited.
#[derive(Debug)]
struct Waiting {
    peer: PeerId,
    tickets: Vec<Ticket>,
    /// Where third parties say that it is, and from where they were reached.
    given: Vec<(DialAddress, Option<AddressScope>)>,
    since: Duration,
    /// Not dialled before this time: enough dials went to its addresses lately.
    due: Duration,
}

impl Visits {
    pub(crate) fn new(config: &PeersConfig) -> Self {
        Self {
            waiting: VecDeque::new(),
            budget: TokenBucket::new(config.visit_burst, config.visits_per_second, Now::ZERO),
            resume: Duration::ZERO,
            failed: Recent::new(MAX_FAILED),
            wanted: BTreeSet::new(),
            timer: None,
        }
    }

    /// How many wait for a dial.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.tickets.len()).sum()
    }

    /// A dial is begun.
    pub(crate) fn spend(&mut self, now: Now) {
        self.budget.take(1.0, now);
    }

    /// A dial has ended: what waited because of it may go.
    pub(crate) fn dial_ended(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.due = Duration::ZERO);
    }

    /// Nothing is begun any more.
    pub(crate) fn give_up(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.waiting).into_iter().flat_map(|waiting| waiting.tickets).collect()
    }
}

impl PeerManager {
    /// Something wants to ask a peer.
    pub(crate) fn visit(
        &mut self,
        now: Now,
        ticket: Ticket,
        peer: PeerId,
        addresses: &[DialAddress],
        told_from: Option<AddressScope>,
    ) {
        self.forget_own(now);
        let Some(ticket) = self.join(now, vec![ticket], peer).pop() else { return };
        let mut given: Vec<_> = addresses
            .iter()
            .filter(|address| self.is_visitable(&peer, address, told_from))
            .map(|address| (address.clone().without_peer_id(), told_from))
            .collect();
        given.truncate(MAX_ROUTES);
        if let Some(waiting) = self.visits.waiting.iter_mut().find(|waiting| waiting.peer == peer) {
            waiting.tickets.push(ticket);
            let room = (2 * MAX_ROUTES).saturating_sub(waiting.given.len());
            given.retain(|(address, _)| !waiting.given.iter().any(|(known, _)| known == address));
            waiting.given.extend(given.into_iter().take(room));
            return;
        }
        let refused = match self.may_visit(now, &peer) {
            Ok(()) if self.visits.waiting() >= self.config.max_waiting_visits => {
                Some(Failure::from(Fault::TooManyVisits))
            }
            Ok(()) => self.routes_of_visit(now, &peer, &given).err().map(|failure| match failure.fault {
                Fault::NoAddress if !addresses.is_empty() => Failure::from(Fault::OutOfScope),
                _ => failure,
            }),
            Err(failure) => Some(failure),
        };
        match refused {
            Some(failure) => self.resolve(vec![ticket], &Err(failure)),
            None => {
                let (tickets, since, due) = (vec![ticket], now.mono, Duration::ZERO);
                self.visits.waiting.push_back(Waiting { peer, tickets, given, since, due });
            }
        }
    }

    /// Nobody waits for these visits any more. A dial that is under way goes on.
    pub(crate) fn cancel_visits(&mut self, tickets: &[Ticket]) {
        for waiting in &mut self.visits.waiting {
            waiting.tickets.retain(|ticket| !tickets.contains(ticket));
        }
        self.visits.waiting.retain(|waiting| !waiting.tickets.is_empty());
    }

    /// Begins visits while slots are free and the budget lasts.
    pub(crate) fn start_visits(&mut self, now: Now) {
        while self.dials_under_way(true) < self.config.max_parallel_visits {
            let Some(index) = self.visits.waiting.iter().position(|waiting| waiting.due <= now.mono) else {
                return;
            };
            let wait = self.visits.budget.wait_for(1.0, now).unwrap_or(Duration::from_secs(3600));
            self.visits.resume = now.mono + wait;
            if !wait.is_zero() {
                return;
            }
            if let Some(waiting) = self.visits.waiting.remove(index) {
                self.start_visit(now, waiting);
            }
        }
    }

    /// When [`PeerManager::start_visits`] is next needed.
    pub(crate) fn next_visit(&self) -> Option<Duration> {
        let due = self.visits.waiting.iter().map(|waiting| waiting.due).min()?;
        let slots = self.dials_under_way(true) < self.config.max_parallel_visits;
        slots.then_some(due.max(self.visits.resume))
    }

    /// How many dials are under way, visits or others.
    pub(crate) fn dials_under_way(&self, visits: bool) -> usize {
        self.attempts.values().filter(|attempt| attempt.visit == visits).count()
    }

    /// A dial for a visit came to nothing. Addresses that were given with it are remembered here: the book doesn't hold them.
    pub(crate) fn charge_given(&mut self, now: Now, peer: PeerId, attempt: &Attempt) {
        for (route, course) in attempt.routes.iter().zip(&attempt.courses) {
            let Course::Failed(failure) = course else { continue };
            if failure.blame() == Blame::Local || self.is_in_book(&peer, &route.address) {
                continue;
            }
            let key = (peer, route.address.clone());
            let failures = self.visits.failed.get(&key).map_or(0, |(failures, _)| *failures);
            let (base, ceiling) = (self.config.backoff_base, self.config.backoff_ceiling);
            let wait = backoff::delay(base, ceiling, failures, &mut self.random);
            self.visits.failed.put(key, (failures.saturating_add(1), now.mono + wait));
        }
    }

    /// Whether neither the user nor the book vouches for an address of a dial: then its failure says nothing of the peer, as anybody may give us such addresses.
    pub(crate) fn is_hearsay(&self, peer: &PeerId, attempt: &Attempt) -> bool {
        attempt.routes.iter().all(|route| route.unproved && !self.is_in_book(peer, &route.address))
    }

    /// A peer has no room for a visit. For other connections it may have some, and the other way round.
    pub(crate) fn put_off_visits(&mut self, peer: PeerId) {
        if let Some(mut known) = self.book.get_mut(&peer) {
            known.visit_after = known.retry_at;
        }
    }

    fn is_in_book(&self, peer: &PeerId, address: &DialAddress) -> bool {
        let known = self.book.get(peer);
        known.is_some_and(|known| known.addresses.iter().any(|at| at.address.same_endpoint(address)))
    }

    /// Who waits for a peer's handshake, which has ended.
    pub(crate) fn take_waiting(&mut self, peer: &PeerId) -> Option<Vec<Ticket>> {
        self.visits.wanted.remove(peer);
        self.waiting.remove(peer)
    }

    /// Leaves tickets to what is there already: a connection, a handshake, a dial. What is left of them waits for a dial of its own.
    fn join(&mut self, now: Now, mut tickets: Vec<Ticket>, peer: PeerId) -> Vec<Ticket> {
        if self.admitted(&peer).is_some() {
            self.used(now, peer);
            self.resolve(std::mem::take(&mut tickets), &Ok(peer));
        } else if self.is_linked(&peer) {
            self.waiting.entry(peer).or_default().append(&mut tickets);
        } else if let Some(attempt) = self.attempts.values_mut().find(|dial| dial.peer() == Some(peer)) {
            attempt.tickets.append(&mut tickets);
        }
        tickets
    }

    /// What speaks against a visit, whatever its addresses.
    fn may_visit(&self, now: Now, peer: &PeerId) -> Result<(), Failure> {
        if *peer == self.me {
            let fault = Fault::RefusedByUs(RejectReason::SelfDial);
            return Err(Failure::new(fault, format!("{peer} is this node itself")));
        }
        if !self.is_allowed(peer) {
            return Err(not_allowed(*peer));
        }
        if let Some(ban) = self.ban_on(peer, None) {
            return Err(Failure::new(
                Fault::Banned,
                format!("{} is banned here ({})", ban.target, ban.reason),
            ));
        }
        if self.shutting_down {
            return Err(Failure::from(Fault::ThisNodeCloses));
        }
        if self.config.max_outbound_visits == 0 || self.config.max_parallel_visits == 0 {
            return Err(Failure::new(Fault::TooManyVisits, "the limits of this node allow no visits"));
        }
        let Some(known) = self.book.get(peer) else { return Ok(()) };
        if known.held {
            return Err(Failure::new(Fault::Disconnected, format!("the user wants no connection to {peer}")));
        }
        let backs_off = known.failures > 0 || known.local_failures > 0;
        let after = if backs_off { known.retry_at.max(known.visit_after) } else { known.visit_after };
        match after.saturating_sub(now.unix).min(self.config.backoff_ceiling) {
            Duration::ZERO => Ok(()),
            wait => Err(too_soon(*peer, wait)),
        }
    }

    /// Whether an address that came with a visit may be dialled at all.
    pub(crate) fn is_visitable(
        &self,
        peer: &PeerId,
        address: &DialAddress,
        told_from: Option<AddressScope>,
    ) -> bool {
        let same_peer = address.peer_id().is_none_or(|named| named == *peer);
        let here = self.book.own.contains_key(&address.clone().without_peer_id());
        let scope = ip_of(address).map(AddressScope::of);
        let credible = match (scope, told_from) {
            (Some(scope), Some(teller)) => scope.is_credible_from(teller),
            _ => true,
        };
        same_peer && !here && credible
    }

    /// Where a visit may be tried, the best first: what the book has, proved addresses before others, then what was given.
    fn routes_of_visit(
        &self,
        now: Now,
        peer: &PeerId,
        given: &[(DialAddress, Option<AddressScope>)],
    ) -> Result<Vec<Route>, Failure> {
        let mut routes = self.all_routes_to(peer);
        routes.sort_by_key(|route| route.unproved);
        let (mut soonest, mut banned) = (None::<Duration>, self.ban_on_all(peer));
        for (address, told_from) in given {
            if routes.iter().any(|route| route.address.same_endpoint(address)) {
                continue;
            }
            if let Some(ban) = self.ban_on(peer, ip_of(address)) {
                banned = Some(ban);
                continue;
            }
            let failed = self.visits.failed.get(&(*peer, address.clone()));
            let wait = failed.map_or(Duration::ZERO, |(_, until)| until.saturating_sub(now.mono));
            if !wait.is_zero() {
                soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
                continue;
            }
            routes.push(Route { address: address.clone(), told_from: *told_from, unproved: true });
        }
        if !routes.is_empty() {
            return Ok(routes);
        }
        Err(match (soonest, banned) {
            (Some(wait), _) => too_soon(*peer, wait),
            (None, Some(ban)) => {
                Failure::new(Fault::Banned, format!("{} is banned here ({})", ban.target, ban.reason))
            }
            (None, None) => Failure::new(Fault::NoAddress, format!("no address of {peer} is known")),
        })
    }

    fn start_visit(&mut self, now: Now, mut waiting: Waiting) {
        let peer = waiting.peer;
        waiting.tickets = self.join(now, waiting.tickets, peer);
        if waiting.tickets.is_empty() {
            return;
        }
        let routes =
            self.may_visit(now, &peer).and_then(|()| self.routes_of_visit(now, &peer, &waiting.given));
        let routes = match routes {
            Ok(routes) => routes,
            Err(failure) => return self.resolve(waiting.tickets, &Err(failure)),
        };
        match self.affordable(now, routes) {
            Ok(routes) => {
                self.dequeue(&peer);
                let target = Target::Peer(peer);
                let dial = Attempt {
                    tickets: waiting.tickets,
                    visit: true,
                    counted: true,
                    budgeted: true,
                    ..Attempt::new(target, routes)
                };
                self.dial(now, dial, Cause::VisitAsked);
            }
            // A dial under way may find its peer there and give back what it took.
            Err(Some((wait, _)))
                if wait <= self.config.backoff_base && now.mono.saturating_sub(waiting.since) < PATIENCE =>
            {
                waiting.due = now.mono + wait;
                self.visits.waiting.push_back(waiting);
            }
            Err(put_off) => {
                let (retry_after, at) = put_off.unzip();
                let at = at.map(|at| format!(" at {at} or near it")).unwrap_or_default();
                let failure = Failure {
                    fault: Fault::TooManyDials,
                    detail: format!("{peer} is not dialled{at}: enough dials went there lately"),
                    retry_after,
                };
                self.resolve(waiting.tickets, &Err(failure));
            }
        }
    }
}

fn too_soon(peer: PeerId, wait: Duration) -> Failure {
    Failure {
        fault: Fault::VisitTooSoon,
        detail: format!("{peer} failed lately: it may be visited again in {}", span(wait)),
        retry_after: Some(wait),
    }
}

#[cfg(test)]
mod tests {
    use peerage_machine::{Machine, Random};

    use super::*;
    use crate::numbered::peer;
    use crate::types::{AttemptId, Input, Output};

    /// A manager with nothing to do, and what it was asked and has answered.
    struct Asked {
        manager: PeerManager,
        now: Now,
        dials: Vec<AttemptId>,
        failed: Vec<(Ticket, Failure)>,
    }

    impl Asked {
        fn new() -> Self {
            let config = PeersConfig { visit_burst: 10_000.0, ..PeersConfig::default() };
            let manager = PeerManager::new(config, peer(0), 1, Random::from_number(1));
            Self { manager, now: Now::ZERO, dials: Vec::new(), failed: Vec::new() }
        }

        fn give(&mut self, input: Input) {
            self.manager.handle(self.now, input);
            self.carry_out();
        }

        fn visit(&mut self, number: u64, at: &str) {
            let (ticket, peer, addresses) = (Ticket(number), peer(number), vec![at.parse().unwrap()]);
            self.give(Input::Visit { ticket, peer, addresses, told_from: None });
        }

        fn pass(&mut self, time: Duration) {
            let end = self.now.after(time);
            while let Some(due) = self.manager.poll_timeout().filter(|due| *due <= end.mono) {
                self.now = self.now.after(due.saturating_sub(self.now.mono));
                self.manager.handle_timeout(self.now);
                self.carry_out();
            }
            self.now = end;
        }

        fn carry_out(&mut self) {
            while let Some(output) = self.manager.poll_output() {
                match output {
                    Output::Dial { attempt, .. } => self.dials.push(attempt),
                    Output::Connected { ticket, result: Err(failure) } => self.failed.push((ticket, failure)),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn no_more_failed_addresses_are_remembered_than_the_bound() {
        let mut asked = Asked::new();
        for number in 1..MAX_FAILED as u64 + 100 {
            asked.visit(number, &format!("/ip4/127.0.0.1/udp/{number}/quic-v1"));
            let attempt = asked.dials.pop().expect("a dial");
            asked.give(Input::DialFailed { attempt, failure: Failure::from(Fault::Timeout) });
            assert!(asked.manager.visits.failed.len() <= MAX_FAILED);
        }
        assert_eq!(asked.manager.visits.failed.len(), MAX_FAILED);
        assert_eq!(asked.manager.known_peers(), 0, "the book holds nothing of it");
    }

    #[test]
    fn a_visit_waits_for_a_dial_near_its_address_only_so_long() {
        let mut asked = Asked::new();
        asked.visit(1, "/ip4/60.0.0.1/udp/1/quic-v1");
        asked.visit(2, "/ip4/60.0.0.1/udp/2/quic-v1");
        assert_eq!(asked.dials.len(), 1, "where nobody was found yet, one dial goes at a time");
        asked.pass(PATIENCE - Duration::from_secs(1));
        assert_eq!(asked.failed, []);
        asked.pass(Duration::from_secs(2));
        assert_eq!(
            asked.failed.iter().map(|(ticket, failure)| (*ticket, failure.fault)).collect::<Vec<_>>(),
            [(Ticket(2), Fault::TooManyDials)]
        );
    }
}
