//! `/peerage/exchange/1`: asking a connected peer whom else it knows.

use std::time::Duration;

use bytes::Bytes;
use peerage_identity::SignedPeerRecord;
use peerage_peers::{ConnId, Input, Penalty};
use peerage_transport::{ReadError, Stream, StreamCode};
use peerage_wire::exchange::{Ask, Peers};
use peerage_wire::frame::FrameError;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::driver::Message;
use crate::peer::Peer;

/// The protocol's name.
pub(crate) const PROTOCOL: &str = "/peerage/exchange/1";
/// The longest answer that is sent or read, in bytes.
pub(crate) const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// The longest question that is read, in bytes.
pub(crate) const MAX_ASK_BYTES: usize = 64;
/// How long each side may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Answers a peer's question.
pub(crate) async fn serve(peer: &Peer, mut stream: Stream) {
    let asked = tokio::time::timeout(DEADLINE, stream.recv.read_message::<Ask>(MAX_ASK_BYTES)).await;
    let Ok(Ok(Some(ask))) = asked else { return stream.send.reset(StreamCode::ProtocolViolation) };
    let (reply, answer) = oneshot::channel();
    let question = Message::Exchange { asker: peer.id, most: ask.most as usize, reply };
    if peer.shared.to_driver.send(question).await.is_err() {
        return;
    }
    match answer.await {
        Ok(Some(records)) => {
            let _ = stream.send.write_frame(&fitting(records)).await;
            let _ = stream.send.finish();
        }
        _ => stream.send.reset(StreamCode::Overloaded),
    }
}

/// As many of the records as the other side reads.
fn fitting(records: Vec<Bytes>) -> Peers {
    let mut answer = Peers { records };
    while answer.encoded_len() > MAX_ANSWER_BYTES && answer.records.pop().is_some() {}
    answer
}

/// Asks a peer for so many records at most and hands what it says to the peer manager.
pub(crate) async fn ask(peer: &Peer, most: usize) {
    match tokio::time::timeout(DEADLINE, question(peer, most)).await {
        Ok(Ok(records)) => {
            tracing::debug!(peer = %peer.id, count = records.len(), "the peer told us of others");
            let learned = Input::Learned { conn: ConnId(peer.connection.id().0), records };
            let _ = peer.shared.to_driver.send(Message::Input(learned)).await;
        }
        Ok(Err(Refusal { detail, penalty })) => {
            tracing::debug!(peer = %peer.id, detail, "the peer told us of nobody");
            if let Some(penalty) = penalty {
                let penalise = Input::Penalise { peer: peer.id, penalty };
                let _ = peer.shared.to_driver.send(Message::Input(penalise)).await;
            }
        }
        Err(_) => tracing::debug!(peer = %peer.id, "the peer did not tell us of others in time"),
    }
}

/// Why no answer was taken, and what that costs the peer.
struct Refusal {
    detail: String,
    penalty: Option<Penalty>,
}

impl Refusal {
    fn new(detail: &dyn ToString, penalty: Option<Penalty>) -> Self {
        Self { detail: detail.to_string(), penalty }
    }
}

async fn question(peer: &Peer, most: usize) -> Result<Vec<SignedPeerRecord>, Refusal> {
    let opened = peer.connection.open_lazy(PROTOCOL).await;
    let mut stream = opened.map_err(|error| Refusal::new(&error, None))?;
    let sent = stream.send.write_frame(&Ask { most: u32::try_from(most).unwrap_or(u32::MAX) }).await;
    sent.map_err(|error| Refusal::new(&error, None))?;
    let _ = stream.send.finish();
    let answer = stream.recv.read_message::<Peers>(MAX_ANSWER_BYTES).await.map_err(|error| {
        let penalty = match &error {
            ReadError::Frame(FrameError::TooLarge { .. }) => Some(Penalty::Unsolicited),
            ReadError::Frame(FrameError::Truncated) => None,
            ReadError::Frame(_) => Some(Penalty::Malformed),
            _ => None,
        };
        Refusal::new(&error, penalty)
    })?;
    let answer = answer.ok_or_else(|| Refusal::new(&"no answer", None))?;
    let records = records(answer, most).map_err(|error| Refusal::new(&error, Some(Penalty::Unsolicited)))?;
    let mut verified = Vec::with_capacity(records.len());
    for record in records {
        // Each node verifies what it stores before it passes it on.
        let verify = SignedPeerRecord::verify(&record);
        verified.push(verify.map_err(|error| Refusal::new(&error, Some(Penalty::BadSignature)))?);
        // Each check costs some 50 µs: let others have the thread in between.
        tokio::task::yield_now().await;
    }
    Ok(verified)
}

/// The records of an answer, not verified yet.
pub(crate) fn records(answer: Peers, most: usize) -> Result<Vec<Bytes>, String> {
    match answer.records.len() {
        count if count > most => Err(format!("{count} records came where {most} were asked for")),
        _ => Ok(answer.records),
    }
}
