//! Where we listen.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use multiaddr::{Multiaddr, Protocol};

use super::parse::{self, Parts, shown};
use super::{AddressError, DialAddress, Host};

/// An address of this machine to listen on: `/ip4|ip6/ADDRESS/udp/PORT/quic-v1`.
///
/// Unlike a [`DialAddress`] it may be a wildcard (`0.0.0.0`, `::`: all interfaces) and may have port 0 (the system chooses one). It has no name and
/// no peer ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenAddress {
    ip: IpAddr,
    port: u16,
}

impl ListenAddress {
    /// The address of a UDP socket of ours. An IPv6 scope ID is not kept.
    ///
    /// # Errors
    /// [`AddressError::NotUnicast`] for multicast and broadcast addresses.
    pub fn from_socket_addr(address: SocketAddr) -> Result<Self, AddressError> {
        Self { ip: address.ip().to_canonical(), port: address.port() }.checked(&address)
    }

    /// IP address and port to bind to.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// The IP address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The UDP port; 0 lets the system choose.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it stands for every interface, so that others must be told the interfaces' addresses in its place.
    pub fn is_wildcard(&self) -> bool {
        self.ip.is_unspecified()
    }

    /// The address under which others can dial it.
    ///
    /// # Errors
    /// [`AddressError::NotUnicast`] for a wildcard, [`AddressError::PortZero`] before the system has chosen a port.
    pub fn to_dial_address(self) -> Result<DialAddress, AddressError> {
        DialAddress::from_socket_addr(self.socket_addr())
    }

    /// The address as a multiaddr.
    pub fn to_multiaddr(&self) -> Multiaddr {
        Multiaddr::from(self.ip).with(Protocol::Udp(self.port)).with(Protocol::QuicV1)
    }

    fn checked(self, given: &impl ToString) -> Result<Self, AddressError> {
        let kind = match self.ip {
            ip if ip.is_multicast() => "a multicast address",
            IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
            _ => return Ok(self),
        };
        Err(AddressError::NotUnicast { address: shown(given), ip: self.ip, kind })
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    /// Reads text of at most [`crate::MAX_ADDRESS_TEXT`] bytes.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::try_from(&parse::multiaddr_from_text(text)?)
    }
}

impl TryFrom<&Multiaddr> for ListenAddress {
    type Error = AddressError;

    fn try_from(address: &Multiaddr) -> Result<Self, AddressError> {
        let Parts { host, port, peer_id } = parse::parts(address)?;
        let (Host::Ip(ip), Some(port)) = (host, port) else {
            return Err(AddressError::NameOnListen { address: shown(address) });
        };
        if peer_id.is_some() {
            return Err(AddressError::PeerIdOnListen { address: shown(address) });
        }
        Self { ip, port }.checked(address)
    }
}

impl TryFrom<Multiaddr> for ListenAddress {
    type Error = AddressError;

    fn try_from(address: Multiaddr) -> Result<Self, AddressError> {
        Self::try_from(&address)
    }
}

impl From<ListenAddress> for Multiaddr {
    fn from(address: ListenAddress) -> Self {
        address.to_multiaddr()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_multiaddr().fmt(f)
    }
}

impl fmt::Debug for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
