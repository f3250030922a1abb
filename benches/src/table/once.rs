//! Runs one work of one program once, with a fresh server.

use std::process::Stdio;
use std::time::{Duration, Instant};

use peerage_bench_peer::{Done, Ended, FIRST_CONNECTIONS, Memory, Outcome, Report, Work};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::plan::Entry;
use super::programs::Programs;
use crate::child::Server;

/// The longest that one work may take, once.
const DEADLINE: Duration = Duration::from_secs(300);
/// What a program may take beyond it to say that it gave up.
const GRACE: Duration = Duration::from_secs(20);
/// Starts of the process in one run of the work `start`; the median counts.
const STARTS: usize = 5;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// What the amounts of a full run are multiplied with.
    pub(crate) factor: f64,
}

impl Scale {
    /// At least enough that every lane has something to do, and memory grows by more than a few pages.
    fn amount(self, work: Work) -> u64 {
        let scaled = (work.amount() as f64 * self.factor).round() as u64;
        let least = if work == Work::Memory { 20 } else { work.lanes().max(work.nodes() as u64) };
        scaled.clamp(least, work.most())
    }

    /// How long connections are left alone before their memory is read.
    fn idle(self) -> f64 {
        (27.0 * self.factor).clamp(0.05, 9.0)
    }
}

/// Runs it, and gives what the program reported.
pub(crate) async fn once(programs: &Programs, entry: Entry, scale: Scale) -> Outcome<Report> {
    let outcome = match entry.work {
        Work::Memory => memory(programs, entry, scale).await,
        Work::Start => start(programs, entry, scale).await,
        work => {
            let server = serve(programs, entry, work.nodes()).await?;
            drive(programs, entry, scale, &server).await.map(|(report, _)| report)
        }
    };
    outcome.map_err(|error| format!("{} of {}: {error}", entry.work, entry.label()).into())
}

pub(super) async fn serve(programs: &Programs, entry: Entry, nodes: usize) -> Outcome<Server> {
    let mut command = programs.command(entry.peer);
    command.args(["serve", "--form", entry.form, "--nodes", &nodes.to_string()]);
    Server::start(&mut command).await
}

/// Starts the client; its report, and the time from its start to that.
async fn drive(
    programs: &Programs,
    entry: Entry,
    scale: Scale,
    server: &Server,
) -> Outcome<(Report, Duration)> {
    let mut command = programs.command(entry.peer);
    command.args(["drive", "-", &entry.work.name(), "--form", entry.form]);
    command.args(["--amount", &scale.amount(entry.work).to_string()]);
    command.args(["--server-pid", &server.pid().to_string()]);
    command.args(["--idle", &scale.idle().to_string()]);
    command.args(["--deadline", &DEADLINE.as_secs_f64().to_string()]);
    if entry.joined {
        command.arg("--joined");
    }
    let (line, took) = answer(&mut command, &server.address).await?;
    let report = serde_json::from_str(&line).map_err(|error| format!("its report {line:?}: {error}"))?;
    Ok((report, took))
}

/// Starts a program that reads one line and prints one; the line, and the time from the start to that.
pub(super) async fn answer(command: &mut Command, input: &str) -> Outcome<(String, Duration)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let begin = Instant::now();
    let mut process = command.spawn()?;
    let (Some(mut stdin), Some(stdout), Some(mut stderr)) =
        (process.stdin.take(), process.stdout.take(), process.stderr.take())
    else {
        return Err("a program without standard input, output or error".into());
    };
    let talk = async {
        let (mut line, mut complaint) = (String::new(), String::new());
        let mut stdout = BufReader::new(stdout);
        let say = async {
            stdin.write_all(format!("{input}\n").as_bytes()).await?;
            stdout.read_line(&mut line).await?;
            Ok::<_, std::io::Error>(begin.elapsed())
        };
        let (took, _) = tokio::join!(say, stderr.read_to_string(&mut complaint));
        match process.wait().await?.success() {
            true => Ok((line.trim().to_owned(), took?)),
            false => Err(complaint.trim().trim_start_matches("error: ").to_owned().into()),
        }
    };
    let late = |_| format!("it did not end within {:?}", DEADLINE + GRACE);
    tokio::time::timeout(DEADLINE + GRACE, talk).await.map_err(late)?
}

/// From the start of the process, as whoever started it sees it, to the first answer.
async fn start(programs: &Programs, entry: Entry, scale: Scale) -> Outcome<Report> {
    let server = serve(programs, entry, 1).await?;
    let mut runs = Vec::new();
    for _ in 0..STARTS {
        runs.push(drive(programs, entry, scale, &server).await?);
    }
    runs.sort_by_key(|(_, took)| *took);
    let (mut report, took) = runs.swap_remove(STARTS / 2);
    if let Ended::Done(done) = &mut report.ended {
        done.seconds = took.as_secs_f64();
    }
    Ok(report)
}

/// Many clients to one server, then one client to many servers, where one run cannot tell both sides.
async fn memory(programs: &Programs, entry: Entry, scale: Scale) -> Outcome<Report> {
    let server = serve(programs, entry, 1).await?;
    let (mut report, _) = drive(programs, entry, scale, &server).await?;
    drop(server);
    if sides(&report).is_some_and(|sides| sides.client_bytes.is_none()) {
        let nodes = FIRST_CONNECTIONS + scale.amount(entry.work) as usize;
        let servers = serve(programs, entry, nodes).await?;
        let (other, _) = drive(programs, entry, scale, &servers).await?;
        if let (Ended::Done(done), Some(other)) = (&mut report.ended, sides(&other))
            && let Some(memory) = &mut done.memory
        {
            memory.client_bytes = other.client_bytes;
        }
    }
    Ok(report)
}

fn sides(report: &Report) -> Option<Memory> {
    report.done().and_then(|done: &Done| done.memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_small_the_scale_every_lane_and_every_peer_has_something_to_do() {
        let tiny = Scale { factor: 1e-9 };
        assert_eq!((tiny.amount(Work::Rpc64), tiny.amount(Work::Fanout)), (64, 50));
        assert_eq!(Scale { factor: 1.0 }.amount(Work::Bulk1), 2 << 30);
        assert!(Scale { factor: 1e9 }.amount(Work::Bulk1) <= Work::Bulk1.most());
        assert!((Scale { factor: 1.0 }.idle() - 9.0).abs() < 1e-9);
    }

    #[tokio::test]
    async fn what_a_program_complains_of_is_the_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "read line; echo error: no \"$line\" >&2; exit 3"]);
        let error = answer(&mut command, "luck").await.map_err(|error| error.to_string());
        assert_eq!(error, Err("no luck".to_owned()));
    }
}
