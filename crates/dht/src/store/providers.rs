//! Provider records of libp2p: who has something, by their own word (kad-dht specification, "Content provider advertisement").

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use peerage_identity::PeerId;

use super::StoreConfig;
use super::origin::{Origin, gives_way, last_of_most};
use crate::{Contact, Distance, Key};

/// The most bytes of a provider key, as go has it.
pub const MAX_PROVIDER_KEY: usize = 80;

/// Who provides what, until when.
#[derive(Debug)]
pub(super) struct Providers {
    own: Key,
    /// By how far their keys are from us.
    by_key: BTreeMap<Distance, BTreeMap<PeerId, Provider>>,
    expiry: BTreeSet<(u64, Key, PeerId)>,
    per_peer: BTreeMap<PeerId, usize>,
}

#[derive(Debug)]
pub(super) struct Provider {
    pub(super) contact: Contact,
    pub(super) until: u64,
    pub(super) origin: Origin,
}

/// What became of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It is there, perhaps in the place of another one.
    Yes(Option<(Key, PeerId)>),
    /// There was no room.
    No,
}

impl Providers {
    /// Of the node that lies at `own`.
    pub(super) fn new(own: Key) -> Self {
        Self { own, by_key: BTreeMap::new(), expiry: BTreeSet::new(), per_peer: BTreeMap::new() }
    }

    /// Takes one in, or renews it. In a full key it takes the place of one of the subnet that has most of them, in a full table that of one of the furthest key; never by who
    /// came first.
    pub(super) fn add(&mut self, config: &StoreConfig, key: Key, provider: Provider) -> Added {
        let (peer, until, distance) = (*provider.contact.peer(), provider.until, self.own.distance(&key));
        if let Some(known) = self.by_key.get_mut(&distance).and_then(|providers| providers.get_mut(&peer)) {
            self.expiry.remove(&(known.until, key, peer));
            *known = provider;
            self.expiry.insert((until, key, peer));
            return Added::Yes(None);
        }
        if self.per_peer.get(&peer).copied().unwrap_or(0) >= config.providers_per_peer {
            return Added::No;
        }
        let of_key = self.by_key.get(&distance).map_or(0, BTreeMap::len);
        let goes = match of_key >= config.providers_per_key {
            true => self.gives_way(&distance, provider.origin),
            false if self.expiry.len() >= config.max_providers => self.furthest(&distance, provider.origin),
            false => return self.insert(key, distance, provider, None),
        };
        match goes {
            Some(goes) => self.insert(key, distance, provider, Some(goes)),
            None => Added::No,
        }
    }

    fn insert(
        &mut self,
        key: Key,
        distance: Distance,
        provider: Provider,
        goes: Option<(u64, Key, PeerId)>,
    ) -> Added {
        if let Some((until, of, peer)) = goes {
            self.expiry.remove(&(until, of, peer));
            self.forget(&of, &peer);
        }
        let peer = *provider.contact.peer();
        self.expiry.insert((provider.until, key, peer));
        self.by_key.entry(distance).or_default().insert(peer, provider);
        *self.per_peer.entry(peer).or_default() += 1;
        Added::Yes(goes.map(|(_, of, peer)| (of, peer)))
    }

    /// Who gives way to a newcomer at a full key.
    fn gives_way(&self, distance: &Distance, origin: Origin) -> Option<(u64, Key, PeerId)> {
        gives_way(origin, self.places(distance), |(until, ..)| Reverse(*until))
    }

    /// Who gives way to a newcomer in a full table: one of the furthest key, unless that is the newcomer's own or nearer.
    fn furthest(&self, distance: &Distance, origin: Origin) -> Option<(u64, Key, PeerId)> {
        let (furthest, _) = self.by_key.last_key_value()?;
        match furthest.cmp(distance) {
            Ordering::Less => None,
            Ordering::Equal => self.gives_way(distance, origin),
            Ordering::Greater => last_of_most(self.places(furthest), |(until, ..)| Reverse(*until)),
        }
    }

    fn places(&self, distance: &Distance) -> impl Iterator<Item = (Origin, (u64, Key, PeerId))> {
        let key = self.own.at(distance);
        let there = self.by_key.get(distance).into_iter().flatten();
        there.map(move |(peer, provider)| (provider.origin, (provider.until, key, *peer)))
    }

    /// The providers of a key, those after `after`.
    pub(super) fn of(&self, key: &Key, after: Option<&PeerId>) -> impl Iterator<Item = &Contact> {
        let after = after.copied();
        let all = self.by_key.get(&self.own.distance(key)).into_iter().flatten();
        all.filter(move |(peer, _)| after.is_none_or(|after| **peer > after))
            .map(|(_, provider)| &provider.contact)
    }

    pub(super) fn get(&self, key: &Key, peer: &PeerId) -> Option<&Provider> {
        self.by_key.get(&self.own.distance(key))?.get(peer)
    }

    /// Takes one out whose time is up.
    pub(super) fn pop_expired(&mut self, unix: u64) -> Option<(Key, PeerId)> {
        let (until, key, peer) = *self.expiry.first()?;
        if until > unix {
            return None;
        }
        self.expiry.pop_first();
        self.forget(&key, &peer);
        Some((key, peer))
    }

    /// Takes one out. Says whether it was there.
    pub(super) fn remove(&mut self, key: &Key, peer: &PeerId) -> bool {
        let Some(until) = self.get(key, peer).map(|provider| provider.until) else { return false };
        self.expiry.remove(&(until, *key, *peer));
        self.forget(key, peer);
        true
    }

    fn forget(&mut self, key: &Key, peer: &PeerId) {
        let distance = self.own.distance(key);
        if let Some(providers) = self.by_key.get_mut(&distance) {
            providers.remove(peer);
            if providers.is_empty() {
                self.by_key.remove(&distance);
            }
        }
        if let Some(count) = self.per_peer.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(peer);
            }
        }
    }

    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.expiry.first().map(|(until, ..)| *until)
    }

    pub(super) fn len(&self) -> usize {
        self.expiry.len()
    }
}
