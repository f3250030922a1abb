//! `peerage dht`, on networks of three nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use peerage::{BOOK_FILE, RedbStore, Store};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::support::{Finished, PATIENCE, Running, port, program, run};

/// A peer ID that no node here has.
const STRANGER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// A node of a small network.
pub(super) struct Member {
    pub(super) data: PathBuf,
    pub(super) address: String,
    running: Running,
}

impl Member {
    /// Starts a node that takes part in the DHT as `--dht` alone says, or as `more` says.
    pub(super) async fn start(data: PathBuf, port: u16, seed: Option<&str>, more: &[&str]) -> Self {
        let mut flags = more.to_vec();
        if more.is_empty() {
            flags.push("--dht");
        }
        flags.extend(seed.into_iter().flat_map(|seed| ["--seed", seed]));
        let mut running = Running::node(&data, port, flags);
        let address = running.address().await;
        Self { data, address, running }
    }

    pub(super) fn id(&self) -> &str {
        self.address.rsplit_once("/p2p/").unwrap().1
    }

    /// A command to this node.
    pub(super) async fn dht(&self, arguments: &[&str]) -> Finished {
        run([&["dht"], arguments, &["--data", self.data.to_str().unwrap()]].concat()).await
    }

    /// What a command that succeeds prints.
    pub(super) async fn text(&self, arguments: &[&str]) -> String {
        let finished = self.dht(arguments).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stdout
    }

    /// The same as JSON, where nothing else is printed.
    pub(super) async fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.dht(&[arguments, &["--json"]].concat()).await;
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// Asks until it is so.
    pub(super) async fn until(&self, what: &str, arguments: &[&str], so: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let finished = self.dht(&[arguments, &["--json"]].concat()).await;
                if let Some(value) = serde_json::from_str(&finished.stdout).ok().filter(&so) {
                    return value;
                }
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{what} does not come true"))
    }

    pub(super) async fn knows(&self, nodes: usize) {
        let so = |reply: &Value| reply["stats"]["usable"] == nodes && reply["stats"]["joined"] == true;
        self.until("knowing the others", &["stats"], so).await;
    }

    pub(super) async fn kill(mut self) -> PathBuf {
        self.running.signal(Signal::KILL);
        self.running.end().await;
        self.data
    }
}

/// Three nodes that know each other.
pub(super) async fn three(folder: &Path) -> [Member; 3] {
    let first = Member::start(folder.join("a"), 0, None, &[]).await;
    let second = Member::start(folder.join("b"), 0, Some(&first.address), &["--dht", "serve"]).await;
    let third = Member::start(folder.join("c"), 0, Some(&first.address), &["--dht", "auto"]).await;
    let members = [first, second, third];
    for member in &members {
        member.knows(2).await;
    }
    members
}

pub(super) fn ids(reply: &Value) -> Vec<&str> {
    let mut peers: Vec<_> =
        reply["peers"].as_array().unwrap().iter().map(|peer| peer["peer"].as_str().unwrap()).collect();
    peers.sort_unstable();
    peers
}

/// Runs a command that reads standard input.
async fn piped(arguments: &[&str], member: &Member, input: &[u8]) -> Finished {
    let mut command = program([&["dht"], arguments, &["--data", member.data.to_str().unwrap()]].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whoever has read enough closes its side.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("the program ends").unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn a_value_is_put_at_one_node_fetched_at_another_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = three(folder.path()).await;
    let put = first.dht(&["put", "colour", "blue"]).await;
    assert_eq!((put.code, put.stdout.as_str()), (Some(0), ""), "{put:?}");
    assert!(put.stderr.starts_with("stored at "), "{put:?}");
    assert_eq!(second.text(&["get", first.id(), "colour"]).await, "blue\n");
    let got = third.json(&["get", first.id(), "colour", "--class", "frugal", "--quorum", "1"]).await;
    assert_eq!(got["value"], json!({"text": "blue"}));
    assert!(got["way"]["asked"].as_u64().unwrap() >= 1 && got["way"]["ms"].is_number(), "{got}");
    assert_eq!((&got["failed"], &got["steps"]), (&Value::Null, &Value::Null));
    let put = first.json(&["put", "colour", "green", "--quorum", "2", "--paths", "1", "--alpha", "3"]).await;
    assert_eq!((&put["way"]["ended"], put["way"]["stored"].as_u64() >= Some(2)), (&json!("stored"), true));
    assert_eq!(third.text(&["get", first.id(), "colour"]).await, "green\n");

    missing(&second, &["get", first.id(), "taste"]).await;
    first.text(&["remove", "colour", "--quorum", "2"]).await;
    missing(&second, &["get", first.id(), "colour"]).await;
}

/// What isn't there is told in one line, or as JSON, with the same exit code.
async fn missing(member: &Member, arguments: &[&str]) {
    let finished = member.dht(arguments).await;
    assert_eq!(finished.stdout, "");
    let error = finished.error(1);
    assert!(error.starts_with("not found: ") && error.contains("asked"), "{error}");
    let finished = member.dht(&[arguments, &["--json"]].concat()).await;
    assert!(finished.error(1).starts_with("not found: "));
    let reply: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert!(reply["failed"].as_str().unwrap().starts_with("not found: "), "{reply}");
    assert!(reply["way"]["answered"].as_u64() >= Some(1) && reply.get("value").is_none(), "{reply}");
}

#[tokio::test]
async fn content_comes_from_files_and_pipes_and_is_fetched_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, _third] = three(folder.path()).await;
    let (file, copy) = (folder.path().join("file"), folder.path().join("copy"));
    let (file_name, copy_name) = (file.to_str().unwrap(), copy.to_str().unwrap());
    let bytes: Vec<u8> = (0..3000).map(|at| (at * 7) as u8).collect();
    fs::write(&file, &bytes).unwrap();
    let hash = first.text(&["put", "--immutable", "--file", file_name]).await;
    let hash = hash.trim();
    assert_eq!(hash.len(), 64);
    assert_eq!(second.text(&["get", hash, "--file", copy_name]).await, "");
    assert_eq!(fs::read(&copy).unwrap(), bytes);
    missing(&second, &["get", &"0".repeat(64)]).await;

    let put = piped(&["put", "note", "-"], &first, "from a pipe".as_bytes()).await;
    assert_eq!(put.code, Some(0), "{put:?}");
    assert_eq!(second.text(&["get", first.id(), "note"]).await, "from a pipe\n");
    first.text(&["put", "bytes", "--file", file_name]).await;
    let got = second.json(&["get", first.id(), "bytes"]).await;
    assert!(got["value"]["hex"].as_str().unwrap().starts_with("00070e15"), "{got}");

    // What no record holds is not read to its end; what this network's records don't hold, the node says.
    let much = piped(&["put", "note", "-"], &first, &vec![b'x'; 1 << 20]).await;
    assert!(much.error(1).contains("standard input has more than 10240 bytes"), "{much:?}");
    let more = piped(&["put", "note", "-"], &first, &vec![b'x'; 5000]).await;
    assert!(more.error(1).contains("it has 5000 bytes: at most 4096 are kept"), "{more:?}");
    for (arguments, error) in [
        (&["put", "note", "x", "--file", file_name][..], "two values"),
        (&["put", "note"], "no value"),
        (&["put", "--immutable", "note", "x"], "its hash names it"),
        (&["get", first.id()], "say what this one is called"),
        (&["get", hash, "note"], "no other name"),
        (&["get", hash, "--quorum", "2"], "--quorum is of no use"),
        (&["get", "nobody", "note"], "neither a peer ID"),
        (&["find", first.id(), "--quorum", "2"], "--quorum"),
        (&["trace", first.id(), "--quorum", "2"], "--quorum"),
        (&["topic", "chess", "--quorum", "2"], "--join"),
        (&["topic", "chess", "--leave", "--join", "x"], "--leave"),
        (&["mail", "--quorum", "2"], "<PEER>"),
        (&["closest", "x", "--deadline", "2h"], "1ms to 1h"),
    ] {
        let finished = first.dht(arguments).await;
        assert!(finished.error(2).contains(error), "{finished:?}");
    }
}

#[tokio::test]
async fn who_has_something_and_who_is_in_a_topic_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = three(folder.path()).await;
    assert_eq!(third.json(&["providers", "photos"]).await["peers"], json!([]));
    assert_eq!(third.text(&["providers", "photos"]).await, "nobody\n");
    assert!(first.dht(&["provide", "photos"]).await.stderr.starts_with("stored at "));
    let provided = second.json(&["provide", "photos"]).await;
    assert!(provided["way"]["stored"].as_u64() >= Some(1), "{provided}");
    let found = third.json(&["providers", "photos"]).await;
    let mut both = [first.id(), second.id()];
    both.sort_unstable();
    assert_eq!(ids(&found), both);
    let place = first.address.split_once("/p2p/").unwrap().0;
    let text = third.text(&["providers", "photos"]).await;
    assert!(text.contains(first.id()) && text.contains(place), "{text}");

    assert_eq!(third.text(&["topic", "chess"]).await, "nobody\n");
    let join = ["topic", "chess", "--join", "rapid games", "--tag", "rapid", "--protocol", "/chess/1"];
    assert!(first.dht(&join).await.stderr.starts_with("stored at "));
    let joined =
        second.json(&["topic", "chess", "--join", "by mail", "--tag", "slow", "--quorum", "1"]).await;
    assert_eq!(joined["way"]["ended"], "stored");
    let all = third.json(&["topic", "chess"]).await;
    assert_eq!((ids(&all), &all["more"]), (both.to_vec(), &json!(false)));
    let rapid = third.json(&["topic", "chess", "--tag", "rapid"]).await;
    assert_eq!((ids(&rapid), &rapid["more"]), (vec![first.id()], &json!(false)));
    let entry = &rapid["peers"][0];
    assert_eq!((&entry["note"], &entry["tags"]), (&json!("rapid games"), &json!(["rapid"])));
    assert_eq!(entry["protocols"], json!(["/chess/1"]));
    assert_eq!(third.json(&["topic", "chess", "--protocol", "/go/1"]).await["peers"], json!([]));
    let text = third.text(&["topic", "chess"]).await;
    assert!(text.contains(&format!("{}  rapid games  rapid  /chess/1", first.id())), "{text}");
    // A list that is cut says so.
    let cut = third.json(&["topic", "chess", "--most", "1"]).await;
    assert_eq!((ids(&cut).len(), &cut["more"]), (1, &json!(true)));
    let text = third.text(&["topic", "chess", "--most", "1"]).await;
    assert!(text.contains("there are more than these 1: --most N shows more"), "{text}");
    // Whoever leaves is there no more.
    first.text(&["topic", "chess", "--leave", "--quorum", "2"]).await;
    assert_eq!(ids(&third.json(&["topic", "chess"]).await), [second.id()]);
    let provides = |stats: Value| stats["stats"]["provided"].clone();
    assert_eq!(provides(first.json(&["stats"]).await), json!([{"text": "photos"}]));
    first.text(&["provide", "photos", "--stop"]).await;
    assert_eq!(provides(first.json(&["stats"]).await), json!([]));
    assert!(first.dht(&["provide", "photos", "--stop"]).await.error(1).contains("does not provide"));
    let wrong = first.dht(&["topic", "chess", "--join", &"x".repeat(141)]).await;
    assert!(wrong.error(1).contains("140 characters"), "{wrong:?}");
}

#[tokio::test]
async fn mail_is_read_until_it_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = three(folder.path()).await;
    assert_eq!(first.text(&["mail"]).await, "no messages\n");
    assert!(second.dht(&["mail", first.id(), "back on Monday"]).await.stderr.starts_with("stored at "));
    let sent = piped(&["mail", first.id(), "-", "--json"], &third, "hello\u{7}".as_bytes()).await;
    let sent: Value = serde_json::from_str(&sent.stdout).unwrap();
    assert!(sent["way"]["stored"].as_u64() >= Some(1), "{sent}");
    // Nobody else can read it.
    assert_eq!(second.json(&["mail", "--keep"]).await["messages"], json!([]));

    // It stays while it is wanted there, and while it could not be shown.
    let kept = first.json(&["mail", "--keep"]).await;
    let mut texts: Vec<_> =
        kept["messages"].as_array().unwrap().iter().map(|letter| letter["text"]["text"].clone()).collect();
    texts.sort_by_key(ToString::to_string);
    assert_eq!(texts, [json!("back on Monday"), json!("hello\u{7}")]);
    let unread = into_nowhere(&["mail"], &first).await;
    assert_eq!(unread.code, Some(1));
    assert!(unread.stderr.contains("the messages stay in the mailbox"), "{unread:?}");
    let text = first.text(&["mail", "--keep"]).await;
    assert!(text.contains(&format!("from {}: back on Monday\n", second.id())), "{text}");
    assert!(text.contains("hello\u{fffd}"), "{text}");

    let read = first.json(&["mail"]).await;
    let senders: Vec<_> = read["messages"].as_array().unwrap().iter().map(|letter| &letter["from"]).collect();
    assert!(senders.contains(&&json!(second.id())) && senders.contains(&&json!(third.id())), "{read}");
    first.until("the mailbox being empty", &["mail"], |reply| reply["messages"] == json!([])).await;
    let wrong = first.dht(&["mail", second.id()]).await;
    assert!(wrong.error(2).contains("<TEXT>") || wrong.error(2).contains("[TEXT]"), "{wrong:?}");
}

/// Runs a command whose standard output takes nothing.
async fn into_nowhere(arguments: &[&str], member: &Member) -> Finished {
    let mut command = program([&["dht"], arguments, &["--data", member.data.to_str().unwrap()]].concat());
    command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let child = command.spawn().unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("the program ends").unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Finished { code: output.status.code(), stdout: String::new(), stderr }
}

#[tokio::test]
async fn a_running_node_serves_no_more_and_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = three(folder.path()).await;
    let mode = async || second.json(&["stats"]).await["stats"]["mode"].clone();
    assert_eq!(mode().await, "serve");
    assert_eq!(second.text(&["mode", "client"]).await, "");
    assert_eq!(mode().await, "client");
    let text = second.text(&["stats"]).await;
    assert!(text.contains("only asks"), "{text}");
    for other in [&first, &third] {
        other.until("nobody asking it", &["table"], |table| !ids(table).contains(&second.id())).await;
    }
    // It asks and publishes as before.
    second.text(&["put", "colour", "blue", "--quorum", "1"]).await;
    assert_eq!(second.text(&["get", second.id(), "colour", "--quorum", "1"]).await, "blue\n");
    second.text(&["mode", "serve"]).await;
    assert_eq!(mode().await, "serve");
    assert!(second.text(&["stats"]).await.contains("serves"));
    for other in [&first, &third] {
        other.until("both asking it again", &["table"], |table| ids(table).contains(&second.id())).await;
    }
    let wrong = second.dht(&["mode", "off"]).await;
    assert!(wrong.error(2).contains("serve, client"), "{wrong:?}");
    // Who takes no part has nothing to change.
    let none = Member::start(folder.path().join("d"), 0, None, &["--dht", "off"]).await;
    assert!(none.dht(&["mode", "serve"]).await.error(1).contains("without a DHT"));
}

#[tokio::test]
async fn the_table_the_counts_and_the_closest_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = three(folder.path()).await;
    let mut others = [second.id(), third.id()];
    others.sort_unstable();
    let table = first.json(&["table"]).await;
    assert_eq!(ids(&table), others);
    assert!(table["peers"][0]["note"].as_str().is_some_and(|state| !state.is_empty()), "{table}");
    let text = first.text(&["table"]).await;
    assert!(others.iter().all(|other| text.contains(other)) && text.contains("state"), "{text}");

    let closest = first.json(&["closest", "holiday-photos"]).await;
    assert_eq!((ids(&closest), &closest["way"]["ended"]), (others.to_vec(), &json!("complete")));
    let text = first.text(&["closest", "holiday-photos"]).await;
    assert!(others.iter().all(|other| text.contains(other)), "{text}");
    let found = first.json(&["find", third.id()]).await;
    assert_eq!((ids(&found), &found["way"]["ended"]), (vec![third.id()], &json!("found")));
    let text = first.text(&["find", third.id()]).await;
    assert!(text.contains(third.address.split_once("/p2p/").unwrap().0), "{text}");
    missing_peer(&first).await;

    let stats = &first.json(&["stats"]).await["stats"];
    let counts = ["known", "usable", "connected"].map(|name| stats[name].as_u64());
    assert_eq!((counts, &stats["joined"], &stats["outage"]), ([Some(2); 3], &json!(true), &json!(false)));
    let seen = ["hour", "day", "week", "unique"].map(|name| stats["seen"][name].as_u64());
    assert_eq!((seen, &stats["seen"]["at_least"]), ([Some(2); 4], &json!(false)));
    let total = |name: &str| stats["totals"][name].as_u64().unwrap_or_else(|| panic!("{name}: {stats}"));
    assert!(total("asked") >= total("answered") + total("failed") + total("cancelled"), "{stats}");
    assert!(total("answered") >= 2 && total("served") >= 1, "{stats}");
    assert_eq!((total("refused"), total("late") <= total("cancelled")), (0, true));
    // What it keeps for others, and how its own is kept.
    second.text(&["put", "colour", "blue", "--quorum", "2"]).await;
    let held = |reply: &Value| reply["stats"]["held"]["records"].as_u64() >= Some(1);
    let holds = first.until("a record being held", &["stats"], held).await;
    assert!(holds["stats"]["held"]["bytes"].as_u64() > Some(100), "{holds}");
    let held = &first.json(&["held"]).await["held"];
    let colour = held.as_array().unwrap().iter().find(|row| row["what"] == "value colour");
    let colour = colour.unwrap_or_else(|| panic!("{held}"));
    assert_eq!((colour["publisher"].as_str(), colour["wanted"].as_u64()), (Some(second.id()), Some(12)));
    assert!(colour["live"].as_u64() >= Some(1), "{held}");
    let text = first.text(&["held"]).await;
    assert!(text.contains("value colour") && text.contains("of 12 known"), "{text}");
    let one = first.json(&["held", "--most", "1"]).await;
    assert_eq!(one["held"].as_array().map(Vec::len), Some(1));
    let colour = |reply: &Value| {
        let rows = reply["stats"]["published"].as_array().unwrap();
        rows.iter().find(|row| row["what"] == "value colour").cloned().unwrap_or_default()
    };
    let kept = |reply: &Value| colour(reply)["live"].as_u64() >= Some(2);
    let row = colour(&second.until("both others having it", &["stats"], kept).await);
    assert!(
        row["wanted"].as_u64() >= Some(2) && row["not_after_unix"].as_u64() > Some(1_700_000_000),
        "{row}"
    );
    assert!(row["state"].is_string() && row["renewed"] == true, "{row}");
    let text = second.text(&["stats"]).await;
    assert!(text.contains("published: value colour") && text.contains("records held"), "{text}");
    assert!(stats["operations"].is_u64() && stats["requests"].is_u64() && stats.get("size").is_some());
    let text = first.text(&["stats"]).await;
    assert!(text.contains("2, 2 of them can be asked") && text.contains("seen in an hour"), "{text}");
}

async fn missing_peer(member: &Member) {
    let finished = member.dht(&["find", STRANGER]).await;
    assert!(finished.error(1).starts_with("not found: "), "{finished:?}");
    let finished = member.dht(&["find", STRANGER, "--json"]).await;
    let reply: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert!(finished.code == Some(1) && reply["failed"].is_string() && reply["way"].is_object(), "{reply}");
}

#[tokio::test]
async fn a_lookup_is_told_as_a_timeline() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = three(folder.path()).await;
    let traced = first.json(&["trace", "holiday-photos", "--class", "normal"]).await;
    let steps = traced["steps"].as_array().unwrap();
    let times: Vec<_> = steps.iter().map(|step| step["ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] >= 0.0, "{times:?}");
    let who = |what: &str| {
        let peers = steps.iter().filter(|step| step["what"] == what).map(|step| &step["peer"]);
        let mut peers: Vec<_> = peers.map(|peer| peer.as_str().unwrap()).collect();
        peers.sort_unstable();
        peers
    };
    let mut others = [second.id(), third.id()];
    others.sort_unstable();
    assert_eq!((who("asked"), who("answered")), (others.to_vec(), others.to_vec()));
    let last = steps.last().unwrap();
    assert_eq!((&last["what"], &last["detail"]), (&json!("ended"), &json!("complete")));
    assert_eq!(ids(&traced), others);

    let text = first.text(&["trace", "holiday-photos"]).await;
    let lines: Vec<_> = text.lines().take_while(|line| line.contains(" ms ")).collect();
    let time = |line: &&str| line.split_once(" ms ").unwrap().0.trim().parse::<f64>().unwrap();
    assert!(lines.iter().map(time).is_sorted(), "{text}");
    for other in others {
        let short = &other[other.len() - 8..];
        let tells = |what: &str| lines.iter().any(|line| line.contains(what) && line.contains(short));
        assert!(tells(" asked ") && tells(" answered "), "{text}");
    }
    assert!(
        lines.last().unwrap().contains(" ended ") && lines.last().unwrap().contains("complete"),
        "{text}"
    );

    // A put and a get tell theirs, beside what they tell otherwise.
    let put = first.text(&["put", "colour", "blue", "--trace"]).await;
    assert!(put.contains(" storing ") && put.contains(" stored "), "{put}");
    let got = second.text(&["get", first.id(), "colour", "--trace"]).await;
    assert!(got.contains(" asked ") && got.contains(" ended ") && got.ends_with("\nblue\n"), "{got}");
    let got = second.json(&["get", first.id(), "colour", "--trace"]).await;
    assert!(got["steps"].as_array().is_some_and(|steps| steps.len() >= 2), "{got}");
}

/// The DHT's rows in a copy of a node's file, as whoever opens it after a crash at this moment finds them. A copy that was torn has none.
fn rows_on_disk(data: &Path) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(BOOK_FILE);
    fs::copy(data.join(BOOK_FILE), &copy).unwrap();
    let store = RedbStore::at(copy);
    let rows = store.load().and_then(|_| store.load_rows());
    rows.map(|rows| rows.into_iter().map(|row| row.1.to_vec()).collect()).unwrap_or_default()
}

#[tokio::test]
async fn what_a_node_holds_for_others_survives_its_kill() {
    let folder = tempfile::tempdir().unwrap();
    let holder = Member::start(folder.path().join("holder"), 0, None, &[]).await;
    let client = ["--dht", "client"];
    let data = folder.path().join("publisher");
    let publisher = Member::start(data, 0, Some(&holder.address), &client).await;
    publisher.knows(1).await;
    let value = "kept through thick and thin";
    publisher.text(&["put", "promise", value]).await;
    let id = publisher.id().to_owned();
    // Nobody is left who could give it to the holder again.
    publisher.kill().await;
    let has_it = |row: &Vec<u8>| row.windows(value.len()).any(|part| part == value.as_bytes());
    let writing = async {
        while !rows_on_disk(&holder.data).iter().any(has_it) {
            // A command takes a turn of the node, and some time.
            holder.text(&["stats"]).await;
        }
    };
    timeout(PATIENCE, writing).await.expect("what a node holds is written to the disk");
    let place = port(&holder.address);
    let data = holder.kill().await;

    let holder = Member::start(data, place, None, &[]).await;
    let data = folder.path().join("reader");
    let reader = Member::start(data, 0, Some(&holder.address), &client).await;
    reader.knows(1).await;
    let got = reader.json(&["get", &id, "promise"]).await;
    assert_eq!(got["value"], json!({"text": value}));
}
