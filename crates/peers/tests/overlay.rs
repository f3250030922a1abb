//! Stories of many peer managers on a virtual clock.
//!
//! The world below carries each manager's outputs to the others with random delays, the way the node's driver and QUIC do. A run is
//! determined by its seed, which every failure prints.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{DialAddress, NodeKey, PeerId, SignedPeerRecord};
use peerage_machine::{Machine, Now, Random};
use peerage_peers::{
    Answer, AttemptId, Blame, ConnId, Direction, Failure, ForeignPolicy, HelloFacts, Input, Output,
    PeerAnswer, PeerEvent, PeerManager, PeersConfig, RejectReason, Role, Target, Ticket,
};

/// Something that reaches a node at a time.
enum Delivery {
    Input(Input),
    /// A dial's first packet: is the node there?
    Syn {
        from: usize,
        attempt: AttemptId,
        conn: ConnId,
        expected: Option<PeerId>,
    },
    AskedBy {
        conn: ConnId,
    },
    Timer,
}

struct Scheduled {
    at: Duration,
    order: u64,
    to: usize,
    boot: u64,
    what: Delivery,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

struct Node {
    manager: PeerManager,
    key: NodeKey,
    network: &'static str,
    config: PeersConfig,
    address: SocketAddr,
    record: SignedPeerRecord,
    boot: u64,
    up: bool,
    events: Vec<(Duration, PeerEvent)>,
    answers: BTreeMap<Ticket, Result<PeerId, Failure>>,
    dials: Vec<(Duration, DialAddress)>,
    wakes: u64,
}

/// The two ends of a connection.
#[derive(Clone, Copy)]
struct Wire {
    ends: [usize; 2],
    boots: [u64; 2],
    open: bool,
}

struct World {
    nodes: Vec<Node>,
    wires: BTreeMap<ConnId, Wire>,
    queue: BinaryHeap<Scheduled>,
    now: Duration,
    order: u64,
    next_conn: u64,
    random: Random,
    seed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            queue: BinaryHeap::new(),
            now: Duration::ZERO,
            order: 0,
            next_conn: 0,
            random: Random::from_number(seed),
            seed,
        }
    }

    fn add(&mut self, config: PeersConfig) -> usize {
        let index = self.nodes.len();
        let mut seed = [0; 32];
        self.random.fill(&mut seed);
        let key = NodeKey::from_seed(seed);
        let address = SocketAddr::from(([10, 0, (index / 250) as u8, (index % 250 + 1) as u8], 4000));
        let dial = DialAddress::from_socket_addr(address).unwrap();
        let record = SignedPeerRecord::sign(&key, 1, &[dial]).unwrap();
        let manager =
            PeerManager::new(config.clone(), key.peer_id(), self.random.number(), self.random.fork());
        self.nodes.push(Node {
            manager,
            key,
            network: "test",
            config,
            address,
            record,
            boot: 1,
            up: true,
            events: Vec::new(),
            answers: BTreeMap::new(),
            dials: Vec::new(),
            wakes: 0,
        });
        index
    }

    fn id(&self, node: usize) -> PeerId {
        self.nodes[node].key.peer_id()
    }

    fn address(&self, node: usize) -> DialAddress {
        let address = DialAddress::from_socket_addr(self.nodes[node].address).unwrap();
        address.with_peer_id(self.id(node)).unwrap()
    }

    fn now(&self) -> Now {
        Now { mono: self.now, unix: Duration::from_secs(1_700_000_000) + self.now }
    }

    fn give(&mut self, node: usize, input: Input) {
        let now = self.now();
        self.nodes[node].manager.handle(now, input);
        self.carry_out(node);
    }

    fn seed_with(&mut self, node: usize, contact: usize, role: Role) {
        let address = self.address(contact);
        self.give(node, Input::Add { address, role });
    }

    fn send(&mut self, to: usize, after: Duration, what: Delivery) {
        self.order += 1;
        let (at, boot) = (self.now + after, self.nodes[to].boot);
        self.queue.push(Scheduled { at, order: self.order, to, boot, what });
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(10 + self.random.below(40))
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|next| next.at <= end) {
            let next = self.queue.pop().unwrap();
            self.now = next.at;
            let node = &self.nodes[next.to];
            if node.up && node.boot == next.boot {
                self.deliver(next.to, next.what);
            } else if let Delivery::Syn { from, attempt, .. } = next.what {
                let failure = Failure::new(Blame::Unlucky, "no answer within 5 s");
                self.send(
                    from,
                    Duration::from_secs(5),
                    Delivery::Input(Input::DialFailed { attempt, failure }),
                );
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, to: usize, what: Delivery) {
        let now = self.now();
        match what {
            Delivery::Input(input) => self.nodes[to].manager.handle(now, input),
            Delivery::Timer => {
                self.nodes[to].wakes += 1;
                self.nodes[to].manager.handle_timeout(now);
            }
            Delivery::Syn { from, attempt, conn, expected } => {
                let me = self.id(to);
                if expected.is_some_and(|expected| expected != me) {
                    let failure = Failure::new(Blame::Hostile, "another peer is there");
                    let delay = self.delay();
                    return self.send(from, delay, Delivery::Input(Input::DialFailed { attempt, failure }));
                }
                let boots = [self.nodes[from].boot, self.nodes[to].boot];
                self.wires.insert(conn, Wire { ends: [from, to], boots, open: true });
                let handshaken = |peer, direction, remote, attempt| {
                    Delivery::Input(Input::Handshaken { conn, peer, direction, remote, attempt })
                };
                let (dialler, there, back) =
                    (self.id(from), self.nodes[to].address, self.nodes[from].address);
                let delay = self.delay();
                self.send(from, delay, handshaken(me, Direction::Outbound, there, Some(attempt)));
                let later = delay + self.delay();
                self.send(to, later, handshaken(dialler, Direction::Inbound, back, None));
            }
            Delivery::AskedBy { conn } => {
                let asker = self.other(conn, to);
                let asker_id = self.id(asker);
                if let Some(records) = self.nodes[to].manager.answer_exchange(now, asker_id, 30) {
                    let records =
                        records.iter().map(|bytes| SignedPeerRecord::verify(bytes).unwrap()).collect();
                    let from = self.id(to);
                    let delay = self.delay();
                    self.send(asker, delay, Delivery::Input(Input::Learned { from, records }));
                }
            }
        }
        self.carry_out(to);
    }

    fn other(&self, conn: ConnId, node: usize) -> usize {
        let [a, b] = self.wires[&conn].ends;
        if a == node { b } else { a }
    }

    fn carry_out(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].manager.poll_output() {
            let delay = self.delay();
            match output {
                Output::Dial { attempt, address, expected } => {
                    self.nodes[node].dials.push((self.now, address.clone()));
                    let target = self.nodes.iter().position(|n| Some(n.address) == address.socket_addr());
                    self.next_conn += 1;
                    let conn = ConnId(self.next_conn);
                    match target {
                        Some(target) => {
                            self.send(target, delay, Delivery::Syn { from: node, attempt, conn, expected });
                        }
                        None => {
                            let failure = Failure::new(Blame::Unlucky, "no answer within 5 s");
                            let failed = Delivery::Input(Input::DialFailed { attempt, failure });
                            self.send(node, Duration::from_secs(5), failed);
                        }
                    }
                }
                Output::SayHello { conn, order } => self.say_hello(node, conn, order),
                Output::Answer { conn, answer } => self.answer(node, conn, answer),
                Output::Close { conn, .. } => self.hang_up(node, conn, "closed by the peer"),
                Output::Ask { conn } => self.deliver_to_other(node, conn, |_| Delivery::AskedBy { conn }),
                Output::Connected { ticket, result } => {
                    self.nodes[node].answers.insert(ticket, result);
                }
                Output::Event(event) => {
                    let now = self.now;
                    self.nodes[node].events.push((now, event));
                }
                Output::Admit { .. } | Output::Drain { .. } => {}
            }
        }
        if let Some(due) = self.nodes[node].manager.poll_timeout() {
            let wait = due.saturating_sub(self.now);
            self.send(node, wait, Delivery::Timer);
        }
    }

    fn say_hello(&mut self, node: usize, conn: ConnId, order: u64) {
        let other = self.other(conn, node);
        let me = &self.nodes[node];
        let problem = (me.network != self.nodes[other].network)
            .then(|| (RejectReason::WrongNetwork, format!("it is in {:?}", me.network)));
        let hello = HelloFacts { boot_nonce: me.boot, order, record: Some(me.record.clone()), problem };
        self.deliver_to_other(node, conn, |_| Delivery::Input(Input::Hello { conn, hello }));
    }

    fn answer(&mut self, node: usize, conn: ConnId, answer: Answer) {
        let answer = match answer {
            Answer::Accept { order } => PeerAnswer::Accept { order },
            Answer::Reject { reason, detail, retry_after, alternatives } => PeerAnswer::Reject {
                reason,
                detail,
                retry_after,
                alternatives: alternatives.iter().map(|b| SignedPeerRecord::verify(b).unwrap()).collect(),
            },
        };
        self.deliver_to_other(node, conn, |_| Delivery::Input(Input::Answered { conn, answer }));
    }

    fn hang_up(&mut self, node: usize, conn: ConnId, cause: &str) {
        let failure = Failure::new(Blame::Unlucky, cause);
        self.deliver_to_other(node, conn, |_| {
            Delivery::Input(Input::Closed { conn, failure, useful: false })
        });
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.open = false;
        }
    }

    /// Delivers over a connection, in order: a later message never overtakes an earlier one.
    fn deliver_to_other(&mut self, node: usize, conn: ConnId, what: impl FnOnce(usize) -> Delivery) {
        let Some(wire) = self.wires.get(&conn).copied() else {
            return;
        };
        let other = self.other(conn, node);
        let side = usize::from(wire.ends[1] == other);
        if wire.open && wire.boots[side] == self.nodes[other].boot {
            // Longer than any handshake's last flight, so that the other end knows the connection.
            let delivery = what(other);
            self.send(other, Duration::from_millis(110), delivery);
        }
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
    }

    /// The peers of a crashed node notice after `idle`.
    fn notice(&mut self, node: usize, idle: Duration) {
        let open: Vec<_> =
            self.wires.iter().filter(|(_, w)| w.open && w.ends.contains(&node)).map(|(c, _)| *c).collect();
        for conn in open {
            let other = self.other(conn, node);
            let failure = Failure::new(Blame::Unlucky, "silent for 30 s");
            self.send(other, idle, Delivery::Input(Input::Closed { conn, failure, useful: true }));
            self.wires.get_mut(&conn).unwrap().open = false;
        }
    }

    fn restart(&mut self, node: usize) {
        let fork = self.random.fork();
        let n = &mut self.nodes[node];
        n.boot += 1;
        n.up = true;
        n.manager = PeerManager::new(n.config.clone(), n.key.peer_id(), n.boot, fork);
        self.wires.values_mut().filter(|w| w.ends.contains(&node)).for_each(|w| w.open = false);
    }

    fn peers_of(&self, node: usize) -> BTreeSet<usize> {
        let index = |id: PeerId| self.nodes.iter().position(|n| n.key.peer_id() == id).unwrap();
        self.nodes[node].manager.connected().map(|peer| index(peer.peer)).collect()
    }

    /// Both ends of every connection agree on it, and there is one for each pair.
    fn assert_agreement(&self) {
        let mut pairs = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, n)| n.up) {
            for peer in node.manager.connected() {
                let [a, b] = self.wires[&peer.conn].ends;
                assert!(a == index || b == index);
                let key = (a.min(b), a.max(b));
                pairs.entry(key).or_insert_with(BTreeSet::new).insert((peer.conn, index));
            }
        }
        for (pair, ends) in pairs {
            let conns: BTreeSet<_> = ends.iter().map(|(conn, _)| conn).collect();
            assert_eq!((conns.len(), ends.len()), (1, 2), "seed {}: {pair:?} {ends:?}", self.seed);
        }
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn nodes_that_know_one_address_find_one_another_and_form_a_full_mesh() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let config = PeersConfig { max_inbound: 40, max_outbound: 40, ..Default::default() };
        let count = 12;
        for _ in 0..count {
            world.add(config.clone());
        }
        for node in 1..count {
            world.seed_with(node, 0, Role::Seed);
        }
        world.run_for(secs(20));
        for node in 0..count {
            assert_eq!(world.peers_of(node).len(), count - 1, "seed {seed}, node {node}");
        }
        world.assert_agreement();
    }
}

#[test]
fn limits_hold_at_every_node_and_refused_nodes_find_others() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        let config = PeersConfig { max_inbound: 6, max_outbound: 3, ..Default::default() };
        let count = 30;
        for _ in 0..count {
            world.add(config.clone());
        }
        for node in 1..count {
            world.seed_with(node, 0, Role::Seed);
        }
        for _ in 0..120 {
            world.run_for(secs(1));
            for node in &world.nodes {
                let count = |direction| node.manager.connected().filter(|p| p.direction == direction).count();
                assert!(count(Direction::Inbound) <= 6, "seed {seed}");
                assert!(count(Direction::Outbound) <= 3, "seed {seed}");
            }
        }
        world.assert_agreement();
        let mut reached = BTreeSet::from([0]);
        let mut frontier = vec![0];
        while let Some(node) = frontier.pop() {
            frontier.extend(world.peers_of(node).into_iter().filter(|peer| reached.insert(*peer)));
        }
        assert_eq!(reached.len(), count, "seed {seed}: the overlay is in pieces");
    }
}

#[test]
fn a_killed_node_is_redialled_and_reconnected_without_being_told_any_address() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for _ in 0..5 {
            world.add(PeersConfig::default());
        }
        for node in 1..5 {
            world.seed_with(node, 0, Role::Seed);
        }
        world.run_for(secs(10));
        world.crash(4);
        world.notice(4, secs(3));
        world.run_for(secs(3) + Duration::from_millis(1));
        for node in 0..4 {
            let lost = |event: &PeerEvent| matches!(event, PeerEvent::Disconnected { peer, redial_in: Some(_), .. } if *peer == world.id(4));
            assert!(
                world.nodes[node].events.iter().any(|(_, event)| lost(event)),
                "seed {seed}, node {node}"
            );
        }
        world.restart(4);
        world.run_for(secs(10));
        assert!(!world.peers_of(4).is_empty(), "seed {seed}: nobody redialled");
        world.run_for(secs(30));
        assert_eq!(world.peers_of(4).len(), 4, "seed {seed}");
        world.assert_agreement();
    }
}

#[test]
fn a_persistent_peer_is_redialled_for_ever_with_bounded_delays_and_outside_the_limits() {
    let mut world = World::new(7);
    let config = PeersConfig { max_outbound: 0, ..Default::default() };
    let (a, b) = (world.add(config), world.add(PeersConfig::default()));
    world.crash(b);
    world.seed_with(a, b, Role::Persistent);
    world.run_for(secs(6 * 3600));
    let dials = &world.nodes[a].dials;
    assert!(dials.len() > 30, "{}", dials.len());
    for pair in dials.windows(2) {
        let gap = pair[1].0 - pair[0].0;
        // The dial itself takes five seconds.
        assert!(gap >= secs(5) && gap <= secs(606), "{gap:?}");
    }
    world.restart(b);
    world.run_for(secs(620));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
}

#[test]
fn a_node_that_dials_itself_notices_and_does_not_try_again() {
    let mut world = World::new(1);
    let a = world.add(PeersConfig::default());
    let address = DialAddress::from_socket_addr(world.nodes[a].address).unwrap();
    world.give(a, Input::Add { address, role: Role::Seed });
    world.run_for(secs(600));
    assert_eq!(world.nodes[a].dials.len(), 1);
    assert_eq!(world.peers_of(a), BTreeSet::new());
}

#[test]
fn a_peer_of_another_network_is_refused_with_its_reason_on_both_sides() {
    let mut world = World::new(1);
    let (a, b) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.nodes[b].network = "other";
    let address = world.address(b);
    world.give(a, Input::Connect { ticket: Ticket(1), target: Target::Address(address) });
    world.run_for(secs(5));
    let failure = world.nodes[a].answers[&Ticket(1)].clone().unwrap_err();
    assert!(failure.detail.contains("in another network"), "{failure}");
    assert_eq!(world.peers_of(a), BTreeSet::new());
    let refused = |(_, event): &(Duration, PeerEvent)| {
        matches!(event, PeerEvent::Refused { reason: RejectReason::WrongNetwork, .. })
    };
    assert!(world.nodes[b].events.iter().any(refused) || world.nodes[a].events.iter().any(refused));
}

#[test]
fn an_explicit_connect_ends_in_the_peer_or_in_the_reason() {
    let mut world = World::new(3);
    let config = PeersConfig { max_outbound: 0, ..Default::default() };
    let (a, b, dead) = (world.add(config.clone()), world.add(config.clone()), world.add(config));
    world.crash(dead);
    let connect =
        |ticket, address| Input::Connect { ticket: Ticket(ticket), target: Target::Address(address) };
    let (good, no_one) = (world.address(b), world.address(dead));
    let wrong = world.address(b).without_peer_id().with_peer_id(world.id(dead)).unwrap();
    world.give(a, connect(1, good.clone()));
    world.give(a, connect(2, no_one));
    world.give(a, connect(3, wrong));
    let (unknown, me) = (world.nodes[dead].key.peer_id(), world.id(a));
    world.give(a, Input::Connect { ticket: Ticket(4), target: Target::Peer(me) });
    world.give(b, Input::Connect { ticket: Ticket(5), target: Target::Peer(unknown) });
    world.run_for(secs(6));
    world.give(a, connect(6, good));
    let answers = &world.nodes[a].answers;
    assert_eq!(answers[&Ticket(1)], Ok(world.id(b)));
    assert_eq!(answers[&Ticket(6)], Ok(world.id(b)));
    assert_eq!(answers[&Ticket(2)].clone().unwrap_err().blame, Blame::Unlucky);
    assert_eq!(answers[&Ticket(3)].clone().unwrap_err().blame, Blame::Hostile);
    assert!(answers[&Ticket(4)].clone().unwrap_err().detail.contains("this node itself"));
    assert!(world.nodes[b].answers[&Ticket(5)].clone().unwrap_err().detail.contains("peers().add"));
}

#[test]
fn a_disconnected_peer_stays_away_until_it_is_named_again() {
    let mut world = World::new(2);
    let (a, b) =
        (world.add(PeersConfig::default()), world.add(PeersConfig { max_outbound: 0, ..Default::default() }));
    world.seed_with(a, b, Role::Seed);
    world.run_for(secs(2));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
    let peer = world.id(b);
    world.give(a, Input::Disconnect { peer });
    world.run_for(secs(1200));
    assert_eq!(world.peers_of(a), BTreeSet::new());
    assert_eq!(world.peers_of(b), BTreeSet::new());
    world.seed_with(a, b, Role::Known);
    world.run_for(secs(2));
    assert_eq!(world.peers_of(a), BTreeSet::from([b]));
}

#[test]
fn a_foreign_peer_is_admitted_or_turned_away_by_policy() {
    for (policy, admitted) in [(ForeignPolicy::Allow, 1), (ForeignPolicy::Refuse, 0)] {
        let mut world = World::new(2);
        let a = world.add(PeersConfig { foreign: policy, ..Default::default() });
        let b = world.add(PeersConfig::default());
        let (peer, remote, conn) = (world.id(b), world.nodes[b].address, ConnId(900));
        world.wires.insert(conn, Wire { ends: [b, a], boots: [1, 1], open: false });
        world.give(a, Input::Handshaken { conn, peer, direction: Direction::Inbound, remote, attempt: None });
        world.give(a, Input::Foreign { conn });
        assert_eq!(world.nodes[a].manager.connected().filter(|peer| peer.foreign).count(), admitted);
    }
}

#[test]
fn a_second_hello_or_its_denial_changes_nothing_for_an_admitted_peer() {
    let mut world = World::new(4);
    let (a, b) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.seed_with(a, b, Role::Seed);
    world.run_for(secs(2));
    let conn = world.nodes[a].manager.connected().next().unwrap().conn;
    let record = Some(world.nodes[b].record.clone());
    let hello = HelloFacts { boot_nonce: 99, order: 99, record, problem: None };
    world.give(a, Input::Hello { conn, hello });
    world.give(a, Input::Foreign { conn });
    world.run_for(secs(2));
    let peer = world.nodes[a].manager.connected().next().unwrap();
    assert_eq!((peer.conn, peer.foreign), (conn, false));
    world.assert_agreement();
}

/// an idle loop uses no CPU; waiting for a due time is a timer, not polling.
#[test]
fn a_node_without_peers_is_woken_by_nothing() {
    let mut world = World::new(5);
    let a = world.add(PeersConfig::default());
    world.run_for(secs(60));
    assert_eq!(world.nodes[a].wakes, 0);
    assert_eq!(world.nodes[a].manager.poll_timeout(), None);
}

#[test]
fn a_shut_down_manager_dials_nobody_and_admits_nobody() {
    let mut world = World::new(5);
    let (a, b) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.give(a, Input::ShutDown);
    world.seed_with(a, b, Role::Seed);
    world.seed_with(b, a, Role::Seed);
    world.run_for(secs(30));
    assert_eq!(world.nodes[a].dials.len(), 0);
    assert_eq!(world.peers_of(b), BTreeSet::new());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        for _ in 0..8 {
            world.add(PeersConfig::default());
        }
        for node in 1..8 {
            world.seed_with(node, 0, Role::Seed);
        }
        world.run_for(secs(60));
        world.nodes.iter().map(|node| format!("{:?}", node.events)).collect::<Vec<_>>()
    };
    assert_eq!(run(11), run(11));
}
