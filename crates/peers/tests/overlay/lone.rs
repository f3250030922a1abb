//! One peer manager alone: the test makes up everything that reaches it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{DialAddress, NodeKey, PeerId};
use peerage_machine::{Machine, Now, Random};
use peerage_peers::{
    Answer, AttemptId, BookChange, BookEntry, CloseReason, ConnId, Direction, Door, Failure, Fault,
    HelloFacts, Input, Output, PeerAnswer, PeerManager, PeersConfig, RejectReason, Role, Ticket,
};

/// A peer manager and the connections that the test makes up for it.
pub(crate) struct Lone {
    pub(crate) manager: PeerManager,
    pub(crate) now: Now,
    pub(crate) dials: Vec<(AttemptId, PeerId)>,
    /// Where each of them goes.
    pub(crate) routes: Vec<Vec<peerage_identity::DialAddress>>,
    /// What came of connects and visits.
    pub(crate) answers: Vec<(Ticket, Result<PeerId, Fault>)>,
    pub(crate) closed: Vec<(ConnId, CloseReason)>,
    pub(crate) refused: Vec<(ConnId, RejectReason)>,
    pub(crate) door: Door,
    pub(crate) stored: BTreeMap<String, BookEntry>,
    /// When it asked somebody whom he knows.
    pub(crate) asks: Vec<Duration>,
    /// The boot nonce of whoever says hello.
    pub(crate) nonce: u64,
    next: u64,
}

pub(crate) fn key(number: u64) -> PeerId {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    NodeKey::from_seed(seed).peer_id()
}

pub(crate) fn host(number: u64) -> SocketAddr {
    SocketAddr::from(([60, (number / 200) as u8, (number % 200) as u8, 1], 4000))
}

impl Lone {
    pub(crate) fn new(config: PeersConfig) -> Self {
        let me = NodeKey::from_seed([1; 32]).peer_id();
        let manager = PeerManager::new(config, me, 7, Random::from_number(1));
        let (dials, routes, closed, refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (door, stored) = (Door::default(), BTreeMap::new());
        Self {
            manager,
            now: Now::ZERO,
            dials,
            routes,
            answers: Vec::new(),
            closed,
            refused,
            door,
            stored,
            asks: Vec::new(),
            nonce: 5,
            next: 0,
        }
    }

    pub(crate) fn give(&mut self, input: Input) {
        self.manager.handle(self.now, input);
        self.carry_out();
    }

    pub(crate) fn carry_out(&mut self) {
        while let Some(output) = self.manager.poll_output() {
            match output {
                Output::Dial { attempt, routes, expected } => {
                    self.dials.push((attempt, expected.unwrap()));
                    self.routes.push(routes.into_iter().map(|route| route.address).collect());
                }
                Output::Connected { ticket, result } => {
                    self.answers.push((ticket, result.map_err(|failure| failure.fault)));
                }
                Output::Close { conn, reason } => self.closed.push((conn, reason)),
                Output::Answer { conn, answer: Answer::Reject { reason, .. } } => {
                    self.refused.push((conn, reason));
                }
                Output::Door(door) => self.door = door,
                Output::Ask { .. } => self.asks.push(self.now.mono),
                Output::Save { changes } => {
                    for change in changes {
                        if let BookChange::Put(entry) = change {
                            self.stored.insert(entry.peer.clone(), *entry);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Lets time pass; every timer fires when it is due.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(due) = self.manager.poll_timeout().filter(|due| *due <= end.mono) {
            self.now = self.now.after(due.saturating_sub(self.now.mono));
            self.manager.handle_timeout(self.now);
            self.carry_out();
        }
        self.now = end;
    }

    /// Adds a peer that the user knows.
    pub(crate) fn add(&mut self, number: u64, role: Role) {
        let address = DialAddress::from_socket_addr(host(number)).unwrap().with_peer_id(key(number)).unwrap();
        self.give(Input::Add { address, role });
    }

    pub(crate) fn handshaken(
        &mut self,
        peer: PeerId,
        remote: SocketAddr,
        attempt: Option<AttemptId>,
    ) -> ConnId {
        self.next += 1;
        let conn = ConnId(self.next);
        let direction = if attempt.is_some() { Direction::Outbound } else { Direction::Inbound };
        self.give(Input::Handshaken { conn, peer, direction, remote, attempt });
        conn
    }

    pub(crate) fn hello(&mut self, conn: ConnId, order: u64) {
        self.hello_of(conn, order, false);
    }

    /// A hello that may say that it came for a visit.
    pub(crate) fn hello_of(&mut self, conn: ConnId, order: u64, visit: bool) {
        let boot_nonce = self.nonce;
        let hello = HelloFacts { boot_nonce, order, record: None, observed: None, visit, problem: None };
        self.give(Input::Hello { conn, hello });
    }

    /// The whole handshake.
    pub(crate) fn join(
        &mut self,
        peer: PeerId,
        remote: SocketAddr,
        attempt: Option<AttemptId>,
        order: u64,
    ) -> ConnId {
        let conn = self.handshaken(peer, remote, attempt);
        self.hello(conn, order);
        self.give(Input::Answered { conn, answer: PeerAnswer::Accept { order: order + 1, stay: false } });
        conn
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        let failure = Failure::from(Fault::Replaced);
        self.give(Input::Closed { conn, failure, useful: false });
    }

    pub(crate) fn is_closed(&self, conn: ConnId) -> bool {
        self.closed.iter().any(|(closed, _)| *closed == conn)
    }
}
