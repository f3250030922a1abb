//! Where this node listens and what others are told of it: addresses come and go at run time, and a wildcard follows the machine's interfaces.
//!
//! What changes ends in [`Here`], the announced addresses with their signed record; hello, identify and its pushes read it there. An address that went
//! away is one that the interfaces had and have no more, so loopback addresses, of which the list names only one, never go.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_identity::{AddressScope, DialAddress, ListenAddress, NodeKey, RecordError, SignedPeerRecord};
use peerage_peers::Input;
use peerage_transport::{BindError, Endpoint};
use tokio::sync::Notify;

use crate::driver::Message;
use crate::environment::Environment;
use crate::error::ListenError;
use crate::shared::Shared;
use crate::watch;

/// Addresses that a node announces.
pub(crate) const MAX_ANNOUNCED: usize = 16;

/// Where others can reach us.
#[derive(Debug)]
pub(crate) struct Here {
    /// With our peer ID.
    pub(crate) addresses: Vec<DialAddress>,
    /// The same, signed.
    pub(crate) record: SignedPeerRecord,
}

/// Where we listen.
#[derive(Debug)]
pub(crate) struct Listening {
    here: watch::Sender<Arc<Here>>,
    state: Mutex<State>,
    /// Told when a wildcard is listened at.
    wildcard: Notify,
    interval: Duration,
}

#[derive(Debug)]
struct State {
    listened: Vec<Listened>,
    interfaces: Vec<IpAddr>,
    /// Where enough peers see us: announced beside the rest, as long as we listen at all.
    observed: Vec<SocketAddr>,
}

/// One address that the user asked for, with its real port.
#[derive(Debug)]
struct Listened {
    address: SocketAddr,
    /// Its socket is there. It isn't while the machine lacks the address.
    up: bool,
}

impl State {
    fn has_wildcard(&self) -> bool {
        self.listened.iter().any(|one| one.address.ip().is_unspecified())
    }

    /// What others are told: what we listen at, a wildcard standing for the addresses of this machine's interfaces.
    fn announced(&self, key: &NodeKey) -> Vec<DialAddress> {
        let mut found = Vec::new();
        for socket in self.listened.iter().filter(|one| one.up).map(|one| one.address) {
            if socket.ip().is_unspecified() {
                let right = |ip: &&IpAddr| ip.is_ipv4() == socket.is_ipv4();
                found.extend(
                    self.interfaces.iter().filter(right).map(|ip| SocketAddr::new(*ip, socket.port())),
                );
            } else {
                found.push(socket);
            }
        }
        if !found.is_empty() {
            found.extend(&self.observed);
        }
        // What can be reached from furthest comes first: others try in this order.
        found.sort_by_key(|socket| {
            let ip = socket.ip();
            (AddressScope::of(ip) != AddressScope::Global, ip.is_loopback())
        });
        let mut told = BTreeSet::new();
        found.retain(|socket| told.insert(*socket));
        found
            .into_iter()
            .filter_map(|socket| DialAddress::from_socket_addr(socket).ok()?.with_peer_id(key.peer_id()).ok())
            .take(MAX_ANNOUNCED)
            .collect()
    }
}

impl Listening {
    /// What the endpoint listens at, at its start.
    pub(crate) fn new(
        key: &NodeKey,
        endpoint: &Endpoint,
        environment: &dyn Environment,
        now_millis: u64,
        interval: Duration,
    ) -> Result<Self, RecordError> {
        let interfaces = interfaces(environment).unwrap_or_else(|| vec![IpAddr::from([127, 0, 0, 1])]);
        let listened = endpoint.local_addresses().into_iter().map(|address| Listened { address, up: true });
        let state = State { listened: listened.collect(), interfaces, observed: Vec::new() };
        let here = here(key, state.announced(key), now_millis)?;
        let wildcard = Notify::new();
        Ok(Self { here: watch::Sender::new(Arc::new(here)), state: Mutex::new(state), wildcard, interval })
    }

    /// What others are told now.
    pub(crate) fn here(&self) -> Arc<Here> {
        self.here.borrow().clone()
    }

    /// Where enough peers see us.
    pub(crate) fn observed(&self) -> Vec<SocketAddr> {
        self.lock().observed.clone()
    }

    /// What the user asked for, with real ports.
    pub(crate) fn listened(&self) -> Vec<ListenAddress> {
        let state = self.lock();
        state.listened.iter().filter_map(|one| ListenAddress::from_socket_addr(one.address).ok()).collect()
    }

    /// Tells of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Here>> {
        self.here.subscribe()
    }

    /// Tells those who watch that the node is gone, whoever still holds a handle of it.
    pub(crate) fn close(&self) {
        self.here.close();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens at one more address.
pub(crate) fn listen(shared: &Shared, address: ListenAddress) -> Result<ListenAddress, ListenError> {
    let listening = &shared.listening;
    let mut state = listening.lock();
    if state.listened.iter().any(|one| one.address == address.socket_addr()) {
        return Err(ListenError::AlreadyListening { address });
    }
    let most = shared.limits.max_listen;
    if state.listened.len() >= most {
        return Err(ListenError::TooMany { most });
    }
    let local = shared.endpoint.listen(address.socket_addr()).map_err(|error| match error {
        BindError::Closed => ListenError::Closed,
        error => ListenError::Bind(error),
    })?;
    state.listened.push(Listened { address: local, up: true });
    if let Some(interfaces) = interfaces(shared.environment.as_ref()) {
        state.interfaces = interfaces;
    }
    announce(shared, &state);
    listening.wildcard.notify_one();
    ListenAddress::from_socket_addr(local).map_err(ListenError::Address)
}

/// Peers agree on where they see us, or no longer do.
pub(crate) fn set_observed(shared: &Shared, addresses: Vec<SocketAddr>) {
    let mut state = shared.listening.lock();
    state.observed = addresses;
    announce(shared, &state);
}

/// Keeps the peer manager told of what is announced.
pub(crate) async fn tell_announced(shared: Arc<Shared>) {
    let mut changes = shared.listening.changes();
    loop {
        let addresses = changes.borrow_and_update().addresses.clone();
        let told = shared.to_driver.send(Message::Input(Input::Announced { addresses })).await;
        if told.is_err() || changes.changed().await.is_err() {
            return;
        }
    }
}

/// Listens at an address no more.
pub(crate) fn stop_listening(shared: &Shared, address: ListenAddress) -> Result<(), ListenError> {
    let mut state = shared.listening.lock();
    let Some(index) = state.listened.iter().position(|one| one.address == address.socket_addr()) else {
        let listened = state.listened.iter().map(|one| one.address);
        let listening = listened.filter_map(|one| ListenAddress::from_socket_addr(one).ok()).collect();
        return Err(ListenError::NotListening { address, listening });
    };
    let gone = state.listened.remove(index);
    shared.endpoint.stop_listening(gone.address);
    announce(shared, &state);
    Ok(())
}

/// Looks at the interfaces from time to time, while a wildcard is listened at.
pub(crate) async fn watch_interfaces(shared: Arc<Shared>) {
    loop {
        if shared.listening.lock().has_wildcard() {
            tokio::time::sleep(shared.listening.interval).await;
            check_interfaces(&shared, false).await;
        } else {
            shared.listening.wildcard.notified().await;
        }
    }
}

/// Looks at the interfaces now. `told`: somebody knows that the network has changed, even if the addresses are the same.
pub(crate) async fn check_interfaces(shared: &Shared, told: bool) {
    let Some(now) = interfaces(shared.environment.as_ref()) else { return };
    let (gone, other) = {
        let mut state = shared.listening.lock();
        let before = std::mem::replace(&mut state.interfaces, now);
        let other = before != state.interfaces;
        let waits = |one: &Listened| !one.up && state.interfaces.contains(&one.address.ip());
        if !told && before == state.interfaces && !state.listened.iter().any(waits) {
            return;
        }
        let gone: Vec<IpAddr> = before.into_iter().filter(|ip| !state.interfaces.contains(ip)).collect();
        leave(shared, &mut state, &gone);
        come_back(shared, &mut state);
        shared.endpoint.path_changed();
        announce(shared, &state);
        (gone, other)
    };
    if !gone.is_empty() {
        tracing::info!(?gone, "addresses of this machine went away");
        let _ = shared.to_driver.send(Message::AddressesGone(gone)).await;
    }
    if told || other {
        // Who was silent may have been unreachable from where this node was.
        crate::dht::network_changed(shared).await;
    }
}

/// Moves sockets away from addresses that the machine has no more.
fn leave(shared: &Shared, state: &mut State, gone: &[IpAddr]) {
    for socket in shared.endpoint.socket_addresses().into_iter().filter(|socket| gone.contains(&socket.ip()))
    {
        if let Err(error) = shared.endpoint.leave_address(socket) {
            tracing::warn!(address = %socket, %error, "the connections from an address that is gone cannot be moved");
        }
        state.listened.iter_mut().filter(|one| one.address == socket).for_each(|one| one.up = false);
    }
}

/// Listens again at addresses that the machine has again.
fn come_back(shared: &Shared, state: &mut State) {
    let State { listened, interfaces, .. } = state;
    for one in listened.iter_mut().filter(|one| !one.up && interfaces.contains(&one.address.ip())) {
        match shared.endpoint.listen(one.address) {
            Ok(_) => one.up = true,
            Err(error) => {
                tracing::warn!(address = %one.address, %error, "an address is back and cannot be listened at");
            }
        }
    }
}

/// Tells of what has changed, under a higher sequence number than before.
fn announce(shared: &Shared, state: &State) {
    let addresses = state.announced(&shared.key);
    let before = shared.listening.here();
    if before.addresses == addresses {
        return;
    }
    let sequence = shared.clock.now().unix_millis().max(before.record.seq().saturating_add(1));
    match here(&shared.key, addresses, sequence) {
        Ok(here) => {
            shared.listening.here.send_replace(Arc::new(here));
        }
        Err(error) => tracing::error!(%error, "the new addresses cannot be announced"),
    }
}

fn here(key: &NodeKey, addresses: Vec<DialAddress>, sequence: u64) -> Result<Here, RecordError> {
    let bare: Vec<_> = addresses.iter().map(|address| address.clone().without_peer_id()).collect();
    Ok(Here { record: SignedPeerRecord::sign(key, sequence, &bare)?, addresses })
}

/// The usable addresses of the machine, sorted; `None` when they can't be listed.
fn interfaces(environment: &dyn Environment) -> Option<Vec<IpAddr>> {
    match environment.interfaces() {
        Ok(mut found) => {
            found.retain(|ip| match ip {
                IpAddr::V4(_) => true,
                // A link-local address means nothing without its interface.
                IpAddr::V6(ip) => !ip.is_unicast_link_local(),
            });
            found.sort_unstable();
            found.dedup();
            Some(found)
        }
        Err(error) => {
            tracing::warn!(%error, "the interfaces of this machine cannot be listed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(listened: &[&str], observed: &[&str]) -> Vec<String> {
        let parse = |text: &&str| -> SocketAddr { text.parse().unwrap() };
        let state = State {
            listened: listened.iter().map(|text| Listened { address: parse(text), up: true }).collect(),
            interfaces: vec![IpAddr::from([10, 0, 0, 5]), IpAddr::from([127, 0, 0, 1])],
            observed: observed.iter().map(parse).collect(),
        };
        let key = NodeKey::from_seed([1; 32]);
        let bare = |address: DialAddress| address.without_peer_id().socket_addr().unwrap().to_string();
        state.announced(&key).into_iter().map(bare).collect()
    }

    #[test]
    fn where_peers_see_us_is_announced_first_and_once_and_only_while_we_listen() {
        let seen = ["31.0.0.1:7000"];
        assert_eq!(announced(&["0.0.0.0:4000"], &seen), ["31.0.0.1:7000", "10.0.0.5:4000", "127.0.0.1:4000"]);
        assert_eq!(announced(&["31.0.0.1:7000"], &seen), ["31.0.0.1:7000"]);
        assert!(announced(&[], &seen).is_empty(), "a node that only dials cannot be dialled");
    }
}
