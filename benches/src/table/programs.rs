//! The programs that are measured: our own are this one again, the others are built in their workspace.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use peerage_bench_peer::Outcome;
use tokio::process::Command;

use super::plan::PeerName;

/// The workspace of the programs of other libraries.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Where the program of each peer is.
#[derive(Debug)]
pub(crate) struct Programs {
    this: PathBuf,
    /// The folder of the programs of other libraries, where one is needed.
    foreign: Option<PathBuf>,
}

impl Programs {
    /// Builds what is not part of this program.
    ///
    /// # Errors
    /// A program is not there or does not build, and what to do about it.
    pub(crate) async fn prepare(peers: &[PeerName]) -> Outcome<Self> {
        let this = std::env::current_exe()?;
        let foreign: Vec<_> = peers.iter().copied().filter(|peer| !peer.is_own()).collect();
        let foreign = if foreign.is_empty() { None } else { Some(build(&foreign).await?) };
        Ok(Self { this, foreign })
    }

    /// The command of a peer, without its arguments.
    pub(crate) fn command(&self, peer: PeerName) -> Command {
        match &self.foreign {
            Some(folder) if !peer.is_own() => Command::new(folder.join(binary(peer))),
            _ => {
                let mut command = Command::new(&self.this);
                command.args(["peer", peer.name()]);
                command
            }
        }
    }
}

fn binary(peer: PeerName) -> String {
    format!("bench-{}{}", peer, std::env::consts::EXE_SUFFIX)
}

/// Builds the programs in their own workspace and gives the folder that they are in.
async fn build(peers: &[PeerName]) -> Outcome<PathBuf> {
    let manifest = Path::new(WORKSPACE).join("Cargo.toml");
    let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
    if !manifest.exists() {
        return Err(format!(
            "the programs of {} are not here: {} is missing. Run from a checkout of the repository, or name only ours and raw-quinn with --peers",
            names.join(", "),
            manifest.display()
        )
        .into());
    }
    eprintln!("building {} in release mode: minutes when it is the first time", names.join(", "));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked", "--manifest-path"]).arg(&manifest);
    // The folder of these programs is their own workspace's, also when this build was sent elsewhere.
    command.arg("--target-dir").arg(Path::new(WORKSPACE).join("target"));
    for peer in peers {
        command.args(["--bin", &format!("bench-{peer}")]);
    }
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().await;
    let status = status.map_err(|error| format!("cargo cannot be started: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the programs of {} did not build (see above): name the others only with --peers, or repair them in {WORKSPACE}",
            names.join(", ")
        )
        .into());
    }
    Ok(Path::new(WORKSPACE).join("target/release"))
}
