//! Who a node is and where it can be reached: node keys, peer IDs, addresses, signed envelopes, signed peer records.
//!
//! ```
//! use peerage_identity::{DialAddress, NodeKey, SignedPeerRecord};
//!
//! let key = NodeKey::generate();
//! let address: DialAddress = "/ip4/203.0.113.7/udp/4001/quic-v1".parse()?;
//! let record = SignedPeerRecord::sign(&key, 1, &[address])?;
//!
//! let read = SignedPeerRecord::verify(record.as_bytes())?;
//! assert_eq!(read.peer_id(), key.peer_id());
//! assert_eq!(read.addresses()[0].peer_id(), Some(key.peer_id()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is trusted, and why
//!
//! Everything here may come from a stranger. What has been checked has a type of its own that cannot be made otherwise: a
//! [`DialAddress`] comes from parsing, an [`Envelope`] and a [`SignedPeerRecord`] from signing or verifying.
//!
//! - No bytes and no text panic: the properties `any_…` beside each decoder.
//! - One key has one encoding and so one peer ID: `every_other_encoding_of_the_same_key_is_refused`.
//! - Ed25519 is verified strictly: `a_key_of_small_order_signs_nothing`, `a_signature_has_one_form`.
//! - A signature holds for one purpose: `a_payload_signed_for_one_purpose_does_not_pass_for_another`.
//! - A sealed payload opens for its recipient and purpose alone: `only_the_recipient_opens_it_and_only_for_its_purpose`, `points_of_small_order_are_refused_on_both_sides`.
//! - A peer speaks for itself alone: `a_record_about_another_peer_is_refused`.
//! - What is read is bounded: [`MAX_RECORD_BYTES`], [`MAX_RECORD_ADDRESSES`], [`MAX_ADDRESS_BYTES`], [`MAX_ADDRESS_TEXT`],
//!   [`MAX_PEER_ID_TEXT`], [`MAX_PUBLIC_KEY_BYTES`], [`MAX_KEY_FILE_BYTES`],
//!   [`MAX_SEALED_BYTES`]. Only [`Envelope::open`] leaves the bound to its caller, who knows the payload.
//! - A private key is in no message, no `Debug` and no file that others can read; it is wiped from memory at its end.
//!
//! Key files need a Unix file system: elsewhere nothing could be promised about who reads them.
//!
//! # Modules, in the order in which data passes through them
//!
//! | file | subject |
//! | --- | --- |
//! | `key` | [`NodeKey`]: signing, derived secrets |
//! | `pem` | the key as PKCS#8 PEM |
//! | `key_file` | the key in a file: private, atomic, never overwritten |
//! | `network_secret` | [`NetworkSecret`]: what the nodes of a private network share, and its file |
//! | `private_file` | reading files that only their owner may read |
//! | `public_key` | [`decode_public_key`], [`verify_signature`]: keys of all four types, for reading only |
//! | `peer_id` | [`parse_peer_id`] and friends: both text forms |
//! | `scope` | [`AddressScope`]: the one policy that classifies IP addresses; [`IpPrefix`]: what counts as one |
//! | `address` | [`DialAddress`]: where a peer can be dialled; [`ListenAddress`]: where we listen |
//! | `envelope` | [`Envelope`]: a signed payload of a stated kind |
//! | `peer_record` | [`SignedPeerRecord`]: where a peer says that it can be reached |
//! | `sealing` | [`seal_to`], [`open_sealed`]: payloads that one peer alone can read |
#![forbid(unsafe_code)]

mod address;
mod envelope;
mod key;
mod key_file;
mod network_secret;
mod peer_id;
mod peer_record;
mod pem;
mod private_file;
mod public_key;
mod scope;
mod sealing;

pub use address::{
    AddressError, DialAddress, DnsFamily, Host, ListenAddress, MAX_ADDRESS_BYTES, MAX_ADDRESS_TEXT,
    MAX_DNS_NAME,
};
pub use envelope::{Envelope, EnvelopeError, EnvelopeKind};
pub use key::NodeKey;
pub use key_file::{KeyFileError, MAX_KEY_FILE_BYTES};
pub use libp2p_identity::{KeyType, PeerId, PublicKey};
pub use multiaddr::Multiaddr;
pub use network_secret::{
    MAX_NETWORK_SECRETS, MAX_SECRET_FILE_BYTES, NETWORK_SECRET_BYTES, NetworkSecret, SecretError,
    SecretFileError,
};
pub use peer_id::{MAX_PEER_ID_TEXT, PeerIdError, decode_peer_id, inlined_public_key, parse_peer_id};
pub use peer_record::{
    MAX_RECORD_ADDRESSES, MAX_RECORD_BYTES, PEER_RECORD, PEER_RECORD_RFC, RecordError, SignedPeerRecord,
};
pub use pem::PemError;
pub use public_key::{
    KeyError, MAX_PUBLIC_KEY_BYTES, MAX_RSA_BITS, MIN_RSA_BITS, decode_public_key, verify_signature,
};
pub use scope::{AddressScope, IpPrefix};
pub use sealing::{MAX_SEALED_BYTES, MAX_SEALING_CONTEXT, SEALING_OVERHEAD, SealError, open_sealed, seal_to};
