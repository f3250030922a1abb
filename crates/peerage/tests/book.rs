//! The address book over restarts, and as a file that users pass on.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peerage::{
    BOOK_FILE, Ban, BanTarget, BookChange, BookError, ConnectError, MemoryStore, Node, NodeKey, PeerClass,
    PeerId, Store, StoreError, Stored,
};

mod common;

use common::{LIMIT, builder, connected};

async fn passive() -> Node {
    builder().max_outbound(0).start().await.unwrap()
}

/// A hub, and who met it: a node that has ended and left its book in the folder.
async fn met_a_hub(folder: &Path) -> (Node, PeerId) {
    let (hub, first) = (passive().await, builder().data_dir(folder).start().await.unwrap());
    let id = first.peer_id();
    first.connect(&hub.listen_addresses()[0]).await.unwrap();
    first.close().await;
    (hub, id)
}

/// Contract C-40.
#[tokio::test]
async fn a_node_that_starts_again_from_its_data_directory_finds_its_peers() {
    let folder = tempfile::tempdir().unwrap();
    let start = || builder().data_dir(folder.path()).start();
    let (hub, id) = met_a_hub(folder.path()).await;
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

async fn refusal(from: &Node, to: &Node) -> String {
    let refused = tokio::time::timeout(LIMIT, from.connect(&to.listen_addresses()[0])).await;
    match refused.expect("a refusal") {
        Err(ConnectError::Failed { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

/// Contract C-43.
#[tokio::test]
async fn a_ban_holds_after_a_restart_until_it_is_over_or_lifted() {
    let folder = tempfile::tempdir().unwrap();
    // It would dial those of its book, were they not banned.
    let start = || builder().data_dir(folder.path()).start();
    let (hub, guest) = (start().await.unwrap(), passive().await);
    hub.connect(&guest.listen_addresses()[0]).await.unwrap();
    let target = BanTarget::Peer(guest.peer_id());
    let (subnet, ended) = ("192.0.2.0/24".parse().unwrap(), "198.51.100.1".parse().unwrap());
    hub.peers().ban(target, "too loud", None).await.unwrap();
    hub.peers().ban(subnet, "of another time", Some(Duration::from_secs(3600))).await.unwrap();
    hub.peers().ban(ended, "", Some(Duration::from_millis(1))).await.unwrap();
    let lasting: Vec<Ban> = hub.peers().bans().await.into_iter().filter(|ban| ban.target != ended).collect();
    hub.close().await;

    let hub = start().await.unwrap();
    let shown = |bans: &[Ban]| -> Vec<_> {
        let millis = |time: Duration| time.as_millis();
        bans.iter().map(|b| (b.target, b.reason.clone(), millis(b.since), b.until.map(millis))).collect()
    };
    assert_eq!(shown(&hub.peers().bans().await), shown(&lasting));
    assert!(refusal(&guest, &hub).await.contains("it is banned there"));
    let ours = refusal(&hub, &guest).await;
    assert!(ours.contains("is banned here (too loud)"), "{ours}");
    assert!(hub.peers().unban(target).await && hub.peers().unban(subnet).await);
    hub.close().await;

    let hub = start().await.unwrap();
    assert_eq!(hub.peers().bans().await, []);
    connected(&hub, guest.peer_id()).await;
}

#[tokio::test]
async fn a_ban_is_in_the_store_without_a_clean_end() {
    let store = MemoryStore::default();
    let start = || Node::builder().store(Arc::new(store.clone())).start();
    let node = start().await.unwrap();
    let target: BanTarget = "192.0.2.1".parse().unwrap();
    node.peers().ban(target, "", None).await.unwrap();
    let stored = async {
        while store.load().unwrap().bans.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, stored).await.expect("the ban is stored");
    drop(node);
    let bans = start().await.unwrap().peers().bans().await;
    assert_eq!(bans.iter().map(|ban| ban.target).collect::<Vec<_>>(), [target]);
}

/// Contract C-42.
#[tokio::test]
async fn a_node_starts_beside_a_book_that_cannot_be_read_and_stores_anew() {
    let folder = tempfile::tempdir().unwrap();
    let start = || builder().data_dir(folder.path()).start();
    let (hub, id) = met_a_hub(folder.path()).await;
    let book = folder.path().join(BOOK_FILE);
    std::fs::write(&book, [0x5a; 5000]).unwrap();

    let second = start().await.unwrap();
    assert_eq!(second.peer_id(), id);
    let aside = book.with_extension("redb.corrupt");
    assert_eq!(std::fs::read(&aside).unwrap(), [0x5a; 5000], "it is kept for whoever wants to look at it");
    assert_eq!(second.peers().watch().await.unwrap().states, [], "nobody is known");
    second.connect(&hub.listen_addresses()[0]).await.unwrap();
    second.close().await;
    connected(&start().await.unwrap(), hub.peer_id()).await;
}

/// Contract C-45.
#[tokio::test]
async fn what_is_said_of_peers_at_run_time_holds_after_a_restart_until_it_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let [named, other, third] = [1, 2, 3].map(|seed| NodeKey::from_seed([seed; 32]).peer_id());
    let wanted = passive().await;
    // What the builder says holds for this start only, whatever else is stored.
    let start = |with: Option<PeerId>| {
        let builder = builder().data_dir(folder.path()).max_outbound(0).unconditional(third);
        with.map_or(builder.clone(), |peer| builder.allow(peer).private(peer)).start()
    };
    let classes = async |node: &Node| node.peers().classes().await.into_iter().collect::<BTreeSet<_>>();
    let set = |list: &[(PeerId, PeerClass)]| list.iter().copied().collect::<BTreeSet<_>>();
    let given = (third, PeerClass::Unconditional);

    let node = start(Some(named)).await.unwrap();
    let peers = node.peers();
    peers.allow(wanted.peer_id()).await;
    peers.add_persistent(&wanted.listen_addresses()[0].to_string()).await.unwrap();
    for (peer, class) in
        [(other, PeerClass::Private), (other, PeerClass::Unconditional), (named, PeerClass::Private)]
    {
        peers.set_class(peer, class).await;
    }
    peers.unset_class(other, PeerClass::Unconditional).await;
    peers.unset_class(third, PeerClass::Unconditional).await;
    peers.stored().await.unwrap();
    // No close: the end is that of a crash.
    drop((peers, node));

    let node = start(Some(third)).await.unwrap();
    let kept =
        [(wanted.peer_id(), PeerClass::Persistent), (other, PeerClass::Private), (named, PeerClass::Private)];
    assert_eq!(classes(&node).await, set(&[&kept[..], &[given, (third, PeerClass::Private)]].concat()));
    let mut allowed = vec![wanted.peer_id(), third];
    allowed.sort();
    assert_eq!(node.peers().allowed().await, Some(allowed));
    connected(&node, wanted.peer_id()).await;
    for (peer, class) in kept {
        node.peers().unset_class(peer, class).await;
    }
    node.peers().disallow(wanted.peer_id()).await;
    node.close().await;

    let node = start(None).await.unwrap();
    assert_eq!(classes(&node).await, set(&[given]));
    assert_eq!(node.peers().allowed().await, None, "a list is for who names one at the start");
    node.close().await;
    let node = start(Some(named)).await.unwrap();
    assert_eq!(node.peers().allowed().await, Some(vec![named]));
}

/// A store on a disk that answers no more.
#[derive(Debug)]
struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Store for Stuck {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(Stored::default())
    }

    fn save(&self, _: &[BookChange]) -> Result<(), StoreError> {
        let _ = self.0.lock().unwrap().recv();
        Ok(())
    }
}

/// X-29: a stopping node waits for its store for a second.
#[tokio::test]
async fn a_store_that_hangs_keeps_no_node_from_stopping() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let node = builder().store(Arc::new(Stuck(held.into()))).start().await.unwrap();
    let target = BanTarget::Peer(NodeKey::generate().peer_id());
    node.peers().ban(target, "a test", None).await.unwrap();
    let start = std::time::Instant::now();
    tokio::time::timeout(LIMIT, node.close()).await.expect("it stops all the same");
    assert!(start.elapsed() > Duration::from_millis(900), "it gave up after {:?}", start.elapsed());
    drop(release);
}
