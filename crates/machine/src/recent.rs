//! What was found out lately, within a bound.

use std::collections::{BTreeMap, VecDeque};

/// A table of so many entries at most: what came first goes first. It takes no memory until something is put in.
#[derive(Debug, Clone)]
pub struct Recent<K, V> {
    most: usize,
    found: BTreeMap<K, V>,
    /// The keys, the oldest first.
    order: VecDeque<K>,
}

impl<K: Ord + Clone, V> Recent<K, V> {
    /// An empty table for `most` entries.
    pub fn new(most: usize) -> Self {
        Self { most, found: BTreeMap::new(), order: VecDeque::new() }
    }

    /// What is known under `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.found.get(key)
    }

    /// Keeps a value. One that is kept under the same key gives way to it and leaves its turn to it; otherwise, in a full table, the oldest entry goes.
    pub fn put(&mut self, key: K, value: V) {
        if let Some(known) = self.found.get_mut(&key) {
            *known = value;
            return;
        }
        if self.most == 0 {
            return;
        }
        if self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.found.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.found.insert(key, value);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_the_table_is_full_and_a_known_key_keeps_its_turn() {
        let mut recent = Recent::new(2);
        recent.put("a", 1);
        recent.put("b", 2);
        recent.put("a", 3);
        assert_eq!((recent.get(&"a"), recent.get(&"b"), recent.len()), (Some(&3), Some(&2), 2));
        recent.put("c", 4);
        assert_eq!((recent.get(&"a"), recent.get(&"b"), recent.get(&"c")), (None, Some(&2), Some(&4)));
        for number in 0..100 {
            recent.put("d", number);
            recent.put("e", number);
            assert_eq!((recent.len(), recent.found.len(), recent.get(&"e")), (2, 2, Some(&number)));
        }
    }

    #[test]
    fn a_table_for_nothing_keeps_nothing() {
        let mut recent = Recent::new(0);
        recent.put(1, 1);
        assert!(recent.is_empty() && recent.get(&1).is_none());
    }
}
