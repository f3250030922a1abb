//! What the user said of single peers while the node ran, kept for its next start: classes, and who was allowed.
//!
//! What is said at the start, in flags or settings, holds for that run and is not stored; it adds to what is. [`Input::Standings`](crate::Input::Standings)
//! ends the start: it brings back what was stored, and from then on each word is stored at once, with the address of a peer that is to be dialled.

use std::collections::BTreeSet;

use peerage_identity::PeerId;
use peerage_machine::Now;
use serde::{Deserialize, Serialize};

use crate::class::PeerClass;
use crate::manager::PeerManager;
use crate::record::{BadEntry, BookChange};
use crate::types::Output;

/// What the user said of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Of whom.
    pub peer: PeerId,
    /// Its classes.
    pub classes: BTreeSet<PeerClass>,
    /// It was put on the allow-list.
    pub allowed: bool,
}

/// The same in text, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StandingEntry {
    /// The peer ID.
    pub peer: String,
    /// The names of its classes.
    pub classes: Vec<String>,
    /// It was put on the allow-list.
    pub allowed: bool,
}

impl Standing {
    fn none(peer: PeerId) -> Self {
        Self { peer, classes: BTreeSet::new(), allowed: false }
    }

    fn is_none(&self) -> bool {
        self.classes.is_empty() && !self.allowed
    }

    fn write(&self) -> StandingEntry {
        StandingEntry {
            peer: self.peer.to_string(),
            classes: self.classes.iter().map(ToString::to_string).collect(),
            allowed: self.allowed,
        }
    }

    /// Reads what was stored. Classes that are not known here, such as those of a later version, are passed over.
    ///
    /// # Errors
    /// [`BadEntry`] when it names no peer.
    pub fn read(entry: &StandingEntry) -> Result<Self, BadEntry> {
        let peer = entry.peer.parse::<PeerId>();
        let peer = peer.map_err(|error| BadEntry::new(&entry.peer, error.to_string()))?;
        let named = |class: &&PeerClass| entry.classes.iter().any(|name| *name == class.to_string());
        let classes = PeerClass::ALL.iter().filter(named).copied().collect();
        Ok(Self { peer, classes, allowed: entry.allowed })
    }
}

impl PeerManager {
    /// Brings back what was stored. From now on what the user says is stored.
    pub(crate) fn restore_standings(&mut self, now: Now, standings: Vec<Standing>) {
        let mut allowed = self.allowed.clone();
        for standing in standings {
            if standing.peer == self.me {
                continue;
            }
            for class in &standing.classes {
                self.set_class(now, standing.peer, *class, true);
            }
            if let Some(list) = allowed.as_mut().filter(|_| standing.allowed) {
                list.insert(standing.peer);
            }
            self.said.insert(standing.peer, standing);
        }
        if allowed != self.allowed {
            self.set_allowed(now, allowed);
        }
        self.remembers = true;
    }

    /// The user gave a class, or took it away.
    pub(crate) fn remember_class(&mut self, peer: PeerId, class: PeerClass, on: bool) {
        self.remember(peer, |standing| match on {
            true => standing.classes.insert(class),
            false => standing.classes.remove(&class),
        });
    }

    /// The user put a peer on the allow-list, or took it off.
    pub(crate) fn remember_allowed(&mut self, peer: PeerId, on: bool) {
        self.remember(peer, |standing| std::mem::replace(&mut standing.allowed, on) != on);
    }

    /// The user put another allow-list in the place of the one before.
    pub(crate) fn remember_list(&mut self, allowed: Option<&BTreeSet<PeerId>>) {
        let before = self.said.values().filter(|standing| standing.allowed).map(|standing| standing.peer);
        let concerned: BTreeSet<_> = before.chain(allowed.into_iter().flatten().copied()).collect();
        for peer in concerned {
            self.remember_allowed(peer, allowed.is_some_and(|allowed| allowed.contains(&peer)));
        }
    }

    /// Stores what changes.
    fn remember(&mut self, peer: PeerId, change: impl FnOnce(&mut Standing) -> bool) {
        if !self.remembers || peer == self.me {
            return;
        }
        let standing = self.said.entry(peer).or_insert_with(|| Standing::none(peer));
        let changed = change(standing);
        let (entry, none) = (standing.write(), standing.is_none());
        if none {
            self.said.remove(&peer);
        }
        if !changed {
            return;
        }
        let mut changes = Vec::new();
        if none {
            changes.push(BookChange::RemoveStanding(peer));
        } else {
            changes.push(BookChange::PutStanding(Box::new(entry)));
            // A peer that is to be dialled after a crash needs its address then.
            changes.extend(self.entry_of(&peer).map(|entry| BookChange::Put(Box::new(entry))));
        }
        self.outputs.push_back(Output::Save { changes });
    }
}
