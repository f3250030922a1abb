//! The task that owns the peer manager: it feeds it what happened and carries out what it decides.
//!
//! No application byte passes through here. The driver never waits for a session: what it tells one fits into the session's queue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use peerage_identity::{AddressScope, DialAddress, PeerId};
use peerage_machine::{Machine, Now};
use peerage_peers::{
    AttemptId, BookEntry, CloseReason, ConnId, Direction, DoorState, Failure, HelloFacts, Input, Output,
    PeerClass, PeerEvent, PeerManager, PeerState, Story, Target, Ticket,
};
use peerage_transport::{CloseCode, Connection, Door};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::about::About;
use crate::dial;
use crate::error::ConnectError;
use crate::orders::OrderGiver;
use crate::peer::{Peer, PeerInfo};
use crate::session::Order;
use crate::shared::Shared;

/// What the driver hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something that goes to the peer manager as it is.
    Input(Input),
    /// A connection's TLS handshake is done.
    Handshaken {
        conn: ConnId,
        connection: Connection,
        direction: Direction,
        attempt: Option<AttemptId>,
        orders: OrderGiver,
    },
    /// A hello was read.
    Hello { conn: ConnId, facts: Box<HelloFacts>, about: Box<About> },
    /// A session has ended.
    Ended { conn: ConnId, failure: Failure },
    /// A peer asks whom we know.
    Exchange { asker: PeerId, most: usize, reply: oneshot::Sender<Option<Vec<Bytes>>> },
    /// Addresses that this machine had are gone.
    AddressesGone(Vec<IpAddr>),
    /// The user wants a connection.
    Connect { target: Target, reply: oneshot::Sender<Result<PeerId, ConnectError>> },
    /// The user wants a connection to a peer, of which others have said where it is.
    Reach {
        peer: PeerId,
        addresses: Vec<DialAddress>,
        told_from: AddressScope,
        reply: oneshot::Sender<Result<PeerId, ConnectError>>,
    },
    /// Something wants to ask a peer, as a lookup does: a connection for that long.
    Visit {
        peer: PeerId,
        /// Where third parties say that it is, and from where they were reached.
        addresses: Vec<DialAddress>,
        told_from: Option<AddressScope>,
        /// When its receiver is dropped before the dial, there is none.
        reply: oneshot::Sender<Result<PeerId, Failure>>,
    },
    /// The user asks for the allow-list.
    Allowed { reply: oneshot::Sender<Option<Vec<PeerId>>> },
    /// The user wants to watch.
    Watch { reply: oneshot::Sender<Watching> },
    /// The user wants the address book.
    Export { reply: oneshot::Sender<Vec<BookEntry>> },
    /// Everything that was sent before has been carried out.
    CaughtUp { reply: oneshot::Sender<()> },
    /// The user asks why a peer is what it is.
    Why { peer: PeerId, reply: oneshot::Sender<Story> },
    /// Something that only the peer manager can answer or do.
    Manager(Call),
}

/// Runs on the peer manager, between two inputs.
pub(crate) struct Call(pub(crate) Box<CallFn>);

/// What a [`Call`] runs.
pub(crate) type CallFn = dyn FnOnce(Now, &mut PeerManager) + Send;

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call")
    }
}

/// The state at one moment, and the changes after it.
#[derive(Debug)]
pub(crate) struct Watching {
    pub(crate) connected: Vec<PeerInfo>,
    pub(crate) states: Vec<(PeerId, PeerState)>,
    pub(crate) events: broadcast::Receiver<PeerEvent>,
}

/// The driver's own state.
struct Driver {
    shared: Arc<Shared>,
    manager: PeerManager,
    sessions: BTreeMap<ConnId, SessionHandle>,
    dials: BTreeMap<AttemptId, AbortHandle>,
    tickets: BTreeMap<Ticket, Waiting>,
    /// Peers whose visits are over, while what is under way ends.
    leaving: BTreeMap<PeerId, (ConnId, Arc<Peer>)>,
    events: broadcast::Sender<PeerEvent>,
    next_ticket: u64,
}

/// Who waits for a connection.
enum Waiting {
    User(oneshot::Sender<Result<PeerId, ConnectError>>),
    Visitor(oneshot::Sender<Result<PeerId, Failure>>),
}

impl Waiting {
    fn is_closed(&self) -> bool {
        match self {
            Waiting::User(reply) => reply.is_closed(),
            Waiting::Visitor(reply) => reply.is_closed(),
        }
    }

    fn answer(self, result: Result<PeerId, Failure>) {
        // Without a receiver nobody waits any more.
        match self {
            Waiting::User(reply) => drop(reply.send(result.map_err(ConnectError::from))),
            Waiting::Visitor(reply) => drop(reply.send(result)),
        }
    }
}

struct SessionHandle {
    connection: Connection,
    direction: Direction,
    orders: OrderGiver,
    /// What its hello said, until it is admitted.
    about: Option<Box<About>>,
    peer: Option<Arc<Peer>>,
}

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>, manager: PeerManager, mut messages: mpsc::Receiver<Message>) {
    let mut driver = Driver {
        shared: shared.clone(),
        manager,
        sessions: BTreeMap::new(),
        dials: BTreeMap::new(),
        tickets: BTreeMap::new(),
        leaving: BTreeMap::new(),
        events: broadcast::Sender::new(shared.limits.max_events_behind),
        next_ticket: 0,
    };
    driver.mark_classes();
    loop {
        driver.carry_out();
        let due = driver.manager.poll_timeout();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(shared.clock.instant(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Messages that never pause would keep it waiting, and it begins nothing.
            () = shared.visitor_left.notified() => driver.forget_gone(shared.clock.now()),
            message = messages.recv() => match message {
                Some(message) => driver.handle(message),
                None => return,
            },
            () = timer => {}
        }
        shared.clock.set(shared.environment.unix_now());
        // Messages that never pause would keep the timer waiting.
        let now = shared.clock.now();
        if driver.manager.poll_timeout().is_some_and(|due| due <= now.mono) {
            if !driver.manager.idle_visits(now).is_empty() {
                driver.look_at_visits(now);
            }
            driver.manager.handle_timeout(now);
        }
    }
}

/// Peers hold the shared state, which holds them: whoever ends the driver, and be it the end of the runtime, parts the two.
impl Drop for Driver {
    fn drop(&mut self) {
        for peer in self.shared.connected() {
            self.shared.remove_peer(&peer, "this node is gone");
        }
        // The counters stay for whoever still holds a handle; a connection would keep its socket.
        for conn in self.sessions.keys() {
            self.shared.traffic.end(*conn);
        }
    }
}

impl Driver {
    fn handle(&mut self, message: Message) {
        let now = self.shared.clock.now();
        match message {
            Message::Input(input) => {
                let names = matches!(input, Input::SetClass { .. } | Input::Add { .. });
                if matches!(input, Input::Answered { .. } | Input::Foreign { .. }) {
                    // Somebody may have to go.
                    self.look_at_visits(now);
                }
                self.manager.handle(now, input);
                if names {
                    self.mark_classes();
                }
            }
            Message::Handshaken { conn, connection, direction, attempt, orders } => {
                let (peer, remote) = (connection.peer_id(), connection.remote_address());
                let rtt = connection.rtt();
                if let Some(attempt) = attempt {
                    self.dials.remove(&attempt);
                }
                self.shared.traffic.begin(conn, connection.clone(), self.manager.class_of(&peer));
                let handle = SessionHandle { connection, direction, orders, about: None, peer: None };
                self.sessions.insert(conn, handle);
                self.manager.handle(now, Input::Handshaken { conn, peer, direction, remote, attempt });
                self.manager.handle(now, Input::Measured { conn, rtt });
            }
            Message::Hello { conn, facts, about } => {
                if let Some(session) = self.sessions.get_mut(&conn) {
                    session.about = Some(about);
                }
                self.look_at_visits(now);
                self.manager.handle(now, Input::Hello { conn, hello: *facts });
            }
            Message::Ended { conn, failure } => {
                let useful = self.drop_session(conn, &failure.detail);
                self.manager.handle(now, Input::Closed { conn, failure, useful });
            }
            Message::Exchange { asker, most, reply } => {
                let _ = reply.send(self.manager.answer_exchange(now, asker, most));
            }
            Message::AddressesGone(gone) => {
                let stranded = |session: &SessionHandle| {
                    session.connection.local_ip().is_some_and(|ip| gone.contains(&ip))
                };
                let mut conns: Vec<_> = self
                    .sessions
                    .iter()
                    .filter(|(_, session)| stranded(session))
                    .map(|(id, _)| *id)
                    .collect();
                conns.sort_unstable();
                for conn in conns {
                    self.manager.handle(now, Input::LocalAddressChanged { conn });
                }
            }
            Message::Connect { target, reply } => {
                let ticket = self.ticket(now, Waiting::User(reply));
                self.manager.handle(now, Input::Connect { ticket, target });
            }
            Message::Reach { peer, addresses, told_from, reply } => {
                let ticket = self.ticket(now, Waiting::User(reply));
                self.manager.handle(now, Input::Reach { ticket, peer, addresses, told_from });
            }
            // Whoever wanted it has gone while it stood in the queue.
            Message::Visit { reply, .. } if reply.is_closed() => {}
            Message::Visit { peer, addresses, told_from, reply } => {
                let ticket = self.ticket(now, Waiting::Visitor(reply));
                self.manager.handle(now, Input::Visit { ticket, peer, addresses, told_from });
            }
            Message::Allowed { reply } => {
                let allowed = self.manager.allowed();
                let _ = reply.send(allowed.map(|peers| peers.iter().copied().collect()));
            }
            Message::Manager(call) => (call.0)(now, &mut self.manager),
            Message::Watch { reply } => {
                let connected = self.shared.connected().iter().map(|peer| peer.info()).collect();
                let states = self.manager.states().collect();
                let _ = reply.send(Watching { connected, states, events: self.events.subscribe() });
            }
            Message::Export { reply } => {
                let _ = reply.send(self.manager.export_book().collect());
            }
            Message::CaughtUp { reply } => {
                let _ = reply.send(());
            }
            Message::Why { peer, reply } => {
                let _ = reply.send(self.manager.why(self.shared.clock.now(), &peer));
            }
        }
    }

    /// Forgets who waits no longer, and ends what was to be begun for them.
    fn forget_gone(&mut self, now: Now) {
        let gone: Vec<_> =
            self.tickets.iter().filter(|(_, waiting)| waiting.is_closed()).map(|(id, _)| *id).collect();
        if !gone.is_empty() {
            gone.iter().for_each(|ticket| drop(self.tickets.remove(ticket)));
            self.manager.handle(now, Input::CancelVisits { tickets: gone });
        }
    }

    /// A number for somebody who waits for a connection. Users who wait no longer are forgotten by then.
    fn ticket(&mut self, now: Now, waiting: Waiting) -> Ticket {
        self.forget_gone(now);
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, waiting);
        ticket
    }

    /// Tells the peer manager over which visits something of an application has passed since the last look.
    fn look_at_visits(&mut self, now: Now) {
        let peers = self.manager.visits().filter_map(|conn| self.sessions.get(&conn)?.peer.as_ref());
        let lively: Vec<_> = peers.filter(|peer| peer.was_lively()).map(|peer| peer.id).collect();
        lively.into_iter().for_each(|peer| self.manager.handle(now, Input::Used { peer }));
    }

    /// Carries out what the peer manager wants done.
    fn carry_out(&mut self) {
        while let Some(output) = self.manager.poll_output() {
            match output {
                Output::Dial { attempt, routes, expected } => {
                    let dialling = dial::run(self.shared.clone(), attempt, routes, expected);
                    let stop = self.shared.stop.clone();
                    let task = self.shared.tasks.spawn(async move {
                        tokio::select! {
                            biased;
                            () = stop.cancelled() => {}
                            () = dialling => {}
                        }
                    });
                    self.dials.retain(|_, dial| !dial.is_finished());
                    self.dials.insert(attempt, task.abort_handle());
                }
                Output::SayHello { conn, order, visit } => self.order(conn, Order::SayHello { order, visit }),
                Output::Answer { conn, answer } => self.order(conn, Order::Answer(Box::new(answer))),
                Output::Admit { conn, foreign, .. } => self.admit(conn, foreign),
                Output::Drain { conn } => self.order(conn, Order::Drain),
                Output::Close { conn, reason } => self.close(conn, reason),
                Output::Ask { conn, most } => {
                    if let Some(peer) = self.sessions.get(&conn).and_then(|session| session.peer.clone()) {
                        self.shared.spawn(async move { crate::protocols::exchange::ask(&peer, most).await });
                    }
                }
                Output::Connected { ticket, result } => {
                    if let Some(waiting) = self.tickets.remove(&ticket) {
                        waiting.answer(result);
                    }
                }
                Output::Door(door) => {
                    tracing::debug!(state = ?door.state, known = door.known.len(), banned = door.banned.len(), "door");
                    let strangers = door.state == DoorState::Open;
                    // A node that is shutting down hears nobody.
                    let known = if door.state == DoorState::Closed { BTreeSet::new() } else { door.known };
                    self.shared.endpoint.set_door(Door { strangers, known, banned: door.banned });
                }
                Output::Observed { addresses } => {
                    tracing::info!(?addresses, "where others see this node has changed");
                    crate::listening::set_observed(&self.shared, addresses);
                }
                Output::Save { changes } => self.shared.saving.add(changes),
                Output::Event(event) => self.tell(event),
            }
        }
    }

    fn admit(&mut self, conn: ConnId, foreign: bool) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let connection = session.connection.clone();
        let about = session.about.take().map(|about| *about).unwrap_or_default();
        let peer = Peer::new(self.shared.clone(), connection, session.direction, foreign, about);
        peer.persistent.store(self.manager.is_persistent(&peer.id), Ordering::Relaxed);
        session.peer = Some(peer.clone());
        let leaving = || self.leaving.get(&peer.id).map(|(_, before)| before.clone());
        let before = self.shared.peer(&peer.id).or_else(leaving);
        before.iter().for_each(|before| peer.follow(before));
        // The table is up to date before anyone hears of the peer. What the older connection had queued is still sent there, and first.
        self.shared.insert_peer(peer.clone());
        before.iter().for_each(|before| before.finish_outboxes());
        self.order(conn, Order::Admit(peer));
    }

    /// Tells the connected peers which of them are always wanted, and the counters who is of which class.
    fn mark_classes(&self) {
        let private = self.manager.classes().filter(|(_, class)| *class == PeerClass::Private);
        self.shared.set_private(private.map(|(peer, _)| peer).collect());
        for (conn, session) in &self.sessions {
            let id = session.connection.peer_id();
            self.shared.traffic.classify(*conn, self.manager.class_of(&id));
            if let Some(peer) = &session.peer {
                peer.persistent.store(self.manager.is_persistent(&id), Ordering::Relaxed);
            }
        }
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        let gives_way = matches!(reason, CloseReason::VisitOver | CloseReason::VisitTrimmed);
        if gives_way && let Some(peer) = self.sessions.get(&conn).and_then(|session| session.peer.clone()) {
            // For the peer manager it is gone; what is under way on it may end.
            self.shared.let_go_of(&peer);
            self.leaving.insert(peer.id, (conn, peer));
            return self.order(conn, Order::Leave(reason));
        }
        self.order(conn, Order::Close(reason));
        self.drop_session(conn, "closed by this node");
    }

    /// Forgets a session. Whether an application's message passed over it.
    fn drop_session(&mut self, conn: ConnId, cause: &str) -> bool {
        let Some(session) = self.sessions.remove(&conn) else { return false };
        self.shared.traffic.end(conn);
        let Some(peer) = session.peer else { return false };
        self.leaving.retain(|_, (leaving, _)| *leaving != conn);
        self.shared.remove_peer(&peer, cause);
        peer.is_useful()
    }

    fn order(&mut self, conn: ConnId, order: Order) {
        let Some(session) = self.sessions.get(&conn) else { return };
        if !session.orders.0.give(order) {
            // The queue holds every order of a connection's life; a session that takes none is stuck or gone.
            tracing::debug!(peer = %session.connection.peer_id(), "a session takes no more orders");
            session.connection.close(CloseCode::Internal, "internal error");
        }
    }

    fn tell(&mut self, event: PeerEvent) {
        log(&event);
        self.shared.events.count(&event);
        // Without a watcher there is nobody to tell.
        let _ = self.events.send(event);
    }
}

fn log(event: &PeerEvent) {
    match event {
        PeerEvent::Connected { peer, direction, address, foreign } => {
            tracing::info!(%peer, %direction, %address, foreign, "peer connected");
        }
        PeerEvent::Changed { peer, to, cause, .. } => {
            let state = to.as_ref().map_or("not known", PeerState::name);
            tracing::trace!(%peer, state, %cause, "peer changed");
        }
        PeerEvent::Disconnected { peer, cause, .. } => tracing::info!(%peer, cause, "peer disconnected"),
        PeerEvent::DialFailed { address, cause, retry_in, .. } => {
            tracing::debug!(%address, cause, ?retry_in, "dial failed");
        }
        PeerEvent::Refused { peer, reason } => tracing::debug!(%peer, %reason, "peer refused"),
        PeerEvent::RefusedByPeer { peer, reason, alternatives } => {
            tracing::debug!(%peer, %reason, alternatives = alternatives.len(), "refused by a peer");
        }
        PeerEvent::PeerCloned { peer, address } => {
            tracing::warn!(%peer, %address, "two nodes run with this peer's key: the earlier one is refused");
        }
        PeerEvent::Penalised { peer, penalty, banned } => {
            tracing::debug!(%peer, %penalty, banned, "peer misbehaved");
        }
        PeerEvent::Banned { ban } => {
            tracing::info!(target = %ban.target, reason = ban.reason, until = ?ban.until, "banned");
        }
        PeerEvent::Unbanned { target } => tracing::info!(%target, "ban lifted"),
        PeerEvent::CloneSeen { address, told_by } => {
            let told_by = told_by.map(tracing::field::display);
            tracing::warn!(%address, told_by, "another node runs with this node's key: stop one of them, or give it a key of its own");
        }
        _ => {}
    }
}
