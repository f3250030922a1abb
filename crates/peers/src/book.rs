//! The address book: peers that we know of, where they may be reached, and how that went.
//!
//! It is bounded. Where it is full, the entry that is worth least gives way: hearsay before what a handshake has proved, and of the
//! proved ones those that were connected for the shortest time. Hearsay never displaces a proved entry, and nothing displaces what the
//! user named or who is connected.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use peerage_identity::{AddressScope, DialAddress, IpPrefix, PeerId, SignedPeerRecord};
use peerage_machine::{Now, Random};
use serde::{Deserialize, Serialize};

use crate::class::Classes;
use crate::config::PeersConfig;

/// Who told us an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
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
    /// From where whoever told us of it was reached: a name may lead us no nearer than this. The user may name anything.
    pub(crate) told_from: Option<AddressScope>,
    /// Handshakes that proved the peer to be there.
    pub(crate) successes: u32,
    /// Dials that did not, since the last one that did.
    pub(crate) failures: u32,
    /// Dials that did not, in all.
    pub(crate) all_failures: u32,
    /// Dials that this machine could not even begin. They only move the address behind others.
    pub(crate) skipped: u32,
    /// The last time that a handshake proved the peer to be there, as [`Now::unix`].
    pub(crate) seen: Option<Duration>,
    /// The last round trip.
    pub(crate) rtt: Option<Duration>,
}

impl KnownAddress {
    /// What comes first is to be tried first.
    fn rank(&self) -> impl Ord + use<> {
        (self.failures.saturating_add(self.skipped), Reverse(self.seen), Reverse(self.source))
    }

    pub(crate) fn new(address: DialAddress, source: Source, told_from: Option<AddressScope>) -> Self {
        Self {
            address,
            source,
            told_from,
            successes: 0,
            failures: 0,
            all_failures: 0,
            skipped: 0,
            seen: None,
            rtt: None,
        }
    }

    /// Nobody but third parties vouches for it, so dials to it are counted against the budget of its target.
    pub(crate) fn is_unproved(&self) -> bool {
        self.source != Source::User && self.seen.is_none()
    }
}

/// What we know of one peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownPeer {
    pub(crate) addresses: Vec<KnownAddress>,
    pub(crate) record: Option<SignedPeerRecord>,
    /// A contact for the first dials: dialled while peers are few.
    pub(crate) seed: bool,
    /// Failures since the last useful connection that are charged to it.
    pub(crate) failures: u32,
    /// Who told us of it first, and whose share of the book it takes until a handshake has proved it.
    pub(crate) told_by: Option<Box<(PeerId, IpPrefix)>>,
    /// How often in a row it had no room for us, since the last useful connection.
    pub(crate) overloads: u32,
    /// Dials that failed by a fault of our own, since the last connection.
    pub(crate) local_failures: u32,
    /// Not dialled before this time, as [`Now::unix`].
    pub(crate) retry_at: Duration,
    /// Not visited before this time, as [`Now::unix`]: it had no room for a visit.
    pub(crate) visit_after: Duration,
    /// The user disconnected it: no redial until the user names it again.
    pub(crate) held: bool,
    /// It is connected now.
    pub(crate) connected: bool,
    /// When it was first heard of, as [`Now::unix`].
    pub(crate) first_known: Duration,
    /// How long it was connected, in all.
    pub(crate) connected_for: Duration,
    /// Decides among equals which one gives way.
    pub(crate) tie: u64,
}

impl KnownPeer {
    /// The address to try next: one that worked lately, else the one that failed least, else the best-vouched.
    pub(crate) fn best_address(&self) -> Option<&KnownAddress> {
        self.addresses.iter().min_by_key(|known| known.rank())
    }

    /// All addresses, the one to try next first.
    pub(crate) fn in_order(&self) -> Vec<&KnownAddress> {
        let mut addresses: Vec<_> = self.addresses.iter().collect();
        addresses.sort_by_key(|known| known.rank());
        addresses
    }

    /// A handshake has proved one of its addresses.
    pub(crate) fn is_verified(&self) -> bool {
        self.addresses.iter().any(|known| known.seen.is_some())
    }

    /// The entry with the lowest worth gives way first; `None` for one that never does.
    fn worth(&self) -> Option<Worth> {
        if self.connected || self.addresses.iter().any(|at| at.source == Source::User) {
            return None;
        }
        if !self.is_verified() {
            return Some(Worth { verified: false, long: 0, good: u32::MAX - self.failures, tie: self.tie });
        }
        // Doublings of the time connected, so that a minute more or less decides nothing, then when it was last seen.
        let long = (self.connected_for.as_secs() / 60 + 1).ilog2();
        let seen = self.addresses.iter().filter_map(|at| at.seen).max().unwrap_or_default();
        let good = u32::try_from(seen.as_secs()).unwrap_or(u32::MAX);
        Some(Worth { verified: true, long, good, tie: self.tie })
    }

    fn note(&mut self, new: KnownAddress, most: usize) {
        if let Some(known) = self.addresses.iter_mut().find(|known| known.address == new.address) {
            known.source = known.source.max(new.source);
            if new.source == Source::User {
                known.told_from = None;
            }
            return;
        }
        if self.addresses.len() >= most {
            let weakest = (0..self.addresses.len()).min_by_key(|index| {
                let known = &self.addresses[*index];
                (known.source, known.seen.is_some(), u32::MAX - known.failures)
            });
            match weakest {
                Some(index)
                    if self.addresses[index].source <= new.source && self.addresses[index].seen.is_none() =>
                {
                    self.addresses.remove(index);
                }
                _ => return,
            }
        }
        self.addresses.reserve_exact(1);
        // Most have one.
        self.addresses.reserve_exact(1);
        self.addresses.push(new);
    }
}

/// What an entry is worth to us. Fields in the order of their weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    verified: bool,
    long: u32,
    good: u32,
    tie: u64,
}

/// All known peers, bounded.
#[derive(Debug)]
pub(crate) struct Book {
    /// Who is kept whatever happens, and why.
    pub(crate) classes: Classes,
    /// Where this node itself is: what it announces, and with a time where a dial found it.
    pub(crate) own: BTreeMap<DialAddress, Option<Duration>>,
    /// Boxed: a tree has more room than it uses.
    peers: BTreeMap<PeerId, Box<KnownPeer>>,
    /// Those that may give way, the least worthy first.
    by_worth: BTreeSet<(Worth, PeerId)>,
    max_peers: usize,
    max_addresses: usize,
    /// Entries that changed or went since they were last stored; `None` while nobody stores them.
    pub(crate) unsaved: Option<BTreeSet<PeerId>>,
    /// Entries that went and that the manager has not heard of yet.
    gone: Vec<PeerId>,
}

/// Write access to one entry. When it is dropped, the book takes the changes in.
#[derive(Debug)]
pub(crate) struct EntryMut<'a> {
    book: &'a mut Book,
    peer: PeerId,
    /// Taken out of the book meanwhile, so that it is always there.
    entry: Box<KnownPeer>,
}

impl Deref for EntryMut<'_> {
    type Target = KnownPeer;
    fn deref(&self) -> &KnownPeer {
        &self.entry
    }
}

impl DerefMut for EntryMut<'_> {
    fn deref_mut(&mut self) -> &mut KnownPeer {
        &mut self.entry
    }
}

impl Drop for EntryMut<'_> {
    fn drop(&mut self) {
        self.book.put(self.peer, std::mem::take(&mut self.entry));
    }
}

impl Book {
    pub(crate) fn new(config: &PeersConfig) -> Self {
        Self {
            classes: Classes::default(),
            own: BTreeMap::new(),
            peers: BTreeMap::new(),
            by_worth: BTreeSet::new(),
            max_peers: config.max_known_peers,
            max_addresses: config.max_addresses_per_peer,
            unsaved: None,
            gone: Vec::new(),
        }
    }

    pub(crate) fn get(&self, peer: &PeerId) -> Option<&KnownPeer> {
        self.peers.get(peer).map(|known| &**known)
    }

    pub(crate) fn get_mut(&mut self, peer: &PeerId) -> Option<EntryMut<'_>> {
        let entry = self.take(peer)?;
        Some(EntryMut { book: self, peer: *peer, entry })
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerId, &KnownPeer)> {
        self.peers.iter().map(|(peer, known)| (peer, &**known))
    }

    /// The entry of a peer, made if need be. Where the book is full, the least worthy gives way: for hearsay only other hearsay. `None`
    /// when there is none.
    pub(crate) fn entry(
        &mut self,
        now: Now,
        peer: PeerId,
        source: Source,
        random: &mut Random,
    ) -> Option<EntryMut<'_>> {
        let entry = match self.take(&peer) {
            Some(known) => known,
            None if self.peers.len() >= self.max_peers && !self.evict(source) => return None,
            None => {
                let fresh = KnownPeer { tie: random.number(), first_known: now.unix, ..KnownPeer::default() };
                Box::new(fresh)
            }
        };
        Some(EntryMut { book: self, peer, entry })
    }

    /// Adds an address that the user or a handshake vouches for.
    pub(crate) fn note(
        &mut self,
        now: Now,
        peer: PeerId,
        address: &DialAddress,
        source: Source,
        random: &mut Random,
    ) {
        let most = self.max_addresses;
        if let Some(mut known) = self.entry(now, peer, source, random) {
            known.note(KnownAddress::new(address.clone().without_peer_id(), source, None), most);
        }
    }

    /// How many entries of others `teller` may still add. What a handshake has proved, or the user vouches for, is nobody's share any more.
    pub(crate) fn room_for(&self, teller: &Teller, config: &PeersConfig) -> usize {
        let subnet = IpPrefix::subnet_of(teller.at.ip());
        let (mut by_peer, mut by_subnet) = (0, 0);
        for known in self.peers.values() {
            if let Some((peer, at)) = known.told_by.as_deref()
                && !known.is_verified()
            {
                by_peer += usize::from(*peer == teller.peer);
                by_subnet += usize::from(*at == subnet);
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
        now: Now,
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
        if self
            .get(&peer)
            .is_some_and(|known| known.record.as_ref().is_some_and(|old| !record.is_newer_than(old)))
        {
            return false;
        }
        let Some(mut known) = self.entry(now, peer, source, random) else {
            return false;
        };
        known.record = Some(record.clone());
        known.addresses.retain(|old| {
            old.source == Source::User
                || old.seen.is_some()
                || addresses.iter().any(|a| same(a, &old.address))
        });
        if known.addresses.is_empty() && source == Source::Hearsay {
            known.told_by = Some(Box::new((teller.peer, IpPrefix::subnet_of(teller.at.ip()))));
        }
        let scope = AddressScope::of(teller.at.ip());
        for address in addresses {
            let source = if at_home(&address) { source } else { source.min(Source::Hearsay) };
            known.note(KnownAddress::new(address.without_peer_id(), source, Some(scope)), most);
        }
        true
    }

    /// A handshake proved that `peer` is at `address`.
    pub(crate) fn proved(&mut self, now: Now, peer: PeerId, address: &DialAddress, random: &mut Random) {
        self.note(now, peer, address, Source::Itself, random);
        let Some(mut known) = self.get_mut(&peer) else {
            return;
        };
        known.local_failures = 0;
        if let Some(at) = known.addresses.iter_mut().find(|at| same(&at.address, address)) {
            at.worked(now);
        }
    }

    /// An inbound connection came from `remote`: if the peer says that it listens there, that is proved.
    pub(crate) fn came_from(&mut self, now: Now, peer: &PeerId, remote: SocketAddr) {
        let Some(mut known) = self.get_mut(peer) else {
            return;
        };
        for at in known.addresses.iter_mut().filter(|at| at.address.socket_addr() == Some(remote)) {
            at.worked(now);
        }
    }

    /// The round trip to an address was measured.
    pub(crate) fn measured(&mut self, peer: &PeerId, address: &DialAddress, rtt: Duration) {
        if let Some(mut known) = self.get_mut(peer)
            && let Some(at) = known.addresses.iter_mut().find(|at| same(&at.address, address))
        {
            at.rtt = Some(rtt);
        }
    }

    /// A dial failed. An address that is somebody else's, or hearsay that failed often, is forgotten; a peer without addresses too.
    pub(crate) fn failed(&mut self, peer: &PeerId, address: &DialAddress, hostile: bool, max_hearsay: u32) {
        let Some(mut known) = self.get_mut(peer) else {
            return;
        };
        known.addresses.retain_mut(|at| {
            if !same(&at.address, address) {
                return true;
            }
            at.failures = at.failures.saturating_add(1);
            at.all_failures = at.all_failures.saturating_add(1);
            let worthless = hostile || (at.source == Source::Hearsay && at.failures >= max_hearsay);
            at.source == Source::User || !worthless
        });
        let empty = known.addresses.is_empty();
        drop(known);
        if empty && !self.classes.is_named(peer) {
            self.forget(peer);
        }
    }

    /// This machine could not even begin to dial an address: another one is tried first.
    pub(crate) fn skipped(&mut self, peer: &PeerId, address: &DialAddress) {
        if let Some(mut known) = self.get_mut(peer)
            && let Some(at) = known.addresses.iter_mut().find(|at| same(&at.address, address))
        {
            at.skipped = at.skipped.saturating_add(1);
        }
    }

    /// Puts in an entry that was stored, unless one is there or there is no room. True when it was taken.
    pub(crate) fn load(&mut self, peer: PeerId, mut entry: KnownPeer, random: &mut Random) -> bool {
        if self.peers.contains_key(&peer) || self.peers.len() >= self.max_peers {
            return false;
        }
        entry.addresses.truncate(self.max_addresses);
        entry.tie = random.number();
        self.put(peer, Box::new(entry));
        true
    }

    /// Takes a peer out. Whether it was there.
    pub(crate) fn forget(&mut self, peer: &PeerId) -> bool {
        if self.take(peer).is_none() {
            return false;
        }
        self.gone.push(*peer);
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.insert(*peer);
        }
        true
    }

    /// The entries that went since this was last asked.
    pub(crate) fn take_gone(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.gone)
    }

    fn take(&mut self, peer: &PeerId) -> Option<Box<KnownPeer>> {
        let entry = self.peers.remove(peer)?;
        if let Some(worth) = entry.worth() {
            self.by_worth.remove(&(worth, *peer));
        }
        Some(entry)
    }

    fn put(&mut self, peer: PeerId, entry: Box<KnownPeer>) {
        if let Some(worth) = entry.worth() {
            self.by_worth.insert((worth, peer));
        }
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.insert(peer);
        }
        self.peers.insert(peer, entry);
    }

    /// Makes room for an entry that `source` vouches for.
    fn evict(&mut self, source: Source) -> bool {
        let gives_way = |(worth, peer): &&(Worth, PeerId)| {
            (source > Source::Hearsay || !worth.verified) && !self.classes.is_named(peer)
        };
        let weakest =
            self.by_worth.iter().take_while(|(worth, _)| source > Source::Hearsay || !worth.verified);
        let Some((_, peer)) = weakest.into_iter().find(gives_way).copied() else { return false };
        self.forget(&peer)
    }
}

impl KnownAddress {
    fn worked(&mut self, now: Now) {
        self.successes = self.successes.saturating_add(1);
        self.failures = 0;
        self.skipped = 0;
        self.seen = Some(now.unix);
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

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_identity::NodeKey;

    fn peer(number: u16) -> PeerId {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        NodeKey::from_seed(seed).peer_id()
    }

    fn address(number: u16) -> DialAddress {
        let [a, b] = number.to_be_bytes();
        format!("/ip4/20.1.{a}.{b}/udp/1/quic-v1").parse().unwrap()
    }

    fn record(number: u16) -> SignedPeerRecord {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        SignedPeerRecord::sign(&NodeKey::from_seed(seed), 1, &[address(number)]).unwrap()
    }

    fn at(seconds: u64) -> Now {
        Now::ZERO.after(Duration::from_secs(seconds))
    }

    fn teller() -> Teller {
        Teller { peer: peer(60_000), at: ([20, 9, 9, 9], 1).into(), chosen: true }
    }

    /// The bound of the book, and who gives way: hearsay first, then the proved ones that were connected shortest; never what the user
    /// named, never who is connected, and no proved one for hearsay.
    #[test]
    fn a_full_book_keeps_what_the_user_named_who_is_connected_and_the_proved_and_long_lived() {
        let config = PeersConfig { max_known_peers: 40, ..PeersConfig::default() };
        let (mut book, mut random) = (Book::new(&config), Random::from_number(1));
        for number in 0..5 {
            book.note(at(0), peer(number), &address(number), Source::User, &mut random);
        }
        for number in 5..20 {
            book.proved(at(u64::from(number)), peer(number), &address(number), &mut random);
            let minutes = if number < 10 { 600 } else { 1 };
            book.get_mut(&peer(number)).unwrap().connected_for = Duration::from_secs(60 * minutes);
        }
        book.get_mut(&peer(19)).unwrap().connected = true;
        for number in 20..2000 {
            book.learn(at(50), &record(number), Source::Hearsay, teller(), &mut random);
            assert!(book.len() <= 40);
            assert_eq!(book.by_worth.len(), book.len() - 6, "all but the user's five and the connected one");
        }
        for number in 0..20 {
            assert!(book.get(&peer(number)).is_some(), "{number} gave way to hearsay");
        }
        // Peers that prove themselves displace hearsay first, then the proved ones that are worth less.
        for number in 3000..3100 {
            book.proved(at(100), peer(number), &address(number), &mut random);
            book.get_mut(&peer(number)).unwrap().connected_for = Duration::from_secs(3600);
        }
        assert_eq!(book.len(), 40);
        assert!((0..10).chain([19]).all(|number| book.get(&peer(number)).is_some()));
        assert!((10..19).all(|number| book.get(&peer(number)).is_none()), "short-lived ones gave way");
        assert!(book.iter().all(|(_, known)| known.is_verified() || known.worth().is_none()));
    }

    /// what third parties say never overwrites what a handshake has proved.
    #[test]
    fn a_newer_record_replaces_hearsay_and_leaves_proved_addresses_alone() {
        let (mut book, mut random) = (Book::new(&PeersConfig::default()), Random::from_number(1));
        let key = NodeKey::from_seed([1; 32]);
        let record = |seq, numbers: &[u16]| {
            let addresses: Vec<_> = numbers.iter().map(|number| address(*number)).collect();
            SignedPeerRecord::sign(&key, seq, &addresses).unwrap()
        };
        assert!(book.learn(at(0), &record(1, &[1, 2]), Source::Hearsay, teller(), &mut random));
        book.proved(at(1), key.peer_id(), &address(1), &mut random);
        assert!(book.learn(at(2), &record(2, &[3]), Source::Hearsay, teller(), &mut random));
        assert!(
            !book.learn(at(2), &record(1, &[4]), Source::Hearsay, teller(), &mut random),
            "an older one is no news"
        );
        let known = book.get(&key.peer_id()).unwrap();
        let addresses: Vec<_> = known.addresses.iter().map(|at| at.address.clone()).collect();
        assert_eq!(addresses, [address(1), address(3)]);
        assert_eq!(known.best_address().unwrap().address, address(1));
    }

    #[test]
    fn an_address_counts_its_successes_and_failures() {
        let (mut book, mut random) = (Book::new(&PeersConfig::default()), Random::from_number(1));
        book.proved(at(5), peer(1), &address(1), &mut random);
        book.failed(&peer(1), &address(1), false, 3);
        book.failed(&peer(1), &address(1), false, 3);
        book.measured(&peer(1), &address(1), Duration::from_millis(30));
        let at_one = book.get(&peer(1)).unwrap().addresses[0].clone();
        assert_eq!((at_one.successes, at_one.failures, at_one.all_failures), (1, 2, 2));
        assert_eq!(
            (at_one.seen, at_one.rtt),
            (Some(Duration::from_secs(5)), Some(Duration::from_millis(30)))
        );
        book.proved(at(9), peer(1), &address(1), &mut random);
        let at_one = &book.get(&peer(1)).unwrap().addresses[0];
        assert_eq!((at_one.successes, at_one.failures, at_one.all_failures), (2, 0, 2));
    }
}
