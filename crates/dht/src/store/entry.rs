//! One record as it is kept.

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use super::origin::Origin;
use crate::record::{EntryId, Kind, Records, Unverified, Version};
use crate::{Distance, Target};

/// Where a record stands among the others: by its distance from us, then by its slot under its key.
pub(super) type Spot = (Distance, Bytes);

/// A record with what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) target: Target,
    pub(super) id: EntryId,
    pub(super) value: Bytes,
    pub(super) held: Held,
    /// When it goes, in seconds since 1970, by our clock.
    pub(super) expires: u64,
    /// When this version came, or was read from the disk, in the same seconds: half of its life counts from here.
    pub(super) since: u64,
    /// Whether its signature was checked since it was loaded.
    pub(super) checked: bool,
    /// A message to a mailbox from somebody without a token.
    pub(super) stranger: bool,
    /// Who brought it here first.
    pub(super) origin: Origin,
    /// Another record of the same publisher and sequence, with another body: the proof that it says two things.
    pub(super) rival: Option<Bytes>,
}

/// What decides which one is newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// A record of ours.
    Ours { kind: Kind, publisher: PeerId, version: Version },
    /// A value of another namespace, with the rank that its validator gives it.
    Foreign { rank: Bytes },
}

impl Entry {
    /// What it counts: its bytes, and what is kept about it.
    pub(super) fn bytes(&self) -> usize {
        ENTRY_OVERHEAD
            + self.target.name().len()
            + self.value.len()
            + self.rival.as_ref().map_or(0, Bytes::len)
    }

    /// The proof, while its own time is not over: readers would take what has expired for a fault of whoever shows it.
    pub(super) fn rival_at(&self, now: Now, records: &Records) -> Option<&Bytes> {
        let until = self.rival_until(records)?;
        self.rival.as_ref().filter(|_| until > now.unix.as_secs())
    }

    /// Until when the proof is one, in seconds since 1970. While our clock is wrong its time is never over.
    pub(super) fn rival_until(&self, records: &Records) -> Option<u64> {
        let until =
            Unverified::read(records.network(), self.rival.as_ref()?).ok()?.claim().version().not_after;
        Some(if records.times_count() { until } else { u64::MAX })
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        match &self.held {
            Held::Ours { kind, .. } => Some(*kind),
            Held::Foreign { .. } => None,
        }
    }

    pub(super) fn publisher(&self) -> Option<&PeerId> {
        match &self.held {
            Held::Ours { publisher, .. } => Some(publisher),
            Held::Foreign { .. } => None,
        }
    }

    pub(super) fn version(&self) -> Option<&Version> {
        match &self.held {
            Held::Ours { version, .. } => Some(version),
            Held::Foreign { .. } => None,
        }
    }
}

/// What a record takes beside its bytes: its entries in the indexes.
pub(super) const ENTRY_OVERHEAD: usize = 512;
