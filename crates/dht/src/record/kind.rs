//! The kinds of records and what each may cost (dht.md B.4).

use std::time::Duration;

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Where a peer can be reached. One publisher: the peer itself.
    Endpoint,
    /// A peer's ad under a topic. Many publishers, one ad of each.
    Topic,
    /// Sealed messages to a peer. Many publishers, many messages.
    Mailbox,
    /// Anything that a publisher keeps under its own key. One publisher.
    Value,
    /// Content under its hash, which never changes.
    Immutable,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Endpoint, Self::Topic, Self::Mailbox, Self::Value, Self::Immutable];

    /// The kind's part of a key: `/<network>/<kind>/…`.
    pub fn segment(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Topic => "topic",
            Self::Mailbox => "mailbox",
            Self::Value => "value",
            Self::Immutable => "immutable",
        }
    }

    /// Whether records of several publishers stand beside each other under one key.
    pub fn has_many_publishers(self) -> bool {
        matches!(self, Self::Topic | Self::Mailbox)
    }
}

/// What a record of one kind may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindLimits {
    /// Bytes of its body. Envelope and framing come to that: [`super::MAX_OVERHEAD`] at most.
    pub max_body_bytes: usize,
    /// The longest time from publishing to expiry.
    pub max_ttl: Duration,
    /// The time that a publisher asks for unless the caller says otherwise.
    pub default_ttl: Duration,
    /// At how many peers it is kept.
    pub replicas: usize,
}

/// What a value of a namespace that a validator judges may cost. Its publisher says nothing of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignLimits {
    /// Bytes of the whole value.
    pub max_body_bytes: usize,
    /// How long a holder keeps it unless it is stored again.
    pub max_ttl: Duration,
    /// At how many peers it is kept.
    pub replicas: usize,
}

/// What holders go by, of whichever namespace a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// The longest time that it is kept.
    pub max_ttl: Duration,
    /// At how many peers.
    pub replicas: usize,
}

impl KindLimits {
    /// What holders go by.
    pub fn keeping(&self) -> Keeping {
        Keeping { max_ttl: self.max_ttl, replicas: self.replicas }
    }
}

impl ForeignLimits {
    /// What holders go by.
    pub fn keeping(&self) -> Keeping {
        Keeping { max_ttl: self.max_ttl, replicas: self.replicas }
    }
}

/// Limits of records, for publishers, holders and readers alike: nodes of one network must agree on them.
#[derive(Debug, Clone)]
pub struct RecordsConfig {
    /// Endpoint records: at most 1,000 bytes with everything around them.
    pub endpoint: KindLimits,
    /// Topic ads.
    pub topic: KindLimits,
    /// Members of a topic's shard beyond which newcomers stand in a further one ([`crate::topic`]). All nodes of a network had best have the same.
    pub topic_shard_members: usize,
    /// Mailbox messages.
    pub mailbox: KindLimits,
    /// User values.
    pub value: KindLimits,
    /// Immutable values.
    pub immutable: KindLimits,
    /// Values of namespaces that a validator of the application judges.
    pub foreign: ForeignLimits,
    /// How far a publisher's clock may be ahead of ours.
    pub clock_tolerance: Duration,
    /// Neighbours of other subnets, at least, whose clocks tell that ours is wrong.
    pub clock_neighbours: usize,
    /// When our clock is further than this from the median of the neighbours', records are not refused for their times any more.
    pub clock_alarm: Duration,
    /// Messages that one recipient's mailbox may hold at one holder.
    pub mailbox_messages: usize,
    /// Messages among them from senders without a token of the recipient.
    pub mailbox_unknown: usize,
    /// Messages among them from one sender.
    pub mailbox_per_sender: usize,
    /// Zero bits of work that a message without a token needs where the recipient has published no rules.
    pub mailbox_work_bits: u32,
}

impl RecordsConfig {
    /// The limits of a kind.
    pub fn of(&self, kind: Kind) -> &KindLimits {
        match kind {
            Kind::Endpoint => &self.endpoint,
            Kind::Topic => &self.topic,
            Kind::Mailbox => &self.mailbox,
            Kind::Value => &self.value,
            Kind::Immutable => &self.immutable,
        }
    }
}

impl Default for RecordsConfig {
    fn default() -> Self {
        let limits = |max_body_bytes, max_ttl_hours, default_ttl_hours, replicas| KindLimits {
            max_body_bytes,
            max_ttl: hours(max_ttl_hours),
            default_ttl: hours(default_ttl_hours),
            replicas,
        };
        Self {
            endpoint: limits(700, 6, 2, 12),
            topic: limits(256, 2, 1, 20),
            mailbox: limits(4 * 1024, 7 * 24, 7 * 24, 8),
            value: limits(4 * 1024, 48, 48, 12),
            immutable: limits(8 * 1024, 48, 48, 8),
            foreign: ForeignLimits { max_body_bytes: 4 * 1024, max_ttl: hours(48), replicas: 12 },
            topic_shard_members: 200,
            clock_tolerance: Duration::from_secs(600),
            clock_neighbours: 8,
            clock_alarm: Duration::from_secs(300),
            mailbox_messages: 64,
            mailbox_unknown: 32,
            mailbox_per_sender: 16,
            mailbox_work_bits: 12,
        }
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}
