//! Doors to the decoders of this crate, for fuzzing and for the micro-benchmarks. No part of the API: it may change at any time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{NodeKey, PeerId};
use peerage_machine::Random;
use rustls::crypto::ring;
use rustls::pki_types::UnixTime;

use crate::certificate::OwnCertificate;
use crate::close;
use crate::negotiate::{self, Answer, Dialler, Listener, NegotiationError, Step};
use crate::proof::{self, CertificateFault, Checks};
use crate::settings::CertificateKind;

/// The peer that a certificate proves at a time, in seconds since 1970.
///
/// # Errors
/// [`CertificateFault`].
pub fn certificate(der: &[u8], unix_seconds: u64) -> Result<PeerId, CertificateFault> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds));
    let algorithms = ring::default_provider().signature_verification_algorithms;
    proof::verify(der, now, &algorithms, &Checks::new()).map(|proven| proven.peer_id)
}

/// A certificate as an endpoint shows it at a time, in seconds since 1970, and the peer that it proves.
///
/// # Errors
/// In words.
pub fn own_certificate(kind: CertificateKind, unix_seconds: u64) -> Result<(Vec<u8>, PeerId), String> {
    let (host, now) =
        (NodeKey::from_seed([1; 32]), UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds)));
    let own = OwnCertificate::generate(&host, kind, now, &mut Random::from_number(1))?;
    Ok((own.certificate.to_vec(), host.peer_id()))
}

/// The host key and the signature in the content of the libp2p extension.
///
/// # Errors
/// [`CertificateFault::BadExtension`].
pub fn certificate_extension(content: &[u8]) -> Result<(Vec<u8>, Vec<u8>), CertificateFault> {
    let (key, signature) = proof::parse_extension(content)?;
    Ok((key.as_bytes().to_vec(), signature.as_bytes().to_vec()))
}

/// How far a negotiation has come when all chunks were heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Negotiation {
    /// A name is agreed on; the rest is data for its protocol.
    Agreed(String, Vec<u8>),
    /// What was proposed last was refused for good.
    Refused(String),
    /// More is needed. So many bytes are held until then.
    Waiting(usize),
    /// It failed.
    Failed(NegotiationError),
}

/// The listener's side: how it ends and what was answered.
pub fn listen(
    chunks: impl IntoIterator<Item = Bytes>,
    supports: impl Fn(&str) -> bool,
) -> (Negotiation, Vec<u8>) {
    let (mut chunks, mut listener, mut said) = (chunks.into_iter(), Listener::default(), Vec::new());
    loop {
        match listener.step(&supports) {
            Ok(Step::More) => match chunks.next() {
                Some(chunk) => listener.push(chunk),
                None => return (Negotiation::Waiting(listener.into_rest().len()), said),
            },
            Ok(Step::Say(answer)) => said.extend(answer),
            Ok(Step::Agree(name, answer)) => {
                said.extend(answer);
                let rest = listener.into_rest().into_iter().chain(chunks.flatten()).collect();
                return (Negotiation::Agreed(name, rest), said);
            }
            Ok(Step::Refuse(name, answer)) => {
                said.extend(answer);
                return (Negotiation::Refused(name), said);
            }
            Err(error) => return (Negotiation::Failed(error), said),
        }
    }
}

/// The dialler's side: what the answer to a proposed name comes to.
pub fn dial(chunks: impl IntoIterator<Item = Bytes>, proposed: &str) -> Negotiation {
    let (mut chunks, mut dialler) = (chunks.into_iter(), Dialler::new(Arc::from(proposed)));
    loop {
        match dialler.answer() {
            Ok(None) => match chunks.next() {
                Some(chunk) => dialler.push(chunk),
                None => return Negotiation::Waiting(dialler.into_rest().len()),
            },
            Ok(Some(Answer::Agreed)) => {
                let rest = dialler.into_rest().into_iter().chain(chunks.flatten()).collect();
                return Negotiation::Agreed(proposed.to_owned(), rest);
            }
            Ok(Some(Answer::NotAvailable)) => return Negotiation::Refused(proposed.to_owned()),
            Err(error) => return Negotiation::Failed(error),
        }
    }
}

/// Header and name, as a dialler begins; `None` for what is no protocol name.
pub fn proposal(protocol: &str) -> Option<Bytes> {
    negotiate::is_protocol_name(protocol).then(|| negotiate::proposal(protocol))
}

/// A peer's remark, such as its reason for closing a connection, as it is shown.
pub fn remark(bytes: &[u8]) -> String {
    close::printable(bytes)
}
