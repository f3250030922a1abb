//! The verifiers that rustls calls: one per dial, one per accept. Each keeps the peer that its handshake proved.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerage_identity::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    PeerMisbehaved, SignatureScheme,
};

use crate::proof::{self, CertificateFault, Checks, ProvenPeer};

/// Judges the certificate of one handshake, in either direction.
///
/// What it found is of worth only when the handshake has succeeded: take [`Verifier::proven`] then and not before. TLS keeps the verifier for as long as the
/// connection lives, so nothing large stays in it.
#[derive(Debug)]
pub(crate) struct Verifier {
    provider: Arc<CryptoProvider>,
    expected: Option<Box<PeerId>>,
    checks: Arc<Checks>,
    found: Mutex<Found>,
}

/// What a handshake's certificate was worth.
#[derive(Debug)]
enum Found {
    /// None came yet.
    Nothing,
    Good(Box<ProvenPeer>),
    Bad(Box<CertificateFault>),
    /// It was good, and the connection has it.
    Taken,
}

impl Verifier {
    /// A verifier for one handshake. With `expected`, any other peer is refused.
    pub(crate) fn new(provider: Arc<CryptoProvider>, expected: Option<PeerId>, checks: Arc<Checks>) -> Self {
        Self { provider, expected: expected.map(Box::new), checks, found: Mutex::new(Found::Nothing) }
    }

    /// The peer that the handshake proved, once. `None` when no certificate was judged, or a bad one.
    pub(crate) fn proven(&self) -> Option<Box<ProvenPeer>> {
        let mut found = self.found();
        match std::mem::replace(&mut *found, Found::Taken) {
            Found::Good(proven) => Some(proven),
            other => {
                *found = other;
                None
            }
        }
    }

    /// Why the certificate was refused, if it was.
    pub(crate) fn fault(&self) -> Option<CertificateFault> {
        match &*self.found() {
            Found::Bad(fault) => Some((**fault).clone()),
            _ => None,
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut found = self.found();
        match &*found {
            Found::Nothing => {}
            Found::Bad(fault) => return Err(fault.to_rustls()),
            // A handshake has one certificate message: rustls doesn't ask twice.
            Found::Good(_) | Found::Taken => return Err(PeerMisbehaved::TooManyRenegotiationRequests.into()),
        }
        let judged = self.judge_once(end_entity, intermediates, now);
        let result = judged.as_ref().map(|_| ()).map_err(CertificateFault::to_rustls);
        *found = judged.map_or_else(|fault| Found::Bad(fault.into()), |proven| Found::Good(proven.into()));
        result
    }

    fn judge_once(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ProvenPeer, CertificateFault> {
        if !intermediates.is_empty() {
            return Err(CertificateFault::Count { count: intermediates.len() + 1 });
        }
        let proven =
            proof::verify(end_entity, now, &self.provider.signature_verification_algorithms, &self.checks)?;
        match &self.expected {
            Some(expected) if **expected != proven.peer_id => Err(CertificateFault::WrongPeer {
                expected: expected.clone(),
                found: Box::new(proven.peer_id),
            }),
            _ => Ok(proven),
        }
    }

    /// The CertificateVerify message: the peer holds the private half of the certificate's key (RFC 8446 § 4.4.3).
    fn verify_handshake(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let found = self.found();
        let Found::Good(proven) = &*found else {
            return Err(Error::NoCertificatesPresented);
        };
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(proven.spki.as_slice()),
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_handshake(message, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_handshake(message, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl CertificateFault {
    /// The error that makes rustls send the alert which fits best (RFC 8446 § 6.2).
    fn to_rustls(&self) -> Error {
        let error = match self {
            // 42, bad certificate.
            Self::Count { .. }
            | Self::Malformed { .. }
            | Self::NoExtension
            | Self::RepeatedExtension { .. }
            | Self::BadExtension { .. } => CertificateError::BadEncoding,
            Self::UnknownCritical { .. } => CertificateError::UnhandledCriticalExtension,
            // 45, certificate expired, which includes those not yet valid.
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::Expired => CertificateError::Expired,
            // 51, a signature is wrong.
            Self::BadSignature | Self::BadHostSignature => CertificateError::BadSignature,
            // 49, access denied: nothing is wrong with the certificate.
            Self::WrongPeer { .. } => CertificateError::ApplicationVerificationFailure,
            // 46, certificate unknown.
            Self::HostKey(_) | Self::UnsupportedAlgorithm => {
                CertificateError::Other(OtherError(Arc::new(self.clone())))
            }
        };
        error.into()
    }
}
