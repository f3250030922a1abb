//! What requests may take: at the one that answers, ([`ServeConfig`]), for one call ([`CallConfig`]), at the caller towards one peer
//! ([`CallLimits`]), and at a node in all ([`RequestLimits`]). What their bodies may hold stands in [`crate::MemoryLimits`].

use std::time::Duration;

use crate::error::RegisterError;

/// The deadline of a request that names none.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// The largest request, and the largest answer, where nothing else was configured, in bytes.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// The limits of one served protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    /// The largest request that is taken, in bytes. A larger one is answered with [`crate::ServeError::TOO_LARGE`]. Default: 4 MiB.
    pub max_request_bytes: usize,
    /// The largest answer, or the largest item of a stream of answers, in bytes. Default: 4 MiB.
    pub max_answer_bytes: usize,
    /// Requests that are worked on at once, of all peers together. Default: 1,024.
    pub max_concurrent: usize,
    /// Requests that are worked on at once for one peer. Default: 64.
    pub max_concurrent_per_peer: usize,
    /// Requests that may wait for one of the places of `max_concurrent`. Default: 1,024.
    pub max_waiting: usize,
    /// Requests of one peer that may wait for one of its own places. Default: 192, which with the places makes as many as the streams that a peer may
    /// have open.
    pub max_waiting_per_peer: usize,
    /// What a caller that is refused because too many wait is told about when to come back. Default: 1 s.
    pub retry_after: Option<Duration>,
    /// How long a caller that has a place may take to send its request. Default: 10 s.
    pub request_timeout: Duration,
    /// How long a caller may take nothing of an answer before it is given up. Default: 60 s.
    pub stall_timeout: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            max_request_bytes: MAX_REQUEST_BYTES,
            max_answer_bytes: MAX_REQUEST_BYTES,
            max_concurrent: 1024,
            max_concurrent_per_peer: 64,
            max_waiting: 1024,
            max_waiting_per_peer: 192,
            retry_after: Some(Duration::from_secs(1)),
            request_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

impl ServeConfig {
    /// Sets how many requests are worked on at once: of all peers, and of one.
    #[must_use]
    pub fn concurrent(mut self, all: usize, of_one_peer: usize) -> Self {
        (self.max_concurrent, self.max_concurrent_per_peer) = (all, of_one_peer);
        self
    }

    /// Sets how many requests may wait beyond those: of all peers, and of one. More are refused.
    #[must_use]
    pub fn waiting(mut self, all: usize, of_one_peer: usize) -> Self {
        (self.max_waiting, self.max_waiting_per_peer) = (all, of_one_peer);
        self
    }

    /// Sets the largest request and the largest answer, in bytes.
    #[must_use]
    pub fn max_bytes(mut self, request: usize, answer: usize) -> Self {
        (self.max_request_bytes, self.max_answer_bytes) = (request, answer);
        self
    }

    pub(crate) fn check(&self, protocol: &str) -> Result<(), RegisterError> {
        let wrong = |detail: String| Err(RegisterError::Limits { name: protocol.to_owned(), detail });
        let counts = [
            ("max_concurrent", self.max_concurrent),
            ("max_concurrent_per_peer", self.max_concurrent_per_peer),
        ];
        for (limit, count) in counts {
            if !(1..=MAX_PLACES).contains(&count) {
                return wrong(format!("{limit} is {count}: set it between 1 and {MAX_PLACES}"));
            }
        }
        let sizes =
            [("max_request_bytes", self.max_request_bytes), ("max_answer_bytes", self.max_answer_bytes)];
        for (limit, bytes) in sizes {
            if bytes > MAX_BYTES {
                return wrong(format!(
                    "{limit} is {bytes}: set it to at most {MAX_BYTES}, and send more on a raw stream"
                ));
            }
        }
        Ok(())
    }
}

/// What one call may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallConfig {
    /// When the caller gives up, counted from the call; for a stream of answers, until its end. It travels to the peer, which stops working
    /// then. Default: 30 s; none for a stream of answers.
    pub deadline: Option<Duration>,
    /// The largest request that is sent, in bytes. Default: 4 MiB.
    pub max_request_bytes: usize,
    /// The largest answer, or the largest item of a stream of answers, that is taken, in bytes. Default: 4 MiB.
    pub max_answer_bytes: usize,
}

impl Default for CallConfig {
    fn default() -> Self {
        Self { deadline: Some(DEFAULT_DEADLINE), ..Self::unlimited_time() }
    }
}

impl CallConfig {
    /// The defaults, without a deadline.
    pub fn unlimited_time() -> Self {
        Self { deadline: None, max_request_bytes: MAX_REQUEST_BYTES, max_answer_bytes: MAX_REQUEST_BYTES }
    }

    /// Sets the deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets the largest request and the largest answer, in bytes.
    #[must_use]
    pub fn max_bytes(mut self, request: usize, answer: usize) -> Self {
        (self.max_request_bytes, self.max_answer_bytes) = (request, answer);
        self
    }
}

/// What all requests of a node together may take, whatever their protocols and peers. Each protocol and each peer has limits of its own besides, in
/// [`ServeConfig`] and [`CallLimits`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestLimits {
    /// Requests of peers that are worked on at once. Default: 4,096.
    pub max_served: usize,
    /// Requests of peers that have a place of their own protocol and wait for one of those. More are refused with
    /// [`crate::ServeError::OVERLOADED`]. Default: 4,096.
    pub max_served_waiting: usize,
    /// Requests of this node that are under way at once. Default: 4,096.
    pub max_asked: usize,
    /// Requests of this node that have a place towards their peer and wait for one of those. More fail with [`crate::RequestError::Busy`]. Default:
    /// 65,536.
    pub max_asked_waiting: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { max_served: 4096, max_served_waiting: 4096, max_asked: 4096, max_asked_waiting: 64 * 1024 }
    }
}

impl RequestLimits {
    /// Sets how many requests of peers are worked on at once, and how many wait for that.
    #[must_use]
    pub fn served(mut self, places: usize, waiting: usize) -> Self {
        (self.max_served, self.max_served_waiting) = (places, waiting);
        self
    }

    /// Sets how many requests of this node are under way at once, and how many wait for that.
    #[must_use]
    pub fn asked(mut self, places: usize, waiting: usize) -> Self {
        (self.max_asked, self.max_asked_waiting) = (places, waiting);
        self
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        places("max_served", self.max_served)?;
        places("max_asked", self.max_asked)
    }
}

/// How many requests this node sends to one peer at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallLimits {
    /// Requests to one peer that are under way at once. Default: 64, as many as the streams that a peer allows.
    pub max_concurrent_per_peer: usize,
    /// Requests to one peer that wait for one of those places. Default: 16,384. More fail with [`crate::RequestError::Busy`].
    pub max_waiting_per_peer: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { max_concurrent_per_peer: 64, max_waiting_per_peer: 16 * 1024 }
    }
}

impl CallLimits {
    pub(crate) fn check(&self) -> Result<(), String> {
        places("max_concurrent_per_peer", self.max_concurrent_per_peer)
    }
}

fn places(limit: &str, count: usize) -> Result<(), String> {
    match count {
        1..=MAX_PLACES => Ok(()),
        _ => Err(format!("{limit} of the request limits is {count}: set it between 1 and {MAX_PLACES}")),
    }
}

/// More places than this make no sense, and would not fit a semaphore of every platform.
const MAX_PLACES: usize = 1 << 20;
/// A message is held in memory as a whole.
const MAX_BYTES: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_make_no_sense_are_refused_by_name() {
        ServeConfig::default().check("/a/1").unwrap();
        let error = ServeConfig::default().concurrent(0, 1).check("/a/1").unwrap_err().to_string();
        assert!(error.contains("/a/1") && error.contains("max_concurrent is 0"), "{error}");
        let error = ServeConfig::default().max_bytes(1, usize::MAX).check("/a/1").unwrap_err().to_string();
        assert!(error.contains("max_answer_bytes"), "{error}");
        let none = CallLimits { max_concurrent_per_peer: 0, ..CallLimits::default() };
        assert!(none.check().unwrap_err().contains("between 1 and"));
        CallLimits::default().check().unwrap();
        RequestLimits::default().check().unwrap();
        assert!(RequestLimits::default().served(0, 1).check().unwrap_err().contains("max_served"));
        assert!(RequestLimits::default().asked(0, 1).check().unwrap_err().contains("max_asked"));
    }
}
