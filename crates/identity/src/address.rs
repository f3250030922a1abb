//! Addresses: where a peer can be dialled ([`DialAddress`]) and where we listen ([`ListenAddress`]).
//!
//! Both are multiaddrs in text and in binary (libp2p addressing specification, multiformats/multiaddr), and both can only be made by
//! parsing. Peerage speaks QUIC version 1 and nothing else, so of the many multiaddrs a few forms remain:
//!
//! ```text
//! /ip4/192.0.2.1/udp/4001/quic-v1[/p2p/ID]           also ip6, and a name under dns, dns4 or dns6
//! /dnsaddr/NAME[/p2p/ID]                             a name whose TXT records hold addresses
//! ```

mod dial;
mod dns_name;
mod error;
mod listen;
mod parse;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use dial::DialAddress;
pub use dns_name::MAX_DNS_NAME;
pub use error::AddressError;
pub use listen::ListenAddress;

/// The most bytes that a binary address may have. The longest that can be dialled, a name of [`MAX_DNS_NAME`] with a peer ID, takes 332.
pub const MAX_ADDRESS_BYTES: usize = 512;
/// The most bytes that the text of an address may have.
pub const MAX_ADDRESS_TEXT: usize = 512;

/// Where an address leads, before the port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address, never an IPv4-mapped IPv6 one.
    Ip(IpAddr),
    /// A name that stands for IP addresses.
    Dns {
        /// The name: absolute, in lower case, without a final dot.
        name: String,
        /// Which of its addresses are meant.
        family: DnsFamily,
    },
    /// A name whose TXT records at `_dnsaddr.NAME` hold whole addresses.
    Dnsaddr {
        /// The name: absolute, in lower case, without a final dot.
        name: String,
    },
}

/// Which addresses of a name are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsFamily {
    /// `/dns`: IPv4 and IPv6.
    Any,
    /// `/dns4`: IPv4 only.
    V4,
    /// `/dns6`: IPv6 only.
    V6,
}
