//! Which start of a peer is talking: a restart is told from a second node with the same key.
//!
//! Each start draws a boot nonce. A new nonce is a restart until the contrary shows: it takes the place of the older connection at once. But a
//! process that has ended never comes back with its old nonce. So when an *earlier* nonce speaks again, two nodes run with one key. From then on the
//! later one has the peer's place, and the earlier one is refused ([`crate::RejectReason::Clone`]) until the other has been gone for a while: neither
//! takes the connection from the other in turn.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{DialAddress, PeerId};
use peerage_machine::Now;

use crate::cause::RejectReason;
use crate::manager::{Conn, ConnState, PeerManager};
use crate::types::{CloseReason, ConnId, Output, PeerEvent};

/// Peers whose starts are remembered. The one that was gone longest gives way.
pub(crate) const MAX_PEERS: usize = 4096;
/// Addresses that are remembered because a dial found this node there.
const MAX_OWN_FOUND: usize = 16;
/// How long they are.
const OWN_LASTS: Duration = Duration::from_secs(3600);
/// Nodes with our own key that are remembered, so that each is reported once.
const MAX_CLONES: usize = 16;
/// Earlier starts of one peer that are remembered.
const MAX_EARLIER: usize = 8;
/// What was under way when a new start spoke may still arrive, and is no sign of a clone.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// What a hello's nonce says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The start that has the peer's place, now if not before.
    Current,
    /// The last words of a start that is over.
    Over,
    /// A second node with the key, beside the one that has the place. `first`: nobody has been told yet.
    Clone { first: bool },
}

/// The starts of each peer, bounded.
#[derive(Debug, Default)]
pub(crate) struct Starts(BTreeMap<PeerId, Starting>);

#[derive(Debug)]
struct Starting {
    current: u64,
    /// When the current one was first heard.
    since: Duration,
    /// The last sign of the current one.
    alive: Duration,
    earlier: VecDeque<u64>,
    told: bool,
}

impl Starts {
    /// A hello was read, on a connection that was made at `made`. `linked`: the current start has another connection.
    pub(crate) fn judge(
        &mut self,
        now: Duration,
        peer: PeerId,
        nonce: u64,
        made: Duration,
        linked: bool,
        patience: Duration,
    ) -> Start {
        let Some(known) = self.0.get_mut(&peer) else {
            self.make_room();
            let fresh =
                Starting { current: nonce, since: now, alive: now, earlier: VecDeque::new(), told: false };
            self.0.insert(peer, fresh);
            return Start::Current;
        };
        if known.current != nonce {
            if known.earlier.contains(&nonce) {
                if made <= known.since + STRAGGLERS {
                    return Start::Over;
                }
                if linked || now.saturating_sub(known.alive) < patience {
                    return Start::Clone { first: !std::mem::replace(&mut known.told, true) };
                }
            }
            known.earlier.retain(|earlier| *earlier != nonce);
            known.earlier.push_back(known.current);
            if known.earlier.len() > MAX_EARLIER {
                known.earlier.pop_front();
            }
            (known.current, known.since) = (nonce, now);
        }
        known.alive = now;
        Start::Current
    }

    /// A connection of the current start has ended.
    pub(crate) fn left(&mut self, now: Duration, peer: &PeerId) {
        if let Some(known) = self.0.get_mut(peer) {
            known.alive = now;
        }
    }

    fn make_room(&mut self) {
        if self.0.len() >= MAX_PEERS {
            let longest_gone = self.0.iter().min_by_key(|(_, known)| known.alive).map(|(peer, _)| *peer);
            longest_gone.map(|peer| self.0.remove(&peer));
        }
    }
}

impl PeerManager {
    /// Whether a hello is from the start that has its peer's place. If not, the connection is refused or closed.
    pub(crate) fn is_latest_start(&mut self, now: Now, id: ConnId, nonce: u64) -> bool {
        let Some(conn) = self.conns.get(&id) else { return false };
        let (peer, remote, made) = (conn.peer, conn.remote, conn.since);
        let speaks = |conn: &Conn| conn.state != ConnState::Greeting;
        let linked = self.conns_of(&peer).filter_map(|id| self.conns.get(&id)).any(speaks);
        let patience = self.config.clone_patience;
        match self.starts.judge(now.mono, peer, nonce, made, linked, patience) {
            Start::Current => return true,
            Start::Over => {
                self.outputs.push_back(Output::Close { conn: id, reason: CloseReason::Replaced });
                self.forget_conn(now, id);
            }
            Start::Clone { first } => {
                if first {
                    self.event(PeerEvent::PeerCloned { peer, address: remote });
                }
                self.reject(now, id, RejectReason::Clone, String::new(), Some(patience));
            }
        }
        false
    }

    /// Where this node says that it can be reached.
    pub(crate) fn announced(&mut self, addresses: &[DialAddress]) {
        self.book.own.retain(|_, found| found.is_some());
        self.book.own.extend(addresses.iter().map(|address| (address.clone().without_peer_id(), None)));
    }

    /// Forgets where this node found itself long ago: the address may be another node's by now.
    pub(crate) fn forget_own(&mut self, now: Now) {
        let lately = |found: &Duration| now.mono.saturating_sub(*found) < OWN_LASTS;
        self.book.own.retain(|_, found| found.as_ref().is_none_or(lately));
    }

    /// A connection to our own key: this node, or another that has the key too.
    pub(crate) fn met_own_key(&mut self, now: Now, id: ConnId, nonce: u64, remote: SocketAddr) {
        if nonce == self.boot_nonce {
            let dialled = self.conns.get(&id).and_then(|conn| conn.dialled.clone());
            let found = self.book.own.values().flatten().count();
            if let Some(address) = dialled.filter(|_| found < MAX_OWN_FOUND) {
                self.book.own.entry(address.without_peer_id()).or_insert(Some(now.mono));
            }
            return self.reject(now, id, RejectReason::SelfDial, String::new(), None);
        }
        if !self.clones.contains(&nonce) {
            self.clones.push_back(nonce);
            if self.clones.len() > MAX_CLONES {
                self.clones.pop_front();
            }
            // The first one may have told us itself, by its refusal.
            if self.clones.len() > 1 || !self.told_of_clone {
                self.event(PeerEvent::CloneSeen { address: remote, told_by: None });
            }
        }
        self.reject(now, id, RejectReason::Clone, String::new(), None);
    }

    /// We were refused because of another node with our key: by a peer that gives it our place, or by that node itself, whose answer may come before its
    /// hello.
    pub(crate) fn hear_of_clone(&mut self, from: PeerId, address: SocketAddr) {
        if self.clones.is_empty() && !std::mem::replace(&mut self.told_of_clone, true) {
            let told_by = (from != self.me).then_some(from);
            self.event(PeerEvent::CloneSeen { address, told_by });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::peer;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_earlier_start_that_speaks_again_is_a_clone_until_the_later_one_has_been_gone_for_a_while() {
        let mut starts = Starts::default();
        let mut judge = |second: u64, nonce, linked| {
            let now = Duration::from_secs(second);
            starts.judge(now, peer(1), nonce, now, linked, MINUTE)
        };
        assert_eq!(judge(0, 10, false), Start::Current);
        assert_eq!(judge(5, 20, true), Start::Current, "a restart takes the place at once");
        assert_eq!(judge(10, 10, true), Start::Clone { first: true });
        assert_eq!(judge(500, 10, true), Start::Clone { first: false });
        // The later one is gone.
        starts.left(Duration::from_secs(600), &peer(1));
        let mut judge = |second: u64, nonce, linked| {
            let now = Duration::from_secs(second);
            starts.judge(now, peer(1), nonce, now, linked, MINUTE)
        };
        assert_eq!(judge(630, 10, false), Start::Clone { first: false });
        assert_eq!(judge(661, 10, false), Start::Current);
        assert_eq!(judge(670, 20, true), Start::Clone { first: false }, "now the other one waits");
        assert_eq!(judge(671, 30, true), Start::Current, "a restart is never kept waiting");
    }

    #[test]
    fn what_an_ended_start_had_sent_is_no_clone() {
        let mut starts = Starts::default();
        let second = Duration::from_secs;
        starts.judge(second(0), peer(1), 10, second(0), false, MINUTE);
        starts.judge(second(5), peer(1), 20, second(5), false, MINUTE);
        assert_eq!(starts.judge(second(6), peer(1), 10, second(4), true, MINUTE), Start::Over);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut starts = Starts::default();
        for number in 0..MAX_PEERS as u64 + 100 {
            let now = Duration::from_secs(number);
            starts.judge(now, peer(number), 1, now, false, MINUTE);
        }
        for nonce in 0..100 {
            starts.judge(MINUTE, peer(1), nonce, MINUTE, false, MINUTE);
        }
        assert_eq!(starts.0.len(), MAX_PEERS);
        assert!(starts.0.values().all(|known| known.earlier.len() <= MAX_EARLIER));
    }
}
