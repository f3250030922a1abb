//! A node for one errand: a key that is forgotten with it, no listening, no contacts, nobody dialled but the one it is for.

use std::time::Duration;

use peerage::{NetworkSecret, Node, PeerId};

use crate::args::Network;
use crate::failure::Failure;

/// A visitor notices after so long that the other side is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a visitor waits for room for its farewell.
const ROOM_DEADLINE: Duration = Duration::from_secs(1);

/// Starts such a node.
pub(crate) async fn start(network: &Network) -> Result<Node, Failure> {
    let mut builder = Node::builder().network(&network.name).max_inbound(0).max_outbound(0);
    if let Some(path) = &network.secret {
        builder = builder.network_secrets(NetworkSecret::load(path).map_err(Failure::usage)?);
    }
    Ok(builder.idle_timeout(IDLE_TIMEOUT).start().await?)
}

/// Stops such a node so that the other side hears of it at once.
///
/// QUIC as we have it holds the closing packet back while the congestion window is full, which it is when a file was on its way a moment
/// ago, and then never sends it. The answer to a ping says that there is room again.
pub(crate) async fn leave(node: Node) {
    for peer in node.peers().connected() {
        let _ = tokio::time::timeout(ROOM_DEADLINE, node.ping(peer.peer_id)).await;
    }
    node.close().await;
}

/// Whether the node has a connection to the peer.
pub(crate) fn is_connected(node: &Node, peer: PeerId) -> bool {
    node.peers().get(peer).is_some()
}
