//! What can go wrong with a request: at the caller, and at the one that answers. Numbers up to 99 are Peerage's and mean the same under every
//! protocol; those from 100 on belong to the application.

use std::error::Error;
use std::time::Duration;

use peerage_identity::PeerId;

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no connection to the peer.
    #[error("not connected to {peer}: connect to it first, or add it with peers().add")]
    NotConnected {
        /// Whom.
        peer: PeerId,
    },
    /// The peer does not serve the protocol.
    #[error("{peer} does not serve {protocol}")]
    NotSupported {
        /// Whom.
        peer: PeerId,
        /// The protocol's name.
        protocol: String,
    },
    /// No answer came in time.
    #[error("no answer from {peer} on {protocol} within {after:?}")]
    Deadline {
        /// Whom.
        peer: PeerId,
        /// The protocol's name.
        protocol: String,
        /// The deadline.
        after: Duration,
    },
    /// The peer has too much to do, and says so before it begins: the request was not worked on.
    #[error("{peer} has too much to do to answer on {protocol}: {text}")]
    Overloaded {
        /// Whom.
        peer: PeerId,
        /// The protocol's name.
        protocol: String,
        /// When it makes sense to ask again, where the peer says so.
        retry_after: Option<Duration>,
        /// The peer's words.
        text: String,
    },
    /// The peer's handler answered with another error.
    #[error("{peer} answered with error {code}: {text}")]
    Refused {
        /// Whom.
        peer: PeerId,
        /// The handler's number.
        code: u32,
        /// The handler's words.
        text: String,
    },
    /// Too many requests, to the peer or to all peers, wait on this side already; this one was not sent.
    #[error(
        "{waiting} requests wait already before this one to {peer}: send fewer at once, or raise max_waiting_per_peer or max_asked_waiting of the request limits"
    )]
    Busy {
        /// Whom.
        peer: PeerId,
        /// How many may wait.
        waiting: usize,
    },
    /// The memory that is accounted for requests is used up: the request was not sent, or its answer not taken.
    #[error("the memory limit {limit} of {most} bytes is reached: ask for less at once, or raise it")]
    NoMemory {
        /// The limit's name, in [`crate::MemoryLimits`].
        limit: &'static str,
        /// The limit in bytes.
        most: usize,
    },
    /// The request exceeds the bound.
    #[error("a request of {length} bytes exceeds the {most} that are allowed")]
    TooLarge {
        /// Bytes.
        length: usize,
        /// The bound in bytes.
        most: usize,
    },
    /// The answer can't be read.
    #[error("{peer} sent a malformed answer on {protocol}: {detail}")]
    Malformed {
        /// Whom.
        peer: PeerId,
        /// The protocol's name.
        protocol: String,
        /// What is wrong.
        detail: String,
    },
    /// The connection or the stream ended.
    #[error("the exchange with {peer} on {protocol} broke off: {cause}")]
    Lost {
        /// Whom.
        peer: PeerId,
        /// The protocol's name.
        protocol: String,
        /// Why.
        cause: String,
    },
}

/// What a request handler answers when it can't serve: all of it travels to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (error {code})")]
pub struct ServeError {
    /// Any number but 0; 1 to 99 are Peerage's own, the others the application's.
    pub code: u32,
    /// Words for people, cut at 1,024 bytes.
    pub text: String,
    /// When it makes sense to ask again. It travels in whole milliseconds, at most 74 hours.
    pub retry_after: Option<Duration>,
}

impl ServeError {
    /// The request can't be read.
    pub const MALFORMED: u32 = 1;
    /// There is too much to do: the request was not worked on, or there is no memory for its answer. Callers get [`RequestError::Overloaded`].
    pub const OVERLOADED: u32 = 2;
    /// The handler failed.
    pub const FAILED: u32 = 3;
    /// The deadline passed before there was an answer.
    pub const DEADLINE: u32 = 4;
    /// The request, or the answer, exceeds the bound of the one that serves.
    pub const TOO_LARGE: u32 = 5;
    /// The caller may not ask this.
    pub const DENIED: u32 = 6;
    /// The first number that is the application's.
    pub const FIRST_APPLICATION_CODE: u32 = 100;

    /// An error with a number of the application's, or one of those above.
    pub fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code: code.max(1), text: text.into(), retry_after: None }
    }

    /// [`ServeError::OVERLOADED`].
    pub fn overloaded(text: impl Into<String>) -> Self {
        Self::new(Self::OVERLOADED, text)
    }

    /// [`ServeError::DENIED`].
    pub fn denied(text: impl Into<String>) -> Self {
        Self::new(Self::DENIED, text)
    }

    /// Says when it makes sense to ask again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What a service failed with: a `ServeError`, also one that other errors are wrapped around, travels as it is; anything else is
    /// [`ServeError::FAILED`] with its words.
    pub(crate) fn from_any(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Self>() {
                return found.clone();
            }
            cause = error.source();
        }
        Self::new(Self::FAILED, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("around it")]
    struct Around(#[source] ServeError);

    #[test]
    fn a_serve_error_is_found_inside_other_errors_and_others_become_a_failure() {
        let denied = ServeError::denied("no");
        assert_eq!(ServeError::from_any(&denied), denied);
        assert_eq!(ServeError::from_any(&Around(denied.clone())), denied);
        let other = ServeError::from_any(&std::io::Error::other("a disk is full"));
        assert_eq!((other.code, other.text.as_str()), (ServeError::FAILED, "a disk is full"));
    }
}
