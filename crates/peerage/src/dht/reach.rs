//! Connecting to a peer by its ID alone: at what it has published, else at what the nodes near it name.
//!
//! What the DHT says of addresses is hearsay, a peer's own word too, as anybody may publish what he likes. It is dialled as a visit: at few
//! places of a name, no narrower than where those are who told us, and without a place in the address book. That is for what a handshake has proved.

use std::sync::Arc;

use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_peers::{Failure, Fault};
use tokio::time::Instant;

use super::Dht;
use crate::error::ConnectError;
use crate::shared::Shared;

/// Connects to a peer whose ID is all that is known; `known` is why it wasn't reached at the addresses that the book has.
///
/// # Errors
/// Why it wasn't reached where it was dialled last, or that the DHT names no address.
pub(crate) async fn reach(
    shared: &Arc<Shared>,
    peer: PeerId,
    known: ConnectError,
) -> Result<PeerId, ConnectError> {
    let dht = Dht { shared: shared.clone() };
    let published = dht.endpoint(peer).await.map(|(addresses, _)| addresses);
    let mut tried = published.as_deref().unwrap_or_default().to_vec();
    let mut last = None;
    if !tried.is_empty() {
        match dial(&dht, peer, &tried).await {
            Err(failure) if may_be_elsewhere(&failure) => last = Some(failure),
            done => return done.map_err(ConnectError::from),
        }
    }
    // It may have moved, and not have published that yet.
    let found = dht.find_peer(peer).await;
    let mut named = found.as_ref().map(|(contact, _)| contact.addresses()).unwrap_or_default();
    let bare = |address: &DialAddress| address.clone().without_peer_id();
    named.retain(|address| !tried.iter().any(|known| bare(known) == bare(address)));
    if !named.is_empty() {
        tried.append(&mut named);
        return dial(&dht, peer, &tried).await.map_err(ConnectError::from);
    }
    match (last, published, found) {
        (Some(failure), ..) => Err(failure.into()),
        (None, Err(why), Err(_)) => Err(beside(known, &why.to_string())),
        _ => Err(beside(known, "the DHT names none that can be dialled")),
    }
}

async fn dial(dht: &Dht, peer: PeerId, addresses: &[DialAddress]) -> Result<PeerId, Failure> {
    let (begun, whole) = (Instant::now(), dht.shared.endpoint.settings().dial_timeout);
    let scope = scope(dht).await;
    let visit = || dht.shared.visit(peer, addresses.to_vec(), Some(scope), true);
    let first = match visit().await {
        Err(failure) if may_be_elsewhere(&failure) && begun.elapsed() < whole => failure,
        done => return done,
    };
    // It may have waited for a dial that began before these addresses were known, at what somebody had named wrongly.
    visit().await.map_err(|second| if second.fault == Fault::TooManyDials { first } else { second })
}

/// The narrowest scope in which a peer of ours is: connected, or in the table, where addresses stand that were believed of those who were met there. What is narrower is nobody's
/// to tell us.
async fn scope(dht: &Dht) -> AddressScope {
    let connected = dht.shared.connected();
    let remotes = connected.iter().map(|peer| AddressScope::of(peer.connection.remote_address().ip()));
    let known = dht.table().await.unwrap_or_default();
    let known = known.iter().map(|(contact, _)| contact.narrowest());
    remotes.chain(known).min().unwrap_or(AddressScope::Global)
}

/// Whether other addresses may help.
fn may_be_elsewhere(failure: &Failure) -> bool {
    !matches!(failure.fault, Fault::ThisNodeCloses | Fault::Banned | Fault::RefusedByUs(_))
}

/// Why there was no connection before the DHT was asked, and what that said.
fn beside(known: ConnectError, said: &str) -> ConnectError {
    match known {
        ConnectError::Failed { blame, detail } => {
            ConnectError::Failed { blame, detail: format!("{detail}; in the DHT: {said}") }
        }
        other => other,
    }
}
