//! Channels on simulated paths: priorities on a full one, and verdicts whatever breaks.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, Raw, Verdict};
use peerage_sim::{Failed, Link, SimNode, World, ensure, simulate};

const SECOND: Duration = Duration::from_secs(1);
const CONTROL: &str = "/sim/control/1";
const BULK: &str = "/sim/bulk/1";
/// Breaks in one run.
const LIVES: u32 = 6;

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

/// what is said of a message is true at its receiver: crashes and partitions at random moments, on a path that loses.
#[test]
fn the_receivers_log_agrees_with_every_verdict_whatever_breaks() -> Result<(), Failed> {
    for seed in 0..10 {
        simulate(seed, verdicts_under_faults)?;
    }
    Ok(())
}

async fn verdicts_under_faults(world: World) -> Result<(), Failed> {
    world.default_link(Link::between_ms(5, 30).loss(0.02));
    let quick = |builder: peerage::NodeBuilder| builder.idle_timeout(3 * SECOND);
    let to = world.node("to", quick).await?;
    let address = to.address();
    let from = world.node("from", move |builder| quick(builder).persistent(&address)).await?;
    let config = || ChannelConfig::new("/sim/sure/1").max_message_bytes(1000).receive_queue(64 * 1024, 200);
    let channel = from.node().channel::<Raw>(config())?;
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut random = world.random("faults");
    let (mut next, mut verdicts, mut certain) = (0u64, BTreeMap::new(), Vec::new());
    for life in 0..LIVES {
        let restarts = !to.is_up();
        if restarts {
            world.restart(&to).await?;
        }
        if restarts || life == 0 {
            let (receiving, log) = (to.node().channel::<Raw>(config())?, log.clone());
            tokio::spawn(async move {
                while let Some((_, message)) = receiving.recv().await {
                    log.lock().unwrap().push(u64::from_be_bytes(message.0[..8].try_into().unwrap()));
                }
            });
        }
        world
            .until("they are connected", 120 * SECOND, || {
                from.is_connected_to(&to) && to.is_connected_to(&from)
            })
            .await?;
        let first = next;
        let breaks_at = world.now() + random.up_to(SECOND) + SECOND / 2;
        let mut receipts = Vec::new();
        while world.now() < breaks_at {
            let body = [&next.to_be_bytes()[..], &[0; 500]].concat();
            let queued =
                tokio::time::timeout(SECOND / 10, channel.queue_confirmed(to.peer_id(), &Raw(body.into())))
                    .await;
            if let Ok(Ok(receipt)) = queued {
                receipts.push((next, receipt));
            }
            next += 1;
            if random.chance(0.05) {
                tokio::time::sleep(random.up_to(SECOND / 50)).await;
            }
        }
        if life % 2 == 0 {
            world.crash(&to);
        } else {
            world.partition(&[std::slice::from_ref(&from), std::slice::from_ref(&to)]);
            // Here the receiving application lives on; in a crash it may not have come to the last messages of its queue.
            certain.push(first..next);
        }
        world
            .until("the break is noticed", 60 * SECOND, || !from.connected().contains(&to.peer_id()))
            .await?;
        world.heal();
        for (number, receipt) in receipts {
            let verdict = tokio::time::timeout(SECOND, receipt).await.map_err(|_| {
                Failed::new(format!(
                    "no verdict on {number} of {first}..{next} in life {life} at {:?}: {:?}",
                    world.now(),
                    channel.totals()
                ))
            })?;
            verdicts.insert(number, verdict);
        }
    }
    check(&verdicts, &log.lock().unwrap(), &certain)
}

fn check(verdicts: &BTreeMap<u64, Verdict>, received: &[u64], certain: &[Range<u64>]) -> Result<(), Failed> {
    ensure!(received.is_sorted_by(|a, b| a < b), "out of order, or twice: {received:?}");
    let mut counts = [0; 3];
    for (number, verdict) in verdicts {
        let arrived = received.binary_search(number).is_ok();
        match verdict {
            Verdict::Delivered => {
                counts[0] += 1;
                let sure = certain.iter().any(|life| life.contains(number));
                ensure!(arrived || !sure, "message {number} was delivered and never received");
            }
            Verdict::Unknown(_) => counts[1] += 1,
            Verdict::Lost(_) | Verdict::Refused(_) => {
                counts[2] += 1;
                ensure!(!arrived, "message {number} was received: {verdict}");
            }
        }
    }
    println!("delivered, unknown, lost: {counts:?}");
    ensure!(counts.iter().all(|count| *count > 0), "the faults left no trace: {counts:?}");
    // What may be on the way at a break is bounded by what the receiver's queue has promised.
    let most = LIVES as usize * (64 * 1024 / (8 + 500) + 1);
    ensure!(counts[1] <= most, "{} unknown, where {most} can have been on their way", counts[1]);
    Ok(())
}
