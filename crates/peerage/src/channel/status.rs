//! Counts and levels of a channel, for whoever watches over it.

use std::sync::atomic::{AtomicU64, Ordering};

use peerage_identity::PeerId;

use super::{Channel, ChannelLimits, Payload};
use crate::error::SendError;

/// Declares the counters, a plain copy of them, and the ways from one to the other.
macro_rules! counters {
    ($($name:ident: $what:literal),* $(,)?) => {
        /// What a channel has counted since it was declared.
        #[derive(Debug, Default)]
        pub(crate) struct Counts {
            $(#[doc = $what] pub(crate) $name: AtomicU64,)*
            /// Messages that were not queued, by [`SendError::CAUSES`].
            refused: [AtomicU64; SendError::CAUSES.len()],
        }

        /// The same, read at one moment or added up.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Sums {
            $(pub(crate) $name: u64,)*
            pub(crate) refused: [u64; SendError::CAUSES.len()],
        }

        impl Counts {
            pub(crate) fn read(&self) -> Sums {
                let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
                Sums { $($name: of(&self.$name),)* refused: self.refused.each_ref().map(of) }
            }
        }

        impl Sums {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                self.refused.iter_mut().zip(&other.refused).for_each(|(sum, more)| *sum += more);
            }
        }
    };
}

counters! {
    sent: "Messages handed to connections as a whole.",
    sent_bytes: "Bytes of the stream handed to connections, lengths included.",
    received: "Messages put into the receive queue.",
    received_bytes: "Bytes of those, lengths included.",
    delivered: "Messages that a peer said to have.",
    dropped: "Messages dropped for newer ones.",
    lost: "Messages that are certainly not delivered, because the connection or this node ended.",
    rejected: "Messages that the peer refused when it ended the stream.",
    unknown: "Messages of unknown fate.",
    undecodable: "Messages received that are none.",
    too_many_streams: "Streams refused because the peer had too many.",
    too_large: "Streams refused for a message beyond the bound.",
    violation: "Streams refused for a breach of the rules.",
    no_memory: "Streams refused for want of memory.",
}

impl Counts {
    /// A message was not queued.
    pub(crate) fn refused(&self, error: &SendError) {
        if let Some(count) = self.refused.get(error.cause_number()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What became of a channel's messages since it was declared, over all peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChannelTotals {
    /// Handed to connections as a whole.
    pub sent: u64,
    /// Bytes handed to connections, the messages' lengths included.
    pub sent_bytes: u64,
    /// Of those, said to be in the peer's receive queue. Foreign and older peers don't say.
    pub delivered: u64,
    /// Put into this node's receive queue.
    pub received: u64,
    /// Bytes of those, their lengths included.
    pub received_bytes: u64,
    /// Dropped for newer ones, as [`crate::Overflow::DropOldest`] says.
    pub dropped: u64,
    /// Queued and certainly not delivered, because the connection or the channel ended.
    pub lost: u64,
    /// Of those, refused by the peer, which said why.
    pub rejected: u64,
    /// Not queued, because it was refused at once.
    pub refused: u64,
    /// Sent and not known to be delivered when the connection ended.
    pub unknown: u64,
    /// Received and not decodable.
    pub undecodable: u64,
    /// Bytes that the channel holds, and room that it has promised to peers.
    pub accounted_bytes: usize,
    /// Messages that wait for the application.
    pub waiting_messages: usize,
    /// Bytes of those.
    pub waiting_bytes: usize,
}

/// How a channel stands with one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStatus {
    /// Messages that wait to be sent.
    pub queued_messages: usize,
    /// Bytes of those.
    pub queued_bytes: usize,
    /// Bytes that were sent and not yet accepted. 0 for peers that don't say what they accept.
    pub in_flight_bytes: usize,
    /// Messages from the peer that wait for the application.
    pub waiting_messages: usize,
    /// Bytes of those.
    pub waiting_bytes: usize,
    /// The peer's side of the channel, where it has told us.
    pub limits: Option<ChannelLimits>,
    /// Where that differs from ours so that messages are refused or slowed down, in words; empty when it does not.
    pub differences: String,
    /// Bytes that all channels together hold for the peer, and have promised it.
    pub peer_accounted_bytes: usize,
}

impl<M: Payload> Channel<M> {
    /// What became of its messages.
    pub fn totals(&self) -> ChannelTotals {
        let counts = self.core.counts.read();
        let waiting = self.core.inbox.levels();
        ChannelTotals {
            sent: counts.sent,
            sent_bytes: counts.sent_bytes,
            delivered: counts.delivered,
            received: counts.received,
            received_bytes: counts.received_bytes,
            dropped: counts.dropped,
            lost: counts.lost + counts.rejected,
            rejected: counts.rejected,
            refused: counts.refused.iter().sum(),
            unknown: counts.unknown,
            undecodable: counts.undecodable,
            accounted_bytes: self.core.memory.used(),
            waiting_messages: waiting.messages,
            waiting_bytes: waiting.bytes,
        }
    }

    /// How it stands with one connected peer; `None` when the peer is not connected.
    pub fn status(&self, peer: PeerId) -> Option<ChannelStatus> {
        let peer = self.shared.peer(&peer)?;
        let levels = peer.outbox_of(&self.core).map(|outbox| outbox.levels()).unwrap_or_default();
        let waiting = self.core.inbox.levels_of(&peer.id);
        let limits = peer.known_limits(self.name());
        Some(ChannelStatus {
            queued_messages: levels.queued_messages,
            queued_bytes: levels.queued_bytes,
            in_flight_bytes: levels.in_flight_bytes,
            waiting_messages: waiting.messages,
            waiting_bytes: waiting.bytes,
            differences: limits
                .as_ref()
                .map(|limits| limits.differences(&self.core.config))
                .unwrap_or_default(),
            limits,
            peer_accounted_bytes: peer.accounted_bytes(),
        })
    }
}
