//! The DHT's scenarios at a thousand nodes, with the invariants checked while they run.
#![allow(clippy::unwrap_used, clippy::panic)]

use peerage_dht::{DhtConfig, LookupConfig};
use peerage_sim::dht::lookups::{run, run_with};
use peerage_sim::dht::network::Faults;
use peerage_sim::dht::plot::growth;
use peerage_sim::dht::policy::{Goal, Kind};
use peerage_sim::dht::progress::Progress;
use peerage_sim::dht::queue::Trace;
use peerage_sim::dht::report::Report;
use peerage_sim::dht::scenario::{Settings, scenario};
use peerage_sim::dht::still::{Plan, Still, peer_id};
use peerage_sim::dht::walk::{Reach, Walked};

fn settings(nodes: usize, seed: u64) -> Settings {
    let policies = vec![Kind::Ours, Kind::P1, Kind::P2, Kind::P3, Kind::P4];
    Settings {
        nodes,
        seed,
        policies,
        lookups: Some(300),
        seconds: None,
        idle_seconds: None,
        loss: 0.0,
        nat: 0.0,
        checks: true,
        progress: Progress::default(),
    }
}

/// Runs a scenario, and fails with the command that repeats it.
fn run_scenario(number: u32, settings: &Settings) -> Report {
    let report = scenario(number).unwrap().run(settings);
    let missed: Vec<_> = report.measures.iter().filter(|measure| !measure.passes()).collect();
    let (nodes, seed) = (settings.nodes, settings.seed);
    let replay = format!(
        "cargo run --release -p peerage-sim -- dht --scenario {number} --nodes {nodes} --seed {seed} --checks"
    );
    assert!(missed.is_empty(), "{missed:#?}\nreplay: {replay}");
    assert!(report.measures.iter().any(|measure| measure.name == "invariants broken"), "nothing was checked");
    report
}

#[test]
fn scenario_1_at_a_thousand_nodes_meets_its_bars() {
    run_scenario(1, &settings(1_000, 1));
}

#[test]
fn scenario_2_at_a_thousand_nodes_meets_its_bars() {
    let report = run_scenario(2, &settings(1_000, 1));
    // The slowest of the incumbents shows what silence costs, in the same run.
    let p95 = |policy: &str| {
        let rows = report.rows.iter().filter(|row| row.reach == "warm" && row.goal == "closest");
        rows.filter(|row| row.policy == policy).map(|row| row.figures.p95_ms).next().unwrap()
    };
    assert!(p95("p1") > 10.0 * p95("ours") && p95("p2") > 3.0 * p95("ours"));
}

#[test]
fn scenario_4_at_a_thousand_nodes_meets_its_bars() {
    run_scenario(4, &settings(1_000, 1));
}

/// Scenario 25, where joins and handshakes count. What the nodes stored is found, from their own disks.
#[test]
fn a_hundred_nodes_that_all_restart_find_what_they_stored_and_the_peak_counts_handshakes() {
    let report = scenario(25).unwrap().run(&Settings { seconds: Some(1_200), ..settings(100, 1) });
    let measure = |name: &str| report.measures.iter().find(|one| one.name == name).unwrap();
    let ratio = "peak over steady traffic, joins and handshakes included";
    for name in ["get found %, 3 min later", ratio, "invariants broken"] {
        assert!(measure(name).passes(), "{}", report.markdown());
    }
    let of_peak = ["upkeep", "joins", "handshakes"].map(|part| measure(&format!("peak: {part}")).found);
    let all = measure("peak: B/s of a node").found;
    assert!(of_peak.iter().all(|part| *part > 0.0), "{of_peak:?}");
    assert!((of_peak.iter().sum::<f64>() / all - 1.0).abs() < 1e-6, "{of_peak:?} of {all}");
    // Of a network that has not come to rest the ratio says little: what each restarted node sends in ten seconds is bounded all the same, with two dials in five for its join.
    assert!(all < 4_000.0 && measure(ratio).bar.is_some(), "{all}");
}

#[test]
fn scenario_12_joins_past_a_black_hole() {
    for seed in 1..=3 {
        run_scenario(12, &Settings { nodes: 40, ..settings(40, seed) });
    }
}

#[test]
fn two_hours_of_churn_meet_the_bars_of_scenario_5() {
    run_scenario(5, &Settings { seconds: Some(7_200), ..settings(300, 1) });
}

/// Nodes that nobody can dial and that don't know it, and lost packets, cost time and nothing else: what is stored is found.
#[test]
fn what_is_stored_is_found_though_a_fifth_cannot_be_dialled_and_packets_are_lost() {
    let settings = Settings { loss: 0.02, nat: 0.2, seconds: Some(900), ..settings(200, 2) };
    let report = scenario(5).unwrap().run(&settings);
    let measure = |name: &str| report.measures.iter().find(|one| one.name.starts_with(name)).unwrap();
    let found = measure("get found %");
    assert!(
        found.passes() && !report.measures.iter().any(|one| one.name.contains("invariant") && !one.passes()),
        "{}",
        report.markdown()
    );
    let quiet = Settings { loss: 0.0, nat: 0.0, ..settings };
    let times = |report: &Report| report.rows.iter().map(|row| row.figures.p95_ms).collect::<Vec<_>>();
    let (with, without) = (times(&report), times(&scenario(5).unwrap().run(&quiet)));
    assert!(with[1] > without[1], "both are felt: {with:?}, {without:?}");
}

/// The table of growth: hops grow with the logarithm of the number of nodes, and so do requests and times, more or less.
#[test]
fn lookups_grow_with_the_logarithm_of_the_network() {
    let growth = growth(7, 200).sizes;
    let hops: Vec<f64> = growth.iter().map(|one| one.closest.hops).collect();
    let gets: Vec<f64> = growth.iter().map(|one| one.get.hops).collect();
    for hops in [hops, gets] {
        let steps: Vec<f64> = hops.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // A step of a factor of ten is one and the same number of hops, half a hop more or less.
        assert!(steps.iter().all(|step| (0.2..1.0).contains(step)), "{hops:?}");
    }
    let p50: Vec<f64> = growth.iter().map(|one| one.closest.p50_ms).collect();
    assert!(p50[2] < 2.0 * p50[0] && p50[0] < p50[1] && p50[1] < p50[2], "{p50:?}");
}

#[test]
fn the_same_seed_gives_the_same_hash_and_another_one_does_not() {
    let hash = |number, seed| {
        let few = Settings { lookups: Some(20), seconds: Some(300), ..settings(200, seed) };
        scenario(number).unwrap().run(&few).hash
    };
    for number in [2, 5, 12] {
        assert_eq!(hash(number, 5), hash(number, 5), "scenario {number}");
        assert_ne!(hash(number, 5), hash(number, 6), "scenario {number}");
    }
}

fn walks(world: &Still, kind: Kind, goal: Goal) -> Vec<Walked> {
    run(world, kind, goal, Reach::WARM, 60, &mut Trace::default())
}

/// Metamorphic: who is called what does not matter, only how far names are apart. Which 20 of a full bucket are known is drawn anew with the names, so it is the
/// statistics that stay.
#[test]
fn renaming_everybody_by_a_constant_leaves_the_statistics() {
    let plan = Plan::new(1_000, 3, Faults::default());
    let renamed = Plan { renamed: 0x5bd1_e995_0123_4567, ..plan.clone() };
    let (before, after) = (Still::new(plan), Still::new(renamed));
    for kind in [Kind::P1, Kind::P2, Kind::P3, Kind::P4] {
        let means = |world| {
            let walks = walks(world, kind, Goal::Closest);
            let took: u64 = walks.iter().map(|one| one.took).sum();
            let requests: u32 = walks.iter().map(|one| one.requests).sum();
            (took as f64, f64::from(requests))
        };
        let ((took, requests), (later, others)) = (means(&before), means(&after));
        assert!((later / took - 1.0).abs() < 0.1 && (others / requests - 1.0).abs() < 0.1, "{kind:?}");
    }
}

/// Metamorphic, for our own lookups: their keys are hashes of names, which no constant renames. All other names in the same places, with the same round trips and questions by the
/// same askers, do the same: which peers are near a key is drawn anew, and the statistics stay.
#[test]
fn other_names_for_everybody_leave_our_statistics() {
    let named = |first: u64| {
        let guests = (first..first + 1_000).map(|one| peer_id(3, one)).collect();
        Still::new(Plan { guests, ..Plan::new(0, 3, Faults { silent: 0.15, slow: 0.05, loss: 0.0 }) })
    };
    let (before, mut after) = (named(0), named(1 << 40));
    assert!(before.peers.iter().all(|peer| !after.peers.contains(peer)));
    assert_eq!(before.health, after.health);
    for goal in [Goal::Value, Goal::Closest] {
        let means = |world: &Still| {
            let walks = run(world, Kind::Ours, goal, Reach::WARM, 200, &mut Trace::default());
            let mean = |of: &dyn Fn(&Walked) -> f64| walks.iter().map(of).sum::<f64>() / walks.len() as f64;
            let recall = |one: &Walked| if one.found { 1.0 } else { one.recall };
            [mean(&|one| one.took as f64), mean(&|one| f64::from(one.requests)), mean(&recall)]
        };
        let alike = |one: &[f64; 3], other: &[f64; 3]| {
            one.iter().zip(other).all(|(one, other)| (one / other - 1.0).abs() < 0.1)
        };
        let (first, second) = (means(&before), means(&after));
        assert!(alike(&first, &second), "{goal:?}: {first:?}, {second:?}");
        // So close that a network that is a little slower is another one.
        after.network.scale = 1.25;
        let slower = means(&after);
        assert!(!alike(&first, &slower), "{goal:?}: {first:?}, {slower:?}");
        after.network.scale = 1.0;
    }
}

/// Metamorphic: a slower network takes as much longer, where no timeout has a part.
#[test]
fn halving_all_latencies_halves_all_times() {
    let mut world = Still::new(Plan::new(1_000, 4, Faults::default()));
    let before = walks(&world, Kind::P2, Goal::Closest);
    world.network.scale = 0.5;
    let after = walks(&world, Kind::P2, Goal::Closest);
    for (before, after) in before.iter().zip(&after) {
        assert!((after.took as f64 * 2.0 / before.took as f64 - 1.0).abs() < 0.001);
    }
    // Ours has bounds for what it measures, which are halved too.
    let slow = DhtConfig::default();
    let lookup = &slow.lookup;
    let fast = LookupConfig {
        usual_rtt: lookup.usual_rtt / 2,
        stagger_least: lookup.stagger_least / 2,
        stagger_most: lookup.stagger_most / 2,
        soft_least: lookup.soft_least / 2,
        soft_most: lookup.soft_most / 2,
        soft_unknown: lookup.soft_unknown / 2,
        hard: lookup.hard / 2,
        ..lookup.clone()
    };
    let fast = DhtConfig { lookup: fast, ..slow.clone() };
    for goal in [Goal::Value, Goal::Closest] {
        let mut times = |scale: f64, config: &DhtConfig| {
            world.network.scale = scale;
            run_with(&world, Kind::Ours, goal, Reach::WARM, 60, config, &mut Trace::default())
        };
        for (before, after) in times(1.0, &slow).iter().zip(&times(0.5, &fast)) {
            assert_eq!(before.requests, after.requests);
            assert!((after.took as f64 * 2.0 / before.took as f64 - 1.0).abs() < 0.001, "{goal:?}");
        }
    }
}

/// Metamorphic: somebody who is there and does nothing takes nothing from the others.
#[test]
fn an_idle_node_more_changes_no_success() {
    let found = |nodes| {
        let world = Still::new(Plan::new(nodes, 9, Faults { silent: 0.15, slow: 0.05, loss: 0.0 }));
        walks(&world, Kind::Ours, Goal::Value).iter().filter(|one| one.found).count()
    };
    assert_eq!(found(1_000), found(1_001));
}
