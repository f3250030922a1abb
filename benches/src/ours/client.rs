//! The client's side.

use std::any::Any;

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use peerage::{CallConfig, Channel, ChannelConfig, Node, PeerId, PeerSender, Raw, SendError};
use peerage_bench_peer::{CHUNK, Client, Echo, Kind, Messages, Outcome, Priorities, SHORT};

use super::server::COUNT_DEADLINE;
use super::stream::OurStream;
use super::{COUNTED, ECHO, INTRODUCE, MESSAGES, PINGS, STREAMS, prio_channels};

/// A node that dials, with its channels.
pub(crate) struct Dialler {
    node: Node,
    channels: Channels,
}

#[derive(Clone)]
struct Channels {
    messages: Channel<Raw>,
    pings: Channel<Raw>,
    /// The urgent one and the bulk one of the work `prio`, and the same without priorities.
    prio: [[Channel<Raw>; 2]; 2],
}

impl Dialler {
    pub(super) fn new(node: Node) -> Outcome<Self> {
        let pair = |equal| -> Outcome<[Channel<Raw>; 2]> {
            let [urgent, bulk] = prio_channels(equal);
            Ok([node.channel(urgent)?, node.channel(bulk)?])
        };
        let channels = Channels {
            messages: node.channel(ChannelConfig::new(MESSAGES))?,
            pings: node.channel(ChannelConfig::new(PINGS))?,
            prio: [pair(false)?, pair(true)?],
        };
        Ok(Self { node, channels })
    }
}

impl peerage_bench_peer::Dialler for Dialler {
    type Client = Connected;

    async fn connect(&self, address: &str) -> Outcome<Connected> {
        let peer = self.node.connect(address).await?;
        Ok(Connected { node: self.node.clone(), peer, channels: self.channels.clone() })
    }

    async fn broadcast(&self, clients: &[Connected], count: u64, bytes: usize) -> Outcome<()> {
        let channel = &self.channels.messages;
        let message = Raw(Kind::Bulk.message(bytes));
        for _ in 0..count {
            for (peer, verdict) in channel.broadcast(&message).await {
                match verdict {
                    Ok(()) => {}
                    // A broadcast waits for nobody; whoever wants all to have it sends to the slow ones, and waits.
                    Err(SendError::QueueFull | SendError::NoMemory { .. }) => {
                        channel.send(peer, &message).await?
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        try_join_all(clients.iter().map(|client| client.counted(count))).await?;
        Ok(())
    }
}

/// A connection to a peer.
pub(crate) struct Connected {
    node: Node,
    peer: PeerId,
    channels: Channels,
}

impl Connected {
    /// Waits until the application of the other side has received so many messages.
    async fn counted(&self, count: u64) -> Outcome<()> {
        let wanted = Raw(Bytes::copy_from_slice(&count.to_be_bytes()));
        let config = CallConfig::default().deadline(COUNT_DEADLINE);
        let came: Raw = self.node.request_with(self.peer, COUNTED, &wanted, &config).await?;
        if came == wanted { Ok(()) } else { Err(format!("other messages than the {count} arrived").into()) }
    }
}

impl Client for Connected {
    type Stream = OurStream;

    async fn open(&self) -> Outcome<OurStream> {
        Ok(OurStream::new(self.node.open(self.peer, STREAMS).await?))
    }

    /// On a stream whose name leaves with the message, as whoever has one message for it would open it.
    async fn one_way(&self, message: Bytes) -> Outcome<()> {
        let mut stream = self.node.open_lazy(self.peer, STREAMS).await?;
        stream.send.write_chunk(message).await?;
        Ok(stream.send.finish()?)
    }

    async fn messages(&self, messages: Messages) -> Outcome<()> {
        let message = Raw(Kind::Bulk.message(messages.bytes));
        let sender = self.channels.messages.to(self.peer)?;
        for _ in 0..messages.count {
            sender.send(&message).await?;
        }
        self.counted(messages.count).await
    }

    async fn echo(&self) -> Outcome<Box<dyn Echo>> {
        Ok(ChannelEcho::open(&self.channels.pings, self.peer)?)
    }

    async fn request(&self) -> Outcome<()> {
        let question = Raw(Kind::Request.message(SHORT));
        let answer: Raw = self.node.request(self.peer, ECHO, &question).await?;
        if answer == question { Ok(()) } else { Err("another answer than the question".into()) }
    }

    async fn settle(&self) -> Outcome<Box<dyn Any + Send>> {
        self.node.identify(self.peer).await?;
        let word = Raw(Bytes::from_static(b"hello"));
        let _: Raw = self.node.request(self.peer, INTRODUCE, &word).await?;
        let mut echo = ChannelEcho::open(&self.channels.pings, self.peer)?;
        echo.send_and_take().await?;
        Ok(Box::new(echo))
    }

    async fn priorities(&self, equal: bool) -> Outcome<Priorities> {
        let [urgent, bulk] = &self.channels.prio[usize::from(equal)];
        let sender = bulk.to(self.peer)?;
        let saturate = Box::pin(async move {
            let message = Raw(Kind::Bulk.message(CHUNK));
            loop {
                sender.send(&message).await?;
            }
        });
        Ok(Priorities { control: ChannelEcho::open(urgent, self.peer)?, saturate })
    }

    async fn close(self) {
        self.node.peers().disconnect(self.peer).await;
    }
}

/// A channel on which messages of 32 bytes come back.
struct ChannelEcho {
    channel: Channel<Raw>,
    sender: PeerSender<Raw>,
    message: Raw,
}

impl ChannelEcho {
    fn open(channel: &Channel<Raw>, peer: PeerId) -> Outcome<Box<Self>> {
        let message = Raw(Kind::Echo.message(SHORT));
        Ok(Box::new(Self { channel: channel.clone(), sender: channel.to(peer)?, message }))
    }

    async fn send_and_take(&mut self) -> Outcome<()> {
        self.sender.send(&self.message).await?;
        let (_, back) = self.channel.recv().await.ok_or("the node stopped")?;
        if back == self.message { Ok(()) } else { Err("another message than was sent came back".into()) }
    }
}

impl Echo for ChannelEcho {
    fn ping(&mut self) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(self.send_and_take())
    }
}
