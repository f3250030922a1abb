//! Limits and times of the store.

use std::time::Duration;

/// What a node keeps for others (dht.md B.4, B.5).
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Bytes of all records, with what is kept about each.
    pub max_bytes: usize,
    /// Records.
    pub max_records: usize,
    /// Bytes of one publisher's records.
    pub publisher_bytes: usize,
    /// Records of one publisher.
    pub publisher_records: usize,
    /// The share of `max_bytes` and of `max_records` that one namespace, or one kind of ours, may take.
    pub namespace_share: f64,
    /// Records under one key: the ads of a shard. Beyond it whoever has brought most of them gives way to who has brought fewer.
    pub key_records: usize,
    /// Records that one peer may send at once.
    pub put_burst: f64,
    /// Records that one peer may send in a second, in the long run.
    pub puts_per_second: f64,
    /// A subnet (/24, /48) may send so many times what one peer may. Loopback is exempt.
    pub subnet_factor: f64,
    /// Signatures that are checked for one peer in a second, and at once: records that come by repair included.
    pub checks_per_second: f64,
    /// Peers, and as many subnets, whose rates are remembered; while all of them are busy, further ones are told so.
    pub max_senders: usize,
    /// Records that are gone and of which it is remembered how new they were.
    pub max_marks: usize,
    /// Provider records in all; beyond it those of the furthest key go.
    pub max_providers: usize,
    /// Providers of one key. Beyond it the subnet that has most of them gives way to one that has fewer.
    pub providers_per_key: usize,
    /// Keys that one peer provides.
    pub providers_per_peer: usize,
    /// How long a provider record is kept.
    pub provider_ttl: Duration,
    /// How long a change may wait before it is handed out to be written.
    pub write_after: Duration,
    /// So many changes are handed out at once, and at the latest when there are so many.
    pub write_batch: usize,
    /// How often what was written is to be made durable.
    pub sync_every: Duration,
    /// Changes that may wait for the disk; beyond that others are told that we are busy.
    pub max_unwritten: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            max_bytes: 32 * 1024 * 1024,
            max_records: 20_000,
            publisher_bytes: 64 * 1024,
            publisher_records: 256,
            namespace_share: 0.6,
            key_records: 1024,
            put_burst: 50.0,
            puts_per_second: 20.0,
            subnet_factor: 10.0,
            checks_per_second: 200.0,
            max_senders: 4096,
            max_marks: 40_000,
            max_providers: 20_000,
            providers_per_key: 64,
            providers_per_peer: 1024,
            provider_ttl: Duration::from_secs(48 * 3600),
            write_after: Duration::from_millis(50),
            write_batch: 256,
            sync_every: Duration::from_secs(2),
            max_unwritten: 4096,
        }
    }
}
