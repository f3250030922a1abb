//! Why something did not work, sorted by what it means for the next try.

use std::fmt;
use std::time::Duration;

/// Who is to blame for a failure, which decides how it is charged. There are these four and no others.
///
/// | blame | the peer's backoff | its address | comes back |
/// |---|---|---|---|
/// | local | not touched; a count of its own, at most a minute | another one is tried first | soon |
/// | unlucky | doubles | counted; hearsay is forgotten after a few | after the backoff, at most 10 min |
/// | overloaded | not touched | good: somebody answered there | when the peer said, or up to twice that |
/// | hostile | doubles | forgotten at once, unless the user gave it | after the backoff, at another address |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blame {
    /// Our own machine or configuration: no socket, no address, shutting down. The peer is not charged.
    Local,
    /// Nobody in particular: a timeout, a broken path. Backoff grows.
    Unlucky,
    /// The peer cannot or will not have us now: it is full, or has banned us. We come back when it said, or later.
    Overloaded,
    /// The peer, or the address, is not what it claims to be. The address is not used again.
    Hostile,
}

impl Blame {
    /// All four.
    pub const ALL: &[Blame] = &[Blame::Local, Blame::Unlucky, Blame::Overloaded, Blame::Hostile];
}

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal, $blame:ident, $text:literal;)*) => {
        /// What can go wrong with a dial, a handshake or a connection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[$doc])* $fault,)*
            /// The peer refused us in its answer to our hello, or when it closed.
            RefusedByPeer(RejectReason),
            /// We refused the peer.
            RefusedByUs(RejectReason),
        }

        impl Fault {
            /// Every fault: those without a reason, then both refusals with each reason.
            pub fn all() -> impl Iterator<Item = Fault> {
                let refusals = RejectReason::ALL.iter().copied();
                [$(Fault::$fault),*]
                    .into_iter()
                    .chain(refusals.clone().map(Fault::RefusedByPeer))
                    .chain(refusals.map(Fault::RefusedByUs))
            }

            /// Who is to blame.
            pub fn blame(self) -> Blame {
                match self {
                    $(Fault::$fault => Blame::$blame,)*
                    Fault::RefusedByPeer(reason) | Fault::RefusedByUs(reason) => reason.blame(),
                }
            }

            /// Its name in data, such as `timeout` or `refused-by-peer/full`.
            pub fn name(self) -> String {
                match self {
                    $(Fault::$fault => $name.to_owned(),)*
                    Fault::RefusedByPeer(reason) => format!("refused-by-peer/{}", reason.name()),
                    Fault::RefusedByUs(reason) => format!("refused-by-us/{}", reason.name()),
                }
            }
        }

        impl fmt::Display for Fault {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Fault::$fault => f.write_str($text),)*
                    Fault::RefusedByPeer(reason) => write!(f, "the peer refused us because {reason}"),
                    Fault::RefusedByUs(reason) => write!(f, "we refused the peer because {}", reason.as_we_say()),
                }
            }
        }
    };
}

faults! {
    /// No address of the peer is known.
    NoAddress = "no-address", Local, "no address of it is known";
    /// A name led only to addresses that its teller may not name.
    OutOfScope = "out-of-scope", Local, "its addresses lie in a network that whoever told us of them may not name";
    /// The peer is not on our allow-list.
    NotAllowed = "not-allowed", Local, "it is not on this node's allow-list";
    /// We have banned the peer, or where it is.
    Banned = "banned", Local, "it is banned here";
    /// This node has no socket that can send there.
    NoSocket = "no-socket", Local, "this node has no socket that can send there";
    /// This node is shutting down.
    ThisNodeCloses = "this-node-closes", Local, "this node is shutting down";
    /// More visits wait than may.
    TooManyVisits = "too-many-visits", Local, "too many visits are waiting";
    /// A visit is asked for while the backoff after a failure still runs.
    VisitTooSoon = "visit-too-soon", Local, "it failed lately";
    /// Enough dials went to the only addresses that are known, lately.
    TooManyDials = "too-many-dials", Local, "enough dials went to its addresses lately";
    /// A connection for a while only was no longer needed, or its place was needed for another such connection.
    VisitOver = "visit-over", Local, "the visit was over";
    /// More explicit connects wait than may.
    TooManyConnects = "too-many-connects", Local, "too many connects are waiting";
    /// The user ended the connection.
    Disconnected = "disconnected", Local, "the user disconnected it";
    /// This side closed the connection, for a reason that stands beside it.
    ClosedByUs = "closed-by-us", Local, "this node closed the connection";
    /// We gave the place to another peer, to keep the overlay fresh.
    Rotated = "rotated", Local, "its place was given to another peer, to keep the overlay fresh";

    /// Nothing answered.
    Timeout = "timeout", Unlucky, "nothing answered";
    /// A name cannot be looked up.
    Unresolved = "unresolved", Unlucky, "its name cannot be looked up";
    /// The connection broke.
    Broken = "broken", Unlucky, "the connection broke";
    /// Nothing came from the peer for the idle timeout.
    Silent = "silent", Unlucky, "the peer fell silent";
    /// The peer no longer knows the connection.
    Restarted = "restarted", Unlucky, "the peer was restarted";
    /// The peer did not finish the hello in time.
    HelloTimeout = "hello-timeout", Unlucky, "the hello was not finished in time";
    /// The peer closed without a complaint.
    ClosedByPeer = "closed-by-peer", Unlucky, "the peer closed the connection";
    /// The peer says that we broke a protocol.
    Accused = "accused", Unlucky, "the peer says that this node broke a protocol";
    /// Another connection to the peer was kept.
    Duplicate = "duplicate", Unlucky, "another connection to the peer is kept";
    /// A newer connection of the peer took its place.
    Replaced = "replaced", Unlucky, "the peer opened a newer connection in its place";

    /// The peer takes no connection at the moment; it said so before the handshake.
    Refused = "refused", Overloaded, "the peer takes no connection at the moment";
    /// The peer needed the place for another.
    Trimmed = "trimmed", Overloaded, "the peer needed the place";
    /// The peer reached a limit.
    ResourceLimit = "resource-limit", Overloaded, "the peer reached a limit of its own";
    /// The peer says that we came too often.
    RateLimited = "rate-limited", Overloaded, "the peer says that this node comes too often";

    /// Another peer lives at the address.
    WrongKey = "wrong-key", Hostile, "another peer lives at the address";
    /// The certificate is not what libp2p asks for.
    BadCertificate = "bad-certificate", Hostile, "its certificate proves nothing";
    /// The peer does not take our certificate or our protocol.
    TlsRefused = "tls-refused", Hostile, "it refuses our certificate or protocol";
    /// No QUIC version or no protocol in common.
    NothingInCommon = "nothing-in-common", Hostile, "it speaks no protocol that we speak";
    /// An address that no node can have.
    BadAddress = "bad-address", Hostile, "no node can have such an address";
}

/// Why a dial, or a connection, came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub fault: Fault,
    /// One sentence for people.
    pub detail: String,
    /// When the other side said that we may come back.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without a time to come back.
    pub fn new(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into(), retry_after: None }
    }

    /// Who is to blame.
    pub fn blame(&self) -> Blame {
        self.fault.blame()
    }
}

impl From<Fault> for Failure {
    /// With the fault's own words.
    fn from(fault: Fault) -> Self {
        Self::new(fault, fault.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Why the state of a peer changed, or why it stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The user named it.
    Named,
    /// The allow-list was changed, and no longer stands against it.
    Allowed,
    /// It stood in the stored address book.
    Loaded,
    /// Another peer told us of it.
    Told,
    /// It connected to us.
    CameIn,
    /// Its turn in the dial queue came.
    Due,
    /// The user asked for a connection now.
    Asked,
    /// Something wants to ask the peer, and nothing else.
    VisitAsked,
    /// It is connected for a while only.
    Visit,
    /// What was a visit is an ordinary connection from now on.
    Stays,
    /// Our address on its connection went away: a new connection is to take the old one's place.
    Moved,
    /// It is to take the place of another peer, to keep the overlay fresh.
    Replacement,
    /// The TLS handshake proved its key.
    Proved,
    /// Both sides accepted.
    Admitted,
    /// It waits for its next dial after failures.
    Backoff,
    /// It waits for a free place.
    NoPlace,
    /// It waits because enough dials were begun lately.
    DialBudget,
    /// The user wants no connection to it.
    Held,
    /// Its ban is over.
    Unbanned,
    /// It left the address book: nothing of it was worth keeping, or the room was needed.
    Forgotten,
    /// Nothing is known of it.
    Unknown,
    /// Something went wrong.
    Failed(Fault),
}

impl Cause {
    /// What went wrong, if that is the cause.
    pub(crate) fn fault(self) -> Option<Fault> {
        match self {
            Cause::Failed(fault) => Some(fault),
            _ => None,
        }
    }

    /// Its name in data, such as `admitted` or `timeout`.
    pub fn name(self) -> String {
        match self {
            Cause::Failed(fault) => fault.name(),
            other => kebab(&format!("{other:?}")),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Named => "the user named it",
            Cause::Allowed => "the allow-list was changed, and no longer stands against it",
            Cause::Loaded => "it stood in the stored address book",
            Cause::Told => "another peer told us of it",
            Cause::CameIn => "it connected to us",
            Cause::Due => "its turn in the dial queue came",
            Cause::Asked => "the user asked for a connection",
            Cause::VisitAsked => "a visit to it was asked for",
            Cause::Visit => "for a visit, which ends when it is not used",
            Cause::Stays => "the visit became an ordinary connection",
            Cause::Moved => "our address on its connection went away",
            Cause::Replacement => "it is to replace another peer, to keep the overlay fresh",
            Cause::Proved => "the TLS handshake proved its key",
            Cause::Admitted => "both sides accepted",
            Cause::Backoff => "it waits for its next dial",
            Cause::NoPlace => "it waits for a free place",
            Cause::DialBudget => "it waits because enough dials were begun lately",
            Cause::Held => "the user wants no connection to it",
            Cause::Unbanned => "its ban is over",
            Cause::Forgotten => "it left the address book",
            Cause::Unknown => "nothing is known of it",
            Cause::Failed(fault) => return fault.fmt(f),
        })
    }
}

/// `NoPlace` as `no-place`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
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
    /// Its name in data, such as `wrong-network`.
    pub fn name(self) -> String {
        match self {
            RejectReason::Other(code) => format!("other-{code}"),
            known => kebab(&format!("{known:?}")),
        }
    }

    /// The reason in the words of the node that refuses; [`fmt::Display`] has those of the one that was refused.
    pub(crate) fn as_we_say(self) -> String {
        match self {
            RejectReason::Full => "no place is free here".to_owned(),
            RejectReason::ShuttingDown => "this node is shutting down".to_owned(),
            RejectReason::ForeignRefused => "only Peerage nodes are admitted here".to_owned(),
            RejectReason::Banned => "it is banned here".to_owned(),
            other => other.to_string(),
        }
    }

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

    #[test]
    fn every_fault_has_one_of_four_blames_and_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        let mut blames = std::collections::BTreeSet::new();
        for fault in Fault::all() {
            assert!(names.insert(fault.name()), "{fault:?} shares its name");
            assert!(!fault.to_string().is_empty());
            blames.insert(fault.blame());
        }
        assert_eq!(blames.into_iter().collect::<Vec<_>>(), Blame::ALL);
        assert_eq!(Cause::DialBudget.name(), "dial-budget");
        assert_eq!(Cause::Failed(Fault::RefusedByPeer(RejectReason::Full)).name(), "refused-by-peer/full");
    }
}
