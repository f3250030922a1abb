//! The table from end to end: every work with tiny amounts, by the real processes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

fn table(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerage-bench"));
    command.arg("table").args(arguments).output().unwrap()
}

fn complaint(arguments: &[&str]) -> String {
    let output = table(arguments);
    assert!(!output.status.success(), "{arguments:?} was taken");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_work_runs_with_ours_and_raw_quinn_and_gives_figures_bars_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let (results, plot) = (folder.path().join("speed.md"), folder.path().join("speed.svg"));
    let files = ["--out", results.to_str().unwrap(), "--svg", plot.to_str().unwrap()];
    let output = table(&[&["--json", "--scale", "0.0005", "--reps", "1"][..], &files].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = json["rows"].as_array().unwrap();

    let works: Vec<_> = peerage_bench_peer::Work::all().iter().map(|work| work.name()).collect();
    for work in &works {
        for peer in ["ours", "raw-quinn"] {
            let found = rows.iter().find(|row| row["work"] == work.as_str() && row["peer"] == peer);
            let row = found.unwrap_or_else(|| panic!("no row of {work} for {peer}"));
            assert!(row["does_not_apply"].is_null(), "{row}");
            assert_eq!((row["rounds"].as_u64(), row["lost"].as_u64()), (Some(1), Some(0)), "{row}");
            // A connection or two may fit into pages that are there already.
            assert!(row["median"].as_f64().is_some_and(|median| median > 0.0 || work == "memory"), "{row}");
            assert_eq!(row["group"], "x25519", "{row}");
        }
    }
    let suite = |peer: &str| rows.iter().find(|row| row["peer"] == peer).unwrap()["suite"].clone();
    assert_eq!(suite("raw-quinn"), "TLS_AES_256_GCM_SHA384");
    assert_eq!(suite("raw-quinn-tuned"), "TLS_AES_128_GCM_SHA256");
    assert_eq!(suite("raw-quinn-chacha"), "TLS_CHACHA20_POLY1305_SHA256");

    for bar in json["bars"].as_array().unwrap() {
        assert!(bar["came"].is_number(), "a bar without a figure: {bar}");
    }
    let results = std::fs::read_to_string(results).unwrap();
    assert!(
        results.contains("| bulk-1 | ours-1452 | rate, MiB/s |")
            && results.contains("## What must be reached")
    );
    assert!(std::fs::read_to_string(plot).unwrap().contains("bulk-1, rate"));
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_runs_with_what_to_do() {
    assert!(complaint(&["--works", "bulk1"]).contains("did you mean bulk-1?"));
    assert!(complaint(&["--peers", "ours,nobody"]).contains("raw-quinn"));
    assert!(complaint(&["--svg", "/no/such/folder/plot.svg"]).contains("does its folder exist?"));
}

#[test]
fn a_program_tells_what_it_is_not_given() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peerage-bench"));
        let output = command.args(["peer", "ours"]).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?} was taken");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&["serve", "--form", "jumbo"]).contains("give one of default, 1452"));
    assert!(run(&["drive", "", "rtt"]).contains("give what `serve` printed"));
    assert!(run(&["drive", "x", "rtt", "--amount", "0"]).contains("give 1 to"));
    assert!(run(&["drive", "nonsense", "rtt"]).contains("the connection: "));
}
