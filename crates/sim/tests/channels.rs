//! Channels on simulated paths: priorities on a full one, and verdicts whatever breaks.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage::{Channel, ChannelConfig, PeerId, Raw, Receipt, SendError, Verdict};
use peerage_sim::{Failed, Link, Plan, World, ensure, scenario, seeds, simulate};

const SECOND: Duration = Duration::from_secs(1);
/// Breaks in one run.
const LIVES: u32 = 6;
/// Framed bytes of one message.
const FRAMED: usize = 2 + 8 + 500;

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

/// Messages with rising numbers, and what became of each.
#[derive(Default)]
struct Sent {
    next: u64,
    receipts: Vec<(u64, Receipt)>,
    verdicts: BTreeMap<u64, Verdict>,
}

impl Sent {
    /// Queues the next one, or waits a tenth of a second for that: true when it is queued. Whoever was refused, or stopped waiting, queued nothing.
    async fn queue(&mut self, channel: &Channel<Raw>, to: PeerId) -> bool {
        let after = SECOND / 10;
        let number = self.next;
        self.next += 1;
        let message = Raw([&number.to_be_bytes()[..], &[0; 500]].concat().into());
        let queued = tokio::time::timeout(after, channel.queue_confirmed(to, &message)).await;
        match queued.unwrap_or(Err(SendError::TimedOut { after })) {
            Ok(receipt) => self.receipts.push((number, receipt)),
            Err(error) => {
                self.verdicts.insert(number, Verdict::Refused(error));
                return false;
            }
        }
        true
    }
}

async fn verdicts_under_faults(world: World) -> Result<(), Failed> {
    world.default_link(Link::between_ms(5, 30).loss(0.02));
    let quick = |builder: peerage::NodeBuilder| builder.idle_timeout(3 * SECOND);
    let to = world.node("to", quick).await?;
    let address = to.address();
    let from = world.node("from", move |builder| quick(builder).persistent(&address)).await?;
    let config = || {
        ChannelConfig::new("/sim/sure/1")
            .max_message_bytes(1000)
            .receive_queue(64 * 1024, 200)
            .send_queue(64 * 1024, 200)
    };
    let channel = from.node().channel::<Raw>(config())?;
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut random = world.random("faults");
    let (mut sent, mut certain) = (Sent::default(), Vec::new());
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
        let first = sent.next;
        let breaks_at = world.now() + random.up_to(SECOND) + SECOND / 2;
        while world.now() < breaks_at {
            sent.queue(&channel, to.peer_id()).await;
            if random.chance(0.05) {
                world.run_for(random.up_to(SECOND / 50)).await;
            }
        }
        if life % 2 == 0 {
            world.crash(&to);
        } else {
            world.partition(&[std::slice::from_ref(&from), std::slice::from_ref(&to)]);
            // Here the receiving application lives on; in a crash it may not have come to the last messages of its queue.
            certain.push(first..sent.next);
        }
        // Nothing leaves any more: the queue fills, until one is refused.
        while sent.queue(&channel, to.peer_id()).await {}
        // After the break nothing is accepted any more, so what is on its way only grows, as far as the credit goes.
        let mut on_their_way = 0;
        world
            .until("the break is noticed", 60 * SECOND, || {
                let status = channel.status(to.peer_id());
                on_their_way = status.map_or(on_their_way, |status| status.in_flight_bytes);
                !from.connected().contains(&to.peer_id())
            })
            .await?;
        world.heal();
        let mut unknown = 0;
        for (number, receipt) in std::mem::take(&mut sent.receipts) {
            let verdict = tokio::time::timeout(SECOND, receipt).await.map_err(|_| {
                Failed::new(format!(
                    "no verdict on {number} of {first}..{} in life {life} at {:?}: {:?}",
                    sent.next,
                    world.now(),
                    channel.totals()
                ))
            })?;
            unknown += usize::from(matches!(verdict, Verdict::Unknown(_)));
            sent.verdicts.insert(number, verdict);
        }
        ensure!(
            unknown * FRAMED <= on_their_way && on_their_way <= 64 * 1024,
            "{unknown} unknown in life {life}, with {on_their_way} bytes on their way"
        );
    }
    check(&sent.verdicts, &log.lock().unwrap(), &certain)
}

fn check(verdicts: &BTreeMap<u64, Verdict>, received: &[u64], certain: &[Range<u64>]) -> Result<(), Failed> {
    ensure!(received.is_sorted_by(|a, b| a < b), "out of order, or twice: {received:?}");
    let mut counts = [0; 4];
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
                counts[if let Verdict::Lost(_) = verdict { 2 } else { 3 }] += 1;
                ensure!(!arrived, "message {number} was received: {verdict}");
            }
        }
    }
    println!("delivered, unknown, lost, refused: {counts:?}");
    ensure!(counts.iter().all(|count| *count > 0), "the faults left no trace: {counts:?}");
    Ok(())
}
