//! The machine: a whole node of the DHT.

mod changes;
mod check;
mod density;
mod holder;
mod late;
mod links;
mod memory;
mod operation;
mod published;
mod reads;
mod requests;
mod serve;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod upkeep;
mod watchers;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::{Machine, Now, Random};

use crate::outage::Outages;
use crate::rtt::{FirstHops, Spread};
use crate::store::Usage;
use crate::{Contact, DhtConfig, Judge, Key, LookupConfig, Seen, SeenCounts, SizeEstimate, Table};
#[doc(hidden)]
pub use check::Errand;
pub use holder::HeldView;
use holder::Holder;
use late::Late;
use links::Links;
use operation::Op;
use reads::Reads;
use requests::Requests;
use serve::{Asker, Limiter};
pub use types::{
    Class, Counts, Ended, Event, Failure, Found, Input, Mode, NotStored, Operation, OperationId, Options,
    Outcome, Output, QueryId, RequestId, Source,
};
use upkeep::Upkeep;
pub use upkeep::{ESCAPE_PAUSE, MAX_VAIN_ESCAPES};
use watchers::Watchers;

/// A node of the DHT.
pub struct Dht {
    config: Arc<DhtConfig>,
    lookups: Arc<LookupConfig>,
    peer: PeerId,
    key: Key,
    mode: Mode,
    judge: Box<dyn Judge + Send>,
    random: Random,
    table: Table,
    links: Links,
    requests: Requests,
    late: Late,
    reads: Reads,
    /// By the machine's own numbers.
    operations: BTreeMap<u64, Op>,
    last_operation: u64,
    callers: BTreeMap<OperationId, u64>,
    limiter: Limiter,
    watchers: Watchers,
    upkeep: Upkeep,
    outages: Outages,
    size: SizeEstimate,
    seen: Seen,
    first_hops: FirstHops,
    round_trips: Spread,
    stats: Stats,
    /// Records, when the node has a part in them.
    holder: Option<Box<Holder>>,
    outputs: VecDeque<Output>,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests sent. `asked` = `answered` + `failed` + `cancelled` + those under way.
    pub asked: u64,
    /// Requests answered while somebody waited.
    pub answered: u64,
    /// Requests that came to nothing.
    pub failed: u64,
    /// Requests that became needless.
    pub cancelled: u64,
    /// Answers among `cancelled` that came all the same, and were used.
    pub late: u64,
    /// Queries of others that were served.
    pub served: u64,
    /// Queries of others that were told that we are busy.
    pub refused: u64,
}

/// How the node stands, for whoever watches it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Whether the node serves, or only asks.
    pub mode: Mode,
    /// Whether the lookup for ourselves has reached somebody.
    pub joined: bool,
    /// Entries of the table.
    pub peers: usize,
    /// Those among them that may be asked.
    pub usable: usize,
    /// Connected peers.
    pub connected: usize,
    /// The estimated size of the network; `None` while too little was measured.
    pub size: Option<f64>,
    /// Whether our own network is suspected.
    pub outage: bool,
    /// Operations under way, the node's own included.
    pub operations: usize,
    /// Requests under way.
    pub requests: usize,
    /// Peers whose queries are being counted.
    pub tracked: usize,
    /// Queries of others that wait for something to change.
    pub watchers: usize,
    /// Peers seen lately.
    pub seen: SeenCounts,
    /// Records that are held for others, and for ourselves where this is one of their places.
    pub held: Usage,
    /// Provider records among what is held, beside `held`.
    pub held_providers: usize,
    /// Records of our own that are looked after.
    pub published: usize,
    /// Things that we provide and tell others again.
    pub provided: usize,
    /// Totals since the start.
    pub stats: Stats,
}

impl Dht {
    /// A node that knows nobody yet. `judge` says which values are worth anything; `random` decides what is left to chance.
    pub fn new(
        config: impl Into<Arc<DhtConfig>>,
        peer: PeerId,
        mode: Mode,
        judge: Box<dyn Judge + Send>,
        random: Random,
        now: Now,
    ) -> Self {
        let config = config.into();
        let key = Key::of_peer(&peer);
        Self {
            lookups: Arc::new(config.lookup.clone()),
            peer,
            key,
            mode,
            judge,
            random,
            table: Table::new(key, config.table.clone()),
            links: Links::default(),
            requests: Requests::new(),
            late: Late::default(),
            reads: Reads::new(&config.lookup),
            operations: BTreeMap::new(),
            last_operation: 0,
            callers: BTreeMap::new(),
            limiter: Limiter::new(config.serve.clone(), now),
            watchers: Watchers::default(),
            upkeep: Upkeep::new(&config.upkeep, now),
            outages: Outages::default(),
            size: SizeEstimate::new(config.table.k),
            seen: Seen::new(config.upkeep.seen_peers),
            first_hops: FirstHops::default(),
            round_trips: Spread::default(),
            stats: Stats::default(),
            holder: None,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Who we are.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Where we lie.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether we serve.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The routing table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Peers seen lately: to be saved, and loaded after a restart.
    pub fn seen_mut(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// The estimated number of peers in the network; `None` while too little was measured.
    pub fn size(&self, now: Now) -> Option<f64> {
        self.size.size(now)
    }

    /// How the node stands.
    pub fn standing(&self, now: Now) -> Standing {
        Standing {
            mode: self.mode,
            joined: self.upkeep.is_joined(),
            peers: self.table.len(),
            usable: self.table.usable(),
            connected: self.links.len(),
            size: self.size.size(now),
            outage: self.outages.is_suspected(),
            operations: self.operations.len(),
            requests: self.requests.len(),
            tracked: self.limiter.tracked(),
            watchers: self.watchers.len(),
            seen: self.seen.counts(now),
            held: self.held(),
            held_providers: self.held_providers(),
            published: self.holder.as_ref().map_or(0, |holder| holder.sets.len()),
            provided: self.holder.as_ref().map_or(0, |holder| holder.provided.len()),
            stats: self.stats,
        }
    }

    /// The chance that a peer that has been up for `uptime` stays for `span` more, by what this node has seen of sessions: for clocks of repair.
    pub fn stays(&self, uptime: Duration, span: Duration) -> f64 {
        self.table.lifetimes.stays(uptime.as_secs().min(u64::from(u32::MAX)) as u32, span)
    }

    /// Whom to keep over a restart, to be handed in as [`Input::Known`]: the anchors, then the nearest peers, then some of each bucket, at most
    /// [`crate::UpkeepConfig::known_contacts`].
    pub fn keep(&self) -> Vec<Contact> {
        let mut kept = self.table.anchors();
        for contact in self.table.siblings().into_iter().chain(self.table.spread()) {
            if !kept.iter().any(|other| other.key() == contact.key()) {
                kept.push(contact);
            }
        }
        kept.truncate(self.config.upkeep.known_contacts);
        kept
    }

    /// Puts the node into a network that stands, as if it had verified these peers: where simulations and tests begin.
    pub fn plant(&mut self, now: Now, contacts: impl IntoIterator<Item = Contact>) {
        for contact in contacts {
            self.table.verified(now, &contact, contact.subnets().next());
            // Whoever is verified has answered, and said so.
            self.table.is_extended(contact.key());
        }
        self.settle_in(now);
    }

    /// Tells the size of the network before anything was measured, where simulations and tests begin: as so many samples.
    pub fn plant_size(&mut self, now: Now, size: f64, samples: usize) {
        let k = self.config.table.k as f64;
        for _ in 0..samples {
            self.size.add(now, crate::estimate::radius(k, size));
        }
    }
}

impl Machine for Dht {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Connected { contact, remote, rtt } => self.on_connected(now, &contact, remote, rtt),
            Input::Disconnected { peer } => self.on_disconnected(&peer),
            Input::Supports { peer, serves } => self.on_supports(now, &Key::of_peer(&peer), serves),
            Input::Answered { request, rtt, remote, answer } => {
                self.on_answered(now, request, rtt, remote, &answer);
            }
            Input::Failed { request, why } => self.on_failed(now, request, why),
            Input::Asked { query, from, remote, ask, extended } => {
                self.on_asked(now, query, &Asker { from, remote, extended }, &ask);
            }
            Input::Start { operation, wanted, options } => self.on_start(now, operation, wanted, options),
            Input::Cancel { operation } => self.on_cancel(now, operation),
            Input::Known { contacts, source } => self.on_known(now, contacts, source),
            Input::NetworkChanged => self.on_network_changed(now),
            Input::Withdrawn { query } => self.on_withdrawn(query),
            Input::Mode(mode) => self.on_mode(now, mode),
            Input::Written { number, ok } => self.on_written(now, number, ok),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.expire_requests(now);
        self.stop_listening(now);
        self.end_waits(now);
        self.drive_due(now);
        if self.holder_due() <= now.mono {
            self.drive_holder(now);
        }
        if self.upkeep.next() <= now.mono {
            self.keep_up(now);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        let operations = self.operations.values().map(|op| op.wake).min().unwrap_or(Duration::MAX);
        let requests = self.requests.first_deadline().unwrap_or(Duration::MAX);
        let late = self.late.first_due().unwrap_or(Duration::MAX);
        let watchers = self.watchers.first_due().unwrap_or(Duration::MAX);
        let next =
            [operations, requests, late, watchers, self.upkeep.next(), self.holder_due()].into_iter().min();
        next.filter(|next| *next != Duration::MAX)
    }
}

impl fmt::Debug for Dht {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dht")
            .field("peer", &self.peer)
            .field("table", &self.table.len())
            .finish_non_exhaustive()
    }
}
