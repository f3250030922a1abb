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
        let mut kinds = accepted.iter().filter(|kind| kind.payload_type == envelope.payload_type).peekable();
        if kinds.peek().is_none() {
            let shown = envelope.payload_type.len().min(64);
            return Err(EnvelopeError::OtherKind { payload_type: envelope.payload_type[..shown].to_vec() });
        }
        let public_key = decode_public_key(&envelope.public_key)?;
        let holds = |kind: &EnvelopeKind<'_>| {
            let signed = signed_bytes(*kind, &envelope.payload);
            verify_signature(&public_key, &signed, &envelope.signature)
        };
        if !kinds.any(holds) {
            return Err(EnvelopeError::Signature { signer: public_key.to_peer_id() });
        }
        Ok(Self { public_key, payload_type: envelope.payload_type, payload: envelope.payload })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: EnvelopeKind<'static> = EnvelopeKind { domain: "test-a", payload_type: b"/a" };
    const A_ELSEWHERE: EnvelopeKind<'static> = EnvelopeKind { domain: "test-elsewhere", payload_type: b"/a" };
    const B: EnvelopeKind<'static> = EnvelopeKind { domain: "test-a", payload_type: b"/b" };

    fn key() -> NodeKey {
        NodeKey::from_seed([1; 32])
    }

    /// An envelope whose parts can be put together wrongly.
    fn forged(change: impl FnOnce(&mut wire::Envelope)) -> Bytes {
        let mut envelope = wire::Envelope::decode(Envelope::seal(&key(), A, b"payload")).unwrap();
        change(&mut envelope);
        envelope.encode_to_vec().into()
    }

    #[test]
    fn what_is_sealed_opens_with_its_signer_and_payload_without_a_copy() {
        let bytes = Envelope::seal(&key(), A, b"payload");
        let envelope = Envelope::open(&bytes, &[B, A]).unwrap();
        assert_eq!(envelope.signer(), key().peer_id());
        assert_eq!(*envelope.public_key(), key().public());
        assert_eq!(&envelope.payload_type()[..], b"/a");
        assert_eq!(&envelope.payload()[..], b"payload");
        assert!(bytes.as_ptr_range().contains(&envelope.payload().as_ptr()));
    }

    #[test]
    fn a_payload_signed_for_one_purpose_does_not_pass_for_another() {
        let bytes = Envelope::seal(&key(), A, b"payload");
        let signer = key().peer_id();
        assert_eq!(Envelope::open(&bytes, &[A_ELSEWHERE]), Err(EnvelopeError::Signature { signer }));
        assert!(matches!(Envelope::open(&bytes, &[B]), Err(EnvelopeError::OtherKind { .. })));
        assert!(Envelope::open(&bytes, &[]).is_err());
    }

    #[test]
    fn of_two_accepted_purposes_with_one_payload_type_the_signed_one_is_found() {
        for kind in [A, A_ELSEWHERE] {
            let bytes = Envelope::seal(&key(), kind, b"payload");
            assert!(Envelope::open(&bytes, &[A, A_ELSEWHERE]).is_ok());
        }
    }

    #[test]
    fn a_shifted_boundary_between_the_signed_parts_is_noticed() {
        let bytes = forged(|envelope| {
            envelope.payload_type = Bytes::from_static(b"/");
            envelope.payload = Bytes::from_static(b"apayload");
        });
        let kind = EnvelopeKind { payload_type: b"/", ..A };
        assert!(matches!(Envelope::open(&bytes, &[kind]), Err(EnvelopeError::Signature { .. })));
    }

    #[test]
    fn another_peers_key_on_a_signature_is_noticed() {
        let other = NodeKey::from_seed([2; 32]);
        let bytes = forged(|envelope| envelope.public_key = other.public().encode_protobuf().into());
        let signer = other.peer_id();
        assert_eq!(Envelope::open(&bytes, &[A]), Err(EnvelopeError::Signature { signer }));
    }

    #[test]
    fn a_key_in_another_encoding_is_refused() {
        let bytes = forged(|envelope| {
            let longer = [&envelope.public_key[..], &[0x18, 0]].concat();
            envelope.public_key = longer.into();
        });
        assert_eq!(Envelope::open(&bytes, &[A]), Err(EnvelopeError::Key(KeyError::NotDeterministic)));
    }

    #[test]
    fn a_missing_part_is_refused() {
        type Change = fn(&mut wire::Envelope);
        let changes: [Change; 4] = [
            |envelope| envelope.public_key.clear(),
            |envelope| envelope.payload_type.clear(),
            |envelope| envelope.payload.clear(),
            |envelope| envelope.signature.clear(),
        ];
        for change in changes {
            assert!(Envelope::open(&forged(change), &[A]).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = Envelope::seal(&key(), A, b"payload");
        for at in 0..good.len() * 8 {
            let mut bytes = good.to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(Envelope::open(&bytes.into(), &[A]).is_err(), "bit {at}");
        }
    }

    #[test]
    fn an_error_shows_little_of_a_strangers_bytes_and_no_control_characters() {
        let bytes = forged(|envelope| envelope.payload_type = vec![0x1b; 1000].into());
        let message = Envelope::open(&bytes, &[A]).unwrap_err().to_string();
        assert!(message.len() < 400 && message.contains(r"\x1b"), "{message}");
    }

    proptest! {
        #[test]
        fn any_payload_of_any_kind_comes_back(domain: String, payload_type: Vec<u8>, payload: Vec<u8>) {
            let kind = EnvelopeKind { domain: &domain, payload_type: &payload_type };
            let envelope = Envelope::open(&Envelope::seal(&key(), kind, &payload), &[kind]).unwrap();
            prop_assert_eq!(&envelope.payload()[..], &payload[..]);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(noise: Vec<u8>, at: prop::sample::Index, byte: u8) {
            prop_assert!(Envelope::open(&noise.clone().into(), &[A]).is_err());
            let mut bytes = Envelope::seal(&key(), A, &noise).to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Envelope::open(&bytes.clone().into(), &[A]);
            bytes.truncate(at);
            let _ = Envelope::open(&bytes.into(), &[A]);
        }
    }
}
