//! Private networks from the command line: secrets in files, allow-lists at the start and at run time.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Running, run};

const FIRST: &str = "5c1f0e6f0fb3c3b1a1c0d8f5a2a94e07";
const SECOND: &str = "0d9d3b7e2f4c4f5c8a6b1e0f9c8d7a6b";

fn secret(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn only_who_has_the_secret_gets_in() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("a"), secret(folder.path(), "s", &format!("# now\n{FIRST}\n")));
    let mut node = Running::node(&data, 0, ["--network-secret", text(&file)]);
    let address = node.address().await;
    let changing = secret(folder.path(), "t", &format!("{SECOND}\n{FIRST}\n"));
    for file in [&file, &changing] {
        let pong = run(["ping", "-c", "1", &address, "--network-secret", text(file)]).await;
        assert_eq!(pong.code, Some(0), "{pong:?}");
    }
    let wrong = secret(folder.path(), "w", SECOND);
    for more in [&["--network-secret", text(&wrong)][..], &[]] {
        let refused = run([&["ping", "-c", "1", &address], more].concat()).await;
        assert!(refused.error(1).contains("the network secret was not proved"), "{refused:?}");
    }
}

/// What a text can hide in: the text itself, its hexadecimal digits in both cases, the bytes that it spells, and base64 without its last digits.
fn forms(secret: &str) -> Vec<String> {
    use std::fmt::Write as _;
    let hex = secret.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    let listed = format!("{:?}", secret.as_bytes());
    let listed = listed.trim_matches(['[', ']']).to_owned();
    vec![secret.to_owned(), hex.to_uppercase(), hex, listed]
}

#[tokio::test]
async fn nothing_secret_stands_in_logs_or_metrics_however_much_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b, c) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
    let good = secret(folder.path(), "good", &format!("{FIRST}\n"));
    let wrong = secret(folder.path(), "wrong", SECOND);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = format!("127.0.0.1:{port}");
    let more = ["--log", "trace", "--network-secret", text(&good), "--metrics", &place, "--control", "stdio"];
    let mut first = Running::node(&a, 0, more);
    let listening: Value = serde_json::from_str(&first.line().await.unwrap()).unwrap();
    let address = listening["address"].as_str().unwrap().to_owned();
    let joins = ["--log", "trace", "--network-secret", text(&good), "--seed", &address];
    let mut second = Running::node(&b, 0, joins);
    assert!(first.line().await.unwrap().contains("peer_connected"));
    let strays = ["--log", "trace", "--network-secret", text(&wrong), "--seed", &address];
    let mut third = Running::node(&c, 0, strays);
    third.address().await;
    let refused = run(["ping", "-c", "1", &address, "--network-secret", text(&wrong)]).await;
    assert!(refused.error(1).contains("the network secret was not proved"), "{refused:?}");
    fs::write(&good, format!("{SECOND}\n{FIRST}\n")).unwrap();
    assert_eq!(run(["secret", "reload", "--data", text(&a)]).await.code, Some(0));
    let metrics = run(["metrics", "--data", text(&a)]).await.stdout;
    assert!(metrics.contains("peerage_peers{"));

    let mut told = vec![metrics];
    for node in [&mut first, &mut second, &mut third] {
        node.signal(rustix::process::Signal::TERM);
        assert!(node.end().await.success());
        told.push(node.rest_of_stderr().await);
    }
    let mut secrets = [FIRST, SECOND].map(forms).concat();
    for data in [&a, &b, &c] {
        let key = fs::read_to_string(data.join("node.key")).unwrap();
        // The lines of the PEM body, but for the head that every such key has.
        let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
        secrets.push(body[body.len() - 40..].trim_end_matches('=').to_owned());
    }
    for (number, text) in told.iter().enumerate() {
        assert!(text.len() > 1000, "{number}: {text}");
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} stands in what {number} tells");
        }
    }
}

#[tokio::test]
async fn the_settings_file_decides_over_foreign_nodes_as_the_flag_does() {
    let folder = tempfile::tempdir().unwrap();
    let (data, good) = (folder.path().join("a"), secret(folder.path(), "good", FIRST));
    let config = folder.path().join("c.toml");
    fs::write(&config, "[peers]\nforeign = \"allow\"\n").unwrap();
    let node = ["node", "--data", text(&data), "--config", text(&config)];
    let finished = run([&node[..], &["--network-secret", text(&good)]].concat()).await;
    assert!(finished.error(2).contains("peers.foreign"), "{finished:?}");
    let flag = run([&node[..], &["--network-secret", text(&good), "--foreign", "allow"]].concat()).await;
    assert!(flag.error(2).contains("--foreign allow"), "{flag:?}");
    let mut overridden = Running::node(
        &data,
        0,
        ["--config", text(&config), "--network-secret", text(&good), "--foreign", "refuse"],
    );
    overridden.address().await;
}

#[tokio::test]
async fn a_secret_file_that_cannot_be_used_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("a");
    let open = secret(folder.path(), "open", FIRST);
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let short = secret(folder.path(), "short", "hunter2");
    let good = secret(folder.path(), "good", FIRST);
    let missing = folder.path().join("missing");
    for (more, part) in [
        (&["--network-secret", text(&open)][..], "chmod 600"),
        (&["--network-secret", text(&short)], "line 1"),
        (&["--network-secret", text(&missing)], "openssl rand"),
        (&["--network-secret", text(&good), "--foreign", "allow"], "--foreign allow"),
        (&["--allow", "somebody"], "not a peer ID"),
    ] {
        let finished = run([&["node", "--data", text(&data)], more].concat()).await;
        let error = finished.error(2);
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn the_allow_list_holds_and_its_owner_changes_it_while_the_node_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut second = Running::node(&b, 0, ["--control", "stdio"]);
    let listening: Value = serde_json::from_str(&second.line().await.unwrap()).unwrap();
    let (_, id) = listening["address"].as_str().unwrap().rsplit_once('/').unwrap();
    let nobody = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let mut first = Running::node(&a, 0, ["--allow", nobody]);
    let address = first.address().await;
    let connect = json!({ "id": 1, "command": "connect", "address": address }).to_string();
    assert!(second.ask(&connect).await["error"].as_str().unwrap().contains("not admitted"));
    let allow = |arguments: &[&str]| {
        let arguments = [&["allow"], arguments, &["--json", "--data", text(&a)]].concat();
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        async move { serde_json::from_str::<Value>(&run(arguments).await.stdout).unwrap() }
    };
    assert_eq!(allow(&["add", id]).await.as_array().unwrap().len(), 2);
    assert!(second.ask(&connect).await.get("ok").is_some());
    assert_eq!(allow(&["remove", id]).await, json!([nobody]));
    assert_eq!(allow(&["list"]).await, json!([nobody]));
    let open = run(["allow", "add", nobody, "--data", text(&b)]).await;
    let error = open.error(1);
    assert!(error.contains("no allow-list") && error.contains(&format!("--allow {nobody}")), "{open:?}");
}

#[tokio::test]
async fn a_secret_is_changed_in_its_file_and_read_anew_with_an_overlap() {
    let folder = tempfile::tempdir().unwrap();
    let (data, open) = (folder.path().join("a"), folder.path().join("b"));
    let file = secret(folder.path(), "s", FIRST);
    let [old, new] = [("old", FIRST), ("new", SECOND)].map(|(name, text)| secret(folder.path(), name, text));
    let mut node = Running::node(&data, 0, ["--network-secret", text(&file)]);
    let address = node.address().await;
    let knows = async |file: &Path| {
        run(["ping", "-c", "1", &address, "--network-secret", text(file)]).await.code == Some(0)
    };
    let reload = async || run(["secret", "reload", "--data", text(&data)]).await;
    assert!(knows(&old).await && !knows(&new).await);
    for (content, said, (takes_old, takes_new)) in [
        (format!("{FIRST}\n{SECOND}\n"), "2 secrets are taken now", (true, true)),
        (format!("{SECOND}\n"), "one secret is taken now", (false, true)),
    ] {
        fs::write(&file, content).unwrap();
        let done = reload().await;
        assert_eq!((done.code, done.stdout.trim()), (Some(0), said), "{done:?}");
        assert_eq!((knows(&old).await, knows(&new).await), (takes_old, takes_new), "{said}");
    }
    fs::write(&file, "hunter2\n").unwrap();
    let refused = reload().await;
    assert!(refused.error(1).contains("line 1") && !refused.error(1).contains("hunter2"), "{refused:?}");
    assert!(knows(&new).await, "a file that cannot be read changes nothing");
    let mut without = Running::node(&open, 0, [] as [&str; 0]);
    without.address().await;
    let refused = run(["secret", "reload", "--data", text(&open)]).await;
    assert!(refused.error(1).contains("without a network secret"), "{refused:?}");
}
