//! Connections for a while, to ask peers something: what the node's own drivers use that ask many, as lookups do.

use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_peers::{Failure, Fault};
use tokio::sync::oneshot;

use crate::driver::Message;
use crate::shared::Shared;

impl Shared {
    /// A connection to `peer`: the one that there is, or a visit, which ends when it is not used. `addresses` are where third parties say that it is, reached from `told_from`.
    /// When the future is dropped before the dial is begun, there is none.
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
        let mut visitor = Visitor { shared: self, answer };
        let message = Message::Visit { peer, addresses, told_from, reply };
        let closes = || Failure::from(Fault::ThisNodeCloses);
        self.to_driver.send(message).await.map_err(|_| closes())?;
        (&mut visitor.answer).await.unwrap_or_else(|_| Err(closes()))
    }
}

/// Somebody who waits for a visit. Whoever goes before it has begun tells the driver, so that nobody is dialled in vain.
struct Visitor<'a> {
    shared: &'a Shared,
    answer: oneshot::Receiver<Result<PeerId, Failure>>,
}

impl Drop for Visitor<'_> {
    fn drop(&mut self) {
        if !self.answer.is_terminated() {
            self.answer.close();
            self.shared.visitor_left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use futures::FutureExt;
    use peerage_identity::NodeKey;
    use peerage_peers::{Cause, PeerEvent, PeersConfig};
    use peerage_transport::TransportSettings;

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

    fn is_begun(event: &PeerEvent, peer: PeerId) -> bool {
        matches!(event, PeerEvent::Changed { peer: begun, cause: Cause::VisitAsked, .. } if *begun == peer)
    }

    async fn catch_up(shared: &Shared) {
        let (reply, done) = oneshot::channel();
        shared.to_driver.send(Message::CaughtUp { reply }).await.unwrap();
        done.await.unwrap();
    }

    #[tokio::test]
    async fn visits_that_nobody_waits_for_any_more_are_not_begun() {
        let settings = TransportSettings { dial_timeout: Duration::from_secs(2), ..Default::default() };
        let config = PeersConfig { max_parallel_visits: 1, ..PeersConfig::default() };
        let visitor = builder(config).transport_settings(settings).start().await.unwrap();
        let (shared, mut watch) = (visitor.peers().shared, visitor.peers().watch().await.unwrap());
        // Nobody answers there.
        let sockets: Vec<_> = (0..4).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let peers: Vec<_> = sockets.iter().map(|_| NodeKey::generate().peer_id()).collect();
        let visit = |number: usize| {
            let (shared, peer) = (shared.clone(), peers[number]);
            let address = DialAddress::from_socket_addr(sockets[number].local_addr().unwrap()).unwrap();
            async move { shared.visit(peer, vec![address], Some(AddressScope::Loopback)).await }
        };
        let visits: Vec<_> = (0..3).map(|number| tokio::spawn(visit(number))).collect();
        until(&mut watch, |event| is_begun(event, peers[0])).await;
        catch_up(&shared).await;
        // Whoever goes while it still stands in the driver's queue is as little missed.
        assert!(visit(3).now_or_never().is_none());
        for visit in visits {
            visit.abort();
            assert!(visit.await.unwrap_err().is_cancelled());
        }
        // The one under way goes on, and frees its place when it has failed.
        until(&mut watch, |event| matches!(event, PeerEvent::DialFailed { .. })).await;
        catch_up(&shared).await;
        while let Some(Some(change)) = watch.next().now_or_never() {
            let Change::Event(event) = change else { continue };
            assert!(!peers.iter().any(|peer| is_begun(&event, *peer)), "{event:?}");
        }
        for socket in &sockets[1..] {
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv(&mut [0; 2048]).is_err(), "nobody has sent anything there");
        }
        visitor.close().await;
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
