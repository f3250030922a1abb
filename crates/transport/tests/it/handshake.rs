//! Who a connection is with, and that nothing but the handshake says so.

use std::sync::Arc;
use std::time::Duration;

use peerage_identity::NodeKey;
use peerage_transport::{
    AcceptError, CertificateKind, CloseCause, DialError, Direction, Endpoint, StreamCode, TlsAlert,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::support::*;

#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

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
    assert_eq!((pair.dialler.certificates_judged(), pair.listener.certificates_judged()), (1, 1));
    for number in 2..5 {
        let accept = async { pair.listener.accept().await.unwrap().accept().await };
        let (out, inn) = tokio::join!(pair.dialler.dial(address(&pair.listener), None), accept);
        assert_eq!(out.unwrap().peer_id(), pair.listener.peer_id());
        assert_eq!(inn.unwrap().peer_id(), pair.dialler.peer_id());
        assert_eq!(pair.dialler.certificates_judged(), number);
        assert_eq!(pair.listener.certificates_judged(), number);
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
    late.time = Some(Arc::new(Clock(4_102_444_800)));
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
