//! Mailboxes: sealed messages to a peer that may be away, kept by the nodes closest to its mailbox.
//!
//! What a holder knows of a recipient's wishes stands in the mailbox itself: one record there is the recipient's own, the [`MailboxRules`]. They say who may write
//! and which messages have been read. Without rules a mailbox is open to whoever has done the work that the network's configuration asks for.

use bytes::Bytes;
use peerage_identity::{NodeKey, PeerId, verify_signature};
use peerage_wire::dht_record as wire;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{EntryId, Network, Place, RecordFault, place::ed25519_key};

/// The most messages that one set of rules clears: what fits into a body of 4 KiB.
pub const MAX_CLEARED: usize = 250;

/// Who may write to a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailboxPolicy {
    /// Whoever has done the work; whoever has a token needn't.
    Open {
        /// Leading zero bits of the message's hash: each one doubles the work.
        work_bits: u32,
    },
    /// Whoever holds a token of the owner.
    Contacts,
    /// Nobody.
    Closed,
}

impl MailboxPolicy {
    pub(crate) fn to_wire(self) -> wire::MailboxPolicy {
        use wire::mailbox_policy::Mode;
        let (mode, work_bits) = match self {
            Self::Open { work_bits } => (Mode::Open, work_bits),
            Self::Contacts => (Mode::Contacts, 0),
            Self::Closed => (Mode::Closed, 0),
        };
        wire::MailboxPolicy { mode: mode.into(), work_bits }
    }

    /// A mode that this version doesn't know admits contacts only.
    pub(crate) fn from_wire(policy: wire::MailboxPolicy) -> Self {
        use wire::mailbox_policy::Mode;
        match policy.mode() {
            Mode::Open if policy.mode == Mode::Open as i32 => Self::Open { work_bits: policy.work_bits },
            Mode::Closed => Self::Closed,
            Mode::Open | Mode::Contacts => Self::Contacts,
        }
    }
}

/// What the owner of a mailbox keeps in it: who may write, and what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxRules {
    /// Who may write.
    pub policy: MailboxPolicy,
    /// Messages that were read: holders drop them and take them no more. The newest [`MAX_CLEARED`].
    pub cleared: Vec<EntryId>,
}

impl MailboxRules {
    /// As the body of a record.
    pub fn encode(&self) -> Bytes {
        let newest = &self.cleared[self.cleared.len().saturating_sub(MAX_CLEARED)..];
        let cleared: Vec<u8> = newest.iter().flat_map(|id| id.to_bytes()).collect();
        let rules = wire::MailboxRules { policy: Some(self.policy.to_wire()), cleared: cleared.into() };
        rules.encode_to_vec().into()
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`RecordFault::Body`].
    pub fn decode(body: &Bytes) -> Result<Self, RecordFault> {
        let rules = wire::MailboxRules::decode(body.clone()).map_err(|_| RecordFault::Body)?;
        let (ids, rest) = rules.cleared.as_chunks::<16>();
        if !rest.is_empty() || ids.len() > MAX_CLEARED {
            return Err(RecordFault::Body);
        }
        let policy = rules.policy.map_or(MailboxPolicy::Contacts, MailboxPolicy::from_wire);
        Ok(Self { policy, cleared: ids.iter().map(|id| EntryId::from_bytes(*id)).collect() })
    }
}

/// Leave to write to a mailbox, given by its owner to one sender. It is of no use to anybody else, so holders may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxToken;

impl MailboxToken {
    /// The token with which `sender` may write to the mailbox of `owner` until `not_after`, in seconds since 1970.
    pub fn issue(owner: &NodeKey, sender: &PeerId, not_after: u64) -> Bytes {
        let signature = owner.sign(&token_bytes(sender, not_after));
        let token = wire::Token { not_after, signature: Bytes::copy_from_slice(&signature) };
        token.encode_to_vec().into()
    }

    /// Whether `token` lets `sender` write to the mailbox of `owner` at the time `unix`.
    pub fn admits(token: &Bytes, owner: &PeerId, sender: &PeerId, unix: u64) -> bool {
        let (Ok(token), Some(key)) = (wire::Token::decode(token.clone()), ed25519_key(owner)) else {
            return false;
        };
        token.not_after > unix
            && verify_signature(&key, &token_bytes(sender, token.not_after), &token.signature)
    }
}

/// What a message's payload is sealed for ([`peerage_identity::seal_to`]): this network, this sender, this recipient. The sender is who signed the record.
pub fn mailbox_context(network: &Network, sender: &PeerId, recipient: &PeerId) -> Vec<u8> {
    let head = format!("peerage mailbox 1 {network} ").into_bytes();
    [head, sender.to_bytes(), recipient.to_bytes()].concat()
}

/// Finds the number that gives a message the work that is asked for; 2^bits tries are needed on average. It takes time, a few million a second: `go_on` is asked after each 65,536
/// tries, with how many there were, and ends it.
pub fn solve_work(
    network: &Network,
    place: &Place,
    sender: &PeerId,
    seq: u64,
    body: &[u8],
    bits: u32,
    mut go_on: impl FnMut(u64) -> bool,
) -> Option<u64> {
    let start = work_start(&place.name(network), sender, seq, &Sha256::digest(body).into());
    let mut next = 0u64;
    while go_on(next) {
        let end = next.checked_add(1 << 16)?;
        if let Some(work) = (next..end).find(|work| zero_bits(&start, *work) >= bits) {
            return Some(work);
        }
        next = end;
    }
    None
}

/// Whether a message has the work that is asked for.
pub fn meets_work(record: &super::Claim, bits: u32) -> bool {
    if bits == 0 {
        return true;
    }
    let version = record.version();
    let start = work_start(record.target().name(), &record.publisher(), version.seq, &version.body_hash);
    zero_bits(&start, record.work()) >= bits
}

fn work_start(name: &[u8], sender: &PeerId, seq: u64, body_hash: &[u8; 32]) -> Sha256 {
    Sha256::new()
        .chain_update(b"peerage mailbox work 1")
        .chain_update((name.len() as u64).to_be_bytes())
        .chain_update(name)
        .chain_update(sender.to_bytes())
        .chain_update(seq.to_be_bytes())
        .chain_update(body_hash)
}

fn zero_bits(start: &Sha256, work: u64) -> u32 {
    let hash: [u8; 32] = start.clone().chain_update(work.to_be_bytes()).finalize().into();
    let (first, _) = hash.as_chunks::<16>();
    first.first().map_or(0, |bytes| u128::from_be_bytes(*bytes).leading_zeros())
}

fn token_bytes(sender: &PeerId, not_after: u64) -> Vec<u8> {
    [&b"peerage mailbox token 1"[..], &sender.to_bytes(), &not_after.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::{key, peer};
    use crate::record::{Draft, Record};
    use proptest::prelude::*;

    fn network() -> Network {
        Network::new("acme").unwrap()
    }

    #[test]
    fn rules_come_back_and_hold_a_bounded_number_of_cleared_messages() {
        let id = |number: u64| EntryId::from_bytes(u128::from(number).to_be_bytes());
        for policy in [MailboxPolicy::Open { work_bits: 20 }, MailboxPolicy::Contacts, MailboxPolicy::Closed]
        {
            let rules = MailboxRules { policy, cleared: (0..MAX_CLEARED as u64).map(id).collect() };
            assert!(rules.encode().len() <= 4096);
            assert_eq!(MailboxRules::decode(&rules.encode()), Ok(rules));
        }
        let more = MailboxRules { policy: MailboxPolicy::Closed, cleared: (0..300).map(id).collect() };
        let read = MailboxRules::decode(&more.encode()).unwrap();
        assert_eq!((read.cleared.len(), read.cleared[0]), (MAX_CLEARED, id(50)));
    }

    #[test]
    fn a_policy_of_a_later_version_admits_contacts_only() {
        let wire = wire::MailboxPolicy { mode: 77, work_bits: 0 };
        assert_eq!(MailboxPolicy::from_wire(wire), MailboxPolicy::Contacts);
    }

    #[test]
    fn a_token_is_good_for_one_sender_one_mailbox_and_a_time() {
        let token = MailboxToken::issue(&key(1), &peer(2), 100);
        assert!(MailboxToken::admits(&token, &peer(1), &peer(2), 99));
        assert!(!MailboxToken::admits(&token, &peer(1), &peer(2), 100));
        assert!(!MailboxToken::admits(&token, &peer(1), &peer(3), 99));
        assert!(!MailboxToken::admits(&token, &peer(3), &peer(2), 99));
        assert!(token.len() <= super::super::MAX_TOKEN_BYTES);
    }

    #[test]
    fn work_is_found_and_is_good_for_one_message() {
        let place = Place::Mailbox { recipient: peer(1), slot: 0 };
        let work = solve_work(&network(), &place, &peer(2), 7, b"hello", 8, |tried| tried < 1 << 20).unwrap();
        let signed = |sender: u64, seq, body: &'static [u8], work| {
            let draft = Draft { work, ..Draft::new(place.clone(), seq, 9, Bytes::from_static(body)) };
            Record::sign(&key(sender), &network(), draft).unwrap()
        };
        assert!(meets_work(&signed(2, 7, b"hello", work), 8));
        let others = (0..64).filter(|at| {
            let record = signed(2, 8 + at, b"hello", work);
            meets_work(&record, 8)
        });
        assert!(others.count() < 8);
        assert_eq!(solve_work(&network(), &place, &peer(2), 7, b"hello", 60, |tried| tried < 10), None);
    }

    #[test]
    fn a_longer_life_needs_no_new_work() {
        let place = Place::Mailbox { recipient: peer(1), slot: 0 };
        let work = solve_work(&network(), &place, &peer(2), 7, b"x", 6, |tried| tried < 1 << 20).unwrap();
        let draft = Draft { work, ..Draft::new(place, 7, 9, Bytes::from_static(b"x")) };
        let record = Record::sign(&key(2), &network(), draft).unwrap();
        assert!(meets_work(&record.extended(&key(2), 99).unwrap(), 6));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(noise: Vec<u8>) {
            let noise = Bytes::from(noise);
            let _ = MailboxRules::decode(&noise);
            prop_assert!(!MailboxToken::admits(&noise, &peer(1), &peer(2), 0));
        }
    }
}
