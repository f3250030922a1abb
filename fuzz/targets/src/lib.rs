//! What each fuzz target feeds to a decoder, and what must hold for any input.
//!
//! A target is a function of bytes that panics when a promise is broken. An input is exactly what the peer sends, without bytes that steer the
//! target, so that vectors and captures are inputs as they are. Where a stream may come in any pieces, [`pieces`] cuts it in several ways, the
//! same ones for the same input.
//!
//! Two runners call these functions: the fuzzers in `fuzz/fuzz_targets/`, and on stable Rust the test `tests/replay.rs`, with every file of
//! `fuzz/corpus/` and `fuzz/regressions/`.
#![forbid(unsafe_code)]

use bytes::Bytes;
use peerage_identity::NodeKey;

pub mod pieces;
pub mod text;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of its module, its binary and its folders.
    pub name: &'static str,
    /// What it runs.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*

        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name::run }),*];
    };
}

targets! {
    address_bytes,
    address_text,
    answer,
    book_import,
    certificate,
    certificate_extension,
    channel_account,
    dht_answer,
    dht_mail,
    dht_question,
    dht_record,
    dht_repair,
    dht_row,
    envelope,
    exchange,
    frames,
    hello,
    hello_answer,
    identify,
    key_file,
    multistream_dial,
    multistream_listen,
    peer_id,
    peer_record,
    public_key,
    request,
    sealed_hello,
    seed_list,
}

/// The node whose words the inputs are.
pub fn speaker() -> NodeKey {
    NodeKey::from_seed([1; 32])
}

fn owned(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data)
}
