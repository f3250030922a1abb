//! What came in on one channel, from all peers, until the application takes it.
//!
//! A reader that finds no room waits, so its stream's flow control stops the peer: backpressure reaches the sender, and only on
//! this channel.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use peerage_identity::PeerId;
use tokio::sync::{Notify, Semaphore};

use super::ChannelConfig;

/// A bounded queue of received messages.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    news: Notify,
    space: Semaphore,
    capacity: u32,
    min_cost: usize,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<(PeerId, Bytes)>,
    /// Room that was taken out and is given back in one go.
    owed: usize,
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(config: &ChannelConfig) -> Self {
        let capacity = config.receive_queue_cost();
        Self {
            state: Mutex::default(),
            news: Notify::new(),
            space: Semaphore::new(capacity as usize),
            capacity,
            min_cost: config.min_cost(config.receive_queue_bytes, config.receive_queue_messages),
        }
    }

    /// For readers: waits for room and adds messages of one peer. False when the channel is gone.
    pub(crate) async fn push(&self, peer: PeerId, messages: &mut Vec<Bytes>) -> bool {
        let mut rest = messages.drain(..).peekable();
        while let Some(first) = rest.next() {
            let mut cost = self.cost(&first);
            let Ok(permits) = self.space.acquire_many(cost).await else { return false };
            permits.forget();
            let mut state = self.lock();
            state.messages.push_back((peer, first));
            while let Some(next) = rest.peek() {
                cost = self.cost(next);
                let Ok(permits) = self.space.try_acquire_many(cost) else { break };
                permits.forget();
                state.messages.extend(rest.next().map(|next| (peer, next)));
            }
            drop(state);
            self.news.notify_one();
        }
        true
    }

    /// The next message, in the order of arrival; `None` after [`Inbox::close`] when all were taken.
    pub(crate) async fn recv(&self) -> Option<(PeerId, Bytes)> {
        loop {
            {
                let mut state = self.lock();
                if let Some((peer, message)) = state.messages.pop_front() {
                    state.owed += self.cost(&message) as usize;
                    let more = !state.messages.is_empty();
                    if !more || state.owed >= self.capacity as usize / 4 {
                        self.space.add_permits(std::mem::take(&mut state.owed));
                    }
                    drop(state);
                    if more {
                        // Another receiver may be waiting for what is left.
                        self.news.notify_one();
                    }
                    return Some((peer, message));
                }
                if state.closed {
                    self.news.notify_one();
                    return None;
                }
            }
            self.news.notified().await;
        }
    }

    /// No more messages are taken in; those that are there can still be received.
    pub(crate) fn close(&self) {
        self.space.close();
        self.lock().closed = true;
        self.news.notify_one();
    }

    fn cost(&self, message: &Bytes) -> u32 {
        u32::try_from(message.len().max(self.min_cost)).unwrap_or(u32::MAX).min(self.capacity)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn inbox() -> Arc<Inbox> {
        let mut config = ChannelConfig::new("/test/1");
        config.receive_queue_bytes = 100;
        config.receive_queue_messages = 4;
        Arc::new(Inbox::new(&config))
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_while_the_queue_is_full_and_nothing_is_lost_or_reordered() {
        let inbox = inbox();
        let peer = peerage_identity::NodeKey::generate().peer_id();
        let reader = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.push(peer, &mut (0..20).map(|n| Bytes::from(vec![n])).collect()).await }
        });
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(!reader.is_finished());
        assert_eq!(inbox.lock().messages.len(), 4);
        for n in 0..20 {
            assert_eq!(inbox.recv().await.unwrap().1, vec![n]);
        }
        assert!(reader.await.unwrap());
    }

    #[tokio::test]
    async fn after_the_close_the_rest_is_delivered_and_then_nothing() {
        let inbox = inbox();
        assert!(
            inbox
                .push(peerage_identity::NodeKey::generate().peer_id(), &mut vec![Bytes::from_static(b"last")])
                .await
        );
        inbox.close();
        assert_eq!(inbox.recv().await.unwrap().1, "last");
        assert!(inbox.recv().await.is_none());
        assert!(inbox.recv().await.is_none());
        assert!(
            !inbox
                .push(peerage_identity::NodeKey::generate().peer_id(), &mut vec![Bytes::from_static(b"no")])
                .await
        );
    }
}
