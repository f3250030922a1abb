//! How many dials may be begun: by the node, to one address, to one subnet.
//!
//! The node's budget spreads the redials of a node that restarts with many peers to come back to. The budgets per address (an IPv6 /64
//! counts as one) and per subnet (/24, /48) hold for addresses that only others have vouched for: whoever makes up peers at a victim's
//! address cannot make this node dial it more often than that. Where no peer was ever found, one dial goes at a time, and the pause after
//! it doubles, up to a day: a liar whom the whole overlay believes gets of each node one dial at once, and four in the first hour. A dial
//! that finds its peer there is given back, so that many nodes behind one address wait for one another no longer than it takes to try them.
//! Names that nobody has proved share one budget, for they may all lead to the same place; to a name nothing is given back, for it may lead
//! to its peer and to somebody else, who was dialled too. Loopback is exempt from the rules per address.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_identity::{AddressScope, DialAddress, IpPrefix};
use peerage_machine::{Now, TokenBucket};

use crate::config::PeersConfig;

/// What has been spent.
#[derive(Debug)]
pub(crate) struct DialBudget {
    node: TokenBucket,
    targets: BTreeMap<Target, Spent>,
    address: (f64, f64),
    subnet: (f64, f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Names,
    Address(IpPrefix),
    Subnet(IpPrefix),
}

/// What was spent on one target.
#[derive(Debug)]
struct Spent {
    bucket: TokenBucket,
    /// A peer was found there.
    found: bool,
    /// Dials to an address where nobody was found yet, and when the next one may go, as [`Now::mono`].
    vain: u32,
    not_before: Duration,
}

/// The longest pause between dials to an address where nobody was ever found.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Targets whose spending is remembered. Full buckets are forgotten first.
pub(crate) const MAX_TARGETS: usize = 4096;

/// How often, in the long run, any of the names that nobody has proved is dialled.
pub(crate) const NAME_DIAL_EVERY: Duration = Duration::from_secs(30);

impl DialBudget {
    pub(crate) fn new(config: &PeersConfig) -> Self {
        Self {
            node: TokenBucket::new(config.dial_burst, config.dials_per_second, Now::ZERO),
            targets: BTreeMap::new(),
            address: (config.address_dial_burst, config.address_dials_per_second),
            subnet: (config.subnet_dial_burst, config.subnet_dials_per_second),
        }
    }

    /// How long until the node may begin another dial; zero if it may now. A budget that never refills says an hour.
    pub(crate) fn wait(&mut self, now: Now) -> Duration {
        self.node.wait_for(1.0, now).unwrap_or(Duration::from_secs(3600))
    }

    /// A dial is begun. One that the user asked for is begun in any case, and counts all the same.
    pub(crate) fn spend(&mut self, now: Now) {
        self.node.take(1.0, now);
    }

    /// Takes a dial to an address that nobody has proved; or says how long to wait.
    pub(crate) fn take(&mut self, now: Now, address: &DialAddress) -> Result<(), Duration> {
        let mut wait = Duration::ZERO;
        let targets = self.targets_of(address);
        for (target, (burst, rate)) in &targets {
            let fresh = || Spent {
                bucket: TokenBucket::new(*burst, *rate, now),
                found: false,
                vain: 0,
                not_before: Duration::ZERO,
            };
            let spent = self.targets.entry(*target).or_insert_with(fresh);
            wait = wait.max(spent.bucket.wait_for(1.0, now).unwrap_or(Duration::from_secs(3600)));
            wait = wait.max(spent.not_before.saturating_sub(now.mono));
        }
        if wait.is_zero() {
            let pause = Duration::try_from_secs_f64(1.0 / self.address.1).unwrap_or(LONGEST_PAUSE);
            for (target, _) in &targets {
                let Some(spent) = self.targets.get_mut(target) else { continue };
                spent.bucket.take(1.0, now);
                if matches!(target, Target::Address(_)) && !spent.found {
                    let times = 1u32.checked_shl(spent.vain).unwrap_or(u32::MAX);
                    spent.not_before = now.mono + pause.saturating_mul(times).min(LONGEST_PAUSE);
                    spent.vain = spent.vain.saturating_add(1);
                }
            }
        }
        self.forget_some(now);
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// A dial for which [`DialBudget::take`] was asked has found its peer, or has sent nothing.
    pub(crate) fn give_back(&mut self, now: Now, address: &DialAddress, found: bool) {
        for (target, _) in self.targets_of(address) {
            // Where a name led to its peer it may have led to somebody else too; but where it was not tried it led nowhere.
            if let Some(spent) = self.targets.get_mut(&target).filter(|_| !found || target != Target::Names) {
                spent.bucket.give_back(1.0, now);
                spent.found |= found;
                spent.vain = if found { 0 } else { spent.vain.saturating_sub(1) };
                spent.not_before = Duration::ZERO;
            }
        }
    }

    /// Whether dials to the two addresses take from one budget.
    pub(crate) fn share(&self, a: &DialAddress, b: &DialAddress) -> bool {
        let of_b = self.targets_of(b);
        self.targets_of(a).iter().any(|(a, _)| of_b.iter().any(|(b, _)| a == b))
    }

    fn targets_of(&self, address: &DialAddress) -> Vec<(Target, (f64, f64))> {
        match address.socket_addr().map(|socket| socket.ip()) {
            None => vec![(Target::Names, (self.address.0, 1.0 / NAME_DIAL_EVERY.as_secs_f64()))],
            Some(ip) if AddressScope::of(ip).is_exempt_from_address_rules() => Vec::new(),
            Some(ip) => vec![
                (Target::Address(IpPrefix::address_of(ip)), self.address),
                (Target::Subnet(IpPrefix::subnet_of(ip)), self.subnet),
            ],
        }
    }

    /// The node's own budget bounds how many buckets can be short at a time, so full ones are enough to keep the bound; should they
    /// not be, the first ones go.
    fn forget_some(&mut self, now: Now) {
        if self.targets.len() <= MAX_TARGETS {
            return;
        }
        self.targets.retain(|_, spent| spent.not_before > now.mono || !spent.bucket.is_full(now));
        while self.targets.len() > MAX_TARGETS {
            self.targets.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Now {
        Now::ZERO.after(Duration::from_millis(millis))
    }

    proptest! {
        /// The budgets per address and per subnet hold in every window, whatever is asked for and when.
        #[test]
        fn no_target_is_dialled_more_often_than_its_budget(
            steps in prop::collection::vec((0u64..3000, 0u8..3, 0u8..3), 1..300)
        ) {
            let config = PeersConfig::default();
            let mut budget = DialBudget::new(&config);
            let mut time = 0;
            let mut passed: BTreeMap<(u8, u8), f64> = BTreeMap::new();
            for (step, subnet, host) in steps {
                time += step;
                let address = format!("/ip4/20.1.{subnet}.{host}/udp/1/quic-v1").parse().unwrap();
                if budget.take(at(time), &address).is_ok() {
                    *passed.entry((subnet, host)).or_default() += 1.0;
                }
                let seconds = time as f64 / 1000.0;
                for count in passed.values() {
                    let most = config.address_dial_burst + config.address_dials_per_second * seconds;
                    prop_assert!(*count <= most + 1e-6);
                }
                for subnet in 0..3 {
                    let count: f64 = passed.range((subnet, 0)..=(subnet, 255)).map(|(_, count)| count).sum();
                    let most = config.subnet_dial_burst + config.subnet_dials_per_second * seconds;
                    prop_assert!(count <= most + 1e-6);
                }
            }
        }
    }

    #[test]
    fn what_is_found_is_given_back() {
        let mut budget = DialBudget::new(&PeersConfig::default());
        let at_port = |port: u32| format!("/ip4/20.0.0.1/udp/{port}/quic-v1").parse().unwrap();
        for port in 1..50 {
            assert_eq!(budget.take(at(0), &at_port(port)), Ok(()));
            budget.give_back(at(0), &at_port(port), true);
        }
        let failing = (50..100).filter(|port| budget.take(at(0), &at_port(*port)).is_ok()).count();
        assert_eq!(failing as f64, PeersConfig::default().address_dial_burst);
    }

    #[test]
    fn where_nobody_was_ever_found_each_pause_is_twice_the_one_before() {
        let mut budget = DialBudget::new(&PeersConfig::default());
        let at_port = |port: u64| format!("/ip4/20.0.0.1/udp/{port}/quic-v1").parse().unwrap();
        let day = 24 * 3600;
        let tries: Vec<_> = (0..4 * day)
            .filter(|second| budget.take(at(second * 1000), &at_port(1 + second % 9)).is_ok())
            .collect();
        let (doubled, longest) = tries.split_at(10);
        assert_eq!(doubled, [0, 300, 900, 2100, 4500, 9300, 18_900, 38_100, 76_500, 153_300]);
        assert_eq!(longest, [153_300 + LONGEST_PAUSE.as_secs(), 153_300 + 2 * LONGEST_PAUSE.as_secs()]);
        // What was not sent doesn't count.
        let later = at(5 * day * 1000);
        assert!((0..10).all(|_| {
            let taken = budget.take(later, &at_port(1)).is_ok();
            budget.give_back(later, &at_port(1), false);
            taken
        }));
        assert_eq!(budget.take(later, &at_port(1)), Ok(()));
        assert!(budget.take(later, &at_port(2)).is_err());
    }

    #[test]
    fn names_share_one_budget_and_get_nothing_back_and_loopback_has_none() {
        let mut budget = DialBudget::new(&PeersConfig::default());
        let name = |n: u32| format!("/dns/n{n}.example/udp/1/quic-v1").parse().unwrap();
        let mut passed = 0.0;
        for n in 0..100 {
            if budget.take(at(0), &name(n)).is_ok() {
                passed += 1.0;
                budget.give_back(at(0), &name(n), true);
            }
        }
        assert_eq!(passed, PeersConfig::default().address_dial_burst);
        assert!(budget.share(&name(1), &name(2)));
        assert!(budget.take(at(29_000), &name(101)).is_err());
        assert_eq!(budget.take(at(30_000), &name(101)), Ok(()));
        let loopback = "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap();
        assert!((0..1000).all(|_| budget.take(at(0), &loopback).is_ok()));
    }

    #[test]
    fn the_table_of_targets_is_bounded() {
        let config = PeersConfig { address_dial_burst: 1.0, ..PeersConfig::default() };
        let mut budget = DialBudget::new(&config);
        for number in 0..20_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            let address = format!("/ip4/20.{a}.{b}.{c}/udp/1/quic-v1").parse().unwrap();
            let _ = budget.take(at(0), &address);
            assert!(budget.targets.len() <= MAX_TARGETS + 2);
        }
    }
}
