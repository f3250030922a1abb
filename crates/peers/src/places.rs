//! How many connections there may be: the caps, and who counts.
//!
//! An outbound place is taken from the moment at which a dial begins. An inbound one is taken from the good hello on, so that a handshake
//! which is still open counts, and one that says nothing does not keep others out: of those that have not said hello yet there are only so
//! many, and when one too many comes, the oldest of the most crowded subnet goes.
//!
//! A peer takes one place, however many connections it has for a moment. One that takes over from another inherits that one's place, whoever dialled
//! either: so no cap is passed by dialling back.
//!
//! Inbound places are also capped per address (an IPv6 /64 is one) and per subnet (/24, /48), so that one network cannot take them all;
//! loopback is exempt, because there one address is many nodes ([`AddressScope::is_exempt_from_address_rules`]). Persistent and unconditional
//! peers are outside every cap.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use peerage_identity::{AddressScope, IpPrefix, PeerId};
use peerage_machine::Now;

use crate::cause::{Failure, Fault};
use crate::manager::{Conn, ConnState, PeerManager};
use crate::types::{CloseReason, ConnId, Direction, Output};
use crate::used::Used;

impl PeerManager {
    /// Outbound places in use: connections and dials that the cap counts.
    pub(crate) fn outbound_used(&self) -> usize {
        let dials = self.attempts.values().filter(|attempt| attempt.counted).count();
        self.conns.used().of(Direction::Outbound) + dials
    }

    /// Inbound places in use: connections whose hello was found good and that the cap counts.
    pub(crate) fn inbound_used(&self) -> usize {
        self.conns.used().of(Direction::Inbound)
    }

    pub(crate) fn inbound_full(&self) -> bool {
        self.inbound_used() >= self.config.max_inbound
    }

    /// Why there is no place for a connection; `None` when there is one, or when it would only take another one's of the same peer.
    pub(crate) fn no_place(&self, conn: &Conn) -> Option<String> {
        let ours = [conn.direction, conn.place].contains(&Direction::Outbound);
        if ours || !self.counts(conn) {
            return None;
        }
        let held = self.place_of(&conn.peer, Direction::Inbound);
        if held.is_none() && self.inbound_full() {
            return Some(format!("all {} inbound places are taken", self.config.max_inbound));
        }
        let ip = conn.remote.ip();
        if AddressScope::of(ip).is_exempt_from_address_rules() {
            return None;
        }
        let (address, subnet) = (IpPrefix::address_of(ip), IpPrefix::subnet_of(ip));
        let caps =
            [(address, self.config.max_inbound_per_address), (subnet, self.config.max_inbound_per_subnet)];
        // Who moves from one block to another takes a place there.
        let caps =
            caps.into_iter().filter(|(block, _)| !held.is_some_and(|held| block.contains(held.remote.ip())));
        caps.into_iter().find_map(|(block, most)| {
            (self.conns.used().within(&block) >= most)
                .then(|| format!("all {most} inbound places for {block} are taken"))
        })
    }

    /// Keeps the number of inbound connections that have not said hello within its bound, when one more comes.
    pub(crate) fn make_room_for_greeting(&mut self, now: Now) {
        let silent = |conn: &Conn| {
            conn.direction == Direction::Inbound
                && conn.state == ConnState::Greeting
                && !self.book.classes.is_exempt(&conn.peer)
        };
        let mut subnets: BTreeMap<IpPrefix, Vec<ConnId>> = BTreeMap::new();
        let mut count = 0;
        for (id, conn) in self.conns.iter().filter(|(_, conn)| silent(conn)) {
            subnets.entry(IpPrefix::subnet_of(conn.remote.ip())).or_default().push(*id);
            count += 1;
        }
        if count < self.config.max_inbound_greetings {
            return;
        }
        // Numbers only grow, so the smallest is the oldest.
        let crowded = subnets.into_values().max_by_key(|conns| (conns.len(), Reverse(conns[0])));
        if let Some(oldest) = crowded.map(|conns| conns[0]) {
            self.outputs.push_back(Output::Close { conn: oldest, reason: CloseReason::Overloaded });
            let why = "it said no hello while others waited";
            self.ended(now, oldest, Failure::new(Fault::HelloTimeout, why), false);
        }
    }

    /// A connection that is to take over from the admitted one of its peer takes its place: what is counted doesn't grow.
    pub(crate) fn take_over_place(&mut self, id: ConnId) {
        let Some(peer) = self.conns.get(&id).map(|conn| conn.peer) else { return };
        let stands =
            |conn: &&Conn| conn.stands_in || matches!(conn.state, ConnState::Admitted | ConnState::Foreign);
        let held = self.conns_of(&peer).filter_map(|id| self.conns.get(&id)).find(stands);
        let held = held.filter(|held| held.place == Direction::Outbound).map(|held| held.counted);
        if let Some(counted) = held {
            self.change_conn(id, |conn| (conn.place, conn.counted) = (Direction::Outbound, counted));
        }
    }

    /// The connection by which a peer takes a place.
    fn place_of(&self, peer: &PeerId, place: Direction) -> Option<&Conn> {
        self.conns_of(peer).filter_map(|id| self.conns.get(&id)).find(|conn| conn.takes == Some(place))
    }

    /// Counts the places of a peer anew: one of its connections, or what the user has said of it, has changed.
    pub(crate) fn recount_places(&mut self, peer: &PeerId) {
        let exempt = self.book.classes.is_exempt(peer);
        self.conns.recount(peer, exempt);
    }

    /// The places in use, by a walk over all connections: what the counts are compared with.
    pub(crate) fn counted_over(&self) -> Used {
        let mut used = Used::default();
        for peer in self.peers_linked() {
            let conns = || self.conns_of(peer).filter_map(|id| self.conns.get(&id));
            let counted = || conns().filter(|conn| self.counts(conn));
            let outbound = counted().filter(|conn| conn.place == Direction::Outbound).last();
            let heard = |conn: &&Conn| conn.place == Direction::Inbound && conn.state != ConnState::Greeting;
            let inbound = counted().filter(heard).last();
            outbound.into_iter().chain(inbound).for_each(|conn| used.came(conn.place, conn.remote.ip()));
        }
        used
    }

    /// Whether the caps count a connection.
    pub(crate) fn counts(&self, conn: &Conn) -> bool {
        conn.counted && !self.book.classes.is_exempt(&conn.peer)
    }
}
