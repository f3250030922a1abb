//! What a lookup's own check tells when a rule is broken (dht.md D.3, 3 and 4).

use super::*;

/// What is told when one thing is spoilt of a lookup that has asked four of twenty.
fn spoilt(spoil: impl FnOnce(&mut Lookup)) -> String {
    let mut story = Story::seeded(Goal::Closest, &peers()[..20]);
    let (asked, _) = story.go(at(0));
    story.answer(at(10), asked[0].0, &[]);
    assert_eq!((asked.len(), story.lookup.check()), (4, Ok(())));
    spoil(&mut story.lookup);
    story.lookup.check().unwrap_err()
}

#[test]
fn more_in_flight_than_may_be_and_more_requests_than_may_be_are_told() {
    let flood = |lookup: &mut Lookup| {
        for at in 0..13 {
            let candidate = &mut lookup.candidates[at];
            lookup.counts.asked += u32::from(!candidate.is_pending());
            lookup.counts.answered = 0;
            (candidate.state, candidate.request) = (State::InFlight, Some(RequestId(100)));
        }
        lookup.counts.asked -= 1;
    };
    assert!(spoilt(flood).contains("13 requests in flight, at most 12"));
    let long = spoilt(|lookup| {
        lookup.counts.asked += 1_000;
        lookup.counts.failed += 1_000;
    });
    assert!(long.contains("requests, at most"), "{long}");
    assert!(spoilt(|lookup| lookup.counts.asked += 1).contains("under way"));
}

#[test]
fn whoever_is_asked_twice_in_one_lookup_is_told() {
    let mut story = Story::seeded(Goal::Closest, &peers()[..20]);
    let (asked, _) = story.go(at(0));
    story.answer(at(10), asked[0].0, &[]);
    // As if it had not been asked.
    let answered = story.lookup.candidates.iter_mut().find(|one| one.state == State::Answered).unwrap();
    answered.state = State::New;
    let place = story.lookup.candidates.iter().position(|one| one.asks == 1 && one.state == State::New);
    story.lookup.asked(at(20), place.unwrap(), RequestId(99), Cause::Close);
    assert!(story.lookup.check().unwrap_err().contains("was asked 2 times in one lookup, at most 1"));
}

#[test]
fn candidates_out_of_order_or_twice_are_told() {
    assert!(spoilt(|lookup| lookup.candidates.swap(3, 4)).contains("out of order"));
    let twice = spoilt(|lookup| lookup.candidates[4].distance = lookup.candidates[3].distance);
    assert!(twice.contains("a candidate twice"), "{twice}");
    let many = spoilt(|lookup| {
        lookup.config = Arc::new(LookupConfig { max_candidates: 19, ..LookupConfig::default() });
    });
    assert!(many.contains("20 candidates"), "{many}");
}
