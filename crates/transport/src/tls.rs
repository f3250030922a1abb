//! TLS configurations: 1.3 only, both sides with a certificate, ALPN `libp2p`, no resumption of any kind.
//!
//! A resumed session skips the verifiers, and with them the proof of who the peer is. So nothing here stores, sends or takes a ticket, and there is no early
//! data. The configuration of a handshake is made for it alone, because its verifier keeps what that handshake proved.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use peerage_identity::{NodeKey, PeerId};
use peerage_machine::Random;
use quinn::crypto;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{CipherSuite, ClientConfig, SupportedCipherSuite};

use crate::certificate::OwnCertificate;
use crate::proof::Checks;
use crate::settings::CertificateKind;
use crate::verifier::Verifier;

/// The application protocol of libp2p over QUIC.
pub(crate) const ALPN: &[u8] = b"libp2p";

/// What all handshakes of an endpoint share.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
    certificate: Arc<SingleCertAndKey>,
    client: ClientConfig,
    checks: Arc<Checks>,
}

impl Tls {
    /// Makes the endpoint's certificate, valid at the time that `time` tells.
    ///
    /// # Errors
    /// A sentence that says what went wrong.
    pub(crate) fn new(
        key: &NodeKey,
        kind: CertificateKind,
        time: Arc<dyn TimeProvider>,
        random: &mut Random,
    ) -> Result<Self, String> {
        let provider = provider();
        let now = time.current_time().ok_or("the clock gives no time")?;
        let own = OwnCertificate::generate(key, kind, now, random)?;
        let certificate = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![own.certificate], own.key)));
        let checks = Arc::new(Checks::new());
        let mut client = ClientConfig::builder_with_details(provider.clone(), time.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(provider.clone(), None, checks.clone())))
            .with_client_cert_resolver(certificate.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        Ok(Self { provider, time, certificate, client, checks })
    }

    /// The configuration of one dial, and the verifier that will know who answered.
    pub(crate) fn dialler(&self, expected: Option<PeerId>) -> (Arc<dyn crypto::ClientConfig>, Arc<Verifier>) {
        let verifier = self.verifier(expected);
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(verifier.clone());
        let config =
            QuicClientConfig::try_from(config).expect("the provider has AES-128-GCM, which QUIC begins with");
        (watched(config), verifier)
    }

    /// The configuration of one accept, and the verifier that will know who dialled.
    pub(crate) fn listener(&self) -> (Arc<dyn crypto::ServerConfig>, Arc<Verifier>) {
        let verifier = self.verifier(None);
        let mut config = ServerConfig::builder_with_details(self.provider.clone(), self.time.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the same provider and version have made the client's configuration")
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(self.certificate.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        let config =
            QuicServerConfig::try_from(config).expect("the provider has AES-128-GCM, which QUIC begins with");
        (watched(config), verifier)
    }

    /// How many signatures of peers' host keys were checked so far.
    pub(crate) fn checked(&self) -> u64 {
        self.checks.host_signatures()
    }

    /// The time source in the form that quinn takes, for the age of its retry tokens.
    pub(crate) fn quinn_time(&self) -> Arc<dyn quinn::TimeSource> {
        Arc::new(WallClock(self.time.clone()))
    }

    fn verifier(&self, expected: Option<PeerId>) -> Arc<Verifier> {
        Arc::new(Verifier::new(self.provider.clone(), expected, self.checks.clone()))
    }
}

/// The cryptography of all endpoints of this process: ring, with the fastest cipher of this machine first.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            Arc::new(CryptoProvider {
                cipher_suites: cipher_suites(has_fast_aes()),
                kx_groups: kx_groups(),
                ..ring::default_provider()
            })
        })
        .clone()
}

/// ring's groups. With the feature `post-quantum`, X25519MLKEM768 before them.
fn kx_groups() -> Vec<&'static dyn SupportedKxGroup> {
    let groups = ring::default_provider().kx_groups;
    #[cfg(feature = "post-quantum")]
    let groups = [&[crate::post_quantum::X25519_MLKEM768], &groups[..]].concat();
    groups
}

#[cfg(feature = "post-quantum")]
fn watched<C>(config: C) -> Arc<crate::post_quantum::Watched<C>> {
    Arc::new(crate::post_quantum::Watched(Arc::new(config)))
}

/// With one key exchange to choose from nothing is to be watched.
#[cfg(not(feature = "post-quantum"))]
fn watched<C>(config: C) -> Arc<C> {
    Arc::new(config)
}

/// AES-128 is a quarter faster than ChaCha20 with AES hardware and much slower without. 256-bit keys add cost and no security that X25519 would match.
fn cipher_suites(fast_aes: bool) -> Vec<SupportedCipherSuite> {
    let order = if fast_aes {
        [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ]
    } else {
        [
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
        ]
    };
    let all = ring::ALL_CIPHER_SUITES;
    order.iter().filter_map(|name| all.iter().find(|suite| suite.suite() == *name).copied()).collect()
}

fn has_fast_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

struct WallClock(Arc<dyn TimeProvider>);

impl quinn::TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        let now = self.0.current_time().unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO));
        let since = Duration::from_secs(now.as_secs());
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_comes_first_where_the_processor_has_it_and_last_where_not() {
        let names = |fast| -> Vec<_> { cipher_suites(fast).iter().map(|suite| suite.suite()).collect() };
        assert_eq!(names(true)[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(names(false)[0], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        assert_eq!((names(true).len(), names(false).len()), (3, 3));
    }
}
