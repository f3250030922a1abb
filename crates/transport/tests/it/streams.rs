//! Bytes through streams: whole, in order, and never the part for the whole.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use peerage_transport::{ReadError, RecvStream, SendStream, Stream, StreamCode, WriteError};
use peerage_wire::chat::Chat;
use peerage_wire::frame::FrameError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

/// A stream between the two sides of a pair, from both ends.
async fn stream(pair: &Pair) -> (Stream, Stream) {
    let near = pair.out.open("/a/1").await.unwrap();
    let inbound = soon(pair.inn.accept_stream()).await.unwrap();
    let (_, far) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
    (near, far)
}

/// Bytes that no shift, loss or repetition leaves the same.
fn pattern(length: usize, salt: u32) -> Bytes {
    let words =
        (0..length.div_ceil(4) as u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) ^ salt).to_le_bytes());
    words.take(length).collect()
}

async fn write_whole(mut send: SendStream, data: Bytes) {
    let mut chunks: Vec<Bytes> =
        (0..data.len()).step_by(60_000).map(|at| data.slice(at..(at + 60_000).min(data.len()))).collect();
    for group in chunks.chunks_mut(3) {
        send.write_chunks(group).await.unwrap();
        assert!(group.iter().all(Bytes::is_empty));
    }
    send.finish().unwrap();
    assert_eq!(send.stopped().await.unwrap(), None);
}

async fn read_whole(mut recv: RecvStream, expected: Bytes) {
    let mut at = 0;
    while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
        assert_eq!(chunk, expected.slice(at..at + chunk.len()), "from byte {at}");
        at += chunk.len();
    }
    assert_eq!(at, expected.len());
    assert_eq!(recv.read_chunk(1).await.unwrap(), None, "an end stays the end");
}

/// Contract C-28.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_mebibytes_go_both_ways_at_once_unharmed() {
    let pair = pair().await;
    let (near, far) = stream(&pair).await;
    let (there, back) = (pattern(32 << 20, 1), pattern(32 << 20, 2));
    let tasks = [
        tokio::spawn(write_whole(near.send, there.clone())),
        tokio::spawn(write_whole(far.send, back.clone())),
        tokio::spawn(read_whole(far.recv, there)),
        tokio::spawn(read_whole(near.recv, back)),
    ];
    for task in tasks {
        tokio::time::timeout(4 * PATIENCE, task).await.unwrap().unwrap();
    }
}

/// Contract C-29.
#[tokio::test]
async fn a_dropped_sender_is_seen_as_a_reset_and_never_as_the_end() {
    let pair = pair().await;
    let (mut near, mut far) = stream(&pair).await;
    near.send.write_all(b"part").await.unwrap();
    assert_eq!(far.recv.read_chunk(100).await.unwrap().unwrap(), "part");
    drop(near.send);
    let error = soon(far.recv.read_chunk(100)).await.unwrap_err();
    assert_eq!(error, ReadError::Reset { code: StreamCode::Cancelled });
    assert_eq!(far.recv.read_chunk(100).await.unwrap_err(), error, "and stays one");
}

#[tokio::test]
async fn a_finished_sender_delivers_after_it_was_dropped() {
    let pair = pair().await;
    let (mut near, far) = stream(&pair).await;
    let data = pattern(100_000, 3);
    near.send.write_chunk(data.clone()).await.unwrap();
    near.send.finish().unwrap();
    assert_eq!(near.send.finish().unwrap_err(), WriteError::Finished);
    assert_eq!(near.send.write_all(b"more").await.unwrap_err(), WriteError::Finished);
    drop(near);
    soon(read_whole(far.recv, data)).await;
}

#[tokio::test]
async fn a_dropped_reader_stops_the_sender() {
    let pair = pair().await;
    let (mut near, far) = stream(&pair).await;
    drop(far.recv);
    assert_eq!(soon(near.send.stopped()).await.unwrap(), Some(StreamCode::Cancelled));
    let error = near.send.write_all(b"x").await.unwrap_err();
    assert_eq!(error, WriteError::Stopped { code: StreamCode::Cancelled });
}

#[tokio::test]
async fn a_stopped_reader_says_so_and_not_that_the_stream_ended() {
    let pair = pair().await;
    let (mut near, mut far) = stream(&pair).await;
    near.send.write_all(b"unread").await.unwrap();
    far.recv.stop(StreamCode::Overloaded);
    assert_eq!(far.recv.read_chunk(1).await.unwrap_err(), ReadError::Stopped);
    assert_eq!(soon(near.send.stopped()).await.unwrap(), Some(StreamCode::Overloaded));
}

#[tokio::test]
async fn a_read_takes_no_more_than_asked_and_leaves_the_rest() {
    let pair = pair().await;
    let mut near = pair.out.open_lazy("/a/1").await.unwrap();
    near.send.write_all(b"abcdefgh").await.unwrap();
    let inbound = pair.inn.accept_stream().await.unwrap();
    let (_, mut far) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
    for expected in ["abc", "def", "gh"] {
        assert_eq!(far.recv.read_chunk(3).await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn messages_come_whole_and_in_order_from_frames() {
    let pair = pair().await;
    let (mut near, mut far) = stream(&pair).await;
    let chat = |id: u64| Chat { id, text: "x".repeat(id as usize * 37), ..Default::default() };
    for id in 0..100 {
        near.send.write_frame(&chat(id)).await.unwrap();
    }
    near.send.finish().unwrap();
    for id in 0..100 {
        let message: Chat = soon(far.recv.read_message(10_000)).await.unwrap().unwrap();
        assert_eq!(message, chat(id));
    }
    assert_eq!(far.recv.read_message::<Chat>(10_000).await.unwrap(), None);
}

#[tokio::test]
async fn a_read_of_a_message_that_was_given_up_loses_no_byte() {
    let pair = pair().await;
    let (mut near, mut far) = stream(&pair).await;
    near.send.write_all(b"\x08abc").await.unwrap();
    let mut reading = Box::pin(far.recv.read_frame(100));
    // Polled until it has what has come, then dropped.
    for _ in 0..50 {
        assert!(poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_pending())).await);
        tokio::task::yield_now().await;
    }
    drop(reading);
    near.send.write_all(b"defghtail").await.unwrap();
    assert_eq!(soon(far.recv.read_frame(50)).await.unwrap().unwrap(), "abcdefgh");
    assert_eq!(soon(far.recv.read_chunk(100)).await.unwrap().unwrap(), "tail");
}

#[tokio::test]
async fn frames_with_another_bound_and_plain_reads_can_be_mixed() {
    let pair = pair().await;
    let mut near = pair.out.open_lazy("/a/1").await.unwrap();
    near.send.write_all(b"\x03one\x03twothree\x04four").await.unwrap();
    near.send.finish().unwrap();
    let inbound = pair.inn.accept_stream().await.unwrap();
    let (_, mut far) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
    assert_eq!(far.recv.read_frame(3).await.unwrap().unwrap(), "one");
    assert_eq!(far.recv.read_frame(1000).await.unwrap().unwrap(), "two");
    assert_eq!(far.recv.read_chunk(5).await.unwrap().unwrap(), "three");
    assert_eq!(far.recv.read_frame(4).await.unwrap().unwrap(), "four");
    assert_eq!(far.recv.read_frame(4).await.unwrap(), None);
}

#[tokio::test]
async fn bad_frames_are_errors() {
    let pair = pair().await;
    for (bytes, expected) in [
        (&b"\x65"[..], FrameError::TooLarge { length: 101, most: 100 }),
        (b"\x05abc", FrameError::Truncated),
        (b"\x05", FrameError::Truncated),
    ] {
        let (mut near, mut far) = stream(&pair).await;
        near.send.write_all(bytes).await.unwrap();
        near.send.finish().unwrap();
        let error = soon(far.recv.read_frame(100)).await.unwrap_err();
        assert_eq!(error, ReadError::Frame(expected));
    }
}

#[tokio::test]
async fn a_stream_is_a_tokio_stream() {
    let pair = pair().await;
    let mut near = pair.out.open_lazy("/a/1").await.unwrap();
    let echo = async {
        let inbound = pair.inn.accept_stream().await.unwrap();
        let (_, far) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
        let (mut send, mut recv) = far.split();
        tokio::io::copy(&mut recv, &mut send).await.unwrap();
        send.shutdown().await.unwrap();
    };
    let data = pattern(300_000, 4);
    let talk = async {
        let mut answer = Vec::new();
        // Lazily: flush sends the name, and the answer must not be read as data.
        near.flush().await.unwrap();
        let (mut send, mut recv) = near.split();
        let (sent, read) = tokio::join!(
            async {
                AsyncWriteExt::write_all(&mut send, &data).await?;
                AsyncWriteExt::shutdown(&mut send).await
            },
            recv.read_to_end(&mut answer)
        );
        sent.unwrap();
        assert_eq!(read.unwrap(), data.len());
        assert_eq!(answer, data);
    };
    soon(async { tokio::join!(echo, talk) }).await;
}

#[tokio::test]
async fn a_write_that_was_given_up_can_be_taken_up_again() {
    let pair = pair().await;
    let (mut near, far) = stream(&pair).await;
    let data = pattern(6 << 20, 5);
    let mut chunks = [data.slice(..3 << 20), data.slice(3 << 20..)];
    {
        // More than the window takes while nobody reads.
        let mut writing = pin!(near.send.write_chunks(&mut chunks));
        assert!(poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx).is_pending())).await);
    }
    assert!(chunks.iter().any(|chunk| !chunk.is_empty()));
    let rest = async {
        near.send.write_chunks(&mut chunks).await.unwrap();
        near.send.finish().unwrap();
    };
    soon(async { tokio::join!(rest, read_whole(far.recv, data)) }).await;
}

#[tokio::test]
async fn streams_have_numbers_and_priorities() {
    let pair = pair().await;
    let (near, far) = stream(&pair).await;
    assert_eq!(near.send.id(), far.recv.id());
    let (other, _) = stream(&pair).await;
    assert_ne!(near.send.id(), other.send.id());
    near.send.set_priority(7);
    near.abort(StreamCode::Cancelled);
}

#[tokio::test]
async fn streams_speak_futures_io_as_well() {
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    let pair = pair().await;
    let (mut near, mut far) = stream(&pair).await;
    AsyncWriteExt::write_all(&mut near, b"hello ").await.unwrap();
    AsyncWriteExt::write_all(&mut near.send, b"world").await.unwrap();
    AsyncWriteExt::flush(&mut near).await.unwrap();
    AsyncWriteExt::close(&mut near).await.unwrap();
    let mut first = [0; 6];
    AsyncReadExt::read_exact(&mut far, &mut first).await.unwrap();
    let mut rest = Vec::new();
    AsyncReadExt::read_to_end(&mut far.recv, &mut rest).await.unwrap();
    assert_eq!((&first, &rest[..]), (b"hello ", &b"world"[..]));
}

#[tokio::test]
async fn the_bytes_of_each_protocol_are_counted_without_its_negotiation() {
    let pair = pair().await;
    for (protocol, there, back) in [("/a/1", 1000, 10), ("/b/1", 30_000, 0), ("/a/1", 5, 7)] {
        let mut near = pair.out.open_lazy(protocol).await.unwrap();
        near.send.write_all(&vec![1; there]).await.unwrap();
        near.send.finish().unwrap();
        let inbound = soon(pair.inn.accept_stream()).await.unwrap();
        let (_, mut far) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
        while far.recv.read_chunk(usize::MAX).await.unwrap().is_some() {}
        far.send.write_chunk(vec![2; back].into()).await.unwrap();
        far.send.finish().unwrap();
        while near.recv.read_chunk(usize::MAX).await.unwrap().is_some() {}
    }
    let (_, mut near) = {
        let negotiated = pair.out.open_any(&["/none/1", "/b/1"]);
        let inbound = async {
            soon(pair.inn.accept_stream()).await.unwrap().negotiate(|name| name == "/b/1", PATIENCE).await
        };
        let (near, far) = tokio::join!(negotiated, inbound);
        far.unwrap();
        near.unwrap()
    };
    near.send.write_all(b"abc").await.unwrap();
    let counted = |connection: &peerage_transport::Connection| -> Vec<(String, u64, u64)> {
        let traffic = connection.traffic();
        traffic.iter().map(|one| (one.protocol.to_string(), one.sent_bytes, one.received_bytes)).collect()
    };
    let expected = [("/a/1".into(), 1005, 17), ("/b/1".into(), 30_003, 0), ("/none/1".into(), 0, 0)];
    assert_eq!(counted(&pair.out), expected);
    assert_eq!(counted(&pair.inn), [("/a/1".into(), 17, 1005), ("/b/1".into(), 0, 30_000)]);
}
