//! What an observer sees who sees everything.

use peerage_dht::{Health as Known, Key};

use super::super::queue::{Micros, SECOND};
use super::{Meter, Node, World};

/// What all nodes sent in a span of time, in bytes a second and node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Mean of upkeep.
    pub mean: f64,
    /// The node that only one in a hundred exceeds while it is up, of those that were up for a tenth of the span or longer.
    pub p99: f64,
    /// Mean of what holders compare and hand over, which stands in the upkeep too.
    pub repair: f64,
    /// Mean with handshakes by estimate.
    pub with_handshakes: f64,
    /// Requests of a node in a second.
    pub requests: f64,
}

/// Who was up for less than this share of a span says nothing of what a node sends in a second: most of it is what joining takes.
const LONG_ENOUGH: f64 = 0.1;

impl Node {
    /// How long it was up after the meters were read last.
    pub(super) fn up_since(&self, read: Micros, now: Micros) -> Micros {
        self.was_up + self.dht.as_ref().map_or(0, |_| now.saturating_sub(self.since.max(read)))
    }
}

impl World {
    /// Nodes that are up.
    pub fn up(&self) -> impl Iterator<Item = u32> {
        (0..self.nodes.len() as u32).filter(|node| self.nodes[*node as usize].dht.is_some())
    }

    /// Reads all meters, and sets them back.
    pub fn read_meters(&mut self, since: Micros) -> Traffic {
        let seconds = (self.now - since) as f64 / SECOND as f64;
        let (mut upkeep, mut rates) = (0.0, Vec::new());
        let (mut handshakes, mut requests, mut repair) = (0.0, 0.0, 0.0);
        for node in &mut self.nodes {
            let was_up = node.up_since(self.read, self.now) as f64 / SECOND as f64;
            node.was_up = 0;
            let meter = std::mem::take(&mut node.meter);
            if meter != Meter::default() || node.dht.is_some() {
                if was_up >= seconds * LONG_ENOUGH {
                    rates.push(meter.upkeep as f64 / was_up.min(seconds));
                }
                upkeep += meter.upkeep as f64 / seconds;
                handshakes += meter.handshakes as f64 / seconds;
                repair += meter.repair as f64 / seconds;
                requests += meter.requests as f64 / seconds;
            }
        }
        self.read = self.now;
        rates.sort_unstable_by(f64::total_cmp);
        // All that was sent, over the nodes that are up: those that came or went sent for a part of the time.
        let up = self.up().count().max(1) as f64;
        let mean = upkeep / up;
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

#[cfg(test)]
mod tests {
    use peerage_dht::Source;

    use super::super::Setting;
    use super::*;

    /// What one node sent, as the highest of few: up for these of a hundred seconds, with so many bytes in them.
    fn p99(up: &[(Micros, Micros)], sent: u64) -> f64 {
        let mut world = World::new(Setting::new(3, 1));
        let began = 50 * SECOND;
        world.gather(began);
        world.read_meters(0);
        for (from, to) in up {
            world.gather(began + from * SECOND);
            world.start_node(1, Vec::new(), Source::Bootstrap);
            world.gather(began + to * SECOND);
            if *to < 100 {
                world.stop_node(1);
            }
        }
        world.gather(began + 100 * SECOND);
        world.nodes[1].meter.upkeep = sent;
        let traffic = world.read_meters(began);
        assert_eq!(traffic.mean, sent as f64 / 100.0);
        assert_eq!(world.read_meters(began + 50 * SECOND).p99, 0.0, "what was read is set back");
        traffic.p99
    }

    #[test]
    fn what_a_node_sends_in_a_second_is_of_the_time_in_which_it_is_up() {
        assert_eq!(p99(&[(0, 100)], 1_000), 10.0);
        assert_eq!(p99(&[(60, 100)], 1_000), 25.0);
        assert_eq!(p99(&[(10, 30), (80, 100)], 1_000), 25.0);
        assert_eq!(p99(&[(10, 20), (40, 50)], 1_000), 50.0);
        // Too short to say anything.
        assert_eq!(p99(&[(95, 100)], 1_000), 0.0);
    }

    #[test]
    fn a_node_that_starts_again_without_an_end_was_up_all_the_time() {
        let mut world = World::new(Setting::new(3, 1));
        world.start_node(1, Vec::new(), Source::Bootstrap);
        world.gather(30 * SECOND);
        world.start_node(1, Vec::new(), Source::Bootstrap);
        world.gather(100 * SECOND);
        world.nodes[1].meter.upkeep = 1_000;
        assert_eq!(world.read_meters(0).p99, 10.0);
    }
}
