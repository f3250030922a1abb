//! What a lookup finds: values, judged and counted, and providers. Bounded, whatever peers answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use crate::{Contact, Found, Judge, LookupConfig, Subnet, Target};

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    /// The best value of each slot.
    slots: BTreeMap<Bytes, Best>,
    /// Their bytes together.
    bytes: usize,
    providers: Vec<Contact>,
    /// Groups of addresses, or peers where no group applies, that answered with a valid value.
    voters: Vec<Voter>,
    is_final: bool,
}

#[derive(Debug)]
struct Best {
    value: Bytes,
    rank: Bytes,
    holders: usize,
    from: PeerId,
}

#[derive(Debug, PartialEq, Eq)]
enum Voter {
    Subnet(Subnet),
    Peer(PeerId),
}

/// What one answer brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Valid values, or providers.
    pub(crate) good: usize,
    /// Values that are not valid.
    pub(crate) invalid: u32,
}

impl Harvest {
    /// Judges the values of one answer and keeps the better ones.
    pub(crate) fn values(
        &mut self,
        now: Now,
        limits: &LookupConfig,
        judge: &dyn Judge,
        target: &Target,
        from: &Contact,
        values: &[Bytes],
    ) -> Brought {
        let mut brought = Brought::default();
        for value in values {
            let Ok(judged) = judge.judge(now, target, value) else {
                brought.invalid += 1;
                continue;
            };
            brought.good += 1;
            self.is_final |= judged.is_final;
            let fresh = |rank| Best { value: value.clone(), rank, holders: 1, from: *from.peer() };
            if let Some(best) = self.slots.get_mut(&judged.slot) {
                if best.value == *value {
                    best.holders += 1;
                } else if judged.rank > best.rank {
                    self.bytes = self.bytes + value.len() - best.value.len();
                    *best = fresh(judged.rank);
                }
            } else if self.slots.len() < limits.max_values
                && self.bytes + value.len() <= limits.max_value_bytes
            {
                self.bytes += value.len();
                self.slots.insert(judged.slot, fresh(judged.rank));
            }
        }
        if brought.good > 0 {
            self.vote(from);
        }
        brought
    }

    /// Takes in the providers of one answer.
    pub(crate) fn providers(&mut self, limits: &LookupConfig, providers: &[Contact]) -> Brought {
        let mut good = 0;
        for provider in providers {
            if let Some(known) = self.providers.iter_mut().find(|known| known.peer() == provider.peer()) {
                if known.has_no_address() {
                    *known = provider.clone();
                }
            } else if self.providers.len() < limits.max_values {
                good += 1;
                self.providers.push(provider.clone());
            }
        }
        Brought { good, invalid: 0 }
    }

    /// Valid answers from distinct groups of addresses.
    pub(crate) fn votes(&self) -> usize {
        self.voters.len()
    }

    /// Whether a value was found that nothing can supersede.
    pub(crate) fn is_final(&self) -> bool {
        self.is_final
    }

    /// How many different values, or providers, there are.
    pub(crate) fn found(&self) -> usize {
        self.slots.len() + self.providers.len()
    }

    /// All values, in the order of their slots, and all providers.
    pub(crate) fn take(&mut self) -> (Vec<Found>, Vec<Contact>) {
        let values = std::mem::take(&mut self.slots)
            .into_values()
            .map(|best| Found { value: best.value, holders: best.holders, from: best.from })
            .collect();
        (values, std::mem::take(&mut self.providers))
    }

    fn vote(&mut self, from: &Contact) {
        let mut voters: Vec<Voter> = from.subnets().map(Voter::Subnet).collect();
        if voters.is_empty() {
            voters.push(Voter::Peer(*from.peer()));
        }
        if !voters.iter().any(|voter| self.voters.contains(voter)) {
            self.voters.extend(voters.into_iter().next());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::{address, contact, peer};
    use crate::{Invalid, Judged};

    /// A value is its slot, its rank and whether it is final: one byte each. Zero is no slot.
    struct ByBytes;

    impl Judge for ByBytes {
        fn judge(&self, _: Now, _: &Target, value: &Bytes) -> Result<Judged, Invalid> {
            match value[0] {
                0 => Err(Invalid { why: "zero" }),
                _ => Ok(Judged { slot: value.slice(..1), rank: value.slice(1..2), is_final: value[2] == 1 }),
            }
        }
    }

    fn take_in(harvest: &mut Harvest, from: &Contact, values: &[[u8; 3]]) -> Brought {
        let limits = LookupConfig { max_values: 3, max_value_bytes: 9, ..LookupConfig::default() };
        let target = Target::new(b"t").unwrap();
        let values: Vec<Bytes> = values.iter().map(|value| Bytes::copy_from_slice(value)).collect();
        harvest.values(Now::ZERO, &limits, &ByBytes, &target, from, &values)
    }

    /// of several versions the newest wins, whoever answered first.
    /// Contract C-49.
    #[test]
    fn the_best_of_each_slot_is_kept() {
        let mut harvest = Harvest::default();
        take_in(&mut harvest, &contact(1), &[[1, 5, 0], [2, 1, 0]]);
        take_in(&mut harvest, &contact(2), &[[1, 4, 0]]);
        let brought = take_in(&mut harvest, &contact(3), &[[1, 6, 0], [0, 9, 0]]);
        assert_eq!(brought, Brought { good: 1, invalid: 1 });
        take_in(&mut harvest, &contact(4), &[[1, 6, 0]]);
        assert!(!harvest.is_final());
        let (values, _) = harvest.take();
        assert_eq!((values[0].value[1], values[0].holders, values[0].from), (6, 2, peer(3)));
        assert_eq!(values.len(), 2);
    }

    /// Contract C-49.
    #[test]
    fn only_distinct_groups_of_addresses_are_a_quorum() {
        let mut harvest = Harvest::default();
        let twin = Contact::new(peer(9), &[address(1)]);
        take_in(&mut harvest, &contact(1), &[[1, 5, 0]]);
        take_in(&mut harvest, &twin, &[[1, 5, 0]]);
        assert_eq!(harvest.votes(), 1);
        take_in(&mut harvest, &contact(2), &[[1, 5, 1]]);
        assert_eq!((harvest.votes(), harvest.is_final()), (2, true));
    }

    #[test]
    fn what_peers_answer_takes_bounded_memory() {
        let mut harvest = Harvest::default();
        for slot in 1..=255 {
            take_in(&mut harvest, &contact(1), &[[slot, 0, 0]]);
        }
        assert_eq!((harvest.found(), harvest.bytes), (3, 9));
        let limits = LookupConfig { max_values: 3, ..LookupConfig::default() };
        let many: Vec<Contact> = (0..50).map(contact).collect();
        let mut harvest = Harvest::default();
        assert_eq!(harvest.providers(&limits, &many).good, 3);
        assert_eq!(harvest.providers(&limits, &many).good, 0);
    }

    /// the number of values and their bytes are two limits, and either holds alone.
    #[test]
    fn values_are_bounded_by_their_number_and_by_their_bytes() {
        let found = |max_values, max_value_bytes| {
            let limits = LookupConfig { max_values, max_value_bytes, ..LookupConfig::default() };
            let (mut harvest, target) = (Harvest::default(), Target::new(b"t").unwrap());
            let values: Vec<Bytes> = (1..=50).map(|slot| Bytes::from(vec![slot, 0, 0])).collect();
            harvest.values(Now::ZERO, &limits, &ByBytes, &target, &contact(1), &values);
            harvest.found()
        };
        assert_eq!([found(7, 1 << 20), found(8, 1 << 20), found(100, 30), found(100, 33)], [7, 8, 10, 11]);
    }
}
