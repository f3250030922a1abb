//! What the simulated network does to packets, seen through its sockets.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage::quinn::AsyncUdpSocket;
use peerage::quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use peerage_sim::{Fate, HostId, Link, Nat, NatKind, SimNet, simulate};

/// A socket, and its address as its own host knows it.
struct Socket(Arc<dyn AsyncUdpSocket>);

/// A packet that came: its sender, its payload, its ECN mark.
type Got = (SocketAddr, Vec<u8>, Option<EcnCodepoint>);

impl Socket {
    fn on(net: &SimNet, host: HostId) -> Self {
        Self(net.bind(host, SocketAddr::new(net.ip(host), 0)).unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn send(&self, to: SocketAddr, contents: &[u8]) {
        self.send_segments(to, contents, None);
    }

    fn send_segments(&self, destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) {
        let ecn = Some(EcnCodepoint::Ect0);
        self.0.try_send(&Transmit { destination, ecn, contents, segment_size, src_ip: None }).unwrap();
    }

    async fn receive(&self, within: Duration) -> Option<Got> {
        let mut buffer = [0; 2000];
        let mut meta = [RecvMeta::default()];
        let reading = poll_fn(|cx| {
            self.0.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta).map(Result::unwrap)
        });
        let count = tokio::time::timeout(within, reading).await.ok()?;
        assert_eq!((count, meta[0].stride), (1, meta[0].len));
        Some((meta[0].addr, buffer[..meta[0].len].to_vec(), meta[0].ecn))
    }

    /// Payloads that come within a second.
    async fn drain(&self) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        while let Some((_, payload, _)) = self.receive(SECOND).await {
            got.push(payload);
        }
        got
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_packet_takes_the_latency_and_keeps_sender_payload_and_ecn() {
    simulate(1, async |world| {
        let net = world.net();
        let (a, b) = (net.host(), net.host());
        net.link(a, b, Link::latency_ms(35));
        let (from, to) = (Socket::on(net, a), Socket::on(net, b));
        from.send(to.address(), b"one");
        let (sender, payload, ecn) = to.receive(SECOND).await.unwrap();
        assert_eq!(
            (sender, payload.as_slice(), ecn),
            (from.address(), &b"one"[..], Some(EcnCodepoint::Ect0))
        );
        assert_eq!(net.now(), Duration::from_millis(35));
        assert_eq!((net.counters().sent, net.counters().delivered), (1, 1));
    });
}

#[test]
fn a_batch_is_cut_into_its_segments() {
    simulate(1, async |world| {
        let net = world.net();
        let (from, to) = (Socket::on(net, net.host()), Socket::on(net, net.host()));
        from.send_segments(to.address(), &[7; 2500], Some(1000));
        let lengths: Vec<_> = to.drain().await.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1000, 1000, 500]);
    });
}

#[test]
fn sockets_are_bound_by_the_rules_of_the_system() {
    simulate(1, async |world| {
        let net = world.net();
        let host = net.host_at(&["45.9.9.9".parse().unwrap(), "2600::9".parse().unwrap()]);
        let bind = |address: &str| net.bind(host, address.parse().unwrap()).map_err(|error| error.kind());
        let held = bind("0.0.0.0:4400").unwrap();
        assert_eq!(bind("45.9.9.9:4400").unwrap_err(), io::ErrorKind::AddrInUse);
        assert!(bind("[::]:4400").is_ok(), "another family");
        assert_eq!(bind("45.9.9.8:4400").unwrap_err(), io::ErrorKind::AddrNotAvailable);
        drop(held);
        assert!(bind("45.9.9.9:4400").is_ok(), "free again");
        assert!(bind("45.9.9.9:0").unwrap().local_addr().unwrap().port() > 0);
    });
}

#[test]
fn a_wildcard_socket_gets_packets_to_any_address_of_its_host_and_answers_from_one() {
    simulate(1, async |world| {
        let net = world.net();
        let (a, b) = (net.host(), net.host());
        let from = Socket::on(net, a);
        let to = Socket(net.bind(b, "0.0.0.0:53".parse().unwrap()).unwrap());
        from.send(SocketAddr::new(net.ip(b), 53), b"question");
        let (sender, ..) = to.receive(SECOND).await.unwrap();
        to.send(sender, b"answer");
        assert_eq!(from.receive(SECOND).await.unwrap().0, SocketAddr::new(net.ip(b), 53));
    });
}

#[test]
fn a_partition_cuts_both_ways_a_block_one_and_healing_ends_both() {
    simulate(1, async |world| {
        let net = world.net();
        let (a, b, c) = (net.host(), net.host(), net.host());
        let [on_a, on_b, on_c] = [a, b, c].map(|host| Socket::on(net, host));
        let passes = async |from: &Socket, to: &Socket| {
            from.send(to.address(), b"x");
            to.receive(SECOND).await.is_some()
        };
        net.partition(&[&[a, b]]);
        assert!(passes(&on_a, &on_b).await);
        assert!(!passes(&on_a, &on_c).await && !passes(&on_c, &on_b).await);
        net.heal();
        net.block(a, b);
        assert!(!passes(&on_a, &on_b).await && passes(&on_b, &on_a).await);
        net.heal();
        assert!(passes(&on_a, &on_b).await && passes(&on_c, &on_a).await);
        on_a.send(on_b.address(), b"on its way");
        net.partition(&[&[a], &[b]]);
        assert!(on_b.receive(SECOND).await.is_none(), "a cut takes what is on its way");
        assert_eq!(net.counters().cut, 4);
    });
}

#[test]
fn an_unplugged_host_is_silent_and_deaf_also_after_it_was_plugged_in_again() {
    simulate(1, async |world| {
        let net = world.net();
        let (a, b) = (net.host(), net.host());
        let (on_a, before) = (Socket::on(net, a), Socket::on(net, b));
        net.unplug(b);
        before.send(on_a.address(), b"ghost");
        on_a.send(before.address(), b"x");
        assert!(on_a.receive(SECOND).await.is_none() && before.receive(SECOND).await.is_none());
        let after = Socket(net.bind(b, before.address()).unwrap());
        on_a.send(after.address(), b"x");
        assert!(after.receive(SECOND).await.is_some());
        drop(before);
        on_a.send(after.address(), b"x");
        assert!(after.receive(SECOND).await.is_some(), "the old socket took nothing along");
        assert_eq!(net.counters().unreachable, 1);
    });
}

#[test]
fn duplication_doubles_and_loss_takes_away() {
    simulate(5, async |world| {
        let net = world.net();
        let (a, b) = (net.host(), net.host());
        let (from, to) = (Socket::on(net, a), Socket::on(net, b));
        for (link, expected) in [
            (Link::latency_ms(1).duplication(1.0), 200),
            (Link::latency_ms(1).loss(1.0), 0),
            (Link::latency_ms(1), 100),
        ] {
            net.link(a, b, link);
            (0..100).for_each(|_| from.send(to.address(), b"x"));
            assert_eq!(to.drain().await.len(), expected, "{link:?}");
        }
        let counters = net.counters();
        assert_eq!((counters.duplicated, counters.lost, counters.dropped()), (100, 100, 100));
    });
}

#[test]
fn a_host_behind_a_box_is_reached_from_where_it_has_sent_to() {
    for kind in [NatKind::FullCone, NatKind::Restricted, NatKind::PortRestricted, NatKind::Symmetric] {
        simulate(1, async |world| {
            let net = world.net();
            let nat = net.nat(Nat::new(kind));
            let (inside, neighbour) =
                (Socket::on(net, net.host_behind(nat)), Socket::on(net, net.host_behind(nat)));
            let (friend, stranger) = (Socket::on(net, net.host()), Socket::on(net, net.host()));
            friend.send(inside.address(), b"a private address");
            assert!(inside.receive(SECOND).await.is_none());
            inside.send(friend.address(), b"hello");
            let (seen, ..) = friend.receive(SECOND).await.unwrap();
            assert_ne!(seen, inside.address());
            friend.send(seen, b"answer");
            assert_eq!(inside.receive(SECOND).await.unwrap().0, friend.address());
            stranger.send(seen, b"may I?");
            assert_eq!(inside.receive(SECOND).await.is_some(), kind == NatKind::FullCone, "{kind:?}");
            neighbour.send(inside.address(), b"next door");
            assert_eq!(inside.receive(SECOND).await.unwrap().0, neighbour.address());
            world.run_for(Duration::from_secs(61)).await;
            friend.send(seen, b"too late");
            assert!(inside.receive(SECOND).await.is_none());
        });
    }
}

#[test]
fn a_tap_sees_every_packet_with_its_fate() {
    simulate(1, async |world| {
        let net = world.net();
        let (a, b) = (net.host(), net.host());
        let (from, to) = (Socket::on(net, a), Socket::on(net, b));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tapped = seen.clone();
        net.tap(move |packet| {
            tapped.lock().unwrap().push((
                packet.from_host,
                packet.to_host,
                packet.payload.len(),
                packet.fate,
            ));
        });
        net.link(a, b, Link::latency_ms(1).mtu(1000));
        from.send(to.address(), &[0; 1000]);
        from.send(to.address(), &[0; 1001]);
        from.send("45.200.0.1:1".parse().unwrap(), b"nobody");
        let expected =
            [(a, Some(b), 1000, Fate::Sent), (a, Some(b), 1001, Fate::TooLarge), (a, None, 6, Fate::Sent)];
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_eq!(to.drain().await.len(), 1);
        assert_eq!(net.counters().unreachable, 1);
    });
}
