//! A connection: one authenticated peer, many streams.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use peerage_identity::{PeerId, PublicKey, decode_public_key};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::close::{CloseCause, CloseCode};
use crate::endpoint::Common;
use crate::proof::ProvenPeer;
use crate::settings::TransportSettings;
use crate::stream::{self, InboundStream, OpenError, Stream};
use crate::traffic::{Protocol, ProtocolTraffic, Traffic};
use crate::window::{self, Marks};

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// This node.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// A connection's number, unique among all that its endpoint ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a connection has seen of its path so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// Packets sent.
    pub sent_packets: u64,
    /// Of those, packets that count as lost.
    pub lost_packets: u64,
    /// Bytes in those.
    pub lost_bytes: u64,
    /// How often the congestion window was made smaller.
    pub congestion_events: u64,
    /// How often large packets stopped getting through, and smaller ones were sent again.
    pub black_holes: u64,
    /// Bytes that may be under way at a time.
    pub congestion_window: u64,
    /// UDP datagrams sent.
    pub sent_datagrams: u64,
    /// UDP datagrams received.
    pub received_datagrams: u64,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// The largest UDP payload known to pass, in bytes.
    pub mtu: u16,
}

/// The TLS session has no such keying material to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("TLS cannot export {length} bytes (ask for at most 8160)")]
pub struct ExportError {
    /// What was asked for, in bytes.
    pub length: usize,
}

/// A connection to an authenticated peer. Clones are handles of the same connection.
///
/// When the last handle and the last stream are dropped, the connection closes with [`CloseCode::Normal`].
#[derive(Clone)]
pub struct Connection {
    link: Arc<Link>,
}

/// What a connection and its streams share.
pub(crate) struct Link {
    quinn: quinn::Connection,
    common: Arc<Common>,
    id: ConnectionId,
    direction: Direction,
    peer_id: PeerId,
    /// As it is encoded, which takes far less room than the key that is ready for use.
    public_key: Box<[u8]>,
    /// What this side said when it closed.
    closed: OnceLock<Box<(CloseCode, String)>>,
    /// The cause that was told first. quinn forgets it when the endpoint is closed later.
    ended: OnceLock<Box<CloseCause>>,
    traffic: Traffic,
    /// Streams that the admitted peer may have open at the moment; 0 before it is admitted.
    allowed_streams: AtomicU32,
    /// Halves of streams that are still held here, and those of them that are halves of the peer's streams times [`INBOUND_HALF`]: one number, which
    /// each stream changes three times.
    halves: AtomicU64,
    /// By which the congestion controller is told.
    marks: Arc<Marks>,
    /// Turns of inbound negotiations that are free.
    turns: Semaphore,
}

impl Link {
    /// A protocol, and where its bytes on this connection are counted.
    pub(crate) fn protocol(&self, name: &str) -> Arc<Protocol> {
        self.traffic.of(name, &self.common.names)
    }

    pub(crate) fn is_tapped(&self) -> bool {
        self.common.tap.is_some()
    }

    /// Bytes were written to a stream.
    pub(crate) fn tell_tap(&self, stream: u64, bytes: &[u8]) {
        if let Some(tap) = &self.common.tap {
            tap.wrote(&self.peer_id, self.id, stream, bytes);
        }
    }

    /// Both halves of a stream were made.
    pub(crate) fn opened(&self) {
        self.halves.fetch_add(2, Ordering::Relaxed);
    }

    /// The same of a stream of the peer. When half of what it may open is in use, it may open twice as many from now on.
    pub(crate) fn inbound_opened(&self) {
        let two = 2 + 2 * INBOUND_HALF;
        let halves = self.halves.fetch_add(two, Ordering::Relaxed) + two;
        let in_use = ((halves / INBOUND_HALF) as u32).div_ceil(2);
        let (allowed, most) = (self.allowed_streams.load(Ordering::Relaxed), self.settings().peer_streams);
        if allowed == 0 || allowed >= most || in_use.saturating_mul(2) < allowed {
            return;
        }
        let more = allowed.saturating_mul(2).min(most);
        let raised =
            self.allowed_streams.compare_exchange(allowed, more, Ordering::Relaxed, Ordering::Relaxed);
        if raised.is_ok() {
            self.quinn.set_max_concurrent_bi_streams(more.into());
        }
    }

    /// Something urgent is about to be sent.
    pub(crate) fn note_urgent(&self) {
        self.marks.urgent();
    }

    /// A stream's half was dropped.
    pub(crate) fn half_closed(&self, inbound: bool) {
        let one = if inbound { 1 + INBOUND_HALF } else { 1 };
        self.halves.fetch_sub(one, Ordering::Relaxed);
    }

    /// The name of no protocol.
    pub(crate) fn no_protocol(&self) -> &Arc<str> {
        &self.common.no_protocol
    }

    pub(crate) fn quinn(&self) -> &quinn::Connection {
        &self.quinn
    }

    pub(crate) fn settings(&self) -> &TransportSettings {
        &self.common.settings
    }

    /// Translates quinn's word for the connection's end.
    pub(crate) fn cause(&self, error: &quinn::ConnectionError) -> CloseCause {
        let tell = || {
            let ours = self.closed.get().map(|ours| &**ours).or_else(|| self.common.closed.get());
            Box::new(CloseCause::new(error, ours, self.common.settings.idle_timeout))
        };
        CloseCause::clone(self.ended.get_or_init(tell))
    }
}

/// What a half of a peer's stream adds to the number of halves, beside one.
const INBOUND_HALF: u64 = 1 << 32;

/// One of the inbound negotiations that a connection may have at a time.
pub(crate) struct NegotiationTurn(Arc<Link>);

impl Drop for NegotiationTurn {
    fn drop(&mut self) {
        self.0.turns.add_permits(1);
    }
}

impl fmt::Debug for NegotiationTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NegotiationTurn")
    }
}

impl Connection {
    /// A connection whose handshake is done and proved `peer`.
    pub(crate) fn new(
        quinn: quinn::Connection,
        common: Arc<Common>,
        direction: Direction,
        peer: &ProvenPeer,
    ) -> Self {
        let id = common.next_connection_id();
        let (peer_id, public_key) = (peer.peer_id, peer.public_key.encode_protobuf().into_boxed_slice());
        tracing::debug!(connection = %id, peer = %peer_id, address = %quinn.remote_address(), %direction, "connected");
        let turns = Semaphore::new(common.settings.max_inbound_negotiations);
        let marks = window::marks(&quinn).unwrap_or_default();
        Self {
            link: Arc::new(Link {
                quinn,
                common,
                id,
                direction,
                peer_id,
                public_key,
                closed: OnceLock::new(),
                ended: OnceLock::new(),
                traffic: Traffic::default(),
                allowed_streams: AtomicU32::new(0),
                halves: AtomicU64::new(0),
                marks,
                turns,
            }),
        }
    }

    /// Opens a stream for `protocol` and sends the proposal, so that the other side sees the stream at once.
    ///
    /// It doesn't wait for the peer's answer: the stream can be written to, and the first read fails with
    /// [`crate::ReadError::NotSupported`] when the answer is a no. It waits while the peer allows no further stream. Keep the reading half until the
    /// answer came, even if nothing is to be read: a foreign peer may take its loss for the end of the stream.
    ///
    /// # Errors
    /// [`OpenError::BadName`], [`OpenError::ConnectionLost`].
    pub async fn open(&self, protocol: &str) -> Result<Stream, OpenError> {
        stream::open(&self.link, protocol).await
    }

    /// As [`Connection::open`], but the proposal leaves together with the first bytes written: one packet instead of two.
    ///
    /// The other side knows nothing of the stream before that write, or [`crate::SendStream::flush`]. Where the other side speaks first, use `open`.
    ///
    /// # Errors
    /// [`OpenError::BadName`], [`OpenError::ConnectionLost`].
    pub async fn open_lazy(&self, protocol: &str) -> Result<Stream, OpenError> {
        stream::open_lazy(&self.link, protocol).await
    }

    /// Opens a stream for the first of `protocols` that the peer serves; [`Stream::protocol`] tells which. It takes a round trip for each name that is proposed,
    /// and the endpoint's `negotiation_timeout` at most.
    ///
    /// # Errors
    /// [`OpenError`]; [`crate::NegotiationError::NotSupported`] when the peer serves none of them.
    pub async fn open_any(&self, protocols: &[&str]) -> Result<(Arc<str>, Stream), OpenError> {
        let stream = stream::open_any(&self.link, protocols).await?;
        Ok((stream.protocol().clone(), stream))
    }

    /// The next stream that the peer opens. Not negotiated yet: do that in another task, so that one slow stream doesn't hold up the next. Cancel-safe.
    ///
    /// While `max_inbound_negotiations` streams are being negotiated, or lie about untouched, this waits; the peer's next streams wait in QUIC, and
    /// nothing of them is lost.
    ///
    /// # Errors
    /// The cause, once the connection is gone and no stream is left to take.
    pub async fn accept_stream(&self) -> Result<InboundStream, CloseCause> {
        let turn = match self.link.turns.try_acquire() {
            Ok(turn) => self.turn(turn),
            // Boxed: whoever waits for streams, which every connection does, seldom waits for this.
            Err(_) => Box::pin(self.wait_for_turn()).await,
        };
        match self.link.quinn.accept_bi().await {
            Ok(quinn) => Ok(InboundStream::new(quinn, &self.link, turn)),
            Err(error) => Err(self.link.cause(&error)),
        }
    }

    async fn wait_for_turn(&self) -> Option<NegotiationTurn> {
        tokio::select! {
            biased;
            Ok(turn) = self.link.turns.acquire() => self.turn(turn),
            // No further stream can come then; those that did may be taken.
            _ = self.link.quinn.closed() => None,
        }
    }

    fn turn(&self, permit: SemaphorePermit<'_>) -> Option<NegotiationTurn> {
        permit.forget();
        Some(NegotiationTurn(self.link.clone()))
    }

    /// Raises the peer's streams and window from a stranger's to an admitted peer's: `initial_peer_streams` at first, and up to `peer_streams` as
    /// [`Connection::accept_stream`] finds them in use. Doing it again changes nothing.
    pub fn admit(&self) {
        let settings = self.link.settings();
        let (allowed, first) = (&self.link.allowed_streams, settings.initial_peer_streams);
        if allowed.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        self.link.quinn.set_max_concurrent_bi_streams(first.into());
        self.link.quinn.set_receive_window(settings.peer_window_bytes.into());
    }

    /// Closes the connection at once. What was written and has not arrived is lost; `reason` is for people, at most a few hundred bytes.
    pub fn close(&self, code: CloseCode, reason: &str) {
        // The first to close says why, on either side.
        if self.close_cause().is_some() || self.link.closed.set(Box::new((code, reason.to_owned()))).is_err()
        {
            return;
        }
        if let Some(tap) = &self.link.common.tap {
            tap.closed(&self.link.peer_id, self.link.id, reason);
        }
        window::open_window(&self.link.quinn);
        self.link.quinn.close(code.to_varint(), reason.as_bytes());
    }

    /// Waits until the connection is gone, for whatever cause.
    pub async fn closed(&self) -> CloseCause {
        let error = self.link.quinn.closed().await;
        self.link.cause(&error)
    }

    /// Why the connection is gone; `None` while it lives.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.link.quinn.close_reason().map(|error| self.link.cause(&error))
    }

    /// Who the peer is, as it proved in the handshake.
    pub fn peer_id(&self) -> PeerId {
        self.link.peer_id
    }

    /// The peer's public key. It is decoded anew each time, which takes some microseconds.
    pub fn public_key(&self) -> PublicKey {
        decode_public_key(&self.link.public_key).expect("the handshake has decoded the same bytes")
    }

    /// Whether the keys were agreed on with X25519MLKEM768, so that what is recorded today stays secret from a quantum computer later. Never without the
    /// feature `post-quantum`, and with it when the peer has that group too.
    pub fn is_post_quantum(&self) -> bool {
        #[cfg(feature = "post-quantum")]
        return crate::post_quantum::protects(&self.link.quinn);
        #[cfg(not(feature = "post-quantum"))]
        return false;
    }

    /// Where the peer's packets come from. It changes when an inbound peer moves to another network.
    pub fn remote_address(&self) -> SocketAddr {
        self.link.quinn.remote_address()
    }

    /// The address of ours at which an inbound connection arrived, where the socket tells it. `None` for one that we dialled: it may leave from
    /// whichever address the machine has.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.link.quinn.local_ip().filter(|_| self.link.direction == Direction::Inbound)
    }

    /// Halves of streams, of either side, that are still held here: 0 when nothing runs on the connection.
    pub fn open_halves(&self) -> u32 {
        (self.link.halves.load(Ordering::Relaxed) % INBOUND_HALF) as u32
    }

    /// Who dialled.
    pub fn direction(&self) -> Direction {
        self.link.direction
    }

    /// The connection's number.
    pub fn id(&self) -> ConnectionId {
        self.link.id
    }

    /// The smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.link.quinn.rtt()
    }

    /// What the connection has seen of its path.
    pub fn stats(&self) -> PathStats {
        let stats = self.link.quinn.stats();
        PathStats {
            rtt: stats.path.rtt,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            lost_bytes: stats.path.lost_bytes,
            congestion_events: stats.path.congestion_events,
            black_holes: stats.path.black_holes_detected,
            congestion_window: stats.path.cwnd,
            sent_datagrams: stats.udp_tx.datagrams,
            received_datagrams: stats.udp_rx.datagrams,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            mtu: stats.path.current_mtu,
        }
    }

    /// The bytes that each protocol has moved on this connection, in the order in which their names first came up.
    pub fn traffic(&self) -> Vec<ProtocolTraffic> {
        self.link.traffic.snapshot()
    }

    /// A secret that both sides of this connection, and nobody else, can compute from the same label and context (RFC 8446 § 7.5).
    ///
    /// # Errors
    /// [`ExportError`] when more is asked for than TLS gives.
    pub fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportError> {
        let length = output.len();
        self.link.quinn.export_keying_material(output, label, context).map_err(|_| ExportError { length })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Connection({} {} {} at {})",
            self.link.id,
            self.link.direction,
            self.link.peer_id,
            self.remote_address()
        )
    }
}
