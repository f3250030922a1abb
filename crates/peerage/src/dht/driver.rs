//! The task that owns the DHT's machine: it feeds it what happened and carries out what it wants.
//!
//! It decides nothing and waits for nobody. A question to a peer is a task of its own, which reports back; peers' questions come in through the same
//! queue, so that whoever asks more than is worked on waits at its stream.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_dht::store::{Batch, Change};
use peerage_dht::{
    Answer, Class, Contact, Dht, Event, Input, Operation, OperationId, Options, Outcome, Output, Query,
    QueryId, RequestId, Source, Step,
};
use peerage_identity::{DialAddress, PeerId};
use peerage_machine::{Machine, Now};
use peerage_peers::{BookEntry, Source as AddressSource};
use peerage_transport::ConnectionId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::late::Late;
use super::{DhtCore, asks};
use crate::driver::Message;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::store::RowChange;

/// Messages that may wait for the driver. Senders wait when it is full.
pub(crate) const QUEUE: usize = 1024;
/// Steps of a watched lookup that its watcher may be behind; more are left out, and counted.
pub(crate) const MAX_STEPS_BEHIND: usize = 4096;
/// How often streams that nobody used for a while are looked for.
const TRIM_EVERY: Duration = Duration::from_secs(15);
/// How often the machine's memory is written, when it is awake.
const REMEMBER_EVERY: Duration = Duration::from_secs(3600);

/// What the driver hears.
pub(crate) enum DhtMessage {
    /// Something that goes to the machine as it is.
    Input(Input),
    /// A peer asks.
    Asked {
        id: QueryId,
        from: PeerId,
        remote: IpAddr,
        query: Query,
        /// Whether it is a Peerage node.
        extended: bool,
        reply: oneshot::Sender<Answer>,
    },
    /// The user wants something.
    Start { operation: OperationId, wanted: Operation, options: Options, caller: Caller },
    /// Something that only the machine can tell or do.
    Machine(Box<MachineCall>),
}

/// What runs on the machine.
pub(crate) type MachineCall = dyn FnOnce(Now, &mut Dht) + Send;

/// Who waits for an operation.
pub(crate) struct Caller {
    pub(crate) done: oneshot::Sender<Outcome>,
    /// Told of a store that went on after its caller was answered.
    pub(crate) settled: Option<mpsc::Sender<Outcome>>,
    pub(crate) steps: Option<mpsc::Sender<Step>>,
}

/// What the machine was told of a connected peer.
struct Told {
    connection: ConnectionId,
    /// `None` until it has said so.
    serves: Option<bool>,
    contact: Contact,
}

/// A question of ours under way.
struct Asking {
    task: AbortHandle,
    /// Whether the peer has been asked.
    sent: Arc<AtomicBool>,
    /// Says that nobody waits any more, and for how long its answer is still of use.
    listen: oneshot::Sender<Duration>,
}

/// The driver's own state.
struct Driver {
    shared: Arc<Shared>,
    core: Arc<DhtCore>,
    machine: Dht,
    /// Questions of ours under way.
    asks: BTreeMap<RequestId, Asking>,
    /// Those that nobody waits for any more, and that are listened to.
    late: Late,
    /// Questions of peers that are not answered yet.
    asked: BTreeMap<QueryId, oneshot::Sender<Answer>>,
    callers: BTreeMap<OperationId, Caller>,
    /// Who watches operations that have ended and may hear of late answers.
    listening: BTreeMap<OperationId, mpsc::Sender<Step>>,
    /// Stores that go on after their callers were answered.
    settling: BTreeMap<OperationId, mpsc::Sender<Outcome>>,
    /// Who is connected, as the machine was told.
    connected: BTreeMap<PeerId, Told>,
    /// When streams that nobody used for a while are looked for next; never while none are kept.
    trim: Option<Instant>,
    /// When the machine's memory was written last.
    remembered: Instant,
}

/// Runs until the node stops.
pub(crate) async fn run(
    shared: Arc<Shared>,
    core: Arc<DhtCore>,
    machine: Dht,
    mut messages: mpsc::Receiver<DhtMessage>,
) {
    let mut driver = Driver {
        shared: shared.clone(),
        core: core.clone(),
        machine,
        asks: BTreeMap::new(),
        late: Late::default(),
        asked: BTreeMap::new(),
        callers: BTreeMap::new(),
        listening: BTreeMap::new(),
        settling: BTreeMap::new(),
        connected: BTreeMap::new(),
        trim: None,
        remembered: Instant::now(),
    };
    driver.peers_changed();
    // Nobody may ever connect by itself: whom the book knows is asked at once.
    driver.bring_contacts(true);
    loop {
        driver.carry_out();
        let due = driver.machine.poll_timeout().map(|due| shared.clock.instant(due));
        let (timer, trim) = (until(due), until(driver.trim));
        tokio::select! {
            biased;
            // Seldom, and messages that never pause would keep it waiting.
            () = core.left.notified() => driver.sweep(),
            message = messages.recv() => match message {
                Some(message) => driver.handle(message),
                None => return,
            },
            () = core.peers_changed.notified() => driver.peers_changed(),
            () = timer => {}
            () = trim => driver.trim(),
        }
        shared.clock.set(shared.environment.unix_now());
        // Messages that never pause would keep the timer waiting.
        let now = shared.clock.now();
        if driver.machine.poll_timeout().is_some_and(|due| due <= now.mono) {
            driver.machine.handle_timeout(now);
            driver.remember();
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// Gives up streams that nobody used for a while.
    fn trim(&mut self) {
        let kept: usize = self.shared.connected().iter().map(|peer| super::streams::trim(peer)).sum();
        self.trim = (kept > 0).then(|| Instant::now() + TRIM_EVERY);
    }

    /// Ends what nobody waits for any more, for those who had no room to say so.
    fn sweep(&mut self) {
        let now = self.shared.clock.now();
        let gone =
            |(operation, caller): (&OperationId, &Caller)| caller.done.is_closed().then_some(*operation);
        let callers: Vec<OperationId> = self.callers.iter().filter_map(gone).collect();
        let gone = |(query, reply): (&QueryId, &oneshot::Sender<Answer>)| reply.is_closed().then_some(*query);
        let asked: Vec<QueryId> = self.asked.iter().filter_map(gone).collect();
        callers.into_iter().for_each(|operation| self.machine.handle(now, Input::Cancel { operation }));
        asked.into_iter().for_each(|query| self.machine.handle(now, Input::Withdrawn { query }));
    }

    fn handle(&mut self, message: DhtMessage) {
        let now = self.shared.clock.now();
        match message {
            // Whoever wanted it has gone while it stood in the queue.
            DhtMessage::Start { caller, .. } if caller.done.is_closed() => {}
            DhtMessage::Asked { reply, .. } if reply.is_closed() => {}
            DhtMessage::Input(input) => {
                if let Input::Answered { request, .. } | Input::Failed { request, .. } = &input {
                    self.asks.remove(request);
                    self.late.ended(*request);
                    self.trim.get_or_insert_with(|| Instant::now() + TRIM_EVERY);
                }
                self.machine.handle(now, input);
            }
            DhtMessage::Asked { id: query, from, remote, query: ask, extended, reply } => {
                self.asked.insert(query, reply);
                self.machine.handle(now, Input::Asked { query, from, remote, ask, extended });
            }
            DhtMessage::Start { operation, wanted, options, caller } => {
                self.callers.insert(operation, caller);
                self.machine.handle(now, Input::Start { operation, wanted, options });
            }
            DhtMessage::Machine(call) => call(now, &mut self.machine),
        }
    }

    /// Tells the machine who has come and gone since the last time.
    fn peers_changed(&mut self) {
        let now = self.shared.clock.now();
        // Who is told to nobody is not for the table, from which others are told.
        let connected = self.shared.connected().into_iter().filter(|peer| !self.shared.is_private(&peer.id));
        let peers: BTreeMap<_, _> = connected.map(|peer| (peer.id, peer)).collect();
        let gone: Vec<_> = self.connected.keys().filter(|peer| !peers.contains_key(peer)).copied().collect();
        for peer in gone {
            self.connected.remove(&peer);
            self.machine.handle(now, Input::Disconnected { peer });
        }
        for (id, peer) in peers {
            let (connection, serves) = (peer.connection.id(), self.core.serves(&peer));
            if serves.is_none() && self.connected.contains_key(&id) {
                // What it said over an earlier connection holds until it says more.
                continue;
            }
            let contact = contact_of(&peer);
            let before = self.connected.insert(id, Told { connection, serves, contact: contact.clone() });
            // A foreign peer tells where it listens after it was admitted, and whoever moves tells again.
            let known = before
                .as_ref()
                .is_some_and(|before| before.connection == connection && before.contact == contact);
            if known && before.is_some_and(|before| before.serves == serves) {
                continue;
            }
            if !known {
                let rtt = Some(peer.connection.rtt());
                let remote = peer.connection.remote_address().ip();
                self.machine.handle(now, Input::Connected { contact, remote, rtt });
            }
            if let Some(serves) = serves {
                self.machine.handle(now, Input::Supports { peer: id, serves });
            }
        }
    }

    /// Carries out what the machine wants done.
    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Ask { request, contact, query, class, deadline } => {
                    self.ask(request, contact, query, class, deadline);
                }
                Output::CancelAsk { request, listen } => self.give_up(request, listen),
                Output::Reply { query, mut answer } => {
                    answer.closer.retain(|contact| !self.shared.is_private(contact.peer()));
                    answer.providers.retain(|contact| !self.shared.is_private(contact.peer()));
                    if let Some(reply) = self.asked.remove(&query) {
                        // Whoever asked may be gone.
                        let _ = reply.send(answer);
                    }
                }
                Output::Step { operation, step } => {
                    let caller = self.callers.get(&operation).and_then(|caller| caller.steps.as_ref());
                    if let Some(steps) = caller.or(self.listening.get(&operation)) {
                        // A watcher that is behind misses steps, not the result.
                        let _ = steps.try_send(step);
                    }
                }
                Output::Listened { operation } => {
                    self.listening.remove(&operation);
                }
                Output::Done { operation, outcome } => {
                    if let Some(caller) = self.callers.remove(&operation) {
                        if let Some(steps) = caller.steps.filter(|_| self.machine.is_listening(operation)) {
                            self.listening.insert(operation, steps);
                        }
                        self.settling.retain(|_, waiting| !waiting.is_closed());
                        if let Some(settled) = caller.settled.filter(|_| outcome.unsettled) {
                            self.settling.insert(operation, settled);
                        }
                        let _ = caller.done.send(*outcome);
                    }
                }
                Output::Settled { operation, outcome } => {
                    if let Some(settled) = self.settling.remove(&operation) {
                        // Whoever waited for it may be gone.
                        let _ = settled.try_send(*outcome);
                    }
                }
                Output::Write(batch) => self.write(batch),
                Output::WantContacts => self.bring_contacts(false),
                Output::Event(event) => {
                    log(&event);
                    // Without a watcher there is nobody to tell.
                    let _ = self.core.events.send(event);
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, request: RequestId, contact: Contact, query: Query, class: Class, deadline: Duration) {
        let sent = Arc::new(AtomicBool::new(false));
        let (shared, core) = (self.shared.clone(), self.core.clone());
        let asking = asks::carry_out(shared, core, contact, query, class, sent.clone());
        let (by, core) = (self.shared.clock.instant(deadline), self.core.clone());
        let (listen, needless) = oneshot::channel();
        let stop = self.shared.stop.clone();
        let task = self.shared.tasks.spawn(async move {
            tokio::pin!(asking);
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = tokio::time::timeout_at(by, &mut asking) => result,
                Ok(time) = needless => tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    result = tokio::time::timeout(time, asking) => result,
                },
            };
            let input = match result {
                Ok(Ok(asks::Got { rtt, remote, answer })) => Input::Answered { request, rtt, remote, answer },
                Ok(Err(why)) => Input::Failed { request, why },
                // The machine has given it up by itself.
                Err(_) => Input::Failed { request, why: peerage_dht::Failure::Timeout },
            };
            let _ = core.to_driver.send(DhtMessage::Input(input)).await;
        });
        self.asks.insert(request, Asking { task: task.abort_handle(), sent, listen });
    }

    /// Nobody waits for an answer any more. One that may still be of use is listened to, if the peer has been asked.
    fn give_up(&mut self, request: RequestId, listen: Duration) {
        let Some(asking) = self.asks.remove(&request) else { return };
        let asked = asking.sent.load(Ordering::Relaxed) && !listen.is_zero();
        if !asked || asking.listen.send(listen).is_err() {
            return asking.task.abort();
        }
        self.late.listen(request, asking.task);
    }

    /// Writes what the machine keeps, beside it; the machine hands out one batch at a time.
    fn write(&self, batch: Batch) {
        let (shared, core, number) = (self.shared.clone(), self.core.clone(), batch.number);
        self.shared.spawn(async move {
            let saved = shared.saving.save_rows(row_changes(batch.changes), batch.durable).await;
            if let Err(error) = &saved {
                tracing::debug!(%error, "the DHT's records were not stored, and are handed in again");
            }
            let written = Input::Written { number, ok: saved.is_ok() };
            let _ = core.to_driver.send(DhtMessage::Input(written)).await;
            core.written.notify_one();
        });
    }

    /// Writes whom the machine knows best and whom it saw (AL-70), at times when it is awake anyway.
    fn remember(&mut self) {
        if self.remembered.elapsed() >= REMEMBER_EVERY {
            self.remembered = Instant::now();
            let (shared, rows) = (self.shared.clone(), self.machine.memory(self.shared.clock.now()));
            self.shared.spawn(async move {
                if let Err(error) = shared.saving.save_rows(puts(rows), false).await {
                    tracing::debug!(%error, "whom the DHT knows best was not stored");
                }
            });
        }
    }

    /// Hands over whom the address book knows; at the beginning those whom the user has named are said to be that, so that the networks behind them are compared. Who is dialled anyway,
    /// such as a seed without a peer ID, follows when it is connected.
    fn bring_contacts(&self, first: bool) {
        let (shared, core) = (self.shared.clone(), self.core.clone());
        self.shared.spawn(async move {
            let (reply, book) = oneshot::channel();
            if shared.to_driver.send(Message::Export { reply }).await.is_err() {
                return;
            }
            let Ok(mut book) = book.await else { return };
            // Where not all are remembered, the last are: those that were connected for longest.
            book.sort_by_key(|entry| (entry.connected_seconds, std::cmp::Reverse(entry.failures)));
            let (named, other): (Vec<_>, Vec<_>) =
                book.iter().partition(|entry| first && is_named_by_the_user(entry));
            for (entries, source) in [(other, Source::Book), (named, Source::Bootstrap)] {
                let contacts: Vec<_> = entries.into_iter().filter_map(contact_in_book).collect();
                if !contacts.is_empty() {
                    let known = Input::Known { contacts, source };
                    let _ = core.to_driver.send(DhtMessage::Input(known)).await;
                }
            }
        });
    }
}

/// What an operator should look at, and nobody can bring about at will, is a warning.
fn log(event: &Event) {
    match event {
        Event::SizesDisagree { least, most } => tracing::warn!(
            least,
            most,
            "the networks behind the first contacts differ in size: one of them may be a trap, name others"
        ),
        Event::Clock { ahead, wrong: true } => {
            tracing::warn!(
                seconds = ahead,
                "the neighbours' clocks are ahead of this node's by so much: set it right"
            );
        }
        Event::OutageSuspected { .. } => {
            tracing::warn!("most of what the DHT asks fails: this network may be down")
        }
        event => tracing::debug!(?event, "dht"),
    }
}

fn is_named_by_the_user(entry: &BookEntry) -> bool {
    entry.addresses.iter().any(|address| address.source == AddressSource::User)
}

fn contact_in_book(entry: &BookEntry) -> Option<Contact> {
    let peer: PeerId = entry.peer.parse().ok()?;
    let addresses: Vec<DialAddress> =
        entry.addresses.iter().filter_map(|entry| entry.address.parse().ok()).collect();
    (!addresses.is_empty()).then(|| Contact::new(peer, &addresses))
}

/// Every caller and asker learns that the node is gone by the end of its channel.
impl Drop for Driver {
    fn drop(&mut self) {
        self.asks.values().for_each(|asking| asking.task.abort());
    }
}

/// Rows that are to be written.
pub(crate) fn puts(rows: Vec<(Bytes, Bytes)>) -> Vec<RowChange> {
    rows.into_iter().map(|(key, row)| (key, Some(row))).collect()
}

/// What the disk is to change.
pub(crate) fn row_changes(changes: Vec<Change>) -> Vec<RowChange> {
    let row = |change| match change {
        Change::Put { key, value } => (key, Some(value)),
        Change::Delete { key } => (key, None),
    };
    changes.into_iter().map(row).collect()
}

/// A connected peer with the addresses at which it says that it can be reached.
fn contact_of(peer: &Peer) -> Contact {
    let listen = peer.about().listen;
    let addresses: Vec<DialAddress> = listen.iter().filter_map(|text| text.parse().ok()).collect();
    Contact::new(peer.id, &addresses)
}
