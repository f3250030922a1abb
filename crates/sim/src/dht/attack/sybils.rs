//! Identities ground for places near a key, to hide what lies there (dht.md D.2-9).
//!
//! An attacker makes [`TRIES`] identities for each node of the network and takes those that lie where it wants them; here their number is what is bounded, and each has a
//! subnet of its own. *Plain* ones are the closest to the key that were found. *Covert* ones keep the twentieth closest peer far enough from the key that the density
//! test says nothing: as many as fit stand among the honest ones, the others behind them.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_dht::{Answer, Contact, Key, Query};
use peerage_identity::PeerId;

use super::super::machines::{Adversary, Deed, Heard, World};
use super::super::still::{K, Key as Front, peer_id};

/// Identities that an attacker makes for each node of the network.
pub const TRIES: u64 = 100;
/// The attacker's identities have these numbers.
const NUMBERS: u64 = 1 << 48;

/// All identities that an attacker has made, of which it uses a few.
#[derive(Debug)]
pub struct Pool {
    seed: u64,
    fronts: Vec<u64>,
}

impl Pool {
    /// Makes identities against a network of so many nodes.
    pub fn new(seed: u64, nodes: usize) -> Self {
        let made =
            (0..TRIES * nodes as u64).map(|one| Front::of(&peer_id(seed, NUMBERS + one).to_bytes()).front);
        Self { seed, fronts: made.collect() }
    }

    /// The closest identities to a target.
    pub fn plain(&self, target: u64, count: usize) -> Vec<PeerId> {
        self.take(self.within(target, u64::MAX), count)
    }

    /// Identities around a target that leave the twentieth closest peer where an honest network of `nodes` may well have it: `honest` are the distances of
    /// its nodes from the target, `score` where the twentieth is left, as a multiple of a node's share of the keyspace.
    pub fn covert(
        &self,
        target: u64,
        honest: &[u64],
        nodes: usize,
        (count, score): (usize, f64),
    ) -> Vec<PeerId> {
        let edge = (score * (u64::MAX as f64 / nodes as f64)) as u64;
        let inside = honest.iter().filter(|distance| **distance <= edge).count();
        let room = (K - 1).saturating_sub(inside).min(count);
        let near = self.within(target, edge);
        // Evenly over the part that is near, so that the low ranks look honest as well.
        let step = (near.len() / room.max(1)).max(1);
        let mut chosen: Vec<(u64, u64)> =
            near.iter().copied().skip(step / 2).step_by(step).take(room).collect();
        let far = self.within(target, edge.saturating_mul(3));
        let beyond: Vec<(u64, u64)> = far.into_iter().filter(|(distance, _)| *distance > edge).collect();
        let lacking = count - chosen.len();
        let step = (beyond.len() / lacking.max(1)).max(1);
        chosen.extend(beyond.into_iter().step_by(step).take(lacking));
        self.take(chosen, count)
    }

    /// Identities within a distance, the closest first.
    fn within(&self, target: u64, most: u64) -> Vec<(u64, u64)> {
        let distances = self.fronts.iter().zip(0..).map(|(front, one)| (front ^ target, one));
        let mut near: Vec<(u64, u64)> = distances.filter(|(distance, _)| *distance <= most).collect();
        near.sort_unstable();
        near
    }

    fn take(&self, chosen: Vec<(u64, u64)>, count: usize) -> Vec<PeerId> {
        chosen.into_iter().take(count).map(|(_, one)| peer_id(self.seed, NUMBERS + one)).collect()
    }
}

/// Where covert Sybils leave the twentieth closest peer, as a multiple of a node's share of the keyspace: the alarm is at 7.5.
pub const COVERT: f64 = 8.8;
/// Where those leave it who know that readers hear out all of a place that is crowded, which is below 13: fewer of them stand among the closest.
pub const SHY: f64 = 14.5;

/// What Sybils answer to those who ask for the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// That there is none.
    Nothing,
    /// Something that looks like it, and newer: its signature does not hold.
    Forged,
    /// An older version of it, which its publisher did sign.
    Old,
}

/// Sybils around keys.
#[derive(Debug)]
pub struct Sybils {
    lie: Lie,
    /// The keys, each with those who sit around it and with what they answer.
    groups: Vec<Group>,
    /// Which group a node belongs to.
    of: BTreeMap<u32, usize>,
}

/// Those around one key.
#[derive(Debug)]
struct Group {
    key: Key,
    members: Vec<Contact>,
    value: Option<Bytes>,
}

impl Sybils {
    /// Nobody yet.
    pub fn new(lie: Lie) -> Self {
        Self { lie, groups: Vec::new(), of: BTreeMap::new() }
    }

    /// These nodes sit around a key. `value` is what those who lie answer with.
    pub fn surround(
        &mut self,
        world: &World,
        key: Key,
        nodes: impl IntoIterator<Item = u32>,
        value: Option<Bytes>,
    ) {
        let mut members = Vec::new();
        for node in nodes {
            self.of.insert(node, self.groups.len());
            members.push(world.nodes[node as usize].contact.clone());
        }
        self.groups.push(Group { key, members, value });
    }

    /// Whether a node is one of them.
    pub fn has(&self, node: u32) -> bool {
        self.of.contains_key(&node)
    }
}

impl Group {
    /// Its members closest to what is asked for, but for the one who asks.
    fn closest(&self, target: &Key, asker: &Contact) -> Vec<Contact> {
        let mut closest: Vec<&Contact> =
            self.members.iter().filter(|member| member.key() != asker.key()).collect();
        closest.sort_unstable_by_key(|member| member.key().distance(target));
        closest.into_iter().take(K).cloned().collect()
    }
}

impl Adversary for Sybils {
    fn deed(&mut self, world: &World, heard: &Heard<'_>) -> Deed {
        let Some(group) = self.of.get(&heard.node).and_then(|group| self.groups.get(*group)) else {
            return Deed::Fair;
        };
        if self.of.contains_key(&heard.from) {
            return Deed::Fair;
        }
        let asker = &world.nodes[heard.from as usize].contact;
        // Around the key they name each other alone; elsewhere they are good citizens, so that tables keep them.
        let is_near = |target: &Key| target.shared_bits(&group.key) + 6 > world.nodes.len().ilog2();
        match heard.query {
            Query::FindNode { target } | Query::GetProviders { target, .. } if is_near(target.key()) => {
                super::name(group.closest(target.key(), asker))
            }
            Query::GetValue { target, .. } if is_near(target.key()) => {
                let known = (target.key() == &group.key).then_some(&group.value);
                let values = match self.lie {
                    Lie::Nothing => Vec::new(),
                    Lie::Forged | Lie::Old => known.into_iter().flatten().cloned().collect(),
                };
                let closer = group.closest(target.key(), asker);
                Deed::Say(Box::new(Answer { closer, values, extended: true, ..Answer::default() }))
            }
            Query::PutValue { target, .. } | Query::AddProvider { target, .. } if is_near(target.key()) => {
                super::pretend()
            }
            Query::Repair(_) => Deed::Silence,
            _ => Deed::Fair,
        }
    }
}
