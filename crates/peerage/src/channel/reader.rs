//! The receiving end of a channel's stream: reads, puts whole messages into the inbox, and tells a Peerage peer what was accepted and how
//! far it may go.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Now;
use peerage_transport::{ReadError, RecvStream, SendStream, Stream, StreamCode};
use peerage_wire::channel as wire;
use tokio::time::Sleep;

use super::ChannelCore;
use super::cut::{Cut, messages_of};
use super::gather::Gather;
use super::inbox::{Inbox, Intake, Room};
use super::limits;
use super::pace::Pace;
use super::plain::Plain;
use super::seen::Seen;
use super::views::Arrival;
use super::window::Window;
use crate::memory::{Exhausted, Reservation};
use crate::peer::Peer;
use crate::shift::Shift;

/// Pieces that one read takes from a stream. Each is a part of one packet.
const PIECES: usize = 16;
/// The same from a stream without credit: what a read may bring is accounted for before.
const PLAIN_PIECES: usize = 2;
/// Runs that are put into the inbox at once.
const RUNS: usize = 32;
/// Reads after which others have a turn.
const READS: u64 = 64;
/// The least that is taken for the length of a piece.
const DATAGRAM: usize = 1500;
/// Streams of one channel that one Peerage peer may have open: an old one that ends, and its successor.
pub(crate) const MAX_STREAMS: usize = 2;
/// Streams of one channel that a foreign peer may have open: some open one for each message.
pub(crate) const MAX_FOREIGN_STREAMS: usize = 64;
/// Messages up to which an account is sent at once, unless we said something since the last one; otherwise there is at most one each [`ACCOUNT_INTERVAL`].
const FEW: u64 = 8;
const ACCOUNT_INTERVAL: Duration = Duration::from_millis(1);
/// How much later than that one is sent in talk to and fro when nothing comes that it could be sent with.
const ACCOUNT_GRACE: Duration = Duration::from_millis(1);
/// How long a message waits for memory that is accounted for before its stream is refused, and how often it is tried.
pub(crate) const MEMORY_PATIENCE: Duration = Duration::from_secs(5);
const MEMORY_AGAIN: Duration = Duration::from_millis(50);
/// How much more than the rate may arrive at once: what a sender sent over two seconds.
const BURST_SECONDS: f64 = 2.0;

/// Why the receiver ends a stream.
#[derive(Debug)]
pub(super) enum End {
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
    /// There is no memory for the message that has begun, or for what would be read next.
    Memory,
    /// The same; but messages of this stream wait for the application, and each that it takes gives some back.
    Untaken,
}

/// Starts to receive what a peer sends on one channel, until the stream ends.
pub(crate) fn start_reader(peer: &Arc<Peer>, core: Arc<ChannelCore>, stream: Stream) {
    let reading = run_reader(peer.clone(), core.clone(), stream);
    let (_, reading) = Shift::new(&peer.shared.lending, core, reading);
    peer.shared.spawn_shift(reading);
}

fn run_reader(peer: Arc<Peer>, core: Arc<ChannelCore>, stream: Stream) -> impl Future<Output = ()> + Send {
    // Taken apart here and used where it is captured: an async function would hold the stream three times.
    let (mut send, mut recv) = stream.split();
    async move { receive(&peer, &core, &mut send, &mut recv).await }
}

async fn receive(peer: &Arc<Peer>, core: &Arc<ChannelCore>, send: &mut SendStream, recv: &mut RecvStream) {
    let credit = peer.confirms();
    let most = if credit { MAX_STREAMS } else { MAX_FOREIGN_STREAMS };
    // What one connection brings on a channel stays in order, where its sender has one stream at a time.
    let connection = credit.then(|| Arc::as_ptr(peer).addr());
    let Some(intake) = core.inbox.enter(peer.id, most, connection, &peer.shared.views) else {
        core.counts.too_many_streams.fetch_add(1, Ordering::Relaxed);
        recv.stop(StreamCode::Overloaded);
        return send.reset(StreamCode::Overloaded);
    };
    let mut reader = Reader::new(peer, core, &intake, send, recv);
    let ended = match reader.begin() {
        Ok(()) => reader.run().await,
        Err(end) => Err(end),
    };
    if let Err(end) = ended {
        Box::pin(reader.say_end(&end)).await;
    }
    reader.leave_memory();
    core.inbox.leave(&intake);
    // Our half carried the answer to the channel's name, and what was accepted: it ends in order.
    let _ = send.finish();
}

struct Reader<'a> {
    peer: &'a Peer,
    core: &'a ChannelCore,
    intake: &'a Arc<Intake>,
    send: &'a mut SendStream,
    recv: &'a mut RecvStream,
    /// Read and not yet accepted.
    gather: Gather,
    /// Whole messages wait for room or for the rate.
    blocked: bool,
    /// Nothing more will come: why.
    ended: Option<String>,
    /// Framed bytes and messages that were put into the inbox.
    accepted: u64,
    messages: u64,
    /// With a peer that keeps to credit.
    window: Option<Window>,
    /// With one that does not.
    plain: Option<Box<Plain>>,
    /// What the application had taken when more room was last wanted and not to be had.
    tried: u64,
    /// What comes next waits for the application to take something.
    cramped: bool,
    /// Since when memory is missing.
    starving: Option<Duration>,
    /// Of this peer on this channel, where it has a rate.
    pace: Option<Arc<Mutex<Pace>>>,
    seen: Option<Arc<Seen>>,
    told: Told,
    /// When the next wait ends at the latest.
    alarm: Option<Alarm>,
}

#[derive(Debug)]
struct Alarm {
    at: Duration,
    sleep: Pin<Box<Sleep>>,
}

/// What the last account said, and when.
#[derive(Debug, Default)]
struct Told {
    accepted: u64,
    messages: u64,
    limit: u64,
    at: Duration,
    limits: bool,
    /// How often we had said something by then.
    spoken: u64,
}

impl<'a> Reader<'a> {
    fn new(
        peer: &'a Peer,
        core: &'a ChannelCore,
        intake: &'a Arc<Intake>,
        send: &'a mut SendStream,
        recv: &'a mut RecvStream,
    ) -> Self {
        Self {
            peer,
            core,
            intake,
            send,
            recv,
            gather: Gather::default(),
            blocked: false,
            ended: None,
            accepted: 0,
            messages: 0,
            window: None,
            plain: None,
            tried: 0,
            cramped: false,
            starving: None,
            pace: core.paces.of(peer.id, core.config.rate, BURST_SECONDS, peer.shared.clock.now()),
            seen: core.config.skip_known.then(|| peer.seen(core)),
            told: Told::default(),
            alarm: None,
        }
    }

    /// Makes the first promise to a peer that keeps to credit; has the first read accounted for with another one.
    fn begin(&mut self) -> Result<(), End> {
        if self.peer.confirms() {
            let most = Inbox::bound(&self.core.config) as u64;
            let memory = Reservation::new(self.peer.receive_budgets(self.core));
            self.window = Some(Window::new(most, memory, self.now().mono)?);
        } else {
            let datagram = usize::from(self.peer.shared.endpoint.settings().max_datagram_bytes);
            let memory = Reservation::new(self.peer.held_budgets(self.core));
            self.plain = Some(Box::new(Plain::new(PLAIN_PIECES * datagram.max(DATAGRAM), memory)?));
        }
        Ok(())
    }

    /// What this stream brought and nobody has taken yet stays accounted for until it is taken.
    fn leave_memory(&mut self) {
        let window = self.window.take().map(Window::into_memory);
        let Some(mut memory) = window.or_else(|| self.plain.take().map(|plain| plain.into_memory())) else {
            return;
        };
        // It holds nothing of the connection's window any more.
        memory.leave(self.peer.unread_account(self.core));
        self.intake.keep(memory, self.accepted);
    }

    async fn run(&mut self) -> Result<(), End> {
        self.account(None).await?;
        let mut reads = 0u64;
        loop {
            let mut block = self.accept()?;
            self.blocked = matches!(block, Block::Room | Block::Rate(_));
            if self.blocked {
                self.gather.own();
            }
            if block == Block::Empty {
                if let Some(how) = self.ended.take() {
                    return Err(End::ByPeer(how));
                }
                block = self.may_read()?;
            }
            if block == Block::Empty {
                // Accounts can wait while there is more to read.
                if self.read_now().await? {
                    if self.renew()
                        || self.unsaid_bytes() > self.told.limit.saturating_sub(self.told.accepted) / 2
                    {
                        self.account(None).await?;
                    }
                    reads += 1;
                    if reads.is_multiple_of(READS) {
                        give_way().await;
                    }
                    continue;
                }
            }
            self.wait(block).await?;
        }
    }

    /// Tells the peer what it wants to know, and waits for what is needed.
    async fn wait(&mut self, block: Block) -> Result<(), End> {
        self.gather.rest();
        self.settle_plain(block)?;
        let told = (self.told.accepted, self.told.limit);
        let due = self.account_if_due().await?;
        // Nothing has arrived, and no account that was to be written can have missed the wake-up.
        let mut read = block == Block::Empty && told == (self.told.accepted, self.told.limit);
        let wait = match block {
            Block::Rate(wait) => Some(wait),
            Block::Memory => Some(MEMORY_AGAIN),
            Block::Empty | Block::Room | Block::Untaken => None,
        };
        // In talk to and fro it goes with the next message.
        let talks = self.peer.spoken() != self.told.spoken;
        self.set_alarm(wait, due.map(|due| if talks { due + ACCOUNT_GRACE } else { due }));
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
        poll_fn(|cx| {
            if reads
                && !std::mem::take(&mut read)
                && let Poll::Ready(took) = self.poll_read(cx)
            {
                return Poll::Ready(took);
            }
            if self.intake.wake.poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            // What came before the connection ended and found no room is given up.
            if let Some(closed) = &mut closed
                && let Poll::Ready(cause) = closed.as_mut().poll(cx)
            {
                return Poll::Ready(Err(End::ByPeer(cause.to_string())));
            }
            let Some(alarm) = &mut self.alarm else { return Poll::Pending };
            ready!(alarm.sleep.as_mut().poll(cx));
            self.alarm = None;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Has the next wait last for `wait` at most, and end by `by`. One that ends sooner does no harm, so an alarm that is set goes on: each new one may
    /// wake the runtime's timer.
    fn set_alarm(&mut self, wait: Option<Duration>, by: Option<Duration>) {
        if wait.is_none() && by.is_none() {
            return;
        }
        let now = self.now().mono;
        let Some(at) = wait.map(|wait| now + wait).into_iter().chain(by).min() else { return };
        if self.alarm.as_ref().is_none_or(|alarm| alarm.at <= now || alarm.at > at) {
            let wait = at.saturating_sub(now);
            self.alarm = Some(Alarm { at, sleep: Box::pin(tokio::time::sleep(wait)) });
        }
    }

    /// Has the next read accounted for, with a peer whose stream is read as it comes.
    fn may_read(&mut self) -> Result<Block, End> {
        let (received, now) = (self.received(), self.now().mono);
        let Some(plain) = &mut self.plain else { return Ok(Block::Empty) };
        plain.go_on();
        self.tried = self.intake.taken();
        let made = plain.make_room((received - self.tried) as usize);
        self.cramped = made.is_err() && self.tried < self.accepted;
        match made {
            Ok(()) => {
                self.starving = None;
                Ok(Block::Empty)
            }
            Err(_) if self.cramped => Ok(Block::Untaken),
            Err(exhausted) => self.starve(exhausted, now),
        }
    }

    /// Before a wait, with a peer without credit: its stream's window fills while nothing is read, and what was taken is given back.
    fn settle_plain(&mut self, block: Block) -> Result<(), End> {
        let received = self.received();
        let Some(plain) = &mut self.plain else { return Ok(()) };
        if block != Block::Empty {
            plain.stall(self.peer)?;
        }
        let taken = self.intake.taken();
        plain.give_back((received - taken) as usize);
        if !self.cramped {
            self.tried = taken;
        }
        Ok(())
    }

    /// Reads what has arrived. False when nothing has; then the stream wakes the reader when something does.
    async fn read_now(&mut self) -> Result<bool, End> {
        poll_fn(|cx| {
            Poll::Ready(match self.poll_read(cx) {
                Poll::Ready(took) => took.map(|()| true),
                Poll::Pending => Ok(false),
            })
        })
        .await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut pieces = [const { Bytes::new() }; PIECES];
        let most = if self.window.is_some() { PIECES } else { PLAIN_PIECES };
        self.recv.poll_read_chunks(cx, &mut pieces[..most]).map(|read| self.took(read, &mut pieces))
    }

    /// Adds what was read.
    fn took(&mut self, read: Result<usize, ReadError>, pieces: &mut [Bytes]) -> Result<(), End> {
        let count = match read {
            Ok(count) if count > 0 => count,
            // Whole messages that came before the end are still accepted.
            Ok(_) => {
                self.ended = Some("it has said all".to_owned());
                return Ok(());
            }
            // Its sender knows by the accounts what was accepted, takes the rest for lost or unknown, and may go on with a stream that
            // comes after this one.
            Err(error) if self.window.is_some() => return Err(End::ByPeer(error.to_string())),
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
        self.gather.add(&mut pieces[..count]);
        if self.blocked {
            self.gather.own();
        }
        Ok(())
    }

    /// Puts the whole messages of what was read into the inbox, as far as the lane and the rate allow.
    fn accept(&mut self) -> Result<Block, End> {
        let pace = self.pace.clone();
        while self.gather.bytes() > 0 {
            let mut room = self.core.inbox.room(self.intake).ok_or(End::Closed)?;
            let now = self.now();
            // Kept until what passes is spent: the peer may have several streams.
            let mut pace = pace.as_deref().map(|pace| pace.lock().unwrap_or_else(PoisonError::into_inner));
            let mut runs = [const { None }; RUNS];
            let behind = self.cut_runs(&mut runs, &mut room, pace.as_deref_mut(), now);
            if let Some(first) = &runs[0] {
                let seen = self.seen.is_some().then(|| first.bytes.clone());
                let (bytes, messages) = self.core.inbox.push(self.intake, &mut runs);
                self.note_accepted(bytes, messages);
                if let Some(pace) = &mut pace {
                    pace.spend(bytes, messages, now);
                }
                if let (Some(seen), Some(run)) = (&self.seen, seen.filter(|_| messages > 0)) {
                    messages_of(run).for_each(|message| seen.note(&message, now.mono));
                }
                let left =
                    runs.into_iter().flatten().rev().map(|run| self.gather.put_back(run.into())).count();
                // Another stream of the peer took the room, or not all was cut; what is wrong behind the runs shows when they are gone.
                if left > 0 || !matches!(behind, Ok(Some(_))) {
                    continue;
                }
            }
            if let Some((cut, here)) = behind? {
                return self.why_nothing(&cut, here, room, pace.as_deref_mut(), now);
            }
        }
        Ok(Block::Empty)
    }

    fn note_accepted(&mut self, bytes: usize, messages: usize) {
        if messages > 0 {
            self.accepted += bytes as u64;
            self.messages += messages as u64;
            self.cramped = false;
            self.peer.mark_useful();
            self.core.counts.received.fetch_add(messages as u64, Ordering::Relaxed);
            self.core.counts.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Cuts runs of whole messages off what was read, as far as they fit into `room`. What stands behind them, and how much lies in one piece with it,
    /// when no more can be cut off.
    fn cut_runs(
        &mut self,
        runs: &mut [Option<Arrival>],
        room: &mut Room,
        mut pace: Option<&mut Pace>,
        now: Now,
    ) -> Result<Option<(Cut, usize)>, End> {
        // A rate is kept to, and what was seen is noted, run by run.
        let most = if pace.is_some() || self.seen.is_some() { 1 } else { runs.len() };
        let mut begins = self.accepted;
        for slot in &mut runs[..most] {
            let (cut, here) = self.cut(*room, begins, pace.as_deref_mut(), now)?;
            if cut.messages == 0 {
                return Ok(Some((cut, here)));
            }
            *slot = Some(self.intake.arrival(self.gather.take(cut.bytes), cut.messages));
            begins += cut.bytes as u64;
            room.bytes -= cut.bytes;
            room.messages -= cut.messages;
        }
        Ok(None)
    }

    /// The whole messages that fit into the room and keep to the channel's rate, and how much lies in one piece with them. They begin at such a place of
    /// the stream.
    fn cut(
        &mut self,
        room: Room,
        begins: u64,
        pace: Option<&mut Pace>,
        now: Now,
    ) -> Result<(Cut, usize), End> {
        let longest = self.core.config.max_message_bytes;
        let accounted = self.window.as_ref().map_or(0, |window| window.limit().saturating_sub(begins));
        let front = self.gather.front(longest, accounted as usize);
        let here = front.len();
        let Some(pace) = pace else {
            return Ok((Cut::of(front, room.bytes, room.messages, longest)?, here));
        };
        let (bytes, messages) = pace.allowance(now);
        let cut = Cut::of(front, room.bytes.min(bytes), room.messages.min(messages), longest)?;
        let fits = |next: &usize| *next <= here && *next <= room.bytes && room.messages > 0;
        match cut.next.filter(fits) {
            Some(next) if cut.messages == 0 && pace.lets_pass(next, now) => {
                Ok((Cut { bytes: next, messages: 1, next: None }, here))
            }
            _ => Ok((cut, here)),
        }
    }

    fn why_nothing(
        &mut self,
        cut: &Cut,
        here: usize,
        room: Room,
        pace: Option<&mut Pace>,
        now: Now,
    ) -> Result<Block, End> {
        let wait = |next| pace.map_or(Duration::ZERO, |pace| pace.wait_for(next, now));
        match cut.next {
            // Its length itself is cut.
            None => Ok(Block::Empty),
            Some(next) if next > here => self.make_room(self.accepted + next as u64, now.mono),
            Some(next) if room.messages == 0 || next > room.bytes => Ok(Block::Room),
            Some(next) => Ok(Block::Rate(wait(next).max(Duration::from_millis(1)))),
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
            // What waits for the application gives some back, however long that takes.
            Err(_) if self.tried < self.accepted => {
                self.cramped = true;
                self.starving = None;
                Ok(Block::Untaken)
            }
            Err(exhausted) => self.starve(exhausted, now),
        }
    }

    /// Memory is missing: for some time that is waited out.
    fn starve(&mut self, exhausted: Exhausted, now: Duration) -> Result<Block, End> {
        let since = *self.starving.get_or_insert(now);
        if now.saturating_sub(since) < MEMORY_PATIENCE { Ok(Block::Memory) } else { Err(exhausted.into()) }
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
        let worth = match (&self.window, &self.plain) {
            _ if self.cramped => return self.tried + 1,
            (Some(window), _) if window.is_low(self.received()) => window.worth_taking(),
            (None, Some(plain)) if plain.has_much() => plain.worth_taking(),
            _ => return u64::MAX,
        };
        // When all is taken, in any case.
        if self.tried < self.accepted { (self.tried + worth).min(self.accepted) } else { u64::MAX }
    }

    fn received(&self) -> u64 {
        self.accepted + self.gather.bytes() as u64
    }

    /// Accepted bytes that the peer was not told of.
    fn unsaid_bytes(&self) -> u64 {
        if self.window.is_some() { self.accepted - self.told.accepted } else { 0 }
    }

    /// Sends an account if there is anything new to say, unless the last one is so recent that this would only be one of many: so much has come since,
    /// or it is talk to and fro, where an account for each message would double the packets. Then it tells when it is due.
    async fn account_if_due(&mut self) -> Result<Option<Duration>, End> {
        let raised = self.renew();
        if !raised && self.unsaid_bytes() == 0 {
            return Ok(None);
        }
        let due = self.told.at + ACCOUNT_INTERVAL;
        let now = self.now().mono;
        let is_waited_for =
            self.messages - self.told.messages <= FEW && self.peer.spoken() == self.told.spoken;
        if raised || now >= due || is_waited_for {
            self.account(None).await?;
            return Ok(None);
        }
        Ok(Some(due))
    }

    /// Tells the peer how things stand.
    async fn account(&mut self, end: Option<wire::End>) -> Result<(), End> {
        let Some(window) = &self.window else { return Ok(()) };
        let limits = (!self.told.limits).then(|| limits::in_account(&self.core.config));
        let limit = window.limit();
        let account = wire::Account { accepted: self.accepted, messages: self.messages, limit, limits, end };
        let at = self.now().mono;
        let spoken = self.peer.spoken();
        self.told =
            Told { accepted: self.accepted, messages: self.messages, limit, at, limits: true, spoken };
        let send = &mut *self.send;
        Box::pin(async move { send.write_frame(&account).await })
            .await
            .map_err(|error| End::ByPeer(error.to_string()))
    }

    /// Tells the peer why nothing more is taken, and us what happened.
    async fn say_end(&mut self, end: &End) {
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
                let _ = self.account(None).await;
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
        self.recv.stop(code);
        if self.window.is_none() && self.peer.confirms() {
            // Refused before the first promise: it is told all the same.
            let account = wire::Account {
                end: Some(wire::End { reason, detail: detail.to_owned() }),
                ..Default::default()
            };
            let _ = self.send.write_frame(&account).await;
        }
        let _ = self.account(Some(wire::End { reason, detail: detail.to_owned() })).await;
    }

    fn now(&self) -> Now {
        self.peer.shared.clock.now()
    }
}

/// Goes on when it is woken again, which it is at once.
async fn give_way() {
    let mut gave = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Numbers of proto/channel.proto's `End`.
pub(crate) const END_CLOSED: u32 = 1;
pub(crate) const END_TOO_LARGE: u32 = 2;
pub(crate) const END_VIOLATION: u32 = 3;
pub(crate) const END_NO_MEMORY: u32 = 4;

impl From<Exhausted> for End {
    fn from(exhausted: Exhausted) -> Self {
        Self::NoMemory(format!("the memory limit {} of {} bytes is reached", exhausted.limit, exhausted.most))
    }
}
