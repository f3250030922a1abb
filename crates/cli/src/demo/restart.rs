//! Step 6: a node is killed; the others report it, one of them redials it when it is back, and one tells why it was gone.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::Table;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::member::{Member, Seen, Waited};
use super::show::Show;
use super::steps::{Done, ENDED, MAX_MATRIX};
use super::{Fault, Fleet, IDLE_TIMEOUT, story};
use crate::args::DhtMode;
use crate::control::{Answer, Command, millis};
use crate::term::{ms, one_line, right, table};

/// A loss is reported within the idle time and this.
const LOSS_DEADLINE: Duration = Duration::from_secs(10);
/// A message reaches a node that came back within this, from its start.
const RETURN_DEADLINE: Duration = Duration::from_secs(5);
/// A node that is started listens after about this; only what is shown depends on it.
const TIME_TO_START: Duration = Duration::from_millis(200);
/// The node that tells the story has redialled it within this, from its start: a dial that was under way may end first.
const STORY_DEADLINE: Duration = Duration::from_secs(20);
/// A visit that becomes an ordinary connection is no event: the story is asked for anew after this.
const BETWEEN_STORIES: Duration = Duration::from_millis(100);

/// What one node reported of the loss.
#[derive(Debug)]
struct Loss {
    node: usize,
    name: String,
    after: Duration,
    cause: String,
    redial: Option<Duration>,
}

/// Step 6.
pub(super) async fn restart(fleet: &mut Fleet, show: &Show) -> Result<Done, Fault> {
    let victim = fleet.members.len() - 1;
    let name = fleet.members[victim].plan.name.clone();
    let peer = fleet.members[victim].status.peer_id.clone();
    let killed = Instant::now();
    fleet.members[victim].kill().await;
    show.say(&format!("   {name} was killed with SIGKILL"));
    let losses = losses(fleet, victim, killed, show).await?;
    let listens = killed.elapsed() + TIME_TO_START;
    let teller = first_to_redial(fleet, &losses, listens).unwrap_or(losses[0].node);
    let lost = story::ask(fleet, teller, &peer, show).await?;

    let restarted = Instant::now();
    bring_back(fleet, victim, restarted + RETURN_DEADLINE, show).await?;
    let (redialler, redialled) = redialled(fleet, victim, restarted).await?;
    let by = fleet.members[redialler].plan.name.clone();
    show.say(&format!("   {by} redialled it {} after its restart", ms(redialled)));
    let reached = welcome(fleet, redialler, victim, restarted).await?;
    show.say(&format!("   a message from {by} reached it {} after its restart", ms(reached)));
    let back = told_of_return(fleet, teller, victim, restarted, show).await?;

    let fact = |loss: &Loss| {
        let redial = loss.redial.map(millis);
        json!({ "node": loss.name, "after_ms": millis(loss.after), "cause": loss.cause, "redial_ms": redial })
    };
    let losses: Vec<_> = losses.iter().map(fact).collect();
    Ok(Done {
        result: format!("redialled after {}, message after {}", ms(redialled), ms(reached)),
        facts: json!({
            "killed": name, "losses": losses, "redialled_by": by,
            "redial_ms": millis(redialled), "message_ms": millis(reached),
            "why": { "asked": fleet.members[teller].plan.name, "lost": lost, "back": back },
        }),
    })
}

/// Waits until every node but the victim has reported the loss, and shows each cause.
async fn losses(fleet: &Fleet, victim: usize, killed: Instant, show: &Show) -> Result<Vec<Loss>, Fault> {
    let peer = &fleet.members[victim].status.peer_id;
    let find = |seen: &Seen| seen.gone.iter().find(|gone| gone.peer == *peer && gone.at >= killed).cloned();
    let deadline = killed + IDLE_TIMEOUT + LOSS_DEADLINE;
    let mut all = Vec::new();
    for (node, member) in fleet.members.iter().enumerate().filter(|(index, _)| *index != victim) {
        let waiting = member.wait(deadline, |seen| find(seen).is_some()).await;
        let missing = || fleet.fault(node, format!("it did not report the loss of {}", fleet.name_of(peer)));
        waiting
            .map_err(|waited| if waited == Waited::Ended { fleet.fault(node, ENDED) } else { missing() })?;
        let gone = find(&member.seen()).ok_or_else(missing)?;
        let (after, cause) = (gone.at - killed, one_line(&gone.cause));
        all.push(Loss { node, name: member.plan.name.clone(), after, cause, redial: gone.redial });
    }
    show.table(&if all.len() < MAX_MATRIX { losses_by_node(&all) } else { losses_by_cause(&all) });
    Ok(all)
}

/// Whose story of the victim changes soonest: the node that means to redial it first once it is back. A dial that begins before that is lost,
/// and tried again only seconds later.
fn first_to_redial(fleet: &Fleet, losses: &[Loss], back: Duration) -> Option<usize> {
    let dials = |loss: &&Loss| fleet.members[loss.node].plan.max_outbound > 0;
    let due = |loss: &Loss| Some((loss.after + loss.redial?, loss.node));
    let due = losses.iter().filter(dials).filter_map(due);
    due.min_by_key(|(due, node)| (*due < back, *due, *node)).map(|(_, node)| node)
}

/// Starts the victim again. It knows nobody and dials nobody: only another node's redial can connect it.
async fn bring_back(fleet: &mut Fleet, victim: usize, deadline: Instant, show: &Show) -> Result<(), Fault> {
    let mut plan = fleet.members[victim].plan.clone();
    (plan.port, plan.seed, plan.max_outbound) = (fleet.members[victim].port(), None, 0);
    // The DHT would visit whom its address book names.
    plan.dht = DhtMode::Off;
    match Member::start(plan, IDLE_TIMEOUT) {
        Ok(member) => fleet.members[victim] = member,
        Err(error) => return Err(fleet.fault(victim, error)),
    }
    if let Err(error) = fleet.members[victim].ready(deadline).await {
        return Err(fleet.fault(victim, error));
    }
    let name = &fleet.members[victim].plan.name;
    show.say(&format!("   {name} runs again, with the same key and port, without a seed"));
    Ok(())
}

/// Who redialled the restarted node, and how long after its restart.
async fn redialled(fleet: &Fleet, victim: usize, restarted: Instant) -> Result<(usize, Duration), Fault> {
    let deadline = restarted + RETURN_DEADLINE;
    let limit = RETURN_DEADLINE.as_secs();
    let member = &fleet.members[victim];
    let find = |seen: &Seen| {
        let came = seen.came.iter().find(|(_, _, direction)| direction == "inbound");
        came.map(|(at, peer, _)| (*at - restarted, peer.clone()))
    };
    if member.wait(deadline, |seen| find(seen).is_some()).await.is_err() {
        let other = fleet.members[0].seen().failed_dial.clone();
        let hint =
            other.map(|failed| format!("; the last failed dial of node-1: {failed}")).unwrap_or_default();
        return Err(fleet.fault(victim, format!("nobody redialled it within {limit} s of its restart{hint}")));
    }
    let found = find(&member.seen());
    let found = found.and_then(|(after, peer)| Some((fleet.find(&peer)?, after)));
    let (redialler, after) = found.ok_or_else(|| fleet.fault(victim, "a stranger connected to it"))?;
    // The redialling side may admit it a moment later.
    let peer = &member.status.peer_id;
    let back = |seen: &Seen| seen.links.contains_key(peer);
    if fleet.members[redialler].wait(deadline, back).await.is_err() {
        return Err(
            fleet.fault(redialler, format!("it did not report the connection to {} again", member.plan.name))
        );
    }
    Ok((redialler, after))
}

/// How long after its restart a message reached the victim.
async fn welcome(
    fleet: &Fleet,
    redialler: usize,
    victim: usize,
    restarted: Instant,
) -> Result<Duration, Fault> {
    let member = &fleet.members[victim];
    let to = Some(vec![member.status.peer_id.clone()]);
    let command = Command::Broadcast { text: "welcome back".to_owned(), to };
    let answers: Vec<Answer> =
        fleet.members[redialler].call(&command).await.map_err(|error| fleet.fault(redialler, error))?;
    if let Some(error) = answers.iter().find_map(|answer| answer.error.clone()) {
        return Err(fleet.fault(redialler, format!("its message to {}: {error}", member.plan.name)));
    }
    let reached = restarted.elapsed();
    if reached > RETURN_DEADLINE {
        let limit = RETURN_DEADLINE.as_secs();
        return Err(
            fleet.fault(victim, format!("a message took {} to reach it, more than {limit} s", ms(reached)))
        );
    }
    Ok(reached)
}

/// The story as `teller` has it once it is connected to the victim again, and not for a visit only: its DHT may ask something of the victim before the redial is due.
async fn told_of_return(
    fleet: &Fleet,
    teller: usize,
    victim: usize,
    restarted: Instant,
    show: &Show,
) -> Result<Value, Fault> {
    let Member { status, plan, .. } = &fleet.members[victim];
    let deadline = restarted + STORY_DEADLINE;
    let back = |seen: &Seen| seen.links.contains_key(&status.peer_id);
    loop {
        if let Err(waited) = fleet.members[teller].wait(deadline, back).await {
            let missing = format!("it did not connect to {} again", plan.name);
            return Err(fleet.fault(teller, if waited == Waited::Ended { ENDED } else { &missing }));
        }
        let why = story::told(fleet, teller, &status.peer_id).await?;
        let admitted = why.story["state"] == "connected" && why.story["cause"] == "admitted";
        if admitted || Instant::now() >= deadline {
            return Ok(story::shown(fleet, teller, &status.peer_id, why, show));
        }
        sleep(BETWEEN_STORIES).await;
    }
}

fn losses_by_node(losses: &[Loss]) -> Table {
    let mut shown = table(&["reported by", "after", "cause"]);
    for Loss { name, after, cause, .. } in losses {
        shown.add_row([name, &ms(*after), cause]);
    }
    right(&mut shown, &[1]);
    shown
}

fn losses_by_cause(losses: &[Loss]) -> Table {
    let mut causes: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for Loss { cause, after, .. } in losses {
        causes.entry(cause).or_default().push(*after);
    }
    let mut shown = table(&["reported by", "first after", "last after", "cause"]);
    for (cause, after) in causes {
        let (first, last) = (after.iter().min().copied(), after.iter().max().copied());
        let nodes = format!("{} nodes", after.len());
        shown.add_row([&nodes, &ms(first.unwrap_or_default()), &ms(last.unwrap_or_default()), cause]);
    }
    right(&mut shown, &[1, 2]);
    shown
}
