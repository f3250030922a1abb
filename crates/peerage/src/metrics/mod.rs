//! What a node counts, for graphs and alarms.
//!
//! Labels take few values: protocol and channel names are bounded where they are counted, everything else is an enum of ours. No peer ID and no
//! address is a label, so the number of samples stays small and nothing private is in them.

mod channels;
mod dht;
mod events;
mod requests;

use std::collections::BTreeMap;

use peerage_peers::{Gauges, PeerClass};

use crate::memory::Budget;

use crate::node::Node;
use crate::shared::Shared;

pub(crate) use channels::ChannelTable;
pub use channels::{MAX_COUNTED_CHANNELS, OTHER_CHANNELS};
pub(crate) use events::EventCounts;
pub(crate) use requests::{Counting, Outcome, RequestCounts};

/// One thing that is counted, at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, without a unit's or a counter's ending beyond its own, such as `peerage_peers`.
    pub name: &'static str,
    /// What it counts, in one sentence.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// Its values.
    pub samples: Vec<Sample>,
}

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, from the node's start on.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// What tells it from the others.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Node {
    /// What the node has counted so far. The names and labels are part of the interface; more may come.
    pub async fn metrics(&self) -> Vec<Metric> {
        let peers = self.peers();
        let gauges = peers.call(|_, manager| manager.gauges()).await.unwrap_or_default();
        let shared = &peers.shared;
        let mut metrics = vec![
            single(
                "peerage_uptime_seconds",
                MetricKind::Gauge,
                "Seconds since the node's start",
                shared.clock.now().mono.as_secs_f64(),
            ),
            connected(shared),
        ];
        metrics.extend(of_manager(&gauges));
        metrics.push(single(
            "peerage_tasks",
            MetricKind::Gauge,
            "Tasks that the node runs",
            shared.tasks.len() as f64,
        ));
        metrics.push(handshakes(shared));
        metrics.extend(shared.events.metrics());
        metrics.extend([bytes(shared), peer_bytes(shared), queues(shared, &gauges)]);
        metrics.extend(memory(shared));
        metrics.extend(channels::metrics(shared));
        metrics.extend(requests::metrics(shared));
        metrics.extend(dht::metrics(shared).await);
        metrics.push(single(
            "peerage_lost_messages",
            MetricKind::Counter,
            "Channel messages that were queued and never sent",
            shared.lost_messages.load(std::sync::atomic::Ordering::Relaxed) as f64,
        ));
        metrics
    }
}

/// What the peer manager holds and has done.
fn of_manager(gauges: &Gauges) -> [Metric; 5] {
    let single = |name, kind, help, value: u64| single(name, kind, help, value as f64);
    let progress = [
        ("outbound", "dial", gauges.dials),
        ("outbound", "hello", gauges.greeting_outbound),
        ("inbound", "hello", gauges.greeting_inbound),
    ];
    let sample = |(direction, stage, count): (&str, &str, usize)| Sample {
        labels: vec![("direction", direction.to_owned()), ("stage", stage.to_owned())],
        value: count as f64,
    };
    [
        single("peerage_known_peers", MetricKind::Gauge, "Peers in the address book", gauges.known as u64),
        single("peerage_bans", MetricKind::Gauge, "Bans in force", gauges.bans as u64),
        single(
            "peerage_rotations",
            MetricKind::Counter,
            "Rounds in which outbound peers were to be replaced",
            gauges.rotations,
        ),
        Metric {
            name: "peerage_connecting",
            help: "Connections on their way to admission: dials, and hellos after TLS",
            kind: MetricKind::Gauge,
            samples: progress.into_iter().map(sample).collect(),
        },
        Metric {
            name: "peerage_visits",
            help: "Connections for a while only, to ask something: those of this node and those of others",
            kind: MetricKind::Gauge,
            samples: [("outbound", gauges.outbound_visits), ("inbound", gauges.inbound_visits)]
                .into_iter()
                .map(|(direction, count)| Sample {
                    labels: vec![("direction", direction.to_owned())],
                    value: count as f64,
                })
                .collect(),
        },
    ]
}

fn single(name: &'static str, kind: MetricKind, help: &'static str, value: f64) -> Metric {
    Metric { name, help, kind, samples: vec![Sample { labels: Vec::new(), value }] }
}

fn connected(shared: &Shared) -> Metric {
    let mut counts: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
    for direction in ["inbound", "outbound"] {
        for kind in ["foreign", "peerage"] {
            counts.insert((direction.to_owned(), kind), 0);
        }
    }
    for peer in shared.connected() {
        let kind = if peer.foreign { "foreign" } else { "peerage" };
        *counts.entry((peer.direction.to_string(), kind)).or_default() += 1;
    }
    let sample = |((direction, kind), count): ((String, &'static str), usize)| Sample {
        labels: vec![("direction", direction), ("kind", kind.to_owned())],
        value: count as f64,
    };
    Metric {
        name: "peerage_peers",
        help: "Connected peers",
        kind: MetricKind::Gauge,
        samples: counts.into_iter().map(sample).collect(),
    }
}

fn handshakes(shared: &Shared) -> Metric {
    let counts = shared.endpoint.admission_counts();
    let answers = [
        ("accepted", counts.accepted),
        ("retried", counts.retried),
        ("refused", counts.refused),
        ("ignored", counts.ignored),
    ];
    let sample = |(answer, count): (&str, u64)| Sample {
        labels: vec![("answer", answer.to_owned())],
        value: count as f64,
    };
    Metric {
        name: "peerage_first_packets",
        help: "First packets of inbound connections, by how they were answered before TLS",
        kind: MetricKind::Counter,
        samples: answers.into_iter().map(sample).collect(),
    }
}

fn bytes(shared: &Shared) -> Metric {
    let sample = |protocol: &str, direction: &str, bytes: u64| Sample {
        labels: vec![("protocol", protocol.to_owned()), ("direction", direction.to_owned())],
        value: bytes as f64,
    };
    let samples = shared.traffic.list().into_iter().flat_map(|one| {
        [sample(&one.protocol, "sent", one.sent_bytes), sample(&one.protocol, "received", one.received_bytes)]
    });
    Metric {
        name: "peerage_protocol_bytes",
        help: "Bytes on streams, by protocol, over all connections",
        kind: MetricKind::Counter,
        samples: samples.collect(),
    }
}

/// The bytes of [`bytes`] in another order: by what the user said of the peer, and who dialled.
fn peer_bytes(shared: &Shared) -> Metric {
    let samples = shared.traffic.by_kind().into_iter().flat_map(|(class, inbound, moved)| {
        let sample = |direction: &str, bytes: u64| Sample {
            labels: vec![
                ("kind", class.as_ref().map_or("ordinary".to_owned(), PeerClass::to_string)),
                ("connection", if inbound { "inbound" } else { "outbound" }.to_owned()),
                ("direction", direction.to_owned()),
            ],
            value: bytes as f64,
        };
        [sample("sent", moved.sent), sample("received", moved.received)]
    });
    Metric {
        name: "peerage_peer_bytes",
        help: "Bytes on streams, by the kind of peer and by who dialled; of several kinds the first of persistent, private, unconditional counts",
        kind: MetricKind::Counter,
        samples: samples.collect(),
    }
}

fn queues(shared: &Shared, gauges: &Gauges) -> Metric {
    let driver = shared.to_driver.max_capacity() - shared.to_driver.capacity();
    let lengths = [
        ("driver", driver),
        ("store", shared.saving.waiting_changes()),
        ("dials", gauges.queued_dials),
        ("connects", gauges.waiting_connects),
        ("visits", gauges.waiting_visits),
    ];
    let sample = |(queue, length): (&str, usize)| Sample {
        labels: vec![("queue", queue.to_owned())],
        value: length as f64,
    };
    Metric {
        name: "peerage_queue_length",
        help: "What waits: messages for the driver, changes for the store, targets to be dialled, explicit connects, visits",
        kind: MetricKind::Gauge,
        samples: lengths.into_iter().map(sample).collect(),
    }
}

/// What is accounted for, and the limits.
fn memory(shared: &Shared) -> [Metric; 2] {
    let of = [("channels", &shared.memory), ("requests", &shared.request_memory)];
    let metric = |name, help, value: fn(&Budget) -> usize| Metric {
        name,
        help,
        kind: MetricKind::Gauge,
        samples: of
            .iter()
            .map(|(what, budget)| Sample {
                labels: vec![("of", (*what).to_owned())],
                value: value(budget) as f64,
            })
            .collect(),
    };
    [
        metric("peerage_memory_bytes", "Bytes that are accounted for", Budget::used),
        metric("peerage_memory_limit_bytes", "Bytes that may be", Budget::most),
    ]
}
