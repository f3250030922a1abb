//! What every part of a running node can reach.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use peerage_identity::{NetworkSecret, NodeKey, PeerId};
use peerage_machine::Random;
use peerage_peers::HelloFacts;
use peerage_transport::Endpoint;
use peerage_wire::hello as wire;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Timeout;
use tokio_util::future::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::about::About;
use crate::about::Sayings;
use crate::channel::{ChannelCore, EndedBy, Outbox};
use crate::clock::Clock;
use crate::dht::DhtCore;
use crate::driver::Message;
use crate::environment::Environment;
use crate::error::SendError;
use crate::hello::{self, Records};
use crate::limits::NodeLimits;
use crate::listening::Listening;
use crate::memory::{Budget, MemoryLimits};
use crate::metrics::{ChannelTable, EventCounts, RequestCounts};
use crate::peer::Peer;
use crate::registry::Registry;
use crate::request::{CallLimits, RequestLimits, Slots};
use crate::resolve::Resolve;
use crate::secret::Secrets;
use crate::shift::{Lending, Task};
use crate::store::Saving;
use crate::traffic::NodeTraffic;

/// The state that handles, sessions and the driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) key: NodeKey,
    pub(crate) me: PeerId,
    pub(crate) network: String,
    pub(crate) moniker: String,
    pub(crate) agent: String,
    pub(crate) boot_nonce: u64,
    pub(crate) clock: Clock,
    pub(crate) endpoint: Endpoint,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) registry: Registry,
    pub(crate) call_limits: CallLimits,
    pub(crate) limits: NodeLimits,
    pub(crate) listening: Listening,
    /// Signed records that peers sent lately.
    records: Records,
    /// What this network's nodes prove to each other; none in an open network.
    pub(crate) secrets: Secrets,
    /// What is on its way into the store.
    pub(crate) saving: Saving,
    pub(crate) to_driver: mpsc::Sender<Message>,
    /// Somebody who waited for a visit has gone. It takes no place in the driver's queue.
    pub(crate) visitor_left: Notify,
    pub(crate) tasks: TaskTracker,
    /// Where the tasks run.
    runtime: Handle,
    /// What others do in the stead of tasks.
    pub(crate) lending: Arc<Lending>,
    /// Ends every task.
    pub(crate) stop: CancellationToken,
    pub(crate) traffic: NodeTraffic,
    /// Messages that were queued and never sent.
    pub(crate) lost_messages: AtomicU64,
    /// Views of packets that wait in all inboxes.
    pub(crate) views: Arc<AtomicUsize>,
    /// Messages that were sent and never confirmed, to peers that confirm.
    pub(crate) unknown_messages: AtomicU64,
    pub(crate) memory_limits: MemoryLimits,
    /// What all channels hold.
    pub(crate) memory: Arc<Budget>,
    /// What all requests and answers hold.
    pub(crate) request_memory: Arc<Budget>,
    /// Places for requests of this node to all peers.
    pub(crate) calls: Slots,
    /// Places for requests that this node works on, over all protocols.
    pub(crate) serving: Slots,
    pub(crate) requests: Arc<RequestCounts>,
    /// What channels have counted.
    pub(crate) channel_counts: ChannelTable,
    /// For choices among peers.
    pub(crate) random: Mutex<Random>,
    /// What has happened to peers.
    pub(crate) events: EventCounts,
    /// What peers say about themselves, as far as they say the same.
    pub(crate) sayings: Sayings,
    /// The DHT, where the node was started with one.
    pub(crate) dht: Option<Arc<DhtCore>>,
    /// Peers that are told to nobody.
    private: RwLock<BTreeSet<PeerId>>,
    /// Admitted peers. Written when one comes or goes, read on each send by ID.
    peers: RwLock<HashMap<PeerId, Arc<Peer>>>,
}

/// What [`Shared`] is made of, besides the tables that start empty.
pub(crate) struct Parts {
    pub(crate) key: NodeKey,
    pub(crate) network: String,
    pub(crate) moniker: String,
    pub(crate) agent: String,
    pub(crate) boot_nonce: u64,
    pub(crate) clock: Clock,
    pub(crate) endpoint: Endpoint,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) call_limits: CallLimits,
    pub(crate) request_limits: RequestLimits,
    pub(crate) limits: NodeLimits,
    pub(crate) listening: Listening,
    pub(crate) secrets: Vec<NetworkSecret>,
    pub(crate) saving: Saving,
    pub(crate) to_driver: mpsc::Sender<Message>,
    pub(crate) memory_limits: MemoryLimits,
    pub(crate) random: Random,
    pub(crate) dht: Option<Arc<DhtCore>>,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            me: parts.key.peer_id(),
            key: parts.key,
            network: parts.network,
            moniker: parts.moniker,
            agent: parts.agent,
            boot_nonce: parts.boot_nonce,
            clock: parts.clock,
            endpoint: parts.endpoint,
            environment: parts.environment,
            resolver: parts.resolver,
            registry: Registry::new(),
            calls: Slots::new(parts.request_limits.max_asked, parts.request_limits.max_asked_waiting),
            call_limits: parts.call_limits,
            serving: Slots::new(parts.request_limits.max_served, parts.request_limits.max_served_waiting),
            requests: Arc::default(),
            channel_counts: ChannelTable::default(),
            limits: parts.limits,
            listening: parts.listening,
            records: Records::new(),
            secrets: Secrets::new(parts.secrets),
            saving: parts.saving,
            to_driver: parts.to_driver,
            visitor_left: Notify::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            lending: Lending::new(Handle::current()),
            stop: CancellationToken::new(),
            traffic: NodeTraffic::default(),
            lost_messages: AtomicU64::new(0),
            views: Arc::default(),
            unknown_messages: AtomicU64::new(0),
            memory: Budget::new("node_bytes", parts.memory_limits.node_bytes),
            request_memory: Budget::new("request_bytes", parts.memory_limits.request_bytes),
            memory_limits: parts.memory_limits,
            random: Mutex::new(parts.random),
            events: EventCounts::default(),
            sayings: Sayings::default(),
            dht: parts.dht,
            private: RwLock::default(),
            peers: RwLock::default(),
        })
    }

    /// Runs a task that ends with the node. It may be asked for outside of the runtime, as by the first message to a peer.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // An async block around the task would hold it twice: as what it captured and as what it awaits.
        self.tasks.spawn_on(task.with_cancellation_token_owned(self.stop.clone()), &self.runtime);
    }

    /// Runs what reads or writes a channel's stream. It ends with its connection, so with the node too: it takes no room to hear of that besides.
    pub(crate) fn spawn_shift(&self, task: Task) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Runs a task to its end, whether the node stops or not.
    pub(crate) fn spawn_whole<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn_on(task, &self.runtime)
    }

    /// A timeout by the node's own timers, whatever executor it is awaited on.
    pub(crate) fn timeout<F: Future>(&self, after: Duration, future: F) -> Timeout<F> {
        let _entered = self.runtime.enter();
        tokio::time::timeout(after, future)
    }

    /// What a peer's hello says to this node.
    pub(crate) fn read_hello(&self, peer: PeerId, hello: wire::Hello) -> (HelloFacts, About) {
        let (facts, mut about) = hello::read(&self.network, peer, hello, &self.records);
        // Nobody but the DHT asks for these: they would take room for each peer.
        if let (Some(_), Some(record)) = (&self.dht, &facts.record) {
            about.listen = record.addresses().iter().map(ToString::to_string).collect();
        }
        (facts, about)
    }

    /// An admitted peer.
    pub(crate) fn peer(&self, id: &PeerId) -> Option<Arc<Peer>> {
        self.read_peers().get(id).cloned()
    }

    /// Every admitted peer, in the order of their IDs.
    pub(crate) fn connected(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self.read_peers().values().cloned().collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    /// The queue to a peer on a channel.
    pub(crate) fn outbox(&self, peer: PeerId, core: &Arc<ChannelCore>) -> Result<Arc<Outbox>, SendError> {
        self.peer(&peer).ok_or(SendError::NotConnected { peer })?.outbox(core)
    }

    /// For the driver: a peer was admitted.
    pub(crate) fn insert_peer(&self, peer: Arc<Peer>) {
        let mut peers = self.peers.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        peers.insert(peer.id, peer);
        drop(peers);
        self.tell_dht();
    }

    /// Whether a peer is told to nobody.
    pub(crate) fn is_private(&self, peer: &PeerId) -> bool {
        self.private.read().unwrap_or_else(|poisoned| poisoned.into_inner()).contains(peer)
    }

    /// For the driver: these peers are told to nobody from now on.
    pub(crate) fn set_private(&self, peers: BTreeSet<PeerId>) {
        *self.private.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = peers;
        self.tell_dht();
    }

    /// Lets the DHT see who is connected, and what they serve.
    pub(crate) fn tell_dht(&self) {
        if let Some(dht) = &self.dht {
            dht.peers_changed.notify_one();
        }
    }

    /// For the driver: a peer's connection has ended. A newer one of the same peer stays.
    pub(crate) fn remove_peer(&self, peer: &Arc<Peer>, cause: &str) {
        let mut peers = self.peers.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if peers.get(&peer.id).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            peers.remove(&peer.id);
        }
        drop(peers);
        self.tell_dht();
        let lost = peer.end_outboxes(cause);
        self.lost_messages.fetch_add(lost, Ordering::Relaxed);
    }

    /// For the driver: nothing more is to be sent to a peer. What its queues hold is.
    pub(crate) fn let_go_of(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if peers.get(&peer.id).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            peers.remove(&peer.id);
        }
        drop(peers);
        peer.finish_outboxes();
    }

    /// Takes in no more for a channel. What its queues hold is sent, as long as the channel lingers; the rest is lost.
    pub(crate) fn finish_outboxes_of(self: &Arc<Self>, core: &Arc<ChannelCore>) {
        let left: Vec<_> = self.connected().iter().filter_map(|peer| peer.finish_outbox(core)).collect();
        if left.is_empty() {
            return;
        }
        let (shared, linger) = (self.clone(), core.config.linger);
        let giving_up = async move {
            tokio::time::sleep(linger).await;
            for outbox in left.iter().filter_map(Weak::upgrade) {
                let lost = outbox.end(&SendError::Closed, EndedBy::Break);
                shared.lost_messages.fetch_add(lost, Ordering::Relaxed);
            }
        };
        self.spawn(giving_up);
    }

    fn read_peers(&self) -> std::sync::RwLockReadGuard<'_, HashMap<PeerId, Arc<Peer>>> {
        self.peers.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
