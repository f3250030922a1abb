//! The command line: what can be asked for, and what each flag takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use peerage::{AddressError, DialAddress, ForeignPolicy, ListenAddress, PeerId};

use crate::bench::Work;
use crate::transfer::retry::Retries;

mod dht;

pub(crate) use dht::{DhtAction, DhtClass, DhtHow, DhtMode, DhtPace, HeldBy};

/// Secure application overlays: nodes that find one another and talk over one QUIC connection per pair.
#[derive(Debug, Parser)]
#[command(name = "peerage", version, max_term_width = 110, propagate_version = true)]
#[command(after_help = "Example:\n  peerage demo        an overlay of five real processes, step by step")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node in the foreground
    ///
    /// The key is made on first use. The node prints each of its addresses as one line, `listening MULTIADDR`, and `not listening MULTIADDR` when one is gone;
    /// it logs to stderr, and stops on
    /// SIGINT and SIGTERM within 5 seconds, or a little more than node_limits.drain_timeout; a second signal stops it at once.
    #[command(after_help = NODE_EXAMPLE)]
    Node(Box<NodeArgs>),
    /// Start an overlay of real processes and show what it can do
    ///
    /// The nodes run as processes of their own on this machine, each with its own key, folder and UDP port on loopback, and are told the address of the
    /// first one only. Six steps: they find one another and connect; a file goes from the last node to every other; a message is broadcast and a
    /// request answered; a newcomer is refused by a node that is full, which names others, and joins one of them; one node is killed and comes back, and another
    /// one tells its story as `peerage why` does; all stop.
    #[command(after_help = DEMO_EXAMPLE)]
    Demo(DemoArgs),
    /// Make or read a node's key
    #[command(after_help = KEY_EXAMPLE)]
    Key {
        /// What to do with it.
        #[command(subcommand)]
        action: KeyAction,
    },
    #[command(flatten)]
    Ask(Ask),
    /// Show every limit with its default, its value and its meaning
    ///
    /// Without --config the values are the defaults. The first names are those of the settings file (TOML) that `peerage node --config` takes; then come
    /// limits that applications set in code, and those that are fixed.
    #[command(after_help = LIMITS_EXAMPLE)]
    Limits(LimitsArgs),
    /// Measure round trips to any libp2p node that speaks quic-v1
    #[command(after_help = PING_EXAMPLE)]
    Ping(PingArgs),
    /// Measure how fast a node is that runs with --serve-bench, or any libp2p node that serves /perf/1.0.0
    ///
    /// The works are bulk-1 and bulk-8 (bytes one way on 1 and on 8 streams), msgs-64, msgs-1k and msgs-64k (one-way messages on a channel), rtt (32 bytes there and
    /// back on an open channel), rpc-1 and rpc-64 (new requests of 32 bytes, one by one and 64 at a time), streams (a stream for each message of 64 bytes, 64 at a
    /// time), and with libp2p's own protocol perf-up, perf-down and perf-rtt. Each ends when its amount is moved or its time is up, and counts what the other
    /// side has then; all of them take a minute at most where the other side answers. Ctrl-C ends it with what is measured by then.
    #[command(after_help = BENCH_EXAMPLE)]
    Bench(BenchArgs),
    /// Send a file to a node that runs with --inbox
    ///
    /// The receiver compares the SHA-256 before it gives the file its name. After a broken connection the transfer goes on where it stood.
    #[command(after_help = SEND_EXAMPLE)]
    Send(SendArgs),
}

/// Flags of `peerage node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// A settings file in TOML; flags override it. `peerage limits --all` shows what it can say
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder for the key, held by one running node at a time [default: $XDG_DATA_HOME/peerage, or ~/.local/share/peerage]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where to listen; may be given several times. Port 0 is any free one: name a port to keep the address [default: /ip4/0.0.0.0/udp/0/quic-v1]
    #[arg(long, value_name = "MULTIADDR", value_parser = listen)]
    pub(crate) listen: Vec<ListenAddress>,
    /// A contact for the first dial; may be given several times
    #[arg(long, value_name = "MULTIADDR", value_parser = dial)]
    pub(crate) seed: Vec<DialAddress>,
    /// A file of seeds, one address on a line; what follows a # is passed over. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) seeds: Vec<PathBuf>,
    /// A peer that is always wanted, redialled for ever; with its peer ID; may be given several times
    #[arg(long, value_name = "MULTIADDR", value_parser = dial_peer)]
    pub(crate) persistent: Vec<DialAddress>,
    /// A peer that is never told to others, by its ID; may be given several times
    #[arg(long, value_name = "PEER", value_parser = peer_id)]
    pub(crate) private: Vec<PeerId>,
    /// A peer that is admitted whatever the limits, by its ID; may be given several times
    #[arg(long, value_name = "PEER", value_parser = peer_id)]
    pub(crate) unconditional: Vec<PeerId>,
    /// The name of the overlay: 1 to 32 of a-z, 0-9 and hyphens. Nodes of different networks refuse each other [default: main]
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Make the network private: admit and dial only this peer; may be given several times. `peerage allow` changes it at run time
    #[arg(long, value_name = "PEER", value_parser = peer_id)]
    pub(crate) allow: Vec<PeerId>,
    /// Make the network private: admit only nodes that know a secret of this file, of mode 0600, one secret on a line: 16 to 256 characters, best what
    /// `openssl rand -hex 32` prints. To change it, put the new one beside the old one at each node, then take the old one out; `peerage secret reload` reads the file anew
    #[arg(long, value_name = "FILE")]
    pub(crate) network_secret: Option<PathBuf>,
    /// Whether nodes of other libp2p implementations are admitted [default: allow; refuse in a private network]
    #[arg(long, value_name = "POLICY")]
    pub(crate) foreign: Option<Foreign>,
    /// A name for people, at most 64 bytes
    #[arg(long, value_name = "NAME")]
    pub(crate) moniker: Option<String>,
    /// Connections that others may open to this node [default: 40]
    #[arg(long, value_name = "N")]
    pub(crate) max_inbound: Option<u16>,
    /// Connections that this node opens and keeps [default: 10]
    #[arg(long, value_name = "N")]
    pub(crate) max_outbound: Option<u16>,
    /// After so long without a packet a connection is lost; the smaller value of the two sides holds [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) idle_timeout: Option<u64>,
    /// Take files from peers into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) inbox: Option<PathBuf>,
    /// What the inbox takes in all, in bytes [default: 16 GiB]
    #[arg(long, value_name = "BYTES")]
    pub(crate) inbox_max_bytes: Option<u64>,
    /// Let peers measure this node with `peerage bench`, and any libp2p node with /perf/1.0.0, within the limits bench.* that `peerage limits` shows
    #[arg(long)]
    pub(crate) serve_bench: bool,
    /// What the node does in the network's DHT: serve keeps records and answers, as --dht alone does; client only asks, auto serves where it listens [default: off]
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "serve")]
    pub(crate) dht: Option<DhtMode>,
    /// Take part in libp2p's DHT protocol /ipfs/kad/1.0.0 too, for networks of other implementations
    #[arg(long)]
    pub(crate) dht_libp2p: bool,
    /// What to log: error, warn, info, debug, trace, or filters such as `info,peerage=debug` [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = crate::logging::parse)]
    pub(crate) log: Option<String>,
    /// Serve metrics over HTTP at this address on loopback, such as 127.0.0.1:9100, for Prometheus
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Take commands as JSON lines instead of printing addresses
    #[arg(long, value_name = "WHERE")]
    pub(crate) control: Option<Control>,
}

/// What `peerage book` does.
#[derive(Debug, Subcommand)]
pub(crate) enum BookAction {
    /// Write the book as JSON, without private peers
    #[command(after_help = "Example:\n  peerage book export book.json")]
    Export {
        /// The file; it is replaced [default: standard output]
        file: Option<PathBuf>,
        #[command(flatten)]
        operator: Operator,
    },
    /// Take in the peers of an exported book that are not known yet
    #[command(after_help = "Example:\n  peerage book import book.json")]
    Import {
        /// The file, on the node's machine
        file: PathBuf,
        #[command(flatten)]
        operator: Operator,
    },
}

/// What to do with nodes of other libp2p implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Foreign {
    /// Admit them within the limits, as any other.
    Allow,
    /// Turn them away.
    Refuse,
}

impl From<Foreign> for ForeignPolicy {
    fn from(policy: Foreign) -> Self {
        match policy {
            Foreign::Allow => Self::Allow,
            Foreign::Refuse => Self::Refuse,
        }
    }
}

/// What `peerage allow` does.
#[derive(Debug, Subcommand)]
pub(crate) enum AllowAction {
    /// Add a peer to the allow-list
    #[command(after_help = "Example:\n  peerage allow add 12D3KooW…")]
    Add {
        /// Whom
        #[arg(value_parser = peer_id)]
        peer: PeerId,
        #[command(flatten)]
        operator: Operator,
    },
    /// Take a peer off the allow-list and let it go at once. One that a flag or the settings file names comes back with the next start
    #[command(after_help = "Example:\n  peerage allow remove 12D3KooW…")]
    Remove {
        /// Whom
        #[arg(value_parser = peer_id)]
        peer: PeerId,
        #[command(flatten)]
        operator: Operator,
    },
    /// Show the allow-list
    #[command(after_help = "Example:\n  peerage allow list --json")]
    List(Operator),
}

/// What `peerage listen` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ListenAction {
    /// Listen at one more address; connected peers are told
    #[command(after_help = "Example:\n  peerage listen add /ip4/0.0.0.0/udp/4401/quic-v1")]
    Add {
        /// Where
        #[arg(value_name = "MULTIADDR", value_parser = listen)]
        address: ListenAddress,
        #[command(flatten)]
        operator: Operator,
    },
    /// Take no more connections at an address. Those that came there live on
    #[command(after_help = "Example:\n  peerage listen remove /ip4/0.0.0.0/udp/4401/quic-v1")]
    Remove {
        /// As `peerage listen list` shows it
        #[arg(value_name = "MULTIADDR", value_parser = listen)]
        address: ListenAddress,
        #[command(flatten)]
        operator: Operator,
    },
    /// Show where it listens
    #[command(after_help = "Example:\n  peerage listen list --json")]
    List(Operator),
}

/// What `peerage secret` does.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretAction {
    /// Read the file of --network-secret anew. Connected peers stay; one that can't be read changes nothing
    ///
    /// To change a network's secret, write the new one on a line of its own beside the old one, in each node's file, and reload each node. When all take
    /// both, take the old line out of each file and reload each node again.
    #[command(after_help = "Example:\n  openssl rand -hex 32 >> secret; peerage secret reload")]
    Reload(Operator),
}

/// Where commands to a node come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Control {
    /// Commands on stdin, replies and events on stdout; the node stops when stdin ends.
    Stdio,
}

/// Which running node a command is for, and how the answer is shown.
#[derive(Debug, Args)]
pub(crate) struct Operator {
    /// The node's data folder [default: $XDG_DATA_HOME/peerage, or ~/.local/share/peerage]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Show the answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What can be asked of a running node.
#[derive(Debug, Subcommand)]
pub(crate) enum Ask {
    /// Show who the running node is and how it is
    #[command(after_help = STATUS_EXAMPLE)]
    Status(Operator),
    /// Show who is connected to the running node
    #[command(after_help = PEERS_EXAMPLE)]
    Peers {
        /// Ping each now and show that time
        #[arg(long)]
        ping: bool,
        #[command(flatten)]
        operator: Operator,
    },
    /// Tell why a peer is connected to the running node, or not
    #[command(after_help = WHY_EXAMPLE)]
    Why {
        /// Its peer ID
        #[arg(value_name = "PEER", value_parser = peer_id)]
        peer: PeerId,
        #[command(flatten)]
        operator: Operator,
    },
    /// Keep a peer, an address or a subnet away from the running node, for now and after restarts
    #[command(after_help = BAN_EXAMPLE)]
    Ban {
        /// A peer ID, an IP address, or a subnet such as 192.0.2.0/24
        target: String,
        /// Why, for people; not told to who is banned
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
        /// For how long, such as 30m or 7days; for ever without it
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        lasts: Option<Duration>,
        #[command(flatten)]
        operator: Operator,
    },
    /// Lift a ban
    #[command(after_help = UNBAN_EXAMPLE)]
    Unban {
        /// As `peerage bans` shows it
        target: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Show who is banned
    #[command(after_help = BANS_EXAMPLE)]
    Bans(Operator),
    /// Say which peers are always wanted: redialled for ever, outside the limits; for now and after restarts
    #[command(after_help = PERSISTENT_EXAMPLE)]
    Persistent {
        /// What to do.
        #[command(subcommand)]
        action: Standing,
    },
    /// Say which peers are never told to others, for now and after restarts
    #[command(after_help = PRIVATE_EXAMPLE)]
    Private {
        /// What to do.
        #[command(subcommand)]
        action: Standing,
    },
    /// Say which peers are admitted whatever the limits say, for now and after restarts
    #[command(after_help = UNCONDITIONAL_EXAMPLE)]
    Unconditional {
        /// What to do.
        #[command(subcommand)]
        action: Standing,
    },
    /// Change or show the running node's allow-list, for now and after restarts
    ///
    /// What is added here is kept in the data folder and adds to what `--allow` and the settings file name at the next start. A node that is started without
    /// any of these has no list and is open; `add` and `remove` fail there and change nothing.
    #[command(after_help = ALLOW_EXAMPLE)]
    Allow {
        /// What to do with it.
        #[command(subcommand)]
        action: AllowAction,
    },
    /// Save the address book of the running node as JSON, or take one over
    #[command(after_help = BOOK_EXAMPLE)]
    Book {
        /// What to do.
        #[command(subcommand)]
        action: BookAction,
    },
    /// Change or show where the running node listens, until it stops
    #[command(after_help = LISTEN_EXAMPLE)]
    Listen {
        /// What to do.
        #[command(subcommand)]
        action: ListenAction,
    },
    /// Change the network secrets of the running node
    #[command(after_help = SECRET_EXAMPLE)]
    Secret {
        /// What to do.
        #[command(subcommand)]
        action: SecretAction,
    },
    /// Use the DHT of the running node: find peers, keep and fetch values, meet in topics, leave messages
    #[command(after_help = DHT_EXAMPLE)]
    Dht {
        /// What to do.
        #[command(subcommand)]
        action: DhtAction,
    },
    /// Print what the running node has counted, as Prometheus text
    #[command(after_help = METRICS_EXAMPLE)]
    Metrics(Operator),
}

/// What is done to a list of peers.
#[derive(Debug, Subcommand)]
pub(crate) enum Standing {
    /// Put a peer on the list; it is stored when the command returns
    #[command(
        after_help = "Example:\n  peerage persistent add /ip4/192.0.2.7/udp/4400/quic-v1/p2p/12D3KooW…\n  peerage private add 12D3KooW…"
    )]
    Add {
        /// Its peer ID, or an address with it
        peer: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Take a peer off the list. One that a flag or the settings file names comes back with the next start
    #[command(after_help = "Example:\n  peerage persistent remove 12D3KooW…")]
    Remove {
        /// Its peer ID
        peer: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Show the list
    #[command(after_help = "Example:\n  peerage persistent list --json")]
    List(Operator),
}

/// Flags of `peerage limits`.
#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    /// Show the values that this settings file gives
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Show the settings that are not limits too
    #[arg(long)]
    pub(crate) all: bool,
    /// One JSON line for each
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `peerage demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=50))]
    pub(crate) nodes: u16,
    /// The file to send [default: this program itself]
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Leave the nodes running and say how to stop them
    #[arg(long)]
    pub(crate) keep: bool,
    /// One JSON line per step on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `peerage key` does.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// Make a key in a new file that only its owner can read, and print its peer ID
    #[command(after_help = "Example:\n  peerage key new node.key")]
    New {
        /// The file; it must not exist
        path: PathBuf,
    },
    /// Print the peer ID of a key
    #[command(after_help = "Example:\n  peerage key show ~/.local/share/peerage/node.key")]
    Show {
        /// The file
        path: PathBuf,
    },
}

/// Flags of `peerage ping`.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Whom, such as /ip4/127.0.0.1/udp/4400/quic-v1/p2p/12D3…; without a peer ID, whoever answers
    #[arg(value_name = "MULTIADDR", value_parser = dial)]
    pub(crate) address: DialAddress,
    /// How many times, one a second
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) network: Network,
}

/// Flags of `peerage bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Whom, such as /ip4/127.0.0.1/udp/4400/quic-v1/p2p/12D3…; without a peer ID, whoever answers
    #[arg(value_name = "MULTIADDR", value_parser = dial)]
    pub(crate) address: DialAddress,
    /// Only these, such as bulk-1,rtt [default: all]
    #[arg(long, value_name = "WORK,…", value_delimiter = ',', hide_possible_values = true)]
    pub(crate) works: Vec<Work>,
    /// MiB that a work moves at most
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) mib: u64,
    /// Messages that a work sends at most
    #[arg(long, value_name = "N", default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) messages: u64,
    /// Round trips, requests and streams of a work at most
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) requests: u64,
    /// Seconds that a work sends at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// One JSON line per work on stdout and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: Network,
}

/// Flags of `peerage send`.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// To whom, with its peer ID, such as /ip4/127.0.0.1/udp/4400/quic-v1/p2p/12D3…
    #[arg(value_name = "MULTIADDR", value_parser = dial_peer)]
    pub(crate) address: DialAddress,
    /// What
    pub(crate) file: PathBuf,
    /// Attempts after a broken connection that may bring nothing
    #[arg(long, value_name = "N", default_value_t = Retries::DEFAULT_MOST)]
    pub(crate) retries: u32,
    #[command(flatten)]
    pub(crate) network: Network,
}

/// The overlay.
#[derive(Debug, Args)]
pub(crate) struct Network {
    /// The name of the overlay: 1 to 32 of a-z, 0-9 and hyphens. Nodes of different networks refuse each other
    #[arg(long = "network", value_name = "NAME", default_value = "main")]
    pub(crate) name: String,
    /// The file with the secret of a private network, as `peerage node` takes it
    #[arg(long = "network-secret", value_name = "FILE")]
    pub(crate) secret: Option<PathBuf>,
    /// The key to show, as `peerage key new` makes it, such as for a network with an allow-list [default: a new one that is forgotten]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

const WHY_EXAMPLE: &str = "Example:\n  peerage why 12D3KooW…";
const BOOK_EXAMPLE: &str =
    "Example:\n  peerage book export book.json\n  peerage book import book.json --data /tmp/b";
const NODE_EXAMPLE: &str = "Example:
  peerage node --listen /ip4/0.0.0.0/udp/4400/quic-v1 --inbox ~/inbox
  peerage node --data /tmp/b --seed /ip4/192.0.2.7/udp/4400/quic-v1/p2p/12D3KooW… --dht
  (umask 077; openssl rand -hex 32 > secret); peerage node --network-secret secret";

const STATUS_EXAMPLE: &str = "Example:
  peerage status
  peerage status --data /tmp/b --json";

const PEERS_EXAMPLE: &str = "Example:
  peerage peers --ping";

const BAN_EXAMPLE: &str = "Example:
  peerage ban 12D3KooW… --for 7days --reason 'sends rubbish'
  peerage ban 192.0.2.0/24";

const UNBAN_EXAMPLE: &str = "Example:
  peerage unban 192.0.2.0/24";

const BANS_EXAMPLE: &str = "Example:
  peerage bans --json";

const PERSISTENT_EXAMPLE: &str = "Example:
  peerage persistent add /ip4/192.0.2.7/udp/4400/quic-v1/p2p/12D3KooW…
  peerage persistent list";

const PRIVATE_EXAMPLE: &str = "Example:
  peerage private add 12D3KooW…";

const UNCONDITIONAL_EXAMPLE: &str = "Example:
  peerage unconditional add 12D3KooW…";

const DHT_EXAMPLE: &str = "Example:
  peerage dht put colour blue
  peerage dht get 12D3KooW… colour
  peerage dht trace 12D3KooW…";

const METRICS_EXAMPLE: &str = "Example:
  peerage metrics | grep peerage_peers";

const LISTEN_EXAMPLE: &str = "Example:
  peerage listen add /ip6/::/udp/4400/quic-v1
  peerage listen list";

const SECRET_EXAMPLE: &str = "Example:
  openssl rand -hex 32 >> secret; peerage secret reload";

const ALLOW_EXAMPLE: &str = "Example:
  peerage allow add 12D3KooW…
  peerage allow list";

const LIMITS_EXAMPLE: &str = "Example:
  peerage limits
  peerage limits --all --config peerage.toml";

const DEMO_EXAMPLE: &str = "Example:
  peerage demo --nodes 20 --file ~/big.iso
  peerage demo --keep";

const KEY_EXAMPLE: &str = "Example:
  peerage key new node.key
  peerage key show node.key";

const PING_EXAMPLE: &str = "Example:
  peerage ping -c 10 /ip4/127.0.0.1/udp/4400/quic-v1/p2p/12D3KooW…";

const BENCH_EXAMPLE: &str = "Example:
  peerage node --serve-bench --listen /ip4/0.0.0.0/udp/4400/quic-v1      # on the other machine
  peerage bench /ip4/192.0.2.7/udp/4400/quic-v1/p2p/12D3KooW…
  peerage bench --works bulk-1,rtt --seconds 20 --mib 10000 --json /ip4/192.0.2.7/udp/4400/quic-v1";

const SEND_EXAMPLE: &str = "Example:
  peerage send /ip4/192.0.2.7/udp/4400/quic-v1/p2p/12D3KooW… big.iso";

fn peer_id(text: &str) -> Result<PeerId, String> {
    text.parse().map_err(|error| format!("it is not a peer ID: {error}"))
}

fn dial(text: &str) -> Result<DialAddress, AddressError> {
    text.parse()
}

fn dial_peer(text: &str) -> Result<DialAddress, AddressError> {
    let address: DialAddress = text.parse()?;
    address.require_peer_id()?;
    Ok(address)
}

fn listen(text: &str) -> Result<ListenAddress, AddressError> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_an_example() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        fn check(command: &mut clap::Command) {
            if command.get_name() == "help" {
                return;
            }
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example:"), "{}", command.get_name());
            command.get_subcommands_mut().for_each(check);
        }
        check(&mut cli);
    }
}
