//! When to dial whom, and what a failed dial means for the next one.

use std::time::Duration;

use peerage_identity::{DialAddress, PeerId};
use peerage_machine::Now;

use crate::backoff;
use crate::cause::{Blame, Failure};
use crate::dial_queue::Target;
use crate::manager::{Attempt, ConnState, PeerManager};
use crate::types::{AttemptId, ConnId, Direction, Output, PeerEvent, Ticket};

impl PeerManager {
    /// Starts dials while slots are free and targets are due.
    pub(crate) fn fill(&mut self, now: Now) {
        while !self.shutting_down && self.attempts.len() < self.config.max_parallel_dials {
            if let Some(conn) = self.stranded.pop_front() {
                self.start_instead_of(conn);
            } else if let Some((ticket, target)) = self.explicit.pop_front() {
                self.start_explicit(ticket, target);
            } else if let Some(target) = self.persistent.pop_due(now.mono) {
                self.start(target, false);
            } else if self.outbound_used() < self.config.max_outbound {
                let Some(target) = self.candidates.pop_due(now.mono) else {
                    return;
                };
                self.start(target, true);
            } else {
                return;
            }
        }
    }

    /// When the next dial can start, provided that nothing else happens.
    pub(crate) fn next_dial(&self) -> Option<Duration> {
        if self.attempts.len() >= self.config.max_parallel_dials {
            return None;
        }
        let candidates =
            (self.outbound_used() < self.config.max_outbound).then(|| self.candidates.next_due()).flatten();
        self.persistent.next_due().into_iter().chain(candidates).min()
    }

    /// Puts a peer that should be dialled into its queue, unless it is connected, held or under way.
    pub(crate) fn enqueue(&mut self, peer: PeerId, due: Duration) {
        let under_way = self.attempts.values().any(|attempt| attempt.target == Target::Peer(peer));
        if peer == self.me || self.is_linked(&peer) || under_way || !self.is_allowed(&peer) {
            return;
        }
        let Some(known) = self.book.get(&peer) else { return };
        if known.held || known.addresses.is_empty() || self.ban_on(&peer, None).is_some() {
            return;
        }
        let queue = if self.is_persistent(&peer) { &mut self.persistent } else { &mut self.candidates };
        queue.set(Target::Peer(peer), due);
    }

    /// A dial has failed.
    pub(crate) fn dial_failed(&mut self, now: Now, attempt: AttemptId, failure: Failure) {
        let Some(Attempt { target, address, tickets, .. }) = self.attempts.remove(&attempt) else {
            return;
        };
        let (peer, retry_in) = match &target {
            Target::Peer(peer) => (Some(*peer), self.charge(now, *peer, Some(&address), &failure)),
            Target::Address(_) => (None, self.charge_address(now, &address, &failure)),
        };
        self.event(PeerEvent::DialFailed { address, peer, cause: failure.detail.clone(), retry_in });
        self.resolve(tickets, &Err(failure));
    }

    /// Charges a failure to whom it belongs, and queues the peer again. How long until then, if it is queued.
    pub(crate) fn charge(
        &mut self,
        now: Now,
        peer: PeerId,
        address: Option<&DialAddress>,
        failure: &Failure,
    ) -> Option<Duration> {
        if let (Some(address), Blame::Unlucky | Blame::Hostile) = (address, failure.blame) {
            let hostile = failure.blame == Blame::Hostile;
            self.book.failed(&peer, address, hostile, self.config.max_hearsay_failures);
        }
        let known = self.book.get_mut(&peer)?;
        if failure.blame != Blame::Local {
            known.failures = known.failures.saturating_add(1);
        }
        let failures = known.failures.saturating_sub(1);
        self.redial_after(now, peer, failures, failure)
    }

    /// Queues a peer after the backoff for `failures`.
    pub(crate) fn redial_after(
        &mut self,
        now: Now,
        peer: PeerId,
        failures: u32,
        failure: &Failure,
    ) -> Option<Duration> {
        let (base, ceiling) = (self.config.backoff_base, self.config.backoff_ceiling);
        let mut wait = backoff::delay(base, ceiling, failures, &mut self.random);
        if let Some(asked) = failure.retry_after {
            // Everyone whom a full peer refused was told the same time.
            wait = wait.max(asked.min(ceiling) + self.random.up_to(base));
        }
        self.enqueue(peer, now.mono + wait);
        let target = Target::Peer(peer);
        let queued = self.persistent.due(&target).or_else(|| self.candidates.due(&target));
        queued.map(|due| due.saturating_sub(now.mono))
    }

    /// A contact whose peer is not known is tried again; the address of an explicit connect is not.
    fn charge_address(&mut self, now: Now, address: &DialAddress, failure: &Failure) -> Option<Duration> {
        if failure.blame == Blame::Hostile {
            self.address_failures.remove(address);
        }
        let failures = self.address_failures.get_mut(address)?;
        let wait = backoff::delay(
            self.config.backoff_base,
            self.config.backoff_ceiling,
            *failures,
            &mut self.random,
        );
        if failure.blame != Blame::Local {
            *failures = failures.saturating_add(1);
        }
        self.candidates.set(Target::Address(address.clone()), now.mono + wait);
        Some(wait)
    }

    fn start_explicit(&mut self, ticket: Ticket, target: Target) {
        let peer = match &target {
            Target::Peer(peer) => Some(*peer),
            Target::Address(address) => address.peer_id(),
        };
        if let Some(peer) = peer {
            if self.admitted(&peer).is_some() {
                return self.resolve(vec![ticket], &Ok(peer));
            }
            if self.is_linked(&peer) {
                self.waiting.entry(peer).or_default().push(ticket);
                return;
            }
            let under_way = self.attempts.values_mut().find(|attempt| {
                attempt.peer() == Some(peer)
                    && match &target {
                        Target::Peer(_) => true,
                        Target::Address(address) => attempt.address.same_endpoint(address),
                    }
            });
            if let Some(attempt) = under_way {
                attempt.tickets.push(ticket);
                return;
            }
        }
        let address = match &target {
            Target::Address(address) => Some(address.clone()),
            Target::Peer(peer) => self.address_of(peer),
        };
        let Some(address) = address else {
            let what = peer.map(|peer| peer.to_string()).unwrap_or_default();
            let why = format!("no address is known for {what}: add one with peers().add");
            return self.resolve(vec![ticket], &Err(Failure::new(Blame::Local, why)));
        };
        let target = peer.map_or(target, Target::Peer);
        self.candidates.remove(&target);
        self.persistent.remove(&target);
        self.dial(target, address, vec![ticket], false, None);
    }

    /// Our address on a connection went away. One that we dialled moves by itself.
    pub(crate) fn local_address_changed(&mut self, id: ConnId) {
        if self.is_admitted_inbound(id) && !self.stranded.contains(&id) {
            self.stranded.push_back(id);
        }
    }

    /// Dials the peer of a connection that is to be replaced, where an address of it is known.
    fn start_instead_of(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id).filter(|_| self.is_admitted_inbound(id)) else { return };
        let (peer, counted) = (conn.peer, conn.counted);
        if self.attempts.values().any(|attempt| attempt.peer() == Some(peer)) {
            return;
        }
        if let Some(address) = self.address_of(&peer) {
            self.dial(Target::Peer(peer), address, Vec::new(), counted, Some(id));
        }
    }

    fn is_admitted_inbound(&self, id: ConnId) -> bool {
        let fits = |state| matches!(state, ConnState::Admitted | ConnState::Foreign);
        self.conns.get(&id).is_some_and(|conn| conn.direction == Direction::Inbound && fits(conn.state))
    }

    fn start(&mut self, target: Target, counted: bool) {
        let address = match &target {
            Target::Address(address) => {
                self.address_failures.entry(address.clone()).or_default();
                Some(address.clone())
            }
            Target::Peer(peer) if self.is_linked(peer) => None,
            Target::Peer(peer) => self.address_of(peer),
        };
        if let Some(address) = address {
            self.dial(target, address, Vec::new(), counted, None);
        }
    }

    fn dial(
        &mut self,
        target: Target,
        address: DialAddress,
        tickets: Vec<Ticket>,
        counted: bool,
        instead_of: Option<ConnId>,
    ) {
        let attempt = self.next_attempt();
        let started = Attempt { target, address: address.clone(), tickets, counted, instead_of };
        self.outputs.push_back(Output::Dial { attempt, address, expected: started.peer() });
        self.attempts.insert(attempt, started);
    }

    fn address_of(&self, peer: &PeerId) -> Option<DialAddress> {
        let known = self.book.get(peer)?.best_address()?;
        let ip = known.address.socket_addr().map(|socket| socket.ip());
        self.ban_on(peer, ip).is_none().then(|| known.address.clone())
    }
}

impl Attempt {
    /// Who must be there, where that is known.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        match &self.target {
            Target::Peer(peer) => Some(*peer),
            Target::Address(address) => address.peer_id(),
        }
    }
}
