//! The commands of a measured program.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use tokio::io::AsyncReadExt;

use crate::{Drive, Outcome, Peer, Work, drive, within};

/// The longest that a server may take to start.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// What a measured program is told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts a server, prints how to reach it, and serves until standard input ends.
    Serve(ServeOptions),
    /// Does one work once on a fresh connection, and prints one JSON line.
    Drive(DriveOptions),
}

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeOptions {
    /// In which form; the program's first when none is named.
    #[arg(long)]
    form: Option<String>,
    /// Servers in this one process; their addresses are printed on one line, with spaces between.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    nodes: u32,
}

/// What to do.
#[derive(Debug, Args)]
pub struct DriveOptions {
    /// What the server printed; `-` reads it from standard input.
    address: String,
    /// The work.
    work: Work,
    /// In which form; the program's first when none is named.
    #[arg(long)]
    form: Option<String>,
    /// How much: bytes, messages, requests or connections. Default: what a full run does.
    #[arg(long)]
    amount: Option<u64>,
    /// The caller joins small messages into writes of 32 KiB.
    #[arg(long)]
    joined: bool,
    /// The server's process, whose processor time and memory are read.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Seconds for which connections are left alone before their memory is read.
    #[arg(long, default_value_t = 9.0, value_name = "SECONDS", value_parser = seconds)]
    idle: f64,
    /// Seconds after which it gives up.
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS", value_parser = seconds)]
    deadline: f64,
}

/// Up to a day.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("give 0 to 86400 seconds".to_owned()) }
}

/// The whole of a program's `main`.
pub fn main<P: Peer>() -> ExitCode {
    #[derive(Debug, Parser)]
    #[command(about = "A program that the benchmark of Peerage measures", version)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }
    let begun = Instant::now();
    run::<P>(Program::parse().command, begun)
}

/// Carries out a command on a runtime of two workers, as every measured program has, and says what went wrong.
pub fn run<P: Peer>(command: Command, begun: Instant) -> ExitCode {
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            // On a worker, not on this thread, which is outside the pool.
            let outcome = runtime.block_on(async { tokio::spawn(run_command::<P>(command, begun)).await });
            runtime.shutdown_timeout(Duration::from_millis(500));
            outcome.map_err(Into::into).flatten()
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", P::NAME);
            ExitCode::FAILURE
        }
    }
}

/// A thousand nodes in one process have a thousand sockets: as many files may be open as the system lets a process have. Where it lets none be
/// added, the work that needs more says that too many are open.
#[cfg(target_os = "linux")]
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

#[cfg(not(target_os = "linux"))]
fn allow_many_files() {}

/// Carries out a command.
///
/// # Errors
/// What went wrong.
pub async fn run_command<P: Peer>(command: Command, begun: Instant) -> Outcome<()> {
    match command {
        Command::Serve(options) => serve::<P>(options).await,
        Command::Drive(options) => {
            let form = form::<P>(options.form.as_deref())?;
            let deadline = Duration::from_secs_f64(options.deadline);
            let what = what(options, begun)?;
            let peer = P::new(form)?;
            let report =
                within(&format!("the work {}", what.work), deadline, drive(&peer, form, &what)).await?;
            say(&serde_json::to_string(&report)?)
        }
    }
}

async fn serve<P: Peer>(options: ServeOptions) -> Outcome<()> {
    let peer = P::new(form::<P>(options.form.as_deref())?)?;
    let mut servers = Vec::new();
    for _ in 0..options.nodes {
        servers.push(within("the start of the server", START_DEADLINE, peer.serve()).await?);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address.as_str()).collect();
    say(&addresses.join(" "))?;
    // Nothing is said to a server; its input ends when it is no longer wanted, or when whoever started it is gone.
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 256];
    while stdin.read(&mut ignored).await? > 0 {}
    Ok(())
}

fn what(options: DriveOptions, begun: Instant) -> Outcome<Drive> {
    let (work, most) = (options.work, options.work.most());
    let amount = options.amount.unwrap_or_else(|| work.amount());
    if !(1..=most).contains(&amount) {
        return Err(format!("--amount {amount} of {work}: give 1 to {most}").into());
    }
    let mut line = options.address;
    if line == "-" {
        line.clear();
        std::io::stdin().lock().read_line(&mut line)?;
    }
    let addresses: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if addresses.is_empty() {
        return Err("no address: give what `serve` printed".into());
    }
    let idle = Duration::from_secs_f64(options.idle);
    Ok(Drive { addresses, work, amount, joined: options.joined, server: options.server_pid, idle, begun })
}

fn form<P: Peer>(wanted: Option<&str>) -> Outcome<&'static str> {
    let known = P::FORMS;
    let found = match wanted {
        None => known.first(),
        Some(wanted) => known.iter().find(|form| **form == wanted),
    };
    let unknown =
        || format!("there is no form {:?}: give one of {}", wanted.unwrap_or_default(), known.join(", "));
    Ok(found.copied().ok_or_else(unknown)?)
}

/// Prints one line at once.
fn say(line: &str) -> Outcome<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
