//! The places of visits, how a visit ends, and how it becomes an ordinary connection.
//!
//! Visits take places of their own, so that lookups reach nodes whose ordinary places are taken. Such a place is lent, not given: when one
//! more comes, the visit that has been idle for longest gives way to it. Of those who visit us nobody has to go within the first
//! seconds ([`PeersConfig::visit_grace`](crate::PeersConfig::visit_grace)), so that each visit lasts long enough to ask something; who finds only such young ones is refused.
//! Places are capped per address and per subnet as ordinary ones are, in counts of their own; there the idlest of the same block gives way.
//!
//! Who visits ends the visit when it is idle. Who is visited ends it only for another: it cannot know what the visitor has in mind.
//!
//! A visit of ours becomes an ordinary connection when the user connects to the peer, makes it persistent, or the dial queue would dial it; no dial is needed for
//! that, and what the peer counts stays a visit. Who visits *us* leaves again by itself: one whom the user wants is dialled, and the new connection takes the place of the visit.
//! When both sides dial at once and one of the two connections is a visit, the one that survives is ordinary: the acceptance says so
//! ([`Answer::Accept`](crate::Answer)).

use std::time::Duration;

use peerage_identity::{AddressScope, IpPrefix, PeerId};
use peerage_machine::Now;

use crate::cause::{Cause, Failure, Fault};
use crate::manager::{Conn, ConnState, PeerManager};
use crate::types::{CloseReason, ConnId, Direction, Output};
use crate::used::Place;

impl PeerManager {
    /// The visits of ours whose idle time is over at `now`. Whoever knows that something passed over one lately says [`Input::Used`](crate::Input::Used) before it
    /// gives the time.
    pub fn idle_visits(&self, now: Now) -> Vec<ConnId> {
        if self.visits.timer.is_none_or(|due| due > now.mono) {
            return Vec::new();
        }
        self.visits_under_way(Direction::Outbound)
            .filter(|(_, conn)| conn.used + self.config.visit_idle <= now.mono)
            .map(|(id, _)| id)
            .collect()
    }

    /// Every visit, ours and those of others, by its connection.
    pub fn visits(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.conns.visits()
    }

    /// A peer was asked something, or asked us.
    pub(crate) fn used(&mut self, now: Now, peer: PeerId) {
        let visit = self.conns.visits_of(&peer);
        for id in visit.collect::<Vec<_>>() {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.used = now.mono;
            }
        }
    }

    /// Ends the visits of ours that were idle for too long.
    pub(crate) fn end_idle_visits(&mut self, now: Now) {
        if self.visits.timer.is_none_or(|due| due > now.mono) {
            return;
        }
        for id in self.idle_visits(now) {
            self.end_visit(now, id, CloseReason::VisitOver);
        }
        let idle = self.config.visit_idle;
        self.visits.timer =
            self.visits_under_way(Direction::Outbound).map(|(_, conn)| conn.used + idle).min();
    }

    /// A visit was admitted.
    pub(crate) fn visit_begins(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.visit) else { return };
        conn.used = now.mono;
        if conn.direction == Direction::Outbound {
            let due = now.mono + self.config.visit_idle;
            self.visits.timer = Some(self.visits.timer.map_or(due, |timer| timer.min(due)));
        }
    }

    /// The visit of ours to a peer.
    pub(crate) fn our_visit(&self, peer: &PeerId) -> Option<ConnId> {
        let ours = |id: &ConnId| {
            let conn = self.conns.get(id);
            conn.is_some_and(|conn| {
                conn.direction == Direction::Outbound && conn.state != ConnState::Draining
            })
        };
        self.conns.visits_of(peer).find(ours)
    }

    /// Why there is no place for an inbound connection. A visit takes the place of one that may go.
    pub(crate) fn find_place(&mut self, now: Now, id: ConnId) -> Option<String> {
        loop {
            let conn = self.conns.get(&id)?;
            if !conn.visit {
                return self.no_place(conn);
            }
            let (block, why) = self.no_visit_place(conn)?;
            let Some(gone) = self.idlest_visit(now, id, block) else { return Some(why) };
            self.end_visit(now, gone, CloseReason::VisitTrimmed);
        }
    }

    /// A visit of ours is about to be admitted: where all places are taken, the one that was used least lately makes room. False when none can.
    pub(crate) fn make_room_for_visit(&mut self, now: Now, id: ConnId) -> bool {
        let is_ours = |conn: &Conn| conn.visit && conn.direction == Direction::Outbound;
        while self.conns.get(&id).is_some_and(|conn| is_ours(conn) && self.counts(conn)) {
            let others = self.visits_under_way(Direction::Outbound);
            let others: Vec<_> = others.filter(|(other, conn)| *other != id && self.counts(conn)).collect();
            if others.len() < self.config.max_outbound_visits {
                break;
            }
            let Some(gone) = others.iter().min_by_key(|(id, conn)| (conn.used, *id)).map(|(id, _)| *id)
            else {
                return false;
            };
            self.end_visit(now, gone, CloseReason::VisitOver);
        }
        true
    }

    /// What we begin to want of a peer, we have already: a visit to it, or the dial for one, becomes ordinary. Who visits us is dialled. False when there is
    /// nothing of that kind.
    pub(crate) fn keep(&mut self, now: Now, peer: PeerId, counted: bool, why: &str) -> bool {
        if let Some(attempt) = self.attempts.values_mut().find(|dial| dial.visit && dial.peer() == Some(peer))
        {
            (attempt.visit, attempt.counted) = (false, counted);
            return true;
        }
        if let Some(id) = self.our_visit(&peer) {
            self.make_ordinary(now, id, (Direction::Outbound, counted), why);
            if self.admitted(&peer) == Some(id) && !self.make_room_for(now, id) {
                // All places are taken, and nobody may go: a visit it stays.
                self.change_conn(id, |conn| (conn.visit, conn.counted) = (true, true));
                self.visit_begins(now, id);
                self.note(now, peer, Cause::Visit, "no place is free");
            }
            return true;
        }
        let theirs = self.conns.visits_of(&peer).next();
        if let Some(id) = theirs.filter(|_| !counted) {
            self.make_ordinary(now, id, (Direction::Inbound, counted), why);
            self.renew_visit(id);
            return true;
        }
        false
    }

    /// A visitor doesn't know that it is wanted for longer, unless our acceptance has said so. A connection of ours will.
    pub(crate) fn renew_visit(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let unknowing = conn.asked_to_visit && !conn.visit && conn.direction == Direction::Inbound;
        if unknowing && conn.state == ConnState::Admitted && !self.stranded.contains(&id) {
            self.stranded.push_back(id);
        }
    }

    /// A good hello was read: of a peer's connections that are under way at once, all are ordinary when one is that either side wants.
    pub(crate) fn agree_on_kind(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.direction == Direction::Inbound) else {
            return;
        };
        let peer = conn.peer;
        if !conn.visit {
            let like = (conn.place, conn.counted);
            if let Some(ours) = self.our_visit(&peer) {
                self.make_ordinary(now, ours, like, "the peer wants a connection, too");
            }
            return;
        }
        let dial = self.attempts.values().find(|dial| !dial.visit && dial.peer() == Some(peer));
        let wanted = |other: ConnId| {
            let conn = self.conns.get(&other).filter(|conn| !conn.visit && conn.place == Direction::Outbound);
            conn.filter(|_| other != id).map(|conn| (conn.place, conn.counted))
        };
        let like = dial.map(|dial| (dial.place, dial.counted));
        let like = like.or_else(|| self.conns_of(&peer).find_map(wanted));
        let by_user = self.visits.wanted.contains(&peer) || self.is_persistent(&peer);
        let like = like.or(by_user.then_some((Direction::Inbound, false)));
        if let Some(like) = like {
            self.make_ordinary(now, id, like, "this node was about to connect to it");
        }
    }

    /// The peer says that our visit is an ordinary connection to it. It stays a visit here where there is no place for it.
    pub(crate) fn asked_to_stay(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.visit) else { return };
        if self.no_inbound_place(conn).is_none() && conn.direction == Direction::Outbound {
            self.make_ordinary(now, id, (Direction::Inbound, true), "the peer wants it for longer");
        }
    }

    /// Ends a visit. Its peer may be dialled again soon, if it is wanted.
    fn end_visit(&mut self, now: Now, id: ConnId, reason: CloseReason) {
        let useful = self.conns.get(&id).is_some_and(|conn| conn.used > conn.since);
        self.outputs.push_back(Output::Close { conn: id, reason });
        self.ended(now, id, Failure::from(Fault::VisitOver), useful);
    }

    fn make_ordinary(&mut self, now: Now, id: ConnId, like: (Direction, bool), why: &str) {
        let peer = self.change_conn(id, |conn| {
            (conn.visit, conn.place, conn.counted) = (false, like.0, like.1);
            conn.peer
        });
        if let Some(peer) = peer {
            self.note(now, peer, Cause::Stays, why);
        }
    }

    /// Admitted visits of one direction.
    fn visits_under_way(&self, direction: Direction) -> impl Iterator<Item = (ConnId, &Conn)> + '_ {
        let conns = self.conns.visits().filter_map(|id| self.conns.get(&id).map(|conn| (id, conn)));
        let admitted = |conn: &Conn| matches!(conn.state, ConnState::Admitted | ConnState::Foreign);
        conns.filter(move |(_, conn)| conn.direction == direction && admitted(conn))
    }

    /// Why there is no place for an inbound visit: the block whose places are taken, unless all are.
    fn no_visit_place(&self, conn: &Conn) -> Option<(Option<IpPrefix>, String)> {
        if !self.counts(conn) {
            return None;
        }
        let (place, ip) = (Place::of_visit(Direction::Inbound), conn.remote.ip());
        let held = self.place_of(&conn.peer, place);
        let used = self.conns.used();
        if held.is_none() && used.of(place) >= self.config.max_inbound_visits {
            return Some((
                None,
                format!("all {} places for visits are taken", self.config.max_inbound_visits),
            ));
        }
        if AddressScope::of(ip).is_exempt_from_address_rules() {
            return None;
        }
        let caps = self.caps_at(ip);
        let mut caps =
            caps.iter().filter(|(block, _)| !held.is_some_and(|held| block.contains(held.remote.ip())));
        caps.find(|(block, most)| used.within(true, block) >= *most).map(|(block, most)| {
            (Some(*block), format!("all {most} places for visits from {block} are taken"))
        })
    }

    /// The visit of another that has been idle for longest, in a block or anywhere, and is not too young to go.
    fn idlest_visit(&self, now: Now, newcomer: ConnId, block: Option<IpPrefix>) -> Option<ConnId> {
        let old = now.mono.saturating_sub(self.config.visit_grace);
        let takes = Some(Place::of_visit(Direction::Inbound));
        self.conns
            .visits()
            .filter(|id| *id != newcomer)
            .filter_map(|id| self.conns.get(&id).map(|conn| (id, conn)))
            .filter(|(_, conn)| {
                conn.takes == takes && conn.since <= old && now.mono >= self.config.visit_grace
            })
            .filter(|(_, conn)| block.is_none_or(|block| block.contains(conn.remote.ip())))
            .min_by_key(|(id, conn)| (conn.used.max(conn.since), *id))
            .map(|(id, _)| id)
    }
}

/// What others ask of visits.
impl PeerManager {
    /// The places that visits of one direction take.
    pub(crate) fn visits_used(&self, direction: Direction) -> usize {
        self.conns.used().of(Place::of_visit(direction))
    }

    /// Whether a visitor would find a free place, without another one's having to go.
    pub(crate) fn has_room_for_visitors(&self) -> bool {
        self.visits_used(Direction::Inbound) < self.config.max_inbound_visits
    }

    /// When [`PeerManager::end_idle_visits`] is next needed.
    pub(crate) fn next_idle_visit(&self) -> Option<Duration> {
        self.visits.timer
    }
}
