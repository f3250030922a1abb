//! Seeds: contacts for the first dials.
//!
//! They are dialled while fewer peers are connected than [`PeersConfig::seed_target`](crate::PeersConfig::seed_target) says, and left alone
//! from then on until peers get few again. One that does not answer is tried again within
//! [`PeersConfig::seed_backoff_ceiling`](crate::PeersConfig::seed_backoff_ceiling), however often it failed. A seed may be a peer at an
//! address, an address whose peer is not known, or a name that stands for many.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_identity::{DialAddress, PeerId};
use peerage_machine::Now;

use crate::backoff;
use crate::cause::{Blame, Failure, Fault, RejectReason};
use crate::dial_queue::{DialQueue, Target};
use crate::manager::PeerManager;

/// The seeds that are due, and what is known of those that were given without a peer ID.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    pub(crate) queue: DialQueue,
    addresses: BTreeMap<DialAddress, Found>,
}

/// What became of an address whose peer was not known.
#[derive(Debug, Default)]
struct Found {
    /// Since a peer that was found there was last admitted.
    failures: u32,
    /// Whom the last dial found there.
    peer: Option<PeerId>,
}

impl Seeds {
    pub(crate) fn has(&self, address: &DialAddress) -> bool {
        self.addresses.contains_key(address)
    }

    /// Takes in an address without a peer ID, due at once.
    pub(crate) fn add(&mut self, address: DialAddress, now: Duration) {
        self.addresses.entry(address.clone()).or_default();
        self.queue.set(Target::Address(address), now);
    }

    /// That seed is this node itself.
    pub(crate) fn remove(&mut self, address: &DialAddress) {
        self.addresses.remove(address);
        self.queue.remove(&Target::Address(address.clone()));
    }

    /// A dial to a seed's address found `peer` there. Whether it is one.
    pub(crate) fn found(&mut self, address: &DialAddress, peer: PeerId) -> bool {
        let Some(found) = self.addresses.get_mut(address) else { return false };
        found.peer = Some(peer);
        true
    }

    /// The peer was admitted: the names that led to it have done their work.
    pub(crate) fn admitted(&mut self, peer: &PeerId) {
        self.leading_to(peer).for_each(|(_, found)| found.failures = 0);
    }

    fn leading_to(&mut self, peer: &PeerId) -> impl Iterator<Item = (&DialAddress, &mut Found)> {
        self.addresses.iter_mut().filter(move |(_, found)| found.peer == Some(*peer))
    }
}

impl PeerManager {
    /// Whether so few peers are connected that seeds are dialled. Visits end soon.
    pub(crate) fn seeds_wanted(&self) -> bool {
        let ordinary = self.connected().filter(|peer| !peer.visit);
        ordinary.take(self.config.seed_target).count() < self.config.seed_target
    }

    /// Whether the peer that a seed's address leads to has a connection already.
    pub(crate) fn seed_is_linked(&self, address: &DialAddress) -> bool {
        let found = self.seeds.addresses.get(address).and_then(|found| found.peer);
        found.is_some_and(|peer| self.is_linked(&peer))
    }

    /// A peer was lost, or came to nothing after its key was proved: the names that led to it may lead to another one now, or it may be another one itself.
    /// One that waits already waits no longer for it.
    pub(crate) fn seed_lost(&mut self, now: Now, peer: PeerId, failure: &Failure, wait: Option<Duration>) {
        let soonest = self.config.seed_backoff_ceiling.max(wait.unwrap_or_default());
        let hostile = failure.blame() == Blame::Hostile;
        let mut due = Vec::new();
        for (address, found) in self.seeds.leading_to(&peer) {
            let failures = found.failures;
            found.failures = failures.saturating_add(u32::from(hostile));
            due.push((Target::Address(address.clone()), failures));
        }
        let (base, ceiling) = (self.config.backoff_base, self.config.backoff_ceiling);
        for (target, failures) in due {
            let wait = match hostile {
                true => soonest.max(backoff::delay(base, ceiling, failures, &mut self.random)),
                false => soonest,
            };
            if self.seeds.queue.due(&target).is_none() {
                self.seeds.queue.set(target, now.mono + wait);
            }
        }
    }

    pub(crate) fn charge_seed(
        &mut self,
        now: Now,
        address: &DialAddress,
        failure: &Failure,
    ) -> Option<Duration> {
        let ours = [RejectReason::SelfDial, RejectReason::Clone];
        if ours.iter().any(|reason| failure.fault == Fault::RefusedByUs(*reason)) {
            self.seeds.remove(address);
            return None;
        }
        let found = self.seeds.addresses.get_mut(address)?;
        let ceiling = match failure.blame() {
            Blame::Hostile => self.config.backoff_ceiling,
            _ => self.config.seed_backoff_ceiling,
        };
        let wait = backoff::delay(self.config.backoff_base, ceiling, found.failures, &mut self.random);
        found.failures = found.failures.saturating_add(1);
        self.seeds.queue.set(Target::Address(address.clone()), now.mono + wait);
        Some(wait)
    }
}
