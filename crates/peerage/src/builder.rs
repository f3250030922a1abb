//! Building a node: what it may do, then [`NodeBuilder::start`].

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use peerage_identity::{AddressError, DialAddress, ListenAddress, NodeKey, SignedPeerRecord};
use peerage_machine::{Machine, Now, Random};
use peerage_peers::{ForeignPolicy, Input, PeerManager, PeersConfig, Role};
use peerage_transport::{Endpoint, EndpointConfig, TransportSettings};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::data_dir::DataDir;
use crate::error::StartError;
use crate::node::Node;
use crate::registry::Service;
use crate::request::CallLimits;
use crate::resolve::{Resolve, SystemResolver};
use crate::shared::{Parts, Shared};
use crate::{dial, driver};

/// Messages that may wait for the driver. Senders wait when it is full.
const DRIVER_QUEUE: usize = 1024;
/// Addresses that a node announces.
const MAX_ANNOUNCED: usize = 16;
/// The longest moniker, in bytes.
const MAX_MONIKER: usize = 64;

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
    peers: PeersConfig,
    transport: TransportSettings,
    resolver: Arc<dyn Resolve>,
    calls: CallLimits,
    perf: bool,
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
            peers: PeersConfig::default(),
            transport: TransportSettings::default(),
            resolver: Arc::new(SystemResolver),
            calls: CallLimits::default(),
            perf: false,
        }
    }
}

impl NodeBuilder {
    /// The node's key. Without one, and without a data directory, the node has a new key that is forgotten with it.
    pub fn key(mut self, key: NodeKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Where the node keeps its key, made on first use. One running node at a time holds the directory.
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

    /// A peer that is always wanted: redialled for ever, outside the limits. The address needs a peer ID. May be given several times.
    pub fn persistent(mut self, address: impl Display) -> Self {
        self.contacts.push((Role::Persistent, address.to_string()));
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

    /// Whether nodes of other libp2p implementations are admitted. Default: they are.
    pub fn foreign(mut self, policy: ForeignPolicy) -> Self {
        self.peers.foreign = policy;
        self
    }

    /// After so long without a packet a connection is lost; the smaller value of the two sides holds. Keep-alives are sent at a third
    /// of it, at least every 4 s. Default: 30 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.transport.set_idle_timeout(timeout);
        self
    }

    /// How many requests this node sends at once.
    pub fn call_limits(mut self, limits: CallLimits) -> Self {
        self.calls = limits;
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

    /// Serves `/perf/1.0.0`, by which any peer can measure the path, and make this node send as much as it likes. Default: not served.
    pub fn serve_perf(mut self) -> Self {
        self.perf = true;
        self
    }

    /// What looks names up. Default: the system's resolver.
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Starts the node: it listens, dials its contacts and admits peers from now on.
    ///
    /// # Errors
    /// [`StartError`]: a value that makes no sense, a data directory or a socket that can't be had.
    pub async fn start(self) -> Result<Node, StartError> {
        check_network(&self.network)?;
        if self.moniker.len() > MAX_MONIKER {
            let detail =
                format!("the moniker has {} bytes: at most {MAX_MONIKER} are allowed", self.moniker.len());
            return Err(StartError::Limits(detail));
        }
        self.calls.check().map_err(StartError::Limits)?;
        let listen =
            self.listen.iter().map(|text| ListenAddress::from_str(text)).collect::<Result<Vec<_>, _>>()?;
        let contacts = parse_contacts(&self.contacts)?;
        let data_dir = self.data_dir.as_deref().map(DataDir::open).transpose()?;
        let key = match (self.key, &data_dir) {
            (Some(key), _) => key,
            (None, Some(folder)) => folder.key()?,
            (None, None) => NodeKey::generate(),
        };
        let clock = Clock::start();
        let mut config = EndpointConfig::new(key.clone());
        config.settings = self.transport.clone();
        let sockets: Vec<SocketAddr> = listen.iter().map(ListenAddress::socket_addr).collect();
        let endpoint = Endpoint::bind(config, &sockets).await?;
        report_buffers(&endpoint);

        let bound = if sockets.is_empty() { Vec::new() } else { endpoint.local_addresses() };
        let addresses = announced(&key, &bound);
        let bare: Vec<_> = addresses.iter().map(|address| address.clone().without_peer_id()).collect();
        let record = SignedPeerRecord::sign(&key, clock.now().unix_millis(), &bare)
            .map_err(|error| StartError::Limits(error.to_string()))?;
        let (to_driver, messages) = mpsc::channel(DRIVER_QUEUE);
        let (boot_nonce, random) = entropy()?;
        let shared = Shared::new(Parts {
            key,
            network: self.network,
            moniker: self.moniker,
            agent: concat!("peerage/", env!("CARGO_PKG_VERSION")).to_owned(),
            boot_nonce,
            clock,
            endpoint,
            resolver: self.resolver,
            call_limits: self.calls,
            addresses,
            record,
            to_driver,
        });
        if self.perf {
            shared
                .registry
                .add(crate::protocols::perf::PROTOCOL, Service::Perf)
                .map_err(|error| StartError::Limits(error.to_string()))?;
        }
        let mut manager = PeerManager::new(self.peers, shared.me, boot_nonce, random);
        for (address, role) in contacts {
            manager.handle(Now::ZERO, Input::Add { address, role });
        }
        shared.spawn(driver::run(shared.clone(), manager, messages));
        if !sockets.is_empty() {
            shared.spawn(dial::accept(shared.clone()));
        }
        Ok(Node::new(shared, data_dir.map(Arc::new)))
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

/// Where others can reach us: what we listen at, a wildcard standing for the addresses of this machine's interfaces.
fn announced(key: &NodeKey, bound: &[SocketAddr]) -> Vec<DialAddress> {
    let mut found = Vec::new();
    for socket in bound {
        if socket.ip().is_unspecified() {
            let right = |ip: &IpAddr| ip.is_ipv4() == socket.is_ipv4();
            found.extend(interfaces().into_iter().filter(right).map(|ip| SocketAddr::new(ip, socket.port())));
        } else {
            found.push(*socket);
        }
    }
    found.sort_by_key(|socket| socket.ip().is_loopback());
    found
        .into_iter()
        .filter_map(|socket| DialAddress::from_socket_addr(socket).ok()?.with_peer_id(key.peer_id()).ok())
        .take(MAX_ANNOUNCED)
        .collect()
}

fn interfaces() -> Vec<IpAddr> {
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => {
            let usable = |ip: &IpAddr| match ip {
                IpAddr::V4(_) => true,
                // A link-local address means nothing without its interface.
                IpAddr::V6(ip) => !ip.is_unicast_link_local(),
            };
            interfaces.into_iter().map(|interface| interface.ip()).filter(usable).collect()
        }
        Err(error) => {
            tracing::warn!(%error, "the interfaces of this machine cannot be listed: only loopback is announced");
            vec![IpAddr::from([127, 0, 0, 1])]
        }
    }
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

fn entropy() -> Result<(u64, Random), StartError> {
    let mut bytes = [0; 40];
    getrandom::fill(&mut bytes).map_err(StartError::Entropy)?;
    let (mut nonce, mut seed) = ([0; 8], [0; 32]);
    nonce.copy_from_slice(&bytes[..8]);
    seed.copy_from_slice(&bytes[8..]);
    Ok((u64::from_le_bytes(nonce), Random::from_seed(seed)))
}
