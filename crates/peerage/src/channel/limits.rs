//! What a peer says about its side of a channel, and where that differs from ours.

use std::fmt::Write as _;

use peerage_wire::{channel as wire, hello};

use super::config::{ChannelConfig, ChannelRate, Class};
use crate::hello::text;

/// A peer's side of a channel, as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelLimits {
    /// The channel's name.
    pub name: String,
    /// The longest message that the peer takes, in bytes.
    pub max_message_bytes: u64,
    /// What the channel is for there. `None` from a node of an older version.
    pub class: Option<Class>,
    /// What it takes in a second.
    pub rate: ChannelRate,
}

impl ChannelLimits {
    /// As a hello lists it.
    pub(crate) fn from_hello(channel: hello::Channel) -> Self {
        Self {
            name: text(channel.name),
            max_message_bytes: channel.max_message_bytes,
            class: Class::from_code(channel.class),
            rate: rate(channel.bytes_per_second, channel.messages_per_second),
        }
    }

    /// As the first account of a stream says it.
    pub(crate) fn from_account(name: &str, limits: &wire::Limits) -> Self {
        Self {
            name: name.to_owned(),
            max_message_bytes: limits.max_message_bytes,
            class: Class::from_code(limits.class),
            rate: rate(limits.bytes_per_second, limits.messages_per_second),
        }
    }

    /// The longest message as a length on this machine.
    pub(crate) fn max_length(&self) -> usize {
        usize::try_from(self.max_message_bytes).unwrap_or(usize::MAX)
    }

    /// Where the peer's side differs from ours so that messages will be refused or go at another pace; empty when it does not.
    pub(crate) fn differences(&self, ours: &ChannelConfig) -> String {
        let mut found = String::new();
        if self.max_message_bytes < ours.max_message_bytes as u64 {
            let (theirs, ours) = (self.max_message_bytes, ours.max_message_bytes);
            let _ =
                write!(found, "it takes messages of {theirs} bytes at most, this node sends up to {ours}; ");
        }
        if let Some(class) = self.class
            && class != ours.class
        {
            let _ = write!(found, "its class there is {class}, here {}; ", ours.class);
        }
        let rates = [
            ("bytes", self.rate.bytes_per_second, ours.rate.bytes_per_second),
            ("messages", self.rate.messages_per_second, ours.rate.messages_per_second),
        ];
        for (unit, theirs, ours) in rates {
            if let Some(theirs) = theirs
                && ours.is_none_or(|ours| ours > theirs)
            {
                let _ = write!(found, "it takes {theirs} {unit} a second, less than this node would send; ");
            }
        }
        found.truncate(found.trim_end_matches("; ").len());
        found
    }
}

/// How our hello lists a channel.
pub(crate) fn in_hello(config: &ChannelConfig) -> hello::Channel {
    hello::Channel {
        name: config.name.clone(),
        max_message_bytes: config.max_message_bytes as u64,
        class: config.class.code(),
        bytes_per_second: config.rate.bytes_per_second.unwrap_or(0),
        messages_per_second: config.rate.messages_per_second.unwrap_or(0),
    }
}

/// The same in the first account of a stream.
pub(crate) fn in_account(config: &ChannelConfig) -> wire::Limits {
    wire::Limits {
        max_message_bytes: config.max_message_bytes as u64,
        class: config.class.code(),
        bytes_per_second: config.rate.bytes_per_second.unwrap_or(0),
        messages_per_second: config.rate.messages_per_second.unwrap_or(0),
    }
}

fn rate(bytes: u64, messages: u64) -> ChannelRate {
    let some = |limit: u64| (limit > 0).then_some(limit);
    ChannelRate { bytes_per_second: some(bytes), messages_per_second: some(messages) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named_and_a_wider_peer_is_none() {
        let theirs = |config: &ChannelConfig| ChannelLimits::from_hello(in_hello(config));
        let ours = ChannelConfig::new("/a/1").max_message_bytes(1000);
        assert_eq!(theirs(&ours).differences(&ours), "");
        assert_eq!(theirs(&ChannelConfig::new("/a/1")).differences(&ours), "");
        let narrow = ChannelConfig::bulk("/a/1").max_message_bytes(10).messages_per_second(5);
        let said = theirs(&narrow).differences(&ours);
        for part in [
            "10 bytes at most, this node sends up to 1000",
            "there is bulk, here normal",
            "5 messages a second",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let account = ChannelLimits::from_account("/a/1", &in_account(&narrow));
        assert_eq!(account, theirs(&narrow));
    }

    #[test]
    fn a_peer_of_the_older_version_has_no_class_to_differ_in() {
        let old = hello::Channel { name: "/a/1".into(), max_message_bytes: 1 << 20, ..Default::default() };
        assert_eq!(
            ChannelLimits::from_hello(old).differences(&ChannelConfig::bulk("/a/1").max_message_bytes(9)),
            ""
        );
    }
}
