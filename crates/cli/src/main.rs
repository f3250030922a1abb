//! The `peerage` program.
//!
//! | module | subject |
//! | --- | --- |
//! | `args`, `failure`, `term`, `logging`, `signals` | the command line, how commands fail, what the user sees |
//! | `key`, `ping`, `send` | the small commands; `visitor` is the node that runs errands for them |
//! | `bench` | `peerage bench`: how fast another node is |
//! | `settings`, `limits` | the settings file, and `peerage limits` |
//! | `operator` | `peerage status` and its like, which talk to a running node |
//! | `metrics` | what a node has counted, as text and over HTTP |
//! | `node` | `peerage node`: a node, what it chats and takes |
//! | `control` | commands to a running node as JSON lines |
//! | `transfer` | files over streams |
//! | `demo` | `peerage demo`: an overlay of `peerage node` processes |
#![forbid(unsafe_code)]

mod args;
mod bench;
mod control;
mod demo;
mod failure;
mod key;
mod limits;
mod logging;
mod metrics;
mod node;
mod operator;
mod ping;
mod send;
mod settings;
mod signals;
mod term;
mod transfer;
mod visitor;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return failure::report_parsing(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed(format!("no threads can be started: {error}")).report(),
    };
    let result = runtime.block_on(run(command));
    // A thread that waits for a line on stdin, or for a slow disk, must not hold up the exit.
    runtime.shutdown_background();
    let result = result.and_then(|()| term::unprinted().map_or(Ok(()), |why| Err(Failure::failed(why))));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Node(args) => Box::pin(node::run(*args)).await,
        Command::Demo(args) => Box::pin(demo::run(args)).await,
        Command::Ask(ask) => operator::run(ask).await,
        Command::Limits(args) => limits::run(&args),
        Command::Key { action } => key::run(action),
        Command::Bench(args) => Box::pin(bench::run(args)).await,
        Command::Ping(args) => Box::pin(ping::run(args)).await,
        Command::Send(args) => Box::pin(send::run(args)).await,
    }
}
