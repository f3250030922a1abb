//! Which of our records which neighbour should have too: kept up to date change by change, so that a question costs one look at each record that it is about.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Now;

use super::digest::{hash_of, short};
use super::message::Item;
use super::{Digest, Prefix};
use crate::record::{EntryId, Records};
use crate::store::{Store, Summary};
use crate::{Contact, Distance, Key};

/// The bit for us among a record's holders.
pub(super) const US: u64 = 1 << 63;
/// Neighbours that have a bit each.
pub(super) const MOST_NEIGHBOURS: usize = 63;

/// The records that we have, by their names, each with those who should hold it.
#[derive(Debug, Default)]
pub(super) struct Index {
    held: BTreeMap<EntryId, Held>,
    /// Their names, by as much of their hashes as lists hold.
    by_hash: BTreeMap<u64, EntryId>,
    /// Of which neighbours' generation it is; `None` before the first time.
    generation: Option<u64>,
    /// Records for which it was worked out who should hold them, since the start.
    pub(super) placed: u64,
}

/// A record with those who should hold it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) key: Key,
    pub(super) item: Item,
    pub(super) hash: u128,
    /// Since when we have this content, as [`Now::mono`]; a longer life is the same content.
    pub(super) since: Duration,
    /// A bit for each neighbour, and the last one for us.
    pub(super) holders: u64,
    /// How far the last of its replicas lies: whoever is closer, and isn't counted yet, would be a holder.
    edge: Distance,
    pub(super) replicas: u8,
    /// So many neighbours are closer to it than we are.
    pub(super) rank: u8,
}

/// With whose eyes our records are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum View {
    /// A neighbour's, by its bit: the records that both it and we should have.
    Neighbour(u32),
    /// Somebody's whom we don't count among our neighbours: the records that it would hold beside us.
    Guest {
        /// Where it lies.
        peer: Key,
        /// Where we lie.
        own: Key,
    },
}

/// What of a part of the records both sides should have: all of it, and each of its parts, in one look at every record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Survey {
    pub(super) whole: Digest,
    pub(super) parts: [Digest; Prefix::PARTS],
    /// Records that were looked at.
    pub(super) looks: usize,
}

impl Index {
    /// Takes in what has changed in the store since the last time, and all of it anew when the neighbours are others.
    pub(super) fn refresh(
        &mut self,
        now: Now,
        records: &Records,
        store: &mut Store,
        own: &Key,
        neighbours: &[Contact],
        generation: u64,
    ) {
        let changed = store.take_changed();
        match changed.filter(|_| self.generation == Some(generation)) {
            Some(changed) => {
                for id in changed {
                    let known = self.held.remove(&id);
                    if let Some(known) = &known {
                        self.by_hash.remove(&short(known.hash));
                    }
                    if let Some(summary) = store.summary(&id) {
                        self.place(now, records, own, neighbours, &summary, known);
                    }
                }
            }
            None => {
                let mut before = std::mem::take(&mut self.held);
                self.by_hash.clear();
                for summary in store.all() {
                    let known = before.remove(&summary.id);
                    self.place(now, records, own, neighbours, &summary, known);
                }
            }
        }
        self.generation = Some(generation);
    }

    fn place(
        &mut self,
        now: Now,
        records: &Records,
        own: &Key,
        neighbours: &[Contact],
        summary: &Summary<'_>,
        known: Option<Held>,
    ) {
        self.placed += 1;
        let key = *summary.target.key();
        let item = Item::of(summary.id, summary.version);
        // A record of the same rank is the same one: its hash is known.
        let hash = known
            .filter(|known| known.item == item)
            .map_or_else(|| hash_of(&summary.id, summary.version), |known| known.hash);
        let same = known.filter(|known| (known.item.seq, known.item.hash) == (item.seq, item.hash));
        let since = same.map_or(now.mono, |known| known.since);
        let replicas = records.config().of(summary.kind).replicas;
        let ours = key.distance(own);
        let mut order: Vec<(Distance, u64)> = neighbours
            .iter()
            .enumerate()
            .map(|(bit, contact)| (key.distance(contact.key()), 1 << bit))
            .chain([(ours, US)])
            .collect();
        let rank = order.iter().filter(|(distance, _)| *distance < ours).count();
        let mut edge = Distance::MAX;
        if let Some(last) = replicas.checked_sub(1).filter(|last| *last < order.len()) {
            let (_, (distance, _), _) = order.select_nth_unstable(last);
            edge = *distance;
            order.truncate(replicas);
        }
        let holders = order.iter().fold(0, |mask, (_, bit)| mask | bit);
        self.by_hash.insert(short(hash), summary.id);
        self.held.insert(
            summary.id,
            Held {
                key,
                item,
                hash,
                since,
                holders,
                edge,
                replicas: replicas.min(255) as u8,
                rank: rank.min(254) as u8,
            },
        );
    }

    pub(super) fn get(&self, id: &EntryId) -> Option<&Held> {
        self.held.get(id)
    }

    /// The record of which a list holds this.
    pub(super) fn by_hash(&self, hash: u64) -> Option<&Held> {
        self.by_hash.get(&hash).and_then(|id| self.held.get(id))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// The records of a part.
    pub(super) fn part(&self, prefix: Prefix) -> impl Iterator<Item = &Held> {
        self.held.range(prefix.ids()).map(|(_, held)| held)
    }

    /// The records of a part that both we and the other side should have.
    pub(super) fn common(&self, view: View, prefix: Prefix) -> impl Iterator<Item = &Held> {
        self.part(prefix).filter(move |held| held.is_common(view))
    }

    /// A part of the records as both sides should have it.
    pub(super) fn survey(&self, view: View, prefix: Prefix) -> Survey {
        let mut survey = Survey::default();
        for (id, held) in self.held.range(prefix.ids()) {
            survey.looks += 1;
            if held.is_common(view) {
                survey.whole.add(held.hash);
                if let Some(part) = prefix.part_with(id).and_then(|part| survey.parts.get_mut(part)) {
                    part.add(held.hash);
                }
            }
        }
        survey
    }
}

impl Held {
    /// Whether both we and the other side should have it.
    pub(super) fn is_common(&self, view: View) -> bool {
        match view {
            View::Neighbour(bit) => self.holders & US != 0 && self.holders >> bit & 1 == 1,
            View::Guest { peer, own } => {
                let theirs = self.key.distance(&peer);
                // With it, one more may be closer than we are.
                let rank = self.rank + u8::from(theirs < self.key.distance(&own));
                theirs < self.edge && rank < self.replicas
            }
        }
    }
}
