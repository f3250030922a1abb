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
    let folder = tempfile::tempdir().unwrap();
    let finished = finish(demo(folder.path(), &["--nodes", "3"])).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let steps: Vec<Value> = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["connect", "file", "talk", "restart", "stop"]);
    assert!(steps.iter().all(|step| step["ok"] == true && step["ms"].is_number()));
    let peers = |node: &Value| node["peers"].as_array().unwrap().len();
    assert!(steps[0]["nodes"].as_array().unwrap().iter().all(|node| peers(node) == 2));
    assert_eq!(steps[1]["transfers"].as_array().unwrap().len(), 2);
    assert_eq!(steps[2]["answers"].as_array().unwrap().len(), 2);
    assert_eq!(steps[3]["losses"].as_array().unwrap().len(), 2);
    assert!(steps[3]["message_ms"].as_f64().unwrap() < 5000.0);
    assert!(left_in(folder.path()).is_empty());
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
    while step(&mut demo).await["step"] != "talk" {}
    // Step 4 now waits for what this node has to say about another one.
    kill_process(pid(&connected, 0), Signal::KILL).unwrap();
    let failed = step(&mut demo).await;
    assert_eq!((&failed["step"], &failed["ok"]), (&"restart".into(), &false.into()));
    assert!(failed["error"].as_str().unwrap().starts_with("node-1: "), "{failed}");
    assert_eq!(demo.end().await.code(), Some(1));
    let stderr = demo.rest_of_stderr().await;
    assert!(stderr.starts_with("error: step 4 (restart) failed: node-1: its process ended\n"), "{stderr}");
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
