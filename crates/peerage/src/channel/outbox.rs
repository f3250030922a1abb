//! What waits to be sent to one peer on one channel, what is on its way, and who waits to hear of it.
//!
//! Senders put messages into a [`Queue`]; the writer takes what the peer's credit, the connection's share and the channel's rate let pass.
//! Places in the stream are counted in bytes, as the peer's accounts do: a message is delivered when the peer has accepted the byte at
//! which it ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;
use peerage_wire::channel as wire;
use peerage_wire::uvarint;
use tokio::sync::{Notify, Semaphore};

use super::config::Overflow;
use super::limits::ChannelLimits;
use super::pace::Pace;
use super::queue::{MIN_SHARED, MIN_WHOLE, Queue, Taken, ends_within};
use super::verdict::{Reply, Verdict};
use super::{ChannelCore, Payload, Raw};
use crate::error::SendError;
use crate::memory::{Budgets, Reservation};

/// Bytes that may be sent before the peer's first account (proto/channel.proto).
pub(crate) const FIRST_CREDIT: u64 = 16 * 1024;
/// The most that the writer takes at once, in bytes.
const MAX_TAKE: usize = 256 * 1024;
/// Whoever waits for memory that others hold tries again after a pause, which doubles from the first to the longest: woken by each byte that
/// becomes free, those who wait would cost those who go on.
const MEMORY_PAUSE: Duration = Duration::from_millis(1);
pub(crate) const MAX_MEMORY_PAUSE: Duration = Duration::from_millis(64);
/// A reservation this much beyond twice its use is made smaller.
const MAX_SLACK: usize = 128 * 1024;

/// How far the stream behind an outbox is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// The peer has not answered yet whether it has the channel.
    Opening,
    /// It has.
    Open,
    /// No more can be sent.
    Ended(Box<SendError>),
}

/// A bounded queue of encoded messages, with one writer.
#[derive(Debug)]
pub(crate) struct Outbox {
    peer: PeerId,
    core: Arc<ChannelCore>,
    /// The peer tells what it accepts.
    credit: bool,
    /// Framed bytes that may wait.
    most_bytes: usize,
    /// How long whoever does not wait for room waits for the channel to be opened.
    opening: Duration,
    state: Mutex<State>,
    /// Tells the writer of messages, credit, and the end.
    pub(crate) work: Notify,
    /// Tells the sender whose turn it is of room.
    room: Notify,
    /// Senders that wait, in the order in which they came.
    turn: Semaphore,
    /// Tells of the phase, and of what was accepted after [`Outbox::finish`].
    changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    phase: Phase,
    /// The longest message that the peer takes, as far as it is known.
    peer_most: usize,
    /// It is only known from before the stream.
    peer_most_is_old: bool,
    /// No more messages are taken in; the writer ends when all are accepted.
    finishing: bool,
    /// The stream should be opened though nothing may be sent on it yet.
    open_wanted: bool,
    /// The channel's name was to be sent without a message.
    proposed: bool,
    /// Senders that wait for room.
    waiting: usize,
    /// The writer waits for work.
    idle: bool,
    sent: Place,
    written: Place,
    accepted: Place,
    /// Bytes that may be sent altogether.
    limit: u64,
    /// Bytes of messages that were dropped from the queue: places counted when they were queued are so much too high.
    dropped: u64,
    /// Who waits for messages that were not begun, with the place where each ends.
    queued: VecDeque<(u64, Reply)>,
    /// Who waits for messages that were.
    begun: VecDeque<(u64, Reply)>,
    pace: Pace,
    memory: Reservation,
}

/// A place in the stream.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    bytes: u64,
    messages: u64,
}

/// What the writer should do next.
#[derive(Debug)]
pub(crate) enum Next {
    Write(Taken),
    /// Send the protocol's name.
    Open,
    /// Nothing may be sent now; look again after the time, if one is given, or when the connection has room.
    Wait {
        after: Option<Duration>,
        for_flight: bool,
    },
    /// All is written.
    Finished,
    Ended,
}

/// What an end leaves behind, in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Left {
    /// Never sent as a whole, so certainly not delivered.
    pub(crate) lost: u64,
    /// Sent and not confirmed, where the peer confirms.
    pub(crate) unknown: u64,
}

/// Who ended a stream, which decides what is known of the messages on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// The peer said that it takes nothing beyond what it has accepted.
    Peer,
    /// The connection, or this node.
    Break,
}

impl Outbox {
    pub(crate) fn new(
        peer: PeerId,
        core: Arc<ChannelCore>,
        credit: bool,
        known: Option<&ChannelLimits>,
        budgets: Budgets,
        opening: Duration,
        now: Now,
    ) -> Arc<Self> {
        let config = &core.config;
        let rate = known.map_or(config.rate, |known| config.rate.and(known.rate));
        let state = State {
            queue: Queue::default(),
            phase: Phase::Opening,
            peer_most: known.map_or(usize::MAX, ChannelLimits::max_length),
            peer_most_is_old: credit && known.is_some(),
            finishing: false,
            open_wanted: false,
            proposed: false,
            waiting: 0,
            idle: false,
            sent: Place::default(),
            written: Place::default(),
            accepted: Place::default(),
            limit: if credit { FIRST_CREDIT } else { u64::MAX },
            dropped: 0,
            queued: VecDeque::new(),
            begun: VecDeque::new(),
            pace: Pace::new(rate, 1.0, now),
            memory: Reservation::new(budgets),
        };
        Arc::new(Self {
            peer,
            credit,
            most_bytes: config.send_queue_bytes.max(config.max_message_bytes + uvarint::MAX_LEN),
            core,
            opening,
            state: Mutex::new(state),
            work: Notify::new(),
            room: Notify::new(),
            turn: Semaphore::new(1),
            changed: Notify::new(),
        })
    }

    /// Queues a message as the channel's policy says. Whoever waits for room gets it in the order in which they came. True when the
    /// peer is known to have the channel.
    pub(crate) async fn push(&self, message: &impl Payload, reply: Option<Reply>) -> Result<bool, SendError> {
        let mut reply = reply;
        let unsure = self.is_unsure_of(message.length());
        if !unsure {
            match self.offer(message, &mut reply, MIN_WHOLE, false) {
                Err(error) if self.waits_after(&error, message.length()) => {}
                settled => return settled,
            }
        }
        let mut short = None;
        // One patience for all: for the peer's bound, for room, and for memory.
        let waiting = async {
            if unsure {
                self.want_open();
                self.opened().await?;
                match self.offer(message, &mut reply, MIN_WHOLE, false) {
                    Err(error) if self.waits_after(&error, message.length()) => {}
                    settled => return settled,
                }
            }
            self.push_in_turn(message, &mut reply, &mut short).await
        };
        let after = self.patience();
        match tokio::time::timeout(after, waiting).await {
            Ok(settled) => settled,
            Err(_) => Err(short.unwrap_or(SendError::TimedOut { after })),
        }
    }

    /// How long a sender waits at most, for room or for the channel to be opened.
    pub(crate) fn patience(&self) -> Duration {
        match self.core.config.overflow {
            Overflow::Wait(patience) => patience,
            Overflow::Refuse | Overflow::DropOldest => self.opening,
        }
    }

    /// Whether the sender of a message of such a length waits after this refusal: for room, or for memory where there can be enough.
    fn waits_after(&self, refusal: &SendError, length: usize) -> bool {
        let passes = match refusal {
            SendError::QueueFull => true,
            SendError::NoMemory { most, .. } => Queue::framed(length) <= *most,
            _ => false,
        };
        passes && matches!(self.core.config.overflow, Overflow::Wait(_))
    }

    /// Queues a message if there is room now, or can be made as the channel's policy says.
    pub(crate) fn try_push(&self, message: &impl Payload, reply: Option<Reply>) -> Result<bool, SendError> {
        self.try_push_whole(message, reply, MIN_WHOLE)
    }

    /// The same for bytes that the queues to several peers share: copied to each of them are only those of small messages.
    pub(crate) fn try_push_shared(&self, message: &Raw, reply: Option<Reply>) -> Result<bool, SendError> {
        self.try_push_whole(message, reply, MIN_SHARED)
    }

    fn try_push_whole(
        &self,
        message: &impl Payload,
        reply: Option<Reply>,
        whole_from: usize,
    ) -> Result<bool, SendError> {
        let pushed = self.offer(message, &mut { reply }, whole_from, false);
        if let Err(SendError::TooLarge { .. }) = pushed {
            self.want_open();
        }
        pushed
    }

    /// Queues a message behind those that wait already. While it is memory that it waits for, `short` says which.
    async fn push_in_turn(
        &self,
        message: &impl Payload,
        reply: &mut Option<Reply>,
        short: &mut Option<SendError>,
    ) -> Result<bool, SendError> {
        let _waiting = Waiting::new(self);
        let Ok(_turn) = self.turn.acquire().await else { return Err(SendError::Closed) };
        let mut pause = MEMORY_PAUSE;
        loop {
            let room = self.room.notified();
            match self.offer(message, reply, MIN_WHOLE, true) {
                Err(SendError::QueueFull) => {
                    *short = None;
                    room.await;
                }
                Err(error) if self.waits_after(&error, message.length()) => {
                    *short = Some(error);
                    let _ = tokio::time::timeout(pause, room).await;
                    pause = (2 * pause).min(MAX_MEMORY_PAUSE);
                }
                settled => return settled,
            }
        }
    }

    /// Takes a message in, unless there is no room or others wait for it already. Encoded ones of so many bytes are not copied.
    fn offer(
        &self,
        message: &impl Payload,
        reply: &mut Option<Reply>,
        whole_from: usize,
        in_turn: bool,
    ) -> Result<bool, SendError> {
        let length = message.length();
        let framed = Queue::framed(length);
        let mut state = self.lock();
        match &state.phase {
            Phase::Ended(error) => return Err(SendError::clone(error)),
            _ if state.finishing => return Err(SendError::Closed),
            _ if length > state.peer_most => return Err(self.too_large(length, state.peer_most)),
            _ => {}
        }
        if self.core.config.overflow == Overflow::DropOldest {
            self.make_room(&mut state, framed)?;
        } else {
            if !self.has_room(&state, framed) || (state.waiting > 0 && !in_turn) {
                return Err(SendError::QueueFull);
            }
            self.reserve(&mut state, framed)?;
        }
        state.queue.push(message, whole_from);
        if let Some(reply) = reply.take() {
            let ends = state.sent.bytes + state.queue.bytes() as u64 + state.dropped;
            state.queued.push_back((ends, reply));
        }
        let (idle, open) = (std::mem::take(&mut state.idle), state.phase == Phase::Open);
        drop(state);
        if idle {
            self.work.notify_one();
        }
        Ok(open)
    }

    fn has_room(&self, state: &State, framed: usize) -> bool {
        self.has_room_beside(state, framed, 0, 0)
    }

    /// Whether there is room when so much of the queue is not counted.
    fn has_room_beside(&self, state: &State, framed: usize, messages: usize, bytes: usize) -> bool {
        state.queue.messages() - messages < self.core.config.send_queue_messages
            && state.queue.bytes() - bytes + framed <= self.most_bytes
    }

    /// Drops the oldest messages until there is room and memory for a new one. Of one that has begun to leave nothing can be dropped, so its rest does
    /// not count against the bounds: the newest message always finds room. Where there would be no memory for it even then, nothing is dropped.
    fn make_room(&self, state: &mut State, framed: usize) -> Result<(), SendError> {
        let begun = state.queue.rest();
        let kept = self.held(state) - (state.queue.bytes() - begun);
        if kept + framed > state.memory.bytes() {
            state.memory.resize(kept + framed)?;
        }
        loop {
            let room = self.has_room_beside(state, framed, usize::from(begun > 0), begun);
            let error = if room {
                match self.reserve(state, framed) {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            } else {
                SendError::QueueFull
            };
            if !self.drop_oldest(state) {
                return Err(error);
            }
        }
    }

    fn drop_oldest(&self, state: &mut State) -> bool {
        let Some(bytes) = state.queue.drop_oldest() else { return false };
        let end = state.sent.bytes + state.queue.rest() as u64 + bytes as u64 + state.dropped;
        state.dropped += bytes as u64;
        self.core.counts.dropped.fetch_add(1, Ordering::Relaxed);
        if state.queued.front().is_some_and(|(ends, _)| *ends == end)
            && let Some((_, reply)) = state.queued.pop_front()
        {
            let _ = reply.send(Verdict::Refused(SendError::Dropped));
        }
        true
    }

    /// Has memory accounted for one more message.
    fn reserve(&self, state: &mut State, framed: usize) -> Result<(), SendError> {
        let needed = self.held(state) + framed;
        if needed <= state.memory.bytes() {
            return Ok(());
        }
        // Some more than needed, so that the accounts are not asked for every message.
        if state.memory.resize((2 * needed).max(4096)).is_ok() {
            return Ok(());
        }
        state.memory.resize(needed).map_err(SendError::from)
    }

    /// Gives back what is accounted for beyond need.
    fn release(&self, state: &mut State) {
        let held = self.held(state);
        if held == 0 || state.memory.bytes() > 2 * held + MAX_SLACK {
            // Less always succeeds.
            let _ = state.memory.resize(held);
        }
    }

    /// Bytes that wait or are on their way.
    fn held(&self, state: &State) -> usize {
        let gone = if self.credit { state.accepted.bytes } else { state.written.bytes };
        state.queue.bytes() + (state.sent.bytes - gone) as usize
    }

    /// The peer's bound is only known from before the stream, and forbids the message: the stream may tell otherwise.
    fn is_unsure_of(&self, length: usize) -> bool {
        let state = self.lock();
        state.peer_most_is_old && length > state.peer_most
    }

    fn want_open(&self) {
        self.lock().open_wanted = true;
        self.work.notify_one();
    }

    fn too_large(&self, length: usize, most: usize) -> SendError {
        SendError::TooLarge { length, most, channel: self.core.config.name.clone(), at: Some(self.peer) }
    }

    /// How long whoever has queued one of many messages waits for the channel to be opened: for none of them long.
    pub(crate) fn short_patience(&self) -> Duration {
        self.patience().min(self.opening)
    }

    /// Waits until the peer has said that it has the channel.
    pub(crate) async fn opened(&self) -> Result<(), SendError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match &self.lock().phase {
                Phase::Opening => {}
                Phase::Open => return Ok(()),
                Phase::Ended(error) => return Err(SendError::clone(error)),
            }
            changed.await;
        }
    }

    /// Waits until something, if only the channel's name, is to leave on the stream.
    pub(crate) async fn begun(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.lock();
                if state.proposed || state.sent.bytes > 0 {
                    return;
                }
            }
            changed.await;
        }
    }

    /// The peer has the channel.
    pub(crate) fn set_open(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Opening {
            state.phase = Phase::Open;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether [`Outbox::end`] was called.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.lock().phase, Phase::Ended(_))
    }

    /// How many messages are not yet handed to the connection.
    pub(crate) fn queued(&self) -> u64 {
        let state = self.lock();
        state.queue.messages() as u64 + state.sent.messages - state.written.messages
    }

    /// Whether something of it may not have arrived.
    pub(crate) fn has_unsent(&self) -> bool {
        let state = self.lock();
        let arrived = if self.credit { state.accepted.bytes } else { 0 };
        state.queue.bytes() > 0 || state.sent.bytes > arrived
    }

    /// Takes in no more messages; the writer sends what there is, and ends.
    pub(crate) fn finish(&self) {
        self.lock().finishing = true;
        self.room.notify_one();
        self.work.notify_one();
    }

    /// For the writer: what to do next, with `flight` bytes of the connection's share free. What is to be written is put into `out`.
    pub(crate) fn next(&self, flight: usize, now: Now, out: &mut Vec<Bytes>) -> Next {
        let mut state = self.lock();
        if let Phase::Ended(_) = state.phase {
            return Next::Ended;
        }
        if std::mem::take(&mut state.open_wanted) && state.sent.bytes == 0 && state.queue.bytes() == 0 {
            state.proposed = true;
            drop(state);
            self.changed.notify_waiters();
            return Next::Open;
        }
        if state.queue.bytes() == 0 {
            if state.finishing {
                return Next::Finished;
            }
            state.idle = true;
            return Next::Wait { after: None, for_flight: false };
        }
        let credit = usize::try_from(state.limit - state.sent.bytes).unwrap_or(usize::MAX);
        let (mut bytes, mut messages) = (MAX_TAKE.min(credit).min(flight), usize::MAX);
        if !state.pace.is_unlimited() {
            let (at_rate, count) = state.pace.allowance(now);
            (bytes, messages) = (bytes.min(at_rate), count);
        }
        let taken = state.queue.take(bytes, messages, out);
        if taken.bytes == 0 {
            state.idle = true;
            let after =
                Some(state.pace.wait(now)).filter(|wait| !state.pace.is_unlimited() && !wait.is_zero());
            return Next::Wait { after, for_flight: flight < credit };
        }
        state.pace.spend(taken.bytes, taken.messages, now);
        state.sent.bytes += taken.bytes as u64;
        state.sent.messages += taken.messages as u64;
        let begun = state.sent.bytes + state.queue.rest() as u64;
        while let Some((ends, _)) = state.queued.front()
            && ends - state.dropped <= begun
            && let Some((ends, reply)) = state.queued.pop_front()
        {
            let ends = ends - state.dropped;
            state.begun.push_back((ends, reply));
        }
        let (waiting, first) = (state.waiting > 0, state.sent.bytes == taken.bytes as u64);
        drop(state);
        if waiting {
            self.room.notify_one();
        }
        if first {
            self.changed.notify_waiters();
        }
        Next::Write(taken)
    }

    /// For the writer: so many bytes of what it took are handed to the connection. All of them, unless the stream is broken.
    pub(crate) fn written(&self, taken: Taken, bytes: usize, pieces: &[Bytes]) {
        let messages =
            if bytes == taken.bytes { taken.messages } else { ends_within(pieces, taken, bytes) } as u64;
        let mut state = self.lock();
        state.written.bytes += bytes as u64;
        state.written.messages += messages;
        if !self.credit {
            self.release(&mut state);
        }
        state.queue.forget_buffer();
        drop(state);
        self.core.counts.sent.fetch_add(messages, Ordering::Relaxed);
        self.core.counts.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// For the writer: what the peer's account says. How many bytes were accepted anew.
    pub(crate) fn hear(&self, account: &wire::Account, now: Now) -> Result<usize, &'static str> {
        let mut state = self.lock();
        if account.accepted > state.sent.bytes
            || account.messages > state.sent.messages
            || account.accepted < state.accepted.bytes
            || account.messages < state.accepted.messages
        {
            return Err("it accounts for what was never sent, or takes back what it accepted");
        }
        let (more, messages) =
            (account.accepted - state.accepted.bytes, account.messages - state.accepted.messages);
        state.accepted = Place { bytes: account.accepted, messages: account.messages };
        state.limit = state.limit.max(account.limit);
        if let Some(limits) = &account.limits {
            let limits = ChannelLimits::from_account(&self.core.config.name, limits);
            state.peer_most = limits.max_length();
            state.peer_most_is_old = false;
            state.pace.change(self.core.config.rate.and(limits.rate), 1.0, now);
        }
        while let Some((ends, _)) = state.begun.front()
            && *ends <= account.accepted
            && let Some((_, reply)) = state.begun.pop_front()
        {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Verdict::Delivered);
        }
        self.release(&mut state);
        let (idle, finishing) = (std::mem::take(&mut state.idle), state.finishing);
        drop(state);
        self.core.counts.delivered.fetch_add(messages, Ordering::Relaxed);
        if idle {
            self.work.notify_one();
        }
        if finishing {
            self.changed.notify_waiters();
        }
        Ok(more as usize)
    }

    /// Waits until the peer has accepted all that was sent, or the end.
    pub(crate) async fn all_accepted(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.lock();
                if state.accepted.bytes == state.sent.bytes || matches!(state.phase, Phase::Ended(_)) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Bytes that are on their way to a peer that confirms what it takes.
    pub(crate) fn in_flight(&self) -> usize {
        let state = self.lock();
        if self.credit { (state.sent.bytes - state.accepted.bytes) as usize } else { 0 }
    }

    /// The channel's name.
    pub(crate) fn name(&self) -> &str {
        &self.core.config.name
    }

    /// Whom it is for.
    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Whether the peer confirms what it takes.
    pub(crate) fn confirms(&self) -> bool {
        self.credit
    }

    /// Whether it belongs to this channel.
    pub(crate) fn is_of(&self, core: &Arc<ChannelCore>) -> bool {
        Arc::ptr_eq(&self.core, core)
    }

    /// Nothing more will be taken in or begun. How many messages are lost by it: those that wait.
    ///
    /// What was begun is for the writer to settle, who alone knows how much the connection took.
    pub(crate) fn end(&self, error: &SendError, by: EndedBy) -> u64 {
        let mut state = self.lock();
        if let Phase::Ended(_) = state.phase {
            return 0;
        }
        state.phase = Phase::Ended(Box::new(error.clone()));
        let queue = std::mem::take(&mut state.queue);
        for (_, reply) in state.queued.drain(..) {
            let _ = reply.send(match by {
                EndedBy::Peer => Verdict::Refused(error.clone()),
                EndedBy::Break => Verdict::Lost(error.clone()),
            });
        }
        self.release(&mut state);
        drop(state);
        let lost = queue.messages() as u64;
        self.count_lost(lost, by);
        self.room.notify_one();
        self.work.notify_one();
        self.changed.notify_waiters();
        lost
    }

    /// Waits for [`Outbox::end`]: why it ended.
    pub(crate) async fn ended(&self) -> SendError {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Phase::Ended(error) = &self.lock().phase {
                return SendError::clone(error);
            }
            changed.await;
        }
    }

    /// For the writer, at its end, after [`Outbox::end`]: what becomes of the messages that were begun.
    pub(crate) fn settle(&self, error: &SendError, by: EndedBy) -> Left {
        let mut state = self.lock();
        let written = state.written;
        for (ends, reply) in state.begun.drain(..) {
            let _ = reply.send(match by {
                EndedBy::Peer => Verdict::Refused(error.clone()),
                EndedBy::Break if ends > written.bytes => Verdict::Lost(error.clone()),
                EndedBy::Break => Verdict::Unknown(error.clone()),
            });
        }
        let never = state.sent.messages - written.messages;
        // The peer may account for a write that was not finished here.
        let unconfirmed = written.messages.saturating_sub(state.accepted.messages);
        let unconfirmed = if self.credit { unconfirmed } else { 0 };
        let left = match by {
            EndedBy::Peer => Left { lost: never + unconfirmed, unknown: 0 },
            EndedBy::Break => Left { lost: never, unknown: unconfirmed },
        };
        // Nothing is held any more; less always succeeds.
        let _ = state.memory.resize(0);
        (state.sent, state.written) = (state.accepted, state.accepted);
        drop(state);
        self.count_lost(left.lost, by);
        self.core.counts.unknown.fetch_add(left.unknown, Ordering::Relaxed);
        left
    }

    fn count_lost(&self, messages: u64, by: EndedBy) {
        let counts = &self.core.counts;
        let count = if by == EndedBy::Peer { &counts.rejected } else { &counts.lost };
        count.fetch_add(messages, Ordering::Relaxed);
    }

    /// How full it is.
    pub(crate) fn levels(&self) -> Levels {
        let state = self.lock();
        let (messages, bytes) = (state.queue.messages(), state.queue.bytes());
        let of_messages = messages as f64 / self.core.config.send_queue_messages as f64;
        Levels {
            queued_messages: messages,
            queued_bytes: bytes,
            fullness: of_messages.max(bytes as f64 / self.most_bytes as f64),
            in_flight_bytes: (state.sent.bytes - state.accepted.bytes) as usize * usize::from(self.credit),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How full an outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Levels {
    pub(crate) queued_messages: usize,
    pub(crate) queued_bytes: usize,
    /// The part of its bound that is taken, in bytes or in messages, whichever is more.
    pub(crate) fullness: f64,
    pub(crate) in_flight_bytes: usize,
}

/// Counts a sender that waits for room, until it has it or gives up.
struct Waiting<'a>(&'a Outbox);

impl<'a> Waiting<'a> {
    fn new(outbox: &'a Outbox) -> Self {
        outbox.lock().waiting += 1;
        Self(outbox)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
        // The next one may fit where this one did not.
        self.0.room.notify_one();
    }
}

/// The bytes of all channels that are on their way to one peer. They stay below the connection's send window, so that what is written on
/// another stream never waits for them.
#[derive(Debug)]
pub(crate) struct Flight {
    most: usize,
    used: AtomicUsize,
    pub(crate) freed: Notify,
}

impl Flight {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, used: AtomicUsize::new(0), freed: Notify::new() }
    }

    pub(crate) fn room(&self) -> usize {
        self.most.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
