//! The side that is measured, made of what any application has: a stream, two channels, three requests.

use std::sync::Arc;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_peers::{Input, Penalty};
use peerage_transport::{Stream, StreamCode};
use peerage_wire::bench::{CountRequest, CountResponse, RunRequest, RunResponse};
use tokio::time::timeout;

use super::ledger::{Ledger, Left};
use super::{COUNT, COUNT_PATIENCE, ECHO, MAX_ECHO_BYTES, MESSAGES, REQUEST, RUN, STREAM};
use crate::channel::{Channel, ChannelConfig, Overflow, Raw};
use crate::driver::Message;
use crate::error::RegisterError;
use crate::node::Node;
use crate::request::{Request, ServeConfig, ServeError};
use crate::shared::Shared;
use crate::streams::Incoming;

/// Messages that are charged together.
const MAX_BURST: u64 = 1024;

/// Serves all of it on a node that has just been made.
pub(crate) fn start(node: &Node, shared: &Arc<Shared>, ledger: &Arc<Ledger>) -> Result<(), RegisterError> {
    serve_requests(node, ledger)?;
    let incoming = node.accept(STREAM)?;
    shared.spawn(take_streams(shared.clone(), incoming, ledger.clone()));
    let messages = node.channel::<Raw>(ChannelConfig::new(MESSAGES))?;
    shared.spawn(count_messages(shared.clone(), messages, ledger.clone()));
    let echo = ChannelConfig::new(ECHO)
        .max_message_bytes(MAX_ECHO_BYTES)
        .send_queue(256 * 1024, 1024)
        .receive_queue(256 * 1024, 1024)
        .overflow(Overflow::Refuse);
    shared.spawn(send_back(shared.clone(), node.channel::<Raw>(echo)?, ledger.clone()));
    Ok(())
}

fn serve_requests(node: &Node, ledger: &Arc<Ledger>) -> Result<(), RegisterError> {
    let config = || ServeConfig::default().max_bytes(MAX_ECHO_BYTES, MAX_ECHO_BYTES);
    let of = ledger.clone();
    node.serve_with(RUN, config(), move |request: Request<RunRequest>| {
        let answer = of.begin(request.peer).map(|Left { bytes, time }| RunResponse {
            bytes_left: bytes,
            millis_left: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        });
        async move { Ok(answer?) }
    })?;
    let of = ledger.clone();
    node.serve_with(COUNT, config(), move |request: Request<CountRequest>| count(of.clone(), request))?;
    let of = ledger.clone();
    node.serve_with(REQUEST, config(), move |request: Request<Raw>| {
        let charged = of.charge(request.peer, 1, request.body.0.len() as u64);
        async move { Ok(charged.map(|()| request.body)?) }
    })
}

async fn count(ledger: Arc<Ledger>, request: Request<CountRequest>) -> Result<CountResponse, ServeError> {
    ledger.charge(request.peer, 1, 0)?;
    let no_run = || ServeError::denied("the run is over");
    let mut counts = ledger.counts(request.peer).ok_or_else(no_run)?;
    let reached = counts.wait_for(|(messages, _)| *messages >= request.body.messages);
    let _ = timeout(COUNT_PATIENCE, reached).await;
    let (messages, bytes) = *counts.borrow_and_update();
    Ok(CountResponse { messages, bytes })
}

/// Each stream is read by a task of its own; how many a peer has is bounded by the streams that it may have open.
async fn take_streams(shared: Arc<Shared>, incoming: Incoming, ledger: Arc<Ledger>) {
    while let Some((peer, stream)) = incoming.recv().await {
        match ledger.charge(peer, 1, 0) {
            Ok(()) => shared.spawn(drain(peer, stream, ledger.clone())),
            Err(_) => stream.abort(StreamCode::Overloaded),
        }
    }
}

/// Reads a stream to its end and answers with how much that was.
async fn drain(peer: PeerId, mut stream: Stream, ledger: Arc<Ledger>) {
    let (idle, mut total) = (ledger.limits.idle_timeout, 0u64);
    loop {
        let length = match timeout(idle, stream.recv.read_chunk(usize::MAX)).await {
            Ok(Ok(Some(chunk))) => chunk.len() as u64,
            Ok(Ok(None)) => break,
            Ok(Err(_)) => return stream.abort(StreamCode::Cancelled),
            Err(_) => return stream.abort(StreamCode::TimedOut),
        };
        total += length;
        if ledger.charge(peer, 0, length).is_err() {
            return stream.abort(StreamCode::Overloaded);
        }
    }
    let answer = Bytes::copy_from_slice(&total.to_be_bytes());
    if let Ok(Ok(())) = timeout(idle, stream.send.write_chunk(answer)).await {
        let _ = stream.send.finish();
    }
}

/// Counts messages, those of one peer that are there together at once.
async fn count_messages(shared: Arc<Shared>, channel: Channel<Raw>, ledger: Arc<Ledger>) {
    let mut next = channel.recv().await;
    while let Some((peer, first)) = next.take() {
        let (mut messages, mut bytes) = (1, first.0.len() as u64);
        while messages < MAX_BURST {
            match channel.try_recv() {
                Some((from, message)) if from == peer => {
                    messages += 1;
                    bytes += message.0.len() as u64;
                }
                other => {
                    next = other;
                    break;
                }
            }
        }
        match ledger.charge(peer, messages, bytes) {
            Ok(()) => ledger.count(peer, messages, bytes),
            Err(_) => refuse_late(&shared, &ledger, peer, bytes).await,
        }
        if next.is_none() {
            next = channel.recv().await;
        }
    }
}

/// Sends each message back to its sender; when that one does not read, it has lost it.
async fn send_back(shared: Arc<Shared>, channel: Channel<Raw>, ledger: Arc<Ledger>) {
    while let Some((peer, message)) = channel.recv().await {
        let length = message.0.len() as u64;
        match ledger.charge(peer, 1, length) {
            Ok(()) => drop(channel.try_send(peer, &message)),
            Err(_) => refuse_late(&shared, &ledger, peer, length).await,
        }
    }
}

/// A message without a run is passed over. One cannot refuse it, so who goes on for long is penalised.
async fn refuse_late(shared: &Shared, ledger: &Ledger, peer: PeerId, bytes: u64) {
    if ledger.is_too_late(peer, bytes) {
        tracing::debug!(%peer, "messages to be measured came without a run");
        let penalise = Input::Penalise { peer, penalty: Penalty::Unsolicited };
        let _ = shared.to_driver.send(Message::Input(penalise)).await;
    }
}
