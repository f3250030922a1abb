//! QUIC connections between authenticated peers, and negotiated streams on them.
//!
//! ```
//! use peerage_identity::NodeKey;
//! use peerage_transport::{CloseCode, Endpoint, EndpointConfig};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let listener = Endpoint::bind(EndpointConfig::new(NodeKey::generate()), &["127.0.0.1:0".parse()?]).await?;
//! let dialler = Endpoint::bind(EndpointConfig::new(NodeKey::generate()), &[]).await?;
//!
//! let (address, peer) = (listener.local_addresses()[0], listener.peer_id());
//! let server = tokio::spawn(async move {
//!     let connection = listener.accept().await.expect("the endpoint is open").accept().await?;
//!     let stream = connection.accept_stream().await?;
//!     let (_, mut stream) = stream.negotiate(|name| name == "/echo/1", listener.settings().negotiation_timeout).await?;
//!     let hello = stream.recv.read_chunk(100).await?.expect("the dialler said something");
//!     stream.send.write_chunk(hello).await?;
//!     stream.send.finish()?;
//!     connection.closed().await;
//!     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! });
//!
//! let connection = dialler.dial(address, Some(peer)).await?;
//! let mut stream = connection.open_lazy("/echo/1").await?;
//! stream.send.write_all(b"hello").await?;
//! assert_eq!(stream.recv.read_chunk(100).await?.as_deref(), Some(&b"hello"[..]));
//! connection.close(CloseCode::Normal, "done");
//! server.await??;
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) })?;
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! # What the transport promises
//!
//! - A [`Connection`] exists only for a peer that proved its peer ID in the TLS handshake, by the rules of the libp2p TLS specification. When an ID was expected, it is
//!   that one. TLS is 1.3, both sides show a certificate, and nothing is ever resumed, because a resumed session would prove nothing.
//! - A peer that isn't admitted yet has few streams and a small window; [`Connection::admit`] raises both.
//! - Streams that were dropped unfinished are reset: a reader never takes the part for the whole.
//! - A flood of first packets under forged addresses takes no place that an honest dialler needs: see [`Admission`].
//! - Nothing that a peer sends can panic or hang an operation of this crate, or make it hold more than the settings allow.
//!
//! # The wire
//!
//! QUIC version 1 with the ALPN `libp2p`; multistream-select 1.0 on each bidirectional stream. No unidirectional streams, no datagrams, no 0-RTT.
//!
//! # Modules, in the order in which data passes through them
//!
//! | file | subject |
//! | --- | --- |
//! | `settings` | [`TransportSettings`]: limits and times |
//! | `socket` | UDP sockets and their kernel buffers |
//! | `system_socket` | the system's sockets for QUIC: few calls for each packet |
//! | `endpoint` | [`Endpoint`]: what it consists of, from bind to close |
//! | `listening` | its sockets: they come, go and move at run time |
//! | `connection_id` | IDs and resets that survive a restart |
//! | `certificate` | the certificate that we show |
//! | `proof` | what a peer's certificate proves |
//! | `verifier` | the same, in the words of rustls, once per handshake |
//! | `tls` | TLS configurations and ciphers |
//! | `post_quantum` | the key exchange X25519MLKEM768, with the feature `post-quantum` |
//! | `dial` | [`Endpoint::dial`] |
//! | `admission` | [`Admission`]: accept, retry, refuse or ignore, as a pure policy |
//! | `gate` | the same at work: asks the policy, answers, counts |
//! | `incoming` | [`Incoming`]: the decision before the handshake |
//! | `connection` | [`Connection`] |
//! | `negotiate` | multistream-select |
//! | `stream` | [`Stream`], [`InboundStream`]: opening and accepting |
//! | `send`, `recv` | the two halves of a stream |
//! | `futures_io` | streams and halves for `futures::io` |
//! | `traffic` | bytes per protocol |
//! | `tap` | [`Tap`]: what a test sees of what an endpoint says |
//! | `window` | congestion windows: a close passes, and what is urgent waits for little |
//! | `close` | [`CloseCode`], [`StreamCode`], [`CloseCause`]: why things end |
#![forbid(unsafe_code)]

mod admission;
mod certificate;
mod close;
mod connection;
mod connection_id;
mod dial;
mod endpoint;
mod futures_io;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod incoming;
mod listening;
mod negotiate;
#[cfg(feature = "post-quantum")]
mod post_quantum;
mod proof;
mod recv;
mod send;
mod settings;
mod socket;
mod stream;
#[cfg(unix)]
mod system_socket;
mod tap;
mod tls;
mod traffic;
mod verifier;
mod window;

pub use admission::{Admission, AdmissionSettings, Arrival, Door, Rate, Verdict};
pub use close::{CloseCause, CloseCode, StreamCode, TlsAlert};
pub use connection::{Connection, ConnectionId, Direction, ExportError, PathStats};
pub use dial::DialError;
pub use endpoint::{BindSocket, Endpoint, EndpointConfig, UnixClock};
pub use gate::AdmissionCounts;
pub use incoming::{AcceptError, Incoming};
pub use negotiate::{MAX_LINE, MAX_PROPOSALS, NegotiationError};
pub use proof::{CertificateFault, MAX_PASSED_CERTIFICATES};
pub use recv::{ReadError, RecvStream};
pub use send::{SendStream, WriteError};
pub use settings::{
    CertificateKind, Congestion, MAX_DATAGRAM, MAX_STREAM_WINDOW, SettingsError, TransportSettings,
};
pub use socket::{BindError, SocketBuffers, UdpSocket};
pub use stream::{InboundStream, Negotiated, OpenError, Stream};
pub use tap::Tap;
pub use traffic::{MAX_COUNTED_PROTOCOLS, OTHER_PROTOCOLS, ProtocolTraffic, TrafficTotals};

/// The QUIC implementation, for callers who give sockets, timers or tasks of their own: its traits stand in [`EndpointConfig`] and [`UdpSocket`].
pub use quinn;
