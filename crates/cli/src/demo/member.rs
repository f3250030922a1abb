//! One node of the demo: a `peerage node` process that is commanded by JSON lines, and what it has told.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command as Process};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::args::DhtMode;
use crate::control::lines::{Line, Lines};
use crate::control::{Call, Command, Event, Outcome, Reply, Status};
use crate::transfer::Progress;

/// The longest line that a node is believed to print.
const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Progress of one command that waits to be shown.
const MAX_WAITING_PROGRESS: usize = 64;
/// A node that was asked to stop has ended after so long: its own 5 s and some for a busy machine.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a command may bring neither a reply nor progress.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);
/// The same for a file: a slow disk takes its time to sync a large one.
const FILE_DEADLINE: Duration = Duration::from_secs(300);
/// How much of a log is shown when a step fails.
const TAIL_LINES: usize = 15;

/// How a member is started.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// `node-1` and so on.
    pub(super) name: String,
    /// Its folder: `data`, `inbox` and `log` in it.
    pub(super) folder: PathBuf,
    /// The UDP port on loopback; 0 for any.
    pub(super) port: u16,
    /// The address it is told, if any.
    pub(super) seed: Option<String>,
    /// The most connections each way.
    pub(super) max_inbound: u16,
    pub(super) max_outbound: u16,
    /// What it does in the DHT.
    pub(super) dht: DhtMode,
}

/// A running node process.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) plan: Plan,
    pub(super) status: Status,
    /// None when it was left to itself.
    process: Option<Child>,
    stdin: Option<tokio::sync::Mutex<ChildStdin>>,
    seen: watch::Receiver<Seen>,
    calls: Arc<Mutex<Calls>>,
}

/// What a member has told since its start.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Who is connected, and who opened the connection.
    pub(super) links: BTreeMap<String, String>,
    /// Connections that came, in order.
    pub(super) came: Vec<(Instant, String, String)>,
    /// Connections that went, in order.
    pub(super) gone: Vec<Gone>,
    /// Peers that turned it away, in order.
    pub(super) refusals: Vec<Refusal>,
    /// Files that came: name and sum.
    pub(super) files: Vec<(String, String)>,
    /// The last dial that failed.
    pub(super) failed_dial: Option<String>,
    listening: bool,
    /// Its stdout has ended: so has the process.
    ended: bool,
}

/// A connection that went.
#[derive(Debug, Clone)]
pub(super) struct Gone {
    pub(super) at: Instant,
    pub(super) peer: String,
    pub(super) cause: String,
    /// When the node means to redial it, from then on.
    pub(super) redial: Option<Duration>,
}

/// A peer turned the node away.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) at: Instant,
    pub(super) by: String,
    pub(super) reason: String,
    /// Whom it named instead.
    pub(super) alternatives: Vec<String>,
}

/// Commands that wait for their replies.
#[derive(Debug, Default)]
struct Calls {
    next_id: u64,
    waiting: HashMap<u64, mpsc::Sender<Told>>,
}

#[derive(Debug)]
enum Told {
    Progress(Progress),
    Outcome(Outcome),
}

impl Member {
    /// Starts the process. It is not ready before [`Member::ready`]; it is killed when this is dropped.
    ///
    /// # Errors
    /// Why it can't be started, in one line.
    pub(super) fn start(plan: Plan, idle: Duration) -> Result<Self, String> {
        let mut process =
            spawn(&plan, idle).map_err(|error| format!("its process can't be started: {error}"))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("its process has no pipes".to_owned());
        };
        let (to_seen, seen) = watch::channel(Seen::default());
        let calls = Arc::new(Mutex::new(Calls::default()));
        tokio::spawn(read(stdout, to_seen, calls.clone()));
        let stdin = tokio::sync::Mutex::new(stdin);
        Ok(Self { plan, status: Status::default(), process: Some(process), stdin: Some(stdin), seen, calls })
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// Why it does not, in one line.
    pub(super) async fn ready(&mut self, deadline: Instant) -> Result<(), String> {
        self.wait(deadline, |seen| seen.listening).await.map_err(|waited| match waited {
            Waited::Late => "it did not listen in time".to_owned(),
            Waited::Ended => "it ended instead of listening".to_owned(),
        })?;
        self.status = self.call(&Command::Status).await?;
        Ok(())
    }

    /// What the node has told so far.
    pub(super) fn seen(&self) -> watch::Ref<'_, Seen> {
        self.seen.borrow()
    }

    /// Waits until what it has told is enough.
    pub(super) async fn wait(
        &self,
        deadline: Instant,
        mut enough: impl FnMut(&Seen) -> bool,
    ) -> Result<(), Waited> {
        let mut seen = self.seen.clone();
        tokio::select! {
            result = seen.wait_for(|seen| enough(seen) || seen.ended) => match result {
                Ok(seen) if !seen.ended => Ok(()),
                _ => Err(Waited::Ended),
            },
            () = sleep_until(deadline) => Err(Waited::Late),
        }
    }

    /// Carries a command out at the node.
    ///
    /// # Errors
    /// The node's error, or that it did not answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, command: &Command) -> Result<T, String> {
        self.call_within(command, REPLY_DEADLINE, |_| {}).await
    }

    /// [`Member::call`] for a command with progress.
    pub(super) async fn call_showing<T: DeserializeOwned>(
        &self,
        command: &Command,
        show: impl Fn(&Progress),
    ) -> Result<T, String> {
        self.call_within(command, FILE_DEADLINE, show).await
    }

    async fn call_within<T: DeserializeOwned>(
        &self,
        command: &Command,
        patience: Duration,
        show: impl Fn(&Progress),
    ) -> Result<T, String> {
        let (to_us, mut told) = mpsc::channel(MAX_WAITING_PROGRESS);
        let id = {
            let mut calls = self.calls();
            calls.next_id += 1;
            let id = calls.next_id;
            calls.waiting.insert(id, to_us);
            id
        };
        let value = match self.write(&Call { id, command }).await {
            Ok(()) => outcome(&mut told, patience, show).await,
            Err(error) => Err(error),
        };
        self.calls().waiting.remove(&id);
        serde_json::from_value(value?).map_err(|error| format!("its reply can't be read: {error}"))
    }

    /// Its full address.
    pub(super) fn address(&self) -> &str {
        self.status.listening.first().map_or("", String::as_str)
    }

    /// Its UDP port.
    pub(super) fn port(&self) -> u16 {
        let port = self.address().split('/').skip_while(|part| *part != "udp").nth(1);
        port.and_then(|port| port.parse().ok()).unwrap_or(0)
    }

    /// Waits until it has ended in good order, after it was told to stop.
    ///
    /// # Errors
    /// What was not in order.
    pub(super) async fn ended(&mut self) -> Result<(), String> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let late = format!("it did not end within {} s of its stop", STOP_DEADLINE.as_secs());
        match timeout(STOP_DEADLINE, process.wait()).await.map_err(|_| late)? {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("it ended with {status}")),
            Err(error) => Err(format!("its end can't be seen: {error}")),
        }
    }

    /// Kills it with SIGKILL and waits until the process is gone. One that is gone, or was left to itself, is left alone.
    pub(super) async fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            // It fails when the process is gone already.
            let _ = process.start_kill();
            let _ = timeout(STOP_DEADLINE, process.wait()).await;
        }
    }

    /// Lets it run on when this program ends, after it was told to.
    pub(super) fn release(&mut self) {
        self.stdin = None;
        // A handle that is dropped would kill it.
        std::mem::forget(self.process.take());
    }

    async fn write(&self, call: &Call<'_>) -> Result<(), String> {
        let mut line = serde_json::to_string(call).map_err(|error| error.to_string())?;
        line.push('\n');
        let Some(stdin) = &self.stdin else { return Err("it is detached".to_owned()) };
        let mut stdin = stdin.lock().await;
        let writing = async { stdin.write_all(line.as_bytes()).await };
        let late = format!("it took no command within {} s", REPLY_DEADLINE.as_secs());
        let written = timeout(REPLY_DEADLINE, writing).await.map_err(|_| late)?;
        written.map_err(|error| format!("it takes no commands: {error}"))
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        lock(&self.calls)
    }
}

/// What came instead of what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// Time passed.
    Late,
    /// The process has ended.
    Ended,
}

/// The last lines of a member's log.
pub(super) fn log_tail(folder: &Path) -> String {
    let log = std::fs::read(folder.join(LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().map(|line| format!("  {}\n", crate::term::one_line(line))).collect()
}

const LOG: &str = "log";

fn spawn(plan: &Plan, idle: Duration) -> std::io::Result<Child> {
    std::fs::create_dir_all(&plan.folder)?;
    let log = File::options().create(true).append(true).open(plan.folder.join(LOG))?;
    let mut arguments: Vec<OsString> =
        ["node", "--control", "stdio", "--network", super::NETWORK].map(Into::into).into();
    let mut flag = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    flag("--data", plan.folder.join("data").into());
    flag("--inbox", plan.folder.join("inbox").into());
    flag("--moniker", plan.name.clone().into());
    flag("--listen", format!("/ip4/127.0.0.1/udp/{}/quic-v1", plan.port).into());
    flag("--max-inbound", plan.max_inbound.to_string().into());
    flag("--max-outbound", plan.max_outbound.to_string().into());
    flag("--idle-timeout", idle.as_secs().to_string().into());
    let mode = plan.dht.to_possible_value();
    flag("--dht", mode.map_or("off".to_owned(), |mode| mode.get_name().to_owned()).into());
    if plan.dht == DhtMode::Client {
        // It looks at nobody but whom it is told to look for.
        let config = plan.folder.join("config.toml");
        std::fs::write(&config, "[dht.upkeep]\nearly_every = \"1h\"\n")?;
        flag("--config", config.into());
    }
    if let Some(seed) = &plan.seed {
        flag("--seed", seed.into());
    }
    Process::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // A Ctrl-C in the terminal is for the demo, which stops its nodes.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Reads what a node prints until it ends.
async fn read(stdout: ChildStdout, seen: watch::Sender<Seen>, calls: Arc<Mutex<Calls>>) {
    let mut lines = Lines::new(BufReader::new(stdout), MAX_LINE_BYTES);
    while let Ok(Some(line)) = lines.next().await {
        let Line::Text(line) = line else { continue };
        if let Ok(event) = serde_json::from_str(&line) {
            match event {
                Event::Progress { id, progress } => {
                    if let Some(waiting) = lock(&calls).waiting.get(&id) {
                        // What can't be shown in time is not worth showing.
                        let _ = waiting.try_send(Told::Progress(progress));
                    }
                }
                event => seen.send_modify(|seen| seen.take(event)),
            }
        } else if let Ok(Reply { id: Some(id), outcome }) = serde_json::from_str(&line) {
            let waiting = lock(&calls).waiting.remove(&id);
            if let Some(waiting) = waiting {
                let _ = waiting.send(Told::Outcome(outcome)).await;
            }
        }
    }
    seen.send_modify(|seen| seen.ended = true);
    lock(&calls).waiting.clear();
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Listening { .. } => self.listening = true,
            Event::PeerConnected { peer, direction, .. } => {
                self.links.insert(peer.clone(), direction.clone());
                self.came.push((Instant::now(), peer, direction));
            }
            Event::PeerDisconnected { peer, cause, redial_ms } => {
                self.links.remove(&peer);
                let redial = redial_ms.map(Duration::from_millis);
                self.gone.push(Gone { at: Instant::now(), peer, cause, redial });
            }
            Event::RefusedByPeer { peer, reason, alternatives } => {
                self.refusals.push(Refusal { at: Instant::now(), by: peer, reason, alternatives });
            }
            Event::FileReceived { name, sha256, .. } => self.files.push((name, sha256)),
            Event::DialFailed { address, cause, .. } => {
                self.failed_dial = Some(format!("dialling {address}: {cause}"));
            }
            Event::ListeningChanged { .. }
            | Event::Message { .. }
            | Event::Progress { .. }
            | Event::Missed { .. } => {}
        }
    }
}

async fn outcome(
    told: &mut mpsc::Receiver<Told>,
    patience: Duration,
    show: impl Fn(&Progress),
) -> Result<Value, String> {
    loop {
        match timeout(patience, told.recv()).await {
            Ok(Some(Told::Progress(progress))) => show(&progress),
            Ok(Some(Told::Outcome(Outcome::Ok(value)))) => return Ok(value),
            Ok(Some(Told::Outcome(Outcome::Error(error)))) => return Err(error),
            Ok(None) => return Err("it ended before it answered".to_owned()),
            Err(_) => return Err(format!("it did not answer within {} s", patience.as_secs())),
        }
    }
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
