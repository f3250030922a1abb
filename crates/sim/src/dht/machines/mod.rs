//! A network of whole machines: each node is a [`Dht`] as it runs in production, and this carries its messages in virtual time.
//!
//! What is modelled: round trips between places, dials (two round trips before the first request on a new connection), connections that are bounded in number, end
//! when they are idle, and are lost half a minute after the other side has died (`links`), silent and slow nodes, lost packets, nodes that nobody can dial, and every byte of queries and answers. What is not: bandwidth, queueing.

mod audit;
mod carry;
mod churn;
mod hostile;
mod ledger;
mod links;
mod look;
mod past;
mod records;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::RecordsConfig;
use peerage_dht::store::MemoryDisk;
use peerage_dht::{
    AcceptAll, Answer, Contact, Dht, DhtConfig, Input, Mode, Operation, OperationId, Options, Outcome, Query,
    QueryId, RequestId, Source,
};
use peerage_identity::PeerId;
use peerage_machine::{Machine, Now, Random};

use super::network::{Health, Network, Shape};
use super::progress::Progress;
use super::queue::{Micros, Queue, SECOND, Trace};
use super::still::{Key, Plan, Still};
use super::stream::{Purpose, Stream};
pub use audit::Audit;
pub use churn::Sessions;
pub use hostile::{Adversary, Deed, Heard};
pub use look::Traffic;
pub use records::{NETWORK, key_of, place_of};

/// A node and everything of it that outlives a restart.
pub struct Node {
    /// The machine; `None` while the node is down.
    pub dht: Option<Dht>,
    /// Who it is and where.
    pub contact: Contact,
    /// How it treats queries while it is up.
    pub health: Health,
    /// Since when it has been up.
    pub since: Micros,
    /// What it has sent since the meters were last read.
    pub meter: Meter,
    /// How long it was up since then, in sessions that have ended.
    was_up: Micros,
    /// How often it has started.
    starts: u32,
    /// Events since it was set up.
    handled: u32,
    /// The next time at which it is woken.
    wake: Option<Micros>,
    /// Who it is connected to.
    links: BTreeMap<u32, links::Link>,
    /// Whom it is dialling, and when that will be done.
    dials: BTreeMap<u32, Micros>,
    /// What its machine has asked, where invariants are checked.
    ledger: ledger::Ledger,
    /// Queries that its machine has not answered yet.
    asked: BTreeMap<QueryId, (Pending, carry::Place)>,
    /// Its disk, where the scenario gives it one: its rows are there again when the node is.
    pub disk: Option<MemoryDisk>,
    /// What the simulated store of this node holds, where the machine itself refuses to store.
    pub holds: BTreeMap<[u8; 32], Bytes>,
    /// Nobody can dial it.
    pub behind_nat: bool,
    /// Its clock is so many seconds ahead of the others'.
    pub clock_ahead: i64,
    /// While the network is parted, only nodes of one side reach each other.
    pub side: u8,
}

/// Bytes that a node has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    /// Queries of what machines do by themselves, and answers to those of others.
    pub upkeep: u64,
    /// Lookups of newcomers for themselves, which stand in the upkeep too.
    pub joins: u64,
    /// Queries that users wait for, and answers to those.
    pub users: u64,
    /// What holders compare and hand over, which stands in the upkeep too.
    pub repair: u64,
    /// Handshakes and hellos, by estimate.
    pub handshakes: u64,
    /// Requests sent.
    pub requests: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    asker: u32,
    start: u32,
    request: RequestId,
    handshake: Micros,
    /// This request set off the dial.
    dialled: bool,
    sent: Micros,
    errand: Errand,
}

/// Whose a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    /// Somebody waits for it.
    User,
    /// The machine makes it by itself.
    Upkeep,
    /// The same, of the lookup with which a machine joins.
    Join,
}

/// What is to happen.
#[derive(Debug)]
enum Event {
    /// The node's machine wants to be called.
    Wake { node: u32, start: u32 },
    /// A query arrives.
    Query { node: u32, query: Query, from: Pending },
    /// An answer arrives.
    Answer { node: u32, peer: u32, from: Pending, answer: Box<Answer> },
    /// A dial ends, and a connection stands.
    Dialled { node: u32, peer: u32, start: u32 },
    /// A connection for questions may have been idle for too long.
    LinkIdle { node: u32, peer: u32 },
    /// The idle timeout after the other side has died.
    LinkLost { node: u32, peer: u32 },
    /// A node comes up, or goes.
    Turn { node: u32 },
    /// The scenario wants to be called.
    Call { number: u64 },
}

/// How the network is made.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Number of nodes, those included that are down at first.
    pub nodes: usize,
    /// What all follows from.
    pub seed: u64,
    /// How long round trips are.
    pub shape: Shape,
    /// The machines' settings.
    pub config: DhtConfig,
    /// Connections for questions that a node holds at once, of its own; as many of others.
    pub visits: usize,
    /// One of its own ends when nothing was asked over it for so long.
    pub visit_idle: Micros,
    /// Round trips before the first request on a new connection.
    pub cold: f64,
    /// Share of requests that lose a packet, which costs three round trips, 200 ms at least.
    pub loss: f64,
    /// Share of nodes that nobody can dial, and that don't know it: who stands behind a NAT is reached over the connections that it dials.
    pub nat: f64,
    /// Whether the invariants are checked while it runs: those of a machine after each eighth of its events, and when it stops and at the end; those of the network, and the accounts
    /// of all machines' requests, once in a second or as often as [`Audit::every`] says.
    pub checks: bool,
    /// Machines hold records by these rules; `None` where the simulator keeps plain values in their stead.
    pub records: Option<Arc<RecordsConfig>>,
    /// Nodes are named by the keys with which they sign, as whole nodes are; else by names of which nobody has the key.
    pub keyed: bool,
    /// Identities beyond the nodes that stand in the network like them: an attacker's.
    pub guests: Vec<PeerId>,
    /// Identities beyond those of whom nobody has heard, and who are down.
    pub strangers: usize,
    /// Told how far it is.
    pub progress: Progress,
}

impl Setting {
    /// So many nodes.
    pub fn new(nodes: usize, seed: u64) -> Self {
        let visits = peerage::PeersConfig::default();
        Self {
            nodes,
            seed,
            shape: Shape::default(),
            config: DhtConfig::default(),
            visits: visits.max_outbound_visits,
            visit_idle: visits.visit_idle.as_micros() as Micros,
            cold: 2.0,
            loss: 0.0,
            nat: 0.0,
            checks: false,
            records: None,
            keyed: false,
            guests: Vec::new(),
            strangers: 0,
            progress: Progress::default(),
        }
    }

    /// A connection to everybody stands: a request takes one round trip, the study's "1 RTT".
    pub fn warm(mut self) -> Self {
        self.cold = 0.0;
        self.config.lookup.cold_round_trips = 0.0;
        self
    }
}

/// What a user's operation came to.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Who wanted it.
    pub node: u32,
    /// Its number, as [`World::start`] gave it.
    pub operation: u64,
    /// What the machine says.
    pub outcome: Box<Outcome>,
    /// From the start to the end.
    pub took: Micros,
}

/// What happened that a scenario may want to know.
#[derive(Debug)]
pub enum Happened {
    /// A user's operation has ended.
    Ended(Ended),
    /// A store that had ended for its caller has reached all whom it should: its final counts.
    Settled(Ended),
    /// A machine said something.
    Event(u32, peerage_dht::Event),
    /// The time that the scenario asked to be called at.
    Call(u64),
    /// A query that went past its node's machine ([`World::query`]) was answered.
    Answered {
        /// The query's number.
        request: RequestId,
        /// The round trip, without a dial.
        rtt: Micros,
        /// The answer.
        answer: Box<Answer>,
    },
}

/// The network.
pub struct World {
    /// How it was made.
    pub setting: Setting,
    /// Everybody.
    pub nodes: Vec<Node>,
    /// The hash of all that happened.
    pub trace: Trace,
    /// Events so far.
    pub events: u64,
    /// The first invariant that did not hold.
    pub broken: Option<String>,
    /// What is known of records that were signed, and of what must hold of them.
    pub audit: Audit,
    /// Who answers in the stead of hostile nodes' machines.
    pub adversary: Option<Box<dyn Adversary + Send>>,
    network: Network,
    config: Arc<DhtConfig>,
    order: Vec<(u64, u32)>,
    queue: Queue<Event>,
    now: Micros,
    /// When the meters were last read.
    read: Micros,
    sessions: Option<Sessions>,
    operations: BTreeMap<u64, (u32, Micros)>,
    last: u64,
    happened: std::collections::VecDeque<Happened>,
}

impl World {
    /// Everybody is there, nobody is up.
    pub fn new(setting: Setting) -> Self {
        let own = (0..setting.nodes as u32).map(|node| match setting.keyed {
            true => key_of(setting.seed, node).peer_id(),
            false => super::still::peer_id(setting.seed, node.into()),
        });
        let strangers =
            (0..setting.strangers as u64).map(|one| super::still::peer_id(setting.seed, STRANGERS + one));
        let peers = own.chain(setting.guests.iter().copied()).chain(strangers);
        let contacts: Vec<Contact> =
            peers.zip(0..).map(|(peer, node)| super::still::contact(node, peer)).collect();
        let mut order: Vec<(u64, u32)> = contacts
            .iter()
            .zip(0..)
            .map(|(contact, node)| (Key::new(contact.key().to_bytes()).front, node))
            .collect();
        order.sort_unstable();
        let mut nodes: Vec<Node> = contacts.into_iter().map(Node::down).collect();
        for (node, number) in nodes.iter_mut().take(setting.nodes).zip(0..) {
            node.behind_nat = Stream::new(setting.seed, number, Purpose::Nat).chance(setting.nat);
        }
        Self {
            network: Network::new(setting.seed, nodes.len(), &setting.shape),
            config: Arc::new(setting.config.clone()),
            nodes,
            order,
            queue: Queue::default(),
            now: 0,
            read: 0,
            trace: Trace::default(),
            events: 0,
            broken: None,
            audit: Audit::default(),
            adversary: None,
            sessions: None,
            operations: BTreeMap::new(),
            last: 0,
            happened: std::collections::VecDeque::new(),
            setting,
        }
    }

    /// Everybody is up, with the table that the study's model gives it.
    pub fn standing(setting: Setting) -> Self {
        let plan = Plan {
            shape: setting.shape.clone(),
            guests: setting.guests.clone(),
            ..Plan::new(setting.nodes, setting.seed, Default::default())
        };
        let still = Still::new(plan);
        let mut world = Self::new(setting);
        for (node, table) in still.tables.iter().enumerate() {
            // Who was never reached stands in no table.
            let known = table.iter().map(|peer| &world.nodes[*peer as usize]);
            let known: Vec<Contact> =
                known.filter(|peer| !peer.behind_nat).map(|peer| peer.contact.clone()).collect();
            let now = world.clock();
            world.machine(node as u32);
            if let Some(dht) = &mut world.nodes[node].dht {
                dht.plant(now, known);
                dht.plant_size(now, still.keys.len() as f64, 24);
            }
            world.pump(node as u32);
        }
        world
    }

    /// The time.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The time as machines read it.
    pub fn clock(&self) -> Now {
        clock(self.now)
    }

    /// Draws of this run for one purpose.
    pub fn stream(&self, number: u64, purpose: Purpose) -> Stream {
        Stream::new(self.setting.seed, number, purpose)
    }

    /// Brings a node up, with contacts to begin with.
    pub fn start_node(&mut self, node: u32, contacts: Vec<Contact>, source: Source) {
        self.machine(node);
        let now = self.clock();
        if let Some(dht) = &mut self.nodes[node as usize].dht {
            dht.handle(now, Input::Known { contacts, source });
        }
        self.pump(node);
    }

    /// A node dies: nobody is told. Its peers notice that their connections are gone after the idle timeout.
    pub fn stop_node(&mut self, node: u32) {
        self.look_at_machine(node);
        let gone = &mut self.nodes[node as usize];
        gone.was_up = gone.up_since(self.read, self.now);
        gone.dht = None;
        gone.wake = None;
        gone.asked.clear();
        gone.dials.clear();
        gone.holds.clear();
        let links = std::mem::take(&mut gone.links);
        for peer in links.keys() {
            self.queue.push(self.now + IDLE, Event::LinkLost { node: *peer, peer: node });
        }
        self.operations.retain(|_, (owner, _)| *owner != node);
    }

    /// Has a node start an operation; its end comes as [`Happened::Ended`] with this number.
    pub fn start(&mut self, node: u32, wanted: Operation, options: Options) -> u64 {
        self.last += 1;
        let (number, now) = (self.last, self.clock());
        self.operations.insert(number, (node, self.now));
        let this = &mut self.nodes[node as usize];
        if let Some(dht) = &mut this.dht {
            if self.setting.checks {
                this.ledger.begun(now, OperationId(number), &wanted, &options, &self.config.lookup);
            }
            dht.handle(now, Input::Start { operation: OperationId(number), wanted, options });
        }
        self.pump(node);
        number
    }

    /// Calls the scenario back at a time.
    pub fn call_at(&mut self, at: Micros, number: u64) {
        self.queue.push(at, Event::Call { number });
    }

    /// Runs until something happens that a scenario may want to know, or until `end`, which is then the time.
    pub fn run_until(&mut self, end: Micros) -> Option<Happened> {
        loop {
            if let Some(happened) = self.happened.pop_front() {
                return Some(happened);
            }
            if self.queue.next_at().is_none_or(|at| at > end) {
                self.now = end;
                return None;
            }
            let (at, event) = self.queue.pop()?;
            self.now = at;
            self.audit_when_due();
            self.events += 1;
            if self.events.is_multiple_of(Progress::EVENTS) {
                self.setting.progress.events(at);
            }
            self.carry(event);
        }
    }

    /// Runs until `end`, and gives what ended meanwhile.
    pub fn gather(&mut self, end: Micros) -> Vec<Ended> {
        let mut ended = Vec::new();
        while let Some(happened) = self.run_until(end) {
            if let Happened::Ended(one) = happened {
                ended.push(one);
            }
        }
        ended
    }

    /// A new machine in a node's place.
    fn machine(&mut self, node: u32) {
        let now = self.clock();
        let this = &mut self.nodes[node as usize];
        this.starts += 1;
        let was_up = this.up_since(self.read, self.now);
        let seed = Stream::new(self.setting.seed, u64::from(node), Purpose::Machine)
            .part(this.starts.into())
            .bytes();
        let peer = *this.contact.peer();
        let random = Random::from_seed(seed);
        let dht = Dht::new(self.config.clone(), peer, Mode::Server, Box::new(AcceptAll), random, now);
        this.dht = Some(match &self.setting.records {
            Some(config) => {
                dht.with_records(records::key_of(self.setting.seed, node), records::rules(config))
            }
            None => dht,
        });
        this.was_up = was_up;
        this.since = self.now;
        this.links.clear();
        this.dials.clear();
        this.asked.clear();
        this.ledger = ledger::Ledger::default();
    }
}

impl Node {
    fn down(contact: Contact) -> Self {
        Self {
            dht: None,
            contact,
            health: Health::Well,
            since: 0,
            meter: Meter::default(),
            was_up: 0,
            starts: 0,
            handled: 0,
            wake: None,
            links: BTreeMap::new(),
            dials: BTreeMap::new(),
            ledger: ledger::Ledger::default(),
            asked: BTreeMap::new(),
            disk: None,
            holds: BTreeMap::new(),
            behind_nat: false,
            clock_ahead: 0,
            side: 0,
        }
    }

    /// Whether it is up and answers.
    pub fn is_well(&self) -> bool {
        self.dht.is_some() && self.health == Health::Well
    }
}

/// Strangers have identities with these numbers.
const STRANGERS: u64 = 1 << 40;
/// After so long without a sign of life a connection is lost.
const IDLE: Micros = 30 * SECOND;

/// A moment of the run on machines' clocks: they have been there for a while, and it is 2027.
fn clock(at: Micros) -> Now {
    let start = Now { mono: Duration::from_secs(1_000), unix: Duration::from_secs(1_800_000_000) };
    start.after(Duration::from_micros(at))
}
