//! Opening connections: look-up, a race of handshakes, then a session. And the other way: accepting them.

use std::sync::{Arc, Mutex, PoisonError};

use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_peers::{AttemptId, Course, Failure, Fault, Input, Route};
use peerage_transport::{Connection, Incoming};

use crate::driver::Message;
use crate::resolve::{self, Place};
use crate::shared::Shared;
use crate::{faults, race, session};

/// Dials, and goes on as the connection's session.
pub(crate) async fn run(
    shared: Arc<Shared>,
    attempt: AttemptId,
    routes: Vec<Route>,
    expected: Option<PeerId>,
) {
    let (dialled, courses) = connect(&shared, &routes, expected).await;
    let raced = Input::Raced { attempt, courses };
    if shared.to_driver.send(Message::Input(raced)).await.is_err() {
        return;
    }
    match dialled {
        // A task of its own: what a dial needs is given back while the session lasts.
        Ok(connection) => shared.spawn(session::run(shared.clone(), connection, Some(attempt))),
        Err(failure) => {
            let failed = Input::DialFailed { attempt, failure };
            let _ = shared.to_driver.send(Message::Input(failed)).await;
        }
    }
}

/// Races all addresses of a target, and says what became of each.
async fn connect(
    shared: &Shared,
    routes: &[Route],
    expected: Option<PeerId>,
) -> (Result<Connection, Failure>, Vec<Course>) {
    let courses = Mutex::new(vec![Course::NotBegun; routes.len()]);
    let set = |index: usize, course| {
        let mut courses = courses.lock().unwrap_or_else(PoisonError::into_inner);
        courses.get_mut(index).into_iter().for_each(|at| *at = Course::clone(&course));
    };
    let dialled = race::race(0..routes.len(), |index| {
        // Until it has ended: then it is known how.
        set(index, Course::Cancelled);
        let (set, route) = (&set, routes.get(index));
        async move {
            let dialled = match route {
                Some(route) => connect_at(shared, route, expected).await,
                None => Err(Failure::from(Fault::NoAddress)),
            };
            let course = dialled.as_ref().err().cloned().map_or(Course::Reached, Course::Failed);
            set(index, course);
            dialled
        }
    })
    .await;
    let courses = std::mem::take(&mut *courses.lock().unwrap_or_else(PoisonError::into_inner));
    (dialled.map_err(gravest), courses)
}

/// Looks one address up, and races the places that it stands for.
async fn connect_at(shared: &Shared, route: &Route, expected: Option<PeerId>) -> Result<Connection, Failure> {
    let address = &route.address;
    let places = resolve::places(shared.resolver.as_ref(), address, expected).await;
    let places = places.map_err(|detail| Failure::new(Fault::Unresolved, detail))?;
    let mut places = credible(places, address, route.told_from)?;
    if route.unproved {
        places.truncate(resolve::MAX_HEARSAY_ADDRESSES);
    }
    let sockets: Vec<_> = places.iter().map(|(socket, _)| *socket).collect();
    let expected_at = |socket| places.iter().find(|place| place.0 == socket).and_then(|place| place.1);
    let dialled = race::race(sockets, |socket| shared.endpoint.dial(socket, expected_at(socket))).await;
    dialled.map_err(|errors| gravest(errors.iter().map(faults::of_dial)))
}

/// The gravest failure says most: a wrong peer at one address weighs more than silence at another.
fn gravest(failures: impl IntoIterator<Item = Failure>) -> Failure {
    failures.into_iter().max_by_key(Failure::blame).unwrap_or_else(|| Failure::from(Fault::Timeout))
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
