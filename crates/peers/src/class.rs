//! What the user has said about single peers: who is always wanted, who is exempt from the caps, who is never told to others.

use std::collections::BTreeSet;
use std::fmt;

use peerage_identity::PeerId;

/// A standing that the user gives to a peer, at the start or at run time. A peer may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PeerClass {
    /// Always wanted: redialled for ever, outside the caps in both directions, and never banned automatically.
    Persistent,
    /// Admitted whatever the caps say, and heard while strangers are turned away. Not redialled for ever.
    Unconditional,
    /// Never told to others: neither its ID nor its addresses stand in a message to anyone but itself.
    Private,
}

impl PeerClass {
    /// Every class.
    pub const ALL: &[PeerClass] = &[PeerClass::Persistent, PeerClass::Unconditional, PeerClass::Private];
}

impl fmt::Display for PeerClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerClass::Persistent => "persistent",
            PeerClass::Unconditional => "unconditional",
            PeerClass::Private => "private",
        })
    }
}

/// Who has which class. It grows by what the user says, and by nothing else.
#[derive(Debug, Default)]
pub(crate) struct Classes(BTreeSet<(PeerId, PeerClass)>);

impl Classes {
    /// Gives a class, or takes it away. True when that changed something.
    pub(crate) fn set(&mut self, peer: PeerId, class: PeerClass, on: bool) -> bool {
        if on { self.0.insert((peer, class)) } else { self.0.remove(&(peer, class)) }
    }

    pub(crate) fn has(&self, peer: &PeerId, class: PeerClass) -> bool {
        self.0.contains(&(*peer, class))
    }

    /// The caps don't hold for it.
    pub(crate) fn is_exempt(&self, peer: &PeerId) -> bool {
        self.has(peer, PeerClass::Persistent) || self.has(peer, PeerClass::Unconditional)
    }

    /// The user has said something about it, so the address book keeps it.
    pub(crate) fn is_named(&self, peer: &PeerId) -> bool {
        PeerClass::ALL.iter().any(|class| self.has(peer, *class))
    }

    /// Everyone with this class, in the order of their IDs.
    pub(crate) fn with(&self, class: PeerClass) -> impl Iterator<Item = PeerId> + '_ {
        self.0.iter().filter(move |(_, has)| *has == class).map(|(peer, _)| *peer)
    }

    /// Everyone with a class that exempts from the caps.
    pub(crate) fn exempt(&self) -> BTreeSet<PeerId> {
        self.with(PeerClass::Persistent).chain(self.with(PeerClass::Unconditional)).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, PeerClass)> + '_ {
        self.0.iter().copied()
    }
}
