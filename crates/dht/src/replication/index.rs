//! Which of our records which neighbour should have too: kept up to date change by change, so that a question costs one look at each record that it is about.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Now;

use super::digest::{Scope, hash_of, proved_hash, raw_hash, short};
use super::message::Item;
use super::{Digest, Prefix};
use crate::record::{EntryId, Records};
use crate::store::{Kept, Store, What};
use crate::{Contact, Distance, Key};

/// The bit for us among a record's holders.
pub(super) const US: u64 = 1 << 63;
/// Neighbours that have a bit each.
pub(super) const MOST_NEIGHBOURS: usize = 63;

/// So many that have come are noted.
const MOST_CAME: usize = 1024;

/// The records that we have, by their names, each with those who should hold it.
#[derive(Debug, Default)]
pub(super) struct Index {
    held: BTreeMap<EntryId, Held>,
    /// Their names, by as much of their hashes as lists hold.
    by_hash: BTreeMap<u64, EntryId>,
    /// So many of them are more than what digests of earlier versions count.
    special: usize,
    /// Records that have come, or have another content, since somebody took note of it; at most [`MOST_CAME`].
    came: Vec<EntryId>,
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
    /// Its hash where proofs are reckoned in, for as long as there stands one beside it, in seconds since 1970.
    proved: Option<(u128, u64)>,
    /// It is a value of a validator's namespace.
    pub(super) raw: bool,
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

/// How our records are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) side: Side,
    pub(super) scope: Scope,
    /// When, in seconds since 1970.
    pub(super) unix: u64,
}

/// With whose eyes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
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
                    let known = self.forget(&id);
                    if let Some(kept) = store.kept(records, &id) {
                        self.place(now, records, own, neighbours, &kept, known);
                    }
                }
            }
            None => {
                let mut before = std::mem::take(&mut self.held);
                self.by_hash.clear();
                self.special = 0;
                for kept in store.all_kept(records) {
                    let known = before.remove(&kept.id);
                    self.place(now, records, own, neighbours, &kept, known);
                }
            }
        }
        self.generation = Some(generation);
    }

    fn forget(&mut self, id: &EntryId) -> Option<Held> {
        let held = self.held.remove(id)?;
        for hash in held.hashes() {
            self.by_hash.remove(&hash);
        }
        self.special -= usize::from(held.is_special());
        Some(held)
    }

    fn place(
        &mut self,
        now: Now,
        records: &Records,
        own: &Key,
        neighbours: &[Contact],
        kept: &Kept<'_>,
        known: Option<Held>,
    ) {
        self.placed += 1;
        let (id, key) = (kept.id, *kept.target.key());
        let (item, hash, proved, replicas) = match kept.what {
            What::Record { kind, version, proved, .. } => {
                let item = Item::of(id, version);
                // A record of the same rank is the same one: its hash is known.
                // What was there at the start is compared at the start.
                let is_new =
                    known.is_none_or(|known| (known.item.seq, known.item.hash) != (item.seq, item.hash));
                if is_new && self.generation.is_some() && self.came.len() < MOST_CAME {
                    self.came.push(id);
                }
                let same = known.filter(|known| known.item == item);
                let hash = same.map_or_else(|| hash_of(&id, version), |known| known.hash);
                let proved = proved.map(|until| (proved_hash(&id, version), until));
                (item, hash, proved, records.config().of(kind).replicas)
            }
            What::Raw { rank } => {
                let hash = raw_hash(&id, rank);
                (Item::of_raw(id, rank, short(hash)), hash, None, records.config().foreign.replicas)
            }
        };
        let same = known.filter(|known| (known.item.seq, known.item.hash) == (item.seq, item.hash));
        let since = same.map_or(now.mono, |known| known.since);
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
        let held = Held {
            key,
            item,
            hash,
            proved,
            raw: matches!(kept.what, What::Raw { .. }),
            since,
            holders,
            edge,
            replicas: replicas.min(255) as u8,
            rank: rank.min(254) as u8,
        };
        self.by_hash.extend(held.hashes().map(|hash| (hash, id)));
        self.special += usize::from(held.is_special());
        self.held.insert(id, held);
    }

    /// The records that have come since the last call.
    pub(super) fn take_came(&mut self) -> Vec<EntryId> {
        std::mem::take(&mut self.came)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether digests of earlier versions say all that there is to say.
    pub(super) fn is_plain(&self) -> bool {
        self.special == 0
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
                let hash = held.hash_in(view);
                survey.whole.add(hash);
                if let Some(part) = prefix.part_with(id).and_then(|part| survey.parts.get_mut(part)) {
                    part.add(hash);
                }
            }
        }
        survey
    }
}

impl Held {
    /// Its hash as both sides reckon it.
    pub(super) fn hash_in(&self, view: View) -> u128 {
        let proved = self.proved.filter(|(_, until)| view.scope.has(Scope::PROOFS) && *until > view.unix);
        proved.map_or(self.hash, |(hash, _)| hash)
    }

    /// Its hashes in lists, whatever is reckoned in.
    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> {
        [Some(self.hash), self.proved.map(|(hash, _)| hash)].into_iter().flatten().map(short)
    }

    fn is_special(&self) -> bool {
        self.raw || self.proved.is_some()
    }

    /// Whether both we and the other side should have it.
    pub(super) fn is_common(&self, view: View) -> bool {
        (!self.raw || view.scope.has(Scope::RAW)) && self.is_shared(view.side)
    }

    fn is_shared(&self, side: Side) -> bool {
        match side {
            Side::Neighbour(bit) => self.holders & US != 0 && self.holders >> bit & 1 == 1,
            Side::Guest { peer, own } => {
                let theirs = self.key.distance(&peer);
                // With it, one more may be closer than we are.
                let rank = self.rank + u8::from(theirs < self.key.distance(&own));
                theirs < self.edge && rank < self.replicas
            }
        }
    }
}
