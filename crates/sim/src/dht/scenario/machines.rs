//! Scenarios of whole machines: 3, 5, 12 and 13.

use bytes::Bytes;
use peerage_dht::{Class, Operation, Options, Source, Target};

use super::super::figures::{Figures, Times};
use super::super::machines::{Ended, Happened, Setting, Traffic, World};
use super::super::network::Faults;
use super::super::network::{Health, strike};
use super::super::queue::{Micros, SECOND};
use super::super::report::{Measure, Report, Row};
use super::super::stream::{Purpose, Stream};
use super::runs::both;
use super::{Settings, scenario};

pub(super) const MINUTE: Micros = 60 * SECOND;
pub(super) const HOUR: Micros = 60 * MINUTE;

pub(super) fn options(replicas: bool) -> Options {
    Options { class: Class::Interactive, quorum: usize::from(!replicas), ..Options::default() }
}

/// The figure of that name.
const INVARIANTS: &str = "invariants broken";

/// Whether an invariant was broken, where they are checked, and which one it was.
pub(super) fn invariants(settings: &Settings, broken: Option<&str>) -> Vec<Measure> {
    let mut measures = Vec::new();
    if settings.checks {
        measures.push(Measure::at_most(INVARIANTS, f64::from(u8::from(broken.is_some())), 0.0));
    }
    measures.extend(broken.map(Measure::broken));
    measures
}

pub(super) fn report(
    settings: &Settings,
    number: u32,
    world: &mut World,
    rows: Vec<Row>,
    mut measures: Vec<Measure>,
) -> Report {
    measures.extend(invariants(settings, world.broken_at_the_end().as_deref()));
    Report {
        scenario: number,
        title: scenario(number).map_or("", |scenario| scenario.title),
        nodes: settings.nodes,
        seed: settings.seed,
        hash: format!("{:016x}", world.trace.hash()),
        rows,
        measures,
    }
}

pub(super) fn setting(settings: &Settings) -> Setting {
    let progress = settings.progress.clone();
    let Settings { loss, nat, checks, .. } = *settings;
    Setting { loss, nat, checks, progress, ..Setting::new(settings.nodes, settings.seed) }
}

/// What gets came to: of those that were started, how many found a value, and in which time.
pub(super) fn gets(ended: &[Ended], started: usize) -> Figures {
    let mut figures = row_of(ended);
    let found = ended.iter().filter(|one| !one.outcome.values.is_empty()).count();
    figures.found = found as f64 / started.max(1) as f64;
    figures
}

pub(super) fn row_of(ended: &[Ended]) -> Figures {
    let count = ended.len().max(1) as f64;
    let times = Times::new(ended.iter().map(|one| one.took).collect());
    let requests = ended.iter().map(|one| f64::from(one.outcome.counts.asked)).sum::<f64>() / count;
    let warm = ended.iter().map(|one| f64::from(one.outcome.counts.warm)).sum::<f64>() / count;
    Figures {
        lookups: ended.len(),
        p50_ms: times.percentile(0.5),
        p95_ms: times.percentile(0.95),
        p99_ms: times.percentile(0.99),
        p999_ms: times.percentile(0.999),
        requests,
        warm_share: warm / requests.max(f64::MIN_POSITIVE),
        hops: ended.iter().map(|one| f64::from(one.outcome.hops)).sum::<f64>() / count,
        times,
        ..Figures::default()
    }
}

pub(super) fn name(number: u64) -> Option<Target> {
    Target::new(format!("/simulated/{number}").as_bytes())
}

pub(super) fn put(world: &mut World, node: u32, number: u64) {
    if let Some(target) = name(number) {
        let value = Bytes::from(format!("value {number}"));
        world.start(node, Operation::Put { target, value, replicas: 20 }, options(true));
    }
}

pub(super) fn get(world: &mut World, node: u32, number: u64) {
    if let Some(target) = name(number) {
        world.start(node, Operation::Get { target }, options(false));
    }
}

/// Scenario 3, after the strike: how soon the tables are clean again. The network has stood for twenty minutes by then, so that entries have ages and probes are spread over
/// time; nobody looks anything up but the nodes' own upkeep.
pub(super) fn recovery(settings: &Settings, mut base: Report) -> Report {
    let mut world = World::standing(setting(settings));
    let struck = 20 * MINUTE;
    world.gather(struck);
    let health = strike(settings.seed, settings.nodes, Faults { silent: 0.3, slow: 0.1, loss: 0.0 });
    for (node, health) in world.nodes.iter_mut().zip(health) {
        node.health = health;
    }
    world.read_meters(0);
    let before = world.stale_share();
    let mut after = |minutes| {
        world.gather(struck + minutes * MINUTE);
        world.stale_share()
    };
    let (two, five, ten) = (after(2), after(5), after(10));
    let traffic = world.read_meters(struck);
    if let Some(which) = world.broken_at_the_end() {
        base.measures.retain(|measure| measure.name != INVARIANTS);
        base.measures.extend(invariants(settings, Some(&which)));
    }
    base.measures.extend([
        Measure::told("stale share of tables at the strike", before),
        Measure::told("stale share after 2 min", two),
        Measure::told("stale share after 5 min", five),
        Measure::at_most("stale share after 10 min", ten, 0.05),
        Measure::told("upkeep B/s of a node in these 10 min", traffic.mean),
    ]);
    base
}

/// Scenario 5: a day of churn. Once in the study's network, where a request takes one round trip, and once with the connections that nodes have: the bars of time are for the
/// first, those of upkeep and of what is found for both. Nodes hold plain values here, which their publishers renew: holders compare nothing and hand nothing over, which scenario 7 counts.
pub(super) fn churn(settings: &Settings) -> Report {
    let (mut warm, figures, traffic) = churned(settings, setting(settings).warm());
    let (mut mix, mixed, mixed_traffic) = churned(settings, setting(settings));
    mix.trace.note(0, warm.trace.hash(), 5);
    mix.broken = mix.broken.or(warm.broken_at_the_end());
    let found = figures.found.min(mixed.found);
    let measures = vec![
        Measure::at_least("get found %, values without repair", found * 100.0, 99.95),
        Measure::at_most("get p99 ms, all warm", figures.p99_ms, 500.0),
        Measure::at_most(
            "upkeep B/s of a node, mean, without repair",
            traffic.mean.max(mixed_traffic.mean),
            300.0,
        ),
        Measure::at_most(
            "upkeep B/s of a node, p99, without repair",
            traffic.p99.max(mixed_traffic.p99),
            1_000.0,
        ),
        Measure::told("the same with handshakes, mean, mix", mixed_traffic.with_handshakes),
        Measure::told("requests a second and node, mix", mixed_traffic.requests),
        Measure::told("stale share of tables, mix", mix.stale_share()),
        Measure::told("events, in millions", (warm.events + mix.events) as f64 / 1e6),
    ];
    report(settings, 5, &mut mix, both("", figures, mixed).into(), measures)
}

/// A network under churn: records are published and renewed by nodes that are up, gets come from anywhere.
fn churned(settings: &Settings, setting: Setting) -> (World, Figures, Traffic) {
    let span = settings.seconds.map_or(24 * HOUR, |seconds| seconds * SECOND);
    let mut world = World::standing(setting);
    // A fifth of the identities are away.
    let mut stream = world.stream(0, Purpose::Queries);
    for node in stream.sample(settings.nodes, settings.nodes / 5) {
        world.stop_node(node as u32);
    }
    world.churn(0.61, 3.66);
    // Tables forget who went; then it counts.
    let settle = (span / 4).min(HOUR);
    world.gather(settle);
    world.read_meters(0);
    let records = (settings.nodes as u64 / 10).max(20);
    let (mut ended, mut started) = (Vec::new(), 0);
    let every = (span / 2_000).max(SECOND);
    let end = settle + span;
    let mut at = settle;
    let mut round = 0u64;
    while at < end {
        // All records are renewed within an hour; each get is of one that was.
        let each = match round < records && round * every < HOUR {
            true => records.div_ceil(HOUR / every),
            false => (records * every).div_ceil(HOUR).max(1),
        };
        for number in 0..each {
            let publisher = somebody(&world, &mut stream);
            put(&mut world, publisher, (round * each + number) % records);
        }
        if at > settle + HOUR.min(span / 2) {
            let asker = somebody(&world, &mut stream);
            let number = stream.below(records as usize) as u64;
            get(&mut world, asker, number);
            started += 1;
        }
        at += every;
        ended.extend(world.gather(at));
        round += 1;
    }
    let traffic = world.read_meters(settle);
    ended.retain(|one| one.outcome.stored.is_empty() && one.outcome.counts.stored == 0);
    (world, gets(&ended, started), traffic)
}

pub(super) fn somebody(world: &World, stream: &mut Stream) -> u32 {
    let up = std::iter::repeat_with(|| stream.below(world.nodes.len())).take(10_000);
    up.into_iter().find(|node| world.nodes[*node].is_well()).unwrap_or_default() as u32
}

/// Scenario 12: nodes join, and one of their three first contacts is a black hole. Once in the study's network and once as it is, where every contact of a newcomer is cold; the
/// bar is for both.
pub(super) fn black_hole(settings: &Settings) -> Report {
    let mut warm = World::new(setting(settings).warm());
    let warm_times = joins(&mut warm, settings.nodes as u32);
    let mut cold = World::new(setting(settings));
    let times = joins(&mut cold, settings.nodes as u32);
    cold.trace.note(0, warm.trace.hash(), 12);
    cold.broken = cold.broken.or(warm.broken_at_the_end());
    let measures = vec![
        Measure::at_most("longest join ms, all warm", warm_times.percentile(1.0), 2_000.0),
        Measure::told("join p50 ms, all warm", warm_times.percentile(0.5)),
        Measure::at_most("longest join ms", times.percentile(1.0), 2_000.0),
        Measure::told("join p50 ms", times.percentile(0.5)),
    ];
    report(settings, 12, &mut cold, Vec::new(), measures)
}

/// Nodes join one after another; how long each took.
fn joins(world: &mut World, nodes: u32) -> Times {
    world.nodes[0].health = Health::Silent;
    let mut stream = world.stream(0, Purpose::Bootstrap);
    let mut joins = Vec::new();
    let hole = world.nodes[0].contact.clone();
    for node in 1..nodes {
        let mut contacts = vec![hole.clone()];
        contacts.extend(world.first_contacts(&mut stream, node).into_iter().take(2));
        let began = world.now();
        world.start_node(node, contacts, Source::Bootstrap);
        let mut took = None;
        while let Some(happened) = world.run_until(began + 60 * SECOND) {
            if let Happened::Event(who, peerage_dht::Event::Joined { .. }) = happened
                && who == node
            {
                took = Some(world.now() - began);
                break;
            }
        }
        // The first one is alone: it has nobody to join.
        if node > 1 {
            joins.push(took.unwrap_or(60 * SECOND));
        }
    }
    Times::new(joins)
}

/// Scenario 13: everybody starts without an idea of the network's size; an hour later as many again come within a minute.
pub(super) fn size(settings: &Settings) -> Report {
    let mut setting = setting(settings);
    setting.nodes *= 2;
    let mut world = World::new(setting);
    let mut stream = world.stream(0, Purpose::Bootstrap);
    come(&mut world, &mut stream, 0..settings.nodes as u32, 2 * MINUTE);
    let began = world.now();
    world.gather(began + 10 * MINUTE);
    let (early, early_mean) = (world.size_within(0.15), world.mean_size());
    world.gather(began + HOUR);
    let (settled, settled_mean) = (world.size_within(0.1), world.mean_size());
    come(&mut world, &mut stream, settings.nodes as u32..2 * settings.nodes as u32, MINUTE);
    let began = world.now();
    world.gather(began + 15 * MINUTE);
    let measures = vec![
        Measure::at_least("nodes within 15 % after 10 min", early, 0.95),
        Measure::told("mean estimate over the truth after 10 min", early_mean),
        Measure::at_least("nodes within 10 % after 1 h", settled, 0.95),
        Measure::told("mean estimate over the truth after 1 h", settled_mean),
        Measure::at_least(
            "nodes within 20 %, 15 min after their number doubled",
            world.size_within(0.2),
            0.95,
        ),
        Measure::told("mean estimate over the truth after the crowd", world.mean_size()),
        Measure::told("events, in millions", world.events as f64 / 1e6),
    ];
    report(settings, 13, &mut world, Vec::new(), measures)
}

/// Nodes come one after another within `span`, each with three who are there.
fn come(world: &mut World, stream: &mut Stream, nodes: std::ops::Range<u32>, span: Micros) {
    let (began, first, count) = (world.now(), nodes.start, nodes.len() as u64);
    for node in nodes {
        world.gather(began + u64::from(node - first) * span / count);
        let contacts = world.first_contacts(stream, node);
        world.start_node(node, contacts, Source::Bootstrap);
    }
}
