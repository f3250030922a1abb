//! The test that every program of this workspace is put to: each work, with a small amount, between two processes, as the benchmark runs it.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use peerage_bench_peer::{Done, Ended, Report, Work};

/// What went wrong, as one sentence.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// A small amount of every work; some that no number of lanes divides, so that each lane's share is seen to count.
fn amount(work: Work) -> u64 {
    match work {
        Work::Bulk1 | Work::Bulk8 => 3_000_001,
        Work::Messages64 | Work::Messages1k => 1001,
        Work::Messages64k => 33,
        Work::Rtt | Work::Rpc1 => 25,
        Work::Rpc64 | Work::Streams => 200,
        Work::Handshake1 => 5,
        Work::Handshake32 => 40,
        Work::Memory => 10,
        Work::Fanout | Work::Prio => 100,
        Work::Start => 1,
    }
}

/// Runs every work. Those of `without` must not apply, and all others must be done in full; of messages with streams of their own up to half
/// may be lost, where the library is one that loses them.
///
/// # Errors
/// The first work that went otherwise, and how.
pub fn every_work(program: &str, without: &[Work], loses: bool) -> Outcome<()> {
    for work in Work::all() {
        for joined in [false, true] {
            if joined && *work != Work::Messages64 {
                continue;
            }
            let report = run(program, *work, joined, 1).map_err(|error| format!("{work}: {error}"))?;
            judge(*work, report, without.contains(work), loses)
                .map_err(|error| format!("{work}: {error}"))?;
        }
    }
    Ok(())
}

/// Memory the other way round: one client with connections to as many servers.
///
/// # Errors
/// What went wrong.
pub fn one_client_of_many_servers(program: &str) -> Outcome<Done> {
    let servers = peerage_bench_peer::FIRST_CONNECTIONS as u64 + amount(Work::Memory);
    let Ended::Done(done) = run(program, Work::Memory, false, servers)?.ended else {
        return Err("it does not apply".into());
    };
    Ok(*done)
}

fn judge(work: Work, report: Report, without: bool, loses: bool) -> Outcome<()> {
    let done = match report.ended {
        Ended::DoesNotApply { .. } if without => return Ok(()),
        Ended::DoesNotApply { why } => return Err(format!("it does not apply, for {why}").into()),
        Ended::Failed { why } => return Err(why.into()),
        Ended::Done(_) if without => return Err("it was done, and is said not to apply".into()),
        Ended::Done(done) => *done,
    };
    let may_lose = if work == Work::Streams && loses { done.amount / 2 } else { 0 };
    let (full, timed) = (done.amount == amount(work) && done.lost <= may_lose, done.seconds > 0.0);
    let latency = matches!(work.name().split('-').next(), Some("rtt" | "rpc" | "handshake"));
    let sampled = done.latency.map(|latency| latency.samples) == latency.then_some(done.amount);
    let memory = done.memory.is_some() == (work == Work::Memory);
    if full && timed && sampled && memory { Ok(()) } else { Err(format!("unexpected: {done:?}").into()) }
}

fn run(program: &str, work: Work, joined: bool, servers: u64) -> Outcome<Report> {
    let mut server = Server::start(program, servers)?;
    let mut command = Command::new(program);
    command.args(["drive", "-", &work.name(), "--amount", &amount(work).to_string(), "--idle", "0.2"]);
    command.args(["--server-pid", &server.process.id().to_string(), "--deadline", "120"]);
    if joined {
        command.arg("--joined");
    }
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // Its input, which ends with this line.
    std::io::Write::write_all(
        &mut client.stdin.take().ok_or("no standard input")?,
        server.addresses.as_bytes(),
    )?;
    let ended = client.wait_with_output()?;
    if !ended.status.success() {
        return Err(format!("the client ended with {}", ended.status).into());
    }
    server.stop()?;
    Ok(serde_json::from_slice(&ended.stdout)?)
}

struct Server {
    process: Child,
    addresses: String,
}

impl Server {
    fn start(program: &str, nodes: u64) -> Outcome<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--nodes", &nodes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Self { process: command.spawn()?, addresses: String::new() };
        let stdout = server.process.stdout.take().ok_or("no standard output")?;
        BufReader::new(stdout).read_line(&mut server.addresses)?;
        Ok(server)
    }

    /// A server ends well when its input does.
    fn stop(&mut self) -> Outcome<()> {
        drop(self.process.stdin.take());
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a fault; one that has ended is left alone by both.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
