//! What an idle connection keeps in memory, on the side that was dialled and on the side that dialled, ours beside bare quinn's.
//!
//! ```text
//! cargo run --release -p peerage-bench --features count-heap -- memory
//! ```
//!
//! A *hub* is the process that is measured. The connections of ours lead to as many nodes with keys of their own, which a second process, the
//! *crowd*, holds: two nodes have one connection. Each connection is admitted and identified both ways, and a channel has carried a message each way. Bare quinn
//! has its default limits and one stream that has carried a message each way; it is measured without keep-alives, as it is by default, and with as many as
//! ours, because each packet that comes in may cost memory. A first lot of connections pays for what a process needs once; the figures
//! are what the connections after it add, when all have been idle for a while. Nothing is trimmed or given back before.

mod crowd;
mod report;

use std::fmt;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::Outcome;
use crate::child::Server;
use crate::table::median;
use peerage_bench_peer::{FIRST_CONNECTIONS as FIRST, resident_bytes};

pub(crate) use crowd::hold;

/// The row that others are compared with.
const BARE: &str = "raw-quinn";
/// Readings of one state, and the time between two; the median counts.
const SAMPLES: u32 = 5;
const BETWEEN: Duration = Duration::from_millis(700);

/// How many, and how to print.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Connections that are counted.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    connections: u32,
    /// Seconds for which they are left alone before their memory is read. Keep-alives go on meanwhile.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=600))]
    idle: u64,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// What a child process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Holder {
    /// One node with many connections.
    Node,
    /// Many nodes with one connection each.
    Crowd,
    /// One quinn endpoint with many connections.
    Quinn,
    /// The same with keep-alives as often as ours.
    QuinnKeptAlive,
}

/// Which side of the connections is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Inbound,
    Outbound,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Inbound => "inbound",
            Side::Outbound => "outbound",
        })
    }
}

/// What connections cost one side of one peer.
struct Row {
    peer: &'static str,
    side: Side,
    /// Bytes of resident memory that each connection added.
    resident: f64,
    /// Bytes of the heap that each connection added, where they are counted.
    heap: Option<f64>,
    /// Bytes of resident memory before the first connection.
    fixed: f64,
}

/// The memory of one process at one moment, in bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    resident: f64,
    heap: Option<f64>,
}

pub(crate) async fn run(options: Options) -> Outcome<()> {
    let (count, idle) = (options.connections as usize, Duration::from_secs(options.idle));
    let mut rows = Vec::new();
    for side in [Side::Inbound, Side::Outbound] {
        eprintln!("{side}: {FIRST} connections of each peer, then {count} more");
        // At the same time: the longest part of it is waiting, and each has processes of its own.
        let (bare, kept_alive, ours) = tokio::try_join!(
            measure(BARE, side, [Holder::Quinn, Holder::Quinn], count, idle),
            measure("raw-quinn, kept alive", side, [Holder::QuinnKeptAlive; 2], count, idle),
            measure("ours", side, [Holder::Node, Holder::Crowd], count, idle),
        )?;
        rows.extend([bare, kept_alive, ours]);
    }
    if options.json {
        report::json(&rows, count)
    } else {
        report::table(&rows, count)
    }
    Ok(())
}

async fn measure(
    peer: &'static str,
    side: Side,
    holders: [Holder; 2],
    count: usize,
    idle: Duration,
) -> Outcome<Row> {
    let name = |holder: Holder| {
        Ok::<_, &str>(holder.to_possible_value().ok_or("a holder has no name")?.get_name().to_owned())
    };
    let mut hub = Server::start_with(&["hold", &name(holders[0])?]).await?;
    let mut crowd = Server::start_with(&["hold", &name(holders[1])?]).await?;
    let fixed = read(&mut hub).await?;
    connect(&mut hub, &mut crowd, side, FIRST).await?;
    let before = settled(&mut hub, idle).await?;
    connect(&mut hub, &mut crowd, side, count).await?;
    let after = settled(&mut hub, idle).await?;
    let each = |after: f64, before: f64| (after - before) / count as f64;
    Ok(Row {
        peer,
        side,
        resident: each(after.resident, before.resident),
        heap: after.heap.zip(before.heap).map(|(after, before)| each(after, before)),
        fixed: fixed.resident,
    })
}

/// Adds connections between hub and crowd, and waits until each has carried what belongs to it.
async fn connect(hub: &mut Server, crowd: &mut Server, side: Side, count: usize) -> Outcome<()> {
    let (listener, dialler) = match side {
        Side::Inbound => (hub, crowd),
        Side::Outbound => (crowd, hub),
    };
    let addresses = listener.ask(&format!("listen {count}")).await?;
    let (dial, expect) = (format!("dial {count} {addresses}"), format!("expect {count}"));
    let (dialled, expected) = tokio::join!(dialler.ask(&dial), listener.ask(&expect));
    match (dialled?.as_str(), expected?.as_str()) {
        ("done", "done") => Ok(()),
        (dialled, expected) => Err(format!("the dialler says {dialled:?}, the listener {expected:?}").into()),
    }
}

/// The memory of a process whose connections have become idle.
async fn settled(hub: &mut Server, idle: Duration) -> Outcome<Memory> {
    tokio::time::sleep(idle).await;
    let (mut resident, mut heap) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        tokio::time::sleep(BETWEEN).await;
        let memory = read(hub).await?;
        resident.push(memory.resident);
        heap.extend(memory.heap);
    }
    let heap = (!heap.is_empty()).then(|| median(&heap));
    Ok(Memory { resident: median(&resident), heap })
}

async fn read(hub: &mut Server) -> Outcome<Memory> {
    let heap = hub.ask("heap").await?.parse().ok();
    Ok(Memory { resident: resident_bytes(hub.pid())? as f64, heap })
}

/// Bytes that are allocated now, where they are counted.
fn heap_bytes() -> Option<usize> {
    #[cfg(feature = "count-heap")]
    return Some(counted::HEAP.allocated());
    #[cfg(not(feature = "count-heap"))]
    None
}

#[cfg(feature = "count-heap")]
mod counted {
    #[global_allocator]
    pub(super) static HEAP: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);
}
