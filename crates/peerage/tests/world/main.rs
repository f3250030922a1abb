//! Nodes in a world of their own: sockets in memory, machines whose addresses come and go, a clock that only moves when everyone waits.
#![allow(clippy::unwrap_used, clippy::panic)]

mod clock;
mod dht;
mod dropped;
mod environment;
mod foreign;
mod held;
mod lengths;
mod listening;
mod measured;
mod metrics;
mod moving;
mod network;
mod racing;
mod rates;
mod reach;
mod stranger;
mod times;
mod watching;
