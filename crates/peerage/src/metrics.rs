//! What a node counts, for graphs and alarms.
//!
//! Labels take few values: protocol and channel names are bounded where they are counted, everything else is an enum of ours. No peer ID and no
//! address is a label, so the number of samples stays small and nothing private is in them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use peerage_peers::{PeerEvent, PeerManager};

use crate::node::Node;
use crate::shared::Shared;

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

/// What has happened to peers, counted by kind and label.
#[derive(Debug, Default)]
pub(crate) struct EventCounts(Mutex<BTreeMap<(Event, String), u64>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Connected,
    Disconnected,
    DialFailed,
    Refused,
    Penalised,
    Banned,
    Clone,
}

impl EventCounts {
    pub(crate) fn count(&self, event: &PeerEvent) {
        let (event, label) = match event {
            PeerEvent::Connected { direction, .. } => (Event::Connected, direction.to_string()),
            PeerEvent::Disconnected { fault, .. } => (Event::Disconnected, fault.name()),
            PeerEvent::DialFailed { fault, .. } => (Event::DialFailed, fault.name()),
            PeerEvent::Refused { reason, .. } => (Event::Refused, reason.to_string()),
            PeerEvent::Penalised { penalty, .. } => (Event::Penalised, penalty.to_string()),
            PeerEvent::Banned { .. } => (Event::Banned, String::new()),
            PeerEvent::CloneSeen { .. } | PeerEvent::PeerCloned { .. } => (Event::Clone, String::new()),
            _ => return,
        };
        *self.lock().entry((event, label)).or_default() += 1;
    }

    fn metric(&self, event: Event, name: &'static str, label: &'static str, help: &'static str) -> Metric {
        let counts = self.lock();
        let of_event = counts.iter().filter(|((found, _), _)| *found == event);
        let sample = |value: &str, count: u64| match label {
            "" => Sample { labels: Vec::new(), value: count as f64 },
            label => Sample { labels: vec![(label, value.to_owned())], value: count as f64 },
        };
        let mut samples: Vec<_> = of_event.map(|((_, value), count)| sample(value, *count)).collect();
        if samples.is_empty() && label.is_empty() {
            samples.push(sample("", 0));
        }
        Metric { name, help, kind: MetricKind::Counter, samples }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Event, String), u64>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Node {
    /// What the node has counted so far. The names and labels are part of the interface; more may come.
    pub async fn metrics(&self) -> Vec<Metric> {
        let peers = self.peers();
        let held = peers.call(|_, manager| Held::of(manager)).await.unwrap_or_default();
        let shared = &peers.shared;
        let mut metrics = vec![
            single(
                "peerage_uptime_seconds",
                MetricKind::Gauge,
                "Seconds since the node's start",
                shared.clock.now().mono.as_secs_f64(),
            ),
            connected(shared),
            single("peerage_known_peers", MetricKind::Gauge, "Peers in the address book", held.known as f64),
            single("peerage_bans", MetricKind::Gauge, "Bans in force", held.bans as f64),
            single("peerage_tasks", MetricKind::Gauge, "Tasks that the node runs", shared.tasks.len() as f64),
            handshakes(shared),
        ];
        let events = &shared.events;
        metrics.extend([
            events.metric(Event::Connected, "peerage_connections", "direction", "Peers that were admitted"),
            events.metric(
                Event::Disconnected,
                "peerage_disconnections",
                "fault",
                "Admitted peers that went, by what ended the connection",
            ),
            events.metric(
                Event::DialFailed,
                "peerage_failed_dials",
                "fault",
                "Dials that failed, by what went wrong",
            ),
            events.metric(
                Event::Refused,
                "peerage_refusals",
                "reason",
                "Peers that were turned away after TLS, by reason",
            ),
            events.metric(
                Event::Penalised,
                "peerage_penalties",
                "penalty",
                "Penalties, by what they were for",
            ),
            events.metric(Event::Banned, "peerage_bans_begun", "", "Bans, those by the user included"),
            events.metric(Event::Clone, "peerage_clones_seen", "", "Times that one key was met at two nodes"),
        ]);
        metrics.push(bytes(shared));
        metrics.push(single(
            "peerage_lost_messages",
            MetricKind::Counter,
            "Channel messages that were queued and never sent",
            shared.lost_messages.load(std::sync::atomic::Ordering::Relaxed) as f64,
        ));
        metrics
    }
}

/// What the peer manager holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    known: usize,
    bans: usize,
}

impl Held {
    fn of(manager: &mut PeerManager) -> Self {
        Self { known: manager.known_peers(), bans: manager.bans().count() }
    }
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
