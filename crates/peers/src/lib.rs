//! The peer manager: who to be connected to, as a pure state machine.
//!
//! It knows peers and their addresses, dials those that are due, decides who is admitted, agrees with each peer on one connection, asks
//! peers whom they know, and tells what changed and why. It opens no socket and reads no clock: the driver in the crate `peerage` feeds it
//! [`Input`]s with the time and carries out its [`Output`]s (see [`peerage_machine::Machine`]).
//!
//! The way of a connection through it:
//!
//! 1. A target becomes due in the dial queue, a slot is free: [`Output::Dial`].
//! 2. [`Input::Handshaken`]: the peer's key is proved. [`Output::SayHello`].
//! 3. [`Input::Hello`]: what the peer says is compatible, a place is free, and no other connection to it is accepted:
//!    [`Output::Answer`] accepts.
//! 4. [`Input::Answered`]: the peer accepted too. [`Output::Admit`], [`PeerEvent::Connected`].
//! 5. [`Input::Closed`]: [`PeerEvent::Disconnected`] with the cause, and a place in the dial queue after a backoff.
//!
//! # Attacks it stands against
//!
//! - *Many strangers*: caps count handshakes in progress, inbound and outbound apart, per address and per subnet; silent connections are
//!   bounded; a full node refuses within a budget, and beyond it before TLS ([`Door`]); the address book is bounded, and hearsay gives way first.
//! - *Misbehaviour*: what a peer did costs it points ([`Penalty`]), and too many of them are a [`Ban`].
//! - *Lies about others*: a third party's records must be signed by those whom they speak of, are dialled before they are
//!   believed, are never passed on before that, and can name private addresses only when their teller is in the same scope.
//!   One teller fills only so much of the book, and whoever comes to us unasked is believed only about where it came from.
//! - *Lies about us*: where we are seen is voted on, by address groups, and only by peers that we dialled.
//! - *A stolen or copied key*: a second node with a peer's key cannot take turns with it at the same place.
//! - *Lookups that are led astray*: addresses that come with a visit are hearsay, tried only where their teller may point and as rarely as any other that nobody has
//!   proved; what fails there is charged to no peer. Where others say that a peer is whom the user wants is tried once, and stands in the book only when a handshake has proved it. Visits take places and dial slots of their own, and the places are lent.
//! - *Storms*: parallel dials are bounded, backoff is exponential with full jitter, and nothing is polled.
//!
//! Every collection iterates in a fixed order, so that one seed gives one run.

mod admission;
mod agreement;
mod allow;
mod alternatives;
mod backoff;
mod bans;
mod book;
mod budget;
mod cause;
mod class;
mod config;
mod conns;
mod dial_queue;
mod dialling;
mod door;
mod exchange;
mod explicit;
mod journal;
mod manager;
mod observed;
mod penalty;
mod places;
mod record;
mod rotation;
mod seeds;
mod standing;
mod starts;
mod state;
mod types;
mod used;
mod visit_places;
mod visits;

pub use bans::{Ban, BanError, BanTarget, BanTargetError, MAX_BAN_REASON};
pub use book::Source;
pub use cause::{Blame, Cause, Failure, Fault, RejectReason};
pub use class::PeerClass;
pub use config::{ForeignPolicy, PeersConfig};
pub use dial_queue::Target;
pub use door::{Door, DoorState};
pub use journal::{Entry, Story};
/// Limits that are fixed, for whoever lists them.
pub mod limits {
    use std::time::Duration;

    /// Addresses that are read of a stored entry.
    pub const MAX_STORED_ADDRESSES: usize = crate::record::MAX_ADDRESSES;
    /// Addresses and subnets whose dials are remembered.
    pub const MAX_DIAL_TARGETS: usize = crate::budget::MAX_TARGETS;
    /// The longest pause between dials to an address where nobody was ever found.
    pub const LONGEST_DIAL_PAUSE: Duration = crate::budget::LONGEST_PAUSE;
    /// Addresses given with visits at which nobody was found, and that are remembered.
    pub const MAX_FAILED_VISITS: usize = crate::visits::MAX_FAILED;
    /// How long a visit waits for dials under way near its addresses.
    pub const VISIT_PATIENCE: Duration = crate::visits::PATIENCE;
    /// Addresses that one dial of a peer tries.
    pub const MAX_ROUTES: usize = crate::dialling::MAX_ROUTES;
    /// How often any of the names that nobody has proved is dialled.
    pub const NAME_DIAL_EVERY: Duration = crate::budget::NAME_DIAL_EVERY;
    /// Explicit connects that wait for a dial slot.
    pub const MAX_EXPLICIT_WAITING: usize = crate::manager::MAX_EXPLICIT_WAITING;
    /// Peers whose questions are counted.
    pub const MAX_ASKERS: usize = crate::exchange::MAX_ASKERS;
    /// Peers whose misbehaviour is remembered.
    pub const MAX_SCORES: usize = crate::penalty::MAX_SCORES;
    /// Votes on our address.
    pub const MAX_VOTES: usize = crate::observed::MAX_VOTES;
    /// How long a vote counts.
    pub const VOTE_LASTS: Duration = crate::observed::VOTE_LASTS;
    /// Peers whose starts are remembered.
    pub const MAX_STARTS: usize = crate::starts::MAX_PEERS;
    /// Alternatives in a refusal of one subnet.
    pub const MAX_PER_SUBNET: usize = crate::alternatives::MAX_PER_SUBNET;
    /// The detail of an entry of the journal, in bytes.
    pub const MAX_DETAIL: usize = crate::journal::MAX_DETAIL;
    /// The reason of a ban, in bytes.
    pub const MAX_BAN_REASON: usize = crate::bans::MAX_BAN_REASON;
    /// How long a round of rotation may take to find replacements.
    pub const ROTATION_PATIENCE: Duration = crate::rotation::PATIENCE;
}

pub use manager::{ConnectedPeer, Gauges, PeerManager};
pub use penalty::Penalty;
pub use record::{AddressEntry, BadEntry, BanEntry, BookChange, BookEntry, StoredPeer};
pub use standing::{Standing, StandingEntry};
pub use state::PeerState;
pub use types::{
    Answer, AttemptId, CloseReason, ConnId, Course, Direction, HelloFacts, Input, Output, PeerAnswer,
    PeerEvent, Role, Route, Ticket,
};

/// Peers for tests, by number.
#[cfg(test)]
mod numbered {
    use peerage_identity::{NodeKey, PeerId};

    pub(crate) fn peer(number: u64) -> PeerId {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        NodeKey::from_seed(seed).peer_id()
    }
}
