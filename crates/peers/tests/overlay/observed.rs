//! How a node learns where others see it.

use std::net::SocketAddr;

use peerage_peers::{Input, PeersConfig, Role};

use crate::support::{World, secs};

fn world_of(seed: u64, peers: usize) -> (World, usize, Vec<usize>) {
    let mut world = World::new(seed);
    let node = world.add(PeersConfig::default());
    let peers: Vec<_> =
        (0..peers).map(|_| world.add(PeersConfig { max_outbound: 0, ..Default::default() })).collect();
    (world, node, peers)
}

#[test]
fn when_enough_peers_that_we_dialled_agree_the_announced_address_changes_and_changes_back() {
    let (mut world, node, peers) = world_of(1, 8);
    for (index, peer) in peers.iter().enumerate() {
        world.seed_with(node, *peer, Role::Seed);
        world.run_for(secs(1));
        let expected = if index < 2 { vec![] } else { vec![world.nodes[node].address] };
        assert_eq!(world.nodes[node].observed, expected, "{index}");
    }
    // The NAT gives another address: once most say so, it is announced instead.
    let moved: SocketAddr = "31.0.0.1:7000".parse().unwrap();
    for (index, peer) in peers.iter().enumerate() {
        let conn = world.conn_between(node, *peer).unwrap();
        world.give(node, Input::Observed { conn, address: moved });
        let observed = &world.nodes[node].observed;
        match index {
            0..3 => assert_eq!(*observed, [world.nodes[node].address], "{index}"),
            3 => assert!(observed.is_empty(), "half and half"),
            _ => assert_eq!(*observed, [moved], "{index}"),
        }
    }
}

/// an advertised address is never trusted alone. Those who come to us, in any number, have no vote.
#[test]
fn those_who_connect_to_us_cannot_make_us_announce_anything() {
    let (mut world, node, peers) = world_of(2, 20);
    for peer in &peers {
        world.seed_with(*peer, node, Role::Seed);
        let address = world.address(node);
        let target = peerage_peers::Target::Address(address);
        world.give(*peer, Input::Connect { ticket: peerage_peers::Ticket(1), target });
    }
    world.run_for(secs(3));
    assert_eq!(world.nodes[node].manager.connected().count(), 20);
    let victim: SocketAddr = "99.9.9.9:53".parse().unwrap();
    for peer in &peers {
        let conn = world.conn_between(node, *peer).unwrap();
        world.give(node, Input::Observed { conn, address: victim });
    }
    assert!(world.nodes[node].observed.is_empty());
}

#[test]
fn an_address_that_no_one_can_have_or_see_from_there_is_no_vote() {
    let (mut world, node, peers) = world_of(3, 6);
    peers.iter().for_each(|peer| world.seed_with(node, *peer, Role::Seed));
    world.run_for(secs(3));
    for lie in ["127.0.0.1:4000", "10.0.0.1:4000", "224.0.0.1:4000", "0.0.0.0:4000", "31.0.0.1:0"] {
        for peer in &peers {
            let conn = world.conn_between(node, *peer).unwrap();
            world.give(node, Input::Observed { conn, address: lie.parse().unwrap() });
        }
        assert_eq!(world.nodes[node].observed, [world.nodes[node].address], "{lie}");
    }
}
