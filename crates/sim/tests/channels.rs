//! Channels on simulated paths: priorities on a full one, and verdicts whatever breaks.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage::{ChannelConfig, Raw, Verdict};
use peerage_sim::{Failed, Link, Plan, World, ensure, scenario, seeds, simulate};

const SECOND: Duration = Duration::from_secs(1);
/// Breaks in one run.
const LIVES: u32 = 6;

/// 100 Mbit/s, 50 ms, a queue of half a bandwidth-delay product that drops what does not fit.
/// Contract C-11.
#[test]
fn control_stays_fast_and_bulk_keeps_its_rate_on_a_full_path() {
    for seed in seeds(1..=6) {
        let outcome = scenario("priority").unwrap().run(seed, Plan::SMALL);
        let report = outcome.result.unwrap_or_else(|reason| {
            panic!("{reason}\nto replay it: cargo run --release -p peerage-sim -- replay --scenario priority --seed {seed}")
        });
        println!("seed {seed}: {report:?}");
    }
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
