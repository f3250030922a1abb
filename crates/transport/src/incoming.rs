//! Inbound connections: a decision before any cryptography, then a bounded handshake.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::ConnectionError;
use tokio::time::timeout;

use crate::close::{CloseCause, CloseCode, TlsAlert};
use crate::connection::{Connection, Direction};
use crate::endpoint::Endpoint;
use crate::gate::Place;
use crate::proof::CertificateFault;

/// Why an inbound handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// It wasn't done in time.
    #[error("the handshake with {address} was not done within {after:?}")]
    Timeout {
        /// Where from.
        address: SocketAddr,
        /// The time that it had.
        after: Duration,
    },
    /// The dialler's certificate is not what libp2p asks for.
    #[error("refused {address}: {fault}")]
    Certificate {
        /// Where from.
        address: SocketAddr,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// The dialler refused our certificate: it expected another peer, most likely.
    #[error("{address} ended the TLS handshake: {alert}")]
    RefusedByTls {
        /// Where from.
        address: SocketAddr,
        /// The alert that it sent.
        alert: TlsAlert,
    },
    /// The connection ended before it was whole.
    #[error("no connection from {address}: {cause}")]
    Ended {
        /// Where from.
        address: SocketAddr,
        /// Why it ended.
        cause: CloseCause,
    },
}

/// An inbound connection of which only the first packet is known, and that [`crate::Admission`] lets in. Dropped, it is refused.
///
/// It counts as a handshake in progress until it is answered. The four answers, from cheap to dear: [`Incoming::ignore`] sends nothing;
/// [`Incoming::refuse`] and [`Incoming::retry`] send one packet; [`Incoming::accept`] does a TLS handshake, keeps state, and until the address is
/// validated may send three times what came.
pub struct Incoming {
    quinn: quinn::Incoming,
    endpoint: Endpoint,
    place: Place,
}

impl Incoming {
    pub(crate) fn new(quinn: quinn::Incoming, endpoint: Endpoint, place: Place) -> Self {
        Self { quinn, endpoint, place }
    }

    /// Where the packet says it comes from. Anyone can write any address there, until it is validated.
    pub fn remote_address(&self) -> SocketAddr {
        self.quinn.remote_address()
    }

    /// Whether the sender has shown that it gets what is sent to its address (RFC 9000 § 8.1).
    pub fn address_validated(&self) -> bool {
        self.quinn.remote_address_validated()
    }

    /// Does the handshake, at most for the settings' `handshake_timeout`. Dropping the future ends it.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub async fn accept(self) -> Result<Connection, AcceptError> {
        let address = self.remote_address();
        let after = self.endpoint.settings().handshake_timeout;
        timeout(after, self.handshake()).await.unwrap_or(Err(AcceptError::Timeout { address, after }))
    }

    /// Asks the sender to prove its address: it comes back as another [`Incoming`] that is validated.
    ///
    /// # Errors
    /// Gives the incoming connection back when its address is validated already.
    pub fn retry(self) -> Result<(), Box<Self>> {
        let Self { quinn, endpoint, place } = self;
        quinn.retry().map_err(|error| Box::new(Self { quinn: error.into_incoming(), endpoint, place }))
    }

    /// Says no, so that the dialler knows at once.
    pub fn refuse(self) {
        self.quinn.refuse();
    }

    /// Says nothing: for packets whose sender is probably forged.
    pub fn ignore(self) {
        self.quinn.ignore();
    }

    async fn handshake(self) -> Result<Connection, AcceptError> {
        let Self { quinn, endpoint, place: _place } = self;
        let address = quinn.remote_address();
        let ended = |error: &ConnectionError| AcceptError::Ended { address, cause: endpoint.cause(error) };
        let (config, verifier) = endpoint.listener_config(address);
        let connecting = quinn.accept_with(Arc::new(config)).map_err(|error| ended(&error))?;
        let quinn = match connecting.await {
            Ok(quinn) => quinn,
            Err(error) => {
                return Err(match (verifier.fault(), endpoint.cause(&error)) {
                    (Some(fault), _) => AcceptError::Certificate { address, fault },
                    (None, CloseCause::RefusedByTls { alert, .. }) => {
                        AcceptError::RefusedByTls { address, alert }
                    }
                    (None, cause) => AcceptError::Ended { address, cause },
                });
            }
        };
        match verifier.proven() {
            Some(peer) => Ok(Connection::new(quinn, endpoint.common().clone(), Direction::Inbound, &peer)),
            None => {
                // No handshake succeeds without the verifier. Should one, it proved nothing.
                let code = CloseCode::ProtocolViolation;
                quinn.close(code.to_varint(), b"no certificate was shown");
                Err(ended(&ConnectionError::LocallyClosed))
            }
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({})", self.remote_address())
    }
}
