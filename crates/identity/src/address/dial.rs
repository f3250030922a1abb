//! Where a peer can be dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::parse::{self, Parts, shown};
use super::{AddressError, DnsFamily, Host};

/// An address that can be dialled over QUIC version 1, with or without the ID of the peer that is expected there.
///
/// It can only be made by parsing, and parsing brings it into one form: names in lower case and without the final dot, IPv4-mapped IPv6
/// addresses as IPv4. So two addresses are equal when they mean the same. Whether the IP address is of a *scope* that should be dialled is
/// [`crate::AddressScope`]'s question; what no machine can have (unspecified, multicast, broadcast, port 0) is refused here.
///
/// ```
/// use peerage_identity::DialAddress;
///
/// let address: DialAddress = "/ip6/::ffff:192.0.2.1/udp/4001/quic-v1".parse()?;
/// assert_eq!(address.to_string(), "/ip4/192.0.2.1/udp/4001/quic-v1");
/// let error = "/ip4/192.0.2.1/tcp/4001".parse::<DialAddress>().unwrap_err();
/// assert!(error.to_string().contains("speaks only QUIC"));
/// # Ok::<(), peerage_identity::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialAddress {
    host: Host,
    /// `None` exactly with [`Host::Dnsaddr`].
    port: Option<u16>,
    peer_id: Option<PeerId>,
}

impl DialAddress {
    /// Reads a binary multiaddr of at most [`crate::MAX_ADDRESS_BYTES`].
    ///
    /// # Errors
    /// [`AddressError`] says what it is instead of an address that can be dialled.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AddressError> {
        Self::try_from(&parse::multiaddr_from_bytes(bytes)?)
    }

    /// The address of a UDP socket, without a peer ID.
    ///
    /// # Errors
    /// [`AddressError::PortZero`], [`AddressError::NotUnicast`], and [`AddressError::Zone`] for an IPv6 address with a scope ID, which means
    /// something on one machine only.
    pub fn from_socket_addr(address: SocketAddr) -> Result<Self, AddressError> {
        if let SocketAddr::V6(v6) = address
            && v6.scope_id() != 0
        {
            return Err(AddressError::Zone { address: shown(&address) });
        }
        let dial =
            Self { host: Host::Ip(address.ip().to_canonical()), port: Some(address.port()), peer_id: None };
        dial.checked(&address)
    }

    /// The address with the ID of the peer that is expected there.
    ///
    /// # Errors
    /// [`AddressError::OtherPeer`] when it names another one already.
    pub fn with_peer_id(self, peer_id: PeerId) -> Result<Self, AddressError> {
        match self.peer_id {
            Some(other) if other != peer_id => {
                Err(AddressError::OtherPeer { address: shown(&self), wanted: peer_id })
            }
            _ => Ok(Self { peer_id: Some(peer_id), ..self }),
        }
    }

    /// The address alone.
    pub fn without_peer_id(self) -> Self {
        Self { peer_id: None, ..self }
    }

    /// The IP address or name.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The UDP port, never 0; `None` for a `/dnsaddr`, whose records bring their own.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// IP address and port; `None` when a name must be resolved first.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match (&self.host, self.port) {
            (Host::Ip(ip), Some(port)) => Some(SocketAddr::new(*ip, port)),
            _ => None,
        }
    }

    /// The peer that is expected there, if one is named.
    pub fn peer_id(&self) -> Option<PeerId> {
        self.peer_id
    }

    /// The peer that is expected there, where an address must name one.
    ///
    /// # Errors
    /// [`AddressError::NoPeerId`].
    pub fn require_peer_id(&self) -> Result<PeerId, AddressError> {
        self.peer_id.ok_or_else(|| AddressError::NoPeerId { address: shown(self) })
    }

    /// Whether both lead to the same endpoint, whoever is expected there: peers tell addresses with and without their ID, and a second
    /// dial to the same place is a waste.
    pub fn same_endpoint(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }

    /// The address as a multiaddr.
    pub fn to_multiaddr(&self) -> Multiaddr {
        let mut address = Multiaddr::from(match &self.host {
            Host::Ip(ip) => Protocol::from(*ip),
            Host::Dns { name, family } => match family {
                DnsFamily::Any => Protocol::Dns(name.into()),
                DnsFamily::V4 => Protocol::Dns4(name.into()),
                DnsFamily::V6 => Protocol::Dns6(name.into()),
            },
            Host::Dnsaddr { name } => Protocol::Dnsaddr(name.into()),
        });
        if let Some(port) = self.port {
            address.push(Protocol::Udp(port));
            address.push(Protocol::QuicV1);
        }
        if let Some(peer_id) = self.peer_id {
            address.push(Protocol::P2p(peer_id));
        }
        address
    }

    /// The address as a binary multiaddr, the form in which it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_multiaddr().to_vec()
    }

    /// Refuses what no machine can have. `given` is named in the error.
    fn checked(self, given: &impl ToString) -> Result<Self, AddressError> {
        if self.port == Some(0) {
            return Err(AddressError::PortZero { address: shown(given) });
        }
        let Host::Ip(ip) = self.host else {
            return Ok(self);
        };
        let kind = match ip {
            _ if ip.is_unspecified() => "the unspecified address",
            _ if ip.is_multicast() => "a multicast address",
            IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
            _ => return Ok(self),
        };
        Err(AddressError::NotUnicast { address: shown(given), ip, kind })
    }
}

impl FromStr for DialAddress {
    type Err = AddressError;

    /// Reads text of at most [`crate::MAX_ADDRESS_TEXT`] bytes. Peer IDs are read in both text forms, `/ipfs/ID` as `/p2p/ID`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::try_from(&parse::multiaddr_from_text(text)?)
    }
}

impl TryFrom<&Multiaddr> for DialAddress {
    type Error = AddressError;

    fn try_from(address: &Multiaddr) -> Result<Self, AddressError> {
        let Parts { host, port, peer_id } = parse::parts(address)?;
        Self { host, port, peer_id }.checked(address)
    }
}

impl TryFrom<Multiaddr> for DialAddress {
    type Error = AddressError;

    fn try_from(address: Multiaddr) -> Result<Self, AddressError> {
        Self::try_from(&address)
    }
}

impl From<DialAddress> for Multiaddr {
    fn from(address: DialAddress) -> Self {
        address.to_multiaddr()
    }
}

impl fmt::Display for DialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_multiaddr().fmt(f)
    }
}

impl fmt::Debug for DialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
