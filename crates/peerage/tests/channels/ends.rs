//! Channels that are dropped with something in their queues.

use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, Node, Raw};
use peerage_transport::StreamCode;
use peerage_wire::channel::Account;
use tokio::sync::watch;

use crate::common::{builder, pair, raw, within};
use crate::support::{Handmade, framed};

const NAME: &str = "/test/dropped/1";

/// A message of 1 KiB that begins with its number.
fn numbered(number: u32) -> Raw {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(1024, 0);
    Raw(Bytes::from(body))
}

fn number_of(message: &Raw) -> u32 {
    u32::from_be_bytes(message.0[..4].try_into().unwrap())
}

/// Queues so many messages on a channel that is dropped then. The receiver has read none so far.
async fn drop_with(from: &Node, to: &Node, numbers: std::ops::Range<u32>) {
    let channel = from.channel::<Raw>(ChannelConfig::new(NAME)).unwrap();
    for number in numbers {
        within("room in the queue", channel.send(to.peer_id(), &numbered(number))).await.unwrap();
    }
}

/// Contract C-44.
#[tokio::test]
async fn what_a_dropped_channel_had_queued_is_sent_before_the_node_closes() {
    let (a, b) = pair().await;
    let at_b = b.channel::<Raw>(ChannelConfig::new(NAME)).unwrap();
    drop_with(&a, &b, 0..1000).await;
    let end = within("the close", a.close()).await;
    assert_eq!((end.lost_messages, end.unknown_messages, end.unfinished_tasks), (0, 0, 0));
    for number in 0..1000 {
        assert_eq!(within("a message", at_b.recv()).await.unwrap().1, numbered(number));
    }
}

/// Contract C-3, C-44.
#[tokio::test]
async fn a_channel_that_is_declared_anew_sends_after_the_one_that_was_dropped() {
    let (a, b) = pair().await;
    // It takes little at a time, so that each channel is dropped with much in its queue.
    let at_b =
        b.channel::<Raw>(ChannelConfig::new(NAME).max_message_bytes(2048).receive_queue(8192, 8)).unwrap();
    let sending = async {
        for round in 0..5 {
            drop_with(&a, &b, round * 200..(round + 1) * 200).await;
        }
    };
    let receiving = async {
        for number in 0..1000 {
            assert_eq!(within("a message", at_b.recv()).await.unwrap().1, numbered(number));
        }
    };
    tokio::join!(sending, receiving);
}

/// Contract C-3. The receiver has read more than it has room for when the stream is cut off.
#[tokio::test]
async fn nothing_of_a_channel_that_was_cut_off_comes_after_its_successor() {
    let (a, b) = pair().await;
    let at_b = b
        .channel::<Raw>(ChannelConfig::new(NAME).max_message_bytes(2048).receive_queue(4 << 20, 10))
        .unwrap();
    let rounds = 20;
    // The sender says how far the receiver may take, and cuts its channel off when the receiver is there, each time at another place.
    let (allow, mut allowed) = watch::channel(None);
    let (tell, mut told) = watch::channel(0);
    let sending = async {
        for round in 0..rounds {
            let channel = a.channel::<Raw>(ChannelConfig::new(NAME).linger(Duration::ZERO)).unwrap();
            for number in round * 100..(round + 1) * 100 {
                within("room in the queue", channel.send(b.peer_id(), &numbered(number))).await.unwrap();
            }
            let place = round * 100 + round * 13 % 50;
            allow.send_replace(Some(place));
            within("the receiver", told.wait_for(|next| *next > place)).await.unwrap();
        }
        let last = a.channel::<Raw>(ChannelConfig::new(NAME)).unwrap();
        last.send(b.peer_id(), &numbered(rounds * 100)).await.unwrap();
        allow.send_replace(Some(rounds * 100));
        last
    };
    let receiving = async {
        let (mut next, mut got) = (0, 0);
        while next <= rounds * 100 {
            let ahead = allowed.wait_for(|place| place.is_some_and(|place| place >= next));
            within("leave to take one", ahead).await.unwrap();
            let number = number_of(&within("a message", at_b.recv()).await.unwrap().1);
            assert!(number >= next, "{number} came after {}", next - 1);
            (next, got) = (number + 1, got + 1);
            tell.send_replace(next);
        }
        got
    };
    let (last, got) = tokio::join!(sending, receiving);
    assert!(got > rounds && got < rounds * 100, "{got} came");
    drop(last);
}

/// Contract C-3. The first of two streams has more to say than there is room for, and is cut off.
#[tokio::test]
async fn a_later_stream_of_a_connection_overtakes_nothing_and_what_was_cut_off_does_not_follow_it() {
    let node = builder().start().await.unwrap();
    let room_for_ten = ChannelConfig::new(NAME).max_message_bytes(2048).receive_queue(4 << 20, 10);
    let channel = node.channel::<Raw>(room_for_ten).unwrap();
    let peer = Handmade::connect(&node, &[2], &[NAME]).await;
    let mut first = peer.connection.open_lazy(NAME).await.unwrap();
    let all: Vec<u8> = (0..14).flat_map(|number| framed(&numbered(number).0)).collect();
    first.send.write_chunk(all.into()).await.unwrap();
    within("a full lane", async {
        let mut accepted = 0;
        while accepted < 10 {
            accepted = first.recv.read_message::<Account>(512).await.unwrap().unwrap().messages;
        }
    })
    .await;
    assert_eq!(channel.totals().received, 10);
    let next = async || number_of(&within("a message", channel.recv()).await.unwrap().1);
    assert_eq!(next().await, 0);
    // There is room for one, but it is not its turn.
    let mut second = peer.connection.open_lazy(NAME).await.unwrap();
    second.send.write_chunk(framed(&numbered(14).0)).await.unwrap();
    let _: Account = within("an account", second.recv.read_message(512)).await.unwrap().unwrap();
    first.send.reset(StreamCode::Cancelled);
    let mut last = 0;
    while last < 14 {
        let number = next().await;
        assert!(number > last, "{number} came after {last}");
        last = number;
    }
    second.send.write_chunk(framed(&numbered(15).0)).await.unwrap();
    assert_eq!(next().await, 15, "nothing came after what was sent later");
}

/// Contract C-44.
#[tokio::test]
async fn a_dropped_channel_lingers_no_longer_than_it_was_told_to() {
    let (a, b) = pair().await;
    let config = || ChannelConfig::new(NAME).max_message_bytes(2048).receive_queue(8192, 8);
    let unread = b.channel::<Raw>(config()).unwrap();
    let channel = a.channel::<Raw>(config().linger(Duration::from_millis(300))).unwrap();
    let mut receipts = Vec::new();
    for number in 0..500 {
        receipts.push(channel.queue_confirmed(b.peer_id(), &numbered(number)).await.unwrap());
    }
    drop(channel);
    let verdicts = within("the verdicts", futures::future::join_all(receipts)).await;
    let delivered = verdicts.iter().filter(|verdict| verdict.is_delivered()).count() as u64;
    assert!(delivered < 500, "the receiver took all");
    assert!(unread.totals().received >= delivered, "what was delivered had come");
    let end = within("the close", a.close()).await;
    assert_eq!(end.lost_messages + end.unknown_messages, 500 - delivered);
}

/// The plainest peer tells nothing: what it was sent is not cut off.
#[tokio::test]
async fn a_dropped_channel_ends_its_stream_in_order_towards_a_peer_of_the_older_form() {
    let node = builder().start().await.unwrap();
    let peer = Handmade::connect(&node, &[1], &[NAME]).await;
    let channel = node.channel::<Raw>(ChannelConfig::new(NAME)).unwrap();
    let reading = async {
        let mut stream = peer.accept(NAME).await;
        let mut got = Vec::new();
        while let Some(message) = stream.recv.read_frame(1 << 20).await.unwrap() {
            got.push(message);
        }
        got
    };
    let sending = async {
        channel.send(peer.id, &raw("first")).await.unwrap();
        channel.send(peer.id, &raw("last")).await.unwrap();
        drop(channel);
    };
    let (got, ()) = within("the end of the stream", Box::pin(async { tokio::join!(reading, sending) })).await;
    assert_eq!(got, [&b"first"[..], b"last"]);
}
