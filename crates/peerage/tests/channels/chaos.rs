//! Connections that break at random points: the receiver's own log agrees with every verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, Node, PeerId, Raw, Receipt, Verdict};
use peerage_machine::Random;
use tokio::sync::watch;
use tokio::task::yield_now;

use crate::common::{builder, gone, join, within};

const BREAKS: usize = 8;
/// Framed bytes of one message.
const FRAMED: usize = 302;
/// Fewer than that are received in one life.
const LIFE: u64 = 500;
/// Bytes that wait for the receiver, or may be on their way to it.
const RECEIVE_QUEUE: usize = 64 * 1024;

fn config() -> ChannelConfig {
    ChannelConfig::new("/test/chaos/1").max_message_bytes(1000).receive_queue(RECEIVE_QUEUE, 1000)
}

fn numbered(number: u64) -> Raw {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(FRAMED - 2, 0);
    Raw(Bytes::from(body))
}

fn number_of(message: &Raw) -> u64 {
    u64::from_be_bytes(message.0[..8].try_into().unwrap())
}

/// What the receiver got, in the order in which it did.
type Log = watch::Sender<Vec<u64>>;

/// One connection's life: messages with rising numbers until it breaks, when the receiver has so many more of them, and what became of each.
async fn one_life(
    (a, b): (&Node, &Node),
    at_a: &Channel<Raw>,
    log: &Log,
    random: &mut Random,
    next: &mut u64,
    verdicts: &mut BTreeMap<u64, Verdict>,
) {
    join(a, b).await;
    let sender = at_a.to(b.peer_id()).unwrap();
    let (ends_at, turns) = (log.borrow().len() + random.below(LIFE) as usize, random.below(20));
    let breaker = random.chance(0.5);
    let mut receipts: Vec<(u64, Receipt)> = Vec::new();
    let sending = async {
        loop {
            match sender.queue_confirmed(&numbered(*next)).await {
                Ok(receipt) => receipts.push((*next, receipt)),
                Err(error) => {
                    verdicts.insert(*next, Verdict::Refused(error));
                    *next += 1;
                    return;
                }
            }
            *next += 1;
            if random.chance(0.01) {
                yield_now().await;
            }
        }
    };
    let breaking = async {
        log.subscribe().wait_for(|log| log.len() >= ends_at).await.unwrap();
        // Anywhere in what the tasks of both nodes are at.
        for _ in 0..turns {
            yield_now().await;
        }
        let (breaker, other) = if breaker { (a, b) } else { (b, a) };
        breaker.peers().disconnect(other.peer_id()).await;
    };
    within("a life", async { tokio::join!(sending, breaking) }).await;
    gone(a, b.peer_id()).await;
    gone(b, a.peer_id()).await;
    // Delivered first, then unknown, then lost: messages leave in their order.
    let (mut worst, mut unknown) = (0, 0);
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
        unknown += usize::from(rank == 1);
        verdicts.insert(number, verdict);
    }
    // No more can have been on their way than the receiver's bound allows.
    assert!(unknown * FRAMED <= RECEIVE_QUEUE, "{unknown} unknown at one break");
}

async fn log_all(channel: Channel<Raw>, from: PeerId, log: Arc<Log>) {
    while let Some((peer, message)) = channel.recv().await {
        assert_eq!(peer, from);
        log.send_modify(|log| log.push(number_of(&message)));
        if log.borrow().len().is_multiple_of(100) {
            yield_now().await;
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
        let log = Arc::new(Log::default());
        let logging = tokio::spawn(log_all(at_b.clone(), a.peer_id(), log.clone()));
        let (mut next, mut verdicts) = (0, BTreeMap::new());
        for _ in 0..BREAKS {
            one_life((&a, &b), &at_a, &log, &mut random, &mut next, &mut verdicts).await;
        }
        let mut logged = log.subscribe();
        let all = logged.wait_for(|log| log.len() as u64 == at_b.totals().received);
        let received = within("all to be taken", all).await.unwrap().clone();
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
        assert!(delivered > 0, "the test tests something");
        assert_eq!((at_a.totals().delivered, at_a.totals().unknown), (delivered as u64, unknown as u64));
        assert_eq!(at_b.totals().accounted_bytes, 0, "all is given back");
        drop(at_b);
        b.close().await;
        within("the log's end", logging).await.unwrap();
    }
}

/// Sends rising numbers until `last` is told, no faster than the peer's node answers, and says what became of each.
async fn send_all_along(a: Node, at_a: Channel<Raw>, to: PeerId, last: Arc<AtomicBool>) -> Vec<Verdict> {
    let mut fates = Vec::new();
    while !last.load(Ordering::Relaxed) {
        let fate = at_a.queue_confirmed(to, &numbered(fates.len() as u64)).await;
        if fate.is_err() || fates.len().is_multiple_of(50) {
            within("a ping", a.ping(to)).await.unwrap();
        }
        fates.push(fate);
    }
    let mut verdicts = Vec::new();
    for fate in fates {
        verdicts.push(match fate {
            Ok(receipt) => within("a verdict", receipt).await,
            Err(error) => Verdict::Refused(error),
        });
    }
    verdicts
}

/// The receiver drops its channel and declares it anew while messages flow: what is refused then was never received, and what is delivered and was not
/// received lay in the queue that was dropped.
/// Contract C-4, C-5.
#[tokio::test]
async fn a_receiver_that_drops_its_channel_refuses_only_what_it_never_gets() {
    for seed in 0..3 {
        eprintln!("seed {seed}");
        let mut random = Random::from_number(seed);
        let (a, b) = (builder().start().await.unwrap(), builder().start().await.unwrap());
        join(&a, &b).await;
        let at_a = a.channel::<Raw>(config()).unwrap();
        let last = Arc::new(AtomicBool::new(false));
        let sending = tokio::spawn(send_all_along(a.clone(), at_a.clone(), b.peer_id(), last.clone()));
        let (mut received, mut unread) = (Vec::new(), 0);
        for _ in 0..BREAKS {
            let at_b = b.channel::<Raw>(config()).unwrap();
            for _ in 0..1 + random.below(LIFE) {
                received.push(number_of(&within("a message", at_b.recv()).await.unwrap().1));
            }
            unread += at_b.totals().waiting_messages;
        }
        last.store(true, Ordering::Relaxed);
        let verdicts = within("all verdicts", sending).await.unwrap();
        assert!(received.is_sorted_by(|a, b| a < b), "in order, each once");
        let (mut delivered, mut refused) = (0, 0);
        for (number, verdict) in verdicts.iter().enumerate() {
            let arrived = received.binary_search(&(number as u64)).is_ok();
            match verdict {
                Verdict::Delivered => delivered += 1,
                Verdict::Refused(_) => {
                    refused += 1;
                    assert!(!arrived, "{number} was received: {verdict}");
                }
                Verdict::Unknown(_) | Verdict::Lost(_) => panic!("{number} with no break: {verdict}"),
            }
        }
        let begun = at_a.totals().rejected;
        eprintln!(
            "{delivered} delivered, {} received, {unread} left unread, {refused} refused, {begun} of them queued",
            received.len()
        );
        assert_eq!(delivered, received.len() + unread, "what was delivered was received, or left unread");
        assert!(begun > 0, "the test tests something");
    }
}
