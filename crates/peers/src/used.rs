//! The places that connections take, counted as they come, change and go: the caps ask for them after each event.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use peerage_identity::{AddressScope, IpPrefix};

use crate::manager::Conn;
use crate::types::Direction;

/// Which cap counts a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) direction: Direction,
    pub(crate) visit: bool,
}

impl Place {
    pub(crate) const ALL: [Place; 4] = [
        Place::ordinary(Direction::Inbound),
        Place::ordinary(Direction::Outbound),
        Place::of_visit(Direction::Inbound),
        Place::of_visit(Direction::Outbound),
    ];

    pub(crate) const fn ordinary(direction: Direction) -> Self {
        Self { direction, visit: false }
    }

    pub(crate) const fn of_visit(direction: Direction) -> Self {
        Self { direction, visit: true }
    }

    /// Where it stands in [`Place::ALL`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.direction == Direction::Outbound) + 2 * usize::from(self.visit)
    }
}

/// How many places are in use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    counts: [usize; Place::ALL.len()],
    /// Inbound ones, visits or others, by address and by subnet, without loopback. A block without any has no entry.
    blocks: BTreeMap<(bool, IpPrefix), usize>,
}

impl Used {
    pub(crate) fn of(&self, place: Place) -> usize {
        self.counts[place.index()]
    }

    /// Inbound ones in an address's or a subnet's block: visits or others.
    pub(crate) fn within(&self, visits: bool, block: &IpPrefix) -> usize {
        self.blocks.get(&(visits, *block)).copied().unwrap_or_default()
    }

    /// A connection takes this place from now on, or none.
    pub(crate) fn note(&mut self, conn: &mut Conn, takes: Option<Place>) {
        let before = std::mem::replace(&mut conn.takes, takes);
        if before == takes {
            return;
        }
        let ip = conn.remote.ip();
        if let Some(place) = before {
            self.left(place, ip);
        }
        if let Some(place) = takes {
            self.came(place, ip);
        }
    }

    /// One more is taken by a connection from this address.
    pub(crate) fn came(&mut self, place: Place, ip: IpAddr) {
        self.counts[place.index()] += 1;
        if place.direction == Direction::Inbound {
            blocks(ip).for_each(|block| *self.blocks.entry((place.visit, block)).or_default() += 1);
        }
    }

    fn left(&mut self, place: Place, ip: IpAddr) {
        self.counts[place.index()] -= 1;
        let inbound = place.direction == Direction::Inbound;
        for block in blocks(ip).filter(|_| inbound) {
            if let Entry::Occupied(mut count) = self.blocks.entry((place.visit, block)) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

/// The blocks that the caps count an address in: they differ in length, so that none is both.
fn blocks(ip: IpAddr) -> impl Iterator<Item = IpPrefix> {
    let exempt = AddressScope::of(ip).is_exempt_from_address_rules();
    [IpPrefix::address_of(ip), IpPrefix::subnet_of(ip)].into_iter().filter(move |_| !exempt)
}
