use super::*;
use crate::numbered::key;
use proptest::prelude::*;

fn network() -> Network {
    Network::new(&"n".repeat(crate::record::MAX_NETWORK_NAME)).unwrap()
}

fn place(number: u64) -> Place {
    Place::Value { publisher: key(number).peer_id(), salt: Bytes::from_static(&[7; 64]) }
}

fn record(seq: u64, body: &'static [u8]) -> Record {
    Record::sign(&key(1), &network(), Draft::new(place(1), seq, 5000, Bytes::from_static(body))).unwrap()
}

// AL-34: what is signed is kept as it came.
#[test]
fn a_signed_record_reads_as_what_was_signed() {
    let signed = record(3, b"hello");
    let read = Record::open(&network(), &signed.to_bytes()).unwrap();
    assert_eq!(read, signed);
    assert_eq!((read.publisher(), &read.body().unwrap()[..]), (key(1).peer_id(), &b"hello"[..]));
    assert_eq!((read.version().seq, read.version().not_after), (3, 5000));
    assert_eq!(read.to_bytes(), signed.to_bytes());
    assert!(!read.is_tombstone() && record(3, b"").is_tombstone());
    let nothing = Draft::new(Place::of_content(b""), 0, 5000, Bytes::new());
    assert!(!Record::sign(&key(1), &network(), nothing).unwrap().is_tombstone(), "it is content");
}

#[test]
fn a_header_with_a_field_of_a_later_version_still_verifies_and_is_passed_on_as_it_came() {
    let signed = record(3, b"hello");
    let outer = wire::Record::decode(signed.to_bytes()).unwrap();
    let envelope = envelope_wire::Envelope::decode(outer.envelope.clone()).unwrap();
    let later = [&envelope.payload[..], &[0xa0, 0x06, 1]].concat();
    let value = wire::Record { envelope: Envelope::seal(&key(1), RECORD, &later), body: outer.body };
    let value = Bytes::from(value.encode_to_vec());
    assert_eq!(Record::open(&network(), &value).unwrap().to_bytes(), value);
}

/// Contract C-47.
#[test]
fn every_flipped_bit_is_noticed() {
    let good = record(3, b"hello").to_bytes();
    for at in 0..good.len() * 8 {
        let mut bytes = good.to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(Record::open(&network(), &bytes.into()).is_err(), "bit {at}");
    }
}

#[test]
fn nobody_adds_to_a_record_what_its_publisher_did_not_say() {
    let value = record(3, b"hello").to_bytes();
    let padded = Bytes::from([&value[..], &[0x98, 0x06, 1]].concat());
    assert_eq!(Record::open(&network(), &padded), Err(RecordFault::Malformed));
    let outer = wire::Record::decode(value).unwrap();
    let envelope = [&outer.envelope[..], &[0x98, 0x06, 1]].concat();
    let padded = wire::Record { envelope: envelope.into(), body: outer.body }.encode_to_vec();
    assert_eq!(Record::open(&network(), &padded.into()), Err(RecordFault::Malformed));
}

/// AL-05: a second form would be another value to readers, which counts for nobody who holds the record.
#[test]
fn a_record_whose_parts_stand_in_another_order_is_none() {
    let value = record(3, b"hello").to_bytes();
    let outer = wire::Record::decode(value.clone()).unwrap();
    let head = wire::Record { body: Bytes::new(), ..outer.clone() }.encode_to_vec();
    let body = &value[head.len()..];
    let swapped = Bytes::from([body, &head].concat());
    assert_eq!(wire::Record::decode(swapped.clone()).unwrap(), outer);
    assert_eq!(Record::open(&network(), &swapped), Err(RecordFault::Malformed));
    // What is said twice, and what is longer than it need be, are no other forms either.
    let twice = [body, &head, body].concat();
    let long = [&head[..], &[0x12, 0x85, 0], b"hello"].concat();
    for other in [twice, long] {
        assert_eq!(wire::Record::decode(&other[..]).unwrap(), outer);
        assert_eq!(Record::open(&network(), &other.into()), Err(RecordFault::Malformed));
    }
}

#[test]
fn an_extension_has_no_body_and_joins_the_one_that_is_there() {
    let later = record(3, b"hello").extended(&key(1), 9000).unwrap();
    assert!(later.version() > record(3, b"hello").version());
    assert!(!later.version().equivocates(record(3, b"hello").version()));
    let extension = Record::open(&network(), &later.extension()).unwrap();
    assert_eq!(extension.body(), None);
    assert_eq!(extension.clone().with_body(Bytes::from_static(b"hello")), Some(later));
    assert_eq!(extension.with_body(Bytes::from_static(b"other")), None);
    assert_eq!(record(3, b"x").extended(&key(2), 9000), Err(RecordFault::NotTheOwner));
}

// AL-40: only the peer that a key names publishes there.
/// Contract C-47.
#[test]
fn only_the_owner_of_a_place_publishes_there() {
    for place in [place(1), Place::Endpoint { peer: key(1).peer_id() }] {
        let draft = Draft::new(place, 1, 5000, Bytes::from_static(b"x"));
        assert!(Record::sign(&key(1), &network(), draft.clone()).is_ok());
        assert_eq!(Record::sign(&key(2), &network(), draft), Err(RecordFault::NotTheOwner));
    }
}

/// Contract C-47.
#[test]
fn immutable_content_stands_under_its_hash_and_has_no_sequence() {
    let draft = Draft::new(Place::of_content(b"x"), 0, 5000, Bytes::from_static(b"x"));
    assert!(Record::sign(&key(1), &network(), draft.clone()).is_ok());
    let other = Draft { body: Bytes::from_static(b"y"), ..draft.clone() };
    assert_eq!(Record::sign(&key(1), &network(), other), Err(RecordFault::OtherContent));
    assert_eq!(Record::sign(&key(1), &network(), Draft { seq: 1, ..draft }), Err(RecordFault::OtherContent));
}

#[test]
fn a_record_of_another_network_is_none_here() {
    let elsewhere = Network::new("elsewhere").unwrap();
    assert_eq!(Record::open(&elsewhere, &record(1, b"x").to_bytes()), Err(RecordFault::Key));
}

#[test]
fn publishers_and_messages_have_slots_of_their_own_and_sole_owners_have_one() {
    let slot = |place, publisher, seq| {
        let draft = Draft::new(place, seq, 5000, Bytes::from_static(b"x"));
        Record::sign(&key(publisher), &network(), draft).unwrap().slot()
    };
    let topic = Place::of_topic("t", 0);
    assert_ne!(slot(topic.clone(), 1, 1), slot(topic.clone(), 2, 1));
    assert_eq!(slot(topic.clone(), 1, 1), slot(topic, 1, 2));
    let mailbox = Place::Mailbox { recipient: key(1).peer_id(), slot: 0 };
    assert_ne!(slot(mailbox.clone(), 2, 1), slot(mailbox.clone(), 2, 2));
    assert_eq!(slot(mailbox.clone(), 1, 1), slot(mailbox, 1, 2));
    assert_eq!(slot(place(1), 1, 1), Bytes::new());
}

#[test]
fn what_stands_around_a_body_is_bounded() {
    let peer = key(1).peer_id();
    let token = Bytes::from_static(&[1; MAX_TOKEN_BYTES]);
    let body = Bytes::from_static(&[1; 8192]);
    let mailbox = Place::Mailbox { recipient: peer, slot: 255 };
    for (place, token) in
        [(place(1), Bytes::new()), (Place::Endpoint { peer }, Bytes::new()), (mailbox, token)]
    {
        let endpoint = matches!(place, Place::Endpoint { .. });
        let draft = Draft {
            ttl: u32::MAX,
            work: u64::MAX,
            token,
            ..Draft::new(place, u64::MAX, u64::MAX >> 1, body.clone())
        };
        let bytes = Record::sign(&key(1), &network(), draft).unwrap().to_bytes();
        assert!(bytes.len() <= body.len() + MAX_OVERHEAD, "{}", bytes.len() - body.len());
        // dht.md B.4: an endpoint record fits one packet of QUIC.
        let limit = crate::record::RecordsConfig::default().endpoint.max_body_bytes;
        assert!(!endpoint || bytes.len() - body.len() + limit <= 1000, "{}", bytes.len() - body.len());
    }
    let draft = Draft::new(place(1), 1, 1, Bytes::from(vec![0; MAX_VALUE_BYTES]));
    assert!(matches!(Record::sign(&key(1), &network(), draft), Err(RecordFault::TooLarge { .. })));
    let long = Bytes::from(vec![0; MAX_VALUE_BYTES + 1]);
    assert!(matches!(Unverified::read(&network(), &long), Err(RecordFault::TooLarge { .. })));
}

/// A record once signed must verify in every version.
#[test]
fn a_record_is_signed_as_written_down() {
    let network = Network::new("acme").unwrap();
    let draft = Draft::new(Place::of_topic("chess", 1), 2, 3, Bytes::from_static(b"ad"));
    let bytes = Record::sign(&key(1), &network, draft).unwrap().to_bytes();
    assert_eq!(hex::encode(&bytes), VECTOR);
}

const VECTOR: &str = "0ad7010a2408011220cecc1507dc1ddd7295951c290888f095adb9044d1b73d696e6df065d683bd4fc12152f706565726167652f6468742d7265636f72642f311a560a2e2f61636d652f746f7069632fac739dccd121f71261d87461256e9ca70d8e3b6dbbcc9076d5f3b50c73a5d22d0001100218032a2070ba33708cbfb103f1a8e34afef333ba7dc021022b2d9aaa583aabb8058d8d672a40a5282538ffd441885c532e37c46322fcae670c04ac50e3f960fcb11469b3d3b642b1dfe66fde7200be84236d2a62b6f4f1195c1d69683ec544d3e52ffce4ad0712026164";

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(noise: Vec<u8>, at: prop::sample::Index, byte: u8) {
        prop_assert!(Record::open(&network(), &noise.into()).is_err());
        let mut bytes = record(1, b"hello").to_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Record::open(&network(), &bytes.clone().into());
        bytes.truncate(at);
        // Cut just before its body it is what renews a record: the same claim without the content.
        prop_assert!(Record::open(&network(), &bytes.into()).map_or(true, |cut| cut.body().is_none()));
    }

    /// AL-05: whatever the parts are and however they are put together, what is taken for a record is what is written of it.
    #[test]
    fn what_is_read_is_what_would_be_written(picks in prop::collection::vec(0usize..5, 1..4)) {
        let value = record(1, b"hello").to_bytes();
        let head = record(1, b"hello").extension();
        let parts = [&head[..], &value[head.len()..], &[0x12, 0], &[0x0a, 0], &[0x98, 0x06, 1]];
        let bytes = Bytes::from(picks.iter().map(|pick| parts[*pick]).collect::<Vec<_>>().concat());
        if let Ok(read) = Record::open(&network(), &bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }
}
