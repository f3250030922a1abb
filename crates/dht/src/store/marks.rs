//! How new records were that are gone, so that nothing older takes their place.

use std::collections::{BTreeMap, BTreeSet};

use super::origin::Origin;
use crate::record::{EntryId, Version};

/// How new a record was that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) version: Version,
    /// Until when anything older may be about, in seconds since 1970.
    pub(super) until: u64,
    /// Who had brought the record.
    pub(super) origin: Origin,
}

/// A bounded number of them. Where there are too many, one of whoever has brought most of them goes, the one whose time is over first: records of a second's life cost their sender
/// nothing, and are not to drive out what is remembered of others'.
#[derive(Debug, Default)]
pub(super) struct Marks {
    by_id: BTreeMap<EntryId, Mark>,
    expiry: BTreeSet<(u64, EntryId)>,
    by_origin: BTreeMap<Origin, BTreeSet<(u64, EntryId)>>,
    /// How many each has.
    shares: BTreeSet<(usize, Origin)>,
}

impl Marks {
    /// Notes one. Where there are more than `most` then, the one that has gone for it.
    pub(super) fn insert(&mut self, id: EntryId, mark: Mark, most: usize) -> Option<EntryId> {
        self.remove(&id);
        self.by_id.insert(id, mark);
        self.expiry.insert((mark.until, id));
        self.change(mark.origin, |marks| marks.insert((mark.until, id)));
        if self.by_id.len() <= most {
            return None;
        }
        let (_, origin) = self.shares.last()?;
        let (_, first) = *self.by_origin.get(origin)?.first()?;
        self.remove(&first);
        Some(first)
    }

    /// Forgets one. Says whether it was there.
    pub(super) fn remove(&mut self, id: &EntryId) -> bool {
        let Some(mark) = self.by_id.remove(id) else { return false };
        self.expiry.remove(&(mark.until, *id));
        self.change(mark.origin, |marks| marks.remove(&(mark.until, *id)));
        true
    }

    fn change(&mut self, origin: Origin, change: impl FnOnce(&mut BTreeSet<(u64, EntryId)>) -> bool) {
        let marks = self.by_origin.entry(origin).or_default();
        self.shares.remove(&(marks.len(), origin));
        change(marks);
        match marks.len() {
            0 => drop(self.by_origin.remove(&origin)),
            count => drop(self.shares.insert((count, origin))),
        }
    }

    /// Takes one out whose time is over.
    pub(super) fn pop_expired(&mut self, unix: u64) -> Option<EntryId> {
        let (_, id) = *self.expiry.first().filter(|(until, _)| *until <= unix)?;
        self.remove(&id);
        Some(id)
    }

    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.expiry.first().map(|(until, _)| *until)
    }

    pub(super) fn get(&self, id: &EntryId) -> Option<&Mark> {
        self.by_id.get(id)
    }

    pub(super) fn len(&self) -> usize {
        let of_all: usize = self.by_origin.values().map(BTreeSet::len).sum();
        let shared: usize = self.shares.iter().map(|(count, _)| count).sum();
        let counts = [self.expiry.len(), of_all, shared];
        assert!(counts.iter().all(|count| *count == self.by_id.len()), "{counts:?}");
        self.by_id.len()
    }
}
