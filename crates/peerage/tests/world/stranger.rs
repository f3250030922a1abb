//! A peer made by hand: it keeps to no rule and no time but what a test tells it to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage::{Environment, Node, NodeKey, PeerId};
use peerage_identity::SignedPeerRecord;
use peerage_transport::{
    CloseCause, CloseCode, Connection, Endpoint, EndpointConfig, Stream, TransportSettings,
};
use peerage_wire::frame;
use peerage_wire::hello::{Accept, Answer, Channel, Hello, answer::Verdict};
use prost::Message;
use tokio::time::Instant;

use crate::clock::{LIMIT, pass, until};
use crate::network::{Machine, World};

pub(crate) const HELLO: &str = "/peerage/hello/1";

/// One connection of it.
pub(crate) struct Stranger {
    pub(crate) key: NodeKey,
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
}

impl Stranger {
    /// Its endpoint, on a machine that has this address alone.
    pub(crate) async fn endpoint(
        world: &Arc<World>,
        ip: &str,
        key: &NodeKey,
        change: impl FnOnce(&mut TransportSettings),
    ) -> Endpoint {
        let machine = world.machine(99, &[ip]);
        let mut config = EndpointConfig::new(key.clone());
        change(&mut config.settings);
        let date: Arc<Machine> = machine.clone();
        config.time = Some(Arc::new(move || date.unix_now()));
        let at = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 4001);
        Endpoint::over(config, vec![machine.socket(at).unwrap()]).await.unwrap()
    }

    /// Connects to `node` and says nothing.
    pub(crate) async fn dial(world: &Arc<World>, ip: &str, node: &Node) -> Self {
        let key = NodeKey::generate();
        let endpoint = Self::endpoint(world, ip, &key, |_| ()).await;
        Self::over(key, endpoint, node).await
    }

    /// The same from an endpoint that is there.
    pub(crate) async fn over(key: NodeKey, endpoint: Endpoint, node: &Node) -> Self {
        let to = node.listen_addresses()[0].socket_addr().unwrap();
        let connection = endpoint.dial(to, Some(node.peer_id())).await.unwrap();
        connection.admit();
        Self { key, endpoint, connection }
    }

    /// Connects to `node`, is admitted, and has accepted it.
    pub(crate) async fn join(world: &Arc<World>, ip: &str, node: &Node) -> Self {
        let new = Self::dial(world, ip, node).await;
        new.meet(1, &new.hello(1)).await;
        new
    }

    /// The same with a hello of these versions that lists `channels`.
    pub(crate) async fn speaking(
        world: &Arc<World>,
        ip: &str,
        node: &Node,
        versions: &[u32],
        channels: &[&str],
    ) -> Self {
        let new = Self::dial(world, ip, node).await;
        new.meet_speaking(1, versions, channels).await;
        new
    }

    pub(crate) fn id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// A hello in which nothing is wrong. Version 2 keeps to credit.
    pub(crate) fn hello(&self, order: u64) -> Hello {
        Hello {
            network: "world".into(),
            versions: vec![1, 2],
            boot_nonce: 7,
            order,
            signed_record: SignedPeerRecord::sign(&self.key, 1, &[]).unwrap().as_bytes().clone(),
            ..Hello::default()
        }
    }

    /// Says this hello, answers the node's with yes, and waits until both have accepted.
    pub(crate) async fn meet(&self, order: u64, hello: &Hello) {
        let version = hello.versions.iter().copied().max().unwrap_or_default();
        let yes =
            Answer { verdict: Some(Verdict::Accept(Accept { order: order + 1, version, stay: false })) };
        let said = framed(hello.encode_to_vec());
        let (answer, ()) = tokio::join!(self.greet(said), self.answer(framed(yes.encode_to_vec())));
        assert!(matches!(answer.unwrap().verdict, Some(Verdict::Accept(_))));
        // So long both acceptances are under way.
        pass(Duration::from_millis(100)).await;
    }

    /// The same with a hello of these versions that lists `channels`.
    pub(crate) async fn meet_speaking(&self, order: u64, versions: &[u32], channels: &[&str]) {
        let channels = channels.iter().map(|name| channel(name)).collect();
        self.meet(order, &Hello { versions: versions.to_vec(), channels, ..self.hello(order) }).await;
    }

    /// Says a hello and reads the answer, if there is one.
    pub(crate) async fn greet(&self, hello: Bytes) -> Option<Answer> {
        let mut stream = self.connection.open_lazy(HELLO).await.unwrap();
        let _ = stream.send.write_chunk(hello).await;
        let _ = stream.send.finish();
        stream.recv.read_message(1 << 20).await.ok().flatten()
    }

    /// Answers the node's hello.
    pub(crate) async fn answer(&self, answer: Bytes) {
        let mut stream = self.next(HELLO).await;
        let _: Option<Hello> = stream.recv.read_message(1 << 20).await.unwrap();
        let _ = stream.send.write_chunk(answer).await;
        let _ = stream.send.finish();
    }

    /// The next stream that the node opens under a name. Others are dropped.
    pub(crate) async fn next(&self, wanted: &str) -> Stream {
        let next = async {
            loop {
                let stream = self.connection.accept_stream().await.unwrap();
                let (name, stream) = stream.negotiate(|_| true, LIMIT).await.unwrap();
                if &*name == wanted {
                    return stream;
                }
            }
        };
        tokio::time::timeout(LIMIT, next).await.unwrap_or_else(|_| panic!("no stream for {wanted}"))
    }

    /// Opens a stream for `name` and writes `bytes`.
    pub(crate) async fn begin(&self, name: &str, bytes: impl Into<Bytes>) -> Stream {
        let mut stream = self.connection.open_lazy(name).await.unwrap();
        stream.send.write_chunk(bytes.into()).await.unwrap();
        stream
    }

    /// Goes, and waits until `node` knows it.
    pub(crate) async fn leave(self, node: &Node) {
        let id = self.id();
        self.endpoint.close(CloseCode::Normal, "");
        until("its end", || node.peers().get(id).is_none()).await;
    }

    /// How long it takes from now until the node ends the connection, and how.
    pub(crate) async fn ends(&self) -> (Duration, CloseCause) {
        let start = Instant::now();
        let cause = tokio::time::timeout(LIMIT, self.connection.closed()).await.expect("it stays open");
        (start.elapsed(), cause)
    }
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel { name: name.into(), max_message_bytes: 1 << 20, ..Channel::default() }
}

/// A message with its length in front.
pub(crate) fn framed(body: impl AsRef<[u8]>) -> Bytes {
    let body = body.as_ref();
    [&frame::prefix(body.len())[..], body].concat().into()
}

/// A message of exactly so many bytes, with its length in front: what is missing is a field that nobody knows.
pub(crate) fn padded(message: &impl Message, length: usize) -> Bytes {
    let mut body = message.encode_to_vec();
    let rest = length - body.len();
    // The field's tag takes two bytes, its length up to three.
    let digits = (1..=3).find(|digits| rest - 2 - digits < 1 << (7 * digits)).unwrap();
    let filled = rest - 2 - digits;
    body.extend([0xc2, 0x0c]);
    for digit in 0..digits {
        let more = if digit + 1 < digits { 0x80 } else { 0 };
        body.push(((filled >> (7 * digit)) & 0x7f) as u8 | more);
    }
    body.resize(length, 0);
    framed(body)
}
