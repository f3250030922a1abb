//! The address book over restarts, and as a file that users pass on.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use peerage::{BookError, Change, Node, NodeBuilder, PeerClass, PeerEvent, PeerId};

/// Far more than anything here takes; a test that gets there has failed.
const LIMIT: Duration = Duration::from_secs(20);

fn builder() -> NodeBuilder {
    Node::builder().network("test").listen("/ip4/127.0.0.1/udp/0/quic-v1")
}

async fn passive() -> Node {
    builder().max_outbound(0).start().await.unwrap()
}

/// Waits until `node` has admitted `peer`.
async fn connected(node: &Node, peer: PeerId) {
    let mut watch = node.peers().watch().await.unwrap();
    let came =
        |change: &Change| matches!(change, Change::Event(PeerEvent::Connected { peer: p, .. }) if *p == peer);
    let waiting = async {
        if watch.connected.iter().all(|info| info.peer_id != peer) {
            while !came(&watch.next().await.unwrap()) {}
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("the connection comes");
}

/// Contract C-40.
#[tokio::test]
async fn a_node_that_starts_again_from_its_data_directory_finds_its_peers() {
    let folder = tempfile::tempdir().unwrap();
    let start = || builder().data_dir(folder.path()).start();
    let (hub, first) = (passive().await, start().await.unwrap());
    let id = first.peer_id();
    first.connect(&hub.listen_addresses()[0]).await.unwrap();
    first.close().await;
    let second = start().await.unwrap();
    assert_eq!(second.peer_id(), id);
    connected(&second, hub.peer_id()).await;
}

/// Contract C-35, C-41.
#[tokio::test]
async fn an_exported_book_is_taken_in_elsewhere_and_names_no_private_peer() {
    let (hub, open, private) = (passive().await, passive().await, passive().await);
    hub.peers().set_class(private.peer_id(), PeerClass::Private).await;
    for node in [&open, &private] {
        hub.connect(&node.listen_addresses()[0]).await.unwrap();
    }
    let book = hub.peers().export_book().await.unwrap();
    let port = |node: &Node| format!("/udp/{}/", node.listen_addresses()[0].socket_addr().unwrap().port());
    assert!(book.contains(&open.peer_id().to_string()) && book.contains(&port(&open)), "{book}");
    assert!(!book.contains(&private.peer_id().to_string()) && !book.contains(&port(&private)), "{book}");

    let other = builder().start().await.unwrap();
    assert_eq!(other.peers().import_book(&book).await, Ok(1));
    connected(&other, open.peer_id()).await;

    let none = other.peers().import_book("[1, 2]").await;
    assert!(matches!(none, Err(BookError::Malformed { .. })), "{none:?}");
    let later = other.peers().import_book(r#"{"version": 99, "peers": []}"#).await;
    assert_eq!(later, Err(BookError::Newer { found: 99 }));
}
