//! The two ends of a channel's stream: one writer for what we send, one reader for what the peer sends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use peerage_transport::{ReadError, RecvStream, Stream, StreamCode};
use peerage_wire::frame::Decoder;

use super::{ChannelCore, Outbox};
use crate::error::SendError;
use crate::peer::Peer;

/// Bytes that one read takes from a stream.
const READ_CHUNK: usize = 64 * 1024;
/// Messages that a reader gathers before it hands them on.
const MAX_GATHERED: usize = 256;

/// Sends what is queued for one peer on one channel until the outbox or the connection ends.
pub(crate) async fn run_writer(peer: Arc<Peer>, core: Arc<ChannelCore>, outbox: Arc<Outbox>) {
    let mut broken_off = 0;
    let error = match write_all(&peer, &core, &outbox, &mut broken_off).await {
        Ok(()) => SendError::Closed,
        Err(error) => error,
    };
    let lost = outbox.end(error.clone()) + broken_off;
    peer.shared.lost_messages.fetch_add(lost, Ordering::Relaxed);
    if lost > 0 {
        tracing::debug!(peer = %peer.id, channel = core.config.name, lost, %error, "messages were never sent");
    }
    peer.forget_outbox(&core.config.name, &outbox);
}

/// Writes until an end. `broken_off` counts the messages of the batch whose write failed.
async fn write_all(
    peer: &Peer,
    core: &ChannelCore,
    outbox: &Outbox,
    broken_off: &mut u64,
) -> Result<(), SendError> {
    let lost = |cause: String| SendError::Lost { peer: peer.id, cause };
    // What is awaited once is boxed: an idle writer waits for the next message, and need not be larger than that.
    let opening = Box::pin(peer.connection.open_lazy(&core.config.name));
    let stream = opening.await.map_err(|e| lost(e.to_string()))?;
    let (mut send, mut recv) = stream.split();
    send.set_priority(core.config.priority);
    let sending = async {
        while let Some(mut batch) = outbox.next_batch().await {
            peer.mark_useful();
            let written = send.write_chunks(&mut batch.pieces).await;
            outbox.written(&batch);
            if let Err(error) = written {
                *broken_off = batch.messages;
                // The reason is on the other half: `na`, or the end of the connection.
                return Some(error.to_string());
            }
        }
        // All is written: wait until the peer has it, so that the end of the connection can't overtake it.
        let _ = send.finish();
        let _ = Box::pin(send.stopped()).await;
        None
    };
    let negotiated = async {
        match Box::pin(recv.negotiated()).await {
            Ok(()) => {
                outbox.set_open();
                // The peer says nothing more on this half; wait for the end of the stream so that a later `stop` is seen.
                std::future::pending::<()>().await;
                unreachable!("a pending future never completes")
            }
            Err(ReadError::NotSupported { .. }) => {
                SendError::NotSupported { peer: peer.id, channel: core.config.name.clone() }
            }
            Err(error) => lost(error.to_string()),
        }
    };
    tokio::pin!(sending, negotiated);
    tokio::select! {
        biased;
        refused = &mut negotiated => Err(refused),
        ended = &mut sending => match ended {
            None => Ok(()),
            // Give the refusal that caused the broken write a moment to arrive.
            Some(detail) => match tokio::time::timeout(std::time::Duration::from_secs(1), negotiated).await {
                Ok(refused) => Err(refused),
                Err(_) => Err(lost(detail)),
            },
        },
    }
}

/// Receives what a peer sends on one channel until the stream ends.
pub(crate) fn run_reader(
    peer: Arc<Peer>,
    core: Arc<ChannelCore>,
    stream: Stream,
) -> impl Future<Output = ()> + Send {
    // Taken apart here and used where it is captured: an async function would hold the stream three times.
    let (mut send, mut recv) = stream.split();
    async move {
        read_all(&peer, &core, &mut recv).await;
        // Our half carried the answer to the channel's name. It is held to the end: dropping it might take that answer back.
        let _ = send.finish();
    }
}

async fn read_all(peer: &Peer, core: &ChannelCore, recv: &mut RecvStream) {
    let mut decoder = Decoder::new(core.config.max_message_bytes);
    let mut gathered: Vec<Bytes> = Vec::new();
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(message)) => gathered.push(message),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(peer = %peer.id, channel = core.config.name, %error, "the peer broke the channel's rules");
                    recv.stop(StreamCode::ProtocolViolation);
                    return;
                }
            }
            if gathered.len() >= MAX_GATHERED && !core.inbox.push(peer.id, &mut gathered).await {
                recv.stop(StreamCode::Cancelled);
                return;
            }
        }
        if !gathered.is_empty() {
            peer.mark_useful();
            if !core.inbox.push(peer.id, &mut gathered).await {
                recv.stop(StreamCode::Cancelled);
                return;
            }
        }
        match recv.read_chunk(READ_CHUNK).await {
            Ok(Some(chunk)) => decoder.push(chunk),
            Ok(None) => {
                if let Err(error) = decoder.finish() {
                    tracing::debug!(peer = %peer.id, channel = core.config.name, %error, "a channel's stream ended early");
                }
                return;
            }
            Err(error) => {
                tracing::debug!(peer = %peer.id, channel = core.config.name, %error, "a channel's stream ended");
                return;
            }
        }
    }
}
