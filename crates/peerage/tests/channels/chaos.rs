//! Connections that break at random points: the receiver's own log agrees with every verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, Node, PeerId, Raw, Receipt, Verdict};
use peerage_machine::Random;

use crate::support::{builder, gone, join, within};

const BREAKS: usize = 8;
/// Framed bytes of one message.
const FRAMED: usize = 302;

fn config() -> ChannelConfig {
    ChannelConfig::new("/test/chaos/1").max_message_bytes(1000).receive_queue(64 * 1024, 1000)
}

/// One connection's life: messages with rising numbers until it breaks, and what became of each.
async fn one_life(
    (a, b): (&Node, &Node),
    at_a: &Channel<Raw>,
    random: &mut Random,
    next: &mut u64,
    verdicts: &mut BTreeMap<u64, Verdict>,
) {
    join(a, b).await;
    let sender = at_a.to(b.peer_id()).unwrap();
    let lives = Duration::from_micros(random.below(30_000));
    let breaker = random.chance(0.5);
    let mut receipts: Vec<(u64, Receipt)> = Vec::new();
    let sending = async {
        loop {
            let mut body = next.to_be_bytes().to_vec();
            body.resize(FRAMED - 2, 0);
            match sender.queue_confirmed(&Raw(Bytes::from(body))).await {
                Ok(receipt) => receipts.push((*next, receipt)),
                Err(error) => {
                    verdicts.insert(*next, Verdict::Refused(error));
                    *next += 1;
                    return;
                }
            }
            *next += 1;
            if random.chance(0.01) {
                tokio::task::yield_now().await;
            }
        }
    };
    let breaking = async {
        tokio::time::sleep(lives).await;
        let (breaker, other) = if breaker { (a, b) } else { (b, a) };
        breaker.peers().disconnect(other.peer_id()).await;
    };
    within("a life", async { tokio::join!(sending, breaking) }).await;
    gone(a, b.peer_id()).await;
    gone(b, a.peer_id()).await;
    // Delivered first, then unknown, then lost: messages leave in their order.
    let mut worst = 0;
    for (number, receipt) in receipts {
        let verdict = within("a verdict", receipt).await;
        let rank = match verdict {
            Verdict::Delivered => 0,
            Verdict::Unknown(_) => 1,
            Verdict::Lost(_) => 2,
            Verdict::Refused(error) => panic!("{number} was refused: {error}"),
        };
        assert!(rank >= worst, "message {number} has a better fate than an earlier one");
        worst = rank;
        verdicts.insert(number, verdict);
    }
}

async fn log_of(channel: Channel<Raw>, from: PeerId, log: std::sync::Arc<std::sync::Mutex<Vec<u64>>>) {
    while let Some((peer, message)) = channel.recv().await {
        assert_eq!(peer, from);
        log.lock().unwrap().push(u64::from_be_bytes(message.0[..8].try_into().unwrap()));
        if log.lock().unwrap().len().is_multiple_of(100) {
            tokio::task::yield_now().await;
        }
    }
}

/// what is said of a message is true at the receiver, wherever the connection broke.
/// Contract C-3, C-4, C-5, C-15, C-16.
#[tokio::test]
async fn whatever_breaks_the_receivers_log_agrees_with_the_verdicts() {
    for seed in 0..3 {
        eprintln!("seed {seed}");
        let mut random = Random::from_number(seed);
        let (a, b) = (builder().start().await.unwrap(), builder().start().await.unwrap());
        let at_a = a.channel::<Raw>(config()).unwrap();
        let at_b = b.channel::<Raw>(config()).unwrap();
        let log = std::sync::Arc::default();
        let logging = tokio::spawn(log_of(at_b.clone(), a.peer_id(), std::sync::Arc::clone(&log)));
        let (mut next, mut verdicts) = (0, BTreeMap::new());
        for _ in 0..BREAKS {
            one_life((&a, &b), &at_a, &mut random, &mut next, &mut verdicts).await;
        }
        crate::support::until("all to be taken", || at_b.totals().waiting_messages == 0).await;
        let received = log.lock().unwrap().clone();
        let count =
            |wanted: fn(&Verdict) -> bool| verdicts.values().filter(|verdict| wanted(verdict)).count();
        let (delivered, unknown) =
            (count(Verdict::is_delivered), count(|v| matches!(v, Verdict::Unknown(_))));
        eprintln!("{next} messages: {delivered} delivered, {unknown} unknown, {} received", received.len());
        assert!(received.is_sorted_by(|a, b| a < b), "in order, each once");
        assert_eq!(verdicts.len() as u64, next);
        for (number, verdict) in &verdicts {
            let arrived = received.binary_search(number).is_ok();
            match verdict {
                Verdict::Delivered => assert!(arrived, "{number} was delivered and never received"),
                Verdict::Lost(_) | Verdict::Refused(_) => {
                    assert!(!arrived, "{number} was received: {verdict}")
                }
                Verdict::Unknown(_) => {}
            }
        }
        // No more can be on their way than the receiver's bound allows.
        assert!(unknown * FRAMED <= BREAKS * (64 * 1024 + FRAMED), "{unknown} unknown");
        assert!(delivered > 0, "the test tests something");
        assert_eq!((at_a.totals().delivered, at_a.totals().unknown), (delivered as u64, unknown as u64));
        assert_eq!(at_b.totals().accounted_bytes, 0, "all is given back");
        drop(at_b);
        b.close().await;
        within("the log's end", logging).await.unwrap();
    }
}
