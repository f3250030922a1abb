//! What a running node can be told about its DHT, and what it answers.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How long an operation may take.
pub(crate) const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
/// Members of a topic that are told at most, and those among whom is chosen by tags and protocols.
pub(crate) const MAX_MEMBERS: usize = 4000;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum DhtAct {
    /// Where a peer can be reached.
    Find {
        /// Its ID.
        peer: String,
    },
    /// The nodes closest to a key.
    Closest {
        /// The key, or a peer ID.
        key: String,
    },
    /// Keep a value under this node's own name.
    Put {
        /// What to call it.
        name: String,
        /// The value.
        value: Text,
    },
    /// Take a value of this node's own away.
    Remove {
        /// What it is called.
        name: String,
    },
    /// Keep content under its own hash, which is told.
    PutImmutable {
        /// The content.
        value: Text,
    },
    /// Renew content no more.
    ForgetImmutable {
        /// 64 hexadecimal digits.
        hash: String,
    },
    /// The value that a node keeps under its own name.
    Get {
        /// Whose.
        peer: String,
        /// What it is called.
        name: String,
    },
    /// The content that has this hash.
    GetImmutable {
        /// 64 hexadecimal digits.
        hash: String,
    },
    /// The value that a node keeps under its own name, once it is newer than the one that is known: the reply comes when it is, or with nothing after a while.
    Watch {
        /// Whose.
        peer: String,
        /// What it is called.
        name: String,
        /// The number of the known one, as an earlier reply has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// Tell that this node has what a key names.
    Provide {
        /// The key.
        key: String,
    },
    /// Tell no more that this node has what a key names.
    StopProviding {
        /// The key.
        key: String,
    },
    /// Who has what a key names.
    Providers {
        /// The key.
        key: String,
        /// At most so many.
        most: usize,
    },
    /// Join a topic.
    Announce {
        /// Which.
        topic: String,
        /// A word about this node, for people.
        brief: String,
        /// Words to choose by.
        #[serde(default)]
        tags: Vec<String>,
        /// Protocols that it serves.
        #[serde(default)]
        protocols: Vec<String>,
    },
    /// Leave a topic.
    Leave {
        /// Which.
        topic: String,
    },
    /// Who is in a topic.
    Topic {
        /// Which.
        topic: String,
        /// At most so many.
        most: usize,
        /// Only who says all of these.
        #[serde(default)]
        tags: Vec<String>,
        /// Only who serves one of these, where any are given.
        #[serde(default)]
        protocols: Vec<String>,
    },
    /// Leave a sealed message in a node's mailbox.
    Mail {
        /// Whose.
        peer: String,
        /// The message.
        text: Text,
    },
    /// Read this node's mailbox; the messages stay there.
    Mailbox,
    /// Take messages that were read out of this node's mailbox.
    ClearMailbox {
        /// Which.
        ids: Vec<String>,
    },
    /// The routing table.
    Table,
    /// The records that the node keeps because it is close to them.
    Held {
        /// At most so many.
        most: usize,
    },
    /// How it is.
    Stats,
    /// Serve from now on, or only ask.
    Mode {
        /// Which.
        mode: Role,
    },
}

/// What a node that takes part in the DHT does there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Answers others and keeps records for them.
    #[default]
    Serve,
    /// Asks and publishes, and answers nobody.
    Client,
}

/// How to do it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DhtOptions {
    /// `interactive`, `normal` or `frugal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<String>,
    /// Of how many nodes an answer is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quorum: Option<usize>,
    /// After so long what there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_ms: Option<u64>,
    /// Over how many disjoint paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paths: Option<usize>,
    /// At most so many requests at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alpha: Option<usize>,
    /// Tell each step.
    #[serde(default)]
    pub(crate) trace: bool,
}

/// How it went; and what was found, where something was looked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DhtReply {
    /// The way there; none for what the node knows by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) way: Option<Way>,
    /// Why nothing was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Text>,
    /// Names content that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peers: Option<Vec<Named>>,
    /// There are more than were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) more: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<Vec<Letter>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<Stats>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<Vec<HeldRow>>,
    /// The number of a value that is watched; without a value it was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<StepRow>,
    /// Further steps, which are not told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) steps_left_out: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Bytes that are a text, or their hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Text {
    Text(String),
    Hex(String),
}

impl Text {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex::encode(bytes)),
        }
    }

    /// # Errors
    /// When the digits are none.
    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Hex(digits) => hex::decode(&digits).map_err(|error| format!("{digits:?}: {error}")),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Hex(text) => text,
        }
    }
}

/// A peer and where it can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) peer: String,
    pub(crate) addresses: Vec<String>,
    /// What it says about itself, or what is known about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
    /// What it chose to be found by, in a topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) protocols: Vec<String>,
}

/// A message of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Letter {
    /// Names it, for [`DhtAct::ClearMailbox`].
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) text: Text,
}

/// How a lookup went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Way {
    pub(crate) ended: String,
    pub(crate) asked: u32,
    pub(crate) answered: u32,
    pub(crate) failed: u32,
    pub(crate) cancelled: u32,
    pub(crate) stored: u32,
    pub(crate) warm: u32,
    pub(crate) hops: u32,
    pub(crate) ms: f64,
    /// So many nodes were to store it: the quorum, or as many as its kind asks for, or all that are known where those are fewer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) wanted: usize,
    /// Further copies are on their way.
    #[serde(default)]
    pub(crate) unsettled: bool,
    /// The node tells others as long as too few have it.
    #[serde(default)]
    pub(crate) looked_after: bool,
    /// So many nodes, the one that was told among them where it holds it, had the value that was found.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) holders: usize,
    /// Why copies were not stored, and how many for each reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_stored: Vec<(String, usize)>,
    /// The peers around the key are denser than in an honest network.
    pub(crate) dense: bool,
    /// A publisher was found to have signed two things under one number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) equivocation: Option<Proof>,
}

/// Two records that one publisher has signed under one number, in hexadecimal digits: whoever reads them can check it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proof {
    pub(crate) publisher: String,
    pub(crate) records: [String; 2],
}

/// A step of a lookup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepRow {
    pub(crate) ms: f64,
    /// Such as `asked`, `answered`, `suspected`.
    pub(crate) what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
}

/// How the node's DHT is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// Whether it serves, or only asks; null from a node of an earlier version.
    #[serde(default)]
    pub(crate) mode: Option<Role>,
    /// It has found its place.
    pub(crate) joined: bool,
    /// Nodes in the table.
    pub(crate) known: usize,
    /// Those among them that may be asked.
    pub(crate) usable: usize,
    pub(crate) connected: usize,
    /// About how many nodes the network has; null while too little was measured.
    pub(crate) size: Option<f64>,
    /// The node's own network is suspected.
    pub(crate) outage: bool,
    /// Under way.
    pub(crate) operations: usize,
    /// Under way.
    pub(crate) requests: usize,
    pub(crate) seen: Seen,
    pub(crate) held: Held,
    /// Records of this node's own, and how they stand.
    pub(crate) published: Vec<PublishedRow>,
    /// Keys that this node provides, and tells again.
    pub(crate) provided: Vec<Text>,
    pub(crate) totals: Totals,
}

/// What the node keeps for the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// Who has what, beside the records.
    pub(crate) providers: usize,
}

/// A record of this node's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedRow {
    /// Such as `value colour`.
    pub(crate) what: String,
    /// `publishing`, `healthy`, `degraded`, `critical` or `expired`.
    pub(crate) state: String,
    /// So many nodes have said that they have it.
    pub(crate) live: usize,
    /// So many should.
    pub(crate) wanted: usize,
    /// When it expires unless it is renewed, in seconds since 1970.
    pub(crate) not_after_unix: u64,
    pub(crate) renewed: bool,
}

/// A record that is kept because the node is close to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldRow {
    /// Such as `value colour`.
    pub(crate) what: String,
    pub(crate) publisher: String,
    /// `healthy`, `degraded` or `critical`; `spare` where enough others are closer.
    pub(crate) state: String,
    /// So many live copies are known.
    pub(crate) live: usize,
    /// So many should be.
    pub(crate) wanted: usize,
    /// When it goes, in seconds since 1970.
    pub(crate) not_after_unix: u64,
}

/// Different nodes that showed themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) hour: usize,
    pub(crate) day: usize,
    pub(crate) week: usize,
    /// Since the node's start.
    pub(crate) unique: u64,
    /// There were more within a week than are remembered: the counts but for `unique` are lower bounds.
    pub(crate) at_least: bool,
}

/// What has happened since the node's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Requests to others: `asked` = `answered` + `failed` + `cancelled` + those under way.
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// Answers among `cancelled` that came all the same.
    pub(crate) late: u64,
    /// Questions of others that were answered.
    pub(crate) served: u64,
    /// Those that were told that the node is busy.
    pub(crate) refused: u64,
}
