//! A world of many peer managers on a virtual clock.
//!
//! It carries each manager's outputs to the others with random delays, the way the node's driver and QUIC do. A run is
//! determined by its seed, which every failure prints.
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{DialAddress, IpPrefix, NodeKey, PeerId, SignedPeerRecord};
use peerage_machine::{Machine, Now, Random};
use peerage_peers::{
    Answer, AttemptId, Ban, BanEntry, BookChange, BookEntry, CloseReason, ConnId, Course, Direction, Door,
    DoorState, Failure, Fault, HelloFacts, Input, Output, PeerAnswer, PeerEvent, PeerManager, PeersConfig,
    RejectReason, Role, Route, StoredPeer, Ticket,
};

/// Something that reaches a node at a time.
pub(crate) enum Delivery {
    Input(Input),
    /// A dial's first packet: is the node there?
    Syn {
        from: usize,
        attempt: AttemptId,
        conn: ConnId,
        expected: Option<PeerId>,
        race: Race,
    },
    AskedBy {
        conn: ConnId,
        most: usize,
    },
    Timer,
}

/// A dial's addresses. They are tried one after the other here: the next one when one has failed, or was silent for 250 ms.
#[derive(Clone)]
pub(crate) struct Race {
    routes: Vec<Route>,
    courses: Vec<Course>,
    gravest: Option<Failure>,
}

pub(crate) struct Scheduled {
    pub(crate) at: Duration,
    pub(crate) order: u64,
    pub(crate) to: usize,
    pub(crate) boot: u64,
    pub(crate) what: Delivery,
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

pub(crate) struct Node {
    pub(crate) manager: PeerManager,
    pub(crate) key: NodeKey,
    pub(crate) network: &'static str,
    pub(crate) config: PeersConfig,
    pub(crate) address: SocketAddr,
    pub(crate) record: SignedPeerRecord,
    pub(crate) boot: u64,
    /// Drawn anew at each start.
    pub(crate) nonce: u64,
    pub(crate) up: bool,
    pub(crate) door: Door,
    /// What it says when it is asked whom it knows, instead of the truth.
    pub(crate) says: Option<Vec<SignedPeerRecord>>,
    pub(crate) closed: Vec<(ConnId, CloseReason)>,
    pub(crate) observed: Vec<SocketAddr>,
    pub(crate) disk_bans: BTreeMap<String, BanEntry>,
    /// Changes of bans that were handed out to be stored.
    pub(crate) bans_stored: u64,
    pub(crate) events: Vec<(Duration, PeerEvent)>,
    pub(crate) answers: BTreeMap<Ticket, Result<PeerId, Failure>>,
    pub(crate) dials: Vec<(Duration, DialAddress)>,
    pub(crate) wakes: u64,
    /// When the timer that counts fires.
    pub(crate) timer: Option<Duration>,
    /// What the node has stored; it survives restarts.
    pub(crate) disk: BTreeMap<String, BookEntry>,
}

impl Node {
    fn store(&mut self, changes: Vec<BookChange>) {
        for change in changes {
            match change {
                BookChange::Put(entry) => {
                    self.disk.insert(entry.peer.clone(), *entry);
                }
                BookChange::Remove(peer) => {
                    self.disk.remove(&peer.to_string());
                }
                BookChange::PutBan(ban) => {
                    self.bans_stored += 1;
                    self.disk_bans.insert(ban.target.clone(), *ban);
                }
                BookChange::RemoveBan(target) => {
                    self.bans_stored += 1;
                    self.disk_bans.remove(&target.to_string());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) ends: [usize; 2],
    pub(crate) boots: [u64; 2],
    pub(crate) open: bool,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) wires: BTreeMap<ConnId, Wire>,
    pub(crate) queue: BinaryHeap<Scheduled>,
    pub(crate) now: Duration,
    pub(crate) order: u64,
    pub(crate) next_conn: u64,
    pub(crate) random: Random,
    pub(crate) seed: u64,
    /// Again and again, each node's watchers have been told what each peer is. Worlds of many nodes do without, for the sake of time.
    pub(crate) checks: bool,
    /// Every record that crossed the wire: in hellos, refusals and answers.
    pub(crate) told: Vec<Told>,
    /// Every refusal that crossed the wire.
    pub(crate) refusals: Vec<Refusal>,
}

/// A record that one node sent to another.
pub(crate) struct Told {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) record: SignedPeerRecord,
}

/// A refusal that one node sent to another.
pub(crate) struct Refusal {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) at: Duration,
    pub(crate) reason: RejectReason,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) alternatives: Vec<SignedPeerRecord>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            queue: BinaryHeap::new(),
            now: Duration::ZERO,
            order: 0,
            next_conn: 0,
            random: Random::from_number(seed),
            seed,
            told: Vec::new(),
            refusals: Vec::new(),
            checks: true,
        }
    }

    pub(crate) fn add(&mut self, config: PeersConfig) -> usize {
        let index = self.nodes.len();
        // Every node in a subnet of its own, as far as limits per address and subnet go.
        let address = SocketAddr::from(([20, (index / 250) as u8, (index % 250) as u8, 1], 4000));
        self.add_at(config, address)
    }

    /// A node at an address of its own.
    pub(crate) fn add_at(&mut self, config: PeersConfig, address: SocketAddr) -> usize {
        let mut seed = [0; 32];
        self.random.fill(&mut seed);
        self.add_with_key(config, address, NodeKey::from_seed(seed))
    }

    /// A node with a key that another may have too.
    pub(crate) fn add_with_key(&mut self, config: PeersConfig, address: SocketAddr, key: NodeKey) -> usize {
        let index = self.nodes.len();
        let nonce = self.random.number();
        let dial = DialAddress::from_socket_addr(address).unwrap();
        let record = SignedPeerRecord::sign(&key, 1, &[dial]).unwrap();
        let manager = PeerManager::new(config.clone(), key.peer_id(), nonce, self.random.fork());
        self.nodes.push(Node {
            manager,
            key,
            network: "test",
            config,
            address,
            record,
            boot: 1,
            nonce,
            up: true,
            door: Door::default(),
            says: None,
            closed: Vec::new(),
            observed: Vec::new(),
            disk_bans: BTreeMap::new(),
            bans_stored: 0,
            events: Vec::new(),
            answers: BTreeMap::new(),
            dials: Vec::new(),
            wakes: 0,
            timer: None,
            disk: BTreeMap::new(),
        });
        index
    }

    /// The ID of somebody who is not in this world.
    pub(crate) fn stranger(&self, number: u64) -> PeerId {
        self.stranger_key(number).peer_id()
    }

    pub(crate) fn stranger_key(&self, number: u64) -> NodeKey {
        let mut seed = [77; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        NodeKey::from_seed(seed)
    }

    /// The connection to `other` that `node` has admitted.
    pub(crate) fn conn_between(&self, node: usize, other: usize) -> Option<ConnId> {
        let (manager, other) = (&self.nodes[node].manager, self.id(other));
        manager.connected().find(|peer| peer.peer == other).map(|peer| peer.conn)
    }

    pub(crate) fn id(&self, node: usize) -> PeerId {
        self.nodes[node].key.peer_id()
    }

    pub(crate) fn address(&self, node: usize) -> DialAddress {
        let address = DialAddress::from_socket_addr(self.nodes[node].address).unwrap();
        address.with_peer_id(self.id(node)).unwrap()
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: self.now, unix: Duration::from_secs(1_700_000_000) + self.now }
    }

    pub(crate) fn give(&mut self, node: usize, input: Input) {
        let now = self.now();
        self.nodes[node].manager.handle(now, input);
        self.carry_out(node);
    }

    pub(crate) fn seed_with(&mut self, node: usize, contact: usize, role: Role) {
        let address = self.address(contact);
        self.give(node, Input::Add { address, role });
    }

    pub(crate) fn send(&mut self, to: usize, after: Duration, what: Delivery) {
        self.order += 1;
        let (at, boot) = (self.now + after, self.nodes[to].boot);
        self.queue.push(Scheduled { at, order: self.order, to, boot, what });
    }

    pub(crate) fn delay(&mut self) -> Duration {
        Duration::from_millis(10 + self.random.below(40))
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|next| next.at <= end) {
            let next = self.queue.pop().unwrap();
            self.now = next.at;
            let node = &self.nodes[next.to];
            if node.up && node.boot == next.boot {
                self.deliver(next.to, next.what);
            } else if let Delivery::Syn { from, attempt, expected, race, .. } = next.what {
                self.silent(from, attempt, expected, race);
            }
        }
        self.now = end;
    }

    pub(crate) fn deliver(&mut self, to: usize, what: Delivery) {
        let now = self.now();
        match what {
            Delivery::Input(input) => self.nodes[to].manager.handle(now, input),
            Delivery::Timer if self.nodes[to].timer != Some(self.now) => return,
            Delivery::Timer => {
                self.nodes[to].timer = None;
                self.nodes[to].wakes += 1;
                self.nodes[to].manager.handle_timeout(now);
            }
            Delivery::Syn { from, attempt, conn, expected, mut race } => {
                let me = self.id(to);
                if !passes(&self.nodes[to].door, self.nodes[from].address) {
                    let failure = Failure::new(Fault::Refused, "it takes no new connection at the moment");
                    let delay = self.delay();
                    return self.failed(from, attempt, expected, race, failure, delay);
                }
                if expected.is_some_and(|expected| expected != me) {
                    let failure = Failure::new(Fault::WrongKey, "another peer is there");
                    let delay = self.delay();
                    return self.failed(from, attempt, expected, race, failure, delay);
                }
                race.courses.push(Course::Reached);
                race.courses.resize(race.routes.len(), Course::NotBegun);
                let raced = Input::Raced { attempt, courses: race.courses };
                let boots = [self.nodes[from].boot, self.nodes[to].boot];
                self.wires.insert(conn, Wire { ends: [from, to], boots, open: true });
                let handshaken = |peer, direction, remote, attempt| {
                    Delivery::Input(Input::Handshaken { conn, peer, direction, remote, attempt })
                };
                let (dialler, there, back) =
                    (self.id(from), self.nodes[to].address, self.nodes[from].address);
                let delay = self.delay();
                self.send(from, delay, Delivery::Input(raced));
                self.send(from, delay, handshaken(me, Direction::Outbound, there, Some(attempt)));
                if from == to {
                    // Both ends are one connection here, and one is enough to see who is there.
                    return self.carry_out(to);
                }
                let later = delay + self.delay();
                self.send(to, later, handshaken(dialler, Direction::Inbound, back, None));
            }
            Delivery::AskedBy { conn, most } => {
                let asker = self.other(conn, to);
                let asker_id = self.id(asker);
                if let Some(records) = self.nodes[to].manager.answer_exchange(now, asker_id, most) {
                    let records: Vec<_> =
                        records.iter().map(|bytes| SignedPeerRecord::verify(bytes).unwrap()).collect();
                    let records = self.nodes[to].says.clone().unwrap_or(records);
                    self.tell(to, asker, &records);
                    let delay = self.delay();
                    self.send(asker, delay, Delivery::Input(Input::Learned { conn, records }));
                }
            }
        }
        self.carry_out(to);
    }

    pub(crate) fn other(&self, conn: ConnId, node: usize) -> usize {
        let [a, b] = self.wires[&conn].ends;
        if a == node { b } else { a }
    }

    pub(crate) fn carry_out(&mut self, node: usize) {
        // Often enough to find what was not told.
        if self.checks && self.order.is_multiple_of(8) {
            self.nodes[node].manager.assert_told();
        }
        while let Some(output) = self.nodes[node].manager.poll_output() {
            let delay = self.delay();
            match output {
                Output::Dial { attempt, routes, expected } => {
                    let race = Race { routes, courses: Vec::new(), gravest: None };
                    self.try_next(node, attempt, expected, race, delay);
                }
                Output::SayHello { conn, order, visit } => self.say_hello(node, conn, order, visit),
                Output::Answer { conn, answer } => self.answer(node, conn, answer),
                Output::Close { conn, reason } => {
                    self.nodes[node].closed.push((conn, reason));
                    self.hang_up(node, conn, reason);
                }
                Output::Door(door) => self.nodes[node].door = door,
                Output::Observed { addresses } => self.nodes[node].observed = addresses,
                Output::Ask { conn, most } => {
                    self.deliver_to_other(node, conn, |_| Delivery::AskedBy { conn, most });
                }
                Output::Connected { ticket, result } => {
                    self.nodes[node].answers.insert(ticket, result);
                }
                Output::Event(event) => {
                    let now = self.now;
                    self.nodes[node].events.push((now, event));
                }
                Output::Save { changes } => self.nodes[node].store(changes),
                Output::Admit { .. } | Output::Drain { .. } => {}
            }
        }
        if let Some(due) = self.nodes[node].manager.poll_timeout() {
            // One timer at a time, as in the node's driver; one that is no longer the next is passed over when it fires.
            let due = due.max(self.now);
            if self.nodes[node].timer != Some(due) {
                self.nodes[node].timer = Some(due);
                self.send(node, due - self.now, Delivery::Timer);
            }
        }
    }

    /// Tries the next address of a dial.
    fn try_next(
        &mut self,
        from: usize,
        attempt: AttemptId,
        expected: Option<PeerId>,
        race: Race,
        delay: Duration,
    ) {
        let address = race.routes[race.courses.len()].address.clone();
        self.nodes[from].dials.push((self.now, address.clone()));
        let target = self.nodes.iter().position(|n| Some(n.address) == address.socket_addr());
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        match target {
            Some(target) => self.send(target, delay, Delivery::Syn { from, attempt, conn, expected, race }),
            None => self.silent(from, attempt, expected, race),
        }
    }

    fn silent(&mut self, from: usize, attempt: AttemptId, expected: Option<PeerId>, race: Race) {
        let failure = Failure::new(Fault::Timeout, "no answer within 5 s");
        let last = race.courses.len() + 1 == race.routes.len();
        let after = if last { Duration::from_secs(5) } else { Duration::from_millis(250) };
        self.failed(from, attempt, expected, race, failure, after);
    }

    /// One address of a dial came to nothing.
    fn failed(
        &mut self,
        from: usize,
        attempt: AttemptId,
        expected: Option<PeerId>,
        mut race: Race,
        failure: Failure,
        after: Duration,
    ) {
        race.courses.push(Course::Failed(failure.clone()));
        let gravest = race.gravest.take().into_iter().chain([failure]).max_by_key(Failure::blame).unwrap();
        race.gravest = Some(gravest.clone());
        if race.courses.len() < race.routes.len() {
            return self.try_next(from, attempt, expected, race, after);
        }
        self.send(from, after, Delivery::Input(Input::Raced { attempt, courses: race.courses }));
        self.send(from, after, Delivery::Input(Input::DialFailed { attempt, failure: gravest }));
    }

    pub(crate) fn say_hello(&mut self, node: usize, conn: ConnId, order: u64, visit: bool) {
        // Strangers from outside this world take part in nothing but what a test makes them do.
        if !self.wires.contains_key(&conn) {
            return;
        }
        let other = self.other(conn, node);
        let me = &self.nodes[node];
        let problem = (me.network != self.nodes[other].network)
            .then(|| (RejectReason::WrongNetwork, format!("it is in {:?}", me.network)));
        let (boot_nonce, record) = (me.nonce, Some(me.record.clone()));
        let observed = Some(self.nodes[other].address);
        let hello = HelloFacts { boot_nonce, order, record, observed, visit, problem };
        let told = [self.nodes[node].record.clone()];
        self.tell(node, other, &told);
        self.deliver_to_other(node, conn, |_| Delivery::Input(Input::Hello { conn, hello }));
    }

    pub(crate) fn answer(&mut self, node: usize, conn: ConnId, answer: Answer) {
        if !self.wires.contains_key(&conn) {
            return;
        }
        let answer = match answer {
            Answer::Accept { order, stay } => PeerAnswer::Accept { order, stay },
            Answer::Reject { reason, detail, retry_after, alternatives } => {
                let alternatives: Vec<_> =
                    alternatives.iter().map(|bytes| SignedPeerRecord::verify(bytes).unwrap()).collect();
                let (to, at) = (self.other(conn, node), self.now);
                self.tell(node, to, &alternatives);
                let refusal =
                    Refusal { from: node, to, at, reason, retry_after, alternatives: alternatives.clone() };
                self.refusals.push(refusal);
                PeerAnswer::Reject { reason, detail, retry_after, alternatives }
            }
        };
        self.deliver_to_other(node, conn, |_| Delivery::Input(Input::Answered { conn, answer }));
    }

    pub(crate) fn tell(&mut self, from: usize, to: usize, records: &[SignedPeerRecord]) {
        self.told.extend(records.iter().map(|record| Told { from, to, record: record.clone() }));
    }

    pub(crate) fn hang_up(&mut self, node: usize, conn: ConnId, reason: CloseReason) {
        let fault = match reason {
            CloseReason::Rotated | CloseReason::VisitTrimmed => Fault::Trimmed,
            CloseReason::VisitOver => Fault::VisitOver,
            CloseReason::Duplicate => Fault::Duplicate,
            CloseReason::Replaced => Fault::Replaced,
            CloseReason::ShuttingDown => Fault::RefusedByPeer(RejectReason::ShuttingDown),
            _ => Fault::ClosedByPeer,
        };
        let failure = Failure::from(fault);
        self.deliver_to_other(node, conn, |_| {
            Delivery::Input(Input::Closed { conn, failure, useful: false })
        });
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.open = false;
        }
    }

    /// Delivers over a connection, in order: a later message never overtakes an earlier one.
    pub(crate) fn deliver_to_other(
        &mut self,
        node: usize,
        conn: ConnId,
        what: impl FnOnce(usize) -> Delivery,
    ) {
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

    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
    }

    /// The peers of a crashed node notice after `idle`.
    pub(crate) fn notice(&mut self, node: usize, idle: Duration) {
        let open: Vec<_> =
            self.wires.iter().filter(|(_, w)| w.open && w.ends.contains(&node)).map(|(c, _)| *c).collect();
        for conn in open {
            let other = self.other(conn, node);
            let failure = Failure::new(Fault::Silent, "silent for 30 s");
            self.send(other, idle, Delivery::Input(Input::Closed { conn, failure, useful: true }));
            self.wires.get_mut(&conn).unwrap().open = false;
        }
    }

    pub(crate) fn restart(&mut self, node: usize) {
        let (fork, nonce) = (self.random.fork(), self.random.number());
        let n = &mut self.nodes[node];
        n.boot += 1;
        n.up = true;
        n.nonce = nonce;
        n.timer = None;
        n.door = Door::default();
        n.manager = PeerManager::new(n.config.clone(), n.key.peer_id(), n.nonce, fork);
        self.wires.values_mut().filter(|w| w.ends.contains(&node)).for_each(|w| w.open = false);
    }

    /// Reads what an earlier run of the node has stored, and stores from now on.
    pub(crate) fn load(&mut self, node: usize) {
        let bans = self.nodes[node].disk_bans.values().map(|ban| Ban::read(ban).unwrap()).collect();
        self.give(node, Input::Bans { bans });
        let peers = self.nodes[node].disk.values().map(|entry| StoredPeer::read(entry).unwrap()).collect();
        self.give(node, Input::Load { peers });
    }

    pub(crate) fn peers_of(&self, node: usize) -> BTreeSet<usize> {
        let index = |id: PeerId| self.nodes.iter().position(|n| n.key.peer_id() == id).unwrap();
        self.nodes[node].manager.connected().map(|peer| index(peer.peer)).collect()
    }

    /// Both ends of every connection agree on it, and there is one for each pair.
    pub(crate) fn assert_agreement(&self) {
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

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the transport does with a door.
fn passes(door: &Door, from: SocketAddr) -> bool {
    let (address, subnet) = (IpPrefix::address_of(from.ip()), IpPrefix::subnet_of(from.ip()));
    let banned = door.banned.contains(&address) || door.banned.contains(&subnet);
    match door.state {
        DoorState::Closed => false,
        _ if door.known.contains(&address) => true,
        DoorState::Open => !banned,
        DoorState::KnownOnly => false,
    }
}
