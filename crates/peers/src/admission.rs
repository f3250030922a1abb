//! From a proved key to an admitted peer, and what happens when a connection ends.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{DialAddress, PeerId, SignedPeerRecord};
use peerage_machine::Now;

use crate::agreement::{Pair, Step};
use crate::backoff;
use crate::book::Source;
use crate::cause::{Blame, Cause, Failure, Fault, RejectReason};
use crate::config::ForeignPolicy;
use crate::manager::{Conn, ConnState, PeerManager};
use crate::penalty::Penalty;
use crate::types::{
    Answer, AttemptId, CloseReason, ConnId, Course, Direction, HelloFacts, Output, PeerAnswer, PeerEvent,
};

impl PeerManager {
    /// A TLS handshake is done.
    pub(crate) fn handshaken(
        &mut self,
        now: Now,
        id: ConnId,
        peer: PeerId,
        direction: Direction,
        remote: SocketAddr,
        attempt: Option<AttemptId>,
    ) {
        let attempt = attempt.and_then(|attempt| self.attempts.remove(&attempt));
        let counted = attempt.as_ref().map_or(direction == Direction::Inbound, |attempt| attempt.counted);
        let place = attempt.as_ref().map_or(direction, |attempt| attempt.place);
        // Of one that comes in, the hello will tell.
        let visit = attempt.as_ref().is_some_and(|attempt| attempt.visit);
        self.visits.dial_ended();
        let dialled = attempt.as_ref().and_then(|attempt| attempt.reached(remote));
        let instead_of = attempt.as_ref().and_then(|attempt| attempt.instead_of);
        let older = instead_of.map(|older| self.conns.get(&older).is_none_or(|older| older.counted));
        let counted = older.unwrap_or(counted);
        if let (Some(mut attempt), Some(dialled)) = (attempt, dialled.clone()) {
            attempt.courses_of(
                |route| if route.address == dialled { Course::Reached } else { Course::NotBegun },
            );
            self.address_failures.remove(&dialled);
            self.charge_given(now, peer, &attempt);
            self.charge_routes(now, peer, &attempt);
            self.dial_proved(now, peer, &dialled);
            match self.admitted(&peer) {
                // Another dial was faster: who waits for this one has what he wants.
                Some(_) if !attempt.tickets.is_empty() => {
                    if !attempt.visit {
                        self.keep(now, peer, false, "the user asked for a connection");
                    }
                    self.resolve(attempt.tickets, &Ok(peer));
                }
                _ if attempt.tickets.is_empty() => {}
                _ => self.waiting.entry(peer).or_default().extend(attempt.tickets),
            }
        }
        if self.shutting_down {
            self.outputs.push_back(Output::Close { conn: id, reason: CloseReason::ShuttingDown });
            return;
        }
        let (since, state) = (now.mono, ConnState::Greeting);
        let conn = Conn {
            peer,
            direction,
            remote,
            dialled,
            since,
            state,
            counted,
            place,
            takes: None,
            visit,
            asked_to_visit: visit,
            used: now.mono,
            counted_time: Duration::ZERO,
            stands_in: false,
            observed: None,
        };
        if direction == Direction::Inbound {
            self.make_room_for_greeting(now);
        }
        self.insert_conn(id, conn);
        self.note_exempt(peer, remote.ip());
        let cause = if direction == Direction::Inbound { Cause::CameIn } else { Cause::Proved };
        self.note(now, peer, cause, &remote.to_string());
        if peer == self.me {
            // Ourselves or a clone: the boot nonce in the hello will tell.
            return self.say_hello(id);
        }
        if !self.is_allowed(&peer) {
            return self.turn_away(now, id, peer);
        }
        let smaller = self.me < peer;
        let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(smaller));
        let steps = pair.connected(id, direction, instead_of);
        self.carry_out(now, steps);
    }

    /// A dial has found `peer` at its address.
    fn dial_proved(&mut self, now: Now, peer: PeerId, address: &DialAddress) {
        if peer == self.me {
            return self.seeds.remove(address);
        }
        let seed = self.seeds.found(address, peer);
        self.book.proved(now, peer, address, &mut self.random);
        if let Some(mut known) = self.book.get_mut(&peer) {
            known.seed |= seed;
        }
        // A dial by address may have found a peer whose turn is still to come.
        self.dequeue(&peer);
    }

    /// The round trip over a connection is known.
    pub(crate) fn measured(&mut self, id: ConnId, rtt: Duration) {
        if let Some(Conn { peer, dialled: Some(address), .. }) = self.conns.get(&id) {
            self.book.measured(peer, address, rtt);
        }
    }

    /// The peer's hello was read.
    pub(crate) fn hello(&mut self, now: Now, id: ConnId, hello: HelloFacts) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.state == ConnState::Greeting) else { return };
        let (peer, direction, remote, teller) = (conn.peer, conn.direction, conn.remote, self.teller(conn));
        if peer == self.me {
            return self.met_own_key(now, id, hello.boot_nonce, remote);
        }
        if hello.visit && direction == Direction::Inbound {
            self.change_conn(id, |conn| (conn.visit, conn.asked_to_visit) = (true, true));
        }
        self.take_over_place(id);
        if self.turned_away(now, id, &hello) || !self.is_latest_start(now, id, hello.boot_nonce) {
            return;
        }
        if let Some(record) = hello.record.filter(|record| record.peer_id() == peer) {
            self.book.learn(now, &record, Source::Itself, teller, &mut self.random);
            if direction == Direction::Inbound {
                self.book.came_from(now, &peer, remote);
            }
        }
        self.agree_on_kind(now, id);
        self.close_unanswered(now, id);
        // From here on it holds its place, even while another connection to the peer is preferred.
        self.change_conn(id, |conn| (conn.state, conn.observed) = (ConnState::Greeted, hello.observed));
        let Some(pair) = self.pairs.get_mut(&peer) else { return };
        let steps = pair.hello(id, hello.boot_nonce, hello.order);
        self.carry_out(now, steps);
    }

    /// Refuses a peer for what its hello says, or for want of a place.
    fn turned_away(&mut self, now: Now, id: ConnId, hello: &HelloFacts) -> bool {
        let Some(conn) = self.conns.get(&id) else { return true };
        let peer = conn.peer;
        let ban = self.ban_on(&peer, Some(conn.remote.ip())).map(|ban| Self::ban_left(now, ban));
        // What the hello says comes first: to who is no member of a private network nothing is said of bans and places.
        if let Some((reason, detail)) = hello.problem.clone() {
            if reason == RejectReason::InvalidHello {
                self.penalise(now, peer, Penalty::Malformed);
            }
            self.reject(now, id, reason, detail, None);
        } else if let Some(wait) = ban {
            self.reject(now, id, RejectReason::Banned, String::new(), wait);
        } else if self.shutting_down {
            self.reject(now, id, RejectReason::ShuttingDown, String::new(), None);
        } else if let Some(detail) = self.find_place(now, id) {
            self.reject(now, id, RejectReason::Full, detail, None);
        } else {
            return false;
        }
        true
    }

    /// The peer answered our hello.
    pub(crate) fn answered(&mut self, now: Now, id: ConnId, answer: PeerAnswer) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (peer, remote, direction, teller) = (conn.peer, conn.remote, conn.direction, self.teller(conn));
        match answer {
            PeerAnswer::Accept { order, stay } => {
                if stay {
                    self.asked_to_stay(now, id);
                }
                let Some(pair) = self.pairs.get_mut(&peer) else {
                    return;
                };
                let steps = pair.accepted(id, order);
                self.carry_out(now, steps);
            }
            PeerAnswer::Reject { reason, detail, retry_after, mut alternatives } => {
                // Only who dialled is told of others; who came to us by itself has nothing to tell.
                let taken = direction == Direction::Outbound && reason == RejectReason::Full;
                alternatives.truncate(if taken { self.config.max_alternatives } else { 0 });
                self.learn(now, &alternatives, teller);
                if reason == RejectReason::Clone {
                    self.hear_of_clone(peer, remote);
                }
                let said = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
                let named = match alternatives.len() {
                    0 => String::new(),
                    some => format!("; it named {some} to try instead"),
                };
                let failure = Failure {
                    fault: Fault::RefusedByPeer(reason),
                    detail: format!("{peer} refused us: {reason}{said}{named}"),
                    retry_after,
                };
                self.outputs.push_back(Output::Close { conn: id, reason: CloseReason::Refused });
                if reason == RejectReason::Duplicate {
                    self.forget_conn(now, id);
                } else {
                    let alternatives = alternatives.iter().map(SignedPeerRecord::peer_id).collect();
                    self.event(PeerEvent::RefusedByPeer { peer, reason, alternatives });
                    self.ended(now, id, failure, false);
                }
            }
        }
    }

    /// The peer speaks libp2p, but not our hello.
    pub(crate) fn foreign(&mut self, now: Now, id: ConnId) {
        // A peer whose hello was read speaks it.
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.state == ConnState::Greeting) else { return };
        let (peer, direction, remote) = (conn.peer, conn.direction, conn.remote);
        self.take_over_place(id);
        let full = self.conns.get(&id).is_some_and(|conn| self.no_place(conn).is_some());
        let banned = self.ban_on(&peer, Some(remote.ip())).is_some();
        let speaks_hello = self.pairs.get(&peer).is_some_and(|pair| pair.accepted_by_us().is_some());
        // Where none are wanted, none hears anything else.
        let refuse = if self.config.foreign == Some(ForeignPolicy::Refuse) {
            Some(RejectReason::ForeignRefused)
        } else if banned {
            Some(RejectReason::Banned)
        } else if full {
            Some(RejectReason::Full)
        } else if speaks_hello || peer == self.me {
            Some(RejectReason::Duplicate)
        } else {
            None
        };
        if let Some(reason) = refuse {
            if reason == RejectReason::Full {
                // A foreign node is told of nobody, but it has cost a handshake all the same.
                self.take_refusal(now);
            }
            let close = match reason {
                RejectReason::Banned => CloseReason::Banned,
                RejectReason::Full => CloseReason::Full,
                _ => CloseReason::NotAdmitted,
            };
            self.outputs.push_back(Output::Close { conn: id, reason: close });
            self.event(PeerEvent::Refused { peer, reason });
            let why = reason.as_we_say();
            let said = format!("we refused {peer}, which does not speak the Peerage hello, because {why}");
            let failure = Failure::new(Fault::RefusedByUs(reason), said);
            return self.ended(now, id, failure, false);
        }
        // Its own dial says that it has lost the older connection, or will close it itself: what runs there may end in peace.
        if let Some(older) = self.foreign_conn(&peer) {
            self.close_drained(now, peer);
            self.outputs.push_back(Output::Drain { conn: older });
            self.set_state(older, ConnState::Draining);
        }
        self.make_room_for_visit(now, id);
        self.leave_pair(now, peer, id);
        self.set_state(id, ConnState::Foreign);
        self.outputs.push_back(Output::Admit { conn: id, peer, foreign: true });
        self.event(PeerEvent::Connected { peer, direction, address: remote, foreign: true });
        self.admitted_now(now, peer, id);
    }

    /// A connection has ended, and not by us. Only who dialled may say that it was a visit: else a peer that hangs up at once would be dialled in a loop.
    pub(crate) fn closed(&mut self, now: Now, id: ConnId, mut failure: Failure, useful: bool) {
        let ours = self.conns.get(&id).is_some_and(|conn| conn.direction == Direction::Outbound);
        if ours && failure.fault == Fault::VisitOver {
            failure.fault = Fault::ClosedByPeer;
        }
        self.ended(now, id, failure, useful);
    }

    /// A connection has ended, by whatever cause.
    pub(crate) fn ended(&mut self, now: Now, id: ConnId, failure: Failure, useful: bool) {
        let Some(conn) = self.remove_conn(id) else {
            return;
        };
        let peer = conn.peer;
        let was_admitted = conn.stands_in || matches!(conn.state, ConnState::Admitted | ConnState::Foreign);
        self.exchange.forget(id);
        if conn.state != ConnState::Greeting {
            self.starts.left(now.mono, &peer);
        }
        self.leave_pair(now, peer, id);
        let replaced = conn.state == ConnState::Draining && !conn.stands_in;
        if replaced || self.is_linked(&peer) {
            if was_admitted && self.admitted(&peer).is_none() {
                self.disconnected(now, &conn, &failure, None);
            } else {
                self.note_failure(now, peer, &failure);
            }
            return;
        }
        if was_admitted {
            self.note_left(now, &conn);
            let redial_in = self.lost(now, &conn, &failure, useful);
            self.seed_lost(now, peer, &failure, redial_in);
            self.disconnected(now, &conn, &failure, redial_in);
        } else if let Some(address) = conn.dialled {
            let retry_in = self.charge(now, peer, Some(&address), &failure);
            if conn.visit && failure.blame() == Blame::Overloaded {
                self.put_off_visits(peer);
            }
            self.seed_lost(now, peer, &failure, retry_in);
            self.note_failure(now, peer, &failure);
            let (cause, fault) = (failure.detail.clone(), failure.fault);
            self.event(PeerEvent::DialFailed { address, peer: Some(peer), cause, fault, retry_in });
        } else {
            let wait = self.random.up_to(self.config.backoff_base);
            self.requeue(now, peer, wait);
            self.note_failure(now, peer, &failure);
        }
        if let Some(tickets) = self.take_waiting(&peer) {
            self.resolve(tickets, &Err(failure));
        }
    }

    /// Queues the redial of a peer that was connected. A connection that was of use clears the failures before it; one that was not
    /// counts as another failure, so that a peer that admits and hangs up at once is not dialled in a loop.
    fn lost(&mut self, now: Now, conn: &Conn, failure: &Failure, useful: bool) -> Option<Duration> {
        let peer = conn.peer;
        let lasted = now.mono.saturating_sub(conn.since);
        let mut known = self.book.get_mut(&peer)?;
        known.connected = false;
        known.connected_for = known.connected_for.saturating_add(lasted.saturating_sub(conn.counted_time));
        let useful = useful || lasted >= self.config.useful_after;
        if useful {
            (known.failures, known.overloads) = (0, 0);
        }
        drop(known);
        let base = self.config.backoff_base;
        let wait = match (failure.fault, failure.blame()) {
            // Its place went to another one: it is not wanted back before the next round.
            (Fault::Rotated, _) => self.config.rotation_interval,
            // It was for a while only, whoever ended it.
            (Fault::VisitOver, _) => backoff::delay(base, base, 0, &mut self.random),
            // Nor is it held against a peer that it gave the place away, once the time for a question was over.
            (Fault::Trimmed, _) if conn.visit && lasted >= self.config.visit_grace => {
                backoff::delay(base, base, 0, &mut self.random)
            }
            // The first redial after a good connection comes soon, whatever ended it; but none before the peer said.
            (_, Blame::Unlucky | Blame::Hostile | Blame::Local) if useful => {
                let soon = backoff::delay(base, self.config.backoff_ceiling, 0, &mut self.random);
                soon.max(failure.retry_after.unwrap_or_default().min(self.config.backoff_ceiling))
            }
            _ => self.wait_after(peer, failure)?,
        };
        self.redial_in(now, peer, wait)
    }

    fn disconnected(&mut self, now: Now, conn: &Conn, failure: &Failure, redial_in: Option<Duration>) {
        let peer = conn.peer;
        self.note_failure(now, peer, failure);
        let (cause, fault) = (failure.detail.clone(), failure.fault);
        self.event(PeerEvent::Disconnected { peer, cause, fault, redial_in });
    }

    /// Ends a connection that lost against another to the same peer: nobody is charged, nothing is reported.
    pub(crate) fn forget_conn(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.remove_conn(id) else {
            return;
        };
        self.exchange.forget(id);
        self.leave_pair(now, conn.peer, id);
        if self.is_linked(&conn.peer) {
            return self.note_failure(now, conn.peer, &Failure::from(Fault::Duplicate));
        }
        let why = format!("{} still holds an older connection to this node", conn.peer);
        let failure = Failure::new(Fault::RefusedByPeer(RejectReason::Duplicate), why);
        if conn.dialled.is_some() {
            let retry_in = self.charge(now, conn.peer, None, &failure);
            self.seed_lost(now, conn.peer, &failure, retry_in);
        } else {
            self.requeue(now, conn.peer, self.config.backoff_base);
        }
        self.note_failure(now, conn.peer, &failure);
        if let Some(tickets) = self.take_waiting(&conn.peer) {
            self.resolve(tickets, &Err(failure));
        }
    }

    fn leave_pair(&mut self, now: Now, peer: PeerId, id: ConnId) {
        let Some(pair) = self.pairs.get_mut(&peer) else {
            return;
        };
        let steps = pair.gone(id);
        if pair.is_empty() {
            self.pairs.remove(&peer);
        }
        self.carry_out(now, steps);
    }

    fn carry_out(&mut self, now: Now, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::SayHello(id) => self.say_hello(id),
                Step::Accept(id) => {
                    let order = self.next_order();
                    let came_in = |conn: &Conn| conn.direction == Direction::Inbound;
                    let stays = |conn: &Conn| came_in(conn) && conn.asked_to_visit && !conn.visit;
                    let stay = self.conns.get(&id).is_some_and(stays);
                    if stay {
                        self.change_conn(id, |conn| conn.asked_to_visit = false);
                    }
                    self.outputs
                        .push_back(Output::Answer { conn: id, answer: Answer::Accept { order, stay } });
                }
                Step::Admit(id) => self.admit(now, id),
                Step::Drain(id) => self.drain(now, id),
                Step::Close(id, reason) => self.close_extra(now, id, reason),
            }
        }
    }

    fn say_hello(&mut self, id: ConnId) {
        let order = self.next_order();
        let visit =
            self.conns.get(&id).is_some_and(|conn| conn.visit && conn.direction == Direction::Outbound);
        self.outputs.push_back(Output::SayHello { conn: id, order, visit });
    }

    fn admit(&mut self, now: Now, id: ConnId) {
        if !self.make_room_for(now, id) {
            // A replacement that came when nobody may go any more.
            self.outputs.push_back(Output::Close { conn: id, reason: CloseReason::Rotated });
            return self.ended(now, id, Failure::from(Fault::Rotated), false);
        }
        let admitted = self.change_conn(id, |conn| {
            conn.state = ConnState::Admitted;
            (conn.peer, conn.direction, conn.remote, conn.observed)
        });
        let Some((peer, direction, address, observed)) = admitted else { return };
        self.outputs.push_back(Output::Admit { conn: id, peer, foreign: false });
        self.event(PeerEvent::Connected { peer, direction, address, foreign: false });
        self.ask_newcomer(now, id);
        if let Some(observed) = observed {
            self.observed(now, id, observed);
        }
        self.admitted_now(now, peer, id);
    }

    fn admitted_now(&mut self, now: Now, peer: PeerId, id: ConnId) {
        for older in self.conns_of(&peer).collect::<Vec<_>>() {
            if let Some(conn) = self.conns.get_mut(&older) {
                conn.stands_in = false;
            }
        }
        self.dequeue(&peer);
        self.visit_begins(now, id);
        self.seeds.admitted(&peer);
        if let Some(mut known) = self.book.get_mut(&peer) {
            known.connected = true;
            // Who crashes right after the first contact must not need its seeds once more.
            if known.is_verified() && !std::mem::replace(&mut self.found_one, true) {
                self.save_due = Some(now.mono);
            }
        }
        self.await_usefulness(id);
        self.renew_visit(id);
        let visit = self.conns.get(&id).is_some_and(|conn| conn.visit);
        self.note(now, peer, Cause::Admitted, if visit { "a visit" } else { "" });
        if self.our_visit(&peer) == Some(id) {
            // In its turn, and when a place is free, it becomes an ordinary connection.
            self.enqueue(peer, now.mono);
        }
        self.restart_asking(now);
        if let Some(tickets) = self.take_waiting(&peer) {
            self.resolve(tickets, &Ok(peer));
        }
    }

    /// Lets a connection end in peace whose place a newer one takes. It stands for the peer until that one is admitted.
    fn drain(&mut self, now: Now, id: ConnId) {
        if let Some(peer) = self.conns.get(&id).map(|conn| conn.peer) {
            self.close_drained(now, peer);
        }
        self.outputs.push_back(Output::Drain { conn: id });
        self.change_conn(id, |conn| (conn.state, conn.stands_in) = (ConnState::Draining, true));
    }

    /// One connection of a peer may end in peace at a time: who takes over once more has had its time on the one before.
    fn close_drained(&mut self, now: Now, peer: PeerId) {
        let draining = |id: &ConnId| self.conns.get(id).is_some_and(|conn| conn.state == ConnState::Draining);
        let drained: Vec<_> = self.conns_of(&peer).filter(draining).collect();
        drained.into_iter().for_each(|id| self.close_extra(now, id, CloseReason::Replaced));
    }

    /// Beside the connection that we accepted, one more of those that a peer opens may wait for what becomes of it: the latest. The one before it was not
    /// accepted, so it is admitted nowhere.
    fn close_unanswered(&mut self, now: Now, latest: ConnId) {
        let Some(conn) = self.conns.get(&latest).filter(|conn| conn.direction == Direction::Inbound) else {
            return;
        };
        let peer = conn.peer;
        let accepted = self.pairs.get(&peer).and_then(Pair::accepted_by_us);
        let waits = |id: &ConnId| {
            let conn = self.conns.get(id).filter(|_| Some(*id) != accepted);
            conn.is_some_and(|conn| conn.direction == Direction::Inbound && conn.state == ConnState::Greeted)
        };
        let waiting: Vec<_> = self.conns_of(&peer).filter(waits).collect();
        for id in waiting {
            self.close_extra(now, id, CloseReason::Duplicate);
            self.leave_pair(now, peer, id);
        }
    }

    /// A peer says where it can be reached from now on.
    pub(crate) fn renewed(&mut self, now: Now, id: ConnId, record: &SignedPeerRecord) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.peer == record.peer_id()) else { return };
        let teller = self.teller(conn);
        self.book.learn(now, record, Source::Itself, teller, &mut self.random);
    }

    /// Closes a connection to a peer that keeps another one.
    fn close_extra(&mut self, now: Now, id: ConnId, reason: CloseReason) {
        self.outputs.push_back(Output::Close { conn: id, reason });
        self.exchange.forget(id);
        let Some(conn) = self.remove_conn(id) else {
            return;
        };
        let fault = match reason {
            CloseReason::Replaced => Fault::Replaced,
            _ => Fault::Duplicate,
        };
        if conn.state == ConnState::Admitted {
            self.disconnected(now, &conn, &Failure::from(fault), None);
        } else {
            self.note_failure(now, conn.peer, &Failure::from(fault));
        }
    }

    pub(crate) fn reject(
        &mut self,
        now: Now,
        id: ConnId,
        reason: RejectReason,
        detail: String,
        retry_after: Option<Duration>,
    ) {
        let Some(conn) = self.conns.get(&id) else { return };
        let peer = conn.peer;
        let (alternatives, retry_after) = match reason {
            RejectReason::Full => self.way_elsewhere(now, peer),
            _ => (Vec::new(), retry_after),
        };
        let said = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        let fault = Fault::RefusedByUs(reason);
        let failure = Failure::new(fault, format!("we refused {peer} because {}{said}", reason.as_we_say()));
        let answer = Answer::Reject { reason, detail, retry_after, alternatives };
        self.outputs.push_back(Output::Answer { conn: id, answer });
        self.event(PeerEvent::Refused { peer, reason });
        self.ended(now, id, failure, false);
    }

    /// What a full node has for a peer that it refuses: others to try, and a time to come back. Whom it can name nobody may have nowhere else to go,
    /// and is to come back as soon as one who was refused before TLS.
    fn way_elsewhere(&mut self, now: Now, peer: PeerId) -> (Vec<Bytes>, Option<Duration>) {
        let alternatives = if self.take_refusal(now) { self.alternatives(peer) } else { Vec::new() };
        let wait = match alternatives.is_empty() {
            true => self.config.overload_pause.min(self.config.full_retry_after),
            false => self.config.full_retry_after,
        };
        // Not all who were refused at one time come back at one time.
        (alternatives, Some(wait + self.random.up_to(wait)))
    }

    fn set_state(&mut self, id: ConnId, state: ConnState) {
        self.change_conn(id, |conn| conn.state = state);
    }
}
