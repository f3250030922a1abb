//! Secure application overlays: nodes with a key-derived identity that find one another, keep the connections that matter, and exchange
//! messages over one QUIC connection per pair.
//!
//! ```
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct Chat { #[prost(string, tag = "1")] text: String }
//! use peerage::{ChannelConfig, Node};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let alice = Node::builder().network("acme").listen("/ip4/127.0.0.1/udp/0/quic-v1").start().await?;
//! let bob = Node::builder().network("acme").start().await?;
//! let (hers, his) = (
//!     alice.channel::<Chat>(ChannelConfig::new("/acme/chat/1"))?,
//!     bob.channel::<Chat>(ChannelConfig::new("/acme/chat/1"))?,
//! );
//! let peer = bob.connect(&alice.listen_addresses()[0]).await?;
//! his.send(peer, &Chat { text: "hello".into() }).await?;
//! let (from, message) = hers.recv().await.ok_or("closed")?;
//! assert_eq!((from, message.text.as_str()), (bob.peer_id(), "hello"));
//! # bob.close().await;
//! # alice.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! A node has one Ed25519 key ([`NodeKey`]), from which its [`PeerId`] follows. Between two nodes there is one QUIC connection; on it
//! run [channels](Channel) (bounded queues of messages), [requests](Node::request) and [raw streams](Node::open). A peer manager decides who is
//! connected: seeds, persistent peers, limits, redials, peer exchange. Any libp2p implementation that speaks `quic-v1` can take part.
//!
//! # What holds
//!
//! - A peer ID is proved by a TLS handshake on both sides before anything else is believed; see `peerage-transport`.
//! - Messages of one channel to one peer arrive in order and at most once. A queue that is full makes its sender wait, and no one else.
//! - Every queue, table and buffer that a peer can grow has a bound.
//! - When the last [`Node`] is dropped, every task of it ends.
//!
//! # The way through the crate
//!
//! [`NodeBuilder`] makes a node: `driver` owns the peer manager (crate `peerage-peers`) and carries out its decisions; `dial` opens and
//! accepts connections; `session` runs one connection from the hello to its end; `registry` finds who serves an incoming stream; `channel`,
//! `request` and `streams` are what applications use, and [`mod@bench`] what measures them. `shift` lets those who send or wait for a message do the work
//! of a channel's tasks.

mod about;
mod bell;
pub mod bench;
mod book;
mod builder;
mod channel;
mod clock;
mod data_dir;
pub mod dht;
mod dial;
mod driver;
mod environment;
mod error;
mod faults;
#[doc(hidden)]
pub mod fuzzing;
mod hello;
mod limits;
mod listening;
mod memory;
mod metrics;
mod node;
mod orders;
mod peer;
mod peers;
mod protocols;
mod race;
mod registry;
mod request;
mod resolve;
mod secret;
mod seed_file;
mod session;
mod shared;
mod shift;
mod store;
mod streams;
mod traffic;
mod visits;
mod watch;

pub use about::About;
pub use bench::BenchLimits;
pub use book::{BookError, MAX_BOOK_BYTES};
pub use builder::NodeBuilder;
pub use channel::{
    Channel, ChannelConfig, ChannelLimits, ChannelRate, ChannelStatus, ChannelTotals, Class, Overflow,
    Payload, PeerSender, Raw, Receipt, To, Verdict,
};
pub use data_dir::{DataDirError, KEY_FILE};
pub use dht::{Dht, DhtConfig, DhtError};
pub use environment::{Environment, SystemEnvironment};
pub use error::{ConnectError, ListenError, RegisterError, SendError, StartError};
pub use limits::{Limit, LimitPlace, NodeLimits, limits};
pub use memory::MemoryLimits;
pub use metrics::{MAX_COUNTED_CHANNELS, Metric, MetricKind, OTHER_CHANNELS, Sample};
pub use node::{ListenWatch, Node, Shutdown};
pub use peer::PeerInfo;
pub use peers::{Change, PeerStats, Peers, Watch};
pub use protocols::perf::PerfTimes;
pub use request::{
    Answers, CallConfig, CallLimits, DEFAULT_DEADLINE, MAX_REQUEST_BYTES, Request, RequestError,
    RequestLimits, RequestService, ServeConfig, ServeError,
};
pub use resolve::{Resolve, SystemResolver};
pub use secret::ChangeSecretsError;
pub use seed_file::{BadLine, SeedFileError};
pub use store::{BOOK_FILE, MemoryStore, RedbStore, Row, RowChange, Store, StoreError, Stored};
pub use streams::Incoming;

pub use peerage_identity::{
    AddressError, DialAddress, KeyFileError, ListenAddress, Multiaddr, NetworkSecret, NodeKey, PeerId,
    PublicKey, SecretError, SecretFileError,
};
pub use peerage_peers::{
    AddressEntry, Ban, BanEntry, BanError, BanTarget, BanTargetError, Blame, BookChange, BookEntry, Cause,
    Direction, Entry, Fault, ForeignPolicy, PeerClass, PeerEvent, PeerState, PeersConfig, Penalty,
    RejectReason, StandingEntry, Story,
};
pub use peerage_transport::{
    AdmissionSettings, BindError, CertificateKind, CloseCode, Congestion, ConnectionId, PathStats,
    ProtocolTraffic, Rate, ReadError, RecvStream, SendStream, SettingsError, SocketBuffers, Stream,
    StreamCode, Tap, TransportSettings, UdpSocket, WriteError, quinn,
};

/// The README's code is compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
