//! Channels: a named, bounded queue of messages to every peer that has it.
//!
//! On the wire a channel is one stream in each direction, opened when the first message is sent, that carries uvarint-delimited
//! messages. The way of a message: [`Channel::send`] encodes it into the peer's [`outbox`]; the [`writer`](run_writer) hands what is
//! queued to the QUIC stream; the peer's [`reader`](run_reader) cuts the stream into messages and puts them into the [`inbox`];
//! [`Channel::recv`] decodes.

mod config;
mod inbox;
mod outbox;
mod streams;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use peerage_identity::PeerId;

use crate::error::SendError;
use crate::shared::Shared;

pub use config::ChannelConfig;
pub(crate) use inbox::Inbox;
pub(crate) use outbox::Outbox;
pub(crate) use streams::{run_reader, run_writer};

/// What a channel or a request carries: any protobuf message, or [`Raw`] bytes.
pub trait Payload: Sized + Send + 'static {
    /// Its encoded length in bytes.
    fn length(&self) -> usize;
    /// Writes exactly [`Payload::length`] bytes.
    fn write(&self, out: &mut BytesMut);
    /// The encoded bytes, when they are already there.
    fn as_bytes(&self) -> Option<&Bytes> {
        None
    }
    /// Reads it back.
    ///
    /// # Errors
    /// A sentence on what is wrong with the bytes.
    fn read(bytes: Bytes) -> Result<Self, String>;
}

impl<M: prost::Message + Default + 'static> Payload for M {
    fn length(&self) -> usize {
        self.encoded_len()
    }
    fn write(&self, out: &mut BytesMut) {
        self.encode(out).expect("the buffer grows as needed");
    }
    fn read(bytes: Bytes) -> Result<Self, String> {
        M::decode(bytes).map_err(|error| error.to_string())
    }
}

/// Bytes as they are, for applications with an encoding of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Raw(pub Bytes);

impl Payload for Raw {
    fn length(&self) -> usize {
        self.0.len()
    }
    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.0);
    }
    fn as_bytes(&self) -> Option<&Bytes> {
        Some(&self.0)
    }
    fn read(bytes: Bytes) -> Result<Self, String> {
        Ok(Self(bytes))
    }
}

/// What the node keeps of a registered channel.
#[derive(Debug)]
pub(crate) struct ChannelCore {
    pub(crate) config: ChannelConfig,
    pub(crate) inbox: Inbox,
}

/// A channel of this node. Clones share one receive queue; when the last is dropped, the channel is gone and its name free again.
pub struct Channel<M> {
    shared: Arc<Shared>,
    core: Arc<ChannelCore>,
    _registration: Arc<Registration>,
    payload: PhantomData<fn(M) -> M>,
}

impl<M: Payload> Channel<M> {
    pub(crate) fn new(shared: Arc<Shared>, core: Arc<ChannelCore>) -> Self {
        let registration = Registration { shared: shared.clone(), core: core.clone() };
        Self { shared, core, _registration: Arc::new(registration), payload: PhantomData }
    }

    /// The channel's name.
    pub fn name(&self) -> &str {
        &self.core.config.name
    }

    /// Queues a message to a connected peer, waiting while its queue is full. The first message to a peer also waits until the peer
    /// has said that it has the channel.
    ///
    /// Messages to one peer arrive in the order in which they were queued, each at most once. `Ok` means queued: it is lost if the
    /// connection ends before it was sent.
    ///
    /// # Errors
    /// [`SendError`]: refused, and why.
    pub async fn send(&self, peer: PeerId, message: &M) -> Result<(), SendError> {
        self.check_length(message)?;
        let outbox = self.shared.outbox(peer, &self.core)?;
        queue(&outbox, message).await?;
        outbox.opened().await
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    /// [`SendError::QueueFull`], or why it was refused.
    pub fn try_send(&self, peer: PeerId, message: &M) -> Result<(), SendError> {
        self.check_length(message)?;
        let outbox = self.shared.outbox(peer, &self.core)?;
        match message.as_bytes() {
            Some(bytes) => outbox.try_push_bytes(bytes),
            None => outbox.try_push(message.length(), |out| message.write(out)),
        }
    }

    /// A sender to one peer, for many messages: it looks the peer up once.
    ///
    /// # Errors
    /// [`SendError::NotConnected`].
    pub fn to(&self, peer: PeerId) -> Result<PeerSender<M>, SendError> {
        let outbox = self.shared.outbox(peer, &self.core)?;
        Ok(PeerSender { peer, outbox, channel: self.clone() })
    }

    /// Queues a message to every connected peer, encoded once. A peer whose queue is full refuses it; nobody waits for a slow one.
    ///
    /// The verdicts come in the order of the peer IDs. A foreign peer, or one that does not have the channel, is in the list with
    /// [`SendError::NotSupported`].
    pub async fn broadcast(&self, message: &M) -> Vec<(PeerId, Result<(), SendError>)> {
        self.broadcast_to(self.shared.connected_ids(), message).await
    }

    /// Queues a message to each of `peers`, encoded once.
    pub async fn broadcast_to(
        &self,
        peers: impl IntoIterator<Item = PeerId>,
        message: &M,
    ) -> Vec<(PeerId, Result<(), SendError>)> {
        let bytes = match message.as_bytes() {
            Some(bytes) => bytes.clone(),
            None => {
                let mut out = BytesMut::with_capacity(message.length());
                message.write(&mut out);
                out.freeze()
            }
        };
        let queued: Vec<_> = peers
            .into_iter()
            .map(|peer| {
                let outbox = self.check_length(message).and_then(|()| self.shared.outbox(peer, &self.core));
                (peer, outbox.and_then(|outbox| outbox.try_push_bytes(&bytes).map(|()| outbox)))
            })
            .collect();
        let mut verdicts = Vec::with_capacity(queued.len());
        for (peer, outbox) in queued {
            let verdict = match outbox {
                Ok(outbox) => outbox.opened().await,
                Err(error) => Err(error),
            };
            verdicts.push((peer, verdict));
        }
        verdicts
    }

    /// The next message from any peer; `None` when the node has been shut down. A message that can't be decoded is reported in the
    /// log and passed over.
    ///
    /// Cancel-safe: a message is not lost when the future is dropped.
    pub async fn recv(&self) -> Option<(PeerId, M)> {
        loop {
            let (peer, bytes) = self.core.inbox.recv().await?;
            match M::read(bytes) {
                Ok(message) => return Some((peer, message)),
                Err(error) => {
                    tracing::warn!(%peer, channel = self.name(), error, "a message cannot be decoded");
                }
            }
        }
    }

    fn check_length(&self, message: &M) -> Result<(), SendError> {
        let (length, most) = (message.length(), self.core.config.max_message_bytes);
        if length <= most {
            return Ok(());
        }
        Err(SendError::TooLarge { length, most, channel: self.core.config.name.clone() })
    }
}

async fn queue<M: Payload>(outbox: &Outbox, message: &M) -> Result<(), SendError> {
    match message.as_bytes() {
        Some(bytes) => outbox.push_bytes(bytes).await,
        None => outbox.push(message.length(), |out| message.write(out)).await,
    }
}

impl<M> Clone for Channel<M> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            core: self.core.clone(),
            _registration: self._registration.clone(),
            payload: PhantomData,
        }
    }
}

impl<M> fmt::Debug for Channel<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("config", &self.core.config).finish_non_exhaustive()
    }
}

/// Sends on one channel to one peer, over the connection that was there when it was made.
pub struct PeerSender<M> {
    peer: PeerId,
    outbox: Arc<Outbox>,
    channel: Channel<M>,
}

impl<M: Payload> PeerSender<M> {
    /// Whom it sends to.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Queues a message, waiting while the queue is full.
    ///
    /// # Errors
    /// [`SendError::Lost`] when that connection is gone; make a new sender then.
    pub async fn send(&self, message: &M) -> Result<(), SendError> {
        self.channel.check_length(message)?;
        queue(&self.outbox, message).await
    }

    /// Messages that are queued and not yet handed to the connection.
    pub fn queued(&self) -> u64 {
        self.outbox.queued()
    }
}

impl<M> fmt::Debug for PeerSender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerSender").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Gives the channel's name back when the last handle is dropped.
#[derive(Debug)]
struct Registration {
    shared: Arc<Shared>,
    core: Arc<ChannelCore>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.core.inbox.close();
        self.shared.registry.remove(&self.core.config.name);
        self.shared.drop_outboxes(&self.core.config.name);
    }
}
