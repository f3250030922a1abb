//! Connections that the user asks for: now, whatever backoff and limits say.

use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_machine::Now;

use crate::allow::not_allowed;
use crate::cause::{Cause, Failure, Fault, RejectReason};
use crate::dial_queue::Target;
use crate::dialling::{MAX_ROUTES, ip_of};
use crate::manager::{Attempt, MAX_EXPLICIT_WAITING, PeerManager};
use crate::types::{Route, Ticket};

/// Somebody to whom the user wants a connection now.
#[derive(Debug)]
pub(crate) struct Explicit {
    pub(crate) ticket: Ticket,
    pub(crate) target: Target,
    /// Where third parties say that it is.
    pub(crate) given: Vec<Route>,
}

impl PeerManager {
    /// The user wants a connection to a peer, or to whoever is at an address.
    pub(crate) fn connect(&mut self, now: Now, ticket: Ticket, target: Target, given: Vec<Route>) {
        let peer = match &target {
            Target::Peer(peer) => Some(*peer),
            Target::Address(address) => address.peer_id(),
        };
        if let Some(peer) = peer.filter(|peer| self.admitted(peer).is_some()) {
            self.keep(now, peer, false, "the user asked for a connection");
            return self.resolve(vec![ticket], &Ok(peer));
        }
        let Err(failure) = self.may_connect(peer, &target, &given) else {
            return self.explicit.push_back(Explicit { ticket, target, given });
        };
        if let Some(peer) = peer {
            self.note_failure(now, peer, &failure);
        }
        self.resolve(vec![ticket], &Err(failure));
    }

    /// The user wants a peer of which others have said where it is.
    pub(crate) fn reach(
        &mut self,
        now: Now,
        ticket: Ticket,
        peer: PeerId,
        addresses: &[DialAddress],
        told_from: AddressScope,
    ) {
        let told_from = Some(told_from);
        let credible = addresses.iter().filter(|address| self.is_visitable(&peer, address, told_from));
        let given: Vec<Route> = credible
            .filter(|address| self.ban_on(&peer, ip_of(address)).is_none())
            .map(|address| Route { address: address.clone().without_peer_id(), told_from, unproved: true })
            .take(MAX_ROUTES)
            .collect();
        if given.is_empty() && !addresses.is_empty() && self.routes_to(&peer).is_empty() {
            let failure = self.may_connect(Some(peer), &Target::Peer(peer), &given).err();
            let failure = failure.unwrap_or_else(|| Failure::from(Fault::OutOfScope));
            return self.resolve(vec![ticket], &Err(failure));
        }
        self.connect(now, ticket, Target::Peer(peer), given);
    }

    /// Whether an explicit connect may wait for its dial, or what speaks against it.
    fn may_connect(&self, peer: Option<PeerId>, target: &Target, given: &[Route]) -> Result<(), Failure> {
        if let Some(peer) = peer.filter(|peer| *peer == self.me) {
            let fault = Fault::RefusedByUs(RejectReason::SelfDial);
            return Err(Failure::new(fault, format!("{peer} is this node itself")));
        }
        if let Some(peer) = peer.filter(|peer| !self.is_allowed(peer)) {
            return Err(not_allowed(peer));
        }
        // One address that is not banned is enough.
        let ban = match target {
            Target::Peer(peer) if given.is_empty() => self.ban_on_all(peer),
            Target::Peer(peer) => self.ban_on(peer, None),
            Target::Address(address) => peer.and_then(|peer| self.ban_on(&peer, ip_of(address))),
        };
        if let Some(ban) = ban {
            let why = format!("{} is banned here ({}): lift the ban first", ban.target, ban.reason);
            return Err(Failure::new(Fault::Banned, why));
        }
        if self.shutting_down {
            return Err(Failure::from(Fault::ThisNodeCloses));
        }
        match self.explicit.len() >= MAX_EXPLICIT_WAITING {
            true => Err(Failure::from(Fault::TooManyConnects)),
            false => Ok(()),
        }
    }

    /// Begins the dial that the user waits for, unless there is what he wants.
    pub(crate) fn start_explicit(&mut self, now: Now, Explicit { ticket, target, given }: Explicit) {
        let peer = match &target {
            Target::Peer(peer) => Some(*peer),
            Target::Address(address) => address.peer_id(),
        };
        if let Some(peer) = peer {
            let why = "the user asked for a connection";
            if self.admitted(&peer).is_some() {
                self.keep(now, peer, false, why);
                return self.resolve(vec![ticket], &Ok(peer));
            }
            if self.is_linked(&peer) {
                self.keep(now, peer, false, why);
                self.visits.wanted.insert(peer);
                self.waiting.entry(peer).or_default().push(ticket);
                return;
            }
            let under_way = self.attempts.values_mut().find(|attempt| {
                attempt.peer() == Some(peer)
                    && match &target {
                        // A dial that began before these addresses were known may be at what somebody had named wrongly.
                        Target::Peer(_) => given.iter().all(|one| {
                            attempt.routes.iter().any(|route| route.address.same_endpoint(&one.address))
                        }),
                        Target::Address(address) => {
                            attempt.routes.iter().any(|route| route.address.same_endpoint(address))
                        }
                    }
            });
            if let Some(attempt) = under_way {
                attempt.tickets.push(ticket);
                if attempt.visit {
                    (attempt.visit, attempt.counted) = (false, false);
                }
                return;
            }
        }
        let routes = match &target {
            Target::Address(address) => vec![Route::named(address)],
            Target::Peer(peer) => {
                let mut routes = given;
                for known in self.routes_to(peer) {
                    if !routes.iter().any(|route| route.address.same_endpoint(&known.address)) {
                        routes.push(known);
                    }
                }
                routes.truncate(MAX_ROUTES);
                routes
            }
        };
        if routes.is_empty() {
            let what = peer.map(|peer| peer.to_string()).unwrap_or_default();
            let why = format!("no address of {what} is known: add one with peers().add");
            let failure = Failure::new(Fault::NoAddress, why);
            if let Some(peer) = peer {
                self.note_failure(now, peer, &failure);
            }
            return self.resolve(vec![ticket], &Err(failure));
        }
        if let Some(peer) = &peer {
            self.dequeue(peer);
        }
        let target = peer.map_or(target, Target::Peer);
        let dial = Attempt { tickets: vec![ticket], ..Attempt::new(target, routes) };
        self.dial(now, dial, Cause::Asked);
    }
}
