//! The routing table (dht.md B.1): who is known, by how many leading bits its key shares with ours.
//!
//! Only peers that answered a request of ours from an address that they advertise stand in it; what others say of a peer never changes its entry. A
//! bucket that is full keeps whom it has: newcomers wait in its replacement cache. The last two buckets hold up to [`TableConfig::siblings`] peers, so that
//! a node knows its whole neighbourhood.

mod check;
mod entry;
mod shock;

use peerage_machine::Now;

use crate::{Contact, Key, Subnet, TableConfig};
pub use entry::Health;
pub(crate) use entry::{Entry, Lifetimes};
use shock::Shock;

/// The routing table of one node.
#[derive(Debug)]
pub struct Table {
    own: Key,
    config: TableConfig,
    /// By shared bits; the last one holds all that share at least as many.
    buckets: Vec<Bucket>,
    pub(crate) lifetimes: Lifetimes,
    shock: Shock,
    /// No entry is due for a probe before this second.
    next_due: u32,
    /// Evictions and quarantines wait: our own network is suspected.
    frozen: bool,
}

#[derive(Debug, Default)]
struct Bucket {
    entries: Vec<Entry>,
    /// Who waits, the most recently seen last.
    waiting: Vec<Waiting>,
}

/// A peer that waits for a place.
#[derive(Debug, Clone)]
struct Waiting {
    contact: Contact,
    /// It was verified when the bucket was full; it is probed again before it is promoted all the same.
    verified: bool,
}

/// What became of a peer that was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It has a new entry.
    Added,
    /// It had one, which was brought up to date.
    Known,
    /// Its bucket is full of peers that are preferred; it waits.
    Waits,
    /// Too many of its subnet stand in the bucket or in the table.
    SubnetFull,
    /// It is us.
    Ourselves,
}

impl Table {
    /// The empty table of the node that lies at `own`.
    pub fn new(own: Key, config: TableConfig) -> Self {
        let lifetimes = Lifetimes::new(config.lifetime_shape, config.lifetime_scale);
        Self {
            own,
            config,
            buckets: vec![Bucket::default()],
            lifetimes,
            shock: Shock::default(),
            next_due: u32::MAX,
            frozen: false,
        }
    }

    /// How many peers stand in it.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.entries.len()).sum()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.entries.is_empty())
    }

    /// How many peers may be asked and named.
    pub fn usable(&self) -> usize {
        self.entries().filter(|entry| entry.is_usable()).count()
    }

    /// Whether anybody in it has answered after this second of the node's life.
    pub(crate) fn has_answered_after(&self, second: u32) -> bool {
        self.entries().any(|entry| entry.answered > second)
    }

    /// The peers closest to `target` that may be asked and named, the closest first.
    pub fn closest(&self, target: &Key, count: usize) -> Vec<Contact> {
        self.closest_entries(target, count).into_iter().map(|entry| entry.contact.clone()).collect()
    }

    pub(crate) fn closest_entries(&self, target: &Key, count: usize) -> Vec<&Entry> {
        // Buckets by their distance from the target need no sorting among each other: the target's own one first, then the deeper ones, which are
        // as far as each other's prefix says, then the shallower ones from the deepest to the first.
        let home = (self.own.shared_bits(target) as usize).min(self.buckets.len() - 1);
        let mut found: Vec<&Entry> = Vec::with_capacity(count + self.config.siblings);
        let usable = |bucket: usize| self.buckets[bucket].entries.iter().filter(|entry| entry.is_usable());
        found.extend(usable(home));
        if found.len() < count {
            (home + 1..self.buckets.len()).for_each(|bucket| found.extend(usable(bucket)));
        }
        for bucket in (0..home).rev() {
            if found.len() >= count {
                break;
            }
            found.extend(usable(bucket));
        }
        found.sort_by_cached_key(|entry| entry.contact.key().distance(target));
        found.truncate(count);
        found
    }

    /// Everybody in the table, in a fixed order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.entries)
    }

    /// Whether a peer stands in it and may be asked and named.
    pub fn names(&self, key: &Key) -> bool {
        self.get(key).is_some_and(Entry::is_usable)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.buckets[self.index(key)].entries.iter().find(|entry| entry.contact.key() == key)
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        let index = self.index(key);
        self.buckets[index].entries.iter_mut().find(|entry| entry.contact.key() == key)
    }

    /// Whether a peer that shares so many bits would find a place if it were verified: then asking it is worth a request.
    pub(crate) fn has_room_for(&self, contact: &Contact) -> bool {
        let index = self.index(contact.key());
        let full = self.buckets[index].entries.len() >= self.capacity(index);
        // The cheap question first: nearly all whom answers name lie in full buckets.
        (!full || self.splits(index))
            && contact.key() != &self.own
            && self.get(contact.key()).is_none()
            && contact.subnets().all(|subnet| self.subnet_has_room(index, subnet))
    }

    /// Takes in a peer that has just answered us from `subnet`.
    pub(crate) fn verified(&mut self, now: Now, contact: &Contact, subnet: Option<Subnet>) -> Admission {
        if contact.key() == &self.own {
            return Admission::Ourselves;
        }
        let second = seconds(now);
        if let Some(before) = self.get(contact.key()).map(|entry| entry.subnet) {
            return self.verified_again(contact, before, subnet.or(before));
        }
        let mut index = self.index(contact.key());
        if subnet.is_some_and(|subnet| !self.make_subnet_room(index, subnet)) {
            return Admission::SubnetFull;
        }
        while self.buckets[index].entries.len() >= self.capacity(index) && self.splits(index) {
            self.split();
            index = self.index(contact.key());
        }
        if self.buckets[index].entries.len() >= self.capacity(index)
            && !self.make_room(index, contact, second)
        {
            self.wait(contact, true);
            return Admission::Waits;
        }
        let bucket = &mut self.buckets[index];
        bucket.waiting.retain(|waiting| waiting.contact.key() != contact.key());
        // Room for a few at a time: doubling would leave a third of the table's memory empty.
        bucket.entries.reserve_exact(usize::from(bucket.entries.len() == bucket.entries.capacity()) * 4);
        bucket.entries.push(Entry::new(contact.clone(), subnet, second));
        self.schedule(contact.key(), second);
        Admission::Added
    }

    /// An entry has answered once more, perhaps from another subnet. Where there is no room for one more of that, it counts where it was before if it says that it is there still;
    /// otherwise it gives its place up: nobody comes in from many subnets and gathers in one.
    fn verified_again(
        &mut self,
        contact: &Contact,
        before: Option<Subnet>,
        subnet: Option<Subnet>,
    ) -> Admission {
        let index = self.index(contact.key());
        let moved = subnet.filter(|_| subnet != before);
        let crowded = moved.is_some_and(|subnet| !self.make_subnet_room(index, subnet));
        if crowded && !contact.subnets().any(|stated| Some(stated) == before) {
            self.buckets[index].entries.retain(|entry| entry.contact.key() != contact.key());
            return Admission::SubnetFull;
        }
        if let Some(entry) = self.get_mut(contact.key()) {
            entry.contact = contact.clone();
            entry.subnet = if crowded { before } else { subnet };
        }
        Admission::Known
    }

    /// A peer is one of ours, whatever it has answered.
    pub(crate) fn is_extended(&mut self, key: &Key) {
        if let Some(entry) = self.get_mut(key) {
            entry.extended = true;
        }
    }

    /// A request to the peer was answered.
    pub(crate) fn answered(
        &mut self,
        now: Now,
        key: &Key,
        rtt: impl Into<Option<std::time::Duration>>,
        extended: bool,
    ) {
        let second = seconds(now);
        self.look(second, key, false);
        let Some(entry) = self.get_mut(key) else { return };
        let (uptime, before) = (entry.uptime(), entry.answered);
        if let Some(rtt) = rtt.into() {
            entry.rtt.add(rtt);
        }
        entry.answered = second;
        entry.success += (1.0 - entry.success) / 8.0;
        entry.failures = 0;
        entry.quarantines = 0;
        entry.probing = false;
        entry.extended = extended;
        if !self.shock.explains(before) {
            self.lifetimes.learn(uptime, second.saturating_sub(before), false);
        }
        self.schedule(key, second);
    }

    /// A request to the peer came to nothing by its own or its network's fault. `true` when its place went to somebody who waits.
    pub(crate) fn failed(&mut self, now: Now, key: &Key) -> bool {
        let second = seconds(now);
        let frozen = self.frozen;
        let (first, most) = (self.config.quarantine_first.as_secs(), self.config.quarantine_most.as_secs());
        if !frozen {
            self.look(second, key, true);
        }
        let Some(entry) = self.get_mut(key) else { return false };
        entry.probing = false;
        entry.failed = second;
        entry.success -= entry.success / 8.0;
        if frozen || entry.failures == 0 {
            // While our own network is suspected nobody gets beyond the first miss. A second look is soon due.
            entry.failures = entry.failures.max(1);
            entry.due = second.saturating_add(if frozen { 30 } else { 5 });
            let due = entry.due;
            self.next_due = self.next_due.min(due);
            return false;
        }
        let newly = entry.failures == 1;
        entry.failures = entry.failures.saturating_add(1);
        let wait = (first << entry.quarantines.min(20)).min(most) as u32;
        entry.quarantines = entry.quarantines.saturating_add(1);
        entry.due = second.saturating_add(wait);
        let (due, uptime, before) = (entry.due, entry.uptime(), entry.answered);
        self.next_due = self.next_due.min(due);
        if newly && !self.shock.explains(before) {
            self.lifetimes.learn(uptime, second.saturating_sub(before), true);
        }
        self.replace(key)
    }

    /// The peer doesn't serve the protocol any more: it leaves at once.
    pub(crate) fn remove(&mut self, key: &Key) {
        let index = self.index(key);
        let bucket = &mut self.buckets[index];
        bucket.entries.retain(|entry| entry.contact.key() != key);
        bucket.waiting.retain(|waiting| waiting.contact.key() != key);
    }

    /// Somebody heard of who may be worth a place later. It is asked before it gets one.
    pub(crate) fn heard(&mut self, contact: &Contact) {
        if contact.key() != &self.own && self.get(contact.key()).is_none() {
            self.wait(contact, false);
        }
    }

    /// Whether evictions and quarantines wait, because our own network is suspected.
    pub(crate) fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// After an outage that began at `since`, in seconds of the node's life, nobody is to blame for what it has not answered from then on: who was suspected or shut
    /// out meanwhile is looked at again. Who was found dead before stays so.
    pub(crate) fn pardon(&mut self, now: Now, since: u32) {
        let second = seconds(now);
        for entry in self.buckets.iter_mut().flat_map(|bucket| &mut bucket.entries) {
            if entry.failures > 0 && entry.failed >= since {
                entry.failures = entry.failures.min(1);
                entry.quarantines = 0;
                entry.due = second;
            }
        }
        self.next_due = second;
    }

    /// When the next probe is due, in seconds of the node's life.
    pub(crate) fn next_due(&self) -> Option<u32> {
        (self.next_due != u32::MAX).then_some(self.next_due)
    }

    /// Somebody whom it is time to look at, the longest overdue first, and who is not being looked at: an entry, or one who waits while a place is free.
    pub(crate) fn probe(&mut self, now: Now) -> Option<Contact> {
        let second = seconds(now);
        if self.next_due > second {
            return None;
        }
        let entries =
            || self.buckets.iter().flat_map(|bucket| &bucket.entries).filter(|entry| !entry.probing);
        let due = entries().filter(|entry| entry.due <= second).min_by_key(|entry| entry.due);
        let Some(key) = due.map(|entry| *entry.contact.key()) else {
            self.next_due = entries().map(|entry| entry.due).min().unwrap_or(u32::MAX);
            return None;
        };
        let entry = self.get_mut(&key)?;
        entry.probing = true;
        entry.due = second.saturating_add(60);
        Some(entry.contact.clone())
    }

    /// Looks at a peer soon, whatever its age: somebody says that it doesn't answer.
    pub(crate) fn doubt(&mut self, now: Now, key: &Key) {
        let second = seconds(now);
        if self.may_doubt(now, key)
            && let Some(entry) = self.get_mut(key)
        {
            entry.due = second;
            self.next_due = self.next_due.min(second);
        }
    }

    /// Whether such a word changes anything: the peer stands here, has not just answered, and is not due for a look anyway.
    pub(crate) fn may_doubt(&self, now: Now, key: &Key) -> bool {
        let second = seconds(now);
        let old = |entry: &Entry| second.saturating_sub(entry.answered) >= 10 && entry.due > second;
        self.get(key).is_some_and(old)
    }

    /// A probe was not sent after all, or was given up without a verdict.
    pub(crate) fn unprobe(&mut self, key: &Key) {
        if let Some(entry) = self.get_mut(key) {
            entry.probing = false;
            let due = entry.due;
            self.next_due = self.next_due.min(due);
        }
    }

    /// One of those who wait for a place that is free, to be asked; it leaves the cache.
    pub(crate) fn promote(&mut self) -> Option<Contact> {
        for index in (0..self.buckets.len()).rev() {
            let capacity = self.capacity(index);
            let bucket = &mut self.buckets[index];
            let alive = bucket.entries.iter().filter(|entry| entry.is_usable()).count();
            if alive < capacity && !bucket.waiting.is_empty() {
                // Who was verified once comes before hearsay; among equals the one seen last.
                let verified = bucket.waiting.iter().rposition(|waiting| waiting.verified);
                let at = verified.unwrap_or(bucket.waiting.len() - 1);
                return Some(bucket.waiting.remove(at).contact);
            }
        }
        None
    }

    /// The peers nearest to us, at most [`TableConfig::siblings`], the nearest first.
    pub fn siblings(&self) -> Vec<Contact> {
        self.closest(&self.own, self.config.siblings)
    }

    /// Peers that have been there longest, each of another /16 or /32: worth remembering over a restart.
    pub fn anchors(&self) -> Vec<Contact> {
        let mut old: Vec<&Entry> = self.entries().filter(|entry| entry.is_usable()).collect();
        old.sort_by_key(|entry| (std::cmp::Reverse(entry.uptime()), *entry.contact.key()));
        let mut groups = Vec::new();
        let mut chosen = Vec::new();
        for entry in old {
            let group = entry.subnet.map(Subnet::group);
            if chosen.len() < self.config.anchors && group.is_none_or(|group| !groups.contains(&group)) {
                groups.extend(group);
                chosen.push(entry.contact.clone());
            }
        }
        chosen
    }

    /// Those who may be asked, one of each bucket, then a second one of each, and so on: those who have stood there longest first.
    pub(crate) fn spread(&self) -> Vec<Contact> {
        let buckets = self.buckets.iter().map(|bucket| {
            let mut old: Vec<&Entry> = bucket.entries.iter().filter(|entry| entry.is_usable()).collect();
            old.sort_by_key(|entry| (std::cmp::Reverse(entry.uptime()), *entry.contact.key()));
            old
        });
        let mut turns: Vec<(usize, &Entry)> = buckets.flat_map(|old| old.into_iter().enumerate()).collect();
        turns.sort_by_key(|(turn, _)| *turn);
        turns.into_iter().map(|(_, entry)| entry.contact.clone()).collect()
    }

    /// The buckets: how many stand in each, how many of them may be asked, how many wait.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.buckets.iter().map(|bucket| {
            let usable = bucket.entries.iter().filter(|entry| entry.is_usable()).count();
            (bucket.entries.len(), usable, bucket.waiting.len())
        })
    }

    /// Everybody in the table with its health.
    pub fn peers(&self) -> impl Iterator<Item = (&Contact, Health)> {
        self.entries().map(|entry| (&entry.contact, entry.health()))
    }

    /// Bytes that it takes, contacts included as if nobody shared them.
    pub fn memory(&self) -> usize {
        let bucket = |bucket: &Bucket| {
            let contacts = bucket.entries.iter().map(|entry| entry.contact.memory()).sum::<usize>();
            let waiting = bucket.waiting.iter().map(|waiting| waiting.contact.memory()).sum::<usize>();
            let own = bucket.entries.capacity() * size_of::<Entry>();
            contacts + waiting + own + bucket.waiting.capacity() * size_of::<Waiting>()
        };
        size_of::<Self>() + self.buckets.iter().map(|b| size_of::<Bucket>() + bucket(b)).sum::<usize>()
    }

    fn index(&self, key: &Key) -> usize {
        (self.own.shared_bits(key) as usize).min(self.buckets.len() - 1)
    }

    fn capacity(&self, index: usize) -> usize {
        match index + 2 >= self.buckets.len() {
            true => self.config.siblings.max(self.config.k),
            false => self.config.k,
        }
    }

    fn splits(&self, index: usize) -> bool {
        index + 1 == self.buckets.len() && self.buckets.len() < 256
    }

    /// Splits the last bucket; what the one before the last two then holds too much goes, the young ones first.
    fn split(&mut self) {
        let depth = self.buckets.len() - 1;
        let own = self.own;
        let deeper = |contact: &Contact| own.shared_bits(contact.key()) as usize > depth;
        let Some(last) = self.buckets.last_mut() else { return };
        let (far, near) = std::mem::take(&mut last.entries).into_iter().partition(|e| !deeper(&e.contact));
        let (wait_far, wait_near) =
            std::mem::take(&mut last.waiting).into_iter().partition(|w| !deeper(&w.contact));
        *last = Bucket { entries: far, waiting: wait_far };
        self.buckets.push(Bucket { entries: near, waiting: wait_near });
        if let Some(index) = self.buckets.len().checked_sub(3) {
            while self.buckets[index].entries.len() > self.config.k {
                let bucket = &mut self.buckets[index];
                let Some(at) = least_wanted(index, &bucket.entries) else { break };
                let dropped = bucket.entries.swap_remove(at);
                self.wait(&dropped.contact, true);
            }
        }
    }

    /// Frees a place in a full bucket for a newcomer: that of somebody in quarantine, or of a young peer of a corner of the bucket that holds two more than
    /// the newcomer's. Whoever has stayed for [`TableConfig::settled_after`] gives way to nobody while it answers.
    fn make_room(&mut self, index: usize, newcomer: &Contact, second: u32) -> bool {
        let settled = self.config.settled_after.as_secs() as u32;
        let frozen = self.frozen;
        let bucket = &mut self.buckets[index];
        if !frozen && let Some(at) = bucket.entries.iter().position(|entry| !entry.is_usable()) {
            bucket.entries.swap_remove(at);
            return true;
        }
        let corner = |key: &Key| corner(index, key);
        let mut crowd = [0usize; 8];
        bucket.entries.iter().for_each(|entry| crowd[corner(entry.contact.key())] += 1);
        let here = crowd[corner(newcomer.key())];
        let young = |entry: &&Entry| second.saturating_sub(entry.since) < settled;
        let crowded = |entry: &&Entry| crowd[corner(entry.contact.key())] >= here + 2;
        let victim = bucket.entries.iter().filter(young).filter(crowded).max_by(|a, b| {
            let crowd = |entry: &Entry| crowd[corner(entry.contact.key())];
            let slower = a.rtt.smoothed().cmp(&b.rtt.smoothed());
            crowd(a).cmp(&crowd(b)).then(slower).then(a.since.cmp(&b.since))
        });
        let Some(key) = victim.map(|entry| *entry.contact.key()) else { return false };
        let at = bucket.entries.iter().position(|entry| entry.contact.key() == &key);
        if let Some(dropped) = at.map(|at| bucket.entries.swap_remove(at)) {
            self.wait(&dropped.contact, true);
        }
        true
    }

    /// A peer in quarantine gives its place up when somebody waits for it.
    fn replace(&mut self, key: &Key) -> bool {
        let index = self.index(key);
        let full = self.buckets[index].entries.len() >= self.capacity(index);
        let bucket = &mut self.buckets[index];
        if full && !bucket.waiting.is_empty() {
            bucket.entries.retain(|entry| entry.contact.key() != key);
            return true;
        }
        false
    }

    /// Puts a peer at the end of its bucket's cache; the one seen longest ago gives way, hearsay before those once verified.
    fn wait(&mut self, contact: &Contact, verified: bool) {
        let index = self.index(contact.key());
        let total: usize = self.buckets.iter().map(|bucket| bucket.waiting.len()).sum();
        let (most, most_in_all) = (self.config.replacements, self.config.replacements_per_table);
        let bucket = &mut self.buckets[index];
        let before = bucket.waiting.iter().position(|waiting| waiting.contact.key() == contact.key());
        let was = before.map(|at| bucket.waiting.remove(at));
        let verified = verified || was.as_ref().is_some_and(|waiting| waiting.verified);
        // Hearsay never changes the addresses under which somebody was verified.
        let contact = was.filter(|was| was.verified).map_or_else(|| contact.clone(), |was| was.contact);
        if bucket.waiting.len() >= most || (before.is_none() && total >= most_in_all) {
            let hearsay = bucket.waiting.iter().position(|waiting| !waiting.verified);
            let oldest = (verified && !bucket.waiting.is_empty()).then_some(0);
            let Some(at) = hearsay.or(oldest) else { return };
            bucket.waiting.remove(at);
        }
        bucket.waiting.reserve_exact(usize::from(bucket.waiting.len() == bucket.waiting.capacity()) * 4);
        bucket.waiting.push(Waiting { contact, verified });
    }

    /// Compares what was found of a peer with what was expected; when it is certain that many have died at once, everybody who has not answered since is due.
    fn look(&mut self, second: u32, key: &Key, died: bool) {
        let Some(entry) = self.get(key).filter(|entry| entry.failures == 0) else { return };
        let usual = self.lifetimes.dead(entry.uptime(), second.saturating_sub(entry.answered));
        let expected = self.shock.dead(entry.answered, usual);
        if !self.shock.look(second, expected, died) {
            return;
        }
        let shock = self.shock;
        for entry in self.buckets.iter_mut().flat_map(|bucket| &mut bucket.entries) {
            if entry.failures == 0 && !entry.probing && shock.explains(entry.answered) {
                entry.due = entry.due.min(second);
            }
        }
        self.next_due = self.next_due.min(second);
    }

    fn schedule(&mut self, key: &Key, second: u32) {
        let share = self.config.probe_when_dead;
        let Some(uptime) = self.get(key).map(Entry::uptime) else { return };
        let due = second.saturating_add(self.lifetimes.until(uptime, share));
        if let Some(entry) = self.get_mut(key) {
            entry.due = due;
        }
        self.next_due = self.next_due.min(due);
    }

    /// Whether one more of a subnet would find a place in a bucket. Whoever is in quarantine keeps its own only until somebody who answers wants it.
    fn subnet_has_room(&self, index: usize, subnet: Subnet) -> bool {
        let stays = |entry: &&Entry| entry.subnet == Some(subnet) && (self.frozen || entry.is_usable());
        let here = self.buckets[index].entries.iter().filter(stays).count();
        here < self.config.subnet_per_bucket
            && self.entries().filter(stays).count() < self.config.subnet_per_table
    }

    /// The same for somebody who has answered; those in quarantine leave as far as it takes.
    fn make_subnet_room(&mut self, index: usize, subnet: Subnet) -> bool {
        if !self.subnet_has_room(index, subnet) {
            return false;
        }
        let (per_bucket, per_table) = (self.config.subnet_per_bucket, self.config.subnet_per_table);
        while let (here, everywhere) = self.subnet_counts(index, subnet)
            && (here >= per_bucket || everywhere >= per_table)
        {
            let gone = |entry: &Entry| entry.subnet == Some(subnet) && !entry.is_usable();
            let place = |bucket: &Bucket| bucket.entries.iter().position(gone);
            // Its own bucket first: there both bounds gain.
            let near = std::iter::once(index).chain((0..self.buckets.len()).filter(|_| here < per_bucket));
            let found = near.filter_map(|index| place(&self.buckets[index]).map(|at| (index, at))).next();
            let Some((index, at)) = found else { return false };
            self.buckets[index].entries.swap_remove(at);
        }
        true
    }

    fn subnet_counts(&self, index: usize, subnet: Subnet) -> (usize, usize) {
        let of = |entry: &&Entry| entry.subnet == Some(subnet);
        (self.buckets[index].entries.iter().filter(of).count(), self.entries().filter(of).count())
    }
}

/// The eighth of a bucket's range in which a key lies: a bucket whose peers spread over all of them makes lookups shorter.
fn corner(index: usize, key: &Key) -> usize {
    (1..=3).fold(0, |corner, bit| corner << 1 | usize::from(key.bit(index as u32 + bit)))
}

/// Who should leave a bucket that holds too many: of its most crowded corner who is in quarantine, slow, young.
fn least_wanted(index: usize, entries: &[Entry]) -> Option<usize> {
    let mut crowd = [0usize; 8];
    entries.iter().for_each(|entry| crowd[corner(index, entry.contact.key())] += 1);
    let rank = |entry: &Entry| {
        let crowd = crowd[corner(index, entry.contact.key())];
        (entry.failures, crowd, entry.rtt.smoothed(), entry.since, *entry.contact.key())
    };
    (0..entries.len()).max_by_key(|at| rank(&entries[*at]))
}

/// The second of the node's life.
pub(crate) fn seconds(now: Now) -> u32 {
    now.mono.as_secs().min(u64::from(u32::MAX - 1)) as u32
}

#[cfg(test)]
mod tests;
