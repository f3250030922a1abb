//! Where what we keep came from, and whose place goes to a newcomer where there is no more room.
//!
//! Signers cost nothing, addresses do: where a key, a mailbox or the furthest providers are full, places are shared out among the subnets that filled them, and among the
//! peers of a machine's own loopback. Whoever has fewer places than the one with most takes one of its; nothing depends on who came first.

use std::collections::BTreeMap;

use peerage_identity::PeerId;

use super::Sender;
use crate::{Key, Subnet};

/// Who brought a record here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The disk of an earlier version, or we ourselves: nobody to hold it against.
    Unknown,
    /// Somebody in this subnet.
    Subnet(Subnet),
    /// A peer to which rules for subnets don't apply, by the first bytes of its place.
    Peer(u64),
    /// Another holder in this subnet, which somebody else had brought it to. Where places are shared out that is nobody's; what is remembered of it is that holder's.
    Handed(Subnet),
    /// The same of a holder to which rules for subnets don't apply.
    HandedBy(u64),
}

impl Origin {
    /// Of what this sender brings.
    pub(super) fn of(sender: &Sender) -> Self {
        match sender {
            Sender::Peer { peer, remote } => match Subnet::of(*remote) {
                Some(subnet) => Self::Subnet(subnet),
                None => Self::Peer(first_bytes(peer)),
            },
            Sender::Holder { subnet: Some(subnet), .. } => Self::Handed(*subnet),
            Sender::Holder { peer, subnet: None } => Self::HandedBy(first_bytes(peer)),
            Sender::Own => Self::Unknown,
        }
    }

    /// Whether it is whoever asked us to store it.
    pub(super) fn is_sender(self) -> bool {
        matches!(self, Self::Subnet(_) | Self::Peer(_))
    }

    /// As it stands in a row.
    pub(super) fn to_bytes(self) -> [u8; 9] {
        let (tag, number) = match self {
            Self::Unknown => (0, 0),
            Self::Subnet(subnet) => (1, subnet.to_number()),
            Self::Peer(first) => (2, first),
            Self::Handed(subnet) => (3, subnet.to_number()),
            Self::HandedBy(first) => (4, first),
        };
        let mut bytes = [tag; 9];
        bytes[1..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    /// From such a row; nobody where there is none, as an earlier version wrote it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let Some((tag, number)) =
            bytes.split_first().and_then(|(tag, rest)| Some((*tag, *rest.first_chunk::<8>()?)))
        else {
            return Self::Unknown;
        };
        let number = u64::from_be_bytes(number);
        match tag {
            1 => Subnet::from_number(number).map_or(Self::Unknown, Self::Subnet),
            2 => Self::Peer(number),
            3 => Subnet::from_number(number).map_or(Self::Unknown, Self::Handed),
            4 => Self::HandedBy(number),
            _ => Self::Unknown,
        }
    }
}

/// Whose place a newcomer takes: of those who have most of the places the one that `last` puts last. `None` when the newcomer would then have as many as they: each exchange
/// makes the shares more alike, so that nobody takes places to and fro.
///
/// What another holder hands over takes nobody's place: it has come to whoever else is responsible, too.
pub(super) fn gives_way<T, K: Ord>(
    newcomer: Origin,
    there: impl Iterator<Item = (Origin, T)>,
    last: impl Fn(&T) -> K,
) -> Option<T> {
    let shares = shares(there, last);
    let own = shares.get(&newcomer).map_or(0, |(count, _)| *count);
    let (count, entry) = shares.into_values().max_by_key(|(count, _)| *count)?;
    (newcomer.is_sender() && own + 1 < count).then_some(entry)
}

/// The last one of those who have most of the places.
pub(super) fn last_of_most<T, K: Ord>(
    there: impl Iterator<Item = (Origin, T)>,
    last: impl Fn(&T) -> K,
) -> Option<T> {
    shares(there, last).into_values().max_by_key(|(count, _)| *count).map(|(_, entry)| entry)
}

/// How many places each origin has, and the last one of each.
fn shares<T, K: Ord>(
    there: impl Iterator<Item = (Origin, T)>,
    last: impl Fn(&T) -> K,
) -> BTreeMap<Origin, (usize, T)> {
    let mut shares: BTreeMap<Origin, (usize, T)> = BTreeMap::new();
    for (origin, entry) in there {
        let origin = if origin.is_sender() { origin } else { Origin::Unknown };
        match shares.get_mut(&origin) {
            Some((count, before)) => {
                *count += 1;
                if last(&entry) > last(before) {
                    *before = entry;
                }
            }
            None => drop(shares.insert(origin, (1, entry))),
        }
    }
    shares
}

fn first_bytes(peer: &PeerId) -> u64 {
    let first = Key::of_peer(peer).to_bytes().first_chunk::<8>().map(|first| u64::from_be_bytes(*first));
    first.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::peer;

    fn subnet(number: u8) -> Origin {
        let remote = std::net::IpAddr::from([20, 0, number, 1]);
        Origin::of(&Sender::Peer { peer: peer(1), remote })
    }

    #[test]
    fn an_origin_comes_back_from_its_row_and_what_is_none_is_nobodys() {
        let local = Origin::of(&Sender::Peer { peer: peer(1), remote: [127, 0, 0, 1].into() });
        assert!(matches!(local, Origin::Peer(_)));
        let Origin::Subnet(near) = subnet(3) else { panic!("{:?}", subnet(3)) };
        let handed = [None, Some(near)].map(|subnet| Origin::of(&Sender::Holder { peer: peer(1), subnet }));
        assert!(matches!(handed, [Origin::HandedBy(_), Origin::Handed(_)]));
        for origin in [Origin::Unknown, subnet(3), local, handed[0], handed[1]] {
            assert_eq!(Origin::from_bytes(&origin.to_bytes()), origin);
        }
        assert_eq!([&[][..], &[1; 4], &[9; 9]].map(Origin::from_bytes), [Origin::Unknown; 3]);
    }

    #[test]
    fn whoever_has_most_gives_way_to_whoever_has_at_least_two_fewer() {
        let there = |counts: [usize; 2]| {
            let of = |at: usize| (0..counts[at]).map(move |number| (subnet(at as u8), (at, number)));
            of(0).chain(of(1))
        };
        let goes = |newcomer, counts| gives_way(newcomer, there(counts), |entry| *entry);
        assert_eq!(goes(subnet(9), [4, 2]), Some((0, 3)));
        assert_eq!(goes(subnet(1), [4, 2]), Some((0, 3)));
        assert_eq!(goes(subnet(1), [4, 3]), None);
        assert_eq!(goes(subnet(0), [4, 2]), None);
        assert_eq!(goes(subnet(9), [1, 1]), None);
        assert_eq!(goes(Origin::Unknown, [4, 2]), None);
        assert_eq!(goes(Origin::HandedBy(1), [4, 2]), None);
    }
}
