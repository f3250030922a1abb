//! A peer and where it can be reached: what answers name and what the table holds.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use peerage_identity::{AddressScope, DialAddress, Host, IpPrefix, MAX_ADDRESS_BYTES, PeerId};

use crate::Key;

/// The most addresses of a contact that are kept; further ones are dropped. Twenty contacts with as many of the usual length stay below 16 KiB.
pub const MAX_CONTACT_ADDRESSES: usize = 8;

/// The most bytes that the addresses of a contact take together, each with two for its length; those for which there is no room are dropped. The usual ones take a tenth of it: it is
/// for those who say that they have eight long names, and stand in many tables.
pub const MAX_CONTACT_ADDRESS_BYTES: usize = 1024;

/// The first bytes of binary multiaddrs (multiformats table of multicodecs).
const IP4: u8 = 0x04;
const IP6: u8 = 0x29;

/// A peer with its place in the keyspace and the addresses at which it may be dialled. Cheap to clone: all clones share one copy.
///
/// Addresses are kept in their binary form, which is a tenth of what parsed ones take, and without the peer ID that they may end in.
#[derive(Clone)]
pub struct Contact(Arc<Known>);

struct Known {
    peer: PeerId,
    key: Key,
    /// Each address as its length in one byte or two (little-endian), then its bytes.
    addresses: Box<[u8]>,
    subnets: [Option<Subnet>; 2],
    /// The narrowest scope of its addresses.
    narrowest: AddressScope,
}

impl Contact {
    /// A peer at `addresses`: of those that name another peer none is taken, nor are repetitions, nor more than [`MAX_CONTACT_ADDRESSES`] or
    /// [`MAX_CONTACT_ADDRESS_BYTES`].
    pub fn new(peer: PeerId, addresses: &[DialAddress]) -> Self {
        let (mut kept, mut packed) = (Vec::<DialAddress>::new(), Vec::new());
        for address in addresses {
            let ours = address.peer_id().is_none_or(|named| named == peer);
            let fresh = !kept.iter().any(|other| other.same_endpoint(address));
            if !ours || !fresh || kept.len() == MAX_CONTACT_ADDRESSES {
                continue;
            }
            let address = address.clone().without_peer_id();
            let bytes = address.to_bytes();
            debug_assert!(bytes.len() <= MAX_ADDRESS_BYTES);
            if packed.len() + 2 + bytes.len() <= MAX_CONTACT_ADDRESS_BYTES {
                packed.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
                packed.extend_from_slice(&bytes);
                kept.push(address);
            }
        }
        let key = Key::of_peer(&peer);
        let narrowest = kept.iter().map(scope).min().unwrap_or(AddressScope::Global);
        Self(Arc::new(Known { peer, key, addresses: packed.into(), subnets: subnets(&kept), narrowest }))
    }

    /// Who it is.
    pub fn peer(&self) -> &PeerId {
        &self.0.peer
    }

    /// Where it lies in the keyspace.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Where it may be dialled, in the order in which it was told.
    pub fn addresses(&self) -> Vec<DialAddress> {
        self.binary_addresses().filter_map(|bytes| DialAddress::from_bytes(bytes).ok()).collect()
    }

    /// The same as binary multiaddrs, without the peer ID: the form in which they stand on the wire.
    pub fn binary_addresses(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0.addresses;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (address, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
            rest = after;
            Some(address)
        })
    }

    /// What may be believed of it when somebody at `teller` says so: without addresses that lie in a network to which the teller has no part
    /// ([`AddressScope::is_credible_from`]), so that no peer can make us dial our own. `None` when no address is left.
    pub fn credible_from(&self, teller: IpAddr) -> Option<Self> {
        if self.0.narrowest == AddressScope::Global {
            return Some(self.clone());
        }
        let teller = AddressScope::of(teller);
        let mut addresses = self.addresses();
        let before = addresses.len();
        addresses.retain(|address| scope(address).is_credible_from(teller));
        match addresses.len() {
            0 => None,
            left if left == before => Some(self.clone()),
            _ => Some(Self::new(self.0.peer, &addresses)),
        }
    }

    /// What may be believed of a peer that somebody at `teller` says of it, itself perhaps: as [`Contact::credible_from`], and without an address where none is left.
    pub fn as_told_from(&self, teller: IpAddr) -> Self {
        self.credible_from(teller).unwrap_or_else(|| Self::new(self.0.peer, &[]))
    }

    /// The narrowest scope of its addresses; [`AddressScope::Global`] where it has none.
    pub fn narrowest(&self) -> AddressScope {
        self.0.narrowest
    }

    /// Whether a peer met at `remote` was met where it says it is: at one of its addresses, or perhaps behind one of its names.
    pub fn is_at(&self, remote: IpAddr) -> bool {
        let remote = remote.to_canonical();
        self.binary_addresses().any(|address| match (address, remote) {
            ([IP4, rest @ ..], IpAddr::V4(ip)) => rest.starts_with(&ip.octets()),
            ([IP6, rest @ ..], IpAddr::V6(ip)) => rest.starts_with(&ip.octets()),
            ([IP4 | IP6, ..], _) => false,
            _ => true,
        })
    }

    /// The version of IP of all of its addresses, when they are of one.
    pub fn only_family(&self) -> Option<Family> {
        let mut families = self.binary_addresses().map(|address| match address {
            [IP4, ..] => Some(Family::V4),
            [IP6, ..] => Some(Family::V6),
            _ => None,
        });
        let first = families.next().flatten()?;
        families.all(|family| family == Some(first)).then_some(first)
    }

    /// Whether no address is known.
    pub fn has_no_address(&self) -> bool {
        self.0.addresses.is_empty()
    }

    /// The subnets in which it says that it is: of its first IPv4 and of its first IPv6 address that rules for subnets apply to.
    pub fn subnets(&self) -> impl Iterator<Item = Subnet> {
        self.0.subnets.into_iter().flatten()
    }

    /// The bytes that it takes in an answer, at most: peer ID, addresses and the framing around them.
    pub fn wire_bytes(&self) -> usize {
        // Tag and length of the peer and of its ID, the connection's state; tag and length of each address.
        let addresses: usize = self.binary_addresses().map(|address| address.len() + 4).sum();
        4 + 2 + self.0.peer.to_bytes().len() + 2 + addresses
    }

    /// The memory that it takes, shared by all clones, in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Known>() + 2 * size_of::<usize>() + self.0.addresses.len()
    }

    /// Whether both say the same of the same peer.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.peer == other.0.peer && self.0.addresses == other.0.addresses
    }
}

impl PartialEq for Contact {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
    }
}

impl Eq for Contact {}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contact({}, {:?})", self.0.peer, self.addresses())
    }
}

/// A block of addresses that count as one neighbour: an IPv4 /24 or an IPv6 /48. Packed into eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(NonZeroU64);

impl Subnet {
    /// The subnet of an address; `None` for loopback, to which no such rule applies ([`AddressScope`]).
    pub fn of(ip: IpAddr) -> Option<Self> {
        if AddressScope::of(ip).is_exempt_from_address_rules() {
            return None;
        }
        let packed = match IpPrefix::subnet_of(ip).address() {
            IpAddr::V4(ip) => 4 << 56 | u64::from(ip.to_bits()),
            IpAddr::V6(ip) => 6 << 56 | (ip.to_bits() >> 80) as u64,
        };
        NonZeroU64::new(packed).map(Self)
    }

    /// It as a number, by which it is kept on a disk.
    pub(crate) fn to_number(self) -> u64 {
        self.0.get()
    }

    /// From that number.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The wider group whose peers no two disjoint paths share: an IPv4 /16 or an IPv6 /32.
    pub fn group(self) -> u64 {
        // Of a /24 the last 8 of 32 bits are clear, of a /48 none of 48: both lose 16 bits.
        self.0.get() >> 16
    }
}

/// Which of IP's two versions an address is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The version of an address; an IPv4-mapped IPv6 address is IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The scope of an address; a name's is found out when it is resolved.
fn scope(address: &DialAddress) -> AddressScope {
    match address.host() {
        Host::Ip(ip) => AddressScope::of(*ip),
        Host::Dns { .. } | Host::Dnsaddr { .. } => AddressScope::Global,
    }
}

fn subnets(addresses: &[DialAddress]) -> [Option<Subnet>; 2] {
    let mut found = [None; 2];
    for address in addresses {
        let Host::Ip(ip) = address.host() else { continue };
        let slot = &mut found[Family::of(*ip) as usize];
        *slot = slot.or_else(|| Subnet::of(*ip));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::{address, peer};

    #[test]
    fn a_contact_keeps_a_bounded_number_of_addresses_of_its_own() {
        let foreign = address(1).with_peer_id(peer(2)).unwrap();
        let many: Vec<_> =
            std::iter::once(foreign).chain((0..40).map(|number| address(number % 20))).collect();
        let contact = Contact::new(peer(1), &many);
        let kept: Vec<_> = (0..MAX_CONTACT_ADDRESSES as u64).map(address).collect();
        assert_eq!(contact.addresses(), kept);
        assert_eq!(contact.key(), &Key::of_peer(&peer(1)));
        assert!(contact.memory() < 400, "{}", contact.memory());
    }

    #[test]
    fn long_addresses_of_a_contact_are_kept_as_long_as_there_is_room() {
        let long = |port: u16| {
            let name = format!("{}example", "long-label-of-a-name.".repeat(10));
            format!("/dns4/{name}/udp/{port}/quic-v1").parse::<DialAddress>().unwrap()
        };
        let mut many: Vec<_> = (1..8).map(long).collect();
        many.push(address(1));
        let contact = Contact::new(peer(1), &many);
        let kept = contact.addresses();
        assert!(
            kept.len() > 2 && kept[..kept.len() - 1] == many[..kept.len() - 1] && kept.contains(&address(1))
        );
        let bytes: usize = contact.binary_addresses().map(|address| 2 + address.len()).sum();
        let one = 2 + many[0].to_bytes().len();
        assert!(bytes <= MAX_CONTACT_ADDRESS_BYTES && bytes + one > MAX_CONTACT_ADDRESS_BYTES, "{bytes}");
    }

    #[test]
    fn an_address_with_the_peers_own_id_is_one_without_it() {
        let with_id = address(1).with_peer_id(peer(1)).unwrap();
        assert_eq!(Contact::new(peer(1), &[with_id]), Contact::new(peer(1), &[address(1)]));
    }

    /// a peer on the Internet names no address of our own network or machine.
    #[test]
    fn what_others_say_is_believed_only_of_networks_that_they_are_part_of() {
        let ip = |ip: &str| -> IpAddr { ip.parse().unwrap() };
        let private = "/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap();
        let mixed = Contact::new(peer(1), &[address(1), private]);
        assert_eq!(mixed.credible_from(ip("10.0.0.9")), Some(mixed.clone()));
        assert_eq!(mixed.credible_from(ip("20.0.0.9")).unwrap().addresses(), [address(1)]);
        let local = Contact::new(peer(1), &["/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap()]);
        assert_eq!(local.credible_from(ip("20.0.0.9")), None);
        assert_eq!(local.credible_from(ip("127.0.0.1")), Some(local));
    }

    #[test]
    fn where_a_peer_was_met_is_compared_with_where_it_says_it_is() {
        let ip = |ip: &str| -> IpAddr { ip.parse().unwrap() };
        let of = |addresses: &[&str]| {
            let addresses: Vec<DialAddress> =
                addresses.iter().map(|address| address.parse().unwrap()).collect();
            Contact::new(peer(1), &addresses)
        };
        let four = of(&["/ip4/20.1.2.3/udp/1/quic-v1"]);
        assert!(four.is_at(ip("20.1.2.3")) && four.is_at(ip("::ffff:20.1.2.3")));
        assert!(!four.is_at(ip("20.1.2.4")) && !four.is_at(ip("2606::1")));
        let both = of(&["/ip6/2606::1/udp/1/quic-v1", "/ip4/20.1.2.3/udp/1/quic-v1"]);
        assert!(both.is_at(ip("2606::1")) && both.is_at(ip("20.1.2.3")) && !both.is_at(ip("2606::2")));
        let name = of(&["/dns4/a.example/udp/1/quic-v1"]);
        assert!(name.is_at(ip("20.1.2.3")) && !of(&[]).is_at(ip("20.1.2.3")));
        let families = [four, both, name].map(|contact| contact.only_family());
        assert_eq!(families, [Some(Family::V4), None, None]);
    }

    #[test]
    fn subnets_are_those_of_the_policy_and_loopback_has_none() {
        let subnet = |ip: &str| Subnet::of(ip.parse().unwrap());
        assert_eq!(subnet("20.1.2.3"), subnet("20.1.2.200"));
        assert_ne!(subnet("20.1.2.3"), subnet("20.1.3.3"));
        assert_eq!(subnet("2606:1:2:3::1"), subnet("2606:1:2:4::1"));
        assert_ne!(subnet("2606:1:2:3::1"), subnet("2606:1:3:3::1"));
        assert_eq!(subnet("127.0.0.1"), None);
        assert_eq!(subnet("::1"), None);
        assert_eq!(subnet("20.1.2.3").unwrap().group(), subnet("20.1.9.3").unwrap().group());
        assert_ne!(subnet("20.1.2.3").unwrap().group(), subnet("20.2.9.3").unwrap().group());
        assert_eq!(subnet("2606:1:2::1").unwrap().group(), subnet("2606:1:9::1").unwrap().group());
        assert_ne!(subnet("2606:1:2::1").unwrap().group(), subnet("2606:2:2::1").unwrap().group());
    }
}
