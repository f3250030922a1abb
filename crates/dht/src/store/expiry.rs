//! When records go, by kind: what of a kind expires soonest is known without a search.

use std::collections::BTreeSet;

use super::NAMESPACES;
use crate::record::EntryId;

/// Times of expiry with their records, for each namespace.
#[derive(Debug, Default)]
pub(super) struct Expiry([BTreeSet<(u64, EntryId)>; NAMESPACES]);

impl Expiry {
    pub(super) fn insert(&mut self, namespace: usize, at: u64, id: EntryId) {
        if let Some(times) = self.0.get_mut(namespace) {
            times.insert((at, id));
        }
    }

    pub(super) fn remove(&mut self, namespace: usize, at: u64, id: EntryId) {
        if let Some(times) = self.0.get_mut(namespace) {
            times.remove(&(at, id));
        }
    }

    /// The first of all.
    pub(super) fn first(&self) -> Option<(u64, EntryId)> {
        self.0.iter().filter_map(BTreeSet::first).min().copied()
    }

    /// Takes the first of all out.
    pub(super) fn pop_first(&mut self) -> Option<(u64, EntryId)> {
        let first =
            self.0.iter_mut().filter(|times| !times.is_empty()).min_by_key(|times| times.first().copied())?;
        first.pop_first()
    }

    /// Those of a namespace that expire first, together.
    pub(super) fn soonest(&self, namespace: usize) -> impl Iterator<Item = &EntryId> {
        let times = self.0.get(namespace);
        let first = times.and_then(BTreeSet::first).map_or(0, |(at, _)| *at);
        times.into_iter().flatten().take_while(move |(at, _)| *at == first).map(|(_, id)| id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(BTreeSet::len).sum()
    }
}
