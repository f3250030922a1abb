//! Attacks, races and churn on networks of machines with records, at a size for every day, with the invariants checked while they run.
#![allow(clippy::unwrap_used, clippy::panic)]

use peerage_sim::dht::policy::Kind;
use peerage_sim::dht::progress::Progress;
use peerage_sim::dht::report::Report;
use peerage_sim::dht::scenario::{Settings, scenario};

fn settings(nodes: usize, seed: u64, lookups: u64) -> Settings {
    let policies = vec![Kind::Ours];
    Settings {
        nodes,
        seed,
        policies,
        lookups: Some(lookups),
        seconds: None,
        idle_seconds: None,
        loss: 0.0,
        nat: 0.0,
        checks: true,
        progress: Progress::default(),
    }
}

/// Runs a scenario, and fails with the command that repeats it.
fn run(number: u32, settings: &Settings) -> Report {
    let report = scenario(number).unwrap().run(settings);
    let missed: Vec<_> = report.measures.iter().filter(|measure| !measure.passes()).collect();
    let Settings { nodes, seed, lookups, seconds, .. } = settings;
    let lookups = lookups.map_or(String::new(), |lookups| format!(" --lookups {lookups}"));
    let seconds = seconds.map_or(String::new(), |seconds| format!(" --seconds {seconds}"));
    let replay = format!(
        "cargo run --release -p peerage-sim -- dht --scenario {number} --nodes {nodes} --seed {seed}{lookups}{seconds} --checks"
    );
    assert!(missed.is_empty(), "{missed:#?}\nreplay: {replay}");
    report
}

/// colluders who name each other alone, up to three of ten nodes (scenario 10).
#[test]
fn colluders_everywhere_do_not_hide_values() {
    run(10, &settings(500, 1, 100));
}

/// Two of three first contacts lead into a trap (scenario 11).
#[test]
fn a_newcomer_finds_its_way_past_hostile_first_contacts() {
    run(11, &settings(500, 1, 5));
    // Where answers of the trap are closer than what the honest first contact knows.
    run(11, &settings(6_000, 1, 20));
}

/// AL-42, X-27: a flood displaces nobody, and stores stay within their bounds (scenario 15).
#[test]
fn a_flood_leaves_room_for_others() {
    run(15, &settings(300, 1, 100));
}

#[test]
fn the_same_seed_gives_the_same_attack() {
    let hash = |seed| scenario(11).unwrap().run(&settings(200, seed, 3)).hash;
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5), hash(6));
}
