//! Signed envelopes (libp2p RFC 0002).

use peerage_identity::{Envelope, EnvelopeKind, PEER_RECORD, PEER_RECORD_RFC};

use crate::text::assert_plain_error;
use crate::{owned, speaker};

/// An envelope that verifies does so again from its bytes, and for no other purpose. Any payload that is sealed comes back.
pub fn run(data: &[u8]) {
    let bytes = owned(data);
    match Envelope::open(&bytes, &[PEER_RECORD, PEER_RECORD_RFC]) {
        Ok(envelope) => {
            let payload_type = envelope.payload_type();
            let kinds: Vec<_> =
                [PEER_RECORD, PEER_RECORD_RFC].into_iter().filter(|k| k.payload_type == payload_type).collect();
            assert_eq!(Envelope::open(&bytes, &kinds).as_ref(), Ok(&envelope));
            assert_eq!(envelope.signer(), envelope.public_key().to_peer_id());
            let elsewhere = EnvelopeKind { domain: "elsewhere", payload_type };
            assert!(Envelope::open(&bytes, &[elsewhere]).is_err());
        }
        Err(error) => assert_plain_error(&error),
    }

    let sealed = Envelope::seal(&speaker(), PEER_RECORD, data);
    let opened = Envelope::open(&sealed, &[PEER_RECORD]);
    assert!(opened.is_ok_and(|envelope| envelope.payload() == data && envelope.signer() == speaker().peer_id()));
}
