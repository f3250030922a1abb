//! Places that look too dense or too sparse to be honest: how that is noticed, and what a lookup and a store do about it (dht.md B.6).

use peerage_machine::Now;

use super::operation::{Aim, Op};
use super::upkeep::target_near;
use super::{Class, Dht, Ended, Event, Options, Output};
use crate::Contact;
use crate::estimate::radius;
use crate::lookup::Goal;

/// Who has something to lose looks around where a place is dense by this factor less than what is told of: below 11.25 lies one honest lookup in a hundred, for k = 20.
const WARY: f64 = 1.5;

impl Dht {
    /// Whether a neighbourhood looks too dense to be honest; then it is looked at from several sides before the operation ends.
    pub(super) fn test_density(&mut self, now: Now, operation: u64) -> bool {
        let Some(op) = self.operations.get_mut(&operation) else { return false };
        let config = &self.config.lookup;
        let guarded = matches!(op.aim, Aim::Caller(_) | Aim::Replica(..)) && !op.wary;
        let (true, Some(size), Some(kth)) = (guarded, op.lookup.size(), op.lookup.kth()) else {
            return false;
        };
        let score = size * kth.share();
        // A store, and whoever looks for a value and has found none, had rather look once too often: it costs one honest place in a hundred some requests, and nobody is told.
        let lacks = op.store.is_some() || op.lookup.needs_value() && op.lookup.harvest.found() == 0;
        let most = config.dense * if lacks { WARY } else { 1.0 };
        if score >= most || size < 4.0 * self.config.table.k as f64 {
            return false;
        }
        self.alarm(now, operation, score);
        true
    }

    /// Whether the closest that answered lie too far apart to be the closest that there are: then the lookup goes on without them, while half of its time and of its requests are left.
    pub(super) fn test_sparsity(&mut self, now: Now, operation: u64) -> bool {
        let size = self.largest_size(now);
        let Some(op) = self.operations.get(&operation) else { return false };
        let guarded = match op.aim {
            Aim::Caller(_) | Aim::Replica(..) | Aim::Provided(_) => true,
            // What measures the network must not be led astray itself.
            Aim::Refresh => self.upkeep.is_led(),
            _ => false,
        };
        let (true, Some(size), Some(kth)) = (guarded, size, op.lookup.kth().map(|kth| kth.share())) else {
            return false;
        };
        // Where many are silent the network has lost them, and nobody leads us anywhere: who does answers.
        let is_sparse = size * kth > self.config.lookup.sparse && !op.lookup.met_silence();
        // Who has a value from those of whom it would hear less has no need to look further.
        let has_enough = matches!(op.lookup.goal(), Goal::Value(_)) && op.lookup.harvest.borne_out() > 0;
        let half = op.lookup.started() + op.deadline.saturating_sub(op.lookup.started()) / 2;
        let goes_on = is_sparse
            && !has_enough
            && op.escapes < self.config.lookup.escapes
            && now.mono < half
            && !op.lookup.is_long()
            && self.upkeep.may_escape(now);
        if goes_on && self.escape(now, operation, kth) {
            return true;
        }
        let before = self.operations.get_mut(&operation).and_then(|op| op.sparse.take());
        if let Some(before) = before {
            self.upkeep.escaped(now, kth < before / 2.0);
        }
        false
    }

    /// Goes on without the closest, with more of whom we know: those near the target may be his too who leads us astray, and others may lead elsewhere.
    fn escape(&mut self, now: Now, operation: u64, kth: f64) -> bool {
        let Some(op) = self.operations.get(&operation) else { return false };
        let (target, many) = (*op.lookup.target().key(), (2 + op.escapes) * self.config.table.k);
        let first = self.upkeep.known().iter().map(|contact| self.hint_of(contact.clone()));
        let others: Vec<_> = first.chain(self.seeds(now, &target, many, false)).collect();
        let Some(op) = self.operations.get_mut(&operation) else { return false };
        op.escapes += 1;
        op.sparse.get_or_insert(kth);
        if op.store.is_some() {
            // What is left is for the copies.
            op.lookup.end_by(now.mono + op.deadline.saturating_sub(now.mono) / 2);
        }
        op.lookup.escape(others)
    }

    /// The place is too dense to be honest: whoever wants it is told, and its neighbourhood is looked at from several sides.
    fn alarm(&mut self, now: Now, operation: u64, score: f64) {
        let config = &self.config.lookup;
        let Some(op) = self.operations.get_mut(&operation) else { return };
        let Some(size) = op.lookup.size() else { return };
        let region = radius(config.region * self.config.table.k as f64, size);
        op.wary = true;
        // A get asks all of the region. A store need not: copies go to those of it whom the lookups of places in it come upon, and these find places, which the honest fill
        // evenly, where a crowd of strangers fills one of them. Together they look for half as many again as an honest region has, as they come upon some twice.
        let few =
            (1.5 * config.region * self.config.table.k as f64 / config.region_lookups.max(1) as f64).ceil();
        let few = op.store.is_some().then_some(few as usize);
        if few.is_none() {
            op.lookup.widen(region, 4.min(config.most_paths));
        }
        let target = op.lookup.target().clone();
        if score < config.dense {
            op.dense = true;
            self.outputs.push_back(Output::Event(Event::Dense { target, score }));
        }
        for _ in 0..self.config.lookup.region_lookups {
            self.cover_place(now, operation, few);
        }
    }

    /// Before a caller's value is stored, one place near its key is looked at as well: who crowds around a key may leave the closest few as they would be without him, but
    /// hardly the whole region.
    pub(super) fn glance(&mut self, now: Now, operation: u64) {
        let Some(op) = self.operations.get(&operation) else { return };
        let known = op.lookup.size().is_some_and(|size| size >= 4.0 * self.config.table.k as f64);
        if matches!(op.aim, Aim::Caller(_)) && known && !op.wary && self.config.lookup.region_lookups > 0 {
            self.cover_place(now, operation, Some(self.config.table.k));
        }
    }

    /// Looks up a place of the region for an operation. `few`: so many peers of it are enough, and nobody is in a hurry.
    fn cover_place(&mut self, now: Now, operation: u64, few: Option<usize>) {
        let config = &self.config.lookup;
        let Some(op) = self.operations.get(&operation) else { return };
        let Some(size) = op.lookup.size() else { return };
        let region = radius(config.region * self.config.table.k as f64, size);
        let class = if few.is_some() { Class::Frugal } else { op.class };
        let options = Options { class, alpha: op.alpha, ..Options::default() };
        let near: Vec<Contact> =
            op.lookup.candidates().filter(|one| one.counts()).map(|one| one.contact.clone()).collect();
        let key = *op.lookup.target().key();
        let Some(nearby) = target_near(&mut self.random, &key, region) else { return };
        let cover = self.create(now, Aim::Cover(operation), nearby, Goal::Closest, None, options);
        let Some(cover) = cover else { return };
        let hints: Vec<_> = near.into_iter().map(|contact| self.hint_of(contact)).collect();
        if let (Some(few), Some(cover)) = (few, self.operations.get_mut(&cover)) {
            cover.lookup.look_for(few);
            cover.lookup.seed(hints);
        }
        if let Some(op) = self.operations.get_mut(&operation) {
            op.covering += 1;
        }
        self.drive(now, cover);
    }

    /// Ends the lookups that were begun for this operation: they are of no use any more.
    pub(super) fn end_covers(&mut self, now: Now, operation: u64) {
        let Some(op) = self.operations.get_mut(&operation).filter(|op| op.covering > 0) else { return };
        op.ending = true;
        let covers = self.operations.iter().filter(|(_, other)| other.aim == Aim::Cover(operation));
        let covers: Vec<u64> = covers.map(|(cover, _)| *cover).collect();
        for cover in covers {
            self.finish(now, cover, Ended::Cancelled);
        }
    }

    /// A lookup of its neighbourhood has ended: those whom it found are candidates. If it was the first and its place is too dense, there will be others.
    pub(super) fn covered(&mut self, now: Now, parent: u64, cover: &Op) {
        let found: Vec<_> = cover.lookup.closest().map(|c| self.hint_of(c.contact.clone())).collect();
        let k = self.config.table.k;
        let score = cover.lookup.size().zip(cover.lookup.kth()).map(|(size, kth)| size * kth.share());
        let score =
            score.filter(|score| *score < WARY * self.config.lookup.dense && cover.lookup.wanted() == k);
        let Some(op) = self.operations.get_mut(&parent) else { return };
        op.covering = op.covering.saturating_sub(1);
        op.around += cover.lookup.counts.asked;
        if op.ending {
            return;
        }
        if let Some(store) = op.store.as_mut() {
            store.came_upon(found.iter().take(cover.lookup.wanted()).map(|(contact, _)| contact));
        }
        match (op.walked, score) {
            (Some(Ended::Complete), Some(score)) if !op.wary => self.alarm(now, parent, score),
            (None, _) => op.lookup.seed(found),
            _ => {}
        }
        if self.operations.get(&parent).is_some_and(|op| op.walked.is_some() && op.store.is_some()) {
            self.fill_region(parent);
        }
        self.drive(now, parent);
    }
}
