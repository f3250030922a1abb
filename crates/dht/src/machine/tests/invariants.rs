//! What the machine's own check tells when a rule is broken (dht.md D.3, 3 and 4).

use super::keeping::holder;
use super::operation::Aim;
use super::*;
use crate::lookup::Goal;

fn place() -> Target {
    Target::new(b"x").unwrap()
}

/// Fifty are known, and a lookup is under way.
fn looking() -> Story {
    let mut story = Story::among(50);
    let wanted = Operation::Closest { target: place() };
    story.input(Input::Start { operation: OperationId(1), wanted, options: Options::default() });
    assert_eq!(story.dht.operations.len(), 1);
    story
}

/// What is told when one thing is spoilt.
fn spoilt(spoil: impl FnOnce(&mut Dht, Now)) -> String {
    let mut story = looking();
    spoil(&mut story.dht, story.now);
    story.dht.check().unwrap_err()
}

/// What is told when one thing is spoilt of the operation.
fn spoilt_op(spoil: impl FnOnce(&mut operation::Op)) -> String {
    spoilt(|dht, _| spoil(dht.operations.values_mut().next().unwrap()))
}

#[test]
fn a_lookup_that_would_not_end_by_its_deadline_is_told() {
    assert!(spoilt_op(|op| op.wake = Duration::MAX).contains("wakes at"));
    assert!(spoilt_op(|op| op.deadline = Duration::ZERO).contains("ends by"));
    // Whoever starts one says how long it may take; the node's own have the time of their class.
    let mut story = looking();
    let hour = Options { class: Class::Frugal, deadline: Some(S(3600)), ..Options::default() };
    story.dht.create(story.now, Aim::Refresh, place(), Goal::Closest, None, hour).unwrap();
    assert!(story.dht.check().unwrap_err().contains("may take more"));
    // Nobody has woken this one.
    let story = looking();
    let after = |time| story.dht.check_at(at(S(1) + time));
    assert_eq!((after(MS(4999)), after(S(0))), (Ok(()), Ok(())));
    assert!(after(MS(5002)).unwrap_err().contains("request waits"));
    assert!(after(MS(10_002)).unwrap_err().contains("after its deadline"));
}

#[test]
fn what_is_left_of_an_operation_after_its_end_is_told() {
    let forgotten = spoilt(|dht, _| {
        dht.operations.clear();
        dht.callers.clear();
    });
    assert!(forgotten.contains("does not wait for it"), "{forgotten}");
    assert!(spoilt(|dht, _| dht.operations.clear()).contains("is under way"));
    let walked = spoilt_op(|op| op.walked = Some(Ended::Complete));
    assert!(walked.contains("has ended its walk"), "{walked}");
    assert!(spoilt(|dht, _| dht.callers.clear()).contains("nobody waits"));
    let unknown = spoilt(|dht, _| assert_eq!(dht.callers.insert(OperationId(2), 99), None));
    assert!(unknown.contains("a caller waits"), "{unknown}");
}

#[test]
fn lookups_of_the_nodes_own_that_nobody_waits_for_are_told() {
    let begun =
        |aim| spoilt(move |dht, now| assert_eq!(dht.begin(now, aim, place(), Class::Frugal), Some(2)));
    assert!(begun(Aim::Join).contains("lookups for ourselves"));
    assert!(begun(Aim::Compare).contains("through first contacts"));
    assert!(begun(Aim::Cover(99)).contains("goes on for 99"));
    assert!(begun(Aim::Cover(1)).contains("waits for 0 lookups and has 1"));
    assert!(spoilt_op(|op| op.covering = 1).contains("waits for 1 lookups and has 0"));
}

#[test]
fn a_place_that_is_followed_for_nobody_is_told() {
    let (mut story, _) = holder();
    assert_eq!(story.dht.check(), Ok(()));
    story.dht.follow(place().key());
    assert!(story.dht.check().unwrap_err().contains("followed 1 times, for 0"));
}

/// D.3-4: sent = answered + failed + cancelled + under way, by each account there is.
#[test]
fn requests_that_are_not_accounted_for_are_told() {
    assert!(spoilt(|dht, _| dht.stats.answered += 1).contains("under way"));
    let dropped = spoilt(|dht, now| {
        let request = dht.requests.purposes().next().unwrap().0;
        dht.drop_request(now, request, false, false);
    });
    assert!(dropped.contains("operations wait for"), "{dropped}");
    let cancelled = spoilt_op(|op| drop(op.lookup.cancel(at(S(1)))));
    assert!(cancelled.contains("does not wait for it"), "{cancelled}");
}

/// D.3-4: no bucket of tokens owes more than it may.
#[test]
fn buckets_that_owe_more_than_they_may_are_told() {
    let upkeep = spoilt(|dht, now| dht.upkeep.admissions.charge(1e6, now));
    assert!(upkeep.contains("admissions"), "{upkeep}");
    let asker = peer(7);
    let mut story = looking();
    story.asked(7, find("x"));
    story.dht.charge(story.now, &asker, 10_000_000 + MAX_ANSWER_BYTES);
    assert!(story.dht.check().unwrap_err().contains("bytes of a peer"));
}

#[test]
fn a_request_says_for_which_operation_it_is_until_it_is_over() {
    let mut story = looking();
    let (request, _) = story.dht.requests.purposes().next().unwrap();
    let errand = Errand { operation: 1, caller: Some(OperationId(1)), lookup: Some(1) };
    assert_eq!((story.dht.errand(request), story.dht.runs(1)), (Some(errand), true));
    story.input(Input::Cancel { operation: OperationId(1) });
    assert_eq!((story.dht.errand(request), story.dht.runs(1)), (None, false));
    let (stats, under_way) = story.dht.account();
    assert_eq!((stats.asked, stats.cancelled, under_way), (4, 4, 0));
}
