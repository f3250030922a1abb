//! The DHT's limits and times, each with its default.

use std::time::Duration;

use crate::Class;
use crate::replication::ReplicationConfig;
use crate::store::StoreConfig;

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
    /// What is kept for others.
    pub store: StoreConfig,
    /// How records are kept alive.
    pub replication: ReplicationConfig,
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
    /// The stagger as a share of the median first hop of late.
    pub stagger_share: f64,
    /// What a first hop is taken to need before any was measured.
    pub usual_rtt: Duration,
    /// The stagger is never shorter.
    pub stagger_least: Duration,
    /// What is measured makes the stagger never longer.
    pub stagger_most: Duration,
    /// A fixed stagger for all classes, such as 200 ms, in place of a measured one.
    pub stagger: Option<Duration>,
    /// A request is never suspect sooner.
    pub soft_least: Duration,
    /// A request that needs no handshake is always suspect after so long.
    pub soft_most: Duration,
    /// Round trips that a peer without a connection costs before it is asked: the handshake, the hello, the negotiation. Zero where all are connected.
    pub cold_round_trips: f64,
    /// How long an answer may take before anything was measured.
    pub soft_unknown: Duration,
    /// A request is given up after so long.
    pub hard: Duration,
    /// The end of a lookup waits for a suspect close to the target for this share of the time after which it became one.
    pub overdue_grace: f64,
    /// The same where nobody waits for the end ([`Class::Frugal`]): who is late is no less alive, and a lookup that measures the network counts those it heard.
    pub overdue_grace_frugal: f64,
    /// Candidates beyond the k closest that are asked rather than nobody.
    pub spare: usize,
    /// Candidates that a lookup remembers; the farthest give way.
    pub max_candidates: usize,
    /// Requests of a lookup in all.
    pub max_requests: usize,
    /// Values or providers that a lookup collects.
    pub max_values: usize,
    /// Bytes of values that a lookup collects.
    pub max_value_bytes: usize,
    /// Further pages that one peer is asked for.
    pub max_pages: usize,
    /// Pages in a row, of one peer, that bring nothing that it has not said before; then it is asked for no further one.
    pub max_stale_pages: usize,
    /// Candidates of one subnet (/24, /48) that are asked while others are there; who is silent doesn't count, nor who answered us before. Loopback is exempt.
    pub subnet_per_lookup: usize,
    /// An answer that names a peer so much closer than the whole network's size makes likely is not believed: the chance that an honest one does.
    pub implausible: f64,
    /// Disjoint paths of a lookup, whatever raises them.
    pub most_paths: usize,
    /// A place is crowded when the size of the network times the distance of the k-th peer named there is below this: then a get with the default quorum hears out all of the closest
    /// before it hands over what may be superseded. For k = 20 one honest place in twenty-three is below 13. Zero: none is.
    pub crowded: f64,
    /// A neighbourhood is dense when the size of the network times the distance of its k-th peer is below this: for k = 20 one honest lookup in
    /// ten thousand is below 7.5.
    pub dense: f64,
    /// The region that must be covered then, as a multiple of k peers' share of the keyspace; who lies in it keeps a record, whoever stands closer.
    pub region: f64,
    /// Lookups of places in it that are made then. For a store they look for half as many again as an honest region has, together.
    pub region_lookups: usize,
    /// Peers of that region, beyond the replicas, at which a value is stored too; and half as many from around a place near the key.
    pub region_extra: usize,
    /// A place is sparse when the size of the network times the distance of the k-th peer that answered is above this: for k = 20 one honest lookup in ten million is above 50,
    /// and where half of all nodes have gone one in eight.
    pub sparse: f64,
    /// A lookup that ends at such a place sets the closest aside and goes on with the others, so often.
    pub escapes: usize,
    /// Operations under way at once; further ones end at once with [`crate::Ended::TooMany`].
    pub max_operations: usize,
    /// How long an interactive operation may take.
    pub interactive_deadline: Duration,
    /// How long any other operation may take.
    pub background_deadline: Duration,
    /// Holders of a value that are asked at once to tell when it changes.
    pub watch_holders: usize,
    /// Where no holder does, the value is looked up again after so long: half of it to one and a half.
    pub watch_poll: Duration,
    /// How long an operation waits for a change, unless its caller says otherwise.
    pub watch_deadline: Duration,
    /// Values of which the newest version that was read here is remembered, so that no later read gives an older one back. Zero: none.
    pub remembered_reads: usize,
    /// Bytes of what is remembered so.
    pub remembered_read_bytes: usize,
}

impl LookupConfig {
    /// What [`LookupConfig::alpha`] is at least.
    pub const LEAST_ALPHA: usize = 3;
    /// What it is at most.
    pub const MOST_ALPHA: usize = 16;

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
            stagger_share: 0.18,
            usual_rtt: Duration::from_millis(150),
            stagger_least: Duration::from_millis(15),
            stagger_most: Duration::from_millis(60),
            stagger: None,
            soft_least: Duration::from_millis(100),
            soft_most: Duration::from_millis(800),
            cold_round_trips: 2.0,
            soft_unknown: Duration::from_millis(400),
            hard: Duration::from_secs(5),
            // With these, of 10,000 nodes 15 % silent and 5 % slow, the closest 20 are there after 1.11 s at p95 with a recall of 0.981 for 43 requests; with 0.3 and
            // none to spare it is 1.40 s and 0.962 for 33, with 0.3 and 8 it is 1.18 s and 0.984 (means of three seeds, simulated).
            overdue_grace: 0.1,
            overdue_grace_frugal: 1.0,
            spare: 8,
            max_candidates: 160,
            max_requests: 256,
            max_values: 4096,
            max_value_bytes: 4 << 20,
            max_pages: 64,
            max_stale_pages: 2,
            subnet_per_lookup: 3,
            implausible: 1e-4,
            most_paths: 8,
            crowded: 13.0,
            dense: 7.5,
            region: 1.5,
            region_lookups: 4,
            region_extra: 8,
            sparse: 50.0,
            escapes: 3,
            max_operations: 256,
            interactive_deadline: Duration::from_secs(10),
            background_deadline: Duration::from_secs(30),
            watch_holders: 3,
            watch_poll: Duration::from_secs(30),
            watch_deadline: Duration::from_secs(60),
            remembered_reads: 4096,
            remembered_read_bytes: 1 << 20,
        }
    }
}

/// What others may ask of us. Who asks more is told that we are busy.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Bytes of an answer, at most; below [`crate::MAX_ANSWER_BYTES`].
    pub max_answer_bytes: usize,
    /// Queries that one peer may ask at once.
    pub peer_burst: f64,
    /// Queries that one peer may ask in a second, in the long run.
    pub peer_per_second: f64,
    /// Bytes of answers to one peer at once.
    pub peer_byte_burst: f64,
    /// Bytes of answers to one peer in a second, in the long run.
    pub peer_bytes_per_second: f64,
    /// Queries that all peers together may ask at once.
    pub node_burst: f64,
    /// Queries that all peers together may ask in a second, in the long run.
    pub node_per_second: f64,
    /// Bytes of answers to all peers together at once.
    pub node_byte_burst: f64,
    /// Bytes of answers to all peers together in a second, in the long run.
    pub node_bytes_per_second: f64,
    /// Peers whose queries are counted. While that many have asked within the last seconds, further ones are told that we are busy.
    pub tracked_peers: usize,
    /// Queries that are kept until something changes, in all; further ones are answered at once.
    pub watchers: usize,
    /// The same of one peer.
    pub watchers_per_peer: usize,
    /// No query is kept for longer, whatever it asks for.
    pub watch_most: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            max_answer_bytes: 15 * 1024,
            peer_burst: 100.0,
            peer_per_second: 50.0,
            peer_byte_burst: 1_000_000.0,
            peer_bytes_per_second: 200_000.0,
            node_burst: 2000.0,
            node_per_second: 1000.0,
            node_byte_burst: 10_000_000.0,
            node_bytes_per_second: 4_000_000.0,
            tracked_peers: 1024,
            watchers: 1024,
            watchers_per_peer: 16,
            watch_most: Duration::from_secs(60),
        }
    }
}

/// Joining and staying in the network.
#[derive(Debug, Clone)]
pub struct UpkeepConfig {
    /// How often a place at random is looked up: it refreshes the table and measures the size of the network. Half of it to one and a half.
    pub refresh_every: Duration,
    /// The same while fewer than [`UpkeepConfig::settled_samples`] have measured the size.
    pub settling_every: Duration,
    /// So many measurements of the size are enough: 24 lookups tell it within 10 % in 97 cases of 100 (dht.md B.6).
    pub settled_samples: usize,
    /// The neighbourhood has changed when it is denser or sparser than it was by this factor: the size is measured anew, as after joining.
    pub neighbourhood_change: f64,
    /// The same for the first lookups after joining, which fill the table, and for those after the neighbourhood has changed.
    pub early_every: Duration,
    /// So many lookups count as the first ones.
    pub early_refreshes: u32,
    /// The pause before a node that reached nobody tries to join again; each further attempt doubles it.
    pub rejoin_first: Duration,
    /// That pause is never longer.
    pub rejoin_most: Duration,
    /// Contacts to begin with that are remembered; the newest stay.
    pub known_contacts: usize,
    /// Bytes a second that probes may cost, answers included.
    pub probe_bytes_per_second: f64,
    /// What probes don't cost is saved for so long: it pays for a look at everybody when many have died at once.
    pub probe_savings: Duration,
    /// Probes under way at once.
    pub probes_at_once: usize,
    /// Peers heard of that are asked at once whether they are worth an entry.
    pub admission_burst: f64,
    /// The same in a second, in the long run.
    pub admissions_per_second: f64,
    /// Messages at once that tell others of peers that don't answer.
    pub hint_burst: f64,
    /// The same in a second, in the long run.
    pub hints_per_second: f64,
    /// Peers at once that are looked at because others say that they don't answer.
    pub doubt_burst: f64,
    /// The same in a second, in the long run.
    pub doubts_per_second: f64,
    /// Peers of whom is remembered when they were seen last.
    pub seen_peers: usize,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        Self {
            refresh_every: Duration::from_secs(900),
            early_every: Duration::from_secs(50),
            settling_every: Duration::from_secs(240),
            settled_samples: 24,
            neighbourhood_change: 1.5,
            early_refreshes: 12,
            rejoin_first: Duration::from_secs(1),
            rejoin_most: Duration::from_secs(60),
            known_contacts: 64,
            probe_bytes_per_second: 50.0,
            probe_savings: Duration::from_secs(600),
            probes_at_once: 8,
            admission_burst: 16.0,
            admissions_per_second: 0.2,
            hint_burst: 8.0,
            hints_per_second: 0.2,
            doubt_burst: 32.0,
            doubts_per_second: 0.2,
            seen_peers: 512,
        }
    }
}
