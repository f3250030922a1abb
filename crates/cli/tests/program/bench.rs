//! `peerage bench`: against a node that serves it and one that does not, as a table and as JSON, and when it is interrupted.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Running, program, run};

const LITTLE: [&str; 7] = ["bench", "--mib", "1", "--messages", "1000", "--requests", "100"];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[tokio::test]
async fn a_node_that_serves_it_is_measured_and_each_work_has_a_line_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::node(&folder.path().join("data"), 0, ["--serve-bench"]);
    let address = node.address().await;
    let measured = run(LITTLE.iter().copied().chain(["--json", &address])).await;
    assert_eq!((measured.code, measured.stderr.as_str()), (Some(0), ""), "{measured:?}");
    let rows = lines(&measured.stdout);
    let works: Vec<_> = rows.iter().map(|row| row["work"].as_str().unwrap()).collect();
    let all = [
        "bulk-1",
        "bulk-8",
        "msgs-64",
        "msgs-1k",
        "msgs-64k",
        "rtt",
        "rpc-1",
        "rpc-64",
        "streams",
        "perf-up",
        "perf-down",
        "perf-rtt",
    ];
    assert_eq!(works, all);
    for row in &rows {
        assert_eq!(row["status"], "measured", "{row}");
        assert!(address.ends_with(row["peer"].as_str().unwrap()), "{row}");
        assert!(row["seconds"].as_f64().unwrap() > 0.0 && row["bytes"].is_u64(), "{row}");
    }
    let row = |work: &str| rows.iter().find(|row| row["work"] == work).unwrap();
    assert_eq!(row("bulk-1")["bytes"], 1 << 20);
    assert!(row("bulk-8")["mib_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!((&row("msgs-64")["messages"], &row("msgs-64k")["messages"]), (&1000.into(), &16.into()));
    assert!(row("rtt")["p99_us"].as_f64().unwrap() >= row("rtt")["p50_us"].as_f64().unwrap());
    assert_eq!((&row("rpc-64")["requests"], &row("streams")["streams"]), (&100.into(), &100.into()));
    assert_eq!((&row("streams")["lost"], &row("streams")["losses"]), (&0.into(), &serde_json::json!({})));
    // The same as a table, of some.
    let measured = run(LITTLE.iter().copied().chain(["--works", "rtt,streams", &address])).await;
    assert_eq!(measured.code, Some(0), "{measured:?}");
    let out = &measured.stdout;
    assert!(
        out.starts_with("connected to 12D3") && out.contains("p99") && out.contains("none lost"),
        "{out}"
    );
    assert!(!out.contains("bulk-1") && measured.stderr.contains("rtt: "), "{measured:?}");
}

#[tokio::test]
async fn a_node_that_does_not_serve_it_is_one_error_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::node(&folder.path().join("data"), 0, [""; 0]);
    let address = node.address().await;
    let refused = run(["bench", "--json", &address]).await;
    let error = refused.error(1);
    assert!(error.contains("does not let itself be measured") && error.contains("--serve-bench"), "{error}");
    assert_eq!(refused.stdout, "");
    let refused = run(["bench", "--works", "bulk-2", &address]).await;
    assert!(refused.error(2).contains("bulk-2"), "{refused:?}");
}

#[tokio::test]
async fn an_interrupt_leaves_the_rows_that_were_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::node(&folder.path().join("data"), 0, ["--serve-bench"]);
    let address = node.address().await;
    let long = ["bench", "--json", "--works", "msgs-1k,rpc-1,streams", "--mib", "1", "--seconds", "3600"];
    let long = long.into_iter().chain(["--requests", "1000000", &address]);
    let mut measuring = Running::start(program(long));
    let first = measuring.line().await.unwrap();
    assert_eq!(lines(&first)[0]["status"], "measured", "{first}");
    measuring.signal(Signal::INT);
    let rest: Vec<_> = [measuring.line().await, measuring.line().await].into_iter().flatten().collect();
    let rows = lines(&rest.join("\n"));
    assert_eq!((&rows[0]["work"], &rows[0]["status"]), (&"rpc-1".into(), &"interrupted".into()), "{rest:?}");
    assert!(rows[0]["reached"].as_str().unwrap().ends_with("requests"), "{rest:?}");
    assert_eq!((&rows[1]["work"], &rows[1]["status"]), (&"streams".into(), &"not run".into()), "{rest:?}");
    assert_eq!(measuring.end().await.code(), Some(1));
    assert_eq!(measuring.rest_of_stderr().await.trim_end(), "error: interrupted by SIGINT");
}

#[tokio::test]
async fn a_network_with_an_allow_list_is_measured_with_a_key_that_is_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("my.key");
    let key = key.to_str().unwrap();
    let id = run(["key", "new", key]).await.stdout;
    let allowed = ["--serve-bench", "--allow", id.trim()];
    let mut node = Running::node(&folder.path().join("data"), 0, allowed);
    let address = node.address().await;
    let little = ["bench", "--json", "--works", "rpc-1", "--requests", "5"];
    let stranger = run(little.into_iter().chain([&*address])).await;
    assert_eq!(stranger.code, Some(1), "{stranger:?}");
    let member = run(little.into_iter().chain(["--key", key, &address])).await;
    assert_eq!(member.code, Some(0), "{member:?}");
}
