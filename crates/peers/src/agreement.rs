//! How two nodes agree on one connection.
//!
//! Both may dial at once, and a peer may restart. Between two nodes there can then be several connections whose handshakes overlap;
//! exactly one may carry what applications send, the same on both sides, and it must never be given up for another while both
//! are well. [`Pair`] holds the connections to one peer and decides:
//!
//! - Each side sends a hello on every connection whose TLS handshake is done; a dialler that has already accepted another connection
//!   closes its own new one instead.
//! - A side *accepts* the first hello it reads, and leaves the others unanswered. When both sides accepted a connection, it is
//!   *admitted*: that is final.
//! - When each accepted a different one, each learns it from the other's acceptance. Then the one that the smaller peer ID dialled
//!   wins (among connections dialled by the same side, the one that the dialler accepted): the side that accepted the other one
//!   accepts this one too and closes its first choice, which cannot have been admitted anywhere.
//! - Each hello and each acceptance carries a number that its sender counts up. A dialler never sends a hello while it has accepted
//!   another connection, so a hello with a higher number than its sender's acceptance of the admitted connection says that the
//!   sender has lost that one: the new connection replaces it.
//! - A side whose local address went away dials anew while the admitted connection is still there ([`Pair::connected`] with `instead_of`). Its hello, too, has
//!   a higher number than its acceptance, and the peer takes it for a loss. Neither side closes the older connection: what runs on it may end in peace.
//! - Another boot nonce means that the peer has restarted: its older connections are closed at once.
//!
//! The test at the end plays both sides under every order of delivery that a seed gives.

use crate::types::{CloseReason, ConnId, Direction};

/// What the manager must do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a hello.
    SayHello(ConnId),
    /// Answer the hello with an acceptance.
    Accept(ConnId),
    /// Both sides have accepted.
    Admit(ConnId),
    /// A newer one takes its place: open nothing more on it, and close it when what runs on it has ended. It is no longer part of the pair.
    Drain(ConnId),
    /// Close it; it is no longer part of the pair.
    Close(ConnId, CloseReason),
}

/// All connections to one peer.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Our peer ID is the smaller one.
    smaller: bool,
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    conn: ConnId,
    direction: Direction,
    /// The peer's boot nonce and the number of its hello.
    hello: Option<(u64, u64)>,
    we_accepted: bool,
    /// The number of the peer's acceptance.
    they_accepted: Option<u64>,
    /// The admitted connection whose place it is to take, dialled by us because our address there went away.
    instead_of: Option<ConnId>,
}

impl Link {
    fn admitted(&self) -> bool {
        self.we_accepted && self.they_accepted.is_some()
    }
}

impl Pair {
    pub(crate) fn new(smaller: bool) -> Self {
        Self { smaller, links: Vec::new() }
    }

    /// A TLS handshake is done. With `instead_of`, we dialled because the local address of that connection went away.
    pub(crate) fn connected(
        &mut self,
        conn: ConnId,
        direction: Direction,
        instead_of: Option<ConnId>,
    ) -> Vec<Step> {
        let kept = |link: &Link| link.we_accepted && Some(link.conn) != instead_of;
        if direction == Direction::Outbound && self.links.iter().any(kept) {
            return vec![Step::Close(conn, CloseReason::Duplicate)];
        }
        let link = Link { conn, direction, hello: None, we_accepted: false, they_accepted: None, instead_of };
        // Nearly always the only one.
        self.links.reserve_exact(1);
        self.links.push(link);
        vec![Step::SayHello(conn)]
    }

    /// The peer's hello was read and nothing in it speaks against admission.
    pub(crate) fn hello(&mut self, conn: ConnId, nonce: u64, order: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(index) = self.index(conn) else {
            return steps;
        };
        self.links[index].hello = Some((nonce, order));
        self.links.retain(|link| {
            let outlived = link.hello.is_some_and(|(other, _)| other != nonce);
            if outlived {
                steps.push(Step::Close(link.conn, CloseReason::Replaced));
            }
            !outlived
        });
        if let Some(admitted) = self.links.iter().position(Link::admitted)
            && !self.may_stand_beside(conn, order, admitted, &mut steps)
        {
            return steps;
        }
        if self.links.iter().any(|link| link.we_accepted && !link.admitted()) {
            self.settle(conn, &mut steps);
        } else {
            self.accept(conn, &mut steps);
        }
        steps
    }

    /// The peer accepted our hello. Its own may still be under way, on a stream of its own.
    pub(crate) fn accepted(&mut self, conn: ConnId, order: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(index) = self.index(conn) else { return steps };
        self.links[index].they_accepted = Some(order);
        if self.links[index].we_accepted {
            self.admit(conn, &mut steps);
        } else {
            self.settle(conn, &mut steps);
        }
        steps
    }

    /// A connection has ended.
    pub(crate) fn gone(&mut self, conn: ConnId) -> Vec<Step> {
        let mut steps = Vec::new();
        self.links.retain(|link| link.conn != conn);
        if !self.links.iter().any(|link| link.we_accepted) {
            let next = self.links.iter().find(|link| link.hello.is_some()).map(|link| link.conn);
            if let Some(next) = next {
                self.accept(next, &mut steps);
            }
        }
        steps
    }

    /// The admitted connection.
    pub(crate) fn admitted(&self) -> Option<ConnId> {
        self.links.iter().find(|link| link.admitted()).map(|link| link.conn)
    }

    /// A connection that we have accepted, admitted or not.
    pub(crate) fn accepted_by_us(&self) -> Option<ConnId> {
        self.links.iter().find(|link| link.we_accepted).map(|link| link.conn)
    }

    /// Nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    fn index(&self, conn: ConnId) -> Option<usize> {
        self.links.iter().position(|link| link.conn == conn)
    }

    /// A hello came while another connection is admitted: whether the new one may be accepted all the same.
    fn may_stand_beside(&mut self, conn: ConnId, order: u64, admitted: usize, steps: &mut Vec<Step>) -> bool {
        let old = &self.links[admitted];
        let Some(new) = self.index(conn).map(|index| &self.links[index]) else { return false };
        if old.conn == conn {
            return false;
        }
        if new.instead_of == Some(old.conn) {
            return true;
        }
        let lost_by_peer =
            new.direction == Direction::Inbound && old.they_accepted.is_some_and(|theirs| order > theirs);
        if lost_by_peer {
            self.drain(old.conn, steps);
        } else {
            self.close(conn, CloseReason::Duplicate, steps);
        }
        lost_by_peer
    }

    /// If the peer has accepted `conn`, and we another one that it has not: let the rule decide between the two.
    fn settle(&mut self, conn: ConnId, steps: &mut Vec<Step>) {
        let Some(theirs) = self.index(conn) else { return };
        if self.links[theirs].hello.is_none() || self.links[theirs].they_accepted.is_none() {
            return;
        }
        let Some(ours) = self.links.iter().position(|link| link.we_accepted && !link.admitted()) else {
            return;
        };
        if ours != theirs && self.theirs_wins(ours, theirs) {
            let first_choice = self.links[ours].conn;
            self.close(first_choice, CloseReason::Duplicate, steps);
            self.accept(conn, steps);
        }
    }

    /// We accepted one link and the peer another: does the peer's choice win?
    fn theirs_wins(&self, ours: usize, theirs: usize) -> bool {
        let (ours, theirs) = (&self.links[ours], &self.links[theirs]);
        if ours.direction == theirs.direction {
            return theirs.direction == Direction::Inbound;
        }
        self.smaller == (theirs.direction == Direction::Outbound)
    }

    fn accept(&mut self, conn: ConnId, steps: &mut Vec<Step>) {
        let Some(index) = self.index(conn) else { return };
        self.links[index].we_accepted = true;
        steps.push(Step::Accept(conn));
        if self.links[index].they_accepted.is_some() {
            self.admit(conn, steps);
        }
    }

    /// Ends the other connections whose end is certain: ours, and the peer's whose hello is older than its acceptance. One whose hello is newer says that
    /// the peer has lost this one already.
    fn admit(&mut self, conn: ConnId, steps: &mut Vec<Step>) {
        let Some(new) = self.index(conn).map(|index| &self.links[index]) else { return };
        let (Some(accepted), instead_of) = (new.they_accepted, new.instead_of) else { return };
        if let Some(old) = instead_of.filter(|old| self.index(*old).is_some()) {
            self.drain(old, steps);
        }
        steps.push(Step::Admit(conn));
        self.links.retain(|link| {
            let over = link.conn != conn
                && (link.direction == Direction::Outbound
                    || link.hello.is_some_and(|(_, order)| order < accepted));
            if over {
                steps.push(Step::Close(link.conn, CloseReason::Duplicate));
            }
            !over
        });
        let newer = self.links.iter().find(|link| link.conn != conn && link.hello.is_some());
        if let Some(newer) = newer.map(|link| link.conn) {
            self.drain(conn, steps);
            self.accept(newer, steps);
        }
    }

    fn drain(&mut self, conn: ConnId, steps: &mut Vec<Step>) {
        self.links.retain(|link| link.conn != conn);
        steps.push(Step::Drain(conn));
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason, steps: &mut Vec<Step>) {
        self.links.retain(|link| link.conn != conn);
        steps.push(Step::Close(conn, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_machine::Random;
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    /// What travels on one connection in one direction, in order.
    #[derive(Debug, Clone, Copy)]
    enum Packet {
        TlsDone(Direction),
        Hello(u64, u64),
        Accept(u64),
        Closed,
    }

    /// Two nodes, and for each connection, receiver and stream a queue of packets. The seed chooses which queue moves next; on streams only
    /// once the receiver's handshake is done.
    struct World {
        pairs: [Pair; 2],
        nonces: [u64; 2],
        counters: [u64; 2],
        queues: BTreeMap<(ConnId, usize, u8), VecDeque<Packet>>,
        /// In whose place a connection was dialled.
        instead: BTreeMap<ConnId, ConnId>,
        closed: BTreeSet<(ConnId, usize)>,
        /// Hellos that a side has read.
        heard: BTreeSet<(ConnId, usize)>,
        known: [BTreeSet<ConnId>; 2],
        /// Connections that a side still sees as admitted.
        admitted: [Option<ConnId>; 2],
        /// Closed by a side while it was well and admitted there.
        given_up: Vec<(usize, ConnId, CloseReason)>,
        next: u64,
        random: Random,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self {
                pairs: [Pair::new(true), Pair::new(false)],
                nonces: [100, 200],
                counters: [0, 0],
                queues: BTreeMap::new(),
                instead: BTreeMap::new(),
                closed: BTreeSet::new(),
                heard: BTreeSet::new(),
                known: Default::default(),
                admitted: [None, None],
                given_up: Vec::new(),
                next: 0,
                random: Random::from_number(seed),
            }
        }

        fn dial(&mut self, from: usize) {
            self.next += 1;
            let conn = ConnId(self.next);
            // The client is done first; the server learns of it by the client's last flight.
            self.queues.entry((conn, from, 0)).or_default().push_back(Packet::TlsDone(Direction::Outbound));
        }

        fn step(&mut self) -> bool {
            let ready = |(conn, to, stream): &(ConnId, usize, u8)| {
                *stream == 0 || self.known[*to].contains(conn) || self.closed.contains(&(*conn, *to))
            };
            let busy: Vec<_> =
                self.queues.iter().filter(|(key, q)| !q.is_empty() && ready(key)).map(|(k, _)| *k).collect();
            if busy.is_empty() {
                return false;
            }
            let key = busy[self.random.index(busy.len())];
            let packet = self.queues.get_mut(&key).unwrap().pop_front().unwrap();
            self.deliver(key.0, key.1, packet);
            true
        }

        fn deliver(&mut self, conn: ConnId, to: usize, packet: Packet) {
            let steps = match packet {
                Packet::TlsDone(direction) => {
                    self.known[to].insert(conn);
                    if direction == Direction::Outbound {
                        let server = self.queues.entry((conn, 1 - to, 0)).or_default();
                        server.push_back(Packet::TlsDone(Direction::Inbound));
                    }
                    let dialled = direction == Direction::Outbound;
                    let instead_of = self.instead.get(&conn).copied().filter(|_| dialled);
                    self.pairs[to].connected(conn, direction, instead_of)
                }
                _ if !self.known[to].contains(&conn) => vec![],
                Packet::Hello(nonce, order) => {
                    self.heard.insert((conn, to));
                    self.pairs[to].hello(conn, nonce, order)
                }
                Packet::Accept(order) => self.pairs[to].accepted(conn, order),
                Packet::Closed => {
                    self.known[to].remove(&conn);
                    self.closed.insert((conn, to));
                    if self.admitted[to] == Some(conn) {
                        self.admitted[to] = None;
                    }
                    self.pairs[to].gone(conn)
                }
            };
            self.carry_out(to, steps);
        }

        fn carry_out(&mut self, side: usize, steps: Vec<Step>) {
            for step in steps {
                self.counters[side] += 1;
                let order = self.counters[side];
                match step {
                    Step::SayHello(conn) => self.send(conn, side, Packet::Hello(self.nonces[side], order)),
                    Step::Accept(conn) => {
                        assert!(self.heard.contains(&(conn, side)), "an answer to a hello that was not read");
                        self.send(conn, side, Packet::Accept(order));
                    }
                    Step::Admit(conn) => {
                        assert_eq!(self.admitted[side], None, "two admitted at once");
                        self.admitted[side] = Some(conn);
                    }
                    Step::Drain(conn) => {
                        if self.admitted[side] == Some(conn) {
                            self.admitted[side] = None;
                        }
                    }
                    Step::Close(conn, reason) => {
                        if self.admitted[side] == Some(conn) {
                            self.admitted[side] = None;
                            self.given_up.push((side, conn, reason));
                        }
                        self.known[side].remove(&conn);
                        self.closed.insert((conn, side));
                        self.send(conn, side, Packet::Closed);
                    }
                }
            }
        }

        fn send(&mut self, conn: ConnId, from: usize, packet: Packet) {
            let stream = match packet {
                Packet::TlsDone(_) => 0,
                Packet::Hello(..) => 1,
                Packet::Accept(_) => 2,
                Packet::Closed => 3,
            };
            self.queues.entry((conn, 1 - from, stream)).or_default().push_back(packet);
        }

        /// The address of `side` on its admitted connection goes away: it dials anew and keeps the old one until then.
        fn replace(&mut self, side: usize) {
            let Some(old) = self.admitted[side] else { return };
            self.instead.insert(ConnId(self.next + 1), old);
            self.dial(side);
        }

        /// One side loses its state of a connection without the other hearing of it.
        fn lose(&mut self, side: usize) {
            if let Some(conn) = self.admitted[side].take() {
                self.known[side].remove(&conn);
                self.queues.retain(|(of, to, _), _| (*of, *to) != (conn, side));
                self.closed.insert((conn, side));
                let steps = self.pairs[side].gone(conn);
                self.carry_out(side, steps);
            }
        }

        fn restart(&mut self, side: usize) {
            self.nonces[side] += 1000;
            self.counters[side] = 0;
            self.pairs[side] = Pair::new(side == 0);
            self.known[side].clear();
            self.admitted[side] = None;
            self.queues.retain(|(_, to, _), _| *to != side);
            self.closed.extend((0..=self.next).map(|conn| (ConnId(conn), side)));
        }

        fn settle(&mut self) {
            for _ in 0..10_000 {
                if !self.step() {
                    return;
                }
            }
            panic!("no end");
        }

        fn agreed(&self) -> ConnId {
            assert_eq!(self.admitted[0], self.admitted[1], "{:?}", self.pairs);
            let conn = self.admitted[0].expect("one connection is admitted");
            for side in 0..2 {
                let conns: Vec<_> = self.pairs[side].links.iter().map(|link| link.conn).collect();
                assert_eq!(conns, [conn], "side {side} holds others: {:?}", self.pairs[side]);
            }
            conn
        }
    }

    fn for_seeds(test: impl Fn(u64, &mut World)) {
        for seed in 0..3000 {
            let mut world = World::new(seed);
            let run = std::panic::AssertUnwindSafe(|| test(seed, &mut world));
            if let Err(failure) = std::panic::catch_unwind(run) {
                eprintln!("seed {seed}: run it alone by setting the range in for_seeds to {seed}..={seed}");
                std::panic::resume_unwind(failure);
            }
        }
    }

    /// when A and B dial each other at the same time, exactly one link survives, the same on both sides.
    /// Contract C-19.
    #[test]
    fn simultaneous_dials_leave_the_same_connection_on_both_sides_and_give_up_none_that_was_admitted() {
        for_seeds(|seed, world| {
            world.dial(0);
            world.dial(1);
            if seed % 3 == 0 {
                world.dial((seed % 2) as usize);
            }
            world.settle();
            world.agreed();
            assert_eq!(world.given_up, []);
        });
    }

    /// a duplicate that ends takes nothing from the connection that is kept.
    #[test]
    fn a_dial_at_any_moment_of_another_handshake_leaves_one_connection() {
        for_seeds(|seed, world| {
            world.dial(0);
            for _ in 0..seed % 9 {
                world.step();
            }
            world.dial(1);
            world.settle();
            world.agreed();
            assert_eq!(world.given_up, []);
        });
    }

    #[test]
    fn a_peer_that_lost_the_connection_replaces_it_at_once() {
        for_seeds(|seed, world| {
            let (first, loser) = ((seed % 2) as usize, (seed / 2 % 2) as usize);
            world.dial(first);
            world.settle();
            let old = world.agreed();
            world.lose(loser);
            world.dial(loser);
            world.settle();
            assert_ne!(world.agreed(), old);
        });
    }

    #[test]
    fn a_connection_whose_address_went_away_is_replaced_and_neither_side_cuts_it_off() {
        for_seeds(|seed, world| {
            let first = (seed % 2) as usize;
            world.dial(first);
            // Either side may still be waiting for the other's acceptance.
            while world.admitted[1 - first].is_none() {
                assert!(world.step());
            }
            if seed % 3 == 0 {
                world.settle();
            }
            let old = world.admitted[1 - first];
            world.replace(1 - first);
            if seed % 5 == 0 {
                // The peer dials too: without a reason it may not, and nothing comes of it.
                world.dial(first);
            }
            world.settle();
            assert_ne!(Some(world.agreed()), old);
            assert_eq!(world.given_up, []);
        });
    }

    #[test]
    fn a_replacement_that_meets_the_redial_of_a_peer_that_lost_the_connection_leaves_one() {
        for_seeds(|seed, world| {
            let first = (seed % 2) as usize;
            world.dial(first);
            world.settle();
            let old = world.agreed();
            world.replace(1 - first);
            for _ in 0..seed % 9 {
                world.step();
            }
            if world.admitted[first] == Some(old) {
                world.lose(first);
                world.dial(first);
            }
            world.settle();
            assert_ne!(world.agreed(), old);
        });
    }

    #[test]
    fn a_restarted_peer_replaces_its_dead_connection_whoever_dials() {
        for_seeds(|seed, world| {
            let (first, restarted) = ((seed % 2) as usize, (seed / 2 % 2) as usize);
            world.dial(first);
            world.settle();
            let old = world.agreed();
            world.restart(restarted);
            world.dial(restarted);
            world.settle();
            assert_ne!(world.agreed(), old);
        });
    }
}
