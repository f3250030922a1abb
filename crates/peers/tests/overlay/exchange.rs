//! What peers tell of others, and what it costs them to lie.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use peerage_identity::{DialAddress, SignedPeerRecord};
use peerage_peers::{Input, PeerEvent, PeersConfig, Penalty, Role, Target, Ticket};

use crate::support::{World, secs};

fn at(octets: [u8; 4], port: u16) -> DialAddress {
    DialAddress::from_socket_addr(SocketAddr::from((octets, port))).unwrap()
}

/// Records by `count` keys that nobody uses, all of them at `address`.
fn sybils(world: &World, first: u64, count: u64, address: &DialAddress) -> Vec<SignedPeerRecord> {
    let sign = |number| SignedPeerRecord::sign(&world.stranger_key(number), 1, std::slice::from_ref(address));
    (first..first + count).map(|number| sign(number).unwrap()).collect()
}

/// One node that dialled another, and the connection between them.
fn pair(seed: u64) -> (World, usize, usize, peerage_peers::ConnId) {
    let mut world = World::new(seed);
    let (asker, teller) = (world.add(PeersConfig::default()), world.add(PeersConfig::default()));
    world.seed_with(asker, teller, Role::Seed);
    world.run_for(secs(2));
    let conn = world.nodes[asker].manager.connected().next().unwrap().conn;
    (world, asker, teller, conn)
}

/// answers that nobody waits for hold nothing up.
#[test]
fn an_answer_that_was_not_asked_for_is_not_used_and_four_are_a_ban() {
    let (mut world, asker, teller, conn) = pair(1);
    let peer = world.id(teller);
    let dead = at([80, 0, 0, 1], 1);
    // The open questions are used up by answers of nothing.
    for _ in 0..10 {
        world.give(asker, Input::Learned { conn, records: Vec::new() });
        if world.nodes[asker].events.iter().any(|(_, e)| matches!(e, PeerEvent::Penalised { .. })) {
            break;
        }
    }
    let known = world.nodes[asker].manager.known_peers();
    for round in 0..3 {
        assert_eq!(world.peers_of(asker), BTreeSet::from([teller]), "round {round}");
        let records = sybils(&world, 10 * round, 1, &dead);
        world.give(asker, Input::Learned { conn, records });
    }
    assert_eq!(world.nodes[asker].manager.known_peers(), known);
    let banned = PeerEvent::Penalised { peer, penalty: Penalty::Unsolicited, banned: true };
    assert!(world.nodes[asker].events.iter().any(|(_, event)| *event == banned));
    assert_eq!(world.peers_of(asker), BTreeSet::new());
}

#[test]
fn an_answer_of_more_than_was_asked_for_is_not_used_and_costs_its_sender() {
    let mut world = World::new(2);
    let asker = world.add(PeersConfig::default());
    let liar = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    world.nodes[liar].says = Some(sybils(&world, 0, 31, &at([80, 0, 0, 1], 1)));
    world.seed_with(asker, liar, Role::Seed);
    world.run_for(secs(60));
    assert_eq!(world.nodes[asker].manager.known_peers(), 1);
    assert!(world.nodes[asker].manager.bans().any(|ban| ban.penalty == Some(Penalty::Unsolicited)));
    assert!(world.nodes[asker].dials.len() < 3);
}

#[test]
fn who_asks_too_often_gets_no_answer_and_at_last_a_ban_and_honest_nodes_never_come_near() {
    let (mut world, asker, teller, _) = pair(3);
    let (id, now) = (world.id(asker), world.now());
    let answers = (0..30).filter(|_| world.nodes[teller].manager.answer_exchange(now, id, 30).is_some());
    assert!(answers.count() <= 4);
    assert_eq!(world.peers_of(teller), BTreeSet::from([asker]), "some questions too many are forgiven");
    for _ in 0..30 {
        world.nodes[teller].manager.answer_exchange(now, id, 30);
    }
    world.carry_out(teller);
    assert_eq!(world.peers_of(teller), BTreeSet::new());
    // Forty honest nodes that hunger for peers for an hour.
    let mut world = World::new(4);
    let nodes: Vec<_> = (0..10).map(|_| world.add(PeersConfig::default())).collect();
    nodes[1..].iter().for_each(|node| world.seed_with(*node, nodes[0], Role::Seed));
    world.run_for(secs(3600));
    let penalised = |e: &PeerEvent| matches!(e, PeerEvent::Penalised { .. });
    assert!(world.nodes.iter().all(|node| node.events.iter().all(|(_, event)| !penalised(event))));
}

/// addresses from third parties are capped per source, and never overwrite what was verified.
#[test]
fn one_teller_owns_only_so_much_of_the_book_and_changes_nothing_that_is_proved() {
    let mut world = World::new(5);
    let config = PeersConfig { max_outbound: 12, max_hearsay_per_peer: 64, ..Default::default() };
    let asker = world.add(config);
    let honest = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    let liar = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    world.seed_with(asker, honest, Role::Seed);
    world.run_for(secs(2));
    world.seed_with(asker, liar, Role::Seed);
    world.run_for(secs(2));
    let before = world.nodes[asker].manager.known_peers();
    let mut most = 0;
    for round in 0..60u64 {
        let mut records = Vec::new();
        for host in 0..30 {
            records.extend(sybils(&world, round * 30 + host, 1, &at([80, 0, round as u8, host as u8], 7)));
        }
        world.nodes[liar].says = Some(records);
        world.run_for(secs(5));
        most = most.max(world.nodes[asker].manager.known_peers());
    }
    assert_eq!(most, before + 64);
    // A newer record of the honest peer by its own key can only add to what was proved.
    let key = world.nodes[honest].key.clone();
    let newer = SignedPeerRecord::sign(&key, 99, &[at([80, 9, 9, 9], 9)]).unwrap();
    world.nodes[liar].says = Some(vec![newer]);
    world.run_for(secs(120));
    let peer = world.id(honest);
    world.give(asker, Input::Disconnect { peer });
    let dials = world.nodes[asker].dials.len();
    world.give(asker, Input::Connect { ticket: Ticket(1), target: Target::Peer(peer) });
    world.run_for(secs(2));
    assert_eq!(world.nodes[asker].answers[&Ticket(1)], Ok(peer));
    let first = &world.nodes[asker].dials[dials].1;
    assert_eq!(first.socket_addr(), Some(world.nodes[honest].address), "the proved address is tried first");
}

/// How often each of `nodes` dialled the victim's host.
fn dials_to(world: &World, nodes: &[usize], victim: &DialAddress) -> BTreeMap<usize, usize> {
    let host = victim.socket_addr().unwrap().ip();
    let count = |node: &usize| {
        let dials = world.nodes[*node].dials.iter();
        dials.filter(|(_, to)| to.socket_addr().is_some_and(|to| to.ip() == host)).count()
    };
    nodes.iter().map(|node| (*node, count(node))).filter(|(_, count)| *count > 0).collect()
}

/// A liar that connects to everybody from the first moment on, says that it lives at a victim's address, tells of sybils there, hangs up and comes
/// back: nobody ever dials the victim.
#[test]
fn a_liar_cannot_make_a_hundred_nodes_dial_a_victim() {
    for seed in 0..3 {
        let mut world = World::new(seed);
        world.checks = false;
        let nodes: Vec<_> = (0..100).map(|_| world.add(PeersConfig::default())).collect();
        nodes[1..].iter().for_each(|node| world.seed_with(*node, nodes[0], Role::Seed));
        let liar = world.add(PeersConfig { max_inbound: 200, max_outbound: 200, ..Default::default() });
        let victim = at([99, 9, 9, 9], 53);
        let own = world.address(liar).without_peer_id();
        let claim = SignedPeerRecord::sign(&world.nodes[liar].key, 2, &[victim.clone(), own]).unwrap();
        world.nodes[liar].record = claim;
        world.nodes[liar].says = Some(sybils(&world, 0, 30, &victim));
        let mut reached = BTreeSet::new();
        for round in 0..12u64 {
            for node in &nodes {
                let address = world.address(*node);
                world.give(liar, Input::Connect { ticket: Ticket(1), target: Target::Address(address) });
            }
            world.run_for(secs(290));
            reached.extend(world.peers_of(liar));
            // Other names each time, and a new start.
            world.nodes[liar].says = Some(sybils(&world, 30 * (round + 1), 30, &victim));
            world.crash(liar);
            world.notice(liar, secs(1));
            world.run_for(secs(10));
            world.restart(liar);
        }
        assert!(reached.len() > 90, "seed {seed}: the liar was heard by {} nodes only", reached.len());
        let dials = dials_to(&world, &nodes, &victim);
        assert!(dials.is_empty(), "seed {seed}: nodes dialled the victim: {dials:?}");
    }
}

/// What a liar gets at most of each node that believes it, in an hour: one dial, and three more with pauses of five, ten and twenty minutes between them.
const DIALS_IN_AN_HOUR: usize = 4;

/// Lies about `count` peers at as many ports of the victim's host.
fn lies(world: &World, first: u64, count: u64, port: u16) -> Vec<SignedPeerRecord> {
    let at_port = |number: u64| at([99, 9, 9, 9], port + number as u16);
    (0..count).flat_map(|number| sybils(world, first + number, 1, &at_port(number))).collect()
}

/// Even a liar that is the one contact of all of them, and names ever new peers at ever new ports, gets of each node no more than the budget of an address
/// where nobody was ever found.
#[test]
fn a_liar_that_everybody_has_chosen_gets_no_more_than_the_budget_of_an_address() {
    let mut world = World::new(9);
    world.checks = false;
    let liar = world.add(PeersConfig { max_inbound: 200, max_outbound: 0, ..Default::default() });
    let nodes: Vec<_> = (0..40).map(|_| world.add(PeersConfig::default())).collect();
    nodes.iter().for_each(|node| world.seed_with(*node, liar, Role::Seed));
    for round in 0..29u64 {
        world.nodes[liar].says = Some(lies(&world, round * 30, 30, 1000 + round as u16 * 30));
        world.run_for(secs(120));
        let dials = dials_to(&world, &nodes, &at([99, 9, 9, 9], 1));
        let first = if round < 2 { 1 } else { DIALS_IN_AN_HOUR };
        assert!(dials.values().all(|count| *count <= first), "round {round}: {dials:?}");
    }
    let dials = dials_to(&world, &nodes, &at([99, 9, 9, 9], 1));
    assert_eq!(dials.len(), nodes.len(), "the lies were believed by nobody: this test proves nothing");
}

/// A liar that some nodes dial, and that all of them know: its lies go no further than to those whom it tells them. All have free places for the whole hour, so that
/// whoever believes a lie dials as often as its budget lets it.
#[test]
fn a_liar_whom_others_dial_makes_nobody_else_dial_a_victim() {
    let mut world = World::new(10);
    world.checks = false;
    let hungry = PeersConfig { max_inbound: 60, max_outbound: 60, ..Default::default() };
    let nodes: Vec<_> = (0..40).map(|_| world.add(hungry.clone())).collect();
    nodes[1..].iter().for_each(|node| world.seed_with(*node, nodes[0], Role::Seed));
    // It has room for a quarter of them.
    let liar = world.add(PeersConfig { max_inbound: 10, max_outbound: 0, ..Default::default() });
    nodes[20..30].iter().for_each(|node| world.seed_with(*node, liar, Role::Seed));
    for round in 0..29u64 {
        world.nodes[liar].says = Some(lies(&world, round * 30, 30, 1000 + round as u16 * 30));
        world.run_for(secs(120));
    }
    let victim = at([99, 9, 9, 9], 1).socket_addr().unwrap().ip();
    let is_lie = |record: &SignedPeerRecord| record.addresses()[0].socket_addr().unwrap().ip() == victim;
    let (by_liar, by_others): (Vec<_>, Vec<_>) =
        world.told.iter().filter(|told| is_lie(&told.record)).partition(|told| told.from == liar);
    assert_eq!(by_others.len(), 0, "the lies were passed on");
    let heard: BTreeSet<_> = by_liar.iter().map(|told| told.to).collect();
    let id = world.id(liar);
    let known = nodes.iter().filter(|node| world.nodes[**node].manager.state(&id).is_some());
    assert_eq!(known.count(), nodes.len(), "the liar is not known to all");
    assert!(
        heard.len() < nodes.len() / 2,
        "{} nodes were told the lies: too many to see others",
        heard.len()
    );
    let dials = dials_to(&world, &nodes, &at([99, 9, 9, 9], 1));
    assert!(dials.keys().all(|node| heard.contains(node)), "{dials:?}");
    assert!(dials.values().all(|count| *count <= DIALS_IN_AN_HOUR), "{dials:?}");
    let most = dials.values().filter(|count| **count == DIALS_IN_AN_HOUR).count();
    assert!(most >= 8, "few were at their bound, so it was not tested: {dials:?}");
}

/// A liar that is where it says, and also behind a name that leads to a victim: nobody passes the name on, and nobody but those who ask the liar dials names.
#[test]
fn a_name_that_nobody_has_proved_is_not_passed_on() {
    let mut world = World::new(11);
    world.checks = false;
    let nodes: Vec<_> = (0..30).map(|_| world.add(PeersConfig::default())).collect();
    nodes[1..].iter().for_each(|node| world.seed_with(*node, nodes[0], Role::Seed));
    let liar = world.add(PeersConfig { max_outbound: 0, ..Default::default() });
    nodes[10..20].iter().for_each(|node| world.seed_with(*node, liar, Role::Seed));
    let (own, name) = (world.address(liar).without_peer_id(), "/dnsaddr/evil.example".parse().unwrap());
    world.nodes[liar].record = SignedPeerRecord::sign(&world.nodes[liar].key, 2, &[own, name]).unwrap();
    world.run_for(secs(3600));
    let named = |record: &SignedPeerRecord| record.addresses().iter().any(|at| at.socket_addr().is_none());
    assert!(world.told.iter().any(|told| told.from == liar && named(&told.record)));
    assert!(world.told.iter().all(|told| told.from == liar || !named(&told.record)));
    let to_name =
        |node: &usize| world.nodes[*node].dials.iter().filter(|(_, to)| to.socket_addr().is_none()).count();
    let dials: Vec<_> = nodes.iter().map(to_name).collect();
    assert!(dials.iter().all(|count| *count <= 3), "{dials:?}");
}
