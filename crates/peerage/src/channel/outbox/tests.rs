//! The outbox without a connection: the test is writer and peer.

use bytes::Bytes;
use peerage_wire::channel as wire;
use tokio::sync::oneshot;
use tokio::time::advance;

use super::*;
use crate::channel::block::Blocks;
use crate::channel::{ChannelConfig, Overflow, Raw, Receipt};
use crate::memory::Budget;

fn config() -> ChannelConfig {
    ChannelConfig::new("/test/1").max_message_bytes(990).send_queue(1000, 10)
}

fn outbox(config: ChannelConfig, credit: bool, memory: usize) -> (Arc<Outbox>, Arc<Budget>) {
    let peer = peerage_identity::NodeKey::generate().peer_id();
    let budget = Budget::new("test_bytes", memory);
    let (core, budgets) = (ChannelCore::new(config), [budget.clone()].into());
    let outbox = Outbox::new(peer, core, credit, None, budgets, Duration::from_secs(6), Now::ZERO);
    (outbox, budget)
}

fn with_credit() -> Arc<Outbox> {
    outbox(config(), true, 1 << 20).0
}

fn raw(length: usize) -> Raw {
    Raw(Bytes::from(vec![b'x'; length]))
}

/// Takes what may be sent and says that the connection took it.
fn write(outbox: &Outbox) -> Taken {
    write_part(outbox, usize::MAX)
}

fn write_part(outbox: &Outbox, most: usize) -> Taken {
    let mut out = Vec::new();
    match outbox.next(usize::MAX, Now::ZERO, &mut out) {
        Next::Write(taken) => {
            outbox.written(taken, taken.bytes.min(most), &out);
            taken
        }
        other => panic!("{other:?}"),
    }
}

fn account(accepted: u64, messages: u64, limit: u64) -> wire::Account {
    wire::Account { accepted, messages, limit, ..Default::default() }
}

fn confirmed(outbox: &Outbox, length: usize) -> Receipt {
    let (reply, receipt) = oneshot::channel();
    outbox.try_push(&raw(length), Some(reply)).unwrap();
    Receipt(receipt)
}

fn broken() -> SendError {
    SendError::Closed
}

/// Small messages that wait for credit stay one piece: each in one of its own would be dear for QUIC.
#[test]
fn a_writer_that_may_send_nothing_leaves_what_is_queued_joined() {
    let outbox = outbox(ChannelConfig::new("/test/1"), true, 1 << 20).0;
    let mut out = Vec::new();
    for _ in 0..100 {
        outbox.try_push(&raw(20), None).unwrap();
        let next = outbox.next(0, Now::ZERO, &mut out);
        assert!(matches!(next, Next::Wait { for_flight: true, .. }), "{next:?}");
    }
    assert!(
        matches!(outbox.next(usize::MAX, Now::ZERO, &mut out), Next::Write(taken) if taken.messages == 100)
    );
    assert_eq!(out.len(), 1);
}

#[test]
fn the_bounds_in_bytes_and_in_messages_hold_and_writing_frees_room() {
    let outbox = with_credit();
    for _ in 0..10 {
        outbox.try_push(&raw(1), None).unwrap();
    }
    assert_eq!(outbox.try_push(&raw(1), None), Err(SendError::QueueFull));
    assert_eq!(write(&outbox).messages, 10);
    outbox.try_push(&raw(900), None).unwrap();
    assert_eq!(outbox.try_push(&raw(100), None), Err(SendError::QueueFull));
    assert_eq!(outbox.queued(), 1);
}

#[test]
fn no_more_is_sent_than_the_peer_allows_and_its_accounts_bring_the_verdicts() {
    let outbox = outbox(ChannelConfig::new("/test/1"), true, 1 << 20).0;
    let (first, second) = (confirmed(&outbox, 10_000), confirmed(&outbox, 10_000));
    assert_eq!(write(&outbox), Taken { bytes: FIRST_CREDIT as usize, messages: 1, rest: 0 });
    let waits = outbox.next(usize::MAX, Now::ZERO, &mut Vec::new());
    assert!(matches!(waits, Next::Wait { after: None, for_flight: false }), "{waits:?}");
    outbox.hear(&account(10_002, 1, 100_000), Now::ZERO).unwrap();
    assert_eq!(write(&outbox).messages, 1);
    outbox.hear(&account(20_004, 2, 100_000), Now::ZERO).unwrap();
    for mut receipt in [first, second] {
        assert_eq!(receipt.0.try_recv(), Ok(Verdict::Delivered));
    }
    let lie = outbox.hear(&account(30_000, 2, 100_000), Now::ZERO);
    assert!(lie.unwrap_err().contains("never sent"));
}

/// Contract C-5.
#[test]
fn after_a_break_delivered_unknown_and_lost_are_told_apart_by_the_byte() {
    let outbox = with_credit();
    let mut receipts: Vec<_> = (0..4).map(|_| confirmed(&outbox, 9)).collect();
    // The connection took the first two whole and a part of the third; the peer accounted for the first.
    write_part(&outbox, 25);
    outbox.hear(&account(10, 1, 1000), Now::ZERO).unwrap();
    receipts.push(confirmed(&outbox, 9));
    assert_eq!(outbox.end(&broken(), EndedBy::Break), 1);
    assert_eq!(outbox.settle(&broken(), EndedBy::Break), Left { lost: 2, unknown: 1 });
    let verdicts: Vec<_> = receipts.iter_mut().map(|receipt| receipt.0.try_recv().unwrap()).collect();
    let (lost, unknown) = (Verdict::Lost(broken()), Verdict::Unknown(broken()));
    assert_eq!(verdicts, [Verdict::Delivered, unknown, lost.clone(), lost.clone(), lost]);
}

#[test]
fn when_the_peer_ends_the_stream_nothing_is_unknown() {
    let outbox = with_credit();
    let mut receipts: Vec<_> = (0..2).map(|_| confirmed(&outbox, 9)).collect();
    write(&outbox);
    receipts.push(confirmed(&outbox, 9));
    outbox.hear(&account(10, 1, 1000), Now::ZERO).unwrap();
    outbox.end(&broken(), EndedBy::Peer);
    assert_eq!(outbox.settle(&broken(), EndedBy::Peer), Left { lost: 1, unknown: 0 });
    let verdicts: Vec<_> = receipts.iter_mut().map(|receipt| receipt.0.try_recv().unwrap()).collect();
    let refused = Verdict::Refused(broken());
    assert_eq!(verdicts, [Verdict::Delivered, refused.clone(), refused]);
}

/// what is dropped is counted.
/// Contract C-7.
#[test]
fn the_oldest_make_room_where_the_policy_says_so_and_are_counted_and_told() {
    let outbox = outbox(config().send_queue(1000, 3).overflow(Overflow::DropOldest), true, 1 << 20).0;
    let mut receipts: Vec<_> = (0..3).map(|_| confirmed(&outbox, 9)).collect();
    receipts.push(confirmed(&outbox, 19));
    assert_eq!(receipts[0].0.try_recv(), Ok(Verdict::Refused(SendError::Dropped)));
    assert_eq!(outbox.core.counts.dropped.load(Ordering::Relaxed), 1);
    assert_eq!(write(&outbox), Taken { bytes: 40, messages: 3, rest: 0 });
    outbox.hear(&account(20, 2, 1000), Now::ZERO).unwrap();
    assert_eq!(receipts[1].0.try_recv(), Ok(Verdict::Delivered));
    assert_eq!(receipts[2].0.try_recv(), Ok(Verdict::Delivered));
    assert!(receipts[3].0.try_recv().is_err(), "not accepted yet");
}

/// Contract C-7.
#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_memory_as_it_does_for_room_and_learns_which_limit_it_was() {
    let patience = Duration::from_secs(3);
    let (outbox, budget) =
        outbox(ChannelConfig::new("/test/1").overflow(Overflow::Wait(patience)), true, 10_000);
    let mut others = Reservation::new([budget.clone()].into());
    others.resize(9000).unwrap();
    let start = tokio::time::Instant::now();
    let no_memory = Err(SendError::NoMemory { limit: "test_bytes", most: 10_000 });
    assert_eq!(outbox.push(&raw(20_000), None).await, no_memory, "there can never be enough");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(outbox.push(&raw(4000), None).await, no_memory);
    assert_eq!(start.elapsed(), patience);
    let message = raw(4000);
    let (pushed, ()) = tokio::join!(outbox.push(&message, None), async {
        // A pause that went on doubling would not be over before two seconds.
        advance(Duration::from_millis(1100)).await;
        others.resize(0).unwrap();
    });
    pushed.unwrap();
    assert!(start.elapsed() - patience < Duration::from_millis(1100) + 2 * MAX_MEMORY_PAUSE);
    assert_eq!(outbox.levels().queued_messages, 1);
}

/// Contract C-6.
#[test]
fn what_cannot_be_accounted_for_is_refused_and_all_is_given_back() {
    let (outbox, budget) = outbox(ChannelConfig::new("/test/1"), true, 10_000);
    outbox.try_push(&raw(4000), None).unwrap();
    outbox.try_push(&raw(4000), None).unwrap();
    let refused = outbox.try_push(&raw(4000), None);
    assert_eq!(refused, Err(SendError::NoMemory { limit: "test_bytes", most: 10_000 }));
    write(&outbox);
    assert!(budget.used() >= 8000, "what is on its way is still held");
    outbox.hear(&account(8004, 2, 100_000), Now::ZERO).unwrap();
    assert_eq!(budget.used(), 0);
    outbox.try_push(&raw(4000), None).unwrap();
    outbox.end(&broken(), EndedBy::Break);
    assert_eq!(budget.used(), 0);
}

#[test]
fn the_rate_holds_towards_the_peer() {
    let outbox = outbox(ChannelConfig::new("/test/1").messages_per_second(10), true, 1 << 20).0;
    for _ in 0..100 {
        outbox.try_push(&raw(1), None).unwrap();
    }
    let (mut now, mut sent) = (Now::ZERO, 0);
    while now.mono < Duration::from_secs(5) {
        match outbox.next(usize::MAX, now, &mut Vec::new()) {
            Next::Write(taken) => sent += taken.messages,
            Next::Wait { after: Some(wait), .. } => now = now.after(wait),
            other => panic!("{other:?}"),
        }
    }
    assert!((55..=61).contains(&sent), "{sent} messages in 5 s and a second's worth before them");
}

#[test]
fn a_peers_smaller_bound_is_told_at_the_send() {
    let outbox = with_credit();
    let limits = wire::Limits { max_message_bytes: 5, ..Default::default() };
    let first = wire::Account { limit: 16_384, limits: Some(limits), ..Default::default() };
    outbox.hear(&first, Now::ZERO).unwrap();
    let refused = outbox.try_push(&raw(6), None).unwrap_err();
    let SendError::TooLarge { length: 6, most: 5, at: Some(peer), .. } = refused else { panic!("{refused}") };
    assert_eq!(peer, outbox.peer());
}

#[tokio::test(start_paused = true)]
async fn senders_that_wait_get_room_in_their_order_or_learn_that_there_is_none() {
    let outbox = outbox(config().overflow(Overflow::Wait(Duration::from_secs(10))), true, 1 << 20).0;
    outbox.try_push(&raw(990), None).unwrap();
    let waiting: Vec<_> = (1..=3usize)
        .map(|length| {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.push(&raw(300 * length), None).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(outbox.try_push(&raw(1), None), Err(SendError::QueueFull), "others came first");
    write(&outbox);
    advance(Duration::from_secs(1)).await;
    assert_eq!(outbox.queued(), 2, "the third does not fit beside the first two");
    advance(Duration::from_secs(10)).await;
    let [first, second, third] = waiting.try_into().unwrap();
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(false), Ok(false)));
    assert_eq!(third.await.unwrap(), Err(SendError::TimedOut { after: Duration::from_secs(10) }));
    assert_eq!(outbox.lock().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_sender_learns_of_the_end() {
    let outbox = with_credit();
    outbox.try_push(&raw(990), None).unwrap();
    let waiting = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.push(&raw(100), None).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(outbox.end(&SendError::Closed, EndedBy::Break), 1);
    assert_eq!(waiting.await.unwrap(), Err(SendError::Closed));
    assert!(matches!(outbox.next(usize::MAX, Now::ZERO, &mut Vec::new()), Next::Ended));
}

#[test]
fn a_peer_that_accounts_for_a_write_before_it_is_done_breaks_no_count() {
    let (outbox, budget) = outbox(config(), true, 1 << 20);
    let mut receipt = confirmed(&outbox, 99);
    let mut out = Vec::new();
    let Next::Write(taken) = outbox.next(usize::MAX, Now::ZERO, &mut out) else { panic!("nothing to write") };
    assert_eq!(outbox.hear(&account(100, 1, 16_384), Now::ZERO), Ok(100));
    outbox.written(taken, 40, &out);
    outbox.end(&broken(), EndedBy::Break);
    assert_eq!(outbox.settle(&broken(), EndedBy::Break).unknown, 0);
    assert_eq!((receipt.0.try_recv(), budget.used()), (Ok(Verdict::Delivered), 0));
}

/// Contract C-14.
#[test]
fn a_message_that_has_begun_to_leave_keeps_no_newer_one_out_and_nothing_is_dropped_for_one_without_memory() {
    let latest = || config().send_queue(1000, 1).overflow(Overflow::DropOldest);
    let (outbox, budget) = outbox(latest(), true, 5000);
    let mut receipts = vec![confirmed(&outbox, 900)];
    let Next::Write(taken) = outbox.next(100, Now::ZERO, &mut Vec::new()) else { panic!("nothing to write") };
    assert_eq!((taken.bytes, taken.messages), (100, 0), "the peer's credit ends within it");
    for length in [900, 950, 20] {
        receipts.push(confirmed(&outbox, length));
        assert_eq!(outbox.levels().queued_messages, 2, "the one that has begun, and the newest");
    }
    let dropped = Ok(Verdict::Refused(SendError::Dropped));
    assert_eq!([receipts[1].0.try_recv(), receipts[2].0.try_recv()], [dropped.clone(), dropped]);
    // Others hold the rest of the memory: what there is goes to the newest, and when that is too large, the one before it stays.
    let mut others = Reservation::new([budget.clone()].into());
    others.resize(budget.free()).unwrap();
    outbox.lock().memory.resize(902 + 22).unwrap();
    others.resize(others.bytes() + budget.free()).unwrap();
    assert_eq!(
        outbox.try_push(&raw(500), None),
        Err(SendError::NoMemory { limit: "test_bytes", most: 5000 })
    );
    assert_eq!(outbox.levels().queued_messages, 2);
    receipts.push(confirmed(&outbox, 19));
    assert_eq!(receipts[3].0.try_recv(), Ok(Verdict::Refused(SendError::Dropped)));
    assert_eq!(write(&outbox), Taken { bytes: 802 + 20, messages: 2, rest: 802 });
    outbox.hear(&account(902 + 20, 2, 16_384), Now::ZERO).unwrap();
    assert_eq!(
        [receipts[0].0.try_recv(), receipts[4].0.try_recv()],
        [Ok(Verdict::Delivered), Ok(Verdict::Delivered)]
    );
}

/// Five peers that read nothing: what waits for each of them is one and the same payload.
#[test]
fn a_payload_that_goes_to_several_peers_is_held_once() {
    for length in [1 << 20, crate::channel::queue::MIN_SHARED] {
        let message = Blocks::default().share(raw(length).0);
        let payloads: Vec<_> = (0..5)
            .map(|_| {
                let outbox = outbox(ChannelConfig::new("/test/1"), true, 4 << 20).0;
                outbox.try_push_shared(&message, None).unwrap();
                let mut out = Vec::new();
                outbox.next(usize::MAX, Now::ZERO, &mut out);
                out.pop().unwrap().as_ptr_range().end
            })
            .collect();
        assert!(payloads.iter().all(|payload| *payload == payloads[0]), "it was copied: {payloads:?}");
    }
}
