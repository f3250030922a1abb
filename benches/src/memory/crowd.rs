//! The processes that hold the connections. They talk by lines: a command on standard input, an answer on standard output.
//!
//! - `listen N`: addresses at which N connections can be made, separated by spaces;
//! - `dial N ADDRESS…`: makes N connections, to the addresses in turn, and lets each carry what belongs to it; `done`;
//! - `expect N`: waits for N connections that were made from outside, and lets each carry the same; `done`;
//! - `heap`: the bytes that are allocated, where they are counted.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use peerage::{Channel, ChannelConfig, Node, PeerId, PeersConfig, Raw, TransportSettings};
use peerage_transport::Rate;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Holder, heap_bytes};
use crate::Outcome;
use crate::raw::{self, Form};

const NETWORK: &str = "bench";
const CHANNEL: &str = "/bench/memory/1";
/// Bytes of the one message in each direction.
const MESSAGE: &[u8] = &[7; 64];
/// Connections that are made at the same time.
const AT_ONCE: usize = 16;

/// For a child: holds connections until standard input ends.
pub(crate) async fn hold(holder: Holder) -> Outcome<()> {
    let mut held = match holder {
        Holder::Node => Held::Node(Member::start().await?),
        Holder::Crowd => Held::Crowd { members: Vec::new(), fresh: 0 },
        Holder::Quinn => Held::Quinn(Quinn::new(None)?),
        Holder::QuinnKeptAlive => Held::Quinn(Quinn::new(Some(TransportSettings::default().keep_alive))?),
    };
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let count = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let addresses: Vec<String> = words.map(str::to_owned).collect();
        let answer = match command {
            "listen" => held.listen(count).await,
            "dial" => held.dial(count, &addresses).await.map(|()| "done".to_owned()),
            "expect" => held.expect(count).await.map(|()| "done".to_owned()),
            "heap" => Ok(heap_bytes().map_or("not counted".to_owned(), |bytes| bytes.to_string())),
            other => Err(format!("unknown command {other:?}").into()),
        };
        println!("{}", answer.unwrap_or_else(|error| format!("failed: {error}")));
    }
    Ok(())
}

enum Held {
    Node(Member),
    /// `fresh` is the first member that has no connection yet.
    Crowd {
        members: Vec<Member>,
        fresh: usize,
    },
    Quinn(Quinn),
}

impl Held {
    async fn listen(&mut self, count: usize) -> Outcome<String> {
        match self {
            Self::Node(member) => member.address(),
            Self::Crowd { members, fresh } => {
                add(members, *fresh + count).await?;
                let addresses: Outcome<Vec<_>> = members[*fresh..].iter().map(Member::address).collect();
                Ok(addresses?.join(" "))
            }
            Self::Quinn(quinn) => Ok(quinn.endpoint.local_addr()?.to_string()),
        }
    }

    async fn dial(&mut self, count: usize, addresses: &[String]) -> Outcome<()> {
        let to = |index: usize| addresses.get(index % addresses.len().max(1)).ok_or("no address to dial");
        match self {
            Self::Node(member) => {
                let member = &*member;
                let talks = stream::iter(0..count)
                    .map(|index| async move { member.talk(member.node.connect(to(index)?).await?).await });
                talks.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
                member.hear(count).await
            }
            Self::Crowd { members, fresh } => {
                add(members, *fresh + count).await?;
                let talks =
                    stream::iter(members[*fresh..].iter().enumerate()).map(|(index, member)| async move {
                        member.talk(member.node.connect(to(index)?).await?).await?;
                        member.hear(1).await
                    });
                talks.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
                *fresh = members.len();
                Ok(())
            }
            Self::Quinn(quinn) => quinn.dial(count, to(0)?).await,
        }
    }

    async fn expect(&mut self, count: usize) -> Outcome<()> {
        match self {
            Self::Node(member) => member.answer(count).await,
            Self::Crowd { members, fresh } => {
                let talks = stream::iter(&members[*fresh..]).map(|member| member.answer(1));
                talks.buffer_unordered(members.len() + 1).try_collect::<()>().await?;
                *fresh = members.len();
                Ok(())
            }
            Self::Quinn(quinn) => quinn.expect(count).await,
        }
    }
}

async fn add(members: &mut Vec<Member>, count: usize) -> Outcome<()> {
    while members.len() < count {
        members.push(Member::start().await?);
    }
    Ok(())
}

/// A node with its channel.
struct Member {
    node: Node,
    channel: Channel<Raw>,
}

impl Member {
    /// A node that takes whoever comes and dials nobody by itself.
    async fn start() -> Outcome<Self> {
        let plenty = Rate::new(1_000_000, 1_000_000);
        let mut transport = TransportSettings::default();
        (transport.admission.unvalidated, transport.admission.validated) = (plenty, plenty);
        let peers = PeersConfig {
            max_inbound: 20_000,
            max_outbound: 0,
            max_known_peers: 20_000,
            ..PeersConfig::default()
        };
        let node = Node::builder()
            .network(NETWORK)
            .listen("/ip4/127.0.0.1/udp/0/quic-v1")
            .peers_config(peers)
            .transport_settings(transport)
            .start()
            .await?;
        let channel = node.channel(ChannelConfig::new(CHANNEL))?;
        Ok(Self { node, channel })
    }

    fn address(&self) -> Outcome<String> {
        let addresses = self.node.listen_addresses();
        Ok(addresses.first().ok_or("the node does not listen")?.to_string())
    }

    /// Asks a peer who it is, and sends it the one message.
    async fn talk(&self, peer: PeerId) -> Outcome<()> {
        self.node.identify(peer).await?;
        Ok(self.channel.send(peer, &Raw(Bytes::from_static(MESSAGE))).await?)
    }

    /// Takes the messages of so many peers.
    async fn hear(&self, count: usize) -> Outcome<()> {
        for _ in 0..count {
            self.channel.recv().await.ok_or("the node stopped")?;
        }
        Ok(())
    }

    /// Talks back to so many peers as their messages come.
    async fn answer(&self, count: usize) -> Outcome<()> {
        let heard = stream::iter(0..count)
            .then(|_| async { self.channel.recv().await.ok_or("the node stopped") })
            .map_err(Into::into)
            .map_ok(|(peer, _)| self.talk(peer));
        heard.try_buffer_unordered(AT_ONCE).try_collect().await
    }
}

/// A quinn endpoint and what lives on it.
struct Quinn {
    endpoint: quinn::Endpoint,
    kept: Vec<(quinn::Connection, quinn::SendStream, quinn::RecvStream)>,
}

impl Quinn {
    fn new(keep_alive: Option<Duration>) -> Outcome<Self> {
        Ok(Self { endpoint: raw::endpoint(Form::DEFAULT, true, keep_alive)?, kept: Vec::new() })
    }

    async fn dial(&mut self, count: usize, address: &str) -> Outcome<()> {
        let (endpoint, to): (_, SocketAddr) = (&self.endpoint, address.parse()?);
        let dials = stream::iter(0..count).map(|_| async move {
            let connection = endpoint.connect(to, "bench")?.await?;
            let (mut send, mut recv) = connection.open_bi().await?;
            send.write_all(MESSAGE).await?;
            recv.read_exact(&mut [0; MESSAGE.len()]).await?;
            Outcome::Ok((connection, send, recv))
        });
        self.kept.extend(dials.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?);
        Ok(())
    }

    async fn expect(&mut self, count: usize) -> Outcome<()> {
        let endpoint = &self.endpoint;
        let arrivals = stream::iter(0..count).map(|_| async move {
            let connection = endpoint.accept().await.ok_or("the endpoint is closed")?.await?;
            let (mut send, mut recv) = connection.accept_bi().await?;
            recv.read_exact(&mut [0; MESSAGE.len()]).await?;
            send.write_all(MESSAGE).await?;
            Outcome::Ok((connection, send, recv))
        });
        self.kept.extend(arrivals.buffer_unordered(2 * AT_ONCE).try_collect::<Vec<_>>().await?);
        Ok(())
    }
}
