//! Who goes first on a full path: small urgent messages beside a channel that takes all it can get.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, Raw};
use peerage_machine::Random;

use crate::ensure;
use crate::failed::Failed;
use crate::net::Link;
use crate::scenario::{Plan, Report, seconds};
use crate::world::{SimNode, World};

/// A control channel's round trips on an idle path, and on the same path with bulk channels that fill it. From the seed follow the length of the
/// bulk messages, and whether they go along with the questions, along with the answers, or both ways.
pub(super) async fn priority(world: World, plan: Plan) -> Result<Report, Failed> {
    let queue = RATE as usize / 8 * (2 * ONE_WAY_MS) as usize / 1000 / 2;
    world.default_link(Link::latency_ms(ONE_WAY_MS).bandwidth(RATE, queue));
    let there = world.node("there", |builder| builder).await?;
    let address = there.address();
    let here = world.node("here", move |builder| builder.persistent(&address)).await?;
    world.until("both are connected", seconds(10), || here.is_connected_to(&there)).await?;
    let probe = Probe::new(&world, &here, &there)?;
    let idle = probe.round_trips(IDLE).await?;

    let mut random = world.random("bulk");
    let bytes = 1 << (14 + random.below(7));
    let ways = random.below(3);
    let mut bulk = Vec::new();
    if plan.faults {
        let pairs = [(&here, &there), (&there, &here)];
        let wanted = pairs.into_iter().zip([ways != 1, ways != 0]).filter(|(_, wanted)| *wanted);
        bulk = wanted.map(|((from, to), _)| fill(from, to, bytes)).collect::<Result<Vec<_>, _>>()?;
    }
    world.run_for(WARM_UP).await;
    let (start, before, dropped) = (world.now(), taken(&bulk), world.counters().overflowed);
    let busy = probe.round_trips(BUSY).await?;
    let passed = (world.now() - start).as_secs_f64();
    let share = |(after, before): (u64, &u64)| (after - before) as f64 * 8.0 / passed / RATE as f64;
    let shares: Vec<f64> = taken(&bulk).into_iter().zip(&before).map(share).collect();

    let dropped = world.counters().overflowed - dropped;
    ensure!(dropped > 0, "the queue never filled");
    let (idle, busy, worst) = (p99(&idle), p99(&busy), busy[busy.len() - 1]);
    ensure!(busy <= 2 * idle, "control took {busy:?} at p99 beside bulk, and {idle:?} on the idle path");
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    ensure!((0.8..=1.0).contains(&least), "bulk had {:.1} % of the path", least * 100.0);
    Ok(vec![
        ("idle p99 in ms", millis(idle)),
        ("busy p99 in ms", millis(busy)),
        ("busy worst in ms", millis(worst)),
        ("bulk has of the path in %", least * 100.0),
        ("bulk ways", bulk.len() as f64),
        ("packets that found the queue full", dropped as f64),
    ])
}

/// Sends small messages to an echo, and takes down how long each was away.
struct Probe {
    world: World,
    random: Mutex<Random>,
    near: peerage::Channel<Raw>,
    to: peerage::PeerId,
}

impl Probe {
    fn new(world: &World, here: &SimNode, there: &SimNode) -> Result<Self, Failed> {
        let near = here.node().channel::<Raw>(ChannelConfig::control(CONTROL))?;
        let far = there.node().channel::<Raw>(ChannelConfig::control(CONTROL))?;
        tokio::spawn(async move {
            while let Some((peer, message)) = far.recv().await {
                let _ = far.send(peer, &message).await;
            }
        });
        let random = Mutex::new(world.random("probe"));
        Ok(Self { world: world.clone(), random, near, to: there.peer_id() })
    }

    /// The round trips of messages that are sent for so long at irregular moments, whether or not earlier ones are back; sorted.
    async fn round_trips(&self, time: Duration) -> Result<Vec<Duration>, Failed> {
        let (end, sent) = (self.world.now() + time, AtomicU64::new(0));
        let sending = async {
            while self.world.now() < end {
                let mut body = vec![0; PROBE_BYTES];
                body[..8].copy_from_slice(&(self.world.now().as_nanos() as u64).to_be_bytes());
                self.near.send(self.to, &Raw(Bytes::from(body))).await?;
                sent.fetch_add(1, Ordering::Relaxed);
                let pause = self.random.lock().unwrap_or_else(PoisonError::into_inner).up_to(LONGEST_PAUSE);
                tokio::time::sleep(pause).await;
            }
            Ok::<_, Failed>(())
        };
        let mut took = Vec::new();
        let receiving = async {
            while self.world.now() < end || (took.len() as u64) < sent.load(Ordering::Relaxed) {
                let next = tokio::time::timeout(PATIENCE, self.near.recv()).await;
                let Some((_, Raw(body))) = next.map_err(|_| Failed::new("an answer never came"))? else {
                    return Err(Failed::new("the control channel was closed"));
                };
                let at = body[..8].try_into().map(u64::from_be_bytes)?;
                took.push(self.world.now() - Duration::from_nanos(at));
            }
            Ok(())
        };
        tokio::try_join!(biased; sending, receiving)?;
        took.sort_unstable();
        Ok(took)
    }
}

/// Keeps a bulk channel full from now on, and counts the bytes that come out.
fn fill(from: &SimNode, to: &SimNode, bytes: usize) -> Result<Arc<AtomicU64>, Failed> {
    let name = format!("{BULK}-{}", from.name());
    let sending = from.node().channel::<Raw>(ChannelConfig::bulk(&name))?;
    let receiving = to.node().channel::<Raw>(ChannelConfig::bulk(&name))?;
    let (message, peer) = (Raw(Bytes::from(vec![7; bytes])), to.peer_id());
    tokio::spawn(async move { while sending.send(peer, &message).await.is_ok() {} });
    let count = Arc::new(AtomicU64::new(0));
    let counting = count.clone();
    tokio::spawn(async move {
        while let Some((_, Raw(body))) = receiving.recv().await {
            counting.fetch_add(body.len() as u64, Ordering::Relaxed);
        }
    });
    Ok(count)
}

fn taken(bulk: &[Arc<AtomicU64>]) -> Vec<u64> {
    bulk.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99).div_ceil(100) - 1]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

const CONTROL: &str = "/sim/control/1";
const BULK: &str = "/sim/bulk/1";
/// Bits a second.
const RATE: u64 = 100_000_000;
const ONE_WAY_MS: u64 = 25;
const IDLE: Duration = seconds(5);
/// From the first bulk message to the first round trip that counts: the bar is one of a path that is full, not of how it fills.
const WARM_UP: Duration = seconds(2);
const BUSY: Duration = seconds(20);
const PROBE_BYTES: usize = 100;
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = seconds(10);
