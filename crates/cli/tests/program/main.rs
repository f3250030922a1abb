//! The program as its users have it: the binary, its output and its exit codes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod bad_input;
mod bench;
mod bounds;
mod demo;
mod dht;
mod dht_words;
mod limits;
mod node;
mod operator;
mod output;
mod private;
mod send;
mod support;
