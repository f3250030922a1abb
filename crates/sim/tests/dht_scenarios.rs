//! The DHT's scenarios that no other test runs, small enough for every day, with the invariants checked while they run.
#![allow(clippy::unwrap_used, clippy::panic)]

use peerage_sim::dht::policy::Kind;
use peerage_sim::dht::progress::Progress;
use peerage_sim::dht::report::{Bar, Report};
use peerage_sim::dht::scenario::{Settings, scenario};

fn settings(nodes: usize, lookups: u64) -> Settings {
    Settings {
        nodes,
        seed: 1,
        policies: vec![Kind::Ours],
        lookups: Some(lookups),
        seconds: None,
        idle_seconds: None,
        loss: 0.0,
        nat: 0.0,
        checks: true,
        progress: Progress::default(),
    }
}

/// Runs a scenario, and fails with the command that repeats it where a bar is missed, but for those named, which are for networks of the study's size.
fn run(number: u32, settings: &Settings, too_small_for: &[&str]) -> Report {
    let report = scenario(number).unwrap().run(settings);
    let missed: Vec<_> = report
        .measures
        .iter()
        .filter(|measure| !measure.passes() && !too_small_for.contains(&&*measure.name))
        .collect();
    let Settings { nodes, seed, lookups, seconds, .. } = settings;
    let lookups = lookups.map_or(String::new(), |lookups| format!(" --lookups {lookups}"));
    let seconds = seconds.map_or(String::new(), |seconds| format!(" --seconds {seconds}"));
    let replay = format!(
        "cargo run --release -p peerage-sim -- dht --scenario {number} --nodes {nodes} --seed {seed}{lookups}{seconds} --checks"
    );
    assert!(missed.is_empty(), "{missed:#?}\nreplay: {replay}");
    assert!(report.measures.iter().any(|measure| measure.name == "invariants broken"), "nothing was checked");
    report
}

fn found(report: &Report, name: &str) -> f64 {
    let measure = report.measures.iter().find(|measure| measure.name == name);
    measure.unwrap_or_else(|| panic!("no figure is called {name}")).found
}

/// Scenario 3. Among so few the twenty closest are a large part of all, of which a part is slow.
#[test]
fn what_a_strike_takes_from_tables_is_gone_in_ten_minutes() {
    let report = run(3, &settings(150, 100), &["closest recall"]);
    assert!(found(&report, "closest recall") > 0.85);
    let left = found(&report, "stale share after 5 min");
    assert!(left < found(&report, "stale share of tables at the strike") / 2.0, "{left}");
}

/// Scenario 7, for an hour and a half, in which a fifth of the nodes or more leave.
#[test]
fn records_outlive_publishers_who_are_never_there() {
    let hours = Settings { seconds: Some(5_400), ..settings(40, 100) };
    let report = run(7, &hours, &["r = 20: repair B/s of a node"]);
    // D.3-7: whatever somebody holds is found by a quiet lookup, and all of it is held.
    for replicas in [12, 20] {
        let figure = |what: &str| found(&report, &format!("r = {replicas}: {what}"));
        assert_eq!(
            (figure("share of records lost"), figure("of records with a holder, found %")),
            (0.0, 100.0)
        );
        assert!(figure("the same, fewest") >= f64::from(replicas) - 2.0);
        assert!(figure("repair B/s of a node") < 80.0);
    }
}

/// Scenario 8.
#[test]
fn what_is_stored_is_found_by_strangers_at_once() {
    run(8, &settings(400, 60), &[]);
}

/// Scenario 9. Fewer nodes than these know too coarsely how many they are to tell a crowd that is half as dense again from chance.
#[test]
fn sybils_around_a_key_hide_no_value_and_are_noticed() {
    let figure = |case: &str| format!("{case}: get found %");
    let report = run(9, &settings(1000, 16), &[]);
    for (case, bar) in [("45 covert, older", Bar::AtLeast(99.0)), ("100 covert, older", Bar::AtLeast(95.0))] {
        let measure = report.measures.iter().find(|measure| measure.name == figure(case)).unwrap();
        assert_eq!(measure.bar, Some(bar));
        assert!(found(&report, &figure(&format!("{case}, whole read"))) >= measure.found - 1.0);
    }
    // Who keeps its answers just below what counts as a crowd deceives a default read more often: a whole read hardly.
    let shy = found(&report, &figure("45 shy, older"));
    assert!(found(&report, &figure("45 shy, older, whole read")) >= shy.max(95.0));
    assert!(found(&report, "100 plain: lookups with an alarm %") >= 100.0);
}

/// Scenario 13.
#[test]
fn nodes_know_how_many_they_are_and_notice_a_crowd() {
    run(13, &settings(50, 0), &[]);
}

/// Scenario 14, with a network that is parted for twenty seconds.
#[test]
fn readers_never_go_back_while_writers_race_and_the_network_is_parted() {
    let report = run(14, &Settings { seconds: Some(20), ..settings(200, 0) }, &[]);
    assert!(found(&report, "reads") > 500.0 && found(&report, "reads that found something %") > 90.0);
}

/// D.3-13, of scenarios that no other test repeats.
#[test]
fn the_same_seed_gives_the_same_run() {
    for (number, nodes) in [(8, 60), (13, 20)] {
        let hash = |seed| scenario(number).unwrap().run(&Settings { seed, ..settings(nodes, 10) }).hash;
        assert_eq!(hash(5), hash(5), "scenario {number}");
        assert_ne!(hash(5), hash(6), "scenario {number}");
    }
}
