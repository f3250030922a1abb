//! What the program itself says to other nodes: a channel for short texts and a request that echoes (`proto/chat.proto`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use peerage::{Channel, ChannelConfig, Node, PeerId, RegisterError, To};
use peerage_wire::chat::{Chat, EchoRequest, EchoResponse};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::control::{Answer, Event};

/// The channel for short texts.
const CHAT: &str = "/peerage/chat/1";
/// The request that echoes.
pub(super) const ECHO: &str = "/peerage/echo/1";
/// The longest text, in bytes; what is longer is refused here and cut when it comes from elsewhere.
pub(super) const MAX_TEXT_BYTES: usize = 4096;
/// The largest message of the channel: a text, our name before it, and the numbers.
const MAX_MESSAGE_BYTES: usize = 2 * MAX_TEXT_BYTES;
/// How long the answers to one text, or to a request, are waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Answers to one text that may wait to be looked at; each peer has one that counts.
const MAX_WAITING_ANSWERS: usize = 1024;

/// The node's side of the channel.
#[derive(Debug)]
pub(super) struct Chatting {
    channel: Channel<Chat>,
    moniker: String,
    next_id: AtomicU64,
    /// Who waits for answers to which text.
    waiting: Mutex<HashMap<u64, mpsc::Sender<PeerId>>>,
}

impl Chatting {
    /// Declares the channel and serves the request.
    pub(super) fn start(node: &Node, moniker: &str) -> Result<Arc<Self>, RegisterError> {
        let bytes = 256 * MAX_MESSAGE_BYTES;
        let config = ChannelConfig::new(CHAT).max_message_bytes(MAX_MESSAGE_BYTES);
        let channel = node.channel(config.send_queue(bytes, 1024).receive_queue(bytes, 1024))?;
        let name = moniker.to_owned();
        node.serve(ECHO, move |_, request: EchoRequest| {
            let moniker = name.clone();
            async move { Ok(EchoResponse { text: request.text, moniker }) }
        })?;
        Ok(Arc::new(Self {
            channel,
            moniker: moniker.to_owned(),
            next_id: AtomicU64::new(1),
            waiting: Mutex::default(),
        }))
    }

    /// Answers texts and passes answers on until the node has stopped.
    pub(super) async fn listen(self: Arc<Self>, events: broadcast::Sender<Event>) {
        while let Some((peer, chat)) = self.channel.recv().await {
            if chat.reply_to != 0 {
                if let Some(waiting) = self.lock().get(&chat.reply_to) {
                    // A peer that answers that often has no answer left that counts.
                    let _ = waiting.try_send(peer);
                }
                continue;
            }
            if chat.wants_reply {
                self.answer(peer, &chat);
            }
            let text = clip(&chat.text).to_owned();
            let _ = events.send(Event::Message { from: peer.to_string(), text });
        }
    }

    /// Sends a text to all connected peers, or to some, and waits until each has answered, failed, or let the time pass.
    pub(super) async fn ask(&self, peers: &BTreeSet<PeerId>, text: &str) -> Vec<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (to_us, mut answers) = mpsc::channel(MAX_WAITING_ANSWERS);
        self.lock().insert(id, to_us);
        let _forget = Forget { chatting: self, id };
        let start = Instant::now();
        let message = Chat { id, text: text.to_owned(), wants_reply: true, reply_to: 0 };
        let mut verdicts =
            Box::pin(self.channel.broadcast_to(To::These(peers.iter().copied().collect()), &message));
        let (mut sent, mut open, mut known) = (false, peers.clone(), BTreeMap::new());
        while !open.is_empty() {
            tokio::select! {
                verdicts = &mut verdicts, if !sent => {
                    sent = true;
                    for (peer, error) in verdicts.into_iter().filter_map(|(peer, verdict)| Some((peer, verdict.err()?))) {
                        if open.remove(&peer) {
                            known.insert(peer, Err(error.to_string()));
                        }
                    }
                }
                Some(peer) = answers.recv() => {
                    if open.remove(&peer) {
                        known.insert(peer, Ok(start.elapsed()));
                    }
                }
                () = sleep_until(start + PATIENCE) => break,
            }
        }
        let late =
            open.into_iter().map(|peer| (peer, Err(format!("no answer within {} s", PATIENCE.as_secs()))));
        known.extend(late);
        known.into_iter().map(|(peer, answer)| Answer::new(peer.to_string(), answer)).collect()
    }

    fn answer(&self, peer: PeerId, chat: &Chat) {
        let text = clip(&format!("{}: {}", self.moniker, chat.text)).to_owned();
        let answer = Chat { id: 0, text, wants_reply: false, reply_to: chat.id };
        // One peer that does not read its answers must not hold up the others.
        if let Err(error) = self.channel.try_send(peer, &answer) {
            tracing::debug!(%peer, %error, "a text could not be answered");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<PeerId>>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Ends the waiting for answers to one text.
struct Forget<'a> {
    chatting: &'a Chatting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.chatting.lock().remove(&self.id);
    }
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}
