//! What must hold of the store after every event (dht.md D.3, 5 and 12).

use std::collections::BTreeSet;

use super::entry::Entry;
use super::{Store, Usage};

impl Store {
    /// That its counters are the sums of what is there, and within their bounds; the first thing that isn't so.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let (config, used) = (&self.config, self.used);
        let bytes: usize = self.entries.values().map(Entry::bytes).sum();
        if used != (Usage { bytes, records: self.entries.len() }) {
            return Err(format!("{used:?} counted, {} records of {bytes} bytes there", self.entries.len()));
        }
        if bytes > config.max_bytes || used.records > config.max_records {
            return Err(format!("{used:?} kept, more than may be"));
        }
        let indexed = (self.by_id.len(), self.expiry.len());
        if indexed != (used.records, used.records) {
            return Err(format!("{indexed:?} records in the indexes, {} there", used.records));
        }
        let keys: BTreeSet<_> = self.entries.keys().map(|(distance, _)| *distance).collect();
        if keys.len() != self.keys.len() {
            return Err(format!("{} keys in the indexes, {} there", self.keys.len(), keys.len()));
        }
        self.check_shares()?;
        if self.marks.len() > config.max_marks || self.providers.len() > config.max_providers {
            return Err(format!("{} marks and {} providers kept", self.marks.len(), self.providers.len()));
        }
        Ok(())
    }

    /// What each kind and each publisher has is counted there, and within its share.
    fn check_shares(&self) -> Result<(), String> {
        let bytes = self.used.bytes;
        let of_kinds: usize = self.namespaces.iter().map(|usage| usage.bytes).sum();
        let published = self.entries.values().filter(|entry| entry.publisher().is_some());
        let published: usize = published.map(Entry::bytes).sum();
        let of_publishers: usize = self.publishers.values().map(|usage| usage.bytes).sum();
        if (of_kinds, of_publishers) != (bytes, published) {
            let there = (bytes, published);
            return Err(format!(
                "{of_kinds} bytes of kinds and {of_publishers} of publishers, not {there:?}"
            ));
        }
        let config = &self.config;
        let most =
            |usage: &&Usage| usage.bytes > config.publisher_bytes || usage.records > config.publisher_records;
        match self.publishers.values().find(most) {
            Some(usage) => Err(format!("a publisher has {usage:?}, more than it may")),
            None => Ok(()),
        }
    }

    /// That no sender owes more than it may.
    pub(crate) fn check_rates(&self) -> Result<(), String> {
        self.rates.check()
    }
}
