//! Vectors that others published: keys, signatures, peer IDs, envelopes, varints. Each file in `vectors/` names its source.
#![allow(clippy::panic)] // in helpers of tests

use bytes::Bytes;
use multibase::Base;
use peerage_identity::{
    Envelope, EnvelopeKind, KeyType, NodeKey, PEER_RECORD, PublicKey, SignedPeerRecord, decode_peer_id,
    decode_public_key, inlined_public_key, parse_peer_id, verify_signature,
};
use peerage_wire::{peer_record::PeerRecord, uvarint};
use prost::Message;
use serde_json::Value;

fn file(text: &str) -> Value {
    serde_json::from_str(text).expect("the vectors are JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().filter(|list| !list.is_empty()).expect("a list with entries")
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or_else(|| panic!("{field} in {entry}"))
}

fn bytes(entry: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(entry, field)).expect("hexadecimal digits")
}

fn key_type(entry: &Value) -> KeyType {
    match text(entry, "key_type") {
        "rsa" => KeyType::RSA,
        "ed25519" => KeyType::Ed25519,
        "secp256k1" => KeyType::Secp256k1,
        "ecdsa" => KeyType::Ecdsa,
        other => panic!("{other}"),
    }
}

/// An Ed25519 key from the protobuf `PrivateKey` form: seed and public key, in old files the public key twice.
fn ed25519(private: &[u8]) -> NodeKey {
    let data = &private[4..];
    assert_eq!(private[..4], [8, 1, 18, data.len() as u8]);
    assert!(data.len() == 64 || data[32..64] == data[64..], "both copies agree");
    let key = NodeKey::from_seed(data[..32].try_into().expect("a seed has 32 bytes"));
    let public = key.public().try_into_ed25519().expect("our keys are Ed25519");
    assert_eq!(public.to_bytes(), data[32..64]);
    key
}

/// The public half of a private key of any type. Peerage itself has no use for the other types' private keys.
fn public_of(private: &[u8]) -> PublicKey {
    if private[1] == 1 {
        return ed25519(private).public();
    }
    let pair = libp2p_identity::Keypair::from_protobuf_encoding(private);
    pair.expect("a private key").public()
}

#[test]
fn the_keys_of_the_specification_are_read_and_give_their_peer_ids() {
    let file = file(include_str!("vectors/keys.json"));
    assert_eq!(list(&file["vectors"]).len(), 4);
    for entry in list(&file["vectors"]) {
        let encoded = bytes(entry, "public_key_pb_hex");
        let key = decode_public_key(&encoded).expect("a public key");
        assert_eq!(key.key_type(), key_type(entry));
        assert_eq!(key.encode_protobuf(), encoded);
        assert_eq!(public_of(&bytes(entry, "private_key_pb_hex")), key);
        assert_eq!(key.to_peer_id().to_string(), text(entry, "peer_id_derived"));
        let is_short = matches!(key.key_type(), KeyType::Ed25519 | KeyType::Secp256k1);
        assert_eq!(inlined_public_key(&key.to_peer_id()), is_short.then_some(key));
    }
}

#[test]
fn signatures_of_all_key_types_verify_and_changed_ones_do_not() {
    let file = file(include_str!("vectors/key_signatures.json"));
    assert_eq!(list(&file["vectors"]).len(), 5);
    for entry in list(&file["vectors"]) {
        let key = decode_public_key(&bytes(entry, "public_key_pb_hex")).expect("a public key");
        assert_eq!(key.key_type(), key_type(entry));
        let (message, signature) = (bytes(entry, "message_hex"), bytes(entry, "signature_hex"));
        assert!(verify_signature(&key, &message, &signature), "{}", entry["id"]);
        assert!(!verify_signature(&key, &message[1..], &signature));
        for at in 0..signature.len() {
            let mut changed = signature.clone();
            changed[at] ^= 1;
            assert!(!verify_signature(&key, &message, &changed), "{} at {at}", entry["id"]);
            assert!(!verify_signature(&key, &message, &signature[..at]));
        }
        let private = bytes(entry, "private_key_pb_hex");
        assert_eq!(public_of(&private), key);
        if key.key_type() == KeyType::Ed25519 {
            assert_eq!(entry["deterministic"], true);
            assert_eq!(ed25519(&private).sign(&message)[..], signature);
        }
    }
}

#[test]
fn the_signing_example_of_http_peer_id_auth_is_reproduced() {
    let file = file(include_str!("vectors/http_peer_id_auth.json"));
    for entry in list(&file["vectors"]) {
        let key = ed25519(&bytes(entry, "server_private_key_pb_hex"));
        let expected = Base::Base64UrlPad.decode(text(entry, "signature_base64url"));
        let signature = key.sign(&bytes(entry, "data_to_sign_hex"));
        assert_eq!(signature[..], expected.expect("base64"));
        assert!(decode_public_key(&bytes(entry, "client_public_key_pb_hex")).is_ok());
    }
}

#[test]
fn peer_ids_are_read_in_all_text_forms() {
    let file = file(include_str!("vectors/peer_ids.json"));
    for entry in list(&file["text_forms"]) {
        let id = parse_peer_id(text(entry, "text")).expect("a peer ID");
        let hash = if text(entry, "hash") == "identity" { 0 } else { 0x12 };
        assert_eq!(id.to_bytes()[0], hash);
    }
    for group in list(&file["same_peer_id"]) {
        let ids: Vec<_> = list(group)
            .iter()
            .map(|id| parse_peer_id(id.as_str().expect("text")).expect("a peer ID"))
            .collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
    }
}

#[test]
fn peer_ids_follow_from_keys_as_elsewhere() {
    let file = file(include_str!("vectors/peer_ids.json"));
    assert_eq!(list(&file["derivations"]).len(), 3);
    for entry in list(&file["derivations"]) {
        let private = Base::Base64Pad.decode(text(entry, "private_key_pb_base64"));
        let key = public_of(&private.expect("base64"));
        if entry["public_key_pb_hex"].is_string() {
            let encoded = bytes(entry, "public_key_pb_hex");
            assert_eq!(decode_public_key(&encoded).expect("a public key"), key);
        }
        if entry["peer_id"].is_string() {
            let expected = parse_peer_id(text(entry, "peer_id"));
            assert_eq!(Ok(key.to_peer_id()), expected);
        } else {
            let expected = decode_peer_id(&bytes(entry, "peer_id_multihash_hex"));
            assert_eq!(Ok(key.to_peer_id()), expected);
        }
    }
}

#[test]
fn the_peer_record_that_go_sealed_opens_and_is_sealed_again_to_the_same_bytes() {
    let file = file(include_str!("vectors/signed_envelopes.json"));
    let entry = &file["vectors"][0];
    let envelope = Bytes::from(bytes(entry, "envelope_hex"));
    let kind = bytes(entry, "payload_type_hex");
    assert_eq!(PEER_RECORD.domain, text(entry, "domain"));
    assert_eq!(PEER_RECORD.payload_type, kind);

    let expected = &entry["expected_record"];
    let opened = Envelope::open(&envelope, &[PEER_RECORD]).expect("the signature holds");
    assert_eq!(opened.signer().to_string(), text(expected, "peer_id"));
    let record = PeerRecord::decode(opened.payload().clone()).expect("a peer record");
    let addresses: Vec<_> = record
        .addresses
        .iter()
        .map(|info| peerage_identity::Multiaddr::try_from(info.multiaddr.to_vec()))
        .map(|address| address.expect("a multiaddr").to_string())
        .collect();
    assert_eq!(Value::from(addresses.clone()), expected["addresses"]);

    let key = ed25519(&bytes(entry, "private_key_pb_hex"));
    assert_eq!(Envelope::seal(&key, PEER_RECORD, opened.payload()), envelope);

    let record = SignedPeerRecord::verify(&envelope).expect("a peer record");
    assert_eq!(record.peer_id().to_string(), text(expected, "peer_id"));
    assert_eq!(Some(record.seq()), expected["seq"].as_u64());
    // They are TCP addresses, all of them.
    assert_eq!((record.addresses().len(), record.ignored()), (0, addresses.len()));
}

#[test]
fn the_envelope_that_go_sealed_opens_under_no_other_domain_and_with_no_bit_changed() {
    let file = file(include_str!("vectors/signed_envelopes.json"));
    let envelope = bytes(&file["vectors"][0], "envelope_hex");
    let other = EnvelopeKind { domain: "libp2p-routing-state", ..PEER_RECORD };
    assert!(Envelope::open(&envelope.clone().into(), &[other]).is_err());
    for bit in 0..envelope.len() * 8 {
        let mut changed = envelope.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(SignedPeerRecord::verify(&changed.into()).is_err(), "bit {bit}");
    }
}

#[test]
fn varints_are_read_and_written_as_multiformats_shows() {
    let file = file(include_str!("vectors/unsigned_varint.json"));
    for entry in list(&file["vectors"]) {
        let (value, encoded) = (entry["value"].as_u64().expect("a number"), bytes(entry, "bytes_hex"));
        let mut written = Vec::new();
        uvarint::put(value, &mut written);
        assert_eq!(written, encoded);
        assert_eq!(uvarint::take(&encoded), Ok(Some((value, encoded.len()))));
    }
    // What the file's own description asks to refuse.
    assert!(uvarint::take(&[0x81, 0x00]).is_err());
    assert!(uvarint::take(&[0xff; 10]).is_err());
}
