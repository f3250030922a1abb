//! How many connections there may be: the caps, and who counts.
//!
//! An outbound place is taken from the moment at which a dial begins. An inbound one is taken from the good hello on, so that a handshake
//! which is still open counts, and one that says nothing does not keep others out: of those that have not said hello yet there are only so
//! many, and when one too many comes, the oldest of the most crowded subnet goes.
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

impl PeerManager {
    /// Outbound places in use: connections and dials that the cap counts.
    pub(crate) fn outbound_used(&self) -> usize {
        let conns =
            self.conns.values().filter(|conn| conn.direction == Direction::Outbound && self.counts(conn));
        conns.count() + self.attempts.values().filter(|attempt| attempt.counted).count()
    }

    /// Inbound places in use: connections whose hello was found good and that the cap counts.
    pub(crate) fn inbound_used(&self) -> usize {
        self.inbound_places().count()
    }

    pub(crate) fn inbound_full(&self) -> bool {
        self.inbound_used() >= self.config.max_inbound
    }

    /// Why there is no place for a connection; `None` when there is one, or when it would only take another one's of the same peer.
    pub(crate) fn no_place(&self, conn: &Conn) -> Option<String> {
        if conn.direction == Direction::Outbound || !self.counts(conn) || self.holds_inbound_place(&conn.peer)
        {
            return None;
        }
        if self.inbound_full() {
            return Some(format!("all {} inbound places are taken", self.config.max_inbound));
        }
        let ip = conn.remote.ip();
        if AddressScope::of(ip).is_exempt_from_address_rules() {
            return None;
        }
        let (address, subnet) = (IpPrefix::address_of(ip), IpPrefix::subnet_of(ip));
        let caps =
            [(address, self.config.max_inbound_per_address), (subnet, self.config.max_inbound_per_subnet)];
        caps.into_iter().find_map(|(block, most)| {
            let used = self.inbound_places().filter(|conn| block.contains(conn.remote.ip())).count();
            (used >= most).then(|| format!("all {most} inbound places for {block} are taken"))
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

    fn inbound_places(&self) -> impl Iterator<Item = &Conn> {
        self.conns.values().filter(|conn| {
            conn.direction == Direction::Inbound && conn.state != ConnState::Greeting && self.counts(conn)
        })
    }

    /// Whether a new inbound connection of `peer` would only take the place of another one of its own.
    fn holds_inbound_place(&self, peer: &PeerId) -> bool {
        let accepted = self.pairs.get(peer).and_then(|pair| pair.accepted_by_us());
        let conn = accepted.or_else(|| self.foreign_conn(peer)).and_then(|id| self.conns.get(&id));
        conn.is_some_and(|conn| conn.counted && conn.direction == Direction::Inbound)
    }

    /// Whether the caps count a connection.
    pub(crate) fn counts(&self, conn: &Conn) -> bool {
        conn.counted && !self.book.classes.is_exempt(&conn.peer)
    }
}
