//! What a running node can be told about its DHT, and what it answers.

use serde::{Deserialize, Serialize};

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
        /// The value, as text.
        value: String,
    },
    /// The value that a node keeps under its own name.
    Get {
        /// Whose.
        peer: String,
        /// What it is called.
        name: String,
    },
    /// Tell that this node has what a key names.
    Provide {
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
    },
    /// Who is in a topic.
    Topic {
        /// Which.
        topic: String,
    },
    /// Leave a sealed message in a node's mailbox.
    Mail {
        /// Whose.
        peer: String,
        /// The message.
        text: String,
    },
    /// Read this node's mailbox.
    Mailbox,
    /// The routing table.
    Table,
    /// How it is.
    Stats,
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<Named>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) messages: Vec<Letter>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) facts: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<StepRow>,
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
            Err(_) => Self::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Hex(text) => text,
        }
    }
}

/// A peer and where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) peer: String,
    pub(crate) addresses: Vec<String>,
    /// What it says about itself, or what is known about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

/// A message of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) from: String,
    pub(crate) text: Text,
}

/// How a lookup went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The peers around the key are denser than in an honest network.
    pub(crate) dense: bool,
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
