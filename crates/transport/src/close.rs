//! Why a connection or a stream ended: the numbers that cross the wire, and what the application is told.
//!
//! QUIC carries a number with each close, each reset and each stop (RFC 9000 § 19.4, § 19.5, § 19.19). Numbers up to 0x1008 are those of the libp2p error
//! codes, so that a foreign node understands them; ours begin at 0x7001. A number that we don't know is kept as it came.

use std::fmt;
use std::time::Duration;

use quinn::{ConnectionError, VarInt};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal: $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A number that this version doesn't know.
            Other(u64),
        }

        impl $name {
            /// All numbers that have a name.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code with this number.
            pub fn from_number(number: u64) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Other(other),
                }
            }

            /// The number on the wire. QUIC has 62 bits for it.
            pub fn number(self) -> u64 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(number) => number,
                }
            }

            /// What it means, in a few words.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(_) => "unknown code",
                }
            }

            pub(crate) fn to_varint(self) -> VarInt {
                VarInt::from_u64(self.number()).unwrap_or(VarInt::MAX)
            }
        }

        impl From<VarInt> for $name {
            fn from(number: VarInt) -> Self {
                Self::from_number(number.into_inner())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} ({:#x})", self.text(), self.number())
            }
        }
    };
}

codes! {
    /// Why a side closed a connection.
    CloseCode {
        /// Nothing is wrong and no more is to be said. Also what a peer sees when the last handle of a connection was dropped.
        Normal = 0x0: "closed normally",
        /// Streams could not be negotiated.
        NegotiationFailed = 0x1000: "no protocol in common",
        /// A limit of this side is reached.
        ResourceLimit = 0x1001: "out of resources",
        /// The peer asked for too much in too short a time.
        RateLimited = 0x1002: "rate limit exceeded",
        /// The peer sent what no correct implementation sends.
        ProtocolViolation = 0x1003: "protocol violation",
        /// Both sides dialled at once, and the other connection is the one that stays.
        Duplicate = 0x1004: "another connection between the two is kept",
        /// The peer manager needed the place.
        Trimmed = 0x1005: "dropped to make room",
        /// The node stops.
        Shutdown = 0x1006: "the node shuts down",
        /// This peer is not wanted here.
        NotAdmitted = 0x1007: "not admitted",
        /// The closer had a code that doesn't fit its table.
        CodeOutOfRange = 0x1008: "close code out of range",
        /// The peer came back with a newer boot of itself.
        Replaced = 0x7001: "replaced by a connection of a newer start",
        /// The peer belongs to another network.
        WrongNetwork = 0x7002: "another network",
        /// The peer or its address is banned.
        Banned = 0x7003: "banned",
        /// The peer connected and then didn't introduce itself in time.
        HandshakeTimeout = 0x7004: "the handshake took too long",
        /// Another running node has the peer's key.
        Clone = 0x7005: "another running node has the same key",
        /// The connection leads back to the node that dialled it.
        Loop = 0x7006: "a node dialled itself",
        /// The two have no version of a protocol in common that both need.
        NoCommonVersion = 0x7007: "no version in common",
        /// All places are taken.
        Full = 0x7008: "all places are taken",
        /// The closer is at fault.
        Internal = 0x7009: "internal error",
        /// The closer had dialled for a while only, to ask something.
        VisitOver = 0x700a: "the visit is over",
    }
}

codes! {
    /// Why a side reset its half of a stream, or stopped reading the other's.
    StreamCode {
        /// The work was given up; nothing is wrong. Also what a peer sees when a half of a stream was dropped.
        Cancelled = 0x0: "cancelled",
        /// The protocol of the stream isn't served, or negotiation failed.
        NotSupported = 0x1001: "protocol not supported",
        /// A limit of this side is reached.
        Overloaded = 0x1002: "overloaded",
        /// The peer opens streams or sends too fast.
        RateLimited = 0x1003: "rate limit exceeded",
        /// The peer sent what the protocol doesn't allow.
        ProtocolViolation = 0x1004: "protocol violation",
        /// Another stream took its place.
        Replaced = 0x1005: "replaced by another stream",
        /// The stream was idle for too long.
        Trimmed = 0x1006: "dropped to make room",
        /// The node stops.
        Shutdown = 0x1007: "the node shuts down",
        /// The peer isn't admitted.
        NotAdmitted = 0x1008: "not admitted",
        /// The sender had a code that doesn't fit its table.
        CodeOutOfRange = 0x1009: "stream code out of range",
        /// A message exceeds what is taken here.
        TooLarge = 0x7001: "message too large",
        /// A deadline passed.
        TimedOut = 0x7002: "timed out",
        /// The sender is at fault.
        Internal = 0x7003: "internal error",
    }
}

/// Why a connection is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseCause {
    /// The peer closed it.
    #[error("closed by the peer: {code}{}", Said(.reason))]
    ByPeer {
        /// What the peer gave as the cause.
        code: CloseCode,
        /// What the peer said about it, shortened and without control characters. It may be empty.
        reason: String,
    },
    /// This side closed it.
    #[error("closed by this node: {code}{}", Said(.reason))]
    ByUs {
        /// The code that was given.
        code: CloseCode,
        /// The reason that was given.
        reason: String,
    },
    /// Nothing came from the peer for the idle timeout, of which the smaller of both sides' holds.
    #[error("silent for {after:?}, or for the peer's idle timeout if that is shorter")]
    TimedOut {
        /// The idle timeout of this side.
        after: Duration,
    },
    /// The peer doesn't know the connection: it was restarted (a stateless reset, RFC 9000 § 10.3).
    #[error("reset: the peer was restarted")]
    Reset,
    /// The peer speaks no version of QUIC that we speak.
    #[error("the peer speaks no QUIC version 1")]
    VersionMismatch,
    /// The peer refused our certificate, our protocol or a message of the TLS handshake.
    #[error("the peer ended the TLS handshake: {alert}{}", Said(.reason))]
    RefusedByTls {
        /// The alert it sent.
        alert: TlsAlert,
        /// What it said about it.
        reason: String,
    },
    /// QUIC itself failed, on one of the two sides.
    #[error("QUIC failed: {detail}")]
    Transport {
        /// What quinn or the peer says about it.
        detail: String,
    },
}

impl CloseCause {
    /// Whether the peer's own act or absence ended the connection, rather than this node.
    pub fn is_by_peer(&self) -> bool {
        !matches!(self, Self::ByUs { .. })
    }

    /// Translates quinn's word. `ours` is what this side gave when it closed, `idle` its idle timeout.
    pub(crate) fn new(error: &ConnectionError, ours: Option<&(CloseCode, String)>, idle: Duration) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::ByPeer { code: close.error_code.into(), reason: printable(&close.reason) }
            }
            ConnectionError::LocallyClosed => {
                let (code, reason) = ours.cloned().unwrap_or((CloseCode::Normal, String::new()));
                Self::ByUs { code, reason }
            }
            ConnectionError::ConnectionClosed(close) => match TlsAlert::from_transport(close.error_code) {
                Some(alert) => Self::RefusedByTls { alert, reason: printable(&close.reason) },
                None => Self::Transport {
                    detail: format!("the peer says: {}{}", close.error_code, Said(&printable(&close.reason))),
                },
            },
            ConnectionError::TimedOut => Self::TimedOut { after: idle },
            ConnectionError::Reset => Self::Reset,
            ConnectionError::VersionMismatch => Self::VersionMismatch,
            ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
                Self::Transport { detail: printable(error.to_string().as_bytes()) }
            }
        }
    }
}

/// The alert with which a side ended a TLS handshake (RFC 8446 § 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TlsAlert(pub u8);

impl TlsAlert {
    /// QUIC's codes 0x100 to 0x1ff are TLS alerts (RFC 9001 § 4.8).
    pub(crate) fn from_transport(code: quinn::TransportErrorCode) -> Option<Self> {
        let number = u64::from(code);
        (0x100..0x200).contains(&number).then_some(Self(number as u8))
    }
}

impl fmt::Display for TlsAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            10 => "unexpected message",
            40 => "handshake failure",
            42 => "bad certificate",
            43 => "unsupported certificate",
            45 => "certificate expired or not yet valid",
            46 => "certificate refused",
            47 => "illegal parameter",
            48 => "unknown authority",
            49 => "access denied",
            50 => "message cannot be decoded",
            51 => "bad signature",
            70 => "no TLS version in common",
            80 => "internal error",
            109 => "missing extension",
            112 => "unrecognised name",
            116 => "certificate required",
            120 => "no application protocol in common",
            _ => "alert",
        };
        write!(f, "{name} (TLS alert {})", self.0)
    }
}

/// What a peer says, fit for a log line: at most [`MAX_REASON`] characters, control characters replaced.
pub(crate) fn printable(bytes: &[u8]) -> String {
    // Four bytes is the longest character: no more than this needs to be looked at.
    let bytes = &bytes[..bytes.len().min(4 * MAX_REASON)];
    String::from_utf8_lossy(bytes)
        .chars()
        .take(MAX_REASON)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// A remark in parentheses, or nothing.
struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " («{}»)", self.0) }
    }
}

const MAX_REASON: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_code_has_its_own_number_and_comes_back_from_it() {
        let numbers: HashSet<u64> = CloseCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), CloseCode::ALL.len());
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from(code.to_varint()), *code);
        }
        let numbers: HashSet<u64> = StreamCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), StreamCode::ALL.len());
        for code in StreamCode::ALL {
            assert_eq!(StreamCode::from(code.to_varint()), *code);
        }
    }

    /// The rows under a heading of ARCHITECTURE.md: number and name.
    fn documented(heading: &str) -> Vec<(u64, String)> {
        let text = include_str!("../../../ARCHITECTURE.md");
        let (_, section) = text.split_once(heading).unwrap();
        let section = section.split("\n#").next().unwrap();
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| 0x")?.split(" | ");
            let number = u64::from_str_radix(cells.next()?, 16).ok()?;
            Some((number, cells.next()?.to_owned()))
        };
        section.lines().filter_map(row).collect()
    }

    #[test]
    fn the_tables_of_the_architecture_are_those_of_the_code() {
        let in_code: Vec<_> =
            CloseCode::ALL.iter().map(|code| (code.number(), format!("{code:?}"))).collect();
        assert_eq!(documented("\n## Close codes\n"), in_code);
        let in_code: Vec<_> =
            StreamCode::ALL.iter().map(|code| (code.number(), format!("{code:?}"))).collect();
        assert_eq!(documented("\n### Codes of streams\n"), in_code);
    }

    #[test]
    fn an_unknown_code_is_kept() {
        assert_eq!(CloseCode::from_number(0x4242), CloseCode::Other(0x4242));
        assert_eq!(CloseCode::Other(0x4242).number(), 0x4242);
        assert_eq!(CloseCode::Other(u64::MAX).to_varint(), VarInt::MAX);
    }

    #[test]
    fn what_a_peer_says_is_short_and_without_control_characters() {
        assert_eq!(printable(b"a\nb\x1b[31m"), "a\u{fffd}b\u{fffd}[31m");
        assert_eq!(printable("ä".repeat(1000).as_bytes()).chars().count(), MAX_REASON);
        assert_eq!(printable(&[0xff; 10_000]).chars().count(), MAX_REASON);
    }

    #[test]
    fn a_cause_reads_as_a_sentence() {
        let cause = CloseCause::ByPeer { code: CloseCode::Banned, reason: "too loud".into() };
        assert_eq!(cause.to_string(), "closed by the peer: banned (0x7003) («too loud»)");
        let cause = CloseCause::TimedOut { after: Duration::from_secs(30) };
        assert_eq!(cause.to_string(), "silent for 30s, or for the peer's idle timeout if that is shorter");
    }
}
