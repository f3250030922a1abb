//! `peerage node` from its start to its stop.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Running, run};

/// What `--help` promises.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_node_keeps_its_key_and_stops_cleanly_at_each_signal() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("made/on/first/use");
    let mut ids = Vec::new();
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Running::node(&data, 0, ["--moniker", "a", "--log", "info"]);
        let address = node.address().await;
        ids.push(address.split_once("/p2p/").unwrap().1.to_owned());
        node.signal(signal);
        let start = Instant::now();
        assert_eq!(node.end().await.code(), Some(0));
        assert!(start.elapsed() < STOPS_WITHIN, "{:?}", start.elapsed());
        assert_eq!(node.rest_of_stderr().await, "", "a healthy node without peers says nothing at info");
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn nodes_that_are_connected_say_so_and_stop_in_time_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Running::node(&folder.path().join("a"), 0, ["--control", "stdio"]);
    let listening: serde_json::Value = serde_json::from_str(&first.line().await.unwrap()).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    let mut second = Running::node(&folder.path().join("b"), 0, ["--seed", &address]);
    second.address().await;
    let connected: serde_json::Value = serde_json::from_str(&first.line().await.unwrap()).unwrap();
    assert_eq!((&connected["event"], &connected["direction"]), (&json!("peer_connected"), &json!("inbound")));
    second.signal(Signal::TERM);
    let start = Instant::now();
    assert_eq!(second.end().await.code(), Some(0));
    assert!(start.elapsed() < STOPS_WITHIN);
    let gone: serde_json::Value = serde_json::from_str(&first.line().await.unwrap()).unwrap();
    assert_eq!((&gone["event"], &gone["peer"]), (&json!("peer_disconnected"), &connected["peer"]));
    assert!(gone["cause"].as_str().unwrap().contains("shut"), "{gone}");
    let log = second.rest_of_stderr().await;
    assert!(
        log.lines().all(|line| line.contains("peer connected") || line.contains("peer disconnected")),
        "{log}"
    );
}

#[tokio::test]
async fn commands_come_on_stdin_and_their_end_is_the_nodes_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::node(&folder.path().join("data"), 0, ["--control", "stdio", "--moniker", "me"]);
    assert!(node.ask("what?").await["error"].as_str().unwrap().contains("not JSON"));
    let status = node.ask(r#"{"id":5,"command":"status"}"#).await;
    assert_eq!((&status["id"], &status["ok"]["moniker"]), (&json!(5), &json!("me")));
    assert_eq!(status["ok"]["pid"], json!(node.child.id()));
    assert_eq!(node.ask(r#"{"id":6,"command":"peers"}"#).await, json!({"id": 6, "ok": []}));
    let unknown = node.ask(r#"{"id":7,"command":"request","peer":"x","text":"hi"}"#).await;
    assert!(unknown["error"].as_str().unwrap().contains("not a peer ID"), "{unknown}");
    drop(node.stdin.take());
    assert_eq!(node.end().await.code(), Some(0));
}

#[tokio::test]
async fn a_detached_node_outlives_its_commands() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::node(&folder.path().join("data"), 0, ["--control", "stdio"]);
    let status = node.ask(r#"{"id":1,"command":"status"}"#).await;
    let address = status["ok"]["listening"][0].as_str().unwrap().to_owned();
    assert_eq!(node.ask(r#"{"id":2,"command":"detach"}"#).await, json!({"id": 2, "ok": {}}));
    drop(node.stdin.take());
    let ping = run(["ping", "-c", "2", &address]).await;
    assert_eq!(ping.code, Some(0), "{ping:?}");
    assert!(node.child.try_wait().unwrap().is_none());
    node.signal(Signal::TERM);
    assert_eq!(node.end().await.code(), Some(0));
}
