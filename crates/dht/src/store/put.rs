//! How a record comes into the store, or doesn't.

use std::net::IpAddr;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use super::{Entry, Equivocation, Held, MAX_EQUIVOCATIONS, Near, Put, Spot, Store, namespace};
use crate::record::{
    Checked, Claim, Kind, MailboxRules, Named, Place, RecordFault, Records, Unverified, Version, Welcome,
};
use crate::{Distance, Key, Refusal, Target};

/// From whom a record comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// From us: no rate applies, and no distance.
    Own,
    /// Somebody asks us to store it.
    Peer {
        /// Who, as the connection proves it.
        peer: PeerId,
        /// Where it is.
        remote: IpAddr,
    },
    /// Another holder hands it over: what applies is the number of signatures that are checked for it.
    Holder {
        /// Who.
        peer: PeerId,
    },
}

impl Store {
    /// Hands in a value that is to stand under `target`.
    pub fn put(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        sender: Sender,
        target: &Target,
        value: &Bytes,
    ) -> Put {
        if let Sender::Peer { peer, remote } = sender
            && !self.rates.may_put(now, &self.config, &peer, Some(remote))
        {
            return Put::Busy;
        }
        if self.writing.is_behind(&self.config) {
            return Put::Busy;
        }
        let Some(limits) = records.keeping(target.name()) else {
            let fault = match Place::parse(records.network(), target.name()) {
                Named::Foreign(_) => RecordFault::UnknownNamespace,
                _ => RecordFault::Key,
            };
            return Put::Refused(fault.refusal());
        };
        if sender != Sender::Own && !self.is_ours_to_keep(near, target.key(), limits.replicas) {
            return Put::Refused(Refusal::TooFar);
        }
        match Place::parse(records.network(), target.name()) {
            Named::Ours(_) => {
                self.put_record(now, records, near, sender, target, value, limits.max_ttl.as_secs())
            }
            _ => self.put_foreign(now, records, near, target, value, limits.max_ttl.as_secs()),
        }
    }

    /// Whether we believe that we are among the 2r closest, by the peers that we know and by the size of the network. Where more stand closer than a network of this
    /// size has there, our own place decides: otherwise whoever crowds around a key would have honest holders refuse what lies there (dht.md B.6 "Region store").
    pub(crate) fn is_ours_to_keep(&self, near: &dyn Near, key: &Key, replicas: usize) -> bool {
        let limit = 2 * replicas;
        let expected = near.network_size().map(|size| size * self.own.distance(key).share());
        let in_region = expected.is_some_and(|expected| expected <= near.region());
        in_region
            || near.closer(key, limit) < limit
                && expected.is_none_or(|expected| expected <= 2.0 * limit as f64)
    }

    #[expect(clippy::too_many_arguments, reason = "all of it comes from one call and is needed at one place")]
    fn put_record(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        sender: Sender,
        target: &Target,
        value: &Bytes,
        max_ttl: u64,
    ) -> Put {
        let unverified = match records.read(now, target, value) {
            Ok(unverified) => unverified,
            Err(fault) => return Put::Refused(fault.refusal()),
        };
        let claim = unverified.claim();
        let spot = (self.own.distance(target.key()), claim.slot());
        // What isn't newer costs no signature check.
        let known = self.entries.get(&spot).and_then(Entry::version).copied();
        if known == Some(*claim.version()) {
            return Put::Known;
        }
        let equivocates = known.is_some_and(|known| known.equivocates(claim.version()));
        if !equivocates && self.high_water(&claim.id()).is_some_and(|mark| mark > *claim.version()) {
            return Put::Stale(self.entries.get(&spot).map(|entry| entry.value.clone()));
        }
        let welcome = match self.welcome(now, records, claim, target) {
            Ok(welcome) => welcome,
            Err(put) => return put,
        };
        let peer = match sender {
            Sender::Own => None,
            Sender::Peer { peer, .. } | Sender::Holder { peer } => Some(peer),
        };
        if peer.is_some_and(|peer| !self.rates.may_check(now, &self.config, &peer)) {
            return Put::Busy;
        }
        let Some(full) = self.with_known_body(records, &spot, claim, value) else {
            return Put::Refused(Refusal::Invalid);
        };
        let Ok(record) = unverified.verify() else { return Put::Refused(Refusal::Invalid) };
        if equivocates {
            return self.note_equivocation(now, &spot, &record, full);
        }
        let unix = now.unix.as_secs();
        let expires = match records.times_count() {
            true => record.version().not_after,
            false => record
                .version()
                .not_after
                .clamp(unix.saturating_add(max_ttl / 4), unix.saturating_add(max_ttl)),
        };
        let held = Held::Ours {
            kind: record.place().kind(),
            publisher: record.publisher(),
            version: *record.version(),
        };
        let stranger = welcome == Welcome::Stranger;
        let id = record.id();
        let entry = Entry {
            target: target.clone(),
            id,
            value: full,
            held,
            expires,
            since: unix,
            checked: true,
            stranger,
            rival: None,
        };
        let put = self.admit(now, near, records, spot, entry);
        if put == Put::Stored {
            self.clear_messages(now, &record);
        }
        put
    }

    fn put_foreign(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        target: &Target,
        value: &Bytes,
        max_ttl: u64,
    ) -> Put {
        let rank = match records.check(now, target, value) {
            Ok(Checked::Foreign(judged)) => judged.rank,
            Ok(Checked::Record(_)) => return Put::Refused(Refusal::Invalid),
            Err(fault) => return Put::Refused(fault.refusal()),
        };
        let spot = (self.own.distance(target.key()), Bytes::new());
        // The same one again lives longer: its validator knows no expiry, and its publisher says it again.
        if let Some(Entry { held: Held::Foreign { rank: known }, value: there, .. }) = self.entries.get(&spot)
            && *known > rank
        {
            return Put::Stale(Some(there.clone()));
        }
        let expires = now.unix.as_secs().saturating_add(max_ttl);
        let id = crate::record::EntryId::of(target.key(), &spot.1);
        let held = Held::Foreign { rank };
        let entry = Entry {
            target: target.clone(),
            id,
            value: value.clone(),
            held,
            expires,
            since: now.unix.as_secs(),
            checked: true,
            stranger: false,
            rival: None,
        };
        self.admit(now, near, records, spot, entry)
    }

    /// The mailbox's owner and its limits have a say.
    fn welcome(&self, now: Now, records: &Records, claim: &Claim, target: &Target) -> Result<Welcome, Put> {
        let Place::Mailbox { recipient, .. } = claim.place() else { return Ok(Welcome::Known) };
        let rules = self.rules_of(records, target, recipient);
        let welcome = records
            .check_welcome(now, claim, rules.as_ref())
            .map_err(|fault| Put::Refused(fault.refusal()))?;
        if claim.publisher() == *recipient {
            return Ok(welcome);
        }
        if rules.is_some_and(|rules| rules.cleared.contains(&claim.id())) {
            return Err(Put::Stale(None));
        }
        let distance = self.own.distance(target.key());
        let others =
            self.at(distance).filter(|entry| entry.id != claim.id() && entry.publisher() != Some(recipient));
        let (mut all, mut strangers, mut of_sender) = (0, 0, 0);
        for entry in others {
            all += 1;
            strangers += usize::from(entry.stranger);
            of_sender += usize::from(entry.publisher() == Some(&claim.publisher()));
        }
        let config = records.config();
        let full = all >= config.mailbox_messages
            || of_sender >= config.mailbox_per_sender
            || welcome == Welcome::Stranger && strangers >= config.mailbox_unknown;
        if full { Err(Put::Refused(Refusal::Quota)) } else { Ok(welcome) }
    }

    /// The value with its body: its own, or for an extension the one that is there.
    fn with_known_body(&self, records: &Records, spot: &Spot, claim: &Claim, value: &Bytes) -> Option<Bytes> {
        if claim.body().is_some() {
            return Some(value.clone());
        }
        let there = self.entries.get(spot)?;
        let known = Unverified::read(records.network(), &there.value).ok()?;
        let same = known.claim().version().body_hash == claim.version().body_hash;
        same.then(|| known.claim().body().map(|body| claim.with_body_bytes(body)))?
    }

    /// A publisher has said two things under one sequence number: the greater one is kept as the record, the other beside it as the proof.
    fn note_equivocation(&mut self, now: Now, spot: &Spot, record: &Claim, value: Bytes) -> Put {
        let known = self.entries.get(spot);
        if let Some(there) =
            known.filter(|entry| entry.rival.is_some() && entry.version() > Some(record.version()))
        {
            // It is proved already.
            return Put::Stale(Some(there.value.clone()));
        }
        let Some(mut entry) = self.remove(now, spot, false) else { return Put::Busy };
        let before = entry.clone();
        let won = entry.version() < Some(record.version());
        let (winner, loser) = match won {
            true => (value, entry.value.clone()),
            false => (entry.value.clone(), value),
        };
        if won && let Held::Ours { version, .. } = &mut entry.held {
            *version = *record.version();
            entry.expires = record.version().not_after;
            entry.since = now.unix.as_secs();
        }
        (entry.value, entry.rival) = (winner.clone(), Some(loser.clone()));
        // The proof is kept where there is room for it.
        if self.is_over(&entry) {
            entry.rival = None;
        }
        if self.is_over(&entry) {
            self.insert(now, spot.clone(), before);
            return Put::Refused(Refusal::Quota);
        }
        if self.equivocations.len() < MAX_EQUIVOCATIONS {
            let values = [winner.clone(), loser];
            let target = entry.target.clone();
            self.equivocations.push(Equivocation { publisher: record.publisher(), target, values });
        }
        self.insert(now, spot.clone(), entry);
        if won { Put::Stored } else { Put::Stale(Some(winner)) }
    }

    /// Whether an entry would be too much for its publisher or for the store.
    fn is_over(&self, entry: &Entry) -> bool {
        let used = entry.publisher().map(|publisher| self.used_by(publisher)).unwrap_or_default();
        let bytes = entry.bytes();
        used.bytes + bytes > self.config.publisher_bytes || self.used.bytes + bytes > self.config.max_bytes
    }

    /// Within the quotas, if need be in the place of something that goes first.
    fn admit(&mut self, now: Now, near: &dyn Near, records: &Records, spot: Spot, entry: Entry) -> Put {
        let old = self.remove(now, &spot, false);
        let bytes = entry.bytes();
        let publisher = entry.publisher().map(|publisher| self.used_by(publisher)).unwrap_or_default();
        let over_publisher = publisher.bytes + bytes > self.config.publisher_bytes
            || publisher.records >= self.config.publisher_records;
        let of_key = match entry.kind().is_none_or(Kind::has_many_publishers) {
            true => self.at(spot.0).take(self.config.key_records).count(),
            false => 0,
        };
        let share = (self.config.max_bytes as f64 * self.config.namespace_share) as usize;
        let over_namespace = self.namespaces[namespace(entry.kind())].bytes + bytes > share;
        let verdict = if over_publisher || of_key >= self.config.key_records {
            Err(Put::Refused(Refusal::Quota))
        } else {
            self.make_room(now, near, records, &spot, &entry, over_namespace)
        };
        match (verdict, old) {
            (Ok(()), _) => {
                self.insert(now, spot, entry);
                Put::Stored
            }
            (Err(put), Some(old)) => {
                self.insert(now, spot, old);
                put
            }
            (Err(put), None) => put,
        }
    }

    /// Drops what goes first until there is room; fails when that would be the newcomer.
    fn make_room(
        &mut self,
        now: Now,
        near: &dyn Near,
        records: &Records,
        spot: &Spot,
        entry: &Entry,
        over_namespace: bool,
    ) -> Result<(), Put> {
        let bytes = entry.bytes();
        let newcomer = self.worth(near, records, spot, entry);
        let mut over_namespace = over_namespace;
        while over_namespace
            || self.used.bytes + bytes > self.config.max_bytes
            || self.used.records >= self.config.max_records
        {
            let among = over_namespace.then(|| namespace(entry.kind()));
            let Some((first, worth)) = self.first_to_go(near, records, among) else { return Err(Put::Busy) };
            if worth <= newcomer {
                return Err(Put::Busy);
            }
            self.remove(now, &first, true);
            let share = (self.config.max_bytes as f64 * self.config.namespace_share) as usize;
            over_namespace = over_namespace && self.namespaces[namespace(entry.kind())].bytes + bytes > share;
        }
        Ok(())
    }

    /// The record that goes first, of all or of one namespace.
    fn first_to_go(
        &self,
        near: &dyn Near,
        records: &Records,
        among: Option<usize>,
    ) -> Option<(Spot, Worthless)> {
        let counts = |entry: &Entry| among.is_none_or(|among| namespace(entry.kind()) == among);
        // The furthest ones come last. Beyond the nodes responsible, the distance alone decides.
        let mut furthest = self.entries.iter().rev().filter(|(_, entry)| counts(entry));
        let (spot, entry) = furthest.next()?;
        let worth = self.worth(near, records, spot, entry);
        if worth.beyond.is_some() {
            let at_that_key = self.entries.range((spot.0, Bytes::new())..).filter(|(_, entry)| counts(entry));
            let last = at_that_key.map(|(spot, entry)| (spot, self.worth(near, records, spot, entry)));
            return last.max_by_key(|(_, worth)| *worth).map(|(spot, worth)| (spot.clone(), worth));
        }
        // Everything is ours to keep: what expires soonest goes, of those that expire together the largest.
        let mut soonest: Option<(&Spot, Worthless)> = None;
        for (expires, id) in &self.expiry {
            let Some((spot, entry)) = self.by_id.get(id).and_then(|spot| self.entries.get_key_value(spot))
            else {
                continue;
            };
            if soonest.is_some_and(|(_, worth)| u64::MAX - worth.soon < *expires) {
                break;
            }
            if counts(entry) {
                let worth = Worthless { beyond: None, soon: u64::MAX - expires, bytes: entry.bytes() };
                soonest = soonest.max_by_worth(spot, worth);
            }
        }
        soonest.map(|(spot, worth)| (spot.clone(), worth))
    }

    fn worth(&self, near: &dyn Near, records: &Records, spot: &Spot, entry: &Entry) -> Worthless {
        let replicas = records.keeping(entry.target.name()).map_or(0, |limits| limits.replicas);
        let beyond = near.closer(entry.target.key(), replicas) >= replicas;
        Worthless { beyond: beyond.then_some(spot.0), soon: u64::MAX - entry.expires, bytes: entry.bytes() }
    }

    /// What a mailbox's owner says was read goes, and doesn't come back.
    fn clear_messages(&mut self, now: Now, record: &Claim) {
        let Place::Mailbox { recipient, .. } = record.place() else { return };
        if record.publisher() != *recipient {
            return;
        }
        let Some(Ok(rules)) = record.body().map(MailboxRules::decode) else { return };
        let distance = self.own.distance(record.target().key());
        for id in rules.cleared {
            let spot = self.by_id.get(&id).filter(|spot| spot.0 == distance).cloned();
            if let Some(entry) = spot.and_then(|spot| self.remove(now, &spot, false)) {
                let newest = Version { seq: u64::MAX, not_after: u64::MAX, body_hash: [u8::MAX; 32] };
                self.mark(now, id, newest, entry.expires);
            }
        }
    }

    /// What stands at a distance from us.
    fn at(&self, distance: Distance) -> impl Iterator<Item = &Entry> {
        self.entries
            .range((distance, Bytes::new())..)
            .take_while(move |(spot, _)| spot.0 == distance)
            .map(|(_, entry)| entry)
    }
}

/// How soon a record goes: the greatest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worthless {
    /// Its distance, where enough others are closer.
    beyond: Option<Distance>,
    /// Greater the sooner it expires.
    soon: u64,
    bytes: usize,
}

trait MaxByWorth<'a> {
    fn max_by_worth(self, spot: &'a Spot, worth: Worthless) -> Self;
}

impl<'a> MaxByWorth<'a> for Option<(&'a Spot, Worthless)> {
    fn max_by_worth(self, spot: &'a Spot, worth: Worthless) -> Self {
        match self {
            Some((_, best)) if best >= worth => self,
            _ => Some((spot, worth)),
        }
    }
}
