//! `peerage demo`: its steps, its failures, and that it leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Running, finish, program, until_free};

/// A demo with a small file, all of whose folders are in `folder`.
fn demo(folder: &Path, more: &[&str]) -> tokio::process::Command {
    let file = folder.join("file");
    fs::write(&file, vec![7; 100_000]).unwrap();
    let temp = folder.join("tmp");
    fs::create_dir_all(&temp).unwrap();
    let mut command = program(["demo", "--json", "--file"]);
    command.arg(file).args(more).env("TMPDIR", temp);
    command
}

fn left_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder.join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The data folders of a running demo's nodes.
fn data_folders(folder: &Path) -> Vec<PathBuf> {
    let nodes = fs::read_dir(&left_in(folder)[0]).unwrap();
    nodes.map(|entry| entry.unwrap().path().join("data")).collect()
}

async fn step(demo: &mut Running) -> Value {
    serde_json::from_str(&demo.line().await.expect("another step")).unwrap()
}

fn pid(connected: &Value, node: usize) -> Pid {
    let pid = connected["nodes"][node]["pid"].as_i64().unwrap();
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

#[tokio::test]
async fn all_steps_pass_and_nothing_is_left() {
    for nodes in [3, 5] {
        let folder = tempfile::tempdir().unwrap();
        let finished = finish(demo(folder.path(), &["--nodes", &nodes.to_string()])).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let steps: Vec<Value> =
            finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
        assert_eq!(names, ["connect", "file", "talk", "refusal", "resolve", "restart", "stop"]);
        assert!(steps.iter().all(|step| step["ok"] == true && step["ms"].is_number()));
        let peers = |node: &Value| node["peers"].as_array().unwrap().len();
        assert!(steps[0]["nodes"].as_array().unwrap().iter().all(|node| peers(node) == nodes - 1));
        assert_eq!(steps[1]["transfers"].as_array().unwrap().len(), nodes - 1);
        assert_eq!(steps[2]["answers"].as_array().unwrap().len(), nodes - 1);
        joined_another(&steps[3], nodes);
        was_found_by_its_peer_id(&steps[4]);
        was_killed_and_is_back(&steps[5], nodes);
        assert!(left_in(folder.path()).is_empty());
    }
}

/// The refusal's facts: all that the full node knows are named, and the newcomer joined one of them.
fn joined_another(refusal: &Value, nodes: usize) {
    assert_eq!((&refusal["refused_by"], &refusal["reason"]), (&"node-1".into(), &"full".into()));
    let mut named: Vec<_> = texts(&refusal["alternatives"]);
    named.sort_unstable();
    let others: Vec<_> = (2..=nodes).map(|node| format!("node-{node}")).collect();
    assert_eq!(named, others);
    assert!(named.contains(&refusal["joined"].as_str().unwrap()), "{refusal}");
    assert!(refusal["refused_ms"].as_f64().unwrap() > 0.0 && refusal["joined_ms"].is_number());
    assert!(causes(&refusal["why"]).contains(&"refused-by-peer/full"), "{refusal}");
}

/// The facts of the search: the publisher was found where it listens, and answered.
fn was_found_by_its_peer_id(resolve: &Value) {
    let addresses = texts(&resolve["addresses"]);
    assert!(addresses.iter().all(|address| address.starts_with("/ip4/127.0.0.1/udp/")), "{resolve}");
    assert!(!addresses.is_empty() && resolve["asked"].as_u64().unwrap() >= 1, "{resolve}");
    assert!(resolve["lookup_ms"].as_f64().unwrap() > 0.0 && resolve["request_ms"].is_number());
}

/// The restart's facts: all report the loss, and one tells the victim's story, before and after its return.
fn was_killed_and_is_back(restart: &Value, nodes: usize) {
    let losses = restart["losses"].as_array().unwrap();
    assert_eq!(losses.len(), nodes - 1);
    assert!(restart["message_ms"].as_f64().unwrap() < 5000.0);
    let why = &restart["why"];
    assert!(losses.iter().any(|loss| loss["node"] == why["asked"] && loss["redial_ms"].is_number()), "{why}");
    let (lost, back) = (&why["lost"], &why["back"]);
    assert_ne!(lost["state"], "connected");
    assert!(causes(lost).contains(&"silent"), "{lost}");
    assert_eq!((&back["state"], &back["cause"]), (&"connected".into(), &"admitted".into()));
    let last = ["silent", "admitted"].map(|cause| causes(back).iter().rposition(|other| *other == cause));
    assert!(last[0].is_some() && last[0] < last[1], "{back}");
    assert!([lost, back].iter().all(|story| !story["summary"].as_str().unwrap().is_empty()));
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// What a story consists of, oldest first.
fn causes(story: &Value) -> Vec<&str> {
    story["history"].as_array().unwrap().iter().map(|entry| entry["cause"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_interrupted_demo_stops_its_nodes_and_removes_their_folders() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Running::start(demo(folder.path(), &["--nodes", "2"]));
    let connected = step(&mut demo).await;
    demo.signal(Signal::INT);
    assert_eq!(demo.end().await.code(), Some(1));
    assert!(demo.rest_of_stderr().await.contains("error: interrupted by SIGINT"));
    for node in 0..2 {
        assert!(kill_process(pid(&connected, node), Signal::CONT).is_err(), "node {node} still runs");
    }
    assert!(left_in(folder.path()).is_empty());
}

#[tokio::test]
async fn nodes_end_when_the_demo_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Running::start(demo(folder.path(), &["--nodes", "2"]));
    step(&mut demo).await;
    let data = data_folders(folder.path());
    assert_eq!(data.len(), 2);
    demo.child.kill().await.unwrap();
    for data in data {
        until_free(&data).await;
    }
}

#[tokio::test]
async fn a_step_that_fails_is_named_with_the_node_and_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Running::start(demo(folder.path(), &["--nodes", "3"]));
    let connected = step(&mut demo).await;
    while step(&mut demo).await["step"] != "resolve" {}
    // Step 6 now waits for what this node has to say about another one.
    kill_process(pid(&connected, 0), Signal::KILL).unwrap();
    let failed = step(&mut demo).await;
    assert_eq!((&failed["step"], &failed["ok"]), (&"restart".into(), &false.into()));
    assert!(failed["error"].as_str().unwrap().starts_with("node-1: "), "{failed}");
    assert_eq!(demo.end().await.code(), Some(1));
    let stderr = demo.rest_of_stderr().await;
    assert!(stderr.starts_with("error: step 6 (restart) failed: node-1: its process ended\n"), "{stderr}");
    assert!(stderr.contains("the log of node-1:\n") && stderr.contains("peer connected"), "{stderr}");
    assert!(left_in(folder.path()).is_empty());
}

#[tokio::test]
async fn kept_nodes_run_on_until_the_command_that_stops_them() {
    let folder = tempfile::tempdir().unwrap();
    let finished = finish(demo(folder.path(), &["--nodes", "2", "--keep"])).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let kept: Value = serde_json::from_str(finished.stdout.lines().last().unwrap()).unwrap();
    let address = kept["kept"][1]["address"].as_str().unwrap();
    let ping = finish(program(["ping", "-c", "1", "--network", "demo", address])).await;
    assert_eq!(ping.code, Some(0), "{ping:?}");
    let stop = kept["stop_command"].as_str().unwrap();
    let status =
        tokio::process::Command::new("sh").args(["-c", stop]).stdin(Stdio::null()).status().await.unwrap();
    assert!(status.success());
    for data in data_folders(folder.path()) {
        until_free(&data).await;
    }
}
