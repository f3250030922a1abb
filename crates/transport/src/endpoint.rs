//! The endpoint: one node's sockets, its certificate, and the connections that begin and end on them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::select_all;
use peerage_identity::{NodeKey, PeerId};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, TransportConfig};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::close::{CloseCause, CloseCode};
use crate::connection::ConnectionId;
use crate::connection_id::{ConnectionIdGenerator, reset_key};
use crate::dial::DialError;
use crate::gate::{AdmissionCounts, Gate};
use crate::incoming::Incoming;
use crate::settings::TransportSettings;
use crate::socket::{self, BindError, SocketBuffers};
use crate::tls::Tls;
use crate::verifier::Verifier;

/// What an endpoint is made of.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Who the node is.
    pub key: NodeKey,
    /// Limits and times.
    pub settings: TransportSettings,
    /// What tells the date, for certificates. The system's clock by default.
    pub time: Option<Arc<dyn TimeProvider>>,
    /// What runs tasks, timers and sockets for QUIC. tokio by default; the deadlines of this crate are tokio's in any case.
    pub runtime: Option<Arc<dyn Runtime>>,
}

impl EndpointConfig {
    /// The defaults, for the node with this key.
    pub fn new(key: NodeKey) -> Self {
        Self { key, settings: TransportSettings::default(), time: None, runtime: None }
    }
}

/// One node's end of all its connections. Clones are handles of the same endpoint.
///
/// It must be made and used inside a tokio runtime.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    common: Arc<Common>,
    key: NodeKey,
    tls: Tls,
    runtime: Arc<dyn Runtime>,
    /// What holds for dialled connections until the peer is admitted.
    transport: Arc<TransportConfig>,
    /// What holds for accepted ones; each gets a TLS configuration of its own.
    server: quinn::ServerConfig,
    sockets: Mutex<Vec<BoundSocket>>,
    buffers: Mutex<Option<SocketBuffers>>,
    dial_only: bool,
    gate: Gate,
    closing: Notify,
    /// Counts calls of accept.
    turn: AtomicUsize,
}

/// What an endpoint and its connections share. It holds no socket, so that a connection doesn't keep the endpoint's alive.
pub(crate) struct Common {
    pub(crate) settings: TransportSettings,
    /// What was said when the endpoint was closed.
    pub(crate) closed: OnceLock<(CloseCode, String)>,
    connections: AtomicU64,
}

impl Common {
    pub(crate) fn next_connection_id(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }
}

/// One UDP socket with its quinn endpoint.
#[derive(Clone)]
struct BoundSocket {
    quinn: quinn::Endpoint,
    local: SocketAddr,
}

impl Endpoint {
    /// Opens one UDP socket for each address of `listen`, to listen on and to dial from. A port of 0 becomes a free one.
    ///
    /// Without any address the endpoint only dials, from a socket that is opened when the first dial of its IP family needs it.
    ///
    /// # Errors
    /// [`BindError`]; no socket stays open then.
    pub async fn bind(config: EndpointConfig, listen: &[SocketAddr]) -> Result<Self, BindError> {
        let endpoint = Self::unbound(config, listen.is_empty())?;
        for address in listen {
            endpoint.open_socket(*address)?;
        }
        Ok(endpoint)
    }

    /// An endpoint over sockets that the caller made, such as those of a simulated network.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn over(
        config: EndpointConfig,
        sockets: Vec<Arc<dyn AsyncUdpSocket>>,
    ) -> Result<Self, BindError> {
        let endpoint = Self::unbound(config, sockets.is_empty())?;
        for socket in sockets {
            let local = socket
                .local_addr()
                .map_err(|source| BindError::Socket { address: socket::UNKNOWN, source })?;
            endpoint.add_socket(socket, local)?;
        }
        Ok(endpoint)
    }

    /// The next inbound connection that is admitted by the rules of [`crate::Admission`], before any TLS was done for it; `None` once the endpoint
    /// is closed. Others are answered here and never seen, so keep calling it. Cancel-safe.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let closing = self.inner.closing.notified();
            if self.is_closed() {
                return None;
            }
            let mut sockets = self.sockets().clone();
            if sockets.is_empty() || self.inner.dial_only {
                closing.await;
                return None;
            }
            // The first one asked wins: take turns, so that a flood on one address doesn't hide the others.
            let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed) % sockets.len();
            sockets.rotate_left(turn);
            let accepts = sockets.iter().map(|socket| Box::pin(socket.quinn.accept()));
            let (quinn, index, _) = select_all(accepts).await;
            match quinn {
                Some(quinn) => {
                    if let Some((quinn, place)) = self.inner.gate.pass(quinn, self.inner.runtime.now()) {
                        return Some(Incoming::new(quinn, self.clone(), place));
                    }
                }
                None if self.is_closed() => return None,
                None => self.lose_socket(sockets[index].local),
            }
        }
    }

    /// The addresses on which the endpoint listens, with their real ports. A wildcard stays one.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        if self.inner.dial_only {
            return Vec::new();
        }
        self.sockets().iter().map(|socket| socket.local).collect()
    }

    /// The peer ID of this node.
    pub fn peer_id(&self) -> PeerId {
        self.inner.key.peer_id()
    }

    /// What kernel buffers the sockets got; `None` while there is no socket of our own.
    pub fn socket_buffers(&self) -> Option<SocketBuffers> {
        *self.inner.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many certificates of peers were judged so far, each with the one signature of its host key.
    pub fn certificates_judged(&self) -> u64 {
        self.inner.tls.judged()
    }

    /// How inbound connections were answered so far, before TLS.
    pub fn admission_counts(&self) -> AdmissionCounts {
        self.inner.gate.counts()
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> &TransportSettings {
        &self.inner.common.settings
    }

    /// Closes all connections with this code, and takes and makes no more. The first call counts.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let _ = self.inner.common.closed.set((code, reason.to_owned()));
        for socket in self.sockets().iter() {
            socket.quinn.close(code.to_varint(), reason.as_bytes());
        }
        self.inner.closing.notify_waiters();
    }

    /// Waits until no connection is left, so that the peers have been told of a close. `false` when `deadline` passed first.
    pub async fn wait_idle(&self, deadline: Duration) -> bool {
        let sockets = self.sockets().clone();
        let idle = async {
            for socket in &sockets {
                socket.quinn.wait_idle().await;
            }
        };
        timeout(deadline, idle).await.is_ok()
    }

    /// Whether [`Endpoint::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner.common.closed.get().is_some()
    }

    /// The best socket to dial `to` from. A dial-only endpoint opens one when it has none.
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
            .filter_map(|socket| Some((socket::fitness(socket.local, to)?, socket.quinn.clone())))
            .max_by_key(|(fitness, _)| *fitness);
        if let Some((_, quinn)) = best {
            return Ok(quinn);
        }
        if !self.inner.dial_only {
            return Err(DialError::NoSocket { address: to, listening: self.local_addresses() });
        }
        self.open_socket(socket::dialling_address(to))
            .map_err(|source| DialError::Bind { address: to, source })
    }

    /// The QUIC configuration of one dial.
    pub(crate) fn dialler_config(&self, expected: Option<PeerId>) -> (quinn::ClientConfig, Arc<Verifier>) {
        let (crypto, verifier) = self.inner.tls.dialler(expected);
        let mut config = quinn::ClientConfig::new(crypto);
        config
            .transport_config(self.inner.transport.clone())
            // All peers have the same server name here: a token of one would go to another.
            .token_store(Arc::new(quinn::NoneTokenStore));
        (config, verifier)
    }

    /// The QUIC configuration of one accept.
    pub(crate) fn listener_config(&self) -> (quinn::ServerConfig, Arc<Verifier>) {
        let (crypto, verifier) = self.inner.tls.listener();
        let mut config = self.inner.server.clone();
        config.crypto = crypto;
        (config, verifier)
    }

    pub(crate) fn common(&self) -> &Arc<Common> {
        &self.inner.common
    }

    /// Translates the end of a connection that never was one.
    pub(crate) fn cause(&self, error: &quinn::ConnectionError) -> CloseCause {
        let ours = self.inner.common.closed.get();
        CloseCause::new(error, ours, self.settings().idle_timeout)
    }

    fn unbound(config: EndpointConfig, dial_only: bool) -> Result<Self, BindError> {
        let EndpointConfig { key, settings, time, runtime } = config;
        settings.validate()?;
        let time = time.unwrap_or_else(|| Arc::new(DefaultTimeProvider));
        let tls =
            Tls::new(&key, settings.certificate, time).map_err(|reason| BindError::Certificate { reason })?;
        let transport = settings.quinn();
        let (crypto, _) = tls.listener();
        let mut server = quinn::ServerConfig::with_crypto(crypto);
        server
            .transport_config(transport.clone())
            .max_incoming(settings.max_incoming)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * settings.max_incoming as u64)
            .time_source(tls.quinn_time());
        let runtime = runtime.unwrap_or_else(|| Arc::new(TokioRuntime));
        Ok(Self {
            inner: Arc::new(Inner {
                gate: Gate::new(&settings.admission, runtime.now()),
                common: Arc::new(Common {
                    settings,
                    closed: OnceLock::new(),
                    connections: AtomicU64::new(0),
                }),
                key,
                tls,
                runtime,
                transport,
                server,
                sockets: Mutex::new(Vec::new()),
                buffers: Mutex::new(None),
                dial_only,
                closing: Notify::new(),
                turn: AtomicUsize::new(0),
            }),
        })
    }

    fn open_socket(&self, address: SocketAddr) -> Result<quinn::Endpoint, BindError> {
        let (socket, buffers) = socket::bind(address, self.settings().socket_buffer_bytes)?;
        let failed = |source| BindError::Socket { address, source };
        let local = socket.local_addr().map_err(failed)?;
        let socket = self.inner.runtime.wrap_udp_socket(socket).map_err(failed)?;
        let quinn = self.add_socket(socket, local)?;
        let mut least = self.inner.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        *least = Some(least.map_or(buffers, |other| other.least(buffers)));
        Ok(quinn)
    }

    fn add_socket(
        &self,
        socket: Arc<dyn AsyncUdpSocket>,
        local: SocketAddr,
    ) -> Result<quinn::Endpoint, BindError> {
        let key = &self.inner.key;
        let generator = ConnectionIdGenerator::new(key);
        let mut config = quinn::EndpointConfig::new(reset_key(key));
        config.cid_generator(move || Box::new(generator.clone()));
        config
            .max_udp_payload_size(self.settings().max_datagram_bytes.max(ETHERNET_PAYLOAD))
            .expect("validated to be within QUIC's bounds");
        let server = (!self.inner.dial_only).then(|| self.inner.server.clone());
        let quinn =
            quinn::Endpoint::new_with_abstract_socket(config, server, socket, self.inner.runtime.clone())
                .map_err(|source| BindError::Socket { address: local, source })?;
        self.sockets().push(BoundSocket { quinn: quinn.clone(), local });
        Ok(quinn)
    }

    /// The system took a socket away, as with an interface that is gone.
    fn lose_socket(&self, local: SocketAddr) {
        tracing::error!(address = %local, "the UDP socket failed: this address is no longer listened on");
        self.sockets().retain(|socket| socket.local != local);
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<BoundSocket>> {
        self.inner.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} on {:?})", self.peer_id(), self.local_addresses())
    }
}

/// What is kept of an inbound connection while it waits for a decision, beside its first packet, in bytes: the rest of a ClientHello.
const INCOMING_BUFFER: u64 = 8 * 1024;

/// The largest UDP payload on Ethernet, in bytes: what we take, even where less is sent.
const ETHERNET_PAYLOAD: u16 = 1472;
