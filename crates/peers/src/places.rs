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
use std::net::IpAddr;

use peerage_identity::{AddressScope, IpPrefix, PeerId};
use peerage_machine::Now;

use crate::cause::{Failure, Fault};
use crate::manager::{Conn, ConnState, PeerManager};
use crate::types::{CloseReason, ConnId, Direction, Output};
use crate::used::{Place, Used};

impl PeerManager {
    /// Outbound places in use: connections and dials that the cap counts. Visits have places of their own.
    pub(crate) fn outbound_used(&self) -> usize {
        let dials = self.attempts.values().filter(|attempt| attempt.counted && !attempt.visit).count();
        self.conns.used().of(Place::ordinary(Direction::Outbound)) + dials
    }

    /// Inbound places in use: connections whose hello was found good and that the cap counts.
    pub(crate) fn inbound_used(&self) -> usize {
        self.conns.used().of(Place::ordinary(Direction::Inbound))
    }

    pub(crate) fn inbound_full(&self) -> bool {
        self.inbound_used() >= self.config.max_inbound
    }

    /// Why there is no place for a connection; `None` when there is one, or when it would only take another one's of the same peer.
    pub(crate) fn no_place(&self, conn: &Conn) -> Option<String> {
        let ours = [conn.direction, conn.place].contains(&Direction::Outbound);
        if ours { None } else { self.no_inbound_place(conn) }
    }

    /// Why there is no inbound place for a connection, whoever dialled it.
    pub(crate) fn no_inbound_place(&self, conn: &Conn) -> Option<String> {
        if !self.counts(conn) {
            return None;
        }
        let held = self.place_of(&conn.peer, Place::ordinary(Direction::Inbound));
        if held.is_none() && self.inbound_full() {
            return Some(format!("all {} inbound places are taken", self.config.max_inbound));
        }
        let ip = conn.remote.ip();
        if AddressScope::of(ip).is_exempt_from_address_rules() {
            return None;
        }
        let caps = self.caps_at(ip).into_iter();
        // Who moves from one block to another takes a place there.
        let mut caps = caps.filter(|(block, _)| !held.is_some_and(|held| block.contains(held.remote.ip())));
        caps.find_map(|(block, most)| {
            (self.conns.used().within(false, &block) >= most)
                .then(|| format!("all {most} inbound places for {block} are taken"))
        })
    }

    /// The blocks of an address that caps count, with their caps: for visits, and for others.
    pub(crate) fn caps_at(&self, ip: IpAddr) -> [(IpPrefix, usize); 2] {
        let (address, subnet) = (IpPrefix::address_of(ip), IpPrefix::subnet_of(ip));
        [(address, self.config.max_inbound_per_address), (subnet, self.config.max_inbound_per_subnet)]
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
        let held =
            held.filter(|held| held.place == Direction::Outbound && !held.visit).map(|held| held.counted);
        if let Some(counted) = held {
            // A peer that we want stays one, whatever it wants itself.
            self.change_conn(id, |conn| {
                (conn.place, conn.counted, conn.visit) = (Direction::Outbound, counted, false);
            });
        }
    }

    /// The connection by which a peer takes a place.
    pub(crate) fn place_of(&self, peer: &PeerId, place: Place) -> Option<&Conn> {
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
            for place in Place::ALL {
                let conns = self.conns_of(peer).filter_map(|id| self.conns.get(&id));
                let heard =
                    |conn: &Conn| conn.place == Direction::Outbound || conn.state != ConnState::Greeting;
                let takes =
                    |conn: &&Conn| Place { direction: conn.place, visit: conn.visit } == place && heard(conn);
                let counted = conns.filter(|conn| self.counts(conn));
                counted.filter(takes).last().into_iter().for_each(|conn| used.came(place, conn.remote.ip()));
            }
        }
        used
    }

    /// Whether the caps count a connection.
    pub(crate) fn counts(&self, conn: &Conn) -> bool {
        conn.counted && !self.book.classes.is_exempt(&conn.peer)
    }
}
