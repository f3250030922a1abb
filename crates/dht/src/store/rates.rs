//! How much one peer, and one subnet, may send.

use std::collections::BTreeMap;
use std::net::IpAddr;

use peerage_identity::PeerId;
use peerage_machine::{Now, TokenBucket};

use super::StoreConfig;
use crate::Subnet;

/// Buckets for senders and subnets, as many as the configuration says.
#[derive(Debug, Default)]
pub(super) struct Rates {
    senders: BTreeMap<PeerId, Sender>,
    subnets: BTreeMap<Subnet, TokenBucket>,
}

#[derive(Debug)]
struct Sender {
    puts: TokenBucket,
    checks: TokenBucket,
}

impl Rates {
    /// Whether a peer may send one more record.
    pub(super) fn may_put(
        &mut self,
        now: Now,
        config: &StoreConfig,
        from: &PeerId,
        remote: Option<IpAddr>,
    ) -> bool {
        if let Some(subnet) = remote.and_then(Subnet::of) {
            if !make_room(&mut self.subnets, config.max_senders, &subnet, |bucket| bucket.is_full(now)) {
                return false;
            }
            let fresh = || {
                let factor = config.subnet_factor;
                TokenBucket::new(config.put_burst * factor, config.puts_per_second * factor, now)
            };
            if !self.subnets.entry(subnet).or_insert_with(fresh).take(1.0, now) {
                return false;
            }
        }
        self.sender(now, config, from).is_some_and(|sender| sender.puts.take(1.0, now))
    }

    /// Whether so many signatures may be checked for a peer. Whoever has one left may owe the second one.
    pub(super) fn may_check(&mut self, now: Now, config: &StoreConfig, from: &PeerId, count: u32) -> bool {
        self.sender(now, config, from).is_some_and(|sender| {
            let may = sender.checks.available(now) >= 1.0;
            if may {
                sender.checks.charge(f64::from(count), now);
            }
            may
        })
    }

    fn sender(&mut self, now: Now, config: &StoreConfig, from: &PeerId) -> Option<&mut Sender> {
        let idle = |sender: &mut Sender| sender.puts.is_full(now) && sender.checks.is_full(now);
        if !make_room(&mut self.senders, config.max_senders, from, idle) {
            return None;
        }
        Some(self.senders.entry(*from).or_insert_with(|| Sender {
            puts: TokenBucket::new(config.put_burst, config.puts_per_second, now),
            checks: TokenBucket::new(config.checks_per_second, config.checks_per_second, now),
        }))
    }

    /// No bucket owes more than it may: whoever has one signature left may owe the second one.
    pub(super) fn check(&self) -> Result<(), String> {
        let told = |name: &'static str| move |why: String| format!("{name}: {why}");
        for bucket in self.subnets.values() {
            bucket.check(0.0).map_err(told("records of a subnet"))?;
        }
        for sender in self.senders.values() {
            sender.puts.check(0.0).map_err(told("records of a peer"))?;
            sender.checks.check(1.0).map_err(told("signatures of a peer"))?;
        }
        Ok(())
    }

    /// Breaks the rule on purpose.
    #[cfg(test)]
    pub(super) fn owe(&mut self, peer: &PeerId, now: Now) {
        let burst = self.senders[peer].checks.burst();
        self.senders.entry(*peer).and_modify(|sender| sender.checks.charge(burst + 2.0, now));
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.senders.len().max(self.subnets.len())
    }
}

/// Whether `key` is in the table or may come in; those that are idle leave a full one.
fn make_room<K: Ord, V>(
    table: &mut BTreeMap<K, V>,
    most: usize,
    key: &K,
    mut idle: impl FnMut(&mut V) -> bool,
) -> bool {
    if table.contains_key(key) || table.len() < most {
        return true;
    }
    table.retain(|_, value| !idle(value));
    table.len() < most
}
