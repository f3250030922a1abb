//! The steps of the demo; those with more to them are in [`refusal`](super::refusal), [`resolve`](super::resolve) and [`restart`](super::restart).
//! Each waits for what the nodes themselves tell, up to a deadline, and names the node that lacked something.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::member::{Member, Plan, Seen, Waited};
use super::show::Show;
use super::{Fault, Fleet, IDLE_TIMEOUT};
use crate::args::DhtMode;
use crate::control::{Answer, Command, Echo, FileReport, PeerRow, millis};
use crate::term::{ms, rate, right, size, table};
use crate::transfer::source::Source;

/// One step, for people and for programs.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) number: u8,
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) action: Action,
}

/// What a step does.
#[derive(Debug)]
pub(super) enum Action {
    Connect,
    File,
    Talk,
    Refusal,
    Resolve,
    Restart,
    Stop,
}

/// All steps, in order.
pub(super) const STEPS: &[Step] = &[
    Step {
        number: 1,
        name: "connect",
        title: "The nodes find one another by peer exchange and connect",
        action: Action::Connect,
    },
    Step {
        number: 2,
        name: "file",
        title: "A file goes from the last node to every other",
        action: Action::File,
    },
    Step {
        number: 3,
        name: "talk",
        title: "A message is broadcast and answered by every node; a request gets its answer",
        action: Action::Talk,
    },
    Step {
        number: 4,
        name: "refusal",
        title: "A newcomer dials a node that is full; it is told of others and joins one of them",
        action: Action::Refusal,
    },
    Step {
        number: 5,
        name: "resolve",
        title: "A node that never met a publisher finds it by its peer ID, through the DHT, and sends it a message",
        action: Action::Resolve,
    },
    Step {
        number: 6,
        name: "restart",
        title: "A node is killed; the others report it, one of them redials it when it is back, and one tells why",
        action: Action::Restart,
    },
    Step { number: 7, name: "stop", title: "All stop cleanly", action: Action::Stop },
];

/// What came of a step.
#[derive(Debug)]
pub(super) struct Done {
    /// In a few words.
    pub(super) result: String,
    /// For programs.
    pub(super) facts: Value,
}

/// A node listens after so long.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(30);
/// All are connected after this …
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// … and so much more for each node.
const CONNECT_DEADLINE_PER_NODE: Duration = Duration::from_secs(1);
/// A file that was stored is announced by its receiver within this.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(5);
/// What is said of a node whose process is gone.
pub(super) const ENDED: &str = "its process ended";
/// Overlays up to this size are shown as who is connected to whom.
pub(super) const MAX_MATRIX: usize = 10;

/// Step 1.
pub(super) async fn connect(fleet: &mut Fleet, nodes: usize, show: &Show) -> Result<Done, Fault> {
    let start = Instant::now();
    start_all(fleet, nodes, show).await?;
    let listening = start.elapsed();
    show.say(&format!(
        "   all listen after {}; each but the first knows the address of the first only",
        ms(listening)
    ));
    let deadline =
        start + CONNECT_DEADLINE + CONNECT_DEADLINE_PER_NODE * u32::try_from(nodes).unwrap_or(u32::MAX);
    for index in 0..nodes {
        let waiting = fleet.members[index].wait(deadline, |seen| seen.links.len() >= nodes - 1).await;
        waiting.map_err(|waited| fleet.fault(index, lacking(fleet, index, waited)))?;
    }
    let connected = start.elapsed();
    let mut rows = Vec::new();
    for index in 0..nodes {
        let peers = fleet.members[index].call::<Vec<PeerRow>>(&Command::Peers { ping: true }).await;
        rows.push(peers.map_err(|error| fleet.fault(index, error))?);
    }
    if nodes <= MAX_MATRIX {
        show.say("   who is connected to whom, inbound or outbound for the row's node, with the time of a ping in ms:");
        show.table(&matrix(fleet, &rows));
    } else {
        show.table(&by_node(fleet, &rows));
    }
    let node = |(member, peers): (&Member, &Vec<PeerRow>)| {
        json!({
            "name": member.plan.name, "pid": member.status.pid, "peer_id": member.status.peer_id,
            "address": member.address(), "peers": peers,
        })
    };
    let facts: Vec<_> = fleet.members.iter().zip(&rows).map(node).collect();
    let pairs = nodes * (nodes - 1) / 2;
    Ok(Done {
        result: format!("{nodes} nodes, {pairs} connections, one per pair"),
        facts: json!({ "listening_ms": millis(listening), "connected_ms": millis(connected), "nodes": facts }),
    })
}

async fn start_all(fleet: &mut Fleet, nodes: usize, show: &Show) -> Result<(), Fault> {
    let deadline = Instant::now() + START_DEADLINE;
    for index in 0..nodes {
        let name = format!("node-{}", index + 1);
        let most = u16::try_from(nodes).unwrap_or(u16::MAX);
        // The others fill the first one, which dials nobody: all its places are inbound. Of two it must redial the one that is killed.
        let (max_inbound, max_outbound) = match index {
            0 if nodes > 2 => (most - 1, 0),
            0 => (most - 1, most),
            _ => (most, most),
        };
        let plan = Plan {
            folder: fleet.folder.join(&name),
            name,
            port: 0,
            seed: fleet.members.first().map(|first| first.address().to_owned()),
            max_inbound,
            max_outbound,
            dht: DhtMode::Auto,
        };
        let started = Member::start(plan, IDLE_TIMEOUT);
        fleet.members.push(started.map_err(|error| Fault { message: error, node: None })?);
        if index == 0 {
            ready(fleet, 0, deadline, show).await?;
        }
    }
    for index in 1..nodes {
        ready(fleet, index, deadline, show).await?;
    }
    Ok(())
}

/// Waits until a node listens, and shows where.
pub(super) async fn ready(
    fleet: &mut Fleet,
    index: usize,
    deadline: Instant,
    show: &Show,
) -> Result<(), Fault> {
    let member = &mut fleet.members[index];
    if let Err(error) = member.ready(deadline).await {
        return Err(fleet.fault(index, error));
    }
    show.say(&format!(
        "   {} (process {}) listens at {}",
        member.plan.name,
        member.status.pid,
        member.address()
    ));
    Ok(())
}

/// Step 2.
pub(super) async fn file(
    fleet: &Fleet,
    (path, source): &(PathBuf, Source),
    show: &Show,
) -> Result<Done, Fault> {
    let sender = fleet.members.len() - 1;
    let expected = source.sum().to_string();
    show.say(&format!("   {}, {}, SHA-256 {expected}", path.display(), size(source.size())));
    let mut shown = table(&["from", "to", "time", "MiB/s", "SHA-256 on the far side"]);
    let mut facts = Vec::new();
    let mut rates = Vec::new();
    for (receiver, member) in fleet.members.iter().enumerate().filter(|(index, _)| *index != sender) {
        let (from, to) = (&fleet.members[sender], &member.plan.name);
        let meter = show.meter(&format!("   {} → {to}", from.plan.name));
        let command = Command::SendFile { peer: member.status.peer_id.clone(), path: path.clone() };
        let report = from.call_showing::<FileReport>(&command, |progress| meter.show(progress)).await;
        drop(meter);
        let report = report.map_err(|error| fleet.fault(sender, format!("sending to {to}: {error}")))?;
        let their_sum = announced(fleet, receiver, &report.stored_as).await?;
        if their_sum != expected {
            return Err(fleet.fault(receiver, format!("it has SHA-256 {their_sum}, not {expected}")));
        }
        let time = Duration::from_secs_f64(report.ms / 1e3);
        let speed = rate(report.moved, time);
        rates.push(speed);
        shown.add_row([
            from.plan.name.clone(),
            to.clone(),
            ms(time),
            format!("{speed:.1}"),
            format!("{} the same", source.sum().short()),
        ]);
        facts.push(json!({
            "to": to, "ms": report.ms, "mib_per_s": speed, "sha256": their_sum, "stored_as": report.stored_as,
        }));
    }
    right(&mut shown, &[2, 3]);
    show.table(&shown);
    let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    Ok(Done {
        result: format!(
            "{} to {} nodes, {mean:.0} MiB/s on average, every sum compared",
            size(source.size()),
            rates.len()
        ),
        facts: json!({ "path": path, "bytes": source.size(), "sha256": expected, "transfers": facts }),
    })
}

/// The sum that a receiver computed of a file that it stored.
async fn announced(fleet: &Fleet, receiver: usize, name: &str) -> Result<String, Fault> {
    let member = &fleet.members[receiver];
    let find =
        |seen: &Seen| seen.files.iter().rev().find(|(file, _)| file == name).map(|(_, sum)| sum.clone());
    let waiting = member.wait(Instant::now() + ANNOUNCE_DEADLINE, |seen| find(seen).is_some()).await;
    let missing = || fleet.fault(receiver, format!("it did not say that it has the file {name:?}"));
    waiting.map_err(|_| missing())?;
    find(&member.seen()).ok_or_else(missing)
}

/// Step 3.
pub(super) async fn talk(fleet: &Fleet, show: &Show) -> Result<Done, Fault> {
    let (first, last) = (&fleet.members[0], &fleet.members[fleet.members.len() - 1]);
    let command = Command::Broadcast { text: "who is there?".to_owned(), to: None };
    let answers: Vec<Answer> = first.call(&command).await.map_err(|error| fleet.fault(0, error))?;
    let mut shown = table(&["broadcast by", "answered by", "after"]);
    let mut answered = BTreeSet::new();
    for Answer { peer, ms, error } in &answers {
        let Some(index) = fleet.find(peer) else { continue };
        match (ms, error) {
            (Some(_), None) => answered.insert(index),
            (_, error) => {
                let error = error.as_deref().unwrap_or("no reason given");
                return Err(fleet.fault(index, format!("it did not answer the broadcast: {error}")));
            }
        };
        let name = fleet.members[index].plan.name.clone();
        shown.add_row([first.plan.name.clone(), name, format!("{:.2} ms", ms.unwrap_or_default())]);
    }
    if let Some(silent) = (1..fleet.members.len()).find(|index| !answered.contains(index)) {
        return Err(fleet.fault(silent, "the broadcast was not sent to it"));
    }
    right(&mut shown, &[2]);
    show.table(&shown);

    let command = Command::Request { peer: last.status.peer_id.clone(), text: "say this back".to_owned() };
    let echo: Echo = first.call(&command).await.map_err(|error| fleet.fault(0, error))?;
    if (echo.text.as_str(), echo.moniker.as_str()) != ("say this back", last.plan.name.as_str()) {
        return Err(
            fleet.fault(fleet.members.len() - 1, format!("it answered {:?} to the request", echo.text))
        );
    }
    show.say(&format!(
        "   {} asked {}, which answered after {:.2} ms",
        first.plan.name, echo.moniker, echo.ms
    ));
    let slowest = answers.iter().filter_map(|answer| answer.ms).fold(0.0, f64::max);
    Ok(Done {
        result: format!("{} answers within {slowest:.2} ms, a request in {:.2} ms", answered.len(), echo.ms),
        facts: json!({ "answers": answers, "request": { "to": last.plan.name, "ms": echo.ms } }),
    })
}

/// Stops the node that was started last, which is none of the overlay's own.
pub(super) async fn stop_last(fleet: &mut Fleet) -> Result<(), Fault> {
    let last = fleet.members.len() - 1;
    let asked = fleet.members[last].call::<Value>(&Command::Stop).await;
    asked.map_err(|error| fleet.fault(last, error))?;
    if let Err(error) = fleet.members[last].ended().await {
        return Err(fleet.fault(last, error));
    }
    fleet.members.pop();
    Ok(())
}

/// Step 7.
pub(super) async fn stop(fleet: &mut Fleet) -> Result<Done, Fault> {
    for index in 0..fleet.members.len() {
        let asked = fleet.members[index].call::<Value>(&Command::Stop).await;
        asked.map_err(|error| fleet.fault(index, error))?;
    }
    for index in 0..fleet.members.len() {
        if let Err(error) = fleet.members[index].ended().await {
            return Err(fleet.fault(index, error));
        }
    }
    Ok(Done { result: format!("{} processes ended with exit code 0", fleet.members.len()), facts: json!({}) })
}

/// Step 7 with `--keep`.
pub(super) async fn keep(fleet: &mut Fleet, show: &Show) -> Result<Done, Fault> {
    let mut shown = table(&["node", "process", "address"]);
    let mut facts = Vec::new();
    for index in 0..fleet.members.len() {
        let asked = fleet.members[index].call::<Value>(&Command::Detach).await;
        asked.map_err(|error| fleet.fault(index, error))?;
        let member = &fleet.members[index];
        shown.add_row([&member.plan.name, &member.status.pid.to_string(), member.address()]);
        facts
            .push(json!({ "name": member.plan.name, "pid": member.status.pid, "address": member.address() }));
    }
    let pids: Vec<_> = fleet.members.iter().map(|member| member.status.pid.to_string()).collect();
    let command = format!("kill {}", pids.join(" "));
    fleet.members.iter_mut().for_each(Member::release);
    show.say("   they keep running instead (--keep):");
    show.table(&shown);
    show.say(&format!("   data, inboxes and logs are in {}", fleet.folder.display()));
    show.say(&format!("   this command stops them all:\n\n{command}\n"));
    Ok(Done {
        result: "left running".to_owned(),
        facts: json!({ "kept": facts, "folder": fleet.folder, "stop_command": command }),
    })
}

/// What a node that is not connected to all others lacks.
fn lacking(fleet: &Fleet, index: usize, waited: Waited) -> String {
    if waited == Waited::Ended {
        return ENDED.to_owned();
    }
    let seen = fleet.members[index].seen();
    let others = fleet.members.iter().enumerate().filter(|(other, _)| *other != index);
    let missing: Vec<_> = others
        .filter(|(_, other)| !seen.links.contains_key(&other.status.peer_id))
        .map(|(_, other)| other.plan.name.as_str())
        .collect();
    let hint = seen
        .failed_dial
        .as_ref()
        .map(|failed| format!("; its last failed dial: {failed}"))
        .unwrap_or_default();
    format!("it is not connected to {}{hint}", missing.join(", "))
}

/// Who is connected to whom: the row's side of each connection.
fn matrix(fleet: &Fleet, rows: &[Vec<PeerRow>]) -> Table {
    let names: Vec<_> = fleet.members.iter().map(|member| member.plan.name.as_str()).collect();
    let mut shown = table(&[&[""], names.as_slice()].concat());
    for (member, peers) in fleet.members.iter().zip(rows) {
        let cell = |other: &Member| {
            let peer = peers.iter().find(|peer| peer.peer == other.status.peer_id);
            peer.map_or("·".to_owned(), |peer| {
                format!("{} {:.2}", peer.direction.trim_end_matches("bound"), round_trip(peer))
            })
        };
        shown.add_row(std::iter::once(member.plan.name.clone()).chain(fleet.members.iter().map(cell)));
    }
    shown
}

/// How each node is connected, for overlays where the matrix would be too wide.
fn by_node(fleet: &Fleet, rows: &[Vec<PeerRow>]) -> Table {
    let mut shown = table(&["node", "port", "inbound", "outbound", "ping min", "median", "max"]);
    for (member, peers) in fleet.members.iter().zip(rows) {
        let count = |direction| peers.iter().filter(|peer| peer.direction == direction).count().to_string();
        let mut times: Vec<_> = peers.iter().map(round_trip).collect();
        times.sort_by(f64::total_cmp);
        let time = |index: usize| times.get(index).map_or(String::new(), |time| format!("{time:.2} ms"));
        let (middle, last) = (times.len() / 2, times.len().saturating_sub(1));
        let (inbound, outbound) = (count("inbound"), count("outbound"));
        let port = member.port().to_string();
        shown.add_row([&member.plan.name, &port, &inbound, &outbound, &time(0), &time(middle), &time(last)]);
    }
    right(&mut shown, &[1, 2, 3, 4, 5, 6]);
    shown
}

/// In milliseconds, as the ping measured it, or QUIC when there was none.
fn round_trip(peer: &PeerRow) -> f64 {
    peer.ping_ms.unwrap_or(peer.rtt_ms)
}
