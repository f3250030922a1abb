//! The numbers that shape an endpoint, with their defaults and bounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::admission::AdmissionSettings;
use crate::window::Windows;

/// Limits and times of an endpoint. The defaults suit the Internet; [`TransportSettings::validate`] says what is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSettings {
    /// How long a dial may take, from the first packet to the end of the TLS handshake.
    pub dial_timeout: Duration,
    /// How long an inbound handshake may take.
    pub handshake_timeout: Duration,
    /// After how much silence a connection counts as lost. The smaller of both sides' holds.
    pub idle_timeout: Duration,
    /// How often a quiet connection is kept alive. Must be less than the idle timeout, and the peer's may be shorter than ours.
    pub keep_alive: Duration,
    /// How long a peer may take to answer a proposed protocol name, or to propose one.
    pub negotiation_timeout: Duration,
    /// Streams of one connection whose protocol names are being agreed on; more wait unaccepted.
    pub max_inbound_negotiations: usize,
    /// Who may begin a handshake, and how many at a time.
    pub admission: AdmissionSettings,
    /// Inbound connections whose first packet came and that were neither accepted nor turned away; the packets of more are ignored.
    pub max_incoming: usize,
    /// Streams that a peer may have open at a time before [`crate::Connection::admit`]. quinn allocates for each.
    pub stranger_streams: u32,
    /// Bytes that may lie unread on a connection before [`crate::Connection::admit`].
    pub stranger_window_bytes: u32,
    /// Streams that an admitted peer may have open at first. quinn allocates for each, on every connection. Whenever half are in use, the peer
    /// gets twice as many, up to `peer_streams`.
    pub initial_peer_streams: u32,
    /// Streams that an admitted peer may have open at a time at most.
    pub peer_streams: u32,
    /// Bytes that may lie unread on the connection of an admitted peer.
    pub peer_window_bytes: u32,
    /// Bytes that may lie unread on one stream, at most [`MAX_STREAM_WINDOW`]. It can't be changed during a connection.
    pub stream_window_bytes: u32,
    /// Bytes that were written on a connection and not yet acknowledged; writers wait beyond it.
    pub send_window_bytes: u64,
    /// Bytes that are on the way at a time over loopback while a stream with a priority above 0 is in use, whatever congestion control
    /// allows. Such a path has no length to fill: more would only lie in the receiver's socket, where the urgent stream cannot overtake it.
    pub urgent_window_bytes: u64,
    /// Kernel buffer of each UDP socket and direction, in bytes. The kernel may give less: see [`crate::Endpoint::socket_buffers`].
    pub socket_buffer_bytes: usize,
    /// The largest UDP payload that path MTU discovery tries, in bytes, at most [`MAX_DATAGRAM`]: loopback and large Ethernet frames carry it, and
    /// what a path does not carry is found out by probes that cost no data. 1452 is what an ordinary Ethernet carries.
    pub max_datagram_bytes: u16,
    /// How fast is sent on a path, and what is taken for a full one.
    pub congestion: Congestion,
    /// The key type of the certificate that is made for the endpoint.
    pub certificate: CertificateKind,
}

/// Congestion control: what decides how much is on the way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Congestion {
    /// CUBIC (RFC 9438): slows down on loss, and comes back quickly on long and fast paths.
    #[default]
    Cubic,
    /// NewReno (RFC 9002 § 7): slows down on loss, and comes back by one packet each round trip.
    NewReno,
    /// BBR, an early version: goes by measured rate and delay. It keeps queues short, bears random loss, and may push others aside.
    Bbr,
}

/// The key type of the endpoint's certificate, which is unrelated to the node key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CertificateKind {
    /// ECDSA on P-256: what every libp2p implementation takes.
    #[default]
    P256,
    /// Ed25519: cheaper to verify, not understood by every implementation.
    Ed25519,
}

impl Congestion {
    fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::NewReno => Arc::new(NewRenoConfig::default()),
            Self::Bbr => Arc::new(BbrConfig::default()),
        }
    }
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(4),
            negotiation_timeout: Duration::from_secs(5),
            max_inbound_negotiations: 32,
            admission: AdmissionSettings::default(),
            max_incoming: 1024,
            stranger_streams: 4,
            stranger_window_bytes: 128 * 1024,
            initial_peer_streams: 8,
            peer_streams: 256,
            peer_window_bytes: 8 * 1024 * 1024,
            stream_window_bytes: 2 * 1024 * 1024,
            send_window_bytes: 8 * 1024 * 1024,
            urgent_window_bytes: 128 * 1024,
            socket_buffer_bytes: 4 * 1024 * 1024,
            max_datagram_bytes: MAX_DATAGRAM,
            congestion: Congestion::Cubic,
            certificate: CertificateKind::P256,
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the transport setting {name} is {value}: {rule}")]
pub struct SettingsError {
    /// The field of [`TransportSettings`].
    pub name: &'static str,
    /// What it was set to.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl TransportSettings {
    /// Sets the idle timeout, and the keep-alive to a third of it, at most to what it is by default.
    pub fn set_idle_timeout(&mut self, timeout: Duration) {
        self.idle_timeout = timeout;
        self.keep_alive = (timeout / 3).min(Self::default().keep_alive);
    }

    /// Checks each field and the relations between them.
    ///
    /// # Errors
    /// [`SettingsError`] for the first field that cannot be used.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let timeouts = [
            ("dial_timeout", self.dial_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("negotiation_timeout", self.negotiation_timeout),
            ("idle_timeout", self.idle_timeout),
            ("keep_alive", self.keep_alive),
        ];
        for (name, value) in timeouts {
            let usable = (Duration::from_millis(1)..=LONGEST_TIMEOUT).contains(&value);
            check(usable, name, value, "give 1 ms to 1 h")?;
        }
        check(
            self.keep_alive < self.idle_timeout,
            "keep_alive",
            self.keep_alive,
            "must be less than idle_timeout",
        )?;
        self.admission.validate()?;
        for (name, value) in
            [("max_incoming", self.max_incoming), ("max_inbound_negotiations", self.max_inbound_negotiations)]
        {
            check((1..=65_536).contains(&value), name, value, "give 1 to 65536")?;
        }
        self.validate_windows()?;
        check(
            (1200..=MAX_DATAGRAM).contains(&self.max_datagram_bytes),
            "max_datagram_bytes",
            self.max_datagram_bytes,
            "give 1200 to 6500",
        )
    }

    fn validate_windows(&self) -> Result<(), SettingsError> {
        let streams = [
            ("stranger_streams", self.stranger_streams),
            ("initial_peer_streams", self.initial_peer_streams),
            ("peer_streams", self.peer_streams),
        ];
        for (name, value) in streams {
            check((1..=4096).contains(&value), name, value, "give 1 to 4096")?;
        }
        check(
            self.stranger_streams <= self.initial_peer_streams,
            "stranger_streams",
            self.stranger_streams,
            "must not exceed initial_peer_streams",
        )?;
        check(
            self.initial_peer_streams <= self.peer_streams,
            "initial_peer_streams",
            self.initial_peer_streams,
            "must not exceed peer_streams",
        )?;
        check(
            (MIN_WINDOW..=MAX_STREAM_WINDOW).contains(&self.stream_window_bytes),
            "stream_window_bytes",
            self.stream_window_bytes,
            "give 4096 to 2500000: with larger windows a burst of losses kills the connection",
        )?;
        for (name, value) in [
            ("stranger_window_bytes", self.stranger_window_bytes),
            ("peer_window_bytes", self.peer_window_bytes),
        ] {
            check(value >= MIN_WINDOW, name, value, "give at least 4096")?;
        }
        check(
            self.stranger_window_bytes <= self.peer_window_bytes,
            "stranger_window_bytes",
            self.stranger_window_bytes,
            "must not exceed peer_window_bytes",
        )?;
        check(
            self.send_window_bytes >= u64::from(MIN_WINDOW),
            "send_window_bytes",
            self.send_window_bytes,
            "give at least 4096",
        )?;
        check(
            self.urgent_window_bytes >= MIN_URGENT_WINDOW,
            "urgent_window_bytes",
            self.urgent_window_bytes,
            "give at least 65536",
        )?;
        check(
            self.socket_buffer_bytes <= i32::MAX as usize,
            "socket_buffer_bytes",
            self.socket_buffer_bytes,
            "give at most 2147483647",
        )
    }

    /// quinn's form, as it holds for strangers. The settings must have been validated. `all_close` becomes true right before all connections are closed.
    pub(crate) fn quinn(&self, all_close: &Arc<AtomicBool>) -> Transports {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.max_datagram_bytes);
        let elsewhere = Arc::new(self.transport(INITIAL_DATAGRAM, mtu.clone(), u64::MAX, all_close));
        // What a foreign peer takes is known after the probes were planned: they begin at what each takes.
        let first = LOOPBACK_DATAGRAM.min(self.max_datagram_bytes);
        // A step no smaller than half of the range makes the largest the first that is tried.
        mtu.minimum_change((self.max_datagram_bytes - first) / 2 + 1);
        let beside_urgent = self.urgent_window_bytes;
        Transports { loopback: Arc::new(self.transport(first, mtu, beside_urgent, all_close)), elsewhere }
    }

    fn transport(
        &self,
        first: u16,
        mtu: MtuDiscoveryConfig,
        beside_urgent: u64,
        all_close: &Arc<AtomicBool>,
    ) -> TransportConfig {
        let controllers = Windows::new(self.congestion.factory(), beside_urgent, all_close.clone());
        let idle = IdleTimeout::try_from(self.idle_timeout).expect("validated to be at most an hour");
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(self.stranger_streams.into())
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(self.stream_window_bytes.into())
            .receive_window(self.stranger_window_bytes.into())
            .send_window(self.send_window_bytes)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            .initial_mtu(first)
            .mtu_discovery_config(Some(mtu))
            .congestion_controller_factory(controllers)
            .allow_spin(false);
        config
    }
}

/// quinn's configuration, by the kind of path.
#[derive(Debug, Clone)]
pub(crate) struct Transports {
    /// Loopback carries the largest datagram, so that one is tried first: one probe instead of eight, and no buffer that grew in steps and kept twice what
    /// it needs.
    loopback: Arc<TransportConfig>,
    /// Datagrams are tried by halves of what is left.
    pub(crate) elsewhere: Arc<TransportConfig>,
}

impl Transports {
    /// What suits the path to this address.
    pub(crate) fn to(&self, address: SocketAddr) -> Arc<TransportConfig> {
        if address.ip().to_canonical().is_loopback() { self.loopback.clone() } else { self.elsewhere.clone() }
    }
}

/// The largest window of a stream, in bytes. Beyond about 3 MB one burst of losses leaves more gaps than quinn takes, and it closes the connection.
pub const MAX_STREAM_WINDOW: u32 = 2_500_000;

/// The largest UDP payload, in bytes: ten of them, which is quinn's batch, must fit the 64 KiB that the kernel takes at once.
pub const MAX_DATAGRAM: u16 = 6500;

/// The UDP payload that is sent before anything is known of the path, in bytes: what every path carries (RFC 9000 § 14).
const INITIAL_DATAGRAM: u16 = 1200;

/// The same over loopback, which carries far more: what an implementation that knows Ethernet alone takes.
const LOOPBACK_DATAGRAM: u16 = 1452;

pub(crate) fn check(
    usable: bool,
    name: &'static str,
    value: impl std::fmt::Debug,
    rule: &'static str,
) -> Result<(), SettingsError> {
    if usable { Ok(()) } else { Err(SettingsError { name, value: format!("{value:?}"), rule }) }
}

const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
const MIN_WINDOW: u32 = 4096;
/// Ten of the largest datagrams, which is quinn's batch.
const MIN_URGENT_WINDOW: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Rate;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(TransportSettings::default().validate(), Ok(()));
    }

    #[test]
    fn a_setting_out_of_bounds_is_named() {
        type Change = fn(&mut TransportSettings);
        let cases: &[(&str, Change)] = &[
            ("dial_timeout", |s| s.dial_timeout = Duration::ZERO),
            ("idle_timeout", |s| s.idle_timeout = Duration::MAX),
            ("keep_alive", |s| s.keep_alive = s.idle_timeout),
            ("admission.max_validated_handshakes", |s| s.admission.max_validated_handshakes = 0),
            ("admission.per_address", |s| s.admission.per_address = Rate::new(1, 0)),
            ("admission.max_tracked", |s| s.admission.max_tracked = 0),
            ("max_incoming", |s| s.max_incoming = 0),
            ("max_inbound_negotiations", |s| s.max_inbound_negotiations = 0),
            ("stranger_streams", |s| s.stranger_streams = s.initial_peer_streams + 1),
            ("initial_peer_streams", |s| s.initial_peer_streams = s.peer_streams + 1),
            ("peer_streams", |s| s.peer_streams = 0),
            ("stream_window_bytes", |s| s.stream_window_bytes = 2_500_001),
            ("stranger_window_bytes", |s| {
                s.stranger_window_bytes = s.peer_window_bytes + 1;
            }),
            ("send_window_bytes", |s| s.send_window_bytes = 0),
            ("urgent_window_bytes", |s| s.urgent_window_bytes = 65_535),
            ("socket_buffer_bytes", |s| s.socket_buffer_bytes = usize::MAX),
            ("max_datagram_bytes", |s| s.max_datagram_bytes = 9000),
        ];
        for (name, change) in cases {
            let mut settings = TransportSettings::default();
            change(&mut settings);
            let error = settings.validate().unwrap_err();
            assert_eq!(error.name, *name, "{error}");
        }
    }
}
