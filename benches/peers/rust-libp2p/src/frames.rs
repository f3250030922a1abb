//! Messages on one stream, each with its length in front as an unsigned varint: the way of libp2p's own protocols.

use futures::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use libp2p::Stream;
use peerage_bench_peer::{CHUNK, JOINED, Kind, Messages, Outcome};
use unsigned_varint::{aio, encode};

/// The longest message.
const MOST: usize = 1 << 20;

/// Sends them, and waits until the other side has counted their bytes.
pub(crate) async fn send(stream: &mut Stream, messages: Messages) -> Outcome<()> {
    let payload = Kind::Bulk.message(messages.bytes);
    let most = if messages.joined { JOINED } else { 0 };
    let mut frames = Vec::with_capacity(most.max(messages.bytes) + 10);
    for _ in 0..messages.count {
        if !frames.is_empty() && frames.len() + payload.len() > most {
            stream.write_all(&frames).await?;
            frames.clear();
        }
        // Copied behind its length and written at once, as codecs do it: two writes would be dearer.
        frames.extend_from_slice(encode::usize(payload.len(), &mut encode::usize_buffer()));
        frames.extend_from_slice(&payload);
    }
    stream.write_all(&frames).await?;
    stream.close().await?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    let (arrived, sent) = (u64::from_be_bytes(answer), messages.count * messages.bytes as u64);
    if arrived == sent {
        Ok(())
    } else {
        Err(format!("{arrived} of {sent} bytes of messages arrived").into())
    }
}

/// Receives message after message, and answers at the end with the sum of their lengths.
pub(crate) async fn receive(stream: Stream) -> Outcome<()> {
    let mut stream = BufReader::with_capacity(CHUNK, stream);
    let (mut message, mut total) = (Vec::new(), 0u64);
    while let Some(length) = next_length(&mut stream).await? {
        message.resize(length, 0);
        stream.read_exact(&mut message).await?;
        total += length as u64;
    }
    let mut stream = stream.into_inner();
    stream.write_all(&total.to_be_bytes()).await?;
    Ok(stream.close().await?)
}

/// The length of the next message; none at the end of the stream.
async fn next_length(stream: &mut BufReader<Stream>) -> Outcome<Option<usize>> {
    use futures::io::AsyncBufReadExt;
    if stream.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    match aio::read_usize(&mut *stream).await {
        Ok(length) if length <= MOST => Ok(Some(length)),
        Ok(length) => {
            Err(format!("a message of {length} bytes was announced, and {MOST} is the most").into())
        }
        Err(error) => Err(format!("the length of a message: {error}").into()),
    }
}
