//! Public keys of all four types, and signatures under them.

use peerage_identity::{decode_public_key, verify_signature};

use crate::text::assert_plain_error;

/// A key has one encoding. Some bytes are no signature of a key that nobody holds. The input may go on behind the key: that is the signature.
pub fn run(data: &[u8]) {
    match decode_public_key(data) {
        Ok(key) => {
            assert_eq!(key.encode_protobuf(), data);
            assert!(!verify_signature(&key, b"a message", data));
        }
        Err(error) => assert_plain_error(&error),
    }
    // `08 TYPE 12 LENGTH`, with a length of one or two bytes.
    let end = match data {
        [8, _, 18, short @ 0..=0x7f, ..] => 4 + usize::from(*short),
        [8, _, 18, low, high @ 0..=0x7f, ..] => 5 + usize::from(low & 0x7f) + (usize::from(*high) << 7),
        _ => return,
    };
    if let Some((key, signature)) = data.split_at_checked(end)
        && let Ok(key) = decode_public_key(key)
    {
        let signed = verify_signature(&key, MESSAGE, signature);
        assert!(!(signed && verify_signature(&key, b"another message", signature)), "one signature, two messages");
    }
}

/// What is signed in the seeds.
pub const MESSAGE: &[u8] = b"libp2p-tls-handshake:";
