//! Doors to the decoders of this crate, for fuzzing and for the micro-benchmarks. No part of the API: it may change at any time.
//!
//! Each function that decodes takes all that a peer says on one stream, behind the negotiated name.

use bytes::Bytes;
use peerage_identity::{DialAddress, NetworkSecret, PeerId, SignedPeerRecord};
use peerage_machine::Now;
use peerage_peers::{BookEntry, HelloFacts, PeerAnswer};
use peerage_wire::channel::Account;
use peerage_wire::exchange::{Ask, Peers};
use peerage_wire::frame::{self, Decoder, FrameError};
use peerage_wire::hello::Hello;
use prost::Message;
use tokio::sync::oneshot;

use crate::channel::{ChannelCore, EndedBy, Next, Outbox, Queue, run_of};
use crate::dht::codec as dht;
use crate::memory::Budget;
use crate::protocols::{exchange, identify};
use crate::seed_file::BadLine;
use crate::{
    About, ChannelConfig, MAX_REQUEST_BYTES, Raw, RequestError, SendError, Verdict, book, hello, request,
    secret, seed_file,
};

/// A hello to a node of `network`.
///
/// # Errors
/// In words.
pub fn hello(network: &str, peer: PeerId, said: Bytes) -> Result<(HelloFacts, About), String> {
    Ok(hello::read(network, peer, only(said, hello::MAX_HELLO_BYTES)?, &hello::Records::new()))
}

/// An answer to our hello.
///
/// # Errors
/// In words.
pub fn hello_answer(said: Bytes) -> Result<PeerAnswer, String> {
    Ok(hello::read_answer(only(said, hello::MAX_ANSWER_BYTES)?))
}

/// What `peer` says about itself by identify; `None` when it names another key.
///
/// # Errors
/// In words.
pub fn identify(peer: PeerId, said: Bytes) -> Result<Option<About>, String> {
    let mut decoder = Decoder::new(identify::MAX_READ_BYTES);
    decoder.push(said);
    let mut messages = identify::Messages::default();
    while let Some(message) = decoder.next_message().map_err(|error| error.to_string())? {
        messages.add(message)?;
    }
    decoder.finish().map_err(|error| error.to_string())?;
    let mut about = About::default();
    Ok(identify::describe(peer, messages.merged()?, &mut about).then_some(about))
}

/// How many peers a peer asks for.
///
/// # Errors
/// In words.
pub fn exchange_ask(said: Bytes) -> Result<u32, String> {
    only(said, exchange::MAX_ASK_BYTES).map(|ask: Ask| ask.most)
}

/// Whom a peer tells us of.
///
/// # Errors
/// In words.
pub fn exchange_answer(said: Bytes) -> Result<Vec<SignedPeerRecord>, String> {
    let answer: Peers = only(said, exchange::MAX_ANSWER_BYTES)?;
    let verify = |record| SignedPeerRecord::verify(&record).map_err(|error| error.to_string());
    exchange::records(answer, peerage_peers::PeersConfig::default().max_exchange_records)?
        .into_iter()
        .map(verify)
        .collect()
}

/// A peer's question to the DHT.
///
/// # Errors
/// In words.
pub fn dht_question(said: Bytes, extras: bool) -> Result<peerage_dht::Query, String> {
    dht::read_question(only(said, dht::MAX_QUESTION_BYTES)?, extras).map_err(|error| error.to_string())
}

/// A question as it is asked.
pub fn dht_asked(query: &peerage_dht::Query, extras: bool) -> Bytes {
    frame::encode(&dht::question(query, extras, std::time::Duration::ZERO))
}

/// A peer's answer to a question of ours.
///
/// # Errors
/// In words.
pub fn dht_answer(
    query: &peerage_dht::Query,
    said: Bytes,
    extras: bool,
) -> Result<peerage_dht::Answer, String> {
    let message = only(said, dht::MAX_ANSWER_BYTES)?;
    dht::read_answer(query, message, extras).map_err(|error| error.to_string())
}

/// An answer as it is given, where there is one.
pub fn dht_answered(query: &peerage_dht::Query, answer: &peerage_dht::Answer, extras: bool) -> Option<Bytes> {
    let message = dht::answer(query, answer, extras, std::time::Duration::ZERO)?;
    Some(frame::encode(&message))
}

/// A peer's answers to a request, one by one.
///
/// # Errors
/// In words, after what was read before.
pub fn answers(peer: PeerId, mut said: Bytes) -> Vec<Result<Result<Bytes, RequestError>, String>> {
    let mut answers = Vec::new();
    while !said.is_empty() && answers.last().is_none_or(|last| matches!(last, Ok(Ok(_)))) {
        let pair = first(said.clone(), request::MAX_STATUS_BYTES).and_then(|(status, rest)| {
            let (body, rest) = first(rest, MAX_REQUEST_BYTES)?;
            said = rest;
            Ok((status, body))
        });
        let answer = pair.map_err(|error| error.to_string()).and_then(|(status, body)| {
            let read = request::read_pair(&status, body)?;
            Ok(read.map_err(|error| request::refusal(peer, "/fuzz/1", error)))
        });
        answers.push(answer);
    }
    answers
}

/// A request: its bytes, and the deadline and the window that the caller names.
///
/// # Errors
/// In words.
pub fn request(said: Bytes) -> Result<(Bytes, u32, u32), String> {
    let (body, rest) = first(said, MAX_REQUEST_BYTES).map_err(|error| error.to_string())?;
    let options = match rest.is_empty() {
        true => None,
        false => Some(first(rest, request::MAX_OPTIONS_BYTES).map_err(|error| error.to_string())?.0),
    };
    let options = request::read_options(options).map_err(|error| error.to_string())?;
    Ok((body, options.deadline_ms, options.window_bytes))
}

/// What is inside a hello that holds sealed ones: said by somebody without the secret, and by somebody with it who sealed these bytes.
pub fn sealed_hello(peer: PeerId, said: &Bytes) -> [Option<Hello>; 2] {
    let Ok(secret) = NetworkSecret::new("a secret that nobody should use") else { return [None, None] };
    let binding = secret::Binding::new(&[0; 32], peer, peer, true);
    let open = |hello: &Hello| secret::open(std::slice::from_ref(&secret), &binding, hello);
    let stranger = only(said.clone(), secret::MAX_SEALED_BYTES).ok().and_then(|hello| open(&hello));
    let insider = Hello {
        sealed: vec![secret::seal_one(&secret, &binding, [0; 12], said.to_vec())],
        ..Hello::default()
    };
    [stranger, open(&insider)]
}

/// What a channel makes of a peer's accounts.
#[derive(Debug, Default)]
pub struct Accounted {
    /// Messages that were queued, each with somebody who waits to hear of it.
    pub queued: usize,
    /// What they heard.
    pub verdicts: Vec<Verdict>,
    /// Messages that count as delivered, lost, and unknown.
    pub counts: [u64; 3],
    /// Bytes that are still accounted for in the end.
    pub held: usize,
    /// Why the peer was not listened to any longer.
    pub fault: Option<String>,
}

/// A channel on which messages are queued and written by pieces, while the peer accounts for them; then the connection breaks.
pub fn accounts(peer: PeerId, said: Bytes) -> Accounted {
    let budget = Budget::new("fuzz_bytes", 1 << 20);
    let core = ChannelCore::new(ChannelConfig::new("/fuzz/1"));
    let (budgets, opening) = ([budget.clone()].into(), std::time::Duration::from_secs(6));
    let outbox = Outbox::new(peer, core.clone(), true, None, budgets, opening, Now::ZERO);
    let mut told = Accounted::default();
    let mut receipts = Vec::new();
    for length in (0..40usize).map(|number| number * 37) {
        let (reply, receipt) = oneshot::channel();
        if outbox.try_push(&Raw(vec![0; length].into()), Some(reply)).is_ok() {
            receipts.push(receipt);
        }
    }
    told.queued = receipts.len();
    let mut decoder = Decoder::new(512);
    decoder.push(said);
    let mut share = 0;
    loop {
        share = (share + 977) % 5000;
        let mut out = Vec::new();
        let next = outbox.next(share, Now::ZERO, &mut out);
        let heard = match decoder.next_message::<Account>() {
            Ok(Some(account)) => outbox.hear(&account, Now::ZERO).map_err(str::to_owned),
            Ok(None) => Err(String::new()),
            Err(error) => Err(error.to_string()),
        };
        if let Next::Write(taken) = next {
            let all = if heard.is_ok() { taken.bytes } else { taken.bytes / 2 };
            outbox.written(taken, all, &out);
        }
        if let Err(fault) = heard {
            told.fault = Some(fault).filter(|fault| !fault.is_empty());
            break;
        }
    }
    let waiting = outbox.end(&SendError::Closed, EndedBy::Break);
    let left = outbox.settle(&SendError::Closed, EndedBy::Break);
    let delivered = core.counts.delivered.load(std::sync::atomic::Ordering::Relaxed);
    told.counts = [delivered, waiting + left.lost, left.unknown];
    told.verdicts = receipts.iter_mut().filter_map(|receipt| receipt.try_recv().ok()).collect();
    told.held = budget.used();
    told
}

/// A channel's queue of framed messages.
#[derive(Debug, Default)]
pub struct ChannelQueue(Queue);

impl ChannelQueue {
    /// Adds a message for one peer.
    pub fn push(&mut self, message: &Raw) {
        self.0.push(message);
    }

    /// Takes at most so many bytes: the pieces of a write, and how many messages end in them.
    pub fn take(&mut self, most_bytes: usize) -> (Vec<Bytes>, usize) {
        let mut pieces = Vec::new();
        let taken = self.0.take(most_bytes, usize::MAX, &mut pieces);
        (pieces, taken.messages)
    }
}

/// The whole messages in what was read of a channel's stream.
///
/// # Errors
/// In words.
pub fn channel_run(read: &Bytes) -> Result<impl Iterator<Item = Bytes>, String> {
    run_of(read, MAX_REQUEST_BYTES)
}

/// The seeds of a file, and its bad lines.
pub fn seed_list(text: &str) -> (Vec<DialAddress>, Vec<BadLine>) {
    seed_file::parse(text)
}

/// The entries of an exported address book.
///
/// # Errors
/// In words.
pub fn exported_book(json: &str) -> Result<Vec<BookEntry>, String> {
    book::read(json).map_err(|error| error.to_string())
}

/// The one message of a stream.
fn only<M: Message + Default>(said: Bytes, most: usize) -> Result<M, String> {
    M::decode(first(said, most).map_err(|error| error.to_string())?.0).map_err(|error| error.to_string())
}

/// The first message's bytes, and what lies behind it.
fn first(said: Bytes, most: usize) -> Result<(Bytes, Bytes), FrameError> {
    let mut decoder = Decoder::new(most);
    decoder.push(said);
    let frame = decoder.next_frame()?.ok_or(FrameError::Truncated)?;
    Ok((frame, decoder.into_rest().into_iter().flatten().collect()))
}
