//! Listen addresses that come and go, and machines that move to other networks.

use std::time::Duration;

use bytes::Bytes;
use peerage::{Change, Channel, ChannelConfig, Direction, ListenError, Node, PeerEvent, PeerId, Raw, Watch};

use crate::clock::{pass, within};
use crate::network::{Machine, World};

const WILDCARD: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";

async fn start(machine: &std::sync::Arc<Machine>, listen: &[&str]) -> (Node, Channel<Raw>) {
    let builder =
        listen.iter().fold(machine.node().max_outbound(0), |builder, address| builder.listen(address));
    let node = builder.start().await.unwrap();
    let channel = node.channel::<Raw>(ChannelConfig::new("/numbers/1")).unwrap();
    (node, channel)
}

fn texts(node: &Node) -> Vec<String> {
    let bare = |address: peerage::DialAddress| address.without_peer_id().to_string();
    node.listen_addresses().into_iter().map(bare).collect()
}

/// Waits until `node` is told that `peer` is connected.
async fn connected(watch: &mut Watch, peer: PeerId) -> Direction {
    loop {
        if let Change::Event(PeerEvent::Connected { peer: who, direction, .. }) = watch.next().await.unwrap()
            && who == peer
        {
            return direction;
        }
    }
}

/// Waits until the peer has said by identify that it listens at `address`.
async fn heard(node: &Node, peer: PeerId, address: &str) {
    within("an identify push", async {
        let told = |info: peerage::PeerInfo| info.about.listen.iter().any(|known| known.contains(address));
        while !node.peers().get(peer).is_some_and(told) {
            pass(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Sends the numbers from `first` to `last`, a hundred a second.
async fn count(channel: &Channel<Raw>, to: PeerId, numbers: std::ops::Range<u32>) {
    for number in numbers {
        channel.send(to, &Raw(Bytes::copy_from_slice(&number.to_be_bytes()))).await.unwrap();
        pass(Duration::from_millis(10)).await;
    }
}

/// Receives them, each once and in order.
async fn follow(channel: &Channel<Raw>, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let (_, message) = channel.recv().await.unwrap();
        assert_eq!(message.0, number.to_be_bytes()[..]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_can_be_added_and_removed_while_the_node_runs_and_connected_peers_are_told() {
    let world = World::new();
    let (machine, other) = (world.machine(1, &["10.0.0.1", "10.0.0.3"]), world.machine(2, &["10.0.0.2"]));
    let ((a, _), (b, _)) = (start(&machine, &[]).await, start(&other, &[WILDCARD]).await);
    assert_eq!(texts(&a), Vec::<String>::new());
    a.connect(&b.listen_addresses()[0]).await.unwrap();
    let mut watch = a.watch_listen_addresses();

    let bound = a.listen("/ip4/10.0.0.1/udp/0/quic-v1").await.unwrap();
    assert_ne!(bound.port(), 0);
    assert_eq!(texts(&a), [bound.to_string()]);
    assert_eq!(watch.next().await.unwrap(), a.listen_addresses());
    heard(&b, a.peer_id(), "10.0.0.1").await;
    let third = world.machine(3, &["10.0.0.4"]);
    let (c, _) = start(&third, &[]).await;
    within("a dial to the new address", c.connect(&a.listen_addresses()[0])).await.unwrap();

    let taken = a.listen(bound).await.unwrap_err();
    assert!(matches!(taken, ListenError::AlreadyListening { .. }), "{taken}");
    let missing = a.listen("/ip4/10.9.9.9/udp/1/quic-v1").await.unwrap_err();
    assert!(matches!(missing, ListenError::Bind(_)) && missing.to_string().contains("10.9.9.9"), "{missing}");
    let second = a.listen("/ip4/10.0.0.3/udp/7/quic-v1").await.unwrap();
    heard(&b, a.peer_id(), "10.0.0.3").await;
    a.stop_listening(bound).await.unwrap();
    assert_eq!(texts(&a), [second.to_string()]);
    let again = a.stop_listening(bound).await.unwrap_err();
    assert!(again.to_string().contains("/ip4/10.0.0.3/udp/7"), "{again}");
    within("a ping over the connection that came there", c.ping(a.peer_id())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn listen_addresses_are_bounded() {
    let (node, _) = start(&World::new().machine(1, &["10.0.0.1"]), &[]).await;
    for port in 1..=16 {
        node.listen(format!("/ip4/10.0.0.1/udp/{port}/quic-v1")).await.unwrap();
    }
    let error = node.listen("/ip4/10.0.0.1/udp/17/quic-v1").await.unwrap_err();
    assert!(matches!(error, ListenError::TooMany { most: 16 }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moves_keeps_what_it_dialled_and_dials_anew_who_had_dialled_it() {
    let world = World::new();
    let machines =
        [world.machine(1, &["10.0.0.1"]), world.machine(2, &["10.0.0.2"]), world.machine(3, &["10.0.0.3"])];
    let (a, at_a) = start(&machines[0], &[WILDCARD]).await;
    let (b, at_b) = start(&machines[1], &[WILDCARD]).await;
    let (c, at_c) = start(&machines[2], &[WILDCARD]).await;
    b.connect(&a.listen_addresses()[0]).await.unwrap();
    a.connect(&c.listen_addresses()[0]).await.unwrap();
    pass(Duration::from_secs(1)).await;
    let (mut at_b_events, mut at_c_events) =
        (b.peers().watch().await.unwrap(), c.peers().watch().await.unwrap());

    // From one moment to the next the machine is elsewhere: nothing leaves from the old address, and nothing arrives there.
    machines[0].set_addresses(&["10.0.0.9"]);
    let direction = within("a new connection", connected(&mut at_b_events, a.peer_id())).await;
    assert_eq!(direction, Direction::Inbound, "a dialled b");
    assert_eq!(texts(&a), ["/ip4/10.0.0.9/udp/4001/quic-v1"]);
    for (node, name) in [(&b, "b"), (&c, "c")] {
        within(name, a.ping(node.peer_id())).await.unwrap();
        assert_eq!(node.peers().get(a.peer_id()).unwrap().address, "10.0.0.9:4001".parse().unwrap());
    }
    heard(&c, a.peer_id(), "10.0.0.9").await;
    pass(Duration::from_secs(60)).await;
    assert_eq!((b.peers().connected().len(), c.peers().connected().len()), (1, 1));
    // The connection to c is the old one: nobody there heard of another.
    let quiet = tokio::time::timeout(Duration::from_millis(1), at_c_events.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let text = |channel: Channel<Raw>, to| async move { count(&channel, to, 0..10).await };
    let ((), ()) = tokio::join!(text(at_a.clone(), b.peer_id()), follow(&at_b, 0..10));
    let ((), ()) = tokio::join!(text(at_a.clone(), c.peer_id()), follow(&at_c, 0..10));
}

/// Contract C-20.
#[tokio::test(start_paused = true)]
async fn while_the_old_address_still_works_nothing_is_lost_doubled_or_overtaken() {
    let world = World::new();
    let machines = [world.machine(1, &["10.0.0.1"]), world.machine(2, &["10.0.0.2"])];
    let ((a, at_a), (b, at_b)) =
        (start(&machines[0], &[WILDCARD]).await, start(&machines[1], &[WILDCARD]).await);
    b.connect(&a.listen_addresses()[0]).await.unwrap();
    pass(Duration::from_secs(1)).await;
    b.serve("/slow/1", |_, question: Raw| async move {
        pass(Duration::from_secs(10)).await;
        Ok(question)
    })
    .unwrap();
    let asked = Raw(Bytes::from_static(b"asked before, answered after"));
    let moving = async {
        for turn in 0..4 {
            pass(Duration::from_secs(8)).await;
            // There and back: the second time b's connection is the one that a dialled, and stays.
            let here = if turn % 2 == 0 { "10.0.0.9" } else { "10.0.0.1" };
            machines[0].show(&[here]);
            a.network_changed().await;
        }
    };
    let asking = async {
        pass(Duration::from_secs(6)).await;
        a.request::<Raw, Raw>(b.peer_id(), "/slow/1", &asked).await
    };
    let (ida, idb) = (a.peer_id(), b.peer_id());
    let (_, answer, ..) = within("4,000 messages each way", async {
        tokio::join!(
            moving,
            asking,
            count(&at_a, idb, 0..4000),
            count(&at_b, ida, 0..4000),
            follow(&at_a, 0..4000),
            follow(&at_b, 0..4000),
        )
    })
    .await;
    assert_eq!(answer.unwrap(), asked, "a request is not cut off");
    assert_eq!(a.peers().get(idb).unwrap().direction, Direction::Outbound, "a newer connection took over");
    assert_eq!(a.close().await.lost_messages + b.close().await.lost_messages, 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_gone_is_not_announced_and_is_listenedat_again_when_it_is_back() {
    let world = World::new();
    let machine = world.machine(1, &["10.0.0.1", "10.0.0.9"]);
    let listen = "/ip4/10.0.0.1/udp/4001/quic-v1";
    let (a, _) = start(&machine, &[listen]).await;
    let (b, _) = start(&world.machine(2, &["10.0.0.2"]), &[WILDCARD]).await;
    a.connect(&b.listen_addresses()[0]).await.unwrap();
    machine.set_addresses(&["10.0.0.9"]);
    a.network_changed().await;
    assert_eq!(texts(&a), Vec::<String>::new());
    // What it had dialled from there goes on from what the machine has.
    within("a ping", a.ping(b.peer_id())).await.unwrap();
    assert_eq!(
        b.peers().get(a.peer_id()).unwrap().address.ip(),
        "10.0.0.9".parse::<std::net::IpAddr>().unwrap()
    );
    machine.set_addresses(&["10.0.0.1", "10.0.0.9"]);
    a.network_changed().await;
    assert_eq!(texts(&a), [listen]);
    let (c, _) = start(&world.machine(3, &["10.0.0.3"]), &[]).await;
    within("a dial", c.connect(&a.listen_addresses()[0])).await.unwrap();
}
