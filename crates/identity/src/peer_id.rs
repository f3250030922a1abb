//! Peer IDs: both text forms, and only hashes of the length that the hash gives (libp2p peer-ids specification).

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
    /// Neither base58 nor a CID in multibase, or not whole.
    #[error("`{}` is not a peer ID: {reason} (copy it again: a character may be wrong or missing)", .text.escape_debug())]
    Text {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
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
    let malformed = |reason: String| PeerIdError::Text { text: text.into(), reason };
    let multihash = if text.starts_with('1') || text.starts_with("Qm") {
        let decoded = multibase::Base::Base58Btc.decode(text);
        decoded.map_err(|_| malformed("it has characters that base58 has not".into()))?
    } else {
        let decoded = multibase::decode(text);
        let (_, cid) = decoded.map_err(|_| malformed("it is neither base58 nor multibase".into()))?;
        match cid.strip_prefix(&CID_V1_LIBP2P_KEY) {
            Some(multihash) => multihash.to_vec(),
            None => return Err(PeerIdError::OtherCid { text: text.into() }),
        }
    };
    match decode_peer_id(&multihash) {
        Err(PeerIdError::Multihash { reason }) => Err(malformed(reason)),
        decoded => decoded,
    }
}

/// Reads a peer ID from its binary form, a multihash: the identity of at most 42 bytes, or SHA-256.
///
/// # Errors
/// [`PeerIdError::Multihash`].
pub fn decode_peer_id(bytes: &[u8]) -> Result<PeerId, PeerIdError> {
    let peer_id =
        PeerId::from_bytes(bytes).map_err(|error| PeerIdError::Multihash { reason: error.to_string() })?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeKey;
    use multibase::Base;
    use proptest::prelude::*;

    fn cid(base: Base, peer_id: PeerId) -> String {
        multibase::encode(base, [&CID_V1_LIBP2P_KEY[..], &peer_id.to_bytes()].concat())
    }

    #[test]
    fn a_cid_of_something_else_is_refused() {
        let hash = NodeKey::from_seed([1; 32]).peer_id().to_bytes();
        for codec in [[0x01, 0x55], [0x00, 0x72]] {
            let text = multibase::encode(Base::Base32Lower, [&codec[..], &hash].concat());
            assert!(matches!(parse_peer_id(&text), Err(PeerIdError::OtherCid { .. })));
        }
    }

    #[test]
    fn hashes_that_no_key_has_are_refused() {
        for bytes in [&[0x12, 3, 1, 2, 3][..], &[0x13, 1, 0], &[0x12, 32], &[]] {
            assert!(matches!(decode_peer_id(bytes), Err(PeerIdError::Multihash { .. })));
        }
        let inline = [&[0, 43][..], &[1; 43]].concat();
        assert!(decode_peer_id(&inline).is_err());
    }

    #[test]
    fn a_message_names_the_text_and_escapes_it() {
        let message = parse_peer_id("12D3\u{1b}[31m").unwrap_err().to_string();
        assert!(message.contains(r"12D3\u{1b}[31m"), "{message}");
        let long = "1".repeat(MAX_PEER_ID_TEXT + 1);
        assert_eq!(parse_peer_id(&long), Err(PeerIdError::TooLong { length: 129 }));
    }

    #[test]
    fn an_id_that_is_a_hash_or_holds_garbage_gives_no_key() {
        let hash = decode_peer_id(&[&[0x12, 32][..], &[7; 32]].concat()).unwrap();
        assert_eq!(inlined_public_key(&hash), None);
        let garbage = decode_peer_id(&[0, 2, 1, 2]).unwrap();
        assert_eq!(inlined_public_key(&garbage), None);
    }

    proptest! {
        #[test]
        fn every_text_form_of_an_id_is_read(seed: [u8; 32]) {
            let id = NodeKey::from_seed(seed).peer_id();
            prop_assert_eq!(parse_peer_id(&id.to_string()), Ok(id));
            for base in [Base::Base32Lower, Base::Base36Lower, Base::Base58Btc, Base::Base16Lower, Base::Base64Url] {
                prop_assert_eq!(parse_peer_id(&cid(base, id)), Ok(id));
            }
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text: String, ascii in "(Qm|1|b|z|k|f|m)[0-9a-zA-Z]{0,130}") {
            let _ = parse_peer_id(&text);
            let _ = parse_peer_id(&ascii);
        }

        #[test]
        fn any_bytes_are_an_id_or_an_error(bytes: Vec<u8>) {
            if let Ok(id) = decode_peer_id(&bytes) {
                prop_assert_eq!(id.to_bytes(), bytes);
                let _ = inlined_public_key(&id);
            }
        }
    }
}
