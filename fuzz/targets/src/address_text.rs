//! Addresses as text: on the command line, in configurations and in DNS records.

use peerage_identity::{DialAddress, ListenAddress, MAX_ADDRESS_TEXT};

use crate::text::{assert_plain, assert_plain_error};

/// What is read is written as text that means the same, and so in binary. No error shows control characters.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<DialAddress>() {
        Ok(address) => dialable(&address),
        Err(error) => assert_plain_error(&error),
    }
    match text.parse::<ListenAddress>() {
        Ok(address) => {
            assert_eq!(address.to_string().parse(), Ok(address));
            assert_eq!(ListenAddress::try_from(address.to_multiaddr()), Ok(address));
            if let Ok(dial) = address.to_dial_address() {
                assert_eq!(dial.socket_addr(), Some(address.socket_addr()));
                dialable(&dial);
            }
        }
        Err(error) => assert_plain_error(&error),
    }
}

fn dialable(address: &DialAddress) {
    let written = address.to_string();
    assert_plain(&written, MAX_ADDRESS_TEXT);
    assert_eq!(written.parse().as_ref(), Ok(address));
    assert_eq!(DialAddress::from_bytes(&address.to_bytes()).as_ref(), Ok(address));
    assert!(address.same_endpoint(&address.clone().without_peer_id()));
}
