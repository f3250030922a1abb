//! Runs every work on every peer, interleaved, and prints the table.

use std::future::Future;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use futures::{StreamExt, TryStreamExt};

use crate::child::Server;
use crate::{Outcome, PeerKind, cpu, ours, raw};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Counted rounds; one more before them warms up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    reps: u32,
    /// MiB of one bulk transfer.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=16_384))]
    mib: u64,
    /// Thousands of messages in one run.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    kilo_messages: u64,
    /// Thousands of requests in one run.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    kilo_requests: u64,
    /// Only these works; all when none is named.
    #[arg(long, value_name = "WORK")]
    only: Vec<String>,
}

/// One figure of one peer, over all rounds.
struct Row {
    work: &'static str,
    peer: String,
    unit: &'static str,
    /// More is better.
    rates: Vec<f64>,
    /// CPU seconds of both processes per GiB or per million messages.
    cpu: Vec<f64>,
}

#[derive(Clone, Copy)]
enum Work {
    Bulk,
    Messages { joined: bool },
    Requests { parallel: usize },
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::Bulk => "bulk-1",
            Work::Messages { .. } => "msgs-64",
            Work::Requests { parallel: 1 } => "rpc-1",
            Work::Requests { .. } => "rpc-64",
        }
    }
}

pub(crate) async fn run(options: Options) -> Outcome<()> {
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..=options.reps {
        eprintln!("round {round} of {} {}", options.reps, if round == 0 { "(warm-up)" } else { "" });
        for peer in PeerKind::ALL {
            let wanted =
                |work: &Work| options.only.is_empty() || options.only.iter().any(|name| name == work.name());
            for work in works(peer).into_iter().filter(wanted) {
                let (took, busy) = once(peer, work, &options).await?;
                if round > 0 {
                    note(&mut rows, peer, work, &options, took, busy);
                }
            }
        }
    }
    print(&rows);
    Ok(())
}

fn works(peer: PeerKind) -> Vec<Work> {
    let mut works = vec![Work::Bulk];
    if peer == PeerKind::RawQuinn {
        works.push(Work::Messages { joined: false });
    }
    works.push(Work::Messages { joined: true });
    works.extend([1, 64].map(|parallel| Work::Requests { parallel }));
    works
}

/// One run with a fresh server and a fresh connection: the time it took, for requests one by one the median time of one, and the processor time of
/// both sides.
async fn once(peer: PeerKind, work: Work, options: &Options) -> Outcome<(Duration, Duration)> {
    let server = Server::start(peer).await?;
    let (bytes, count) = (options.mib << 20, options.kilo_messages * 1000);
    let requests = options.kilo_requests as usize * 1000;
    let pids = [server.pid(), std::process::id()];
    let busy = || pids.iter().map(|pid| cpu::used_by(*pid)).sum::<Duration>();
    if peer == PeerKind::Ours {
        let mut client = ours::Client::connect(&server.address).await?;
        let before = busy();
        let took = match work {
            Work::Bulk => client.bulk(bytes).await?,
            Work::Messages { .. } => client.messages(count).await?,
            Work::Requests { parallel } => timed(requests, parallel, || client.request()).await?,
        };
        let used = busy() - before;
        client.close().await;
        return Ok((took, used));
    }
    let client = raw::Client::connect(&server.address, peer == PeerKind::RawQuinnTuned).await?;
    let before = busy();
    let took = match work {
        Work::Bulk => client.bulk(bytes).await?,
        Work::Messages { joined } => client.messages(count, joined).await?,
        Work::Requests { parallel } => timed(requests, parallel, || client.request()).await?,
    };
    Ok((took, busy() - before))
}

/// Does `count` requests, so many at a time. The time of all, or the median time of one when they go one by one.
async fn timed<F: Future<Output = Outcome<()>>>(
    count: usize,
    parallel: usize,
    request: impl Fn() -> F,
) -> Outcome<Duration> {
    let start = Instant::now();
    let one = || async {
        let start = Instant::now();
        request().await.map(|()| start.elapsed())
    };
    let answers = futures::stream::iter(0..count).map(|_| one()).buffer_unordered(parallel);
    let mut times: Vec<Duration> = answers.try_collect().await?;
    times.sort_unstable();
    Ok(if parallel == 1 { times[count / 2] } else { start.elapsed() })
}

fn note(rows: &mut Vec<Row>, peer: PeerKind, work: Work, options: &Options, took: Duration, busy: Duration) {
    let name = match (peer, work) {
        (PeerKind::Ours, _) | (_, Work::Bulk | Work::Requests { .. }) => peer.name().to_owned(),
        (_, Work::Messages { joined: true }) => format!("{}, joined", peer.name()),
        (_, Work::Messages { joined: false }) => format!("{}, one write each", peer.name()),
    };
    let (unit, amount, per) = match work {
        Work::Bulk => ("MiB/s", options.mib as f64, 1024.0),
        Work::Messages { .. } => ("thousand/s", options.kilo_messages as f64, 1000.0),
        Work::Requests { parallel: 1 } => ("µs, less is better", options.kilo_requests as f64, 1000.0),
        Work::Requests { .. } => ("thousand/s", options.kilo_requests as f64, 1000.0),
    };
    let rate = match work {
        Work::Requests { parallel: 1 } => took.as_secs_f64() * 1e6,
        _ => amount / took.as_secs_f64(),
    };
    let cpu = busy.as_secs_f64() / (amount / per);
    match rows.iter_mut().find(|row| row.work == work.name() && row.peer == name) {
        Some(row) => {
            row.rates.push(rate);
            row.cpu.push(cpu);
        }
        None => {
            rows.push(Row { work: work.name(), peer: name, unit, rates: vec![rate], cpu: vec![cpu] });
        }
    }
}

fn print(rows: &[Row]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "work",
        "peer",
        "median",
        "min–max",
        "unit",
        "ratio to raw quinn",
        "CPU s per GiB | million",
    ]);
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|row| row.work);
    for row in sorted {
        let base = rows.iter().find(|other| other.work == row.work).map_or(&row.rates, |other| &other.rates);
        let ratios: Vec<f64> = row.rates.iter().zip(base).map(|(rate, base)| rate / base).collect();
        let (low, high) = row.rates.iter().fold((f64::MAX, 0.0f64), |(l, h), r| (l.min(*r), h.max(*r)));
        table.add_row([
            row.work.to_owned(),
            row.peer.clone(),
            format!("{:.0}", median(&row.rates)),
            format!("{low:.0}–{high:.0}"),
            row.unit.to_owned(),
            format!("{:.2}", median(&ratios)),
            format!("{:.2}", median(&row.cpu)),
        ]);
    }
    for column in [2, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}
