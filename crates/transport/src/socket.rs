//! UDP sockets as QUIC wants them: large kernel buffers, one IP family each, errors that name the address and the remedy.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::AsyncUdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

#[cfg(unix)]
use crate::system_socket::SystemSocket;

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A setting is out of its bounds.
    #[error(transparent)]
    Settings(#[from] crate::SettingsError),
    /// Another program, or another node, has the port.
    #[error("UDP port {} of {} is in use (stop the program that has it, or listen on another port)", .address.port(), .address.ip())]
    AddressInUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The machine doesn't have the address.
    #[error("{} is no address of this machine (listen on one that it has, or on {})", .address.ip(), wildcard(.address))]
    AddressNotAvailable {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The port is reserved for privileged programs, or the system forbids sockets.
    #[error("no permission to use UDP port {} of {} (take a port from 1024 on)", .address.port(), .address.ip())]
    PermissionDenied {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("cannot open a UDP socket on {address}: {source}")]
    Socket {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The endpoint has no socket at the address that is to be moved.
    #[error("this node has no socket at {address}, only at {} (give one of these)", crate::dial::listed(.bound))]
    NotBound {
        /// What was asked for.
        address: SocketAddr,
        /// The sockets that there are.
        bound: Vec<SocketAddr>,
    },
    /// A socket can't move to the other IP family, because its connections can't.
    #[error(
        "the socket at {from} cannot move to {to}, an address of the other IP family (listen there beside it)"
    )]
    OtherFamily {
        /// Where the socket is.
        from: SocketAddr,
        /// Where it was to go.
        to: SocketAddr,
    },
    /// The endpoint was closed.
    #[error("the endpoint is closed")]
    Closed,
    /// The operating system gives no randomness, without which no connection is safe.
    #[error("the operating system gave no randomness, so no connection would be safe")]
    Entropy,
    /// The endpoint's certificate could not be made.
    #[error("cannot make the TLS certificate: {reason}")]
    Certificate {
        /// What went wrong.
        reason: String,
    },
}

/// The kernel buffers of an endpoint's sockets, in bytes per socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketBuffers {
    /// What [`crate::TransportSettings::socket_buffer_bytes`] asked for.
    pub asked: usize,
    /// The least that the kernel gave a socket for receiving.
    pub receive: usize,
    /// The least that the kernel gave a socket for sending.
    pub send: usize,
}

impl SocketBuffers {
    /// Whether the kernel gave less than was asked for. Linux then drops bursts; the remedy is to raise `net.core.rmem_max` and `net.core.wmem_max`.
    pub fn is_short(&self) -> bool {
        self.receive.min(self.send) < self.asked
    }

    /// The lesser of two sockets' buffers.
    pub(crate) fn least(self, other: Self) -> Self {
        Self { asked: self.asked, receive: self.receive.min(other.receive), send: self.send.min(other.send) }
    }
}

/// An open UDP socket: the system's, or one that the caller made, such as a simulated network's.
#[derive(Clone)]
pub struct UdpSocket {
    /// What QUIC sends and receives through.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Its kernel buffers, where it has some.
    pub buffers: Option<SocketBuffers>,
}

impl UdpSocket {
    /// Opens a socket of the system on `address`, whose port may be 0, and asks for kernel buffers of `buffer_bytes` in each direction.
    ///
    /// An IPv6 socket takes IPv6 alone, so that the same port can be bound for IPv4 beside it and addresses never come in their mapped form.
    ///
    /// It is served by the tokio runtime in which this is called.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one without I/O.
    pub fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        let (socket, buffers) = open(address, buffer_bytes)?;
        Ok(Self { socket: on_tokio(socket)?, buffers: Some(buffers) })
    }
}

impl From<Arc<dyn AsyncUdpSocket>> for UdpSocket {
    fn from(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, buffers: None }
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UdpSocket").field(&self.socket.local_addr()).finish()
    }
}

impl BindError {
    /// What an error of the system means for the socket at `address`.
    pub(crate) fn from_io(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address },
            io::ErrorKind::AddrNotAvailable => Self::AddressNotAvailable { address },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { address },
            _ => Self::Socket { address, source },
        }
    }
}

/// The address from which to dial `to` when no socket is there: any address of the family, any port.
pub(crate) fn dialling_address(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Whether a socket bound to `local` can send to `to`, and how well: the highest is to be taken.
pub(crate) fn fitness(local: SocketAddr, to: SocketAddr) -> Option<u8> {
    let (from, to) = (local.ip(), to.ip());
    if from.is_ipv4() != to.is_ipv4() {
        return None;
    }
    match (from.is_unspecified(), from.is_loopback() == to.is_loopback()) {
        // Bound to an address of the right kind: the peer then sees the address on which we listen.
        (false, true) => Some(2),
        (true, _) => Some(1),
        // The system refuses to send from loopback to elsewhere; the other way round it may work.
        (false, false) => to.is_loopback().then_some(0),
    }
}

/// Stands for the address of a socket that doesn't tell its own.
pub(crate) const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn open(address: SocketAddr, buffer_bytes: usize) -> io::Result<(std::net::UdpSocket, SocketBuffers)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Too large a request is an error on some systems and a smaller buffer on others. What was given is reported, not required.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    let buffers = SocketBuffers {
        asked: buffer_bytes,
        receive: usable(socket.recv_buffer_size()?),
        send: usable(socket.send_buffer_size()?),
    };
    Ok((socket.into(), buffers))
}

#[cfg(unix)]
fn on_tokio(socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    Ok(Arc::new(SystemSocket::new(socket)?))
}

#[cfg(not(unix))]
fn on_tokio(socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, socket)
}

/// Linux doubles what is asked, for its own bookkeeping, and reports the double (socket(7)).
fn usable(reported: usize) -> usize {
    if cfg!(any(target_os = "linux", target_os = "android")) { reported / 2 } else { reported }
}

fn wildcard(address: &SocketAddr) -> IpAddr {
    dialling_address(*address).ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_the_remedy() {
        let (first, _) = open("127.0.0.1:0".parse().unwrap(), 65_536).unwrap();
        let address = first.local_addr().unwrap();
        let error = BindError::from_io(address, open(address, 65_536).unwrap_err());
        assert!(matches!(error, BindError::AddressInUse { .. }));
        assert!(error.to_string().contains(&address.port().to_string()));
        assert!(error.to_string().contains("another port"));
    }

    #[test]
    fn an_address_of_another_machine_is_named_with_the_remedy() {
        let address = "192.0.2.1:0".parse().unwrap();
        let error = BindError::from_io(address, open(address, 65_536).unwrap_err());
        assert!(matches!(error, BindError::AddressNotAvailable { .. }));
        assert!(error.to_string().contains("listen on one that it has, or on 0.0.0.0"), "{error}");
    }

    #[test]
    fn the_buffers_that_the_kernel_gave_are_reported() {
        let (_socket, buffers) = open("127.0.0.1:0".parse().unwrap(), 65_536).unwrap();
        assert_eq!(buffers, SocketBuffers { asked: 65_536, receive: 65_536, send: 65_536 });
        assert!(!buffers.is_short());
    }

    #[test]
    fn a_dial_leaves_from_the_socket_that_fits_best() {
        let fitness = |local: &str, to: &str| super::fitness(local.parse().unwrap(), to.parse().unwrap());
        assert_eq!(fitness("0.0.0.0:1", "[2001:db8::1]:2"), None);
        assert_eq!(fitness("127.0.0.1:1", "198.51.100.1:2"), None);
        let to = "127.0.0.1:2";
        assert!(fitness("127.0.0.1:1", to) > fitness("0.0.0.0:1", to));
        assert!(fitness("0.0.0.0:1", to) > fitness("192.168.1.1:1", to));
        let to = "198.51.100.1:2";
        assert!(fitness("192.168.1.1:1", to) > fitness("0.0.0.0:1", to));
    }
}
