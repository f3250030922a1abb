//! What is known of what is kept, without looking into it.

use peerage_identity::PeerId;

use super::entry::{Entry, Held};
use crate::Target;
use crate::record::{EntryId, Kind, Records, Version};

/// What is known of a record without looking into it.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    /// Where it stands.
    pub target: &'a Target,
    /// Its name.
    pub id: EntryId,
    /// What it is for.
    pub kind: Kind,
    /// Who has signed it.
    pub publisher: &'a PeerId,
    /// How new it is.
    pub version: &'a Version,
    /// When it goes, in seconds since 1970.
    pub expires: u64,
    /// When it came, in the same seconds.
    pub since: u64,
}

impl<'a> Summary<'a> {
    pub(super) fn of(entry: &'a Entry) -> Option<Self> {
        let Held::Ours { kind, publisher, version } = &entry.held else { return None };
        Some(Self {
            publisher,
            target: &entry.target,
            id: entry.id,
            kind: *kind,
            version,
            expires: entry.expires,
            since: entry.since,
        })
    }
}

/// What is known of anything that is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) target: &'a Target,
    pub(crate) id: EntryId,
    pub(crate) what: What<'a>,
    /// When it goes, and when it came, in seconds since 1970.
    pub(crate) expires: u64,
    pub(crate) since: u64,
}

/// Whose rules say which one of two is newer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What<'a> {
    /// A record of ours; beside it stands until then the other one of two that its publisher has signed under one number.
    Record { kind: Kind, publisher: &'a PeerId, version: &'a Version, proved: Option<u64> },
    /// A value of another namespace, with the rank that its validator gives it.
    Raw { rank: &'a [u8] },
}

impl<'a> Kept<'a> {
    pub(super) fn of(entry: &'a Entry, records: &Records) -> Self {
        let what = match &entry.held {
            Held::Ours { kind, publisher, version } => {
                What::Record { kind: *kind, publisher, version, proved: entry.rival_until(records) }
            }
            Held::Foreign { rank } => What::Raw { rank },
        };
        Self { target: &entry.target, id: entry.id, what, expires: entry.expires, since: entry.since }
    }
}
