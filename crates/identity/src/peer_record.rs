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
pub const PEER_RECORD: EnvelopeKind<'static> = EnvelopeKind {
    domain: "libp2p-peer-record",
    payload_type: &[0x03, 0x01],
};

/// The kind that the text of RFC 0003 prescribes; rust-libp2p sends it. We read it and do not write it.
pub const PEER_RECORD_RFC: EnvelopeKind<'static> = EnvelopeKind {
    domain: "libp2p-routing-state",
    payload_type: b"/libp2p/routing-state-record",
};

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
            return Err(RecordError::TooManyAddresses {
                count: addresses.len(),
            });
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
                .map(|address| AddressInfo {
                    multiaddr: address.clone().without_peer_id().to_bytes().into(),
                })
                .collect(),
        };
        let bytes = Envelope::seal(key, PEER_RECORD, &record.encode_to_vec());
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge { length: bytes.len() });
        }
        Ok(Self {
            peer_id,
            seq,
            addresses,
            ignored: 0,
            bytes,
        })
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
            bytes: bytes.clone(),
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
