//! `/peerage/exchange/1`: asking a connected peer whom else it knows.

use std::time::Duration;

use bytes::Bytes;
use peerage_identity::SignedPeerRecord;
use peerage_peers::Input;
use peerage_transport::{Stream, StreamCode};
use peerage_wire::exchange::{Ask, Peers};
use tokio::sync::oneshot;

use crate::driver::Message;
use crate::peer::Peer;

/// The protocol's name.
pub(crate) const PROTOCOL: &str = "/peerage/exchange/1";
/// Records that we ask for, and that we read at most.
const MAX_RECORDS: u32 = 30;
/// The longest answer that is read, in bytes.
pub(crate) const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// The longest question that is read, in bytes.
pub(crate) const MAX_ASK_BYTES: usize = 64;
/// How long each side may take.
const DEADLINE: Duration = Duration::from_secs(10);

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
            let _ = stream.send.write_frame(&Peers { records }).await;
            let _ = stream.send.finish();
        }
        _ => stream.send.reset(StreamCode::Overloaded),
    }
}

/// Asks a peer and hands what it says to the peer manager.
pub(crate) async fn ask(peer: &Peer) {
    match tokio::time::timeout(DEADLINE, question(peer)).await {
        Ok(Ok(records)) => {
            tracing::debug!(peer = %peer.id, count = records.len(), "the peer told us of others");
            let learned = Input::Learned { from: peer.id, records };
            let _ = peer.shared.to_driver.send(Message::Input(learned)).await;
        }
        Ok(Err(error)) => tracing::debug!(peer = %peer.id, error, "the peer told us of nobody"),
        Err(_) => tracing::debug!(peer = %peer.id, "the peer did not tell us of others in time"),
    }
}

async fn question(peer: &Peer) -> Result<Vec<SignedPeerRecord>, String> {
    let mut stream = peer.connection.open_lazy(PROTOCOL).await.map_err(|error| error.to_string())?;
    let sent = stream.send.write_frame(&Ask { most: MAX_RECORDS }).await;
    sent.map_err(|error| error.to_string())?;
    let _ = stream.send.finish();
    let answer = stream.recv.read_message::<Peers>(MAX_ANSWER_BYTES).await.map_err(|e| e.to_string())?;
    let records = records(answer.ok_or("no answer")?)?;
    let mut verified = Vec::with_capacity(records.len());
    for record in records {
        verified.push(SignedPeerRecord::verify(&record).map_err(|error| error.to_string())?);
        // Each check costs some 50 µs: let others have the thread in between.
        tokio::task::yield_now().await;
    }
    Ok(verified)
}

/// The records of an answer, not verified yet.
pub(crate) fn records(answer: Peers) -> Result<Vec<Bytes>, String> {
    match answer.records.len() {
        count if count > MAX_RECORDS as usize => {
            Err(format!("{count} records came where {MAX_RECORDS} were asked for"))
        }
        _ => Ok(answer.records),
    }
}
