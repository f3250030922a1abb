//! Signed peer records (libp2p RFC 0003): where a peer says that it can be reached.

use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;
use peerage_wire::peer_record as wire;
use peerage_wire::peer_record::peer_record::AddressInfo;
use prost::Message;

use crate::address::{AddressError, DialAddress};
use crate::envelope::{Envelope, EnvelopeError, EnvelopeKind};
use crate::key::NodeKey;
use crate::peer_id::decode_peer_id;

/// The most bytes that a signed record may have.
pub const MAX_RECORD_BYTES: usize = 8 * 1024;
/// The most addresses that are kept of a record, or signed in one.
pub const MAX_RECORD_ADDRESSES: usize = 32;

/// The kind of envelope in which peer records are sent by go-libp2p, js-libp2p and us.
pub const PEER_RECORD: EnvelopeKind<'static> =
    EnvelopeKind { domain: "libp2p-peer-record", payload_type: &[0x03, 0x01] };

/// The kind that the text of RFC 0003 prescribes; rust-libp2p sends it. We read it and do not write it.
pub const PEER_RECORD_RFC: EnvelopeKind<'static> =
    EnvelopeKind { domain: "libp2p-routing-state", payload_type: b"/libp2p/routing-state-record" };

/// A peer record whose signature holds, and whose signer is the peer that it is about. Only signing and verifying make one.
///
/// Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPeerRecord {
    peer_id: PeerId,
    seq: u64,
    addresses: Arc<[DialAddress]>,
    ignored: usize,
    bytes: Bytes,
}

/// Why a peer record was refused, or not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// More bytes than a record may have.
    #[error(
        "a peer record of {length} bytes is refused: at most {MAX_RECORD_BYTES} are taken (sign fewer addresses)"
    )]
    TooLarge {
        /// Its bytes.
        length: usize,
    },
    /// The envelope around it is not in order.
    #[error("a peer record is refused: {0}")]
    Envelope(#[from] EnvelopeError),
    /// The payload is not a `PeerRecord` message.
    #[error("a peer record cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// It is about another peer than the one that signed it.
    #[error("a peer record about {about} is signed by {signer}; only a peer's own word counts")]
    OtherSigner {
        /// The peer ID in the record, or what is wrong with it.
        about: String,
        /// The peer that signed.
        signer: PeerId,
    },
    /// More addresses than others would keep.
    #[error(
        "{count} addresses are too many for a peer record: at most {MAX_RECORD_ADDRESSES} are kept (choose the best)"
    )]
    TooManyAddresses {
        /// The number given.
        count: usize,
    },
    /// An address that names another peer.
    #[error("a peer record can only hold the peer's own addresses: {0}")]
    OtherPeer(#[source] AddressError),
}

impl SignedPeerRecord {
    /// Signs the statement that the key's peer can be reached at `addresses`, in their order. They are written without the peer ID, as other
    /// implementations do.
    ///
    /// `seq` must be larger than in any record that this key signed before: others keep the largest.
    ///
    /// # Errors
    /// [`RecordError::TooManyAddresses`], [`RecordError::OtherPeer`], [`RecordError::TooLarge`].
    pub fn sign(key: &NodeKey, seq: u64, addresses: &[DialAddress]) -> Result<Self, RecordError> {
        if addresses.len() > MAX_RECORD_ADDRESSES {
            return Err(RecordError::TooManyAddresses { count: addresses.len() });
        }
        let peer_id = key.peer_id();
        let addresses = addresses
            .iter()
            .map(|address| address.clone().with_peer_id(peer_id))
            .collect::<Result<Arc<[_]>, _>>()
            .map_err(RecordError::OtherPeer)?;
        let record = wire::PeerRecord {
            peer_id: peer_id.to_bytes().into(),
            seq,
            addresses: addresses
                .iter()
                .map(|address| AddressInfo { multiaddr: address.clone().without_peer_id().to_bytes().into() })
                .collect(),
        };
        let bytes = Envelope::seal(key, PEER_RECORD, &record.encode_to_vec());
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge { length: bytes.len() });
        }
        Ok(Self { peer_id, seq, addresses, ignored: 0, bytes })
    }

    /// Verifies a record of either kind, [`PEER_RECORD`] or [`PEER_RECORD_RFC`]: first the signature, then the content, then that the signer
    /// is the peer that the record is about.
    ///
    /// Addresses that cannot be dialled, or that name another peer, and those beyond [`MAX_RECORD_ADDRESSES`] are left out and counted.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify(bytes: &Bytes) -> Result<Self, RecordError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge { length: bytes.len() });
        }
        let envelope = Envelope::open(bytes, &[PEER_RECORD, PEER_RECORD_RFC])?;
        let record = wire::PeerRecord::decode(envelope.payload().clone())?;
        let peer_id = envelope.signer();
        if record.peer_id != peer_id.to_bytes() {
            let about = decode_peer_id(&record.peer_id);
            return Err(RecordError::OtherSigner {
                about: about.map_or_else(|error| error.to_string(), |id| id.to_string()),
                signer: peer_id,
            });
        }
        let addresses: Arc<[_]> = record
            .addresses
            .iter()
            .filter_map(|info| DialAddress::from_bytes(&info.multiaddr).ok())
            .filter_map(|address| address.with_peer_id(peer_id).ok())
            .take(MAX_RECORD_ADDRESSES)
            .collect();
        Ok(Self {
            peer_id,
            seq: record.seq,
            ignored: record.addresses.len() - addresses.len(),
            addresses,
            // A copy: the record is kept for long, and `bytes` may be a few hundred of a large packet's.
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// The peer that the record is about, and that signed it.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The record's sequence number. It says which record is newer and nothing else, not a time.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Where the peer can be dialled, in the peer's order. Each carries the peer's ID.
    pub fn addresses(&self) -> &[DialAddress] {
        &self.addresses
    }

    /// How many addresses of the record were left out.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// The envelope exactly as it was signed, to pass it on.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether this record replaces `other`: the same peer and a larger sequence number. An equal one never does.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.peer_id == other.peer_id && self.seq > other.seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> NodeKey {
        NodeKey::from_seed([1; 32])
    }

    fn addresses(count: usize) -> Vec<DialAddress> {
        let address = |at| format!("/ip4/192.0.2.{}/udp/{}/quic-v1", at % 250 + 1, at + 1);
        (0..count).map(|at| address(at).parse().unwrap()).collect()
    }

    /// A record that holds these texts, whatever they are, signed by `key` about `about`.
    fn raw(kind: EnvelopeKind<'_>, key: &NodeKey, about: Vec<u8>, multiaddrs: Vec<Vec<u8>>) -> Bytes {
        let record = wire::PeerRecord {
            peer_id: about.into(),
            seq: 7,
            addresses: multiaddrs
                .into_iter()
                .map(|multiaddr| AddressInfo { multiaddr: multiaddr.into() })
                .collect(),
        };
        Envelope::seal(key, kind, &record.encode_to_vec())
    }

    fn own(multiaddrs: Vec<Vec<u8>>) -> Bytes {
        raw(PEER_RECORD, &key(), key().peer_id().to_bytes(), multiaddrs)
    }

    fn multiaddr(text: &str) -> Vec<u8> {
        text.parse::<multiaddr::Multiaddr>().unwrap().to_vec()
    }

    #[test]
    fn a_signed_record_verifies_to_the_same_record() {
        let signed = SignedPeerRecord::sign(&key(), 7, &addresses(3)).unwrap();
        let read = SignedPeerRecord::verify(signed.as_bytes()).unwrap();
        assert_eq!(read, signed);
        assert_eq!((read.peer_id(), read.seq(), read.ignored()), (key().peer_id(), 7, 0));
        let named = addresses(3).into_iter().map(|a| a.with_peer_id(key().peer_id()));
        assert_eq!(read.addresses(), named.collect::<Result<Vec<_>, _>>().unwrap());
    }

    #[test]
    fn addresses_are_written_without_the_peer_id_and_read_with_and_without() {
        let with_id = addresses(1)[0].clone().with_peer_id(key().peer_id()).unwrap();
        let plain = SignedPeerRecord::sign(&key(), 7, &addresses(1)).unwrap();
        let named = SignedPeerRecord::sign(&key(), 7, std::slice::from_ref(&with_id)).unwrap();
        assert_eq!(plain.as_bytes(), named.as_bytes());
        let read = SignedPeerRecord::verify(&own(vec![with_id.to_bytes()])).unwrap();
        assert_eq!(read.addresses(), plain.addresses());
    }

    #[test]
    fn both_kinds_of_envelope_are_read_and_the_one_in_use_is_written() {
        let about = key().peer_id().to_bytes();
        for kind in [PEER_RECORD, PEER_RECORD_RFC] {
            let bytes = raw(kind, &key(), about.clone(), vec![]);
            assert_eq!(SignedPeerRecord::verify(&bytes).unwrap().seq(), 7);
        }
        let mixed = EnvelopeKind { domain: PEER_RECORD_RFC.domain, ..PEER_RECORD };
        assert!(SignedPeerRecord::verify(&raw(mixed, &key(), about, vec![])).is_err());
        let written = SignedPeerRecord::sign(&key(), 7, &[]).unwrap();
        assert!(Envelope::open(written.as_bytes(), &[PEER_RECORD]).is_ok());
    }

    #[test]
    fn addresses_that_cannot_be_dialled_are_left_out_and_counted() {
        let other = NodeKey::from_seed([2; 32]).peer_id();
        let read = SignedPeerRecord::verify(&own(vec![
            multiaddr("/ip4/192.0.2.1/tcp/4001"),
            multiaddr("/ip4/192.0.2.1/udp/4001/quic-v1"),
            multiaddr(&format!("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{other}")),
            multiaddr(&format!("/ip4/192.0.2.1/udp/1/quic-v1/p2p/{other}/p2p-circuit")),
            vec![0xff; 40],
            vec![],
        ]))
        .unwrap();
        assert_eq!((read.addresses().len(), read.ignored()), (1, 5));
    }

    #[test]
    fn more_addresses_than_the_bound_are_not_kept_and_not_signed() {
        let of = |count| addresses(count).iter().map(DialAddress::to_bytes).collect();
        let read = SignedPeerRecord::verify(&own(of(MAX_RECORD_ADDRESSES + 5))).unwrap();
        assert_eq!((read.addresses().len(), read.ignored()), (MAX_RECORD_ADDRESSES, 5));
        assert!(SignedPeerRecord::sign(&key(), 7, &addresses(MAX_RECORD_ADDRESSES)).is_ok());
        let count = MAX_RECORD_ADDRESSES + 1;
        assert_eq!(
            SignedPeerRecord::sign(&key(), 7, &addresses(count)),
            Err(RecordError::TooManyAddresses { count })
        );
    }

    #[test]
    fn more_bytes_than_the_bound_are_neither_read_nor_signed() {
        let length = MAX_RECORD_BYTES + 1;
        assert_eq!(SignedPeerRecord::verify(&vec![0; length].into()), Err(RecordError::TooLarge { length }));
        let label = "a".repeat(63);
        let long = format!("/dns/{label}.{label}.{label}.{}/udp/1/quic-v1", "a".repeat(61));
        let long = vec![long.parse().unwrap(); MAX_RECORD_ADDRESSES];
        assert!(matches!(SignedPeerRecord::sign(&key(), 7, &long), Err(RecordError::TooLarge { .. })));
    }

    #[test]
    fn a_record_about_another_peer_is_refused() {
        let other = NodeKey::from_seed([2; 32]);
        let bytes = raw(PEER_RECORD, &other, key().peer_id().to_bytes(), vec![]);
        let error = SignedPeerRecord::verify(&bytes).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, RecordError::OtherSigner { signer, .. } if signer == other.peer_id()));
        assert!(message.contains(&key().peer_id().to_string()), "{message}");
        for about in [vec![], vec![1, 2, 3]] {
            let bytes = raw(PEER_RECORD, &key(), about, vec![]);
            assert!(matches!(SignedPeerRecord::verify(&bytes), Err(RecordError::OtherSigner { .. })));
        }
    }

    #[test]
    fn the_signature_is_checked_before_the_content() {
        let bytes = Envelope::seal(&key(), PEER_RECORD, &[0xff]);
        assert!(matches!(SignedPeerRecord::verify(&bytes), Err(RecordError::Malformed(_))));
        let mut bytes = bytes.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(matches!(
            SignedPeerRecord::verify(&bytes.into()),
            Err(RecordError::Envelope(EnvelopeError::Signature { .. }))
        ));
    }

    #[test]
    fn another_peers_address_is_not_signed() {
        let other = NodeKey::from_seed([2; 32]).peer_id();
        let address = addresses(1)[0].clone().with_peer_id(other).unwrap();
        assert!(matches!(SignedPeerRecord::sign(&key(), 7, &[address]), Err(RecordError::OtherPeer(_))));
    }

    #[test]
    fn only_a_larger_sequence_number_of_the_same_peer_is_newer() {
        let record = |seed, seq| SignedPeerRecord::sign(&NodeKey::from_seed([seed; 32]), seq, &[]).unwrap();
        assert!(record(1, 2).is_newer_than(&record(1, 1)));
        assert!(record(1, u64::MAX).is_newer_than(&record(1, 0)));
        assert!(!record(1, 1).is_newer_than(&record(1, 1)));
        assert!(!record(1, 1).is_newer_than(&record(1, 2)));
        assert!(!record(1, 2).is_newer_than(&record(2, 1)));
    }

    /// unknown fields are passed over and kept.
    #[test]
    fn the_original_bytes_are_passed_on_also_with_fields_that_we_do_not_know() {
        let record =
            wire::PeerRecord { peer_id: key().peer_id().to_bytes().into(), seq: 7, addresses: vec![] };
        let payload = [&record.encode_to_vec()[..], &[0x7a, 1, 0x42]].concat();
        let bytes = Envelope::seal(&key(), PEER_RECORD, &payload);
        let bytes = Bytes::from([&bytes[..], &[0x7a, 1, 0x42]].concat());
        let read = SignedPeerRecord::verify(&bytes).unwrap();
        assert_eq!(*read.as_bytes(), bytes);
        assert!(SignedPeerRecord::verify(read.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn any_record_comes_back(seed: [u8; 32], seq: u64, count in 0..=MAX_RECORD_ADDRESSES) {
            let signed = SignedPeerRecord::sign(&NodeKey::from_seed(seed), seq, &addresses(count)).unwrap();
            prop_assert_eq!(SignedPeerRecord::verify(signed.as_bytes()), Ok(signed));
        }

        #[test]
        fn any_signed_content_is_a_record_or_an_error(payload: Vec<u8>, multiaddrs: Vec<Vec<u8>>) {
            let _ = SignedPeerRecord::verify(&Envelope::seal(&key(), PEER_RECORD, &payload));
            let count = multiaddrs.len();
            if let Ok(read) = SignedPeerRecord::verify(&own(multiaddrs)) {
                prop_assert_eq!(read.addresses().len() + read.ignored(), count);
            }
        }

        #[test]
        fn any_bytes_are_refused(noise: Vec<u8>) {
            prop_assert!(SignedPeerRecord::verify(&noise.into()).is_err());
        }
    }
}
