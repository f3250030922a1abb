//! each limit of what guards a key's neighbourhood has an effect, on both sides of its edge (dht.md B.6).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod net;

use std::time::Duration;

use bytes::Bytes;
use net::Net;
use peerage_dht::*;

const S: fn(u64) -> Duration = Duration::from_secs;

/// What became of a lookup in a network that its node takes for a quarter of what it is.
struct Seen {
    outcome: Outcome,
    /// Operations of the node at once, this one included.
    operations: usize,
    told: bool,
}

fn looked_up(change: impl Fn(&mut LookupConfig)) -> Seen {
    seen(change, Operation::Get { target: hidden() })
}

fn seen(change: impl Fn(&mut LookupConfig), wanted: Operation) -> Seen {
    seen_by(150.0, change, wanted)
}

/// By a node that takes the six hundred nodes of its network for so many.
fn seen_by(size: f64, change: impl Fn(&mut LookupConfig), wanted: Operation) -> Seen {
    looks_up(&mut net_by(size, change), wanted)
}

fn net_by(size: f64, change: impl Fn(&mut LookupConfig)) -> Net {
    let mut config = DhtConfig::default();
    change(&mut config.lookup);
    let mut net = Net::new(14, 600, &config);
    net.checked = false;
    net.plant();
    let (judge, random) = (Box::new(AcceptAll), net.random.fork());
    let peer = *net.nodes[0].contact.peer();
    let mut dht = Dht::new(config, peer, Mode::Server, judge, random, net.time());
    dht.plant(net.time(), (1..200).map(|at| net.nodes[at].contact.clone()));
    dht.plant_size(net.time(), size, 16);
    net.nodes[0].dht = dht;
    net
}

fn looks_up(net: &mut Net, wanted: Operation) -> Seen {
    let is_store = matches!(wanted, Operation::Put { .. });
    let operation = net.start(0, wanted, Options::default());
    let mut operations = 0;
    let goes_on = |net: &Net| match is_store {
        true => net.nodes[0].dht.standing(net.time()).operations > 0,
        false => net.nodes[0].done.is_empty(),
    };
    while goes_on(net) && net.step() {
        operations = operations.max(net.nodes[0].dht.standing(net.time()).operations);
    }
    let settled = net.nodes[0].settled.pop().map(|(_, outcome)| outcome);
    let outcome = settled.unwrap_or_else(|| net.outcome(0, operation));
    let told = net.nodes[0].events.iter().any(|(_, event)| matches!(event, Event::Dense { .. }));
    Seen { outcome, operations, told }
}

fn hidden() -> Target {
    Target::new(b"hidden").unwrap()
}

#[test]
fn a_neighbourhood_is_dense_from_the_configured_score_on_and_is_looked_at_from_as_many_sides() {
    // Four times too dense: the score is about a quarter of k.
    let calm = looked_up(|lookup| lookup.dense = 2.0);
    assert!(!calm.told && !calm.outcome.dense && calm.operations == 1);
    for region_lookups in [2, 4] {
        let alarmed = looked_up(|lookup| lookup.region_lookups = region_lookups);
        assert!(alarmed.told && alarmed.outcome.dense);
        assert_eq!(alarmed.operations, 1 + region_lookups);
    }
}

#[test]
fn the_region_that_is_covered_is_as_large_as_configured() {
    let answered = |region| looked_up(|lookup| lookup.region = region).outcome.counts.answered;
    // Of six hundred nodes a share of region x 20 / 150 lies in it.
    let (small, large) = (answered(0.5), answered(1.5));
    assert!((30..65).contains(&small) && (80..170).contains(&large), "{small} {large}");
}

/// dht.md B.6, scenario 9: whoever crowds around a key cannot make a store ask and fill all of the crowd.
#[test]
fn a_store_in_a_dense_neighbourhood_goes_to_as_many_of_the_region_as_an_honest_one_has() {
    let put = Operation::Put { target: hidden(), value: Bytes::from_static(b"x"), replicas: 12 };
    let Seen { outcome, operations, told } = seen(|_| {}, put);
    assert!(told && outcome.dense && operations == 5, "{operations}");
    // Some hundred and twenty lie in the region, where thirty are expected: a dozen, eight more, and whom four lookups of twelve find.
    let stored = outcome.stored.len();
    assert!((12 + 24..=12 + 8 + 48).contains(&stored), "{stored} copies");
    let counts = outcome.counts;
    assert!((4 * 12..4 * 40).contains(&counts.around), "{counts:?}");
    assert_eq!(counts.asked, counts.answered + counts.failed + counts.cancelled, "{counts:?}");
    let target = hidden();
    let farthest =
        outcome.stored.iter().map(|peer| peer.key().distance(target.key()).share()).fold(0.0, f64::max);
    assert!(farthest <= 1.1 * 1.5 * 20.0 / 150.0, "{farthest}");
}

/// Scenario 9: who crowds around a key without sitting on it leaves the closest twenty as they are. A store looks at a place near the key, too.
#[test]
fn a_store_looks_at_one_place_near_its_key_where_nothing_is_suspicious() {
    let put = || Operation::Put { target: hidden(), value: Bytes::from_static(b"x"), replicas: 12 };
    let calm = seen_by(600.0, |_| {}, put());
    assert!(!calm.told && calm.operations == 2 && calm.outcome.counts.around >= 20, "{:?}", calm.outcome);
    let blind = seen_by(600.0, |lookup| lookup.region_lookups = 0, put());
    assert_eq!((blind.operations, blind.outcome.counts.around), (1, 0));
}

/// The same: a get that has found nothing looks around sooner than anybody is told, and whoever wants the closest peers does not.
#[test]
fn a_get_without_a_value_looks_around_where_a_place_is_a_little_too_dense() {
    // Nearly three times too dense: between the alarm at 7.5 and the look at 11.25.
    let size = 220.0;
    let get = seen_by(size, |_| {}, Operation::Get { target: hidden() });
    assert!(!get.told && !get.outcome.dense && get.operations == 5, "{} {:?}", get.operations, get.outcome);
    let closest = seen_by(size, |_| {}, Operation::Closest { target: hidden() });
    assert!(!closest.told && closest.operations == 1);
}

/// Scenario 11: where the closest that answer lie too far apart, a lookup goes on without them, as often as configured; of what it found it loses nothing.
#[test]
fn a_lookup_goes_on_from_a_place_that_is_too_sparse_as_often_as_configured() {
    // Of six hundred nodes that are taken for so many the score is k times as many times too large.
    let asked = |size, sparse, escapes, wanted| {
        let change = |lookup: &mut LookupConfig| (lookup.sparse, lookup.escapes) = (sparse, escapes);
        let outcome = seen_by(size, change, wanted).outcome;
        assert_eq!(outcome.ended, Ended::Complete);
        (outcome.counts.asked, outcome.closest)
    };
    let get = |size, sparse, escapes| asked(size, sparse, escapes, Operation::Get { target: hidden() }).0;
    let calm = get(3000.0, 200.0, 3);
    assert_eq!((get(600.0, 50.0, 3), get(3000.0, 50.0, 0)), (calm, calm));
    let more: Vec<u32> = [1, 2, 3].map(|escapes| get(3000.0, 50.0, escapes)).into();
    assert!(more[0] >= calm + 20 && more[1] >= more[0] + 20 && more[2] > more[1], "{calm} {more:?}");
    assert!(more[2] <= calm + 3 * 30, "{calm} {more:?}");
    let closest = |escapes| asked(3000.0, 50.0, escapes, Operation::Closest { target: hidden() }).1;
    assert_eq!(closest(3)[..20], closest(0)[..20]);
}

/// Who takes the network for larger than it is, whoever made it, looks further for nothing five times, and then no more.
#[test]
fn lookups_that_go_on_from_sparse_places_in_vain_are_content_for_a_while() {
    let mut net = net_by(3000.0, |lookup| lookup.escapes = 1);
    let mut asked = Vec::new();
    for number in 0..7u8 {
        net.nodes[0].done.clear();
        let target = Target::new(&[number, 1, 2]).unwrap();
        asked.push(looks_up(&mut net, Operation::Get { target }).outcome.counts.asked);
    }
    let (first, last) = asked.split_at(5);
    assert!(first.iter().min() > last.iter().max(), "{asked:?}");
    assert!(last.iter().all(|asked| *asked < 40), "{asked:?}");
}

#[test]
fn a_value_is_stored_at_so_many_of_the_region_beyond_its_replicas() {
    let stored = |region_extra| {
        let mut config = DhtConfig::default();
        config.lookup.region_extra = region_extra;
        let mut net = Net::new(3, 300, &config);
        net.checked = false;
        net.plant();
        let put = Operation::Put { target: hidden(), value: Bytes::from_static(b"x"), replicas: 5 };
        net.start(0, put, Options { quorum: 5, ..Options::default() });
        net.run(S(10));
        let node = &net.nodes[0];
        node.done.iter().chain(&node.settled).map(|(_, outcome)| outcome.stored.len()).max().unwrap()
    };
    assert_eq!(stored(0), 5);
    let six = stored(6);
    // Six, and half as many from a place near the key.
    assert!((12..=14).contains(&six), "{six}");
}
