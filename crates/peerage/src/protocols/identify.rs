//! `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0` (libp2p identify): what a node says about itself to any libp2p peer.
//!
//! We send at most 4 KiB in one message, because rust-libp2p reads no more, and read up to ten messages and merge them, because
//! go-libp2p sends two.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{DialAddress, MAX_ADDRESS_TEXT, Multiaddr, PeerId, SignedPeerRecord};
use peerage_peers::{ConnId, Input};
use peerage_transport::{ReadError, RecvStream, Stream, StreamCode};
use peerage_wire::identify::Identify;
use prost::Message as _;

use crate::about::About;
use crate::driver::Message;
use crate::hello::text;
use crate::listening::Here;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::watch;

/// The protocol by which a peer asks.
pub(crate) const PROTOCOL: &str = "/ipfs/id/1.0.0";
/// The protocol by which a peer tells of changes.
pub(crate) const PUSH_PROTOCOL: &str = "/ipfs/id/push/1.0.0";
/// The longest message that we send, in bytes.
pub(crate) const MAX_SENT_BYTES: usize = 4096;
/// The longest message that we read, in bytes.
pub(crate) const MAX_READ_BYTES: usize = 8192;
/// Messages that we merge.
pub(crate) const MAX_MESSAGES: usize = 10;
/// Protocol names that we keep of a peer.
const MAX_PROTOCOLS: usize = 256;
/// Listen addresses that we keep of a peer.
const MAX_ADDRESSES: usize = 32;
/// How long to wait before a push that was given up is tried again.
const PUSH_AGAIN: Duration = Duration::from_millis(250);
/// How long changes are gathered before they are told.
const GROUPED: Duration = Duration::from_millis(50);
/// How long each side may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Answers a peer that asks who we are.
pub(crate) async fn serve(peer: &Peer, stream: Stream) {
    if let Err(Refusal::GivenUp(detail)) = send(peer, stream).await {
        tracing::debug!(peer = %peer.id, detail, "our identify message was not taken");
    }
}

/// Tells the connected peers whenever what this node serves, or where it can be reached, changes. One task does it for all of them.
pub(crate) async fn push_changes(
    shared: Arc<Shared>,
    mut services: watch::Receiver<u64>,
    mut addresses: watch::Receiver<Arc<Here>>,
) {
    loop {
        let changed = tokio::select! {
            biased;
            changed = services.changed() => changed,
            changed = addresses.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        // Changes come in groups: tell of them once.
        tokio::time::sleep(GROUPED).await;
        services.borrow_and_update();
        addresses.borrow_and_update();
        for peer in shared.connected() {
            // One that waits for its turn will tell of this change too.
            if !peer.asked().push_due.swap(true, Ordering::Relaxed) {
                shared.spawn(async move {
                    let _turn = peer.asked().pushing.lock().await;
                    peer.asked().push_due.store(false, Ordering::Relaxed);
                    push(&peer).await;
                });
            }
        }
    }
}

/// Tells a peer that something about us has changed. A peer that does not take pushes is left in peace; one that gave the stream up,
/// because it was busy with another, is told again.
async fn push(peer: &Peer) {
    for wait in [Duration::ZERO, PUSH_AGAIN, 4 * PUSH_AGAIN] {
        tokio::time::sleep(wait).await;
        let Ok(stream) = peer.connection.open_lazy(PUSH_PROTOCOL).await else { return };
        match send(peer, stream).await {
            Ok(()) | Err(Refusal::NotSupported) => return,
            Err(Refusal::GivenUp(detail)) => {
                tracing::debug!(peer = %peer.id, detail, "an identify push was not taken");
            }
        }
    }
}

/// Takes what a peer tells us about its changes.
pub(crate) async fn receive_push(peer: &Peer, mut stream: Stream) {
    match tokio::time::timeout(DEADLINE, receive(&mut stream.recv)).await {
        Ok(Ok(message)) => {
            apply(peer, message).await;
            let _ = stream.send.finish();
        }
        Ok(Err(error)) => {
            tracing::debug!(peer = %peer.id, error, "an identify push cannot be read");
            stream.recv.stop(StreamCode::ProtocolViolation);
        }
        Err(_) => stream.recv.stop(StreamCode::Cancelled),
    }
}

/// Asks a peer who it is.
pub(crate) async fn ask(peer: &Arc<Peer>) -> Result<About, String> {
    let asking = async {
        let _alone = peer.identifying.lock().await;
        let mut stream = peer.connection.open(PROTOCOL).await.map_err(|error| error.to_string())?;
        let _ = stream.send.finish();
        receive(&mut stream.recv).await
    };
    let message =
        tokio::time::timeout(DEADLINE, asking).await.map_err(|_| "no answer in time".to_owned())??;
    apply(peer, message).await;
    Ok(peer.about())
}

/// Why a peer did not take our message.
enum Refusal {
    NotSupported,
    GivenUp(String),
}

/// Sends our message and waits until the peer has ended its side too. py-libp2p takes a side that is dropped earlier for the end of both, and
/// loses what it has not read.
async fn send(peer: &Peer, mut stream: Stream) -> Result<(), Refusal> {
    let sending = async {
        // A peer that gives the stream up stops our side: the other one says why.
        let written = stream.send.write_frame(&ours(peer)).await.and_then(|()| stream.send.finish());
        match stream.recv.read_chunk(1).await {
            Ok(None) => written.map_err(|error| Refusal::GivenUp(error.to_string())),
            Ok(Some(_)) => Err(Refusal::GivenUp("the peer answered where no answer belongs".to_owned())),
            Err(ReadError::NotSupported { .. }) => Err(Refusal::NotSupported),
            Err(error) => Err(Refusal::GivenUp(error.to_string())),
        }
    };
    let late = |_| Err(Refusal::GivenUp("the peer did not end the stream in time".to_owned()));
    tokio::time::timeout(DEADLINE, sending).await.unwrap_or_else(late)
}

/// What we say to `peer`.
fn ours(peer: &Peer) -> Identify {
    let shared = &peer.shared;
    let observed = DialAddress::from_socket_addr(peer.connection.remote_address()).ok();
    let here = shared.listening.here();
    let addresses =
        here.addresses.iter().map(|address| Bytes::from(address.clone().without_peer_id().to_bytes()));
    cut(Identify {
        public_key: Some(Bytes::from(shared.key.public().encode_protobuf())),
        listen_addrs: addresses.collect(),
        protocols: shared.registry.names(),
        observed_addr: observed.map(|address| Bytes::from(address.to_bytes())),
        protocol_version: Some(format!("{}/1", shared.network)),
        agent_version: Some(shared.agent.clone()),
        signed_peer_record: Some(here.record.as_bytes().clone()),
    })
}

/// Leaves out protocols, and then addresses, until the message has at most [`MAX_SENT_BYTES`]. The signed record holds the addresses too.
fn cut(mut message: Identify) -> Identify {
    while message.encoded_len() > MAX_SENT_BYTES && message.protocols.pop().is_some() {}
    while message.encoded_len() > MAX_SENT_BYTES && message.listen_addrs.pop().is_some() {}
    message
}

async fn receive(recv: &mut RecvStream) -> Result<Identify, String> {
    let mut messages = Messages::default();
    while let Some(message) = recv.read_message(MAX_READ_BYTES).await.map_err(|error| error.to_string())? {
        messages.add(message)?;
    }
    messages.merged()
}

/// What a peer says in one stream.
#[derive(Default)]
pub(crate) struct Messages {
    merged: Identify,
    count: usize,
}

impl Messages {
    pub(crate) fn add(&mut self, message: Identify) -> Result<(), String> {
        self.count += 1;
        if self.count > MAX_MESSAGES {
            return Err(format!("more than {MAX_MESSAGES} messages"));
        }
        merge(&mut self.merged, message);
        Ok(())
    }

    pub(crate) fn merged(self) -> Result<Identify, String> {
        if self.count == 0 { Err("the stream ended without a message".to_owned()) } else { Ok(self.merged) }
    }
}

/// Later messages add to lists and replace single values.
fn merge(into: &mut Identify, from: Identify) {
    into.listen_addrs.extend(from.listen_addrs);
    into.protocols.extend(from.protocols);
    into.public_key = from.public_key.or(into.public_key.take());
    into.observed_addr = from.observed_addr.or(into.observed_addr.take());
    into.protocol_version = from.protocol_version.or(into.protocol_version.take());
    into.agent_version = from.agent_version.or(into.agent_version.take());
    into.signed_peer_record = from.signed_peer_record.or(into.signed_peer_record.take());
}

async fn apply(peer: &Peer, mut message: Identify) {
    let record = message.signed_peer_record.take();
    if let Some(Ok(record)) = record.map(|bytes| SignedPeerRecord::verify(&bytes)) {
        // Where it can be reached from now on; somebody else's record is passed over.
        let renewed = Input::Renewed { conn: ConnId(peer.connection.id().0), record };
        let _ = peer.shared.to_driver.send(Message::Input(renewed)).await;
    }
    let observed = message.observed_addr.as_ref().and_then(|bytes| DialAddress::from_bytes(bytes).ok());
    if let Some(address) = observed.and_then(|address| address.socket_addr()) {
        let observed = Input::Observed { conn: ConnId(peer.connection.id().0), address };
        let _ = peer.shared.to_driver.send(Message::Input(observed)).await;
    }
    let taken = peer.change_about(|about| describe(peer.id, message, about));
    if !taken {
        tracing::debug!(peer = %peer.id, "an identify message names another key");
    }
}

/// Keeps what the message says about a peer whose key is proved; a message with another key is somebody else's and changes nothing.
pub(crate) fn describe(peer: PeerId, message: Identify, about: &mut About) -> bool {
    let same_key =
        |bytes: &Bytes| peerage_identity::decode_public_key(bytes).is_ok_and(|key| key.to_peer_id() == peer);
    if message.public_key.as_ref().is_some_and(|key| !same_key(key)) {
        return false;
    }
    if let Some(agent) = message.agent_version {
        about.agent = text(agent);
    }
    if !message.protocols.is_empty() {
        about.protocols = message.protocols.into_iter().take(MAX_PROTOCOLS).map(text).collect();
        about.protocols.shrink_to_fit();
    }
    if let Some(version) = message.protocol_version {
        about.protocol_version = text(version);
    }
    if !message.listen_addrs.is_empty() {
        let addresses = message.listen_addrs.into_iter().take(MAX_ADDRESSES);
        about.listen = addresses.filter_map(|bytes| address_text(&bytes)).collect();
        about.listen.shrink_to_fit();
    }
    if let Some(observed) = message.observed_addr {
        about.observed = DialAddress::from_bytes(&observed).ok().map(|address| address.to_string());
    }
    true
}

/// The text of a multiaddr of any kind, unless it is too long or could move a cursor: names in multiaddrs may hold any characters.
fn address_text(bytes: &[u8]) -> Option<String> {
    let text = Multiaddr::try_from(bytes.to_vec()).ok()?.to_string();
    (text.len() <= MAX_ADDRESS_TEXT && !text.contains(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_merged_and_an_absent_field_changes_nothing() {
        let mut merged = Identify { agent_version: Some("a/1".into()), ..Default::default() };
        merge(&mut merged, Identify { protocols: vec!["/x".into()], ..Default::default() });
        merge(&mut merged, Identify { protocols: vec!["/y".into()], ..Default::default() });
        assert_eq!(merged.agent_version.as_deref(), Some("a/1"));
        assert_eq!(merged.protocols, ["/x", "/y"]);
    }

    #[test]
    fn an_eleventh_message_is_refused() {
        let mut messages = Messages::default();
        for _ in 0..MAX_MESSAGES {
            messages.add(Identify { protocols: vec!["/x".into()], ..Default::default() }).unwrap();
        }
        assert_eq!(messages.add(Identify::default()).unwrap_err(), "more than 10 messages");
        assert_eq!(messages.merged().unwrap().protocols.len(), MAX_MESSAGES);
    }

    #[test]
    fn our_message_is_cut_to_what_others_read_protocols_first() {
        let full = Identify {
            public_key: Some(Bytes::from(vec![1; 36])),
            listen_addrs: vec![Bytes::from(vec![2; 30]); 16],
            signed_peer_record: Some(Bytes::from(vec![3; 700])),
            ..Default::default()
        };
        assert_eq!(cut(full.clone()), full, "what fits is left alone");

        let names: Vec<_> = (0..1000).map(|number| format!("/test/{number}/1")).collect();
        let cut_names = cut(Identify { protocols: names.clone(), ..full.clone() });
        assert!(cut_names.encoded_len() <= MAX_SENT_BYTES);
        assert!(cut_names.encoded_len() > MAX_SENT_BYTES - 20, "no more is left out than must be");
        assert_eq!(cut_names.protocols, names[..cut_names.protocols.len()]);
        assert_eq!(Identify { protocols: Vec::new(), ..cut_names }, full);

        let addresses = vec![Bytes::from(vec![2; 30]); 500];
        let cut_addresses = cut(Identify { protocols: names, listen_addrs: addresses, ..full.clone() });
        assert!(cut_addresses.encoded_len() <= MAX_SENT_BYTES);
        assert!(cut_addresses.protocols.is_empty() && cut_addresses.listen_addrs.len() > 90);
        assert_eq!(cut_addresses.signed_peer_record, full.signed_peer_record);
    }

    #[test]
    fn listen_addresses_that_are_endless_or_could_move_the_cursor_are_left_out() {
        let dns = |name: &[u8]| [&[53, name.len() as u8][..], name].concat();
        assert_eq!(address_text(&dns(b"a.example")).as_deref(), Some("/dns/a.example"));
        assert_eq!(address_text(&dns(b"\x1b[2J")), None);
        assert_eq!(address_text(&dns(&[b'a'; 100]).repeat(6)), None);
    }
}
