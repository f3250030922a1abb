//! Raw streams between two nodes over loopback: in tokio's words, in those of `futures::io`, and in chunks that nobody copies.
#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use peerage::{Incoming, Node, NodeKey, PeerId, RequestError, Stream, StreamCode};

mod common;

use common::{builder, within};

const PROTOCOL: &str = "/test/bulk/1";

/// One that accepts streams and one that opens them.
async fn pair() -> (Node, Incoming, Node, PeerId) {
    let server = builder().start().await.unwrap();
    let client = builder().start().await.unwrap();
    let peer = within("a connection", client.connect(&server.listen_addresses()[0])).await.unwrap();
    let incoming = server.accept(PROTOCOL).unwrap();
    (server, incoming, client, peer)
}

async fn accept(incoming: &Incoming) -> Stream {
    within("a stream", incoming.recv()).await.unwrap().1
}

/// Some megabytes that are nowhere the same for long.
fn bulk() -> Vec<u8> {
    (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Contract C-28.
#[tokio::test]
async fn a_stream_is_read_and_written_in_tokios_words() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_server, incoming, client, peer) = pair().await;
    let serving = async {
        let mut stream = accept(&incoming).await;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.send.stopped().await.unwrap();
    };
    let asking = async {
        let mut stream = client.open(peer, PROTOCOL).await.unwrap();
        let mut source = std::io::Cursor::new(bulk());
        let (mut reading, mut writing) = (&mut stream.recv, &mut stream.send);
        let sent = async {
            tokio::io::copy(&mut source, &mut writing).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(sent, AsyncReadExt::read_to_end(&mut reading, &mut got));
        assert_eq!(read.unwrap(), 3_000_000);
        assert!(got == bulk());
    };
    within("both", async { tokio::join!(serving, asking) }).await;
}

#[tokio::test]
async fn a_stream_is_read_and_written_in_the_words_of_futures() {
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    let (_server, incoming, client, peer) = pair().await;
    let serving = async {
        let mut stream = accept(&incoming).await;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
        AsyncWriteExt::close(&mut stream).await.unwrap();
        stream.send.stopped().await.unwrap();
    };
    let asking = async {
        let mut stream = client.open(peer, PROTOCOL).await.unwrap();
        stream.write_all(&bulk()).await.unwrap();
        AsyncWriteExt::close(&mut stream).await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got == bulk());
    };
    within("both", async { tokio::join!(serving, asking) }).await;
}

#[tokio::test]
async fn chunks_are_handed_over_on_both_sides_and_never_copied() {
    let (_server, incoming, client, peer) = pair().await;
    let mut stream = client.open(peer, PROTOCOL).await.unwrap();
    let chunk = Bytes::from(bulk());
    let serving = async {
        let mut stream = accept(&incoming).await;
        // What came in one packet is given out piece by piece from where it lies.
        let first = stream.recv.read_chunk(100).await.unwrap().unwrap();
        let second = stream.recv.read_chunk(100).await.unwrap().unwrap();
        assert_eq!((first.len(), second.len()), (100, 100));
        assert_eq!(second.as_ptr(), first[first.len()..].as_ptr());
        let mut count = 200;
        while let Some(chunk) = stream.recv.read_chunk(usize::MAX).await.unwrap() {
            count += chunk.len();
        }
        assert_eq!(count, 3_000_000);
        // Messages with their length in front lie beside one another too.
        stream.send.write_all(&[3, 1, 2, 3, 2, 4, 5]).await.unwrap();
        stream.send.finish().unwrap();
        stream.send.stopped().await.unwrap();
    };
    let asking = async {
        stream.send.write_chunk(chunk.clone()).await.unwrap();
        // QUIC keeps the very bytes until the peer has them, and lets go of them then.
        assert!(!chunk.is_unique(), "a copy was made");
        stream.send.finish().unwrap();
        stream.send.stopped().await.unwrap();
        let first = stream.recv.read_frame(10).await.unwrap().unwrap();
        let second = stream.recv.read_frame(10).await.unwrap().unwrap();
        assert_eq!((&first[..], &second[..]), (&[1, 2, 3][..], &[4, 5][..]));
        assert_eq!(second.as_ptr() as usize, first.as_ptr() as usize + 4);
        assert_eq!(stream.recv.read_frame(10).await.unwrap(), None);
    };
    within("both", async { tokio::join!(serving, asking) }).await;
    drop(stream);
    within("the last reference", async {
        while !chunk.is_unique() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Contract C-29.
#[tokio::test]
async fn a_reader_that_stops_tells_the_writer_and_a_name_that_nobody_accepts_is_told_at_the_first_read() {
    let (server, incoming, client, peer) = pair().await;
    let mut stream = client.open(peer, PROTOCOL).await.unwrap();
    let mut accepted = accept(&incoming).await;
    accepted.recv.stop(StreamCode::RateLimited);
    let error = within("a stop", async {
        loop {
            if let Err(error) = stream.send.write_chunk(Bytes::from_static(&[0; 1000])).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(error.to_string().contains("rate limit"), "{error}");
    let mut nobody = client.open(peer, "/test/nobody/1").await.unwrap();
    let error = within("an answer", nobody.recv.read_chunk(1)).await.unwrap_err();
    assert!(error.to_string().contains("does not support /test/nobody/1"), "{error}");
    drop(incoming);
    let mut late = client.open(peer, PROTOCOL).await.unwrap();
    within("an answer", late.recv.read_chunk(1)).await.unwrap_err();
    let gone = NodeKey::generate().peer_id();
    let error = server.open(gone, PROTOCOL).await.unwrap_err();
    assert_eq!(error, RequestError::NotConnected { peer: gone });
}
