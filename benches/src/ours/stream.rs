//! Raw streams of a node.

use bytes::Bytes;
use peerage::Stream;
use peerage_bench_peer::Outcome;

/// Chunks that are taken at once.
const AT_ONCE: usize = 32;

/// A raw stream, with what was read last.
pub(crate) struct OurStream {
    stream: Stream,
    last: Bytes,
}

impl OurStream {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, last: Bytes::new() }
    }
}

impl peerage_bench_peer::Stream for OurStream {
    async fn write(&mut self, bytes: Bytes) -> Outcome<()> {
        Ok(self.stream.send.write_chunk(bytes).await?)
    }

    async fn finish(&mut self) -> Outcome<()> {
        Ok(self.stream.send.finish()?)
    }

    async fn read(&mut self, most: usize) -> Outcome<&[u8]> {
        self.last = self.stream.recv.read_chunk(most).await?.unwrap_or_default();
        Ok(&self.last)
    }

    async fn drain(&mut self) -> Outcome<u64> {
        let (mut total, mut chunks) = (0, [const { Bytes::new() }; AT_ONCE]);
        loop {
            match self.stream.recv.read_chunks(&mut chunks).await? {
                0 => return Ok(total),
                count => total += chunks[..count].iter().map(|chunk| chunk.len() as u64).sum::<u64>(),
            }
        }
    }
}
