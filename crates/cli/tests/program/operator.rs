//! The commands that talk to a running node.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Running, run};

async fn json(arguments: &[&str], data: &Path) -> Value {
    let finished = run([arguments, &["--json", "--data", data.to_str().unwrap()]].concat()).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[tokio::test]
async fn a_running_node_tells_its_owner_how_it_is_and_who_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut first = Running::node(&a, 0, ["--moniker", "first", "--control", "stdio"]);
    let listening: Value = serde_json::from_str(&first.line().await.unwrap()).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    assert_eq!(json(&["peers"], &a).await, json!([]));
    let _second = Running::node(&b, 0, ["--seed", &address, "--moniker", "second"]);
    assert!(first.line().await.unwrap().contains("peer_connected"));
    let peers = json(&["peers", "--ping"], &a).await;
    assert_eq!((&peers[0]["moniker"], &peers[0]["direction"]), (&json!("second"), &json!("inbound")));
    assert!(peers[0]["ping_ms"].as_f64().unwrap() > 0.0);
    let status = json(&["status"], &a).await;
    assert_eq!((&status["peers"], &status["pid"]), (&json!(1), &json!(first.child.id())));
    let text = run(["status", "--data", a.to_str().unwrap()]).await.stdout;
    assert!(text.contains("first") && text.contains(&address), "{text}");
    let text = run(["peers", "--data", a.to_str().unwrap()]).await.stdout;
    assert!(text.contains("second") && text.contains("inbound"), "{text}");
}

#[tokio::test]
async fn only_the_owner_can_open_the_socket_and_it_goes_with_the_node() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than a socket address can be.
    let data = folder.path().join("x".repeat(120));
    let socket = data.join("control.sock");
    let mut node = Running::node(&data, 0, [] as [&str; 0]);
    node.address().await;
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    json(&["status"], &data).await;
    node.signal(Signal::KILL);
    node.end().await;
    assert!(socket.exists());
    let arguments = ["status", "--data", data.to_str().unwrap()];
    assert!(run(arguments).await.error(1).contains("no node runs on"));
    let mut again = Running::node(&data, 0, [] as [&str; 0]);
    again.address().await;
    json(&["status"], &data).await;
    again.signal(Signal::TERM);
    assert_eq!(again.end().await.code(), Some(0));
    assert!(!socket.exists());
    assert!(run(arguments).await.error(1).contains("peerage node"));
}
