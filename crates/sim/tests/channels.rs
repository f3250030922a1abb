//! Channels on simulated paths: priorities on a full one.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, Raw};
use peerage_sim::{Failed, Link, SimNode, World, ensure, simulate};

const SECOND: Duration = Duration::from_secs(1);
const CONTROL: &str = "/sim/control/1";
const BULK: &str = "/sim/bulk/1";

async fn connected(world: &World, a: &SimNode, b: &SimNode) -> Result<Duration, Failed> {
    let what = format!("{} and {} are connected", a.name(), b.name());
    world.until(&what, 20 * SECOND, || a.is_connected_to(b)).await
}

/// Round trips of small messages on a control channel for so long: every one, sorted.
async fn round_trips(
    world: &World,
    from: &SimNode,
    to: &SimNode,
    time: Duration,
) -> Result<Vec<Duration>, Failed> {
    let near = from.node().channel::<Raw>(ChannelConfig::control(CONTROL))?;
    let far = to.node().channel::<Raw>(ChannelConfig::control(CONTROL))?;
    let echoing = tokio::spawn(async move {
        while let Some((peer, message)) = far.recv().await {
            let _ = far.send(peer, &message).await;
        }
    });
    let (end, mut took) = (world.now() + time, Vec::new());
    while world.now() < end {
        let start = world.now();
        near.send(to.peer_id(), &Raw(Bytes::from_static(&[1; 100]))).await?;
        tokio::time::timeout(10 * SECOND, near.recv()).await?;
        took.push(world.now() - start);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    echoing.abort();
    took.sort_unstable();
    Ok(took)
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99).div_ceil(100) - 1]
}

/// 100 Mbit/s, 50 ms, a queue of half a bandwidth-delay product that drops what does not fit.
/// Contract C-11.
#[test]
fn control_stays_fast_and_bulk_keeps_its_rate_on_a_full_path() -> Result<(), Failed> {
    let (rate, rtt_ms) = (100_000_000, 50);
    let queue = rate as usize / 8 * rtt_ms as usize / 1000 / 2;
    simulate(1, async |world| {
        world.default_link(Link::latency_ms(rtt_ms / 2).bandwidth(rate, queue));
        let to = world.node("to", |builder| builder).await?;
        let address = to.address();
        let from = world.node("from", move |builder| builder.persistent(&address)).await?;
        connected(&world, &from, &to).await?;
        let idle = round_trips(&world, &from, &to, 10 * SECOND).await?;

        let sending = from.node().channel::<Raw>(ChannelConfig::bulk(BULK))?;
        let receiving = to.node().channel::<Raw>(ChannelConfig::bulk(BULK))?;
        let bytes = Arc::new(Mutex::new(0u64));
        let (message, peer) = (Raw(Bytes::from(vec![7; 100_000])), to.peer_id());
        tokio::spawn(async move { while sending.send(peer, &message).await.is_ok() {} });
        let counted = bytes.clone();
        tokio::spawn(async move {
            while let Some((_, message)) = receiving.recv().await {
                *counted.lock().unwrap() += message.0.len() as u64;
            }
        });
        world.run_for(2 * SECOND).await;
        let (start, before) = (world.now(), *bytes.lock().unwrap());
        let busy = round_trips(&world, &from, &to, 15 * SECOND).await?;
        let passed = (world.now() - start).as_secs_f64();
        let share = (*bytes.lock().unwrap() - before) as f64 * 8.0 / passed / rate as f64;
        let (idle, busy_p99, worst) = (p99(&idle), p99(&busy), busy[busy.len() - 1]);
        println!(
            "idle p99 {idle:?}, busy p99 {busy_p99:?}, worst {worst:?} of {}; bulk has {:.0} %",
            busy.len(),
            share * 100.0
        );
        ensure!(world.counters().overflowed > 0, "the queue never filled");
        ensure!(busy_p99 <= 2 * idle, "control took {busy_p99:?} at p99, {idle:?} on the idle path");
        ensure!(share >= 0.8, "bulk had {:.0} % of the path", share * 100.0);
        Ok(())
    })
}
