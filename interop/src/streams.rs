//! What our driver does on streams: echo and perf, served and asked for.

use bytes::Bytes;
use peerage::{Incoming, Stream};

use crate::Outcome;

/// Bytes of one read or write.
const CHUNK: usize = 64 * 1024;
/// The longest download that we serve in one exchange.
const MAX_DOWNLOAD: u64 = 16 << 30;

/// Serves an echo on every stream, reading and writing side by side.
pub(crate) async fn serve_echo(incoming: Incoming) {
    while let Some((_, stream)) = incoming.recv().await {
        tokio::spawn(async move {
            let Stream { mut send, mut recv, .. } = stream;
            while let Ok(Some(chunk)) = recv.read_chunk(CHUNK).await {
                if send.write_chunk(chunk).await.is_err() {
                    return;
                }
            }
            let _ = send.finish();
            let _ = send.stopped().await;
        });
    }
}

/// Sends `bytes` random bytes and compares what comes back while sending.
pub(crate) async fn echo(stream: Stream, bytes: usize) -> Outcome<()> {
    let mut sent = vec![0; bytes];
    getrandom::fill(&mut sent)?;
    let sent = Bytes::from(sent);
    let Stream { mut send, mut recv, .. } = stream;
    let writing = async {
        let mut rest = sent.clone();
        while !rest.is_empty() {
            send.write_chunk(rest.split_to(rest.len().min(CHUNK))).await?;
        }
        send.finish()?;
        Outcome::Ok(())
    };
    let reading = async {
        let mut at = 0;
        while let Some(chunk) = recv.read_chunk(CHUNK).await? {
            let expected = sent.get(at..at + chunk.len()).ok_or("more came back than was sent")?;
            if chunk != expected {
                return Err(format!("the echo differs after {at} bytes").into());
            }
            at += chunk.len();
        }
        if at == bytes {
            Outcome::Ok(())
        } else {
            Err(format!("the echo ended after {at} of {bytes} bytes").into())
        }
    };
    let (written, read) = tokio::join!(writing, reading);
    // What was read says more about a failure than the write that it broke.
    read?;
    written
}

/// Serves `/perf/1.0.0`: a number, an upload to the end, then so many bytes back.
pub(crate) async fn serve_perf(incoming: Incoming) {
    while let Some((_, stream)) = incoming.recv().await {
        tokio::spawn(async move {
            let _ = answer_perf(stream).await;
        });
    }
}

async fn answer_perf(mut stream: Stream) -> Outcome<()> {
    let mut head = Vec::with_capacity(8);
    while let Some(chunk) = stream.recv.read_chunk(CHUNK).await? {
        let missing = 8 - head.len();
        head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
    }
    let wanted = u64::from_be_bytes(head.as_slice().try_into()?);
    send_zeros(&mut stream, wanted.min(MAX_DOWNLOAD)).await?;
    stream.send.stopped().await?;
    Ok(())
}

/// Asks for one perf exchange.
pub(crate) async fn perf(mut stream: Stream, upload: u64, download: u64) -> Outcome<()> {
    stream.send.write_all(&download.to_be_bytes()).await?;
    send_zeros(&mut stream, upload).await?;
    let mut got = 0u64;
    while let Some(chunk) = stream.recv.read_chunk(CHUNK).await? {
        got += chunk.len() as u64;
    }
    if got == download { Ok(()) } else { Err(format!("{got} of {download} bytes came").into()) }
}

async fn send_zeros(stream: &mut Stream, mut count: u64) -> Outcome<()> {
    let zeros = Bytes::from_static(&[0; CHUNK]);
    while count > 0 {
        let part = zeros.slice(..count.min(CHUNK as u64) as usize);
        count -= part.len() as u64;
        stream.send.write_chunk(part).await?;
    }
    stream.send.finish()?;
    Ok(())
}
