//! Which record goes where the store, or the share of a kind, is full.
//!
//! Beyond the nodes responsible the distance alone decides. How many those are each kind has for itself, so that the furthest key of each kind is looked at: what is ours to
//! keep shields nothing that lies closer.

use std::collections::{BTreeMap, BTreeSet};

use peerage_machine::Now;

use super::{Entry, NAMESPACES, Near, Put, Spot, Store, Usage, namespace};
use crate::Distance;
use crate::record::Records;

/// The keys of each kind, by distance: the furthest is known without a search.
#[derive(Debug, Default)]
pub(super) struct Keys([BTreeSet<Distance>; NAMESPACES]);

impl Keys {
    pub(super) fn insert(&mut self, namespace: usize, distance: Distance) {
        if let Some(keys) = self.0.get_mut(namespace) {
            keys.insert(distance);
        }
    }

    pub(super) fn remove(&mut self, namespace: usize, distance: Distance) {
        if let Some(keys) = self.0.get_mut(namespace) {
            keys.remove(&distance);
        }
    }

    fn furthest(&self, namespace: usize) -> Option<Distance> {
        self.0.get(namespace)?.last().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(BTreeSet::len).sum()
    }
}

impl Store {
    /// Takes aside what goes first until there is room; fails when that would be the newcomer. Then all of it is to be put back.
    pub(super) fn make_room(
        &mut self,
        now: Now,
        near: &dyn Near,
        records: &Records,
        spot: &Spot,
        entry: &Entry,
        aside: &mut Vec<(Spot, Entry)>,
    ) -> Result<(), Put> {
        let (bytes, kind) = (entry.bytes(), namespace(entry.kind()));
        let mut judge =
            Judge { now, near, records, crowded: [false; NAMESPACES], has_closer: BTreeMap::new() };
        loop {
            let over_namespace = self.is_over_share(kind, bytes, self.config.namespace_share);
            let over_all = self.used.bytes + bytes > self.config.max_bytes
                || self.used.records >= self.config.max_records;
            if !over_namespace && !over_all {
                return Ok(());
            }
            judge.crowded = std::array::from_fn(|number| {
                let more = if number == kind { bytes } else { 0 };
                self.is_over_share(number, more, 1.0 / NAMESPACES as f64)
            });
            let newcomer = Worthless { beyond: judge.beyond(spot, entry), ..judge.worth_in_range(entry) };
            let among = over_namespace.then_some(kind);
            let first = self.first_to_go(&mut judge, among).filter(|(_, worth)| *worth > newcomer);
            let Some((first, _)) = first else { return Err(Put::Busy) };
            aside.extend(self.remove(now, &first, false).map(|gone| (first, gone)));
        }
    }

    /// Whether a kind, with so many bytes more, takes more than this share of the store.
    pub(super) fn is_over_share(&self, namespace: usize, bytes: usize, share: f64) -> bool {
        let Usage { bytes: used, records } = self.namespaces[namespace];
        let of = |limit: usize| (limit as f64 * share) as usize;
        used + bytes > of(self.config.max_bytes)
            || records + usize::from(bytes > 0) > of(self.config.max_records).max(1)
    }

    /// The record that goes first, of all or of one namespace.
    fn first_to_go(&self, judge: &mut Judge<'_>, among: Option<usize>) -> Option<(Spot, Worthless)> {
        if let Some(distance) = self.furthest_beyond(judge, among) {
            let worth = |entry| Worthless { beyond: Some(distance), ..judge.worth_in_range(entry) };
            let at_that_key = self.at(distance).map(|(spot, entry)| (spot, worth(entry)));
            let last = at_that_key.max_by_key(|(_, worth)| *worth);
            return last.map(|(spot, worth)| (spot.clone(), worth));
        }
        // Everything is ours to keep: of each kind what expires soonest may go, of those that expire together the largest.
        let soonest = kinds(among).flat_map(|kind| self.expiry.soonest(kind).take(AT_ONE_TIME));
        let entries = soonest.filter_map(|id| self.entries.get_key_value(self.by_id.get(id)?));
        let first =
            entries.map(|(spot, entry)| (spot, judge.worth_in_range(entry))).max_by_key(|(_, worth)| *worth);
        first.map(|(spot, worth)| (spot.clone(), worth))
    }

    /// Of the furthest key of each kind the furthest one to which enough others are closer.
    fn furthest_beyond(&self, judge: &mut Judge<'_>, among: Option<usize>) -> Option<Distance> {
        let mut furthest: Vec<Distance> = kinds(among).filter_map(|kind| self.keys.furthest(kind)).collect();
        furthest.sort_unstable();
        let mut from_afar = furthest.into_iter().rev();
        from_afar
            .find_map(|distance| self.at(distance).next().and_then(|(spot, entry)| judge.beyond(spot, entry)))
    }
}

/// All namespaces, or the one.
fn kinds(among: Option<usize>) -> impl Iterator<Item = usize> {
    (0..NAMESPACES).filter(move |kind| among.is_none_or(|among| *kind == among))
}

/// What decides which record goes.
struct Judge<'a> {
    now: Now,
    near: &'a dyn Near,
    records: &'a Records,
    /// Kinds that take more than an equal part of the store.
    crowded: [bool; NAMESPACES],
    /// Keys that were asked about, by distance, and whether enough others are closer. A key's name tells its kind, so that it is the same for all that stand there, however many.
    has_closer: BTreeMap<Distance, bool>,
}

/// How soon a record goes: the greatest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worthless {
    /// Its distance, where enough others are closer.
    beyond: Option<Distance>,
    /// Its kind takes more than an equal part.
    crowded: bool,
    /// Greater the less of its kind's longest life it has before it.
    soon: u64,
    bytes: usize,
}

impl Judge<'_> {
    /// Of a record that is ours to keep.
    fn worth_in_range(&self, entry: &Entry) -> Worthless {
        let config = self.records.config();
        let longest = entry.kind().map_or(config.foreign.max_ttl, |kind| config.of(kind).max_ttl);
        let left = entry.expires.saturating_sub(self.now.unix.as_secs());
        let share = (u128::from(left) << 32) / u128::from(longest.as_secs().max(1));
        Worthless {
            beyond: None,
            crowded: self.crowded[namespace(entry.kind())],
            soon: u64::MAX - u64::try_from(share).unwrap_or(u64::MAX),
            bytes: entry.bytes(),
        }
    }

    /// The distance of a record, where enough others are closer to its key.
    fn beyond(&mut self, spot: &Spot, entry: &Entry) -> Option<Distance> {
        let has_closer = self.has_closer.entry(spot.0).or_insert_with(|| {
            let replicas = self.records.keeping(entry.target.name()).map_or(0, |limits| limits.replicas);
            self.near.closer(entry.target.key(), replicas) >= replicas
        });
        has_closer.then_some(spot.0)
    }
}

/// Of records that expire in the same second so many are compared by their size.
const AT_ONE_TIME: usize = 256;
