//! What must hold of a lookup after every event (dht.md D.3, 3 and 4).

use super::{Candidate, Lookup};
use crate::RequestId;

impl Lookup {
    /// Requests under way, suspected ones included.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = RequestId> {
        self.candidates.iter().filter(|candidate| candidate.is_pending()).filter_map(|one| one.request)
    }

    /// What must hold at any time; the first thing that doesn't.
    pub(crate) fn check(&self) -> Result<(), String> {
        let counts = &self.counts;
        let pending = self.candidates.iter().filter(|candidate| candidate.is_pending()).count() as u32;
        if counts.asked != counts.answered + counts.failed + counts.cancelled + pending {
            return Err(format!("{counts:?} with {pending} under way"));
        }
        if counts.asked as usize > self.config.max_requests {
            return Err(format!("{} requests, at most {}", counts.asked, self.config.max_requests));
        }
        let asked = self.in_flight();
        if asked > self.widest() {
            return Err(format!("{asked} requests in flight, at most {}", self.widest()));
        }
        if self.under_way().count() as u32 != pending {
            return Err("a candidate waits for a request that has no name".into());
        }
        self.check_candidates()
    }

    /// They stand in order, and each is asked once: but for its further pages, and for the peer that is looked for, which is asked again where others say that it is.
    fn check_candidates(&self) -> Result<(), String> {
        if self.candidates.len() > self.config.max_candidates {
            return Err(format!(
                "{} candidates, at most {}",
                self.candidates.len(),
                self.config.max_candidates
            ));
        }
        let pairs = || self.candidates.iter().zip(self.candidates.iter().skip(1));
        if pairs().any(|(one, next)| one.distance > next.distance) {
            return Err("candidates are out of order".into());
        }
        if pairs().any(|(one, next)| one.distance == next.distance) {
            return Err("a peer is a candidate twice".into());
        }
        let allowed = |one: &Candidate| u32::from(one.pages) + u32::from(one.chances) + 1;
        match self.candidates.iter().find(|one| u32::from(one.asks) > allowed(one)) {
            Some(one) => {
                let (peer, asks) = (one.contact.peer(), one.asks);
                Err(format!("{peer} was asked {asks} times in one lookup, at most {}", allowed(one)))
            }
            None => Ok(()),
        }
    }
}
