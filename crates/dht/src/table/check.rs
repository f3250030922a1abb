//! What must hold of the table after every event.

use super::{Bucket, Table};
use crate::Key;

impl Table {
    /// Checks that the table is what it should be; the first thing that isn't.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut keys: Vec<Key> = self.entries().map(|entry| *entry.contact.key()).collect();
        let entries = keys.len();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() != entries {
            return Err("a peer stands in the table twice".into());
        }
        if keys.contains(&self.own) {
            return Err("we stand in our own table".into());
        }
        let waiting: usize = self.buckets.iter().map(|bucket| bucket.waiting.len()).sum();
        if waiting > self.config.replacements_per_table {
            return Err(format!("{waiting} peers wait"));
        }
        for (index, bucket) in self.buckets.iter().enumerate() {
            if bucket.entries.iter().any(|entry| self.index(entry.contact.key()) != index) {
                return Err(format!("a peer stands in the wrong bucket {index}"));
            }
            if bucket.entries.len() > self.capacity(index) || bucket.waiting.len() > self.config.replacements
            {
                return Err(format!("bucket {index} is over its limit"));
            }
        }
        self.check_waiting()?;
        self.check_subnets()
    }

    /// Who waits does so once, in its own bucket, and has no place yet.
    fn check_waiting(&self) -> Result<(), String> {
        for (index, bucket) in self.buckets.iter().enumerate() {
            for (at, waiting) in bucket.waiting.iter().enumerate() {
                let key = waiting.contact.key();
                if bucket.waiting[..at].iter().any(|other| other.contact.key() == key) {
                    return Err(format!("a peer waits twice in bucket {index}"));
                }
                if key == &self.own || self.get(key).is_some() {
                    return Err(format!("we wait, or somebody who stands in the table, in bucket {index}"));
                }
                if self.index(key) != index {
                    return Err(format!("a peer waits in the wrong bucket {index}"));
                }
            }
        }
        Ok(())
    }

    fn check_subnets(&self) -> Result<(), String> {
        let of = |(index, bucket): (usize, &Bucket)| {
            let subnets = bucket.entries.iter().filter_map(|entry| entry.subnet);
            subnets.map(move |subnet| (subnet, index)).collect::<Vec<_>>()
        };
        let mut subnets: Vec<_> = self.buckets.iter().enumerate().flat_map(of).collect();
        subnets.sort_unstable();
        let here = subnets.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or_default();
        let everywhere = subnets.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).max().unwrap_or_default();
        match here > self.config.subnet_per_bucket || everywhere > self.config.subnet_per_table {
            true => Err(format!("{here} peers of one subnet in a bucket, {everywhere} in the table")),
            false => Ok(()),
        }
    }
}
