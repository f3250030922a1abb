//! The user's view of the peer manager.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use peerage_identity::{AddressError, DialAddress, PeerId};
use peerage_machine::Now;
use peerage_peers::{
    Ban, BanError, BanTarget, Input, PeerClass, PeerEvent, PeerManager, PeerState, Penalty, Role, Story,
};
use peerage_transport::{PathStats, ProtocolTraffic};
use tokio::sync::{broadcast, oneshot};

use crate::driver::{Call, Message, Watching};
use crate::peer::PeerInfo;
use crate::shared::Shared;
use crate::store::StoreError;

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

    /// Names a peer that is always wanted, as [`Peers::set_class`] does, with the address at which it is dialled.
    ///
    /// # Errors
    /// [`AddressError`] when the text is not an address that can be dialled, or has no peer ID.
    pub async fn add_persistent(&self, address: &str) -> Result<(), AddressError> {
        let address = DialAddress::from_str(address)?;
        address.require_peer_id()?;
        self.tell(Input::Add { address, role: Role::Persistent }).await;
        Ok(())
    }

    /// Gives a peer a class: persistent, unconditional or private. It holds until [`Peers::unset_class`]; after a restart too, where the node keeps
    /// an address book ([`Peers::stored`] waits for that). A persistent peer needs an address to be dialled at: [`Peers::add_persistent`] names both at once.
    pub async fn set_class(&self, peer: PeerId, class: PeerClass) {
        self.tell(Input::SetClass { peer, class, on: true }).await;
    }

    /// Takes a class from a peer. A connection that is up stays up, and counts from now on. A class that the builder gave comes back with the next start.
    pub async fn unset_class(&self, peer: PeerId, class: PeerClass) {
        self.tell(Input::SetClass { peer, class, on: false }).await;
    }

    /// Who has which class, in the order of their IDs.
    pub async fn classes(&self) -> Vec<(PeerId, PeerClass)> {
        self.call(|_, manager| manager.classes().collect()).await.unwrap_or_default()
    }

    /// Keeps a peer, an address or a subnet out for `lasts`, or until [`Peers::unban`] when that is `None`. Connections end at once with
    /// [`crate::CloseCode::Banned`], later ones are refused, and nobody there is dialled. A ban on an address or a subnet does not touch persistent and
    /// unconditional peers in it; one on a peer ID touches any. The reason is for people and not told to the peer. A new ban of the same target
    /// replaces the old one. Where the node keeps an address book, bans are stored there within moments, and hold after a restart.
    ///
    /// # Errors
    /// [`BanError`]: this node itself, or more bans than are kept.
    pub async fn ban(
        &self,
        target: BanTarget,
        reason: &str,
        lasts: Option<Duration>,
    ) -> Result<(), BanError> {
        let reason = reason.to_owned();
        // After the shutdown there is nobody to keep out.
        self.call(move |now, manager| manager.ban(now, target, &reason, lasts)).await.unwrap_or(Ok(()))
    }

    /// Lifts a ban. False when there was none.
    pub async fn unban(&self, target: BanTarget) -> bool {
        self.call(move |now, manager| manager.unban(now, target)).await.unwrap_or(false)
    }

    /// The bans in force, ordered by target.
    pub async fn bans(&self) -> Vec<Ban> {
        self.call(|_, manager| manager.bans().cloned().collect()).await.unwrap_or_default()
    }

    /// Reports that a peer did what no honest node does, such as [`Penalty::BadContent`] when its messages are false. Each penalty adds to the peer's
    /// score, and a peer with too high a score is banned for [`PeersConfig::ban_time`](crate::PeersConfig::ban_time); a persistent one never is.
    pub async fn penalise(&self, peer: PeerId, penalty: Penalty) {
        self.tell(Input::Penalise { peer, penalty }).await;
    }

    /// Ends the connection to a peer and dials it no more until it is added again.
    pub async fn disconnect(&self, peer: PeerId) {
        self.tell(Input::Disconnect { peer }).await;
    }

    /// Adds a peer to the allow-list, and dials it if it was waited for. Where the node keeps an address book, this is stored, and adds to the list of the next
    /// start if that has one. False when this node has no allow-list: then everyone is allowed.
    pub async fn allow(&self, peer: PeerId) -> bool {
        self.tell(Input::Allow { peer }).await;
        self.allowed().await.is_some()
    }

    /// Takes a peer off the allow-list and lets it go at once. One that the builder named comes back with the next start. False when this node has no allow-list: then everyone is allowed.
    pub async fn disallow(&self, peer: PeerId) -> bool {
        self.tell(Input::Disallow { peer }).await;
        self.allowed().await.is_some()
    }

    /// Puts another allow-list in the place of the one there is; `None` allows everyone. Connected peers that are not on it are let go at once.
    pub async fn set_allowed(&self, peers: Option<Vec<PeerId>>) {
        let peers = peers.map(|peers| peers.into_iter().collect());
        self.tell(Input::SetAllowed { peers }).await;
    }

    /// Waits until the bans, classes and allow-list entries that were given or taken so far are stored, so that a crash from now on does not undo them. Returns
    /// at once where the node keeps nothing.
    ///
    /// # Errors
    /// [`StoreError`]: they hold, but could not be stored. That is tried again until it succeeds.
    pub async fn stored(&self) -> Result<(), StoreError> {
        let (reply, caught_up) = oneshot::channel();
        if self.shared.to_driver.send(Message::CaughtUp { reply }).await.is_ok() {
            let _ = caught_up.await;
        }
        // In a task of its own: what could not be written must come back, whoever has stopped waiting for it.
        let shared = self.shared.clone();
        let flush = async move { shared.saving.flush().await };
        self.shared.spawn_whole(flush).await.unwrap_or(Ok(()))
    }

    /// The peers on the allow-list, in order; `None` when there is no list, or the node has been shut down.
    pub async fn allowed(&self) -> Option<Vec<PeerId>> {
        let (reply, answer) = oneshot::channel();
        self.shared.to_driver.send(Message::Allowed { reply }).await.ok()?;
        answer.await.ok()?
    }

    /// Every peer's state at one moment and every change after it, without a gap between. `None` when the node has been shut down.
    pub async fn watch(&self) -> Option<Watch> {
        let (reply, answer) = oneshot::channel();
        self.shared.to_driver.send(Message::Watch { reply }).await.ok()?;
        let Watching { connected, states, events } = answer.await.ok()?;
        Some(Watch { connected, states, events })
    }

    /// Why a peer is connected or not, with what happened to it so far as the journal goes back: [`Story`] prints as text and serialises as
    /// data. `None` when the node has been shut down.
    pub async fn why(&self, peer: PeerId) -> Option<Story> {
        let (reply, answer) = oneshot::channel();
        self.shared.to_driver.send(Message::Why { peer, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Runs `call` on the peer manager; `None` when the node has been shut down.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(Now, &mut PeerManager) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let call = Call(Box::new(move |now, manager| {
            let _ = reply.send(call(now, manager));
        }));
        self.shared.to_driver.send(Message::Manager(call)).await.ok()?;
        answer.await.ok()
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

/// A snapshot of all peers and the changes after it: whoever applies each [`PeerEvent::Changed`] to `states` knows every peer's state.
#[derive(Debug)]
pub struct Watch {
    /// Who was connected when the watch began.
    pub connected: Vec<PeerInfo>,
    /// What each known peer was when the watch began, in the order of their IDs. Times are those of [`Node::uptime`](crate::Node::uptime).
    pub states: Vec<(PeerId, PeerState)>,
    events: broadcast::Receiver<PeerEvent>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one lives at a time, on its way to the watcher")]
pub enum Change {
    /// Something happened.
    Event(PeerEvent),
    /// The watcher was too slow: so many events were passed over. Watch anew to catch up.
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
