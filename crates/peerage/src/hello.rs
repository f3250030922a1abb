//! `/peerage/hello/1`: what two nodes tell each other before either admits the other.
//!
//! Each side opens one stream, sends one hello and reads one answer on it. Reading is strict about sizes and lenient about content: fields
//! that this version does not know are passed over, so that newer nodes can say more.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{DialAddress, PeerId, RecordError, SignedPeerRecord};
use peerage_machine::Recent;
use peerage_peers::{Answer, HelloFacts, PeerAnswer, RejectReason};
use peerage_wire::hello::{self as wire, answer::Verdict};
use prost::Message;

use crate::about::About;
use crate::channel::ChannelLimits;
use crate::shared::Shared;

/// The protocol's name.
pub(crate) const PROTOCOL: &str = "/peerage/hello/1";
/// The versions of the Peerage protocols that this node speaks.
pub(crate) const VERSIONS: &[u32] = &[1, 2];
/// The first version whose channels account for what they accept (proto/channel.proto).
pub(crate) const WITH_ACCOUNTS: u32 = 2;
/// The longest hello that is read, in bytes.
pub(crate) const MAX_HELLO_BYTES: usize = 16 * 1024;
/// The longest answer that is read, in bytes: eight records and some words.
pub(crate) const MAX_ANSWER_BYTES: usize = 72 * 1024;
/// Texts for people are cut here, in bytes.
pub(crate) const MAX_TEXT: usize = 128;
/// Channels that a hello lists.
pub(crate) const MAX_CHANNELS: usize = 128;
/// Names of what a node itself serves that are read of a hello.
pub(crate) const MAX_SERVICES: usize = 16;
/// Verified records that are kept to compare with.
pub(crate) const MAX_KEPT_RECORDS: usize = 1024;
/// Longer records, in bytes, are verified each time they come. Those of honest nodes have a few hundred.
pub(crate) const MAX_KEPT_RECORD_BYTES: usize = 1024;
/// Records of others that a refusal may carry.
const MAX_ALTERNATIVES: usize = 8;

/// Our hello to a peer that we see at `observed`, and that we may have dialled for a visit only.
pub(crate) fn ours(shared: &Shared, order: u64, visit: bool, observed: Option<&DialAddress>) -> wire::Hello {
    let mut hello = wire::Hello {
        network: shared.network.clone(),
        versions: VERSIONS.to_vec(),
        boot_nonce: shared.boot_nonce,
        order,
        signed_record: shared.listening.here().record.as_bytes().clone(),
        observed_addr: observed.map(|address| Bytes::from(address.to_bytes())).unwrap_or_default(),
        channels: Vec::new(),
        agent: shared.agent.clone(),
        moniker: shared.moniker.clone(),
        services: shared.registry.node_services(),
        visit,
        sealed: Vec::new(),
    };
    let channels = shared.registry.channels();
    list_channels(&mut hello, channels.iter().map(|core| crate::channel::in_hello(&core.config)));
    if hello.channels.len() < channels.len() {
        let (listed, of) = (hello.channels.len(), channels.len());
        tracing::debug!(
            listed,
            of,
            "a hello has no room for all channels: peers learn the rest with their streams"
        );
    }
    hello
}

/// Lists the channels in a hello, as many as it may hold. What a hello says of a channel comes again with the first account on its stream, so
/// those that are left out work all the same.
fn list_channels(hello: &mut wire::Hello, channels: impl Iterator<Item = wire::Channel>) {
    let mut length = hello.encoded_len();
    for channel in channels.take(MAX_CHANNELS) {
        let bytes = channel.encoded_len();
        length += 1 + prost::length_delimiter_len(bytes) + bytes;
        if length > MAX_HELLO_BYTES {
            return;
        }
        hello.channels.push(channel);
    }
}

/// Records that came in hellos lately, by whom they are about.
///
/// Whether a record is good follows from its bytes alone: a peer that comes back with the same one costs no second check of its signature.
#[derive(Debug)]
pub(crate) struct Records(Mutex<Recent<PeerId, SignedPeerRecord>>);

impl Records {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Recent::new(MAX_KEPT_RECORDS)))
    }

    /// Verifies a record that `peer` sent, unless it is, byte by byte, the last one that it sent and that was verified.
    fn verify(&self, peer: PeerId, bytes: &Bytes) -> Result<SignedPeerRecord, RecordError> {
        if let Some(known) = self.table().get(&peer)
            && known.as_bytes() == bytes
        {
            return Ok(known.clone());
        }
        let record = SignedPeerRecord::verify(bytes)?;
        if record.peer_id() == peer && bytes.len() <= MAX_KEPT_RECORD_BYTES {
            self.table().put(peer, record.clone());
        }
        Ok(record)
    }

    fn table(&self) -> MutexGuard<'_, Recent<PeerId, SignedPeerRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a peer's hello says to a node of `network`.
pub(crate) fn read(
    network: &str,
    peer: PeerId,
    hello: wire::Hello,
    records: &Records,
) -> (HelloFacts, About) {
    let record = match hello.signed_record.is_empty() {
        true => Ok(None),
        false => records.verify(peer, &hello.signed_record).map(Some).map_err(|e| e.to_string()),
    };
    let problem = problem(network, peer, &hello, &record);
    let observed = DialAddress::from_bytes(&hello.observed_addr).ok();
    let facts = HelloFacts {
        boot_nonce: hello.boot_nonce,
        order: hello.order,
        observed: observed.as_ref().and_then(DialAddress::socket_addr),
        record: record.unwrap_or_default(),
        visit: hello.visit,
        problem,
    };
    let observed = observed.map(|address| address.to_string());
    let channels: Vec<_> =
        hello.channels.into_iter().take(MAX_CHANNELS).map(ChannelLimits::from_hello).collect();
    let services = hello.services.into_iter().take(MAX_SERVICES).map(text);
    let about = About {
        agent: text(hello.agent),
        moniker: text(hello.moniker),
        protocols: channels.iter().map(|channel| channel.name.clone()).chain(services).collect(),
        observed,
        version: common_version(&hello.versions).unwrap_or(0),
        channels,
        ..About::default()
    };
    (facts, about)
}

fn problem(
    network: &str,
    peer: PeerId,
    hello: &wire::Hello,
    record: &Result<Option<SignedPeerRecord>, String>,
) -> Option<(RejectReason, String)> {
    if hello.network != network {
        let theirs = text(hello.network.clone());
        let detail = format!("it is in {theirs:?}, this node in {network:?}");
        return Some((RejectReason::WrongNetwork, detail));
    }
    if common_version(&hello.versions).is_none() {
        let theirs = hello.versions.iter().take(8).collect::<Vec<_>>();
        let detail = format!("it speaks versions {theirs:?}, this node {VERSIONS:?}");
        return Some((RejectReason::NoCommonVersion, detail));
    }
    match record {
        Err(detail) => Some((RejectReason::InvalidHello, format!("its record is invalid: {detail}"))),
        Ok(Some(record)) if record.peer_id() != peer => {
            Some((RejectReason::InvalidHello, "its record is somebody else's".to_owned()))
        }
        Ok(_) => None,
    }
}

/// The highest version that both sides speak.
pub(crate) fn common_version(theirs: &[u32]) -> Option<u32> {
    VERSIONS.iter().copied().filter(|version| theirs.contains(version)).max()
}

/// Our answer, as it crosses the wire.
pub(crate) fn answer(answer: Answer) -> wire::Answer {
    let verdict = match answer {
        Answer::Accept { order, stay } => {
            Verdict::Accept(wire::Accept { order, version: VERSIONS[VERSIONS.len() - 1], stay })
        }
        Answer::Reject { reason, detail, retry_after, alternatives } => Verdict::Reject(wire::Reject {
            reason: reason.code(),
            detail,
            retry_after_ms: retry_after.map_or(0, |wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)),
            alternatives,
        }),
    };
    let mut answer = wire::Answer { verdict: Some(verdict) };
    // As many alternatives as the other side reads.
    while answer.encoded_len() > MAX_ANSWER_BYTES
        && let Some(Verdict::Reject(reject)) = &mut answer.verdict
        && reject.alternatives.pop().is_some()
    {}
    answer
}

/// What the peer answered. Records with a bad signature are left out.
pub(crate) fn read_answer(answer: wire::Answer) -> PeerAnswer {
    match answer.verdict {
        Some(Verdict::Accept(accept)) => PeerAnswer::Accept { order: accept.order, stay: accept.stay },
        Some(Verdict::Reject(reject)) => PeerAnswer::Reject {
            reason: RejectReason::from_code(reject.reason),
            detail: text(reject.detail),
            retry_after: (reject.retry_after_ms > 0)
                .then(|| Duration::from_millis(u64::from(reject.retry_after_ms))),
            alternatives: reject
                .alternatives
                .into_iter()
                .take(MAX_ALTERNATIVES)
                .filter_map(|record| SignedPeerRecord::verify(&record).ok())
                .collect(),
        },
        None => PeerAnswer::Reject {
            reason: RejectReason::Other(0),
            detail: "the answer holds no verdict that this version knows".to_owned(),
            retry_after: None,
            alternatives: Vec::new(),
        },
    }
}

/// A peer's text, fit for a terminal: cut, and without control characters.
pub(crate) fn text(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text.retain(|c| !c.is_control());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_identity::NodeKey;

    #[test]
    fn a_peers_text_is_cut_at_a_character_and_cannot_move_the_cursor() {
        assert_eq!(text("a\u{1b}[2Jb\n".into()), "a[2Jb");
        assert_eq!(text("ü".repeat(100)).len(), 128);
        assert_eq!(text(format!("x{}", "ü".repeat(100))).len(), 127);
    }

    #[test]
    fn a_record_that_comes_back_is_known_and_any_other_is_verified() {
        let (key, records) = (NodeKey::from_seed([7; 32]), Records::new());
        let record = |seq| SignedPeerRecord::sign(&key, seq, &[]).unwrap();
        let (first, second) = (record(1), record(2));
        for sent in [&first, &first, &second, &first] {
            assert_eq!(records.verify(key.peer_id(), sent.as_bytes()).unwrap().seq(), sent.seq());
        }
        let known = first.as_bytes();
        for bit in 0..known.len() * 8 {
            let mut damaged = known.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let verdict = |records: &Records| records.verify(key.peer_id(), &damaged.clone().into()).is_ok();
            assert_eq!(verdict(&records), verdict(&Records::new()), "bit {bit}");
        }
        // What another one sends in this peer's name is no record of the sender, and does not stay.
        let other = NodeKey::from_seed([8; 32]).peer_id();
        assert_eq!(records.verify(other, known).unwrap().peer_id(), key.peer_id());
        assert_eq!(records.table().len(), 1);
    }

    #[test]
    fn only_so_many_records_are_kept_and_no_long_ones() {
        let records = Records::new();
        let addresses: Vec<DialAddress> = (0..30)
            .map(|number| {
                format!("/dns4/{}.example/udp/{}/quic-v1", "n".repeat(40), number + 1).parse().unwrap()
            })
            .collect();
        let key = NodeKey::from_seed([9; 32]);
        let long = SignedPeerRecord::sign(&key, 1, &addresses).unwrap();
        assert!(long.as_bytes().len() > MAX_KEPT_RECORD_BYTES);
        records.verify(key.peer_id(), long.as_bytes()).unwrap();
        assert_eq!(records.table().len(), 0);
        for number in 0..MAX_KEPT_RECORDS as u64 + 10 {
            let mut seed = [1; 32];
            seed[..8].copy_from_slice(&number.to_be_bytes());
            let key = NodeKey::from_seed(seed);
            let record = SignedPeerRecord::sign(&key, 1, &[]).unwrap();
            records.verify(key.peer_id(), record.as_bytes()).unwrap();
        }
        assert_eq!(records.table().len(), MAX_KEPT_RECORDS);
    }

    #[test]
    fn a_hello_lists_as_many_channels_as_it_may_hold() {
        let channel = |number: usize, length: usize| wire::Channel {
            name: format!("/{number:0>length$}"),
            max_message_bytes: u64::MAX,
            bytes_per_second: u64::MAX,
            messages_per_second: u64::MAX,
            class: 3,
        };
        for length in 3..256 {
            let mut hello = wire::Hello { network: "n".repeat(32), ..wire::Hello::default() };
            list_channels(&mut hello, (0..200).map(|number| channel(number, length)));
            let (listed, bytes) = (hello.channels.len(), hello.encoded_len());
            assert!(bytes <= MAX_HELLO_BYTES && listed <= MAX_CHANNELS, "{listed}: {bytes}");
            hello.channels.push(channel(0, length));
            assert!(
                listed == MAX_CHANNELS || hello.encoded_len() > MAX_HELLO_BYTES,
                "{listed} of length {length}"
            );
        }
    }

    #[test]
    fn an_answer_survives_the_wire() {
        let sent = Answer::Reject {
            reason: RejectReason::Full,
            detail: "no place".into(),
            retry_after: Some(Duration::from_secs(30)),
            alternatives: vec![Bytes::from_static(b"not a record")],
        };
        match read_answer(answer(sent)) {
            PeerAnswer::Reject { reason: RejectReason::Full, detail, retry_after, alternatives } => {
                assert_eq!((detail.as_str(), retry_after), ("no place", Some(Duration::from_secs(30))));
                assert!(alternatives.is_empty(), "a record without a valid signature is left out");
            }
            other => panic!("{other:?}"),
        }
        for stay in [false, true] {
            let read = read_answer(answer(Answer::Accept { order: 5, stay }));
            assert!(matches!(read, PeerAnswer::Accept { order: 5, stay: read } if read == stay));
        }
        let unknown = wire::Answer { verdict: None };
        assert!(matches!(read_answer(unknown), PeerAnswer::Reject { reason: RejectReason::Other(0), .. }));
    }

    /// However many alternatives may be named, the dialler can read the refusal.
    #[test]
    fn a_refusal_names_no_more_alternatives_than_its_reader_takes() {
        let alternatives = vec![Bytes::from(vec![1; 8000]); 100];
        let (reason, detail) = (RejectReason::Full, String::new());
        let sent = answer(Answer::Reject { reason, detail, retry_after: None, alternatives });
        let Some(Verdict::Reject(reject)) = &sent.verdict else { panic!("{sent:?}") };
        assert_eq!(reject.alternatives.len(), MAX_ANSWER_BYTES / 8003);
        assert!(sent.encoded_len() <= MAX_ANSWER_BYTES);
    }

    /// without a common version there is a refusal with that reason.
    #[test]
    fn the_highest_common_version_is_taken_and_none_is_a_refusal() {
        assert_eq!(common_version(&[1, 2, 3]), Some(2));
        assert_eq!(common_version(&[1]), Some(1));
        assert_eq!(common_version(&[7]), None);
        assert_eq!(common_version(&[]), None);
    }
}
