//! What a channel may do.

use crate::error::RegisterError;

/// Declares a channel: its name and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The protocol name on the wire, such as `/acme/chat/1`.
    pub name: String,
    /// The longest message that is sent or taken, in bytes. A peer that sends a longer one loses the stream. Default: 1 MiB.
    pub max_message_bytes: usize,
    /// Bytes that may wait to be sent to one peer. Default: 4 MiB.
    pub send_queue_bytes: usize,
    /// Messages that may wait to be sent to one peer. Default: 16,384.
    pub send_queue_messages: usize,
    /// Received bytes, from all peers, that may wait for the application. Default: 4 MiB.
    pub receive_queue_bytes: usize,
    /// Received messages, from all peers, that may wait for the application. Default: 16,384.
    pub receive_queue_messages: usize,
    /// Which channel goes first when the connection is busy: higher goes first. Default: 0, as requests and raw streams have.
    pub priority: i32,
}

impl ChannelConfig {
    /// A channel with the default limits.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            max_message_bytes: 1024 * 1024,
            send_queue_bytes: 4 * 1024 * 1024,
            send_queue_messages: 16 * 1024,
            receive_queue_bytes: 4 * 1024 * 1024,
            receive_queue_messages: 16 * 1024,
            priority: 0,
        }
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

    /// Sets how much may wait for the application, in bytes and in messages.
    #[must_use]
    pub fn receive_queue(mut self, bytes: usize, messages: usize) -> Self {
        (self.receive_queue_bytes, self.receive_queue_messages) = (bytes, messages);
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Checks that the limits don't contradict each other.
    pub(crate) fn check(&self) -> Result<(), RegisterError> {
        let largest = u32::MAX as usize / 2;
        let queues =
            [("send_queue_bytes", self.send_queue_bytes), ("receive_queue_bytes", self.receive_queue_bytes)];
        for (limit, bytes) in queues {
            if self.max_message_bytes > bytes || bytes > largest {
                let most = self.max_message_bytes;
                let detail =
                    format!("{limit} is {bytes}: set it between max_message_bytes ({most}) and {largest}");
                return Err(RegisterError::Limits { name: self.name.clone(), detail });
            }
        }
        if self.max_message_bytes == 0 || self.send_queue_messages == 0 || self.receive_queue_messages == 0 {
            let detail = "max_message_bytes and the queues in messages must be at least 1".to_owned();
            return Err(RegisterError::Limits { name: self.name.clone(), detail });
        }
        Ok(())
    }

    pub(crate) fn send_queue_cost(&self) -> u32 {
        u32::try_from(self.send_queue_bytes).unwrap_or(u32::MAX).max(1)
    }

    pub(crate) fn receive_queue_cost(&self) -> u32 {
        u32::try_from(self.receive_queue_bytes).unwrap_or(u32::MAX).max(1)
    }

    /// What a message costs at least, so that one bound in bytes keeps the bound in messages too.
    pub(crate) fn min_cost(&self, bytes: usize, messages: usize) -> usize {
        (bytes / messages.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_contradict_each_other_are_refused_by_name() {
        let error = ChannelConfig::new("/a/1").send_queue(10, 10).check().unwrap_err();
        assert!(error.to_string().contains("send_queue_bytes is 10"), "{error}");
        let error = ChannelConfig::new("/a/1").receive_queue(1 << 20, 0).check().unwrap_err();
        assert!(error.to_string().contains("at least 1"), "{error}");
        ChannelConfig::new("/a/1").check().unwrap();
    }
}
