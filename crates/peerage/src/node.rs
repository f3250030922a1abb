//! The handle to a running node.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peerage_identity::{DialAddress, ListenAddress, NetworkSecret, PeerId, parse_peer_id};
use peerage_peers::{Input, Target};
use peerage_transport::{CloseCode, OpenError, ProtocolTraffic, Stream};
use tokio::sync::oneshot;

use crate::builder::NodeBuilder;
use crate::channel::{Channel, ChannelConfig, ChannelCore, Payload};
use crate::data_dir::DataDir;
use crate::dht::Dht;
use crate::driver::Message;
use crate::error::{ConnectError, ListenError, RegisterError};
use crate::listening::Here;
use crate::peer::Peer;
use crate::peers::Peers;
use crate::protocols::perf::PerfTimes;
use crate::registry::Service;
use crate::request::{
    self, Answers, CallConfig, Handler, Request, RequestError, RequestService, ServeConfig, ServeError,
};
use crate::secret::ChangeSecretsError;
use crate::shared::Shared;
use crate::streams::Incoming;
use crate::watch;

/// How long [`Node::close`] waits for the peers to hear of the end, and then for the tasks.
pub(crate) const END_DEADLINE: Duration = Duration::from_secs(1);

/// A running node. Clones are handles to the same node; when the last one is dropped, the node stops at once and all of its tasks end.
/// [`Node::close`] does the same in good order.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

/// What ends with the last handle.
struct Running {
    shared: Arc<Shared>,
    /// Holds the lock on the data directory.
    _data_dir: Option<Arc<DataDir>>,
}

/// What a shutdown left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Shutdown {
    /// Messages that were queued on channels and never sent.
    pub lost_messages: u64,
    /// Messages that were sent and that a peer has not said to have, where it would say so.
    pub unknown_messages: u64,
    /// Tasks that had not ended at the deadline. Anything but 0 is a defect of Peerage or a handler that blocks its thread.
    pub unfinished_tasks: usize,
}

impl Node {
    /// Starts to describe a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    pub(crate) fn new(shared: Arc<Shared>, data_dir: Option<Arc<DataDir>>) -> Self {
        let running = Arc::new(Running { shared: shared.clone(), _data_dir: data_dir });
        Self { shared, running }
    }

    /// This node's peer ID.
    pub fn peer_id(&self) -> PeerId {
        self.shared.me
    }

    /// The name of the overlay.
    pub fn network(&self) -> &str {
        &self.shared.network
    }

    /// Where others can reach this node, each with its peer ID: what to give to another node as seed.
    pub fn listen_addresses(&self) -> Vec<DialAddress> {
        self.shared.listening.here().addresses.clone()
    }

    /// Where enough peers, in different networks, see this node: addresses that are announced beside those that it listens at, as long as it listens.
    pub fn observed_addresses(&self) -> Vec<std::net::SocketAddr> {
        self.shared.listening.observed()
    }

    /// Where this node listens, as the user said, with real ports: what [`Node::stop_listening`] takes.
    pub fn listening(&self) -> Vec<ListenAddress> {
        self.shared.listening.listened()
    }

    /// Tells when [`Node::listen_addresses`] change. The receiver gets the addresses themselves; the present ones count as seen.
    pub fn watch_listen_addresses(&self) -> ListenWatch {
        ListenWatch { changes: self.shared.listening.changes() }
    }

    /// Listens at one more address, such as `/ip4/0.0.0.0/udp/4400/quic-v1`, and tells it with its real port. Connected peers are told of the new
    /// addresses (identify push); hellos carry them from now on, in a record with a higher sequence number.
    ///
    /// # Errors
    /// [`ListenError`]: no listen address, one that can't be had, or too many.
    pub async fn listen(&self, address: impl fmt::Display) -> Result<ListenAddress, ListenError> {
        crate::listening::listen(&self.shared, ListenAddress::from_str(&address.to_string())?)
    }

    /// Takes no more connections at an address that [`Node::listen`] returned, or that the builder was given, with its real port. Connections that came
    /// there live on; the port is free when the last of them has ended.
    ///
    /// # Errors
    /// [`ListenError::NotListening`], which names the addresses that there are.
    pub async fn stop_listening(&self, address: impl fmt::Display) -> Result<(), ListenError> {
        crate::listening::stop_listening(&self.shared, ListenAddress::from_str(&address.to_string())?)
    }

    /// For programs that are told by their system when the network changes: looks at the machine's addresses now, not with the next look, which comes every
    /// few seconds where a wildcard is listened at.
    ///
    /// Announced addresses follow. Connections that this node dialled go on from the address that the machine has now. Those that came in at an address
    /// that is gone are dialled anew: what was sent on the old one may still arrive there, and the new one takes over.
    pub async fn network_changed(&self) {
        crate::listening::check_interfaces(&self.shared, true).await;
    }

    /// How long the node has been running: the clock of the times in [`PeerState`](crate::PeerState).
    pub fn uptime(&self) -> Duration {
        self.shared.clock.now().mono
    }

    /// The DHT, where the node was started with one ([`NodeBuilder::dht`]); without, each call of it fails and says so.
    pub fn dht(&self) -> Dht {
        Dht { shared: self.shared.clone() }
    }

    /// Who is connected, and what changes.
    pub fn peers(&self) -> Peers {
        Peers { shared: self.shared.clone() }
    }

    /// Bytes that each protocol has moved since the node's start, over all connections, those that have ended included, in the order of the names. 64
    /// names are counted by themselves, the rest under `(other)`.
    pub fn traffic(&self) -> Vec<ProtocolTraffic> {
        self.shared.traffic.list()
    }

    /// Changes the network secrets of a node that was started with one: from now on these are proved and taken, up to four. Connected peers stay.
    ///
    /// To change a network's secret, give each node the new one beside the old; when all have both, take the old one away.
    ///
    /// # Errors
    /// [`ChangeSecretsError`].
    pub fn set_network_secrets(
        &self,
        secrets: impl IntoIterator<Item = NetworkSecret>,
    ) -> Result<(), ChangeSecretsError> {
        self.shared.secrets.change(secrets.into_iter().collect())
    }

    /// Connects to an address now, whatever limits and backoff say, and waits until both sides have admitted each other. A peer ID will do too: then it is
    /// [`Node::connect_peer`].
    ///
    /// # Errors
    /// [`ConnectError`], with the reason: nobody there, another peer there, refused.
    pub async fn connect(&self, address: impl fmt::Display) -> Result<PeerId, ConnectError> {
        let text = address.to_string();
        if let Ok(peer) = parse_peer_id(&text) {
            return self.connect_peer(peer).await;
        }
        let address = DialAddress::from_str(&text)?;
        self.connect_target(Target::Address(address)).await
    }

    /// Connects to a peer by its ID: at an address that is already known, or, where the node was started with a DHT, at those that the peer has
    /// published there, or that the nodes near it name. What the DHT names is dialled at no address that is narrower than where this node's peers
    /// are: a peer on the Internet makes nobody dial into his own network.
    ///
    /// # Errors
    /// As [`Node::connect`], and when no address is known.
    pub async fn connect_peer(&self, peer: PeerId) -> Result<PeerId, ConnectError> {
        let known = self.connect_target(Target::Peer(peer)).await;
        let Err(error) = known else { return known };
        if self.shared.dht.is_none() || peer == self.shared.me || matches!(error, ConnectError::Closed) {
            return Err(error);
        }
        crate::dht::reach(&self.shared, peer, error).await
    }

    async fn connect_target(&self, target: Target) -> Result<PeerId, ConnectError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Connect { target, reply };
        self.shared.to_driver.send(message).await.map_err(|_| ConnectError::Closed)?;
        answer.await.unwrap_or(Err(ConnectError::Closed))
    }

    /// Declares a channel. Peers that declare the same name can exchange messages on it.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is taken or malformed, or the limits contradict each other.
    pub fn channel<M: Payload>(&self, config: ChannelConfig) -> Result<Channel<M>, RegisterError> {
        config.check()?;
        let core = ChannelCore::new(config);
        self.shared.registry.add(&core.config.name, Service::Channel(core.clone()))?;
        self.shared.channel_counts.begin(&core.config.name, core.counts.clone());
        Ok(Channel::new(self.shared.clone(), core))
    }

    /// Answers requests under a protocol name until the node stops, or [`Node::stop_serving`].
    ///
    /// The handler's future is dropped when the caller gives up or its deadline passes. How many run at once, and how many wait, is bounded by
    /// [`ServeConfig::default`]; callers beyond that are refused with [`ServeError::OVERLOADED`].
    ///
    /// A handler that holds a handle of this node keeps the node running until [`Node::close`] or [`Node::stop_serving`] lets go of it.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is taken or malformed.
    pub fn serve<Q, A, F, R>(&self, protocol: &str, handler: F) -> Result<(), RegisterError>
    where
        Q: Payload,
        A: Payload,
        F: Fn(PeerId, Q) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, ServeError>> + Send + 'static,
    {
        self.serve_with(protocol, ServeConfig::default(), move |request: Request<Q>| {
            handler(request.peer, request.body)
        })
    }

    /// [`Node::serve`] with limits of its own, and a handler that is told all about the request.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is taken or malformed, or a limit makes no sense.
    pub fn serve_with<Q, A, F, R>(
        &self,
        protocol: &str,
        config: ServeConfig,
        handler: F,
    ) -> Result<(), RegisterError>
    where
        Q: Payload,
        A: Payload,
        F: Fn(Request<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, ServeError>> + Send + 'static,
    {
        config.check(protocol)?;
        self.register(protocol, Handler::one(config, handler))
    }

    /// Answers each request with a stream of answers. The stream is polled only as fast as the caller takes what it yields, and dropped
    /// when the caller gives up or its deadline passes. An error is the last item that travels.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is taken or malformed.
    pub fn serve_stream<Q, A, F, S>(&self, protocol: &str, handler: F) -> Result<(), RegisterError>
    where
        Q: Payload,
        A: Payload,
        F: Fn(PeerId, Q) -> S + Send + Sync + 'static,
        S: futures_util::Stream<Item = Result<A, ServeError>> + Send + 'static,
    {
        self.serve_stream_with(protocol, ServeConfig::default(), move |request: Request<Q>| {
            handler(request.peer, request.body)
        })
    }

    /// [`Node::serve_stream`] with limits of its own, and a handler that is told all about the request.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is taken or malformed, or a limit makes no sense.
    pub fn serve_stream_with<Q, A, F, S>(
        &self,
        protocol: &str,
        config: ServeConfig,
        handler: F,
    ) -> Result<(), RegisterError>
    where
        Q: Payload,
        A: Payload,
        F: Fn(Request<Q>) -> S + Send + Sync + 'static,
        S: futures_util::Stream<Item = Result<A, ServeError>> + Send + 'static,
    {
        config.check(protocol)?;
        self.register(protocol, Handler::many(config, handler))
    }

    /// Answers requests with a [`tower_service::Service`], so with any that tower's layers were put around. Each request gets a clone of it, and waits
    /// until that is ready. An error that is, or wraps, a [`ServeError`] travels as it is; any other one as [`ServeError::FAILED`] with its text.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is taken or malformed.
    pub fn serve_service<Q, S>(&self, protocol: &str, service: S) -> Result<(), RegisterError>
    where
        Q: Payload,
        S: tower_service::Service<Request<Q>> + Clone + Send + 'static,
        S::Response: Payload,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        S::Future: Send,
    {
        self.serve_service_with(protocol, ServeConfig::default(), service)
    }

    /// [`Node::serve_service`] with limits of its own.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is taken or malformed, or a limit makes no sense.
    pub fn serve_service_with<Q, S>(
        &self,
        protocol: &str,
        config: ServeConfig,
        service: S,
    ) -> Result<(), RegisterError>
    where
        Q: Payload,
        S: tower_service::Service<Request<Q>> + Clone + Send + 'static,
        S::Response: Payload,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        S::Future: Send,
    {
        config.check(protocol)?;
        self.register(protocol, request::service_handler(config, service))
    }

    fn register(&self, protocol: &str, handler: Handler) -> Result<(), RegisterError> {
        self.shared.registry.add(protocol, Service::Requests(Arc::new(handler)))
    }

    /// Stops answering requests under a protocol name. Those under way are finished.
    pub fn stop_serving(&self, protocol: &str) {
        if let Some(Service::Requests(_)) = self.shared.registry.get(protocol) {
            self.shared.registry.remove(protocol);
        }
    }

    /// Sends a request to a connected peer and waits for its answer, at most 30 s. Dropping the future cancels the request at the peer.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request<Q: Payload, A: Payload>(
        &self,
        peer: PeerId,
        protocol: &str,
        question: &Q,
    ) -> Result<A, RequestError> {
        self.request_with(peer, protocol, question, &CallConfig::default()).await
    }

    /// [`Node::request`] with a deadline of its own.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request_within<Q: Payload, A: Payload>(
        &self,
        peer: PeerId,
        protocol: &str,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, RequestError> {
        self.request_with(peer, protocol, question, &CallConfig::default().deadline(deadline)).await
    }

    /// [`Node::request`] with a deadline and limits of its own.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request_with<Q: Payload, A: Payload>(
        &self,
        peer: PeerId,
        protocol: &str,
        question: &Q,
        config: &CallConfig,
    ) -> Result<A, RequestError> {
        let peer = self.shared.peer(&peer).ok_or_else(|| self.shared.requests.not_connected(peer))?;
        request::call(&peer, protocol, question, config, None).await
    }

    /// Sends a request that the peer answers with a stream, without a deadline. Dropping the answers cancels the request at the peer; while
    /// they aren't polled, the peer's handler waits.
    ///
    /// # Errors
    /// [`RequestError`], as far as it shows before the first answer. That the peer doesn't serve the protocol is learned with the first answer.
    pub async fn request_stream<Q: Payload, A: Payload>(
        &self,
        peer: PeerId,
        protocol: &str,
        question: &Q,
    ) -> Result<Answers<A>, RequestError> {
        self.request_stream_with(peer, protocol, question, &CallConfig::unlimited_time()).await
    }

    /// [`Node::request_stream`] with a deadline for all of the stream, and limits of its own.
    ///
    /// # Errors
    /// As [`Node::request_stream`].
    pub async fn request_stream_with<Q: Payload, A: Payload>(
        &self,
        peer: PeerId,
        protocol: &str,
        question: &Q,
        config: &CallConfig,
    ) -> Result<Answers<A>, RequestError> {
        let peer = self.shared.peer(&peer).ok_or_else(|| self.shared.requests.not_connected(peer))?;
        request::call_many(&peer, protocol, question, config).await
    }

    /// Requests to one peer under one protocol name as a [`tower_service::Service`]. The peer need not be connected yet.
    pub fn service<Q: Payload, A: Payload>(&self, peer: PeerId, protocol: &str) -> RequestService<Q, A> {
        RequestService::new(self.shared.clone(), peer, protocol)
    }

    /// Opens a raw stream to a connected peer, for bulk or for a protocol of its own. It is visible there at once; what the peer thinks of the protocol
    /// is learned at the first read.
    ///
    /// A [`Stream`] and its two halves are `AsyncRead` and `AsyncWrite`, of tokio and of `futures` alike. [`SendStream::write_chunk`] and
    /// [`RecvStream::read_chunk`](crate::RecvStream::read_chunk) move [`bytes::Bytes`] without a copy; [`SendStream::write_frame`] and
    /// [`RecvStream::read_message`](crate::RecvStream::read_message) move messages. Nothing bounds a stream but QUIC's flow control: a reader that lags makes the writer
    /// wait, and what lies unread takes up to 2 MiB of the window that all streams of the connection share, so read, or stop it.
    ///
    /// [`SendStream::write_chunk`]: crate::SendStream::write_chunk
    /// [`SendStream::write_frame`]: crate::SendStream::write_frame
    ///
    /// # Errors
    /// [`RequestError::NotConnected`], or [`RequestError::Lost`] when the connection ends meanwhile.
    pub async fn open(&self, peer: PeerId, protocol: &str) -> Result<Stream, RequestError> {
        let peer = self.shared.peer(&peer).ok_or(RequestError::NotConnected { peer })?;
        peer.mark_useful();
        peer.connection.open(protocol).await.map_err(|error| not_opened(&peer, protocol, &error))
    }

    /// As [`Node::open`], but the protocol's name leaves together with the first bytes written: for short messages on streams of their own, of which
    /// each is then one piece of a packet. The peer sees nothing of the stream before that write, or [`SendStream::flush`]; where the peer speaks
    /// first, use `open`. Write soon: a stream that later ones overtake is given up after the peer's `negotiation_timeout`, and takes one of the peer's
    /// turns to negotiate until then.
    ///
    /// [`SendStream::flush`]: crate::SendStream::flush
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn open_lazy(&self, peer: PeerId, protocol: &str) -> Result<Stream, RequestError> {
        let peer = self.shared.peer(&peer).ok_or(RequestError::NotConnected { peer })?;
        peer.mark_useful();
        peer.connection.open_lazy(protocol).await.map_err(|error| not_opened(&peer, protocol, &error))
    }

    /// Accepts raw streams that peers open under a protocol name, until the returned value is dropped. See [`Node::open`] for what they can do. At most 256 wait to be taken.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is taken or malformed.
    pub fn accept(&self, protocol: &str) -> Result<Incoming, RegisterError> {
        let (acceptor, incoming) = Incoming::new(self.shared.clone(), protocol.to_owned());
        match self.shared.registry.add(protocol, Service::Streams(acceptor)) {
            Ok(()) => Ok(incoming),
            Err(error) => {
                // Dropping it would take the other registration away.
                incoming.forget();
                Err(error)
            }
        }
    }

    /// Measures a round trip to a connected peer with `/ipfs/ping/1.0.0`.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn ping(&self, peer: PeerId) -> Result<Duration, RequestError> {
        let peer = self.shared.peer(&peer).ok_or(RequestError::NotConnected { peer })?;
        crate::protocols::ping::ping(&peer).await
    }

    /// Uploads and downloads so many bytes with `/perf/1.0.0`, which the peer must serve.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn perf(&self, peer: PeerId, upload: u64, download: u64) -> Result<PerfTimes, RequestError> {
        self.perf_within(peer, upload, download, Duration::MAX, |_| {}).await
    }

    /// [`Node::perf`] that gives neither half more than `within`: the upload ends then with what was handed to the connection, and the download with what has come.
    /// `on_progress` is told how many bytes have been moved, both ways together; it is called often and must return at once.
    ///
    /// # Errors
    /// [`RequestError`]; among them [`RequestError::Lost`] when nothing moves for 30 s.
    pub async fn perf_within(
        &self,
        peer: PeerId,
        upload: u64,
        download: u64,
        within: Duration,
        on_progress: impl FnMut(u64) + Send,
    ) -> Result<PerfTimes, RequestError> {
        let peer = self.shared.peer(&peer).ok_or(RequestError::NotConnected { peer })?;
        crate::protocols::perf::run(&peer, upload, download, within, on_progress).await
    }

    /// Asks a connected peer with `/ipfs/id/1.0.0` what it says about itself.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn identify(&self, peer: PeerId) -> Result<crate::About, RequestError> {
        let peer = self.shared.peer(&peer).ok_or(RequestError::NotConnected { peer })?;
        crate::protocols::identify::ask(&peer).await.map_err(|cause| RequestError::Lost {
            peer: peer.id,
            protocol: crate::protocols::identify::PROTOCOL.to_owned(),
            cause,
        })
    }

    /// Stops in good order: no more dials and admissions, queued messages are sent (for at most 2 s, or [`crate::NodeLimits::drain_timeout`]), the peers are told, every task ends.
    /// Other handles to this node get errors from then on. Takes at most 3 s more.
    pub async fn close(self) -> Shutdown {
        let shared = self.shared.clone();
        let _ = shared.to_driver.send(Message::Input(Input::ShutDown)).await;
        let peers = shared.connected();
        peers.iter().for_each(|peer| peer.finish_outboxes());
        let drained = async {
            while !peers.iter().all(|peer| peer.is_drained()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(shared.limits.drain_timeout, drained).await;
        for peer in peers {
            shared.remove_peer(&peer, "this node is shutting down");
        }
        shared.endpoint.close(CloseCode::Shutdown, "shutting down");
        shared.endpoint.wait_idle(END_DEADLINE).await;
        let _ = tokio::time::timeout(END_DEADLINE, save(&shared)).await;
        let _ = tokio::time::timeout(END_DEADLINE, crate::dht::save(&shared)).await;
        self.running.end();
        let _ = tokio::time::timeout(END_DEADLINE, shared.tasks.wait()).await;
        Shutdown {
            lost_messages: shared.lost_messages.load(Ordering::Relaxed),
            unknown_messages: shared.unknown_messages.load(Ordering::Relaxed),
            unfinished_tasks: shared.tasks.len(),
        }
    }
}

/// Stores what the peer manager knew at the end.
async fn save(shared: &Shared) {
    let (reply, caught_up) = oneshot::channel();
    if shared.to_driver.send(Message::CaughtUp { reply }).await.is_ok() {
        let _ = caught_up.await;
    }
    if let Err(error) = shared.saving.flush().await {
        tracing::warn!(%error, "the last changes of the address book and the bans were not stored");
    }
}

impl Running {
    fn end(&self) {
        self.shared.registry.close();
        self.shared.endpoint.close(CloseCode::Shutdown, "shutting down");
        // A channel or another handle may outlive the node; the ports must not wait for it.
        self.shared.endpoint.give_up_sockets();
        self.shared.listening.close();
        self.shared.stop.cancel();
        self.shared.saving.close();
        self.shared.tasks.close();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells when the addresses change at which others can reach a node.
#[derive(Debug, Clone)]
pub struct ListenWatch {
    changes: watch::Receiver<Arc<Here>>,
}

impl ListenWatch {
    /// The addresses after the next change; changes that came together are told once. `None` when the node has been shut down or dropped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<DialAddress>> {
        self.changes.changed().await.ok()?;
        Some(self.changes.borrow_and_update().addresses.clone())
    }
}

fn not_opened(peer: &Peer, protocol: &str, error: &OpenError) -> RequestError {
    RequestError::Lost { peer: peer.id, protocol: protocol.to_owned(), cause: error.to_string() }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("peer_id", &self.shared.me).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use crate::Node;
    use crate::builder::DRIVER_QUEUE;

    #[tokio::test]
    async fn beyond_the_drivers_queue_senders_wait() {
        let node = Node::builder().start().await.unwrap();
        let (peers, to_driver) = (node.peers(), node.shared.to_driver.clone());
        let mut asking: Vec<_> = (0..DRIVER_QUEUE + 50).map(|_| Box::pin(peers.bans())).collect();
        // The driver's task runs on this thread too, and has no turn in between.
        for (number, asking) in (1..).zip(&mut asking) {
            assert!(asking.now_or_never().is_none());
            assert_eq!(to_driver.capacity(), DRIVER_QUEUE.saturating_sub(number));
        }
        let all = tokio::time::timeout(Duration::from_secs(20), futures::future::join_all(asking)).await;
        assert_eq!(all.expect("all are answered").len(), DRIVER_QUEUE + 50);
    }
}
