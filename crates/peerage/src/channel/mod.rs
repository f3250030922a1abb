//! Channels: a named, bounded queue of messages to every peer that has it.
//!
//! On the wire a channel is one stream in each direction, opened when the first message is sent, that carries uvarint-delimited
//! messages and nothing else. Between Peerage nodes the receiver answers on the same stream's other half: what it has accepted, and how far
//! the sender may go (`proto/channel.proto`).
//!
//! The way of a message: [`Channel::send`] encodes it into the peer's `outbox`, a [`queue`] with a bound; the `writer` hands what credit and
//! rate allow to the QUIC stream; the peer's `reader` puts whole messages into the sender's lane of its `inbox` and accounts for them;
//! [`Channel::recv`] takes from the lanes in turn and decodes; what was taken is returned to the sender as credit, by the rules of `window`. Writer and
//! reader have tasks of their own, in whose stead whoever sends a lone message, or waits for one, does their work ([`crate::shift`]).

mod block;
mod broadcast;
mod config;
mod cut;
mod gather;
mod inbox;
mod limits;
mod outbox;
mod pace;
mod payload;
mod plain;
mod queue;
mod reader;
mod seen;
mod status;
mod verdict;
mod views;
mod window;
mod writer;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peerage_identity::PeerId;
use tokio::sync::oneshot;

use crate::error::SendError;
use crate::memory::Budget;
use crate::shared::Shared;
use crate::shift::StandIns;

use block::Blocks;
pub(crate) use block::MAX_BLOCK;
pub use broadcast::To;
pub use config::{ChannelConfig, ChannelRate, Class, Overflow};
pub(crate) use cut::run_of;
pub(crate) use inbox::Inbox;
pub use limits::ChannelLimits;
pub(crate) use limits::in_hello;
use outbox::Offered;
pub(crate) use outbox::{EndedBy, Flight, Levels, Next, Outbox};
pub(crate) use outbox::{FIRST_CREDIT, MAX_MEMORY_PAUSE};
pub(crate) use pace::MAX_PACES;
use pace::Paces;
pub(crate) use payload::encoded;
pub use payload::{Payload, Raw};
pub(crate) use queue::{MIN_SHARED, Queue};
pub(crate) use reader::{MAX_FOREIGN_STREAMS, MAX_STREAMS, MEMORY_PATIENCE, start_reader};
pub(crate) use seen::{MAX_REMEMBERED, REMEMBERED, Seen};
pub use status::{ChannelStatus, ChannelTotals};
pub(crate) use status::{Counts, Sums};
pub use verdict::{Receipt, Verdict};
pub(crate) use views::{MAX_STREAM_VIEWS, MAX_VIEWS};
pub(crate) use writer::{MAX_ACCOUNT_BYTES, run_writer};

/// What the node keeps of a registered channel.
#[derive(Debug)]
pub(crate) struct ChannelCore {
    pub(crate) config: ChannelConfig,
    pub(crate) inbox: Inbox,
    pub(crate) memory: Arc<Budget>,
    pub(crate) counts: Arc<Counts>,
    blocks: Blocks,
    paces: Paces,
}

impl ChannelCore {
    pub(crate) fn new(config: ChannelConfig) -> Arc<Self> {
        let memory = Budget::new("memory_bytes", config.memory_bytes);
        Arc::new(Self {
            inbox: Inbox::new(&config),
            memory,
            counts: Arc::default(),
            blocks: Blocks::default(),
            paces: Paces::default(),
            config,
        })
    }
}

/// Whoever waits for a message stands in for the channel's readers and writers.
impl AsRef<StandIns> for ChannelCore {
    fn as_ref(&self) -> &StandIns {
        &self.inbox.receivers
    }
}

impl ChannelCore {
    /// Counts a message that was not queued.
    fn counted<T>(&self, queued: Result<T, SendError>) -> Result<T, SendError> {
        queued.inspect_err(|error| self.counts.refused(error))
    }
}

/// A channel of this node. Clones share one receive queue; when the last is dropped, the channel is gone and its name free again. What is queued
/// then is still sent, for [`ChannelConfig::linger`] at most, and before anything of a channel that is declared anew under the name.
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

    /// What it was declared as.
    pub fn config(&self) -> &ChannelConfig {
        &self.core.config
    }

    /// Queues a message to a connected peer; when its queue is full, as [`ChannelConfig::overflow`] says. The first message to a peer also waits
    /// until the peer has said that it has the channel, for as long as the policy waits for room at most, or for a second longer than the transport's
    /// `negotiation_timeout` where it does not wait. Without an answer by then the message is queued all the same.
    ///
    /// Messages to one peer arrive in the order in which they were queued, each at most once. `Ok` means queued: it is lost if the
    /// connection ends before it was sent. [`Channel::send_confirmed`] tells more.
    ///
    /// # Errors
    /// [`SendError`]: refused, and why.
    pub async fn send(&self, peer: PeerId, message: &M) -> Result<(), SendError> {
        let queueing = async {
            self.check_length(message.length())?;
            let outbox = self.shared.outbox(peer, &self.core)?;
            let open = outbox.push(message, None).await?;
            Ok((outbox, open))
        };
        let (outbox, open) = self.core.counted(queueing.await)?;
        if open { Ok(()) } else { self.await_opening(&outbox, outbox.patience()).await }
    }

    /// For whoever has queued a message: waits until it is known whether the peer has the channel. What is unknown after so long is no error, for the
    /// message is queued.
    async fn await_opening(&self, outbox: &Outbox, patience: Duration) -> Result<(), SendError> {
        self.shared.timeout(patience, outbox.opened()).await.unwrap_or(Ok(()))
    }

    /// Queues a message if there is room now, or can be made as [`ChannelConfig::overflow`] says.
    ///
    /// # Errors
    /// [`SendError::QueueFull`], or why it was refused.
    pub fn try_send(&self, peer: PeerId, message: &M) -> Result<(), SendError> {
        let queued = self
            .check_length(message.length())
            .and_then(|()| self.shared.outbox(peer, &self.core)?.try_push(message, None));
        self.core.counted(queued).map(|_| ())
    }

    /// Sends a message and waits until the peer's receive queue has it, or until it is known what became of it.
    pub async fn send_confirmed(&self, peer: PeerId, message: &M) -> Verdict {
        match self.queue_confirmed(peer, message).await {
            Ok(receipt) => receipt.await,
            Err(error) => Verdict::Refused(error),
        }
    }

    /// Queues a message as [`Channel::send`] does and returns its receipt, so that many can be on their way.
    ///
    /// # Errors
    /// [`SendError`]: refused, and why. [`SendError::NotConfirmed`] for a peer that is foreign or of an older version.
    pub async fn queue_confirmed(&self, peer: PeerId, message: &M) -> Result<Receipt, SendError> {
        self.core.counted(self.to(peer))?.queue_confirmed(message).await
    }

    /// A sender to one peer, for many messages: it looks the peer up once.
    ///
    /// # Errors
    /// [`SendError::NotConnected`].
    pub fn to(&self, peer: PeerId) -> Result<PeerSender<M>, SendError> {
        let outbox = self.shared.outbox(peer, &self.core)?;
        Ok(PeerSender { peer, outbox, channel: self.clone() })
    }

    /// The next message: of each peer in the order in which it sent them, the peers in turn. `None` when the node has been shut down. A message
    /// that can't be decoded is reported in the log and passed over.
    ///
    /// Cancel-safe: a message is not lost when the future is dropped.
    pub async fn recv(&self) -> Option<(PeerId, M)> {
        loop {
            let (peer, bytes) = self.core.inbox.recv().await?;
            if let Some(message) = self.decode(&peer, bytes) {
                return Some((peer, message));
            }
        }
    }

    /// Adds the next messages of one peer to `messages`, at most `most` of them, and tells whose they are: for whoever gets very many, because it looks
    /// into the queue once for those that came together. It waits for the first and for no other. The peers that have messages take turns by
    /// the call. `None` when the node has been shut down, or when `most` is 0.
    ///
    /// Cancel-safe: no message is lost when the future is dropped.
    pub async fn recv_many(&self, messages: &mut Vec<M>, most: usize) -> Option<PeerId> {
        if most == 0 {
            return None;
        }
        let before = messages.len();
        loop {
            let (peer, runs) = self.core.inbox.recv_runs(most).await?;
            for run in runs {
                messages.extend(cut::messages_of(run).filter_map(|bytes| self.decode(&peer, bytes)));
            }
            if messages.len() > before {
                return Some(peer);
            }
        }
    }

    /// The next message, if one is there.
    pub fn try_recv(&self) -> Option<(PeerId, M)> {
        loop {
            let (peer, bytes) = self.core.inbox.try_recv()?;
            if let Some(message) = self.decode(&peer, bytes) {
                return Some((peer, message));
            }
        }
    }

    #[inline]
    fn decode(&self, peer: &PeerId, bytes: bytes::Bytes) -> Option<M> {
        M::read(bytes).map_err(|error| self.note_undecodable(peer, &error)).ok()
    }

    #[cold]
    fn note_undecodable(&self, peer: &PeerId, error: &str) {
        self.core.counts.undecodable.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%peer, channel = self.name(), error, "a message cannot be decoded");
    }

    fn check_length(&self, length: usize) -> Result<(), SendError> {
        if self.fits(length) { Ok(()) } else { Err(self.too_large(length)) }
    }

    fn fits(&self, length: usize) -> bool {
        length <= self.core.config.max_message_bytes
    }

    #[cold]
    fn too_large(&self, length: usize) -> SendError {
        let config = &self.core.config;
        let (most, channel) = (config.max_message_bytes, config.name.clone());
        SendError::TooLarge { length, most, channel, at: None }
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

    /// Queues a message; when the queue is full, as [`ChannelConfig::overflow`] says.
    ///
    /// # Errors
    /// [`SendError::Lost`] when that connection is gone; make a new sender then.
    pub async fn send(&self, message: &M) -> Result<(), SendError> {
        // Most messages are taken in at once: nothing is moved for them but what they are.
        let length = message.length();
        let settled = if self.channel.fits(length) {
            match self.outbox.push_now(message, &mut None) {
                Offered::Open | Offered::Opening => return Ok(()),
                Offered::Refused(refusal) => self.outbox.push_refused(message, None, refusal).await,
            }
        } else {
            Err(self.channel.too_large(length))
        };
        self.channel.core.counted(settled).map(|_| ())
    }

    /// Queues a message and returns its receipt, as [`Channel::queue_confirmed`].
    ///
    /// # Errors
    /// [`SendError`]: refused, and why.
    pub async fn queue_confirmed(&self, message: &M) -> Result<Receipt, SendError> {
        let queueing = async {
            self.channel.check_length(message.length())?;
            if !self.outbox.confirms() {
                return Err(SendError::NotConfirmed { peer: self.peer });
            }
            let (reply, receipt) = oneshot::channel();
            self.outbox.push(message, Some(reply)).await?;
            Ok(Receipt(receipt))
        };
        self.channel.core.counted(queueing.await)
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
        self.shared.finish_outboxes_of(&self.core);
    }
}
