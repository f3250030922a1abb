//! Peer exchange: asking peers whom they know, and answering when they ask.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{PeerId, SignedPeerRecord};
use peerage_machine::{Now, TokenBucket};

use crate::book::Source;
use crate::manager::PeerManager;
use crate::types::Output;

impl PeerManager {
    /// What to answer `asker`, who wants at most `most` records: records of others, as they were signed. `None` when it asks too often.
    ///
    /// Only records of peers that a handshake has proved at one of their addresses are given away.
    pub fn answer_exchange(&mut self, now: Now, asker: PeerId, most: usize) -> Option<Vec<Bytes>> {
        let (burst, rate) = (self.config.exchange_burst, self.config.exchange_per_second);
        self.admitted(&asker)?;
        let bucket =
            self.exchange.asked_us.entry(asker).or_insert_with(|| TokenBucket::new(burst, rate, now));
        bucket.take(1.0, now).then(|| self.shareable(asker, most.min(self.config.max_exchange_records)))
    }

    /// Up to `most` records of others that `to` may have, drawn at random.
    pub(crate) fn shareable(&mut self, to: PeerId, most: usize) -> Vec<Bytes> {
        let mut records: Vec<Bytes> = self
            .book
            .iter()
            .filter(|(peer, known)| **peer != to && known.is_verified())
            .filter_map(|(_, known)| known.record.as_ref())
            .filter(|record| !record.addresses().is_empty())
            .map(|record| record.as_bytes().clone())
            .collect();
        self.random.shuffle(&mut records);
        records.truncate(most);
        records
    }

    /// A peer told us whom it knows.
    pub(crate) fn learned(&mut self, now: Now, from: PeerId, records: &[SignedPeerRecord]) {
        let Some(teller) = self.admitted(&from).and_then(|id| self.conns.get(&id)).map(|conn| conn.remote)
        else {
            return;
        };
        let mut news = false;
        for record in records.iter().take(self.config.max_exchange_records) {
            news |= self.learn_one(now, record, teller);
        }
        if news {
            self.restart_asking(now);
        }
    }

    /// Takes one record from a third party. True when it was news.
    pub(crate) fn learn_one(&mut self, now: Now, record: &SignedPeerRecord, teller: SocketAddr) -> bool {
        let peer = record.peer_id();
        if peer == self.me || !self.book.learn(record, Source::Hearsay, teller, &mut self.random) {
            return false;
        }
        if self.candidates.due(&crate::Target::Peer(peer)).is_none() {
            self.enqueue(peer, now.mono);
        }
        true
    }

    /// Asks one peer, drawn at random, when it is time and places are free.
    pub(crate) fn ask_around(&mut self, now: Now) {
        if self.next_ask().is_none_or(|due| due > now.mono) {
            return;
        }
        let peers: Vec<_> =
            self.connected().filter(|peer| !peer.foreign).map(|connected| connected.conn).collect();
        if let Some(conn) = peers.get(self.random.index(peers.len())) {
            self.outputs.push_back(Output::Ask { conn: *conn });
        }
        self.exchange.due = now.mono + self.exchange.pause;
        self.exchange.pause = (self.exchange.pause * 2).min(self.config.exchange_pause_ceiling);
    }

    /// When to ask next: never while no place is free, or nobody is there to be asked.
    pub(crate) fn next_ask(&self) -> Option<Duration> {
        let hungry = self.outbound_used() < self.config.max_outbound;
        (hungry && self.connected().any(|peer| !peer.foreign)).then_some(self.exchange.due)
    }

    /// Something new was learned: the next question comes soon.
    pub(crate) fn restart_asking(&mut self, now: Now) {
        self.exchange.pause = self.config.exchange_pause;
        self.exchange.due = now.mono + self.exchange.pause;
    }
}
