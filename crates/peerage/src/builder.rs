//! Building a node: what it may do, then [`NodeBuilder::start`].

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use peerage_identity::{
    AddressError, DialAddress, ListenAddress, NetworkSecret, NodeKey, PeerId, parse_peer_id,
};
use peerage_machine::{Machine, Random};
use peerage_peers::{ForeignPolicy, Input, PeerClass, PeerManager, PeersConfig, Role};
use peerage_transport::{Endpoint, EndpointConfig, TransportSettings};
use tokio::sync::mpsc;

use crate::bench::{self, BenchLimits, Ledger};
use crate::clock::Clock;
use crate::data_dir::DataDir;
use crate::dht::{self, DhtConfig, DhtCore};
use crate::environment::{Environment, SystemEnvironment, seed};
use crate::error::{RegisterError, StartError};
use crate::limits::NodeLimits;
use crate::listening::Listening;
use crate::memory::MemoryLimits;
use crate::node::Node;
use crate::protocols::identify;
use crate::registry::Service;
use crate::request::{CallLimits, RequestLimits};
use crate::resolve::Resolve;
use crate::shared::{Parts, Shared};
use crate::store::{RedbStore, Saving, Store};
use crate::{dial, driver, listening, secret, seed_file};

/// Messages that may wait for the driver. Senders wait when it is full.
pub(crate) const DRIVER_QUEUE: usize = 1024;
/// The longest moniker, in bytes.
pub(crate) const MAX_MONIKER: usize = 64;

/// Collects what a node should be. Nothing happens before [`NodeBuilder::start`], which also reports what was wrong with any value.
#[derive(Debug, Clone)]
#[must_use]
pub struct NodeBuilder {
    key: Option<NodeKey>,
    data_dir: Option<PathBuf>,
    network: String,
    moniker: String,
    listen: Vec<String>,
    contacts: Vec<(Role, String)>,
    classes: Vec<(PeerClass, String)>,
    peers: PeersConfig,
    transport: TransportSettings,
    calls: CallLimits,
    requests: RequestLimits,
    environment: Arc<dyn Environment>,
    resolver: Option<Arc<dyn Resolve>>,
    seed_files: Vec<PathBuf>,
    store: Option<Arc<dyn Store>>,
    limits: NodeLimits,
    secrets: Vec<NetworkSecret>,
    allowed: Option<BTreeSet<PeerId>>,
    foreign: Option<ForeignPolicy>,
    serve_perf: bool,
    serve_bench: bool,
    bench: BenchLimits,
    memory: MemoryLimits,
    dht: Option<DhtConfig>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            key: None,
            data_dir: None,
            network: "main".to_owned(),
            moniker: String::new(),
            listen: Vec::new(),
            contacts: Vec::new(),
            classes: Vec::new(),
            peers: PeersConfig::default(),
            transport: TransportSettings::default(),
            calls: CallLimits::default(),
            requests: RequestLimits::default(),
            environment: Arc::new(SystemEnvironment),
            resolver: None,
            seed_files: Vec::new(),
            store: None,
            limits: NodeLimits::default(),
            secrets: Vec::new(),
            allowed: None,
            foreign: None,
            serve_perf: false,
            serve_bench: false,
            bench: BenchLimits::default(),
            memory: MemoryLimits::default(),
            dht: None,
        }
    }
}

impl NodeBuilder {
    /// The node's key. Without one, and without a data directory, the node has a new key that is forgotten with it.
    pub fn key(mut self, key: NodeKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Where the node keeps its key, made on first use, its address book and its bans. One running node at a time holds the directory.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// The name of the overlay, 1 to 32 of `a-z0-9-`. Nodes of different networks refuse each other. Default: `main`.
    pub fn network(mut self, name: impl Into<String>) -> Self {
        self.network = name.into();
        self
    }

    /// A name for people, at most 64 bytes; others show it and never trust it.
    pub fn moniker(mut self, name: impl Into<String>) -> Self {
        self.moniker = name.into();
        self
    }

    /// An address to listen at, such as `/ip4/0.0.0.0/udp/4400/quic-v1`; port 0 lets the system choose. May be given several times. Without
    /// one, the node only dials.
    pub fn listen(mut self, address: impl Display) -> Self {
        self.listen.push(address.to_string());
        self
    }

    /// A contact for the first dial, such as `/ip4/203.0.113.7/udp/4400/quic-v1/p2p/12D3…`. May be given several times.
    pub fn seed(mut self, address: impl Display) -> Self {
        self.contacts.push((Role::Seed, address.to_string()));
        self
    }

    /// A file with one seed a line, read at the start; empty lines and what follows a `#` are passed over. A line that is no address is
    /// reported with its number and passed over too. May be given several times.
    pub fn seed_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.seed_files.push(path.into());
        self
    }

    /// Where the address book, the bans and what is said of peers at run time ([`crate::Peers::set_class`], [`crate::Peers::allow`]) are kept over restarts. Default: a file in the data directory; without one, nowhere.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// A peer that is always wanted: redialled for ever, outside the limits. The address needs a peer ID. May be given several times.
    pub fn persistent(mut self, address: impl Display) -> Self {
        self.contacts.push((Role::Persistent, address.to_string()));
        self
    }

    /// A peer that is admitted whatever the limits say: its peer ID, or an address with one. May be given several times.
    pub fn unconditional(mut self, peer: impl Display) -> Self {
        self.classes.push((PeerClass::Unconditional, peer.to_string()));
        self
    }

    /// A peer that is never told to others: its peer ID, or an address with one. May be given several times.
    pub fn private(mut self, peer: impl Display) -> Self {
        self.classes.push((PeerClass::Private, peer.to_string()));
        self
    }

    /// Connections that others may open to us. Default: 40.
    pub fn max_inbound(mut self, most: usize) -> Self {
        self.peers.max_inbound = most;
        self
    }

    /// Connections that we open and keep. Default: 10.
    pub fn max_outbound(mut self, most: usize) -> Self {
        self.peers.max_outbound = most;
        self
    }

    /// Whether nodes of other libp2p implementations are admitted. Default: as [`NodeBuilder::peers_config`] says, which is yes, in an open network; no
    /// in a private one. In a network with a secret they can't be, because they can't prove it.
    pub fn foreign(mut self, policy: ForeignPolicy) -> Self {
        self.foreign = Some(policy);
        self
    }

    /// Makes the network private: only nodes that know one of these secrets are admitted, and nobody else is told anything. Up to four are taken
    /// at once, so that a change can go through the network: first each node is given the new one beside the old, then the old one is taken away.
    pub fn network_secrets(mut self, secrets: impl IntoIterator<Item = NetworkSecret>) -> Self {
        self.secrets = secrets.into_iter().collect();
        self
    }

    /// Makes the network private: only peers that were allowed are dialled and admitted. May be called several times, and together with
    /// [`NodeBuilder::network_secrets`]. [`crate::Peers::allow`] does it at run time; where there is a store, it is kept there, and adds to what is said here at
    /// the next start. Without a call of this the network is open, whatever was stored.
    pub fn allow(mut self, peer: PeerId) -> Self {
        self.allowed.get_or_insert_default().insert(peer);
        self
    }

    /// As [`NodeBuilder::allow`], for all of these at once. An empty list allows nobody, until [`crate::Peers::allow`] does.
    pub fn allow_list(mut self, peers: impl IntoIterator<Item = PeerId>) -> Self {
        self.allowed.get_or_insert_default().extend(peers);
        self
    }

    /// After so long without a packet a connection is lost; the smaller value of the two sides holds. Keep-alives are sent at a third
    /// of it, at least every 4 s. Default: 30 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.transport.set_idle_timeout(timeout);
        self
    }

    /// How many requests this node sends to one peer at once.
    pub fn call_limits(mut self, limits: CallLimits) -> Self {
        self.calls = limits;
        self
    }

    /// How many requests this node works on, and sends, at once: over all protocols and peers.
    pub fn request_limits(mut self, limits: RequestLimits) -> Self {
        self.requests = limits;
        self
    }

    /// The limits of the node itself at once.
    pub fn limits(mut self, limits: NodeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// All limits of the peer manager at once.
    pub fn peers_config(mut self, config: PeersConfig) -> Self {
        self.peers = config;
        self
    }

    /// All settings of the transport at once.
    pub fn transport_settings(mut self, settings: TransportSettings) -> Self {
        self.transport = settings;
        self
    }

    /// Serves `/perf/1.0.0`, by which any libp2p node can measure the path to this one, within [`NodeBuilder::bench_limits`]. Default: not served.
    pub fn serve_perf(mut self) -> Self {
        self.serve_perf = true;
        self
    }

    /// Lets peers measure this node as `peerage bench` does: streams, channels and requests under the names in [`crate::bench`], and `/perf/1.0.0`, within
    /// [`NodeBuilder::bench_limits`]. Default: not served.
    pub fn serve_bench(mut self) -> Self {
        (self.serve_bench, self.serve_perf) = (true, true);
        self
    }

    /// What being measured may cost, where [`NodeBuilder::serve_bench`] or [`NodeBuilder::serve_perf`] allows it.
    pub fn bench_limits(mut self, limits: BenchLimits) -> Self {
        self.bench = limits;
        self
    }

    /// The outside world: sockets, timers, the date, randomness. Default: the operating system's.
    pub fn environment(mut self, environment: Arc<dyn Environment>) -> Self {
        self.environment = environment;
        self
    }

    /// How often a node that listens at a wildcard address looks whether the machine's addresses have changed, at least 100 ms. Default: 5 s. See
    /// [`Node::network_changed`].
    pub fn interface_interval(mut self, interval: Duration) -> Self {
        self.limits.interface_interval = interval.max(Duration::from_millis(100));
        self
    }

    /// How much memory channels, and requests, may use.
    pub fn memory(mut self, limits: MemoryLimits) -> Self {
        self.memory = limits;
        self
    }

    /// Takes part in the network's DHT: the node finds peers by their IDs, publishes where it can be reached, and keeps records for others where it listens.
    /// Default: it doesn't.
    pub fn dht(mut self, config: DhtConfig) -> Self {
        self.dht = Some(config);
        self
    }

    /// What looks names up. Default: the environment's resolver, which is the system's where there is no other environment.
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Starts the node: it listens, dials its contacts and admits peers from now on.
    ///
    /// # Errors
    /// [`StartError`]: a value that makes no sense, a data directory or a socket that can't be had.
    pub async fn start(self) -> Result<Node, StartError> {
        self.boxed().await
    }

    /// All that a node runs follows from this future. A plain function holds it, so that it is compiled here, and not again with each program that starts a node.
    #[inline(never)]
    fn boxed(self) -> BoxFuture<'static, Result<Node, StartError>> {
        Box::pin(self.begin())
    }

    async fn begin(mut self) -> Result<Node, StartError> {
        check_network(&self.network)?;
        self.peers.foreign = Some(self.foreign_policy()?);
        if !self.secrets.is_empty() {
            // Newcomers cannot be shut out of a network whose members know one another by a secret: its connections may stay.
            self.peers.rotation_interval = Duration::ZERO;
        }
        if self.moniker.len() > MAX_MONIKER {
            let detail =
                format!("the moniker has {} bytes: at most {MAX_MONIKER} are allowed", self.moniker.len());
            return Err(StartError::Limits(detail));
        }
        self.calls.check().map_err(StartError::Limits)?;
        self.requests.check().map_err(StartError::Limits)?;
        self.memory.validate().map_err(StartError::Limits)?;
        let listen =
            self.listen.iter().map(|text| ListenAddress::from_str(text)).collect::<Result<Vec<_>, _>>()?;
        self.limits.validate().map_err(StartError::Limits)?;
        self.bench.validate().map_err(StartError::Limits)?;
        if let Some(dht) = &self.dht {
            dht.validate().map_err(StartError::Limits)?;
        }
        let most = self.limits.max_listen;
        if listen.len() > most {
            let detail =
                format!("{} listen addresses: at most {most} are allowed (max_listen)", listen.len());
            return Err(StartError::Limits(detail));
        }
        let mut contacts = parse_contacts(&self.contacts)?;
        for path in &self.seed_files {
            let seeds = seed_file::read(path).await?;
            contacts.extend(seeds.into_iter().map(|address| (address, Role::Seed)));
        }
        let classes = parse_classes(&self.classes)?;
        let environment = self.environment;
        let seed = || seed(environment.as_ref()).map_err(StartError::Entropy);
        let data_dir = self.data_dir.as_deref().map(DataDir::open).transpose()?;
        let key = match (self.key, &data_dir) {
            (Some(key), _) => key,
            (None, Some(folder)) => folder.key()?,
            (None, None) => NodeKey::from_seed(seed()?),
        };
        let clock = Clock::start(environment.unix_now());
        let sockets: Vec<SocketAddr> = listen.iter().map(ListenAddress::socket_addr).collect();
        let config = endpoint_config(&key, self.transport, &environment, seed()?);
        let endpoint = Endpoint::bind(config, &sockets).await?;
        report_buffers(&endpoint);

        let (now_millis, interval) = (clock.now().unix_millis(), self.limits.interface_interval);
        let listening = Listening::new(&key, &endpoint, environment.as_ref(), now_millis, interval)
            .map_err(|error| StartError::Limits(error.to_string()))?;
        let (to_driver, messages) = mpsc::channel(DRIVER_QUEUE);
        let dht = self.dht.as_ref().map(|config| DhtCore::new(&self.network, config));
        let (dht, dht_messages) = dht.unzip();
        let mut random = Random::from_seed(seed()?);
        let boot_nonce = random.number();
        let in_folder = |folder: &DataDir| -> Arc<dyn Store> { Arc::new(RedbStore::at(folder.book())) };
        let store = self.store.or_else(|| data_dir.as_ref().map(in_folder));
        let keeps_book = store.is_some();
        let saving = Saving::new(store);
        let stored = saving.load().await?;
        let shared = Shared::new(Parts {
            key,
            network: self.network,
            moniker: self.moniker,
            agent: concat!("peerage/", env!("CARGO_PKG_VERSION")).to_owned(),
            boot_nonce,
            clock: clock.clone(),
            endpoint,
            call_limits: self.calls,
            request_limits: self.requests,
            limits: self.limits,
            resolver: self.resolver.unwrap_or_else(|| environment.resolver()),
            environment: environment.clone(),
            listening,
            secrets: self.secrets,
            saving,
            to_driver,
            memory_limits: self.memory,
            random: random.fork(),
            dht: dht.clone(),
        });
        let ledger = Ledger::new(self.bench, &shared);
        let cannot_serve = |error: RegisterError| StartError::Limits(error.to_string());
        if self.serve_perf {
            let service = Service::Perf(ledger.clone());
            shared.registry.add(crate::protocols::perf::PROTOCOL, service).map_err(cannot_serve)?;
        }
        let rows = if dht.is_some() { shared.saving.load_rows().await? } else { Vec::new() };
        if let (Some(config), Some(core), Some(messages)) = (self.dht, dht, dht_messages) {
            dht::start(&shared, core, config, !listen.is_empty(), random.fork(), rows, messages)
                .map_err(cannot_serve)?;
        }
        let node = Node::new(shared.clone(), data_dir.map(Arc::new));
        if self.serve_bench {
            bench::start(&node, &shared, &ledger).map_err(cannot_serve)?;
        }
        let mut manager = PeerManager::new(self.peers, shared.me, boot_nonce, random);
        warn_of_contacts(self.allowed.as_ref(), &contacts);
        let now = clock.now();
        manager.handle(now, Input::SetAllowed { peers: self.allowed });
        for (peer, class) in classes {
            manager.handle(now, Input::SetClass { peer, class, on: true });
        }
        if keeps_book {
            manager.handle(now, Input::Bans { bans: stored.bans });
            manager.handle(now, Input::Load { peers: stored.peers });
            let saving = shared.clone();
            shared.spawn(async move { saving.saving.run().await });
        }
        for (address, role) in contacts {
            manager.handle(now, Input::Add { address, role });
        }
        if keeps_book {
            manager.handle(now, Input::Standings { standings: stored.standings });
        }
        shared.spawn(driver::run(shared.clone(), manager, messages));
        let lending = shared.clone();
        shared.spawn(async move { lending.lending.run(|| lending.registry.hand_back()).await });
        shared.spawn(listening::tell_announced(shared.clone()));
        let (services, addresses) = (shared.registry.changes(), shared.listening.changes());
        shared.spawn(identify::push_changes(shared.clone(), services, addresses));
        shared.spawn(dial::accept(shared.clone()));
        shared.spawn(listening::watch_interfaces(shared.clone()));
        Ok(node)
    }
}

impl NodeBuilder {
    /// What holds for foreign nodes, after a check of what makes the network private.
    fn foreign_policy(&self) -> Result<ForeignPolicy, StartError> {
        let chosen = self.foreign.or(self.peers.foreign);
        if !self.secrets.is_empty() {
            secret::check(&self.secrets)?;
            if chosen == Some(ForeignPolicy::Allow) {
                return Err(StartError::ForeignWithSecret);
            }
        }
        let private = self.allowed.is_some() || !self.secrets.is_empty();
        Ok(chosen.unwrap_or(if private { ForeignPolicy::Refuse } else { ForeignPolicy::Allow }))
    }
}

/// A contact that is not allowed is not dialled: that is hardly what was meant.
fn warn_of_contacts(allowed: Option<&BTreeSet<PeerId>>, contacts: &[(DialAddress, Role)]) {
    let Some(allowed) = allowed else { return };
    for peer in contacts.iter().filter_map(|(address, _)| address.peer_id()) {
        if !allowed.contains(&peer) {
            tracing::warn!(%peer, "a seed or persistent peer is not on the allow-list and will not be dialled: add it with --allow");
        }
    }
}

fn check_network(name: &str) -> Result<(), StartError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=32).contains(&name.len()) && name.chars().all(good) {
        return Ok(());
    }
    Err(StartError::NetworkName { name: name.to_owned() })
}

fn parse_contacts(contacts: &[(Role, String)]) -> Result<Vec<(DialAddress, Role)>, AddressError> {
    contacts
        .iter()
        .map(|(role, text)| {
            let address = DialAddress::from_str(text)?;
            if *role == Role::Persistent {
                address.require_peer_id()?;
            }
            Ok((address, *role))
        })
        .collect()
}

/// Each text is a peer ID or an address with one.
fn parse_classes(classes: &[(PeerClass, String)]) -> Result<Vec<(PeerId, PeerClass)>, StartError> {
    classes
        .iter()
        .map(|(class, text)| {
            let peer = match text.starts_with('/') {
                true => DialAddress::from_str(text)?.require_peer_id()?,
                false => parse_peer_id(text).map_err(|error| StartError::PeerId { class: *class, error })?,
            };
            Ok((peer, *class))
        })
        .collect()
}

/// An endpoint that knows the world by `environment` alone.
fn endpoint_config(
    key: &NodeKey,
    settings: TransportSettings,
    environment: &Arc<dyn Environment>,
    seed: [u8; 32],
) -> EndpointConfig {
    let (clock, sockets) = (environment.clone(), environment.clone());
    let mut config = EndpointConfig::new(key.clone());
    config.settings = settings;
    config.seed = Some(seed);
    config.runtime = Some(environment.runtime());
    config.time = Some(Arc::new(move || clock.unix_now()));
    config.bind = Some(Arc::new(move |address, buffer_bytes| sockets.bind(address, buffer_bytes)));
    config.tap = environment.tap();
    config
}

fn report_buffers(endpoint: &Endpoint) {
    if let Some(buffers) = endpoint.socket_buffers()
        && buffers.is_short()
    {
        tracing::warn!(
            asked = buffers.asked,
            receive = buffers.receive,
            send = buffers.send,
            "the kernel gave smaller socket buffers than asked for, so bursts may be lost: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
}
