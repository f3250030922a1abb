//! The matrix: every check, either way, against every foreign implementation.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::process::Command;

use crate::kad::{self, KadCheck, Network};
use crate::process::{Driver, Start};
use crate::{Outcome, channel, limits, report};

/// The exit code by which a build script says that the toolchain is missing.
const NO_TOOLCHAIN: i32 = 3;
/// How long a refusal may take to be seen.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(10);
/// How often a driver is asked for its peers while they are awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Bytes of the echo check.
const ECHO_BYTES: usize = 1 << 20;
/// Messages of the channel check, each way: more bytes than a stream's window holds.
const MESSAGES: usize = 200;
/// Whether our node offers X25519MLKEM768.
const POST_QUANTUM: bool = cfg!(feature = "post-quantum");

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these implementations.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Implementation>,
    /// Only rows whose names contain one of these, and the handshake, which all of them need.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Print one JSON object per cell instead of the table.
    #[arg(long)]
    json: bool,
    /// One row more: the keys of the connection come from X25519MLKEM768. Needs the feature post-quantum.
    #[arg(long)]
    post_quantum: bool,
}

/// The foreign implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Implementation {
    Rust,
    Go,
    Js,
    Py,
}

impl Implementation {
    fn name(self) -> &'static str {
        match self {
            Implementation::Rust => "rust",
            Implementation::Go => "go",
            Implementation::Js => "js",
            Implementation::Py => "py",
        }
    }
}

/// Who dials, and then tries everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// We do.
    Dial,
    /// The foreign node does.
    Dialled,
}

impl Way {
    pub(crate) const BOTH: [Way; 2] = [Way::Dial, Way::Dialled];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Dial => "we dial",
            Way::Dialled => "it dials",
        })
    }
}

/// One thing that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// The dial succeeds and proves the expected peer.
    Handshake,
    /// The handshake's keys come from X25519MLKEM768, by the word of our side. Only when it is asked for.
    PostQuantum,
    /// `/ipfs/id/1.0.0`: the answer names the protocols that are served and the key's type.
    Identify,
    /// `/ipfs/id/push/1.0.0`: a change is pushed and seen by the other side.
    Push,
    /// `/ipfs/ping/1.0.0`, three times.
    Ping,
    /// A stream on an application's protocol carries 1 MiB each way.
    Echo,
    /// A channel of ours: messages both ways, what they were and in which order.
    Channel,
    /// A protocol that nobody serves is refused with `na`.
    Unknown,
    /// `/perf/1.0.0`, 1 MiB each way.
    Perf,
    /// A dial that expects another peer ID is refused.
    WrongPeer,
    /// The DHT, between nodes of its own.
    Kad(KadCheck),
}

impl Check {
    const ALL: [Check; 14] = [
        Check::Handshake,
        Check::PostQuantum,
        Check::Identify,
        Check::Push,
        Check::Ping,
        Check::Echo,
        Check::Channel,
        Check::Unknown,
        Check::Perf,
        Check::WrongPeer,
        Check::Kad(KadCheck::Value),
        Check::Kad(KadCheck::Record),
        Check::Kad(KadCheck::Providers),
        Check::Kad(KadCheck::Find),
    ];

    /// The rows that were asked for.
    fn chosen(options: &Options) -> Outcome<Vec<Check>> {
        if let Some(row) = options.rows.iter().find(|row| !Check::ALL.iter().any(|check| check.is_in(row))) {
            return Err(format!("no row's name contains {row:?}").into());
        }
        let named = |check: &Check| {
            options.rows.is_empty()
                || *check == Check::Handshake
                || options.rows.iter().any(|row| check.is_in(row))
        };
        let possible = |check: &Check| *check != Check::PostQuantum || options.post_quantum;
        Ok(Check::ALL.into_iter().filter(|check| named(check) && possible(check)).collect())
    }

    fn is_in(self, row: &str) -> bool {
        self.name().contains(row)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Check::Handshake => "handshake",
            Check::PostQuantum => "X25519MLKEM768",
            Check::Identify => "identify",
            Check::Push => "identify push",
            Check::Ping => "ping",
            Check::Echo => "echo 1 MiB",
            Check::Channel => "channel",
            Check::Unknown => "unknown protocol",
            Check::Perf => "perf",
            Check::WrongPeer => "wrong peer ID",
            Check::Kad(KadCheck::Value) => "kad: PUT_VALUE, GET_VALUE",
            Check::Kad(KadCheck::Record) => "kad: our signed records",
            Check::Kad(KadCheck::Providers) => "kad: ADD_PROVIDER, GET_PROVIDERS",
            Check::Kad(KadCheck::Find) => "kad: FIND_NODE",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Fail(String),
    NotApplicable(&'static str),
    Skipped(String),
}

pub(crate) type Cells = BTreeMap<(Check, Way), Verdict>;

/// Runs what was asked for. True when nothing failed.
pub(crate) async fn run(options: Options) -> Outcome<bool> {
    if options.post_quantum && !POST_QUANTUM {
        return Err("this runner has no X25519MLKEM768: build it with --features post-quantum".into());
    }
    let all = [Implementation::Rust, Implementation::Go, Implementation::Js, Implementation::Py];
    let chosen: Vec<_> =
        all.into_iter().filter(|which| options.only.is_empty() || options.only.contains(which)).collect();
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers");
    let logs = std::env::temp_dir().join(format!("peerage-interop-{}", std::process::id()));
    std::fs::create_dir_all(&logs)?;
    let checks = Check::chosen(&options)?;
    let mut columns = Vec::new();
    for which in chosen {
        eprintln!("{}: building", which.name());
        let start = Instant::now();
        let built = build(&drivers.join(which.name())).await;
        let (label, cells) = match built {
            Ok(program) => {
                eprintln!("{}: built in {:.1} s, running", which.name(), start.elapsed().as_secs_f32());
                against(which, &checks, &program, &logs).await
            }
            Err(verdict) => (which.name().to_owned(), every_cell(&checks, &verdict)),
        };
        columns.push((label, cells));
    }
    let good = report::print(&checks, &columns, options.json);
    if good {
        std::fs::remove_dir_all(&logs)?;
    } else {
        eprintln!("the drivers' logs are in {}", logs.display());
    }
    Ok(good)
}

fn every_cell(checks: &[Check], verdict: &Verdict) -> Cells {
    checks.iter().flat_map(|check| Way::BOTH.map(|way| ((*check, way), verdict.clone()))).collect()
}

/// Builds a driver. The program to start, or why there is none.
async fn build(folder: &Path) -> Result<PathBuf, Verdict> {
    let output = Command::new(folder.join("build.sh")).output().await;
    let output = output.map_err(|error| Verdict::Fail(format!("build.sh cannot be started: {error}")))?;
    if output.status.success() {
        return Ok(folder.join("run.sh"));
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output").to_owned();
    if output.status.code() == Some(NO_TOOLCHAIN) {
        return Err(Verdict::Skipped(last));
    }
    Err(Verdict::Fail(format!("the build failed: {last}")))
}

/// All checks against one implementation, with fresh nodes for each way.
async fn against(which: Implementation, checks: &[Check], program: &Path, logs: &Path) -> (String, Cells) {
    let (mut cells, mut label) = (Cells::new(), which.name().to_owned());
    for way in Way::BOTH {
        match one_way(which, way, checks, program, logs, &mut cells).await {
            Ok(version) => label = format!("{} {version}", which.name()),
            Err(error) => {
                // The first row is the one that a run always has: what befell the nodes must not go unseen when all rows were done.
                let failed = Verdict::Fail(format!("the nodes did not start or end well: {error}"));
                cells.insert((Check::Handshake, way), failed.clone());
                for check in checks {
                    cells.entry((*check, way)).or_insert_with(|| failed.clone());
                }
            }
        }
    }
    (label, cells)
}

async fn one_way(
    which: Implementation,
    way: Way,
    checks: &[Check],
    program: &Path,
    logs: &Path,
    cells: &mut Cells,
) -> Outcome<String> {
    let log = |side: &str| logs.join(format!("{}-{way:?}-{side}.log", which.name()));
    let us = std::env::current_exe()?;
    let ours = Start { program: us, arguments: vec!["driver"], log: log("ours") };
    let theirs = Start { program: program.to_owned(), arguments: Vec::new(), log: log("theirs") };
    let (dials, listens) = match way {
        Way::Dial => (ours, theirs),
        Way::Dialled => (theirs, ours),
    };
    let (mut dialler, mut listener) = (dials.node(&[]).await?, listens.node(&[]).await?);
    let version = if way == Way::Dial { &listener } else { &dialler }.version.clone();
    let mut dht = Network::new(dials, listens, kad::protocol_with(which.name()));
    for check in checks {
        let verdict = match limits::reason(which.name(), way, *check) {
            Some(why) => Verdict::NotApplicable(why),
            None => match perform(*check, way, &mut dialler, &mut listener, &mut dht).await {
                Ok(()) => Verdict::Pass,
                Err(error) => Verdict::Fail(error.to_string()),
            },
        };
        cells.insert((*check, way), verdict);
    }
    let (first, second) = (dialler.quit().await, listener.quit().await);
    first.map_err(|error| format!("the dialler: {error}"))?;
    second.map_err(|error| format!("the listener: {error}"))?;
    dht.quit().await?;
    Ok(version)
}

/// Lets the dialler try one thing on the listener, or the members of the DHT, which are of the dialler's kind, on its server.
async fn perform(
    check: Check,
    way: Way,
    dialler: &mut Driver,
    listener: &mut Driver,
    dht: &mut Network,
) -> Outcome<()> {
    let peer = listener.peer.clone();
    match check {
        Check::Handshake => {
            let ok = dialler.ask(json!({"do": "dial", "addr": listener.address})).await?;
            expect(ok["peer"] == json!(peer), || format!("another peer was found: {ok}"))?;
            // In TLS 1.3 the dialler is done first: the listener may need a moment more.
            until_connected(listener, &dialler.peer).await
        }
        Check::PostQuantum => {
            let (ours, theirs) = match way {
                Way::Dial => (dialler, peer),
                Way::Dialled => (listener, dialler.peer.clone()),
            };
            let ok = ours.ask(json!({"do": "post_quantum", "peer": theirs})).await?;
            expect(ok["post_quantum"] == json!(true), || "a classical group was agreed on".to_owned())
        }
        Check::Identify => {
            let ok = dialler.ask(json!({"do": "identify", "peer": peer})).await?;
            let names = |wanted: &str| {
                ok["protocols"].as_array().is_some_and(|all| all.iter().any(|name| name == wanted))
            };
            for protocol in ["/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "/interop/echo/1"] {
                expect(names(protocol), || format!("{protocol} is not among the protocols: {ok}"))?;
            }
            let listens = listener.address.split("/p2p/").next().unwrap_or_default();
            let announced = ok["listen"].as_array().is_some_and(|all| {
                all.iter().any(|address| address.as_str().is_some_and(|address| address.starts_with(listens)))
            });
            expect(announced, || format!("{listens} is not among the listen addresses: {ok}"))?;
            let key = &ok["public_key_type"];
            expect(key.is_null() || *key == "ed25519", || format!("the key is of type {key}"))
        }
        Check::Push => {
            let pushed = dialler.ask(json!({"do": "push"})).await?;
            let wanted = json!({"do": "identified", "peer": dialler.peer, "protocol": pushed["protocol"]});
            listener.ask(wanted).await.map(|_| ())
        }
        Check::Ping => {
            let ok = dialler.ask(json!({"do": "ping", "peer": peer, "count": 3})).await?;
            let count = ok["rtt_us"].as_array().map_or(0, Vec::len);
            expect(count == 3, || format!("{count} of 3 pings came back: {ok}"))
        }
        Check::Echo => {
            let ask = json!({"do": "echo", "peer": peer, "protocol": "/interop/echo/1", "bytes": ECHO_BYTES});
            let ok = dialler.ask(ask).await?;
            expect(ok["bytes"] == json!(ECHO_BYTES), || format!("not all came back: {ok}"))
        }
        Check::Channel => {
            messages(dialler, listener).await?;
            messages(listener, dialler).await
        }
        Check::Unknown => {
            let ok = dialler.ask(json!({"do": "open", "peer": peer, "protocol": "/interop/none/1"})).await?;
            expect(ok["refused"] == json!(true), || format!("it was not refused: {ok}"))
        }
        Check::Perf => {
            let ask = json!({"do": "perf", "peer": peer, "upload": ECHO_BYTES, "download": ECHO_BYTES});
            dialler.ask(ask).await.map(|_| ())
        }
        Check::WrongPeer => wrong_peer(dialler, listener).await,
        Check::Kad(check) => dht.perform(check).await,
    }
}

async fn until_connected(driver: &mut Driver, peer: &str) -> Outcome<()> {
    let looking = async {
        loop {
            let ok = driver.ask(json!({"do": "peers"})).await?;
            if ok["peers"].as_array().is_some_and(|peers| peers.iter().any(|known| known == peer)) {
                return Outcome::Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let seen = tokio::time::timeout(REFUSAL_DEADLINE, looking).await;
    seen.map_err(|_| format!("the listener did not report {peer} as connected"))?
}

/// Lets one side send messages on the channel; the other side must receive those, in their order, and nothing else.
async fn messages(from: &mut Driver, to: &mut Driver) -> Outcome<()> {
    let send =
        json!({"do": "channel_send", "peer": to.peer, "protocol": channel::NAME, "messages": MESSAGES});
    let sent = from.ask(send).await.map_err(|error| format!("while sending: {error}"))?;
    expect(sent["messages"] == json!(MESSAGES), || format!("not all were sent: {sent}"))?;
    let take = |messages| json!({"do": "channel_take", "peer": from.peer, "messages": messages});
    let came = to.ask(take(MESSAGES)).await.map_err(|error| format!("while receiving: {error}"))?;
    for fact in ["messages", "bytes", "sha256"] {
        expect(came[fact] == sent[fact], || format!("{sent} was sent, {came} came"))?;
    }
    let left = to.ask(take(0)).await?;
    expect(left["left"] == json!(0), || format!("{} messages came that were not sent", left["left"]))
}

/// Dials the listener's address with another peer's ID. In TLS 1.3 a refusal may come after the dial has succeeded.
async fn wrong_peer(dialler: &mut Driver, listener: &mut Driver) -> Outcome<()> {
    dialler.ask(json!({"do": "disconnect", "peer": listener.peer})).await?;
    let stranger = peerage::NodeKey::generate().peer_id().to_string();
    let address = listener.address.replace(&listener.peer, &stranger);
    let gone = dialler.disconnect_of(&stranger);
    let start = Instant::now();
    match dialler.ask(json!({"do": "dial", "addr": address})).await {
        Err(error) if start.elapsed() >= REFUSAL_DEADLINE => {
            return Err(format!("it was not refused, but gave up: {error}").into());
        }
        Err(_) => {}
        Ok(_) => tokio::time::timeout(REFUSAL_DEADLINE, gone)
            .await
            .map_err(|_| format!("the dial to {stranger} succeeded at another peer"))?,
    }
    // The address was right, then, and the ID alone the reason.
    let ok = dialler.ask(json!({"do": "dial", "addr": listener.address})).await;
    let ok = ok.map_err(|error| format!("the right ID was refused too: {error}"))?;
    expect(ok["peer"] == json!(listener.peer), || format!("another peer was found: {ok}"))
}

/// An error, unless it holds.
pub(crate) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}
