//! What a node tells when it is asked why a peer is what it is to it: `peerage why`, for people and for programs.

use serde_json::Value;

use super::show::Show;
use super::{Fault, Fleet};
use crate::control::{Command, Why};
use crate::term::one_line;

/// Asks a node about a peer and shows the story. It comes back as data.
pub(super) async fn ask(fleet: &Fleet, asked: usize, peer: &str, show: &Show) -> Result<Value, Fault> {
    let member = &fleet.members[asked];
    let command = Command::Why { peer: peer.to_owned() };
    let why: Why = member.call(&command).await.map_err(|error| fleet.fault(asked, error))?;
    show.say(&format!("   {} on {}, as `peerage why` shows it:", member.plan.name, fleet.name_of(peer)));
    for line in why.text.lines() {
        show.say(&format!("      {}", one_line(&with_names(fleet, line))));
    }
    Ok(why.story)
}

/// With the nodes' names where their peer IDs stood.
fn with_names(fleet: &Fleet, text: &str) -> String {
    let known = fleet.members.iter().filter(|member| !member.status.peer_id.is_empty());
    known.fold(text.to_owned(), |text, member| text.replace(&member.status.peer_id, &member.plan.name))
}
