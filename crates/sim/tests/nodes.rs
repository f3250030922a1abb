//! Whole nodes on paths of each kind.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage::dht::StepKind;
use peerage::{ChannelConfig, DhtConfig, NodeKey, PeerEvent, Raw};
use peerage_sim::{Failed, Link, Nat, NatKind, SimNode, Skew, World, ensure, simulate};

const SECOND: Duration = Duration::from_secs(1);

async fn connected(world: &World, a: &SimNode, b: &SimNode) -> Result<Duration, Failed> {
    let what = format!("{} and {} are connected", a.name(), b.name());
    world.until(&what, 20 * SECOND, || a.is_connected_to(b)).await
}

#[test]
fn a_node_behind_any_box_dials_out_and_keeps_its_mapping() -> Result<(), Failed> {
    for kind in [NatKind::FullCone, NatKind::Restricted, NatKind::PortRestricted, NatKind::Symmetric] {
        simulate(3, async |world| {
            let public = world.node("public", |builder| builder).await?;
            let nat = world.net().nat(Nat::new(kind).timeout(30 * SECOND));
            let address = public.address();
            let inside = world.describe("inside").behind(nat).start(move |b| b.persistent(&address)).await?;
            connected(&world, &inside, &public).await?;
            let seen = public.node().peers().get(inside.peer_id()).unwrap().address;
            ensure!(seen.ip() != world.net().ip(inside.host()), "{seen} is an inside address");
            world.run_for(180 * SECOND).await;
            ensure!(inside.is_connected_to(&public), "{kind:?}: the mapping was lost");
            public.node().ping(inside.peer_id()).await?;
            let came =
                public.events().into_iter().filter(|(_, event)| matches!(event, PeerEvent::Connected { .. }));
            ensure!(came.count() == 1, "{kind:?}: it reconnected: {:?}", public.events());
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn clocks_that_are_off_by_most_of_an_hour_keep_nobody_apart() -> Result<(), Failed> {
    simulate(4, async |world| {
        let right = world.node("right", |builder| builder).await?;
        for (name, skew) in [("fast", Skew::Ahead(3000 * SECOND)), ("slow", Skew::Behind(3000 * SECOND))] {
            let address = right.address();
            let off = world.describe(name).skewed(skew).start(move |b| b.persistent(&address)).await?;
            connected(&world, &off, &right).await?;
        }
        Ok(())
    })
}

#[test]
fn a_seed_is_found_by_its_name_and_at_its_new_address_after_a_move() -> Result<(), Failed> {
    simulate(5, async |world| {
        let first = world.node("first", |builder| builder).await?;
        world.names().set_addresses("seed.example", &[first.socket_address().ip()]);
        let by_name = |node: &SimNode| format!("/dns/seed.example/udp/4400/quic-v1/p2p/{}", node.peer_id());
        let name = by_name(&first);
        let guest = world.node("guest", move |builder| builder.persistent(&name)).await?;
        connected(&world, &guest, &first).await?;
        world.crash(&first);
        let moved = world.describe("moved").key(first.key().clone()).start(|builder| builder).await?;
        world.names().set_addresses("seed.example", &[moved.socket_address().ip()]);
        world.until("the guest finds it again", 120 * SECOND, || guest.is_connected_to(&moved)).await?;
        Ok(())
    })
}

#[test]
fn a_crashed_node_finds_its_peers_again_by_what_is_on_its_disk() -> Result<(), Failed> {
    simulate(8, async |world| {
        let friend = world.node("friend", |builder| builder).await?;
        let guest = world.node("guest", |builder| builder).await?;
        // Nothing in its configuration names the friend.
        guest.node().connect(friend.address()).await?;
        connected(&world, &guest, &friend).await?;
        world.run_for(10 * SECOND).await;
        world.crash(&guest);
        world.run_for(60 * SECOND).await;
        world.restart(&guest).await?;
        world.until("the guest is back", 30 * SECOND, || guest.is_connected_to(&friend)).await?;
        Ok(())
    })
}

/// Nothing but the first contact itself has time to be stored.
#[test]
fn a_node_that_crashes_right_after_its_first_contact_comes_back_without_its_seeds() -> Result<(), Failed> {
    simulate(9, async |world| {
        let friend = world.node("friend", |builder| builder).await?;
        let guest = world.node("guest", |builder| builder).await?;
        guest.node().connect(friend.address()).await?;
        connected(&world, &guest, &friend).await?;
        world.run_for(Duration::from_millis(100)).await;
        world.crash(&guest);
        world.run_for(60 * SECOND).await;
        world.restart(&guest).await?;
        world.until("the guest is back", 30 * SECOND, || guest.is_connected_to(&friend)).await?;
        Ok(())
    })
}

/// Two running nodes with one key: the later one has the place at a third, the earlier one is told so, and nothing flaps.
#[test]
fn of_two_nodes_with_one_key_the_later_one_keeps_its_place() -> Result<(), Failed> {
    simulate(10, async |world| {
        let third = world.node("third", |builder| builder).await?;
        let key = NodeKey::from_seed([8; 32]);
        let first = world.describe("first").key(key.clone()).start(|builder| builder).await?;
        first.node().connect(third.address()).await?;
        connected(&world, &first, &third).await?;
        let second = world.describe("second").key(key).start(|builder| builder).await?;
        second.node().connect(third.address()).await?;
        let lost = |(_, event): &(Duration, PeerEvent)| matches!(event, PeerEvent::Disconnected { .. });
        world.until("the first one goes", 5 * SECOND, || first.events().iter().any(lost)).await?;
        // What a node that has ended had under way still arrives for a moment and is no sign of a clone.
        world.run_for(2 * SECOND).await;
        let Err(refused) = first.node().connect(third.address()).await else {
            return Err(Failed::new("the first one was let in again"));
        };
        let refused = refused.to_string();
        ensure!(refused.contains("another node runs with the same key"), "{refused}");
        world.run_for(60 * SECOND).await;
        let times = |node: &SimNode, is: fn(&PeerEvent) -> bool| {
            node.events().iter().filter(|(_, event)| is(event)).count()
        };
        let told = times(&first, |e| matches!(e, PeerEvent::CloneSeen { told_by: Some(_), .. }));
        let seen = times(&third, |e| matches!(e, PeerEvent::PeerCloned { .. }));
        ensure!((told, seen) == (1, 1), "the first was told {told} times, the third told of it {seen} times");
        let lost = times(&second, |e| matches!(e, PeerEvent::Disconnected { .. }));
        ensure!(lost == 0 && second.connected().len() == 1, "the later one was disturbed");
        Ok(())
    })
}

#[test]
fn a_bulk_transfer_fills_a_narrow_path_of_small_packets() -> Result<(), Failed> {
    simulate(6, async |world| {
        let (rate, queue) = (20_000_000, 60_000);
        world.default_link(Link::latency_ms(10).bandwidth(rate, queue).mtu(1300));
        let config = || ChannelConfig::new("/sim/bulk/1");
        let to = world.node("to", |builder| builder).await?;
        let address = to.address();
        let from = world.node("from", move |builder| builder.persistent(&address)).await?;
        connected(&world, &from, &to).await?;
        let (sending, receiving) =
            (from.node().channel::<Raw>(config())?, to.node().channel::<Raw>(config())?);
        let (message, peer) = (Raw(Bytes::from(vec![7; 50_000])), to.peer_id());
        tokio::spawn(async move { while sending.send(peer, &message).await.is_ok() {} });
        let (start, mut bytes) = (world.now(), 0.0);
        while world.now() - start < 10 * SECOND {
            bytes += receiving.recv().await.unwrap().1.0.len() as f64;
        }
        let share = bytes * 8.0 / 10.0 / rate as f64;
        ensure!((0.75..=1.0).contains(&share), "{:.0} % of the path were used", share * 100.0);
        let counters = world.counters();
        ensure!(counters.overflowed > 0, "the queue never filled");
        ensure!(counters.too_large > 0, "nobody tried larger packets");
        Ok(())
    })
}

#[test]
fn duplicates_and_late_packets_change_no_message() -> Result<(), Failed> {
    simulate(7, async |world| {
        world.default_link(Link::latency_ms(20).jitter_ms(15).duplication(0.2).reordering(0.2));
        let config = || ChannelConfig::new("/sim/numbers/1");
        let to = world.node("to", |builder| builder).await?;
        let address = to.address();
        let from = world.node("from", move |builder| builder.persistent(&address)).await?;
        connected(&world, &from, &to).await?;
        let (sending, receiving) =
            (from.node().channel::<Raw>(config())?, to.node().channel::<Raw>(config())?);
        let peer = to.peer_id();
        let all_are_sent = async {
            for number in 0..2000u32 {
                sending.send(peer, &Raw(Bytes::copy_from_slice(&number.to_be_bytes()))).await?;
                world.run_for(Duration::from_millis(2)).await;
            }
            Ok(())
        };
        let all_come = async {
            for number in 0..2000u32 {
                let next = tokio::time::timeout(10 * SECOND, receiving.recv()).await?.unwrap().1;
                ensure!(next.0 == number.to_be_bytes()[..], "{:?} came in place of {number}", next.0);
            }
            Ok::<_, Failed>(())
        };
        tokio::try_join!(all_are_sent, all_come)?;
        let counters = world.counters();
        ensure!(counters.duplicated > 100 && counters.reordered > 100, "too few faults: {counters:?}");
        Ok(())
    })
}

#[test]
fn questions_to_the_dht_go_before_bulk_on_a_full_path() -> Result<(), Failed> {
    simulate(9, async |world| {
        world.default_link(Link::latency_ms(25).bandwidth(100_000_000, 312_500));
        let there = world.node("there", |builder| builder.dht(DhtConfig::default())).await?;
        let address = there.address();
        let here =
            world.node("here", move |builder| builder.dht(DhtConfig::default()).persistent(&address)).await?;
        connected(&world, &here, &there).await?;
        let taken = Arc::new(AtomicUsize::new(0));
        for (from, to) in [(&here, &there), (&there, &here)] {
            let name = format!("/sim/bulk-{}/1", from.name());
            let sending = from.node().channel::<Raw>(ChannelConfig::bulk(&name))?;
            let receiving = to.node().channel::<Raw>(ChannelConfig::bulk(&name))?;
            let (message, peer) = (Raw(Bytes::from(vec![7; 100_000])), to.peer_id());
            tokio::spawn(async move { while sending.send(peer, &message).await.is_ok() {} });
            let taken = taken.clone();
            tokio::spawn(async move {
                while let Some((_, Raw(body))) = receiving.recv().await {
                    taken.fetch_add(body.len(), Ordering::Relaxed);
                }
            });
        }
        world.run_for(2 * SECOND).await;
        let (start, before) = (world.now(), taken.load(Ordering::Relaxed));
        let mut times = Vec::new();
        for number in 0..100 {
            let (call, mut steps) = here.node().dht().closest(format!("place {number}")).watch();
            call.await?;
            while let Some(step) = steps.next().await {
                if let StepKind::Answered { rtt, .. } = step.what {
                    times.push(rtt);
                }
            }
        }
        let taken = (taken.load(Ordering::Relaxed) - before) as f64 * 8.0;
        let share = taken / (world.now() - start).as_secs_f64() / 2.0 / 100_000_000.0;
        ensure!(share > 0.8, "bulk took {share} of the path: it was not full");
        ensure!(times.len() == 100, "{} answers", times.len());
        times.sort_unstable();
        // Twice the round trip of the idle path, of which the queue on the way may take as much again each way.
        ensure!(times[90] <= Duration::from_millis(110), "{:?} at p90, {:?} at worst", times[90], times[99]);
        Ok(())
    })
}
