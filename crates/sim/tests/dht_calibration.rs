//! Scenario 28, smaller: the loop over machines against whole nodes on simulated QUIC.
#![allow(clippy::unwrap_used, clippy::panic)]

use peerage_sim::dht::policy::Kind;
use peerage_sim::dht::progress::Progress;
use peerage_sim::dht::scenario::{Settings, scenario};
use peerage_sim::seeds;

/// D.2, 28: what the loop says of times is what whole nodes need, within 15 % at p50 and p95.
#[test]
fn whole_nodes_and_the_loop_agree_on_how_long_lookups_take() {
    for seed in seeds([1]) {
        let policies = vec![Kind::Ours];
        let settings = Settings {
            nodes: 40,
            seed,
            policies,
            lookups: Some(60),
            seconds: None,
            idle_seconds: None,
            loss: 0.0,
            nat: 0.0,
            checks: false,
            progress: Progress::default(),
        };
        let report = scenario(28).unwrap().run(&settings);
        println!("{}", report.markdown());
        let missed: Vec<_> = report.measures.iter().filter(|measure| !measure.passes()).collect();
        let with = "--nodes 40 --lookups 60";
        assert!(
            missed.is_empty(),
            "{missed:#?}\nreplay: cargo run --release -p peerage-sim -- dht --scenario 28 {with} --seed {seed}"
        );
        assert!(report.measures.iter().filter(|measure| measure.bar.is_some()).count() >= 6);
    }
}
