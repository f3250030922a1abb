//! One seed, one run: here, again, and in another process.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use peerage_sim::dht::policy::Kind;
use peerage_sim::dht::progress::Progress;
use peerage_sim::dht::scenario::{self as dht, Settings};
use peerage_sim::{Plan, scenario};

/// Scenarios with as much in them as there is: dials that race, loss, crashes, restarts, partitions, channels.
const RICH: &[&str] = &["loss", "rolling", "partition", "clones"];

#[test]
fn the_same_seed_gives_the_same_hash_in_this_process_and_in_another() {
    for name in RICH {
        let hash = |seed| scenario(name).unwrap().run(seed, Plan::SMALL).hash;
        let first = hash(7);
        assert_eq!(hash(7), first, "{name}, again");
        let elsewhere = Command::new(env!("CARGO_BIN_EXE_peerage-sim"))
            .args(["replay", "--scenario", name, "--seed", "7"])
            .output()
            .unwrap();
        let told = String::from_utf8(elsewhere.stdout).unwrap();
        assert_eq!(told.lines().next(), Some(format!("hash {first}").as_str()), "{name}, in another process");
    }
}

#[test]
fn another_seed_gives_another_hash() {
    let hash = |seed| scenario("clones").unwrap().run(seed, Plan::SMALL).hash;
    assert_ne!(hash(1), hash(2));
}

/// Runs `peerage-sim dht` in another process.
fn dht(args: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerage-sim"));
    let ran = command.arg("dht").args(args.split(' ')).output().unwrap();
    let (told, wrong) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8_lossy(&ran.stderr));
    assert!(!told.is_empty(), "{args}: {wrong}");
    told
}

/// D.3-13, of the loop: with single lookups, with whole machines, and with records that are signed (7).
#[test]
fn a_run_of_the_dht_has_the_same_hash_in_another_process_beside_others() {
    let told = dht("--scenario 2,12,7 --nodes 20 --lookups 5 --seconds 60 --seeds 7..8 --jobs 2 --json");
    let reports: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), 6, "{told}");
    let mut hashes = Vec::new();
    for report in reports {
        let (number, seed) = (report["scenario"].as_u64().unwrap(), report["seed"].as_u64().unwrap());
        let settings = Settings {
            nodes: 20,
            seed,
            policies: Kind::ALL.to_vec(),
            lookups: Some(5),
            seconds: Some(60),
            idle_seconds: None,
            loss: 0.0,
            nat: 0.0,
            checks: false,
            progress: Progress::default(),
        };
        let here = dht::scenario(number as u32).unwrap().run(&settings).hash;
        assert_eq!(report["hash"], here.as_str(), "scenario {number}, seed {seed}");
        hashes.push(here);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 6, "each scenario and seed has its own: {hashes:?}");
}

#[test]
fn the_growth_is_of_the_first_of_several_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("plot.svg");
    let told = dht(&format!("--scenario 1 --nodes 10 --lookups 1 --seeds 3..4 --svg {}", svg.display()));
    assert!(told.contains("\nSeed 3, lookups of each kind at each size: 1, hash `"), "{told}");
}
