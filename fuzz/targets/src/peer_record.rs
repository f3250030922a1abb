//! Signed peer records (libp2p RFC 0003): whole ones, and any content under a good signature.

use peerage_identity::{Envelope, MAX_RECORD_ADDRESSES, PEER_RECORD, RecordError, SignedPeerRecord};
use peerage_wire::peer_record::PeerRecord;
use prost::Message;

use crate::text::assert_plain_error;
use crate::{owned, speaker};

/// A record that verifies does so again, speaks for its signer alone, and what it says can be signed anew to the same effect.
pub fn run(data: &[u8]) {
    judge(SignedPeerRecord::verify(&owned(data)));

    let key = speaker();
    let mut payload = owned(data);
    judge(SignedPeerRecord::verify(&Envelope::seal(&key, PEER_RECORD, &payload)));
    if let Ok(mut record) = PeerRecord::decode(&mut payload) {
        record.peer_id = key.peer_id().to_bytes().into();
        judge(SignedPeerRecord::verify(&Envelope::seal(&key, PEER_RECORD, &record.encode_to_vec())));
    }
}

fn judge(result: Result<SignedPeerRecord, RecordError>) {
    let record = match result {
        Ok(record) => record,
        Err(error) => return assert_plain_error(&error),
    };
    assert_eq!(SignedPeerRecord::verify(record.as_bytes()).as_ref(), Ok(&record));
    assert!(record.addresses().len() <= MAX_RECORD_ADDRESSES);
    assert!(record.addresses().iter().all(|address| address.peer_id() == Some(record.peer_id())));
    if record.peer_id() == speaker().peer_id() {
        match SignedPeerRecord::sign(&speaker(), record.seq(), record.addresses()) {
            Ok(again) => assert_eq!((again.seq(), again.addresses()), (record.seq(), record.addresses())),
            Err(error) => assert!(matches!(error, RecordError::TooLarge { .. }), "{error}"),
        }
    }
}
