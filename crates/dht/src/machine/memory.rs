//! What of a node, besides its records, is worth a row on its disk: whom it knows best, and whom it saw lately (AL-70).

use bytes::{BufMut, Bytes, BytesMut};
use peerage_identity::{DialAddress, decode_peer_id};
use peerage_machine::{Machine as _, Now};

use super::{Dht, Input, Source};
use crate::Contact;
use crate::store::disk::{checked, put_part, take_part, unchecked};

impl Dht {
    /// The row to write, at most once in a while and at the end of the node: peers that have been there for long, the nearest of the table, and who was seen when.
    /// [`Dht::restore`] takes it back in. Beside the records' rows it has a key of its own.
    pub fn memory(&self) -> (Bytes, Bytes) {
        let mut out = BytesMut::new();
        let kept = self.keep();
        out.put_u32(kept.len() as u32);
        for contact in &kept {
            put_part(&mut out, &contact.peer().to_bytes());
            let addresses: Vec<&[u8]> = contact.binary_addresses().collect();
            out.put_u32(addresses.len() as u32);
            addresses.iter().for_each(|address| put_part(&mut out, address));
        }
        for (id, second) in self.seen.save() {
            out.put_slice(&id);
            out.put_u64(second);
        }
        (Bytes::from_static(MEMORY_ROW), checked(MEMORY_ROW, &out))
    }

    /// Takes in what an earlier run remembered: the peers as the address book's, which prove themselves before they count. False when the row is damaged.
    pub(super) fn recall(&mut self, now: Now, row: &Bytes) -> bool {
        let Some((contacts, seen)) = unchecked(MEMORY_ROW, row).and_then(|row| self.read(row)) else {
            return false;
        };
        self.seen.load(now, seen);
        if !contacts.is_empty() {
            self.handle(now, Input::Known { contacts, source: Source::Book });
        }
        true
    }

    fn read(&self, mut rest: Bytes) -> Option<(Vec<Contact>, Vec<Sighting>)> {
        let mut contacts = Vec::new();
        // Each is read, so that what follows is found where it stands; a row ends before a count that is too large does.
        for _ in 0..take_u32(&mut rest)? {
            let peer = decode_peer_id(&take_part(&mut rest)?).ok()?;
            let mut addresses = Vec::new();
            for _ in 0..take_u32(&mut rest)? {
                addresses.push(DialAddress::from_bytes(&take_part(&mut rest)?).ok()?);
            }
            contacts.push(Contact::new(peer, &addresses));
        }
        contacts.truncate(self.config.upkeep.known_contacts);
        let seen = rest.chunks_exact(24).filter_map(|entry| {
            let (id, second) = entry.split_first_chunk::<16>()?;
            Some((*id, u64::from_be_bytes(second.try_into().ok()?)))
        });
        Some((contacts, seen.collect()))
    }
}

/// Half of a peer's key, and when it was seen last as seconds since 1970.
type Sighting = ([u8; 16], u64);

fn take_u32(rest: &mut Bytes) -> Option<u32> {
    let number = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    *rest = rest.slice(4..);
    Some(number)
}

/// No row of a record begins so.
pub(super) const MEMORY_ROW: &[u8] = b"known";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peerage_identity::NodeKey;
    use peerage_machine::Random;

    use super::*;
    use crate::{AcceptAll, DhtConfig, Mode};

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), unix: Duration::from_secs(1_800_000_000 + seconds) }
    }

    fn dht(now: Now) -> Dht {
        let me = NodeKey::from_seed([1; 32]).peer_id();
        Dht::new(DhtConfig::default(), me, Mode::Server, Box::new(AcceptAll), Random::from_seed([2; 32]), now)
    }

    fn contact(number: u8) -> Contact {
        let address = format!("/ip4/192.0.{number}.7/udp/4400/quic-v1").parse().unwrap();
        Contact::new(NodeKey::from_seed([number; 32]).peer_id(), &[address])
    }

    /// AL-70, dht.md B.7: who was seen and who has been there for long outlive the node; a damaged row costs the memory and nothing else.
    #[test]
    fn whom_a_node_knows_best_and_whom_it_saw_outlive_it() {
        let mut first = dht(at(0));
        first.plant(at(0), (10..40).map(contact));
        (10..40).for_each(|number| first.seen.note(at(number), contact(number as u8).key()));
        let (key, row) = first.memory();

        let mut second = dht(at(100));
        let restored = second.restore(at(100), vec![(key.clone(), row.clone())]);
        assert_eq!(restored, Default::default());
        let seen = second.standing(at(100)).seen;
        assert_eq!((seen.hour, seen.week, seen.unique), (30, 30, 0));
        let known: Vec<_> = second.upkeep.known().iter().map(|contact| *contact.peer()).collect();
        assert!(first.keep().iter().all(|kept| known.contains(kept.peer())) && !known.is_empty());

        // A node that is to remember fewer finds the rest all the same.
        let mut few = dht(at(100));
        let mut config = DhtConfig::default();
        config.upkeep.known_contacts = 3;
        few.config = config.into();
        assert_eq!(few.restore(at(100), vec![(key.clone(), row.clone())]), Default::default());
        assert_eq!(few.standing(at(100)).seen.hour, 30);

        let mut damaged = row.to_vec();
        damaged[20] ^= 1;
        let mut third = dht(at(100));
        assert_eq!(third.restore(at(100), vec![(key, damaged.into())]).damaged, 1);
        assert_eq!(third.standing(at(100)).seen.week, 0);
    }
}
