//! multistream-select 1.0: how the two ends of a stream agree on a protocol name (libp2p connections specification).
//!
//! Each message is a line: its length as an unsigned varint, its text, a newline that the length counts. Both sides begin with a header line; the
//! dialler proposes a name, the listener echoes it or says `na`. *Lazily*, a dialler with one name writes header, name and its first data at once
//! and looks at the answer when it first reads.
//!
//! This file decides; the streams of [`crate::stream`] carry it out.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerage_wire::uvarint;

use crate::close::{CloseCause, StreamCode, printable};

/// The longest line, newline included. go-libp2p takes no longer ones.
pub const MAX_LINE: usize = 1024;

/// The most names that a dialler may propose on one stream.
pub const MAX_PROPOSALS: usize = 8;

/// Why a stream has no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The other side doesn't serve what was proposed.
    #[error("the protocol {protocol} is not supported by the other side")]
    NotSupported {
        /// The name that was proposed, or all of them.
        protocol: String,
    },
    /// Nothing that the peer proposed is served here.
    #[error("the peer asked for {protocol}, which is not served here")]
    NotServed {
        /// The last name that it proposed.
        protocol: String,
    },
    /// A line is longer than the format allows, or its length is malformed.
    #[error("a line of the stream negotiation is malformed: {detail}")]
    BadLine {
        /// What is wrong with it.
        detail: String,
    },
    /// A well-formed line that doesn't belong here.
    #[error("the peer said «{line}» where the stream negotiation expects {expected}")]
    Unexpected {
        /// What came, shortened.
        line: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// The peer proposed more names than anyone needs.
    #[error("the peer proposed over {MAX_PROPOSALS} protocols on one stream")]
    TooManyProposals,
    /// The negotiation wasn't done in time.
    #[error("the stream negotiation was not done within {after:?}")]
    TimedOut {
        /// The time that it had.
        after: Duration,
    },
    /// The stream ended before a protocol was agreed on.
    #[error("the stream ended during its negotiation")]
    Ended,
    /// The peer gave up the stream.
    #[error("the peer gave up the stream during its negotiation: {code}")]
    Reset {
        /// Its reason.
        code: StreamCode,
    },
    /// The connection is gone.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] CloseCause),
}

/// Whether a name can be proposed: not empty, a single line, within [`MAX_LINE`].
pub(crate) fn is_protocol_name(name: &str) -> bool {
    !name.is_empty() && name.len() < MAX_LINE && !name.contains('\n') && name != NOT_AVAILABLE && name != LIST
}

/// Header and name, as a dialler begins.
pub(crate) fn proposal(protocol: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER.len() + protocol.len() + 6);
    put_line(HEADER, &mut out);
    put_line(protocol, &mut out);
    out.freeze()
}

/// A name alone, as a dialler goes on after `na`.
pub(crate) fn line(text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 3);
    put_line(text, &mut out);
    out.freeze()
}

fn put_line(text: &str, out: &mut BytesMut) {
    uvarint::put(text.len() as u64 + 1, out);
    out.put_slice(text.as_bytes());
    out.put_u8(b'\n');
}

/// Cuts what a stream delivers into lines. It holds no more than was pushed since the last whole line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    held: Bytes,
}

impl Lines {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.held.is_empty() {
            self.held = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.held.len() + chunk.len());
            joined.extend_from_slice(&self.held);
            joined.extend_from_slice(&chunk);
            self.held = joined.freeze();
        }
    }

    /// The next line without its newline; `None` when more bytes are needed.
    pub(crate) fn next_line(&mut self) -> Result<Option<Bytes>, NegotiationError> {
        let bad = |detail: String| NegotiationError::BadLine { detail };
        let length = uvarint::take(&self.held).map_err(|error| bad(error.to_string()))?;
        let Some((length, prefix)) = length else {
            return Ok(None);
        };
        if length == 0 || length > MAX_LINE as u64 {
            return Err(bad(format!("its length is {length}, and 1 to {MAX_LINE} are taken")));
        }
        let end = prefix + length as usize;
        if self.held.len() < end {
            return Ok(None);
        }
        let mut line = self.held.split_to(end);
        line.advance(prefix);
        if line.last() != Some(&b'\n') {
            return Err(bad("it doesn't end in a newline".into()));
        }
        line.truncate(line.len() - 1);
        Ok(Some(line))
    }

    /// Takes the header off the front; `false` when more bytes are needed. What begins otherwise is refused at once, so that nobody waits for the rest of
    /// a line that is none.
    fn take_header(&mut self) -> Result<bool, NegotiationError> {
        let present = self.held.len().min(HEADER_LINE.len());
        if self.held[..present] != HEADER_LINE[..present] {
            return Err(unexpected(&self.held, "the multistream header"));
        }
        let whole = present == HEADER_LINE.len();
        if whole {
            self.held.advance(present);
        }
        Ok(whole)
    }

    /// Whether bytes lie behind the last line that was taken.
    pub(crate) fn has_rest(&self) -> bool {
        !self.held.is_empty()
    }

    /// What came behind the last line: the protocol's own data.
    pub(crate) fn into_rest(self) -> Bytes {
        self.held
    }
}

/// The dialler's side: it has proposed and reads the answers.
#[derive(Debug)]
pub(crate) struct Dialler {
    lines: Lines,
    saw_header: bool,
    proposed: Arc<str>,
}

/// What the listener's answer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The name is agreed on.
    Agreed,
    /// The listener doesn't have it.
    NotAvailable,
}

impl Dialler {
    pub(crate) fn new(proposed: Arc<str>) -> Self {
        Self { lines: Lines::default(), saw_header: false, proposed }
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.lines.push(chunk);
    }

    /// The listener's answer to the name proposed last; `None` when more bytes are needed.
    pub(crate) fn answer(&mut self) -> Result<Option<Answer>, NegotiationError> {
        self.saw_header = self.saw_header || self.lines.take_header()?;
        if !self.saw_header {
            return Ok(None);
        }
        match self.lines.next_line()? {
            None => Ok(None),
            Some(line) if *line == *NOT_AVAILABLE.as_bytes() => Ok(Some(Answer::NotAvailable)),
            Some(line) if *line == *self.proposed.as_bytes() => Ok(Some(Answer::Agreed)),
            Some(line) => Err(unexpected(&line, "the proposed protocol or na")),
        }
    }

    /// Another name was proposed.
    pub(crate) fn propose(&mut self, protocol: Arc<str>) {
        self.proposed = protocol;
    }

    pub(crate) fn into_rest(self) -> Bytes {
        self.lines.into_rest()
    }
}

/// The listener's side: it reads proposals and says what to answer.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    lines: Lines,
    saw_header: bool,
    sent_header: bool,
    proposals: usize,
    refused: Option<String>,
}

/// What the listener does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read more.
    More,
    /// Write this and read on.
    Say(Bytes),
    /// Write this; the name is agreed on.
    Agree(String, Bytes),
    /// Write this, then give the stream up: what lies behind the refused name is data for it, not another proposal.
    Refuse(String, Bytes),
}

impl Step {
    /// What is to be written.
    pub(crate) fn answer(&mut self) -> Option<&mut Bytes> {
        match self {
            Self::More => None,
            Self::Say(answer) | Self::Agree(_, answer) | Self::Refuse(_, answer) => Some(answer),
        }
    }
}

impl Listener {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.lines.push(chunk);
    }

    pub(crate) fn step(&mut self, mut supports: impl FnMut(&str) -> bool) -> Result<Step, NegotiationError> {
        self.saw_header = self.saw_header || self.lines.take_header()?;
        if !self.saw_header {
            return Ok(Step::More);
        }
        let Some(line) = self.lines.next_line()? else {
            // A dialler that sent no name with its header, as py-libp2p does, waits for ours before it goes on.
            return Ok(if mem::replace(&mut self.sent_header, true) {
                Step::More
            } else {
                Step::Say(line(HEADER))
            });
        };
        self.proposals += 1;
        if self.proposals > MAX_PROPOSALS {
            return Err(NegotiationError::TooManyProposals);
        }
        let Ok(name) = str::from_utf8(&line) else {
            return Err(unexpected(&line, "a protocol name"));
        };
        let name = name.to_owned();
        if is_protocol_name(&name) && supports(&name) {
            let echo = self.say(&name);
            return Ok(Step::Agree(name, echo));
        }
        let no = self.say(NOT_AVAILABLE);
        self.refused = Some(name.clone());
        Ok(if self.lines.has_rest() { Step::Refuse(name, no) } else { Step::Say(no) })
    }

    /// The last name that was answered with `na`.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    pub(crate) fn into_rest(self) -> Bytes {
        self.lines.into_rest()
    }

    /// A line, with the header before the first one, so that both leave in one write.
    fn say(&mut self, text: &str) -> Bytes {
        if self.sent_header {
            line(text)
        } else {
            self.sent_header = true;
            proposal(text)
        }
    }
}

fn unexpected(line: &[u8], expected: &'static str) -> NegotiationError {
    NegotiationError::Unexpected { line: printable(line), expected }
}

const HEADER: &str = "/multistream/1.0.0";
const HEADER_LINE: &[u8] = b"\x13/multistream/1.0.0\n";
const NOT_AVAILABLE: &str = "na";
const LIST: &str = "ls";

#[cfg(test)]
mod tests;
