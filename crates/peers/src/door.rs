//! The door: whom the transport may hear before any TLS is done, and what a refusal may cost.
//!
//! A full node refuses a stranger after the TLS handshake, with the records of others that it may try. That costs a handshake and an answer of some
//! kilobytes, so there is a budget of so many a second. Beyond it a node that has places for visits goes on to hear strangers, for one of them may be a visitor and
//! that shows only in the hello: those who are none are refused in few bytes, and for that there is a second, larger budget, of handshakes more than of answers.
//! When that is spent too, or visitors would find no place either, the door is open only to *known* addresses: those of persistent
//! and unconditional peers. Everyone else is refused by one packet, until a place is free or a part of the budget has come back. Banned blocks are kept
//! out whatever the state.

use std::collections::BTreeSet;
use std::sync::Arc;

use peerage_identity::{IpPrefix, PeerId};
use peerage_machine::{Now, TokenBucket};

use crate::class::PeerClass;
use crate::manager::PeerManager;
use crate::types::Output;

/// Whom the transport may hear. The driver hands it to the transport's admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// What holds for strangers.
    pub state: DoorState,
    /// Addresses (an IPv6 /64 is one) of persistent and unconditional peers: heard even while strangers and their block are not.
    pub known: BTreeSet<IpPrefix>,
    /// Blocks that are not heard.
    pub banned: Arc<BTreeSet<IpPrefix>>,
}

/// What holds for strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DoorState {
    /// Everyone is heard.
    Open,
    /// The node is full, and has said so often enough: only known addresses are heard.
    KnownOnly,
    /// The node is shutting down: nobody is heard.
    Closed,
}

impl Default for Door {
    fn default() -> Self {
        Self { state: DoorState::Open, known: BTreeSet::new(), banned: Arc::default() }
    }
}

impl PeerManager {
    /// Spends one refusal with alternatives. False when the budget is spent.
    pub(crate) fn take_refusal(&mut self, now: Now) -> bool {
        let spent = self.refusals.take(1.0, now);
        let for_visitors = self.has_room_for_visitors();
        if for_visitors && !spent {
            self.plain_refusals.take(1.0, now);
        }
        let is_short =
            |bucket: &mut TokenBucket| bucket.wait_for(1.0, now).is_none_or(|wait| !wait.is_zero());
        let bucket = if for_visitors { &mut self.plain_refusals } else { &mut self.refusals };
        if is_short(bucket) {
            // Reopened when a quarter is back, so that the door doesn't swing with each refusal.
            let quarter = (bucket.burst() / 4.0).max(1.0);
            self.door_shut_until = bucket.wait_for(quarter, now).map(|wait| now.mono + wait);
        }
        spent
    }

    /// Tells the driver when the door has changed.
    pub(crate) fn watch_door(&mut self, now: Now) {
        if self.door_shut_until.is_some_and(|until| until <= now.mono) || !self.inbound_full() {
            self.door_shut_until = None;
        }
        let state = match self.door_shut_until {
            _ if self.shutting_down => DoorState::Closed,
            Some(_) => DoorState::KnownOnly,
            None => DoorState::Open,
        };
        let banned = self.bans.blocks().clone();
        let plain = state == DoorState::Open && banned.is_empty();
        let known = if plain { BTreeSet::new() } else { self.known_addresses() };
        let door = Door { state, known, banned };
        if door != self.door {
            self.door = door.clone();
            self.outputs.push_back(Output::Door(door));
        }
    }

    /// Remembers where an exempt peer was seen: its addresses in the book may be names.
    pub(crate) fn note_exempt(&mut self, peer: PeerId, at: std::net::IpAddr) {
        if self.book.classes.is_exempt(&peer) {
            self.exempt_seen.insert(peer, at);
        }
    }

    /// Forgets where a peer was seen that is exempt no more.
    pub(crate) fn forget_exempt(&mut self, peer: &PeerId, class: PeerClass) {
        if class != PeerClass::Private && !self.book.classes.is_exempt(peer) {
            self.exempt_seen.remove(peer);
        }
    }

    fn known_addresses(&self) -> BTreeSet<IpPrefix> {
        let mut known = BTreeSet::new();
        for peer in self.book.classes.exempt() {
            let addresses = self.book.get(&peer).map(|known| known.addresses.as_slice()).unwrap_or_default();
            let ips = addresses.iter().filter_map(|at| at.address.socket_addr()).map(|socket| socket.ip());
            known.extend(ips.chain(self.exempt_seen.get(&peer).copied()).map(IpPrefix::address_of));
        }
        known
    }
}
