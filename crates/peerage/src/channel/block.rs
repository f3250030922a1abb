//! Messages that are broadcast one after the other, held once for all their peers.
//!
//! A payload that is queued by itself is a piece of its own in each stream, and QUIC looks through all pieces that are not yet acknowledged for each
//! packet: many small ones are dear. So small messages are framed one behind the other in a block, of which each peer's queue has a range, and ranges
//! that follow on each other are one piece. A block is open until its bytes are first wanted; then it is shut, and the next message begins another one.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use peerage_wire::uvarint;

use super::Raw;
use super::queue::{MIN_SHARED, MIN_WHOLE, Queue};

/// The most bytes of messages in one block.
pub(crate) const MAX_BLOCK: usize = 32 * 1024;

/// Where a channel's next broadcast goes to.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Mutex<Weak<Block>>);

impl Blocks {
    /// The form in which a message is queued to several peers.
    pub(crate) fn share(&self, payload: Bytes) -> ToMany {
        if !(MIN_SHARED..MIN_WHOLE).contains(&payload.len()) {
            return ToMany::Raw(Raw(payload));
        }
        let mut current = lock(&self.0);
        let added = current.upgrade().and_then(|block| block.add(&payload).map(|at| (block, at)));
        let (block, at) = added.unwrap_or_else(|| {
            let (block, at) = Block::of(&payload);
            *current = Arc::downgrade(&block);
            (block, at)
        });
        ToMany::Part(Part { block, at, length: payload.len() })
    }
}

/// A message as it is queued to several peers.
#[derive(Debug)]
pub(crate) enum ToMany {
    /// Copied for each of them when it is small; the payload itself when it is large.
    Raw(Raw),
    /// A part of a block.
    Part(Part),
}

impl ToMany {
    /// The payload's length.
    pub(crate) fn length(&self) -> usize {
        match self {
            ToMany::Raw(raw) => raw.0.len(),
            ToMany::Part(part) => part.length,
        }
    }

    pub(crate) fn put(&self, queue: &mut Queue) {
        match self {
            ToMany::Raw(raw) => queue.push(raw),
            ToMany::Part(part) => queue.push_part(part),
        }
    }
}

/// One message of a block.
#[derive(Debug)]
pub(crate) struct Part {
    pub(super) block: Arc<Block>,
    /// Where it stands, its length in front.
    pub(super) at: Range<usize>,
    length: usize,
}

/// Framed messages.
#[derive(Debug)]
pub(crate) struct Block(Mutex<State>);

#[derive(Debug)]
enum State {
    Open(BytesMut),
    Shut(Bytes),
}

impl Block {
    /// One with a first message.
    fn of(payload: &[u8]) -> (Arc<Self>, Range<usize>) {
        let mut bytes = BytesMut::with_capacity(Queue::framed(payload.len()));
        put(payload, &mut bytes);
        let at = 0..bytes.len();
        (Arc::new(Self(Mutex::new(State::Open(bytes)))), at)
    }

    /// Adds a message: where it stands. `None` when the block is shut, or has no room.
    fn add(&self, payload: &[u8]) -> Option<Range<usize>> {
        let State::Open(bytes) = &mut *lock(&self.0) else { return None };
        let start = bytes.len();
        if start + Queue::framed(payload.len()) > MAX_BLOCK {
            return None;
        }
        put(payload, bytes);
        Some(start..bytes.len())
    }

    /// A range of its bytes, for one of the queues. It is shut from now on. Whoever wants less than half of it gets a copy, so that it keeps no more than
    /// twice what is accounted for.
    pub(super) fn slice(&self, at: Range<usize>) -> Bytes {
        let mut state = lock(&self.0);
        if let State::Open(bytes) = &mut *state {
            let bytes = std::mem::take(bytes);
            let roomy = bytes.capacity() > bytes.len() + bytes.len() / 4;
            *state = State::Shut(if roomy { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() });
        }
        let State::Shut(bytes) = &*state else { return Bytes::new() };
        if 2 * at.len() < bytes.len() { Bytes::copy_from_slice(&bytes[at]) } else { bytes.slice(at) }
    }

    /// A copy of a message in it, behind what is there.
    pub(super) fn copy(&self, at: Range<usize>, out: &mut BytesMut) {
        match &*lock(&self.0) {
            State::Open(bytes) => out.extend_from_slice(&bytes[at]),
            State::Shut(bytes) => out.extend_from_slice(&bytes[at]),
        }
    }
}

fn put(payload: &[u8], out: &mut BytesMut) {
    uvarint::put(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(number: u8) -> Bytes {
        Bytes::from(vec![number; MIN_SHARED])
    }

    fn taken(queue: &mut Queue) -> Vec<Bytes> {
        let mut out = Vec::new();
        queue.take(usize::MAX, usize::MAX, &mut out);
        out
    }

    #[test]
    fn messages_that_several_queues_hold_leave_in_one_piece_that_is_there_once() {
        let (blocks, mut queues) = (Blocks::default(), [Queue::default(), Queue::default()]);
        for number in 0..3 {
            let message = blocks.share(payload(number));
            queues.iter_mut().for_each(|queue| message.put(queue));
        }
        let [first, second] = queues.each_mut().map(taken);
        assert_eq!((first.len(), first[0].len()), (1, 3 * Queue::framed(MIN_SHARED)));
        assert_eq!(first[0].as_ptr(), second[0].as_ptr());
        assert_eq!(first, second);
    }

    #[test]
    fn a_block_that_a_queue_has_taken_from_or_that_is_full_gets_no_more_messages() {
        let (blocks, mut queue) = (Blocks::default(), Queue::default());
        for number in 0..2 {
            blocks.share(payload(number)).put(&mut queue);
            assert_eq!(taken(&mut queue).concat()[2..], payload(number));
        }
        for number in 0..100 {
            blocks.share(payload(number)).put(&mut queue);
        }
        let pieces = taken(&mut queue);
        // What stands behind finished pieces is left alone: more may follow on it.
        assert!(
            pieces.iter().all(|piece| piece.len() <= MAX_BLOCK && 2 * piece.len() > MAX_BLOCK),
            "{pieces:?}"
        );
        let rest = taken(&mut queue);
        assert_eq!((pieces.len(), rest.len()), (3, 1));
        assert_eq!([pieces, rest].concat().concat().len(), 100 * Queue::framed(MIN_SHARED));
    }

    #[test]
    fn who_misses_messages_of_a_block_keeps_no_more_than_twice_what_it_holds() {
        let (blocks, mut all, mut some) = (Blocks::default(), Queue::default(), Queue::default());
        for number in 0..62 {
            let message = blocks.share(payload(number));
            message.put(&mut all);
            if number % 31 < 2 || number % 31 == 30 {
                message.put(&mut some);
            }
        }
        let pieces = [taken(&mut all), taken(&mut all)].concat();
        let kept = [taken(&mut some), taken(&mut some)].concat();
        let numbers: Vec<u8> =
            kept.concat().chunks(Queue::framed(MIN_SHARED)).map(|message| message[2]).collect();
        assert_eq!(numbers, [0, 1, 30, 31, 32, 61]);
        let within =
            |piece: &Bytes| pieces.iter().any(|block| block.as_ptr_range().contains(&piece.as_ptr()));
        assert!(!kept.iter().any(within), "a small part keeps a whole block");
    }
}
