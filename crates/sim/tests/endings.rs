//! How nodes end: dropped in the middle of everything, or closed with too little time for what is queued. No task is left of them, at their peers neither,
//! and their port is free.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use peerage::{
    BanTarget, Channel, ChannelConfig, NodeBuilder, NodeKey, NodeLimits, PeerEvent, PeerId, Peers, Raw,
    Receipt, ServeError, Verdict,
};
use peerage_sim::{Failed, Link, SimNode, World, ensure, seeds, simulate, transport_settings};
use peerage_transport::{CloseCause, CloseCode, Connection, DialError, Endpoint, EndpointConfig};
use tokio::task::JoinHandle;
use tower_service::Service as _;

const SECOND: Duration = Duration::from_secs(1);
/// What a node may take to end, beside what draining may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// How much later than the node the peers may be: what was queued on the path comes first, and a farewell that was lost there is asked for again.
const LATER: Duration = Duration::from_secs(1);
const FEED: &str = "/sim/feed/1";
const NEVER: &str = "/sim/never/1";
const ENDLESS: &str = "/sim/endless/1";
const RAW: &str = "/sim/raw/1";

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Does what an application does, but for what [`keep_busy`] adds.
fn serve(node: &SimNode) -> Result<Channel<Raw>, Failed> {
    let node = node.node();
    node.serve::<Raw, Raw, _, _>(NEVER, |_, _| std::future::pending::<Result<Raw, ServeError>>())?;
    node.serve_stream::<Raw, Raw, _, _>(ENDLESS, |_, _| {
        let answers = (0..).map(|number: u32| Ok(Raw(Bytes::from(vec![number as u8; 1000]))));
        futures::stream::iter(answers).chain(futures::stream::pending())
    })?;
    let incoming = node.accept(RAW)?;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some((_, stream)) = incoming.recv().await {
            held.push(tokio::spawn(async move {
                let mut stream = stream;
                while let Ok(Some(_)) = stream.recv.read_chunk(65_536).await {}
            }));
        }
    });
    Ok(node.channel(ChannelConfig::new(FEED))?)
}

/// Gives a node something of each kind to do with a peer. Nothing of it holds a handle to the node.
async fn keep_busy(node: &SimNode, feed: &Channel<Raw>, peer: PeerId) -> Result<Vec<Receipt>, Failed> {
    let node = node.node();
    let mut receipts = Vec::new();
    for number in 0..100 {
        receipts.push(feed.queue_confirmed(peer, &Raw(Bytes::from(vec![number; 10_000]))).await?);
    }
    let mut asking = node.service::<Raw, Raw>(peer, NEVER);
    tokio::spawn(async move {
        let question = Raw(Bytes::from_static(b"?"));
        assert!(asking.call(question).await.is_err(), "who never answers has answered");
    });
    let mut answers =
        node.request_stream::<Raw, Raw>(peer, ENDLESS, &Raw(Bytes::from_static(b"more"))).await?;
    tokio::spawn(async move { while let Some(Ok(_)) = answers.next().await {} });
    let mut stream = node.open(peer, RAW).await?;
    tokio::spawn(async move { while stream.send.write_all(&[7; 5000]).await.is_ok() {} });
    Ok(receipts)
}

/// Watches in every way.
async fn watch(node: &SimNode) {
    let node = node.node();
    let (mut peers, mut addresses) = (node.peers().watch().await.unwrap(), node.watch_listen_addresses());
    tokio::spawn(async move { while peers.next().await.is_some() {} });
    tokio::spawn(async move { while addresses.next().await.is_some() {} });
}

/// A host without a node.
fn bare(world: &World, number: u8) -> Result<(peerage_sim::HostId, EndpointConfig), Failed> {
    let (net, host) = (world.net().clone(), world.net().host());
    let mut config = EndpointConfig::new(NodeKey::from_seed([number + 100; 32]));
    config.settings = transport_settings();
    config.seed = Some([number; 32]);
    config.time = Some(Arc::new(move || Duration::from_secs(1_893_456_000) + net.now()));
    Ok((host, config))
}

async fn endpoint(world: &World, number: u8) -> Result<(peerage_sim::HostId, Endpoint), Failed> {
    let (host, config) = bare(world, number)?;
    let socket = world.net().bind(host, (world.net().ip(host), 4400).into())?;
    Ok((host, Endpoint::over(config, vec![socket]).await?))
}

/// What an application may still hold of a node that it has dropped.
struct Held {
    _feed: Channel<Raw>,
    _peers: Peers,
    receipts: Vec<Receipt>,
    since: Duration,
    /// Done with TLS, and silent.
    stranger: Connection,
    /// Is dialling the node, and hears nothing.
    deaf: JoinHandle<Result<(), DialError>>,
}

/// The others, and what holds before the node that ends is there.
struct Scene {
    world: World,
    friends: Vec<(SimNode, Channel<Raw>)>,
    /// Its handshake gets no answer.
    deaf: (peerage_sim::HostId, Endpoint),
    stranger: Endpoint,
    tasks: usize,
}

impl Scene {
    async fn new(world: World) -> Result<Self, Failed> {
        world.default_link(Link::between_ms(5, 60).bandwidth(4_000_000, 200_000));
        let mut friends = Vec::new();
        for number in 0..3 {
            let friend = world.node(format!("friend {number}"), |builder| builder.max_outbound(0)).await?;
            friends.push((friend.clone(), serve(&friend)?));
        }
        let (deaf, (_, stranger)) = (endpoint(&world, 1).await?, endpoint(&world, 2).await?);
        world.run_for(SECOND).await;
        Ok(Self { tasks: alive_tasks(), world, friends, deaf, stranger })
    }

    /// Starts the node and everything that can be under way at it.
    async fn begin(
        &self,
        configure: impl Fn(NodeBuilder) -> NodeBuilder + Send + Sync + 'static,
    ) -> Result<(SimNode, Held), Failed> {
        let world = &self.world;
        let addresses: Vec<_> = self.friends.iter().map(|(friend, _)| friend.address()).collect();
        let contacts = move |builder: NodeBuilder| {
            configure(addresses.iter().fold(builder, |builder, address| builder.persistent(address)))
        };
        let node = world.describe("the node").start(contacts).await?;
        let feed = serve(&node)?;
        for (friend, _) in &self.friends {
            world.until("a friend is there", 20 * SECOND, || node.is_connected_to(friend)).await?;
        }
        watch(&node).await;
        let mut receipts = Vec::new();
        for (friend, theirs) in &self.friends {
            receipts.extend(keep_busy(&node, &feed, friend.peer_id()).await?);
            let _ = keep_busy(friend, theirs, node.peer_id()).await?;
        }
        let stranger = self.stranger.dial(node.socket_address(), Some(node.peer_id())).await?;
        world.net().block(node.host(), self.deaf.0);
        let (deaf, to) = (self.deaf.1.clone(), node.socket_address());
        let deaf = tokio::spawn(async move { deaf.dial(to, None).await.map(drop) });
        // Nobody is there.
        let nowhere = world.net().ip(world.net().host());
        let nobody = NodeKey::from_seed([77; 32]).peer_id();
        node.node().peers().add(&format!("/ip4/{nowhere}/udp/4400/quic-v1/p2p/{nobody}")).await?;
        node.node().listen(format!("/ip4/{}/udp/0/quic-v1", node.socket_address().ip())).await?;
        world.run_for(SECOND / 5).await;
        let held =
            Held { since: world.now(), _peers: node.node().peers(), _feed: feed, receipts, stranger, deaf };
        ensure!(!held.deaf.is_finished(), "the handshake ended");
        ensure!(alive_tasks() > self.tasks + 60, "only {} tasks at work", alive_tasks() - self.tasks);
        ensure!(world.dials().iter().any(|dial| dial.to.ip() == nowhere), "nothing is being dialled");
        Ok((node, held))
    }

    /// No task is left within `deadline`, the peers have seen the node go, and its port is free while the program still holds handles of other kinds.
    async fn is_over(&self, node: &SimNode, held: Held, start: Duration) -> Result<Vec<Verdict>, Failed> {
        let world = &self.world;
        // It would wait for its own timeout.
        held.deaf.abort();
        let deadline = (start + DEADLINE + LATER).saturating_sub(world.now());
        let took = world.until("every task has ended", deadline, || alive_tasks() <= self.tasks).await;
        took.map_err(|error| Failed::new(format!("{error}: {} before, {} now", self.tasks, alive_tasks())))?;
        for (friend, _) in &self.friends {
            let lost: Vec<_> = friend
                .events()
                .into_iter()
                .filter_map(|(at, event)| match event {
                    PeerEvent::Disconnected { peer, cause, .. } if peer == node.peer_id() => {
                        Some((at, cause))
                    }
                    _ => None,
                })
                .collect();
            let told = |cause: &str| cause.contains("shutting down");
            let right = matches!(&lost[..], [(at, cause)] if *at <= start + 2 * LATER && told(cause));
            ensure!(
                right && friend.connected().is_empty(),
                "{} saw it go: {lost:?} from {start:?}",
                friend.name()
            );
        }
        let cause = held.stranger.close_cause();
        // A node that drains for long sends those away meanwhile that say nothing.
        let late = start - held.since > 5 * SECOND;
        let code = if late { CloseCode::HandshakeTimeout } else { CloseCode::Shutdown };
        let told = matches!(&cause, Some(CloseCause::ByPeer { code: given, .. }) if *given == code);
        ensure!(told, "the stranger was not told of the end: {cause:?}");
        let mut verdicts = Vec::new();
        for receipt in held.receipts {
            verdicts.push(tokio::time::timeout(Duration::ZERO, receipt).await?);
        }
        ensure!(self.tasks == alive_tasks(), "{} tasks before, {} now", self.tasks, alive_tasks());
        drop(world.net().bind(node.host(), node.socket_address())?);
        Ok(verdicts)
    }
}

#[test]
fn a_node_that_is_dropped_in_the_middle_of_everything_leaves_no_task_behind() -> Result<(), Failed> {
    for seed in seeds(0..8) {
        simulate(seed, async |world| {
            let scene = Scene::new(world.clone()).await?;
            let (node, held) = scene.begin(|builder| builder).await?;
            world.run_for(Duration::from_millis(world.random("moment").index(800) as u64)).await;
            ensure!(world.let_go(&node), "it was down");
            let verdicts = scene.is_over(&node, held, world.now()).await?;
            let left = verdicts.iter().filter(|verdict| !verdict.is_delivered()).count();
            ensure!(left > 0, "nothing was queued any more");
            Ok::<_, Failed>(())
        })?;
    }
    Ok(())
}

/// Contract C-38.
#[test]
fn a_node_that_is_closed_with_too_little_time_ends_in_time_and_says_what_was_lost() -> Result<(), Failed> {
    let (short, long) = (Duration::from_millis(300), 30 * SECOND);
    for (seed, drain) in seeds(0..6).into_iter().map(|seed| (seed, short)).chain([(6, long)]) {
        simulate(seed, async |world| {
            let scene = Scene::new(world.clone()).await?;
            let mut limits = NodeLimits::default();
            limits.drain_timeout = drain;
            let (node, held) = scene.begin(move |builder| builder.limits(limits.clone())).await?;
            let (closing, start) = (node.node(), world.now());
            world.let_go(&node);
            let shutdown = closing.close().await;
            ensure!(shutdown.unfinished_tasks == 0, "{shutdown:?}");
            let took = world.now() - start;
            ensure!(took <= drain + DEADLINE, "closing took {took:?}");
            let end = start + drain.min(took);
            let verdicts = scene.is_over(&node, held, end).await?;
            let count =
                |is: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| is(verdict)).count() as u64;
            let (lost, unknown) = (
                count(|verdict| matches!(verdict, Verdict::Lost(_))),
                count(|verdict| matches!(verdict, Verdict::Unknown(_))),
            );
            let told = (shutdown.lost_messages, shutdown.unknown_messages);
            ensure!(told == (lost, unknown), "{told:?} were told, {lost} lost and {unknown} unknown");
            let delivered = count(Verdict::is_delivered);
            ensure!(lost + unknown + delivered == 300, "{verdicts:?}");
            ensure!((drain == short) == (lost > 0), "{lost} lost within {drain:?}");
            let mut received = 0;
            for (_, feed) in &scene.friends {
                while feed.try_recv().is_some() {
                    received += 1;
                }
            }
            let right = (delivered..=delivered + unknown).contains(&received);
            ensure!(right, "{received} received, {delivered} delivered, {unknown} unknown");
            Ok::<_, Failed>(())
        })?;
    }
    Ok(())
}

/// QUIC's close must not wait for room on the path: from then on nothing makes any.
#[test]
fn a_peer_that_is_sent_away_while_the_path_is_full_hears_why_at_once() -> Result<(), Failed> {
    for seed in seeds(0..6) {
        simulate(seed, async |world| {
            world.default_link(Link::latency_ms(20).bandwidth(4_000_000, 100_000));
            let friend = world.node("friend", |builder| builder.max_outbound(0)).await?;
            let node = world.node("the node", |builder| builder.max_outbound(0)).await?;
            let (feed, _theirs) = (serve(&node)?, serve(&friend)?);
            node.node().connect(friend.address()).await?;
            world.until("they are connected", SECOND, || node.is_connected_to(&friend)).await?;
            let receipts = keep_busy(&node, &feed, friend.peer_id()).await?;
            world.run_for(Duration::from_millis(300 + world.random("moment").index(500) as u64)).await;
            let target = BanTarget::Peer(friend.peer_id());
            node.node().peers().ban(target, "for a test", None).await?;
            world.until("the friend hears of it", SECOND / 2, || friend.connected().is_empty()).await?;
            let causes: Vec<_> = friend
                .events()
                .into_iter()
                .filter_map(|(_, event)| match event {
                    PeerEvent::Disconnected { cause, .. } => Some(cause),
                    _ => None,
                })
                .collect();
            ensure!(causes.len() == 1 && causes[0].contains("banned"), "{causes:?}");
            let mut left = 0;
            for receipt in receipts {
                left += usize::from(!receipt.await.is_delivered());
            }
            ensure!(left > 0, "nothing was queued any more");
            Ok::<_, Failed>(())
        })?;
    }
    Ok(())
}
