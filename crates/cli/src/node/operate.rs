//! What an operator asks of a running node: who may come, who is kept out, and why things are as they are.

use std::time::Duration;

use peerage::{BanTarget, Node, PeerClass};
use serde_json::{Value, json};

use super::service::{peer_id, value};
use crate::control::{BanRow, ClassRow};
use crate::metrics;

pub(super) async fn ban(
    node: &Node,
    target: &str,
    reason: &str,
    seconds: Option<u64>,
) -> Result<Value, String> {
    let target: BanTarget = target.parse().map_err(|error| format!("{error}"))?;
    let lasts = seconds.map(Duration::from_secs);
    node.peers().ban(target, reason, lasts).await.map_err(|error| error.to_string())?;
    stored(node).await
}

pub(super) async fn unban(node: &Node, target: &str) -> Result<Value, String> {
    let target: BanTarget = target.parse().map_err(|error| format!("{error}"))?;
    match node.peers().unban(target).await {
        true => stored(node).await,
        false => Err(format!("{target} is not banned: `peerage bans` shows who is")),
    }
}

pub(super) async fn bans(node: &Node) -> Result<Value, String> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let rows = node.peers().bans().await.into_iter().map(|ban| BanRow {
        target: ban.target.to_string(),
        reason: ban.reason,
        penalty: ban.penalty.map(|penalty| penalty.to_string()),
        since_unix_ms: ms(ban.since),
        until_unix_ms: ban.until.map(ms),
    });
    value(&rows.collect::<Vec<_>>())
}

pub(super) async fn set_class(node: &Node, peer: &str, name: &str, on: bool) -> Result<Value, String> {
    let (class, peers) = (class(name)?, node.peers());
    let (address, id) = match peer.rsplit_once("/p2p/") {
        Some((_, id)) if peer.starts_with('/') => (Some(peer), peer_id(id)?),
        _ => (None, peer_id(peer)?),
    };
    match (on, address) {
        // A persistent peer is named with its address, so that it can be dialled.
        (true, Some(address)) if class == PeerClass::Persistent => {
            peers.add_persistent(address).await.map_err(|error| error.to_string())?;
        }
        (true, address) => {
            if let Some(address) = address {
                peers.add(address).await.map_err(|error| error.to_string())?;
            }
            peers.set_class(id, class).await;
        }
        (false, _) => peers.unset_class(id, class).await,
    }
    stored(node).await
}

/// What was said holds after a crash too from now on.
pub(super) async fn stored(node: &Node) -> Result<Value, String> {
    let stored = node.peers().stored().await;
    stored.map_err(|error| format!("it holds until the node stops, but could not be stored: {error}"))?;
    Ok(json!({}))
}

pub(super) async fn classes(node: &Node, name: &str) -> Result<Value, String> {
    let wanted = class(name)?;
    let rows = node.peers().classes().await.into_iter().filter(|(_, class)| *class == wanted);
    let rows: Vec<_> =
        rows.map(|(peer, class)| ClassRow { peer: peer.to_string(), class: class.to_string() }).collect();
    value(&rows)
}

pub(super) async fn metrics(node: &Node) -> Value {
    json!({"text": metrics::text_of(node).await})
}

fn class(name: &str) -> Result<PeerClass, String> {
    PeerClass::ALL.iter().find(|class| class.to_string() == name).copied().ok_or_else(|| {
        let known: Vec<_> = PeerClass::ALL.iter().map(ToString::to_string).collect();
        format!("there is no standing {name:?}: give one of {}", known.join(", "))
    })
}
