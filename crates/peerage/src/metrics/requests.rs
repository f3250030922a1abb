//! What became of requests, over all protocols and peers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use peerage_identity::PeerId;

use super::{Metric, MetricKind, Sample};
use crate::request::{RequestError, ServeError};
use crate::shared::Shared;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Cancelled,
    Deadline,
    Overloaded,
    TooLarge,
    Malformed,
    Lost,
    Failed,
    Denied,
    Application,
    NotConnected,
    NotSupported,
    Refused,
    Busy,
    NoMemory,
}

const OUTCOMES: usize = Outcome::NoMemory as usize + 1;

impl Outcome {
    /// How one that was served can end. `Cancelled`: its caller gave up. `Lost`: it could not be read, or its answer not be sent.
    const SERVED: &[Self] = &[
        Self::Answered,
        Self::Cancelled,
        Self::Deadline,
        Self::Overloaded,
        Self::TooLarge,
        Self::Malformed,
        Self::Lost,
        Self::Failed,
        Self::Denied,
        Self::Application,
    ];
    /// How one that was asked can end. `Refused`: the peer answered with an error of another number. `Busy`: too many waited here.
    const ASKED: &[Self] = &[
        Self::Answered,
        Self::Cancelled,
        Self::Deadline,
        Self::Overloaded,
        Self::TooLarge,
        Self::Malformed,
        Self::Lost,
        Self::NotConnected,
        Self::NotSupported,
        Self::Refused,
        Self::Busy,
        Self::NoMemory,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
            Self::Overloaded => "overloaded",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Application => "application",
            Self::NotConnected => "not_connected",
            Self::NotSupported => "not_supported",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::NoMemory => "no_memory",
        }
    }

    /// Of a request that was served with this error.
    pub(crate) fn of_answer(error: &ServeError) -> Self {
        match error.code {
            ServeError::MALFORMED => Self::Malformed,
            ServeError::OVERLOADED => Self::Overloaded,
            ServeError::DEADLINE => Self::Deadline,
            ServeError::TOO_LARGE => Self::TooLarge,
            ServeError::DENIED => Self::Denied,
            code if code >= ServeError::FIRST_APPLICATION_CODE => Self::Application,
            _ => Self::Failed,
        }
    }

    /// Of a request that was asked and failed so.
    pub(crate) fn of_failure(error: &RequestError) -> Self {
        match error {
            RequestError::NotConnected { .. } => Self::NotConnected,
            RequestError::NotSupported { .. } => Self::NotSupported,
            RequestError::Deadline { .. } => Self::Deadline,
            RequestError::Overloaded { .. } => Self::Overloaded,
            RequestError::Refused { .. } => Self::Refused,
            RequestError::Busy { .. } => Self::Busy,
            RequestError::NoMemory { .. } => Self::NoMemory,
            RequestError::TooLarge { .. } => Self::TooLarge,
            RequestError::Malformed { .. } => Self::Malformed,
            RequestError::Lost { .. } => Self::Lost,
        }
    }
}

/// Who asked.
#[derive(Debug, Clone, Copy)]
enum Side {
    /// A peer.
    Served,
    /// This node.
    Asked,
}

/// The node's counts of both sides.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts {
    sides: [SideCounts; 2],
}

#[derive(Debug, Default)]
struct SideCounts {
    running: AtomicU64,
    ended: [AtomicU64; OUTCOMES],
}

impl RequestCounts {
    /// A peer's request begins.
    pub(crate) fn served(self: &Arc<Self>) -> Counting {
        Counting::begin(self.clone(), Side::Served)
    }

    /// A request of this node begins.
    pub(crate) fn asked(self: &Arc<Self>) -> Counting {
        Counting::begin(self.clone(), Side::Asked)
    }

    /// A request that did not begin, for want of a connection.
    pub(crate) fn not_connected(&self, peer: PeerId) -> RequestError {
        let ended = &self.sides[Side::Asked as usize].ended[Outcome::NotConnected as usize];
        ended.fetch_add(1, Ordering::Relaxed);
        RequestError::NotConnected { peer }
    }
}

/// A request that is under way, until it is dropped. One that is dropped with nothing said was cancelled.
#[derive(Debug)]
pub(crate) struct Counting {
    counts: Arc<RequestCounts>,
    side: Side,
    outcome: Outcome,
}

impl Counting {
    fn begin(counts: Arc<RequestCounts>, side: Side) -> Self {
        counts.sides[side as usize].running.fetch_add(1, Ordering::Relaxed);
        Self { counts, side, outcome: Outcome::Cancelled }
    }

    /// Says how it ended.
    pub(crate) fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let side = &self.counts.sides[self.side as usize];
        side.running.fetch_sub(1, Ordering::Relaxed);
        side.ended[self.outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The metrics of requests.
pub(super) fn metrics(shared: &Shared) -> [Metric; 3] {
    let sides = [(Side::Served, "served", Outcome::SERVED), (Side::Asked, "asked", Outcome::ASKED)];
    let counts = |side: Side| &shared.requests.sides[side as usize];
    let ended = sides.iter().flat_map(|(side, name, outcomes)| {
        outcomes.iter().map(move |outcome| Sample {
            labels: vec![("side", (*name).to_owned()), ("outcome", outcome.name().to_owned())],
            value: counts(*side).ended[*outcome as usize].load(Ordering::Relaxed) as f64,
        })
    });
    let gauge = |name, help, value: &dyn Fn(Side) -> f64| Metric {
        name,
        help,
        kind: MetricKind::Gauge,
        samples: sides
            .iter()
            .map(|(side, name, _)| Sample { labels: vec![("side", (*name).to_owned())], value: value(*side) })
            .collect(),
    };
    let asked_waiting = || {
        let of_peers: usize = shared
            .connected()
            .iter()
            .filter_map(|peer| peer.if_asked())
            .map(|asked| asked.calls.waiting())
            .sum();
        of_peers + shared.calls.waiting()
    };
    let waiting = |side| match side {
        Side::Served => shared.registry.requests_waiting() + shared.serving.waiting(),
        Side::Asked => asked_waiting(),
    };
    [
        Metric {
            name: "peerage_requests",
            help: "Requests that have ended, by who asked and how they ended",
            kind: MetricKind::Counter,
            samples: ended.collect(),
        },
        gauge("peerage_requests_in_progress", "Requests under way, those that wait included", &|side| {
            counts(side).running.load(Ordering::Relaxed) as f64
        }),
        gauge("peerage_requests_waiting", "Requests that wait for a place", &|side| waiting(side) as f64),
    ]
}
