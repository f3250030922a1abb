//! Records of the DHT: whole ones, and any header under a good signature with any body.

use bytes::Bytes;
use peerage_dht::record::{
    Draft, EndpointBody, MailboxRules, Named, Network, Place, RECORD, Record, Records, RecordsConfig,
};
use peerage_dht::topic::Ad;
use peerage_dht::{Judge, MAX_VALUE_BYTES, Target};
use peerage_identity::Envelope;
use peerage_machine::Now;
use peerage_wire::dht_record as wire;
use prost::Message;

use crate::{owned, speaker};

/// A record that verifies is passed on as it came, stands where it says, and can be signed anew to the same effect; names of keys and bodies have one reading.
pub fn run(data: &[u8]) {
    let data = owned(data);
    judge(&data);
    let sealed = |header: &[u8], body: Bytes| {
        let envelope = Envelope::seal(&speaker(), RECORD, header);
        Bytes::from(wire::Record { envelope, body }.encode_to_vec())
    };
    judge(&sealed(&data, Bytes::new()));
    if let Ok(record) = wire::Record::decode(data.clone()) {
        judge(&sealed(&record.envelope, record.body));
    }
    name(&data);
    bodies(&data);
}

fn network() -> Network {
    Network::new("acme").expect("a good name")
}

fn judge(value: &Bytes) {
    let Ok(record) = Record::open(&network(), value) else { return };
    assert!(value.len() <= MAX_VALUE_BYTES);
    assert_eq!(record.to_bytes(), *value, "nothing is lost or added");
    assert_eq!(Place::parse(&network(), record.target().name()), Named::Ours(record.place().clone()));
    assert!(record.place().owner().is_none_or(|owner| owner == record.publisher()));
    let records = Records::new(network(), RecordsConfig::default());
    let judged = records.judge(Now::ZERO, record.target(), value);
    assert!(judged.is_err() || record.body().is_some());
    if record.publisher() == speaker().peer_id()
        && let Some(body) = record.body()
    {
        let draft = Draft {
            place: record.place().clone(),
            seq: record.version().seq,
            not_after: record.version().not_after,
            ttl: record.ttl(),
            body: body.clone(),
            work: record.work(),
            token: record.token().clone(),
        };
        if let Ok(again) = Record::sign(&speaker(), &network(), draft) {
            assert_eq!((again.version(), again.id()), (record.version(), record.id()));
        }
    }
}

fn name(name: &Bytes) {
    if let Named::Ours(place) = Place::parse(&network(), name) {
        assert_eq!(place.name(&network()), *name);
        assert!(place.target(&network()).is_some() && Target::new(name).is_some());
    }
}

fn bodies(body: &Bytes) {
    let peer = speaker().peer_id();
    if let Ok(endpoint) = EndpointBody::decode(&peer, body) {
        assert_eq!(EndpointBody::decode(&peer, &endpoint.encode()), Ok(endpoint));
    }
    if let Ok(ad) = Ad::decode(body) {
        assert_eq!(Ad::decode(&ad.encode()), Ok(ad));
    }
    if let Ok(rules) = MailboxRules::decode(body) {
        assert_eq!(MailboxRules::decode(&rules.encode()), Ok(rules));
    }
}
