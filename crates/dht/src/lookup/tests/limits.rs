//! each limit of a lookup has an effect, on both sides of its edge.

use std::collections::BTreeMap;

use super::*;

fn warm() -> LookupConfig {
    LookupConfig { cold_round_trips: 0.0, ..LookupConfig::default() }
}

#[test]
fn the_soft_timeout_has_bounds_and_a_cold_peer_has_its_round_trips_beside_it() {
    let config = LookupConfig {
        soft_least: MS(50),
        soft_most: MS(700),
        cold_round_trips: 3.0,
        ..LookupConfig::default()
    };
    let due = |patience, warm| {
        let mut story = Story::new(config.clone(), Goal::Closest, |_| {});
        let hint = Hint { rtt: Some(MS(100)), patience: Some(MS(patience)), warm, ..Hint::default() };
        story.lookup.seed([(contact(1), hint)]);
        story.go(at(0));
        story.lookup.candidates[0].due.as_millis()
    };
    assert_eq!([due(49, true), due(51, true), due(699, true), due(5000, true)], [50, 51, 699, 700]);
    assert_eq!([due(200, false), due(5000, false)], [500, 1000]);
}

/// How many were asked while the closest one says nothing and is not overdue.
fn asked_beside_one_that_is_silent(spare: usize) -> u32 {
    let all = peers();
    let config = LookupConfig { spare, soft_least: MS(9000), soft_most: MS(9000), ..warm() };
    let mut story = Story::new(config, Goal::Closest, |_| {});
    story.seed(&all[..60]);
    let mut now = at(0);
    while now.mono < MS(5000) {
        let (asked, next) = story.go(now);
        let others = asked.iter().filter(|(_, contact, _)| contact != &all[0]);
        let answered = others.map(|(request, ..)| drop(story.answer(now, *request, &[]))).count();
        let Next::Wait(until) = next else { panic!("{next:?}") };
        now = if answered > 0 { now } else { Now { mono: until, ..now } };
    }
    story.lookup.counts.asked
}

#[test]
fn so_many_beyond_the_closest_are_asked_rather_than_nobody() {
    assert_eq!([0, 3].map(asked_beside_one_that_is_silent), [20, 23]);
}

#[test]
fn the_end_waits_for_a_suspect_as_long_as_configured() {
    let all = peers();
    let end = |overdue_grace| {
        let mut story = Story::new(LookupConfig { overdue_grace, ..warm() }, Goal::Closest, |_| {});
        story.seed(&all[..30]);
        let mut now = at(0);
        loop {
            let (asked, next) = story.go(now);
            let others = asked.iter().filter(|(_, contact, _)| !all[..2].contains(contact));
            let answered = others.map(|(request, ..)| drop(story.answer(now, *request, &[]))).count();
            match next {
                Next::End(_) => return now.mono.as_millis(),
                Next::Wait(until) if answered == 0 => now = Now { mono: until, ..now },
                _ => {}
            }
        }
    };
    assert_eq!([0.0, 0.5, 1.0].map(end), [300, 450, 600]);
}

#[test]
fn a_lookup_remembers_so_many_candidates_and_the_farthest_give_way() {
    let all = peers();
    for (max_candidates, remembered) in [(40, 40), (60, 50)] {
        let mut story = Story::new(LookupConfig { max_candidates, ..warm() }, Goal::Closest, |_| {});
        story.seed(&all[100..130]);
        let (asked, _) = story.go(at(0));
        story.answer(at(10), asked[0].0, &all[..20]);
        let candidates = &story.lookup.candidates;
        assert_eq!(candidates.len(), remembered);
        assert!(all[..20].iter().all(|near| candidates.iter().any(|known| &known.contact == near)));
    }
}

#[test]
fn a_lookup_sends_so_many_requests_and_says_that_it_is_exhausted() {
    let all = peers();
    for (max_requests, expected) in
        [(10, (Ended::Exhausted, 10)), (11, (Ended::Exhausted, 11)), (256, (Ended::Complete, 29))]
    {
        let mut story = Story::new(LookupConfig { max_requests, ..warm() }, Goal::Closest, |_| {});
        story.seed(&all[20..40]);
        let (ended, _) = story.finish(at(0), &|_| all[..20].to_vec());
        let asked = story.lookup.counts.asked;
        assert_eq!(ended, expected.0);
        assert!(asked == expected.1 || max_requests == 256 && (20..60).contains(&asked), "{asked}");
    }
}

#[test]
fn an_answer_is_believed_down_to_the_chance_that_is_configured() {
    let all = peers();
    let paths = |expected_closer: f64| {
        let config = LookupConfig { implausible: 0.5, ..warm() };
        let mut story = Story::new(config, Goal::Value(2), |_| {});
        story.seed(&all[40..60]);
        let (asked, _) = story.go(at(0));
        story.lookup.plan.size = Some(expected_closer / all[0].key().distance(target().key()).share());
        story.answer(at(1), asked[0].0, &all[..1]);
        story.lookup.plan.paths
    };
    assert_eq!((paths(0.51), paths(0.49)), (1, 2));
}

#[test]
fn implausible_answers_begin_no_more_paths_than_configured() {
    let all = peers();
    for (most_paths, expected) in [(2, 2), (3, 3), (8, 4)] {
        let config = LookupConfig { most_paths, implausible: 1e9, ..warm() };
        let mut story = Story::new(config, Goal::Value(2), |plan| plan.size = Some(400.0));
        story.seed(&all[40..60]);
        let (asked, _) = story.go(at(0));
        for (at_once, (request, ..)) in asked.iter().take(3).enumerate() {
            story.answer(at(1), *request, &all[at_once..=at_once]);
        }
        assert_eq!(story.lookup.plan.paths, expected);
    }
}

/// A peer that says it is at an address of its own and is met elsewhere.
fn claims(number: usize) -> Contact {
    contact(number as u64)
}

/// One machine with as many names as it likes, each with an address of another network beside its own.
fn said_by_one_machine(story: &mut Story, goal_value: u8, names: usize) -> Next {
    let machine: IpAddr = "203.0.113.7".parse().unwrap();
    let seeds: Vec<Contact> = (1..=names).map(claims).collect();
    story.seed(&seeds);
    let (asked, _) = story.go(at(0));
    for (request, ..) in &asked {
        let answer = Answer { values: vec![Bytes::from(vec![goal_value])], ..Answer::default() };
        let came = Came { request: *request, rtt: MS(50), remote: machine, answer: &answer };
        story.lookup.answered(at(50), &Open, &came, &mut |_| None);
    }
    assert!(asked.len() >= 4);
    story.go(at(50)).1
}

/// what counts is where an answer came from, not where a peer says that it is: else one machine would be a quorum.
#[test]
fn one_machine_is_no_quorum_whatever_its_names_claim() {
    let mut story = Story::seeded(Goal::Value(2), &[]);
    assert!(matches!(said_by_one_machine(&mut story, 5, 8), Next::Wait(_)));
    assert_eq!(story.lookup.harvest.votes(), 1);
}

#[test]
fn of_one_machine_no_more_are_among_the_closest_than_of_one_subnet() {
    for most in [2, 3] {
        let config = LookupConfig { subnet_per_lookup: most, ..warm() };
        let mut story = Story::new(config, Goal::Closest, |_| {});
        said_by_one_machine(&mut story, 5, 8);
        assert_eq!(story.lookup.closest().count(), most);
    }
}

/// What one peer says of values or providers is its own word: it ends no lookup, though it be as many as are wanted.
#[test]
fn what_one_answer_says_is_not_enough() {
    let all = peers();
    for (goal, bears_out) in [(Goal::Values(3), true), (Goal::Values(3), false), (Goal::Providers(3), true)] {
        let mut story = Story::seeded(goal, &all[..20]);
        let (asked, _) = story.go(at(0));
        let say = |story: &mut Story, place: usize, first: u64| {
            let values = (first..first + 3).map(|value| Bytes::from(vec![value as u8 + 1])).collect();
            let providers = (first..first + 3).map(contact).collect();
            let request = asked[place].0;
            let answer = Answer { values, providers, ..Answer::default() };
            let came = Came { request, rtt: MS(50), remote: met(&story.lookup, request), answer: &answer };
            story.lookup.answered(at(50), &Slots, &came, &mut |_| None);
            story.go(at(50)).1
        };
        assert!(matches!(say(&mut story, 0, 10), Next::Wait(_)));
        let next = say(&mut story, 1, if bears_out { 10 } else { 20 });
        assert_eq!(next == Next::End(Ended::Found), bears_out);
    }
}

/// AL-28: who promises page after page and says nothing new is asked for no further one.
#[test]
fn pages_without_news_come_to_an_end() {
    for most in [1, 2, 5] {
        let config = LookupConfig { max_stale_pages: most, ..warm() };
        let mut story = Story::new(config, Goal::Values(1000), |_| {});
        story.seed(&peers()[..1]);
        let (mut asked, mut pages) = (story.go(at(0)).0, 0);
        while let Some((request, ..)) = asked.pop() {
            let (values, cursor) = (vec![Bytes::from_static(&[7])], Some(Bytes::from_static(b"more")));
            let answer = Answer { values, cursor, ..Answer::default() };
            let came = Came { request, rtt: MS(10), remote: met(&story.lookup, request), answer: &answer };
            story.lookup.answered(at(50), &Slots, &came, &mut |_| None);
            asked.extend(story.go(at(50)).0);
            pages += 1;
        }
        assert_eq!(pages, 1 + most, "the first has news");
    }
}

/// Contract C-56: what others have said before is no reason to leave the rest: holders of the same members are read to the end, and one of them has one more.
#[test]
fn holders_of_the_same_members_are_all_read_to_the_end() {
    let mut story = Story::new(warm(), Goal::Values(1000), |_| {});
    let holders = &peers()[..4];
    story.seed(holders);
    let last = *holders[3].peer();
    let mut pages: BTreeMap<PeerId, u8> = BTreeMap::new();
    let mut asked = story.go(at(0)).0;
    while let Some((request, contact, _)) = asked.pop() {
        let page = pages.entry(*contact.peer()).or_default();
        *page += 1;
        let more = contact.peer() == &last && *page == 9;
        let values = vec![Bytes::from(vec![*page, u8::from(more)])];
        let answer =
            Answer { values, cursor: (*page < 9).then(|| Bytes::from_static(b"more")), ..Answer::default() };
        let came = Came { request, rtt: MS(10), remote: met(&story.lookup, request), answer: &answer };
        story.lookup.answered(at(50), &Slots, &came, &mut |_| None);
        asked.extend(story.go(at(50)).0);
    }
    assert_eq!((story.lookup.harvest.found(), pages.values().copied().collect::<Vec<_>>()), (10, vec![9; 4]));
}

/// Pages take slots as other requests do, and what is configured or permitted holds for lookups of several paths too.
#[test]
fn no_more_requests_are_in_flight_than_are_permitted() {
    for (alpha, wanted, paths) in [(3, 0, 2), (16, 3, 4), (5, 9, 8)] {
        let config = LookupConfig { alpha, ..warm() };
        let pace = Pace::new(&config, Class::Interactive, wanted, None);
        let mut story =
            Story::new(config, Goal::Values(1000), |plan| (plan.pace, plan.paths) = (pace, paths));
        story.seed(&peers()[..30]);
        let permitted = if wanted == 0 { alpha } else { wanted.min(alpha) };
        let mut most = 0;
        for step in 0..60 {
            let now = at(step * 30);
            story.go(now);
            let in_flight: Vec<RequestId> = story
                .lookup
                .candidates
                .iter()
                .filter(|one| one.state == State::InFlight)
                .filter_map(|one| one.request)
                .collect();
            most = most.max(in_flight.len());
            // Half of them answer, and have more.
            for request in in_flight.iter().step_by(2) {
                let answer = Answer {
                    values: vec![Bytes::from(vec![step as u8, request.0 as u8])],
                    cursor: Some(Bytes::from_static(b"more")),
                    ..Answer::default()
                };
                let came = Came {
                    request: *request,
                    rtt: MS(20),
                    remote: met(&story.lookup, *request),
                    answer: &answer,
                };
                story.lookup.answered(now, &Slots, &came, &mut |_| None);
            }
        }
        assert_eq!(most, permitted, "alpha {alpha}, {wanted} permitted, {paths} paths");
    }
}
