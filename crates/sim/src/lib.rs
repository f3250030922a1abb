//! Simulated networks on which whole Peerage nodes run: real QUIC, real TLS, real drivers, in virtual time and in one thread. Each run follows from its seed.
//!
//! ```
//! use std::time::Duration;
//! use peerage_sim::{Failed, Link, simulate};
//!
//! simulate(1, async |world| {
//!     world.default_link(Link::between_ms(5, 80).loss(0.1));
//!     let a = world.node("a", |builder| builder).await?;
//!     let seed = a.address();
//!     let b = world.node("b", move |builder| builder.seed(&seed)).await?;
//!     world.until("a and b are connected", Duration::from_secs(30), || a.is_connected_to(&b)).await?;
//!     b.node().ping(a.peer_id()).await?;
//!     assert!(world.counters().lost > 0);
//!     Ok::<_, Failed>(())
//! })?;
//! # Ok::<_, Failed>(())
//! ```
//!
//! # What follows from the seed
//!
//! Peer keys, certificates, connection IDs, tokens, boot nonces, jitter, and what the network does to each packet. TLS draws its ephemeral keys from the system even
//! so; they change no length and no time. So the same seed gives the same [`World::hash`] over what all nodes told and over every packet's time, ends, length and
//! fate, in every process on every machine. A test holds that up.
//!
//! Virtual time passes only when nothing is left to do. Three things would break that, and a scenario has to keep them out: a blocking thread, a real
//! socket, and a `select!` without `biased`. Time has a grain of one millisecond, so delays are whole milliseconds.
//!
//! # Modules
//!
//! | file | subject |
//! | --- | --- |
//! | `run` | [`simulate`]: one seed, one thread, one paused clock |
//! | `world` | [`World`], [`SimNode`]: nodes that start, crash and come back |
//! | `environment` | what a simulated machine gives its node |
//! | `heard` | [`Said`]: what nodes said, in plain text |
//! | `disk` | what a node stores, and keeps over a crash |
//! | `net` | [`SimNet`]: hosts, sockets, partitions, the way of a packet |
//! | `net/link` | [`Link`]: delay, loss, duplication, reordering, rate and queue |
//! | `net/nat` | [`Nat`]: the four kinds of boxes |
//! | `net/trace` | counters, dials, taps, the hash |
//! | `scenario` | [`SCENARIOS`]: what happens to worlds, for the tests and the soak |
//! | [`dht`] | the DHT's machines at 10,000 nodes: messages without packets |
//! | `failed` | [`Failed`]: why a scenario ended badly |
#![forbid(unsafe_code)]

pub mod dht;
mod disk;
mod environment;
mod failed;
mod heard;
mod net;
mod run;
mod scenario;
mod world;

pub use environment::{Names, Skew};
pub use failed::Failed;
pub use heard::Said;
pub use net::{
    Bandwidth, Counters, DialSeen, Fate, HostId, Latency, Link, Nat, NatId, NatKind, Packet, SimNet,
    peak_dials,
};
pub use run::{replay_command, seeds, simulate};
pub use scenario::{Outcome, Plan, Report, SCENARIOS, Scenario, scenario};
pub use world::{Description, SimNode, World, transport_settings};
