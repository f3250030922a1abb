//! Private networks over loopback: allow-lists, network secrets, and what a stranger gets to see.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use peerage::{
    Change, ChangeSecretsError, ChannelConfig, ForeignPolicy, NetworkSecret, Node, NodeBuilder, NodeKey,
    PeerEvent, PeerId, Raw, RejectReason, StartError,
};
use peerage_transport::{Connection, Endpoint, EndpointConfig};
use peerage_wire::hello::{Answer, Hello, answer::Verdict};

mod common;

use common::{LIMIT, within};

const FIRST: &str = "the first secret of this network";
const SECOND: &str = "the second secret of this network";
const HELLO: &str = "/peerage/hello/1";

fn secret(text: &str) -> NetworkSecret {
    NetworkSecret::new(text).unwrap()
}

fn builder() -> NodeBuilder {
    Node::builder().network("hidden-net").listen("/ip4/127.0.0.1/udp/0/quic-v1").max_outbound(0)
}

fn with(secrets: &[&str]) -> NodeBuilder {
    builder().network_secrets(secrets.iter().map(|text| secret(text)))
}

async fn connect(from: &Node, to: &Node) -> Result<PeerId, String> {
    let address = to.listen_addresses()[0].clone();
    within("a connect", from.connect(&address)).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn nodes_with_a_secret_in_common_meet_and_talk_and_others_are_refused_by_name() {
    let hub = with(&[FIRST]).start().await.unwrap();
    let inbox = hub.channel::<Raw>(ChannelConfig::new("/test/chat/1")).unwrap();
    let member = with(&[FIRST]).start().await.unwrap();
    assert_eq!(connect(&member, &hub).await, Ok(hub.peer_id()));
    let channel = member.channel::<Raw>(ChannelConfig::new("/test/chat/1")).unwrap();
    channel.send(hub.peer_id(), &Raw("hello".into())).await.unwrap();
    assert_eq!(within("a message", inbox.recv()).await, Some((member.peer_id(), Raw("hello".into()))));

    let wrong = with(&[SECOND]).start().await.unwrap();
    let none = builder().start().await.unwrap();
    for stranger in [&wrong, &none] {
        // Both ways: it doesn't matter who dials.
        let error = connect(stranger, &hub).await.unwrap_err();
        assert!(error.contains("the network secret was not proved"), "{error}");
        let error = connect(&hub, stranger).await.unwrap_err();
        assert!(error.contains("the network secret was not proved"), "{error}");
    }
    assert_eq!(hub.peers().connected().len(), 1);
    let told = none.peers().get(hub.peer_id());
    assert_eq!(told, None);
}

#[tokio::test]
async fn a_secret_is_changed_at_run_time_without_a_moment_in_which_members_cannot_meet() {
    let (a, b) = (with(&[FIRST]).start().await.unwrap(), with(&[FIRST]).start().await.unwrap());
    let meet = || async {
        let met = connect(&a, &b).await;
        if met.is_ok() {
            a.peers().disconnect(b.peer_id()).await;
            b.peers().disconnect(a.peer_id()).await;
            within("the end", async {
                while a.peers().get(b.peer_id()).is_some() || b.peers().get(a.peer_id()).is_some() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        met
    };
    let change =
        |node: &Node, to: &[&str]| node.set_network_secrets(to.iter().map(|text| secret(text))).unwrap();
    let steps: [(&Node, &[&str]); 4] =
        [(&a, &[SECOND, FIRST]), (&b, &[FIRST, SECOND]), (&a, &[SECOND]), (&b, &[SECOND])];
    assert_eq!(meet().await, Ok(b.peer_id()));
    for (node, to) in steps {
        change(node, to);
        assert_eq!(meet().await, Ok(b.peer_id()), "{to:?}");
    }
    change(&a, &[FIRST]);
    meet().await.unwrap_err();
    let error = a.set_network_secrets([]).unwrap_err();
    assert_eq!(error, ChangeSecretsError::None);
    let open = builder().start().await.unwrap();
    assert_eq!(open.set_network_secrets([secret(FIRST)]), Err(ChangeSecretsError::NotPrivate));
}

#[tokio::test]
async fn an_allow_list_holds_at_both_ends_and_changes_at_run_time() {
    let keys = [NodeKey::generate(), NodeKey::generate(), NodeKey::generate()];
    let [hub, friend, other] = keys.each_ref().map(NodeKey::peer_id);
    let node = |key: &NodeKey| builder().key(key.clone());
    let a = node(&keys[0]).allow(friend).start().await.unwrap();
    let b = node(&keys[1]).start().await.unwrap();
    let c = node(&keys[2]).start().await.unwrap();
    assert_eq!(connect(&b, &a).await, Ok(hub));
    let mut watch = a.peers().watch().await.unwrap();
    let error = connect(&c, &a).await.unwrap_err();
    assert!(error.contains("not admitted"), "{error}");
    let refused = |change: &Change| {
        *change == Change::Event(PeerEvent::Refused { peer: other, reason: RejectReason::NotAllowed })
    };
    within("the refusal", async { while !refused(&watch.next().await.unwrap()) {} }).await;
    let error = connect(&a, &c).await.unwrap_err();
    assert!(error.contains(&other.to_string()) && error.contains("allow-list"), "{error}");
    // Without its ID in the address, it is found out after the handshake.
    let bare = c.listen_addresses()[0].clone().without_peer_id();
    let error = within("a connect", a.connect(&bare)).await.unwrap_err().to_string();
    assert!(error.contains("allow-list"), "{error}");

    assert!(a.peers().allow(other).await);
    assert_eq!(connect(&c, &a).await, Ok(hub));
    assert!(a.peers().disallow(friend).await);
    let gone = |change: &Change| matches!(change, Change::Event(PeerEvent::Disconnected { peer, .. }) if *peer == friend);
    within("the end", async { while !gone(&watch.next().await.unwrap()) {} }).await;
    assert_eq!(a.peers().allowed().await, Some(vec![other]));
    connect(&b, &a).await.unwrap_err();
    a.peers().set_allowed(None).await;
    assert_eq!(connect(&b, &a).await, Ok(hub));
    assert!(!a.peers().allow(other).await, "there is no list any more");
}

#[tokio::test]
async fn a_list_and_a_secret_are_both_needed_where_both_are_set() {
    let keys = [NodeKey::generate(), NodeKey::generate(), NodeKey::generate()];
    let ids = keys.each_ref().map(NodeKey::peer_id);
    let hub = with(&[FIRST]).allow_list([ids[0], ids[1]]).start().await.unwrap();
    let both = with(&[FIRST]).key(keys[0].clone()).start().await.unwrap();
    let listed = builder().key(keys[1].clone()).start().await.unwrap();
    let knows = with(&[FIRST]).key(keys[2].clone()).start().await.unwrap();
    assert_eq!(connect(&both, &hub).await, Ok(hub.peer_id()));
    assert!(connect(&listed, &hub).await.unwrap_err().contains("secret"));
    assert!(connect(&knows, &hub).await.unwrap_err().contains("not admitted"));
}

#[tokio::test]
async fn a_start_that_contradicts_itself_says_so() {
    let error = with(&[FIRST]).foreign(ForeignPolicy::Allow).start().await.unwrap_err();
    assert!(
        matches!(error, StartError::ForeignWithSecret) && error.to_string().contains("--foreign"),
        "{error}"
    );
    let five: Vec<_> = (0..5).map(|number| secret(&format!("{FIRST} {number}"))).collect();
    let error = builder().network_secrets(five).start().await.unwrap_err();
    assert!(error.to_string().contains("5 network secrets"), "{error}");
}

/// What one stranger was told.
#[derive(Default)]
struct Told {
    bytes: Vec<u8>,
    /// Names of its own streams that were agreed to.
    agreed: Vec<String>,
    /// Names of the streams that the node opened.
    opened: Vec<String>,
    /// Answers to the stranger's hello.
    verdicts: Vec<Verdict>,
}

/// Connects as a stranger that speaks libp2p, asks for all that there is, and keeps every byte that comes until the connection ends.
async fn pry(node: &Node, hello: Option<Hello>) -> Told {
    let endpoint = Endpoint::bind(EndpointConfig::new(NodeKey::generate()), &[]).await.unwrap();
    let socket = node.listen_addresses()[0].socket_addr().unwrap();
    let connection = endpoint.dial(socket, Some(node.peer_id())).await.unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let mut asking = Vec::new();
    if let Some(hello) = hello {
        asking.push(tokio::spawn(say(connection.clone(), hello, told.clone())));
    }
    for name in ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/peerage/exchange/1", "/hidden/chat/1"] {
        asking.push(tokio::spawn(ask(connection.clone(), name, told.clone())));
    }
    let listening = async {
        while let Ok(stream) = connection.accept_stream().await {
            let (name, mut stream) = stream.negotiate(|_| true, LIMIT).await.unwrap();
            told.lock().unwrap().opened.push(name.to_string());
            while let Ok(Some(chunk)) = stream.recv.read_chunk(100_000).await {
                told.lock().unwrap().bytes.extend_from_slice(&chunk);
            }
        }
    };
    let cause =
        within("the end of the connection", async { tokio::join!(listening, connection.closed()).1 }).await;
    told.lock().unwrap().bytes.extend_from_slice(cause.to_string().as_bytes());
    for asking in asking {
        within("the end of a stream", asking).await.unwrap();
    }
    let mut told = told.lock().unwrap();
    std::mem::take(&mut *told)
}

async fn say(connection: Connection, hello: Hello, told: Arc<Mutex<Told>>) {
    let Ok(mut stream) = connection.open_lazy(HELLO).await else { return };
    let _ = stream.send.write_frame(&hello).await;
    let _ = stream.send.finish();
    if let Ok(Some(frame)) = stream.recv.read_frame(100_000).await {
        let mut told = told.lock().unwrap();
        told.agreed.push(HELLO.to_owned());
        told.bytes.extend_from_slice(&frame);
        let answer: Answer = prost::Message::decode(frame).unwrap();
        told.verdicts.extend(answer.verdict);
    }
}

async fn ask(connection: Connection, name: &'static str, told: Arc<Mutex<Told>>) {
    let Ok(mut stream) = connection.open(name).await else { return };
    let _ = stream.send.write_all(&[0; 32]).await;
    let _ = stream.send.finish();
    if stream.recv.negotiated().await.is_ok() {
        told.lock().unwrap().agreed.push(name.to_owned());
    }
    while let Ok(Some(chunk)) = stream.recv.read_chunk(100_000).await {
        told.lock().unwrap().bytes.extend_from_slice(&chunk);
    }
}

/// A node that has something to tell, and its words.
async fn talkative(builder: NodeBuilder) -> (Node, Vec<(&'static str, Vec<u8>)>) {
    let known = builder.clone().key(NodeKey::generate()).start().await.unwrap();
    let node = builder.moniker("hidden-moniker").start().await.unwrap();
    connect(&node, &known).await.unwrap();
    let port = |node: &Node| {
        let socket = node.listen_addresses()[0].socket_addr().unwrap();
        [&[4, 127, 0, 0, 1, 0x91, 0x02][..], &socket.port().to_be_bytes()].concat()
    };
    let words = vec![
        ("the network", b"hidden-net".to_vec()),
        ("the moniker", b"hidden-moniker".to_vec()),
        ("a channel", b"/hidden/chat/1".to_vec()),
        ("the agent", b"peerage/0".to_vec()),
        ("its address", port(&node)),
        ("another's address", port(&known)),
        ("another's ID", known.peer_id().to_bytes()),
    ];
    // They live as long as the test.
    std::mem::forget(known);
    (node, words)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn plain_hello() -> Hello {
    Hello { network: "hidden-net".into(), versions: vec![1], boot_nonce: 1, order: 1, ..Hello::default() }
}

/// Contract C-36.
#[tokio::test]
async fn a_stranger_learns_nothing_of_a_network_with_a_secret() {
    let (node, words) = talkative(with(&[FIRST])).await;
    let _channel = node.channel::<Raw>(ChannelConfig::new("/hidden/chat/1")).unwrap();
    let sealed = |proof: usize, body: usize| peerage_wire::hello::Sealed {
        proof: Bytes::from(vec![1; proof]),
        body: Bytes::from(vec![2; body]),
    };
    let hellos = [
        None,
        Some(plain_hello()),
        Some(Hello { sealed: vec![sealed(32, 1100)], ..Hello::default() }),
        Some(Hello { sealed: vec![sealed(0, 0); 100], ..plain_hello() }),
    ];
    for hello in hellos {
        let said = hello.is_some();
        let told = within("prying", Box::pin(pry(&node, hello))).await;
        for (what, word) in &words {
            assert!(!contains(&told.bytes, word), "it told {what}");
        }
        assert!(told.opened.iter().all(|name| name == HELLO), "{:?}", told.opened);
        assert!(told.agreed.iter().all(|name| name == HELLO), "{:?}", told.agreed);
        match &told.verdicts[..] {
            [] => assert!(!said),
            [Verdict::Reject(reject)] => {
                assert_eq!((reject.reason, reject.detail.as_str()), (RejectReason::NotProved.code(), ""));
                assert_eq!((reject.retry_after_ms, reject.alternatives.len()), (0, 0));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(node.peers().connected().len(), 1);
}

/// Contract C-36.
#[tokio::test]
async fn a_stranger_learns_nothing_of_a_network_with_an_allow_list() {
    let known = NodeKey::generate();
    let (listed, words) = (
        builder().key(known.clone()).start().await.unwrap(),
        [&b"hidden-net"[..], b"hidden-moniker", b"peerage/0"],
    );
    let node = builder().moniker("hidden-moniker").allow(known.peer_id()).start().await.unwrap();
    assert_eq!(connect(&listed, &node).await, Ok(node.peer_id()));
    for hello in [None, Some(plain_hello())] {
        let told = within("prying", Box::pin(pry(&node, hello))).await;
        assert!(words.iter().all(|word| !contains(&told.bytes, word)));
        assert!(told.opened.is_empty() && told.agreed.is_empty(), "{:?} {:?}", told.opened, told.agreed);
    }
}

#[tokio::test]
async fn the_same_stranger_learns_all_of_it_in_an_open_network() {
    let (node, words) = talkative(builder()).await;
    let _channel = node.channel::<Raw>(ChannelConfig::new("/hidden/chat/1")).unwrap();
    let prying = pry(&node, Some(plain_hello()));
    let told = within("the connection of a stranger that answers nothing", Box::pin(prying)).await;
    let missing: Vec<_> = words.iter().filter(|(_, word)| !contains(&told.bytes, word)).collect();
    assert!(
        missing.iter().all(|(what, _)| what.starts_with("another's")),
        "the test is blind for {missing:?}"
    );
}

/// A member's hello, taken from one connection and said on another, or said back, proves nothing.
/// Contract C-37.
#[tokio::test]
async fn a_hello_that_was_overheard_or_is_said_back_proves_nothing() {
    let member = with(&[FIRST]).start().await.unwrap();
    let other = with(&[FIRST]).start().await.unwrap();
    let endpoint = Endpoint::bind(EndpointConfig::new(NodeKey::generate()), &[]).await.unwrap();
    // Two connections of a stranger: to each of them it says what it hears on either.
    let mut lines = Vec::new();
    for node in [&member, &other] {
        let socket = node.listen_addresses()[0].socket_addr().unwrap();
        let connection = endpoint.dial(socket, Some(node.peer_id())).await.unwrap();
        let stream = within("a hello", connection.accept_stream()).await.unwrap();
        let (name, mut stream) = stream.negotiate(|_| true, LIMIT).await.unwrap();
        assert_eq!(&*name, HELLO);
        let hello: Hello = within("a hello", stream.recv.read_message(100_000)).await.unwrap().unwrap();
        assert_eq!(hello.sealed.len(), 1);
        lines.push((connection, stream, hello));
    }
    let (replayed, reflected) = (lines[1].2.clone(), lines[1].2.clone());
    for ((connection, _stream, _), hello) in lines.iter().zip([replayed, reflected]) {
        let mut stream = connection.open_lazy(HELLO).await.unwrap();
        stream.send.write_frame(&hello).await.unwrap();
        stream.send.finish().unwrap();
        let answer: Answer = within("an answer", stream.recv.read_message(100_000)).await.unwrap().unwrap();
        match answer.verdict {
            Some(Verdict::Reject(reject)) => assert_eq!(reject.reason, RejectReason::NotProved.code()),
            other => panic!("{other:?}"),
        }
    }
}
