//! The endpoint: one node's sockets, its certificate, and the connections that begin and end on them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use peerage_identity::{NodeKey, PeerId};
use peerage_machine::Random;
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::UnixTime;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::timeout;

use crate::admission::Door;
use crate::close::{CloseCause, CloseCode};
use crate::connection::ConnectionId;
use crate::gate::{AdmissionCounts, Gate};
use crate::listening::BoundSocket;
use crate::settings::{TransportSettings, Transports};
use crate::socket::{BindError, SocketBuffers, UdpSocket};
use crate::tap::Tap;
use crate::tls::Tls;
use crate::traffic::Names;
use crate::verifier::Verifier;

/// What an endpoint is made of.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Who the node is.
    pub key: NodeKey,
    /// Limits and times.
    pub settings: TransportSettings,
    /// What tells the date, for certificates. The system's clock by default.
    pub time: Option<UnixClock>,
    /// What runs tasks and timers for QUIC. tokio by default; the deadlines of this crate and the system's sockets are tokio's in any case.
    pub runtime: Option<Arc<dyn Runtime>>,
    /// What opens UDP sockets, those included that are opened later to dial from. The system by default, see [`UdpSocket::bind`].
    pub bind: Option<BindSocket>,
    /// From what the random choices of QUIC follow: connection IDs, the key of address tokens, packet numbers left out, an Ed25519 certificate. TLS draws its
    /// ephemeral keys, and ECDSA, from the system in any case; their values change no length and no time. By default the system's randomness.
    pub seed: Option<[u8; 32]>,
    /// What sees all that this endpoint says, before it is encrypted. Nothing by default.
    pub tap: Option<Arc<dyn Tap>>,
}

/// Tells the time since the Unix epoch.
pub type UnixClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Opens a UDP socket on an address, with kernel buffers of so many bytes where there are such.
pub type BindSocket = Arc<dyn Fn(SocketAddr, usize) -> io::Result<UdpSocket> + Send + Sync>;

impl EndpointConfig {
    /// The defaults, for the node with this key.
    pub fn new(key: NodeKey) -> Self {
        let settings = TransportSettings::default();
        Self { key, settings, time: None, runtime: None, bind: None, seed: None, tap: None }
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
    bind: BindSocket,
    /// Seeds what each socket draws.
    random: Mutex<Random>,
    /// What holds for dialled connections until the peer is admitted.
    transports: Transports,
    /// Opens the congestion windows of all connections, so that their peers hear of the end.
    all_close: Arc<AtomicBool>,
    /// What holds for accepted ones; each gets a TLS configuration of its own.
    server: quinn::ServerConfig,
    sockets: Mutex<Vec<BoundSocket>>,
    buffers: Mutex<Option<SocketBuffers>>,
    gate: Gate,
    /// Told when the sockets change or the endpoint closes.
    changed: Notify,
    turn: AtomicUsize,
}

/// What an endpoint and its connections share. It holds no socket, so that a connection doesn't keep the endpoint's alive.
pub(crate) struct Common {
    pub(crate) settings: TransportSettings,
    /// What was said when the endpoint was closed.
    pub(crate) closed: OnceLock<(CloseCode, String)>,
    connections: AtomicU64,
    /// The name that a stream has before it has one, made once.
    pub(crate) no_protocol: Arc<str>,
    /// The names of the streams' protocols.
    pub(crate) names: Names,
    pub(crate) tap: Option<Arc<dyn Tap>>,
}

impl Common {
    pub(crate) fn next_connection_id(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }
}

impl Endpoint {
    /// Opens one UDP socket for each address of `listen`, to listen on and to dial from. A port of 0 becomes a free one.
    ///
    /// Without any address the endpoint only dials, from a socket that is opened when the first dial of its IP family needs it.
    ///
    /// # Errors
    /// [`BindError`]; no socket stays open then.
    pub async fn bind(config: EndpointConfig, listen: &[SocketAddr]) -> Result<Self, BindError> {
        let endpoint = Self::unbound(config)?;
        for address in listen {
            endpoint.listen(*address)?;
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
        let endpoint = Self::unbound(config)?;
        for socket in sockets {
            endpoint.listen_over(socket)?;
        }
        Ok(endpoint)
    }

    /// The peer ID of this node.
    pub fn peer_id(&self) -> PeerId {
        self.inner.key.peer_id()
    }

    /// What kernel buffers the sockets got; `None` while there is no socket of our own.
    pub fn socket_buffers(&self) -> Option<SocketBuffers> {
        *self.inner.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many signatures of peers' host keys were checked so far: one for each certificate that holds what a signature needs.
    pub fn host_signatures_checked(&self) -> u64 {
        self.inner.tls.checked()
    }

    /// How inbound connections were answered so far, before TLS.
    pub fn admission_counts(&self) -> AdmissionCounts {
        self.inner.gate.counts()
    }

    /// Changes whom the endpoint hears at all, before TLS and beside the budgets of [`crate::AdmissionSettings`].
    pub fn set_door(&self, door: Door) {
        self.inner.gate.set_door(door);
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> &TransportSettings {
        &self.inner.common.settings
    }

    /// Closes all connections with this code, and takes and makes no more. The first call counts.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let _ = self.inner.common.closed.set((code, reason.to_owned()));
        self.inner.all_close.store(true, Ordering::Relaxed);
        for socket in self.sockets().iter() {
            socket.quinn.close(code.to_varint(), reason.as_bytes());
        }
        self.wake_accept();
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

    /// After [`Endpoint::close`]: gives the sockets up, whoever still holds a handle of the endpoint or a connection. The task and the port of each are
    /// free when its last connection has told its peer of the end; [`Endpoint::wait_idle`] does not wait for that any more.
    pub fn give_up_sockets(&self) {
        self.sockets().clear();
        self.wake_accept();
    }

    /// Whether [`Endpoint::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner.common.closed.get().is_some()
    }

    /// The QUIC configuration of one dial.
    pub(crate) fn dialler_config(
        &self,
        to: SocketAddr,
        expected: Option<PeerId>,
    ) -> (quinn::ClientConfig, Arc<Verifier>) {
        let (crypto, verifier) = self.inner.tls.dialler(expected);
        let mut config = quinn::ClientConfig::new(crypto);
        config
            .transport_config(self.inner.transports.to(to))
            // All peers have the same server name here: a token of one would go to another.
            .token_store(Arc::new(quinn::NoneTokenStore));
        (config, verifier)
    }

    /// The QUIC configuration of one accept.
    pub(crate) fn listener_config(&self, from: SocketAddr) -> (quinn::ServerConfig, Arc<Verifier>) {
        let (crypto, verifier) = self.inner.tls.listener();
        let mut config = self.inner.server.clone();
        config.crypto = crypto;
        config.transport_config(self.inner.transports.to(from));
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

    fn unbound(config: EndpointConfig) -> Result<Self, BindError> {
        let EndpointConfig { key, settings, time, runtime, bind, seed, tap } = config;
        settings.validate()?;
        let mut random = Random::from_seed(seed.map_or_else(system_seed, Ok)?);
        let time: Arc<dyn TimeProvider> = match time {
            Some(clock) => Arc::new(Clock(clock)),
            None => Arc::new(DefaultTimeProvider),
        };
        let tls = Tls::new(&key, settings.certificate, time, &mut random)
            .map_err(|reason| BindError::Certificate { reason })?;
        let all_close = Arc::default();
        let transports = settings.quinn(&all_close);
        let (crypto, _) = tls.listener();
        let mut server = quinn::ServerConfig::new(crypto, Arc::new(token_key(&mut random)));
        server
            .transport_config(transports.elsewhere.clone())
            .max_incoming(settings.max_incoming)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * settings.max_incoming as u64)
            .time_source(tls.quinn_time());
        let runtime = runtime.unwrap_or_else(|| Arc::new(TokioRuntime));
        let bind = bind.unwrap_or_else(|| Arc::new(UdpSocket::bind));
        Ok(Self {
            inner: Arc::new(Inner {
                gate: Gate::new(&settings.admission, runtime.now()),
                common: Arc::new(Common {
                    settings,
                    closed: OnceLock::new(),
                    connections: AtomicU64::new(0),
                    no_protocol: Arc::from(""),
                    names: Names::default(),
                    tap,
                }),
                key,
                tls,
                runtime,
                bind,
                random: Mutex::new(random),
                transports,
                all_close,
                server,
                sockets: Mutex::new(Vec::new()),
                buffers: Mutex::new(None),
                changed: Notify::new(),
                turn: AtomicUsize::new(0),
            }),
        })
    }

    pub(crate) fn sockets(&self) -> MutexGuard<'_, Vec<BoundSocket>> {
        self.inner.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the sockets change, or the endpoint closes, after this call.
    pub(crate) fn socket_change(&self) -> Notified<'_> {
        self.inner.changed.notified()
    }

    pub(crate) fn wake_accept(&self) {
        self.inner.changed.notify_waiters();
    }

    /// Counts calls of accept.
    pub(crate) fn next_turn(&self) -> usize {
        self.inner.turn.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    pub(crate) fn key(&self) -> &NodeKey {
        &self.inner.key
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.inner.runtime
    }

    /// Opens a socket by the caller's means or the system's.
    pub(crate) fn open(&self, address: SocketAddr) -> Result<UdpSocket, BindError> {
        let opened = (self.inner.bind)(address, self.settings().socket_buffer_bytes);
        opened.map_err(|source| BindError::from_io(address, source))
    }

    /// Randomness for one socket.
    pub(crate) fn fork_random(&self) -> Random {
        self.inner.random.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }

    pub(crate) fn server_config(&self) -> &quinn::ServerConfig {
        &self.inner.server
    }

    pub(crate) fn buffers(&self) -> &Mutex<Option<SocketBuffers>> {
        &self.inner.buffers
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} on {:?})", self.peer_id(), self.local_addresses())
    }
}

/// The caller's clock, for rustls.
struct Clock(UnixClock);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch((self.0)()))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

fn system_seed() -> Result<[u8; 32], BindError> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| BindError::Entropy)?;
    Ok(seed)
}

/// The key under which QUIC seals the tokens that prove addresses (RFC 9000 § 8.1).
fn token_key(random: &mut Random) -> hkdf::Prk {
    let mut secret = [0; 64];
    random.fill(&mut secret);
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret)
}

/// What is kept of an inbound connection while it waits for a decision, beside its first packet, in bytes: the rest of a ClientHello.
const INCOMING_BUFFER: u64 = 8 * 1024;
