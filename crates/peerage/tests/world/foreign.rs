//! The DHT and peers of other implementations: under which name they are asked, what holds of them until they say who they are, and what shows that they are there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage::dht::Mode;
use peerage::{DhtConfig, DhtError, Environment, Node, NodeKey, PeerId};
use peerage_identity::DialAddress;
use peerage_transport::{CloseCode, Connection, Endpoint, EndpointConfig, InboundStream};
use peerage_wire::identify::Identify;
use peerage_wire::kad::Message;
use peerage_wire::kad::message::{MessageType, Peer};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{LIMIT, SECOND, pass, until, within};
use crate::network::{DELAY, Machine, World};

const IDENTIFY: &str = "/ipfs/id/1.0.0";
const LIBP2P: &str = "/ipfs/kad/1.0.0";
const OURS: &str = "/world/kad/1.0.0";

/// A node that asks other implementations too, at 10.0.0.1.
async fn node(world: &Arc<World>, mode: Mode) -> Node {
    let mut config = DhtConfig::default();
    (config.libp2p, config.mode) = (true, Some(mode));
    let builder = world.machine(1, &["10.0.0.1"]).node().max_outbound(0).dht(config);
    builder.listen("/ip4/10.0.0.1/udp/4001/quic-v1").start().await.unwrap()
}

/// A node of another implementation, which serves the DHT under libp2p's name alone.
struct Foreign {
    key: NodeKey,
    at: DialAddress,
    machine: Arc<Machine>,
    endpoint: Endpoint,
    /// Whom it names, whatever it is asked.
    names: Vec<Peer>,
    /// Whether it says who it is.
    speaks: watch::Sender<bool>,
    /// Whether it vanishes when it has answered the first question for this key.
    vanishes_after: Option<&'static [u8]>,
    /// Names under which it was asked and that it does not serve.
    refused: Mutex<Vec<String>>,
    /// When it was asked what.
    asked: Mutex<Vec<(Instant, MessageType)>>,
}

impl Foreign {
    async fn new(world: &Arc<World>, host: u8) -> Self {
        let machine = world.machine(host.into(), &[&format!("10.0.0.{host}")]);
        let key = NodeKey::generate();
        let mut config = EndpointConfig::new(key.clone());
        let date = machine.clone();
        config.time = Some(Arc::new(move || date.unix_now()));
        let socket = machine.socket(SocketAddr::from(([10, 0, 0, host], 4001))).unwrap();
        let endpoint = Endpoint::over(config, vec![socket]).await.unwrap();
        let at = format!("/ip4/10.0.0.{host}/udp/4001/quic-v1").parse().unwrap();
        let (names, speaks) = (Vec::new(), watch::Sender::new(true));
        let (refused, asked) = (Mutex::default(), Mutex::default());
        Self { key, at, machine, endpoint, names, speaks, vanishes_after: None, refused, asked }
    }

    fn id(&self) -> PeerId {
        self.key.peer_id()
    }

    fn contact(&self) -> Peer {
        let (id, address) = (self.id().to_bytes().into(), self.at.to_bytes().into());
        Peer { id: Some(id), addrs: vec![address], ..Peer::default() }
    }

    /// Serves whoever connects.
    fn listen(self: &Arc<Self>) {
        let this = self.clone();
        tokio::spawn(async move {
            while let Some(incoming) = this.endpoint.accept().await {
                let connection = incoming.accept().await.unwrap();
                tokio::spawn(this.clone().serve(connection));
            }
        });
    }

    /// Connects to a node and is admitted.
    async fn join(self: &Arc<Self>, node: &Node) -> Connection {
        let to = node.listen_addresses()[0].socket_addr().unwrap();
        let connection = self.endpoint.dial(to, Some(node.peer_id())).await.unwrap();
        tokio::spawn(self.clone().serve(connection.clone()));
        until("its admission", || node.peers().get(self.id()).is_some()).await;
        connection
    }

    async fn serve(self: Arc<Self>, connection: Connection) {
        connection.admit();
        while let Ok(stream) = connection.accept_stream().await {
            tokio::spawn(self.clone().answer(stream));
        }
    }

    async fn answer(self: Arc<Self>, stream: InboundStream) {
        // The hello is answered by `na`: that makes it foreign.
        let serves = |name: &str| {
            let served = [IDENTIFY, LIBP2P].contains(&name);
            if !served {
                self.refused.lock().unwrap().push(name.to_owned());
            }
            served
        };
        let Ok((name, mut stream)) = stream.negotiate(serves, LIMIT).await else { return };
        if &*name == IDENTIFY {
            let _ = self.speaks.subscribe().wait_for(|speaks| *speaks).await;
            let says = Identify {
                listen_addrs: vec![self.at.to_bytes().into()],
                protocols: vec![IDENTIFY.into(), LIBP2P.into()],
                ..Identify::default()
            };
            let _ = stream.send.write_frame(&says).await;
            let _ = stream.send.finish();
            return;
        }
        while let Ok(Some(asked)) = stream.recv.read_message::<Message>(1 << 16).await {
            self.asked.lock().unwrap().push((Instant::now(), asked.r#type()));
            if asked.r#type() == MessageType::AddProvider {
                continue;
            }
            let vanishes = self.vanishes_after.is_some_and(|key| asked.key.as_deref() == Some(key));
            let _ = stream.send.write_frame(&Message { closer_peers: self.names.clone(), ..asked }).await;
            // It ends its side with its first answer, as rust-libp2p does, and listens on.
            let _ = stream.send.finish();
            if vanishes {
                pass(DELAY / 2).await;
                self.machine.set_addresses(&[]);
            }
        }
    }

    fn was_asked(&self, kind: MessageType) -> Option<Instant> {
        self.asked.lock().unwrap().iter().find(|(_, asked)| *asked == kind).map(|(at, _)| *at)
    }

    async fn is_known(&self, node: &Node) -> bool {
        node.dht().table().await.unwrap().iter().any(|(contact, _)| *contact.peer() == self.id())
    }

    async fn becomes_known(&self, node: &Node) {
        let known = async {
            while !self.is_known(node).await {
                pass(Duration::from_millis(2)).await;
            }
        };
        within("an entry in the table", known).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_peer_that_was_only_named_is_asked_under_a_name_that_it_serves() {
    for speaks in [true, false] {
        let world = World::new();
        let node = node(&world, Mode::Server).await;
        let cold = Arc::new(Foreign::new(&world, 3).await);
        cold.speaks.send_replace(speaks);
        cold.listen();
        let mut warm = Foreign::new(&world, 2).await;
        warm.names = vec![cold.contact()];
        Arc::new(warm).join(&node).await;
        until("a question", || !cold.asked.lock().unwrap().is_empty()).await;
        let refused = cold.refused.lock().unwrap().iter().any(|name| name == OURS);
        assert_eq!(refused, !speaks, "who has said what it serves is asked for nothing else");
        if speaks {
            cold.becomes_known(&node).await;
        }
        node.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_peer_that_connects_again_keeps_its_place_in_the_table_meanwhile() {
    let world = World::new();
    let node = node(&world, Mode::Server).await;
    let foreign = Arc::new(Foreign::new(&world, 2).await);
    let connection = foreign.join(&node).await;
    foreign.becomes_known(&node).await;
    connection.close(CloseCode::Normal, "");
    until("its end", || node.peers().get(foreign.id()).is_none()).await;
    foreign.speaks.send_replace(false);
    foreign.join(&node).await;
    for look in 0..1000 {
        if look == 500 {
            foreign.speaks.send_replace(true);
        }
        pass(Duration::from_millis(4)).await;
        assert!(foreign.is_known(&node).await, "at look {look}");
    }
    node.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_no_answer_counts_when_a_foreign_peer_has_it() {
    let world = World::new();
    // It publishes nothing by itself, so that its streams wait for what is asked here.
    let node = node(&world, Mode::Client).await;
    let foreign = Arc::new(Foreign::new(&world, 2).await);
    foreign.join(&node).await;
    foreign.becomes_known(&node).await;
    let report = node.dht().provide("song").await.unwrap();
    assert_eq!(report.counts.stored, 1, "{report}");
    let there = foreign.was_asked(MessageType::AddProvider).unwrap();
    assert!(there.elapsed() >= DELAY, "{:?}", there.elapsed());
    node.close().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_at_a_foreign_peer_that_is_gone_without_a_word() {
    let world = World::new();
    let node = node(&world, Mode::Client).await;
    let mut foreign = Foreign::new(&world, 2).await;
    foreign.vanishes_after = Some(b"song");
    let foreign = Arc::new(foreign);
    foreign.join(&node).await;
    foreign.becomes_known(&node).await;
    let start = Instant::now();
    let failed = node.dht().provide("song").await;
    let Err(DhtError::TooFewStored { report }) = failed else { panic!("{failed:?}") };
    assert_eq!(report.counts.stored, 0, "{report}");
    assert!(start.elapsed() > 4 * SECOND, "it is given the time of a question");
    assert_eq!(foreign.was_asked(MessageType::AddProvider), None);
    node.close().await;
}

/// It serves the DHT, and never says so: its answers show it, and that it said nothing shows nothing.
#[tokio::test(start_paused = true)]
async fn a_foreign_peer_that_never_says_who_it_is_stays_in_the_table_as_long_as_it_answers() {
    let world = World::new();
    let node = node(&world, Mode::Server).await;
    let silent = Arc::new(Foreign::new(&world, 3).await);
    silent.speaks.send_replace(false);
    silent.listen();
    let mut warm = Foreign::new(&world, 2).await;
    warm.names = vec![silent.contact()];
    Arc::new(warm).join(&node).await;
    silent.becomes_known(&node).await;
    let asked = || silent.asked.lock().unwrap().len();
    let before = asked();
    // It is asked who it is for ten seconds.
    for second in 0..30 {
        pass(SECOND).await;
        assert!(silent.is_known(&node).await, "after {second} s");
    }
    let (closest, _) = node.dht().closest("somewhere").await.unwrap();
    assert!(closest.iter().any(|contact| *contact.peer() == silent.id()) && asked() > before);
    node.close().await;
}
