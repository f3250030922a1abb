//! The protocol's messages and raw bytes over one stream.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use peerage_wire::frame::{self, Decoder, FrameError};
use prost::Message;
use tokio::time::timeout;

use super::{ChunkRead, ChunkWrite, MAX_MESSAGE_BYTES};

/// Why a stream could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PipeError {
    /// The stream or the connection under it broke.
    #[error("the stream broke: {0}")]
    Broken(#[from] io::Error),
    /// The other side finished where it had more to say.
    #[error("the other side ended the stream early")]
    Ended,
    /// The other side said nothing, or took nothing, for too long.
    #[error("the other side was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// The other side does not speak the protocol.
    #[error("the other side broke the protocol: {0}")]
    Frame(#[from] FrameError),
}

/// Reads messages, then raw bytes.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    decoder: Decoder,
}

impl<R: ChunkRead> Reader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, decoder: Decoder::new(MAX_MESSAGE_BYTES) }
    }

    /// The next message, which has to be whole within `patience`.
    pub(crate) async fn message<M: Message + Default>(&mut self, patience: Duration) -> Result<M, PipeError> {
        timeout(patience, self.next_message()).await.map_err(|_| PipeError::Silent(patience))?
    }

    /// The next raw bytes, at most `most` of them; `None` at the end of the stream.
    pub(crate) async fn bytes(&mut self, most: usize) -> Result<Option<Bytes>, PipeError> {
        if self.decoder.buffered() == 0 {
            return Ok(self.inner.read_chunk(most).await?);
        }
        // What came in one chunk with the last message.
        let mut rest = std::mem::replace(&mut self.decoder, Decoder::new(MAX_MESSAGE_BYTES)).into_rest();
        let mut first = rest.pop_front().unwrap_or_default();
        if first.len() > most {
            rest.push_front(first.split_off(most));
        }
        rest.into_iter().for_each(|chunk| self.decoder.push(chunk));
        Ok(Some(first))
    }

    async fn next_message<M: Message + Default>(&mut self) -> Result<M, PipeError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            match self.inner.read_chunk(MAX_MESSAGE_BYTES).await? {
                Some(chunk) => self.decoder.push(chunk),
                None => return Err(PipeError::Ended),
            }
        }
    }
}

/// Writes messages and raw bytes, each within a patience.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    inner: W,
    patience: Duration,
}

impl<W: ChunkWrite> Writer<W> {
    /// A writer that gives up when one write takes longer than `patience`.
    pub(crate) fn new(inner: W, patience: Duration) -> Self {
        Self { inner, patience }
    }

    pub(crate) async fn message(&mut self, message: &impl Message) -> Result<(), PipeError> {
        self.bytes(frame::encode(message)).await
    }

    pub(crate) async fn bytes(&mut self, chunk: Bytes) -> Result<(), PipeError> {
        let written = timeout(self.patience, self.inner.write_chunk(chunk)).await;
        Ok(written.map_err(|_| PipeError::Silent(self.patience))??)
    }

    pub(crate) async fn finish(&mut self) -> Result<(), PipeError> {
        let finished = timeout(self.patience, self.inner.finish()).await;
        Ok(finished.map_err(|_| PipeError::Silent(self.patience))??)
    }
}
