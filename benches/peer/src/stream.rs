//! Streams, and what is said on them. The first byte of a stream is its kind; it is part of the payload, so that nothing is added to it.

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{CHUNK, Echo, Outcome, SHORT};

/// A stream in both directions, as the measured library gives it.
pub trait Stream: Send + 'static {
    /// Writes all of it, and sees to it that it leaves.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Outcome<()>> + Send;

    /// Nothing more is written; what was written still arrives.
    fn finish(&mut self) -> impl Future<Output = Outcome<()>> + Send;

    /// What is there next, at most `most` bytes; empty at the end.
    fn read(&mut self, most: usize) -> impl Future<Output = Outcome<&[u8]>> + Send;

    /// Reads to the end; the number of bytes.
    fn drain(&mut self) -> impl Future<Output = Outcome<u64>> + Send {
        async {
            let mut total = 0;
            loop {
                match self.read(CHUNK).await?.len() {
                    0 => return Ok(total),
                    length => total += length as u64,
                }
            }
        }
    }
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes to the end, which are counted; the answer is their number.
    Bulk = 1,
    /// Messages of 32 bytes, each of which comes back.
    Echo,
    /// One message of 32 bytes, which comes back.
    Request,
    /// One message that is counted.
    OneWay,
    /// A question: when have so many of those arrived?
    Arrived,
}

impl Kind {
    /// A message of this length that begins with the kind.
    pub fn message(self, length: usize) -> Bytes {
        let mut bytes = vec![7; length];
        if let Some(first) = bytes.first_mut() {
            *first = self as u8;
        }
        bytes.into()
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Kind::Bulk, Kind::Echo, Kind::Request, Kind::OneWay, Kind::Arrived]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A [`Stream`] of anything that tokio can read and write. It reads into one buffer, which grows to what was asked for.
pub struct Io<S> {
    io: S,
    buffer: Vec<u8>,
}

impl<S> Io<S> {
    /// Wraps it. Two halves are joined with [`tokio::io::join`].
    pub fn new(io: S) -> Self {
        Self { io, buffer: Vec::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for Io<S> {
    async fn write(&mut self, bytes: Bytes) -> Outcome<()> {
        self.io.write_all(&bytes).await?;
        Ok(self.io.flush().await?)
    }

    async fn finish(&mut self) -> Outcome<()> {
        Ok(self.io.shutdown().await?)
    }

    async fn read(&mut self, most: usize) -> Outcome<&[u8]> {
        if self.buffer.len() < most {
            self.buffer.resize(most, 0);
        }
        let length = self.io.read(&mut self.buffer[..most]).await?;
        Ok(&self.buffer[..length])
    }
}

/// An echo on a stream of its own.
pub(crate) struct StreamEcho<S>(pub(crate) S);

impl<S: Stream> Echo for StreamEcho<S> {
    fn ping(&mut self) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(async {
            self.0.write(Kind::Echo.message(SHORT)).await?;
            read_exactly(&mut self.0, SHORT).await
        })
    }
}

/// Reads an answer that is as long as the question and begins like it, and the end after it.
pub(crate) async fn expect_echo(stream: &mut impl Stream, length: usize) -> Outcome<()> {
    let came = stream.drain().await?;
    crate::peer::expect(came, length as u64, "bytes of an answer")
}

async fn read_exactly(stream: &mut impl Stream, length: usize) -> Outcome<()> {
    let mut left = length;
    while left > 0 {
        match stream.read(left).await?.len() {
            0 => return Err(format!("the stream ended {left} bytes before the end of an answer").into()),
            came => left -= came,
        }
    }
    Ok(())
}

/// Reads a number of eight bytes, the highest first.
pub(crate) async fn read_number(stream: &mut impl Stream) -> Outcome<u64> {
    let mut bytes = Vec::with_capacity(8);
    while bytes.len() < 8 {
        let part = stream.read(8 - bytes.len()).await?;
        if part.is_empty() {
            return Err("the stream ended before the answer".into());
        }
        bytes.extend_from_slice(part);
    }
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
