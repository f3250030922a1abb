//! What crosses the wire: the older form without accounts, the newer one, and peers that break it.

use bytes::Bytes;
use peerage::{ChannelConfig, NetworkSecret, Node, Raw, SendError, Verdict};
use peerage_transport::{ReadError, StreamCode};
use peerage_wire::channel::Account;
use peerage_wire::frame;

use crate::common::{builder, join, pair, raw, within};
use crate::support::{Handmade, UNKNOWN_FIELDS, framed};

const NAME: &str = "/test/forms/1";

/// a node of the older version hears messages and nothing else, and is heard.
/// Contract C-13.
#[tokio::test]
async fn a_node_of_the_older_form_exchanges_messages_and_hears_nothing_else() {
    let node = builder().start().await.unwrap();
    let channel = node.channel::<Raw>(ChannelConfig::new(NAME)).unwrap();
    let old = Handmade::connect(&node, &[1], &[NAME]).await;
    let about = node.peers().get(old.id).unwrap().about;
    assert_eq!((about.version, about.channels[0].max_message_bytes), (1, 1 << 20));
    assert_eq!(about.channels[0].class, None);

    let mut outgoing = old.connection.open_lazy(NAME).await.unwrap();
    for text in ["one", "", "three"] {
        outgoing.send.write_chunk(framed(text.as_bytes())).await.unwrap();
    }
    for text in ["one", "", "three"] {
        assert_eq!(within("a message", channel.recv()).await, Some((old.id, raw(text))));
    }
    outgoing.send.finish().unwrap();
    let rest = within("the end of the other half", outgoing.recv.read_chunk(100)).await;
    assert_eq!(rest, Ok(None), "nothing is said beside the name");

    let hello = raw("hello");
    let sending = channel.send(old.id, &hello);
    let hearing = async {
        let mut stream = old.accept(NAME).await;
        assert_eq!(stream.recv.read_chunk(100).await.unwrap().unwrap(), framed(b"hello"));
        stream
    };
    let (sent, mut incoming) =
        within("a message", async { Box::pin(async { tokio::join!(sending, hearing) }).await }).await;
    sent.unwrap();
    // Much more than the credit that newer nodes begin with.
    let much = Raw(Bytes::from(vec![5; 1 << 20]));
    channel.send(old.id, &much).await.unwrap();
    assert_eq!(within("a large one", incoming.recv.read_frame(1 << 20)).await.unwrap().unwrap(), much.0);
    let verdict = channel.send_confirmed(old.id, &raw("sure?")).await;
    assert_eq!(verdict, Verdict::Refused(SendError::NotConfirmed { peer: old.id }));
}

/// a node of a later version, which says more than we know in hello, answer and account, is spoken to in the newest version of ours.
#[tokio::test]
async fn a_later_version_with_fields_that_nobody_knows_is_understood() {
    let node = builder().start().await.unwrap();
    let channel = node.channel::<Raw>(ChannelConfig::new(NAME)).unwrap();
    let later = Handmade::connect(&node, &[2, 3, 9], &[NAME]).await;
    assert_eq!(node.peers().get(later.id).unwrap().about.version, 2);
    let mut stream = later.connection.open_lazy(NAME).await.unwrap();
    stream.send.write_chunk(framed(b"there")).await.unwrap();
    assert_eq!(within("a message", channel.recv()).await, Some((later.id, raw("there"))));
    let _: Account = within("an account", stream.recv.read_message(512)).await.unwrap().unwrap();

    let receipt = channel.queue_confirmed(later.id, &raw("back")).await.unwrap();
    let mut incoming = later.accept(NAME).await;
    assert_eq!(within("it", incoming.recv.read_frame(100)).await.unwrap().unwrap(), "back");
    let accepted = Account { accepted: 5, messages: 1, limit: 1 << 16, ..Account::default() };
    let account = [&prost::Message::encode_to_vec(&accepted)[..], UNKNOWN_FIELDS].concat();
    incoming.send.write_chunk(framed(&account)).await.unwrap();
    assert_eq!(within("a verdict", receipt).await, Verdict::Delivered);
}

#[tokio::test]
async fn the_first_account_names_the_limits_and_acceptance_and_credit_come_back_on_the_stream() {
    let node = builder().start().await.unwrap();
    let channel = node.channel::<Raw>(ChannelConfig::control(NAME).messages_per_second(500)).unwrap();
    let new = Handmade::connect(&node, &[2, 3], &[NAME]).await;
    let mut stream = new.connection.open_lazy(NAME).await.unwrap();
    stream.send.write_chunk(framed(&[1; 5000])).await.unwrap();
    let first: Account = within("an account", stream.recv.read_message(512)).await.unwrap().unwrap();
    let limits = first.limits.unwrap();
    assert_eq!((limits.max_message_bytes, limits.class, limits.messages_per_second), (65_536, 1, 500));
    assert_eq!(first.limit, 16 * 1024);
    let mut last = first;
    while last.accepted < 5002 {
        last = within("an account", stream.recv.read_message(512)).await.unwrap().unwrap();
    }
    assert_eq!((last.accepted, last.messages, last.limit), (5002, 1, 16 * 1024), "nothing was taken yet");
    // A message beyond the credit gets room as soon as its length is read, whatever the application does.
    stream.send.write_chunk(frame::prefix(60_000)).await.unwrap();
    let room: Account = within("room", stream.recv.read_message(512)).await.unwrap().unwrap();
    assert_eq!(room.limit, 5002 + 3 + 60_000);
    stream.send.write_chunk(Bytes::from(vec![2; 60_000])).await.unwrap();
    // What the application takes comes back as credit.
    for length in [5000, 60_000] {
        assert_eq!(within("a message", channel.recv()).await.unwrap().1.0.len(), length);
    }
    while last.limit <= room.limit || last.accepted < 65_005 {
        last = within("credit", stream.recv.read_message(512)).await.unwrap().unwrap();
    }
    drop(channel);
    let end = loop {
        let account: Account = within("the end", stream.recv.read_message(512)).await.unwrap().unwrap();
        if let Some(end) = account.end {
            break end;
        }
    };
    assert_eq!(end.reason, 1);
}

/// a peer that breaks the rules loses the stream, after what was right before it, and keeps the connection.
/// Contract C-17.
#[tokio::test]
async fn a_peer_that_breaks_the_rules_loses_its_stream_and_no_more() {
    let node = builder().start().await.unwrap();
    let channel = node
        .channel::<Raw>(ChannelConfig::new(NAME).max_message_bytes(1000).receive_queue(2000, 20))
        .unwrap();
    let peer = Handmade::connect(&node, &[2], &[NAME]).await;
    let cases = [
        (vec![0xe9, 0x07], 2, StreamCode::TooLarge),
        (vec![0x81, 0x00], 3, StreamCode::ProtocolViolation),
        (vec![0; 20_000], 3, StreamCode::ProtocolViolation),
    ];
    for (wrong, reason, code) in cases {
        let mut stream = peer.connection.open_lazy(NAME).await.unwrap();
        let said = [&framed(b"good")[..], &wrong].concat();
        stream.send.write_chunk(said.into()).await.unwrap();
        let end = loop {
            let account: Account =
                within("an account", stream.recv.read_message(512)).await.unwrap().unwrap();
            if let Some(end) = account.end {
                break end;
            }
        };
        assert_eq!(end.reason, reason, "{}", end.detail);
        let stopped = within("a stop", stream.send.stopped()).await.unwrap();
        assert_eq!(stopped, Some(code));
    }
    let kept: Vec<_> = std::iter::from_fn(|| channel.try_recv()).map(|(_, message)| message).collect();
    assert_eq!(kept[..4], [raw("good"), raw("good"), raw("good"), raw("")]);
    assert_eq!(kept.len(), 20, "no more than the bound");
    within("a ping", node.peers().get(peer.id).map_or_else(|| panic!("gone"), std::future::ready)).await;
}

#[tokio::test]
async fn a_third_stream_of_one_channel_is_refused_and_accounts_that_lie_end_the_stream() {
    let node = builder().start().await.unwrap();
    let channel = node.channel::<Raw>(ChannelConfig::new(NAME)).unwrap();
    let peer = Handmade::connect(&node, &[2], &[NAME]).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = peer.connection.open(NAME).await.unwrap();
        let _: Account = within("an account", stream.recv.read_message(512)).await.unwrap().unwrap();
        streams.push(stream);
    }
    let mut third = peer.connection.open(NAME).await.unwrap();
    let refused = within("a refusal", third.recv.read_message::<Account>(512)).await;
    assert!(
        matches!(refused, Err(ReadError::Reset { code: StreamCode::Overloaded } | ReadError::Negotiation(_))),
        "{refused:?}"
    );

    let receipt = channel.queue_confirmed(peer.id, &raw("hello")).await.unwrap();
    let mut incoming = peer.accept(NAME).await;
    let lie = Account { accepted: 1_000_000, messages: 1, limit: 1 << 30, ..Account::default() };
    incoming.send.write_frame(&lie).await.unwrap();
    let verdict = within("a verdict", receipt).await;
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
}

/// As many channels as a hello lists, with names as long as they may be, are more than a hello holds.
#[tokio::test]
async fn nodes_with_more_channels_than_a_hello_holds_meet_and_use_them_all() {
    let name = |number: usize| format!("/test/{number:0>250}");
    let secret = || NetworkSecret::new("a secret of some length").unwrap();
    let open = (builder().start().await.unwrap(), builder().start().await.unwrap());
    let private = || builder().network_secrets([secret()]).start();
    for (a, b) in [open, (private().await.unwrap(), private().await.unwrap())] {
        let declare = |node: &Node| -> Vec<_> {
            (0..200).map(|number| node.channel::<Raw>(ChannelConfig::new(name(number))).unwrap()).collect()
        };
        let (at_a, at_b) = (declare(&a), declare(&b));
        join(&a, &b).await;
        let told = a.peers().get(b.peer_id()).unwrap().about.channels.len();
        assert!((40..128).contains(&told), "{told} channels were listed");
        for number in [0, told, 199] {
            let sent = within("a verdict", at_a[number].send_confirmed(b.peer_id(), &raw("hello"))).await;
            assert_eq!(sent, Verdict::Delivered);
            assert_eq!(within("it", at_b[number].recv()).await, Some((a.peer_id(), raw("hello"))));
        }
    }
}

/// Runs of one peer, turns of several, the bound, and the end.
#[tokio::test]
async fn many_messages_are_received_at_once_in_order_and_none_is_lost() {
    let (hub, first) = pair().await;
    let second = builder().start().await.unwrap();
    join(&second, &hub).await;
    let config = || ChannelConfig::new("/test/many/1");
    let at_hub = hub.channel::<Raw>(config()).unwrap();
    let senders = [&first, &second].map(|node| node.channel::<Raw>(config()).unwrap());
    let number = |n: u32| Raw(Bytes::copy_from_slice(&n.to_be_bytes()));
    let (mut got, mut some) = (Vec::new(), Vec::new());
    assert_eq!(at_hub.recv_many(&mut some, 0).await, None, "none are asked for");
    for n in 0..3000 {
        for sender in &senders {
            assert!(sender.send_confirmed(hub.peer_id(), &number(n)).await.is_delivered());
        }
        if n == 0 {
            // Both have messages: they take turns.
            for _ in &senders {
                let peer = within("one", at_hub.recv_many(&mut some, 7)).await.unwrap();
                got.push((peer, some.pop().unwrap()));
                assert!(some.is_empty());
            }
            assert_ne!(got[0].0, got[1].0);
        }
    }
    let mut turns = Vec::new();
    while got.len() < 6000 {
        let peer = within("more", at_hub.recv_many(&mut some, 500)).await.unwrap();
        assert!((1..=500).contains(&some.len()));
        got.extend(some.drain(..).map(|message| (peer, message)));
        turns.push(peer);
    }
    assert!(turns.windows(2).take(8).all(|turns| turns[0] != turns[1]), "by the call");
    for node in [&first, &second] {
        let of_node: Vec<_> =
            got.iter().filter(|(peer, _)| *peer == node.peer_id()).map(|(_, m)| m).collect();
        assert!(of_node.into_iter().eq((0..3000).map(number).collect::<Vec<_>>().iter()));
    }
    hub.close().await;
    assert_eq!(within("the end", at_hub.recv_many(&mut some, 5)).await, None);
}
