//! Raw quinn: mutual TLS with self-signed certificates, streams, and nothing above them.

mod client;
mod endpoint;
mod server;
mod stream;
mod tls;

pub(crate) use endpoint::endpoint;
use peerage_bench_peer::{Outcome, Peer, Served};
use rustls::CipherSuite;

/// quinn in one of its forms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawQuinn(Form);

/// What is set differently from quinn's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// The cipher suite that is put first; rustls' own order begins with AES-256.
    suite: Option<CipherSuite>,
    /// Buffers are handed over whole and taken as they come, and the sockets' buffers have 4 MiB.
    tuned: bool,
    /// The UDP payload from the first packet on, and the bound of path MTU discovery; `None`: 1200, then up to 1452.
    datagram: Option<u16>,
    /// The certificates have P-256 keys, as ours do, instead of Ed25519.
    p256: bool,
}

impl Form {
    /// quinn as it comes.
    pub(crate) const DEFAULT: Form = Form { suite: None, tuned: false, datagram: None, p256: false };

    fn named(name: &str) -> Option<Form> {
        let aes = Some(CipherSuite::TLS13_AES_128_GCM_SHA256);
        let chacha = Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        let default = Form::DEFAULT;
        Some(match name {
            "default" => default,
            "p256" => Form { p256: true, ..default },
            "chacha" => Form { suite: chacha, ..default },
            "tuned" => Form { suite: aes, tuned: true, ..default },
            "tuned-chacha" => Form { suite: chacha, tuned: true, ..default },
            "jumbo" => Form { suite: aes, tuned: true, datagram: Some(6500), ..default },
            _ => return None,
        })
    }
}

impl Peer for RawQuinn {
    const NAME: &'static str = "raw-quinn";
    const FORMS: &'static [&'static str] = &["default", "p256", "chacha", "tuned", "tuned-chacha", "jumbo"];
    type Dialler = client::Dialler;

    fn new(form: &str) -> Outcome<Self> {
        Ok(RawQuinn(Form::named(form).ok_or_else(|| format!("raw quinn has no form {form:?}"))?))
    }

    async fn serve(&self) -> Outcome<Served> {
        server::serve(self.0)
    }

    async fn dialler(&self) -> Outcome<client::Dialler> {
        client::Dialler::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_can_be_named_is_one() {
        for form in RawQuinn::FORMS {
            assert!(RawQuinn::new(form).is_ok(), "{form}");
        }
        assert_eq!(Form::named(RawQuinn::FORMS[0]), Some(Form::DEFAULT));
        assert!(RawQuinn::new("fast").is_err());
    }
}
