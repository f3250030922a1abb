//! What an observer sees who sees everything.

use peerage_dht::{Health as Known, Key};

use super::super::queue::{Micros, SECOND};
use super::{Meter, World};

/// What all nodes sent in a span of time, in bytes a second and node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Mean of upkeep.
    pub mean: f64,
    /// The node that only one in a hundred exceeds.
    pub p99: f64,
    /// Mean of what holders compare and hand over, which stands in the upkeep too.
    pub repair: f64,
    /// Mean with handshakes by estimate.
    pub with_handshakes: f64,
    /// Requests of a node in a second.
    pub requests: f64,
}

impl World {
    /// Nodes that are up.
    pub fn up(&self) -> impl Iterator<Item = u32> {
        (0..self.nodes.len() as u32).filter(|node| self.nodes[*node as usize].dht.is_some())
    }

    /// Reads all meters, and sets them back.
    pub fn read_meters(&mut self, since: Micros) -> Traffic {
        let seconds = (self.now - since) as f64 / SECOND as f64;
        let mut rates = Vec::new();
        let (mut handshakes, mut requests, mut repair) = (0.0, 0.0, 0.0);
        for node in &mut self.nodes {
            let meter = std::mem::take(&mut node.meter);
            if meter != Meter::default() || node.dht.is_some() {
                rates.push(meter.upkeep as f64 / seconds);
                handshakes += meter.handshakes as f64 / seconds;
                repair += meter.repair as f64 / seconds;
                requests += meter.requests as f64 / seconds;
            }
        }
        rates.sort_unstable_by(f64::total_cmp);
        // All that was sent, over the nodes that are up: those that came or went sent for a part of the time.
        let up = self.up().count().max(1) as f64;
        let mean = rates.iter().sum::<f64>() / up;
        let p99 = rates.get(rates.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
        Traffic {
            mean,
            p99,
            repair: repair / up,
            with_handshakes: mean + handshakes / up,
            requests: requests / up,
        }
    }

    /// The share of the entries, among those that nodes hand out, of peers that don't answer any more.
    pub fn stale_share(&self) -> f64 {
        let (mut stale, mut all) = (0u64, 0u64);
        for node in self.nodes.iter().filter(|node| node.is_well()) {
            let Some(dht) = &node.dht else { continue };
            for (contact, health) in dht.table().peers() {
                if health == Known::Quarantined {
                    continue;
                }
                let dead = self.node_of(contact).is_none_or(|peer| {
                    let peer = &self.nodes[peer as usize];
                    peer.dht.is_none() || peer.health == super::Health::Silent
                });
                all += 1;
                stale += u64::from(dead);
            }
        }
        stale as f64 / all.max(1) as f64
    }

    /// The live nodes closest to a key, the closest first.
    pub fn closest_up(&self, key: &Key, count: usize) -> Vec<u32> {
        let mut up: Vec<(_, u32)> =
            self.up().map(|node| (self.nodes[node as usize].contact.key().distance(key), node)).collect();
        if up.len() > count {
            up.select_nth_unstable(count);
            up.truncate(count);
        }
        up.sort_unstable();
        up.into_iter().map(|(_, node)| node).collect()
    }

    /// The share of nodes whose estimate of the network's size is within `share` of the truth; a node without an estimate is not.
    pub fn size_within(&self, share: f64) -> f64 {
        let truth = self.up().count() as f64;
        let near = self.up().filter(|node| {
            let dht = self.nodes[*node as usize].dht.as_ref();
            let size = dht.and_then(|dht| dht.size(self.clock()));
            size.is_some_and(|size| (size / truth - 1.0).abs() <= share)
        });
        near.count() as f64 / truth.max(1.0)
    }

    /// The mean of what nodes take the network's size to be, over the truth; of those that have an idea of it.
    pub fn mean_size(&self) -> f64 {
        let truth = self.up().count() as f64;
        let sizes: Vec<f64> =
            self.up().filter_map(|node| self.nodes[node as usize].dht.as_ref()?.size(self.clock())).collect();
        sizes.iter().sum::<f64>() / (truth * sizes.len() as f64).max(1.0)
    }
}
