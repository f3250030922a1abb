//! Whom a connection stands to is asked before others that are about as near.

use super::*;

/// Who is asked, in this order. Each place in `hints` is for one of the peers that share `bits` with the target, the closest first.
fn order(size: Option<f64>, hints: &[(u32, Hint)]) -> Vec<usize> {
    let mut story = Story::new(LookupConfig::default(), Goal::Closest, |plan| plan.size = size);
    let bits = |contact: &Contact| contact.key().distance(target().key()).leading_zeros();
    let mut left = peers();
    let mut next = |wanted: u32| left.remove(left.iter().position(|peer| bits(peer) == wanted).unwrap());
    let seeds: Vec<(Contact, Hint)> = hints.iter().map(|(bits, hint)| (next(*bits), *hint)).collect();
    story.lookup.seed(seeds.iter().cloned());
    let (asked, _) = story.go(at(0));
    let place = |asked: &Contact| seeds.iter().position(|(seed, _)| seed == asked).unwrap();
    asked.iter().map(|(_, contact, _)| place(contact)).collect()
}

const COLD: Hint = Hint { rtt: None, patience: None, warm: false, success: None, shunned: false };
const WARM: Hint = Hint { warm: true, ..COLD };

/// dht.md B.2, rule 5
#[test]
fn of_those_about_as_near_the_one_to_whom_a_connection_stands_is_asked_first() {
    assert_eq!(order(None, &[(1, COLD), (1, COLD), (1, COLD)]), [0, 1, 2]);
    assert_eq!(order(None, &[(1, COLD), (1, COLD), (1, WARM)]), [2, 0, 1]);
    // Of several, the closest.
    assert_eq!(order(None, &[(1, COLD), (1, WARM), (1, WARM)]), [1, 2, 0]);
}

#[test]
fn a_connection_outweighs_neither_a_bit_nor_a_much_faster_way() {
    assert_eq!(order(None, &[(2, COLD), (1, WARM)]), [0, 1]);
    let took = |millis, hint| Hint { rtt: Some(MS(millis)), ..hint };
    assert_eq!(order(None, &[(1, took(100, COLD)), (1, took(120, WARM))]), [1, 0]);
    assert_eq!(order(None, &[(1, took(20, COLD)), (1, took(400, WARM))]), [0, 1]);
}

#[test]
fn where_all_are_asked_in_the_end_the_closest_is_asked_first() {
    assert_eq!(order(Some(30.0), &[(1, COLD), (1, COLD), (1, WARM)]), [0, 1, 2]);
}
