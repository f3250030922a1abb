//! Every scenario in its small form; and with its faults off, in which it must fail.
#![allow(clippy::unwrap_used, clippy::panic)]

use peerage_sim::{Plan, SCENARIOS, scenario, seeds};

fn passes(name: &str) {
    for seed in seeds([1]) {
        let outcome = scenario(name).unwrap().run(seed, Plan::SMALL);
        let simulated = outcome.simulated.as_secs_f64();
        match outcome.result {
            Ok(report) => {
                println!("{name}, seed {seed}, {simulated} s, {} packets: {report:?}", outcome.packets)
            }
            Err(reason) => panic!(
                "{reason}\nto replay it: cargo run --release -p peerage-sim -- replay --scenario {name} --seed {seed}"
            ),
        }
    }
}

#[test]
fn fifty_nodes_form_an_overlay_from_one_seed() {
    passes("overlay");
}

#[test]
fn a_partition_heals() {
    passes("partition");
}

#[test]
fn a_hub_comes_back_without_a_storm() {
    passes("hub");
}

#[test]
fn a_rolling_restart_leaves_one_overlay() {
    passes("rolling");
}

#[test]
fn heavy_loss_loses_no_message() {
    passes("loss");
}

#[test]
fn a_slow_reader_slows_nobody_else() {
    passes("slow-reader");
}

#[test]
fn clones_learn_of_each_other() {
    passes("clones");
}

/// whatever a peer does, others are served meanwhile. X-14: it costs the peer.
#[test]
fn a_malicious_peer_harms_nobody() {
    passes("malicious");
}

/// What each scenario says when its faults don't happen.
const WITHOUT_FAULTS: &[(&str, &str)] = &[
    ("partition", "stopped no packet"),
    ("hub", "peers lost the hub"),
    ("rolling", "lost connections for"),
    ("loss", "not 30 %"),
    ("slow-reader", "never filled"),
    ("priority", "never filled"),
    ("clones", "a clone was not told"),
    ("malicious", "violations were tried"),
];

#[test]
fn a_scenario_without_its_faults_fails_for_that_reason() {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.has_faults) {
        let (_, expected) =
            WITHOUT_FAULTS.iter().find(|(name, _)| *name == scenario.name).expect(scenario.name);
        let outcome = scenario.run(1, Plan { faults: false, ..Plan::SMALL });
        let reason = outcome.result.expect_err(scenario.name).to_string();
        assert!(reason.contains(expected), "{}: {reason}", scenario.name);
    }
}
