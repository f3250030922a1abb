//! Connections for a while: who may have one, how it ends, and how it becomes an ordinary one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_peers::{
    BanTarget, Cause, CloseReason, Direction, DoorState, Failure, Fault, Input, PeerClass, PeerState,
    PeersConfig, RejectReason, Role, Target, Ticket,
};

use crate::lone::{Lone, host, key};
use crate::support::{World, secs};

/// A node that dials nobody but whom it is told to.
fn passive() -> PeersConfig {
    PeersConfig { max_outbound: 0, ..Default::default() }
}

/// `from` visits `to`, of which a third party has told.
fn visit(world: &mut World, from: usize, to: usize, ticket: u64) {
    let (peer, addresses) = (world.id(to), vec![world.address(to)]);
    let told_from = Some(AddressScope::Global);
    world.give(from, Input::Visit { ticket: Ticket(ticket), peer, addresses, told_from });
}

fn connect(world: &mut World, from: usize, to: usize) {
    let target = Target::Address(world.address(to));
    world.give(from, Input::Connect { ticket: Ticket(9000), target });
}

fn answer(world: &World, node: usize, ticket: u64) -> Option<Result<PeerId, Failure>> {
    world.nodes[node].answers.get(&Ticket(ticket)).cloned()
}

fn fault(world: &World, node: usize, ticket: u64) -> Fault {
    answer(world, node, ticket).expect("an answer").expect_err("a failure").fault
}

/// Whom a node is connected to, and whether each is a visit.
fn visits(world: &World, node: usize) -> BTreeSet<(usize, bool)> {
    let index = |id| (0..world.nodes.len()).find(|n| world.id(*n) == id).unwrap();
    world.nodes[node].manager.connected().map(|peer| (index(peer.peer), peer.visit)).collect()
}

fn visit_at(node: &mut Lone, ticket: u64, peer: PeerId, at: SocketAddr) {
    let addresses = vec![DialAddress::from_socket_addr(at).unwrap()];
    let told_from = Some(AddressScope::Global);
    node.give(Input::Visit { ticket: Ticket(ticket), peer, addresses, told_from });
}

/// Another's visit, from its handshake to its admission.
fn is_visited(node: &mut Lone, peer: PeerId, remote: SocketAddr) -> peerage_peers::ConnId {
    let conn = node.handshaken(peer, remote, None);
    node.hello_of(conn, 1, true);
    let accept = peerage_peers::PeerAnswer::Accept { order: 2, stay: false };
    node.give(Input::Answered { conn, answer: accept });
    conn
}

#[test]
fn a_node_whose_places_are_taken_still_takes_visits_and_each_ends_when_it_is_not_used() {
    let mut world = World::new(1);
    let hub = world.add(PeersConfig { max_inbound: 1, ..passive() });
    let (guest, visitor) = (world.add(passive()), world.add(passive()));
    connect(&mut world, guest, hub);
    world.run_for(secs(1));
    visit(&mut world, visitor, hub, 1);
    world.run_for(secs(1));
    assert_eq!(answer(&world, visitor, 1), Some(Ok(world.id(hub))));
    assert_eq!(visits(&world, hub), [(guest, false), (visitor, true)].into());
    let gauges = |world: &World, node: usize| {
        let gauges = world.nodes[node].manager.gauges();
        (gauges.outbound_visits, gauges.inbound_visits)
    };
    assert_eq!((gauges(&world, visitor), gauges(&world, hub)), ((1, 0), (0, 1)));
    let (now, peer) = (world.now(), world.id(hub));
    let story = world.nodes[visitor].manager.why(now, &peer);
    assert_eq!(story.cause, Cause::Visit);
    assert!(story.summary.contains("for a visit"), "{story}");
    assert!(story.history.iter().any(|entry| entry.cause == Cause::VisitAsked), "{story}");
    // It is used, and lasts on.
    for _ in 0..4 {
        world.run_for(secs(40));
        world.give(visitor, Input::Used { peer });
    }
    assert_eq!(visits(&world, visitor), [(hub, true)].into());
    world.run_for(secs(59));
    assert_eq!(visits(&world, visitor), [(hub, true)].into());
    world.run_for(secs(2));
    assert_eq!((visits(&world, visitor), visits(&world, hub)), ([].into(), [(guest, false)].into()));
    assert_eq!(world.nodes[visitor].closed.last().unwrap().1, CloseReason::VisitOver);
    // Nobody is charged: it can be visited again at once, and no timer is left.
    let wakes = world.nodes[visitor].wakes;
    world.run_for(secs(600));
    assert!(world.nodes[visitor].wakes <= wakes + 2);
    visit(&mut world, visitor, hub, 2);
    world.run_for(secs(1));
    assert_eq!(answer(&world, visitor, 2), Some(Ok(peer)));
    let failures =
        |node: usize| world.nodes[node].manager.export_book().map(|entry| entry.failures).sum::<u32>();
    assert_eq!((failures(visitor), failures(hub)), (0, 0));
}

#[test]
fn the_idlest_visitor_gives_way_to_the_next_but_none_that_is_young() {
    let config = PeersConfig { max_inbound: 0, max_inbound_visits: 3, ..passive() };
    let mut node = Lone::new(config);
    let conns: Vec<_> = (0..3).map(|number| is_visited(&mut node, key(number), host(number))).collect();
    assert_eq!(node.manager.connected().count(), 3);
    is_visited(&mut node, key(3), host(3));
    assert_eq!(node.refused.last().map(|(_, reason)| *reason), Some(RejectReason::Full));
    // After their grace the one that has asked nothing for longest goes.
    node.pass(secs(5));
    node.give(Input::Used { peer: key(0) });
    is_visited(&mut node, key(4), host(4));
    assert_eq!(node.closed, [(conns[1], CloseReason::VisitTrimmed)]);
    is_visited(&mut node, key(5), host(5));
    assert_eq!(node.closed.last(), Some(&(conns[2], CloseReason::VisitTrimmed)));
    let left: BTreeSet<_> = node.manager.connected().map(|peer| peer.peer).collect();
    assert_eq!(left, [key(0), key(4), key(5)].into());
    // A peer takes one place, however often it comes.
    let refused = node.refused.len();
    for order in 1..20 {
        let conn = node.handshaken(key(0), host(0), None);
        node.hello_of(conn, 10 * order, true);
        let accept = peerage_peers::PeerAnswer::Accept { order: 10 * order + 1, stay: false };
        node.give(Input::Answered { conn, answer: accept });
    }
    assert_eq!((node.refused.len(), node.manager.gauges().inbound_visits), (refused, 3));
}

/// beside the counts of other connections, and never more.
#[test]
fn visitors_from_one_address_and_one_subnet_are_capped_in_counts_of_their_own() {
    let mut node = Lone::new(passive());
    let at = |host: u8, port: u16| SocketAddr::from(([30, 0, 0, host], 4000 + port));
    for port in 0..20 {
        is_visited(&mut node, key(port), at(1, port as u16));
        node.join(key(100 + port), at(1, 100 + port as u16), None, 1);
    }
    let count =
        |node: &Lone, visit: bool| node.manager.connected().filter(|peer| peer.visit == visit).count();
    assert_eq!((count(&node, true), count(&node, false)), (8, 8));
    for port in 0..20 {
        is_visited(&mut node, key(200 + port), at(2 + port as u8, 0));
    }
    assert_eq!((count(&node, true), node.refused.len()), (16, 12 + 12 + 12));
    is_visited(&mut node, key(300), host(1));
    assert_eq!(count(&node, true), 17, "elsewhere there is room");
    // The idlest of the same block makes room, nobody else.
    node.pass(secs(6));
    is_visited(&mut node, key(301), at(1, 99));
    assert_eq!((count(&node, true), node.closed.len()), (17, 1));
    let there = node.manager.connected().any(|peer| peer.peer == key(300));
    assert!(there, "{:?}", node.closed);
    for port in 0..30 {
        let remote = SocketAddr::from(([127, 0, 0, 1], 5000 + port));
        is_visited(&mut node, key(400 + u64::from(port)), remote);
    }
    assert_eq!(count(&node, true), 47, "loopback is exempt");
}

#[test]
fn no_more_visits_are_held_than_the_limit_says_and_the_one_used_least_lately_ends() {
    let mut world = World::new(2);
    let config = PeersConfig { max_outbound_visits: 4, max_parallel_visits: 3, ..passive() };
    let me = world.add(config);
    let others: Vec<_> = (0..12).map(|_| world.add(passive())).collect();
    for (number, other) in others.iter().take(4).enumerate() {
        visit(&mut world, me, *other, number as u64);
        world.run_for(secs(1));
    }
    assert_eq!(world.peers_of(me), others[..4].iter().copied().collect());
    // Asking and visiting again are use.
    let peer = world.id(others[0]);
    world.give(me, Input::Used { peer });
    visit(&mut world, me, others[1], 50);
    assert_eq!(answer(&world, me, 50), Some(Ok(world.id(others[1]))));
    visit(&mut world, me, others[4], 4);
    world.run_for(secs(1));
    assert_eq!(world.peers_of(me), [0, 1, 3, 4].map(|n| others[n]).into());
    for (number, other) in others.iter().enumerate().skip(5) {
        visit(&mut world, me, *other, number as u64);
    }
    for _ in 0..200 {
        world.run_for(Duration::from_millis(10));
        assert!(world.peers_of(me).len() <= 4);
    }
    assert!((0..12).all(|ticket| answer(&world, me, ticket).is_some_and(|answer| answer.is_ok())));
    world.assert_agreement();
}

#[test]
fn visits_are_dialled_in_slots_and_within_a_budget_of_their_own() {
    let config = PeersConfig {
        max_parallel_visits: 5,
        max_waiting_visits: 30,
        visit_burst: 8.0,
        visits_per_second: 2.0,
        ..Default::default()
    };
    let mut node = Lone::new(config);
    for number in 0..40 {
        visit_at(&mut node, number, key(number), host(number));
    }
    assert_eq!((node.dials.len(), node.manager.gauges().waiting_visits), (5, 30), "five more were refused");
    // Ordinary dials have slots and a budget besides.
    for number in 100..103 {
        node.add(number, Role::Known);
    }
    assert_eq!(node.dials.split_off(5).len(), 3);
    let failure = || Failure::from(Fault::Timeout);
    let mut begun = 5;
    for round in 1..=20 {
        for (attempt, _) in std::mem::take(&mut node.dials) {
            node.give(Input::DialFailed { attempt, failure: failure() });
        }
        let now = node.dials.iter().filter(|(_, peer)| (0..40).any(|n| key(n) == *peer)).count();
        node.dials.retain(|(_, peer)| (0..40).any(|n| key(n) == *peer));
        begun += now;
        assert!(now <= 5 && begun <= 8 + 2 * round, "{begun} dials after {round} s");
        node.pass(secs(1));
        begun += node.dials.iter().filter(|(_, peer)| (0..40).any(|n| key(n) == *peer)).count() - now;
    }
    assert_eq!((begun, node.manager.gauges().waiting_visits), (35, 0));
    // Who waits no longer needs no dial.
    for number in 50..60 {
        visit_at(&mut node, number, key(number), host(number));
    }
    let waiting = node.manager.gauges().waiting_visits;
    assert!(waiting > 0);
    node.give(Input::CancelVisits { tickets: (50..60).map(Ticket).collect() });
    assert_eq!(node.manager.gauges().waiting_visits, 0);
}

/// The user's wish to reach a peer of which others told: once for each, whatever failed lately, before what the book has, and into no network that they may not name.
#[test]
fn a_peer_that_the_user_wants_is_dialled_where_others_say_whatever_failed_lately() {
    let mut node = Lone::new(PeersConfig { max_outbound_visits: 0, ..passive() });
    let reach = |node: &mut Lone, ticket: u64, peer: u64, ips: &[&str]| {
        let at = |ip: &&str| format!("/ip4/{ip}/udp/1/quic-v1").parse::<DialAddress>().unwrap();
        let addresses = ips.iter().map(at).collect();
        let dials = node.routes.len();
        let (ticket, told_from) = (Ticket(ticket), AddressScope::Global);
        node.give(Input::Reach { ticket, peer: key(peer), addresses, told_from });
        let routes = node.routes[dials..].first().cloned().unwrap_or_default();
        routes.iter().map(|address| address.socket_addr().unwrap().ip().to_string()).collect::<Vec<_>>()
    };
    assert!(reach(&mut node, 1, 1, &["10.0.0.1", "127.0.0.1"]).is_empty());
    assert_eq!(node.manager.known_peers(), 0);
    for ticket in 2..8 {
        assert_eq!(reach(&mut node, ticket, 1, &["10.0.0.1", "60.0.0.1"]), ["60.0.0.1"]);
        let attempt = node.dials.last().unwrap().0;
        node.give(Input::DialFailed { attempt, failure: Failure::from(Fault::Timeout) });
    }
    assert_eq!(node.manager.known_peers(), 0, "the book holds nothing of it");
    // Four addresses that the book has are behind the one that others say.
    for number in 1..5 {
        let address = format!("/ip4/61.0.0.{number}/udp/1/quic-v1/p2p/{}", key(2)).parse().unwrap();
        node.give(Input::Add { address, role: Role::Known });
    }
    let routes = reach(&mut node, 9, 2, &["60.0.0.2"]);
    assert_eq!((routes.len(), routes[0].as_str()), (4, "60.0.0.2"));
}

/// Two dials of a peer go to different addresses: whoever waits for the slower one has the connection that the faster one made, and keeps it.
#[test]
fn who_waits_for_the_slower_of_two_dials_has_what_the_faster_one_made() {
    let mut node = Lone::new(passive());
    let at = |number| vec![DialAddress::from_socket_addr(host(number)).unwrap()];
    let told_from = AddressScope::Global;
    let peer = key(1);
    node.give(Input::Visit { ticket: Ticket(1), peer, addresses: at(1), told_from: Some(told_from) });
    node.give(Input::Reach { ticket: Ticket(2), peer, addresses: at(2), told_from });
    let [(first, _), (second, _)] = node.dials[..] else { panic!("two dials") };
    node.join(peer, host(1), Some(first), 1);
    node.handshaken(peer, host(2), Some(second));
    assert_eq!(node.answers, [(Ticket(1), Ok(peer)), (Ticket(2), Ok(peer))]);
    assert!(node.manager.connected().all(|one| !one.visit), "the user's is no visit");
}

/// One address that is not banned is enough, whoever names it.
#[test]
fn a_peer_whose_known_addresses_are_banned_is_reached_where_others_say() {
    let mut node = Lone::new(passive());
    node.add(1, Role::Known);
    let now = node.now;
    node.manager.ban(now, BanTarget::address(host(1).ip()), "test", None).unwrap();
    let addresses = |number| vec![DialAddress::from_socket_addr(host(number)).unwrap()];
    let (peer, told_from) = (key(1), AddressScope::Global);
    node.give(Input::Reach { ticket: Ticket(1), peer, addresses: addresses(1), told_from });
    assert_eq!((node.dials.len(), node.answers.len()), (0, 1));
    node.give(Input::Reach { ticket: Ticket(2), peer, addresses: addresses(2), told_from });
    assert_eq!(node.routes, [addresses(2)]);
}

#[test]
fn a_visit_goes_only_where_its_teller_may_point_and_within_the_budgets_of_unproved_addresses() {
    let mut node = Lone::new(PeersConfig::default());
    let try_at = |node: &mut Lone, ticket: u64, at: &str, told_from| {
        let addresses = vec![at.parse().unwrap()];
        let peer = key(ticket);
        let dials = node.dials.len();
        node.give(Input::Visit { ticket: Ticket(ticket), peer, addresses, told_from });
        node.dials.len() > dials
    };
    let global = Some(AddressScope::Global);
    for at in ["/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/192.0.2.1/udp/1/quic-v1"]
    {
        assert!(!try_at(&mut node, 1, at, global), "{at}");
        assert!(
            at.contains("192") || try_at(&mut node, 2 + at.len() as u64, at, Some(AddressScope::Loopback))
        );
    }
    let elsewhere = format!("/ip4/60.0.0.1/udp/1/quic-v1/p2p/{}", key(77));
    assert!(!try_at(&mut node, 3, &elsewhere, global), "somebody else is said to be there");
    let here: DialAddress = "/ip4/60.0.0.9/udp/9/quic-v1".parse().unwrap();
    node.give(Input::Announced { addresses: vec![here.clone()] });
    assert!(!try_at(&mut node, 4, &here.to_string(), global), "that is this node");
    let (now, target) = (node.now, BanTarget::address([60, 9, 0, 1].into()));
    node.manager.ban(now, target, "spam", None).unwrap();
    assert!(!try_at(&mut node, 5, "/ip4/60.9.0.1/udp/9/quic-v1", global), "banned");
    // Many made up peers at one victim's address: it is dialled once, and again after minutes.
    let mut dialled = 0;
    for number in 100..200 {
        dialled += usize::from(try_at(&mut node, number, "/ip4/70.0.0.1/udp/1/quic-v1", global));
        for (attempt, _) in std::mem::take(&mut node.dials) {
            node.give(Input::DialFailed { attempt, failure: Failure::from(Fault::Timeout) });
        }
        node.pass(Duration::from_millis(500));
        dialled += std::mem::take(&mut node.dials).len();
    }
    assert_eq!(dialled, 1);
}

#[test]
fn several_visits_to_one_address_wait_for_each_other_when_peers_are_found_there() {
    let mut world = World::new(3);
    let me = world.add(passive());
    let others: Vec<_> =
        (0..6).map(|port| world.add_at(passive(), SocketAddr::from(([40, 0, 0, 1], 4000 + port)))).collect();
    for (number, other) in others.iter().enumerate() {
        visit(&mut world, me, *other, number as u64);
    }
    world.run_for(secs(4));
    assert_eq!(world.peers_of(me), others.iter().copied().collect());
}

#[test]
fn a_visit_that_can_come_to_nothing_fails_at_once_with_the_reason() {
    let mut world = World::new(4);
    let (me, other) = (world.add(passive()), world.add(passive()));
    let stranger = world.stranger(1);
    let visit_to = |world: &mut World, ticket: u64, peer: PeerId, addresses: Vec<DialAddress>| {
        world.give(me, Input::Visit { ticket: Ticket(ticket), peer, addresses, told_from: None });
    };
    let my_id = world.id(me);
    visit_to(&mut world, 1, my_id, vec![]);
    assert_eq!(fault(&world, me, 1), Fault::RefusedByUs(RejectReason::SelfDial));
    visit_to(&mut world, 2, stranger, vec![]);
    assert_eq!(fault(&world, me, 2), Fault::NoAddress);
    let inside = "/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap();
    let told_from = Some(AddressScope::Global);
    world.give(me, Input::Visit { ticket: Ticket(3), peer: stranger, addresses: vec![inside], told_from });
    assert_eq!(fault(&world, me, 3), Fault::OutOfScope);
    let (now, peer) = (world.now(), world.id(other));
    world.nodes[me].manager.ban(now, BanTarget::Peer(peer), "spam", None).unwrap();
    visit(&mut world, me, other, 4);
    assert_eq!(fault(&world, me, 4), Fault::Banned);
    world.nodes[me].manager.unban(now, BanTarget::Peer(peer));
    world.give(me, Input::SetAllowed { peers: Some([my_id].into()) });
    visit(&mut world, me, other, 5);
    assert_eq!(fault(&world, me, 5), Fault::NotAllowed);
    world.give(me, Input::SetAllowed { peers: None });
    // It fails, and is not tried again before its backoff is over; nor is its address, of which only third parties tell.
    world.crash(other);
    world.seed_with(me, other, Role::Known);
    visit(&mut world, me, other, 6);
    while answer(&world, me, 6).is_none() {
        world.run_for(Duration::from_millis(10));
    }
    visit(&mut world, me, other, 8);
    let failure = answer(&world, me, 8).expect("at once").unwrap_err();
    assert_eq!(failure.fault, Fault::VisitTooSoon, "{failure}");
    assert!(failure.retry_after.is_some_and(|wait| wait <= secs(600)));
    world.give(me, Input::Disconnect { peer });
    visit(&mut world, me, other, 9);
    assert_eq!(fault(&world, me, 9), Fault::Disconnected);
    let unknown = world.add(passive());
    world.crash(unknown);
    visit(&mut world, me, unknown, 10);
    world.run_for(secs(6));
    assert_eq!(fault(&world, me, 10), Fault::Timeout);
    world.give(me, Input::ShutDown);
    visit(&mut world, me, unknown, 11);
    assert_eq!(fault(&world, me, 11), Fault::ThisNodeCloses);
    let off = world.add(PeersConfig { max_outbound_visits: 0, ..passive() });
    visit(&mut world, off, unknown, 12);
    assert_eq!(fault(&world, off, 12), Fault::TooManyVisits);
}

/// A liar who names wrong addresses of a peer keeps nobody from visiting it where it is.
#[test]
fn an_address_that_a_third_party_made_up_is_remembered_and_charged_to_nobody_else() {
    let mut node = Lone::new(PeersConfig::default());
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let ask = |node: &mut Lone, ticket: u64, port: u16| {
        let addresses = vec![DialAddress::from_socket_addr(loopback(port)).unwrap()];
        let told_from = Some(AddressScope::Loopback);
        let before = node.dials.len();
        node.give(Input::Visit { ticket: Ticket(ticket), peer: key(1), addresses, told_from });
        node.dials.len() > before
    };
    assert!(ask(&mut node, 1, 1));
    let (attempt, _) = node.dials[0];
    node.give(Input::DialFailed { attempt, failure: Failure::from(Fault::WrongKey) });
    assert!(!ask(&mut node, 2, 1), "not at that address");
    assert!(ask(&mut node, 3, 2), "but at another");
    node.join(key(1), loopback(2), Some(node.dials[1].0), 1);
    assert_eq!(node.manager.connected().count(), 1);
}

#[test]
fn a_visit_joins_what_is_there_or_under_way() {
    let mut world = World::new(5);
    let (me, other) = (world.add(passive()), world.add(passive()));
    connect(&mut world, me, other);
    visit(&mut world, me, other, 1);
    world.run_for(secs(1));
    visit(&mut world, me, other, 2);
    assert_eq!(world.nodes[me].dials.len(), 1);
    let peer = world.id(other);
    assert_eq!([1, 2].map(|ticket| answer(&world, me, ticket)), [Some(Ok(peer)), Some(Ok(peer))]);
    assert_eq!(visits(&world, me), [(other, false)].into(), "the user's connection stays what it is");
    world.run_for(secs(300));
    assert_eq!(visits(&world, other), [(me, false)].into());
    let third = world.add(passive());
    for ticket in 3..6 {
        visit(&mut world, me, third, ticket);
    }
    world.run_for(secs(1));
    assert_eq!(world.nodes[me].dials.len(), 2);
    assert!((3..6).all(|ticket| answer(&world, me, ticket).is_some_and(|answer| answer.is_ok())));
}

#[test]
fn a_visit_becomes_an_ordinary_connection_when_the_user_or_the_dial_queue_wants_one() {
    let by_user: fn(&mut World, usize, usize) = |world, me, other| connect(world, me, other);
    let persistent: fn(&mut World, usize, usize) = |world, me, other| {
        let peer = world.id(other);
        world.give(me, Input::SetClass { peer, class: PeerClass::Persistent, on: true });
    };
    for (number, wants) in [by_user, persistent].into_iter().enumerate() {
        // Before the dial has ended, while the hellos are under way, and afterwards.
        for after in [0, 60, 130, 3000] {
            let mut world = World::new(6);
            let (me, other) = (world.add(passive()), world.add(passive()));
            visit(&mut world, me, other, 1);
            world.run_for(Duration::from_millis(after));
            wants(&mut world, me, other);
            world.run_for(secs(600));
            assert_eq!(visits(&world, me), [(other, false)].into(), "{number}, {after} ms");
            assert_eq!(world.nodes[me].dials.len(), 1, "no second dial");
            world.assert_agreement();
        }
    }
    // An outbound place is free: as many visits become ordinary as there are places, without a dial.
    let mut world = World::new(7);
    let me =
        world.add(PeersConfig { max_outbound: 2, rotation_interval: Duration::ZERO, ..Default::default() });
    let others: Vec<_> = (0..3).map(|_| world.add(passive())).collect();
    for (number, other) in others.iter().enumerate() {
        visit(&mut world, me, *other, number as u64);
    }
    world.run_for(secs(2));
    let kept = || {
        visits(&world, me).into_iter().filter(|(_, visit)| !visit).map(|(peer, _)| peer).collect::<Vec<_>>()
    };
    let kept = kept();
    assert_eq!((kept.len(), world.peers_of(me).len(), world.nodes[me].dials.len()), (2, 3, 3));
    world.run_for(secs(90));
    assert_eq!(world.peers_of(me), kept.iter().copied().collect(), "the visits are over");
    // A place that is free again goes to a peer that is being visited.
    let third = *others.iter().find(|other| !kept.contains(other)).unwrap();
    visit(&mut world, me, third, 9);
    world.run_for(secs(1));
    assert!(visits(&world, me).contains(&(third, true)));
    let (peer, dials) = (world.id(kept[0]), world.nodes[me].dials.len());
    world.give(me, Input::Disconnect { peer });
    assert!(visits(&world, me).contains(&(third, false)));
    assert_eq!(world.nodes[me].dials.len(), dials);
    let (now, peer) = (world.now(), world.id(third));
    let story = world.nodes[me].manager.why(now, &peer);
    assert!(story.history.iter().any(|entry| entry.cause == Cause::Stays), "{story}");
    assert_eq!(story.cause, Cause::Admitted);
}

#[test]
fn a_visitor_that_the_user_wants_is_dialled_and_the_new_connection_takes_the_place_of_the_visit() {
    let mut world = World::new(8);
    let (me, visitor) = (world.add(passive()), world.add(passive()));
    // Where it is, this node has learned from its record.
    visit(&mut world, visitor, me, 1);
    world.run_for(secs(1));
    assert_eq!(visits(&world, me), [(visitor, true)].into());
    let peer = world.id(visitor);
    world.give(me, Input::Connect { ticket: Ticket(2), target: Target::Peer(peer) });
    assert_eq!(answer(&world, me, 2), Some(Ok(peer)));
    world.run_for(secs(300));
    assert_eq!(
        (visits(&world, me), visits(&world, visitor)),
        ([(visitor, false)].into(), [(me, false)].into())
    );
    let state = world.nodes[me].manager.state(&peer);
    assert!(
        matches!(state, Some(PeerState::Connected { direction: Direction::Outbound, visit: false, .. })),
        "{state:?}"
    );
}

#[test]
fn when_both_dial_at_once_and_one_for_a_visit_the_connection_is_ordinary_on_both_sides() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        let (a, b) = (world.add(passive()), world.add(passive()));
        visit(&mut world, a, b, 1);
        world.run_for(Duration::from_millis(seed % 150));
        connect(&mut world, b, a);
        world.run_for(secs(1));
        let ordinary = [visits(&world, a), visits(&world, b)];
        assert_eq!(ordinary, [[(b, false)].into(), [(a, false)].into()], "seed {seed}");
        world.run_for(secs(200));
        assert_eq!((world.peers_of(a), world.peers_of(b)), ([b].into(), [a].into()), "seed {seed}");
        world.assert_agreement();
        assert!(answer(&world, a, 1).is_some_and(|answer| answer.is_ok()), "seed {seed}");
    }
    for seed in 0..100 {
        let mut world = World::new(seed);
        let (a, b) = (world.add(passive()), world.add(passive()));
        visit(&mut world, a, b, 1);
        world.run_for(Duration::from_millis(seed % 100));
        visit(&mut world, b, a, 1);
        world.run_for(secs(1));
        assert_eq!(
            [visits(&world, a), visits(&world, b)],
            [[(b, true)].into(), [(a, true)].into()],
            "seed {seed}"
        );
        world.run_for(secs(130));
        assert!(world.peers_of(a).is_empty() && world.peers_of(b).is_empty(), "seed {seed}");
    }
}

/// A visitor shows only in its hello, so a full node goes on to hear strangers for as long as their refusals cost little.
#[test]
fn a_full_house_with_room_for_visitors_hears_strangers_within_a_second_budget() {
    let config = PeersConfig {
        max_inbound: 0,
        max_inbound_visits: 2,
        refusal_burst: 4.0,
        refusals_per_second: 1.0,
        plain_refusal_burst: 10.0,
        plain_refusals_per_second: 2.0,
        ..passive()
    };
    let mut node = Lone::new(config);
    let mut next = 0;
    let mut storm = |node: &mut Lone| {
        let mut heard = 0;
        for _ in 0..100 {
            if node.door.state == DoorState::Open {
                next += 1;
                let conn = node.handshaken(key(next), host(next), None);
                node.hello(conn, 1);
                heard += 1;
            }
        }
        heard
    };
    assert_eq!(storm(&mut node), 14, "four with others named, ten in few words");
    assert_eq!(node.door.state, DoorState::KnownOnly);
    // A quarter of the budget comes back, and a visitor with it.
    node.pass(Duration::from_millis(1300));
    assert_eq!(node.door.state, DoorState::Open);
    is_visited(&mut node, key(5000), host(1000));
    is_visited(&mut node, key(5001), host(1001));
    assert_eq!(node.manager.connected().filter(|peer| peer.visit).count(), 2);
    let more = storm(&mut node);
    assert!((1..=3).contains(&more), "{more}");
    // Without room for visitors either, the first budget alone counts.
    node.pass(secs(20));
    assert_eq!(storm(&mut node), 4);
}

/// Who was dialled cannot call it a visit: it is charged for hanging up, as anybody else.
#[test]
fn a_peer_that_hangs_up_and_calls_it_the_end_of_a_visit_is_not_dialled_in_a_loop() {
    let mut node = Lone::new(PeersConfig::default());
    node.add(1, Role::Known);
    let mut dials = 0;
    for order in 1..3600 {
        for (attempt, _) in std::mem::take(&mut node.dials) {
            dials += 1;
            let conn = node.join(key(1), host(1), Some(attempt), 2 * order);
            node.give(Input::Closed { conn, failure: Failure::from(Fault::VisitOver), useful: false });
        }
        node.pass(secs(1));
    }
    assert!((4..40).contains(&dials), "{dials} dials in an hour");
}
