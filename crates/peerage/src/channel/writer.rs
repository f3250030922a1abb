//! The sending end of a channel's stream: hands what is queued to the connection, and hears what the peer accepts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use peerage_transport::{ReadError, RecvStream, SendStream};
use peerage_wire::channel as wire;

use super::config::Class;
use super::limits::ChannelLimits;
use super::outbox::{EndedBy, Flight, Next};
use super::queue::Taken;
use super::reader::{END_CLOSED, END_TOO_LARGE};
use super::{ChannelCore, Outbox};
use crate::error::SendError;
use crate::hello::text;
use crate::peer::Peer;

/// The longest account that is read, in bytes.
pub(crate) const MAX_ACCOUNT_BYTES: usize = 512;
/// How long a refusal that broke a write may take to arrive on the other half.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Sends what is queued for one peer on one channel until the outbox or the connection ends.
///
/// When the node stops, the future is dropped where it stands, or before it was polled: the verdicts are given all the same.
pub(crate) fn run_writer(
    peer: Arc<Peer>,
    core: Arc<ChannelCore>,
    outbox: Arc<Outbox>,
) -> impl Future<Output = ()> + Send {
    let mut writer = Writer { peer, core, outbox, batch: Batch::default(), settled: false };
    async move {
        let outbox = writer.outbox.clone();
        let ran = Box::pin(async {
            tokio::select! {
                biased;
                end = writer.run() => end,
                // Whatever of the connection the writer waits for: an outbox that has ended is not kept for it.
                error = outbox.ended() => (error, EndedBy::Break),
            }
        });
        let (error, by) = ran.await;
        writer.settle(&error, by);
    }
}

struct Writer {
    peer: Arc<Peer>,
    core: Arc<ChannelCore>,
    outbox: Arc<Outbox>,
    batch: Batch,
    settled: bool,
}

/// What was taken from the outbox and is being written.
#[derive(Default)]
struct Batch {
    taken: Taken,
    pieces: Vec<Bytes>,
    /// The same, as far as it is not written.
    left: Vec<Bytes>,
}

impl Batch {
    /// Gives the room up that the pieces took: the next ones may be long in coming.
    fn forget_buffers(&mut self) {
        (self.pieces, self.left) = (Vec::new(), Vec::new());
    }

    /// Tells the outbox how much of it was written.
    fn report(&mut self, outbox: &Outbox) {
        if self.taken.bytes > 0 {
            let left: usize = self.left.iter().map(Bytes::len).sum();
            outbox.written(self.taken, self.taken.bytes - left, &self.pieces);
        }
        self.taken = Taken::default();
        self.pieces.clear();
        self.left.clear();
    }
}

/// How the writing half came to its end.
enum Sent {
    /// All was written and accepted, or at least arrived.
    All,
    /// The outbox was ended by someone else.
    Ended,
    /// A write failed; the reason is on the other half: `na`, the peer's last account, or the end of the connection.
    Broken(String),
}

impl Writer {
    async fn run(&mut self) -> (SendError, EndedBy) {
        let lost = |peer, cause: String| (SendError::Lost { peer, cause }, EndedBy::Break);
        // What is awaited once is boxed: an idle writer need not be larger than what it waits for.
        let stream = match Box::pin(self.peer.connection.open_lazy(&self.core.config.name)).await {
            Ok(stream) => stream,
            Err(error) => return lost(self.peer.id, error.to_string()),
        };
        let (mut send, mut recv) = stream.split();
        send.set_priority(self.core.config.priority);
        let Self { peer, core, outbox, batch, .. } = self;
        let hearing = hear(peer, core, outbox, &mut recv);
        let sending = write(peer, core, outbox, batch, &mut send);
        tokio::pin!(hearing, sending);
        let sent = tokio::select! {
            biased;
            heard = &mut hearing => return heard,
            sent = &mut sending => sent,
        };
        match sent {
            Sent::All | Sent::Ended => (SendError::Closed, EndedBy::Break),
            Sent::Broken(detail) => match Box::pin(tokio::time::timeout(REFUSAL_PATIENCE, hearing)).await {
                Ok(heard) => heard,
                Err(_) => lost(peer.id, detail),
            },
        }
    }

    fn settle(&mut self, error: &SendError, by: EndedBy) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let Self { peer, core, outbox, batch, .. } = self;
        batch.report(outbox);
        let waiting = outbox.end(error, by);
        peer.flight.sub(outbox.in_flight());
        let left = outbox.settle(error, by);
        let lost = waiting + left.lost;
        peer.shared.lost_messages.fetch_add(lost, Ordering::Relaxed);
        peer.shared.unknown_messages.fetch_add(left.unknown, Ordering::Relaxed);
        if lost + left.unknown > 0 {
            let unknown = left.unknown;
            tracing::debug!(peer = %peer.id, channel = core.config.name, lost, unknown, %error, "messages were not delivered for certain");
        }
        peer.forget_outbox(outbox);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.settle(&SendError::Closed, EndedBy::Break);
    }
}

/// Writes until an end.
async fn write(
    peer: &Peer,
    core: &ChannelCore,
    outbox: &Outbox,
    batch: &mut Batch,
    send: &mut SendStream,
) -> Sent {
    // What channels have on its way stays below the send window, but for control.
    let flight = (peer.confirms() && core.config.class != Class::Control).then_some(&peer.flight);
    loop {
        let room = flight.map_or(usize::MAX, Flight::room);
        match outbox.next(room, peer.shared.clock.now(), &mut batch.pieces) {
            Next::Write(taken) => {
                batch.taken = taken;
                batch.left.extend(batch.pieces.iter().cloned());
                peer.flight.add(if peer.confirms() { taken.bytes } else { 0 });
                peer.mark_spoken();
                if let Err(error) = send.write_chunks(&mut batch.left).await {
                    return Sent::Broken(error.to_string());
                }
                batch.report(outbox);
            }
            Next::Open => {
                if let Err(error) = send.flush().await {
                    return Sent::Broken(error.to_string());
                }
            }
            Next::Wait { after, for_flight } => {
                batch.forget_buffers();
                wait(outbox, after, flight.filter(|_| for_flight), room).await
            }
            Next::Finished => break,
            Next::Ended => return Sent::Ended,
        }
    }
    let _ = send.finish();
    // Until the peer has all of it, the end of the connection could overtake it.
    if peer.confirms() {
        Box::pin(outbox.all_accepted()).await;
    } else {
        let _ = Box::pin(send.stopped()).await;
    }
    Sent::All
}

/// Waits for messages or credit, for the time, or for the connection's share to have more than `room` free.
async fn wait(outbox: &Outbox, after: Option<Duration>, flight: Option<&Flight>, room: usize) {
    // An idle writer waits for messages only, and need not be larger than that.
    match (after, flight) {
        (None, None) => outbox.work.notified().await,
        _ => Box::pin(wait_for_any(outbox, after, flight, room)).await,
    }
}

async fn wait_for_any(outbox: &Outbox, after: Option<Duration>, flight: Option<&Flight>, room: usize) {
    let timer = async {
        match after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let freed = async {
        let Some(flight) = flight else { return std::future::pending().await };
        let freed = flight.freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        if flight.room() <= room {
            freed.await;
        }
    };
    tokio::select! {
        biased;
        () = outbox.work.notified() => {}
        () = freed => {}
        () = timer => {}
    }
}

/// Reads the answer to the channel's name and the peer's accounts, until it ends the stream.
async fn hear(
    peer: &Peer,
    core: &ChannelCore,
    outbox: &Outbox,
    recv: &mut RecvStream,
) -> (SendError, EndedBy) {
    let channel = || core.config.name.clone();
    let lost = |cause: String| (SendError::Lost { peer: peer.id, cause }, EndedBy::Break);
    // A peer answers what it was asked: its time runs from then on.
    Box::pin(outbox.begun()).await;
    match Box::pin(recv.negotiated()).await {
        Ok(()) => {}
        Err(ReadError::NotSupported { .. }) => {
            return (SendError::NotSupported { peer: peer.id, channel: channel() }, EndedBy::Peer);
        }
        Err(error) => return lost(error.to_string()),
    }
    if !peer.confirms() {
        outbox.set_open();
        // The peer says nothing more on this half, and a write will tell of its end.
        return std::future::pending().await;
    }
    let mut opened = false;
    loop {
        let read = if opened {
            recv.read_message(MAX_ACCOUNT_BYTES).await
        } else {
            let within = peer.shared.endpoint.settings().negotiation_timeout;
            match Box::pin(tokio::time::timeout(within, recv.read_message(MAX_ACCOUNT_BYTES))).await {
                Ok(read) => read,
                Err(_) => return lost(format!("the peer did not say within {within:?} what it takes")),
            }
        };
        let account: wire::Account = match read {
            Ok(Some(account)) => account,
            Ok(None) => return lost("the peer ended the channel's stream".to_owned()),
            Err(error) => return lost(error.to_string()),
        };
        match outbox.hear(&account, peer.shared.clock.now()) {
            Ok(accepted) => peer.flight.sub(accepted),
            Err(detail) => {
                tracing::warn!(peer = %peer.id, channel = core.config.name, detail, "the peer broke the channel's rules");
                return lost(detail.to_owned());
            }
        }
        if let Some(limits) = &account.limits {
            peer.note_limits(core, &ChannelLimits::from_account(&core.config.name, limits));
        }
        if let Some(end) = account.end {
            return (ended_by_peer(peer, core, end), EndedBy::Peer);
        }
        if !opened {
            opened = true;
            outbox.set_open();
        }
    }
}

/// What the peer's last account means for whoever still wanted to send.
fn ended_by_peer(peer: &Peer, core: &ChannelCore, end: wire::End) -> SendError {
    let channel = core.config.name.clone();
    match end.reason {
        END_CLOSED => SendError::NotSupported { peer: peer.id, channel },
        END_TOO_LARGE => {
            let detail = format!("a message was too large: {}", text(end.detail));
            SendError::Stopped { peer: peer.id, channel, detail }
        }
        _ => {
            let said = text(end.detail);
            let detail = if said.is_empty() { "it does not say why".to_owned() } else { said };
            SendError::Stopped { peer: peer.id, channel, detail }
        }
    }
}
