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
const MAX_PER_SUBNET: usize = 2;

impl PeerManager {
    /// Up to `most` records of others that `to` may have, drawn at random.
    pub(crate) fn shareable(&mut self, to: PeerId, most: usize) -> Vec<Bytes> {
        let mut records = self.shareable_records(to);
        self.random.shuffle(&mut records);
        records.into_iter().take(most).map(|record| record.as_bytes().clone()).collect()
    }

    /// Up to `most` records of others that `to` may have, from different subnets.
    pub(crate) fn alternatives(&mut self, to: PeerId) -> Vec<Bytes> {
        let mut records = self.shareable_records(to);
        self.random.shuffle(&mut records);
        let mut subnets: BTreeMap<IpPrefix, usize> = BTreeMap::new();
        records.retain(|record| {
            let crowded = |subnet| subnets.get(subnet).is_some_and(|count| *count >= MAX_PER_SUBNET);
            let of_record: BTreeSet<IpPrefix> = record.addresses().iter().filter_map(subnet_of).collect();
            if of_record.iter().any(crowded) {
                return false;
            }
            of_record.into_iter().for_each(|subnet| *subnets.entry(subnet).or_default() += 1);
            true
        });
        records.truncate(self.config.max_alternatives);
        records.into_iter().map(|record| record.as_bytes().clone()).collect()
    }

    /// Records that `to` may have, in the order of the book: of peers that a handshake has proved at one of their addresses, and never
    /// of a private one, nor one that names a private peer's address.
    fn shareable_records(&self, to: PeerId) -> Vec<SignedPeerRecord> {
        let private = self.private_endpoints(&to);
        let may_be_told = |peer: &PeerId, known: &KnownPeer| {
            *peer != to && known.is_verified() && !self.is_private(peer) && self.ban_on(peer, None).is_none()
        };
        self.book
            .iter()
            .filter(|(peer, known)| may_be_told(peer, known))
            .filter_map(|(_, known)| known.record.as_ref().filter(|record| is_plausible(record, known)))
            .filter(|record| !record.addresses().is_empty())
            .filter(|record| {
                private.is_empty()
                    || !record.addresses().iter().any(|a| private.contains(&a.clone().without_peer_id()))
            })
            .cloned()
            .collect()
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
/// same IP version on another host. A peer that answers at one address of its own could else have everyone dial a second one that is a
/// third party's.
fn is_plausible(record: &SignedPeerRecord, known: &KnownPeer) -> bool {
    let ip_of = |address: &DialAddress| address.socket_addr().map(|socket| socket.ip());
    let proved: Vec<IpAddr> =
        known.addresses.iter().filter(|at| at.seen.is_some()).filter_map(|at| ip_of(&at.address)).collect();
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
