//! Uvarint-delimited messages, and the varints themselves.

use bytes::Bytes;
use peerage_wire::frame::{Decoder, FrameError};
use peerage_wire::uvarint;

use crate::pieces::cuts;

/// Any cut gives the same frames and the same end; no frame exceeds the bound, nor does what is held; what was read is written as the same bytes.
pub fn run(data: &[u8]) {
    if let Ok(Some((value, length))) = uvarint::take(data) {
        let mut written = Vec::new();
        uvarint::put(value, &mut written);
        assert_eq!(written, &data[..length], "a number has one form");
    }
    for most in [0, 127, 300] {
        let [whole, others @ ..] = cuts(data).map(|pieces| decode(pieces, most));
        for other in others {
            assert_eq!(other, whole);
        }
        let (frames, end) = whole;
        let mut written = Vec::new();
        for frame in frames {
            assert!(frame.len() <= most);
            uvarint::put(frame.len() as u64, &mut written);
            written.extend(frame);
        }
        match end {
            Ok(rest) => assert_eq!([written, rest].concat(), data, "nothing is lost between frames"),
            Err(_) => assert!(data.starts_with(&written)),
        }
    }
}

/// The frames, then what is left or why it ended.
fn decode(pieces: Vec<Bytes>, most: usize) -> (Vec<Bytes>, Result<Vec<u8>, FrameError>) {
    let (mut decoder, mut frames) = (Decoder::new(most), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        assert!(decoder.buffered() < most + uvarint::MAX_LEN, "a part of one frame at most");
    }
    assert_eq!(decoder.finish().is_ok(), decoder.buffered() == 0);
    (frames, Ok(decoder.into_rest().into_iter().flatten().collect()))
}
