//! Opening connections: look-up, a race of handshakes, then a session. And the other way: accepting them.

use std::sync::Arc;

use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_peers::{AttemptId, Failure, Fault, Input};
use peerage_transport::{Connection, Incoming};

use crate::driver::Message;
use crate::resolve::{self, Place};
use crate::shared::Shared;
use crate::{faults, race, session};

/// Dials, and goes on as the connection's session.
pub(crate) async fn run(
    shared: Arc<Shared>,
    attempt: AttemptId,
    address: DialAddress,
    expected: Option<PeerId>,
    told_from: Option<AddressScope>,
) {
    match connect(&shared, &address, expected, told_from).await {
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
    told_from: Option<AddressScope>,
) -> Result<Connection, Failure> {
    let places = resolve::places(shared.resolver.as_ref(), address, expected).await;
    let places = places.map_err(|detail| Failure::new(Fault::Unresolved, detail))?;
    let places = credible(places, address, told_from)?;
    let sockets = places.iter().map(|(socket, _)| *socket).collect();
    let expected_at = |socket| places.iter().find(|place| place.0 == socket).and_then(|place| place.1);
    let dialled = race::race(sockets, |socket| shared.endpoint.dial(socket, expected_at(socket))).await;
    // The gravest failure says most: a wrong peer at one address weighs more than silence at another.
    dialled.map_err(|errors| {
        let failures = errors.iter().map(faults::of_dial);
        failures.max_by_key(Failure::blame).unwrap_or_else(|| Failure::from(Fault::Timeout))
    })
}

/// The places that whoever told us of the address may name: a stranger's name must not lead into our own network.
fn credible(
    places: Vec<Place>,
    address: &DialAddress,
    told_from: Option<AddressScope>,
) -> Result<Vec<Place>, Failure> {
    let Some(teller) = told_from else { return Ok(places) };
    let fine = |(socket, _): &Place| AddressScope::of(socket.ip()).is_credible_from(teller);
    let places: Vec<_> = places.into_iter().filter(fine).collect();
    if places.is_empty() {
        let detail =
            format!("{address} leads only to addresses that a peer at a {teller} address may not name");
        return Err(Failure::new(Fault::OutOfScope, detail));
    }
    Ok(places)
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
