//! One seed, one run: here, again, and in another process.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

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
