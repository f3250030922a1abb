use peerage_dht::record::{Draft, Record};
use peerage_dht::topic::shard_at;
use peerage_dht::{Ended, Operation};
use peerage_identity::NodeKey;

use super::*;
use crate::{DhtConfig, Node};

/// As many members are enough for a shard here.
const CARRIES: usize = 4;

/// Nodes that know each other.
async fn network(count: usize) -> Vec<Node> {
    let mut config = DhtConfig::default();
    config.records.topic_shard_members = CARRIES;
    // Whoever reads and stores without a pause is not told to go slower here.
    let (serve, store) = (&mut config.limits.serve, &mut config.limits.store);
    (serve.peer_burst, serve.peer_byte_burst, serve.node_burst, serve.node_byte_burst) = (1e9, 1e9, 1e9, 1e9);
    (store.put_burst, store.checks_per_second) = (1e9, 1e9);
    let builder = || Node::builder().listen("/ip4/127.0.0.1/udp/0/quic-v1").dht(config.clone());
    let mut nodes: Vec<Node> = vec![builder().start().await.unwrap()];
    for _ in 1..count {
        let node = builder().start().await.unwrap();
        node.connect(&nodes[0].listen_addresses()[0]).await.unwrap();
        nodes.push(node);
    }
    for node in &nodes {
        while node.dht().standing().await.unwrap().usable < count - 1 {
            node.dht().closest("anywhere").await.unwrap();
        }
    }
    nodes
}

fn ad() -> Ad {
    Ad { topic: "chess".into(), brief: "rapid".into(), ..Ad::default() }
}

/// A record in a shard by a key that is no node's.
fn strange(dht: &Dht, number: u8, shard: u16, body: Bytes) -> Record {
    let core = dht.core().unwrap();
    let unix = dht.shared.clock.now().unix;
    let draft = Draft::new(Place::of_topic("chess", shard), core.next_seq(unix), unix.as_secs() + 3600, body);
    Record::sign(&NodeKey::from_seed([number; 32]), &core.network, draft).unwrap()
}

/// Members that are no nodes, in a shard; without an ad they leave it.
async fn strangers(dht: &Dht, numbers: std::ops::Range<u8>, shard: u16, ad: Option<Ad>) -> Vec<PeerId> {
    let mut members = Vec::new();
    for number in numbers {
        let record = strange(dht, number, shard, ad.as_ref().map(Ad::encode).unwrap_or_default());
        let (target, value) = (record.target().clone(), record.to_bytes());
        dht.call(Ok(Operation::Put { target, value, replicas: 20 }), stored).quorum(2).await.unwrap();
        members.push(record.publisher());
    }
    members
}

/// Reads until these are all members, which is at once unless the machine is very busy.
async fn found(dht: &Dht, members: impl IntoIterator<Item = &PeerId>) {
    let mut expected: Vec<PeerId> = members.into_iter().copied().collect();
    expected.sort();
    let mut last = Vec::new();
    let reading = async {
        while last != expected {
            let (members, _) = dht.topic("chess", 100).await.unwrap();
            last = members.into_iter().map(|member| member.peer).collect();
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(within.is_ok(), "{last:?} instead of {expected:?}");
}

/// Where a node stands in the topic.
async fn standing(node: &Node) -> Vec<u16> {
    let here = node.dht().in_topics().await.unwrap().remove("chess").unwrap_or_default();
    here.iter().map(|stands| stands.shard).collect()
}

async fn stands_at(node: &Node) -> Stands {
    node.dht().in_topics().await.unwrap().remove("chess").unwrap().pop().unwrap()
}

async fn close(nodes: Vec<Node>) {
    for node in nodes {
        node.close().await;
    }
}

/// AL-38, AL w11, dht.md B.4: whoever joins a large topic stands where there is room, and comes back up when others have left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stands_in_the_first_shard_of_a_topic_that_has_room_and_readers_find_all() {
    let nodes = network(5).await;
    let reader = nodes[0].dht();
    let mut members = Vec::new();
    for node in &nodes[1..3] {
        node.dht().announce(&ad()).await.unwrap();
        assert_eq!(standing(node).await, [0]);
        members.push(node.peer_id());
    }
    found(&reader, &members).await;
    let first = strangers(&reader, 1..5, 0, Some(ad())).await;
    for node in &nodes[3..] {
        node.dht().announce(&ad()).await.unwrap();
        assert_eq!(standing(node).await, [shard_at(&node.peer_id(), 1)]);
        members.push(node.peer_id());
    }
    for shard in [1, 2] {
        let numbers = 10 * shard as u8..10 * shard as u8 + 5;
        members.extend(strangers(&reader, numbers, shard, Some(ad())).await);
    }
    found(&reader, members.iter().chain(&first)).await;
    nodes[3].dht().leave("chess").await.unwrap();
    assert!(standing(&nodes[3]).await.is_empty());
    nodes[3].dht().announce(&ad()).await.unwrap();
    assert_eq!(standing(&nodes[3]).await, [shard_at(&nodes[3].peer_id(), 2)]);
    found(&reader, members.iter().chain(&first)).await;
    // A topic that stands still moves nobody.
    for node in &nodes[1..] {
        let before = standing(node).await;
        node.dht().review_topics(&mut BTreeMap::new()).await.unwrap();
        assert_eq!(standing(node).await, before);
    }
    // What others leave behind hides nobody until those below have come up.
    strangers(&reader, 1..5, 0, None).await;
    found(&reader, &members).await;
    nodes[4].dht().review_topics(&mut BTreeMap::new()).await.unwrap();
    assert_eq!(standing(&nodes[4]).await, [0]);
    found(&reader, &members).await;
    // What a node says anew, it says where it stands.
    nodes[3].dht().announce(&Ad { brief: "blitz".into(), ..ad() }).once().await.unwrap();
    assert_eq!(standing(&nodes[3]).await, [shard_at(&nodes[3].peer_id(), 2)]);
    found(&reader, &members).await;
    close(nodes).await;
}

/// However many have left a shard, those that are there are found; who wants few gets no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_have_left_hide_nobody() {
    let nodes = network(4).await;
    let reader = nodes[0].dht();
    strangers(&reader, 1..30, 0, None).await;
    let mut members = strangers(&reader, 30..33, 0, Some(ad())).await;
    members.extend(strangers(&reader, 33..35, 1, Some(ad())).await);
    found(&reader, &members).await;
    for wanted in 0..5 {
        assert_eq!(reader.topic("chess", wanted).await.unwrap().0.len(), wanted.max(1));
    }
    // Who stands nowhere can leave all the same: an earlier run may have joined.
    nodes[1].dht().leave("chess").await.unwrap();
    let all = nodes[1].dht().published().await.unwrap();
    let gone: Vec<_> = all.iter().filter(|one| one.what.starts_with("topic")).collect();
    assert!(gone[0].tombstone && !gone[0].renewed && gone[0].what.contains("taken back"), "{gone:?}");
    close(nodes).await;
}

/// What the application does while its ad is moved counts more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_or_says_something_else_while_it_moves_is_not_brought_back() {
    let nodes = network(5).await;
    let (reader, dht, me) = (nodes[0].dht(), nodes[1].dht(), nodes[1].peer_id());
    dht.announce(&ad()).await.unwrap();
    let before = stands_at(&nodes[1]).await;
    dht.leave("chess").await.unwrap();
    dht.move_to("chess", &before, 1, Options::default()).await.unwrap();
    assert!(standing(&nodes[1]).await.is_empty());
    found(&reader, []).await;
    dht.announce(&ad()).await.unwrap();
    let before = stands_at(&nodes[1]).await;
    dht.announce(&Ad { brief: "blitz".into(), ..ad() }).await.unwrap();
    dht.move_to("chess", &before, 1, Options::default()).await.unwrap();
    assert_eq!(stands_at(&nodes[1]).await.ad.brief, "blitz");
    assert_eq!(standing(&nodes[1]).await, [0]);
    found(&reader, [&me]).await;
    // Nothing has happened meanwhile: it stands there, and nowhere else.
    let before = stands_at(&nodes[1]).await;
    dht.move_to("chess", &before, 1, Options::default()).await.unwrap();
    assert_eq!(standing(&nodes[1]).await, [1]);
    // A move that came to nothing half way leaves two; the next look leaves one.
    dht.store(Place::of_topic("chess", 0), Ok(ad().encode())).await.unwrap();
    assert_eq!(standing(&nodes[1]).await.len(), 2);
    dht.review_topics(&mut BTreeMap::new()).await.unwrap();
    assert_eq!(standing(&nodes[1]).await, [0]);
    // Also when the newer one is to expire.
    dht.store(Place::of_topic("chess", 1), Ok(ad().encode())).once().await.unwrap();
    assert_eq!(standing(&nodes[1]).await.len(), 2);
    dht.review_topics(&mut BTreeMap::new()).await.unwrap();
    assert_eq!(standing(&nodes[1]).await, [1]);
    close(nodes).await;
}

/// Many that come at once all see room; those that are not the first of them go further down, and the others stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_far_too_many_in_a_shard_the_first_stay() {
    let nodes = network(5).await;
    let reader = nodes[0].dht();
    for node in &nodes[1..] {
        node.dht().announce(&ad()).await.unwrap();
    }
    let mut members: Vec<PeerId> = nodes[1..].iter().map(Node::peer_id).collect();
    members.extend(strangers(&reader, 1..CARRIES as u8, 0, Some(ad())).await);
    nodes[1].dht().review_topics(&mut BTreeMap::new()).await.unwrap();
    assert_eq!(standing(&nodes[1]).await, [0]);
    members.extend(strangers(&reader, 20..22, 0, Some(ad())).await);
    members.sort();
    found(&reader, &members).await;
    for node in &nodes[1..] {
        let (me, first) = (node.peer_id(), &members[..CARRIES]);
        let others = members.iter().filter(|member| **member != me).count();
        assert_eq!(others, 2 * CARRIES);
        node.dht().review_topics(&mut BTreeMap::new()).await.unwrap();
        let depth = u32::from(!first.contains(&me));
        assert_eq!(standing(node).await, [shard_at(&me, depth)]);
        // With one less nobody goes.
        if depth == 1 {
            break;
        }
    }
    close(nodes).await;
}

/// one holder that shows a crowd sends nobody away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_holder_alone_shows_fills_no_shard() {
    let nodes = network(4).await;
    let liar = nodes[0].dht();
    for number in 1..20 {
        let record = strange(&liar, number, 0, ad().encode());
        let plant = move |now, machine: &mut peerage_dht::Dht| {
            machine.plant_record(now, record.target(), &record.to_bytes()).unwrap()
        };
        assert_eq!(liar.of_machine(plant).await.unwrap(), peerage_dht::store::Put::Stored);
    }
    nodes[1].dht().announce(&ad()).await.unwrap();
    assert_eq!(standing(&nodes[1]).await, [0]);
    close(nodes).await;
}

/// The time of a call is that of all its parts together, and any time may be given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_many_shards_is_read_within_the_deadline() {
    let nodes = network(3).await;
    let dht = nodes[1].dht();
    let mut members = Vec::new();
    for shard in 0..7 {
        let numbers = 1 + 5 * shard as u8..5 + 5 * shard as u8;
        members.extend(strangers(&dht, numbers, shard, Some(ad())).await);
    }
    found(&dht, &members).await;
    let (all, report) = dht.topic("chess", 100).deadline(Duration::MAX).await.unwrap();
    assert_eq!((all.len(), report.ended), (28, Ended::Complete), "{report}");
    let (some, report) = dht.topic("chess", 100).deadline(Duration::from_micros(1)).await.unwrap();
    assert!(some.len() < 28 && report.ended == Ended::Deadline, "{report}");
    close(nodes).await;
}
