//! AL-54: questions that wait until something changes, at the one who is asked.

use super::keeping::{holder, holder_with, network, record};
use super::*;
use crate::record::{Draft, Record};
use crate::{Refusal, Wait, digest_of};

/// A node that keeps number 1 of the record.
fn keeper(change: impl FnOnce(&mut DhtConfig)) -> (Story, u32) {
    let (mut story, salt) = holder_with(change);
    put(&mut story, &record(salt, 1));
    (story, salt)
}

fn put(story: &mut Story, record: &Record) -> Vec<Output> {
    let (target, value) = (record.target().clone(), record.to_bytes());
    let (answer, outputs) = story.asked(50, Query::PutValue { target, value });
    assert_eq!(answer.status, Status::Stored);
    outputs
}

/// Asks to be told when something else than `known` stands there.
fn wait(story: &mut Story, from: u64, known: &Record, seconds: u32) -> (QueryId, Vec<Output>) {
    story.queries += 1;
    let query = QueryId(story.queries);
    let wait = Some(Wait { known: digest_of(&[known.to_bytes()]), seconds });
    let ask = Query::GetValue { target: known.target().clone(), cursor: None, wait };
    (query, story.input(Input::Asked { query, from: peer(from), remote: ip(from), ask, extended: true }))
}

fn reply(outputs: &[Output], query: QueryId) -> Option<Answer> {
    outputs.iter().find_map(|output| match output {
        Output::Reply { query: of, answer } if *of == query => Some(answer.clone()),
        _ => None,
    })
}

/// Whether a question is kept.
fn is_kept(story: &mut Story, from: u64, known: &Record) -> bool {
    let (query, outputs) = wait(story, from, known, 60);
    reply(&outputs, query).is_none()
}

fn watchers(story: &Story) -> usize {
    story.dht.standing(story.now).watchers
}

/// AL-54
#[test]
fn a_question_waits_only_where_something_is_and_was_seen() {
    let (mut story, salt) = holder();
    let (query, outputs) = wait(&mut story, 7, &record(salt, 1), 60);
    let answer = reply(&outputs, query).expect("nothing is here");
    assert!(!answer.waited && answer.values.is_empty() && answer.closer.len() == 20);
    put(&mut story, &record(salt, 2));
    let (query, outputs) = wait(&mut story, 7, &record(salt, 1), 60);
    let answer = reply(&outputs, query).expect("something else is here");
    assert_eq!((answer.waited, answer.values), (false, vec![record(salt, 2).to_bytes()]));
    let (query, outputs) = wait(&mut story, 7, &record(salt, 2), 0);
    assert!(reply(&outputs, query).is_some(), "it doesn't want to wait");
    assert!(is_kept(&mut story, 7, &record(salt, 2)));
    assert_eq!(watchers(&story), 1);
}

/// AL-54
#[test]
fn who_waits_is_told_of_a_change_of_an_extension_and_of_the_end() {
    let (mut story, salt) = keeper(|_| {});
    let key = crate::numbered::key(900);
    let longer = record(salt, 2).extended(&key, 3700).unwrap();
    let gone = Draft::new(record(salt, 1).place().clone(), 3, 3600, bytes::Bytes::new());
    let gone = Record::sign(&key, &network(), gone).unwrap();
    let mut known = record(salt, 1);
    for next in [record(salt, 2), longer, gone] {
        let (query, outputs) = wait(&mut story, 7, &known, 60);
        assert!(reply(&outputs, query).is_none());
        let quiet = story.wait(S(20));
        assert!(reply(&quiet, query).is_none());
        // What is put elsewhere, or is old, or is there already, is no change.
        put(&mut story, &known);
        let told = reply(&put(&mut story, &next), query).expect("it is told at once");
        assert_eq!((told.waited, told.values), (true, vec![next.to_bytes()]));
        assert_eq!(watchers(&story), 0, "and then it waits no more");
        known = next;
    }
}

/// AL-54: whoever waits for something that goes is not left waiting, and is told that nobody waited for it here.
#[test]
fn who_waits_for_what_expires_is_answered() {
    let (mut story, salt) = keeper(|config| config.serve.watch_most = S(7200));
    let (query, _) = wait(&mut story, 7, &record(salt, 1), 7200);
    assert!(reply(&story.wait(S(3500)), query).is_none());
    let answer = reply(&story.wait(S(120)), query).expect("it is gone");
    assert!(!answer.waited && answer.values.is_empty());
}

/// X-29, AL-54
#[test]
fn a_question_is_kept_for_the_time_that_it_asks_for_and_no_longer_than_configured() {
    for (most, asked, kept) in [(60, 10, 10), (60, 100, 60), (5, u32::MAX, 5)] {
        let (mut story, salt) = keeper(|config| config.serve.watch_most = S(most));
        let (query, _) = wait(&mut story, 7, &record(salt, 1), asked);
        assert!(reply(&story.wait(S(kept) - MS(1)), query).is_none());
        let answer = reply(&story.wait(MS(1)), query).expect("its time is up");
        assert!(answer.waited && answer.values.is_empty() && answer.closer.is_empty());
        assert_eq!(watchers(&story), 0);
    }
    let (mut story, salt) = keeper(|config| config.serve.watch_most = Duration::ZERO);
    assert!(!is_kept(&mut story, 7, &record(salt, 1)));
}

/// X-29, AL-54
#[test]
fn so_many_questions_wait_of_a_peer_and_in_all() {
    let (mut story, salt) = keeper(|config| {
        (config.serve.watchers, config.serve.watchers_per_peer) = (10, 4);
    });
    let known = record(salt, 1);
    let kept = (0..6).filter(|_| is_kept(&mut story, 7, &known)).count();
    let others = (8..28).filter(|from| is_kept(&mut story, *from, &known)).count();
    assert_eq!((kept, others, watchers(&story)), (4, 6, 10));
    // Those who are not kept are answered at once, and places are free again when some are told.
    let (query, outputs) = wait(&mut story, 30, &known, 60);
    let answer = reply(&outputs, query).unwrap();
    assert_eq!((answer.waited, answer.values), (false, vec![known.to_bytes()]));
    put(&mut story, &record(salt, 2));
    assert!(is_kept(&mut story, 30, &record(salt, 2)));
}

/// AL-54
#[test]
fn who_is_gone_or_wants_no_answer_waits_no_more() {
    let (mut story, salt) = keeper(|_| {});
    let known = record(salt, 1);
    story.connect(7);
    let (first, second) = (wait(&mut story, 7, &known, 60).0, wait(&mut story, 8, &known, 60).0);
    let third = wait(&mut story, 8, &known, 60).0;
    let outputs = story.input(Input::Disconnected { peer: peer(7) });
    assert!(reply(&outputs, first).is_some() && reply(&outputs, second).is_none());
    let outputs = story.input(Input::Withdrawn { query: third });
    assert!(reply(&outputs, third).is_some() && watchers(&story) == 1);
    assert!(story.input(Input::Withdrawn { query: third }).is_empty(), "it is answered");
    let outputs = story.input(Input::Mode(Mode::Client));
    assert_eq!(reply(&outputs, second).unwrap().status, Status::Refused(Refusal::NotServed));
    assert_eq!(watchers(&story), 0);
}

/// AL-54, X-27: a question counts when it is asked and its answer's bytes when it is given: nobody gets more by waiting.
#[test]
fn what_is_told_counts_in_the_rates_of_who_waited() {
    let (mut story, salt) = keeper(|config| {
        (config.serve.peer_burst, config.serve.peer_per_second) = (3.0, 0.0);
    });
    let kept = (0..5).filter(|_| is_kept(&mut story, 7, &record(salt, 1))).count();
    assert_eq!(kept, 3);
    let (mut story, salt) = keeper(|config| {
        (config.serve.peer_byte_burst, config.serve.peer_bytes_per_second) = (300.0, 0.001);
    });
    assert!(is_kept(&mut story, 7, &record(salt, 1)));
    assert!(is_kept(&mut story, 7, &record(salt, 1)), "nothing was answered yet");
    put(&mut story, &record(salt, 2));
    assert_eq!(story.asked(7, Query::Ping).0.status, Status::Busy);
    assert_eq!(story.asked(8, Query::Ping).0.status, Status::Ok);
}
