//! Promises of CONTRACT.md that no other test proves: what a break, a restart and a change of class do to what is under way.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use peerage::{
    BanTarget, Change, ChannelConfig, NodeBuilder, NodeKey, PeerEvent, PeerId, Raw, RequestError, ServeError,
    Verdict, Watch,
};

mod common;

use common::{join, within};

fn builder() -> NodeBuilder {
    common::builder().max_outbound(0)
}

fn numbered(number: u32, bytes: usize) -> Raw {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(bytes, 0);
    Raw(Bytes::from(body))
}

fn number(message: &Raw) -> u32 {
    u32::from_be_bytes(message.0[..4].try_into().unwrap())
}

/// Contract C-3, C-14.
#[tokio::test]
async fn every_class_keeps_order_and_delivers_once_and_only_the_latest_drops() {
    const COUNT: u32 = 2000;
    let (a, b) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    join(&a, &b).await;
    for preset in [ChannelConfig::new, ChannelConfig::control, ChannelConfig::bulk, ChannelConfig::latest] {
        let config = || preset("/test/class/1");
        let (at_a, at_b) = (a.channel::<Raw>(config()).unwrap(), b.channel::<Raw>(config()).unwrap());
        let sender = at_a.to(b.peer_id()).unwrap();
        let sending = async {
            let mut receipts = Vec::new();
            for number in 0..COUNT {
                receipts.push(sender.queue_confirmed(&numbered(number, 2000)).await.unwrap());
            }
            futures::future::join_all(receipts).await
        };
        let receiving = async {
            let mut got = Vec::new();
            while got.last() != Some(&(COUNT - 1)) {
                got.push(number(&at_b.recv().await.unwrap().1));
            }
            got
        };
        let (verdicts, got) = within("all verdicts", async { tokio::join!(sending, receiving) }).await;
        assert!(got.is_sorted_by(|a, b| a < b), "in order, and each once");
        for (number, verdict) in (0..COUNT).zip(&verdicts) {
            assert_eq!(verdict.is_delivered(), got.binary_search(&number).is_ok(), "{number}: {verdict}");
        }
        let drops = at_a.totals().dropped;
        assert_eq!(got.len() as u64 + drops, u64::from(COUNT));
        assert!(drops == 0 || config() == ChannelConfig::latest("/test/class/1"), "{drops} dropped");
    }
}

/// Contract C-15, C-18.
#[tokio::test]
async fn what_was_sent_to_an_earlier_start_is_told_and_never_reaches_the_next_one() {
    let hub = builder().start().await.unwrap();
    let config = || {
        ChannelConfig::new("/test/again/1")
            .max_message_bytes(1000)
            .send_queue(64 * 1000, 64)
            .receive_queue(8000, 8)
    };
    let at_hub = hub.channel::<Raw>(config()).unwrap();
    let key = NodeKey::generate();
    let first = builder().key(key.clone()).start().await.unwrap();
    let _unread = first.channel::<Raw>(config()).unwrap();
    join(&first, &hub).await;
    // More than the first start takes while it reads nothing.
    let sender = at_hub.to(key.peer_id()).unwrap();
    let mut receipts = Vec::new();
    for number in 0..40 {
        receipts.push(within("room", sender.queue_confirmed(&numbered(number, 900))).await.unwrap());
    }
    // The next start comes while the first is still there: to the hub that is a restart whose end it has not noticed.
    let second = builder().key(key).start().await.unwrap();
    let channel = second.channel::<Raw>(config()).unwrap();
    within("the second start", second.connect(&hub.listen_addresses()[0])).await.unwrap();
    let verdicts = within("verdicts", futures::future::join_all(receipts)).await;
    let (mut rank, mut delivered) = (0, 0);
    for verdict in &verdicts {
        let next = match verdict {
            Verdict::Delivered => 0,
            Verdict::Unknown(_) => 1,
            Verdict::Lost(_) => 2,
            Verdict::Refused(error) => panic!("{error}"),
        };
        assert!(next >= rank, "a later message had a better fate");
        rank = next;
        delivered += usize::from(next == 0);
    }
    assert!((1..=8).contains(&delivered) && rank == 2, "{delivered} delivered: {:?}", verdicts.last());
    let fresh = numbered(1000, 4);
    within("a send to the second start", async {
        while at_hub.send(second.peer_id(), &fresh).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(number(&within("its first message", channel.recv()).await.unwrap().1), 1000);
    assert_eq!(channel.try_recv(), None);
}

/// Contract C-38.
#[tokio::test]
async fn closing_ends_in_time_and_counts_what_was_lost() {
    let (a, deaf) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    let config = || {
        ChannelConfig::new("/test/deaf/1")
            .max_message_bytes(1000)
            .send_queue(64 * 1000, 64)
            .receive_queue(8000, 8)
    };
    let (at_a, _unread) = (a.channel::<Raw>(config()).unwrap(), deaf.channel::<Raw>(config()).unwrap());
    join(&a, &deaf).await;
    let sender = at_a.to(deaf.peer_id()).unwrap();
    let mut receipts = Vec::new();
    for number in 0..40 {
        receipts.push(within("room", sender.queue_confirmed(&numbered(number, 900))).await.unwrap());
    }
    let start = std::time::Instant::now();
    let end = within("the close", a.close()).await;
    let took = start.elapsed().as_secs_f64();
    // That it takes no longer than promised is tested where time is virtual.
    assert!(took >= 1.9, "it gave the peer two seconds: {took}");
    let verdicts = within("verdicts", futures::future::join_all(receipts)).await;
    let count = |is: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| is(verdict)).count() as u64;
    let (lost, unknown) =
        (count(|v| matches!(v, Verdict::Lost(_))), count(|v| matches!(v, Verdict::Unknown(_))));
    assert!(lost >= 20, "{lost} of 40 lost where 8 fit");
    assert_eq!((end.lost_messages, end.unknown_messages, end.unfinished_tasks), (lost, unknown, 0));
}

/// Contract C-23.
#[tokio::test]
async fn a_request_that_is_cut_off_is_told_and_never_asked_again() {
    let (server, client) = (builder().start().await.unwrap(), builder().start().await.unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (began, mut begins) = tokio::sync::mpsc::channel(4);
    let count = asked.clone();
    server
        .serve("/test/once/1", move |_, _: Raw| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = began.try_send(());
            std::future::pending::<Result<Raw, ServeError>>()
        })
        .unwrap();
    join(&client, &server).await;
    let to: PeerId = server.peer_id();
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.request::<Raw, Raw>(to, "/test/once/1", &numbered(1, 4)).await }
    });
    within("the handler", begins.recv()).await.unwrap();
    server.peers().disconnect(client.peer_id()).await;
    let answer = within("the end", asking).await.unwrap();
    assert!(matches!(answer, Err(RequestError::Lost { .. })), "{answer:?}");
    join(&client, &server).await;
    within("a ping over the new connection", client.ping(to)).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Contract C-32.
#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_how_much_it_missed() {
    let node = builder().start().await.unwrap();
    let (mut slow, mut diligent) = (node.peers().watch().await.unwrap(), node.peers().watch().await.unwrap());
    let target = BanTarget::Peer(NodeKey::generate().peer_id());
    let mut all = Vec::new();
    for _ in 0..600 {
        node.peers().ban(target, "a test", None).await.unwrap();
        take_until_ban_of(target, &mut diligent, &mut all).await;
        assert!(node.peers().unban(target).await);
    }
    let last = BanTarget::Peer(NodeKey::generate().peer_id());
    node.peers().ban(last, "a test", None).await.unwrap();
    take_until_ban_of(last, &mut diligent, &mut all).await;
    let Some(Change::Missed(missed)) = slow.next().await else { panic!("nothing was missed") };
    let mut rest = Vec::new();
    take_until_ban_of(last, &mut slow, &mut rest).await;
    assert_eq!(rest.len(), 1024);
    assert!(
        rest == all[missed as usize..],
        "each event is told, or among the first {missed} of {}",
        all.len()
    );
}

/// Takes what comes, the next ban of this target included.
async fn take_until_ban_of(target: BanTarget, watch: &mut Watch, into: &mut Vec<PeerEvent>) {
    loop {
        let change = within("a ban", watch.next()).await.unwrap();
        let Change::Event(event) = change else { panic!("it was read in time") };
        let is_it = matches!(&event, PeerEvent::Banned { ban } if ban.target == target);
        into.push(event);
        if is_it {
            return;
        }
    }
}
