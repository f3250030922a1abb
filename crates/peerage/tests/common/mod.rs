//! What the test programs share: nodes on loopback, and what they are waited for to do.
// Each program uses a part of it.
#![allow(dead_code)]

use std::time::Duration;

use bytes::Bytes;
use peerage::{Change, Node, NodeBuilder, PeerEvent, PeerId, PeerInfo, Raw, Watch};

const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Far more than anything takes that is waited for; a test that gets there has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn builder() -> NodeBuilder {
    Node::builder().network("test").listen(LOOPBACK)
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("no end after {LIMIT:?}: {what}"),
    }
}

/// Two connected nodes: the second dialled the first.
pub(crate) async fn pair() -> (Node, Node) {
    let first = builder().start().await.unwrap();
    let second = builder().start().await.unwrap();
    join(&second, &first).await;
    (first, second)
}

/// Connects `from` to `to`, and waits until both have admitted the other.
pub(crate) async fn join(from: &Node, to: &Node) {
    let mut watch = to.peers().watch().await.unwrap();
    within("a connection", from.connect(&to.listen_addresses()[0])).await.unwrap();
    event(&mut watch, "the other side", |event| is_connected(event, from.peer_id())).await;
}

/// Waits until `node` has admitted `peer`.
pub(crate) async fn connected(node: &Node, peer: PeerId) {
    let is_there = |connected: &[PeerInfo]| connected.iter().any(|info| info.peer_id == peer);
    wait_for(node, is_there, |event| is_connected(event, peer)).await;
}

/// Waits until `node` has no connection to `peer`.
pub(crate) async fn gone(node: &Node, peer: PeerId) {
    let is_gone = |connected: &[PeerInfo]| connected.iter().all(|info| info.peer_id != peer);
    let goes = |event: &PeerEvent| matches!(event, PeerEvent::Disconnected { peer: p, .. } if *p == peer);
    wait_for(node, is_gone, goes).await;
}

async fn wait_for(node: &Node, already: impl Fn(&[PeerInfo]) -> bool, wanted: impl Fn(&PeerEvent) -> bool) {
    let mut watch = node.peers().watch().await.unwrap();
    if !already(&watch.connected) {
        event(&mut watch, "an event", wanted).await;
    }
}

fn is_connected(event: &PeerEvent, peer: PeerId) -> bool {
    matches!(event, PeerEvent::Connected { peer: p, .. } if *p == peer)
}

/// The next event of this kind.
pub(crate) async fn event(watch: &mut Watch, what: &str, is: impl Fn(&PeerEvent) -> bool) -> PeerEvent {
    within(what, async {
        loop {
            match watch.next().await {
                Some(Change::Event(event)) if is(&event) => return event,
                Some(_) => {}
                None => panic!("the node has ended"),
            }
        }
    })
    .await
}

pub(crate) fn raw(text: &str) -> Raw {
    Raw(Bytes::copy_from_slice(text.as_bytes()))
}
