//! Step 4: a full node turns a newcomer away and names others, and the newcomer joins one of them.
//!
//! The newcomer is a process beside the overlay's own. It knows nobody, and is told to dial the first node, which has as many inbound places
//! as there are others. It wants one connection, and is stopped at the end of the step.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::member::{Member, Plan, Refusal, Waited};
use super::show::Show;
use super::steps::{Done, ENDED, START_DEADLINE, ready, stop_last};
use super::{Fault, Fleet, IDLE_TIMEOUT, story};
use crate::args::DhtMode;
use crate::control::{Command, ConnectReport, millis};
use crate::term::ms;

/// The newcomer is turned away, and then joins another node, within this from its dial.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
const NOT_ADMITTED: &str = "none of those that were named has admitted it";
/// The node that is full.
const FULL: usize = 0;

/// Step 4.
pub(super) async fn refusal(fleet: &mut Fleet, show: &Show) -> Result<Done, Fault> {
    let newcomer = start_newcomer(fleet, show).await?;
    let full = fleet.members[FULL].plan.name.clone();

    let dialled = Instant::now();
    let refusal = refused(fleet, newcomer, dialled + JOIN_DEADLINE).await?;
    let (refused, reason) = (refusal.at.saturating_duration_since(dialled), refusal.reason.clone());
    let alternatives: Vec<_> =
        refusal.alternatives.iter().map(|peer| fleet.name_of(peer).to_owned()).collect();
    show.say(&format!(
        "   {full}, whose inbound places ({}) are all taken, refused it ({reason}) {} after its dial",
        fleet.members[FULL].plan.max_inbound,
        ms(refused)
    ));
    show.say(&format!("   and named {} to try instead: {}", alternatives.len(), alternatives.join(", ")));
    let why = story::ask(fleet, newcomer, &refusal.by, show).await?;

    let (joined, after) = joined(fleet, newcomer, &refusal, dialled + JOIN_DEADLINE).await?;
    show.say(&format!("   it dialled {joined}, which admitted it {} after the refusal", ms(after)));
    stop_last(fleet).await?;
    Ok(Done {
        result: format!(
            "refused by {full}, {} named, admitted by {joined} {} later",
            alternatives.len(),
            ms(after)
        ),
        facts: json!({
            "refused_by": full, "reason": reason, "refused_ms": millis(refused), "alternatives": alternatives,
            "joined": joined, "joined_ms": millis(after), "why": why,
        }),
    })
}

async fn start_newcomer(fleet: &mut Fleet, show: &Show) -> Result<usize, Fault> {
    let newcomer = fleet.members.len();
    let name = "newcomer".to_owned();
    let plan = Plan {
        folder: fleet.folder.join(&name),
        name,
        port: 0,
        seed: None,
        // One connection is enough to show, and nobody else has to take note of it.
        max_inbound: 0,
        max_outbound: 1,
        dht: DhtMode::Auto,
    };
    let started = Member::start(plan, IDLE_TIMEOUT).map_err(|message| Fault { message, node: None })?;
    fleet.members.push(started);
    ready(fleet, newcomer, Instant::now() + START_DEADLINE, show).await?;
    Ok(newcomer)
}

/// Has the newcomer dial the full node, and says how that one turned it away.
async fn refused(fleet: &Fleet, newcomer: usize, deadline: Instant) -> Result<Refusal, Fault> {
    let (full, member) = (&fleet.members[FULL], &fleet.members[newcomer]);
    let command = Command::Connect { address: full.address().to_owned() };
    let Err(error) = member.call::<ConnectReport>(&command).await else {
        return Err(fleet.fault(FULL, "it had a place for the newcomer, where all should have been taken"));
    };
    let told = member.wait(deadline, |seen| !seen.refusals.is_empty()).await;
    let refusal = member.seen().refusals.first().cloned();
    let Some(refusal) = refusal else {
        let what = if told == Err(Waited::Ended) { ENDED } else { &error };
        return Err(fleet.fault(newcomer, what));
    };
    if refusal.by != full.status.peer_id || refusal.reason != "full" {
        let (by, reason) = (fleet.name_of(&refusal.by), &refusal.reason);
        return Err(fleet.fault(newcomer, format!("it was refused by {by}, with the reason {reason}")));
    }
    if refusal.alternatives.is_empty() {
        return Err(fleet.fault(FULL, "it named nobody to try instead"));
    }
    Ok(refusal)
}

/// Which of those that were named has admitted the newcomer, and how long after the refusal.
async fn joined(
    fleet: &Fleet,
    newcomer: usize,
    refusal: &Refusal,
    deadline: Instant,
) -> Result<(String, Duration), Fault> {
    let member = &fleet.members[newcomer];
    if let Err(waited) = member.wait(deadline, |seen| !seen.came.is_empty()).await {
        return Err(fleet.fault(newcomer, if waited == Waited::Ended { ENDED } else { NOT_ADMITTED }));
    }
    let came = member.seen().came.first().cloned();
    match came {
        Some((at, peer, _)) if refusal.alternatives.contains(&peer) => {
            Ok((fleet.name_of(&peer).to_owned(), at.saturating_duration_since(refusal.at)))
        }
        Some((_, peer, _)) => {
            let message = format!("it is connected to {}, which was not named", fleet.name_of(&peer));
            Err(fleet.fault(newcomer, message))
        }
        None => Err(fleet.fault(newcomer, NOT_ADMITTED)),
    }
}
