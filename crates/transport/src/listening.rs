//! Where an endpoint listens and from where it dials: sockets that come, go and move while connections live.
//!
//! A socket that is no longer listened on is kept while a connection uses it. So is its port.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, select_all};
use quinn::AsyncUdpSocket;

use crate::connection_id::{ConnectionIdGenerator, reset_key};
use crate::dial::DialError;
use crate::endpoint::Endpoint;
use crate::incoming::Incoming;
use crate::socket::{self, BindError, SocketBuffers, UdpSocket};

/// One UDP socket with its quinn endpoint.
#[derive(Clone)]
pub(crate) struct BoundSocket {
    pub(crate) quinn: quinn::Endpoint,
    socket: Arc<dyn AsyncUdpSocket>,
    local: SocketAddr,
    role: Role,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// The connections that it still has.
    Retired,
    /// Dialling alone.
    Dialling,
    /// Listening, and dialling.
    Listening,
}

/// What happened to a socket.
enum Happening {
    Arrival(Box<quinn::Incoming>),
    /// It takes no more connections.
    Lost(SocketAddr),
    /// A retired socket has no connection left, or what the sockets are has changed.
    Changed,
}

impl Endpoint {
    /// Listens on one more address, with a socket of its own, and tells the real address. A port of 0 becomes a free one. An endpoint that only dialled
    /// so far needs a task that calls [`Endpoint::accept`] from now on.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn listen(&self, address: SocketAddr) -> Result<SocketAddr, BindError> {
        Ok(self.open_socket(address, Role::Listening)?.local)
    }

    /// Listens on one more socket, which the caller made, and tells its address.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn listen_over(&self, socket: Arc<dyn AsyncUdpSocket>) -> Result<SocketAddr, BindError> {
        Ok(self.add_socket(socket, Role::Listening)?.local)
    }

    /// Takes no more connections on `address`, which is one of [`Endpoint::local_addresses`]. Those that came or were dialled there live on; the
    /// port is free when the last of them has ended. Returns whether the endpoint listened there.
    pub fn stop_listening(&self, address: SocketAddr) -> bool {
        let stopped = {
            let mut sockets = self.sockets();
            let stopped = sockets
                .iter_mut()
                .find(|socket| socket.local == address && socket.role == Role::Listening)
                .map(|socket| {
                    socket.role = Role::Retired;
                    socket.quinn.set_server_config(None);
                    socket.quinn.clone()
                });
            sockets.retain(|socket| !socket.is_done());
            stopped
        };
        if let Some(quinn) = &stopped {
            // Nobody will ask for those that came before.
            while let Some(Some(incoming)) = quinn.accept().now_or_never() {
                incoming.refuse();
            }
            self.wake_accept();
        }
        stopped.is_some()
    }

    /// Moves the socket at `from` to another address of this machine, because the old one is gone or goes, and tells the real new address.
    ///
    /// Connections that this side dialled go on from the new address: their peers notice by themselves (RFC 9000 § 9), unless they forbid it. QUIC knows no
    /// way for inbound ones; they end with their idle timeout. `from` is one of [`Endpoint::socket_addresses`].
    ///
    /// # Errors
    /// [`BindError`]; the old socket is kept then.
    pub fn rebind(&self, from: SocketAddr, to: SocketAddr) -> Result<SocketAddr, BindError> {
        self.can_move(from, to)?;
        let UdpSocket { socket, buffers } = self.open(to)?;
        let local = self.rebind_over(from, socket)?;
        self.note_buffers(buffers);
        Ok(local)
    }

    /// As [`Endpoint::rebind`], to a socket that the caller made.
    ///
    /// # Errors
    /// [`BindError`]; the old socket is kept then.
    pub fn rebind_over(
        &self,
        from: SocketAddr,
        to: Arc<dyn AsyncUdpSocket>,
    ) -> Result<SocketAddr, BindError> {
        let local = local_address(&*to)?;
        self.can_move(from, local)?;
        let mut sockets = self.sockets();
        let bound = sockets.iter().map(|socket| socket.local).collect();
        let Some(socket) = sockets.iter_mut().find(|socket| socket.local == from) else {
            return Err(BindError::NotBound { address: from, bound });
        };
        let moved = socket.quinn.rebind_abstract(to.clone());
        moved.map_err(|source| BindError::Socket { address: local, source })?;
        socket.socket = to;
        socket.local = local;
        drop(sockets);
        self.wake_accept();
        tracing::info!(%from, to = %local, "a socket moved");
        Ok(local)
    }

    /// The machine no longer has the address of the socket at `from`: stops listening there, and moves the socket to whatever address the machine has, for
    /// the connections that were dialled from it. It goes with the last of them.
    ///
    /// # Errors
    /// [`BindError`]; the old socket is kept then.
    pub fn leave_address(&self, from: SocketAddr) -> Result<(), BindError> {
        self.stop_listening(from);
        if self.socket_addresses().contains(&from) {
            self.rebind(from, socket::dialling_address(from))?;
        }
        Ok(())
    }

    /// The machine's addresses or routes have changed: every connection on a wildcard socket sends a packet at once, so that the peers of those that this
    /// side dialled learn the new path now and not with the next keep-alive (RFC 9000 § 9).
    pub fn path_changed(&self) {
        for bound in self.sockets().iter().filter(|bound| bound.local.ip().is_unspecified()) {
            // A move to where it is: QUIC takes it for one to a new address.
            if let Err(error) = bound.quinn.rebind_abstract(bound.socket.clone()) {
                tracing::debug!(address = %bound.local, %error, "a socket does not tell its address");
            }
        }
    }

    /// The addresses on which the endpoint listens, with their real ports. A wildcard stays one.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        let listening = |socket: &&BoundSocket| socket.role == Role::Listening;
        self.sockets().iter().filter(listening).map(|socket| socket.local).collect()
    }

    /// The addresses of all sockets: those that are listened on, those only dialled from, and those that some connection still uses.
    pub fn socket_addresses(&self) -> Vec<SocketAddr> {
        self.sockets().iter().map(|socket| socket.local).collect()
    }

    /// The next inbound connection that is admitted by the rules of [`crate::Admission`], before any TLS was done for it; `None` once the endpoint
    /// is closed. Others are answered here and never seen, so keep calling it. Cancel-safe.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let changed = self.socket_change();
            if self.is_closed() {
                return None;
            }
            let sockets = {
                let mut sockets = self.sockets();
                sockets.retain(|socket| !socket.is_done());
                sockets.clone()
            };
            // The first one asked wins: take turns, so that a flood on one address doesn't hide the others.
            let turn = self.next_turn() % sockets.len().max(1);
            let (later, first) = sockets.split_at(turn);
            let mut happenings: Vec<BoxFuture<'_, Happening>> =
                first.iter().chain(later).filter_map(BoundSocket::next).collect();
            happenings.push(changed.map(|()| Happening::Changed).boxed());
            match select_all(happenings).await.0 {
                Happening::Arrival(quinn) => {
                    if let Some((quinn, place)) = self.gate().pass(*quinn, self.runtime().now()) {
                        return Some(Incoming::new(quinn, self.clone(), place));
                    }
                }
                Happening::Lost(local) if !self.is_closed() => self.lose_socket(local),
                Happening::Lost(_) | Happening::Changed => {}
            }
        }
    }

    /// The best socket to dial `to` from. Where the endpoint listens on no address of the family, one is opened for dialling alone.
    pub(crate) fn dialling_socket(&self, to: SocketAddr) -> Result<quinn::Endpoint, DialError> {
        if self.is_closed() {
            return Err(DialError::Closed);
        }
        if to.port() == 0 || to.ip().is_unspecified() {
            return Err(DialError::BadAddress { address: to });
        }
        let best = self
            .sockets()
            .iter()
            .filter(|socket| socket.role != Role::Retired)
            .filter_map(|socket| {
                Some((socket::fitness(socket.local, to)?, socket.role, socket.quinn.clone()))
            })
            .max_by_key(|(fitness, role, _)| (*fitness, *role));
        if let Some((_, _, quinn)) = best {
            return Ok(quinn);
        }
        // One that listens on loopback alone keeps to it.
        let mut listening = self.local_addresses();
        listening.retain(|local| local.is_ipv4() == to.is_ipv4());
        if !listening.is_empty() {
            return Err(DialError::NoSocket { address: to, listening });
        }
        match self.open_socket(socket::dialling_address(to), Role::Dialling) {
            Ok(socket) => Ok(socket.quinn),
            Err(BindError::Closed) => Err(DialError::Closed),
            Err(source) => Err(DialError::Bind { address: to, source }),
        }
    }

    fn open_socket(&self, address: SocketAddr, role: Role) -> Result<BoundSocket, BindError> {
        let UdpSocket { socket, buffers } = self.open(address)?;
        let socket = self.add_socket(socket, role)?;
        self.note_buffers(buffers);
        Ok(socket)
    }

    fn add_socket(&self, socket: Arc<dyn AsyncUdpSocket>, role: Role) -> Result<BoundSocket, BindError> {
        let local = local_address(&*socket)?;
        let mut random = self.fork_random();
        let mut seed = [0; 32];
        random.fill(&mut seed);
        let generator = ConnectionIdGenerator::new(self.key(), local, random);
        let mut config = quinn::EndpointConfig::new(reset_key(self.key(), local));
        // Called once: a second generator would make the same IDs.
        config.cid_generator(move || Box::new(generator.clone())).rng_seed(Some(seed));
        config
            .max_udp_payload_size(self.settings().max_datagram_bytes.max(ETHERNET_PAYLOAD))
            .expect("validated to be within QUIC's bounds");
        let server = (role == Role::Listening).then(|| self.server_config().clone());
        let quinn =
            quinn::Endpoint::new_with_abstract_socket(config, server, socket.clone(), self.runtime().clone())
                .map_err(|source| BindError::Socket { address: local, source })?;
        let bound = BoundSocket { quinn, socket, local, role };
        let mut sockets = self.sockets();
        // Asked under the lock: close() sets its mark before it takes it.
        if self.is_closed() {
            return Err(BindError::Closed);
        }
        sockets.push(bound.clone());
        drop(sockets);
        self.wake_accept();
        Ok(bound)
    }

    /// Whether the socket at `from` is there and can move to an address like `to`.
    fn can_move(&self, from: SocketAddr, to: SocketAddr) -> Result<(), BindError> {
        let bound = self.socket_addresses();
        if !bound.contains(&from) {
            return Err(BindError::NotBound { address: from, bound });
        }
        if from.is_ipv4() != to.is_ipv4() {
            return Err(BindError::OtherFamily { from, to });
        }
        Ok(())
    }

    fn note_buffers(&self, buffers: Option<SocketBuffers>) {
        let Some(buffers) = buffers else { return };
        let mut least = self.buffers().lock().unwrap_or_else(PoisonError::into_inner);
        *least = Some(least.map_or(buffers, |other| other.least(buffers)));
    }

    /// The system took a socket away, as with an interface that is gone.
    fn lose_socket(&self, local: SocketAddr) {
        tracing::error!(address = %local, "the UDP socket failed: this address is no longer listened on");
        self.sockets().retain(|socket| socket.local != local);
    }
}

impl BoundSocket {
    /// Waits for what can happen to it; `None` when nothing can that matters.
    fn next(&self) -> Option<BoxFuture<'_, Happening>> {
        match self.role {
            Role::Dialling => None,
            Role::Listening => Some(
                async {
                    match self.quinn.accept().await {
                        Some(quinn) => Happening::Arrival(Box::new(quinn)),
                        None => Happening::Lost(self.local),
                    }
                }
                .boxed(),
            ),
            Role::Retired => Some(self.quinn.wait_idle().map(|()| Happening::Changed).boxed()),
        }
    }

    /// Retired, and without a connection.
    fn is_done(&self) -> bool {
        self.role == Role::Retired && self.quinn.wait_idle().now_or_never().is_some()
    }
}

fn local_address(socket: &dyn AsyncUdpSocket) -> Result<SocketAddr, BindError> {
    socket.local_addr().map_err(|source| BindError::Socket { address: socket::UNKNOWN, source })
}

/// The largest UDP payload on Ethernet, in bytes: what we take, even where less is sent.
const ETHERNET_PAYLOAD: u16 = 1472;
