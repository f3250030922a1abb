//! The places that connections take, counted as they come, change and go: the caps ask for them after each event.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use peerage_identity::{AddressScope, IpPrefix};

use crate::manager::Conn;
use crate::types::Direction;

/// How many places are in use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    inbound: usize,
    outbound: usize,
    /// Inbound ones by address and by subnet, without loopback. A block without any has no entry.
    blocks: BTreeMap<IpPrefix, usize>,
}

impl Used {
    pub(crate) fn of(&self, place: Direction) -> usize {
        match place {
            Direction::Inbound => self.inbound,
            Direction::Outbound => self.outbound,
        }
    }

    /// Inbound ones in an address's or a subnet's block.
    pub(crate) fn within(&self, block: &IpPrefix) -> usize {
        self.blocks.get(block).copied().unwrap_or_default()
    }

    /// A connection takes this place from now on, or none.
    pub(crate) fn note(&mut self, conn: &mut Conn, takes: Option<Direction>) {
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
    pub(crate) fn came(&mut self, place: Direction, ip: IpAddr) {
        match place {
            Direction::Outbound => self.outbound += 1,
            Direction::Inbound => {
                self.inbound += 1;
                blocks(ip).for_each(|block| *self.blocks.entry(block).or_default() += 1);
            }
        }
    }

    fn left(&mut self, place: Direction, ip: IpAddr) {
        match place {
            Direction::Outbound => self.outbound -= 1,
            Direction::Inbound => {
                self.inbound -= 1;
                for block in blocks(ip) {
                    if let Entry::Occupied(mut count) = self.blocks.entry(block) {
                        *count.get_mut() -= 1;
                        if *count.get() == 0 {
                            count.remove();
                        }
                    }
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
