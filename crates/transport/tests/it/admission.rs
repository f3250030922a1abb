//! What strangers get, and what an inbound connection can be answered before any cryptography.

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_immediate;
use peerage_transport::{AcceptError, DialError, Endpoint, TransportSettings};

use crate::support::*;

#[tokio::test]
async fn a_stranger_opens_four_streams_and_an_admitted_peer_more() {
    let pair = strangers().await;
    let mut streams = Vec::new();
    for _ in 0..TransportSettings::default().stranger_streams {
        streams.push(pair.out.open("/a/1").await.unwrap());
    }
    let mut fifth = Box::pin(pair.out.open("/a/1"));
    assert!(poll_immediate(&mut fifth).await.is_none(), "a stranger has no fifth stream");
    pair.inn.admit();
    streams.push(soon(fifth).await.unwrap());
    for _ in 5..TransportSettings::default().peer_streams {
        streams.push(soon(pair.out.open("/a/1")).await.unwrap());
    }
    let one_more = pair.out.open("/a/1");
    assert!(poll_immediate(Box::pin(one_more)).await.is_none(), "an admitted peer has its limit too");
}

#[tokio::test]
async fn a_stranger_fills_its_small_window_and_an_admitted_peer_goes_on() {
    let pair = strangers().await;
    let mut stream = pair.out.open("/a/1").await.unwrap();
    let window = TransportSettings::default().stranger_window_bytes as usize;
    // The window counts the negotiation too, so this much cannot be taken whole.
    let mut chunks = [Bytes::from(vec![1; window])];
    let writing = stream.send.write_chunks(&mut chunks);
    assert!(poll_immediate(Box::pin(writing)).await.is_none(), "nobody has read and nobody was admitted");
    pair.inn.admit();
    soon(stream.send.write_chunks(&mut chunks)).await.unwrap();
    assert!(chunks[0].is_empty());
}

#[tokio::test]
async fn a_retried_dial_comes_back_with_a_proved_address() {
    let (dialler, listener) = (endpoint(|_| ()).await, endpoint(|_| ()).await);
    let accept = async {
        let incoming = listener.accept().await.unwrap();
        assert!(!incoming.address_validated());
        assert_eq!(incoming.remote_address(), address(&dialler));
        incoming.retry().unwrap();
        let incoming = listener.accept().await.unwrap();
        assert!(incoming.address_validated());
        let again = incoming.retry().unwrap_err();
        again.accept().await
    };
    let (out, inn) = tokio::join!(dialler.dial(address(&listener), None), accept);
    assert_eq!(out.unwrap().peer_id(), listener.peer_id());
    assert_eq!(inn.unwrap().peer_id(), dialler.peer_id());
}

#[tokio::test]
async fn a_refused_dial_ends_at_once_and_says_so() {
    let (dialler, listener) = (endpoint(|_| ()).await, endpoint(|_| ()).await);
    let refuse = async { listener.accept().await.unwrap().refuse() };
    let (out, ()) = tokio::join!(dialler.dial(address(&listener), None), refuse);
    assert!(matches!(out.unwrap_err(), DialError::Refused { .. }));
    // So does one whose inbound side was dropped.
    let drop_it = async { drop(listener.accept().await.unwrap()) };
    let (out, ()) = tokio::join!(dialler.dial(address(&listener), None), drop_it);
    assert!(matches!(out.unwrap_err(), DialError::Refused { .. }));
}

#[tokio::test]
async fn an_ignored_dial_hears_nothing() {
    let dialler = endpoint(|settings| settings.dial_timeout = Duration::from_millis(200)).await;
    let listener = endpoint(|_| ()).await;
    let ignore = async { listener.accept().await.unwrap().ignore() };
    let (out, ()) = tokio::join!(dialler.dial(address(&listener), None), ignore);
    assert!(matches!(out.unwrap_err(), DialError::Timeout { .. }));
}

/// The first packet of a dial, caught before it arrives anywhere.
async fn caught_initial(foreign: &Foreign) -> Vec<u8> {
    let trap = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
    let _dial = foreign.start_dial(trap.local_addr().unwrap());
    let mut packet = vec![0; 2000];
    let (length, _) = soon(trap.recv_from(&mut packet)).await.unwrap();
    packet.truncate(length);
    packet
}

#[tokio::test]
async fn a_handshake_that_stalls_is_dropped_and_gives_its_turn_to_the_next() {
    let listener = endpoint(|settings| {
        settings.max_concurrent_handshakes = 1;
        settings.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    // A dialler that never says a second word.
    let initial = caught_initial(&Foreign::honest()).await;
    UdpSocket::bind(LOOPBACK).unwrap().send_to(&initial, address(&listener)).unwrap();
    let stalled = soon(listener.accept()).await.unwrap();
    let stalled = tokio::spawn(stalled.accept());

    let dialler = endpoint(|_| ()).await;
    let dialled = tokio::spawn({
        let (dialler, to) = (dialler.clone(), address(&listener));
        async move { dialler.dial(to, None).await }
    });
    let next = soon(listener.accept()).await.unwrap();
    assert!(matches!(soon(stalled).await.unwrap().unwrap_err(), AcceptError::Timeout { .. }));
    assert_eq!(soon(next.accept()).await.unwrap().peer_id(), dialler.peer_id());
    assert!(soon(dialled).await.unwrap().is_ok());
}

#[tokio::test]
async fn more_undecided_connections_than_the_limit_are_ignored() {
    let listener = endpoint(|settings| settings.max_incoming = 2).await;
    let to = address(&listener);
    let dial = |dialler: Endpoint| tokio::spawn(async move { dialler.dial(to, None).await });
    let dialler = endpoint(|_| ()).await;
    let (first, second) = (dial(dialler.clone()), dial(dialler));
    let held = (soon(listener.accept()).await.unwrap(), soon(listener.accept()).await.unwrap());
    let hasty = endpoint(|settings| settings.dial_timeout = Duration::from_millis(300)).await;
    let third = soon(dial(hasty)).await.unwrap();
    assert!(matches!(third.unwrap_err(), DialError::Timeout { .. }));
    drop(held);
    for dial in [first, second] {
        assert!(matches!(soon(dial).await.unwrap().unwrap_err(), DialError::Refused { .. }));
    }
}
