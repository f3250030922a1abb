//! Signed envelopes (libp2p RFC 0002): a payload, what kind it is, and a signature over both.
//!
//! The signature covers the *domain*, which is not sent: a payload signed for one purpose cannot be passed off as one for another.

use bytes::{Bytes, BytesMut};
use libp2p_identity::{PeerId, PublicKey};
use peerage_wire::{envelope as wire, uvarint};
use prost::Message;

use crate::key::NodeKey;
use crate::public_key::{KeyError, decode_public_key, verify_signature};

/// What an envelope is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnvelopeKind<'a> {
    /// What the signature is for. It is signed and not sent.
    pub domain: &'a str,
    /// What the payload is. It is signed and sent.
    pub payload_type: &'a [u8],
}

/// An envelope whose signature holds. Only [`Envelope::open`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    public_key: PublicKey,
    payload_type: Bytes,
    payload: Bytes,
}

/// Why an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The bytes are not an `Envelope` message.
    #[error("a signed envelope cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// It is of a kind that is not wanted here.
    #[error("a signed envelope holds another kind of payload ({}) than is taken here", .payload_type.escape_ascii())]
    OtherKind {
        /// The kind that it says it is, at most 64 bytes of it.
        payload_type: Vec<u8>,
    },
    /// The key that is to have signed is none.
    #[error("a signed envelope has no usable key: {0}")]
    Key(#[from] KeyError),
    /// The signature is not the key's signature over this content for this purpose.
    #[error(
        "the signature of an envelope by {signer} does not hold: it was changed, or signed for another purpose"
    )]
    Signature {
        /// The peer whose key the envelope names.
        signer: PeerId,
    },
}

impl Envelope {
    /// Signs `payload` as the given kind and gives the encoded envelope. The same input gives the same bytes.
    pub fn seal(key: &NodeKey, kind: EnvelopeKind<'_>, payload: &[u8]) -> Bytes {
        let signature = key.sign(&signed_bytes(kind, payload));
        let envelope = wire::Envelope {
            public_key: key.public().encode_protobuf().into(),
            payload_type: Bytes::copy_from_slice(kind.payload_type),
            payload: Bytes::copy_from_slice(payload),
            signature: Bytes::copy_from_slice(&signature),
        };
        envelope.encode_to_vec().into()
    }

    /// Decodes an envelope of one of the `accepted` kinds and verifies its signature. The payload is a slice of `bytes`, without a copy.
    ///
    /// The caller bounds the length of `bytes`; what is allocated here does not exceed a few times that.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn open(bytes: &Bytes, accepted: &[EnvelopeKind<'_>]) -> Result<Self, EnvelopeError> {
        let envelope = wire::Envelope::decode(bytes.clone())?;
        let mut kinds = accepted
            .iter()
            .filter(|kind| kind.payload_type == envelope.payload_type)
            .peekable();
        if kinds.peek().is_none() {
            let shown = envelope.payload_type.len().min(64);
            return Err(EnvelopeError::OtherKind {
                payload_type: envelope.payload_type[..shown].to_vec(),
            });
        }
        let public_key = decode_public_key(&envelope.public_key)?;
        let holds = |kind: &EnvelopeKind<'_>| {
            let signed = signed_bytes(*kind, &envelope.payload);
            verify_signature(&public_key, &signed, &envelope.signature)
        };
        if !kinds.any(holds) {
            return Err(EnvelopeError::Signature {
                signer: public_key.to_peer_id(),
            });
        }
        Ok(Self {
            public_key,
            payload_type: envelope.payload_type,
            payload: envelope.payload,
        })
    }

    /// The key that signed.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The peer that signed.
    pub fn signer(&self) -> PeerId {
        self.public_key.to_peer_id()
    }

    /// What the payload is, one of the kinds that were accepted.
    pub fn payload_type(&self) -> &Bytes {
        &self.payload_type
    }

    /// What was signed.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }
}

/// Domain, payload type and payload, each with its length in front.
fn signed_bytes(kind: EnvelopeKind<'_>, payload: &[u8]) -> Bytes {
    let parts = [kind.domain.as_bytes(), kind.payload_type, payload];
    let length = parts.iter().map(|part| part.len() + uvarint::MAX_LEN).sum();
    let mut out = BytesMut::with_capacity(length);
    for part in parts {
        uvarint::put(part.len() as u64, &mut out);
        out.extend_from_slice(part);
    }
    out.freeze()
}
