//! A peer that speaks QUIC and TLS as it should, and everything above as it likes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage::quinn::AsyncUdpSocket;
use peerage_identity::{NodeKey, SignedPeerRecord};
use peerage_transport::{Connection, Endpoint, EndpointConfig, ReadError, Stream, StreamCode};
use peerage_wire::hello::{Accept, Answer, Hello, answer::Verdict};

use crate::failed::Failed;
use crate::world::{SimNode, World, transport_settings};

/// An attacker on a host of its own.
pub(crate) struct Intruder {
    pub(crate) key: NodeKey,
    endpoint: Endpoint,
    /// A second socket, for packets that are no QUIC.
    raw: Arc<dyn AsyncUdpSocket>,
}

impl Intruder {
    /// `label` decides its key.
    pub(crate) async fn new(world: &World, label: &str) -> Result<Self, Failed> {
        let (net, mut random) = (world.net(), world.random(&format!("intruder: {label}")));
        let host = net.host();
        let mut seed = || {
            let mut seed = [0; 32];
            random.fill(&mut seed);
            seed
        };
        let key = NodeKey::from_seed(seed());
        let mut config = EndpointConfig::new(key.clone());
        config.settings = transport_settings();
        config.seed = Some(seed());
        let clock = net.clone();
        config.time = Some(Arc::new(move || Duration::from_secs(1_893_456_000) + clock.now()));
        let bind = |port| net.bind(host, SocketAddr::new(net.ip(host), port));
        let endpoint = Endpoint::over(config, vec![bind(4400)?]).await?;
        Ok(Self { key, endpoint, raw: bind(4401)? })
    }

    /// A connection to the victim, before any hello.
    pub(crate) async fn connect(&self, victim: &SimNode) -> Result<Connection, Failed> {
        Ok(self.endpoint.dial(victim.socket_address(), Some(victim.peer_id())).await?)
    }

    /// Sends bytes that are no QUIC.
    pub(crate) fn throw(&self, victim: &SimNode, contents: &[u8]) -> Result<(), Failed> {
        let destination = victim.socket_address();
        let transmit = peerage::quinn::udp::Transmit {
            destination,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        };
        Ok(self.raw.try_send(&transmit)?)
    }

    /// A hello in which nothing is wrong yet.
    pub(crate) fn hello(&self) -> Result<Hello, Failed> {
        let record = SignedPeerRecord::sign(&self.key, 1_893_456_000_000, &[])?;
        Ok(Hello {
            network: "main".to_owned(),
            versions: vec![1],
            boot_nonce: 4711,
            order: 1,
            signed_record: record.as_bytes().clone(),
            observed_addr: Bytes::new(),
            channels: Vec::new(),
            agent: "intruder/1".to_owned(),
            moniker: String::new(),
            visit: false,
            services: Vec::new(),
            sealed: Vec::new(),
        })
    }

    /// Says this hello and reads the answer.
    pub(crate) async fn greet(
        &self,
        connection: &Connection,
        hello: &Hello,
    ) -> Result<Option<Answer>, Failed> {
        let mut stream = connection.open_lazy(HELLO).await?;
        stream.send.write_frame(hello).await?;
        stream.send.finish()?;
        Ok(stream.recv.read_message(100_000).await?)
    }

    /// A connection on which both sides have accepted the other.
    pub(crate) async fn admitted(&self, victim: &SimNode) -> Result<Connection, Failed> {
        let connection = self.connect(victim).await?;
        let answering = connection.clone();
        tokio::spawn(async move {
            while let Ok(stream) = answering.accept_stream().await {
                tokio::spawn(async move {
                    let negotiated = stream.negotiate(|name| name == HELLO, Duration::from_secs(5)).await;
                    if let Ok((_, stream)) = negotiated {
                        accept(stream).await;
                    }
                });
            }
        });
        self.greet(&connection, &self.hello()?).await?;
        Ok(connection)
    }
}

/// Answers a hello with yes.
async fn accept(mut stream: Stream) {
    if let Ok(Some(hello)) = stream.recv.read_message::<Hello>(100_000).await {
        let verdict = Verdict::Accept(Accept { order: hello.order + 1, version: 1, stay: false });
        let _ = stream.send.write_frame(&Answer { verdict: Some(verdict) }).await;
        let _ = stream.send.finish();
    }
}

/// What the other side did about a stream.
#[derive(Debug)]
pub(crate) enum Reaction {
    /// It ended the connection.
    Closed,
    /// It gave the stream up.
    Reset,
    /// It ended the stream, after so many bytes.
    Ended(usize),
    /// It said more than any answer holds.
    Endless,
    /// Nothing came, however long one waited.
    Silent,
}

/// Writes `bytes` on a new stream for `protocol`, in pieces, ends it if asked to, and waits for the other side's reaction.
pub(crate) async fn provoke(
    connection: &Connection,
    protocol: &str,
    bytes: Vec<u8>,
    finish: bool,
) -> Result<Reaction, Failed> {
    let Stream { mut send, mut recv } = connection.open_lazy(protocol).await?;
    let writing = async move {
        // The other side may stop reading at any time.
        let _ = send.write_chunk(Bytes::from(bytes)).await;
        if finish {
            let _ = send.finish();
        } else {
            std::future::pending::<()>().await;
        }
    };
    let reading = async {
        let mut count = 0;
        loop {
            match recv.read_chunk(65_536).await {
                Ok(Some(chunk)) => count += chunk.len(),
                Ok(None) => return Reaction::Ended(count),
                Err(ReadError::ConnectionLost(_)) => return Reaction::Closed,
                Err(_) => return Reaction::Reset,
            }
            if count > 1 << 20 {
                recv.stop(StreamCode::Cancelled);
                return Reaction::Endless;
            }
        }
    };
    let both = async {
        tokio::pin!(reading);
        tokio::select! {
            biased;
            reaction = &mut reading => reaction,
            () = writing => reading.await,
        }
    };
    Ok(tokio::time::timeout(PATIENCE, both).await.unwrap_or(Reaction::Silent))
}

/// The name of the hello.
pub(crate) const HELLO: &str = "/peerage/hello/1";
/// Longer than any deadline of the protocols provoked.
const PATIENCE: Duration = Duration::from_secs(15);
