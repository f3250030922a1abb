//! What a refused dialler is told: whom else it may try, and when to come back.
//!
//! Only records of peers that a handshake has proved, none of a private peer, and at most two from one subnet (/24, /48), so that one network
//! cannot collect those whom we turn away. What is given away in a peer exchange follows the same rules, but for the subnets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;
use peerage_identity::{AddressScope, DialAddress, IpPrefix, PeerId, SignedPeerRecord};

use crate::book::KnownPeer;
use crate::class::PeerClass;
use crate::manager::PeerManager;

/// Alternatives from one subnet.
pub(crate) const MAX_PER_SUBNET: usize = 2;

impl PeerManager {
    /// Up to `most` records of others that `to` may have, drawn at random.
    pub(crate) fn shareable(&mut self, to: PeerId, most: usize) -> Vec<Bytes> {
        self.draw_records(to, most, |_| true)
    }

    /// Records of others that `to` may have, as many as a refusal holds, drawn at random from different subnets.
    pub(crate) fn alternatives(&mut self, to: PeerId) -> Vec<Bytes> {
        let mut subnets: BTreeMap<IpPrefix, usize> = BTreeMap::new();
        self.draw_records(to, self.config.max_alternatives, |record| {
            let crowded = |subnet| subnets.get(subnet).is_some_and(|count| *count >= MAX_PER_SUBNET);
            let of_record: BTreeSet<IpPrefix> = record.addresses().iter().filter_map(subnet_of).collect();
            if of_record.iter().any(crowded) {
                return false;
            }
            of_record.into_iter().for_each(|subnet| *subnets.entry(subnet).or_default() += 1);
            true
        })
    }

    /// Up to `most` records that `to` may have and `fits` takes. Strangers can ask for this, and the book may hold thousands: so only those that are drawn
    /// are looked at closely.
    fn draw_records(
        &mut self,
        to: PeerId,
        most: usize,
        mut fits: impl FnMut(&SignedPeerRecord) -> bool,
    ) -> Vec<Bytes> {
        let mut random = self.random.fork();
        let private = self.private_endpoints(&to);
        let mut left: Vec<_> = self.book.iter().filter(|(_, known)| known.record.is_some()).collect();
        let mut drawn = Vec::new();
        while drawn.len() < most && !left.is_empty() {
            let (peer, known) = left.swap_remove(random.index(left.len()));
            if *peer != to
                && let Some(record) = self.shareable_record(peer, known, &private)
                && fits(record)
            {
                drawn.push(record.as_bytes().clone());
            }
        }
        drawn
    }

    /// The peer's record, if others may have it: a handshake has proved the peer at one of its addresses, it is neither private nor banned, and names no
    /// address of a `private` one.
    fn shareable_record<'a>(
        &self,
        peer: &PeerId,
        known: &'a KnownPeer,
        private: &BTreeSet<DialAddress>,
    ) -> Option<&'a SignedPeerRecord> {
        if !known.is_verified() || self.is_private(peer) || self.ban_on(peer, None).is_some() {
            return None;
        }
        let record = known.record.as_ref().filter(|record| is_plausible(record, known))?;
        let names = |address: &DialAddress| private.contains(&address.clone().without_peer_id());
        let told =
            !record.addresses().is_empty() && (private.is_empty() || !record.addresses().iter().any(names));
        told.then_some(record)
    }

    /// Whether neither the ID nor the addresses of `peer` may stand in a message to anyone but itself. What exports and answers of other
    /// protocols must ask too.
    pub fn is_private(&self, peer: &PeerId) -> bool {
        self.book.classes.has(peer, PeerClass::Private)
    }

    /// Where private peers other than `to` are.
    pub(crate) fn private_endpoints(&self, to: &PeerId) -> BTreeSet<DialAddress> {
        let private = self.book.classes.with(PeerClass::Private).filter(|peer| peer != to);
        let mut endpoints = BTreeSet::new();
        for peer in private {
            let known = self.book.get(&peer);
            endpoints.extend(known.iter().flat_map(|known| &known.addresses).map(|at| at.address.clone()));
            let record = known.and_then(|known| known.record.as_ref());
            let said = record.iter().flat_map(|record| record.addresses());
            endpoints.extend(said.map(|address| address.clone().without_peer_id()));
        }
        let remotes = self.conns.values().filter(|conn| conn.peer != *to && self.is_private(&conn.peer));
        endpoints.extend(remotes.filter_map(|conn| DialAddress::from_socket_addr(conn.remote).ok()));
        endpoints
    }
}

/// Whether a record may be passed on, as far as it is known: it must not name a global address that was never proved beside a proved one of the
/// same IP version on another host, nor a name that was never proved, which may lead anywhere. A peer that answers at one address of its own
/// could else have everyone dial a second one that is a third party's.
fn is_plausible(record: &SignedPeerRecord, known: &KnownPeer) -> bool {
    let ip_of = |address: &DialAddress| address.socket_addr().map(|socket| socket.ip());
    let proved: Vec<IpAddr> =
        known.addresses.iter().filter(|at| at.seen.is_some()).filter_map(|at| ip_of(&at.address)).collect();
    let seen = |name: &DialAddress| {
        let name = name.clone().without_peer_id();
        known.addresses.iter().any(|at| at.address == name && at.seen.is_some())
    };
    if record.addresses().iter().any(|address| ip_of(address).is_none() && !seen(address)) {
        return false;
    }
    let is_global = |ip: &IpAddr| AddressScope::of(*ip) == AddressScope::Global;
    record.addresses().iter().filter_map(ip_of).filter(is_global).all(|ip| {
        let mut rivals = proved.iter().filter(|other| is_global(other) && other.is_ipv4() == ip.is_ipv4());
        let near = |other: &IpAddr| IpPrefix::address_of(*other).contains(ip);
        proved.iter().any(near) || rivals.next().is_none()
    })
}

/// The subnet that an address counts for; `None` for a name, and for loopback, where one address is many nodes.
fn subnet_of(address: &DialAddress) -> Option<IpPrefix> {
    let ip = address.socket_addr()?.ip();
    (!AddressScope::of(ip).is_exempt_from_address_rules()).then(|| IpPrefix::subnet_of(ip))
}
