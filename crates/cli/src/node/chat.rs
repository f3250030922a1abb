//! What the program itself says to other nodes: a channel for short texts and a request that echoes (`proto/chat.proto`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use peerage::{Channel, ChannelConfig, Node, Overflow, PeerId, RegisterError, Request, ServeConfig, To};
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

/// The limits of the channel.
#[derive(Debug, Clone)]
pub(crate) struct ChatLimits {
    pub(crate) send_queue_bytes: usize,
    pub(crate) send_queue_messages: usize,
    pub(crate) receive_queue_bytes: usize,
    pub(crate) receive_queue_messages: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) messages_per_second: Option<u64>,
    /// How long a message waits for room; zero to be refused at once.
    pub(crate) wait: Duration,
    pub(crate) linger: Duration,
}

impl Default for ChatLimits {
    fn default() -> Self {
        let any = ChannelConfig::new(CHAT);
        let bytes = 256 * MAX_MESSAGE_BYTES;
        Self {
            send_queue_bytes: bytes,
            send_queue_messages: 1024,
            receive_queue_bytes: bytes,
            receive_queue_messages: 1024,
            memory_bytes: any.memory_bytes,
            bytes_per_second: any.rate.bytes_per_second,
            messages_per_second: any.rate.messages_per_second,
            wait: Duration::from_secs(30),
            linger: any.linger,
        }
    }
}

impl ChatLimits {
    fn config(&self) -> ChannelConfig {
        let mut config = ChannelConfig::new(CHAT)
            .max_message_bytes(MAX_MESSAGE_BYTES)
            .send_queue(self.send_queue_bytes, self.send_queue_messages)
            .receive_queue(self.receive_queue_bytes, self.receive_queue_messages)
            .memory_bytes(self.memory_bytes)
            .overflow(if self.wait.is_zero() { Overflow::Refuse } else { Overflow::Wait(self.wait) })
            .linger(self.linger);
        config.rate.bytes_per_second = self.bytes_per_second;
        config.rate.messages_per_second = self.messages_per_second;
        config
    }
}

/// The node's side of the channel.
#[derive(Debug)]
pub(super) struct Chatting {
    channel: Channel<Chat>,
    moniker: String,
    next_id: AtomicU64,
    /// Who waits for answers to which text.
    waiting: Mutex<BTreeMap<u64, mpsc::Sender<PeerId>>>,
}

impl Chatting {
    /// Declares the channel and serves the request.
    pub(super) fn start(
        node: &Node,
        moniker: &str,
        chat: &ChatLimits,
        serve: &ServeConfig,
    ) -> Result<Arc<Self>, RegisterError> {
        let channel = node.channel(chat.config())?;
        let name = moniker.to_owned();
        node.serve_with(ECHO, serve.clone(), move |request: Request<EchoRequest>| {
            let moniker = name.clone();
            async move { Ok(EchoResponse { text: request.body.text, moniker }) }
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
                biased;
                () = sleep_until(start + PATIENCE) => break,
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, mpsc::Sender<PeerId>>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// each setting of the chat is one of its channel; that those hold is proved where channels are.
    #[test]
    fn every_limit_of_the_chat_is_one_of_its_channel() {
        let seconds = Duration::from_secs;
        let limits = ChatLimits {
            send_queue_bytes: 100_001,
            send_queue_messages: 102,
            receive_queue_bytes: 100_003,
            receive_queue_messages: 104,
            memory_bytes: 1_000_005,
            bytes_per_second: Some(10_006),
            messages_per_second: Some(107),
            wait: seconds(8),
            linger: seconds(9),
        };
        let config = limits.config();
        assert_eq!((config.send_queue_bytes, config.send_queue_messages), (100_001, 102));
        assert_eq!((config.receive_queue_bytes, config.receive_queue_messages), (100_003, 104));
        assert_eq!((config.memory_bytes, config.linger), (1_000_005, seconds(9)));
        let rate = (config.rate.bytes_per_second, config.rate.messages_per_second);
        assert_eq!(rate, (Some(10_006), Some(107)));
        assert_eq!(config.overflow, Overflow::Wait(seconds(8)));
        let at_once = ChatLimits { wait: Duration::ZERO, ..limits };
        assert_eq!(at_once.config().overflow, Overflow::Refuse);
    }
}
