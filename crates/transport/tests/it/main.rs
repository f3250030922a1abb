//! The transport over real QUIC on loopback.
// Helpers of tests are tests too, but clippy only knows functions marked so.
#![allow(clippy::unwrap_used, clippy::panic)]

mod admission;
mod closing;
mod endpoints;
mod forged;
mod handmade;
mod handshake;
mod negotiation;
mod streams;
mod support;
mod virtual_network;
mod windows;
