//! Scenarios of single lookups in a network that stands still: 1, 2 and 4.

use super::super::figures::Figures;
use super::super::lookups::run;
use super::super::network::Faults;
use super::super::policy::{Goal, Kind};
use super::super::queue::Trace;
use super::super::report::{Measure, Report, Row};
use super::super::still::{Plan, Still};
use super::super::walk::Reach;
use super::{Settings, scenario};

/// Lookups for a row, unless told otherwise.
const LOOKUPS: u64 = 2_000;

/// Connections of a node whose peers are not all warm: the peer manager's default of outbound and inbound ones.
const CONNECTIONS: usize = 32;

/// Scenario 1.
pub(super) fn quiet(settings: &Settings) -> Report {
    let (mut report, rows) = compare(settings, 1, Faults::default(), Reach::WARM);
    if let Some(ours) = rows.get(Kind::Ours, Goal::Value) {
        let best = rows.others(Goal::Value).map(|figures| figures.p50_ms).fold(f64::INFINITY, f64::min);
        report.measures.extend([
            Measure::at_most("get p50 ms", ours.p50_ms, 200.0),
            Measure::at_most("get p99 ms", ours.p99_ms, 400.0),
            Measure::at_most("get requests", ours.requests, 14.0),
            Measure::at_least("get found %", ours.found * 100.0, 100.0),
        ]);
        if best.is_finite() {
            report.measures.push(Measure::at_most(
                "get p50 against the best policy's",
                ours.p50_ms / best,
                1.15,
            ));
        }
    }
    report
}

/// Scenario 2.
pub(super) fn silent(settings: &Settings) -> Report {
    let (mut report, rows) =
        compare(settings, 2, Faults { silent: 0.15, slow: 0.05, loss: 0.0 }, Reach::WARM);
    if let Some((get, closest)) = rows.get(Kind::Ours, Goal::Value).zip(rows.get(Kind::Ours, Goal::Closest)) {
        report.measures.extend([
            Measure::at_most("get p50 ms", get.p50_ms, 220.0),
            Measure::at_most("get p95 ms", get.p95_ms, 375.0),
            Measure::at_most("get p99 ms", get.p99_ms, 450.0),
            Measure::at_most("get requests", get.requests, 14.0),
            Measure::at_least("get found %", get.found * 100.0, 99.9),
            Measure::at_most("closest p95 ms", closest.p95_ms, 1_200.0),
            Measure::at_least("closest recall", closest.recall, 0.97),
        ]);
    }
    report
}

/// Scenario 3: lookups right after the strike, then the tables' recovery.
pub(super) fn strike(settings: &Settings) -> Report {
    let (mut report, rows) = compare(settings, 3, Faults { silent: 0.3, slow: 0.1, loss: 0.0 }, Reach::WARM);
    if let Some((get, closest)) = rows.get(Kind::Ours, Goal::Value).zip(rows.get(Kind::Ours, Goal::Closest)) {
        report.measures.extend([
            Measure::at_most("get p99 ms", get.p99_ms, 700.0),
            Measure::at_least("get found %", get.found * 100.0, 99.9),
            Measure::at_most("closest p95 ms", closest.p95_ms, 2_000.0),
            Measure::at_least("closest recall", closest.recall, 0.94),
        ]);
    }
    super::machines::recovery(settings, report)
}

/// Scenario 4.
pub(super) fn half_silent(settings: &Settings) -> Report {
    let (mut report, rows) = compare(settings, 4, Faults { silent: 0.5, slow: 0.0, loss: 0.0 }, Reach::FRESH);
    if let Some(ours) = rows.get(Kind::Ours, Goal::Value) {
        report.measures.extend([
            Measure::at_least("get found %", ours.found * 100.0, 99.5),
            Measure::at_most("get p99 ms", ours.p99_ms, 2_000.0),
        ]);
    }
    report
}

/// What each policy's lookups came to with all contacts warm, for the bars.
struct Rows(Vec<(Kind, Goal, Figures)>);

impl Rows {
    fn get(&self, kind: Kind, goal: Goal) -> Option<&Figures> {
        self.0.iter().find(|row| row.0 == kind && row.1 == goal).map(|row| &row.2)
    }

    fn others(&self, goal: Goal) -> impl Iterator<Item = &Figures> {
        self.0.iter().filter(move |row| row.0 != Kind::Ours && row.1 == goal).map(|row| &row.2)
    }
}

/// All policies on one network: with warm contacts, then with those that a node has.
fn compare(settings: &Settings, number: u32, faults: Faults, reach: Reach) -> (Report, Rows) {
    let faults = Faults { loss: faults.loss.max(settings.loss), ..faults };
    let mut world = Still::new(Plan::new(settings.nodes, settings.seed, faults));
    world.progress = settings.progress.clone();
    let count = settings.lookups.unwrap_or(LOOKUPS);
    let mut trace = Trace::default();
    let mut rows = Vec::new();
    let (mut warm, mut broken) = (Vec::new(), None);
    for (name, reach) in [("warm", reach), ("mix", Reach::mix(CONNECTIONS))] {
        for kind in &settings.policies {
            for goal in [Goal::Value, Goal::Closest] {
                let lookups = run(&world, *kind, goal, reach, count, &mut trace);
                if *kind == Kind::Ours {
                    broken = broken.or(lookups.iter().find_map(|lookup| lookup.broken));
                }
                let figures = Figures::of(&lookups);
                if name == "warm" {
                    warm.push((*kind, goal, figures.clone()));
                }
                rows.push(Row::new(*kind, goal, name, figures));
            }
        }
    }
    let report = Report {
        scenario: number,
        title: scenario(number).map_or("", |scenario| scenario.title),
        nodes: settings.nodes,
        seed: settings.seed,
        hash: format!("{:016x}", trace.hash()),
        rows,
        measures: super::machines::invariants(settings, broken),
    };
    (report, Rows(warm))
}
