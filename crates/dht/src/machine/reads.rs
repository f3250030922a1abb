//! What callers have read here: a later read never gives back an older version than an earlier one did, whichever holders answer. It is no cache: a value of which
//! nobody has anything any more is not found, whatever was read before.

use std::num::NonZeroUsize;

use bytes::Bytes;
use lru::LruCache;
use peerage_machine::Now;

use super::Dht;
use crate::lookup::{Goal, Harvest, Voter};
use crate::{Judged, Key, LookupConfig, Target};

/// The newest versions that were read, of so many values and bytes; the one that was read longest ago is forgotten first.
pub(super) struct Reads {
    /// `None` where nothing is to be remembered.
    known: Option<LruCache<Key, Read>>,
    bytes: usize,
    most_bytes: usize,
}

/// Bytes of its own: parts of an answer would keep all of it.
struct Read {
    worth: Judged,
    value: Bytes,
}

impl Read {
    fn new(worth: &Judged, value: &Bytes) -> Self {
        let [slot, rank, value] = [&worth.slot, &worth.rank, value].map(|part| Bytes::copy_from_slice(part));
        Self { worth: Judged { slot, rank, is_final: worth.is_final }, value }
    }

    fn bytes(&self) -> usize {
        self.worth.slot.len() + self.worth.rank.len() + self.value.len()
    }
}

impl Reads {
    pub(super) fn new(limits: &LookupConfig) -> Self {
        // The map grows as it is filled: what may be set to a million takes no room before.
        let known = NonZeroUsize::new(limits.remembered_reads).map(|most| {
            let mut known = LruCache::unbounded();
            known.resize(most);
            known
        });
        Self { known, bytes: 0, most_bytes: limits.remembered_read_bytes }
    }

    /// A value that was read: it takes the place of what was read under its key before, unless that is newer. One that takes more than all the room is not remembered.
    fn note(&mut self, key: &Key, worth: &Judged, value: &Bytes) {
        let Some(known) = self.known.as_mut() else { return };
        if known
            .peek(key)
            .is_some_and(|before| before.worth.slot == worth.slot && before.worth.rank > worth.rank)
        {
            return;
        }
        let read = Read::new(worth, value);
        if read.bytes() > self.most_bytes {
            self.bytes -= known.pop(key).map_or(0, |before| before.bytes());
            return;
        }
        self.bytes += read.bytes();
        self.bytes -= known.push(*key, read).map_or(0, |(_, before)| before.bytes());
        while self.bytes > self.most_bytes {
            let Some((_, oldest)) = known.pop_lru() else { return };
            self.bytes -= oldest.bytes();
        }
    }

    /// What was read under this key, if it is newer than what was found now.
    fn newer(&mut self, key: &Key, harvest: &Harvest) -> Option<(Judged, Bytes)> {
        let read = self.known.as_mut()?.get(key)?;
        harvest.has_older(&read.worth).then(|| (read.worth.clone(), read.value.clone()))
    }
}

impl Dht {
    /// A read of one value ends with this: where it was read before, and newer, that is what it ends with; and what it ends with is remembered. What was read before and has expired
    /// leaves nothing, as it does at holders.
    pub(super) fn never_back(&mut self, now: Now, target: &Target, goal: &Goal, harvest: &mut Harvest) {
        if !matches!(goal, Goal::Value(_)) {
            return;
        }
        if let Some((worth, value)) = self.reads.newer(target.key(), harvest) {
            let us = (&self.peer, Voter::Peer(self.peer));
            harvest.values(now, &self.lookups, &*self.judge, target, us, &[value]);
            // It has expired: nothing older comes in its place.
            if harvest.has_older(&worth) {
                harvest.forget(&worth.slot);
            }
        }
        self.remember_read(target, goal, harvest);
    }

    /// Remembers what a read of one value ends with. Of what cannot change there is nothing to remember.
    pub(super) fn remember_read(&mut self, target: &Target, goal: &Goal, harvest: &Harvest) {
        if let (Goal::Value(_), Some((worth, value))) =
            (goal, harvest.best().filter(|(worth, _)| !worth.is_final))
        {
            self.reads.note(target.key(), &worth, value);
        }
    }
}
