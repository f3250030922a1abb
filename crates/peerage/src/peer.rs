//! An admitted peer, as the rest of the node sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_peers::Direction;
use peerage_transport::{Connection, Stream};
use peerage_wire::uvarint;
use tokio::sync::{Notify, SetOnce};

use crate::about::{About, Said};
use crate::channel::{ChannelCore, ChannelLimits, Class, EndedBy, Flight, Outbox, Seen};
use crate::dht::Idle;
use crate::error::SendError;
use crate::memory::{Budget, Budgets, LEAST_SHARE};
use crate::request::Slots;
use crate::shared::Shared;
use crate::shift::Shift;

/// A connected peer and what it sends and gets.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) connection: Connection,
    pub(crate) direction: Direction,
    pub(crate) foreign: bool,
    pub(crate) shared: Arc<Shared>,
    said: Mutex<Said>,
    outboxes: Mutex<Vec<Arc<Outbox>>>,
    /// Told when an outbox is gone.
    outbox_gone: Notify,
    /// The older connection to the same peer whose place this one has taken.
    before: OnceLock<Weak<Peer>>,
    /// What it lately sent, for each channel that asks; the newest registration of a name holds.
    seen: Mutex<Named<Seen>>,
    /// The version of the Peerage protocols that both speak; 0 for a foreign peer.
    version: u32,
    /// Always wanted: part of every fanout.
    pub(crate) persistent: AtomicBool,
    /// What all channels hold for this peer.
    memory: Arc<Budget>,
    /// Its parts of what channels hold, each for as long as it is used.
    parts: Mutex<Vec<Weak<Budget>>>,
    /// What channels may leave unread of the connection's window, and what control channels may beside it.
    unread: Arc<Budget>,
    unread_control: OnceLock<Arc<Budget>>,
    /// What channels have on their way of the connection's send window.
    pub(crate) flight: Flight,
    useful: AtomicBool,
    /// The same, since it was last looked at.
    lively: AtomicBool,
    /// How often messages were handed to the connection, on any channel.
    spoken: AtomicU64,
    /// What is needed once it is asked for something.
    asked: OnceLock<Box<Asked>>,
    /// Held while the peer is asked who it is: js-libp2p takes one such stream at a time and resets a second one.
    pub(crate) identifying: tokio::sync::Mutex<()>,
    /// Set when a foreign peer has been asked who it is, whether it has said it or not. Ours say so in their hellos.
    identified: SetOnce<()>,
}

/// What only some peers need: those that requests, pings and pushes go to or come from.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Places for our requests to it.
    pub(crate) calls: Slots,
    /// The accounts of what requests to and from it hold.
    request_budgets: Budgets,
    /// Inbound ping streams under way.
    pub(crate) pings: tokio::sync::Semaphore,
    /// Our ping stream: one per peer, kept for the next ping (libp2p ping).
    pub(crate) ping_stream: tokio::sync::Mutex<Option<Box<Stream>>>,
    /// Our streams to its DHT that wait for the next question.
    dht_streams: Mutex<Vec<Idle>>,
    /// Streams on which it asks our DHT.
    pub(crate) dht_served: AtomicUsize,
    /// Our questions to its DHT that it is to answer when something changes: as long as there is one its connection is of use.
    pub(crate) dht_waits: AtomicUsize,
    /// Something has changed that the peer is still to be told of.
    pub(crate) push_due: AtomicBool,
    /// Held while it is told, so that it hears of changes in their order.
    pub(crate) pushing: tokio::sync::Mutex<()>,
}

impl Asked {
    fn new(shared: &Shared) -> Self {
        let (calls, most) = (&shared.call_limits, shared.memory_limits.request_peer_bytes);
        Self {
            calls: Slots::new(calls.max_concurrent_per_peer, calls.max_waiting_per_peer),
            request_budgets: [shared.request_memory.clone(), Budget::new("request_peer_bytes", most)].into(),
            pings: tokio::sync::Semaphore::new(MAX_PING_STREAMS),
            ping_stream: tokio::sync::Mutex::new(None),
            dht_streams: Mutex::default(),
            dht_served: AtomicUsize::new(0),
            dht_waits: AtomicUsize::new(0),
            push_due: AtomicBool::new(false),
            pushing: tokio::sync::Mutex::new(()),
        }
    }
}

impl Asked {
    pub(crate) fn dht_streams(&self) -> MutexGuard<'_, Vec<Idle>> {
        lock(&self.dht_streams)
    }
}

/// Something for each of some channels.
type Named<T> = Vec<(String, Arc<T>)>;

/// A connected peer, as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Who.
    pub peer_id: PeerId,
    /// Who opened the connection.
    pub direction: Direction,
    /// The other end of the path.
    pub address: SocketAddr,
    /// Smoothed round-trip time, as QUIC measures it.
    pub rtt: Duration,
    /// The type of its host key, such as `Ed25519`.
    pub key_type: String,
    /// The connection's keys were agreed on with X25519MLKEM768. Never without the feature `post-quantum`.
    pub post_quantum: bool,
    /// A node of another libp2p implementation.
    pub foreign: bool,
    /// What it says about itself.
    pub about: About,
}

/// Inbound ping streams that one peer may hold (libp2p ping: at most two).
pub(crate) const MAX_PING_STREAMS: usize = 2;

/// How much longer than a peer may take to answer a sender waits for the answer, so that it learns when there is none.
pub(crate) const OPENING_GRACE: Duration = Duration::from_secs(1);

impl Peer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: Connection,
        direction: Direction,
        foreign: bool,
        about: About,
    ) -> Arc<Self> {
        let (limits, settings) = (&shared.memory_limits, shared.endpoint.settings());
        Arc::new(Self {
            id: connection.peer_id(),
            asked: OnceLock::new(),
            version: about.version,
            persistent: AtomicBool::new(false),
            memory: Budget::part_of(&shared.memory, "peer_bytes", limits.peer_bytes, 0),
            parts: Mutex::default(),
            unread: Budget::new("peer_window_bytes", limits.of_window(settings.peer_window_bytes.into())),
            unread_control: OnceLock::new(),
            flight: Flight::new(limits.of_window(settings.send_window_bytes)),
            seen: Mutex::default(),
            connection,
            direction,
            foreign,
            said: Mutex::new(Said::new(about, &shared.sayings)),
            shared,
            outboxes: Mutex::default(),
            outbox_gone: Notify::new(),
            before: OnceLock::new(),
            useful: AtomicBool::new(false),
            lively: AtomicBool::new(false),
            spoken: AtomicU64::new(0),
            identifying: tokio::sync::Mutex::new(()),
            identified: SetOnce::new(),
        })
    }

    pub(crate) fn info(&self) -> PeerInfo {
        PeerInfo {
            peer_id: self.id,
            direction: self.direction,
            address: self.connection.remote_address(),
            rtt: self.connection.rtt(),
            key_type: format!("{:?}", self.connection.public_key().key_type()),
            post_quantum: self.connection.is_post_quantum(),
            foreign: self.foreign,
            about: self.about(),
        }
    }

    /// What it says about itself.
    pub(crate) fn about(&self) -> About {
        lock(&self.said).about()
    }

    /// Changes what is known about the peer.
    pub(crate) fn change_about<T>(&self, change: impl FnOnce(&mut About) -> T) -> T {
        let mut said = lock(&self.said);
        let before = said.about();
        let mut about = before.clone();
        let result = change(&mut about);
        if about != before {
            *said = Said::new(about, &self.shared.sayings);
            drop(said);
            self.shared.tell_dht();
        }
        result
    }

    /// A foreign peer has been asked who it is, and more will not come of it.
    pub(crate) fn set_identified(&self) {
        // It fails when it was done before.
        let _ = self.identified.set(());
        self.shared.tell_dht();
    }

    /// Whether no more will come of asking what the peer serves.
    pub(crate) fn has_said_what_it_serves(&self) -> bool {
        !self.foreign || self.identified.initialized() || !self.about().protocols.is_empty()
    }

    /// Waits until a foreign peer has been asked who it is.
    pub(crate) async fn identified(&self) {
        if self.foreign {
            self.identified.wait().await;
        }
    }

    /// An application's message passed: the connection has proved its worth.
    pub(crate) fn mark_useful(&self) {
        if !self.lively.load(Ordering::Relaxed) {
            self.lively.store(true, Ordering::Relaxed);
            self.useful.store(true, Ordering::Relaxed);
        }
    }

    /// Messages were handed to the connection.
    pub(crate) fn mark_spoken(&self) {
        self.mark_useful();
        self.spoken.fetch_add(1, Ordering::Relaxed);
    }

    /// How often [`Peer::mark_spoken`] was called.
    pub(crate) fn spoken(&self) -> u64 {
        self.spoken.load(Ordering::Relaxed)
    }

    pub(crate) fn is_useful(&self) -> bool {
        self.useful.load(Ordering::Relaxed)
    }

    /// Whether an application's message has passed since this was last asked.
    pub(crate) fn was_lively(&self) -> bool {
        let awaited = self.if_asked().is_some_and(|asked| asked.dht_waits.load(Ordering::Relaxed) > 0);
        self.lively.swap(false, Ordering::Relaxed) || awaited
    }

    /// Whether it keeps to credit and tells what it has accepted.
    pub(crate) fn confirms(&self) -> bool {
        self.version >= crate::hello::WITH_ACCOUNTS
    }

    /// The queue to this peer on one channel; its writer is started on first use.
    pub(crate) fn outbox(self: &Arc<Self>, core: &Arc<ChannelCore>) -> Result<Arc<Outbox>, SendError> {
        let mut outboxes = self.lock_outboxes();
        if let Some(outbox) = outboxes.iter().find(|outbox| outbox.is_of(core))
            && !outbox.has_ended()
        {
            return Ok(outbox.clone());
        }
        if let Some(cause) = self.connection.close_cause() {
            return Err(SendError::Lost { peer: self.id, cause: cause.to_string() });
        }
        let known = self.known_limits(&core.config.name);
        let budgets = self.held_budgets(core);
        let now = self.shared.clock.now();
        let opening = self.shared.endpoint.settings().negotiation_timeout + OPENING_GRACE;
        let outbox =
            Outbox::new(self.id, core.clone(), self.confirms(), known.as_ref(), budgets, opening, now);
        outboxes.retain(|outbox| !outbox.is_of(core));
        // Of a channel of this name that was dropped, and still sends.
        let earlier = outboxes.iter().rfind(|outbox| outbox.name() == core.config.name).cloned();
        outboxes.push(outbox.clone());
        drop(outboxes);
        let writing = crate::channel::run_writer(self.clone(), core.clone(), outbox.clone());
        let (writer, writing) = Shift::new(&self.shared.lending, core.clone(), writing);
        outbox.set_writer(writer, self.shared.clock.clone());
        match (self.before.get().and_then(Weak::upgrade), earlier) {
            (None, None) => self.shared.spawn_shift(writing),
            (before, earlier) => {
                let (peer, name) = (self.clone(), core.config.name.clone());
                self.shared.spawn(async move {
                    if let Some(before) = before {
                        before.while_any(|outbox| outbox.name() == name).await;
                    }
                    if let Some(earlier) = earlier {
                        peer.while_any(|outbox| Arc::ptr_eq(outbox, &earlier)).await;
                    }
                    writing.await;
                });
            }
        }
        Ok(outbox)
    }

    /// Takes the place of the peer's older connection: what is queued there on a channel is sent before anything that is queued here.
    pub(crate) fn follow(&self, before: &Arc<Self>) {
        let _ = self.before.set(Arc::downgrade(before));
    }

    /// Waits as long as there is such an outbox.
    async fn while_any(&self, is: impl Fn(&Arc<Outbox>) -> bool) {
        loop {
            let gone = self.outbox_gone.notified();
            if !self.lock_outboxes().iter().any(&is) {
                return;
            }
            gone.await;
        }
    }

    /// The queue to this peer on one channel, if there is one.
    pub(crate) fn outbox_of(&self, core: &Arc<ChannelCore>) -> Option<Arc<Outbox>> {
        self.lock_outboxes().iter().find(|outbox| outbox.is_of(core)).cloned()
    }

    /// How full each of its queues is, by the channel's name.
    pub(crate) fn queue_levels(&self) -> Vec<(Arc<Outbox>, crate::channel::Levels)> {
        let outboxes = self.lock_outboxes().clone();
        outboxes.into_iter().map(|outbox| (outbox.clone(), outbox.levels())).collect()
    }

    /// Forgets an outbox whose writer has ended.
    pub(crate) fn forget_outbox(&self, ended: &Arc<Outbox>) {
        self.lock_outboxes().retain(|outbox| !Arc::ptr_eq(outbox, ended));
        self.outbox_gone.notify_waiters();
    }

    /// The channel is gone here: its queue takes in no more. The outbox, if it has something left to send and may.
    pub(crate) fn finish_outbox(&self, core: &Arc<ChannelCore>) -> Option<Weak<Outbox>> {
        lock(&self.seen).retain(|(name, _)| *name != core.config.name);
        let outbox = self.outbox_of(core)?;
        if outbox.has_unsent() && !core.config.linger.is_zero() {
            outbox.finish();
            return Some(Arc::downgrade(&outbox));
        }
        let lost = outbox.end(&SendError::Closed, EndedBy::Break);
        self.shared.lost_messages.fetch_add(lost, Ordering::Relaxed);
        None
    }

    /// Ends every queue. How many messages were never sent; their writers tell of those that were begun.
    pub(crate) fn end_outboxes(&self, cause: &str) -> u64 {
        let outboxes = std::mem::take(&mut *self.lock_outboxes());
        self.outbox_gone.notify_waiters();
        let error = SendError::Lost { peer: self.id, cause: cause.to_owned() };
        outboxes.iter().map(|outbox| outbox.end(&error, EndedBy::Break)).sum()
    }

    /// Takes in no more messages; the writers send what there is.
    pub(crate) fn finish_outboxes(&self) {
        let outboxes = self.lock_outboxes().clone();
        outboxes.iter().for_each(|outbox| outbox.finish());
    }

    /// Whether every writer has ended.
    pub(crate) fn is_drained(&self) -> bool {
        self.lock_outboxes().is_empty()
    }

    /// What the peer has lately sent on a channel.
    pub(crate) fn seen(&self, core: &ChannelCore) -> Arc<Seen> {
        of_channel(&self.seen, core, || {
            let mut key = [0; 16];
            lock(&self.shared.random).fill(&mut key);
            Seen::new(key)
        })
    }

    /// The accounts of what a channel may be sent by this peer.
    pub(crate) fn receive_budgets(&self, core: &ChannelCore) -> Budgets {
        let unread = self.unread_account(core).clone();
        self.held_accounts(core).into_iter().chain([unread]).collect()
    }

    /// The accounts of what a channel holds for this peer, or of it while nothing is promised to it.
    pub(crate) fn held_budgets(&self, core: &ChannelCore) -> Budgets {
        self.held_accounts(core).into()
    }

    fn held_accounts(&self, core: &ChannelCore) -> [Arc<Budget>; 4] {
        [self.shared.memory.clone(), self.memory.clone(), core.memory.clone(), self.part_of(core)]
    }

    /// Its part of what a channel holds, of which a longest message passes, beside a first promise where it needs more than that.
    fn part_of(&self, core: &ChannelCore) -> Arc<Budget> {
        let mut parts = lock(&self.parts);
        if let Some(part) = parts.iter().filter_map(Weak::upgrade).find(|part| part.is_part_of(&core.memory))
        {
            return part;
        }
        let longest = core.config.max_message_bytes + uvarint::MAX_LEN;
        let least = if longest > LEAST_SHARE { longest + LEAST_SHARE } else { 0 };
        let part = Budget::part_of(&core.memory, "memory_bytes", core.memory.most(), least);
        parts.retain(|part| part.strong_count() > 0);
        parts.push(Arc::downgrade(&part));
        part
    }

    /// The account of what a channel may leave unread of the connection's window.
    pub(crate) fn unread_account(&self, core: &ChannelCore) -> &Arc<Budget> {
        if core.config.class != Class::Control {
            return &self.unread;
        }
        let most = self.shared.memory_limits.window_reserve_bytes / 2;
        self.unread_control.get_or_init(|| Budget::new("window_reserve_bytes", most))
    }

    /// The account of what lies unread in the connection's window alone.
    pub(crate) fn unread_budgets(&self) -> Budgets {
        [self.unread.clone()].into()
    }

    /// The accounts of requests and answers.
    pub(crate) fn request_budgets(&self) -> Budgets {
        self.asked().request_budgets.clone()
    }

    /// What requests, pings and pushes need; made on first use.
    pub(crate) fn asked(&self) -> &Asked {
        self.asked.get_or_init(|| Box::new(Asked::new(&self.shared)))
    }

    /// The same, if there was any.
    pub(crate) fn if_asked(&self) -> Option<&Asked> {
        self.asked.get().map(|asked| &**asked)
    }

    /// What all channels hold for this peer, and have promised it, in bytes.
    pub(crate) fn accounted_bytes(&self) -> usize {
        self.memory.used()
    }

    /// What the peer has told of its side of a channel.
    pub(crate) fn known_limits(&self, channel: &str) -> Option<ChannelLimits> {
        lock(&self.said).channel(channel).cloned()
    }

    /// The peer tells of its side of a channel. A difference from ours is reported once.
    pub(crate) fn note_limits(&self, core: &ChannelCore, limits: &ChannelLimits) {
        if lock(&self.said).channel(&limits.name) == Some(limits) {
            return;
        }
        self.change_about(|about| match about.channels.iter().position(|known| known.name == limits.name) {
            Some(known) => about.channels[known] = limits.clone(),
            None if about.channels.len() < crate::hello::MAX_CHANNELS => about.channels.push(limits.clone()),
            None => {}
        });
        self.report_difference(core, limits);
    }

    /// Compares the channels of the peer's hello with ours.
    pub(crate) fn compare_channels(&self) {
        for core in self.shared.registry.channels() {
            if let Some(limits) = self.known_limits(&core.config.name) {
                self.report_difference(&core, &limits);
            }
        }
    }

    fn report_difference(&self, core: &ChannelCore, limits: &ChannelLimits) {
        let differences = limits.differences(&core.config);
        if !differences.is_empty() {
            tracing::warn!(peer = %self.id, channel = core.config.name, differences, "a channel is declared otherwise at a peer");
        }
    }

    fn lock_outboxes(&self) -> MutexGuard<'_, Vec<Arc<Outbox>>> {
        self.outboxes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What there is of a channel; made on first use.
fn of_channel<T>(all: &Mutex<Named<T>>, core: &ChannelCore, new: impl FnOnce() -> T) -> Arc<T> {
    let mut all = lock(all);
    if let Some((_, known)) = all.iter().find(|(name, _)| *name == core.config.name) {
        return known.clone();
    }
    let new = Arc::new(new());
    all.push((core.config.name.clone(), new.clone()));
    new
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
