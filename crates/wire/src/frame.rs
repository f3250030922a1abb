//! Uvarint-delimited messages: a length, then that many bytes.
//!
//! [`Decoder`] takes the chunks that a stream delivers, in whatever sizes they come, and gives the messages back. A message that
//! lies in one chunk is a slice of it, without a copy. The buffer never grows beyond the message bound and one chunk.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use crate::uvarint::{self, UvarintError};

/// Why a frame was refused. The stream cannot be read any further after one of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length in front of the message is not a varint.
    #[error("a message's length is malformed: {0}")]
    Length(#[from] UvarintError),
    /// The announced length exceeds the bound.
    #[error("a message of {length} bytes was announced where at most {most} are taken")]
    TooLarge {
        /// What was announced, in bytes.
        length: u64,
        /// The bound, in bytes.
        most: usize,
    },
    /// The bytes are not the protobuf message that belongs here.
    #[error("a message cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Truncated,
}

/// One message with its length in front.
pub fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(uvarint::len(length as u64) + length);
    uvarint::put(length as u64, &mut out);
    message.encode(&mut out).expect("the buffer grows as needed");
    out.freeze()
}

/// The length prefix alone, for a payload that is written behind it without a copy.
pub fn prefix(length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(uvarint::MAX_LEN);
    uvarint::put(length as u64, &mut out);
    out.freeze()
}

/// Cuts chunks of a stream into messages.
///
/// A chunk is a view of the packet that it came in. So what is left of a chunk without forming a message is copied together: a peer that sends a
/// message in tiny pieces makes us hold the message, and not all of its packets.
#[derive(Debug)]
pub struct Decoder {
    /// The beginning of a message that did not come in one chunk.
    partial: BytesMut,
    /// What came after it and was not looked at yet.
    chunks: VecDeque<Bytes>,
    most: usize,
}

impl Decoder {
    /// A decoder that refuses messages over `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { partial: BytesMut::new(), chunks: VecDeque::new(), most }
    }

    /// Adds what the stream delivered next.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next whole message's bytes, `None` when more chunks are needed.
    ///
    /// # Errors
    /// [`FrameError::Length`] and [`FrameError::TooLarge`].
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        while let Some(chunk) = self.chunks.front_mut() {
            if self.partial.is_empty() {
                if let Some((prefix, length)) = head(chunk, self.most)?
                    && chunk.len() >= prefix + length
                {
                    chunk.advance(prefix);
                    let frame = chunk.split_to(length);
                    if chunk.is_empty() {
                        self.chunks.pop_front();
                    }
                    return Ok(Some(frame));
                }
            } else if let Some(frame) = Self::complete(&mut self.partial, chunk, self.most)? {
                if chunk.is_empty() {
                    self.chunks.pop_front();
                }
                return Ok(Some(frame));
            }
            // What is left of the chunk is the beginning, or the middle, of a message.
            self.partial.extend_from_slice(chunk);
            self.chunks.pop_front();
        }
        Ok(None)
    }

    /// The next whole message, decoded; `None` when more chunks are needed.
    ///
    /// # Errors
    /// Any [`FrameError`] but [`FrameError::Truncated`].
    pub fn next_message<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        match self.next_frame()? {
            Some(frame) => Ok(Some(M::decode(frame)?)),
            None => Ok(None),
        }
    }

    /// Says that the stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it ended inside a message.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffered() == 0 { Ok(()) } else { Err(FrameError::Truncated) }
    }

    /// What was pushed and not yet taken, in order: for a protocol that goes on without frames.
    pub fn into_rest(mut self) -> VecDeque<Bytes> {
        if !self.partial.is_empty() {
            self.chunks.push_front(self.partial.freeze());
        }
        self.chunks
    }

    /// The length of the message that has begun and is not whole yet, once it is known.
    pub fn expected(&self) -> Option<usize> {
        head(&self.partial, self.most).ok().flatten().map(|(_, length)| length)
    }

    /// Bytes pushed and not yet taken.
    pub fn buffered(&self) -> usize {
        self.partial.len() + self.chunks.iter().map(Bytes::len).sum::<usize>()
    }

    /// Takes from `chunk` what the message in `partial` lacks. The message, when it is whole then.
    fn complete(partial: &mut BytesMut, chunk: &mut Bytes, most: usize) -> Result<Option<Bytes>, FrameError> {
        // The length itself may be cut: it is completed byte by byte.
        let (prefix, length) = loop {
            match head(partial, most)? {
                Some(head) => break head,
                None if chunk.is_empty() => return Ok(None),
                None => partial.extend_from_slice(&chunk.split_to(1)),
            }
        };
        let missing = prefix + length - partial.len();
        partial.extend_from_slice(&chunk.split_to(missing.min(chunk.len())));
        if partial.len() < prefix + length {
            return Ok(None);
        }
        let mut frame = std::mem::take(partial).freeze();
        frame.advance(prefix);
        Ok(Some(frame))
    }
}

/// The bytes that the length takes, and the length; `None` when it is cut.
fn head(bytes: &[u8], most: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let Some((length, prefix)) = uvarint::take(bytes)? else { return Ok(None) };
    if length > most as u64 {
        return Err(FrameError::TooLarge { length, most });
    }
    Ok(Some((prefix, length as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Chat;
    use proptest::prelude::*;

    fn frames(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            uvarint::put(message.len() as u64, &mut out);
            out.extend(message);
        }
        out
    }

    #[test]
    fn a_message_in_one_chunk_is_not_copied() {
        let chunk = Bytes::from(frames(&[vec![1; 500]]));
        let mut decoder = Decoder::new(500);
        decoder.push(chunk.clone());
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(frame.as_ptr(), chunk[2..].as_ptr());
    }

    /// a length beyond the bound takes no memory.
    #[test]
    fn a_length_over_the_bound_is_refused_before_its_bytes_came() {
        let mut decoder = Decoder::new(1000);
        decoder.push(prefix(1001));
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge { length: 1001, most: 1000 }));
    }

    #[test]
    fn garbage_in_a_message_is_an_error() {
        let mut decoder = Decoder::new(1000);
        decoder.push(Bytes::from(frames(&[vec![0xff; 3]])));
        assert!(matches!(decoder.next_message::<Chat>(), Err(FrameError::Malformed(_))));
    }

    /// what has not come takes no memory, and what has come takes little more than its bytes.
    #[test]
    fn a_message_in_tiny_pieces_is_held_as_one_buffer() {
        let packet = Bytes::from(vec![7; 1400]);
        let mut decoder = Decoder::new(1 << 20);
        decoder.push(prefix(1 << 20));
        for _ in 0..100_000 {
            decoder.push(packet.slice(..1));
            assert_eq!(decoder.next_frame(), Ok(None));
        }
        assert_eq!(decoder.buffered(), 100_003);
        assert!(decoder.chunks.is_empty(), "no packet is held");
        assert_eq!(decoder.into_rest().len(), 1);
    }

    #[test]
    fn an_end_inside_a_message_is_an_error() {
        let mut decoder = Decoder::new(1000);
        decoder.push(Bytes::from_static(&[3, 1]));
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.finish(), Err(FrameError::Truncated));
    }

    proptest! {
        /// any segmentation of the byte stream gives the same messages.
        #[test]
        fn any_cut_of_the_stream_gives_the_same_messages(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1usize..70, 1..50),
        ) {
            let bytes = Bytes::from(frames(&messages));
            let mut decoder = Decoder::new(300);
            let (mut got, mut at, mut cut) = (Vec::new(), 0, cuts.iter().cycle());
            while at < bytes.len() {
                let end = (at + cut.next().unwrap()).min(bytes.len());
                decoder.push(bytes.slice(at..end));
                at = end;
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame.to_vec());
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_end_in_frames_an_error_or_a_wait(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(64);
            decoder.push(Bytes::from(bytes));
            while let Ok(Some(frame)) = decoder.next_frame() {
                prop_assert!(frame.len() <= 64);
            }
        }
    }
}
