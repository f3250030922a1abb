//! What was read of a channel's stream and is not yet accepted.
//!
//! Pieces of a stream are views of the batches of packets in which they came. A message that is not small and lies in one piece is handed on as such
//! a view, without a copy. Small messages, and those that lie in several pieces, are copied together: of many small ones that costs less than
//! what each view would, and whoever keeps one of them keeps no batch of packets alive for it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use peerage_wire::uvarint;

/// A message that takes so many bytes with its length is handed on as it came, where it lies in one piece.
pub(super) const MIN_VIEW: usize = 512;
/// What is read while whole messages wait is kept in blocks of this size.
const BLOCK: usize = 32 * 1024;
/// The most of a buffer that messages share which are not small and do not lie in one piece. It is never more than what has come with them, so
/// that whatever is kept of it costs twice what came at most.
const SHARED: usize = 8 * 1024;

/// Bytes of a stream in their order, from the beginning of a message.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// What lies before all parts, in one piece.
    buffer: BytesMut,
    parts: VecDeque<Part>,
    bytes: usize,
}

#[derive(Debug)]
enum Part {
    /// A part of a batch of packets.
    View(Bytes),
    Own(Bytes),
    /// With room for more.
    Block(BytesMut),
}

/// Some whole messages.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) bytes: Bytes,
    /// It is a part of a batch of packets, which it keeps alive.
    pub(super) is_view: bool,
}

impl Gather {
    /// Bytes that are here.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what was read, as it came.
    pub(super) fn add(&mut self, pieces: &mut [Bytes]) {
        // At once: what an idle stream gave up would grow by doubling.
        self.parts.reserve(pieces.len());
        for piece in pieces {
            self.bytes += piece.len();
            self.parts.push_back(Part::View(std::mem::take(piece)));
        }
    }

    /// Copies what is a part of a batch of packets: it may lie here for long.
    pub(super) fn own(&mut self) {
        if !self.parts.iter().any(|part| matches!(part, Part::View(_))) {
            return;
        }
        for part in std::mem::take(&mut self.parts) {
            match part {
                Part::View(bytes) => self.add_to_block(&bytes),
                own => self.parts.push_back(own),
            }
        }
    }

    /// Gives up memory that nothing lies in.
    pub(super) fn rest(&mut self) {
        if self.parts.is_empty() {
            self.parts = VecDeque::new();
        }
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// What lies at the front in one piece. It begins with a whole message if one is here, unless that one is longer than `longest`. A message that has
    /// begun gets room for all of it at once, as far as `accounted` bytes go that memory is reserved for; the rest gets room as it comes.
    pub(super) fn front(&mut self, longest: usize, accounted: usize) -> &[u8] {
        while self.gathers_more(longest, accounted) {}
        self.first()
    }

    fn first(&self) -> &[u8] {
        if !self.buffer.is_empty() {
            return &self.buffer;
        }
        self.parts.front().map_or(&[], Part::bytes)
    }

    /// Takes so many bytes from [`Gather::front`].
    pub(super) fn take(&mut self, bytes: usize) -> Run {
        self.bytes -= bytes;
        if !self.buffer.is_empty() {
            return Run { bytes: self.buffer.split_to(bytes).freeze(), is_view: false };
        }
        let Some(part) = self.parts.front_mut() else { return Run { bytes: Bytes::new(), is_view: false } };
        let run = part.split_to(bytes);
        if part.bytes().is_empty() {
            self.parts.pop_front();
        }
        run
    }

    /// Puts back what [`Gather::take`] gave last.
    pub(super) fn put_back(&mut self, run: Run) {
        self.bytes += run.bytes.len();
        if !self.buffer.is_empty() {
            let rest = Bytes::from(std::mem::take(&mut self.buffer));
            self.parts.push_front(Part::Own(rest));
        }
        self.parts.push_front(if run.is_view { Part::View(run.bytes) } else { Part::Own(run.bytes) });
    }

    /// Takes one step towards a front that is a whole message. False when there is none to take.
    fn gathers_more(&mut self, longest: usize, accounted: usize) -> bool {
        let first = self.first();
        let framed = match uvarint::take(first) {
            Err(_) => return false,
            Ok(Some((length, _))) if length > longest as u64 => return false,
            Ok(Some((length, head))) => Some(head + length as usize),
            Ok(None) => None,
        };
        let is_whole = framed.is_some_and(|framed| framed <= first.len());
        match framed {
            Some(framed) if framed >= MIN_VIEW => !is_whole && self.gather_large(framed, accounted),
            _ => self.gather_small(is_whole),
        }
    }

    /// Moves more of a message that does not lie in one piece into the buffer.
    fn gather_large(&mut self, framed: usize, accounted: usize) -> bool {
        let Some(first) = self.parts.front() else { return false };
        let more = match self.buffer.len() {
            0 if self.parts.len() == 1 && !first.is_view() => return false,
            0 => first.bytes().len(),
            begun => framed - begun,
        };
        let room = framed.min(accounted);
        if self.buffer.capacity() < room {
            // Where more lies behind it, those that come next and do not lie in one piece share the buffer.
            let room = room.max(self.bytes.min(SHARED));
            self.buffer.reserve(room - self.buffer.len());
        }
        self.move_bytes(more);
        true
    }

    /// Moves small messages into the buffer, all that lie in batches of packets, and what ends a message that has begun before.
    fn gather_small(&mut self, is_whole: bool) -> bool {
        let Some(first) = self.parts.front() else { return false };
        let begun_here = self.buffer.is_empty();
        let is_at_rest = if begun_here { !first.is_view() } else { true };
        if is_at_rest && (is_whole || (begun_here && self.parts.len() == 1)) {
            return false;
        }
        let least = if begun_here && !first.is_view() { 2 } else { 1 };
        let moved =
            self.parts.iter().enumerate().take_while(|(place, part)| *place < least || part.is_view());
        let bytes = moved.map(|(_, part)| part.bytes().len()).sum();
        self.buffer.reserve(bytes);
        self.move_bytes(bytes);
        true
    }

    /// Moves up to `most` bytes of the parts into the buffer.
    fn move_bytes(&mut self, most: usize) {
        let mut left = most;
        while left > 0
            && let Some(part) = self.parts.front_mut()
        {
            let length = part.bytes().len();
            if length > left {
                self.buffer.extend_from_slice(&part.split_to(left).bytes);
                return;
            }
            self.buffer.extend_from_slice(part.bytes());
            self.parts.pop_front();
            left -= length;
        }
    }

    fn add_to_block(&mut self, bytes: &[u8]) {
        match self.parts.back_mut() {
            Some(Part::Block(block)) if block.capacity() - block.len() >= bytes.len() => {
                block.extend_from_slice(bytes);
            }
            _ => {
                let mut block = BytesMut::with_capacity(bytes.len().max(BLOCK));
                block.extend_from_slice(bytes);
                self.parts.push_back(Part::Block(block));
            }
        }
    }
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::View(bytes) | Self::Own(bytes) => bytes,
            Self::Block(block) => block,
        }
    }

    fn is_view(&self) -> bool {
        matches!(self, Self::View(_))
    }

    fn split_to(&mut self, bytes: usize) -> Run {
        let is_view = self.is_view();
        let bytes = match self {
            Self::View(part) | Self::Own(part) => part.split_to(bytes),
            // Of a block that is mostly empty only what is in it is kept.
            Self::Block(block) if 2 * block.len() < block.capacity() => {
                let own = Bytes::copy_from_slice(&block[..bytes]);
                let _ = block.split_to(bytes);
                own
            }
            Self::Block(block) => block.split_to(bytes).freeze(),
        };
        Run { bytes, is_view }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cut::{Cut, messages_of};
    use super::*;
    use proptest::prelude::*;

    const LONGEST: usize = 1 << 20;
    const ROOM: usize = 16 << 10;

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut all = Vec::new();
        for message in messages {
            uvarint::put(message.len() as u64, &mut all);
            all.extend(message);
        }
        all
    }

    /// All whole messages that are here, run by run.
    fn runs(gather: &mut Gather) -> Vec<Run> {
        let next = || {
            let cut = Cut::of(gather.front(LONGEST, ROOM), usize::MAX, usize::MAX, LONGEST).unwrap();
            (cut.messages > 0).then(|| gather.take(cut.bytes))
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_large_message_in_one_piece_is_a_view_and_small_ones_are_copied_together() {
        let mut gather = Gather::default();
        let large = Bytes::from(framed(&[vec![7; 1000], vec![8; 1000]]));
        gather.add(&mut [large.clone()]);
        let run = runs(&mut gather).remove(0);
        assert!(run.is_view && run.bytes.as_ptr() == large.as_ptr() && run.bytes.len() == large.len());
        let small = framed(&[vec![7; 60], vec![8; 60], vec![9; 60]]);
        let mut pieces: Vec<_> = small.chunks(100).map(Bytes::copy_from_slice).collect();
        gather.add(&mut pieces);
        let run = runs(&mut gather).remove(0);
        assert!(!run.is_view && run.bytes == small, "one run of all");
        assert_eq!(gather.bytes(), 0);
    }

    #[test]
    fn of_a_message_that_has_begun_no_batch_is_kept_and_no_more_room_is_taken_than_is_accounted_for() {
        let mut gather = Gather::default();
        let mut message = Bytes::from(framed(&[vec![7; LONGEST]]));
        gather.add(&mut [message.split_to(100)]);
        assert_eq!(gather.front(LONGEST, 0).len(), 100);
        assert!(gather.parts.is_empty() && gather.buffer.capacity() < 200, "copied, and no more than that");
        gather.add(&mut [message.split_to(100)]);
        assert_eq!(gather.front(LONGEST, ROOM).len(), 200);
        assert!((ROOM..2 * ROOM).contains(&gather.buffer.capacity()));
        assert_eq!(gather.front(10, ROOM).len(), 200, "a message that is too long is not waited for");
    }

    #[test]
    fn messages_that_do_not_lie_in_one_piece_share_a_buffer_where_more_is_behind_them() {
        let mut gather = Gather::default();
        let mut stream = Bytes::from(framed(&[vec![7; 1000], vec![8; 1000], vec![9; 1000]]));
        gather.add(&mut [stream.split_to(500), stream.split_to(1000), stream]);
        let cut = |gather: &mut Gather| {
            let cut = Cut::of(gather.front(LONGEST, ROOM), usize::MAX, 1, LONGEST).unwrap();
            gather.take(cut.bytes)
        };
        let (first, second, third) = (cut(&mut gather), cut(&mut gather), cut(&mut gather));
        assert!(!first.is_view && !second.is_view && third.is_view);
        assert_eq!(first.bytes.as_ptr_range().end, second.bytes.as_ptr(), "one behind the other");
        assert!(gather.buffer.capacity() <= SHARED);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// So many pieces, of so many bytes.
        Add(usize, usize),
        Own,
        /// So many bytes and messages at most; put back once.
        Take(usize, usize, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1usize..9, 1usize..1500).prop_map(|(pieces, bytes)| Step::Add(pieces, bytes)),
            1 => Just(Step::Own),
            3 => (0usize..5000, 0usize..50, any::<bool>()).prop_map(|(bytes, most, back)| Step::Take(bytes, most, back)),
        ]
    }

    proptest! {
        /// However a stream is cut, read, kept and taken: its messages come out whole and in order, and where none is left no batch is kept.
        #[test]
        fn any_pieces_and_takes_give_whole_messages_in_order(
            lengths in prop::collection::vec(prop_oneof![0usize..200, 400usize..700, 1000usize..9000], 0..40),
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let messages: Vec<_> = lengths.iter().enumerate().map(|(n, length)| vec![n as u8; *length]).collect();
            let mut stream = Bytes::from(framed(&messages));
            let (mut gather, mut got, mut waiting) = (Gather::default(), Vec::new(), 0);
            for step in steps.into_iter().chain([Step::Add(usize::MAX, 1400), Step::Take(usize::MAX, usize::MAX, false)]) {
                match step {
                    Step::Add(pieces, bytes) => {
                        for _ in 0..pieces.min(stream.len().div_ceil(bytes)) {
                            let piece = stream.split_to(bytes.min(stream.len()));
                            waiting += piece.len();
                            gather.add(&mut [piece]);
                        }
                    }
                    Step::Own => {
                        gather.own();
                        prop_assert!(!gather.parts.iter().any(Part::is_view));
                    }
                    Step::Take(bytes, most, mut back) => loop {
                        let cut = Cut::of(gather.front(LONGEST, ROOM), bytes, most, LONGEST).unwrap();
                        if cut.messages == 0 {
                            let whole = cut.next.is_some_and(|next| next <= gather.front(LONGEST, ROOM).len());
                            prop_assert!(whole || !gather.parts.iter().any(Part::is_view));
                            break;
                        }
                        let run = gather.take(cut.bytes);
                        if std::mem::take(&mut back) {
                            gather.put_back(run);
                            continue;
                        }
                        waiting -= run.bytes.len();
                        got.extend(messages_of(run.bytes));
                    },
                }
                prop_assert_eq!(gather.bytes(), waiting);
            }
            prop_assert_eq!(got, messages);
        }
    }
}
