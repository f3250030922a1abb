//! What the tests share: pairs of our endpoints, and foreign peers that say and show whatever a test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peerage_identity::NodeKey;
use peerage_transport::{Connection, Endpoint, EndpointConfig, TransportSettings};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PublicKeyData};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ServerSessionMemoryCache;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, NamedGroup, SignatureScheme};

pub(crate) const LOOPBACK: &str = "127.0.0.1:0";

/// Longer than anything here takes, shorter than a patient person waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn config() -> EndpointConfig {
    EndpointConfig::new(NodeKey::generate())
}

/// An endpoint on loopback, with changed settings.
pub(crate) async fn endpoint(change: impl FnOnce(&mut TransportSettings)) -> Endpoint {
    let mut config = config();
    change(&mut config.settings);
    Endpoint::bind(config, &[LOOPBACK.parse().unwrap()]).await.unwrap()
}

pub(crate) fn address(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_addresses()[0]
}

/// A connection from one of our endpoints to another, seen from both sides.
pub(crate) struct Pair {
    pub(crate) dialler: Endpoint,
    pub(crate) listener: Endpoint,
    pub(crate) out: Connection,
    pub(crate) inn: Connection,
}

/// Two endpoints with a connection, both sides admitted.
pub(crate) async fn pair() -> Pair {
    let pair = strangers().await;
    pair.out.admit();
    pair.inn.admit();
    pair
}

/// Two endpoints with a connection, neither side admitted.
pub(crate) async fn strangers() -> Pair {
    connect(endpoint(|_| ()).await, endpoint(|_| ()).await).await
}

pub(crate) async fn connect(dialler: Endpoint, listener: Endpoint) -> Pair {
    let (out, inn) = tokio::join!(dialler.dial(address(&listener), Some(listener.peer_id())), async {
        listener.accept().await.unwrap().accept().await
    });
    Pair { out: out.unwrap(), inn: inn.unwrap(), dialler, listener }
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// What a foreign peer shows: certificates, and the key that it signs the handshake with.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
}

/// A certificate to be spoilt before it is made.
pub(crate) struct Forgery {
    pub(crate) host: NodeKey,
    pub(crate) key: KeyPair,
    pub(crate) params: CertificateParams,
}

impl Forgery {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.custom_extensions.clear();
        Self { host: NodeKey::generate(), key: KeyPair::generate().unwrap(), params }
    }

    /// What the host key has to sign.
    pub(crate) fn message(&self) -> Vec<u8> {
        [b"libp2p-tls-handshake:".as_slice(), &self.spki()].concat()
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.host.public().encode_protobuf()
    }

    /// Adds the libp2p extension with these contents.
    pub(crate) fn extend(mut self, public_key: &[u8], signature: &[u8]) -> Self {
        let value = sequence(&[octets(public_key), octets(signature)].concat());
        self.params.custom_extensions.push(extension(value));
        self
    }

    /// Adds the libp2p extension as it should be.
    pub(crate) fn extend_well(self) -> Self {
        let (public_key, signature) = (self.public_key(), self.host.sign(&self.message()));
        self.extend(&public_key, &signature)
    }

    pub(crate) fn make(self) -> Shown {
        let certificate = self.params.self_signed(&self.key).unwrap();
        Shown { chain: vec![certificate.into()], key: private(&self.key) }
    }
}

pub(crate) fn private(key: &KeyPair) -> Arc<PrivateKeyDer<'static>> {
    Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

pub(crate) fn extension(value: Vec<u8>) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 1, 1], value)
}

/// DER with a length of up to two bytes.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ 0..=0x7f => vec![short as u8],
        middle @ 0x80..=0xff => vec![0x81, middle as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[tag][..], &length, content].concat()
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    der(0x04, content)
}

pub(crate) fn sequence(content: &[u8]) -> Vec<u8> {
    der(0x30, content)
}

/// A bare quinn endpoint that believes everything.
pub(crate) struct Foreign {
    pub(crate) quinn: quinn::Endpoint,
    client: quinn::ClientConfig,
    tickets: Arc<Tickets>,
}

/// Counts the session tickets that a client was given, and keeps them for its next dials.
#[derive(Debug)]
pub(crate) struct Tickets {
    inserted: AtomicUsize,
    kept: ClientSessionMemoryCache,
}

impl Tickets {
    pub(crate) fn inserted(&self) -> usize {
        self.inserted.load(Ordering::Relaxed)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.kept.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept.kx_hint(server)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.inserted.fetch_add(1, Ordering::Relaxed);
        self.kept.insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.take_tls13_ticket(server)
    }
}

impl Foreign {
    /// Shows `shown`, or as a client nothing; offers `alpn`.
    pub(crate) fn new(shown: Option<&Shown>, alpn: &str) -> Self {
        Self::offering(shown, vec![alpn.into()])
    }

    /// The same, with any number of ALPN names.
    pub(crate) fn offering(shown: Option<&Shown>, alpn: Vec<Vec<u8>>) -> Self {
        Self::remembering(shown, alpn, ServerSessionMemoryCache::new(256))
    }

    /// The same, with a store of the sessions that its tickets stand for.
    pub(crate) fn remembering(
        shown: Option<&Shown>,
        alpn: Vec<Vec<u8>>,
        sessions: Arc<ServerSessionMemoryCache>,
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let credulous = Arc::new(Credulous(provider.clone()));
        let resolver = shown.map(|shown| {
            let key = provider.key_provider.load_private_key(shown.key.clone_key()).unwrap();
            Arc::new(SingleCertAndKey::from(CertifiedKey::new(shown.chain.clone(), key)))
        });
        let client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(credulous.clone());
        let mut client = match &resolver {
            Some(resolver) => client.with_client_cert_resolver(resolver.clone()),
            None => client.with_no_client_auth(),
        };
        client.alpn_protocols = alpn.clone();
        let tickets =
            Arc::new(Tickets { inserted: AtomicUsize::new(0), kept: ClientSessionMemoryCache::new(32) });
        client.resumption = Resumption::store(tickets.clone());
        let client = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
        let server = resolver.map(|resolver| {
            let mut server = rustls::ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_client_cert_verifier(credulous)
                .with_cert_resolver(resolver);
            server.alpn_protocols = alpn;
            server.session_storage = sessions;
            let server = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
            quinn::ServerConfig::with_crypto(Arc::new(server))
        });
        let socket = std::net::UdpSocket::bind(LOOPBACK).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        let quinn = quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime).unwrap();
        Self { quinn, client: quinn::ClientConfig::new(Arc::new(client)), tickets }
    }

    /// A libp2p node with a good certificate.
    pub(crate) fn honest() -> Self {
        Self::new(Some(&Forgery::new().extend_well().make()), "libp2p")
    }

    pub(crate) fn tickets(&self) -> Arc<Tickets> {
        self.tickets.clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.quinn.local_addr().unwrap()
    }

    pub(crate) fn start_dial(&self, to: SocketAddr) -> quinn::Connecting {
        self.quinn.connect_with(self.client.clone(), to, "l").unwrap()
    }

    /// Dials one of our endpoints, which must take it.
    pub(crate) async fn dial(&self, to: &Endpoint) -> (quinn::Connection, Connection) {
        let (out, inn) =
            tokio::join!(self.start_dial(address(to)), async { to.accept().await.unwrap().accept().await });
        (out.unwrap(), inn.unwrap())
    }
}

#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

/// What a verifier of either side says of signatures.
macro_rules! every_signature_will_do {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    every_signature_will_do!();
}

impl ClientCertVerifier for Credulous {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    every_signature_will_do!();
}
