//! The multiaddr vectors of three other implementations: what each of them is to us, and where the multiaddr crate falls short.
#![allow(clippy::panic)] // in helpers of tests

use std::collections::BTreeSet;

use peerage_identity::{DialAddress, ListenAddress, Multiaddr};
use serde_json::Value;

/// Texts that must parse and that the multiaddr crate 0.19 refuses, by reason, each by its beginning. Peer IDs as CIDs and the `/` at
/// the end are read by [`DialAddress`] nevertheless; the others are transports that are not ours.
const NOT_READ_BY_THE_CRATE: &[(&str, &[&str])] = &[
    (
        "a peer ID as a CID in multibase: the crate reads base58 only",
        &[
            "/ipfs/k2k4",
            "/p2p/k2k4",
            "/p2p/bafz",
            "/p2p/k51q",
            "/ip4/127.0.0.1/ipfs/k2k4",
            "/ip4/127.0.0.1/p2p/k2k4",
        ],
    ),
    ("a `/` at the end", &["/ip4/127.0.0.1/tcp/1234/"]),
    (
        "a path as the rest of the text: the crate takes one part of it",
        &["/unix/a/b", "/ip4/1.2.3.4/tcp/80/unix/a/b"],
    ),
    (
        "base32 of a length that leaves bits over",
        &["/garlic32/566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzuqzwassw"],
    ),
];

/// Texts that must not parse and that the crate takes. [`DialAddress`] refuses them.
const TAKEN_BY_THE_CRATE: &[&str] = &["", "/ip6zone/", "/ip6zone//ip6/fe80::1"];

/// What each vector is to [`DialAddress`], by the longest beginning that fits; `Ok` is an address that can be dialled.
const VERDICTS: &[(&str, &str)] = &[
    ("/dnsaddr/sjc-1.bootstrap.libp2p.io", "Ok"),
    ("/dnsaddr/sjc-1.bootstrap.libp2p.io/tcp", "UnexpectedComponent"),
    ("/garlic32", "OtherTransport"),
    ("/garlic32/566niximlxdzpanmn4qouucvua3k7neniwss47li5r6ugoertzuqzwassw", "NotMultiaddr"),
    // More than 512 characters, a length that no address of ours has.
    ("/garlic64", "TooLong"),
    ("/http-path", "OtherTransport"),
    ("/ip4/0.0.0.0", "Incomplete"),
    ("/ip4/1.2.3.4", "Incomplete"),
    ("/ip4/1.2.3.4/tcp/80/unix/a/b", "UnknownComponent"),
    ("/ip4/127.0.0.1/ipfs", "Incomplete"),
    ("/ip4/127.0.0.1/p2p", "Incomplete"),
    ("/ip4/127.0.0.1/tcp", "Tcp"),
    ("/ip4/127.0.0.1/tcp/9090/p2p-circuit", "Relay"),
    ("/ip4/127.0.0.1/udp/0", "Incomplete"),
    ("/ip4/127.0.0.1/udp/1234", "Incomplete"),
    ("/ip4/127.0.0.1/udp/1234/ip4", "UnexpectedComponent"),
    ("/ip4/127.0.0.1/udp/1234/quic", "QuicDraft29"),
    ("/ip4/127.0.0.1/udp/1234/quic-v1", "Ok"),
    ("/ip4/127.0.0.1/udp/1234/quic-v1/webtransport", "OtherTransport"),
    ("/ip4/127.0.0.1/udp/1234/webrtc-direct", "OtherTransport"),
    ("/ip4/127.0.0.1/udp/1234/webtransport", "OtherTransport"),
    ("/ip4/192.0.2.0/ipcidr", "UnexpectedComponent"),
    ("/ip6/2001:8a0:7ac5:4201:3ac9:86ff:fe31:7095/tcp", "Tcp"),
    ("/ip6/2001:db8::/ipcidr", "UnexpectedComponent"),
    ("/ip6/2601:9:4f81:9700:803e:ca65:66e8:c21", "Incomplete"),
    ("/ip6/2601:9:4f81:9700:803e:ca65:66e8:c21/udp/1234/quic", "QuicDraft29"),
    ("/ip6/2601:9:4f81:9700:803e:ca65:66e8:c21/udp/1234/quic-v1", "Ok"),
    ("/ip6/::1", "Incomplete"),
    ("/ip6/fe80::9700:803e:ca65:66e8:c21/ip6zone", "Zone"),
    ("/ip6zone", "Zone"),
    ("/ipfs", "Incomplete"),
    ("/memory", "OtherTransport"),
    ("/onion", "OtherTransport"),
    ("/p2p", "Incomplete"),
    ("/p2p-webrtc-star", "OtherTransport"),
    ("/sctp", "OtherTransport"),
    ("/tcp", "Tcp"),
    ("/udp", "Incomplete"),
    ("/unix/a/b", "UnknownComponent"),
    ("/unix/stdio", "OtherTransport"),
];

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/multiaddr.json")).expect("the vectors are JSON")
}

fn texts(list: &Value) -> Vec<&str> {
    let entries = list.as_array().filter(|list| !list.is_empty()).expect("a list with entries");
    entries.iter().map(|entry| entry["text"].as_str().expect("a text")).collect()
}

/// The name of the error's variant, or `Ok`.
fn verdict(result: &Result<DialAddress, peerage_identity::AddressError>) -> String {
    match result {
        Ok(_) => "Ok".into(),
        Err(error) => {
            let shown = format!("{error:?}");
            let end = shown.find(|c: char| !c.is_alphanumeric()).unwrap_or(shown.len());
            shown[..end].into()
        }
    }
}

fn expected(text: &str) -> (&'static str, &'static str) {
    let fitting = VERDICTS.iter().filter(|(start, _)| text.starts_with(start));
    let longest = fitting.max_by_key(|(start, _)| start.len());
    *longest.unwrap_or_else(|| panic!("no verdict is written down for {text}"))
}

#[test]
fn text_and_binary_give_each_other_for_every_pair() {
    let vectors = vectors();
    let pairs = vectors["text_binary"].as_array().expect("a list");
    assert_eq!(pairs.len(), 50);
    for pair in pairs {
        let text = pair["text"].as_str().expect("a text");
        let binary = hex::decode(pair["binary_hex"].as_str().expect("digits")).expect("hexadecimal digits");
        let address: Multiaddr = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(address.to_vec(), binary, "{text}");
        let address = Multiaddr::try_from(binary.clone()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(address.to_string(), text);

        let dial = DialAddress::from_bytes(&binary);
        assert_eq!(dial, DialAddress::try_from(address));
        if let Ok(dial) = dial {
            assert_eq!((dial.to_string().as_str(), dial.to_bytes()), (text, binary));
        }
    }
}

#[test]
fn every_vector_is_to_us_what_is_written_down() {
    let vectors = vectors();
    let mut used = BTreeSet::new();
    for text in [texts(&vectors["text_binary"]), texts(&vectors["must_parse"])].concat() {
        let result = text.parse::<DialAddress>();
        let (start, name) = expected(text);
        assert_eq!(verdict(&result), name, "{text}: {result:?}");
        used.insert(start);
    }
    let unused: Vec<_> = VERDICTS.iter().filter(|(start, _)| !used.contains(start)).collect();
    assert!(unused.is_empty(), "no vector for {unused:?}");
}

#[test]
fn what_must_parse_is_read_by_the_crate_but_for_the_listed_cases() {
    let vectors = vectors();
    let mut listed: BTreeSet<_> =
        NOT_READ_BY_THE_CRATE.iter().flat_map(|(_, starts)| starts.iter()).collect();
    let all = listed.clone();
    for text in texts(&vectors["must_parse"]) {
        if text.parse::<Multiaddr>().is_err() {
            let reason = all.iter().find(|start| text.starts_with(**start));
            listed.remove(reason.unwrap_or_else(|| panic!("{text} is refused and not listed")));
        }
    }
    assert!(listed.is_empty(), "these are read: {listed:?}");
}

#[test]
fn what_must_not_parse_is_refused_by_us_and_by_the_crate_but_for_the_listed_cases() {
    let vectors = vectors();
    let texts = texts(&vectors["must_fail"]);
    assert_eq!(texts.len(), 106);
    for text in &texts {
        assert!(text.parse::<DialAddress>().is_err(), "{text}");
        assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        let is_listed = TAKEN_BY_THE_CRATE.contains(text);
        assert_eq!(text.parse::<Multiaddr>().is_ok(), is_listed, "{text}");
    }
    assert!(TAKEN_BY_THE_CRATE.iter().all(|text| texts.contains(text)));
}

#[test]
fn the_codes_of_our_components_are_those_of_the_protocol_table() {
    let vectors = vectors();
    let rows = vectors["protocol_table"]["rows"].as_array().expect("a list");
    let code = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name);
        row.and_then(|row| row["code"].as_u64()).expect(name)
    };
    for (name, value) in [
        ("ip4", "192.0.2.1"),
        ("ip6", "::1"),
        ("dns", "a"),
        ("dns4", "a"),
        ("dns6", "a"),
        ("dnsaddr", "a"),
        ("udp", "1"),
        ("quic-v1", ""),
        ("p2p", "QmVMT29id3TUASyfZZ6k9hmNyc2nYabCo4uMSpDw4zrgDk"),
    ] {
        let text = format!("/{name}/{value}");
        let address: Multiaddr = text.trim_end_matches('/').parse().expect(name);
        let (found, _) = peerage_wire::uvarint::take(&address.to_vec()).expect(name).expect(name);
        assert_eq!(found, code(name), "{name}");
    }
}
