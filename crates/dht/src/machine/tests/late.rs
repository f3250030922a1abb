//! AL-31: what comes after the end of a lookup for values.

use super::keeping::{holder, record};
use super::*;
use crate::StepKind;
use crate::machine::late::LISTEN;
use crate::record::Record;

const ID: OperationId = OperationId(1);

/// A lookup that has ended with the value of number 2, and its requests that were dropped.
fn ended(story: &mut Story, salt: u32, watched: bool) -> Vec<(RequestId, Contact, Query)> {
    let wanted = Operation::Get { target: record(salt, 1).target().clone() };
    let options = Options { quorum: 1, watch: watched, ..Options::default() };
    let mut outputs = story.input(Input::Start { operation: ID, wanted, options });
    let (request, from, _) = asks(&outputs)[0].clone();
    outputs.extend(late(story, request, &from, &[&record(salt, 2)]));
    outputs.extend(story.wait(S(1)));
    let done = |output: &Output| match output {
        Output::Done { outcome, .. } => Some(outcome.values[0].value.clone()),
        _ => None,
    };
    assert_eq!(outputs.iter().find_map(done), Some(record(salt, 2).to_bytes()));
    let listened = |request: RequestId| {
        outputs.iter().any(|output| {
            matches!(output, Output::CancelAsk { request: of, listen } if *of == request && *listen == LISTEN)
        })
    };
    let dropped: Vec<_> = asks(&outputs).into_iter().filter(|(request, ..)| listened(*request)).collect();
    assert!(dropped.len() >= 3, "{}", dropped.len());
    dropped
}

fn late(story: &mut Story, request: RequestId, from: &Contact, records: &[&Record]) -> Vec<Output> {
    let remote = from.addresses()[0].socket_addr().unwrap().ip();
    let values = records.iter().map(|record| record.to_bytes()).collect();
    let answer = Answer { values, extended: true, ..Answer::default() };
    story.input(Input::Answered { request, rtt: MS(700), remote, answer })
}

/// The steps that tell of something newer: who had it, and how many.
fn told(outputs: &[Output]) -> Vec<(PeerId, usize)> {
    let later = |output: &Output| match output {
        Output::Step { operation: ID, step } => match step.what {
            StepKind::Later { peer, newer, .. } => Some((peer, newer)),
            _ => None,
        },
        _ => None,
    };
    outputs.iter().filter_map(later).collect()
}

fn held(story: &Story, salt: u32) -> Option<u64> {
    story.dht.store().unwrap().version(&record(salt, 1).id()).map(|version| version.seq)
}

/// AL-31
#[test]
fn a_newer_value_that_comes_after_the_end_is_kept_and_its_watcher_is_told() {
    let (mut story, salt) = holder();
    let dropped = ended(&mut story, salt, true);
    assert!(story.dht.is_listening(ID));
    let (request, from, _) = &dropped[0];
    let outputs = late(&mut story, *request, from, &[&record(salt, 3)]);
    assert_eq!(told(&outputs), [(*from.peer(), 1)]);
    assert_eq!(held(&story, salt), Some(3));
    // The same again is nothing newer.
    let (request, from, _) = &dropped[1];
    assert_eq!(told(&late(&mut story, *request, from, &[&record(salt, 3)])), []);
    // When its time is over the watcher is told that nothing follows; what comes is kept all the same.
    let listened = |outputs: &[Output]| {
        outputs.iter().any(|output| matches!(output, Output::Listened { operation: ID }))
    };
    assert!(!listened(&story.wait(MS(1300))) && listened(&story.wait(MS(1300))));
    assert!(!story.dht.is_listening(ID));
    let (request, from, _) = &dropped[2];
    assert_eq!(told(&late(&mut story, *request, from, &[&record(salt, 4)])), []);
    assert_eq!(held(&story, salt), Some(4));
}

/// AL-31
#[test]
fn late_values_that_are_old_or_invalid_or_others_to_keep_change_nothing() {
    let (mut story, salt) = holder();
    let dropped = ended(&mut story, salt, true);
    let (request, from, _) = &dropped[0];
    assert_eq!(told(&late(&mut story, *request, from, &[&record(salt, 1)])), [], "older than what was found");
    assert_eq!(held(&story, salt), Some(1), "but nothing at all was here");
    let (request, from, _) = &dropped[1];
    let elsewhere = record(salt + 1, 9);
    let mut forged = record(salt, 9).to_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let remote = from.addresses()[0].socket_addr().unwrap().ip();
    let answer = Answer { values: vec![forged.into(), elsewhere.to_bytes()], ..Answer::default() };
    let outputs = story.input(Input::Answered { request: *request, rtt: MS(700), remote, answer });
    assert_eq!((told(&outputs), held(&story, salt)), (vec![], Some(1)));
    assert_eq!(story.dht.held().records, 1);
    // Whoever serves nobody keeps nothing.
    story.input(Input::Mode(Mode::Client));
    let (request, from, _) = &dropped[2];
    assert_eq!(told(&late(&mut story, *request, from, &[&record(salt, 5)])), [(*from.peer(), 1)]);
    assert_eq!(held(&story, salt), Some(1));
}

/// AL-31: without a watcher there is nobody to tell, and who cancels wants nothing any more.
#[test]
fn nobody_listens_to_what_nobody_watches_or_wants() {
    let (mut story, salt) = holder();
    let dropped = ended(&mut story, salt, false);
    assert!(!story.dht.is_listening(ID));
    let (request, from, _) = &dropped[0];
    assert_eq!(told(&late(&mut story, *request, from, &[&record(salt, 3)])), []);
    assert_eq!(held(&story, salt), Some(3));
    let (mut story, salt) = holder();
    let wanted = Operation::Get { target: record(salt, 1).target().clone() };
    let options = Options { watch: true, ..Options::default() };
    story.input(Input::Start { operation: ID, wanted, options });
    let outputs = story.input(Input::Cancel { operation: ID });
    let cancelled = |output: &&Output| matches!(output, Output::CancelAsk { listen, .. } if listen.is_zero());
    assert_eq!(outputs.iter().filter(cancelled).count(), 4, "the burst");
    assert!(!story.dht.is_listening(ID));
}

/// X-29, AL-31: so many dropped requests are remembered, and those who wait for one that is forgotten are told.
#[test]
fn sixty_four_dropped_requests_are_remembered() {
    let (mut story, salt) = holder();
    let dropped = ended(&mut story, salt, true);
    let many: Vec<RequestId> = (0..Late::DROPPED)
        .map(|_| story.dht.ask(story.now, &contact(4), find("x"), Class::Normal, requests::Purpose::Probe))
        .collect();
    let now = story.now;
    many.iter().for_each(|request| story.dht.drop_request(now, *request, false, true));
    let outputs = story.outputs();
    assert!(outputs.iter().any(|output| matches!(output, Output::Listened { operation: ID })));
    let (request, from, _) = &dropped[0];
    late(&mut story, *request, from, &[&record(salt, 3)]);
    assert_eq!(held(&story, salt), None);
}
