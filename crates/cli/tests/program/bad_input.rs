//! What a user can get wrong, and what others can: one line that names the thing at fault and the remedy, and an exit code.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::{Finished, PATIENCE, Running, port, run};

/// A peer ID that no node here has.
const STRANGER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

fn says(finished: &Finished, code: i32, parts: &[&str]) {
    let error = finished.error(code);
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let dns = "/dns4/example.org/udp/4400/quic-v1";
    for (arguments, parts) in [
        (&["ping", "hello"][..], &["hello", "not a multiaddr"][..]),
        (&["ping", "/ip4/127.0.0.1/tcp/4400"], &["TCP", "quic-v1"]),
        (&["ping", "/ip4/127.0.0.1/udp/4400/quic"], &["/quic", "quic-v1"]),
        (&["ping", "/ip4/127.0.0.1/udp/4400/quic-v1/p2p/me"], &["/p2p/me"]),
        (&["send", "/ip4/127.0.0.1/udp/4400/quic-v1", "x"], &["names no peer", "append /p2p/"]),
        (&["node", "--data", data, "--persistent", dns], &["--persistent", "names no peer"]),
        (&["node", "--data", data, "--seed", "/ip4/1.2.3.4/tcp/1"], &["--seed", "TCP"]),
        (&["node", "--data", data, "--listen", dns], &["--listen"]),
        (&["node", "--data", data, "--listen", "4400"], &["--listen", "4400", "multiaddr"]),
    ] {
        says(&run(arguments).await, 2, parts);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn flags_that_make_no_sense_are_wrong_usage() {
    for (arguments, parts) in [
        (&["dance"][..], &["dance"][..]),
        (&["demo", "--nodes", "1"], &["1", "2..=50"]),
        (&["demo", "--nodes", "51"], &["51"]),
        (&["ping"], &["<MULTIADDR>"]),
        (&["ping", "-c", "0", "/ip4/127.0.0.1/udp/1/quic-v1"], &["0"]),
        (&["ping", "--network", "No Such", "/ip4/127.0.0.1/udp/1/quic-v1"], &["No Such", "lower-case"]),
        (&["node", "--log", "loud"], &["loud", "debug"]),
        (&["node", "--idle-timeout", "0"], &["0"]),
        (&["node", "--inbox-max-bytes", "5"], &["--inbox"]),
        (&["node"], &["--data"]),
        (&["key"], &[]),
    ] {
        let finished = run(arguments).await;
        if arguments == ["key"] {
            assert_eq!(finished.code, Some(2), "{finished:?}");
        } else {
            says(&finished, 2, parts);
        }
    }
}

#[tokio::test]
async fn help_is_no_error_and_shows_an_example() {
    for arguments in [
        &["--help"][..],
        &["node", "--help"],
        &["demo", "-h"],
        &["key", "new", "--help"],
        &["send", "--help"],
    ] {
        let finished = run(arguments).await;
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
        assert!(finished.stdout.contains("Example:"), "{}", finished.stdout);
    }
}

#[tokio::test]
async fn a_key_is_made_once_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.key");
    let path = path.to_str().unwrap();
    let made = run(["key", "new", path]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(["key", "show", path]).await.stdout, made.stdout);
    let key = fs::read(path).unwrap();
    says(&run(["key", "new", path]).await, 1, &[path, "already exists"]);
    assert_eq!(fs::read(path).unwrap(), key);
}

#[tokio::test]
async fn a_key_that_is_not_private_or_no_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.key");
    let key = path.to_str().unwrap();
    says(&run(["key", "show", key]).await, 1, &["there is no key file", key]);
    run(["key", "new", key]).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    says(&run(["key", "show", key]).await, 1, &[key, "0644", "chmod 600"]);
    says(&run(["node", "--data", folder.path().to_str().unwrap()]).await, 1, &["chmod 600"]);
    fs::write(&path, "-----BEGIN PRIVATE KEY-----\nMC4CAQAw").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    says(&run(["key", "show", key]).await, 1, &[key, "cannot be used"]);
    says(&run(["key", "show", folder.path().to_str().unwrap()]).await, 1, &["a folder"]);
}

#[tokio::test]
async fn a_data_folder_that_is_not_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    let foreign = run(["node", "--data", folder.path().to_str().unwrap()]).await;
    says(&foreign, 1, &["letter.txt", "new directory"]);
    let file = folder.path().join("letter.txt");
    says(&run(["node", "--data", file.to_str().unwrap()]).await, 1, &["not a directory"]);
}

#[tokio::test]
async fn a_folder_in_use_and_a_port_in_use_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("a");
    let mut node = Running::node(&data, 0, [""; 0]);
    let address = node.address().await;
    says(&run(["node", "--data", data.to_str().unwrap()]).await, 1, &["in use by another running node"]);
    let other = folder.path().join("b");
    let listen = format!("/ip4/127.0.0.1/udp/{}/quic-v1", port(&address));
    let second = run(["node", "--data", other.to_str().unwrap(), "--listen", &listen]).await;
    says(&second, 1, &[&port(&address).to_string(), "in use"]);
}

#[tokio::test]
async fn the_wrong_peer_and_another_network_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::node(&folder.path().join("data"), 0, ["--network", "ours"]);
    let address = node.address().await;
    let (place, id) = address.split_once("/p2p/").unwrap();
    let wrong = format!("{place}/p2p/{STRANGER}");
    says(&run(["ping", "--network", "ours", &wrong]).await, 1, &[STRANGER, id]);
    says(&run(["ping", "--network", "theirs", &address]).await, 1, &["network", "ours", "theirs"]);
    // A node that refused them serves the next.
    let good = run(["ping", "-c", "1", "--network", "ours", &address]).await;
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.stdout.contains("1 sent, 1 answered, 0 % lost; min"), "{good:?}");
}

#[tokio::test]
async fn where_nothing_listens_the_dial_gives_up_in_time() {
    // Held open, so that nobody else gets the port; it never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    let address = format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{STRANGER}");
    says(&run(["ping", &address]).await, 1, &["nothing answered", &format!("127.0.0.1:{port}")]);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn files_that_cannot_be_sent_or_taken_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::node(&folder.path().join("data"), 0, [""; 0]);
    let address = node.address().await;
    let none = folder.path().join("none");
    says(&run(["send", &address, none.to_str().unwrap()]).await, 1, &["there is no file", "none"]);
    says(&run(["send", &address, folder.path().to_str().unwrap()]).await, 1, &["not a regular file"]);
    says(&run(["demo", "--file", none.to_str().unwrap()]).await, 1, &["there is no file"]);
    let file = folder.path().join("file");
    fs::write(&file, "text").unwrap();
    says(&run(["send", &address, file.to_str().unwrap()]).await, 1, &["takes no files", "--inbox"]);
    let data = folder.path().join("other");
    let inbox = ["node", "--data", data.to_str().unwrap(), "--inbox", file.to_str().unwrap()];
    says(&run(inbox).await, 1, &["inbox", "can't be used"]);
}

#[tokio::test]
async fn garbage_datagrams_do_not_bring_a_node_down() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::node(&folder.path().join("data"), 0, [""; 0]);
    let address = node.address().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 1u64;
    for length in 0..2000usize {
        let garbage: Vec<u8> = (0..length % 1400)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        // A full buffer on the other side is as good as a lost datagram.
        let _ = socket.send_to(&garbage, ("127.0.0.1", port(&address)));
    }
    let ping = tokio::time::timeout(PATIENCE, run(["ping", "-c", "1", &address])).await.unwrap();
    assert_eq!(ping.code, Some(0), "{ping:?}");
}
