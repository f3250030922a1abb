//! `/interop/chan/1`: a channel of ours, which a foreign node speaks as a stream of messages, each with its length in front.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, Node, PeerId, Raw};
use peerage_wire::frame;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::Outcome;

/// The channel's name.
pub(crate) const NAME: &str = "/interop/chan/1";
/// Message lengths, over and over: those at which the length in front grows, an empty one, and one of several packets.
const LENGTHS: [usize; 8] = [1, 127, 128, 0, 300, 16_383, 16_384, 70_000];

/// What came from each peer and was not taken yet.
type Queues = HashMap<PeerId, VecDeque<Bytes>>;

/// The channel, and what it has received.
#[derive(Clone)]
pub(crate) struct Messages {
    channel: Channel<Raw>,
    received: Arc<watch::Sender<Queues>>,
}

impl Messages {
    /// Declares the channel and begins to receive.
    pub(crate) fn of(node: &Node) -> Outcome<Self> {
        let channel = node.channel::<Raw>(ChannelConfig::new(NAME))?;
        let received = Arc::new(watch::Sender::new(Queues::new()));
        let (from, to) = (channel.clone(), received.clone());
        tokio::spawn(async move {
            while let Some((peer, message)) = from.recv().await {
                to.send_modify(|queues| queues.entry(peer).or_default().push_back(message.0));
            }
        });
        Ok(Self { channel, received })
    }

    /// Sends so many random messages to a peer.
    pub(crate) async fn send(&self, peer: PeerId, messages: usize) -> Outcome<Value> {
        let mut tally = Tally::default();
        for length in LENGTHS.into_iter().cycle().take(messages) {
            let mut message = vec![0; length];
            getrandom::fill(&mut message)?;
            tally.add(&message);
            self.channel.send(peer, &Raw(message.into())).await?;
        }
        Ok(tally.into_json(0))
    }

    /// Waits until a peer has sent so many messages, and takes them out.
    pub(crate) async fn take(&self, peer: PeerId, messages: usize) -> Outcome<Value> {
        let mut news = self.received.subscribe();
        news.wait_for(|queues| queues.get(&peer).map_or(0, VecDeque::len) >= messages).await?;
        let (mut tally, mut left) = (Tally::default(), 0);
        self.received.send_modify(|queues| {
            let queue = queues.entry(peer).or_default();
            queue.drain(..messages).for_each(|message| tally.add(&message));
            left = queue.len();
        });
        Ok(tally.into_json(left))
    }
}

/// Messages in their order: how many, and what they were.
#[derive(Default)]
struct Tally {
    messages: usize,
    bytes: usize,
    digest: Sha256,
}

impl Tally {
    fn add(&mut self, message: &[u8]) {
        self.messages += 1;
        self.bytes += message.len();
        self.digest.update(frame::prefix(message.len()));
        self.digest.update(message);
    }

    /// As an answer; `left` messages lie behind those that were asked for.
    fn into_json(self, left: usize) -> Value {
        let sum: String = self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"messages": self.messages, "bytes": self.bytes, "sha256": sum, "left": left})
    }
}
