//! What a lookup finds: values, judged and counted, and providers. Bounded, whatever peers answer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use crate::store::Equivocation;
use crate::{Contact, Found, Judge, Judged, LookupConfig, Subnet, Target};

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    /// The best value of each slot.
    slots: BTreeMap<Bytes, Best>,
    /// Their bytes together.
    bytes: usize,
    /// Which slot each of them has, by the value: what was judged once is not judged again.
    known: BTreeMap<Bytes, Bytes>,
    providers: Vec<Provider>,
    /// Groups of addresses, or peers where no group applies, that answered with a valid value.
    voters: Vec<Voter>,
    is_final: bool,
    /// The first proof that a publisher has said two things at once.
    pub(crate) equivocation: Option<Box<Equivocation>>,
}

#[derive(Debug)]
struct Best {
    value: Bytes,
    rank: Bytes,
    from: PeerId,
    said: Said,
}

#[derive(Debug)]
struct Provider {
    contact: Contact,
    said: Said,
}

/// Who says something.
#[derive(Debug)]
struct Said {
    by: Vec<PeerId>,
    first: Voter,
    /// Somebody of another group says so too.
    borne_out: bool,
}

impl Said {
    fn new(peer: &PeerId, voter: Voter) -> Self {
        Self { by: vec![*peer], first: voter, borne_out: false }
    }

    /// One more says so. Whether it had not said so before.
    fn again(&mut self, peer: &PeerId, voter: Voter) -> bool {
        self.borne_out |= self.first != voter;
        let fresh = !self.by.contains(peer);
        if fresh {
            self.by.push(*peer);
        }
        fresh
    }
}

/// Who answered: the network in which it was met, or itself where no rule for networks applies. What it says of its own addresses doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voter {
    Subnet(Subnet),
    Peer(PeerId),
}

impl Voter {
    pub(crate) fn new(peer: &PeerId, remote: IpAddr) -> Self {
        Subnet::of(remote).map_or(Self::Peer(*peer), Self::Subnet)
    }
}

/// What one answer brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Valid values, or providers.
    pub(crate) good: usize,
    /// Those among them that the peer had not said before.
    pub(crate) fresh: usize,
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
        from: (&PeerId, Voter),
        values: &[Bytes],
    ) -> Brought {
        let (peer, voter) = from;
        let mut brought = Brought::default();
        for value in values {
            if let Some(best) = self.known.get(value).and_then(|slot| self.slots.get_mut(slot)) {
                brought.good += 1;
                brought.fresh += usize::from(best.said.again(peer, voter));
                continue;
            }
            let Ok(judged) = judge.judge(now, target, value) else {
                brought.invalid += 1;
                continue;
            };
            brought.good += 1;
            self.is_final |= judged.is_final;
            let before = self.slots.get(&judged.slot);
            if let (Some(best), None) = (before, &self.equivocation) {
                self.equivocation = judge.contradiction(target, [&best.value, value]).map(Box::new);
            }
            let room =
                self.bytes + value.len() <= limits.max_value_bytes && self.slots.len() < limits.max_values;
            if before.map_or(room, |best| judged.rank > best.rank) {
                brought.fresh += 1;
                self.bytes += value.len();
                self.known.insert(value.clone(), judged.slot.clone());
                let value = value.clone();
                let best = Best { value, rank: judged.rank, from: *peer, said: Said::new(peer, voter) };
                if let Some(worse) = self.slots.insert(judged.slot, best) {
                    self.bytes -= worse.value.len();
                    self.known.remove(&worse.value);
                }
            }
        }
        if brought.good > 0 && !self.voters.contains(&voter) {
            self.voters.push(voter);
        }
        brought
    }

    /// How new the best value of each slot is.
    pub(crate) fn ranks(&self) -> BTreeMap<Bytes, Bytes> {
        self.slots.iter().map(|(slot, best)| (slot.clone(), best.rank.clone())).collect()
    }

    /// Whether what was found in the slot of this is worth less. False where nothing was found there.
    pub(crate) fn has_older(&self, than: &Judged) -> bool {
        self.slots.get(&than.slot).is_some_and(|best| best.rank < than.rank)
    }

    /// Gives up what was found in a slot.
    pub(crate) fn forget(&mut self, slot: &Bytes) {
        if let Some(best) = self.slots.remove(slot) {
            self.bytes -= best.value.len();
            self.known.remove(&best.value);
        }
    }

    /// The value that a lookup for one value gives back, and what it is worth.
    pub(crate) fn best(&self) -> Option<(Judged, &Bytes)> {
        let (slot, best) = self.slots.first_key_value()?;
        Some((Judged { slot: slot.clone(), rank: best.rank.clone(), is_final: self.is_final }, &best.value))
    }

    /// What the best value of each slot is worth.
    pub(crate) fn judged(&self) -> impl Iterator<Item = Judged> {
        let is_final = self.is_final;
        self.slots.iter().map(move |(slot, best)| Judged {
            slot: slot.clone(),
            rank: best.rank.clone(),
            is_final,
        })
    }

    /// Takes in the providers of one answer.
    pub(crate) fn providers(
        &mut self,
        limits: &LookupConfig,
        (peer, voter): (&PeerId, Voter),
        providers: &[Contact],
    ) -> Brought {
        let mut brought = Brought::default();
        for provider in providers {
            if let Some(known) =
                self.providers.iter_mut().find(|known| known.contact.peer() == provider.peer())
            {
                brought.fresh += usize::from(known.said.again(peer, voter));
                if known.contact.has_no_address() {
                    known.contact = provider.clone();
                }
            } else if self.providers.len() < limits.max_values {
                brought.good += 1;
                brought.fresh += 1;
                self.providers.push(Provider { contact: provider.clone(), said: Said::new(peer, voter) });
            }
        }
        brought
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

    /// How many of them answers of two groups bear out.
    pub(crate) fn borne_out(&self) -> usize {
        let values = self.slots.values().filter(|best| best.said.borne_out).count();
        values + self.providers.iter().filter(|provider| provider.said.borne_out).count()
    }

    /// All values, in the order of their slots, and all providers.
    pub(crate) fn take(&mut self) -> (Vec<Found>, Vec<Contact>) {
        self.known.clear();
        let values = std::mem::take(&mut self.slots)
            .into_values()
            .map(|best| Found {
                value: best.value,
                holders: best.said.by.len(),
                borne_out: best.said.borne_out,
                from: best.from,
            })
            .collect();
        let providers = std::mem::take(&mut self.providers);
        (values, providers.into_iter().map(|provider| provider.contact).collect())
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

    /// Where a peer is that has but one address.
    fn voter(from: &Contact) -> Voter {
        from.subnets().next().map_or(Voter::Peer(*from.peer()), Voter::Subnet)
    }

    fn take_in(harvest: &mut Harvest, from: &Contact, values: &[[u8; 3]]) -> Brought {
        let limits = LookupConfig { max_values: 3, max_value_bytes: 9, ..LookupConfig::default() };
        let target = Target::new(b"t").unwrap();
        let values: Vec<Bytes> = values.iter().map(|value| Bytes::copy_from_slice(value)).collect();
        harvest.values(Now::ZERO, &limits, &ByBytes, &target, (from.peer(), voter(from)), &values)
    }

    /// of several versions the newest wins, whoever answered first.
    /// Contract C-49.
    #[test]
    fn the_best_of_each_slot_is_kept() {
        let mut harvest = Harvest::default();
        take_in(&mut harvest, &contact(1), &[[1, 5, 0], [2, 1, 0]]);
        take_in(&mut harvest, &contact(2), &[[1, 4, 0]]);
        let brought = take_in(&mut harvest, &contact(3), &[[1, 6, 0], [0, 9, 0]]);
        assert_eq!(brought, Brought { good: 1, fresh: 1, invalid: 1 });
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
        assert_eq!(harvest.providers(&limits, (&peer(1), voter(&contact(1))), &many).good, 3);
        assert_eq!(harvest.providers(&limits, (&peer(1), voter(&contact(1))), &many).good, 0);
    }

    /// the number of values and their bytes are two limits, and either holds alone.
    #[test]
    fn values_are_bounded_by_their_number_and_by_their_bytes() {
        let found = |max_values, max_value_bytes| {
            let limits = LookupConfig { max_values, max_value_bytes, ..LookupConfig::default() };
            let (mut harvest, target) = (Harvest::default(), Target::new(b"t").unwrap());
            let values: Vec<Bytes> = (1..=50).map(|slot| Bytes::from(vec![slot, 0, 0])).collect();
            harvest.values(Now::ZERO, &limits, &ByBytes, &target, (&peer(1), voter(&contact(1))), &values);
            harvest.found()
        };
        assert_eq!([found(7, 1 << 20), found(8, 1 << 20), found(100, 30), found(100, 33)], [7, 8, 10, 11]);
    }
}
