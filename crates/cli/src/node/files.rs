//! File transfers over a node's streams.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use peerage::{Incoming, Node, PeerId, ReadError, RecvStream, SendStream, Stream};
use tokio::sync::{Semaphore, broadcast};
use tokio::task::JoinSet;

use crate::control::Event;
use crate::transfer::inbox::Inbox;
use crate::transfer::receive::receive;
use crate::transfer::retry::Route;
use crate::transfer::send::SendError;
use crate::transfer::{ChunkRead, ChunkWrite, PROTOCOL};

/// Offers that are looked at at once, those included that will be refused. More wait in their streams.
const MAX_OFFERS: usize = 32;

impl ChunkRead for RecvStream {
    async fn read_chunk(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        RecvStream::read_chunk(self, most).await.map_err(io::Error::other)
    }
}

impl ChunkWrite for SendStream {
    async fn write_chunk(&mut self, chunk: Bytes) -> io::Result<()> {
        SendStream::write_chunk(self, chunk).await.map_err(io::Error::other)
    }

    async fn finish(&mut self) -> io::Result<()> {
        SendStream::finish(self).map_err(io::Error::other)
    }
}

/// Opens a stream for a file to a connected peer, and learns whether the peer takes files.
pub(crate) async fn open(node: &Node, peer: PeerId) -> Result<(RecvStream, SendStream), SendError> {
    let lost = |error: &dyn std::fmt::Display| SendError::Unreachable(error.to_string());
    let Stream { send, mut recv } = node.open(peer, PROTOCOL).await.map_err(|error| lost(&error))?;
    match recv.negotiated().await {
        Ok(()) => Ok((recv, send)),
        Err(ReadError::NotSupported { .. }) => {
            Err(SendError::NotSupported(format!("{peer} takes no files: it must run with --inbox DIR")))
        }
        Err(error) => Err(lost(&error)),
    }
}

/// The way to a peer that somebody else keeps connected.
pub(super) struct Connected {
    pub(super) node: Node,
    pub(super) peer: PeerId,
}

impl Route for Connected {
    type Read = RecvStream;
    type Write = SendStream;

    async fn open(&mut self) -> Result<(RecvStream, SendStream), SendError> {
        open(&self.node, self.peer).await
    }
}

/// Takes the files that peers send until the node has stopped.
pub(super) async fn take(incoming: Incoming, inbox: Arc<Inbox>, events: broadcast::Sender<Event>) {
    let places = Arc::new(Semaphore::new(MAX_OFFERS));
    let mut running = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Some((peer, stream)) = incoming.recv().await else { return };
        let (inbox, events) = (inbox.clone(), events.clone());
        running.spawn(async move {
            take_one(peer, stream, &inbox, &events).await;
            drop(place);
        });
        while running.try_join_next().is_some() {}
    }
}

async fn take_one(peer: PeerId, stream: Stream, inbox: &Arc<Inbox>, events: &broadcast::Sender<Event>) {
    let from = peer.to_string();
    match receive(inbox, &from, stream.recv, stream.send).await {
        Ok(received) => {
            tracing::debug!(%peer, name = received.name, bytes = received.bytes, "file received");
            let sha256 = received.sha256.to_string();
            // Nobody has to be watching.
            let _ =
                events.send(Event::FileReceived { from, name: received.name, bytes: received.bytes, sha256 });
        }
        Err(error) if error.is_local() => tracing::warn!(%peer, %error, "a file could not be stored"),
        // What a peer can cause at will is no warning.
        Err(error) => tracing::debug!(%peer, %error, "a file was not received"),
    }
}
