//! Addresses in binary: in peer records, hellos and identify messages.

use peerage_identity::{DialAddress, MAX_ADDRESS_BYTES};

use crate::text::assert_plain_error;

/// What is read has one form, in which it is read again; that form is never too long to be sent.
pub fn run(data: &[u8]) {
    match DialAddress::from_bytes(data) {
        Ok(address) => {
            let bytes = address.to_bytes();
            assert!(data.len() <= MAX_ADDRESS_BYTES && bytes.len() <= MAX_ADDRESS_BYTES);
            assert_eq!(DialAddress::from_bytes(&bytes).as_ref(), Ok(&address));
            assert_eq!(address.to_string().parse().as_ref(), Ok(&address));
            assert_ne!(address.port(), Some(0));
        }
        Err(error) => assert_plain_error(&error),
    }
}
