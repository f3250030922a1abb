//! What a channel may do.

use std::time::Duration;

use crate::error::RegisterError;

/// What a channel is for. It gives the defaults, says who goes first, and travels to the peer, so that two sides that take a channel for
/// different things hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Class {
    /// Small and urgent: goes before everything else and may use the room that other channels leave free.
    Control,
    /// Neither.
    #[default]
    Normal,
    /// Much and patient: everything else goes before it.
    Bulk,
}

impl Class {
    /// Its number on the wire.
    pub(crate) fn code(self) -> u32 {
        match self {
            Class::Control => 1,
            Class::Normal => 2,
            Class::Bulk => 3,
        }
    }

    /// The class of a number; `None` for one that this version does not know.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        [Class::Control, Class::Normal, Class::Bulk].into_iter().find(|class| class.code() == code)
    }

    fn priority(self) -> i32 {
        match self {
            Class::Control => 100,
            Class::Normal => 0,
            Class::Bulk => -100,
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Control => "control",
            Class::Normal => "normal",
            Class::Bulk => "bulk",
        })
    }
}

/// What happens to a message for which the queue to its peer has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// Its sender waits, for memory too, so long at most; then the message is refused.
    Wait(Duration),
    /// It is refused at once.
    Refuse,
    /// The oldest messages that wait make room for it. They are counted, and whoever waits for their delivery is told.
    DropOldest,
}

/// How much may be sent to one peer in a second: on average, after a first second's worth at once. Kept by the sender, who takes the stricter
/// of both sides' rates, and checked by the receiver, who takes no more in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ChannelRate {
    /// Bytes, lengths included. `None`: any number.
    pub bytes_per_second: Option<u64>,
    /// Messages. `None`: any number.
    pub messages_per_second: Option<u64>,
}

impl ChannelRate {
    /// The stricter of two.
    pub(crate) fn and(self, other: ChannelRate) -> ChannelRate {
        let stricter = |a: Option<u64>, b: Option<u64>| [a, b].into_iter().flatten().min();
        ChannelRate {
            bytes_per_second: stricter(self.bytes_per_second, other.bytes_per_second),
            messages_per_second: stricter(self.messages_per_second, other.messages_per_second),
        }
    }

    /// There is no limit.
    pub(crate) fn is_unlimited(self) -> bool {
        self == ChannelRate::default()
    }
}

/// Declares a channel: its name and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The protocol name on the wire, such as `/acme/chat/1`.
    pub name: String,
    /// What the channel is for. Default: [`Class::Normal`].
    pub class: Class,
    /// Which channel goes first when the connection is busy: higher goes first. Requests and raw streams have 0. Default: that of the class,
    /// 100, 0 or -100.
    pub priority: i32,
    /// The longest message that is sent or taken, in bytes. A peer that sends a longer one loses the stream. Default: 1 MiB.
    pub max_message_bytes: usize,
    /// Bytes that may wait to be sent to one peer. Default: 4 MiB.
    pub send_queue_bytes: usize,
    /// Messages that may wait to be sent to one peer. Default: 16,384.
    pub send_queue_messages: usize,
    /// Received bytes of one peer that may wait for the application. Default: 4 MiB.
    pub receive_queue_bytes: usize,
    /// Received messages of one peer that may wait for the application. Default: 16,384.
    pub receive_queue_messages: usize,
    /// Bytes that the channel may hold for all peers together, in both directions. Default: 128 MiB.
    pub memory_bytes: usize,
    /// How much may be sent to one peer, and taken from one, in a second. Default: any amount.
    pub rate: ChannelRate,
    /// What happens when the queue to a peer is full. Default: the sender waits, for 30 s at most.
    pub overflow: Overflow,
    /// How long what is queued is still sent after the last handle of the channel was dropped; what is left then is lost. Default: 30 s.
    pub linger: Duration,
    /// A broadcast passes over peers that lately sent the same message themselves. Default: it does not.
    pub skip_known: bool,
}

impl ChannelConfig {
    /// A channel with the default limits.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            class: Class::Normal,
            priority: Class::Normal.priority(),
            max_message_bytes: 1024 * 1024,
            send_queue_bytes: 4 * 1024 * 1024,
            send_queue_messages: 16 * 1024,
            receive_queue_bytes: 4 * 1024 * 1024,
            receive_queue_messages: 16 * 1024,
            memory_bytes: 128 * 1024 * 1024,
            rate: ChannelRate::default(),
            overflow: Overflow::Wait(Duration::from_secs(30)),
            linger: Duration::from_secs(30),
            skip_known: false,
        }
    }

    /// A channel for small and urgent messages: of at most 64 KiB, with queues of 256 KiB and 1,024 messages, before all other traffic.
    pub fn control(name: impl Into<String>) -> Self {
        Self::new(name)
            .class(Class::Control)
            .max_message_bytes(64 * 1024)
            .send_queue(256 * 1024, 1024)
            .receive_queue(256 * 1024, 1024)
    }

    /// A channel for large amounts that may take their time: messages of at most 4 MiB, with queues of 8 MiB, behind all other traffic.
    pub fn bulk(name: impl Into<String>) -> Self {
        Self::new(name)
            .class(Class::Bulk)
            .max_message_bytes(4 * 1024 * 1024)
            .send_queue(8 * 1024 * 1024, 16 * 1024)
            .receive_queue(8 * 1024 * 1024, 16 * 1024)
    }

    /// A channel on which only news count, such as positions or prices: a message that was overtaken by 64 newer ones is dropped.
    pub fn latest(name: impl Into<String>) -> Self {
        Self::new(name)
            .max_message_bytes(64 * 1024)
            .send_queue(1024 * 1024, 64)
            .receive_queue(1024 * 1024, 64)
            .overflow(Overflow::DropOldest)
    }

    /// Sets the class, and the priority that goes with it.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        (self.class, self.priority) = (class, class.priority());
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the longest message, in bytes.
    #[must_use]
    pub fn max_message_bytes(mut self, most: usize) -> Self {
        self.max_message_bytes = most;
        self
    }

    /// Sets how much may wait for one peer, in bytes and in messages.
    #[must_use]
    pub fn send_queue(mut self, bytes: usize, messages: usize) -> Self {
        (self.send_queue_bytes, self.send_queue_messages) = (bytes, messages);
        self
    }

    /// Sets how much of one peer may wait for the application, in bytes and in messages.
    #[must_use]
    pub fn receive_queue(mut self, bytes: usize, messages: usize) -> Self {
        (self.receive_queue_bytes, self.receive_queue_messages) = (bytes, messages);
        self
    }

    /// Sets what the channel may hold for all peers together, in bytes.
    #[must_use]
    pub fn memory_bytes(mut self, most: usize) -> Self {
        self.memory_bytes = most;
        self
    }

    /// Limits the bytes a second to and from each peer.
    #[must_use]
    pub fn bytes_per_second(mut self, most: u64) -> Self {
        self.rate.bytes_per_second = Some(most);
        self
    }

    /// Limits the messages a second to and from each peer.
    #[must_use]
    pub fn messages_per_second(mut self, most: u64) -> Self {
        self.rate.messages_per_second = Some(most);
        self
    }

    /// Sets what happens when the queue to a peer is full.
    #[must_use]
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.overflow = policy;
        self
    }

    /// Sets how long what is queued is still sent after the last handle was dropped; zero to give it up at once.
    #[must_use]
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = time;
        self
    }

    /// Makes broadcasts pass over peers that sent the same message themselves within the last 45 to 60 s. Remembered are hashes, of at most
    /// 4,096 messages of each peer.
    #[must_use]
    pub fn skip_known(mut self) -> Self {
        self.skip_known = true;
        self
    }

    /// Checks that the limits don't contradict each other.
    pub(crate) fn check(&self) -> Result<(), RegisterError> {
        let wrong = |detail: String| Err(RegisterError::Limits { name: self.name.clone(), detail });
        let (most, largest) = (self.max_message_bytes, u32::MAX as usize / 2);
        for (limit, bytes) in [
            ("send_queue_bytes", self.send_queue_bytes),
            ("receive_queue_bytes", self.receive_queue_bytes),
            ("memory_bytes", self.memory_bytes),
        ] {
            if most > bytes || bytes > largest {
                return wrong(format!(
                    "{limit} is {bytes}: set it between max_message_bytes ({most}) and {largest}"
                ));
            }
        }
        if most == 0 || self.send_queue_messages == 0 || self.receive_queue_messages == 0 {
            return wrong("max_message_bytes and the queues in messages must be at least 1".to_owned());
        }
        if [self.rate.bytes_per_second, self.rate.messages_per_second].contains(&Some(0)) {
            return wrong("a rate of 0 lets nothing pass: set at least 1, or no rate".to_owned());
        }
        if self.overflow == Overflow::Wait(Duration::ZERO) {
            return wrong("a wait of 0 s is no wait: set Overflow::Refuse".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_contradict_each_other_are_refused_by_name() {
        let refused = |config: ChannelConfig| config.check().unwrap_err().to_string();
        let error = refused(ChannelConfig::new("/a/1").send_queue(10, 10));
        assert!(error.contains("send_queue_bytes is 10"), "{error}");
        let error = refused(ChannelConfig::new("/a/1").receive_queue(1 << 20, 0));
        assert!(error.contains("at least 1"), "{error}");
        let error = refused(ChannelConfig::new("/a/1").messages_per_second(0));
        assert!(error.contains("a rate of 0"), "{error}");
        let error = refused(ChannelConfig::new("/a/1").overflow(Overflow::Wait(Duration::ZERO)));
        assert!(error.contains("Overflow::Refuse"), "{error}");
    }

    #[test]
    fn every_preset_holds_its_own_limits() {
        for preset in [ChannelConfig::new, ChannelConfig::control, ChannelConfig::bulk, ChannelConfig::latest]
        {
            preset("/a/1").check().unwrap();
        }
    }
}
