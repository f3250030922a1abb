//! What holders tell each other, as `proto/dht_repair.proto` encodes it, read within bounds.

use bytes::Bytes;
use peerage_wire::dht_repair as wire;
use prost::Message;

use super::{Digest, Prefix, Scope};
use crate::record::{EntryId, Version};
use crate::{MAX_REPAIR_BYTES, MAX_VALUE_BYTES, Target};

/// The most digests of a message.
pub const MAX_DIGESTS: usize = 64;
/// The most items of a message.
pub const MAX_ITEMS: usize = 128;
/// The most hashes of a message, in all its lists.
pub const MAX_HASHES: usize = 512;
/// The most IDs that are asked for or about.
pub const MAX_IDS: usize = 128;
/// The most records of a message.
pub const MAX_RECORDS: usize = 64;

/// The bytes are no repair message, or one beyond its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what a holder sent to compare records cannot be read")]
pub struct Malformed;

/// A question or an answer between holders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairMessage {
    /// The sender's clock, in seconds since 1970.
    pub unix: u64,
    /// What the sender has.
    pub digests: Vec<(Prefix, Digest)>,
    /// What stands in parts.
    pub lists: Vec<List>,
    /// Records that the other side has asked about, and that are there.
    pub items: Vec<Item>,
    /// Records that the sender asks for, by hashes that the receiver has listed.
    pub want: Vec<u64>,
    /// Records.
    pub records: Vec<Bytes>,
    /// Records that the sender asks about.
    pub have: Vec<EntryId>,
    /// What became of the records of the question.
    pub verdicts: Vec<Verdict>,
    /// What is reckoned in beside the records.
    pub scope: Scope,
    /// What the sender has within that scope, where a comparison begins and it is more than the digest of the records alone says.
    pub whole: Option<Digest>,
}

/// A value of a validator's namespace, as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawValue {
    /// Where it stands.
    pub target: Target,
    /// The value.
    pub value: Bytes,
    /// For so many seconds more it is kept.
    pub life: u64,
    /// The hash by which it was asked for.
    pub hash: u64,
}

impl RawValue {
    /// As it stands among records.
    pub fn encode(&self) -> Bytes {
        let key = Bytes::copy_from_slice(self.target.name());
        wire::Raw { key, value: self.value.clone(), life: self.life, hash: self.hash }.encode_to_vec().into()
    }

    /// Reads one; `None` where it is none, such as a record.
    pub fn read(bytes: &Bytes) -> Option<Self> {
        let raw = wire::Raw::decode(bytes.clone()).ok()?;
        let target = Target::new(&raw.key)?;
        let wire::Raw { value, life, hash, .. } = raw;
        (value.len() <= MAX_VALUE_BYTES).then_some(Self { target, value, life, hash })
    }
}

/// What stands in a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The part.
    pub prefix: Prefix,
    /// The first bytes of the hash of each of its records that both should have.
    pub hashes: Vec<u64>,
}

/// A record, shortly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub id: EntryId,
    /// Its sequence number.
    pub seq: u64,
    /// When it expires, in seconds since 1970.
    pub not_after: u64,
    /// The first bytes of its body's hash.
    pub hash: u64,
}

impl Item {
    /// Of a record.
    pub fn of(id: EntryId, version: &Version) -> Self {
        let hash = version.body_hash[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self { id, seq: version.seq, not_after: version.not_after, hash }
    }

    /// Of a value of a validator's namespace, by as much of its rank as there is room for.
    pub(super) fn of_raw(id: EntryId, rank: &[u8], hash: u64) -> Self {
        let part = |from: usize| {
            let bytes = rank.iter().skip(from).chain(std::iter::repeat(&0)).take(8);
            bytes.fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Self { id, seq: part(0), not_after: part(8), hash }
    }

    /// Greater the newer the record is.
    pub fn rank(&self) -> (u64, u64, u64) {
        (self.seq, self.not_after, self.hash)
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is stored.
    Stored,
    /// It, or a newer one, was there.
    Known,
    /// There is no room now.
    Busy,
    /// It is not taken, or this version doesn't know what became of it.
    Refused,
}

impl RepairMessage {
    /// The message of a node with this clock.
    pub fn at(unix: u64) -> Self {
        Self { unix, ..Self::default() }
    }

    /// As bytes. The sender keeps it within [`MAX_REPAIR_BYTES`]: see [`RepairMessage::wire_bytes`].
    pub fn encode(&self) -> Bytes {
        let id = |id: &EntryId| Bytes::copy_from_slice(&id.to_bytes());
        let item = |item: &Item| wire::Item {
            id: id(&item.id),
            seq: item.seq,
            not_after: item.not_after,
            hash: Bytes::copy_from_slice(&item.hash.to_be_bytes()),
        };
        let list = |part: &List| wire::List {
            bits: part.prefix.bits(),
            prefix: part.prefix.bytes().into(),
            hashes: part.hashes.clone(),
        };
        let verdict = |verdict: &Verdict| match verdict {
            Verdict::Stored => wire::Verdict::Stored as i32,
            Verdict::Known => wire::Verdict::Known as i32,
            Verdict::Busy => wire::Verdict::Busy as i32,
            Verdict::Refused => wire::Verdict::Refused as i32,
        };
        let message = wire::Repair {
            unix: self.unix,
            digests: self.digests.iter().map(|(prefix, digest)| wire_digest(prefix, digest)).collect(),
            items: self.items.iter().map(item).collect(),
            lists: self.lists.iter().map(list).collect(),
            want: self.want.clone(),
            records: self.records.clone(),
            have: self.have.iter().map(id).collect(),
            verdicts: self.verdicts.iter().map(verdict).collect(),
            scope: self.scope.bits(),
            whole: self.whole.as_ref().map(|whole| wire_digest(&Prefix::ALL, whole)),
        };
        message.encode_to_vec().into()
    }

    /// Reads a message. What is allocated does not exceed a few times its length, which is bounded here.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        if bytes.len() > MAX_REPAIR_BYTES {
            return Err(Malformed);
        }
        let message = wire::Repair::decode(bytes.clone()).map_err(|_| Malformed)?;
        let hashes: usize = message.lists.iter().map(|part| part.hashes.len()).sum();
        let bounded = message.digests.len() <= MAX_DIGESTS
            && message.lists.len() <= MAX_DIGESTS
            && hashes <= MAX_HASHES
            && message.items.len() <= MAX_ITEMS
            && message.want.len() <= MAX_IDS
            && message.have.len() <= MAX_IDS
            && message.records.len() <= MAX_RECORDS
            && message.verdicts.len() <= MAX_RECORDS;
        if !bounded {
            return Err(Malformed);
        }
        Ok(Self {
            unix: message.unix,
            digests: message.digests.iter().map(read_digest).collect::<Result<_, _>>()?,
            lists: message.lists.into_iter().map(read_list).collect::<Result<_, _>>()?,
            items: message.items.iter().map(read_item).collect::<Result<_, _>>()?,
            want: message.want,
            have: message.have.iter().map(read_id).collect::<Result<_, _>>()?,
            verdicts: message.verdicts.iter().map(|verdict| read_verdict(*verdict)).collect(),
            records: message.records,
            scope: Scope::read(message.scope),
            whole: message.whole.as_ref().map(read_whole).transpose()?,
        })
    }

    /// The bytes that it takes, at most.
    pub fn wire_bytes(&self) -> usize {
        let lists: usize = self.lists.iter().map(|part| 20 + part.hashes.len() * 8).sum();
        let records: usize = self.records.iter().map(|record| record.len() + 4).sum();
        let scope = if self.scope == Scope::default() { 0 } else { 2 };
        24 + self.digests.len() * 44
            + scope
            + self.whole.map_or(0, |_| 30)
            + lists
            + self.want.len() * 8
            + self.items.len() * ITEM_BYTES
            + self.have.len() * ID_BYTES
            + records
            + self.verdicts.len() * 2
            + 4
    }
}

fn wire_digest(prefix: &Prefix, digest: &Digest) -> wire::Digest {
    wire::Digest {
        bits: prefix.bits(),
        prefix: prefix.bytes().into(),
        count: digest.count,
        sum: Bytes::copy_from_slice(&digest.sum.to_be_bytes()),
    }
}

fn read_whole(digest: &wire::Digest) -> Result<Digest, Malformed> {
    let (prefix, digest) = read_digest(digest)?;
    (prefix == Prefix::ALL).then_some(digest).ok_or(Malformed)
}

fn read_digest(digest: &wire::Digest) -> Result<(Prefix, Digest), Malformed> {
    let prefix = Prefix::read(digest.bits, &digest.prefix).ok_or(Malformed)?;
    let sum = u128::from_be_bytes(digest.sum[..].try_into().map_err(|_| Malformed)?);
    Ok((prefix, Digest { count: digest.count, sum }))
}

fn read_list(part: wire::List) -> Result<List, Malformed> {
    let prefix = Prefix::read(part.bits, &part.prefix).ok_or(Malformed)?;
    Ok(List { prefix, hashes: part.hashes })
}

fn read_item(item: &wire::Item) -> Result<Item, Malformed> {
    let hash = u64::from_be_bytes(item.hash[..].try_into().map_err(|_| Malformed)?);
    Ok(Item { id: read_id(&item.id)?, seq: item.seq, not_after: item.not_after, hash })
}

fn read_id(id: &Bytes) -> Result<EntryId, Malformed> {
    id[..].try_into().map(EntryId::from_bytes).map_err(|_| Malformed)
}

fn read_verdict(verdict: i32) -> Verdict {
    match wire::Verdict::try_from(verdict) {
        Ok(wire::Verdict::Stored) => Verdict::Stored,
        Ok(wire::Verdict::Known) => Verdict::Known,
        Ok(wire::Verdict::Busy) => Verdict::Busy,
        _ => Verdict::Refused,
    }
}

/// The bytes of an item on the wire, at most.
pub(super) const ITEM_BYTES: usize = 54;
/// What a name takes in a message.
pub(super) const ID_BYTES: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> RepairMessage {
        let id = |number: u128| EntryId::from_bytes(number.to_be_bytes());
        let item = Item { id: id(9), seq: u64::MAX, not_after: u64::MAX, hash: u64::MAX };
        let deep = Prefix::read(60, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]).unwrap();
        RepairMessage {
            unix: u64::MAX,
            digests: vec![(deep, Digest { count: u32::MAX, sum: u128::MAX }); 16],
            lists: vec![List { prefix: deep, hashes: vec![u64::MAX; 20] }; 2],
            items: vec![item; 20],
            want: vec![u64::MAX; 3],
            records: vec![Bytes::from_static(&[7; 500]); 3],
            have: vec![id(2); 3],
            verdicts: vec![Verdict::Stored, Verdict::Known, Verdict::Busy, Verdict::Refused],
            scope: Scope::ALL,
            whole: Some(Digest { count: u32::MAX, sum: u128::MAX }),
        }
    }

    /// What neither is taken for the other stands beside each other in one list.
    #[test]
    fn a_raw_value_comes_back_and_is_no_record_nor_a_record_one() {
        use crate::numbered::{key, peer};
        use crate::record::{Draft, Network, Place, Record, Unverified};
        let network = Network::new("acme").unwrap();
        let raw = RawValue {
            target: Target::new(b"/chat/x").unwrap(),
            value: Bytes::from_static(b"y"),
            life: 7,
            hash: 8,
        };
        assert_eq!(RawValue::read(&raw.encode()), Some(raw.clone()));
        assert!(Unverified::read(&network, &raw.encode()).is_err());
        let place = Place::Value { publisher: peer(1), salt: Bytes::new() };
        let record = Record::sign(&key(1), &network, Draft::new(place, 1, 9, raw.value.clone())).unwrap();
        assert_eq!(RawValue::read(&record.to_bytes()), None);
        let long = RawValue { value: vec![0; MAX_VALUE_BYTES + 1].into(), ..raw };
        assert_eq!(RawValue::read(&long.encode()), None);
    }

    #[test]
    fn a_message_comes_back_and_takes_no_more_than_it_says() {
        let bytes = full().encode();
        assert!(bytes.len() <= full().wire_bytes(), "{} of {}", bytes.len(), full().wire_bytes());
        assert_eq!(RepairMessage::decode(&bytes), Ok(full()));
    }

    #[test]
    fn a_message_beyond_its_bounds_is_refused() {
        let id = EntryId::from_bytes([0; 16]);
        let item = Item { id, seq: 0, not_after: 0, hash: 0 };
        let part = |count| List { prefix: Prefix::ALL, hashes: vec![7; count] };
        let digest = (Prefix::ALL, Digest::default());
        let beyond = [
            RepairMessage { digests: vec![digest; MAX_DIGESTS + 1], ..full() },
            RepairMessage { lists: vec![part(MAX_HASHES), part(1)], ..RepairMessage::at(0) },
            RepairMessage { lists: vec![part(0); MAX_DIGESTS + 1], ..RepairMessage::at(0) },
            RepairMessage { items: vec![item; MAX_ITEMS + 1], ..RepairMessage::at(0) },
            RepairMessage { want: vec![7; MAX_IDS + 1], ..RepairMessage::at(0) },
            RepairMessage { have: vec![id; MAX_IDS + 1], ..RepairMessage::at(0) },
            RepairMessage { records: vec![Bytes::new(); MAX_RECORDS + 1], ..RepairMessage::at(0) },
            RepairMessage { records: vec![Bytes::from(vec![0; MAX_REPAIR_BYTES])], ..RepairMessage::at(0) },
        ];
        for message in beyond {
            assert_eq!(RepairMessage::decode(&message.encode()), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(noise: Vec<u8>) {
            if let Ok(message) = RepairMessage::decode(&noise.into()) {
                prop_assert_eq!(RepairMessage::decode(&message.encode()), Ok(message));
            }
        }
    }
}
