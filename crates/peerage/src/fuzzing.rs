//! Doors to the decoders of this crate, for fuzzing. No part of the API: it may change at any time.
//!
//! Each function takes all that a peer says on one stream, behind the negotiated name.

use bytes::Bytes;
use peerage_identity::{PeerId, SignedPeerRecord};
use peerage_peers::{HelloFacts, PeerAnswer};
use peerage_wire::exchange::{Ask, Peers};
use peerage_wire::frame::{Decoder, FrameError};
use prost::Message;

use crate::protocols::{exchange, identify};
use crate::{About, MAX_REQUEST_BYTES, RequestError, hello, request};

/// A hello to a node of `network`.
///
/// # Errors
/// In words.
pub fn hello(network: &str, peer: PeerId, said: Bytes) -> Result<(HelloFacts, About), String> {
    Ok(hello::read(network, peer, only(said, hello::MAX_HELLO_BYTES)?))
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
    exchange::records(answer)?.into_iter().map(verify).collect()
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
