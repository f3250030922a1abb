//! The store's rows on the disk: what changed is handed out in batches, what was stored is taken back in.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use peerage_identity::{DialAddress, PeerId, decode_peer_id};
use peerage_machine::Now;

use super::disk::{Batch, Change, checked, put_part, take_part, unchecked};
use super::origin::Origin;
use super::providers::{Added, Provider};
use super::{Entry, Held, Mark, Store, StoreConfig};
use crate::record::{
    Checked, EntryId, MailboxPolicy, MailboxRules, Named, Place, Records, VERSION_BYTES, Version, Welcome,
};
use crate::{Contact, Key, Target};

/// What was found on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Records that are there again; their signatures are checked when they are first asked for.
    pub records: usize,
    /// Providers that are there again.
    pub providers: usize,
    /// Rows whose time was up.
    pub expired: usize,
    /// Rows that were damaged, or that nobody can read.
    pub damaged: usize,
}

/// Which rows are to be written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    dirty: BTreeSet<Bytes>,
    /// Since when.
    since: Option<Duration>,
    under_way: Option<Batch>,
    /// A batch has failed: nothing is handed out before.
    again: Option<Duration>,
    unsynced: bool,
    synced: Duration,
    number: u64,
}

impl Writing {
    pub(super) fn touch(&mut self, now: Now, row: Bytes) {
        self.since.get_or_insert(now.mono);
        self.dirty.insert(row);
    }

    /// Whether too much waits for the disk.
    pub(super) fn is_behind(&self, config: &StoreConfig) -> bool {
        self.dirty.len() >= config.max_unwritten
    }

    pub(super) fn due(&self, config: &StoreConfig) -> Option<Duration> {
        if self.under_way.is_some() {
            return None;
        }
        let write = self.since.map(|since| match self.dirty.len() >= config.write_batch {
            true => since,
            false => since + config.write_after,
        });
        let sync = self.unsynced.then(|| self.synced + config.sync_every);
        let due = [write, sync].into_iter().flatten().min()?;
        Some(self.again.map_or(due, |again| due.max(again)))
    }
}

impl Store {
    /// After so long what could not be written is handed out again.
    const WRITE_AGAIN: Duration = Duration::from_secs(1);

    /// What is to be written now; nothing while a batch is under way ([`Store::written`]). Call it when [`Store::poll_timeout`] says so, and after changes.
    pub fn poll_batch(&mut self, now: Now) -> Option<Batch> {
        let due = self.writing.due(&self.config)?;
        (due <= now.mono).then(|| self.batch(now, now.mono >= self.writing.synced + self.config.sync_every))
    }

    /// All that is to be written, durable: for the end of the node. `None` when there is nothing, or a batch is under way.
    pub fn flush(&mut self, now: Now) -> Option<Batch> {
        let nothing = self.writing.dirty.is_empty() && !self.writing.unsynced;
        (!nothing && self.writing.under_way.is_none()).then(|| self.batch(now, true))
    }

    /// Whether a batch is under way.
    pub fn is_writing(&self) -> bool {
        self.writing.under_way.is_some()
    }

    /// Says what became of a batch. One that failed is handed out again with what has changed since, after a second.
    pub fn written(&mut self, now: Now, number: u64, ok: bool) {
        let Some(batch) = self.writing.under_way.take_if(|batch| batch.number == number) else { return };
        self.writing.again = None;
        if ok {
            if batch.durable {
                self.writing.unsynced = false;
                self.writing.synced = now.mono;
            }
            return;
        }
        self.writing.dirty.extend(batch.changes.iter().map(|change| change.key().clone()));
        self.writing.since.get_or_insert(now.mono);
        self.writing.again = Some(now.mono + Self::WRITE_AGAIN);
    }

    /// Takes in what the disk holds. Times that are over and rows that are damaged are left out, and go from the disk.
    pub fn restore(&mut self, now: Now, records: &Records, rows: Vec<(Bytes, Bytes)>) -> Restored {
        let mut restored = Restored::default();
        for (key, row) in rows {
            let read = unchecked(&key, &row).map(|value| self.restore_row(now, records, &key, &value));
            match read {
                Some(Row::Record) => restored.records += 1,
                Some(Row::Provider) => restored.providers += 1,
                Some(Row::Mark) => {}
                Some(Row::Expired) => {
                    restored.expired += 1;
                    self.writing.touch(now, key);
                }
                Some(Row::Damaged) | None => {
                    restored.damaged += 1;
                    self.writing.touch(now, key);
                }
            }
        }
        self.damaged += restored.damaged as u64;
        restored
    }

    fn batch(&mut self, now: Now, durable: bool) -> Batch {
        let mut changes = Vec::new();
        while changes.len() < self.config.write_batch {
            let Some(key) = self.writing.dirty.pop_first() else { break };
            changes.push(match self.row(&key) {
                Some(value) => Change::Put { value: checked(&key, &value), key },
                None => Change::Delete { key },
            });
        }
        let durable = durable || changes.is_empty();
        self.writing.since = (!self.writing.dirty.is_empty()).then_some(now.mono);
        if !durable && !self.writing.unsynced {
            self.writing.synced = self.writing.synced.max(now.mono);
        }
        self.writing.unsynced = true;
        self.writing.number += 1;
        let batch = Batch { number: self.writing.number, changes, durable };
        self.writing.under_way = Some(batch.clone());
        batch
    }

    /// What a row holds now; `None` when it is to go.
    fn row(&self, key: &Bytes) -> Option<Bytes> {
        let (table, rest) = key.split_first()?;
        let mut out = BytesMut::new();
        match *table {
            RECORD_ROW => {
                let id = EntryId::from_bytes(rest.try_into().ok()?);
                let entry = self.by_id.get(&id).and_then(|spot| self.entries.get(spot))?;
                out.put_u64(entry.expires);
                put_part(&mut out, entry.target.name());
                put_part(&mut out, &entry.value);
                put_part(&mut out, entry.rival.as_deref().unwrap_or_default());
                put_part(&mut out, &entry.origin.to_bytes());
                put_part(&mut out, &[u8::from(entry.stranger)]);
            }
            MARK_ROW => {
                let mark = self.marks.get(&EntryId::from_bytes(rest.try_into().ok()?))?;
                out.put_u64(mark.until);
                out.put_slice(&mark.version.to_bytes());
                out.put_slice(&mark.origin.to_bytes());
            }
            PROVIDER_ROW => {
                let (hash, peer) = rest.split_first_chunk::<32>()?;
                let provider = self.providers.get(&Key::from_hash(*hash), &decode_peer_id(peer).ok()?)?;
                out.put_u64(provider.until);
                provider.contact.binary_addresses().for_each(|address| put_part(&mut out, address));
            }
            _ => return None,
        }
        Some(out.freeze())
    }

    fn restore_row(&mut self, now: Now, records: &Records, key: &Bytes, value: &Bytes) -> Row {
        let Some((table, rest)) = key.split_first() else { return Row::Damaged };
        let Some((expires, value)) = take_u64(value) else { return Row::Damaged };
        if expires <= now.unix.as_secs() {
            return Row::Expired;
        }
        let read = match *table {
            RECORD_ROW => self.restore_record(now, records, rest, expires, value),
            MARK_ROW => self.restore_mark(now, rest, expires, &value),
            PROVIDER_ROW => self.restore_provider(now, rest, expires, value),
            _ => None,
        };
        read.unwrap_or(Row::Damaged)
    }

    fn restore_record(
        &mut self,
        now: Now,
        records: &Records,
        id: &[u8],
        expires: u64,
        mut rest: Bytes,
    ) -> Option<Row> {
        let name = take_part(&mut rest)?;
        let value = take_part(&mut rest)?;
        let rival = take_part(&mut rest).filter(|rival| !rival.is_empty());
        let origin = take_part(&mut rest).map_or(Origin::Unknown, |origin| Origin::from_bytes(&origin));
        let was_stranger = take_part(&mut rest).map(|stranger| stranger[..] == [1]);
        let target = Target::new(&name)?;
        records.keeping(&name)?;
        let (held, slot, stranger, known_good) = match Place::parse(records.network(), &name) {
            Named::Ours(place) => {
                let read = records.read_again(now, &target, &value).ok()?;
                let claim = read.claim();
                claim.body()?;
                let held = Held::Ours {
                    kind: place.kind(),
                    publisher: claim.publisher(),
                    version: *claim.version(),
                };
                // An earlier version wrote nothing of it: then whoever has no token is one, whatever work the owner asked for.
                let stranger = was_stranger.unwrap_or_else(|| {
                    let anybody =
                        MailboxRules { policy: MailboxPolicy::Open { work_bits: 0 }, cleared: vec![] };
                    records.check_welcome(now, claim, Some(&anybody)) == Ok(Welcome::Stranger)
                });
                (held, claim.slot(), stranger, false)
            }
            Named::Foreign(_) => match records.check(now, &target, &value) {
                Ok(Checked::Foreign(judged)) => {
                    (Held::Foreign { rank: judged.rank }, Bytes::new(), false, true)
                }
                _ => return None,
            },
            Named::Malformed => return None,
        };
        let entry = Entry {
            id: EntryId::of(target.key(), &slot),
            target,
            value,
            held,
            expires,
            since: now.unix.as_secs(),
            checked: known_good,
            stranger,
            origin,
            rival,
        };
        let spot = (self.own.distance(entry.target.key()), slot);
        let fits = self.used.bytes + entry.bytes() <= self.config.max_bytes
            && self.used.records < self.config.max_records;
        if entry.id.to_bytes()[..] != *id || self.entries.contains_key(&spot) || !fits {
            return None;
        }
        self.insert(now, spot, entry);
        // It stands on the disk as it is.
        self.writing.dirty.remove(&record_row(EntryId::from_bytes(id.try_into().ok()?)));
        Some(Row::Record)
    }

    fn restore_mark(&mut self, now: Now, id: &[u8], until: u64, rest: &Bytes) -> Option<Row> {
        let id = EntryId::from_bytes(id.try_into().ok()?);
        let (version, origin) = rest.split_first_chunk::<VERSION_BYTES>()?;
        let (version, origin) = (Version::from_bytes(version), Origin::from_bytes(origin));
        self.mark(now, id, Mark { version, until, origin });
        if self.marks.get(&id).is_some() {
            self.writing.dirty.remove(&mark_row(id));
        }
        Some(Row::Mark)
    }

    fn restore_provider(&mut self, now: Now, key: &[u8], until: u64, mut rest: Bytes) -> Option<Row> {
        let (hash, peer) = key.split_first_chunk::<32>()?;
        let mut addresses = Vec::new();
        while let Some(address) = take_part(&mut rest) {
            addresses.push(DialAddress::from_bytes(&address).ok()?);
        }
        let contact = Contact::new(decode_peer_id(peer).ok()?, &addresses);
        // Where it was met is not known any more: where it says that it is, is.
        let origin = contact.subnets().next().map_or(Origin::Unknown, Origin::Subnet);
        let provider = Provider { contact, until, origin };
        match self.providers.add(&self.config, Key::from_hash(*hash), provider) {
            Added::Yes(gone) => {
                gone.iter().for_each(|(key, peer)| self.writing.touch(now, provider_row(key, peer)));
                Some(Row::Provider)
            }
            Added::No => None,
        }
    }
}

enum Row {
    Record,
    Provider,
    Mark,
    Expired,
    Damaged,
}

pub(super) fn record_row(id: EntryId) -> Bytes {
    [&[RECORD_ROW][..], &id.to_bytes()].concat().into()
}

pub(super) fn mark_row(id: EntryId) -> Bytes {
    [&[MARK_ROW][..], &id.to_bytes()].concat().into()
}

pub(super) fn provider_row(key: &Key, peer: &PeerId) -> Bytes {
    [&[PROVIDER_ROW][..], &key.to_bytes(), &peer.to_bytes()].concat().into()
}

fn take_u64(bytes: &Bytes) -> Option<(u64, Bytes)> {
    let number = u64::from_be_bytes(*bytes.first_chunk::<8>()?);
    Some((number, bytes.slice(8..)))
}

const RECORD_ROW: u8 = b'r';
const MARK_ROW: u8 = b'm';
const PROVIDER_ROW: u8 = b'p';
