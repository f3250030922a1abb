//! What the TLS that is measured demands of either side.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection, SignatureScheme,
};

use crate::tls;

/// Lets both sides talk until they have nothing more to say.
fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<HandshakeKind, rustls::Error> {
    let mut client = ClientConnection::new(client, ServerName::try_from(tls::NAME).unwrap())?;
    let mut server = ServerConnection::new(server)?;
    while client.wants_write() || server.wants_write() {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        flight.clear();
        server.write_tls(&mut flight).unwrap();
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(client.handshake_kind().unwrap())
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let (client, server) = tls::configs(None, false).unwrap();
    (Arc::new(client), Arc::new(server))
}

#[test]
fn every_handshake_over_tcp_is_a_full_one() {
    let (client, server) = configs();
    for _ in 0..3 {
        assert_eq!(shake(client.clone(), server.clone()), Ok(HandshakeKind::Full));
    }
}

/// Whoever has no certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_client_over_tcp_without_a_certificate_is_refused() {
    let (client, server) = configs();
    let mut nobody = ClientConfig::clone(&client);
    nobody.client_auth_cert_resolver = Arc::new(Nobody);
    assert_eq!(shake(Arc::new(nobody), server), Err(rustls::Error::NoCertificatesPresented));
}
