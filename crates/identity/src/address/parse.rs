//! Reads multiaddrs, text and binary, and takes apart those that Peerage knows.

use std::net::IpAddr;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::{AddressError, DnsFamily, Host, MAX_ADDRESS_BYTES, MAX_ADDRESS_TEXT, dns_name};
use crate::peer_id::{check_peer_id, parse_peer_id};

/// What an address consists of. The port is `None` with [`Host::Dnsaddr`] and only there.
pub(super) struct Parts {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
    pub(super) peer_id: Option<PeerId>,
}

/// Reads the text of a multiaddr. Unlike the multiaddr crate it takes peer IDs in both text forms, and a `/` at the end.
pub(super) fn multiaddr_from_text(text: &str) -> Result<Multiaddr, AddressError> {
    if text.len() > MAX_ADDRESS_TEXT {
        return Err(AddressError::TooLong { length: text.len() });
    }
    let not_multiaddr =
        |reason: &str| AddressError::NotMultiaddr { address: shown(text), reason: reason.into() };
    let inner = text.strip_prefix('/').ok_or_else(|| not_multiaddr("it does not begin with `/`"))?;
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let mut address = Multiaddr::empty();
    let mut words = inner.split('/').peekable();
    while let Some(name) = words.peek() {
        if name.is_empty() {
            return Err(not_multiaddr("a component is empty"));
        }
        address.push(component_from_text(&mut words).map_err(|error| error.at(text))?);
    }
    Ok(address)
}

/// Reads a binary multiaddr.
pub(super) fn multiaddr_from_bytes(bytes: &[u8]) -> Result<Multiaddr, AddressError> {
    if bytes.len() > MAX_ADDRESS_BYTES {
        return Err(AddressError::TooLong { length: bytes.len() });
    }
    Multiaddr::try_from(bytes.to_vec()).map_err(|error| ComponentError::from(error).at(&shown_bytes(bytes)))
}

/// Takes a multiaddr apart, and says what it is when it is not one of ours.
pub(super) fn parts(address: &Multiaddr) -> Result<Parts, AddressError> {
    if address.len() > MAX_ADDRESS_BYTES {
        return Err(AddressError::TooLong { length: address.len() });
    }
    if address.iter().any(|component| component == Protocol::P2pCircuit) {
        return Err(AddressError::Relay { address: shown(address) });
    }
    let mut components = address.iter();
    let host = host(components.next(), address)?;
    if let Host::Dnsaddr { .. } = host {
        let peer_id = tail(components, address, AFTER_DNSADDR)?;
        return Ok(Parts { host, port: None, peer_id });
    }
    let port = port(components.next(), address)?;
    quic_v1(components.next(), address)?;
    let peer_id = tail(components, address, AFTER_QUIC)?;
    Ok(Parts { host, port: Some(port), peer_id })
}

/// The text of an address for an error: not too long, and with nothing in it that a terminal or log would act on.
pub(super) fn shown(address: &(impl ToString + ?Sized)) -> String {
    const MOST: usize = 160;
    let text = address.to_string().escape_debug().to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn shown_bytes(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    shown(&format!("0x{digits}"))
}

fn host(first: Option<Protocol<'_>>, address: &Multiaddr) -> Result<Host, AddressError> {
    let named = |name: &str| {
        dns_name::normalise(name).map_err(|reason| AddressError::DnsName { address: shown(address), reason })
    };
    let dns = |name: &str, family| Ok(Host::Dns { name: named(name)?, family });
    match first {
        Some(Protocol::Ip4(ip)) => Ok(Host::Ip(ip.into())),
        // A mapped address is reached through an IPv4 socket: one address, one form.
        Some(Protocol::Ip6(ip)) => Ok(Host::Ip(IpAddr::V6(ip).to_canonical())),
        Some(Protocol::Dns(name)) => dns(&name, DnsFamily::Any),
        Some(Protocol::Dns4(name)) => dns(&name, DnsFamily::V4),
        Some(Protocol::Dns6(name)) => dns(&name, DnsFamily::V6),
        Some(Protocol::Dnsaddr(name)) => Ok(Host::Dnsaddr { name: named(&name)? }),
        Some(Protocol::Ip6zone(_)) => Err(AddressError::Zone { address: shown(address) }),
        Some(Protocol::Tcp(_)) => Err(AddressError::Tcp { address: shown(address) }),
        None
        | Some(
            Protocol::P2p(_) | Protocol::Udp(_) | Protocol::QuicV1 | Protocol::Quic | Protocol::Ipcidr(_),
        ) => Err(AddressError::Incomplete {
            address: shown(address),
            missing: "host (/ip4, /ip6, /dns, /dns4, /dns6 or /dnsaddr)",
        }),
        Some(other) => Err(other_transport(&other, address)),
    }
}

fn port(second: Option<Protocol<'_>>, address: &Multiaddr) -> Result<u16, AddressError> {
    match second {
        Some(Protocol::Udp(port)) => Ok(port),
        Some(Protocol::Tcp(_)) => Err(AddressError::Tcp { address: shown(address) }),
        None | Some(Protocol::P2p(_) | Protocol::QuicV1 | Protocol::Quic) => {
            Err(AddressError::Incomplete { address: shown(address), missing: "port (/udp/PORT)" })
        }
        Some(Protocol::Ip6zone(_)) => Err(AddressError::Zone { address: shown(address) }),
        Some(other) => Err(other_transport(&other, address)),
    }
}

fn quic_v1(third: Option<Protocol<'_>>, address: &Multiaddr) -> Result<(), AddressError> {
    match third {
        Some(Protocol::QuicV1) => Ok(()),
        Some(Protocol::Quic) => Err(AddressError::QuicDraft29 { address: shown(address) }),
        None | Some(Protocol::P2p(_)) => {
            Err(AddressError::Incomplete { address: shown(address), missing: "protocol (/quic-v1)" })
        }
        Some(other) => Err(other_transport(&other, address)),
    }
}

/// The peer ID that may stand at the end.
fn tail<'a>(
    mut components: impl Iterator<Item = Protocol<'a>>,
    address: &Multiaddr,
    remedy: &'static str,
) -> Result<Option<PeerId>, AddressError> {
    let peer_id = match components.next() {
        None => return Ok(None),
        Some(Protocol::P2p(peer_id)) => check_peer_id(peer_id)
            .map_err(|source| AddressError::PeerId { address: shown(address), source })?,
        Some(other @ (Protocol::WebTransport | Protocol::Certhash(_))) => {
            return Err(other_transport(&other, address));
        }
        Some(other) => return Err(unexpected(&other, address, remedy)),
    };
    match components.next() {
        None => Ok(Some(peer_id)),
        Some(Protocol::P2p(_)) => Err(AddressError::SeveralPeerIds { address: shown(address) }),
        Some(other) => Err(unexpected(&other, address, remedy)),
    }
}

/// For what stands in the place of `/udp` or `/quic-v1`.
fn other_transport(component: &Protocol<'_>, address: &Multiaddr) -> AddressError {
    match component {
        Protocol::Ip4(_)
        | Protocol::Ip6(_)
        | Protocol::Ipcidr(_)
        | Protocol::Dns(_)
        | Protocol::Dns4(_)
        | Protocol::Dns6(_)
        | Protocol::Dnsaddr(_) => unexpected(component, address, AFTER_HOST),
        _ => AddressError::OtherTransport { address: shown(address), component: component.tag() },
    }
}

fn unexpected(component: &Protocol<'_>, address: &Multiaddr, remedy: &'static str) -> AddressError {
    AddressError::UnexpectedComponent { address: shown(address), component: component.tag(), remedy }
}

fn component_from_text<'a>(
    words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
) -> Result<Protocol<'a>, ComponentError> {
    match words.peek() {
        Some(&"p2p" | &"ipfs") => {
            words.next();
            let text =
                words.next().ok_or_else(|| ComponentError::Malformed("the peer ID is missing".into()))?;
            Ok(Protocol::P2p(parse_peer_id(text)?))
        }
        _ => Ok(Protocol::from_str_parts(words)?),
    }
}

/// What is wrong with one component; the address around it is added by [`ComponentError::at`].
enum ComponentError {
    Malformed(String),
    Unknown(String),
    PeerId(crate::PeerIdError),
}

impl ComponentError {
    fn at(self, address: &str) -> AddressError {
        let address = shown(address);
        match self {
            Self::Malformed(reason) => AddressError::NotMultiaddr { address, reason: shown(&reason) },
            Self::Unknown(component) => {
                AddressError::UnknownComponent { address, component: shown(&component) }
            }
            Self::PeerId(source) => AddressError::PeerId { address, source },
        }
    }
}

impl From<crate::PeerIdError> for ComponentError {
    fn from(error: crate::PeerIdError) -> Self {
        Self::PeerId(error)
    }
}

impl From<multiaddr::Error> for ComponentError {
    fn from(error: multiaddr::Error) -> Self {
        match error {
            multiaddr::Error::UnknownProtocolString(name) => Self::Unknown(name),
            multiaddr::Error::UnknownProtocolId(number) => Self::Unknown(number.to_string()),
            multiaddr::Error::InvalidProtocolString => {
                Self::Malformed("a component lacks its value or has one of a wrong length".into())
            }
            multiaddr::Error::ParsingError(error) => {
                Self::Malformed(format!("a value is malformed: {error}"))
            }
            multiaddr::Error::DataLessThanLen => Self::Malformed("it is cut short".into()),
            other => Self::Malformed(other.to_string()),
        }
    }
}

const AFTER_HOST: &str = "behind the host stands /udp/PORT/quic-v1 and nothing else";
const AFTER_QUIC: &str = "only /p2p/ID may follow /quic-v1";
const AFTER_DNSADDR: &str = "only /p2p/ID may follow /dnsaddr/NAME, whose records are whole addresses";
