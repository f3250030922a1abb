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

#[tokio::test]
async fn the_owner_bans_lifts_bans_and_gives_standings_at_run_time() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut first = Running::node(&a, 0, ["--control", "stdio"]);
    let listening: Value = serde_json::from_str(&first.line().await.unwrap()).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    let mut second = Running::node(&b, 0, ["--seed", &address]);
    let theirs = second.address().await;
    let peer = theirs.rsplit_once("/p2p/").unwrap().1.to_owned();
    assert!(first.line().await.unwrap().contains("peer_connected"));

    json(&["ban", &peer, "--for", "1h", "--reason", "too loud"], &a).await;
    assert!(first.line().await.unwrap().contains("peer_disconnected"));
    let bans = json(&["bans"], &a).await;
    assert_eq!((&bans[0]["target"], &bans[0]["reason"]), (&json!(peer), &json!("too loud")));
    let left = bans[0]["until_unix_ms"].as_u64().unwrap() - bans[0]["since_unix_ms"].as_u64().unwrap();
    assert_eq!(left, 3_600_000);
    let why = run(["why", &peer, "--data", a.to_str().unwrap()]).await.stdout;
    assert!(why.contains("ban"), "{why}");
    let text = run(["bans", "--data", a.to_str().unwrap()]).await.stdout;
    assert!(text.contains("too loud") && text.contains(&peer), "{text}");
    json(&["unban", &peer], &a).await;
    assert_eq!(json(&["bans"], &a).await, json!([]));
    let arguments = ["unban", &peer, "--data", a.to_str().unwrap()];
    assert!(run(arguments).await.error(1).contains("is not banned"));
    let arguments = ["ban", "everyone", "--data", a.to_str().unwrap()];
    assert!(run(arguments).await.error(1).contains("192.0.2.0/24"));

    json(&["persistent", "add", &theirs], &a).await;
    assert!(first.line().await.unwrap().contains("peer_connected"), "a persistent peer is dialled");
    assert_eq!(json(&["persistent", "list"], &a).await, json!([{"peer": peer, "class": "persistent"}]));
    json(&["private", "add", &peer], &a).await;
    let text = run(["private", "list", "--data", a.to_str().unwrap()]).await.stdout;
    assert_eq!(text.trim(), peer);
    json(&["private", "remove", &peer], &a).await;
    assert_eq!(json(&["private", "list"], &a).await, json!([]));
    let arguments = ["private", "add", "nobody", "--data", a.to_str().unwrap()];
    assert!(run(arguments).await.error(1).contains("not a peer ID"));
}

#[tokio::test]
async fn metrics_come_as_text_and_over_http_on_loopback_and_name_no_peer() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = format!("127.0.0.1:{port}");
    let mut first = Running::node(&a, 0, ["--control", "stdio", "--metrics", &place]);
    let listening: Value = serde_json::from_str(&first.line().await.unwrap()).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    let mut second = Running::node(&b, 0, ["--seed", &address]);
    let peer = second.address().await.rsplit_once("/p2p/").unwrap().1.to_owned();
    assert!(first.line().await.unwrap().contains("peer_connected"));
    let text = run(["metrics", "--data", a.to_str().unwrap()]).await.stdout;
    for line in [
        "# TYPE peerage_peers gauge",
        "# TYPE peerage_connections_total counter",
        "peerage_peers{direction=\"inbound\",kind=\"peerage\"} 1",
        "peerage_connections_total{direction=\"inbound\"} 1",
        "peerage_first_packets_total{answer=\"accepted\"} 1",
        "peerage_channel_messages_total{channel=\"/peerage/chat/1\",direction=\"sent\"} 0",
        "peerage_channel_refusals_total{channel=\"/peerage/chat/1\",reason=\"queue_full\"} 0",
        "peerage_requests_total{side=\"served\",outcome=\"answered\"} 0",
        "peerage_queue_length{queue=\"dials\"} 0",
    ] {
        assert!(text.lines().any(|found| found.trim_end_matches(".0") == line), "{line} is not in {text}");
    }
    assert!(!text.contains(&peer) && !text.contains("127.0.0.1"), "{text}");
    let (head, body) = get(&place, "GET /metrics HTTP/1.1").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("peerage_peers{") && !body.contains("# EOF"), "{body}");
    let accept =
        "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let (head, body) = get(&place, accept).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("openmetrics-text"), "{head}");
    assert!(body.contains("peerage_peers{") && body.trim_end().ends_with("# EOF"), "{body}");
    assert!(get(&place, "GET / HTTP/1.1").await.0.starts_with("HTTP/1.1 404"));
    assert!(get(&place, "POST /metrics HTTP/1.1").await.0.starts_with("HTTP/1.1 405"));
    let data = folder.path().join("c");
    let arguments = ["node", "--data", data.to_str().unwrap(), "--metrics", "0.0.0.0:0"];
    assert!(run(arguments).await.error(1).contains("on loopback only"));
}

/// The head and the body of a server's answer.
async fn get(place: &str, request: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(place).await.unwrap();
    stream.write_all(format!("{request}\r\nHost: {place}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_book_is_given_from_node_to_node_and_one_that_cannot_be_read_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let mut first = Running::node(&a, 0, ["--control", "stdio"]);
    let listening: Value = serde_json::from_str(&first.line().await.unwrap()).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    let peer = address.rsplit_once("/p2p/").unwrap().1;
    let mut second = Running::node(&b, 0, ["--seed", &address]);
    second.address().await;
    assert!(first.line().await.unwrap().contains("peer_connected"));

    let book = folder.path().join("book.json");
    let exporting = ["book", "export", book.to_str().unwrap(), "--data", b.to_str().unwrap()];
    assert_eq!(run(exporting).await.code, Some(0));
    assert!(fs::read_to_string(&book).unwrap().contains(peer));
    let mut third = Running::node(&c, 0, [] as [&str; 0]);
    third.address().await;
    assert_eq!(json(&["book", "import", book.to_str().unwrap()], &c).await, json!(1));
    assert!(first.line().await.unwrap().contains("peer_connected"), "c dials whom the book names");
    let why = run(["why", peer, "--data", c.to_str().unwrap()]).await.stdout;
    assert!(why.contains("address book") && why.contains(peer), "{why}");

    third.signal(Signal::TERM);
    assert_eq!(third.end().await.code(), Some(0));
    fs::write(c.join("peers.redb"), "spoilt").unwrap();
    let mut third = Running::node(&c, 0, [] as [&str; 0]);
    third.address().await;
    third.signal(Signal::TERM);
    let log = third.rest_of_stderr().await;
    assert!(log.contains("set aside") && c.join("peers.redb.corrupt").exists(), "{log}");
}

/// Contract C-45.
#[tokio::test]
async fn a_kill_right_after_the_command_undoes_nothing_of_what_was_said_of_peers() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut second = Running::node(&b, 0, [] as [&str; 0]);
    let theirs = second.address().await;
    let peer = theirs.rsplit_once("/p2p/").unwrap().1.to_owned();
    let start = || Running::node(&a, 0, ["--control", "stdio", "--allow", &peer]);
    let other = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo";
    let mut first = start();
    first.line().await.unwrap();
    for arguments in [
        ["persistent", "add", &theirs],
        ["private", "add", other],
        ["unconditional", "add", other],
        ["allow", "add", other],
    ] {
        json(&arguments, &a).await;
    }
    first.signal(Signal::KILL);
    first.end().await;

    let mut first = start();
    assert!(first.line().await.unwrap().contains("listening"));
    assert!(first.line().await.unwrap().contains("peer_connected"), "a persistent peer is dialled");
    for (class, who) in [("persistent", peer.as_str()), ("private", other), ("unconditional", other)] {
        assert_eq!(json(&[class, "list"], &a).await, json!([{"peer": who, "class": class}]));
        // The address that was added can be taken off as it is.
        let named = if class == "persistent" { theirs.as_str() } else { who };
        json(&[class, "remove", named], &a).await;
    }
    let allowed = json(&["allow", "list"], &a).await;
    assert!(allowed.as_array().unwrap().contains(&json!(other)), "{allowed}");
    json(&["allow", "remove", other], &a).await;
    first.signal(Signal::KILL);
    first.end().await;

    let mut first = start();
    first.line().await.unwrap();
    for class in ["persistent", "private", "unconditional"] {
        assert_eq!(json(&[class, "list"], &a).await, json!([]), "{class}");
    }
    assert_eq!(json(&["allow", "list"], &a).await, json!([peer]));
}

#[tokio::test]
async fn listen_addresses_change_at_run_time_and_every_change_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut node = Running::node(&a, 0, ["--control", "stdio"]);
    node.line().await.unwrap();
    let before = json(&["listen", "list"], &a).await;
    let after = json(&["listen", "add", "/ip4/127.0.0.1/udp/0/quic-v1"], &a).await;
    let (old, new) = (before[0].as_str().unwrap(), after[1].as_str().unwrap());
    let told: Value = serde_json::from_str(&node.line().await.unwrap()).unwrap();
    assert_eq!(
        (&told["event"], told["addresses"].as_array().unwrap().len()),
        (&json!("listening_changed"), 2)
    );
    assert!(told["addresses"][1].as_str().unwrap().starts_with(new), "{told}");
    let status = json(&["status"], &a).await;
    assert_eq!((&status["listening"], &status["observed"]), (&told["addresses"], &json!([])));
    assert_eq!(json(&["listen", "remove", old], &a).await, json!([new]));
    let told: Value = serde_json::from_str(&node.line().await.unwrap()).unwrap();
    assert_eq!(told["addresses"].as_array().unwrap().len(), 1, "{told}");
    let again = run(["listen", "remove", old, "--data", a.to_str().unwrap()]).await;
    assert!(again.error(1).contains("does not listen at"), "{again:?}");

    let mut plain = Running::node(&b, 0, [] as [&str; 0]);
    let first = plain.address().await;
    json(&["listen", "add", "/ip4/127.0.0.1/udp/0/quic-v1"], &b).await;
    let second = plain.address().await;
    assert_ne!(first, second);
    let (bare, _) = first.rsplit_once("/p2p/").unwrap();
    json(&["listen", "remove", bare], &b).await;
    assert_eq!(plain.line().await.unwrap(), format!("not listening {first}"));
}

#[tokio::test]
async fn peers_are_shown_with_what_their_paths_have_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut first = Running::node(&a, 0, [] as [&str; 0]);
    let address = first.address().await;
    let mut second = Running::node(&b, 0, ["--control", "stdio", "--seed", &address]);
    second.line().await.unwrap();
    assert!(second.line().await.unwrap().contains("peer_connected"));
    let row = json(&["peers", "--ping"], &b).await[0].clone();
    for part in ["rtt_ms", "ping_ms", "sent_bytes", "received_bytes", "sent_packets"] {
        assert!(row[part].as_f64().unwrap() > 0.0, "{part} of {row}");
    }
    assert!(row["lost_packets"].as_u64().unwrap() <= row["sent_packets"].as_u64().unwrap());
    let text = run(["peers", "--data", b.to_str().unwrap()]).await.stdout;
    assert!(["rtt", "loss", "sent", "received", " % "].iter().all(|word| text.contains(word)), "{text}");
}
