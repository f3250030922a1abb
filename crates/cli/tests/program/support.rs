//! Running the program and waiting for what it does.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Nothing that a test waits for takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished run left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with its arguments, in a world without the user's folders.
pub(crate) fn program<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerage"));
    command.args(arguments).kill_on_drop(true);
    command.env_remove("HOME").env_remove("XDG_DATA_HOME").env("COLUMNS", "200");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) async fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Finished {
    finish(program(arguments)).await
}

/// Runs a command to its end.
pub(crate) async fn finish(mut command: Command) -> Finished {
    let output = timeout(PATIENCE, command.output()).await.expect("the program ends").unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Finished {
    /// The one line that says what went wrong, when the exit code is the expected one.
    pub(crate) fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        let mut lines = self.stderr.lines();
        match (lines.next(), lines.next()) {
            (Some(line), None) => line.strip_prefix("error: ").expect("an error line"),
            _ => panic!("not one line: {self:?}"),
        }
    }
}

/// A program that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Option<ChildStderr>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            stderr: child.stderr.take(),
            child,
        }
    }

    /// A node with a data folder, on loopback.
    pub(crate) fn node<S: AsRef<OsStr>>(data: &Path, port: u16, more: impl IntoIterator<Item = S>) -> Self {
        let mut command =
            program(["node", "--listen", &format!("/ip4/127.0.0.1/udp/{port}/quic-v1"), "--data"]);
        command.arg(data).args(more);
        Self::start(command)
    }

    /// The next line on stdout; `None` at its end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.stdout.next_line()).await.expect("the program says something").unwrap()
    }

    /// The address of a node that was just started.
    pub(crate) async fn address(&mut self) -> String {
        let line = self.line().await;
        let Some(address) = line.as_deref().and_then(|line| line.strip_prefix("listening ")) else {
            panic!("not an address: {line:?}, {}", self.rest_of_stderr().await)
        };
        address.to_owned()
    }

    /// Writes a line to stdin and reads the next one that is no event.
    pub(crate) async fn ask(&mut self, command: &str) -> serde_json::Value {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        loop {
            let line: serde_json::Value = serde_json::from_str(&self.line().await.unwrap()).unwrap();
            if line.get("event").is_none() {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)).expect("the program runs");
        kill_process(pid, signal).unwrap();
    }

    pub(crate) async fn end(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("the program ends").unwrap()
    }

    /// Everything on stderr until its end.
    pub(crate) async fn rest_of_stderr(&mut self) -> String {
        let mut all = String::new();
        let mut stderr = self.stderr.take().expect("read once");
        timeout(PATIENCE, stderr.read_to_string(&mut all)).await.expect("the program ends").unwrap();
        all
    }
}

/// The UDP port in an address.
pub(crate) fn port(address: &str) -> u16 {
    address.split('/').nth(4).and_then(|port| port.parse().ok()).expect("a port")
}

/// Waits until no node holds a data folder any more: the system gives its lock when the holder's process is gone.
pub(crate) async fn until_free(data: &Path) {
    let lock = std::fs::File::open(data.join("node.lock")).unwrap();
    let locking = tokio::task::spawn_blocking(move || lock.lock());
    timeout(PATIENCE, locking).await.expect("the node ends").unwrap().unwrap();
}
