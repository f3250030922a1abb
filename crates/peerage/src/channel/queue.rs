//! Messages in the form in which they leave: each with its length in front, small ones joined.
//!
//! A sender encodes its message straight into the buffer that the writer will take, so a small message costs no allocation. The queue is cut
//! at any byte when it is taken, and at messages when the oldest is dropped: where messages begin is read off the lengths again, which only
//! happens when not all can be taken.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use peerage_wire::uvarint;

use super::Payload;

/// The most bytes of small messages that are joined to one piece: many small writes on a QUIC stream are slow, few large ones are not.
const MAX_JOINED: usize = 32 * 1024;
/// A payload of this size or more is handed on as it is instead of being copied behind others.
pub(crate) const MIN_WHOLE: usize = 8 * 1024;
/// The same for a payload that goes to several peers: shared, it is held once instead of once for each of them, which a write more is worth sooner.
pub(crate) const MIN_SHARED: usize = 1024;

/// A queue of framed messages.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Finished pieces, in order.
    pieces: VecDeque<Bytes>,
    /// Small messages that came after the last piece.
    tail: BytesMut,
    bytes: usize,
    /// Messages whose end is still here.
    messages: usize,
    /// Bytes at the front that belong to a message whose beginning was taken.
    rest: usize,
}

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    /// Messages that end in it.
    pub(crate) messages: usize,
    /// Bytes that a message that began before still had, of which as many as fit are at its front.
    pub(crate) rest: usize,
}

impl Queue {
    /// Framed bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages that wait, a partly taken one among them.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes up to the first message that was not begun.
    pub(crate) fn rest(&self) -> usize {
        self.rest
    }

    /// The bytes that a payload of `length` takes with its length in front.
    pub(crate) fn framed(length: usize) -> usize {
        uvarint::len(length as u64) + length
    }

    /// Adds a message; one of `whole_from` bytes or more that is already encoded is not copied.
    pub(crate) fn push(&mut self, message: &impl Payload, whole_from: usize) {
        let length = message.length();
        self.bytes += Self::framed(length);
        self.messages += 1;
        match message.as_bytes() {
            Some(payload) if length >= whole_from => {
                self.make_room(uvarint::MAX_LEN);
                uvarint::put(length as u64, &mut self.tail);
                self.finish_tail();
                self.pieces.push_back(payload.clone());
            }
            _ => {
                self.make_room(Self::framed(length));
                uvarint::put(length as u64, &mut self.tail);
                message.write(&mut self.tail);
            }
        }
    }

    /// Takes from the front at most so many bytes and so many messages' ends, the last message perhaps in part.
    pub(crate) fn take(&mut self, most_bytes: usize, most_messages: usize, out: &mut Vec<Bytes>) -> Taken {
        if self.bytes <= most_bytes && self.messages <= most_messages {
            let taken = Taken { bytes: self.bytes, messages: self.messages, rest: self.rest };
            out.extend(self.pieces.drain(..));
            if !self.tail.is_empty() {
                out.push(self.tail.split().freeze());
            }
            (self.bytes, self.messages, self.rest) = (0, 0, 0);
            return taken;
        }
        self.finish_tail();
        let (bytes, messages, rest) = self.measure(most_bytes, most_messages);
        let taken = Taken { bytes, messages, rest: self.rest };
        self.split_front(bytes, out);
        self.bytes -= bytes;
        self.messages -= messages;
        self.rest = rest;
        taken
    }

    /// Gives the buffer up when nothing waits: it would be kept as long as the connection is quiet.
    pub(crate) fn forget_buffer(&mut self) {
        if self.bytes == 0 {
            self.tail = BytesMut::new();
            self.pieces = VecDeque::new();
        }
    }

    /// Drops the oldest message of which nothing was taken yet: its framed bytes.
    pub(crate) fn drop_oldest(&mut self) -> Option<usize> {
        if self.messages <= usize::from(self.rest > 0) {
            return None;
        }
        self.finish_tail();
        let mut begun = Vec::new();
        self.split_front(self.rest, &mut begun);
        let (head, length) = self.head_at(0, 0)?;
        self.split_front(head + length, &mut Vec::new());
        begun.into_iter().rev().for_each(|piece| self.pieces.push_front(piece));
        self.bytes -= head + length;
        self.messages -= 1;
        Some(head + length)
    }

    /// How far a take may go: the bytes, the messages that end within, and what is left of the last one.
    fn measure(&self, most_bytes: usize, most_messages: usize) -> (usize, usize, usize) {
        if self.rest > most_bytes || (self.rest > 0 && most_messages == 0) {
            let bytes = if most_messages == 0 { 0 } else { most_bytes };
            return (bytes, 0, self.rest - bytes);
        }
        let (mut bytes, mut messages) = (self.rest, usize::from(self.rest > 0));
        let (mut piece, mut offset) = (0, 0);
        self.skip(&mut piece, &mut offset, self.rest);
        while messages < most_messages {
            let Some((head, length)) = self.head_at(piece, offset) else { break };
            if bytes + head + length > most_bytes {
                // Part of it goes now, but never part of its length.
                let part = most_bytes - bytes;
                return if part >= head {
                    (most_bytes, messages, head + length - part)
                } else {
                    (bytes, messages, 0)
                };
            }
            bytes += head + length;
            messages += 1;
            self.skip(&mut piece, &mut offset, head + length);
        }
        (bytes, messages, 0)
    }

    /// The message that begins at a place: the bytes of its length, and its length.
    fn head_at(&self, piece: usize, offset: usize) -> Option<(usize, usize)> {
        let bytes = self.pieces.get(piece)?.get(offset..)?;
        let (length, head) =
            uvarint::take(bytes).expect("the queue wrote it").expect("a length is in one piece");
        Some((head, length as usize))
    }

    fn skip(&self, piece: &mut usize, offset: &mut usize, mut bytes: usize) {
        while let Some(here) = self.pieces.get(*piece) {
            let left = here.len() - *offset;
            if bytes < left {
                *offset += bytes;
                return;
            }
            bytes -= left;
            (*piece, *offset) = (*piece + 1, 0);
        }
    }

    fn split_front(&mut self, mut bytes: usize, out: &mut Vec<Bytes>) {
        while bytes > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            if front.len() > bytes {
                out.push(front.split_to(bytes));
                return;
            }
            bytes -= front.len();
            out.extend(self.pieces.pop_front());
        }
    }

    fn finish_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn make_room(&mut self, more: usize) {
        if self.tail.len() + more > MAX_JOINED {
            self.finish_tail();
        }
        if self.tail.capacity() - self.tail.len() < more {
            self.tail.reserve(more.max(MAX_JOINED.min(4 * self.tail.capacity().max(256))));
        }
    }
}

/// How many messages end within the first `bytes` of what was taken.
pub(crate) fn ends_within(pieces: &[Bytes], taken: Taken, bytes: usize) -> usize {
    let mut queue = Queue {
        pieces: pieces.iter().cloned().collect(),
        bytes: taken.bytes,
        messages: usize::MAX,
        rest: taken.rest,
        ..Queue::default()
    };
    queue.take(bytes, usize::MAX - 1, &mut Vec::new()).messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Raw;
    use proptest::prelude::*;

    fn raw(bytes: Vec<u8>) -> Raw {
        Raw(Bytes::from(bytes))
    }

    #[test]
    fn messages_that_queue_leave_together_and_in_order() {
        let mut queue = Queue::default();
        for text in ["one", "two", "three"] {
            queue.push(&raw(text.into()), MIN_WHOLE);
        }
        let mut out = Vec::new();
        let taken = queue.take(usize::MAX, usize::MAX, &mut out);
        assert_eq!(taken, Taken { bytes: 14, messages: 3, rest: 0 });
        assert_eq!(out.concat(), b"\x03one\x03two\x05three");
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let mut queue = Queue::default();
        let payload = raw(vec![7; MIN_WHOLE]);
        queue.push(&payload, MIN_WHOLE);
        let mut out = Vec::new();
        queue.take(usize::MAX, usize::MAX, &mut out);
        assert_eq!(out[1].as_ptr(), payload.0.as_ptr());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Take(usize, usize),
        Drop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![0usize..300, MIN_WHOLE..MIN_WHOLE + 10].prop_map(Step::Push),
            3 => (0usize..9000, 0usize..9).prop_map(|(bytes, messages)| Step::Take(bytes, messages)),
            1 => Just(Step::Drop),
        ]
    }

    proptest! {
        /// What leaves is the messages that were not dropped, whole and in order, and the counts are true at every step.
        #[test]
        fn any_takes_and_drops_leave_whole_messages_in_order(steps in prop::collection::vec(step(), 0..60)) {
            let (mut queue, mut model, mut sent) = (Queue::default(), VecDeque::new(), Vec::new());
            let (mut left, mut ended, mut number) = (Vec::new(), 0, 0u8);
            for step in steps {
                match step {
                    Step::Push(length) => {
                        number = number.wrapping_add(1);
                        queue.push(&raw(vec![number; length]), MIN_WHOLE);
                        model.push_back(vec![number; length]);
                    }
                    Step::Take(bytes, messages) => {
                        let mut out = Vec::new();
                        let taken = queue.take(bytes, messages, &mut out);
                        prop_assert!(taken.bytes <= bytes && taken.messages <= messages);
                        prop_assert_eq!(taken.bytes, out.iter().map(Bytes::len).sum::<usize>());
                        prop_assert_eq!(ends_within(&out, taken, taken.bytes), taken.messages);
                        ended += taken.messages;
                        left.extend(out.concat());
                        let begun = ended + usize::from(queue.rest() > 0);
                        while sent.len() < begun {
                            sent.extend(model.pop_front());
                        }
                    }
                    Step::Drop => {
                        let dropped = queue.drop_oldest();
                        prop_assert_eq!(dropped, model.pop_front().map(|m| Queue::framed(m.len())));
                    }
                }
                prop_assert_eq!(queue.messages(), model.len() + usize::from(queue.rest() > 0));
            }
            let mut out = Vec::new();
            queue.take(usize::MAX, usize::MAX, &mut out);
            left.extend(out.concat());
            sent.extend(model);
            let mut decoder = peerage_wire::frame::Decoder::new(10_000);
            decoder.push(Bytes::from(left));
            for message in sent {
                prop_assert_eq!(decoder.next_frame().unwrap().unwrap(), message);
            }
            prop_assert_eq!(decoder.finish(), Ok(()));
        }
    }
}
