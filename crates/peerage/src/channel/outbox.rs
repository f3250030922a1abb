//! What waits to be sent to one peer on one channel.
//!
//! A sender encodes its message straight into the buffer that the writer will take, so a small message costs no allocation and no
//! task hop. Messages that queue while one write is under way leave together, at most [`MAX_BATCH`] at once: many small writes on
//! a QUIC stream are slow, few large ones are not. A lone message leaves at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{BufMut, Bytes, BytesMut};
use peerage_wire::uvarint;
use tokio::sync::{Notify, Semaphore};

use super::ChannelConfig;
use crate::error::SendError;
use crate::watch;

/// The most bytes that one write joins.
pub(crate) const MAX_BATCH: usize = 32 * 1024;
/// A payload of this size or more is handed on as it is instead of being copied behind others.
const MIN_WHOLE: usize = 8 * 1024;

/// How far the stream behind an outbox is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The peer has not answered yet whether it has the channel.
    Opening,
    /// It has.
    Open,
    /// No more can be sent.
    Ended(SendError),
}

/// A bounded queue of encoded messages, with one writer.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    work: Notify,
    /// One permit for each byte that may be queued.
    space: Semaphore,
    capacity: u32,
    min_cost: usize,
    readiness: watch::Sender<Readiness>,
}

#[derive(Debug, Default)]
struct State {
    /// Finished pieces, in order.
    pieces: VecDeque<Bytes>,
    /// Small messages that came after the last piece.
    tail: BytesMut,
    /// Cost of what is in `pieces` and `tail`, for giving back.
    cost: usize,
    messages: u64,
    /// Messages that are queued, or taken and not yet written.
    unwritten: u64,
    /// No more messages are taken in; the writer ends when all are written.
    finishing: bool,
}

/// What the writer takes at once.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) messages: u64,
    cost: usize,
}

impl Outbox {
    pub(crate) fn new(config: &ChannelConfig) -> Arc<Self> {
        let capacity = config.send_queue_cost();
        Arc::new(Self {
            state: Mutex::default(),
            work: Notify::new(),
            space: Semaphore::new(capacity as usize),
            capacity,
            min_cost: config.min_cost(config.send_queue_bytes, config.send_queue_messages),
            readiness: watch::Sender::new(Readiness::Opening),
        })
    }

    /// Queues a message of `length` bytes that `encode` writes, if there is room now.
    pub(crate) fn try_push(
        &self,
        length: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<(), SendError> {
        let cost = self.room_now(length)?;
        self.append(length, cost, encode);
        Ok(())
    }

    /// Queues a message, waiting for room. Senders get it in the order in which they came.
    pub(crate) async fn push(
        &self,
        length: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<(), SendError> {
        let cost = self.room(length).await?;
        self.append(length, cost, encode);
        Ok(())
    }

    /// Queues a payload that is already in a buffer, waiting for room: a large one without a copy.
    pub(crate) async fn push_bytes(&self, payload: &Bytes) -> Result<(), SendError> {
        let cost = self.room(payload.len()).await?;
        self.append_bytes(payload, cost);
        Ok(())
    }

    /// Queues a payload that is already in a buffer, if there is room now.
    pub(crate) fn try_push_bytes(&self, payload: &Bytes) -> Result<(), SendError> {
        let cost = self.room_now(payload.len())?;
        self.append_bytes(payload, cost);
        Ok(())
    }

    /// Waits until the peer has said that it has the channel.
    pub(crate) async fn opened(&self) -> Result<(), SendError> {
        if *self.readiness.borrow() == Readiness::Open {
            return Ok(());
        }
        let mut readiness = self.readiness.subscribe();
        let settled = readiness.wait_for(|now| *now != Readiness::Opening).await;
        match settled {
            Ok(Readiness::Ended(error)) => Err(error),
            Ok(_) => Ok(()),
            Err(_) => Err(SendError::Closed),
        }
    }

    /// The peer has the channel.
    pub(crate) fn set_open(&self) {
        self.readiness.send_replace(Readiness::Open);
    }

    /// Nothing more will be sent. How many messages are lost.
    pub(crate) fn end(&self, error: SendError) -> u64 {
        self.readiness.send_modify(|now| {
            // The first to end it says why.
            if !matches!(now, Readiness::Ended(_)) {
                *now = Readiness::Ended(error);
            }
        });
        self.space.close();
        let lost = std::mem::take(&mut *self.lock());
        self.work.notify_one();
        lost.messages
    }

    /// Whether [`Outbox::end`] was called.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(*self.readiness.borrow(), Readiness::Ended(_))
    }

    /// How many messages are not yet handed to the connection.
    pub(crate) fn queued(&self) -> u64 {
        self.lock().unwritten
    }

    /// Takes in no more messages; the writer sends what there is, and ends.
    pub(crate) fn finish(&self) {
        self.lock().finishing = true;
        self.space.close();
        self.work.notify_one();
    }

    /// For the writer: waits for messages and takes all of them. `None` after [`Outbox::end`], or when all is written after
    /// [`Outbox::finish`].
    pub(crate) async fn next_batch(&self) -> Option<Batch> {
        loop {
            if let Some(batch) = self.take_batch() {
                return Some(batch);
            }
            if self.has_ended() || self.lock().finishing {
                return None;
            }
            self.work.notified().await;
        }
    }

    /// For the writer: a batch has been handed to the connection, so its room is free.
    pub(crate) fn written(&self, batch: &Batch) {
        let mut state = self.lock();
        // Zero already when the outbox has ended meanwhile.
        state.unwritten = state.unwritten.saturating_sub(batch.messages);
        if state.messages == 0 {
            // The rest of the buffer would be kept as long as the connection is quiet.
            state.tail = BytesMut::new();
        }
        drop(state);
        self.space.add_permits(batch.cost);
    }

    fn take_batch(&self) -> Option<Batch> {
        let mut state = self.lock();
        if state.messages == 0 {
            return None;
        }
        // Everything that is queued goes at once: the queue's own bound limits it, and the pieces are handed over without a copy.
        let mut pieces: Vec<Bytes> = std::mem::take(&mut state.pieces).into();
        let tail = state.tail.split();
        if !tail.is_empty() {
            pieces.push(tail.freeze());
        }
        let cost = std::mem::take(&mut state.cost);
        let messages = std::mem::take(&mut state.messages);
        Some(Batch { pieces, messages, cost })
    }

    fn append(&self, length: usize, cost: u32, encode: impl FnOnce(&mut BytesMut)) {
        let framed = uvarint::len(length as u64) + length;
        let mut state = self.lock();
        if state.tail.len() + framed > MAX_BATCH && !state.tail.is_empty() {
            let full = state.tail.split().freeze();
            state.pieces.push_back(full);
        }
        if state.tail.capacity() - state.tail.len() < framed {
            let more = framed.max(MAX_BATCH.min(4 * state.tail.capacity().max(256)));
            state.tail.reserve(more);
        }
        uvarint::put(length as u64, &mut state.tail);
        encode(&mut state.tail);
        state.messages += 1;
        state.unwritten += 1;
        state.cost += cost as usize;
        drop(state);
        self.work.notify_one();
    }

    fn append_bytes(&self, payload: &Bytes, cost: u32) {
        if payload.len() < MIN_WHOLE {
            return self.append(payload.len(), cost, |out| out.put_slice(payload));
        }
        let mut state = self.lock();
        uvarint::put(payload.len() as u64, &mut state.tail);
        let before = state.tail.split().freeze();
        state.pieces.push_back(before);
        state.pieces.push_back(payload.clone());
        state.messages += 1;
        state.unwritten += 1;
        state.cost += cost as usize;
        drop(state);
        self.work.notify_one();
    }

    async fn room(&self, length: usize) -> Result<u32, SendError> {
        self.check()?;
        let cost = self.cost(length);
        match self.space.acquire_many(cost).await {
            Ok(permits) => permits.forget(),
            Err(_) => return Err(self.check().err().unwrap_or(SendError::Closed)),
        }
        Ok(cost)
    }

    fn room_now(&self, length: usize) -> Result<u32, SendError> {
        self.check()?;
        let cost = self.cost(length);
        match self.space.try_acquire_many(cost) {
            Ok(permits) => permits.forget(),
            Err(_) => return Err(self.check().err().unwrap_or(SendError::QueueFull)),
        }
        Ok(cost)
    }

    /// The permits that a message of `length` bytes takes: its bytes, but at least so many that the bound in messages holds too.
    fn cost(&self, length: usize) -> u32 {
        u32::try_from(length.max(self.min_cost)).unwrap_or(u32::MAX).min(self.capacity)
    }

    fn check(&self) -> Result<(), SendError> {
        match &*self.readiness.borrow() {
            Readiness::Ended(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ChannelConfig {
        let mut config = ChannelConfig::new("/test/1");
        config.send_queue_bytes = 1000;
        config.send_queue_messages = 10;
        config
    }

    fn joined(batch: &Batch) -> Vec<u8> {
        batch.pieces.concat()
    }

    #[tokio::test]
    async fn messages_that_queue_leave_together_and_in_order() {
        let outbox = Outbox::new(&config());
        for text in [&b"one"[..], b"two", b"three"] {
            outbox.push_bytes(&Bytes::from_static(text)).await.unwrap();
        }
        let batch = outbox.next_batch().await.unwrap();
        assert_eq!(joined(&batch), b"\x03one\x03two\x05three");
        assert_eq!((batch.messages, batch.pieces.len()), (3, 1));
    }

    #[tokio::test]
    async fn a_large_payload_is_not_copied() {
        let mut config = config();
        config.send_queue_bytes = 100_000;
        let outbox = Outbox::new(&config);
        let payload = Bytes::from(vec![7; MIN_WHOLE]);
        outbox.push_bytes(&payload).await.unwrap();
        let batch = outbox.next_batch().await.unwrap();
        assert_eq!(batch.pieces[1].as_ptr(), payload.as_ptr());
        assert_eq!(batch.pieces[0].len() + batch.pieces[1].len(), MIN_WHOLE + 2);
    }

    #[tokio::test]
    async fn the_bounds_in_bytes_and_in_messages_hold_and_writing_frees_room() {
        let outbox = Outbox::new(&config());
        for _ in 0..10 {
            outbox.try_push_bytes(&Bytes::from_static(b"x")).unwrap();
        }
        assert_eq!(outbox.try_push_bytes(&Bytes::from_static(b"x")), Err(SendError::QueueFull));
        let batch = outbox.next_batch().await.unwrap();
        assert_eq!(outbox.try_push_bytes(&Bytes::from_static(b"x")), Err(SendError::QueueFull));
        outbox.written(&batch);
        outbox.try_push_bytes(&Bytes::from(vec![0; 900])).unwrap();
        assert_eq!(outbox.try_push_bytes(&Bytes::from(vec![0; 101])), Err(SendError::QueueFull));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_sender_learns_of_the_end() {
        let outbox = Outbox::new(&config());
        outbox.try_push_bytes(&Bytes::from(vec![0; 1000])).unwrap();
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.push_bytes(&Bytes::from_static(b"late")).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(outbox.end(SendError::Closed), 1);
        assert_eq!(waiting.await.unwrap(), Err(SendError::Closed));
        assert!(outbox.next_batch().await.is_none());
    }
}
