//! What is wrong with a record.

use crate::{Invalid, Refusal};

/// Why a record is not signed, not taken, or not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// The bytes are no record.
    #[error("the value is no signed record")]
    Malformed,
    /// The key that it names is no place of this network.
    #[error("the record's key is no place of this network")]
    Key,
    /// It stands under another key than the one that was signed.
    #[error("the record was signed for another key than the one it stands under")]
    OtherKey,
    /// It is larger than its kind may be.
    #[error("a record of {bytes} bytes is larger than its kind may be")]
    TooLarge {
        /// The bytes: of the body, or of all of it.
        bytes: usize,
    },
    /// The signature does not hold, or is no Ed25519 one.
    #[error("the record's signature does not hold")]
    Signature,
    /// Only another peer may publish there.
    #[error("only the peer that the key names may publish there")]
    NotTheOwner,
    /// The body is not the one that was signed, or not the content of which the key is the hash.
    #[error("the record's content is not what its hash says")]
    OtherContent,
    /// It has no body where one is needed.
    #[error("the record is an extension of one that is not known here")]
    NoBody,
    /// What its kind asks of the body does not hold.
    #[error("the record's content is not what its kind holds")]
    Body,
    /// It has expired.
    #[error("the record has expired")]
    Expired,
    /// It lives longer than its kind may, or its publisher's clock is ahead of ours.
    #[error("the record expires later than its kind may: check the publisher's clock and its time to live")]
    TooFarAhead,
    /// No validator knows the namespace.
    #[error("no validator knows the namespace of the key")]
    UnknownNamespace,
    /// The namespace's validator or the authority policy says no.
    #[error("it is not allowed: {0}")]
    Policy(&'static str),
    /// A message to a mailbox without the work or the token that its owner asks for.
    #[error("the mailbox's owner does not take it: work or a token is missing")]
    NotWelcome,
}

impl RecordFault {
    /// As the sender is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::TooLarge { .. } => Refusal::TooLarge,
            Self::UnknownNamespace => Refusal::UnknownNamespace,
            Self::Policy(_) | Self::NotWelcome => Refusal::Policy,
            _ => Refusal::Invalid,
        }
    }
}

impl From<RecordFault> for Invalid {
    fn from(fault: RecordFault) -> Self {
        let why = match fault {
            RecordFault::Malformed => "it is no signed record",
            RecordFault::Key | RecordFault::OtherKey => "it belongs elsewhere",
            RecordFault::TooLarge { .. } => "it is too large",
            RecordFault::Signature => "its signature does not hold",
            RecordFault::NotTheOwner => "its signer may not publish here",
            RecordFault::OtherContent | RecordFault::Body => "its content is not what it should be",
            RecordFault::NoBody => "it has no content",
            RecordFault::Expired => "it has expired",
            RecordFault::TooFarAhead => "it expires too late",
            RecordFault::UnknownNamespace => "its namespace is not known",
            RecordFault::Policy(why) => why,
            RecordFault::NotWelcome => "the mailbox's owner does not take it",
        };
        Self { why }
    }
}
