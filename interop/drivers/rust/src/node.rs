//! The swarm: one task owns it, takes orders, and keeps a view of the peers for the commands to read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    ping,
    swarm::{
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
        ConnectionId, DialError, NetworkBehaviour, SwarmEvent,
    },
    Multiaddr, PeerId, Swarm, SwarmBuilder, TransportError,
};
use serde_json::{json, Value};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    channel::{self, Inbox},
    kad, say,
    served::{self, Inbound, Protocols},
    streams, LAST_PACKETS,
};

/// The swarm pings every peer by itself and cannot be told to; the stock 15 s would make the command `ping` slow.
const PING_INTERVAL: Duration = Duration::from_millis(250);

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    served: served::Behaviour,
    /// Outbound streams only.
    streams: libp2p_stream::Behaviour,
    kad: Toggle<kad::Behaviour>,
}

/// What the swarm knows of its peers now.
#[derive(Default)]
pub struct View {
    pub connected: BTreeSet<PeerId>,
    pub identified: BTreeMap<PeerId, identify::Info>,
    /// Peers that do not speak ping; the library stops asking them.
    pub pingless: BTreeSet<PeerId>,
    /// Those in the DHT's routing table.
    pub routed: BTreeSet<PeerId>,
}

pub enum Order {
    Dial(PeerId, Multiaddr, oneshot::Sender<Result<(), String>>),
    Disconnect(PeerId),
    /// Pushes identify to all connected peers.
    Push,
    Kad(kad::Wanted, oneshot::Sender<Result<Value, String>>),
}

/// A handle to the running node, cheap to clone.
#[derive(Clone)]
pub struct Node {
    pub peer: PeerId,
    pub address: String,
    pub view: watch::Receiver<View>,
    pub streams: libp2p_stream::Control,
    pub protocols: Protocols,
    pub inbox: Inbox,
    pub orders: mpsc::UnboundedSender<Order>,
    /// Each ping that the swarm has made, with its round trip or what went wrong.
    pub pings: broadcast::Sender<(PeerId, Result<Duration, String>)>,
}

impl Node {
    /// Closes every connection, waits until that is done, and lets the last packets out.
    pub async fn shut_down(self) {
        for peer in self.view.borrow().connected.iter() {
            let _ = self.orders.send(Order::Disconnect(*peer));
        }
        let mut view = self.view.clone();
        let closed = view.wait_for(|view| view.connected.is_empty());
        let _ = tokio::time::timeout(Duration::from_secs(2), closed).await;
        tokio::time::sleep(LAST_PACKETS).await;
    }
}

/// Starts a node that listens on a free port of the loopback address and serves the protocols of the contract, and the DHT if it is asked for.
pub async fn start(key: Keypair, kad: Option<kad::Options>) -> Result<Node, Box<dyn Error>> {
    let protocols = Protocols::default();
    protocols.add(streams::ECHO);
    protocols.add(streams::PERF);
    protocols.add(channel::CHANNEL);
    let (served, inbound) = served::Behaviour::new(protocols.clone());
    let in_dht = kad.is_some();
    let mut swarm = build(key, served, kad)?;
    let peer = *swarm.local_peer_id();
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            if in_dht {
                // Providers tell confirmed addresses only.
                swarm.add_external_address(address.clone());
            }
            break address.with(Protocol::P2p(peer));
        }
    };

    let control = swarm.behaviour().streams.new_control();
    let inbox = Inbox::default();
    tokio::spawn(serve(inbound, inbox.clone()));

    let (orders, taken) = mpsc::unbounded_channel();
    let (shown, view) = watch::channel(View::default());
    let (pings, _) = broadcast::channel(1024);
    let (dials, queries) = (HashMap::new(), kad::Queries::default());
    let driver = Driver { swarm, shown, pings: pings.clone(), dials, queries };
    tokio::spawn(driver.run(taken));
    Ok(Node { peer, address: address.to_string(), view, streams: control, protocols, inbox, orders, pings })
}

/// Every inbound stream gets a task of its own.
async fn serve(mut inbound: mpsc::UnboundedReceiver<Inbound>, inbox: Inbox) {
    while let Some(Inbound { peer, protocol, stream }) = inbound.recv().await {
        let inbox = inbox.clone();
        tokio::spawn(async move {
            let served = if protocol == streams::PERF {
                streams::serve_perf(stream).await
            } else if protocol == channel::CHANNEL {
                channel::serve(stream, peer, &inbox).await
            } else {
                streams::serve_echo(stream).await
            };
            if let Err(error) = served {
                eprintln!("{protocol} from {peer}: {error}");
            }
        });
    }
}

fn build(
    key: Keypair,
    served: served::Behaviour,
    kad: Option<kad::Options>,
) -> Result<Swarm<Behaviour>, Box<dyn Error>> {
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        // Patient on slow machines; the windows, stream limits and keep-alive stay as they are.
        .with_quic_config(|mut quic| {
            quic.handshake_timeout = Duration::from_secs(10);
            quic.max_idle_timeout = 30_000;
            quic
        })
        .with_behaviour(|key| Behaviour {
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            identify: identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".into(), key.public())),
            served,
            streams: libp2p_stream::Behaviour::new(),
            kad: kad.map(|options| kad::behaviour(key.public().to_peer_id(), &options)).into(),
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build())
}

struct Driver {
    swarm: Swarm<Behaviour>,
    shown: watch::Sender<View>,
    pings: broadcast::Sender<(PeerId, Result<Duration, String>)>,
    /// Who waits for the outcome of a dial.
    dials: HashMap<ConnectionId, oneshot::Sender<Result<(), String>>>,
    queries: kad::Queries,
}

impl Driver {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                order = orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    None => return,
                },
            }
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Dial(peer, address, reply) => {
                let dial =
                    DialOpts::peer_id(peer).addresses(vec![address]).condition(PeerCondition::Always).build();
                let connection = dial.connection_id();
                match self.swarm.dial(dial) {
                    Ok(()) => drop(self.dials.insert(connection, reply)),
                    Err(error) => drop(reply.send(Err(explain(&error)))),
                }
            }
            Order::Disconnect(peer) => drop(self.swarm.disconnect_peer_id(peer)),
            Order::Push => {
                let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
                self.swarm.behaviour_mut().identify.push(peers);
            }
            Order::Kad(wanted, reply) => match self.swarm.behaviour_mut().kad.as_mut() {
                Some(kad) => self.queries.start(kad, wanted, reply),
                None => drop(reply.send(Err("this driver was started without --kad".into()))),
            },
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, num_established, .. } => {
                if num_established.get() == 1 {
                    self.shown.send_modify(|view| _ = view.connected.insert(peer_id));
                    say(json!({"event": "connected", "peer": peer_id.to_string()}));
                }
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Ok(()));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.shown.send_modify(|view| {
                    view.connected.remove(&peer_id);
                    view.identified.remove(&peer_id);
                    view.pingless.remove(&peer_id);
                });
                say(json!({"event": "disconnected", "peer": peer_id.to_string()}));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(explain(&error)));
                }
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                eprintln!("inbound connection refused: {error}")
            }
            // The library merges pushes into what identify said before it reports them.
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                    kad::meet(kad, peer_id, &info);
                }
                self.shown.send_modify(|view| _ = view.identified.insert(peer_id, info));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => {
                if let libp2p::kad::Event::RoutingUpdated { peer, old_peer, .. } = &event {
                    self.shown.send_modify(|view| {
                        view.routed.insert(*peer);
                        old_peer.iter().for_each(|old| _ = view.routed.remove(old));
                    });
                }
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                    self.queries.on_event(kad, event);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Error {
                peer_id,
                error,
                ..
            })) => {
                eprintln!("identify with {peer_id}: {error}");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, result, .. })) => {
                if matches!(result, Err(ping::Failure::Unsupported)) {
                    self.shown.send_modify(|view| _ = view.pingless.insert(peer));
                }
                let _ = self.pings.send((peer, result.map_err(|failure| failure.to_string())));
            }
            _ => {}
        }
    }
}

/// The whole story of a failed dial: the library hides the causes one level down.
fn explain(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, .. } => format!("wrong peer ID: the peer there is {obtained}"),
        DialError::Transport(attempts) => {
            let causes = attempts.iter().map(|(address, error)| match error {
                TransportError::Other(error) => format!("{address}: {error}"),
                TransportError::MultiaddrNotSupported(address) => format!("{address}: address not supported"),
            });
            causes.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}
