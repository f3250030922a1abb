//! Opening connections: look-up, a race of handshakes, then a session. And the other way: accepting them.

use std::sync::Arc;

use peerage_identity::{DialAddress, PeerId};
use peerage_peers::{AttemptId, Blame, Failure, Input};
use peerage_transport::{Connection, DialError, Incoming};

use crate::driver::Message;
use crate::shared::Shared;
use crate::{race, resolve, session};

/// Dials, and goes on as the connection's session.
pub(crate) async fn run(
    shared: Arc<Shared>,
    attempt: AttemptId,
    address: DialAddress,
    expected: Option<PeerId>,
) {
    match connect(&shared, &address, expected).await {
        // A task of its own: what a dial needs is given back while the session lasts.
        Ok(connection) => shared.spawn(session::run(shared.clone(), connection, Some(attempt))),
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
) -> Result<Connection, Failure> {
    let places = resolve::places(shared.resolver.as_ref(), address, expected).await;
    let places = places.map_err(|detail| Failure::new(Blame::Local, detail))?;
    let sockets = places.iter().map(|(socket, _)| *socket).collect();
    let expected_at = |socket| places.iter().find(|place| place.0 == socket).and_then(|place| place.1);
    let dialled = race::race(sockets, |socket| shared.endpoint.dial(socket, expected_at(socket))).await;
    // The gravest failure says most: a wrong peer at one address weighs more than silence at another.
    dialled.map_err(|errors| {
        let failures = errors.iter().map(failure_of);
        failures
            .max_by_key(|failure| failure.blame)
            .unwrap_or_else(|| Failure::new(Blame::Unlucky, "no address"))
    })
}

fn failure_of(error: &DialError) -> Failure {
    let blame = match error {
        DialError::WrongPeer { .. } => Blame::Hostile,
        DialError::Refused { .. } => Blame::Overloaded,
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
        Ok(connection) => shared.spawn(session::run(shared.clone(), connection, None)),
        Err(error) => tracing::debug!(%remote, %error, "an incoming handshake failed"),
    }
}
