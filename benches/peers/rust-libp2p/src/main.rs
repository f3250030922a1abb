//! rust-libp2p as the benchmark measures it: QUIC, libp2p-stream for streams, request-response for requests.
//!
//! Settings are the library's own but for what `node.rs` names. It resumes TLS sessions and has no switch against that, so that each measured
//! handshake is made by a swarm of its own.

mod frames;
mod node;
mod requests;
mod streams;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use peerage_bench_peer::{
    Client, Dialler, Kind, Messages, Outcome, Peer, SHORT, Served, Service, Stream as _,
};

use crate::node::Node;
use crate::streams::{Duplex, FRAMES, ONE_WAY, PLAIN};

fn main() -> ExitCode {
    peerage_bench_peer::main::<RustLibp2p>()
}

struct RustLibp2p;

impl Peer for RustLibp2p {
    const NAME: &'static str = "rust-libp2p";
    /// Streams and requests are addressed to peers, not to connections.
    const ONE_CONNECTION_PER_PAIR: bool = true;

    type Dialler = Swarms;

    fn new(_: &str) -> Outcome<Self> {
        Ok(Self)
    }

    async fn serve(&self) -> Outcome<Served> {
        let node = Node::start().await?;
        streams::serve(&node.control(), &Service::default())?;
        Ok(Served { address: node.address.to_string(), keep: Box::new(node) })
    }

    async fn dialler(&self) -> Outcome<Swarms> {
        Ok(Swarms { one: Arc::new(Node::start().await?), fresh: Mutex::default() })
    }
}

/// A node that dials, and those that were made ready for one handshake each.
struct Swarms {
    one: Arc<Node>,
    fresh: Mutex<Vec<Arc<Node>>>,
}

impl Dialler for Swarms {
    type Client = Connected;

    async fn prepare(&self, connections: u64) -> Outcome<()> {
        for _ in 0..connections {
            let node = Arc::new(Node::start().await?);
            self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push(node);
        }
        Ok(())
    }

    async fn connect(&self, address: &str) -> Outcome<Connected> {
        let address: Multiaddr = address.parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            return Err(format!("{address} names no peer: it has to end with /p2p/ID").into());
        };
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let node = fresh.unwrap_or_else(|| self.one.clone());
        node.dial(peer, address).await?;
        Ok(Connected { node, peer })
    }
}

/// The connection of a node to a peer.
struct Connected {
    node: Arc<Node>,
    peer: PeerId,
}

impl Client for Connected {
    type Stream = Duplex;

    async fn open(&self) -> Outcome<Duplex> {
        Ok(Duplex::new(streams::open(&mut self.node.control(), self.peer, PLAIN).await?))
    }

    async fn messages(&self, messages: Messages) -> Outcome<()> {
        let mut stream = streams::open(&mut self.node.control(), self.peer, FRAMES).await?;
        frames::send(&mut stream, messages).await
    }

    async fn request(&self) -> Outcome<()> {
        let question = Kind::Request.message(SHORT).to_vec();
        let answer = self.node.request(self.peer, question.clone()).await?;
        if answer == question { Ok(()) } else { Err("the answer is not the question".into()) }
    }

    async fn one_way(&self, message: Bytes) -> Outcome<()> {
        let mut stream = Duplex::new(self.node.control().open_stream(self.peer, ONE_WAY).await?);
        stream.write(message).await?;
        stream.finish().await
    }

    async fn close(self) {
        self.node.disconnect(self.peer);
    }
}
