//! The address book: peers that we know of, where they may be reached, and how that went.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{AddressScope, DialAddress, IpPrefix, PeerId, SignedPeerRecord};
use peerage_machine::Random;

use crate::class::Classes;
use crate::config::PeersConfig;

/// Who told us an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A third party said so: it is dialled, but never passed on before it worked.
    Hearsay,
    /// The peer itself, in its signed record.
    Itself,
    /// Our user.
    User,
}

/// The peer that told us something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Teller {
    /// Who.
    pub(crate) peer: PeerId,
    /// Where we see it.
    pub(crate) at: SocketAddr,
    /// We dialled it, or our user named it: it did not choose us.
    pub(crate) chosen: bool,
}

/// One address of a peer, without the peer ID at its end.
#[derive(Debug, Clone)]
pub(crate) struct KnownAddress {
    pub(crate) address: DialAddress,
    pub(crate) source: Source,
    /// Failures since the last success.
    pub(crate) failures: u32,
    /// The last time that a handshake proved the peer to be there.
    pub(crate) seen: Option<Duration>,
}

/// What we know of one peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownPeer {
    pub(crate) addresses: Vec<KnownAddress>,
    pub(crate) record: Option<SignedPeerRecord>,
    /// Failures since the last useful connection.
    pub(crate) failures: u32,
    /// Who told us of it first, and whose share of the book it takes until a handshake has proved it.
    pub(crate) told_by: Option<(PeerId, IpPrefix)>,
    /// The user disconnected it: no redial until the user names it again.
    pub(crate) held: bool,
}

impl KnownPeer {
    /// The address to try next: one that worked lately, else the one that failed least, else the best-vouched.
    pub(crate) fn best_address(&self) -> Option<&KnownAddress> {
        self.addresses.iter().min_by_key(|known| {
            (known.failures, std::cmp::Reverse(known.seen), std::cmp::Reverse(known.source))
        })
    }

    /// A handshake has proved one of its addresses.
    pub(crate) fn is_verified(&self) -> bool {
        self.addresses.iter().any(|known| known.seen.is_some())
    }

    fn note(&mut self, address: &DialAddress, source: Source, most: usize) {
        if let Some(known) = self.addresses.iter_mut().find(|known| known.address == *address) {
            known.source = known.source.max(source);
            return;
        }
        if self.addresses.len() >= most {
            let weakest = (0..self.addresses.len()).min_by_key(|index| {
                let known = &self.addresses[*index];
                (known.source, known.seen.is_some(), known.failures)
            });
            match weakest {
                Some(index)
                    if self.addresses[index].source <= source && self.addresses[index].seen.is_none() =>
                {
                    self.addresses.remove(index);
                }
                _ => return,
            }
        }
        self.addresses.reserve_exact(1);
        self.addresses.push(KnownAddress { address: address.clone(), source, failures: 0, seen: None });
    }
}

/// All known peers, bounded.
#[derive(Debug)]
pub(crate) struct Book {
    /// Who is kept whatever happens, and why.
    pub(crate) classes: Classes,
    /// Where this node itself is: what it announces, and with a time where a dial found it.
    pub(crate) own: BTreeMap<DialAddress, Option<Duration>>,
    peers: BTreeMap<PeerId, KnownPeer>,
    max_peers: usize,
    max_addresses: usize,
}

impl Book {
    pub(crate) fn new(config: &PeersConfig) -> Self {
        Self {
            classes: Classes::default(),
            own: BTreeMap::new(),
            peers: BTreeMap::new(),
            max_peers: config.max_known_peers,
            max_addresses: config.max_addresses_per_peer,
        }
    }

    pub(crate) fn get(&self, peer: &PeerId) -> Option<&KnownPeer> {
        self.peers.get(peer)
    }

    pub(crate) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut KnownPeer> {
        self.peers.get_mut(peer)
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerId, &KnownPeer)> {
        self.peers.iter()
    }

    /// The entry of a peer, made if need be. Where the book is full, one that was only hearsay gives way; `None` when there is none.
    pub(crate) fn entry(&mut self, peer: PeerId, random: &mut Random) -> Option<&mut KnownPeer> {
        if !self.peers.contains_key(&peer) && self.peers.len() >= self.max_peers && !self.evict(random) {
            return None;
        }
        Some(self.peers.entry(peer).or_default())
    }

    /// Adds an address that the user or a handshake vouches for.
    pub(crate) fn note(&mut self, peer: PeerId, address: &DialAddress, source: Source, random: &mut Random) {
        let most = self.max_addresses;
        if let Some(known) = self.entry(peer, random) {
            known.note(&address.clone().without_peer_id(), source, most);
        }
    }

    /// How many entries of others `teller` may still add. What a handshake has proved, or the user vouches for, is nobody's share any more.
    pub(crate) fn room_for(&self, teller: &Teller, config: &PeersConfig) -> usize {
        let subnet = IpPrefix::subnet_of(teller.at.ip());
        let (mut by_peer, mut by_subnet) = (0, 0);
        for known in self.peers.values() {
            if let Some((peer, at)) = known.told_by
                && !known.is_verified()
            {
                by_peer += usize::from(peer == teller.peer);
                by_subnet += usize::from(at == subnet);
            }
        }
        let room = config.max_hearsay_per_peer.saturating_sub(by_peer);
        match AddressScope::of(teller.at.ip()).is_exempt_from_address_rules() {
            true => room,
            false => room.min(config.max_hearsay_per_subnet.saturating_sub(by_subnet)),
        }
    }

    /// Takes over a peer's signed record. True when it was news.
    ///
    /// Addresses are taken only from a source in the same scope or a narrower one ([`in_scope`]). What a peer that came to us says about itself is
    /// taken only for the address from which it came: else whoever connects to many nodes could make all of them dial a third
    /// party. What a peer that we dialled says about itself beyond that is hearsay as any other. A newer record replaces what older
    /// ones said, but nothing that a handshake has proved and nothing that the user said.
    pub(crate) fn learn(
        &mut self,
        record: &SignedPeerRecord,
        source: Source,
        teller: Teller,
        random: &mut Random,
    ) -> bool {
        let most = self.max_addresses;
        let peer = record.peer_id();
        let home = IpPrefix::address_of(teller.at.ip());
        let at_home = |a: &DialAddress| a.socket_addr().is_some_and(|a| home.contains(a.ip()));
        let guest = source == Source::Itself && !teller.chosen;
        let addresses: Vec<_> = record
            .addresses()
            .iter()
            .filter(|a| in_scope(a, teller.at) && (!guest || at_home(a)))
            .filter(|a| !self.own.contains_key(&(*a).clone().without_peer_id()))
            .cloned()
            .collect();
        if addresses.is_empty() && source == Source::Hearsay {
            return false;
        }
        let Some(known) = self.entry(peer, random) else {
            return false;
        };
        if known.record.as_ref().is_some_and(|old| !record.is_newer_than(old)) {
            return false;
        }
        known.record = Some(record.clone());
        known.addresses.retain(|old| {
            old.source == Source::User
                || old.seen.is_some()
                || addresses.iter().any(|a| same(a, &old.address))
        });
        if known.addresses.is_empty() && source == Source::Hearsay {
            known.told_by = Some((teller.peer, IpPrefix::subnet_of(teller.at.ip())));
        }
        for address in addresses {
            let source = if at_home(&address) { source } else { source.min(Source::Hearsay) };
            known.note(&address.clone().without_peer_id(), source, most);
        }
        true
    }

    /// A handshake proved that `peer` is at `address`.
    pub(crate) fn proved(&mut self, peer: PeerId, address: &DialAddress, now: Duration, random: &mut Random) {
        self.note(peer, address, Source::Itself, random);
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Some(at) = known.addresses.iter_mut().find(|at| same(&at.address, address)) {
            at.failures = 0;
            at.seen = Some(now);
        }
    }

    /// An inbound connection came from `remote`: if the peer says that it listens there, that is proved.
    pub(crate) fn came_from(&mut self, peer: &PeerId, remote: SocketAddr, now: Duration) {
        let Some(known) = self.peers.get_mut(peer) else {
            return;
        };
        for at in &mut known.addresses {
            if at.address.socket_addr() == Some(remote) {
                at.failures = 0;
                at.seen = Some(now);
            }
        }
    }

    /// A dial failed. An address that is somebody else's, or hearsay that failed often, is forgotten; a peer without addresses too.
    pub(crate) fn failed(&mut self, peer: &PeerId, address: &DialAddress, hostile: bool, max_hearsay: u32) {
        let Some(known) = self.peers.get_mut(peer) else {
            return;
        };
        known.addresses.retain_mut(|at| {
            if !same(&at.address, address) {
                return true;
            }
            at.failures = at.failures.saturating_add(1);
            let worthless = hostile || (at.source == Source::Hearsay && at.failures >= max_hearsay);
            at.source == Source::User || !worthless
        });
        if known.addresses.is_empty() && !self.classes.is_named(peer) {
            self.peers.remove(peer);
        }
    }

    fn evict(&mut self, random: &mut Random) -> bool {
        let hearsay: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(peer, known)| {
                !self.classes.is_named(peer)
                    && !known.is_verified()
                    && known.addresses.iter().all(|at| at.source != Source::User)
            })
            .map(|(peer, _)| *peer)
            .collect();
        match hearsay.get(random.index(hearsay.len())) {
            Some(peer) => self.peers.remove(peer).is_some(),
            None => false,
        }
    }
}

/// Whether a teller at `teller` may make us dial `address`: a global address may come from anyone, a private or loopback one only
/// from someone who is there too, so that no stranger can send us into our own network. Names are judged when they are resolved.
pub(crate) fn in_scope(address: &DialAddress, teller: SocketAddr) -> bool {
    let Some(socket) = address.socket_addr() else {
        return true;
    };
    AddressScope::of(socket.ip()).is_credible_from(AddressScope::of(teller.ip()))
}

fn same(a: &DialAddress, b: &DialAddress) -> bool {
    a.same_endpoint(b)
}
