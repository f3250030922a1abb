//! Counts and levels of a channel, for whoever watches over it.

use std::sync::atomic::{AtomicU64, Ordering};

use peerage_identity::PeerId;

use super::{Channel, ChannelLimits, Payload};

/// What a channel has counted since it was declared.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) unknown: AtomicU64,
    undecodable: AtomicU64,
}

impl Counts {
    /// A message was received that is none.
    pub(crate) fn undecodable(&self) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
    }
}

/// What became of a channel's messages since it was declared, over all peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChannelTotals {
    /// Handed to connections as a whole.
    pub sent: u64,
    /// Of those, said to be in the peer's receive queue. Foreign and older peers don't say.
    pub delivered: u64,
    /// Put into this node's receive queue.
    pub received: u64,
    /// Dropped for newer ones, as [`crate::Overflow::DropOldest`] says.
    pub dropped: u64,
    /// Queued and certainly not delivered, because the connection or the channel ended.
    pub lost: u64,
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
        let counts = &self.core.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let waiting = self.core.inbox.levels();
        ChannelTotals {
            sent: of(&counts.sent),
            delivered: of(&counts.delivered),
            received: of(&counts.received),
            dropped: of(&counts.dropped),
            lost: of(&counts.lost),
            unknown: of(&counts.unknown),
            undecodable: of(&counts.undecodable),
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
