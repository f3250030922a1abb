//! The hello in a private network, which is sealed with its secret.

use peerage::fuzzing;
use prost::Message;

use crate::{owned, speaker};

/// Nobody opens what was not sealed with the secret; what somebody with the secret sealed is read within its bound, or not at all.
pub fn run(data: &[u8]) {
    let [stranger, insider] = fuzzing::sealed_hello(speaker().peer_id(), &owned(data));
    assert_eq!(stranger, None, "a proof was made without the secret");
    if let Some(inside) = insider {
        assert!(inside.encoded_len() <= data.len(), "more was read than was sealed");
    }
}
