//! The DHT with peers of other implementations: what they do that the specification leaves open, or that we would not do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use bytes::Bytes;
use peerage::dht::Mode;
use peerage::{DhtConfig, Node, NodeKey, PeerId};
use peerage_identity::DialAddress;
use peerage_transport::{Connection, Endpoint, EndpointConfig, Stream, StreamCode};
use peerage_wire::identify::Identify;
use peerage_wire::kad::message::{MessageType, Peer};
use peerage_wire::kad::{Message, Record};
use tokio::sync::{mpsc, oneshot};

use common::{LIMIT, builder, connected, within};

const IDENTIFY: &str = "/ipfs/id/1.0.0";
const KAD: &str = "/test/kad/1.0.0";
const KEY: &[u8] = b"/any/key";

/// How it ends a stream on which it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// When the asker has.
    AfterTheAsker,
    /// With its first answer, as rust-libp2p does.
    WithAnAnswer,
    /// By a reset when the asker has ended its side, as py-libp2p does.
    ByReset,
}

/// A node of another implementation that serves the DHT, and does what the test tells it.
struct Foreign {
    id: PeerId,
    connection: Connection,
    /// What it was asked.
    asked: mpsc::UnboundedReceiver<Message>,
    _endpoint: Endpoint,
}

impl Foreign {
    /// Connects to a node and is admitted. It says who it is when it has seen that, as others do.
    async fn join(node: &Node, ends: Ends, answer: fn(&Message) -> Option<Message>) -> Self {
        let key = NodeKey::generate();
        let endpoint = Endpoint::bind(EndpointConfig::new(key.clone()), &[]).await.unwrap();
        let socket = node.listen_addresses()[0].socket_addr().unwrap();
        let connection = endpoint.dial(socket, Some(node.peer_id())).await.unwrap();
        let (admitted, may_speak) = oneshot::channel();
        let (log, asked) = mpsc::unbounded_channel();
        tokio::spawn(serve(key.clone(), connection.clone(), may_speak, log, ends, answer));
        connected(node, key.peer_id()).await;
        admitted.send(()).unwrap();
        Self { id: key.peer_id(), connection, asked, _endpoint: endpoint }
    }

    /// Waits until the node's table holds it.
    async fn is_known(&self, node: &Node) {
        let holds = async {
            while !node.dht().table().await.unwrap().iter().any(|(contact, _)| *contact.peer() == self.id) {
                tokio::task::yield_now().await;
            }
        };
        within("an entry in the table", holds).await;
    }

    /// The next thing of a kind that it is asked.
    async fn asked(&mut self, kind: MessageType) -> Message {
        let next = async {
            loop {
                let message = self.asked.recv().await.unwrap();
                if message.r#type() == kind {
                    return message;
                }
            }
        };
        within("a question", next).await
    }

    async fn open(&self) -> Stream {
        self.connection.open_lazy(KAD).await.unwrap()
    }
}

async fn serve(
    key: NodeKey,
    connection: Connection,
    may_speak: oneshot::Receiver<()>,
    log: mpsc::UnboundedSender<Message>,
    ends: Ends,
    answer: fn(&Message) -> Option<Message>,
) {
    let mut may_speak = Some(may_speak);
    while let Ok(stream) = connection.accept_stream().await {
        // The hello is answered by `na`: that makes it foreign.
        let served = |name: &str| [IDENTIFY, KAD].contains(&name);
        let Ok((name, mut stream)) = stream.negotiate(served, LIMIT).await else { continue };
        if &*name == IDENTIFY {
            if let Some(may_speak) = may_speak.take() {
                may_speak.await.unwrap();
            }
            let says = Identify {
                public_key: Some(key.public().encode_protobuf().into()),
                listen_addrs: vec![address("/ip4/127.0.0.1/udp/9/quic-v1")],
                protocols: vec![IDENTIFY.into(), KAD.into()],
                ..Identify::default()
            };
            stream.send.write_frame(&says).await.unwrap();
            stream.send.finish().unwrap();
            continue;
        }
        tokio::spawn(answer_all(stream, log.clone(), ends, answer));
    }
}

async fn answer_all(
    mut stream: Stream,
    log: mpsc::UnboundedSender<Message>,
    ends: Ends,
    answer: fn(&Message) -> Option<Message>,
) {
    while let Ok(Some(message)) = stream.recv.read_message::<Message>(1 << 16).await {
        let reply = answer(&message);
        // The test may be over.
        let _ = log.send(message);
        let Some(reply) = reply else { continue };
        if stream.send.write_frame(&reply).await.is_err() {
            return;
        }
        if ends == Ends::WithAnAnswer {
            let _ = stream.send.finish();
            return;
        }
    }
    match ends {
        Ends::ByReset => stream.abort(StreamCode::Cancelled),
        Ends::AfterTheAsker | Ends::WithAnAnswer => {
            let _ = stream.send.finish();
        }
    }
}

fn address(text: &str) -> Bytes {
    text.parse::<DialAddress>().unwrap().to_bytes().into()
}

/// SHA-256 as a multihash: what provider records stand under.
fn multihash() -> Bytes {
    [&[0x12, 0x20][..], &[7; 32]].concat().into()
}

fn question(kind: MessageType, key: impl Into<Bytes>) -> Message {
    Message { r#type: Some(kind.into()), key: Some(key.into()), ..Message::default() }
}

/// What it says to everything: nobody is closer, and what is to be stored is.
fn polite(asked: &Message) -> Option<Message> {
    (asked.r#type() != MessageType::AddProvider).then(|| asked.clone())
}

/// As py-libp2p: ADD_PROVIDER is answered, and a long key in FIND_NODE that is no multihash ends the stream.
fn as_py(asked: &Message) -> Option<Message> {
    Some(asked.clone())
}

async fn node(mode: Mode) -> Node {
    let mut config = DhtConfig::default().any_value("any");
    config.mode = Some(mode);
    builder().dht(config).start().await.unwrap()
}

/// Asks on a stream and reads the answer.
async fn ask(stream: &mut Stream, message: &Message) -> Message {
    stream.send.write_frame(message).await.unwrap();
    within("an answer", stream.recv.read_message(1 << 16)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_foreign_peer_that_says_where_it_listens_after_its_admission_enters_the_table() {
    let node = node(Mode::Client).await;
    let mut foreign = Foreign::join(&node, Ends::AfterTheAsker, polite).await;
    foreign.is_known(&node).await;
    foreign.asked(MessageType::FindNode).await;
    let (found, _) = node.dht().find_peer(foreign.id).await.unwrap();
    assert_eq!(found.addresses(), ["/ip4/127.0.0.1/udp/9/quic-v1".parse().unwrap()]);
}

#[tokio::test]
async fn values_and_providers_are_stored_whatever_a_foreign_server_does_with_its_streams() {
    for (ends, answer) in [
        (Ends::AfterTheAsker, polite as fn(&Message) -> Option<Message>),
        (Ends::WithAnAnswer, polite),
        (Ends::ByReset, polite),
        (Ends::AfterTheAsker, as_py),
        (Ends::ByReset, as_py),
    ] {
        let node = node(Mode::Server).await;
        let mut foreign = Foreign::join(&node, ends, answer).await;
        foreign.is_known(&node).await;
        for round in 0..3 {
            let value = format!("value {round}");
            node.dht().put_raw(KEY, value.clone()).quorum(1).await.unwrap();
            // The node publishes where it can be reached, too.
            let record = loop {
                let put = foreign.asked(MessageType::PutValue).await;
                if put.key.as_deref() == Some(KEY) {
                    break put.record.unwrap();
                }
            };
            assert_eq!((record.key.unwrap(), record.value.unwrap()), (KEY.into(), Bytes::from(value)));
            assert!(record.time_received.is_some(), "js-libp2p keeps no value without");
            node.dht().provide(multihash()).quorum(1).await.unwrap();
            let add = foreign.asked(MessageType::AddProvider).await;
            assert_eq!(add.key, Some(multihash()));
            assert_eq!(add.provider_peers[0].id, Some(node.peer_id().to_bytes().into()));
            assert!(!add.provider_peers[0].addrs.is_empty(), "go-libp2p keeps no provider without");
        }
    }
}

#[tokio::test]
async fn a_long_key_that_is_no_peer_id_is_looked_for_by_get_value() {
    // py-libp2p resets a stream on which FIND_NODE has such a key; whoever is asked for the value names closer peers too.
    let node = node(Mode::Client).await;
    let mut foreign = Foreign::join(&node, Ends::AfterTheAsker, polite).await;
    foreign.is_known(&node).await;
    let long = [b"/any/".as_slice(), &[b'x'; 80]].concat();
    node.dht().put_raw(&long, "value").quorum(1).await.unwrap();
    foreign.asked(MessageType::PutValue).await;
    node.dht().closest(&long).await.unwrap();
    assert_eq!(foreign.asked(MessageType::GetValue).await.key, Some(long.into()));
}

#[tokio::test]
async fn several_questions_on_a_stream_are_answered_in_their_order_also_after_its_end() {
    let node = node(Mode::Server).await;
    let foreign = Foreign::join(&node, Ends::AfterTheAsker, polite).await;
    let mut stream = foreign.open().await;
    let own_id = Bytes::from(foreign.id.to_bytes());
    let keys = [own_id, "no peer ID".into(), multihash()];
    for key in &keys {
        stream.send.write_frame(&question(MessageType::FindNode, key.clone())).await.unwrap();
    }
    // What comes last has no answer.
    let provider = Peer { id: Some(foreign.id.to_bytes().into()), ..Peer::default() };
    let add = Message { provider_peers: vec![provider], ..question(MessageType::AddProvider, multihash()) };
    stream.send.write_frame(&add).await.unwrap();
    stream.send.finish().unwrap();
    for key in keys {
        let answer: Message = within("an answer", stream.recv.read_message(1 << 16)).await.unwrap().unwrap();
        assert_eq!((answer.r#type(), answer.key), (MessageType::FindNode, Some(key)));
        assert!(answer.additions.is_none(), "nobody else knows them");
    }
    assert!(within("the end", stream.recv.read_message::<Message>(1 << 16)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_record_without_fields_that_others_write_is_stored() {
    let node = node(Mode::Server).await;
    let foreign = Foreign::join(&node, Ends::AfterTheAsker, polite).await;
    let mut stream = foreign.open().await;
    // Without a key of its own, and without a time.
    let record = Record { value: Some("bare".into()), ..Record::default() };
    let put = Message { record: Some(record), ..question(MessageType::PutValue, KEY) };
    assert_eq!(ask(&mut stream, &put).await.record.unwrap().value, Some("bare".into()));
    let got = ask(&mut stream, &question(MessageType::GetValue, KEY)).await.record.unwrap();
    assert_eq!((got.key, got.value), (Some(KEY.into()), Some("bare".into())));
    assert!(got.time_received.is_some());
}

#[tokio::test]
async fn of_the_providers_that_a_message_names_the_sender_is_kept() {
    let node = node(Mode::Server).await;
    let foreign = Foreign::join(&node, Ends::AfterTheAsker, polite).await;
    let mut stream = foreign.open().await;
    let provider =
        |id: PeerId, addrs: Vec<Bytes>| Peer { id: Some(id.to_bytes().into()), addrs, ..Peer::default() };
    let add = Message {
        provider_peers: vec![
            provider(NodeKey::generate().peer_id(), vec![address("/ip4/127.0.0.1/udp/7/quic-v1")]),
            // A transport that we don't speak, and one that we do.
            provider(
                foreign.id,
                vec![vec![4, 127, 0, 0, 1, 6, 0, 7].into(), address("/ip4/127.0.0.1/udp/9/quic-v1")],
            ),
        ],
        ..question(MessageType::AddProvider, multihash())
    };
    stream.send.write_frame(&add).await.unwrap();
    let answer = ask(&mut stream, &question(MessageType::GetProviders, multihash())).await;
    assert_eq!(answer.r#type(), MessageType::GetProviders, "ADD_PROVIDER has no answer");
    let [kept] = &answer.provider_peers[..] else { panic!("{:?}", answer.provider_peers) };
    assert_eq!(kept.id, Some(foreign.id.to_bytes().into()));
    assert_eq!(kept.addrs, [address("/ip4/127.0.0.1/udp/9/quic-v1")]);
}
