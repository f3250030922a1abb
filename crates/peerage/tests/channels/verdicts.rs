//! Verdicts, limits that differ, and channels that come and go.

use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, Class, Overflow, Raw, SendError, Verdict};

use crate::common::{builder, join, pair, raw, within};

/// Contract C-4.
#[tokio::test]
async fn a_confirmed_message_is_in_the_peers_queue_and_many_can_be_on_their_way() {
    let (a, b) = pair().await;
    let config = || ChannelConfig::new("/test/sure/1");
    let (at_a, at_b) = (a.channel::<Raw>(config()).unwrap(), b.channel::<Raw>(config()).unwrap());
    let verdict = within("a verdict", at_a.send_confirmed(b.peer_id(), &raw("first"))).await;
    assert_eq!(verdict, Verdict::Delivered);
    assert_eq!(at_b.try_recv(), Some((a.peer_id(), raw("first"))), "delivered means that it is there");
    let sender = at_a.to(b.peer_id()).unwrap();
    let mut receipts = Vec::new();
    for number in 0..5000u32 {
        receipts.push(sender.queue_confirmed(&Raw(number.to_be_bytes().to_vec().into())).await.unwrap());
    }
    let verdicts = within("5,000 verdicts", futures::future::join_all(receipts)).await;
    assert!(verdicts.iter().all(Verdict::is_delivered));
    for number in 0..5000u32 {
        assert_eq!(at_b.try_recv().unwrap().1.0, number.to_be_bytes()[..]);
    }
    let (sent, received) = (at_a.totals(), at_b.totals());
    assert_eq!((sent.sent, sent.delivered, received.received, sent.lost), (5001, 5001, 5001, 0));
}

#[tokio::test]
async fn a_message_larger_than_any_window_gets_through() {
    let (a, b) = pair().await;
    let config = || ChannelConfig::new("/test/large/1").max_message_bytes(3 << 20);
    let (at_a, at_b) = (a.channel::<Raw>(config()).unwrap(), b.channel::<Raw>(config()).unwrap());
    for length in [3 << 20, 100_000, 0, (3 << 20) - 1] {
        let message = Raw(Bytes::from(vec![9; length]));
        let verdict = within("a large message", at_a.send_confirmed(b.peer_id(), &message)).await;
        assert_eq!(verdict, Verdict::Delivered, "{length}");
        assert_eq!(within("it", at_b.recv()).await, Some((a.peer_id(), message)));
    }
}

/// Contract C-6.
#[tokio::test]
async fn limits_that_differ_are_reported_by_name_and_cost_no_connection() {
    let (a, b) = pair().await;
    let at_a = a.channel::<Raw>(ChannelConfig::new("/test/narrow/1")).unwrap();
    // Declared after the two have met, with another class and a smaller bound.
    let narrow = ChannelConfig::new("/test/narrow/1").class(Class::Bulk).max_message_bytes(100);
    let at_b = b.channel::<Raw>(narrow.clone()).unwrap();
    at_a.send(b.peer_id(), &raw("small")).await.unwrap();
    let status = at_a.status(b.peer_id()).unwrap();
    assert_eq!(status.limits.unwrap().max_message_bytes, 100);
    assert!(status.differences.contains("100 bytes at most"), "{}", status.differences);
    assert!(status.differences.contains("bulk, here normal"), "{}", status.differences);
    let large = Raw(Bytes::from(vec![0; 101]));
    let refused = at_a.send(b.peer_id(), &large).await.unwrap_err();
    let SendError::TooLarge { length: 101, most: 100, at: Some(peer), .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!(peer, b.peer_id());
    assert_eq!(at_a.try_send(b.peer_id(), &large), Err(refused));
    at_a.send(b.peer_id(), &raw("still")).await.unwrap();
    for text in ["small", "still"] {
        assert_eq!(within("a message", at_b.recv()).await, Some((a.peer_id(), raw(text))));
    }
    // A node that meets the channel in the hello knows the bound before it sends anything.
    let c = builder().start().await.unwrap();
    let at_c = c.channel::<Raw>(ChannelConfig::new("/test/narrow/1")).unwrap();
    join(&c, &b).await;
    assert!(at_c.status(b.peer_id()).unwrap().differences.contains("100 bytes"));
    assert!(matches!(at_c.try_send(b.peer_id(), &large), Err(SendError::TooLarge { most: 100, .. })));
    // Declared anew with a wider bound, it is taken at its new word.
    drop(at_b);
    let wide = b.channel::<Raw>(narrow.max_message_bytes(1000)).unwrap();
    let wider = async {
        // Until the end of the old stream has arrived, its bound holds.
        while let Err(error) = at_c.send(b.peer_id(), &large).await {
            assert!(
                matches!(error, SendError::TooLarge { most: 100, .. } | SendError::NotSupported { .. }),
                "{error}"
            );
        }
    };
    within("the wider bound", wider).await;
    assert_eq!(within("the larger message", wide.recv()).await, Some((c.peer_id(), large)));
}

#[tokio::test]
async fn a_message_too_large_for_a_peer_that_was_not_heard_yet_is_refused_whole() {
    let (a, b) = pair().await;
    let at_a = a.channel::<Raw>(ChannelConfig::new("/test/late/1")).unwrap();
    let at_b = b.channel::<Raw>(ChannelConfig::new("/test/late/1").max_message_bytes(100)).unwrap();
    let verdict = within("a verdict", at_a.send_confirmed(b.peer_id(), &Raw(vec![0; 50_000].into()))).await;
    let Verdict::Refused(SendError::Stopped { detail, .. }) = verdict else { panic!("{verdict}") };
    assert!(detail.contains("50000 bytes") && detail.contains("at most 100"), "{detail}");
    assert_eq!(within("a small one", at_a.send_confirmed(b.peer_id(), &raw("x"))).await, Verdict::Delivered);
    assert_eq!(at_b.try_recv(), Some((a.peer_id(), raw("x"))));
    assert_eq!(at_b.totals().received, 1);
}

#[tokio::test]
async fn a_channel_that_goes_away_refuses_and_one_that_comes_back_takes_again() {
    let (a, b) = pair().await;
    let config = || ChannelConfig::new("/test/comes/1");
    let at_a = a.channel::<Raw>(config()).unwrap();
    let gone = |verdict: Verdict| matches!(verdict, Verdict::Refused(SendError::NotSupported { .. }));
    assert!(gone(within("no channel", at_a.send_confirmed(b.peer_id(), &raw("0"))).await));
    for round in 0..3 {
        let at_b = b.channel::<Raw>(config()).unwrap();
        let message = raw(&round.to_string());
        assert!(within("a verdict", at_a.send_confirmed(b.peer_id(), &message)).await.is_delivered());
        assert_eq!(at_b.recv().await.unwrap().1, message);
        drop(at_b);
        assert!(gone(within("no channel", at_a.send_confirmed(b.peer_id(), &raw("0"))).await));
    }
}

/// a full queue does what its policy says, and drops are counted.
/// Contract C-7.
#[tokio::test]
async fn the_overflow_policy_decides_what_a_full_queue_does() {
    let (a, b) = pair().await;
    let tiny = |name: &str| {
        ChannelConfig::new(name).max_message_bytes(1000).send_queue(8000, 8).receive_queue(8000, 8)
    };
    let message = |number: u32| Raw([&number.to_be_bytes()[..], &[0; 900]].concat().into());
    let waits = tiny("/test/waits/1").overflow(Overflow::Wait(Duration::from_millis(100)));
    let refuses = tiny("/test/refuses/1").overflow(Overflow::Refuse);
    let drops = tiny("/test/drops/1").overflow(Overflow::DropOldest);
    let expected = [
        (waits, Some(SendError::TimedOut { after: Duration::from_millis(100) })),
        (refuses, Some(SendError::QueueFull)),
        (drops, None),
    ];
    for (config, error) in expected {
        let at_b = b.channel::<Raw>(config.clone()).unwrap();
        let at_a = a.channel::<Raw>(config).unwrap();
        let mut first_error = None;
        for number in 0..200 {
            if let Err(error) = within("a send", at_a.send(b.peer_id(), &message(number))).await {
                first_error.get_or_insert(error);
                break;
            }
        }
        assert_eq!(first_error, error, "{}", at_a.name());
        let dropped = at_a.totals().dropped;
        assert_eq!(dropped > 0, error.is_none(), "{}", at_a.name());
        if dropped > 0 {
            let mut last = 0;
            for _ in 0..200 - dropped {
                let number = within("what is left", at_b.recv()).await.unwrap().1.0[..4].try_into().unwrap();
                let number = u32::from_be_bytes(number);
                assert!(number >= last);
                last = number;
            }
            assert_eq!(last, 199, "the newest is never dropped");
        }
    }
}

/// `try_send` is no async function: threads of the application's own may call it, the first one to a peer included.
#[tokio::test]
async fn a_thread_outside_of_the_runtime_may_send() {
    let (a, b) = pair().await;
    let at_a = a.channel::<Raw>(ChannelConfig::new("/test/thread/1")).unwrap();
    let at_b = b.channel::<Raw>(ChannelConfig::new("/test/thread/1")).unwrap();
    let (channel, to) = (at_a.clone(), b.peer_id());
    let sent = std::thread::spawn(move || channel.try_send(to, &raw("from a thread"))).join();
    assert_eq!(sent.unwrap(), Ok(()));
    assert_eq!(within("it", at_b.recv()).await, Some((a.peer_id(), raw("from a thread"))));
    // Nor does a broadcast need the executor that the node runs on, not even the first one on a channel.
    let other = || ChannelConfig::new("/test/executor/1");
    let (at_a, _at_b) = (a.channel::<Raw>(other()).unwrap(), b.channel::<Raw>(other()).unwrap());
    let sending = std::thread::spawn(move || {
        let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
        bare.block_on(at_a.broadcast(&raw("all")))
    });
    let joined = tokio::task::spawn_blocking(move || sending.join().unwrap());
    assert_eq!(within("a broadcast", joined).await.unwrap(), [(to, Ok(()))]);
}

/// Each account is some fifteen bytes and a packet. Talk to and fro has one each millisecond at most, beside the first; a message that nothing answers is
/// accounted for at once.
#[tokio::test]
async fn talk_to_and_fro_is_not_accounted_for_message_by_message() {
    const ROUNDS: u64 = 1000;
    let (a, b) = pair().await;
    let config = || ChannelConfig::new("/test/talk/1");
    let (at_a, at_b) = (a.channel::<Raw>(config()).unwrap(), b.channel::<Raw>(config()).unwrap());
    let echo = tokio::spawn(async move {
        while let Some((peer, message)) = at_b.recv().await {
            at_b.send(peer, &message).await.unwrap();
        }
    });
    let start = std::time::Instant::now();
    for number in 0..ROUNDS {
        let message = Raw(Bytes::copy_from_slice(&number.to_be_bytes()));
        at_a.send(b.peer_id(), &message).await.unwrap();
        assert_eq!(within("the answer", at_a.recv()).await, Some((b.peer_id(), message)));
    }
    let took = start.elapsed().as_millis() as u64;
    let traffic = a.traffic();
    let of_channel = traffic.iter().find(|one| &*one.protocol == "/test/talk/1").unwrap();
    // Nine bytes are a message and its length; a hundred or so the stream's name and the first account.
    let accounts = of_channel.received_bytes - ROUNDS * 9;
    assert!(accounts <= 200 + 2 * 20 * (took + 2), "{accounts} bytes of accounts in {took} ms");
    echo.abort();
}
