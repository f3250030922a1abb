//! The flags of `peerage dht`, and what a node does in the DHT.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use peerage::PeerId;

use super::{Operator, peer_id};

/// What a node does in the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum DhtMode {
    /// Serves where it listens, and only asks where it doesn't.
    Auto,
    /// Answers others and keeps records for them.
    Serve,
    /// Asks and publishes, and answers nobody.
    Client,
    /// Takes no part.
    #[default]
    Off,
}

/// What `peerage dht` does.
#[derive(Debug, Subcommand)]
pub(crate) enum DhtAction {
    /// Keep a value under this node's own name; only this node can change it
    #[command(after_help = "Example:\n  peerage dht put colour blue")]
    Put {
        /// What to call it, at most 64 bytes
        name: String,
        /// The value, at most 4 KiB
        value: String,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Fetch the value that a node keeps under its own name
    #[command(after_help = "Example:\n  peerage dht get 12D3KooW… colour")]
    Get {
        /// Whose
        #[arg(value_name = "PEER", value_parser = peer_id)]
        peer: PeerId,
        /// What it is called
        name: String,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Find where a peer can be reached, by its ID alone
    #[command(after_help = "Example:\n  peerage dht find 12D3KooW…")]
    Find {
        /// Its peer ID
        #[arg(value_name = "PEER", value_parser = peer_id)]
        peer: PeerId,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Tell others that this node has what a key names; for other libp2p nodes a multihash
    #[command(after_help = "Example:\n  peerage dht provide holiday-photos")]
    Provide {
        /// The key, at most 80 bytes
        key: String,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Find who has what a key names
    #[command(after_help = "Example:\n  peerage dht providers holiday-photos")]
    Providers {
        /// The key
        key: String,
        /// So many are enough
        #[arg(long, value_name = "N", default_value_t = 20)]
        most: usize,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Show who is in a topic, or join it
    #[command(
        after_help = "Example:\n  peerage dht topic chess --join 'rapid games, evenings'\n  peerage dht topic chess"
    )]
    Topic {
        /// Its name
        topic: String,
        /// Join, with a word about this node for people
        #[arg(long, value_name = "TEXT")]
        join: Option<String>,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Leave a message for a node that may be away, which it alone can read; or read this node's own
    #[command(after_help = "Example:\n  peerage dht mail 12D3KooW… 'back on Monday'\n  peerage dht mail")]
    Mail {
        /// For whom; without it, this node's own messages are shown
        #[arg(value_name = "PEER", value_parser = peer_id, requires = "text")]
        peer: Option<PeerId>,
        /// The message
        text: Option<String>,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Show whom the node knows in the DHT
    #[command(after_help = "Example:\n  peerage dht table")]
    Table(Operator),
    /// Show how the node's DHT is
    #[command(after_help = "Example:\n  peerage dht stats --json")]
    Stats(Operator),
    /// Look up the nodes closest to a key or peer and show each step of it as a timeline
    #[command(
        after_help = "Example:\n  peerage dht trace 12D3KooW…\n  peerage dht trace holiday-photos --class frugal"
    )]
    Trace {
        /// A key, or a peer ID
        key: String,
        #[command(flatten)]
        how: DhtHow,
    },
}

/// How an operation of the DHT is done.
#[derive(Debug, Args)]
pub(crate) struct DhtHow {
    /// How urgent it is: the more, the more nodes are asked at once
    #[arg(long, value_name = "CLASS", default_value = "interactive")]
    pub(crate) class: DhtClass,
    /// So many nodes must agree, or have stored it [default: 1; half of the replicas]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=20))]
    pub(crate) quorum: Option<u16>,
    /// After so long what there is, such as 3s [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) operator: Operator,
}

/// How urgent an operation of the DHT is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DhtClass {
    /// Somebody waits.
    Interactive,
    /// A program waits.
    Normal,
    /// Nobody waits.
    Frugal,
}
