//! The DHT over real nodes on loopback.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use peerage::dht::{
    Ad, Authority, Class, DhtReport, Ended, Event, Failure, Kind, MailboxPolicy, Mode, NotStored, Place,
    Published, Refusal, SetState, StepKind,
};
use peerage::{
    BookChange, Dht, DhtConfig, DhtError, MemoryStore, Node, NodeBuilder, PeerId, Row, RowChange, Store,
    StoreError, Stored,
};

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

/// AL-56: whoever joins over several seeds is told when the networks behind them are not one: of another size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds_of_networks_of_different_sizes_are_noticed() {
    let mut nodes = network(8).await;
    let apart = server(&[]).await;
    let told = |seeds: [&Node; 2]| {
        let joiner = builder().seed(&seeds[0].listen_addresses()[0]).seed(&seeds[1].listen_addresses()[0]);
        async {
            let joiner = joiner.start().await.unwrap();
            let mut events = joiner.dht().events().unwrap();
            let disagree = async {
                loop {
                    match events.recv().await {
                        Ok(Event::SizesDisagree { least, most }) => return Some((least, most)),
                        Ok(_) => {}
                        Err(_) => return None,
                    }
                }
            };
            let told = tokio::time::timeout(Duration::from_secs(3), disagree).await.ok().flatten();
            joiner.close().await;
            told
        }
    };
    let (least, most) = until("the seeds disagreeing", || told([&nodes[0], &apart])).await;
    assert!(least <= 2.0 && most > 4.0 * least, "{least} {most}");
    assert_eq!(told([&nodes[0], &nodes[1]]).await, None);
    nodes.push(apart);
    close(nodes).await;
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
    // Who makes a value of what has failed gets nothing, and loses nothing.
    let Err(DhtError::Record(why)) = alice.put("colour", "").await else { panic!("it is taken for a value") };
    assert!(why.contains("at least one byte") && why.contains("remove"), "{why}");
    assert_eq!(bob.get(me, "colour").quorum(3).await.unwrap().0.body, "green");
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
    let Err(DhtError::TooFewStored { report }) = &refused else { panic!("{refused:?}") };
    // Who did not store it, and why, is told: in full and in words.
    assert!(report.stored.is_empty() && !report.looked_after && !report.not_stored.is_empty());
    assert!(report.not_stored.iter().all(|(_, why)| reason(why) == "unknown namespace"), "{report:?}");
    let words = refused.unwrap_err().to_string();
    assert!(words.contains("refused: a namespace that it doesn't know"), "{words}");
    close(nodes).await;
}

/// All that a result is made of has a name in `peerage::dht`.
fn reason(why: &NotStored) -> &'static str {
    match why {
        NotStored::Refused(Refusal::UnknownNamespace) => "unknown namespace",
        NotStored::Refused(_) => "refused",
        NotStored::Busy | NotStored::Stale => "not now",
        NotStored::Failed(Failure::Timeout) => "silent",
        NotStored::Failed(_) => "failed",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_final_counts_of_a_store_can_be_awaited() {
    let nodes = network(5).await;
    let (storing, mut settled) = nodes[1].dht().put("colour", "blue").quorum(1).settled();
    let early: DhtReport = storing.await.unwrap();
    assert!(!early.stored.is_empty() && early.looked_after);
    let last = settled.report().await.unwrap();
    assert!(!last.unsettled && last.stored.len() >= early.stored.len().max(3), "{last}");
    assert!(early.stored.iter().all(|peer| last.stored.contains(peer)));
    assert_eq!((last.ended, settled.report().await), (Ended::Stored, None));
    // Of one that failed there is nothing to await.
    let (refused, mut settled) = nodes[1].dht().put("colour", vec![0; 5000]).settled();
    assert!(refused.await.is_err());
    assert_eq!(settled.report().await, None);
    close(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_each_finds_what_the_other_provides_and_what_it_provides_itself() {
    let nodes = network(2).await;
    let (alice, bob) = (nodes[0].dht(), nodes[1].dht());
    alice.provide("photos").await.unwrap();
    for dht in [&bob, &alice] {
        let (providers, _) = dht.providers("photos", 5).await.unwrap();
        let providers: Vec<_> = providers.iter().map(|contact| *contact.peer()).collect();
        assert_eq!(providers, [nodes[0].peer_id()]);
    }
    assert_eq!(alice.provided().await.unwrap(), ["photos"]);
    bob.provide("once").once().await.unwrap();
    assert!(bob.provided().await.unwrap().is_empty());
    assert!(alice.stop_providing("photos").await.unwrap());
    assert!(!alice.stop_providing("photos").await.unwrap());
    assert!(alice.provided().await.unwrap().is_empty());
    close(nodes).await;
}

/// What a node has published, but for where it can be reached.
async fn published(dht: &Dht) -> Vec<Published> {
    let all = dht.published().await.unwrap();
    all.into_iter().filter(|one| one.place.kind() != Kind::Endpoint).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_can_be_seen_and_taken_back() {
    let nodes = network(5).await;
    let (alice, bob, me) = (nodes[1].dht(), nodes[3].dht(), nodes[1].peer_id());
    let hour = Duration::from_secs(3600);
    alice.put("colour", "blue").lasts(hour).await.unwrap();
    let (value, _) = bob.get(me, "colour").await.unwrap();
    let [one] = &published(&alice).await[..] else { panic!("one record") };
    assert_eq!((&one.what[..], one.wanted, one.renewed, one.tombstone), ("value colour", 12, true, false));
    assert_eq!(one.not_after, value.not_after);
    assert!(one.live >= 1 && one.holders.len() == one.live && one.state != SetState::Expired, "{one:?}");
    assert!(alice.standing().await.unwrap().published >= 1);
    assert!(bob.standing().await.unwrap().held.bytes > 100);
    // Renewed no more, it is there until its time is over.
    assert!(alice.forget("colour").await.unwrap() && !alice.forget("colour").await.unwrap());
    assert!(published(&alice).await.is_empty());
    assert_eq!(bob.get(me, "colour").await.unwrap().0.body, "blue");
    let (hash, storing) = alice.put_immutable("content");
    storing.once().await.unwrap();
    let [one] = &published(&alice).await[..] else { panic!("one record") };
    assert!(one.what.starts_with("content ") && !one.renewed, "{one:?}");
    assert!(alice.forget_immutable(hash).await.unwrap());
    let ad = Ad { topic: "chess".into(), ..Ad::default() };
    alice.announce(&ad).await.unwrap();
    assert_eq!(published(&alice).await[0].what, "topic chess");
    assert_eq!(bob.topic("chess", 5).await.unwrap().0.len(), 1);
    alice.leave("chess").await.unwrap();
    until("the member is gone", || async { bob.topic("chess", 5).await.unwrap().0.is_empty().then_some(()) })
        .await;
    let [one] = &published(&alice).await[..] else { panic!("one record") };
    assert!(one.tombstone && !one.renewed, "{one:?}");
    for lasts in [Duration::from_secs(1), 50 * hour] {
        let refused = alice.put("colour", "blue").lasts(lasts).await.unwrap_err();
        assert!(matches!(refused, DhtError::Record(_)), "{refused}");
    }
    close(nodes).await;
}

/// The caller's task is the only one that runs between its first step and its end.
#[tokio::test]
async fn a_put_that_is_dropped_before_anybody_has_stored_it_leaves_nothing_behind() {
    let nodes = network(3).await;
    let dht = nodes[1].dht();
    let mut storing = dht.put("colour", "blue").into_future();
    assert!((&mut storing).now_or_never().is_none());
    drop(storing);
    until("the operation is over", || async {
        (dht.standing().await.unwrap().operations == 0).then_some(())
    })
    .await;
    assert!(published(&dht).await.is_empty());
    let lone = builder().start().await.unwrap();
    assert_eq!(lone.dht().put("colour", "blue").await, Err(DhtError::NoContacts));
    assert!(published(&lone.dht()).await.is_empty());
    close(nodes).await;
    lone.close().await;
}

///
#[tokio::test]
async fn a_node_that_looks_after_as_much_as_it_may_says_which_limit_that_is() {
    let mut config = DhtConfig::default();
    config.limits.replication.max_sets = 1;
    config.limits.replication.max_provided = 0;
    let start = |config: DhtConfig| {
        Node::builder().network("dht-test").dht(config).listen("/ip4/127.0.0.1/udp/0/quic-v1").start()
    };
    let (full, other) = (start(config).await.unwrap(), start(DhtConfig::default()).await.unwrap());
    full.connect(&other.listen_addresses()[0]).await.unwrap();
    knows(&full.dht(), 1).await;
    until("the endpoint is published", || async {
        (full.dht().published().await.unwrap().len() == 1).then_some(())
    })
    .await;
    let refused = full.dht().put("colour", "blue").await.unwrap_err();
    assert!(refused.to_string().contains("dht.replication.max_sets"), "{refused}");
    let refused = full.dht().provide("song").await.unwrap_err();
    assert!(refused.to_string().contains("dht.replication.max_provided"), "{refused}");
    full.dht().provide("song").once().await.unwrap();
    close(vec![full, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_goes_by_the_rules_of_the_mailbox_that_it_writes_to() {
    let nodes = network(5).await;
    let (alice, bob, to) = (nodes[1].dht(), nodes[3].dht(), nodes[3].peer_id());
    let says = async |policy: MailboxPolicy| {
        bob.clear_mailbox(Vec::new(), policy).quorum(4).await.unwrap();
        until("the rules are known", || async {
            (alice.mailbox_policy(to).await.unwrap().0 == policy).then_some(())
        })
        .await;
    };
    let refused = async |word: &str| {
        let error = alice.mail(to, "hello").await.unwrap_err();
        assert!(matches!(error, DhtError::NotWelcome { .. }) && error.to_string().contains(word), "{error}");
    };
    says(MailboxPolicy::Open { work_bits: 15 }).await;
    alice.mail(to, "with more work").await.unwrap();
    says(MailboxPolicy::Open { work_bits: 23 }).await;
    refused("23 bits").await;
    says(MailboxPolicy::Closed).await;
    refused("none").await;
    says(MailboxPolicy::Contacts).await;
    refused("token").await;
    let other = nodes[2].dht().mailbox_token(&nodes[1].peer_id(), Duration::from_secs(60));
    let forged = alice.mail(to, "hello").token(other).await;
    assert!(matches!(forged, Err(DhtError::NotWelcome { .. })), "{forged:?}");
    let token = bob.mailbox_token(&nodes[1].peer_id(), Duration::from_secs(60));
    alice.mail(to, "with a token").token(token).await.unwrap();
    let letters = until("both messages are there", || async {
        let (letters, _) = bob.mailbox().await.ok()?;
        (letters.len() == 2).then_some(letters)
    })
    .await;
    assert!(letters.iter().any(|letter| letter.body == "with a token"));
    // What was read once is not shown again, whoever has not heard of it.
    bob.clear_mailbox(vec![letters[0].id], MailboxPolicy::Contacts).await.unwrap();
    bob.clear_mailbox(vec![letters[1].id], MailboxPolicy::Contacts).await.unwrap();
    assert_eq!(bob.mailbox().await.unwrap().0, []);
    // The endpoint record tells the same.
    let place = Place::Endpoint { peer: to };
    let network = peerage_dht::record::Network::new("dht-test").unwrap();
    until("the endpoint names the policy", || async {
        let (value, _) = alice.get_raw(place.name(&network)).await.ok()?;
        let record = peerage_dht::record::Record::open(&network, &value).unwrap();
        let body = peerage_dht::record::EndpointBody::decode(&to, record.body().unwrap()).unwrap();
        (body.mailbox == Some(MailboxPolicy::Contacts)).then_some(())
    })
    .await;
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
    // With peers that are silent meanwhile: tests/world/dropped.rs.
    let (call, mut steps) = nodes[1].dht().closest(b"elsewhere").watch();
    let mut looking = call.into_future();
    let asked = async {
        while let Some(step) = steps.next().await {
            if matches!(step.what, StepKind::Asked { .. }) {
                return;
            }
        }
        panic!("nobody was asked");
    };
    tokio::select! {
        biased;
        () = asked => {}
        _ = &mut looking => {}
    }
    drop(looking);
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
    assert_eq!(long, DhtError::Name { length: 65, most: 64 });
    assert_eq!(lone.dht().get(lone.peer_id(), vec![7; 65]).await.unwrap_err(), long);
    // What holders would refuse is refused before anybody is asked.
    let long = lone.dht().provide(vec![7; 81]).await.unwrap_err();
    assert_eq!(long, DhtError::Key { length: 81, most: 80 });
    assert_eq!(lone.dht().providers(vec![7; 81], 1).await.unwrap_err(), long);
    assert_eq!(lone.dht().provided().await.unwrap(), Vec::<Vec<u8>>::new());
    for topic in [String::new(), "x".repeat(129)] {
        let none = lone.dht().topic(&topic, 1).await.unwrap_err();
        assert_eq!(none, DhtError::Key { length: topic.len(), most: 128 });
        let ad = Ad { topic, ..Ad::default() };
        assert!(matches!(lone.dht().announce(&ad).await, Err(DhtError::Record(_))));
    }
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

/// A disk that takes the first rows only when it is let go.
#[derive(Debug, Default)]
struct Slow {
    kept: MemoryStore,
    gate: std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    calls: AtomicUsize,
}

impl Store for Slow {
    fn load(&self) -> Result<Stored, StoreError> {
        self.kept.load()
    }

    fn save(&self, changes: &[BookChange]) -> Result<(), StoreError> {
        self.kept.save(changes)
    }

    fn load_rows(&self) -> Result<Vec<Row>, StoreError> {
        self.kept.load_rows()
    }

    fn save_rows(&self, changes: &[RowChange], durable: bool) -> Result<(), StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            // It is let go, or nobody holds it any more.
            let _ = gate.recv();
        }
        self.kept.save_rows(changes, durable)
    }
}

/// What came while the disk was busy is stored when the node closes, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_slow_disk_is_stored_at_the_end() {
    let (let_go, gate) = std::sync::mpsc::channel();
    let slow = std::sync::Arc::new(Slow { gate: Some(gate).into(), ..Slow::default() });
    let first = server(&[]).await;
    let holder = builder().listen("/ip4/127.0.0.1/udp/0/quic-v1").seed(&first.listen_addresses()[0]);
    let holder = holder.store(slow.clone()).start().await.unwrap();
    knows(&first.dht(), 1).await;
    let hold = |number: usize| {
        let (first, holder) = (first.dht(), holder.dht());
        async move {
            first.put(format!("value {number}"), "x").await.unwrap();
            until("the holder has it", || async {
                (holder.held(100).await.unwrap().len() >= number).then_some(())
            })
            .await;
        }
    };
    hold(1).await;
    let calls = |wanted: usize| {
        let slow = slow.clone();
        until("the disk is asked", move || {
            let called = slow.calls.load(Ordering::Relaxed) >= wanted;
            async move { called.then_some(()) }
        })
    };
    calls(1).await;
    for number in 2..6 {
        hold(number).await;
    }
    let held = holder.dht().held(100).await.unwrap().len();
    let closing = tokio::spawn(holder.close());
    // Whom it knows best comes first; then it looks whether there is anything left.
    calls(2).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let_go.send(()).unwrap();
    closing.await.unwrap();
    first.close().await;
    let again = builder().listen("/ip4/127.0.0.1/udp/0/quic-v1").store(slow).start().await.unwrap();
    // Neighbours may have handed over more meanwhile.
    assert!(again.dht().held(100).await.unwrap().len() >= held);
    again.close().await;
}
