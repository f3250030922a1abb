//! Connections that take the place of others of the same peer, and what the caps make of them.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_peers::{CloseReason, Direction, PeersConfig, Role};

use crate::lone::{Lone, host, key};

/// a peer that we dialled and that dials back stays in the place that it has.
#[test]
fn peers_that_dial_back_free_no_outbound_place() {
    let config = PeersConfig { max_outbound: 2, max_inbound: 0, ..Default::default() };
    let mut node = Lone::new(config);
    for number in 0..30 {
        node.add(number, Role::Known);
    }
    let mut dialled = 0;
    for _ in 0..40 {
        node.pass(Duration::from_millis(500));
        for (attempt, peer) in std::mem::take(&mut node.dials) {
            dialled += 1;
            let old = node.join(peer, host(dialled), Some(attempt), 10);
            node.join(peer, host(dialled), None, 20);
            assert_eq!(
                node.manager.connected().filter(|at| at.direction == Direction::Inbound).count(),
                dialled as usize
            );
            node.close(old);
            assert!(node.manager.connected().count() <= 2, "{dialled} were dialled");
        }
    }
    assert_eq!((dialled, node.manager.connected().count()), (2, 2));
    assert_eq!(node.refused, []);
    // What is free when the peer goes is the outbound place.
    let conn = node.manager.connected().next().unwrap().conn;
    node.close(conn);
    assert_eq!(node.dials.len(), 1);
}

/// a peer takes one inbound place, and its drained connections don't pile up.
#[test]
fn one_peer_that_takes_over_again_and_again_takes_one_place() {
    let mut node = Lone::new(PeersConfig { max_outbound: 0, ..Default::default() });
    let conns: Vec<_> = (0..45).map(|round| node.join(key(1), host(1), None, 10 * round + 1)).collect();
    assert_eq!(node.refused, [], "each of them takes over");
    let (admitted, draining) = (conns[44], conns[43]);
    assert_eq!(node.manager.connected().map(|peer| peer.conn).collect::<Vec<_>>(), [admitted]);
    assert!(!node.is_closed(draining), "what runs on the one before may end in peace");
    assert!(conns[..43].iter().all(|conn| node.closed.contains(&(*conn, CloseReason::Replaced))));
    for number in 0..39 {
        node.join(key(100 + number), host(100 + number), None, 1);
    }
    assert_eq!((node.refused.clone(), node.manager.connected().count()), (vec![], 40));
    node.join(key(200), host(200), None, 1);
    assert_eq!(node.refused.len(), 1, "now it is full");
    // A drained connection whose peer is gone keeps its place.
    node.close(admitted);
    node.join(key(201), host(201), None, 1);
    assert_eq!(node.refused.len(), 2);
    node.close(draining);
    node.join(key(202), host(202), None, 1);
    assert_eq!(node.refused.len(), 2);
}

/// a peer whose hellos are good and that accepts none of ours holds two connections at most.
#[test]
fn one_peer_that_answers_nothing_holds_two_connections() {
    let mut node = Lone::new(PeersConfig { max_outbound: 0, ..Default::default() });
    let mut conns = Vec::new();
    for round in 0..45 {
        let conn = node.handshaken(key(1), host(1), None);
        node.hello(conn, round + 1);
        conns.push(conn);
    }
    let open: Vec<_> = conns.iter().copied().filter(|conn| !node.is_closed(*conn)).collect();
    assert_eq!(open, [conns[0], conns[44]]);
    node.join(key(2), host(2), None, 1);
    assert_eq!(node.manager.connected().count(), 1);
}

/// the caps of addresses hold for a peer that moves, too.
#[test]
fn peers_that_move_to_one_address_don_t_exceed_its_cap() {
    let mut node = Lone::new(PeersConfig { max_outbound: 0, ..Default::default() });
    let one = SocketAddr::from(([70, 0, 0, 1], 4000));
    for number in 0..20 {
        node.join(key(number), host(number), None, 1);
    }
    for number in 0..20 {
        node.join(key(number), one, None, 10);
    }
    let there = |node: &Lone| node.manager.connected().filter(|peer| peer.address == one).count();
    assert_eq!((there(&node), node.refused.len()), (8, 12));
    // Who is there already may redial.
    let again = node.join(key(3), one, None, 20);
    assert!(node.manager.connected().any(|peer| peer.conn == again));
    assert_eq!((there(&node), node.refused.len()), (8, 12));
}
