//! Token buckets by prefix, in bounded memory.

use std::collections::HashMap;
use std::mem;

use peerage_identity::IpPrefix;
use peerage_machine::{Now, TokenBucket};

use super::Rate;

/// The rates of many prefixes.
///
/// Two generations: what is spent from is young. When the young ones fill half the table, they become the old ones, and what was not spent from for that
/// long is forgotten. No step looks through the table, so no sender can make a step dear.
#[derive(Debug)]
pub(super) struct RateTable {
    rate: Rate,
    max_young: usize,
    young: HashMap<IpPrefix, TokenBucket>,
    old: HashMap<IpPrefix, TokenBucket>,
}

impl RateTable {
    /// A table of at most `max` entries, at least two.
    pub(super) fn new(rate: Rate, max: usize) -> Self {
        Self { rate, max_young: (max / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// Whether the prefix has one left. Looking makes no entry.
    pub(super) fn has(&mut self, prefix: IpPrefix, now: Now) -> bool {
        let bucket = self.young.get_mut(&prefix).or_else(|| self.old.get_mut(&prefix));
        match bucket {
            Some(bucket) => bucket.wait_for(1.0, now).is_some_and(|wait| wait.is_zero()),
            None => self.rate.burst >= 1,
        }
    }

    /// Takes one from the prefix's rate.
    pub(super) fn spend(&mut self, prefix: IpPrefix, now: Now) {
        let old = self.old.remove(&prefix);
        if !self.young.contains_key(&prefix) && self.young.len() >= self.max_young {
            self.old = mem::take(&mut self.young);
        }
        let bucket = self.young.entry(prefix).or_insert_with(|| old.unwrap_or_else(|| self.rate.bucket(now)));
        bucket.take(1.0, now);
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
