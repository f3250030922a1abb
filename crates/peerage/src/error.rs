//! What can go wrong, one type for each family of operations. Each message names the thing at fault and the remedy.

use std::time::Duration;

use peerage_identity::{AddressError, ListenAddress, PeerId, PeerIdError};
use peerage_peers::{Blame, Failure, PeerClass};
use peerage_transport::BindError;

use crate::data_dir::DataDirError;
use crate::secret::ChangeSecretsError;
use crate::seed_file::SeedFileError;
use crate::store::StoreError;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A network name outside `[a-z0-9-]{1,32}`.
    #[error("{name:?} is not a network name: use 1 to 32 lower-case letters, digits and hyphens")]
    NetworkName {
        /// What was given.
        name: String,
    },
    /// An address that was given as listen address, seed or persistent peer.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// What was given as a peer is no peer ID and no address.
    #[error("no {class} peer: {error}")]
    PeerId {
        /// What it was to be.
        class: PeerClass,
        /// What is wrong with it.
        error: PeerIdError,
    },
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A file of seeds.
    #[error(transparent)]
    SeedFile(#[from] SeedFileError),
    /// The stored address book.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A UDP socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The network secrets.
    #[error(transparent)]
    Secrets(#[from] ChangeSecretsError),
    /// Foreign nodes were to be admitted to a network with a secret.
    #[error(
        "nodes of other implementations cannot prove a network secret: leave out `--foreign allow` (`peers.foreign` in a settings file), or the secret"
    )]
    ForeignWithSecret,
    /// A limit that makes no sense.
    #[error("{0}")]
    Limits(String),
    /// The environment, which is the operating system where there is no other, gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Entropy(std::io::Error),
}

/// Why a node does not listen at an address, or can't stop to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The text is no listen address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No socket can be had there.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The node listens there already.
    #[error("this node listens at {address} already")]
    AlreadyListening {
        /// What was asked for.
        address: ListenAddress,
    },
    /// The node does not listen there.
    #[error("this node does not listen at {address}, only at {listening:?} (name one of these)")]
    NotListening {
        /// What was asked for.
        address: ListenAddress,
        /// Where it listens, with real ports.
        listening: Vec<ListenAddress>,
    },
    /// The node listens at as many addresses as it may.
    #[error("this node listens at {most} addresses, which is the most: stop listening at one of them first")]
    TooMany {
        /// The limit.
        most: usize,
    },
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Closed,
}

/// Why an explicit connect failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text is not an address that can be dialled.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The dial or the handshake failed.
    #[error("{detail}")]
    Failed {
        /// Who is to blame.
        blame: Blame,
        /// What happened, with the remedy.
        detail: String,
    },
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Closed,
}

impl From<Failure> for ConnectError {
    fn from(failure: Failure) -> Self {
        Self::Failed { blame: failure.blame(), detail: failure.detail }
    }
}

/// Why a protocol, a channel or a request handler could not be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Something else is served under the name.
    #[error("{name} is already registered at this node: drop the other one first, or choose another name")]
    Taken {
        /// The protocol name.
        name: String,
    },
    /// Not a protocol name.
    #[error(
        "{name:?} is not a protocol name: it starts with a slash, has at most 256 bytes and no line break"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// The limits of a channel or of a request handler contradict each other.
    #[error("{name}: {detail}")]
    Limits {
        /// The protocol name.
        name: String,
        /// What is wrong, with the remedy.
        detail: String,
    },
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no connection to the peer.
    #[error("not connected to {peer}: connect to it first, or add it with peers().add")]
    NotConnected {
        /// Whom.
        peer: PeerId,
    },
    /// The peer does not have the channel.
    #[error("{peer} does not have the channel {channel}")]
    NotSupported {
        /// Whom.
        peer: PeerId,
        /// The channel's name.
        channel: String,
    },
    /// The message exceeds the channel's bound, here or at the peer.
    #[error(
        "a message of {length} bytes exceeds the {most} that channel {channel} takes{}: raise its max_message_bytes there",
        at_whom(.at)
    )]
    TooLarge {
        /// The message's length in bytes.
        length: usize,
        /// The bound in bytes.
        most: usize,
        /// The channel's name.
        channel: String,
        /// Whose bound it is. `None`: this node's.
        at: Option<PeerId>,
    },
    /// The queue to the peer is full, and the caller or the channel's policy does not wait.
    #[error(
        "the send queue is full: wait with send, or raise the channel's send_queue_bytes or send_queue_messages"
    )]
    QueueFull,
    /// The queue to the peer stayed full for as long as the channel's policy waits, or the peer did not say for so long whether it takes a message of
    /// that size.
    #[error(
        "there was no room for the message for {after:?}: the peer takes messages too slowly, or does not answer"
    )]
    TimedOut {
        /// How long.
        after: Duration,
    },
    /// A newer message took its place in the queue, as the channel's policy says.
    #[error("the send queue was full, and a newer message took the place")]
    Dropped,
    /// The memory that is accounted for is used up, or all of it that one peer may hold; and it stayed so for as long as the
    /// channel's policy waits.
    #[error(
        "the memory limit {limit} of {most} bytes is reached, or this peer's share of it: read faster, send less, or raise it"
    )]
    NoMemory {
        /// The limit's name, in [`crate::MemoryLimits`] or [`crate::ChannelConfig`].
        limit: &'static str,
        /// The limit in bytes.
        most: usize,
    },
    /// The peer does not confirm what it takes: it is foreign, or of an older version.
    #[error("{peer} confirms no messages (it is not a Peerage node, or of an older version): use send")]
    NotConfirmed {
        /// Whom.
        peer: PeerId,
    },
    /// The peer ended the channel's stream.
    #[error("{peer} takes no more on channel {channel}: {detail}")]
    Stopped {
        /// Who.
        peer: PeerId,
        /// The channel's name.
        channel: String,
        /// Why, in its words.
        detail: String,
    },
    /// The connection ended before the message was sent.
    #[error("the connection to {peer} ended: {cause}")]
    Lost {
        /// To whom.
        peer: PeerId,
        /// Why.
        cause: String,
    },
    /// The channel or the node has been closed.
    #[error("the channel has been closed")]
    Closed,
}

impl SendError {
    /// The names of the causes, as they stand in metrics.
    pub const CAUSES: &'static [&'static str] = &[
        "not_connected",
        "not_supported",
        "too_large",
        "queue_full",
        "timed_out",
        "dropped",
        "no_memory",
        "not_confirmed",
        "stopped",
        "lost",
        "closed",
    ];

    /// The cause in one word, for graphs: one of [`SendError::CAUSES`].
    pub fn cause(&self) -> &'static str {
        Self::CAUSES[self.cause_number()]
    }

    /// Its place in the list.
    pub(crate) fn cause_number(&self) -> usize {
        match self {
            Self::NotConnected { .. } => 0,
            Self::NotSupported { .. } => 1,
            Self::TooLarge { .. } => 2,
            Self::QueueFull => 3,
            Self::TimedOut { .. } => 4,
            Self::Dropped => 5,
            Self::NoMemory { .. } => 6,
            Self::NotConfirmed { .. } => 7,
            Self::Stopped { .. } => 8,
            Self::Lost { .. } => 9,
            Self::Closed => 10,
        }
    }
}

fn at_whom(peer: &Option<PeerId>) -> String {
    peer.map_or_else(String::new, |peer| format!(" at {peer}"))
}
