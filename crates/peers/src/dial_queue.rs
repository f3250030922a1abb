//! Whom to dial, ordered by the time at which it is due. One entry per target.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerage_identity::{DialAddress, PeerId};

/// Something that can be dialled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A peer, at whichever of its addresses is best.
    Peer(PeerId),
    /// An address whose peer is not known yet.
    Address(DialAddress),
}

/// A queue of targets. A target stands in it once, at its latest due time.
#[derive(Debug, Default)]
pub(crate) struct DialQueue {
    by_time: BTreeSet<(Duration, Target)>,
    by_target: BTreeMap<Target, Duration>,
}

impl DialQueue {
    /// Puts `target` in, or moves it, to be dialled at `due`.
    pub(crate) fn set(&mut self, target: Target, due: Duration) {
        if let Some(old) = self.by_target.insert(target.clone(), due) {
            self.by_time.remove(&(old, target.clone()));
        }
        self.by_time.insert((due, target));
    }

    /// Takes `target` out.
    pub(crate) fn remove(&mut self, target: &Target) {
        if let Some(due) = self.by_target.remove(target) {
            self.by_time.remove(&(due, target.clone()));
        }
    }

    /// The target that has been due longest, if one is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Target> {
        let (due, _) = self.by_time.first()?;
        if *due > now {
            return None;
        }
        let (_, target) = self.by_time.pop_first()?;
        self.by_target.remove(&target);
        Some(target)
    }

    /// When the first target is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// How many targets it holds.
    pub(crate) fn len(&self) -> usize {
        self.by_target.len()
    }

    /// When `target` is due, if it is queued.
    pub(crate) fn due(&self, target: &Target) -> Option<Duration> {
        self.by_target.get(target).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(number: u8) -> Target {
        Target::Address(format!("/ip4/10.0.0.{number}/udp/1/quic-v1").parse().unwrap())
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_sorted_list_without_duplicates(
            steps in prop::collection::vec((0u8..6, 0u64..20, 0u8..4), 1..100)
        ) {
            let (mut queue, mut model) = (DialQueue::default(), BTreeMap::<u8, u64>::new());
            for (number, time, step) in steps {
                match step {
                    0 | 1 => {
                        queue.set(target(number), Duration::from_secs(time));
                        model.insert(number, time);
                    }
                    2 => {
                        queue.remove(&target(number));
                        model.remove(&number);
                    }
                    _ => {
                        let popped = queue.pop_due(Duration::from_secs(time));
                        let due = model.iter().map(|(n, t)| (*t, target(*n), *n)).min();
                        match due {
                            Some((t, expected, n)) if t <= time => {
                                prop_assert_eq!(popped, Some(expected));
                                model.remove(&n);
                            }
                            _ => prop_assert_eq!(popped, None),
                        }
                    }
                }
                prop_assert_eq!(queue.next_due(), model.values().min().map(|t| Duration::from_secs(*t)));
                prop_assert_eq!(queue.by_time.len(), queue.by_target.len());
            }
        }
    }
}
