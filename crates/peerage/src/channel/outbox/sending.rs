//! The side of whoever sends: a message is taken in, waits for its turn, for room and for memory, or is refused.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::Payload;
use super::super::block::ToMany;
use super::super::config::Overflow;
use super::super::queue::Queue;
use super::super::verdict::{Reply, Verdict};
use super::{Outbox, Phase, State};
use crate::clock::Clock;
use crate::error::SendError;

/// Whoever waits for memory that others hold tries again after a pause, which doubles from the first to the longest: woken by each byte that
/// becomes free, those who wait would cost those who go on.
const MEMORY_PAUSE: Duration = Duration::from_millis(1);
pub(crate) const MAX_MEMORY_PAUSE: Duration = Duration::from_millis(64);
/// A message is a lone one when all before it was written so long ago: longer than it takes to queue some dozens, and less than a round trip.
const LONE_AFTER: Duration = Duration::from_micros(10);
/// A reservation this much beyond twice its use is made smaller.
const MAX_SLACK: usize = 128 * 1024;

/// How a message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Alone,
    /// Its sender has waited for room, so it is one of many.
    InTurn,
    /// To several peers at once, whose writers take turns.
    Shared,
}

/// What became of a message at once. It fits into two registers, which a `Result` of the same would not.
#[derive(Debug)]
pub(crate) enum Offered {
    /// Taken in, and the peer is known to have the channel.
    Open,
    /// Taken in, and that is not known yet.
    Opening,
    /// Boxed: it is large, and most messages pass.
    Refused(Box<SendError>),
}

impl Offered {
    /// Whether the peer is known to have the channel, or why the message was not taken in.
    fn settled(self) -> Result<bool, Box<SendError>> {
        match self {
            Self::Open => Ok(true),
            Self::Opening => Ok(false),
            Self::Refused(refusal) => Err(refusal),
        }
    }
}

impl Outbox {
    /// Queues a message as the channel's policy says. Whoever waits for room gets it in the order in which they came. True when the
    /// peer is known to have the channel.
    pub(crate) async fn push(&self, message: &impl Payload, reply: Option<Reply>) -> Result<bool, SendError> {
        let mut reply = reply;
        match self.push_now(message, &mut reply).settled() {
            Ok(open) => Ok(open),
            Err(refusal) => self.push_refused(message, reply, refusal).await,
        }
    }

    /// Queues a message if that can be done at once. `reply` is kept when it was refused, for [`Outbox::push_refused`].
    pub(crate) fn push_now(&self, message: &impl Payload, reply: &mut Option<Reply>) -> Offered {
        self.offer(message.length(), |queue| queue.push(message), reply, Manner::Alone)
    }

    /// Goes on with a message that was refused at once, as [`Outbox::push`] does.
    pub(crate) async fn push_refused(
        &self,
        message: &impl Payload,
        reply: Option<Reply>,
        refusal: Box<SendError>,
    ) -> Result<bool, SendError> {
        let is_unsure = matches!(*refusal, SendError::TooLarge { .. }) && self.is_unsure_of(message.length());
        if !is_unsure && !self.waits_after(&refusal, message.length()) {
            return Err(*refusal);
        }
        // Boxed, so that a send that need not wait is no larger than what it does.
        Box::pin(self.push_later(message, reply)).await
    }

    /// The same for a message that could not be taken in at once.
    async fn push_later(&self, message: &impl Payload, mut reply: Option<Reply>) -> Result<bool, SendError> {
        let mut short = None;
        // One patience for all: for the peer's bound, for room, and for memory.
        let waiting = async {
            if self.is_unsure_of(message.length()) {
                self.want_open();
                self.opened().await?;
                match self.offer_one(message, &mut reply, Manner::Alone) {
                    Err(refusal) if self.waits_after(&refusal, message.length()) => {}
                    settled => return settled.map_err(|refusal| *refusal),
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
        self.asking_on(self.offer_one(message, &mut { reply }, Manner::Alone))
    }

    /// The same for a message that the queues to several peers share.
    pub(crate) fn try_push_shared(&self, message: &ToMany, reply: Option<Reply>) -> Result<bool, SendError> {
        let put = |queue: &mut Queue| message.put(queue);
        self.asking_on(self.offer(message.length(), put, &mut { reply }, Manner::Shared).settled())
    }

    /// Has the peer's bound found out where it was exceeded.
    fn asking_on(&self, settled: Result<bool, Box<SendError>>) -> Result<bool, SendError> {
        settled.map_err(|refusal| {
            if let SendError::TooLarge { .. } = *refusal {
                self.want_open();
            }
            *refusal
        })
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
            match self.offer_one(message, reply, Manner::InTurn) {
                Err(refusal) if *refusal == SendError::QueueFull => {
                    *short = None;
                    room.await;
                }
                Err(refusal) if self.waits_after(&refusal, message.length()) => {
                    *short = Some(*refusal);
                    let _ = tokio::time::timeout(pause, room).await;
                    pause = (2 * pause).min(MAX_MEMORY_PAUSE);
                }
                settled => return settled.map_err(|refusal| *refusal),
            }
        }
    }

    /// Takes in a message that goes to this peer only.
    fn offer_one(
        &self,
        message: &impl Payload,
        reply: &mut Option<Reply>,
        manner: Manner,
    ) -> Result<bool, Box<SendError>> {
        self.offer(message.length(), |queue| queue.push(message), reply, manner).settled()
    }

    /// Takes a message of such a length in, which `put` queues, unless there is no room or others wait for it already.
    fn offer(
        &self,
        length: usize,
        put: impl FnOnce(&mut Queue),
        reply: &mut Option<Reply>,
        manner: Manner,
    ) -> Offered {
        let framed = Queue::framed(length);
        let mut state = self.lock();
        if let Some(refusal) = self.refusal(&mut state, length, framed, manner) {
            return Offered::Refused(refusal);
        }
        put(&mut state.queue);
        if let Some(reply) = reply.take() {
            let ends = state.sent.bytes + state.queue.bytes() as u64 + state.dropped;
            state.queued.push_back((ends, reply));
        }
        let (idle, open) = (std::mem::take(&mut state.idle), state.phase == Phase::Open);
        let (idle_since, first) = (state.idle_since, state.queue.bytes() == framed);
        drop(state);
        if idle && open && first && manner == Manner::Alone {
            self.write_lone(idle_since);
        } else if idle {
            self.call_writer();
        }
        if open { Offered::Open } else { Offered::Opening }
    }

    /// Why a message may not be queued; or it has room and memory then.
    #[inline]
    fn refusal(
        &self,
        state: &mut State,
        length: usize,
        framed: usize,
        manner: Manner,
    ) -> Option<Box<SendError>> {
        if (state.phase != Phase::Open || state.finishing || length > state.peer_most)
            && let Err(refusal) = self.may_queue(state, length)
        {
            return Some(refusal);
        }
        if self.core.config.overflow == Overflow::DropOldest {
            return self.make_room(state, framed).err();
        }
        if !self.has_room(state, framed) || (state.waiting > 0 && manner != Manner::InTurn) {
            return Some(Box::new(SendError::QueueFull));
        }
        self.reserve(state, framed).err()
    }

    /// For a sender that found the writer idle: a lone message leaves at once, and wakes no task but the connection's. Of many in a row each would be
    /// written for itself.
    fn write_lone(&self, idle_since: Duration) {
        let is_lone = |clock: &Clock| clock.now().mono.saturating_sub(idle_since) >= LONE_AFTER;
        match self.writer.get() {
            Some((writer, clock)) if is_lone(clock) => {
                self.work.mark();
                writer.run();
            }
            _ => self.call_writer(),
        }
    }

    /// Whether a message of such a length may be queued, in a stream that need not be open.
    fn may_queue(&self, state: &State, length: usize) -> Result<(), Box<SendError>> {
        match &state.phase {
            Phase::Ended(error) => Err(error.clone()),
            _ if state.finishing => Err(Box::new(SendError::Closed)),
            _ if length > state.peer_most => Err(Box::new(self.too_large(length, state.peer_most))),
            _ => Ok(()),
        }
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
    fn make_room(&self, state: &mut State, framed: usize) -> Result<(), Box<SendError>> {
        let begun = state.queue.rest();
        let kept = self.held(state) - (state.queue.bytes() - begun);
        if kept + framed > state.memory.bytes() {
            state.memory.resize(kept + framed).map_err(SendError::from)?;
        }
        loop {
            let room = self.has_room_beside(state, framed, usize::from(begun > 0), begun);
            let error = if room {
                match self.reserve(state, framed) {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            } else {
                Box::new(SendError::QueueFull)
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
    fn reserve(&self, state: &mut State, framed: usize) -> Result<(), Box<SendError>> {
        let needed = self.held(state) + framed;
        if needed <= state.memory.bytes() {
            return Ok(());
        }
        Self::reserve_anew(state, needed)
    }

    #[cold]
    fn reserve_anew(state: &mut State, needed: usize) -> Result<(), Box<SendError>> {
        // Some more than needed, so that the accounts are not asked for every message.
        if state.memory.resize((2 * needed).max(4096)).is_ok() {
            return Ok(());
        }
        Ok(state.memory.resize(needed).map_err(SendError::from)?)
    }

    /// Gives back what is accounted for beyond need.
    pub(super) fn release(&self, state: &mut State) {
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
        self.call_writer();
    }

    fn too_large(&self, length: usize, most: usize) -> SendError {
        SendError::TooLarge { length, most, channel: self.core.config.name.clone(), at: Some(self.peer) }
    }

    /// How long whoever has queued one of many messages waits for the channel to be opened: for none of them long.
    pub(crate) fn short_patience(&self) -> Duration {
        self.patience().min(self.opening)
    }
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
