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
            IpAddr::V4(ip) => Self {
                address: Ipv4Addr::from_bits(
                    ip.to_bits() & !(u32::MAX >> v4_length.min(31) >> (v4_length / 32)),
                )
                .into(),
                length: v4_length,
            },
            IpAddr::V6(ip) => Self {
                address: Ipv6Addr::from_bits(ip.to_bits() & !(u128::MAX >> v6_length)).into(),
                length: v6_length,
            },
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

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}
