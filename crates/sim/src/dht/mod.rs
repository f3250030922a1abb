//! The DHT at 10,000 nodes: messages and virtual time, without packets.
//!
//! Two kinds of worlds stand on one network model ([`network`]):
//!
//! - [`still`]: tables are built, then failures strike, then one lookup runs at a time ([`walk`]), as in the study's model (dht.md A.3). Peerage's lookups and the
//!   rules of four libraries ([`policy`]) answer the same queries with the same luck. [`study`] holds the libraries' rules against the study's table.
//! - [`machines`]: whole machines, which join, serve, fail and come back. Where nobody does but serve, those who ask may go by the libraries' rules too ([`others`]).
//!
//! [`scenario`] lists what can be run, [`report`] writes down what came of it beside its bar. All follows from the seed: each node and purpose draws from a stream of
//! its own ([`stream`]), events come in the order of time and scheduling ([`queue`]), and a rolling hash tells two runs apart.

pub mod attack;
pub mod figures;
pub mod lookups;
pub mod machines;
pub mod network;
pub mod others;
pub mod plot;
pub mod policy;
pub mod progress;
pub mod queue;
pub mod report;
pub mod scenario;
pub mod still;
pub mod stream;
pub mod study;
pub mod walk;
