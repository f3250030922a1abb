//! Records that have just come: who else should have them is asked by name, soon, instead of with the next comparison, which may be most of an hour away.
//!
//! A name and its answer cost a tenth of a comparison. All that has come within [`SPREAD`] goes into one question to each neighbour, at a time drawn by lot, so that a record's holders do not
//! ask each other at once; what the budget has no room for waits for the comparison. Where the closest holder finds that one of them lacks it, it hands it over.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_machine::{Now, Random, TokenBucket};

use super::asking::{NAMES_AT_ONCE, Round};
use super::repair::{Repair, scope_of};
use super::{RepairMessage, ReplicationConfig, Scope};
use crate::record::{EntryId, Records};
use crate::{Contact, Key};

/// What has come is asked about after so long and up to as long again: those to whom its publisher sends it have it by then.
const SPREAD: Duration = Duration::from_secs(20);
/// A neighbour with which we compare within this time is not asked before.
const SOON: Duration = Duration::from_secs(60);

/// What has come of late.
#[derive(Debug)]
pub(super) struct Fresh {
    ids: BTreeSet<EntryId>,
    /// When the neighbours are asked about it.
    pub(super) due: Option<Duration>,
    /// How many names that may take.
    budget: TokenBucket,
}

impl Fresh {
    pub(super) fn new(config: &ReplicationConfig, now: Now) -> Self {
        let budget = TokenBucket::new(config.fresh_burst, config.fresh_per_second, now);
        Self { ids: BTreeSet::new(), due: None, budget }
    }

    fn note(&mut self, now: Now, came: impl Iterator<Item = EntryId>, most: usize, random: &mut Random) {
        let room = most.saturating_sub(self.ids.len());
        self.ids.extend(came.take(room));
        if self.due.is_none() && !self.ids.is_empty() {
            self.due = Some(now.mono + SPREAD + random.up_to(SPREAD));
        }
    }
}

impl Repair {
    /// The questions about what has come of late, when it is time.
    pub(super) fn ask_about_fresh(
        &mut self,
        now: Now,
        records: &Records,
        random: &mut Random,
    ) -> Vec<(u64, Contact, RepairMessage)> {
        let came = self.index.take_came();
        self.fresh.note(now, came.into_iter(), self.config.max_hand_over, random);
        if self.fresh.due.is_none_or(|due| due > now.mono) {
            return Vec::new();
        }
        self.fresh.due = None;
        let ids = std::mem::take(&mut self.fresh.ids);
        let mut neighbours: Vec<Key> = self.pairs.keys().copied().collect();
        // Where not all can be asked chance decides who is.
        random.shuffle(&mut neighbours);
        let mut asks = Vec::new();
        for key in neighbours {
            let mut have = self.unheard_of(now, records, &key, &ids);
            // Each name costs as much as the next one: a newcomer that is handed a thousand records asks about as few as others do.
            have.truncate(self.fresh.budget.available(now).max(0.0) as usize);
            if have.is_empty() {
                continue;
            }
            self.fresh.budget.charge(have.len() as f64, now);
            self.next_token += 1;
            let Some(pair) = self.pairs.get_mut(&key) else { continue };
            let scope = scope_of(records).and(Scope::RAW);
            pair.round = Some(Round::named(now, self.next_token, scope, have.clone()));
            let contact = pair.contact.clone();
            let message = RepairMessage { have, scope, ..RepairMessage::at(now.unix.as_secs()) };
            asks.push(self.counted(self.next_token, contact, message));
        }
        asks
    }

    /// Those that a neighbour should have too, while nothing says yet whether it does.
    fn unheard_of(&self, now: Now, records: &Records, peer: &Key, ids: &BTreeSet<EntryId>) -> Vec<EntryId> {
        let pair = self.pairs.get(peer).filter(|pair| pair.round.is_none() && pair.due > now.mono + SOON);
        let Some((pair, view)) = pair.zip(self.view(now, peer, scope_of(records))) else { return Vec::new() };
        let held = ids.iter().filter_map(|id| self.index.get(id));
        let unheard = held.filter(|held| held.is_common(view) && pair.is_before(held));
        unheard.map(|held| held.item.id).take(NAMES_AT_ONCE).collect()
    }
}
