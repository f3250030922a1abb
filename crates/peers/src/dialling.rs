//! When to dial whom, and what a failed dial means for the next one.
//!
//! Three queues, each ordered by due time, hold whoever may be dialled: persistent peers, seeds, and all others. A target stands in one
//! of them once. Nothing is polled: the next due time is one timer, and a queue that may not be served has none.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peerage_identity::{DialAddress, PeerId};
use peerage_machine::Now;

use crate::backoff;
use crate::bans::Ban;
use crate::cause::{Blame, Cause, Failure, Fault, RejectReason};
use crate::dial_queue::{DialQueue, Target};
use crate::manager::{Attempt, ConnState, PeerManager};
use crate::types::{AttemptId, ConnId, Course, Direction, Output, PeerEvent, Route};

/// Addresses that one dial of a peer tries.
pub(crate) const MAX_ROUTES: usize = 4;

impl PeerManager {
    /// Starts dials while slots are free and targets are due.
    pub(crate) fn fill(&mut self, now: Now) {
        while !self.shutting_down && self.dials_under_way(false) < self.config.max_parallel_dials {
            if let Some(conn) = self.stranded.pop_front() {
                self.start_instead_of(now, conn);
            } else if let Some(explicit) = self.explicit.pop_front() {
                self.start_explicit(now, explicit);
            } else if let Some((target, counted, cause)) = self.pop_due(now) {
                self.start(now, target, counted, cause);
            } else {
                break;
            }
        }
        self.start_visits(now);
    }

    /// When [`PeerManager::fill`] is next needed for other dials than those of visits.
    pub(crate) fn next_dial(&self) -> Option<Duration> {
        if self.dials_under_way(false) >= self.config.max_parallel_dials {
            return None;
        }
        let used = self.outbound_used();
        let places = used < self.config.max_outbound;
        let seeds = if places && self.seeds_wanted() { self.seeds.queue.next_due() } else { None };
        let replacing = used < self.config.max_outbound + self.rotation.open;
        let others = if places || replacing { self.candidates.next_due() } else { None };
        let due = [self.persistent.next_due(), seeds, others].into_iter().flatten().min();
        due.map(|due| due.max(self.dials_resume))
    }

    /// Puts a peer into its queue, unless it needs none.
    pub(crate) fn enqueue(&mut self, peer: PeerId, due: Duration) {
        let under_way = self.attempts.values().any(|attempt| attempt.target == Target::Peer(peer));
        let banned = self.ban_on(&peer, None).is_some();
        let wanted = peer != self.me && !under_way && !banned && self.is_allowed(&peer);
        // A peer that we only visit is dialled in its turn: the visit becomes that connection.
        let kept = self.is_linked(&peer) && self.our_visit(&peer).is_none();
        if self.shutting_down || !wanted || kept {
            return;
        }
        let Some(known) = self.book.get(&peer) else { return };
        if known.held || known.addresses.is_empty() || self.ban_on(&peer, None).is_some() {
            return;
        }
        let seed = known.seed;
        let persistent = self.is_persistent(&peer);
        let queue = match (persistent, seed) {
            (true, _) => &mut self.persistent,
            (false, true) => &mut self.seeds.queue,
            (false, false) => &mut self.candidates,
        };
        queue.set(Target::Peer(peer), due);
    }

    /// Puts a peer that stands in no queue back into its own, due after `wait`, or later while its backoff still runs.
    pub(crate) fn requeue(&mut self, now: Now, peer: PeerId, wait: Duration) {
        if self.due(&peer).is_some() {
            return;
        }
        let backoff = self.book.get(&peer).map(|known| known.retry_at.saturating_sub(now.unix));
        // The date may have been set back: nobody waits longer than the longest pause that is ever drawn.
        let longest = self.config.rotation_interval.max(self.config.backoff_ceiling * 2);
        self.enqueue(peer, now.mono + wait.max(backoff.unwrap_or_default().min(longest)));
    }

    /// Takes a peer out of whichever queue it stands in.
    pub(crate) fn dequeue(&mut self, peer: &PeerId) {
        let target = Target::Peer(*peer);
        self.queues_mut().into_iter().for_each(|queue| queue.remove(&target));
    }

    /// When a peer is due, if it is queued.
    pub(crate) fn due(&self, peer: &PeerId) -> Option<Duration> {
        let target = Target::Peer(*peer);
        [&self.persistent, &self.seeds.queue, &self.candidates]
            .into_iter()
            .find_map(|queue| queue.due(&target))
    }

    /// Whether a due peer waits because no place or dial slot is free.
    pub(crate) fn is_short_of_places(&self, peer: &PeerId) -> bool {
        let no_slot = self.dials_under_way(false) >= self.config.max_parallel_dials;
        let no_place = self.outbound_used() >= self.config.max_outbound && !self.is_persistent(peer);
        let not_wanted = self.book.get(peer).is_some_and(|known| known.seed) && !self.seeds_wanted();
        no_slot || no_place || not_wanted
    }

    /// A dial came to nothing.
    pub(crate) fn dial_failed(&mut self, now: Now, attempt: AttemptId, failure: Failure) {
        let Some(mut attempt) = self.attempts.remove(&attempt) else { return };
        attempt.courses_of(|_| Course::Failed(failure.clone()));
        let Some(address) = attempt.failed_most() else { return };
        self.visits.dial_ended();
        let (peer, retry_in) = match &attempt.target {
            Target::Peer(peer) if self.is_hearsay(peer, &attempt) => {
                self.charge_given(now, *peer, &attempt);
                self.charge_routes(now, *peer, &attempt);
                self.requeue(now, *peer, Duration::ZERO);
                (Some(*peer), None)
            }
            Target::Peer(peer) => {
                self.charge_given(now, *peer, &attempt);
                self.charge_routes(now, *peer, &attempt);
                let retry_in = self.charge(now, *peer, None, &failure);
                if attempt.visit && failure.blame() == Blame::Overloaded {
                    self.put_off_visits(*peer);
                }
                self.seed_lost(now, *peer, &failure, retry_in);
                (Some(*peer), retry_in)
            }
            Target::Address(_) => (address.peer_id(), self.charge_address(now, &address, &failure)),
        };
        if let Some(peer) = peer {
            self.note_failure(now, peer, &failure);
        }
        let cause = failure.detail.clone();
        self.event(PeerEvent::DialFailed { address, peer, cause, fault: failure.fault, retry_in });
        self.resolve(attempt.tickets, &Err(failure));
    }

    /// What became of each address of a dial is known.
    pub(crate) fn raced(&mut self, attempt: AttemptId, courses: Vec<Course>) {
        if let Some(attempt) = self.attempts.get_mut(&attempt) {
            attempt.courses = courses;
        }
    }

    /// Charges each address of a dial for itself, and gives back the budget of those that were not tried or were right.
    pub(crate) fn charge_routes(&mut self, now: Now, peer: PeerId, attempt: &Attempt) {
        for (route, course) in attempt.routes.iter().zip(&attempt.courses) {
            let sent = match course {
                Course::Failed(failure) => {
                    self.charge_address_of(peer, &route.address, failure);
                    failure.fault != Fault::NoSocket
                }
                Course::Cancelled => true,
                Course::NotBegun | Course::Reached => false,
            };
            if attempt.budgeted && route.unproved && !sent {
                self.budget.give_back(now, &route.address, *course == Course::Reached);
            }
        }
    }

    /// Charges a failure to whom it belongs, and queues the peer again. How long until then, if it is queued.
    pub(crate) fn charge(
        &mut self,
        now: Now,
        peer: PeerId,
        address: Option<&DialAddress>,
        failure: &Failure,
    ) -> Option<Duration> {
        if let Some(address) = address {
            self.charge_address_of(peer, address, failure);
        }
        let wait = self.wait_after(peer, failure)?;
        self.redial_in(now, peer, wait)
    }

    fn charge_address_of(&mut self, peer: PeerId, address: &DialAddress, failure: &Failure) {
        match failure.blame() {
            Blame::Local => self.book.skipped(&peer, address),
            Blame::Overloaded => {}
            blame @ (Blame::Unlucky | Blame::Hostile) => {
                let hostile = blame == Blame::Hostile;
                self.book.failed(&peer, address, hostile, self.config.max_hearsay_failures);
            }
        }
    }

    /// Counts a failure against the peer, or against ourselves, and draws the time until the next dial.
    pub(crate) fn wait_after(&mut self, peer: PeerId, failure: &Failure) -> Option<Duration> {
        let base = self.config.backoff_base;
        let mut known = self.book.get_mut(&peer)?;
        let wait = match failure.blame() {
            Blame::Local => {
                known.local_failures = known.local_failures.saturating_add(1);
                let ceiling = self.config.local_backoff_ceiling;
                backoff::delay(base, ceiling, known.local_failures - 1, &mut self.random)
            }
            Blame::Overloaded => {
                // However soon it wants us back: the pause doubles each time.
                let times = 1u32.checked_shl(known.overloads).unwrap_or(u32::MAX);
                let pause = self.config.overload_pause.saturating_mul(times).min(self.config.backoff_ceiling);
                known.overloads = known.overloads.saturating_add(1);
                // Who tells a time spreads it; a second on top serves those who don't.
                let told = failure.retry_after.filter(|told| *told >= pause);
                let (asked, more) = told.map_or((pause, pause), |told| (told, base));
                // Without its seed, which may have many to care for, a node may have nobody.
                let is_full =
                    matches!(failure.fault, Fault::Refused | Fault::RefusedByPeer(RejectReason::Full));
                let ceiling = match known.seed && is_full {
                    true => self.config.seed_backoff_ceiling,
                    false => self.config.backoff_ceiling,
                };
                // Those who were told a longer time don't come back at one time either.
                let ceiling = ceiling.mul_f64(0.5 + self.random.unit() / 2.0);
                (asked + self.random.up_to(more)).min(ceiling)
            }
            Blame::Unlucky | Blame::Hostile => {
                known.failures = known.failures.saturating_add(1);
                let (seed, failures) = (known.seed, known.failures - 1);
                let ceiling = match seed && failure.blame() == Blame::Unlucky {
                    true => self.config.seed_backoff_ceiling,
                    false => self.config.backoff_ceiling,
                };
                let wait = backoff::delay(base, ceiling, failures, &mut self.random);
                wait.max(failure.retry_after.unwrap_or_default().min(ceiling))
            }
        };
        Some(wait)
    }

    /// Queues a peer to be dialled after `wait`. How long until it is due, if it was queued.
    pub(crate) fn redial_in(&mut self, now: Now, peer: PeerId, wait: Duration) -> Option<Duration> {
        self.book.get_mut(&peer)?.retry_at = now.unix + wait;
        self.enqueue(peer, now.mono + wait);
        self.due(&peer).map(|due| due.saturating_sub(now.mono))
    }

    /// A contact whose peer is not known is tried again; the address of an explicit connect is not.
    fn charge_address(&mut self, now: Now, address: &DialAddress, failure: &Failure) -> Option<Duration> {
        if self.seeds.has(address) {
            return self.charge_seed(now, address, failure);
        }
        if failure.blame() == Blame::Hostile {
            self.address_failures.remove(address);
        }
        let failures = self.address_failures.get_mut(address)?;
        let ceiling = self.config.backoff_ceiling;
        let wait = backoff::delay(self.config.backoff_base, ceiling, *failures, &mut self.random);
        if failure.blame() != Blame::Local {
            *failures = failures.saturating_add(1);
        }
        self.candidates.set(Target::Address(address.clone()), now.mono + wait);
        Some(wait)
    }

    /// The next target that is due and may be dialled, whether it takes an outbound place, and why it is dialled.
    fn pop_due(&mut self, now: Now) -> Option<(Target, bool, Cause)> {
        let wait = self.budget.wait(now);
        self.dials_resume = now.mono + wait;
        if !wait.is_zero() {
            return None;
        }
        if let Some(target) = self.persistent.pop_due(now.mono) {
            return Some((target, false, Cause::Due));
        }
        let used = self.outbound_used();
        if used < self.config.max_outbound {
            let earlier = |a: &DialQueue, b: &DialQueue| {
                a.next_due().is_some_and(|a| b.next_due().is_none_or(|b| a <= b))
            };
            let seed = self.seeds_wanted() && earlier(&self.seeds.queue, &self.candidates);
            let queue = if seed { &mut self.seeds.queue } else { &mut self.candidates };
            return Some((queue.pop_due(now.mono)?, true, Cause::Due));
        }
        if used < self.config.max_outbound + self.rotation.open {
            return Some((self.candidates.pop_due(now.mono)?, true, Cause::Replacement));
        }
        None
    }

    /// Our address on a connection went away. One that we dialled moves by itself, and one that is a visit is the visitor's to renew.
    pub(crate) fn local_address_changed(&mut self, id: ConnId) {
        let visits = self.conns.get(&id).is_some_and(|conn| conn.visit);
        if !visits && self.is_admitted_inbound(id) && !self.stranded.contains(&id) {
            self.stranded.push_back(id);
        }
    }

    /// Dials the peer of a connection that is to be replaced, where an address of it is known.
    fn start_instead_of(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get(&id).filter(|_| self.is_admitted_inbound(id)) else { return };
        let (peer, place) = (conn.peer, conn.place);
        if self.attempts.values().any(|attempt| attempt.peer() == Some(peer)) {
            return;
        }
        let routes = self.routes_to(&peer);
        if !routes.is_empty() {
            // It stands for a connection that has its place already: nobody has to make room for it.
            let dial = Attempt { place, instead_of: Some(id), ..Attempt::new(Target::Peer(peer), routes) };
            self.dial(now, dial, Cause::Moved);
        }
    }

    fn is_admitted_inbound(&self, id: ConnId) -> bool {
        let fits = |state| matches!(state, ConnState::Admitted | ConnState::Foreign);
        self.conns.get(&id).is_some_and(|conn| conn.direction == Direction::Inbound && fits(conn.state))
    }

    fn start(&mut self, now: Now, target: Target, counted: bool, cause: Cause) {
        if let Target::Peer(peer) = &target
            && self.keep(now, *peer, counted, "its turn in the dial queue came")
        {
            return;
        }
        let (routes, budgeted) = match &target {
            Target::Address(address) if self.seeds.has(address) => {
                if self.seed_is_linked(address) {
                    return;
                }
                (vec![Route::named(address)], false)
            }
            Target::Address(address) => {
                self.address_failures.entry(address.clone()).or_default();
                (vec![Route::named(address)], false)
            }
            Target::Peer(peer) => (self.routes_now(now, *peer), true),
        };
        if !routes.is_empty() {
            let dial = Attempt { counted, budgeted, ..Attempt::new(target, routes) };
            self.dial(now, dial, cause);
        }
    }

    /// The addresses at which to dial a peer that is due, of those that nobody has proved only what their budget allows. None when it needs no dial, has no
    /// address, or must wait once more because enough dials went there lately.
    fn routes_now(&mut self, now: Now, peer: PeerId) -> Vec<Route> {
        if self.is_linked(&peer) || self.attempts.values().any(|attempt| attempt.peer() == Some(peer)) {
            return Vec::new();
        }
        let put_off = match self.affordable(now, self.all_routes_to(&peer)) {
            Ok(routes) => return routes,
            Err(put_off) => put_off,
        };
        let Some((wait, address)) = put_off else {
            if let Some(ban) = self.ban_on_all(&peer) {
                let failure = Failure::new(Fault::Banned, ban.reason.clone());
                self.note_failure(now, peer, &failure);
            } else if self.book.get(&peer).is_some() {
                self.note_failure(now, peer, &Failure::from(Fault::NoAddress));
            }
            return Vec::new();
        };
        // Many may wait for the same budget: they don't all come back at the moment when one of them may go.
        let wait = wait + self.random.up_to(wait);
        self.enqueue(peer, now.mono + wait);
        self.note(now, peer, Cause::DialBudget, &format!("at {address} or near it"));
        Vec::new()
    }

    /// Of some routes those that one dial tries, the budgets of which are charged; or the one that must wait least, if there is any.
    pub(crate) fn affordable(
        &mut self,
        now: Now,
        all: Vec<Route>,
    ) -> Result<Vec<Route>, Option<(Duration, DialAddress)>> {
        let (mut routes, mut put_off) = (Vec::new(), None::<(Duration, DialAddress)>);
        for route in all {
            if routes.len() == MAX_ROUTES {
                break;
            }
            match self.spend_on(now, &route.address, route.unproved) {
                Ok(()) => routes.push(route),
                Err(wait) if put_off.as_ref().is_none_or(|(least, _)| wait < *least) => {
                    put_off = Some((wait, route.address));
                }
                Err(_) => {}
            }
        }
        if routes.is_empty() { Err(put_off) } else { Ok(routes) }
    }

    /// Takes a dial from the budget of an address that nobody has proved; or says how long to wait.
    fn spend_on(&mut self, now: Now, address: &DialAddress, unproved: bool) -> Result<(), Duration> {
        if !unproved {
            return Ok(());
        }
        self.budget.take(now, address).map_err(|wait| {
            // A dial under way there may find its peer, and give back what it took.
            let shares = |route: &Route| route.unproved && self.budget.share(&route.address, address);
            let open = |other: &Attempt| other.budgeted && other.routes.iter().any(shares);
            match self.attempts.values().any(open) {
                true => wait.min(self.config.backoff_base),
                false => wait,
            }
        })
    }

    pub(crate) fn dial(&mut self, now: Now, dial: Attempt, cause: Cause) {
        if dial.visit {
            self.visits.spend(now);
        } else {
            self.budget.spend(now);
        }
        let attempt = self.next_attempt();
        let (routes, expected) = (dial.routes.clone(), dial.peer());
        let first = routes.first().map(|route| route.address.to_string()).unwrap_or_default();
        let more = match routes.len() {
            0 | 1 => String::new(),
            all => format!(", with {} more to try", all - 1),
        };
        self.outputs.push_back(Output::Dial { attempt, routes, expected });
        self.attempts.insert(attempt, dial);
        if let Some(peer) = expected {
            self.note(now, peer, cause, &format!("{first}{more}"));
        }
    }

    /// Where a peer may be dialled, the best first, as many as one dial tries.
    pub(crate) fn routes_to(&self, peer: &PeerId) -> Vec<Route> {
        let mut routes = self.all_routes_to(peer);
        routes.truncate(MAX_ROUTES);
        routes
    }

    /// Where a peer may be dialled, the best first: its addresses without those that are banned.
    pub(crate) fn all_routes_to(&self, peer: &PeerId) -> Vec<Route> {
        let known = self.book.get(peer).map(|known| known.in_order()).unwrap_or_default().into_iter();
        let free = known.filter(|at| self.ban_on(peer, ip_of(&at.address)).is_none());
        free.map(|at| Route {
            address: at.address.clone(),
            told_from: at.told_from,
            unproved: at.is_unproved(),
        })
        .collect()
    }

    /// The ban that keeps a peer from being dialled at any of its addresses.
    pub(crate) fn ban_on_all(&self, peer: &PeerId) -> Option<&Ban> {
        let of_peer = self.ban_on(peer, None);
        let best = || {
            let best = self.book.get(peer)?.best_address()?;
            self.ban_on(peer, ip_of(&best.address)).filter(|_| self.all_routes_to(peer).is_empty())
        };
        of_peer.or_else(best)
    }

    fn queues_mut(&mut self) -> [&mut DialQueue; 3] {
        [&mut self.persistent, &mut self.seeds.queue, &mut self.candidates]
    }
}

/// The IP of an address that is no name.
pub(crate) fn ip_of(address: &DialAddress) -> Option<IpAddr> {
    address.socket_addr().map(|socket| socket.ip())
}

impl Route {
    /// One that the user named.
    pub(crate) fn named(address: &DialAddress) -> Self {
        Self { address: address.clone(), told_from: None, unproved: false }
    }
}

impl Attempt {
    /// One that no cap counts.
    pub(crate) fn new(target: Target, routes: Vec<Route>) -> Self {
        Self {
            target,
            routes,
            courses: Vec::new(),
            tickets: Vec::new(),
            visit: false,
            counted: false,
            place: Direction::Outbound,
            budgeted: false,
            instead_of: None,
        }
    }

    /// The address that led to `remote`.
    pub(crate) fn reached(&self, remote: SocketAddr) -> Option<DialAddress> {
        let told = self.courses.iter().position(|course| *course == Course::Reached);
        let same = |route: &Route| route.address.socket_addr() == Some(remote);
        let index = told.or_else(|| self.routes.iter().position(same)).unwrap_or_default();
        self.routes.get(index).map(|route| route.address.clone())
    }

    /// Fills in what became of its addresses, where the driver has not said it.
    pub(crate) fn courses_of(&mut self, course: impl Fn(&Route) -> Course) {
        if self.courses.len() != self.routes.len() {
            self.courses = self.routes.iter().map(course).collect();
        }
    }

    /// The address whose failure is the gravest.
    fn failed_most(&self) -> Option<DialAddress> {
        let blame = |course: &Course| match course {
            Course::Failed(failure) => Some(failure.blame()),
            _ => None,
        };
        let both = self.routes.iter().zip(&self.courses).rev();
        both.max_by_key(|(_, course)| blame(course)).map(|(route, _)| route.address.clone())
    }

    /// Who must be there, where that is known.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        match &self.target {
            Target::Peer(peer) => Some(*peer),
            Target::Address(address) => address.peer_id(),
        }
    }
}
