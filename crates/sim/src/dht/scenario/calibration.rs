//! Scenario 28: whole nodes on simulated QUIC against the loop over machines, which all other scenarios here rest on.
//!
//! The same identities at the same places join over the same first contacts, store the same values and look up the same things at the same times: once as whole nodes ([`whole`]), with
//! every packet, handshake and hello, once as machines whose messages the loop carries ([`looped`]). What the loop says of times holds as far as the two agree.
//!
//! Both have the same settings of the DHT. What the loop has no model of is taken from the whole nodes: which of their connections are ordinary ones, kept by the peer manager.
//! Everything else, how long a connection for a lookup lasts and what it costs, is the loop's own and is what is measured here.

mod looped;
mod whole;

use std::sync::Arc;

use bytes::Bytes;
use peerage_dht::record::{Place, RecordsConfig};
use peerage_dht::{Contact, Counts, DhtConfig, Key};

use super::super::figures::{Figures, Times};
use super::super::machines::{NETWORK, Setting, key_of};
use super::super::network::{Network, Shape};
use super::super::policy::{Goal, Kind};
use super::super::progress::Progress;
use super::super::queue::{MILLI, Micros, SECOND};
use super::super::report::{Measure, Report, Row};
use super::super::still::{K, contact};
use super::super::stream::{Purpose, Stream};
use super::machines::{MINUTE, invariants};
use super::{Settings, scenario};
use crate::failed::Failed;

/// From one node's start to the next one's.
const JOIN_EVERY: Micros = SECOND;
/// From the last one's start to the first value that is stored: the lookups with which nodes join and fill their tables are over.
const SETTLE: Micros = 2 * MINUTE;
/// From one value to the next.
const STORE_EVERY: Micros = SECOND;
/// How many values there are.
const VALUES: u64 = 20;
/// From the last value to the first lookup.
const PAUSE: Micros = 10 * SECOND;
/// The mean time from one lookup of a node to its next.
const LOOKUP_EVERY: Micros = 50 * SECOND;
/// A connection for questions ends after so long without one, unless told otherwise. With the default of a minute most nodes would be connected when they are asked.
const VISIT_IDLE: u64 = 5;
/// After the last one all of them have ended.
const REST: Micros = 35 * SECOND;
/// Lookups of each kind, unless told otherwise.
const LOOKUPS: u64 = 400;
/// Nobody asks for a value who stands so close to it: it may hold the value itself, and answer without a request.
const HOLDERS: usize = 24;
/// How far the two may be apart, in per cent of the loop's figure.
const APART: f64 = 15.0;

/// What both sides do.
struct Plan {
    nodes: usize,
    seed: u64,
    config: DhtConfig,
    /// After how long connections for questions end that are not used.
    visit_idle: Micros,
    trips: Network,
    /// Everybody, as others name them.
    contacts: Vec<Contact>,
    /// Whom each node knows when it starts.
    first: Vec<Vec<u32>>,
    /// Who stores which content, and when.
    stores: Vec<Store>,
    lookups: Vec<Lookup>,
    progress: Progress,
    /// When the first lookup is made: then the ordinary connections are what they are.
    ready: Micros,
    end: Micros,
}

struct Store {
    at: Micros,
    publisher: u32,
    content: Bytes,
}

struct Lookup {
    at: Micros,
    asker: u32,
    what: What,
}

enum What {
    /// The value with this number.
    Get(usize),
    /// Those closest to this name.
    Closest([u8; 32]),
}

/// What became of one lookup.
#[derive(Debug, Clone)]
struct Done {
    took: Micros,
    hops: u32,
    counts: Counts,
    found: bool,
    closest: Vec<Contact>,
}

/// What one side came to.
struct Side {
    /// In the order of the plan; `None` for what failed without a report.
    done: Vec<Option<Done>>,
    /// What tells two runs apart.
    hash: u64,
    /// Which invariant did not hold.
    broken: Option<String>,
}

/// Scenario 28.
pub(super) fn calibrate(settings: &Settings) -> Report {
    let plan = Plan::new(settings);
    match whole::run(&plan) {
        Ok((whole, kept)) => {
            let looped = looped::run(&plan, &kept, settings.checks);
            report(settings, &plan, &whole, &looped, kept.len())
        }
        Err(failed) => {
            let measure = Measure::broken(format!("whole nodes: {failed}"));
            Report { measures: vec![measure], ..empty(settings) }
        }
    }
}

impl Plan {
    fn new(settings: &Settings) -> Self {
        let (nodes, seed) = (settings.nodes, settings.seed);
        let peers = (0..nodes as u32).map(|node| key_of(seed, node).peer_id());
        let contacts: Vec<Contact> = (0..).zip(peers).map(|(node, peer)| contact(node, peer)).collect();
        let mut stream = Stream::new(seed, 0, Purpose::Bootstrap);
        let first = (0..nodes).map(|node| {
            let chosen = stream.sample(node, 3);
            chosen.into_iter().map(|other| other as u32).collect()
        });
        let first = first.collect();
        let mut plan = Self {
            nodes,
            seed,
            config: config(),
            visit_idle: settings.idle_seconds.unwrap_or(VISIT_IDLE) * SECOND,
            trips: Network::new(seed, nodes, &Shape::default()),
            contacts,
            first,
            stores: Vec::new(),
            lookups: Vec::new(),
            progress: settings.progress.clone(),
            ready: 0,
            end: 0,
        };
        plan.draw(settings.lookups.unwrap_or(LOOKUPS));
        plan
    }

    /// Draws who stores and looks up what, `count` lookups of each kind in turn.
    fn draw(&mut self, count: u64) {
        let mut stream = Stream::new(self.seed, 0, Purpose::Queries);
        let begin = self.nodes as u64 * JOIN_EVERY + SETTLE;
        for number in 0..VALUES {
            let content = Bytes::from(format!("content {number} of run {}", self.seed));
            let publisher = stream.below(self.nodes) as u32;
            self.stores.push(Store { at: begin + number * STORE_EVERY, publisher, content });
        }
        self.ready = begin + self.stores.len() as u64 * STORE_EVERY + PAUSE;
        let every = LOOKUP_EVERY / self.nodes.max(1) as u64;
        for number in 0..2 * count {
            // On whole milliseconds, which are the grain of virtual time of whole nodes.
            let at = self.ready + number * every + (stream.unit() * every as f64) as Micros;
            let at = at.next_multiple_of(MILLI);
            let what = match number % 2 {
                0 => What::Get(stream.below(self.stores.len())),
                _ => What::Closest(stream.bytes()),
            };
            let asker = std::iter::repeat_with(|| stream.below(self.nodes) as u32)
                .take(10_000)
                .find(|asker| !self.may_hold(*asker, &what))
                .unwrap_or_default();
            self.lookups.push(Lookup { at, asker, what });
        }
        self.end = self.ready + 2 * count * every + REST;
    }

    /// Whether a node is so close to a value that it may hold it.
    fn may_hold(&self, node: u32, what: &What) -> bool {
        let What::Get(value) = what else { return false };
        let name = peerage_dht::record::Network::new(NETWORK).ok();
        let place = Place::of_content(&self.stores[*value].content);
        let target = name.and_then(|name| place.target(&name));
        target.is_some_and(|target| self.closest(target.key(), HOLDERS, None).contains(&node))
    }

    /// The nodes closest to a key, but for one of them.
    fn closest(&self, key: &Key, count: usize, without: Option<u32>) -> Vec<u32> {
        let others = (0..self.nodes as u32).filter(|node| Some(*node) != without);
        let mut all: Vec<_> =
            others.map(|node| (self.contacts[node as usize].key().distance(key), node)).collect();
        all.sort_unstable();
        all.into_iter().take(count).map(|(_, node)| node).collect()
    }

    /// The share of the truly closest that a lookup found.
    fn recall(&self, lookup: &Lookup, done: &Done) -> f64 {
        let What::Closest(name) = &lookup.what else { return 0.0 };
        let Some(target) = peerage_dht::Target::new(name) else { return 0.0 };
        let truth = self.closest(target.key(), K, Some(lookup.asker));
        let is_found = |node: &&u32| {
            let peer = self.contacts[**node as usize].peer();
            done.closest.iter().any(|contact| contact.peer() == peer)
        };
        truth.iter().filter(is_found).count() as f64 / truth.len().max(1) as f64
    }

    /// What one side's lookups of one kind came to.
    fn figures(&self, side: &Side, goal: Goal) -> Figures {
        let of_kind = |lookup: &Lookup| matches!(lookup.what, What::Get(_)) == (goal == Goal::Value);
        let pairs = self.lookups.iter().zip(&side.done).filter(|(lookup, _)| of_kind(lookup));
        let wanted = pairs.clone().count().max(1) as f64;
        let done: Vec<(&Lookup, &Done)> =
            pairs.filter_map(|(lookup, done)| Some((lookup, done.as_ref()?))).collect();
        let mean = |of: &dyn Fn(&(&Lookup, &Done)) -> f64| done.iter().map(of).sum::<f64>() / wanted;
        let times = Times::new(done.iter().map(|(_, done)| done.took).collect());
        let requests = mean(&|(_, done)| f64::from(done.counts.asked));
        Figures {
            lookups: done.len(),
            p50_ms: times.percentile(0.5),
            p95_ms: times.percentile(0.95),
            p99_ms: times.percentile(0.99),
            p999_ms: times.percentile(0.999),
            requests,
            warm_share: mean(&|(_, done)| f64::from(done.counts.warm)) / requests.max(f64::MIN_POSITIVE),
            found: mean(&|(_, done)| f64::from(u8::from(done.found))),
            recall: mean(&|(lookup, done)| self.recall(lookup, done)),
            hops: mean(&|(_, done)| f64::from(done.hops)),
            times,
        }
    }
}

fn report(settings: &Settings, plan: &Plan, whole: &Side, looped: &Side, kept: usize) -> Report {
    let (mut rows, mut measures) = (Vec::new(), Vec::new());
    for (goal, name) in [(Goal::Value, "get"), (Goal::Closest, "closest")] {
        let (real, model) = (plan.figures(whole, goal), plan.figures(looped, goal));
        let failed = plan.lookups.len() / 2 - real.lookups.min(model.lookups);
        measures.push(Measure::at_most(format!("{name}: lookups without a result"), failed as f64, 0.0));
        for (share, real, model) in [("p50", real.p50_ms, model.p50_ms), ("p95", real.p95_ms, model.p95_ms)] {
            let ratio = real / model;
            measures.push(Measure::told(format!("{name} {share}: whole nodes over the loop"), ratio));
            let apart = (ratio - 1.0).abs() * 100.0;
            measures.push(Measure::at_most(format!("{name} {share}: apart by %"), apart, APART));
        }
        let ratio = real.requests / model.requests;
        measures.push(Measure::told(format!("{name} requests: whole nodes over the loop"), ratio));
        rows.push(Row::new(Kind::Ours, goal, "whole nodes", real));
        rows.push(Row::new(Kind::Ours, goal, "the loop", model));
    }
    let each = 2.0 * kept as f64 / plan.nodes.max(1) as f64;
    measures.push(Measure::told("ordinary connections of a node", each));
    measures.extend(invariants(settings, looped.broken.as_deref()));
    let hash = format!("{:016x}", whole.hash ^ looped.hash.rotate_left(28));
    Report { hash, rows, measures, ..empty(settings) }
}

fn empty(settings: &Settings) -> Report {
    Report {
        scenario: 28,
        title: scenario(28).map_or("", |scenario| scenario.title),
        nodes: settings.nodes,
        seed: settings.seed,
        hash: String::new(),
        rows: Vec::new(),
        measures: Vec::new(),
    }
}

/// The defaults, but for the pace of upkeep: a hundred nodes that measure the network's size every minute would be connected to half of it all the time.
fn config() -> DhtConfig {
    let mut config = DhtConfig::default();
    config.upkeep.early_refreshes = 1;
    config.upkeep.settling_every = config.upkeep.refresh_every;
    config
}
