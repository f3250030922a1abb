//! AL-54 with whole nodes: who watches a value is told of its changes by those who hold it.

use std::sync::Arc;

use bytes::Bytes;
use peerage::dht::Update;
use peerage::{DhtConfig, Node, PeersConfig};
use peerage_wire::hello::Hello;
use peerage_wire::kad::message::MessageType;
use peerage_wire::kad::{Additions, Message, Record, Wait};
use prost::Message as _;
use tokio::time::Instant;

use crate::clock::{SECOND, pass, within};
use crate::network::World;
use crate::stranger::{Stranger, framed};

const KAD: &str = "/world/kad/1.0.0";

async fn server(world: &Arc<World>, host: u64, seed: Option<&Node>) -> Node {
    let address = format!("10.0.{host}.1");
    let machine = world.machine(host, &[&address]);
    let listen = format!("/ip4/{address}/udp/4001/quic-v1");
    let builder = machine.node().dht(DhtConfig::default()).listen(listen);
    seed.into_iter()
        .fold(builder, |builder, seed| builder.seed(&seed.listen_addresses()[0]))
        .start()
        .await
        .unwrap()
}

async fn waiting(nodes: &[Node]) -> usize {
    let mut sum = 0;
    for node in nodes {
        sum += node.dht().standing().await.unwrap().watchers;
    }
    sum
}

fn text(update: Update) -> Option<Vec<u8>> {
    match update {
        Update::Value(value) => Some(value.body.to_vec()),
        _ => None,
    }
}

/// AL-54: neither of the two has met the other; the watcher hears of each change when a holder has it, long before it would ask again, over connections that are
/// not idle meanwhile.
#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_of_each_change_within_a_round_trip_and_then_waits_on() {
    let world = World::new();
    let mut nodes = vec![server(&world, 1, None).await];
    for host in 2..=6 {
        let next = server(&world, host, Some(&nodes[0])).await;
        nodes.push(next);
    }
    let machine = world.machine(9, &["10.0.9.1"]);
    let peers = PeersConfig { max_outbound: 1, visit_idle: 5 * SECOND, ..PeersConfig::default() };
    let watcher =
        machine.node().peers_config(peers).dht(DhtConfig::default()).seed(&nodes[0].listen_addresses()[0]);
    let watcher = watcher.start().await.unwrap();
    pass(10 * SECOND).await;
    let publisher = &nodes[5];
    publisher.dht().put("colour", "blue").await.unwrap();
    let mut changes = watcher.dht().watch(publisher.peer_id(), "colour");
    let first = within("the value", changes.next()).await.unwrap().unwrap();
    assert_eq!(text(first), Some(b"blue".to_vec()));
    for (pause, body) in [(41, "red"), (100, "green"), (23, "")] {
        let put = async {
            pass(pause * SECOND).await;
            assert_eq!(waiting(&nodes).await, 3, "so many were asked to tell");
            let begun = Instant::now();
            match body {
                "" => publisher.dht().remove("colour").await.unwrap(),
                body => publisher.dht().put("colour", body).await.unwrap(),
            };
            begun
        };
        let told = async { (within("a change", changes.next()).await.unwrap().unwrap(), Instant::now()) };
        let ((update, at), begun) = tokio::join!(told, put);
        assert_eq!(text(update), Some(body.as_bytes().to_vec()).filter(|body| !body.is_empty()));
        let took = at.saturating_duration_since(begun);
        assert!(took < SECOND, "told after {took:?}");
    }
    drop(changes);
    pass(SECOND).await;
    assert_eq!(waiting(&nodes).await, 0, "nobody waits any more");
    watcher.close().await;
    for node in nodes {
        node.close().await;
    }
}

/// A question about `/any/thing` that waits until something else than `known` stands there.
fn wait(known: &'static [u8]) -> Bytes {
    let known = peerage_dht::digest_of(&[Bytes::from_static(known)]);
    let wait = Wait { known: Some(Bytes::copy_from_slice(&known)), seconds: Some(60) };
    let additions = Some(Additions { wait: Some(wait), ..Additions::default() });
    framed(Message { additions, ..of(MessageType::GetValue) }.encode_to_vec())
}

fn put(value: &'static [u8]) -> Bytes {
    let record = Some(Record { value: Some(Bytes::from_static(value)), ..Record::default() });
    framed(Message { record, ..of(MessageType::PutValue) }.encode_to_vec())
}

fn of(kind: MessageType) -> Message {
    Message { r#type: Some(kind.into()), key: Some(Bytes::from_static(b"/any/thing")), ..Message::default() }
}

/// AL-54: on the wire. A question that waits holds up no other, is answered with what is new, and goes with its stream or its peer.
#[tokio::test(start_paused = true)]
async fn a_question_that_waits_holds_up_no_other_and_goes_with_its_stream() {
    let world = World::new();
    let machine = world.machine(1, &["10.0.0.1"]);
    let config = DhtConfig::default().any_value("any");
    let listen = "/ip4/10.0.0.1/udp/4001/quic-v1";
    let node = machine.node().max_outbound(0).dht(config).listen(listen).start().await.unwrap();
    let stranger = Stranger::dial(&world, "10.0.0.2", &node).await;
    stranger.meet(1, &Hello { services: vec![KAD.into()], ..stranger.hello(1) }).await;
    let nodes = [node];
    let mut asking = stranger.begin(KAD, put(b"a")).await;
    asking.recv.read_message::<Message>(1 << 20).await.unwrap().unwrap();
    let mut told = stranger.begin(KAD, wait(b"a")).await;
    let given_up = stranger.begin(KAD, wait(b"a")).await;
    pass(10 * SECOND).await;
    assert_eq!(waiting(&nodes).await, 2);
    drop(given_up);
    pass(SECOND).await;
    assert_eq!(waiting(&nodes).await, 1);
    asking.send.write_chunk(put(b"b")).await.unwrap();
    asking.recv.read_message::<Message>(1 << 20).await.unwrap().unwrap();
    let answer: Message = within("the change", told.recv.read_message(1 << 20)).await.unwrap().unwrap();
    assert_eq!(answer.record.unwrap().value.as_deref(), Some(&b"b"[..]));
    assert_eq!(answer.additions.unwrap().waited, Some(true));
    // The stream goes on, and a question whose time is up says so.
    let begun = Instant::now();
    told.send.write_chunk(wait(b"b")).await.unwrap();
    let answer: Message = within("the end", told.recv.read_message(1 << 20)).await.unwrap().unwrap();
    assert_eq!((answer.record, answer.additions.unwrap().waited), (None, Some(true)));
    assert!(begun.elapsed() >= 60 * SECOND && begun.elapsed() < 61 * SECOND);
    told.send.write_chunk(wait(b"b")).await.unwrap();
    pass(SECOND).await;
    assert_eq!(waiting(&nodes).await, 1);
    let [node] = nodes;
    stranger.leave(&node).await;
    pass(SECOND).await;
    assert_eq!(waiting(std::slice::from_ref(&node)).await, 0);
    node.close().await;
}
