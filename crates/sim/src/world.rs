//! A world: a network with whole nodes on it, which can be started, crashed and started again.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use peerage::{
    CertificateKind, Change, DialAddress, Node, NodeBuilder, NodeKey, PeerEvent, PeerId, Shutdown,
    TransportSettings,
};
use peerage_machine::Random;
use sha2::{Digest, Sha256};
use tokio::task::AbortHandle;

use crate::disk::{Disk, Kept};
use crate::environment::{Names, SimEnvironment, Skew};
use crate::failed::Failed;
use crate::heard::{Heard, Said};
use crate::net::{Counters, DialSeen, HostId, Link, NatId, SimNet};

/// A simulated world. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct World {
    seed: u64,
    net: SimNet,
    names: Names,
    nodes: Arc<Mutex<Vec<SimNode>>>,
    heard: Arc<OnceLock<Heard>>,
}

/// What a node's builder is given on each start.
type Configure = Box<dyn Fn(NodeBuilder) -> NodeBuilder + Send + Sync>;

/// A node of a world, up or down. Clones are handles to the same one.
#[derive(Clone)]
pub struct SimNode {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    host: HostId,
    ip: IpAddr,
    key: NodeKey,
    listens: bool,
    skew: Skew,
    configure: Configure,
    life: Mutex<Life>,
    /// What every run of it has stored.
    kept: Kept,
    events: Arc<Mutex<Vec<(Duration, PeerEvent)>>>,
}

/// What changes when the node starts and crashes.
#[derive(Default)]
struct Life {
    node: Option<Node>,
    watcher: Option<AbortHandle>,
    disk: Option<Arc<Disk>>,
    starts: u64,
}

/// A node that isn't started yet.
#[must_use]
pub struct Description {
    world: World,
    name: String,
    host: Option<HostId>,
    key: Option<NodeKey>,
    listens: bool,
    skew: Skew,
}

impl World {
    /// A world in which nothing is yet. It needs the runtime that [`crate::simulate`] makes, and is best made by it.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            net: SimNet::new(seed),
            names: Names::default(),
            nodes: Arc::default(),
            heard: Arc::default(),
        }
    }

    /// What this world follows from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The network, for hosts, NAT boxes and taps.
    pub fn net(&self) -> &SimNet {
        &self.net
    }

    /// From now on what nodes say is kept in plain text, of those that are started later. It takes as much memory as they say.
    pub fn listen_in(&self) {
        self.heard.get_or_init(Heard::default);
    }

    /// What was said since [`World::listen_in`], stream by stream.
    pub fn heard(&self) -> Vec<Said> {
        self.heard.get().map(Heard::all).unwrap_or_default()
    }

    /// The names that nodes can look up.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Randomness for one purpose: the same for the same seed and label.
    pub fn random(&self, label: &str) -> Random {
        Random::from_seed(self.derive(label))
    }

    /// Starts a node on a host of its own on the Internet, where it listens on port 4400. `configure` completes its builder, on each start: it
    /// adds seeds, limits and so on. Whoever replaces the transport's settings starts from [`transport_settings`].
    ///
    /// # Errors
    /// When the node doesn't start.
    pub async fn node(
        &self,
        name: impl Into<String>,
        configure: impl Fn(NodeBuilder) -> NodeBuilder + Send + Sync + 'static,
    ) -> Result<SimNode, Failed> {
        self.describe(name).start(configure).await
    }

    /// Begins a node that differs from what [`World::node`] starts.
    pub fn describe(&self, name: impl Into<String>) -> Description {
        let (world, skew) = (self.clone(), Skew::Ahead(Duration::ZERO));
        Description { world, name: name.into(), host: None, key: None, listens: true, skew }
    }

    /// All nodes in the order in which they came, up or down.
    pub fn nodes(&self) -> Vec<SimNode> {
        lock(&self.nodes).clone()
    }

    /// What holds between nodes that no other link joins.
    pub fn default_link(&self, link: Link) {
        self.net.default_link(link);
    }

    /// Joins two nodes by a link of their own, both ways.
    pub fn link(&self, a: &SimNode, b: &SimNode, link: Link) {
        self.net.link(a.host(), b.host(), link);
    }

    /// As [`World::link`], one way only.
    pub fn one_way_link(&self, from: &SimNode, to: &SimNode, link: Link) {
        self.net.one_way_link(from.host(), to.host(), link);
    }

    /// Cuts the network into these groups; nodes that are in none form one more.
    pub fn partition(&self, groups: &[&[SimNode]]) {
        let hosts: Vec<Vec<HostId>> =
            groups.iter().map(|group| group.iter().map(SimNode::host).collect()).collect();
        let hosts: Vec<&[HostId]> = hosts.iter().map(Vec::as_slice).collect();
        self.net.partition(&hosts);
    }

    /// Stops every packet from one node to another; the other direction goes on.
    pub fn block(&self, from: &SimNode, to: &SimNode) {
        self.net.block(from.host(), to.host());
    }

    /// Ends the partition and all blocks.
    pub fn heal(&self) {
        self.net.heal();
    }

    /// Ends a node as a power cut does: it sends nothing more, and nobody is told. Handles that others hold to it find it shut down.
    pub fn crash(&self, node: &SimNode) {
        self.net.unplug(node.host());
        let mut life = lock(&node.inner.life);
        life.watcher.take().inspect(AbortHandle::abort);
        life.disk.take().inspect(|disk| disk.crash());
        if let Some(node) = life.node.take() {
            // Ends its tasks. What they say goes to sockets that are dead.
            tokio::spawn(node.close());
        }
    }

    /// Ends a node in good order. `None` when it was down.
    pub async fn stop(&self, node: &SimNode) -> Option<Shutdown> {
        let running = lock(&node.inner.life).node.take();
        let shutdown = match running {
            Some(running) => Some(running.close().await),
            None => None,
        };
        lock(&node.inner.life).watcher.take().inspect(AbortHandle::abort);
        self.net.unplug(node.host());
        shutdown
    }

    /// Drops the handle to a node, as a program does that ends it without ado: the host stays plugged in, so that what the node still says gets through. The node
    /// ends when nobody else holds a handle. False when it was down.
    pub fn let_go(&self, node: &SimNode) -> bool {
        lock(&node.inner.life).node.take().is_some()
    }

    /// Starts a node again that was crashed, stopped or let go: same host, key, disk and configuration, another boot.
    ///
    /// # Errors
    /// When it runs, or doesn't start.
    pub async fn restart(&self, node: &SimNode) -> Result<(), Failed> {
        if node.is_up() {
            return Err(Failed::new(format!("{} is running: crash or stop it first", node.name())));
        }
        let inner = &node.inner;
        lock(&inner.life).starts += 1;
        let starts = lock(&inner.life).starts;
        let environment = SimEnvironment {
            net: self.net.clone(),
            host: inner.host,
            skew: inner.skew,
            random: Mutex::new(self.random(&format!("node {} start {starts}", inner.name))),
            names: self.names.clone(),
            tap: self.heard.get().map(|heard| heard.of(&inner.name, starts)),
        };
        let disk = Arc::new(Disk::new(&inner.kept));
        let mut builder = Node::builder()
            .key(inner.key.clone())
            .moniker(inner.name.clone())
            .transport_settings(transport_settings())
            .store(disk.clone())
            .environment(Arc::new(environment));
        if inner.listens {
            builder = builder.listen(DialAddress::from_socket_addr(node.socket_address())?.without_peer_id());
        }
        let started = (inner.configure)(builder).start().await?;
        let watcher =
            tokio::spawn(watch(self.net.clone(), inner.host, started.clone(), inner.events.clone()));
        let mut life = lock(&inner.life);
        life.watcher = Some(watcher.abort_handle());
        life.disk = Some(disk);
        life.node = Some(started);
        Ok(())
    }

    /// Lets the world run for so long.
    pub async fn run_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Lets the world run until a condition holds, and tells how long that took. It is looked at every 10 ms, and the longer it takes the more rarely: at steps of
    /// a hundredth of what was waited.
    ///
    /// # Errors
    /// When it doesn't hold within `limit`: `what` says what was waited for.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<Duration, Failed> {
        let start = self.net.now();
        loop {
            if condition() {
                return Ok(self.net.now() - start);
            }
            let waited = self.net.now() - start;
            if waited >= limit {
                let reason = format!("{what}: not within {} simulated seconds", limit.as_secs_f64());
                return Err(Failed::new(reason));
            }
            tokio::time::sleep(GLANCE.max(waited / 100).min(limit - waited)).await;
        }
    }

    /// The time since the world began.
    pub fn now(&self) -> Duration {
        self.net.now()
    }

    /// What became of packets so far.
    pub fn counters(&self) -> Counters {
        self.net.counters()
    }

    /// Every dial so far, of all nodes.
    pub fn dials(&self) -> Vec<DialSeen> {
        self.net.dials()
    }

    /// The hash over everything that happened so far: the events of all nodes, and every packet's time, ends, length and fate.
    pub fn hash(&self) -> String {
        self.net.hash()
    }

    fn derive(&self, label: &str) -> [u8; 32] {
        Sha256::new_with_prefix(self.seed.to_le_bytes()).chain_update(label).finalize().into()
    }
}

impl Description {
    /// On this host instead of a new one.
    pub fn on(mut self, host: HostId) -> Self {
        self.host = Some(host);
        self
    }

    /// On a new host behind a NAT box.
    pub fn behind(self, nat: NatId) -> Self {
        let host = self.world.net.host_behind(nat);
        self.on(host)
    }

    /// It listens nowhere.
    pub fn dial_only(mut self) -> Self {
        self.listens = false;
        self
    }

    /// Its clock is off.
    pub fn skewed(mut self, skew: Skew) -> Self {
        self.skew = skew;
        self
    }

    /// Its key, instead of one that follows from the seed and its name: a clone has another's.
    pub fn key(mut self, key: NodeKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Starts the node; see [`World::node`].
    ///
    /// # Errors
    /// When the node doesn't start.
    pub async fn start(
        self,
        configure: impl Fn(NodeBuilder) -> NodeBuilder + Send + Sync + 'static,
    ) -> Result<SimNode, Failed> {
        let Self { world, name, host, key, listens, skew } = self;
        let host = host.unwrap_or_else(|| world.net.host());
        let ip = world.net.ip(host);
        let key = key.unwrap_or_else(|| NodeKey::from_seed(world.derive(&format!("key of {name}"))));
        let (configure, kept): (Configure, _) = (Box::new(configure), Kept::default());
        let (life, events) = (Mutex::default(), Arc::default());
        let node = SimNode {
            inner: Arc::new(Inner { name, host, ip, key, listens, skew, configure, life, kept, events }),
        };
        lock(&world.nodes).push(node.clone());
        world.restart(&node).await?;
        Ok(node)
    }
}

impl SimNode {
    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The host that it runs on.
    pub fn host(&self) -> HostId {
        self.inner.host
    }

    /// The node, to use as any other.
    ///
    /// # Panics
    /// When it is down.
    pub fn node(&self) -> Node {
        self.running().expect("the node is up: it was neither crashed nor stopped")
    }

    /// The node, unless it is down.
    pub fn running(&self) -> Option<Node> {
        lock(&self.inner.life).node.clone()
    }

    /// Whether it was started and neither crashed nor stopped.
    pub fn is_up(&self) -> bool {
        lock(&self.inner.life).node.is_some()
    }

    /// Its key.
    pub fn key(&self) -> &NodeKey {
        &self.inner.key
    }

    /// Its peer ID.
    pub fn peer_id(&self) -> PeerId {
        self.inner.key.peer_id()
    }

    /// Where it listens, with its peer ID, in the form that builders take.
    pub fn address(&self) -> String {
        let ip = self.socket_address();
        let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
        format!("/{family}/{}/udp/{PORT}/quic-v1/p2p/{}", ip.ip(), self.peer_id())
    }

    /// The same as a socket address.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.inner.ip, PORT)
    }

    /// The peers that it has admitted; none while it is down.
    pub fn connected(&self) -> Vec<PeerId> {
        let peers = self.running().map(|node| node.peers().connected()).unwrap_or_default();
        peers.into_iter().map(|peer| peer.peer_id).collect()
    }

    /// Whether both have admitted each other.
    pub fn is_connected_to(&self, other: &SimNode) -> bool {
        let has = |a: &SimNode, b: &SimNode| {
            a.running().is_some_and(|node| node.peers().get(b.peer_id()).is_some())
        };
        has(self, other) && has(other, self)
    }

    /// From now on its disk fails, whatever is read or written, or works again. On a disk that fails a node doesn't start.
    pub fn fail_disk(&self, fails: bool) {
        self.inner.kept.fail(fails);
    }

    /// How many rows of the DHT's records are on its disk.
    pub fn rows_on_disk(&self) -> usize {
        self.inner.kept.rows().len()
    }

    /// What the node has told since it was first started, with the world's time.
    pub fn events(&self) -> Vec<(Duration, PeerEvent)> {
        lock(&self.inner.events).clone()
    }
}

impl fmt::Debug for SimNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner.name)
    }
}

/// The transport settings of simulated nodes: the defaults, with a certificate whose length is always the same.
pub fn transport_settings() -> TransportSettings {
    TransportSettings { certificate: CertificateKind::Ed25519, ..TransportSettings::default() }
}

/// Takes down what a node tells.
async fn watch(net: SimNet, host: HostId, node: Node, events: Arc<Mutex<Vec<(Duration, PeerEvent)>>>) {
    let Some(mut watch) = node.peers().watch().await else { return };
    // Watching must not keep the node alive.
    drop(node);
    while let Some(change) = watch.next().await {
        net.note(host, &format!("{change:?}"));
        if let Change::Event(event) = change {
            lock(&events).push((net.now(), event));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often [`World::until`] looks at first.
const GLANCE: Duration = Duration::from_millis(10);
/// Where simulated nodes listen.
const PORT: u16 = 4400;
