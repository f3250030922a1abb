//! The receiving end of a channel's stream: reads, puts whole messages into the inbox, and tells a Peerage peer what was accepted and how
//! far it may go.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use peerage_machine::Now;
use peerage_transport::{ReadError, RecvStream, SendStream, Stream, StreamCode};
use peerage_wire::{channel as wire, uvarint};

use super::ChannelCore;
use super::inbox::{Inbox, Intake, Room};
use super::limits;
use super::pace::Pace;
use super::seen::Seen;
use super::window::Window;
use crate::memory::{Exhausted, Reservation};
use crate::peer::Peer;

/// Pieces that one read takes from a stream. Each is a part of one packet.
const PIECES: usize = 8;
/// What is read while whole messages wait is kept in blocks of this size.
const BLOCK: usize = 32 * 1024;
/// Streams of one channel that one Peerage peer may have open: an old one that ends, and its successor.
pub(crate) const MAX_STREAMS: usize = 2;
/// Streams of one channel that a foreign peer may have open: some open one for each message.
pub(crate) const MAX_FOREIGN_STREAMS: usize = 64;
/// Messages up to which an account is sent at once; beyond, at most one each [`ACCOUNT_INTERVAL`].
const FEW: u64 = 8;
const ACCOUNT_INTERVAL: Duration = Duration::from_millis(1);
/// How long a message waits for memory that is accounted for before its stream is refused, and how often it is tried.
pub(crate) const MEMORY_PATIENCE: Duration = Duration::from_secs(5);
const MEMORY_AGAIN: Duration = Duration::from_millis(50);
/// How much more than the rate may arrive at once: what a sender sent over two seconds.
const BURST_SECONDS: f64 = 2.0;

/// Why the receiver ends a stream.
#[derive(Debug)]
enum End {
    /// The peer has said all, or the stream or the connection is gone.
    ByPeer(String),
    /// The channel was dropped here.
    Closed,
    TooLarge(String),
    Violation(String),
    NoMemory(String),
}

/// What keeps the reader from accepting more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Nothing: no whole message is left.
    Empty,
    /// The peer's lane is full.
    Room,
    /// The peer sends faster than the channel's rate.
    Rate(Duration),
    /// A message has begun for which no memory is left.
    Memory,
}

/// Receives what a peer sends on one channel until the stream ends.
pub(crate) fn run_reader(
    peer: Arc<Peer>,
    core: Arc<ChannelCore>,
    stream: Stream,
) -> impl Future<Output = ()> + Send {
    // Taken apart here and used where it is captured: an async function would hold the stream three times.
    let (mut send, mut recv) = stream.split();
    async move { receive(&peer, &core, &mut send, &mut recv).await }
}

async fn receive(peer: &Arc<Peer>, core: &Arc<ChannelCore>, send: &mut SendStream, recv: &mut RecvStream) {
    let credit = peer.confirms();
    let most = if credit { MAX_STREAMS } else { MAX_FOREIGN_STREAMS };
    let Some(intake) = core.inbox.enter(peer.id, most) else {
        core.counts.too_many_streams.fetch_add(1, Ordering::Relaxed);
        recv.stop(StreamCode::Overloaded);
        return send.reset(StreamCode::Overloaded);
    };
    let mut reader = Reader::new(peer, core, &intake);
    let ended = match reader.begin() {
        Ok(()) => reader.run(recv, send).await,
        Err(end) => Err(end),
    };
    if let Err(end) = ended {
        Box::pin(reader.say_end(&end, recv, send)).await;
    }
    core.inbox.leave(&intake);
    // Our half carried the answer to the channel's name, and what was accepted: it ends in order.
    let _ = send.finish();
}

struct Reader<'a> {
    peer: &'a Peer,
    core: &'a ChannelCore,
    intake: &'a Arc<Intake>,
    /// Read and not yet accepted, from the beginning of a message.
    buffer: BytesMut,
    /// What was read after it while whole messages wait there, in blocks: a buffer that grew would be copied again and again.
    backlog: VecDeque<BytesMut>,
    /// Whole messages wait in the buffer.
    blocked: bool,
    /// Nothing more will come: why.
    ended: Option<String>,
    /// Framed bytes and messages that were put into the inbox.
    accepted: u64,
    messages: u64,
    /// With a peer that keeps to credit.
    window: Option<Window>,
    /// What the application had taken when more room was last wanted and not to be had.
    tried: u64,
    /// A message has begun that waits for the application to take others.
    cramped: bool,
    /// Since when memory is missing for the message that has begun.
    starving: Option<Duration>,
    /// While the lane of a peer without credit is full: what its stream may hold of the connection's window meanwhile.
    stalled: Option<Reservation>,
    pace: Pace,
    seen: Option<Arc<Seen>>,
    told: Told,
}

/// What the last account said, and when.
#[derive(Debug, Default)]
struct Told {
    accepted: u64,
    messages: u64,
    limit: u64,
    at: Duration,
    limits: bool,
}

impl<'a> Reader<'a> {
    fn new(peer: &'a Peer, core: &'a ChannelCore, intake: &'a Arc<Intake>) -> Self {
        Self {
            peer,
            core,
            intake,
            buffer: BytesMut::new(),
            backlog: VecDeque::new(),
            blocked: false,
            ended: None,
            accepted: 0,
            messages: 0,
            window: None,
            tried: 0,
            cramped: false,
            starving: None,
            stalled: None,
            pace: Pace::new(core.config.rate, BURST_SECONDS, peer.shared.clock.now()),
            seen: core.config.skip_known.then(|| peer.seen(core)),
            told: Told::default(),
        }
    }

    /// Makes the first promise to a peer that keeps to credit.
    fn begin(&mut self) -> Result<(), End> {
        if self.peer.confirms() {
            let most = Inbox::bound(&self.core.config) as u64;
            let memory = Reservation::new(self.peer.receive_budgets(self.core));
            self.window = Some(Window::new(most, memory, self.now().mono)?);
        }
        Ok(())
    }

    async fn run(&mut self, recv: &mut RecvStream, send: &mut SendStream) -> Result<(), End> {
        self.account(send, None).await?;
        loop {
            let block = self.accept()?;
            self.blocked = matches!(block, Block::Room | Block::Rate(_));
            if block == Block::Empty {
                if let Some(how) = self.ended.take() {
                    return Err(End::ByPeer(how));
                }
                self.stalled = None;
                // Accounts can wait while there is more to read.
                if self.read_now(recv)? {
                    if self.renew()
                        || self.unsaid_bytes() > self.told.limit.saturating_sub(self.told.accepted) / 2
                    {
                        self.account(send, None).await?;
                    }
                    continue;
                }
            }
            self.wait(block, recv, send).await?;
        }
    }

    /// Tells the peer what it wants to know, and waits for what is needed.
    async fn wait(&mut self, block: Block, recv: &mut RecvStream, send: &mut SendStream) -> Result<(), End> {
        if self.blocked {
            self.stall()?;
        }
        let later = self.account_if_due(send).await?;
        let wait = match block {
            Block::Rate(wait) => Some(wait),
            Block::Memory => Some(MEMORY_AGAIN),
            Block::Empty | Block::Room => None,
        };
        let timer = [wait, later].into_iter().flatten().min();
        let wakes_at = self.wakes_at();
        self.intake.wake_at(wakes_at);
        if self.intake.taken() >= wakes_at {
            // It was taken before the reader asked to be woken.
            return Ok(());
        }
        if block == Block::Room {
            self.core.inbox.await_room(self.intake);
        }
        // No message comes when the channel is closed, and the wake-up for that may be past.
        if self.core.inbox.is_closed() {
            return Err(End::Closed);
        }
        // What was promised is always read, so that it never fills the connection's window, and more than was promised is noticed.
        let reads = self.ended.is_none() && (self.window.is_some() || block == Block::Empty);
        // Boxed, because an idle reader waits for neither; and what is read is put on the stack only while there is something to read.
        let mut closed = (!reads).then(|| Box::pin(self.peer.connection.closed()));
        let mut sleep = timer.map(|wait| Box::pin(tokio::time::sleep(wait)));
        let mut woken = pin!(self.intake.wake.notified());
        poll_fn(|cx| {
            if reads && let Poll::Ready(took) = self.poll_read(cx, recv) {
                return Poll::Ready(took);
            }
            if woken.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            // What came before the connection ended and found no room is given up.
            if let Some(closed) = &mut closed
                && let Poll::Ready(cause) = closed.as_mut().poll(cx)
            {
                return Poll::Ready(Err(End::ByPeer(cause.to_string())));
            }
            match &mut sleep {
                Some(sleep) => sleep.as_mut().poll(cx).map(Ok),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// A peer without credit fills its stream's window now. What all such streams may hold leaves the rest of the connection its room.
    fn stall(&mut self) -> Result<(), End> {
        if self.window.is_some() || self.stalled.is_some() {
            return Ok(());
        }
        let mut stalled = Reservation::new(self.peer.unread_budgets());
        let bytes = self.peer.shared.endpoint.settings().stream_window_bytes;
        stalled.resize(bytes as usize)?;
        self.stalled = Some(stalled);
        Ok(())
    }

    /// Reads what has arrived. False when nothing has.
    fn read_now(&mut self, recv: &mut RecvStream) -> Result<bool, End> {
        match self.poll_read(&mut Context::from_waker(Waker::noop()), recv) {
            Poll::Ready(took) => took.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, recv: &mut RecvStream) -> Poll<Result<(), End>> {
        let mut pieces = [const { Bytes::new() }; PIECES];
        recv.poll_read_chunks(cx, &mut pieces).map(|read| self.took(read, &pieces))
    }

    /// Adds what was read.
    fn took(&mut self, read: Result<usize, ReadError>, pieces: &[Bytes]) -> Result<(), End> {
        let count = match read {
            Ok(count) if count > 0 => count,
            // Whole messages that came before the end are still accepted.
            Ok(_) => {
                self.ended = Some("it has said all".to_owned());
                return Ok(());
            }
            Err(error) => {
                self.ended = Some(error.to_string());
                return Ok(());
            }
        };
        let bytes: usize = pieces[..count].iter().map(Bytes::len).sum();
        if let Some(window) = &self.window
            && self.received() + bytes as u64 > window.limit()
        {
            return Err(End::Violation("it sent more than it was allowed to".to_owned()));
        }
        let target = if self.blocked {
            if self.backlog.back().is_none_or(|last| last.capacity() - last.len() < bytes) {
                self.backlog.push_back(BytesMut::with_capacity(bytes.max(BLOCK)));
            }
            self.backlog.back_mut().unwrap_or(&mut self.buffer)
        } else {
            // A buffer for each read: what is not yet taken out of the inbox keeps the older ones alive.
            if self.buffer.is_empty() {
                self.buffer = BytesMut::with_capacity(bytes);
            }
            &mut self.buffer
        };
        pieces[..count].iter().for_each(|piece| target.extend_from_slice(piece));
        Ok(())
    }

    /// Puts the whole messages of the buffer into the inbox, as far as the lane and the rate allow.
    fn accept(&mut self) -> Result<Block, End> {
        loop {
            if self.buffer.is_empty() && !self.go_on_with_backlog() {
                return Ok(Block::Empty);
            }
            let room = self.core.inbox.room(self.intake).ok_or(End::Closed)?;
            let now = self.now();
            let (bytes, messages) = self.at_rate(room, now);
            let cut = Cut::of(&self.buffer, bytes, messages, self.core.config.max_message_bytes)?;
            if cut.messages == 0 {
                let is_cut = cut.next.is_none_or(|next| next > self.buffer.len());
                if is_cut && self.go_on_with_backlog() {
                    continue;
                }
                return self.why_nothing(&cut, room, now);
            }
            let run = self.buffer.split_to(cut.bytes).freeze();
            if !self.core.inbox.push(self.intake, &run, cut.messages) {
                // Another stream of the peer took the room. Put it back and look again.
                let rest = std::mem::replace(&mut self.buffer, BytesMut::from(&run[..]));
                self.buffer.extend_from_slice(&rest);
                continue;
            }
            self.accepted += cut.bytes as u64;
            self.messages += cut.messages as u64;
            self.cramped = false;
            self.pace.spend(cut.bytes, cut.messages, now);
            self.peer.mark_useful();
            self.core.counts.received.fetch_add(cut.messages as u64, Ordering::Relaxed);
            self.core.counts.received_bytes.fetch_add(cut.bytes as u64, Ordering::Relaxed);
            if let Some(seen) = &self.seen {
                messages_of(run).for_each(|message| seen.note(&message, now.mono));
            }
        }
    }

    /// Adds the next block to the buffer, of which no whole message is left.
    fn go_on_with_backlog(&mut self) -> bool {
        let Some(block) = self.backlog.pop_front() else { return false };
        if self.buffer.is_empty() {
            self.buffer = block;
        } else {
            self.buffer.extend_from_slice(&block);
        }
        true
    }

    /// What of the room the channel's rate lets be used now.
    fn at_rate(&mut self, room: Room, now: Now) -> (usize, usize) {
        if self.pace.is_unlimited() {
            return (room.bytes, room.messages);
        }
        let (bytes, messages) = self.pace.allowance(now);
        // A message that is longer than all that may come at once passes when nothing came for so long.
        let full = self.core.config.rate.bytes_per_second.is_some_and(|rate| bytes as f64 >= rate as f64);
        (if full { room.bytes } else { room.bytes.min(bytes) }, room.messages.min(messages))
    }

    fn why_nothing(&mut self, cut: &Cut, room: Room, now: Now) -> Result<Block, End> {
        match cut.next {
            // Its length itself is cut.
            None => Ok(Block::Empty),
            Some(next) if next > self.buffer.len() => self.make_room(self.accepted + next as u64, now.mono),
            Some(next) if room.messages == 0 || next > room.bytes => Ok(Block::Room),
            Some(_) => Ok(Block::Rate(self.pace.wait(now).max(Duration::from_millis(1)))),
        }
    }

    /// Promises room for the message that has begun and ends at `end`, where the sender needs a promise.
    fn make_room(&mut self, end: u64, now: Duration) -> Result<Block, End> {
        let Some(window) = &mut self.window else { return Ok(Block::Empty) };
        self.tried = self.intake.taken();
        match window.make_room(end, self.tried) {
            Ok(room) => {
                self.cramped = !room;
                self.starving = None;
                Ok(Block::Empty)
            }
            Err(exhausted) => {
                let since = *self.starving.get_or_insert(now);
                if now.saturating_sub(since) < MEMORY_PATIENCE {
                    Ok(Block::Memory)
                } else {
                    Err(exhausted.into())
                }
            }
        }
    }

    /// Raises the limit when the sender needs it and there is room. True when there is a new one to tell.
    fn renew(&mut self) -> bool {
        let received = self.received();
        let Some(window) = &mut self.window else { return false };
        if window.is_low(received) {
            self.tried = self.intake.taken();
            let (rtt, now) = (self.peer.connection.rtt(), self.peer.shared.clock.now().mono);
            window.renew(received, self.tried, rtt, now);
        }
        window.limit() > self.told.limit
    }

    /// Up to where the application must take for the reader to look again: nowhere, while the sender has credit.
    fn wakes_at(&self) -> u64 {
        match &self.window {
            _ if self.cramped => self.tried + 1,
            Some(window) if window.is_low(self.received()) && self.tried < self.accepted => {
                // When all is taken, in any case.
                (self.tried + window.worth_taking()).min(self.accepted)
            }
            _ => u64::MAX,
        }
    }

    fn received(&self) -> u64 {
        let waiting = self.buffer.len() + self.backlog.iter().map(BytesMut::len).sum::<usize>();
        self.accepted + waiting as u64
    }

    /// Accepted bytes that the peer was not told of.
    fn unsaid_bytes(&self) -> u64 {
        if self.window.is_some() { self.accepted - self.told.accepted } else { 0 }
    }

    /// Sends an account if there is anything new to say, unless the last one is so recent and so much has come since that it would only be
    /// one of many. Then it says when it is due.
    async fn account_if_due(&mut self, send: &mut SendStream) -> Result<Option<Duration>, End> {
        let raised = self.renew();
        if !raised && self.unsaid_bytes() == 0 {
            return Ok(None);
        }
        let due = self.told.at + ACCOUNT_INTERVAL;
        let now = self.now().mono;
        if raised || now >= due || self.messages - self.told.messages <= FEW {
            self.account(send, None).await?;
            return Ok(None);
        }
        Ok(Some(due - now))
    }

    /// Tells the peer how things stand.
    async fn account(&mut self, send: &mut SendStream, end: Option<wire::End>) -> Result<(), End> {
        let Some(window) = &self.window else { return Ok(()) };
        let limits = (!self.told.limits).then(|| limits::in_account(&self.core.config));
        let limit = window.limit();
        let account = wire::Account { accepted: self.accepted, messages: self.messages, limit, limits, end };
        let at = self.now().mono;
        self.told = Told { accepted: self.accepted, messages: self.messages, limit, at, limits: true };
        Box::pin(async move { send.write_frame(&account).await })
            .await
            .map_err(|error| End::ByPeer(error.to_string()))
    }

    /// Tells the peer why nothing more is taken, and us what happened.
    async fn say_end(&mut self, end: &End, recv: &mut RecvStream, send: &mut SendStream) {
        let (peer, channel) = (self.peer.id, self.core.config.name.as_str());
        let counts = &self.core.counts;
        let count = match end {
            End::TooLarge(_) => Some(&counts.too_large),
            End::Violation(_) => Some(&counts.violation),
            End::NoMemory(_) => Some(&counts.no_memory),
            End::ByPeer(_) | End::Closed => None,
        };
        count.into_iter().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed));
        let (reason, code, detail) = match end {
            End::ByPeer(how) => {
                let cut = self.received() - self.accepted;
                tracing::debug!(%peer, channel, how, cut, "a channel's stream ended");
                // It may still want to know what was accepted.
                let _ = self.account(send, None).await;
                return;
            }
            End::Closed => (END_CLOSED, StreamCode::Cancelled, "the channel was closed"),
            End::TooLarge(detail) => (END_TOO_LARGE, StreamCode::TooLarge, detail.as_str()),
            End::Violation(detail) => (END_VIOLATION, StreamCode::ProtocolViolation, detail.as_str()),
            End::NoMemory(detail) => (END_NO_MEMORY, StreamCode::Overloaded, detail.as_str()),
        };
        if !matches!(end, End::Closed) {
            tracing::warn!(%peer, channel, detail, "a channel's stream is refused");
        }
        recv.stop(code);
        if self.window.is_none() && self.peer.confirms() {
            // Refused before the first promise: it is told all the same.
            let account = wire::Account {
                end: Some(wire::End { reason, detail: detail.to_owned() }),
                ..Default::default()
            };
            let _ = send.write_frame(&account).await;
        }
        let _ = self.account(send, Some(wire::End { reason, detail: detail.to_owned() })).await;
    }

    fn now(&self) -> Now {
        self.peer.shared.clock.now()
    }
}

/// Numbers of proto/channel.proto's `End`.
pub(crate) const END_CLOSED: u32 = 1;
pub(crate) const END_TOO_LARGE: u32 = 2;
pub(crate) const END_VIOLATION: u32 = 3;
pub(crate) const END_NO_MEMORY: u32 = 4;

/// How much of a buffer is whole messages within some bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    bytes: usize,
    messages: usize,
    /// The framed length of the message behind them, once it is known.
    next: Option<usize>,
}

impl Cut {
    fn of(buffer: &[u8], most_bytes: usize, most_messages: usize, longest: usize) -> Result<Self, End> {
        let mut cut = Self { bytes: 0, messages: 0, next: None };
        loop {
            let head = match uvarint::take(&buffer[cut.bytes..]) {
                Ok(head) => head,
                Err(_) if cut.messages > 0 => return Ok(cut),
                Err(error) => {
                    return Err(End::Violation(format!("a message's length is malformed: {error}")));
                }
            };
            let Some((length, head)) = head else { return Ok(Self { next: None, ..cut }) };
            if length > longest as u64 {
                if cut.messages > 0 {
                    return Ok(cut);
                }
                let detail =
                    format!("a message of {length} bytes was announced where at most {longest} are taken");
                return Err(End::TooLarge(detail));
            }
            let framed = head + length as usize;
            let end = cut.bytes + framed;
            if end > buffer.len() || end > most_bytes || cut.messages == most_messages {
                return Ok(Self { next: Some(framed), ..cut });
            }
            (cut.bytes, cut.messages) = (end, cut.messages + 1);
        }
    }
}

/// The messages of a run.
fn messages_of(mut run: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let (length, head) = uvarint::take(&run).ok().flatten()?;
        run.advance(head);
        Some(run.split_to(length as usize))
    })
}

impl From<Exhausted> for End {
    fn from(exhausted: Exhausted) -> Self {
        Self::NoMemory(format!("the memory limit {} of {} bytes is reached", exhausted.limit, exhausted.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(buffer: &[u8], bytes: usize, messages: usize) -> Cut {
        Cut::of(buffer, bytes, messages, 100).unwrap()
    }

    #[test]
    fn whole_messages_are_cut_off_within_the_bounds() {
        let buffer = b"\x01a\x02bb\x03cc";
        assert_eq!(cut(buffer, 100, 100), Cut { bytes: 5, messages: 2, next: Some(4) });
        assert_eq!(cut(buffer, 4, 100), Cut { bytes: 2, messages: 1, next: Some(3) });
        assert_eq!(cut(buffer, 100, 1), Cut { bytes: 2, messages: 1, next: Some(3) });
        assert_eq!(cut(buffer, 100, 0), Cut { bytes: 0, messages: 0, next: Some(2) });
        assert_eq!(cut(b"\x01a", 100, 100), Cut { bytes: 2, messages: 1, next: None });
        assert_eq!(cut(&[0x80], 100, 100), Cut { bytes: 0, messages: 0, next: None });
    }

    #[test]
    fn a_length_that_is_too_large_or_malformed_ends_the_stream_after_what_came_before_it() {
        assert_eq!(cut(b"\x01a\x65", 100, 100), Cut { bytes: 2, messages: 1, next: None });
        assert!(matches!(Cut::of(b"\x65", 100, 100, 100), Err(End::TooLarge(_))));
        assert!(matches!(Cut::of(&[0x81, 0], 100, 100, 100), Err(End::Violation(_))));
    }
}
