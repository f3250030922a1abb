//! Records in the machine: what we hold for others and serve, and what is done about it as time goes by (dht.md B.3 to B.5). What is ours is `published`'s.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{NodeKey, PeerId};
use peerage_machine::{Now, Random};

use super::operation::Aim;
use super::published::Keep;
use super::requests::Purpose;
use super::store::Store as Copies;
use super::{Class, Dht, Event, Failure, Mode, OperationId, Options, Output};
use crate::lookup::{Goal, Harvest, Voter};
use crate::record::{Checked, Claim, ClockChanged, EntryId, Kind, Named, Place, Record, Records, Unverified};
use crate::replication::{
    Act, Asker, Declined, Provided, Repair, RepairMessage, RepairStats, SetState, Sets, period,
};
use crate::store::{Batch, Near, Put, Restored, Sender, Store, Usage};
use crate::table::Table;
use crate::{Answer, Contact, Key, MAX_PROVIDERS, Query, Refusal, Status, Subnet, Target};

/// A record that is held, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldView {
    /// What it says.
    pub claim: Claim,
    /// Its state, as far as this node knows; `None` where so many others are closer that this copy is one to spare.
    pub state: Option<SetState>,
    /// Live replicas that are known, this one included: neighbours that have it too, and have compared what they hold with this node of late.
    pub live: usize,
    /// So many are wanted.
    pub wanted: usize,
    /// When it goes, in seconds since 1970.
    pub expires: u64,
}

/// Everything about records.
pub(super) struct Holder {
    key: NodeKey,
    pub(super) records: Records,
    pub(super) store: Store,
    pub(super) repair: Repair,
    pub(super) sets: Sets,
    pub(super) provided: Provided,
    /// What callers have started to publish or to provide.
    pub(super) keeps: BTreeMap<OperationId, Keep>,
    /// When the neighbours are looked at again.
    look: Duration,
    /// When something is to be done.
    due: Option<Duration>,
}

/// How often the neighbours are looked at, while there are records.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The share of an answer that values may take: the rest is for peers that are closer.
const VALUES_SHARE: f64 = 0.65;

/// What the table knows of the nodes around a key.
struct Around<'a> {
    table: &'a Table,
    own: Key,
    size: Option<f64>,
    region: f64,
}

impl Near for Around<'_> {
    fn closer(&self, key: &Key, most: usize) -> usize {
        let ours = key.distance(&self.own);
        let closest = self.table.closest_entries(key, most);
        closest.iter().filter(|entry| key.distance(entry.contact.key()) < ours).count()
    }

    fn network_size(&self) -> Option<f64> {
        self.size
    }

    fn region(&self) -> f64 {
        self.region
    }

    fn met_in(&self, peer: &Key) -> Option<Subnet> {
        self.table.get(peer)?.subnet
    }
}

/// What an answer to a query about records was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matter {
    /// A comparison with a neighbour.
    Repair(u64),
    /// A holder of our record is handed its longer life.
    Extend(u64),
    /// A holder of our record is asked whether it has it.
    Probe(u64),
    /// A holder that doesn't understand our additions is asked for our record.
    Look(u64),
}

impl Dht {
    /// The node holds, serves and publishes records: `key` signs renewals, `records` are the rules, by which lookups judge values too. What the disk gave back is handed in
    /// with [`Dht::restore`].
    #[must_use]
    pub fn with_records(mut self, key: NodeKey, records: Records) -> Self {
        self.judge = Box::new(records.clone());
        self.holder = Some(Box::new(Holder {
            store: Store::new(self.config.store.clone(), self.key, &records),
            repair: Repair::new(self.config.replication.clone(), self.key, &records),
            sets: Sets::new(self.config.replication.clone()),
            key,
            records,
            provided: Provided::new(self.config.replication.clone(), self.config.store.provider_ttl),
            keeps: BTreeMap::new(),
            look: Duration::ZERO,
            due: None,
        }));
        self
    }

    /// Takes in what the disk holds, before anything else happens.
    pub fn restore(&mut self, now: Now, mut rows: Vec<(Bytes, Bytes)>) -> Restored {
        let memory: Vec<_> = rows.extract_if(.., |(key, _)| Self::is_memory(key)).collect();
        let damaged = memory.iter().filter(|(key, row)| !self.recall(now, key, row)).count();
        let Some(holder) = self.holder.as_mut() else { return Restored { damaged, ..Restored::default() } };
        let mut restored = holder.store.restore(now, &holder.records, rows);
        restored.damaged += damaged;
        if holder.store.used().records > 0 {
            holder.repair.resume(now);
        }
        self.note_due(now);
        restored
    }

    /// What is still to be written, for the end of the node: to be called until there is none, each batch followed by [`super::Input::Written`].
    pub fn flush(&mut self, now: Now) -> Option<Batch> {
        self.holder.as_mut()?.store.flush(now)
    }

    /// Whether a batch is being written: [`Dht::flush`] has the rest when it is done.
    pub fn is_writing(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.store.is_writing())
    }

    /// How many live replicas of a record that we hold are known, ours included, how many are wanted, and its state.
    pub fn replicas(&mut self, now: Now, id: &EntryId) -> Option<(usize, usize, SetState)> {
        let holder = self.holder.as_mut()?;
        let (live, wanted) = holder.repair.live(now, &holder.records, &mut holder.store, id)?;
        let state = holder.repair.state(now, &holder.records, &mut holder.store, id)?;
        Some((live, wanted, state))
    }

    /// The records that are held, at most so many, those closest to this node first, and how they stand.
    pub fn held_records(&mut self, now: Now, most: usize) -> Vec<HeldView> {
        let Some(holder) = self.holder.as_mut() else { return Vec::new() };
        let Holder { records, store, repair, .. } = &mut **holder;
        let closest: Vec<_> = store.all().take(most).map(|held| (held.id, held.expires)).collect();
        let view = |(id, expires): (EntryId, u64)| {
            let claim = Unverified::read(records.network(), store.unchecked(&id)?).ok()?.claim().clone();
            let known = repair.live(now, records, store, &id);
            let (live, wanted) = known.unwrap_or((1, records.config().of(claim.place().kind()).replicas));
            let state = repair.state(now, records, store, &id);
            Some(HeldView { claim, state, live, wanted, expires })
        };
        closest.into_iter().filter_map(view).collect()
    }

    /// Provider records that are held for others.
    pub fn held_providers(&self) -> usize {
        self.holder.as_ref().map(|holder| holder.store.provider_count()).unwrap_or_default()
    }

    /// How much is held for others.
    pub fn held(&self) -> Usage {
        self.holder.as_ref().map(|holder| holder.store.used()).unwrap_or_default()
    }

    /// What the comparing with other holders has cost.
    pub fn repair_stats(&self) -> RepairStats {
        self.holder.as_ref().map(|holder| holder.repair.stats()).unwrap_or_default()
    }

    /// The store, for whoever checks what a node holds.
    pub fn store(&self) -> Option<&Store> {
        self.holder.as_ref().map(|holder| &holder.store)
    }

    /// Puts a value into the store as if it had come by itself, where simulations and tests begin. No rate and no distance is asked.
    pub fn plant_record(&mut self, now: Now, target: &Target, value: &Bytes) -> Option<Put> {
        let put = self.with_holder(now, |holder, near, _| {
            holder.store.put(now, &holder.records, near, Sender::Own, target, value)
        });
        self.settle_holder(now);
        put
    }

    /// Keeps a value that came by the way, if it is newer than what is here and ours to keep: by the same rules and quotas as one that was put.
    pub(super) fn keep_value(&mut self, now: Now, sender: Sender, target: &Target, value: &Bytes) {
        self.with_holder(now, |holder, near, _| {
            holder.store.put(now, &holder.records, near, sender, target, value)
        });
        self.settle_holder(now);
    }

    /// What we hold ourselves counts as an answer too, as far as more is wanted: the best for a value, all for a collection, providers.
    pub(super) fn add_own(&mut self, now: Now, target: &Target, goal: &Goal, harvest: &mut Harvest) {
        let limits = &self.lookups;
        let us = (&self.peer, Voter::Peer(self.peer));
        let Some(holder) = self.holder.as_mut() else { return };
        match goal {
            Goal::Value(_) | Goal::Values(_) => {
                let wanted = if let Goal::Values(wanted) = goal { (*wanted).max(1) } else { 1 };
                let own = holder.values(now, target, us.0, None, usize::MAX, usize::MAX).0;
                for value in &own {
                    // Each is judged, which is the time of a signature: no more than will be used.
                    if matches!(goal, Goal::Values(_)) && harvest.found() >= wanted {
                        break;
                    }
                    harvest.values(now, limits, &holder.records, target, us, std::slice::from_ref(value));
                }
            }
            Goal::Providers(_) => {
                let held = holder.store.providers(target.key(), None, limits.max_values, usize::MAX).0;
                let own: Vec<_> = holder.provided.of(target.key()).cloned().into_iter().chain(held).collect();
                harvest.providers(limits, us, &own);
            }
            Goal::Peer(..) | Goal::Closest => {}
        }
    }

    /// Answers a query about records.
    pub(super) fn serve_records(
        &mut self,
        now: Now,
        from: &PeerId,
        asker: &Key,
        remote: IpAddr,
        ask: &Query,
    ) -> Option<Answer> {
        self.holder.as_ref()?;
        let room = self.room_for_values();
        let mut answer = match ask {
            Query::GetValue { target, cursor, .. } => {
                let holder = self.holder.as_mut()?;
                let most = self.config.serve.max_answer_bytes;
                let (values, cursor) = holder.values(now, target, from, cursor.as_ref(), room, most);
                Answer { values, cursor, ..Answer::default() }
            }
            Query::GetProviders { target, cursor } => {
                let store = &self.holder.as_ref()?.store;
                let (providers, cursor) = store.providers(target.key(), cursor.as_ref(), MAX_PROVIDERS, room);
                Answer { providers, cursor, ..Answer::default() }
            }
            Query::PutValue { target, value } => {
                let sender = Sender::Peer { peer: *from, remote };
                let put = self.with_holder(now, |holder, near, _| {
                    holder.store.put(now, &holder.records, near, sender, target, value)
                })?;
                answer_put(put)
            }
            Query::AddProvider { target, provider } => {
                let provider = provider.as_told_from(remote);
                let replicas = self.config.table.k;
                let put = self.with_holder(now, |holder, near, _| {
                    match holder.store.is_ours_to_keep(near, target.key(), replicas) {
                        true => holder.store.provide(now, from, Some(remote), target, provider),
                        false => Put::Refused(Refusal::TooFar),
                    }
                })?;
                answer_put(put)
            }
            Query::Repair(bytes) => self.serve_repair(now, from, remote, bytes)?,
            Query::FindNode { .. } | Query::Ping | Query::Silent { .. } => return None,
        };
        let wants_closer = matches!(ask, Query::GetValue { .. } | Query::GetProviders { .. })
            || answer.status == Status::Refused(Refusal::TooFar);
        if let (true, Some(target)) = (wants_closer, ask.target()) {
            answer.closer = self.closer(target, asker);
        }
        self.settle_holder(now);
        Some(answer)
    }

    /// The bytes that values may take of an answer.
    pub(super) fn room_for_values(&self) -> usize {
        (self.config.serve.max_answer_bytes as f64 * VALUES_SHARE) as usize
    }

    /// Changes under a key are noted from now on, until [`Dht::unfollow`] was called as often.
    pub(super) fn follow(&mut self, key: &Key) {
        if let Some(holder) = self.holder.as_mut() {
            holder.store.follow(key);
        }
    }

    pub(super) fn unfollow(&mut self, key: &Key) {
        if let Some(holder) = self.holder.as_mut() {
            holder.store.unfollow(key);
        }
    }

    fn serve_repair(&mut self, now: Now, from: &PeerId, remote: IpAddr, bytes: &Bytes) -> Option<Answer> {
        let Ok(question) = RepairMessage::decode(bytes) else {
            return Some(Answer::status(Status::Refused(Refusal::Invalid)));
        };
        let verified = self.table.get(&Key::of_peer(from)).is_some_and(|entry| entry.is_usable());
        let asker = Asker { peer: *from, remote, verified };
        let answered = self.with_holder(now, |holder, near, _| {
            holder.repair.asked(now, &holder.records, near, &mut holder.store, &asker, &question)
        })?;
        Some(match answered {
            Ok((message, clock)) => {
                self.note_clock(clock);
                Answer { repair: Some(message.encode()), ..Answer::default() }
            }
            Err(Declined::Busy) => Answer::status(Status::Busy),
            Err(Declined::Invalid) => Answer::status(Status::Refused(Refusal::Invalid)),
            Err(Declined::NotServed) => Answer::status(Status::Refused(Refusal::NotServed)),
        })
    }

    /// A query about records was answered, or came to nothing.
    pub(super) fn matter_ended(&mut self, now: Now, matter: Matter, answer: Result<&Answer, Failure>) {
        let message = answer
            .ok()
            .and_then(|answer| answer.repair.as_ref())
            .and_then(|bytes| RepairMessage::decode(bytes).ok());
        let stored = answer.is_ok_and(|answer| matches!(answer.status, Status::Ok | Status::Stored));
        let stale = answer.ok().filter(|answer| answer.status == Status::Stale);
        let extended = answer.is_ok_and(|answer| answer.extended);
        if let Some(holder) = self.holder.as_mut().filter(|_| !matches!(matter, Matter::Repair(_))) {
            holder.sets.among(self.table.usable());
        }
        match (matter, message) {
            (Matter::Repair(token), Some(message)) => {
                let next = self.with_holder(now, |holder, near, random| {
                    let Holder { repair, records, store, .. } = holder;
                    repair.answered(now, records, near, store, random, token, &message)
                });
                if let Some((next, clock)) = next {
                    self.note_clock(clock);
                    if let Some((token, contact, message)) = next {
                        self.ask_repair(now, &contact, &message, Matter::Repair(token));
                    }
                }
            }
            (Matter::Repair(token), None) => {
                if let Some(holder) = self.holder.as_mut() {
                    holder.repair.failed(token);
                }
            }
            (Matter::Extend(token), _) => {
                if let Some(holder) = self.holder.as_mut() {
                    // What is named by its hash is the same content, whoever has signed for it to live longer.
                    let judge = |target, value| self.judge.judge(now, target, value);
                    let same = holder.sets.record_of(token).zip(stale).is_some_and(|(record, answer)| {
                        let first = answer.values.first();
                        first.is_some_and(|value| judge(record.target(), value).is_ok_and(|it| it.is_final))
                    });
                    holder.sets.answered(now, token, stored || same, extended);
                }
            }
            (Matter::Probe(token), message) => {
                if let Some(holder) = self.holder.as_mut() {
                    match message {
                        Some(message) => holder.sets.told(now, token, &message),
                        None => holder.sets.answered(now, token, false, extended),
                    }
                }
            }
            (Matter::Look(token), _) => {
                if let Some(holder) = self.holder.as_mut() {
                    let record = holder.sets.record_of(token);
                    let has_it =
                        answer.ok().zip(record).is_some_and(|(answer, ours)| holder.shows(now, answer, ours));
                    holder.sets.answered(now, token, has_it, extended);
                }
            }
        }
        self.settle_holder(now);
    }

    pub(super) fn on_written(&mut self, now: Now, number: u64, ok: bool) {
        if let Some(holder) = self.holder.as_mut() {
            holder.store.written(now, number, ok);
        }
        self.settle_holder(now);
    }

    /// When records need something.
    pub(super) fn holder_due(&self) -> Duration {
        self.holder.as_ref().and_then(|holder| holder.due).unwrap_or(Duration::MAX)
    }

    /// Does what has become due for records.
    pub(super) fn drive_holder(&mut self, now: Now) {
        let serves = self.mode == Mode::Server;
        let lifetimes = &self.table.lifetimes;
        let stays = |span| lifetimes.stays(0, span);
        let Some(holder) = self.holder.as_mut() else { return };
        holder.store.expire(now);
        let has_records = holder.store.used().records > 0;
        let mut clock = None;
        if serves && has_records && holder.look <= now.mono {
            holder.look = now.mono + LOOK_EVERY;
            let replicas =
                holder.records.config().mailbox.replicas.min(holder.records.config().immutable.replicas);
            holder.repair.set_period(period(&self.config.replication, replicas, stays));
            holder.repair.set_size(self.size.size(now));
            let table = &self.table;
            let usable = |contact: &Contact| {
                table.get(contact.key()).is_some_and(|entry| entry.extended && entry.is_usable())
            };
            let nearest = table.closest(&self.key, self.config.replication.max_neighbours);
            let nearest = nearest.into_iter().filter(usable).collect();
            clock = holder.repair.set_neighbours(now, nearest, &mut self.random);
        }
        let asks = match serves && has_records {
            true => holder.repair.poll(now, &holder.records, &mut holder.store, &mut self.random),
            false => Vec::new(),
        };
        let acts = holder.sets.poll(now, &holder.key, &mut self.random);
        self.note_clock(clock);
        for (token, contact, message) in asks {
            self.ask_repair(now, &contact, &message, Matter::Repair(token));
        }
        for act in acts {
            self.act(now, act);
        }
        self.drive_provided(now);
        self.settle_holder(now);
    }

    fn act(&mut self, now: Now, act: Act) {
        match act {
            Act::Publish { id, seq, target, value, replicas } => {
                let query = Query::PutValue { target: target.clone(), value };
                let options = Options { class: Class::Frugal, ..Options::default() };
                let replicas = replicas.clamp(1, self.config.table.k);
                let copies = Copies::new(query, replicas, replicas);
                match self.create(now, Aim::Replica(id, seq), target, Goal::Closest, Some(copies), options) {
                    Some(operation) => self.drive(now, operation),
                    None => drop(self.set_settled(now, &id, seq, &[], false)),
                }
            }
            Act::Extend { token, contact, target, value } => {
                let query = Query::PutValue { target, value };
                self.ask(now, &contact, query, Class::Frugal, Purpose::Records(Matter::Extend(token)));
            }
            Act::Probe { token, contact, message } => {
                self.ask_repair(now, &contact, &message, Matter::Probe(token))
            }
            Act::Look { token, contact, target } => {
                let query = Query::GetValue { target, cursor: None, wait: None };
                self.ask(now, &contact, query, Class::Frugal, Purpose::Records(Matter::Look(token)));
            }
        }
    }

    fn ask_repair(&mut self, now: Now, contact: &Contact, message: &RepairMessage, matter: Matter) {
        self.ask(now, contact, Query::Repair(message.encode()), Class::Frugal, Purpose::Records(matter));
    }

    /// Runs something that needs both the records and the table.
    pub(super) fn with_holder<R>(
        &mut self,
        now: Now,
        run: impl FnOnce(&mut Holder, &dyn Near, &mut Random) -> R,
    ) -> Option<R> {
        let holder = self.holder.as_mut()?;
        let region = self.lookups.region * self.config.table.k as f64;
        let near = Around { table: &self.table, own: self.key, size: self.size.size(now), region };
        Some(run(holder, &near, &mut self.random))
    }

    /// Reports what has come up, hands out what is to be written, and notes when there is something to do next.
    pub(super) fn settle_holder(&mut self, now: Now) {
        let Some(holder) = self.holder.as_mut() else { return };
        for found in holder.store.take_equivocations() {
            self.outputs.push_back(Output::Event(Event::Equivocation(Box::new(found))));
        }
        if let Some(batch) = holder.store.poll_batch(now) {
            self.outputs.push_back(Output::Write(batch));
        }
        self.note_due(now);
        self.tell_changes(now);
    }

    pub(super) fn note_due(&mut self, now: Now) {
        let serves = self.mode == Mode::Server;
        let Some(holder) = self.holder.as_mut() else { return };
        let repairs = serves && holder.store.used().records > 0;
        let repair =
            repairs.then(|| holder.repair.next_due().map_or(holder.look, |due| due.min(holder.look)));
        let ours = [holder.sets.next_due(), holder.provided.next_due()];
        holder.due = ours.into_iter().chain([holder.store.poll_timeout(now), repair]).flatten().min();
    }

    /// While our clock is wrong, records are not refused for their times.
    fn note_clock(&mut self, changed: Option<ClockChanged>) {
        let (Some(changed), Some(holder)) = (changed, self.holder.as_ref()) else { return };
        holder.records.count_times(!changed.wrong);
        self.outputs.push_back(Output::Event(Event::Clock { ahead: changed.ahead, wrong: changed.wrong }));
    }
}

impl Holder {
    /// The followed keys under which something has changed.
    pub(super) fn take_followed(&mut self) -> Vec<Key> {
        self.store.take_followed()
    }

    /// Whether it is the mailbox of this peer, which alone is shown all of it.
    pub(super) fn is_mailbox_of(&self, target: &Target, reader: &PeerId) -> bool {
        let place = Place::parse(self.records.network(), target.name());
        matches!(place, Named::Ours(Place::Mailbox { recipient, .. }) if recipient == *reader)
    }

    /// Whether it is a mailbox, whosever.
    pub(super) fn is_mailbox(&self, target: &Target) -> bool {
        matches!(Place::parse(self.records.network(), target.name()), Named::Ours(Place::Mailbox { .. }))
    }

    /// Whether an answer shows a record of ours as it is now, or a newer one. Of content that is named by its hash any is the same.
    fn shows(&self, now: Now, answer: &Answer, ours: &Record) -> bool {
        let network = self.records.network();
        let is_it = |value: &&Bytes| {
            Unverified::read(network, value).is_ok_and(|read| read.claim().id() == ours.id())
        };
        let theirs = answer.values.iter().find(is_it);
        match theirs.map(|value| self.records.check(now, ours.target(), value)) {
            Some(Ok(Checked::Record(theirs))) => {
                theirs.version() >= ours.version() || theirs.place().kind() == Kind::Immutable
            }
            _ => false,
        }
    }

    /// What is stored under a target, as `reader` may see it, in an answer of so many bytes at most, of which values take `room`; one that is long may take more.
    pub(super) fn values(
        &mut self,
        now: Now,
        target: &Target,
        reader: &PeerId,
        cursor: Option<&Bytes>,
        room: usize,
        most: usize,
    ) -> (Vec<Bytes>, Option<Bytes>) {
        let page = match Place::parse(self.records.network(), target.name()) {
            Named::Ours(place @ Place::Mailbox { .. }) => {
                self.store.mailbox(now, &self.records, target, &place, reader, cursor, room)
            }
            _ => self.store.page(now, &self.records, target.key(), cursor, room),
        };
        let mut answer = Answer { values: page.values, cursor: page.cursor, ..Answer::default() };
        if answer.wire_bytes() > most {
            // Only what proves that a publisher says two things makes a page so long.
            answer.values.truncate(1);
        }
        (answer.values, answer.cursor)
    }
}

fn answer_put(put: Put) -> Answer {
    match put {
        Put::Stored | Put::Known => Answer::status(Status::Stored),
        Put::Stale(newer) => Answer { values: newer.into_iter().collect(), ..Answer::status(Status::Stale) },
        Put::Busy => Answer::status(Status::Busy),
        Put::Refused(why) => Answer::status(Status::Refused(why)),
    }
}
