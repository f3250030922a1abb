//! What waits to be sent to one peer on one channel, what is on its way, and who waits to hear of it.
//!
//! Senders put messages into a [`Queue`]; the writer takes what the peer's credit, the connection's share and the channel's rate let pass.
//! Places in the stream are counted in bytes, as the peer's accounts do: a message is delivered when the peer has accepted the byte at
//! which it ends.

mod leaving;
mod sending;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Context;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::Now;
use peerage_wire::uvarint;
use tokio::sync::{Notify, Semaphore};

use super::ChannelCore;
use super::limits::ChannelLimits;
use super::pace::Pace;
use super::queue::{Queue, Taken};
use super::verdict::{Reply, Verdict};
use crate::bell::Bell;
use crate::clock::Clock;
use crate::error::SendError;
use crate::memory::{Budgets, Reservation};
use crate::shift::Shift;

pub(crate) use sending::{MAX_MEMORY_PAUSE, Offered};

/// Bytes that may be sent before the peer's first account (proto/channel.proto).
pub(crate) const FIRST_CREDIT: u64 = 16 * 1024;

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
    work: Bell,
    /// The writer, for whoever sends a lone message, and the time.
    writer: OnceLock<(Arc<Shift>, Clock)>,
    /// [`Outbox::end`] was called.
    over: AtomicBool,
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
    /// When all that was queued was last written.
    idle_since: Duration,
    /// Something was taken to be written since then.
    writing: bool,
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
            idle_since: Duration::ZERO,
            writing: false,
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
            work: Bell::default(),
            writer: OnceLock::new(),
            over: AtomicBool::new(false),
            room: Notify::new(),
            turn: Semaphore::new(1),
            changed: Notify::new(),
        })
    }

    /// Senders of lone messages may run this writer.
    pub(crate) fn set_writer(&self, writer: Arc<Shift>, clock: Clock) {
        let _ = self.writer.set((writer, clock));
    }

    /// Has the writer's task look at what there is to do. A receiver that waits stands in only where the connection wakes it.
    fn call_writer(&self) {
        match self.writer.get() {
            Some((writer, _)) => {
                self.work.mark();
                writer.call_task();
            }
            None => self.work.ring(),
        }
    }

    /// Waits until the peer has said that it has the channel.
    pub(crate) async fn opened(&self) -> Result<(), SendError> {
        self.once(|state| match &state.phase {
            Phase::Opening => None,
            Phase::Open => Some(Ok(())),
            Phase::Ended(error) => Some(Err(SendError::clone(error))),
        })
        .await
    }

    /// Waits until something, if only the channel's name, is to leave on the stream.
    pub(crate) async fn begun(&self) {
        self.once(|state| (state.proposed || state.sent.bytes > 0).then_some(())).await;
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
        self.over.load(Ordering::Acquire)
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
        self.call_writer();
    }

    /// Waits until the peer has accepted all that was sent, or the end.
    pub(crate) async fn all_accepted(&self) {
        let is_over = |state: &State| {
            state.accepted.bytes == state.sent.bytes || matches!(state.phase, Phase::Ended(_))
        };
        self.once(|state| is_over(state).then_some(())).await;
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
        self.over.store(true, Ordering::Release);
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
        self.call_writer();
        self.changed.notify_waiters();
        lost
    }

    /// For the writer's task: it is woken when there may be work for it, and at the end. What happened before shows in [`Outbox::has_work`] and
    /// [`Outbox::end_cause`] when they are asked afterwards.
    pub(crate) fn wake_writer(&self, cx: &Context<'_>) {
        self.work.listen(cx);
    }

    /// For the writer: whether there may be work since it last asked.
    pub(crate) fn has_work(&self) -> bool {
        self.work.was_rung()
    }

    /// For the writer: why [`Outbox::end`] was called, if it was.
    pub(crate) fn end_cause(&self) -> Option<SendError> {
        if !self.over.load(Ordering::Acquire) {
            return None;
        }
        match &self.lock().phase {
            Phase::Ended(error) => Some(SendError::clone(error)),
            _ => None,
        }
    }

    /// Waits until a look at the state finds something; it is looked at again whenever [`Outbox::changed`] tells of news.
    async fn once<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = look(&self.lock());
            if let Some(found) = found {
                return found;
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
mod tests;
