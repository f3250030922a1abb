//! A small network of DHT nodes in virtual time: it carries messages, and checks every node after each event.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses some of it")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::Records;
use peerage_dht::store::{Disk, MemoryDisk};
use peerage_dht::*;
use peerage_identity::{DialAddress, NodeKey, PeerId};
use peerage_machine::{Machine, Now, Random};

/// How a node behaves towards others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Fair,
    /// It says nothing.
    Silent,
    /// It answers half a second to three seconds late.
    Slow,
    /// Dials to it are refused at once.
    Gone,
}

pub struct Node {
    pub dht: Dht,
    pub contact: Contact,
    pub ip: IpAddr,
    pub manner: Manner,
    place: (f64, f64),
    access: f64,
    wake: Option<Duration>,
    /// What it holds, beside what the machine does.
    pub values: BTreeMap<Key, Vec<Bytes>>,
    pub providers: BTreeMap<Key, Vec<Contact>>,
    pub done: Vec<(OperationId, Outcome)>,
    pub settled: Vec<(OperationId, Outcome)>,
    pub steps: Vec<(OperationId, Step)>,
    pub events: Vec<(Duration, Event)>,
    pub wants_contacts: usize,
    /// What its records have written.
    pub disk: MemoryDisk,
    /// Its clock is so much ahead of everybody else's.
    pub clock_ahead: Duration,
    pub asks: usize,
}

enum Parcel {
    Query { from: usize, request: RequestId, query: Query, sent: Duration },
    Answer { request: RequestId, rtt: Duration, remote: IpAddr, answer: Answer },
    Failure { request: RequestId, why: Failure },
    Wake,
}

/// So many events at one time are a node that never rests.
const MOST_AT_ONCE: u32 = 100_000;

pub struct Net {
    pub nodes: Vec<Node>,
    index: BTreeMap<Key, usize>,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    parcels: BTreeMap<u64, Parcel>,
    sequence: u64,
    pub now: Duration,
    /// Events since time went on.
    still: u32,
    pub random: Random,
    /// Holders accept what they are asked to store.
    pub stores: bool,
    /// Nodes hold records themselves.
    holds: Option<Box<dyn Fn() -> Records>>,
    seed: u64,
    config: std::sync::Arc<DhtConfig>,
    /// A query comes over a connection, of which the one who is asked learns.
    pub links: bool,
    linked: BTreeSet<(usize, usize)>,
    /// Every node is checked after each event of its own.
    pub checked: bool,
    /// Of all events, in their order.
    pub hash: u64,
    pub messages: u64,
    pub bytes: u64,
    queries: BTreeMap<(usize, QueryId), (usize, RequestId, Duration)>,
    next_query: u64,
    next_operation: u64,
}

/// The key of a node.
pub fn key(seed: u64, number: usize) -> NodeKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    NodeKey::from_seed(bytes)
}

pub fn peer(seed: u64, number: usize) -> PeerId {
    key(seed, number).peer_id()
}

impl Net {
    pub fn new(seed: u64, count: usize, config: &DhtConfig) -> Self {
        let mut net = Self {
            nodes: Vec::new(),
            index: BTreeMap::new(),
            queue: BinaryHeap::new(),
            parcels: BTreeMap::new(),
            sequence: 0,
            still: 0,
            now: Duration::from_secs(1),
            random: Random::from_number(seed),
            stores: true,
            holds: None,
            seed,
            config: std::sync::Arc::new(config.clone()),
            links: false,
            linked: BTreeSet::new(),
            checked: true,
            hash: 0,
            messages: 0,
            bytes: 0,
            queries: BTreeMap::new(),
            next_query: 0,
            next_operation: 0,
        };
        let config = std::sync::Arc::new(config.clone());
        let clusters: Vec<(f64, f64)> = (0..5).map(|_| (net.random.unit(), net.random.unit())).collect();
        for number in 0..count {
            let ip = Ipv4Addr::new(20 + (number & 63) as u8, (number >> 6) as u8, (number >> 14) as u8, 7);
            let address: DialAddress = format!("/ip4/{ip}/udp/4001/quic-v1").parse().unwrap();
            let peer = peer(seed, number);
            let contact = Contact::new(peer, &[address]);
            let cluster = clusters[net.random.index(5)];
            let place = (cluster.0 + 0.1 * net.normal(), cluster.1 + 0.1 * net.normal());
            let access = 26.0 * (0.5 * net.normal()).exp();
            let dht = Dht::new(
                config.clone(),
                peer,
                Mode::Server,
                Box::new(AcceptAll),
                net.random.fork(),
                net.time(),
            );
            net.index.insert(*contact.key(), number);
            net.nodes.push(Node {
                dht,
                contact,
                ip: ip.into(),
                manner: Manner::Fair,
                place,
                access,
                wake: None,
                values: BTreeMap::new(),
                providers: BTreeMap::new(),
                done: Vec::new(),
                settled: Vec::new(),
                steps: Vec::new(),
                events: Vec::new(),
                wants_contacts: 0,
                disk: MemoryDisk::default(),
                clock_ahead: Duration::ZERO,
                asks: 0,
            });
        }
        net
    }

    /// Gives every node a table as an honest network has: per bucket all peers if there are few, some at random otherwise.
    pub fn plant(&mut self) {
        let keys: Vec<Key> = self.nodes.iter().map(|node| *node.contact.key()).collect();
        let now = self.time();
        for at in 0..keys.len() {
            let mut buckets: Vec<(u64, Vec<usize>)> = Vec::new();
            for (other, key) in keys.iter().enumerate() {
                if other == at {
                    continue;
                }
                let bits = keys[at].shared_bits(key) as usize;
                if buckets.len() <= bits {
                    buckets.resize(bits + 1, (0, Vec::new()));
                }
                let (met, chosen) = &mut buckets[bits];
                *met += 1;
                if chosen.len() < 20 {
                    chosen.push(other);
                } else {
                    let slot = self.random.below(*met) as usize;
                    if let Some(place) = chosen.get_mut(slot) {
                        *place = other;
                    }
                }
            }
            let contacts: Vec<Contact> = buckets
                .iter()
                .flat_map(|(_, chosen)| chosen)
                .map(|o| self.nodes[*o].contact.clone())
                .collect();
            let size = keys.len() as f64;
            self.nodes[at].dht.plant(now, contacts);
            self.nodes[at].dht.plant_size(now, size, 16);
            self.after(at);
        }
    }

    pub fn time(&self) -> Now {
        Now { mono: self.now, unix: self.now + Duration::from_secs(1_700_000_000) }
    }

    /// The key of a node.
    pub fn key(&self, at: usize) -> NodeKey {
        key(self.seed, at)
    }

    /// All nodes hold records, each by rules of its own. To be called before anything else happens.
    pub fn hold_records(&mut self, rules: impl Fn() -> Records + 'static) {
        self.holds = Some(Box::new(rules));
        for at in 0..self.nodes.len() {
            self.restart(at, Vec::new());
        }
    }

    /// A node begins anew with what its disk holds, and in the network as it stands.
    pub fn restart(&mut self, at: usize, rows: Vec<(Bytes, Bytes)>) {
        let (now, key) = (self.time(), self.key(at));
        let rules = self.holds.as_ref().map(|rules| rules()).unwrap();
        let old = &self.nodes[at].dht;
        let known = old.table().siblings();
        let random = self.random.fork();
        let dht =
            Dht::new(self.config.clone(), key.peer_id(), Mode::Server, Box::new(AcceptAll), random, now);
        self.nodes[at].dht = dht.with_records(key, rules);
        self.nodes[at].dht.restore(now, rows);
        self.nodes[at].dht.plant(now, known);
        self.after(at);
    }

    /// The time as a node sees it.
    fn time_of(&self, at: usize) -> Now {
        let now = self.time();
        Now { unix: now.unix + self.nodes[at].clock_ahead, ..now }
    }

    /// The round trip time between two nodes.
    pub fn rtt(&self, a: usize, b: usize) -> Duration {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        let way = ((a.place.0 - b.place.0).powi(2) + (a.place.1 - b.place.1).powi(2)).sqrt();
        Duration::from_secs_f64((way * 140.0 + a.access + b.access) / 1000.0)
    }

    pub fn start(&mut self, at: usize, wanted: Operation, options: Options) -> OperationId {
        self.next_operation += 1;
        let operation = OperationId(self.next_operation);
        self.input(at, Input::Start { operation, wanted, options });
        operation
    }

    pub fn input(&mut self, at: usize, input: Input) {
        let now = self.time_of(at);
        self.nodes[at].dht.handle(now, input);
        self.after(at);
    }

    /// Runs until nothing is left to do or the time has come.
    pub fn run_until(&mut self, end: Duration) {
        while let Some(Reverse((time, ..))) = self.queue.peek()
            && *time <= end
        {
            self.step();
        }
        self.now = self.now.max(end);
    }

    pub fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until an operation of a node is over for its caller.
    pub fn outcome(&mut self, at: usize, operation: OperationId) -> Outcome {
        loop {
            let done = self.nodes[at].done.iter().position(|(id, _)| *id == operation);
            if let Some(place) = done {
                return self.nodes[at].done.remove(place).1;
            }
            assert!(self.step(), "an operation never ended");
        }
    }

    pub fn find(&mut self, at: usize, wanted: Operation) -> Outcome {
        let operation = self.start(at, wanted, Options::default());
        self.outcome(at, operation)
    }

    /// The `count` fair nodes closest to a key.
    pub fn truth(&self, key: &Key, count: usize) -> Vec<Contact> {
        let mut fair: Vec<&Node> = self.nodes.iter().filter(|node| node.manner == Manner::Fair).collect();
        fair.sort_by_key(|node| node.contact.key().distance(key));
        fair.iter().take(count).map(|node| node.contact.clone()).collect()
    }

    pub fn step(&mut self) -> bool {
        let Some(Reverse((time, sequence, at))) = self.queue.pop() else { return false };
        let Some(parcel) = self.parcels.remove(&sequence) else { return true };
        self.still = if time > self.now { 0 } else { self.still + 1 };
        assert!(
            self.still < MOST_AT_ONCE,
            "time stands still at {time:?}: node {at} wants to be woken again and again"
        );
        self.now = self.now.max(time);
        self.hash = (self.hash ^ time.as_nanos() as u64 ^ (at as u64) << 40).wrapping_mul(0x100_0000_01b3);
        let now = self.time_of(at);
        match parcel {
            Parcel::Wake => {
                if self.nodes[at].wake == Some(time) {
                    self.nodes[at].wake = None;
                    self.nodes[at].dht.handle_timeout(now);
                    self.after(at);
                }
            }
            Parcel::Query { from, request, query, sent } => self.deliver(at, from, request, query, sent),
            Parcel::Answer { request, rtt, remote, answer } => {
                self.input(at, Input::Answered { request, rtt, remote, answer });
            }
            Parcel::Failure { request, why } => self.input(at, Input::Failed { request, why }),
        }
        true
    }

    fn deliver(&mut self, at: usize, from: usize, request: RequestId, query: Query, sent: Duration) {
        if self.nodes[at].manner == Manner::Silent {
            return;
        }
        self.next_query += 1;
        let id = QueryId(self.next_query);
        self.queries.insert((at, id), (from, request, sent));
        let (peer, remote) = (*self.nodes[from].contact.peer(), self.nodes[from].ip);
        if self.links && self.linked.insert((at, from)) {
            let contact = self.nodes[from].contact.clone();
            self.input(at, Input::Connected { contact, remote, rtt: None });
            self.input(at, Input::Supports { peer, serves: self.nodes[from].dht.mode() == Mode::Server });
        }
        let ask = query.clone();
        self.input(at, Input::Asked { query: id, from: peer, remote, ask: query, extended: true });
        // What the machine leaves to records is done here.
        let replied = self.parcels.values_mut().rev().take(32).find_map(|parcel| match parcel {
            Parcel::Answer { request: of, answer, .. } if *of == request => Some(answer),
            _ => None,
        });
        if let Some(answer) = replied.filter(|_| self.holds.is_none()) {
            let node = &mut self.nodes[at];
            match (&ask, self.stores) {
                (Query::GetValue { target, .. }, _) => {
                    answer.values = node.values.get(target.key()).cloned().unwrap_or_default();
                }
                (Query::GetProviders { target, .. }, _) => {
                    answer.providers = node.providers.get(target.key()).cloned().unwrap_or_default();
                }
                (Query::PutValue { target, value }, true) => {
                    node.values.insert(*target.key(), vec![value.clone()]);
                    answer.status = Status::Stored;
                }
                (Query::AddProvider { target, provider }, true) => {
                    node.providers.entry(*target.key()).or_default().push(provider.clone());
                    answer.status = Status::Stored;
                }
                _ => {}
            }
        }
    }

    fn after(&mut self, at: usize) {
        let mut outputs = Vec::new();
        while let Some(output) = self.nodes[at].dht.poll_output() {
            outputs.push(output);
        }
        for output in outputs {
            self.carry(at, output);
        }
        if self.checked {
            self.nodes[at].dht.check().unwrap();
        }
        let wake = self.nodes[at].dht.poll_timeout();
        if wake.is_some() && wake != self.nodes[at].wake {
            let wake = wake.map(|wake| wake.max(self.now));
            self.nodes[at].wake = wake;
            self.send(at, wake.unwrap_or_default(), Parcel::Wake);
        }
    }

    fn carry(&mut self, at: usize, output: Output) {
        match output {
            Output::Ask { request, contact, query, .. } => {
                self.nodes[at].asks += 1;
                self.messages += 1;
                let to = self.index.get(contact.key()).copied();
                match to.filter(|to| self.nodes[*to].manner != Manner::Gone) {
                    Some(to) => {
                        let half = self.rtt(at, to) / 2;
                        let sent = self.now;
                        self.send(to, sent + half, Parcel::Query { from: at, request, query, sent });
                    }
                    None => {
                        let soon = self.now + Duration::from_millis(50);
                        self.send(at, soon, Parcel::Failure { request, why: Failure::Refused });
                    }
                }
            }
            Output::Reply { query, answer } => {
                self.bytes += answer.wire_bytes() as u64;
                let Some((to, request, sent)) = self.queries.remove(&(at, query)) else { return };
                let slow = match self.nodes[at].manner {
                    Manner::Slow => Duration::from_millis(500 + self.random.below(2500)),
                    _ => Duration::ZERO,
                };
                let (remote, arrives) = (self.nodes[at].ip, self.now + self.rtt(at, to) / 2 + slow);
                let rtt = arrives - sent;
                self.send(to, arrives, Parcel::Answer { request, rtt, remote, answer });
            }
            Output::Done { operation, outcome } => self.nodes[at].done.push((operation, *outcome)),
            Output::Settled { operation, outcome } => self.nodes[at].settled.push((operation, *outcome)),
            Output::Step { operation, step } => self.nodes[at].steps.push((operation, step)),
            Output::Event(event) => self.nodes[at].events.push((self.now, event)),
            Output::Write(batch) => {
                let ok = self.nodes[at].disk.write(&batch).is_ok();
                self.input(at, Input::Written { number: batch.number, ok });
            }
            Output::WantContacts => self.nodes[at].wants_contacts += 1,
            _ => {}
        }
    }

    fn send(&mut self, to: usize, time: Duration, parcel: Parcel) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence, to)));
        self.parcels.insert(self.sequence, parcel);
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.random.unit(), self.random.unit());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// The value at a share of a sorted list.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}
