//! Step 5: a node that never met a publisher finds it by its peer ID, through the DHT, and sends it a message.
//!
//! Both are processes beside the overlay's own. The stranger only asks: it joins the DHT by way of the first node, before there is a publisher, and opens no
//! connection of its own accord. Both are stopped at the end of the step.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::member::{Member, Plan};
use super::show::Show;
use super::steps::{Done, START_DEADLINE, ready, stop_last};
use super::{Fault, Fleet, IDLE_TIMEOUT};
use crate::args::DhtMode;
use crate::control::dht::{DhtAct, DhtOptions, DhtReply, Named, Way};
use crate::control::{Command, ConnectReport, Echo, millis};
use crate::term::ms;

/// The stranger has joined within this, and finds whom it looks for: the publisher has to join, too.
const FIND_DEADLINE: Duration = Duration::from_secs(20);
/// The pause before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const TEXT: &str = "nobody introduced us";

/// Step 5.
pub(super) async fn resolve(fleet: &mut Fleet, show: &Show) -> Result<Done, Fault> {
    let stranger = start(fleet, "stranger", 0, DhtMode::Client, show).await?;
    joined(fleet, stranger).await?;
    let last = fleet.members.len() - 2;
    let publisher = start(fleet, "publisher", last, DhtMode::Auto, show).await?;
    let id = fleet.members[publisher].status.peer_id.clone();
    let began = Instant::now();
    let (way, found) = find(fleet, stranger, &id).await?;
    let addresses = found.addresses.join(", ");
    show.say(&format!(
        "   the stranger, which has met the others and not the publisher, asked {} of them for its peer ID",
        way.asked
    ));
    show.say(&format!("   and was told {addresses} after {:.2} ms", way.ms));
    let echo = write_to(fleet, stranger, publisher).await?;
    let took = began.elapsed();
    show.say(&format!(
        "   it connected to that peer ID, sent a message, and had the answer after {:.2} ms",
        echo.ms
    ));
    stop_last(fleet).await?;
    stop_last(fleet).await?;
    Ok(Done {
        result: format!("the publisher found by its peer ID and written to within {}", ms(took)),
        facts: json!({
            "peer_id": id, "addresses": found.addresses, "asked": way.asked, "hops": way.hops,
            "lookup_ms": way.ms, "request_ms": echo.ms, "all_ms": millis(took),
        }),
    })
}

/// Starts a node that is told the address of another one.
async fn start(
    fleet: &mut Fleet,
    name: &str,
    seed: usize,
    dht: DhtMode,
    show: &Show,
) -> Result<usize, Fault> {
    let index = fleet.members.len();
    // The stranger keeps no connection; the publisher one, as a node of the overlay would.
    let max_outbound = u16::from(dht != DhtMode::Client);
    let plan = Plan {
        folder: fleet.folder.join(name),
        name: name.to_owned(),
        port: 0,
        seed: Some(fleet.members[seed].address().to_owned()),
        max_inbound: 1,
        max_outbound,
        dht,
    };
    let started = Member::start(plan, IDLE_TIMEOUT).map_err(|message| Fault { message, node: None })?;
    fleet.members.push(started);
    ready(fleet, index, Instant::now() + START_DEADLINE, show).await?;
    Ok(index)
}

/// Waits until a node has found its place in the DHT.
async fn joined(fleet: &Fleet, at: usize) -> Result<(), Fault> {
    let deadline = Instant::now() + FIND_DEADLINE;
    loop {
        let reply = ask(fleet, at, DhtAct::Stats).await.map_err(|error| fleet.fault(at, error))?;
        if reply.stats.is_some_and(|stats| stats.joined) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(fleet.fault(at, "it did not join the DHT"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Looks for a peer until it is found.
async fn find(fleet: &Fleet, at: usize, peer: &str) -> Result<(Way, Named), Fault> {
    let deadline = Instant::now() + FIND_DEADLINE;
    loop {
        if fleet.members[at].seen().came.iter().any(|(_, met, _)| met == peer) {
            return Err(fleet.fault(at, "it had met the publisher before it looked for it"));
        }
        let why = match ask(fleet, at, DhtAct::Find { peer: peer.to_owned() }).await {
            Ok(DhtReply { way: Some(way), peers, failed, .. }) => {
                let known = |found: &Named| found.peer == peer && !found.addresses.is_empty();
                match peers.into_iter().flatten().find(known) {
                    Some(found) => return Ok((way, found)),
                    None => failed.unwrap_or_else(|| "it was told no address".to_owned()),
                }
            }
            Ok(reply) => reply.failed.unwrap_or_default(),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(fleet.fault(at, format!("it did not find {}: {why}", fleet.name_of(peer))));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn ask(fleet: &Fleet, at: usize, act: DhtAct) -> Result<DhtReply, String> {
    fleet.members[at].call(&Command::Dht { act, options: DhtOptions::default() }).await
}

/// Connects one node to another by its peer ID alone, and asks it to say something back.
async fn write_to(fleet: &Fleet, from: usize, to: usize) -> Result<Echo, Fault> {
    let Member { plan, status, .. } = &fleet.members[to];
    let member = &fleet.members[from];
    let command = Command::Connect { address: status.peer_id.clone() };
    let report: ConnectReport = member.call(&command).await.map_err(|error| fleet.fault(from, error))?;
    if report.peer != status.peer_id {
        return Err(fleet.fault(from, format!("it reached {} instead", fleet.name_of(&report.peer))));
    }
    let command = Command::Request { peer: status.peer_id.clone(), text: TEXT.to_owned() };
    let echo: Echo = member.call(&command).await.map_err(|error| fleet.fault(from, error))?;
    match (echo.text.as_str(), &echo.moniker) == (TEXT, &plan.name) {
        true => Ok(echo),
        false => Err(fleet.fault(to, format!("it answered {:?}", echo.text))),
    }
}
