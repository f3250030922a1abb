//! What the DHT holds and has done.

use super::{Metric, MetricKind, Sample, single};
use crate::dht::{Dht, Stats};
use crate::shared::Shared;

/// Nothing of a node without a DHT.
pub(super) async fn metrics(shared: &std::sync::Arc<Shared>) -> Vec<Metric> {
    if shared.dht.is_none() {
        return Vec::new();
    }
    let Ok(standing) = (Dht { shared: shared.clone() }).standing().await else { return Vec::new() };
    let gauge = |name, help, value: usize| single(name, MetricKind::Gauge, help, value as f64);
    let Stats { answered, failed, cancelled, served, refused, .. } = standing.stats;
    let counter = |name, help, label, values: Vec<(&str, u64)>| Metric {
        name,
        help,
        kind: MetricKind::Counter,
        samples: values
            .into_iter()
            .map(|(what, value)| Sample { labels: vec![(label, what.to_owned())], value: value as f64 })
            .collect(),
    };
    vec![
        gauge("peerage_dht_peers", "Nodes in the routing table of the DHT", standing.peers),
        gauge("peerage_dht_records", "Records of the DHT that are held", standing.held.records),
        gauge("peerage_dht_record_bytes", "Bytes of the records that are held", standing.held.bytes),
        gauge("peerage_dht_provider_records", "Provider records that are held", standing.held_providers),
        gauge("peerage_dht_published", "Records of this node that it looks after", standing.published),
        gauge("peerage_dht_provided", "Things that this node provides", standing.provided),
        gauge("peerage_dht_operations", "Operations of the DHT under way", standing.operations),
        counter(
            "peerage_dht_requests",
            "Requests to other nodes of the DHT, by how they ended",
            "end",
            vec![("answered", answered), ("failed", failed), ("cancelled", cancelled)],
        ),
        counter(
            "peerage_dht_queries",
            "Queries of other nodes: those that were served, and those that were told that this node is busy",
            "answer",
            vec![("served", served), ("busy", refused)],
        ),
    ]
}
