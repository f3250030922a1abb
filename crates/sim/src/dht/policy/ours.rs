//! Peerage's own lookups: the machine of `peerage-dht` as it runs in a node, put into the asker's place.

use std::time::Duration;

use bytes::Bytes;
use peerage_dht::{
    AcceptAll, Answer, Class, Dht, DhtConfig, Input, LookupConfig, Mode, Operation, OperationId, Options,
    Outcome, Output, RequestId, Target,
};
use peerage_machine::{Machine, Now, Random};

use super::super::queue::Micros;
use super::super::still::{Query, Still, ip_of};
use super::super::stream::{Purpose, Stream};
use super::super::walk::Reach;
use super::{Goal, Policy, Reply, Step};

/// When the lookup begins on the machine's clock: it has been there for a while.
const BEGINS: Duration = Duration::from_secs(1000);

/// One lookup of our machine.
pub struct Ours<'a> {
    world: &'a Still,
    query: &'a Query,
    goal: Goal,
    dht: Dht,
    /// Whom the machine asked under which name.
    requests: Vec<(RequestId, u32)>,
    /// Whom it knows to be connected.
    connected: Vec<u32>,
    all_warm: bool,
    outcome: Option<Box<Outcome>>,
}

impl<'a> Ours<'a> {
    /// A machine with the asker's table, with what a node has measured of its peers, and with an idea of the network's size.
    pub fn new(world: &'a Still, query: &'a Query, goal: Goal, reach: Reach, config: &DhtConfig) -> Self {
        let now = at(0);
        let seed = Stream::new(world.plan.seed, query.number, Purpose::Machine).bytes();
        let peer = world.peers[query.asker as usize];
        let random = Random::from_seed(seed);
        let config = DhtConfig { lookup: paced(world, query, reach, &config.lookup), ..config.clone() };
        let mut dht = Dht::new(config, peer, Mode::Server, Box::new(AcceptAll), random, now);
        let table = &world.tables[query.asker as usize];
        dht.plant(now, table.iter().map(|node| world.contacts[*node as usize].clone()));
        dht.plant_size(now, world.keys.len() as f64, 16);
        let connected = match reach.connections {
            None => table.clone(),
            Some(_) => world.connected(query.asker, reach.connections),
        };
        let mut ours = Self {
            world,
            query,
            goal,
            dht,
            requests: Vec::new(),
            connected: Vec::new(),
            all_warm: reach.connections.is_none(),
            outcome: None,
        };
        for node in connected {
            ours.connect(now, node);
        }
        ours
    }

    /// Tells the machine of a connection that stands.
    fn connect(&mut self, now: Now, node: u32) {
        if self.connected.contains(&node) {
            return;
        }
        self.connected.push(node);
        let contact = self.world.contacts[node as usize].clone();
        let rtt = micros(self.world.network.round_trip(self.query.asker, node));
        self.dht.handle(now, Input::Connected { contact, remote: ip_of(node), rtt: Some(rtt) });
    }

    /// The next thing that the machine wants for the lookup; its own upkeep is left out.
    fn take_output(&mut self) -> Option<Step> {
        while let Some(output) = self.dht.poll_output() {
            match output {
                Output::Ask { request, contact, class: Class::Interactive, .. } => {
                    let Some(node) = self.world.node_of(contact.key().to_bytes()) else { continue };
                    self.requests.push((request, node));
                    return Some(Step::Ask(node));
                }
                Output::CancelAsk { request, .. } => {
                    if let Some((_, node)) = self.requests.iter().find(|(known, _)| *known == request) {
                        return Some(Step::Cancel(*node));
                    }
                }
                Output::Done { outcome, .. } => self.outcome = Some(outcome),
                _ => {}
            }
        }
        None
    }
}

impl Policy for Ours<'_> {
    fn start(&mut self, now: Micros, _: &[(u64, u32)]) {
        let Some(target) = Target::new(&self.query.name) else { return };
        let wanted = match self.goal {
            Goal::Value => Operation::Get { target },
            Goal::Closest => Operation::Closest { target },
        };
        let options = Options { class: Class::Interactive, quorum: 1, ..Options::default() };
        self.dht.handle(at(now), Input::Start { operation: OperationId(1), wanted, options });
    }

    fn answered(&mut self, now: Micros, reply: &Reply<'_>) {
        let Some((request, _)) = self.requests.iter().find(|(_, node)| *node == reply.peer).copied() else {
            return;
        };
        if self.all_warm {
            // A connection to everybody: the machine is told when it first hears of somebody.
            for (_, node) in reply.closer {
                self.connect(at(now), *node);
            }
        }
        let closer =
            reply.closer.iter().map(|(_, node)| self.world.contacts[*node as usize].clone()).collect();
        let values = if reply.value { vec![Bytes::from_static(b"the value")] } else { Vec::new() };
        let answer = Answer { closer, values, extended: true, ..Answer::default() };
        let input = Input::Answered { request, rtt: micros(reply.rtt), remote: ip_of(reply.peer), answer };
        self.dht.handle(at(now), input);
    }

    fn next(&mut self, now: Micros) -> Step {
        if self.dht.poll_timeout().is_some_and(|due| due <= at(now).mono) {
            self.dht.handle_timeout(at(now));
        }
        if let Some(step) = self.take_output() {
            return step;
        }
        if self.outcome.is_some() {
            return Step::Done;
        }
        let due = self.dht.poll_timeout().map(|due| due.saturating_sub(BEGINS));
        // To the next microsecond, so that the machine is never woken too early.
        Step::Wait(due.map(|due| due.as_nanos().div_ceil(1_000) as Micros))
    }

    fn closest(&self) -> Vec<u32> {
        let closest = self.outcome.iter().flat_map(|outcome| &outcome.closest);
        closest.filter_map(|contact| self.world.node_of(contact.key().to_bytes())).collect()
    }

    fn judges(&self) -> bool {
        true
    }

    fn found(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| !outcome.values.is_empty())
    }

    fn hops(&self) -> Option<u32> {
        self.outcome.as_ref().map(|outcome| outcome.hops)
    }
}

/// The stagger that a node would have measured by now: its share of the median round trip to those in the table, whom it asks first.
fn paced(world: &Still, query: &Query, reach: Reach, config: &LookupConfig) -> LookupConfig {
    let table = &world.tables[query.asker as usize];
    let mut trips: Vec<_> = table.iter().map(|node| world.network.round_trip(query.asker, *node)).collect();
    trips.sort_unstable();
    let median = trips.get(trips.len() / 2).copied().unwrap_or_default();
    let stagger = micros(median).mul_f64(reach.warm * config.stagger_share);
    LookupConfig { stagger: Some(stagger.clamp(config.stagger_least, config.stagger_most)), ..config.clone() }
}

fn at(now: Micros) -> Now {
    Now { mono: BEGINS, unix: Duration::from_secs(1_800_000_000) }.after(micros(now))
}

fn micros(time: Micros) -> Duration {
    Duration::from_micros(time)
}
