//! What an IP address is good for, and which addresses count as one: the only policy of this kind in Peerage.
//!
//! Limits on addresses, learned addresses and the routing of replies all ask here, so that they cannot disagree. Sources: RFC 6890 with
//! the IANA special-purpose registries for IPv4 and IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From where an IP address can be reached. An IPv4-mapped IPv6 address has the scope of its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressScope {
    /// From this machine alone: 127.0.0.0/8, ::1.
    Loopback,
    /// From the same link: 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// From the same private network: RFC 1918, carrier-grade NAT (RFC 6598), benchmarking networks (RFC 2544), unique local
    /// addresses (RFC 4193), locally chosen NAT64 (RFC 8215).
    Private,
    /// From everywhere.
    Global,
    /// From nowhere: no node can have it. Unspecified, multicast, broadcast, documentation, reserved, tunnels that are gone.
    Unusable,
}

impl AddressScope {
    /// Classifies an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    /// Whether rules per address and per subnet leave it alone: loopback only, because there one address is many nodes. Budgets of the
    /// whole node have no such exception.
    pub fn is_exempt_from_address_rules(self) -> bool {
        self == Self::Loopback
    }

    /// Whether an address of this scope may be believed when a peer told us about it whom we reach at an address of scope `teller`.
    ///
    /// Global addresses may come from anyone. A narrower one only from a peer that is at least as near: a peer on the Internet must not make
    /// us dial our own network.
    pub fn is_credible_from(self, teller: Self) -> bool {
        match self {
            Self::Global => true,
            Self::Unusable => false,
            Self::Private => matches!(teller, Self::Private | Self::LinkLocal | Self::Loopback),
            Self::LinkLocal => matches!(teller, Self::LinkLocal | Self::Loopback),
            Self::Loopback => teller == Self::Loopback,
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [100, 64..=127, ..] => Self::Private,
            [198, 18..=19, ..] => Self::Private,
            // This network, protocol assignments, documentation, 6to4 relays; multicast, reserved and broadcast.
            [0, ..] | [192, 0, 0, _] | [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
                Self::Unusable
            }
            [192, 88, 99, _] | [224..=255, ..] => Self::Unusable,
            _ => Self::Global,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let carried = |ip: Ipv4Addr| match Self::of_v4(ip) {
            Self::Global => Self::Global,
            // A translator must not carry these (RFC 6052 § 3.1, RFC 3056 § 2): nobody honest names them so.
            _ => Self::Unusable,
        };
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0x64, 0xff9b, 1, ..] => Self::Private,
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => carried(embedded(high, low)),
            [0x2002, high, low, ..] => carried(embedded(high, low)),
            // Protocol assignments with Teredo and ORCHID, documentation.
            [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Unusable,
            // All that IANA gives out lies in 2000::/3.
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Unusable,
        }
    }
}

impl fmt::Display for AddressScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Private => "private",
            Self::Global => "global",
            Self::Unusable => "unusable",
        })
    }
}

/// A block of IP addresses that count as one, with the bits behind the prefix cleared. Printed as `192.0.2.0/24`.
///
/// IPv4-mapped IPv6 addresses count as their IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPrefix {
    address: IpAddr,
    length: u8,
}

impl IpPrefix {
    /// What a rate per address counts: an IPv4 address, or an IPv6 /64, whose addresses one host may take at will.
    pub fn address_of(ip: IpAddr) -> Self {
        Self::of(ip, 32, 64)
    }

    /// What a limit per subnet counts: an IPv4 /24 or an IPv6 /48, the least that is routed on the Internet.
    pub fn subnet_of(ip: IpAddr) -> Self {
        Self::of(ip, 24, 48)
    }

    /// The first address of the block.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of leading bits that all addresses of the block share.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `ip` lies in the block.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4() && Self::of(ip, self.length, self.length) == *self
    }

    fn of(ip: IpAddr, v4_length: u8, v6_length: u8) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self { address: cleared_v4(ip, v4_length).into(), length: v4_length },
            IpAddr::V6(ip) => Self { address: cleared_v6(ip, v6_length).into(), length: v6_length },
        }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn cleared_v4(ip: Ipv4Addr, length: u8) -> Ipv4Addr {
    let rest = u32::MAX.checked_shr(length.into()).unwrap_or(0);
    Ipv4Addr::from_bits(ip.to_bits() & !rest)
}

fn cleared_v6(ip: Ipv6Addr, length: u8) -> Ipv6Addr {
    let rest = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    Ipv6Addr::from_bits(ip.to_bits() & !rest)
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn assert_scope(scope: AddressScope, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(AddressScope::of(ip(address)), scope, "{address}");
        }
    }

    #[test]
    fn ipv4_addresses_have_the_scope_of_their_block() {
        assert_scope(AddressScope::Loopback, &["127.0.0.1", "127.255.255.255"]);
        assert_scope(AddressScope::LinkLocal, &["169.254.0.0", "169.254.255.255"]);
        assert_scope(
            AddressScope::Private,
            &[
                "10.0.0.0",
                "10.255.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.168.0.0",
                "192.168.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "198.18.0.0",
                "198.19.255.255",
            ],
        );
        assert_scope(
            AddressScope::Unusable,
            &[
                "0.0.0.0",
                "0.255.255.255",
                "192.0.0.8",
                "192.0.2.1",
                "198.51.100.1",
                "203.0.113.1",
                "192.88.99.1",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.0",
                "255.255.255.255",
            ],
        );
        // The neighbours of the blocks above.
        assert_scope(
            AddressScope::Global,
            &[
                "1.0.0.0",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "192.0.3.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "198.51.99.255",
                "203.0.112.255",
                "203.0.114.0",
                "223.255.255.255",
            ],
        );
    }

    #[test]
    fn ipv6_addresses_have_the_scope_of_their_block() {
        assert_scope(AddressScope::Loopback, &["::1"]);
        assert_scope(AddressScope::LinkLocal, &["fe80::", "febf:ffff::1"]);
        assert_scope(AddressScope::Private, &["fc00::", "fdff:ffff::1", "64:ff9b:1::1", "64:ff9b:1:ffff::1"]);
        assert_scope(
            AddressScope::Global,
            &[
                "2000::1",
                "2001:200::1",
                "2001:db7::1",
                "2001:db9::1",
                "2606:4700::1",
                "3ffe::1",
                "3fff:1000::1",
            ],
        );
        assert_scope(
            AddressScope::Unusable,
            &[
                "::",
                "::2",
                "::8.8.8.8",
                "100::1",
                "2001::1",
                "2001:1ff::1",
                "2001:db8::1",
                "3fff:fff::1",
                "4000::1",
                "5f00::1",
                "fec0::1",
                "ff02::1",
            ],
        );
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_does_not_escape_its_scope() {
        assert_scope(AddressScope::Loopback, &["::ffff:127.0.0.1"]);
        assert_scope(AddressScope::Private, &["::ffff:10.1.2.3"]);
        assert_scope(AddressScope::Global, &["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]);
        assert_scope(
            AddressScope::Unusable,
            &["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::1", "2002:a00:1::1"],
        );
    }

    #[test]
    fn a_peer_on_the_internet_cannot_make_us_dial_our_own_network() {
        use AddressScope::*;
        let credible = |address: AddressScope, teller| address.is_credible_from(teller);
        for teller in [Loopback, LinkLocal, Private, Global, Unusable] {
            assert!(credible(Global, teller));
            assert!(!credible(Unusable, teller));
        }
        for (address, tellers) in [
            (Loopback, &[Loopback][..]),
            (LinkLocal, &[Loopback, LinkLocal]),
            (Private, &[Loopback, LinkLocal, Private]),
        ] {
            for teller in [Loopback, LinkLocal, Private, Global, Unusable] {
                assert_eq!(credible(address, teller), tellers.contains(&teller), "{address} {teller}");
            }
        }
    }

    #[test]
    fn only_loopback_is_exempt_from_address_rules() {
        assert!(AddressScope::of(ip("127.0.0.2")).is_exempt_from_address_rules());
        assert!(AddressScope::of(ip("::1")).is_exempt_from_address_rules());
        for address in ["10.0.0.1", "fe80::1", "8.8.8.8", "0.0.0.0"] {
            assert!(!AddressScope::of(ip(address)).is_exempt_from_address_rules());
        }
    }

    #[test]
    fn addresses_count_as_one_by_the_prefix_of_their_family() {
        let shown = |of: fn(IpAddr) -> IpPrefix, address| of(ip(address)).to_string();
        assert_eq!(shown(IpPrefix::address_of, "192.0.2.77"), "192.0.2.77/32");
        assert_eq!(shown(IpPrefix::subnet_of, "192.0.2.77"), "192.0.2.0/24");
        assert_eq!(shown(IpPrefix::subnet_of, "::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(shown(IpPrefix::address_of, "2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(shown(IpPrefix::subnet_of, "2001:db8:1:2:3:4:5:6"), "2001:db8:1::/48");
    }

    proptest! {
        #[test]
        fn a_prefix_contains_just_the_addresses_that_share_it(a: u128, b: u128, near: u16, v4: bool) {
            let make = |bits: u128| if v4 {
                IpAddr::from(Ipv4Addr::from_bits(bits as u32))
            } else {
                IpAddr::from(Ipv6Addr::from_bits(bits))
            };
            for (x, y) in [(a, b), (a, a ^ u128::from(near))] {
                for of in [IpPrefix::address_of, IpPrefix::subnet_of] {
                    let prefix = of(make(x));
                    prop_assert!(prefix.contains(make(x)));
                    prop_assert!(prefix.contains(prefix.address()));
                    prop_assert_eq!(prefix.contains(make(y)), of(make(y)) == prefix);
                }
            }
        }

        #[test]
        fn a_mapped_address_is_its_ipv4_address(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let mapped = IpAddr::from(v4.to_ipv6_mapped());
            prop_assert_eq!(AddressScope::of(mapped), AddressScope::of(v4.into()));
            prop_assert_eq!(IpPrefix::subnet_of(mapped), IpPrefix::subnet_of(v4.into()));
            prop_assert!(IpPrefix::address_of(v4.into()).contains(mapped));
        }
    }
}
