//! What a node tells when it is asked why a peer is what it is to it: `peerage why`, for people and for programs.

use serde_json::Value;

use super::show::Show;
use super::{Fault, Fleet};
use crate::control::{Command, Why};
use crate::term::one_line;

/// What a node tells of a peer.
pub(super) async fn told(fleet: &Fleet, asked: usize, peer: &str) -> Result<Why, Fault> {
    let command = Command::Why { peer: peer.to_owned() };
    fleet.members[asked].call(&command).await.map_err(|error| fleet.fault(asked, error))
}

/// Shows what a node told of a peer. It comes back as data.
pub(super) fn shown(fleet: &Fleet, asked: usize, peer: &str, why: Why, show: &Show) -> Value {
    let name = &fleet.members[asked].plan.name;
    show.say(&format!("   {name} on {}, as `peerage why` shows it:", fleet.name_of(peer)));
    for line in why.text.lines() {
        show.say(&format!("      {}", one_line(&with_names(fleet, line))));
    }
    why.story
}

/// Asks a node about a peer and shows the story.
pub(super) async fn ask(fleet: &Fleet, asked: usize, peer: &str, show: &Show) -> Result<Value, Fault> {
    let why = told(fleet, asked, peer).await?;
    Ok(shown(fleet, asked, peer, why, show))
}

/// With the nodes' names where their peer IDs stood.
fn with_names(fleet: &Fleet, text: &str) -> String {
    let known = fleet.members.iter().filter(|member| !member.status.peer_id.is_empty());
    known.fold(text.to_owned(), |text, member| text.replace(&member.status.peer_id, &member.plan.name))
}
