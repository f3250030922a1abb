//! Where others see us: votes on our own address.
//!
//! A node behind a NAT learns its public address only from others, and any of them may lie: an announced address is dialled by everyone. So
//!
//! - only peers that we dialled vote, and those that the user has given a class: whoever comes to us by itself could come in any number;
//! - votes are counted by address group (/24, /48; on loopback each peer is a group), one vote for each peer, the latest;
//! - an address counts when enough groups agree on it, and more than half of all groups of its IP version;
//! - a vote's address must be credible from where the voter is ([`AddressScope::is_credible_from`]).
//!
//! Behind a NAT that gives a new port for each peer no two votes agree, and nothing is announced, which is right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{AddressScope, DialAddress, IpPrefix, PeerId};
use peerage_machine::Now;

use crate::manager::PeerManager;
use crate::types::{ConnId, Output};

/// Votes that are kept. The oldest gives way.
pub(crate) const MAX_VOTES: usize = 64;
/// After so long a vote is forgotten, unless it is said again.
pub(crate) const VOTE_LASTS: Duration = Duration::from_secs(3600);

/// What peers say about our address.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    by_peer: BTreeMap<PeerId, Vote>,
    agreed: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Vote {
    group: Group,
    says: SocketAddr,
    at: Duration,
}

/// Voters that count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Subnet(IpPrefix),
    /// On loopback, where one address is many nodes.
    Peer(PeerId),
}

impl Votes {
    /// Takes a vote. The addresses that are agreed on, when that changes them.
    fn cast(
        &mut self,
        now: Duration,
        peer: PeerId,
        from: SocketAddr,
        says: SocketAddr,
        quorum: usize,
    ) -> Option<&[SocketAddr]> {
        let group = match AddressScope::of(from.ip()).is_exempt_from_address_rules() {
            true => Group::Peer(peer),
            false => Group::Subnet(IpPrefix::subnet_of(from.ip())),
        };
        self.by_peer.retain(|_, vote| now.saturating_sub(vote.at) < VOTE_LASTS);
        self.by_peer.insert(peer, Vote { group, says, at: now });
        if self.by_peer.len() > MAX_VOTES {
            let oldest = self.by_peer.iter().min_by_key(|(_, vote)| vote.at).map(|(peer, _)| *peer);
            oldest.map(|peer| self.by_peer.remove(&peer));
        }
        let agreed = self.count(quorum);
        let changed = agreed != self.agreed;
        self.agreed = agreed;
        changed.then_some(&self.agreed)
    }

    fn count(&self, quorum: usize) -> Vec<SocketAddr> {
        let mut groups: BTreeMap<SocketAddr, BTreeSet<Group>> = BTreeMap::new();
        for vote in self.by_peer.values() {
            groups.entry(vote.says).or_default().insert(vote.group);
        }
        let voted = |v4: bool| {
            let of_version = self.by_peer.values().filter(|vote| vote.says.is_ipv4() == v4);
            of_version.map(|vote| vote.group).collect::<BTreeSet<_>>().len()
        };
        let voted = [voted(false), voted(true)];
        let enough = |address: &SocketAddr, votes: usize| {
            votes >= quorum.max(1) && votes * 2 > voted[usize::from(address.is_ipv4())]
        };
        groups
            .into_iter()
            .filter(|(address, by)| enough(address, by.len()))
            .map(|(address, _)| address)
            .collect()
    }
}

impl PeerManager {
    /// A peer said at which address it sees us.
    pub(crate) fn observed(&mut self, now: Now, id: ConnId, says: SocketAddr) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (peer, from) = (conn.peer, conn.remote);
        let may_vote = self.is_chosen(&peer, conn.direction);
        let says = SocketAddr::new(says.ip().to_canonical(), says.port());
        let possible = DialAddress::from_socket_addr(says).is_ok()
            && AddressScope::of(says.ip()).is_credible_from(AddressScope::of(from.ip()));
        if !may_vote || !possible || self.admitted(&peer) != Some(id) {
            return;
        }
        let agreed = self.votes.cast(now.mono, peer, from, says, self.config.observed_quorum);
        if let Some(addresses) = agreed.map(<[_]>::to_vec) {
            self.outputs.push_back(Output::Observed { addresses });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        peerage_identity::NodeKey::from_seed([number; 32]).peer_id()
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_counts_when_three_groups_agree_and_most_do() {
        let (mut votes, ours, lie) = (Votes::default(), at("30.0.0.1:4000"), at("66.6.6.6:443"));
        let mut cast = |number, from: &str, says| {
            votes.cast(Duration::ZERO, peer(number), at(from), says, 3).map(<[_]>::to_vec)
        };
        assert_eq!(cast(1, "20.0.1.1:1", ours), None);
        assert_eq!(cast(2, "20.0.2.1:1", ours), None);
        // A neighbour of the second adds nothing.
        assert_eq!(cast(3, "20.0.2.2:1", ours), None);
        assert_eq!(cast(4, "20.0.4.1:1", ours), Some(vec![ours]));
        // As many as said the truth lie: neither has most.
        for (number, from) in [(5, "20.0.5.1:1"), (6, "20.0.6.1:1")] {
            assert_eq!(cast(number, from, lie), None);
        }
        assert_eq!(cast(7, "20.0.7.1:1", lie), Some(vec![]));
        // The first liar thinks better of it.
        assert_eq!(cast(5, "20.0.5.1:1", ours), Some(vec![ours]));
    }

    #[test]
    fn votes_are_bounded_and_grow_old() {
        let (mut votes, ours) = (Votes::default(), at("30.0.0.1:4000"));
        for number in 0..200u8 {
            let from = SocketAddr::from(([20, 0, number, 1], 1));
            votes.cast(Duration::from_secs(number.into()), peer(number), from, ours, 3);
        }
        assert_eq!(votes.by_peer.len(), MAX_VOTES);
        let late = Duration::from_secs(200) + VOTE_LASTS;
        assert_eq!(votes.cast(late, peer(1), at("20.0.1.1:1"), ours, 3), Some(&[][..]));
    }
}
