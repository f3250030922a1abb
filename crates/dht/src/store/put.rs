//! How a record comes into the store, or doesn't.

use std::cmp::Reverse;
use std::net::IpAddr;

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use super::origin::{Origin, gives_way};
use super::{Entry, Equivocation, Held, MAX_EQUIVOCATIONS, Mark, Near, Put, Spot, Store, namespace};
use crate::record::{
    Checked, Claim, Keeping, Kind, MailboxRules, Named, Place, RecordFault, Records, Unverified, Version,
    Welcome,
};
use crate::{Distance, Key, Refusal, Subnet, Target};

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
        /// In which subnet it was met; `None` where rules for subnets don't apply.
        subnet: Option<Subnet>,
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
        let max_ttl = match self.may_come(now, records, near, sender, target) {
            Ok(limits) => limits.max_ttl.as_secs(),
            Err(put) => return put,
        };
        match Place::parse(records.network(), target.name()) {
            Named::Ours(_) => self.put_record(now, records, near, sender, target, value, max_ttl),
            _ => self.put_foreign(now, records, near, sender, target, value, max_ttl),
        }
    }

    /// Hands in a value of a validator's namespace as another holder has it, which would keep it for `life` more seconds: it is kept no longer here than that or
    /// than what it takes the place of, and one that is here already lives no longer for it.
    #[expect(clippy::too_many_arguments, reason = "what is handed in, and by whom")]
    pub(crate) fn put_handed(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        sender: Sender,
        target: &Target,
        value: &Bytes,
        life: u64,
    ) -> Put {
        if !matches!(Place::parse(records.network(), target.name()), Named::Foreign(_)) {
            return Put::Refused(Refusal::Invalid);
        }
        let max_ttl = match self.may_come(now, records, near, sender, target) {
            Ok(limits) => limits.max_ttl.as_secs(),
            Err(put) => return put,
        };
        // A validator may check signatures too.
        if let Sender::Holder { peer, .. } = sender
            && !self.rates.may_check(now, &self.config, &peer, 1)
        {
            return Put::Busy;
        }
        let rank = match Self::rank_of(now, records, target, value) {
            Ok(rank) => rank,
            Err(put) => return put,
        };
        let here = self.entries.get(&(self.own.distance(target.key()), Bytes::new()));
        // What takes the place of another lives as long as that would have: nothing is lost by a better one that is about to end.
        let left = here.map_or(0, |entry| entry.expires.saturating_sub(now.unix.as_secs()));
        match here {
            Some(Entry { held: Held::Foreign { rank: known }, .. }) if *known == rank => Put::Known,
            None if life == 0 => Put::Refused(Refusal::Invalid),
            _ => {
                self.put_ranked(now, records, near, sender, target, value, rank, life.max(left).min(max_ttl))
            }
        }
    }

    /// Whether anything of this sender may come under this key now, and how it is kept then.
    fn may_come(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        sender: Sender,
        target: &Target,
    ) -> Result<Keeping, Put> {
        if let Sender::Peer { peer, remote } = sender
            && !self.rates.may_put(now, &self.config, &peer, Some(remote))
        {
            return Err(Put::Busy);
        }
        if self.writing.is_behind(&self.config) {
            return Err(Put::Busy);
        }
        let Some(limits) = records.keeping(target.name()) else {
            let fault = match Place::parse(records.network(), target.name()) {
                Named::Foreign(_) => RecordFault::UnknownNamespace,
                _ => RecordFault::Key,
            };
            return Err(Put::Refused(fault.refusal()));
        };
        if sender != Sender::Own && !self.is_ours_to_keep(near, target.key(), limits.replicas) {
            return Err(Put::Refused(Refusal::TooFar));
        }
        Ok(limits)
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
        let there = self.entries.get(&spot);
        let less = there.filter(|_| equivocates && known > Some(*claim.version()));
        let is_proved = less.is_some_and(|there| there.rival_at(now, records).is_some());
        if is_proved
            || !equivocates && self.high_water(&claim.id()).is_some_and(|mark| mark > *claim.version())
        {
            let shown = there.filter(|_| shows(&sender, claim));
            return Put::Stale(shown.map(|entry| entry.value.clone()));
        }
        let peer = match sender {
            Sender::Own => None,
            Sender::Peer { peer, .. } | Sender::Holder { peer, .. } => Some(peer),
        };
        // A token is a signature too, and both are paid for before either is checked.
        let checks = 1 + u32::from(!claim.token().is_empty());
        if peer.is_some_and(|peer| !self.rates.may_check(now, &self.config, &peer, checks)) {
            return Put::Busy;
        }
        let stranger = match self.welcome(now, records, claim, target) {
            Ok(welcome) => welcome == Welcome::Stranger,
            Err(put) => return put,
        };
        let origin = Origin::of(&sender);
        let goes = match self.place_for(records, &spot, claim.place().kind().into(), stranger, origin) {
            Ok(goes) => goes,
            Err(put) => return put,
        };
        let Some(full) = self.with_known_body(records, &spot, claim, value) else {
            return Put::Refused(Refusal::Invalid);
        };
        let Ok(record) = unverified.verify() else { return Put::Refused(Refusal::Invalid) };
        let unix = now.unix.as_secs();
        let expires = match records.times_count() {
            true => record.version().not_after,
            false => record
                .version()
                .not_after
                .clamp(unix.saturating_add(max_ttl / 4), unix.saturating_add(max_ttl)),
        };
        if equivocates {
            return self.note_equivocation(now, &spot, &record, full, expires);
        }
        let held = Held::Ours {
            kind: record.place().kind(),
            publisher: record.publisher(),
            version: *record.version(),
        };
        let id = record.id();
        // A longer life under the same number says what was said before: what contradicts it still does.
        let renewed = known.is_some_and(|it| it.seq == record.version().seq) && self.is_sound(records, &spot);
        let there = self.entries.get(&spot).filter(|_| renewed);
        let rival = there.and_then(|there| there.rival_at(now, records)).cloned();
        let entry = Entry {
            target: target.clone(),
            id,
            value: full,
            held,
            expires,
            since: unix,
            checked: true,
            stranger,
            origin,
            rival,
        };
        let put = self.admit(now, near, records, spot, entry, goes);
        if put == Put::Stored {
            self.clear_messages(now, &record);
        }
        put
    }

    #[expect(clippy::too_many_arguments, reason = "all of it comes from one call and is needed at one place")]
    fn put_foreign(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        sender: Sender,
        target: &Target,
        value: &Bytes,
        max_ttl: u64,
    ) -> Put {
        match Self::rank_of(now, records, target, value) {
            Ok(rank) => self.put_ranked(now, records, near, sender, target, value, rank, max_ttl),
            Err(put) => put,
        }
    }

    /// What the validator of its namespace thinks of a value.
    fn rank_of(now: Now, records: &Records, target: &Target, value: &Bytes) -> Result<Bytes, Put> {
        match records.check(now, target, value) {
            Ok(Checked::Foreign(judged)) => Ok(judged.rank),
            Ok(Checked::Record(_)) => Err(Put::Refused(Refusal::Invalid)),
            Err(fault) => Err(Put::Refused(fault.refusal())),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of it comes from one call and is needed at one place")]
    fn put_ranked(
        &mut self,
        now: Now,
        records: &Records,
        near: &dyn Near,
        sender: Sender,
        target: &Target,
        value: &Bytes,
        rank: Bytes,
        life: u64,
    ) -> Put {
        let spot = (self.own.distance(target.key()), Bytes::new());
        // The same one again lives longer: its validator knows no expiry, and its publisher says it again.
        if let Some(Entry { held: Held::Foreign { rank: known }, value: there, .. }) = self.entries.get(&spot)
            && *known > rank
        {
            return Put::Stale(Some(there.clone()));
        }
        let origin = Origin::of(&sender);
        let goes = match self.place_for(records, &spot, None, false, origin) {
            Ok(goes) => goes,
            Err(put) => return put,
        };
        let expires = now.unix.as_secs().saturating_add(life);
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
            origin,
            rival: None,
        };
        self.admit(now, near, records, spot, entry, goes)
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
        let entries = self.at(distance).map(|(_, entry)| entry);
        let others = entries.filter(|entry| entry.id != claim.id() && entry.publisher() != Some(recipient));
        let of_sender = others.filter(|entry| entry.publisher() == Some(&claim.publisher())).count();
        match of_sender >= records.config().mailbox_per_sender {
            true => Err(Put::Refused(Refusal::Quota)),
            false => Ok(welcome),
        }
    }

    /// Whose place something new takes at a full key or in a full mailbox, if anybody's. There only strangers' messages give way, and to strangers alone.
    fn place_for(
        &self,
        records: &Records,
        spot: &Spot,
        kind: Option<Kind>,
        stranger: bool,
        origin: Origin,
    ) -> Result<Option<Spot>, Put> {
        let many = kind.is_none_or(Kind::has_many_publishers);
        if !many || self.entries.contains_key(spot) {
            return Ok(None);
        }
        let there = || self.at(spot.0);
        let mut full = there().count() >= self.config.key_records;
        if kind == Some(Kind::Mailbox) && spot.1.len() > OWNERS_SLOT {
            let config = records.config();
            let messages = || there().filter(|(spot, _)| spot.1.len() > OWNERS_SLOT);
            full |= messages().count() >= config.mailbox_messages
                || stranger
                    && messages().filter(|(_, entry)| entry.stranger).count() >= config.mailbox_unknown;
        }
        if !full {
            return Ok(None);
        }
        let may_go = |entry: &Entry| kind != Some(Kind::Mailbox) || stranger && entry.stranger;
        let places = there()
            .filter(|(_, entry)| may_go(entry))
            .map(|(spot, entry)| (entry.origin, (Reverse(entry.expires), entry.bytes(), spot)));
        let goes = gives_way(origin, places, |place| *place);
        goes.map(|(_, _, spot)| Some(spot.clone())).ok_or(Put::Refused(Refusal::Quota))
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
    fn note_equivocation(
        &mut self,
        now: Now,
        spot: &Spot,
        record: &Claim,
        value: Bytes,
        expires: u64,
    ) -> Put {
        let Some(mut entry) = self.remove(now, spot, false) else { return Put::Busy };
        let before = entry.clone();
        let won = entry.version() < Some(record.version());
        let (winner, loser) = match won {
            true => (value, entry.value.clone()),
            false => (entry.value.clone(), value),
        };
        if won && let Held::Ours { version, .. } = &mut entry.held {
            *version = *record.version();
            entry.expires = expires;
            entry.since = now.unix.as_secs();
        }
        (entry.value, entry.rival) = (winner.clone(), Some(loser.clone()));
        self.keep_proof_with_room(&mut entry);
        if self.is_over(&entry) || !won && entry.rival.is_none() {
            self.insert(now, spot.clone(), before);
            return if won { Put::Refused(Refusal::Quota) } else { Put::Stale(Some(winner)) };
        }
        if self.equivocations.len() < MAX_EQUIVOCATIONS {
            let values = [winner.clone(), loser];
            let target = entry.target.clone();
            self.equivocations.push(Equivocation { publisher: record.publisher(), target, values });
        }
        self.insert(now, spot.clone(), entry);
        if won { Put::Stored } else { Put::Stale(Some(winner)) }
    }

    /// The proof is kept where there is room for it.
    fn keep_proof_with_room(&self, entry: &mut Entry) {
        let over_share =
            self.is_over_share(namespace(entry.kind()), entry.bytes(), self.config.namespace_share);
        if self.is_over(entry) || over_share {
            entry.rival = None;
        }
    }

    /// Whether an entry would be too much for its publisher or for the store.
    fn is_over(&self, entry: &Entry) -> bool {
        let used = entry.publisher().map(|publisher| self.used_by(publisher)).unwrap_or_default();
        let bytes = entry.bytes();
        used.bytes + bytes > self.config.publisher_bytes || self.used.bytes + bytes > self.config.max_bytes
    }

    /// Within the quotas, if need be in the place of something that goes first.
    fn admit(
        &mut self,
        now: Now,
        near: &dyn Near,
        records: &Records,
        spot: Spot,
        mut entry: Entry,
        goes: Option<Spot>,
    ) -> Put {
        let old = self.remove(now, &spot, false);
        if let Some(old) = old.as_ref().filter(|_| !entry.origin.is_sender()) {
            entry.origin = old.origin;
        }
        self.keep_proof_with_room(&mut entry);
        let bytes = entry.bytes();
        let publisher = entry.publisher().map(|publisher| self.used_by(publisher)).unwrap_or_default();
        let over_publisher = publisher.bytes + bytes > self.config.publisher_bytes
            || publisher.records >= self.config.publisher_records;
        let mut aside: Vec<(Spot, Entry)> = old.map(|old| (spot.clone(), old)).into_iter().collect();
        let verdict = if over_publisher {
            Err(Put::Refused(Refusal::Quota))
        } else {
            let gone = goes.and_then(|goes| self.remove(now, &goes, false).map(|gone| (goes, gone)));
            aside.extend(gone);
            self.make_room(now, near, records, &spot, &entry, &mut aside)
        };
        match verdict {
            Ok(()) => {
                let gone = aside.iter().filter(|(of, _)| *of != spot);
                gone.for_each(|(_, gone)| self.mark_gone(now, gone));
                self.insert(now, spot, entry);
                Put::Stored
            }
            Err(put) => {
                aside.into_iter().for_each(|(spot, entry)| self.insert(now, spot, entry));
                put
            }
        }
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
                self.mark(now, id, Mark { version: newest, until: entry.expires, origin: entry.origin });
            }
        }
    }

    /// What stands at a distance from us.
    pub(super) fn at(&self, distance: Distance) -> impl Iterator<Item = (&Spot, &Entry)> {
        self.entries.range((distance, Bytes::new())..).take_while(move |(spot, _)| spot.0 == distance)
    }
}

/// Whether a sender may see what is newer than this, before anybody has looked whether it is signed: a message is for its sender and its recipient alone, and whoever names those
/// could ask for it.
fn shows(sender: &Sender, claim: &Claim) -> bool {
    let Place::Mailbox { recipient, .. } = claim.place() else { return true };
    let publisher = claim.publisher();
    match sender {
        Sender::Own => true,
        Sender::Peer { peer, .. } | Sender::Holder { peer, .. } => {
            publisher == *recipient || [&publisher, recipient].contains(&peer)
        }
    }
}

/// The slot of a mailbox's owner is its peer ID; those of messages are longer.
const OWNERS_SLOT: usize = 38;
