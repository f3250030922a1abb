//! Streams by libp2p-stream: how they are opened, accepted, read and written.

use std::future::Future;

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use peerage_bench_peer::{Outcome, Service};

use crate::frames;

/// Whatever the harness says on a stream.
pub(crate) const PLAIN: StreamProtocol = StreamProtocol::new("/bench/stream/1");
/// Messages with their lengths, see `frames.rs`.
pub(crate) const FRAMES: StreamProtocol = StreamProtocol::new("/bench/frames/1");
/// One message on a stream of its own.
pub(crate) const ONE_WAY: StreamProtocol = StreamProtocol::new("/bench/one-way/1");

/// What the server of a [`PLAIN`] or [`FRAMES`] stream says first.
const TAKEN: u8 = 1;
/// How often a stream is opened again.
const ATTEMPTS: usize = 20;

/// Serves the streams of all three protocols until the node ends.
pub(crate) fn serve(control: &Control, service: &Service) -> Outcome<()> {
    let plain = service.clone();
    accept(control, PLAIN, move |mut stream| {
        let service = plain.clone();
        async move {
            stream.write_all(&[TAKEN]).await?;
            service.serve(Duplex::new(stream)).await
        }
    })?;
    accept(control, FRAMES, |mut stream| async move {
        stream.write_all(&[TAKEN]).await?;
        frames::receive(stream).await
    })?;
    let one_way = service.clone();
    accept(control, ONE_WAY, move |stream| {
        let service = one_way.clone();
        async move { service.serve(Duplex::new(stream)).await }
    })
}

/// Gives every stream of a protocol a task of its own.
fn accept<F>(
    control: &Control,
    protocol: StreamProtocol,
    serve: impl Fn(Stream) -> F + Send + 'static,
) -> Outcome<()>
where
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let mut streams = control.clone().accept(protocol)?;
    tokio::spawn(async move {
        while let Some((_, stream)) = streams.next().await {
            // A stream that breaks is its opener's affair, which sees it too.
            tokio::spawn(serve(stream));
        }
    });
    Ok(())
}

/// Opens a stream, and again when the server has dropped it.
///
/// libp2p-stream holds one incoming stream until the application takes it; one that comes before that is dropped although its protocol was agreed on, and the
/// opener learns of it when it reads. So whoever needs this very stream waits for a byte from who has taken it.
pub(crate) async fn open(control: &mut Control, peer: PeerId, protocol: StreamProtocol) -> Outcome<Stream> {
    for _ in 0..ATTEMPTS {
        let mut stream = control.open_stream(peer, protocol.clone()).await?;
        let mut first = [0];
        if stream.read_exact(&mut first).await.is_ok() && first == [TAKEN] {
            return Ok(stream);
        }
    }
    Err(format!("the server dropped {ATTEMPTS} streams, one after the other").into())
}

/// A stream of libp2p as the harness reads and writes it.
pub(crate) struct Duplex {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Duplex {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new() }
    }
}

impl peerage_bench_peer::Stream for Duplex {
    async fn write(&mut self, bytes: Bytes) -> Outcome<()> {
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn finish(&mut self) -> Outcome<()> {
        Ok(self.stream.close().await?)
    }

    async fn read(&mut self, most: usize) -> Outcome<&[u8]> {
        if self.buffer.len() < most {
            self.buffer.resize(most, 0);
        }
        let length = self.stream.read(&mut self.buffer[..most]).await?;
        Ok(&self.buffer[..length])
    }
}
