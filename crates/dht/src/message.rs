//! What nodes ask each other and answer, before it is encoded (libp2p kad-dht specification, "RPC messages").
//!
//! The wire form is the driver's affair: it decodes into these types and so bounds what comes in, see each field.

use std::fmt;

use bytes::Bytes;
use peerage_identity::PeerId;
use sha2::{Digest as _, Sha256};

use crate::{Contact, Target};

/// The most bytes that an answer takes on the wire, framing included: some implementations read no more.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// The most contacts that are read of an answer.
pub const MAX_CLOSER: usize = 32;
/// The most providers that are read of an answer.
pub const MAX_PROVIDERS: usize = 64;
/// The most values that are read of an answer.
pub const MAX_VALUES: usize = 64;
/// The most bytes that a value takes: the largest record of ours, with its envelope.
pub const MAX_VALUE_BYTES: usize = 10 * 1024;
/// The most bytes of a page's cursor.
pub const MAX_CURSOR_BYTES: usize = 64;
/// The most peers that one [`Query::Silent`] names.
pub const MAX_SILENT: usize = 16;
/// The most bytes of a repair message.
pub const MAX_REPAIR_BYTES: usize = 12 * 1024;

/// What one node asks another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// FIND_NODE: who is closest to the target?
    FindNode {
        /// What for: its name is a peer ID, or any bytes.
        target: Target,
    },
    /// GET_VALUE: what is stored there, and who is closer?
    GetValue {
        /// The record's key.
        target: Target,
        /// Goes on where an earlier page ended; of Peerage nodes only. At most [`MAX_CURSOR_BYTES`].
        cursor: Option<Bytes>,
        /// To be answered when something else stands there; of Peerage nodes only.
        wait: Option<Wait>,
    },
    /// PUT_VALUE: store this.
    PutValue {
        /// The record's key.
        target: Target,
        /// The record: of our kinds the signed envelope, in other namespaces whatever their validator takes. At most [`MAX_VALUE_BYTES`].
        value: Bytes,
    },
    /// ADD_PROVIDER: the one who asks has it. libp2p's form has no answer; between Peerage nodes there is one, so that refusals are told.
    AddProvider {
        /// What is provided.
        target: Target,
        /// Who provides it: must be the one who asks.
        provider: Contact,
    },
    /// GET_PROVIDERS: who has it, and who is closer?
    GetProviders {
        /// What is wanted.
        target: Target,
        /// Goes on where an earlier page ended; of Peerage nodes only.
        cursor: Option<Bytes>,
    },
    /// PING: deprecated by libp2p, answered all the same. FIND_NODE is what probes use.
    Ping,
    /// Digests and records of replica sets, as `proto/dht_repair.proto` encodes them; of Peerage nodes only. At most [`MAX_REPAIR_BYTES`].
    Repair(Bytes),
    /// Peers that an earlier answer named and that don't answer, so that its giver has a look at them; of Peerage nodes only. At most [`MAX_SILENT`].
    Silent {
        /// The peers.
        peers: Vec<PeerId>,
    },
}

impl Query {
    /// What it is about; `None` where it is about no place.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::FindNode { target }
            | Self::GetValue { target, .. }
            | Self::PutValue { target, .. }
            | Self::AddProvider { target, .. }
            | Self::GetProviders { target, .. } => Some(target),
            Self::Ping | Self::Repair(_) | Self::Silent { .. } => None,
        }
    }
}

/// What a GET_VALUE waits for (AL-54).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// What the one who is asked last answered with: [`digest_of`] its values.
    pub known: [u8; 32],
    /// For how long at most, in seconds.
    pub seconds: u32,
}

/// The digest of an answer's values by which a [`Wait`] knows whether something has changed: SHA-256 of each, in their order, after its length in four bytes.
pub fn digest_of(values: &[Bytes]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(value);
    }
    hash.finalize().into()
}

/// What is answered. Which fields are filled depends on the query; all may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// How it went.
    pub status: Status,
    /// Peers closer to the target, the closest first: the answerer's own verified entries. At most [`MAX_CLOSER`].
    pub closer: Vec<Contact>,
    /// What is stored: at most one for kinds with one publisher, several for topics and mailboxes. At most [`MAX_VALUES`].
    pub values: Vec<Bytes>,
    /// Who provides it. At most [`MAX_PROVIDERS`].
    pub providers: Vec<Contact>,
    /// Where the next page begins, when there is one.
    pub cursor: Option<Bytes>,
    /// The answer to a [`Query::Repair`].
    pub repair: Option<Bytes>,
    /// Whether the answerer understands what Peerage nodes add to libp2p's messages: nobody else is sent a repair or a list of silent peers, or pinged.
    pub extended: bool,
    /// The question was kept as its [`Wait`] asked for. Without values nothing has changed meanwhile.
    pub waited: bool,
}

impl Answer {
    /// An answer that says how it went and nothing else.
    pub fn status(status: Status) -> Self {
        Self { status, ..Self::default() }
    }

    /// The bytes that it takes on the wire, at most.
    pub fn wire_bytes(&self) -> usize {
        let contacts: usize = self.closer.iter().chain(&self.providers).map(Contact::wire_bytes).sum();
        // A record repeats its key and says when it came.
        let values: usize = self.values.iter().map(|value| value.len() + crate::MAX_TARGET_BYTES + 64).sum();
        let extras = self.cursor.iter().chain(&self.repair).map(|bytes| bytes.len() + 8).sum::<usize>();
        contacts + values + extras + crate::MAX_TARGET_BYTES + 32
    }
}

/// How a query went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Status {
    /// It was answered.
    #[default]
    Ok,
    /// What was sent is stored.
    Stored,
    /// Not now: a rate or a store is at its limit. Ask others, or later.
    Busy,
    /// Not at all, and why.
    Refused(Refusal),
    /// Something newer is stored; it stands in [`Answer::values`].
    Stale,
}

/// Why a query was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The record is not valid: its signature, form, key or time.
    Invalid,
    /// No validator knows the namespace.
    UnknownNamespace,
    /// It is larger than its kind may be.
    TooLarge,
    /// The publisher, the namespace or the sender is over its quota.
    Quota,
    /// The policy of the holder or of the recipient says no.
    Policy,
    /// Others are much closer to the key: they stand in [`Answer::closer`].
    TooFar,
    /// The provider is not the one who asks.
    NotTheProvider,
    /// This node does not serve that kind of query.
    NotServed,
    /// A reason that this version does not know.
    Other,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "not valid",
            Self::UnknownNamespace => "a namespace that it doesn't know",
            Self::TooLarge => "too large",
            Self::Quota => "over a quota",
            Self::Policy => "against a policy",
            Self::TooFar => "too far",
            Self::NotTheProvider => "not by the provider itself",
            Self::NotServed => "not served",
            Self::Other => "for a reason of its own",
        })
    }
}
