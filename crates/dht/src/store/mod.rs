//! The store: what a node keeps for others, within bounds that no stranger can move.
//!
//! - Bytes and records are bounded, and so is what one publisher, one namespace, one key, one sender and one subnet may take.
//! - A full store drops what lies furthest from us beyond the nodes responsible for it; of what is ours to keep, first of kinds that take more than an equal part of the store,
//!   then what has the least of its kind's longest life before it, then what is largest; never by the order of arrival. A newcomer that would be the first to go is told that
//!   we are busy. So a flood elsewhere in the keyspace cannot displace our own range, nor can one of a long-lived kind.
//! - Where a key is full, whoever has brought most of what is there gives way to who has brought less: subnets count, not signers.
//! - How new a record was is remembered after it is gone, until its kind's longest time to live is over: an older one is never served after a newer one. Where there is too
//!   much to remember, it is whoever has brought most of it whose records are forgotten first.
//! - Records that we are too far from are refused, by what the routing table knows of the neighbourhood.
//!
//! Everything is in memory; [`Disk`] says how it survives a restart.

mod check;
mod config;
pub(crate) mod disk;
mod entry;
mod expiry;
mod followed;
mod kept;
mod marks;
mod origin;
mod providers;
mod put;
mod rates;
mod room;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use crate::record::{EntryId, Kind, MailboxRules, Place, Record, Records, Unverified, Version};
use crate::{Contact, Key, Refusal, Subnet, Target};

pub use config::StoreConfig;
pub use disk::{Batch, Change, Disk, DiskError, DiskFault, MAX_ROW_KEY, MemoryDisk};
use entry::{Entry, Held, Spot};
use expiry::Expiry;
use followed::Followed;
pub use kept::Summary;
pub(crate) use kept::{Kept, What};
use marks::{Mark, Marks};
use origin::Origin;
pub use providers::MAX_PROVIDER_KEY;
use providers::{Added, Provider, Providers};
pub use put::Sender;
use rates::Rates;
use room::Keys;
pub use rows::Restored;

/// What the routing table knows of the nodes around a key.
pub trait Near {
    /// How many known good peers are closer to `key` than we are; counting may end at `most`.
    fn closer(&self, key: &Key, most: usize) -> usize;

    /// About how many nodes the network has; `None` while nothing is known.
    fn network_size(&self) -> Option<f64>;

    /// A record is ours to keep, whoever stands closer to its key, when no more peers than so many are expected closer to it in a network of this size: those of the
    /// region over which values are stored, [`crate::LookupConfig::region`] times k. Zero where there is no such region.
    fn region(&self) -> f64 {
        0.0
    }

    /// The subnet in which a peer was met; `None` where none is known of it, and on loopback.
    fn met_in(&self, _peer: &Key) -> Option<Subnet> {
        None
    }
}

/// What became of a record that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is stored.
    Stored,
    /// The very same one was stored already.
    Known,
    /// A newer one is known, and this is it if it is still there.
    Stale(Option<Bytes>),
    /// There is no room, or the sender is too fast.
    Busy,
    /// It will never be stored.
    Refused(Refusal),
}

impl Put {
    /// Whether it is there now: what counts as a replica.
    pub fn is_there(&self) -> bool {
        matches!(self, Self::Stored | Self::Known)
    }
}

/// A part of what stands under a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The values.
    pub values: Vec<Bytes>,
    /// Where the next page begins; `None` after the last one.
    pub cursor: Option<Bytes>,
}

/// A publisher has signed two bodies under one sequence number; these are both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation {
    /// Who.
    pub publisher: PeerId,
    /// Where.
    pub target: Target,
    /// The two records.
    pub values: [Bytes; 2],
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes.
    pub bytes: usize,
    /// Records.
    pub records: usize,
}

/// The records and providers that a node keeps.
pub struct Store {
    config: StoreConfig,
    own: Key,
    /// For so many seconds something older than a record that is gone may be about, by kind.
    lives: [u64; Kind::ALL.len()],
    entries: BTreeMap<Spot, Entry>,
    by_id: BTreeMap<EntryId, Spot>,
    expiry: Expiry,
    keys: Keys,
    used: Usage,
    publishers: BTreeMap<PeerId, Usage>,
    /// By kind; the last is all other namespaces.
    namespaces: [Usage; NAMESPACES],
    marks: Marks,
    providers: Providers,
    rates: Rates,
    equivocations: Vec<Equivocation>,
    writing: rows::Writing,
    damaged: u64,
    /// Records that have come, changed or gone since somebody took note of it; `None` when they are too many to name.
    changed: Option<BTreeSet<EntryId>>,
    followed: Followed,
}

const NAMESPACES: usize = Kind::ALL.len() + 1;
/// Equivocations that wait to be reported; further ones are not, until these were taken.
const MAX_EQUIVOCATIONS: usize = 64;

impl Store {
    /// An empty store of the node that lies at `own`.
    pub fn new(config: StoreConfig, own: Key, records: &Records) -> Self {
        Self {
            config,
            own,
            lives: Kind::ALL.map(|kind| {
                let config = records.config();
                (config.of(kind).max_ttl + config.clock_tolerance).as_secs()
            }),
            entries: BTreeMap::new(),
            by_id: BTreeMap::new(),
            expiry: Expiry::default(),
            keys: Keys::default(),
            used: Usage::default(),
            publishers: BTreeMap::new(),
            namespaces: [Usage::default(); NAMESPACES],
            marks: Marks::default(),
            providers: Providers::new(own),
            rates: Rates::default(),
            equivocations: Vec::new(),
            writing: rows::Writing::default(),
            damaged: 0,
            changed: Some(BTreeSet::new()),
            followed: Followed::default(),
        }
    }

    /// A page of what stands at a key, of at most `max_bytes` but for a first value that alone is longer. A publisher that equivocates is shown with both records.
    /// Mailboxes are only opened to their owner: see [`Store::mailbox`].
    ///
    /// Records that were loaded and whose signature turns out wrong are dropped here.
    pub fn page(
        &mut self,
        now: Now,
        records: &Records,
        key: &Key,
        cursor: Option<&Bytes>,
        max_bytes: usize,
    ) -> Page {
        let distance = self.own.distance(key);
        let mut page = Page::default();
        let mut bytes = 0;
        let from = cursor.cloned().unwrap_or_default();
        let spots: Vec<Spot> = self
            .entries
            .range((distance, from)..)
            .map_while(|(spot, _)| (spot.0 == distance).then(|| spot.clone()))
            .collect();
        let mut last = None;
        for spot in spots {
            if cursor == Some(&spot.1) || !self.is_sound(records, &spot) {
                continue;
            }
            let Some(entry) = self.entries.get(&spot) else { continue };
            let rival = entry.rival_at(now, records);
            let length = entry.value.len() + rival.map_or(0, Bytes::len) + VALUE_FRAMING;
            if bytes + length > max_bytes && !page.values.is_empty() {
                page.cursor = last;
                break;
            }
            bytes += length;
            page.values.push(entry.value.clone());
            page.values.extend(rival.cloned());
            last = Some(spot.1);
        }
        page
    }

    /// A page of a mailbox for `reader`: all of it for the owner, the owner's rules alone for everybody else, so that senders know what is asked of them.
    #[expect(clippy::too_many_arguments, reason = "what is read, by whom, and how much of it")]
    pub fn mailbox(
        &mut self,
        now: Now,
        records: &Records,
        target: &Target,
        place: &Place,
        reader: &PeerId,
        cursor: Option<&Bytes>,
        max_bytes: usize,
    ) -> Page {
        let Place::Mailbox { recipient, .. } = place else { return Page::default() };
        if recipient == reader {
            return self.page(now, records, target.key(), cursor, max_bytes);
        }
        let spot = (self.own.distance(target.key()), Bytes::from(recipient.to_bytes()));
        let rules = self.is_sound(records, &spot).then(|| self.entries.get(&spot)).flatten();
        Page { values: rules.map(|entry| entry.value.clone()).into_iter().collect(), cursor: None }
    }

    /// Takes in that `contact` provides what `name` names. The caller has made sure that it is the sender. Without `remote` it is ourselves, for whom no rate applies.
    pub fn provide(
        &mut self,
        now: Now,
        from: &PeerId,
        remote: Option<std::net::IpAddr>,
        target: &Target,
        contact: Contact,
    ) -> Put {
        if target.name().len() > MAX_PROVIDER_KEY {
            return Put::Refused(Refusal::TooLarge);
        }
        if contact.peer() != from {
            return Put::Refused(Refusal::NotTheProvider);
        }
        let may_put = remote.is_none() || self.rates.may_put(now, &self.config, from, remote);
        if !may_put || self.writing.is_behind(&self.config) {
            return Put::Busy;
        }
        let until = now.unix.as_secs().saturating_add(self.config.provider_ttl.as_secs());
        let origin =
            remote.map_or(Origin::Unknown, |remote| Origin::of(&Sender::Peer { peer: *from, remote }));
        let provider = Provider { contact, until, origin };
        let Added::Yes(gone) = self.providers.add(&self.config, *target.key(), provider) else {
            return Put::Busy;
        };
        if let Some((key, peer)) = gone {
            self.writing.touch(now, rows::provider_row(&key, &peer));
        }
        self.writing.touch(now, rows::provider_row(target.key(), from));
        Put::Stored
    }

    /// Takes out that a peer provides something. Says whether it was there.
    pub fn unprovide(&mut self, now: Now, key: &Key, peer: &PeerId) -> bool {
        let was = self.providers.remove(key, peer);
        if was {
            self.writing.touch(now, rows::provider_row(key, peer));
        }
        was
    }

    /// Takes a record out as if it had never come, where it is still the one of this version: an older one may stand there again.
    pub fn take_back(&mut self, now: Now, id: &EntryId, version: &Version) {
        if self.version(id) == Some(*version)
            && let Some(spot) = self.by_id.get(id).cloned()
        {
            self.remove(now, &spot, false);
        }
    }

    /// Providers of a key after `cursor`, as many as fit, and where to go on.
    pub fn providers(
        &self,
        key: &Key,
        cursor: Option<&Bytes>,
        most: usize,
        max_bytes: usize,
    ) -> (Vec<Contact>, Option<Bytes>) {
        let after = cursor.and_then(|bytes| peerage_identity::decode_peer_id(bytes).ok());
        let mut found: Vec<Contact> = Vec::new();
        let mut bytes = 0;
        for contact in self.providers.of(key, after.as_ref()) {
            bytes += contact.wire_bytes();
            if !found.is_empty() && (found.len() >= most || bytes > max_bytes) {
                let cursor = found.last().map(|last| last.peer().to_bytes().into());
                return (found, cursor);
            }
            found.push(contact.clone());
        }
        (found, None)
    }

    /// Drops what has expired. Call it when [`Store::poll_timeout`] says so.
    pub fn expire(&mut self, now: Now) {
        let unix = now.unix.as_secs();
        while let Some((expires, id)) = self.expiry.first() {
            if expires > unix {
                break;
            }
            self.expiry.pop_first();
            if let Some(spot) = self.by_id.get(&id).cloned() {
                self.remove(now, &spot, true);
            }
        }
        while let Some(id) = self.marks.pop_expired(unix) {
            self.writing.touch(now, rows::mark_row(id));
        }
        while let Some((key, peer)) = self.providers.pop_expired(unix) {
            self.writing.touch(now, rows::provider_row(&key, &peer));
        }
    }

    /// When [`Store::expire`] or [`Store::poll_batch`] is next needed, as [`Now::mono`].
    pub fn poll_timeout(&self, now: Now) -> Option<Duration> {
        let firsts =
            [self.expiry.first().map(|(at, _)| at), self.marks.next_expiry(), self.providers.next_expiry()];
        let expiry = firsts.into_iter().flatten().min().map(|unix| {
            let wait = Duration::from_secs(unix).saturating_sub(now.unix);
            now.mono.saturating_add(wait)
        });
        [expiry, self.writing.due(&self.config)].into_iter().flatten().min()
    }

    /// How much is kept.
    pub fn used(&self) -> Usage {
        self.used
    }

    /// How much of one publisher is kept.
    pub fn used_by(&self, publisher: &PeerId) -> Usage {
        self.publishers.get(publisher).copied().unwrap_or_default()
    }

    /// Provider records that are kept.
    pub fn provider_count(&self) -> usize {
        self.providers.len()
    }

    /// Records that were dropped because what the disk gave back was damaged.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Publishers found to have signed two things under one sequence number, since the last call.
    pub fn take_equivocations(&mut self) -> Vec<Equivocation> {
        std::mem::take(&mut self.equivocations)
    }

    /// How new the record of a place and slot is: of the one that is there, or of one that is gone.
    pub fn high_water(&self, id: &EntryId) -> Option<Version> {
        let there =
            self.by_id.get(id).and_then(|spot| self.entries.get(spot)).and_then(Entry::version).copied();
        let gone = self.marks.get(id).map(|mark| mark.version);
        there.max(gone)
    }

    /// All records of ours: where, their name, how new, when they expire.
    pub fn all(&self) -> impl Iterator<Item = Summary<'_>> {
        self.entries.values().filter_map(Summary::of)
    }

    /// Everything that is kept, whoever judges it.
    pub(crate) fn all_kept(&self, records: &Records) -> impl Iterator<Item = Kept<'_>> {
        self.entries.values().map(|entry| Kept::of(entry, records))
    }

    /// What is known of one of them.
    pub(crate) fn kept(&self, records: &Records, id: &EntryId) -> Option<Kept<'_>> {
        self.by_id.get(id).and_then(|spot| self.entries.get(spot)).map(|entry| Kept::of(entry, records))
    }

    /// What is known of one record of ours.
    pub fn summary(&self, id: &EntryId) -> Option<Summary<'_>> {
        let entry = self.by_id.get(id).and_then(|spot| self.entries.get(spot))?;
        Summary::of(entry)
    }

    /// How new the record is that is there.
    pub fn version(&self, id: &EntryId) -> Option<Version> {
        self.summary(id).map(|summary| *summary.version)
    }

    /// The value of a record.
    pub fn value(&mut self, records: &Records, id: &EntryId) -> Option<Bytes> {
        let spot = self.by_id.get(id).cloned()?;
        self.is_sound(records, &spot)
            .then(|| self.entries.get(&spot).map(|entry| entry.value.clone()))
            .flatten()
    }

    /// The same, with the record beside it that proves that its publisher says two things, if there is one.
    pub fn values(&mut self, now: Now, records: &Records, id: &EntryId) -> Option<(Bytes, Option<Bytes>)> {
        let value = self.value(records, id)?;
        let entry = self.by_id.get(id).and_then(|spot| self.entries.get(spot))?;
        Some((value, entry.rival_at(now, records).cloned()))
    }

    /// What stands there, for whoever shows it: what came from the disk may not have been checked yet.
    pub fn unchecked(&self, id: &EntryId) -> Option<&Bytes> {
        self.by_id.get(id).and_then(|spot| self.entries.get(spot)).map(|entry| &entry.value)
    }

    /// Lets go of a record that others are responsible for, without forgetting how new it was.
    pub fn let_go(&mut self, now: Now, id: &EntryId) {
        if let Some(spot) = self.by_id.get(id).cloned() {
            self.remove(now, &spot, true);
        }
    }

    /// The records that have come, changed or gone since the last call; `None` when all are to be looked at.
    pub(crate) fn take_changed(&mut self) -> Option<BTreeSet<EntryId>> {
        self.changed.replace(BTreeSet::new())
    }

    fn note_change(&mut self, id: EntryId) {
        if let Some(changed) = &mut self.changed {
            changed.insert(id);
            if changed.len() > self.config.max_records {
                self.changed = None;
            }
        }
    }

    /// The rules that a mailbox's owner keeps in it.
    fn rules_of(&self, records: &Records, target: &Target, owner: &PeerId) -> Option<MailboxRules> {
        let spot = (self.own.distance(target.key()), Bytes::from(owner.to_bytes()));
        let entry = self.entries.get(&spot)?;
        let read = Unverified::read(records.network(), &entry.value).ok()?;
        MailboxRules::decode(read.claim().body()?).ok()
    }

    /// Checks the signature of a record that came from the disk, once; drops it when it is wrong.
    fn is_sound(&mut self, records: &Records, spot: &Spot) -> bool {
        let Some(entry) = self.entries.get_mut(spot) else { return false };
        if entry.checked || matches!(entry.held, Held::Foreign { .. }) {
            return true;
        }
        let opened = Record::open(records.network(), &entry.value);
        let rival = entry.rival.as_ref().is_none_or(|rival| Record::open(records.network(), rival).is_ok());
        entry.checked = rival
            && opened.is_ok_and(|record| {
                Some(record.version()) == entry.version() && record.target() == &entry.target
            });
        if entry.checked {
            return true;
        }
        self.damaged += 1;
        self.remove(Now::ZERO, spot, false);
        false
    }

    /// Puts an entry in its place and counts it. What stood there was taken out before.
    fn insert(&mut self, now: Now, spot: Spot, entry: Entry) {
        self.count(&entry, true);
        self.expiry.insert(namespace(entry.kind()), entry.expires, entry.id);
        self.keys.insert(namespace(entry.kind()), spot.0);
        self.by_id.insert(entry.id, spot.clone());
        if self.marks.get(&entry.id).is_some_and(|mark| Some(&mark.version) <= entry.version()) {
            self.forget_mark(now, &entry.id);
        }
        self.writing.touch(now, rows::record_row(entry.id));
        self.note_change(entry.id);
        self.followed.touch(spot.0);
        self.entries.insert(spot, entry);
    }

    /// Takes an entry out; `mark` remembers how new it was.
    fn remove(&mut self, now: Now, spot: &Spot, mark: bool) -> Option<Entry> {
        let entry = self.entries.remove(spot)?;
        self.count(&entry, false);
        self.expiry.remove(namespace(entry.kind()), entry.expires, entry.id);
        if self.at(spot.0).next().is_none() {
            self.keys.remove(namespace(entry.kind()), spot.0);
        }
        self.by_id.remove(&entry.id);
        self.writing.touch(now, rows::record_row(entry.id));
        self.followed.touch(spot.0);
        if mark {
            self.mark_gone(now, &entry);
        }
        self.note_change(entry.id);
        Some(entry)
    }

    /// Remembers how new an entry was that has gone.
    fn mark_gone(&mut self, now: Now, entry: &Entry) {
        if let Held::Ours { version, .. } = &entry.held {
            // Whatever is older was signed before: it has expired when the longest life from now on is over, or from the end of this one.
            let life = entry.kind().map_or(0, |kind| self.lives[namespace(Some(kind))]);
            let until = entry.expires.min(now.unix.as_secs()).saturating_add(life).max(entry.expires);
            self.mark(now, entry.id, Mark { version: *version, until, origin: entry.origin });
        }
    }

    /// Remembers how new a record was.
    fn mark(&mut self, now: Now, id: EntryId, mark: Mark) {
        if self.marks.get(&id).is_some_and(|known| known.version > mark.version) {
            return;
        }
        let gone = self.marks.insert(id, mark, self.config.max_marks);
        for id in [id].into_iter().chain(gone) {
            self.writing.touch(now, rows::mark_row(id));
        }
    }

    fn forget_mark(&mut self, now: Now, id: &EntryId) {
        if self.marks.remove(id) {
            self.writing.touch(now, rows::mark_row(*id));
        }
    }

    fn count(&mut self, entry: &Entry, came: bool) {
        let bytes = entry.bytes();
        let change = |usage: &mut Usage| match came {
            true => (usage.bytes, usage.records) = (usage.bytes + bytes, usage.records + 1),
            false => (usage.bytes, usage.records) = (usage.bytes - bytes, usage.records - 1),
        };
        change(&mut self.used);
        change(&mut self.namespaces[namespace(entry.kind())]);
        if let Some(publisher) = entry.publisher() {
            let usage = self.publishers.entry(*publisher).or_default();
            change(usage);
            if usage.records == 0 {
                self.publishers.remove(publisher);
            }
        }
    }
}

fn namespace(kind: Option<Kind>) -> usize {
    kind.and_then(|kind| Kind::ALL.iter().position(|known| *known == kind)).unwrap_or(NAMESPACES - 1)
}

/// What a value takes in an answer beside its bytes, at most.
const VALUE_FRAMING: usize = crate::MAX_TARGET_BYTES + 64;
