//! A peer that a lookup may ask, and how it stands with it (dht.md B.2).

use std::time::Duration;

use crate::{Contact, Distance, RequestId, Subnet};

/// How a candidate stands with a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not asked yet.
    New,
    /// Asked, and there is time to answer.
    InFlight,
    /// Asked, and overdue since then: others may be asked in its stead, and its answer is welcome still.
    Suspect(Duration),
    /// It answered.
    Answered,
    /// It answered, in a place too sparse to be where the closest are: the lookup goes on as if it were not there.
    Aside,
    /// It will not answer.
    Failed,
    /// It is asked only when nobody else is left: too many of its subnet stand before it, or we know it as unreachable.
    Barred,
}

/// A peer that a lookup may ask.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) contact: Contact,
    /// From the target.
    pub(crate) distance: Distance,
    pub(crate) state: State,
    /// It is asked although its subnet is crowded, or we know it as unreachable, as too few others are left.
    pub(crate) wanted: bool,
    /// The last request to it.
    pub(crate) request: Option<RequestId>,
    /// When it was asked.
    pub(crate) asked: Duration,
    /// When it becomes suspect.
    pub(crate) due: Duration,
    /// So many answers led to it.
    pub(crate) hops: u8,
    /// The disjoint path on which it lies.
    pub(crate) path: u8,
    /// Who named it first; `None` for those whom we knew ourselves.
    pub(crate) advisor: Option<Contact>,
    /// What is known of it beforehand.
    pub(crate) hint: Hint,
    /// It has been suspected, whatever became of it.
    pub(crate) was_suspect: bool,
    /// Pages of it that were asked for.
    pub(crate) pages: u16,
    /// So often it was asked.
    pub(crate) asks: u16,
    /// So often it was given a second chance: it is the one that is looked for, and others say that it is elsewhere.
    pub(crate) chances: u16,
    /// The last so many of its pages brought nothing that it had not said before.
    pub(crate) stale_pages: u16,
    /// The subnet in which it was met when it answered, whatever it says of its addresses.
    pub(crate) met: Option<Subnet>,
}

/// What a node knows of a candidate before it is asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hint {
    /// The smoothed round trip time.
    pub(crate) rtt: Option<Duration>,
    /// After so long its answer is overdue.
    pub(crate) patience: Option<Duration>,
    /// A connection to it stands.
    pub(crate) warm: bool,
    /// It answered us before, and how reliably: 0 to 1.
    pub(crate) success: Option<f32>,
    /// Our own table has it in quarantine.
    pub(crate) shunned: bool,
}

impl Candidate {
    /// Whether it counts among the closest that a lookup waits for: it may be alive, and isn't suspected.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.state, State::New | State::InFlight | State::Answered)
    }

    /// The same, or it was set aside.
    pub(crate) fn is_there(&self) -> bool {
        self.counts() || self.state == State::Aside
    }

    /// Whether it answered.
    pub(crate) fn has_answered(&self) -> bool {
        matches!(self.state, State::Answered | State::Aside)
    }

    /// The subnets in which it is, or says that it is.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = Subnet> {
        self.met.into_iter().chain(self.contact.subnets())
    }

    /// Whether a request to it is under way, suspected or not.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, State::InFlight | State::Suspect(_))
    }

    /// The chance of a useful answer per second of waiting, for a choice among equals.
    pub(crate) fn promise(&self, usual: Duration, cold_round_trips: f64) -> f64 {
        let alive = f64::from(self.hint.success.unwrap_or(0.85).max(0.05));
        let rtt = self.hint.rtt.unwrap_or(usual).as_secs_f64().max(0.001);
        alive / if self.hint.warm { rtt } else { rtt * (1.0 + cold_round_trips) }
    }
}
