//! How requests and answers look on a stream: `proto/request.proto` says it in full.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerage_identity::PeerId;
use peerage_wire::request::Options;
use peerage_wire::uvarint;
use prost::Message;

use super::error::{RequestError, ServeError};
use crate::channel::Payload;

/// The longest options that are read, in bytes: later versions may say more than this one.
pub(crate) const MAX_OPTIONS_BYTES: usize = 1024;
/// The longest status, in bytes. The first version read one uvarint and no more than this.
pub(crate) const MAX_STATUS_BYTES: usize = uvarint::MAX_LEN;
/// An error's text is cut here, in bytes.
pub(crate) const MAX_ERROR_TEXT: usize = 1024;
/// The longest time that is said in a status: with it and any number, the status keeps its bound.
const MAX_RETRY_AFTER_MS: u64 = (1 << 28) - 1;

/// The request as it leaves: the message with its length, and the options behind it.
pub(crate) fn question(question: &impl Payload, deadline: Option<Duration>, window: u32) -> Bytes {
    // Rounded up: a deadline that is over must not read as none, and this side's timer should be the first.
    let deadline_ms = deadline.map_or(0, |left| u32::try_from(left.as_millis() + 1).unwrap_or(u32::MAX));
    let options = Options { deadline_ms, window_bytes: window };
    let (length, behind) = (question.length(), options.encoded_len());
    let mut out = BytesMut::with_capacity(2 * uvarint::MAX_LEN + length + behind);
    uvarint::put(length as u64, &mut out);
    question.write(&mut out);
    if behind > 0 {
        uvarint::put(behind as u64, &mut out);
        options.encode(&mut out).expect("the buffer grows as needed");
    }
    out.freeze()
}

/// What the caller says about its request; nothing when it says nothing.
pub(crate) fn read_options(options: Option<Bytes>) -> Result<Options, prost::DecodeError> {
    options.map_or_else(|| Ok(Options::default()), Options::decode)
}

/// What comes before an answer: the empty status, and the body's length.
pub(crate) fn put_answer_head(length: usize, out: &mut BytesMut) {
    out.put_u8(0);
    uvarint::put(length as u64, out);
}

/// An error as it leaves: status and text.
pub(crate) fn error(error: ServeError) -> Bytes {
    let mut status = BytesMut::with_capacity(MAX_STATUS_BYTES);
    uvarint::put(u64::from(error.code.max(1)), &mut status);
    if let Some(wait) = error.retry_after {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_RETRY_AFTER_MS);
        uvarint::put(wait, &mut status);
    }
    let mut text = error.text;
    text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT));
    let mut out = BytesMut::with_capacity(2 * uvarint::MAX_LEN + status.len() + text.len());
    uvarint::put(status.len() as u64, &mut out);
    out.put(status);
    uvarint::put(text.len() as u64, &mut out);
    out.put_slice(text.as_bytes());
    out.freeze()
}

/// What one pair says: an answer, or why there is none.
pub(crate) fn read_pair(status: &[u8], body: Bytes) -> Result<Result<Bytes, ServeError>, &'static str> {
    if status.is_empty() {
        return Ok(Ok(body));
    }
    let unreadable = "its error number cannot be read";
    if status.len() > MAX_STATUS_BYTES {
        return Err(unreadable);
    }
    let (code, length) = uvarint::take(status).ok().flatten().ok_or(unreadable)?;
    let code = u32::try_from(code).map_err(|_| unreadable)?;
    // What this version cannot read here is left to later ones.
    let wait = uvarint::take(&status[length..]).ok().flatten().map(|(wait, _)| Duration::from_millis(wait));
    Ok(Err(ServeError { code, text: error_text(&body), retry_after: wait.filter(|wait| !wait.is_zero()) }))
}

/// How many bytes a grant is about.
pub(crate) fn read_grant(mut grant: Bytes) -> Option<u64> {
    let (bytes, length) = uvarint::take(&grant).ok().flatten()?;
    grant.advance(length);
    grant.is_empty().then_some(bytes)
}

/// A grant as it leaves.
pub(crate) fn grant(bytes: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + uvarint::MAX_LEN);
    uvarint::put(uvarint::len(bytes) as u64, &mut out);
    uvarint::put(bytes, &mut out);
    out.freeze()
}

/// How many bytes a pair takes on the stream.
pub(crate) fn pair_length(status: usize, body: usize) -> u64 {
    (uvarint::len(status as u64) + status + uvarint::len(body as u64) + body) as u64
}

/// What the caller makes of an error that the peer answered with.
pub(crate) fn refusal(peer: PeerId, protocol: &str, error: ServeError) -> RequestError {
    let ServeError { code, text, retry_after } = error;
    match code {
        ServeError::OVERLOADED => {
            RequestError::Overloaded { peer, protocol: protocol.to_owned(), retry_after, text }
        }
        code => RequestError::Refused { peer, code, text },
    }
}

/// A peer's words, fit for a terminal and a log: cut, and with spaces in place of control characters.
fn error_text(body: &[u8]) -> String {
    let cut = &body[..body.len().min(MAX_ERROR_TEXT)];
    let mut text = String::from_utf8_lossy(cut).replace(char::is_control, " ");
    // A byte that is no UTF-8 has become three.
    text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_wire::frame::Decoder;

    fn frames(bytes: Bytes) -> Vec<Bytes> {
        let mut decoder = Decoder::new(1 << 20);
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
    }

    #[test]
    fn the_words_of_an_error_are_cut_and_cannot_move_the_cursor() {
        assert_eq!(error_text("no\n\u{1b}[2Jsuch ü".as_bytes()), "no  [2Jsuch ü");
        assert!(error_text(&[0xff; 2 * MAX_ERROR_TEXT]).len() <= MAX_ERROR_TEXT);
        assert!(error_text("ü".repeat(MAX_ERROR_TEXT).as_bytes()).len() <= MAX_ERROR_TEXT);
    }

    #[test]
    fn an_error_survives_the_wire_with_its_time_in_a_status_that_older_nodes_can_read() {
        for (code, wait) in
            [(1, None), (u32::MAX, Some(Duration::MAX)), (2, Some(Duration::from_millis(250)))]
        {
            let sent = ServeError { code, text: "no".into(), retry_after: wait };
            let pair = frames(error(sent.clone()));
            assert!(pair[0].len() <= uvarint::MAX_LEN, "{}", pair[0].len());
            let read = read_pair(&pair[0], pair[1].clone()).unwrap().unwrap_err();
            assert_eq!((read.code, read.text), (code, sent.text));
            let most = Duration::from_millis(MAX_RETRY_AFTER_MS);
            assert_eq!(read.retry_after, wait.map(|wait| wait.min(most)));
        }
    }

    #[test]
    fn a_request_is_one_message_unless_there_is_something_to_say_about_it() {
        let question = |deadline, window| {
            frames(super::question(&crate::Raw(Bytes::from_static(b"what")), deadline, window))
        };
        assert_eq!(question(None, 0), [&b"what"[..]]);
        let with = question(Some(Duration::from_millis(1500)), 7);
        let options = read_options(with.get(1).cloned()).unwrap();
        assert_eq!((options.deadline_ms, options.window_bytes), (1501, 7));
        let over = question(Some(Duration::ZERO), 0);
        assert_eq!(read_options(over.get(1).cloned()).unwrap().deadline_ms, 1);
        assert_eq!(read_options(None).unwrap(), Options::default());
    }

    #[test]
    fn a_status_that_is_no_number_is_refused() {
        let body = Bytes::from_static(b"x");
        assert!(read_pair(&[0x80], body.clone()).is_err());
        assert!(read_pair(&[1; MAX_STATUS_BYTES + 1], body.clone()).is_err());
        assert!(read_pair(&[0xff, 0xff, 0xff, 0xff, 0x7f], body.clone()).is_err(), "over 32 bits");
        assert_eq!(read_pair(&[], body.clone()), Ok(Ok(body)));
    }

    #[test]
    fn a_grant_survives_the_wire_and_anything_else_is_none() {
        for bytes in [0, 1, 65_536, 1 << 40] {
            assert_eq!(read_grant(frames(grant(bytes)).remove(0)), Some(bytes));
        }
        assert_eq!(read_grant(Bytes::new()), None);
        assert_eq!(read_grant(Bytes::from_static(&[1, 1])), None);
    }
}
