//! The flags of `peerage dht`, and what a node does in the DHT.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use peerage::PeerId;
use peerage::dht::MAX_HELD_SHOWN;

use super::{Operator, peer_id};
use crate::control::dht::{DEADLINES, MAX_MEMBERS, Role};

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
    ///
    /// The value is the argument, or comes from a file or from standard input. With --immutable it is kept under its own hash, which is printed: whoever has the
    /// hash can fetch it, and nobody can change it.
    ///
    /// It is kept for two days at a time and renewed while the node runs, until `remove`. After a restart the node does not renew it by itself: put it again.
    #[command(
        after_help = "Example:\n  peerage dht put colour blue\n  peerage dht put card --file card.vcf\n  date | peerage dht put --immutable -"
    )]
    Put {
        /// What to call it, at most 64 bytes; with --immutable, where there is no name, the value
        #[arg(required_unless_present = "immutable")]
        name: Option<String>,
        /// The value, at most 4 KiB; `-` is standard input
        value: Option<String>,
        /// Take the value from this file; `-` is standard input
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// Keep it under its own hash, at most 8 KiB
        #[arg(long)]
        immutable: bool,
        #[command(flatten)]
        stored: Stored,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Fetch the value that a node keeps under its own name, or content by its hash
    ///
    /// Exit code 1 says that it was not found, with --json too, which then has `failed`.
    #[command(
        after_help = "Example:\n  peerage dht get 12D3KooW… colour\n  peerage dht get 12D3KooW… colour --watch\n  peerage dht get 9f86d081…0f00a08 --file photo.jpg"
    )]
    Get {
        /// Whose it is, by its peer ID; or the hash that `put --immutable` has printed
        #[arg(value_name = "PEER|HASH", value_parser = held_by)]
        held_by: HeldBy,
        /// What it is called, when a peer keeps it
        name: Option<String>,
        /// Write the value into this file, as it is; `-` is standard output
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// So many nodes of different networks are to have it, and the newest is taken; a warning says when fewer do; 20 hear out all of the closest [default: 2, or all of them where suspiciously many stand; content by its hash needs one]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=20))]
        quorum: Option<u16>,
        /// Show it now and whenever it changes, until the command is interrupted
        #[arg(long, requires = "name", conflicts_with_all = ["file", "quorum", "class", "deadline", "paths", "alpha", "trace"])]
        watch: bool,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Take away a value that this node keeps under its own name, or renew content by its hash no more
    ///
    /// Nobody can take back what its hash names: with --immutable this node renews it no more, and others keep it for two days at most, unless somebody else renews it.
    #[command(
        after_help = "Example:\n  peerage dht remove colour\n  peerage dht remove --immutable 9f86d081…0f00a08"
    )]
    Remove {
        /// What it is called; with --immutable the hash
        name: String,
        /// Renew content no more, whose hash this is
        #[arg(long, conflicts_with_all = ["quorum", "class", "deadline", "paths", "alpha", "trace"])]
        immutable: bool,
        #[command(flatten)]
        stored: Stored,
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
    /// Find the nodes closest to a key or peer
    #[command(after_help = "Example:\n  peerage dht closest holiday-photos")]
    Closest {
        /// A key, or a peer ID
        key: String,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Tell others that this node has what a key names; for other libp2p nodes a multihash
    ///
    /// They are told again while the node runs. Nobody can be told that it has it no more: with --stop they forget it within two days.
    #[command(
        after_help = "Example:\n  peerage dht provide holiday-photos\n  peerage dht provide holiday-photos --stop"
    )]
    Provide {
        /// The key, at most 80 bytes
        key: String,
        /// Tell it no more
        #[arg(long, conflicts_with = "quorum")]
        stop: bool,
        #[command(flatten)]
        stored: Stored,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Find who has what a key names
    #[command(after_help = "Example:\n  peerage dht providers holiday-photos")]
    Providers {
        /// The key
        key: String,
        /// So many are enough
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=MAX_MEMBERS as i64))]
        most: u16,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Show who is in a topic, join it or leave it
    #[command(
        after_help = "Example:\n  peerage dht topic chess --join 'rapid games, evenings' --tag rapid\n  peerage dht topic chess --tag rapid"
    )]
    Topic {
        /// Its name, at most 128 bytes
        topic: String,
        /// Join for an hour, renewed while the node runs, with at most 140 characters about this node for people; all that it says takes at most 256 bytes
        #[arg(long, value_name = "TEXT")]
        join: Option<String>,
        /// Leave it: readers are told that this node is not there any more
        #[arg(long, conflicts_with_all = ["join", "tag", "protocol", "most"])]
        leave: bool,
        /// With --join, a word to choose by; without, show only who says it. May be given up to 8 times
        #[arg(long, value_name = "WORD", value_parser = NonEmptyStringValueParser::new())]
        tag: Vec<String>,
        /// With --join, a protocol that this node serves; without, show only who serves one of these. May be given up to 8 times
        #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
        protocol: Vec<String>,
        /// Show at most so many, and say when there are more [default: 100]
        #[arg(long, value_name = "N", conflicts_with = "join", value_parser = clap::value_parser!(u16).range(1..=MAX_MEMBERS as i64))]
        most: Option<u16>,
        /// With --join or --leave, return when so many nodes have stored it [default: half of the replicas, or of the nodes where there are fewer]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=20))]
        quorum: Option<u16>,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Leave a message for a node that may be away, which it alone can read; or read this node's own
    ///
    /// Messages that were read are shown first, and then those that were shown are cleared from the mailbox, unless --keep says otherwise.
    #[command(
        after_help = "Example:\n  peerage dht mail 12D3KooW… 'back on Monday'\n  peerage dht mail\n  peerage dht mail --keep --json"
    )]
    Mail {
        /// For whom; without it, this node's own messages are shown
        #[arg(value_name = "PEER", value_parser = peer_id, requires = "text")]
        peer: Option<PeerId>,
        /// The message, some 4,000 bytes at most; `-` is standard input
        text: Option<String>,
        /// Leave the messages in the mailbox
        #[arg(long, conflicts_with = "peer")]
        keep: bool,
        /// For a message, return when so many nodes have stored it [default: half of the replicas, or of the nodes where there are fewer]
        #[arg(long, value_name = "N", requires = "peer", value_parser = clap::value_parser!(u16).range(1..=20))]
        quorum: Option<u16>,
        #[command(flatten)]
        how: DhtHow,
    },
    /// Show whom the node knows in the DHT
    #[command(after_help = "Example:\n  peerage dht table")]
    Table(Operator),
    /// Show the records that the node keeps because it is close to them, and how many live copies it knows of
    ///
    /// It knows of those of its neighbours, which compare with it what they hold, and of none further away. A copy is one to spare where enough others are closer.
    #[command(after_help = "Example:\n  peerage dht held --most 20")]
    Held {
        /// Show at most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=MAX_HELD_SHOWN as i64))]
        most: u16,
        #[command(flatten)]
        operator: Operator,
    },
    /// Show how the node's DHT is
    #[command(after_help = "Example:\n  peerage dht stats --json")]
    Stats(Operator),
    /// Have the running node serve the DHT from now on, or only ask
    ///
    /// Its peers are told, and ask it or don't accordingly. What it keeps for others stays with it until it expires. At its next start the node does again what `peerage node --dht` or
    /// its settings say. `peerage dht stats` shows what it does.
    #[command(after_help = "Example:\n  peerage dht mode client\n  peerage dht mode serve")]
    Mode {
        /// What it does
        mode: Role,
        #[command(flatten)]
        operator: Operator,
    },
    /// Look up the nodes closest to a key or peer and show each step of it as a timeline
    ///
    /// Other commands show theirs with --trace.
    #[command(
        after_help = "Example:\n  peerage dht trace 12D3KooW…\n  peerage dht trace holiday-photos --class frugal\n  peerage dht get 12D3KooW… colour --trace"
    )]
    Trace {
        /// A key, or a peer ID
        key: String,
        #[command(flatten)]
        pace: DhtPace,
        #[command(flatten)]
        operator: Operator,
    },
}

/// When a store is done.
#[derive(Debug, Args)]
pub(crate) struct Stored {
    /// Return when so many nodes have stored it [default: half of the replicas, or of the nodes where there are fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=20))]
    pub(crate) quorum: Option<u16>,
}

/// How an operation of the DHT is done and shown.
#[derive(Debug, Args)]
pub(crate) struct DhtHow {
    #[command(flatten)]
    pub(crate) pace: DhtPace,
    /// Show each step as a timeline, too; the command then waits up to 2.5 s longer, for answers with something newer
    #[arg(long)]
    pub(crate) trace: bool,
    #[command(flatten)]
    pub(crate) operator: Operator,
}

/// How fast, how wide and how long a lookup goes.
#[derive(Debug, Args)]
pub(crate) struct DhtPace {
    /// How urgent it is: the more, the more nodes are asked at once
    #[arg(long, value_name = "CLASS", default_value = "interactive")]
    pub(crate) class: DhtClass,
    /// After so long what there is, such as 3s; at most 1h [default: 10s when interactive, else 30s]
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub(crate) deadline: Option<Duration>,
    /// Over how many disjoint paths, 1 to 8: more than one find what a dishonest node would hide [default: 2 to store, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=8))]
    pub(crate) paths: Option<u16>,
    /// At most so many requests at once, 3 to 16 [default: the class's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=16))]
    pub(crate) alpha: Option<u16>,
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

/// What names a value's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeldBy {
    /// A peer that keeps it under a name.
    Peer(PeerId),
    /// Its own hash, as 64 hexadecimal digits.
    Hash(String),
}

fn held_by(text: &str) -> Result<HeldBy, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(HeldBy::Hash(text.to_ascii_lowercase()));
    }
    let peer = text.parse().map_err(|error| {
        format!("it is neither a peer ID ({error}) nor a hash, which has 64 hexadecimal digits")
    })?;
    Ok(HeldBy::Peer(peer))
}

fn deadline(text: &str) -> Result<Duration, String> {
    let deadline = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match DEADLINES.contains(&deadline) {
        true => Ok(deadline),
        false => Err("give 1ms to 1h".to_owned()),
    }
}
