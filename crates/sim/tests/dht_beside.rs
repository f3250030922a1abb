//! Tables show other libraries' rules beside ours where there is something to compare, and all contacts warm beside the connections that nodes have.
#![allow(clippy::unwrap_used, clippy::panic)]

use peerage_sim::dht::policy::Kind;
use peerage_sim::dht::progress::Progress;
use peerage_sim::dht::report::{Report, Row};
use peerage_sim::dht::scenario::{ALONE, SCENARIOS, Settings, scenario};

fn settings(nodes: usize, seed: u64, lookups: u64, policies: &[Kind]) -> Settings {
    Settings {
        nodes,
        seed,
        policies: policies.to_vec(),
        lookups: Some(lookups),
        seconds: Some(300),
        idle_seconds: None,
        loss: 0.0,
        nat: 0.0,
        checks: true,
        progress: Progress::default(),
    }
}

fn run(number: u32, settings: &Settings) -> Report {
    let report = scenario(number).unwrap().run(settings);
    let broken = report.measures.iter().find(|one| one.name.contains("invariant")).unwrap();
    assert!(broken.passes(), "scenario {number}, seed {}: {}", settings.seed, report.markdown());
    report
}

fn row<'a>(report: &'a Report, kind: Kind, reach: &str, goal: &str, case: &str) -> &'a Row {
    let is_it = |row: &&Row| (row.policy, row.reach, row.goal, row.case) == (kind.name(), reach, goal, case);
    report.rows.iter().find(is_it).unwrap_or_else(|| panic!("no row of {kind:?}, {reach}, {goal}, {case}"))
}

/// Each library's row is there with all contacts warm and with those that nodes have; the first has no cold request, and is faster.
fn shows_both(report: &Report, kinds: &[Kind], goal: &str, case: &str) {
    for kind in kinds {
        let of = |reach| &row(report, *kind, reach, goal, case).figures;
        let (warm, mix) = (of("warm"), of("mix"));
        let is_plausible = warm.warm_share == 1.0
            && mix.warm_share < 0.99
            && warm.p50_ms > 0.0
            && warm.p50_ms + warm.p95_ms < mix.p50_ms + mix.p95_ms
            && warm.requests >= 1.0
            && mix.lookups > 0;
        assert!(is_plausible, "{kind:?} {case}: {}", report.markdown());
    }
}

/// D.2, 8: all store and find; ours tells its caller first, as its copies go out during the search.
#[test]
fn stores_and_gets_by_all_rules_stand_beside_each_other() {
    let report = run(8, &settings(150, 2, 40, &Kind::ALL));
    assert_eq!(report.rows.len(), 2 * 2 * Kind::ALL.len());
    for goal in ["store", "get"] {
        shows_both(&report, &Kind::ALL, goal, "");
        for row in report.rows.iter().filter(|row| row.goal == goal) {
            assert_eq!(row.figures.found, 1.0, "{}", report.markdown());
        }
    }
    for reach in ["warm", "mix"] {
        let told = |kind| row(&report, kind, reach, "store", "").figures.p50_ms;
        for kind in &Kind::ALL[1..] {
            // A search of two hops at least, and then the copies.
            assert!(told(*kind) > told(Kind::Ours) && told(*kind) < 4_000.0, "{}", report.markdown());
            let requests = row(&report, *kind, reach, "store", "").figures.requests;
            assert!((40.0..90.0).contains(&requests), "20 questions at least, 20 copies: {requests}");
        }
    }
}

/// D.2, 9: who hands copies to the closest alone hands them all to the Sybils; forged values are taken by nobody.
#[test]
fn sybils_are_met_by_all_rules() {
    let kinds = [Kind::Ours, Kind::P1, Kind::P4];
    let report = run(9, &settings(200, 1, 20, &kinds));
    let found = |kind, reach, case| row(&report, kind, reach, "get", case).figures.found;
    for case in
        ["20 plain", "45 plain", "100 plain", "45 covert, forged", "100 covert, forged", "45 covert, older"]
    {
        shows_both(&report, &kinds, "get", case);
    }
    for (reach, case) in ["warm", "mix"].into_iter().zip(["45 plain", "100 plain"]) {
        assert!(found(Kind::Ours, reach, case) >= 0.9, "{}", report.markdown());
        assert_eq!((found(Kind::P1, reach, case), found(Kind::P4, reach, case)), (0.0, 0.0));
    }
    assert!(found(Kind::P1, "warm", "45 covert, forged") >= 0.5, "{}", report.markdown());
}

/// D.2, 10.
#[test]
fn colluders_are_met_by_all_rules() {
    let report = run(10, &settings(300, 1, 60, &Kind::ALL));
    for case in ["10 % collude", "20 % collude", "30 % collude"] {
        shows_both(&report, &Kind::ALL, "get", case);
        for kind in Kind::ALL {
            // dht.md A.3: this attack is an easy one.
            assert!(row(&report, kind, "mix", "get", case).figures.found >= 0.9, "{}", report.markdown());
        }
    }
}

#[test]
fn one_seed_gives_one_comparison_and_ours_is_what_it_is_alone() {
    for number in [8, 10] {
        let rows = |policies| {
            let report = run(number, &settings(60, 3, 15, policies));
            (serde_json::to_value(&report.rows).unwrap(), report.hash)
        };
        let all = rows(&[Kind::Ours, Kind::P2, Kind::P3]);
        assert_eq!(all, rows(&[Kind::Ours, Kind::P2, Kind::P3]));
        let (alone, hash) = rows(&[Kind::Ours]);
        assert_ne!(hash, all.1, "the hash is that of all that ran");
        for row in alone.as_array().unwrap() {
            assert!(all.0.as_array().unwrap().contains(row), "scenario {number}: {row}");
        }
        let (others, _) = rows(&[Kind::P2]);
        assert!(others.as_array().unwrap().iter().all(|row| row["policy"] == "p2"), "{others}");
    }
}

/// Where there is nothing to compare the table says so; times are there for both kinds of contacts all the same.
#[test]
fn tables_of_ours_alone_say_so_and_show_warm_contacts_too() {
    let cases: [(u32, usize, &[&str]); 6] = [
        (5, 100, &[""]),
        (7, 60, &["r = 12", "r = 20"]),
        (11, 200, &["newcomer"]),
        (14, 120, &["race"]),
        (15, 100, &["flood"]),
        (25, 60, &[""]),
    ];
    for (number, nodes, cases) in cases {
        let report = run(number, &settings(nodes, 1, 40, &Kind::ALL));
        assert_eq!(report.markdown().matches(ALONE).count(), 1, "scenario {number}");
        assert_eq!(report.rows.len(), 2 * cases.len(), "{}", report.markdown());
        cases.iter().for_each(|case| shows_both(&report, &[Kind::Ours], "get", case));
    }
    assert!(!run(8, &settings(60, 1, 5, &Kind::ALL)).markdown().contains(ALONE));
    let comparing = SCENARIOS.iter().filter(|scenario| scenario.compares).map(|scenario| scenario.number);
    assert_eq!(comparing.collect::<Vec<_>>(), [1, 2, 3, 4, 8, 9, 10]);
}
