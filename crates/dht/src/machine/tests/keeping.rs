//! A node that keeps records, for stories about them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;
use crate::MAX_VALUE_BYTES;
use crate::record::{Draft, MAX_OVERHEAD, Network, Place, Record, Records, RecordsConfig};

pub(super) fn network() -> Network {
    Network::new("acme").unwrap()
}

/// The publisher's record of this number, at a place for which node 0 is one of the closest.
pub(super) fn record(salt: u32, seq: u64) -> Record {
    record_until(salt, seq, 3600)
}

/// The same, with another end.
pub(super) fn record_until(salt: u32, seq: u64, not_after: u64) -> Record {
    let publisher = crate::numbered::key(900);
    let salt = Bytes::copy_from_slice(&salt.to_be_bytes());
    let place = Place::Value { publisher: publisher.peer_id(), salt };
    Record::sign(&publisher, &network(), Draft::new(place, seq, not_after, Bytes::from(vec![seq as u8; 8])))
        .unwrap()
}

/// A node that holds records, among forty peers, and the salt of a place that is its own to keep.
pub(super) fn holder() -> (Story, u32) {
    holder_with(|_| {})
}

/// The same, with other limits.
pub(super) fn holder_with(change: impl FnOnce(&mut DhtConfig)) -> (Story, u32) {
    holder_of(change, RecordsConfig::default())
}

fn holder_of(change: impl FnOnce(&mut DhtConfig), limits: RecordsConfig) -> (Story, u32) {
    let mut config = DhtConfig::default();
    change(&mut config);
    let mut story = Story::new(config);
    let dht = std::mem::replace(&mut story.dht, Story::new(DhtConfig::default()).dht);
    story.dht = dht.with_records(crate::numbered::key(0), Records::new(network(), limits));
    story.dht.plant(story.now, (1..=40).map(contact));
    let own = *story.dht.key();
    let closer = |salt: &u32| {
        let key = *record(*salt, 1).target().key();
        (1..=40).filter(|number| key.distance(contact(*number).key()) < key.distance(&own)).count()
    };
    let salt = (0..1000).find(|salt| closer(salt) < 3).unwrap();
    (story, salt)
}

/// Who begins to serve compares what it has kept meanwhile with its neighbours at once, and who ends leaves them alone.
#[test]
fn only_who_serves_compares_what_it_holds() {
    let (mut story, salt) = holder();
    let (target, value) = (record(salt, 1).target().clone(), record(salt, 1).to_bytes());
    let (answer, _) = story.asked(50, Query::PutValue { target, value });
    assert_eq!(answer.status, Status::Stored);
    story.wait(S(1));
    let repairs = |outputs: Vec<Output>| {
        asks(&outputs).iter().filter(|(_, _, query)| matches!(query, Query::Repair(_))).count()
    };
    story.input(Input::Mode(Mode::Client));
    assert_eq!((repairs(story.wait(S(600))), story.dht.standing(story.now).mode), (0, Mode::Client));
    story.input(Input::Mode(Mode::Server));
    assert_eq!(story.dht.standing(story.now).mode, Mode::Server);
    let due = story.dht.holder_due();
    assert!(due <= story.now.mono, "{due:?}");
    assert!(repairs(story.wait(S(600))) > 0);
}

/// Publishes a record where each holder answers so, and says what came of it.
fn published(record: Record, told: &Answer) -> Box<Outcome> {
    let (mut story, _) = holder();
    let wanted = Operation::Publish { record: Box::new(record), renew: Some(S(7200)) };
    let start = Input::Start { operation: OperationId(1), wanted, options: Options::default() };
    let mut outputs = VecDeque::from(story.input(start));
    let end = story.now.mono + S(60);
    loop {
        let more = match outputs.pop_front() {
            Some(Output::Done { outcome, .. }) => return outcome,
            Some(Output::Ask { request, contact, query, .. }) => {
                let answer = match query {
                    Query::PutValue { .. } => told.clone(),
                    _ => Answer { extended: true, ..Answer::default() },
                };
                let remote = contact.addresses()[0].socket_addr().unwrap().ip();
                story.input(Input::Answered { request, rtt: MS(50), remote, answer })
            }
            Some(_) => continue,
            None => {
                let due = story.dht.poll_timeout().filter(|due| *due <= end).unwrap();
                story.wait(due.saturating_sub(story.now.mono))
            }
        };
        outputs.extend(more);
    }
}

/// Holders' word alone, that there is something newer, ends nothing; what they show does.
#[test]
fn a_record_is_looked_after_until_holders_show_a_newer_one() {
    let stale = |values: Vec<Bytes>| Answer { values, extended: true, ..Answer::status(Status::Stale) };
    let of = |outcome: Box<Outcome>| (outcome.ended, outcome.looked_after, outcome.superseded);
    let kept = (Ended::TooFewStored, true, false);
    assert_eq!(of(published(record(1, 2), &stale(vec![]))), kept);
    assert_eq!(of(published(record(1, 2), &stale(vec![record(1, 1).to_bytes()]))), kept, "it is older");
    assert_eq!(of(published(record(1, 2), &stale(vec![record(2, 9).to_bytes()]))), kept, "of another place");
    let newer = stale(vec![record(1, 3).to_bytes()]);
    assert_eq!(of(published(record(1, 2), &newer)), (Ended::TooFewStored, false, true));
    // What is named by its hash is what it is.
    let content = |publisher: u64, until| {
        let draft = Draft::new(Place::of_content(b"content"), 0, until, Bytes::from_static(b"content"));
        Record::sign(&crate::numbered::key(publisher), &network(), draft).unwrap()
    };
    let same = stale(vec![content(901, 3600).to_bytes()]);
    assert_eq!(of(published(content(900, 1800), &same)), (Ended::Stored, true, false));
}

/// AL-07, AL-41: with the longest values too an answer is below 16 KiB, and names somebody closer. A proof that has no room beside its record stays behind, and whoever waits for a
/// change is not told of it each time.
#[test]
fn answers_with_the_longest_values_stay_below_16_kib() {
    let longest = MAX_VALUE_BYTES - MAX_OVERHEAD;
    for (bytes, shown) in [(6_000, 2), (longest, 1)] {
        let mut limits = RecordsConfig::default();
        limits.value.max_body_bytes = longest;
        let (mut story, _) = holder_of(|_| {}, limits);
        let place = Place::Value { publisher: peer(900), salt: Bytes::new() };
        let said = [7, 8].map(|byte| {
            let draft = Draft::new(place.clone(), 1, 3600, Bytes::from(vec![byte; bytes]));
            Record::sign(&crate::numbered::key(900), &network(), draft).unwrap()
        });
        let target = said[0].target().clone();
        for record in &said {
            story.dht.plant_record(story.now, &target, &record.to_bytes()).unwrap();
        }
        story.outputs();
        let winner = said.iter().max_by_key(|record| *record.version()).unwrap().to_bytes();
        let (answer, _) =
            story.asked(50, Query::GetValue { target: target.clone(), cursor: None, wait: None });
        assert!(answer.wire_bytes() < MAX_ANSWER_BYTES, "{}", answer.wire_bytes());
        assert_eq!((answer.values.len(), &answer.values[0]), (shown, &winner));
        assert!(!answer.closer.is_empty());
        let wait = crate::Wait { known: crate::digest_of(&answer.values), seconds: 60 };
        let ask = Query::GetValue { target, cursor: None, wait: Some(wait) };
        let kept = story.input(Input::Asked {
            query: QueryId(99),
            from: peer(50),
            remote: ip(50),
            ask,
            extended: true,
        });
        assert!(!kept.iter().any(|output| matches!(output, Output::Reply { .. })), "nothing has changed");
    }
}
