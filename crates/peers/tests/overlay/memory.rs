//! What a node remembers of its peers, and whom it believes.

use peerage_peers::{BookEntry, Input, PeerClass, PeersConfig, Penalty, Role, Source, StoredPeer};

use crate::lone::{Lone, host, key};
use crate::support::{World, secs};

/// Whoever makes up keys pushes out nothing of what happened to those whom the user named.
#[test]
fn five_thousand_strangers_don_t_wipe_the_story_of_a_persistent_peer() {
    let mut node = Lone::new(PeersConfig { max_inbound: 0, max_outbound: 0, ..Default::default() });
    node.add(1, Role::Persistent);
    for number in 0..5000 {
        let conn = node.handshaken(key(1000 + number), host(2), None);
        node.close(conn);
    }
    let (now, persistent) = (node.now, key(1));
    let story = node.manager.why(now, &persistent);
    assert!(!story.history.is_empty());
    let latest = key(5999);
    assert!(!node.manager.why(now, &latest).history.is_empty(), "strangers have a story too");
}

/// A persistent peer is never banned automatically, nor kept out for what it did before it was one.
#[test]
fn an_automatic_ban_ends_when_its_peer_becomes_persistent_and_one_of_the_user_does_not() {
    for by_address in [false, true] {
        let mut node = Lone::new(PeersConfig::default());
        let peer = key(1);
        node.join(peer, host(1), None, 1);
        for _ in 0..2 {
            node.give(Input::Penalise { peer, penalty: Penalty::BadSignature });
        }
        let automatic: Vec<_> = node.manager.bans().cloned().collect();
        assert_eq!(automatic.len(), 1);
        match by_address {
            true => node.add(1, Role::Persistent),
            false => node.give(Input::SetClass { peer, class: PeerClass::Persistent, on: true }),
        }
        assert_eq!(node.manager.bans().count(), 0);
        node.join(peer, host(1), None, 2);
        assert_eq!(node.manager.connected().count(), 1);
        // Nor does it come back out of the store.
        node.give(Input::Bans { bans: automatic });
        assert_eq!((node.manager.bans().count(), node.manager.connected().count()), (0, 1));
        let now = node.now;
        node.manager.ban(now, peerage_peers::BanTarget::Peer(peer), "spam", None).unwrap();
        node.give(Input::SetClass { peer, class: PeerClass::Persistent, on: false });
        node.give(Input::SetClass { peer, class: PeerClass::Persistent, on: true });
        assert_eq!(node.manager.bans().count(), 1);
    }
}

/// A kill costs at most half of the time that a connection has lasted.
#[test]
fn how_long_a_peer_is_connected_is_stored_while_it_is() {
    let mut node = Lone::new(PeersConfig::default());
    node.give(Input::Load { peers: Vec::new() });
    node.add(1, Role::Known);
    let (attempt, peer) = node.dials.pop().unwrap();
    let conn = node.join(peer, host(1), Some(attempt), 1);
    let stored = |node: &Lone| node.stored[&peer.to_string()].connected_seconds;
    let mut last = 0;
    for hour in 1..=7 * 24 {
        node.pass(secs(3600));
        let now = stored(&node);
        assert!((hour * 1800..=hour * 3600).contains(&now) && now >= last, "hour {hour}: {now} s");
        last = now;
    }
    node.close(conn);
    node.pass(secs(5));
    assert_eq!(stored(&node), 7 * 24 * 3600);
}

/// What a file says was proved, was proved to somebody else.
#[test]
fn an_imported_book_is_hearsay_until_its_peers_were_dialled() {
    let mut world = World::new(1);
    let nodes: Vec<_> = (0..6).map(|_| world.add(PeersConfig::default())).collect();
    nodes[1..].iter().for_each(|node| world.seed_with(*node, nodes[0], Role::Seed));
    world.run_for(secs(200));
    let exported: Vec<BookEntry> = world.nodes[nodes[0]].manager.export_book().collect();
    assert!(exported.iter().any(|entry| entry.addresses.iter().any(|at| at.last_seen.is_some())));
    let read = || exported.iter().map(|entry| StoredPeer::read(entry).unwrap()).collect();
    let fresh = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    world.give(fresh, Input::Import { peers: read() });
    let entries: Vec<_> = world.nodes[fresh].manager.export_book().collect();
    assert_eq!(entries.len(), exported.len());
    for entry in &entries {
        assert_eq!(entry.connected_seconds, 0);
        for at in &entry.addresses {
            assert_eq!((at.source, at.last_seen, at.successes), (Source::Hearsay, None, 0), "{entry:?}");
        }
    }
    let asker = world.add(PeersConfig::default());
    world.seed_with(asker, fresh, Role::Seed);
    world.run_for(secs(3));
    let (now, id) = (world.now(), world.id(asker));
    assert_eq!(world.nodes[fresh].manager.answer_exchange(now, id, 30), Some(Vec::new()));
    // They are good enough to find peers.
    let hungry = world.add(PeersConfig::default());
    world.give(hungry, Input::Import { peers: read() });
    world.run_for(secs(20));
    assert!(!world.peers_of(hungry).is_empty());
}
