//! Networks of whole nodes in virtual time: joining, finding, storing, and what silent peers cost.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod net;

use std::time::Duration;

use bytes::Bytes;
use net::{Manner, Net, quantile};
use peerage_dht::*;
use peerage_machine::Machine;

const MS: fn(u64) -> Duration = Duration::from_millis;
const S: fn(u64) -> Duration = Duration::from_secs;

fn target(name: &str) -> Target {
    Target::new(name.as_bytes()).unwrap()
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// A network that stands.
fn planted(seed: u64, count: usize) -> Net {
    let mut net = Net::new(seed, count, &DhtConfig::default());
    net.plant();
    net
}

fn joined(net: &Net, at: usize) -> Option<Duration> {
    let joined = |(time, event): &(Duration, Event)| matches!(event, Event::Joined { .. }).then_some(*time);
    net.nodes[at].events.iter().find_map(joined)
}

/// Scenario 12. AL-55, AL-56, X-23: a node joins through the contact that lives, however silent the other one is.
#[test]
fn forty_nodes_join_within_two_seconds_though_one_of_two_bootstrap_peers_is_a_black_hole() {
    for seed in 1..=3 {
        let mut net = Net::new(seed, 42, &DhtConfig::default());
        net.nodes[0].manner = Manner::Silent;
        net.links = true;
        let contacts: Vec<Contact> = [0, 1].map(|at| net.nodes[at].contact.clone()).into();
        let start = net.now;
        for at in 2..42 {
            net.input(at, Input::Known { contacts: contacts.clone(), source: Source::Bootstrap });
        }
        net.run(S(2));
        for at in 2..42 {
            let took =
                joined(&net, at).unwrap_or_else(|| panic!("seed {seed}: node {at} has not joined")) - start;
            assert!(took <= S(2), "seed {seed}: node {at} took {took:?}");
        }
        net.run(S(30));
        let outcome = net.find(5, Operation::FindPeer { peer: *net.nodes[33].contact.peer() });
        assert_eq!(outcome.found, Some(net.nodes[33].contact.clone()), "seed {seed}");
    }
}

#[test]
fn the_closest_are_found_though_a_seventh_is_silent() {
    let mut net = planted(7, 300);
    for at in (0..300).step_by(7) {
        net.nodes[at].manner = Manner::Silent;
    }
    let (mut right, mut took) = (0, Vec::new());
    for round in 0..40 {
        let target = target(&format!("place {round}"));
        let outcome = net.find(1 + round * 7, Operation::Closest { target: target.clone() });
        assert_eq!(outcome.ended, Ended::Complete);
        let truth = net.truth(target.key(), 20);
        right += truth.iter().filter(|contact| outcome.closest.contains(contact)).count();
        took.push(outcome.took);
        net.run(S(6));
    }
    took.sort();
    assert!(right >= 40 * 20 * 96 / 100, "{right} of 800");
    assert!(quantile(&took, 0.95) < MS(1600), "{:?}", quantile(&took, 0.95));
}

/// AL-27, AL-46: what was stored is found by a stranger, and the caller learns who holds it.
/// Contract C-48.
#[test]
fn what_is_put_is_got_by_everybody() {
    let mut net = planted(3, 300);
    let put = Operation::Put { target: target("colour"), value: value("blue"), replicas: 12 };
    let operation = net.start(0, put, Options::default());
    let outcome = net.outcome(0, operation);
    assert_eq!(outcome.ended, Ended::Stored);
    assert!(outcome.stored.len() >= 6, "{}", outcome.stored.len());
    assert!(outcome.took < MS(1500), "{:?}", outcome.took);
    net.run(S(2));
    let (id, settled) = net.nodes[0].settled.remove(0);
    assert_eq!(id, operation);
    assert!(settled.stored.len() >= 12, "{}", settled.stored.len());
    assert_eq!(settled.counts.stored as usize, settled.stored.len());
    for at in [9, 77, 200] {
        let outcome = net.find(at, Operation::Get { target: target("colour") });
        assert_eq!((outcome.ended, outcome.values[0].value.clone()), (Ended::Found, value("blue")));
        assert!(outcome.hops >= 1 && outcome.counts.asked <= 16, "{:?}", outcome.counts);
    }
}

/// dht.md B.2, rule 11: copies go to those who are surely near as soon as they are named, and the caller is told when enough are stored, while the walk goes on.
#[test]
fn a_store_is_told_before_its_walk_has_ended() {
    let mut early = 0;
    for seed in 1..=5 {
        let mut net = planted(seed, 400);
        let put = Operation::Put { target: target("colour"), value: value("blue"), replicas: 20 };
        let operation = net.start(0, put, Options { watch: true, ..Options::default() });
        let outcome = net.outcome(0, operation);
        assert_eq!(outcome.ended, Ended::Stored, "seed {seed}");
        assert!(outcome.stored.len() >= 10, "seed {seed}: {}", outcome.stored.len());
        early += usize::from(outcome.closest.len() < 20);
        net.run(S(3));
        let (_, settled) = net.nodes[0].settled.remove(0);
        assert!(settled.stored.len() >= 20, "seed {seed}: {}", settled.stored.len());
        assert!(settled.counts.asked <= 3 * 20 + 60, "seed {seed}: {:?}", settled.counts);
    }
    assert!(early >= 3, "{early} of 5");
}

/// a refusal is told, with its reason, and is no replica.
/// Contract C-48.
#[test]
fn a_refused_copy_is_not_a_replica() {
    let mut net = planted(4, 100);
    net.stores = false;
    let put = Operation::Put { target: target("colour"), value: value("blue"), replicas: 8 };
    let outcome = net.find(0, put);
    assert_eq!((outcome.ended, outcome.stored.len()), (Ended::TooFewStored, 0));
    assert!(outcome.not_stored.len() >= 8);
    assert!(outcome.not_stored.iter().all(|(_, why)| *why == NotStored::Refused(Refusal::NotServed)));
    assert_eq!(outcome.counts.refused as usize, outcome.not_stored.len());
}

#[test]
fn providers_are_found_and_a_foreign_acknowledgement_counts() {
    let mut net = planted(5, 200);
    let provider = net.nodes[3].contact.clone();
    let provide =
        Operation::Provide { target: target("song"), provider: provider.clone(), replicas: 20, renew: false };
    assert_eq!(net.find(3, provide).ended, Ended::Stored);
    net.run(S(3));
    let outcome = net.find(90, Operation::Providers { target: target("song"), wanted: 1 });
    assert_eq!((outcome.ended, outcome.providers), (Ended::Found, vec![provider]));
}

/// dht.md B.2: a lookup that nobody wants any more holds nothing.
/// Contract C-54.
#[test]
fn cancelling_frees_everything_and_says_what_was_found() {
    let mut net = planted(6, 300);
    let operation = net.start(0, Operation::Closest { target: target("x") }, Options::default());
    net.run(MS(200));
    assert!(net.nodes[0].dht.standing(net.time()).requests > 0);
    net.input(0, Input::Cancel { operation });
    let outcome = net.outcome(0, operation);
    let standing = net.nodes[0].dht.standing(net.time());
    assert_eq!((outcome.ended, standing.requests, standing.operations), (Ended::Cancelled, 0, 0));
    let counts = outcome.counts;
    assert_eq!(counts.asked, counts.answered + counts.failed + counts.cancelled);
    assert!(counts.cancelled > 0);
    net.run(S(3));
    assert!(net.nodes[0].dht.standing(net.time()).stats.late > 0, "late answers are used");
}

/// D.3, 3: every lookup ends by its deadline, with what it has and the reason.
/// Contract C-53.
#[test]
fn a_deadline_returns_what_there_is() {
    let mut net = planted(8, 300);
    let deadline = Some(MS(250));
    let options = Options { deadline, ..Options::default() };
    let operation = net.start(0, Operation::Closest { target: target("x") }, options);
    let outcome = net.outcome(0, operation);
    assert_eq!((outcome.ended, outcome.took), (Ended::Deadline, MS(250)));
    assert!(!outcome.closest.is_empty() && outcome.closest.len() < 20);

    for at in 1..300 {
        net.nodes[at].manner = Manner::Silent;
    }
    let outcome = net.find(0, Operation::Get { target: target("y") });
    assert!(outcome.took <= S(10) && outcome.values.is_empty(), "{outcome:?}");
}

/// D.3, 13: one seed gives one run.
#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut net = planted(seed, 120);
        net.nodes[5].manner = Manner::Silent;
        for round in 0..10 {
            net.find(round, Operation::Closest { target: target(&format!("{round}")) });
        }
        net.run(S(300));
        net.hash
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// AL-26, AL-23: where nobody is known the caller is told so, and the driver is asked for somebody.
#[test]
fn a_node_that_knows_nobody_says_so_and_asks_for_contacts() {
    let mut net = Net::new(1, 1, &DhtConfig::default());
    let outcome = net.find(0, Operation::Get { target: target("x") });
    assert_eq!(outcome.ended, Ended::NoContacts);
    net.input(0, Input::Known { contacts: Vec::new(), source: Source::Book });
    assert_eq!(net.nodes[0].wants_contacts, 1);
    net.run(S(600));
    let asked = net.nodes[0].wants_contacts;
    assert!((10..=40).contains(&asked), "it asks with growing pauses: {asked}");
}

/// Two networks of sixty that don't know of each other.
fn two_networks(seed: u64) -> Net {
    let mut net = Net::new(seed, 120, &DhtConfig::default());
    let contacts: Vec<Contact> = net.nodes.iter().map(|node| node.contact.clone()).collect();
    let now = net.time();
    for at in 0..120 {
        let others = contacts.iter().skip(at / 60 * 60).take(60).filter(|other| **other != contacts[at]);
        net.nodes[at].dht.plant(now, others.cloned());
        net.input(at, Input::Known { contacts: Vec::new(), source: Source::Book });
    }
    net
}

/// All others of node 0's network are gone for good, and it asks for what is there no more for ten minutes.
fn bereave(net: &mut Net, manner: Manner) {
    net.run(S(10));
    (1..60).for_each(|at| net.nodes[at].manner = manner);
    for round in 0..30 {
        net.find(0, Operation::Closest { target: target(&format!("{round}")) });
        net.run(S(15));
    }
}

/// The node is where the living are, and believes that it is.
fn is_among_the_living(net: &mut Net) {
    let living = |at: &Contact| net.nodes[60..].iter().any(|node| node.contact == *at);
    let dht = &net.nodes[0].dht;
    let known =
        dht.table().peers().filter(|(known, health)| living(known) && *health == Health::Good).count();
    let standing = dht.standing(net.time());
    assert!(known > 20 && standing.joined, "{known} {standing:?}");
    let outcome = net.find(0, Operation::FindPeer { peer: *net.nodes[90].contact.peer() });
    assert_eq!(outcome.found, Some(net.nodes[90].contact.clone()));
}

/// AL-58: when everybody is gone at once, which looks like an outage of our own, and never comes back, the node begins anew with whom it was told of at the start.
#[test]
fn a_node_whose_peers_are_all_gone_begins_anew() {
    for manner in [Manner::Gone, Manner::Silent] {
        let mut net = two_networks(9);
        let known = vec![net.nodes[77].contact.clone()];
        net.input(0, Input::Known { contacts: known, source: Source::Book });
        bereave(&mut net, manner);
        is_among_the_living(&mut net);
        assert!(
            net.nodes[0].events.iter().any(|(_, event)| *event == Event::OutageSuspected { family: None })
        );
        net.run(S(600));
        assert!(!net.nodes[0].dht.standing(net.time()).outage, "{manner:?}: somebody answers");
    }
}

/// AL-58: where nobody else is known the driver is asked for somebody, in pauses that double, and whoever it brings is enough.
#[test]
fn a_node_whose_peers_are_all_gone_asks_for_contacts() {
    for manner in [Manner::Gone, Manner::Silent] {
        let mut net = two_networks(10);
        bereave(&mut net, manner);
        let node = &net.nodes[0];
        assert!(node.events.iter().any(|(_, event)| *event == Event::Alone), "{manner:?}");
        assert!((6..=30).contains(&node.wants_contacts), "{manner:?}: {}", node.wants_contacts);
        let contacts = vec![net.nodes[13].contact.clone(), net.nodes[66].contact.clone()];
        net.input(0, Input::Known { contacts, source: Source::Book });
        net.run(S(120));
        is_among_the_living(&mut net);
    }
}

/// AL-57, B.7: what a node keeps lets it join again after a restart without any other contact.
#[test]
fn a_restarted_node_joins_with_what_it_kept() {
    let mut net = planted(10, 100);
    let kept = net.nodes[0].dht.keep();
    assert!(kept.len() <= 64 && kept.len() > 20);
    let peer = *net.nodes[0].contact.peer();
    let judge = Box::new(AcceptAll);
    let random = net.random.fork();
    net.nodes[0].dht = Dht::new(DhtConfig::default(), peer, Mode::Server, judge, random, net.time());
    let start = net.now;
    net.input(0, Input::Known { contacts: kept, source: Source::Book });
    net.run(S(2));
    assert!(joined(&net, 0).unwrap() - start < S(2));
    assert!(net.nodes[0].dht.table().len() >= 20);
}

/// AL-33: who only uses the DHT refuses all queries, finds everything, and stands in nobody's table.
/// Contract C-57.
#[test]
fn a_client_finds_and_publishes_and_serves_nobody() {
    let mut net = planted(11, 100);
    let client = net.nodes[0].contact.clone();
    let peer = *client.peer();
    let (judge, random) = (Box::new(AcceptAll), net.random.fork());
    net.nodes[0].dht = Dht::new(DhtConfig::default(), peer, Mode::Client, judge, random, net.time());
    let contacts = vec![net.nodes[5].contact.clone()];
    for at in 1..100 {
        // Those who had it forget it when it stops to advertise the protocol.
        let remote = net.nodes[0].ip;
        net.input(at, Input::Connected { contact: client.clone(), remote, rtt: None });
        net.input(at, Input::Supports { peer, serves: false });
    }
    net.input(0, Input::Known { contacts, source: Source::Bootstrap });
    net.run(S(5));
    let put = Operation::Put { target: target("c"), value: value("v"), replicas: 8 };
    assert_eq!(net.find(0, put).ended, Ended::Stored);
    assert_eq!(net.find(0, Operation::Get { target: target("c") }).ended, Ended::Found);
    net.run(S(60));
    assert!((1..100).all(|at| net.nodes[at].dht.table().peers().all(|(known, _)| known != &client)));
    let ask = Query::FindNode { target: target("c") };
    let (from, remote) = (*net.nodes[1].contact.peer(), net.nodes[1].ip);
    let now = net.time();
    net.nodes[0]
        .dht
        .handle(now, Input::Asked { query: QueryId(u64::MAX), from, remote, ask, extended: true });
    let refused = std::iter::from_fn(|| net.nodes[0].dht.poll_output()).any(|output| {
        matches!(output, Output::Reply { answer, .. } if answer.status == Status::Refused(Refusal::NotServed))
    });
    assert!(refused);
}

/// dht.md D.2, 13: the size of the network is known from the node's own lookups.
#[test]
fn a_node_learns_the_size_of_the_network_by_itself() {
    let mut config = DhtConfig::default();
    config.upkeep.early_every = S(20);
    let mut net = Net::new(12, 300, &config);
    net.plant();
    let (judge, random) = (Box::new(AcceptAll), net.random.fork());
    let peer = *net.nodes[0].contact.peer();
    net.nodes[0].dht = Dht::new(config, peer, Mode::Server, judge, random, net.time());
    let contacts = vec![net.nodes[5].contact.clone()];
    net.input(0, Input::Known { contacts, source: Source::Bootstrap });
    net.run(S(600));
    let size = net.nodes[0].dht.size(net.time()).unwrap();
    assert!((200.0..420.0).contains(&size), "{size}");
}

#[test]
fn a_watched_lookup_tells_its_steps_and_they_add_up() {
    let mut net = planted(13, 300);
    net.nodes[10].manner = Manner::Silent;
    let options = Options { watch: true, ..Options::default() };
    let operation = net.start(0, Operation::Closest { target: target("w") }, options);
    let outcome = net.outcome(0, operation);
    let steps: Vec<&StepKind> = net.nodes[0].steps.iter().map(|(_, step)| &step.what).collect();
    let count = |fits: fn(&StepKind) -> bool| steps.iter().filter(|step| fits(step)).count() as u32;
    assert_eq!(count(|step| matches!(step, StepKind::Asked { .. })), outcome.counts.asked);
    assert_eq!(count(|step| matches!(step, StepKind::Answered { .. })), outcome.counts.answered);
    assert_eq!(count(|step| matches!(step, StepKind::Cancelled { .. })), outcome.counts.cancelled);
    assert_eq!(steps.last(), Some(&&StepKind::Ended(Ended::Complete)));
    assert!(net.nodes[0].steps.is_sorted_by_key(|(_, step)| step.at));
}

/// dht.md B.6: a neighbourhood that is denser than the size of the network allows is told of, looked at from several sides, and covered.
#[test]
fn a_dense_neighbourhood_raises_the_alarm_and_is_covered() {
    let mut net = Net::new(14, 600, &DhtConfig::default());
    net.plant();
    let (judge, random) = (Box::new(AcceptAll), net.random.fork());
    let peer = *net.nodes[0].contact.peer();
    let mut dht = Dht::new(DhtConfig::default(), peer, Mode::Server, judge, random, net.time());
    dht.plant(net.time(), (1..200).map(|at| net.nodes[at].contact.clone()));
    // It takes the network for a quarter of what it is: every place looks four times too dense.
    dht.plant_size(net.time(), 150.0, 16);
    net.nodes[0].dht = dht;
    let key = target("hidden");
    let outcome = net.find(0, Operation::Get { target: key.clone() });
    assert!(outcome.dense && outcome.ended == Ended::Complete, "{outcome:?}");
    assert!(
        net.nodes[0]
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::Dense { score, .. } if *score < 7.5))
    );
    // The region is 1.5 times what k peers take in a network of 150: some hundred and twenty of the six hundred.
    let region = Distance::of_share(1.5 * 20.0 / 150.0);
    let inside = net.nodes.iter().filter(|node| node.contact.key().distance(key.key()) <= region).count();
    assert!(outcome.counts.answered as usize >= inside * 3 / 4, "{:?} of {inside}", outcome.counts);
    let operations = net.nodes[0].dht.standing(net.time()).operations;
    assert_eq!(operations, 0, "nothing of it goes on");

    let honest = net.find(50, Operation::Get { target: key });
    assert!(!honest.dense);
}

/// dht.md B.7, scenario 11: two first contacts that lead into networks of different sizes give a trap away.
#[test]
fn first_contacts_that_lead_into_different_networks_are_told_of() {
    let mut net = Net::new(15, 400, &DhtConfig::default());
    net.plant();
    // Twenty-four nodes know only each other.
    let trap: Vec<Contact> = (0..24).map(|at| net.nodes[at].contact.clone()).collect();
    for at in 0..24 {
        let (judge, random) = (Box::new(AcceptAll), net.random.fork());
        let peer = *net.nodes[at].contact.peer();
        let mut dht = Dht::new(DhtConfig::default(), peer, Mode::Server, judge, random, net.time());
        dht.plant(net.time(), trap.clone());
        net.nodes[at].dht = dht;
    }
    let mut joins = |at: usize, first: [usize; 3]| {
        let (judge, random) = (Box::new(AcceptAll), net.random.fork());
        let peer = *net.nodes[at].contact.peer();
        net.nodes[at].dht = Dht::new(DhtConfig::default(), peer, Mode::Server, judge, random, net.time());
        let contacts = first.map(|at| net.nodes[at].contact.clone()).into();
        net.input(at, Input::Known { contacts, source: Source::Bootstrap });
        net.run(S(60));
        let disagree = |(_, event): &(Duration, Event)| matches!(event, Event::SizesDisagree { .. });
        let honest = net.nodes[at].dht.table().peers().filter(|(known, _)| !trap.contains(known)).count();
        (net.nodes[at].events.iter().any(disagree), honest)
    };
    let (told, honest) = joins(399, [1, 2, 100]);
    assert!(told && honest > 40, "{told} {honest}");
    let (told, _) = joins(398, [100, 200, 300]);
    assert!(!told);
}
