//! Node keys as PKCS#8 PEM: not a peer's bytes, but a file that may be damaged.

use peerage_identity::NodeKey;

use crate::text::assert_plain_error;

/// A key that is read is written as a text that gives the same key. No error shows control characters.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match NodeKey::from_pem(text) {
        Ok(key) => {
            let written = key.to_pem();
            let read = NodeKey::from_pem(&written).expect("what we write is read");
            assert!(read.seed() == key.seed() && read.peer_id() == key.peer_id());
            assert_eq!(read.to_pem(), written);
        }
        Err(error) => assert_plain_error(&error),
    }
}
