//! each limit of a whole node has an effect, on both sides of its edge.

use std::collections::VecDeque;

use bytes::Bytes;

use super::operation::{Aim, Op};
use super::*;
use crate::StepKind;
use crate::lookup::State;
use crate::record::{Draft, Network, Place, Record, Records, RecordsConfig};

/// A node with these limits, among the first `count` peers.
fn among(count: u64, change: impl FnOnce(&mut DhtConfig)) -> Story {
    let mut config = DhtConfig::default();
    change(&mut config);
    let mut story = Story::new(config);
    story.dht.plant(story.now, (1..=count).map(contact));
    story
}

fn start(story: &mut Story, wanted: Operation, options: Options) -> Vec<Output> {
    story.input(Input::Start { operation: OperationId(1), wanted, options })
}

fn closest() -> Operation {
    Operation::Closest { target: Target::new(b"x").unwrap() }
}

/// Lets time pass and answers all that is asked. All outputs, each with its time.
fn answering(story: &mut Story, outputs: Vec<Output>, time: Duration) -> Vec<(Duration, Output)> {
    answering_but(story, outputs, time, None)
}

/// The same, where one peer is silent.
fn answering_but(
    story: &mut Story,
    outputs: Vec<Output>,
    time: Duration,
    silent: Option<&Contact>,
) -> Vec<(Duration, Output)> {
    let end = story.now.mono + time;
    let mut all: Vec<_> = outputs.into_iter().map(|output| (story.now.mono, output)).collect();
    let mut done = 0;
    loop {
        while let Some((_, output)) = all.get(done) {
            done += 1;
            let Output::Ask { request, contact, .. } = output else { continue };
            if silent == Some(contact) {
                continue;
            }
            let (request, remote) = (*request, contact.addresses()[0].socket_addr().unwrap().ip());
            let more = story.answer(request, remote, &[]);
            all.extend(more.into_iter().map(|output| (story.now.mono, output)));
        }
        let Some(due) = story.dht.poll_timeout().filter(|due| *due <= end) else {
            story.now = at(end);
            return all;
        };
        story.now = at(due.max(story.now.mono));
        story.dht.handle_timeout(story.now);
        all.extend(story.outputs().into_iter().map(|output| (story.now.mono, output)));
    }
}

fn outcome(outputs: &[(Duration, Output)]) -> &Outcome {
    let done = outputs.iter().find_map(|(_, output)| match output {
        Output::Done { outcome, .. } => Some(outcome),
        _ => None,
    });
    done.expect("the operation ends")
}

#[test]
fn an_answer_names_k_peers_and_k_count_as_the_closest() {
    for k in [5, 9] {
        let mut story = among(400, |config| config.table.k = k);
        assert_eq!(story.asked(900, find("x")).0.closer.len(), k);
        let begun = start(&mut story, closest(), Options::default());
        let outputs = answering(&mut story, begun, S(2));
        assert_eq!(outcome(&outputs).closest.len(), k);
    }
}

#[test]
fn before_anything_was_measured_an_answer_is_overdue_after_a_configured_time() {
    for soft_unknown in [MS(250), MS(350)] {
        let mut story = among(4, |config| {
            config.lookup.soft_unknown = soft_unknown;
            config.lookup.cold_round_trips = 0.0;
        });
        start(&mut story, closest(), Options { watch: true, ..Options::default() });
        let outputs = story.wait(S(1));
        let first = outputs.iter().find_map(|output| match output {
            Output::Step { step, .. } => match step.what {
                StepKind::Suspected { after, .. } => Some(after),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(first, Some(soft_unknown));
    }
}

#[test]
fn a_request_is_given_up_after_the_configured_time() {
    let mut story = among(30, |config| config.lookup.hard = S(2));
    story.dht.ask(story.now, &contact(4), find("x"), Class::Normal, requests::Purpose::Probe);
    story.outputs();
    story.wait(MS(1999));
    assert_eq!(story.dht.standing(story.now).stats.failed, 0);
    story.wait(MS(1));
    assert_eq!(story.dht.standing(story.now).stats.failed, 1);
}

/// AL-28: what there is at the deadline is handed over, with the reason.
/// Contract C-53.
#[test]
fn each_class_has_its_deadline() {
    for (class, seconds) in [(Class::Interactive, 3), (Class::Normal, 7), (Class::Frugal, 7)] {
        let mut story = among(30, |config| {
            let lookup = &mut config.lookup;
            (lookup.interactive_deadline, lookup.background_deadline) = (S(3), S(7));
            (lookup.hard, lookup.soft_least, lookup.soft_most) = (S(100), S(100), S(100));
        });
        start(&mut story, closest(), Options { class, ..Options::default() });
        let outputs: Vec<_> = story.wait(S(20)).into_iter().map(|output| (S(0), output)).collect();
        let outcome = outcome(&outputs);
        assert_eq!((outcome.ended, outcome.took), (Ended::Deadline, S(seconds)));
    }
}

#[test]
fn a_caller_gets_no_more_paths_than_configured() {
    for most_paths in [3, 5] {
        let mut story = among(400, |config| config.lookup.most_paths = most_paths);
        let options = Options { paths: 20, watch: true, ..Options::default() };
        let begun = start(&mut story, closest(), options);
        let outputs = answering(&mut story, begun, S(2));
        let paths = outputs.iter().filter_map(|(_, output)| match output {
            Output::Step { step, .. } => match step.what {
                StepKind::Asked { path, .. } => Some(usize::from(path)),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(paths.max(), Some(most_paths - 1));
    }
}

/// AL-22: what a caller permits, three at least, holds for the walk and for the lookups around a place that looks too dense (dht.md B.6).
#[test]
fn what_a_caller_permits_holds_for_each_lookup_of_its_operation() {
    for (alpha, permitted) in [(1, 3), (2, 3), (3, 3), (5, 5), (16, 16), (99, 16)] {
        let mut story = among(400, |_| {});
        // It takes the network for a quarter of what it is.
        story.dht.plant_size(story.now, 100.0, 16);
        let in_flight = |story: &Story, of: fn(&Aim) -> bool| {
            let flying = |op: &Op| op.lookup.candidates().filter(|one| one.state == State::InFlight).count();
            story.dht.operations.values().filter(|op| of(&op.aim)).map(flying).max()
        };
        let wanted = Operation::Closest { target: Target::of_peer(&peer(0)) };
        let mut outputs = start(&mut story, wanted, Options { alpha, ..Options::default() });
        let (mut walk, mut around, mut asked) = (0, 0, VecDeque::new());
        for _ in 0..1000 {
            asked.extend(asks(&outputs));
            walk = walk.max(in_flight(&story, |aim| matches!(aim, Aim::Caller(_))).unwrap_or(0));
            let cover = in_flight(&story, |aim| matches!(aim, Aim::Cover(_)));
            around = around.max(cover.unwrap_or(0));
            // Answers end as soon as there are lookups around it: then all slots are taken.
            outputs = match asked.pop_front().filter(|_| cover.is_none()) {
                Some((request, contact, _)) => {
                    let remote = contact.addresses()[0].socket_addr().unwrap().ip();
                    story.answer(request, remote, &[])
                }
                None => story.wait(MS(5)),
            };
        }
        assert_eq!((walk, around), (permitted, permitted), "{alpha}");
    }
}

/// AL-07: what is too much is left out from the far end.
#[test]
fn an_answer_has_no_more_bytes_than_configured() {
    let full = among(400, |_| {}).asked(900, find("x")).0;
    let most = full.wire_bytes() / 3;
    let mut story = among(400, |config| config.serve.max_answer_bytes = most);
    let (answer, _) = story.asked(900, find("x"));
    let next = &full.closer[answer.closer.len()];
    assert!(answer.closer[..] == full.closer[..answer.closer.len()] && !answer.closer.is_empty());
    assert!(answer.wire_bytes() <= most + 8 && answer.wire_bytes() + next.wire_bytes() > most);
}

/// How many of ten queries are answered, each by the next of these peers.
fn served(story: &mut Story, from: impl Fn(u64) -> u64) -> usize {
    (0..10).filter(|number| story.asked(from(*number), find("x")).0.status == Status::Ok).count()
}

/// So many at first, and after each of two seconds.
fn served_in_two_seconds(
    change: impl FnOnce(&mut ServeConfig, f64),
    from: impl Fn(u64) -> u64 + Copy,
) -> [usize; 3] {
    let bytes = among(400, |_| {}).asked(900, find("x")).0.wire_bytes() as f64;
    let mut story = among(400, |config| change(&mut config.serve, bytes));
    let mut now = || {
        let count = served(&mut story, from);
        story.wait(S(1));
        count
    };
    [now(), now(), now()]
}

/// what one peer, and all together, may draw from us is limited in queries and in bytes, at once and in the long run.
#[test]
fn queries_and_bytes_have_a_burst_and_a_rate_for_a_peer_and_for_all() {
    let (one, each) = (|_| 700, |number| 700 + number);
    let by_peer =
        served_in_two_seconds(|serve, _| (serve.peer_burst, serve.peer_per_second) = (3.0, 2.0), one);
    let by_node =
        served_in_two_seconds(|serve, _| (serve.node_burst, serve.node_per_second) = (4.0, 1.0), each);
    assert_eq!((by_peer, by_node), ([3, 2, 2], [4, 1, 1]));
    for (rate, expected) in [(1.0, [3, 1, 1]), (4.0, [3, 3, 3])] {
        let by_peer = served_in_two_seconds(
            |serve, bytes| {
                (serve.peer_byte_burst, serve.peer_bytes_per_second) = (2.5 * bytes, rate * bytes);
            },
            one,
        );
        let by_node = served_in_two_seconds(
            |serve, bytes| {
                (serve.node_byte_burst, serve.node_bytes_per_second) = (2.5 * bytes, rate * bytes);
            },
            each,
        );
        assert_eq!((by_peer, by_node), (expected, expected));
    }
}

#[test]
fn the_first_refreshes_come_sooner_than_the_later_ones() {
    let mut story = among(100, |config| {
        let upkeep = &mut config.upkeep;
        (upkeep.refresh_every, upkeep.early_every, upkeep.early_refreshes) = (S(1000), S(100), 3);
        upkeep.settled_samples = 0;
    });
    let own = Target::of_peer(&peer(0));
    let begun = story.now.mono;
    let outputs = answering(&mut story, Vec::new(), S(20_000));
    let mut seen: Vec<(Duration, Target)> = Vec::new();
    for (time, output) in outputs {
        if let Output::Ask { query: Query::FindNode { target }, .. } = output
            && target != own
            && seen.iter().all(|(_, known)| *known != target)
        {
            seen.push((time, target));
        }
    }
    let gaps: Vec<u64> = seen.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs()).collect();
    assert!(seen[0].0 - begun <= S(1000), "{:?}", seen[0].0);
    assert!(gaps[..3].iter().all(|gap| (49..=151).contains(gap)), "{gaps:?}");
    // The eighth is for our own place.
    assert!(gaps[3..6].iter().all(|gap| (499..=1501).contains(gap)), "{gaps:?}");
}

/// AL-58: pauses between attempts to join double, with a random part, up to a limit.
#[test]
fn attempts_to_join_come_in_pauses_that_double_up_to_a_limit() {
    let mut config = DhtConfig::default();
    (config.upkeep.rejoin_first, config.upkeep.rejoin_most) = (S(4), S(16));
    let mut story = Story::new(config);
    let begun = story.input(Input::Known { contacts: Vec::new(), source: Source::Book });
    let wants = answering(&mut story, begun, S(200));
    let wants: Vec<Duration> = wants
        .into_iter()
        .filter_map(|(time, output)| matches!(output, Output::WantContacts).then_some(time))
        .collect();
    for (round, pair) in wants.windows(2).enumerate() {
        let most = [4, 8, 16][round.min(2)];
        let gap = pair[1] - pair[0];
        assert!(gap >= S(most / 2) && gap <= S(most), "pause {round} is {gap:?}");
    }
    assert!(wants.len() > 10);
}

/// AL-58: a driver brings whom its book names whenever it is asked for somebody. That they fail at once, as peers do that must not be dialled yet, shortens no pause.
#[test]
fn contacts_that_fail_at_once_are_tried_in_the_same_pauses() {
    for names in [1, 64, 500] {
        let mut story = Story::new(DhtConfig::default());
        let mut attempts = 0;
        let known = vec![contact(1)];
        let mut outputs = VecDeque::from(story.input(Input::Known { contacts: known, source: Source::Book }));
        let end = story.now.mono + S(600);
        loop {
            let more = match outputs.pop_front() {
                Some(Output::Ask { request, .. }) => {
                    story.input(Input::Failed { request, why: Failure::Local })
                }
                Some(Output::WantContacts) => {
                    attempts += 1;
                    assert!(attempts < 200, "{names} in the book: all at {:?}", story.now.mono);
                    // A book may hold more than are kept, and tell of others each time.
                    let contacts = (0..64).map(|at| contact(1 + (attempts * 64 + at) % names)).collect();
                    story.input(Input::Known { contacts, source: Source::Book })
                }
                Some(_) => continue,
                None => match story.dht.poll_timeout().filter(|due| *due <= end) {
                    Some(due) => story.wait(due.saturating_sub(story.now.mono)),
                    None => break,
                },
            };
            outputs.extend(more);
        }
        assert!((12..=40).contains(&attempts), "{names} in the book: {attempts} attempts in ten minutes");
    }
}

#[test]
fn probes_cost_the_bytes_that_they_may() {
    let spent = |rate: f64| {
        let mut story = among(400, |config| {
            config.upkeep.probe_bytes_per_second = rate;
            (config.upkeep.refresh_every, config.upkeep.settling_every) = (S(1 << 40), S(1 << 40));
            // Enough are due that bytes are what is short.
            config.table.probe_when_dead = 0.02;
        });
        let outputs = answering(&mut story, Vec::new(), S(7200));
        let cost = |output: &Output| match output {
            Output::Ask { query: Query::Ping, .. } => 120.0,
            Output::Ask { .. } => 1800.0,
            _ => 0.0,
        };
        outputs.iter().map(|(_, output)| cost(output)).sum::<f64>()
    };
    // A burst of two of the dearest ones, then the rate; the last one may overdraw.
    let (slow, fast) = (spent(1.0), spent(200.0));
    assert!((9_000.0..=12_600.0).contains(&slow), "{slow}");
    assert!(fast > 3.0 * slow, "{fast}");
}

#[test]
fn newcomers_are_asked_at_once_at_a_rate() {
    let mut config = DhtConfig::default();
    (config.upkeep.admission_burst, config.upkeep.admissions_per_second) = (3.0, 0.5);
    let mut story = Story::new(config);
    let mut meet = |numbers: std::ops::Range<u64>| {
        let outputs: Vec<Output> = numbers.flat_map(|number| story.connect(number)).collect();
        story.wait(S(4));
        let frugal = |output: &&Output| matches!(output, Output::Ask { class: Class::Frugal, .. });
        outputs.iter().filter(frugal).count()
    };
    assert_eq!([meet(1..11), meet(11..21), meet(21..31)], [3, 2, 2]);
}

#[test]
fn advisors_are_told_of_silent_peers_at_a_rate() {
    let mut story = among(60, |config| {
        (config.upkeep.hint_burst, config.upkeep.hints_per_second) = (2.0, 0.5);
    });
    let silent = sixty_advisors(&mut story);
    let mut told = || {
        story.dht.hint(story.now, &silent);
        let outputs = story.outputs();
        let sent = asks(&outputs).iter().filter(|(.., query)| matches!(query, Query::Silent { .. })).count();
        story.wait(S(2));
        sent
    };
    assert_eq!([told(), told(), told()], [2, 1, 1]);
}

#[test]
fn of_so_many_peers_is_remembered_when_they_were_seen() {
    for most in [5, 8] {
        let mut config = DhtConfig::default();
        config.upkeep.seen_peers = most;
        let mut story = Story::new(config);
        (1..20).for_each(|number| drop(story.asked(number, Query::Ping)));
        let seen = story.dht.standing(story.now).seen;
        assert_eq!((seen.hour, seen.at_least, seen.unique), (most, true, 19));
    }
}

#[test]
fn contacts_that_are_kept_and_remembered_are_as_many_as_configured() {
    for most in [7, 30] {
        let mut story = among(400, |config| config.upkeep.known_contacts = most);
        assert_eq!(story.dht.keep().len(), most);
        story.input(Input::Known { contacts: (500..600).map(contact).collect(), source: Source::Book });
        assert_eq!(story.dht.upkeep.known().len(), most);
    }
}

#[test]
fn a_publisher_wants_as_many_replicas_as_the_kind_has() {
    for replicas in [5, 7] {
        let network = Network::new("acme").unwrap();
        let mut rules = RecordsConfig::default();
        rules.value.replicas = replicas;
        let mut story = among(100, |_| {});
        let own = crate::numbered::key(0);
        let rules = Records::new(network.clone(), rules);
        let dht = std::mem::replace(&mut story.dht, Story::new(DhtConfig::default()).dht);
        story.dht = dht.with_records(own.clone(), rules);
        let place = Place::Value { publisher: peer(0), salt: Bytes::new() };
        let record = Record::sign(&own, &network, Draft::new(place, 1, 3600, Bytes::from_static(b"x")));
        let record = Box::new(record.unwrap());
        start(&mut story, Operation::Publish { record, renew: None }, Options::default());
        assert_eq!(story.dht.published()[0].wanted, replicas);
    }
}

#[test]
fn where_nobody_waits_the_end_waits_longer_for_a_suspect() {
    let target = Target::new(b"x").unwrap();
    let nearest = (1..=25).map(contact).min_by_key(|peer| peer.key().distance(target.key())).unwrap();
    let took = |class, frugal| {
        let mut story = among(25, |config| {
            (config.lookup.overdue_grace, config.lookup.overdue_grace_frugal) = (0.0, frugal);
            config.upkeep.probes_at_once = 0;
        });
        let outputs = start(&mut story, closest(), Options { class, ..Options::default() });
        let outputs = answering_but(&mut story, outputs, S(20), Some(&nearest));
        outcome(&outputs).took
    };
    let [none, some, more] = [0.0, 0.5, 1.0].map(|grace| took(Class::Frugal, grace));
    assert!(none < some && some < more, "{none:?} {some:?} {more:?}");
    assert_eq!(took(Class::Normal, 0.0), took(Class::Normal, 1.0), "others are not concerned");
}

/// dht.md B.6: the size is measured anew when the neighbourhood has changed by more than the factor.
#[test]
fn a_neighbourhood_that_has_changed_by_the_configured_factor_is_measured_anew() {
    let early = |factor| {
        let mut story = among(100, |config| config.upkeep.neighbourhood_change = factor);
        story.wait(S(2));
        story.dht.upkeep.early = 0;
        story.dht.plant(story.now, (101..=400).map(contact));
        story.wait(S(2));
        story.dht.upkeep.early
    };
    assert!(early(2.0) > 0, "four times as dense");
    assert_eq!(early(8.0), 0);
}

/// What is said of our peers makes us look at so many, and time is left to look at who waits for a place.
#[test]
fn what_others_say_of_our_peers_makes_us_look_at_a_rate() {
    let mut story = among(60, |config| {
        (config.upkeep.doubt_burst, config.upkeep.doubts_per_second) = (4.0, 0.1);
    });
    let mut due =
        |second| {
            story.now = at(S(second));
            for from in 100..130 {
                drop(story.asked(
                    from,
                    Query::Silent { peers: (1..=60).map(peer).skip(from as usize % 45).collect() },
                ));
            }
            story.dht.table.entries().filter(|entry| u64::from(entry.due) <= second).count()
        };
    assert_eq!([due(30), due(50), due(51)], [4, 6, 6], "a token every ten seconds");
}

#[test]
fn a_deadline_without_end_is_an_hour() {
    let mut story = among(60, |_| {});
    let options = Options { deadline: Some(Duration::MAX), ..Options::default() };
    let wanted = Operation::Closest { target: Target::new(b"x").unwrap() };
    story.input(Input::Start { operation: OperationId(1), wanted, options });
    let until = story.dht.operations.values().map(|op| op.deadline).max().unwrap();
    assert_eq!(until, story.now.mono + Options::MOST_DEADLINE);
}
