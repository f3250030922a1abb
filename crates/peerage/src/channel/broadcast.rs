//! One message to several peers: encoded once, with a verdict for each.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::join_all;
use peerage_identity::PeerId;
use tokio::sync::oneshot;

use super::block::ToMany;
use super::{Channel, Outbox, Payload, Raw, Receipt, Verdict, encoded};
use crate::error::SendError;
use crate::peer::Peer;

/// Whom a broadcast goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum To {
    /// Every connected peer.
    All,
    /// Every connected peer but these, such as whom a message came from.
    AllBut(Vec<PeerId>),
    /// These, connected or not.
    These(Vec<PeerId>),
    /// Every persistent peer that is connected, and so many of the others, drawn at random.
    Fanout(usize),
    /// One connected peer, drawn at random.
    Any,
}

/// A message that was queued to a peer, with what the queueing gave.
type Queued<T> = Result<(Arc<Outbox>, T), SendError>;

impl<M: Payload> Channel<M> {
    /// Queues a message to every connected peer: [`Channel::broadcast_to`] with [`To::All`].
    pub async fn broadcast(&self, message: &M) -> Vec<(PeerId, Result<(), SendError>)> {
        self.broadcast_to(To::All, message).await
    }

    /// Queues a message to several peers, encoded once. A peer whose queue is full refuses it, or drops its oldest message where
    /// [`crate::ChannelConfig::overflow`] says so; nobody waits for a slow one. The first message to a peer waits until it is known whether the peer has the
    /// channel, but no longer than [`Channel::send`] would, nor than a second beyond the transport's `negotiation_timeout`.
    ///
    /// The verdicts come in the order of the peer IDs, for [`To::These`] in the given order. A peer that does not have the channel is in the
    /// list with [`SendError::NotSupported`]. With [`crate::ChannelConfig::skip_known`], peers that lately sent the same message are not in it,
    /// unless they were named with [`To::These`] or drawn with [`To::Any`].
    pub async fn broadcast_to(&self, to: To, message: &M) -> Vec<(PeerId, Result<(), SendError>)> {
        let queued =
            self.queue_to_each(&to, message, |outbox, message| outbox.try_push_shared(message, None));
        let mut opening = Vec::new();
        let mut verdicts = Vec::with_capacity(queued.len());
        for (place, (peer, queued)) in queued.into_iter().enumerate() {
            verdicts.push((
                peer,
                queued.map(|(outbox, open)| {
                    if !open {
                        opening.push((place, outbox))
                    }
                }),
            ));
        }
        // All wait at once: their streams are opening already, and one that does not open holds up none of the others.
        let waits = opening.iter().map(|(_, outbox)| self.await_opening(outbox, outbox.short_patience()));
        for ((place, _), opened) in opening.iter().zip(join_all(waits).await) {
            if let Some((_, verdict)) = verdicts.get_mut(*place) {
                *verdict = opened;
            }
        }
        verdicts
    }

    /// As [`Channel::broadcast_to`], and waits until it is known of each peer what became of the message.
    pub async fn broadcast_confirmed(&self, to: To, message: &M) -> Vec<(PeerId, Verdict)> {
        let queued = self.queue_to_each(&to, message, |outbox, message| {
            if !outbox.confirms() {
                return Err(SendError::NotConfirmed { peer: outbox.peer() });
            }
            let (reply, receipt) = oneshot::channel();
            outbox.try_push_shared(message, Some(reply)).map(|_| Receipt(receipt))
        });
        let mut verdicts = Vec::with_capacity(queued.len());
        for (peer, queued) in queued {
            let verdict = match queued {
                Ok((_, receipt)) => receipt.await,
                Err(error) => Verdict::Refused(error),
            };
            verdicts.push((peer, verdict));
        }
        verdicts
    }

    fn queue_to_each<T>(
        &self,
        to: &To,
        message: &M,
        queue: impl Fn(&Outbox, &ToMany) -> Result<T, SendError>,
    ) -> Vec<(PeerId, Queued<T>)> {
        let bytes = encoded(message);
        let checked = self.check_length(bytes.len());
        let queue_one = |peer: Option<Arc<Peer>>, id: PeerId, shared: &ToMany| {
            checked.clone()?;
            let outbox = peer.ok_or(SendError::NotConnected { peer: id })?.outbox(&self.core)?;
            let queued = queue(&outbox, shared)?;
            Ok((outbox, queued))
        };
        let queue_one = |peer, id, shared: &ToMany| self.core.counted(queue_one(peer, id, shared));
        let peers = self.choose(to, &bytes);
        // What nobody takes would stand in a block between messages that follow on each other.
        let shared = if checked.is_ok() { self.core.blocks.share(bytes) } else { ToMany::Raw(Raw(bytes)) };
        peers.into_iter().map(|(id, peer)| (id, queue_one(peer, id, &shared))).collect()
    }

    /// The peers that `to` means, and those of them that are connected.
    fn choose(&self, to: &To, payload: &Bytes) -> Vec<(PeerId, Option<Arc<Peer>>)> {
        if let To::These(ids) = to {
            return ids.iter().map(|id| (*id, self.shared.peer(id))).collect();
        }
        let mut peers = self.shared.connected();
        if *to == To::Any {
            let mut random = self.shared.random.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let chosen = (!peers.is_empty()).then(|| peers.swap_remove(random.index(peers.len())));
            return chosen.into_iter().map(|peer| (peer.id, Some(peer))).collect();
        }
        if let To::AllBut(ids) = to {
            peers.retain(|peer| !ids.contains(&peer.id));
        }
        if self.core.config.skip_known {
            let now = self.shared.clock.now().mono;
            peers.retain(|peer| !peer.seen(&self.core).knows(payload, now));
        }
        if let To::Fanout(count) = to {
            let (mut chosen, mut others): (Vec<_>, Vec<_>) =
                peers.into_iter().partition(|peer| peer.persistent.load(Ordering::Relaxed));
            self.shared.random.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).shuffle(&mut others);
            chosen.extend(others.into_iter().take(*count));
            chosen.sort_by_key(|peer| peer.id);
            peers = chosen;
        }
        peers.into_iter().map(|peer| (peer.id, Some(peer))).collect()
    }
}
