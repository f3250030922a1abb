//! A network that stands still: tables are built, then failures strike, and one lookup runs at a time (dht.md A.3).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use peerage_dht::Contact;
use peerage_identity::{DialAddress, PeerId};
use sha2::{Digest, Sha256};

use super::network::{Faults, Health, Network, Shape, strike};
use super::progress::Progress;
use super::stream::{Purpose, Stream};

/// Entries in a bucket, peers in an answer, members of a closest set.
pub const K: usize = 20;

/// A key: its first 64 bits decide which of two peers is closer, and all 256 are there for machines that want them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The whole key.
    pub bytes: [u8; 32],
    /// Its first eight bytes.
    pub front: u64,
}

impl Key {
    /// From 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        let mut front = [0; 8];
        front.copy_from_slice(&bytes[..8]);
        Self { bytes, front: u64::from_be_bytes(front) }
    }

    /// The key of what is stored or looked up under `name`.
    pub fn of(name: &[u8]) -> Self {
        Self::new(Sha256::digest(name).into())
    }
}

/// How a still network is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Number of nodes.
    pub nodes: usize,
    /// What all follows from.
    pub seed: u64,
    /// Who fails once the tables are built.
    pub faults: Faults,
    /// How long round trips are.
    pub shape: Shape,
    /// XORed into every ID and target: 0 but in a test that renames everybody.
    pub renamed: u64,
    /// Identities beyond the nodes that stand among them: an attacker's.
    pub guests: Vec<PeerId>,
}

impl Plan {
    /// The study's network.
    pub fn new(nodes: usize, seed: u64, faults: Faults) -> Self {
        Self { nodes, seed, faults, shape: Shape::default(), renamed: 0, guests: Vec::new() }
    }
}

/// The network: who is where, who knows whom, who answers.
#[derive(Debug)]
pub struct Still {
    /// How it was made.
    pub plan: Plan,
    /// Each node's peer ID.
    pub peers: Vec<PeerId>,
    /// Each node's key.
    pub keys: Vec<Key>,
    /// Each node as others name it, with an address in a subnet of its own.
    pub contacts: Vec<Contact>,
    /// The nodes in the order of their keys.
    order: Vec<(u64, u32)>,
    /// Each node's table: who it knows, bucket by bucket, the farthest bucket first.
    pub tables: Vec<Vec<u32>>,
    /// How each node behaves.
    pub health: Vec<Health>,
    /// Round trips.
    pub network: Network,
    /// Told of each lookup.
    pub progress: Progress,
}

impl Still {
    /// Builds the tables, then lets failures strike.
    pub fn new(plan: Plan) -> Self {
        let own = (0..plan.nodes).map(|node| peer_id(plan.seed, node as u64));
        let peers: Vec<PeerId> = own.chain(plan.guests.iter().copied()).collect();
        let keys: Vec<Key> =
            peers.iter().map(|peer| renamed(Key::of(&peer.to_bytes()), plan.renamed)).collect();
        let tables = tables(plan.seed, &keys);
        let health = strike(plan.seed, peers.len(), plan.faults);
        let network = Network::new(plan.seed, peers.len(), &plan.shape);
        let contacts = peers.iter().enumerate().map(|(node, peer)| contact(node as u32, *peer)).collect();
        let mut order: Vec<(u64, u32)> =
            keys.iter().enumerate().map(|(node, key)| (key.front, node as u32)).collect();
        order.sort_unstable();
        let progress = Progress::default();
        Self { plan, peers, keys, contacts, order, tables, health, network, progress }
    }

    /// The 20 entries of a node's table that are closest to `target`, the closest first, without `asker`.
    pub fn closest_known(&self, node: u32, target: u64, asker: u32, closest: &mut Vec<u32>) {
        closest.clear();
        closest.extend(self.tables[node as usize].iter().filter(|peer| **peer != asker));
        self.keep_closest(closest, target, K);
    }

    /// The `count` nodes closest to `target` of those that `wanted` takes, the closest first.
    pub fn closest_of_all(&self, target: u64, count: usize, wanted: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut all: Vec<u32> = (0..self.keys.len() as u32).filter(|node| wanted(*node)).collect();
        self.keep_closest(&mut all, target, count);
        all
    }

    /// Whom a node is connected to: so many of its table, the closest half of them and others at random; all when `count` is `None`.
    pub fn connected(&self, node: u32, count: Option<usize>) -> Vec<u32> {
        let Some(count) = count else { return Vec::new() };
        let mut known = self.tables[node as usize].clone();
        let own = self.keys[node as usize].front;
        known.sort_unstable_by_key(|peer| self.distance(*peer, own));
        let near = (count / 2).min(known.len());
        let mut stream = Stream::new(self.plan.seed, u64::from(node), Purpose::Connections);
        let others = stream.sample(known.len() - near, count - near);
        let others: Vec<u32> = others.into_iter().map(|place| known[near + place]).collect();
        known.truncate(near);
        known.extend(others);
        known
    }

    /// The node with this key.
    pub fn node_of(&self, key: [u8; 32]) -> Option<u32> {
        let front = Key::new(key).front;
        let place = self.order.binary_search_by_key(&front, |(front, _)| *front).ok()?;
        self.order.get(place).map(|(_, node)| *node)
    }

    /// The distance of a node from `target`.
    pub fn distance(&self, node: u32, target: u64) -> u64 {
        self.keys[node as usize].front ^ target
    }

    fn keep_closest(&self, nodes: &mut Vec<u32>, target: u64, count: usize) {
        if nodes.len() > count {
            nodes.select_nth_unstable_by_key(count - 1, |node| self.distance(*node, target));
            nodes.truncate(count);
        }
        nodes.sort_unstable_by_key(|node| self.distance(*node, target));
    }

    /// The target of query `number`, and who asks: a node that answers itself.
    pub fn query(&self, number: u64) -> Query {
        let mut stream = Stream::new(self.plan.seed, number, Purpose::Queries);
        let name = stream.bytes();
        let target = renamed(Key::of(&name), self.plan.renamed);
        let live = |node: &u32| self.health[*node as usize] == Health::Well;
        let asker = std::iter::repeat_with(|| stream.below(self.keys.len()) as u32)
            .take(10_000)
            .find(live)
            .unwrap_or_default();
        Query { number, name, target, asker, luck: Stream::new(self.plan.seed, number, Purpose::Requests) }
    }
}

/// One question: the same for each policy.
#[derive(Debug, Clone)]
pub struct Query {
    /// Which one of the run.
    pub number: u64,
    /// What is looked for, before it is hashed.
    pub name: [u8; 32],
    /// Its key.
    pub target: Key,
    /// Who asks.
    pub asker: u32,
    /// What its requests meet.
    pub luck: Stream,
}

/// A peer ID that follows from the seed: a SHA-256 multihash, of which nobody has the key.
pub fn peer_id(seed: u64, node: u64) -> PeerId {
    let mut bytes = vec![0x12, 0x20];
    bytes.extend(Stream::new(seed, node, Purpose::Ids).bytes());
    PeerId::from_bytes(&bytes).expect("a SHA-256 multihash is a peer ID")
}

/// A node as others name it: at an address of its own /24, so that rules for subnets concern nobody who doesn't mean to break them.
pub fn contact(node: u32, peer: PeerId) -> Contact {
    Contact::new(peer, &address_in(node).into_iter().collect::<Vec<_>>())
}

/// An address in the /24 with this number, counted from 20.0.0.0 on.
pub fn address_in(subnet: u32) -> Option<DialAddress> {
    let ip = Ipv4Addr::from_bits(Ipv4Addr::new(20, 0, 0, 1).to_bits().wrapping_add(subnet << 8));
    DialAddress::from_socket_addr(SocketAddr::from((ip, 4001))).ok()
}

/// Where a node is met: at its own address.
pub fn ip_of(node: u32) -> IpAddr {
    let address = address_in(node).and_then(|address| address.socket_addr());
    address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

fn renamed(mut key: Key, by: u64) -> Key {
    key.front ^= by;
    key.bytes[..8].copy_from_slice(&key.front.to_be_bytes());
    key
}

/// For each node and each length of common prefix: everybody there if they are 20 or fewer, else 20 of them, each as likely.
fn tables(seed: u64, keys: &[Key]) -> Vec<Vec<u32>> {
    // In the order of keys, those with a given prefix are neighbours.
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_unstable_by_key(|node| keys[*node as usize].front);
    let sorted: Vec<u64> = order.iter().map(|node| keys[*node as usize].front).collect();
    let table = |node: usize| {
        let mut stream = Stream::new(seed, node as u64, Purpose::Tables);
        let own = keys[node].front;
        let mut table = Vec::with_capacity(10 * K);
        for bits in 0..64u32 {
            // Those that share `bits` bits with us and differ in the next.
            let flipped = own ^ (1 << (63 - bits));
            let low = flipped & !(u64::MAX >> 1 >> bits);
            let high = low | (u64::MAX >> 1 >> bits);
            let start = sorted.partition_point(|key| *key < low);
            let end = sorted.partition_point(|key| *key <= high);
            match end - start {
                count if count <= K => table.extend(&order[start..end]),
                count => table.extend(stream.sample(count, K).into_iter().map(|place| order[start + place])),
            }
        }
        table
    };
    (0..keys.len()).map(table).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_as_many_as_the_study_counts_and_nobody_twice() {
        let world = Still::new(Plan::new(10_000, 42, Faults::default()));
        let entries: usize = world.tables.iter().map(Vec::len).sum();
        let mean = entries as f64 / 10_000.0;
        assert!((mean / 197.0 - 1.0).abs() < 0.03, "{mean} entries");
        for (node, table) in world.tables.iter().enumerate().take(200) {
            let mut sorted = table.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), table.len());
            assert!(!table.contains(&(node as u32)));
        }
    }

    #[test]
    fn a_small_network_is_known_whole() {
        let world = Still::new(Plan::new(20, 1, Faults::default()));
        assert!(world.tables.iter().all(|table| table.len() == 19));
        let mut closest = Vec::new();
        world.closest_known(3, 0, 5, &mut closest);
        let expected = world.closest_of_all(0, K, |node| node != 3 && node != 5);
        assert_eq!(closest, expected);
    }
}
