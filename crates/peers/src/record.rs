//! The address book and the bans as plain data: what is stored, exported and imported.
//!
//! [`BookEntry`] is one peer in text and numbers, the same in the store and in an exported file; [`BanEntry`] is one ban, which is only stored. Fields that are missing have their
//! defaults and unknown ones are passed over, so that versions can read one another's. What comes back from outside goes through
//! [`StoredPeer::read`], which checks signatures, or [`Ban::read`]; nothing else can be loaded.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use multibase::Base;
use peerage_identity::{AddressScope, DialAddress, PeerId, SignedPeerRecord};
use peerage_machine::Now;
use serde::{Deserialize, Serialize};

use crate::bans::{Ban, BanTarget, MAX_BAN_REASON};
use crate::book::{KnownAddress, KnownPeer, Source};
use crate::cause::Cause;
use crate::class::PeerClass;
use crate::manager::PeerManager;
use crate::penalty::Penalty;
use crate::standing::StandingEntry;
use crate::types::Output;

/// What is known of one peer. Times are milliseconds since 1970 unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BookEntry {
    /// Its peer ID.
    pub peer: String,
    /// Where it may be reached.
    pub addresses: Vec<AddressEntry>,
    /// Its signed peer record, in multibase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Failures since the last useful connection: what the backoff is drawn from.
    pub failures: u32,
    /// Not dialled before this time.
    pub retry_at: u64,
    /// When it was first heard of.
    pub first_known: u64,
    /// How long it was connected in all, in seconds.
    pub connected_seconds: u64,
}

/// What is known of one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressEntry {
    /// A multiaddr without a peer ID.
    pub address: String,
    /// Who told us.
    pub source: Source,
    /// The scope from which it was told, by its name: `global`, `private`, `link-local` or `loopback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_from: Option<String>,
    /// Handshakes that proved the peer to be there.
    #[serde(default)]
    pub successes: u32,
    /// Dials that did not.
    #[serde(default)]
    pub failures: u32,
    /// Dials that did not, since the last one that did.
    #[serde(default)]
    pub failures_in_a_row: u32,
    /// The last time that the peer was proved to be there; missing for hearsay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
    /// The last round trip, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_micros: Option<u64>,
}

/// One ban. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BanEntry {
    /// Who: the text of a [`BanTarget`].
    pub target: String,
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub since: u64,
    /// Until when; missing until it is lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The name of the penalty, when it was not the user who banned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<String>,
    /// Where a peer that was banned automatically came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
}

/// A change of the address book or the bans that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BookChange {
    /// The entry of a peer as it is now.
    Put(Box<BookEntry>),
    /// The peer is no longer in the book.
    Remove(PeerId),
    /// A ban that is in force.
    PutBan(Box<BanEntry>),
    /// There is no such ban any more.
    RemoveBan(BanTarget),
    /// What the user said of a peer while the node ran.
    PutStanding(Box<StandingEntry>),
    /// The user has taken all of it back.
    RemoveStanding(PeerId),
}

/// An entry whose text was read and whose signature was checked.
#[derive(Debug, Clone)]
pub struct StoredPeer {
    peer: PeerId,
    known: KnownPeer,
}

/// Why an entry cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the entry of {peer:?} cannot be read: {detail}")]
pub struct BadEntry {
    /// What stands where the peer ID, or the target of a ban, should be, shortened.
    pub peer: String,
    /// What is wrong.
    pub detail: String,
}

/// Addresses that are read of one entry; the book keeps fewer.
pub(crate) const MAX_ADDRESSES: usize = 64;
/// The longest record in text.
const MAX_RECORD_TEXT: usize = 16 * 1024;
/// The longest text that an error repeats.
const MAX_SHOWN: usize = 64;

impl StoredPeer {
    /// Reads an entry from outside. Addresses that cannot be dialled and a record that does not hold are left out.
    ///
    /// # Errors
    /// [`BadEntry`] when it names no peer, or nothing that is left of it is of use.
    pub fn read(entry: &BookEntry) -> Result<Self, BadEntry> {
        let bad = |detail: String| BadEntry::new(&entry.peer, detail);
        let peer = PeerId::from_str(&entry.peer).map_err(|error| bad(error.to_string()))?;
        let addresses = entry.addresses.iter().take(MAX_ADDRESSES);
        let addresses: Vec<_> = addresses.filter_map(AddressEntry::read).collect();
        let record = entry.record.as_deref().and_then(read_record).filter(|record| record.peer_id() == peer);
        if addresses.is_empty() && record.is_none() {
            return Err(bad("it holds no address that can be dialled and no valid record".to_owned()));
        }
        let known = KnownPeer {
            addresses,
            record,
            failures: entry.failures,
            retry_at: Duration::from_millis(entry.retry_at),
            first_known: Duration::from_millis(entry.first_known),
            connected_for: Duration::from_secs(entry.connected_seconds),
            ..KnownPeer::default()
        };
        Ok(Self { peer, known })
    }

    /// Whose entry it is.
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

impl BadEntry {
    pub(crate) fn new(shown: &str, detail: String) -> Self {
        Self { peer: shown[..shown.floor_char_boundary(MAX_SHOWN)].to_owned(), detail }
    }
}

impl Ban {
    /// Reads a ban from outside. Of what is not known here, such as the penalty of a later version, the ban is kept without it.
    ///
    /// # Errors
    /// [`BadEntry`] when it names nobody who can be banned.
    pub fn read(entry: &BanEntry) -> Result<Self, BadEntry> {
        let target = entry.target.parse::<BanTarget>();
        let target = target.map_err(|error| BadEntry::new(&entry.target, error.to_string()))?;
        let block = |text: &String| match text.parse() {
            Ok(BanTarget::Block(block)) => Some(block),
            _ => None,
        };
        Ok(Self {
            target,
            reason: entry.reason[..entry.reason.floor_char_boundary(MAX_BAN_REASON)].to_owned(),
            since: Duration::from_millis(entry.since),
            until: entry.until.map(Duration::from_millis),
            penalty: entry.penalty.as_deref().and_then(Penalty::from_name),
            seen_at: entry.seen_at.as_ref().and_then(block),
        })
    }
}

impl BanEntry {
    pub(crate) fn write(ban: &Ban) -> Self {
        Self {
            target: ban.target.to_string(),
            reason: ban.reason.clone(),
            since: millis(ban.since),
            until: ban.until.map(millis),
            penalty: ban.penalty.map(|penalty| penalty.name().to_owned()),
            seen_at: ban.seen_at.map(|block| block.to_string()),
        }
    }
}

impl AddressEntry {
    fn write(at: &KnownAddress) -> Self {
        Self {
            address: at.address.to_string(),
            source: at.source,
            told_from: at.told_from.map(|scope| scope.to_string()),
            successes: at.successes,
            failures: at.all_failures,
            failures_in_a_row: at.failures,
            last_seen: at.seen.map(millis),
            rtt_micros: at.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    fn read(&self) -> Option<KnownAddress> {
        let address = DialAddress::from_str(&self.address).ok()?.without_peer_id();
        // An unknown scope may name only what everybody may.
        let scope = |name: &str| match name {
            "loopback" => AddressScope::Loopback,
            "link-local" => AddressScope::LinkLocal,
            "private" => AddressScope::Private,
            _ => AddressScope::Global,
        };
        Some(KnownAddress {
            successes: self.successes,
            failures: self.failures_in_a_row,
            all_failures: self.failures,
            seen: self.last_seen.map(Duration::from_millis),
            rtt: self.rtt_micros.map(Duration::from_micros),
            ..KnownAddress::new(address, self.source, self.told_from.as_deref().map(scope))
        })
    }
}

impl PeerManager {
    /// The entry of one peer as it is now.
    pub(crate) fn entry_of(&self, peer: &PeerId) -> Option<BookEntry> {
        self.book.get(peer).map(|known| write(peer, known))
    }

    /// The address book without private peers and their addresses, in the order of the peers' IDs: what a user may give away.
    pub fn export_book(&self) -> impl Iterator<Item = BookEntry> + '_ {
        let private = self.private_endpoints(&self.me);
        let public = |peer: &PeerId| !self.book.classes.has(peer, PeerClass::Private);
        self.book.iter().filter(move |(peer, _)| public(peer)).map(move |(peer, known)| {
            let is_private = |address: &DialAddress| private.contains(&address.clone().without_peer_id());
            let mut known = known.clone();
            // Others may say that they live where a private peer does.
            known.addresses.retain(|at| !is_private(&at.address));
            known.record = known.record.filter(|record| !record.addresses().iter().any(is_private));
            write(peer, &known)
        })
    }

    /// Takes in what was stored by an earlier run. From now on changes are handed out to be stored.
    pub(crate) fn load(&mut self, now: Now, peers: Vec<StoredPeer>) {
        self.take_in(now, peers);
        // What has just been read need not be written.
        self.book.unsaved = Some(std::collections::BTreeSet::new());
    }

    /// Takes in entries of an exported book. What another node has found is hearsay here: it is dialled before it is believed.
    pub(crate) fn import(&mut self, now: Now, peers: Vec<StoredPeer>) {
        let told = |mut stored: StoredPeer| {
            stored.known.connected_for = Duration::ZERO;
            for at in &mut stored.known.addresses {
                (at.source, at.seen, at.successes) = (Source::Hearsay, None, 0);
            }
            stored
        };
        self.take_in(now, peers.into_iter().map(told).collect());
    }

    /// Takes in entries of peers that are not known yet. Those that are keep what is known of them.
    fn take_in(&mut self, now: Now, peers: Vec<StoredPeer>) {
        for StoredPeer { peer, mut known } in peers {
            if peer == self.me {
                continue;
            }
            // The clock may have been set back since: nobody waits longer than the longest backoff.
            let wait = known.retry_at.saturating_sub(now.unix).min(self.config.backoff_ceiling);
            known.retry_at = now.unix + wait;
            known.first_known = known.first_known.min(now.unix);
            known.addresses.iter_mut().for_each(|at| at.seen = at.seen.map(|seen| seen.min(now.unix)));
            // What worked before is tried first.
            let order = if known.is_verified() { 1 } else { 4 };
            if self.book.load(peer, known, &mut self.random) {
                let spread = self.random.up_to(self.config.backoff_base * order);
                self.enqueue(peer, now.mono + wait.max(spread));
                self.note(now, peer, Cause::Loaded, "");
            }
        }
    }

    /// Hands out what changed in the book, when it is time.
    pub(crate) fn save(&mut self, now: Now) {
        let unsaved = self.book.unsaved.as_ref().is_some_and(|unsaved| !unsaved.is_empty());
        if !unsaved {
            self.save_due = None;
            return;
        }
        let due = *self.save_due.get_or_insert(now.mono + self.config.save_after);
        if due <= now.mono || self.shutting_down {
            self.save_due = None;
            let unsaved = self.book.unsaved.as_mut().map(std::mem::take).unwrap_or_default();
            let change = |peer: PeerId| match self.book.get(&peer) {
                Some(known) => BookChange::Put(Box::new(write(&peer, known))),
                None => BookChange::Remove(peer),
            };
            let changes = unsaved.into_iter().map(change).collect();
            self.outputs.push_back(Output::Save { changes });
        }
    }
}

fn write(peer: &PeerId, known: &KnownPeer) -> BookEntry {
    BookEntry {
        peer: peer.to_string(),
        addresses: known.addresses.iter().map(AddressEntry::write).collect(),
        record: known.record.as_ref().map(|record| multibase::encode(Base::Base64Url, record.as_bytes())),
        failures: known.failures,
        retry_at: millis(known.retry_at),
        first_known: millis(known.first_known),
        connected_seconds: known.connected_for.as_secs(),
    }
}

fn read_record(text: &str) -> Option<SignedPeerRecord> {
    if text.len() > MAX_RECORD_TEXT {
        return None;
    }
    let (_, bytes) = multibase::decode(text).ok()?;
    SignedPeerRecord::verify(&Bytes::from(bytes)).ok()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
