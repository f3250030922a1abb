//! Places for work, and bounded queues for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use peerage_identity::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::ServeConfig;

/// All places are taken, and so are all in the queue for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// How many may wait.
    pub(crate) waiting: usize,
}

/// A place of each kind that an outgoing request needs, until it is dropped: one towards its peer, and one of the node's.
#[derive(Debug)]
pub(crate) struct CallSlot {
    _node: Slot,
    _own: Slot,
}

impl CallSlot {
    pub(crate) fn try_take(own: &Slots, node: &Slots) -> Option<Self> {
        let own = own.try_take()?;
        Some(Self { _node: node.try_take()?, _own: own })
    }

    /// After those who asked before. Cancel-safe.
    pub(crate) async fn take(own: &Slots, node: &Slots) -> Result<Self, Full> {
        let own = own.take().await?;
        Ok(Self { _node: node.take().await?, _own: own })
    }

    /// The same for one that waits without counting as waiting: it holds no request while it does.
    pub(crate) async fn take_unqueued(own: &Slots, node: &Slots) -> Self {
        let own = own.take_unqueued().await;
        Self { _node: node.take_unqueued().await, _own: own }
    }
}

/// So many places, given out in the order of asking, and a bound on those who wait.
#[derive(Debug)]
pub(crate) struct Slots {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub(crate) fn new(places: usize, max_waiting: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), waiting: AtomicUsize::new(0), max_waiting }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place, if one is free now and nobody waits for it.
    pub(crate) fn try_take(&self) -> Option<Slot> {
        Some(Slot { _permit: self.places.clone().try_acquire_owned().ok()? })
    }

    /// A place, after those who asked before. Cancel-safe.
    pub(crate) async fn take(&self) -> Result<Slot, Full> {
        if let Some(slot) = self.try_take() {
            return Ok(slot);
        }
        let _waiting = Waiting::begin(self).ok_or(Full { waiting: self.max_waiting })?;
        Ok(self.take_unqueued().await)
    }

    /// A place, for one that waits without counting as waiting: it holds no request while it does.
    pub(crate) async fn take_unqueued(&self) -> Slot {
        let permit = self.places.clone().acquire_owned().await;
        Slot { _permit: permit.expect("the semaphore is never closed") }
    }
}

/// One of those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(slots: &'a Slots) -> Option<Self> {
        let enter = |count: usize| (count < slots.max_waiting).then_some(count + 1);
        slots.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        Some(Self(&slots.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The places of one served protocol: each peer's own, and those of all together. Beyond them stand those of the node.
///
/// A request takes one of its peer's places first, one of the protocol's then, and one of the node's last, so that a peer that asks for much waits
/// for itself, and at most `max_concurrent_per_peer` of its requests stand in the common queue.
#[derive(Debug)]
pub(crate) struct ServeSlots {
    all: Slots,
    per_peer: Mutex<HashMap<PeerId, Arc<Slots>>>,
    peer_places: (usize, usize),
}

/// A place of both kinds, until it is dropped.
#[derive(Debug)]
pub(crate) struct ServeSlot<'a> {
    _node: Slot,
    _all: Slot,
    _own: PeerSlot<'a>,
}

impl ServeSlots {
    pub(crate) fn new(config: &ServeConfig) -> Self {
        Self {
            all: Slots::new(config.max_concurrent, config.max_waiting),
            per_peer: Mutex::default(),
            peer_places: (config.max_concurrent_per_peer, config.max_waiting_per_peer),
        }
    }

    /// A place for a request of `peer`, and one of the node's. Cancel-safe.
    pub(crate) async fn take(&self, peer: PeerId, node: &Slots) -> Result<ServeSlot<'_>, Full> {
        let (places, waiting) = self.peer_places;
        let own = self.lock().entry(peer).or_insert_with(|| Arc::new(Slots::new(places, waiting))).clone();
        let mut slot = PeerSlot { of: self, peer, own: Some(own), taken: None };
        if let Some(own) = &slot.own {
            slot.taken = Some(own.take().await?);
        }
        let all = self.all.take().await?;
        Ok(ServeSlot { _node: node.take().await?, _all: all, _own: slot })
    }

    /// How many wait, each peer's own queue included.
    pub(crate) fn waiting(&self) -> usize {
        self.all.waiting() + self.lock().values().map(|own| own.waiting()).sum::<usize>()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Slots>>> {
        self.per_peer.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A peer's place, or its wish for one.
#[derive(Debug)]
struct PeerSlot<'a> {
    of: &'a ServeSlots,
    peer: PeerId,
    own: Option<Arc<Slots>>,
    taken: Option<Slot>,
}

impl Drop for PeerSlot<'_> {
    fn drop(&mut self) {
        self.taken = None;
        let mut per_peer = self.of.lock();
        // Handles come and go under the lock only. The table's alone: nobody wants a place for this peer, so it is forgotten.
        self.own = None;
        if per_peer.get(&self.peer).is_some_and(|own| Arc::strong_count(own) == 1) {
            per_peer.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use peerage_identity::NodeKey;

    fn slots(all: (usize, usize), own: (usize, usize)) -> ServeSlots {
        ServeSlots::new(&ServeConfig::default().concurrent(all.0, own.0).waiting(all.1, own.1))
    }

    fn many() -> Slots {
        Slots::new(100, 100)
    }

    #[test]
    fn a_peer_waits_for_itself_and_is_refused_beyond_its_queue() {
        let slots = slots((10, 10), (2, 1));
        let (one, other) = (NodeKey::from_seed([1; 32]).peer_id(), NodeKey::from_seed([2; 32]).peer_id());
        let node = many();
        let take = |peer| slots.take(peer, &node).now_or_never();
        let first = take(one).unwrap().unwrap();
        let _second = take(one).unwrap().unwrap();
        let mut third = Box::pin(slots.take(one, &node));
        assert!((&mut third).now_or_never().is_none(), "it waits");
        assert_eq!(take(one).unwrap().unwrap_err(), Full { waiting: 1 });
        let _beside = take(other).unwrap().unwrap();
        drop(first);
        let _third = third.now_or_never().unwrap().unwrap();
    }

    #[test]
    fn the_common_places_bound_all_peers_together_and_nothing_is_kept_of_those_who_left() {
        let (slots, node) = (slots((1, 1), (1, 1)), many());
        let peers: Vec<_> = (1..=3).map(|seed| NodeKey::from_seed([seed; 32]).peer_id()).collect();
        let first = slots.take(peers[0], &node).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(slots.take(peers[1], &node));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(slots.take(peers[2], &node).now_or_never().unwrap().unwrap_err(), Full { waiting: 1 });
        drop(first);
        let second = second.now_or_never().unwrap().unwrap();
        // One that gave up waiting leaves its place in the queue to the next.
        let mut third = Box::pin(slots.take(peers[2], &node));
        assert!((&mut third).now_or_never().is_none());
        drop(third);
        assert!(slots.take(peers[0], &node).now_or_never().is_none());
        drop(second);
        assert!(slots.lock().is_empty());
    }

    #[test]
    fn the_nodes_places_bound_all_protocols_together() {
        let (one, other, node) = (slots((9, 9), (9, 9)), slots((9, 9), (9, 9)), Slots::new(1, 1));
        let peers: Vec<_> = (1..=3).map(|seed| NodeKey::from_seed([seed; 32]).peer_id()).collect();
        let first = one.take(peers[0], &node).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(other.take(peers[1], &node));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(one.take(peers[2], &node).now_or_never().unwrap().unwrap_err(), Full { waiting: 1 });
        drop(first);
        assert!(second.now_or_never().unwrap().is_ok());
    }
}
