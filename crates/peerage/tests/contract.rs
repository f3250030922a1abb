//! Promises of CONTRACT.md that no other test proves: what a break, a restart and a change of class do to what is under way.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage::{
    BanTarget, Change, Node, NodeBuilder, NodeKey, PeerEvent, PeerId, Raw, RequestError, ServeError, Watch,
};

/// Far more than anything here takes; a test that gets there has failed.
const LIMIT: Duration = Duration::from_secs(20);

fn builder() -> NodeBuilder {
    Node::builder().network("test").listen("/ip4/127.0.0.1/udp/0/quic-v1").max_outbound(0)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("no end after {LIMIT:?}: {what}"),
    }
}

/// Connects `from` to `to` and waits until both have admitted the other.
async fn join(from: &Node, to: &Node) {
    let mut watch = to.peers().watch().await.unwrap();
    within("a connection", from.connect(&to.listen_addresses()[0])).await.unwrap();
    let came = |change: &Change| matches!(change, Change::Event(PeerEvent::Connected { peer, .. }) if *peer == from.peer_id());
    within("the other side", async { while !came(&watch.next().await.unwrap()) {} }).await;
}

fn numbered(number: u32, bytes: usize) -> Raw {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(bytes, 0);
    Raw(Bytes::from(body))
}

/// Contract C-23.
#[tokio::test]
async fn a_request_that_is_cut_off_is_told_and_never_asked_again() {
    let (server, client) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (began, mut begins) = tokio::sync::mpsc::channel(4);
    let count = asked.clone();
    server
        .serve("/test/once/1", move |_, _: Raw| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = began.try_send(());
            std::future::pending::<Result<Raw, ServeError>>()
        })
        .unwrap();
    join(&client, &server).await;
    let to: PeerId = server.peer_id();
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.request::<Raw, Raw>(to, "/test/once/1", &numbered(1, 4)).await }
    });
    within("the handler", begins.recv()).await.unwrap();
    server.peers().disconnect(client.peer_id()).await;
    let answer = within("the end", asking).await.unwrap();
    assert!(matches!(answer, Err(RequestError::Lost { .. })), "{answer:?}");
    join(&client, &server).await;
    within("a ping over the new connection", client.ping(to)).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Contract C-32.
#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_how_much_it_missed() {
    let node = builder().start().await.unwrap();
    let (mut slow, mut diligent) = (node.peers().watch().await.unwrap(), node.peers().watch().await.unwrap());
    let target = BanTarget::Peer(NodeKey::generate().peer_id());
    let mut all = Vec::new();
    for _ in 0..600 {
        node.peers().ban(target, "a test", None).await.unwrap();
        assert!(node.peers().unban(target).await);
        take_events(&mut diligent, Duration::ZERO, &mut all).await;
    }
    take_events(&mut diligent, Duration::from_millis(200), &mut all).await;
    let Some(Change::Missed(missed)) = slow.next().await else { panic!("nothing was missed") };
    let mut rest = Vec::new();
    take_events(&mut slow, Duration::from_millis(200), &mut rest).await;
    assert_eq!(rest.len(), 1024);
    assert!(
        rest == all[missed as usize..],
        "each event is told, or among the first {missed} of {}",
        all.len()
    );
}

/// Takes what is there, and what comes within `patience` of the last one.
async fn take_events(watch: &mut Watch, patience: Duration, into: &mut Vec<PeerEvent>) {
    while let Ok(Some(change)) = tokio::time::timeout(patience, watch.next()).await {
        let Change::Event(event) = change else { panic!("it was read in time") };
        into.push(event);
    }
}
