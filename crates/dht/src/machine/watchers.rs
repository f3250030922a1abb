//! Those who want to be told when what stands under a key changes (AL-54): their questions are kept until it does, or until their time is up.
//!
//! Only a question about something that is here is kept, and only while the one who asks has seen all of it. It counts in the rates when it is asked, its answer's bytes
//! when it is answered, so that waiting costs others nothing that asking again and again would not. Who waits is bounded, for the node and for each peer; one
//! question too many is answered at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use super::serve::trim;
use super::{Dht, Mode, Output, QueryId};
use crate::message::digest_of;
use crate::{Answer, Key, Query, Refusal, Status, Target};

/// The questions that are kept.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    kept: BTreeMap<QueryId, Watcher>,
    by_key: BTreeMap<Key, BTreeSet<QueryId>>,
    by_peer: BTreeMap<PeerId, BTreeSet<QueryId>>,
    due: BTreeSet<(Duration, QueryId)>,
}

#[derive(Debug)]
struct Watcher {
    from: PeerId,
    target: Target,
    /// What it has seen.
    known: [u8; 32],
    until: Duration,
}

impl Watchers {
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// When the first has waited for long enough.
    pub(super) fn first_due(&self) -> Option<Duration> {
        self.due.first().map(|(until, _)| *until)
    }

    fn of_peer(&self, peer: &PeerId) -> usize {
        self.by_peer.get(peer).map_or(0, BTreeSet::len)
    }

    fn insert(&mut self, query: QueryId, watcher: Watcher) {
        self.by_key.entry(*watcher.target.key()).or_default().insert(query);
        self.by_peer.entry(watcher.from).or_default().insert(query);
        self.due.insert((watcher.until, query));
        self.kept.insert(query, watcher);
    }

    fn remove(&mut self, query: QueryId) -> Option<Watcher> {
        let watcher = self.kept.remove(&query)?;
        self.due.remove(&(watcher.until, query));
        leave(&mut self.by_key, watcher.target.key(), query);
        leave(&mut self.by_peer, &watcher.from, query);
        Some(watcher)
    }
}

/// Takes a question out of those of a key or a peer.
fn leave<K: Ord>(index: &mut BTreeMap<K, BTreeSet<QueryId>>, key: &K, query: QueryId) {
    if let Some(queries) = index.get_mut(key) {
        queries.remove(&query);
        if queries.is_empty() {
            index.remove(key);
        }
    }
}

impl Dht {
    /// Keeps a question that asks for that, if nothing has changed since its sender last heard of it and there is room. Says whether it is kept.
    pub(super) fn keep_question(&mut self, now: Now, query: QueryId, from: &PeerId, ask: &Query) -> bool {
        let Query::GetValue { target, cursor: None, wait: Some(wait) } = ask else { return false };
        let limits = &self.config.serve;
        let time = Duration::from_secs(wait.seconds.into()).min(limits.watch_most);
        let full =
            self.watchers.len() >= limits.watchers || self.watchers.of_peer(from) >= limits.watchers_per_peer;
        if time.is_zero() || full {
            return false;
        }
        let values = self.shown(now, target, from);
        if values.is_empty() || digest_of(&values) != wait.known {
            return false;
        }
        let watcher =
            Watcher { from: *from, target: target.clone(), known: wait.known, until: now.mono + time };
        self.follow(target.key());
        self.watchers.insert(query, watcher);
        true
    }

    /// Whoever asked this doesn't wait any more.
    pub(super) fn on_withdrawn(&mut self, query: QueryId) {
        if self.watchers.kept.contains_key(&query) {
            self.end_wait(query, Answer::default());
        }
    }

    /// A peer has gone, and waits for nothing.
    pub(super) fn forget_watcher(&mut self, peer: &PeerId) {
        let queries = self.watchers.by_peer.get(peer).cloned().unwrap_or_default();
        queries.into_iter().for_each(|query| self.end_wait(query, Answer::default()));
    }

    /// Whether this node serves from now on.
    pub(super) fn on_mode(&mut self, now: Now, mode: Mode) {
        self.mode = mode;
        // Only who serves compares what it holds with its neighbours.
        self.note_due(now);
        if mode == Mode::Client {
            let queries: Vec<QueryId> = self.watchers.kept.keys().copied().collect();
            let refused = Answer::status(Status::Refused(Refusal::NotServed));
            queries.into_iter().for_each(|query| self.end_wait(query, refused.clone()));
        }
    }

    /// Tells those whose time is up that nothing has changed.
    pub(super) fn end_waits(&mut self, now: Now) {
        while let Some((until, query)) = self.watchers.due.first().copied()
            && until <= now.mono
        {
            self.tell(now, query, Answer { waited: true, ..Answer::default() });
        }
    }

    /// Something has changed in the store: those who wait for it are told, and so are operations of this node.
    pub(super) fn tell_changes(&mut self, now: Now) {
        let changed = self.holder.as_mut().map(|holder| holder.take_followed()).unwrap_or_default();
        for key in changed {
            self.look_again(now, &key);
            self.look_at_own(now, &key);
        }
    }

    /// Tells those of one key for whom what they are shown is another now. It is looked up once for all who are shown the same.
    fn look_again(&mut self, now: Now, key: &Key) {
        let mut shown: BTreeMap<bool, (Vec<Bytes>, [u8; 32])> = BTreeMap::new();
        for query in self.watchers.by_key.get(key).cloned().unwrap_or_default() {
            let Some(Watcher { from, target, known, .. }) = self.watchers.kept.get(&query) else { continue };
            let (from, target, known) = (*from, target.clone(), *known);
            let owner = self.holder.as_ref().is_some_and(|holder| holder.is_mailbox_of(&target, &from));
            let (values, digest) = shown.entry(owner).or_insert_with(|| {
                let values = self.shown(now, &target, &from);
                let digest = digest_of(&values);
                (values, digest)
            });
            if *digest != known {
                // What is gone is not told as a change: others may have it still.
                let waited = !values.is_empty();
                let values = values.clone();
                self.tell(now, query, Answer { values, waited, ..Answer::default() });
            }
        }
    }

    /// Answers a kept question, at its sender's expense.
    fn tell(&mut self, now: Now, query: QueryId, mut answer: Answer) {
        trim(&mut answer, self.config.serve.max_answer_bytes);
        if let Some(watcher) = self.watchers.kept.get(&query) {
            let from = watcher.from;
            self.charge(now, &from, answer.wire_bytes());
        }
        self.end_wait(query, answer);
    }

    fn end_wait(&mut self, query: QueryId, answer: Answer) {
        let Some(watcher) = self.watchers.remove(query) else { return };
        self.unfollow(watcher.target.key());
        self.outputs.push_back(Output::Reply { query, answer: Answer { extended: true, ..answer } });
    }

    /// What a reader is shown first of what stands under a key.
    pub(super) fn shown(&mut self, now: Now, target: &Target, reader: &PeerId) -> Vec<Bytes> {
        let (room, most) = (self.room_for_values(), self.config.serve.max_answer_bytes);
        let holder = self.holder.as_mut();
        holder.map(|holder| holder.values(now, target, reader, None, room, most).0).unwrap_or_default()
    }
}
