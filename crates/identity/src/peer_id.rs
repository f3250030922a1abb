//! Peer IDs: both text forms, and only those IDs that some key can prove (libp2p peer-ids specification).

use libp2p_identity::{PeerId, PublicKey};
use multiaddr::multihash::Multihash;

use crate::public_key::decode_public_key;

/// The most characters that are read as a peer ID. Base58 takes at most 60, a CID in base 16 less than 100.
pub const MAX_PEER_ID_TEXT: usize = 128;

/// Why a text or bytes are not a peer ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// Longer than any peer ID.
    #[error("a peer ID has at most {MAX_PEER_ID_TEXT} characters, this has {length}")]
    TooLong {
        /// Characters given.
        length: usize,
    },
    /// Neither base58 nor a CID in multibase.
    #[error("the peer ID `{}` is not valid {form} (copy it again: a character may be missing)", .text.escape_debug())]
    Text {
        /// The text.
        text: String,
        /// What its first characters say that it should be.
        form: &'static str,
    },
    /// A CID of something else than a key.
    #[error("`{}` is a CID, but not one of a peer (codec libp2p-key, version 1)", .text.escape_debug())]
    OtherCid {
        /// The text.
        text: String,
    },
    /// Not a multihash, or one that no key has.
    #[error("these bytes are not a peer ID: {reason}")]
    Multihash {
        /// What is wrong with them.
        reason: String,
    },
}

/// Reads a peer ID from text: base58 (`12D3KooW…`, `16Uiu2HA…`, `Qm…`) or a CID in any multibase (`bafz…`, `k51…`).
///
/// # Errors
/// [`PeerIdError`].
pub fn parse_peer_id(text: &str) -> Result<PeerId, PeerIdError> {
    if text.len() > MAX_PEER_ID_TEXT {
        return Err(PeerIdError::TooLong { length: text.len() });
    }
    let is_base58 = text.starts_with('1') || text.starts_with("Qm");
    let bad_text = |form| PeerIdError::Text {
        text: text.into(),
        form,
    };
    if is_base58 {
        let bytes = multibase::Base::Base58Btc
            .decode(text)
            .map_err(|_| bad_text("base58"))?;
        return decode_peer_id(&bytes);
    }
    let (_, cid) = multibase::decode(text).map_err(|_| bad_text("multibase (nor base58)"))?;
    match cid.strip_prefix(&CID_V1_LIBP2P_KEY) {
        Some(multihash) => decode_peer_id(multihash),
        None => Err(PeerIdError::OtherCid { text: text.into() }),
    }
}

/// Reads a peer ID from its binary form, a multihash: the identity of at most 42 bytes, or SHA-256.
///
/// # Errors
/// [`PeerIdError::Multihash`].
pub fn decode_peer_id(bytes: &[u8]) -> Result<PeerId, PeerIdError> {
    let peer_id = PeerId::from_bytes(bytes).map_err(|error| PeerIdError::Multihash {
        reason: error.to_string(),
    })?;
    check_peer_id(peer_id)
}

/// The public key that an ID holds when the key is short enough (Ed25519, secp256k1); `None` when the ID is a hash of the key.
pub fn inlined_public_key(peer_id: &PeerId) -> Option<PublicKey> {
    let multihash: &Multihash<64> = peer_id.as_ref();
    if multihash.code() != IDENTITY {
        return None;
    }
    decode_public_key(multihash.digest()).ok()
}

/// Refuses hashes of a length that SHA-256 does not give: the type takes them, no key can ever prove them.
pub(crate) fn check_peer_id(peer_id: PeerId) -> Result<PeerId, PeerIdError> {
    let multihash: &Multihash<64> = peer_id.as_ref();
    if multihash.code() == IDENTITY || multihash.size() == 32 {
        Ok(peer_id)
    } else {
        Err(PeerIdError::Multihash {
            reason: format!("a SHA-256 hash has 32 bytes, not {}", multihash.size()),
        })
    }
}

const IDENTITY: u64 = 0;
/// Version 1, codec libp2p-key.
const CID_V1_LIBP2P_KEY: [u8; 2] = [0x01, 0x72];
