//! Writes the first inputs of every target into `fuzz/corpus/`: the published vectors as they are, and a few good messages.
//!
//!     cargo run -p peerage-fuzz-targets --example seeds
//!
//! Files that are there already are left alone. Minimise afterwards with `fuzz/keep`, which drops what adds nothing.

use std::error::Error;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use peerage_dht::record::{
    Draft, EndpointBody, MailboxPolicy, MailboxRules, MailboxToken, Network, Place, Record, Records,
    RecordsConfig,
};
use peerage_dht::replication::{Digest, Item, List, Prefix, RepairMessage, Verdict};
use peerage_dht::topic::Ad;
use peerage_fuzz_targets::{certificate_extension, dht_mail, hello, multistream_dial, public_key, speaker};
use peerage_identity::{DialAddress, NodeKey, SignedPeerRecord, seal_to};
use peerage_transport::fuzzing::proposal;
use peerage_wire::{channel, exchange, frame, hello as hello_wire, identify, peer_record, uvarint};
use prost::Message;
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Questions and answers of the DHT, in libp2p's form and with what Peerage adds.
fn dht(corpus: &mut Corpus) {
    use peerage_dht::{Answer, Contact, Query, Status, Target, Wait};
    let address = "/ip4/20.1.2.3/udp/4400/quic-v1".parse();
    let contact = Contact::new(speaker().peer_id(), &address.into_iter().collect::<Vec<_>>());
    let (value, Some(target)) = (Bytes::from_static(b"value"), Target::new(b"/acme/value/1")) else { return };
    let queries = [
        Query::FindNode { target: Target::of_peer(contact.peer()) },
        Query::GetValue { target: target.clone(), cursor: Some(Bytes::from_static(b"next")), wait: None },
        Query::GetValue {
            target: target.clone(),
            cursor: None,
            wait: Some(Wait { known: [7; 32], seconds: 60 }),
        },
        Query::PutValue { target: target.clone(), value: value.clone() },
        Query::AddProvider { target: target.clone(), provider: contact.clone() },
        Query::GetProviders { target, cursor: None },
        Query::Ping,
        Query::Repair(value.clone()),
        Query::Silent { peers: vec![*contact.peer()] },
    ];
    let answer = Answer {
        status: Status::Ok,
        closer: vec![contact.clone(), contact.clone()],
        values: vec![value.clone(), Bytes::from_static(b"another")],
        providers: vec![contact],
        cursor: Some(Bytes::from_static(b"more")),
        repair: Some(value),
        extended: true,
        waited: true,
    };
    for query in &queries {
        for extras in [false, true] {
            corpus.add("dht_question", peerage::fuzzing::dht_asked(query, extras));
            if let Some(said) = peerage::fuzzing::dht_answered(query, &answer, extras) {
                corpus.add("dht_answer", said);
            }
        }
    }
}

fn main() -> Result<()> {
    let mut corpus = Corpus::default();
    vectors(&mut corpus)?;
    messages(&mut corpus)?;
    streams(&mut corpus);
    accounts(&mut corpus);
    files(&mut corpus);
    records(&mut corpus)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for (target, input) in &corpus.inputs {
        let folder = root.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name(input)), input)?;
    }
    println!("{} inputs", corpus.inputs.len());
    Ok(())
}

/// A file's name from its content: FNV-1a.
fn name(input: &[u8]) -> String {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    format!("seed-{:016x}", input.iter().fold(0xcbf2_9ce4_8422_2325, mix))
}

#[derive(Default)]
struct Corpus {
    inputs: Vec<(&'static str, Vec<u8>)>,
}

impl Corpus {
    fn add(&mut self, target: &'static str, input: impl AsRef<[u8]>) {
        self.inputs.push((target, input.as_ref().to_vec()));
    }
}

/// Records of the DHT of every kind, and what holders compare.
fn records(corpus: &mut Corpus) -> Result<()> {
    let (key, network) = (speaker(), Network::new("acme")?);
    let peer = key.peer_id();
    let endpoint =
        EndpointBody { addresses: vec!["/ip4/192.0.2.1/udp/4001/quic-v1".parse()?], ..Default::default() };
    let ad = Ad { topic: "chess".into(), tags: vec!["blitz".into()], ..Default::default() };
    let rules = MailboxRules { policy: MailboxPolicy::Open { work_bits: 8 }, cleared: Vec::new() };
    let drafts = [
        Draft::new(Place::Endpoint { peer }, 1, 3600, endpoint.encode()),
        Draft::new(Place::of_topic("chess", 0), 1, 3600, ad.encode()),
        Draft::new(Place::Mailbox { recipient: peer, slot: 0 }, 1, 3600, rules.encode()),
        Draft::new(Place::Value { publisher: peer, salt: "colour".into() }, 1, 3600, "blue".into()),
        Draft::new(Place::of_content(b"content"), 0, 3600, "content".into()),
    ];
    let mut message =
        RepairMessage { digests: vec![(Prefix::ALL, Digest::default())], ..RepairMessage::at(1_000) };
    for draft in drafts {
        corpus.add("dht_record", draft.place.name(&network));
        corpus.add("dht_record", &draft.body);
        let record = Record::sign(&key, &network, draft)?;
        corpus.add("dht_record", record.to_bytes());
        corpus.add("dht_record", record.extension());
        message.want.push(7);
        message.have.push(record.id());
        message.items.push(Item::of(record.id(), record.version()));
        message.lists.push(List { prefix: Prefix::ALL, hashes: vec![7] });
        message.records.push(record.to_bytes());
        message.verdicts.push(Verdict::Stored);
        rows(corpus, &record)?;
    }
    // Two records of one number, as whoever says two things is passed on.
    let said = ["red", "blue"].map(|body| {
        let place = Place::Value { publisher: peer, salt: "colour".into() };
        Record::sign(&key, &network, Draft::new(place, 1, 3600, body.into()))
    });
    for record in said {
        message.records.push(record?.to_bytes());
    }
    mail(corpus, &key)?;
    corpus.add("dht_repair", message.encode());
    corpus.add("dht_repair", RepairMessage::at(1_000).encode());
    Ok(())
}

/// A token and a sealed message.
fn mail(corpus: &mut Corpus, owner: &NodeKey) -> Result<()> {
    let sender = NodeKey::from_seed([2; 32]).peer_id();
    corpus.add("dht_mail", MailboxToken::issue(owner, &sender, 3600));
    let sealed = seal_to(&owner.public(), dht_mail::CONTEXT, b"back on Monday", &[7; 32])?;
    corpus.add("dht_mail", sealed);
    Ok(())
}

/// How a node writes a record to its disk, and with it a provider and whom it knows.
fn rows(corpus: &mut Corpus, record: &Record) -> Result<()> {
    use peerage_dht::store::Change;
    use peerage_dht::{AcceptAll, Contact, Dht, DhtConfig, Input, Mode, Query, QueryId};
    use peerage_machine::{Machine as _, Now, Random};
    let now = Now { mono: std::time::Duration::from_secs(1), unix: std::time::Duration::from_secs(1_000) };
    let (key, judge) = (NodeKey::from_seed([3; 32]), Box::new(AcceptAll));
    let records = Records::new(Network::new("acme")?, RecordsConfig::default());
    let random = Random::from_number(1);
    let node = Dht::new(DhtConfig::default(), key.peer_id(), Mode::Server, judge, random, now);
    let mut node = node.with_records(key, records);
    let address = "/ip4/20.1.2.3/udp/4400/quic-v1".parse()?;
    let provider = Contact::new(speaker().peer_id(), &[address]);
    node.plant(now, [provider.clone()]);
    let target = record.target().clone();
    let put = Query::PutValue { target: target.clone(), value: record.to_bytes() };
    for (number, ask) in [put, Query::AddProvider { target, provider }].into_iter().enumerate() {
        let (query, from) = (QueryId(number as u64), speaker().peer_id());
        node.handle(now, Input::Asked { query, from, remote: [20, 1, 2, 3].into(), extended: true, ask });
    }
    node.plant_size(now, 1000.0, 8);
    let mut rows = node.memory(now);
    while let Some(batch) = node.flush(now) {
        node.handle(now, Input::Written { number: batch.number, ok: true });
        rows.extend(batch.changes.into_iter().filter_map(|change| match change {
            Change::Put { key, value } => Some((key, value)),
            Change::Delete { .. } => None,
        }));
    }
    for (key, value) in rows {
        // Without its checksum.
        let value = &value[..value.len().saturating_sub(8)];
        corpus.add("dht_row", [&[u8::try_from(key.len())?], &key[..], value].concat());
    }
    Ok(())
}

/// What others published: see the `source` of each entry.
fn vectors(corpus: &mut Corpus) -> Result<()> {
    for (file, text) in VECTORS {
        visit(corpus, file, "", &serde_json::from_str(text)?)?;
    }
    Ok(())
}

/// Finds every text and every field of hexadecimal digits in a file, whatever its structure, and gives it to the targets that read such a thing.
fn visit(corpus: &mut Corpus, file: &str, field: &str, value: &Value) -> Result<()> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| visit(corpus, file, field, value)),
        Value::Object(fields) => fields.iter().try_for_each(|(field, value)| match field.as_str() {
            "source" | "about" | "note" => Ok(()),
            _ => visit(corpus, file, field, value),
        }),
        Value::String(text) => take(corpus, file, field, text),
        _ => Ok(()),
    }
}

fn take(corpus: &mut Corpus, file: &str, field: &str, text: &str) -> Result<()> {
    match (file, field) {
        ("multiaddr", "binary_hex") => corpus.add("address_bytes", hex::decode(text)?),
        ("multiaddr", field) if field.ends_with("hex") => {}
        ("multiaddr", _) => corpus.add("address_text", text),
        (_, "public_key_pb_hex") => {
            corpus.add("public_key", hex::decode(text)?);
            corpus.add("certificate_extension", certificate_extension::encode(&hex::decode(text)?, &[7; 64]));
        }
        ("peer_ids", field) if field.ends_with("hex") => corpus.add("peer_id", hex::decode(text)?),
        ("peer_ids", _) | (_, "peer_id" | "peer_id_derived") => corpus.add("peer_id", text),
        (_, "envelope_hex") => {
            corpus.add("envelope", hex::decode(text)?);
            corpus.add("peer_record", hex::decode(text)?);
        }
        (_, "cert_der_hex") => corpus.add("certificate", hex::decode(text)?),
        ("unsigned_varint", "bytes_hex") => corpus.add("frames", hex::decode(text)?),
        ("multistream_select", "bytes_hex") => {
            let said = [&b"\x13/multistream/1.0.0\n"[..], &hex::decode(text)?].concat();
            corpus.add("multistream_dial", &said);
            corpus.add("multistream_listen", &said);
        }
        _ => {}
    }
    Ok(())
}

/// Good messages of every kind, as another node would send them.
fn messages(corpus: &mut Corpus) -> Result<()> {
    let key = speaker();
    let address: DialAddress = "/ip4/192.0.2.1/udp/4001/quic-v1".parse()?;
    let name: DialAddress = "/dns4/a.example/udp/4001/quic-v1".parse()?;
    let record = SignedPeerRecord::sign(&key, 7, &[address.clone(), name.clone()])?;
    let other = SignedPeerRecord::sign(&NodeKey::from_seed([2; 32]), 1, std::slice::from_ref(&address))?;
    let observed = Bytes::from(address.to_bytes());

    corpus.add("envelope", record.as_bytes());
    corpus.add("peer_record", record.as_bytes());
    let unsigned = peer_record::PeerRecord {
        peer_id: key.peer_id().to_bytes().into(),
        seq: 7,
        addresses: [address, name]
            .map(|address| peer_record::peer_record::AddressInfo { multiaddr: address.to_bytes().into() })
            .to_vec(),
    };
    corpus.add("peer_record", unsigned.encode_to_vec());

    let greeting = hello_wire::Hello {
        network: hello::NETWORK.into(),
        versions: vec![1, 2],
        boot_nonce: 1,
        order: 2,
        signed_record: record.as_bytes().clone(),
        observed_addr: observed.clone(),
        channels: vec![hello_wire::Channel {
            name: "/acme/chat/1".into(),
            max_message_bytes: 1 << 20,
            class: 3,
            bytes_per_second: 1 << 20,
            messages_per_second: 100,
        }],
        agent: "peerage/0.1.0".into(),
        moniker: "alice".into(),
        visit: true,
        services: vec!["/acme/kad/1.0.0".to_owned()],
        sealed: Vec::new(),
    };
    corpus.add("hello", frame::encode(&greeting));
    corpus.add("sealed_hello", frame::encode(&greeting));
    let sealed =
        hello_wire::Sealed { proof: Bytes::from_static(&[1; 32]), body: Bytes::from_static(&[2; 60]) };
    corpus.add(
        "sealed_hello",
        frame::encode(&hello_wire::Hello { sealed: vec![sealed], ..Default::default() }),
    );
    corpus
        .add("hello", frame::encode(&hello_wire::Hello { signed_record: Bytes::new(), ..greeting.clone() }));
    corpus.add("hello", frame::encode(&hello_wire::Hello { network: "other\u{1b}".into(), ..greeting }));

    use hello_wire::answer::Verdict;
    let accept = Verdict::Accept(hello_wire::Accept { order: 1, version: 1, stay: false });
    let reject = Verdict::Reject(hello_wire::Reject {
        reason: 5,
        detail: "no place".into(),
        retry_after_ms: 1000,
        alternatives: vec![other.as_bytes().clone(), Bytes::from_static(b"none")],
    });
    for verdict in [accept, reject] {
        corpus.add("hello_answer", frame::encode(&hello_wire::Answer { verdict: Some(verdict) }));
    }

    let about = identify::Identify {
        public_key: Some(key.public().encode_protobuf().into()),
        listen_addrs: vec![observed.clone(), Bytes::from_static(b"\x35\x01a\x06\x0f\xa1")],
        protocols: vec!["/ipfs/ping/1.0.0".into()],
        observed_addr: Some(observed),
        protocol_version: Some("acme/1".into()),
        agent_version: Some("a/1".into()),
        signed_peer_record: Some(record.as_bytes().clone()),
    };
    let again = identify::Identify { agent_version: Some("a/2".into()), ..Default::default() };
    corpus.add("identify", frame::encode(&about));
    corpus.add("identify", [frame::encode(&about), frame::encode(&again)].concat());

    let records = vec![record.as_bytes().clone(), other.as_bytes().clone()];
    corpus.add("exchange", frame::encode(&exchange::Peers { records }));
    corpus.add("exchange", frame::encode(&exchange::Ask { most: 30 }));
    dht(corpus);
    corpus.add("key_file", &**key.to_pem());
    corpus.add("key_file", RFC_8410_WITH_PUBLIC);
    let signed = [&key.public().encode_protobuf()[..], &key.sign(public_key::MESSAGE)].concat();
    corpus.add("public_key", signed);
    Ok(())
}

/// What users write, and nodes write for them.
fn files(corpus: &mut Corpus) {
    corpus.add("seed_list", SEED_LIST);
    corpus.add("book_import", BOOK);
    corpus.add("book_import", r#"{"version":2,"peers":[]}"#);
}

/// What the receiver of a channel says.
fn accounts(corpus: &mut Corpus) {
    let limits = channel::Limits {
        max_message_bytes: 900,
        class: 1,
        bytes_per_second: 1 << 20,
        messages_per_second: 9,
    };
    let first = channel::Account { limit: 16_384, limits: Some(limits), ..Default::default() };
    let some = channel::Account { accepted: 40, messages: 2, limit: 40_000, ..Default::default() };
    let end = channel::End { reason: 2, detail: "too large".into() };
    let last = channel::Account { end: Some(end), ..some };
    corpus.add("channel_account", [&first, &some, &last].map(frame::encode).concat());
    corpus.add("channel_account", frame::encode(&channel::Account { accepted: u64::MAX, ..some }));
}

/// Framing and negotiation.
fn streams(corpus: &mut Corpus) {
    corpus.add("answer", [&[0], &frames(&[b"good"])[..]].concat());
    corpus.add("answer", frames(&[&[100], b"no such thing"]));
    corpus.add("answer", frames(&[b"", b"first", b"", b"second", &[2, 0xf4, 3], b"later"]));
    corpus.add("request", frames(&[b"what?"]));
    corpus.add("request", frames(&[b"what?", &[8, 0xdc, 0x0b, 16, 0x80, 0x80, 4]]));
    corpus.add("frames", frames(&[b"", b"a", &[7; 126], &[8; 300]]));
    corpus.add("frames", frames(&[&[8; 301]]));
    let header = proposal(multistream_dial::PROPOSED).unwrap_or_default();
    corpus.add("multistream_dial", [&header[..], b"data"].concat());
    corpus.add("multistream_dial", multistream_dial::PROPOSED);
    corpus.add("multistream_listen", [&header[..], b"data"].concat());
    let refused = proposal("/a/1").unwrap_or_default();
    corpus.add("multistream_listen", [&refused[..], b"\x11/ipfs/ping/1.0.0\n"].concat());
}

fn frames(contents: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for content in contents {
        uvarint::put(content.len() as u64, &mut out);
        out.extend(*content);
    }
    out
}

macro_rules! vectors {
    ($($krate:literal / $name:literal),* $(,)?) => {
        const VECTORS: &[(&str, &str)] = &[$(
            ($name, include_str!(concat!("../../../crates/", $krate, "/tests/vectors/", $name, ".json"))),
        )*];
    };
}

vectors! {
    "identity" / "http_peer_id_auth",
    "identity" / "key_signatures",
    "identity" / "keys",
    "identity" / "multiaddr",
    "identity" / "peer_ids",
    "identity" / "signed_envelopes",
    "identity" / "unsigned_varint",
    "transport" / "multistream_select",
    "transport" / "tls_certificates",
    "transport" / "tls_signature_schemes",
}

const SEED_LIST: &str =
    "# ours\n/ip4/192.0.2.1/udp/4001/quic-v1 # one\n\n/dnsaddr/seeds.example\n192.0.2.1:4001\n";

const BOOK: &str = r#"{"version":1,"peers":[{"peer":"12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X","addresses":[
{"address":"/ip4/192.0.2.1/udp/4001/quic-v1","source":"hearsay","told_from":"global","successes":4294967295,"failures":1,
"failures_in_a_row":4294967295,"last_seen":18446744073709551615,"rtt_micros":18446744073709551615}],"failures":4294967295,
"retry_at":18446744073709551615,"first_known":18446744073709551615,"connected_seconds":18446744073709551615}]}"#;

/// RFC 8410 § 10.3: a key with attributes and its public key.
const RFC_8410_WITH_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----\n\
    MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n\
    Z9w7lshQhqowtrbLDFw4rXAxZuE=\n\
    -----END PRIVATE KEY-----\n";
