//! What the program takes from others at once, and that what a settings file says is in force in the node.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::support::{PATIENCE, Running, run};

/// A command session, and the first line that it says when it was asked how the node is.
async fn session(socket: &Path) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let _ = stream.write_all(b"{\"id\":1,\"command\":\"status\"}\n").await;
    let mut line = String::new();
    timeout(PATIENCE, BufReader::new(&mut stream).read_line(&mut line)).await.expect("an answer").unwrap();
    (stream, line)
}

#[tokio::test]
async fn a_seventeenth_command_session_is_refused_until_another_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut node = Running::node(&data, 0, ["--control", "stdio"]);
    node.line().await.unwrap();
    let socket = data.join("control.sock");
    let mut open = Vec::new();
    for _ in 0..16 {
        let (stream, line) = session(&socket).await;
        assert!(line.contains("\"ok\""), "{line}");
        open.push(stream);
    }
    let refused = session(&socket).await.1;
    assert!(refused.contains("16 command sessions are open already"), "{refused}");
    open.pop();
    let again = async { while !session(&socket).await.1.contains("\"ok\"") {} };
    timeout(PATIENCE, again).await.expect("a place is free again");
}

/// Sixteen that say nothing keep a seventeenth waiting, but for no longer than one may take.
#[tokio::test]
async fn silent_connections_for_metrics_are_bounded_and_given_up_after_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = format!("127.0.0.1:{port}");
    let mut node = Running::node(&folder.path().join("data"), 0, ["--metrics", &place]);
    node.address().await;
    let mut silent = Vec::new();
    let start = Instant::now();
    for _ in 0..16 {
        silent.push(TcpStream::connect(&place).await.unwrap());
    }
    let mut asking = TcpStream::connect(&place).await.unwrap();
    asking.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, asking.read_to_end(&mut answer)).await.expect("an answer").unwrap();
    let took = start.elapsed();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert!(took > Duration::from_millis(9500), "it was answered after {took:?}");
}

/// A node that goes by a settings file, and its address.
async fn node(folder: &Path, name: &str, settings: &str) -> (Running, String) {
    let file = folder.join(format!("{name}.toml"));
    fs::write(&file, settings).unwrap();
    let inbox = folder.join(format!("{name}-inbox"));
    let more = ["--control", "stdio", "--config", file.to_str().unwrap(), "--inbox", inbox.to_str().unwrap()];
    let mut node = Running::node(&folder.join(name), 0, more);
    let line = node.line().await.unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
    (node, listening["address"].as_str().unwrap().to_owned())
}

/// Says commands all at once. The errors of the replies, with nothing where there was none.
async fn ask_at_once(node: &mut Running, commands: &[Value]) -> Vec<String> {
    let lines: String = commands.iter().map(|command| format!("{command}\n")).collect();
    node.stdin.as_mut().unwrap().write_all(lines.as_bytes()).await.unwrap();
    let mut errors = Vec::new();
    while errors.len() < commands.len() {
        let line: Value = serde_json::from_str(&node.line().await.unwrap()).unwrap();
        if line.get("event").is_none() {
            errors.push(line["error"].as_str().unwrap_or_default().to_owned());
        }
    }
    errors
}

/// one setting of each section of the file, seen at work.
#[tokio::test]
async fn every_section_of_a_settings_file_is_in_force_in_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let strict = "[peers]\nmax_bans = 1\n[transport]\ndial_timeout = \"300ms\"\n[node_limits]\nmax_listen = 1\n\
                  [serve]\nmax_request_bytes = 100\n[inbox]\nmax_bytes = 10\n";
    let (mut strict, address) = node(folder, "strict", strict).await;
    let peer = address.rsplit_once("/p2p/").unwrap().1;
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = format!("/ip4/127.0.0.1/udp/{}/quic-v1", dead.local_addr().unwrap().port());
    let ban = |ip: &str| json!({"id": 1, "command": "ban", "target": ip});
    for (section, commands, error) in [
        ("peers", vec![ban("192.0.2.1"), ban("192.0.2.2")], "1 bans are as many as are kept"),
        ("transport", vec![json!({"id": 1, "command": "connect", "address": dead})], "300ms"),
        (
            "node_limits",
            vec![json!({"id": 1, "command": "listen", "address": "/ip4/127.0.0.1/udp/0/quic-v1"})],
            "at 1 addresses",
        ),
    ] {
        let errors = ask_at_once(&mut strict, &commands).await;
        assert!(errors.iter().any(|found| found.contains(error)), "{section}: {errors:?}");
    }

    let long = folder.join("long");
    fs::write(&long, "more than ten bytes").unwrap();
    let request = |text: &str| json!({"id": 1, "command": "request", "peer": peer, "text": text});
    let many = vec![request("hi"); 20];
    for (section, settings, commands, error) in [
        ("serve", "", vec![request(&"x".repeat(200))], "exceeds the 100"),
        ("inbox", "", vec![json!({"id": 1, "command": "send_file", "peer": peer, "path": long})], "10 bytes"),
        (
            "requests",
            "[requests]\nmax_concurrent_per_peer = 1\nmax_waiting_per_peer = 0\n",
            many.clone(),
            "0 requests wait already",
        ),
        (
            "requests_in_all",
            "[requests_in_all]\nmax_asked = 1\nmax_asked_waiting = 0\n",
            many,
            "0 requests wait already",
        ),
    ] {
        let (mut node, _) = node(folder, section, settings).await;
        let connect = json!({"id": 1, "command": "connect", "address": address});
        assert_eq!(ask_at_once(&mut node, &[connect]).await, [""], "{section}");
        let errors = ask_at_once(&mut node, &commands).await;
        assert!(errors.iter().any(|found| found.contains(error)), "{section}: {errors:?}");
    }

    for (section, settings, error) in [
        ("chat", "[chat]\nsend_queue_bytes = 10\n", "send_queue_bytes is 10"),
        ("memory", "[memory]\nnode_bytes = 1\n", "node_bytes"),
    ] {
        let file = folder.join(format!("{section}.toml"));
        fs::write(&file, settings).unwrap();
        let data = folder.join(section);
        let refused =
            run(["node", "--config", file.to_str().unwrap(), "--data", data.to_str().unwrap()]).await;
        assert!(refused.stderr.contains(error), "{section}: {refused:?}");
    }
}
