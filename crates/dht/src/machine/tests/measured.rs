//! What a node measures decides what it does.

use super::keeping::{holder, record};
use super::*;

/// How long a lookup waits for an answer before it asks the fifth, when first hops of late took so long.
fn stagger_after(rtt: Duration) -> Duration {
    let mut story = Story::among(200);
    let start = |story: &mut Story, number: u64| {
        let wanted = Operation::Closest { target: Target::new(b"somewhere").unwrap() };
        let options = Options { class: Class::Interactive, ..Options::default() };
        asks(&story.input(Input::Start { operation: OperationId(number), wanted, options }))
    };
    for number in 1..=40 {
        let (request, contact, _) = start(&mut story, number)[0].clone();
        let remote = contact.addresses()[0].socket_addr().unwrap().ip();
        let answer = Answer { extended: true, ..Answer::default() };
        story.input(Input::Answered { request, rtt, remote, answer });
        story.input(Input::Cancel { operation: OperationId(number) });
    }
    let begun = story.now.mono;
    assert_eq!(start(&mut story, 100).len(), 4);
    let of_the_lookup =
        |outputs: Vec<Output>| asks(&outputs).iter().any(|(_, _, query)| query == &find("somewhere"));
    while story.now.mono < begun + S(5) {
        let due = story.dht.poll_timeout().unwrap();
        if of_the_lookup(story.wait(due.saturating_sub(story.now.mono))) {
            return story.now.mono - begun;
        }
    }
    panic!("the fifth is never asked");
}

/// AL-25: the next request starts after 0.18 of the median first hop, within 15 and 60 ms.
#[test]
fn a_lookup_waits_as_its_node_has_measured() {
    for (rtt, stagger) in [(300, 54), (150, 27), (100, 18), (10, 15), (2000, 60)] {
        assert_eq!(stagger_after(MS(rtt)), MS(stagger), "first hops of {rtt} ms");
    }
}

/// Who sees others die sooner compares what it holds more often.
#[test]
fn holders_compare_as_often_as_deaths_demand() {
    let period_after = |deaths: usize| {
        let (mut story, salt) = holder();
        let (target, value) = (record(salt, 1).target().clone(), record(salt, 1).to_bytes());
        let (answer, _) = story.asked(50, Query::PutValue { target, value });
        assert_eq!(answer.status, Status::Stored);
        (0..deaths).for_each(|_| story.dht.table.lifetimes.learn(0, 60, true));
        story.wait(S(60));
        story.dht.holder.as_ref().unwrap().repair.period
    };
    let (usual, restless) = (period_after(0), period_after(100));
    assert!(restless < usual / 4, "{restless:?} after deaths, {usual:?} without");
}
