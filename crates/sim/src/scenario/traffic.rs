//! Messages on bad paths and to bad readers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, PeerEvent, PeerId, Raw, SendError};

use crate::ensure;
use crate::failed::Failed;
use crate::net::{Link, SimNet};
use crate::scenario::{Plan, Report, count_events, is_disconnect, parts, seconds};
use crate::world::{SimNode, World};

/// What one node got: sender, number, and how long it was under way.
type Log = Arc<Mutex<Vec<(PeerId, u64, Duration)>>>;

/// Messages between all connected nodes while a good part of all packets is lost.
pub(super) async fn loss(world: World, plan: Plan) -> Result<Report, Failed> {
    world.default_link(Link::between_ms(5, 80).loss(if plan.faults { 0.3 } else { 0.0 }));
    let address = world.node("seed", |builder| builder).await?.address();
    for number in 1..8 {
        let address = address.clone();
        world.node(format!("n{number}"), move |builder| builder.seed(&address)).await?;
    }
    let nodes = world.nodes();
    let took = world.until("an overlay of all nodes", seconds(60), || parts(&nodes) == 1).await?;
    world.run_for(seconds(20)).await;
    let began = world.now();
    let mut logs = BTreeMap::new();
    let mut pairs = Vec::new();
    for node in &nodes {
        let channel = node.node().channel::<Raw>(ChannelConfig::new(CHANNEL))?;
        let log = record(world.net(), channel.clone());
        pairs.extend(node.connected().into_iter().map(|peer| Pair::new(node.peer_id(), peer, &channel)));
        logs.insert(node.peer_id(), log);
    }
    pairs.iter().for_each(|pair| drop(tokio::spawn(pair.clone().send_all(world.net().clone()))));
    let all_there = || pairs.iter().all(|pair| pair.is_done(&logs) || pair.is_broken(&nodes, began));
    let sent_in = world.until("every message arrives", seconds(120), all_there).await?;
    world.run_for(seconds(5)).await;
    for log in logs.values() {
        in_order(&lock(log))?;
    }
    let refused: u64 = pairs.iter().map(|pair| lock(&pair.told).1).sum();
    ensure!(refused <= pairs.len() as u64 / 4, "{refused} sends were refused on {} connections", pairs.len());
    // QUIC doubles the wait for an acknowledgement each time: once in some hundred runs bad luck makes thirty seconds of silence, and the
    // connection ends.
    let broken = pairs.iter().filter(|pair| pair.is_broken(&nodes, began)).count();
    ensure!(broken <= 2, "the connections of {broken} pairs broke on the way");
    let counters = world.counters();
    let lost = counters.lost as f64 / counters.sent as f64;
    ensure!((0.27..0.33).contains(&lost), "{:.1} % of the packets were lost, not 30 %", lost * 100.0);
    Ok(vec![
        ("overlay in s", took.as_secs_f64()),
        ("messages", (pairs.len() as u64 * MESSAGES) as f64),
        ("refused sends", refused as f64),
        ("broken connections", broken as f64),
        ("messages in s", sent_in.as_secs_f64()),
        ("lost packets in %", lost * 100.0),
    ])
}

/// One of three readers stops reading for a while.
pub(super) async fn slow_reader(world: World, plan: Plan) -> Result<Report, Failed> {
    world.default_link(Link::latency_ms(20));
    let source = world.node("source", |builder| builder).await?;
    let mut readers = Vec::new();
    for name in ["slow", "quick", "quicker"] {
        let address = source.address();
        readers.push(world.node(name, move |b| b.persistent(&address).max_outbound(0)).await?);
    }
    let all = || readers.iter().all(|reader| source.is_connected_to(reader));
    world.until("all readers are there", seconds(10), all).await?;
    let feed = source.node().channel::<Raw>(feed_config())?;
    let (slow, quick) = (&readers[0], &readers[1..]);
    let slow_feed = slow.node().channel::<Raw>(feed_config())?;
    let quick_feeds = quick
        .iter()
        .map(|reader| reader.node().channel::<Raw>(feed_config()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut logs: Vec<Log> = quick_feeds.into_iter().map(|channel| record(world.net(), channel)).collect();
    let mut waiting = Some(slow_feed);
    if !plan.faults {
        logs.extend(waiting.take().map(|channel| record(world.net(), channel)));
    }
    let mut taken: BTreeMap<PeerId, u64> = BTreeMap::new();
    let (mut refused, mut slowest_ping) = (0u64, Duration::ZERO);
    for number in 0..1500 {
        let message = message(number, world.now(), FEED_BYTES);
        for reader in &readers {
            match feed.try_send(reader.peer_id(), &message) {
                Ok(()) => *taken.entry(reader.peer_id()).or_default() += 1,
                Err(SendError::QueueFull) if reader.peer_id() == slow.peer_id() => refused += 1,
                Err(error) => {
                    return Err(Failed::new(format!("{} at message {number}: {error}", reader.name())));
                }
            }
        }
        world.run_for(Duration::from_millis(10)).await;
        if number % 100 == 99 {
            slowest_ping = slowest_ping.max(source.node().ping(slow.peer_id()).await?);
        }
    }
    ensure!(refused > 0, "the slow reader's queue never filled");
    ensure!(slowest_ping < Duration::from_millis(200), "a ping to the slow reader took {slowest_ping:?}");
    let complete = |log: &Log, reader: &SimNode| lock(log).len() as u64 == taken[&reader.peer_id()];
    let quick_done = || logs.iter().zip(quick).all(|(log, reader)| complete(log, reader));
    world.until("the quick readers have everything", seconds(5), quick_done).await?;
    let latest = logs.iter().flat_map(|log| lock(log).iter().map(|got| got.2).max()).max();
    ensure!(latest < Some(Duration::from_millis(500)), "a message to a quick reader took {latest:?}");
    let log = record(world.net(), waiting.take().ok_or_else(|| Failed::new("nobody was slow"))?);
    world.until("the slow reader has caught up", seconds(30), || complete(&log, slow)).await?;
    in_order(&lock(&log))?;
    ensure!(count_events(&readers, is_disconnect) == 0, "a connection broke on the way");
    Ok(vec![
        ("refused", refused as f64),
        ("slowest ping in ms", slowest_ping.as_secs_f64() * 1000.0),
        ("latest quick message in ms", latest.unwrap_or_default().as_secs_f64() * 1000.0),
    ])
}

/// Takes down everything that comes on a channel.
fn record(net: &SimNet, channel: Channel<Raw>) -> Log {
    let (log, net) = (Log::default(), net.clone());
    let filling = log.clone();
    tokio::spawn(async move {
        while let Some((peer, Raw(body))) = channel.recv().await {
            let [number, sent] = [0, 8].map(|at| read_number(&body, at));
            let took = net.now().saturating_sub(Duration::from_nanos(sent));
            lock(&filling).push((peer, number, took));
        }
    });
    log
}

/// One node's messages to one other.
#[derive(Clone)]
struct Pair {
    from: PeerId,
    to: PeerId,
    channel: Channel<Raw>,
    /// Messages that were taken, and those that were refused.
    told: Arc<Mutex<(u64, u64)>>,
}

impl Pair {
    fn new(from: PeerId, to: PeerId, channel: &Channel<Raw>) -> Self {
        Self { from, to, channel: channel.clone(), told: Arc::default() }
    }

    /// Sends until enough were taken. On a path this bad a channel may not be agreed on in time; then the send says so.
    async fn send_all(self, net: SimNet) {
        for number in 0.. {
            let sent = self.channel.send(self.to, &message(number, net.now(), 200)).await;
            if self.count(sent.is_ok()) == MESSAGES {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether one of the two has lost the connection since then, and perhaps what was queued. The other one may only see that a new one takes its place.
    fn is_broken(&self, nodes: &[SimNode], since: Duration) -> bool {
        let lost = |at: PeerId, to: PeerId| {
            let told =
                nodes.iter().find(|node| node.peer_id() == at).map(SimNode::events).unwrap_or_default();
            told.iter().any(|(time, event)| {
                *time >= since && matches!(event, PeerEvent::Disconnected { peer, .. } if *peer == to)
            })
        };
        lost(self.from, self.to) || lost(self.to, self.from)
    }

    /// Counts a send, and tells how many were taken so far.
    fn count(&self, taken: bool) -> u64 {
        let mut told = lock(&self.told);
        match taken {
            true => told.0 += 1,
            false => told.1 += 1,
        }
        told.0
    }

    /// Whether all were taken and have arrived. Where one was refused, those that were queued behind it may have gone with it.
    fn is_done(&self, logs: &BTreeMap<PeerId, Log>) -> bool {
        let (taken, refused) = *lock(&self.told);
        let arrived = || {
            let log = lock(&logs[&self.to]);
            log.iter().filter(|(from, ..)| *from == self.from).count() as u64
        };
        taken == MESSAGES && (refused > 0 || arrived() == MESSAGES)
    }
}

/// A message that says its number and when it was sent.
fn message(number: u64, now: Duration, bytes: usize) -> Raw {
    let mut body = number.to_be_bytes().to_vec();
    body.extend((now.as_nanos() as u64).to_be_bytes());
    body.resize(bytes, 0);
    Raw(Bytes::from(body))
}

fn read_number(body: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&body[at..at + 8]);
    u64::from_be_bytes(number)
}

/// Checks that what came from each peer has rising numbers.
fn in_order(log: &[(PeerId, u64, Duration)]) -> Result<(), Failed> {
    let mut last: BTreeMap<PeerId, u64> = BTreeMap::new();
    for (peer, number, _) in log {
        if let Some(before) = last.insert(*peer, *number) {
            ensure!(before < *number, "message {number} of {peer} came after {before}");
        }
    }
    Ok(())
}

/// A channel that holds little, so that a slow reader is felt.
fn feed_config() -> ChannelConfig {
    ChannelConfig::new(CHANNEL)
        .send_queue(512 * 1024, 64)
        .receive_queue(512 * 1024, 64)
        .max_message_bytes(FEED_BYTES)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const CHANNEL: &str = "/sim/feed/1";
/// Messages to each peer.
const MESSAGES: u64 = 50;
/// The length of a message to the readers, in bytes: in 15 s far more than what lies between sender and reader can hold.
const FEED_BYTES: usize = 8 * 1024;
