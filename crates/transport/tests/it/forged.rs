//! Certificates that must be refused, shown by a server to our dialler and by a client to our listener.

use std::time::{Duration, SystemTime};

use peerage_identity::NodeKey;
use peerage_transport::{AcceptError, CertificateFault, DialError};
use rcgen::{CustomExtension, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::handmade::{Initial, close_code, receive};
use crate::support::*;

/// Not much, and far more than a handshake takes.
const A_MINUTE: Duration = Duration::from_secs(60);

const BAD_CERTIFICATE: u8 = 42;
const EXPIRED: u8 = 45;
const UNKNOWN: u8 = 46;
const BAD_SIGNATURE: u8 = 51;

/// Shows the certificate in both directions. Our side must name the fault, the other side must get the alert.
async fn is_refused(shown: &Shown, alert: u8, fault: impl Fn(&CertificateFault) -> bool) {
    // To our dialler, by a server.
    let foreign = Foreign::new(Some(shown), "libp2p");
    let dialler = endpoint(|_| ()).await;
    let (found, seen) = tokio::join!(dialler.dial(foreign.address(), None), async {
        foreign.quinn.accept().await.unwrap().await
    });
    let checked = match found.unwrap_err() {
        DialError::Certificate { fault: found, .. } => {
            assert!(fault(&found), "the dialler says: {found}");
            // Nothing else gets as far as the host key.
            u64::from(found == CertificateFault::BadHostSignature)
        }
        other => panic!("the dialler says: {other}"),
    };
    assert_eq!(alert_of(&seen.unwrap_err()), Some(alert), "the server's alert");
    assert_eq!(dialler.host_signatures_checked(), checked);

    // To our listener, by a client, which learns of it after its own handshake.
    let listener = endpoint(|_| ()).await;
    let (seen, found) = tokio::join!(closing(foreign.start_dial(address(&listener))), async {
        listener.accept().await.unwrap().accept().await
    });
    match found.unwrap_err() {
        AcceptError::Certificate { fault: found, .. } => {
            assert!(fault(&found), "the listener says: {found}");
        }
        other => panic!("the listener says: {other}"),
    }
    assert_eq!(alert_of(&seen), Some(alert), "the client's alert");
    assert_eq!(listener.host_signatures_checked(), checked);
}

async fn closing(connecting: quinn::Connecting) -> quinn::ConnectionError {
    match connecting.await {
        Ok(connection) => soon(connection.closed()).await,
        Err(error) => error,
    }
}

fn alert_of(error: &quinn::ConnectionError) -> Option<u8> {
    match error {
        quinn::ConnectionError::ConnectionClosed(close) => {
            u64::from(close.error_code).checked_sub(0x100).and_then(|alert| alert.try_into().ok())
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_good_certificate_is_taken_whether_its_extension_is_critical_or_not() {
    for critical in [false, true] {
        let mut forgery = Forgery::new().extend_well();
        forgery.params.custom_extensions[0].set_criticality(critical);
        let peer = forgery.host.peer_id();
        let foreign = Foreign::new(Some(&forgery.make()), "libp2p");
        let ours = endpoint(|_| ()).await;
        let (out, inn) = foreign.dial(&ours).await;
        assert_eq!(inn.peer_id(), peer);
        drop(out);
        let accept = async { foreign.quinn.accept().await.unwrap().await };
        let (out, inn) = tokio::join!(ours.dial(foreign.address(), Some(peer)), accept);
        assert_eq!(out.unwrap().peer_id(), peer);
        assert!(inn.is_ok());
    }
}

#[tokio::test]
async fn host_keys_of_every_type_are_verified_in_both_directions() {
    // Private keys that the specification publishes; shared with the identity crate's tests.
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../identity/tests/vectors/keys.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 4);
    for vector in vectors {
        let private = hex::decode(vector["private_key_pb_hex"].as_str().unwrap()).unwrap();
        let host = libp2p_identity::Keypair::from_protobuf_encoding(&private).unwrap();
        let public_key = host.public().encode_protobuf();
        let sign_with = |forgery: Forgery| {
            let signature = host.sign(&forgery.message()).unwrap();
            forgery.extend(&public_key, &signature).make()
        };
        let foreign = Foreign::new(Some(&sign_with(Forgery::new())), "libp2p");
        let ours = endpoint(|_| ()).await;
        let (_out, inn) = foreign.dial(&ours).await;
        let peer = vector["peer_id_derived"].as_str().unwrap();
        assert_eq!(inn.peer_id().to_string(), peer);
        assert_eq!(inn.public_key().encode_protobuf(), public_key, "{peer}");
        let accept = async { foreign.quinn.accept().await.unwrap().await };
        let (out, _inn) = tokio::join!(ours.dial(foreign.address(), Some(inn.peer_id())), accept);
        assert_eq!(out.unwrap().peer_id().to_string(), peer);

        // Its signature of something else proves nothing.
        let forgery = Forgery::new();
        let signature = host.sign(&forgery.spki()).unwrap();
        let shown = forgery.extend(&public_key, &signature).make();
        is_refused(&shown, BAD_SIGNATURE, |fault| *fault == CertificateFault::BadHostSignature).await;
    }
}

#[tokio::test]
async fn a_certificate_without_the_extension_is_refused() {
    let fault = |fault: &_| matches!(fault, CertificateFault::NoExtension);
    is_refused(&Forgery::new().make(), BAD_CERTIFICATE, fault).await;
}

#[tokio::test]
async fn the_extension_twice_is_refused() {
    let shown = Forgery::new().extend_well().extend_well().make();
    let fault = |fault: &_| matches!(fault, CertificateFault::RepeatedExtension { .. });
    is_refused(&shown, BAD_CERTIFICATE, fault).await;
}

#[tokio::test]
async fn a_wrong_host_signature_is_refused() {
    let forgery = Forgery::new();
    let mut signature = forgery.host.sign(&forgery.message());
    signature[7] ^= 1;
    let public_key = forgery.public_key();
    let shown = forgery.extend(&public_key, &signature).make();
    is_refused(&shown, BAD_SIGNATURE, |fault| *fault == CertificateFault::BadHostSignature).await;
}

#[tokio::test]
async fn a_host_signature_without_the_prefix_is_refused() {
    let forgery = Forgery::new();
    let (public_key, signature) = (forgery.public_key(), forgery.host.sign(&forgery.spki()));
    let shown = forgery.extend(&public_key, &signature).make();
    is_refused(&shown, BAD_SIGNATURE, |fault| *fault == CertificateFault::BadHostSignature).await;
}

#[tokio::test]
async fn another_hosts_key_is_refused() {
    let forgery = Forgery::new();
    let signature = forgery.host.sign(&forgery.message());
    let public_key = NodeKey::generate().public().encode_protobuf();
    let shown = forgery.extend(&public_key, &signature).make();
    is_refused(&shown, BAD_SIGNATURE, |fault| *fault == CertificateFault::BadHostSignature).await;
}

#[tokio::test]
async fn an_extension_replayed_under_another_certificate_key_is_refused() {
    let victim = Forgery::new().extend_well();
    let mut thief = Forgery::new();
    thief.params.custom_extensions = victim.params.custom_extensions.clone();
    is_refused(&thief.make(), BAD_SIGNATURE, |fault| *fault == CertificateFault::BadHostSignature).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let mut forgery = Forgery::new().extend_well();
    forgery.params.not_after = (SystemTime::now() - A_MINUTE).into();
    is_refused(&forgery.make(), EXPIRED, |fault| *fault == CertificateFault::Expired).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_yet_valid_is_refused() {
    let mut forgery = Forgery::new().extend_well();
    forgery.params.not_before = (SystemTime::now() + A_MINUTE).into();
    is_refused(&forgery.make(), EXPIRED, |fault| *fault == CertificateFault::NotYetValid).await;
}

#[tokio::test]
async fn an_unknown_extension_is_taken_unless_it_is_critical() {
    let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 1, 99], vec![5, 0]);
    let mut forgery = Forgery::new().extend_well();
    forgery.params.custom_extensions.push(unknown.clone());
    let foreign = Foreign::new(Some(&forgery.make()), "libp2p");
    foreign.dial(&endpoint(|_| ()).await).await;

    let mut forgery = Forgery::new().extend_well();
    forgery.params.custom_extensions.push(unknown);
    forgery.params.custom_extensions[1].set_criticality(true);
    let fault = |fault: &_| matches!(fault, CertificateFault::UnknownCritical { .. });
    is_refused(&forgery.make(), BAD_CERTIFICATE, fault).await;
}

#[tokio::test]
async fn two_certificates_are_refused() {
    let mut shown = Forgery::new().extend_well().make();
    shown.chain.push(Forgery::new().extend_well().make().chain.remove(0));
    is_refused(&shown, BAD_CERTIFICATE, |fault| *fault == CertificateFault::Count { count: 2 }).await;
}

#[tokio::test]
async fn garbage_in_place_of_a_certificate_is_refused() {
    let good = Forgery::new().extend_well().make();
    let mut longer = good.chain[0].to_vec();
    longer.push(0);
    for garbage in [vec![0xff; 300], vec![], sequence(&sequence(&[])), longer] {
        let shown = Shown { chain: vec![CertificateDer::from(garbage)], key: good.key.clone() };
        let fault = |fault: &_| matches!(fault, CertificateFault::Malformed { .. });
        is_refused(&shown, BAD_CERTIFICATE, fault).await;
    }
}

#[tokio::test]
async fn garbage_in_the_extension_is_refused() {
    let good = octets(&Forgery::new().public_key());
    let garbage = [
        vec![],
        sequence(&good),
        sequence(&[good.clone(), good.clone(), good.clone()].concat()),
        [sequence(&[good.clone(), good.clone()].concat()), vec![0]].concat(),
    ];
    for value in garbage {
        let mut forgery = Forgery::new();
        forgery.params.custom_extensions.push(extension(value));
        let fault = |fault: &_| matches!(fault, CertificateFault::BadExtension { .. });
        is_refused(&forgery.make(), BAD_CERTIFICATE, fault).await;
    }
}

#[tokio::test]
async fn a_host_key_with_a_second_encoding_is_refused() {
    let forgery = Forgery::new();
    let signature = forgery.host.sign(&forgery.message());
    let longer = [&forgery.public_key()[..], &[0x1a, 0x00]].concat();
    let shown = forgery.extend(&longer, &signature).make();
    is_refused(&shown, UNKNOWN, |fault| matches!(fault, CertificateFault::HostKey(_))).await;
}

#[tokio::test]
async fn a_certificate_signed_with_another_key_is_refused() {
    let mut shown = Forgery::new().extend_well().make();
    let mut certificate = shown.chain[0].to_vec();
    // The low byte of the signature's second number.
    *certificate.last_mut().unwrap() ^= 1;
    shown.chain = vec![certificate.into()];
    is_refused(&shown, BAD_SIGNATURE, |fault| *fault == CertificateFault::BadSignature).await;
}

#[tokio::test]
async fn anothers_certificate_without_its_key_is_refused() {
    let mut shown = Forgery::new().extend_well().make();
    shown.key = private(&KeyPair::generate().unwrap());
    let foreign = Foreign::new(Some(&shown), "libp2p");

    let dialler = endpoint(|_| ()).await;
    let accept = async { foreign.quinn.accept().await.unwrap().await };
    let (found, seen) = tokio::join!(dialler.dial(foreign.address(), None), accept);
    assert!(matches!(found.unwrap_err(), DialError::Ended { .. }));
    assert_eq!(alert_of(&seen.unwrap_err()), Some(BAD_SIGNATURE));

    let listener = endpoint(|_| ()).await;
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (seen, found) = tokio::join!(closing(foreign.start_dial(address(&listener))), accept);
    assert!(matches!(found.unwrap_err(), AcceptError::Ended { .. }));
    assert_eq!(alert_of(&seen), Some(BAD_SIGNATURE));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let foreign = Foreign::new(None, "libp2p");
    let listener = endpoint(|_| ()).await;
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (seen, found) = tokio::join!(closing(foreign.start_dial(address(&listener))), accept);
    assert!(matches!(found.unwrap_err(), AcceptError::Ended { .. }));
    assert_eq!(alert_of(&seen), Some(116), "certificate required");
    assert_eq!(listener.host_signatures_checked(), 0);
}

#[tokio::test]
async fn another_application_protocol_is_refused() {
    let foreign = Foreign::new(Some(&Forgery::new().extend_well().make()), "h3");
    let listener = endpoint(|_| ()).await;
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (seen, found) = tokio::join!(closing(foreign.start_dial(address(&listener))), accept);
    assert!(found.is_err());
    assert_eq!(alert_of(&seen), Some(120), "no application protocol");

    let dialler = endpoint(|_| ()).await;
    let accept = async { foreign.quinn.accept().await.unwrap().await };
    let (found, _) = tokio::join!(dialler.dial(foreign.address(), None), accept);
    let error = found.unwrap_err();
    assert!(matches!(error, DialError::RefusedByTls { .. }), "{error}");
    assert!(error.to_string().contains("no application protocol in common"), "{error}");
}

#[tokio::test]
async fn a_dialler_without_tls_1_3_is_ended_with_an_alert() {
    // TLS 1.2 as it was: no supported_versions, one old cipher suite; ALPN and signature_algorithms.
    let alpn = [0, 16, 0, 9, 0, 7, 6, b'l', b'i', b'b', b'p', b'2', b'p'];
    let extensions = [&alpn[..], &[0, 13, 0, 4, 0, 2, 4, 3]].concat();
    let mut hello = vec![0x03, 0x03];
    hello.extend_from_slice(&[1; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    hello.extend_from_slice(&extensions);
    let message = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
    let initial = Initial::with_crypto(&message);

    let listener = endpoint(|_| ()).await;
    let socket = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.send_to(&initial.seal(), address(&listener)).await.unwrap();
    let error = soon(soon(listener.accept()).await.unwrap().accept()).await.unwrap_err();
    assert!(matches!(error, AcceptError::Ended { .. }), "{error}");
    let (answer, _) = receive(&socket).await;
    let answer = Initial::open_answer(&answer, &initial.to);
    // CRYPTO_ERROR with the alert protocol_version (RFC 9001 § 4.8, RFC 8446 § 6).
    assert_eq!(close_code(&answer.payload), Some(0x0100 + 70));
}
