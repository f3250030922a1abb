//! What crosses the wire: the messages generated from `proto/`, and the framing around them.
//!
//! The generated code is committed, so that no user of this crate builds a compiler for it; `tests/generated.rs` compares it with `proto/` and writes it anew.
//!
//! Every message of every protocol is *uvarint-delimited*: its length as an unsigned varint, then its bytes. [`frame`] reads
//! and writes that form without trusting the length before a bound was applied to it.
//!
//! ```
//! use peerage_wire::{frame, chat::Chat};
//!
//! let bytes = frame::encode(&Chat { id: 7, text: "hello".into(), ..Default::default() });
//! let mut decoder = frame::Decoder::new(1024);
//! decoder.push(bytes);
//! let message: Chat = decoder.next_message().unwrap().unwrap();
//! assert_eq!(message.text, "hello");
//! ```

pub mod frame;
pub mod uvarint;

macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident: $package:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
        pub mod $name {
            include!(concat!("generated/", $package, ".rs"));
        }
    )*};
}

generated! {
    /// What a measuring node asks (`proto/bench.proto`).
    bench: "peerage.bench",
    /// What a channel's receiver tells its sender (`proto/channel.proto`).
    channel: "peerage.channel",
    /// Texts and echoes of the `peerage` program (`proto/chat.proto`).
    chat: "peerage.chat",
    /// Records of the DHT (`proto/dht_record.proto`).
    dht_record: "peerage.dht_record",
    /// What holders of the same records compare (`proto/dht_repair.proto`).
    dht_repair: "peerage.dht_repair",
    /// Signed envelopes, libp2p RFC 0002 (`proto/envelope.proto`).
    envelope: "peerage.envelope",
    /// Peer exchange (`proto/exchange.proto`).
    exchange: "peerage.exchange",
    /// File transfer (`proto/file.proto`).
    file: "peerage.file",
    /// The handshake between Peerage nodes (`proto/hello.proto`).
    hello: "peerage.hello",
    /// libp2p identify (`proto/identify.proto`).
    identify: "peerage.identify",
    /// Kademlia, libp2p's kad-dht specification (`proto/kad.proto`).
    kad: "peerage.kad",
    /// Peer records, libp2p RFC 0003 (`proto/peer_record.proto`).
    peer_record: "peerage.peer_record",
    /// What a caller says about its request (`proto/request.proto`).
    request: "peerage.request",
}
