//! The peers that a lookup has heard of, by distance.

use std::collections::BTreeMap;

use super::super::queue::Micros;

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Heard of only.
    New,
    /// Asked at this time, not answered.
    Asked(Micros),
    /// Asked again, or for so long that it holds no slot; the time is that of the first request.
    Slow(Micros),
    /// It answered.
    Answered,
    /// Given up.
    Failed,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Who it is.
    pub peer: u32,
    /// What became of it.
    pub state: State,
}

/// All of them, the closest first.
#[derive(Debug, Default)]
pub struct Candidates {
    by_distance: BTreeMap<u64, Candidate>,
    distances: BTreeMap<u32, u64>,
}

impl Candidates {
    /// Adds one that is not there yet; true when it was new.
    pub fn add(&mut self, distance: u64, peer: u32) -> bool {
        if self.by_distance.contains_key(&distance) {
            return false;
        }
        self.by_distance.insert(distance, Candidate { peer, state: State::New });
        self.distances.insert(peer, distance);
        true
    }

    /// The distance of the closest.
    pub fn nearest(&self) -> Option<u64> {
        self.by_distance.keys().next().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_distance.len()
    }

    /// True before the first is added.
    pub fn is_empty(&self) -> bool {
        self.by_distance.is_empty()
    }

    /// The closest first.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.by_distance.values()
    }

    /// The closest first, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Candidate> {
        self.by_distance.values_mut()
    }

    /// One of them.
    pub fn get_mut(&mut self, peer: u32) -> Option<&mut Candidate> {
        self.by_distance.get_mut(self.distances.get(&peer)?)
    }

    /// The `count` closest that answered.
    pub fn answered(&self, count: usize) -> Vec<u32> {
        self.iter().filter(|one| one.state == State::Answered).map(|one| one.peer).take(count).collect()
    }
}
