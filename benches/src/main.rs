//! Benchmarks over loopback: Peerage beside raw QUIC and beside other libraries, client and server as two processes, interleaved in one run.
//!
//! ```text
//! cargo run --release -p peerage-bench -- table
//! ```
//!
//! Absolute figures move with the machine; the ratio to raw quinn of the same run is what to read. Ours uses its public API with every
//! protection on; raw quinn has the same two-sided authentication and nothing above the streams. What all measured programs share is the crate
//! `peerage-bench-peer`; those of other libraries are in `peers/`, a workspace of its own.

mod child;
mod flood;
mod memory;
mod ours;
mod prices;
mod raw;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use peerage_bench_peer::Outcome;

#[derive(Debug, Parser)]
#[command(name = "peerage-bench", about, version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs every work on every peer, and prints medians and ratios, and which bars are reached.
    Table(table::Options),
    /// Floods a node with handshakes that nobody means to finish and tells what honest peers keep.
    Flood(flood::Options),
    /// Measures what each answer to a first packet costs the node.
    Prices(prices::Options),
    /// Measures what an idle connection keeps in memory, on either side.
    Memory(memory::Options),
    /// Runs one of this program's own peers; what `table` starts as the other processes.
    #[command(subcommand)]
    Peer(OwnPeer),
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
}

/// A peer that is part of this program.
#[derive(Debug, Subcommand)]
enum OwnPeer {
    /// This library.
    #[command(subcommand)]
    Ours(peerage_bench_peer::Command),
    /// quinn and nothing above it.
    #[command(subcommand)]
    RawQuinn(peerage_bench_peer::Command),
}

fn main() -> ExitCode {
    let begun = Instant::now();
    let outcome = match Args::parse().command {
        Command::Peer(OwnPeer::Ours(command)) => {
            return peerage_bench_peer::run::<ours::Ours>(command, begun);
        }
        Command::Peer(OwnPeer::RawQuinn(command)) => {
            return peerage_bench_peer::run::<raw::RawQuinn>(command, begun);
        }
        command => run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(command: Command) -> Outcome<()> {
    match command {
        Command::Table(options) => table::run(options).await,
        Command::Prices(options) => prices::run(options).await,
        Command::Memory(options) => memory::run(options).await,
        Command::Hold { holder } => memory::hold(holder).await,
        Command::ServeAnswer { answer } => prices::serve(answer).await,
        Command::Flood(options) => flood::run(options).await,
        Command::Peer(_) => Err("a peer has a runtime of its own".into()),
    }
}
