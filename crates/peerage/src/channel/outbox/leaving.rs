//! The side of the writer: what may leave now, what has left, and what the peer says that it has taken.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use peerage_machine::Now;
use peerage_wire::channel as wire;

use super::super::limits::ChannelLimits;
use super::super::queue::{Taken, ends_within};
use super::super::verdict::Verdict;
use super::{Next, Outbox, Phase, Place};

/// The most that the writer takes at once, in bytes.
const MAX_TAKE: usize = 256 * 1024;

impl Outbox {
    /// For the writer: what to do next, with `flight` bytes of the connection's share free. What is to be written is put into `out`.
    pub(crate) fn next(&self, flight: usize, now: Now, out: &mut Vec<Bytes>) -> Next {
        let mut state = self.lock();
        if let Phase::Ended(_) = state.phase {
            return Next::Ended;
        }
        if std::mem::take(&mut state.open_wanted) && state.sent.bytes == 0 && state.queue.bytes() == 0 {
            state.proposed = true;
            drop(state);
            self.changed.notify_waiters();
            return Next::Open;
        }
        if state.queue.bytes() == 0 {
            state.queue.forget_left();
            if state.finishing {
                return Next::Finished;
            }
            state.idle = true;
            if std::mem::take(&mut state.writing) {
                state.idle_since = now.mono;
            }
            return Next::Wait { after: None, for_flight: false };
        }
        let credit = usize::try_from(state.limit - state.sent.bytes).unwrap_or(usize::MAX);
        let (mut bytes, mut messages) = (MAX_TAKE.min(credit).min(flight), usize::MAX);
        if !state.pace.is_unlimited() {
            let (at_rate, count) = state.pace.allowance(now);
            (bytes, messages) = (bytes.min(at_rate), count);
        }
        // What is asked for nothing finishes what is being joined all the same.
        let blocked = bytes == 0 || messages == 0;
        let taken = if blocked { Taken::default() } else { state.queue.take(bytes, messages, out) };
        if taken.bytes == 0 {
            state.queue.forget_left();
            state.idle = true;
            let after =
                Some(state.pace.wait(now)).filter(|wait| !state.pace.is_unlimited() && !wait.is_zero());
            return Next::Wait { after, for_flight: flight < credit };
        }
        state.pace.spend(taken.bytes, taken.messages, now);
        state.writing = true;
        state.sent.bytes += taken.bytes as u64;
        state.sent.messages += taken.messages as u64;
        let begun = state.sent.bytes + state.queue.rest() as u64;
        while let Some((ends, _)) = state.queued.front()
            && ends - state.dropped <= begun
            && let Some((ends, reply)) = state.queued.pop_front()
        {
            let ends = ends - state.dropped;
            state.begun.push_back((ends, reply));
        }
        let (waiting, first) = (state.waiting > 0, state.sent.bytes == taken.bytes as u64);
        drop(state);
        if waiting {
            self.room.notify_one();
        }
        if first {
            self.changed.notify_waiters();
        }
        Next::Write(taken)
    }

    /// For the writer: so many bytes of what it took are handed to the connection. All of them, unless the stream is broken.
    pub(crate) fn written(&self, taken: Taken, bytes: usize, pieces: &[Bytes]) {
        let messages =
            if bytes == taken.bytes { taken.messages } else { ends_within(pieces, taken, bytes) } as u64;
        let mut state = self.lock();
        state.written.bytes += bytes as u64;
        state.written.messages += messages;
        if !self.credit {
            state.queue.trim_left(0);
            self.release(&mut state);
        }
        state.queue.forget_buffer();
        drop(state);
        self.core.counts.sent.fetch_add(messages, Ordering::Relaxed);
        self.core.counts.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// For the writer: what the peer's account says. How many bytes were accepted anew.
    pub(crate) fn hear(&self, account: &wire::Account, now: Now) -> Result<usize, &'static str> {
        let mut state = self.lock();
        if account.accepted > state.sent.bytes
            || account.messages > state.sent.messages
            || account.accepted < state.accepted.bytes
            || account.messages < state.accepted.messages
        {
            return Err("it accounts for what was never sent, or takes back what it accepted");
        }
        let (more, messages) =
            (account.accepted - state.accepted.bytes, account.messages - state.accepted.messages);
        state.accepted = Place { bytes: account.accepted, messages: account.messages };
        state.limit = state.limit.max(account.limit);
        if let Some(limits) = &account.limits {
            let limits = ChannelLimits::from_account(&self.core.config.name, limits);
            state.peer_most = limits.max_length();
            state.peer_most_is_old = false;
            state.pace.change(self.core.config.rate.and(limits.rate), 1.0, now);
        }
        while let Some((ends, _)) = state.begun.front()
            && *ends <= account.accepted
            && let Some((_, reply)) = state.begun.pop_front()
        {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Verdict::Delivered);
        }
        let on_their_way = (state.sent.bytes - state.accepted.bytes) as usize;
        state.queue.trim_left(on_their_way);
        self.release(&mut state);
        let (idle, finishing) = (std::mem::take(&mut state.idle), state.finishing);
        drop(state);
        self.core.counts.delivered.fetch_add(messages, Ordering::Relaxed);
        if idle {
            // The writer, which has heard it, looks at once.
            self.work.mark();
        }
        if finishing {
            self.changed.notify_waiters();
        }
        Ok(more as usize)
    }
}
