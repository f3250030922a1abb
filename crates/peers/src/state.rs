//! What a peer is to us at a moment, and how each change of it is told.
//!
//! The state is not kept beside the tables of connections, dials and queues: it is read off them. Whoever changes one of these tables
//! says so with [`PeerManager::note`], which tells watchers and the journal what the peer was, what it is, and why. What was told last is
//! remembered, so that nothing is told twice; `assert_told` checks that nothing was forgotten.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{DialAddress, PeerId};
use peerage_machine::Now;

use crate::book::Source;
use crate::cause::{Cause, Failure};
use crate::journal::{Rank, span};
use crate::manager::{ConnState, PeerManager};
use crate::types::{AttemptId, ConnId, Direction, PeerEvent};

/// What a peer is to us. Times are [`Now::mono`]: since the node's start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// In the address book, and not to be dialled: no address is left, or another peer is to be dialled in its place.
    Known,
    /// The user wants no connection to it.
    Held,
    /// Banned: neither dialled nor admitted.
    Banned,
    /// In the dial queue.
    Waiting {
        /// Not dialled before this time. It may be past: then a free place is missing.
        due: Duration,
        /// Failures since the last useful connection.
        failures: u32,
    },
    /// A dial is under way.
    Dialling {
        /// Which.
        attempt: AttemptId,
        /// Where first.
        address: DialAddress,
    },
    /// Its key is proved; the hellos are under way.
    Greeting {
        /// On which connection.
        conn: ConnId,
        /// Who opened it.
        direction: Direction,
        /// The other end of the path.
        address: SocketAddr,
    },
    /// Both sides have accepted.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Who opened it.
        direction: Direction,
        /// The other end of the path.
        address: SocketAddr,
        /// Since the TLS handshake.
        since: Duration,
        /// A node of another libp2p implementation.
        foreign: bool,
        /// It ends when it is not used for a while.
        visit: bool,
    },
}

impl PeerState {
    /// Its name in data, such as `waiting`.
    pub fn name(&self) -> &'static str {
        match self {
            PeerState::Known => "known",
            PeerState::Held => "held",
            PeerState::Banned => "banned",
            PeerState::Waiting { .. } => "waiting",
            PeerState::Dialling { .. } => "dialling",
            PeerState::Greeting { .. } => "greeting",
            PeerState::Connected { .. } => "connected",
        }
    }
}

impl PeerState {
    /// For people, who know the time.
    pub(crate) fn in_words(&self, now: Now) -> String {
        match self {
            PeerState::Waiting { due, failures } => {
                let after = match failures {
                    0 => String::new(),
                    1 => " after a failure".to_owned(),
                    many => format!(" after {many} failures"),
                };
                match due.checked_sub(now.mono).filter(|left| !left.is_zero()) {
                    Some(left) => format!("waiting{after}, to be dialled in {}", span(left)),
                    None => format!("waiting{after}"),
                }
            }
            PeerState::Connected { direction, address, since, .. } => {
                let lasts = span(now.mono.saturating_sub(*since));
                format!("connected for {lasts}, {direction}, {address}")
            }
            other => other.to_string(),
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerState::Known => f.write_str("known, and not to be dialled"),
            PeerState::Held => f.write_str("held: the user wants no connection to it"),
            PeerState::Banned => f.write_str("banned"),
            PeerState::Waiting { due, failures: 0 } => write!(f, "waiting for its dial, due at {due:.1?}"),
            PeerState::Waiting { due, failures: 1 } => {
                write!(f, "waiting for its dial after a failure, due at {due:.1?}")
            }
            PeerState::Waiting { due, failures } => {
                write!(f, "waiting for its dial after {failures} failures, due at {due:.1?}")
            }
            PeerState::Dialling { address, .. } => write!(f, "being dialled at {address}"),
            PeerState::Greeting { direction, address, .. } => {
                write!(f, "saying hello, {direction}, {address}")
            }
            PeerState::Connected { direction, address, since, .. } => {
                write!(f, "connected, {direction}, {address}, since {since:.1?}")
            }
        }
    }
}

impl PeerManager {
    /// What a peer is to us; `None` when nothing is known of it.
    pub fn state(&self, peer: &PeerId) -> Option<PeerState> {
        let mut greeting = None;
        for conn in self.conns_of(peer) {
            let Some(found) = self.conns.get(&conn) else { continue };
            let (direction, address, since) = (found.direction, found.remote, found.since);
            let (foreign, visit) = (found.state == ConnState::Foreign, found.visit);
            if foreign || found.state == ConnState::Admitted || found.stands_in {
                return Some(PeerState::Connected { conn, direction, address, since, foreign, visit });
            }
            match found.state {
                ConnState::Greeting | ConnState::Greeted => {
                    greeting.get_or_insert(PeerState::Greeting { conn, direction, address });
                }
                ConnState::Admitted | ConnState::Foreign | ConnState::Draining => {}
            }
        }
        let dialling = || {
            let (id, attempt) = self.attempts.iter().find(|(_, a)| a.peer() == Some(*peer))?;
            Some(PeerState::Dialling { attempt: *id, address: attempt.routes.first()?.address.clone() })
        };
        greeting.or_else(dialling).or_else(|| self.resting_state(peer))
    }

    /// The peers that anything is known of, each with what it is to us, in the order of their IDs. With the events after it a watcher
    /// knows the state at any time.
    pub fn states(&self) -> impl Iterator<Item = (PeerId, PeerState)> + '_ {
        self.told.iter().map(|(peer, state)| (*peer, state.clone()))
    }

    /// Tells of a change of a peer, or of something that kept it from changing.
    pub(crate) fn note(&mut self, now: Now, peer: PeerId, cause: Cause, detail: &str) {
        let state = self.state(&peer);
        let old = match &state {
            Some(state) => self.told.insert(peer, state.clone()),
            None => self.told.remove(&peer),
        };
        // The story says whose it is; in its lines the peer is «it».
        let detail = if detail.len() < SHORTEST_ID {
            detail.to_owned()
        } else {
            let id = peer.to_string();
            detail.replace(&format!("/p2p/{id}"), "").replace(&id, "it")
        };
        let rank = self.rank(&peer);
        self.journal.add(now, peer, rank, (cause, &detail), state.as_ref().map(PeerState::name));
        if old != state {
            self.event(PeerEvent::Changed { peer, from: old, to: state, cause });
        }
    }

    /// [`PeerManager::note`] for something that went wrong.
    pub(crate) fn note_failure(&mut self, now: Now, peer: PeerId, failure: &Failure) {
        self.note(now, peer, Cause::Failed(failure.fault), &failure.detail);
    }

    /// For tests: every peer is what watchers were told that it is.
    ///
    /// # Panics
    /// When one is not.
    #[doc(hidden)]
    pub fn assert_told(&self) {
        let conns = self.conns.values().map(|conn| conn.peer);
        let dialled = self.attempts.values().filter_map(crate::manager::Attempt::peer);
        let all = self.book.iter().map(|(peer, _)| *peer).chain(conns).chain(dialled);
        for peer in all.chain(self.told.keys().copied()) {
            let now = Now { mono: self.clock, unix: Duration::ZERO };
            assert_eq!(
                self.told.get(&peer),
                self.state(&peer).as_ref(),
                "{peer}: {:?}",
                self.why(now, &peer)
            );
        }
    }

    /// How long what happens to a peer is worth keeping.
    fn rank(&self, peer: &PeerId) -> Rank {
        match self.book.get(peer) {
            _ if self.book.classes.is_named(peer) => Rank::Named,
            Some(known) if known.seed || known.addresses.iter().any(|at| at.source == Source::User) => {
                Rank::Named
            }
            Some(_) => Rank::Known,
            None => Rank::Stranger,
        }
    }

    /// What a peer is that has no connection and no dial under way.
    fn resting_state(&self, peer: &PeerId) -> Option<PeerState> {
        if self.ban_on(peer, None).is_some() {
            return Some(PeerState::Banned);
        }
        let known = self.book.get(peer)?;
        if known.held {
            return Some(PeerState::Held);
        }
        Some(match self.due(peer) {
            Some(due) => PeerState::Waiting { due, failures: known.failures },
            None => PeerState::Known,
        })
    }
}

/// No peer ID takes fewer characters: the shortest are hashes, `Qm…`.
const SHORTEST_ID: usize = 46;
