//! A driver as a child process: commands in, answers and events out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{oneshot, watch};

use crate::Outcome;

/// From the start of a driver to its first line.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// The longest wait for an answer; drivers give up earlier by themselves.
const ANSWER_DEADLINE: Duration = Duration::from_secs(40);
/// From `quit` to the end of the process.
const QUIT_DEADLINE: Duration = Duration::from_secs(10);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// How a driver is started.
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<&'static str>,
    pub(crate) log: PathBuf,
}

impl Start {
    /// Starts one, with more arguments.
    pub(crate) async fn node(&self, arguments: &[&str]) -> Outcome<Driver> {
        let arguments: Vec<&str> = self.arguments.iter().chain(arguments).copied().collect();
        Driver::start(&self.program, &arguments, &self.log).await
    }

    /// The same with a log of its own.
    pub(crate) fn named(&self, name: &str) -> Self {
        let log = self.log.with_extension(format!("{name}.log"));
        Self { program: self.program.clone(), arguments: self.arguments.clone(), log }
    }
}

/// A running driver. It is killed when this is dropped.
pub(crate) struct Driver {
    pub(crate) address: String,
    pub(crate) peer: String,
    pub(crate) version: String,
    process: Child,
    stdin: ChildStdin,
    waiting: Waiting,
    /// Peers that the driver has reported as disconnected, and how often.
    disconnects: watch::Receiver<HashMap<String, u32>>,
    next_id: u64,
}

impl Driver {
    /// Starts a program that obeys the contract, its log in `log`.
    async fn start(program: &Path, arguments: &[&str], log: &Path) -> Outcome<Self> {
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let stdin = process.stdin.take().ok_or("the driver has no standard input")?;
        let stdout = process.stdout.take().ok_or("the driver has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(START_DEADLINE, lines.next_line())
            .await
            .map_err(|_| format!("the driver said nothing within {START_DEADLINE:?}"))??
            .ok_or("the driver ended before it listened")?;
        let first: Value = serde_json::from_str(&first)?;
        let text =
            |name: &str| first[name].as_str().map(str::to_owned).ok_or(format!("{name} is missing: {first}"));
        let (address, peer, version) = (text("addr")?, text("peer")?, text("version")?);

        let waiting: Waiting = Arc::default();
        let (report, disconnects) = watch::channel(HashMap::new());
        let answers = waiting.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(id) = line["id"].as_u64() {
                    let waiting = answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&id);
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(line);
                    }
                } else if line["event"] == "disconnected"
                    && let Some(peer) = line["peer"].as_str()
                {
                    report.send_modify(|seen: &mut HashMap<String, u32>| {
                        *seen.entry(peer.to_owned()).or_default() += 1
                    });
                }
            }
        });
        Ok(Self { address, peer, version, process, stdin, waiting, disconnects, next_id: 0 })
    }

    /// Gives a command and waits for its answer: the `ok` part, or the error's text.
    pub(crate) async fn ask(&mut self, mut command: Value) -> Outcome<Value> {
        self.next_id += 1;
        command["id"] = json!(self.next_id);
        let (reply, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(self.next_id, reply);
        self.stdin.write_all(format!("{command}\n").as_bytes()).await?;
        let answer = tokio::time::timeout(ANSWER_DEADLINE, answer)
            .await
            .map_err(|_| format!("no answer within {ANSWER_DEADLINE:?}"))?
            .map_err(|_| "the driver died")?;
        match (answer.get("ok"), answer["error"].as_str()) {
            (Some(ok), _) => Ok(ok.clone()),
            (None, Some(error)) => Err(error.to_owned().into()),
            (None, None) => Err(format!("neither ok nor error: {answer}").into()),
        }
    }

    /// Waits until the driver reports that a peer is gone, counted from now.
    pub(crate) fn disconnect_of(&self, peer: &str) -> impl Future<Output = ()> + 'static {
        let (mut seen, peer) = (self.disconnects.clone(), peer.to_owned());
        let before = seen.borrow().get(&peer).copied().unwrap_or_default();
        async move {
            let _ = seen.wait_for(|seen| seen.get(&peer).copied().unwrap_or_default() > before).await;
        }
    }

    /// Ends the driver in good order. An error when it does not end, or not well.
    pub(crate) async fn quit(mut self) -> Outcome<()> {
        self.stdin.write_all(b"{\"do\":\"quit\"}\n").await?;
        drop(self.stdin);
        let status = tokio::time::timeout(QUIT_DEADLINE, self.process.wait())
            .await
            .map_err(|_| format!("still running {QUIT_DEADLINE:?} after quit"))??;
        if status.success() { Ok(()) } else { Err(format!("ended with {status}").into()) }
    }
}
