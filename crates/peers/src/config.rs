//! The peer manager's limits and times, each with its default.

use std::time::Duration;

/// What the peer manager may do. Every field is a limit or a time with a name of its own.
#[derive(Debug, Clone)]
pub struct PeersConfig {
    /// Connections that others may open to us, handshakes included. Persistent and unconditional peers don't count.
    pub max_inbound: usize,
    /// Inbound connections from one address; an IPv6 /64 is one. Loopback is exempt.
    pub max_inbound_per_address: usize,
    /// Inbound connections from one subnet: an IPv4 /24 or an IPv6 /48. Loopback is exempt.
    pub max_inbound_per_subnet: usize,
    /// Inbound connections whose TLS handshake is done and that have not said hello.
    pub max_inbound_greetings: usize,
    /// Connections that we open and keep, dials included. Persistent and unconditional peers and explicit connects don't count.
    pub max_outbound: usize,
    /// Dials under way at once, of every kind but visits.
    pub max_parallel_dials: usize,
    /// Visits of ours at once: connections for a while, to ask something, which the other limits don't count. For one more, the one that was used least lately
    /// ends. Zero for none.
    pub max_outbound_visits: usize,
    /// Visits of others at once, beside the other inbound connections. For one more, the one that has been idle for longest ends. They are capped per address and per
    /// subnet too, by the same numbers.
    pub max_inbound_visits: usize,
    /// Dials for visits under way at once.
    pub max_parallel_visits: usize,
    /// Visits that wait for their dial; more are refused.
    pub max_waiting_visits: usize,
    /// Dials for visits that may be begun at once.
    pub visit_burst: f64,
    /// Dials for visits that may be begun in a second, in the long run.
    pub visits_per_second: f64,
    /// A visit of ours ends when nobody was asked anything over it for so long, and no message of an application has passed.
    pub visit_idle: Duration,
    /// No visit of another ends in favour of the next one before it has lasted so long.
    pub visit_grace: Duration,
    /// Peers that the address book holds.
    pub max_known_peers: usize,
    /// Addresses kept for one peer.
    pub max_addresses_per_peer: usize,
    /// Failed dials after which an address that was only hearsay is forgotten.
    pub max_hearsay_failures: u32,
    /// The first redial delay is drawn from zero to this, and a tenth of this is added; each failure doubles what is drawn from.
    pub backoff_base: Duration,
    /// No redial delay is longer.
    pub backoff_ceiling: Duration,
    /// No delay is longer after a fault of our own, such as a missing socket.
    pub local_backoff_ceiling: Duration,
    /// The pause before a peer is dialled again that has no room and does not say when to come back; up to twice that. A peer that we refuse because
    /// we are full, and to whom we can name no other, is told so much.
    pub overload_pause: Duration,
    /// No delay before a seed is tried again is longer, while peers are few: not even where it was full and said a longer time.
    pub seed_backoff_ceiling: Duration,
    /// Seeds are dialled while fewer peers than this are connected.
    pub seed_target: usize,
    /// Dials that the node may begin at once, of every kind.
    pub dial_burst: f64,
    /// Dials that the node may begin in a second, in the long run.
    pub dials_per_second: f64,
    /// Dials at once to one address that only others have vouched for, and that find nobody; an IPv6 /64 is one. One, until a peer was found there.
    /// Loopback is exempt.
    pub address_dial_burst: f64,
    /// The same, a second in the long run; the pause doubles each time where no peer was ever found.
    pub address_dials_per_second: f64,
    /// Dials at once to one subnet (/24, /48) at addresses that only others have vouched for, and that find nobody. Loopback is exempt.
    pub subnet_dial_burst: f64,
    /// The same, a second in the long run.
    pub subnet_dials_per_second: f64,
    /// How often the outbound peers are rotated, so that the overlay stays fresh; zero for never.
    pub rotation_interval: Duration,
    /// Outbound peers that are replaced in a rotation.
    pub rotation_drops: usize,
    /// A peer that was connected for less time is left alone by rotation.
    pub rotation_min_age: Duration,
    /// A connection that lasted so long was useful: it clears the failures before it.
    pub useful_after: Duration,
    /// Records sent in one answer to a peer that asks whom we know.
    pub max_exchange_records: usize,
    /// The first pause before asking another peer again; each fruitless round doubles it.
    pub exchange_pause: Duration,
    /// The longest pause between asking.
    pub exchange_pause_ceiling: Duration,
    /// How often one peer may ask us: so many at once.
    pub exchange_burst: f64,
    /// How often one peer may ask us: so many a second in the long run.
    pub exchange_per_second: f64,
    /// Entries of the address book that one peer may fill with others that no handshake has proved yet.
    pub max_hearsay_per_peer: usize,
    /// The same for all peers of one subnet (/24, /48) together. Loopback is exempt.
    pub max_hearsay_per_subnet: usize,
    /// Records of others that go with a refusal because we are full.
    pub max_alternatives: usize,
    /// Entries that the journal behind `why` keeps of one peer.
    pub max_journal_per_peer: usize,
    /// Entries that the journal keeps in all.
    pub max_journal_entries: usize,
    /// How long a change of the address book may wait before it is stored.
    pub save_after: Duration,
    /// How long a peer that we refuse because we are full is told to stay away when we named others to it: this, to twice as long.
    pub full_retry_after: Duration,
    /// Refusals with alternatives that may be given at once. Beyond them strangers are refused before TLS while no place is free, unless places for visits are.
    pub refusal_burst: f64,
    /// Refusals with alternatives that may be given in a second in the long run.
    pub refusals_per_second: f64,
    /// Refusals without alternatives that may be given at once beyond those with some, while places for visits are free. Beyond them strangers are refused before TLS.
    pub plain_refusal_burst: f64,
    /// The same, a second in the long run.
    pub plain_refusals_per_second: f64,
    /// Bans that are kept.
    pub max_bans: usize,
    /// How long an automatic ban lasts.
    pub ban_time: Duration,
    /// So many peers banned automatically at one address (an IPv6 /64 is one) ban the address.
    pub max_bans_per_address: usize,
    /// Address groups (/24, /48) that must agree on where they see us before it is announced.
    pub observed_quorum: usize,
    /// How long the later of two nodes with one key must have been gone before the earlier one is admitted again.
    pub clone_patience: Duration,
    /// Whether nodes of other libp2p implementations, which don't speak the Peerage hello, are admitted. `None` admits them, but not in a private
    /// network.
    pub foreign: Option<ForeignPolicy>,
}

/// What to do with a libp2p node that is not a Peerage node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignPolicy {
    /// It is admitted within the limits, as any other.
    Allow,
    /// It is turned away.
    Refuse,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self {
            max_inbound: 40,
            max_inbound_per_address: 8,
            max_inbound_per_subnet: 16,
            max_inbound_greetings: 128,
            max_outbound: 10,
            max_parallel_dials: 8,
            max_outbound_visits: 64,
            max_inbound_visits: 64,
            max_parallel_visits: 16,
            max_waiting_visits: 256,
            visit_burst: 64.0,
            visits_per_second: 20.0,
            visit_idle: Duration::from_secs(60),
            visit_grace: Duration::from_secs(5),
            max_known_peers: 10_000,
            max_addresses_per_peer: 8,
            max_hearsay_failures: 3,
            backoff_base: Duration::from_secs(1),
            backoff_ceiling: Duration::from_secs(600),
            local_backoff_ceiling: Duration::from_secs(60),
            overload_pause: Duration::from_secs(10),
            seed_backoff_ceiling: Duration::from_secs(30),
            seed_target: 8,
            dial_burst: 20.0,
            dials_per_second: 10.0,
            address_dial_burst: 4.0,
            address_dials_per_second: 1.0 / 300.0,
            subnet_dial_burst: 32.0,
            subnet_dials_per_second: 0.5,
            rotation_interval: Duration::from_secs(15 * 60),
            rotation_drops: 2,
            rotation_min_age: Duration::from_secs(10 * 60),
            useful_after: Duration::from_secs(60),
            max_exchange_records: 30,
            exchange_pause: Duration::from_secs(2),
            exchange_pause_ceiling: Duration::from_secs(60),
            exchange_burst: 4.0,
            exchange_per_second: 0.5,
            max_hearsay_per_peer: 64,
            max_hearsay_per_subnet: 256,
            max_alternatives: 8,
            max_journal_per_peer: 32,
            max_journal_entries: 8192,
            save_after: Duration::from_secs(2),
            full_retry_after: Duration::from_secs(30),
            refusal_burst: 32.0,
            refusals_per_second: 8.0,
            plain_refusal_burst: 128.0,
            plain_refusals_per_second: 32.0,
            max_bans: 4096,
            ban_time: Duration::from_secs(3600),
            max_bans_per_address: 3,
            observed_quorum: 3,
            clone_patience: Duration::from_secs(60),
            foreign: None,
        }
    }
}
