//! Tests of addresses from text to bytes and back.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use proptest::prelude::*;

use super::*;
use crate::NodeKey;

const ID: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
const OTHER_ID: &str = "QmVMT29id3TUASyfZZ6k9hmNyc2nYabCo4uMSpDw4zrgDk";

fn dial(text: &str) -> DialAddress {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> AddressError {
    text.parse::<DialAddress>().expect_err(text)
}

#[test]
fn every_form_that_can_be_dialled_is_read_and_written() {
    for host in ["ip4/192.0.2.1", "ip6/2001:db8::1", "dns/a.example", "dns4/a.example", "dns6/a.example"] {
        for peer in [String::new(), format!("/p2p/{ID}")] {
            let text = format!("/{host}/udp/4001/quic-v1{peer}");
            let address = dial(&text);
            assert_eq!(address.to_string(), text);
            assert_eq!(address.port(), Some(4001));
            assert_eq!(address.peer_id().is_some(), !peer.is_empty());
            assert_eq!(address.socket_addr().is_some(), host.starts_with("ip"));
        }
    }
    let text = format!("/dnsaddr/a.example/p2p/{ID}");
    let address = dial(&text);
    assert_eq!(address.to_string(), text);
    assert_eq!((address.port(), address.socket_addr()), (None, None));
    assert_eq!(*address.host(), Host::Dnsaddr { name: "a.example".into() });
}

#[test]
fn one_address_has_one_form() {
    let same = [
        ("/ip6/::ffff:192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.1/udp/1/quic-v1"),
        ("/ip6/2001:DB8:0:0::1/udp/1/quic-v1/", "/ip6/2001:db8::1/udp/1/quic-v1"),
        ("/dns/EXAMPLE.com./udp/0001/quic-v1", "/dns/example.com/udp/1/quic-v1"),
    ];
    for (given, kept) in same {
        assert_eq!(dial(given), dial(kept));
        assert_eq!(dial(given).to_string(), kept);
    }
}

#[test]
fn peer_ids_are_read_in_every_text_form_and_under_their_old_name() {
    let expected = dial(&format!("/ip4/192.0.2.1/udp/1/quic-v1/p2p/{OTHER_ID}"));
    let id: PeerId = OTHER_ID.parse().unwrap();
    let cid = [&[0x01, 0x72][..], &id.to_bytes()].concat();
    for name in ["p2p", "ipfs"] {
        for id in [OTHER_ID.into(), multibase::encode(multibase::Base::Base32Lower, &cid)] {
            assert_eq!(dial(&format!("/ip4/192.0.2.1/udp/1/quic-v1/{name}/{id}")), expected);
        }
    }
    // As the value of another component the word means nothing.
    assert!("/dns/p2p/udp/1/quic-v1".parse::<DialAddress>().is_ok());
}

/// Each line: an address, the variant of the error, and words that its message must hold beside the address.
#[test]
fn what_cannot_be_dialled_is_refused_with_the_reason_and_the_remedy() {
    let id = format!("/p2p/{ID}");
    let cases = [
        ("", "NotMultiaddr", "/ip4/192.0.2.1/udp/4001/quic-v1"),
        ("192.0.2.1:4001", "NotMultiaddr", "does not begin with `/`"),
        ("/ip4/192.0.2.1/udp/70000/quic-v1", "NotMultiaddr", "too large"),
        ("/ip4/1.2.3/udp/1/quic-v1", "NotMultiaddr", "IPv4"),
        ("/ip4//udp/1/quic-v1", "NotMultiaddr", "malformed"),
        ("/ip4/192.0.2.1//udp/1/quic-v1", "NotMultiaddr", "empty"),
        ("/ip4/192.0.2.1/udp", "NotMultiaddr", "lacks its value"),
        ("/ip4/192.0.2.1/tcp/4001", "Tcp", "/udp/PORT/quic-v1"),
        ("/ip4/192.0.2.1/tcp/443/tls/ws", "Tcp", "speaks only QUIC"),
        ("/ip4/192.0.2.1/udp/1/quic", "QuicDraft29", "/quic-v1"),
        ("/ip4/192.0.2.1", "Incomplete", "/udp/PORT"),
        ("/ip4/192.0.2.1/quic-v1", "Incomplete", "/udp/PORT"),
        ("/ip4/192.0.2.1/udp/1", "Incomplete", "/quic-v1"),
        ("/udp/1/quic-v1", "Incomplete", "host"),
        (&id, "Incomplete", "host"),
        ("/", "NotMultiaddr", "empty"),
        ("/ip4/192.0.2.1/udp/0/quic-v1", "PortZero", "port that the peer listens on"),
        ("/ip4/192.0.2.1/udp/1/quic-v1{id}/p2p-circuit{id}", "Relay", "relay"),
        ("/ip4/192.0.2.1/tcp/1{id}/p2p-circuit", "Relay", "relay"),
        ("/ip4/192.0.2.1/udp/1/quic-v1/webtransport", "OtherTransport", "`webtransport`"),
        ("/ip4/192.0.2.1/udp/1/webrtc-direct", "OtherTransport", "`webrtc-direct`"),
        ("/memory/7", "OtherTransport", "`memory`"),
        ("/ip4/192.0.2.1/udp/1/quic-v1/quic-v1", "UnexpectedComponent", "only /p2p/ID may follow"),
        ("/ip4/192.0.2.1/udp/1/quic-v1{id}/http", "UnexpectedComponent", "`http`"),
        ("/ip4/192.0.2.0/ipcidr/24/udp/1/quic-v1", "UnexpectedComponent", "`ipcidr`"),
        ("/dnsaddr/a.example/udp/1/quic-v1", "UnexpectedComponent", "whole addresses"),
        ("/ip4/192.0.2.1/udp/1/quic-v9", "UnknownComponent", "`quic-v9`"),
        ("/ip4/192.0.2.1/udp/1/quic-v1{id}{id}", "SeveralPeerIds", "several peers"),
        ("/ip4/192.0.2.1/udp/1/quic-v1/p2p/12D3KooW", "PeerId", "copy it again"),
        ("/ip4/192.0.2.1/udp/1/quic-v1/p2p/2UUj3qS", "PeerId", "peer ID"),
        ("/ip6zone/eth0/ip6/fe80::1/udp/1/quic-v1", "Zone", "one machine only"),
        ("/ip6/fe80::1/ip6zone/eth0/udp/1/quic-v1", "Zone", "one machine only"),
        ("/dns/a..b/udp/1/quic-v1", "DnsName", "between two dots"),
        ("/dns4/127.0.0.1/udp/1/quic-v1", "DnsName", "/ip4/"),
        ("/ip4/0.0.0.0/udp/1/quic-v1", "NotUnicast", "unspecified"),
        ("/ip6/::/udp/1/quic-v1", "NotUnicast", "unspecified"),
        ("/ip6/::ffff:0.0.0.0/udp/1/quic-v1", "NotUnicast", "unspecified"),
        ("/ip4/224.0.0.1/udp/1/quic-v1", "NotUnicast", "multicast"),
        ("/ip6/ff02::1/udp/1/quic-v1", "NotUnicast", "multicast"),
        ("/ip4/255.255.255.255/udp/1/quic-v1", "NotUnicast", "broadcast"),
    ];
    for (text, variant, words) in cases {
        let text = text.replace("{id}", &id);
        let error = refusal(&text);
        assert!(format!("{error:?}").starts_with(variant), "{text}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(words), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_message_shows_the_address_without_what_a_terminal_would_act_on() {
    let message = refusal("/ip4/\u{1b}[2J\n").to_string();
    assert!(message.contains(r"`/ip4/\u{1b}[2J\n`"), "{message}");
    let long = format!("/dns/{}", "a".repeat(400));
    assert!(refusal(&long).to_string().len() < 400);
}

#[test]
fn lengths_are_bounded_in_text_and_in_binary() {
    let text = format!("/dns/{}", "a".repeat(MAX_ADDRESS_TEXT));
    assert_eq!(refusal(&text), AddressError::TooLong { length: text.len() });
    let bytes = vec![0; MAX_ADDRESS_BYTES + 1];
    assert_eq!(DialAddress::from_bytes(&bytes), Err(AddressError::TooLong { length: bytes.len() }));
    let long: Multiaddr = format!("/unix/{}", "a".repeat(600)).parse().unwrap();
    assert!(matches!(DialAddress::try_from(long), Err(AddressError::TooLong { .. })));
}

#[test]
fn the_longest_address_is_within_the_bounds() {
    let label = "a".repeat(63);
    let name = [&label[..], &label, &label, &"a".repeat(61)].join(".");
    let address = dial(&format!("/dns4/{name}/udp/65535/quic-v1/p2p/{ID}"));
    assert!(address.to_string().len() <= MAX_ADDRESS_TEXT);
    assert!(address.to_bytes().len() <= MAX_ADDRESS_BYTES);
}

#[test]
fn a_binary_address_with_an_unknown_or_cut_component_is_refused() {
    for (bytes, variant) in [
        (&[4, 192, 0, 2][..], "NotMultiaddr"),
        (&[0x84, 0x00, 192, 0, 2, 1], "NotMultiaddr"),
        (&[2], "UnknownComponent"),
        (&[53, 0xff, 0xff, 0xff, 0xff, 0x0f], "NotMultiaddr"),
        (&[53, 1, 0xff], "NotMultiaddr"),
        (&[], "Incomplete"),
    ] {
        let error = DialAddress::from_bytes(bytes).unwrap_err();
        assert!(format!("{error:?}").starts_with(variant), "{error:?}");
    }
}

#[test]
fn a_name_in_binary_cannot_pretend_to_be_more_components() {
    let name = b"a/udp/1/quic-v1";
    let bytes = [&[53, name.len() as u8][..], name, &[0x91, 0x02, 0, 1, 0xcd, 0x03]].concat();
    let error = DialAddress::from_bytes(&bytes).unwrap_err();
    assert!(matches!(error, AddressError::DnsName { .. }), "{error:?}");
}

#[test]
fn a_hash_of_the_wrong_length_is_no_peer_id_in_binary_either() {
    let mut bytes = dial("/ip4/192.0.2.1/udp/1/quic-v1").to_bytes();
    bytes.extend([0xa5, 0x03, 4, 0x12, 2, 1, 2]);
    let error = DialAddress::from_bytes(&bytes).unwrap_err();
    assert!(matches!(error, AddressError::PeerId { .. }), "{error:?}");
}

#[test]
fn a_peer_id_is_added_once_and_never_replaced() {
    let (id, other): (PeerId, PeerId) = (ID.parse().unwrap(), OTHER_ID.parse().unwrap());
    let plain = dial("/ip4/192.0.2.1/udp/1/quic-v1");
    let named = plain.clone().with_peer_id(id).unwrap();
    assert_eq!(named.clone().with_peer_id(id).as_ref(), Ok(&named));
    let error = named.clone().with_peer_id(other).unwrap_err();
    assert!(error.to_string().contains(OTHER_ID), "{error}");
    assert_eq!(named.without_peer_id(), plain);
}

#[test]
fn an_address_without_a_peer_id_where_one_is_needed_says_how_to_add_it() {
    let plain = dial("/ip4/192.0.2.1/udp/1/quic-v1");
    let message = plain.require_peer_id().unwrap_err().to_string();
    assert!(
        message.contains("/ip4/192.0.2.1/udp/1/quic-v1") && message.contains("append /p2p/"),
        "{message}"
    );
    let id: PeerId = ID.parse().unwrap();
    assert_eq!(plain.with_peer_id(id).unwrap().require_peer_id(), Ok(id));
}

#[test]
fn the_same_endpoint_is_found_whoever_is_expected_there() {
    let (id, other) = (ID.parse().unwrap(), OTHER_ID.parse().unwrap());
    let plain = dial("/ip4/192.0.2.1/udp/1/quic-v1");
    let (one, two) = (plain.clone().with_peer_id(id).unwrap(), plain.clone().with_peer_id(other).unwrap());
    assert!(plain.same_endpoint(&one) && one.same_endpoint(&two));
    assert_ne!(one, two);
    for else_where in ["/ip4/192.0.2.1/udp/2/quic-v1", "/ip4/192.0.2.2/udp/1/quic-v1", "/dns/a/udp/1/quic-v1"]
    {
        assert!(!plain.same_endpoint(&dial(else_where)));
    }
    assert!(!dial("/dns4/a/udp/1/quic-v1").same_endpoint(&dial("/dns6/a/udp/1/quic-v1")));
}

#[test]
fn a_socket_address_can_be_dialled_unless_it_means_something_here_only() {
    let from = |text: &str| DialAddress::from_socket_addr(text.parse().unwrap());
    assert_eq!(from("192.0.2.1:7").unwrap().to_string(), "/ip4/192.0.2.1/udp/7/quic-v1");
    assert_eq!(from("[::ffff:192.0.2.1]:7"), from("192.0.2.1:7"));
    assert!(matches!(from("192.0.2.1:0"), Err(AddressError::PortZero { .. })));
    assert!(matches!(from("[::]:7"), Err(AddressError::NotUnicast { .. })));
    let scoped = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 7, 0, 3);
    assert!(matches!(DialAddress::from_socket_addr(scoped.into()), Err(AddressError::Zone { .. })));
}

#[test]
fn a_listen_address_may_be_a_wildcard_and_leave_the_port_open() {
    for text in ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/udp/4001/quic-v1", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let address: ListenAddress = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        assert_eq!(address.is_wildcard(), !text.contains("127"));
        assert!(address.to_dial_address().is_err());
        assert_eq!(ListenAddress::from_socket_addr(address.socket_addr()), Ok(address));
    }
    let whole: ListenAddress = "/ip4/192.0.2.1/udp/7/quic-v1".parse().unwrap();
    assert_eq!(whole.to_dial_address().unwrap().to_multiaddr(), whole.to_multiaddr());
}

#[test]
fn a_listen_address_has_no_name_no_peer_and_no_group() {
    for (text, variant) in [
        ("/dns/a.example/udp/1/quic-v1".into(), "NameOnListen"),
        ("/dnsaddr/a.example".into(), "NameOnListen"),
        (format!("/ip4/0.0.0.0/udp/0/quic-v1/p2p/{ID}"), "PeerIdOnListen"),
        ("/ip4/224.0.0.1/udp/1/quic-v1".into(), "NotUnicast"),
        ("/ip4/255.255.255.255/udp/1/quic-v1".into(), "NotUnicast"),
        ("/ip4/0.0.0.0/tcp/1".into(), "Tcp"),
        ("/ip4/0.0.0.0/udp/1/quic".to_string(), "QuicDraft29"),
    ] {
        let error = text.parse::<ListenAddress>().unwrap_err();
        assert!(format!("{error:?}").starts_with(variant), "{text}: {error:?}");
    }
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u32>().prop_map(|bits| format!("ip4/{}", Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| format!("ip6/{}", Ipv6Addr::from_bits(bits))),
        ("dns[46]?", "[a-zA-Z_][a-zA-Z0-9]{0,20}(\\.[a-z]{1,20}){0,3}\\.?")
            .prop_map(|(kind, name)| format!("{kind}/{name}")),
    ]
}

/// Words from which multiaddrs are made, right and wrong.
fn any_words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        any_host(),
        any::<u16>().prop_map(|port| format!("udp/{port}")),
        any::<u16>().prop_map(|port| format!("tcp/{port}")),
        Just(format!("p2p/{ID}")),
        Just("quic-v1".to_string()),
        Just("quic".to_string()),
        Just("p2p-circuit".to_string()),
        Just("webtransport".to_string()),
        Just("ip6zone/x".to_string()),
        Just("dnsaddr/a.example".to_string()),
        Just("x-parity-ws/%2F".to_string()),
        "[a-z0-9-]{0,12}(/.{0,8})?",
    ];
    prop::collection::vec(word, 0..8).prop_map(|words| format!("/{}", words.join("/")))
}

#[test]
fn a_reason_from_below_shows_no_control_characters() {
    let error = "/certhash/\u{1}\u{1b}[2J".parse::<DialAddress>().unwrap_err().to_string();
    assert!(error.contains(r"\u{1}") && !error.contains(char::is_control), "{error}");
}

proptest! {
    #[test]
    fn what_is_parsed_is_the_same_after_text_and_after_binary(
        host in any_host(), port: u16, seed in any::<Option<[u8; 32]>>(),
    ) {
        let peer = seed.map(|seed| format!("/p2p/{}", NodeKey::from_seed(seed).peer_id())).unwrap_or_default();
        let Ok(address) = format!("/{host}/udp/{port}/quic-v1{peer}").parse::<DialAddress>() else {
            return Ok(());
        };
        prop_assert_eq!(&address.to_string().parse::<DialAddress>().unwrap(), &address);
        prop_assert_eq!(&DialAddress::from_bytes(&address.to_bytes()).unwrap(), &address);
        prop_assert_eq!(&DialAddress::try_from(Multiaddr::from(address.clone())).unwrap(), &address);
        prop_assert_eq!(address.port(), Some(port));
        if let Some(socket) = address.socket_addr() {
            prop_assert_eq!(DialAddress::from_socket_addr(socket).unwrap(), address.without_peer_id());
        }
    }

    #[test]
    fn any_text_is_an_address_or_an_error_with_a_message(text in any_words(), noise: String) {
        for text in [&text, &noise] {
            match text.parse::<DialAddress>() {
                Ok(address) => prop_assert_eq!(address.to_string().parse::<DialAddress>(), Ok(address)),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
            if let Ok(address) = text.parse::<ListenAddress>() {
                prop_assert_eq!(address.to_string().parse::<ListenAddress>(), Ok(address));
            }
        }
    }

    #[test]
    fn any_bytes_are_an_address_or_an_error_with_a_message(
        noise: Vec<u8>, text in any_words(), at: prop::sample::Index, byte: u8,
    ) {
        let mut inputs = vec![noise];
        if let Ok(address) = text.parse::<Multiaddr>() {
            let mut bytes = address.to_vec();
            inputs.push(bytes.clone());
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                inputs.push(bytes.clone());
                bytes.truncate(at);
                inputs.push(bytes);
            }
        }
        for bytes in inputs {
            match DialAddress::from_bytes(&bytes) {
                Ok(address) => prop_assert_eq!(DialAddress::from_bytes(&address.to_bytes()), Ok(address)),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn equal_addresses_have_equal_bytes_and_the_order_is_total(a in any_host(), b in any_host(), port in 1u16..3) {
        let parse = |host: String| format!("/{host}/udp/{port}/quic-v1").parse::<DialAddress>();
        if let (Ok(a), Ok(b)) = (parse(a), parse(b)) {
            prop_assert_eq!(a == b, a.to_bytes() == b.to_bytes());
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        }
    }
}
