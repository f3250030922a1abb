//! How an operation of the DHT went.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use peerage_dht::store::Equivocation;
use peerage_dht::{Contact, Counts, Ended, NotStored, Outcome};
use peerage_identity::PeerId;
use tokio::sync::mpsc;

/// How an operation went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DhtReport {
    /// Why it ended.
    pub ended: Ended,
    /// So many answers stand before the result, one after another.
    pub hops: u32,
    /// From the start to the end.
    pub took: Duration,
    /// How often what happened.
    pub counts: Counts,
    /// Whether the neighbourhood of the target looks too dense to be honest.
    pub dense: bool,
    /// Who has stored it by now.
    pub stored: Vec<PeerId>,
    /// Who was asked to store it and has not, and why.
    pub not_stored: Vec<(PeerId, NotStored)>,
    /// Copies are still on their way: [`DhtCall::settled`](super::DhtCall::settled) tells the final counts.
    pub unsettled: bool,
    /// The node looks after what was published or provided: it tells further nodes while too few have it. See [`Dht::published`](super::Dht::published).
    pub looked_after: bool,
    /// So many nodes, this one among them where it holds it, had the value that is returned; zero where none was looked for. [`Ended::Found`] says that the quorum was
    /// met, for which nodes of one network count as one.
    pub holders: usize,
    /// The publisher of what was read has said two things at once, and here is the proof: both records, signed by it. What of them it meant nobody knows.
    pub equivocation: Option<Box<Equivocation>>,
}

impl DhtReport {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let Outcome { ended, hops, took, counts, dense, unsettled, looked_after, .. } = *outcome;
        let peer = |contact: &Contact| *contact.peer();
        Self {
            ended,
            hops,
            took,
            counts,
            dense,
            stored: outcome.stored.iter().map(peer).collect(),
            not_stored: outcome.not_stored.iter().map(|(contact, why)| (peer(contact), *why)).collect(),
            unsettled,
            looked_after,
            holders: 0,
            equivocation: outcome.equivocation.clone(),
        }
    }

    /// How a lookup of one value went, so many of whose answers had it.
    pub(super) fn of_value(outcome: &Outcome) -> Self {
        let holders = outcome.values.first().map_or(0, |found| found.holders);
        Self { holders, ..Self::of(outcome) }
    }

    /// Takes in what came of another operation for the same: it may have ended before all was seen, and then so has the whole.
    pub(super) fn add(&mut self, other: &Self) {
        let whole = |ended| matches!(ended, Ended::Complete | Ended::Found);
        if whole(self.ended) {
            self.ended = other.ended;
        }
        self.hops = self.hops.max(other.hops);
        self.counts += other.counts;
        self.dense |= other.dense;
        if self.equivocation.is_none() {
            self.equivocation.clone_from(&other.equivocation);
        }
    }

    /// Why copies were not stored, and how many for each reason, the most first.
    pub fn reasons(&self) -> Vec<(NotStored, usize)> {
        let mut reasons: BTreeMap<NotStored, usize> = BTreeMap::new();
        for (_, why) in &self.not_stored {
            *reasons.entry(*why).or_default() += 1;
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }
}

impl fmt::Display for DhtReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { asked, answered, failed, cancelled, suspected, late, stored, refused, .. } = self.counts;
        write!(f, "{asked} asked, {answered} answered, {failed} failed, {cancelled} cancelled")?;
        let further =
            [(suspected, "suspected"), (late, "late"), (stored, "stored"), (refused, "refused to store")];
        for (count, word) in further.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {word}")?;
        }
        for (number, (why, count)) in self.reasons().into_iter().enumerate() {
            f.write_str(if number == 0 { " (" } else { ", " })?;
            write!(f, "{count} {why}")?;
        }
        if !self.not_stored.is_empty() {
            f.write_str(")")?;
        }
        write!(f, ", in {} ms", self.took.as_millis())?;
        if self.equivocation.is_some() {
            f.write_str(" (its publisher has said two things at once)")?;
        }
        match self.ended {
            Ended::Deadline => f.write_str(" (the time was up)"),
            Ended::Cancelled => f.write_str(" (cancelled)"),
            Ended::Exhausted => f.write_str(" (as many were asked as one lookup may ask)"),
            Ended::TooMany => f.write_str(" (too many operations were under way to look everywhere)"),
            Ended::NoContacts => f.write_str(" (nobody was known any more before all was seen)"),
            _ => Ok(()),
        }
    }
}

/// The end of a store that returns as soon as enough nodes have stored: [`DhtCall::settled`](super::DhtCall::settled). It may be dropped.
#[derive(Debug)]
pub struct Settled(pub(super) mpsc::Receiver<Outcome>);

impl Settled {
    /// Waits for the last copy and gives the final counts; `None` when the call failed before anybody was asked, or the node has been shut down. Cancel-safe.
    pub async fn report(&mut self) -> Option<DhtReport> {
        self.0.recv().await.as_ref().map(DhtReport::of)
    }
}

#[cfg(test)]
mod tests {
    use peerage_dht::{Failure, Refusal};

    use super::*;

    #[test]
    fn a_report_says_why_copies_were_not_stored_and_who_was_slow() {
        let peer = crate::NodeKey::from_seed([1; 32]).peer_id();
        let contact = Contact::new(peer, &[]);
        let whys = [
            NotStored::Busy,
            NotStored::Refused(Refusal::TooFar),
            NotStored::Refused(Refusal::TooFar),
            NotStored::Failed(Failure::Timeout),
        ];
        let outcome = Outcome {
            not_stored: whys.iter().map(|why| (contact.clone(), *why)).collect(),
            stored: vec![contact],
            counts: Counts {
                asked: 9,
                answered: 8,
                failed: 1,
                suspected: 2,
                late: 1,
                stored: 1,
                refused: 3,
                ..Counts::default()
            },
            ..Outcome::empty(Ended::TooFewStored)
        };
        let report = DhtReport::of(&outcome);
        assert_eq!((report.stored.len(), report.not_stored.len()), (1, 4));
        assert_eq!(
            report.to_string(),
            "9 asked, 8 answered, 1 failed, 0 cancelled, 2 suspected, 1 late, 1 stored, 3 refused to store \
             (2 refused: too far, 1 busy, 1 silent), in 0 ms"
        );
        for (ended, why) in [
            (Ended::Deadline, "time was up"),
            (Ended::Cancelled, "cancelled)"),
            (Ended::Exhausted, "may ask"),
            (Ended::TooMany, "too many operations"),
            (Ended::NoContacts, "nobody was known"),
        ] {
            let partial = DhtReport::of(&Outcome::empty(ended)).to_string();
            assert!(partial.contains(why), "{partial}");
        }
    }
}
