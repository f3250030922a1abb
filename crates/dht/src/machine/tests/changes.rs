//! AL-54: waiting for a value to change, at the one who wants to know.

use bytes::Bytes;

use super::keeping::{holder_with, record};
use super::*;
use crate::record::Record;
use crate::{Judged, Wait, digest_of};

const ID: OperationId = OperationId(1);

/// A story in which a node waits for something newer than number 2, of which the network has that.
struct Waiting {
    story: Story,
    salt: u32,
    /// Holders that were asked to tell and have not answered, in the order of the questions.
    asked: Vec<(RequestId, Contact, Wait)>,
    /// Those that were asked for the value.
    looked: usize,
    done: Option<Outcome>,
    /// They understand what Peerage nodes add.
    extended: bool,
}

impl Waiting {
    fn begin(config: impl FnOnce(&mut DhtConfig), deadline: Option<Duration>) -> Self {
        Self::among(config, deadline, true)
    }

    fn among(config: impl FnOnce(&mut DhtConfig), deadline: Option<Duration>, extended: bool) -> Self {
        let (mut story, salt) = holder_with(|limits| {
            limits.upkeep.probes_at_once = 0;
            config(limits);
        });
        story.dht.upkeep.early = 0;
        let known = record(salt, 2);
        let rank = Bytes::copy_from_slice(&known.version().to_bytes());
        let known_rank = Judged { slot: Bytes::new(), rank, is_final: false };
        let wanted = Operation::Changed { target: known.target().clone(), known: Some(known_rank) };
        let options = Options { deadline, ..Options::default() };
        let outputs = story.input(Input::Start { operation: ID, wanted, options });
        let mut waiting = Self { story, salt, asked: Vec::new(), looked: 0, done: None, extended };
        waiting.take(outputs);
        waiting.pass(S(1));
        waiting
    }

    fn record(&self, seq: u64) -> Record {
        record(self.salt, seq)
    }

    /// Answers what a lookup asks, with number 2; keeps what is to wait.
    fn take(&mut self, mut outputs: Vec<Output>) {
        while !outputs.is_empty() {
            let mut more = Vec::new();
            for output in outputs {
                match output {
                    Output::Ask { request, contact, query, .. } => match query {
                        Query::GetValue { wait: Some(wait), .. } => self.asked.push((request, contact, wait)),
                        Query::GetValue { .. } => {
                            self.looked += 1;
                            more.extend(self.say(request, &contact, &[&self.record(2)], false));
                        }
                        _ => more.extend(self.say(request, &contact, &[], false)),
                    },
                    Output::CancelAsk { request, .. } => self.asked.retain(|(of, ..)| *of != request),
                    Output::Done { outcome, .. } => self.done = Some(*outcome),
                    _ => {}
                }
            }
            outputs = more;
        }
    }

    fn say(&mut self, request: RequestId, from: &Contact, said: &[&Record], waited: bool) -> Vec<Output> {
        let remote = from.addresses()[0].socket_addr().unwrap().ip();
        let values = said.iter().map(|record| record.to_bytes()).collect();
        let answer = Answer { values, waited, extended: self.extended, ..Answer::default() };
        self.story.input(Input::Answered { request, rtt: MS(50), remote, answer })
    }

    /// The holder that was asked first of those that are to tell answers.
    fn tell(&mut self, said: &[&Record], waited: bool) -> Contact {
        let (request, from, _) = self.asked.remove(0);
        let outputs = self.say(request, &from, said, waited);
        self.take(outputs);
        from
    }

    fn pass(&mut self, time: Duration) {
        let end = self.story.now.mono + time;
        while let Some(due) = self.story.dht.poll_timeout().filter(|due| *due <= end) {
            self.story.now = at(due.max(self.story.now.mono));
            self.story.dht.handle_timeout(self.story.now);
            let outputs = self.story.outputs();
            self.take(outputs);
        }
        self.story.now = at(end);
    }

    fn contacts(&self) -> Vec<Contact> {
        self.asked.iter().map(|(_, contact, _)| contact.clone()).collect()
    }

    fn found(&self) -> Option<(Ended, Bytes)> {
        self.done.as_ref().map(|done| (done.ended, done.values[0].value.clone()))
    }
}

/// AL-54: the closest of those that have it are asked, with what they have, and the first that tells ends the wait.
#[test]
fn the_closest_holders_are_asked_to_tell_and_the_first_newer_value_ends_the_wait() {
    let mut waiting = Waiting::begin(|_| {}, None);
    assert_eq!((waiting.asked.len(), waiting.done.is_none()), (3, true));
    let key = *waiting.record(2).target().key();
    assert!(waiting.contacts().is_sorted_by_key(|contact| contact.key().distance(&key)));
    let known = digest_of(&[waiting.record(2).to_bytes()]);
    assert!(waiting.asked.iter().all(|(.., wait)| wait.known == known && (58..=60).contains(&wait.seconds)));
    waiting.pass(S(20));
    assert_eq!(waiting.asked.len(), 3);
    let newer = waiting.record(3);
    waiting.tell(&[&newer], true);
    assert_eq!(waiting.found(), Some((Ended::Found, newer.to_bytes())));
    assert_eq!(waiting.asked.len(), 0, "the others need not tell any more");
    assert_eq!(waiting.story.dht.standing(waiting.story.now).requests, 0);
    let counts = waiting.done.unwrap().counts;
    assert_eq!(counts.asked, counts.answered + counts.failed + counts.cancelled);
}

/// AL-54: a lookup that finds something newer needs nobody to tell.
#[test]
fn what_is_newer_already_ends_the_wait_at_once() {
    let (mut story, salt) = holder_with(|_| {});
    let wanted = Operation::Changed { target: record(salt, 1).target().clone(), known: None };
    let outputs = story.input(Input::Start { operation: ID, wanted, options: Options::default() });
    let mut waiting = Waiting { story, salt, asked: Vec::new(), looked: 0, done: None, extended: true };
    waiting.take(outputs);
    waiting.pass(S(1));
    assert_eq!(waiting.found(), Some((Ended::Found, record(salt, 2).to_bytes())));
}

/// AL-54: the end of a holder's time renews the wait, and who says so too soon is not asked again and again.
#[test]
fn a_holder_whose_time_is_up_is_asked_again_and_never_in_a_hurry() {
    let mut waiting = Waiting::begin(|_| {}, Some(S(300)));
    waiting.pass(S(60));
    assert_eq!(waiting.asked.len(), 3);
    let holder = waiting.tell(&[], true);
    assert_eq!((waiting.asked.len(), waiting.asked[2].1.clone()), (3, holder.clone()));
    let mut hurried = 0;
    for _ in 0..20 {
        while let Some(place) = waiting.asked.iter().position(|(_, contact, _)| *contact == holder) {
            let (request, from, _) = waiting.asked.remove(place);
            hurried += 1;
            let outputs = waiting.say(request, &from, &[], true);
            waiting.take(outputs);
        }
        waiting.pass(S(1));
    }
    assert!((3..=5).contains(&hurried), "{hurried} times in 20 s");
    assert_eq!((waiting.asked.len() >= 2, waiting.done), (true, None));
}

/// AL-54
#[test]
fn a_holder_that_fails_or_keeps_no_question_gives_its_place_to_the_next() {
    let mut waiting = Waiting::begin(|_| {}, Some(S(300)));
    let first = waiting.contacts();
    let (request, ..) = waiting.asked.remove(0);
    let outputs = waiting.story.input(Input::Failed { request, why: Failure::Refused });
    waiting.take(outputs);
    assert_eq!(waiting.asked.len(), 3);
    assert!(!first.contains(&waiting.contacts()[2]));
    let health = |waiting: &Waiting| {
        let mut peers = waiting.story.dht.table().peers();
        peers.find(|(known, _)| *known == &first[0]).unwrap().1
    };
    assert_eq!(health(&waiting), crate::Health::Good, "a lent connection may be needed for something else");
    let same = waiting.record(2);
    let second = waiting.tell(&[&same], false);
    assert!(!waiting.contacts().contains(&second) && waiting.asked.len() == 3);
    let newer = waiting.record(3);
    waiting.tell(&[&newer], true);
    assert_eq!(waiting.found(), Some((Ended::Found, newer.to_bytes())));
}

/// AL-54: a liar ends nothing: not with an older value, not with one that is forged.
#[test]
fn older_and_invalid_values_do_not_end_the_wait() {
    let mut waiting = Waiting::begin(|_| {}, Some(S(300)));
    let older = waiting.record(1);
    waiting.tell(&[&older], true);
    let elsewhere = record(waiting.salt + 1, 9);
    let liar = waiting.tell(&[&elsewhere], true);
    assert!(waiting.done.is_none() && !waiting.contacts().contains(&liar));
    waiting.pass(S(5));
    assert_eq!(waiting.asked.len(), 3);
    let (request, from, _) = waiting.asked.remove(1);
    let newer = waiting.record(3);
    let outputs = waiting.say(request, &from, &[&newer], true);
    waiting.take(outputs);
    assert_eq!(waiting.found(), Some((Ended::Found, newer.to_bytes())));
    assert_eq!(waiting.done.unwrap().counts.invalid, 1);
}

/// AL-54: whoever waits as it was asked to is no suspect, and its time says nothing of the way to it.
#[test]
fn a_wait_is_held_against_nobody_while_it_lasts() {
    let mut waiting = Waiting::begin(|_| {}, Some(S(300)));
    let holders = waiting.contacts();
    let rtt = |waiting: &Waiting| {
        let entry = waiting.story.dht.table().get(holders[0].key()).unwrap();
        (entry.rtt.smoothed(), entry.failures)
    };
    let before = rtt(&waiting);
    waiting.pass(S(60));
    let (request, from, _) = waiting.asked.remove(0);
    let remote = from.addresses()[0].socket_addr().unwrap().ip();
    let answer = Answer { waited: true, extended: true, ..Answer::default() };
    let outputs = waiting.story.input(Input::Answered { request, rtt: S(60), remote, answer });
    waiting.take(outputs);
    assert_eq!((rtt(&waiting), before.1), (before, 0));
    // The others say nothing, not even that their time is up: five seconds later they are given up.
    waiting.pass(S(3));
    assert_eq!(waiting.story.dht.standing(waiting.story.now).stats.failed, 0);
    waiting.pass(S(2));
    assert_eq!(waiting.story.dht.standing(waiting.story.now).stats.failed, 2);
    assert_eq!(waiting.asked.len(), 3, "others are asked in their stead");
}

/// AL-54: where nobody tells, the value is looked up from time to time.
#[test]
fn where_no_holder_tells_the_value_is_looked_up_every_half_a_minute() {
    for extended in [true, false] {
        let mut waiting = Waiting::among(|_| {}, Some(S(3600)), extended);
        let same = waiting.record(2);
        let mut looks = Vec::new();
        for second in 0..300 {
            while !waiting.asked.is_empty() {
                waiting.tell(&[&same], false);
            }
            let before = waiting.looked;
            waiting.pass(S(1));
            if waiting.looked > before {
                looks.push(second);
            }
        }
        assert!((6..=20).contains(&looks.len()), "{looks:?}");
        assert!(looks.windows(2).all(|two| (14..=46).contains(&(two[1] - two[0]))), "{looks:?}");
        assert!(waiting.done.is_none());
        let counts = waiting.story.dht.standing(waiting.story.now);
        assert_eq!(counts.requests, 0, "nobody is asked in between");
    }
}

/// X-29, AL-54
#[test]
fn so_many_holders_are_asked_and_lookups_come_as_often_as_configured() {
    for holders in [1, 5] {
        let waiting = Waiting::begin(|config| config.lookup.watch_holders = holders, None);
        assert_eq!(waiting.asked.len(), holders);
    }
    let looks = |every| {
        let mut waiting = Waiting::among(|config| config.lookup.watch_poll = S(every), Some(S(900)), false);
        let before = waiting.looked;
        waiting.pass(S(600));
        (waiting.looked - before) / before
    };
    assert!((5..=12).contains(&looks(60)) && (1..=4).contains(&looks(200)), "{} {}", looks(60), looks(200));
}

/// X-29, AL-54
#[test]
fn a_wait_ends_at_its_deadline_or_at_the_configured_one() {
    for (configured, said, ends) in
        [(60, None, 60), (90, None, 90), (60, Some(S(7)), 7), (60, Some(S(200)), 200)]
    {
        let mut waiting = Waiting::begin(|config| config.lookup.watch_deadline = S(configured), said);
        // One second has passed.
        for _ in 1..ends - 1 {
            while waiting.asked.first().is_some_and(|(.., wait)| wait.seconds < 1) {
                waiting.asked.remove(0);
            }
            waiting.pass(S(1));
        }
        assert!(waiting.done.is_none(), "{ends}");
        waiting.pass(S(1));
        let done = waiting.done.as_ref().unwrap();
        assert_eq!((done.ended, done.took), (Ended::Deadline, S(ends)));
        let standing = waiting.story.dht.standing(waiting.story.now);
        assert_eq!((standing.requests, standing.operations), (0, 0));
    }
}

/// AL-54: what is put here ends the wait as well: this node may be one of the holders.
#[test]
fn a_change_in_our_own_store_ends_the_wait() {
    let mut waiting = Waiting::begin(|_| {}, None);
    for (seq, ends) in [(1, false), (3, true)] {
        let record = waiting.record(seq);
        let (target, value) = (record.target().clone(), record.to_bytes());
        let (_, outputs) = waiting.story.asked(50, Query::PutValue { target, value });
        waiting.take(outputs);
        waiting.pass(MS(1));
        assert_eq!(waiting.done.is_some(), ends);
    }
    assert_eq!(waiting.found(), Some((Ended::Found, waiting.record(3).to_bytes())));
    assert!(waiting.asked.is_empty());
}

/// AL-54: whoever waits leaves room for whoever asks.
#[test]
fn half_of_the_operations_may_wait() {
    let (mut story, salt) = holder_with(|config| config.lookup.max_operations = 9);
    let mut too_many = 0;
    for number in 1..=12 {
        let wanted = Operation::Changed { target: record(salt, 1).target().clone(), known: None };
        let operation = OperationId(number);
        let outputs = story.input(Input::Start { operation, wanted, options: Options::default() });
        let full = |output: &Output| matches!(output, Output::Done { outcome, .. } if outcome.ended == Ended::TooMany);
        too_many += usize::from(outputs.iter().any(full));
    }
    assert_eq!(too_many, 7);
    story.input(Input::Cancel { operation: OperationId(1) });
    assert_eq!(story.dht.standing(story.now).operations, 4);
}
