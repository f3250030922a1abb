//! Runs one lookup of one policy in a still network.

use super::network::{Health, Luck};
use super::policy::{Goal, Policy, Reply, Step};
use super::queue::{Micros, Queue, SECOND, Trace};
use super::still::{K, Query, Still};

/// No lookup runs longer than this.
const LONGEST: Micros = 600 * SECOND;

/// How contacts are reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reach {
    /// Round trips of a request on a connection that stands.
    pub warm: f64,
    /// Further round trips before the first request where there is none: the QUIC handshake, the hello.
    pub cold: f64,
    /// How many of the peers in its table a node is connected to; `None` when it is to all peers.
    pub connections: Option<usize>,
}

impl Reach {
    /// A round trip for each request: "1 RTT" of the study.
    pub const WARM: Self = Self { warm: 1.0, cold: 0.0, connections: None };
    /// Two for each: "2 RTT" of the study.
    pub const FRESH: Self = Self { warm: 2.0, cold: 0.0, connections: None };

    /// A node with so many connections. A contact beyond them is dialled first: a round trip for the QUIC handshake, one for the hellos after which both sides
    /// admit each other; the request's stream is negotiated on the way, in the request's own round trip. There is no 0-RTT.
    pub const fn mix(connections: usize) -> Self {
        Self { warm: 1.0, cold: 2.0, connections: Some(connections) }
    }
}

/// What became of one lookup.
#[derive(Debug, Clone, Default)]
pub struct Walked {
    /// How long it took, in microseconds.
    pub took: Micros,
    /// Requests that were sent, those that were cancelled included.
    pub requests: u32,
    /// Of these, how many went over a connection that stood.
    pub warm: u32,
    /// A value was asked for and found.
    pub found: bool,
    /// Share of the 20 closest peers that are well which it ended with.
    pub recall: f64,
    /// The longest chain of answers that led to the end.
    pub hops: u32,
    /// The result, the closest first.
    pub closest: Vec<u32>,
    /// What a lookup must never do (the study's D.3) and this one did.
    pub broken: Option<&'static str>,
}

enum Event {
    Answer(u32, Micros),
    Wake,
}

/// One lookup under way.
struct Walk<'a> {
    world: &'a Still,
    query: &'a Query,
    reach: Reach,
    holders: &'a [u32],
    connected: Vec<u32>,
    queue: Queue<Event>,
    trace: &'a mut Trace,
    walked: Walked,
    /// How many answers led to each peer that was heard of.
    depth: std::collections::BTreeMap<u32, u32>,
    asked: std::collections::BTreeSet<u32>,
    cancelled: Vec<u32>,
    woken: Option<Micros>,
}

/// Runs the lookup until it ends. The value, if one is asked for, lies on the 20 peers closest to its key, whether they still answer or not.
pub fn walk(
    world: &Still,
    query: &Query,
    goal: Goal,
    reach: Reach,
    policy: &mut dyn Policy,
    trace: &mut Trace,
) -> Walked {
    let holders = match goal {
        Goal::Value => world.closest_of_all(query.target.front, K, |_| true),
        Goal::Closest => Vec::new(),
    };
    let mut walk = Walk {
        world,
        query,
        reach,
        holders: &holders,
        connected: world.connected(query.asker, reach.connections),
        queue: Queue::default(),
        trace,
        walked: Walked::default(),
        depth: std::collections::BTreeMap::new(),
        asked: std::collections::BTreeSet::new(),
        cancelled: Vec::new(),
        woken: None,
    };
    walk.run(policy);
    let mut walked = walk.walked;
    if goal == Goal::Closest {
        walked.closest = policy.closest();
        let truth = world.closest_of_all(query.target.front, K, |node| {
            world.health[node as usize] == Health::Well && node != query.asker
        });
        let kept = truth.iter().filter(|node| walked.closest.contains(node)).count();
        walked.recall = kept as f64 / truth.len().max(1) as f64;
    }
    walked
}

impl Walk<'_> {
    fn run(&mut self, policy: &mut dyn Policy) {
        let mut seeds = Vec::new();
        self.world.closest_known(self.query.asker, self.query.target.front, self.query.asker, &mut seeds);
        for peer in &seeds {
            self.depth.insert(*peer, 0);
        }
        policy.start(0, &self.with_distances(&seeds));
        if self.act(policy, 0) {
            return;
        }
        while let Some((now, event)) = self.queue.pop() {
            if now > LONGEST {
                self.walked.took = LONGEST;
                self.walked.broken = Some("a lookup did not end");
                return;
            }
            if let Event::Answer(peer, rtt) = event {
                if self.cancelled.contains(&peer) {
                    continue;
                }
                if self.take_answer(policy, now, peer, rtt) {
                    return;
                }
            }
            if self.act(policy, now) {
                return;
            }
        }
    }

    /// Hands an answer over; true when the lookup ends with it.
    fn take_answer(&mut self, policy: &mut dyn Policy, now: Micros, peer: u32, rtt: Micros) -> bool {
        self.trace.note(now, u64::from(peer), self.query.number);
        let mut closer = Vec::new();
        self.world.closest_known(peer, self.query.target.front, self.query.asker, &mut closer);
        let depth = self.depth.get(&peer).copied().unwrap_or_default() + 1;
        for one in &closer {
            self.depth.entry(*one).or_insert(depth);
        }
        self.walked.hops = self.walked.hops.max(depth);
        let value = self.holders.contains(&peer);
        let closer = self.with_distances(&closer);
        policy.answered(now, &Reply { peer, rtt, closer: &closer, value });
        if value && !policy.judges() {
            self.walked.found = true;
            self.walked.took = now;
            self.walked.hops = depth;
        }
        value && !policy.judges()
    }

    /// Does what the policy wants; true when the lookup has ended.
    fn act(&mut self, policy: &mut dyn Policy, now: Micros) -> bool {
        loop {
            match policy.next(now) {
                Step::Ask(peer) => self.ask(now, peer),
                Step::Cancel(peer) => {
                    if !self.asked.contains(&peer) {
                        self.walked.broken = Some("a request was cancelled that was never sent");
                    }
                    self.cancelled.push(peer);
                }
                Step::Wait(until) => {
                    if let Some(at) = until
                        && self.woken.is_none_or(|woken| woken <= now || at < woken)
                    {
                        self.woken = Some(at.max(now));
                        self.queue.push(at.max(now), Event::Wake);
                    }
                    return false;
                }
                Step::Done => {
                    self.walked.took = now;
                    self.walked.found = policy.found();
                    if self.walked.found {
                        self.walked.hops = policy.hops().unwrap_or(self.walked.hops);
                    }
                    return true;
                }
            }
        }
    }

    fn ask(&mut self, now: Micros, peer: u32) {
        self.walked.requests += 1;
        // A lookup that goes on from a sparse place begins with more of the asker's table.
        if self.world.tables[self.query.asker as usize].contains(&peer) {
            self.depth.entry(peer).or_insert(0);
        }
        if !self.depth.contains_key(&peer) {
            self.walked.broken = Some("somebody was asked of whom nobody has told");
        }
        if !self.asked.insert(peer) {
            self.walked.broken = Some("somebody was asked twice in one lookup");
        }
        let warm = self.reach.connections.is_none() || self.connected.contains(&peer);
        self.walked.warm += u32::from(warm);
        self.trace.note(now, u64::from(peer), !self.query.number);
        let health = self.world.health[peer as usize];
        if health == Health::Silent {
            return;
        }
        let way = self.world.network.round_trip(self.query.asker, peer);
        let rounds = self.reach.warm + if warm { 0.0 } else { self.reach.cold };
        let delay = Luck::draw(&self.query.luck, peer, self.world.plan.faults).delay(health, way);
        let late = (delay as f64 * self.world.network.scale) as Micros;
        let rtt = (way as f64 * self.reach.warm) as Micros + late;
        self.queue.push(now + (way as f64 * rounds) as Micros + late, Event::Answer(peer, rtt));
    }

    fn with_distances(&self, peers: &[u32]) -> Vec<(u64, u32)> {
        peers.iter().map(|peer| (self.world.distance(*peer, self.query.target.front), *peer)).collect()
    }
}
