//! Provider records of libp2p: who has something, by their own word (kad-dht specification, "Content provider advertisement").

use std::collections::{BTreeMap, BTreeSet};

use peerage_identity::PeerId;

use super::StoreConfig;
use crate::{Contact, Key};

/// The most bytes of a provider key, as go has it.
pub const MAX_PROVIDER_KEY: usize = 80;

/// Who provides what, until when.
#[derive(Debug, Default)]
pub(super) struct Providers {
    by_key: BTreeMap<Key, BTreeMap<PeerId, Provider>>,
    expiry: BTreeSet<(u64, Key, PeerId)>,
    per_peer: BTreeMap<PeerId, usize>,
}

#[derive(Debug)]
pub(super) struct Provider {
    pub(super) contact: Contact,
    pub(super) until: u64,
}

impl Providers {
    /// Takes one in, or renews it. Says whether there was room.
    pub(super) fn add(&mut self, config: &StoreConfig, key: Key, contact: Contact, until: u64) -> bool {
        let peer = *contact.peer();
        if let Some(known) = self.by_key.get_mut(&key).and_then(|providers| providers.get_mut(&peer)) {
            self.expiry.remove(&(known.until, key, peer));
            *known = Provider { contact, until };
            self.expiry.insert((until, key, peer));
            return true;
        }
        let of_key = self.by_key.get(&key).map_or(0, BTreeMap::len);
        let of_peer = self.per_peer.get(&peer).copied().unwrap_or(0);
        let full = self.expiry.len() >= config.max_providers;
        if full || of_key >= config.providers_per_key || of_peer >= config.providers_per_peer {
            return false;
        }
        self.by_key.entry(key).or_default().insert(peer, Provider { contact, until });
        self.expiry.insert((until, key, peer));
        *self.per_peer.entry(peer).or_default() += 1;
        true
    }

    /// The providers of a key, those after `after`.
    pub(super) fn of(&self, key: &Key, after: Option<&PeerId>) -> impl Iterator<Item = &Contact> {
        let after = after.copied();
        let all = self.by_key.get(key).into_iter().flatten();
        all.filter(move |(peer, _)| after.is_none_or(|after| **peer > after))
            .map(|(_, provider)| &provider.contact)
    }

    pub(super) fn get(&self, key: &Key, peer: &PeerId) -> Option<&Provider> {
        self.by_key.get(key)?.get(peer)
    }

    /// Takes one out whose time is up.
    pub(super) fn pop_expired(&mut self, unix: u64) -> Option<(Key, PeerId)> {
        let (until, key, peer) = *self.expiry.first()?;
        if until > unix {
            return None;
        }
        self.expiry.pop_first();
        if let Some(providers) = self.by_key.get_mut(&key) {
            providers.remove(&peer);
            if providers.is_empty() {
                self.by_key.remove(&key);
            }
        }
        if let Some(count) = self.per_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&peer);
            }
        }
        Some((key, peer))
    }

    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.expiry.first().map(|(until, ..)| *until)
    }

    pub(super) fn len(&self) -> usize {
        self.expiry.len()
    }
}
