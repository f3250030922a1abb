//! Where a peer is that is looked for: what others say of it, and what proves it.

use std::net::IpAddr;

use peerage_identity::DialAddress;

use super::{Goal, Lookup, State, Voter};
use crate::{Contact, MAX_CONTACT_ADDRESSES};

/// What is known so far. Bounded, whatever peers answer.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    /// What each network says that says something, the first first.
    told: Vec<(Voter, Contact)>,
    /// So many networks have named one and the same address.
    agree: usize,
    /// The peer itself has answered there.
    proved: Option<Contact>,
    /// Where it was asked last.
    tried: Option<Contact>,
}

impl Whereabouts {
    /// So many networks are listened to.
    const MOST_TELLERS: usize = 64;

    /// Somebody says where the peer is; what its network said before stands too. Whether an address is among it that nobody has named before.
    pub(super) fn told(&mut self, voter: Voter, contact: &Contact) -> bool {
        if contact.has_no_address() {
            return false;
        }
        let news = contact.binary_addresses().any(|address| self.tellers_of(address) == 0);
        let full = self.told.len() >= Self::MOST_TELLERS;
        match self.told.iter_mut().find(|(other, _)| *other == voter) {
            Some((_, before)) => {
                *before = Contact::new(*contact.peer(), &[before.addresses(), contact.addresses()].concat());
            }
            None if full => return false,
            None => self.told.push((voter, contact.clone())),
        }
        let agree = contact.binary_addresses().map(|address| self.tellers_of(address)).max();
        self.agree = self.agree.max(agree.unwrap_or(0));
        news
    }

    /// The peer itself has answered, from there.
    pub(super) fn proved(&mut self, contact: &Contact, remote: IpAddr) {
        let mut addresses = contact.addresses();
        let is_there = |address: &DialAddress| {
            Contact::new(*contact.peer(), std::slice::from_ref(address)).is_at(remote)
        };
        addresses.sort_by_key(|address| !is_there(address));
        self.proved = Some(Contact::new(*contact.peer(), &addresses));
    }

    /// Whether the peer has answered itself, or so many networks name one and the same address.
    pub(super) fn is_certain(&self, tellers: usize) -> bool {
        self.proved.is_some() || self.agree >= tellers.max(1)
    }

    /// Where it may be dialled: first where it answered, then what most networks say, of as many the first that each named; so one that names many does not crowd out another's.
    /// `None` when nobody has named an address.
    pub(crate) fn best(&self) -> Option<Contact> {
        let first = self.proved.as_ref().or(self.told.first().map(|(_, contact)| contact))?;
        let mut told: Vec<(usize, usize, DialAddress)> = Vec::new();
        for (_, contact) in &self.told {
            let named = contact.addresses().into_iter().zip(contact.binary_addresses());
            for (place, (address, bytes)) in named.enumerate() {
                match told.iter_mut().find(|(.., other)| *other == address) {
                    Some((_, first, _)) => *first = place.min(*first),
                    None => told.push((self.tellers_of(bytes), place, address)),
                }
            }
        }
        told.sort_by_key(|(tellers, place, _)| (std::cmp::Reverse(*tellers), *place));
        let proved = self.proved.iter().flat_map(Contact::addresses);
        let all: Vec<DialAddress> = proved.chain(told.into_iter().map(|(.., address)| address)).collect();
        Some(Contact::new(*first.peer(), &all))
    }

    fn tellers_of(&self, address: &[u8]) -> usize {
        self.told
            .iter()
            .filter(|(_, contact)| contact.binary_addresses().any(|other| other == address))
            .count()
    }
}

impl Lookup {
    /// What an answer says of the peer that is looked for, if one is: that it is the one, or where it is.
    pub(super) fn locate(
        &mut self,
        from: &Contact,
        voter: Voter,
        remote: IpAddr,
        hops: u8,
        closer: &[Contact],
    ) {
        let Goal::Peer(wanted, _) = self.plan.goal else { return };
        if self.hops == 0 && *from.peer() == wanted {
            self.hops = u32::from(hops);
        }
        if *from.peer() == wanted {
            self.whereabouts.proved(from, remote);
        }
        let named = closer.iter().take(self.plan.k).find(|named| *named.peer() == wanted);
        let Some(named) = named.and_then(|named| named.credible_from(remote)) else { return };
        if self.hops == 0 && !named.has_no_address() {
            self.hops = u32::from(hops) + 1;
        }
        if !self.whereabouts.told(voter, &named) {
            return;
        }
        let at = self.candidates.iter().position(|candidate| *candidate.contact.peer() == wanted);
        if let (Some(at), Some(best)) = (at, self.whereabouts.best()) {
            let candidate = &mut self.candidates[at];
            // What we knew ourselves is not crowded out.
            let ours = candidate.advisor.is_none() || candidate.hint.success.is_some();
            let known = candidate.contact.addresses().into_iter().filter(|_| ours);
            let first = known.take(MAX_CONTACT_ADDRESSES / 2);
            let addresses: Vec<DialAddress> = first.chain(best.addresses()).collect();
            candidate.contact = Contact::new(wanted, &addresses);
            // Whoever was named first may have lied, and who is looked for is not crowded out.
            candidate.wanted = true;
            let elsewhere = self.is_elsewhere(at);
            let candidate = &mut self.candidates[at];
            match candidate.state {
                State::Barred => candidate.state = State::New,
                State::Failed if elsewhere => {
                    candidate.state = State::New;
                    candidate.chances = candidate.chances.saturating_add(1);
                }
                _ => {}
            }
        }
    }

    /// The candidate at this place is being asked where it is known to be now.
    pub(super) fn tries(&mut self, at: usize) {
        let contact = &self.candidates[at].contact;
        if matches!(self.plan.goal, Goal::Peer(wanted, _) if wanted == *contact.peer()) {
            self.whereabouts.tried = Some(contact.clone());
        }
    }

    /// Whether the candidate at this place, who did not answer, was asked elsewhere than where it is known to be by now.
    pub(super) fn is_elsewhere(&self, at: usize) -> bool {
        let contact = &self.candidates[at].contact;
        let tried = self.whereabouts.tried.as_ref().filter(|tried| tried.peer() == contact.peer());
        tried.is_some_and(|tried| !tried.same(contact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::{address, contact, peer};

    fn ip(number: u64) -> IpAddr {
        address(number).socket_addr().unwrap().ip()
    }

    fn voter(number: u64) -> Voter {
        Voter::Peer(peer(number))
    }

    fn at(addresses: &[u64]) -> Contact {
        let addresses: Vec<DialAddress> = addresses.iter().map(|number| address(*number)).collect();
        Contact::new(peer(1), &addresses)
    }

    #[test]
    fn what_two_networks_say_counts_and_comes_before_what_one_says() {
        let mut known = Whereabouts::default();
        assert_eq!(known.best(), None);
        assert!(known.told(voter(2), &at(&[7, 8])));
        assert!((known.is_certain(1), known.is_certain(2)) == (true, false));
        // Nothing is no word, and the same network once more is no second one.
        assert!(!known.told(voter(2), &at(&[])));
        assert!(known.told(voter(2), &at(&[7, 9])) && !known.is_certain(2));
        assert!(!known.told(voter(3), &at(&[9])) && known.is_certain(2));
        assert_eq!(known.best().unwrap().addresses(), at(&[9, 7, 8]).addresses());
        known.proved(&at(&[4, 5]), ip(5));
        assert_eq!(known.best().unwrap().addresses(), at(&[5, 4, 9, 7, 8]).addresses());
    }

    #[test]
    fn whoever_names_many_addresses_crowds_out_nobody() {
        let mut known = Whereabouts::default();
        known.told(voter(2), &at(&[11, 12, 13, 14, 15, 16, 17, 18]));
        known.told(voter(3), &at(&[7]));
        assert_eq!(known.best().unwrap().addresses()[..3], at(&[11, 7, 12]).addresses()[..]);
        // Nor does a neighbour of whoever spoke first.
        known.told(voter(3), &at(&[21]));
        known.told(voter(4), &at(&[7]));
        assert!(known.is_certain(2));
        assert_eq!(known.best().unwrap().addresses()[0], address(7));
    }

    #[test]
    fn whoever_answers_itself_needs_nobody_else_and_tellers_are_bounded() {
        let mut known = Whereabouts::default();
        assert!(!known.told(voter(2), &at(&[])) && known.best().is_none());
        for number in 0..1000 {
            known.told(voter(number), &at(&[1000 + number]));
        }
        assert_eq!(known.told.len(), Whereabouts::MOST_TELLERS);
        assert!(!known.is_certain(2));
        known.proved(&contact(1), ip(1));
        assert!(known.is_certain(2));
        assert_eq!(known.best().unwrap().addresses()[0], address(1));
    }
}
