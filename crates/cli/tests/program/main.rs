//! The program as its users have it: the binary, its output and its exit codes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod bad_input;
mod bench;
mod bounds;
mod demo;
mod dht;
mod limits;
mod node;
mod operator;
mod private;
mod send;
mod support;
