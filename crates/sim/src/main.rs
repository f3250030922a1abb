//! The program `peerage-sim`: runs scenarios over many seeds, and replays one.
#![forbid(unsafe_code)]

mod dht_command;
mod dht_progress;
mod soak;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Args, Parser, Subcommand};
use peerage_sim::{Plan, SCENARIOS, Scenario};

/// Whole Peerage nodes on simulated networks, each run determined by its seed.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the scenarios.
    List,
    /// Runs one scenario with one seed, and prints what it measured and its hash.
    Replay(Replay),
    /// Runs the DHT's scenarios at 10,000 nodes: messages and virtual time, without packets.
    Dht(dht_command::Dht),
    /// Runs scenarios over many seeds, and prints a summary line for each.
    Soak(Soak),
}

#[derive(Args)]
struct Replay {
    /// The scenario: see `list`.
    #[arg(long)]
    scenario: String,
    /// The seed.
    #[arg(long)]
    seed: u64,
    /// The larger form, which the soak also runs.
    #[arg(long)]
    large: bool,
    /// Writes every packet and every node's events into this file, a line each: two runs of one seed give the same file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Prints what the nodes log, such as `peerage=debug`. The log's times are virtual where they are in the messages, real in front.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Args)]
pub(crate) struct Soak {
    /// How many seeds.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only these scenarios; may be given several times. Without it, all.
    #[arg(long)]
    scenario: Vec<String>,
    /// Leaves the larger forms out.
    #[arg(long)]
    small: bool,
    /// Keeps each run's result in this file, one line each, and leaves out what it already has: a soak that was ended goes on where it was.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Runs at the same time. Without it, one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::List => {
            list();
            Ok(true)
        }
        Command::Replay(replay) => run_one(&replay),
        Command::Dht(dht) => dht_command::run(&dht),
        Command::Soak(soak) => soak::run(&soak),
    };
    // Whoever closes a pipe has read enough of it.
    let closed = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    let done = match unprinted().filter(|_| !UNPRINTED.get().is_some_and(closed)) {
        Some(reason) => done.and(Err(reason)),
        None => done,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Why results could not be printed: what went wrong first.
static UNPRINTED: OnceLock<std::io::Error> = OnceLock::new();

/// Prints results. That they could not be is [`unprinted`].
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        UNPRINTED.get_or_init(|| error);
    }
}

/// Why not all results were printed, if they weren't.
fn unprinted() -> Option<String> {
    UNPRINTED.get().map(|error| format!("standard output cannot be written: {error}"))
}

fn list() {
    for scenario in SCENARIOS {
        let larger = if scenario.has_large { " (also larger)" } else { "" };
        say(&format!("{:<12} {}{larger}\n", scenario.name, scenario.about));
    }
}

fn run_one(replay: &Replay) -> Result<bool, String> {
    let scenario = find(&replay.scenario)?;
    if replay.large && !scenario.has_large {
        return Err(format!("{} has no larger form: leave --large out", scenario.name));
    }
    if let Some(filter) = &replay.log {
        let filter = tracing_subscriber::EnvFilter::try_new(filter)
            .map_err(|error| format!("--log {filter:?} is no filter: {error} (such as peerage=debug)"))?;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let plan = if replay.large { Plan::LARGE } else { Plan::SMALL };
    let trace = replay.trace.as_ref().map(|path| {
        std::fs::File::create(path).map_err(|error| format!("{} cannot be written: {error}", path.display()))
    });
    let trace = trace.transpose()?;
    let outcome = scenario.run_prepared(replay.seed, plan, |world| {
        if let Some(file) = trace {
            world.net().write_trace(std::io::BufWriter::new(file));
        }
    });
    say(&format!("hash {}\n", outcome.hash));
    say(&format!("{} simulated seconds, {} packets\n", outcome.simulated.as_secs_f64(), outcome.packets));
    match outcome.result {
        Ok(report) => {
            report.iter().for_each(|(name, figure)| say(&format!("{name}: {}\n", soak::figure(*figure))));
            Ok(true)
        }
        Err(reason) => {
            say(&format!("FAILED: {reason}\n"));
            Ok(false)
        }
    }
}

fn find(name: &str) -> Result<&'static Scenario, String> {
    let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    peerage_sim::scenario(name)
        .ok_or_else(|| format!("there is no scenario {name:?}: give one of {}", names.join(", ")))
}
