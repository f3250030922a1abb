//! How a running node is told what to do: commands, replies and events, each one JSON object on a line of its own.
//!
//! A command has an `id` of the caller's choice, which comes back in its reply: `{"id":1,"command":"status"}` is answered by
//! `{"id":1,"ok":{…}}` or `{"id":1,"error":"…"}`. Commands run side by side, so replies may come in another order. Events
//! come in between: `{"event":"peer_connected",…}`. Where the lines come from and go to is not the business of this module:
//! [`session::serve`] takes any reader and writer.

pub(crate) mod dht;
pub(crate) mod lines;
pub(crate) mod session;
pub(crate) mod socket;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::transfer::Progress;

/// What a node can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Who the node is and how it is: [`Status`].
    Status,
    /// Who is connected: a list of [`PeerRow`].
    Peers {
        /// Ping each now.
        #[serde(default)]
        ping: bool,
    },
    /// The peers on the allow-list: a list of peer IDs, or null where there is no list.
    Allowed,
    /// Add a peer to the allow-list; the reply is that of `allowed`.
    Allow {
        /// Whom.
        peer: String,
    },
    /// Take a peer off the allow-list; the reply is that of `allowed`.
    Disallow {
        /// Whom.
        peer: String,
    },
    /// Why a peer is connected or not: a [`Why`].
    Why {
        /// Whose story.
        peer: String,
    },
    /// The address book as it is exported: a text.
    BookExport,
    /// Take in an exported address book: how many entries were good.
    BookImport {
        /// A path on the node's machine.
        path: PathBuf,
    },
    /// Keep somebody out.
    Ban {
        /// A peer ID, an IP address or a subnet.
        target: String,
        /// Why, for people.
        #[serde(default)]
        reason: String,
        /// For how many seconds; for ever when it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
    /// Lift a ban.
    Unban {
        /// As it stands in the list.
        target: String,
    },
    /// Who is kept out: a list of [`BanRow`].
    Bans,
    /// Give a peer a standing, or take it away.
    Class {
        /// A peer ID; a multiaddr for one that is to be dialled.
        peer: String,
        /// `persistent`, `unconditional` or `private`.
        class: String,
        /// Give it.
        on: bool,
    },
    /// Who has a standing: a list of [`ClassRow`].
    Classes {
        /// Which.
        class: String,
    },
    /// What the node has counted, as Prometheus text.
    Metrics,
    /// Where the node listens: a list of multiaddrs.
    Listening,
    /// Listen at one more address; the reply is that of `listening`.
    Listen {
        /// A multiaddr.
        address: String,
    },
    /// Take no more connections at an address; the reply is that of `listening`.
    StopListening {
        /// As it stands in the list.
        address: String,
    },
    /// Read the file with the network's secrets anew: [`SecretReport`].
    SecretReload,
    /// Connect to an address now: [`ConnectReport`].
    Connect {
        /// A multiaddr.
        address: String,
    },
    /// Send a text and wait for the answers: a list of [`Answer`].
    Broadcast {
        /// The text.
        text: String,
        /// To these peers; to all that are connected when it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Vec<String>>,
    },
    /// A request that is echoed: [`Echo`].
    Request {
        /// Whom.
        peer: String,
        /// What.
        text: String,
    },
    /// Send a file, with [`Event::Progress`] on the way: [`FileReport`].
    SendFile {
        /// To whom; it must be connected.
        peer: String,
        /// A path on the node's machine.
        path: PathBuf,
    },
    /// Use the DHT: a [`dht::DhtReply`].
    Dht {
        /// What to do.
        act: dht::DhtAct,
        /// How.
        #[serde(default)]
        options: dht::DhtOptions,
    },
    /// Keep running when the commands end.
    Detach,
    /// Stop in good order.
    Stop,
}

/// A command and the number of its reply.
#[derive(Debug, Serialize)]
pub(crate) struct Call<'a> {
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) command: &'a Command,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The command's number; none when the line had none.
    pub(crate) id: Option<u64>,
    /// What came of it.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It was carried out.
    Ok(Value),
    /// It was not, and why, in one line.
    Error(String),
}

/// What happens at a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The node listens, with its peer ID. One for each address, before anything else.
    Listening { address: String },
    /// The addresses at which others can reach the node have changed. These are all of them now.
    ListeningChanged { addresses: Vec<String> },
    /// A peer was admitted. `direction` is `inbound` or `outbound`.
    PeerConnected { peer: String, direction: String, address: String },
    /// A peer is gone.
    PeerDisconnected { peer: String, cause: String, redial_ms: Option<u64> },
    /// A dial failed.
    DialFailed { address: String, peer: Option<String>, cause: String, retry_ms: Option<u64> },
    /// A peer turned the node away. `reason` is a word such as `full`; `alternatives` are the peers that it named instead.
    RefusedByPeer { peer: String, reason: String, alternatives: Vec<String> },
    /// A text came on the chat channel.
    Message { from: String, text: String },
    /// A file is in the inbox, whole and compared.
    FileReceived { from: String, name: String, bytes: u64, sha256: String },
    /// How far a command is. These may be left out when there are many.
    Progress {
        id: u64,
        #[serde(flatten)]
        progress: Progress,
    },
    /// So many events could not be told, because the reader was too slow.
    Missed { events: u64 },
}

/// The reply to [`Command::Status`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) peer_id: String,
    pub(crate) moniker: String,
    pub(crate) network: String,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_ms: u64,
    pub(crate) listening: Vec<String>,
    /// Where peers see the node, when enough of them agree; these addresses stand in `listening` too.
    #[serde(default)]
    pub(crate) observed: Vec<String>,
    pub(crate) peers: usize,
}

/// The reply to [`Command::Why`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Why {
    /// The story as data.
    pub(crate) story: Value,
    /// The same for people.
    pub(crate) text: String,
}

/// One connected peer in the reply to [`Command::Peers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerRow {
    pub(crate) peer: String,
    /// `inbound` or `outbound`.
    pub(crate) direction: String,
    pub(crate) address: String,
    /// The smoothed round-trip time that QUIC keeps.
    pub(crate) rtt_ms: f64,
    /// UDP payload bytes on this connection, and packets that were sent and that count as lost.
    #[serde(default)]
    pub(crate) sent_bytes: u64,
    #[serde(default)]
    pub(crate) received_bytes: u64,
    #[serde(default)]
    pub(crate) sent_packets: u64,
    #[serde(default)]
    pub(crate) lost_packets: u64,
    /// The time of a ping, when one was asked for and answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ping_ms: Option<f64>,
    /// What the peer calls itself; not proved.
    pub(crate) moniker: String,
    /// What the peer says that it runs; not proved.
    pub(crate) agent: String,
    /// A node of another libp2p implementation.
    pub(crate) foreign: bool,
}

/// One ban in the reply to [`Command::Bans`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BanRow {
    pub(crate) target: String,
    pub(crate) reason: String,
    /// The misbehaviour that it is for; missing when the user banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) penalty: Option<String>,
    /// In milliseconds since 1970.
    pub(crate) since_unix_ms: u64,
    /// The same; missing when it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until_unix_ms: Option<u64>,
}

/// One standing in the reply to [`Command::Classes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClassRow {
    pub(crate) peer: String,
    pub(crate) class: String,
}

/// The reply to [`Command::SecretReload`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretReport {
    /// How many secrets are taken now.
    pub(crate) secrets: usize,
}

/// The reply to [`Command::Connect`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConnectReport {
    pub(crate) peer: String,
}

/// What one peer had to say to a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) peer: String,
    /// When its answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ms: Option<f64>,
    /// Why none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Answer {
    /// An answer, or why there is none.
    pub(crate) fn new(peer: String, answer: Result<Duration, String>) -> Self {
        let (ms, error) = match answer {
            Ok(time) => (Some(millis(time)), None),
            Err(error) => (None, Some(error)),
        };
        Self { peer, ms, error }
    }
}

/// The reply to [`Command::Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Echo {
    pub(crate) text: String,
    pub(crate) moniker: String,
    pub(crate) ms: f64,
}

/// The reply to [`Command::SendFile`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FileReport {
    /// Its name in the receiver's inbox.
    pub(crate) stored_as: String,
    pub(crate) bytes: u64,
    /// What was moved; the receiver had the rest.
    pub(crate) moved: u64,
    pub(crate) sha256: String,
    /// Without the time that it took to compute the sum.
    pub(crate) ms: f64,
}

/// A time in milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
