//! What each limit may be: whatever a file or a flag says, a machine that starts can work.
//!
//! [`bounds`] is the one list; [`DhtConfig::validate`] and [`RecordsConfig::validate`] go by it.

use std::fmt::Debug;
use std::time::Duration;

use crate::record::{MAX_OVERHEAD, RecordsConfig};
use crate::{DhtConfig, LookupConfig, MAX_ANSWER_BYTES, MAX_CLOSER, MAX_VALUE_BYTES};

/// The bounds of one limit of `C`.
#[derive(Debug, Clone, Copy)]
pub struct Bound<C> {
    /// The limit: the path of its field.
    pub name: &'static str,
    check: fn(&C) -> Result<(), String>,
    least: fn(&mut C),
    most: fn(&mut C),
}

impl<C> Bound<C> {
    /// Sets the limit to the least that it may be.
    pub fn set_least(&self, config: &mut C) {
        (self.least)(config);
    }

    /// Sets the limit to the most that it may be.
    pub fn set_most(&self, config: &mut C) {
        (self.most)(config);
    }
}

/// Says whether a value lies between two others.
trait Within: Debug {
    fn is_within(&self, least: &Self, most: &Self) -> bool;

    /// The value as the user gives it.
    fn shown(&self) -> String {
        format!("{self:?}")
    }

    fn check(&self, name: &str, least: &Self, most: &Self) -> Result<(), String> {
        match self.is_within(least, most) {
            true => Ok(()),
            false => {
                let (value, least, most) = (self.shown(), least.shown(), most.shown());
                Err(format!("the limit {name} is {value}: give {least} to {most}"))
            }
        }
    }
}

macro_rules! ordered {
    ($($kind:ty)*) => {
        $(impl Within for $kind {
            fn is_within(&self, least: &Self, most: &Self) -> bool {
                // Not a number is never within.
                (least..=most).contains(&self)
            }
        })*
    };
}

ordered! { usize u32 f64 Duration }

impl Within for Option<Duration> {
    fn is_within(&self, least: &Self, most: &Self) -> bool {
        self.is_none() || (least..=most).contains(&self)
    }

    fn shown(&self) -> String {
        self.map_or("none".to_owned(), |value| value.shown())
    }
}

macro_rules! bounds {
    ($config:ty, $prefix:literal: $($first:ident $(. $rest:ident)*: $least:expr, $most:expr;)*) => {
        &[$(Bound {
            name: concat!($prefix, ".", stringify!($first) $(, ".", stringify!($rest))*),
            check: |config: &$config| {
                let name = concat!($prefix, ".", stringify!($first) $(, ".", stringify!($rest))*);
                Within::check(&config.$first $(.$rest)*, name, &$least, &$most)
            },
            least: |config| config.$first $(.$rest)* = $least,
            most: |config| config.$first $(.$rest)* = $most,
        }),*]
    };
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const DAY: Duration = secs(24 * 3600);
const YEAR: Duration = secs(365 * 24 * 3600);
/// A count that bounds memory is never larger.
const MANY: usize = 1 << 20;
/// Nothing happens more often in a second.
const OFTEN: f64 = 1e12;

const DHT: &[Bound<DhtConfig>] = bounds! { DhtConfig, "dht":
    table.k: 2, MAX_CLOSER;
    table.siblings: 1, 256;
    table.replacements: 0, 256;
    table.subnet_per_bucket: 1, MANY;
    table.subnet_per_table: 1, MANY;
    table.replacements_per_table: 0, 65_536;
    table.settled_after: Duration::ZERO, YEAR;
    table.probe_when_dead: 0.001, 1.0;
    table.lifetime_shape: 0.1, 10.0;
    table.lifetime_scale: secs(1), YEAR;
    table.quarantine_first: ms(100), DAY;
    table.quarantine_most: ms(100), YEAR;
    table.anchors: 0, 1024;
    lookup.alpha: LookupConfig::LEAST_ALPHA, LookupConfig::MOST_ALPHA;
    lookup.stagger_share: 0.0, 10.0;
    lookup.usual_rtt: ms(1), secs(10);
    lookup.stagger_least: Duration::ZERO, secs(10);
    lookup.stagger_most: Duration::ZERO, secs(10);
    lookup.stagger: Some(Duration::ZERO), Some(secs(10));
    lookup.soft_least: ms(1), secs(60);
    lookup.soft_most: ms(1), secs(60);
    lookup.cold_round_trips: 0.0, 10.0;
    lookup.soft_unknown: ms(1), secs(60);
    lookup.hard: ms(100), secs(300);
    lookup.overdue_grace: 0.0, 10.0;
    lookup.overdue_grace_frugal: 0.0, 10.0;
    lookup.spare: 0, 256;
    lookup.max_candidates: MAX_CLOSER, 65_536;
    lookup.max_requests: 1, 65_536;
    lookup.max_values: 1, MANY;
    lookup.max_value_bytes: MAX_VALUE_BYTES, 1 << 30;
    lookup.max_pages: 0, 65_535;
    lookup.max_stale_pages: 1, 65_535;
    lookup.subnet_per_lookup: 1, MANY;
    lookup.implausible: 0.0, 1.0;
    lookup.most_paths: 1, 16;
    lookup.crowded: 0.0, MAX_CLOSER as f64;
    lookup.dense: 0.0, MAX_CLOSER as f64;
    lookup.region: 0.0, 100.0;
    lookup.region_lookups: 0, 64;
    lookup.region_extra: 0, 256;
    lookup.sparse: 20.0, 1e9;
    lookup.escapes: 0, 16;
    lookup.max_operations: 1, 65_536;
    lookup.interactive_deadline: ms(100), secs(3600);
    lookup.background_deadline: ms(100), secs(3600);
    lookup.watch_holders: 1, 20;
    lookup.watch_poll: secs(1), DAY;
    lookup.watch_deadline: secs(1), YEAR;
    lookup.remembered_reads: 0, MANY;
    lookup.remembered_read_bytes: 0, 1 << 30;
    serve.max_answer_bytes: MAX_VALUE_BYTES + 1024, MAX_ANSWER_BYTES;
    serve.peer_burst: 1.0, OFTEN;
    serve.peer_per_second: 0.0, OFTEN;
    serve.peer_byte_burst: MAX_ANSWER_BYTES as f64, OFTEN;
    serve.peer_bytes_per_second: 0.0, OFTEN;
    serve.node_burst: 1.0, OFTEN;
    serve.node_per_second: 0.0, OFTEN;
    serve.node_byte_burst: MAX_ANSWER_BYTES as f64, OFTEN;
    serve.node_bytes_per_second: 0.0, OFTEN;
    serve.tracked_peers: 1, MANY;
    serve.watchers: 0, MANY;
    serve.watchers_per_peer: 0, MANY;
    serve.watch_most: Duration::ZERO, DAY;
    upkeep.refresh_every: secs(1), YEAR;
    upkeep.early_every: ms(100), YEAR;
    upkeep.early_refreshes: 0, 10_000;
    upkeep.settling_every: secs(1), YEAR;
    upkeep.settled_samples: 0, 64;
    upkeep.neighbourhood_change: 1.01, 1e6;
    upkeep.rejoin_first: ms(100), DAY;
    upkeep.rejoin_most: ms(100), DAY;
    upkeep.known_contacts: 1, 65_536;
    upkeep.probe_bytes_per_second: 0.0, OFTEN;
    upkeep.probe_savings: Duration::ZERO, DAY;
    upkeep.probes_at_once: 0, 256;
    upkeep.admission_burst: 1.0, OFTEN;
    upkeep.admissions_per_second: 0.0, OFTEN;
    upkeep.hint_burst: 0.0, OFTEN;
    upkeep.hints_per_second: 0.0, OFTEN;
    upkeep.doubt_burst: 0.0, OFTEN;
    upkeep.doubts_per_second: 0.0, OFTEN;
    upkeep.seen_peers: 0, MANY;
    store.max_bytes: 64 * 1024, 1 << 40;
    store.max_records: 1, MANY;
    store.publisher_bytes: 1024, 1 << 40;
    store.publisher_records: 1, MANY;
    store.namespace_share: 0.01, 1.0;
    store.key_records: 1, MANY;
    store.put_burst: 1.0, OFTEN;
    store.puts_per_second: 0.0, OFTEN;
    store.subnet_factor: 1.0, OFTEN;
    store.checks_per_second: 1.0, OFTEN;
    store.max_senders: 1, MANY;
    store.max_marks: 0, MANY;
    store.max_providers: 0, MANY;
    store.providers_per_key: 1, MANY;
    store.providers_per_peer: 1, MANY;
    store.provider_ttl: secs(1), YEAR;
    store.write_after: Duration::ZERO, secs(60);
    store.write_batch: 1, 65_536;
    store.sync_every: Duration::ZERO, secs(3600);
    store.max_unwritten: 1, MANY;
    replication.loss_per_period: 1e-15, 0.5;
    replication.period_least: secs(1), DAY;
    replication.period_most: secs(1), DAY;
    replication.rank_wait: Duration::ZERO, secs(60);
    replication.newcomer_ranks: 1, 64;
    replication.max_rounds: 1, 1024;
    replication.spare_ranks: 0, 256;
    replication.max_neighbours: 1, 63;
    replication.believed_periods: 0, 1024;
    replication.looks_burst: 1.0, OFTEN;
    replication.looks_per_second: 0.0, OFTEN;
    replication.fresh_burst: 0.0, OFTEN;
    replication.fresh_per_second: 0.0, OFTEN;
    replication.max_guests: 0, MANY;
    replication.max_hand_over: 1, MANY;
    replication.max_sets: 0, MANY;
    replication.max_copies_at_once: 1, MANY;
    replication.max_provided: 0, MANY;
    replication.probe_every: secs(1), DAY;
    replication.retry_first: ms(100), DAY;
    replication.slack: 0, 32;
};

/// The most bytes of a body that its envelope leaves room for.
const MOST_BODY: usize = MAX_VALUE_BYTES - MAX_OVERHEAD;

const RECORDS: &[Bound<RecordsConfig>] = bounds! { RecordsConfig, "records":
    endpoint.max_body_bytes: 128, MOST_BODY;
    endpoint.max_ttl: secs(60), YEAR;
    endpoint.default_ttl: secs(60), YEAR;
    endpoint.replicas: 1, MAX_CLOSER;
    topic.max_body_bytes: 64, MOST_BODY;
    topic.max_ttl: secs(60), YEAR;
    topic.default_ttl: secs(60), YEAR;
    topic.replicas: 1, MAX_CLOSER;
    topic_shard_members: 1, 512;
    mailbox.max_body_bytes: 256, MOST_BODY;
    mailbox.max_ttl: secs(60), YEAR;
    mailbox.default_ttl: secs(60), YEAR;
    mailbox.replicas: 1, MAX_CLOSER;
    value.max_body_bytes: 1, MOST_BODY;
    value.max_ttl: secs(60), YEAR;
    value.default_ttl: secs(60), YEAR;
    value.replicas: 1, MAX_CLOSER;
    immutable.max_body_bytes: 1, MOST_BODY;
    immutable.max_ttl: secs(60), YEAR;
    immutable.default_ttl: secs(60), YEAR;
    immutable.replicas: 1, MAX_CLOSER;
    foreign.max_body_bytes: 1, MAX_VALUE_BYTES;
    foreign.max_ttl: secs(60), YEAR;
    foreign.replicas: 1, MAX_CLOSER;
    clock_tolerance: Duration::ZERO, DAY;
    clock_neighbours: 1, 64;
    clock_alarm: secs(1), YEAR;
    mailbox_messages: 1, 4096;
    mailbox_unknown: 0, 4096;
    mailbox_per_sender: 1, 4096;
    mailbox_work_bits: 0, 24;
};

/// What each limit of a node may be.
pub fn bounds() -> &'static [Bound<DhtConfig>] {
    DHT
}

/// What each limit of records may be.
pub fn record_bounds() -> &'static [Bound<RecordsConfig>] {
    RECORDS
}

/// Says which of two limits would have to be the larger one.
fn in_order<T: PartialOrd + Debug + Copy>(less: (&str, T), more: (&str, T)) -> Result<(), String> {
    match less.1 <= more.1 {
        true => Ok(()),
        false => Err(format!(
            "the limit {} is {:?}, which is more than {}, {:?}: raise that one or lower this one",
            less.0, less.1, more.0, more.1
        )),
    }
}

impl DhtConfig {
    /// Checks that each limit is within its bounds, and that none contradicts another.
    ///
    /// # Errors
    /// A sentence that names the limit by its name in a settings file, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        DHT.iter().try_for_each(|bound| (bound.check)(self))?;
        let Self { table, lookup, upkeep, store, replication, .. } = self;
        for (less, more) in [
            (
                ("dht.table.quarantine_first", table.quarantine_first),
                ("dht.table.quarantine_most", table.quarantine_most),
            ),
            (
                ("dht.lookup.stagger_least", lookup.stagger_least),
                ("dht.lookup.stagger_most", lookup.stagger_most),
            ),
            (("dht.lookup.soft_least", lookup.soft_least), ("dht.lookup.soft_most", lookup.soft_most)),
            (("dht.lookup.soft_most", lookup.soft_most), ("dht.lookup.hard", lookup.hard)),
            (
                ("dht.upkeep.rejoin_first", upkeep.rejoin_first),
                ("dht.upkeep.rejoin_most", upkeep.rejoin_most),
            ),
            (
                ("dht.replication.period_least", replication.period_least),
                ("dht.replication.period_most", replication.period_most),
            ),
            (
                ("dht.replication.retry_first", replication.retry_first),
                ("dht.replication.probe_every", replication.probe_every),
            ),
        ] {
            in_order(less, more)?;
        }
        in_order(
            ("dht.store.publisher_bytes", store.publisher_bytes),
            ("dht.store.max_bytes", store.max_bytes),
        )?;
        in_order(
            ("dht.store.write_batch", store.write_batch),
            ("dht.store.max_unwritten", store.max_unwritten),
        )
    }
}

impl RecordsConfig {
    /// Checks that each limit is within its bounds, and that none contradicts another.
    ///
    /// # Errors
    /// A sentence that names the limit by its name in a settings file, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        RECORDS.iter().try_for_each(|bound| (bound.check)(self))?;
        for (name, kind) in [
            ("endpoint", &self.endpoint),
            ("topic", &self.topic),
            ("mailbox", &self.mailbox),
            ("value", &self.value),
            ("immutable", &self.immutable),
        ] {
            let [less, more] = ["default_ttl", "max_ttl"].map(|limit| format!("records.{name}.{limit}"));
            in_order((&less, kind.default_ttl), (&more, kind.max_ttl))?;
        }
        let most = ("records.mailbox_messages", self.mailbox_messages);
        in_order(("records.mailbox_unknown", self.mailbox_unknown), most)?;
        in_order(("records.mailbox_per_sender", self.mailbox_per_sender), most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_bounds_or_against_each_other_are_refused_by_name() {
        DhtConfig::default().validate().unwrap();
        RecordsConfig::default().validate().unwrap();
        let told = |change: fn(&mut DhtConfig)| {
            let mut config = DhtConfig::default();
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert_eq!(told(|c| c.lookup.alpha = 17), "the limit dht.lookup.alpha is 17: give 3 to 16");
        assert_eq!(
            told(|c| c.lookup.stagger = Some(secs(11))),
            "the limit dht.lookup.stagger is 11s: give 0ns to 10s"
        );
        assert!(told(|c| c.table.lifetime_shape = f64::NAN).contains("lifetime_shape is NaN"));
        assert!(told(|c| c.table.k = 0).contains("dht.table.k"));
        assert!(
            told(|c| c.lookup.hard = ms(500)).contains("dht.lookup.soft_most is 800ms, which is more than")
        );
        let mut records = RecordsConfig::default();
        records.value.default_ttl = records.value.max_ttl + secs(1);
        assert!(records.validate().unwrap_err().contains("records.value.default_ttl"));
        records = RecordsConfig { mailbox_per_sender: 65, ..RecordsConfig::default() };
        assert!(records.validate().unwrap_err().contains("records.mailbox_per_sender"));
    }

    #[test]
    fn every_limit_has_its_bounds() {
        let fields = |debug: String| {
            debug.lines().filter(|line| line.trim().ends_with(',') && line.contains(": ")).count()
        };
        let config = format!(
            "{:#?}",
            DhtConfig {
                lookup: LookupConfig { stagger: None, ..LookupConfig::default() },
                ..DhtConfig::default()
            }
        );
        assert_eq!(fields(config), DHT.len());
        assert_eq!(fields(format!("{:#?}", RecordsConfig::default())), RECORDS.len());
    }
}
