//! The server as a process of its own.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::Outcome;

/// How long a server, or a thousand in one process, may take to say where it listens.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A running server. It ends when this is dropped.
pub(crate) struct Server {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it printed: how to reach it.
    pub(crate) address: String,
}

impl Server {
    /// Starts this program again with other arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> Outcome<Self> {
        Self::start(Command::new(std::env::current_exe()?).args(arguments)).await
    }

    /// Starts a program that prints how to reach it and serves until its standard input ends.
    pub(crate) async fn start(command: &mut Command) -> Outcome<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().ok_or("the server has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START_DEADLINE, lines.next_line())
            .await
            .map_err(|_| format!("the server did not say within {START_DEADLINE:?} where it listens"))??;
        let address = line.ok_or("the server ended before it listened")?;
        Ok(Self { process, lines, address })
    }

    /// Says one line to a server that talks by lines, and gives its answer.
    pub(crate) async fn ask(&mut self, line: &str) -> Outcome<String> {
        let stdin = self.process.stdin.as_mut().ok_or("the server has no standard input")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.lines.next_line().await?.ok_or("the server ended before it answered")?)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }
}
