//! How much may be on the way: windows, and what decides how fast they are used.

use bytes::Bytes;
use futures::future::poll_immediate;
use peerage_transport::{CertificateKind, Connection, SendStream, StreamCode, TransportSettings};
use rustls::pki_types::CertificateDer;

use crate::support::*;
use crate::virtual_network::{DELAY, pass, virtual_pair};

/// Writes on all streams, while nobody reads, until they have taken `expected` bytes together; then for some round trips more. How much they took.
async fn taken(streams: &mut [SendStream], expected: usize) -> usize {
    let each = 1 << 20;
    let mut chunks: Vec<_> = streams.iter().map(|_| [Bytes::from(vec![1; each])]).collect();
    let mut round = async |chunks: &mut Vec<[Bytes; 1]>| {
        for (send, chunk) in streams.iter_mut().zip(chunks.iter_mut()) {
            let _ = tokio::time::timeout(3 * DELAY, send.write_chunks(chunk)).await;
        }
        chunks.iter().map(|chunk| each - chunk[0].len()).sum::<usize>()
    };
    soon(async { while round(&mut chunks).await < expected {} }).await;
    for _ in 0..5 {
        round(&mut chunks).await;
    }
    round(&mut chunks).await
}

///
#[tokio::test(start_paused = true)]
async fn what_a_peer_has_on_the_way_unread_is_bounded_for_a_stream_and_for_a_connection() {
    const KIB: usize = 1024;
    for (of_stream, of_connection, streams) in [(64, 1024, 1), (256, 1024, 1), (512, 256, 3), (512, 768, 3)] {
        let small = |settings: &mut TransportSettings| {
            settings.stream_window_bytes = of_stream as u32 * 1024;
            settings.peer_window_bytes = of_connection as u32 * 1024;
        };
        let pair = virtual_pair(|_| (), small).await;
        let mut opened = Vec::new();
        for _ in 0..streams {
            opened.push(soon(pair.out.open("/a/1")).await.unwrap().send);
        }
        let most = (of_stream * streams).min(of_connection) * KIB;
        // The protocol's name counts too.
        let got = taken(&mut opened, most - KIB).await;
        assert!(got <= most, "{got} bytes were taken of {of_stream} and {of_connection} KiB");
    }
}

///
#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_is_bounded_by_the_send_window() {
    for window in [64 * 1024, 512 * 1024] {
        let pair = virtual_pair(|settings| settings.send_window_bytes = window as u64, |_| ()).await;
        let mut on_the_way = 0;
        soon(async {
            // Until the other side's limits are raised.
            while on_the_way < window / 2 {
                let mut stream = pair.out.open("/a/1").await.unwrap();
                pass(3 * DELAY).await;
                let mut chunk = [Bytes::from(vec![1; 1 << 20])];
                // In one go: no acknowledgement comes in between.
                assert!(poll_immediate(Box::pin(stream.send.write_chunks(&mut chunk))).await.is_none());
                on_the_way = (1 << 20) - chunk[0].len();
                assert!(on_the_way <= window, "{on_the_way} of {window}");
                stream.send.reset(StreamCode::Cancelled);
            }
        })
        .await;
    }
}

/// the key of the certificate is of the type that was asked for.
#[tokio::test]
async fn the_certificate_is_of_the_kind_that_the_setting_names() {
    // The object identifiers of Ed25519 and of the curve P-256, as they stand in a key.
    let ed25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    let p256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    for (kind, expected, other) in
        [(CertificateKind::Ed25519, ed25519, p256), (CertificateKind::P256, p256, ed25519)]
    {
        let listener = endpoint(|settings| settings.certificate = kind).await;
        let (connection, _inn) = Foreign::honest().dial(&listener).await;
        let shown = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
        let has = |wanted: &[u8]| shown[0].windows(wanted.len()).any(|bytes| bytes == wanted);
        assert!(has(expected) && !has(other), "{kind:?}");
    }
}

/// The datagrams of a connection after some round trips, in bytes; as soon as they are as large as that, if they become so.
async fn datagrams(connection: &Connection, wanted: u16) -> u16 {
    for _ in 0..30 {
        if connection.stats().mtu >= wanted {
            break;
        }
        let mut stream = connection.open_lazy("/any/1").await.unwrap();
        stream.send.write_all(&[1; 100]).await.unwrap();
        stream.send.finish().unwrap();
        // Either end of the stream takes a round trip.
        let _ = soon(stream.send.stopped()).await;
    }
    connection.stats().mtu
}

/// What the other side takes bounds the search, and must not keep it from beginning.
#[tokio::test]
async fn over_loopback_the_largest_datagrams_that_both_sides_take_are_found() {
    let pair = connect(endpoint(|_| ()).await, endpoint(|_| ()).await).await;
    pair.out.admit();
    pair.inn.admit();
    assert_eq!(datagrams(&pair.out, 6500).await, 6500);
    assert_eq!(datagrams(&pair.inn, 6500).await, 6500);
    let foreign = Foreign::honest();
    let ours = endpoint(|_| ()).await;
    let (out, taken) = tokio::join!(ours.dial(foreign.address(), None), async {
        foreign.quinn.accept().await.unwrap().await
    });
    let _taken = taken.unwrap();
    let out = out.unwrap();
    out.admit();
    assert!((1452..=1472).contains(&datagrams(&out, 1452).await), "{:?}", out.stats());
}
