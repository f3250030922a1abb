//! The DHT over real nodes on loopback.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use peerage::dht::{Ad, Authority, Class, Kind, MailboxPolicy, Mode, Place, StepKind};
use peerage::{Dht, DhtConfig, DhtError, Node, NodeBuilder, PeerId};

fn builder() -> NodeBuilder {
    Node::builder().network("dht-test").dht(DhtConfig::default().any_value("interop"))
}

async fn server(seeds: &[&Node]) -> Node {
    let listening = builder().listen("/ip4/127.0.0.1/udp/0/quic-v1");
    let seeded = seeds.iter().fold(listening, |builder, seed| builder.seed(&seed.listen_addresses()[0]));
    seeded.start().await.unwrap()
}

/// Asks again until it is so, each time when something has happened. Nodes find their place by themselves.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut is: impl FnMut() -> F) -> T {
    let trying = async {
        loop {
            if let Some(found) = is().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(30), trying).await;
    within.unwrap_or_else(|_| panic!("not within 30 s: {what}"))
}

async fn knows(dht: &Dht, peers: usize) {
    until("the node knows its network", || async {
        let standing = dht.standing().await.unwrap();
        (standing.joined && standing.usable >= peers).then_some(())
    })
    .await;
}

/// A network whose first node is the seed of all others.
async fn network(count: usize) -> Vec<Node> {
    let mut nodes = vec![server(&[]).await];
    for _ in 1..count {
        let next = server(&[&nodes[0]]).await;
        nodes.push(next);
    }
    for node in &nodes {
        knows(&node.dht(), count.min(5) - 1).await;
    }
    nodes
}

async fn close(nodes: Vec<Node>) {
    futures::future::join_all(nodes.into_iter().map(Node::close)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_one_seed_find_each_other_and_a_stranger_is_reached_by_its_id() {
    let nodes = network(8).await;
    let (last, first) = (&nodes[7], &nodes[1]);
    let (contact, report) = first.dht().find_peer(last.peer_id()).await.unwrap();
    assert_eq!(contact.peer(), &last.peer_id());
    assert!(report.counts.asked >= 1 || report.hops == 0, "{report}");
    let (closest, _) = first.dht().closest(b"anything").class(Class::Normal).await.unwrap();
    assert!(closest.len() >= 6, "{}", closest.len());
    // A node that only dials, and has met the seed alone.
    let stranger = builder().seed(&nodes[0].listen_addresses()[0]).start().await.unwrap();
    knows(&stranger.dht(), 1).await;
    let found = stranger.connect(last.peer_id()).await;
    assert_eq!(found, Ok(last.peer_id()));
    // AL-33: whoever doesn't serve stands in nobody's table.
    for node in &nodes {
        let table = node.dht().table().await.unwrap();
        assert!(table.iter().all(|(contact, _)| *contact.peer() != stranger.peer_id()));
    }
    stranger.close().await;
    close(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_kept_by_others_and_only_their_publisher_changes_them() {
    let nodes = network(6).await;
    let (alice, bob) = (nodes[1].dht(), nodes[4].dht());
    let me = nodes[1].peer_id();
    let stored = alice.put("colour", "blue").await.unwrap();
    assert!(stored.counts.stored >= 2, "{stored}");
    let (value, _) = bob.get(me, "colour").quorum(2).await.unwrap();
    assert_eq!((&value.body[..], value.publisher), (&b"blue"[..], me));
    alice.put("colour", "green").await.unwrap();
    let newer = until("the newer value is found", || async {
        let (value, _) = bob.get(me, "colour").quorum(3).await.ok()?;
        (value.body == "green").then_some(value)
    })
    .await;
    assert!(newer.seq > value.seq);
    assert!(matches!(bob.get(me, "shape").await, Err(DhtError::NotFound { .. })));
    alice.remove("colour").quorum(5).await.ok();
    until("a removed value is gone", || async {
        matches!(bob.get(me, "colour").quorum(3).await, Err(DhtError::NotFound { .. })).then_some(())
    })
    .await;
    let (hash, storing) = alice.put_immutable("content");
    storing.await.unwrap();
    assert_eq!(bob.get_immutable(hash).await.unwrap().0, "content");
    bob.put_raw("/interop/key", "raw").await.unwrap();
    assert_eq!(alice.get_raw("/interop/key").await.unwrap().0, "raw");
    let refused = bob.put_raw("/unknown/key", "raw").await;
    assert!(matches!(refused, Err(DhtError::TooFewStored { .. } | DhtError::Refused { .. })), "{refused:?}");
    close(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_topics_and_mailboxes_work_between_nodes_that_never_met() {
    let nodes = network(6).await;
    let (alice, bob) = (&nodes[1], &nodes[4]);
    alice.dht().provide("photos").await.unwrap();
    let (providers, _) = bob.dht().providers("photos", 1).await.unwrap();
    assert_eq!(providers[0].peer(), &alice.peer_id());
    assert!(!providers[0].addresses().is_empty());
    for node in [alice, bob] {
        let ad = Ad { topic: "chess".into(), brief: "rapid".into(), ..Ad::default() };
        node.dht().announce(&ad).await.unwrap();
    }
    let members: Vec<PeerId> = until("both are found in the topic", || async {
        let (members, _) = nodes[2].dht().topic("chess", 10).await.ok()?;
        (members.len() == 2).then(|| members.iter().map(|member| member.peer).collect())
    })
    .await;
    assert!(members.contains(&alice.peer_id()) && members.contains(&bob.peer_id()));
    alice.dht().mail(bob.peer_id(), "back on Monday").await.unwrap();
    let letters = until("the message is there", || async {
        let (letters, _) = bob.dht().mailbox().await.ok()?;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!((letters[0].from, &letters[0].body[..]), (alice.peer_id(), &b"back on Monday"[..]));
    // Nobody else is given what lies in a mailbox.
    let policy = MailboxPolicy::Open { work_bits: 12 };
    bob.dht().clear_mailbox(vec![letters[0].id], policy).quorum(5).await.unwrap();
    until("a message that was read is gone", || async {
        let (letters, _) = bob.dht().mailbox().await.ok()?;
        letters.is_empty().then_some(())
    })
    .await;
    close(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_can_be_watched_and_dropped() {
    let nodes = network(5).await;
    let (call, mut steps) = nodes[1].dht().closest(b"somewhere").watch();
    let ((closest, report), all) = tokio::join!(async { call.await.unwrap() }, async {
        let mut all = Vec::new();
        while let Some(step) = steps.next().await {
            all.push(step);
        }
        all
    });
    assert!(!closest.is_empty());
    let asked = all.iter().filter(|step| matches!(step.what, StepKind::Asked { .. })).count();
    assert_eq!(asked as u32, report.counts.asked);
    assert!(matches!(all.last().unwrap().what, StepKind::Ended(_)));
    assert!(all.is_sorted_by_key(|step| step.at));
    let dropped = nodes[1].dht().closest(b"elsewhere").into_future();
    drop(dropped);
    until("nothing is left of it", || async {
        let standing = nodes[1].dht().standing().await.unwrap();
        (standing.operations == 0).then_some(())
    })
    .await;
    close(nodes).await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_reason() {
    let without = Node::builder().start().await.unwrap();
    let off = without.dht().get(without.peer_id(), "x").await.unwrap_err();
    assert_eq!(off, DhtError::Off);
    assert!(off.to_string().contains("NodeBuilder::dht"));
    let lone = builder().start().await.unwrap();
    assert_eq!(lone.dht().closest(b"x").await.unwrap_err(), DhtError::NoContacts);
    assert!(matches!(lone.dht().closest(b"").await, Err(DhtError::Key { length: 0, .. })));
    let large = lone.dht().put("x", vec![0; 5000]).await.unwrap_err();
    assert!(large.to_string().contains("5000 bytes"), "{large}");
    let long = lone.dht().put(vec![7; 65], "x").await.unwrap_err();
    assert!(matches!(long, DhtError::Record(_)), "{long}");
    let standing = lone.dht().standing().await.unwrap();
    assert_eq!((standing.peers, standing.joined), (0, false));
    let mut client = DhtConfig::default();
    client.mode = Some(Mode::Client);
    let client = Node::builder().listen("/ip4/127.0.0.1/udp/0/quic-v1").dht(client).start().await.unwrap();
    let (dht, clone) = (lone.dht(), lone.clone());
    clone.close().await;
    assert_eq!(dht.standing().await, Err(DhtError::Closed));
    client.close().await;
    without.close().await;
}

/// Nobody may advertise under a topic.
struct NoTopics;

impl Authority for NoTopics {
    fn allows(&self, _: peerage_machine::Now, place: &Place, _: &PeerId) -> Result<(), &'static str> {
        if place.kind() == Kind::Topic { Err("no topics here") } else { Ok(()) }
    }
}

/// AL-40: what the application's policy forbids is kept by nobody who has that policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_what_its_applications_policy_allows() {
    let start = |seed: Option<String>| {
        let config = DhtConfig::default().authority(NoTopics);
        let builder =
            Node::builder().network("dht-policy").dht(config).listen("/ip4/127.0.0.1/udp/0/quic-v1");
        seed.iter().fold(builder, |builder, seed| builder.seed(seed)).start()
    };
    let alice = start(None).await.unwrap();
    let bob = start(Some(alice.listen_addresses()[0].to_string())).await.unwrap();
    knows(&alice.dht(), 1).await;
    knows(&bob.dht(), 1).await;
    assert!(alice.dht().put("colour", "blue").await.unwrap().counts.stored >= 1);
    let ad = Ad { topic: "chess".into(), ..Ad::default() };
    let refused = alice.dht().announce(&ad).await;
    assert!(matches!(refused, Err(DhtError::TooFewStored { .. } | DhtError::Refused { .. })), "{refused:?}");
    close(vec![alice, bob]).await;
}

/// A peer that is connected and serves is known to the DHT, unless it is private: then nothing of it is.
/// Contract C-57.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_peer_is_in_no_table_of_the_dht() {
    for private in [false, true] {
        let hidden = server(&[]).await;
        let builder = builder().listen("/ip4/127.0.0.1/udp/0/quic-v1");
        let builder = if private { builder.private(hidden.peer_id()) } else { builder };
        let node = builder.start().await.unwrap();
        node.connect(&hidden.listen_addresses()[0]).await.unwrap();
        let dht = node.dht();
        if private {
            assert_eq!(dht.closest(b"x").await.map(drop), Err(DhtError::NoContacts));
            assert!(dht.find_peer(hidden.peer_id()).await.is_err());
            assert!(dht.table().await.unwrap().is_empty());
        } else {
            knows(&dht, 1).await;
            assert_eq!(dht.find_peer(hidden.peer_id()).await.unwrap().0.peer(), &hidden.peer_id());
        }
        close(vec![node, hidden]).await;
    }
}
