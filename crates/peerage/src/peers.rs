//! The user's view of the peer manager.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use peerage_identity::{AddressError, DialAddress, PeerId};
use peerage_peers::{Input, PeerEvent, Role};
use peerage_transport::{PathStats, ProtocolTraffic};
use tokio::sync::{broadcast, oneshot};

use crate::driver::{Message, Watching};
use crate::peer::PeerInfo;
use crate::shared::Shared;

/// Who is connected, who should be, and what changes.
#[derive(Clone)]
pub struct Peers {
    pub(crate) shared: Arc<Shared>,
}

impl Peers {
    /// The connected peers, in the order of their IDs.
    pub fn connected(&self) -> Vec<PeerInfo> {
        self.shared.connected().iter().map(|peer| peer.info()).collect()
    }

    /// One connected peer.
    pub fn get(&self, peer: PeerId) -> Option<PeerInfo> {
        self.shared.peer(&peer).map(|peer| peer.info())
    }

    /// What the connection to a peer has seen of its path, and how many bytes each protocol has moved on it. `None` when it is not connected. A
    /// connection that takes the place of another begins at 0; [`Node::traffic`](crate::Node::traffic) goes on.
    pub fn stats(&self, peer: PeerId) -> Option<PeerStats> {
        let peer = self.shared.peer(&peer)?;
        Some(PeerStats { path: peer.connection.stats(), protocols: peer.connection.traffic() })
    }

    /// Names an address that may be dialled when a place is free.
    ///
    /// # Errors
    /// [`AddressError`] when the text is not an address that can be dialled.
    pub async fn add(&self, address: &str) -> Result<(), AddressError> {
        let address = DialAddress::from_str(address)?;
        self.tell(Input::Add { address, role: Role::Known }).await;
        Ok(())
    }

    /// Names a peer that is always wanted.
    ///
    /// # Errors
    /// [`AddressError`] when the text is not an address that can be dialled, or has no peer ID.
    pub async fn add_persistent(&self, address: &str) -> Result<(), AddressError> {
        let address = DialAddress::from_str(address)?;
        address.require_peer_id()?;
        self.tell(Input::Add { address, role: Role::Persistent }).await;
        Ok(())
    }

    /// Ends the connection to a peer and dials it no more until it is added again.
    pub async fn disconnect(&self, peer: PeerId) {
        self.tell(Input::Disconnect { peer }).await;
    }

    /// Adds a peer to the allow-list, and dials it if it was waited for. False when this node has no allow-list: then everyone is allowed.
    pub async fn allow(&self, peer: PeerId) -> bool {
        self.tell(Input::Allow { peer }).await;
        self.allowed().await.is_some()
    }

    /// Takes a peer off the allow-list and lets it go at once. False when this node has no allow-list: then everyone is allowed.
    pub async fn disallow(&self, peer: PeerId) -> bool {
        self.tell(Input::Disallow { peer }).await;
        self.allowed().await.is_some()
    }

    /// Puts another allow-list in the place of the one there is; `None` allows everyone. Connected peers that are not on it are let go at once.
    pub async fn set_allowed(&self, peers: Option<Vec<PeerId>>) {
        let peers = peers.map(|peers| peers.into_iter().collect());
        self.tell(Input::SetAllowed { peers }).await;
    }

    /// The peers on the allow-list, in order; `None` when there is no list, or the node has been shut down.
    pub async fn allowed(&self) -> Option<Vec<PeerId>> {
        let (reply, answer) = oneshot::channel();
        self.shared.to_driver.send(Message::Allowed { reply }).await.ok()?;
        answer.await.ok()?
    }

    /// The connected peers at one moment and every change after it, without a gap between. `None` when the node has been shut down.
    pub async fn watch(&self) -> Option<Watch> {
        let (reply, answer) = oneshot::channel();
        self.shared.to_driver.send(Message::Watch { reply }).await.ok()?;
        let Watching { connected, events } = answer.await.ok()?;
        Some(Watch { connected, events })
    }

    async fn tell(&self, input: Input) {
        // After the shutdown there is nobody to tell.
        let _ = self.shared.to_driver.send(Message::Input(input)).await;
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

/// A connection, measured since it began.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStats {
    /// Round-trip time, losses, congestion window, and UDP datagrams and bytes both ways.
    pub path: PathStats,
    /// Bytes that each protocol has moved on its streams, in the order in which their names came up; 64 names by themselves.
    pub protocols: Vec<ProtocolTraffic>,
}

/// A snapshot of the connected peers and the changes after it.
#[derive(Debug)]
pub struct Watch {
    /// Who was connected when the watch began.
    pub connected: Vec<PeerInfo>,
    events: broadcast::Receiver<PeerEvent>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one lives at a time, on its way to the watcher")]
pub enum Change {
    /// Something happened.
    Event(PeerEvent),
    /// The watcher was too slow: so many events were passed over. Ask for [`Peers::connected`] to catch up.
    Missed(u64),
}

impl Watch {
    /// The next change; `None` when the node has been shut down. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change> {
        match self.events.recv().await {
            Ok(event) => Some(Change::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Change::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
