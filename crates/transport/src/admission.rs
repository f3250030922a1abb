//! Admission: what an inbound connection is answered before any TLS was done for it.
//!
//! Pure: no socket and no clock. Four answers, from cheap to dear: ignore, refuse, retry, accept.
//!
//! # The attack, and what stands against it
//!
//! Anyone can send first packets under any source address, thousands a second. Until a sender has shown that it gets what is sent to its address (it
//! came back from a Retry: its address is *validated*), its address says nothing. So the two kinds have nothing in common here:
//!
//! - Each has its own bound on concurrent handshakes and its own rate. A forged sender never finishes its handshake and holds its place until the
//!   timeout, so a flood fills the places for unvalidated addresses within moments. From then on who comes with an unvalidated address is
//!   told to retry, which costs one packet and no memory, and honest diallers come back validated to places that the flood cannot take.
//! - Each has its own table of rates per address (an IPv6 /64 counts as one) and per subnet (/24, /48). What forged packets spend under a
//!   victim's address makes the victim retry, and nothing worse.
//! - Retries and refusals have rates as well. Beyond them there is silence, and honest diallers get through by sending again.
//!
//! An entry of a table is made only for an accepted handshake, so the tables grow no faster than the node-wide rates allow; and they are bounded
//! besides. Loopback addresses are exempt from the tables, never from what holds for the whole node.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use peerage_identity::{AddressScope, IpPrefix};
use peerage_machine::{Now, TokenBucket};

use crate::settings::{SettingsError, check};
use table::RateTable;

mod table;

/// So many at once, then so many a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once after a quiet time.
    pub burst: u32,
    /// How many may come each second in the long run.
    pub per_second: u32,
}

impl Rate {
    /// A rate.
    pub const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second }
    }

    fn bucket(self, now: Now) -> TokenBucket {
        TokenBucket::new(self.burst.into(), self.per_second.into(), now)
    }
}

/// The limits of [`Admission`]. An honest small network never meets the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// Handshakes in progress with addresses that were not validated before they began. Beyond it, senders are told to retry.
    pub max_unvalidated_handshakes: usize,
    /// Handshakes in progress with validated addresses. Beyond it, senders are refused.
    pub max_validated_handshakes: usize,
    /// Handshakes begun with unvalidated addresses. Beyond it, senders are told to retry.
    pub unvalidated: Rate,
    /// Handshakes begun with validated addresses. Beyond it, senders are refused.
    pub validated: Rate,
    /// Handshakes begun with one address: an IPv4 address, or an IPv6 /64. Counted for validated and unvalidated senders separately.
    pub per_address: Rate,
    /// Handshakes begun with one subnet: an IPv4 /24, or an IPv6 /48. Counted for validated and unvalidated senders separately.
    pub per_subnet: Rate,
    /// Retries sent. Beyond it, packets are ignored.
    pub retries: Rate,
    /// Refusals sent. Beyond it, packets are ignored.
    pub refusals: Rate,
    /// Addresses, and as many subnets, whose rates are remembered, for validated and unvalidated senders each.
    pub max_tracked: usize,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self {
            max_unvalidated_handshakes: 64,
            max_validated_handshakes: 256,
            unvalidated: Rate::new(500, 500),
            validated: Rate::new(500, 500),
            per_address: Rate::new(64, 8),
            per_subnet: Rate::new(256, 32),
            retries: Rate::new(10_000, 10_000),
            refusals: Rate::new(1_000, 1_000),
            max_tracked: 8_192,
        }
    }
}

impl AdmissionSettings {
    /// Checks each field.
    ///
    /// # Errors
    /// [`SettingsError`] for the first field that cannot be used.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let counts = [
            ("admission.max_unvalidated_handshakes", self.max_unvalidated_handshakes, 0),
            ("admission.max_validated_handshakes", self.max_validated_handshakes, 1),
        ];
        for (name, value, least) in counts {
            let rule = if least == 0 { "give at most 65536" } else { "give 1 to 65536" };
            check((least..=65_536).contains(&value), name, value, rule)?;
        }
        let tracked = self.max_tracked;
        check((2..=1_048_576).contains(&tracked), "admission.max_tracked", tracked, "give 2 to 1048576")?;
        let rates = [
            ("admission.validated", self.validated),
            ("admission.per_address", self.per_address),
            ("admission.per_subnet", self.per_subnet),
        ];
        for (name, rate) in rates {
            let usable = rate.burst > 0 && rate.per_second > 0;
            check(usable, name, rate, "a burst or rate of 0 would let nobody in: give at least 1")?;
        }
        Ok(())
    }
}

/// Whom the endpoint's owner wants heard at all, beside what the budgets allow. By default everyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Whether those are heard who are not named below.
    pub strangers: bool,
    /// Addresses (of IPv6 the whole /64) that are heard in any case, within the budgets.
    pub known: BTreeSet<IpPrefix>,
    /// Addresses (of IPv6 the whole /64) and subnets (/24, /48) that are not heard.
    pub banned: Arc<BTreeSet<IpPrefix>>,
}

impl Default for Door {
    fn default() -> Self {
        Self { strangers: true, known: BTreeSet::new(), banned: Arc::default() }
    }
}

impl Door {
    /// Whether a sender may be heard.
    pub fn is_open_to(&self, ip: IpAddr) -> bool {
        let address = IpPrefix::address_of(ip);
        let banned = || self.banned.contains(&address) || self.banned.contains(&IpPrefix::subnet_of(ip));
        self.known.contains(&address) || (self.strangers && !banned())
    }
}

/// What is known of an inbound connection before TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Where it says it comes from.
    pub remote: SocketAddr,
    /// Whether the sender has shown that it gets what is sent there.
    pub validated: bool,
    /// Handshakes in progress of the same kind: with validated addresses or without.
    pub in_progress: usize,
}

/// The answer to an inbound connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Do the handshake. About a millisecond of work, and memory until it ends.
    Accept,
    /// Have the sender prove its address: one packet, and nothing is kept.
    Retry,
    /// Say no: one packet, and an honest dialler knows at once.
    Refuse,
    /// Say nothing. An honest dialler sends again.
    Ignore,
}

/// Decides about inbound connections. The top of `admission.rs` says how.
#[derive(Debug)]
pub struct Admission {
    door: Door,
    unvalidated: Budget,
    validated: Budget,
    retries: TokenBucket,
    refusals: TokenBucket,
}

impl Admission {
    /// A policy with all its budgets full.
    pub fn new(settings: &AdmissionSettings, now: Now) -> Self {
        let budget = |max_handshakes, rate: Rate| Budget {
            max_handshakes,
            all: rate.bucket(now),
            addresses: RateTable::new(settings.per_address, settings.max_tracked),
            subnets: RateTable::new(settings.per_subnet, settings.max_tracked),
        };
        Self {
            door: Door::default(),
            unvalidated: budget(settings.max_unvalidated_handshakes, settings.unvalidated),
            validated: budget(settings.max_validated_handshakes, settings.validated),
            retries: settings.retries.bucket(now),
            refusals: settings.refusals.bucket(now),
        }
    }

    /// Changes whom the endpoint's owner wants heard. Everyone else is refused at the price of one packet, or ignored beyond the rate of refusals.
    pub fn set_door(&mut self, door: Door) {
        self.door = door;
    }

    /// The answer to an arrival, which is counted as given.
    pub fn decide(&mut self, now: Now, arrival: Arrival) -> Verdict {
        if !can_be_answered(arrival.remote) {
            return Verdict::Ignore;
        }
        if !self.door.is_open_to(arrival.remote.ip()) {
            let may_answer = self.refusals.take(1.0, now);
            return if may_answer { Verdict::Refuse } else { Verdict::Ignore };
        }
        let (budget, otherwise, rate) = if arrival.validated {
            (&mut self.validated, Verdict::Refuse, &mut self.refusals)
        } else {
            (&mut self.unvalidated, Verdict::Retry, &mut self.retries)
        };
        if budget.spend(now, arrival) {
            Verdict::Accept
        } else if rate.take(1.0, now) {
            otherwise
        } else {
            Verdict::Ignore
        }
    }

    /// The entries in all tables: at most four times [`AdmissionSettings::max_tracked`].
    pub fn tracked(&self) -> usize {
        let of = |budget: &Budget| budget.addresses.len() + budget.subnets.len();
        of(&self.unvalidated) + of(&self.validated)
    }
}

/// What may be spent on handshakes with senders of one kind.
#[derive(Debug)]
struct Budget {
    max_handshakes: usize,
    all: TokenBucket,
    addresses: RateTable,
    subnets: RateTable,
}

impl Budget {
    /// Spends one handshake, if it is within all limits.
    fn spend(&mut self, now: Now, arrival: Arrival) -> bool {
        if arrival.in_progress >= self.max_handshakes {
            return false;
        }
        let ip = arrival.remote.ip();
        if AddressScope::of(ip).is_exempt_from_address_rules() {
            return self.all.take(1.0, now);
        }
        let (address, subnet) = (IpPrefix::address_of(ip), IpPrefix::subnet_of(ip));
        // All or nothing: who is over one limit spends none of the others.
        if !self.addresses.has(address, now) || !self.subnets.has(subnet, now) || !self.all.take(1.0, now) {
            return false;
        }
        self.addresses.spend(address, now);
        self.subnets.spend(subnet, now);
        true
    }
}

/// Whether an answer could arrive anywhere, and at one host only.
fn can_be_answered(remote: SocketAddr) -> bool {
    let ip = remote.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    remote.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests;
