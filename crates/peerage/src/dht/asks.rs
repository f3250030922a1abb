//! One question to one peer: over the connection that there is, or over one that is made for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use peerage_dht::{Answer, Class, Contact, Failure, Query};
use peerage_peers::{Blame, Input, Penalty};
use peerage_wire::kad;

use super::streams::AskError;
use super::{DhtCore, codec, streams};
use crate::driver::Message;
use crate::peer::Peer;
use crate::shared::Shared;

/// An answer.
pub(crate) struct Got {
    /// From the question to the answer: without the dial, the handshakes and the negotiation before it.
    pub(crate) rtt: Duration,
    /// Where the peer was seen.
    pub(crate) remote: IpAddr,
    pub(crate) answer: Answer,
}

/// Asks a peer and reads its answer; `sent` says when the question is out. Dropping it gives up the stream; a dial that was begun goes on.
pub(crate) async fn carry_out(
    shared: Arc<Shared>,
    core: Arc<DhtCore>,
    contact: Contact,
    query: Query,
    class: Class,
    sent: Arc<AtomicBool>,
) -> Result<Got, Failure> {
    let peer = match shared.peer(contact.peer()) {
        Some(peer) => peer,
        None => visit(&shared, &contact).await?,
    };
    // A visit that is used is not ended for the next one. A driver that has no room now hears of the next question.
    let _ = shared.to_driver.try_send(Message::Input(Input::Used { peer: peer.id }));
    let asked = ask(&core, &peer, &query, class, &sent).await;
    asked.map_err(|error| failed(&peer, &error))
}

async fn ask(
    core: &DhtCore,
    peer: &Arc<Peer>,
    query: &Query,
    class: Class,
    sent: &AtomicBool,
) -> Result<Got, AskError> {
    let extras = !peer.foreign;
    let unsupported = || AskError::NotSupported { peer: peer.id, protocol: core.protocols[0].clone() };
    if codec::needs_extras(query) && !extras {
        return Err(unsupported());
    }
    let names = core.names_to_ask(peer).await;
    if names.is_empty() {
        return Err(unsupported());
    }
    let remote = peer.connection.remote_address().ip();
    let question = codec::question(query, extras, peer.shared.clock.now().unix);
    let answered = codec::is_answered(query, extras);
    let _awaited =
        matches!(query, Query::GetValue { wait: Some(_), .. }).then(|| Awaited::of(&peer.asked().dht_waits));
    let question = streams::Question { message: &question, answered, sent };
    let got = streams::ask(peer, &names, &question, streams::priority(class)).await?;
    let answer = read(query, got.message, extras).map_err(|error| {
        let detail = error.to_string();
        AskError::Malformed { peer: peer.id, protocol: names[0].to_owned(), detail }
    })?;
    Ok(Got { rtt: got.took, remote, answer })
}

/// What a peer says. Where there is no answer, it understands our additions after the question as it did before.
fn read(query: &Query, message: Option<kad::Message>, extras: bool) -> Result<Answer, codec::Malformed> {
    match message {
        Some(message) => codec::read_answer(query, message, extras),
        None => Ok(Answer { extended: extras, ..Answer::default() }),
    }
}

/// An answer that may take its time, and for which the connection is held meanwhile.
struct Awaited<'a>(&'a AtomicUsize);

impl<'a> Awaited<'a> {
    fn of(waits: &'a AtomicUsize) -> Self {
        waits.fetch_add(1, Ordering::Relaxed);
        Self(waits)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects to a peer for a while, within the peer manager's limits for visits.
async fn visit(shared: &Arc<Shared>, contact: &Contact) -> Result<Arc<Peer>, Failure> {
    match shared.visit(*contact.peer(), contact.addresses(), None).await {
        Ok(peer) => shared.peer(&peer).ok_or(Failure::Refused),
        Err(failure) => {
            tracing::trace!(peer = %contact.peer(), detail = failure.detail, "not reached for the DHT");
            Err(match failure.blame() {
                Blame::Local => Failure::Local,
                Blame::Unlucky => Failure::Unreachable,
                Blame::Overloaded | Blame::Hostile => Failure::Refused,
            })
        }
    }
}

fn failed(peer: &Arc<Peer>, error: &AskError) -> Failure {
    tracing::trace!(peer = %peer.id, %error, "the DHT has no answer");
    match error {
        AskError::NotSupported { .. } => Failure::Unsupported,
        AskError::Lost { .. } => Failure::Refused,
        AskError::Malformed { .. } => {
            let penalise = Input::Penalise { peer: peer.id, penalty: Penalty::Malformed };
            // A driver that has no room now hears of the next one.
            let _ = peer.shared.to_driver.try_send(Message::Input(penalise));
            Failure::Broken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_understands_our_additions_does_so_after_a_question_without_an_answer() {
        for extras in [true, false] {
            let answer = read(&Query::Silent { peers: Vec::new() }, None, extras).unwrap();
            assert_eq!(answer, Answer { extended: extras, ..Answer::default() });
        }
    }
}
