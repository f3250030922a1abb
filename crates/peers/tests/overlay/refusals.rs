//! What those can do who refuse us, and those whom we refuse.

use std::time::Duration;

use peerage_identity::DialAddress;
use peerage_peers::{AttemptId, ConnId, DoorState, Input, PeerAnswer, PeersConfig, RejectReason, Role};

use crate::lone::{Lone, host, key};
use crate::support::{World, secs};

/// The seed's address without the peer ID.
fn nameless(world: &World, node: usize) -> DialAddress {
    world.address(node).without_peer_id()
}

/// a seed that was given without its peer ID is dialled again, whatever it said once.
#[test]
fn a_seed_without_a_peer_id_is_dialled_again_after_it_was_in_another_network() {
    let mut world = World::new(1);
    let (node, seed) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.nodes[seed].network = "other";
    let address = nameless(&world, seed);
    world.give(node, Input::Add { address, role: Role::Seed });
    world.run_for(secs(3600));
    let dials = world.nodes[node].dials.len();
    assert!((7..40).contains(&dials), "{dials} dials in an hour");
    assert!(world.peers_of(node).is_empty());
    world.nodes[seed].network = "test";
    world.run_for(secs(610));
    assert_eq!(world.peers_of(node), [seed].into());
}

/// a name that leads to another peer than before is followed.
#[test]
fn a_seed_without_a_peer_id_is_dialled_again_after_it_was_full_and_another_took_its_address() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        let node = world.add(PeersConfig::default());
        let full = world.add(PeersConfig { max_inbound: 0, max_outbound: 0, ..Default::default() });
        let address = nameless(&world, full);
        world.give(node, Input::Add { address, role: Role::Seed });
        world.run_for(secs(20));
        assert!(world.peers_of(node).is_empty());
        let at = world.nodes[full].address;
        world.nodes[full].address = host(7);
        let other = world.add_at(PeersConfig { max_outbound: 0, ..Default::default() }, at);
        world.run_for(secs(61));
        assert_eq!(world.peers_of(node), [other].into(), "seed {seed}");
    }
}

/// Foreign nodes that find no place cost as much as any other.
#[test]
fn a_storm_of_foreign_nodes_shuts_the_door_of_a_full_node() {
    let config = PeersConfig { max_inbound: 0, max_inbound_visits: 0, ..Default::default() };
    let mut node = Lone::new(config);
    let mut heard = 0;
    for number in 0..1000 {
        if node.door.state == DoorState::Open {
            let conn = node.handshaken(key(number), host(number), None);
            node.give(Input::Foreign { conn });
            heard += 1;
        }
    }
    assert_eq!((node.door.state, heard), (DoorState::KnownOnly, 32));
    node.pass(secs(10));
    assert_eq!(node.door.state, DoorState::Open);
}

/// Dials in an hour to one peer that refuses each with `reason` and tells `retry_after`.
fn dials_in_an_hour(reason: RejectReason, retry_after: Option<Duration>) -> usize {
    let mut node = Lone::new(PeersConfig::default());
    node.add(1, Role::Known);
    let mut dials = 0;
    let mut refuse = |node: &mut Lone, attempt: AttemptId| -> ConnId {
        dials += 1;
        let conn = node.handshaken(key(1), host(1), Some(attempt));
        node.hello(conn, dials as u64);
        let (detail, alternatives) = (String::new(), Vec::new());
        let answer = PeerAnswer::Reject { reason, detail, retry_after, alternatives };
        node.give(Input::Answered { conn, answer });
        conn
    };
    for _ in 0..36_000 {
        node.pass(Duration::from_millis(100));
        for (attempt, _) in std::mem::take(&mut node.dials) {
            refuse(&mut node, attempt);
        }
    }
    dials
}

/// Who refuses us does not set the rate at which we come back.
#[test]
fn who_wants_us_back_at_once_again_and_again_waits_longer_each_time() {
    let soon = Some(Duration::from_millis(1));
    for (reason, retry_after) in [
        (RejectReason::Full, soon),
        (RejectReason::Full, None),
        (RejectReason::Banned, soon),
        (RejectReason::Clone, soon),
        (RejectReason::Duplicate, None),
        (RejectReason::Other(77), soon),
    ] {
        let dials = dials_in_an_hour(reason, retry_after);
        assert!((4..40).contains(&dials), "{reason:?} {retry_after:?}: {dials} dials");
    }
}
