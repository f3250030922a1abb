//! The settings of `peerage node`: their names, defaults and meanings, and the TOML file that changes them.
//!
//! [`TABLE`] has one line for each setting; the file, `peerage limits` and the checks all go by it. What a flag says overrides the file.

mod file;
mod kinds;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;

use peerage::{
    BenchLimits, CallLimits, DialAddress, ListenAddress, MemoryLimits, NodeLimits, PeerId, PeersConfig,
    RequestLimits, ServeConfig, TransportSettings,
};

use peerage::DhtConfig;
use peerage::dht::{DhtLimits, Mode, RecordsConfig};

use crate::args::DhtMode;
use crate::node::ChatLimits;
use crate::transfer::inbox::Limits;

pub(crate) use file::{MAX_BYTES as MAX_FILE_BYTES, load};
pub(crate) use table::{Kind, TABLE};

/// Everything that a settings file can say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Who the node is and what it does.
    pub(crate) node: NodeSettings,
    /// The peer manager's limits.
    pub(crate) peers: PeersConfig,
    /// The transport's limits.
    pub(crate) transport: TransportSettings,
    /// What this node asks of one peer at once.
    pub(crate) requests: CallLimits,
    /// What it asks of all peers, and all peers of it, at once.
    pub(crate) requests_in_all: RequestLimits,
    /// What channels and requests may hold.
    pub(crate) memory: MemoryLimits,
    /// The limits of the node itself.
    pub(crate) node_limits: NodeLimits,
    /// What each served protocol takes.
    pub(crate) serve: ServeConfig,
    /// What the chat channel takes.
    pub(crate) chat: ChatLimits,
    /// What being measured may cost.
    pub(crate) bench: BenchLimits,
    /// What the inbox takes.
    pub(crate) inbox: Limits,
    /// The limits and times of the DHT.
    pub(crate) dht: DhtLimits,
    /// The limits of its records.
    pub(crate) records: RecordsConfig,
}

impl Settings {
    /// What the node does in the DHT; `None` for nothing.
    pub(crate) fn dht(&self) -> Option<DhtConfig> {
        let mut config = DhtConfig::default();
        config.mode = match self.node.dht {
            DhtMode::Off => return None,
            DhtMode::Auto => None,
            DhtMode::Serve => Some(Mode::Server),
            DhtMode::Client => Some(Mode::Client),
        };
        config.libp2p = self.node.dht_libp2p;
        config.limits = self.dht.clone();
        config.records = self.records.clone();
        Some(config)
    }
}

/// The settings that are not limits.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeSettings {
    pub(crate) data: Option<PathText>,
    pub(crate) listen: Vec<ListenAddress>,
    pub(crate) seed: Vec<DialAddress>,
    pub(crate) seeds: Vec<PathText>,
    pub(crate) persistent: Vec<DialAddress>,
    pub(crate) private: Vec<PeerId>,
    pub(crate) unconditional: Vec<PeerId>,
    pub(crate) network: Option<String>,
    pub(crate) network_secret: Option<PathText>,
    pub(crate) allow: Vec<PeerId>,
    pub(crate) moniker: Option<String>,
    pub(crate) inbox: Option<PathText>,
    pub(crate) serve_bench: bool,
    pub(crate) dht: DhtMode,
    pub(crate) dht_libp2p: bool,
    pub(crate) log: Option<LogText>,
    pub(crate) metrics: Option<SocketAddr>,
}

/// A path in a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathText(pub(crate) PathBuf);

impl std::str::FromStr for PathText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(PathBuf::from(text)))
    }
}

impl std::fmt::Display for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

/// What to log, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogText(pub(crate) String);

impl std::str::FromStr for LogText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        crate::logging::parse(text).map(Self)
    }
}

impl std::fmt::Display for LogText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
