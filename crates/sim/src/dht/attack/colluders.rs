//! A share of all nodes works together: whatever they are asked, they name the ones among them that are closest to it (dht.md A.3, D.2-10 and 11).

use peerage_dht::{Contact, Key, Query};

use super::super::machines::{Adversary, Deed, Heard, World};
use super::super::still::{K, Key as Front};

/// The colluding nodes.
#[derive(Debug)]
pub struct Colluders {
    /// Which of all nodes are.
    hostile: Vec<bool>,
    /// They, in the order of their keys.
    order: Vec<(u64, Contact)>,
}

impl Colluders {
    /// These nodes of a network.
    pub fn new(world: &World, nodes: impl IntoIterator<Item = u32>) -> Self {
        let mut hostile = vec![false; world.nodes.len()];
        let mut order = Vec::new();
        for node in nodes {
            hostile[node as usize] = true;
            let contact = world.nodes[node as usize].contact.clone();
            order.push((Front::new(contact.key().to_bytes()).front, contact));
        }
        order.sort_by_key(|(front, _)| *front);
        Self { hostile, order }
    }

    /// Whether a node is one of them.
    pub fn has(&self, node: u32) -> bool {
        self.hostile.get(node as usize).copied().unwrap_or_default()
    }

    /// The colluders closest to a key, but for the one who asks.
    fn closest(&self, target: &Key, asker: &Contact) -> Vec<Contact> {
        let front = Front::new(target.to_bytes()).front;
        // All that share enough bits with the target: the smallest such part that holds as many as are wanted.
        let mut range = 0..self.order.len();
        for bits in 1..=64u32 {
            let mask = u64::MAX << (64 - bits);
            let low = self.order.partition_point(|(key, _)| key & mask < front & mask);
            let high = self.order.partition_point(|(key, _)| key & mask <= front & mask);
            if high - low <= K {
                break;
            }
            range = low..high;
        }
        let mut closest: Vec<&(u64, Contact)> = self.order[range].iter().collect();
        closest.sort_unstable_by_key(|(key, _)| key ^ front);
        let named = closest.into_iter().map(|(_, contact)| contact).filter(|one| one.key() != asker.key());
        named.take(K).cloned().collect()
    }
}

impl Adversary for Colluders {
    fn deed(&mut self, world: &World, heard: &Heard<'_>) -> Deed {
        // They answer each other truthfully: they are one.
        if !self.has(heard.node) || self.has(heard.from) {
            return Deed::Fair;
        }
        match heard.query {
            Query::FindNode { target }
            | Query::GetValue { target, .. }
            | Query::GetProviders { target, .. } => {
                super::name(self.closest(target.key(), &world.nodes[heard.from as usize].contact))
            }
            Query::PutValue { .. } | Query::AddProvider { .. } => super::pretend(),
            Query::Repair(_) => Deed::Silence,
            Query::Ping | Query::Silent { .. } => Deed::Fair,
        }
    }
}
