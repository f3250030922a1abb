//! Opening connections: name resolution, the QUIC handshake, then a session. And the other way: accepting them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use peerage_identity::{DialAddress, DnsFamily, Host, PeerId};
use peerage_peers::{AttemptId, Blame, Failure, Input};
use peerage_transport::{DialError, Incoming};

use crate::driver::Message;
use crate::session;
use crate::shared::Shared;

/// Addresses of one name that are tried, in order.
const MAX_RESOLVED: usize = 8;

/// Dials, and goes on as the connection's session.
pub(crate) async fn run(
    shared: Arc<Shared>,
    attempt: AttemptId,
    address: DialAddress,
    expected: Option<PeerId>,
) {
    match connect(&shared, &address, expected).await {
        Ok(connection) => {
            // Boxed: the session is far larger than what a dial needs.
            Box::pin(session::run(shared, connection, Some(attempt))).await;
        }
        Err(failure) => {
            let failed = Input::DialFailed { attempt, failure };
            let _ = shared.to_driver.send(Message::Input(failed)).await;
        }
    }
}

async fn connect(
    shared: &Shared,
    address: &DialAddress,
    expected: Option<PeerId>,
) -> Result<peerage_transport::Connection, Failure> {
    let mut failure = None;
    for socket in resolve(address).await? {
        match shared.endpoint.dial(socket, expected).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = Some(failure_of(&error)),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::new(Blame::Unlucky, format!("{address} leads to no address"))))
}

async fn resolve(address: &DialAddress) -> Result<Vec<SocketAddr>, Failure> {
    if let Some(socket) = address.socket_addr() {
        return Ok(vec![socket]);
    }
    let (Host::Dns { name, family }, Some(port)) = (address.host(), address.port()) else {
        let detail =
            format!("{address} needs a TXT look-up, which this version lacks: name its addresses instead");
        return Err(Failure::new(Blame::Local, detail));
    };
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let found = found.map_err(|error: io::Error| {
        Failure::new(Blame::Local, format!("the name {name} cannot be resolved: {error}"))
    })?;
    let right = |socket: &SocketAddr| match family {
        DnsFamily::Any => true,
        DnsFamily::V4 => socket.is_ipv4(),
        DnsFamily::V6 => socket.is_ipv6(),
    };
    let found: Vec<_> = found.filter(right).take(MAX_RESOLVED).collect();
    if found.is_empty() {
        return Err(Failure::new(
            Blame::Local,
            format!("the name {name} leads to no address of the right family"),
        ));
    }
    Ok(found)
}

fn failure_of(error: &DialError) -> Failure {
    let blame = match error {
        DialError::WrongPeer { .. } => Blame::Hostile,
        DialError::NoSocket { .. } | DialError::Bind { .. } | DialError::Closed => Blame::Local,
        _ => Blame::Unlucky,
    };
    Failure::new(blame, error.to_string())
}

/// Accepts connections until the endpoint closes. The endpoint bounds how many wait and how many handshakes are worked on.
pub(crate) async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        shared.spawn(handshake(shared.clone(), incoming));
    }
}

async fn handshake(shared: Arc<Shared>, incoming: Incoming) {
    let remote = incoming.remote_address();
    match incoming.accept().await {
        Ok(connection) => {
            Box::pin(session::run(shared, connection, None)).await;
        }
        Err(error) => tracing::debug!(%remote, %error, "an incoming handshake failed"),
    }
}
