//! Requests and answers are read and kept only as far as their memory is accounted for.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use peerage_transport::{ReadError, RecvStream};

use crate::memory::{Exhausted, Reservation};

/// Why a message was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The stream says so.
    Stream(ReadError),
    /// There is no memory for it.
    NoMemory(Exhausted),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        Self::Stream(error)
    }
}

impl From<Exhausted> for Unread {
    fn from(exhausted: Exhausted) -> Self {
        Self::NoMemory(exhausted)
    }
}

/// What is reserved of a message of which little more than the length has come, in bytes.
const FIRST: usize = 16 * 1024;

/// The next message of at most `most` bytes; `None` at the end. Its length is what `memory` holds from then on. While it comes, what has come is
/// reserved and as much again: to announce a length keeps nobody else's message out.
pub(crate) fn poll_read(
    cx: &mut Context<'_>,
    recv: &mut RecvStream,
    most: usize,
    memory: &mut Reservation,
) -> Poll<Result<Option<Bytes>, Unread>> {
    match recv.poll_read_frame(cx, most) {
        Poll::Pending => match recv.expected() {
            Some(length) => {
                let wanted = length.min((2 * recv.begun()).max(FIRST));
                if wanted > memory.bytes() {
                    memory.resize(wanted)?;
                }
                Poll::Pending
            }
            None => Poll::Pending,
        },
        read => {
            let frame = ready!(read)?;
            memory.resize(frame.as_ref().map_or(0, Bytes::len))?;
            Poll::Ready(Ok(frame))
        }
    }
}

/// The same to be awaited.
pub(crate) async fn read(
    recv: &mut RecvStream,
    most: usize,
    memory: &mut Reservation,
) -> Result<Option<Bytes>, Unread> {
    poll_fn(|cx| poll_read(cx, recv, most, memory)).await
}
