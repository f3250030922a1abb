//! Benchmarks over loopback: Peerage beside raw QUIC, client and server as two processes, interleaved in one run.
//!
//! ```text
//! cargo run --release -p peerage-bench -- table
//! ```
//!
//! Absolute figures move with the machine; the ratio to raw quinn of the same run is what to read. Ours uses its public API with every
//! protection on; raw quinn has the same two-sided authentication and nothing above the streams.

mod child;
mod cpu;
mod flood;
mod memory;
mod ours;
mod prices;
mod raw;
mod table;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Parser)]
#[command(name = "peerage-bench", about, version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs every work on every peer and prints medians and ratios.
    Table(table::Options),
    /// Floods a node with handshakes that nobody means to finish and tells what honest peers keep.
    Flood(flood::Options),
    /// Measures what each answer to a first packet costs the node.
    Prices(prices::Options),
    /// Measures what an idle connection keeps in memory, on either side.
    Memory(memory::Options),
    /// Holds the connections of one side; what `memory` starts as the other processes.
    #[command(hide = true)]
    Hold {
        /// How.
        holder: memory::Holder,
    },
    /// Gives every arrival one answer; what `prices` starts as the other process.
    #[command(hide = true)]
    ServeAnswer {
        /// Which.
        answer: prices::Answer,
    },
    /// Serves one peer until standard input ends; what `table` starts as the other process.
    #[command(hide = true)]
    Serve {
        /// Which.
        peer: PeerKind,
    },
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerKind {
    /// This library.
    Ours,
    /// quinn as it comes, with mutual TLS.
    RawQuinn,
    /// quinn with AES-128, buffers handed over whole, and 4 MiB socket buffers.
    RawQuinnTuned,
}

impl PeerKind {
    pub(crate) const ALL: [PeerKind; 3] = [PeerKind::RawQuinn, PeerKind::RawQuinnTuned, PeerKind::Ours];

    pub(crate) fn name(self) -> &'static str {
        match self {
            PeerKind::Ours => "ours",
            PeerKind::RawQuinn => "raw-quinn",
            PeerKind::RawQuinnTuned => "raw-quinn-tuned",
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Table(options) => table::run(options).await,
        Command::Prices(options) => prices::run(options).await,
        Command::Memory(options) => memory::run(options).await,
        Command::Hold { holder } => memory::hold(holder).await,
        Command::ServeAnswer { answer } => prices::serve(answer).await,
        Command::Flood(options) => flood::run(options).await,
        Command::Serve { peer: PeerKind::Ours } => ours::serve().await,
        Command::Serve { peer } => raw::serve(peer == PeerKind::RawQuinnTuned).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
