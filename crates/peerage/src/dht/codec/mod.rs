//! Between the DHT's questions and answers and their form on the wire, which is libp2p's (`proto/kad.proto`).
//!
//! What Peerage adds is written for Peerage nodes alone (`extras`), and read of them alone.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use peerage_dht::{
    Answer, Contact, MAX_CLOSER, MAX_CONTACT_ADDRESSES, MAX_CURSOR_BYTES, MAX_PROVIDERS, MAX_REPAIR_BYTES,
    MAX_SILENT, MAX_VALUE_BYTES, MAX_VALUES, Query, Refusal, Status, Target, Wait,
};
use peerage_identity::{DialAddress, PeerId, decode_peer_id};
use peerage_wire::kad::message::{MessageType, Peer};
use peerage_wire::kad::{self, Additions, Message, Record, additions};

/// Longest question that is read, in bytes: a record of the largest kind with its envelope, and room for others' fields.
pub(crate) const MAX_QUESTION_BYTES: usize = 16 * 1024;
/// Longest answer that is read, in bytes. Ours are shorter than 16 KiB; go-libp2p sends more where peers have many addresses.
pub(crate) const MAX_ANSWER_BYTES: usize = 128 * 1024;
/// Longest key of a provider record, in bytes: go-libp2p takes no longer one, and no empty one.
pub(crate) const MAX_PROVIDER_KEY_BYTES: usize = 80;
/// The last second of the year 9999, since the Unix epoch.
const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(&'static str);

/// Longest key that every implementation takes in FIND_NODE when it is no peer ID, in bytes: py-libp2p ends the stream at a longer one.
const MAX_FIND_NODE_KEY_BYTES: usize = 50;

type Read<T> = Result<T, Malformed>;

/// Whether a question is understood by Peerage nodes alone.
pub(crate) fn needs_extras(query: &Query) -> bool {
    matches!(query, Query::Repair(_) | Query::Silent { .. })
}

/// Whether an answer to a question is to be waited for. libp2p has none to ADD_PROVIDER.
pub(crate) fn is_answered(query: &Query, extras: bool) -> bool {
    match query {
        Query::AddProvider { .. } => extras,
        Query::Silent { .. } => false,
        _ => true,
    }
}

/// A question as it is sent. `unix` is the time since the Unix epoch.
pub(crate) fn question(query: &Query, extras: bool, unix: Duration) -> Message {
    let mut message = message(query, extras, unix);
    if let (Query::FindNode { target }, false) = (query, extras)
        && target.name().len() > MAX_FIND_NODE_KEY_BYTES
    {
        // Whoever is asked for a value names peers that are closer to its key too.
        message.r#type = Some(MessageType::GetValue.into());
    }
    message
}

fn message(query: &Query, extras: bool, unix: Duration) -> Message {
    let of = |kind: MessageType, target: Option<&Target>| Message {
        r#type: Some(kind.into()),
        key: target.map(|target| Bytes::copy_from_slice(target.name())),
        ..Message::default()
    };
    let target = query.target();
    let paged = |kind, cursor: &Option<Bytes>, wait: Option<Wait>| {
        let cursor = cursor.clone();
        let wait = wait.map(|wait| kad::Wait {
            known: Some(Bytes::copy_from_slice(&wait.known)),
            seconds: Some(wait.seconds),
        });
        let needed = extras && (cursor.is_some() || wait.is_some());
        let additions = needed.then(|| Additions { cursor, wait, ..Additions::default() });
        Message { additions, ..of(kind, target) }
    };
    match query {
        Query::FindNode { .. } => of(MessageType::FindNode, target),
        Query::GetValue { cursor, wait, .. } => paged(MessageType::GetValue, cursor, *wait),
        Query::GetProviders { cursor, .. } => paged(MessageType::GetProviders, cursor, None),
        Query::PutValue { target: key, value } => {
            Message { record: Some(record(key, value, unix)), ..of(MessageType::PutValue, target) }
        }
        Query::AddProvider { provider, .. } => {
            Message { provider_peers: vec![peer(provider)], ..of(MessageType::AddProvider, target) }
        }
        Query::Ping => of(MessageType::Ping, None),
        Query::Repair(bytes) => {
            let additions = Additions { repair: Some(bytes.clone()), ..Additions::default() };
            Message { additions: Some(additions), ..of(MessageType::Repair, None) }
        }
        Query::Silent { peers } => {
            let silent = peers.iter().map(|peer| peer.to_bytes().into()).collect();
            let additions = Additions { silent, ..Additions::default() };
            Message { additions: Some(additions), ..of(MessageType::Silent, None) }
        }
    }
}

/// Puts the sender first among the providers that a message names: nobody else is believed.
pub(crate) fn sender_first(message: &mut Message, sender: &PeerId) {
    let sender = sender.to_bytes();
    message.provider_peers.sort_by_key(|peer| peer.id.as_deref() != Some(&sender[..]));
}

/// The question that a message asks.
pub(crate) fn read_question(message: Message, extras: bool) -> Read<Query> {
    let kind = match message.r#type {
        // A field of proto2 that is missing has the first value.
        None => MessageType::PutValue,
        Some(number) => MessageType::try_from(number).map_err(|_| Malformed("its type is not known"))?,
    };
    let additions = message.additions.filter(|_| extras).unwrap_or_default();
    let key = message.key.unwrap_or_default();
    let target = || Target::new(&key).ok_or(Malformed("its key is empty or too long"));
    let cursor = additions.cursor.filter(|cursor| !cursor.is_empty());
    if cursor.as_ref().is_some_and(|cursor| cursor.len() > MAX_CURSOR_BYTES) {
        return Err(Malformed("its cursor is too long"));
    }
    Ok(match kind {
        MessageType::FindNode => Query::FindNode { target: target()? },
        MessageType::GetValue => {
            Query::GetValue { target: target()?, cursor, wait: additions.wait.map(read_wait).transpose()? }
        }
        MessageType::GetProviders => Query::GetProviders { target: provided(&key)?, cursor },
        MessageType::PutValue => {
            let record = message.record.ok_or(Malformed("there is no record to put"))?;
            if record.key.is_some_and(|named| named != key) {
                return Err(Malformed("the record has another key than the message"));
            }
            let value = record.value.unwrap_or_default();
            if value.len() > MAX_VALUE_BYTES {
                return Err(Malformed("the record is too large"));
            }
            Query::PutValue { target: target()?, value }
        }
        MessageType::AddProvider => {
            // Several may be named; only one can be the sender, which the machine checks.
            let mut providers = message.provider_peers.iter().filter_map(contact);
            let provider = providers.next().ok_or(Malformed("it names no provider"))?;
            Query::AddProvider { target: provided(&key)?, provider }
        }
        MessageType::Ping => Query::Ping,
        MessageType::Repair if extras => match additions.repair {
            Some(bytes) if bytes.len() <= MAX_REPAIR_BYTES => Query::Repair(bytes),
            _ => return Err(Malformed("its digest is missing or too long")),
        },
        MessageType::Silent if extras => {
            let peers = additions.silent.iter().take(MAX_SILENT);
            Query::Silent { peers: peers.filter_map(|bytes| decode_peer_id(bytes).ok()).collect() }
        }
        MessageType::Repair | MessageType::Silent => return Err(Malformed("its type is for Peerage nodes")),
    })
}

fn read_wait(wait: kad::Wait) -> Read<Wait> {
    let known = wait.known.unwrap_or_default();
    let known = known[..].try_into().map_err(|_| Malformed("what its sender knows is no digest"))?;
    Ok(Wait { known, seconds: wait.seconds.unwrap_or_default() })
}

fn provided(key: &[u8]) -> Read<Target> {
    match key.len() {
        1..=MAX_PROVIDER_KEY_BYTES => Target::new(key).ok_or(Malformed("its key is too long")),
        _ => Err(Malformed("its key is empty or has more than 80 bytes")),
    }
}

/// An answer as it is sent; `None` where the wire has none.
pub(crate) fn answer(query: &Query, answer: &Answer, extras: bool, unix: Duration) -> Option<Message> {
    if !is_answered(query, extras) {
        return None;
    }
    let mut message = message(query, false, unix);
    message.provider_peers = answer.providers.iter().map(peer).collect();
    message.closer_peers = answer.closer.iter().map(peer).collect();
    let mut values = answer.values.iter();
    message.record = match query {
        // Something newer; to who goes by no status, what was stored, which is libp2p's acknowledgement.
        Query::PutValue { target, .. } | Query::GetValue { target, .. } => {
            values.next().map(|value| record(target, value, unix))
        }
        _ => None,
    };
    message.additions = extras.then(|| Additions {
        status: Some(status(answer.status).into()),
        refusal: refusal(answer.status).map(Into::into),
        values: values.cloned().collect(),
        cursor: answer.cursor.clone(),
        silent: Vec::new(),
        repair: answer.repair.clone(),
        wait: None,
        waited: answer.waited.then_some(true),
    });
    Some(message)
}

/// What a message answers to a question.
pub(crate) fn read_answer(query: &Query, message: Message, extras: bool) -> Read<Answer> {
    let additions = message.additions.filter(|_| extras);
    let record = message.record.and_then(|record| record.value);
    if record.as_ref().is_some_and(|value| value.len() > MAX_VALUE_BYTES) {
        return Err(Malformed("the record is too large"));
    }
    let status = match (&additions, query) {
        (Some(additions), _) => read_status(additions),
        // libp2p's acknowledgement is the record, sent back.
        (None, Query::PutValue { value, .. }) if record.as_ref() == Some(value) => Status::Stored,
        (None, Query::PutValue { .. }) => Status::Refused(Refusal::Other),
        (None, Query::AddProvider { .. }) => Status::Stored,
        (None, _) => Status::Ok,
    };
    let values = match query {
        Query::GetValue { .. } => record,
        Query::PutValue { .. } if status == Status::Stale => record,
        _ => None,
    };
    let additions = additions.unwrap_or_default();
    let more = additions.values.into_iter().filter(|value| value.len() <= MAX_VALUE_BYTES);
    let cursor = additions.cursor.filter(|cursor| (1..=MAX_CURSOR_BYTES).contains(&cursor.len()));
    let repair = additions.repair.filter(|repair| repair.len() <= MAX_REPAIR_BYTES);
    Ok(Answer {
        status,
        closer: message.closer_peers.iter().take(MAX_CLOSER).filter_map(contact).collect(),
        values: values.into_iter().chain(more).take(MAX_VALUES).collect(),
        providers: message.provider_peers.iter().take(MAX_PROVIDERS).filter_map(contact).collect(),
        cursor,
        repair,
        extended: extras,
        waited: additions.waited.unwrap_or_default(),
    })
}

fn status(status: Status) -> additions::Status {
    match status {
        Status::Ok => additions::Status::Ok,
        Status::Stored => additions::Status::Stored,
        Status::Busy => additions::Status::Busy,
        Status::Refused(_) => additions::Status::Refused,
        Status::Stale => additions::Status::Stale,
    }
}

fn read_status(additions: &Additions) -> Status {
    use additions::Status as Wire;
    match Wire::try_from(additions.status.unwrap_or_default()) {
        Ok(Wire::Ok) => Status::Ok,
        Ok(Wire::Stored) => Status::Stored,
        Ok(Wire::Busy) => Status::Busy,
        Ok(Wire::Stale) => Status::Stale,
        Ok(Wire::Refused) | Err(_) => Status::Refused(read_refusal(additions.refusal.unwrap_or_default())),
    }
}

/// Each refusal with its number.
const REFUSALS: [(Refusal, additions::Refusal); 9] = [
    (Refusal::Other, additions::Refusal::Other),
    (Refusal::Invalid, additions::Refusal::Invalid),
    (Refusal::UnknownNamespace, additions::Refusal::UnknownNamespace),
    (Refusal::TooLarge, additions::Refusal::TooLarge),
    (Refusal::Quota, additions::Refusal::Quota),
    (Refusal::Policy, additions::Refusal::Policy),
    (Refusal::TooFar, additions::Refusal::TooFar),
    (Refusal::NotTheProvider, additions::Refusal::NotTheProvider),
    (Refusal::NotServed, additions::Refusal::NotServed),
];

fn refusal(status: Status) -> Option<additions::Refusal> {
    let Status::Refused(refusal) = status else { return None };
    let known = REFUSALS.iter().find(|(ours, _)| *ours == refusal);
    Some(known.map_or(additions::Refusal::Other, |(_, wire)| *wire))
}

fn read_refusal(number: i32) -> Refusal {
    let known = REFUSALS.iter().find(|(_, wire)| i32::from(*wire) == number);
    known.map_or(Refusal::Other, |(ours, _)| *ours)
}

/// A record with the time at which it is handed on: js-libp2p reads none without.
fn record(target: &Target, value: &Bytes, unix: Duration) -> Record {
    // The form has four digits for the year.
    let time = UNIX_EPOCH + unix.min(YEAR_9999);
    Record {
        key: Some(Bytes::copy_from_slice(target.name())),
        value: Some(value.clone()),
        time_received: Some(humantime::format_rfc3339_nanos(time).to_string()),
        ttl: None,
    }
}

fn peer(contact: &Contact) -> Peer {
    Peer {
        id: Some(contact.peer().to_bytes().into()),
        addrs: contact.binary_addresses().map(Bytes::copy_from_slice).collect(),
        connection: None,
    }
}

/// A peer that is named, with those of its addresses that can be dialled. `None` when its ID is none.
fn contact(peer: &Peer) -> Option<Contact> {
    let id: PeerId = decode_peer_id(peer.id.as_deref()?).ok()?;
    // Others speak more transports, and name an address for each.
    let read = peer.addrs.iter().take(8 * MAX_CONTACT_ADDRESSES);
    let addresses: Vec<_> = read.filter_map(|bytes| DialAddress::from_bytes(bytes).ok()).collect();
    Some(Contact::new(id, &addresses))
}

#[cfg(test)]
mod tests;
