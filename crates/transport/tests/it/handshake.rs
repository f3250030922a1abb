//! Who a connection is with, and that nothing but the handshake says so.

use std::sync::Arc;
use std::time::Duration;

use peerage_identity::NodeKey;
use peerage_transport::{
    AcceptError, CertificateKind, CloseCause, DialError, Direction, Endpoint, StreamCode, TlsAlert,
};

use rustls::server::ServerSessionMemoryCache;

use crate::handmade::{Initial, receive};
use crate::support::*;

/// Contract C-1.
#[tokio::test]
async fn both_sides_learn_the_others_peer_id() {
    for kind in [CertificateKind::P256, CertificateKind::Ed25519] {
        let dialler = endpoint(|settings| settings.certificate = kind).await;
        let pair = connect(dialler, endpoint(|_| ()).await).await;
        assert_eq!(pair.out.peer_id(), pair.listener.peer_id());
        assert_eq!(pair.inn.peer_id(), pair.dialler.peer_id());
        assert_eq!(pair.inn.public_key().to_peer_id(), pair.dialler.peer_id());
        assert_eq!((pair.out.direction(), pair.inn.direction()), (Direction::Outbound, Direction::Inbound));
        assert_eq!(pair.out.remote_address(), address(&pair.listener));
        assert_eq!(pair.inn.remote_address(), address(&pair.dialler), "it dials from where it listens");
    }
}

#[tokio::test]
async fn a_dial_without_an_expected_peer_learns_who_answered() {
    let (dialler, listener) = (endpoint(|_| ()).await, endpoint(|_| ()).await);
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (out, inn) = tokio::join!(dialler.dial(address(&listener), None), accept);
    assert_eq!(out.unwrap().peer_id(), listener.peer_id());
    assert!(inn.is_ok());
}

/// an address proves nothing about who lives there.
/// Contract C-1.
#[tokio::test]
async fn another_peer_than_the_expected_one_is_refused_in_the_handshake() {
    let (dialler, listener) = (endpoint(|_| ()).await, endpoint(|_| ()).await);
    let wanted = NodeKey::generate().peer_id();
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (out, inn) = tokio::join!(dialler.dial(address(&listener), Some(wanted)), accept);
    match out.unwrap_err() {
        DialError::WrongPeer { expected, found, .. } => {
            assert_eq!((*expected, *found), (wanted, listener.peer_id()));
        }
        other => panic!("{other}"),
    }
    // Access denied.
    assert!(matches!(inn.unwrap_err(), AcceptError::RefusedByTls { alert: TlsAlert(49), .. }));
}

#[tokio::test]
async fn each_handshake_judges_one_certificate_and_none_is_resumed() {
    let pair = pair().await;
    assert_eq!((pair.dialler.host_signatures_checked(), pair.listener.host_signatures_checked()), (1, 1));
    for number in 2..5 {
        let accept = async { pair.listener.accept().await.unwrap().accept().await };
        let (out, inn) = tokio::join!(pair.dialler.dial(address(&pair.listener), None), accept);
        assert_eq!(out.unwrap().peer_id(), pair.listener.peer_id());
        assert_eq!(inn.unwrap().peer_id(), pair.dialler.peer_id());
        assert_eq!(pair.dialler.host_signatures_checked(), number);
        assert_eq!(pair.listener.host_signatures_checked(), number);
    }
}

#[tokio::test]
async fn no_server_name_is_sent() {
    let foreign = Foreign::honest();
    let dialler = endpoint(|_| ()).await;
    let accept = async { foreign.quinn.accept().await.unwrap().await };
    let (out, inn) = tokio::join!(dialler.dial(foreign.address(), None), accept);
    assert!(out.is_ok());
    let data = inn.unwrap().handshake_data().unwrap();
    let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
    assert_eq!((data.server_name, data.protocol.as_deref()), (None, Some(&b"libp2p"[..])));
}

#[tokio::test]
async fn a_connection_has_a_number_of_its_own() {
    let pair = pair().await;
    let accept = async { pair.listener.accept().await.unwrap().accept().await };
    let (second, _inn) = tokio::join!(pair.dialler.dial(address(&pair.listener), None), accept);
    assert_ne!(pair.out.id(), second.unwrap().id());
    assert_eq!(pair.out.id(), pair.out.clone().id());
}

#[tokio::test]
async fn a_dialler_whose_certificate_is_refused_learns_it_from_the_close() {
    let mut late = config();
    // A clock in the year 2100, when the listener's certificate is still valid.
    late.time = Some(Arc::new(|| Duration::from_secs(4_102_444_800)));
    let dialler = Endpoint::bind(late, &[]).await.unwrap();
    let listener = endpoint(|_| ()).await;
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (out, inn) = tokio::join!(dialler.dial(address(&listener), None), accept);
    assert!(matches!(inn.unwrap_err(), AcceptError::Certificate { .. }));
    // Its own handshake may have succeeded before the listener judged.
    match out {
        Ok(connection) => {
            let cause = soon(connection.closed()).await;
            assert!(matches!(cause, CloseCause::RefusedByTls { alert: TlsAlert(45), .. }), "{cause}");
            let text = cause.to_string();
            assert!(text.contains("certificate expired or not yet valid"), "{text}");
        }
        Err(error) => assert!(matches!(error, DialError::RefusedByTls { alert: TlsAlert(45), .. })),
    }
}

#[tokio::test]
async fn both_sides_export_the_same_secret_and_other_connections_another() {
    let (first, second) = (pair().await, pair().await);
    let export = |connection: &peerage_transport::Connection| {
        let mut secret = [0; 32];
        connection.export_keying_material(&mut secret, b"test", b"context").unwrap();
        secret
    };
    assert_eq!(export(&first.out), export(&first.inn));
    assert_ne!(export(&first.out), export(&second.out));
    assert!(first.out.export_keying_material(&mut [0; 10_000], b"test", b"").is_err());
}

/// Contract C-2.
#[tokio::test]
async fn what_a_refused_dialler_sent_never_reaches_an_application() {
    let listener = endpoint(|_| ()).await;
    let foreign = Foreign::new(Some(&Forgery::new().make()), "libp2p");
    let (out, inn) = tokio::join!(
        async {
            let connection = foreign.start_dial(address(&listener)).await?;
            let (mut send, _recv) = connection.open_bi().await?;
            let _ = send.write_all(b"\x13/multistream/1.0.0\n").await;
            Err::<(), _>(connection.closed().await)
        },
        async { listener.accept().await.unwrap().accept().await }
    );
    assert!(out.is_err());
    assert!(inn.is_err(), "there is no connection whose streams could be accepted");
}

#[tokio::test]
async fn statistics_count_what_went_over_the_path() {
    let pair = pair().await;
    let mut stream = pair.out.open("/a/1").await.unwrap();
    stream.send.write_all(&[0; 50_000]).await.unwrap();
    stream.send.finish().unwrap();
    let inbound = pair.inn.accept_stream().await.unwrap();
    let (_, mut inbound) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
    while inbound.recv.read_chunk(usize::MAX).await.unwrap().is_some() {}
    let (out, inn) = (pair.out.stats(), pair.inn.stats());
    assert!(out.sent_bytes > 50_000 && inn.received_bytes > 50_000);
    assert!(out.rtt > Duration::ZERO && out.rtt == pair.out.rtt());
    assert!(out.mtu >= 1200 && out.congestion_window > 0 && out.sent_packets > 0);
    inbound.abort(StreamCode::Cancelled);
}

#[tokio::test]
async fn a_client_hello_that_fills_several_packets_is_accepted_with_and_without_a_retry() {
    // Names that nobody speaks: far more than one datagram holds.
    let mut names: Vec<Vec<u8>> = (0..40u8).map(|number| vec![b'a' + number % 26; 100]).collect();
    names.push(b"libp2p".to_vec());
    let foreign = Foreign::offering(Some(&Forgery::new().extend_well().make()), names);
    let trap = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
    let dial = foreign.start_dial(trap.local_addr().unwrap());
    let parts: Vec<_> = [receive(&trap).await.0, receive(&trap).await.0, receive(&trap).await.0]
        .iter()
        .map(|datagram| Initial::open(datagram).to)
        .collect();
    assert!(parts.iter().all(|to| *to == parts[0]), "three Initials of one connection");
    drop(dial);

    for unvalidated in [64, 0] {
        let listener = endpoint(|settings| settings.admission.max_unvalidated_handshakes = unvalidated).await;
        let (out, inn) = soon(foreign.dial(&listener)).await;
        assert!(out.close_reason().is_none() && inn.close_cause().is_none());
        assert_eq!(listener.admission_counts().retried > 0, unvalidated == 0);
    }
}

#[tokio::test]
async fn a_client_that_would_resume_gets_no_ticket_and_is_judged_again() {
    let listener = endpoint(|_| ()).await;
    let shown = Forgery::new().extend_well().make();
    let foreign = Foreign::new(Some(&shown), "libp2p");
    // Its tickets are kept where every later dial finds them.
    let tickets = foreign.tickets();
    for number in 1..=2 {
        let (out, inn) = soon(foreign.dial(&listener)).await;
        assert_eq!(listener.host_signatures_checked(), number);
        // The handshake's last flight, in which tickets travel, comes before the stream's data.
        inn.admit();
        let stream = inn.open("/a/1").await.unwrap();
        let _ = soon(out.accept_bi()).await.unwrap();
        drop(stream);
        assert_eq!(tickets.inserted(), 0, "no ticket was sent");
    }
}

#[tokio::test]
async fn a_ticket_of_a_foreign_server_is_not_used_and_carries_no_session_to_another_peer() {
    // Two servers that send tickets, and take each other's: they have one store of sessions.
    let sessions = ServerSessionMemoryCache::new(256);
    let server = || {
        let shown = Forgery::new().extend_well().make();
        Foreign::remembering(Some(&shown), vec![b"libp2p".to_vec()], sessions.clone())
    };
    let (first, second) = (server(), server());
    let dialler = endpoint(|_| ()).await;
    let mut peers = Vec::new();
    for (number, server) in [&first, &first, &first, &second, &second].into_iter().enumerate() {
        let accept = async { server.quinn.accept().await.unwrap().await };
        let (out, inn) = tokio::join!(dialler.dial(server.address(), None), accept);
        let (out, inn) = (out.unwrap(), inn.unwrap());
        assert_eq!(dialler.host_signatures_checked(), number as u64 + 1, "each dial judges the certificate");
        peers.push(out.peer_id());
        // What comes on a stream comes after the tickets.
        inn.open_bi().await.unwrap().0.write_all(b"x").await.unwrap();
        soon(out.accept_stream()).await.unwrap();
    }
    assert!(peers[0] == peers[1] && peers[1] == peers[2] && peers[2] != peers[3] && peers[3] == peers[4]);
    let accept = async { second.quinn.accept().await.unwrap().await };
    let (out, _inn) = tokio::join!(dialler.dial(second.address(), Some(peers[0])), accept);
    assert!(matches!(out.unwrap_err(), DialError::WrongPeer { .. }));
}

#[cfg(feature = "post-quantum")]
#[tokio::test]
async fn a_post_quantum_dialler_says_hello_in_two_packets_and_reaches_peers_without_it() {
    let dialler = endpoint(|_| ()).await;
    let trap = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
    let dial = tokio::spawn({
        let (dialler, to) = (dialler.clone(), trap.local_addr().unwrap());
        async move { dialler.dial(to, None).await }
    });
    let (first, second) = (receive(&trap).await.0, receive(&trap).await.0);
    assert_eq!(Initial::open(&first).to, Initial::open(&second).to);
    dial.abort();

    let foreign = Foreign::honest();
    let accept = async { foreign.quinn.accept().await.unwrap().await };
    let (out, inn) = tokio::join!(dialler.dial(foreign.address(), None), accept);
    assert!(inn.is_ok());
    assert!(!out.unwrap().is_post_quantum(), "the listener has X25519 and no ML-KEM");
}

#[tokio::test]
async fn both_sides_know_whether_their_keys_are_post_quantum() {
    let pair = connect(endpoint(|_| ()).await, endpoint(|_| ()).await).await;
    let with_the_feature = cfg!(feature = "post-quantum");
    assert_eq!(
        (pair.out.is_post_quantum(), pair.inn.is_post_quantum()),
        (with_the_feature, with_the_feature)
    );
}
