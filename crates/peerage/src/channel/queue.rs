//! Messages in the form in which they leave: each with its length in front, small ones joined.
//!
//! A sender encodes its message straight into the buffer that the writer will take, so a small message costs no allocation. The queue is cut
//! at any byte when it is taken, and at messages when the oldest is dropped: where messages begin is read off the lengths again, which only
//! happens when not all can be taken.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use peerage_wire::uvarint;

use super::Payload;
use super::block::{Block, Part};

/// The most bytes of small messages that are joined to one piece: many small writes on a QUIC stream are slow, few large ones are not.
const MAX_JOINED: usize = 32 * 1024;
/// A payload of this size or more is handed on as it is instead of being copied behind others.
pub(crate) const MIN_WHOLE: usize = 8 * 1024;
/// A payload of this size or more that goes to several peers is held once instead of once for each of them; below [`MIN_WHOLE`] in a block.
pub(crate) const MIN_SHARED: usize = 1024;

/// The least room that a new buffer for small messages has, in bytes.
const MIN_BUFFER: usize = 256;
/// A buffer that holds so much is worth being used again.
const FULL: usize = MAX_JOINED / 4 * 3;
/// Buffers that left and may be used again.
const MAX_LEFT: usize = 64;
/// How many of them may be more than what is on its way fills, which is what is accounted for.
const MAX_SPARE: usize = 4;

/// A queue of framed messages.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Finished pieces, in order.
    pieces: VecDeque<Piece>,
    /// Messages that came after the last piece and are shared with other queues. Then there is no tail.
    shared: Option<Run>,
    /// Small messages that came after the last piece.
    tail: BytesMut,
    /// Messages that end in the tail.
    tail_messages: usize,
    /// How large the next buffer should be: what the last ones had to hold.
    expected: usize,
    /// Full buffers that left, to be used again when the connection is done with them.
    left: VecDeque<Bytes>,
    bytes: usize,
    /// Messages whose end is still here.
    messages: usize,
    /// Bytes at the front that belong to a message whose beginning was taken.
    rest: usize,
}

/// What leaves in one write.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// It is a buffer of this queue's.
    is_own: bool,
    /// Messages that end in it.
    messages: usize,
    /// Bytes that the message at its end still has, in the pieces behind it.
    rest: usize,
}

/// Messages that follow on each other in a block.
#[derive(Debug)]
struct Run {
    block: Arc<Block>,
    at: Range<usize>,
    messages: usize,
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

    /// Adds a message; one of [`MIN_WHOLE`] bytes or more that is already encoded is not copied.
    pub(crate) fn push(&mut self, message: &impl Payload) {
        let length = message.length();
        self.finish_shared();
        self.bytes += Self::framed(length);
        self.messages += 1;
        match message.as_bytes() {
            Some(payload) if length >= MIN_WHOLE => {
                self.make_room(uvarint::MAX_LEN);
                uvarint::put(length as u64, &mut self.tail);
                self.finish_tail(length);
                self.pieces.push_back(Piece { bytes: payload.clone(), is_own: false, messages: 1, rest: 0 });
            }
            _ => {
                self.make_room(Self::framed(length));
                uvarint::put(length as u64, &mut self.tail);
                message.write(&mut self.tail);
                self.tail_messages += 1;
            }
        }
    }

    /// Adds a message that is part of a block, without a copy where it begins the block or follows on what the queue has of it. Who has missed messages
    /// of a block gets copies of the others: it would keep all of it for few of them.
    pub(super) fn push_part(&mut self, part: &Part) {
        self.bytes += part.at.len();
        self.messages += 1;
        if let Some(run) = &mut self.shared
            && Arc::ptr_eq(&run.block, &part.block)
            && run.at.end == part.at.start
        {
            (run.at.end, run.messages) = (part.at.end, run.messages + 1);
            return;
        }
        self.finish_shared();
        if part.at.start == 0 {
            self.finish_tail(0);
            self.shared = Some(Run { block: part.block.clone(), at: part.at.clone(), messages: 1 });
        } else {
            self.make_room(part.at.len());
            part.block.copy(part.at.clone(), &mut self.tail);
            self.tail_messages += 1;
        }
    }

    /// Takes from the front at most so many bytes and so many messages' ends, the last message perhaps in part.
    pub(crate) fn take(&mut self, most_bytes: usize, most_messages: usize, out: &mut Vec<Bytes>) -> Taken {
        if self.pieces.is_empty() {
            self.finish_shared();
        }
        self.finish_tail(0);
        let mut taken = Taken { rest: self.rest, ..Taken::default() };
        while let Some(piece) = self.pieces.pop_front_if(|piece| {
            taken.bytes + piece.bytes.len() <= most_bytes
                && taken.messages + piece.messages + usize::from(piece.rest > 0) <= most_messages
        }) {
            taken.bytes += piece.bytes.len();
            taken.messages += piece.messages;
            self.rest = piece.rest;
            self.note_left(&piece);
            out.push(piece.bytes);
        }
        if let Some(next) = self.pieces.front_mut() {
            let cut =
                measure(&next.bytes, self.rest, most_bytes - taken.bytes, most_messages - taken.messages);
            if cut.bytes > 0 {
                out.push(next.bytes.split_to(cut.bytes));
                next.messages -= cut.messages;
                self.rest = cut.rest;
                taken.bytes += cut.bytes;
                taken.messages += cut.messages;
            }
        }
        self.bytes -= taken.bytes;
        self.messages -= taken.messages;
        taken
    }

    /// Gives the buffer up when nothing waits: it would be kept as long as the connection is quiet.
    pub(crate) fn forget_buffer(&mut self) {
        if self.bytes == 0 {
            self.tail = BytesMut::new();
            self.pieces = VecDeque::new();
        }
    }

    /// Gives those buffers up that were kept to be used again.
    pub(crate) fn forget_left(&mut self) {
        self.left = VecDeque::new();
    }

    /// Gives the oldest of them up where there are more than so many bytes on their way can fill, and [`MAX_SPARE`].
    pub(crate) fn trim_left(&mut self, on_their_way: usize) {
        let most = on_their_way / MAX_JOINED + MAX_SPARE;
        self.left.drain(..self.left.len().saturating_sub(most));
    }

    /// Keeps an eye on a buffer of full size.
    fn note_left(&mut self, piece: &Piece) {
        if piece.is_own && piece.bytes.len() >= FULL && self.left.len() < MAX_LEFT {
            self.left.push_back(piece.bytes.clone());
        }
    }

    /// The buffer that left first, if nobody else has a part of it any more.
    fn used_again(&mut self) -> Option<BytesMut> {
        match self.left.pop_front()?.try_into_mut() {
            Ok(mut buffer) if (FULL..=2 * MAX_JOINED).contains(&buffer.capacity()) => {
                buffer.clear();
                Some(buffer)
            }
            Ok(_) => None,
            Err(busy) => {
                self.left.push_front(busy);
                None
            }
        }
    }

    /// Drops the oldest message of which nothing was taken yet: its framed bytes.
    pub(crate) fn drop_oldest(&mut self) -> Option<usize> {
        if self.messages <= usize::from(self.rest > 0) {
            return None;
        }
        if self.pieces.len() < 3 {
            // Otherwise the oldest message and what is left before it lie in pieces.
            self.finish_shared();
            self.finish_tail(0);
        }
        let (place, offset) = match self.pieces.front()?.bytes.len() {
            first if first <= self.rest => (1, 0),
            _ => (0, self.rest),
        };
        let piece = self.pieces.get_mut(place)?;
        let (head, length) = head_of(&piece.bytes[offset..])?;
        let begun = piece.bytes.split_to(offset);
        if piece.bytes.len() >= head + length {
            // The message lies in this piece.
            let _ = piece.bytes.split_to(head + length);
            piece.messages -= 1;
        } else {
            // Its length is the end of this piece, and it is the next one.
            piece.bytes.clear();
            piece.rest = 0;
            self.pieces.remove(place + 1);
        }
        self.keep_apart(place, begun);
        self.bytes -= head + length;
        self.messages -= 1;
        Some(head + length)
    }

    /// Puts what is left of a message that has begun, and was cut off the piece at `place`, before it.
    fn keep_apart(&mut self, place: usize, begun: Bytes) {
        let Some(piece) = self.pieces.get_mut(place) else { return };
        let ends = usize::from(!begun.is_empty());
        piece.messages -= ends;
        if piece.bytes.is_empty() {
            self.pieces.remove(place);
        }
        if ends > 0 {
            self.pieces.insert(place, Piece { bytes: begun, is_own: false, messages: ends, rest: 0 });
        }
    }

    /// Makes the messages that are shared a piece: more can't follow on them.
    #[inline]
    fn finish_shared(&mut self) {
        if let Some(Run { block, at, messages }) = self.shared.take() {
            self.pieces.push_back(Piece { bytes: block.slice(at), is_own: false, messages, rest: 0 });
        }
    }

    /// Makes the small messages a piece. Behind its end the message that began last still has `rest` bytes.
    fn finish_tail(&mut self, rest: usize) {
        if !self.tail.is_empty() {
            self.expected = self.tail.len().max(self.expected / 2);
            let messages = std::mem::take(&mut self.tail_messages);
            // One that grew for a large message is not worth keeping.
            let is_own = self.tail.len() <= MAX_JOINED;
            self.pieces.push_back(Piece { bytes: self.tail.split().freeze(), is_own, messages, rest });
        }
    }

    #[inline]
    fn make_room(&mut self, more: usize) {
        let fits = self.tail.len() + more <= MAX_JOINED && self.tail.capacity() - self.tail.len() >= more;
        if !fits {
            self.make_new_room(more);
        }
    }

    fn make_new_room(&mut self, more: usize) {
        // What is large enough by itself is not copied into a larger buffer.
        let full = self.tail.len();
        if full + more > MAX_JOINED || full > MAX_JOINED / 4 {
            self.finish_tail(0);
            self.expected = self.expected.max(2 * full).min(MAX_JOINED);
        }
        if self.tail.capacity() - self.tail.len() < more {
            let room = self.expected.max(4 * self.tail.len()).clamp(MIN_BUFFER, MAX_JOINED);
            if self.tail.is_empty()
                && (more..=room).contains(&FULL)
                && let Some(buffer) = self.used_again()
            {
                self.tail = buffer;
                return;
            }
            self.tail.reserve(more.max(room - self.tail.len().min(room)));
        }
    }
}

/// How far a take may go into a first piece, of which `rest` bytes end a message that has begun: the bytes, the messages that end within, and what is
/// left of the last one.
fn measure(piece: &[u8], rest: usize, most_bytes: usize, most_messages: usize) -> Taken {
    if rest > most_bytes || (rest > 0 && most_messages == 0) {
        let bytes = if most_messages == 0 { 0 } else { most_bytes };
        return Taken { bytes, messages: 0, rest: rest - bytes };
    }
    let (mut bytes, mut messages) = (rest, usize::from(rest > 0));
    while messages < most_messages {
        let Some((head, length)) = piece.get(bytes..).and_then(head_of) else { break };
        if bytes + head + length > most_bytes {
            // Part of it goes now, but never part of its length.
            let part = most_bytes - bytes;
            return if part >= head {
                Taken { bytes: most_bytes, messages, rest: head + length - part }
            } else {
                Taken { bytes, messages, rest: 0 }
            };
        }
        bytes += head + length;
        messages += 1;
    }
    Taken { bytes, messages, rest: 0 }
}

/// The message that begins here: the bytes of its length, and its length.
fn head_of(bytes: &[u8]) -> Option<(usize, usize)> {
    let (length, head) = uvarint::take(bytes).expect("the queue wrote it")?;
    Some((head, length as usize))
}

/// How many messages end within the first `bytes` of what was taken.
pub(crate) fn ends_within(pieces: &[Bytes], taken: Taken, mut bytes: usize) -> usize {
    let (mut messages, mut rest) = (0, taken.rest);
    for piece in pieces {
        let here = piece.len().min(bytes);
        let cut = measure(piece, rest, here, usize::MAX);
        messages += cut.messages;
        // A message whose length stood at the end of the piece goes on in the next one.
        rest = cut.rest;
        bytes -= here;
        if bytes == 0 {
            break;
        }
    }
    messages
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
            queue.push(&raw(text.into()));
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
        queue.push(&payload);
        let mut out = Vec::new();
        queue.take(usize::MAX, usize::MAX, &mut out);
        assert_eq!(out[1].as_ptr(), payload.0.as_ptr());
    }

    /// A message of so many bytes that is encoded when it is queued.
    struct Encoded(usize);

    impl Payload for Encoded {
        fn length(&self) -> usize {
            self.0
        }
        fn write(&self, out: &mut BytesMut) {
            out.extend_from_slice(&vec![7; self.0]);
        }
        fn read(bytes: Bytes) -> Result<Self, String> {
            Ok(Self(bytes.len()))
        }
    }

    #[test]
    fn full_buffers_are_used_again_when_nobody_has_them_any_more_and_so_many_are_kept() {
        let mut queue = Queue::default();
        let mut sent = Vec::new();
        let fill = |queue: &mut Queue| (0..200).for_each(|_| queue.push(&raw(vec![7; 1000])));
        for _ in 0..2 * MAX_LEFT {
            fill(&mut queue);
            queue.take(usize::MAX, usize::MAX, &mut sent);
        }
        assert_eq!(queue.left.len(), MAX_LEFT);
        let first = queue.left[0].as_ptr();
        fill(&mut queue);
        queue.take(usize::MAX, usize::MAX, &mut sent);
        assert!(queue.left[0].as_ptr() == first, "what is on its way is left alone");
        sent.clear();
        fill(&mut queue);
        queue.take(usize::MAX, usize::MAX, &mut sent);
        assert!(sent.iter().any(|piece| piece.as_ptr() == first) && sent.concat().len() == 200 * 1002);
        queue.trim_left(10 * MAX_JOINED);
        assert_eq!(queue.left.len(), 10 + MAX_SPARE);
        queue.forget_left();
        assert_eq!(queue.left.capacity(), 0);
        queue.push(&raw(vec![7; MIN_WHOLE - 1]));
        queue.push(&Encoded(2 * MAX_JOINED));
        queue.take(usize::MAX, usize::MAX, &mut sent);
        assert!(queue.left.is_empty(), "one that is larger than most is not kept");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        /// A broadcast of such a length, that this queue gets or misses.
        Share(usize, bool),
        Take(usize, usize),
        Drop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![0usize..300, MIN_WHOLE..MIN_WHOLE + 10].prop_map(Step::Push),
            4 => (MIN_SHARED..MIN_SHARED + 300, any::<bool>()).prop_map(|(length, gets)| Step::Share(length, gets)),
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
            let blocks = crate::channel::block::Blocks::default();
            for step in steps {
                match step {
                    Step::Push(length) => {
                        number = number.wrapping_add(1);
                        queue.push(&raw(vec![number; length]));
                        model.push_back(vec![number; length]);
                    }
                    Step::Share(length, gets) => {
                        number = number.wrapping_add(1);
                        let message = blocks.share(vec![number; length].into());
                        if gets {
                            message.put(&mut queue);
                            model.push_back(vec![number; length]);
                        }
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
            while queue.take(usize::MAX, usize::MAX, &mut out).bytes > 0 {}
            prop_assert_eq!((queue.bytes(), queue.messages()), (0, 0));
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
