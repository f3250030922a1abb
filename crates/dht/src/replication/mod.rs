//! Replication: a record stays at as many nodes as its kind asks for, whoever leaves (dht.md B.3).
//!
//! Two parts work at it, and neither needs the other:
//! - [`Repair`], at every holder. Neighbours in the keyspace compare digests of the records that both should have, and hand over what one of them lacks. The cost is that of a digest
//!   for each neighbour and period, however many records there are. So records outlive their publisher's connection, and a joiner gets what is now its own.
//!   Values of validators' namespaces, and proofs that a publisher says two things, are reckoned in beside them ([`Scope`]).
//! - [`Sets`], at the publisher: for each record of ours who has it, as far as we know, and whether those are enough. It probes, publishes again when they are too few, and renews
//!   at a third of the record's life, with a small signed extension where the content is the same. [`Provided`] is the same for what we provide.
//!
//! Repair passes on what the publisher signed: it never lengthens a record's life, never raises its sequence. A copy that a holder refused is no replica.

mod answer;
mod asking;
mod clock;
mod digest;
mod fresh;
mod index;
mod message;
mod provided;
mod repair;
mod sets;

use std::time::Duration;

use peerage_machine::{Now, TokenBucket};

pub use answer::{Asker, Declined};
pub use clock::period;
pub use digest::{Digest, Prefix, Scope};
pub use message::{
    Item, List, MAX_DIGESTS, MAX_HASHES, MAX_IDS, MAX_ITEMS, MAX_RECORDS, Malformed, RawValue, RepairMessage,
    Verdict,
};
pub use provided::{Provided, Tell};
pub use repair::{Repair, RepairStats};
pub use sets::{Act, SetView, Sets};

/// Limits and times of replication.
#[derive(Debug, Clone)]
pub struct ReplicationConfig {
    /// The chance that all replicas of a record vanish between two comparisons; the period follows from it and from the churn that is seen.
    pub loss_per_period: f64,
    /// The shortest period.
    pub period_least: Duration,
    /// The longest period.
    pub period_most: Duration,
    /// Who is not the closest holder waits so long for each that is closer, so that one alone hands records over.
    pub rank_wait: Duration,
    /// So many of those who are closest to a newcomer compare with it at once; the others wait for a period.
    pub newcomer_ranks: usize,
    /// Questions that one comparison may take.
    pub max_rounds: u32,
    /// Records are kept although as many more than their replicas are closer to them; beyond that, until half their life is over.
    pub spare_ranks: usize,
    /// Neighbours that are compared with, at most 63.
    pub max_neighbours: usize,
    /// For so many periods a neighbour is believed to have what it said that it has, is not asked again for what we did not take from it, and is not offered again what it
    /// refused.
    pub believed_periods: u32,
    /// Looks at records that one holder's questions may cost us at once. A record that it hands over counts as a hundred.
    pub looks_burst: f64,
    /// The same in a second, in the long run.
    pub looks_per_second: f64,
    /// Names of records that have just come, of which neighbours are asked at once whether they have them. What there is no room for waits for the next comparison.
    pub fresh_burst: f64,
    /// The same in a second, in the long run.
    pub fresh_per_second: f64,
    /// Verified peers that are no neighbours of ours, but hold records beside us, whose questions are counted; while all of them are busy, further ones are told so.
    pub max_guests: usize,
    /// Records of one comparison that wait to be handed over; as many to be asked about, and to be asked for; as many that are set aside, and
    /// as many that were refused; and as many of which it is noted that they went from one to the other. Also records that have just come and are to be asked about.
    pub max_hand_over: usize,
    /// Records of our own that are looked after.
    pub max_sets: usize,
    /// Copies of our records that are stored, renewed or asked after at once; the next records wait their turn. A single record may have more.
    pub max_copies_at_once: usize,
    /// Things that we provide and tell others again.
    pub max_provided: usize,
    /// How often we ask the holders of our records whether they still have them.
    pub probe_every: Duration,
    /// The first pause before we publish again what too few have stored; each further one doubles, up to `probe_every`.
    pub retry_first: Duration,
    /// A set is degraded when it is short of more than so many replicas; where fewer peers are known than replicas are wanted, of as many.
    pub slack: usize,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            loss_per_period: 1e-6,
            period_least: Duration::from_secs(60),
            period_most: Duration::from_secs(30 * 60),
            rank_wait: Duration::from_secs(2),
            newcomer_ranks: 32,
            max_rounds: 24,
            spare_ranks: 4,
            max_neighbours: 63,
            believed_periods: 8,
            looks_burst: 200_000.0,
            looks_per_second: 5_000.0,
            fresh_burst: 100.0,
            fresh_per_second: 0.02,
            max_guests: 128,
            max_hand_over: 1024,
            max_sets: 1024,
            max_copies_at_once: 256,
            max_provided: 1024,
            probe_every: Duration::from_secs(15 * 60),
            retry_first: Duration::from_secs(15),
            slack: 2,
        }
    }
}

impl ReplicationConfig {
    /// What the questions of one holder may cost.
    fn credit(&self, now: Now) -> TokenBucket {
        TokenBucket::new(self.looks_burst, self.looks_per_second, now)
    }
}

/// How a record stands with its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetState {
    /// It is on its way to its first holders.
    Publishing,
    /// Enough have it.
    Healthy,
    /// Too few have it.
    Degraded,
    /// So few have it that it may be lost.
    Critical,
    /// Its time is over.
    Expired,
}

impl SetState {
    /// Of `live` replicas where `wanted` are wanted. Without any none is healthy, however few are wanted.
    pub fn of(live: usize, wanted: usize, slack: usize) -> Self {
        match live {
            0 => Self::Critical,
            enough if enough + slack >= wanted => Self::Healthy,
            few if few <= (wanted / 4).max(1) => Self::Critical,
            _ => Self::Degraded,
        }
    }
}

#[cfg(test)]
mod tests;
