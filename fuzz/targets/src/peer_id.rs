//! Peer IDs: text in both forms, and bytes.

use peerage_identity::{decode_peer_id, inlined_public_key, parse_peer_id};

use crate::text::assert_plain_error;

/// An ID has one binary form and one text in base58; the key in it, if any, gives the same ID.
pub fn run(data: &[u8]) {
    match decode_peer_id(data) {
        Ok(id) => {
            assert_eq!(id.to_bytes(), data);
            assert_eq!(parse_peer_id(&id.to_string()), Ok(id));
            if let Some(key) = inlined_public_key(&id) {
                assert_eq!(key.to_peer_id(), id);
            }
        }
        Err(error) => assert_plain_error(&error),
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse_peer_id(text) {
        Ok(id) => {
            assert_eq!(parse_peer_id(&id.to_string()), Ok(id));
            assert_eq!(decode_peer_id(&id.to_bytes()), Ok(id));
        }
        Err(error) => assert_plain_error(&error),
    }
}
