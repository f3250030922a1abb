//! What our driver does on streams: the echo, served and asked for.

use bytes::Bytes;
use peerage::{Incoming, Stream};

use crate::Outcome;

/// Bytes of one read or write.
const CHUNK: usize = 64 * 1024;

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
