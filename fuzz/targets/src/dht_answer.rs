//! What peers answer to the DHT's questions.

use bytes::Bytes;
use peerage::fuzzing::{dht_answer, dht_answered};
use peerage_dht::{
    Answer, Contact, MAX_CLOSER, MAX_CURSOR_BYTES, MAX_PROVIDERS, MAX_REPAIR_BYTES, MAX_VALUE_BYTES, MAX_VALUES,
    Query, Target,
};

use crate::text::assert_plain;
use crate::{owned, speaker};

/// Whatever was asked, what is read is within bounds; and between Peerage nodes it is the same when it is answered again.
pub fn run(data: &[u8]) {
    for query in questions() {
        for extras in [false, true] {
            match dht_answer(&query, owned(data), extras) {
                Ok(answer) => {
                    assert_bounds(&answer);
                    assert_again(&query, answer, extras);
                }
                Err(words) => assert_plain(&words, 2048),
            }
        }
    }
}

fn questions() -> Vec<Query> {
    let Some(target) = Target::new(b"/acme/value/1") else { return Vec::new() };
    let provider = Contact::new(speaker().peer_id(), &[]);
    vec![
        Query::FindNode { target: target.clone() },
        Query::GetValue { target: target.clone(), cursor: None, wait: None },
        Query::PutValue { target: target.clone(), value: Bytes::from_static(b"value") },
        Query::AddProvider { target: target.clone(), provider },
        Query::GetProviders { target, cursor: None },
        Query::Ping,
        Query::Repair(Bytes::new()),
    ]
}

fn assert_bounds(answer: &Answer) {
    assert!(answer.closer.len() <= MAX_CLOSER && answer.providers.len() <= MAX_PROVIDERS);
    assert!(answer.values.len() <= MAX_VALUES);
    assert!(answer.values.iter().all(|value| value.len() <= MAX_VALUE_BYTES));
    assert!(answer.cursor.as_ref().is_none_or(|cursor| (1..=MAX_CURSOR_BYTES).contains(&cursor.len())));
    assert!(answer.repair.as_ref().is_none_or(|repair| repair.len() <= MAX_REPAIR_BYTES));
}

fn assert_again(query: &Query, answer: Answer, extras: bool) {
    // What is stored is sent back instead of what was there before.
    if !extras || matches!(query, Query::PutValue { .. }) {
        return;
    }
    let Some(said) = dht_answered(query, &answer, extras) else { return };
    // The first value stands in the record, which only one question has.
    let has_record = matches!(query, Query::GetValue { .. });
    if has_record || answer.values.is_empty() {
        assert_eq!(dht_answer(query, said, extras), Ok(answer));
    }
}
