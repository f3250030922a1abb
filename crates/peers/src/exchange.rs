//! Peer exchange: asking peers whom they know, and answering when they ask.
//!
//! Rates hold both ways: a peer that asks too often gets no answer and pays for it ([`Penalty::Flood`]); we ask each peer more rarely than it allows.
//!
//! An answer counts when it was asked for, and only so much of it as was asked for; anything else costs its sender. Whom do we ask? Peers that we
//! dialled, because we chose them; those that came by themselves, in any number, only when for two minutes there was nobody else to ask or to dial: who has just started, or was just left alone,
//! waits for an answer of those whom it knows first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{PeerId, SignedPeerRecord};
use peerage_machine::{Now, TokenBucket};

use crate::book::{Source, Teller, in_scope};
use crate::cause::{Cause, Failure, Fault};
use crate::manager::{Conn, ConnectedPeer, PeerManager};
use crate::penalty::Penalty;
use crate::types::{ConnId, Direction, Output};

/// Peers whose questions are counted. Beyond that, those who have not asked for long are forgotten.
pub(crate) const MAX_ASKERS: usize = 1024;
/// So long nobody whom we have chosen was connected, before those are asked that came by themselves.
const ALONE_FOR: Duration = Duration::from_secs(120);

/// When to ask peers whom they know, and how often they asked us.
#[derive(Debug)]
pub(crate) struct Exchange {
    due: Duration,
    pause: Duration,
    /// When a peer that we have chosen was connected last.
    chosen_at: Duration,
    asked_us: BTreeMap<PeerId, TokenBucket>,
    /// Our questions on each connection.
    asked: BTreeMap<ConnId, Asked>,
}

#[derive(Debug)]
struct Asked {
    rate: TokenBucket,
    /// Questions without an answer yet.
    open: u32,
}

impl Exchange {
    pub(crate) fn new(pause: Duration) -> Self {
        Self {
            due: Duration::ZERO,
            pause,
            chosen_at: Duration::ZERO,
            asked_us: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// A connection has ended. How often its peer asked is still known: coming back is no new allowance.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.asked.remove(&conn);
    }

    fn make_room(&mut self, now: Now) {
        if self.asked_us.len() < MAX_ASKERS {
            return;
        }
        self.asked_us.retain(|_, rate| !rate.is_full(now));
        if self.asked_us.len() >= MAX_ASKERS {
            self.asked_us.pop_first();
        }
    }
}

impl PeerManager {
    /// What to answer `asker`, who wants at most `most` records: records of others, as they were signed. `None` when it asks too often.
    ///
    /// Only records of peers that a handshake has proved at one of their addresses are given away.
    pub fn answer_exchange(&mut self, now: Now, asker: PeerId, most: usize) -> Option<Vec<Bytes>> {
        let (burst, rate) = (self.config.exchange_burst, self.config.exchange_per_second);
        self.admitted(&asker)?;
        if !self.exchange.asked_us.contains_key(&asker) {
            self.exchange.make_room(now);
        }
        let allowance =
            self.exchange.asked_us.entry(asker).or_insert_with(|| TokenBucket::new(burst, rate, now));
        if allowance.take(1.0, now) {
            return Some(self.shareable(asker, most.min(self.config.max_exchange_records)));
        }
        self.penalise(now, asker, Penalty::Flood);
        self.after_input(now);
        None
    }

    /// A peer told us whom it knows.
    pub(crate) fn learned(&mut self, now: Now, id: ConnId, records: &[SignedPeerRecord]) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (peer, teller) = (conn.peer, self.teller(conn));
        if self.admitted(&peer) != Some(id) {
            return;
        }
        let asked = self.exchange.asked.get_mut(&id).filter(|asked| asked.open > 0);
        let Some(asked) = asked else { return self.penalise(now, peer, Penalty::Unsolicited) };
        asked.open -= 1;
        if records.len() > self.config.max_exchange_records {
            return self.penalise(now, peer, Penalty::Unsolicited);
        }
        if self.learn(now, records, teller) {
            self.restart_asking(now);
        }
    }

    /// The peer at the other end, as a source of addresses.
    pub(crate) fn teller(&self, conn: &Conn) -> Teller {
        Teller { peer: conn.peer, at: conn.remote, chosen: self.is_chosen(&conn.peer, conn.direction) }
    }

    /// We dialled it, or our user named it; those that came by themselves can be any number.
    pub(crate) fn is_chosen(&self, peer: &PeerId, direction: Direction) -> bool {
        direction == Direction::Outbound || self.book.classes.is_named(peer)
    }

    /// Takes records from a third party. True when one was news.
    pub(crate) fn learn(&mut self, now: Now, records: &[SignedPeerRecord], teller: Teller) -> bool {
        self.forget_own(now);
        let mut room = self.book.room_for(&teller, &self.config);
        let mut news = false;
        let mut places = BTreeSet::new();
        for record in records {
            let peer = record.peer_id();
            if peer == self.me || self.ban_on(&peer, None).is_some() {
                continue;
            }
            // One endpoint is one peer: of several that are said to live there, at most one does.
            let mut said = record.addresses().iter().map(|address| address.clone().without_peer_id());
            if said.any(|address| places.contains(&address)) {
                continue;
            }
            places.extend(record.addresses().iter().map(|address| address.clone().without_peer_id()));
            let is_new = self.book.get(&peer).is_none();
            let named = record.addresses();
            if is_new && !named.is_empty() && !named.iter().any(|address| in_scope(address, teller.at)) {
                self.note_out_of_scope(now, peer, teller);
                continue;
            }
            if is_new && room == 0 {
                continue;
            }
            if !self.book.learn(now, record, Source::Hearsay, teller, &mut self.random) {
                continue;
            }
            room -= usize::from(is_new);
            news = true;
            self.requeue(now, peer, Duration::ZERO);
            self.note(now, peer, Cause::Told, &format!("by {}", teller.peer));
        }
        news
    }

    /// Nothing is kept of a peer whose addresses its teller may not name, but the journal says so.
    fn note_out_of_scope(&mut self, now: Now, peer: PeerId, teller: Teller) {
        if self.journal.has_room() {
            let detail = format!("told by {}", teller.peer);
            self.note_failure(now, peer, &Failure::new(Fault::OutOfScope, detail));
        }
    }

    /// Asks one peer, drawn at random, when it is time and places are free.
    pub(crate) fn ask_around(&mut self, now: Now) {
        if self.next_ask().is_none_or(|due| due > now.mono) {
            return;
        }
        let peers = self.askable(now);
        if let Some(peer) = peers.get(self.random.index(peers.len())) {
            self.ask(now, peer.conn);
        }
        self.exchange.due = now.mono + self.exchange.pause;
        self.exchange.pause = (self.exchange.pause * 2).min(self.config.exchange_pause_ceiling);
    }

    /// A peer was admitted: asks it while places are free, if we have chosen it.
    pub(crate) fn ask_newcomer(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get(&id).filter(|conn| !conn.visit) else { return };
        if self.is_chosen(&conn.peer, conn.direction) && self.outbound_used() < self.config.max_outbound {
            self.ask(now, id);
        }
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

    /// Asks, unless this peer was asked too often lately.
    fn ask(&mut self, now: Now, conn: ConnId) {
        // Half of what the other side allows, so that delays on the way don't make a flood of it.
        let (burst, rate) = (self.config.exchange_burst / 2.0, self.config.exchange_per_second / 2.0);
        let asked = self
            .exchange
            .asked
            .entry(conn)
            .or_insert_with(|| Asked { rate: TokenBucket::new(burst.max(1.0), rate, now), open: 0 });
        if asked.rate.take(1.0, now) {
            asked.open = asked.open.saturating_add(1);
            let most = self.config.max_exchange_records;
            self.outputs.push_back(Output::Ask { conn, most });
        }
    }

    /// A connection has ended.
    pub(crate) fn note_left(&mut self, now: Now, conn: &Conn) {
        if self.is_chosen(&conn.peer, conn.direction) {
            self.exchange.chosen_at = now.mono;
        }
    }

    /// Who may be asked: those that we dialled and those that the user named. Everyone, when these were none for a while and nobody is about
    /// to be dialled.
    fn askable(&self, now: Now) -> Vec<ConnectedPeer> {
        let peers: Vec<_> = self.connected().filter(|peer| !peer.foreign).collect();
        let chosen = |peer: &&ConnectedPeer| self.is_chosen(&peer.peer, peer.direction);
        let ours: Vec<_> = peers.iter().filter(chosen).cloned().collect();
        let soon = now.mono + self.config.exchange_pause_ceiling / 4;
        let dialling = !self.attempts.is_empty() || self.candidates.next_due().is_some_and(|due| due < soon);
        let alone = now.mono.saturating_sub(self.exchange.chosen_at) >= ALONE_FOR;
        if ours.is_empty() && !dialling && alone { peers } else { ours }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::peer as asker;

    #[test]
    fn the_table_of_those_who_asked_is_bounded_and_who_asked_long_ago_goes_first() {
        let mut exchange = Exchange::new(Duration::from_secs(2));
        let ask = |exchange: &mut Exchange, number: u64, now: Now| {
            exchange.make_room(now);
            let mut rate = TokenBucket::new(4.0, 0.5, now);
            rate.take(1.0, now);
            exchange.asked_us.insert(asker(number), rate);
        };
        for number in 0..MAX_ASKERS as u64 + 50 {
            ask(&mut exchange, number, Now::ZERO);
            assert!(exchange.asked_us.len() <= MAX_ASKERS);
        }
        ask(&mut exchange, 5000, Now::ZERO.after(Duration::from_secs(60)));
        assert_eq!(exchange.asked_us.len(), 1);
    }
}
