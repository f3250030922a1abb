//! Hundreds of peer managers in a discrete-event loop, without QUIC: nodes come and go for a day, and nobody is left alone.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{DialAddress, NodeKey, PeerId, SignedPeerRecord};
use peerage_machine::{Machine, Now, Random};
use peerage_peers::{
    Answer, AttemptId, CloseReason, ConnId, Direction, Failure, Fault, HelloFacts, Input, Output, PeerAnswer,
    PeerManager, PeersConfig, Role,
};

/// One in so many nodes is known to everybody, and stays.
const SEED_IN: usize = 200;
/// How long a node stays, and stays away, on average, in seconds.
const STAYS: f64 = 6.0 * 3600.0;
const AWAY: f64 = 1800.0;
/// In steps of so many seconds nodes come and go.
const STEP: u64 = 30;
/// One way, and the last flight of a handshake, after which both ends know the connection.
const DELAY: Duration = Duration::from_millis(40);
const LATER: Duration = Duration::from_millis(110);
/// When a silent peer is missed, and when a dial is given up.
const IDLE: Duration = Duration::from_secs(30);
const NO_ANSWER: Duration = Duration::from_secs(5);

/// Something that reaches a node at a time.
enum Delivery {
    Input(Box<Input>),
    Syn { from: usize, attempt: AttemptId, conn: ConnId, expected: Option<PeerId> },
    Asked { conn: ConnId },
    Timer,
}

/// When, in which order, to whom, in which of its lives.
struct Due(Duration, u64, usize, u64, Delivery);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

struct Node {
    manager: PeerManager,
    id: PeerId,
    address: SocketAddr,
    record: SignedPeerRecord,
    life: u64,
    since: Option<Duration>,
    timer: Option<Duration>,
}

struct Crowd {
    nodes: Vec<Node>,
    places: HashMap<SocketAddr, usize>,
    ids: HashMap<PeerId, usize>,
    /// Every record of this world, verified once.
    records: HashMap<Bytes, SignedPeerRecord>,
    /// The two ends of each connection that both still have.
    wires: BTreeMap<ConnId, [usize; 2]>,
    queue: BinaryHeap<Due>,
    now: Duration,
    count: u64,
    conns: u64,
    random: Random,
    crashes: usize,
}

impl Crowd {
    fn new(nodes: usize, seed: u64) -> Self {
        let mut crowd = Self {
            nodes: Vec::new(),
            places: HashMap::new(),
            ids: HashMap::new(),
            records: HashMap::new(),
            wires: BTreeMap::new(),
            queue: BinaryHeap::new(),
            now: Duration::ZERO,
            count: 0,
            conns: 0,
            random: Random::from_number(seed),
            crashes: 0,
        };
        for number in 0..nodes {
            crowd.add(number);
        }
        for number in 0..nodes {
            crowd.start(number);
            if number % 20 == 0 {
                crowd.run_for(Duration::from_secs(1));
            }
        }
        crowd
    }

    fn seeds(&self) -> usize {
        self.nodes.len().div_ceil(SEED_IN)
    }

    /// A node that isn't started yet.
    fn add(&mut self, number: usize) {
        let mut seed = [0; 32];
        self.random.fill(&mut seed);
        let key = NodeKey::from_seed(seed);
        // Each in a subnet of its own.
        let address = SocketAddr::from(([20, (number / 250) as u8, (number % 250) as u8, 1], 4000));
        let record =
            SignedPeerRecord::sign(&key, 1, &[DialAddress::from_socket_addr(address).unwrap()]).unwrap();
        let id = key.peer_id();
        self.records.insert(record.as_bytes().clone(), record.clone());
        self.places.insert(address, number);
        self.ids.insert(id, number);
        let manager = PeerManager::new(PeersConfig::default(), id, 0, self.random.fork());
        self.nodes.push(Node { manager, id, address, record, life: 0, since: None, timer: None });
    }

    fn start(&mut self, number: usize) {
        let config = PeersConfig { max_outbound: 8, max_inbound: 32, ..PeersConfig::default() };
        let node = &mut self.nodes[number];
        node.life += 1;
        node.since = Some(self.now);
        node.timer = None;
        node.manager = PeerManager::new(config, node.id, node.life, self.random.fork());
        for seed in (0..self.seeds()).filter(|seed| *seed != number) {
            let seed = &self.nodes[seed];
            let address = DialAddress::from_socket_addr(seed.address).unwrap().with_peer_id(seed.id).unwrap();
            let now = self.time();
            self.nodes[number].manager.handle(now, Input::Add { address, role: Role::Seed });
        }
        self.carry_out(number);
    }

    /// It is gone without a word; its peers miss it after a while.
    fn crash(&mut self, number: usize) {
        self.crashes += 1;
        self.nodes[number].since = None;
        let lost: Vec<_> = self.wires.iter().filter(|(_, ends)| ends.contains(&number)).collect();
        let lost: Vec<_> =
            lost.into_iter().map(|(conn, [a, b])| (*conn, if *a == number { *b } else { *a })).collect();
        for (conn, other) in lost {
            self.wires.remove(&conn);
            let failure = Failure::new(Fault::Silent, "silent for 30 s");
            self.send(other, IDLE, Input::Closed { conn, failure, useful: true });
        }
    }

    /// Lets so much time pass, in which nodes crash and come back.
    fn live_for(&mut self, time: Duration) {
        for _ in 0..time.as_secs() / STEP {
            for number in self.seeds()..self.nodes.len() {
                let (up, draw) = (self.nodes[number].since.is_some(), self.random.unit());
                if up && draw < STEP as f64 / STAYS {
                    self.crash(number);
                } else if !up && draw < STEP as f64 / AWAY {
                    self.start(number);
                }
            }
            self.run_for(Duration::from_secs(STEP));
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|due| due.0 <= end) {
            let Due(at, _, to, life, what) = self.queue.pop().unwrap();
            self.now = at;
            let node = &self.nodes[to];
            if node.since.is_some() && node.life == life {
                self.deliver(to, what);
            } else if let Delivery::Syn { from, attempt, .. } = what {
                let failure = Failure::new(Fault::Timeout, "no answer within 5 s");
                self.send(from, NO_ANSWER, Input::DialFailed { attempt, failure });
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, to: usize, what: Delivery) {
        let now = self.time();
        match what {
            Delivery::Input(input) => self.nodes[to].manager.handle(now, *input),
            Delivery::Timer if self.nodes[to].timer != Some(self.now) => return,
            Delivery::Timer => {
                self.nodes[to].timer = None;
                self.nodes[to].manager.handle_timeout(now);
            }
            Delivery::Syn { from, attempt, conn, expected } => {
                let (me, there) = (self.nodes[to].id, self.nodes[to].address);
                let (dialler, back) = (self.nodes[from].id, self.nodes[from].address);
                if expected.is_some_and(|expected| expected != me) {
                    let failure = Failure::new(Fault::WrongKey, "another peer is there");
                    return self.send(from, DELAY, Input::DialFailed { attempt, failure });
                }
                self.wires.insert(conn, [from, to]);
                let (out, inn) = (Direction::Outbound, Direction::Inbound);
                let dialled = Input::Handshaken {
                    conn,
                    peer: me,
                    direction: out,
                    remote: there,
                    attempt: Some(attempt),
                };
                self.send(from, DELAY, dialled);
                let came =
                    Input::Handshaken { conn, peer: dialler, direction: inn, remote: back, attempt: None };
                self.send(to, 2 * DELAY, came);
            }
            Delivery::Asked { conn } => {
                let Some(asker) = self.other(conn, to) else { return };
                let asker_id = self.nodes[asker].id;
                if let Some(records) = self.nodes[to].manager.answer_exchange(now, asker_id, 30) {
                    let records = self.verified(&records);
                    self.send(asker, DELAY, Input::Learned { conn, records });
                }
            }
        }
        self.carry_out(to);
    }

    fn carry_out(&mut self, from: usize) {
        while let Some(output) = self.nodes[from].manager.poll_output() {
            match output {
                Output::Dial { attempt, routes, expected } => {
                    self.conns += 1;
                    let conn = ConnId(self.conns);
                    let to = self.places[&routes[0].address.socket_addr().unwrap()];
                    self.schedule(to, DELAY, Delivery::Syn { from, attempt, conn, expected });
                }
                Output::SayHello { conn, order, visit } => {
                    let Some(to) = self.other(conn, from) else { continue };
                    let (me, observed) = (&self.nodes[from], Some(self.nodes[to].address));
                    let record = Some(me.record.clone());
                    let hello =
                        HelloFacts { boot_nonce: me.life, order, record, observed, visit, problem: None };
                    self.send(to, LATER, Input::Hello { conn, hello });
                }
                Output::Answer { conn, answer } => {
                    let Some(to) = self.other(conn, from) else { continue };
                    let answer = match answer {
                        Answer::Accept { order, stay } => PeerAnswer::Accept { order, stay },
                        Answer::Reject { reason, detail, retry_after, alternatives } => {
                            let alternatives = self.verified(&alternatives);
                            PeerAnswer::Reject { reason, detail, retry_after, alternatives }
                        }
                    };
                    self.send(to, LATER, Input::Answered { conn, answer });
                }
                Output::Close { conn, reason } => {
                    let Some(to) = self.other(conn, from) else { continue };
                    self.wires.remove(&conn);
                    let failure = closed(reason);
                    self.send(to, LATER, Input::Closed { conn, failure, useful: false });
                }
                Output::Ask { conn, .. } => {
                    let Some(to) = self.other(conn, from) else { continue };
                    self.schedule(to, LATER, Delivery::Asked { conn });
                }
                _ => {}
            }
        }
        if let Some(due) = self.nodes[from].manager.poll_timeout() {
            let due = due.max(self.now);
            if self.nodes[from].timer != Some(due) {
                self.nodes[from].timer = Some(due);
                self.schedule(from, due - self.now, Delivery::Timer);
            }
        }
    }

    fn send(&mut self, to: usize, after: Duration, input: Input) {
        self.schedule(to, after, Delivery::Input(Box::new(input)));
    }

    fn schedule(&mut self, to: usize, after: Duration, what: Delivery) {
        self.count += 1;
        self.queue.push(Due(self.now + after, self.count, to, self.nodes[to].life, what));
    }

    fn other(&self, conn: ConnId, node: usize) -> Option<usize> {
        self.wires.get(&conn).map(|[a, b]| if *a == node { *b } else { *a })
    }

    fn verified(&self, records: &[Bytes]) -> Vec<SignedPeerRecord> {
        records.iter().map(|bytes| self.records[bytes].clone()).collect()
    }

    fn time(&self) -> Now {
        Now { mono: self.now, unix: Duration::from_secs(1_700_000_000) + self.now }
    }

    /// The nodes that have been up for ten minutes.
    fn settled(&self) -> Vec<usize> {
        let long = |since: Duration| self.now - since >= Duration::from_secs(600);
        (0..self.nodes.len()).filter(|number| self.nodes[*number].since.is_some_and(long)).collect()
    }

    /// How many inbound connections each settled node has, sorted.
    fn in_degrees(&self) -> Vec<usize> {
        let inbound = |number: &usize| {
            let peers = self.nodes[*number].manager.connected();
            peers.filter(|peer| peer.direction == Direction::Inbound).count()
        };
        let mut degrees: Vec<_> = self.settled().iter().map(inbound).collect();
        degrees.sort_unstable();
        degrees
    }

    /// The settled nodes that the first one does not reach over connections.
    fn cut_off(&self) -> usize {
        let (mut reached, mut waiting) = (BTreeSet::from([0]), vec![0]);
        while let Some(number) = waiting.pop() {
            for peer in self.nodes[number].manager.connected() {
                let peer = self.ids[&peer.peer];
                if self.nodes[peer].since.is_some() && reached.insert(peer) {
                    waiting.push(peer);
                }
            }
        }
        self.settled().iter().filter(|number| !reached.contains(number)).count()
    }
}

/// What the other side makes of a close.
fn closed(reason: CloseReason) -> Failure {
    Failure::from(match reason {
        CloseReason::Rotated | CloseReason::VisitTrimmed => Fault::Trimmed,
        CloseReason::VisitOver => Fault::VisitOver,
        CloseReason::Duplicate => Fault::Duplicate,
        CloseReason::Replaced => Fault::Replaced,
        _ => Fault::ClosedByPeer,
    })
}

/// The spread of the in-degrees, as a share of their mean, after each hour. Nobody is ever cut off.
fn spreads(nodes: usize, hours: usize) -> Vec<f64> {
    let mut crowd = Crowd::new(nodes, 1);
    let after = |hour| {
        crowd.live_for(Duration::from_secs(3600));
        assert_eq!(crowd.cut_off(), 0, "nodes are cut off after {hour} hours");
        let degrees = crowd.in_degrees();
        let count = degrees.len();
        let mean = degrees.iter().sum::<usize>() as f64 / count as f64;
        let variance = degrees.iter().map(|d| (*d as f64 - mean).powi(2)).sum::<f64>() / count as f64;
        let spread = variance.sqrt() / mean;
        println!(
            "hour {hour}: {count} settled, {} crashes, {} dials, in-degree {} / {mean:.1} / {}, spread {spread:.2}",
            crowd.crashes,
            crowd.conns,
            degrees[count / 20],
            degrees[count - 1],
        );
        assert!(count > nodes * 8 / 10, "too few nodes are there: {count}");
        assert!(crowd.crashes > hour * nodes / 10, "{} crashes are no churn", crowd.crashes);
        spread
    };
    (1..=hours).map(after).collect()
}

#[test]
fn after_a_day_of_coming_and_going_the_in_degrees_of_some_hundred_nodes_are_balanced() {
    let spreads = spreads(300, 24);
    assert!(spreads[23] < BALANCED, "{spreads:?}");
}

/// Takes a minute, and `.ci/run` runs it: `cargo test --release -p peerage-peers --test churn -- --ignored --nocapture`.
#[test]
#[ignore = "a day of a thousand nodes takes a minute of computing"]
fn after_a_day_of_coming_and_going_the_in_degrees_of_a_thousand_nodes_are_balanced() {
    let spreads = spreads(1000, 24);
    assert!(spreads.windows(2).take(3).all(|pair| pair[1] < pair[0]), "{spreads:?}");
    assert!(spreads[23] < BALANCED, "{spreads:?}");
}

/// The standard deviation of the in-degrees as a share of their mean.
const BALANCED: f64 = 0.8;
