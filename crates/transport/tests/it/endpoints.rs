//! Sockets: where an endpoint listens, from where it dials, and what becomes of bad addresses and packets.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use peerage_transport::{BindError, CloseCode, Connection, DialError, Endpoint};

use crate::support::*;

#[tokio::test]
async fn a_dial_to_a_dead_port_gives_up_in_time_and_says_where() {
    let dialler = endpoint(|settings| settings.dial_timeout = Duration::from_millis(300)).await;
    let dead = UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let start = Instant::now();
    let error = dialler.dial(dead, None).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(matches!(error, DialError::Timeout { .. }));
    let text = error.to_string();
    assert!(text.contains(&dead.to_string()) && text.contains("300ms"), "{text}");
}

#[tokio::test]
async fn an_abandoned_dial_leaves_nothing_behind() {
    let dialler = endpoint(|_| ()).await;
    let silent = UdpSocket::bind(LOOPBACK).unwrap();
    let mut dial = Box::pin(dialler.dial(silent.local_addr().unwrap(), None));
    assert!(futures::future::poll_immediate(&mut dial).await.is_none());
    drop(dial);
    assert!(dialler.wait_idle(PATIENCE).await);
}

#[tokio::test]
async fn an_endpoint_without_listen_addresses_only_dials() {
    let dialler = Endpoint::bind(config(), &[]).await.unwrap();
    assert_eq!((dialler.local_addresses(), dialler.socket_buffers()), (vec![], None));
    let pair = connect(dialler, endpoint(|_| ()).await).await;
    assert_eq!(pair.dialler.local_addresses(), []);
    assert!(pair.dialler.socket_buffers().is_some());
    let back = SocketAddr::new([127, 0, 0, 1].into(), pair.inn.remote_address().port());
    let quick = endpoint(|settings| settings.dial_timeout = Duration::from_millis(300)).await;
    let error = quick.dial(back, None).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout { .. }), "nobody accepts there: {error}");
    pair.dialler.close(CloseCode::Normal, "");
    assert!(pair.dialler.accept().await.is_none());
}

#[tokio::test]
async fn several_addresses_are_listened_on_and_dialled_from() {
    let listen: Vec<SocketAddr> =
        ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"].iter().map(|address| address.parse().unwrap()).collect();
    let listener = Endpoint::bind(config(), &listen).await.unwrap();
    let dialler = Endpoint::bind(config(), &listen[1..]).await.unwrap();
    assert_eq!(listener.local_addresses().len(), 3);
    for to in listener.local_addresses() {
        assert_ne!(to.port(), 0);
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (out, inn) = tokio::join!(dialler.dial(to, None), accept);
        assert_eq!(out.unwrap().remote_address(), to);
        assert_eq!(inn.unwrap().remote_address().is_ipv6(), to.is_ipv6());
    }
}

#[tokio::test]
async fn the_same_port_can_be_had_for_both_families() {
    let first = Endpoint::bind(config(), &["0.0.0.0:0".parse().unwrap()]).await.unwrap();
    let port = first.local_addresses()[0].port();
    let second = Endpoint::bind(config(), &[format!("[::]:{port}").parse().unwrap()]).await;
    assert!(second.is_ok(), "{second:?}");
}

#[tokio::test]
async fn an_address_of_a_family_without_a_listener_is_dialled_from_a_socket_of_its_own() {
    let listener = Endpoint::bind(config(), &["[::1]:0".parse().unwrap()]).await.unwrap();
    let dialler = endpoint(|_| ()).await;
    let to = listener.local_addresses()[0];
    for _ in 0..2 {
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (out, inn) = tokio::join!(dialler.dial(to, None), accept);
        assert!(out.is_ok() && inn.is_ok());
    }
    let (listened, all) = (dialler.local_addresses(), dialler.socket_addresses());
    assert_eq!((listened.len(), all.len()), (1, 2), "one more socket, for both dials: {all:?}");
    assert!(listened[0].is_ipv4());
}

#[tokio::test]
async fn who_listens_on_loopback_alone_dials_nowhere_else_and_the_error_says_why() {
    let dialler = endpoint(|_| ()).await;
    let error = dialler.dial("192.0.2.1:4001".parse().unwrap(), None).await.unwrap_err();
    assert!(matches!(error, DialError::NoSocket { .. }));
    let text = error.to_string();
    assert!(text.contains("192.0.2.1:4001") && text.contains("add a listen address"), "{text}");
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let dialler = endpoint(|_| ()).await;
    for bad in ["127.0.0.1:0", "0.0.0.0:4001"] {
        let error = dialler.dial(bad.parse().unwrap(), None).await.unwrap_err();
        assert!(matches!(error, DialError::BadAddress { .. }), "{bad}: {error}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_and_leaves_no_socket_open() {
    let first = endpoint(|_| ()).await;
    let free = UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let error = Endpoint::bind(config(), &[free, address(&first)]).await.unwrap_err();
    assert!(matches!(error, BindError::AddressInUse { address: found } if found == address(&first)));
    // The socket goes with the task that serves it, a moment later.
    soon(async {
        while UdpSocket::bind(free).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_setting_out_of_bounds_is_refused_at_once() {
    let mut config = config();
    config.settings.stream_window_bytes = 16_000_000;
    let error = Endpoint::bind(config, &[]).await.unwrap_err();
    assert!(error.to_string().contains("stream_window_bytes"), "{error}");
}

#[tokio::test]
async fn garbage_on_the_port_leaves_the_endpoint_working() {
    let pair = pair().await;
    let vandal = UdpSocket::bind(LOOPBACK).unwrap();
    let to = address(&pair.listener);
    let mut noise: u64 = 1;
    for length in (0..1500).step_by(7) {
        let packet: Vec<u8> = (0..length)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (noise >> 56) as u8
            })
            .collect();
        vandal.send_to(&packet, to).unwrap();
        // Such as claim to be an Initial of version 1.
        let claimed = [&[0xc3, 0, 0, 0, 1, 8][..], &packet].concat();
        vandal.send_to(&claimed, to).unwrap();
    }
    let mut stream = pair.out.open("/a/1").await.unwrap();
    let inbound = soon(pair.inn.accept_stream()).await.unwrap();
    let _far = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
    soon(stream.recv.negotiated()).await.unwrap();
    // What looked like a first packet waits for a decision and comes to nothing.
    let dialler = endpoint(|_| ()).await;
    let dialled = tokio::spawn({
        let dialler = dialler.clone();
        async move { dialler.dial(to, None).await }
    });
    soon(async {
        loop {
            if let Ok(connection) = pair.listener.accept().await.unwrap().accept().await {
                assert_eq!(connection.peer_id(), dialler.peer_id());
                break;
            }
        }
    })
    .await;
    assert!(soon(dialled).await.unwrap().is_ok());
}

/// Sends `text` from one side and reads it on the other, on a new stream.
async fn talk(from: &Connection, to: &Connection, text: &[u8]) {
    let mut near = soon(from.open("/talk/1")).await.unwrap();
    near.send.write_all(text).await.unwrap();
    near.send.finish().unwrap();
    let (_, mut far) = soon(to.accept_stream()).await.unwrap().negotiate(|_| true, PATIENCE).await.unwrap();
    assert_eq!(soon(far.recv.read_chunk(1000)).await.unwrap().as_deref(), Some(text));
}

#[tokio::test]
async fn an_address_can_be_added_while_the_endpoint_already_waits_for_connections() {
    let listener = Endpoint::bind(config(), &[]).await.unwrap();
    let accepting = tokio::spawn({
        let listener = listener.clone();
        async move { listener.accept().await.unwrap().accept().await }
    });
    let to = listener.listen(LOOPBACK.parse().unwrap()).unwrap();
    assert_eq!(listener.local_addresses(), [to]);
    let dialler = endpoint(|_| ()).await;
    let out = soon(dialler.dial(to, Some(listener.peer_id()))).await.unwrap();
    let inn = soon(accepting).await.unwrap().unwrap();
    talk(&out, &inn, b"heard").await;
    // The new socket is dialled from as well.
    let accept = async { dialler.accept().await.unwrap().accept().await };
    let (_out, inn) = tokio::join!(listener.dial(address(&dialler), None), accept);
    assert_eq!(inn.unwrap().remote_address(), to);
    assert!(matches!(listener.listen(to).unwrap_err(), BindError::AddressInUse { .. }));
}

#[tokio::test]
async fn an_address_can_be_removed_and_its_connections_live_on() {
    let pair = pair().await;
    let to = address(&pair.listener);
    assert!(pair.listener.stop_listening(to));
    assert!(!pair.listener.stop_listening(to), "it is gone");
    assert_eq!((pair.listener.local_addresses(), pair.listener.socket_addresses()), (vec![], vec![to]));
    talk(&pair.out, &pair.inn, b"still here").await;
    talk(&pair.inn, &pair.out, b"both ways").await;

    let hasty = endpoint(|settings| settings.dial_timeout = Duration::from_millis(300)).await;
    assert!(hasty.dial(to, None).await.is_err(), "nobody listens there");
    // When the last connection ends, the port is free.
    pair.out.close(CloseCode::Normal, "");
    pair.inn.closed().await;
    let accepting = tokio::spawn({
        let listener = pair.listener.clone();
        async move { listener.accept().await.is_none() }
    });
    drop(pair.inn);
    soon(async {
        while UdpSocket::bind(to).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(pair.listener.socket_addresses(), []);
    pair.listener.close(CloseCode::Normal, "");
    assert!(soon(accepting).await.unwrap());
}

#[tokio::test]
async fn an_unused_address_that_is_removed_is_free_at_once() {
    let listener = endpoint(|_| ()).await;
    let to = address(&listener);
    assert!(listener.stop_listening(to));
    assert_eq!(listener.socket_addresses(), []);
    soon(async {
        while UdpSocket::bind(to).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_we_dialled_survives_a_move_to_another_address() {
    let pair = pair().await;
    let from = address(&pair.dialler);
    talk(&pair.out, &pair.inn, b"before").await;
    let to = pair.dialler.rebind(from, "127.0.0.9:0".parse().unwrap()).unwrap();
    assert_eq!((to.ip().to_string().as_str(), pair.dialler.local_addresses()), ("127.0.0.9", vec![to]));
    talk(&pair.out, &pair.inn, b"after").await;
    talk(&pair.inn, &pair.out, b"and back").await;
    assert_eq!(pair.inn.remote_address(), to);
    assert!(pair.out.close_cause().is_none() && pair.inn.close_cause().is_none());
    // New connections come and go at the new address.
    let accept = async { pair.dialler.accept().await.unwrap().accept().await };
    let (out, inn) = tokio::join!(pair.listener.dial(to, Some(pair.dialler.peer_id())), accept);
    assert!(out.is_ok() && inn.is_ok());
}

#[tokio::test]
async fn a_move_that_cannot_be_is_an_error_and_changes_nothing() {
    let pair = pair().await;
    let from = address(&pair.dialler);
    let rebind = |from: SocketAddr, to: &str| pair.dialler.rebind(from, to.parse().unwrap()).unwrap_err();
    let unknown = rebind("127.0.0.1:9".parse().unwrap(), LOOPBACK);
    assert!(unknown.to_string().contains(&from.to_string()), "{unknown}");
    assert!(matches!(rebind(from, "[::1]:0"), BindError::OtherFamily { .. }));
    assert!(matches!(rebind(from, "192.0.2.1:0"), BindError::AddressNotAvailable { .. }));
    assert_eq!(pair.dialler.local_addresses(), [from]);
    talk(&pair.out, &pair.inn, b"unharmed").await;
    pair.dialler.close(CloseCode::Normal, "");
    assert!(matches!(pair.dialler.listen(LOOPBACK.parse().unwrap()).unwrap_err(), BindError::Closed));
}
