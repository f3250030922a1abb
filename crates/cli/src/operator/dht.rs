//! `peerage dht`: what is asked of the running node, and how its answers are shown.

use serde_json::Value;

use super::show::{Show, read};
use crate::args::{DhtAction, DhtClass, DhtHow, Operator};
use crate::control::Command;
use crate::control::dht::{DhtAct, DhtOptions, DhtReply, Named, StepRow, Way};
use crate::term::{one_line, plain_table, say};

/// The command for what was asked on the command line, and how its reply is shown.
pub(super) fn command(action: DhtAction) -> (Operator, Command, Show) {
    let (how, act, show): (DhtHow, DhtAct, Show) = match action {
        DhtAction::Put { name, value, how } => (how, DhtAct::Put { name, value }, way),
        DhtAction::Get { peer, name, how } => (how, DhtAct::Get { peer: peer.to_string(), name }, found),
        DhtAction::Find { peer, how } => (how, DhtAct::Find { peer: peer.to_string() }, found),
        DhtAction::Provide { key, how } => (how, DhtAct::Provide { key }, way),
        DhtAction::Providers { key, most, how } => (how, DhtAct::Providers { key, most }, found),
        DhtAction::Topic { topic, join: Some(brief), how } => (how, DhtAct::Announce { topic, brief }, way),
        DhtAction::Topic { topic, join: None, how } => (how, DhtAct::Topic { topic }, found),
        DhtAction::Mail { peer: Some(peer), text, how } => {
            let act = DhtAct::Mail { peer: peer.to_string(), text: text.unwrap_or_default() };
            (how, act, way)
        }
        DhtAction::Mail { peer: None, how, .. } => (how, DhtAct::Mailbox, letters),
        DhtAction::Trace { key, how } => {
            let (operator, command) = with(how, DhtAct::Closest { key }, true);
            return (operator, command, timeline);
        }
        DhtAction::Table(operator) => return plain(operator, DhtAct::Table, table),
        DhtAction::Stats(operator) => return plain(operator, DhtAct::Stats, facts),
    };
    let (operator, command) = with(how, act, false);
    (operator, command, show)
}

fn plain(operator: Operator, act: DhtAct, show: Show) -> (Operator, Command, Show) {
    (operator, Command::Dht { act, options: DhtOptions::default() }, show)
}

fn with(how: DhtHow, act: DhtAct, trace: bool) -> (Operator, Command) {
    let class = match how.class {
        DhtClass::Interactive => "interactive",
        DhtClass::Normal => "normal",
        DhtClass::Frugal => "frugal",
    };
    let deadline_ms = how.deadline.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let quorum = how.quorum.map(usize::from);
    let options = DhtOptions { class: Some(class.to_owned()), quorum, deadline_ms, trace };
    (how.operator, Command::Dht { act, options })
}

/// What was found, and how.
fn found(value: Value) -> Result<(), String> {
    let reply: DhtReply = read(value)?;
    if let Some(value) = &reply.value {
        say(value.as_str());
    }
    for Named { peer, addresses, note } in &reply.peers {
        let note = if note.is_empty() { String::new() } else { format!("  {}", one_line(note)) };
        say(&format!("{peer}{note}"));
        addresses.iter().for_each(|address| say(&format!("  {address}")));
    }
    tell_way(&reply)
}

/// How it went.
fn way(value: Value) -> Result<(), String> {
    tell_way(&read(value)?)
}

fn tell_way(reply: &DhtReply) -> Result<(), String> {
    if let Some(failed) = &reply.failed {
        return Err(failed.clone());
    }
    if let Some(Way { asked, answered, failed, cancelled, stored, warm, hops, ms, dense, .. }) = &reply.way {
        let stored = if *stored > 0 { format!("stored at {stored}; ") } else { String::new() };
        eprintln!(
            "{stored}{asked} asked ({warm} over connections that stood), {answered} answered, {failed} failed, {cancelled} cancelled; {hops} hops, {ms:.1} ms"
        );
        if *dense {
            eprintln!(
                "the nodes around the key are denser than an honest network has them: somebody may be hiding something"
            );
        }
    }
    Ok(())
}

/// Messages of a mailbox.
fn letters(value: Value) -> Result<(), String> {
    let reply: DhtReply = read(value)?;
    if reply.messages.is_empty() && reply.failed.is_none() {
        say("no messages");
    }
    for letter in &reply.messages {
        say(&format!("from {}: {}", letter.from, one_line(letter.text.as_str())));
    }
    tell_way(&reply)
}

/// Names and what they stand for.
fn facts(value: Value) -> Result<(), String> {
    let reply: DhtReply = read(value)?;
    let mut table = plain_table();
    for (name, fact) in &reply.facts {
        table.add_row([name, fact]);
    }
    say(&table.trim_fmt());
    Ok(())
}

/// The routing table.
fn table(value: Value) -> Result<(), String> {
    let reply: DhtReply = read(value)?;
    if reply.peers.is_empty() {
        say("nobody is known");
        return Ok(());
    }
    let mut table = plain_table();
    table.set_header(["peer", "state", "address"]);
    for Named { peer, addresses, note } in reply.peers {
        table.add_row([peer, note, addresses.first().cloned().unwrap_or_default()]);
    }
    say(&table.trim_fmt());
    Ok(())
}

/// A lookup as a timeline: when each node was asked and how long it took.
fn timeline(value: Value) -> Result<(), String> {
    let reply: DhtReply = read(value)?;
    let last = reply.steps.last().map_or(0.0, |step| step.ms).max(0.001);
    for StepRow { ms, what, peer, detail } in &reply.steps {
        let place = ((ms / last) * 24.0).clamp(0.0, 24.0) as usize;
        let bar: String = (0..25).map(|at| if at == place { '|' } else { '.' }).collect();
        let peer = peer.as_deref().unwrap_or_default();
        let short = peer.get(peer.len().saturating_sub(8)..).unwrap_or(peer);
        say(format!("{ms:>9.1} ms {bar} {what:<10} {short:<8} {detail}").trim_end());
    }
    found(serde_json::to_value(&DhtReply { steps: Vec::new(), ..reply }).map_err(|error| error.to_string())?)
}
