//! The state of the peer manager, and where its inputs go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peerage_identity::{DialAddress, PeerId};
use peerage_machine::{Machine, Now, Random, TokenBucket};

use crate::agreement::Pair;
use crate::bans::Bans;
use crate::book::{Book, Source};
use crate::budget::DialBudget;
use crate::cause::{Cause, Failure, Fault};
use crate::class::PeerClass;
use crate::config::PeersConfig;
use crate::conns::Conns;
use crate::dial_queue::{DialQueue, Target};
use crate::door::Door;
use crate::exchange::Exchange;
use crate::explicit::Explicit;
use crate::journal::Journal;
use crate::observed::Votes;
use crate::penalty::Scores;
use crate::rotation::Rotation;
use crate::seeds::Seeds;
use crate::standing::Standing;
use crate::starts::Starts;
use crate::state::PeerState;
use crate::types::{
    AttemptId, CloseReason, ConnId, Course, Direction, Input, Output, PeerEvent, Role, Route, Ticket,
};
use crate::used::Place;
use crate::visits::Visits;

/// Decides who we are connected to. See the crate's documentation for the way of a connection through it.
#[derive(Debug)]
pub struct PeerManager {
    pub(crate) config: PeersConfig,
    pub(crate) me: PeerId,
    pub(crate) boot_nonce: u64,
    pub(crate) random: Random,
    pub(crate) book: Book,
    /// Who may be connected; everyone when there is no list.
    pub(crate) allowed: Option<BTreeSet<PeerId>>,
    /// What the user said of peers while the node ran, and in earlier runs.
    pub(crate) said: BTreeMap<PeerId, Standing>,
    /// The start is over: what the user says is stored.
    pub(crate) remembers: bool,
    /// Connections whose TLS handshake is done.
    pub(crate) conns: Conns,
    pub(crate) pairs: BTreeMap<PeerId, Pair>,
    /// Dials under way.
    pub(crate) attempts: BTreeMap<AttemptId, Attempt>,
    /// Explicit connects that wait for a dial slot.
    pub(crate) explicit: VecDeque<Explicit>,
    /// Connections whose local address went away: each waits for a dial slot.
    pub(crate) stranded: VecDeque<ConnId>,
    /// Explicit connects that wait for a peer whose handshake is under way.
    pub(crate) waiting: BTreeMap<PeerId, Vec<Ticket>>,
    /// Persistent peers that are not connected.
    pub(crate) persistent: DialQueue,
    /// Connections for a while: those to be begun, and what is remembered of others.
    pub(crate) visits: Visits,
    /// Contacts for the first dials.
    pub(crate) seeds: Seeds,
    /// Other peers and addresses that may be dialled while a place is free.
    pub(crate) candidates: DialQueue,
    pub(crate) budget: DialBudget,
    /// When the node's budget allows the next dial.
    pub(crate) dials_resume: Duration,
    pub(crate) rotation: Rotation,
    /// Rounds that were begun.
    pub(crate) rotations: u64,
    /// When a connection will have lasted long enough to clear its peer's failures, and from then on when the time that it has lasted is to be stored.
    useful_at: BTreeSet<(Duration, ConnId)>,
    pub(crate) journal: Journal,
    /// What watchers were told last of each peer.
    pub(crate) told: BTreeMap<PeerId, PeerState>,
    /// When changes of the book are handed out to be stored.
    pub(crate) save_due: Option<Duration>,
    pub(crate) exchange: Exchange,
    pub(crate) bans: Bans,
    /// When the first ban ends.
    pub(crate) ban_timer: Option<Duration>,
    pub(crate) scores: Scores,
    /// Refusals with alternatives that may still be given.
    pub(crate) refusals: TokenBucket,
    /// Refusals without any that may still be given while visitors would find a place.
    pub(crate) plain_refusals: TokenBucket,
    /// Until then the refusals were too many, so strangers are not heard while we are full.
    pub(crate) door_shut_until: Option<Duration>,
    /// What the driver was told last.
    pub(crate) door: Door,
    /// Where persistent and unconditional peers were seen last.
    pub(crate) exempt_seen: BTreeMap<PeerId, IpAddr>,
    pub(crate) votes: Votes,
    pub(crate) starts: Starts,
    /// Failures of addresses whose peer is not known.
    pub(crate) address_failures: BTreeMap<DialAddress, u32>,
    /// Other nodes with our key that we met.
    pub(crate) clones: VecDeque<u64>,
    /// Somebody told us of one.
    pub(crate) told_of_clone: bool,
    pub(crate) shutting_down: bool,
    /// A peer that can be dialled again was admitted since the start.
    pub(crate) found_one: bool,
    pub(crate) outputs: VecDeque<Output>,
    /// The time of the latest input.
    pub(crate) clock: Duration,
    order: u64,
    next_attempt: u64,
}

/// One connection whose TLS handshake is done.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) peer: PeerId,
    pub(crate) direction: Direction,
    pub(crate) remote: SocketAddr,
    pub(crate) dialled: Option<DialAddress>,
    pub(crate) since: Duration,
    pub(crate) state: ConnState,
    /// Unless its peer is exempt, it takes one of the places that the caps count. Explicit connects don't.
    pub(crate) counted: bool,
    /// Whose cap counts it: that of its direction, or of the connection from which it takes over.
    pub(crate) place: Direction,
    /// The place that its peer takes by it, as it was last counted ([`crate::conns::Conns::recount`]).
    pub(crate) takes: Option<Place>,
    /// Whoever dialled it did so for a while only.
    pub(crate) visit: bool,
    /// Its dialler's hello says so, whatever we make of it, and it has not been told otherwise.
    pub(crate) asked_to_visit: bool,
    /// When a visit was last of use.
    pub(crate) used: Duration,
    /// Of the time that it has lasted, what stands in the address book.
    pub(crate) counted_time: Duration,
    /// It is drained, but the one that takes its place is not admitted yet.
    pub(crate) stands_in: bool,
    /// Where the peer says that it sees us.
    pub(crate) observed: Option<SocketAddr>,
}

impl Conn {
    /// The place that it takes if it is the latest one to do so and its peer is not exempt: an inbound one with the good hello.
    pub(crate) fn wants(&self) -> Option<Place> {
        let heard = self.place == Direction::Outbound || self.state != ConnState::Greeting;
        (self.counted && heard).then_some(Place { direction: self.place, visit: self.visit })
    }

    /// When the time that it has lasted is next counted: once it was useful, then each time that it has doubled.
    fn next_count(&self, useful_after: Duration) -> Duration {
        let next = match self.counted_time.is_zero() {
            true => useful_after,
            false => self.counted_time.saturating_mul(2).max(useful_after * 10),
        };
        self.since + next.max(Duration::from_secs(1))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnState {
    /// The hellos are under way.
    Greeting,
    /// The peer's hello was found good; the other side's answer, or the choice among several connections, is open.
    Greeted,
    /// Both have accepted.
    Admitted,
    /// Admitted, without a hello.
    Foreign,
    /// A newer one takes, or has taken, its place.
    Draining,
}

/// One dial under way.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) target: Target,
    /// Where it is tried, the best first; never empty.
    pub(crate) routes: Vec<Route>,
    /// What became of each, once it is known.
    pub(crate) courses: Vec<Course>,
    pub(crate) tickets: Vec<Ticket>,
    /// For a while only.
    pub(crate) visit: bool,
    pub(crate) counted: bool,
    /// Whose cap counts its connection.
    pub(crate) place: Direction,
    /// Its addresses that nobody has proved were taken from their budget.
    pub(crate) budgeted: bool,
    /// The connection whose place it is to take.
    pub(crate) instead_of: Option<ConnId>,
}

/// What is known of an admitted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectedPeer {
    /// Who.
    pub peer: PeerId,
    /// The connection.
    pub conn: ConnId,
    /// Who opened it.
    pub direction: Direction,
    /// The other end of the path.
    pub address: SocketAddr,
    /// A node of another libp2p implementation.
    pub foreign: bool,
    /// When the TLS handshake was done, as [`Now::mono`].
    pub since: Duration,
    /// It ends when it is not used for a while.
    pub visit: bool,
}

/// How much of everything a peer manager holds, and has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Gauges {
    /// Peers in the address book.
    pub known: usize,
    /// Bans in force.
    pub bans: usize,
    /// Dials under way, to the end of TLS.
    pub dials: usize,
    /// Inbound connections whose hellos are under way.
    pub greeting_inbound: usize,
    /// The same of outbound ones.
    pub greeting_outbound: usize,
    /// Targets that wait in the dial queues, due or not.
    pub queued_dials: usize,
    /// Explicit connects that wait for a dial slot.
    pub waiting_connects: usize,
    /// Rounds of rotation that were begun.
    pub rotations: u64,
    /// Visits that wait for their dial.
    pub waiting_visits: usize,
    /// Places that visits of ours take: handshakes after TLS, and connections.
    pub outbound_visits: usize,
    /// Places that visits of others take.
    pub inbound_visits: usize,
}

/// Explicit connects that may wait for a dial slot.
pub(crate) const MAX_EXPLICIT_WAITING: usize = 1024;

impl PeerManager {
    /// A manager for the node `me`, which drew `boot_nonce` at its start.
    pub fn new(config: PeersConfig, me: PeerId, boot_nonce: u64, random: Random) -> Self {
        let pause = config.exchange_pause;
        let refusals = TokenBucket::new(config.refusal_burst, config.refusals_per_second, Now::ZERO);
        let (burst, rate) = (config.plain_refusal_burst, config.plain_refusals_per_second);
        let plain_refusals = TokenBucket::new(burst, rate, Now::ZERO);
        Self {
            book: Book::new(&config),
            budget: DialBudget::new(&config),
            visits: Visits::new(&config),
            journal: Journal::new(config.max_journal_per_peer, config.max_journal_entries),
            config,
            me,
            boot_nonce,
            random,
            allowed: None,
            said: BTreeMap::new(),
            remembers: false,
            conns: Conns::default(),
            pairs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            explicit: VecDeque::new(),
            stranded: VecDeque::new(),
            waiting: BTreeMap::new(),
            persistent: DialQueue::default(),
            seeds: Seeds::default(),
            candidates: DialQueue::default(),
            exchange: Exchange::new(pause),
            bans: Bans::default(),
            ban_timer: None,
            scores: Scores::default(),
            refusals,
            plain_refusals,
            door_shut_until: None,
            door: Door::default(),
            exempt_seen: BTreeMap::new(),
            votes: Votes::default(),
            starts: Starts::default(),
            dials_resume: Duration::ZERO,
            rotation: Rotation::default(),
            rotations: 0,
            useful_at: BTreeSet::new(),
            told: BTreeMap::new(),
            save_due: None,
            address_failures: BTreeMap::new(),
            clones: VecDeque::new(),
            told_of_clone: false,
            shutting_down: false,
            found_one: false,
            outputs: VecDeque::new(),
            clock: Duration::ZERO,
            order: 0,
            next_attempt: 0,
        }
    }

    /// The admitted peers, in the order of their IDs.
    pub fn connected(&self) -> impl Iterator<Item = ConnectedPeer> + '_ {
        self.conns.iter().filter_map(|(id, conn)| {
            let foreign = match conn.state {
                ConnState::Admitted => false,
                ConnState::Foreign => true,
                _ => return None,
            };
            Some(ConnectedPeer {
                peer: conn.peer,
                conn: *id,
                direction: conn.direction,
                address: conn.remote,
                foreign,
                since: conn.since,
                visit: conn.visit,
            })
        })
    }

    /// What the user has made of which peers, in the order of their IDs.
    pub fn classes(&self) -> impl Iterator<Item = (PeerId, PeerClass)> + '_ {
        self.book.classes.iter()
    }

    /// The class of a peer: of several the first of persistent, private and unconditional.
    pub fn class_of(&self, peer: &PeerId) -> Option<PeerClass> {
        let order = [PeerClass::Persistent, PeerClass::Private, PeerClass::Unconditional];
        order.into_iter().find(|class| self.book.classes.has(peer, *class))
    }

    /// How many peers the address book holds.
    pub fn known_peers(&self) -> usize {
        self.book.len()
    }

    /// How much of everything there is.
    pub fn gauges(&self) -> Gauges {
        let greeting = |direction| {
            let is = |conn: &&Conn| {
                conn.direction == direction && matches!(conn.state, ConnState::Greeting | ConnState::Greeted)
            };
            self.conns.values().filter(is).count()
        };
        Gauges {
            known: self.book.len(),
            bans: self.bans().count(),
            dials: self.attempts.len(),
            greeting_inbound: greeting(Direction::Inbound),
            greeting_outbound: greeting(Direction::Outbound),
            queued_dials: self.persistent.len() + self.seeds.queue.len() + self.candidates.len(),
            waiting_connects: self.explicit.len(),
            rotations: self.rotations,
            waiting_visits: self.visits.waiting(),
            outbound_visits: self.visits_used(Direction::Outbound),
            inbound_visits: self.visits_used(Direction::Inbound),
        }
    }

    /// The next number for a statement about admission.
    pub(crate) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub(crate) fn next_attempt(&mut self) -> AttemptId {
        self.next_attempt += 1;
        AttemptId(self.next_attempt)
    }

    /// What follows from any change.
    pub(crate) fn after_input(&mut self, now: Now) {
        debug_assert_eq!(self.conns.used(), &self.counted_over(), "places are counted as connections change");
        self.end_bans(now);
        self.fill(now);
        self.watch_door(now);
    }

    /// Whether a connection to `peer` is up or on its way up.
    pub(crate) fn is_linked(&self, peer: &PeerId) -> bool {
        self.pairs.contains_key(peer) || self.foreign_conn(peer).is_some()
    }

    /// The admitted connection to `peer`.
    pub(crate) fn admitted(&self, peer: &PeerId) -> Option<ConnId> {
        self.pairs.get(peer).and_then(Pair::admitted).or_else(|| self.foreign_conn(peer))
    }

    pub(crate) fn foreign_conn(&self, peer: &PeerId) -> Option<ConnId> {
        let foreign = |id: &ConnId| self.conns.get(id).is_some_and(|conn| conn.state == ConnState::Foreign);
        self.conns_of(peer).find(foreign)
    }

    /// Every connection to `peer`, in whatever state.
    pub(crate) fn conns_of(&self, peer: &PeerId) -> impl Iterator<Item = ConnId> + '_ {
        self.conns.of(peer)
    }

    /// Everyone with a connection, in whatever state.
    pub(crate) fn peers_linked(&self) -> impl Iterator<Item = &PeerId> {
        self.conns.peers()
    }

    pub(crate) fn insert_conn(&mut self, id: ConnId, conn: Conn) {
        let peer = conn.peer;
        self.conns.insert(id, conn);
        self.recount_places(&peer);
    }

    /// Changes what may bear on the places that are taken.
    pub(crate) fn change_conn<R>(&mut self, id: ConnId, change: impl FnOnce(&mut Conn) -> R) -> Option<R> {
        let conn = self.conns.get_mut(&id)?;
        let (peer, changed) = (conn.peer, change(conn));
        self.recount_places(&peer);
        Some(changed)
    }

    pub(crate) fn remove_conn(&mut self, id: ConnId) -> Option<Conn> {
        let conn = self.conns.remove(id)?;
        self.recount_places(&conn.peer);
        self.useful_at.remove(&(conn.next_count(self.config.useful_after), id));
        Some(conn)
    }

    /// From when on the connection has been useful, if it lasts.
    pub(crate) fn await_usefulness(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(&id) {
            self.useful_at.insert((conn.next_count(self.config.useful_after), id));
        }
    }

    /// Whether a peer is always wanted.
    pub fn is_persistent(&self, peer: &PeerId) -> bool {
        self.book.classes.has(peer, PeerClass::Persistent)
    }

    pub(crate) fn event(&mut self, event: PeerEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) fn resolve(&mut self, tickets: Vec<Ticket>, result: &Result<PeerId, Failure>) {
        for ticket in tickets {
            self.outputs.push_back(Output::Connected { ticket, result: result.clone() });
        }
    }

    fn add(&mut self, now: Now, address: &DialAddress, role: Role) {
        let Some(peer) = address.peer_id() else {
            match role {
                Role::Seed => self.seeds.add(address.clone(), now.mono),
                Role::Persistent | Role::Known => {
                    self.candidates.set(Target::Address(address.clone()), now.mono);
                }
            }
            return;
        };
        if peer == self.me {
            return;
        }
        let Some(mut known) = self.book.entry(now, peer, Source::User, &mut self.random) else {
            return;
        };
        known.held = false;
        known.seed |= role == Role::Seed;
        drop(known);
        self.book.note(now, peer, address, Source::User, &mut self.random);
        if role == Role::Persistent {
            self.give_class(peer, PeerClass::Persistent, true);
            self.lift_automatic(now, peer);
            self.remember_class(peer, PeerClass::Persistent, true);
            self.keep(now, peer, false, "the user wants the peer always");
        }
        self.dequeue(&peer);
        self.enqueue(peer, now.mono);
        self.note(now, peer, Cause::Named, &address.to_string());
    }

    /// True when that changed something.
    fn give_class(&mut self, peer: PeerId, class: PeerClass, on: bool) -> bool {
        let changed = self.book.classes.set(peer, class, on);
        self.recount_places(&peer);
        changed
    }

    /// The user changes what a peer is to us. A connection that is up stays up: caps hold at the moment of connecting.
    pub(crate) fn set_class(&mut self, now: Now, peer: PeerId, class: PeerClass, on: bool) {
        if peer == self.me || !self.give_class(peer, class, on) {
            return;
        }
        self.forget_exempt(&peer, class);
        let remotes: Vec<_> =
            self.conns_of(&peer).filter_map(|id| self.conns.get(&id)).map(|conn| conn.remote).collect();
        remotes.into_iter().for_each(|remote| self.note_exempt(peer, remote.ip()));
        if class != PeerClass::Persistent {
            return;
        }
        if on {
            self.lift_automatic(now, peer);
            self.keep(now, peer, false, "the user wants the peer always");
        }
        let due = self.due(&peer);
        self.dequeue(&peer);
        if let Some(mut known) = self.book.get_mut(&peer)
            && on
        {
            known.held = false;
        }
        let due = if on { now.mono } else { due.unwrap_or(now.mono) };
        self.enqueue(peer, due);
        self.note(now, peer, Cause::Named, if on { "persistent" } else { "no longer persistent" });
    }

    fn disconnect(&mut self, now: Now, peer: PeerId) {
        if let Some(mut known) = self.book.get_mut(&peer) {
            known.held = true;
        }
        self.dequeue(&peer);
        let failure = Failure::from(Fault::Disconnected);
        self.hang_up(now, peer, CloseReason::Disconnect, &failure);
        self.note(now, peer, Cause::Held, "");
    }

    /// Ends every connection to a peer.
    pub(crate) fn hang_up(&mut self, now: Now, peer: PeerId, reason: CloseReason, failure: &Failure) {
        let conns: Vec<_> = self.conns_of(&peer).collect();
        for conn in conns {
            self.outputs.push_back(Output::Close { conn, reason });
            self.ended(now, conn, failure.clone(), true);
        }
    }

    fn shut_down(&mut self, now: Now) {
        self.shutting_down = true;
        let failure = Failure::from(Fault::ThisNodeCloses);
        let dialled: Vec<_> = self.attempts.values().filter_map(Attempt::peer).collect();
        let mut tickets: Vec<_> = self.explicit.drain(..).map(|explicit| explicit.ticket).collect();
        tickets.extend(self.visits.give_up());
        tickets.extend(std::mem::take(&mut self.waiting).into_values().flatten());
        tickets.extend(std::mem::take(&mut self.attempts).into_values().flat_map(|attempt| attempt.tickets));
        dialled.into_iter().for_each(|peer| self.note_failure(now, peer, &failure));
        self.resolve(tickets, &Err(failure));
    }

    /// Connections that have lasted long enough clear the failures before them, so that a crash an hour later finds them cleared. How long they have lasted
    /// is stored whenever it has doubled.
    fn count_useful(&mut self, now: Now) {
        while let Some((due, id)) = self.useful_at.first().copied().filter(|(due, _)| *due <= now.mono) {
            self.useful_at.remove(&(due, id));
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            let lasted = now.mono.saturating_sub(conn.since);
            let more = lasted.saturating_sub(std::mem::replace(&mut conn.counted_time, lasted));
            let (peer, next) = (conn.peer, conn.next_count(self.config.useful_after));
            self.useful_at.insert((next, id));
            if let Some(mut known) = self.book.get_mut(&peer) {
                (known.failures, known.overloads) = (0, 0);
                known.retry_at = known.retry_at.min(now.unix);
                known.connected_for = known.connected_for.saturating_add(more);
            }
        }
    }

    /// What every input ends with.
    fn settle(&mut self, now: Now) {
        self.rotate(now);
        self.after_input(now);
        for peer in self.book.take_gone() {
            if self.book.get(&peer).is_none() {
                self.dequeue(&peer);
                if self.told.contains_key(&peer) {
                    self.note(now, peer, Cause::Forgotten, "");
                }
            }
        }
        self.save(now);
    }
}

impl Machine for PeerManager {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Now, input: Input) {
        self.clock = now.mono;
        match input {
            // Nothing follows from it now.
            Input::Used { peer } => return self.used(now, peer),
            Input::Visit { ticket, peer, addresses, told_from } => {
                self.visit(now, ticket, peer, &addresses, told_from);
            }
            Input::CancelVisits { tickets } => self.cancel_visits(&tickets),
            Input::Add { address, role } => self.add(now, &address, role),
            Input::SetClass { peer, class, on } => {
                self.set_class(now, peer, class, on);
                self.remember_class(peer, class, on);
            }
            Input::Connect { ticket, target } => self.connect(now, ticket, target, Vec::new()),
            Input::Reach { ticket, peer, addresses, told_from } => {
                self.reach(now, ticket, peer, &addresses, told_from);
            }
            Input::Disconnect { peer } => self.disconnect(now, peer),
            Input::Raced { attempt, courses } => self.raced(attempt, courses),
            Input::DialFailed { attempt, failure } => self.dial_failed(now, attempt, failure),
            Input::Handshaken { conn, peer, direction, remote, attempt } => {
                self.handshaken(now, conn, peer, direction, remote, attempt);
            }
            Input::Hello { conn, hello } => self.hello(now, conn, hello),
            Input::Foreign { conn } => self.foreign(now, conn),
            Input::Answered { conn, answer } => self.answered(now, conn, answer),
            Input::Closed { conn, failure, useful } => self.closed(now, conn, failure, useful),
            Input::Learned { conn, records } => self.learned(now, conn, &records),
            Input::Announced { addresses } => self.announced(&addresses),
            Input::Observed { conn, address } => self.observed(now, conn, address),
            Input::Penalise { peer, penalty } => self.penalise(now, peer, penalty),
            Input::Bans { bans } => self.restore_bans(now, bans),
            Input::Renewed { conn, record } => self.renewed(now, conn, &record),
            Input::LocalAddressChanged { conn } => self.local_address_changed(conn),
            Input::SetAllowed { peers } => {
                self.remember_list(peers.as_ref());
                self.set_allowed(now, peers);
            }
            Input::Allow { peer } => self.allow(now, peer),
            Input::Disallow { peer } => self.disallow(now, peer),
            Input::Standings { standings } => self.restore_standings(now, standings),
            Input::Measured { conn, rtt } => self.measured(conn, rtt),
            Input::Load { peers } => self.load(now, peers),
            Input::Import { peers } => self.import(now, peers),
            Input::ShutDown => self.shut_down(now),
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.clock = now.mono;
        self.ask_around(now);
        self.count_useful(now);
        self.end_idle_visits(now);
        self.settle(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        if self.shutting_down {
            return None;
        }
        let useful = self.useful_at.first().map(|(due, _)| *due);
        let mine = [self.next_dial(), self.next_ask(), useful, self.rotation.due, self.save_due];
        let visits = [self.next_visit(), self.next_idle_visit()];
        mine.into_iter().chain(visits).chain([self.ban_timer, self.door_shut_until]).flatten().min()
    }
}
