//! Gets and stores by the rules of other libraries ([`policy`](super::policy)) in a network of our machines: who asks goes by them, everybody else is what it is.
//!
//! The study's list of rules (dht.md A.2) says how a lookup asks, waits and ends, and nothing of the rest. There they have what is best for them, within reason:
//!
//! - A store hands a copy to each of the 20 peers that a search for the closest has ended with, to all at once, over the connections that stand by then. Its caller is told when half
//!   of them have it, which is what ours promises; they would wait for all, or leave it to the caller.
//! - A get ends with the first value whose signature holds; none takes one that was forged. (Ours waits for a second answer, from another network, where a value may have a newer version.)
//! - A get asks others alone. (Ours looks first at what the asker holds itself: at 10,000 nodes two gets in a thousand end there.)
//! - Those who answer keep their tables as our nodes do, and hold and repair what they were given by our rules.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_dht::{Answer, Contact, Query, RequestId, Status, Target};

use super::machines::{Happened, World};
use super::policy::{Goal, Kind, Policy, Reply, Step};
use super::queue::{Micros, SECOND};
use super::still::{K, Key as Front};
use super::walk::Walked;

/// A store that lacks answers for so long is given up; a lookup ends in any case after many times this.
const PATIENCE: Micros = 10 * SECOND;
/// No lookup runs longer than this.
const LONGEST: Micros = 60 * PATIENCE;

/// What became of a get or a store.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    /// Its figures, of a store until its caller was told, with the warm ones among its questions; whether it found something, or was told that enough have it.
    pub walked: Walked,
    /// How many of the requests were copies.
    pub copies: u32,
    /// The value that was found.
    pub value: Option<Bytes>,
}

/// Operations of one library's nodes.
pub struct Others {
    kind: Kind,
    active: BTreeMap<u64, Active>,
    asked: BTreeMap<RequestId, Asked>,
    last: u64,
    /// What has ended, by the operation's number.
    pub ended: BTreeMap<u64, Ended>,
}

/// What a request was for.
#[derive(Clone, Copy)]
struct Asked {
    operation: u64,
    peer: u32,
    is_copy: bool,
}

/// An operation under way.
struct Active {
    node: u32,
    target: Target,
    /// What is to be stored; `None` of a get.
    stores: Option<Bytes>,
    began: Micros,
    policy: Box<dyn Policy>,
    due: Micros,
    /// How many answers led to each peer.
    depth: BTreeMap<u32, u32>,
    copies: Option<Copies>,
    walked: Walked,
}

/// The copies of a store.
struct Copies {
    sent: u32,
    needed: usize,
    stored: usize,
    out: usize,
}

impl Others {
    /// Nodes that go by these rules; `None` for ours.
    pub fn new(kind: Kind) -> Option<Self> {
        kind.rules(Goal::Value)?;
        let (active, asked, ended) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Some(Self { kind, active, asked, last: 0, ended })
    }

    /// A node begins to look for a value.
    pub fn get(&mut self, world: &mut World, node: u32, target: &Target) -> u64 {
        self.start(world, node, target, None)
    }

    /// A node begins to store a value.
    pub fn store(&mut self, world: &mut World, node: u32, target: &Target, value: Bytes) -> u64 {
        self.start(world, node, target, Some(value))
    }

    /// Runs the world until then.
    pub fn run(&mut self, world: &mut World, end: Micros) {
        while self.step(world, end) {}
    }

    /// Runs the world until an operation has ended.
    pub fn finish(&mut self, world: &mut World, operation: u64) {
        let end = world.now() + 2 * LONGEST;
        while !self.ended.contains_key(&operation) && self.step(world, end) {}
    }

    fn start(&mut self, world: &mut World, node: u32, target: &Target, stores: Option<Bytes>) -> u64 {
        self.last += 1;
        let goal = if stores.is_some() { Goal::Closest } else { Goal::Value };
        let Some(mut policy) = self.kind.rules(goal) else { return self.last };
        let dht = world.nodes[node as usize].dht.as_ref();
        let known = dht.map(|dht| dht.table().closest(target.key(), K)).unwrap_or_default();
        let seeds = named(world, node, target, &known);
        policy.start(0, &seeds);
        let depth = seeds.into_iter().map(|(_, peer)| (peer, 0)).collect();
        let (began, target) = (world.now(), target.clone());
        let walked = Walked::default();
        let active = Active { node, target, stores, began, policy, due: began, depth, copies: None, walked };
        self.active.insert(self.last, active);
        self.drive(world, self.last);
        self.last
    }

    /// Goes on to the next thing that happens; false when that would be after `end`.
    fn step(&mut self, world: &mut World, end: Micros) -> bool {
        let due = self.active.values().map(|active| active.due).min().unwrap_or(end).min(end);
        match world.run_until(due) {
            Some(Happened::Answered { request, rtt, answer }) => self.answered(world, request, rtt, &answer),
            Some(_) => {}
            None => {
                let due = self.active.iter().filter(|(_, active)| active.due <= world.now());
                let due: Vec<u64> = due.map(|(operation, _)| *operation).collect();
                due.iter().for_each(|operation| self.drive(world, *operation));
                return !due.is_empty() || world.now() < end;
            }
        }
        true
    }

    /// Does what the rules want.
    fn drive(&mut self, world: &mut World, operation: u64) {
        let Some(mut active) = self.active.remove(&operation) else { return };
        let age = world.now() - active.began;
        // What is due of a store is its end.
        if active.copies.is_some() || age >= LONGEST {
            return self.end(operation, active, age, None);
        }
        loop {
            match active.policy.next(age) {
                Step::Ask(peer) => {
                    let query = active.question();
                    self.ask(world, &mut active, query, Asked { operation, peer, is_copy: false });
                }
                Step::Cancel(_) => {}
                Step::Wait(until) => {
                    active.due = active.began + until.unwrap_or(LONGEST).clamp(age + 1, LONGEST);
                    self.active.insert(operation, active);
                    return;
                }
                Step::Done if active.stores.is_some() => return self.hand_out(world, operation, active),
                Step::Done => return self.end(operation, active, age, None),
            }
        }
    }

    fn ask(&mut self, world: &mut World, active: &mut Active, query: Query, asked: Asked) {
        let (request, stood) = world.query(active.node, asked.peer, query);
        active.walked.requests += 1;
        active.walked.warm += u32::from(stood && !asked.is_copy);
        self.asked.insert(request, asked);
    }

    /// The search is over: all whom it ended with get a copy.
    fn hand_out(&mut self, world: &mut World, operation: u64, mut active: Active) {
        let holders = active.policy.closest();
        let Some(value) = active.stores.clone().filter(|_| !holders.is_empty()) else {
            let age = world.now() - active.began;
            return self.end(operation, active, age, None);
        };
        for peer in &holders {
            let query = Query::PutValue { target: active.target.clone(), value: value.clone() };
            self.ask(world, &mut active, query, Asked { operation, peer: *peer, is_copy: true });
        }
        let (sent, needed) = (holders.len() as u32, holders.len().div_ceil(2));
        active.copies = Some(Copies { sent, needed, stored: 0, out: holders.len() });
        active.due = world.now() + PATIENCE;
        self.active.insert(operation, active);
    }

    fn answered(&mut self, world: &mut World, request: RequestId, rtt: Micros, answer: &Answer) {
        let Some(asked) = self.asked.remove(&request) else { return };
        let Some(active) = self.active.get_mut(&asked.operation) else { return };
        let age = world.now() - active.began;
        let end = match (&mut active.copies, asked.is_copy) {
            (Some(copies), true) => copies.count(answer.status).then_some(None),
            (None, false) => active.learn(world, age, asked.peer, rtt, answer).map(Some),
            // Late: the search has ended without it.
            _ => return,
        };
        match end {
            Some(value) => {
                let Some(active) = self.active.remove(&asked.operation) else { return };
                self.end(asked.operation, active, age, value);
            }
            None if asked.is_copy => {}
            None => self.drive(world, asked.operation),
        }
    }

    fn end(&mut self, operation: u64, active: Active, age: Micros, value: Option<Bytes>) {
        let told = active.copies.as_ref().is_some_and(|copies| copies.stored >= copies.needed);
        let copies = active.copies.map_or(0, |copies| copies.sent);
        let walked = Walked { took: age, found: value.is_some() || told, ..active.walked };
        self.ended.insert(operation, Ended { walked, copies, value });
    }
}

impl Active {
    fn question(&self) -> Query {
        let target = self.target.clone();
        match self.stores {
            Some(_) => Query::FindNode { target },
            None => Query::GetValue { target, cursor: None, wait: None },
        }
    }

    /// Takes an answer in; gives the value that ends a get.
    fn learn(
        &mut self,
        world: &World,
        age: Micros,
        peer: u32,
        rtt: Micros,
        answer: &Answer,
    ) -> Option<Bytes> {
        let closer = named(world, self.node, &self.target, &answer.closer);
        let depth = self.depth.get(&peer).copied().unwrap_or_default() + 1;
        for (_, one) in &closer {
            self.depth.entry(*one).or_insert(depth);
        }
        self.walked.hops = self.walked.hops.max(depth);
        let holds = |value: &&Bytes| world.setting.records.is_none() || world.open(value).is_some();
        if let Some(value) = answer.values.iter().find(holds).filter(|_| self.stores.is_none()) {
            self.walked.hops = depth;
            return Some(value.clone());
        }
        self.policy.answered(age, &Reply { peer, rtt, closer: &closer, value: false });
        None
    }
}

impl Copies {
    /// Counts an answer; true when the caller can be told how it went.
    fn count(&mut self, status: Status) -> bool {
        self.out -= 1;
        self.stored += usize::from(matches!(status, Status::Ok | Status::Stored));
        self.stored >= self.needed || self.out == 0
    }
}

/// Those of whom an answer tells, with their distances, without the one who asks.
fn named(world: &World, asker: u32, target: &Target, contacts: &[Contact]) -> Vec<(u64, u32)> {
    let front = |contact: &Contact| Front::new(contact.key().to_bytes()).front;
    let target = Front::new(target.key().to_bytes()).front;
    let named = contacts.iter().filter_map(|one| Some((front(one) ^ target, world.node_of(one)?)));
    named.filter(|(_, peer)| *peer != asker).collect()
}
