//! What can be watched of a lookup, step by step.

use std::time::Duration;

use peerage_identity::PeerId;

use crate::{Ended, Failure};

/// One step of a lookup.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// When it happened, after the start of the operation.
    pub at: Duration,
    /// What happened.
    pub what: StepKind,
}

/// What can happen in a lookup.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StepKind {
    /// A peer was asked.
    Asked {
        /// Who.
        peer: PeerId,
        /// How many leading bits it shares with the target.
        shared_bits: u32,
        /// On which of the disjoint paths, counted from 0.
        path: u8,
        /// How many answers led to it.
        hops: u32,
        /// Whether a connection to it stands.
        warm: bool,
        /// What set it off.
        cause: Cause,
    },
    /// It answered.
    Answered {
        /// Who.
        peer: PeerId,
        /// How long it took.
        rtt: Duration,
        /// Peers in the answer.
        closer: usize,
        /// Those among them that were not known.
        fresh: usize,
        /// Valid values, or providers, in the answer.
        values: usize,
        /// Whether it had been suspected meanwhile.
        late: bool,
    },
    /// It took longer than expected: others are asked beside it.
    Suspected {
        /// Who.
        peer: PeerId,
        /// How long it has been silent.
        after: Duration,
    },
    /// It came to nothing.
    Failed {
        /// Who.
        peer: PeerId,
        /// Why.
        why: Failure,
    },
    /// Its answer isn't needed any more.
    Cancelled {
        /// Who.
        peer: PeerId,
    },
    /// What it answered cannot be right; another path was started.
    Implausible {
        /// Who.
        peer: PeerId,
    },
    /// As many values as are wanted are there, and so many peers were named near the target that all of them are heard before one is handed over.
    Crowded {
        /// How many peers a network of this size has where the k closest lie.
        score: f64,
    },
    /// It was asked to store.
    Storing {
        /// Who.
        peer: PeerId,
    },
    /// It has stored the value.
    Stored {
        /// Who.
        peer: PeerId,
    },
    /// It has not.
    NotStored {
        /// Who.
        peer: PeerId,
        /// Why.
        why: crate::NotStored,
    },
    /// It was asked to tell when the value changes.
    Waiting {
        /// Who.
        peer: PeerId,
    },
    /// The lookup ended.
    Ended(Ended),
    /// It answered after the end, and had something newer than what was handed over.
    Later {
        /// Who.
        peer: PeerId,
        /// How long it took.
        rtt: Duration,
        /// So many values are newer, or were not there at all.
        newer: usize,
    },
}

/// What set a request off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The burst at the start.
    Burst,
    /// An answer.
    Answer,
    /// A failure.
    Failure,
    /// A request that took longer than expected.
    Suspect,
    /// The stagger time had passed.
    Stagger,
    /// It lies so close to the target that it must be asked in any case.
    Close,
    /// Only suspects were left: further ones are asked rather than waited for.
    Hedge,
    /// A further page of the same peer.
    Page,
}
