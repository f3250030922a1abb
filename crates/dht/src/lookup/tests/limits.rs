//! each limit of a lookup has an effect, on both sides of its edge.

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
