//! Why something did not work, sorted by what it means for the next try.

use std::fmt;
use std::time::Duration;

/// Who is to blame for a failure, which decides how it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blame {
    /// Our own machine or configuration: no route, no socket, shutting down. The peer is not charged.
    Local,
    /// Nobody in particular: a timeout, a broken path. Backoff grows.
    Unlucky,
    /// The peer cannot or will not have us now: it is full, or has banned us. We come back when it said, or later.
    Overloaded,
    /// The peer, or the address, is not what it claims to be. The address is not used again.
    Hostile,
}

/// Why a dial, or a connection, came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whose fault it is.
    pub blame: Blame,
    /// One sentence for people.
    pub detail: String,
    /// When the other side said that we may come back.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without a time to come back.
    pub fn new(blame: Blame, detail: impl Into<String>) -> Self {
        Self { blame, detail: detail.into(), retry_after: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a node refuses to admit another. The number crosses the wire in a `Reject`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum RejectReason {
            $($(#[$doc])* $name,)*
            /// A number that this version does not know.
            Other(u32),
        }

        impl RejectReason {
            /// Every reason that has a name.
            pub const ALL: &[RejectReason] = &[$(RejectReason::$name),*];

            /// The number on the wire.
            pub fn code(self) -> u32 {
                match self {
                    $(RejectReason::$name => $code,)*
                    RejectReason::Other(code) => code,
                }
            }

            /// The reason behind a number.
            pub fn from_code(code: u32) -> Self {
                match code {
                    $($code => RejectReason::$name,)*
                    other => RejectReason::Other(other),
                }
            }
        }

        impl fmt::Display for RejectReason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(RejectReason::$name => f.write_str($text),)*
                    RejectReason::Other(code) => write!(f, "a reason that this version does not know (number {code})"),
                }
            }
        }
    };
}

reasons! {
    /// The two nodes are in different networks.
    WrongNetwork = 1, "it is in another network";
    /// The two nodes have no protocol version in common.
    NoCommonVersion = 2, "it speaks no version that we speak";
    /// A node reached itself.
    SelfDial = 3, "that is this node itself";
    /// Another node uses the same key.
    Clone = 4, "another node runs with the same key";
    /// No place is free.
    Full = 5, "it has no place free";
    /// The two already have a connection.
    Duplicate = 6, "there is a connection already";
    /// The hello was malformed.
    InvalidHello = 7, "the hello was malformed";
    /// The node is shutting down.
    ShuttingDown = 8, "it is shutting down";
    /// Only nodes that speak the Peerage hello are admitted.
    ForeignRefused = 9, "it admits only Peerage nodes";
    /// The peer, or where it comes from, is banned.
    Banned = 10, "it is banned there";
    /// The two nodes have no network secret in common.
    NotProved = 11, "the network secret was not proved";
    /// The peer is not on the allow-list. Not sent: who is not on it is told nothing.
    NotAllowed = 12, "it is not on the allow-list";
}

impl RejectReason {
    /// How a dialler that was refused for this reason should take it.
    pub fn blame(self) -> Blame {
        match self {
            RejectReason::WrongNetwork
            | RejectReason::NoCommonVersion
            | RejectReason::ForeignRefused
            | RejectReason::SelfDial => Blame::Hostile,
            // The address is right; the time is not.
            RejectReason::Full | RejectReason::Banned | RejectReason::Clone => Blame::Overloaded,
            RejectReason::InvalidHello | RejectReason::NotAllowed => Blame::Local,
            // A member may be behind with a change of the secret.
            RejectReason::NotProved
            | RejectReason::Duplicate
            | RejectReason::ShuttingDown
            | RejectReason::Other(_) => Blame::Unlucky,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_its_number() {
        for reason in RejectReason::ALL {
            assert_eq!(RejectReason::from_code(reason.code()), *reason);
        }
        assert_eq!(RejectReason::from_code(77), RejectReason::Other(77));
    }
}
