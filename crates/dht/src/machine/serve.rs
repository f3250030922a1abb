//! What others ask of us, and how much of it (dht.md B.7): rates and bytes per peer and for the node, answers below 16 KiB, nothing that amplifies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use peerage_identity::PeerId;
use peerage_machine::{Now, TokenBucket};

use super::{Dht, Mode, Output, QueryId};
use crate::{Answer, Contact, Key, MAX_ANSWER_BYTES, Query, Refusal, ServeConfig, Status, Target};

/// How much of us others may use.
#[derive(Debug)]
pub(super) struct Limiter {
    config: ServeConfig,
    queries: TokenBucket,
    bytes: TokenBucket,
    /// Those who asked lately: queries and bytes of each. Who has asked nothing for a while is forgotten.
    peers: BTreeMap<PeerId, (TokenBucket, TokenBucket)>,
}

impl Limiter {
    pub(super) fn new(config: ServeConfig, now: Now) -> Self {
        let queries = TokenBucket::new(config.node_burst, config.node_per_second, now);
        let bytes = TokenBucket::new(config.node_byte_burst, config.node_bytes_per_second, now);
        Self { config, queries, bytes, peers: BTreeMap::new() }
    }

    /// Whether a query of this peer is answered now.
    fn admits(&mut self, now: Now, from: &PeerId) -> bool {
        if self.peers.len() >= self.config.tracked_peers && !self.peers.contains_key(from) {
            self.peers.retain(|_, (queries, bytes)| !queries.is_full(now) || !bytes.is_full(now));
            if self.peers.len() >= self.config.tracked_peers {
                return false;
            }
        }
        let config = &self.config;
        let (queries, bytes) = self.peers.entry(*from).or_insert_with(|| {
            let queries = TokenBucket::new(config.peer_burst, config.peer_per_second, now);
            (queries, TokenBucket::new(config.peer_byte_burst, config.peer_bytes_per_second, now))
        });
        // Bytes are charged when the answer is known; who owes some waits.
        let owes = bytes.available(now) <= 0.0 || self.bytes.available(now) <= 0.0;
        !owes && self.queries.available(now) >= 1.0 && queries.take(1.0, now) && self.queries.take(1.0, now)
    }

    fn charge(&mut self, now: Now, from: &PeerId, bytes: usize) {
        self.bytes.charge(bytes as f64, now);
        if let Some((_, peer)) = self.peers.get_mut(from) {
            peer.charge(bytes as f64, now);
        }
    }

    /// No bucket owes more than it may: bytes are charged when an answer is known, to whoever owed none when it asked, and once more for each question that was kept.
    pub(super) fn check(&self) -> Result<(), String> {
        let owed = |kept: usize| (1 + kept) as f64 * MAX_ANSWER_BYTES as f64;
        let told = |name: &'static str| move |why: String| format!("{name} for others: {why}");
        self.queries.check(0.0).map_err(told("queries"))?;
        self.bytes.check(owed(self.config.watchers)).map_err(told("bytes"))?;
        let most = owed(self.config.watchers_per_peer);
        self.peers.values().try_for_each(|(queries, bytes)| {
            queries.check(0.0).map_err(told("queries of a peer"))?;
            bytes.check(most).map_err(told("bytes of a peer"))
        })
    }

    pub(super) fn tracked(&self) -> usize {
        self.peers.len()
    }
}

/// Who asks us.
pub(super) struct Asker {
    pub(super) from: PeerId,
    pub(super) remote: IpAddr,
    /// Whether it understands our additions.
    pub(super) extended: bool,
}

impl Asker {
    /// Who knows libp2p's words alone is sent back what it had stored, as the acknowledgement. It stands in the answer, so that its bytes count as all others do.
    fn acknowledge(&self, ask: &Query, answer: &mut Answer) {
        if let (false, Status::Stored, Query::PutValue { value, .. }) = (self.extended, answer.status, ask) {
            answer.values = vec![value.clone()];
        }
    }
}

impl Dht {
    pub(super) fn on_asked(&mut self, now: Now, query: QueryId, asker: &Asker, ask: &Query) {
        let (from, key) = (&asker.from, Key::of_peer(&asker.from));
        self.seen.note(now, &key);
        let answer = if self.mode == Mode::Client {
            Some(Answer::status(Status::Refused(Refusal::NotServed)))
        } else if !self.limiter.admits(now, from) {
            // A few bytes, which nobody is charged for: otherwise a flood of refusals would use up what is there for others.
            self.stats.refused += 1;
            Some(Answer::status(Status::Busy))
        } else if self.keep_question(now, query, from, ask) {
            self.stats.served += 1;
            None
        } else {
            self.stats.served += 1;
            let mut answer = self.serve(now, from, &key, asker.remote, ask);
            asker.acknowledge(ask, &mut answer);
            trim(&mut answer, self.config.serve.max_answer_bytes);
            self.limiter.charge(now, from, answer.wire_bytes());
            Some(answer)
        };
        if let Some(answer) = answer {
            self.outputs.push_back(Output::Reply { query, answer: Answer { extended: true, ..answer } });
        }
        if let Some(contact) = self.links.get(&key).cloned()
            && self.links.serves(&key) == Some(true)
        {
            self.consider(now, &contact);
        }
    }

    /// Charges a peer for an answer that it was given later.
    pub(super) fn charge(&mut self, now: Now, from: &PeerId, bytes: usize) {
        self.limiter.charge(now, from, bytes);
    }

    fn serve(&mut self, now: Now, from: &PeerId, asker: &Key, remote: IpAddr, ask: &Query) -> Answer {
        if let Some(answer) = self.serve_records(now, from, asker, remote, ask) {
            return answer;
        }
        match ask {
            Query::FindNode { target }
            | Query::GetValue { target, .. }
            | Query::GetProviders { target, .. } => {
                Answer { closer: self.closer(target, asker), ..Answer::default() }
            }
            Query::Ping => Answer::default(),
            Query::Silent { peers } => {
                self.doubt(now, peers);
                Answer::default()
            }
            Query::PutValue { .. } | Query::AddProvider { .. } | Query::Repair(_) => {
                Answer::status(Status::Refused(Refusal::NotServed))
            }
        }
    }

    /// Verified peers close to a target, but for the one who asks.
    pub(super) fn closer(&self, target: &Target, asker: &Key) -> Vec<Contact> {
        let k = self.config.table.k;
        let mut closer = self.table.closest(target.key(), k + 1);
        closer.retain(|contact| contact.key() != asker);
        closer.truncate(k);
        closer
    }
}

/// Drops what comes last until an answer is short enough: the farthest peers first, then providers; values are the holder's own affair to page.
pub(super) fn trim(answer: &mut Answer, most: usize) {
    let mut bytes = answer.wire_bytes();
    while bytes > most {
        let Some(dropped) = answer.closer.pop().or_else(|| answer.providers.pop()) else { break };
        bytes -= dropped.wire_bytes();
    }
}
