//! The sending end of a channel's stream: hands what is queued to the connection, and hears what the peer accepts.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use peerage_transport::{ReadError, RecvStream, SendStream, Stream};
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
/// Batches that are written before others have a turn.
const BATCHES: usize = 4;
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
        let (error, by) = {
            let mut running = pin!(writer.run());
            poll_fn(|cx| {
                outbox.wake_writer(cx);
                match (running.as_mut().poll(cx), outbox.end_cause()) {
                    (Poll::Ready(end), _) => Poll::Ready(end),
                    // Whatever of the connection the writer waits for: an outbox that has ended is not kept for it.
                    (Poll::Pending, Some(error)) => Poll::Ready((error, EndedBy::Break)),
                    (Poll::Pending, None) => Poll::Pending,
                }
            })
            .await
        };
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

/// How the stream came to its end, for whoever still wanted to send.
type End = (SendError, EndedBy);

/// How the writing half came to its end.
enum Sent {
    /// All was written and accepted, or at least arrived; or the outbox was ended by someone else.
    All,
    /// A write failed; the reason is on the other half: `na`, the peer's last account, or the end of the connection.
    Broken(String),
}

impl Writer {
    // What lasts for a moment is boxed, and the rest is polled by hand: an idle writer, of which each connection has some, need not be larger than its
    // stream and what it knows of it.
    async fn run(&mut self) -> End {
        let stream = match Box::pin(self.peer.connection.open_lazy(&self.core.config.name)).await {
            Ok(stream) => stream,
            Err(error) => return lost(&self.peer, error.to_string()),
        };
        let Self { peer, core, outbox, batch, .. } = self;
        let (mut hearing, mut sending) = halves(stream, peer, core, outbox, batch);
        if let Some(end) = Box::pin(begin(&mut hearing, &mut sending)).await {
            return end;
        }
        let detail = match poll_fn(|cx| either(hearing.poll(cx), || sending.poll(cx))).await {
            Either::Heard(end) => return end,
            Either::Sent(Sent::All) => return (SendError::Closed, EndedBy::Break),
            Either::Sent(Sent::Broken(detail)) => detail,
        };
        Box::pin(hearing.reason(detail)).await
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

fn lost(peer: &Peer, cause: String) -> End {
    (SendError::Lost { peer: peer.id, cause }, EndedBy::Break)
}

/// The two halves of a writer's stream.
fn halves<'a>(
    stream: Stream,
    peer: &'a Peer,
    core: &'a ChannelCore,
    outbox: &'a Outbox,
    batch: &'a mut Batch,
) -> (Hearing<'a>, Sending<'a>) {
    let (send, recv) = stream.split();
    send.set_priority(core.config.priority);
    let is_control = core.config.class == Class::Control;
    (
        Hearing { peer, core, outbox, recv, opened: false },
        Sending { peer, outbox, batch, send, is_control, doing: Doing::Look },
    )
}

/// What came first of two things, of which the first one is looked at first.
enum Either<H> {
    Heard(H),
    Sent(Sent),
}

fn either<H>(heard: Poll<H>, sent: impl FnOnce() -> Poll<Sent>) -> Poll<Either<H>> {
    match heard {
        Poll::Ready(heard) => Poll::Ready(Either::Heard(heard)),
        Poll::Pending => sent().map(Either::Sent),
    }
}

/// Sends, and hears the peer until it has said that it has the channel. The end, when it comes to one before.
async fn begin(hearing: &mut Hearing<'_>, sending: &mut Sending<'_>) -> Option<End> {
    let first = {
        let mut opening = pin!(hearing.open());
        poll_fn(|cx| either(opening.as_mut().poll(cx), || sending.poll(cx))).await
    };
    match first {
        Either::Heard(end) => end,
        Either::Sent(Sent::All) => Some((SendError::Closed, EndedBy::Break)),
        Either::Sent(Sent::Broken(detail)) => Some(hearing.reason(detail).await),
    }
}

/// The half on which messages leave.
struct Sending<'a> {
    peer: &'a Peer,
    outbox: &'a Outbox,
    batch: &'a mut Batch,
    send: SendStream,
    is_control: bool,
    doing: Doing<'a>,
}

/// What it is at.
enum Doing<'a> {
    /// Sees what is to be done.
    Look,
    /// Writes what is left of the batch, and before it the channel's name where that is due.
    Write,
    /// Waits for messages or credit.
    Rest,
    /// Waits for something beside.
    Wait(Pin<Box<dyn Future<Output = ()> + Send + 'a>>),
    /// Waits until the peer has all.
    Finish(Pin<Box<dyn Future<Output = ()> + Send + 'a>>),
}

impl<'a> Sending<'a> {
    /// Writes until an end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Sent> {
        let mut batches = 0;
        loop {
            match &mut self.doing {
                Doing::Look => {
                    let Some(doing) = self.look() else { return Poll::Ready(Sent::All) };
                    self.doing = doing;
                    continue;
                }
                Doing::Write => {
                    if let Err(error) = ready!(self.send.poll_write_chunks(cx, &mut self.batch.left)) {
                        return Poll::Ready(Sent::Broken(error.to_string()));
                    }
                    self.batch.report(self.outbox);
                    batches += 1;
                    if batches == BATCHES {
                        self.doing = Doing::Look;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Doing::Rest if self.outbox.has_work() => {}
                Doing::Rest => return Poll::Pending,
                Doing::Wait(wait) => ready!(wait.as_mut().poll(cx)),
                Doing::Finish(all) => {
                    ready!(all.as_mut().poll(cx));
                    return Poll::Ready(Sent::All);
                }
            }
            self.doing = Doing::Look;
        }
    }

    /// What is to be done next; `None` when the outbox has ended.
    fn look(&mut self) -> Option<Doing<'a>> {
        let (peer, outbox) = (self.peer, self.outbox);
        // What channels have on its way stays below the send window, but for control.
        let flight = (peer.confirms() && !self.is_control).then_some(&peer.flight);
        let room = flight.map_or(usize::MAX, Flight::room);
        Some(match outbox.next(room, peer.shared.clock.now(), &mut self.batch.pieces) {
            Next::Write(taken) => {
                self.batch.taken = taken;
                self.batch.left.extend(self.batch.pieces.iter().cloned());
                peer.flight.add(if peer.confirms() { taken.bytes } else { 0 });
                peer.mark_spoken();
                Doing::Write
            }
            Next::Open => Doing::Write,
            Next::Wait { after, for_flight } => {
                self.batch.forget_buffers();
                match (after, flight.filter(|_| for_flight)) {
                    (None, None) => Doing::Rest,
                    (after, flight) => Doing::Wait(Box::pin(wait(outbox, after, flight, room))),
                }
            }
            Next::Finished => {
                let _ = self.send.finish();
                // Until the peer has all of it, the end of the connection could overtake it.
                if peer.confirms() {
                    Doing::Finish(Box::pin(outbox.all_accepted()))
                } else {
                    let stopped = self.send.stopped();
                    Doing::Finish(Box::pin(async move { _ = stopped.await }))
                }
            }
            Next::Ended => return None,
        })
    }
}

/// Waits for messages or credit, for the time, or for the connection's share to have more than `room` free.
async fn wait(outbox: &Outbox, after: Option<Duration>, flight: Option<&Flight>, room: usize) {
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
    // The task listens already.
    let work = poll_fn(|_| if outbox.has_work() { Poll::Ready(()) } else { Poll::Pending });
    tokio::select! {
        biased;
        () = work => {}
        () = freed => {}
        () = timer => {}
    }
}

/// The half on which the peer answers to the channel's name and accounts for what it takes.
struct Hearing<'a> {
    peer: &'a Peer,
    core: &'a ChannelCore,
    outbox: &'a Outbox,
    recv: RecvStream,
    /// The peer has said that it has the channel.
    opened: bool,
}

impl Hearing<'_> {
    /// Waits for the answer to the channel's name and the first account, if the peer gives any. The end, when it comes to one instead.
    async fn open(&mut self) -> Option<End> {
        // A peer answers what it was asked: its time runs from then on.
        self.outbox.begun().await;
        match self.recv.negotiated().await {
            Ok(()) => {}
            Err(ReadError::NotSupported { .. }) => {
                let channel = self.core.config.name.clone();
                return Some((SendError::NotSupported { peer: self.peer.id, channel }, EndedBy::Peer));
            }
            Err(error) => return Some(lost(self.peer, error.to_string())),
        }
        if self.peer.confirms() {
            let within = self.peer.shared.endpoint.settings().negotiation_timeout;
            let end = match tokio::time::timeout(within, self.recv.read_message(MAX_ACCOUNT_BYTES)).await {
                Ok(read) => self.heard(read),
                Err(_) => {
                    let detail = format!("the peer did not say within {within:?} what it takes");
                    Some(lost(self.peer, detail))
                }
            };
            if end.is_some() {
                return end;
            }
        }
        self.opened = true;
        self.outbox.set_open();
        None
    }

    /// Reads accounts, until the peer ends the stream.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if !self.peer.confirms() {
            // The peer says nothing more on this half, and a write will tell of its end.
            return Poll::Pending;
        }
        loop {
            let read = ready!(self.recv.poll_read_message(cx, MAX_ACCOUNT_BYTES));
            if let Some(end) = self.heard(read) {
                return Poll::Ready(end);
            }
        }
    }

    /// Why a write failed, as far as the peer says so.
    async fn reason(&mut self, detail: String) -> End {
        let rest = async {
            if !self.opened
                && let Some(end) = self.open().await
            {
                return end;
            }
            poll_fn(|cx| self.poll(cx)).await
        };
        match tokio::time::timeout(REFUSAL_PATIENCE, rest).await {
            Ok(heard) => heard,
            Err(_) => lost(self.peer, detail),
        }
    }

    /// Takes in an account. The end, when it says so or none came.
    fn heard(&self, read: Result<Option<wire::Account>, ReadError>) -> Option<End> {
        let (peer, core) = (self.peer, self.core);
        let account = match read {
            Ok(Some(account)) => account,
            Ok(None) => return Some(lost(peer, "the peer ended the channel's stream".to_owned())),
            Err(error) => return Some(lost(peer, error.to_string())),
        };
        match self.outbox.hear(&account, peer.shared.clock.now()) {
            Ok(accepted) => peer.flight.sub(accepted),
            Err(detail) => {
                tracing::warn!(peer = %peer.id, channel = core.config.name, detail, "the peer broke the channel's rules");
                return Some(lost(peer, detail.to_owned()));
            }
        }
        if let Some(limits) = &account.limits {
            peer.note_limits(core, &ChannelLimits::from_account(&core.config.name, limits));
        }
        account.end.map(|end| (ended_by_peer(peer, core, end), EndedBy::Peer))
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
