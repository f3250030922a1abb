//! What has happened to peers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use peerage_peers::PeerEvent;

use super::{Metric, MetricKind, Sample};

/// What has happened to peers, counted by kind and label.
#[derive(Debug, Default)]
pub(crate) struct EventCounts(Mutex<BTreeMap<(Event, String), u64>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Connected,
    Disconnected,
    DialFailed,
    Refused,
    RefusedByPeer,
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
            PeerEvent::RefusedByPeer { reason, .. } => (Event::RefusedByPeer, reason.to_string()),
            PeerEvent::Penalised { penalty, .. } => (Event::Penalised, penalty.to_string()),
            PeerEvent::Banned { .. } => (Event::Banned, String::new()),
            PeerEvent::CloneSeen { .. } | PeerEvent::PeerCloned { .. } => (Event::Clone, String::new()),
            _ => return,
        };
        *self.lock().entry((event, label)).or_default() += 1;
    }

    pub(super) fn metrics(&self) -> Vec<Metric> {
        vec![
            self.metric(Event::Connected, "peerage_connections", "direction", "Peers that were admitted"),
            self.metric(
                Event::Disconnected,
                "peerage_disconnections",
                "fault",
                "Admitted peers that went, by what ended the connection",
            ),
            self.metric(
                Event::DialFailed,
                "peerage_failed_dials",
                "fault",
                "Dials that failed, by what went wrong",
            ),
            self.metric(
                Event::Refused,
                "peerage_refusals",
                "reason",
                "Peers that were turned away after TLS, by reason",
            ),
            self.metric(
                Event::RefusedByPeer,
                "peerage_refusals_by_peers",
                "reason",
                "Times that a peer turned this node away after TLS, by reason",
            ),
            self.metric(Event::Penalised, "peerage_penalties", "penalty", "Penalties, by what they were for"),
            self.metric(Event::Banned, "peerage_bans_begun", "", "Bans, those by the user included"),
            self.metric(Event::Clone, "peerage_clones_seen", "", "Times that one key was met at two nodes"),
        ]
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
