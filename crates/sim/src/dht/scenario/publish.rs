//! Scenario 8: a value is stored, and as soon as the caller is told, strangers get it.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_dht::{self as dht, Outcome, Target};

use super::super::figures::Figures;
use super::super::machines::{Ended, Happened, Setting, World};
use super::super::others::Others;
use super::super::policy::{Goal, Kind};
use super::super::queue::{SECOND, Trace};
use super::super::report::{Measure, Report, Row};
use super::super::stream::Purpose;
use super::machines::{get, gets, name, put, row_of, setting, somebody};
use super::{Settings, beside};

/// What one library's rules came to on one network.
struct Run {
    kind: Kind,
    reach: &'static str,
    /// Until the caller was told.
    put: Figures,
    /// What the stores took in the end.
    settled: Settled,
    got: Figures,
    trace: Trace,
}

/// Scenario 8. Once in the study's network, where a request takes one round trip, which the bars are for, and once with the connections that nodes have; each library's rules in
/// a world of their own. The values are plain ones: holders compare nothing and hand nothing over.
pub(super) fn publish(settings: &Settings) -> Report {
    let (mut runs, mut broken, mut last) = (Vec::new(), None, None);
    for (reach, setting) in [("warm", setting(settings).warm()), ("mix", setting(settings))] {
        for kind in &settings.policies {
            let (run, mut world) = run(settings, *kind, reach, setting.clone());
            broken = broken.or(world.broken_at_the_end());
            runs.push(run);
            last = Some(world);
        }
    }
    let of_ours = |reach| runs.iter().find(|run| run.kind == Kind::Ours && run.reach == reach);
    let measures = of_ours("warm").zip(of_ours("mix")).map(|(warm, mix)| measures(warm, mix));
    // Of ours alone it is the hash of the second network, with that of the first one in it.
    let mut trace = of_ours("mix").map(|run| run.trace).unwrap_or_default();
    let is_last = |run: &&Run| run.kind == Kind::Ours && run.reach == "mix";
    for run in runs.iter().filter(|run| !is_last(run)) {
        trace.note(0, run.trace.hash(), 8);
    }
    let rows = runs.into_iter().flat_map(Run::rows).collect();
    super::attacks::finish(settings, 8, last, trace.hash(), broken, rows, measures.unwrap_or_default())
}

/// What stores took, after their callers were told too.
#[derive(Clone, Copy)]
struct Settled {
    /// Mean requests of a store.
    requests: f64,
    /// The share of its questions, the copies not counted, that went over connections that stood.
    warm_share: f64,
    hops: f64,
}

fn measures(warm: &Run, mix: &Run) -> Vec<Measure> {
    vec![
        Measure::at_most("caller told of a store, all warm, p95 ms", warm.put.p95_ms, 600.0),
        Measure::told("the same, p50 ms", warm.put.p50_ms),
        Measure::told("requests of a store, all warm", warm.put.requests),
        Measure::at_least("first get found %, values without repair, all warm", warm.got.found * 100.0, 99.9),
        Measure::told("caller told of a store, mix, p95 ms", mix.put.p95_ms),
        Measure::told("the same, p50 ms, mix", mix.put.p50_ms),
        Measure::at_least("first get found %, values without repair, mix", mix.got.found * 100.0, 99.9),
        Measure::told("warm share of the store's requests, mix", mix.put.warm_share),
    ]
}

impl Run {
    fn rows(self) -> [Row; 2] {
        let Settled { requests, warm_share, hops } = self.settled;
        let put = Figures { requests, warm_share, hops, ..self.put };
        [Row::of_stores(self.kind, self.reach, put), Row::new(self.kind, Goal::Value, self.reach, self.got)]
    }
}

fn run(settings: &Settings, kind: Kind, reach: &'static str, setting: Setting) -> (Run, World) {
    let rounds = settings.lookups.unwrap_or(1_000);
    let mut world = World::standing(setting);
    let (mut put, mut settled, mut got) = match Others::new(kind) {
        None => stores(&mut world, rounds),
        Some(mut others) => {
            let mut stream = world.stream(1, Purpose::Queries);
            let (put, got) = beside::stores(&mut world, &mut others, &mut stream, rounds, value);
            let settled = Settled { requests: put.requests, warm_share: put.warm_share, hops: put.hops };
            (put, settled, got)
        }
    };
    if reach == "warm" {
        (put.warm_share, settled.warm_share, got.warm_share) = (1.0, 1.0, 1.0);
    }
    (Run { kind, reach, put, settled, got, trace: world.trace }, world)
}

fn value(number: u64) -> Option<(Target, Bytes)> {
    Some((name(number)?, Bytes::from(format!("value {number}"))))
}

/// Values that our nodes store, and that others of them get at once: how the stores went until the caller was told, what they cost in the end, and the gets.
fn stores(world: &mut World, rounds: u64) -> (Figures, Settled, Figures) {
    let mut stream = world.stream(1, Purpose::Queries);
    let (mut puts, mut found, mut settled) = (Vec::new(), Vec::new(), BTreeMap::new());
    for number in 0..rounds {
        let publisher = somebody(world, &mut stream);
        put(world, publisher, number);
        puts.extend(next_ended(world, 35, &mut settled));
        let asker = somebody(world, &mut stream);
        get(world, asker, number);
        found.extend(next_ended(world, 12, &mut settled));
    }
    let told = puts.iter().filter(|one| one.outcome.ended == dht::Ended::Stored).count();
    let put = Figures { found: told as f64 / rounds.max(1) as f64, ..row_of(&puts) };
    // The last stores may still be under way.
    let settled: Vec<&Ended> = puts.iter().map(|put| settled.get(&put.operation).unwrap_or(put)).collect();
    (put, Settled::of(&settled), gets(&found, rounds as usize))
}

impl Settled {
    fn of(stores: &[&Ended]) -> Self {
        let sum =
            |of: fn(&Outcome) -> usize| stores.iter().map(|store| of(&store.outcome)).sum::<usize>() as f64;
        let asked = sum(|outcome| outcome.counts.asked as usize);
        let around = sum(|outcome| outcome.counts.around as usize);
        let copies = sum(|outcome| outcome.stored.len() + outcome.not_stored.len());
        let warm = sum(|outcome| outcome.counts.warm as usize);
        let count = stores.len().max(1) as f64;
        Self {
            requests: (asked + around) / count,
            warm_share: warm / (asked - copies).max(1.0),
            hops: sum(|outcome| outcome.hops as usize) / count,
        }
    }
}

/// The next operation that ends, within so many seconds; stores of which the caller was told before go to `settled` when they are over.
fn next_ended(world: &mut World, seconds: u64, settled: &mut BTreeMap<u64, Ended>) -> Option<Ended> {
    let end = world.now() + seconds * SECOND;
    while let Some(happened) = world.run_until(end) {
        match happened {
            Happened::Ended(one) => return Some(one),
            Happened::Settled(one) => drop(settled.insert(one.operation, one)),
            _ => {}
        }
    }
    None
}
