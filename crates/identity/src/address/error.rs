//! Why a multiaddr is not an address that we can dial or listen on.

use std::net::IpAddr;

use libp2p_identity::PeerId;

use super::{MAX_ADDRESS_BYTES, MAX_ADDRESS_TEXT};
use crate::peer_id::PeerIdError;

/// Why an address was refused. `address` is its text, or `0x…` for bytes that are no multiaddr; long ones are cut and control characters
/// escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// More bytes or characters than any address has.
    #[error(
        "an address of {length} bytes is refused: at most {MAX_ADDRESS_TEXT} are taken as text, {MAX_ADDRESS_BYTES} in binary"
    )]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// The text or bytes are no multiaddr at all.
    #[error("`{address}` is not a multiaddr: {reason} (write it like /ip4/192.0.2.1/udp/4001/quic-v1)")]
    NotMultiaddr {
        /// The address.
        address: String,
        /// What the decoder found.
        reason: String,
    },
    /// It has a component that this version doesn't know.
    #[error(
        "`{address}` has the component `{component}`, which is unknown here (only ip4, ip6, dns, dns4, dns6, dnsaddr, udp, quic-v1 and p2p \
         are used)"
    )]
    UnknownComponent {
        /// The address.
        address: String,
        /// Its name, or its number in binary.
        component: String,
    },
    /// A TCP address.
    #[error(
        "`{address}` is a TCP address and Peerage speaks only QUIC (use the peer's /udp/PORT/quic-v1 address)"
    )]
    Tcp {
        /// The address.
        address: String,
    },
    /// An address of QUIC draft 29, which nobody speaks any more.
    #[error(
        "`{address}` means the dead QUIC draft 29 by `/quic` (write /quic-v1 if the peer speaks QUIC version 1)"
    )]
    QuicDraft29 {
        /// The address.
        address: String,
    },
    /// A part of the address is missing.
    #[error("`{address}` lacks its {missing} (a whole address is like /ip4/192.0.2.1/udp/4001/quic-v1)")]
    Incomplete {
        /// The address.
        address: String,
        /// The part.
        missing: &'static str,
    },
    /// Port 0, which nobody listens on.
    #[error("`{address}` has port 0, which cannot be dialled (give the port that the peer listens on)")]
    PortZero {
        /// The address.
        address: String,
    },
    /// An address through a relay.
    #[error(
        "`{address}` leads through a relay, which Peerage doesn't do (use the peer's own /udp/PORT/quic-v1 address)"
    )]
    Relay {
        /// The address.
        address: String,
    },
    /// An address of another transport.
    #[error(
        "`{address}` is for the transport `{component}` and Peerage speaks only QUIC (use the peer's /udp/PORT/quic-v1 address)"
    )]
    OtherTransport {
        /// The address.
        address: String,
        /// The component that tells.
        component: &'static str,
    },
    /// Something stands where nothing or something else belongs.
    #[error("`{address}` has `{component}` in a place where it means nothing here ({remedy})")]
    UnexpectedComponent {
        /// The address.
        address: String,
        /// The component.
        component: &'static str,
        /// What may stand there.
        remedy: &'static str,
    },
    /// More than one peer ID.
    #[error("`{address}` names several peers (leave the /p2p/ID of the one that is dialled)")]
    SeveralPeerIds {
        /// The address.
        address: String,
    },
    /// A peer ID that is none.
    #[error("`{address}` has no valid peer ID: {source}")]
    PeerId {
        /// The address.
        address: String,
        /// What is wrong with the ID.
        source: PeerIdError,
    },
    /// An IPv6 zone.
    #[error(
        "`{address}` has a zone, and the name of a network interface means something on one machine only (use an \
         address that is not link-local)"
    )]
    Zone {
        /// The address.
        address: String,
    },
    /// A name that DNS cannot have.
    #[error("`{address}` has an impossible DNS name: {reason}")]
    DnsName {
        /// The address.
        address: String,
        /// The rule that it breaks, with the remedy.
        reason: &'static str,
    },
    /// An IP address that no node has.
    #[error("`{address}` cannot be used: {ip} is {kind} (give the address of one machine)")]
    NotUnicast {
        /// The address.
        address: String,
        /// The IP address in it.
        ip: IpAddr,
        /// What it is.
        kind: &'static str,
    },
    /// A peer ID is needed and there is none.
    #[error("`{address}` names no peer, and here one is needed (append /p2p/ and the peer's ID)")]
    NoPeerId {
        /// The address.
        address: String,
    },
    /// It already names another peer.
    #[error("`{address}` names another peer than {wanted} (correct one of the two)")]
    OtherPeer {
        /// The address.
        address: String,
        /// The peer that was to be named.
        wanted: PeerId,
    },
    /// A peer ID where only our own could stand.
    #[error("`{address}` is to be listened on and names a peer (leave /p2p away: it is always this node)")]
    PeerIdOnListen {
        /// The address.
        address: String,
    },
    /// A name where an IP address of this machine is needed.
    #[error(
        "`{address}` is to be listened on and has a name (give an IP address of this machine, or /ip4/0.0.0.0)"
    )]
    NameOnListen {
        /// The address.
        address: String,
    },
}
