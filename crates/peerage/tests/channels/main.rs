//! Channels between nodes over real QUIC on loopback, and against peers made by hand.
#![allow(clippy::unwrap_used, clippy::panic)]

mod broadcast;
mod chaos;
#[path = "../common/mod.rs"]
mod common;
mod ends;
mod forms;
mod pressure;
mod support;
mod verdicts;
