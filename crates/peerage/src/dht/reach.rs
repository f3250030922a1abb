//! Connecting to a peer by its ID alone: at what it has published, else at what the nodes near it name.
//!
//! What the DHT says of addresses is hearsay, a peer's own word too, as anybody may publish what he likes. It is dialled once for each call, at few places of a name, no narrower
//! than where those are who told us, and stands in the address book only when a handshake has proved it.

use std::sync::Arc;

use peerage_identity::{AddressScope, DialAddress, PeerId};
use tokio::sync::oneshot;

use super::{Dht, Health};
use crate::driver::Message;
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
    let tried = published.as_deref().unwrap_or_default();
    let mut last = None;
    if !tried.is_empty() {
        match dial(&dht, peer, tried).await {
            Err(error) if !matches!(error, ConnectError::Closed) => last = Some(error),
            done => return done,
        }
    }
    // It may have moved, and not have published that yet.
    let found = dht.find_peer(peer).await;
    let mut named = found.as_ref().map(|(contact, _)| contact.addresses()).unwrap_or_default();
    let bare = |address: &DialAddress| address.clone().without_peer_id();
    named.retain(|address| !tried.iter().any(|known| bare(known) == bare(address)));
    if !named.is_empty() {
        return dial(&dht, peer, &named).await;
    }
    match (last, published, found) {
        (Some(error), ..) => Err(error),
        (None, Err(why), Err(_)) => Err(beside(known, &why.to_string())),
        _ => Err(beside(known, "the DHT names none that can be dialled")),
    }
}

async fn dial(dht: &Dht, peer: PeerId, addresses: &[DialAddress]) -> Result<PeerId, ConnectError> {
    let (reply, answer) = oneshot::channel();
    let (addresses, told_from) = (addresses.to_vec(), scope(dht).await);
    let message = Message::Reach { peer, addresses, told_from, reply };
    dht.shared.to_driver.send(message).await.map_err(|_| ConnectError::Closed)?;
    answer.await.unwrap_or(Err(ConnectError::Closed))
}

/// The narrowest scope in which a peer of ours is: connected, or usable in the table, where addresses stand that were believed of those who were met there. What is narrower is
/// nobody's to tell us.
async fn scope(dht: &Dht) -> AddressScope {
    let connected = dht.shared.connected();
    let remotes = connected.iter().map(|peer| AddressScope::of(peer.connection.remote_address().ip()));
    let known = dht.table().await.unwrap_or_default();
    let usable = known.iter().filter(|(_, health)| *health != Health::Quarantined);
    let scopes = usable.map(|(contact, _)| contact.narrowest());
    remotes.chain(scopes).min().unwrap_or(AddressScope::Global)
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
