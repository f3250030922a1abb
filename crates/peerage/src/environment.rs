//! What a node needs of the outside world: sockets, timers, the date, the machine's addresses, names, randomness.
//!
//! Real time and the system's randomness are read here and nowhere else on this side of rustls.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerage_transport::quinn::{Runtime, TokioRuntime};
use peerage_transport::{Tap, UdpSocket};

use crate::resolve::{Resolve, SystemResolver};

/// The outside world of a node. A simulation or a test gives its own, with [`NodeBuilder::environment`](crate::NodeBuilder::environment).
///
/// A node asks nothing else of the world, but for its data directory, and runs on the tokio runtime on which it was started: every task is spawned
/// there, and every deadline is tokio's, so that the runtime's clock can be paused. With a runtime of one thread and a certificate of
/// [`CertificateKind::Ed25519`](crate::CertificateKind), whose length doesn't vary, a run follows from what [`Environment::entropy`] and the sockets give.
/// TLS draws its ephemeral keys from the system even so; their values change no length and no time.
pub trait Environment: fmt::Debug + Send + Sync + 'static {
    /// Opens a UDP socket on `address`, whose port may be 0. `buffer_bytes` is the kernel buffer to ask for, where there is one.
    ///
    /// Called for each listen address, and for dialling when a node without one dials a first address of an IP family.
    ///
    /// # Errors
    /// Those of the system; [`io::ErrorKind::AddrInUse`] and [`io::ErrorKind::AddrNotAvailable`] are told apart.
    fn bind(&self, address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket>;

    /// What runs tasks and timers for QUIC. Its [`Runtime::wrap_udp_socket`] is not called by the node.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// The addresses of this machine's interfaces, for which a wildcard listen address stands.
    ///
    /// # Errors
    /// When they can't be listed.
    fn interfaces(&self) -> io::Result<Vec<IpAddr>>;

    /// What looks names up, unless [`NodeBuilder::resolver`](crate::NodeBuilder::resolver) gives another.
    fn resolver(&self) -> Arc<dyn Resolve>;

    /// The time since the Unix epoch, for certificates and signed records.
    fn unix_now(&self) -> Duration;

    /// Fills `bytes` with randomness that nobody can predict.
    ///
    /// # Errors
    /// When there is none.
    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// What sees all that the node says to its peers, before it is encrypted; for tests. Nothing unless it is given.
    fn tap(&self) -> Option<Arc<dyn Tap>> {
        None
    }
}

/// A seed from the environment's randomness.
pub(crate) fn seed(environment: &dyn Environment) -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    environment.entropy(&mut seed)?;
    Ok(seed)
}

/// The world as the operating system shows it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn bind(&self, address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
        UdpSocket::bind(address, buffer_bytes)
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime)
    }

    fn interfaces(&self) -> io::Result<Vec<IpAddr>> {
        Ok(if_addrs::get_if_addrs()?.into_iter().map(|interface| interface.ip()).collect())
    }

    fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::new(SystemResolver)
    }

    fn unix_now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }
}
