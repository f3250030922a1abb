//! Raw quinn: mutual TLS with self-signed Ed25519 certificates, streams, and nothing above them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CipherSuite, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::Outcome;
use crate::child;

/// Bytes of one bulk write.
const CHUNK: usize = 64 * 1024;
/// Bytes of one small message.
pub(crate) const SMALL: usize = 64;

/// Serves: drains every stream and answers with the number of bytes.
pub(crate) async fn serve(tuned: bool) -> Outcome<()> {
    let endpoint = endpoint(tuned, true, None)?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                    tokio::spawn(async move {
                        let mut total = 0u64;
                        if tuned {
                            while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX, true).await {
                                total += chunk.bytes.len() as u64;
                            }
                        } else {
                            // A request is over with its first bytes, and needs no buffer.
                            if let Ok(Some(chunk)) = recv.read_chunk(SMALL, true).await {
                                total += chunk.bytes.len() as u64;
                            }
                            let mut buffer = Vec::new();
                            if let Ok(Some(chunk)) = recv.read_chunk(SMALL, true).await {
                                total += chunk.bytes.len() as u64;
                                buffer.resize(CHUNK, 0);
                            }
                            while !buffer.is_empty()
                                && let Ok(Some(length)) = recv.read(&mut buffer).await
                            {
                                total += length as u64;
                            }
                        }
                        let _ = send.write_all(&total.to_be_bytes()).await;
                        let _ = send.finish();
                    });
                }
            });
        }
    });
    child::until_unwanted(&address.to_string()).await
}

/// A connected client.
pub(crate) struct Client {
    connection: Connection,
    tuned: bool,
    _endpoint: Endpoint,
}

impl Client {
    pub(crate) async fn connect(address: &str, tuned: bool) -> Outcome<Self> {
        let endpoint = endpoint(tuned, false, None)?;
        let connection = endpoint.connect(address.parse()?, "bench")?.await?;
        Ok(Self { connection, tuned, _endpoint: endpoint })
    }

    /// Sends `bytes` on one stream; the time until the other side has counted them.
    pub(crate) async fn bulk(&self, bytes: u64) -> Outcome<Duration> {
        let chunk = Bytes::from(vec![7; CHUNK]);
        let start = Instant::now();
        let (mut send, mut recv) = self.connection.open_bi().await?;
        let mut left = bytes;
        while left > 0 {
            let part = chunk.slice(..left.min(CHUNK as u64) as usize);
            left -= part.len() as u64;
            if self.tuned {
                send.write_chunk(part).await?;
            } else {
                send.write_all(&part).await?;
            }
        }
        send.finish()?;
        expect_count(&mut recv, bytes).await?;
        Ok(start.elapsed())
    }

    /// Sends `count` messages of 64 bytes, one write each or joined into writes of 32 KiB.
    pub(crate) async fn messages(&self, count: u64, joined: bool) -> Outcome<Duration> {
        let message = [7; SMALL];
        let start = Instant::now();
        let (mut send, mut recv) = self.connection.open_bi().await?;
        if joined {
            let mut buffer = Vec::with_capacity(32 * 1024);
            for _ in 0..count {
                buffer.extend_from_slice(&message);
                if buffer.len() >= 32 * 1024 {
                    let full = std::mem::replace(&mut buffer, Vec::with_capacity(32 * 1024));
                    send.write_chunk(Bytes::from(full)).await?;
                }
            }
            send.write_all(&buffer).await?;
        } else {
            for _ in 0..count {
                send.write_all(&message).await?;
            }
        }
        send.finish()?;
        expect_count(&mut recv, count * SMALL as u64).await?;
        Ok(start.elapsed())
    }
}

impl Client {
    /// One request of 64 bytes and its answer of 8, on a stream of its own.
    pub(crate) async fn request(&self) -> Outcome<()> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        send.write_all(&[7; SMALL]).await?;
        send.finish()?;
        expect_count(&mut recv, SMALL as u64).await
    }
}

async fn expect_count(recv: &mut quinn::RecvStream, expected: u64) -> Outcome<()> {
    let mut counted = [0; 8];
    recv.read_exact(&mut counted).await?;
    match u64::from_be_bytes(counted) {
        counted if counted == expected => Ok(()),
        counted => Err(format!("{counted} of {expected} bytes arrived").into()),
    }
}

pub(crate) fn endpoint(tuned: bool, server: bool, keep_alive: Option<Duration>) -> Outcome<Endpoint> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let certificate = rcgen::CertificateParams::new(vec!["bench".to_owned()])?.self_signed(&key)?;
    let chain = vec![certificate.der().clone()];
    let private = PrivateKeyDer::try_from(key.serialize_der())?;

    let mut provider = rustls::crypto::ring::default_provider();
    if tuned {
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
    let provider = Arc::new(provider);
    let verifier = Arc::new(SignatureOnly(provider.clone()));
    let mut transport = TransportConfig::default();
    // Longer than anything that is measured.
    transport.max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs(1800))?));
    transport.keep_alive_interval(keep_alive);
    let transport = Arc::new(transport);

    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_auth_cert(chain.clone(), private.clone_key())?;
    client.alpn_protocols = vec![b"bench".to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(transport.clone());

    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private)?;
    tls.alpn_protocols = vec![b"bench".to_vec()];
    tls.send_tls13_tickets = 0;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport);

    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    if tuned {
        socket.set_recv_buffer_size(4 << 20)?;
        socket.set_send_buffer_size(4 << 20)?;
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let mut endpoint =
        Endpoint::new(EndpointConfig::default(), server.then_some(config), socket.into(), runtime)?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

/// Checks that the other side holds the key of its certificate, and nothing else.
#[derive(Debug)]
struct SignatureOnly(Arc<CryptoProvider>);

impl SignatureOnly {
    fn check(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for SignatureOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for SignatureOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
