//! The signed record: what the publisher said, in the bytes in which it said it.

use std::ops::Deref;

use bytes::Bytes;
use peerage_identity::{Envelope, EnvelopeKind, NodeKey, PeerId, decode_public_key};
use peerage_wire::dht_record as wire;
use peerage_wire::envelope as envelope_wire;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{EntryId, Kind, Named, Network, Place, RecordFault, Version};
use crate::{MAX_VALUE_BYTES, Target};

/// The envelope in which headers are signed.
pub const RECORD: EnvelopeKind<'static> =
    EnvelopeKind { domain: "peerage-dht-record", payload_type: b"/peerage/dht-record/1" };
/// The most bytes that envelope, header and framing add to a body.
pub const MAX_OVERHEAD: usize = 420;
/// The most bytes of a mailbox token.
pub const MAX_TOKEN_BYTES: usize = 96;

/// What a publisher wants to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Where.
    pub place: Place,
    /// The sequence number: higher than in any record signed before for this place. 0 for immutable content.
    pub seq: u64,
    /// Seconds since 1970 after which nobody keeps it.
    pub not_after: u64,
    /// For how many seconds a reader may use it without asking again.
    pub ttl: u32,
    /// The content. Empty in a tombstone, which says that there is nothing any more.
    pub body: Bytes,
    /// Mailbox: the proof of work, see [`super::solve_work`].
    pub work: u64,
    /// Mailbox: the recipient's token, see [`super::MailboxToken`].
    pub token: Bytes,
}

impl Draft {
    /// A draft without what only mailboxes need.
    pub fn new(place: Place, seq: u64, not_after: u64, body: Bytes) -> Self {
        Self { place, seq, not_after, ttl: 0, body, work: 0, token: Bytes::new() }
    }
}

/// A record whose signature holds and that stands where its header says. Only signing and verifying make one. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(Claim);

/// A record that was read and not verified yet: its signature may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified(Claim);

/// What a record says, whether or not its signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    target: Target,
    place: Place,
    publisher: PeerId,
    version: Version,
    ttl: u32,
    work: u64,
    token: Bytes,
    envelope: Bytes,
    /// `None` in an extension, whose body the receiver has.
    body: Option<Bytes>,
}

impl Record {
    /// Signs a draft. The same draft gives the same bytes.
    ///
    /// # Errors
    /// [`RecordFault::NotTheOwner`] where only another peer may publish, [`RecordFault::TooLarge`] for a body that no message can carry,
    /// [`RecordFault::Key`] for a place without a valid name, [`RecordFault::OtherContent`] for immutable content of another hash.
    pub fn sign(key: &NodeKey, network: &Network, draft: Draft) -> Result<Self, RecordFault> {
        let target = draft.place.target(network).ok_or(RecordFault::Key)?;
        if draft.body.len() + MAX_OVERHEAD > MAX_VALUE_BYTES {
            return Err(RecordFault::TooLarge { bytes: draft.body.len() });
        }
        let version = Version {
            seq: draft.seq,
            not_after: draft.not_after,
            body_hash: Sha256::digest(&draft.body).into(),
        };
        let parts = Claim {
            target,
            place: draft.place,
            publisher: key.peer_id(),
            version,
            ttl: draft.ttl,
            work: draft.work,
            token: draft.token,
            envelope: Bytes::new(),
            body: Some(draft.body),
        };
        parts.check_form()?;
        Ok(parts.signed(key))
    }

    /// The same record with a later expiry, signed anew under the same sequence number. [`Claim::extension`] of it is what holders need.
    ///
    /// # Errors
    /// [`RecordFault::NotTheOwner`] when `key` is not the publisher's.
    pub fn extended(&self, key: &NodeKey, not_after: u64) -> Result<Self, RecordFault> {
        if key.peer_id() != self.0.publisher {
            return Err(RecordFault::NotTheOwner);
        }
        let mut parts = self.0.clone();
        parts.version.not_after = not_after;
        Ok(parts.signed(key))
    }

    /// Reads and verifies a record in one step: form first, signature last.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub fn open(network: &Network, value: &Bytes) -> Result<Self, RecordFault> {
        Unverified::read(network, value)?.verify()
    }

    /// The record with `body`, which its header must name; for extensions.
    pub fn with_body(mut self, body: Bytes) -> Option<Self> {
        let same = <[u8; 32]>::from(Sha256::digest(&body)) == self.0.version.body_hash;
        same.then(|| {
            self.0.body = Some(body);
            self
        })
    }
}

impl Unverified {
    /// Reads a value. What is allocated does not exceed a few times its length, which is bounded here.
    ///
    /// # Errors
    /// [`RecordFault`], of all but the signature.
    pub fn read(network: &Network, value: &Bytes) -> Result<Self, RecordFault> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(RecordFault::TooLarge { bytes: value.len() });
        }
        let outer = wire::Record::decode(value.clone()).map_err(|_| RecordFault::Malformed)?;
        let signed =
            envelope_wire::Envelope::decode(outer.envelope.clone()).map_err(|_| RecordFault::Malformed)?;
        // What is not signed has one form, so that nobody can add to a record what its publisher didn't say.
        if !is_as_written(&outer, value) || signed.encode_to_vec() != outer.envelope {
            return Err(RecordFault::Malformed);
        }
        if signed.payload_type != RECORD.payload_type {
            return Err(RecordFault::Malformed);
        }
        let header = wire::Header::decode(signed.payload.clone()).map_err(|_| RecordFault::Malformed)?;
        let Named::Ours(place) = Place::parse(network, &header.key) else { return Err(RecordFault::Key) };
        let key = decode_public_key(&signed.public_key).map_err(|_| RecordFault::Signature)?;
        if key.clone().try_into_ed25519().is_err() {
            return Err(RecordFault::Signature);
        }
        let body_hash: [u8; 32] = header.body_hash[..].try_into().map_err(|_| RecordFault::Malformed)?;
        let empty = body_hash == <[u8; 32]>::from(Sha256::digest(b""));
        let parts = Claim {
            target: Target::new(&header.key).ok_or(RecordFault::Key)?,
            place,
            publisher: key.to_peer_id(),
            version: Version { seq: header.seq, not_after: header.not_after, body_hash },
            ttl: header.ttl,
            work: header.work,
            token: header.token,
            envelope: outer.envelope,
            body: (empty || !outer.body.is_empty()).then_some(outer.body),
        };
        parts.check_form()?;
        Ok(Self(parts))
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`RecordFault::Signature`].
    pub fn verify(self) -> Result<Record, RecordFault> {
        Envelope::open(&self.0.envelope, &[RECORD]).map_err(|_| RecordFault::Signature)?;
        Ok(Record(self.0))
    }

    /// What it claims to be. Everything but the signature was checked that can be checked without knowing more.
    pub fn claim(&self) -> &Claim {
        &self.0
    }
}

impl Deref for Record {
    type Target = Claim;

    fn deref(&self) -> &Claim {
        &self.0
    }
}

impl Claim {
    /// Where it stands.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Who signed it.
    pub fn publisher(&self) -> PeerId {
        self.publisher
    }

    /// How new it is.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// For how many seconds a reader may use it without asking again; 0 when the publisher says nothing.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Its proof of work.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// The recipient's token in it; empty when it has none.
    pub fn token(&self) -> &Bytes {
        &self.token
    }

    /// The content; `None` in an extension.
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// Whether it says that there is nothing any more. Empty content under its hash is content like any other.
    pub fn is_tombstone(&self) -> bool {
        self.place.kind() != Kind::Immutable
            && self.version.body_hash == <[u8; 32]>::from(Sha256::digest(b""))
    }

    /// What stands beside other records under the same key.
    pub fn slot(&self) -> Bytes {
        let publisher = || self.publisher.to_bytes();
        match &self.place {
            Place::Topic { .. } => publisher().into(),
            // The owner's rules come first; of everybody else each message has a slot.
            Place::Mailbox { recipient, .. } if *recipient == self.publisher => publisher().into(),
            Place::Mailbox { .. } => [&publisher()[..], &self.version.seq.to_be_bytes()].concat().into(),
            Place::Endpoint { .. } | Place::Value { .. } | Place::Immutable { .. } => Bytes::new(),
        }
    }

    /// Its name among all records.
    pub fn id(&self) -> EntryId {
        EntryId::of(self.target.key(), &self.slot())
    }

    /// As a value: the envelope as it was signed, with the body if there is one.
    pub fn to_bytes(&self) -> Bytes {
        let body = self.body.clone().unwrap_or_default();
        wire::Record { envelope: self.envelope.clone(), body }.encode_to_vec().into()
    }

    /// As a value with `body`, which has the hash that the header names.
    pub(crate) fn with_body_bytes(&self, body: &Bytes) -> Bytes {
        wire::Record { envelope: self.envelope.clone(), body: body.clone() }.encode_to_vec().into()
    }

    /// As a value without its body, for whoever has that already.
    pub fn extension(&self) -> Bytes {
        wire::Record { envelope: self.envelope.clone(), body: Bytes::new() }.encode_to_vec().into()
    }

    fn signed(mut self, key: &NodeKey) -> Record {
        let header = wire::Header {
            key: Bytes::copy_from_slice(self.target.name()),
            seq: self.version.seq,
            not_after: self.version.not_after,
            ttl: self.ttl,
            body_hash: Bytes::copy_from_slice(&self.version.body_hash),
            work: self.work,
            token: self.token.clone(),
        };
        self.envelope = Envelope::seal(key, RECORD, &header.encode_to_vec());
        Record(self)
    }

    /// What must hold whoever signed it.
    fn check_form(&self) -> Result<(), RecordFault> {
        if self.place.owner().is_some_and(|owner| owner != self.publisher) {
            return Err(RecordFault::NotTheOwner);
        }
        if self.token.len() > MAX_TOKEN_BYTES
            || (self.place.kind() != Kind::Mailbox && !self.token.is_empty())
        {
            return Err(RecordFault::Malformed);
        }
        match &self.place {
            Place::Immutable { hash } if *hash != self.version.body_hash || self.version.seq != 0 => {
                return Err(RecordFault::OtherContent);
            }
            _ => {}
        }
        match &self.body {
            Some(body) if <[u8; 32]>::from(Sha256::digest(body)) != self.version.body_hash => {
                Err(RecordFault::OtherContent)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a value is what [`Claim::to_bytes`] would make of it. As long as that, it has both parts once, nothing else, and no number that is longer than it need be: what is left
/// to look at is which part comes first.
fn is_as_written(outer: &wire::Record, value: &Bytes) -> bool {
    outer.encoded_len() == value.len() && value.first() == Some(&ENVELOPE_TAG)
}

/// What an envelope begins with in a record: the number of its field, and that its length follows.
const ENVELOPE_TAG: u8 = 1 << 3 | 2;

#[cfg(test)]
mod tests;
