//! The works: what is done, how much of it, and what is counted.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Bytes one way on one stream.
    #[value(name = "bulk-1")]
    #[serde(rename = "bulk-1")]
    Bulk1,
    /// Bytes one way on eight streams of one connection.
    #[value(name = "bulk-8")]
    #[serde(rename = "bulk-8")]
    Bulk8,
    /// One-way messages of 64 bytes on one channel.
    #[value(name = "msgs-64")]
    #[serde(rename = "msgs-64")]
    Messages64,
    /// One-way messages of 1 KiB on one channel.
    #[value(name = "msgs-1k")]
    #[serde(rename = "msgs-1k")]
    Messages1k,
    /// One-way messages of 64 KiB on one channel.
    #[value(name = "msgs-64k")]
    #[serde(rename = "msgs-64k")]
    Messages64k,
    /// Ping-pong of 32 bytes on an open channel.
    Rtt,
    /// A new request of 32 bytes each, one after the other.
    #[value(name = "rpc-1")]
    #[serde(rename = "rpc-1")]
    Rpc1,
    /// A new request of 32 bytes each, 64 at a time.
    #[value(name = "rpc-64")]
    #[serde(rename = "rpc-64")]
    Rpc64,
    /// One stream for each message of 64 bytes, 64 at a time.
    Streams,
    /// New connections to the first answer, one after the other.
    #[value(name = "handshake-1")]
    #[serde(rename = "handshake-1")]
    Handshake1,
    /// New connections to the first answer, 32 at a time.
    #[value(name = "handshake-32")]
    #[serde(rename = "handshake-32")]
    Handshake32,
    /// What an idle connection keeps in memory, on each side.
    Memory,
    /// One node sends each message of 1 KiB to every connected peer.
    Fanout,
    /// A control channel while a bulk channel saturates the connection.
    Prio,
    /// From the start of the process to the first answer.
    Start,
}

impl Work {
    /// All works, in the order of the table.
    pub fn all() -> &'static [Work] {
        Self::value_variants()
    }

    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// How much of it a full run does, in [`Work::unit`]s.
    pub fn amount(self) -> u64 {
        match self {
            Work::Bulk1 | Work::Bulk8 => 2 << 30,
            Work::Messages64 => 2_000_000,
            Work::Messages1k => 500_000,
            Work::Messages64k => 16_384,
            Work::Rtt | Work::Rpc1 => 20_000,
            Work::Rpc64 | Work::Streams => 100_000,
            Work::Handshake1 => 500,
            Work::Handshake32 => 1_600,
            Work::Memory => 1_000,
            Work::Fanout => 500_000,
            Work::Prio => 4_000,
            Work::Start => 1,
        }
    }

    /// The most that may be asked for: each run is bounded.
    pub fn most(self) -> u64 {
        match self {
            Work::Memory => 10_000,
            Work::Start => 1,
            Work::Prio => 100_000,
            other => other.amount().saturating_mul(64),
        }
    }

    /// What an amount counts.
    pub fn unit(self) -> Unit {
        match self {
            Work::Bulk1 | Work::Bulk8 => Unit::Bytes,
            Work::Messages64 | Work::Messages1k | Work::Messages64k | Work::Streams | Work::Fanout => {
                Unit::Messages
            }
            Work::Rtt | Work::Rpc1 | Work::Rpc64 | Work::Prio => Unit::Requests,
            Work::Handshake1 | Work::Handshake32 | Work::Memory | Work::Start => Unit::Connections,
        }
    }

    /// Bytes of one message, where messages are counted.
    pub fn message_bytes(self) -> usize {
        match self {
            Work::Messages1k | Work::Fanout => 1024,
            Work::Messages64k => crate::CHUNK,
            _ => crate::SMALL,
        }
    }

    /// How many are done at the same time.
    pub fn lanes(self) -> u64 {
        match self {
            Work::Bulk8 => 8,
            Work::Rpc64 | Work::Streams => 64,
            Work::Handshake32 => 32,
            _ => 1,
        }
    }

    /// Server nodes that it needs.
    pub fn nodes(self) -> usize {
        if self == Work::Fanout { FANOUT } else { 1 }
    }
}

/// Peers that a broadcast goes to.
const FANOUT: usize = 50;

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes of payload.
    Bytes,
    /// Messages; of a broadcast, each delivery.
    Messages,
    /// Requests with their answers.
    Requests,
    /// Connections.
    Connections,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_on_the_command_line_and_in_reports_are_the_same() {
        for work in Work::all() {
            let name = work.name();
            assert_eq!(serde_json::to_value(work).unwrap_or_default(), name.as_str());
            assert!(Work::from_str(&name, false) == Ok(*work), "{name}");
            assert!(work.amount() <= work.most(), "{name}");
        }
    }
}
