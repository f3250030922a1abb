//! The matrix: every check, either way, against every foreign implementation.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::Outcome;
use crate::limits;
use crate::process::Driver;

/// The exit code by which a build script says that the toolchain is missing.
const NO_TOOLCHAIN: i32 = 3;
/// How long a refusal may take to be seen.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(10);
/// How often a driver is asked for its peers while they are awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Bytes of the echo check.
const ECHO_BYTES: usize = 1 << 20;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these implementations.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Implementation>,
    /// Print one JSON object per cell instead of the table.
    #[arg(long)]
    json: bool,
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
    /// `/ipfs/id/1.0.0`: the answer names the protocols that are served and the key's type.
    Identify,
    /// `/ipfs/id/push/1.0.0`: a change is pushed and seen by the other side.
    Push,
    /// `/ipfs/ping/1.0.0`, three times.
    Ping,
    /// A stream on an application's protocol carries 1 MiB each way.
    Echo,
    /// A protocol that nobody serves is refused with `na`.
    Unknown,
    /// `/perf/1.0.0`, 1 MiB each way.
    Perf,
    /// A dial that expects another peer ID is refused.
    WrongPeer,
}

impl Check {
    const ALL: [Check; 8] = [
        Check::Handshake,
        Check::Identify,
        Check::Push,
        Check::Ping,
        Check::Echo,
        Check::Unknown,
        Check::Perf,
        Check::WrongPeer,
    ];

    fn name(self) -> &'static str {
        match self {
            Check::Handshake => "handshake",
            Check::Identify => "identify",
            Check::Push => "identify push",
            Check::Ping => "ping",
            Check::Echo => "echo 1 MiB",
            Check::Unknown => "unknown protocol",
            Check::Perf => "perf",
            Check::WrongPeer => "wrong peer ID",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail(String),
    NotApplicable(&'static str),
    Skipped(String),
}

type Cells = BTreeMap<(Check, Way), Verdict>;

/// Runs what was asked for. True when nothing failed.
pub(crate) async fn run(options: Options) -> Outcome<bool> {
    let all = [Implementation::Rust, Implementation::Go, Implementation::Js, Implementation::Py];
    let chosen: Vec<_> =
        all.into_iter().filter(|which| options.only.is_empty() || options.only.contains(which)).collect();
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers");
    let logs = std::env::temp_dir().join(format!("peerage-interop-{}", std::process::id()));
    std::fs::create_dir_all(&logs)?;
    let mut columns = Vec::new();
    for which in chosen {
        eprintln!("{}: building", which.name());
        let (label, cells) = match build(&drivers.join(which.name())).await {
            Ok(program) => {
                eprintln!("{}: running", which.name());
                against(which, &program, &logs).await
            }
            Err(Verdict::Skipped(why)) => (which.name().to_owned(), every_cell(&Verdict::Skipped(why))),
            Err(verdict) => (which.name().to_owned(), every_cell(&verdict)),
        };
        columns.push((label, cells));
    }
    let good = report(&columns, options.json);
    if good {
        std::fs::remove_dir_all(&logs)?;
    } else {
        eprintln!("the drivers' logs are in {}", logs.display());
    }
    Ok(good)
}

fn every_cell(verdict: &Verdict) -> Cells {
    let ways = [Way::Dial, Way::Dialled];
    Check::ALL.into_iter().flat_map(|check| ways.map(|way| ((check, way), verdict.clone()))).collect()
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
async fn against(which: Implementation, program: &Path, logs: &Path) -> (String, Cells) {
    let (mut cells, mut label) = (Cells::new(), which.name().to_owned());
    for way in [Way::Dial, Way::Dialled] {
        match one_way(which, way, program, logs, &mut cells).await {
            Ok(version) => label = format!("{} {version}", which.name()),
            Err(error) => {
                for check in Check::ALL {
                    let failed = || Verdict::Fail(format!("the nodes did not start or end well: {error}"));
                    cells.entry((check, way)).or_insert_with(failed);
                }
            }
        }
    }
    (label, cells)
}

async fn one_way(
    which: Implementation,
    way: Way,
    program: &Path,
    logs: &Path,
    cells: &mut Cells,
) -> Outcome<String> {
    let log = |side: &str| logs.join(format!("{}-{way:?}-{side}.log", which.name()));
    let ours = Driver::start(&std::env::current_exe()?, &["driver"], &log("ours")).await?;
    let theirs = Driver::start(program, &[], &log("theirs")).await?;
    let version = theirs.version.clone();
    let (mut dialler, mut listener) = match way {
        Way::Dial => (ours, theirs),
        Way::Dialled => (theirs, ours),
    };
    for check in Check::ALL {
        let verdict = match limits::reason(which.name(), way, check) {
            Some(why) => Verdict::NotApplicable(why),
            None => match perform(check, &mut dialler, &mut listener).await {
                Ok(()) => Verdict::Pass,
                Err(error) => Verdict::Fail(error.to_string()),
            },
        };
        cells.insert((check, way), verdict);
    }
    let (first, second) = (dialler.quit().await, listener.quit().await);
    first.map_err(|error| format!("the dialler: {error}"))?;
    second.map_err(|error| format!("the listener: {error}"))?;
    Ok(version)
}

/// Lets the dialler try one thing on the listener.
async fn perform(check: Check, dialler: &mut Driver, listener: &mut Driver) -> Outcome<()> {
    let peer = listener.peer.clone();
    match check {
        Check::Handshake => {
            let ok = dialler.ask(json!({"do": "dial", "addr": listener.address})).await?;
            expect(ok["peer"] == json!(peer), || format!("another peer was found: {ok}"))?;
            // In TLS 1.3 the dialler is done first: the listener may need a moment more.
            until_connected(listener, &dialler.peer).await
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
        Check::Unknown => {
            let ok = dialler.ask(json!({"do": "open", "peer": peer, "protocol": "/interop/none/1"})).await?;
            expect(ok["refused"] == json!(true), || format!("it was not refused: {ok}"))
        }
        Check::Perf => {
            let ask = json!({"do": "perf", "peer": peer, "upload": ECHO_BYTES, "download": ECHO_BYTES});
            dialler.ask(ask).await.map(|_| ())
        }
        Check::WrongPeer => wrong_peer(dialler, listener).await,
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

/// Dials the listener's address with another peer's ID. In TLS 1.3 a refusal may come after the dial has succeeded.
async fn wrong_peer(dialler: &mut Driver, listener: &mut Driver) -> Outcome<()> {
    dialler.ask(json!({"do": "disconnect", "peer": listener.peer})).await?;
    let stranger = peerage::NodeKey::generate().peer_id().to_string();
    let address = listener.address.replace(&listener.peer, &stranger);
    let gone = dialler.disconnect_of(&stranger);
    match dialler.ask(json!({"do": "dial", "addr": address})).await {
        Err(_) => Ok(()),
        Ok(_) => tokio::time::timeout(REFUSAL_DEADLINE, gone)
            .await
            .map_err(|_| format!("the dial to {stranger} succeeded at another peer").into()),
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

/// Prints the cells. True when none failed.
fn report(columns: &[(String, Cells)], as_json: bool) -> bool {
    let (mut run, mut failed) = (0, 0);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(
        ["check".to_owned(), "way".to_owned()]
            .into_iter()
            .chain(columns.iter().map(|(name, _)| name.clone())),
    );
    let mut reasons = Vec::new();
    for check in Check::ALL {
        for way in [Way::Dial, Way::Dialled] {
            let mut row = vec![check.name().to_owned(), way.to_string()];
            for (name, cells) in columns {
                let skipped = Verdict::Skipped("not run".to_owned());
                let verdict = cells.get(&(check, way)).unwrap_or(&skipped);
                let (word, why) = match verdict {
                    Verdict::Pass => ("PASS", None),
                    Verdict::Fail(why) => ("FAIL", Some(why.as_str())),
                    Verdict::NotApplicable(why) => ("N/A", Some(*why)),
                    Verdict::Skipped(why) => ("SKIPPED", Some(why.as_str())),
                };
                run += u32::from(matches!(verdict, Verdict::Pass | Verdict::Fail(_)));
                failed += u32::from(matches!(verdict, Verdict::Fail(_)));
                row.push(word.to_owned());
                if as_json {
                    println!("{}", cell(name, check, way, word, why));
                } else if let Some(why) = why {
                    reasons.push(format!("{name}, {}, {way}: {word}: {why}", check.name()));
                }
            }
            table.add_row(row);
        }
    }
    if !as_json {
        println!("{table}");
        reasons.dedup_by(|a, b| a.rsplit(": ").next() == b.rsplit(": ").next());
        reasons.iter().for_each(|reason| println!("{reason}"));
    }
    let judged = columns.iter().any(|(name, cells)| {
        name.starts_with("go")
            && cells.values().any(|verdict| matches!(verdict, Verdict::Pass | Verdict::Fail(_)))
    });
    if !judged {
        say(as_json, "no independent judge of QUIC and TLS ran: go was not among the implementations");
    }
    say(as_json, &format!("{run} cells run, {} passed, {failed} failed", run - failed));
    failed == 0 && run > 0
}

fn say(as_json: bool, text: &str) {
    if as_json {
        println!("{}", json!({ "summary": text }));
    } else {
        println!("{text}");
    }
}

fn cell(name: &str, check: Check, way: Way, word: &str, why: Option<&str>) -> Value {
    json!({"implementation": name, "check": check.name(), "way": way.to_string(), "verdict": word, "reason": why})
}
