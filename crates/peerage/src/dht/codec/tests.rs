use super::*;
use peerage_identity::NodeKey;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;

const NOW: Duration = Duration::from_secs(1_700_000_000);

fn contact(number: u8, addresses: usize) -> Contact {
    let addresses: Vec<DialAddress> = (0..addresses)
        .map(|port| format!("/ip4/20.1.2.{number}/udp/{}/quic-v1", 4400 + port).parse().unwrap())
        .collect();
    Contact::new(NodeKey::from_seed([number; 32]).peer_id(), &addresses)
}

fn target(name: &[u8]) -> Target {
    Target::new(name).unwrap()
}

fn hex(value: &Value) -> Bytes {
    let text = value.as_str().unwrap();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Messages that go-libp2p once sent, with fields that are gone since (the file names its sources).
#[test]
fn messages_of_go_libp2p_are_read_as_they_were_meant() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/kad_messages.json")).unwrap();
    let messages = file["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 8);
    for vector in messages {
        let (id, decoded) = (vector["id"].as_str().unwrap(), &vector["decoded"]);
        let message = Message::decode(hex(&vector["message_hex"])).unwrap();
        let kind = MessageType::try_from(message.r#type.unwrap()).unwrap();
        assert_eq!(kind.as_str_name(), decoded["type"].as_str().unwrap(), "{id}");
        let key = hex(&decoded["key_hex"]);
        let query = read_question(message, false).unwrap();
        assert_eq!(query.target().unwrap().name(), key, "{id}");
        match query {
            Query::PutValue { value, .. } => {
                assert_eq!(value, hex(&decoded["record"]["value_hex"]), "{id}");
            }
            Query::AddProvider { provider, .. } => {
                let wanted = &decoded["provider_peers"][0];
                assert_eq!(provider.peer().to_bytes(), hex(&wanted["id_hex"]), "{id}");
                // It listened on TCP, where nobody can be dialled over QUIC.
                assert!(provider.has_no_address(), "{id}");
            }
            _ => assert!(decoded.get("record").is_none_or(Value::is_null), "{id}"),
        }
    }
    for vector in file["records"].as_array().unwrap() {
        let record = Record::decode(hex(&vector["record_hex"])).unwrap();
        assert_eq!(record.key.unwrap(), &b"hello"[..]);
        assert_eq!(record.value.unwrap(), &b"world"[..]);
    }
}

fn queries() -> Vec<Query> {
    let target = target(b"/acme/kv/1");
    vec![
        Query::FindNode { target: Target::of_peer(contact(1, 0).peer()) },
        Query::GetValue { target: target.clone(), cursor: None, wait: None },
        Query::GetValue {
            target: target.clone(),
            cursor: None,
            wait: Some(Wait { known: [7; 32], seconds: 60 }),
        },
        Query::GetValue { target: target.clone(), cursor: Some(Bytes::from_static(b"next")), wait: None },
        Query::PutValue { target: target.clone(), value: Bytes::from_static(b"value") },
        Query::AddProvider { target: target.clone(), provider: contact(1, 2) },
        Query::GetProviders { target, cursor: None },
        Query::Ping,
        Query::Repair(Bytes::from_static(b"digest")),
        Query::Silent { peers: vec![*contact(1, 0).peer(), *contact(2, 0).peer()] },
    ]
}

#[test]
fn a_question_arrives_at_a_peerage_node_as_it_was_asked() {
    for query in queries() {
        let message = question(&query, true, NOW);
        let message = Message::decode(&message.encode_to_vec()[..]).unwrap();
        assert_eq!(read_question(message, true), Ok(query));
    }
}

#[test]
fn what_peerage_adds_is_neither_sent_to_others_nor_read_of_them() {
    for query in queries() {
        let plain = question(&query, false, NOW);
        if needs_extras(&query) {
            assert!(read_question(question(&query, true, NOW), false).is_err(), "{query:?}");
            continue;
        }
        assert!(plain.additions.is_none(), "{query:?}");
        let read = read_question(question(&query, true, NOW), false).unwrap();
        assert_eq!(read.target(), query.target());
        assert!(!matches!(
            read,
            Query::GetValue { cursor: Some(_), .. } | Query::GetValue { wait: Some(_), .. }
        ));
        let said = Answer::status(Status::Busy);
        let sent = answer(&query, &said, false, NOW);
        assert_eq!(sent.is_none(), matches!(query, Query::AddProvider { .. }), "{query:?}");
        assert!(sent.is_none_or(|sent| sent.additions.is_none()));
    }
}

#[test]
fn an_answer_arrives_as_it_was_given() {
    let value = |number: u8| Bytes::from(vec![number; 40]);
    let full = Answer {
        status: Status::Ok,
        closer: (1..=20).map(|number| contact(number, 3)).collect(),
        values: vec![value(1), value(2), value(3)],
        providers: vec![contact(30, 1), contact(31, 0)],
        cursor: Some(Bytes::from_static(b"more")),
        repair: None,
        extended: true,
        waited: true,
    };
    let get = Query::GetValue { target: target(b"/acme/tp/1"), cursor: None, wait: None };
    let sent = answer(&get, &full, true, NOW).unwrap();
    assert!(sent.encoded_len() <= full.wire_bytes(), "{} {}", sent.encoded_len(), full.wire_bytes());
    assert_eq!(read_answer(&get, sent, true), Ok(full.clone()));
    // Others get the first value, and all that their protocol has.
    let sent = answer(&get, &full, false, NOW).unwrap();
    assert_eq!(sent.key.as_deref(), Some(&b"/acme/tp/1"[..]));
    let expected = Answer { values: vec![value(1)], cursor: None, extended: false, waited: false, ..full };
    assert_eq!(read_answer(&get, sent, false), Ok(expected));
    let repair = Query::Repair(Bytes::from_static(b"digest"));
    let said = Answer { repair: Some(value(4)), extended: true, ..Answer::default() };
    assert_eq!(read_answer(&repair, answer(&repair, &said, true, NOW).unwrap(), true), Ok(said));
}

#[test]
fn how_a_store_went_arrives_and_others_are_told_as_libp2p_does() {
    let put = Query::PutValue { target: target(b"/acme/kv/1"), value: Bytes::from_static(b"value") };
    let refusals = REFUSALS.map(|(refusal, _)| Status::Refused(refusal));
    for status in [Status::Stored, Status::Busy, Status::Stale].into_iter().chain(refusals) {
        let said = Answer::status(status);
        let echoed = match &put {
            Query::PutValue { value, .. } if status == Status::Stored => vec![value.clone()],
            _ => Vec::new(),
        };
        let sent = answer(&put, &said, true, NOW).unwrap();
        assert_eq!(read_answer(&put, sent, true).unwrap().status, status);
        let said = Answer { values: echoed, ..said };
        let sent = answer(&put, &said, false, NOW).unwrap();
        let expected = if status == Status::Stored { status } else { Status::Refused(Refusal::Other) };
        assert_eq!(read_answer(&put, sent, false).unwrap().status, expected);
    }
    let newer = Answer {
        values: vec![Bytes::from_static(b"newer")],
        extended: true,
        ..Answer::status(Status::Stale)
    };
    assert_eq!(read_answer(&put, answer(&put, &newer, true, NOW).unwrap(), true), Ok(newer));
}

/// What is charged for an answer is what it says of itself: what is sent stays below that.
#[test]
fn what_was_stored_is_sent_back_to_others_within_what_is_charged_and_not_to_peerage_nodes() {
    let value = Bytes::from(vec![7; MAX_VALUE_BYTES]);
    let put =
        Query::PutValue { target: target(&[b'k'; peerage_dht::MAX_TARGET_BYTES]), value: value.clone() };
    let said = Answer { extended: true, ..Answer::status(Status::Stored) };
    let sent = answer(&put, &said, true, NOW).unwrap();
    assert!(sent.encoded_len() <= said.wire_bytes(), "{} {}", sent.encoded_len(), said.wire_bytes());
    assert_eq!(read_answer(&put, sent.clone(), true), Ok(said.clone()));
    // Nodes of earlier versions send it back to us, too.
    let echo = record(put.target().unwrap(), &value, NOW);
    assert_eq!(read_answer(&put, Message { record: Some(echo), ..sent }, true), Ok(said.clone()));
    let said = Answer { values: vec![value.clone()], ..said };
    let sent = answer(&put, &said, false, NOW).unwrap();
    assert!(sent.encoded_len() <= said.wire_bytes(), "{} {}", sent.encoded_len(), said.wire_bytes());
    assert!(sent.encoded_len() > said.wire_bytes() - 64, "{} {}", sent.encoded_len(), said.wire_bytes());
    assert_eq!(sent.record.as_ref().and_then(|record| record.value.as_ref()), Some(&value));
    assert_eq!(read_answer(&put, sent, false).unwrap().status, Status::Stored);
}

#[test]
fn records_say_when_they_were_handed_on_in_the_form_that_js_reads() {
    let put = Query::PutValue { target: target(b"/acme/kv/1"), value: Bytes::new() };
    let record = question(&put, false, NOW + Duration::from_millis(5)).record.unwrap();
    assert_eq!(record.time_received.as_deref(), Some("2023-11-14T22:13:20.005000000Z"));
    assert!(question(&put, false, Duration::MAX).record.unwrap().time_received.is_some());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = |query: &Query| question(query, true, NOW);
    let get = good(&Query::GetValue { target: target(b"k"), cursor: None, wait: None });
    let put = good(&Query::PutValue { target: target(b"k"), value: Bytes::from_static(b"v") });
    let provide = good(&Query::AddProvider { target: target(b"k"), provider: contact(1, 1) });
    let long = |bytes: usize| Bytes::from(vec![7; bytes]);
    let with = |additions: Additions| Message { additions: Some(additions), ..get.clone() };
    let bad = [
        Message { r#type: Some(77), ..get.clone() },
        Message { key: None, ..get.clone() },
        Message { key: Some(long(peerage_dht::MAX_TARGET_BYTES + 1)), ..get.clone() },
        with(Additions { cursor: Some(long(MAX_CURSOR_BYTES + 1)), ..Additions::default() }),
        Message { record: None, ..put.clone() },
        Message { record: Some(Record { key: Some(long(1)), ..Record::default() }), ..put.clone() },
        Message {
            record: Some(Record { value: Some(long(MAX_VALUE_BYTES + 1)), ..Record::default() }),
            ..put
        },
        Message { provider_peers: Vec::new(), ..provide.clone() },
        Message { key: Some(long(MAX_PROVIDER_KEY_BYTES + 1)), ..provide.clone() },
        Message { provider_peers: vec![Peer::default()], ..provide },
        Message { additions: None, ..good(&Query::Repair(long(1))) },
        good(&Query::Repair(long(MAX_REPAIR_BYTES + 1))),
    ];
    for (number, message) in bad.into_iter().enumerate() {
        assert!(read_question(message, true).is_err(), "{number}");
    }
}

#[test]
fn more_than_is_read_of_an_answer_is_left_out() {
    let get = Query::GetValue { target: target(b"k"), cursor: None, wait: None };
    let many = Message {
        closer_peers: vec![peer(&contact(1, 1)); 1000],
        provider_peers: vec![peer(&contact(2, 1)); 1000],
        additions: Some(Additions { values: vec![Bytes::from_static(b"v"); 1000], ..Additions::default() }),
        ..Message::default()
    };
    let read = read_answer(&get, many, true).unwrap();
    let counts = (read.closer.len(), read.providers.len(), read.values.len());
    assert_eq!(counts, (MAX_CLOSER, MAX_PROVIDERS, MAX_VALUES));
    let addresses: Vec<_> =
        (0..100u8).map(|n| Bytes::from(vec![4, 20, 1, 2, n, 0x91, 2, 17, 68, 0xcd, 3])).collect();
    let talkative = Peer { addrs: addresses, ..peer(&contact(1, 0)) };
    let read = super::contact(&talkative).unwrap();
    assert_eq!(read.addresses().len(), MAX_CONTACT_ADDRESSES);
    let silent =
        Additions { silent: vec![contact(1, 0).peer().to_bytes().into(); 99], ..Additions::default() };
    let message =
        Message { r#type: Some(MessageType::Silent.into()), additions: Some(silent), ..Message::default() };
    let Ok(Query::Silent { peers }) = read_question(message, true) else { panic!("a down-hint") };
    assert_eq!(peers.len(), MAX_SILENT);
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400), extras: bool) {
        let Ok(message) = Message::decode(&bytes[..]) else { return Ok(()) };
        if let Ok(query) = read_question(message.clone(), extras) {
            let again = super::message(&query, extras, NOW);
            prop_assert_eq!(read_question(again, extras), Ok(query));
        }
        for query in queries() {
            let _ = read_answer(&query, message.clone(), extras);
        }
    }
}
