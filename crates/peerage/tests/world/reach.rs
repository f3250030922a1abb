//! Peers that are known by their ID alone, and what the DHT says of where they are.

use std::sync::Arc;

use peerage::dht::Contact;
use peerage::{DhtConfig, Node, NodeBuilder, NodeKey, PeersConfig};

use crate::clock::{LIMIT, SECOND, pass, within};
use crate::network::World;

fn node(world: &Arc<World>, number: u64, ip: &str) -> NodeBuilder {
    world.machine(number, &[ip]).node().dht(DhtConfig::default())
}

async fn server(world: &Arc<World>, number: u64, ip: &str, seeds: &[&Node]) -> Node {
    let listening = node(world, number, ip).listen(format!("/ip4/{ip}/udp/4001/quic-v1"));
    let seeded = seeds.iter().fold(listening, |builder, seed| builder.seed(&seed.listen_addresses()[0]));
    seeded.start().await.unwrap()
}

/// a peer may publish that it is within whatever network it likes; whoever has no peer there doesn't go and see.
#[tokio::test(start_paused = true)]
async fn nobody_is_led_into_his_own_network_by_what_a_peer_publishes() {
    for (caller, dials) in [("20.0.0.3", false), ("10.0.0.3", true)] {
        let world = World::new();
        let seed = server(&world, 1, if dials { "10.0.0.1" } else { "20.0.0.1" }, &[]).await;
        let inside = server(&world, 2, "10.0.0.2", &[&seed]).await;
        within("the record", async {
            while inside.dht().endpoint(inside.peer_id()).await.is_err() {
                pass(SECOND).await;
            }
        })
        .await;
        let stranger = node(&world, 3, caller).seed(&seed.listen_addresses()[0]).start().await.unwrap();
        pass(5 * SECOND).await;
        // So that the seed's lookups are not what leads it there.
        let known = stranger.dht().endpoint(inside.peer_id()).await.unwrap().0;
        assert_eq!(known.len(), 1, "{known:?}");
        let reached = tokio::time::timeout(LIMIT, stranger.connect(inside.peer_id())).await.unwrap();
        assert_eq!(reached.is_ok(), dials, "{reached:?}");
        let here = caller.parse::<std::net::IpAddr>().unwrap();
        let packets = world.packets();
        let there = inside.listen_addresses()[0].socket_addr().unwrap().ip();
        assert_eq!(packets.iter().any(|(_, from, to, _)| from.ip() == here && to.ip() == there), dials);
    }
}

/// What the DHT says of a peer takes no place in the address book for good, however many are looked up.
#[tokio::test(start_paused = true)]
async fn more_peers_are_reached_by_their_ids_than_the_address_book_has_places() {
    let world = World::new();
    let seed = server(&world, 1, "10.0.0.1", &[]).await;
    let mut others = Vec::new();
    for number in 2..8 {
        others.push(server(&world, number, &format!("10.0.0.{number}"), &[&seed]).await);
    }
    pass(60 * SECOND).await;
    let few = PeersConfig { max_known_peers: 2, max_outbound: 0, ..PeersConfig::default() };
    let caller = node(&world, 9, "10.0.0.9").peers_config(few).start().await.unwrap();
    caller.connect(&seed.listen_addresses()[0]).await.unwrap();
    pass(5 * SECOND).await;
    for other in &others {
        let reached = tokio::time::timeout(LIMIT, caller.connect(other.peer_id())).await.unwrap();
        assert_eq!(reached, Ok(other.peer_id()));
        caller.peers().disconnect(other.peer_id()).await;
        pass(SECOND).await;
    }
}

/// AL-65: where the network has changed, whoever could not be reached is asked again.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_told_of_a_new_network_gives_silent_peers_another_chance() {
    let world = World::new();
    let seed = server(&world, 1, "10.0.0.1", &[]).await;
    let other = server(&world, 2, "10.0.0.2", &[&seed]).await;
    let usable = async || seed.dht().standing().await.unwrap().usable;
    within("the other", async {
        while usable().await == 0 {
            pass(SECOND).await;
        }
    })
    .await;
    other.close().await;
    within("its end", async {
        while usable().await > 0 {
            let _ = seed.dht().closest(b"anything").await;
            pass(SECOND).await;
        }
    })
    .await;
    seed.network_changed().await;
    assert_eq!(usable().await, 1);
}

/// A peer that has moved and could not publish it yet: what it once published leads nowhere, and its neighbours know better.
#[tokio::test(start_paused = true)]
async fn a_peer_whose_published_addresses_are_out_of_date_is_reached_where_its_neighbours_name_it() {
    let world = World::new();
    let seed = server(&world, 1, "10.0.0.1", &[]).await;
    let key = NodeKey::generate();
    let at = |number, ip: &'static str, config: DhtConfig| {
        let machine = world.machine(number, &[ip]).node().key(key.clone()).dht(config);
        let listening = machine.listen(format!("/ip4/{ip}/udp/4001/quic-v1"));
        listening.seed(&seed.listen_addresses()[0]).start()
    };
    let before = at(2, "10.0.0.2", DhtConfig::default()).await.unwrap();
    let peer = before.peer_id();
    let published = async || seed.dht().endpoint(peer).await.ok().map(|(addresses, _)| addresses);
    within("the record", async {
        while published().await.is_none() {
            pass(SECOND).await;
        }
    })
    .await;
    before.close().await;
    // It asks nobody but the seed: its lookups lead it nowhere else.
    let alone = PeersConfig { max_outbound: 0, max_outbound_visits: 0, ..PeersConfig::default() };
    let caller = node(&world, 4, "10.0.0.4").peers_config(alone).start().await.unwrap();
    caller.connect(&seed.listen_addresses()[0]).await.unwrap();
    pass(5 * SECOND).await;
    // There it looks after no record, not even of where it is.
    let mut nothing = DhtConfig::default();
    nothing.limits.replication.max_sets = 0;
    let after = at(3, "10.0.0.3", nothing).await.unwrap();
    let there = &after.listen_addresses()[0];
    within("the neighbour meeting it there", async {
        let meets = |(contact, _): &(Contact, _)| {
            *contact.peer() == peer && contact.addresses()[0].socket_addr() == there.socket_addr()
        };
        while !seed.dht().table().await.unwrap().iter().any(meets) {
            pass(SECOND).await;
        }
    })
    .await;
    let gone = "10.0.0.2".parse::<std::net::IpAddr>().unwrap();
    assert_eq!(published().await.unwrap()[0].socket_addr().unwrap().ip(), gone, "it is out of date");
    assert!(caller.peers().get(peer).is_none(), "nothing has led it there yet");
    let before = world.packets().len();
    let reached = tokio::time::timeout(LIMIT, caller.connect(peer)).await.unwrap();
    assert_eq!(reached, Ok(peer));
    let here = "10.0.0.4".parse::<std::net::IpAddr>().unwrap();
    let packets = world.packets();
    let tried = packets.iter().skip(before).any(|(_, from, to, _)| from.ip() == here && to.ip() == gone);
    assert!(tried, "where it said that it is was tried");
}
