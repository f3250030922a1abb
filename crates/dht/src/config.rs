//! The DHT's limits and times, each with its default.

use std::time::Duration;

use crate::Class;

/// What a node of the DHT may do.
#[derive(Debug, Clone, Default)]
pub struct DhtConfig {
    /// The routing table.
    pub table: TableConfig,
    /// Lookups and stores.
    pub lookup: LookupConfig,
    /// What others may ask of us.
    pub serve: ServeConfig,
    /// Joining and staying in the network.
    pub upkeep: UpkeepConfig,
}

/// Limits and times of the routing table (dht.md B.1).
#[derive(Debug, Clone)]
pub struct TableConfig {
    /// Entries of a bucket; also how many peers an answer names, and how many count as the closest.
    pub k: usize,
    /// The nearest peers that are kept whatever their buckets hold: the sibling set.
    pub siblings: usize,
    /// Peers that wait for a place in a bucket.
    pub replacements: usize,
    /// Entries of one subnet (/24, /48) in a bucket. Loopback is exempt.
    pub subnet_per_bucket: usize,
    /// Entries of one subnet in the table. Loopback is exempt.
    pub subnet_per_table: usize,
    /// Peers that wait for a place in any bucket of the table: it bounds the memory that hearsay takes.
    pub replacements_per_table: usize,
    /// A peer that has stood in the table for so long, and answers, gives its place to no newcomer.
    pub settled_after: Duration,
    /// A peer is probed when it is dead with this probability, by what is known of sessions.
    pub probe_when_dead: f64,
    /// The shape of the Weibull distribution of sessions: below 1, so that old peers are likely to stay.
    pub lifetime_shape: f64,
    /// Its scale, which what the node sees corrects.
    pub lifetime_scale: Duration,
    /// The first quarantine of a peer that failed twice in a row; each further one in a row doubles it.
    pub quarantine_first: Duration,
    /// No quarantine is longer.
    pub quarantine_most: Duration,
    /// Long-lived peers of distinct networks that are kept over a restart.
    pub anchors: usize,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            k: 20,
            siblings: 32,
            replacements: 16,
            subnet_per_bucket: 2,
            subnet_per_table: 3,
            replacements_per_table: 48,
            settled_after: Duration::from_secs(600),
            probe_when_dead: 0.1,
            lifetime_shape: 0.61,
            lifetime_scale: Duration::from_secs(13_176),
            quarantine_first: Duration::from_secs(10),
            quarantine_most: Duration::from_secs(3600),
            anchors: 8,
        }
    }
}

/// Limits and times of lookups (dht.md B.2).
#[derive(Debug, Clone)]
pub struct LookupConfig {
    /// The most requests that a lookup may have in flight, suspects not counted, whatever its class and options say: 3 to 16.
    pub alpha: usize,
    /// Operations under way at once; further ones end at once with [`crate::Ended::TooMany`].
    pub max_operations: usize,
    /// How long an interactive operation may take.
    pub interactive_deadline: Duration,
    /// How long any other operation may take.
    pub background_deadline: Duration,
}

impl LookupConfig {
    /// How long an operation of a class may take unless its caller says otherwise.
    pub fn deadline(&self, class: Class) -> Duration {
        match class {
            Class::Interactive => self.interactive_deadline,
            Class::Normal | Class::Frugal => self.background_deadline,
        }
    }
}

impl Default for LookupConfig {
    fn default() -> Self {
        Self {
            alpha: 16,
            max_operations: 256,
            interactive_deadline: Duration::from_secs(10),
            background_deadline: Duration::from_secs(30),
        }
    }
}

/// What others may ask of us.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Bytes of an answer, at most; below [`crate::MAX_ANSWER_BYTES`].
    pub max_answer_bytes: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self { max_answer_bytes: 15 * 1024 }
    }
}

/// Joining and staying in the network.
#[derive(Debug, Clone)]
pub struct UpkeepConfig {
    /// How often a place at random is looked up: it refreshes the table and measures the size of the network.
    pub refresh_every: Duration,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        Self { refresh_every: Duration::from_secs(600) }
    }
}
