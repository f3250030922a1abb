//! A peer made by hand that keeps to no rules but those it is told to.

use std::net::SocketAddr;

use bytes::Bytes;
use peerage::{Node, NodeKey, PeerId};
use peerage_identity::SignedPeerRecord;
use peerage_transport::{Connection, Endpoint, EndpointConfig, Stream};
use peerage_wire::hello::{Accept, Answer, Channel, Hello, answer::Verdict};

use crate::common::{LIMIT, connected, within};
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
            let accept = Accept { order: 2, version: 1, stay: false };
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
