//! What strangers get, and what an inbound connection can be answered before any cryptography.

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_immediate;
use peerage_transport::{AcceptError, DialError, Endpoint, TransportSettings};

use crate::handmade::{Initial, caught_initial};
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
    for _ in 5..TransportSettings::default().initial_peer_streams {
        streams.push(soon(pair.out.open("/a/1")).await.unwrap());
    }
    let mut one_more = Box::pin(pair.out.open("/a/1"));
    assert!(poll_immediate(&mut one_more).await.is_none(), "nobody takes the streams, so no more may come");
    // While they are taken, the peer gets more.
    let accepting = tokio::spawn({
        let inn = pair.inn.clone();
        async move {
            let mut taken = Vec::new();
            while let Ok(stream) = inn.accept_stream().await {
                taken.push(stream.negotiate(|_| true, PATIENCE).await.unwrap());
            }
            taken.len()
        }
    });
    streams.push(soon(one_more).await.unwrap());
    for _ in streams.len()..TransportSettings::default().peer_streams as usize {
        streams.push(soon(pair.out.open("/a/1")).await.unwrap());
    }
    for stream in &mut streams {
        soon(stream.recv.negotiated()).await.unwrap();
    }
    let one_more = pair.out.open("/a/1");
    assert!(poll_immediate(Box::pin(one_more)).await.is_none(), "an admitted peer has its limit too");
    pair.out.close(peerage_transport::CloseCode::Normal, "");
    assert_eq!(soon(accepting).await.unwrap(), 256);
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

/// a refusal ends the dial at once.
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

/// a handshake that never goes on delays no other.
#[tokio::test]
async fn a_handshake_that_stalls_is_dropped_in_time_and_holds_no_place_that_a_proved_address_needs() {
    let listener = endpoint(|settings| {
        settings.admission.max_unvalidated_handshakes = 1;
        settings.admission.max_validated_handshakes = 1;
        settings.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    // A dialler that never says a second word.
    let initial = caught_initial(&Foreign::honest()).await;
    UdpSocket::bind(LOOPBACK).unwrap().send_to(&initial, address(&listener)).unwrap();
    let stalled = tokio::spawn(soon(listener.accept()).await.unwrap().accept());

    // The next one is told to retry, and is back at once with a proved address.
    let dialler = endpoint(|_| ()).await;
    let (out, inn) = tokio::join!(dialler.dial(address(&listener), None), async {
        let incoming = soon(listener.accept()).await.unwrap();
        assert!(incoming.address_validated());
        incoming.accept().await
    });
    assert_eq!((out.unwrap().peer_id(), inn.unwrap().peer_id()), (listener.peer_id(), dialler.peer_id()));
    let counts = listener.admission_counts();
    assert_eq!((counts.accepted, counts.retried, counts.refused, counts.ignored), (2, 1, 0, 0));
    assert!(matches!(soon(stalled).await.unwrap().unwrap_err(), AcceptError::Timeout { .. }));
}

#[tokio::test]
async fn beyond_the_places_for_proved_addresses_diallers_are_refused_until_one_is_free() {
    let listener = endpoint(|settings| {
        settings.admission.max_unvalidated_handshakes = 0;
        settings.admission.max_validated_handshakes = 1;
    })
    .await;
    let dialler = endpoint(|_| ()).await;
    let first = tokio::spawn({
        let (dialler, to) = (dialler.clone(), address(&listener));
        async move { dialler.dial(to, None).await }
    });
    let held = soon(listener.accept()).await.unwrap();
    tokio::select! {
        second = dialler.dial(address(&listener), None) => {
            assert!(matches!(second.unwrap_err(), DialError::Refused { .. }));
        }
        _ = listener.accept() => panic!("there is no place"),
    }
    assert_eq!(listener.admission_counts().refused, 1);
    assert!(soon(held.accept()).await.is_ok());
    assert!(soon(first).await.unwrap().is_ok());
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (out, inn) = tokio::join!(dialler.dial(address(&listener), None), accept);
    assert!(out.is_ok() && inn.is_ok());
}

#[tokio::test]
async fn a_flood_of_forged_first_packets_leaves_honest_diallers_in() {
    let listener = endpoint(|_| ()).await;
    let to = address(&listener);
    let accepting = tokio::spawn({
        let listener = listener.clone();
        async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Some(incoming) = listener.accept().await {
                tasks.spawn(incoming.accept());
            }
        }
    });
    // Two thousand first packets that are whole and right: only nobody ever says a second word.
    let flood = UdpSocket::bind(LOOPBACK).unwrap();
    let mut initial = Initial::open(&caught_initial(&Foreign::honest()).await);
    let dialler = endpoint(|_| ()).await;
    for round in 0..10u8 {
        for number in 0..200u8 {
            initial.to = vec![round, number, 1, 2, 3, 4, 5, 6];
            flood.send_to(&initial.seal(), to).unwrap();
        }
        soon(dialler.dial(to, Some(listener.peer_id()))).await.expect("an honest dial gets in");
    }
    let counts = listener.admission_counts();
    let limits = listener.settings().admission.clone();
    assert!(counts.accepted <= limits.max_unvalidated_handshakes as u64 + 10, "{counts:?}");
    assert!(counts.retried > 1_000, "{counts:?}");
    assert_eq!(counts.refused, 0);
    listener.close(peerage_transport::CloseCode::Shutdown, "done");
    soon(accepting).await.unwrap();
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
