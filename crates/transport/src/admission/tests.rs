use std::time::Duration;

use peerage_machine::Random;
use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Now {
    Now::ZERO.after(Duration::from_millis(millis))
}

fn arrival(ip: &str, validated: bool, in_progress: usize) -> Arrival {
    Arrival { remote: SocketAddr::new(ip.parse().unwrap(), 4001), validated, in_progress }
}

fn policy(change: impl FnOnce(&mut AdmissionSettings)) -> Admission {
    let mut settings = AdmissionSettings::default();
    change(&mut settings);
    settings.validate().unwrap();
    Admission::new(&settings, at(0))
}

#[test]
fn an_honest_network_that_comes_back_at_once_is_accepted_without_a_retry() {
    let mut policy = Admission::new(&AdmissionSettings::default(), at(0));
    for number in 0..50 {
        assert_eq!(policy.decide(at(0), arrival("10.0.0.1", false, number)), Verdict::Accept);
    }
}

#[test]
fn when_the_places_for_unvalidated_addresses_are_taken_senders_retry_into_places_of_their_own() {
    let mut policy = policy(|settings| settings.max_unvalidated_handshakes = 2);
    assert_eq!(policy.decide(at(0), arrival("8.8.8.8", false, 1)), Verdict::Accept);
    assert_eq!(policy.decide(at(0), arrival("8.8.8.8", false, 2)), Verdict::Retry);
    assert_eq!(policy.decide(at(0), arrival("8.8.8.8", true, 255)), Verdict::Accept);
    assert_eq!(policy.decide(at(0), arrival("8.8.8.8", true, 256)), Verdict::Refuse);
}

#[test]
fn forged_packets_under_a_victims_address_cost_the_victim_a_retry_and_no_more() {
    let mut policy = policy(|settings| settings.per_address = Rate::new(4, 1));
    for _ in 0..4 {
        assert_eq!(policy.decide(at(0), arrival("8.8.8.8", false, 0)), Verdict::Accept);
    }
    assert_eq!(policy.decide(at(0), arrival("8.8.8.8", false, 0)), Verdict::Retry);
    assert_eq!(policy.decide(at(0), arrival("8.8.8.8", true, 0)), Verdict::Accept);
    assert_eq!(policy.decide(at(0), arrival("8.8.4.4", false, 0)), Verdict::Accept, "another address");
}

#[test]
fn an_address_a_64_and_a_subnet_have_their_rates() {
    let change = |settings: &mut AdmissionSettings| {
        settings.per_address = Rate::new(2, 1);
        settings.per_subnet = Rate::new(4, 1);
    };
    for (addresses, outside) in [
        (["8.8.8.1", "8.8.8.2", "8.8.8.3"], "8.8.9.1"),
        (["2600:0:1:1::1", "2600:0:1:2::1", "2600:0:1:3::1"], "2600:0:2:1::1"),
    ] {
        let mut policy = policy(change);
        for address in &addresses[..2] {
            let mut decide = || policy.decide(at(0), arrival(address, true, 0));
            assert_eq!([decide(), decide(), decide()], [Verdict::Accept, Verdict::Accept, Verdict::Refuse]);
        }
        assert_eq!(
            policy.decide(at(0), arrival(addresses[2], true, 0)),
            Verdict::Refuse,
            "the subnet's rate"
        );
        assert_eq!(policy.decide(at(0), arrival(outside, true, 0)), Verdict::Accept);
        assert_eq!(
            policy.decide(at(1000), arrival(addresses[2], true, 0)),
            Verdict::Accept,
            "a second later"
        );
    }
    // The host may take any address of its /64.
    let mut policy = policy(change);
    let mut decide = |address| policy.decide(at(0), arrival(address, true, 0));
    assert_eq!(decide("2600:0:1:1::1"), Verdict::Accept);
    assert_eq!(decide("2600:0:1:1:ffff::1"), Verdict::Accept);
    assert_eq!(decide("2600:0:1:1:abcd::1"), Verdict::Refuse);
}

#[test]
fn loopback_is_exempt_from_address_rules_and_not_from_the_nodes_budgets() {
    let mut policy = policy(|settings| {
        settings.per_address = Rate::new(1, 1);
        settings.per_subnet = Rate::new(1, 1);
        settings.validated = Rate::new(5, 1);
    });
    for _ in 0..5 {
        assert_eq!(policy.decide(at(0), arrival("127.0.0.1", true, 0)), Verdict::Accept);
    }
    assert_eq!(policy.decide(at(0), arrival("::1", true, 0)), Verdict::Refuse);
    assert_eq!(policy.tracked(), 0);
}

#[test]
fn an_address_is_remembered_until_half_a_table_of_others_has_come() {
    let mut policy = policy(|settings| {
        settings.max_tracked = 8;
        settings.per_address = Rate::new(2, 1);
    });
    let mut decide = |ip: String| policy.decide(at(0), arrival(&ip, true, 0));
    assert_eq!([decide("8.8.8.8".into()), decide("8.8.8.8".into())], [Verdict::Accept; 2]);
    for other in 1..=4 {
        assert_eq!(decide(format!("9.9.{other}.9")), Verdict::Accept);
        assert_eq!(decide("8.8.8.8".into()), Verdict::Refuse);
    }
}

#[test]
fn cheap_answers_have_rates_too_and_then_there_is_silence() {
    let mut policy = policy(|settings| {
        settings.max_unvalidated_handshakes = 0;
        settings.retries = Rate::new(3, 1);
        settings.refusals = Rate::new(2, 1);
    });
    let answers = |policy: &mut Admission, validated| -> Vec<_> {
        (0..4).map(|_| policy.decide(at(0), arrival("127.0.0.1", validated, 1_000))).collect()
    };
    use Verdict::*;
    assert_eq!(answers(&mut policy, false), [Retry, Retry, Retry, Ignore]);
    assert_eq!(answers(&mut policy, true), [Refuse, Refuse, Ignore, Ignore]);
}

#[test]
fn nothing_is_sent_to_where_no_single_host_is() {
    let mut policy = policy(|_| ());
    for ip in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:255.255.255.255"] {
        assert_eq!(policy.decide(at(0), arrival(ip, false, 0)), Verdict::Ignore, "{ip}");
    }
    let no_port = Arrival { remote: "8.8.8.8:0".parse().unwrap(), validated: false, in_progress: 0 };
    assert_eq!(policy.decide(at(0), no_port), Verdict::Ignore);
}

/// 5,000 forged first packets a second, two honest dials a second, twenty seconds.
#[test]
fn a_flood_of_forged_packets_leaves_every_honest_dial_its_place() {
    for loopback in [true, false] {
        let mut policy = policy(|_| ());
        let mut random = Random::from_number(7);
        // Forged handshakes hold their place for the five seconds of the handshake timeout.
        let mut held = std::collections::VecDeque::new();
        let (mut accepted, mut most_held) = (0, 0);
        for tick in 0..100_000u64 {
            let now = at(tick / 5);
            while held.front().is_some_and(|until| *until <= now.mono) {
                held.pop_front();
            }
            let first = if loopback { 127 } else { 1 + random.below(120) as u8 };
            let ip = [first, random.number() as u8, random.number() as u8, random.number() as u8];
            let forged = Arrival { remote: (ip, 4001).into(), validated: false, in_progress: held.len() };
            if policy.decide(now, forged) == Verdict::Accept {
                held.push_back(now.mono + Duration::from_secs(5));
                accepted += 1;
            }
            most_held = most_held.max(held.len());
            if tick % 2_500 == 0 {
                let honest =
                    |validated| arrival(if loopback { "127.0.0.1" } else { "5.6.7.8" }, validated, 0);
                let mut first = honest(false);
                first.in_progress = held.len();
                match policy.decide(now, first) {
                    Verdict::Accept => {}
                    Verdict::Retry => assert_eq!(policy.decide(now, honest(true)), Verdict::Accept),
                    other => panic!("an honest dial is answered {other:?}"),
                }
            }
        }
        assert!(accepted <= 64 * 5, "{accepted} forged handshakes were worked on");
        assert_eq!(most_held, 64);
    }
}

/// What one bucket should let through, with all history kept.
#[derive(Clone)]
struct Model {
    rate: Rate,
    tokens: f64,
    seen: u64,
}

impl Model {
    fn new(rate: Rate) -> Self {
        Self { rate, tokens: rate.burst.into(), seen: 0 }
    }

    fn level(&mut self, millis: u64) -> f64 {
        let passed = (millis - self.seen) as f64 / 1000.0;
        self.seen = millis;
        self.tokens = (self.tokens + passed * f64::from(self.rate.per_second)).min(self.rate.burst.into());
        self.tokens
    }
}

proptest! {
    /// The policy against a model that forgets nothing, in a table that is large enough.
    #[test]
    fn it_answers_as_a_model_without_bounds_does(
        steps in prop::collection::vec((0u64..400, 0u8..3, 0u8..3, any::<bool>(), 0usize..6), 1..300)
    ) {
        let settings = AdmissionSettings {
            max_unvalidated_handshakes: 3,
            max_validated_handshakes: 4,
            unvalidated: Rate::new(6, 4),
            validated: Rate::new(8, 5),
            per_address: Rate::new(2, 1),
            per_subnet: Rate::new(4, 2),
            retries: Rate::new(5, 3),
            refusals: Rate::new(4, 2),
            max_tracked: 64,
        };
        let mut policy = Admission::new(&settings, at(0));
        let mut buckets = std::collections::HashMap::<(bool, &str, IpAddr), Model>::new();
        let mut millis = 0;
        for (step, subnet, host, validated, in_progress) in steps {
            millis += step;
            let ip = IpAddr::from([9, 9, subnet, host]);
            let remote = SocketAddr::new(ip, 1);
            let verdict = policy.decide(at(millis), Arrival { remote, validated, in_progress });

            let (limit, all) = if validated { (4, settings.validated) } else { (3, settings.unvalidated) };
            let (other, cheap) = if validated {
                (Verdict::Refuse, settings.refusals)
            } else {
                (Verdict::Retry, settings.retries)
            };
            let keys = [
                ((validated, "all", IpAddr::from([0; 4])), all),
                ((validated, "address", ip), settings.per_address),
                ((validated, "subnet", IpAddr::from([9, 9, subnet, 0])), settings.per_subnet),
            ];
            let mut fits = in_progress < limit;
            let mut close = false;
            for (key, rate) in keys {
                let level = buckets.entry(key).or_insert_with(|| Model::new(rate)).level(millis);
                fits &= level >= 1.0;
                close |= (level - 1.0).abs() < 1e-6;
            }
            let key = (validated, "cheap", IpAddr::from([0; 4]));
            let level = buckets.entry(key).or_insert_with(|| Model::new(cheap)).level(millis);
            close |= (level - 1.0).abs() < 1e-6;
            let expected = match (fits, level >= 1.0) {
                (true, _) => Verdict::Accept,
                (false, true) => other,
                (false, false) => Verdict::Ignore,
            };
            // Where two ways of adding up the same fractions may differ, the model follows.
            prop_assert!(verdict == expected || close, "{verdict:?} where {expected:?} is due at {millis} ms");
            match verdict {
                Verdict::Accept => {
                    for (key, _) in keys {
                        buckets.get_mut(&key).unwrap().tokens -= 1.0;
                    }
                }
                Verdict::Retry | Verdict::Refuse => buckets.get_mut(&key).unwrap().tokens -= 1.0,
                Verdict::Ignore => {}
            }
        }
    }

    #[test]
    fn the_tables_stay_within_their_bound_whatever_comes(
        arrivals in prop::collection::vec((any::<[u8; 16]>(), any::<bool>(), any::<bool>()), 1..400),
        max in 2usize..40,
    ) {
        let mut policy = policy(|settings| settings.max_tracked = max);
        for (number, (bytes, validated, v4)) in arrivals.into_iter().enumerate() {
            let ip = if v4 {
                IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
            } else {
                IpAddr::from(bytes)
            };
            let arrival = Arrival { remote: SocketAddr::new(ip, 9), validated, in_progress: 0 };
            policy.decide(at(number as u64), arrival);
            prop_assert!(policy.tracked() <= 4 * max);
        }
    }
}

#[test]
fn a_door_that_is_shut_to_strangers_is_open_to_the_known_and_a_banned_block_stays_out() {
    let block = |ip: &str| IpPrefix::address_of(ip.parse().unwrap());
    let subnet = IpPrefix::subnet_of("9.9.9.9".parse().unwrap());
    let banned = Arc::new(BTreeSet::from([block("8.8.8.8"), subnet]));
    let known = BTreeSet::from([block("9.9.9.1"), block("2600:1:2:3::1")]);
    let mut policy = policy(|settings| settings.refusals = Rate::new(4, 1));
    let verdict = |policy: &mut Admission, ip, validated| policy.decide(at(0), arrival(ip, validated, 0));
    policy.set_door(Door { strangers: true, known: known.clone(), banned: banned.clone() });
    assert_eq!(verdict(&mut policy, "8.8.4.4", false), Verdict::Accept);
    assert_eq!(verdict(&mut policy, "8.8.8.8", true), Verdict::Refuse);
    assert_eq!(verdict(&mut policy, "9.9.9.2", false), Verdict::Refuse);
    assert_eq!(verdict(&mut policy, "9.9.9.1", false), Verdict::Accept, "known in a banned subnet");
    policy.set_door(Door { strangers: false, known, banned });
    assert_eq!(verdict(&mut policy, "8.8.4.4", false), Verdict::Refuse);
    assert_eq!(verdict(&mut policy, "2600:1:2:3:4::5", false), Verdict::Accept, "the same /64");
    assert_eq!(verdict(&mut policy, "127.0.0.1", true), Verdict::Refuse);
    assert_eq!(verdict(&mut policy, "8.8.4.4", false), Verdict::Ignore, "refusals have a rate");
    policy.set_door(Door::default());
    assert_eq!(verdict(&mut policy, "8.8.8.8", false), Verdict::Accept);
}
