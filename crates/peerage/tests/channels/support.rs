//! What the tests share: nodes on loopback, and a peer made by hand that keeps to no rules but those it is told to.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use peerage::{Change, Node, NodeBuilder, NodeKey, PeerEvent, PeerId, Raw};
use peerage_identity::SignedPeerRecord;
use peerage_transport::{Connection, Endpoint, EndpointConfig, Stream};
use peerage_wire::hello::{Accept, Answer, Channel, Hello, answer::Verdict};

/// Far more than anything here takes; a test that gets there has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn builder() -> NodeBuilder {
    Node::builder().network("test").listen("/ip4/127.0.0.1/udp/0/quic-v1")
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

/// Connects `from` to `to`.
pub(crate) async fn join(from: &Node, to: &Node) {
    within("a connection", from.connect(&to.listen_addresses()[0])).await.unwrap();
    connected(to, from.peer_id()).await;
}

/// Waits until `node` has admitted `peer`.
pub(crate) async fn connected(node: &Node, peer: PeerId) {
    wait_for(
        node,
        |event| matches!(event, PeerEvent::Connected { peer: p, .. } if *p == peer),
        |watch| watch.iter().any(|info| info.peer_id == peer),
    )
    .await;
}

/// Waits until `node` has no connection to `peer`.
pub(crate) async fn gone(node: &Node, peer: PeerId) {
    wait_for(
        node,
        |event| matches!(event, PeerEvent::Disconnected { peer: p, .. } if *p == peer),
        |watch| watch.iter().all(|info| info.peer_id != peer),
    )
    .await;
}

async fn wait_for(
    node: &Node,
    wanted: impl Fn(&PeerEvent) -> bool,
    already: impl Fn(&[peerage::PeerInfo]) -> bool,
) {
    let mut watch = node.peers().watch().await.unwrap();
    if already(&watch.connected) {
        return;
    }
    let happens = async {
        loop {
            if let Change::Event(event) = watch.next().await.unwrap()
                && wanted(&event)
            {
                return;
            }
        }
    };
    within("an event", happens).await;
}

pub(crate) fn raw(text: &str) -> Raw {
    Raw(Bytes::copy_from_slice(text.as_bytes()))
}

/// A node whose every byte the test decides.
pub(crate) struct Handmade {
    pub(crate) id: PeerId,
    pub(crate) connection: Connection,
    /// Alive as long as its connection.
    _endpoint: Endpoint,
}

impl Handmade {
    /// Connects to `node` and is admitted, with a hello of these versions that lists `channels`. Who speaks a version after ours says more in its messages than we know.
    pub(crate) async fn connect(node: &Node, versions: &[u32], channels: &[&str]) -> Self {
        let new = Self::dial(node.listen_addresses()[0].socket_addr().unwrap(), versions, channels).await;
        connected(node, new.id).await;
        new
    }

    /// The same with a node of which only the address is known; it may take a moment longer to say that it has admitted us.
    pub(crate) async fn dial(address: SocketAddr, versions: &[u32], channels: &[&str]) -> Self {
        let key = NodeKey::generate();
        let endpoint = Endpoint::bind(EndpointConfig::new(key.clone()), &[]).await.unwrap();
        let connection = endpoint.dial(address, None).await.unwrap();
        let channel = |name: &&str| Channel {
            name: (*name).to_owned(),
            max_message_bytes: 1 << 20,
            ..Channel::default()
        };
        let hello = Hello {
            network: "test".into(),
            versions: versions.to_vec(),
            boot_nonce: 7,
            order: 1,
            signed_record: SignedPeerRecord::sign(&key, 1, &[]).unwrap().as_bytes().clone(),
            channels: channels.iter().map(channel).collect(),
            ..Hello::default()
        };
        let asking = async {
            let mut stream = connection.open_lazy("/peerage/hello/1").await.unwrap();
            stream.send.write_chunk(later(&hello, versions)).await.unwrap();
            stream.send.finish().unwrap();
            stream.recv.read_message::<Answer>(1 << 16).await.unwrap().unwrap()
        };
        let answering = async {
            let (_, mut stream) = accept(&connection).await;
            let theirs: Hello = stream.recv.read_message(1 << 16).await.unwrap().unwrap();
            let accept = Accept { order: 2, version: 1 };
            let answer = Answer { verdict: Some(Verdict::Accept(accept)) };
            stream.send.write_chunk(later(&answer, versions)).await.unwrap();
            stream.send.finish().unwrap();
            theirs
        };
        let (answer, _) = within("both hellos", async { tokio::join!(asking, answering) }).await;
        assert!(matches!(answer.verdict, Some(Verdict::Accept(_))), "{answer:?}");
        Self { id: key.peer_id(), connection, _endpoint: endpoint }
    }

    /// The next stream that the node opens under a name.
    pub(crate) async fn accept(&self, name: &str) -> Stream {
        loop {
            let (other, stream) = within("a stream", accept(&self.connection)).await;
            if other == name {
                return stream;
            }
        }
    }
}

async fn accept(connection: &Connection) -> (String, Stream) {
    let (name, stream) = connection.accept_stream().await.unwrap().negotiate(|_| true, LIMIT).await.unwrap();
    (name.to_string(), stream)
}

/// A message with its length in front; from a version after ours, with fields that nobody here knows.
fn later(message: &impl prost::Message, versions: &[u32]) -> Bytes {
    let mut bytes = message.encode_to_vec();
    if versions.iter().any(|version| *version > 2) {
        bytes.extend_from_slice(UNKNOWN_FIELDS);
    }
    framed(&bytes)
}

/// Number 200 with three bytes, and number 201 with a number.
pub(crate) const UNKNOWN_FIELDS: &[u8] = &[0xc2, 0x0c, 3, 1, 2, 3, 0xc8, 0x0c, 0x7f];

/// A message with its length in front.
pub(crate) fn framed(payload: &[u8]) -> Bytes {
    let mut out = peerage_wire::frame::prefix(payload.len()).to_vec();
    out.extend_from_slice(payload);
    out.into()
}
