//! The server as a process of its own.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{Outcome, PeerKind};

/// How long a server may take to say where it listens.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running server. It ends when this is dropped.
pub(crate) struct Server {
    process: Child,
    /// What it printed: how to reach it.
    pub(crate) address: String,
}

impl Server {
    pub(crate) async fn start(peer: PeerKind) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", peer.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("the server has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START_DEADLINE, lines.next_line()).await??;
        let address = line.ok_or("the server ended before it listened")?;
        Ok(Self { process, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }
}

/// For the server: prints where it listens and waits until it is no longer wanted.
pub(crate) async fn until_unwanted(address: &str) -> Outcome<()> {
    println!("{address}");
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    Ok(())
}
