//! A node for one errand: a key that is forgotten with it unless the user has one for it, no listening, no contacts, nobody dialled but the one it is for.

use std::time::Duration;

use peerage::{NetworkSecret, Node, NodeKey, PeerId};

use crate::args::Network;
use crate::failure::Failure;
use crate::term::one_line;

/// A visitor notices after so long that the other side is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts such a node.
pub(crate) async fn start(network: &Network) -> Result<Node, Failure> {
    let mut builder = Node::builder().network(&network.name).max_inbound(0).max_outbound(0);
    if let Some(path) = &network.secret {
        builder = builder.network_secrets(NetworkSecret::load(path).map_err(Failure::usage)?);
    }
    if let Some(path) = &network.key {
        builder = builder.key(NodeKey::load(path).map_err(Failure::failed)?);
    }
    Ok(builder.idle_timeout(IDLE_TIMEOUT).start().await?)
}

/// Whether the node has a connection to the peer.
pub(crate) fn is_connected(node: &Node, peer: PeerId) -> bool {
    node.peers().get(peer).is_some()
}

/// The peer's ID, and its software when it tells.
pub(crate) async fn about(node: &Node, peer: PeerId) -> String {
    let agent = node.identify(peer).await.map(|about| about.agent).unwrap_or_default();
    if agent.is_empty() { peer.to_string() } else { one_line(&format!("{peer} ({agent})")) }
}
