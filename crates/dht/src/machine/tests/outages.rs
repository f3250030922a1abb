//! A node that was cut off from everybody, and is no longer.

use std::collections::VecDeque;

use super::*;

/// A node among forty, whose next attempt to join is far off.
fn cut_off() -> Story {
    let mut config = DhtConfig::default();
    (config.upkeep.rejoin_first, config.upkeep.rejoin_most) = (S(3000), S(3000));
    let mut story = Story::new(config);
    story.dht.plant(story.now, (1..=40).map(contact));
    let outputs = run(&mut story, Vec::new(), S(600), false);
    assert!(story.dht.standing(story.now).outage);
    let last = own_lookups(&story, &outputs).pop().expect("it looked for anybody");
    assert!(last < story.now.mono - S(60), "and waits now");
    story
}

/// Runs so long; whoever is asked answers, or all of them are silent.
fn run(story: &mut Story, first: Vec<Output>, span: Duration, answers: bool) -> Vec<(Duration, Output)> {
    let end = story.now.mono + span;
    let (mut outputs, mut told) = (VecDeque::from(first), Vec::new());
    loop {
        let more = match outputs.pop_front() {
            Some(output) => {
                told.push((story.now.mono, output.clone()));
                let Output::Ask { request, contact, .. } = output else { continue };
                match answers {
                    true => story.answer(request, contact.addresses()[0].socket_addr().unwrap().ip(), &[]),
                    false => story.input(Input::Failed { request, why: Failure::Timeout }),
                }
            }
            None => match story.dht.poll_timeout().filter(|due| *due <= end) {
                Some(due) => story.wait(due.saturating_sub(story.now.mono)),
                None => return told,
            },
        };
        outputs.extend(more);
    }
}

/// When somebody was asked for our own place.
fn own_lookups(story: &Story, told: &[(Duration, Output)]) -> Vec<Duration> {
    let own = |output: &Output| match output {
        Output::Ask { query: Query::FindNode { target }, .. } => target.key() == story.dht.key(),
        _ => false,
    };
    told.iter().filter(|(_, output)| own(output)).map(|(time, _)| *time).collect()
}

/// AL-19, AL-58: when an outage is over the node joins at once, however long the pause is that it was in.
#[test]
fn a_node_joins_again_as_soon_as_an_outage_is_over() {
    let mut story = cut_off();
    let told = run(&mut story, Vec::new(), S(600), true);
    let is_over = |output: &Output| matches!(output, Output::Event(Event::OutageOver { family: None }));
    let over = told.iter().find(|(_, output)| is_over(output)).expect("whoever is probed answers").0;
    let again = own_lookups(&story, &told).into_iter().find(|time| *time >= over);
    assert!(again.is_some_and(|again| again <= over + S(1)), "over at {over:?}, joined at {again:?}");
}

/// The same when the driver says that the network is another one.
#[test]
fn a_node_joins_again_as_soon_as_its_network_has_changed() {
    let mut story = cut_off();
    let changed = story.now.mono;
    let outputs = story.input(Input::NetworkChanged);
    let told = run(&mut story, outputs, S(10), false);
    let again = own_lookups(&story, &told).first().copied();
    assert!(
        again.is_some_and(|again| again <= changed + S(1)),
        "changed at {changed:?}, joined at {again:?}"
    );
}
