//! The gate of an endpoint: asks [`Admission`] about each arrival, gives the cheap answers, and counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use peerage_machine::Now;

use crate::admission::{Admission, AdmissionSettings, Arrival, Door, Verdict};

/// How inbound connections were answered so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AdmissionCounts {
    /// Let in, to begin a handshake.
    pub accepted: u64,
    /// Told to prove their address.
    pub retried: u64,
    /// Told that there is no place.
    pub refused: u64,
    /// Not answered.
    pub ignored: u64,
}

/// The gate. It is shared by all sockets of an endpoint.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<(Admission, AdmissionCounts)>,
    /// Handshakes in progress with unvalidated addresses, and with validated ones.
    in_progress: [Arc<AtomicUsize>; 2],
    start: Instant,
}

/// One handshake in progress.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Gate {
    pub(crate) fn new(settings: &AdmissionSettings, start: Instant) -> Self {
        let state = (Admission::new(settings, Now::ZERO), AdmissionCounts::default());
        Self { state: Mutex::new(state), in_progress: Default::default(), start }
    }

    /// Answers `quinn`, or gives it back with its place when it is accepted.
    pub(crate) fn pass(&self, quinn: quinn::Incoming, now: Instant) -> Option<(quinn::Incoming, Place)> {
        let validated = quinn.remote_address_validated();
        let in_progress = &self.in_progress[usize::from(validated)];
        let now = Now::ZERO.after(now.saturating_duration_since(self.start));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (admission, counts) = &mut *state;
        let verdict = admission.decide(
            now,
            Arrival {
                remote: quinn.remote_address(),
                validated,
                in_progress: in_progress.load(Ordering::Relaxed),
            },
        );
        match verdict {
            Verdict::Accept => {
                counts.accepted += 1;
                return Some((quinn, Place::take(in_progress)));
            }
            Verdict::Retry => {
                counts.retried += 1;
                drop(state);
                // An address that isn't validated may always be retried.
                let _ = quinn.retry();
            }
            Verdict::Refuse => {
                counts.refused += 1;
                drop(state);
                quinn.refuse();
            }
            Verdict::Ignore => {
                counts.ignored += 1;
                drop(state);
                quinn.ignore();
            }
        }
        None
    }

    pub(crate) fn set_door(&self, door: Door) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.set_door(door);
    }

    pub(crate) fn counts(&self) -> AdmissionCounts {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl Place {
    fn take(in_progress: &Arc<AtomicUsize>) -> Self {
        in_progress.fetch_add(1, Ordering::Relaxed);
        Self(in_progress.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
