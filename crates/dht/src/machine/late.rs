//! Answers that come when nobody waits for them any more (AL-31). They tell of their peer; what they hold is kept, where it is ours to keep; and whoever watched the
//! lookup hears of what is newer than what it was given.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use super::requests::{Pending, Purpose};
use super::{Dht, Mode, OperationId, Output, RequestId};
use crate::lookup::{Step, StepKind};
use crate::store::Sender;
use crate::{Answer, MAX_VALUES, Target};

/// For so long after a request was dropped its answer is listened to, and for so long after the end of a lookup its watcher hears of it.
pub(super) const LISTEN: Duration = Duration::from_millis(2500);

/// What is remembered of requests that nobody waits for, and of the lookups that they were for.
#[derive(Debug, Default)]
pub(super) struct Late {
    dropped: VecDeque<(RequestId, Pending)>,
    /// Watched lookups that have ended and may hear more, by the machine's number. Each has a dropped request.
    watched: BTreeMap<u64, Watched>,
}

/// A watched lookup that has ended.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) id: OperationId,
    pub(super) started: Duration,
    pub(super) until: Duration,
    /// How new what its caller has is, by slot.
    pub(super) ranks: BTreeMap<Bytes, Bytes>,
}

impl Late {
    /// So many dropped requests are remembered; the oldest is forgotten first.
    pub(super) const DROPPED: usize = 64;

    /// Remembers a request that was dropped. Another one that is forgotten for it.
    fn remember(&mut self, request: RequestId, pending: Pending) -> Option<Pending> {
        let full = self.dropped.len() >= Self::DROPPED;
        let oldest = full.then(|| self.dropped.pop_front()).flatten();
        self.dropped.push_back((request, pending));
        oldest.map(|(_, pending)| pending)
    }

    fn take(&mut self, request: RequestId) -> Option<Pending> {
        let place = self.dropped.iter().position(|(of, _)| *of == request)?;
        self.dropped.remove(place).map(|(_, pending)| pending)
    }

    /// Whether values may still come for this lookup.
    fn expects(&self, operation: u64) -> bool {
        let of = |pending: &Pending| pending.purpose == Purpose::Walk(operation) && pending.wants.is_some();
        self.dropped.iter().any(|(_, pending)| of(pending))
    }

    /// Whoever listens does so for something that has ended, and as long as something can come; what is remembered is bounded.
    pub(super) fn check(&self, is_under_way: impl Fn(u64) -> bool) -> Result<(), String> {
        if self.dropped.len() > Self::DROPPED {
            return Err(format!("{} dropped requests are remembered", self.dropped.len()));
        }
        match self.watched.keys().find(|operation| is_under_way(**operation) || !self.expects(**operation)) {
            Some(operation) => Err(format!("operation {operation} is listened for in vain")),
            None => Ok(()),
        }
    }

    /// When the first watcher has heard enough.
    pub(super) fn first_due(&self) -> Option<Duration> {
        self.watched.values().map(|watched| watched.until).min()
    }
}

impl Dht {
    /// Whether steps of an operation may follow although it has ended. [`Output::Listened`] says when none does any more.
    pub fn is_listening(&self, operation: OperationId) -> bool {
        self.late.watched.values().any(|watched| watched.id == operation)
    }

    /// Nobody waits for this request any more.
    pub(super) fn note_dropped(&mut self, request: RequestId, pending: Pending) {
        if let Some(Pending { purpose: Purpose::Walk(operation), .. }) = self.late.remember(request, pending)
        {
            self.end_listening(operation);
        }
    }

    /// A watched lookup has ended for its caller.
    pub(super) fn listen_on(&mut self, operation: u64, watched: Watched) {
        if self.late.expects(operation) {
            self.late.watched.insert(operation, watched);
        }
    }

    /// An answer to a request that was dropped. Others that come unasked are left alone.
    pub(super) fn late_answer(
        &mut self,
        now: Now,
        request: RequestId,
        rtt: Duration,
        remote: IpAddr,
        answer: &Answer,
    ) {
        let Some(pending) = self.late.take(request) else { return };
        self.stats.late += 1;
        self.credit(now, &pending, Some(rtt), remote, answer);
        if let (Purpose::Walk(operation), Some(target)) = (pending.purpose, &pending.wants) {
            let newer = self.take_late(now, operation, target, *pending.contact.peer(), remote, answer);
            if let Some(watched) = self.late.watched.get(&operation).filter(|_| newer > 0) {
                let what = StepKind::Later { peer: *pending.contact.peer(), rtt, newer };
                let step = Step { at: now.mono.saturating_sub(watched.started), what };
                self.outputs.push_back(Output::Step { operation: watched.id, step });
            }
            self.end_listening(operation);
            self.note_late(now, operation, &pending.contact, remote, answer);
        }
    }

    /// A request that was dropped came to nothing.
    pub(super) fn late_failure(&mut self, request: RequestId) {
        if let Some(Pending { purpose: Purpose::Walk(operation), .. }) = self.late.take(request) {
            self.end_listening(operation);
        }
    }

    /// Tells those watchers that have listened for long enough.
    pub(super) fn stop_listening(&mut self, now: Now) {
        let outputs = &mut self.outputs;
        self.late.watched.retain(|_, watched| {
            let over = watched.until <= now.mono;
            if over {
                outputs.push_back(Output::Listened { operation: watched.id });
            }
            !over
        });
    }

    /// Keeps what is valid and ours to keep, as if its sender had put it here. How many values are newer than what the watcher of the lookup has.
    fn take_late(
        &mut self,
        now: Now,
        operation: u64,
        target: &Target,
        peer: PeerId,
        remote: IpAddr,
        answer: &Answer,
    ) -> usize {
        let mut newer = 0;
        for value in answer.values.iter().take(MAX_VALUES) {
            let Ok(judged) = self.judge.judge(now, target, value) else { continue };
            if self.mode == Mode::Server {
                self.keep_value(now, Sender::Peer { peer, remote }, target, value);
            }
            if let Some(watched) = self.late.watched.get_mut(&operation)
                && watched.ranks.get(&judged.slot).is_none_or(|known| *known < judged.rank)
            {
                newer += 1;
                watched.ranks.insert(judged.slot, judged.rank);
            }
        }
        newer
    }

    /// Tells the watcher of a lookup when nothing can come any more.
    fn end_listening(&mut self, operation: u64) {
        if !self.late.expects(operation)
            && let Some(watched) = self.late.watched.remove(&operation)
        {
            self.outputs.push_back(Output::Listened { operation: watched.id });
        }
    }
}
