//! Dialling: one address, one expected peer, one deadline.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::PeerId;
use quinn::{ConnectError, ConnectionError};
use tokio::time::timeout;

use crate::close::{CloseCause, CloseCode, TlsAlert};
use crate::connection::{Connection, Direction};
use crate::endpoint::Endpoint;
use crate::proof::CertificateFault;
use crate::socket::BindError;
use crate::verifier::Verifier;

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody answered, or not in time.
    #[error(
        "nothing answered at {address} within {after:?} (is a node running there, and does UDP get through?)"
    )]
    Timeout {
        /// Where to.
        address: SocketAddr,
        /// The time that it had.
        after: Duration,
    },
    /// Another peer than the expected one lives there. It proved who it is.
    #[error(
        "another peer answered at {address}: {found}, not {expected} (correct the peer ID in the address)"
    )]
    WrongPeer {
        /// Where to.
        address: SocketAddr,
        /// Who was dialled.
        expected: Box<PeerId>,
        /// Who answered.
        found: Box<PeerId>,
    },
    /// The peer's certificate is not what libp2p asks for.
    #[error("refused {address}: {fault}")]
    Certificate {
        /// Where to.
        address: SocketAddr,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// The peer takes no connection now. It said so before it knew who we are.
    #[error("{address} takes no new connection at the moment (try again later)")]
    Refused {
        /// Where to.
        address: SocketAddr,
    },
    /// The peer refused our certificate or our protocol during the handshake.
    #[error("{address} ended the TLS handshake: {alert}")]
    RefusedByTls {
        /// Where to.
        address: SocketAddr,
        /// The alert that it sent.
        alert: TlsAlert,
    },
    /// The connection ended before it was whole.
    #[error("no connection to {address}: {cause}")]
    Ended {
        /// Where to.
        address: SocketAddr,
        /// Why it ended.
        cause: CloseCause,
    },
    /// Nothing of the endpoint can send there.
    #[error("no socket can send to {address}: this node listens on {} only (add a listen address of the same kind)", listed(.listening))]
    NoSocket {
        /// Where to.
        address: SocketAddr,
        /// The sockets that there are.
        listening: Vec<SocketAddr>,
    },
    /// No socket could be opened to dial from.
    #[error("cannot dial {address}: {source}")]
    Bind {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        source: BindError,
    },
    /// An address that cannot be dialled, such as port 0.
    #[error("{address} cannot be dialled (give a concrete address and a port other than 0)")]
    BadAddress {
        /// What was given.
        address: SocketAddr,
    },
    /// The endpoint was closed.
    #[error("the endpoint is closed")]
    Closed,
}

impl Endpoint {
    /// Dials `to` and waits for the handshake, at most for the settings' `dial_timeout`.
    ///
    /// With `expected`, any other peer is refused during the handshake. In TLS 1.3 the dialler is done first: a peer that refuses *us* closes the
    /// connection a little later, and nothing that it sent until then is from an admitted connection. Dropping the future abandons the dial.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, to: SocketAddr, expected: Option<PeerId>) -> Result<Connection, DialError> {
        let socket = self.dialling_socket(to)?;
        let (config, verifier) = self.dialler_config(to, expected);
        let connecting =
            socket.connect_with(config, to, SERVER_NAME).map_err(|error| refused_here(&error, to))?;
        let after = self.settings().dial_timeout;
        let quinn = match timeout(after, connecting).await {
            Ok(Ok(quinn)) => quinn,
            Ok(Err(error)) => return Err(self.dial_error(&error, to, &verifier)),
            Err(_) => return Err(DialError::Timeout { address: to, after }),
        };
        match verifier.proven() {
            Some(peer) => Ok(Connection::new(quinn, self.common().clone(), Direction::Outbound, &peer)),
            None => {
                // No handshake succeeds without the verifier. Should one, it proved nothing.
                let code = CloseCode::ProtocolViolation;
                quinn.close(code.to_varint(), b"no certificate was shown");
                let cause = CloseCause::ByUs { code, reason: "no certificate was shown".into() };
                Err(DialError::Ended { address: to, cause })
            }
        }
    }

    fn dial_error(&self, error: &ConnectionError, address: SocketAddr, verifier: &Verifier) -> DialError {
        match verifier.fault() {
            Some(CertificateFault::WrongPeer { expected, found }) => {
                return DialError::WrongPeer { address, expected, found };
            }
            Some(fault) => {
                return DialError::Certificate { address, fault };
            }
            None => {}
        }
        match error {
            ConnectionError::ConnectionClosed(close)
                if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
            {
                DialError::Refused { address }
            }
            ConnectionError::LocallyClosed => DialError::Closed,
            ConnectionError::TimedOut => DialError::Timeout { address, after: self.settings().idle_timeout },
            other => match self.cause(other) {
                CloseCause::RefusedByTls { alert, .. } => DialError::RefusedByTls { address, alert },
                cause => DialError::Ended { address, cause },
            },
        }
    }
}

fn refused_here(error: &ConnectError, address: SocketAddr) -> DialError {
    match error {
        ConnectError::EndpointStopping => DialError::Closed,
        ConnectError::InvalidRemoteAddress(_) => DialError::BadAddress { address },
        other => DialError::Ended { address, cause: CloseCause::Transport { detail: other.to_string() } },
    }
}

pub(crate) fn listed(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// rustls wants a name to dial. It is never sent: libp2p knows no server names.
const SERVER_NAME: &str = "libp2p";
