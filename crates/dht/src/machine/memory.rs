//! What of a node, besides its records, is worth rows on its disk: whom it knows best, whom it saw lately (AL-70), and how large it found the network to be.

use bytes::{BufMut, Bytes, BytesMut};
use peerage_identity::{DialAddress, decode_peer_id};
use peerage_machine::{Machine as _, Now};

use super::{Dht, Input, Source};
use crate::Contact;
use crate::estimate::SizeEstimate;
use crate::store::disk::{checked, put_part, take_part, unchecked};

impl Dht {
    /// The rows to write, at most once in a while and at the end of the node: peers that have been there for long, the nearest of the table, some of each other bucket and who was seen
    /// when; and what was measured of the network's size. [`Dht::restore`] takes them back in. Beside the records' rows they have keys of their own.
    pub fn memory(&self, now: Now) -> Vec<(Bytes, Bytes)> {
        vec![self.memory_of_peers(), self.memory_of_sizes(now)]
    }

    fn memory_of_peers(&self) -> (Bytes, Bytes) {
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

    /// What was measured is of one network, and reckoned with one `k`.
    fn memory_of_sizes(&self, now: Now) -> (Bytes, Bytes) {
        let mut out = BytesMut::new();
        put_part(&mut out, self.network().as_bytes());
        out.put_u32(self.config.table.k as u32);
        for (at, share) in self.size.save(now) {
            out.put_u64(at);
            out.put_f64(share);
        }
        (Bytes::from_static(SIZES_ROW), checked(SIZES_ROW, &out))
    }

    fn network(&self) -> &str {
        self.holder.as_ref().map(|holder| holder.records.network().as_str()).unwrap_or_default()
    }

    /// Whether a row is one of [`Dht::memory`].
    pub(super) fn is_memory(key: &[u8]) -> bool {
        key == MEMORY_ROW || key == SIZES_ROW
    }

    /// Takes in what an earlier run remembered. False when the row is damaged.
    pub(super) fn recall(&mut self, now: Now, key: &[u8], row: &Bytes) -> bool {
        match key == SIZES_ROW {
            true => self.recall_sizes(now, row),
            false => self.recall_peers(now, row),
        }
    }

    /// Who knows how large the network is need not find out before anything else.
    fn recall_sizes(&mut self, now: Now, row: &Bytes) -> bool {
        let Some(mut row) = unchecked(SIZES_ROW, row) else { return false };
        let Some(network) = take_part(&mut row) else { return false };
        let Some(k) = take_u32(&mut row) else { return false };
        if network == self.network().as_bytes() && k as usize == self.config.table.k {
            let sample = |entry: &[u8]| {
                let (at, share) = entry.split_first_chunk::<8>()?;
                Some((u64::from_be_bytes(*at), f64::from_be_bytes(share.try_into().ok()?)))
            };
            self.size.load(now, row.chunks_exact(16).take(SizeEstimate::MOST).filter_map(sample));
            if self.size.samples() >= self.config.upkeep.settled_samples {
                self.upkeep.resume(&self.config.upkeep, now);
            }
        }
        true
    }

    /// The peers are as the address book's: they prove themselves before they count, and who has no part in joining waits for a place.
    fn recall_peers(&mut self, now: Now, row: &Bytes) -> bool {
        let Some((contacts, seen)) = unchecked(MEMORY_ROW, row).and_then(|row| self.read(row)) else {
            return false;
        };
        self.seen.load(now, seen);
        if !contacts.is_empty() {
            contacts.iter().for_each(|contact| self.table.heard(contact));
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
const MEMORY_ROW: &[u8] = b"known";
const SIZES_ROW: &[u8] = b"sizes";

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
        let (key, row) = first.memory_of_peers();

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

        // Whom it knew waits for a place, too; nobody of them counts as verified.
        let waiting: usize = second.table.buckets().map(|(_, _, waiting)| waiting).sum();
        assert!(waiting > 0 && second.table.is_empty());

        let mut damaged = row.to_vec();
        damaged[20] ^= 1;
        let mut third = dht(at(100));
        assert_eq!(third.restore(at(100), vec![(key, damaged.into())]).damaged, 1);
        assert_eq!(third.standing(at(100)).seen.week, 0);
    }

    /// Those who are kept stand in all buckets, not near us alone: lookups of places far away begin with them.
    #[test]
    fn whoever_is_kept_stands_in_each_bucket() {
        let mut first = dht(at(0));
        first.plant(at(0), (2..250).map(contact));
        let kept = first.keep();
        assert_eq!(kept.len(), 64);
        let bucket = |key: &crate::Key| key.distance(&first.key).share().log2().ceil() as i32;
        let far = |least: i32| kept.iter().filter(|kept| bucket(kept.key()) == least).count();
        assert!(
            (0..4).all(|back| far(-back) >= 4),
            "{:?}",
            (0..4).map(|back| far(-back)).collect::<Vec<_>>()
        );
    }

    /// What was measured of the network outlives the node for as long as it would have counted: then no lookups for the size come first.
    #[test]
    fn the_size_outlives_the_node_while_it_counts() {
        let mut first = dht(at(0));
        first.plant_size(at(10_000), 5000.0, 30);
        let rows = first.memory(at(12_000));
        let size = first.size.size(at(12_000)).unwrap();
        // The clock of a new run begins anew; the time of day does not.
        let later = |seconds: u64| Now { mono: Duration::from_secs(7), unix: at(seconds).unix };

        let mut second = dht(later(13_000));
        assert_eq!(second.restore(later(13_000), rows.clone()), Default::default());
        assert!((second.size.size(later(13_000)).unwrap() / size - 1.0).abs() < 1e-9);
        assert_eq!(second.upkeep.early, 0);
        let end = Now { mono: Duration::from_secs(7 + 6 * 3600 - 2990), unix: at(31_610).unix };
        assert_eq!(second.size.size(end), None, "six hours after it was measured");

        // Too long ago, of a time that has not been, in rows that are damaged, cut or of another k: the size is measured anew.
        let mut of_k = dht(later(13_000));
        let mut config = DhtConfig::default();
        config.table.k = 8;
        of_k.config = config.into();
        let cut: Vec<_> = rows.iter().map(|(key, row)| (key.clone(), row.slice(..row.len() - 1))).collect();
        let cases = [
            (dht(later(40_000)), later(40_000), rows.clone(), 0),
            (dht(later(5_000)), later(5_000), rows.clone(), 0),
            (dht(later(13_000)), later(13_000), cut, 2),
            (of_k, later(13_000), rows, 0),
        ];
        for (number, (mut other, now, rows, damaged)) in cases.into_iter().enumerate() {
            assert_eq!(other.restore(now, rows).damaged, damaged, "{number}");
            assert_eq!(other.size.samples(), 0, "{number}");
            assert_eq!(other.upkeep.early, 12, "{number}");
        }
    }
}
