//! Raw streams for applications: opened by name, accepted through a bounded queue.

use std::fmt;
use std::sync::Arc;

use peerage_identity::PeerId;
use peerage_transport::{Stream, StreamCode};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::peer::Peer;
use crate::shared::Shared;

/// The node's side of an accepted protocol.
pub(crate) struct Acceptor {
    queue: mpsc::Sender<(PeerId, Stream)>,
    closed: CancellationToken,
}

impl Acceptor {
    /// Hands an incoming stream to the application, waiting while its queue is full.
    pub(crate) async fn take(&self, peer: &Peer, stream: Stream) {
        peer.mark_useful();
        tokio::select! {
            biased;
            permit = self.queue.reserve() => match permit {
                Ok(permit) => permit.send((peer.id, stream)),
                Err(_) => refuse(stream),
            },
            () = self.closed.cancelled() => refuse(stream),
        }
    }

    /// The same without waiting: a stream for which there is no room now is given back.
    pub(crate) fn try_take(&self, peer: &Peer, stream: Stream) -> Option<Stream> {
        match self.queue.try_reserve() {
            Ok(permit) if !self.closed.is_cancelled() => {
                peer.mark_useful();
                permit.send((peer.id, stream));
                None
            }
            Err(TrySendError::Full(())) => Some(stream),
            _ => {
                peer.mark_useful();
                refuse(stream);
                None
            }
        }
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.close();
    }
}

fn refuse(stream: Stream) {
    stream.abort(StreamCode::Cancelled);
}

/// Incoming streams of one protocol. When it is dropped, the protocol is served no more.
pub struct Incoming {
    name: String,
    queue: Mutex<mpsc::Receiver<(PeerId, Stream)>>,
    closed: CancellationToken,
    shared: Option<Arc<Shared>>,
}

impl Incoming {
    pub(crate) fn new(shared: Arc<Shared>, name: String) -> (Arc<Acceptor>, Self) {
        // More wait at their peers: each holds one of its peer's stream places.
        let (queue, receiver) = mpsc::channel(shared.limits.max_waiting_streams);
        let closed = CancellationToken::new();
        let incoming =
            Self { name, queue: Mutex::new(receiver), closed: closed.clone(), shared: Some(shared) };
        (Arc::new(Acceptor { queue, closed }), incoming)
    }

    /// Drops it without touching the registration, which is somebody else's.
    pub(crate) fn forget(mut self) {
        self.shared = None;
    }

    /// The next stream and who opened it; `None` when the node has been shut down. Cancel-safe.
    pub async fn recv(&self) -> Option<(PeerId, Stream)> {
        let mut queue = self.queue.lock().await;
        tokio::select! {
            biased;
            next = queue.recv() => next,
            () = self.closed.cancelled() => None,
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.registry.remove(&self.name);
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("name", &self.name).finish_non_exhaustive()
    }
}
