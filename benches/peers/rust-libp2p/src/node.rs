//! A node of rust-libp2p: its swarm, and the task that drives it.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder};
use libp2p_stream::Control;
use peerage_bench_peer::Outcome;
use tokio::sync::{mpsc, oneshot};

use crate::requests::Codec;

/// The protocol of requests.
const REQUEST: StreamProtocol = StreamProtocol::new("/bench/request/1");
/// Longer than anything that is measured, on both levels: what has no stream open is closed after 10 s otherwise, and so is a connection of
/// which nothing is heard, which a busy machine can bring about in spite of the keep-alives.
const IDLE: Duration = Duration::from_secs(300);
/// Streams that a connection may negotiate at the same time: more than any work opens, so that none is refused for that.
const NEGOTIATING: usize = 1024;

#[derive(NetworkBehaviour)]
struct Behaviour {
    requests: request_response::Behaviour<Codec>,
    streams: libp2p_stream::Behaviour,
}

/// What the swarm is told to do, and where its answer goes.
enum Order {
    Listen(oneshot::Sender<Outcome<Multiaddr>>),
    Dial(PeerId, Multiaddr, oneshot::Sender<Outcome<()>>),
    Request(PeerId, Vec<u8>, oneshot::Sender<Outcome<Vec<u8>>>),
    Disconnect(PeerId),
}

/// A running node. Its swarm ends with this, and its connections with the swarm.
pub(crate) struct Node {
    /// Where it listens, with its peer ID.
    pub(crate) address: Multiaddr,
    control: Control,
    orders: mpsc::UnboundedSender<Order>,
}

impl Node {
    /// Starts one with a new identity, which listens on a free port of the loopback address and dials from there: what does not listen dials from
    /// a socket that is open on all interfaces.
    pub(crate) async fn start() -> Outcome<Self> {
        let swarm = swarm()?;
        let (peer, control) = (*swarm.local_peer_id(), swarm.behaviour().streams.new_control());
        let (orders, taken) = mpsc::unbounded_channel();
        tokio::spawn(Driver { swarm, waiting: Waiting::default() }.run(taken));
        let mut node = Self { address: Multiaddr::empty(), control, orders };
        node.address = node.ask(Order::Listen).await?.with(Protocol::P2p(peer));
        Ok(node)
    }

    pub(crate) async fn dial(&self, peer: PeerId, address: Multiaddr) -> Outcome<()> {
        self.ask(|answer| Order::Dial(peer, address, answer)).await
    }

    pub(crate) async fn request(&self, peer: PeerId, question: Vec<u8>) -> Outcome<Vec<u8>> {
        self.ask(|answer| Order::Request(peer, question, answer)).await
    }

    pub(crate) fn disconnect(&self, peer: PeerId) {
        // A swarm that has ended has no connections.
        let _ = self.orders.send(Order::Disconnect(peer));
    }

    /// What opens streams, and accepts them.
    pub(crate) fn control(&self) -> Control {
        self.control.clone()
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<Outcome<T>>) -> Order) -> Outcome<T> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).map_err(|_| "the swarm has ended")?;
        answered.await.map_err(|_| "the swarm ended before it answered")?
    }
}

fn swarm() -> Outcome<Swarm<Behaviour>> {
    let built = SwarmBuilder::with_new_identity()
        .with_tokio()
        // The windows, stream limits, keep-alives and ciphers stay as they are.
        .with_quic_config(|mut quic| {
            quic.max_idle_timeout = IDLE.as_millis() as u32;
            quic
        })
        .with_behaviour(|_| Behaviour {
            requests: request_response::Behaviour::new(
                [(REQUEST, ProtocolSupport::Full)],
                request_response::Config::default(),
            ),
            streams: libp2p_stream::Behaviour::new(),
        })
        .map_err(|error| format!("the swarm's behaviour: {error}"))?
        .with_swarm_config(|config| {
            config.with_idle_connection_timeout(IDLE).with_max_negotiating_inbound_streams(NEGOTIATING)
        });
    Ok(built.build())
}

/// Who waits for what.
#[derive(Default)]
struct Waiting {
    listens: HashMap<ListenerId, oneshot::Sender<Outcome<Multiaddr>>>,
    dials: HashMap<ConnectionId, oneshot::Sender<Outcome<()>>>,
    requests: HashMap<OutboundRequestId, oneshot::Sender<Outcome<Vec<u8>>>>,
}

/// The one task that owns the swarm.
struct Driver {
    swarm: Swarm<Behaviour>,
    waiting: Waiting,
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

    // Whoever no longer waits for an answer does not get it: what `send` says is of no interest.
    fn on_order(&mut self, order: Order) {
        match order {
            Order::Listen(answer) => match self.swarm.listen_on(loopback()) {
                Ok(listener) => drop(self.waiting.listens.insert(listener, answer)),
                Err(error) => drop(answer.send(Err(error.into()))),
            },
            Order::Dial(peer, address, answer) => {
                let dial =
                    DialOpts::peer_id(peer).addresses(vec![address]).condition(PeerCondition::Always).build();
                let connection = dial.connection_id();
                match self.swarm.dial(dial) {
                    Ok(()) => drop(self.waiting.dials.insert(connection, answer)),
                    Err(error) => drop(answer.send(Err(whole_story(&error).into()))),
                }
            }
            Order::Request(peer, question, answer) => {
                let request = self.swarm.behaviour_mut().requests.send_request(&peer, question);
                self.waiting.requests.insert(request, answer);
            }
            Order::Disconnect(peer) => drop(self.swarm.disconnect_peer_id(peer)),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if let Some(answer) = self.waiting.listens.remove(&listener_id) {
                    let _ = answer.send(Ok(address));
                }
            }
            SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                if let Some(answer) = self.waiting.dials.remove(&connection_id) {
                    let _ = answer.send(Ok(()));
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(answer) = self.waiting.dials.remove(&connection_id) {
                    let _ = answer.send(Err(whole_story(&error).into()));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => self.on_request_event(event),
            _ => {}
        }
    }

    fn on_request_event(&mut self, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        match event {
            request_response::Event::Message { message, .. } => match message {
                request_response::Message::Request { request, channel, .. } => {
                    // It fails when the connection is gone, and then nobody waits for it.
                    let _ = self.swarm.behaviour_mut().requests.send_response(channel, request);
                }
                request_response::Message::Response { request_id, response } => {
                    if let Some(answer) = self.waiting.requests.remove(&request_id) {
                        let _ = answer.send(Ok(response));
                    }
                }
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                if let Some(answer) = self.waiting.requests.remove(&request_id) {
                    let _ = answer.send(Err(format!("the request failed: {error}").into()));
                }
            }
            _ => {}
        }
    }
}

fn loopback() -> Multiaddr {
    Multiaddr::empty()
        .with(Protocol::Ip4([127, 0, 0, 1].into()))
        .with(Protocol::Udp(0))
        .with(Protocol::QuicV1)
}

/// An error with what lies beneath it: the library's own text tells the cause of a failed dial only there.
fn whole_story(error: &dyn Error) -> String {
    let (mut story, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        story = format!("{story}: {error}");
        cause = error.source();
    }
    story
}
