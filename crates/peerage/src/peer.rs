//! An admitted peer, as the rest of the node sees it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_peers::Direction;
use peerage_transport::{Connection, Stream};
use tokio::sync::Notify;

use crate::channel::{ChannelCore, Outbox};
use crate::error::SendError;
use crate::request::Slots;
use crate::shared::Shared;

/// A connected peer and what it sends and gets.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) connection: Connection,
    pub(crate) direction: Direction,
    pub(crate) foreign: bool,
    pub(crate) shared: Arc<Shared>,
    about: Mutex<About>,
    outboxes: Mutex<BTreeMap<String, Arc<Outbox>>>,
    /// Told when an outbox is gone.
    outbox_gone: Notify,
    /// The older connection to the same peer whose place this one has taken.
    before: OnceLock<Weak<Peer>>,
    useful: AtomicBool,
    /// Places for our requests to it.
    pub(crate) calls: Slots,
    /// Inbound ping streams under way.
    pub(crate) pings: tokio::sync::Semaphore,
    /// Our ping stream: one per peer, kept for the next ping (libp2p ping).
    pub(crate) ping_stream: tokio::sync::Mutex<Option<Box<Stream>>>,
    /// Held while the peer is asked who it is: js-libp2p takes one such stream at a time and resets a second one.
    pub(crate) identifying: tokio::sync::Mutex<()>,
    /// Something has changed that the peer is still to be told of.
    pub(crate) push_due: AtomicBool,
    /// Held while it is told, so that it hears of changes in their order.
    pub(crate) pushing: tokio::sync::Mutex<()>,
}

/// What a peer says about itself. Nothing of it is proved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Its software, such as `peerage/0.1.0`.
    pub agent: String,
    /// Its name for people.
    pub moniker: String,
    /// The version of its protocol family, from identify.
    pub protocol_version: String,
    /// The protocols that it serves, where it has told us.
    pub protocols: Vec<String>,
    /// Where it says that it listens, from identify.
    pub listen: Vec<String>,
    /// The address at which it sees us.
    pub observed: Option<String>,
}

/// A connected peer, as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Who.
    pub peer_id: PeerId,
    /// Who opened the connection.
    pub direction: Direction,
    /// The other end of the path.
    pub address: SocketAddr,
    /// Smoothed round-trip time, as QUIC measures it.
    pub rtt: Duration,
    /// The type of its host key, such as `Ed25519`.
    pub key_type: String,
    /// The connection's keys were agreed on with X25519MLKEM768. Never without the feature `post-quantum`.
    pub post_quantum: bool,
    /// A node of another libp2p implementation.
    pub foreign: bool,
    /// What it says about itself.
    pub about: About,
}

/// Inbound ping streams that one peer may hold (libp2p ping: at most two).
const MAX_PING_STREAMS: usize = 2;

impl Peer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: Connection,
        direction: Direction,
        foreign: bool,
        about: About,
    ) -> Arc<Self> {
        let calls = &shared.call_limits;
        Arc::new(Self {
            id: connection.peer_id(),
            calls: Slots::new(calls.max_concurrent_per_peer, calls.max_waiting_per_peer),
            connection,
            direction,
            foreign,
            shared,
            about: Mutex::new(about),
            outboxes: Mutex::default(),
            outbox_gone: Notify::new(),
            before: OnceLock::new(),
            useful: AtomicBool::new(false),
            pings: tokio::sync::Semaphore::new(MAX_PING_STREAMS),
            ping_stream: tokio::sync::Mutex::new(None),
            identifying: tokio::sync::Mutex::new(()),
            push_due: AtomicBool::new(false),
            pushing: tokio::sync::Mutex::new(()),
        })
    }

    pub(crate) fn info(&self) -> PeerInfo {
        PeerInfo {
            peer_id: self.id,
            direction: self.direction,
            address: self.connection.remote_address(),
            rtt: self.connection.rtt(),
            key_type: format!("{:?}", self.connection.public_key().key_type()),
            post_quantum: self.connection.is_post_quantum(),
            foreign: self.foreign,
            about: self.about().clone(),
        }
    }

    /// Changes what is known about the peer.
    pub(crate) fn about(&self) -> MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// An application's message passed: the connection has proved its worth.
    pub(crate) fn mark_useful(&self) {
        if !self.useful.load(Ordering::Relaxed) {
            self.useful.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_useful(&self) -> bool {
        self.useful.load(Ordering::Relaxed)
    }

    /// The queue to this peer on one channel; its writer is started on first use.
    pub(crate) fn outbox(self: &Arc<Self>, core: &Arc<ChannelCore>) -> Result<Arc<Outbox>, SendError> {
        let mut outboxes = self.lock_outboxes();
        if let Some(outbox) = outboxes.get(&core.config.name)
            && !outbox.has_ended()
        {
            return Ok(outbox.clone());
        }
        if let Some(cause) = self.connection.close_cause() {
            return Err(SendError::Lost { peer: self.id, cause: cause.to_string() });
        }
        let outbox = Outbox::new(&core.config);
        outboxes.insert(core.config.name.clone(), outbox.clone());
        drop(outboxes);
        let writing = crate::channel::run_writer(self.clone(), core.clone(), outbox.clone());
        match self.before.get().and_then(Weak::upgrade) {
            // Spawned as it is: within another future it would take its room twice.
            None => self.shared.spawn(writing),
            Some(before) => {
                let channel = core.config.name.clone();
                self.shared.spawn(async move {
                    before.outbox_is_gone(&channel).await;
                    writing.await;
                });
            }
        }
        Ok(outbox)
    }

    /// Takes the place of the peer's older connection: what is queued there on a channel is sent before anything that is queued here.
    pub(crate) fn follow(&self, before: &Arc<Self>) {
        let _ = self.before.set(Arc::downgrade(before));
    }

    async fn outbox_is_gone(&self, channel: &str) {
        loop {
            let gone = self.outbox_gone.notified();
            if !self.lock_outboxes().contains_key(channel) {
                return;
            }
            gone.await;
        }
    }

    /// Forgets an outbox whose writer has ended.
    pub(crate) fn forget_outbox(&self, channel: &str, ended: &Arc<Outbox>) {
        let mut outboxes = self.lock_outboxes();
        if outboxes.get(channel).is_some_and(|outbox| Arc::ptr_eq(outbox, ended)) {
            outboxes.remove(channel);
        }
        drop(outboxes);
        self.outbox_gone.notify_waiters();
    }

    /// Ends the queue of one channel.
    pub(crate) fn drop_outbox(&self, channel: &str) {
        if let Some(outbox) = self.lock_outboxes().remove(channel) {
            outbox.end(SendError::Closed);
            self.outbox_gone.notify_waiters();
        }
    }

    /// Ends every queue. How many messages were never sent.
    pub(crate) fn end_outboxes(&self, cause: &str) -> u64 {
        let outboxes = std::mem::take(&mut *self.lock_outboxes());
        self.outbox_gone.notify_waiters();
        let lost =
            |outbox: Arc<Outbox>| outbox.end(SendError::Lost { peer: self.id, cause: cause.to_owned() });
        outboxes.into_values().map(lost).sum()
    }

    /// Takes in no more messages; the writers send what there is.
    pub(crate) fn finish_outboxes(&self) {
        self.lock_outboxes().values().for_each(|outbox| outbox.finish());
    }

    /// Whether every writer has ended.
    pub(crate) fn is_drained(&self) -> bool {
        self.lock_outboxes().is_empty()
    }

    fn lock_outboxes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Outbox>>> {
        self.outboxes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
