//! Connections for a while, to ask peers something: what the node's own drivers use that ask many, as lookups do.

use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_peers::{Failure, Fault};
use tokio::sync::oneshot;

use crate::driver::Message;
use crate::shared::Shared;

impl Shared {
    /// A connection to `peer`, for which the user waits: the one that there is, or a visit, which ends when it is not used. `addresses` are where third parties say that it is,
    /// reached from `told_from`. When the future is dropped before the dial is begun, there is none.
    ///
    /// # Errors
    /// Why there is none, with the time at which it makes sense to come back where that is known.
    pub(crate) async fn visit(
        &self,
        peer: PeerId,
        addresses: Vec<DialAddress>,
        told_from: Option<AddressScope>,
    ) -> Result<PeerId, Failure> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Visit { peer, addresses, told_from, urgent: true, reply };
        let closes = || Failure::from(Fault::ThisNodeCloses);
        self.to_driver.send(message).await.map_err(|_| closes())?;
        answer.await.unwrap_or_else(|_| Err(closes()))
    }

    /// The narrowest scope in which somebody is connected: what peers say of narrower addresses is not believed, as nobody who says it is there.
    pub(crate) fn scope(&self) -> AddressScope {
        let remotes = self.connected().into_iter().map(|peer| peer.connection.remote_address().ip());
        remotes.map(AddressScope::of).min().unwrap_or(AddressScope::Global)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peerage_peers::{Cause, PeerEvent, PeersConfig};

    use super::*;
    use crate::{Change, Node, NodeBuilder, Watch};

    const LIMIT: Duration = Duration::from_secs(60);

    fn builder(mut config: PeersConfig) -> NodeBuilder {
        let builder = Node::builder().network("test").listen("/ip4/127.0.0.1/udp/0/quic-v1");
        config.max_outbound = 0;
        builder.peers_config(config)
    }

    async fn visit(from: &Node, to: &Node) -> Result<PeerId, Failure> {
        let addresses = to.listen_addresses().to_vec();
        let shared = from.peers().shared;
        let visit = shared.visit(to.peer_id(), addresses, Some(AddressScope::Loopback));
        tokio::time::timeout(LIMIT, visit).await.expect("an answer")
    }

    async fn until(watch: &mut Watch, is: impl Fn(&PeerEvent) -> bool) {
        let found = async {
            loop {
                match watch.next().await {
                    Some(Change::Event(event)) if is(&event) => return,
                    Some(_) => {}
                    None => panic!("the node is gone"),
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.expect("the event")
    }

    fn is_gone(event: &PeerEvent, peer: PeerId) -> bool {
        matches!(event, PeerEvent::Disconnected { peer: gone, .. } if *gone == peer)
    }

    #[tokio::test]
    async fn a_full_node_takes_a_visit_which_ends_when_it_is_idle_and_becomes_ordinary_when_the_user_connects()
     {
        let hub = builder(PeersConfig { max_inbound: 1, ..PeersConfig::default() }).start().await.unwrap();
        let guest = builder(PeersConfig::default()).start().await.unwrap();
        guest.connect(&hub.listen_addresses()[0]).await.unwrap();
        let idle = Duration::from_millis(300);
        let config = PeersConfig { visit_idle: idle, ..PeersConfig::default() };
        let visitor = builder(config).start().await.unwrap();
        assert!(visitor.connect(&hub.listen_addresses()[0]).await.is_err(), "its place is taken");
        let (mut at_visitor, mut at_hub) =
            (visitor.peers().watch().await.unwrap(), hub.peers().watch().await.unwrap());
        assert_eq!(visit(&visitor, &hub).await, Ok(hub.peer_id()));
        let why = visitor.peers().why(hub.peer_id()).await.unwrap();
        assert_eq!(why.cause, Cause::Visit, "{why}");
        until(&mut at_visitor, |event| is_gone(event, hub.peer_id())).await;
        until(&mut at_hub, |event| is_gone(event, visitor.peer_id())).await;
        assert_eq!(hub.peers().connected().len(), 1);
        // The user wants it for longer.
        assert_eq!(visit(&visitor, &hub).await, Ok(hub.peer_id()));
        visitor.connect(&hub.listen_addresses()[0]).await.unwrap();
        let why = visitor.peers().why(hub.peer_id()).await.unwrap();
        assert_eq!(why.cause, Cause::Admitted, "{why}");
        // Another visit comes and goes meanwhile.
        assert_eq!(visit(&visitor, &guest).await, Ok(guest.peer_id()));
        until(&mut at_visitor, |event| is_gone(event, guest.peer_id())).await;
        let connected = visitor.peers().connected();
        assert_eq!(connected.iter().map(|peer| peer.peer_id).collect::<Vec<_>>(), [hub.peer_id()]);
    }

    #[tokio::test]
    async fn messages_that_are_queued_when_a_visit_gives_way_arrive() {
        let hub = builder(PeersConfig::default()).start().await.unwrap();
        let other = builder(PeersConfig::default()).start().await.unwrap();
        let config = PeersConfig { max_outbound_visits: 1, ..PeersConfig::default() };
        let visitor = builder(config).start().await.unwrap();
        let open = |node: &Node| node.channel::<crate::Raw>(crate::ChannelConfig::new("/t/1")).unwrap();
        let (from, to) = (open(&visitor), open(&hub));
        assert!(visit(&visitor, &hub).await.is_ok());
        for number in 0..100u8 {
            from.send(hub.peer_id(), &crate::Raw(vec![number; 1000].into())).await.unwrap();
        }
        // Its place is needed: the next visit is the one that is held.
        assert!(visit(&visitor, &other).await.is_ok());
        assert_eq!(visitor.peers().connected().len(), 1);
        for number in 0..100u8 {
            let received = tokio::time::timeout(LIMIT, to.recv()).await.expect("a message").unwrap();
            assert_eq!(received.1.0[..], [number; 1000]);
        }
    }
}
