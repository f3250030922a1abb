//! Finds the whole messages in what was read of a channel's stream.

use bytes::{Buf, Bytes};
use peerage_wire::uvarint;

use super::reader::End;

/// How much of a buffer is whole messages within some bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) bytes: usize,
    pub(super) messages: usize,
    /// The framed length of the message behind them, once it is known.
    pub(super) next: Option<usize>,
}

impl Cut {
    pub(super) fn of(
        buffer: &[u8],
        most_bytes: usize,
        most_messages: usize,
        longest: usize,
    ) -> Result<Self, End> {
        let mut cut = Self { bytes: 0, messages: 0, next: None };
        loop {
            let head = match uvarint::take(&buffer[cut.bytes..]) {
                Ok(head) => head,
                Err(_) if cut.messages > 0 => return Ok(cut),
                Err(error) => {
                    return Err(End::Violation(format!("a message's length is malformed: {error}")));
                }
            };
            let Some((length, head)) = head else { return Ok(Self { next: None, ..cut }) };
            if length > longest as u64 {
                if cut.messages > 0 {
                    return Ok(cut);
                }
                let detail =
                    format!("a message of {length} bytes was announced where at most {longest} are taken");
                return Err(End::TooLarge(detail));
            }
            let framed = head + length as usize;
            let end = cut.bytes + framed;
            if end > buffer.len() || end > most_bytes || cut.messages == most_messages {
                return Ok(Self { next: Some(framed), ..cut });
            }
            (cut.bytes, cut.messages) = (end, cut.messages + 1);
        }
    }
}

/// The whole messages at the front of what was read, none over `longest` bytes.
pub(crate) fn run_of(read: &Bytes, longest: usize) -> Result<impl Iterator<Item = Bytes>, String> {
    let cut = Cut::of(read, usize::MAX, usize::MAX, longest).map_err(|end| format!("{end:?}"))?;
    Ok(messages_of(read.slice(..cut.bytes)))
}

/// The messages of a run.
pub(super) fn messages_of(mut run: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let (length, head) = uvarint::take(&run).ok().flatten()?;
        let framed = head + length as usize;
        if framed == run.len() {
            run.advance(head);
            return Some(std::mem::take(&mut run));
        }
        let message = run.slice(head..framed);
        run.advance(framed);
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(buffer: &[u8], bytes: usize, messages: usize) -> Cut {
        Cut::of(buffer, bytes, messages, 100).unwrap()
    }

    #[test]
    fn whole_messages_are_cut_off_within_the_bounds() {
        let buffer = b"\x01a\x02bb\x03cc";
        assert_eq!(cut(buffer, 100, 100), Cut { bytes: 5, messages: 2, next: Some(4) });
        assert_eq!(cut(buffer, 4, 100), Cut { bytes: 2, messages: 1, next: Some(3) });
        assert_eq!(cut(buffer, 100, 1), Cut { bytes: 2, messages: 1, next: Some(3) });
        assert_eq!(cut(buffer, 100, 0), Cut { bytes: 0, messages: 0, next: Some(2) });
        assert_eq!(cut(b"\x01a", 100, 100), Cut { bytes: 2, messages: 1, next: None });
        assert_eq!(cut(&[0x80], 100, 100), Cut { bytes: 0, messages: 0, next: None });
    }

    #[test]
    fn a_length_that_is_too_large_or_malformed_ends_the_stream_after_what_came_before_it() {
        assert_eq!(cut(b"\x01a\x65", 100, 100), Cut { bytes: 2, messages: 1, next: None });
        assert!(matches!(Cut::of(b"\x65", 100, 100, 100), Err(End::TooLarge(_))));
        assert!(matches!(Cut::of(&[0x81, 0], 100, 100, 100), Err(End::Violation(_))));
    }
}
