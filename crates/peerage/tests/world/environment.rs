//! A node knows the world by its environment alone.

use std::time::Duration;

use bytes::Bytes;
use peerage::{ChannelConfig, Raw};

use crate::clock::pass;
use crate::network::{Packet, World};

/// What three nodes do in a minute, of which the clock of the world sees nothing: every packet of it, and what they were called.
fn minute(seed: u64) -> (Vec<Packet>, Vec<String>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new();
        let machine = |number: u64| world.machine(seed * 10 + number, &[&format!("10.0.0.{number}")]);
        let hub = machine(1).node().listen("/ip4/0.0.0.0/udp/4001/quic-v1").start().await.unwrap();
        let news = hub.channel::<Raw>(ChannelConfig::new("/news/1")).unwrap();
        let address = hub.listen_addresses()[0].clone();
        assert_eq!(address.to_string(), format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{}", hub.peer_id()));
        let mut others = Vec::new();
        for number in 2..4 {
            // One listens, one opens a socket only when it dials.
            let mut node = machine(number).node().seed(&address);
            if number == 2 {
                node = node.listen("/ip4/10.0.0.2/udp/4001/quic-v1");
            }
            let node = node.start().await.unwrap();
            let channel = node.channel::<Raw>(ChannelConfig::new("/news/1")).unwrap();
            others.push((node, channel));
        }
        pass(Duration::from_secs(20)).await;
        let body = Raw(Bytes::from(vec![7; 50_000]));
        assert!(news.broadcast(&body).await.iter().all(|(_, verdict)| verdict.is_ok()));
        for (node, channel) in &others {
            assert_eq!(channel.recv().await.unwrap(), (hub.peer_id(), body.clone()));
            node.ping(hub.peer_id()).await.unwrap();
        }
        pass(Duration::from_secs(40)).await;
        let names = others.iter().map(|(node, _)| node.peer_id().to_string()).collect();
        (world.packets(), names)
    })
}

#[test]
fn a_run_follows_from_its_seed_to_the_time_and_length_of_every_packet() {
    let (first, names) = minute(1);
    let (again, same_names) = minute(1);
    assert!(first.len() > 200, "{} packets", first.len());
    assert_eq!(names, same_names, "a node without a key draws one from its environment");
    let differs = first.iter().zip(&again).position(|(one, other)| one != other);
    assert_eq!((differs, first.len()), (None, again.len()), "the first packet that differs");
    let (other, other_names) = minute(2);
    assert!(other != first && other_names != names, "another seed gives another run");
}
