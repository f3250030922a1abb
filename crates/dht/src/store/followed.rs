//! Places of the store whose changes somebody wants to hear of.

use std::collections::{BTreeMap, BTreeSet};

use super::Store;
use crate::{Distance, Key};

/// Who follows is counted; what has changed since it was last looked at is kept, of followed places alone.
#[derive(Debug, Default)]
pub(super) struct Followed {
    places: BTreeMap<Distance, usize>,
    changed: BTreeSet<Distance>,
}

impl Followed {
    /// Something has come or gone there.
    pub(super) fn touch(&mut self, place: Distance) {
        if self.places.contains_key(&place) {
            self.changed.insert(place);
        }
    }
}

impl Store {
    /// Notes what changes under a key from now on, until [`Store::unfollow`] was called as often.
    pub(crate) fn follow(&mut self, key: &Key) {
        *self.followed.places.entry(self.own.distance(key)).or_default() += 1;
    }

    /// The opposite of [`Store::follow`].
    pub(crate) fn unfollow(&mut self, key: &Key) {
        let place = self.own.distance(key);
        if let Some(count) = self.followed.places.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.followed.places.remove(&place);
                self.followed.changed.remove(&place);
            }
        }
    }

    /// How often something is followed.
    pub(crate) fn followers(&self) -> usize {
        self.followed.places.values().sum()
    }

    /// The followed keys under which something has changed since the last call.
    pub(crate) fn take_followed(&mut self) -> Vec<Key> {
        let own = self.own;
        std::mem::take(&mut self.followed.changed).into_iter().map(|place| own.at(&place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Network, Records, RecordsConfig};
    use crate::store::StoreConfig;

    #[test]
    fn changes_are_noted_of_followed_places_for_as_long_as_anybody_follows() {
        let records = Records::new(Network::new("acme").unwrap(), RecordsConfig::default());
        let (own, key, other) = (Key::of(b"own"), Key::of(b"key"), Key::of(b"other"));
        let mut store = Store::new(StoreConfig::default(), own, &records);
        let change = |store: &mut Store| {
            store.followed.touch(own.distance(&key));
            store.followed.touch(own.distance(&other));
            store.take_followed()
        };
        assert_eq!(change(&mut store), []);
        store.follow(&key);
        store.follow(&key);
        assert_eq!(change(&mut store), [key]);
        assert_eq!(store.take_followed(), [], "told once");
        store.unfollow(&key);
        assert_eq!(change(&mut store), [key]);
        store.unfollow(&key);
        assert_eq!(change(&mut store), []);
        store.unfollow(&key);
        assert!(store.followed.places.is_empty());
    }
}
