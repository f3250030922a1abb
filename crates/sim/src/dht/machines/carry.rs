//! Carries messages: from a machine's outputs to another machine's inputs.

use std::time::Duration;

use bytes::Bytes;
use peerage_dht::store::Disk as _;
use peerage_dht::{Answer, Class, Contact, Input, Output, Query, QueryId, Refusal, RequestId, Status};
use peerage_machine::Machine;

use super::super::network::{Faults, Luck};
use super::super::queue::Micros;
use super::super::still::{Key, ip_of};
use super::super::stream::Purpose;
use super::{Deed, Ended, Errand, Event, Happened, Pending, World, clock};

/// Bytes around a message: QUIC, UDP and IP headers, the framing of the stream.
const FRAME: u64 = 70;
/// What a handshake with certificates and both hellos takes of each side, with its padded first packets.
const HANDSHAKE: u64 = 2_600;

/// Where invariants are checked, a machine is looked at after each so many of its events: what is broken stays so, and looking costs more than most events do. The machine's own
/// tests look after each.
const CHECK_EVERY: u32 = 8;

impl World {
    /// Does what is due.
    pub(super) fn carry(&mut self, event: Event) {
        match event {
            Event::Wake { node, start } => self.wake(node, start),
            Event::Query { node, query, from } => self.deliver_query(node, query, from),
            Event::Answer { node, peer, from, answer } => self.deliver_answer(node, peer, from, *answer),
            Event::Dialled { node, peer, start } => self.dialled(node, peer, start),
            Event::LinkIdle { node, peer } => self.look_at_link(node, peer),
            Event::LinkLost { node, peer } => self.lose_link(node, peer),
            Event::Turn { node } => self.turn(node),
            Event::Call { number } => self.happened.push_back(Happened::Call(number)),
        }
    }

    fn wake(&mut self, node: u32, start: u32) {
        let this = &mut self.nodes[node as usize];
        if this.starts != start || this.wake != Some(self.now) {
            return;
        }
        this.wake = None;
        let now = self.clock_of(node);
        if let Some(dht) = &mut self.nodes[node as usize].dht {
            dht.handle_timeout(now);
            self.pump(node);
        }
    }

    /// Takes a machine's outputs until none is left, and sees to it that it is woken in time.
    pub(super) fn pump(&mut self, node: u32) {
        loop {
            let Some(dht) = &mut self.nodes[node as usize].dht else { return };
            let Some(output) = dht.poll_output() else { break };
            match output {
                Output::Ask { request, contact, query, class, deadline } => {
                    self.note_asked(node, request, &contact, &query, deadline);
                    self.ask(node, request, &contact, query, class);
                }
                Output::CancelAsk { request, .. } => self.note_withdrawn(node, request),
                Output::Reply { query, answer } => {
                    self.look_at_names(node, query, &answer);
                    self.reply(node, query, answer);
                }
                Output::Done { operation, outcome } => {
                    self.note_ended(node, operation, outcome.unsettled);
                    self.end(node, operation.0, outcome);
                }
                Output::Settled { operation, outcome } => {
                    self.note_ended(node, operation, false);
                    let took = outcome.took.as_micros() as Micros;
                    let ended = Ended { node, operation: operation.0, outcome, took };
                    self.happened.push_back(Happened::Settled(ended));
                }
                Output::Event(event) => self.happened.push_back(Happened::Event(node, event)),
                // The disk writes at once.
                Output::Write(batch) => {
                    let now = self.clock_of(node);
                    let this = &mut self.nodes[node as usize];
                    // A disk in memory is full only where somebody says so.
                    let ok = this.disk.as_mut().is_none_or(|disk| disk.write(&batch).is_ok());
                    if let Some(dht) = &mut this.dht {
                        dht.handle(now, Input::Written { number: batch.number, ok });
                    }
                }
                _ => {}
            }
        }
        let this = &mut self.nodes[node as usize];
        this.handled = this.handled.wrapping_add(1);
        if this.handled.is_multiple_of(CHECK_EVERY) {
            self.look_at_machine(node);
        }
        let this = &mut self.nodes[node as usize];
        let Some(dht) = &mut this.dht else { return };
        let Some(due) = dht.poll_timeout() else { return };
        let due = due.saturating_sub(clock(0).mono).as_nanos().div_ceil(1_000) as Micros;
        let due = due.max(self.now);
        if this.wake.is_none_or(|wake| due < wake) {
            this.wake = Some(due);
            self.queue.push(due, Event::Wake { node, start: this.starts });
        }
    }

    fn end(&mut self, node: u32, operation: u64, outcome: Box<peerage_dht::Outcome>) {
        if let Some((_, started)) = self.operations.remove(&operation) {
            self.trace.note(self.now, node.into(), operation);
            let took = self.now - started;
            self.happened.push_back(Happened::Ended(Ended { node, operation, outcome, took }));
        }
    }

    pub(super) fn ask(
        &mut self,
        node: u32,
        request: RequestId,
        contact: &Contact,
        query: Query,
        class: Class,
    ) {
        let Some(peer) = self.node_of(contact) else { return };
        let trip = self.network.round_trip(node, peer);
        let (now, start) = (self.now, self.nodes[node as usize].starts);
        let (handshake, dialled) = self.dial(node, peer);
        let errand = self.errand(node, request, class);
        let meter = &mut self.nodes[node as usize].meter;
        meter.requests += 1;
        let bytes = query_bytes(&query) + FRAME;
        meter.note(errand, bytes);
        meter.repair += if matches!(query, Query::Repair(_)) { bytes } else { 0 };
        if dialled {
            meter.handshakes += HANDSHAKE;
        }
        if !self.answers(node, peer) {
            return;
        }
        let from = Pending { asker: node, start, request, handshake, dialled, sent: now, errand };
        self.queue.push(now + handshake + trip / 2, Event::Query { node: peer, query, from });
    }

    /// What a request is for. That of a scenario which goes past the machine is a user's, as urgent as it is.
    fn errand(&self, node: u32, request: RequestId, class: Class) -> Errand {
        let dht = self.nodes[node as usize].dht.as_ref();
        match (dht.and_then(|dht| dht.serves_caller(request)), class) {
            (Some(true), _) | (None, Class::Interactive) => Errand::User,
            (Some(false), Class::Interactive) => Errand::Join,
            _ => Errand::Upkeep,
        }
    }

    fn deliver_query(&mut self, node: u32, query: Query, from: Pending) {
        if !self.nodes[node as usize].is_up() || !self.nodes[from.asker as usize].is_up() {
            return;
        }
        self.trace.note(self.now, node.into(), from.request.0 << 20 | u64::from(from.asker));
        if from.dialled {
            self.nodes[node as usize].meter.handshakes += HANDSHAKE;
        }
        self.connect(from.asker, node);
        self.last += 1;
        let name = QueryId(self.last);
        let deed = self.deed(node, from.asker, &query);
        if deed == Deed::Silence {
            return;
        }
        let asker = *self.nodes[from.asker as usize].contact.peer();
        let remote = ip_of(from.asker);
        let this = &mut self.nodes[node as usize];
        this.asked.insert(name, (from, Place::of(&query)));
        if let Deed::Say(answer) = deed {
            return self.reply(node, name, *answer);
        }
        let now = self.clock_of(node);
        let Some(dht) = &mut self.nodes[node as usize].dht else { return };
        dht.handle(now, Input::Asked { query: name, from: asker, remote, ask: query, extended: true });
        self.pump(node);
    }

    fn reply(&mut self, node: u32, query: QueryId, answer: Answer) {
        let this = &mut self.nodes[node as usize];
        let Some((from, place)) = this.asked.remove(&query) else { return };
        let answer = this.with_what_it_holds(answer, place);
        let bytes = answer.wire_bytes() as u64 + FRAME;
        this.meter.note(from.errand, bytes);
        this.meter.repair += if answer.repair.is_some() { bytes } else { 0 };
        let trip = self.network.round_trip(from.asker, node);
        let query = self.stream(from.request.0 << 20 | u64::from(from.asker), Purpose::Requests);
        let late = Luck::draw(&query, node, Faults { loss: self.setting.loss, ..Faults::default() })
            .delay(self.nodes[node as usize].health, trip);
        let event = Event::Answer { node: from.asker, peer: node, from, answer: Box::new(answer) };
        self.queue.push(self.now + trip - trip / 2 + late, event);
    }

    fn deliver_answer(&mut self, node: u32, peer: u32, from: Pending, answer: Answer) {
        let this = &self.nodes[node as usize];
        if !this.is_up() || this.starts != from.start {
            return;
        }
        self.trace.note(self.now, node.into(), from.request.0);
        let rtt = Duration::from_micros(self.now - from.sent - from.handshake);
        let (remote, now) = (ip_of(peer), self.clock_of(node));
        let Some(answer) = self.past(&from, rtt, answer) else { return };
        let this = &mut self.nodes[node as usize];
        if let Some(dht) = &mut this.dht {
            this.ledger.answered(from.request);
            dht.handle(now, Input::Answered { request: from.request, rtt, remote, answer });
            self.pump(node);
        }
    }

    /// The node that a contact names.
    pub fn node_of(&self, contact: &Contact) -> Option<u32> {
        let front = Key::new(contact.key().to_bytes()).front;
        let place = self.order.binary_search_by_key(&front, |(front, _)| *front).ok()?;
        self.order.get(place).map(|(_, node)| *node)
    }
}

impl super::Node {
    /// Whether it is there, well or not.
    pub fn is_up(&self) -> bool {
        self.dht.is_some()
    }

    /// Stands in for the store of a machine that has none: takes what it refused only because it stores nothing, and gives it out.
    fn with_what_it_holds(&mut self, mut answer: Answer, place: Place) -> Answer {
        match place {
            Place::Put(key, value) if answer.status == Status::Refused(Refusal::NotServed) => {
                self.holds.insert(key, value);
                answer.status = Status::Stored;
            }
            Place::Get(key) if answer.values.is_empty() => {
                answer.values.extend(self.holds.get(&key).cloned())
            }
            _ => {}
        }
        answer
    }
}

/// What a query has to do with stored values.
#[derive(Debug, Clone)]
pub(super) enum Place {
    None,
    Put([u8; 32], Bytes),
    Get([u8; 32]),
}

impl Place {
    fn of(query: &Query) -> Self {
        match query {
            Query::PutValue { target, value } => Self::Put(target.key().to_bytes(), value.clone()),
            Query::GetValue { target, .. } => Self::Get(target.key().to_bytes()),
            _ => Self::None,
        }
    }
}

impl super::Meter {
    fn note(&mut self, errand: Errand, bytes: u64) {
        match errand {
            Errand::User => self.users += bytes,
            Errand::Upkeep => self.upkeep += bytes,
            Errand::Join => {
                self.upkeep += bytes;
                self.joins += bytes;
            }
        }
    }
}

/// The bytes of a query on the wire, without what is around it.
fn query_bytes(query: &Query) -> u64 {
    let target = query.target().map_or(0, |target| target.name().len() as u64 + 4);
    let body = match query {
        Query::PutValue { value, .. } => value.len() as u64 + target + 8,
        Query::AddProvider { provider, .. } => provider.wire_bytes() as u64,
        Query::Repair(bytes) => bytes.len() as u64,
        Query::Silent { peers } => 40 * peers.len() as u64,
        _ => 0,
    };
    8 + target + body
}
