use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::numbered::{address, contact, peer};

mod limits;

fn at(second: u64) -> Now {
    Now::ZERO.after(Duration::from_secs(second))
}

fn own() -> Key {
    Key::of_peer(&peer(0))
}

fn table() -> Table {
    Table::new(own(), TableConfig::default())
}

fn admit(table: &mut Table, now: Now, contact: &Contact) -> Admission {
    let admission = table.verified(now, contact, contact.subnets().next());
    table.answered(now, contact.key(), Duration::from_millis(50), true);
    table.check().unwrap();
    admission
}

/// A table that has met the first `count` peers.
fn filled(count: u64) -> Table {
    let mut table = table();
    for number in 1..=count {
        admit(&mut table, at(0), &contact(number));
    }
    table
}

/// So many peers that share exactly `bits` bits with us.
fn in_bucket(bits: u32, count: usize) -> Vec<Contact> {
    let here = |contact: &Contact| own().shared_bits(contact.key()) == bits;
    (1..).map(contact).filter(here).take(count).collect()
}

/// AL-15: buckets of k, split lazily; ourselves are never entered; nobody stands in it twice.
#[test]
fn a_bucket_holds_k_and_the_last_two_hold_the_siblings() {
    let mut table = filled(2000);
    assert_eq!(admit(&mut table, at(1), &contact(0)), Admission::Ourselves);
    let nearest = table.siblings()[0].clone();
    assert_eq!(admit(&mut table, at(1), &nearest), Admission::Known);
    let sizes: Vec<usize> = table.buckets().map(|(entries, ..)| entries).collect();
    assert!(sizes.len() > 5 && sizes[..sizes.len() - 2].iter().all(|size| *size <= 20), "{sizes:?}");
    let mut all: Vec<Contact> = (1..=2000).map(contact).collect();
    all.sort_by_key(|contact| contact.key().distance(&own()));
    let known = all[..32].iter().filter(|contact| table.siblings().contains(contact)).count();
    assert!(known >= 30, "only {known} of the nearest 32");
}

/// Those who wait are looked at as those who have a place are.
#[test]
fn who_waits_where_nobody_may_is_told() {
    let spoilt = |spoil: fn(&mut Table, Waiting)| {
        let mut table = filled(2000);
        let from = table.buckets.iter().position(|bucket| bucket.waiting.len() > 1).unwrap();
        let waiting = table.buckets[from].waiting[0].clone();
        table.check().unwrap();
        spoil(&mut table, waiting);
        table.check().unwrap_err()
    };
    let twice = spoilt(|table, waiting| {
        let index = table.index(waiting.contact.key());
        table.buckets[index].waiting[1] = waiting;
    });
    assert!(twice.contains("waits twice"), "{twice}");
    let elsewhere = spoilt(|table, waiting| {
        let index = table.index(waiting.contact.key());
        table.buckets[index].waiting.remove(0);
        table.buckets[index + 1].waiting = vec![waiting];
    });
    assert!(elsewhere.contains("wrong bucket"), "{elsewhere}");
    for own in [true, false] {
        let verdict = if own {
            spoilt(|table, waiting| {
                let last = table.buckets.len() - 1;
                let contact = contact(0);
                table.buckets[0].waiting.clear();
                table.buckets[last].waiting = vec![Waiting { contact, ..waiting }];
            })
        } else {
            spoilt(|table, waiting| {
                let index = table.index(waiting.contact.key());
                let contact = table.buckets[index].entries[0].contact.clone();
                table.buckets[index].waiting[0] = Waiting { contact, ..waiting };
            })
        };
        assert!(verdict.contains("stands in the table"), "{verdict}");
    }
}

/// X-26, AL-15: an old peer that answers is preferred to any newcomer.
#[test]
fn a_full_bucket_keeps_whom_it_has_and_newcomers_wait() {
    let mut table = filled(300);
    let old: Vec<Contact> = table.entries().map(|entry| entry.contact.clone()).collect();
    for number in 301..3000 {
        admit(&mut table, at(700), &contact(number));
    }
    let gone = old.iter().filter(|contact| table.get(contact.key()).is_none()).count();
    // Splits of the last bucket may shed those that stood there as neighbours.
    assert!(gone <= 24, "{gone} of {} had to go", old.len());
    assert!(table.buckets().take(3).all(|(_, _, waiting)| waiting > 0));
}

#[test]
fn the_replacement_cache_is_bounded_by_bucket_and_by_table() {
    let mut table = filled(300);
    for number in 1000..5000 {
        table.heard(&contact(number));
        table.check().unwrap();
    }
    let waiting: Vec<usize> = table.buckets().map(|(.., waiting)| waiting).collect();
    assert_eq!(waiting[0], 16);
    assert!(waiting.iter().sum::<usize>() <= 48, "{waiting:?}");
}

#[test]
fn so_many_of_a_subnet_stand_in_a_bucket_and_in_the_table_and_loopback_is_exempt() {
    let near = |number: u64, ip: &str| {
        let address = format!("/ip4/{ip}/udp/{}/quic-v1", 1000 + number).parse().unwrap();
        Contact::new(peer(number), &[address])
    };
    let mut table = table();
    let mut admitted = 0;
    for number in 1..200 {
        let contact = near(number, &format!("20.1.1.{number}"));
        let was = table.has_room_for(&contact);
        let admission = admit(&mut table, at(0), &contact);
        assert_eq!(was, admission == Admission::Added);
        admitted += usize::from(admission == Admission::Added);
    }
    assert_eq!(admitted, 2, "all are in the one bucket that there is");
    for number in 200..2000 {
        admit(&mut table, at(0), &contact(number));
    }
    let subnet = Subnet::of("20.1.1.1".parse().unwrap());
    for number in 2000..2400 {
        admit(&mut table, at(0), &near(number, &format!("20.1.1.{}", number % 256)));
    }
    assert_eq!(table.entries().filter(|entry| entry.subnet == subnet).count(), 3);
    let mut local = Table::new(own(), TableConfig::default());
    for number in 1..20 {
        assert_eq!(admit(&mut local, at(0), &near(number, "127.0.0.1")), Admission::Added);
    }
}

/// Whoever has left for good keeps nobody of its subnet out: a network behind one /24 goes on when identities come and go.
#[test]
fn the_dead_of_a_subnet_give_their_places_to_the_living() {
    let of_subnet = |number: u64| {
        let address = format!("/ip4/20.1.1.{}/udp/{}/quic-v1", number % 250, 1000 + number).parse().unwrap();
        Contact::new(peer(number), &[address])
    };
    let subnet = Subnet::of("20.1.1.1".parse().unwrap()).unwrap();
    // One bucket, which takes two; and many, where the table's bound of three holds.
    for others in [0, 2000] {
        let mut table = filled(others);
        let mut newcomers = (5000..).map(of_subnet);
        let mut come = |table: &mut Table, now: Now| {
            let one = newcomers.by_ref().take(400).find(|one| admit(table, now, one) == Admission::Added);
            assert!(table.entries().filter(|entry| entry.subnet == Some(subnet)).count() <= 3);
            one
        };
        let inside: Vec<Contact> = std::iter::from_fn(|| come(&mut table, at(1))).collect();
        assert_eq!(inside.len(), if others == 0 { 2 } else { 3 });
        for (round, one) in inside.iter().enumerate() {
            let second = 10 + 10 * round as u64;
            table.failed(at(second), one.key());
            assert!(come(&mut table, at(second)).is_none(), "a suspect keeps its place");
            table.failed(at(second + 1), one.key());
            table.freeze(true);
            assert!(come(&mut table, at(second + 1)).is_none(), "our own outage costs nobody its place");
            table.freeze(false);
            table.failed(at(second + 2), one.key());
            table.failed(at(second + 3), one.key());
            let next = come(&mut table, at(second + 4)).expect("somebody who answers wants the place");
            assert!(table.get(one.key()).is_none() && table.get(next.key()).is_some());
        }
        let alive = table.entries().filter(|entry| entry.subnet == Some(subnet) && entry.is_usable());
        assert_eq!(alive.count(), inside.len());
    }
}

/// AL-17: one miss makes a peer suspect, two in a row put it in quarantine, one answer redeems it.
#[test]
fn two_misses_in_a_row_are_a_quarantine_and_nobody_in_it_is_named() {
    let mut table = filled(10);
    let key = *contact(3).key();
    table.failed(at(1), &key);
    assert_eq!(table.get(&key).unwrap().health(), Health::Suspect);
    assert!(table.closest(&key, 20).contains(&contact(3)));
    table.failed(at(2), &key);
    assert_eq!(table.get(&key).unwrap().health(), Health::Quarantined);
    assert!(!table.closest(&key, 20).contains(&contact(3)));
    assert_eq!((table.len(), table.usable()), (10, 9));
    table.answered(at(20), &key, Duration::from_millis(9), true);
    assert_eq!(table.closest(&key, 1), [contact(3)]);
}

#[test]
fn quarantine_doubles_from_ten_seconds_to_an_hour() {
    let mut table = filled(10);
    let key = *contact(3).key();
    table.failed(at(0), &key);
    let mut second = 0;
    let mut waits = Vec::new();
    for _ in 0..14 {
        table.failed(at(second), &key);
        let until = u64::from(table.get(&key).unwrap().due);
        waits.push(until - second);
        second = until;
    }
    assert_eq!(waits[..4], [10, 20, 40, 80]);
    assert_eq!(waits[13], 3600);
}

#[test]
fn a_quarantined_peer_stays_until_somebody_waits_for_its_place() {
    let mut table = table();
    let peers = in_bucket(0, 21);
    for number in 1..400 {
        admit(&mut table, at(0), &contact(number));
    }
    let bucket = |table: &Table| table.buckets().next().unwrap();
    let inside: Vec<Contact> = peers.iter().filter(|c| table.get(c.key()).is_some()).cloned().collect();
    assert_eq!(bucket(&table).0, 20);
    let victim = *inside[0].key();
    table.failed(at(800), &victim);
    assert!(table.failed(at(801), &victim), "somebody waits");
    assert!(table.get(&victim).is_none());
    let promoted = table.promote().unwrap();
    assert_eq!(own().shared_bits(promoted.key()), 0);
    assert_eq!(admit(&mut table, at(802), &promoted), Admission::Added);

    let mut small = filled(5);
    let key = *contact(2).key();
    small.failed(at(1), &key);
    assert!(!small.failed(at(2), &key), "nobody waits");
    assert!(small.get(&key).is_some());
}

/// AL-19: while our own network is suspected nobody is blamed, and afterwards all are looked at again.
#[test]
fn an_outage_of_our_own_costs_nobody_its_place() {
    let mut table = filled(500);
    let before = table.len();
    table.freeze(true);
    let keys: Vec<Key> = table.entries().map(|entry| *entry.contact.key()).collect();
    for round in 0..5 {
        for key in &keys {
            table.failed(at(round), key);
        }
    }
    assert_eq!((table.len(), table.usable()), (before, before));
    table.freeze(false);
    table.pardon(at(10), 0);
    let mut probed = 0;
    while table.probe(at(10)).is_some() {
        probed += 1;
    }
    assert_eq!(probed, before);
}

#[test]
fn who_may_be_dead_is_probed_and_who_answers_is_not() {
    let mut table = filled(30);
    assert_eq!(table.probe(at(10)), None);
    let young = table.next_due().unwrap();
    assert!((200..500).contains(&young), "{young}");
    let quiet = *contact(1).key();
    for number in 2..=30 {
        table.answered(at(u64::from(young)), contact(number).key(), Duration::from_millis(5), true);
    }
    let probed = table.probe(at(u64::from(young) + 1)).unwrap();
    assert_eq!(probed.key(), &quiet);
    assert_eq!(table.probe(at(u64::from(young) + 1)), None);
    table.doubt(at(u64::from(young) + 30), contact(7).key());
    assert_eq!(table.probe(at(u64::from(young) + 30)), Some(contact(7)));
}

/// X-21, AL-16: what third parties say never changes the addresses of somebody who was verified.
#[test]
fn hearsay_changes_no_entry_and_is_never_named() {
    let mut table = filled(5);
    let lie = Contact::new(peer(3), &[crate::numbered::address(666)]);
    table.heard(&lie);
    table.heard(&contact(77));
    assert_eq!(table.closest(lie.key(), 1), [contact(3)]);
    assert!(!table.closest(contact(77).key(), 20).contains(&contact(77)));
    assert_eq!(table.promote(), Some(contact(77)));
}

#[test]
fn anchors_are_old_and_of_distinct_networks() {
    let mut table = table();
    for number in 1..400 {
        admit(&mut table, at(number), &contact(number * 300));
    }
    for contact in table.closest(&own(), 400) {
        table.answered(at(4000), contact.key(), Duration::from_millis(5), true);
    }
    let anchors = table.anchors();
    assert_eq!(anchors.len(), 8);
    let mut groups: Vec<u64> = anchors.iter().flat_map(Contact::subnets).map(Subnet::group).collect();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), 8);
    let oldest = anchors.iter().map(|anchor| table.get(anchor.key()).unwrap().since).max().unwrap();
    assert!(oldest < 200, "{oldest}");
}

#[test]
fn the_table_of_a_node_among_ten_thousand_takes_at_most_60_kb() {
    let mut table = table();
    for number in 1..10_000 {
        let contact = contact(number);
        table.verified(at(0), &contact, contact.subnets().next());
    }
    table.check().unwrap();
    assert!(table.len() > 180, "{}", table.len());
    assert!(table.memory() <= 60_000, "{} for {}", table.memory(), table.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_closest_are_those_that_sorting_all_would_give(seed: u64, target: [u8; 32], count in 1usize..40) {
        let mut random = peerage_machine::Random::from_number(seed);
        let mut table = table();
        for _ in 0..200 {
            let contact = contact(1 + random.below(5000));
            table.verified(at(0), &contact, None);
            if random.chance(0.2) {
                table.failed(at(1), contact.key());
                table.failed(at(1), contact.key());
            }
        }
        let target = Key::from_hash(target);
        let mut all: Vec<Contact> =
            table.entries().filter(|entry| entry.is_usable()).map(|entry| entry.contact.clone()).collect();
        all.sort_by_key(|contact| contact.key().distance(&target));
        all.truncate(count);
        prop_assert_eq!(table.closest(&target, count), all);
        prop_assert!(table.check().is_ok());
    }
}

/// dht.md B.1: many who die at once put everybody in doubt who has not answered since, and nobody else.
#[test]
fn a_mass_failure_makes_everybody_due_who_has_not_answered_since() {
    let mut table = filled(500);
    let keys: Vec<Key> = table.entries().map(|entry| *entry.contact.key()).collect();
    keys.iter().for_each(|key| table.answered(at(3600), key, Duration::from_millis(5), true));
    assert_eq!(table.probe(at(4000)), None);
    // Of those who are looked at next every other one is dead.
    for (place, key) in keys.iter().enumerate().take(40) {
        match place % 2 {
            0 => drop(table.failed(at(4000 + place as u64), key)),
            _ => table.answered(at(4000 + place as u64), key, Duration::from_millis(5), true),
        }
    }
    let mut probed = Vec::new();
    while let Some(contact) = table.probe(at(4041)) {
        probed.push(*contact.key());
    }
    assert!(keys[40..].iter().all(|key| probed.contains(key)), "{} of {}", probed.len(), keys.len());
    assert!(!probed.contains(&keys[39]), "who has just answered is in no doubt");
}

#[test]
fn who_was_dead_before_an_outage_is_not_pardoned() {
    let mut table = filled(30);
    let (before, meanwhile) = (*contact(1).key(), *contact(2).key());
    for key in [before, before] {
        table.failed(at(100), &key);
    }
    for key in [meanwhile, meanwhile] {
        table.failed(at(500), &key);
    }
    table.pardon(at(600), 450);
    assert!(!table.get(&before).unwrap().is_usable());
    assert!(table.get(&meanwhile).unwrap().is_usable());
}

/// the limit for a subnet holds for those who come into it later, too.
#[test]
fn who_moves_into_a_full_subnet_gives_its_place_up_unless_it_is_where_it_was_too() {
    let crowded = |number: u64| format!("/ip4/99.1.1.{number}/udp/1/quic-v1").parse().unwrap();
    let subnet = Subnet::of([99, 1, 1, 1].into());
    let mut table = filled(10);
    let moved = |number| Contact::new(peer(number), &[crowded(number)]);
    let results: Vec<Admission> = (1..=6)
        .map(|number| {
            let admission = table.verified(at(1), &moved(number), subnet);
            table.check().unwrap();
            assert_eq!(table.get(moved(number).key()).is_some(), admission == Admission::Known);
            admission
        })
        .collect();
    let stayed = results.iter().filter(|result| **result == Admission::Known).count();
    // All ten stand in one bucket, which takes two of a subnet.
    assert_eq!((stayed, table.len()), (2, 6));
    // At home in both places, it counts where it was.
    let both = Contact::new(peer(7), &[address(7), crowded(7)]);
    assert_eq!(table.verified(at(1), &both, subnet), Admission::Known);
    assert_eq!(table.get(both.key()).unwrap().subnet, contact(7).subnets().next());
    table.check().unwrap();
}
