//! The DHT: finding peers by their IDs, and records that peers keep for one another.
//!
//! ```
//! use peerage::{DhtConfig, Node};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = || Node::builder().network("acme").listen("/ip4/127.0.0.1/udp/0/quic-v1").dht(DhtConfig::default());
//! let alice = node().start().await?;
//! let bob = node().seed(&alice.listen_addresses()[0]).start().await?;
//! bob.connect(&alice.listen_addresses()[0]).await?;
//!
//! let stored = alice.dht().put("colour", "blue").await?;
//! assert!(stored.counts.stored >= 1);
//! let (value, report) = bob.dht().get(alice.peer_id(), "colour").await?;
//! assert_eq!(value.body, "blue");
//! println!("{report}");
//! # bob.close().await;
//! # alice.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it is built
//!
//! The machine that decides is `peerage-dht`, a pure crate; here stands what carries it out. `driver` owns it. A question of ours is a task (`asks`)
//! over a kept stream (`streams`) of a connection that there is, or of one that is made for it; questions of peers come in on their streams (`serve`).
//! `codec` is the wire's form of both, libp2p's. [`Dht`] is what applications use (`handle`): `records`, `mail`, `topics` with their `shards`, what this node keeps up (`published`),
//! and what is waited for (`watch`). `mode` says whether the node serves. `reach` connects to a peer by its ID alone.

mod asks;
pub(crate) mod codec;
mod config;
mod driver;
mod handle;
mod late;
mod mail;
mod mode;
mod published;
mod reach;
mod records;
mod report;
mod serve;
mod shards;
mod streams;
mod topics;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage_dht::record::{Network, Records};
use peerage_dht::{AcceptAll, Input, LookupConfig, OperationId, QueryId};
use peerage_machine::{Machine as _, Random};
use tokio::sync::{Notify, broadcast, mpsc};

use crate::error::RegisterError;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::store::Row;

pub use config::DhtConfig;
pub(crate) use handle::CONTACT_PATIENCE;
pub use handle::{Dht, DhtCall, DhtError, Steps};
pub use mail::Letter;
pub use peerage_dht::record::{
    Authority, EntryId, ForeignLimits, Kind, KindLimits, MailboxPolicy, MailboxToken, Place, RecordsConfig,
    Validator,
};
pub use peerage_dht::replication::SetState;
pub use peerage_dht::store::{Equivocation, Usage};
pub use peerage_dht::topic::Ad;
pub use peerage_dht::{
    Cause, Class, Contact, Counts, DhtConfig as DhtLimits, Ended, Event, Failure, Family, Health, Invalid,
    Judged, Mode, NotStored, Refusal, SeenCounts, Standing, Stats, Step, StepKind, Target,
};
pub use published::{HeldRecord, MAX_HELD_SHOWN, Published};
pub(crate) use reach::reach;
pub use records::Value;
pub use report::{DhtReport, Settled};
pub use topics::Member;
pub use watch::{Changes, Update};

use driver::run;
pub(crate) use driver::{DhtMessage, MAX_STEPS_BEHIND, QUEUE};
pub(crate) use late::MAX_LATE;
pub(crate) use serve::{IDLE, MAX_STREAMS_PER_PEER, WRITE_TIMEOUT, serve};
pub(crate) use shards::SHARDS_AT_ONCE;
pub(crate) use streams::{END_WITHIN, IDLE_FOR, Idle, MAX_IDLE};

/// libp2p's own name of the protocol, for the networks of others.
pub(crate) const LIBP2P_PROTOCOL: &str = "/ipfs/kad/1.0.0";

/// The name under which a network's nodes ask each other.
pub(crate) fn protocol_of_network(network: &str) -> String {
    format!("/{network}/kad/1.0.0")
}

/// What the handles, the driver and the streams share.
#[derive(Debug)]
pub(crate) struct DhtCore {
    /// The names under which peers are asked, the best first. Never empty.
    pub(crate) protocols: Vec<String>,
    pub(crate) network: Network,
    pub(crate) records: RecordsConfig,
    pub(crate) lookups: LookupConfig,
    /// The number of the record that was signed last: times in microseconds, and never the same twice.
    last_seq: AtomicU64,
    pub(crate) to_driver: mpsc::Sender<DhtMessage>,
    /// A peer was admitted, has gone, or has told what it serves.
    pub(crate) peers_changed: Notify,
    pub(crate) events: broadcast::Sender<Event>,
    /// Who may write to this node's mailbox, once it has said so, and the number under which it has.
    policy: crate::watch::Sender<Option<(u64, MailboxPolicy)>>,
    /// Messages in it that were read, the last so many.
    cleared: Mutex<Vec<EntryId>>,
    most_mail_work_bits: u32,
    next_operation: AtomicU64,
    next_query: AtomicU64,
    /// Rung when a batch of rows has been written, or not.
    written: Notify,
    /// Somebody has gone, and the driver's queue had no room to say so.
    pub(crate) left: Notify,
    /// Whether this node serves. The driver changes it, with what is advertised.
    pub(crate) mode: crate::watch::Sender<Mode>,
}

/// Starts the driver, and serves where the node is a server.
pub(crate) fn start(
    shared: &Arc<Shared>,
    core: Arc<DhtCore>,
    config: DhtConfig,
    listens: bool,
    random: Random,
    rows: Vec<Row>,
    messages: mpsc::Receiver<DhtMessage>,
) -> Result<(), RegisterError> {
    let mode = config.mode.unwrap_or(if listens { Mode::Server } else { Mode::Client });
    if mode == Mode::Server {
        mode::advertise(shared, &core, mode)?;
    }
    let now = shared.clock.now();
    let records = Records::new(core.network.clone(), core.records.clone());
    let records = config
        .validators
        .into_iter()
        .fold(records, |records, (namespace, validator)| records.with_validator(&namespace, validator));
    let records = match config.authority {
        Some(authority) => records.with_authority(authority),
        None => records,
    };
    let machine = peerage_dht::Dht::new(config.limits, shared.me, mode, Box::new(AcceptAll), random, now);
    let mut machine = machine.with_records(shared.key.clone(), records);
    let restored = machine.restore(now, rows);
    tracing::debug!(?restored, "the DHT's records are read");
    shared.spawn(run(shared.clone(), core, machine, messages));
    shared.spawn(records::keep_published(shared.clone()));
    shared.spawn(topics::keep_topics(shared.clone()));
    Ok(())
}

/// Stores what the machine has not handed out yet, at the end of the node.
pub(crate) async fn save(shared: &Arc<Shared>) {
    let dht = Dht { shared: shared.clone() };
    if let Ok(rows) = dht.of_machine(|now, machine| machine.memory(now)).await
        && let Err(error) = shared.saving.save_rows(driver::puts(rows), false).await
    {
        tracing::warn!(%error, "whom the DHT knows best was not stored");
    }
    let Ok(core) = dht.core() else { return };
    let next = |now, machine: &mut peerage_dht::Dht| (machine.flush(now), machine.is_writing());
    while let Ok((batch, writing)) = dht.of_machine(next).await {
        let Some(batch) = batch else {
            if !writing {
                return;
            }
            // What comes after the batch under way is handed out when it is done.
            core.written.notified().await;
            continue;
        };
        let number = batch.number;
        let saved = shared.saving.save_rows(driver::row_changes(batch.changes), batch.durable).await;
        let ok = saved.is_ok();
        if let Err(error) = saved {
            tracing::warn!(%error, "the last of the DHT's records were not stored");
        }
        let written =
            move |now, machine: &mut peerage_dht::Dht| machine.handle(now, Input::Written { number, ok });
        if dht.of_machine(written).await.is_err() || !ok {
            return;
        }
    }
}

fn network_of(name: &str) -> Network {
    Network::new(name).expect("the builder has checked the name by the same rule")
}

/// The network in which this node is has changed: peers that could not be reached may be there now.
pub(crate) async fn network_changed(shared: &Shared) {
    let Some(core) = &shared.dht else { return };
    // A driver that has stopped asks nobody any more.
    let _ = core.to_driver.send(DhtMessage::Input(Input::NetworkChanged)).await;
}

/// Somebody who waits for the driver.
pub(crate) struct Waiting<'a> {
    core: &'a DhtCore,
    gone: Option<Input>,
}

impl Waiting<'_> {
    pub(crate) fn answered(mut self) {
        self.gone = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(gone) = self.gone.take() else { return };
        // Where the queue is full, the driver looks by itself.
        if self.core.to_driver.try_send(DhtMessage::Input(gone)).is_err() {
            self.core.left.notify_one();
        }
    }
}

impl DhtCore {
    /// Somebody waits for the driver from now on. Whoever goes before it was answered tells the driver so, with this.
    pub(crate) fn waiting(&self, gone: Input) -> Waiting<'_> {
        Waiting { core: self, gone: Some(gone) }
    }

    /// The core of a node's DHT, and what its driver hears.
    pub(crate) fn new(network: &str, config: &DhtConfig) -> (Arc<Self>, mpsc::Receiver<DhtMessage>) {
        let mut protocols = vec![protocol_of_network(network)];
        if config.libp2p {
            protocols.push(LIBP2P_PROTOCOL.to_owned());
        }
        let (to_driver, messages) = mpsc::channel(QUEUE);
        let core = Self {
            protocols,
            network: network_of(network),
            records: config.records.clone(),
            lookups: config.limits.lookup.clone(),
            last_seq: AtomicU64::new(0),
            to_driver,
            peers_changed: Notify::new(),
            events: broadcast::Sender::new(config.max_events_behind),
            policy: crate::watch::Sender::new(None),
            cleared: Mutex::default(),
            most_mail_work_bits: config.most_mail_work_bits,
            next_operation: AtomicU64::new(0),
            left: Notify::new(),
            next_query: AtomicU64::new(0),
            written: Notify::new(),
            mode: crate::watch::Sender::new(Mode::Client),
        };
        (Arc::new(core), messages)
    }

    /// A sequence number that is higher than all that were signed before, also by an earlier run on this key, as long as the clock is not set back by more
    /// than it was off.
    fn next_seq(&self, unix: Duration) -> u64 {
        let now = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last_seq.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now.max(last.unwrap_or_default().saturating_add(1))
    }

    fn next_operation(&self) -> OperationId {
        OperationId(self.next_operation.fetch_add(1, Ordering::Relaxed))
    }

    fn next_query(&self) -> QueryId {
        QueryId(self.next_query.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a peer serves the DHT; `None` as long as a foreign one has not said what it serves. It may never say so: then its answers tell, and that it has none.
    fn serves(&self, peer: &Peer) -> Option<bool> {
        let served = peer.about().protocols;
        let said = !peer.foreign || !served.is_empty();
        said.then(|| self.protocols.iter().any(|name| served.contains(name)))
    }

    /// The names under which to ask a peer, each in turn; none where it does not serve the DHT. Where there are several, a foreign peer's word on what it
    /// serves is waited for, as long as for the slowest answer; one that says nothing is asked all the same.
    async fn names_to_ask(&self, peer: &Peer) -> Vec<&str> {
        if self.protocols.len() > 1 && !peer.has_said_what_it_serves() {
            // Who is late is asked under each name.
            let _ = tokio::time::timeout(self.lookups.soft_most, peer.identified()).await;
        }
        let served = peer.about().protocols;
        let names = self.protocols.iter().map(String::as_str);
        match names.clone().find(|name| served.iter().any(|served| served == name)) {
            None if peer.foreign && served.is_empty() => names.collect(),
            named => named.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use peerage_dht::Event;
    use tokio::sync::broadcast::error::RecvError;

    use super::*;
    use crate::Node;

    /// X-29: whoever asks the DHT's task more than it can keep waits.
    #[tokio::test]
    async fn beyond_the_queue_of_the_dht_senders_wait() {
        let node = Node::builder().dht(DhtConfig::default()).start().await.unwrap();
        let dht = node.dht();
        let to_driver = dht.shared.dht.as_ref().unwrap().to_driver.clone();
        let mut asking: Vec<_> = (0..QUEUE + 50).map(|_| Box::pin(dht.standing())).collect();
        // The driver's task runs on this thread too, and has no turn in between.
        for (number, asking) in (1..).zip(&mut asking) {
            assert!(asking.now_or_never().is_none());
            assert_eq!(to_driver.capacity(), QUEUE.saturating_sub(number));
        }
        let all = tokio::time::timeout(Duration::from_secs(20), futures::future::join_all(asking)).await;
        assert!(all.expect("all are answered").iter().all(Result::is_ok));
        node.close().await;
    }

    /// X-29
    #[tokio::test]
    async fn a_slow_watcher_of_the_dhts_events_misses_those_beyond_the_limit_and_is_told() {
        let config = DhtConfig { max_events_behind: 4, ..DhtConfig::default() };
        let (core, _messages) = DhtCore::new("acme", &config);
        let mut watcher = core.events.subscribe();
        for number in 0..10 {
            core.events.send(Event::Joined { peers: number, took: Duration::ZERO }).unwrap();
        }
        assert_eq!(watcher.recv().await, Err(RecvError::Lagged(6)));
        assert_eq!(watcher.recv().await, Ok(Event::Joined { peers: 6, took: Duration::ZERO }));
        let none = DhtConfig { max_events_behind: 0, ..DhtConfig::default() };
        assert!(none.validate().unwrap_err().contains("max_events_behind"));
    }
}
